//! Bench of growth: how time and memory grow when the work grows tenfold: `cargo bench --bench scaling`.
//! `VAULT_BENCH_STEPS` (2 by default) is the number of sizes of each kind; 3 takes an hour and 45 GB of disk.
//! `VAULT_BENCH_ONLY` selects a single kind: `files`, `folder`, `file`, `snapshots`, `chunks` or `log`;
//! `VAULT_BENCH_RECORDS` is the length of that log.
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
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use common::{Bench, Run, median, noise, number, place, plant, text};
use vault::engine::prune::collect::merge::merge_log;
use vault::id::{ClientId, Digest, ObjectName};
use vault::log::record::Join;
use vault::log::{Record, RecordBody};
use vault::progress::Silent;
use vault::seal::Secret;
use vault::store::dir::DirStore;
use vault::tree::{Root, Snapshot, Stream, Time, Verdict};
use vault::vault::open::open;
use vault::vault::{Identity, OpenOptions, Vault};

/// Prints one line for each size: its time and memory, and the ratio to the time of the size before.
struct Table {
    last: Option<Run>,
}

impl Table {
    fn new(what: &str) -> Self {
        println!("\n{what}");
        Self { last: None }
    }

    fn row(&mut self, size: &str, run: Run) {
        let growth = self
            .last
            .map_or_else(String::new, |last| format!("{:>7.1} x", run.time.as_secs_f64() / last.time.as_secs_f64()));
        println!("  {size:<28} {:>9.3} s {:>6} MiB {growth}", run.time.as_secs_f64(), run.peak >> 20);
        self.last = Some(run);
    }
}

/// Measures a first and a second snapshot and a restore of the files that `fill` puts into the source.
fn grow(what: &str, sizes: &[(u64, String)], fill: impl Fn(&Path, u64)) {
    let mut tables = Vec::new();
    for (size, name) in sizes {
        let bench = Bench::new();
        let source = bench.folder.path().join("source");
        fs::create_dir_all(&source).expect("a folder");
        fill(&source, *size);
        settle();
        // From here on, the system keeps as much of it in memory as it can.
        bench.run(&["snapshot", "source", "--dry-run"]);
        let first = bench.run(&["snapshot", "source"]);
        std::thread::sleep(std::time::Duration::from_millis(100));
        bench.run(&["snapshot", "source"]);
        let again = median(3, || bench.run(&["snapshot", "source"]));
        fs::remove_dir_all(&source).expect("room for what is restored");
        settle();
        let restored = bench.run(&["restore", "latest", "--to", "out"]);
        tables.push((name, first, again, restored));
    }
    for (step, pick) in [("first snapshot", 0), ("nothing changed", 1), ("restore", 2)] {
        let mut table = Table::new(&format!("{what}: {step}"));
        for (name, first, again, restored) in &tables {
            table.row(name, [*first, *again, *restored][pick]);
        }
    }
}

/// Waits until written and removed data is on the disk: otherwise the disk would still be busy during the
/// measurement.
fn settle() {
    #[cfg(unix)]
    rustix::fs::sync();
}

/// The first `count` of these sizes.
fn sizes(all: &[u64], count: u64, unit: &str) -> Vec<(u64, String)> {
    all.iter().take(count as usize).map(|size| (*size, format!("{size} {unit}"))).collect()
}

fn main() {
    let steps = number("VAULT_BENCH_STEPS", 2);
    let only = std::env::var("VAULT_BENCH_ONLY").ok();
    let wanted = |kind: &str| only.as_deref().is_none_or(|only| only == kind);
    if wanted("files") {
        grow("files of 3 KB", &sizes(&[10_000, 100_000, 1_000_000], steps, "files"), |source, count| {
            plant(source, count, 0, |_| 3000);
        });
    }
    if wanted("folder") {
        let sizes = sizes(&[1000, 10_000, 100_000, 1_000_000], steps + 1, "files");
        grow("files in one folder", &sizes, |source, count| {
            for number in 0..count {
                fs::write(source.join(format!("{number}")), number.to_le_bytes()).expect("a file");
            }
        });
    }
    if wanted("file") {
        let sizes = sizes(&[100, 1000, 10_000, 20_000], if steps < 3 { steps } else { 4 }, "MB");
        grow("one file that does not compress", &sizes, |source, megabytes| {
            let mut file = fs::File::create(source.join("image")).expect("a file");
            for number in 0..megabytes {
                file.write_all(&noise(number, 1_000_000)).expect("its bytes");
            }
        });
    }
    if wanted("snapshots") {
        snapshots(&sizes(&[10, 100, 1000, 3000], steps + 1, "snapshots"));
    }
    if wanted("log") {
        match number("VAULT_BENCH_RECORDS", 0) {
            0 => log(&sizes(&[40, 4_000, 40_000, 400_000], steps + 1, "records")),
            count => log(&sizes(&[40, count], 2, "records")),
        }
    }
    if wanted("chunks") {
        chunks(&sizes(&[100_000, 1_000_000, 10_000_000], steps, "chunks"));
    }
}

/// Measures a vault with many snapshots: listing them, and taking one more.
fn snapshots(sizes: &[(u64, String)]) {
    let mut listed = Table::new("snapshots in the vault: list");
    let mut taken = Vec::new();
    for (count, name) in sizes {
        let bench = Bench::new();
        let source = bench.folder.path().join("source");
        plant(&source, 1000, 0, |_| 300);
        for version in 0..*count {
            fs::write(source.join(place(7)), text(version, 300)).expect("a file");
            bench.run(&["snapshot", "source"]);
        }
        listed.row(name, median(5, || bench.run(&["list"])));
        taken.push((name, median(3, || bench.run(&["snapshot", "source"])), bench.run(&["prune", "--keep", "5"])));
    }
    for (step, pick) in [("one more", 0), ("prune to five", 1)] {
        let mut table = Table::new(&format!("snapshots in the vault: {step}"));
        taken.iter().for_each(|(name, taken, pruned)| table.row(name, [*taken, *pruned][pick]));
    }
}

/// Clients that write to the log.
const CLIENTS: u64 = 10;

/// A log in which each hour has a snapshot of each client, and each day a record that forgets all but one of each
/// client.
struct Log {
    vault: Vault,
    folder: std::path::PathBuf,
    /// The number and hash of the last record of each client.
    last: Vec<(u64, Digest)>,
}

impl Log {
    /// Puts a record of a client that has seen everything before.
    fn put(&mut self, client: u64, secs: i64, seen: &[(ClientId, u64)], body: RecordBody) -> ObjectName {
        let id = |client: u64| ClientId::new(noise(client, 16).try_into().expect("as many bytes"));
        let (number, previous) = self.last[client as usize];
        let others =
            (0..CLIENTS).filter(|other| *other != client).map(|other| (id(other), self.last[other as usize].0));
        let record = Record {
            client: id(client),
            number: number + 1,
            previous,
            seen: others.filter(|(_, number)| *number > 0).chain(seen.iter().copied()).collect(),
            time: Time { secs, nanos: 0 },
            claims: Vec::new(),
            closed: Vec::new(),
            body,
        };
        let sealed = record.seal(self.vault.keys()).expect("a record");
        self.last[client as usize] = (number + 1, Digest::new(*blake3::hash(&sealed.bytes).as_bytes()));
        fs::write(self.folder.join(sealed.name.to_string()), &sealed.bytes).expect("an object");
        sealed.name
    }

    fn fill(&mut self, records: u64) {
        let mut today = Vec::new();
        for hour in 0..records / CLIENTS {
            let now = 1_600_000_000 + hour.cast_signed() * 3600;
            for client in 0..CLIENTS {
                let body = if hour == 0 { join(client) } else { RecordBody::Snapshot(Box::new(snapshot(client, now))) };
                let name = self.put(client, now, &[], body);
                if hour % 24 > 0 {
                    today.push(name);
                }
            }
            if hour % 24 == 23 {
                self.put(0, now, &[], RecordBody::Forget(std::mem::take(&mut today)));
            }
        }
    }
}

fn join(client: u64) -> RecordBody {
    RecordBody::Join(Join {
        host: format!("machine-{client}"),
        user: "somebody".to_owned(),
        place: noise(client, 16),
        retires: Vec::new(),
        synced: false,
        program: "0.1.0".to_owned(),
    })
}

fn snapshot(client: u64, secs: i64) -> Snapshot {
    let folder = b"/home/somebody/documents".to_vec();
    Snapshot {
        time: Time { secs, nanos: 5 },
        source: "documents".to_owned(),
        host: format!("machine-{client}"),
        user: "somebody".to_owned(),
        roots: vec![Root::new(b"documents".to_vec(), folder)],
        tree: Stream::default(),
        links: Stream::default(),
        files: 123_456,
        folders: 7_890,
        bytes: 123_456_789_012,
        files_new: 12,
        files_changed: 34,
        files_unchanged: 123_410,
        bytes_read: 5_678_901,
        bytes_new: 567_890,
        bytes_stored: 234_567,
        duration_ms: 4_567,
        program: "0.1.0".to_owned(),
        tags: Vec::new(),
        description: String::new(),
        verdict: Verdict::Complete,
        skipped: 0,
        skipped_list: Stream::default(),
        given: false,
        rules: Stream::default(),
        replaces: Vec::new(),
        redated: false,
        origin: None,
    }
}

fn opened(bench: &Bench) -> Vault {
    let store = Arc::new(DirStore::open(&bench.folder.path().join("store")).expect("a store"));
    let person = |text: &str| text.to_owned();
    let identity =
        Identity { host: person("merger"), user: person("user"), machine: person("merger"), program: person("bench") };
    let options = OpenOptions::new(bench.folder.path().join("merger"), identity);
    open(store, &Secret::password("only for measuring"), options, &Silent::default()).expect("a vault")
}

/// The number of objects in the log, and their bytes.
fn log_size(folder: &Path) -> String {
    let lens =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").metadata().expect("its length"));
    let (mut count, mut bytes) = (0_u64, 0);
    for meta in lens {
        count += 1;
        bytes += meta.len();
    }
    format!("{count} objects, {:.1} MB", bytes as f64 / 1e6)
}

/// Measures logs of these lengths: opening by a new machine and by a known one, and one more snapshot; with the log
/// as it was written, and merged.
fn log(sizes: &[(u64, String)]) {
    for (count, name) in sizes {
        let bench = Bench::new();
        let folder = bench.folder.path().join("store/log");
        fs::create_dir_all(&folder).expect("a folder");
        let source = bench.folder.path().join("source");
        fs::create_dir_all(&source).expect("a folder");
        let mut log = Log {
            vault: opened(&bench),
            folder: folder.clone(),
            last: vec![(0, Digest::new([0; 32])); CLIENTS as usize],
        };
        log.fill(*count);
        settle();
        let measure = |what: &str| {
            let mut table = Table::new(&format!("log of {name}, {what} ({})", log_size(&folder)));
            fs::remove_dir_all(bench.folder.path().join("state")).expect("the state");
            table.row("list, without state", bench.run(&["list"]));
            // The longest log takes minutes.
            let runs = if *count > 100_000 { 1 } else { 3 };
            table.row("list", median(runs, || bench.run(&["list"])));
            fs::write(source.join("small"), text(*count, 300)).expect("a file");
            table.row("snapshot", bench.run(&["snapshot", "source"]));
        };
        measure("as it was written");
        // As the program's own: clocks that differ a lot are reported.
        let clock = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
            Time { secs: now.as_secs().cast_signed(), nanos: 0 }
        };
        let merge = || {
            let begun = Instant::now();
            let vault = opened(&bench);
            let session = vault.begin_writing(clock(), &Silent::default()).expect("a session");
            let report = merge_log(&vault, &session, &clock, &Silent::default()).expect("merges");
            drop(session);
            let took = begun.elapsed().as_secs_f64();
            println!("  {} objects merged, {} deleted in {took:.1} s", report.merged, report.deleted);
            let own = vault.client().expect("a client");
            // All clients have seen that.
            vault.chains().last(&own).map(|link| (own, link.record.number))
        };
        let seen: Vec<(ClientId, u64)> = merge().into_iter().collect();
        for client in 0..CLIENTS {
            log.put(client, clock().secs, &seen, RecordBody::Forget(Vec::new()));
        }
        fs::write(source.join("another"), text(*count, 300)).expect("a file");
        bench.run(&["snapshot", "source"]);
        merge();
        settle();
        measure("merged");
    }
}

/// Measures a vault with many chunks.
fn chunks(sizes: &[(u64, String)]) {
    let mut rows = [const { Vec::new() }; 5];
    for (chunks, name) in sizes {
        let bench = Bench::new();
        bench.fresh(&["--chunk-avg", "1K"]);
        let source = bench.folder.path().join("source");
        fs::create_dir_all(&source).expect("a folder");
        let mut file = fs::File::create(source.join("image")).expect("a file");
        // With the smallest and the largest bound, a chunk of noise has about 1.2 times the average.
        for number in 0..chunks / 1000 {
            file.write_all(&noise(number, 1_230_000)).expect("its bytes");
        }
        rows[0].push((name, bench.run(&["snapshot", "source"])));
        fs::write(source.join("a small one"), "new").expect("a file");
        rows[1].push((name, bench.run(&["snapshot", "source"])));
        rows[2].push((name, median(5, || bench.run(&["list"]))));
        fs::remove_dir_all(bench.folder.path().join("state")).expect("the state");
        rows[3].push((name, bench.run(&["list"])));
        rows[4].push((name, bench.run(&["prune", "--keep", "1"])));
    }
    let steps = ["first snapshot", "a small file more", "list", "catalogue built anew", "prune"];
    for (what, rows) in steps.iter().zip(&rows) {
        let mut table = Table::new(&format!("chunks in the vault: {what}"));
        rows.iter().for_each(|(name, run)| table.row(name, *run));
    }
}
