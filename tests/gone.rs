//! Readers that the vault does not know, so that no prune waits for them, while another machine drops the snapshot that
//! they read, or moves its data. Before each read in turn, the other machine prunes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tempfile::TempDir;

use vault::engine::archive::export::export;
use vault::engine::check::drill::{DrillOptions, drill};
use vault::engine::check::{CheckOptions, check};
use vault::engine::copy::{CopyOptions, Left, copy};
use vault::engine::patterns::glob::Pattern;
use vault::engine::query::find::{Search, find};
use vault::engine::query::{browse, history, usage};
use vault::engine::restore::{RestoreOptions, Target, restore};
use vault::engine::stats::stats;
use vault::failure::{Exit, Failure};
use vault::id::ObjectName;
use vault::progress::Silent;
use vault::read::View;
use vault::store::gated::GatedStore;
use vault::store::testing::faulty::{Fault, FaultyStore};
use vault::store::testing::mem::{MemState, MemStore};
use vault::store::{Kind, ObjectKey, Store};
use vault::vault::{SnapshotInfo, Vault};

use crate::support::model::{self, Model};
use crate::support::source::{Size, bytes, plant};
use crate::support::{
    THREADS, World, campaign, copy_folder, create_vault, now, open_vault, prune_to_last, scratch, small_chunks,
};

/// The work of a reader; `Err` if it cannot be done as a whole. What is damaged or left out fails the test.
type Work = fn(&Vault, &SnapshotInfo, &Path) -> Result<(), Failure>;

/// Work on one snapshot.
const ON_ONE: &[(&str, Work)] = &[
    ("restore", |vault, info, folder| {
        let mut options = RestoreOptions::new(info.id, Target::Folder(folder.join("back")));
        options.threads = THREADS;
        let report = restore(vault, &options, &Silent::default())?;
        assert!(report.problems.is_empty() && report.damage_count == 0, "{:?}", report.problems);
        Ok(())
    }),
    ("export", |vault, info, _| {
        let report = export(vault, info, b"", &mut io::sink(), &Silent::default())?;
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        Ok(())
    }),
    ("cat", |vault, info, _| {
        for path in ["top/extra 0", "top/extra 1", "top/extra 2", "top/extra 3"] {
            browse::cat(vault, info, path.as_bytes(), &mut io::sink(), &Silent::default())?;
        }
        Ok(())
    }),
    ("ls", |vault, info, _| Ok(browse::list(vault, info, b"", true, &mut |_, _| true)?)),
    ("du", |vault, info, _| {
        let sums = usage::usage(vault, &info.body.tree, b"", 1, THREADS, &Silent::default())?;
        match sums.broken {
            None => Ok(()),
            Some((_, error)) => Err(vault.judged(error, &info.id).into()),
        }
    }),
];

/// Work on all snapshots: it goes on without those that are dropped.
const ON_ALL: &[(&str, Work)] = &[
    ("find", |vault, _, _| {
        let snapshots = vault.snapshots();
        let all: Vec<_> = snapshots.iter().collect();
        let (pattern, mut count) = (Pattern::new(b"extra*", false), 0);
        let search = Search { pattern: &pattern, all: true, otherwise: None };
        let found = find(vault, &all, &search, THREADS, &Silent::default(), &mut |_| {
            count += 1;
            true
        })?;
        assert!(found.broken.is_empty(), "{:?}", found.broken);
        assert_eq!(count, 4);
        Ok(())
    }),
    ("history", |vault, _, _| {
        let (snapshots, mut broken) = (vault.snapshots(), Vec::new());
        let all: Vec<_> = snapshots.iter().collect();
        let path = |_: &SnapshotInfo| b"top/extra 0".to_vec();
        let spells = history::history(vault, &all, &path, &mut broken, &Silent::default())?;
        assert!(broken.iter().all(|error| error.gone().is_some()), "{broken:?}");
        assert!(!spells.is_empty());
        Ok(())
    }),
    ("check", |vault, _, _| {
        let mut options = CheckOptions::new(&now);
        options.read_data = true;
        options.threads = THREADS;
        let report = check(vault, &options, &Silent::default())?;
        assert!(!report.is_damaged() && !report.has_remarks(), "{report:?}");
        Ok(())
    }),
    ("stats", |vault, _, _| {
        let stats = stats(vault, None, THREADS, &Silent::default())?;
        assert_eq!((stats.unreadable, stats.late, stats.newer), (0, 0, 0));
        Ok(())
    }),
    ("drill", |vault, _, folder| {
        let snapshots = vault.snapshots();
        let all: Vec<_> = snapshots.iter().collect();
        let mut options = DrillOptions::new(folder.join("drill"), 5);
        options.files = 5;
        options.threads = THREADS;
        let report = drill(vault, &all, &options, &Silent::default())?;
        assert!(report.failed.is_empty() && report.broken == 0 && report.files > 0, "{report:?}");
        Ok(())
    }),
];

struct Fixture {
    world: World,
    clean: MemState,
}

/// Three snapshots, each with content of its own and some that the next one has, too.
fn fixture(seed: u64) -> Fixture {
    let mut world = World::new(small_chunks());
    plant(&world.source(), seed, Size::Tiny);
    for round in 0..3 {
        for file in 0..4 {
            let own = bytes(seed + (round + 1) * 10 + file, 20_000);
            fs::write(world.source().join(format!("extra {file}")), own).unwrap();
            fs::create_dir_all(world.source().join(format!("folder {round}/{file}"))).unwrap();
            let path = format!("folder {round}/{file}/kept");
            fs::write(world.source().join(path), bytes(seed + round * 4 + file, 9_000)).unwrap();
        }
        world.take();
    }
    copy_folder(&world.state(), &world.folder.path().join("saved"));
    Fixture { clean: world.store.snapshot(), world }
}

/// A reader, and the other machine.
struct Case {
    folder: TempDir,
    store: Arc<dyn Store>,
    vault: Vault,
    /// The number of reads until the other machine prunes.
    wait: Arc<AtomicU64>,
    has_pruned: Arc<AtomicU64>,
}

/// A number of reads that never comes.
const NEVER: u64 = u64::MAX / 2;

fn prune_by(store: &MemStore, state: &Path) {
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let vault = open_vault(&shared, state).unwrap();
    let report = prune_to_last(&vault).unwrap();
    assert!(report.packs_deleted > 0, "{report:?}");
}

impl Fixture {
    fn case(&self) -> Case {
        let folder = scratch();
        // A state folder elsewhere would be that of another client.
        let (store, pruner) = (MemStore::from_state(self.clean.clone()), self.world.state());
        fs::remove_dir_all(&pruner).unwrap_or_default();
        copy_folder(&self.world.folder.path().join("saved"), &pruner);
        let (wait, has_pruned) = (Arc::new(AtomicU64::new(NEVER)), Arc::new(AtomicU64::new(0)));
        let read = {
            let (wait, has_pruned, store) = (wait.clone(), has_pruned.clone(), store.clone());
            let at_once: Mutex<()> = Mutex::default();
            move |_: usize| {
                let _others_wait = at_once.lock().unwrap();
                if wait.fetch_sub(1, Relaxed) == 0 {
                    // Not on a thread of the reader's pool, which would take up other work of the reader while it waits.
                    std::thread::scope(|scope| scope.spawn(|| prune_by(&store, &pruner)).join().unwrap());
                    has_pruned.store(1, Relaxed);
                }
            }
        };
        let shared: Arc<dyn Store> = Arc::new(GatedStore::reading(Arc::new(store), read));
        let vault = open_vault(&shared, &folder.path().join("reader")).unwrap();
        Case { folder, store: shared, vault, wait, has_pruned }
    }

    fn ids(&self) -> (ObjectName, ObjectName) {
        let snapshots = self.world.open().snapshots();
        (snapshots.first().unwrap().id, snapshots.last().unwrap().id)
    }
}

impl Case {
    fn is_over(&self) -> bool {
        self.has_pruned.load(Relaxed) == 0
    }

    /// Nothing that the reader met is remembered as damage, by it or by the next command.
    #[track_caller]
    fn check_nothing_noted(self, what: &str) {
        assert!(self.vault.known_findings(now()).unwrap().is_empty(), "{what}");
        let Self { folder, store, vault, .. } = self;
        drop(vault);
        let vault = open_vault(&store, &folder.path().join("reader")).unwrap();
        let known = vault.known_findings(now()).unwrap();
        assert!(known.is_empty(), "{what}: {known:?}");
    }
}

/// Calls `with` with a case in which the other machine prunes before the n-th read, for more and more n, until the work
/// is done before.
fn at_each_read(fixture: &Fixture, mut with: impl FnMut(Case, u64) -> bool) -> u64 {
    let (mut cases, mut at) = (0, 0);
    loop {
        let case = fixture.case();
        case.wait.store(at, Relaxed);
        if with(case, at) {
            return cases;
        }
        cases += 1;
        at += if campaign() > 0 { 1 } else { 1 + at / 6 };
    }
}

#[test]
fn a_snapshot_that_is_dropped_while_it_is_read_is_no_damage() {
    let fixture = fixture(1);
    let (first, _) = fixture.ids();
    for (name, work) in ON_ONE {
        let mut dropped = 0;
        let cases = at_each_read(&fixture, |case, at| {
            let what = format!("{name}, at read {at}");
            let info = case.vault.snapshot(&first).unwrap();
            match work(&case.vault, &info, case.folder.path()) {
                Ok(()) => {}
                Err(failure) => {
                    let words = format!("snapshot {} was dropped meanwhile by another machine", first.short());
                    assert_eq!((failure.exit, failure.what), (Exit::Failed, words), "{what}");
                    dropped += 1;
                }
            }
            let is_over = case.is_over();
            case.check_nothing_noted(&what);
            is_over
        });
        assert!(cases > 0 && dropped > 0, "{name}: {cases} cases, {dropped} dropped");
    }
}

/// Checks that this work on the last snapshot ends well, at whichever read the others are dropped. Returns the number of cases.
fn all_goes_well(fixture: &Fixture, (name, work): &(&str, Work)) -> u64 {
    let (_, last) = fixture.ids();
    at_each_read(fixture, |case, at| {
        let what = format!("{name}, at read {at}");
        let info = case.vault.snapshot(&last).unwrap();
        work(&case.vault, &info, case.folder.path()).unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
        let is_over = case.is_over();
        case.check_nothing_noted(&what);
        is_over
    })
}

#[test]
fn what_is_moved_while_it_is_read_is_found_at_its_new_place() {
    let fixture = fixture(2);
    for work in ON_ONE {
        all_goes_well(&fixture, work);
    }
}

#[test]
fn work_on_all_snapshots_goes_on_without_those_that_are_dropped_meanwhile() {
    let fixture = fixture(3);
    for work in ON_ALL {
        let cases = all_goes_well(&fixture, work);
        assert!(cases > 1, "{}: {cases}", work.0);
    }
}

#[test]
fn no_part_of_a_snapshot_that_is_dropped_meanwhile_is_copied() {
    let fixture = fixture(4);
    let mut left_out = 0;
    at_each_read(&fixture, |case, at| {
        let what = format!("copy, at read {at}");
        let (other, state) = (MemStore::new(), case.folder.path().join("other"));
        create_vault(&other, small_chunks()).unwrap();
        let shared: Arc<dyn Store> = Arc::new(other);
        let to = open_vault(&shared, &state).unwrap();
        let mut options = CopyOptions::new(&now);
        options.level = 1;
        options.threads = THREADS;
        let wanted = case.vault.snapshots();
        let report = copy(&case.vault, &to, &wanted, &options, &Silent::default()).unwrap();
        assert!(report.left.iter().all(|left| left.why == Left::Gone), "{what}: {:?}", report.left);
        assert!(report.copied.iter().all(|copied| copied.lost.is_empty()), "{what}");
        left_out += report.left.len();
        let expected: &BTreeMap<ObjectName, Model> = &fixture.world.expected;
        let copies = to.snapshots();
        assert!(copies.len() + report.left.len() >= 1 && copies.len() == report.copied.len(), "{what}");
        for info in copies {
            let origin = info.body.origin.clone().unwrap();
            assert!(!origin.partial, "{what}");
            let read = model::of_snapshot(&to, &info.body);
            assert!(read.errors.is_empty(), "{what}: {:?}", read.errors);
            model::assert_same(&expected[&origin.snapshot], &read.nodes, &what);
        }
        let is_over = case.is_over();
        case.check_nothing_noted(&what);
        is_over
    });
    assert!(left_out > 0);
}

#[test]
fn what_a_store_does_not_show_for_a_moment_is_there_again_for_those_who_go_on_reading() {
    let mut world = World::new(small_chunks());
    plant(&world.source(), 1, Size::Tiny);
    fs::write(world.source().join("only this"), bytes(1, 5000)).unwrap();
    let id = world.take();
    let store = Arc::new(FaultyStore::new(world.store.clone()));
    let shared: Arc<dyn Store> = store.clone();
    let vault = Arc::new(open_vault(&shared, &world.folder.path().join("reader")).unwrap());
    let view = View::new(vault, 1 << 20, &Silent::default()).unwrap();
    let info = view.vault().snapshot(&id).unwrap();
    let file = browse::find_entry(view.vault(), &info, b"top/only this").unwrap();
    let chunk = file.content.unwrap().ids[0];
    let found = || {
        let (mut paths, pattern) = (0, Pattern::new(b"only this", false));
        let search = Search { pattern: &pattern, all: false, otherwise: None };
        let mut count = |_| {
            paths += 1;
            true
        };
        let found = find(view.vault(), &[&info], &search, THREADS, &Silent::default(), &mut count).unwrap();
        (found.broken.len(), paths)
    };
    assert!(view.chunk(&chunk).is_ok());
    for (key, _) in world.store.objects() {
        if matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _)) {
            store.add(Fault::Hide(key));
        }
    }
    // The log changes, so that the packs are listed.
    fs::write(world.source().join("more"), bytes(2, 5000)).unwrap();
    world.take();
    view.renew(&Silent::default()).unwrap();
    assert!(view.chunk(&chunk).is_err(), "the catalogue has let go of it");
    assert_eq!(found(), (1, 0));
    store.heal();
    // Nobody writes, so the log stays as it is.
    view.renew(&Silent::default()).unwrap();
    assert!(view.chunk(&chunk).is_ok());
    assert_eq!(found(), (0, 1));
}
