//! Tests of a restore from a far store that reads ahead: it reads the next files while it writes the ones before, and
//! wherever it ends early, every file in its target is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tempfile::TempDir;
use vault::chunk::ChunkParams;
use vault::engine::restore::{RestoreError, RestoreOptions, RestoreReport, Target, restore};
use vault::engine::snapshot::snapshot;
use vault::progress::{Counters, Phase, Progress, Silent};
use vault::store::testing::faulty::{Fault, FaultyStore};
use vault::store::testing::mem::MemStore;
use vault::store::testing::sleeping::SleepingStore;
use vault::store::{Store, StoreLimits};
use vault::vault::Vault;

use crate::support::source::{bytes, write};
use crate::support::{THREADS, campaign, create_vault, each, now, open_vault, options, scratch};

/// Number of files: a restore plans them in three parts.
const FILES: u64 = 7000;

/// A vault of many small files.
struct Many {
    store: Arc<FaultyStore<MemStore>>,
    folder: TempDir,
}

impl Many {
    fn new() -> Self {
        let many = Self { store: Arc::new(FaultyStore::new(MemStore::new())), folder: scratch() };
        let store: Arc<dyn Store> = many.store.clone();
        create_vault(store.as_ref(), ChunkParams::default()).unwrap();
        let source = many.path("source");
        fs::create_dir_all(&source).unwrap();
        for number in 0..FILES {
            write(&source.join(format!("{number:04}")), number, len_of(number));
        }
        let vault = open_vault(&store, &many.path("state")).unwrap();
        // One thread, so that the content is stored in the order of the files.
        let mut options = options(&source, &now);
        options.threads = 1;
        snapshot(&vault, options, &Silent::default()).unwrap();
        many
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The vault behind a line on which each request takes this long.
    fn open(&self, state: &str, millis: u64) -> (Vault, Arc<SleepingStore>) {
        let limits = StoreLimits { reads: 4, writes: 4, bytes: 64 << 20 };
        let sleep = move || std::thread::sleep(Duration::from_millis(millis));
        let sleeping = Arc::new(SleepingStore::new(self.store.clone(), limits, sleep));
        let store: Arc<dyn Store> = sleeping.clone();
        (open_vault(&store, &self.path(state)).unwrap(), sleeping)
    }

    fn restore(&self, vault: &Vault, to: &str, progress: &dyn Progress) -> Result<RestoreReport, RestoreError> {
        let mut options = RestoreOptions::new(vault.snapshots()[0].id, Target::Folder(self.path(to)));
        options.threads = THREADS;
        restore(vault, &options, progress)
    }
}

/// One in ten files has a chunk that fills some room.
fn len_of(number: u64) -> usize {
    if number.is_multiple_of(10) { 8000 } else { 40 }
}

/// The number of files in a target, each of which must be whole.
fn whole_files(target: &Path) -> u64 {
    let Ok(files) = fs::read_dir(target.join("top")) else { return 0 };
    let mut count = 0;
    for file in files {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let number: u64 = name.parse().unwrap_or_else(|_| panic!("{name} is left behind"));
        assert!(fs::read(file.path()).unwrap() == bytes(number, len_of(number)), "{name} is not whole");
        count += 1;
    }
    count
}

#[test]
fn the_next_files_are_read_while_the_ones_before_arrive() {
    let many = Many::new();
    let (vault, sleeping) = many.open("state", 1000);
    sleeping.take();
    let report = many.restore(&vault, "to", &Silent::default()).unwrap();
    let (_, most) = sleeping.take();
    assert_eq!((report.files, report.problem_count, whole_files(&many.path("to"))), (FILES, 0, FILES));
    // The content of each part is read with one request.
    assert!(most >= 2, "{most} requests together");
}

#[test]
fn a_restore_that_meets_a_fault_says_so_and_leaves_whole_files_only() {
    let many = Many::new();
    let (vault, _) = many.open("state", 0);
    let before = many.store.counts();
    assert_eq!(many.restore(&vault, "sound", &Silent::default()).unwrap().problem_count, 0);
    let after = many.store.counts();
    let (gets, operations) = (after.gets - before.gets, after.operations - before.operations);
    assert!(gets > 3, "{gets} reads");
    for at in 0..operations.max(gets) {
        let now = many.store.counts();
        for (name, fault) in [
            ("line", Fault::CutLineAt(now.operations + at)),
            ("answer", Fault::FailAtOperation(now.operations + at)),
            ("bit", Fault::FlipInGet { get: now.gets + at, bit: 8 * 3000 + at }),
        ] {
            many.store.add(fault);
            let to = format!("{name} {at}");
            let restored = many.restore(&vault, &to, &Silent::default());
            let used = many.store.counts().operations - now.operations;
            many.store.heal();
            let whole = whole_files(&many.path(&to));
            match restored {
                Ok(report) => {
                    assert_eq!((report.files, whole), (FILES - report.damage_count, report.files), "{to}");
                    assert!(name != "line" || used <= at, "{to}: the rest of the line was not needed");
                }
                Err(error) => {
                    assert!(matches!(error, RestoreError::Store(_) | RestoreError::Read { .. }), "{to}: {error}");
                }
            }
            let _ = fs::remove_dir_all(many.path(&to));
        }
    }
}

/// Stops after some questions whether to.
struct Stopping {
    silent: Silent,
    left: AtomicU64,
}

impl Progress for Stopping {
    fn phase(&self, _: Phase) {}

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        self.silent.counters()
    }

    fn stopped(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(1))) == Ok(0)
    }
}

/// `VAULT_CAMPAIGN=n`: n times as many moments.
#[test]
fn a_restore_that_is_stopped_at_any_moment_ends_and_leaves_whole_files_only() {
    let many = Many::new();
    let moments: Vec<u64> = (0..12 * (1 + campaign())).map(|number| number * number * 61 % 16_000).collect();
    each(&moments, |number, moment| {
        let (vault, _) = many.open(&format!("state {number}"), number as u64 % 3);
        let to = format!("stopped {number}");
        let stopping = Stopping { silent: Silent::default(), left: AtomicU64::new(*moment) };
        match many.restore(&vault, &to, &stopping) {
            Ok(report) => assert_eq!((report.files, whole_files(&many.path(&to))), (FILES, FILES), "{moment}"),
            Err(error) => {
                assert!(matches!(error, RestoreError::Interrupted), "{moment}: {error}");
                whole_files(&many.path(&to));
            }
        }
        let _ = fs::remove_dir_all(many.path(&to));
    });
}
