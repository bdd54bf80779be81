//! Packs: sealed segments back to back in one object, followed by its own sealed index (SPEC §5).
//!
//! [`footer`] the index of a pack · [`segment`] chunks laid end to end · [`writer`] fills packs from many threads ·
//! [`reader`] opens footers and segments · [`index`] tells which pack has which chunk · [`scan`] finds segments without
//! the footer.

pub mod footer;
pub mod segment;
pub mod writer;
pub mod together;
pub mod reader;
pub mod scan;
pub mod index;

pub use footer::{Footer, SegmentEntry};
pub use reader::{Openers, PackReader, Witness};
pub use segment::{SealedBody, SegmentBuilder};
pub use together::SegmentPlace;
pub use writer::{FinishedPack, PackWriter};

use crate::seal::SealError;
use crate::store::{ObjectKey, StoreError};
use crate::varint::DecodeError;

/// Sealed length of the locator: nonce, 24 bytes, tag.
pub const LOCATOR_LEN: usize = 64;
/// Length of the clear BLAKE3 trailer.
pub const TRAILER_LEN: usize = 32;

/// Error of writing or reading a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is not as it was put: flipped, cut, swapped or renamed.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: ObjectKey,
        /// The damage.
        what: String,
    },
    /// A later version wrote it.
    #[error("{object} was written by a newer vault: {what}")]
    Newer {
        /// The object.
        object: ObjectKey,
        /// The unknown part.
        what: String,
    },
    /// Sealing failed, or sealed data could not be opened again: nothing was stored.
    #[error("a segment could not be sealed and verified: {0}")]
    Seal(String),
}

impl PackError {
    /// The reason without the name of the object, for places that show the name beside it.
    pub fn reason(&self) -> String {
        match self {
            Self::Store(error) => error.reason(),
            Self::Damaged { what, .. } | Self::Newer { what, .. } => what.clone(),
            Self::Seal(_) => self.to_string(),
        }
    }

    /// Converts an error of opening a sealed part of `object`.
    fn open(object: ObjectKey, error: &SealError) -> Self {
        match error {
            SealError::Newer { .. } => Self::Newer { object, what: error.to_string() },
            _ => Self::Damaged { object, what: error.to_string() },
        }
    }

    /// Whether the error means damage in the store, or an object that is gone.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Missing { .. } | StoreError::Short { .. }),
            Self::Damaged { .. } => true,
            Self::Newer { .. } | Self::Seal(_) => false,
        }
    }

    /// Whether the error concerns something that a later version wrote.
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. })
    }

    /// Whether the error concerns only data that depends on this object, so that everything else can continue.
    pub const fn is_contained(&self) -> bool {
        self.is_damage() || self.is_newer()
    }

    /// Whether the error concerns the pack itself, and not the store as a whole or this machine.
    pub const fn is_of_pack(&self) -> bool {
        self.is_contained() || matches!(self, Self::Store(StoreError::Io { .. }))
    }

    fn malformed(object: ObjectKey, error: DecodeError) -> Self {
        match error {
            DecodeError::Unknown(what) => Self::Newer { object, what: format!("unknown {what}") },
            _ => Self::Damaged { object, what: error.to_string() },
        }
    }
}
