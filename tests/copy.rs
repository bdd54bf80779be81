//! Copying snapshots into another vault: the content that reads back there, the data that is read and stored for it,
//! and copies that are interrupted or made from a damaged vault.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use vault::chunk::ChunkParams;
use vault::engine::check::{CheckOptions, check};
use vault::engine::copy::{CopyError, CopyOptions, CopyReport, Left, copy, copy_of};
use vault::failure::{Exit, Failure};
use vault::id::ObjectName;
use vault::log::RecordBody;
use vault::progress::Silent;
use vault::seal::Secret;
use vault::store::testing::counting::CountingStore;
use vault::store::testing::faulty::{Fault, FaultyStore, Leaves};
use vault::store::testing::mem::MemStore;
use vault::store::{Delivery, Kind, ObjectKey, Store};
use vault::tree::Verdict;
use vault::vault::create::{create, create_like};
use vault::vault::{CreateOptions, Vault};

use crate::support::binary::{Desk, said};
use crate::support::model::{self, Model};
use crate::support::s3::{FakeS3, KEY};
use crate::support::source::{Size, bytes, plant};
use crate::support::{
    PASSWORD, RAW, THREADS, World, campaign, cheap, copies, copy_folder, create_vault, now, open_as, open_vault,
    small_chunks,
};

const OPTIONS: CopyOptions<'static> = {
    let mut options = CopyOptions::new(&now);
    options.level = 1;
    options.threads = THREADS;
    options
};

/// Copies all snapshots.
fn copy_all(from: &Vault, to: &Vault) -> Result<CopyReport, CopyError> {
    copy(from, to, &from.snapshots(), &OPTIONS, &Silent::default())
}

/// A vault of three snapshots with much in common.
fn world(seed: u64) -> World {
    let mut world = World::new(small_chunks());
    plant(&world.source(), seed, Size::Tiny);
    // Longer than one read.
    fs::write(world.source().join("large"), bytes(seed + 2, 1_200_000)).unwrap();
    take_three(&mut world, seed);
    world
}

fn take_three(world: &mut World, seed: u64) {
    for round in 0..3 {
        fs::create_dir_all(world.source().join("changing/deep")).unwrap();
        for file in 0..3 {
            fs::write(world.source().join(format!("changing/{file}")), bytes(seed + round * file, 20_000)).unwrap();
        }
        fs::write(world.source().join("changing/deep/one"), bytes(seed + round, 9_000)).unwrap();
        world.take();
    }
}

/// Every snapshot of `to` reads back as its original; all are there, and nothing is damaged.
#[track_caller]
fn check_copies(from: &World, to: &Vault) {
    let mut there: BTreeMap<ObjectName, Model> = BTreeMap::new();
    for info in to.snapshots() {
        let origin = info.body.origin.clone().unwrap();
        assert!(!origin.partial && origin.vault == from.open().id());
        let read = model::of_snapshot(to, &info.body);
        assert!(read.errors.is_empty(), "{:?}", read.errors);
        assert!(there.insert(origin.snapshot, read.nodes).is_none(), "{} exists twice", origin.snapshot);
    }
    assert_eq!(there.len(), from.expected.len());
    for (id, expected) in &from.expected {
        model::assert_same(expected, &there[id], "a copy");
    }
    check_sound(to);
}

#[track_caller]
fn check_sound(vault: &Vault) {
    let mut options = CheckOptions::new(&now);
    options.read_data = true;
    options.threads = THREADS;
    let report = check(vault, &options, &Silent::default()).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.problems);
}

/// Another vault, empty, made with these chunk sizes or like another vault.
fn other(world: &World, params: Option<ChunkParams>) -> MemStore {
    let store = MemStore::new();
    match params {
        Some(params) => drop(create_vault(&store, params).unwrap()),
        None => drop(create_like(&store, &vault_options(Delivery::Direct), world.open().keyring()).unwrap()),
    }
    store
}

fn vault_options(delivery: Delivery) -> CreateOptions {
    let mut options = CreateOptions::new(Secret::password(PASSWORD), 1_700_000_000);
    options.kdf = cheap();
    options.params = small_chunks();
    options.delivery = delivery;
    options.recovery = Some(Secret::raw(&RAW));
    options
}

#[test]
fn copies_read_back_as_what_they_are_copies_of() {
    let larger = ChunkParams::new(1024, 4096, 16384).unwrap();
    for (number, params) in [Some(small_chunks()), Some(larger), None].into_iter().enumerate() {
        let world = world(20 + number as u64);
        let from = world.open();
        let store = other(&world, params);
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let state = world.folder.path().join("other");
        let to = open_vault(&shared, &state).unwrap();
        let before = world.store.objects();
        let report = copy_all(&from, &to).unwrap();
        assert_eq!((report.copied.len(), report.there), (3, 0));
        assert!(report.copied.iter().all(|copied| copied.lost.is_empty()));
        assert_eq!(world.store.objects(), before, "the copied vault is only read");
        check_copies(&world, &to);
        assert_eq!(copies(&to), 0, "nothing is stored twice");
        // A snapshot of the same folder, taken there, finds all of it stored.
        let chunks = to.catalogue().reader().unwrap().place_count();
        let report = crate::support::take(&to, &world.source()).unwrap();
        assert_eq!(report.snapshot.bytes_new, 0);
        assert_eq!(report.snapshot.tree, to.snapshots()[2].body.tree, "equal trees have equal ids");
        assert_eq!(to.catalogue().reader().unwrap().place_count(), chunks);
        // Copying twice is copying once: also for a machine that knows nothing, and back again.
        let objects = store.objects();
        let again = copy_all(&from, &to).unwrap();
        assert_eq!((again.copied.len(), again.there, again.bytes_stored), (0, 3, 0));
        let stranger = open_vault(&shared, &world.folder.path().join("stranger")).unwrap();
        assert_eq!(copy_all(&from, &stranger).unwrap().there, 3);
        assert_eq!(store.objects(), objects, "existing copies are skipped");
        let back = copy_all(&stranger, &from).unwrap();
        assert_eq!((back.copied.len(), back.there), (1, 3), "only the snapshot taken there is copied here");
        // Copied by way of a third vault it is still the same snapshot.
        let third: Arc<dyn Store> = Arc::new(other(&world, Some(larger)));
        let third = open_vault(&third, &world.folder.path().join("third")).unwrap();
        assert_eq!(copy_all(&to, &third).unwrap().copied.len(), 4);
        let direct = copy_all(&from, &third).unwrap();
        assert_eq!((direct.copied.len(), direct.there), (0, 4));
        check_sound(&third);
    }
}

#[test]
fn a_later_copy_reads_only_what_is_new() {
    let mut world = world(30);
    let counting = Arc::new(CountingStore::new(world.store.clone()));
    let source: Arc<dyn Store> = counting.clone();
    let store = other(&world, Some(small_chunks()));
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let (here, state) = (world.state(), world.folder.path().join("other"));
    let copied = |state_here: &Path, what: &str| {
        let from = open_vault(&source, state_here).unwrap();
        let to = open_vault(&shared, &state).unwrap();
        counting.take_read();
        let report = copy_all(&from, &to).unwrap();
        let read = counting.take_read();
        println!("{what}: {read} bytes read, {} stored", report.bytes_stored);
        (read, report)
    };
    let (all, first) = copied(&here, "all");
    assert_eq!(first.copied.len(), 3);
    assert!(all < world.store.total_len() * 3 / 2, "each segment is read about once");
    fs::write(world.source().join("changing/1"), bytes(77, 5_000)).unwrap();
    world.take();
    let (one, second) = copied(&here, "one file more");
    assert_eq!((second.copied.len(), second.there), (1, 3));
    assert!(one < all / 5, "{one} of {all}");
    let to = open_vault(&shared, &state).unwrap();
    check_copies(&world, &to);
}

/// Copies are pinned like their originals.
#[track_caller]
fn check_pins(to: &Vault, pinned: &[ObjectName], when: &str) {
    for info in to.snapshots() {
        assert_eq!(info.pinned, pinned.contains(&info.body.origin.unwrap().snapshot), "{when}");
    }
}

/// Interrupted at every write, and continued: nothing is stored twice, and nothing is missing, including pins.
#[test]
fn a_copy_that_is_interrupted_goes_on() {
    let mut world = World::new(small_chunks());
    take_three(&mut world, 40);
    let from = world.open();
    let pinned: Vec<ObjectName> = from.snapshots()[..2].iter().map(|info| info.id).collect();
    let body = RecordBody::Pin { snapshots: pinned.clone(), pinned: true };
    from.publish(body, now(), None, |_| true, &Silent::default()).unwrap();
    let params = ChunkParams::new(512, 2048, 8192).unwrap();
    let mut cut = 0;
    for leaves in [Leaves::Nothing, Leaves::Whole] {
        for write in 0.. {
            if campaign() == 0 && leaves == Leaves::Whole && write % 2 == 1 {
                continue;
            }
            let store = Arc::new(FaultyStore::new(other(&world, Some(params))));
            let shared: Arc<dyn Store> = store.clone();
            let state = world.folder.path().join(format!("other {leaves:?} {write}"));
            let to = open_vault(&shared, &state).unwrap();
            store.add(Fault::CutAtWrite { write: store.counts().writes + write, leaves });
            let is_cut = copy_all(&from, &to).is_err();
            drop(to);
            store.heal();
            let to = open_vault(&shared, &state).unwrap();
            check_pins(&to, &pinned, &format!("cut at write {write}, leaving {leaves:?}"));
            copy_all(&from, &to).unwrap();
            check_copies(&world, &to);
            check_pins(&to, &pinned, &format!("gone on with after write {write}, leaving {leaves:?}"));
            assert_eq!(copies(&to), 0, "cut at write {write}, leaving {leaves:?}");
            if !is_cut {
                break;
            }
            cut += 1;
        }
    }
    assert!(cut >= 8, "{cut}");
}

/// Only the damaged parts are missing, this is reported, and once they are repaired the copy becomes whole, too.
#[test]
fn of_a_damaged_vault_only_what_is_damaged_is_missing() {
    let world = world(50);
    let clean = world.store.snapshot();
    let params = Some(ChunkParams::new(512, 2048, 8192).unwrap());
    let is_pack = |key: &ObjectKey| matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _));
    let keys: Vec<ObjectKey> = world.store.objects().into_iter().map(|(key, _)| key).filter(is_pack).collect();
    let (mut partial, mut nothing) = (0, 0);
    for (number, key) in keys.iter().enumerate() {
        world.store.restore(clean.clone());
        let whole = world.store.objects().into_iter().find(|(other, _)| other == key).unwrap().1;
        world.store.mutate(key, |bytes| {
            bytes[1_000..1_040].fill(7);
        });
        let here = world.folder.path().join(format!("here {number}"));
        crate::support::copy_folder(&world.state(), &here);
        let from = open_vault(&world.shared(), &here).unwrap();
        let store = other(&world, params);
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let to = open_vault(&shared, &world.folder.path().join(format!("other {number}"))).unwrap();
        let report = copy_all(&from, &to).unwrap();
        let lost: usize = report.copied.iter().map(|copied| copied.lost.len()).sum();
        check_sound(&to);
        for info in to.snapshots() {
            let origin = info.body.origin.clone().unwrap();
            let read = model::of_snapshot(&to, &info.body);
            assert!(read.errors.is_empty(), "{:?}", read.errors);
            let expected = &world.expected[&origin.snapshot];
            let is_less = read.nodes.len() < expected.len();
            assert!(!is_less || origin.partial, "{key}: missing files are reported");
            assert_eq!(origin.partial, info.body.verdict == Verdict::Partial, "{key}");
            for (path, node) in &read.nodes {
                let mut node = node.clone();
                node.first_name.clone_from(&expected[path].first_name);
                assert_eq!(node, expected[path], "{key}: {path:?}");
            }
        }
        assert!(report.left.iter().all(|left| left.why == Left::Damaged), "{key}: {:?}", report.left);
        let unreadable = report.left.len();
        assert_eq!(to.snapshots().len() + unreadable, 3, "{key}: no empty snapshot replaces an unreadable one");
        if lost == 0 && unreadable == 0 {
            nothing += 1;
            check_copies(&world, &to);
            continue;
        }
        partial += 1;
        // While it is damaged, no copy improves.
        let objects = store.objects().len();
        let again = copy_all(&from, &to).unwrap();
        assert!(again.copied.is_empty() && again.still_lacking as usize + again.left.len() > 0, "{key}");
        assert_eq!(to.snapshots().len() + again.left.len(), 3);
        assert!(store.objects().len() <= objects + 1, "{key}");
        world.store.replace(*key, whole);
        let here = world.folder.path().join(format!("mended {number}"));
        let from = open_vault(&world.shared(), &here).unwrap();
        let mended = copy_all(&from, &to).unwrap();
        assert!(mended.still_lacking == 0 && !mended.copied.is_empty(), "{key}");
        check_copies(&world, &to);
    }
    println!("packs damaged: {partial} that cost something, {nothing} that did not");
    assert!(partial >= 4, "{partial}");
}

/// A synced vault with three snapshots, and the expected content of each.
fn synced_world(seed: u64) -> World {
    let mut world = World::new(small_chunks());
    world.store = MemStore::new();
    create(&world.store, &vault_options(Delivery::Synced)).unwrap();
    plant(&world.source(), seed, Size::Tiny);
    take_three(&mut world, seed);
    world
}

/// Data of another machine that the sync has not brought yet is waited for: nothing of it is copied in part, and
/// nothing is called damaged. When it has arrived, the copy is whole.
#[test]
fn what_has_not_arrived_yet_is_waited_for() {
    let world = synced_world(70);
    let is_pack = |key: &ObjectKey| matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _));
    let (mut late, mut number) = (0, 0);
    for (key, whole) in world.store.objects().into_iter().filter(|(key, _)| is_pack(key)) {
        // It is missing, or only its beginning is there.
        for is_begun in [false, true] {
            number += 1;
            let view = world.store.deep_copy();
            view.remove(&key);
            if is_begun {
                view.replace(key, whole.slice(..whole.len() / 2));
            }
            let here = world.folder.path().join(format!("here {number}"));
            let open = || {
                let view: Arc<dyn Store> = Arc::new(view.clone());
                open_as(&view, &here, &Secret::raw(&RAW), "elsewhere").unwrap()
            };
            let params = if is_begun { None } else { Some(ChunkParams::new(512, 2048, 8192).unwrap()) };
            let shared: Arc<dyn Store> = Arc::new(other(&world, params));
            let to = open_vault(&shared, &world.folder.path().join(format!("other {number}"))).unwrap();
            let report = copy_all(&open(), &to).unwrap();
            assert_eq!((report.copied.len() + report.left.len(), report.still_lacking), (3, 0), "{key}");
            assert!(report.copied.iter().all(|copied| copied.lost.is_empty()), "{key}: nothing is called damaged");
            for left in &report.left {
                assert!(left.why == Left::NotArrived && !left.paths.is_empty(), "{key}: {left:?}");
            }
            late += report.left.len();
            assert!(to.snapshots().iter().all(|info| !info.body.origin.as_ref().unwrap().partial), "{key}");
            view.remove(&key);
            view.replace(key, whole.clone());
            let again = copy_all(&open(), &to).unwrap();
            assert_eq!((again.copied.len(), again.left.len()), (report.left.len(), 0), "{key}");
            check_copies(&world, &to);
        }
    }
    assert!(late >= 6, "{late}");
    // The machine that put it had all of it: for that machine, missing data is lost.
    let shared: Arc<dyn Store> = Arc::new(other(&world, Some(small_chunks())));
    let to = open_vault(&shared, &world.folder.path().join("own")).unwrap();
    let packs: Vec<ObjectKey> = world.store.objects().into_iter().map(|(key, _)| key).collect();
    for key in packs.into_iter().filter(|key| matches!(key, ObjectKey::Named(Kind::Pack, _))) {
        world.store.remove(&key);
    }
    let report = copy_all(&world.open(), &to).unwrap();
    assert!(report.left.is_empty() && report.copied.iter().all(|copied| !copied.lost.is_empty()), "{:?}", report.left);
}

/// In the other vault it would have another date.
#[test]
fn a_snapshot_of_the_future_is_not_copied() {
    let world = world(80);
    let from = world.open();
    let shared: Arc<dyn Store> = Arc::new(other(&world, Some(small_chunks())));
    let to = open_vault(&shared, &world.folder.path().join("other")).unwrap();
    let first = from.snapshots()[0].date;
    let clock = || first;
    for dry_run in [true, false] {
        let mut options = OPTIONS;
        options.dry_run = dry_run;
        options.clock = &clock;
        let report = copy(&from, &to, &from.snapshots(), &options, &Silent::default()).unwrap();
        assert_eq!(report.copied.len(), 1);
        assert!(report.left.len() == 2 && report.left.iter().all(|left| left.why == Left::Future), "{:?}", report.left);
    }
    let dates = |vault: &Vault| vault.snapshots().iter().map(|info| info.date).collect::<Vec<_>>();
    assert_eq!(dates(&to), [first]);
    assert_eq!(copy_all(&from, &to).unwrap().copied.len(), 2);
    assert_eq!(dates(&to), dates(&from));
}

/// If only whole snapshots are wanted, a partly damaged one is not copied at all.
#[test]
fn what_is_damaged_in_part_can_be_left_whole() {
    let world = world(90);
    let last = world.open().snapshots().pop().unwrap();
    let is_pack = |key: &ObjectKey| matches!(key, ObjectKey::Named(Kind::Pack, _));
    let keys: Vec<ObjectKey> = world.store.objects().into_iter().map(|(key, _)| key).collect();
    for key in keys.into_iter().filter(is_pack) {
        world.store.mutate(&key, |bytes| bytes[1_000..1_040].fill(7));
    }
    let from = open_vault(&world.shared(), &world.folder.path().join("here")).unwrap();
    let shared: Arc<dyn Store> = Arc::new(other(&world, Some(small_chunks())));
    let to = open_vault(&shared, &world.folder.path().join("other")).unwrap();
    let mut options = OPTIONS;
    options.whole = true;
    let report = copy(&from, &to, std::slice::from_ref(&last), &options, &Silent::default()).unwrap();
    assert!(report.copied.is_empty() && report.left[0].why == Left::Partial, "{:?}", report.left);
    assert!(!report.left[0].paths.is_empty() && to.snapshots().is_empty());
    let report = copy(&from, &to, std::slice::from_ref(&last), &OPTIONS, &Silent::default()).unwrap();
    assert!(!report.copied[0].lost.is_empty() && report.left.is_empty());
    assert_eq!(copy_of(&from, &last, &to).map(|info| info.id), report.copied[0].id);
}

/// The failing vault is the one that is blamed.
#[test]
fn a_failure_is_told_of_the_vault_that_failed() {
    let world = world(95);
    let store = Arc::new(FaultyStore::new(other(&world, Some(small_chunks()))));
    let shared: Arc<dyn Store> = store.clone();
    let to = open_vault(&shared, &world.folder.path().join("other")).unwrap();
    store.add(Fault::CutAtWrite { write: store.counts().writes, leaves: Leaves::Nothing });
    let error = copy_all(&world.open(), &to).unwrap_err();
    assert!(matches!(error, CopyError::To(_)) && !error.is_of_source(), "{error:?}");
    assert!(Failure::from(error).what.starts_with("the vault that is copied into: "));
    store.heal();
    let broken = Arc::new(FaultyStore::new(world.store.clone()));
    let shared: Arc<dyn Store> = broken.clone();
    let from = open_vault(&shared, &world.folder.path().join("here")).unwrap();
    broken.add(Fault::CutLineAt(broken.counts().operations));
    let error = copy_all(&from, &to).unwrap_err();
    assert!(matches!(error, CopyError::From(_)) && error.is_of_source(), "{error:?}");
    let failure = Failure::from(error);
    assert!(failure.exit == Exit::Unreachable && failure.what.starts_with("the vault that is copied: "), "{failure:?}");
}

/// Content that was lost in the other vault is stored again, even if the snapshot before relied on it.
#[test]
fn what_the_other_vault_has_lost_is_not_relied_on() {
    let mut world = world(60);
    let store = other(&world, Some(small_chunks()));
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let state = world.folder.path().join("other");
    copy_all(&world.open(), &open_vault(&shared, &state).unwrap()).unwrap();
    let is_pack = |key: &ObjectKey| matches!(key, ObjectKey::Named(Kind::Pack, _));
    for (key, _) in store.objects().iter().filter(|(key, _)| is_pack(key)) {
        store.remove(key);
    }
    fs::write(world.source().join("new"), bytes(61, 3_000)).unwrap();
    world.take();
    let to = open_vault(&shared, &state).unwrap();
    assert_eq!(copy_all(&world.open(), &to).unwrap().copied.len(), 1);
    let last = to.snapshots().pop().unwrap();
    let read = model::of_snapshot(&to, &last.body);
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    model::assert_same(&world.expected[&last.body.origin.unwrap().snapshot], &read.nodes, "the last copy");
}

/// A desk with a second vault that has another password.
struct Two {
    desk: Desk,
    to: String,
}

const OTHER: (&str, &str) = ("VAULT_TO_PASSWORD", "another password");

impl Two {
    fn new() -> Self {
        let desk = Desk::new();
        let to = desk.path("other").to_str().unwrap().to_owned();
        let output = desk.command(&["init", "--repo", &to]).env("VAULT_PASSWORD", OTHER.1).output().unwrap();
        assert!(output.status.success());
        Self { desk, to }
    }

    fn output(&self, args: &[&str]) -> Output {
        self.desk.command(&[args, &["--to", &self.to]].concat()).env(OTHER.0, OTHER.1).output().unwrap()
    }

    fn copy(&self, args: &[&str]) -> serde_json::Value {
        let said = said(&self.output(&[args, &["--json"]].concat()));
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    fn list(&self, repo: Option<&str>) -> Vec<serde_json::Value> {
        let mut command = self.desk.command(&["list", "--json"]);
        if let Some(repo) = repo {
            command.args(["--repo", repo]).env("VAULT_PASSWORD", OTHER.1);
        }
        let said = said(&command.output().unwrap());
        let list: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        list["snapshots"].as_array().unwrap().clone()
    }
}

#[test]
fn dates_tags_pins_and_order_are_kept() {
    let two = Two::new();
    let desk = &two.desk;
    desk.write("one", bytes(1, 30_000));
    desk.take("2026-01-03T12:00:00Z");
    desk.write("two", bytes(2, 30_000));
    desk.ok(&["snapshot", ".", "--source", "source", "--tag", "b", "--tag", "a", "--description", "the second"]);
    desk.take("2026-01-01T12:00:00Z");
    desk.ok(&["snapshot", ".", "--source", "another", "--exclude", "one"]);
    desk.ok(&["pin", "2026-01-03", "--source", "source"]);
    let here = two.list(None);
    let copied = two.copy(&["copy"]);
    assert_eq!(copied["copied"].as_array().unwrap().len(), 4, "{copied}");
    let there = two.list(Some(&two.to));
    assert_eq!(here.len(), there.len());
    for (mut here, mut there) in here.iter().cloned().zip(there.iter().cloned()) {
        assert_eq!(there["origin"]["snapshot"], here["id"]);
        assert!(here["origin"].is_null());
        for value in [&mut here, &mut there] {
            let object = value.as_object_mut().unwrap();
            object.remove("id");
            object.remove("origin");
        }
        assert_eq!(here, there);
    }
    // The rules keep the same snapshots.
    let decided = |repo: Option<&str>, list: &[serde_json::Value]| -> Vec<(usize, serde_json::Value)> {
        let mut command = desk.command(&["prune", "--keep-daily", "1", "--dry-run", "--json"]);
        if let Some(repo) = repo {
            command.args(["--repo", repo]).env("VAULT_PASSWORD", OTHER.1);
        }
        let said = said(&command.output().unwrap());
        let plan: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.err));
        let decisions = plan["snapshots"].as_array().unwrap().clone();
        let of = |decision: serde_json::Value| {
            let at = list.iter().position(|info| info["id"] == decision["snapshot"]).unwrap();
            (at, decision["reasons"].clone())
        };
        decisions.into_iter().map(of).collect()
    };
    assert_eq!(decided(None, &here), decided(Some(&two.to), &there));
    // The exclusion rules are copied: a restore that deletes does not delete excluded files.
    let last = there.iter().find(|info| info["source"] == "another").unwrap()["id"].as_str().unwrap().to_owned();
    let mut restore = desk.command(&["restore", &last, "--in-place", "--delete", "--yes", "--repo", &two.to]);
    assert!(restore.env("VAULT_PASSWORD", OTHER.1).output().unwrap().status.success());
    assert!(desk.source().join("one").exists());
}

/// Two machines copy into the same vault at the same time, or a sync brings the copies of the other later.
#[test]
fn copies_that_two_machines_made_at_once_count_as_one() {
    let two = Two::new();
    let desk = &two.desk;
    for day in 1..4 {
        desk.write("one", bytes(day, 30_000));
        desk.take(&format!("2026-01-0{day}T12:00:00Z"));
    }
    desk.ok(&["pin", "2026-01-01"]);
    let meanwhile = desk.path("meanwhile");
    copy_folder(&desk.path("other"), &meanwhile);
    two.copy(&["copy"]);
    let as_other = |args: &[&str]| {
        let mut command = desk.command(args);
        let done = command.env(OTHER.0, OTHER.1).env("VAULT_STATE_DIR", desk.path("state of another")).output();
        let done = said(&done.unwrap());
        assert_eq!(done.code, 0, "{}{}", done.out, done.err);
        done.out
    };
    as_other(&["copy", "--to", meanwhile.to_str().unwrap()]);
    let merged = std::process::Command::new("cp").args(["-an", "--"]).arg(meanwhile.join(".")).arg(&two.to).output();
    assert!(merged.unwrap().status.success());
    assert_eq!(two.list(Some(&two.to)).len(), 6);
    // Each machine decides alike: of each snapshot one copy counts, and the surplus ones go, pinned or not.
    let plan = |state: &str| -> serde_json::Value {
        let mut command = desk.command(&["prune", "--keep", "2", "--dry-run", "--json", "--repo", &two.to]);
        command.env("VAULT_PASSWORD", OTHER.1).env("VAULT_STATE_DIR", desk.path(state));
        let done = said(&command.output().unwrap());
        serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{}", done.err))
    };
    let decided = plan("state");
    assert_eq!(decided["snapshots"], plan("state of another")["snapshots"]);
    let all = two.list(Some(&two.to));
    let kept = decided["snapshots"].as_array().unwrap().iter().filter(|one| one["keep"] == true);
    let origin = |one: &serde_json::Value| {
        let found = all.iter().find(|info| info["id"] == one["snapshot"]).unwrap();
        found["origin"]["snapshot"].as_str().unwrap().to_owned()
    };
    let mut kept: Vec<String> = kept.map(origin).collect();
    kept.sort();
    let mut taken: Vec<String> = two.list(None).iter().map(|info| info["id"].as_str().unwrap().to_owned()).collect();
    taken.sort();
    assert_eq!(kept, taken, "two by the rule, and one that is pinned");
    // The next copy drops them.
    assert_eq!(two.copy(&["copy", "--dry-run"])["surplus"], 0);
    let copied = two.copy(&["copy"]);
    assert_eq!((&copied["surplus"], &copied["there"]), (&3.into(), &3.into()), "{copied}");
    let left = two.list(Some(&two.to));
    assert_eq!(left.len(), 3);
    assert_eq!(left.iter().filter(|info| info["pinned"] == true).count(), 1);
    assert_eq!(two.copy(&["copy"])["surplus"], 0);
    as_other(&["copy", "--to", &two.to]);
    assert_eq!(two.list(Some(&two.to)), left);
}

#[test]
fn the_command_copies_what_it_is_told_and_says_so() {
    let two = Two::new();
    let desk = &two.desk;
    desk.write("one", bytes(1, 30_000));
    let first = desk.take("2026-01-01T12:00:00Z");
    desk.write("one", bytes(2, 30_000));
    desk.ok(&["snapshot", ".", "--source", "another", "--time", "2026-01-02T12:00:00Z"]);
    let dry = two.copy(&["copy", "--dry-run"]);
    assert_eq!((dry["copied"].as_array().unwrap().len(), &dry["copied"][0]["snapshot"]), (2, &serde_json::Value::Null));
    assert!(two.list(Some(&two.to)).is_empty(), "a dry run copies nothing");
    let one = two.copy(&["copy", &first[..8]]);
    assert_eq!((one["copied"].as_array().unwrap().len(), &one["copied"][0]["from"]), (1, &first.clone().into()));
    let other = two.copy(&["copy", "--source", "another"]);
    assert_eq!((other["copied"].as_array().unwrap().len(), &other["there"]), (1, &0.into()));
    let said_all = said(&two.output(&["copy"]));
    assert!(said_all.code == 0 && said_all.out.contains("2 there before"), "{}{}", said_all.out, said_all.err);
    // Passwords.
    let file = desk.path("password");
    fs::write(&file, format!("{}\n", OTHER.1)).unwrap();
    let (file, command) = (file.to_str().unwrap(), format!("cat {}", file.display()));
    desk.ok(&["copy", "--to", &two.to, "--to-password-file", file]);
    desk.ok(&["copy", "--to", &two.to, "--to-password-command", &command]);
    assert_eq!(desk.run(&["copy", "--to", &two.to]).code, 12);
    // Impossible requests.
    let store = desk.path("store");
    assert_eq!(desk.run(&["copy", "--to", store.to_str().unwrap()]).code, 2);
    assert_eq!(two.output(&["copy", "latest:one"]).status.code(), Some(2));
    assert_eq!(two.output(&["copy", "--source", "nothing"]).status.code(), Some(1));
    assert_eq!(two.output(&["copy", "--host", "nowhere"]).status.code(), Some(1));
    assert_eq!(desk.run(&["copy", "--to", "/nowhere/at/all"]).code, 10);
    let mirror = desk.path("mirror");
    desk.ok(&["mirror", "--to", mirror.to_str().unwrap()]);
    let said = said(&two.output(&["copy", "--repo", mirror.to_str().unwrap()]));
    assert!(said.code == 0 && said.out.contains("2 there before"), "a mirror can be copied from: {}", said.err);
    // A damaged file is missing in the copy, and the exit code says so.
    desk.write("two", bytes(3, 90_000));
    let before: Vec<_> = packs(&store);
    desk.take("2026-01-03T12:00:00Z");
    let new = packs(&store).into_iter().find(|path| !before.contains(path)).unwrap();
    let mut content = fs::read(&new).unwrap();
    content[2_000] ^= 1;
    fs::remove_file(&new).unwrap();
    fs::write(&new, content).unwrap();
    let output = crate::support::binary::said(&two.output(&["copy"]));
    assert!(output.code == 4 && output.out.contains("missing in the copies"), "{}{}", output.out, output.err);
    let again = crate::support::binary::said(&two.output(&["copy"]));
    assert!(again.code == 4 && again.out.contains("still damaged"), "{}{}", again.out, again.err);
}

fn packs(store: &Path) -> Vec<std::path::PathBuf> {
    let folders = fs::read_dir(store.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())).collect()
}

/// The words that a user of a synced folder sees.
#[test]
fn what_has_not_arrived_yet_is_told_with_what_to_do() {
    let two = Two::new();
    let desk = &two.desk;
    desk.write("one", bytes(1, 30_000));
    let id = desk.take("2026-01-01T12:00:00Z");
    desk.ok(&["delivery", "synced"]);
    let view = desk.path("view");
    copy_folder(&desk.path("store"), &view);
    fs::remove_dir_all(view.join("packs")).unwrap();
    let state = desk.path("another machine");
    let args = |args: &[&'static str]| {
        let mut command = desk.command(&[&["copy", "--to", &two.to], args].concat());
        command.env(OTHER.0, OTHER.1).env("VAULT_REPO", &view).env("VAULT_STATE_DIR", &state);
        said(&command.output().unwrap())
    };
    let told = args(&[]);
    assert_eq!(told.code, 3, "{}{}", told.out, told.err);
    for part in ["not copied: ", "not all of it has arrived here yet (source/one)", "Run the same command again when"] {
        assert!(told.out.contains(part), "{part}: {}", told.out);
    }
    assert!(!told.out.contains("damaged") && !told.err.contains("damaged"), "{}{}", told.out, told.err);
    let json: serde_json::Value = serde_json::from_str(&args(&["--json"]).out).unwrap();
    assert_eq!((&json["left"][0]["from"], &json["left"][0]["why"]), (&id.into(), &"not arrived".into()));
    copy_folder(&desk.path("store/packs"), &view.join("packs"));
    assert_eq!(args(&[]).code, 0);
}

#[test]
fn the_other_vault_may_lie_on_another_machine() {
    let mut two = Two::new();
    let server = FakeS3::start(1000);
    two.to = server.vault("copies");
    let desk = &two.desk;
    desk.write("one", bytes(1, 200_000));
    desk.take("2026-01-01T12:00:00Z");
    let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let run = |args: &[&str], password: &str| {
        let mut command = desk.command(args);
        let said =
            said(&command.envs(variables).env("VAULT_PASSWORD", password).env(OTHER.0, OTHER.1).output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    };
    run(&["init", "--repo", &two.to], OTHER.1);
    assert!(run(&["copy", "--to", &two.to], PASSWORD).contains("1 snapshot copied"));
    assert!(run(&["check", "--read-data", "--repo", &two.to], OTHER.1).contains("No damage was found."));
    let restored = desk.path("restored");
    run(&["restore", "latest", "--repo", &two.to, "--to", restored.to_str().unwrap()], OTHER.1);
    assert_eq!(fs::read(restored.join("source/one")).unwrap(), bytes(1, 200_000));
    // And back into a third one, on this machine.
    let third = desk.path("third").to_str().unwrap().to_owned();
    run(&["init", "--repo", &third], OTHER.1);
    assert!(run(&["copy", "--repo", &two.to, "--to", &third], OTHER.1).contains("1 snapshot copied"));
}
