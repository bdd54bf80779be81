//! Which slots stay when slots are added and removed, and who can open the vault afterwards.

use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;
use crate::engine::check::{CheckOptions, check};
use crate::engine::repair::{RepairOptions, execute, plan};
use crate::progress::Silent;
use crate::seal::SLOT_LEN;
use crate::store::gated::GatedStore;
use crate::store::testing::faulty::{Fault, FaultyStore, Leaves};
use crate::store::testing::mem::MemStore;
use crate::store::testing::synced::SyncedWorld;
use crate::vault::create::create;
use crate::vault::open::open;
use crate::vault::{CreateOptions, Identity, OpenOptions};

const CHEAP: KdfParams = KdfParams::Explicit { memory_kib: 19 << 10, passes: 1, lanes: 1 };

fn clock() -> Time {
    Time { secs: 1_800_000_000, nanos: 0 }
}

fn secret(number: u8) -> Secret {
    Secret::raw(&[number; 32])
}

/// Creates a vault that secret 1 opens.
fn make(store: &dyn Store, delivery: Delivery) {
    let options = CreateOptions {
        secret: secret(1),
        label: "one".to_owned(),
        kdf: CHEAP,
        params: crate::chunk::ChunkParams::default(),
        delivery,
        now: 0,
        recovery: None,
    };
    create(store, &options).unwrap();
}

/// Opens it on a machine with this name.
fn enter(store: &Arc<dyn Store>, state: &TempDir, machine: &str, number: u8) -> Result<Vault, VaultError> {
    let identity = Identity { host: machine.into(), user: "u".into(), machine: machine.into(), program: "p".into() };
    let options = OpenOptions::new(state.path().join(machine), identity);
    open(store.clone(), &secret(number), options, &Silent::default())
}

fn put(vault: &Vault, number: u8) -> Result<SlotId, KeyError> {
    add(vault, &secret(number), Purpose::Recovery, "more", CHEAP, clock(), &Silent::default())
}

fn take(vault: &Vault, id: SlotId) -> Result<Removal, KeyError> {
    remove(vault, id, When::Known, clock(), &Silent::default())
}

/// Those of the secrets 1 to 5 that open the vault.
fn opening(store: &Arc<dyn Store>) -> Vec<u8> {
    let state = tempfile::tempdir().unwrap();
    (1..=5).filter(|number| enter(store, &state, &format!("looker {number}"), *number).is_ok()).collect()
}

fn states(vault: &Vault) -> Vec<SlotState> {
    list(vault).unwrap().iter().map(|slot| slot.state).collect()
}

/// The slot with another id and a matching checksum, as anyone who can write to the store could make it.
fn forged(slot: &SlotFile, id: u8) -> Vec<u8> {
    let mut bytes = slot.as_bytes()[..SLOT_LEN - 32].to_vec();
    bytes[40..56].fill(id);
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

#[test]
fn a_removed_slot_is_gone_even_after_a_power_cut() {
    let state = tempfile::tempdir().unwrap();
    let faulty = Arc::new(FaultyStore::new(MemStore::new()).with(Fault::UndoDeletes));
    let store: Arc<dyn Store> = faulty.clone();
    make(store.as_ref(), Delivery::Direct);
    let vault = enter(&store, &state, "a", 1).unwrap();
    let first = vault.opened_by();
    put(&vault, 2).unwrap();
    assert_eq!(take(&vault, first).unwrap(), Removal::Gone);
    faulty.cut_power().unwrap();
    assert_eq!(opening(&store), [2]);
    let changed = change(&vault, &secret(2), &secret(3), CHEAP, When::Known, clock(), &Silent::default()).unwrap();
    assert_eq!(changed.old, Removal::Gone);
    faulty.cut_power().unwrap();
    assert_eq!(opening(&store), [3]);
    assert_eq!(states(&vault), [SlotState::Valid]);
}

#[test]
fn a_removal_that_could_not_be_made_durable_is_made_so_by_the_next_one() {
    let state = tempfile::tempdir().unwrap();
    let faulty = Arc::new(FaultyStore::new(MemStore::new()).with(Fault::UndoDeletes));
    let store: Arc<dyn Store> = faulty.clone();
    make(store.as_ref(), Delivery::Direct);
    let vault = enter(&store, &state, "a", 1).unwrap();
    let first = vault.opened_by();
    put(&vault, 2).unwrap();
    // Write the record, then delete the two files: the second deletion fails.
    let write = faulty.counts().writes + 2;
    faulty.add(Fault::FailAtWrite { write, leaves: Leaves::Nothing });
    assert!(matches!(take(&vault, first), Err(KeyError::Store(_))));
    assert_eq!(settle(&vault, clock(), &Silent::default()).unwrap(), [first]);
    faulty.cut_power().unwrap();
    assert_eq!(opening(&store), [2]);
    assert_eq!(settle(&vault, clock(), &Silent::default()).unwrap(), []);
}

#[test]
fn the_last_slot_that_a_person_can_use_stays() {
    let state = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemStore::new());
    make(store.as_ref(), Delivery::Direct);
    let vault = enter(&store, &state, "a", 1).unwrap();
    let first = vault.opened_by();
    assert!(matches!(take(&vault, first), Err(KeyError::Last(id)) if id == first));
    // A device key does not count.
    let device = add_device(&vault, "laptop", clock(), &Silent::default()).unwrap();
    assert!(matches!(take(&vault, first), Err(KeyError::Last(_))));
    assert_eq!(take(&vault, device).unwrap(), Removal::Gone);
    let second = put(&vault, 2).unwrap();
    take(&vault, first).unwrap();
    assert!(matches!(take(&vault, second), Err(KeyError::Last(_))));
    assert!(matches!(take(&vault, first), Err(KeyError::NoSuchSlot(_))));
    assert_eq!(opening(&store), [2]);
}

#[test]
fn slots_that_were_made_without_the_key_count_for_nothing_and_hide_nothing() {
    let state = tempfile::tempdir().unwrap();
    let mem = MemStore::new();
    let store: Arc<dyn Store> = Arc::new(mem.clone());
    make(store.as_ref(), Delivery::Direct);
    let slot = Slots::read(store.as_ref()).unwrap().copies.remove(0).1;
    for number in 0..60 {
        // Names that sort first, and ids of this vault and of another one.
        let mut bytes = forged(&slot, number);
        if number % 2 == 1 {
            bytes = {
                let mut other = bytes[..SLOT_LEN - 32].to_vec();
                other[24..40].fill(number);
                let checksum = blake3::hash(&other);
                other.extend_from_slice(checksum.as_bytes());
                other
            };
        }
        let mut name = [0; 16];
        name[15] = number;
        mem.replace(ObjectKey::Named(Kind::Key, ObjectName::new(name)), bytes);
    }
    let vault = enter(&store, &state, "a", 1).unwrap();
    let (slots, count) = list_all(&vault).unwrap();
    assert_eq!((slots.len(), count), (1, 30));
    assert!(matches!(take(&vault, slots[0].id), Err(KeyError::Last(_))));
    put(&vault, 2).unwrap();
    assert_eq!(opening(&store), [1, 2]);
}

#[test]
fn a_slot_whose_adding_failed_opens_nothing() {
    for leaves in [Leaves::Nothing, Leaves::Half, Leaves::Whole] {
        let mut tried = 0;
        loop {
            let state = tempfile::tempdir().unwrap();
            let faulty = Arc::new(FaultyStore::new(MemStore::new()));
            let store: Arc<dyn Store> = faulty.clone();
            make(store.as_ref(), Delivery::Direct);
            let vault = enter(&store, &state, "a", 1).unwrap();
            let write = faulty.counts().writes + tried;
            faulty.add(Fault::FailAtWrite { write, leaves });
            let added = put(&vault, 2).is_ok();
            faulty.heal();
            assert_eq!(opening(&store), if added { vec![1, 2] } else { vec![1] }, "write {tried}, leaving {leaves:?}");
            if added {
                break;
            }
            tried += 1;
        }
        assert_eq!(tried, 5, "a join, the record of the first slot, two copies, the record");
    }
}

#[test]
fn a_password_that_could_not_be_changed_is_the_old_one() {
    for tried in 0.. {
        let state = tempfile::tempdir().unwrap();
        let faulty = Arc::new(FaultyStore::new(MemStore::new()));
        let store: Arc<dyn Store> = faulty.clone();
        make(store.as_ref(), Delivery::Direct);
        let vault = enter(&store, &state, "a", 1).unwrap();
        let write = faulty.counts().writes + tried;
        faulty.add(Fault::FailAtWrite { write, leaves: Leaves::Nothing });
        let changed = change(&vault, &secret(1), &secret(2), CHEAP, When::Known, clock(), &Silent::default());
        faulty.heal();
        match (changed, opening(&store).as_slice()) {
            (Ok(_), [2]) => break,
            (Err(_), [1]) => assert!(tried < 5, "write {tried}"),
            // The new slot is valid by its record, and the old one is removed: the next command deletes its files.
            (Err(_), [1, 2]) => {
                assert!(tried >= 5, "write {tried}");
                settle(&vault, clock(), &Silent::default()).unwrap();
                assert_eq!(opening(&store), [2]);
            }
            // One of two copies was deleted: the other one still opens.
            (changed, opens) => panic!("write {tried}: {changed:?} {opens:?}"),
        }
    }
}

#[test]
fn a_slot_that_is_put_back_is_told_and_never_copied() {
    let state = tempfile::tempdir().unwrap();
    let mem = MemStore::new();
    let store: Arc<dyn Store> = Arc::new(mem.clone());
    make(store.as_ref(), Delivery::Direct);
    let vault = enter(&store, &state, "a", 1).unwrap();
    let first = vault.opened_by();
    put(&vault, 2).unwrap();
    let old: Vec<_> = mem
        .objects()
        .into_iter()
        .filter(|(key, bytes)| {
            matches!(key, ObjectKey::Named(Kind::Key, _)) && SlotFile::parse(bytes).is_ok_and(|slot| slot.id() == first)
        })
        .collect();
    take(&vault, first).unwrap();
    // Put back one of its two files.
    mem.replace(old[0].0, old[0].1.clone());
    let vault = enter(&store, &state, "a", 1).unwrap();
    assert_eq!(returned(&vault), [first]);
    assert_eq!(states(&vault), [SlotState::Removed, SlotState::Valid]);
    let options = CheckOptions { read_data: true, sample: None, max_time: None, clock: &clock, threads: 1 };
    let report = check(&vault, &options, &Silent::default()).unwrap();
    assert!(report.returned_slots.contains(&first) && report.has_remarks() && !report.is_damaged());
    // Settling earlier removals deletes no file that was put back.
    assert_eq!(settle(&vault, clock(), &Silent::default()).unwrap(), []);
    assert_eq!(opening(&store), [1, 2]);
    let options = RepairOptions { read_data: false, of_others: true, clock: &clock, threads: 1, from: None };
    let planned = plan(&vault, &options, &Silent::default()).unwrap();
    assert!(planned.slot_copies.is_empty() && planned.aside.len() == 1);
    execute(&vault, planned, &options, &Silent::default()).unwrap();
    assert_eq!(opening(&store), [2]);
    // Or it is removed again.
    mem.replace(old[1].0, old[1].1.clone());
    assert_eq!(take(&vault, first).unwrap(), Removal::Gone);
    assert_eq!(opening(&store), [2]);
}

#[test]
fn the_first_record_says_which_slots_there_were() {
    let state = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemStore::new());
    make(store.as_ref(), Delivery::Direct);
    let vault = enter(&store, &state, "a", 1).unwrap();
    assert!(!vault.slot_set().exists());
    assert_eq!(states(&vault), [SlotState::Valid]);
    vault.publish(RecordBody::Forget(Vec::new()), clock(), None, |_| true, &Silent::default()).unwrap();
    assert!(vault.slot_set().exists());
    assert_eq!(states(&vault), [SlotState::Valid]);
    // A slot without a record that appears later is made valid only by its maker, and is never moved.
    let other = SlotFile::create(vault.keyring(), &secret(2), Purpose::Recovery, "late", 5, CHEAP).unwrap();
    put_slot(store.as_ref(), &other).unwrap();
    vault.publish(RecordBody::Forget(Vec::new()), clock(), None, |_| true, &Silent::default()).unwrap();
    assert_eq!(states(&vault), [SlotState::Valid, SlotState::Pending]);
    let options = RepairOptions { read_data: false, of_others: true, clock: &clock, threads: 1, from: None };
    assert!(plan(&vault, &options, &Silent::default()).unwrap().is_empty());
    assert_eq!(opening(&store), [1, 2]);
}

#[test]
fn two_machines_that_remove_each_others_slot_leave_one_on_a_direct_store() {
    let state = tempfile::tempdir().unwrap();
    let mem: Arc<dyn Store> = Arc::new(MemStore::new());
    make(mem.as_ref(), Delivery::Direct);
    let b = enter(&mem, &state, "b", 1).unwrap();
    let first = b.opened_by();
    let second = put(&b, 2).unwrap();
    // After A has checked, and before it puts its record, B does its whole removal.
    let other: Arc<Mutex<Option<Vault>>> = Arc::new(Mutex::new(None));
    let (turn, armed) = (other.clone(), Arc::new(Mutex::new(false)));
    let trigger = armed.clone();
    let gated: Arc<dyn Store> = Arc::new(GatedStore::new(mem.clone(), move |key, _| {
        if matches!(key, ObjectKey::Named(Kind::Log, _)) && std::mem::take(&mut *trigger.lock().unwrap()) {
            let vault = turn.lock().unwrap().take().unwrap();
            assert_eq!(take(&vault, first).unwrap(), Removal::Gone);
        }
        Ok(())
    }));
    let a = enter(&gated, &state, "a", 1).unwrap();
    a.publish(RecordBody::Forget(Vec::new()), clock(), None, |_| true, &Silent::default()).unwrap();
    *other.lock().unwrap() = Some(b);
    *armed.lock().unwrap() = true;
    assert!(matches!(take(&a, second), Err(KeyError::Crossed(id)) if id == second));
    assert_eq!(opening(&mem), [2]);
    let again = enter(&mem, &state, "a", 2).unwrap();
    // By the names of the two records the other removal may be void, though its slot is gone: it is shown as missing.
    let mut left = states(&again);
    left.retain(|state| *state != SlotState::Missing);
    assert_eq!(left, [SlotState::Valid], "it is valid again by a record");
}

#[test]
fn two_machines_that_remove_each_others_slot_leave_one_in_a_synced_folder() {
    let state = tempfile::tempdir().unwrap();
    let world = SyncedWorld::new(2);
    let views: Vec<Arc<dyn Store>> =
        (0..2).map(|number| Arc::new(world.view(number).unwrap()) as Arc<dyn Store>).collect();
    make(views[0].as_ref(), Delivery::Synced);
    let say = |vault: &Vault| {
        vault.publish(RecordBody::Forget(Vec::new()), clock(), None, |_| true, &Silent::default()).unwrap();
        world.deliver_all();
    };
    world.deliver_all();
    let a = enter(&views[0], &state, "a", 1).unwrap();
    let first = a.opened_by();
    say(&a);
    let second = put(&a, 2).unwrap();
    world.deliver_all();
    let b = enter(&views[1], &state, "b", 2).unwrap();
    for vault in [&b, &a, &b, &a] {
        say(vault);
    }
    // Neither machine knows of the other's removal.
    assert!(matches!(take(&a, second).unwrap(), Removal::Waiting(clients) if clients.len() == 1));
    assert!(matches!(take(&b, first).unwrap(), Removal::Waiting(_)));
    for _ in 0..3 {
        world.deliver_all();
        for vault in [&a, &b] {
            say(vault);
            settle(vault, clock(), &Silent::default()).unwrap();
        }
    }
    world.deliver_all();
    let left = opening(&views[0]);
    assert_eq!((left.len(), &left), (1, &opening(&views[1])));
    let last = enter(&views[0], &state, "a", left[0]).unwrap();
    assert_eq!(states(&last), [SlotState::Valid]);
    // Without a crossing removal, a removal waits for the others and is then completed.
    put(&last, 5).unwrap();
    world.deliver_all();
    for vault in [&b, &last, &b] {
        say(vault);
    }
    let gone = last.opened_by();
    assert!(matches!(take(&last, gone).unwrap(), Removal::Waiting(_)));
    assert_eq!(opening(&views[0]).len(), 2);
    for vault in [&b, &last] {
        world.deliver_all();
        say(vault);
    }
    assert_eq!(settle(&last, clock(), &Silent::default()).unwrap(), [gone]);
    assert_eq!(opening(&views[0]), [5]);
}

#[test]
fn a_stolen_password_can_be_removed_at_once_in_a_synced_folder() {
    let state = tempfile::tempdir().unwrap();
    let world = SyncedWorld::new(2);
    let views: Vec<Arc<dyn Store>> =
        (0..2).map(|number| Arc::new(world.view(number).unwrap()) as Arc<dyn Store>).collect();
    make(views[0].as_ref(), Delivery::Synced);
    world.deliver_all();
    let (a, b) = (enter(&views[0], &state, "a", 1).unwrap(), enter(&views[1], &state, "b", 1).unwrap());
    let first = a.opened_by();
    for vault in [&a, &b] {
        vault.publish(RecordBody::Forget(Vec::new()), clock(), None, |_| true, &Silent::default()).unwrap();
        world.deliver_all();
    }
    put(&a, 2).unwrap();
    let removed = remove(&a, first, When::Now, clock(), &Silent::default());
    assert_eq!(removed.unwrap(), Removal::Gone);
    assert_eq!(opening(&views[0]), [2]);
}
