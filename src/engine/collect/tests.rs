//! The protocol of collecting, simulated with the real code: several clients with states of their own over a folder that
//! delivers late and in any order, or over one that all see at once. They snapshot, prune, fall asleep in the middle of any
//! operation of the store, crash, lose their state or have it set back. No snapshot that is retained may lose a chunk.
//!
//! 12 schedules of each kind by default; `VAULT_CAMPAIGN=n` makes it n hundred of each. With a rule weakened, the same
//! simulation loses data: so it can fail.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "tests may read the environment and print")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::chunk::ChunkParams;
use crate::engine::collect::CollectOptions;
use crate::engine::exclude::ExcludeOptions;
use crate::engine::prune::prune;
use crate::engine::retention::{self, Rules};
use crate::engine::snapshot::{Input, SnapshotOptions, snapshot};
use crate::log::sweep::{WEAKENED, Weakness};
use crate::progress::Silent;
use crate::seal::{KdfParams, Secret};
use crate::store::synced::{SyncedView, SyncedWorld};
use crate::store::{Delivery, Kind, Listed, ObjectKey, Store, StoreError};
use crate::tree::{StreamReader, Time};
use crate::vault::{CreateOptions, Identity, OpenOptions, Vault};

/// Different files that there are.
const FILES: u64 = 16;
/// How deep operations interrupt each other.
const DEPTH_MAX: usize = 2;
/// Only one simulation at a time may weaken the rules.
static SERIAL: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a file of this number holds.
fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 300 + (number as usize * 137) % 1500];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The clock stands still, long after all files were made: no timestamp is too fresh to be believed.
fn clock() -> Time {
    Time { secs: 4_000_000_000, nanos: 0 }
}

#[derive(Debug, Default)]
struct State {
    dice: u64,
    /// Clients that are in the middle of something.
    busy: Vec<bool>,
    /// Clients to which and from which nothing travels.
    asleep: Vec<bool>,
    /// Clients whose operations all fail until they are started again.
    crashed: Vec<bool>,
    depth: usize,
    /// Steps that are left.
    left: usize,
    counts: Counts,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    snapshots: u64,
    prunes: u64,
    deleted: u64,
    crashes: u64,
    retained: u64,
    lost: u64,
}

#[derive(Debug)]
struct Sim {
    world: SyncedWorld,
    delivery: Delivery,
    folder: TempDir,
    clients: usize,
    state: Mutex<State>,
}

/// The store as one client sees it. Anything may happen in the middle of each operation.
#[derive(Debug)]
struct SimStore {
    view: SyncedView,
    client: usize,
    sim: Arc<Sim>,
}

impl SimStore {
    /// What happens at an operation: nothing, or the others go on while this client waits, or it crashes.
    fn meet(&self, object: &dyn ToString) -> Result<(), StoreError> {
        let sim = &self.sim;
        let crashed = || StoreError::Io {
            action: "reach",
            object: object.to_string(),
            source: io::Error::other("the machine has crashed"),
        };
        if lock(&sim.state).left == 0 {
            return Ok(());
        }
        if lock(&sim.state).crashed[self.client] {
            return Err(crashed());
        }
        if sim.roll(400) == 0 {
            let mut state = lock(&sim.state);
            state.crashed[self.client] = true;
            state.counts.crashes += 1;
            return Err(crashed());
        }
        let is_deep = lock(&sim.state).depth >= DEPTH_MAX;
        if !is_deep && sim.roll(12) == 0 {
            let sleeps = sim.roll(2) == 0;
            {
                let mut state = lock(&sim.state);
                state.depth += 1;
                state.asleep[self.client] |= sleeps;
            }
            for _ in 0..sim.roll(14) {
                sim.step();
            }
            let mut state = lock(&sim.state);
            state.depth -= 1;
            state.asleep[self.client] = false;
        }
        Ok(())
    }
}

impl Store for SimStore {
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StoreError> {
        self.meet(key)?;
        self.view.put(key, bytes)?;
        self.meet(key)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.view.get_range(key, offset, len)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.view.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.meet(&kind.folder())?;
        self.view.list(kind, found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.meet(key)?;
        self.view.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.view.quarantine(key)
    }

    fn place(&self) -> String {
        self.view.place()
    }
}

impl Sim {
    fn new(seed: u64, clients: usize, delivery: Delivery, left: usize) -> Arc<Self> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let world = SyncedWorld::new(if delivery == Delivery::Direct { 1 } else { clients });
        let options = CreateOptions {
            secret: Secret::raw(&[7; 32]),
            label: String::new(),
            kdf: KdfParams::Standard,
            params: ChunkParams::new(256, 512, 1024).unwrap(),
            delivery,
            now: 0,
            recovery: None,
        };
        crate::vault::create::create(&world.view(0).unwrap(), &options).unwrap();
        world.deliver_all();
        for client in 0..clients {
            fs::create_dir_all(folder.path().join(format!("source {client}"))).unwrap();
        }
        let state = State {
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            busy: vec![false; clients],
            asleep: vec![false; clients],
            crashed: vec![false; clients],
            left,
            ..State::default()
        };
        Arc::new(Self { world, delivery, folder, clients, state: Mutex::new(state) })
    }

    /// A number below `bound`, or 0 if that is 0.
    fn roll(&self, bound: u64) -> u64 {
        let mut state = lock(&self.state);
        state.dice ^= state.dice << 13;
        state.dice ^= state.dice >> 7;
        state.dice ^= state.dice << 17;
        (state.dice >> 11) % bound.max(1)
    }

    fn path(&self, what: &str, client: usize) -> PathBuf {
        self.folder.path().join(format!("{what} {client}"))
    }

    fn open_at(store: Arc<dyn Store>, client: usize, state: PathBuf) -> Option<Vault> {
        let identity = Identity {
            host: format!("host {client}"),
            user: "user".to_owned(),
            machine: format!("machine {client}"),
            program: "test".to_owned(),
        };
        let options = OpenOptions { state, identity };
        crate::vault::open::open(store, &Secret::raw(&[7; 32]), options, &Silent::default()).ok()
    }

    fn open(self: &Arc<Self>, client: usize) -> Option<Vault> {
        lock(&self.state).crashed[client] = false;
        let view = self.world.view(if self.delivery == Delivery::Direct { 0 } else { client }).unwrap();
        let store = Arc::new(SimStore { view, client, sim: self.clone() });
        Self::open_at(store, client, self.path("state", client))
    }

    /// One thing happens somewhere.
    fn step(self: &Arc<Self>) {
        {
            let mut state = lock(&self.state);
            if state.left == 0 {
                return;
            }
            state.left -= 1;
        }
        if self.delivery == Delivery::Synced && self.roll(3) > 0 {
            let asleep = lock(&self.state).asleep.clone();
            for _ in 0..=self.roll(40) {
                let dice = self.roll(u64::MAX);
                // New things tend to come in order, but not always.
                let dice = if self.roll(2) == 0 { 0 } else { dice };
                self.world.deliver_where(dice, |from, to| !asleep[from] && !asleep[to]);
            }
            return;
        }
        let client = self.roll(self.clients as u64) as usize;
        if std::mem::replace(&mut lock(&self.state).busy[client], true) {
            return;
        }
        match self.roll(80) {
            0..44 => self.snapshot(client),
            44..77 => self.prune(client),
            77 => drop(fs::remove_dir_all(self.path("state", client))),
            78 => copy_folder(&self.path("state", client), &self.path("saved", client)),
            _ => {
                if self.path("saved", client).exists() {
                    drop(fs::remove_dir_all(self.path("state", client)));
                    copy_folder(&self.path("saved", client), &self.path("state", client));
                }
            }
        }
        lock(&self.state).busy[client] = false;
    }

    fn snapshot(self: &Arc<Self>, client: usize) {
        let source = self.path("source", client);
        for _ in 0..self.roll(4) {
            let number = self.roll(FILES);
            let file = source.join(number.to_string());
            if file.exists() {
                fs::remove_file(file).unwrap();
            } else {
                fs::write(file, content(number)).unwrap();
            }
        }
        self.take(client);
    }

    /// Takes a snapshot of what the source is now.
    fn take(self: &Arc<Self>, client: usize) {
        let source = self.path("source", client);
        let names = fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: BTreeSet<String> = names.collect();
        let Some(vault) = self.open(client) else { return };
        let options = SnapshotOptions {
            source: format!("source {client}"),
            inputs: vec![Input::Path { name: b"top".to_vec(), path: source, only: None }],
            time: clock(),
            clock: &clock,
            tags: Vec::new(),
            description: names.into_iter().collect::<Vec<_>>().join(" "),
            exclude: ExcludeOptions::default(),
            skip_if_unchanged: false,
            dry_run: false,
            level: 1,
            verify: false,
            read_all: false,
            threads: 1,
        };
        if snapshot(&vault, options, &Silent::default()).is_ok() {
            lock(&self.state).counts.snapshots += 1;
        }
    }

    fn prune(self: &Arc<Self>, client: usize) {
        let keep = 1 + self.roll(2);
        self.keep(client, keep);
    }

    /// Keeps the last so many of each client.
    fn keep(self: &Arc<Self>, client: usize, keep: u64) {
        let Some(vault) = self.open(client) else { return };
        let rules = Rules { last: Some(keep), ..Rules::default() };
        let decisions = retention::plan(&vault.snapshots(), &rules, &|_, _| String::new());
        let max_unused = if self.roll(2) == 0 { 0.0 } else { 0.3 };
        let options =
            CollectOptions { max_unused, max_moved: None, level: 1, verify: false, clock: &clock, threads: 1 };
        if let Ok(report) = prune(&vault, &decisions, &options, &Silent::default()) {
            let mut state = lock(&self.state);
            state.counts.prunes += 1;
            state.counts.deleted += report.packs_deleted;
        }
    }

    /// Everything arrives; then every snapshot that is retained must read back. Returns what happened.
    fn finish(self: &Arc<Self>) -> Counts {
        self.world.deliver_all();
        let fresh = TempDir::new_in(self.folder.path()).unwrap();
        let store = Arc::new(self.world.view(0).unwrap());
        let vault = Self::open_at(store, 99, fresh.path().to_owned()).unwrap();
        for info in vault.snapshots() {
            let is_whole = read_back(&vault, &info.body).is_some_and(|names| names == info.body.description);
            let mut state = lock(&self.state);
            state.counts.retained += 1;
            state.counts.lost += u64::from(!is_whole);
        }
        lock(&self.state).counts
    }
}

/// The names of the files in a snapshot, if it can be read and each is what it should be.
fn read_back(vault: &Vault, body: &crate::tree::Snapshot) -> Option<String> {
    let mut reader = vault.tree_reader().ok()?;
    let mut tops = Vec::new();
    reader
        .for_each_entry(&body.tree, |entry| {
            tops.push(entry);
            true
        })
        .ok()?;
    let mut files = Vec::new();
    reader
        .for_each_entry(tops.first()?.content.as_ref()?, |entry| {
            files.push(entry);
            true
        })
        .ok()?;
    let mut names = BTreeSet::new();
    for file in files {
        let name = String::from_utf8(file.name).ok()?;
        let (mut stream, mut bytes) = (StreamReader::new(file.content.as_ref()?), Vec::new());
        while let Some(part) = stream.next(&mut reader).ok()? {
            bytes.extend(part);
        }
        if bytes != content(name.parse().ok()?) {
            return None;
        }
        names.insert(name);
    }
    Some(names.into_iter().collect::<Vec<_>>().join(" "))
}

fn copy_folder(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn schedules() -> u64 {
    let campaign = std::env::var("VAULT_CAMPAIGN").ok().and_then(|text| text.parse::<u64>().ok());
    campaign.map_or(12, |hundreds| hundreds * 100)
}

/// Runs schedules until one loses something. Returns what happened in all of them.
fn campaign(delivery: Delivery, weakness: Weakness, count: u64) -> Counts {
    let _serial = lock(&SERIAL);
    WEAKENED.store(weakness as u8, Relaxed);
    let first = std::env::var("VAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut all = Counts::default();
    for seed in first..first + count {
        let sim = Sim::new(seed, 2 + (seed % 3) as usize, delivery, 90);
        while lock(&sim.state).left > 0 {
            sim.step();
        }
        let counts = sim.finish();
        all.snapshots += counts.snapshots;
        all.prunes += counts.prunes;
        all.deleted += counts.deleted;
        all.crashes += counts.crashes;
        all.retained += counts.retained;
        all.lost += counts.lost;
        if counts.lost > 0 {
            println!("schedule {seed} ({delivery:?}, {weakness:?}) loses {} snapshots", counts.lost);
            if weakness != Weakness::None {
                break;
            }
        }
    }
    WEAKENED.store(Weakness::None as u8, Relaxed);
    println!("{delivery:?}, {weakness:?}, {count} schedules at most: {all:?}");
    all
}

#[test]
fn no_retained_snapshot_loses_a_chunk_where_all_is_seen_at_once() {
    let counts = campaign(Delivery::Direct, Weakness::None, schedules());
    assert_eq!(counts.lost, 0);
    assert!(counts.deleted > 0 && counts.snapshots > 0 && counts.prunes > 0 && counts.retained > 0);
}

#[test]
fn no_retained_snapshot_loses_a_chunk_where_things_arrive_late() {
    let counts = campaign(Delivery::Synced, Weakness::None, schedules());
    assert_eq!(counts.lost, 0);
    assert!(counts.deleted > 0 && counts.snapshots > 0 && counts.prunes > 0 && counts.retained > 0);
}

#[test]
fn without_waiting_for_acknowledgements_data_is_lost() {
    assert!(campaign(Delivery::Synced, Weakness::NoAcknowledgement, 400).lost > 0);
}

/// What a client keeps from now on.
fn set_source(sim: &Sim, client: usize, files: &[u64]) {
    let source = sim.path("source", client);
    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    for number in files {
        fs::write(source.join(number.to_string()), content(*number)).unwrap();
    }
}

/// Two clients that know each other. Client 0 gives up the pack with file 1 while client 1, which has not heard of it yet,
/// relies on it; then client 1 acknowledges, and only that later record reaches client 0.
fn a_record_overtakes_the_one_before(weakness: Weakness) -> Counts {
    let _serial = lock(&SERIAL);
    WEAKENED.store(weakness as u8, Relaxed);
    let sim = Sim::new(1, 2, Delivery::Synced, 0);
    set_source(&sim, 0, &[1, 2]);
    set_source(&sim, 1, &[3]);
    for _ in 0..3 {
        for client in 0..2 {
            sim.take(client);
            sim.world.deliver_all();
        }
    }
    set_source(&sim, 0, &[2]);
    sim.take(0);
    sim.keep(0, 1);
    let condemning = sim.world.travelling();
    assert!(condemning > 0);
    set_source(&sim, 1, &[1, 3]);
    sim.take(1);
    let relying = sim.world.travelling() - condemning;
    (0..condemning).for_each(|_| assert!(sim.world.deliver_where(0, |from, _| from == 0)));
    set_source(&sim, 1, &[3, 4]);
    sim.take(1);
    while sim.world.travelling() > relying {
        sim.world.deliver(sim.world.travelling() as u64 - 1);
    }
    sim.keep(0, 9);
    let counts = sim.finish();
    WEAKENED.store(Weakness::None as u8, Relaxed);
    counts
}

#[test]
fn a_later_record_does_not_speak_for_one_that_has_not_arrived() {
    assert_eq!(a_record_overtakes_the_one_before(Weakness::None).lost, 0);
    assert!(a_record_overtakes_the_one_before(Weakness::Gaps).lost > 0, "without whole chains data is lost");
}

/// A client that nobody has heard of takes its first snapshot while the only one that is known gives up a pack.
fn a_new_client_is_not_known_yet(weakness: Weakness) -> Counts {
    let _serial = lock(&SERIAL);
    WEAKENED.store(weakness as u8, Relaxed);
    let sim = Sim::new(1, 2, Delivery::Synced, 0);
    set_source(&sim, 0, &[1, 2]);
    sim.take(0);
    sim.world.deliver_all();
    set_source(&sim, 1, &[1]);
    sim.take(1);
    set_source(&sim, 0, &[5]);
    sim.take(0);
    sim.keep(0, 1);
    assert!(lock(&sim.state).counts.deleted > 0);
    let counts = sim.finish();
    WEAKENED.store(Weakness::None as u8, Relaxed);
    counts
}

#[test]
fn a_new_client_relies_on_nothing_before_all_know_of_it() {
    assert_eq!(a_new_client_is_not_known_yet(Weakness::None).lost, 0);
    assert!(a_new_client_is_not_known_yet(Weakness::NoJoining).lost > 0, "without waiting data is lost");
}
