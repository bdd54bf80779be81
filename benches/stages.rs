//! Each stage from a file to a pack and back alone, and snapshots as a whole: `cargo bench`.
#![allow(clippy::disallowed_methods, missing_docs, reason = "a bench reads the clock; its functions are criterion's")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use vault::chunk::ChunkParams;
use vault::engine::snapshot::{Input, SnapshotOptions, snapshot};
use vault::id::{ChunkId, VaultId};
use vault::pack::reader::object_key;
use vault::pack::segment::open_segment;
use vault::progress::Silent;
use vault::seal::{Compressor, Decompressor, Keys, MasterKey, ObjectKind, Secret, WriterKey};
use vault::store::Store;
use vault::store::testing::mem::MemStore;
use vault::tree::{Entry, FileKind, Stream, Time, decode_entry, encode_entry};
use vault::vault::create::create;
use vault::vault::open::open;
use vault::vault::{CreateOptions, Identity, OpenOptions, Vault};

const SEGMENT: usize = 1 << 20;
const SECRET: &[u8; 16] = b"a device secret!";

/// Words in a random order, which compress about as source code does.
fn text(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&[u8]; 16] = [
        b"static ",
        b"int ",
        b"struct ",
        b"return ",
        b"if (",
        b") {\n",
        b"}\n",
        b"\t\t",
        b"device",
        b"->",
        b" = ",
        b";\n",
        b"unsigned long ",
        b"0x",
        b"list_",
        b"err",
    ];
    let mut random = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut random);
    let mut out = Vec::with_capacity(len + 16);
    for byte in random {
        out.extend_from_slice(WORDS[usize::from(byte & 15)]);
        if byte > 200 {
            out.push(byte);
        }
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out
}

fn keys() -> Keys {
    let master = MasterKey::from_bytes(&[1; 32]);
    Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default())
}

fn cuts<'a>(keys: &Keys, mut data: &'a [u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    while !data.is_empty() {
        let (chunk, rest) = data.split_at(keys.cutter().cut(data));
        chunks.push(chunk);
        data = rest;
    }
    chunks
}

fn stages(criterion: &mut Criterion) {
    let keys = keys();
    let data = text(1, 16 * SEGMENT);
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("cut", |bencher| bencher.iter(|| cuts(&keys, black_box(&data)).len()));
    let chunks = cuts(&keys, &data);
    group.bench_function("hash", |bencher| {
        bencher.iter(|| chunks.iter().map(|chunk| keys.chunk_id(chunk)).collect::<Vec<ChunkId>>());
    });
    for level in [1, 3] {
        let mut compressor = Compressor::new(level).unwrap();
        group.bench_function(format!("compress, level {level}"), |bencher| {
            bencher.iter(|| {
                let mut out = Vec::with_capacity(SEGMENT);
                data.chunks(SEGMENT).for_each(|segment| {
                    out.clear();
                    compressor.compress(black_box(segment), &mut out);
                });
                out.len()
            });
        });
    }
    let sealer = keys.create_object(ObjectKind::Pack).unwrap();
    group.bench_function("seal", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::with_capacity(SEGMENT + 1000);
            data.chunks(SEGMENT).zip(0..).for_each(|(segment, number)| {
                out.clear();
                sealer.seal_segment(number, &[], black_box(segment), &mut out).unwrap();
            });
            out.len()
        });
    });
    let sealed = sealed_segments(&keys, &sealer, &data);
    let mut decompressor = Decompressor::new().unwrap();
    group.bench_function("open, decompress and hash", |bencher| {
        bencher.iter(|| {
            for (number, segment) in (0..).zip(&sealed) {
                let opened = open_segment(
                    &keys,
                    sealer.opener(),
                    &object_key(sealer.kind(), sealer.name()),
                    number,
                    segment,
                    None,
                    &mut decompressor,
                );
                black_box(opened.unwrap());
            }
        });
    });
    group.finish();
}

fn sealed_segments(keys: &Keys, sealer: &vault::seal::ObjectSealer, data: &[u8]) -> Vec<Vec<u8>> {
    let mut compressor = Compressor::new(3).unwrap();
    let seal = |(number, segment): (u32, &[u8])| {
        let chunks = cuts(keys, segment);
        let mut payload = Vec::new();
        let method = compressor.compress(segment, &mut payload);
        let mut body = vec![method as u8];
        vault::varint::put(&mut body, segment.len() as u64);
        vault::varint::put(&mut body, chunks.len() as u64);
        for chunk in &chunks {
            vault::varint::put(&mut body, chunk.len() as u64);
        }
        body.extend_from_slice(&payload);
        let mut sealed = Vec::new();
        sealer.seal_segment(number, &[], &body, &mut sealed).unwrap();
        sealed
    };
    (0..).zip(data.chunks(SEGMENT)).map(seal).collect()
}

fn entries(criterion: &mut Criterion) {
    let entries: Vec<Entry> = (0..1000_u32)
        .map(|number| Entry {
            mode: 0o644,
            mtime: Time { secs: 1_700_000_000, nanos: number },
            size: 5000,
            content: Some(Stream { len: 5000, depth: 0, ids: vec![ChunkId::new([7; 16])] }),
            ..Entry::new(format!("file {number}.c"), FileKind::File)
        })
        .collect();
    let mut encoded = Vec::new();
    for entry in &entries {
        encode_entry(entry, &mut encoded).unwrap();
    }
    let mut group = criterion.benchmark_group("entries");
    group.throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::with_capacity(encoded.len());
            for entry in &entries {
                encode_entry(black_box(entry), &mut out).unwrap();
            }
            out
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(&encoded[..]);
            while let Some((entry, len)) = decode_entry(rest).unwrap() {
                black_box(entry);
                rest = &rest[len..];
                if rest.is_empty() {
                    break;
                }
            }
        });
    });
    group.finish();
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() }
}

fn opened(state: &Path) -> Vault {
    let store = MemStore::new();
    let options = CreateOptions::new(Secret::raw(SECRET), 0);
    create(&store, &options).unwrap();
    let identity = Identity {
        host: "host".to_owned(),
        user: "user".to_owned(),
        machine: "machine".to_owned(),
        program: "bench".to_owned(),
    };
    let shared: Arc<dyn Store> = Arc::new(store);
    let options = OpenOptions::new(state.to_owned(), identity);
    open(shared, &Secret::raw(SECRET), options, &Silent::default()).unwrap()
}

fn take(vault: &Vault, folder: &Path) {
    let mut options = SnapshotOptions::new(
        "source",
        vec![Input::Path { name: b"top".to_vec(), path: folder.to_owned(), only: None }],
        &now,
    );
    options.threads = std::thread::available_parallelism().map_or(2, usize::from);
    snapshot(vault, options, &Silent::default()).unwrap();
}

/// 40 MB in 4,000 files of the sizes that source trees have.
fn plant(folder: &Path) {
    for number in 0..4000_u64 {
        let below = folder.join(format!("{}/{}", number % 20, number % 200));
        std::fs::create_dir_all(&below).unwrap();
        let len = 500 + usize::try_from(number * number % 19_000).unwrap();
        std::fs::write(below.join(format!("{number}.c")), text(number, len)).unwrap();
    }
}

fn whole(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    plant(&source);
    let mut group = criterion.benchmark_group("whole");
    group.sample_size(10).throughput(Throughput::Elements(4000));
    let mut number = 0;
    group.bench_function("first snapshot", |bencher| {
        let fresh = || {
            number += 1;
            opened(&folder.path().join(format!("state {number}")))
        };
        bencher.iter_batched(fresh, |vault| take(&vault, &source), BatchSize::PerIteration);
    });
    let vault = opened(&folder.path().join("state"));
    // Twice, with time between: files that are too young to be trusted as unchanged are read again.
    take(&vault, &source);
    std::thread::sleep(std::time::Duration::from_millis(200));
    take(&vault, &source);
    group.bench_function("nothing changed", |bencher| bencher.iter(|| take(&vault, &source)));
    group.finish();
}

criterion_group!(benches, stages, entries, whole);
criterion_main!(benches);
