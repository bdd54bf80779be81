//! Keys derived from the master key and the writer's key for one vault (SPEC §4.4).

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::aead::Cipher;
use super::{MasterKey, WriterKey};
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
    index: [u8; 32],
    local: [u8; 32],
    nonce: NonceKey,
}

impl Keys {
    /// Derives the keys.
    pub fn new(master: &MasterKey, writer: &WriterKey, vault: VaultId, params: ChunkParams) -> Self {
        let derive = |context| blake3::derive_key(context, writer.as_bytes());
        let wrap = Zeroizing::new(blake3::derive_key("vault 2026 object wrap", master.as_bytes()));
        let mut gear = Zeroizing::new([0; GEAR_LEN]);
        blake3::Hasher::new_derive_key("vault 2026 gear table")
            .update(writer.as_bytes())
            .finalize_xof()
            .fill(gear.as_mut_slice());
        Self {
            vault,
            cutter: Cutter::new(params, Gear::from_bytes(&gear)),
            wrap: Cipher::new(&wrap),
            subkeys: Box::new(Subkeys {
                chunk_id: derive("vault 2026 chunk id"),
                index: derive("vault 2026 index"),
                local: derive("vault 2026 local"),
                nonce: NonceKey::new(writer),
            }),
        }
    }

    /// The vault that the keys are for.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The id of a chunk: its name everywhere, and the check of its bytes when they are read.
    pub fn chunk_id(&self, bytes: &[u8]) -> ChunkId {
        let hash = blake3::keyed_hash(&self.subkeys.chunk_id, bytes);
        let mut id = [0; ChunkId::LEN];
        id.copy_from_slice(&hash.as_bytes()[..ChunkId::LEN]);
        ChunkId::new(id)
    }

    /// Whether these keys and others give equal chunks equal ids (SPEC §4.2).
    pub fn names_alike(&self, other: &Self) -> bool {
        // If the ids of the empty chunk are equal, all are.
        self.chunk_id(&[]) == other.chunk_id(&[])
    }

    /// The cutter that divides streams into chunks in this vault.
    pub fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    /// The sizes of chunks in this vault.
    pub fn params(&self) -> ChunkParams {
        self.cutter.params()
    }

    /// A key for data that is kept on this machine and never in the store, such as the catalogue.
    pub fn derive_local(&self, purpose: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.subkeys.local, purpose.as_bytes()).as_bytes()
    }

    pub(super) fn wrap(&self) -> &Cipher {
        &self.wrap
    }

    pub(super) fn index(&self) -> &[u8; 32] {
        &self.subkeys.index
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

/// Makes nonces from random bytes *and* the content to be sealed: should the random bytes ever repeat (a broken source,
/// a cloned virtual machine), different content still gets different nonces.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct NonceKey([u8; 32]);

impl NonceKey {
    pub(super) fn new(writer: &WriterKey) -> Self {
        Self(blake3::derive_key("vault 2026 nonce", writer.as_bytes()))
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

/// The 32 random bytes that go into a nonce. A function of its own so that tests can use other bytes.
pub(super) fn fresh() -> Result<[u8; 32], SealError> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(master: u8) -> Keys {
        let master = MasterKey::from_bytes(&[master; 32]);
        Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default())
    }

    /// In SPEC: a change here makes every vault unreadable.
    #[test]
    fn derivation_is_pinned() {
        let keys = keys(1);
        assert_eq!(keys.chunk_id(b"").to_string(), "e36392907b6d6c4d14429de0f262afff");
        assert_eq!(keys.chunk_id(b"vault").to_string(), "6e8f7056e4f46708127153cfa5e74c52");
        assert_eq!(
            blake3::Hash::from(keys.derive_local("test")).to_string(),
            "eee23c9fe14f0733e7c4e5881f086a7ff1f7892063e8595cb33817c8ed78df13"
        );
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let first = keys.cutter().cut(&data);
        assert_eq!((first, keys.cutter().cut(&data[first..])), (116_504, 48_374));
    }

    #[test]
    fn another_master_key_gives_other_ids() {
        assert_ne!(keys(1).chunk_id(b"vault"), keys(3).chunk_id(b"vault"));
        assert_ne!(keys(1).derive_local("a"), keys(1).derive_local("b"));
    }

    #[test]
    fn vaults_that_share_the_writers_key_cut_alike_and_have_the_same_ids() {
        let writer = WriterKey::derive(&MasterKey::from_bytes(&[1; 32]));
        let one = keys(1);
        let other = Keys::new(&MasterKey::from_bytes(&[3; 32]), &writer, VaultId::new([9; 16]), ChunkParams::default());
        assert_eq!(one.chunk_id(b"vault"), other.chunk_id(b"vault"));
        assert!(one.names_alike(&other) && !one.names_alike(&keys(3)));
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(one.cutter().cut(&data), other.cutter().cut(&data));
    }

    #[test]
    fn keys_are_shared_and_not_shown() {
        fn shared<T: Send + Sync>(_: &T) {}
        let keys = keys(1);
        shared(&keys);
        assert_eq!(format!("{keys:?}"), "Keys(02020202020202020202020202020202)");
    }
}
