//! What is derived from the master key for one vault (SPEC §4.4).

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::MasterKey;
use super::aead::Cipher;
use super::{NONCE_LEN, SealError, random};
use crate::chunk::{ChunkParams, Cutter, GEAR_LEN, Gear};
use crate::id::{ChunkId, VaultId};

/// The keys of one vault, derived once and shared by all workers.
pub struct Keys {
    vault: VaultId,
    cutter: Cutter,
    wrap: Cipher,
    subkeys: Box<Subkeys>,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Subkeys {
    chunk_id: [u8; 32],
    local: [u8; 32],
    nonce: NonceKey,
}

impl Keys {
    /// Derives the keys.
    pub fn new(master: &MasterKey, vault: VaultId, params: ChunkParams) -> Self {
        let derive = |context| blake3::derive_key(context, master.as_bytes());
        let mut gear = Zeroizing::new([0; GEAR_LEN]);
        blake3::Hasher::new_derive_key("vault 2026 gear table")
            .update(master.as_bytes())
            .finalize_xof()
            .fill(gear.as_mut_slice());
        Self {
            vault,
            cutter: Cutter::new(params, Gear::from_bytes(&gear)),
            wrap: Cipher::new(&Zeroizing::new(derive("vault 2026 object wrap"))),
            subkeys: Box::new(Subkeys {
                chunk_id: derive("vault 2026 chunk id"),
                local: derive("vault 2026 local"),
                nonce: NonceKey::new(master),
            }),
        }
    }

    /// The vault that the keys are for.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The id of a chunk: what it is known by everywhere, and what its bytes are checked against when they are read.
    pub fn chunk_id(&self, bytes: &[u8]) -> ChunkId {
        let hash = blake3::keyed_hash(&self.subkeys.chunk_id, bytes);
        let mut id = [0; ChunkId::LEN];
        id.copy_from_slice(&hash.as_bytes()[..ChunkId::LEN]);
        ChunkId::new(id)
    }

    /// What cuts streams into chunks in this vault.
    pub fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    /// The sizes of chunks in this vault.
    pub fn params(&self) -> ChunkParams {
        self.cutter.params()
    }

    /// A key for something that is kept on this machine and never in the store, such as the catalogue.
    pub fn derive_local(&self, purpose: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.subkeys.local, purpose.as_bytes()).as_bytes()
    }

    pub(super) fn wrap(&self) -> &Cipher {
        &self.wrap
    }

    pub(super) fn nonce(&self) -> &NonceKey {
        &self.subkeys.nonce
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.vault)
    }
}

/// Makes nonces out of random bytes *and* what is sealed under them: should the random bytes ever repeat (a broken
/// source, a cloned virtual machine), different content still gets different nonces.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct NonceKey([u8; 32]);

impl NonceKey {
    pub(super) fn new(master: &MasterKey) -> Self {
        Self(blake3::derive_key("vault 2026 nonce", master.as_bytes()))
    }

    /// The nonce for this content under this associated data.
    pub(super) fn nonce<'a>(
        &self,
        random: &[u8; 32],
        aad: &[u8],
        content: impl IntoIterator<Item = &'a [u8]>,
    ) -> [u8; NONCE_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(random).update(aad);
        for part in content {
            hasher.update(part);
        }
        let mut nonce = [0; NONCE_LEN];
        hasher.finalize_xof().fill(&mut nonce);
        hasher.zeroize();
        nonce
    }
}

/// The 32 random bytes that go into a nonce. A function of its own so that tests can put other bytes in their place.
pub(super) fn fresh() -> Result<[u8; 32], SealError> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(master: u8) -> Keys {
        Keys::new(&MasterKey::from_bytes(&[master; 32]), VaultId::new([2; 16]), ChunkParams::default())
    }

    /// In SPEC: a change here makes every vault unreadable.
    #[test]
    fn derivation_is_pinned() {
        let keys = keys(1);
        assert_eq!(keys.chunk_id(b"").to_string(), "8ba0b7bfea75848061959e9d34c461e7");
        assert_eq!(keys.chunk_id(b"vault").to_string(), "2d71147b30caf81d9e9ea712b84b0f87");
        assert_eq!(
            blake3::Hash::from(keys.derive_local("test")).to_string(),
            "52a6db23bb0611b6807935b7ca5b99a871d778cdcf03095b4620295a327fbbf0"
        );
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let first = keys.cutter().cut(&data);
        assert_eq!((first, keys.cutter().cut(&data[first..])), (73_430, 82_882));
    }

    #[test]
    fn another_master_key_gives_other_ids() {
        assert_ne!(keys(1).chunk_id(b"vault"), keys(3).chunk_id(b"vault"));
        assert_ne!(keys(1).derive_local("a"), keys(1).derive_local("b"));
    }

    #[test]
    fn keys_are_shared_and_not_shown() {
        fn shared<T: Send + Sync>(_: &T) {}
        let keys = keys(1);
        shared(&keys);
        assert_eq!(format!("{keys:?}"), "Keys(02020202020202020202020202020202)");
    }
}
