//! Why a store could not do what was asked. Each reason is a type of its own, so that nobody takes trouble with the line for
//! damage.

use crate::store::{ObjectKey, Subject};

/// Why a store could not do what was asked. Never to be mistaken for trouble with a source file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{object} is missing from the store")]
    Missing {
        /// Which one.
        object: Subject,
    },
    /// An object of that name is there already; nothing was changed.
    #[error("{object} exists already")]
    Exists {
        /// Which one.
        object: Subject,
    },
    /// The object ends before the range that was asked for.
    #[error("{object} is cut short: {need} bytes are needed, {have} are there")]
    Short {
        /// Which one.
        object: Subject,
        /// Bytes that it must have at least.
        need: u64,
        /// Bytes that it has.
        have: u64,
    },
    /// The object is longer than whatever may be read as a whole.
    #[error("{object} has {have} bytes, more than the {max} that are allowed")]
    Long {
        /// Which one.
        object: Subject,
        /// Bytes that it may have.
        max: u64,
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
    /// This user may not do that. Of the whole store if it is about a place: then nothing at all is allowed (a wrong or
    /// expired credential).
    #[error("cannot {action} {object}: {path} does not allow it")]
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
    #[error("{object} would be larger than a file may be here")]
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
    /// The line to the store, or whoever answers at its end, fails: a request timed out, was cut off, or was answered with
    /// an error of the server. Nothing is known about any object.
    #[error("cannot {action} {object}: {place} cannot be reached")]
    Unreachable {
        /// What was being done, as in [`StoreError::Io`].
        action: &'static str,
        /// What it was about.
        object: Subject,
        /// Where the store lies.
        place: String,
        /// What the system or the server said.
        source: std::io::Error,
    },
    /// The store as a whole cannot be used as this machine is set up: a credential is wrong or has expired, a clock is wrong, a
    /// program is missing. It is of no use to try again.
    #[error("{place} cannot be used")]
    Unusable {
        /// Where the store lies.
        place: String,
        /// What the server or the system said.
        source: std::io::Error,
    },
    /// The store refuses a request because there are too many of them.
    #[error("{place} takes no more requests for now")]
    Throttled {
        /// Where the store lies.
        place: String,
        /// How long it asks to wait, if it says so.
        after: Option<std::time::Duration>,
    },
    /// The store has said that an object was written, and has not kept it. What was there before may be as it was; nothing that is put
    /// there now can be relied on.
    #[error("{place} said that {object} was written, and {}", not_kept(*need, *have))]
    NotKept {
        /// Which one.
        object: Subject,
        /// Where the store lies.
        place: String,
        /// Bytes that were put.
        need: u64,
        /// Bytes that are there; none if there is no such object.
        have: Option<u64>,
    },
    /// The work was told to stop while it waited for the store. The outcome of a write is unknown.
    #[error("stopped while waiting for the store")]
    Stopped,
    /// This machine has no more open files or memory to give, which says nothing about the object.
    #[error("cannot {action} {object}, for lack of open files or memory")]
    Exhausted {
        /// What was being done, as in [`StoreError::Io`].
        action: &'static str,
        /// Which one.
        object: Subject,
        /// What the system said.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("cannot {action} {object}")]
    Io {
        /// What was being done: `read`, `write`, `list`, `delete`.
        action: &'static str,
        /// Which one.
        object: Subject,
        /// What the system said.
        source: std::io::Error,
    },
}

fn not_kept(need: u64, have: Option<u64>) -> String {
    have.map_or_else(|| "has it not".to_owned(), |have| format!("has {have} of its {need} bytes"))
}

impl StoreError {
    /// What is wrong, without the name of the object, for where that stands beside it.
    pub fn reason(&self) -> String {
        match self {
            Self::Missing { .. } => "it is missing".to_owned(),
            Self::Short { need, have, .. } => format!("it is cut short: {need} bytes are needed, {have} are there"),
            Self::Long { have, max, .. } => format!("it has {have} bytes, more than the {max} that are allowed"),
            Self::Io { action, source, .. } => format!("cannot {action} it: {source}"),
            _ => self.to_string(),
        }
    }

    /// What it is about; nothing for an error of the store as a whole.
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

    /// The object that it is about, if it is about one.
    pub const fn key(&self) -> Option<ObjectKey> {
        match self.subject() {
            Some(Subject::Object(key)) => Some(*key),
            Some(Subject::Folder(_) | Subject::Place(_)) | None => None,
        }
    }

    /// Whether the error concerns the store as a whole, the line to it or this machine, rather than one object: any other
    /// object would have met it too, and nothing follows for this one.
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

/// Whether what the system said tells of the line to another machine, and not of what was asked for there.
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
