//! How time and memory grow when the work grows tenfold: `cargo bench --bench scaling`. `VAULT_BENCH_STEPS` (2 by
//! default) is the number of sizes of each kind; 3 takes an hour and 45 GB of disk. `VAULT_BENCH_ONLY` is the name of the
//! one kind that is wanted: `files`, `folder`, `file`, `snapshots` or `chunks`.
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

use common::{Bench, Run, median, noise, number, place, plant, text};

/// Prints one line for each size: its time and memory, and how often the time of the size before.
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

/// First and second snapshot, and restore, of what `fill` puts into the source.
fn grow(what: &str, sizes: &[(u64, String)], fill: impl Fn(&Path, u64)) {
    let mut tables = Vec::new();
    for (size, name) in sizes {
        let bench = Bench::new();
        let source = bench.folder.path().join("source");
        fs::create_dir_all(&source).expect("a folder");
        fill(&source, *size);
        settle();
        // From here on as much of it is in memory as the system keeps there.
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

/// Waits until what was written or removed is on the disk: otherwise that goes on beside what is measured.
fn settle() {
    #[cfg(unix)]
    rustix::fs::sync();
}

/// The first so many of these sizes.
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
    if wanted("chunks") {
        chunks(&sizes(&[100_000, 1_000_000, 10_000_000], steps, "chunks"));
    }
}

/// With so many snapshots in the vault: what lists them, and takes one more.
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

/// With so many chunks in the vault.
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
