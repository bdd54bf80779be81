//! Repair against every sort of damage to every object: afterwards only truly lost data is missing, which is named, and
//! the next snapshot brings back everything that is still on the disk. A repair that is interrupted at any write, and
//! again in the recovery, does no harm.
//!
//! By default each object is damaged in nine ways, and a part of the writes is cut again; `VAULT_CAMPAIGN=n` cuts all
//! of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault::engine::check::{CheckOptions, CheckReport, check};
use vault::engine::repair::{RepairError, RepairOptions, RepairPlan, RepairReport, execute, plan};
use vault::id::ObjectName;
use vault::progress::Silent;
use vault::store::testing::faulty::{Fault, FaultyStore, Leaves};
use vault::store::testing::mem::{MemState, MemStore};
use vault::store::{Kind, ObjectKey, Store};
use vault::vault::Vault;

use crate::support::model::{Model, of_snapshot};
use crate::support::source::{Size, bytes, plant};
use crate::support::{
    THREADS, World, campaign, check_all, copy_folder, each, now, open_as, open_vault, scratch, small_chunks, take,
};

const OPTIONS: RepairOptions<'static> = {
    let mut options = RepairOptions::new(&now);
    options.read_data = true;
    options.of_others = true;
    options.threads = THREADS;
    options
};

fn repair(vault: &Vault) -> Result<RepairReport, RepairError> {
    let planned = plan(vault, &OPTIONS, &Silent::default())?;
    execute(vault, planned, &OPTIONS, &Silent::default())
}

fn look(vault: &Vault) -> RepairPlan {
    plan(vault, &OPTIONS, &Silent::default()).unwrap()
}

fn check_vault(vault: &Vault) -> CheckReport {
    let mut options = CheckOptions::new(&now);
    options.read_data = true;
    options.threads = THREADS;
    check(vault, &options, &Silent::default()).unwrap()
}

/// A vault of three snapshots, the last of which equals the disk.
struct Fixture {
    world: World,
    clean: MemState,
}

fn fixture(seed: u64) -> Fixture {
    let mut world = World::new(small_chunks());
    plant(&world.source(), seed, Size::Tiny);
    for round in 0..3 {
        for file in 0..3 {
            fs::write(world.source().join(format!("extra {file}")), bytes(seed + round * file, 20_000)).unwrap();
        }
        world.take();
    }
    copy_folder(&world.state(), &world.folder.path().join("saved"));
    Fixture { clean: world.store.snapshot(), world }
}

impl Fixture {
    /// A copy of the vault, and of this machine's state in a folder of its own.
    fn copy(&self, state: &Path) -> Arc<FaultyStore<MemStore>> {
        fs::remove_dir_all(state).unwrap_or_default();
        copy_folder(&self.world.folder.path().join("saved"), state);
        Arc::new(FaultyStore::new(MemStore::from_state(self.clean.clone())))
    }

    fn packs(&self) -> Vec<ObjectKey> {
        let objects = MemStore::from_state(self.clean.clone()).objects();
        let is_pack = |key: &ObjectKey| matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _));
        objects.into_iter().map(|(key, _)| key).filter(is_pack).collect()
    }

    /// Everything that can be read is unchanged; unreadable files are named by `hurt`.
    fn check_read(&self, vault: &Vault, hurt: &BTreeMap<ObjectName, u64>, what: &str) {
        for snapshot in vault.snapshots() {
            let Some(expected) = self.world.expected.get(&snapshot.id) else { continue };
            let read = of_snapshot(vault, &snapshot.body);
            assert_eq!(!read.errors.is_empty(), hurt.contains_key(&snapshot.id), "{what}: {:?}", read.errors);
            check_nodes(expected, read.nodes, what);
        }
    }
}

fn check_nodes(expected: &Model, mut found: Model, what: &str) {
    for (path, node) in &mut found {
        let expected = expected.get(path).unwrap_or_else(|| panic!("{what}: {path:?} was never there"));
        node.first_name.clone_from(&expected.first_name);
        assert_eq!(node, expected, "{what}: {path:?}");
    }
}

/// Harm to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Removed,
    Wiped,
    CutByOne,
    Halved,
    Longer,
    Header,
    Middle,
    Frame,
    Checksum,
}

const HARMS: [Harm; 9] = [
    Harm::Removed,
    Harm::Wiped,
    Harm::CutByOne,
    Harm::Halved,
    Harm::Longer,
    Harm::Header,
    Harm::Middle,
    Harm::Frame,
    Harm::Checksum,
];

fn apply(store: &MemStore, key: &ObjectKey, harm: Harm) {
    let done = match harm {
        Harm::Removed => store.remove(key).is_some(),
        Harm::Wiped => store.mutate(key, |bytes| bytes.fill(0)),
        Harm::CutByOne => store.mutate(key, |bytes| bytes.truncate(bytes.len() - 1)),
        Harm::Halved => store.mutate(key, |bytes| bytes.truncate(bytes.len() / 2)),
        Harm::Longer => store.mutate(key, |bytes| bytes.extend([7; 100])),
        Harm::Header => store.mutate(key, |bytes| bytes[60] ^= 1),
        Harm::Middle => store.mutate(key, |bytes| bytes[400] ^= 4),
        Harm::Frame => store.mutate(key, |bytes| {
            let at = bytes.len() - 60;
            bytes[at] ^= 1;
        }),
        Harm::Checksum => store.mutate(key, |bytes| {
            let at = bytes.len() - 5;
            bytes[at] ^= 1;
        }),
    };
    assert!(done);
}

#[test]
fn a_vault_that_is_whole_needs_no_repair() {
    let fixture = fixture(1);
    let store = fixture.copy(&fixture.world.state());
    let shared: Arc<dyn Store> = store.clone();
    for state in [fixture.world.state(), scratch().path().to_owned()] {
        let vault = open_vault(&shared, &state).unwrap();
        let before = store.counts().writes;
        let planned = look(&vault);
        assert!(planned.is_empty() && !planned.has_losses() && planned.catalogue == 0, "{planned:?}");
        assert_eq!(store.counts().writes, before);
    }
}

#[test]
fn after_any_damage_only_what_is_lost_is_missing_and_the_next_snapshot_brings_it_back() {
    let fixture = fixture(2);
    let last = fixture.world.open().snapshots().last().unwrap().id;
    let objects = MemStore::from_state(fixture.clean.clone()).objects();
    let cases: Vec<(ObjectKey, Harm, bool)> = objects
        .iter()
        .flat_map(|(key, _)| HARMS.map(|harm| [(*key, harm, false), (*key, harm, true)]))
        .flatten()
        // With a warm catalogue it matters less where an object is damaged.
        .filter(|(_, harm, warm)| {
            campaign() > 0 || !warm || !matches!(harm, Harm::Wiped | Harm::CutByOne | Harm::Longer)
        })
        .collect();
    let folder = scratch();
    each(&cases, |number, (key, harm, warm)| {
        let what = format!("{key} {harm:?}, with a catalogue: {warm}");
        let state = folder.path().join(number.to_string());
        let store = fixture.copy(&state);
        if !warm {
            fs::remove_dir_all(&state).unwrap();
        }
        apply(store.inner(), key, *harm);
        let shared: Arc<dyn Store> = store.clone();
        let vault = open_vault(&shared, &state).unwrap_or_else(|error| panic!("{what}: {error}"));
        let planned = look(&vault);
        let is_log = matches!(key, ObjectKey::Named(Kind::Log, _));
        let is_index = matches!(key, ObjectKey::Named(Kind::Index, _));
        let leaves_no_trace = *harm == Harm::Removed && (is_index || is_log && !warm);
        // Readers of a missing pack name it; a missing record is noticed only by those who knew it. Nobody notices a
        // missing index object.
        assert!(!planned.is_empty() || leaves_no_trace, "{what}: {planned:?}");
        let hurt: BTreeMap<ObjectName, u64> = planned.hurt.iter().map(|hurt| (hurt.id, hurt.count)).collect();
        let quarantined = planned.packs.len() + planned.aside.len();
        let is_vault_damaged = *key == ObjectKey::Vault && *harm != Harm::Removed;
        execute(&vault, planned, &OPTIONS, &Silent::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(store.inner().quarantined().len(), quarantined + usize::from(is_vault_damaged), "{what}");
        let report = check_vault(&vault);
        assert_eq!(report.problems, [], "{what}");
        let still: BTreeMap<ObjectName, u64> = report.hurt.iter().map(|hurt| (hurt.id, hurt.count)).collect();
        assert_eq!(still, hurt, "{what}");
        fixture.check_read(&vault, &hurt, &what);
        let damage = vault.damage().unwrap();
        let marked: BTreeMap<ObjectName, u64> = damage.iter().map(|(id, damage)| (*id, damage.count)).collect();
        assert_eq!(marked, hurt, "{what}");
        assert!(damage.values().all(|damage| damage.files.len() as u64 == damage.count), "{what}");
        if is_log {
            let count = if *warm { 3 } else { vault.snapshots().len() };
            assert!(vault.snapshots().len() == count && count >= 2, "{what}: {count}");
        } else {
            assert_eq!(vault.snapshots().len(), 3, "{what}");
        }
        let again = look(&vault);
        assert!(again.is_empty(), "{what}: {again:?}");
        // Files that are still on the disk come back, in the old snapshots too.
        let id = take(&vault, &fixture.world.source()).unwrap().id.unwrap();
        for info in vault.snapshots().iter().filter(|info| info.id == id || info.id == last) {
            let read = of_snapshot(&vault, &info.body);
            assert!(read.errors.is_empty(), "{what}: {:?}", read.errors);
            crate::support::model::assert_same(&fixture.world.expected[&last], &read.nodes, &what);
        }
        assert!(!vault.damage().unwrap().contains_key(&last), "{what}");
        repair(&vault).unwrap();
        assert!(look(&vault).is_empty(), "{what}");
        // A machine that knows nothing finds the same.
        drop(vault);
        fs::remove_dir_all(&state).unwrap();
        let vault = open_as(&shared, &state, &vault::seal::Secret::raw(&crate::support::RAW), "another").unwrap();
        let report = check_vault(&vault);
        assert_eq!(report.problems, [], "{what}");
        assert!(report.hurt.iter().all(|hurt| hurt.id != last && hurt.id != id), "{what}");
        if is_log && *warm {
            assert!(vault.findings().is_empty(), "{what}: {:?}", vault.findings());
            check_all(&vault, &fixture.world.expected);
        }
        fs::remove_dir_all(&state).unwrap();
    });
    println!("kinds of damage repaired: {}", cases.len());
}

/// Damages several packs at once, each in another way, and the record of the second snapshot.
fn harm_much(fixture: &Fixture, store: &MemStore) {
    let harms = [Harm::Middle, Harm::Frame, Harm::Halved, Harm::Header, Harm::Checksum];
    for (key, harm) in fixture.packs().iter().zip(harms.iter().cycle()) {
        apply(store, key, *harm);
    }
    apply(store, &ObjectKey::Vault, Harm::Wiped);
    let objects = store.objects();
    let of_kind = |kind: Kind| {
        objects.iter().map(|(key, _)| *key).find(|key| matches!(key, ObjectKey::Named(k, _) if *k == kind))
    };
    apply(store, &of_kind(Kind::Key).unwrap(), Harm::Middle);
    apply(store, &of_kind(Kind::Log).unwrap(), Harm::Middle);
}

#[test]
fn a_repair_cut_at_any_write_does_no_harm_and_is_finished_by_the_next() {
    let fixture = fixture(3);
    let state = fixture.world.state();
    let begin = || -> (Arc<FaultyStore<MemStore>>, Arc<dyn Store>) {
        let store = fixture.copy(&state);
        harm_much(&fixture, store.inner());
        let shared: Arc<dyn Store> = store.clone();
        (store, shared)
    };
    let (store, shared) = begin();
    let vault = open_vault(&shared, &state).unwrap();
    let expected: BTreeMap<ObjectName, u64> = look(&vault).hurt.iter().map(|hurt| (hurt.id, hurt.count)).collect();
    assert!(!expected.is_empty());
    let before = store.counts().writes;
    repair(&vault).unwrap();
    let writes = store.counts().writes - before;
    assert!(writes > 8, "{writes}");
    drop(vault);
    let attempt = |store: &Arc<FaultyStore<MemStore>>, shared: &Arc<dyn Store>, write: u64, leaves| {
        store.heal();
        store.add(Fault::CutAtWrite { write: store.counts().writes + write, leaves });
        let vault = open_vault(shared, &state).unwrap();
        let _ = repair(&vault);
    };
    let survives = |store: &Arc<FaultyStore<MemStore>>, shared: &Arc<dyn Store>, what: &str| {
        store.heal();
        let vault = open_vault(shared, &state).unwrap_or_else(|error| panic!("{what}: {error}"));
        repair(&vault).unwrap_or_else(|error| panic!("{what}: {error}"));
        let report = check_vault(&vault);
        assert_eq!(report.problems, [], "{what}");
        let hurt: BTreeMap<ObjectName, u64> = report.hurt.iter().map(|hurt| (hurt.id, hurt.count)).collect();
        assert_eq!(hurt, expected, "{what}: more is lost than without the interruption");
        fixture.check_read(&vault, &hurt, what);
        assert!(look(&vault).is_empty(), "{what}");
        assert_eq!(vault.snapshots().len(), 3, "{what}");
    };
    let mut cuts = 0;
    for leaves in [Leaves::Nothing, Leaves::Half, Leaves::Whole] {
        for write in 0..writes {
            if campaign() == 0 && leaves == Leaves::Half && write % 3 > 0 {
                continue;
            }
            let (store, shared) = begin();
            attempt(&store, &shared, write, leaves);
            survives(&store, &shared, &format!("cut at write {write}, leaving {leaves:?}"));
            cuts += 1;
            let second = if campaign() > 0 { 0..writes } else { write % 4..write % 4 + u64::from(write % 3 == 0) };
            for again in second {
                let (store, shared) = begin();
                attempt(&store, &shared, write, leaves);
                attempt(&store, &shared, again, leaves);
                survives(&store, &shared, &format!("cut at write {write} and {again}, leaving {leaves:?}"));
                cuts += 1;
            }
        }
    }
    println!("repairs that were cut: {cuts}");
}

#[test]
fn a_footer_that_is_lost_costs_nothing() {
    let fixture = fixture(4);
    for warm in [false, true] {
        let state = fixture.world.state();
        let store = fixture.copy(&state);
        if !warm {
            fs::remove_dir_all(&state).unwrap();
        }
        for key in fixture.packs() {
            apply(store.inner(), &key, Harm::Frame);
        }
        let shared: Arc<dyn Store> = store.clone();
        let vault = open_vault(&shared, &state).unwrap();
        let planned = look(&vault);
        assert_eq!((planned.packs.len(), planned.hurt.len()), (fixture.packs().len(), 0));
        let report = execute(&vault, planned, &OPTIONS, &Silent::default()).unwrap();
        assert_eq!(report.moved_aside, fixture.packs().len() as u64);
        check_all(&vault, &fixture.world.expected);
        assert!(!check_vault(&vault).is_damaged());
    }
}

/// One client repairs while another one, which does not know of it, takes snapshots and prunes.
#[test]
fn two_clients_stay_right_over_a_repair() {
    let fixture = fixture(6);
    let state = fixture.world.state();
    let store = fixture.copy(&state);
    let shared: Arc<dyn Store> = store.clone();
    let elsewhere: PathBuf = fixture.world.folder.path().join("elsewhere");
    let other = open_as(&shared, &elsewhere, &vault::seal::Secret::raw(&crate::support::RAW), "another").unwrap();
    let theirs = fixture.world.folder.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::copy(fixture.world.source().join("extra 0"), theirs.join("same")).unwrap();
    take(&other, &theirs).unwrap();
    harm_much(&fixture, store.inner());
    let vault = open_vault(&shared, &state).unwrap();
    let planned = look(&vault);
    // It relies on the remaining packs, and has not seen the repair.
    fs::write(theirs.join("more"), bytes(9, 9000)).unwrap();
    let id = take(&other, &theirs).unwrap().id.unwrap();
    execute(&vault, planned, &OPTIONS, &Silent::default()).unwrap();
    let before = check_vault(&vault);
    assert_eq!(before.problems, []);
    take(&other, &theirs).unwrap();
    take(&vault, &fixture.world.source()).unwrap();
    let report = check_vault(&vault);
    assert!(report.hurt.iter().all(|hurt| hurt.id != id), "{:?}", report.hurt);
    assert!(report.hurt.len() <= before.hurt.len());
}

/// The program itself: its messages, its JSON, its exit codes.
#[test]
fn the_commands_tell_what_is_wrong_and_what_to_do() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("files")).unwrap();
    for file in 0..4 {
        fs::write(at("files").join(format!("{file}.bin")), bytes(file, 300_000)).unwrap();
    }
    let vault = |args: &[&str]| -> (i32, String, String) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vault"))
            .args(args)
            .current_dir(folder.path())
            .env_clear()
            .env("VAULT_REPO", at("repo"))
            .env("VAULT_STATE_DIR", at("state"))
            .env("VAULT_PASSWORD", "correct horse")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let json = |args: &[&str]| -> (i32, serde_json::Value) {
        let (code, out, err) = vault(args);
        (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}{err}")))
    };
    assert_eq!(vault(&["snapshot", "--init", "files"]).0, 0);
    let (code, doctor) = json(&["doctor", "--json"]);
    assert_eq!((code, doctor["well"].as_bool()), (3, Some(false)), "{doctor}");
    let (_, text, _) = vault(&["doctor"]);
    assert!(text.contains("vault key add --recovery-key") && text.contains("vault check --read-data"), "{text}");
    assert_eq!(vault(&["key", "add", "--recovery-key"]).0, 0);
    assert_eq!(vault(&["check", "--read-data"]).0, 0);
    let (code, text, _) = vault(&["doctor"]);
    assert!(code == 0 && text.starts_with("The vault is well."), "{text}");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (code, text, _) = vault(&["doctor", "--overdue", "1s"]);
    assert!(code == 3 && text.contains("overdue") && text.contains("vault snapshot "), "{text}");
    let (code, stats) = json(&["stats", "--json"]);
    assert!(code == 0 && stats["bytes_raw"] == 1_200_000 && stats["snapshots"].as_array().unwrap().len() == 1);
    assert!(vault(&["stats", "--all"]).1.contains("Holds alone"));
    assert_eq!(vault(&["repair"]).0, 2, "nobody is there to be asked");
    let (code, text, _) = vault(&["repair", "--yes"]);
    assert_eq!((code, text.trim()), (0, "Nothing is damaged."));

    // A bit in the middle of the largest pack.
    let files = |below: &str| -> Vec<PathBuf> {
        let folders = fs::read_dir(at("repo").join(below)).unwrap().map(|entry| entry.unwrap().path());
        folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())).collect()
    };
    let pack = files("packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut content = fs::read(&pack).unwrap();
    content[5_000] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, content).unwrap();
    let (code, _, _) = vault(&["check", "--read-data"]);
    assert_eq!(code, 4);
    assert_eq!(vault(&["repair", "--quick", "--dry-run"]).0, 4, "its frame is whole, but the check is remembered");
    let (code, plan) = json(&["repair", "--dry-run", "--json"]);
    assert_eq!((code, plan["packs"].as_array().unwrap().len(), plan["hurt"].as_array().unwrap().len()), (4, 1, 1));
    assert!(pack.exists(), "a dry run changes nothing");
    let (code, done) = json(&["repair", "--yes", "--json"]);
    assert_eq!((code, done["moved_aside"].as_u64()), (4, Some(1)), "{done}");
    assert!(!pack.exists() && fs::read_dir(at("repo").join("quarantine")).unwrap().count() == 1);
    let (code, list) = json(&["list", "--json"]);
    assert_eq!((code, list["damaged"].as_array().unwrap().len()), (4, 1));
    assert!(vault(&["list"]).1.contains("damaged"));
    let (code, text, _) = vault(&["doctor"]);
    assert!(code == 4 && text.starts_with("The vault is damaged:"), "{text}");
    // The files still exist: the next snapshot repairs the first one.
    assert_eq!(vault(&["snapshot", "files"]).0, 0);
    assert_eq!(vault(&["check", "--read-data"]).0, 0);
    assert_eq!(vault(&["list"]).0, 0);
    assert_eq!(vault(&["repair", "--yes"]).0, 0);
    assert_eq!(vault(&["restore", "latest~1", "--to", "back"]).0, 0);
    for file in 0..4 {
        let name = format!("{file}.bin");
        assert_eq!(fs::read(at("back/files").join(&name)).unwrap(), fs::read(at("files").join(&name)).unwrap());
    }
}
