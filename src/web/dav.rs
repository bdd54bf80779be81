//! Snapshots as a read-only share (WebDAV, RFC 4918), for systems that cannot mount. The tree of folders is that of
//! `mount::tree`; the protocol comes from a library.
//!
//! The address holds a secret, so that neither other users of this computer nor pages in a browser can make requests.
//! WebDAV has no links: a link to something in the same snapshot is shown as its target, and other links are left
//! out.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, SeekFrom};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use dav_server::davpath::DavPath;
use dav_server::fs::{
    DavDirEntry, DavFile, DavFileSystem, DavMetaData, FsError, FsFuture, FsResult, FsStream, OpenOptions, ReadDirMeta,
};
use dav_server::{DavHandler, DavMethodSet};
use futures_util::{FutureExt as _, StreamExt as _, stream};

use crate::json::hex;
use crate::mount::serving::{Open, Serving, Trouble};
use crate::mount::tree::{Item, Node, Tree};
use crate::path;
use crate::seal::{SealError, random_array};
use crate::tree::{FileKind, Time};
use crate::vault::ReadError;
use crate::web::answer::SANDBOX;
use crate::web::gate::{self, Names};
use crate::web::listen::{self, Bound};

/// Threads that speak with clients; other threads do the long work.
const THREADS: usize = 2;
/// The largest number of threads that read for requests.
const READERS: usize = 16;
/// The interval at which the server checks whether to end.
const TICK: Duration = Duration::from_millis(100);
/// Entries of a folder that are read at once.
const PAGE: usize = 512;
/// Bytes that are read at once for an answer.
const READ: usize = 512 << 10;
/// The last second of the year 9999: HTTP cannot write later times.
const SECS_LAST: u64 = 253_402_300_799;
/// The largest number of links followed on the way to an entry.
const LINKS_MAX: usize = 40;

/// A share at this address, which holds a secret.
#[derive(Debug)]
pub struct Share {
    bound: Bound,
    secret: String,
}

impl Share {
    /// Prepares a share at a place.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(bound: Bound) -> Result<Self, SealError> {
        Ok(Self { bound, secret: random_array::<16>().map(hex)? })
    }

    /// The address of the share. Anybody who knows it can read everything.
    pub fn address(&self) -> String {
        match self.bound.names() {
            Names::Port(port) => format!("http://127.0.0.1:{port}/{}/", self.secret),
            Names::Tunnel => format!("http://localhost/{}/", self.secret),
        }
    }

    /// Serves a tree until `stopped` returns true.
    ///
    /// # Errors
    /// The system's error.
    pub fn serve(self, serving: &Arc<Serving>, stopped: &dyn Fn() -> bool) -> io::Result<()> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(THREADS).max_blocking_threads(READERS).thread_name("vault-share");
        let runtime = builder.enable_all().build()?;
        let router = router(serving, self.bound.names().clone(), &self.secret);
        listen::start(&runtime, self.bound, router)?;
        serving.attend(|| {})?;
        while !stopped() {
            thread::sleep(TICK);
        }
        runtime.shutdown_timeout(TICK);
        serving.end();
        Ok(())
    }
}

fn router(serving: &Arc<Serving>, names: Names, secret: &str) -> Router {
    let prefix = format!("/{secret}");
    let handler = DavHandler::builder()
        .filesystem(Box::new(Files { serving: serving.clone() }))
        .strip_prefix(prefix.clone())
        .methods(DavMethodSet::WEBDAV_RO)
        .autoindex(true)
        .read_buf_size(READ)
        .build_handler();
    let secret = blake3::hash(secret.as_bytes());
    Router::new().fallback(move |mut request: Request| {
        let handler = handler.clone();
        let judged = judge(&names, request.method(), request.uri().path(), request.headers(), &secret);
        // With this header, which is for its own test suite, the library would go through everything.
        request.headers_mut().remove("x-litmus");
        async move {
            let mut response = match judged {
                Ok(()) => handler.handle(request).await.map(Body::new),
                Err(status) => {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = status;
                    response
                }
            };
            let headers = response.headers_mut();
            // A browser must neither run content of a snapshot nor tell others of it.
            for (name, value) in [
                (CONTENT_SECURITY_POLICY, SANDBOX),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (REFERRER_POLICY, "no-referrer"),
                (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            response
        }
    })
}

/// Decides whether to answer a request: its host must be this computer, it must not come from a page, and it must
/// know the secret.
fn judge(
    names: &Names,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    secret: &blake3::Hash,
) -> Result<(), StatusCode> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    gate::judge_origin(names, headers)
        .and_then(|()| gate::judge_site(headers, is_read))
        .map_err(|problem| problem.status)?;
    let first = path.split('/').nth(1).unwrap_or_default();
    // Hashes are compared in constant time.
    if blake3::hash(first.as_bytes()) == *secret { Ok(()) } else { Err(StatusCode::NOT_FOUND) }
}

/// Runs work that may block.
async fn wait<T: Send + 'static>(work: impl FnOnce() -> FsResult<T> + Send + 'static) -> FsResult<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(FsError::GeneralFailure))
}

#[derive(Clone)]
struct Files {
    serving: Arc<Serving>,
}

/// A node, with the folders that hold it, the top first.
type Found = Vec<Arc<Node>>;

impl Files {
    fn tree(&self) -> &Tree {
        self.serving.tree()
    }

    /// Runs the work of a request; a panic fails only that request.
    fn guard<T>(&self, work: impl FnOnce() -> FsResult<T>) -> FsResult<T> {
        self.serving.guard(work).unwrap_or(Err(FsError::GeneralFailure))
    }

    fn failed(&self, node: &Node, error: ReadError) -> FsError {
        refused(self.serving.failed(node, error))
    }

    /// Follows a path, starting at a folder.
    fn go(&self, mut found: Found, names: impl IntoIterator<Item = Vec<u8>>) -> FsResult<Found> {
        let mut left: VecDeque<Vec<u8>> = names.into_iter().collect();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            let Some(folder) = found.last() else { return Err(FsError::NotFound) };
            match name.as_slice() {
                b"" | b"." => continue,
                // Only links contain this. A link must not lead out of the snapshot.
                b".." => {
                    if folder.item().is_some_and(|item| item.parent.is_none()) || found.len() < 2 {
                        return Err(FsError::NotFound);
                    }
                    found.pop();
                    continue;
                }
                _ => {}
            }
            self.serving.look_for(folder);
            let next = self.tree().lookup(folder, &name).map_err(|error| self.failed(folder, error))?;
            let next = next.ok_or(FsError::NotFound)?;
            let Some(target) = Tree::target(&next) else {
                found.push(next);
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(FsError::LoopDetected);
            }
            if target.first() == Some(&b'/') {
                return Err(FsError::NotFound);
            }
            // The tree's own links lead to snapshots, and are relative to the folder that holds them.
            let mut steps: Vec<Vec<u8>> = target.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
            if matches!(*next, Node::Link(..)) && steps.first().is_some_and(|step| step == b"..") {
                found.pop();
                steps.remove(0);
            }
            for step in steps.into_iter().rev() {
                left.push_front(step);
            }
        }
        Ok(found)
    }

    fn find(&self, at: &DavPath) -> FsResult<Found> {
        self.go(vec![self.tree().top()], path::components(at.as_bytes()).map(<[u8]>::to_vec).collect::<Vec<_>>())
    }

    fn about(&self, found: &Found) -> FsResult<About> {
        let node = found.last().ok_or(FsError::NotFound)?;
        let kind = node.kind();
        if !matches!(kind, FileKind::File | FileKind::Directory) {
            // Pipes, sockets and devices have nothing to read.
            return Err(FsError::NotFound);
        }
        let item = node.item().map(Arc::as_ref);
        let len = match (&**node, item) {
            (Node::Readme, _) => self.tree().readme().len() as u64,
            (_, Some(item)) if kind == FileKind::File => item.entry.size,
            _ => 0,
        };
        Ok(About {
            len,
            modified: time_of(self.tree().time(node)),
            created: item.and_then(|item| item.entry.btime).map(time_of),
            is_folder: kind == FileKind::Directory,
            is_executable: item.is_some_and(|item: &Item| item.entry.mode & 0o111 != 0),
            tag: format!("{}-{len:x}", self.tree().key_of(node)),
        })
    }

    /// A page of a folder's entries from this number on, and the number of the next one; `None` at the end.
    fn page(&self, found: &Found, from: u64) -> FsResult<Option<(Vec<Listed>, u64)>> {
        let folder = found.last().ok_or(FsError::NotFound)?;
        if folder.kind() != FileKind::Directory {
            return Err(FsError::Forbidden);
        }
        let mut names = Vec::new();
        let listed = self.tree().list(folder, from, &mut |name, node| {
            names.push((name.to_vec(), node));
            names.len() < PAGE
        });
        listed.map_err(|error| self.failed(folder, error))?;
        if names.is_empty() {
            return Ok(None);
        }
        let next = from + names.len() as u64;
        let listed = names.into_iter().filter_map(|(name, node)| {
            let at = if Tree::target(&node).is_some() {
                self.go(found.clone(), [name.clone()]).ok()?
            } else {
                found.iter().cloned().chain([node]).collect()
            };
            Some(Listed { about: self.about(&at).ok()?, name })
        });
        Ok(Some((listed.collect(), next)))
    }
}

const fn refused(trouble: Trouble) -> FsError {
    match trouble {
        Trouble::Gone => FsError::NotFound,
        Trouble::Unreadable => FsError::GeneralFailure,
        Trouble::NoFile => FsError::Forbidden,
    }
}

/// Converts a stored time. A time before 1970 or after the year 9999 becomes the nearest one that HTTP can write.
fn time_of(time: Time) -> SystemTime {
    let secs = u64::try_from(time.secs).unwrap_or(0).min(SECS_LAST);
    UNIX_EPOCH.checked_add(Duration::from_secs(secs)).unwrap_or(UNIX_EPOCH)
}

#[derive(Debug, Clone)]
struct About {
    len: u64,
    modified: SystemTime,
    created: Option<SystemTime>,
    is_folder: bool,
    is_executable: bool,
    tag: String,
}

impl DavMetaData for About {
    fn len(&self) -> u64 {
        self.len
    }

    fn modified(&self) -> FsResult<SystemTime> {
        Ok(self.modified)
    }

    fn created(&self) -> FsResult<SystemTime> {
        Ok(self.created.unwrap_or(self.modified))
    }

    fn is_dir(&self) -> bool {
        self.is_folder
    }

    fn executable(&self) -> FsResult<bool> {
        Ok(self.is_executable)
    }

    fn etag(&self) -> Option<String> {
        (!self.is_folder).then(|| self.tag.clone())
    }
}

#[derive(Debug)]
struct Listed {
    name: Vec<u8>,
    about: About,
}

impl DavDirEntry for Listed {
    fn name(&self) -> Vec<u8> {
        self.name.clone()
    }

    fn metadata(&self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        let about: Box<dyn DavMetaData> = Box::new(self.about.clone());
        async move { Ok(about) }.boxed()
    }
}

impl DavFileSystem for Files {
    fn open<'a>(&'a self, at: &'a DavPath, options: OpenOptions) -> FsFuture<'a, Box<dyn DavFile>> {
        let (files, at) = (self.clone(), at.clone());
        async move {
            if options.write || options.append || options.create || options.create_new || options.truncate {
                return Err(FsError::Forbidden);
            }
            wait(move || {
                files.guard(|| {
                    let found = files.find(&at)?;
                    let about = files.about(&found)?;
                    let node = found.last().ok_or(FsError::NotFound)?.clone();
                    let open = match *node {
                        Node::Readme => None,
                        _ => Some(files.serving.open(&node).map_err(refused)?),
                    };
                    // Once the answer has begun, it can only be broken off. A file whose first byte cannot be read is refused.
                    if let Some(open) = open.as_ref().filter(|_| about.len > 0) {
                        files.serving.read(&node, open, 0, 1, &mut Vec::new()).map_err(refused)?;
                    }
                    let file = Reading { files: files.clone(), node, open, about, at: 0 };
                    Ok(Box::new(file) as Box<dyn DavFile>)
                })
            })
            .await
        }
        .boxed()
    }

    fn read_dir<'a>(&'a self, at: &'a DavPath, _: ReadDirMeta) -> FsFuture<'a, FsStream<Box<dyn DavDirEntry>>> {
        let (files, at) = (self.clone(), at.clone());
        async move {
            let within = files.clone();
            let found = wait(move || within.guard(|| within.find(&at))).await?;
            // `None` after an error, so that a folder that cannot be listed is not tried for ever.
            let pages = stream::unfold(Some(0), move |from| {
                let (files, found) = (files.clone(), found.clone());
                async move {
                    let from = from?;
                    match wait(move || files.guard(|| files.page(&found, from))).await {
                        Ok(None) => None,
                        Ok(Some((listed, next))) => Some((listed.into_iter().map(Ok).collect(), Some(next))),
                        Err(error) => Some((vec![Err(error)], None)),
                    }
                }
            });
            let entries = pages.flat_map(|page: Vec<FsResult<Listed>>| stream::iter(page));
            Ok(entries.map(|entry| entry.map(|entry| Box::new(entry) as Box<dyn DavDirEntry>)).boxed())
        }
        .boxed()
    }

    fn metadata<'a>(&'a self, at: &'a DavPath) -> FsFuture<'a, Box<dyn DavMetaData>> {
        let (files, at) = (self.clone(), at.clone());
        async move {
            let about = wait(move || files.guard(|| files.about(&files.find(&at)?))).await?;
            Ok(Box::new(about) as Box<dyn DavMetaData>)
        }
        .boxed()
    }
}

/// A file being sent.
struct Reading {
    files: Files,
    node: Arc<Node>,
    /// `None` for the tree's own text.
    open: Option<Arc<Open>>,
    about: About,
    at: u64,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("at", &self.at).finish_non_exhaustive()
    }
}

impl DavFile for Reading {
    fn metadata(&mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        let about: Box<dyn DavMetaData> = Box::new(self.about.clone());
        async move { Ok(about) }.boxed()
    }

    fn write_buf(&mut self, _: Box<dyn bytes::Buf + Send>) -> FsFuture<'_, ()> {
        async { Err(FsError::Forbidden) }.boxed()
    }

    fn write_bytes(&mut self, _: Bytes) -> FsFuture<'_, ()> {
        async { Err(FsError::Forbidden) }.boxed()
    }

    fn read_bytes(&mut self, count: usize) -> FsFuture<'_, Bytes> {
        let (files, node, open, at) = (self.files.clone(), self.node.clone(), self.open.clone(), self.at);
        async move {
            let bytes = wait(move || {
                files.guard(|| {
                    let Some(open) = open else {
                        return Ok(Bytes::copy_from_slice(files.serving.readme(at, count)));
                    };
                    let mut out = Vec::new();
                    files.serving.read(&node, &open, at, count, &mut out).map_err(refused)?;
                    // The library would fill missing bytes with zeros.
                    if out.is_empty() && count > 0 { Err(FsError::GeneralFailure) } else { Ok(Bytes::from(out)) }
                })
            })
            .await?;
            self.at += bytes.len() as u64;
            Ok(bytes)
        }
        .boxed()
    }

    fn seek(&mut self, to: SeekFrom) -> FsFuture<'_, u64> {
        let found = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.about.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = found.unwrap_or(self.at);
        async move { found.ok_or(FsError::GeneralFailure) }.boxed()
    }

    fn flush(&mut self) -> FsFuture<'_, ()> {
        async { Ok(()) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_address_is_answered() {
        let secret = blake3::hash(b"0123");
        let ask = |path: &str, headers: &[(&'static str, &str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            let headers: HeaderMap = headers.collect();
            judge(&Names::Port(8080), &Method::GET, path, &headers, &secret).map_err(|status| status.as_u16())
        };
        let host = ("host", "127.0.0.1:8080");
        assert_eq!(ask("/0123/", &[host]), Ok(()));
        assert_eq!(ask("/0123/a/b", &[host, ("sec-fetch-site", "none")]), Ok(()));
        for path in ["/", "/0124/", "/012/", "/01234", "//0123/", "", "0123"] {
            assert_eq!(ask(path, &[host]), Err(404), "{path}");
        }
        assert_eq!(ask("/0123/", &[("host", "evil.example:8080")]), Err(421));
        assert_eq!(ask("/0123/", &[]), Err(421));
        assert_eq!(ask("/0123/", &[host, ("origin", "http://evil.example")]), Err(403));
        assert_eq!(ask("/0123/", &[host, ("sec-fetch-site", "cross-site")]), Err(403));
    }

    #[test]
    fn times_that_http_has_not_are_the_nearest_that_it_has() {
        let at = |secs| time_of(Time { secs, nanos: 3 });
        assert_eq!((at(-5), at(5)), (UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(5)));
        assert_eq!(at(i64::MAX), UNIX_EPOCH + Duration::from_secs(SECS_LAST));
    }
}
