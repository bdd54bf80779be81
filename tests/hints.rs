//! Index objects, which tell which pack has which chunk: a machine without a state reads little through them, and
//! nothing ever depends on them. Whatever they say, and whatever happens to them, all data is read as it was stored.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use vault::engine::check::{CheckOptions, CheckReport, check};
use vault::engine::prune::collect::{CollectOptions, collect};
use vault::engine::query::browse;
use vault::engine::repair::{RepairOptions, execute, plan};
use vault::engine::restore::{RestoreError, RestoreOptions, Target, restore};
use vault::id::{ChunkId, ObjectName};
use vault::log::{Format, RecordBody};
use vault::pack::index::{Hint, IndexBuilder, IndexReader, IndexedPack, key};
use vault::progress::Silent;
use vault::seal::{IndexSection, ObjectKind, Secret};
use vault::store::dir::DirStore;
use vault::store::gated::GatedStore;
use vault::store::testing::counting::{Action, CountingStore, Target as At};
use vault::store::testing::faulty::{Fault, FaultyStore};
use vault::store::testing::mem::{MemState, MemStore};
use vault::store::{Delivery, Kind, Listed, ObjectKey, Pending, Store, StoreError, StoreLimits, Subject};
use vault::vault::open::open_locked_to_read;
use vault::vault::{LockedVault, ObjectState, OpenOptions, Vault, VaultError, Wanted};

use crate::support::model::{of_disk, of_snapshot};
use crate::support::source::bytes;
use crate::support::{
    RAW, THREADS, World, check_all, copy_folder, create_vault, identity, now, open_vault, scratch, small_chunks, take,
};

/// Number of snapshots, each of which puts a pack and a meta pack.
const SNAPSHOTS: u64 = 36;

fn world() -> World {
    let mut world = World::new(small_chunks());
    let vault = world.open();
    for number in 0..SNAPSHOTS {
        let folder = world.source().join(format!("{number}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), bytes(number, 5000)).unwrap();
        let id = take(&vault, &world.source()).unwrap().id.unwrap();
        // Some of them are read again.
        if number % 9 == 8 {
            world.expected.insert(id, of_disk(&world.source(), b"top"));
        }
    }
    world
}

/// Opens a vault only for reading.
fn look(store: Arc<dyn Store>, state: &TempDir) -> Vault {
    let options = OpenOptions::new(state.path().to_owned(), identity("other"));
    let locked = LockedVault::read(store.as_ref()).unwrap();
    open_locked_to_read(store, &locked, &Secret::raw(&RAW), options, &Wanted::default(), &Silent::default()).unwrap()
}

fn objects(store: &MemStore, kind: Kind) -> Vec<ObjectName> {
    let names = store.objects().into_iter().filter_map(|(key, _)| match key {
        ObjectKey::Named(of, name) if of == kind => Some(name),
        _ => None,
    });
    names.collect()
}

fn check_vault(vault: &Vault, read_data: bool) -> CheckReport {
    let mut options = CheckOptions::new(&now);
    options.read_data = read_data;
    options.threads = THREADS;
    check(vault, &options, &Silent::default()).unwrap()
}

fn prune(vault: &Vault) {
    let session = vault.begin_writing(now(), &Silent::default()).unwrap();
    let mut options = CollectOptions::new(&now);
    options.max_unused = 0.0;
    options.level = 1;
    options.threads = THREADS;
    collect(vault, &session, &options, &Silent::default()).unwrap();
}

/// The packs that all index objects together describe.
fn described(vault: &Vault, store: &MemStore) -> Vec<ObjectName> {
    let reader = IndexReader::new(vault.store(), vault.keys());
    let mut packs = Vec::new();
    for name in objects(store, Kind::Index) {
        let len = vault.store().len(&key(name)).unwrap();
        if let Ok(head) = reader.head(name, len) {
            packs.extend(reader.packs(&head).unwrap().into_iter().map(|pack| pack.name));
        }
    }
    packs.sort_unstable();
    packs.dedup();
    packs
}

fn packs(store: &MemStore) -> Vec<ObjectName> {
    let mut packs = objects(store, Kind::Pack);
    packs.extend(objects(store, Kind::Meta));
    packs.sort_unstable();
    packs
}

/// Work on a vault, which ends early if the line is cut.
type Work<'w> = &'w dyn Fn(&Vault, &TempDir) -> Result<(), Option<String>>;

#[test]
fn footers_that_a_cut_line_keeps_from_being_read_are_read_later() {
    // The trees are in one pack, and the content is in many.
    let world = World::new(small_chunks());
    let writer = world.open();
    for number in 0..SNAPSHOTS {
        fs::write(world.source().join(format!("{number}")), bytes(number, 5000)).unwrap();
        take(&writer, &world.source()).unwrap();
    }
    let whole = |vault: &Vault, to: &TempDir| {
        let id = vault.snapshots().pop().unwrap().id;
        let target = Target::Folder(to.path().join("restored"));
        let _ = fs::remove_dir_all(to.path().join("restored"));
        match restore(vault, &RestoreOptions::new(id, target), &Silent::default()) {
            Ok(report) => {
                assert_eq!((report.files, report.problems.len()), (SNAPSHOTS, 0), "{:?}", report.problems.first());
                Ok(())
            }
            Err(RestoreError::Store(_)) => Err(None),
            Err(error) => Err(Some(error.to_string())),
        }
    };
    let all = |vault: &Vault, _: &TempDir| match vault.know_all(&Silent::default()) {
        Ok(()) => Ok(()),
        Err(VaultError::Store(_)) => Err(None),
        Err(error) => Err(Some(error.to_string())),
    };
    let works: [(&str, Work<'_>); 2] = [("all", &all), ("restore", &whole)];
    for (what, work) in works {
        for cut in (0..).map(|number| number * 5) {
            let state = scratch();
            let store = Arc::new(FaultyStore::new(world.store.clone()));
            let vault = look(store.clone(), &state);
            let last = vault.snapshots().pop().unwrap();
            browse::list(&vault, &last, b"", true, &mut |_, _| true).unwrap();
            assert!(vault.unread() > 30);
            store.add(Fault::CutLineAt(store.counts().operations + cut));
            let done = work(&vault, &state);
            store.heal();
            assert_eq!(whole(&vault, &state), Ok(()), "{what}, {cut}");
            let Err(other) = done else {
                assert!(cut > 0, "{what} needs the store");
                break;
            };
            assert_eq!(other, None, "{what}, {cut}");
        }
    }
}

#[test]
fn a_machine_without_a_state_restores_a_file_with_few_requests() {
    let world = world();
    let indexes = objects(&world.store, Kind::Index).len();
    assert!((1..=16).contains(&indexes), "{indexes}");
    assert_eq!(described(&world.open(), &world.store), packs(&world.store));

    let state = scratch();
    let store = Arc::new(CountingStore::new(world.store.clone()));
    let vault = look(store.clone(), &state);
    let opened = store.take();
    // Key slots, VAULT and records; no pack.
    let records = objects(&world.store, Kind::Log).len();
    assert!(opened.of(Action::Get) <= records + 5, "{opened}");
    for kind in [Kind::Pack, Kind::Meta, Kind::Index] {
        assert_eq!(opened.at(Action::Get, At::Folder(kind)), 0, "{opened}");
    }
    let all = vault.unread();
    assert_eq!(all, packs(&world.store).len());

    let last = vault.snapshots().last().unwrap().id;
    let target = scratch();
    let mut options = RestoreOptions::new(last, Target::Folder(target.path().to_owned()));
    options.path = Some(b"top/7/file".to_vec());
    restore(&vault, &options, &Silent::default()).unwrap();
    assert_eq!(fs::read(target.path().join("file")).unwrap(), bytes(7, 5000));
    let (restored, read) = (store.take(), store.take_read());
    // Fence tables, and for each of a few packs: a range of an index object, the footer, the header, a segment.
    assert!(restored.of(Action::Get) <= indexes + 40 && restored.of(Action::List) == 0, "{restored}");
    assert!(read < 1 << 20, "{read}");
    assert!(vault.unread() > all / 2, "{} of {all}", vault.unread());
    drop(vault);

    // The footers read so far are remembered; the rest is found as well, and in the end all are known.
    let vault = look(store.clone(), &state);
    assert!(vault.unread() > all / 2 && vault.unread() < all);
    check_all(&vault, &world.expected);
    vault.know_all(&Silent::default()).unwrap();
    assert_eq!(vault.unread(), 0);
    check_all(&vault, &world.expected);
}

/// Changes the bytes of all index objects of a world.
type Lie = (&'static str, fn(&World, &Vault));

fn replace_all(world: &World, change: impl Fn(&mut Vec<u8>)) {
    for name in objects(&world.store, Kind::Index) {
        world.store.mutate(&key(name), |bytes| change(bytes));
    }
}

/// Puts an object that describes all packs, with these entries for each chunk of each.
fn put_instead(world: &World, vault: &Vault, say: impl Fn(ChunkId, ObjectName) -> Option<Hint>) {
    put_of_lengths(world, vault, |len| len, say);
}

/// As [`put_instead`], with these lengths of the packs.
fn put_of_lengths(
    world: &World,
    vault: &Vault,
    long: impl Fn(u64) -> u64,
    say: impl Fn(ChunkId, ObjectName) -> Option<Hint>,
) {
    for name in objects(&world.store, Kind::Index) {
        world.store.remove(&key(name));
    }
    let reader = vault.catalogue().reader().unwrap();
    let infos = reader.packs().unwrap();
    let mut hints = Vec::new();
    reader.for_each_chunk(|id, place| hints.extend(say(id, infos[&place.pack].name))).unwrap();
    hints.sort_unstable();
    let mut builder = IndexBuilder::new(vault.keys(), hints.len() as u64).unwrap();
    hints.into_iter().for_each(|hint| builder.push(hint).unwrap());
    let mut packs: Vec<IndexedPack> =
        infos.values().map(|info| IndexedPack { name: info.name, kind: info.kind, len: long(info.len) }).collect();
    packs.sort_unstable();
    let (name, bytes, _) = builder.finish(&packs, Vec::new()).unwrap();
    world.store.put(&key(name), bytes.into()).unwrap();
}

const LIES: &[Lie] = &[
    ("nothing is there", |world, _| {
        objects(&world.store, Kind::Index).into_iter().for_each(|name| drop(world.store.remove(&key(name))));
    }),
    ("rubbish", |world, _| replace_all(world, |bytes| bytes.fill(7))),
    ("empty", |world, _| replace_all(world, Vec::clear)),
    ("cut short", |world, _| replace_all(world, |bytes| bytes.truncate(bytes.len() / 2))),
    ("longer", |world, _| replace_all(world, |bytes| bytes.push(0))),
    ("damaged ranges", |world, _| replace_all(world, |bytes| bytes[50] ^= 1)),
    ("of another vault", |world, _| {
        let other = World::new(small_chunks());
        fs::write(other.source().join("file"), b"other").unwrap();
        take(&other.open(), &other.source()).unwrap();
        let name = objects(&other.store, Kind::Index)[0];
        let bytes = other.store.get(&key(name), 1 << 20).unwrap();
        replace_all(world, |old| *old = bytes.to_vec());
        world.store.put(&key(name), bytes).unwrap();
    }),
    ("it says nothing of what it describes", |world, vault| put_instead(world, vault, |_, _| None)),
    ("every chunk is in the next pack", |world, vault| {
        let packs = packs(&world.store);
        put_instead(world, vault, |id, pack| {
            let at = packs.binary_search(&pack).unwrap();
            Some(Hint::new(&id, &packs[(at + 1) % packs.len()]))
        });
    }),
    ("every chunk is in a pack that is not there", |world, vault| {
        put_instead(world, vault, |id, _| Some(Hint::new(&id, &ObjectName::new([9; 16]))));
    }),
    ("packs have other lengths", |world, vault| {
        put_of_lengths(world, vault, |len| len + 1, |id, pack| Some(Hint::new(&id, &pack)));
    }),
    ("objects replace each other", |world, vault| {
        let all = objects(&world.store, Kind::Index);
        let builder = IndexBuilder::new(vault.keys(), 0).unwrap();
        let (name, bytes, _) = builder.finish(&[], all).unwrap();
        world.store.put(&key(name), bytes.into()).unwrap();
    }),
];

#[test]
fn an_index_that_lies_costs_nothing_but_time() {
    let world = world();
    let clean = world.store.snapshot();
    for (what, lie) in LIES {
        world.store.restore(clean.clone());
        lie(&world, &world.open());
        let lied: MemState = world.store.snapshot();
        let state = scratch();
        let vault = look(world.shared(), &state);
        assert!(vault.unread() > 0);
        check_all(&vault, &world.expected);
        drop(vault);
        let state = scratch();
        let vault = open_vault(&world.shared(), state.path()).unwrap();
        check_all(&vault, &world.expected);
        let report = check_vault(&vault, true);
        assert!(!report.is_damaged(), "{what}: {:?}", report.problems);
        assert!(report.problems.iter().all(|problem| problem.state == ObjectState::Redundant), "{what}");
        // An object that describes missing packs says so itself, whether its entries are true or not.
        let is_bad = !matches!(*what, "nothing is there" | "packs have other lengths" | "objects replace each other");
        assert_eq!(!report.problems.is_empty(), is_bad, "{what}: {:?}", report.problems);
        assert_eq!(world.store.snapshot(), lied, "{what}: a check changes nothing");
        // A snapshot that stores some data and relies on the rest.
        fs::write(world.source().join("one more"), what).unwrap();
        take(&vault, &world.source()).unwrap();
        let mut options = RepairOptions::new(&now);
        options.read_data = true;
        options.of_others = true;
        options.threads = THREADS;
        let planned = plan(&vault, &options, &Silent::default()).unwrap();
        assert!(!planned.has_losses() && planned.packs.is_empty(), "{what}");
        execute(&vault, planned, &options, &Silent::default()).unwrap();
        let report = check_vault(&vault, true);
        assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
        assert_eq!(described(&vault, &world.store), packs(&world.store), "{what}");
        check_all(&vault, &world.expected);
    }
}

#[test]
fn a_prune_waits_for_no_index() {
    let mut world = world();
    let vault = world.open();
    let forgotten: Vec<ObjectName> = vault.snapshots().iter().rev().skip(1).map(|info| info.id).collect();
    world.expected.retain(|id, _| !forgotten.contains(id));
    vault.publish(RecordBody::Forget(forgotten), now(), None, |_| true, &Silent::default()).unwrap();
    drop(vault);
    let clean = world.store.snapshot();
    // Each time by a machine that has seen the store unchanged: one that saw the prune would miss its records.
    let pruned = |what: &str| {
        let (mine, new) = (scratch(), scratch());
        copy_folder(&world.state(), mine.path());
        let vault = open_vault(&world.shared(), mine.path()).unwrap();
        prune(&vault);
        let left = packs(&world.store).len();
        check_all(&look(world.shared(), &new), &world.expected);
        let problems = check_vault(&vault, true).problems;
        assert!(problems.iter().all(|problem| !problem.state.is_loss()), "{what}: {problems:?}");
        left
    };
    let left = pruned("as it was");
    for (what, lie) in LIES {
        world.store.restore(clean.clone());
        lie(&world, &world.open());
        assert_eq!(pruned(what), left, "{what}");
    }
}

#[test]
fn an_index_of_a_later_version_is_newer_and_stays() {
    let mut world = world();
    let vault = world.open();
    let name = ObjectName::new([0xab; 16]);
    let seal = vault.keys().index_seal(ObjectKind::Index, name);
    let mut bytes = b"whatever a later version puts here".to_vec();
    seal.seal(IndexSection::Locator, &[2, 0, 0, 0, 0, 0, 0, 0, 0], &mut bytes).unwrap();
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    objects(&world.store, Kind::Index).into_iter().for_each(|name| drop(world.store.remove(&key(name))));
    world.store.put(&key(name), bytes.clone().into()).unwrap();
    let state = scratch();
    check_all(&look(world.shared(), &state), &world.expected);
    drop(vault);
    let vault = world.open();
    let newer = |vault: &Vault| {
        let report = check_vault(vault, true);
        assert!(!report.is_damaged() && report.has_remarks());
        let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
        assert_eq!((problem.state, &problem.subject), (ObjectState::Newer, &Subject::from(&key(name))));
    };
    newer(&vault);
    let mut options = RepairOptions::new(&now);
    options.read_data = true;
    options.of_others = true;
    options.threads = THREADS;
    let planned = plan(&vault, &options, &Silent::default()).unwrap();
    assert!(planned.aside.is_empty() && planned.packs.is_empty() && !planned.has_losses());
    // Runs of this version write their own beside it, and a prune neither fails because of it nor removes it.
    fs::write(world.source().join("one more"), b"more").unwrap();
    let id = take(&vault, &world.source()).unwrap().id.unwrap();
    world.expected.insert(id, of_disk(&world.source(), b"top"));
    assert_eq!(described(&vault, &world.store), packs(&world.store));
    let forgotten: Vec<ObjectName> =
        vault.snapshots().iter().map(|info| info.id).filter(|other| *other != id).collect();
    world.expected.retain(|id, _| !forgotten.contains(id));
    vault.publish(RecordBody::Forget(forgotten), now(), None, |_| true, &Silent::default()).unwrap();
    let before = packs(&world.store).len();
    prune(&vault);
    assert!(packs(&world.store).len() < before);
    assert_eq!(world.store.get(&key(name), 1 << 20).unwrap(), bytes);
    newer(&vault);
    check_all(&vault, &world.expected);
}

#[test]
fn a_chunk_that_no_index_names_is_found_and_one_that_is_nowhere_is_lost() {
    let world = world();
    // Packs of a run that was interrupted before it wrote an index object are in none.
    let before = objects(&world.store, Kind::Index);
    fs::write(world.source().join("late"), bytes(99, 5000)).unwrap();
    let late = take(&world.open(), &world.source()).unwrap().id.unwrap();
    for name in objects(&world.store, Kind::Index) {
        if !before.contains(&name) {
            world.store.remove(&key(name));
        }
    }
    let state = scratch();
    let vault = look(world.shared(), &state);
    let body = vault.snapshot(&late).unwrap().body.clone();
    let read = of_snapshot(&vault, &body);
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    // A missing pack: its chunks are lost, whatever index objects say.
    let reader = world.open().catalogue().reader().unwrap();
    let content = world.open().keys().chunk_id(b"no chunk of this vault");
    assert!(reader.locate(&content).unwrap().is_none());
    let state = scratch();
    let vault = look(world.shared(), &state);
    assert!(vault::vault::Lookup::new(&vault).unwrap().locate(&content).unwrap().is_none());
    assert_eq!(vault.unread(), 0, "nothing is called lost before all footers were read");
}

#[test]
fn objects_are_merged_and_go_with_their_packs() {
    let mut world = world();
    let vault = world.open();
    let before = objects(&world.store, Kind::Index);
    assert!(before.len() < 16, "{before:?}");
    // All but the last snapshot are forgotten, and their trees go.
    let forgotten: Vec<ObjectName> = vault.snapshots().iter().rev().skip(1).map(|info| info.id).collect();
    world.expected.retain(|id, _| !forgotten.contains(id));
    vault.publish(RecordBody::Forget(forgotten), now(), None, |_| true, &Silent::default()).unwrap();
    let many = packs(&world.store).len();
    prune(&vault);
    let left = packs(&world.store);
    assert!(left.len() < many, "{} of {many}", left.len());
    let mut known = described(&vault, &world.store);
    assert!(left.iter().all(|pack| known.binary_search(pack).is_ok()));
    known.retain(|pack| left.binary_search(pack).is_err());
    assert!(known.len() <= left.len(), "{} described packs are gone", known.len());
    let report = check_vault(&vault, true);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let state = scratch();
    let vault = look(world.shared(), &state);
    check_all(&vault, &world.expected);
}

#[test]
fn two_that_merge_at_once_lose_nothing() {
    let world = World::new(small_chunks());
    let mut number = 0;
    while objects(&world.store, Kind::Index).len() < 15 {
        number += 1;
        fs::write(world.source().join("file"), bytes(number, 3000)).unwrap();
        take(&world.open(), &world.source()).unwrap();
    }
    // Each of two machines sees sixteen objects, merges them, and deletes the merged ones, unseen by the other.
    let other_state = scratch();
    let other = open_vault(&world.shared(), other_state.path()).unwrap();
    fs::write(world.source().join("file"), bytes(1000, 3000)).unwrap();
    let before = world.store.snapshot();
    take(&world.open(), &world.source()).unwrap();
    let mine = world.store.snapshot();
    let merged = objects(&world.store, Kind::Index);
    assert_eq!(merged.len(), 1);
    world.store.restore(before);
    fs::write(world.source().join("file"), bytes(1001, 3000)).unwrap();
    take(&other, &world.source()).unwrap();
    // Both new objects are there, and everything that either has deleted is gone.
    let theirs = MemStore::from_state(world.store.snapshot());
    let ours = MemStore::from_state(mine);
    for (key, bytes) in ours.objects() {
        if !matches!(key, ObjectKey::Named(Kind::Log, _)) {
            world.store.replace(key, bytes);
        }
    }
    for name in objects(&theirs, Kind::Index).into_iter().chain(objects(&ours, Kind::Index)) {
        assert!(!matches!(world.store.len(&key(name)), Err(StoreError::Missing { .. })));
    }
    let described = described(&other, &world.store);
    assert!(packs(&world.store).iter().all(|pack| described.binary_search(pack).is_ok()));
}

/// A store in which nothing can be deleted.
#[derive(Debug)]
struct Growing(MemStore);

impl Store for Growing {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.0.put(key, bytes)
    }

    fn begin_put<'s>(&'s self, key: &ObjectKey, bytes: Bytes) -> Result<Pending<'s>, StoreError> {
        self.0.begin_put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.0.get_range(key, offset, len)
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.0.get(key, max)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.0.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.0.list(kind, found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        Err(StoreError::ReadOnly { object: key.into() })
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn limits(&self) -> StoreLimits {
        self.0.limits()
    }

    fn place(&self) -> String {
        "growing".to_owned()
    }
}

#[test]
fn a_store_that_only_grows_keeps_them_and_is_read_through_the_merged_ones() {
    let world = World::new(small_chunks());
    let store: Arc<dyn Store> = Arc::new(Growing(world.store.clone()));
    for number in 0..36 {
        fs::write(world.source().join("file"), bytes(number, 3000)).unwrap();
        take(&open_vault(&store, &world.state()).unwrap(), &world.source()).unwrap();
    }
    // 36 of one run each, and two in which sixteen were merged: merged once, and not again with each run.
    let count = objects(&world.store, Kind::Index).len();
    assert_eq!(count, 38);
    let state = scratch();
    let vault = look(store, &state);
    assert!(vault.unread() > 0);
    let last = vault.snapshots().last().unwrap().body.clone();
    assert!(of_snapshot(&vault, &last).errors.is_empty());
}

#[test]
fn a_run_whose_index_cannot_be_put_succeeds() {
    let world = World::new(small_chunks());
    fs::write(world.source().join("file"), b"content").unwrap();
    let store: Arc<dyn Store> = Arc::new(GatedStore::new(world.shared(), |key, _| match key {
        ObjectKey::Named(Kind::Index, _) => Err(StoreError::Full { object: key.into() }),
        _ => Ok(()),
    }));
    let vault = open_vault(&store, &world.state()).unwrap();
    take(&vault, &world.source()).unwrap();
    assert!(objects(&world.store, Kind::Index).is_empty());
    // The next run makes up for it.
    fs::write(world.source().join("file"), b"other content").unwrap();
    take(&world.open(), &world.source()).unwrap();
    assert_eq!(described(&world.open(), &world.store), packs(&world.store));
    // A run that stores nothing does not even list them.
    let store = Arc::new(CountingStore::new(world.store.clone()));
    let shared: Arc<dyn Store> = store.clone();
    let vault = open_vault(&shared, &world.state()).unwrap();
    store.take();
    take(&vault, &world.source()).unwrap();
    assert_eq!(store.take().to_string(), "put log 1, list log 2");
}

#[test]
fn where_things_arrive_late_an_index_may_come_before_its_packs_and_after_what_replaces_it() {
    let world = World::new(small_chunks());
    let vault = world.open();
    fs::write(world.source().join("file"), b"content").unwrap();
    take(&vault, &world.source()).unwrap();
    let synced = Format { synced: true, ..Format::default() };
    vault.publish(RecordBody::Format(synced), now(), None, |_| true, &Silent::default()).unwrap();
    assert_eq!(vault.delivery(), Delivery::Synced);
    for number in 0..15 {
        fs::write(world.source().join("file"), bytes(number, 3000)).unwrap();
        take(&world.open(), &world.source()).unwrap();
    }
    // Only a later run deletes merged objects.
    assert_eq!(objects(&world.store, Kind::Index).len(), 17);
    let whole = world.store.snapshot();
    fs::write(world.source().join("file"), bytes(100, 3000)).unwrap();
    take(&world.open(), &world.source()).unwrap();
    assert_eq!(objects(&world.store, Kind::Index).len(), 2);
    // Packs that have not arrived: index objects that describe only these stay.
    world.store.restore(whole);
    for name in packs(&world.store) {
        for kind in [Kind::Pack, Kind::Meta] {
            world.store.remove(&ObjectKey::Named(kind, name));
        }
    }
    let indexes = objects(&world.store, Kind::Index).len();
    let state = scratch();
    let vault = open_vault(&world.shared(), state.path()).unwrap();
    vault.tend_index(&Silent::default());
    assert_eq!(objects(&world.store, Kind::Index).len(), indexes - 16);
    let report = check_vault(&vault, false);
    assert!(report.problems.iter().all(|problem| problem.state != ObjectState::Redundant), "{:?}", report.problems);
    // One that has not fully arrived is not damaged.
    let name = objects(&world.store, Kind::Index)[0];
    world.store.mutate(&key(name), |bytes| bytes.truncate(100));
    let report = check_vault(&vault, false);
    let found = report.problems.iter().find(|problem| problem.subject == Subject::from(&key(name))).unwrap();
    assert_eq!(found.state, ObjectState::NotArrived);
}

#[test]
fn folders_of_later_versions_and_what_is_no_object_are_passed_over() {
    let folder = scratch();
    let (top, source, state) = (folder.path().join("store"), folder.path().join("source"), folder.path().join("state"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"content").unwrap();
    let dir = Arc::new(DirStore::create(&top).unwrap());
    create_vault(dir.as_ref(), small_chunks()).unwrap();
    let store: Arc<dyn Store> = dir.clone();
    take(&open_vault(&store, &state).unwrap(), &source).unwrap();
    let name = "ab00000000000000000000000000000a";
    for below in ["parity/ab", "hold", "index/ab"] {
        fs::create_dir_all(top.join(below)).unwrap();
    }
    fs::write(top.join("parity/ab").join(name), b"a shard").unwrap();
    fs::write(top.join("hold/anything"), b"a hold").unwrap();
    fs::write(top.join("index/ab/notes (conflicted copy)"), b"a copy").unwrap();
    fs::create_dir(top.join("index/ab").join(name)).unwrap();
    #[cfg(unix)]
    assert!(
        std::process::Command::new("mkfifo")
            .arg(top.join("index/ab/ab00000000000000000000000000000b"))
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(dir.foreign_at_top().unwrap(), Vec::<String>::new());
    let elsewhere = scratch();
    let vault = open_vault(&store, elsewhere.path()).unwrap();
    // A file in the folder of index objects that is none is foreign, as in every folder of this version.
    let mut foreign = vault.foreign();
    foreign.sort_unstable();
    let fifo = cfg!(unix).then(|| "index/ab/ab00000000000000000000000000000b".to_owned());
    let there =
        [format!("index/ab/{name}")].into_iter().chain(fifo).chain(["index/ab/notes (conflicted copy)".to_owned()]);
    assert_eq!((foreign, vault.bad_objects().len()), (there.collect::<Vec<_>>(), 0));
    let report = check_vault(&vault, true);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    fs::write(source.join("file"), b"other content").unwrap();
    take(&vault, &source).unwrap();
    assert!(check_vault(&vault, true).problems.is_empty());
}

#[test]
fn what_it_describes_is_told_by_kind() {
    let world = world();
    let vault = world.open();
    let reader = IndexReader::new(vault.store(), vault.keys());
    for name in objects(&world.store, Kind::Index) {
        let head = reader.head(name, vault.store().len(&key(name)).unwrap()).unwrap();
        for pack in reader.packs(&head).unwrap() {
            let kind = if pack.kind == ObjectKind::Meta { Kind::Meta } else { Kind::Pack };
            assert_eq!(vault.store().len(&ObjectKey::Named(kind, pack.name)).unwrap(), pack.len);
        }
    }
}
