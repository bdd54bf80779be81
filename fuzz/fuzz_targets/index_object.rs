//! An index object, as an attacker with the keys could have sealed it. The input is a byte for the number of ranges,
//! then the contents of a range, of the list of packs, of the fence table and of the locator, each after its length
//! in one byte, except the last.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vault::chunk::ChunkParams;
use vault::id::{ChunkId, ObjectName, VaultId};
use vault::pack::index::{Fence, IndexReader, decode_note, decode_packs, decode_range, encode_note, encode_packs, key};
use vault::seal::{IndexSection, Keys, MasterKey, ObjectKind, WriterKey};
use vault::store::testing::mem::MemStore;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let master = MasterKey::from_bytes(&[1; 32]);
    Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default())
});
const NAME: ObjectName = ObjectName::new([3; 16]);

/// The next part of the input.
fn part<'b>(rest: &mut &'b [u8]) -> &'b [u8] {
    let Some((len, behind)) = rest.split_first() else { return rest };
    let (part, behind) = behind.split_at(behind.len().min(usize::from(*len)));
    *rest = behind;
    part
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(packs) = decode_packs(bytes) {
        assert_eq!(encode_packs(&packs), bytes, "there is one encoding");
    }
    if let Ok(fence) = Fence::decode(bytes) {
        assert_eq!(fence.encode(), bytes, "there is one encoding");
    }
    if let Some(note) = decode_note(NAME, bytes) {
        assert_eq!(decode_note(NAME, &encode_note(&note)), Some(note));
    }
    let Some((ranges, mut rest)) = bytes.split_first() else { return };
    let _ = decode_range(rest, 0, usize::from(*ranges).max(1));
    let seal = KEYS.index_seal(ObjectKind::Index, NAME);
    let mut object = Vec::new();
    let range = part(&mut rest);
    if !range.is_empty() {
        seal.seal(IndexSection::Range(0), range, &mut object).unwrap();
    }
    let packs = part(&mut rest);
    seal.seal(IndexSection::Packs, packs, &mut object).unwrap();
    let fence = part(&mut rest);
    seal.seal(IndexSection::Footer, fence, &mut object).unwrap();
    // A locator that fits, or any bytes.
    let mut locator = vec![1];
    locator.extend_from_slice(&(fence.len() as u32 + 40).to_le_bytes());
    locator.extend_from_slice(&(packs.len() as u32 + 40).to_le_bytes());
    if let Some(given) = rest.first_chunk::<9>() {
        locator = given.to_vec();
    }
    seal.seal(IndexSection::Locator, &locator, &mut object).unwrap();
    let checksum = blake3::hash(&object);
    object.extend_from_slice(checksum.as_bytes());
    let (store, len) = (MemStore::new(), object.len() as u64);
    store.replace(key(NAME), object);
    let reader = IndexReader::new(&store, &KEYS);
    let Ok(head) = reader.head(NAME, len) else { return };
    let _ = reader.packs(&head);
    let _ = reader.look_up(&head, &ChunkId::new([7; 16]));
    let mut entries = reader.entries(&head);
    while let Ok(Some(_)) = entries.peek() {
        entries.advance();
    }
    reader.verify(&head).unwrap();
});
