//! A client of restic's REST protocol, as rclone serves it: any path can be put, read, listed and deleted. The server
//! is remote, or it is rclone as a child of this process, which then reaches any storage that rclone supports.
//!
//! The protocol has no put that fails if the object exists (an append-only server refuses it with 403, others replace
//! the object). So each put first checks that the name is free. Names are random, so only a second try meets a taken
//! one.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, LOCATION, RANGE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use object_store::client::HttpError;
use serde::Deserialize;

use crate::store::remote::http::{Asked, CALL, Call, Transport, time_of};
use crate::store::remote::line::Line;
use crate::store::remote::rclone::Rclone;
use crate::store::remote::runtime::Runtime;
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits, Subject};
use crate::sync::lock;

/// Requests under way.
const LIMITS: StoreLimits = StoreLimits { reads: 8, writes: 4, bytes: 128 << 20 };
/// Lists with lengths.
const LIST: &str = "application/vnd.x.restic.rest.v2";
/// No object is longer than this, so nothing beyond it is requested.
const LEN_MAX: u64 = 1 << 50;
/// The longest list or error message that is read.
const LIST_MAX: u64 = 1 << 30;
/// The folder for objects that are moved aside.
const QUARANTINE: &str = "quarantine";
/// The time that rclone may be silent while it lists: many of its remotes return a list piece by piece.
const LISTING: Duration = Duration::from_secs(15 * 60);

/// The server.
#[derive(Debug)]
pub(super) enum Server {
    /// A server at this URL, which ends with `/`, with the header field that authorizes this client.
    At { url: String, authorization: Option<String> },
    /// rclone as a child of this process.
    Rclone(Rclone),
}

/// A client.
pub(super) struct RestClient {
    runtime: Runtime,
    line: Arc<Line>,
    transport: Transport,
    server: Server,
    /// Objects that this client is putting right now.
    busy: Mutex<HashSet<ObjectKey>>,
    /// Objects that this client began to put, and whose outcome is unknown.
    begun: Mutex<HashSet<ObjectKey>>,
    /// Whether the server has shown that it speaks the protocol.
    is_known: AtomicBool,
    /// The store's clock when it last answered, in seconds since 1970; 0 if unknown.
    time: AtomicI64,
}

impl std::fmt::Debug for RestClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestClient").field("place", &self.line.place()).finish_non_exhaustive()
    }
}

/// An answer.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    /// The body; empty if it is longer than the caller allows.
    body: Bytes,
    /// The object's length, if the answer gives it.
    len: Option<u64>,
    after: Option<Duration>,
}

/// An entry of a list.
#[derive(Deserialize)]
struct Entry {
    name: String,
    size: u64,
}

/// Marks an object as being put, until this is dropped.
struct Busy<'c>(&'c RestClient, ObjectKey);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(&self.0.busy).remove(&self.1);
    }
}

impl RestClient {
    /// A client of a server.
    pub fn new(line: Arc<Line>, transport: Transport, server: Server) -> Result<Self, StoreError> {
        let runtime = Runtime::new().map_err(|error| line.unusable(error.to_string()))?;
        Ok(Self {
            runtime,
            line,
            transport,
            server,
            busy: Mutex::default(),
            begun: Mutex::default(),
            is_known: AtomicBool::new(false),
            time: AtomicI64::new(0),
        })
    }

    /// Makes one request. Reads at most `max` bytes of the answer.
    fn ask(
        &self,
        asked: Asked,
        object: &Subject,
        method: Method,
        path: &str,
        (header, body): (Option<(http::HeaderName, String)>, Bytes),
        max: u64,
    ) -> Result<Reply, StoreError> {
        let (url, authorization) = match &self.server {
            Server::At { url, authorization } => (url.clone(), authorization.clone()),
            Server::Rclone(rclone) => {
                let (url, authorization) = rclone.address(&self.line, asked.action(), object)?;
                (url, Some(authorization))
            }
        };
        let mut request = Request::builder().method(method).uri(format!("{url}{path}"));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.line.unusable(error.to_string()))?;
        let call = Arc::new(Call::default());
        let mut watch = self.line.watch(asked.action(), object.clone());
        if asked == Asked::List && matches!(self.server, Server::Rclone(_)) {
            watch.grant(LISTING);
        }
        let transport = self.transport.clone();
        let work = async move {
            let (parts, mut body) = transport.send(request).await?.into_parts();
            let len = parts.headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
            let mut bytes = Vec::new();
            while len.is_none_or(|len| len <= max)
                && bytes.len() as u64 <= max
                && let Some(frame) = body.frame().await
            {
                if let Ok(data) = frame?.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Ok::<_, HttpError>((parts, Bytes::from(bytes), len))
        };
        let tally = call.tally.clone();
        let done = self.runtime.run(&mut watch, &tally, CALL.scope(call.clone(), work))?;
        let (parts, body, len) = done.map_err(|error| {
            let (kind, what) = call.answer().fault.unwrap_or_else(|| (io::ErrorKind::Other, error.to_string()));
            self.line.unreachable(asked.action(), object.clone(), io::Error::new(kind, what))
        })?;
        if let Some(time) = parts.headers.get(DATE).and_then(|date| time_of(date.to_str().ok()?)) {
            self.time.store(time, Relaxed);
        }
        let is_page = parts.headers.get(CONTENT_TYPE).is_some_and(|of| of.as_bytes().starts_with(b"text/html"));
        if is_page && !matches!(parts.status.as_u16(), 401 | 403) {
            // A server that answers in pages does not speak this protocol.
            return Err(self.unreachable(
                asked,
                object,
                format!("a page of something else was answered ({})", parts.status),
            ));
        }
        Ok(Reply { status: parts.status, headers: parts.headers, body, len, after: call.answer().retry_after })
    }

    fn unreachable(&self, asked: Asked, object: &Subject, what: impl Into<String>) -> StoreError {
        self.line.unreachable(asked.action(), object.clone(), io::Error::other(what.into()))
    }

    /// Turns an unexpected answer into the store error that it stands for.
    fn judge(&self, asked: Asked, object: &Subject, reply: &Reply) -> StoreError {
        let text = String::from_utf8_lossy(&reply.body);
        let said: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
        let told = if said.is_empty() { reply.status.to_string() } else { format!("{}: {said}", reply.status) };
        match reply.status.as_u16() {
            404 => match self.is_there() {
                Ok(()) => StoreError::Missing { object: object.clone() },
                Err(error) => error,
            },
            403 if asked.writes() => StoreError::Denied {
                action: asked.action(),
                object: object.clone(),
                path: self.line.place().to_owned(),
                owner: None,
                source: io::Error::new(io::ErrorKind::PermissionDenied, told),
            },
            401 => self.line.unusable("the user or the password is not taken"),
            416 => StoreError::Short { object: object.clone(), need: 0, have: 0 },
            429 | 503 => StoreError::Throttled { place: self.line.place().to_owned(), after: reply.after },
            507 => StoreError::Full { object: object.clone() },
            300..=399 => {
                let to = reply.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
                self.line.unusable(format!("it has moved to {to}"))
            }
            200..=299 | 408 | 409 | 425 | 500..=599 => self.unreachable(asked, object, told),
            _ => self.line.unusable(told),
        }
    }

    /// Checks that the server speaks the protocol: otherwise its "not found" means nothing.
    fn is_there(&self) -> Result<(), StoreError> {
        if self.is_known.load(Relaxed) { Ok(()) } else { self.entries(Kind::Key).map(drop) }
    }

    /// The names and lengths of the objects in the folder of a kind, and below it.
    fn entries(&self, kind: Kind) -> Result<Vec<Entry>, StoreError> {
        let object = Subject::from(kind);
        let header = Some((ACCEPT, LIST.to_owned()));
        let path = format!("{}/", kind.folder());
        let reply = self.ask(Asked::List, &object, Method::GET, &path, (header, Bytes::new()), LIST_MAX)?;
        let is_list = reply.headers.get(CONTENT_TYPE).is_some_and(|of| of.as_bytes().starts_with(LIST.as_bytes()));
        match reply.status.as_u16() {
            200 if is_list => {
                let listed = serde_json::from_slice::<Option<Vec<Entry>>>(&reply.body);
                let listed = listed.map_err(|_| self.unreachable(Asked::List, &object, "the list is not whole"))?;
                self.is_known.store(true, Relaxed);
                Ok(listed.unwrap_or_default())
            }
            200..=299 | 404 if !self.is_known.load(Relaxed) => Err(self
                .line
                .unusable("it does not speak restic's protocol as rclone does (any path, lists with lengths)")),
            200..=299 | 404 => Err(self.unreachable(Asked::List, &object, "what was answered is no list")),
            _ => Err(self.judge(Asked::List, &object, &reply)),
        }
    }

    fn head(&self, object: &Subject, path: &str) -> Result<u64, StoreError> {
        let nothing = (None, Bytes::new());
        let reply = self.ask(Asked::Read, object, Method::HEAD, path, nothing, u64::MAX)?;
        match (reply.status.as_u16(), reply.len) {
            (200, Some(len)) => {
                self.is_there()?;
                Ok(len)
            }
            (200, None) => Err(self.unreachable(Asked::Read, object, "the length is not told")),
            _ => Err(self.judge(Asked::Read, object, &reply)),
        }
    }

    fn read(&self, object: &Subject, path: &str, max: u64) -> Result<Result<Bytes, u64>, StoreError> {
        let reply = self.ask(Asked::Read, object, Method::GET, path, (None, Bytes::new()), max)?;
        if reply.status != StatusCode::OK {
            return Err(self.judge(Asked::Read, object, &reply));
        }
        self.is_there()?;
        match reply.len {
            Some(len) if len > max => Ok(Err(len)),
            None if reply.body.len() as u64 > max => Ok(Err(self.head(object, path)?)),
            Some(len) if len != reply.body.len() as u64 => {
                Err(self.unreachable(Asked::Read, object, "the answer was cut short"))
            }
            _ => Ok(Ok(reply.body)),
        }
    }

    fn post(&self, asked: Asked, object: &Subject, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        let reply = self.ask(asked, object, Method::POST, path, (None, bytes), LIST_MAX)?;
        match reply.status.as_u16() {
            200 | 201 | 204 => Ok(()),
            404 => Err(self.line.unusable("it takes no objects under the names that a vault gives")),
            _ => Err(self.judge(asked, object, &reply)),
        }
    }

    /// Deletes the leftover of an earlier put of this object: the beginning of its bytes.
    fn remove_rest(&self, key: &ObjectKey, bytes: &Bytes) -> Result<bool, StoreError> {
        let object = Subject::from(key);
        let Ok(there) = self.read(&object, &key.to_string(), bytes.len() as u64)? else { return Ok(false) };
        if there.len() >= bytes.len() || !bytes.starts_with(&there) {
            return Ok(false);
        }
        self.delete(key).map(|()| true)
    }
}

/// The range and the total length that the answer gives: `bytes 3-7/20`.
fn range_of(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

impl Store for RestClient {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let object = Subject::from(key);
        if !lock(&self.busy).insert(*key) {
            return Err(StoreError::Exists { object });
        }
        let _busy = Busy(self, *key);
        let path = key.to_string();
        match self.head(&object, &path) {
            Ok(_) if lock(&self.begun).contains(key) && self.remove_rest(key, &bytes)? => {}
            Ok(_) => return Err(StoreError::Exists { object }),
            Err(StoreError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        lock(&self.begun).insert(*key);
        self.post(Asked::Put, &object, &path, bytes)?;
        lock(&self.begun).remove(key);
        Ok(())
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let object = Subject::from(key);
        let need = offset.saturating_add(len as u64);
        let short = |have| StoreError::Short { object: key.into(), need, have };
        if len == 0 || need > LEN_MAX {
            let have = self.len(key)?;
            return if have < need { Err(short(have)) } else { Ok(Bytes::new()) };
        }
        let header = Some((RANGE, format!("bytes={offset}-{}", need - 1)));
        let reply = self.ask(Asked::Read, &object, Method::GET, &key.to_string(), (header, Bytes::new()), need)?;
        match reply.status.as_u16() {
            206 => {
                self.is_there()?;
                let Some((from, total)) = range_of(&reply.headers) else {
                    return Err(self.unreachable(Asked::Read, &object, "the answer does not say which part it is"));
                };
                if total < need {
                    return Err(short(total));
                }
                if from != offset || reply.body.len() != len {
                    return Err(self.unreachable(Asked::Read, &object, "the answer is another part"));
                }
                Ok(reply.body)
            }
            // The server does not send parts, so the object is read whole.
            200 => match self.read(&object, &key.to_string(), LEN_MAX)? {
                Ok(whole) if whole.len() as u64 >= need => Ok(whole.slice(offset as usize..need as usize)),
                Ok(whole) => Err(short(whole.len() as u64)),
                Err(_) => Err(self.unreachable(Asked::Read, &object, "it cannot be read in parts")),
            },
            416 => Err(short(0)),
            _ => Err(self.judge(Asked::Read, &object, &reply)),
        }
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        let read = self.read(&key.into(), &key.to_string(), max)?;
        read.map_err(|have| StoreError::Long { object: key.into(), max, have })
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.head(&key.into(), &key.to_string())
    }

    /// A list gives names without their folders, so an object in the wrong folder seems to be in the right one.
    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        for Entry { name, size } in self.entries(kind)? {
            if seen.insert(name.clone()) {
                found(match name.parse() {
                    Ok(name) => Listed::Object { name, len: size },
                    Err(_) => Listed::Foreign(format!("{}/{name}", kind.folder())),
                });
            }
        }
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let object = Subject::from(key);
        let nothing = (None, Bytes::new());
        let reply = self.ask(Asked::Delete, &object, Method::DELETE, &key.to_string(), nothing, LIST_MAX)?;
        match reply.status.as_u16() {
            200 | 202 | 204 => self.is_there(),
            _ => match self.judge(Asked::Delete, &object, &reply) {
                StoreError::Missing { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let object = Subject::from(key);
        let Ok(bytes) = self.read(&object, &key.to_string(), LEN_MAX)? else {
            return Err(self.unreachable(Asked::Quarantine, &object, "it is too long"));
        };
        let first = format!("{QUARANTINE}/{key}");
        let numbered = (2_u32..).map(|number| format!("{first}.{number}"));
        for name in std::iter::once(first.clone()).chain(numbered) {
            match self.read(&object, &name, bytes.len() as u64) {
                // An earlier try has already copied it.
                Ok(Ok(there)) if there == bytes => break,
                Ok(_) => {}
                Err(StoreError::Missing { .. }) => {
                    self.post(Asked::Quarantine, &object, &name, bytes.clone())?;
                    if !matches!(self.read(&object, &name, bytes.len() as u64), Ok(Ok(there)) if there == bytes) {
                        return Err(self.unreachable(Asked::Quarantine, &object, "the copy is not whole"));
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.delete(key)
    }

    fn limits(&self) -> StoreLimits {
        LIMITS
    }

    fn place(&self) -> String {
        self.line.place().to_owned()
    }

    fn told_time(&self) -> Option<i64> {
        Some(self.time.load(Relaxed)).filter(|time| *time != 0)
    }
}
