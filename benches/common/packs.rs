//! Packs that have footers and little else, to fill vaults for benches.

use std::fs;
use std::path::Path;

use vault::id::{ChunkId, ObjectName};
use vault::pack::Footer;
use vault::pack::footer::SegmentEntry;
use vault::seal::{IndexSection, Keys, Method, ObjectKind};
use vault::sync::share;

use crate::common::noise;

/// Chunks in a segment.
const IN_SEGMENT: u64 = 32;

/// A pack whose footer lists this many chunks; its content is too short for them.
fn pack(keys: &Keys, seed: u64, chunks: u64) -> (ObjectName, Vec<u8>) {
    let sealer = keys.create_object(ObjectKind::Pack).unwrap();
    let mut bytes = sealer.header().to_vec();
    let mut footer = Footer::default();
    let ids = noise(seed, (chunks as usize) * ChunkId::LEN);
    let mut ids = ids.as_chunks::<{ ChunkId::LEN }>().0.iter().map(|id| ChunkId::new(*id));
    for number in 0..chunks.div_ceil(IN_SEGMENT) {
        let start = bytes.len();
        let chunks: Vec<(ChunkId, u32)> = ids.by_ref().take(IN_SEGMENT as usize).map(|id| (id, 60_000)).collect();
        let all: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        sealer.seal_segment(number as u32, &all, b"short", &mut bytes).unwrap();
        footer.segments.push(SegmentEntry {
            sealed_len: (bytes.len() - start) as u32,
            method: Method::Raw,
            raw_len: chunks.len() as u32 * 60_000,
            chunks,
        });
    }
    let end = bytes.len();
    let seal = keys.index_seal(ObjectKind::Pack, sealer.name());
    seal.seal(IndexSection::Footer, &footer.encode(), &mut bytes).unwrap();
    let mut locator = (end as u64).to_le_bytes().to_vec();
    locator.extend_from_slice(&((bytes.len() - end) as u32).to_le_bytes());
    locator.extend_from_slice(&(end as u64).to_le_bytes());
    locator.extend_from_slice(&(footer.segments.len() as u32).to_le_bytes());
    seal.seal(IndexSection::Locator, &locator, &mut bytes).unwrap();
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    (sealer.name(), bytes)
}

/// Puts `packs` of these with `chunks` chunks each into a store's folder, not through the store, which would make each of
/// them durable.
pub fn fill(keys: &Keys, store: &Path, packs: u64, chunks: u64) {
    share(packs as usize, 8, |seed| {
        let (name, bytes) = pack(keys, seed as u64, chunks);
        let name = name.to_string();
        let below = store.join("packs").join(&name[..2]);
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join(name), bytes).unwrap();
    });
}
