//! Bench of the catalogue alone, at tenfold sizes: entering chunks, looking up known and unknown ones:
//! `cargo bench --bench catalogue`. `VAULT_BENCH_STEPS` (2 by default) is the number of sizes, from 100,000 chunks on.
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    missing_docs,
    dead_code,
    reason = "a bench reads the clock and the environment, and ends when something fails"
)]

mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{noise, number};
use vault::catalogue::Catalogue;
use vault::catalogue::packs::NewPack;
use vault::id::{ChunkId, ObjectName};
use vault::pack::Footer;
use vault::pack::footer::SegmentEntry;
use vault::seal::{Method, ObjectKind};

/// Chunks in a segment, and segments in a pack, as in a tree of sources.
const CHUNKS: u64 = 120;
const SEGMENTS: u64 = 30;
/// A snapshot enters about this many chunks at once.
const BATCH: u64 = 200_000;
const LOOKED_UP: u64 = 200_000;

fn id(number: u64) -> ChunkId {
    ChunkId::new(noise(number, ChunkId::LEN).try_into().expect("as many bytes"))
}

fn pack(first: u64) -> NewPack {
    let segments = (0..SEGMENTS).map(|segment| {
        let from = first + segment * CHUNKS;
        SegmentEntry {
            sealed_len: 500_000,
            method: Method::Zstd,
            raw_len: CHUNKS as u32 * 16_000,
            chunks: (from..from + CHUNKS).map(|chunk| (id(chunk), 16_000)).collect(),
        }
    });
    let name = ObjectName::new(noise(first | 1 << 63, ObjectName::LEN).try_into().expect("as many bytes"));
    NewPack { kind: ObjectKind::Pack, name, len: 16 << 20, footer: Footer { segments: segments.collect() } }
}

fn main() {
    println!("chunks in the catalogue      entered     found  not found   (chunks a second)   size");
    for step in 0..number("VAULT_BENCH_STEPS", 2) {
        let count = 100_000 * 10_u64.pow(step as u32);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("catalogue");
        let catalogue = Catalogue::anew(&path, [7; 32], None).expect("a catalogue");
        let (mut next, mut entering) = (0, 0.0);
        while next < count {
            let end = count.min(next + BATCH);
            let mut packs = Vec::new();
            while next < end {
                packs.push(pack(next));
                next += CHUNKS * SEGMENTS;
            }
            let begun = Instant::now();
            catalogue.enter_packs(&packs).expect("they are entered");
            entering += begun.elapsed().as_secs_f64();
        }
        let reader = catalogue.reader().expect("a reader");
        let look_up = |from: u64, there: bool| {
            // Spread over all entered chunks, in no order.
            let ids: Vec<ChunkId> = (0..LOOKED_UP).map(|at| id(from + at * 7919 % next)).collect();
            let begun = Instant::now();
            for id in &ids {
                assert_eq!(black_box(reader.locate(id)).expect("a look-up").is_some(), there);
            }
            LOOKED_UP as f64 / begun.elapsed().as_secs_f64()
        };
        let (found, missing) = (look_up(0, true), look_up(1 << 40, false));
        let size = std::fs::metadata(&path).expect("its size").len();
        let entered = next as f64 / entering;
        println!("{next:>23} {entered:>12.0} {found:>9.0} {missing:>10.0} {:>27} MB", size / 1_000_000);
    }
}
