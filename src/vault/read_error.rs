//! Errors of reading what is stored.

use crate::catalogue::CatalogueError;
use crate::id::{ChunkId, ObjectName};
use crate::pack::PackError;
use crate::seal::SealError;
use crate::store::{ObjectKey, StoreError, Subject};
use crate::tree::{EntryError, StreamError};
use crate::vault::{Vault, VaultError};

/// A snapshot that is no longer kept as it was when its reading began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// It was forgotten.
    #[error("snapshot {} was dropped meanwhile by another machine", .0.short())]
    Dropped(ObjectName),
    /// Another one with other content takes its place.
    #[error("snapshot {} was changed meanwhile by another machine, and is {} now", was.short(), now.short())]
    Changed {
        /// Its id when its reading began.
        was: ObjectName,
        /// The snapshot that takes its place.
        now: ObjectName,
    },
}

impl Gone {
    /// The snapshot, by the id under which it was read.
    pub const fn snapshot(&self) -> ObjectName {
        match self {
            Self::Dropped(id) | Self::Changed { was: id, .. } => *id,
        }
    }

    /// The words of work over many snapshots, which goes on without this one.
    pub(crate) fn left_out(&self) -> String {
        format!("{self}: it is left out")
    }
}

/// Error of reading something that is stored.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No pack has this chunk.
    #[error("a piece of it is lost: chunk {0} is in no pack")]
    Lost(ChunkId),
    /// No pack that this version can read has this chunk, but there are packs that it cannot read.
    #[error(
        "a piece of it cannot be read by this version of vault, and a newer one has written packs here (chunk {0})"
    )]
    Hidden(ChunkId),
    /// It is not here as it was put, because the sync has not brought it yet.
    #[error("a piece of it has not arrived yet; the sync brings it")]
    NotArrived,
    /// The snapshot that it belongs to is no longer kept as it was.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// A pack could not be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The chunks contain no valid stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The chunks contain no valid listing.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The decompressor could not be set up.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Another vault, from which it was to be read instead, could not be, for a reason other than damage. It says nothing about this one.
    #[error("{place}, from which it is brought back")]
    Lender {
        /// Where the other vault lies.
        place: String,
        /// The trouble there.
        source: Box<Self>,
    },
}

impl ReadError {
    /// Whether the error means damage in the store.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Stream(_) => true,
            Self::Entry(error) => !error.is_newer(),
            Self::Pack(error) => error.is_damage(),
            Self::Hidden(_)
            | Self::NotArrived
            | Self::Gone(_)
            | Self::Catalogue(_)
            | Self::Seal(_)
            | Self::Lender { .. } => false,
        }
    }

    /// Whether the error is that something has not arrived yet.
    pub const fn is_late(&self) -> bool {
        matches!(self, Self::NotArrived)
    }

    /// The fate of the snapshot that was being read, if the error is that it is no longer kept as it was.
    pub const fn gone(&self) -> Option<Gone> {
        match self {
            Self::Gone(gone) => Some(*gone),
            _ => None,
        }
    }

    /// The same, of a vault from which something was to be read for another one.
    #[must_use]
    pub fn of_lender(self, donor: &Vault) -> Self {
        match self {
            Self::Lender { .. } => self,
            error => Self::Lender { place: donor.store().place(), source: Box::new(error) },
        }
    }

    /// Whether the error concerns something that a later version wrote.
    pub const fn is_newer(&self) -> bool {
        match self {
            Self::Entry(error) => error.is_newer(),
            Self::Pack(error) => error.is_newer(),
            Self::Hidden(_) => true,
            Self::Lost(_)
            | Self::NotArrived
            | Self::Gone(_)
            | Self::Stream(_)
            | Self::Catalogue(_)
            | Self::Seal(_)
            | Self::Lender { .. } => false,
        }
    }

    /// The object that could not be read as it was put, if the error is about one.
    pub(crate) const fn object(&self) -> Option<&ObjectKey> {
        match self {
            Self::Pack(
                PackError::Damaged { object, .. }
                | PackError::Store(StoreError::Short { object: Subject::Object(object), .. }),
            ) => Some(object),
            _ => None,
        }
    }

    /// Whether the error concerns only the data that was read, so that everything else can continue.
    pub const fn is_contained(&self) -> bool {
        self.is_damage() || self.is_newer() || self.is_late()
    }
}

/// Converts an error of looking at the store during a read.
impl From<VaultError> for ReadError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Catalogue(error) => error.into(),
            VaultError::Store(error) => PackError::from(error).into(),
            error => CatalogueError::Database(error.to_string()).into(),
        }
    }
}
