//! Bench of opening a vault of many packs without a state, and restoring a first file, with and without index
//! objects: `cargo bench --bench hints`. `VAULT_BENCH_PACKS` (10,000) packs of `VAULT_BENCH_CHUNKS` (32; a full pack
//! of the default sizes has some 256) chunks, without the content of their segments. Each part is a process of its
//! own, so that its memory can be measured.
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
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
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use common::number;
use packs::fill;
use vault::engine::restore::{RestoreOptions, Target, restore};
use vault::progress::Silent;
use vault::seal::Secret;
use vault::store::Store;
use vault::store::dir::DirStore;
use vault::store::testing::counting::{Action, CountingStore};
use vault::vault::create::create;
use vault::vault::open::{open, open_locked_to_read};
use vault::vault::{CreateOptions, LockedVault, Wanted};
use vaults::{SECRET, options, take};

/// The machine that does everything.
const MACHINE: &str = "machine";
/// The variable that tells a process which part of the work to do.
const PART: &str = "VAULT_BENCH_PART";
const FOLDER: &str = "VAULT_BENCH_FOLDER";

fn counting(folder: &Path) -> Arc<CountingStore<DirStore>> {
    Arc::new(CountingStore::new(DirStore::open(&folder.join("store")).unwrap()))
}

/// Makes the vault: the packs, and a snapshot of 2,000 files of 3 KB, one of which is changed after it.
fn plant(folder: &Path, packs: u64) {
    let store = DirStore::create(&folder.join("store")).unwrap();
    create(&store, &CreateOptions::new(Secret::raw(SECRET), 0)).unwrap();
    let source = folder.join("source");
    for number in 0..2000_u64 {
        let below = source.join(format!("{}", number / 20));
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join(format!("{number}")), common::text(number, 3000)).unwrap();
    }
    let shared: Arc<dyn Store> = Arc::new(store);
    let vault =
        open(shared, &Secret::raw(SECRET), options(&folder.join("planting"), MACHINE), &Silent::default()).unwrap();
    take(&vault, &source, 2);
    fill(vault.keys(), &folder.join("store"), packs, number("VAULT_BENCH_CHUNKS", 32));
    fs::write(source.join("99/1999"), common::text(1 << 40, 3000)).unwrap();
    fs::remove_dir_all(folder.join("store/index")).unwrap();
    fs::create_dir(folder.join("store/index")).unwrap();
}

fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) >> 10
}

/// Opens the vault without a state, lazily or not, and restores a file.
fn measure(folder: &Path, what: &str, lazy: bool) {
    let state = tempfile::tempdir_in(folder).unwrap();
    let store = counting(folder);
    let shared: Arc<dyn Store> = store.clone();
    let begun = Instant::now();
    let (secret, options) = (Secret::raw(SECRET), options(state.path(), MACHINE));
    let vault = if lazy {
        let locked = LockedVault::read(shared.as_ref()).unwrap();
        open_locked_to_read(shared, &locked, &secret, options, &Wanted::default(), &Silent::default())
    } else {
        open(shared, &secret, options, &Silent::default())
    };
    let vault = vault.unwrap();
    let tell = |step: &str, begun: Instant| {
        let (seconds, requests) = (begun.elapsed().as_secs_f64(), store.take());
        println!(
            "{what:<34} {step:<12} {:>8} {:>6} {:>9.2} {seconds:>9.2} {:>5}",
            requests.total() - requests.of(Action::List),
            requests.of(Action::List),
            store.take_read() as f64 / 1e6,
            peak(),
        );
    };
    tell("open", begun);
    let last = vault.snapshots().last().unwrap().id;
    let target = folder.join(format!("restored {what}"));
    let begun = Instant::now();
    let mut options = RestoreOptions::new(last, Target::Folder(target.clone()));
    options.path = Some(b"top/42/847".to_vec());
    restore(&vault, &options, &Silent::default()).unwrap();
    assert_eq!(fs::read(target.join("847")).unwrap(), common::text(847, 3000));
    tell("first file", begun);
}

/// A second snapshot, by a machine without a state: the cost of reading everything that it must know, and of writing
/// the index objects.
fn write(folder: &Path) {
    let store = counting(folder);
    let shared: Arc<dyn Store> = store.clone();
    let state = folder.join("writing");
    let vault = open(shared, &Secret::raw(SECRET), options(&state, MACHINE), &Silent::default()).unwrap();
    drop((store.take(), store.take_read()));
    let begun = Instant::now();
    take(&vault, &folder.join("source"), 2);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "snapshot that describes all packs: {}; {:.1} MB read, {seconds:.1} s, {} MiB",
        store.take(),
        store.take_read() as f64 / 1e6,
        peak()
    );
    let (mut objects, mut bytes) = (0, 0);
    store
        .list(vault::store::Kind::Index, &mut |listed| {
            if let vault::store::Listed::Object { len, .. } = listed {
                objects += 1;
                bytes += len;
            }
        })
        .unwrap();
    println!("index/: {objects} objects, {:.1} MB", bytes as f64 / 1e6);
    let begun = Instant::now();
    fs::write(folder.join("source/0/0"), b"changed").unwrap();
    store.take();
    take(&vault, &folder.join("source"), 2);
    println!("the next one: {}; {:.2} s", store.take(), begun.elapsed().as_secs_f64());
}

fn main() {
    if let (Ok(part), Some(folder)) = (std::env::var(PART), std::env::var_os(FOLDER).map(PathBuf::from)) {
        match part.as_str() {
            "plant" => plant(&folder, number("VAULT_BENCH_PACKS", 10_000)),
            "whole" => measure(&folder, "all footers, as whoever writes", false),
            "lazy without" => measure(&folder, "only read, without index/", true),
            "write" => write(&folder),
            _ => measure(&folder, "only read, with index/", true),
        }
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let run = |part: &str| {
        let me = std::env::current_exe().expect("this program");
        let done = Command::new(me).env(PART, part).env(FOLDER, folder.path()).status().expect("it runs");
        assert!(done.success(), "{part}: {done}");
    };
    run("plant");
    println!(
        "a vault of {} packs{:>29} requests  pages  read, MB   seconds   MiB",
        number("VAULT_BENCH_PACKS", 10_000),
        ""
    );
    run("whole");
    run("lazy without");
    run("write");
    run("with");
}
