//! How time and memory grow when the work grows tenfold: `cargo bench --bench scaling`. `VAULT_BENCH_STEPS` (2 by
//! default) is the number of sizes of each kind; 3 takes an hour and 60 GB of disk.
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
        let first = bench.run(&["snapshot", "source"]);
        std::thread::sleep(std::time::Duration::from_millis(100));
        bench.run(&["snapshot", "source"]);
        let again = median(3, || bench.run(&["snapshot", "source"]));
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

fn sizes(smallest: u64, steps: u64, unit: &str) -> Vec<(u64, String)> {
    (0..steps).map(|step| smallest * 10_u64.pow(step as u32)).map(|size| (size, format!("{size} {unit}"))).collect()
}

fn main() {
    let steps = number("VAULT_BENCH_STEPS", 2);
    grow("files of 3 KB", &sizes(10_000, steps, "files"), |source, count| plant(source, count, 0, |_| 3000));
    grow("files in one folder", &sizes(1000, steps + 1, "files"), |source, count| {
        for number in 0..count {
            fs::write(source.join(format!("{number}")), number.to_le_bytes()).expect("a file");
        }
    });
    grow("one file that does not compress", &sizes(100, steps, "MB"), |source, megabytes| {
        let mut file = fs::File::create(source.join("image")).expect("a file");
        for number in 0..megabytes {
            file.write_all(&noise(number, 1_000_000)).expect("its bytes");
        }
    });

    let mut listed = Table::new("snapshots in the vault: list");
    let mut taken = Vec::new();
    for (count, name) in sizes(10, steps + 1, "snapshots") {
        let bench = Bench::new();
        let source = bench.folder.path().join("source");
        plant(&source, 1000, 0, |_| 300);
        for version in 0..count {
            fs::write(source.join(place(7)), text(version, 300)).expect("a file");
            bench.run(&["snapshot", "source"]);
        }
        listed.row(&name, median(5, || bench.run(&["list"])));
        taken.push((name, median(3, || bench.run(&["snapshot", "source"]))));
    }
    let mut table = Table::new("snapshots in the vault: one more");
    taken.iter().for_each(|(name, run)| table.row(name, *run));

    let mut rows = [Vec::new(), Vec::new(), Vec::new()];
    for (chunks, name) in sizes(100_000, steps, "chunks") {
        let bench = Bench::new();
        bench.fresh(&["--chunk-avg", "1K"]);
        let source = bench.folder.path().join("source");
        fs::create_dir_all(&source).expect("a folder");
        let mut file = fs::File::create(source.join("image")).expect("a file");
        // With the smallest and the largest bound, a chunk of noise has about 1.2 times the average.
        for number in 0..chunks / 1000 {
            file.write_all(&noise(number, 1_230_000)).expect("its bytes");
        }
        bench.run(&["snapshot", "source"]);
        fs::write(source.join("a small one"), "new").expect("a file");
        rows[0].push((name.clone(), bench.run(&["snapshot", "source"])));
        rows[1].push((name.clone(), median(5, || bench.run(&["list"]))));
        fs::remove_dir_all(bench.folder.path().join("state")).expect("the state");
        rows[2].push((name, bench.run(&["list"])));
    }
    for (what, rows) in ["a small file more", "list", "catalogue built anew"].iter().zip(&rows) {
        let mut table = Table::new(&format!("chunks in the vault: {what}"));
        rows.iter().for_each(|(name, run)| table.row(name, *run));
    }
}
