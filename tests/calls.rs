//! The system refuses a call: each kind of call of each command fails once, with each error that it can have, or ends
//! the program. `strace` injects the errors. In every case: nothing that was reported is lost, no success is reported
//! for failed work, nothing is called damaged afterwards, and the same command succeeds when it is run again.
//!
//! Some calls by default; `VAULT_CAMPAIGN=n` makes it n thousand, chosen by `VAULT_SEED`. `VAULT_COMMAND` and
//! `VAULT_CALL` (such as `statx`) limit them. Skipped where strace cannot follow a program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use vault::id::ObjectName;
use vault::seal::Secret;
use vault::store::Store;
use vault::store::dir::DirStore;
use vault::vault::Vault;

use crate::support::binary::{Desk, Said, said};
use crate::support::model::{Model, assert_same, of_disk, of_snapshot};
use crate::support::source::{Rng, Size, bytes, plant};
use crate::support::{PASSWORD, RAW, campaign, check_all, open_as, scratch};

/// Calls, and the errors that are injected. KILL ends the program there.
const CALLS: &[(&str, &[&str])] = &[
    ("openat", &["EMFILE", "EACCES", "EIO", "EINTR", "KILL"]),
    ("read", &["EIO", "EINTR"]),
    ("pread64", &["EIO", "EINTR"]),
    ("write", &["ENOSPC", "EIO", "EINTR", "KILL"]),
    ("pwrite64", &["ENOSPC", "EIO", "EINTR", "KILL"]),
    ("fsync", &["EIO", "ENOSPC", "KILL"]),
    ("fdatasync", &["EIO", "ENOSPC", "KILL"]),
    ("syncfs", &["EIO"]),
    ("linkat", &["EIO", "ENOSPC", "EACCES", "KILL"]),
    ("renameat", &["EIO", "ENOSPC", "EACCES", "KILL"]),
    ("renameat2", &["EIO", "ENOSPC", "EACCES", "KILL"]),
    ("rename", &["EIO", "ENOSPC", "EACCES", "KILL"]),
    ("unlink", &["EIO", "EACCES", "KILL"]),
    ("unlinkat", &["EIO", "EACCES", "KILL"]),
    ("mkdir", &["ENOSPC", "EACCES", "KILL"]),
    ("mkdirat", &["ENOSPC", "EACCES", "KILL"]),
    ("ftruncate", &["ENOSPC", "EIO", "KILL"]),
    ("fallocate", &["ENOSPC", "EIO"]),
    ("statx", &["EIO", "EACCES", "ENOENT"]),
    ("newfstatat", &["EIO", "EACCES"]),
    ("getdents64", &["EIO", "EINTR"]),
    ("flock", &["EINTR", "ENOLCK"]),
    ("fchmod", &["EIO", "EPERM"]),
    ("fchown", &["EIO", "EPERM"]),
    ("fchownat", &["EIO", "EPERM"]),
    ("utimensat", &["EIO", "EPERM"]),
    ("fsetxattr", &["EIO", "ENOSPC"]),
    ("lseek", &["EIO"]),
    ("close", &["EIO", "EINTR"]),
    ("copy_file_range", &["EIO", "ENOSPC"]),
];

/// Part of the report of a key slot that opens the vault and that nobody has entered in its records.
const UNLISTED: &str = "no record of the vault says that it is valid";
/// A note of this machine could not be read.
const FORGOTTEN: &str = "] this machine's ";

/// Part of the report of one that was removed and whose file is still there.
const REMOVED: &str = "was removed";

/// Kinds of calls that do not belong to any command's own work, and that only some systems have.
fn traced() -> String {
    // A question mark: the call need not exist on this machine.
    CALLS.iter().map(|(call, _)| format!("?{call}")).collect::<Vec<_>>().join(",")
}

/// A vault with a past, and the facts that hold for it.
struct Past {
    desk: Desk,
    /// The expected content of each snapshot.
    models: BTreeMap<ObjectName, Model>,
    /// One snapshot that may be forgotten, and one that is kept.
    first: ObjectName,
    second: ObjectName,
    /// The present content of the source.
    now: Model,
    /// The key slot of the recovery key.
    slot: String,
    /// The export of an undisturbed run.
    archive: Vec<u8>,
}

/// Folders that each case finds unchanged.
const PLACES: [&str; 3] = ["store", "state", "source"];

fn past() -> Past {
    let desk = Desk::new();
    plant(&desk.source(), 21, Size::Tiny);
    let take = |models: &mut BTreeMap<ObjectName, Model>| -> ObjectName {
        let id = desk.json(&["snapshot", ".", "--source", "source"])[0]["snapshot"]["id"].as_str().unwrap().to_owned();
        let id = id.parse().unwrap();
        models.insert(id, of_disk(&desk.source(), b"source"));
        id
    };
    let mut models = BTreeMap::new();
    let first = take(&mut models);
    fs::remove_dir_all(desk.source().join("folder 1")).unwrap();
    fs::write(desk.source().join("large"), bytes(8, 300_000)).unwrap();
    let second = take(&mut models);
    let listed = desk.json(&["key", "list"]);
    let slots = listed[0]["slots"].as_array().unwrap();
    let slot = slots.iter().find(|slot| slot["purpose"] == "recovery").unwrap()["id"].as_str().unwrap().to_owned();
    desk.ok(&["export", &second.to_string(), "--tar", desk.path("whole.tar").to_str().unwrap()]);
    let archive = fs::read(desk.path("whole.tar")).unwrap();
    fs::rename(desk.path("whole.tar"), desk.path("import.tar")).unwrap();
    fs::write(desk.source().join("new"), bytes(9, 50_000)).unwrap();
    fs::rename(desk.source().join("folder 2"), desk.source().join("moved")).unwrap();
    let now = of_disk(&desk.source(), b"source");
    for place in PLACES {
        keep(&desk.path(place), &desk.path(&format!("kept/{place}")));
    }
    Past { desk, models, first, second, now, slot, archive }
}

/// A copy with times, modes, links and holes.
fn keep(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Commands with their names.
const COMMANDS: &[&str] = &[
    "init",
    "snapshot",
    "restore",
    "restore in place",
    "prune",
    "check",
    "repair",
    "key add",
    "key passwd",
    "key remove",
    "forget",
    "import",
    "export",
    "list",
    "diff",
];

impl Past {
    /// Restores everything that a command reads and changes.
    fn reset(&self) {
        for place in PLACES {
            keep(&self.desk.path(&format!("kept/{place}")), &self.desk.path(place));
        }
        for place in ["out", "other"] {
            let _ = fs::remove_dir_all(self.desk.path(place));
        }
        let _ = fs::remove_file(self.desk.path("out.tar"));
    }

    fn args(&self, command: &str) -> Vec<String> {
        let path = |below: &str| self.desk.path(below).to_str().unwrap().to_owned();
        let (first, second) = (self.first.to_string(), self.second.to_string());
        let args: Vec<String> = match command {
            "init" => vec!["init".into(), "--repo".into(), path("other")],
            "snapshot" => vec!["snapshot".into(), ".".into(), "--source".into(), "source".into()],
            "restore" => vec!["restore".into(), first, "--to".into(), path("out")],
            "restore in place" => {
                vec!["restore".into(), second, "--in-place".into(), "--delete".into(), "--yes".into()]
            }
            "prune" => ["prune", "--keep", "1", "--max-unused", "0%", "--yes"].map(String::from).to_vec(),
            "check" => ["check", "--read-data"].map(String::from).to_vec(),
            "repair" => ["repair", "--yes"].map(String::from).to_vec(),
            "key add" => ["key", "add", "--new-password-command", "echo new"].map(String::from).to_vec(),
            "key passwd" => ["key", "passwd", "--new-password-command", "echo new"].map(String::from).to_vec(),
            "key remove" => vec!["key".into(), "remove".into(), self.slot.clone(), "--yes".into()],
            "forget" => vec!["forget".into(), first, "--yes".into()],
            "import" => vec!["import".into(), "--tar".into(), path("import.tar"), "--source".into(), "archive".into()],
            "export" => vec!["export".into(), second, "--tar".into(), path("out.tar")],
            "list" => vec!["list".into()],
            "diff" => vec!["diff".into(), first, second],
            other => unreachable!("{other}"),
        };
        args
    }

    /// A command under strace with these options.
    fn traced(&self, options: &[String], command: &str) -> Said {
        let args = self.args(command);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let inner = self.desk.command(&args);
        let mut outer = Command::new("timeout");
        outer.args(["-k", "1", "100", "strace", "-f", "-y", "-qq", "-o"]).arg(self.desk.path("trace"));
        outer.args(options).arg(inner.get_program()).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("VAULT_CONFIG");
        outer.current_dir(self.desk.source()).stdin(Stdio::null());
        said(&outer.output().unwrap())
    }

    /// Most times that a thread makes each call.
    fn counts(&self, command: &str) -> BTreeMap<String, u64> {
        self.reset();
        let options = ["-e".to_owned(), format!("trace={}", traced())];
        let done = self.traced(&options, command);
        assert_eq!(done.code, 0, "{command}: {}{}", done.out, done.err);
        let trace = fs::read_to_string(self.desk.path("trace")).unwrap();
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for line in trace.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            if let Some((call, _)) = rest.trim_start().split_once('(') {
                *counts.entry((thread, call)).or_default() += 1;
            }
        }
        let mut most: BTreeMap<String, u64> = BTreeMap::new();
        for ((_, call), count) in counts {
            let known = most.entry(call.to_owned()).or_default();
            *known = count.max(*known);
        }
        most
    }

    /// The vault as seen by a machine that knows nothing.
    fn open(&self, state: &Path) -> Vault {
        let store: Arc<dyn Store> = Arc::new(DirStore::open(&self.desk.path("store")).unwrap());
        open_as(&store, state, &Secret::raw(&RAW), "judge")
            .or_else(|_| open_as(&store, state, &Secret::password(PASSWORD), "judge"))
            .or_else(|_| open_as(&store, state, &Secret::password("new"), "judge"))
            .unwrap()
    }

    fn opens(&self, password: &str, repo: &str) -> Said {
        let (mut command, fresh) = (self.desk.command(&["list"]), scratch());
        command.env("VAULT_PASSWORD", password).env("VAULT_REPO", self.desk.path(repo));
        said(&command.env("VAULT_STATE_DIR", fresh.path()).output().unwrap())
    }

    /// Whether the call that failed was about the system's time zones. The library that reads them walks their folders with the standard
    /// library, which panics if a folder cannot be closed.
    fn is_of_time_zones(&self) -> bool {
        let trace = fs::read_to_string(self.desk.path("trace")).unwrap_or_default();
        trace.lines().any(|line| line.contains("INJECTED") && line.contains("/usr/share/zoneinfo"))
    }

    /// Facts that must hold after a disturbed command.
    fn judge(&self, command: &str, said: &Said, killed: bool, what: &str) {
        if said.code == 101 && said.err.contains("closedir") && self.is_of_time_zones() {
            return;
        }
        let shown = format!("{what}: {}\n{}{}", said.code, said.out, said.err);
        assert!(!said.err.contains("panicked") && !said.err.contains("this is a bug"), "{shown}");
        assert!(killed || matches!(said.code, 0..=4 | 10), "{shown}");
        let done = said.code == 0;
        let fresh = scratch();
        let vault = self.open(fresh.path());
        assert!(vault.bad_objects().is_empty(), "{shown}: {:?}", vault.bad_objects());
        let forgets = matches!(command, "forget" | "prune");
        let mut expected = self.models.clone();
        if forgets {
            expected.remove(&self.first);
        }
        check_all(&vault, &expected);
        let snapshots = vault.snapshots();
        let new: Vec<_> = snapshots.iter().filter(|one| !self.models.contains_key(&one.id)).collect();
        for snapshot in &new {
            let read = of_snapshot(&vault, &snapshot.body);
            assert!(read.errors.is_empty(), "{shown}: {:?}", read.errors);
            if done && command == "snapshot" {
                assert_same(&self.now, &read.nodes, &shown);
            }
        }
        // A file system that refuses a second name gets a copy, which the report says.
        let is_as_it_was = !said.out.contains("left out   hard-link of");
        match command {
            "snapshot" | "import" if done => assert_eq!(new.len(), 1, "{shown}"),
            "forget" | "prune" if done => assert!(snapshots.iter().all(|one| one.id != self.first), "{shown}"),
            "restore" if done && is_as_it_was => {
                let restored = of_disk(&self.desk.path("out/source"), b"source");
                assert_same(&self.models[&self.first], &restored, &shown);
            }
            // A file of which the system says that it does not exist need not be deleted.
            "restore in place" if done && is_as_it_was && !what.ends_with("statx: ENOENT") => {
                assert_same(&self.models[&self.second], &of_disk(&self.desk.source(), b"source"), &shown);
            }
            "export" if done => {
                let written = fs::read(self.desk.path("out.tar")).unwrap();
                assert!(written == self.archive, "{shown}: the archive differs");
            }
            "key add" | "key passwd" => {
                let (old, new) = (self.opens(PASSWORD, "store"), self.opens("new", "store"));
                assert!(!done || new.code == 0, "{shown}: {}", new.err);
                assert!(!done || command == "key add" || old.code == 12, "{shown}: {}", old.err);
                // It may have ended when a slot was there and no record named it yet, or when a record had removed one
                // whose file was still there. That is reported.
                let opened = |said: &Said| {
                    let is_half = said.out.contains(UNLISTED) || said.out.contains(REMOVED);
                    said.code == 0 || !done && matches!(said.code, 3 | 4) && is_half
                };
                assert!(opened(&old) || opened(&new), "{shown}: {}{}", old.err, new.err);
                assert!(command == "key passwd" || opened(&old), "{shown}: {}", old.err);
            }
            "key remove" if done => {
                let store: Arc<dyn Store> = Arc::new(DirStore::open(&self.desk.path("store")).unwrap());
                assert!(open_as(&store, scratch().path(), &Secret::raw(&RAW), "judge").is_err(), "{shown}");
            }
            "init" if done => assert_eq!(self.opens(PASSWORD, "other").code, 0, "{shown}"),
            _ => {}
        }
        drop(vault);
        self.go_on(command, &shown);
    }

    /// Without further disturbance the vault is well, and the same command succeeds.
    fn go_on(&self, command: &str, shown: &str) {
        let password = || if matches!(self.opens(PASSWORD, "store").code, 0 | 3 | 4) { PASSWORD } else { "new" };
        let run = |args: &[&str]| said(&self.desk.command(args).env("VAULT_PASSWORD", password()).output().unwrap());
        let mut check = run(&["check", "--read-data"]);
        // A slot that is half there is reported. One that no record names becomes a valid one if a person says so. A repair
        // makes a missing copy, and deletes the file of one that was removed.
        // So is a note of this machine that a call kept from being read, until a person accepts what was forgotten by it.
        for _ in 0..3 {
            let is_of_keys = matches!(command, "key add" | "key passwd" | "key remove");
            if !matches!(check.code, 3 | 4) || !is_of_keys && !check.out.contains(FORGOTTEN) {
                break;
            }
            let is_known = [REMOVED, UNLISTED, FORGOTTEN, "has one copy"].iter().any(|known| check.out.contains(known));
            assert!(is_known, "{shown}: afterwards check says {}{}", check.out, check.err);
            let lines = check.out.lines().filter(|line| line.contains(UNLISTED) || line.contains(FORGOTTEN));
            let findings: Vec<&str> = lines.filter_map(|line| line.strip_prefix('[')?.split(']').next()).collect();
            if findings.is_empty() {
                run(&["repair", "--yes", "--quick"]);
            } else {
                run(&[&["accept", "--yes"][..], &findings].concat());
            }
            check = run(&["check", "--read-data"]);
        }
        assert_eq!(check.code, 0, "{shown}: afterwards check says {}{}", check.out, check.err);
        for place in ["out", "other/no"] {
            let _ = fs::remove_dir_all(self.desk.path(place));
        }
        let again = match command {
            // Whatever is left of it is reused, or was already whole.
            "init" => {
                let made = self.opens(PASSWORD, "other");
                if made.code == 0 {
                    return;
                }
                // It died before everything was written twice: that is reported, and a repair completes it.
                if made.code == 4 {
                    let repaired = run(&["repair", "--yes", "--repo", self.desk.path("other").to_str().unwrap()]);
                    assert_eq!(repaired.code, 0, "{shown}: afterwards repair says {}{}", repaired.out, repaired.err);
                    assert_eq!(self.opens(PASSWORD, "other").code, 0, "{shown}: afterwards it is not well");
                    return;
                }
                said(
                    &self
                        .desk
                        .command(&["init", "--repo", self.desk.path("other").to_str().unwrap()])
                        .output()
                        .unwrap(),
                )
            }
            "key passwd" | "key add" | "key remove" | "forget" | "export" | "diff" => run(&["list"]),
            _ => {
                let args = self.args(command);
                run(&args.iter().map(String::as_str).collect::<Vec<_>>())
            }
        };
        assert_eq!(again.code, 0, "{shown}: run again it says {}{}", again.out, again.err);
    }
}

/// Whether strace can inject errors into a program here.
fn can_trace() -> Result<(), String> {
    let run = |args: &[&str]| Command::new("strace").args(args).stdin(Stdio::null()).output();
    match run(&["-f", "-qq", "-o", "/dev/null", "-e", "inject=getppid:error=EIO:when=1", "true"]) {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        Err(error) => Err(format!("strace: {error}")),
    }
}

#[test]
fn a_call_that_the_system_refuses_loses_nothing_and_is_never_called_success() {
    if let Err(reason) = can_trace() {
        eprintln!("skipped: no errors can be put into a program here: {reason}");
        return;
    }
    let past = past();
    let seed = std::env::var("VAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let only = std::env::var("VAULT_COMMAND").ok();
    let only_call = std::env::var("VAULT_CALL").ok();
    let mut rng = Rng(seed);
    let commands: Vec<&str> =
        COMMANDS.iter().copied().filter(|command| only.as_deref().is_none_or(|only| only == *command)).collect();
    let per_command = if campaign() > 0 { 1000 * campaign() / commands.len() as u64 } else { 1 };
    let (mut ends, mut distinct): (BTreeMap<i32, u64>, _) = (BTreeMap::new(), BTreeSet::new());
    let mut wrong = Vec::new();
    for command in commands {
        let counts = past.counts(command);
        let mut cases: Vec<(&str, &str, u64)> = Vec::new();
        for (call, errors) in CALLS.iter().filter(|(call, _)| only_call.as_deref().is_none_or(|only| only == *call)) {
            let most = counts.get(*call).copied().unwrap_or(0);
            cases.extend(errors.iter().flat_map(|error| (1..=most).map(move |at| (*call, *error, at))));
        }
        let kinds: BTreeSet<(&str, &str)> = cases.iter().map(|(call, error, _)| (*call, *error)).collect();
        let kinds: Vec<_> = kinds.into_iter().collect();
        for _ in 0..per_command.min(cases.len() as u64) {
            // Rare kinds of calls are chosen as often as those that occur in hundreds.
            let kind = kinds[rng.below(kinds.len() as u64) as usize];
            let of_kind: Vec<_> = cases.iter().filter(|(call, error, _)| (*call, *error) == kind).collect();
            if of_kind.is_empty() {
                continue;
            }
            let (call, error, at) = *of_kind[rng.below(of_kind.len() as u64) as usize];
            cases.retain(|case| *case != (call, error, at));
            let fault = if error == "KILL" { "signal=SIGKILL".to_owned() } else { format!("error={error}") };
            past.reset();
            let options =
                ["-e".to_owned(), format!("inject={call}:{fault}:when={at}"), "-e".into(), format!("trace={call}")];
            let said = past.traced(&options, command);
            let what = format!("{command}, number {at} of a thread, {call}: {error}");
            if said.err.contains("shared librar") {
                continue;
            }
            assert!(said.code != 124, "{what}: it hangs");
            // Each is judged, even if others fail.
            let judged = catch_unwind(AssertUnwindSafe(|| past.judge(command, &said, error == "KILL", &what)));
            wrong.extend(judged.err().map(|_| what));
            *ends.entry(said.code).or_default() += 1;
            distinct.insert((command, call, error));
        }
    }
    let all: u64 = ends.values().sum();
    println!("{all} calls failed, {} kinds of command, call and error; exit codes: {ends:?}", distinct.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
