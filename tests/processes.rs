//! Several processes of the real program at once, and Ctrl-C.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use vault::store::testing::mem::MemStore;
use vault::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits};

use crate::support::model::{Model, assert_same, of_disk};
use crate::support::source::{Size, bytes, plant};
use crate::support::{World, now, open_vault, scratch, small_chunks, take};

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault"));
    command
        .args(args)
        .env("HOME", home)
        .env("VAULT_PASSWORD", "password")
        .env("VAULT_STATE_DIR", home.join("state"))
        .env("VAULT_REPO", home.join("store"))
        .env_remove("VAULT_CONFIG")
        .stdin(Stdio::null());
    command
}

#[track_caller]
fn run(home: &Path, args: &[&str]) -> Output {
    let output = command(home, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Restores a snapshot into a new folder, and compares everything.
#[track_caller]
fn check_restore(home: &Path, snapshot: &str, name: &str, expected: &Model) {
    let to = home.join("back");
    fs::remove_dir_all(&to).unwrap_or_default();
    run(home, &["restore", snapshot, "--to", to.to_str().unwrap()]);
    assert_same(expected, &of_disk(&to.join(name), name.as_bytes()), snapshot);
}

/// Lets the others end, even if one has failed.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// One process takes snapshots, one takes others and prunes them, one reads and restores.
#[test]
fn snapshots_prunes_and_restores_of_several_processes_at_once_all_succeed() {
    let folder = scratch();
    let home = folder.path();
    let (source, other) = (home.join("source"), home.join("other"));
    for path in [&source, &other] {
        fs::create_dir(path).unwrap();
    }
    plant(&source, 21, Size::Tiny);
    run(home, &["init"]);
    let take = ["snapshot", source.to_str().unwrap(), "--source", "mine", "--tag", "stays", "--json"];
    run(home, &take);
    let done = AtomicBool::new(false);
    let mut expected: BTreeMap<String, Model> = BTreeMap::new();
    let (mut pruned, mut deleted, mut looked) = (0, 0, 0);
    scope(|scope| {
        let ended = Ended(&done);
        let pruner = scope.spawn(|| {
            let (mut rounds, mut deleted) = (0, 0);
            while !done.load(Relaxed) {
                fs::write(other.join("changing"), bytes(2 * rounds, 80_000)).unwrap();
                // The data of the other process comes and goes here.
                fs::write(other.join("shared"), bytes(1000 + 2 * (rounds % 3), 60_000)).unwrap();
                run(home, &["snapshot", other.to_str().unwrap()]);
                let rules = ["prune", "--keep", "1", "--keep-tag", "stays", "--max-unused", "0%", "--json"];
                let report: serde_json::Value = serde_json::from_slice(&run(home, &rules).stdout).unwrap();
                deleted += report["packs_deleted"].as_u64().unwrap();
                rounds += 1;
            }
            (rounds, deleted)
        });
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Relaxed) {
                run(home, &["list"]);
                run(home, &["ls", "-R", "latest", "--source", "mine"]);
                let to = home.join(format!("looked {rounds}"));
                run(home, &["restore", "latest", "--source", "mine", "--to", to.to_str().unwrap()]);
                fs::remove_dir_all(to).unwrap();
                rounds += 1;
            }
            rounds
        });
        for round in 0..20 {
            fs::write(source.join("changing"), bytes(501 + 2 * round, 30_000)).unwrap();
            fs::write(source.join("shared"), bytes(1000 + 2 * (round % 3), 60_000)).unwrap();
            let model = of_disk(&source, b"source");
            let report: serde_json::Value = serde_json::from_slice(&run(home, &take).stdout).unwrap();
            expected.insert(report["snapshot"]["id"].as_str().unwrap().to_owned(), model);
        }
        drop(ended);
        (pruned, deleted) = pruner.join().unwrap();
        looked = reader.join().unwrap();
    });
    assert_eq!(expected.len(), 20);
    for (id, model) in &expected {
        check_restore(home, id, "source", model);
    }
    run(home, &["check", "--read-data"]);
    assert!(pruned > 0 && deleted > 0 && looked > 0, "{pruned} prunes deleted {deleted} packs, {looked} looks");
    println!("beside 20 snapshots: {pruned} prunes that deleted {deleted} packs, {looked} looks");
}

/// Files that take a while.
fn large_source(home: &Path) -> PathBuf {
    let source = home.join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..14 {
        fs::write(source.join(format!("file {number}")), bytes(2 * number, 8 << 20)).unwrap();
    }
    source
}

/// Presses Ctrl-C when it is time. Returns the time until the end, or `None` if it was too late.
fn interrupt_when(mut child: Child, is_time: impl Fn() -> bool) -> Option<Duration> {
    while !is_time() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(2));
    }
    if child.try_wait().unwrap().is_some() {
        return None;
    }
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let took = begun.elapsed();
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("nterrupted"), "{said}");
    Some(took)
}

/// Ending at once takes a second, and another one on a busy machine; or, where everything is slow, less than half the
/// time of the whole.
#[track_caller]
fn assert_at_once(took: Duration, whole: Duration) {
    assert!(took < Duration::from_secs(2) || 2 * took < whole, "{took:?} of {whole:?}");
}

/// Duration of some work.
fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

#[test]
fn ctrl_c_ends_a_snapshot_at_once_and_loses_nothing() {
    let folder = scratch();
    let home = folder.path();
    fs::create_dir(home.join("first")).unwrap();
    plant(&home.join("first"), 22, Size::Tiny);
    let first = of_disk(&home.join("first"), b"first");
    let source = large_source(home);
    run(home, &["init"]);
    run(home, &["snapshot", home.join("first").to_str().unwrap()]);
    let packs = || walk(&home.join("store/packs"));
    let before = packs();
    let child = command(home, &["snapshot", source.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    let took = interrupt_when(child, || packs() > before);
    let took = took.expect("112 MB take longer than the first pack of them");
    println!("a snapshot ended after {} ms", took.as_millis());
    run(home, &["check", "--read-data"]);
    check_restore(home, "latest", "first", &first);
    let now = of_disk(&source, b"source");
    assert_at_once(took, timed(|| drop(run(home, &["snapshot", source.to_str().unwrap()]))));
    check_restore(home, "latest", "source", &now);
}

/// Number of files below a folder.
fn walk(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { 1 }).sum()
}

#[test]
fn ctrl_c_ends_a_restore_at_once_and_loses_nothing() {
    let folder = scratch();
    let home = folder.path();
    let source = large_source(home);
    run(home, &["init"]);
    run(home, &["snapshot", source.to_str().unwrap()]);
    let expected = of_disk(&source, b"source");
    let to = home.join("to");
    let restore = ["restore", "latest", "--to", to.to_str().unwrap()];
    let child = command(home, &restore).stderr(Stdio::piped()).spawn().unwrap();
    let took = interrupt_when(child, || walk(&to) > 0).expect("112 MB take longer than the first file of them");
    println!("a restore ended after {} ms", took.as_millis());
    assert_at_once(took, timed(|| drop(run(home, &[&restore[..], &["--overwrite", "if-changed"]].concat()))));
    assert_same(&expected, &of_disk(&to.join("source"), b"source"), "restored after an interruption");
    assert_eq!(walk(&to), 14, "no partial file is left behind");
    run(home, &["check"]);
}

/// A store that does something between the moment that a listing shows and its answer.
struct Meanwhile {
    inner: MemStore,
    happens: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Store for Meanwhile {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, offset, len)
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(key, max)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.inner.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let mut all = Vec::new();
        self.inner.list(kind, &mut |listed| all.push(listed))?;
        (self.happens)();
        all.into_iter().for_each(found);
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key)
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete_durably(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.quarantine(key)
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

/// Other processes of this machine put packs and records, and enter them in the catalogue, between a listing and its
/// answer, every time that anybody lists: nothing of it is reported as missing, and nothing is removed from the
/// catalogue.
#[test]
fn what_other_processes_put_during_a_look_is_not_called_missing() {
    let mut world = World::new(small_chunks());
    let source = world.source();
    fs::write(source.join("first"), bytes(1, 50_000)).unwrap();
    world.take();
    let (shared, state, count) = (world.shared(), world.state(), std::sync::atomic::AtomicU64::new(0));
    let taken = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let happens = {
        let (shared, state, source, taken) = (shared.clone(), state.clone(), source.clone(), taken.clone());
        Box::new(move || {
            let number = count.fetch_add(1, Relaxed);
            fs::write(source.join("changing"), bytes(500 + number, 50_000)).unwrap();
            let report = take(&open_vault(&shared, &state).unwrap(), &source).unwrap();
            taken.lock().unwrap().push(report.id.unwrap());
        })
    };
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(Meanwhile { inner: world.store.clone(), happens });
    // The second look of the same process already knows some records.
    let looking = open_vault(&store, &state).unwrap();
    for _ in 0..2 {
        assert_eq!(looking.missing_records().unwrap().records.len(), 0, "records are reported as missing");
        assert_eq!(looking.known_findings(now()).unwrap(), Vec::new());
        let before = taken.lock().unwrap().len();
        assert!(before > 0, "the other process did nothing meanwhile");
        let known = looking.catalogue().reader().unwrap().packs().unwrap().len();
        assert_eq!(
            known,
            world.store.objects().iter().filter(|(key, _)| is_pack(key)).count(),
            "packs were removed from the catalogue"
        );
        looking.refresh(&vault::progress::Silent::default()).unwrap();
    }
    let there: Vec<_> = open_vault(&shared, &state).unwrap().snapshots().iter().map(|info| info.id).collect();
    assert!(taken.lock().unwrap().iter().all(|id| there.contains(id)));
}

fn is_pack(key: &ObjectKey) -> bool {
    matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _))
}
