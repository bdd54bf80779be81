//! Bench of a far store, at which each request takes 50 ms: `cargo bench --bench far`. `VAULT_BENCH_FILES` (20,000) files
//! are planted, unless `VAULT_BENCH_TREE` names an existing tree; a vault of `VAULT_BENCH_PACKS` (10,000) packs, without
//! the content of their segments, is opened without its catalogue. `VAULT_BENCH_DELAY` is the time in milliseconds,
//! `VAULT_BENCH_READS` (16) the number of reads that the store takes at a time.
//! Passwords are not part of it: the vault opens with a raw secret.
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::unwrap_used,
    missing_docs,
    dead_code,
    reason = "a bench reads the clock and the environment, and ends when something fails"
)]

mod common;
#[path = "common/packs.rs"]
mod packs;
#[path = "common/vaults.rs"]
mod vaults;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{number, plant, source_len};
use vault::engine::prune::collect::CollectOptions;
use vault::engine::prune::prune;
use vault::engine::prune::retention::{self, Rules};
use vault::engine::restore::{RestoreOptions, Target, restore};
use vault::progress::Silent;
use vault::seal::Secret;
use vault::store::dir::DirStore;
use vault::store::testing::counting::CountingStore;
use vault::store::testing::sleeping::SleepingStore;
use vault::store::{Store, StoreLimits};
use vault::vault::create::create;
use vault::vault::open::open;
use vault::vault::{CreateOptions, Vault};
use vaults::{SECRET, clock, options, take};

/// The limits of an object store. For reads as short as footers, object stores take 32 at a time.
fn limits() -> StoreLimits {
    let reads = usize::try_from(number("VAULT_BENCH_READS", 16)).expect("a number of reads");
    StoreLimits { reads, writes: 8, bytes: 128 << 20 }
}

/// A store in a folder, with requests that are counted and delayed.
struct Far {
    folder: PathBuf,
    counting: Arc<CountingStore<DirStore>>,
    sleeping: Arc<SleepingStore>,
}

impl Far {
    /// An empty vault in a new folder.
    fn new(folder: PathBuf, delay: Duration) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let store = DirStore::create(&folder.join("store")).unwrap();
        create(&store, &CreateOptions::new(Secret::raw(SECRET), 0)).unwrap();
        let counting = Arc::new(CountingStore::new(store));
        let inner: Arc<dyn Store> = counting.clone();
        let sleep = move || {
            if !delay.is_zero() {
                std::thread::sleep(delay);
            }
        };
        let sleeping = Arc::new(SleepingStore::new(inner, limits(), sleep));
        Self { folder, counting, sleeping }
    }

    /// The vault with this state folder.
    fn open(&self, state: &str) -> Vault {
        let store: Arc<dyn Store> = self.sleeping.clone();
        open_with(store, &self.folder.join(state), "machine")
    }

    /// Does some work, and prints its time and requests.
    fn measure<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        drop((self.counting.take(), self.counting.take_read(), self.sleeping.take()));
        let begun = Instant::now();
        let done = work();
        let (seconds, requests, (rounds, most)) =
            (begun.elapsed().as_secs_f64(), self.counting.take(), self.sleeping.take());
        println!(
            "{what:<40} {seconds:>8.2} {:>9} {rounds:>7} {most:>6} {:>9.1}",
            requests.total(),
            self.counting.take_read() as f64 / 1e6
        );
        done
    }
}

fn open_with(store: Arc<dyn Store>, state: &Path, machine: &str) -> Vault {
    open(store, &Secret::raw(SECRET), options(state, machine), &Silent::default()).unwrap()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let delay = Duration::from_millis(number("VAULT_BENCH_DELAY", 50));
    let source = std::env::var_os("VAULT_BENCH_TREE").map_or_else(
        || {
            let planted = folder.path().join("source");
            plant(&planted, number("VAULT_BENCH_FILES", 20_000), 0, source_len);
            planted
        },
        PathBuf::from,
    );
    println!("{} ms a request{:>38} requests  rounds   most  read, MB", delay.as_millis(), "seconds");
    let near = Far::new(folder.path().join("near"), Duration::ZERO);
    near.measure("first snapshot, no time a request", || take(&near.open("state"), &source, threads()));
    let far = Far::new(folder.path().join("far"), delay);
    far.measure("first snapshot", || take(&far.open("state"), &source, threads()));
    far.measure("nothing changed", || take(&far.open("state"), &source, threads()));
    let vault = far.open("state");
    let id = vault.snapshots()[0].id;
    let to = |name: &str| Target::Folder(folder.path().join(name));
    let restored = |vault: &Vault, name: &str| {
        let mut options = RestoreOptions::new(id, to(name));
        options.threads = threads();
        assert_eq!(restore(vault, &options, &Silent::default()).unwrap().problem_count, 0);
    };
    far.measure("restore, everything", || restored(&vault, "restored"));
    let local: Arc<dyn Store> = Arc::new(DirStore::open(&far.folder.join("store")).unwrap());
    let beside = open_with(local, &far.folder.join("local"), "another");
    far.measure("the same from a folder", || restored(&beside, "restored beside"));
    drop(beside);
    far.measure("prune, one of two snapshots", || {
        let rules = Rules { last: Some(1), ..Rules::default() };
        let decisions = retention::plan(&vault.snapshots(), &rules, &|_, _| String::new());
        let mut options = CollectOptions::new(&clock);
        options.threads = threads();
        prune(&vault, &decisions, &options, &Silent::default()).unwrap()
    });
    drop(vault);
    let many = Far::new(folder.path().join("many"), delay);
    let count = number("VAULT_BENCH_PACKS", 10_000);
    packs::fill(many.open("filling").keys(), &many.folder.join("store"), count, number("VAULT_BENCH_CHUNKS", 32));
    many.measure(&format!("catalogue lost, {count} packs"), || drop(many.open("lost")));
}
