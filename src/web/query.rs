//! The query of an address, and how its values are written.

use crate::web::answer::Problem;

/// The query of an address. Values are bytes, as names in snapshots are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Parses a query.
    pub fn read(text: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (String::from_utf8_lossy(&decode(name)).into_owned(), decode(value))
        };
        Self(text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect())
    }

    /// A value.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }

    /// A value that must be present, and be text.
    ///
    /// # Errors
    /// If it is missing or not text.
    pub fn text(&self, name: &str) -> Result<&str, Problem> {
        let text = self.bytes(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.ok_or_else(|| Problem::usage(format!("{name} is missing")))
    }

    /// A number, or the default if it is missing.
    ///
    /// # Errors
    /// If the value is not a number.
    pub fn number(&self, name: &str, default: u64) -> Result<u64, Problem> {
        if self.bytes(name).is_none() {
            return Ok(default);
        }
        self.text(name)?.parse().map_err(|_| Problem::usage(format!("{name} is no number")))
    }

    /// The path in a snapshot, without slashes at its ends.
    pub fn path(&self) -> Vec<u8> {
        crate::path::components(self.bytes("path").unwrap_or_default()).collect::<Vec<_>>().join(&b'/')
    }
}

/// Decodes the percent-encoding of an address.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    out
}

/// Decodes hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)).collect()
}
