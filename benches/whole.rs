//! Bench of whole commands on a planted source tree, each beside its roofline: the bare cost of the unavoidable work,
//! done by as many threads in this process. `cargo bench --bench whole`; `VAULT_BENCH_FILES` (40,000 by default, 660
//! MB) and `VAULT_BENCH_RUNS` (3); `VAULT_BENCH_TREE` names an existing tree to use as it is.
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

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Bench, Run, median, number, plant, source_len};
use vault::chunk::ChunkParams;
use vault::id::VaultId;
use vault::pack::reader::object_key;
use vault::pack::segment::open_segment;
use vault::pack::{FinishedPack, PackWriter, SegmentBuilder};
use vault::seal::{Compressor, Decompressor, HEADER_LEN, Keys, MasterKey, ObjectKind, WriterKey};

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Calls `work` with every item, in batches, on all threads; each has a state of its own.
fn spread<T: Sync, S>(
    items: &[T],
    batch: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) + Sync,
    end: impl Fn(S) + Sync,
) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                let mut own = state();
                loop {
                    let start = next.fetch_add(batch, Relaxed);
                    if start >= items.len() {
                        break;
                    }
                    items[start..items.len().min(start + batch)].iter().for_each(|item| work(&mut own, item));
                }
                end(own);
            });
        }
    });
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let kind = fs::symlink_metadata(&path).expect("what it is");
        if kind.is_dir() {
            out.extend(files(&path));
        } else if kind.is_file() {
            out.push(path);
        }
    }
    out
}

/// Takes the bytes of these files through all stages of a snapshot; the packs are kept only in memory.
fn snapshot_roofline(keys: &Keys, files: &[PathBuf]) -> (Duration, Vec<FinishedPack>) {
    let packs = Mutex::new(Vec::new());
    let begun = Instant::now();
    let writer = PackWriter::new(keys, ObjectKind::Pack, true, |pack| {
        packs.lock().expect("no panic").push(pack);
        true
    });
    let state = || (SegmentBuilder::default(), Compressor::new(3).expect("zstd"), Decompressor::new().expect("zstd"));
    spread(
        files,
        16,
        state,
        |(builder, compressor, decompressor), path| {
            let bytes = fs::read(path).expect("a file");
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (chunk, next) = rest.split_at(keys.cutter().cut(rest));
                builder.push(keys, |out| out.extend_from_slice(chunk), |_| true);
                if builder.is_full() {
                    writer.put_collected(builder, compressor, decompressor).expect("a pack");
                }
                rest = next;
            }
        },
        |(mut builder, mut compressor, mut decompressor)| {
            if !builder.is_empty() {
                writer.put(builder.compress(&mut compressor), &mut decompressor).expect("a pack");
            }
        },
    );
    writer.finish().expect("a pack");
    drop(writer);
    (begun.elapsed(), packs.into_inner().expect("no panic"))
}

/// Opens, decompresses and hashes every segment of these packs.
fn open_all(keys: &Keys, packs: &[FinishedPack]) -> Duration {
    let begun = Instant::now();
    let mut segments = Vec::new();
    for pack in packs {
        let mut at = HEADER_LEN;
        for (number, entry) in (0..).zip(&pack.footer.segments) {
            let end = at + entry.sealed_len as usize;
            segments.push((pack, number, entry, at..end));
            at = end;
        }
    }
    spread(
        &segments,
        1,
        || Decompressor::new().expect("zstd"),
        |decompressor, (pack, number, entry, range)| {
            let opener = keys.open_object(pack.kind, pack.name, &pack.bytes[..HEADER_LEN]).expect("a header");
            let sealed = &pack.bytes[range.clone()];
            open_segment(
                keys,
                &opener,
                &object_key(opener.kind(), opener.name()),
                *number,
                sealed,
                Some(&entry.chunks),
                decompressor,
            )
            .expect("a segment");
        },
        drop,
    );
    begun.elapsed()
}

/// Creates the same files elsewhere, from memory.
fn create_all(from: &Path, to: &Path, files: &[(PathBuf, Vec<u8>)]) -> Duration {
    let begun = Instant::now();
    let mut folders: Vec<&Path> = files.iter().filter_map(|(path, _)| path.parent()).collect();
    folders.dedup();
    for folder in folders {
        fs::create_dir_all(to.join(folder.strip_prefix(from).expect("it lies in there"))).expect("a folder");
    }
    spread(
        files,
        16,
        || (),
        |(), (path, bytes)| {
            let path = to.join(path.strip_prefix(from).expect("it lies in there"));
            fs::write(&path, bytes).expect("a file");
            let file = fs::File::options().write(true).open(&path).expect("a file");
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).expect("its time");
        },
        drop,
    );
    begun.elapsed()
}

fn report(what: &str, run: Run, roofline: Option<Duration>) {
    let part = roofline.map_or_else(String::new, |bare| {
        format!("{:>9.3} s {:>7.2}", bare.as_secs_f64(), bare.as_secs_f64() / run.time.as_secs_f64())
    });
    println!("{what:<18} {:>8.3} s {:>6} MiB {part}", run.time.as_secs_f64(), run.peak >> 20);
}

/// The median time of several runs.
fn bare(count: usize, mut work: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..count).map(|_| work()).collect();
    times.sort();
    times[count / 2]
}

fn main() {
    let (count, runs) = (number("VAULT_BENCH_FILES", 40_000), number("VAULT_BENCH_RUNS", 3) as usize);
    let bench = Bench::new();
    let tree = std::env::var_os("VAULT_BENCH_TREE").map(PathBuf::from);
    let source = tree.clone().unwrap_or_else(|| bench.folder.path().join("source"));
    if tree.is_none() {
        plant(&source, count, 0, source_len);
    }
    let snapshot = ["snapshot", source.to_str().expect("a path in UTF-8")];
    let list = files(&source);
    let contents: Vec<(PathBuf, Vec<u8>)> =
        list.iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
    let bytes: usize = contents.iter().map(|(_, bytes)| bytes.len()).sum();
    let master = MasterKey::from_bytes(&[1; 32]);
    let keys = Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default());

    println!(
        "{} files, {:.1} MB, {} threads, median of {runs}; every run is a whole process with key derivation",
        list.len(),
        bytes as f64 / 1e6,
        threads()
    );
    println!("{:<18} {:>10} {:>10} {:>11} {:>7}", "", "vault", "memory", "roofline", "part");
    let mut packs = Vec::new();
    let stages = bare(runs, || {
        let (time, made) = snapshot_roofline(&keys, &list);
        packs = made;
        time
    });
    let first = median(runs, || {
        bench.fresh(&[]);
        bench.run(&snapshot)
    });
    report("first snapshot", first, Some(stages));
    std::thread::sleep(Duration::from_millis(100));
    bench.run(&snapshot);
    let look = bare(runs, || {
        let begun = Instant::now();
        spread(&list, 16, || (), |(), path| assert!(fs::symlink_metadata(path).is_ok()), drop);
        begun.elapsed()
    });
    report("nothing changed", median(runs, || bench.run(&snapshot)), Some(look));
    let open = bare(runs, || open_all(&keys, &packs));
    // Restore into another folder each time: a file system may search for space much longer where files were just
    // removed.
    let mut targets = (0..).map(|number| format!("out{number}"));
    let mut target = || targets.next().expect("there is always another");
    let mut created = Vec::new();
    let restored = median(runs, || {
        created.push(create_all(&source, &bench.folder.path().join(target()), &contents));
        bench.run(&["restore", "latest", "--to", &target()])
    });
    let create = bare(runs, || created.pop().expect("one for each run"));
    report("restore", restored, Some(open + create));
    println!("  (creating the same files alone: {:.3} s)", create.as_secs_f64());
    report("check, all data", median(runs, || bench.run(&["check", "--read-data"])), Some(open));
    let stored = bench.stored();
    if tree.is_some() {
        println!("store: {:.1} MB", stored as f64 / 1e6);
        return;
    }
    let mut version = 0;
    let next = median(runs, || {
        version += 1;
        plant(&source, count, version, source_len);
        bench.run(&snapshot)
    });
    report("next version", next, None);
    let both = bench.stored();
    report("prune to newest", median(1, || bench.run(&["prune", "--keep", "1"])), None);
    report("prune, nothing", median(runs, || bench.run(&["prune", "--keep", "1"])), None);
    println!(
        "store: {:.1} MB after the first, {:.1} MB after {runs} more versions, {:.1} MB pruned",
        stored as f64 / 1e6,
        both as f64 / 1e6,
        bench.stored() as f64 / 1e6
    );
}
