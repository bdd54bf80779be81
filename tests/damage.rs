//! Damage of every sort to every object of a small vault. In every case: never wrong data, never a panic, and the
//! damage is reported with the object's name.
//!
//! By default a few thousand cases, spread over all parts of all objects; with `VAULT_CAMPAIGN=1` one flipped bit in
//! every byte and every length to which an object can be cut, with `VAULT_CAMPAIGN=2` also every byte with all bits
//! flipped, with `VAULT_CAMPAIGN=8` each of its bits.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use vault::id::ObjectName;
use vault::log::RecordBody;
use vault::pack::{LOCATOR_LEN, PackReader, TRAILER_LEN};
use vault::progress::Silent;
use vault::seal::{HEADER_LEN, ObjectKind, Secret};
use vault::store::testing::mem::{MemState, MemStore};
use vault::store::{Kind, ObjectKey, Store};
use vault::tree::Snapshot;
use vault::vault::{Vault, VaultError};

use crate::support::model::{Model, Node, assert_same, of_snapshot};
use crate::support::source::{Size, plant, write};
use crate::support::{
    PASSWORD, RAW, World, campaign, copy_folder, each, now, open_as, open_vault, scratch, small_chunks,
};

/// A whole vault, and everything known about it.
struct Fixture {
    world: World,
    clean: MemState,
    objects: Vec<(ObjectKey, Bytes)>,
    bodies: BTreeMap<ObjectName, Snapshot>,
    /// The range of the padding of packs.
    padding: BTreeMap<ObjectKey, (usize, usize)>,
}

/// When damage was first noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Noticed {
    /// The vault could not be opened, and the error says why.
    Refused,
    /// When the vault was opened.
    AtOpen,
    /// When everything was read.
    AtRead,
    /// By the clear checksum at the end of the object, or of the key slot.
    ByChecksum,
    /// Not at all.
    Never,
}

#[derive(Default)]
struct Counts([AtomicU64; 5]);

impl Counts {
    fn add(&self, noticed: Noticed) {
        self.0[noticed as usize].fetch_add(1, Relaxed);
    }

    fn print(&self, what: &str) -> u64 {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Relaxed)).collect();
        let total = counts.iter().sum();
        println!(
            "{what}: {total} cases: {} refused, {} noticed when opened, {} when read, {} by checksum, {} without effect",
            counts[0], counts[1], counts[2], counts[3], counts[4]
        );
        total
    }
}

fn fixture() -> Fixture {
    let mut world = World::new(small_chunks());
    plant(&world.source(), 1, Size::Tiny);
    world.take();
    write(&world.source().join("new"), 5, 30_000);
    write(&world.source().join("folder 0/file 4.bin"), 6, 80_000);
    world.take();
    fs::remove_dir_all(world.source().join("folder 1")).unwrap();
    let last = world.take();
    let vault = world.open();
    let pin = RecordBody::Pin { snapshots: vec![last], pinned: true };
    vault.publish(pin, now(), None, |_| true, &Silent::default()).unwrap().unwrap();
    let bodies = vault.snapshots().into_iter().map(|snapshot| (snapshot.id, snapshot.body)).collect();
    // Nothing depends on index objects: the tests in `hints` damage them.
    let mut objects = world.store.objects();
    objects.retain(|(key, _)| !matches!(key, ObjectKey::Named(Kind::Index, _)));
    let mut padding = BTreeMap::new();
    let reader = PackReader::new(vault.store(), vault.keys());
    for (key, bytes) in &objects {
        if let ObjectKey::Named(kind @ (Kind::Pack | Kind::Meta), name) = key {
            let kind = ObjectKind::from_store_kind(*kind).unwrap();
            let footer = reader.footer(kind, *name, bytes.len() as u64).unwrap();
            let end = HEADER_LEN + footer.segments.iter().map(|segment| segment.sealed_len as usize).sum::<usize>();
            let footer_len = footer.encode().len() + vault::seal::SEAL_OVERHEAD;
            padding.insert(*key, (end, bytes.len() - TRAILER_LEN - LOCATOR_LEN - footer_len));
        }
    }
    drop(vault);
    let clean = world.store.snapshot();
    let fixture = Fixture { world, clean, objects, bodies, padding };
    let (noticed, vault) = judge(&fixture, &fixture.world.store, &[], &fixture.world.folder.path().join("fresh"));
    assert_eq!(noticed, Noticed::Never, "a whole vault has no findings");
    assert_eq!(vault.unwrap().snapshots().len(), 3);
    fixture
}

/// Whether the clear checksum at the end of an object fits.
fn has_checksum(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<32>().is_some_and(|(before, sum)| *blake3::hash(before).as_bytes() == *sum)
}

/// Opens a store in which `touched` are not as they were put, and reads everything. Panics if anything is read that was
/// never stored, or if no object is blamed for the damage.
fn judge(fixture: &Fixture, store: &MemStore, touched: &[ObjectKey], state: &Path) -> (Noticed, Option<Vault>) {
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let vault = match open_vault(&shared, state) {
        Ok(vault) => vault,
        Err(VaultError::Catalogue(error)) => panic!("damage to the store is no matter of the catalogue: {error}"),
        Err(_) => return (Noticed::Refused, None),
    };
    let names: Vec<String> = touched.iter().map(ToString::to_string).collect();
    let names_one = |text: &str| names.iter().any(|name| text.contains(name.as_str()));
    let bad = vault.bad_objects();
    for bad in &bad {
        assert!(names.contains(&bad.key.to_string()), "{} is whole, but is reported: {}", bad.key, bad.what);
    }
    let mut noticed = if bad.is_empty() && vault.findings().is_empty() { Noticed::Never } else { Noticed::AtOpen };
    let snapshots = vault.snapshots();
    for snapshot in &snapshots {
        assert_eq!(
            fixture.bodies.get(&snapshot.id),
            Some(&snapshot.body),
            "a record has content that was never written"
        );
        let read = of_snapshot(&vault, &snapshot.body);
        for (_, error) in &read.errors {
            assert!(error.is_damage(), "{error}");
            let text = error.to_string();
            // Chunks of a pack that cannot be listed are only lost; the pack itself was named when the vault was
            // opened.
            assert!(names_one(&text) || text.contains("is in no pack"), "{text} names none of {names:?}");
            noticed = noticed.min(Noticed::AtRead);
        }
        check_nodes(&fixture.world.expected[&snapshot.id], read.nodes, read.errors.is_empty());
    }
    let is_record = |key: &ObjectKey| matches!(key, ObjectKey::Named(Kind::Log, _));
    if snapshots.len() < fixture.bodies.len() {
        assert!(touched.iter().any(is_record), "snapshots are gone, but no record was touched");
    }
    if noticed == Noticed::Never {
        let objects = store.objects();
        let whole = objects.iter().filter(|(key, _)| touched.contains(key) && *key != ObjectKey::Vault);
        if whole.into_iter().any(|(_, bytes)| !has_checksum(bytes)) {
            noticed = Noticed::ByChecksum;
        }
    }
    (noticed, Some(vault))
}

/// Everything that was read is unchanged; if nothing failed, everything was read.
fn check_nodes(expected: &Model, mut found: Model, is_whole: bool) {
    if is_whole {
        assert_same(expected, &found, "read without an error");
        return;
    }
    for (path, node) in &mut found {
        let expected = expected.get(path).unwrap_or_else(|| panic!("{path:?} was never there"));
        // If the list of hard links is damaged, the files are separate ones.
        node.first_name.clone_from(&expected.first_name);
        assert_eq!(node, expected, "{path:?}");
    }
}

/// Judges many changes of the clean store, each with a fresh state folder, on all cores.
fn judge_each<T: Sync>(
    fixture: &Fixture,
    what: &str,
    cases: &[T],
    change: impl Fn(&MemStore, &T) -> Vec<ObjectKey> + Sync,
    check: impl Fn(&T, Noticed) + Sync,
) -> u64 {
    let counts = Counts::default();
    let folder = scratch();
    let number = AtomicU64::new(0);
    each(cases, |_, case| {
        let store = MemStore::from_state(fixture.clean.clone());
        let touched = change(&store, case);
        let state = folder.path().join(number.fetch_add(1, Relaxed).to_string());
        let (noticed, vault) = judge(fixture, &store, &touched, &state);
        drop(vault);
        fs::remove_dir_all(&state).unwrap_or_default();
        check(case, noticed);
        counts.add(noticed);
    });
    counts.print(what)
}

/// The bytes of an object that are tried by default: all of its frame, some of its content, a few of its padding.
fn positions(fixture: &Fixture, key: &ObjectKey, len: usize) -> Vec<usize> {
    if campaign() > 0 {
        return (0..len).collect();
    }
    match (key, fixture.padding.get(key)) {
        (_, Some((start, end))) => {
            let (start, end) = (*start, *end);
            let content = (end - start) / 8;
            let mut out: Vec<usize> = (0..HEADER_LEN).step_by(3).collect();
            out.extend((HEADER_LEN..HEADER_LEN + 44).step_by(2));
            out.extend((HEADER_LEN + 44..start).step_by((start / 60).max(1)));
            out.extend((start..end).step_by(content.max(1)));
            out.extend((end..len).step_by(((len - end) / 80).max(1)));
            out
        }
        (ObjectKey::Named(Kind::Log, _), None) => (0..len).step_by(11).collect(),
        _ => (0..len).step_by(6).collect(),
    }
}

#[test]
fn flipped_bits_never_give_wrong_data() {
    let fixture = fixture();
    let patterns = |at: usize| match campaign() {
        0 | 1 => vec![1_u8 << (at % 8)],
        2..8 => vec![1 << (at % 8), 0xff],
        _ => (0..8).map(|bit| 1 << bit).chain([0xff]).collect(),
    };
    let mut cases = Vec::new();
    for (key, bytes) in &fixture.objects {
        for at in positions(&fixture, key, bytes.len()) {
            cases.extend(patterns(at).into_iter().map(|pattern| (*key, at, pattern)));
        }
    }
    let total = judge_each(
        &fixture,
        "flips",
        &cases,
        |store, (key, at, pattern)| {
            assert!(store.mutate(key, |bytes| bytes[*at] ^= pattern));
            vec![*key]
        },
        |(key, at, _), noticed| {
            let in_padding = fixture.padding.get(key).is_some_and(|(start, end)| (*start..*end).contains(at));
            let in_trailer = matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _))
                && fixture.objects.iter().any(|(other, bytes)| other == key && bytes.len() - TRAILER_LEN <= *at);
            match noticed {
                Noticed::AtOpen | Noticed::AtRead => {}
                Noticed::ByChecksum => assert!(in_padding || in_trailer, "byte {at} of {key} is read, but not checked"),
                other => panic!("byte {at} of {key}: {other:?}"),
            }
        },
    );
    assert!(total > 1500);
}

#[test]
fn objects_cut_short_or_made_longer_are_named() {
    let fixture = fixture();
    let mut cases = Vec::new();
    for (key, bytes) in &fixture.objects {
        let lens: Vec<usize> = match campaign() {
            0 => positions(&fixture, key, bytes.len()).into_iter().step_by(5).collect(),
            _ => (0..bytes.len()).collect(),
        };
        cases.extend(lens.into_iter().map(|len| (*key, len)));
        cases.extend([1, 32, 4096, 70_000].map(|more| (*key, bytes.len() + more)));
    }
    judge_each(
        &fixture,
        "cuts",
        &cases,
        |store, (key, len)| {
            assert!(store.mutate(key, |bytes| bytes.resize(*len, 0x5a)));
            vec![*key]
        },
        |(key, len), noticed| assert_eq!(noticed, Noticed::AtOpen, "{key} of {len} bytes"),
    );
}

/// Changes of whole objects.
#[derive(Debug, Clone, Copy)]
enum Move {
    /// It is gone.
    Removed(ObjectKey),
    /// Two have each other's bytes.
    Swapped(ObjectKey, ObjectKey),
    /// The first has the bytes of the second as well (for the store, an older version of itself).
    Replaced(ObjectKey, ObjectKey),
    /// It has another name.
    Renamed(ObjectKey, ObjectKey),
    /// It exists a second time, under another name.
    Doubled(ObjectKey, ObjectKey),
    /// It is empty, or all zeros.
    Wiped(ObjectKey, bool),
}

fn moves(objects: &[(ObjectKey, Bytes)]) -> Vec<Move> {
    let mut out = Vec::new();
    let kind = |key: &ObjectKey| match key {
        ObjectKey::Vault => None,
        ObjectKey::Named(kind, _) => Some(*kind),
    };
    for (key, bytes) in objects {
        out.push(Move::Removed(*key));
        out.extend([Move::Wiped(*key, true), Move::Wiped(*key, false)]);
        for (other, other_bytes) in objects {
            // The copies of a key slot are the same bytes.
            if other != key && other_bytes != bytes {
                out.push(Move::Replaced(*key, *other));
                if other > key && kind(other) == kind(key) {
                    out.push(Move::Swapped(*key, *other));
                }
            }
        }
        if kind(key).is_some() {
            for (folder, name) in Kind::ALL.iter().filter(|kind| **kind != Kind::Index).zip(1..) {
                let name = ObjectKey::Named(*folder, ObjectName::new([name; 16]));
                out.extend([Move::Renamed(*key, name), Move::Doubled(*key, name)]);
            }
        }
    }
    out
}

fn apply(store: &MemStore, change: Move) -> Vec<ObjectKey> {
    let bytes = |key: &ObjectKey| store.objects().into_iter().find(|(other, _)| other == key).unwrap().1;
    match change {
        Move::Removed(key) => {
            store.remove(&key);
            vec![key]
        }
        Move::Swapped(a, b) => {
            let (of_a, of_b) = (bytes(&a), bytes(&b));
            store.replace(a, of_b);
            store.replace(b, of_a);
            vec![a, b]
        }
        Move::Replaced(key, by) => {
            store.replace(key, bytes(&by));
            vec![key]
        }
        Move::Renamed(key, name) => {
            store.replace(name, bytes(&key));
            store.remove(&key);
            vec![key, name]
        }
        Move::Doubled(key, name) => {
            store.replace(name, bytes(&key));
            vec![name]
        }
        Move::Wiped(key, keep_len) => {
            let len = if keep_len { bytes(&key).len() } else { 0 };
            store.replace(key, vec![0; len]);
            vec![key]
        }
    }
}

#[test]
fn objects_removed_swapped_renamed_and_doubled_never_give_wrong_data() {
    let fixture = fixture();
    let cases = moves(&fixture.objects);
    let last_record = fixture.world.expected.len() as u64 + 3;
    let is_slot = |key: &ObjectKey| matches!(key, ObjectKey::Named(Kind::Key, _));
    let is_last = |key: &ObjectKey| match key {
        ObjectKey::Named(Kind::Log, name) => {
            let vault = fixture.world.open();
            vault.chains().links().any(|link| link.name == *name && link.record.number == last_record)
        }
        _ => false,
    };
    judge_each(
        &fixture,
        "moves",
        &cases,
        |store, change| apply(store, *change),
        |change, noticed| match change {
            // A copy of a key slot under another name, or one copy less, is as good as before. A machine that loses the
            // last record of the only client, and its memory of it, cannot know that it ever existed.
            Move::Removed(key) if is_slot(key) || is_last(key) => {}
            Move::Renamed(key, name) | Move::Doubled(key, name) if is_slot(key) && is_slot(name) => {}
            Move::Replaced(key, by) if is_slot(key) && is_slot(by) => {}
            Move::Swapped(a, b) if is_slot(a) && is_slot(b) => {}
            // No list tells which packs should exist, so a missing one is noticed when it is needed.
            Move::Removed(ObjectKey::Named(Kind::Pack | Kind::Meta, _)) => assert_eq!(noticed, Noticed::AtRead),
            _ => assert_eq!(noticed, Noticed::AtOpen, "{change:?}"),
        },
    );
}

#[test]
fn a_warm_catalogue_hides_no_damage_that_matters() {
    let fixture = fixture();
    let warm = fixture.world.state();
    let mut cases = Vec::new();
    for (key, bytes) in &fixture.objects {
        let step = if campaign() > 0 { 1 } else { 9 };
        cases.extend(positions(&fixture, key, bytes.len()).into_iter().step_by(step).map(|at| (*key, at)));
    }
    let counts = Counts::default();
    let folder = scratch();
    each(&cases, |number, (key, at)| {
        let store = MemStore::from_state(fixture.clean.clone());
        assert!(store.mutate(key, |bytes| bytes[*at] ^= 0x10));
        let state = folder.path().join(number.to_string());
        copy_folder(&warm, &state);
        let (noticed, vault) = judge(&fixture, &store, &[*key], &state);
        assert_eq!(vault.unwrap().snapshots().len(), 3, "the catalogue knows all records");
        assert!(noticed < Noticed::Never, "byte {at} of {key}");
        counts.add(noticed);
        fs::remove_dir_all(&state).unwrap();
    });
    counts.print("flips below a warm catalogue");
    // Objects that the store has lost since are noticed too.
    let counts = Counts::default();
    for (number, change) in moves(&fixture.objects).into_iter().enumerate() {
        if !matches!(change, Move::Removed(ObjectKey::Named(Kind::Log | Kind::Pack | Kind::Meta, _))) {
            continue;
        }
        let store = MemStore::from_state(fixture.clean.clone());
        let touched = apply(&store, change);
        let state = folder.path().join(format!("moved {number}"));
        copy_folder(&warm, &state);
        let (noticed, _) = judge(&fixture, &store, &touched, &state);
        assert!(noticed <= Noticed::AtRead, "{change:?}: {noticed:?}");
        counts.add(noticed);
    }
    counts.print("objects gone below a warm catalogue");
}

/// Both copies of a slot are damaged: the other slot still opens, and this one is reported.
#[test]
fn damaged_key_slots_leave_the_other_ways_in() {
    let fixture = fixture();
    let (mut opened, mut refused) = (0, 0);
    let slots: Vec<_> =
        fixture.objects.iter().filter(|(key, _)| matches!(key, ObjectKey::Named(Kind::Key, _))).collect();
    assert_eq!(slots.len(), 4);
    let folder = scratch();
    let step = if campaign() > 0 { 1 } else { 37 };
    for at in (0..slots[0].1.len()).step_by(step) {
        for (_, bytes) in &slots {
            let store = MemStore::from_state(fixture.clean.clone());
            for (other, other_bytes) in &slots {
                if other_bytes == bytes {
                    store.mutate(other, |bytes| bytes[at] ^= 1);
                }
            }
            let shared: Arc<dyn Store> = Arc::new(store);
            for secret in [Secret::raw(&RAW), Secret::password(PASSWORD)] {
                let state = folder.path().join("state");
                match open_as(&shared, &state, &secret, "machine") {
                    Ok(vault) => {
                        assert_eq!(vault.bad_objects().len(), 2);
                        opened += 1;
                    }
                    Err(VaultError::WrongSecret { .. } | VaultError::NoSlot { .. }) => refused += 1,
                    Err(error) => panic!("byte {at}: {error}"),
                }
            }
        }
    }
    println!("key slots with both copies damaged: {opened} opened by the other slot, {refused} refused");
    assert_eq!(opened, refused, "each secret opens while its own slot is whole");
}

/// A VAULT file that is sound, but belongs to another vault: the key slots override it.
#[test]
fn the_vault_file_of_another_vault_locks_nobody_out() {
    let fixture = fixture();
    let other = World::new(small_chunks());
    let bytes = other.store.get(&ObjectKey::Vault, 4096).unwrap();
    let store = MemStore::from_state(fixture.clean.clone());
    store.replace(ObjectKey::Vault, bytes);
    let (noticed, vault) = judge(&fixture, &store, &[ObjectKey::Vault], &fixture.world.folder.path().join("again"));
    assert_eq!(noticed, Noticed::AtOpen);
    assert_eq!(vault.unwrap().snapshots().len(), 3);
}

/// The catalogue is a cache that is kept on this machine: a bit that flips in it never becomes wrong data, and the next
/// opening of the vault repairs the damage.
#[test]
fn a_flipped_bit_in_the_catalogue_gives_no_wrong_data() {
    let fixture = fixture();
    let warm = fixture.world.state();
    let id = fs::read_dir(&warm).unwrap().next().unwrap().unwrap().file_name();
    let catalogue = fs::read(warm.join(&id).join("catalogue.redb")).unwrap();
    let used: Vec<usize> = (0..catalogue.len()).filter(|at| catalogue[*at] != 0).collect();
    let step = if campaign() > 0 { 1 } else { used.len() / 400 };
    let cases: Vec<usize> = used.into_iter().step_by(step).collect();
    let folder = scratch();
    let disturbed = AtomicU64::new(0);
    // A panic is caught below, so wrong data is noted here.
    let wrong = std::sync::Mutex::new(Vec::new());
    let shared: Arc<dyn Store> = Arc::new(MemStore::from_state(fixture.clean.clone()));
    // Reads everything; returns whether all was read. redb may panic on damage, which the caller catches.
    let is_whole = |at: usize, state: &Path| {
        let read = || {
            let Ok(vault) = open_vault(&shared, state) else { return false };
            assert!(vault.bad_objects().is_empty(), "byte {at}: {:?}", vault.bad_objects());
            let snapshots = vault.snapshots();
            let mut whole = snapshots.len() == fixture.bodies.len();
            for snapshot in &snapshots {
                if fixture.bodies.get(&snapshot.id) != Some(&snapshot.body) {
                    wrong.lock().unwrap().push(format!("byte {at}: the record of {} is wrong", snapshot.id));
                    return false;
                }
                let read = of_snapshot(&vault, &snapshot.body);
                for (path, node) in read.nodes {
                    let expected = fixture.world.expected[&snapshot.id].get(&path).cloned();
                    if expected
                        != Some(Node { first_name: expected.as_ref().and_then(|node| node.first_name.clone()), ..node })
                    {
                        wrong.lock().unwrap().push(format!("byte {at}: {path:?} is wrong"));
                    }
                }
                whole &= read.errors.is_empty();
            }
            whole
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or(false)
    };
    each(&cases, |_, at| {
        let state = folder.path().join(at.to_string());
        copy_folder(&warm, &state);
        let mut bytes = catalogue.clone();
        bytes[*at] ^= 1 << (at % 8);
        fs::write(state.join(&id).join("catalogue.redb"), bytes).unwrap();
        if !is_whole(*at, &state) {
            disturbed.fetch_add(1, Relaxed);
            assert!(is_whole(*at, &state), "byte {at}: the catalogue was not rebuilt");
        }
        fs::remove_dir_all(&state).unwrap();
    });
    assert_eq!(*wrong.lock().unwrap(), Vec::<String>::new());
    println!("flips in the catalogue: {} cases, {} noticed in use", cases.len(), disturbed.load(Relaxed));
}
