//! Power cuts at block level, on real file systems: all writes of a vault are recorded below its file system. The
//! possible contents of the disk after a cut are built from the flushed writes and a part of the others. Then a machine
//! starts again with it, and everything that was promised before the cut holds.
//!
//! A few cuts by default; `VAULT_CAMPAIGN=n` makes n hundred random ones on each file system, and one at the end of
//! each step, from `VAULT_SEED`. Skipped without root, `/dev/fuse`, loop devices, or the program that makes the file
//! system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use vault::engine::keys::{self, When};
use vault::id::ObjectName;
use vault::progress::Silent;
use vault::seal::{Purpose, Secret};
use vault::store::Store;
use vault::store::dir::DirStore;
use vault::vault::VaultError;

use crate::support::binary::{Said, said};
use crate::support::disk::{Disk, Recording, mount, system};
use crate::support::model::{Model, assert_same, of_disk, of_snapshot};
use crate::support::source::{Rng, Size, bytes, plant};
use crate::support::{PASSWORD, RAW, campaign, cheap, check_all, create_vault, now, open_as, scratch, small_chunks};

/// A file system, its smallest size, and the options with which it is made and mounted.
struct Kind {
    name: &'static str,
    mib: u64,
    made: &'static [&'static str],
    options: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind { name: "ext4", mib: 48, made: &["-q", "-F"], options: "noatime" },
    Kind { name: "xfs", mib: 300, made: &["-q"], options: "nouuid,noatime" },
    Kind { name: "btrfs", mib: 110, made: &["-q"], options: "noatime" },
];

/// The promise of a step, which holds once it is done; the promises that it revokes end as soon as it begins.
#[derive(Debug, Clone, Default)]
struct Step {
    what: &'static str,
    snapshot: Option<ObjectName>,
    opens: Option<&'static str>,
    forgets: Option<ObjectName>,
    closes: Option<&'static str>,
}

/// The folders during recording and judging: the same paths.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(DirStore::open(&self.path("disk/store")).unwrap())
    }

    fn run(&self, args: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vault"));
        command
            .args(args)
            .env("VAULT_PASSWORD", self.password())
            .env("VAULT_STATE_DIR", self.path("disk/state"))
            .env("VAULT_REPO", self.path("disk/store"))
            .env("HOME", self.folder.path())
            .env_remove("VAULT_CONFIG")
            .stdin(Stdio::null());
        said(&command.output().unwrap())
    }

    /// A password that opens now.
    fn password(&self) -> &'static str {
        let store = self.store();
        let opens = |password: &&&str| opens(&store, password);
        [PASSWORD, "second", "third"].iter().find(opens).expect("one of the passwords opens")
    }
}

fn opens(store: &Arc<dyn Store>, password: &str) -> bool {
    open_as(store, scratch().path(), &Secret::password(password), "judge").is_ok()
}

/// The recorded life: its steps, and the expected content of each snapshot.
fn live(desk: &Desk, disk: &Disk) -> (Vec<Step>, BTreeMap<ObjectName, Model>) {
    let (mut steps, mut models) = (Vec::new(), BTreeMap::new());
    let source = desk.path("source");
    let mut step = |step: Step, work: &mut dyn FnMut() -> Option<ObjectName>| {
        // Begun: an even mark; done: the odd one after it.
        disk.mark(2 * steps.len());
        let snapshot = work();
        disk.mark(2 * steps.len() + 1);
        steps.push(Step { snapshot, ..step });
        snapshot
    };
    let take = || {
        let taken = desk.run(&["snapshot", source.to_str().unwrap(), "--source", "source", "--json"]);
        assert_eq!(taken.code, 0, "{}{}", taken.out, taken.err);
        let report: serde_json::Value = serde_json::from_str(taken.out.lines().next().unwrap()).unwrap();
        Some(report["snapshot"]["id"].as_str().unwrap().parse::<ObjectName>().unwrap())
    };
    let library = || open_as(&desk.store(), &desk.path("disk/library"), &Secret::raw(&RAW), "machine").unwrap();
    let slot = |password: &str| {
        let vault = open_as(&desk.store(), scratch().path(), &Secret::password(password), "judge").unwrap();
        vault.opened_by()
    };
    step(Step { what: "init", opens: Some(PASSWORD), ..Step::default() }, &mut || {
        let store = DirStore::create(&desk.path("disk/store")).unwrap();
        create_vault(&store, small_chunks()).unwrap();
        None
    });
    let first = step(Step { what: "first snapshot", ..Step::default() }, &mut || take());
    models.insert(first.unwrap(), of_disk(&source, b"source"));
    step(Step { what: "key add", opens: Some("second"), ..Step::default() }, &mut || {
        let secret = Secret::password("second");
        keys::add(&library(), &secret, Purpose::Password, "second", cheap(), now(), &Silent::default()).unwrap();
        None
    });
    fs::write(source.join("large"), bytes(4, 700_000)).unwrap();
    fs::rename(source.join("folder 1"), source.join("renamed")).unwrap();
    let second = step(Step { what: "second snapshot", ..Step::default() }, &mut || take());
    models.insert(second.unwrap(), of_disk(&source, b"source"));
    step(Step { what: "key remove", closes: Some(PASSWORD), ..Step::default() }, &mut || {
        let id = slot(PASSWORD);
        keys::remove(&library(), id, When::Known, now(), &Silent::default()).unwrap();
        None
    });
    step(Step { what: "forget and prune", forgets: first, ..Step::default() }, &mut || {
        for args in
            [&["forget", &first.unwrap().to_string(), "--yes"][..], &["prune", "--keep", "9", "--max-unused", "0%"]]
        {
            let done = desk.run(args);
            assert_eq!(done.code, 0, "{args:?}: {}{}", done.out, done.err);
        }
        None
    });
    step(Step { what: "key passwd", opens: Some("third"), closes: Some("second"), ..Step::default() }, &mut || {
        let (old, new) = (Secret::password("second"), Secret::password("third"));
        keys::change(&library(), &old, &new, cheap(), When::Known, now(), &Silent::default()).unwrap();
        None
    });
    fs::remove_dir_all(source.join("folder 2")).unwrap();
    let third = step(Step { what: "third snapshot", ..Step::default() }, &mut || take());
    models.insert(third.unwrap(), of_disk(&source, b"source"));
    (steps, models)
}

/// The writes of a life, its steps, and the expected content of each snapshot.
type Life = (Recording, Vec<Step>, BTreeMap<ObjectName, Model>);

/// Makes a file system and records a life on it.
fn record(kind: &Kind, desk: &Desk) -> Result<Life, String> {
    let (image, at) = (desk.path("image"), desk.path("disk"));
    File::create(&image).unwrap().set_len(kind.mib << 20).unwrap();
    system(&format!("mkfs.{}", kind.name), &[kind.made, &[image.to_str().unwrap()]].concat())?;
    fs::create_dir_all(&at).unwrap();
    fs::create_dir(desk.path("source")).unwrap();
    plant(&desk.path("source"), 11, Size::Tiny);
    let disk = Disk::mount(&image, &at, kind.options)?;
    let (steps, models) = live(desk, &disk);
    Ok((disk.stop(), steps, models))
}

/// A mounted image.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let folder = self.0.to_str().unwrap();
        if system("umount", &[folder]).is_err() {
            let _ = system("umount", &["-l", folder]);
        }
    }
}

/// Starts the machine again after a cut, and checks that all promises hold.
fn judge(kind: &Kind, desk: &Desk, steps: &[Step], models: &BTreeMap<ObjectName, Model>, marks: usize, what: &str) {
    let (image, at) = (desk.path("image"), desk.path("disk"));
    if kind.name == "btrfs" {
        // The kernel remembers a newer device of the same name.
        let _ = system("btrfs", &["device", "scan", "--forget"]);
    }
    mount(&image, &at, kind.options).unwrap_or_else(|error| panic!("{what}: the file system itself is lost: {error}"));
    let _mounted = Mounted(&at);
    // Steps that were done, and those that had begun.
    let (done, begun) = (&steps[..marks / 2], &steps[..marks.div_ceil(2)]);
    let fresh = scratch();
    if done.is_empty() {
        let Ok(store) = DirStore::open(&desk.path("disk/store")) else { return };
        let store: Arc<dyn Store> = Arc::new(store);
        // The slots come one after the other, the password's first.
        let opened = |secret: &Secret| open_as(&store, fresh.path(), secret, "judge");
        match opened(&Secret::raw(&RAW)).or_else(|_| opened(&Secret::password(PASSWORD))) {
            Ok(_) | Err(VaultError::NoVault { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        return;
    }
    let store = desk.store();
    let vault = open_as(&store, fresh.path(), &Secret::raw(&RAW), "judge").unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(vault.bad_objects().is_empty(), "{what}: {:?}", vault.bad_objects());
    let forgotten: BTreeSet<ObjectName> = begun.iter().filter_map(|step| step.forgets).collect();
    let there: BTreeSet<ObjectName> = vault.snapshots().iter().map(|snapshot| snapshot.id).collect();
    for step in done {
        if let Some(id) = step.snapshot.filter(|id| !forgotten.contains(id)) {
            assert!(there.contains(&id), "{what}: the {} is lost", step.what);
        }
        if let Some(id) = step.forgets {
            assert!(!there.contains(&id), "{what}: a forgotten snapshot is back");
        }
    }
    for snapshot in vault.snapshots().iter().filter(|snapshot| !forgotten.contains(&snapshot.id)) {
        let read = of_snapshot(&vault, &snapshot.body);
        assert!(read.errors.is_empty(), "{what}: {:?}", read.errors);
        assert_same(&models[&snapshot.id], &read.nodes, what);
    }
    drop(vault);
    let closing: BTreeSet<&str> = begun.iter().filter_map(|step| step.closes).collect();
    for step in done {
        if let Some(password) = step.opens.filter(|password| !closing.contains(password)) {
            assert!(opens(&store, password), "{what}: {password:?} should open");
        }
        if let Some(password) = step.closes {
            assert!(!opens(&store, password), "{what}: {password:?} was removed, and opens");
        }
    }
    // The machine continues with its present state.
    let check = desk.run(&["check", "--read-data"]);
    if check.code == 3 {
        // A password was just being removed: its record is there, and so is its file. Or one was just being added: its
        // file is there, and its record is not.
        let is_open = begun.len() > done.len();
        let is_closing = is_open && begun.iter().any(|step| step.closes.is_some());
        let is_opening = is_open && begun.iter().any(|step| step.opens.is_some());
        let is_added = is_opening && check.out.contains("no record of the vault says that it is valid");
        let is_removed = is_closing && check.out.contains("was removed");
        assert!(is_added || is_removed, "{what}: {}{}", check.out, check.err);
        let ended = if is_added {
            let known: serde_json::Value = serde_json::from_str(&desk.run(&["accept", "--json"]).out).unwrap();
            desk.run(&["accept", known["findings"][0]["id"].as_str().unwrap(), "--yes"])
        } else {
            desk.run(&["repair", "--yes", "--quick"])
        };
        assert_eq!(ended.code, 0, "{what}: {}{}", ended.out, ended.err);
    } else {
        assert_eq!(check.code, 0, "{what}: {}{}", check.out, check.err);
    }
    let source = desk.path("source");
    let taken = desk.run(&["snapshot", source.to_str().unwrap(), "--source", "source"]);
    assert_eq!(taken.code, 0, "{what}: {}{}", taken.out, taken.err);
    let pruned = desk.run(&["prune", "--keep", "9"]);
    assert_eq!(pruned.code, 0, "{what}: {}{}", pruned.out, pruned.err);
    let check = desk.run(&["check", "--read-data"]);
    assert_eq!(check.code, 0, "{what}: {}{}", check.out, check.err);
    let vault = open_as(&store, scratch().path(), &Secret::raw(&RAW), "judge").unwrap();
    let kept = models.iter().filter(|(id, _)| there.contains(id) && !forgotten.contains(id));
    check_all(&vault, &kept.map(|(id, model)| (*id, model.clone())).collect());
    let newest = vault.snapshots().into_iter().last().unwrap();
    assert_same(&of_disk(&source, b"source"), &of_snapshot(&vault, &newest.body).nodes, what);
}

/// Cuts the power on one kind of file system: at the end of each step with only flushed writes kept, and at random
/// moments.
fn cut(kind: &Kind, ends: usize, random: u64) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount {}", kind.name);
        return;
    }
    let desk = Desk { folder: scratch() };
    let (recording, steps, models) = match record(kind, &desk) {
        Ok(recorded) => recorded,
        Err(reason) => {
            eprintln!("skipped: {} cannot be recorded here: {reason}", kind.name);
            return;
        }
    };
    assert!(recording.flushes() > 20, "the flushes of {} arrive", kind.name);
    let seed = std::env::var("VAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut rng = Rng(seed);
    let mut cuts: Vec<(usize, Option<Rng>)> =
        (0..steps.len()).rev().take(ends).map(|step| (recording.mark(2 * step + 1), None)).collect();
    for _ in 0..random {
        let at = rng.below(recording.log.len() as u64 + 1) as usize;
        cuts.push((at, Some(Rng(rng.next()))));
    }
    let mut wrong = Vec::new();
    for (number, (at, dice)) in cuts.iter().enumerate() {
        let is_mark = |event: &&crate::support::disk::Event| matches!(event, crate::support::disk::Event::Mark(_));
        let marks = recording.log[..*at].iter().filter(is_mark).count();
        let what = format!("{}, cut {number} after {at} of {} events, {marks} marks", kind.name, recording.log.len());
        recording.save(*at, dice.clone(), &desk.path("image"));
        // Each is judged, even if others fail.
        let judged = catch_unwind(AssertUnwindSafe(|| judge(kind, &desk, &steps, &models, marks, &what)));
        wrong.extend(judged.err().map(|_| what));
    }
    println!(
        "{}: {} cuts in {} writes and {} flushes",
        kind.name,
        cuts.len(),
        recording.log.len() - recording.flushes() - 2 * steps.len(),
        recording.flushes()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Number of steps' ends and of random moments that are tried.
fn count(ends: usize, random: u64) -> (usize, u64) {
    if campaign() > 0 { (usize::MAX, 100 * campaign()) } else { (ends, random) }
}

#[test]
fn what_was_promised_holds_after_a_power_cut_on_ext4() {
    let (ends, random) = count(3, 3);
    cut(&KINDS[0], ends, random);
}

#[test]
fn what_was_promised_holds_after_a_power_cut_on_xfs() {
    let (ends, random) = count(1, 2);
    cut(&KINDS[1], ends, random);
}

#[test]
fn what_was_promised_holds_after_a_power_cut_on_btrfs() {
    let (ends, random) = count(1, 1);
    cut(&KINDS[2], ends, random);
}
