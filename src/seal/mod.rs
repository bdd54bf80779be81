//! Keys, compression, encryption (SPEC §4): the only layer that names a cipher, and the only source of randomness.
//!
//! One random master key protects all content; one writer's key decides how it is cut, named and found. [`SlotFile`]s
//! wrap both for a password or a recovery key; [`Keys`] are derived from them for one vault; each object has a random
//! key of its own, wrapped in its header. [`IndexSeal`]s seal the sections that locate chunks.

mod aead;
mod compress;
mod keys;
mod index;
mod object;
mod secret;
mod recovery;
mod keyring;
mod slot;
mod vault_file;

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::id::{ObjectName, VaultId};
use crate::store::Kind;

pub use compress::{Compressor, Decompressor, Method};
pub use index::{IndexSeal, IndexSection};
pub use keyring::{Keyring, LABEL_LEN_MAX, Purpose, SlotInfo};
pub use keys::Keys;
pub use object::{ObjectOpener, ObjectSealer};
pub use recovery::{RecoveryKey, RecoveryKeyError};
pub use secret::{KdfParams, RAW_SECRET_LEN_MIN, Secret};
pub use slot::{SLOT_LEN, SlotFile, UnlockError, unlock_any, unlock_with};
pub use vault_file::{FEATURES_KNOWN, FORMAT_VERSION, MIRROR, VaultFile, VaultFileError};

/// Length of the header of every sealed object.
pub const HEADER_LEN: usize = 120;
/// Length of the tag behind every ciphertext.
pub const TAG_LEN: usize = 16;
/// Length of the nonce before every section.
pub const NONCE_LEN: usize = 24;
/// Length that sealing adds to a section that is not a segment.
pub const SEAL_OVERHEAD: usize = NONCE_LEN + TAG_LEN;
/// Length of everything before the sealed body of a segment: the nonce and the sealed length of the body.
pub const SEGMENT_HEAD_LEN: usize = NONCE_LEN + 4 + TAG_LEN;

/// Error of sealing or opening. It names no object and does not call it damaged (the caller knows it, and does), and
/// shows no secret.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A version, flag or number that this program does not know.
    #[error("unknown {what}")]
    Newer {
        /// The unknown part.
        what: &'static str,
    },
    /// The header does not open with this vault's key under this name.
    #[error("its header is not as it was written, or it was renamed or belongs to another vault")]
    NotOurs,
    /// The header opens, but is not the one that the object was made with.
    #[error("its header does not match its key")]
    Commitment,
    /// A section is not as it was sealed there.
    #[error("its {0} is not as it was written")]
    Damaged(Section),
    /// Bytes that no vault writes.
    #[error("{0}")]
    Malformed(&'static str),
    /// The compressor could not be set up; no memory is left.
    #[error("zstd cannot be set up: no memory is left")]
    Zstd,
    /// The system provides no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// Error of making or opening a key slot.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// It is not as it was written.
    #[error("{0}")]
    Damaged(&'static str),
    /// It is sound, but this password or key does not open it.
    #[error("the password or key does not open this key slot")]
    WrongSecret,
    /// A version, flag or number that this program does not know.
    #[error("the key slot was written by a newer vault (unknown {what})")]
    Newer {
        /// The unknown part.
        what: &'static str,
    },
    /// The keyring has the form from before the format was settled.
    #[error("the key slot was made by a pre-release of vault")]
    PreRelease,
    /// Costs of a password that are out of bounds, or a secret or label that no slot can have.
    #[error("the key slot is not acceptable: {0}")]
    Params(&'static str),
    /// Argon2id needs more memory than there is.
    #[error("there is not enough memory to check the password: {mib} MiB are needed")]
    Memory {
        /// The memory that it needs.
        mib: u32,
    },
    /// There are no random bytes.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Fills `buf` with random bytes from the system.
pub fn random(buf: &mut [u8]) -> Result<(), SealError> {
    Ok(getrandom::fill(buf)?)
}

/// Random bytes from the system, as an array: for names and ids.
pub fn random_array<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    random(&mut bytes)?;
    Ok(bytes)
}

/// A fresh name for an object.
pub fn random_name() -> Result<ObjectName, SealError> {
    random_array().map(ObjectName::new)
}

/// 32 bytes on the heap, so that moving them leaves no copy behind; wiped when dropped, and not shown.
struct KeyBytes(Box<[u8; 32]>);

impl KeyBytes {
    fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut key = Self(Box::new([0; 32]));
        key.0.copy_from_slice(bytes);
        key
    }
}

impl Drop for KeyBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The key that protects everything: the keys of all objects are wrapped under a key derived from it.
pub struct MasterKey(KeyBytes);

impl MasterKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// A random key.
    pub fn generate() -> Result<Self, SealError> {
        let mut key = Self(KeyBytes(Box::new([0; Self::LEN])));
        random(&mut key.0.0[..])?;
        Ok(key)
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self(KeyBytes::copy_of(bytes))
    }

    fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// The key of writing clients: it decides how streams are cut, how chunks are named and how they are found, but opens
/// no content. Vaults that share it cut alike and have the same chunk ids.
pub struct WriterKey(KeyBytes);

impl WriterKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The key of a vault that shares it with no other.
    pub fn derive(master: &MasterKey) -> Self {
        Self::from_bytes(&Zeroizing::new(blake3::derive_key("vault 2026 writer", master.as_bytes())))
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self(KeyBytes::copy_of(bytes))
    }

    fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0.0
    }
}

impl Clone for WriterKey {
    fn clone(&self) -> Self {
        Self::from_bytes(self.as_bytes())
    }
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriterKey(..)")
    }
}

/// Kind of a sealed object; every section is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Segments of file content.
    Pack = 1,
    /// Segments of trees.
    Meta = 2,
    /// A record of a client's log.
    Record = 3,
    /// Hints that tell which pack has which chunk.
    Index = 4,
}

impl ObjectKind {
    /// The store's kind for objects of this kind.
    pub const fn store_kind(self) -> Kind {
        match self {
            Self::Pack => Kind::Pack,
            Self::Meta => Kind::Meta,
            Self::Record => Kind::Log,
            Self::Index => Kind::Index,
        }
    }

    /// The kind of sealed objects for a kind of the store; `None` for key slots, which are not sealed objects.
    pub const fn from_store_kind(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Key => None,
            Kind::Pack => Some(Self::Pack),
            Kind::Meta => Some(Self::Meta),
            Kind::Log => Some(Self::Record),
            Kind::Index => Some(Self::Index),
        }
    }
}

/// A separately sealed part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// The length of a segment's sealed body; the segments of a pack are numbered from 0.
    SegmentHead(u32),
    /// The content of a segment.
    SegmentBody(u32),
    /// The list of a pack's segments and chunks.
    Footer,
    /// The position of the footer.
    Locator,
    /// The content of a log record.
    Record,
    /// Some entries of an index object; the parts of the range of ids are numbered from 0.
    Range(u32),
    /// The packs that an index object describes.
    Packs,
}

impl Section {
    /// The context from which its key is derived.
    const fn context(self) -> &'static str {
        match self {
            Self::SegmentHead(_) => "vault 2026 section segment head",
            Self::SegmentBody(_) => "vault 2026 section segment body",
            Self::Footer => "vault 2026 section footer",
            Self::Locator => "vault 2026 section locator",
            Self::Record => "vault 2026 section record",
            Self::Range(_) => "vault 2026 section index range",
            Self::Packs => "vault 2026 section index packs",
        }
    }

    const fn tag(self) -> u8 {
        match self {
            Self::SegmentHead(_) => 1,
            Self::SegmentBody(_) => 2,
            Self::Footer => 3,
            Self::Locator => 4,
            Self::Record => 5,
            Self::Range(_) => 6,
            Self::Packs => 7,
        }
    }

    const fn number(self) -> u32 {
        match self {
            Self::SegmentHead(number) | Self::SegmentBody(number) | Self::Range(number) => number,
            Self::Footer | Self::Locator | Self::Record | Self::Packs => 0,
        }
    }
}

const AAD_LEN: usize = VaultId::LEN + 1 + ObjectName::LEN + 1 + 4;

/// Binds a section to its place: this vault, this object, this part of it.
fn section_aad(vault: VaultId, kind: ObjectKind, name: ObjectName, section: Section) -> [u8; AAD_LEN] {
    let mut aad = [0; AAD_LEN];
    aad[..16].copy_from_slice(vault.as_bytes());
    aad[16] = kind as u8;
    aad[17..33].copy_from_slice(name.as_bytes());
    aad[33] = section.tag();
    aad[34..].copy_from_slice(&section.number().to_le_bytes());
    aad
}

const TOO_LONG: SealError = SealError::Malformed("a section is too long to be sealed");
const TOO_SHORT: SealError = SealError::Malformed("a section is cut short");

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SegmentHead(number) => write!(f, "head of segment {number}"),
            Self::SegmentBody(number) => write!(f, "segment {number}"),
            Self::Footer => f.write_str("footer"),
            Self::Locator => f.write_str("locator"),
            Self::Record => f.write_str("content"),
            Self::Range(number) => write!(f, "range {number}"),
            Self::Packs => f.write_str("list of packs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    pub(super) fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn names_are_random() {
        assert_ne!(random_name().unwrap(), random_name().unwrap());
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", MasterKey::from_bytes(&[7; 32])), "MasterKey(..)");
        assert_eq!(format!("{:?}", WriterKey::from_bytes(&[7; 32])), "WriterKey(..)");
    }

    #[test]
    fn kinds_and_folders_belong_together() {
        for kind in [ObjectKind::Pack, ObjectKind::Meta, ObjectKind::Record, ObjectKind::Index] {
            assert_eq!(ObjectKind::from_store_kind(kind.store_kind()), Some(kind));
        }
        assert_eq!(ObjectKind::from_store_kind(Kind::Key), None);
    }
}
