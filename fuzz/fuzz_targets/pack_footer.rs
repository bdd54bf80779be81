//! The locator and the footer of a pack, as an attacker with the keys could have sealed them: the input is the
//! plaintext.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vault::chunk::ChunkParams;
use vault::id::VaultId;
use vault::pack::{Footer, PackReader};
use vault::seal::{IndexSection, Keys, MasterKey, ObjectKind, ObjectSealer, WriterKey};
use vault::store::testing::mem::MemStore;
use vault::store::{Kind, ObjectKey};

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let master = MasterKey::from_bytes(&[1; 32]);
    Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default())
});
static SEALER: LazyLock<ObjectSealer> = LazyLock::new(|| KEYS.create_object(ObjectKind::Pack).unwrap());

fn check(locator: &[u8], footer: &[u8], between: usize) {
    let mut bytes = SEALER.header().to_vec();
    bytes.resize(bytes.len() + between, 0);
    let index = KEYS.index_seal(ObjectKind::Pack, SEALER.name());
    index.seal(IndexSection::Footer, footer, &mut bytes).unwrap();
    index.seal(IndexSection::Locator, locator, &mut bytes).unwrap();
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    let (store, len) = (MemStore::new(), bytes.len() as u64);
    store.replace(ObjectKey::Named(Kind::Pack, SEALER.name()), bytes);
    let _ = PackReader::new(&store, &KEYS).footer(ObjectKind::Pack, SEALER.name(), len);
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(footer) = Footer::decode(bytes) {
        assert_eq!(footer.encode(), bytes, "there is one encoding");
        let between = footer.segments.iter().map(|segment| u64::from(segment.sealed_len)).sum::<u64>();
        if between < 1 << 20 {
            // A locator that fits the footer.
            let mut locator = (120 + between).to_le_bytes().to_vec();
            locator.extend_from_slice(&(bytes.len() as u32 + 40).to_le_bytes());
            locator.extend_from_slice(&(120 + between).to_le_bytes());
            locator.extend_from_slice(&(footer.segments.len() as u32).to_le_bytes());
            check(&locator, bytes, between as usize);
        }
    }
    let (locator, footer) = bytes.split_at(bytes.len().min(24));
    check(locator, footer, 0);
});
