//! The store: immutable objects under names that say nothing (SPEC §3).
//!
//! Everything that vault keeps passes through the one narrow trait [`Store`]. It is blocking, and every method may be
//! called from many threads at once, so that a remote store can have many requests under way.

#[cfg(test)]
pub mod conformance;
pub mod dir;
pub mod faulty;
pub mod gated;
pub mod mem;
pub mod paced;
pub mod synced;

use std::fmt;

use crate::id::ObjectName;

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
}

impl Kind {
    /// Every kind, in the order in which a snapshot makes them durable.
    pub const ALL: [Self; 4] = [Self::Key, Self::Pack, Self::Meta, Self::Log];

    /// The folder below the store's top.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Key => "keys",
            Self::Pack => "packs",
            Self::Meta => "meta",
            Self::Log => "log",
        }
    }

    /// Whether the folder is split by the first two digits of the names.
    pub const fn fans_out(self) -> bool {
        matches!(self, Self::Pack | Self::Meta)
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

/// Why a store could not do what was asked. Never to be mistaken for trouble with a source file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("object {object} is missing from the store")]
    Missing {
        /// Which one.
        object: Subject,
    },
    /// An object of that name is there already; nothing was changed.
    #[error("object {object} exists already")]
    Exists {
        /// Which one.
        object: Subject,
    },
    /// The object ends before the range that was asked for.
    #[error("object {object} is cut short: {need} bytes are needed, {have} are there")]
    Short {
        /// Which one.
        object: Subject,
        /// Bytes that it must have at least.
        need: u64,
        /// Bytes that it has.
        have: u64,
    },
    /// No space is left.
    #[error("no space is left in the store (writing {object})")]
    Full {
        /// Which one.
        object: Subject,
    },
    /// The store may not be written.
    #[error("the store is read-only (writing {object})")]
    ReadOnly {
        /// Which one.
        object: Subject,
    },
    /// This user may not do that.
    #[error("cannot {action} object {object}: {path} does not allow it")]
    Denied {
        /// What was being done, as in [`StoreError::Io`].
        action: &'static str,
        /// Which one.
        object: Subject,
        /// The file or folder that refuses.
        path: String,
        /// The number of the user that it belongs to, where systems have such numbers.
        owner: Option<u32>,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file would be larger than this process, or the file system, allows.
    #[error("object {object} would be larger than a file may be here")]
    TooLarge {
        /// Which one.
        object: Subject,
    },
    /// The store as a whole is not there (a disk unplugged, a share gone).
    #[error("the store {place} is not there")]
    Gone {
        /// Where it should be.
        place: String,
    },
    /// This machine has no more open files or memory to give, which says nothing about the object.
    #[error("cannot {action} object {object}, for lack of open files or memory")]
    Exhausted {
        /// What was being done, as in [`StoreError::Io`].
        action: &'static str,
        /// Which one.
        object: Subject,
        /// What the system said.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("cannot {action} object {object}")]
    Io {
        /// What was being done: `read`, `write`, `list`, `delete`.
        action: &'static str,
        /// Which one.
        object: Subject,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StoreError {
    /// What is wrong, without the name of the object, for where that stands beside it.
    pub fn reason(&self) -> String {
        match self {
            Self::Missing { .. } => "it is missing".to_owned(),
            Self::Short { need, have, .. } => format!("it is cut short: {need} bytes are needed, {have} are there"),
            Self::Io { action, source, .. } => format!("cannot {action} it: {source}"),
            _ => self.to_string(),
        }
    }

    /// The object that it is about, if it is about one.
    pub const fn key(&self) -> Option<ObjectKey> {
        match self {
            Self::Missing { object }
            | Self::Exists { object }
            | Self::Short { object, .. }
            | Self::Full { object }
            | Self::ReadOnly { object }
            | Self::TooLarge { object }
            | Self::Denied { object, .. }
            | Self::Exhausted { object, .. }
            | Self::Io { object, .. } => match object {
                Subject::Object(key) => Some(*key),
                Subject::Folder(_) | Subject::Place(_) => None,
            },
            Self::Gone { .. } => None,
        }
    }

    /// Whether it says nothing about one object: any other would have met it too.
    pub const fn is_of_whole(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Exhausted { .. })
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

/// A place that keeps immutable objects.
pub trait Store: Send + Sync + fmt::Debug {
    /// Puts a new object. When this returns `Ok`, the object is durable, whole, and visible under its name; when it
    /// returns an error, no part of it is visible (it may still become visible whole, if the outcome is unknown).
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is an object of that name: objects are never replaced.
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StoreError>;

    /// The first half of [`Store::put`], where it can be split: takes the bytes, so that the next object can be made while
    /// this one becomes durable. Nothing is visible before the second half.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn begin_put<'s>(&'s self, key: &ObjectKey, bytes: &[u8]) -> Result<Pending<'s>, StoreError> {
        self.put(key, bytes).map(|()| Pending::done())
    }

    /// Reads exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Short`] if the object ends before `offset + len`.
    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Vec<u8>, StoreError>;

    /// The length of an object, in bytes.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none.
    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError>;

    /// Calls `found` for everything in the folder of a kind, in no particular order. An implementation over pages asks
    /// for one page after the other. An error means that the list is not whole, and must not be taken for one.
    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError>;

    /// Deletes an object. Deleting one that is not there succeeds. After a power cut it may be there again.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Deletes an object for good: when this returns `Ok`, no power cut brings it back. Also if it was not there: an
    /// earlier try may have deleted it without making that durable. What opens the vault (a key slot) is deleted only
    /// like this.
    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Moves an object out of the way, to where no command looks for objects but a person can find it. Nothing is lost.
    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Where the store lies, for messages.
    fn place(&self) -> String;

    /// The folder of a store on this machine, so that a snapshot can leave it out.
    fn folder(&self) -> Option<&std::path::Path> {
        None
    }

    /// Reads a whole object of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Store::get_range`]; an object longer than `max` is [`StoreError::Io`].
    fn get(&self, key: &ObjectKey, max: u64) -> Result<Vec<u8>, StoreError> {
        let len = self.len(key)?;
        if len > max {
            return Err(StoreError::Io {
                action: "read",
                object: key.into(),
                source: std::io::Error::other(format!("it has {len} bytes, more than the {max} that are allowed")),
            });
        }
        self.get_range(key, 0, len as usize)
    }
}
