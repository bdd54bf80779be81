//! Tests of mirrors: their content, who may write to them, and their use when the vault is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vault::engine::mirror::{MirrorError, can_be_promoted, mirror, promote};
use vault::engine::repair::{self, RepairError, RepairOptions};
use vault::failure::{Exit, Failure};
use vault::progress::{Counters, Phase, Progress, Silent};
use vault::store::testing::faulty::{Fault, FaultyStore, Leaves};
use vault::store::testing::mem::MemStore;
use vault::store::{Kind, ObjectKey, Store};
use vault::vault::{LockedVault, VaultError, Wanted};

use crate::support::binary::{Desk, said};
use crate::support::s3::{FakeS3, KEY};
use crate::support::source::bytes;
use crate::support::terminal::{Terminal, can_drive};
use crate::support::{THREADS, World, copy_folder, now, open_vault, scratch, small_chunks};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Stops the work once this holds.
struct Once<F>(F, Silent);

fn once<F: Fn(&Counters) -> bool + Send + Sync>(holds: F) -> Once<F> {
    Once(holds, Silent::default())
}

impl<F: Fn(&Counters) -> bool + Send + Sync> Progress for Once<F> {
    fn phase(&self, _: Phase) {}

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        self.1.counters()
    }

    fn stopped(&self) -> bool {
        self.0(self.counters())
    }
}

#[test]
fn a_mirror_ends_between_any_two_objects() {
    let world = World::new(small_chunks());
    for number in 0..16 {
        fs::write(world.source().join("a"), bytes(number, 30_000)).unwrap();
        crate::support::take(&world.open(), &world.source()).unwrap();
    }
    let (from, to) = (world.shared(), MemStore::new());
    let stopped = mirror(from.as_ref(), &to, &Wanted::default(), &once(|counters| counters.files.load(Relaxed) > 0));
    assert!(matches!(stopped, Err(MirrorError::Vault(VaultError::Interrupted))), "{stopped:?}");
    let copied = to.objects().len();
    assert!((1..24).contains(&copied), "{copied} of some 60");
}

#[test]
fn a_mirror_can_be_opened_only_when_it_was_whole_once() {
    let world = World::new(small_chunks());
    for number in 0..4 {
        fs::write(world.source().join("a"), bytes(number, 30_000)).unwrap();
        crate::support::take(&world.open(), &world.source()).unwrap();
    }
    let from = world.shared();
    let whole = MemStore::new();
    mirror(from.as_ref(), &whole, &Wanted::default(), &Silent::default()).unwrap();
    let slots = |store: &MemStore| {
        store.objects().iter().filter(|(key, _)| matches!(key, ObjectKey::Named(Kind::Key, _))).count()
    };
    let (all, keys) = (whole.objects().len(), slots(&whole));
    assert!(keys > 0 && all > keys + 8, "{all} {keys}");
    let to = MemStore::new();
    for len in 1..all {
        let stopped = mirror(from.as_ref(), &to, &Wanted::default(), &once(|_| to.objects().len() >= len));
        assert!(matches!(stopped, Err(MirrorError::Vault(VaultError::Interrupted))), "{len}: {stopped:?}");
        assert_eq!(to.objects().len(), len);
        // Beside the slots there is VAULT.
        assert_eq!(slots(&to), len.saturating_sub(all - keys), "{len} of {all}");
        let locked = LockedVault::read(&to).unwrap().require_finished(&String::new);
        assert_eq!(matches!(locked, Err(VaultError::Unfinished { .. })), len <= all - keys, "{len} of {all}");
        let again = mirror(&to, &MemStore::new(), &Wanted::default(), &Silent::default());
        assert_eq!(again.is_ok(), len > all - keys, "{len} of {all}: {again:?}");
    }
    mirror(from.as_ref(), &to, &Wanted::default(), &Silent::default()).unwrap();
    assert_eq!(to.objects(), whole.objects());
    // A new slot comes first: it may be the only one whose password is still known.
    let to = MemStore::new();
    for (key, bytes) in whole.objects() {
        let is_first_slot = matches!(key, ObjectKey::Named(Kind::Key, _)) && slots(&to) == 0;
        if key == ObjectKey::Vault || is_first_slot {
            to.put(&key, bytes).unwrap();
        }
    }
    let stopped = mirror(from.as_ref(), &to, &Wanted::default(), &once(|_| to.objects().len() >= 3));
    assert!(stopped.is_err() && slots(&to) == 2, "{stopped:?}");
}

/// A vault with a snapshot, and a place for its mirror.
struct Mirrored {
    desk: Desk,
    store: PathBuf,
    mirror: PathBuf,
    to: String,
}

impl Mirrored {
    fn new() -> Self {
        let desk = Desk::new();
        desk.write("one", bytes(1, 200_000));
        desk.take("2026-01-01T12:00:00Z");
        let (store, mirror) = (desk.path("store"), desk.path("mirror"));
        let to = mirror.to_str().unwrap().to_owned();
        Self { desk, store, mirror, to }
    }

    /// Mirrors without a password, and returns the report.
    fn mirror(&self, code: i32) -> serde_json::Value {
        let mut command = self.desk.command(&["mirror", "--to", &self.to, "--json"]);
        let said = said(&command.env_remove("VAULT_PASSWORD").output().unwrap());
        assert_eq!(said.code, code, "{}{}", said.out, said.err);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// The file's content in the newest snapshot of the mirror.
    fn restored(&self) -> Vec<u8> {
        let to = self.desk.path("restored");
        let _ = fs::remove_dir_all(&to);
        self.desk.ok(&["restore", "latest", "--repo", &self.to, "--to", to.to_str().unwrap()]);
        fs::read(to.join("source/one")).unwrap()
    }

    fn check(&self) {
        let said = self.desk.ok(&["check", "--read-data", "--repo", &self.to]);
        assert!(said.contains("No damage was found."), "{said}");
    }

    fn packs(folder: &Path) -> Vec<PathBuf> {
        files(&folder.join("packs"))
    }
}

/// Replaces an object by other bytes.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_mirror_is_read_like_the_vault_and_written_by_nobody_else() {
    let all = Mirrored::new();
    let count = ["keys", "packs", "meta", "log", "index"].iter().map(|kind| all.store.join(kind));
    let count: usize = count.filter(|folder| folder.exists()).map(|folder| files(&folder).len()).sum();
    let first = all.mirror(0);
    assert_eq!((&first["copied"], &first["there"]), (&count.into(), &0.into()), "{first}");
    let again = all.mirror(0);
    assert_eq!((&again["copied"], &again["there"]), (&0.into(), &count.into()), "{again}");
    assert_eq!(all.restored(), bytes(1, 200_000));
    // Objects seen in the vault are not reported as missing from the mirror.
    all.desk.write("one", bytes(2, 200_000));
    all.desk.take("2026-01-02T12:00:00Z");
    all.check();
    assert_eq!(all.restored(), bytes(1, 200_000));
    let before = files(&all.mirror);
    for args in [
        &["snapshot", ".", "--repo", &all.to][..],
        &["prune", "--keep", "1", "--yes", "--repo", &all.to],
        &["key", "add", "--recovery-key", "--repo", &all.to],
        &["pin", "latest", "--repo", &all.to],
    ] {
        let said = all.desk.run(args);
        assert_eq!(said.code, 1, "{args:?}: {}{}", said.out, said.err);
        assert!(said.err.contains("only read") && said.err.contains("vault promote"), "{args:?}: {}", said.err);
    }
    assert_eq!(files(&all.mirror), before);
    let second = all.mirror(0);
    assert!(second["copied"].as_u64().unwrap() >= 3 && second["there"] == count, "{second}");
    assert_eq!(all.restored(), bytes(2, 200_000));
    assert_eq!(all.desk.run(&["mirror", "--to", all.store.to_str().unwrap()]).code, 2, "no mirror of itself");
}

#[test]
fn a_mirror_that_is_away_is_not_made_again_unasked() {
    let all = Mirrored::new();
    all.mirror(0);
    let aside = all.desk.path("aside");
    fs::rename(&all.mirror, &aside).unwrap();
    fs::create_dir(&all.mirror).unwrap();
    let said = all.desk.run(&["mirror", "--to", &all.to]);
    assert!(said.code == 10 && said.err.contains("--another"), "{} {}", said.code, said.err);
    assert_eq!(files(&all.mirror), Vec::<PathBuf>::new());
    assert!(all.desk.ok(&["mirror", "--to", &all.to, "--another"]).contains("0 there before"));
    all.check();
    // Another vault in the vault's place is not copied either.
    let other = Desk::new();
    fs::rename(&all.store, all.desk.path("away")).unwrap();
    copy_folder(&other.path("store"), &all.store);
    let said = all.desk.run(&["mirror", "--to", all.desk.path("third").to_str().unwrap()]);
    assert!(said.code == 10 && said.err.contains("another vault"), "{} {}", said.code, said.err);
}

#[test]
fn a_mirror_whose_first_run_was_cut_off_is_called_that() {
    let all = Mirrored::new();
    all.mirror(0);
    let keys = all.desk.path("keys");
    fs::rename(all.mirror.join("keys"), &keys).unwrap();
    let (third, restored) = (all.desk.path("third"), all.desk.path("restored"));
    let (third, restored) = (third.to_str().unwrap(), restored.to_str().unwrap());
    for args in [
        &["list"][..],
        &["check"],
        &["check", "--read-data"],
        &["doctor"],
        &["stats"],
        &["ls", "latest"],
        &["find", "one"],
        &["restore", "latest", "--to", restored],
        &["export", "latest", "--tar", "x.tar"],
        &["drill"],
        &["snapshot", "."],
        &["prune", "--keep", "1", "--yes"],
        &["repair", "--dry-run"],
        &["repair", "--yes"],
        &["key", "list"],
        &["promote", "--yes"],
        &["mirror", "--to", third],
    ] {
        let args = [args, &["--repo", &all.to]].concat();
        let said = all.desk.run(&args);
        assert_eq!(said.code, 3, "{args:?}: {}{}", said.out, said.err);
        assert!(said.err.contains("is not whole") && said.err.contains("vault mirror --to"), "{args:?}: {}", said.err);
    }
    for args in [&["repair", "--from", &all.to, "--dry-run"][..], &["diff", "latest", "--repo", &all.to]] {
        assert_eq!(all.desk.run(args).code, 3, "{args:?}");
    }
    let said = all.desk.run(&["mirror", "--verify", "--to", &all.to]);
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    all.mirror(0);
    all.check();
    assert_eq!(all.restored(), bytes(1, 200_000));
}

#[test]
fn each_of_two_vaults_in_a_folder_can_be_mirrored() {
    let all = Mirrored::new();
    let other = Desk::new();
    other.write("two", bytes(2, 100_000));
    other.take("2026-01-02T12:00:00Z");
    let id = |desk: &Desk| desk.json(&["list"])[0]["vault"].as_str().unwrap().to_owned();
    let (first, second) = (id(&all.desk), id(&other));
    assert_ne!(first, second);
    for kind in ["keys", "packs", "meta", "log", "index"] {
        copy_folder(&other.path("store").join(kind), &all.store.join(kind));
    }
    let file = |id: &str| fs::read_to_string(all.desk.path(id).join("VAULT")).unwrap();
    for (id, name) in [(&first, "one"), (&second, "two")] {
        let to = all.desk.path(id);
        let to = to.to_str().unwrap();
        // Who never met the folder says which vault is meant, as for all commands.
        let run = |args: &[&str]| {
            let mut command = all.desk.command(args);
            said(&command.env("VAULT_STATE_DIR", all.desk.path(&format!("state of {id}"))).output().unwrap())
        };
        let made = run(&["mirror", "--to", to, "--vault", &id[..8]]);
        assert_eq!(made.code, 0, "{}{}", made.out, made.err);
        assert!(file(id).contains(&format!("id {id}\n")), "{}", file(id));
        for args in [&["mirror", "--to", to, "--vault", id][..], &["mirror", "--to", to, "--vault", id, "--verify"]] {
            let again = run(args);
            assert_eq!(again.code, 0, "{args:?}: {}{}", again.out, again.err);
        }
        let back = all.desk.path(&format!("back {id}"));
        let said = run(&["restore", "latest", "--repo", to, "--to", back.to_str().unwrap()]);
        assert!(back.join("source").join(name).is_file(), "{}{}", said.out, said.err);
        let said = run(&["mirror", "--to", to, "--vault", if *id == first { &second } else { &first }]);
        assert!(said.code == 1 && said.err.contains("no mirror of this vault"), "{}{}", said.out, said.err);
    }
    let said = all.desk.run(&["mirror", "--to", &all.to, "--vault", "0123456789"]);
    assert!(said.code == 10 && said.err.contains(&second), "{} {}", said.code, said.err);
    // This machine remembers the first one there, and takes it whatever VAULT says.
    fs::copy(all.desk.path(&second).join("VAULT"), all.store.join("VAULT")).unwrap();
    all.mirror(0);
    assert!(fs::read_to_string(all.mirror.join("VAULT")).unwrap().contains(&first));
}

#[test]
fn a_key_slot_of_a_later_version_is_mirrored() {
    let all = Mirrored::new();
    let mut slot = fs::read(&files(&all.store.join("keys"))[0]).unwrap();
    slot[8] = 3;
    let end = slot.len() - 32;
    let hash = blake3::hash(&slot[..end]);
    slot[end..].copy_from_slice(hash.as_bytes());
    let name = format!("keys/{}", "ee".repeat(16));
    fs::write(all.store.join(&name), &slot).unwrap();
    all.mirror(0);
    assert_eq!(fs::read(all.mirror.join(&name)).unwrap(), slot);
}

#[test]
fn what_is_damaged_is_not_copied_and_what_was_cut_short_is_copied_again() {
    let all = Mirrored::new();
    all.mirror(0);
    let pack = Mirrored::packs(&all.mirror).remove(0);
    let whole = fs::read(&pack).unwrap();
    replace(&pack, &whole[..whole.len() / 2]);
    let mended = all.mirror(0);
    assert_eq!((&mended["mended"], &mended["copied"]), (&1.into(), &1.into()), "{mended}");
    assert_eq!(fs::read(&pack).unwrap(), whole);
    // A check reports its findings, and writes nothing into the mirror.
    let mut other = whole.clone();
    other[1000] ^= 1;
    replace(&pack, &other);
    let before = files(&all.mirror);
    assert_eq!(all.desk.run(&["check", "--read-data", "--repo", &all.to]).code, 4);
    assert_eq!(files(&all.mirror), before);
    replace(&pack, &whole);
    all.check();
    all.desk.write("two", bytes(3, 90_000));
    all.desk.take("2026-01-02T12:00:00Z");
    let is_new = |path: &PathBuf| !all.mirror.join(path.strip_prefix(&all.store).unwrap()).exists();
    let new = Mirrored::packs(&all.store).into_iter().find(is_new).unwrap();
    let mut content = fs::read(&new).unwrap();
    content[1000] ^= 1;
    replace(&new, &content);
    let told = all.mirror(4);
    let damaged = told["damaged"].as_array().unwrap();
    let name = new.file_name().unwrap().to_str().unwrap();
    assert!(damaged.len() == 1 && damaged[0].as_str().unwrap().ends_with(name), "{told}");
    assert!(is_new(&new));
}

/// A mirror needs no password, neither of a sound vault nor of one with damage: on a terminal, too, nobody is asked.
#[test]
fn a_mirror_of_a_damaged_vault_asks_for_no_password_either() {
    if !can_drive() {
        return;
    }
    for delivery in ["direct", "synced"] {
        let all = Mirrored::new();
        all.desk.ok(&["delivery", delivery]);
        all.mirror(0);
        all.desk.write("two", bytes(3, 90_000));
        all.desk.take("2026-01-02T12:00:00Z");
        for pack in Mirrored::packs(&all.store) {
            let mut content = fs::read(&pack).unwrap();
            *content.last_mut().unwrap() ^= 1;
            replace(&pack, &content);
        }
        let mut command = all.desk.command(&[]);
        command.env_remove("VAULT_PASSWORD");
        for options in ["", " --verify", " --mend"] {
            let mut terminal = Terminal::start(&command, &format!("mirror --to '{}'{options}", all.to));
            let code = terminal.end();
            let shown = terminal.text();
            assert!(!shown.contains("Password"), "{delivery}{options}: {shown}");
            assert!(shown.contains("damaged"), "{delivery}{options}: {shown}");
            assert_eq!(code, if delivery == "direct" { 4 } else { 3 }, "{delivery}{options}: {shown}");
        }
        // With the password at hand it is known to be damage: this machine put it.
        assert_eq!(all.desk.run(&["mirror", "--to", &all.to]).code, 4);
    }
}

#[test]
fn only_what_was_given_up_goes_from_a_mirror() {
    let all = Mirrored::new();
    for day in 2..5 {
        all.desk.write("one", bytes(day, 200_000));
        all.desk.take(&format!("2026-01-0{day}T12:00:00Z"));
    }
    all.mirror(0);
    let packs = Mirrored::packs(&all.mirror).len();
    all.desk.ok(&["prune", "--keep", "1", "--yes", "--max-unused", "0%"]);
    let told = all.mirror(0);
    assert!(told["surplus"].as_u64().unwrap() >= 3 && told["deleted"] == 0, "{told}");
    assert!(Mirrored::packs(&all.mirror).len() >= packs);
    let stranger = all.mirror.join("packs/aa").join("a".repeat(32));
    fs::create_dir_all(stranger.parent().unwrap()).unwrap();
    fs::write(&stranger, b"no record speaks of it").unwrap();
    let told = all.desk.json(&["mirror", "--to", &all.to, "--delete"]).remove(0);
    assert!(told["deleted"].as_u64().unwrap() >= 3, "{told}");
    assert!(stranger.exists());
    fs::remove_file(&stranger).unwrap();
    assert_eq!(Mirrored::packs(&all.mirror).len(), Mirrored::packs(&all.store).len());
    all.check();
    assert_eq!(all.restored(), bytes(4, 200_000));
}

#[test]
fn a_mirror_that_is_promoted_is_a_vault() {
    let all = Mirrored::new();
    all.mirror(0);
    let said = all.desk.run(&["promote", "--repo", &all.to]);
    assert!(said.code == 2 && said.err.contains("--yes"), "{}", said.err);
    fs::rename(&all.store, all.desk.path("lost")).unwrap();
    all.desk.ok(&["promote", "--repo", &all.to, "--yes"]);
    all.desk.write("one", bytes(7, 100_000));
    all.desk.ok(&["snapshot", ".", "--repo", &all.to]);
    assert_eq!(all.restored(), bytes(7, 100_000));
    all.check();
    assert_eq!(all.desk.run(&["promote", "--repo", &all.to, "--yes"]).code, 1, "it is one already");
    // The old vault does not overwrite it, nor anything else.
    fs::rename(all.desk.path("lost"), &all.store).unwrap();
    let said = all.desk.run(&["mirror", "--to", &all.to]);
    assert!(said.code == 1 && said.err.contains("promoted"), "{}", said.err);
    let other = all.desk.path("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("letter"), b"letter").unwrap();
    assert_ne!(all.desk.run(&["mirror", "--to", other.to_str().unwrap()]).code, 0);
    assert_eq!(files(&other).len(), 1);
}

/// Between any two of its writes the place still opens, and the next promotion does the rest.
#[test]
fn a_promotion_cut_at_any_write_is_finished_by_the_next() {
    let mut world = World::new(small_chunks());
    fs::write(world.source().join("one"), bytes(1, 50_000)).unwrap();
    let id = world.take();
    let to = MemStore::new();
    mirror(world.shared().as_ref(), &to, &Wanted::default(), &Silent::default()).unwrap();
    let mirrored = to.snapshot();
    for leaves in [Leaves::Nothing, Leaves::Whole] {
        for write in 0.. {
            let what = format!("cut at write {write}, leaving {leaves:?}");
            let store = Arc::new(FaultyStore::new(MemStore::from_state(mirrored.clone())));
            let (shared, state): (Arc<dyn Store>, _) = (store.clone(), scratch());
            let vault = open_vault(&shared, state.path()).unwrap();
            store.add(Fault::CutAtWrite { write: store.counts().writes + write, leaves });
            if promote(&vault).is_ok_and(|is_done| is_done) {
                assert!(write >= 2, "{what}: there is more than one write");
                break;
            }
            drop(vault);
            store.heal();
            let vault = open_vault(&shared, state.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(vault.snapshots().len(), 1, "{what}");
            let had_more = can_be_promoted(&vault).unwrap();
            assert_eq!(promote(&vault).unwrap(), had_more, "{what}");
            drop(vault);
            let vault = open_vault(&shared, state.path()).unwrap();
            assert!(!vault.is_mirror() && vault.bad_objects().is_empty(), "{what}: {:?}", vault.bad_objects());
            assert!(!can_be_promoted(&vault).unwrap() && vault.snapshot(&id).is_some(), "{what}");
        }
    }
}

#[test]
fn a_promotion_that_was_killed_goes_on_and_a_mirror_run_says_so() {
    let all = Mirrored::new();
    all.mirror(0);
    fs::rename(all.mirror.join("VAULT"), all.desk.path("aside")).unwrap();
    let said = all.desk.run(&["mirror", "--to", &all.to]);
    assert!(said.code == 1 && said.err.contains("vault promote --repo"), "{}", said.err);
    all.desk.ok(&["promote", "--repo", &all.to, "--yes"]);
    all.desk.ok(&["list", "--repo", &all.to]);
    all.check();
    let said = all.desk.run(&["promote", "--repo", &all.to, "--yes"]);
    assert!(said.code == 1 && said.err.contains("is a vault already"), "{}", said.err);
}

#[test]
fn a_mirror_may_lie_on_another_machine() {
    let mut all = Mirrored::new();
    let server = FakeS3::start(1000);
    all.to = server.vault("mirror");
    let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let run = |args: &[&str]| {
        let said = said(&all.desk.command(args).envs(variables).output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    };
    run(&["mirror", "--to", &all.to]);
    assert!(run(&["check", "--read-data", "--repo", &all.to]).contains("No damage was found."));
    let to = all.desk.path("restored");
    run(&["restore", "latest", "--repo", &all.to, "--to", to.to_str().unwrap()]);
    assert_eq!(fs::read(to.join("source/one")).unwrap(), bytes(1, 200_000));
    // It can be mirrored, too.
    let third = all.desk.path("third");
    run(&["mirror", "--repo", &all.to, "--to", third.to_str().unwrap()]);
    run(&["check", "--read-data", "--repo", third.to_str().unwrap()]);
}

/// A mirror heals everything in its vault: a damaged pack, a missing one, listings, a record.
#[test]
fn what_is_lost_comes_back_out_of_a_mirror() {
    let all = Mirrored::new();
    for day in 2..5 {
        all.desk.write(&format!("folder {day}/file"), bytes(day, 150_000));
        all.desk.take(&format!("2026-01-0{day}T12:00:00Z"));
    }
    all.mirror(0);
    let repair = |args: &[&str]| {
        let said = all.desk.run(&[&["repair", "--json"], args].concat());
        let value: serde_json::Value =
            serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err));
        (said.code, value)
    };
    let from = ["--from", &all.to][..].to_vec();
    let (code, told) = repair(&[&from[..], &["--dry-run"]].concat());
    assert_eq!((code, &told["chunks_lent"]), (0, &0.into()), "{told}");
    // One pack has a flipped bit, another is missing, and so are all listings.
    let packs = Mirrored::packs(&all.store);
    let mut content = fs::read(&packs[0]).unwrap();
    let at = content.len() / 3;
    content[at] ^= 1;
    replace(&packs[0], &content);
    fs::remove_file(&packs[1]).unwrap();
    fs::remove_dir_all(all.store.join("meta")).unwrap();
    assert_eq!(all.desk.run(&["check", "--read-data"]).code, 4);
    let (code, without) = repair(&["--dry-run"]);
    assert!(code == 4 && !without["hurt"].as_array().unwrap().is_empty(), "{without}");
    let before = (files(&all.store), files(&all.mirror));
    let (code, planned) = repair(&[&from[..], &["--dry-run"]].concat());
    assert!(code == 4 && planned["chunks_lent"].as_u64().unwrap() > 4, "{planned}");
    assert_eq!(planned["hurt"], serde_json::json!([]), "{planned}");
    assert_eq!((files(&all.store), files(&all.mirror)), before, "a trial changes nothing");
    let (code, done) = repair(&[&from[..], &["--yes"]].concat());
    assert_eq!((code, &done["chunks_not_brought"]), (0, &0.into()), "{done}");
    assert_eq!(done["chunks_brought"], planned["chunks_lent"], "{done}");
    assert_eq!(files(&all.mirror), before.1, "a mirror is only read");
    let said = all.desk.ok(&["check", "--read-data"]);
    assert!(said.contains("No damage was found."), "{said}");
    let to = all.desk.path("restored");
    all.desk.ok(&["restore", "latest", "--to", to.to_str().unwrap()]);
    for day in 2..5 {
        assert_eq!(fs::read(to.join(format!("source/folder {day}/file"))).unwrap(), bytes(day, 150_000));
    }
    // A new machine finds all of it, too.
    fs::remove_dir_all(all.desk.path("state")).unwrap();
    assert_eq!(all.desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 4);
    all.desk.ok(&["check", "--read-data"]);
}

/// Data given up in a repair without the mirror comes back in a repair with it. Data damaged in both stays lost.
#[test]
fn what_is_damaged_in_the_mirror_too_is_lost_and_nothing_else() {
    let all = Mirrored::new();
    all.desk.write("two", bytes(2, 90_000));
    all.desk.take("2026-01-02T12:00:00Z");
    all.mirror(0);
    let whole: Vec<(PathBuf, Vec<u8>)> =
        Mirrored::packs(&all.mirror).into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    harm(&all.store);
    fs::remove_file(files(&all.store.join("log")).pop().unwrap()).unwrap();
    assert_eq!(all.desk.run(&["repair", "--yes"]).code, 4);
    assert_eq!(all.desk.run(&["check"]).code, 4);
    harm(&all.mirror);
    let said = all.desk.run(&["repair", "--yes", "--from", &all.to]);
    assert!(said.code == 4 && said.out.contains("damaged there, too"), "{}{}", said.out, said.err);
    let check = all.desk.run(&["check"]);
    assert!(check.code == 4 && !check.out.contains(&all.to), "{}", check.out);
    whole.iter().for_each(|(path, content)| replace(path, content));
    let said = all.desk.run(&["repair", "--yes", "--from", &all.to]);
    assert!(said.code == 0 && said.out.contains("bring back"), "{}{}", said.out, said.err);
    assert!(all.desk.ok(&["check", "--read-data"]).contains("No damage was found."));
    let to = all.desk.path("restored");
    all.desk.ok(&["restore", "latest", "--to", to.to_str().unwrap()]);
    assert_eq!(fs::read(to.join("source/two")).unwrap(), bytes(2, 90_000));
}

/// A lost record comes back from the mirror, even on a machine that never knew it.
#[test]
fn records_come_back_out_of_a_mirror() {
    let all = Mirrored::new();
    all.desk.write("two", bytes(2, 90_000));
    let second = all.desk.take("2026-01-02T12:00:00Z");
    all.mirror(0);
    fs::remove_file(all.store.join("log").join(&second)).unwrap();
    fs::remove_dir_all(all.desk.path("state")).unwrap();
    assert_eq!(all.desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 1);
    let said = all.desk.run(&["repair", "--yes", "--quick", "--from", &all.to]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let list = all.desk.json(&["list"]).remove(0);
    assert_eq!(list["snapshots"][1]["id"], second.as_str(), "{list}");
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 2);
}

/// A vault created alike lends chunks; it has a password of its own.
#[test]
fn a_vault_made_alike_brings_back_what_is_lost() {
    let all = Mirrored::new();
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        said(&all.desk.command(args).envs(variables.iter().copied()).output().unwrap())
    };
    let store = all.store.to_str().unwrap();
    let like = all.desk.path("like");
    let like = like.to_str().unwrap();
    let own = [("VAULT_PASSWORD", "its own")];
    let made = [("VAULT_PASSWORD", "its own"), ("VAULT_LIKE_PASSWORD", crate::support::PASSWORD)];
    assert_eq!(run(&["init", "--repo", like, "--like", store], &made).code, 0);
    assert_eq!(run(&["snapshot", ".", "--repo", like], &own).code, 0);
    harm(&all.store);
    let itself = all.desk.run(&["repair", "--yes", "--from", store]);
    assert!(itself.code == 2 && itself.err.contains("the vault itself"), "{}", itself.err);
    assert_eq!(all.desk.run(&["repair", "--yes", "--from", like]).code, 12, "it has another password");
    let gone = all.desk.run(&["repair", "--yes", "--from", "/nowhere/at/all"]);
    assert_eq!(gone.code, 10, "{}", gone.err);
    let command = format!("cat {}", password_file(&all.desk));
    let done = all.desk.run(&["repair", "--yes", "--from", like, "--from-password-command", &command]);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(all.desk.ok(&["check", "--read-data"]).contains("No damage was found."));
}

/// A vault with other keys has copies of the snapshots: lost data is read there, and cut again.
#[test]
fn a_vault_with_copies_brings_back_what_is_lost() {
    let all = Mirrored::new();
    all.desk.write("folder/two", bytes(2, 1_300_000));
    all.desk.write("folder/three", bytes(3, 50_000));
    all.desk.take("2026-01-02T12:00:00Z");
    let other = all.desk.path("other");
    let other = other.to_str().unwrap();
    let made =
        all.desk.command(&["init", "--repo", other, "--chunk-avg", "4K"]).env("VAULT_PASSWORD", "its own").output();
    assert!(made.unwrap().status.success());
    let file = password_file(&all.desk);
    // The first snapshot is not copied, and has the file `one`, which the second one has, too.
    all.desk.ok(&["copy", "latest", "--to", other, "--to-password-file", &file]);
    let before = files(Path::new(other));
    harm(&all.store);
    fs::remove_dir_all(all.store.join("meta")).unwrap();
    let from = ["repair", "--from", other, "--from-password-file", &file];
    let planned = all.desk.run(&[&from[..], &["--dry-run", "--json"]].concat());
    let planned: serde_json::Value = serde_json::from_str(&planned.out).unwrap();
    assert!(planned["files_copied"].as_u64().unwrap() >= 1, "{planned}");
    let done = all.desk.run(&[&from[..], &["--yes"]].concat());
    assert!(done.code == 4 && done.out.contains("came back from the copies"), "{}{}", done.out, done.err);
    assert!(done.out.contains("1 snapshot lacks something still"), "{}", done.out);
    assert_eq!(files(Path::new(other)), before, "it is only read");
    let to = all.desk.path("restored");
    all.desk.ok(&["restore", "latest", "--to", to.to_str().unwrap()]);
    for (name, content) in
        [("one", bytes(1, 200_000)), ("folder/two", bytes(2, 1_300_000)), ("folder/three", bytes(3, 50_000))]
    {
        assert_eq!(fs::read(to.join("source").join(name)).unwrap(), content, "{name}");
    }
    let list = all.desk.run(&["list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(list["damaged"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["damaged"][0]["snapshot"], list["snapshots"][0]["id"], "only the one without a copy");
}

/// Damages every pack of content.
fn harm(folder: &Path) {
    for pack in Mirrored::packs(folder) {
        let mut content = fs::read(&pack).unwrap();
        content[3_000] ^= 1;
        replace(&pack, &content);
    }
}

fn password_file(desk: &Desk) -> String {
    let file = desk.path("password");
    fs::write(&file, "its own\n").unwrap();
    file.to_str().unwrap().to_owned()
}

/// A mirror on another machine: trouble of its line is not damage of this vault.
#[test]
fn a_mirror_elsewhere_brings_back_what_is_lost_or_is_not_reached() {
    let mut all = Mirrored::new();
    let server = FakeS3::start(1000);
    all.to = server.vault("mirror");
    let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let run = |args: &[&str]| said(&all.desk.command(args).envs(variables).output().unwrap());
    assert_eq!(run(&["mirror", "--to", &all.to]).code, 0);
    fs::remove_dir_all(all.store.join("packs")).unwrap();
    let denied = said(
        &all.desk.command(&["repair", "--yes", "--from", &all.to]).env("AWS_ACCESS_KEY_ID", "nobody").output().unwrap(),
    );
    assert_eq!(denied.code, 10, "{}{}", denied.out, denied.err);
    let done = run(&["repair", "--yes", "--from", &all.to]);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(run(&["check", "--read-data"]).out.contains("No damage was found."));
}

/// Data needed only by forgotten snapshots is not brought back, though their records are.
#[test]
fn what_only_forgotten_snapshots_need_stays_away() {
    let all = Mirrored::new();
    all.desk.write("two", bytes(2, 90_000));
    let second = all.desk.take("2026-01-02T12:00:00Z");
    fs::remove_file(all.desk.source().join("two")).unwrap();
    all.mirror(0);
    all.desk.ok(&["forget", &second, "--yes"]);
    all.desk.ok(&["prune", "--keep", "5", "--max-unused", "0%", "--yes"]);
    // Nobody here remembers the snapshot's record, but the mirror has it, with all of its data.
    fs::remove_file(all.store.join("log").join(&second)).unwrap();
    fs::remove_dir_all(all.desk.path("state")).unwrap();
    let said = all.desk.run(&["repair", "--yes", "--json", "--from", &all.to]);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &told["chunks_lent"]), (0, &0.into()), "{told}{}", said.err);
    assert_eq!(
        (&told["records_found"][0]["object"], &told["hurt"]),
        (&format!("log/{second}").into(), &serde_json::json!([]))
    );
    assert_eq!(all.desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 1);
    assert!(all.desk.ok(&["check"]).contains("No damage was found."));
}

/// A snapshot comes back only if the mirror really has its content, whatever the mirror lists.
#[test]
fn a_snapshot_of_which_the_mirror_has_but_the_names_does_not_come_back() {
    for is_cut in [true, false] {
        let all = Mirrored::new();
        let before = Mirrored::packs(&all.store);
        all.desk.write("two", bytes(2, 90_000));
        let second = all.desk.take("2026-01-02T12:00:00Z");
        all.mirror(0);
        // The machine that reads the mirror has seen all of it.
        all.desk.ok(&["list", "--repo", &all.to]);
        all.desk.ok(&["repair", "--dry-run", "--from", &all.to]);
        fs::remove_file(all.store.join("log").join(&second)).unwrap();
        for pack in Mirrored::packs(&all.store).into_iter().filter(|pack| !before.contains(pack)) {
            let other = all.mirror.join(pack.strip_prefix(&all.store).unwrap());
            fs::remove_file(&pack).unwrap();
            let mut content = fs::read(&other).unwrap();
            if is_cut {
                content.truncate(5_000);
            } else {
                content[3_000] ^= 1;
            }
            replace(&other, &content);
        }
        let said = all.desk.run(&["repair", "--yes", "--json", "--from", &all.to]);
        assert_eq!(said.code, 4, "{}{}", said.out, said.err);
        let list = all.desk.run(&["list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list.out).unwrap();
        assert_eq!(list["snapshots"].as_array().unwrap().len(), 1, "{is_cut} {list}");
        assert!(!all.store.join("log").join(&second).exists());
    }
}

/// A vault in a synced folder may not have received everything yet: the command says that it waits for the rest.
#[test]
fn what_has_not_arrived_where_it_is_brought_back_from_is_waited_for() {
    let all = Mirrored::new();
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        said(&all.desk.command(args).envs(variables.iter().copied()).output().unwrap())
    };
    let (store, like) = (all.store.to_str().unwrap(), all.desk.path("like"));
    let like_text = like.to_str().unwrap();
    let own = [("VAULT_PASSWORD", "its own")];
    let made = [("VAULT_PASSWORD", "its own"), ("VAULT_LIKE_PASSWORD", crate::support::PASSWORD)];
    assert_eq!(run(&["init", "--repo", like_text, "--like", store, "--delivery", "synced"], &made).code, 0);
    assert_eq!(run(&["snapshot", ".", "--repo", like_text], &own).code, 0);
    let packs: Vec<_> =
        Mirrored::packs(&like).into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    packs.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    harm(&all.store);
    let command = format!("cat {}", password_file(&all.desk));
    let args = ["repair", "--yes", "--from", like_text, "--from-password-command", &command];
    let told = all.desk.run(&args);
    assert_eq!(told.code, 4, "{}{}", told.out, told.err);
    for part in ["not there yet", "when the sync has brought all of that place, run vault repair --from again"] {
        assert!(told.out.contains(part), "{part}: {}", told.out);
    }
    assert!(!told.out.contains("damaged there"), "{}", told.out);
    packs.iter().for_each(|(path, content)| fs::write(path, content).unwrap());
    let done = all.desk.run(&args);
    assert!(done.code == 0 && !done.out.contains("not there yet"), "{}{}", done.out, done.err);
    assert!(all.desk.ok(&["check", "--read-data"]).contains("No damage was found."));
}

/// Each object of the mirror is read and compared. Differences are reported, and mended on request.
#[test]
fn a_mirror_is_compared_by_reading() {
    let all = Mirrored::new();
    let run = |args: &[&str], code: i32| -> serde_json::Value {
        let said = said(&all.desk.command(args).env_remove("VAULT_PASSWORD").output().unwrap());
        assert_eq!(said.code, code, "{}{}", said.out, said.err);
        serde_json::from_str(&said.out).unwrap_or_default()
    };
    let verify = ["mirror", "--to", &all.to, "--verify", "--json"];
    let mend = ["mirror", "--to", &all.to, "--mend", "--json"];
    run(&verify, 10);
    assert!(!all.mirror.exists(), "nothing is made");
    all.mirror(0);
    let sound = run(&verify, 0);
    let count = sound["compared"].as_u64().unwrap();
    assert_eq!(count, files(&all.store).len() as u64 - 1, "all but VAULT: {sound}");
    let plain = all.desk.ok(&["mirror", "--to", &all.to, "--verify"]);
    assert!(plain.contains("as it is there"), "{plain}");
    // The mirror is behind, which is not damage.
    all.desk.write("two", bytes(2, 50_000));
    all.desk.take("2026-01-02T12:00:00Z");
    let behind = run(&verify, 3);
    assert!(
        behind["missing"].as_array().unwrap().len() >= 3 && behind["different"] == serde_json::json!([]),
        "{behind}"
    );
    all.mirror(0);
    // A flipped bit; a valid but different object; a truncated one; a slot.
    let packs = Mirrored::packs(&all.mirror);
    harm(&all.mirror);
    let log = files(&all.mirror.join("log"));
    replace(&log[0], &fs::read(&log[1]).unwrap());
    let meta = files(&all.mirror.join("meta"));
    let cut = fs::read(&meta[0]).unwrap();
    replace(&meta[0], &cut[..cut.len() / 2]);
    let slots = files(&all.mirror.join("keys"));
    replace(&slots[0], &vec![0; 512]);
    let found = run(&verify, 4);
    assert_eq!(found["different"].as_array().unwrap().len(), packs.len() + 3, "{found}");
    let said_so = said(&all.desk.command(&["mirror", "--to", &all.to, "--verify"]).output().unwrap());
    assert!(said_so.out.contains("--mend") && said_so.out.contains("its hash is wrong"), "{}", said_so.out);
    let mended = run(&mend, 0);
    assert!(mended["different"].as_array().unwrap().iter().all(|one| one["mended"] == true), "{mended}");
    run(&verify, 0);
    all.check();
    // An object damaged in the vault stays unchanged in the mirror.
    for pack in Mirrored::packs(&all.store) {
        let mut content = fs::read(&pack).unwrap();
        *content.last_mut().unwrap() ^= 1;
        replace(&pack, &content);
    }
    let found = run(&mend, 4);
    assert_eq!(
        (found["damaged_in_vault"].as_array().unwrap().len(), &found["different"]),
        (packs.len(), &serde_json::json!([]))
    );
    all.check();
    // A folder that is not a mirror of this vault is not compared with it.
    let other = all.desk.path("other");
    all.desk.ok(&["init", "--repo", other.to_str().unwrap()]);
    let refused = said(&all.desk.command(&["mirror", "--to", other.to_str().unwrap(), "--verify"]).output().unwrap());
    assert!(refused.code == 1 && refused.err.contains("no mirror of this vault"), "{}", refused.err);
}

/// The error names the place that fails, whichever that is and whatever the request.
#[test]
fn the_place_that_fails_is_the_one_that_is_told() {
    let mut world = World::new(small_chunks());
    fs::write(world.source().join("file"), bytes(1, 60_000)).unwrap();
    world.take();
    let mirrored = MemStore::new();
    mirror(&world.store, &mirrored, &Wanted::default(), &Silent::default()).unwrap();
    // The vault loses its packs, so that a repair reads trees and contents from the mirror.
    for (key, _) in world.store.objects() {
        if matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _)) {
            world.store.remove(&key);
        }
    }
    let repaired = |cut: Option<u64>| {
        let (here, there) = (scratch(), scratch());
        let store: Arc<dyn Store> = Arc::new(world.store.deep_copy());
        let vault = open_vault(&store, here.path()).unwrap();
        let far = Arc::new(FaultyStore::new(mirrored.clone()));
        let shared: Arc<dyn Store> = far.clone();
        let donor = open_vault(&shared, there.path()).unwrap();
        let opened = far.counts().operations;
        if let Some(cut) = cut {
            far.add(Fault::CutLineAt(opened + cut));
        }
        let mut options = RepairOptions::new(&now);
        options.read_data = true;
        options.threads = THREADS;
        options.from = Some(&donor);
        let done = repair::plan(&vault, &options, &Silent::default())
            .and_then(|plan| repair::execute(&vault, plan, &options, &Silent::default()));
        (done, far.counts().operations - opened)
    };
    let (done, operations) = repaired(None);
    assert!(!done.unwrap().has_losses && operations > 2, "{operations}");
    for cut in 0..operations {
        let error = repaired(Some(cut)).0.unwrap_err();
        assert!(matches!(&error, RepairError::Lender { .. }), "cut at {cut}: {error:?}");
        let failure = Failure::from(error);
        assert!(failure.what.starts_with(&format!("{}, from which", mirrored.place())), "{failure:?}");
        assert_eq!(failure.exit, Exit::Unreachable, "{failure:?}");
    }
    // While mirroring, an error tells trouble of the vault from trouble of the other place.
    let made = |from_cut: Option<u64>, to_cut: Option<u64>| {
        let (from, to) = (FaultyStore::new(mirrored.deep_copy()), FaultyStore::new(MemStore::new()));
        from_cut.into_iter().for_each(|cut| from.add(Fault::CutLineAt(cut)));
        to_cut.into_iter().for_each(|cut| to.add(Fault::CutLineAt(cut)));
        let done = mirror(&from, &to, &Wanted::default(), &Silent::default());
        (done, from.counts().operations, to.counts().operations)
    };
    let (done, from, to) = made(None, None);
    done.unwrap();
    for cut in 0..from {
        let error = made(Some(cut), None).0.unwrap_err();
        assert!(matches!(error, MirrorError::Vault(_)), "{cut}: {error:?}");
    }
    for cut in 0..to {
        let error = made(None, Some(cut)).0.unwrap_err();
        assert!(matches!(error, MirrorError::To { .. }), "{cut}: {error:?}");
        let failure = Failure::from(error);
        assert!(failure.exit == Exit::Unreachable && failure.what.starts_with("the mirror in "), "{failure:?}");
    }
}
