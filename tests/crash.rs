//! Runs that are interrupted, and stores that fail: nothing that was reported is lost, nothing is stored twice, the
//! next snapshot succeeds by itself, and a failing store is never taken for a failing source file.
//!
//! By default one small source and every write; with `VAULT_CAMPAIGN=n` n other sources, and every operation.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault::engine::snapshot::SnapshotError;
use vault::log::RecordError;
use vault::pack::PackError;
use vault::store::testing::faulty::{Fault, FaultyStore, Leaves};
use vault::store::testing::mem::{MemState, MemStore};
use vault::store::{ObjectKey, Store, StoreError};
use vault::vault::{ReadError, Vault, VaultError};

use crate::support::model::{Model, assert_same, of_disk, of_snapshot};
use crate::support::source::{Size, bytes, plant, write};
use crate::support::{
    World, campaign, check_all, copies, copy_folder, create_vault, open_vault, scratch, small_chunks, take,
};

/// A vault with a snapshot, and a source that has changed since.
struct Fixture {
    world: World,
    clean: MemState,
    /// The present content of the source.
    now: Model,
}

/// The run that is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// The first run of a new vault.
    First,
    /// A later run.
    Second,
}

fn fixture(seed: u64, run: Run, large: bool) -> Fixture {
    let mut world = World::new(if large { vault::chunk::ChunkParams::default() } else { small_chunks() });
    plant(&world.source(), seed, Size::Tiny);
    if run == Run::Second {
        world.take();
        fs::rename(world.source().join("folder 1"), world.source().join("renamed")).unwrap();
        write(&world.source().join("folder 2/file 3.bin"), seed + 1, 5_000);
        write(&world.source().join("new"), seed + 2, 150_000);
    }
    if large {
        // More than one pack, of data that does not compress.
        fs::write(world.source().join("large"), bytes(seed & !1, 40 << 20)).unwrap();
    }
    let now = of_disk(&world.source(), b"top");
    if world.state().exists() {
        copy_folder(&world.state(), &world.folder.path().join("saved"));
    }
    Fixture { clean: world.store.snapshot(), now, world }
}

impl Fixture {
    /// A copy of the store, and this machine's state as it was.
    fn copy(&self) -> (Arc<FaultyStore<MemStore>>, PathBuf) {
        // The place of the state is a part of a client's identity, so it stays.
        let state = self.world.state();
        fs::remove_dir_all(&state).unwrap_or_default();
        let saved = self.world.folder.path().join("saved");
        if saved.exists() {
            copy_folder(&saved, &state);
        }
        (Arc::new(FaultyStore::new(MemStore::from_state(self.clean.clone()))), state)
    }

    /// After a failure: everything reported is there, the next snapshot succeeds, nothing is stored twice.
    fn check_survivor(&self, store: &Arc<FaultyStore<MemStore>>, state: &Path, what: &str) {
        store.heal();
        let vault = open(store, state).unwrap_or_else(|error| panic!("{what}: {error}"));
        check_all(&vault, &self.world.expected);
        // A record whose acknowledgement was lost may have appeared: then the snapshot is whole.
        for snapshot in vault.snapshots().iter().filter(|snapshot| !self.world.expected.contains_key(&snapshot.id)) {
            let read = of_snapshot(&vault, &snapshot.body);
            assert!(read.errors.is_empty(), "{what}: {:?}", read.errors);
            assert_same(&self.now, &read.nodes, what);
        }
        let report = take(&vault, &self.world.source()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(report.skipped.is_empty(), "{what}: {:?}", report.skipped);
        assert_eq!(vault.findings(), [], "{what}");
        let id = report.id.unwrap();
        if state == self.world.state() {
            assert_eq!(vault.chains().clients.len(), 1, "{what}: a client lost itself");
        }
        drop(vault);
        // The store alone is enough for a machine that knows nothing.
        let elsewhere = scratch();
        let vault = open(store, elsewhere.path()).unwrap();
        check_all(&vault, &self.world.expected);
        let read = of_snapshot(&vault, &vault.snapshot(&id).unwrap().body);
        assert!(read.errors.is_empty(), "{what}: {:?}", read.errors);
        assert_same(&self.now, &read.nodes, what);
        assert_eq!(copies(&vault), 0, "{what}: chunks were stored twice");
    }
}

fn open(store: &Arc<FaultyStore<MemStore>>, state: &Path) -> Result<Vault, VaultError> {
    let shared: Arc<dyn Store> = store.clone();
    open_vault(&shared, state)
}

/// Opens, and takes a snapshot.
fn run(store: &Arc<FaultyStore<MemStore>>, state: &Path, source: &Path) -> Result<(), SnapshotError> {
    let vault = open(store, state)?;
    let report = take(&vault, source)?;
    assert!(report.skipped.is_empty(), "an error of the store was taken for one of the source: {:?}", report.skipped);
    Ok(())
}

/// The error of the store inside, if it is one.
fn store_error(error: &SnapshotError) -> Option<&StoreError> {
    match error {
        SnapshotError::Vault(
            VaultError::Store(error)
            | VaultError::Record(RecordError::Store(error))
            | VaultError::Pack(PackError::Store(error)),
        )
        | SnapshotError::Read(ReadError::Pack(PackError::Store(error))) => Some(error),
        _ => None,
    }
}

#[track_caller]
fn assert_store_error(error: &SnapshotError, what: &str) {
    assert!(store_error(error).is_some(), "{what}: the error should be the store's, but is: {error:?}");
}

/// Cuts the power at every write of a run in turn. Returns the number of cut runs.
fn cut_everywhere(fixture: &Fixture, leaves: Leaves) -> u64 {
    for write in 0.. {
        let what = format!("cut at write {write}, leaving {leaves:?}");
        let (store, state) = fixture.copy();
        store.add(Fault::CutAtWrite { write, leaves });
        let result = run(&store, &state, &fixture.world.source());
        let put_by_cut = store.counts().bytes_put;
        let is_done = result.is_ok();
        match result {
            Ok(()) => assert!(write > 2, "there are some writes"),
            Err(error) => assert_store_error(&error, &what),
        }
        fixture.check_survivor(&store, &state, &what);
        if is_done {
            return write;
        }
        assert!(put_by_cut <= store.counts().bytes_put);
    }
    unreachable!()
}

#[test]
fn a_run_cut_at_any_write_loses_and_repeats_nothing() {
    let mut cuts = 0;
    for seed in 0..=campaign() {
        for run in [Run::First, Run::Second] {
            let fixture = fixture(seed, run, false);
            for leaves in [Leaves::Nothing, Leaves::Half, Leaves::Whole] {
                cuts += cut_everywhere(&fixture, leaves);
            }
        }
    }
    println!("runs cut at a write: {cuts}");
}

#[test]
fn a_run_of_several_packs_cut_at_any_write_uploads_nothing_twice() {
    let fixture = fixture(1, Run::Second, true);
    let whole = {
        let (store, state) = fixture.copy();
        run(&store, &state, &fixture.world.source()).unwrap();
        store.counts()
    };
    let modes: &[Leaves] =
        if campaign() > 0 { &[Leaves::Nothing, Leaves::Half, Leaves::Whole] } else { &[Leaves::Nothing] };
    for leaves in modes {
        for write in 0..whole.writes {
            let what = format!("cut at write {write}, leaving {leaves:?}");
            let (store, state) = fixture.copy();
            store.add(Fault::CutAtWrite { write, leaves: *leaves });
            match run(&store, &state, &fixture.world.source()) {
                Ok(()) => assert_eq!(write + 1, whole.writes, "only the index object comes after the record"),
                Err(error) => assert_store_error(&error, &what),
            }
            let put = store.counts().bytes_put;
            fixture.check_survivor(&store, &state, &what);
            let again = store.counts().bytes_put - put;
            // Only new data, and the padding of the last packs, which is random.
            assert!(again + put < whole.bytes_put + whole.bytes_put / 8 + (1 << 18), "{what}: {again} after {put}");
        }
    }
}

#[test]
fn the_state_lost_after_a_cut_changes_nothing() {
    let fixture = fixture(3, Run::Second, false);
    let mut write = 0;
    loop {
        let (store, state) = fixture.copy();
        store.add(Fault::CutAtWrite { write, leaves: Leaves::Nothing });
        let done = run(&store, &state, &fixture.world.source()).is_ok();
        let other = scratch();
        fixture.check_survivor(&store, other.path(), &format!("cut at write {write}, then the state was lost"));
        write += 1;
        if done {
            break;
        }
    }
}

#[test]
fn a_full_store_is_said_to_be_full_and_loses_nothing() {
    let fixture = fixture(4, Run::Second, false);
    let whole = {
        let (store, state) = fixture.copy();
        run(&store, &state, &fixture.world.source()).unwrap();
        store.counts().bytes_put
    };
    let step = if campaign() > 0 { whole / 200 } else { whole / 9 };
    let mut full = 0;
    for room in (0..whole).step_by(usize::try_from(step).unwrap()) {
        let what = format!("full after {room} bytes");
        let (store, state) = fixture.copy();
        store.add(Fault::FullAfter(room));
        match run(&store, &state, &fixture.world.source()) {
            Ok(()) => continue, // the padding is random: it fitted
            Err(error) => {
                assert!(matches!(store_error(&error), Some(StoreError::Full { .. })), "{what}: {error:?}");
            }
        }
        full += 1;
        fixture.check_survivor(&store, &state, &what);
    }
    assert!(full > 3);
    println!("stores that became full: {full}");
}

/// Every operation of opening and of the snapshot fails once, with a warm catalogue and without one.
#[test]
fn an_operation_that_fails_once_loses_nothing() {
    let fixture = fixture(5, Run::Second, false);
    let (mut failed, mut survived) = (0, 0);
    for warm in [true, false] {
        for operation in 0.. {
            let what = format!("operation {operation} failed, warm {warm}");
            let (store, state) = fixture.copy();
            let elsewhere = scratch();
            let (state, clients) = if warm { (state.as_path(), 1) } else { (elsewhere.path(), 2) };
            store.add(Fault::FailAtOperation(operation));
            let result = run(&store, state, &fixture.world.source());
            let reached = store.counts().operations > operation;
            match result {
                Ok(()) => survived += u64::from(reached),
                Err(error) => {
                    assert_store_error(&error, &what);
                    failed += 1;
                }
            }
            check_after_failure(&fixture, &store, state, clients, &what);
            if !reached {
                break;
            }
        }
    }
    println!("operations that failed once: {failed} ended the run, {survived} did not");
}

/// As [`Fixture::check_survivor`], but data that could not be read once may have been stored again.
fn check_after_failure(
    fixture: &Fixture,
    store: &Arc<FaultyStore<MemStore>>,
    state: &Path,
    clients: usize,
    what: &str,
) {
    store.heal();
    let vault = open(store, state).unwrap_or_else(|error| panic!("{what}: {error}"));
    check_all(&vault, &fixture.world.expected);
    assert!(vault.bad_objects().is_empty(), "{what}: {:?}", vault.bad_objects());
    let report = take(&vault, &fixture.world.source()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let id = report.id.unwrap();
    for snapshot in vault.snapshots().iter().filter(|snapshot| !fixture.world.expected.contains_key(&snapshot.id)) {
        let read = of_snapshot(&vault, &snapshot.body);
        assert!(read.errors.is_empty(), "{what}: {:?}", read.errors);
        assert_same(&fixture.now, &read.nodes, what);
    }
    assert!(vault.snapshot(&id).is_some());
    assert_eq!(vault.chains().clients.len(), clients, "{what}: a client lost itself");
}

#[test]
fn a_list_that_is_cut_is_never_taken_for_a_whole_one() {
    let fixture = fixture(6, Run::Second, false);
    for entries in 0..3 {
        let (store, state) = fixture.copy();
        store.add(Fault::CutListsAfter(entries));
        let error = run(&store, &state, &fixture.world.source()).unwrap_err();
        assert_store_error(&error, &format!("lists cut after {entries}"));
        fixture.check_survivor(&store, &state, &format!("lists cut after {entries}"));
    }
    let (store, state) = fixture.copy();
    store.add(Fault::ReverseLists);
    run(&store, &state, &fixture.world.source()).unwrap();
}

#[test]
fn a_vault_whose_making_was_cut_is_finished_by_whoever_comes_next() {
    for leaves in [Leaves::Nothing, Leaves::Whole] {
        for write in 0..5 {
            let store = Arc::new(FaultyStore::new(MemStore::new()).with(Fault::CutAtWrite { write, leaves }));
            assert!(create_vault(store.as_ref(), small_chunks()).is_err());
            store.heal();
            let world = World::new(small_chunks());
            plant(&world.source(), 7, Size::Tiny);
            let secret = vault::seal::Secret::password(crate::support::PASSWORD);
            let shared: Arc<dyn Store> = store.clone();
            match crate::support::open_as(&shared, &world.state(), &secret, "machine") {
                Ok(vault) => {
                    take(&vault, &world.source()).unwrap();
                    assert!(store.len(&ObjectKey::Vault).is_ok(), "the VAULT file exists again");
                }
                Err(VaultError::NoVault { .. }) => {
                    create_vault(store.as_ref(), small_chunks()).unwrap();
                }
                Err(error) => panic!("cut at write {write}, leaving {leaves:?}: {error}"),
            }
        }
    }
}
