//! Secrets that open key slots, and the cost of guessing a password (SPEC §4.2).

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use rayon::iter::IndexedParallelIterator;
use unicode_normalization::{UnicodeNormalization, is_nfc};
use zeroize::{Zeroize, Zeroizing};

use super::SlotError;
use crate::memory::room;

/// Shortest random secret, in bytes.
pub const RAW_SECRET_LEN_MIN: usize = 16;

/// Bounds of the cost of a password, in both directions: a slot from a hostile store must neither be cheap to guess nor
/// keep the machine busy for ever. Memory in KiB.
pub(super) const MEMORY_MIN: u32 = 19 << 10;
const MEMORY_MAX: u32 = 2 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u8 = 16;
/// Bound of memory times passes, in KiB.
const WORK_MAX: u64 = 8 << 20;

/// A secret that opens a slot. Wiped when dropped, never shown in Debug.
pub enum Secret {
    /// A secret that a person chose.
    Password(Zeroizing<Vec<u8>>),
    /// At least 128 random bits: a recovery key or a device key.
    Raw(Zeroizing<Vec<u8>>),
}

impl Secret {
    /// A password.
    pub fn password(text: impl AsRef<[u8]>) -> Self {
        Self::Password(Zeroizing::new(text.as_ref().to_vec()))
    }

    /// A random secret.
    pub fn raw(bytes: &[u8]) -> Self {
        Self::Raw(Zeroizing::new(bytes.to_vec()))
    }
}

/// The bytes of a password that are stretched. Text is put into the form of Unicode that all systems agree on (NFC),
/// since keyboards and files encode the same letters as different bytes. Other bytes stay as they are.
fn normalized(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let Ok(text) = std::str::from_utf8(password) else { return Zeroizing::new(password.to_vec()) };
    if is_nfc(text) {
        return Zeroizing::new(password.to_vec());
    }
    // Reserve all room at the start: a buffer that grows leaves copies behind. NFC makes no text more than three times
    // as long.
    let mut bytes = Zeroizing::new(Vec::with_capacity(3 * password.len() + 4));
    for c in text.nfc() {
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Raw(_) => "Raw(..)",
        })
    }
}

/// Cost of trying a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KdfParams {
    /// 64 MiB, 3 passes, 4 lanes.
    Standard,
    /// 1 GiB, 4 passes, 4 lanes.
    Strong,
    /// As given, within the bounds.
    Explicit {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u8,
    },
}

/// Costs that are within the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) memory: u32,
    pub(super) passes: u32,
    pub(super) lanes: u8,
}

impl Cost {
    pub(super) fn new(memory: u32, passes: u32, lanes: u8) -> Result<Self, SlotError> {
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) {
            Err(SlotError::Params("Argon2id memory is out of bounds"))
        } else if !(1..=PASSES_MAX).contains(&passes) || u64::from(memory) * u64::from(passes) > WORK_MAX {
            Err(SlotError::Params("Argon2id passes are out of bounds"))
        } else if !(1..=LANES_MAX).contains(&lanes) {
            Err(SlotError::Params("Argon2id lanes are out of bounds"))
        } else {
            Ok(Self { memory, passes, lanes })
        }
    }

    fn stretch(self, password: &[u8], salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, SlotError> {
        let refused = |_| SlotError::Params("Argon2id refuses its input");
        let params = Params::new(self.memory, self.passes, u32::from(self.lanes), Some(32)).map_err(refused)?;
        let mut blocks = room(params.block_count()).map_err(|_| SlotError::Memory { mib: self.memory >> 10 })?;
        // The system provides fresh memory slowly: let all threads touch it.
        rayon::iter::repeat_n(Block::new(), params.block_count()).collect_into_vec(&mut blocks);
        let mut out = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password, salt, out.as_mut_slice(), blocks)
            .map_err(refused)?;
        Ok(out)
    }
}

impl TryFrom<KdfParams> for Cost {
    type Error = SlotError;

    fn try_from(params: KdfParams) -> Result<Self, SlotError> {
        match params {
            KdfParams::Standard => Self::new(64 << 10, 3, 4),
            KdfParams::Strong => Self::new(1 << 20, 4, 4),
            KdfParams::Explicit { memory_kib, passes, lanes } => Self::new(memory_kib, passes, lanes),
        }
    }
}

/// How a slot's secret is stretched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stretch {
    Argon2id(Cost),
    None,
}

impl Stretch {
    pub(super) fn apply(self, secret: &Secret, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, SlotError> {
        match (self, secret) {
            (Self::Argon2id(cost), Secret::Password(password)) => cost.stretch(&normalized(password), salt),
            (Self::None, Secret::Raw(bytes)) => {
                let mut hasher = blake3::Hasher::new_derive_key("vault 2026 slot secret");
                let stretched = Zeroizing::new(*hasher.update(salt).update(bytes).finalize().as_bytes());
                hasher.zeroize();
                Ok(stretched)
            }
            _ => Err(SlotError::WrongSecret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In SPEC.
    #[test]
    fn passwords_are_normalized() {
        let check = |text: &[u8], expected: &[u8]| assert_eq!(*normalized(text), expected, "{text:?}");
        check(b"correct horse", b"correct horse");
        check("e\u{301}".as_bytes(), "\u{e9}".as_bytes());
        check("\u{e9}".as_bytes(), "\u{e9}".as_bytes());
        // The unit of the angstrom, and a Korean syllable in parts.
        check("\u{212b}\u{1112}\u{1161}\u{11ab}".as_bytes(), "\u{c5}\u{d55c}".as_bytes());
        // Compatible letters are others: no ligature, no width is changed.
        check("\u{fb01}\u{ff41}".as_bytes(), "\u{fb01}\u{ff41}".as_bytes());
        check(b"e\xcc\x81\xff", b"e\xcc\x81\xff");
        check(b" blanks stay ", b" blanks stay ");
    }
}
