//! The store: immutable objects under names that say nothing (SPEC §3).
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

/// What an object is, which is also the folder it lies in.
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
    /// Which pack has which chunk, in `index/`: a cache that nothing depends on.
    Index,
}

impl Kind {
    /// Every kind, in the order in which a snapshot makes them durable.
    pub const ALL: [Self; 5] = [Self::Key, Self::Pack, Self::Meta, Self::Log, Self::Index];

    /// The folder below the store's top.
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

/// Which object: the VAULT file, or one of a kind by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// The one clear file that says what this folder is.
    Vault,
    /// Any other object.
    Named(Kind, ObjectName),
}

impl fmt::Display for ObjectKey {
    /// The path below the store's top, with `/`.
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

/// One thing found by [`Store::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// An object, and its length in bytes.
    Object {
        /// Its name.
        name: ObjectName,
        /// Its length in bytes.
        len: u64,
    },
    /// Something that vault did not put there (a conflicted copy, a desktop file, a partial download): reported, never
    /// touched. Its path below the store's top.
    Foreign(String),
}

/// When what one client put becomes visible to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// At once: a local disk, a file server, S3.
    Direct,
    /// Some time later and in any order: a folder that a sync client carries away.
    Synced,
}

/// What an operation of a store was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One object.
    Object(ObjectKey),
    /// The folder of a kind.
    Folder(Kind),
    /// The store as a whole, or something else in it.
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

/// A put that was begun. Unless it is finished, the object does not appear.
pub struct Pending<'s>(Option<Box<FinishPut<'s>>>);

/// The second half of a put.
type FinishPut<'s> = dyn FnOnce() -> Result<(), StoreError> + Send + 's;

impl<'s> Pending<'s> {
    /// A put of which nothing is left to do.
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

/// How much a store does at a time. Who waits for many requests has as many under way, however many cores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Reads and lists under way, at least 1.
    pub reads: usize,
    /// Puts and deletions under way, at least 1.
    pub writes: usize,
    /// Bytes of all puts under way together. An object that is longer is put alone.
    pub bytes: u64,
}

impl StoreLimits {
    /// One request at a time.
    pub const ONE: Self = Self { reads: 1, writes: 1, bytes: 0 };
}

/// A place that keeps immutable objects.
///
/// Each method is as few requests as the place allows; what is asked for often is one request, and the tests count them.
/// An error that tells of the line or of the store as a whole ([`StoreError::is_of_whole`]) says nothing about the object.
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

    /// The first half of [`Store::put`], where it can be split: takes the bytes, so that the next object can be made while
    /// this one becomes durable. Nothing is visible before the second half.
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

    /// The length of an object, in bytes. Lists tell it too: ask only for what was not listed.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none.
    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError>;

    /// Calls `found` for everything in the folder of a kind, in no particular order. An implementation over pages asks
    /// for one page after the other. An error means that the list is not whole, and must not be taken for one.
    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError>;

    /// Calls `found` for everything in the folders of these kinds. Whatever was put before an object that is listed, and
    /// of a kind that comes later in `kinds`, is listed too: so records come before the packs that they speak of.
    ///
    /// # Errors
    /// As [`Store::list`].
    fn list_all(&self, kinds: &[Kind], found: &mut dyn FnMut(Kind, Listed)) -> Result<(), StoreError> {
        kinds.iter().try_for_each(|kind| self.list(*kind, &mut |listed| found(*kind, listed)))
    }

    /// Deletes an object. Deleting one that is not there succeeds. After a power cut it may be there again.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Deletes objects as [`Store::delete`] does, many at a time where the place allows. Each one that is gone is told.
    ///
    /// # Errors
    /// The first failure. What was not told may or may not be gone.
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

    /// Deletes an object for good: when this returns `Ok`, no power cut brings it back. Also if it was not there: an
    /// earlier try may have deleted it without making that durable. What opens the vault (a key slot) is deleted only
    /// like this.
    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Moves an object out of the way, to where no command looks for objects but a person can find it. Nothing is lost.
    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Removes what puts that were cut off long ago have left in the place, where such remains are possible. Whatever may still be
    /// at work is left alone. Returns how many there were.
    ///
    /// # Errors
    /// If the store fails. What could not be removed stays for the next time.
    fn sweep_leftovers(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// How many requests may be under way.
    fn limits(&self) -> StoreLimits;

    /// Where the store lies, for messages.
    fn place(&self) -> String;

    /// What time it was there when it answered last, in seconds since 1970, if the place tells.
    fn told_time(&self) -> Option<i64> {
        None
    }

    /// The folder of a store on this machine, so that a snapshot can leave it out.
    fn folder(&self) -> Option<&std::path::Path> {
        None
    }

    /// Whether an object is there and has exactly these bytes. Where the place tells a digest of what it holds, an
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
