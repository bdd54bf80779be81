//! The store: immutable objects under names that reveal nothing (SPEC §3).
//!
//! Everything that vault keeps passes through the one narrow trait [`Store`]. It is blocking, and every method may be
//! called from many threads at once, so that a remote store can have many requests under way.

pub mod dir;
mod error;
pub mod gated;
pub mod paced;
pub mod place;
pub mod probe;
pub mod proof;
pub mod remote;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod upload;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;

use crate::id::ObjectName;
use crate::sync::share;

pub use crate::store::error::StoreError;
pub use crate::store::upload::{Upload, Uploads};

/// The kind of an object, which is also the folder that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A copy of a key slot, in `keys/`.
    Key,
    /// Sealed segments of file content, in `packs/`.
    Pack,
    /// Sealed segments of trees, in `meta/`.
    Meta,
    /// A sealed record of a client's log, in `log/`.
    Log,
    /// An index that tells which pack holds which chunk, in `index/`: a cache that nothing depends on.
    Index,
}

impl Kind {
    /// Every kind, in the order in which a snapshot makes them durable.
    pub const ALL: [Self; 5] = [Self::Key, Self::Pack, Self::Meta, Self::Log, Self::Index];

    /// The kind's folder below the top of the store.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Key => "keys",
            Self::Pack => "packs",
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Index => "index",
        }
    }

    /// Whether the folder is split by the first two digits of the names.
    pub const fn fans_out(self) -> bool {
        matches!(self, Self::Pack | Self::Meta | Self::Index)
    }
}

/// The key of an object: the VAULT file, or a kind and a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// The one unencrypted file that says what this folder is.
    Vault,
    /// Any other object.
    Named(Kind, ObjectName),
}

impl fmt::Display for ObjectKey {
    /// Writes the path below the top of the store, with `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vault => f.write_str("VAULT"),
            Self::Named(kind, name) if kind.fans_out() => {
                write!(f, "{}/{}/{name}", kind.folder(), &name.to_string()[..2])
            }
            Self::Named(kind, name) => write!(f, "{}/{name}", kind.folder()),
        }
    }
}

/// An item found by [`Store::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// An object, and its length in bytes.
    Object {
        /// Its name.
        name: ObjectName,
        /// Its length in bytes.
        len: u64,
    },
    /// A file that vault did not put there (a conflicted copy, a desktop file, a partial download): reported, never
    /// touched. The value is its path below the top of the store.
    Foreign(String),
}

/// The time at which an object put by one client becomes visible to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// At once: a local disk, a file server, S3.
    Direct,
    /// Some time later and in any order: a folder that a sync client uploads.
    Synced,
}

/// The subject of an operation on a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One object.
    Object(ObjectKey),
    /// The folder of a kind.
    Folder(Kind),
    /// The store as a whole, or another place in it.
    Place(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(key) => key.fmt(f),
            Self::Folder(kind) => f.write_str(kind.folder()),
            Self::Place(place) => f.write_str(place),
        }
    }
}

impl From<&ObjectKey> for Subject {
    fn from(key: &ObjectKey) -> Self {
        Self::Object(*key)
    }
}

impl From<Kind> for Subject {
    fn from(kind: Kind) -> Self {
        Self::Folder(kind)
    }
}

impl From<String> for Subject {
    fn from(place: String) -> Self {
        Self::Place(place)
    }
}

/// A put that has begun. Unless it is finished, the object does not appear.
pub struct Pending<'s>(Option<Box<FinishPut<'s>>>);

/// The second half of a put.
type FinishPut<'s> = dyn FnOnce() -> Result<(), StoreError> + Send + 's;

impl<'s> Pending<'s> {
    /// A put that is already complete.
    pub const fn done() -> Self {
        Self(None)
    }

    /// A put that `finish` makes durable and visible.
    pub fn new(finish: impl FnOnce() -> Result<(), StoreError> + Send + 's) -> Self {
        Self(Some(Box::new(finish)))
    }

    /// Makes the object durable and visible.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn finish(self) -> Result<(), StoreError> {
        self.0.map_or(Ok(()), |finish| finish())
    }
}

/// The number of requests and bytes that a store handles at a time. A caller that waits for many requests keeps this
/// many under way, whatever the number of cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Reads and lists under way, at least 1.
    pub reads: usize,
    /// Puts and deletions under way, at least 1.
    pub writes: usize,
    /// Bytes of all puts under way together. A longer object is put alone.
    pub bytes: u64,
}

impl StoreLimits {
    /// One request at a time.
    pub const ONE: Self = Self { reads: 1, writes: 1, bytes: 0 };
}

/// Properties of a place that only its protocol shows; `None` if it does not show one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The server's name for itself.
    pub server: Option<String>,
    /// Whether it refuses an object whose digest is not the one that was sent with it.
    pub verifies_digests: Option<bool>,
    /// Whether it keeps the versions of objects that are replaced or deleted.
    pub keeps_versions: Option<bool>,
    /// Until when a new object cannot be deleted for good, in the words of the place.
    pub locked: Option<String>,
}

/// A place that keeps immutable objects.
///
/// Each method makes as few requests as the place allows. Frequent operations take one request, and the tests count
/// them. An error of the connection or of the store as a whole ([`StoreError::is_of_whole`]) says nothing about the
/// object.
pub trait Store: Send + Sync + fmt::Debug {
    /// Puts a new object. When this returns `Ok`, the object is durable, whole, and visible under its name; when it
    /// returns an error, no part of it is visible (it may still become visible whole, if the outcome is unknown).
    ///
    /// A store that tries again after its answer was lost uses the same name again. Finding the name taken then proves
    /// nothing: the object is there only if its bytes are these ([`Store::holds`]).
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is another object of that name: objects are never replaced.
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError>;

    /// The first half of [`Store::put`], where it can be split: takes the bytes, so that the caller can build the
    /// next object while this one becomes durable. Nothing is visible before the second half.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn begin_put<'s>(&'s self, key: &ObjectKey, bytes: Bytes) -> Result<Pending<'s>, StoreError> {
        self.put(key, bytes).map(|()| Pending::done())
    }

    /// Reads exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Short`] if the object ends before `offset + len`.
    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError>;

    /// Reads a whole object of at most `max` bytes, in one request.
    ///
    /// # Errors
    /// As [`Store::get_range`]; an object longer than `max` is [`StoreError::Long`].
    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError>;

    /// The length of an object, in bytes. Lists report it too: ask only for objects that were not listed.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the object does not exist.
    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError>;

    /// Calls `found` for everything in the folder of a kind, in no particular order. An implementation with pages
    /// asks for one page after the other. An error means that the list is incomplete, and must not be used as a
    /// complete one.
    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError>;

    /// Calls `found` for everything in the folders of these kinds. If an object is listed, so is every object that
    /// was put before it and whose kind comes later in `kinds`: so records come before the packs that they name.
    ///
    /// # Errors
    /// As [`Store::list`].
    fn list_all(&self, kinds: &[Kind], found: &mut dyn FnMut(Kind, Listed)) -> Result<(), StoreError> {
        kinds.iter().try_for_each(|kind| self.list(*kind, &mut |listed| found(*kind, listed)))
    }

    /// Deletes an object. Deleting an object that does not exist succeeds. After a power cut the object may be back.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Deletes objects as [`Store::delete`] does, many at a time where the place allows. Calls `deleted` for each
    /// that is gone.
    ///
    /// # Errors
    /// The first failure. An object for which `deleted` was not called may or may not be gone.
    fn delete_many(&self, keys: &[ObjectKey], deleted: &mut dyn FnMut(&ObjectKey)) -> Result<(), StoreError> {
        let failed = AtomicBool::new(false);
        let done = share(keys.len(), self.limits().writes, |number| {
            if failed.load(Relaxed) {
                return None;
            }
            let done = self.delete(&keys[number]);
            failed.fetch_or(done.is_err(), Relaxed);
            Some(done)
        });
        let mut failure = Ok(());
        for (key, done) in keys.iter().zip(done) {
            match done {
                Some(Ok(())) => deleted(key),
                Some(Err(error)) if failure.is_ok() => failure = Err(error),
                Some(Err(_)) | None => {}
            }
        }
        failure
    }

    /// Deletes an object for good: when this returns `Ok`, no power cut brings it back. This also holds if the object
    /// did not exist, because an earlier try may have deleted it without making that durable. A key slot, which opens
    /// the vault, is deleted only like this.
    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Moves an object to a place where no command looks for objects but a person can find it. Nothing is lost.
    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Removes the leftovers of puts that were cut off long ago, where the place can have such leftovers. Keeps
    /// everything that may still be in use. Returns the number of removed files.
    ///
    /// # Errors
    /// If the store fails. Leftovers that could not be removed stay for the next time.
    fn sweep_leftovers(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// The number of requests that may be under way.
    fn limits(&self) -> StoreLimits;

    /// The number of reads of a few KiB that may be under way: they take no memory and hardly any of the line, only time. At
    /// least [`StoreLimits::reads`].
    fn small_reads(&self) -> usize {
        self.limits().reads
    }

    /// The place of the store, for messages.
    fn place(&self) -> String;

    /// The store's clock when it last answered, in seconds since 1970, if the place reports it.
    fn told_time(&self) -> Option<i64> {
        None
    }

    /// The properties of the place that only its protocol shows. To find out, an object with these bytes is put under
    /// this name, which must be free; the caller deletes it.
    ///
    /// # Errors
    /// If the store fails.
    fn told(&self, key: &ObjectKey, bytes: &Bytes) -> Result<Told, StoreError> {
        self.put(key, bytes.clone()).map(|()| Told::default())
    }

    /// The folder of a store on this machine, so that a snapshot can leave it out.
    fn folder(&self) -> Option<&std::path::Path> {
        None
    }

    /// Whether answers take longer than the work on them, and many can be waited for together: so requests under way count
    /// for more than cores. That holds for every place but a folder of this machine.
    fn is_far(&self) -> bool {
        self.folder().is_none() && self.limits().reads > 1
    }

    /// The number of threads for work in which each thread waits for reads: `threads` for a folder of this machine, and
    /// as many as there may be reads under way for a far place.
    fn reading_threads(&self, threads: usize) -> usize {
        if self.is_far() { threads.max(self.limits().reads) } else { threads }
    }

    /// Whether an object exists and has exactly these bytes. Where the place reports a digest of its content, an
    /// implementation may compare that.
    ///
    /// # Errors
    /// If the object cannot be read for a reason other than being missing or of another length.
    fn holds(&self, key: &ObjectKey, bytes: &Bytes) -> Result<bool, StoreError> {
        match self.get(key, bytes.len() as u64) {
            Ok(found) => Ok(found == bytes),
            Err(StoreError::Missing { .. } | StoreError::Short { .. } | StoreError::Long { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
