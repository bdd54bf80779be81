//! Costs of each command at a far store, in requests and in round trips, against the table `golden/budgets.txt`: a
//! store counts, and no clock is needed.
//!
//! A command opens the vault first. That is a row of its own, and not part of the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vault::chunk::ChunkParams;
use vault::engine::archive::export::export;
use vault::engine::archive::import::{ImportOptions, import};
use vault::engine::check::drill::{DrillOptions, drill};
use vault::engine::check::{CheckOptions, check};
use vault::engine::copy::{CopyOptions, copy};
use vault::engine::keys;
use vault::engine::keys::When;
use vault::engine::mirror::mirror;
use vault::engine::patterns::glob::Pattern;
use vault::engine::prune;
use vault::engine::prune::collect::CollectOptions;
use vault::engine::prune::retention::{self, Rules};
use vault::engine::query::browse;
use vault::engine::query::diff;
use vault::engine::query::find::{Search, find};
use vault::engine::query::history;
use vault::engine::query::usage;
use vault::engine::repair::{self, RepairOptions};
use vault::engine::restore::{RestoreOptions, RestoreReport, Target, restore};
use vault::engine::rewrite::{Change, RewriteOptions, rewrite};
use vault::engine::stats::stats;
use vault::log::RecordBody;
use vault::progress::Silent;
use vault::read::StoredFile;
use vault::read::View;
use vault::seal::{Purpose, Secret};
use vault::service::delivery;
use vault::store::testing::counting::{Action, CountingStore, Requests, Target as Counted};
use vault::store::testing::mem::MemStore;
use vault::store::testing::sleeping::SleepingStore;
use vault::store::{Delivery, Kind, ObjectKey, Store, StoreLimits};
use vault::vault::open::open_locked_to_read;
use vault::vault::{LockedVault, OpenOptions, SnapshotInfo, Vault, Wanted};

use crate::support::source::write;
use crate::support::{
    PASSWORD, RAW, THREADS, campaign, cheap, create_vault, identity, now, open_vault, scratch, small_chunks, take,
};

/// A row of the table: a command, and its highest costs.
#[derive(Debug)]
struct Budget {
    command: &'static str,
    /// Most requests.
    requests: usize,
    /// Most round trips: requests each of which begins when the one before has ended.
    rounds: usize,
    /// The purpose of the requests.
    of: &'static str,
}

/// The table. A row is `command | requests | round trips | purpose`.
fn budgets() -> Vec<Budget> {
    let text: &'static str = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE)).unwrap().leak();
    let rows = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [command, requests, rounds, of] = cells[..] else { panic!("no row of the table: {row}") };
        Budget { command, requests: requests.parse().unwrap(), rounds: rounds.parse().unwrap(), of }
    })
    .collect()
}

const TABLE: &str = "tests/golden/budgets.txt";

/// Number of snapshots in the vault before most commands are counted. Each has put a pack, a meta pack and a record.
const SNAPSHOTS: usize = 60;

/// A far store that counts, and that delays each request once the vault is filled.
struct Far {
    counting: Arc<CountingStore<MemStore>>,
    sleeping: Arc<SleepingStore>,
    costs: BTreeMap<&'static str, (Requests, usize)>,
}

impl Far {
    fn new() -> Self {
        let counting = Arc::new(CountingStore::new(MemStore::new()));
        let limits = StoreLimits { reads: 8, writes: 8, bytes: 64 << 20 };
        let inner: Arc<dyn Store> = counting.clone();
        let sleeping = SleepingStore::new(inner, limits, || std::thread::sleep(Duration::from_millis(10)));
        Self { counting, sleeping: Arc::new(sleeping), costs: BTreeMap::new() }
    }

    /// The store as a command sees it.
    fn store(&self) -> Arc<dyn Store> {
        self.sleeping.clone()
    }

    /// Does some work, and notes its costs.
    fn cost<T>(&mut self, command: &'static str, work: impl FnOnce() -> T) -> T {
        self.counting.take();
        self.sleeping.take();
        let done = work();
        let (rounds, _) = self.sleeping.take();
        assert!(self.costs.insert(command, (self.counting.take(), rounds)).is_none(), "{command} twice");
        done
    }

    /// Everything that exceeds the table, or is not in it. Prints all costs, which a test shows with `--nocapture`.
    fn faults(&self) -> Vec<String> {
        let (mut faults, budgets) = (Vec::new(), budgets());
        for (command, (requests, rounds)) in &self.costs {
            println!("{command} | {} | {rounds} | {requests}", requests.total());
        }
        for (command, (requests, rounds)) in &self.costs {
            // How many requests meet depends on when threads run. Work that begins to wait for each answer exceeds this all the
            // same: it has as many round trips as requests.
            let fits = |budget: &&Budget| {
                requests.total() <= budget.requests + budget.requests / 10 + 1
                    && *rounds <= budget.rounds + budget.rounds / 2 + 2
            };
            match budgets.iter().find(|budget| budget.command == *command) {
                Some(budget) if fits(&budget) => {}
                Some(Budget { requests: most, rounds: most_rounds, of, .. }) => faults.push(format!(
                    "{command}: {} requests of {most}, {rounds} round trips of {most_rounds}: {requests} (budget: {of})",
                    requests.total()
                )),
                None => {
                    faults.push(format!("{command} | {} | {rounds} | {requests}", requests.total()));
                }
            }
        }
        let done = |budget: &&Budget| !self.costs.contains_key(budget.command);
        faults.extend(budgets.iter().filter(done).map(|budget| format!("{}: never done", budget.command)));
        faults
    }
}

/// Two folders of twenty files each.
fn plant(source: &Path) {
    for number in 0..40_u64 {
        let folder = source.join(format!("folder {}", number % 2));
        fs::create_dir_all(&folder).unwrap();
        write(&folder.join(format!("file {number}")), number, 5000);
    }
}

fn pruned(vault: &Vault, keep: u64, max_unused: f64) -> u64 {
    let rules = Rules { last: Some(keep), ..Rules::default() };
    let decisions = retention::plan(&vault.snapshots(), &rules, &|_, _| String::new());
    let mut options = CollectOptions::new(&now);
    options.max_unused = max_unused;
    options.level = 1;
    options.threads = THREADS;
    prune::prune(vault, &decisions, &options, &Silent::default()).unwrap().packs_deleted
}

#[test]
fn each_command_keeps_to_its_budget_of_requests() {
    let mut far = Far::new();
    let store = far.store();
    let quick: Arc<dyn Store> = far.counting.clone();
    let folder = scratch();
    let (source, state) = (folder.path().join("source"), folder.path().join("state"));
    plant(&source);
    let silent = Silent::default();
    let kdf = cheap();

    far.cost("init", || create_vault(store.as_ref(), small_chunks()).unwrap());
    let vault = far.cost("open, the first time", || open_vault(&store, &state).unwrap());
    far.cost("snapshot, first", || take(&vault, &source).unwrap());
    drop(vault);
    let vault = open_vault(&quick, &state).unwrap();
    for number in 1..SNAPSHOTS as u64 {
        write(&source.join("folder 0/changing"), 1000 + number, 3000);
        take(&vault, &source).unwrap();
    }
    drop(vault);

    let fresh = folder.path().join("fresh");
    drop(far.cost("open, catalogue lost", || open_vault(&store, &fresh).unwrap()));
    let open = || open_vault(&store, &state).unwrap();
    let vault = far.cost("open", open);
    far.cost("snapshot, unchanged", || take(&vault, &source).unwrap());
    let vault = open();
    write(&source.join("folder 1/new"), 5, 3000);
    far.cost("snapshot, changed, indexes merged", || take(&vault, &source).unwrap());
    write(&source.join("folder 1/new"), 6, 3000);
    far.cost("snapshot, changed", || take(&vault, &source).unwrap());
    let vault = open();
    let snapshots = far.cost("list", || vault.snapshots());
    let (first, last) = (&snapshots[0], snapshots.last().unwrap());
    far.cost("ls", || {
        let mut count = 0;
        browse::list(&vault, last, b"top", true, &mut |_, _| {
            count += 1;
            true
        })
        .unwrap();
        assert_eq!(count, 44);
    });
    far.cost("cat", || {
        let mut out = Vec::new();
        browse::cat(&vault, last, b"top/folder 1/new", &mut out, &silent).unwrap();
        assert_eq!(out.len(), 3000);
    });
    far.cost("diff", || {
        let (mut old_trees, mut new_trees) = (vault.tree_reader().unwrap(), vault.tree_reader().unwrap());
        let old = browse::entry_at(&first.body.tree, b"", &mut old_trees).unwrap();
        let new = browse::entry_at(&last.body.tree, b"", &mut new_trees).unwrap();
        let mut count = 0;
        let mut found = |_| {
            count += 1;
            true
        };
        diff::bring(&old, &new, &new_trees, &silent);
        diff::diff(b"", (old, &mut old_trees), (new, &mut new_trees), &[], &silent, &mut found).unwrap();
        assert!(count > 0);
    });
    let all: Vec<_> = snapshots.iter().collect();
    let search = |vault: &Vault| {
        let mut count = 0;
        let mut found = |_| {
            count += 1;
            true
        };
        let search = Search { pattern: &Pattern::new(b"new", false), all: true, otherwise: None };
        find(vault, &all, &search, THREADS, &silent, &mut found).unwrap();
        assert_eq!(count, 1);
    };
    far.cost("find, first", || search(&vault));
    far.cost("find", || search(&vault));
    let restored = |name: &str, path: Option<&[u8]>| {
        let mut options = RestoreOptions::new(last.id, Target::Folder(folder.path().join(name)));
        options.path = path.map(<[u8]>::to_vec);
        restore(&vault, &options, &silent).unwrap().files
    };
    assert_eq!(far.cost("restore, one file", || restored("one", Some(b"top/folder 1/new"))), 1);
    assert!(far.cost("restore, all", || restored("all", None)) > 40);
    let checked = |read_data| {
        let mut options = CheckOptions::new(&now);
        options.read_data = read_data;
        options.threads = THREADS;
        assert!(!check(&vault, &options, &silent).unwrap().is_damaged());
    };
    far.cost("check", || checked(false));
    far.cost("check, all data", || checked(true));
    far.cost("stats", || drop(stats(&vault, None, THREADS, &silent).unwrap()));
    far.cost("repair, nothing to do", || {
        let mut options = RepairOptions::new(&now);
        options.threads = THREADS;
        let plan = repair::plan(&vault, &options, &silent).unwrap();
        assert!(plan.is_empty());
    });
    far.cost("key list", || assert_eq!(keys::list(&vault).unwrap().len(), 2));
    let added = far.cost("key add", || {
        keys::add(&vault, &Secret::password("another one"), Purpose::Password, "new", kdf, now(), &silent).unwrap()
    });
    far.cost("key remove", || keys::remove(&vault, added, When::Known, now(), &silent).unwrap());
    far.cost("key passwd", || {
        let (old, new) = (Secret::password(PASSWORD), Secret::password("a new one"));
        keys::change(&vault, &old, &new, kdf, When::Known, now(), &silent).unwrap();
    });
    let vault = open();
    far.cost("forget", || prune::say(&vault, RecordBody::Forget(vec![first.id]), now(), &silent).unwrap());
    let vault = open();
    let merged = far.cost("prune, small packs together", || pruned(&vault, 1000, f64::INFINITY));
    let vault = open();
    let idle = far.cost("prune, nothing to do", || pruned(&vault, 1000, f64::INFINITY));
    let vault = open();
    far.cost("prune, most of it", || pruned(&vault, 2, 0.0));

    // Another machine stores two files; this machine has one of them as well.
    let other = open_vault(&quick, &folder.path().join("other")).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    for name in ["shared", "their own"] {
        fs::create_dir_all(elsewhere.join(name)).unwrap();
        write(&elsewhere.join(name).join("file"), name.len() as u64 + 100, 9000);
        take(&other, &elsewhere.join(name)).unwrap();
    }
    let vault = open();
    fs::copy(elsewhere.join("shared/file"), source.join("folder 1/shared")).unwrap();
    far.cost("snapshot, on a pack of others", || take(&vault, &source).unwrap());
    let vault = open();
    fs::copy(elsewhere.join("shared/file"), source.join("folder 1/shared again")).unwrap();
    far.cost("snapshot, on the same pack", || take(&vault, &source).unwrap());
    let vault = open();
    let look = || {
        check(
            &vault,
            &{
                let mut options = CheckOptions::new(&now);
                options.threads = THREADS;
                options
            },
            &silent,
        )
    };
    assert_eq!(far.cost("check, packs of others", || look().unwrap().packs_sampled), 3);
    assert_eq!(far.cost("check, packs looked at", || look().unwrap().packs_sampled), 0);

    assert!(merged > SNAPSHOTS as u64 && idle == 0, "{merged} {idle}");
    of_small_vaults(&mut far);
    of_a_machine_without_a_state(&mut far);
    let faults = far.faults();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Number of snapshots in the vault of [`of_small_vaults`].
const FEW: u64 = 20;

/// The commands that need no vault of many snapshots, one after the other at a vault of their own.
fn of_small_vaults(far: &mut Far) {
    *far = Far { costs: std::mem::take(&mut far.costs), ..Far::new() };
    let (store, quick): (Arc<dyn Store>, Arc<dyn Store>) = (far.store(), far.counting.clone());
    let folder = scratch();
    let (source, state) = (folder.path().join("source"), folder.path().join("state"));
    plant(&source);
    let silent = Silent::default();
    create_vault(quick.as_ref(), small_chunks()).unwrap();
    let vault = open_vault(&quick, &state).unwrap();
    for number in 0..FEW {
        write(&source.join("folder 0/changing"), 1000 + number, 3000);
        take(&vault, &source).unwrap();
    }
    drop(vault);
    let vault = open_vault(&store, &state).unwrap();
    let snapshots = vault.snapshots();
    let all: Vec<_> = snapshots.iter().collect();
    let last = snapshots.last().unwrap();

    far.cost("history", || {
        let path = |_: &SnapshotInfo| b"top/folder 0/changing".to_vec();
        let spells = history::history(&vault, &all, &path, &mut Vec::new(), &silent).unwrap();
        assert_eq!(spells.len(), all.len());
    });
    far.cost("du", || {
        let sums = usage::usage(&vault, &last.body.tree, b"", 1, THREADS, &silent).unwrap();
        assert!(sums.total.files > 40);
    });
    far.cost("drill", || {
        let aside = folder.path().join("drill");
        fs::create_dir(&aside).unwrap();
        let mut options = DrillOptions::new(aside, 5);
        options.files = 5;
        options.threads = THREADS;
        let report = drill(&vault, &all, &options, &silent).unwrap();
        assert_eq!(report.failed.len(), 0);
    });
    let mut archive = Vec::new();
    far.cost("export", || assert!(export(&vault, last, b"", &mut archive, &silent).unwrap().files > 40));
    far.cost("pin", || {
        let pin = RecordBody::Pin { snapshots: vec![last.id], pinned: true };
        prune::say(&vault, pin, now(), &silent).unwrap();
    });
    let mut how = RewriteOptions::new(&now);
    how.level = 1;
    how.threads = THREADS;
    let changed = |change: Change| {
        let report = rewrite(&vault, &vault.snapshots(), &change, &how, &silent).unwrap();
        assert_eq!(report.replaced.len(), FEW as usize);
    };
    far.cost("tag, all snapshots", || changed(Change { add_tags: vec!["new".to_owned()], ..Change::default() }));
    far.cost("rewrite, a file out of all snapshots", || {
        changed(Change { exclude: vec!["**/changing".to_owned()], ..Change::default() });
    });
    far.cost("import", || {
        let mut options = ImportOptions::new("archive", &now);
        options.level = 1;
        options.threads = THREADS;
        assert!(import(&vault, &mut archive.as_slice(), &options, &silent).unwrap().id.is_some());
    });
    let view = View::new(Arc::new(open_vault(&store, &state).unwrap()), 16 << 20, &silent).unwrap();
    far.cost("mount and page, a file read", || {
        let entry = browse::find_entry(view.vault(), view.vault().snapshots().last().unwrap(), b"top/folder 1/file 1");
        let file = StoredFile::new(&entry.unwrap()).unwrap();
        assert_eq!(file.read_at(&view, 0, &mut [0; 5000]).unwrap(), 5000);
    });
    drop(view);

    let to = Far::new().store();
    far.cost("mirror, first", || drop(mirror(store.as_ref(), to.as_ref(), &Wanted::default(), &silent).unwrap()));
    far.cost("mirror, nothing new", || {
        assert_eq!(mirror(store.as_ref(), to.as_ref(), &Wanted::default(), &silent).unwrap().copied, 0);
    });
    let other: Arc<dyn Store> = Arc::new(MemStore::new());
    create_vault(other.as_ref(), small_chunks()).unwrap();
    let beside = open_vault(&other, &folder.path().join("beside")).unwrap();
    let mut options = CopyOptions::new(&now);
    options.level = 1;
    options.threads = THREADS;
    let copied = || copy(&vault, &beside, &vault.snapshots(), &options, &silent).unwrap().copied.len() as u64;
    far.cost("copy, as far as it reads", || assert!(copied() > FEW));
    far.cost("copy, nothing new", || assert_eq!(copied(), 0));

    // One pack of data is damaged in the middle, which all data read shows.
    let mem = far.counting.inner();
    let packs = mem.objects().into_iter().filter(|(key, _)| matches!(key, ObjectKey::Named(Kind::Pack, _)));
    let (key, _) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    mem.mutate(&key, |bytes| bytes[400] ^= 1);
    far.cost("repair, a damaged pack", || {
        let mut options = RepairOptions::new(&now);
        options.read_data = true;
        options.threads = THREADS;
        let plan = repair::plan(&vault, &options, &silent).unwrap();
        assert_eq!(repair::execute(&vault, plan, &options, &silent).unwrap().moved_aside, 1);
    });
    far.cost("client retire", || {
        let _ = prune::retire_self(&vault, now(), &silent).unwrap();
    });
    let vault = open_vault(&store, &state).unwrap();
    far.cost("delivery, from direct to synced", || {
        assert!(delivery::set(&vault, Some(Delivery::Synced), now(), &silent).unwrap().changed);
    });
}

/// One file of a vault of 62 packs that one index object describes: a machine that has seen nothing of it asks for that
/// object, and for the packs on the way to the file, but not for the footers of the others.
fn of_a_machine_without_a_state(far: &mut Far) {
    *far = Far { costs: std::mem::take(&mut far.costs), ..Far::new() };
    let (store, quick): (Arc<dyn Store>, Arc<dyn Store>) = (far.store(), far.counting.clone());
    let folder = scratch();
    create_vault(quick.as_ref(), small_chunks()).unwrap();
    let vault = open_vault(&quick, &folder.path().join("state")).unwrap();
    // The sixteenth object of an index is merged with the others, and so is the sixteenth after that.
    for number in 0..31 {
        let source = folder.path().join(format!("source {number}"));
        fs::create_dir_all(source.join("a folder")).unwrap();
        write(&source.join("a folder/file"), number, 5000);
        write(&source.join("another"), 100 + number, 5000);
        take(&vault, &source).unwrap();
    }
    let last = vault.snapshots().last().unwrap().id;
    drop(vault);
    let of = |kinds: &[Kind]| {
        let objects = far.counting.inner().objects().into_iter();
        objects.filter(|(key, _)| matches!(key, ObjectKey::Named(kind, _) if kinds.contains(kind))).count()
    };
    let (packs, indexes) = (of(&[Kind::Pack, Kind::Meta]), of(&[Kind::Index]));
    assert_eq!((packs, indexes), (62, 1));
    let state = folder.path().join("no state yet");
    let vault = far.cost("open to read, without a state", || {
        let options = OpenOptions::new(state.clone(), identity("another"));
        let locked = LockedVault::read(store.as_ref()).unwrap();
        let secret = Secret::raw(&RAW);
        open_locked_to_read(store.clone(), &locked, &secret, options, &Wanted::default(), &Silent::default()).unwrap()
    });
    assert_eq!(vault.unread(), packs);
    let mut options = RestoreOptions::new(last, Target::Folder(folder.path().join("to")));
    options.path = Some(b"top/a folder/file".to_vec());
    let restored = || restore(&vault, &options, &Silent::default()).unwrap().files;
    assert_eq!(far.cost("restore, one file, without a state", restored), 1);
    let (requests, _) = &far.costs["restore, one file, without a state"];
    assert!(requests.total() <= 8, "{requests}");
    // The rules by which files were left out are the same in all snapshots, and in the first meta pack.
    assert_eq!(vault.unread(), packs - 3, "other footers were read");
}

/// A campaign has 10³ packs. A deletion of them is one request, and a catalogue that is made again costs one for each, as many
/// at a time as the store takes, whether or not an index object tells of them.
#[test]
fn many_packs_cost_a_request_each_when_they_are_read_and_none_when_they_go() {
    let snapshots = if campaign() == 0 { 70 } else { 500 };
    let mut far = Far::new();
    let (store, quick): (Arc<dyn Store>, Arc<dyn Store>) = (far.store(), far.counting.clone());
    let folder = scratch();
    create_vault(quick.as_ref(), small_chunks()).unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    let vault = open_vault(&quick, &folder.path().join("state")).unwrap();
    for number in 0..snapshots {
        write(&source.join("changing"), number, 1000);
        take(&vault, &source).unwrap();
    }
    drop(vault);
    let packs = 2 * usize::try_from(snapshots).unwrap();
    let mem = far.counting.inner();
    let indexes = mem.objects().into_iter().filter(|(key, _)| matches!(key, ObjectKey::Named(Kind::Index, _)));
    indexes.for_each(|(key, _)| mem.delete(&key).unwrap());
    drop(far.cost("lost", || open_vault(&store, &folder.path().join("lost")).unwrap()));
    let (requests, rounds) = &far.costs["lost"];
    let footers = [Kind::Pack, Kind::Meta].map(|kind| requests.at(Action::Get, Counted::Folder(kind)));
    assert_eq!(footers.iter().sum::<usize>(), packs, "{requests}");
    // Footers, and half as many records, eight at a time, with some room for threads that begin late.
    assert!(*rounds <= packs * 3 / 2 / 8 * 3 / 2 + 10, "{rounds} round trips for {packs} packs: {requests}");
    // The machine that has put the packs waits for nobody.
    let vault = open_vault(&store, &folder.path().join("state")).unwrap();
    let deleted = far.cost("pruned", || pruned(&vault, 1, 0.0));
    let (requests, _) = &far.costs["pruned"];
    assert!(deleted as usize >= packs - 4, "{deleted} of {packs}");
    // The packs, and what is merged of the log.
    assert!(requests.of(Action::Delete) <= 3, "{requests}");
    assert!(requests.of(Action::Put) <= 12, "{requests}");
}

/// A vault at a far store, with files of 24 MiB of noise in all, which are in two packs.
struct Whole {
    counting: Arc<CountingStore<MemStore>>,
    sleeping: Arc<SleepingStore>,
    folder: TempDir,
}

impl Whole {
    /// With this many files.
    fn new(files: u64) -> Self {
        let counting = Arc::new(CountingStore::new(MemStore::new()));
        let inner: Arc<dyn Store> = counting.clone();
        let limits = StoreLimits { reads: 8, writes: 8, bytes: 64 << 20 };
        let sleeping = SleepingStore::new(inner, limits, || std::thread::sleep(Duration::from_millis(100)));
        let whole = Self { counting, sleeping: Arc::new(sleeping), folder: scratch() };
        let quick: Arc<dyn Store> = whole.counting.clone();
        create_vault(quick.as_ref(), ChunkParams::default()).unwrap();
        let source = whole.path("source");
        fs::create_dir_all(&source).unwrap();
        for number in 0..files {
            write(&source.join(format!("file {number}")), number, (24 << 20) / usize::try_from(files).unwrap());
        }
        take(&open_vault(&quick, &whole.path("state")).unwrap(), &source).unwrap();
        whole
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self) -> Vault {
        let store: Arc<dyn Store> = self.sleeping.clone();
        open_vault(&store, &self.path("state")).unwrap()
    }

    /// Restores everything by one thread; returns what was requested, and the most requests under way together.
    fn restore(&self, vault: &Vault, to: &str) -> (RestoreReport, Requests, usize) {
        let options = RestoreOptions::new(vault.snapshots()[0].id, Target::Folder(self.path(to)));
        self.counting.take();
        self.sleeping.take();
        let report = restore(vault, &options, &Silent::default()).unwrap();
        (report, self.counting.take(), self.sleeping.take().1)
    }
}

#[test]
fn a_restore_reads_neighbours_together_and_as_many_at_a_time_as_the_store_takes() {
    let whole = Whole::new(48);
    let (report, requests, most) = whole.restore(&whole.open(), "to");
    assert_eq!((report.files, report.problem_count), (48, 0));
    // A read has up to 8 MiB, and the first of a pack brings its header.
    let reads = requests.at(Action::Get, Counted::Folder(Kind::Pack));
    assert!((3..=8).contains(&reads), "{requests}");
    assert!(most >= 2, "{most} requests together for one thread");
}

#[test]
fn what_is_wrong_with_one_segment_does_not_keep_its_neighbours_from_being_restored() {
    let whole = Whole::new(48);
    let vault = whole.open();
    let mem = whole.counting.inner();
    let packs = mem.objects().into_iter().filter(|(key, _)| matches!(key, ObjectKey::Named(Kind::Pack, _)));
    let (key, sound) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - (1 << 20));
    let flip = |bytes: &mut Vec<u8>| bytes[5 << 20] ^= 1;
    for (name, damage) in [("cut", &cut as &dyn Fn(&mut Vec<u8>)), ("flipped", &flip)] {
        // A read over several segments fails as a whole if the last of them is cut short; it has some 16 files. How many of
        // them need the megabyte that is cut depends on how two threads have stored them.
        mem.mutate(&key, damage);
        let (report, ..) = whole.restore(&vault, name);
        assert!((1..=12).contains(&report.damage_count), "{name}: {} files", report.damage_count);
        assert_eq!(report.files, 48 - report.damage_count);
        mem.replace(key, sound.clone());
    }
}

#[test]
fn content_that_goes_elsewhere_is_read_ahead() {
    let silent = Silent::default();
    let whole = Whole::new(1);
    let vault = whole.open();
    whole.counting.take();
    whole.sleeping.take();
    let mut out = Vec::new();
    browse::cat(&vault, &vault.snapshots()[0], b"top/file 0", &mut out, &silent).unwrap();
    let (requests, (rounds, _)) = (whole.counting.take(), whole.sleeping.take());
    assert!(out == fs::read(whole.path("source/file 0")).unwrap(), "what was read ahead is not what was asked for");
    // Some twelve segments in two packs. The trees are header and segment of a meta pack.
    let reads = requests.at(Action::Get, Counted::Folder(Kind::Pack));
    assert!(reads <= 10 && rounds <= 7, "cat: {rounds} round trips, {requests}");

    let whole = Whole::new(48);
    let vault = whole.open();
    whole.counting.take();
    whole.sleeping.take();
    let report = export(&vault, &vault.snapshots()[0], b"", &mut std::io::sink(), &silent).unwrap();
    let (requests, (rounds, most)) = (whole.counting.take(), whole.sleeping.take());
    assert_eq!((report.files, report.problem_count), (48, 0));
    // Two threads have stored the files, so that what is read for the first ones has gaps.
    assert!(rounds <= 10 && most > 1, "export: {rounds} round trips, {requests}");
}
