//! A plain HTTP client, which sends requests unchanged.

use std::io::{Read, Write};

use serde_json::Value;

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its lines before the body.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.head, String::from_utf8_lossy(&self.body)))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Sends a request as it is, and reads the whole answer.
pub fn exchange(line: impl Read + Write, request: &[u8]) -> Answer {
    try_exchange(line, request).unwrap_or_else(|| panic!("no answer to {}", String::from_utf8_lossy(request)))
}

/// As [`exchange`]. `None`: the connection ended before the head of the answer did.
pub fn try_exchange(mut line: impl Read + Write, request: &[u8]) -> Option<Answer> {
    line.write_all(request).ok()?;
    let mut all = Vec::new();
    let read = line.read_to_end(&mut all);
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    read.unwrap();
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = all[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Some(Answer { status, head, body })
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + len]);
        rest = &rest[end + 2 + len + 2..];
    }
}
