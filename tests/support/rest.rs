//! A server in this process that speaks restic's REST protocol like rclone, and can be made to fail; and rclone itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::faults::Faults;
use super::s3::{Fault, Op};

/// The authorization in requests of `me` with the password `secret`.
const AUTHORIZATION: &str = "Basic bWU6c2VjcmV0";

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    faults: Faults<Op, Fault>,
    asked: Vec<(Op, String)>,
    /// Whether replacing and deleting are refused.
    only_grows: bool,
}

/// The server. It ends when it is dropped.
pub struct FakeRest {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeRest {
    /// Starts one.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), state: Arc::default(), ends: Arc::default() };
        let (state, ends) = (server.state.clone(), server.ends.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Relaxed) {
                    return;
                }
                let (Ok(stream), state) = (stream, state.clone()) else { continue };
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    let _ = serve(&stream, &state);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        server
    }

    /// An address of a vault there.
    pub fn vault(&self, name: &str) -> String {
        format!("rest+http://me@{}/{name}", self.address)
    }

    /// Makes the next request of this kind fail.
    pub fn fail(&self, op: Op, fault: Fault) {
        lock(&self.state).faults.script(op, [Some(fault)]);
    }

    /// Makes each request of this kind fail from now on.
    pub fn always(&self, op: Op, fault: Fault) {
        lock(&self.state).faults.always(op, fault);
    }

    /// Makes nothing fail from now on.
    pub fn heal(&self) {
        lock(&self.state).faults.heal();
    }

    /// Refuses to replace or delete anything from now on.
    pub fn only_grow(&self) {
        lock(&self.state).only_grows = true;
    }

    /// Number of requests of a kind since the last call.
    pub fn count(&self, op: Op) -> usize {
        let mut state = lock(&self.state);
        let before = state.asked.len();
        state.asked.retain(|(other, _)| *other != op);
        before - state.asked.len()
    }

    /// Puts an object there.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        lock(&self.state).objects.insert(name.to_owned(), bytes.to_vec());
    }

    /// The object of this name.
    pub fn object(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.state).objects.get(name).cloned()
    }
}

impl Drop for FakeRest {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

struct Answer {
    status: u16,
    kind: &'static str,
    range: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind: "text/plain", range: None, body: body.into() }
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let op = match method.as_str() {
            "POST" => Op::Put,
            "HEAD" => Op::Head,
            "GET" if path.ends_with('/') => Op::List,
            "GET" => Op::Get,
            "DELETE" => Op::Delete,
            other => panic!("{other} is not expected"),
        };
        let name = path.trim_start_matches('/').to_owned();
        let fault = {
            let mut state = lock(state);
            state.asked.push((op, name.clone()));
            state.faults.take(&op)
        };
        if fault == Some(Fault::Close) {
            return Ok(());
        }
        let len = headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        let mut body = vec![0; len];
        reader.read_exact(&mut body)?;
        let is_known = headers.get("authorization").is_some_and(|value| value == AUTHORIZATION);
        let range = headers.get("range").filter(|_| fault != Some(Fault::Whole)).cloned();
        let done = |body: Vec<u8>| done(&mut lock(state), op, &name, body, range.as_deref());
        let mut answer = match &fault {
            _ if !is_known => Answer::new(401, "Unauthorized"),
            Some(Fault::Status(status, _)) => Answer::new(*status, "said so"),
            Some(Fault::Page(status)) => {
                Answer { kind: "text/html", ..Answer::new(*status, "<html>Please sign in</html>") }
            }
            Some(Fault::Late(status, _)) => {
                done(body);
                Answer::new(*status, "said so")
            }
            // The connection broke in the middle, and the server keeps the received part.
            Some(Fault::Half) if op == Op::Put => {
                body.truncate(len / 2);
                done(body);
                return Ok(());
            }
            Some(Fault::Forget) => Answer::new(200, ""),
            _ => done(body),
        };
        if fault == Some(Fault::Lose) {
            return Ok(());
        }
        let range = answer.range.as_ref().map_or_else(String::new, |range| format!("Content-Range: {range}\r\n"));
        let head = format!(
            "HTTP/1.1 {} X\r\nContent-Type: {}\r\nContent-Length: {}\r\n{range}\r\n",
            answer.status,
            answer.kind,
            answer.body.len()
        );
        let mut out = stream;
        out.write_all(head.as_bytes())?;
        let is_cut = fault == Some(Fault::Half);
        if is_cut {
            let half = answer.body.len() / 2;
            answer.body.truncate(half);
        }
        if op != Op::Head {
            out.write_all(&answer.body)?;
        }
        if is_cut {
            return Ok(());
        }
    }
}

/// Handles a request.
fn done(state: &mut State, op: Op, name: &str, body: Vec<u8>, range: Option<&str>) -> Answer {
    let there = state.objects.get(name);
    match (op, there) {
        (Op::Put, Some(_)) | (Op::Delete, _) if state.only_grows => Answer::new(403, "Forbidden"),
        (Op::Put, _) => {
            state.objects.insert(name.to_owned(), body);
            Answer::new(200, "")
        }
        (Op::Delete, Some(_)) => {
            state.objects.remove(name);
            Answer::new(200, "")
        }
        (Op::List, _) => {
            let below = state.objects.iter().filter(|(path, _)| path.starts_with(name));
            let entry = |(path, bytes): (&String, &Vec<u8>)| serde_json::json!({"name": path.rsplit('/').next().unwrap(), "size": bytes.len()});
            let list = serde_json::Value::from(below.map(entry).collect::<Vec<_>>()).to_string();
            Answer { kind: "application/vnd.x.restic.rest.v2", ..Answer::new(200, list) }
        }
        (_, None) => Answer::new(404, "Not Found"),
        (_, Some(bytes)) => match range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
            None => Answer::new(200, bytes.clone()),
            Some((from, to)) => {
                let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                let (from, to) = (from.min(bytes.len()), (to + 1).min(bytes.len()));
                let range = format!("bytes {from}-{}/{}", to.max(1) - 1, bytes.len());
                Answer { range: Some(range), ..Answer::new(206, &bytes[from.min(to)..to]) }
            }
        },
    }
}

/// Whether rclone is installed here; prints a notice if not.
pub fn has_rclone() -> bool {
    let found = Command::new("rclone").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has = found.is_ok_and(|status| status.success());
    if !has {
        println!("rclone is not installed: not tried");
    }
    has
}
