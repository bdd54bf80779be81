//! A client of object stores: S3 and servers that speak its protocol, Azure, Google.
//!
//! The protocols come from a library, which makes each request once. This file decides, by status and code, what the
//! answers mean.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderMap;
use md5::{Digest, Md5};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, CopyOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, PutMode, PutOptions, PutPayload,
    RetryConfig,
};

use crate::id::ObjectName;
use crate::store::remote::http::{Answer, Asked, CALL, Call, time_of};
use crate::store::remote::line::Line;
use crate::store::remote::runtime::Runtime;
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits, Subject, Told};
use crate::sync::{read_lock, share, write_lock};

/// Requests under way: enough to fill a connection of 50 ms and 100 Mbit/s many times over.
const LIMITS: StoreLimits = StoreLimits { reads: 16, writes: 8, bytes: 112 << 20 };
/// Small reads under way.
const SMALL_READS: usize = 32;
/// The number of objects deleted by one request.
const BATCH: usize = 1000;
/// The time that a server may take to delete one of them.
const DELETION: Duration = Duration::from_millis(50);
/// No object is longer than this, so nothing beyond it is requested.
const LEN_MAX: u64 = 1 << 50;
/// The folder for objects that are moved aside.
const QUARANTINE: &str = "quarantine";

/// Turns off the library's retries: retries are decided elsewhere, alike for every kind of store.
pub(super) fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

/// The library's interfaces to one bucket.
#[derive(Clone)]
pub(super) struct Bucket {
    pub objects: Arc<dyn ObjectStore>,
    pub pages: Arc<dyn PaginatedListStore>,
}

/// Properties of the server that are learned from its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Traits {
    /// The bucket's region, if it is not the configured one.
    pub region: Option<String>,
    /// Whether the server deletes many objects in one request.
    pub deletes_batches: bool,
}

/// Builds the library's client for a server with these traits.
type Make = dyn Fn(&Traits) -> Result<Bucket, String> + Send + Sync;

/// A client of a bucket.
pub(super) struct ObjectClient {
    runtime: Runtime,
    line: Arc<Line>,
    make: Box<Make>,
    bucket: RwLock<(Traits, Bucket)>,
    /// The prefix of every object's name: empty, or ending with `/`.
    prefix: String,
    /// The storage class of packs; `None`: the bucket's.
    storage_class: Option<String>,
    /// Whether the tag of an object is the MD5 of its bytes, unless an answer says otherwise.
    has_md5_tags: bool,
    /// Whether the server supports puts that fail if the object exists.
    is_conditional: AtomicBool,
    /// The store's clock when it last answered, in seconds since 1970; 0 if unknown.
    time: AtomicI64,
}

impl std::fmt::Debug for ObjectClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectClient").field("place", &self.line.place()).finish_non_exhaustive()
    }
}

/// A request that failed: answered with an error, or not at all.
#[derive(Debug)]
struct Refused {
    answer: Answer,
    error: object_store::Error,
}

impl ObjectClient {
    /// A client of the bucket that `make` builds; every name in it begins with `prefix`.
    pub(super) fn new(
        line: Arc<Line>,
        prefix: &str,
        has_md5_tags: bool,
        make: impl Fn(&Traits) -> Result<Bucket, String> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let runtime = Runtime::new().map_err(|error| line.unusable(error.to_string()))?;
        let traits = Traits { region: None, deletes_batches: true };
        let bucket = make(&traits).map_err(|error| line.unusable(error))?;
        Ok(Self {
            runtime,
            line,
            make: Box::new(make),
            bucket: RwLock::new((traits, bucket)),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            storage_class: None,
            has_md5_tags,
            is_conditional: AtomicBool::new(true),
            time: AtomicI64::new(0),
        })
    }

    /// The same client, which puts packs in this storage class.
    pub(super) fn with_storage_class(self, storage_class: Option<String>) -> Self {
        Self { storage_class, ..self }
    }

    /// The attributes of a new object. Only packs get the storage class: all else is small, and read often.
    fn attributes(&self, key: &ObjectKey) -> Attributes {
        let class = self.storage_class.as_ref().filter(|_| matches!(key, ObjectKey::Named(Kind::Pack, _)));
        class.map(|class| (Attribute::StorageClass, class.clone())).into_iter().collect()
    }

    fn path(&self, key: &ObjectKey) -> Result<Path, StoreError> {
        self.path_of(&key.to_string())
    }

    fn path_of(&self, name: &str) -> Result<Path, StoreError> {
        Path::parse(format!("{}{name}", self.prefix)).map_err(|error| self.line.unusable(error.to_string()))
    }

    /// Makes one request. The store may be silent for `granted` longer than usual.
    fn ask<T: Send + 'static, W: Future<Output = object_store::Result<T>> + Send + 'static>(
        &self,
        asked: Asked,
        object: &Subject,
        headers: &HeaderMap,
        granted: Duration,
        work: impl Fn(Bucket) -> W,
    ) -> Result<Result<(T, Answer), Refused>, StoreError> {
        loop {
            let (traits, bucket) = read_lock(&self.bucket).clone();
            let call = Arc::new(Call::with(headers.clone()));
            let mut watch = self.line.watch(asked.action(), object.clone());
            watch.grant(granted);
            let tally = call.tally.clone();
            let outcome = self.runtime.run(&mut watch, &tally, CALL.scope(call.clone(), work(bucket)))?;
            if let Some(time) = call.answer().dates.and_then(|(server, _)| time_of(&server)) {
                self.time.store(time, Relaxed);
            }
            let error = match outcome {
                Ok(done) => return Ok(Ok((done, call.answer()))),
                Err(error) => error,
            };
            let answer = call.answer();
            let better = match (answer.status, &answer.region) {
                (Some(301 | 307 | 400 | 403), Some(region)) if traits.region.as_ref() != Some(region) => {
                    Some(Traits { region: Some(region.clone()), ..traits })
                }
                _ => None,
            };
            let Some(better) = better else { return Ok(Err(Refused { answer, error })) };
            let bucket = (self.make)(&better).map_err(|error| self.line.unusable(error))?;
            *write_lock(&self.bucket) = (better, bucket);
        }
    }

    /// Makes one request whose failures have their ordinary meaning ([`Self::judge`]).
    fn request<T: Send + 'static, W: Future<Output = object_store::Result<T>> + Send + 'static>(
        &self,
        asked: Asked,
        object: &Subject,
        work: impl Fn(Bucket) -> W,
    ) -> Result<(T, Answer), StoreError> {
        self.ask(asked, object, &HeaderMap::new(), Duration::ZERO, work)?
            .map_err(|refused| self.judge(asked, object, &refused))
    }

    fn unreachable(&self, asked: Asked, object: &Subject, what: impl Into<String>) -> StoreError {
        let source = io::Error::other(what.into());
        self.line.unreachable(asked.action(), object.clone(), source)
    }

    /// Turns a failed request into the store error that it stands for.
    fn judge(&self, asked: Asked, object: &Subject, refused: &Refused) -> StoreError {
        let Refused { answer, error } = refused;
        if let Some((kind, what)) = &answer.fault {
            let source = io::Error::new(*kind, what.clone());
            return self.line.unreachable(asked.action(), object.clone(), source);
        }
        // The request was never sent: there is no credential, for example.
        let Some(status) = answer.status else { return self.line.unusable(innermost(error)) };
        let code = answer.code.as_deref().unwrap_or_default();
        let told = told(answer, status);
        let denied = || StoreError::Denied {
            action: asked.action(),
            object: object.clone(),
            path: self.line.place().to_owned(),
            owner: None,
            source: io::Error::new(io::ErrorKind::PermissionDenied, told.clone()),
        };
        match (status, code) {
            (_, "RequestTimeTooSkewed") => {
                let clocks = answer.dates.as_ref().map_or_else(String::new, |(server, ours)| {
                    format!(": it is {server} there, and this machine says {ours}")
                });
                self.line.unusable(format!("the clock of this machine is wrong{clocks}"))
            }
            (_, "SlowDown" | "ServerBusy" | "TooManyRequests" | "ServiceUnavailable") | (429 | 503, _) => {
                StoreError::Throttled { place: self.line.place().to_owned(), after: answer.retry_after }
            }
            (_, "QuotaExceeded" | "XMinioStorageFull" | "AccountIsDisabledQuota") | (507, _) => {
                StoreError::Full { object: object.clone() }
            }
            (404, "NoSuchKey" | "BlobNotFound") => StoreError::Missing { object: object.clone() },
            (404, "NoSuchBucket" | "ContainerNotFound" | "AccountNotFound") => {
                StoreError::Gone { place: self.line.place().to_owned() }
            }
            (304 | 412, _) | (409, "BlobAlreadyExists") if asked == Asked::Put => {
                StoreError::Exists { object: object.clone() }
            }
            // Trouble that passes. A bare 404 may not come from the store at all.
            (
                _,
                "InternalError"
                | "RequestTimeout"
                | "OperationTimedOut"
                | "BadDigest"
                | "InvalidDigest"
                | "Md5Mismatch"
                | "IncompleteBody"
                | "XAmzContentSHA256Mismatch"
                | "ConditionalRequestConflict"
                | "OperationAborted",
            )
            | (404 | 408 | 409 | 412 | 425 | 500 | 502 | 504, _) => self.unreachable(asked, object, told),
            (416, _) => StoreError::Short { object: object.clone(), need: 0, have: 0 },
            (403, "AccessDenied" | "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" | "")
                if asked.writes() =>
            {
                denied()
            }
            (200..300, "AccessDenied") => denied(),
            (200..300, _) => {
                self.unreachable(asked, object, format!("the answer makes no sense: {}", innermost(error)))
            }
            _ => self.line.unusable(told),
        }
    }

    /// Deletes objects by one request. Returns `false` if the server deletes only one object at a time, and remembers
    /// that.
    fn delete_together(&self, keys: &[ObjectKey]) -> Result<bool, StoreError> {
        let Some(first) = keys.first() else { return Ok(true) };
        // A client that may not delete one of them may delete none.
        let object = Subject::from(first);
        let paths = keys.iter().map(|key| self.path(key)).collect::<Result<Vec<_>, _>>()?;
        let granted = DELETION * keys.len() as u32;
        let was_batch = read_lock(&self.bucket).0.deletes_batches;
        let outcome = self.ask(Asked::Delete, &object, &HeaderMap::new(), granted, |bucket| {
            let paths: Vec<_> = paths.iter().cloned().map(Ok).collect();
            async move {
                let mut deletions = bucket.objects.delete_stream(futures_util::stream::iter(paths).boxed());
                while let Some(done) = deletions.next().await {
                    match done {
                        Err(object_store::Error::NotFound { .. }) if is_of_object() => {}
                        done => drop(done?),
                    }
                }
                Ok(())
            }
        })?;
        let Err(refused) = outcome else { return Ok(true) };
        if matches!(refused.answer.status, Some(405 | 501)) && was_batch {
            let (traits, _) = read_lock(&self.bucket).clone();
            let traits = Traits { deletes_batches: false, ..traits };
            let bucket = (self.make)(&traits).map_err(|error| self.line.unusable(error))?;
            *write_lock(&self.bucket) = (traits, bucket);
            return Ok(false);
        }
        Err(self.judge(Asked::Delete, &object, &refused))
    }

    /// Reads the metadata of an object. Tells a missing object from a missing bucket.
    fn head(&self, object: &Subject, path: &Path) -> Result<(ObjectMeta, Answer), StoreError> {
        let work = |path: Path, options: GetOptions| {
            move |bucket: Bucket| {
                let (path, options) = (path.clone(), options.clone());
                async move { bucket.objects.get_opts(&path, options).await.and_then(tagged).map(|found| found.meta) }
            }
        };
        let asked = GetOptions { head: true, ..GetOptions::default() };
        let first = self.ask(Asked::Read, object, &HeaderMap::new(), Duration::ZERO, work(path.clone(), asked))?;
        match first {
            Ok(found) => Ok(found),
            // An answer to HEAD has no body, and so no code: ask once more with GET.
            Err(Refused { answer: Answer { status: Some(400..500), code: None, fault: None, .. }, .. }) => {
                self.request(Asked::Read, object, work(path.clone(), GetOptions::default()))
            }
            Err(refused) => Err(self.judge(Asked::Read, object, &refused)),
        }
    }

    /// Puts an object with one request, or with two if the server supports no conditional puts.
    fn put_once(&self, key: &ObjectKey, bytes: &Bytes, digest: [u8; 16]) -> Result<(), StoreError> {
        let object = Subject::from(key);
        let path = self.path(key)?;
        let mut is_conditional = self.is_conditional.load(Relaxed);
        let mut headers = HeaderMap::new();
        // Other servers include this header in the signature, but not as it is added here.
        if self.has_md5_tags
            && let Ok(value) = BASE64_STANDARD.encode(digest).parse()
        {
            headers.insert("content-md5", value);
        }
        loop {
            if !is_conditional {
                match self.head(&object, &path) {
                    Ok(_) => return Err(StoreError::Exists { object }),
                    Err(StoreError::Missing { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let mode = if is_conditional { PutMode::Create } else { PutMode::Overwrite };
            let outcome = self.ask(Asked::Put, &object, &headers, Duration::ZERO, |bucket| {
                let (path, bytes) = (path.clone(), bytes.clone());
                let attributes = self.attributes(key);
                let options = PutOptions { mode: mode.clone(), attributes, ..PutOptions::default() };
                async move { bucket.objects.put_opts(&path, PutPayload::from(bytes), options).await }
            })?;
            match outcome {
                Ok((done, answer)) => {
                    if self.has_md5_tags
                        && !answer.has_other_tag
                        && done.e_tag.as_deref().and_then(tag).is_some_and(|tag| tag != digest)
                    {
                        return Err(self.unreachable(Asked::Put, &object, "what arrived is not what was sent"));
                    }
                    self.is_conditional.store(is_conditional, Relaxed);
                    return Ok(());
                }
                // The server may not support conditional puts.
                Err(Refused { answer: Answer { status: Some(501), .. }, .. }) if is_conditional => {
                    is_conditional = false;
                }
                Err(Refused { answer: Answer { status: Some(400), code: Some(code), .. }, .. })
                    if is_conditional
                        && matches!(code.as_str(), "NotImplemented" | "InvalidArgument" | "InvalidRequest") =>
                {
                    is_conditional = false;
                }
                Err(refused) => return Err(self.judge(Asked::Put, &object, &refused)),
            }
        }
    }

    /// Lists everything whose name begins with `prefix`, page by page, until `found` has seen enough of it.
    fn pages(
        &self,
        object: &Subject,
        prefix: &str,
        found: &mut dyn FnMut(Vec<ObjectMeta>, bool) -> bool,
    ) -> Result<(), StoreError> {
        let mut token: Option<String> = None;
        let mut seen = HashSet::new();
        loop {
            let (page, _) = self.request(Asked::List, object, |bucket| {
                let options = PaginatedListOptions { page_token: token.clone(), ..PaginatedListOptions::default() };
                let prefix = (!prefix.is_empty()).then(|| prefix.to_owned());
                async move { bucket.pages.list_paginated(prefix.as_deref(), options).await }
            })?;
            let next = page.page_token.filter(|token| !token.is_empty());
            let goes_on = found(page.result.objects, next.is_some());
            match next {
                None => return Ok(()),
                Some(_) if !goes_on => return Ok(()),
                Some(next) if !seen.insert(next.clone()) => {
                    return Err(self.unreachable(Asked::List, object, "the list has no end"));
                }
                Some(next) => token = Some(next),
            }
        }
    }

    /// Parses the name of an object in the bucket; `None` if it is not in the folder of a kind.
    fn listed(&self, meta: &ObjectMeta) -> Option<(Kind, Listed)> {
        let path = meta.location.as_ref().strip_prefix(self.prefix.as_str())?;
        let (folder, below) = path.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.folder() == folder)?;
        let name: Option<ObjectName> = below.rsplit('/').next().and_then(|name| name.parse().ok());
        let own = name.filter(|name| ObjectKey::Named(kind, *name).to_string() == path);
        Some((
            kind,
            own.map_or_else(|| Listed::Foreign(path.to_owned()), |name| Listed::Object { name, len: meta.size }),
        ))
    }

    /// The name to which an object is moved aside: a free name, or the name of the copy made by an earlier try. Also
    /// returns whether that copy exists.
    fn aside(&self, key: &ObjectKey, object: &ObjectMeta) -> Result<(String, bool), StoreError> {
        let mut taken = HashMap::new();
        let name = format!("{QUARANTINE}/{key}");
        let prefix = format!("{}{name}", self.prefix);
        self.pages(&Subject::from(key), &prefix, &mut |page, _| {
            taken.extend(page.into_iter().map(|meta| (meta.location.to_string(), (meta.size, meta.e_tag))));
            true
        })?;
        let is_copy =
            |(size, tag): &(u64, Option<String>)| *size == object.size && tag.is_some() && *tag == object.e_tag;
        let numbered = (2_u32..).map(|number| format!("{name}.{number}"));
        for name in std::iter::once(name.clone()).chain(numbered) {
            match taken.get(&format!("{}{name}", self.prefix)) {
                None => return Ok((name, false)),
                Some(there) if is_copy(there) => return Ok((name, true)),
                Some(_) => {}
            }
        }
        Ok((name, false))
    }
}

/// Whether a "not found" answer to the current request is about the object, not the bucket. In a missing bucket,
/// nothing counts as deleted.
fn is_of_object() -> bool {
    let answer = CALL.try_with(|call| call.answer()).unwrap_or_default();
    answer.status.is_some_and(|status| (200..300).contains(&status))
        || matches!(answer.code.as_deref(), Some("NoSuchKey" | "BlobNotFound"))
}

/// Passes on only answers that have a tag: anything on the connection that is not the store sends none.
fn tagged(found: object_store::GetResult) -> object_store::Result<object_store::GetResult> {
    if found.meta.e_tag.is_some() {
        return Ok(found);
    }
    Err(object_store::Error::Generic { store: "store", source: "the object has no tag".into() })
}

/// The server's error, for a person.
fn told(answer: &Answer, status: u16) -> String {
    let code = answer.code.as_ref().map_or_else(String::new, |code| format!(" {code}"));
    let message = answer.message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
    format!("{status}{code}{message}")
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The 16 bytes of a tag, if it is a digest.
fn tag(text: &str) -> Option<[u8; 16]> {
    let digits = text.trim_start_matches("W/").trim_matches('"');
    let name: ObjectName = digits.to_lowercase().parse().ok()?;
    Some(*name.as_bytes())
}

impl Store for ObjectClient {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let digest: [u8; 16] = Md5::digest(&bytes).into();
        self.put_once(key, &bytes, digest)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let need = offset.saturating_add(len as u64);
        let short = |have| StoreError::Short { object: key.into(), need, have };
        if len == 0 || need > LEN_MAX {
            let have = self.len(key)?;
            return if have < need { Err(short(have)) } else { Ok(Bytes::new()) };
        }
        let path = self.path(key)?;
        let outcome = self.request(Asked::Read, &key.into(), |bucket| {
            let path = path.clone();
            async move {
                let options = GetOptions { range: Some(GetRange::Bounded(offset..need)), ..GetOptions::default() };
                let found = tagged(bucket.objects.get_opts(&path, options).await?)?;
                let have = found.meta.size;
                Ok((found.bytes().await?, have))
            }
        });
        match outcome {
            Ok(((bytes, _), _)) if bytes.len() == len => Ok(bytes),
            Ok(((_, have), _)) => Err(short(have)),
            Err(StoreError::Short { .. }) => Err(short(0)),
            Err(error) => Err(error),
        }
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        let path = self.path(key)?;
        let ((bytes, have), _) = self.request(Asked::Read, &key.into(), |bucket| {
            let path = path.clone();
            async move {
                let found = tagged(bucket.objects.get_opts(&path, GetOptions::default()).await?)?;
                let have = found.meta.size;
                let bytes = if have > max { None } else { Some(found.bytes().await?) };
                Ok((bytes, have))
            }
        })?;
        bytes.ok_or_else(|| StoreError::Long { object: key.into(), max, have })
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        Ok(self.head(&key.into(), &self.path(key)?)?.0.size)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let prefix = format!("{}{}/", self.prefix, kind.folder());
        let mut seen = HashSet::new();
        self.pages(&kind.into(), &prefix, &mut |page, _| {
            for meta in page {
                if let Some((of, listed)) = self.listed(&meta)
                    && of == kind
                    && seen.insert(meta.location)
                {
                    found(listed);
                }
            }
            true
        })
    }

    /// Takes one list of everything, as long as most objects under this prefix belong to the vault. A list is in the
    /// order of names, and the folders' names are in the wanted order: so a later kind is listed later. Only indexes
    /// come too early for that, and nothing depends on them.
    fn list_all(&self, kinds: &[Kind], found: &mut dyn FnMut(Kind, Listed)) -> Result<(), StoreError> {
        let is_in_order = kinds.iter().filter(|kind| **kind != Kind::Index).is_sorted_by_key(|kind| kind.folder());
        let last = kinds.iter().map(|kind| kind.folder()).max().unwrap_or_default();
        let end = format!("{}{last}0", self.prefix);
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        let mut is_ours = is_in_order;
        if is_in_order {
            self.pages(&Subject::Place(self.line.place().to_owned()), &self.prefix, &mut |page, has_more| {
                let len = page.len();
                let is_past = !page.is_empty() && page.iter().all(|meta| meta.location.as_ref() > end.as_str());
                let own: Vec<_> = page
                    .into_iter()
                    .filter_map(|meta| self.listed(&meta).map(|listed| (meta.location, listed)))
                    .collect();
                is_ours = is_past || !has_more || own.len() * 2 >= len;
                let wanted = own.into_iter().filter(|(_, (kind, _))| kinds.contains(kind));
                all.extend(wanted.filter(|(path, _)| seen.insert(path.clone())).map(|(_, listed)| listed));
                is_ours && !is_past
            })?;
        }
        if !is_ours {
            return kinds.iter().try_for_each(|kind| self.list(*kind, &mut |listed| found(*kind, listed)));
        }
        // The order changes nothing, except with a server that lists names in another order.
        all.sort_by_key(|(kind, _)| kinds.iter().position(|other| other == kind));
        all.into_iter().for_each(|(kind, listed)| found(kind, listed));
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete_many(std::slice::from_ref(key), &mut |_| {})
    }

    fn delete_many(&self, keys: &[ObjectKey], deleted: &mut dyn FnMut(&ObjectKey)) -> Result<(), StoreError> {
        let mut rest = keys;
        // Delete in batches, where the server answers a batch with one request.
        while rest.len() > 1 && self.has_md5_tags && read_lock(&self.bucket).0.deletes_batches {
            let (batch, behind) = rest.split_at(rest.len().min(BATCH));
            if self.delete_together(batch)? {
                batch.iter().for_each(&mut *deleted);
                rest = behind;
            }
        }
        let failed = AtomicBool::new(false);
        let done = share(rest.len(), self.line.limits(LIMITS).writes, |number| {
            if failed.load(Relaxed) {
                return None;
            }
            let one = &rest[number..=number];
            let done =
                self.delete_together(one).and_then(|done| if done { Ok(done) } else { self.delete_together(one) });
            failed.fetch_or(done.is_err(), Relaxed);
            Some(done)
        });
        let mut outcome = Ok(());
        for (key, done) in rest.iter().zip(done) {
            match done {
                Some(Ok(_)) => deleted(key),
                Some(Err(error)) if outcome.is_ok() => outcome = Err(error),
                Some(Err(_)) | None => {}
            }
        }
        outcome
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let object = Subject::from(key);
        let from = self.path(key)?;
        let (before, _) = self.head(&object, &from)?;
        let (name, is_copied) = self.aside(key, &before)?;
        let to = self.path_of(&name)?;
        if !is_copied {
            self.request(Asked::Quarantine, &object, |bucket| {
                let (from, to) = (from.clone(), to.clone());
                async move { bucket.objects.copy_opts(&from, &to, CopyOptions::default()).await }
            })?;
        }
        match self.head(&object, &to) {
            Ok((after, _)) if after.size == before.size => {}
            // The missing object is the copy: the original was there a moment ago.
            Ok(_) | Err(StoreError::Missing { .. }) => {
                return Err(self.unreachable(Asked::Quarantine, &object, "the copy is not whole"));
            }
            Err(error) => return Err(error),
        }
        self.delete(key)
    }

    fn told(&self, key: &ObjectKey, bytes: &Bytes) -> Result<Told, StoreError> {
        if !self.has_md5_tags {
            return self.put(key, bytes.clone()).map(|()| Told::default());
        }
        let (object, path) = (Subject::from(key), self.path(key)?);
        let is_conditional = self.is_conditional.load(Relaxed);
        let put = |digest: [u8; 16]| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = BASE64_STANDARD.encode(digest).parse() {
                headers.insert("content-md5", value);
            }
            self.ask(Asked::Put, &object, &headers, Duration::ZERO, |bucket| {
                let (path, bytes) = (path.clone(), PutPayload::from(bytes.clone()));
                // Some credentials may put nothing over an existing name.
                let mode = if is_conditional { PutMode::Create } else { PutMode::Overwrite };
                async move { bucket.objects.put_opts(&path, bytes, PutOptions { mode, ..PutOptions::default() }).await }
            })
        };
        let of_others = Md5::digest(b"other bytes").into();
        let (verifies_digests, done) = match put(of_others)? {
            Ok(done) => (false, done),
            Err(Refused { answer: Answer { status: Some(400), .. }, .. }) => {
                let done = put(Md5::digest(bytes).into())?;
                (true, done.map_err(|refused| self.judge(Asked::Put, &object, &refused))?)
            }
            Err(refused) => return Err(self.judge(Asked::Put, &object, &refused)),
        };
        let (_, answer) = self.head(&object, &path)?;
        Ok(Told {
            server: answer.server,
            verifies_digests: Some(verifies_digests),
            keeps_versions: Some(done.0.version.is_some_and(|version| version != "null")),
            locked: answer.locked,
        })
    }

    fn told_time(&self) -> Option<i64> {
        Some(self.time.load(Relaxed)).filter(|time| *time != 0)
    }

    fn limits(&self) -> StoreLimits {
        LIMITS
    }

    fn small_reads(&self) -> usize {
        SMALL_READS
    }

    fn place(&self) -> String {
        self.line.place().to_owned()
    }

    fn holds(&self, key: &ObjectKey, bytes: &Bytes) -> Result<bool, StoreError> {
        let (meta, answer) = match self.head(&key.into(), &self.path(key)?) {
            Ok(found) => found,
            Err(StoreError::Missing { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if meta.size != bytes.len() as u64 {
            return Ok(false);
        }
        let digest: [u8; 16] = Md5::digest(bytes).into();
        if self.has_md5_tags && !answer.has_other_tag && meta.e_tag.as_deref().and_then(tag) == Some(digest) {
            return Ok(true);
        }
        match self.get(key, meta.size) {
            Ok(found) => Ok(found == bytes),
            Err(StoreError::Missing { .. } | StoreError::Short { .. } | StoreError::Long { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
