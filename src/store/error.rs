//! Errors of a store. Each reason is a variant of its own, so that trouble with the connection is never taken for
//! damage.

use crate::store::{ObjectKey, Subject};

/// The reason why a store failed. Never to be mistaken for trouble with a source file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object does not exist.
    #[error("{object} is missing from the store")]
    Missing {
        /// The object.
        object: Subject,
    },
    /// An object of that name already exists; nothing was changed.
    #[error("{object} exists already")]
    Exists {
        /// The object.
        object: Subject,
    },
    /// The object ends before the requested range.
    #[error("{object} is cut short: {need} bytes are needed, {have} are there")]
    Short {
        /// The object.
        object: Subject,
        /// The length that it must have at least, in bytes.
        need: u64,
        /// Its length in bytes.
        have: u64,
    },
    /// The object is longer than an object that may be read whole.
    #[error("{object} has {have} bytes, more than the {max} that are allowed")]
    Long {
        /// The object.
        object: Subject,
        /// The length that it may have at most, in bytes.
        max: u64,
        /// Its length in bytes.
        have: u64,
    },
    /// No space is left.
    #[error("no space is left in the store (writing {object})")]
    Full {
        /// The object.
        object: Subject,
    },
    /// The store is read-only.
    #[error("the store is read-only (writing {object})")]
    ReadOnly {
        /// The object.
        object: Subject,
    },
    /// This user has no permission. If the error is about a place, it concerns the whole store: nothing at all is
    /// allowed (a wrong or expired credential).
    #[error("cannot {action} {object}: {path} does not allow it")]
    Denied {
        /// The action that failed, as in [`StoreError::Io`].
        action: &'static str,
        /// The object, folder or place.
        object: Subject,
        /// The file or folder that refuses.
        path: String,
        /// The user id of its owner, where the system has user ids.
        owner: Option<u32>,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file would be larger than this process, or the file system, allows.
    #[error("{object} would be larger than a file may be here")]
    TooLarge {
        /// The object.
        object: Subject,
    },
    /// The store as a whole is not there (a disk unplugged, a share gone).
    #[error("the store {place} is not there")]
    Gone {
        /// The place where it should be.
        place: String,
    },
    /// The connection or the server fails: a request timed out, was cut off, or was answered with a server error.
    /// Nothing is known about any object.
    #[error("cannot {action} {object}: {place} cannot be reached")]
    Unreachable {
        /// The action that failed, as in [`StoreError::Io`].
        action: &'static str,
        /// The object, folder or place that the request was about.
        object: Subject,
        /// The place of the store.
        place: String,
        /// The error of the system or of the server.
        source: std::io::Error,
    },
    /// The store as a whole cannot be used with this machine's setup: a credential is wrong or has expired, a clock
    /// is wrong, a program is missing. A retry is of no use.
    #[error("{place} cannot be used")]
    Unusable {
        /// The place of the store.
        place: String,
        /// The error of the server or of the system.
        source: std::io::Error,
    },
    /// The store refuses a request because there are too many of them.
    #[error("{place} takes no more requests for now")]
    Throttled {
        /// The place of the store.
        place: String,
        /// The time that the store asks us to wait, if it names one.
        after: Option<std::time::Duration>,
    },
    /// The store reported that an object was written, but has not kept it. An earlier object there may be unchanged.
    /// Nothing that is put there now can be relied on.
    #[error("{place} said that {object} was written, and {}", not_kept(*need, *have))]
    NotKept {
        /// The object.
        object: Subject,
        /// The place of the store.
        place: String,
        /// The number of bytes that were put.
        need: u64,
        /// The number of bytes stored; `None` if there is no such object.
        have: Option<u64>,
    },
    /// The user stopped the work while it waited for the store. The outcome of a write is unknown.
    #[error("stopped while waiting for the store")]
    Stopped,
    /// This machine ran out of open files or memory, which says nothing about the object.
    #[error("cannot {action} {object}, for lack of open files or memory")]
    Exhausted {
        /// The action that failed, as in [`StoreError::Io`].
        action: &'static str,
        /// The object, folder or place.
        object: Subject,
        /// The system's error.
        source: std::io::Error,
    },
    /// Any other error.
    #[error("cannot {action} {object}")]
    Io {
        /// The action that failed: `read`, `write`, `list`, `delete`.
        action: &'static str,
        /// The object, folder or place.
        object: Subject,
        /// The system's error.
        source: std::io::Error,
    },
}

fn not_kept(need: u64, have: Option<u64>) -> String {
    have.map_or_else(|| "has it not".to_owned(), |have| format!("has {have} of its {need} bytes"))
}

impl StoreError {
    /// The error's text without the name of the object, for messages that already show the name.
    pub fn reason(&self) -> String {
        match self {
            Self::Missing { .. } => "it is missing".to_owned(),
            Self::Short { need, have, .. } => format!("it is cut short: {need} bytes are needed, {have} are there"),
            Self::Long { have, max, .. } => format!("it has {have} bytes, more than the {max} that are allowed"),
            Self::Io { action, source, .. } => format!("cannot {action} it: {source}"),
            _ => self.to_string(),
        }
    }

    /// The subject of the error; `None` for an error of the store as a whole.
    pub const fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Missing { object }
            | Self::Exists { object }
            | Self::Short { object, .. }
            | Self::Long { object, .. }
            | Self::Full { object }
            | Self::ReadOnly { object }
            | Self::TooLarge { object }
            | Self::Denied { object, .. }
            | Self::Exhausted { object, .. }
            | Self::Unreachable { object, .. }
            | Self::NotKept { object, .. }
            | Self::Io { object, .. } => Some(object),
            Self::Gone { .. } | Self::Unusable { .. } | Self::Throttled { .. } | Self::Stopped => None,
        }
    }

    /// The object that the error is about, if any.
    pub const fn key(&self) -> Option<ObjectKey> {
        match self.subject() {
            Some(Subject::Object(key)) => Some(*key),
            Some(Subject::Folder(_) | Subject::Place(_)) | None => None,
        }
    }

    /// Whether the error concerns the whole store, the connection to it or this machine, rather than one object. Any
    /// other object would have met the same error, so it says nothing about this one.
    pub const fn is_of_whole(&self) -> bool {
        match self {
            Self::Gone { .. }
            | Self::Exhausted { .. }
            | Self::Unreachable { .. }
            | Self::Unusable { .. }
            | Self::Throttled { .. }
            | Self::NotKept { .. }
            | Self::Stopped => true,
            Self::Denied { object, .. } => matches!(object, Subject::Place(_)),
            _ => false,
        }
    }
}

/// Whether the system's error is about the connection to another machine, rather than about the request.
pub(super) fn is_of_line(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkDown, NetworkUnreachable, NotConnected, StaleNetworkFileHandle, TimedOut, UnexpectedEof,
    };
    matches!(
        error.kind(),
        AddrNotAvailable
            | BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | StaleNetworkFileHandle
            | TimedOut
            | UnexpectedEof
    )
}
