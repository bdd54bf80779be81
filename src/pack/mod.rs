//! Packs: sealed segments back to back in one object, followed by its own sealed index (SPEC §5).
//!
//! [`footer`] what a pack says it holds · [`segment`] chunks laid end to end · [`writer`] fills packs from many threads ·
//! [`reader`] opens footers and segments · [`index`] tells which pack has which chunk · [`scan`] finds segments without the footer.

pub mod footer;
pub mod segment;
pub mod writer;
pub mod reader;
pub mod scan;
pub mod index;

pub use footer::{Footer, SegmentEntry};
pub use reader::{Openers, PackReader, SegmentPlace, Witness};
pub use segment::{SealedBody, SegmentBuilder};
pub use writer::{FinishedPack, PackWriter};

use crate::seal::SealError;
use crate::store::{ObjectKey, StoreError};
use crate::varint::DecodeError;

/// Sealed length of the locator: nonce, 24 bytes, tag.
pub const LOCATOR_LEN: usize = 64;
/// Length of the clear BLAKE3 trailer.
pub const TRAILER_LEN: usize = 32;

/// Why a pack could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is not what was put: flipped, cut, swapped or renamed.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// Which one.
        object: ObjectKey,
        /// What is wrong with it.
        what: String,
    },
    /// Written by a later version.
    #[error("{object} was written by a newer vault: {what}")]
    Newer {
        /// Which one.
        object: ObjectKey,
        /// What is unknown.
        what: String,
    },
    /// Sealing failed, or what was sealed could not be opened again: nothing was stored.
    #[error("a segment could not be sealed and verified: {0}")]
    Seal(String),
}

impl PackError {
    /// What is wrong, without the name of the object, for where that stands beside it.
    pub fn reason(&self) -> String {
        match self {
            Self::Store(error) => error.reason(),
            Self::Damaged { what, .. } | Self::Newer { what, .. } => what.clone(),
            Self::Seal(_) => self.to_string(),
        }
    }

    /// What opening a sealed part of `object` failed with.
    fn open(object: ObjectKey, error: &SealError) -> Self {
        match error {
            SealError::Newer { .. } => Self::Newer { object, what: error.to_string() },
            _ => Self::Damaged { object, what: error.to_string() },
        }
    }

    /// Whether it tells of damage in the store, or of an object that is gone.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Missing { .. } | StoreError::Short { .. }),
            Self::Damaged { .. } => true,
            Self::Newer { .. } | Self::Seal(_) => false,
        }
    }

    /// Whether it tells of something that a later version wrote.
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. })
    }

    /// Whether it concerns only what depends on this object, so that all else can go on.
    pub const fn is_contained(&self) -> bool {
        self.is_damage() || self.is_newer()
    }

    fn malformed(object: ObjectKey, error: DecodeError) -> Self {
        match error {
            DecodeError::Unknown(what) => Self::Newer { object, what: format!("unknown {what}") },
            _ => Self::Damaged { object, what: error.to_string() },
        }
    }
}
