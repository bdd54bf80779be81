//! An object storage server in this process, which can be made to fail in all ways of real ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};

use super::faults::Faults;

/// The key with which requests must be signed; only real servers verify the signatures.
pub const KEY: &str = "AKFAKE";

/// Kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Put,
    Get,
    Head,
    List,
    Delete,
    Copy,
}

/// Fault of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status and code, before anything is done.
    Status(u16, &'static str),
    /// The same, with a number of seconds to wait.
    Wait(u16, &'static str, u64),
    /// The same after it was done.
    Late(u16, &'static str),
    /// The answer is a page of another server on the line.
    Page(u16),
    /// The connection closes before the whole request was read.
    Close,
    /// The connection closes after it was done.
    Lose,
    /// Answered as done, although nothing was done.
    Forget,
    /// Half of a put object is kept; half of a read one is sent.
    Half,
    /// The tag of another content.
    Tag,
    /// The whole object is sent, although a part was requested, without any mark of that.
    Whole,
    /// A part is sent without the status for parts.
    Unsaid,
    /// Nothing is sent, as long as the client waits.
    Hang,
    /// The answer is sent slowly.
    Drip,
    /// The bucket is in another region.
    Region(&'static str),
}

/// The server's objects, and its requests.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    faults: Faults<Op, Fault>,
    asked: Vec<(Op, String)>,
    /// The storage classes that objects were put with.
    classes: BTreeMap<String, String>,
    /// How long each request takes.
    delay: Duration,
    /// Requests under way, and the most at a time.
    under_way: (usize, usize),
    /// Whether it accepts bodies that do not match their digest.
    ignores_digests: bool,
    /// Whether it keeps versions, and how new objects are locked.
    versions: bool,
    locked: Option<(&'static str, &'static str)>,
    /// Whether it ignores conditions.
    is_simple: bool,
    /// The objects at the last list, which the next list shows.
    late: Option<BTreeMap<String, Bytes>>,
}

/// The server. It ends when it is dropped.
pub struct FakeS3 {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeS3 {
    /// Starts a server that lists `page` objects in a page.
    pub fn start(page: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), state: Arc::default(), ends: Arc::default() };
        let (state, ends) = (server.state.clone(), server.ends.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Relaxed) {
                    return;
                }
                let (Ok(stream), state, ends) = (stream, state.clone(), ends.clone()) else { continue };
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    let _ = serve(&stream, &state, &ends, page);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        server
    }

    /// An address of a vault in a bucket of it.
    pub fn vault(&self, prefix: &str) -> String {
        format!("s3+http://{}/bucket/{prefix}", self.address)
    }

    /// Makes the next requests of this kind fail in these ways, `None` for one that succeeds.
    pub fn script(&self, op: Op, faults: impl IntoIterator<Item = Option<Fault>>) {
        lock(&self.state).faults.script(op, faults);
    }

    /// Makes the next request of this kind fail.
    pub fn fail(&self, op: Op, fault: Fault) {
        self.script(op, [Some(fault)]);
    }

    /// Makes each request of this kind fail from now on.
    pub fn always(&self, op: Op, fault: Fault) {
        lock(&self.state).faults.always(op, fault);
    }

    /// Makes nothing fail from now on.
    pub fn heal(&self) {
        lock(&self.state).faults.heal();
    }

    /// Makes conditional puts replace existing objects, as on some servers.
    pub fn ignore_conditions(&self) {
        lock(&self.state).is_simple = true;
    }

    /// Makes each list show the objects of the time of the list before.
    pub fn list_late(&self) {
        lock(&self.state).late = Some(BTreeMap::new());
    }

    /// Makes it accept bodies that do not match their digest.
    pub fn ignore_digests(&self) {
        lock(&self.state).ignores_digests = true;
    }

    /// Makes it keep versions, and lock new objects in this mode until this date.
    pub fn lock_objects(&self, mode: &'static str, until: &'static str) {
        let mut state = lock(&self.state);
        (state.versions, state.locked) = (true, Some((mode, until)));
    }

    /// Makes each request take this long.
    pub fn take_time(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// The largest number of requests under way at a time since the last call.
    pub fn most_under_way(&self) -> usize {
        std::mem::take(&mut lock(&self.state).under_way.1)
    }

    /// The storage classes that objects were put with, by name.
    pub fn classes(&self) -> BTreeMap<String, String> {
        lock(&self.state).classes.clone()
    }

    /// The requests since the last call.
    pub fn asked(&self) -> Vec<(Op, String)> {
        std::mem::take(&mut lock(&self.state).asked)
    }

    /// Number of requests of a kind since the last call of [`FakeS3::asked`].
    pub fn count(&self, op: Op) -> usize {
        lock(&self.state).asked.iter().filter(|(other, _)| *other == op).count()
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        lock(&self.state).objects.keys().cloned().collect()
    }

    /// Puts an object there.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        lock(&self.state).objects.insert(name.to_owned(), Bytes::copy_from_slice(bytes));
    }
}

impl Drop for FakeS3 {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// A request.
struct Request {
    method: String,
    /// The name of the object, without the bucket.
    name: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = std::str::from_utf8(behind.get(..2).unwrap_or_default()).ok();
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            bytes.push(byte);
            rest = &behind[2..];
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = behind;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Reads the head of a request. Returns it with the length of its body.
fn read(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<(Request, usize)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    });
    let name =
        decoded(path).trim_start_matches('/').split_once('/').map_or_else(String::new, |(_, name)| name.to_owned());
    let len = headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let request = Request { method, name, query: query.collect(), headers, body: Vec::new() };
    Ok(Some((request, len)))
}

fn op(request: &Request) -> Op {
    match request.method.as_str() {
        "PUT" if request.headers.contains_key("x-amz-copy-source") => Op::Copy,
        "PUT" => Op::Put,
        "HEAD" => Op::Head,
        "GET" if request.query.contains_key("list-type") => Op::List,
        "GET" => Op::Get,
        "POST" | "DELETE" => Op::Delete,
        other => panic!("{other} is not expected"),
    }
}

/// An answer.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Answer {
    fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said so</Message></Error>");
        Self::new(status, if code.is_empty() { String::new() } else { body })
    }
}

fn tag(bytes: &[u8]) -> String {
    let digits = Md5::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    format!("\"{digits}\"")
}

/// Ends a request under way.
struct UnderWay<'s>(&'s Mutex<State>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(self.0).under_way.0 -= 1;
    }
}

/// Serves the requests of one connection.
fn serve(stream: &TcpStream, state: &Mutex<State>, ends: &AtomicBool, page: usize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some((mut request, len)) = read(&mut reader)? {
        let op = op(&request);
        let (fault, delay) = {
            let mut state = lock(state);
            state.asked.push((op, request.name.clone()));
            state.under_way.0 += 1;
            state.under_way.1 = state.under_way.1.max(state.under_way.0);
            (state.faults.take(&op), state.delay)
        };
        let under_way = UnderWay(state);
        thread::sleep(delay);
        if fault == Some(Fault::Close) {
            return Ok(());
        }
        request.body = vec![0; len];
        reader.read_exact(&mut request.body)?;
        let signed =
            request.headers.get("authorization").is_some_and(|value| value.contains(&format!("Credential={KEY}/")));
        let mut out = stream;
        let mut answer = match &fault {
            _ if !signed => Answer::error(403, "InvalidAccessKeyId"),
            Some(Fault::Status(status, code)) => Answer::error(*status, code),
            Some(Fault::Wait(status, code, seconds)) => {
                let mut answer = Answer::error(*status, code);
                answer.headers.push(("Retry-After", seconds.to_string()));
                answer
            }
            Some(Fault::Page(status)) => Answer::new(*status, "<html><body>Please sign in</body></html>"),
            Some(Fault::Region(region)) if !request.headers["authorization"].contains(region) => {
                let mut answer = Answer::error(301, "PermanentRedirect");
                answer.headers.push(("x-amz-bucket-region", (*region).to_owned()));
                answer
            }
            Some(Fault::Forget) => {
                let mut answer = Answer::new(200, "");
                answer.headers.push(("ETag", tag(&request.body)));
                answer
            }
            Some(Fault::Half) if op == Op::Put => {
                let tag = tag(&request.body);
                let half = request.body.len() / 2;
                request.body.truncate(half);
                request.headers.remove("content-md5");
                let mut answer = done(&request, op, &mut lock(state), page);
                answer.headers.retain(|(name, _)| *name != "ETag");
                answer.headers.push(("ETag", tag));
                answer
            }
            Some(Fault::Hang) => {
                while !ends.load(Relaxed) && stream.peer_addr().is_ok() {
                    thread::sleep(Duration::from_millis(20));
                    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
                    if stream.peek(&mut [0]).is_ok_and(|len| len == 0) {
                        break;
                    }
                }
                return Ok(());
            }
            Some(Fault::Whole) => {
                request.headers.remove("range");
                done(&request, op, &mut lock(state), page)
            }
            _ => done(&request, op, &mut lock(state), page),
        };
        match &fault {
            Some(Fault::Late(status, code)) => answer = Answer::error(*status, code),
            Some(Fault::Lose) => return Ok(()),
            Some(Fault::Tag) => answer
                .headers
                .iter_mut()
                .filter(|(name, _)| *name == "ETag")
                .for_each(|(_, tag)| *tag = self::tag(b"else")),
            Some(Fault::Unsaid) if answer.status == 206 => answer.status = 200,
            _ => {}
        }
        // The client may ask again as soon as it has the answer.
        drop(under_way);
        let mut head =
            format!("HTTP/1.1 {} Said\r\nDate: Sat, 28 Nov 2026 18:00:00 GMT\r\nServer: Fake\r\n", answer.status);
        if !answer.headers.iter().any(|(name, _)| *name == "Content-Length") {
            write!(head, "Content-Length: {}\r\n", answer.body.len()).unwrap();
        }
        answer.headers.iter().for_each(|(name, value)| write!(head, "{name}: {value}\r\n").unwrap());
        head.push_str("\r\n");
        if op == Op::Head {
            out.write_all(head.as_bytes())?;
            continue;
        }
        if !matches!(fault, Some(Fault::Half | Fault::Drip)) && answer.body.len() < 64 << 10 {
            // In one piece, which avoids delays.
            out.write_all(&[head.as_bytes(), &answer.body].concat())?;
            continue;
        }
        out.write_all(head.as_bytes())?;
        match &fault {
            Some(Fault::Half) if op != Op::Put => {
                out.write_all(&answer.body[..answer.body.len() / 2])?;
                return Ok(());
            }
            Some(Fault::Drip) => {
                for piece in answer.body.chunks(answer.body.len().div_ceil(10).max(1)) {
                    thread::sleep(Duration::from_millis(100));
                    out.write_all(piece)?;
                }
            }
            _ => out.write_all(&answer.body)?,
        }
    }
    Ok(())
}

/// Handles a request.
fn done(request: &Request, op: Op, state: &mut State, page: usize) -> Answer {
    let is_simple = state.is_simple;
    match op {
        Op::Put => {
            let given = request.headers.get("content-md5");
            let is_fit = given.is_none_or(|given| {
                use base64::Engine as _;
                *given == base64::prelude::BASE64_STANDARD.encode(Md5::digest(&request.body))
            });
            if !is_fit && !state.ignores_digests {
                return Answer::error(400, "BadDigest");
            }
            if request.headers.contains_key("if-none-match") && !is_simple && state.objects.contains_key(&request.name)
            {
                return Answer::error(412, "PreconditionFailed");
            }
            let mut answer = Answer::new(200, "");
            answer.headers.push(("ETag", tag(&request.body)));
            if state.versions {
                answer.headers.push(("x-amz-version-id", "v1".to_owned()));
            }
            state.objects.insert(request.name.clone(), Bytes::copy_from_slice(&request.body));
            if let Some(class) = request.headers.get("x-amz-storage-class") {
                assert!(request.headers["authorization"].contains("x-amz-storage-class"), "the class is not signed");
                state.classes.insert(request.name.clone(), class.clone());
            }
            answer
        }
        Op::Copy => {
            let source = decoded(&request.headers["x-amz-copy-source"]);
            let source = source.split_once('/').map_or("", |(_, name)| name);
            match state.objects.get(source).cloned() {
                None => Answer::error(404, "NoSuchKey"),
                Some(bytes) => {
                    state.objects.insert(request.name.clone(), bytes);
                    Answer::new(200, "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>")
                }
            }
        }
        Op::Get | Op::Head => {
            let Some(bytes) = state.objects.get(&request.name).cloned() else {
                return Answer::error(404, if op == Op::Head { "" } else { "NoSuchKey" });
            };
            let tag = tag(&bytes);
            let len = bytes.len() as u64;
            let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
            let mut answer = match range.and_then(|range| range.split_once('-')) {
                None => Answer::new(200, bytes),
                Some((from, to)) => {
                    let from: u64 = from.parse().unwrap();
                    let to = to.parse::<u64>().unwrap().saturating_add(1).min(len);
                    if from >= len {
                        return Answer::error(416, "InvalidRange");
                    }
                    let mut answer = Answer::new(206, bytes.slice(from as usize..to as usize));
                    answer.headers.push(("Content-Range", format!("bytes {from}-{}/{len}", to - 1)));
                    answer
                }
            };
            answer.headers.push(("ETag", tag));
            if let Some((mode, until)) = state.locked {
                answer.headers.push(("x-amz-object-lock-mode", mode.to_owned()));
                answer.headers.push(("x-amz-object-lock-retain-until-date", until.to_owned()));
            }
            answer.headers.push(("Last-Modified", "Sat, 28 Nov 2026 17:00:00 GMT".to_owned()));
            if op == Op::Head {
                answer.headers.push(("Content-Length", len.to_string()));
            }
            answer
        }
        Op::List => {
            let prefix = request.query.get("prefix").cloned().unwrap_or_default();
            let after = request.query.get("continuation-token").cloned().unwrap_or_default();
            let now = &state.objects;
            let before = state.late.as_mut().map(|late| std::mem::replace(late, now.clone()));
            let objects = before.as_ref().unwrap_or(now);
            let mut found = objects.iter().filter(|(name, _)| name.starts_with(&prefix) && **name > after).peekable();
            let mut xml = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
            let mut last = "";
            for (name, bytes) in found.by_ref().take(page) {
                let shown = name.replace('&', "&amp;").replace('<', "&lt;");
                let (len, tag) = (bytes.len(), tag(bytes).replace('"', "&quot;"));
                write!(
                    xml,
                    "<Contents><Key>{shown}</Key><LastModified>2026-11-28T17:00:00.000Z</LastModified>\
                     <ETag>{tag}</ETag><Size>{len}</Size></Contents>"
                )
                .unwrap();
                last = name;
            }
            if found.peek().is_some() {
                let last = last.replace('&', "&amp;");
                write!(xml, "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>")
                    .unwrap();
            }
            xml.push_str("</ListBucketResult>");
            Answer::new(200, xml)
        }
        Op::Delete => {
            if request.method == "DELETE" {
                state.objects.remove(&request.name);
                return Answer::new(204, "");
            }
            let text = String::from_utf8(request.body.clone()).unwrap();
            let mut xml = "<?xml version=\"1.0\"?><DeleteResult>".to_owned();
            for part in text.split("<Key>").skip(1) {
                let name = part.split("</Key>").next().unwrap();
                state.objects.remove(name);
                write!(xml, "<Deleted><Key>{name}</Key></Deleted>").unwrap();
            }
            Answer::new(200, xml + "</DeleteResult>")
        }
    }
}
