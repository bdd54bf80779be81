//! Seals and opens the sections that locate chunks (footer and locator of a pack, and index objects). Their key comes
//! from the writer's key and the name of the object, so they open without the object's header, and for a client that
//! may only write (SPEC §4.3).

use std::fmt;

use zeroize::Zeroizing;

use super::aead::Cipher;
use super::keys::{Keys, NonceKey, fresh};
use super::{NONCE_LEN, ObjectKind, SEAL_OVERHEAD, SealError, Section, TAG_LEN, TOO_LONG, TOO_SHORT, section_aad};
use crate::id::{ObjectName, VaultId};

/// A section that opens without the key of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexSection {
    /// The list of a pack's segments and chunks.
    Footer,
    /// The position of the footer.
    Locator,
    /// The entries of an index object for one part of the range of ids; the parts are numbered from 0.
    Range(u32),
    /// The packs that an index object describes.
    Packs,
}

impl From<IndexSection> for Section {
    fn from(section: IndexSection) -> Self {
        match section {
            IndexSection::Footer => Self::Footer,
            IndexSection::Locator => Self::Locator,
            IndexSection::Range(number) => Self::Range(number),
            IndexSection::Packs => Self::Packs,
        }
    }
}

/// Seals and opens the index sections of one object. They are bound to its vault, kind and name; its header plays no part.
pub struct IndexSeal {
    vault: VaultId,
    kind: ObjectKind,
    name: ObjectName,
    key: Zeroizing<[u8; 32]>,
    nonce: NonceKey,
}

impl Keys {
    /// The seal of the index sections of the object of this kind and name.
    pub fn index_seal(&self, kind: ObjectKind, name: ObjectName) -> IndexSeal {
        let place = [&self.vault().as_bytes()[..], &[kind as u8], &name.as_bytes()[..]].concat();
        let key = Zeroizing::new(*blake3::keyed_hash(self.index(), &place).as_bytes());
        IndexSeal { vault: self.vault(), kind, name, key, nonce: self.nonce().clone() }
    }
}

impl IndexSeal {
    fn cipher(&self, section: Section) -> Cipher {
        Cipher::new(&Zeroizing::new(blake3::derive_key(section.context(), &self.key[..])))
    }

    /// Appends a sealed section to `out`: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// If it is too long, or the system provides no random bytes.
    pub fn seal(&self, section: IndexSection, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal_with(&fresh()?, section, plain, out)
    }

    pub(crate) fn seal_with(
        &self,
        random: &[u8; 32],
        section: IndexSection,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let section = Section::from(section);
        let aad = section_aad(self.vault, self.kind, self.name, section);
        let nonce = self.nonce.nonce(random, &aad, [plain]);
        out.reserve(plain.len() + SEAL_OVERHEAD);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self.cipher(section).seal(&nonce, &aad, &mut out[start..]).ok_or(TOO_LONG)?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens a section: `sealed` is exactly nonce, ciphertext, tag.
    ///
    /// # Errors
    /// If it was not sealed there.
    pub fn open(&self, section: IndexSection, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let section = Section::from(section);
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(TOO_SHORT)?;
        let (text, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(TOO_SHORT)?;
        let mut plain = text.to_vec();
        let aad = section_aad(self.vault, self.kind, self.name, section);
        self.cipher(section).open(nonce, &aad, &mut plain, tag).ok_or(SealError::Damaged(section))?;
        Ok(plain)
    }
}

impl fmt::Debug for IndexSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexSeal({:?} {})", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkParams;
    use crate::seal::tests::hex;
    use crate::seal::{MasterKey, WriterKey};

    fn keys_of(master: u8, writer: u8, vault: u8) -> Keys {
        let (master, writer) = (MasterKey::from_bytes(&[master; 32]), WriterKey::from_bytes(&[writer; 32]));
        Keys::new(&master, &writer, VaultId::new([vault; 16]), ChunkParams::default())
    }

    fn sealed(seal: &IndexSeal, section: IndexSection, plain: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        seal.seal(section, plain, &mut out).unwrap();
        out.split_off(6)
    }

    /// In SPEC: master key 32 × 01 and the writer's key from it, vault id 16 × 02, name 16 × 03, random bytes 32 × 06.
    #[test]
    fn index_sections_are_pinned() {
        let master = MasterKey::from_bytes(&[1; 32]);
        let keys = Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default());
        let seal = keys.index_seal(ObjectKind::Pack, ObjectName::new([3; 16]));
        let pinned = |section, plain: &[u8]| {
            let mut out = Vec::new();
            seal.seal_with(&[6; 32], section, plain, &mut out).unwrap();
            hex(&out)
        };
        assert_eq!(pinned(IndexSection::Footer, b"footer"), VECTOR_FOOTER);
        assert_eq!(pinned(IndexSection::Locator, b"locator"), VECTOR_LOCATOR);
    }

    const VECTOR_FOOTER: &str =
        "fca1075e3948f9a9f0744c05adc47bb5a68b996effbb548a8c576632d9026569bfac32260bde5b82ff444fae9f5b";
    const VECTOR_LOCATOR: &str =
        "a266ac1f12b97703450e85185a395f8b104b13ec86cd1a548cb398306afd6fced462f4e5fc459edb1f43429898dd15";

    #[test]
    fn what_was_sealed_opens_with_the_writers_key_in_its_place_only() {
        let (kind, name) = (ObjectKind::Pack, ObjectName::new([3; 16]));
        let keys = keys_of(1, 2, 3);
        let seal = keys.index_seal(kind, name);
        for plain in [&b""[..], b"plain", &[9; 10_000]] {
            let footer = sealed(&seal, IndexSection::Footer, plain);
            assert_eq!(footer.len(), plain.len() + SEAL_OVERHEAD);
            let open = |keys: &Keys, kind, name| keys.index_seal(kind, name).open(IndexSection::Footer, &footer);
            assert_eq!(open(&keys, kind, name).unwrap(), plain);
            assert_eq!(open(&keys_of(9, 2, 3), kind, name).unwrap(), plain, "a write-only client can read it");
            for wrong in [
                open(&keys_of(1, 9, 3), kind, name),
                open(&keys_of(1, 2, 9), kind, name),
                open(&keys, ObjectKind::Meta, name),
                open(&keys, kind, ObjectName::new([9; 16])),
                seal.open(IndexSection::Locator, &footer),
            ] {
                assert!(matches!(wrong, Err(SealError::Damaged(Section::Footer | Section::Locator))));
            }
            for at in 0..footer.len().min(100) {
                let mut changed = footer.clone();
                changed[at] ^= 1;
                assert!(seal.open(IndexSection::Footer, &changed).is_err(), "byte {at}");
                assert!(seal.open(IndexSection::Footer, &footer[..at]).is_err(), "cut at {at}");
            }
        }
    }

    /// With a random source that always gives the same bytes, different content must still get different nonces.
    #[test]
    fn nonces_commit_to_content() {
        let keys = keys_of(1, 2, 3);
        let mut nonces = std::collections::HashSet::new();
        let mut is_new = |name: u8, section, plain: &[u8]| {
            let mut out = Vec::new();
            let seal = keys.index_seal(ObjectKind::Pack, ObjectName::new([name; 16]));
            seal.seal_with(&[6; 32], section, plain, &mut out).unwrap();
            nonces.insert(out[..NONCE_LEN].to_vec())
        };
        assert!(is_new(1, IndexSection::Footer, b"one"));
        assert!(!is_new(1, IndexSection::Footer, b"one"));
        assert!(is_new(1, IndexSection::Footer, b"two"));
        assert!(is_new(1, IndexSection::Locator, b"one"));
        assert!(is_new(2, IndexSection::Footer, b"one"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let seal = keys_of(1, 2, 3).index_seal(ObjectKind::Pack, ObjectName::new([3; 16]));
        assert_eq!(format!("{seal:?}"), format!("IndexSeal(Pack {})", "03".repeat(16)));
    }
}
