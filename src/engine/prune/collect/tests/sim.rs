//! Simulated clients with states of their own over a store that delivers late or at once, driven by one sequence of random numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tempfile::TempDir;

use crate::chunk::ChunkParams;
use crate::engine::archive::import::{ImportOptions, import};
use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::prune::collect::{CollectError, CollectOptions};
use crate::engine::prune::retention::{self, Rules};
use crate::engine::prune::{OwnRetirement, prune, retire_self, say};
use crate::engine::repair::{self, RepairOptions};
use crate::engine::rewrite::{Change, RewriteOptions, rewrite, settle};
use crate::engine::snapshot::{Empty, Input, SnapshotOptions, snapshot};
use crate::id::{ClientId, ObjectName};
use crate::log::{RecordBody, SweepRules};
use crate::progress::Silent;
use crate::seal::{KdfParams, Secret};
use crate::store::testing::synced::{SyncedView, SyncedWorld};
use crate::store::{Delivery, Kind, Listed, ObjectKey, Store, StoreError, StoreLimits};
pub use crate::sync::lock;
use crate::tree::{StreamReader, Time};
use crate::vault::identity::ClientState;
use crate::vault::{CreateOptions, Identity, OpenOptions, SnapshotInfo, Vault};

/// Number of different files.
const FILES: u64 = 6;
/// Maximum depth to which operations interrupt each other.
const DEPTH_MAX: usize = 2;

/// The content of the file with this number.
pub fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 300 + (number as usize * 137) % 1500];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// An action to run later.
type Then<T> = Box<dyn FnOnce(&Arc<Sim>) -> T + Send>;

/// The request that an action comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    PutRecord,
    /// The put of anything else.
    PutPack,
    ReadRecord,
    ListMeta,
}

/// An action just before a request of a client.
struct Hook {
    client: usize,
    before: Before,
    /// Number of such requests that it sends first.
    after: usize,
    then: Then<()>,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {} of client {}", self.after, self.client)
    }
}

/// An action in the middle of a listing of the log; the listing omits the record whose name the action returns.
struct ListingHook {
    client: usize,
    /// Number of listings before.
    after: usize,
    then: Then<ObjectName>,
}

impl std::fmt::Debug for ListingHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {} listings of client {}", self.after, self.client)
    }
}

/// Which machines there are, beside usual ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines {
    /// No two are alike.
    Apart,
    /// All are copies of one: machine, host, user and folder are the same.
    Alike,
    /// All were made from one template, and have different host names.
    Template,
}

#[derive(Debug, Default)]
struct State {
    dice: u64,
    /// For each client, the number of its processes in the middle of an operation.
    busy: Vec<usize>,
    /// Clients without deliveries in either direction.
    asleep: Vec<bool>,
    /// Clients whose operations all fail until they are restarted.
    crashed: Vec<bool>,
    depth: usize,
    /// Number of steps left.
    left: usize,
    /// Snapshots that were reported as taken.
    taken: BTreeSet<ObjectName>,
    /// Whether a folder could not be read when files were to be removed: they stayed, and that was reported.
    was_unread: bool,
    /// Clients of machines whose state was lost, on a synced store: a person may retire these.
    gone: Vec<ClientId>,
    /// Error of each machine's clock, in seconds.
    skew: Vec<i64>,
    /// Actions for when a client puts something.
    hooks: Vec<Hook>,
    /// The action in the middle of a listing of the log.
    listing: Option<ListingHook>,
    /// A machine that is not a copy of the others.
    apart: Option<usize>,
    /// Number of objects of the log from which they are merged.
    merged: usize,
    /// The machine whose view is checked at the end.
    eye: usize,
    counts: Counts,
    trace: Vec<String>,
}

/// Numbers of events.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub snapshots: u64,
    pub prunes: u64,
    /// Packs deleted.
    pub deleted: u64,
    /// Objects of the log merged, and those deleted because merges contain them.
    pub merged: u64,
    pub merged_deleted: u64,
    /// Past records at the end.
    pub past: u64,
    pub crashes: u64,
    /// Clients that slept in the middle of an operation.
    pub slept: u64,
    /// Operations of a client that began during another one of the same client.
    pub second: u64,
    /// States that were lost, reset, or copied to another machine; and the number of these during an operation.
    pub states: u64,
    pub live_states: u64,
    /// Clients that were retired, by a person or by themselves.
    pub retired: u64,
    pub imports: u64,
    /// Snapshots that replaced others.
    pub rewrites: u64,
    /// Incomplete snapshots that were not reported, of clients that cannot continue: their runs were interrupted.
    pub unreported: u64,
    /// Packs whose footer was damaged, and repairs.
    pub damaged: u64,
    pub repairs: u64,
    /// Snapshots that nobody forgot.
    pub retained: u64,
    /// Retained snapshots that cannot be read back, and reported snapshots without a record.
    pub lost: u64,
    /// Reported changes of snapshots that are neither listed nor explained at the end. Not every one of them is a fault.
    pub undone: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.snapshots += other.snapshots;
        self.prunes += other.prunes;
        self.deleted += other.deleted;
        self.merged += other.merged;
        self.merged_deleted += other.merged_deleted;
        self.past += other.past;
        self.crashes += other.crashes;
        self.slept += other.slept;
        self.second += other.second;
        self.states += other.states;
        self.live_states += other.live_states;
        self.retired += other.retired;
        self.imports += other.imports;
        self.rewrites += other.rewrites;
        self.unreported += other.unreported;
        self.undone += other.undone;
        self.damaged += other.damaged;
        self.repairs += other.repairs;
        self.retained += other.retained;
        self.lost += other.lost;
    }
}

/// One thread for the operations at each depth, so that parallel work of the library runs there in order.
#[derive(Debug, Clone)]
pub struct Pools(Vec<Arc<ThreadPool>>);

impl Pools {
    pub fn new() -> Self {
        let pool = || Arc::new(ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        Self((0..=DEPTH_MAX).map(|_| pool()).collect())
    }

    /// Runs work of this depth in the middle of an operation of the store. A pool thread that waits for another pool takes up tasks of
    /// its own pool meanwhile, which may need locks that it holds, so a plain thread waits in its place: no real store would let it
    /// continue.
    fn amid<T: Send>(&self, depth: usize, work: impl FnOnce() -> T + Send) -> T {
        if self.0[depth].current_thread_index().is_some() {
            return work();
        }
        let done = std::thread::scope(|scope| scope.spawn(|| self.0[depth].install(work)).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[derive(Debug)]
pub struct Sim {
    pub world: SyncedWorld,
    delivery: Delivery,
    rules: SweepRules,
    pub machines: Machines,
    folder: TempDir,
    clients: usize,
    pools: Pools,
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
    /// Decides what happens at an operation: nothing, or others act while this client waits, or it crashes.
    fn meet(&self, object: &dyn ToString) -> Result<(), StoreError> {
        let sim = &self.sim;
        let crashed = || StoreError::Io {
            action: "reach",
            object: object.to_string().into(),
            source: io::Error::other("the machine has crashed"),
        };
        if lock(&sim.state).left == 0 {
            return Ok(());
        }
        if lock(&sim.state).crashed[self.client] {
            return Err(crashed());
        }
        if sim.roll(300) == 0 {
            sim.trace(self.client, "crashes");
            let mut state = lock(&sim.state);
            state.crashed[self.client] = true;
            state.counts.crashes += 1;
            return Err(crashed());
        }
        let is_deep = lock(&sim.state).depth >= DEPTH_MAX;
        if !is_deep && sim.roll(12) == 0 {
            let sleeps = sim.roll(2) == 0;
            let steps = if sim.roll(8) == 0 { 10 + sim.roll(40) } else { sim.roll(14) };
            sim.trace(self.client, &format!("waits at {} {}", object.to_string(), if sleeps { "asleep" } else { "" }));
            {
                let mut state = lock(&sim.state);
                state.depth += 1;
                state.counts.slept += u64::from(sleeps);
                state.asleep[self.client] |= sleeps;
            }
            for _ in 0..steps {
                sim.step();
            }
            sim.trace(self.client, "goes on");
            let mut state = lock(&sim.state);
            state.depth -= 1;
            state.asleep[self.client] = false;
        }
        Ok(())
    }
}

impl Store for SimStore {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.meet(key)?;
        let is_record = matches!(key, ObjectKey::Named(Kind::Log, _));
        self.sim.hook(self.client, if is_record { Before::PutRecord } else { Before::PutPack });
        self.view.put(key, bytes)?;
        self.sim.trace(self.client, &format!("puts {key}"));
        self.meet(key)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        if self.sim.roll(4) == 0 {
            self.meet(key)?;
        }
        self.view.get_range(key, offset, len)
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        if self.sim.roll(4) == 0 {
            self.meet(key)?;
        }
        if matches!(key, ObjectKey::Named(Kind::Log, _)) {
            self.sim.hook(self.client, Before::ReadRecord);
        }
        self.view.get(key, max)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.view.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.meet(&kind.folder())?;
        if kind == Kind::Meta {
            self.sim.hook(self.client, Before::ListMeta);
        }
        // A listing does not show one moment: it shows some of the objects that appear or disappear meanwhile.
        let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
        let key = |listed: &Listed| match listed {
            Listed::Object { name, .. } => name.to_string(),
            Listed::Foreign(path) => path.clone(),
        };
        self.view.list(kind, &mut |listed| drop(first.insert(key(&listed), listed)))?;
        let hidden = self.sim.list_hook(self.client, kind).map(|name| name.to_string());
        if self.sim.roll(3) == 0 {
            self.meet(&kind.folder())?;
        }
        self.view.list(kind, &mut |listed| drop(second.insert(key(&listed), listed)))?;
        let both: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
        for name in both {
            match (first.get(name), second.get(name)) {
                (Some(listed), Some(_)) => found(listed.clone()),
                (None, Some(listed)) if hidden.is_some() && hidden.as_ref() != Some(name) => found(listed.clone()),
                (Some(listed), None) | (None, Some(listed)) if hidden.is_none() && self.sim.roll(2) == 0 => {
                    found(listed.clone());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.meet(key)?;
        self.sim.trace(self.client, &format!("deletes {key}"));
        self.view.delete(key)
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.meet(key)?;
        self.sim.trace(self.client, &format!("moves {key} aside"));
        self.view.quarantine(key)
    }

    /// One request at a time, so that events depend on the random numbers alone.
    fn limits(&self) -> StoreLimits {
        StoreLimits::ONE
    }

    fn place(&self) -> String {
        self.view.place()
    }
}

impl Sim {
    pub fn new(
        seed: u64,
        clients: usize,
        delivery: Delivery,
        left: usize,
        pools: &Pools,
        rules: SweepRules,
        machines: Machines,
    ) -> Arc<Self> {
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
            busy: vec![0; clients],
            asleep: vec![false; clients],
            crashed: vec![false; clients],
            skew: vec![0; clients],
            left,
            // Schedules that are scripted step by step count records.
            merged: if left > 0 { 4 } else { 64 },
            ..State::default()
        };
        let sim =
            Self { world, delivery, rules, machines, folder, clients, pools: pools.clone(), state: Mutex::new(state) };
        for client in 0..clients {
            if sim.roll(3) == 0 {
                let days = i64::try_from(sim.roll(2000)).unwrap() - 1000;
                lock(&sim.state).skew[client] = days * 24 * 3600;
            }
        }
        Arc::new(sim)
    }

    /// Runs the action for this request of a client, if there is one.
    fn hook(self: &Arc<Self>, client: usize, before: Before) {
        let hook = {
            let mut state = lock(&self.state);
            let is_for = |hook: &Hook| hook.client == client && hook.before == before;
            let at = state.hooks.iter().position(|hook| is_for(hook) && hook.after == 0);
            if at.is_none() {
                state.hooks.iter_mut().filter(|hook| is_for(hook)).for_each(|hook| hook.after -= 1);
            }
            at.map(|at| state.hooks.remove(at))
        };
        if let Some(hook) = hook {
            self.pools.amid(1, || (hook.then)(self));
        }
    }

    fn list_hook(self: &Arc<Self>, client: usize, kind: Kind) -> Option<ObjectName> {
        let hook = {
            let mut state = lock(&self.state);
            let hook = state.listing.as_mut().filter(|hook| hook.client == client && kind == Kind::Log)?;
            if hook.after > 0 {
                hook.after -= 1;
                return None;
            }
            state.listing.take()?
        };
        Some(self.pools.amid(1, || (hook.then)(self)))
    }

    /// Runs an action in the middle of a listing of the log, after this many others.
    pub fn when_listing(
        &self,
        client: usize,
        after: usize,
        then: impl FnOnce(&Arc<Self>) -> ObjectName + Send + 'static,
    ) {
        lock(&self.state).listing = Some(ListingHook { client, after, then: Box::new(then) });
    }

    /// Records that a snapshot was reported as taken.
    pub fn report(&self, id: ObjectName) {
        lock(&self.state).taken.insert(id);
    }

    /// Runs an action just before a client puts a record, after this many others.
    pub fn when(&self, client: usize, after: usize, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        lock(&self.state).hooks.push(Hook { client, before: Before::PutRecord, after, then: Box::new(then) });
    }

    /// Runs an action just before a client puts a pack.
    pub fn when_pack(&self, client: usize, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        lock(&self.state).hooks.push(Hook { client, before: Before::PutPack, after: 0, then: Box::new(then) });
    }

    /// Runs an action just before a client reads a record from the store.
    pub fn when_reading(&self, client: usize, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let hook = Hook { client, before: Before::ReadRecord, after: 0, then: Box::new(then) };
        lock(&self.state).hooks.push(hook);
    }

    /// Runs an action just before a client lists the meta packs, after this many others.
    pub fn when_listing_meta(&self, client: usize, after: usize, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        lock(&self.state).hooks.push(Hook { client, before: Before::ListMeta, after, then: Box::new(then) });
    }

    /// Sets the number of objects of the log from which they are merged.
    pub fn merge_from(&self, count: usize) {
        lock(&self.state).merged = count;
    }

    /// Loses a machine, with all its objects that have not been delivered yet; its deletions are delivered everywhere.
    pub fn lose(&self, client: usize) {
        self.world.lose(client);
        lock(&self.state).eye = (client + 1) % self.clients;
    }

    /// Makes one machine different from the others.
    pub fn set_apart(&self, client: usize) {
        lock(&self.state).apart = Some(client);
    }

    /// A number below `bound`, or 0 if that is 0.
    fn roll(&self, bound: u64) -> u64 {
        let mut state = lock(&self.state);
        state.dice ^= state.dice << 13;
        state.dice ^= state.dice >> 7;
        state.dice ^= state.dice << 17;
        (state.dice >> 11) % bound.max(1)
    }

    fn trace(&self, client: usize, what: &str) {
        let mut state = lock(&self.state);
        let line = format!("{}client {client} {what}", "  ".repeat(state.depth));
        state.trace.push(line);
    }

    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    pub fn path(&self, what: &str, client: usize) -> PathBuf {
        self.folder.path().join(format!("{what} {client}"))
    }

    /// The clock: six hours for each step, starting long after all files were made, so that no timestamp is too recent to be trusted.
    /// Some machines are wrong by years.
    pub fn clock(&self, client: usize) -> Time {
        let state = lock(&self.state);
        let left = i64::try_from(state.left).unwrap();
        Time { secs: 4_000_000_000 - 6 * 3600 * left + state.skew.get(client).copied().unwrap_or(0), nanos: 0 }
    }

    fn open_at(&self, store: Arc<dyn Store>, client: usize, state: PathBuf) -> Option<Vault> {
        let (machine, host) = match self.machines {
            Machines::Alike if client < 90 && lock(&self.state).apart != Some(client) => (0, 0),
            Machines::Template => (0, client),
            _ => (client, client),
        };
        let identity = Identity {
            host: format!("host {host}"),
            user: "user".to_owned(),
            machine: format!("machine {machine} host {host}"),
            program: "test".to_owned(),
        };
        let options = OpenOptions::new(state, identity);
        let mut vault = crate::vault::open::open(store, &Secret::raw(&[7; 32]), options, &Silent::default()).ok()?;
        vault.rules = self.rules;
        // Low limits, so that claims are published during a run.
        (vault.limits.claims, vault.limits.names, vault.limits.merged) = (3, 2, lock(&self.state).merged);
        if self.machines != Machines::Apart {
            vault.place = "/state".to_owned();
        }
        Some(vault)
    }

    pub fn open(self: &Arc<Self>, client: usize) -> Option<Vault> {
        lock(&self.state).crashed[client] = false;
        let view = self.world.view(if self.delivery == Delivery::Direct { 0 } else { client }).unwrap();
        let store = Arc::new(SimStore { view, client, sim: self.clone() });
        self.open_at(store, client, self.path("state", client))
    }

    /// Lets all clients get to know each other.
    pub fn meet_all(self: &Arc<Self>) {
        let left = std::mem::take(&mut lock(&self.state).left);
        for client in (0..self.clients).chain(0..self.clients) {
            self.edit(client);
            self.pools.0[0].install(|| self.take(client));
            self.world.deliver_all();
        }
        lock(&self.state).left = left;
    }

    /// Runs all steps.
    pub fn run(self: &Arc<Self>) {
        while lock(&self.state).left > 0 {
            self.step();
        }
    }

    /// Runs one step at some client.
    fn step(self: &Arc<Self>) {
        let depth = {
            let mut state = lock(&self.state);
            if state.left == 0 {
                return;
            }
            state.left -= 1;
            state.depth
        };
        if self.delivery == Delivery::Synced && self.roll(3) > 0 {
            return self.deliver();
        }
        let client = self.roll(self.clients as u64) as usize;
        let busy = lock(&self.state).busy[client];
        if busy > 1 || (busy == 1 && (self.is_locked(client) || self.roll(2) == 0)) {
            return;
        }
        lock(&self.state).busy[client] += 1;
        self.pools.amid(depth, || self.act(client, busy));
        lock(&self.state).busy[client] -= 1;
    }

    /// Delivers some objects; some of these will be delivered again later.
    fn deliver(&self) {
        let asleep = lock(&self.state).asleep.clone();
        for _ in 0..=self.roll(40) {
            let dice = self.roll(u64::MAX);
            // New objects tend to arrive in order, but not always.
            let dice = if self.roll(2) == 0 { 0 } else { dice };
            let is_open = |from: usize, to: usize| !asleep[from] && !asleep[to];
            if self.roll(30) == 0 {
                self.world.deliver_twice_where(dice, is_open);
            } else {
                self.world.deliver_where(dice, is_open);
            }
        }
        if self.roll(20) == 0 {
            self.world.duplicate(self.roll(self.clients as u64) as usize, self.roll(u64::MAX));
        }
    }

    /// Whether a process of this client is just writing a record: another one would wait for it forever.
    fn is_locked(&self, client: usize) -> bool {
        let states = fs::read_dir(self.path("state", client)).into_iter().flatten().flatten();
        let mut locks = states.filter_map(|state| File::open(state.path().join("client.lock")).ok());
        locks.any(|file| file.try_lock().is_err())
    }

    /// A client does something. During other work of the same client, its files and its state stay as they are.
    fn act(self: &Arc<Self>, client: usize, busy: usize) {
        let (state, saved) = (self.path("state", client), self.path("saved", client));
        lock(&self.state).counts.second += busy as u64;
        // On a synced store, a machine with a sound copy does not see the damage.
        if self.delivery == Delivery::Direct && self.roll(40) == 0 {
            return self.damage_and_repair(client);
        }
        // On a synced store, nobody can help a client that others do not know to exist.
        let rough = busy == 0 || self.delivery == Delivery::Direct;
        match self.roll(if rough { 90 } else { 76 }) {
            0..34 => {
                if busy == 0 {
                    self.edit(client);
                }
                self.take(client);
            }
            34..40 => self.import(client),
            40..48 => self.rewrite(client),
            48..76 => self.prune(client),
            76..79 => {
                self.trace(client, "loses its state");
                self.leave(client, busy);
                drop(fs::remove_dir_all(state));
            }
            79 => copy_folder(&state, &saved),
            80..83 if saved.exists() => {
                self.trace(client, "is set back");
                self.leave(client, busy);
                copy_folder(&saved, &state);
            }
            83..85 => self.copy_machine(client, busy),
            85..88 => self.retire(client),
            88..90 => self.throw_away(client),
            _ => {}
        }
    }

    /// Removes this machine's state.
    fn leave(self: &Arc<Self>, client: usize, busy: usize) {
        {
            let mut state = lock(&self.state);
            state.counts.states += 1;
            state.counts.live_states += busy as u64;
        }
        if self.delivery == Delivery::Synced {
            let view = self.world.view(client).unwrap();
            let vault = self.open_at(Arc::new(view), client, self.path("state", client));
            lock(&self.state).gone.extend(vault.and_then(|vault| vault.client()));
        }
    }

    /// Copies this machine's state to another machine, as when a disk is copied. On a synced store, nothing distinguishes a machine from
    /// an exact copy of it.
    fn copy_machine(self: &Arc<Self>, client: usize, busy: usize) {
        if self.delivery == Delivery::Synced && self.machines == Machines::Alike {
            return;
        }
        let other = (client + 1 + self.roll(self.clients as u64 - 1) as usize) % self.clients;
        let idle = lock(&self.state).busy[other] == 0;
        if self.delivery == Delivery::Direct || idle {
            self.trace(other, &format!("gets the state of client {client}"));
            self.leave(other, busy);
            copy_folder(&self.path("state", client), &self.path("state", other));
        }
    }

    /// A person retires a client: where all see the same, possibly one that is alive.
    fn retire(self: &Arc<Self>, client: usize) {
        let Some(vault) = self.open(client) else { return };
        let own = vault.client();
        let mut clients: Vec<ClientId> = vault.chains().clients.keys().copied().filter(|id| Some(*id) != own).collect();
        if self.delivery == Delivery::Synced {
            let gone = lock(&self.state).gone.clone();
            clients.retain(|id| gone.contains(id));
            if self.world.travelling() > 0 || self.in_use(&clients) {
                return;
            }
        } else if !clients.is_empty() {
            clients = vec![clients[self.roll(clients.len() as u64) as usize]];
        }
        let count = clients.len() as u64;
        if count > 0 && say(&vault, RecordBody::Retire(clients), self.clock(client), &Silent::default()).is_ok() {
            self.trace(client, "retires others");
            lock(&self.state).counts.retired += count;
        }
    }

    /// Whether any machine writes as one of these clients.
    fn in_use(&self, clients: &[ClientId]) -> bool {
        let busy = lock(&self.state).busy.iter().sum::<usize>() > 1;
        let state = |client| fs::read_dir(self.path("state", client)).into_iter().flatten().flatten();
        let of = |folder: fs::DirEntry| ClientState::load(&folder.path()).map(|state| state.client);
        busy || (0..self.clients).flat_map(state).filter_map(of).any(|client| clients.contains(&client))
    }

    /// A client takes a snapshot and retires itself.
    pub fn throw_away(self: &Arc<Self>, client: usize) {
        self.take(client);
        let Some(vault) = self.open(client) else { return };
        if matches!(retire_self(&vault, self.clock(client), &Silent::default()), Ok(OwnRetirement::Done)) {
            self.trace(client, "retires itself");
            lock(&self.state).counts.retired += 1;
        }
    }

    /// Imports an archive of the present source.
    fn import(self: &Arc<Self>, client: usize) {
        let numbers: Vec<u64> = (0..FILES).filter(|_| self.roll(2) == 0).collect();
        let names = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        self.trace(client, &format!("begins to import {names}"));
        let mut archive = tar("top/", b'5', &[]);
        numbers.iter().for_each(|number| archive.extend(tar(&format!("top/{number}"), b'0', &content(*number))));
        archive.extend([0; 1024]);
        let Some(vault) = self.open(client) else { return };
        let clock = || self.clock(client);
        let options = ImportOptions {
            source: format!("archive {client}"),
            time: clock(),
            strip: 0,
            tags: Vec::new(),
            description: names,
            clock: &clock,
            level: 1,
            verify: false,
            others: crate::write::trust::VerifyOthers::Sample,
            threads: 1,
        };
        let report = import(&vault, &mut archive.as_slice(), &options, &Silent::default());
        if let Ok(id) = report.map(|report| report.id) {
            self.trace(client, &format!("has imported {id:?}"));
            let mut state = lock(&self.state);
            state.counts.imports += 1;
            state.taken.extend(id);
        }
    }

    /// Removes a file from some snapshots.
    fn rewrite(self: &Arc<Self>, client: usize) {
        self.take_out(client, self.roll(FILES), |sim| sim.roll(2) == 0);
    }

    /// Removes a file from snapshots that are chosen one by one, and adds a tag that says so.
    pub fn take_out(self: &Arc<Self>, client: usize, number: u64, is_meant: impl Fn(&Self) -> bool) {
        self.trace(client, &format!("begins to take {number} out"));
        let Some(vault) = self.open(client) else { return };
        let meant: Vec<SnapshotInfo> = vault.snapshots().into_iter().filter(|_| is_meant(self)).collect();
        let clock = || self.clock(client);
        let others = crate::write::trust::VerifyOthers::Sample;
        let options = RewriteOptions { clock: &clock, level: 1, verify: false, others, threads: 1 };
        let change =
            Change { add_tags: vec![number.to_string()], exclude: vec![format!("/{number}")], ..Change::default() };
        match rewrite(&vault, &meant, &change, &options, &Silent::default()) {
            Ok(report) => {
                self.trace(client, &format!("has put {:?}", report.replaced));
                let mut state = lock(&self.state);
                state.counts.rewrites += report.replaced.len() as u64;
                state.was_unread |= !report.unread.is_empty();
                state.taken.extend(report.replaced.iter().map(|(_, now)| *now));
            }
            Err(error) => self.trace(client, &format!("has put nothing: {error}")),
        }
    }

    fn edit(&self, client: usize) {
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
    }

    /// Takes a snapshot of the present source.
    pub fn take(self: &Arc<Self>, client: usize) {
        let source = self.path("source", client);
        let names = fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: BTreeSet<String> = names.collect();
        let names = names.into_iter().collect::<Vec<_>>().join(" ");
        self.trace(client, &format!("begins a snapshot of {names}"));
        let Some(vault) = self.open(client) else { return };
        let clock = || self.clock(client);
        let options = SnapshotOptions {
            source: format!("source {client}"),
            inputs: vec![Input::Path { name: b"top".to_vec(), path: source, only: None }],
            time: clock(),
            given: false,
            clock: &clock,
            tags: Vec::new(),
            description: names,
            exclude: ExcludeOptions::default(),
            skip_if_unchanged: false,
            empty: Empty::IfItWasFull,
            dry_run: false,
            level: 1,
            verify: false,
            others: crate::write::trust::VerifyOthers::Sample,
            read_all: false,
            read_special: false,
            threads: 1,
        };
        let report = snapshot(&vault, options, &Silent::default());
        if let Ok(id) = report.map(|report| report.id) {
            self.trace(client, &format!("has taken snapshot {id:?}"));
            let mut state = lock(&self.state);
            state.counts.snapshots += 1;
            state.taken.extend(id);
        }
    }

    /// Damages the footer of a pack, or not: everything in it can still be saved. Then a client repairs what it finds.
    fn damage_and_repair(self: &Arc<Self>, client: usize) {
        let objects = self.world.view(0).unwrap();
        let objects = objects.objects();
        let packs: Vec<ObjectKey> = objects
            .objects()
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _)))
            .collect();
        if !packs.is_empty() && self.roll(2) == 0 {
            let key = packs[self.roll(packs.len() as u64) as usize];
            self.trace(client, &format!("finds {key} damaged"));
            // In the locator.
            let is_there = objects.mutate(&key, |bytes| {
                let at = bytes.len() - 60;
                bytes[at] ^= 1;
            });
            lock(&self.state).counts.damaged += u64::from(is_there);
        }
        self.trace(client, "begins to repair");
        let Some(vault) = self.open(client) else { return };
        let clock = || self.clock(client);
        let options = RepairOptions { read_data: false, of_others: true, clock: &clock, threads: 1, from: None };
        let done = repair::plan(&vault, &options, &Silent::default())
            .and_then(|plan| repair::execute(&vault, plan, &options, &Silent::default()));
        if done.is_ok() {
            self.trace(client, "has repaired");
            lock(&self.state).counts.repairs += 1;
        }
    }

    fn prune(self: &Arc<Self>, client: usize) {
        let (keep, max_unused) = (1 + self.roll(2), if self.roll(2) == 0 { 0.0 } else { 0.3 });
        self.keep(client, keep, max_unused);
    }

    /// Keeps the last `keep` snapshots of each client.
    pub fn keep(self: &Arc<Self>, client: usize, keep: u64, max_unused: f64) {
        self.trace(client, &format!("begins to keep {keep}"));
        let Some(vault) = self.open(client) else { return };
        let rules = Rules { last: Some(keep), ..Rules::default() };
        let decisions = retention::plan(&vault.snapshots(), &rules, &|_, _| String::new());
        let clock = || self.clock(client);
        let options =
            CollectOptions { max_unused, max_moved: None, level: 1, verify: false, clock: &clock, threads: 1 };
        let mut outcome = prune(&vault, &decisions, &options, &Silent::default());
        if let Err(CollectError::RecordsMissing { .. }) = outcome {
            // Nothing is dropped as long as records are missing. What was forgotten before is given back.
            outcome = prune(&vault, &[], &options, &Silent::default());
        }
        match outcome {
            Ok(report) => {
                self.trace(client, &format!("has deleted {} packs", report.packs_deleted));
                let mut state = lock(&self.state);
                state.counts.prunes += 1;
                state.counts.deleted += report.packs_deleted;
                state.counts.merged += report.records_merged;
                state.counts.merged_deleted += report.records_deleted;
            }
            Err(error) => self.trace(client, &format!("cannot prune: {error}")),
        }
    }

    /// Delivers everything; then every retained snapshot must be readable, and every reported one must have its record. Returns the
    /// numbers of events.
    pub fn finish(self: &Arc<Self>) -> Counts {
        self.pools.0[0].install(|| self.look());
        let counts = self.counts();
        let shown = std::env::var("VAULT_TRACE").unwrap_or_default();
        if shown == "all" || counts.lost + counts.undone > 0 && !shown.is_empty() {
            lock(&self.state).trace.iter().for_each(|line| println!("{line}"));
        }
        counts
    }

    fn look(&self) {
        lock(&self.state).left = 0;
        self.world.deliver_all();
        let fresh = TempDir::new_in(self.folder.path()).unwrap();
        let eye = lock(&self.state).eye;
        let store = Arc::new(self.world.view(eye).unwrap());
        let vault = self.open_at(store, 99, fresh.path().to_owned()).unwrap();
        if lock(&self.state).counts.damaged > 0 {
            let clock = || self.clock(99);
            let options = RepairOptions { read_data: false, of_others: true, clock: &clock, threads: 1, from: None };
            let plan = repair::plan(&vault, &options, &Silent::default()).unwrap();
            repair::execute(&vault, plan, &options, &Silent::default()).unwrap();
        }
        // As every prune does.
        let clock = || self.clock(99);
        let others = crate::write::trust::VerifyOthers::Sample;
        let options = RewriteOptions { clock: &clock, level: 1, verify: false, others, threads: 1 };
        settle(&vault, &options, &Silent::default()).unwrap();
        for info in vault.snapshots() {
            let all: BTreeSet<&str> = info.body.description.split(' ').filter(|name| !name.is_empty()).collect();
            let is_out = |name: &&&str| info.body.tags.iter().any(|tag| tag == *name);
            let left: BTreeSet<&str> = all.iter().filter(|name| !is_out(name)).copied().collect();
            // Content of an unreadable folder may have stayed: that was reported.
            let may_stay = lock(&self.state).was_unread;
            let there = read_back(&vault, &info.body);
            let is_whole = there.as_ref().is_some_and(|names| {
                let names: BTreeSet<&str> = names.split(' ').filter(|name| !name.is_empty()).collect();
                names == left || may_stay && names.is_superset(&left) && names.is_subset(&all)
            });
            // The client that put it, possibly as a replacement.
            let chains = vault.chains();
            let writer = chains.links().find(|link| link.name == info.id).unwrap().record.client;
            let may_go_on = chains.may_go_on(&writer);
            let mut state = lock(&self.state);
            state.counts.retained += 1;
            let is_loss = info.replaced.iter().any(|id| state.taken.contains(id) && !vault.meant_for(&[*id]).1);
            if !is_whole && !may_go_on && !is_loss && !state.taken.contains(&info.id) {
                state.counts.unreported += 1;
            } else if !is_whole {
                state.counts.lost += 1;
                state.trace.push(format!("snapshot {} is not whole: it has {there:?} of {left:?}", info.id));
            }
        }
        let chains = vault.chains();
        let mut recorded: BTreeSet<ObjectName> = chains
            .links()
            .filter(|link| matches!(link.record.body, RecordBody::Snapshot(_)))
            .map(|link| link.name)
            .collect();
        // Of a forgotten snapshot, only a past record may be left.
        recorded.extend(chains.past().flat_map(|past| &past.records).map(|record| record.name));
        let mut state = lock(&self.state);
        let missing = state.taken.iter().filter(|id| !recorded.contains(id)).count() as u64;
        if missing > 0 {
            state.trace.push(format!("{missing} snapshots have no record"));
        }
        let hidden: Vec<ObjectName> = state.taken.iter().filter(|id| !is_known(&vault, id)).copied().collect();
        for id in &hidden {
            let body = chains.links().find(|link| link.name == *id).map(|link| &link.record.body);
            let Some(RecordBody::Snapshot(body)) = body else { continue };
            let (tags, of) = (&body.tags, &body.replaces);
            state.trace.push(format!("snapshot {id} (tags {tags:?}, put for {of:?}) is hidden, and nobody forgot it"));
            for info in vault.snapshots() {
                if info.stands_for(id) || of.iter().any(|old| info.stands_for(old)) {
                    state.trace.push(format!("  {} stands there, with tags {:?}", info.id, info.body.tags));
                }
            }
        }
        state.counts.lost += missing;
        state.counts.undone += hidden.len() as u64;
        state.counts.past += chains.past().map(|past| past.records.len() as u64).sum::<u64>();
    }
}

/// Whether a snapshot that was reported is listed, under whichever name, with what was changed, or it is said why not: it was forgotten, or what it was put in
/// the place of, or others changed that at the same time, which is told. If it is not known yet whether it counts, all of it is there.
fn is_known(vault: &Vault, id: &ObjectName) -> bool {
    let chains = vault.chains();
    let link = chains.links().find(|link| link.name == *id);
    let Some(RecordBody::Snapshot(body)) = link.map(|link| &link.record.body) else { return true };
    // What was taken out is said in tags.
    let says = |info: &SnapshotInfo| body.tags.iter().all(|tag| info.body.tags.contains(tag));
    let stands = |info: &SnapshotInfo| info.stands_for(id) || body.replaces.iter().any(|old| info.stands_for(old));
    vault.snapshots().iter().any(|info| stands(info) && says(info))
        || vault.meant_for(&[&[*id], &body.replaces[..]].concat()).1
        || vault
            .void_changes()
            .iter()
            .any(|void| void.change.id == *id && (!void.is_doubted || read_back(vault, body).is_some()))
}

/// A member of an archive.
fn tar(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(if kind == b'5' { b"0000755" } else { b"0000644" });
    block[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000001");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut out = block.to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// The names of the files in a snapshot, if it can be read and each has the right content.
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
