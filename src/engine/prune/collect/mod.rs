//! Prunes a vault (SPEC §8.6): marks the chunks that the snapshots need, copies them out of packs that contain few of them, condemns
//! these packs, and deletes them once every client has acknowledged that.
//!
//! `plan` decides what is worth doing, pure · `merge` many small records into few objects · `reason` why a pack is
//! deleted or stays, in words.
//!
//! The catalogue is only a cache, so nothing is deleted because of what it says: it determines what is worth doing, and then the footers
//! of the packs themselves determine which chunks are in them. Every chunk of a pack that a snapshot needs must be in another pack that
//! stays, which is checked in that pack's footer too.

pub mod plan;
pub mod merge;
mod reason;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use crate::catalogue::packs::SegmentInfo;
use crate::catalogue::{CatalogueError, PackInfo, Reader};
use crate::engine::check::hurt;
use crate::engine::prune::collect::plan::{CollectPlan, PackUse, SegmentUse, plan};
use crate::id::{ChunkId, ClientId, ObjectName};
use crate::limits::LEVEL;
use crate::log::record::PackRef;
use crate::log::{Acknowledgements, Finding, Obstacle, RecordBody, RecordError};
use crate::pack::reader::object_key;
use crate::pack::{Footer, PackError, PackReader};
use crate::progress::{Phase, Progress};
use crate::read::mark::{MarkError, Marks, mark};
use crate::seal::{ObjectKind, SealError};
use crate::store::{Delivery, ObjectKey, StoreError};
use crate::sync::try_share;
use crate::tree::Time;
use crate::vault::session::Session;
use crate::vault::{BadObject, ObjectState, SnapshotInfo, Vault, VaultError};
use crate::write::repack::{MoveOptions, Needed, move_needed};
use crate::write::trust::Standings;

/// Options of a prune.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct CollectOptions<'a> {
    /// Maximum ratio of unused to needed bytes in the packs that stay.
    pub max_unused: f64,
    /// Maximum number of bytes to copy.
    pub max_moved: Option<u64>,
    /// zstd level for chunks that are compressed again.
    pub level: i32,
    /// Open copied segments before they are put.
    pub verify: bool,
    /// The clock.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// Number of threads.
    pub threads: usize,
}

impl<'a> CollectOptions<'a> {
    /// Gives back space until no more than [`MAX_UNUSED`] is left unused, by one thread.
    pub const fn new(clock: &'a (dyn Fn() -> Time + Sync)) -> Self {
        Self { max_unused: MAX_UNUSED, max_moved: None, level: LEVEL, verify: true, clock, threads: 1 }
    }
}

/// A chunk of a pack that is given up, for which a home is sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sought {
    id: ChunkId,
    /// Index of its pack among those that are given up.
    slot: u32,
    /// Its segment there.
    segment: u32,
    /// Its index in the segment.
    index: u32,
}

/// The usual ratio of unused to needed bytes that is tolerated.
pub const MAX_UNUSED: f64 = 0.05;

/// Why space could not be freed. No needed data is lost by that.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The trees could not be read.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Something unknown may need data that would be deleted.
    #[error("no space can be given back: {0}")]
    Refused(String),
    /// Records that this machine has seen are missing from the log. Other clients do not know which data they need.
    #[error("nothing can be forgotten or given back: records that were seen are missing from the log ({count})")]
    RecordsMissing {
        /// Number of missing records.
        count: u64,
        /// Whether they may just not have arrived yet.
        late: bool,
    },
    /// A later version wrote something that may need data that would be deleted.
    #[error("no space can be given back: {what}")]
    Newer {
        /// The unknown feature or object, in words.
        what: String,
    },
    /// A part of a snapshot has not arrived yet, and it may need data that would be deleted.
    #[error("no space can be given back: a folder of a snapshot has not arrived yet; the sync brings it")]
    NotArrived,
    /// The store is full, and nothing more can be deleted without copying something first.
    #[error(
        "no space is left in the store: to copy what is needed out of the next pack, {} MB have to be free",
        room.div_ceil(1_000_000)
    )]
    NoRoom {
        /// The free space needed, in bytes.
        room: u64,
    },
    /// No threads could be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

impl CollectError {
    /// Whether the store was full.
    pub(crate) const fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Vault(
                VaultError::Store(StoreError::Full { .. })
                    | VaultError::Pack(PackError::Store(StoreError::Full { .. }))
                    | VaultError::Record(RecordError::Store(StoreError::Full { .. }))
            )
        )
    }
}

macro_rules! through_vault {
    ($($error:ty),*) => {
        $(impl From<$error> for CollectError {
            fn from(error: $error) -> Self {
                Self::Vault(error.into())
            }
        })*
    };
}
through_vault!(CatalogueError, StoreError, PackError, SealError);

/// Result of a prune, or its estimate.
#[derive(Debug, Clone, Default)]
pub struct CollectReport {
    /// Number of packs deleted (in an estimate: that could be deleted).
    pub packs_deleted: u64,
    /// Their size, in bytes.
    pub bytes_deleted: u64,
    /// Number of bytes copied, approximately.
    pub bytes_moved: u64,
    /// Size of the packs written for that, in bytes.
    pub bytes_stored: u64,
    /// Unneeded bytes that stay, because copying their needed neighbours is not worthwhile.
    pub bytes_unused: u64,
    /// Number of condemned packs that will be deleted later.
    pub packs_waiting: u64,
    /// Their size, in bytes.
    pub bytes_waiting: u64,
    /// Number of packs that no snapshot needs and no record claims: from runs of others that are in progress or were lost.
    pub packs_unclaimed: u64,
    /// Their size, in bytes.
    pub bytes_unclaimed: u64,
    /// The clients that condemned packs wait for, and why.
    pub obstacles: BTreeSet<Obstacle>,
    /// Number of bytes that each of these holds up, possibly together with others.
    pub held: BTreeMap<Obstacle, u64>,
    /// Whether there was nothing to do since the last time.
    pub nothing_new: bool,
    /// Number of records merged into fewer objects.
    pub records_merged: u64,
    /// Number of objects deleted from the log because merges contain them.
    pub records_deleted: u64,
}

/// Maximum number of times to mark again because new snapshots appeared; the rest waits for the next prune.
const PASSES: usize = 4;
/// Maximum number of packs to delete with one request, if the store can do that.
const DELETED_TOGETHER: usize = 1000;
/// Space that a prune needs besides the packs that it writes, for records, in bytes.
const ROOM_BESIDE: u64 = 256 << 10;
/// Number of packs to condemn together.
const BATCH: usize = 128;

/// The result of a prune after forgetting these snapshots. Changes nothing, not even the log.
///
/// # Errors
/// As [`collect`].
pub fn estimate(
    vault: &Vault,
    forgotten: &BTreeSet<ObjectName>,
    options: &CollectOptions<'_>,
    progress: &dyn Progress,
) -> Result<CollectReport, CollectError> {
    in_pool(vault.store().reading_threads(options.threads), || {
        let Pass { plan, uses, .. } = Pass::new(vault, None, forgotten, options, progress)?;
        let given_up: HashSet<u32> = plan.dead.iter().chain(&plan.moved).copied().collect();
        let waiting = uses.iter().filter(|pack| pack.condemned && !pack.free);
        Ok(CollectReport {
            packs_deleted: given_up.len() as u64,
            bytes_deleted: plan.bytes_freed,
            bytes_moved: plan.bytes_moved,
            bytes_unused: plan.bytes_unused,
            packs_waiting: waiting.clone().count() as u64,
            bytes_waiting: waiting.map(|pack| pack.len).sum(),
            ..CollectReport::default()
        })
    })
}

/// Frees the space of data that no snapshot needs. The session must be one that may write.
///
/// # Errors
/// If the store or the catalogue fails, or something unknown may need data that would be deleted.
pub fn collect(
    vault: &Vault,
    session: &Session,
    options: &CollectOptions<'_>,
    progress: &dyn Progress,
) -> Result<CollectReport, CollectError> {
    may_collect(vault)?;
    let before = fingerprint(vault, options);
    if vault.condemned().is_empty() && vault.catalogue().collected()? == Some(before) {
        return Ok(CollectReport { nothing_new: true, ..CollectReport::default() });
    }
    in_pool(vault.store().reading_threads(options.threads), || {
        let (mut report, mut batch) = (CollectReport::default(), BATCH);
        for _ in 0..PASSES {
            vault.begin_again(session, (options.clock)(), progress)?;
            let mut pass = Pass::new(vault, Some(session), &BTreeSet::new(), options, progress)?;
            match pass.run(session, batch, &mut report) {
                Ok(true) => break,
                Ok(false) => {}
                // The copies made so far make some packs unneeded, and copying one pack at a time needs less space.
                Err(error) if batch > 1 && error.is_full() => {
                    progress.detail("the store is full: packs are copied one after the other");
                    batch = 1;
                    vault.refresh(progress)?;
                }
                Err(error) => return Err(error),
            }
        }
        vault.tend_index(progress);
        waiting(vault, session, &mut report);
        if report.packs_waiting == 0 && report.packs_unclaimed == 0 {
            vault.catalogue().set_collected(fingerprint(vault, options))?;
        }
        Ok(report)
    })
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> Result<T, CollectError> + Send) -> Result<T, CollectError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    pool.map_err(|error| CollectError::Threads(error.to_string()))?.install(work)
}

/// Hash of everything that the result of a prune depends on.
fn fingerprint(vault: &Vault, options: &CollectOptions<'_>) -> u64 {
    let mut names: Vec<ObjectName> = vault.needed().iter().map(|info| info.id).collect();
    names.sort_unstable();
    let mut packs = vault.pack_names();
    packs.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(names.len() as u64).to_le_bytes());
    for name in names.iter().chain(&packs) {
        hasher.update(name.as_bytes());
    }
    hasher.update(&options.max_unused.to_le_bytes()).update(&options.max_moved.unwrap_or(u64::MAX).to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Refuses to prune if it is not known which data is needed, or if a record that was seen is missing: the data that it needs would be
/// deleted and could never be restored.
///
/// # Errors
/// [`CollectError::RecordsMissing`], [`CollectError::Newer`], [`CollectError::Refused`], or if the catalogue fails.
pub fn may_collect(vault: &Vault) -> Result<(), CollectError> {
    let mut count = vault.missing_records()?.records.len() as u64;
    for finding in vault.findings() {
        if let Finding::RolledBack { seen, there, .. } = finding {
            count = count.max(seen - there);
        }
    }
    if count > 0 {
        return Err(CollectError::RecordsMissing { count, late: vault.delivery() == Delivery::Synced });
    }
    let features = vault.format().unknown().collect;
    if features != 0 {
        return Err(CollectError::Newer { what: format!("it uses features of a newer vault ({features:016x})") });
    }
    if let Some(BadObject { key, state, what }) = vault.unread_objects().into_iter().next() {
        let what = format!("the record {key} may be a snapshot ({what})");
        return Err(match state {
            ObjectState::Newer => CollectError::Newer { what },
            ObjectState::NotArrived => CollectError::RecordsMissing { count: 1, late: true },
            _ => CollectError::Refused(format!("{what} and cannot be read")),
        });
    }
    Ok(())
}

/// As [`may_collect`]; refuses also to drop snapshots by rules as long as records are missing that others have seen: one of them may pin a
/// snapshot, or be one that counts.
///
/// # Errors
/// As [`may_collect`].
pub fn may_forget(vault: &Vault) -> Result<(), CollectError> {
    may_collect(vault)?;
    let count = vault.unread_numbers()?.values().map(|numbers| numbers.len() as u64).sum();
    if count > 0 {
        return Err(CollectError::RecordsMissing { count, late: vault.delivery() == Delivery::Synced });
    }
    Ok(())
}

/// The packs named by each condemning record that still exist, with the record's client and number.
fn condemnations(vault: &Vault) -> Vec<(ClientId, u64, Vec<PackRef>)> {
    let log = vault.log();
    let links = log.chains.links().filter_map(|link| match &link.record.body {
        RecordBody::Condemn(packs) => {
            let there: Vec<PackRef> = packs.iter().filter(|pack| log.packs.contains_key(&pack.name)).copied().collect();
            Some((link.record.client, link.record.number, there))
        }
        _ => None,
    });
    links.filter(|(_, _, packs)| !packs.is_empty()).collect()
}

/// As [`deletable_by`], for all running work of this client.
fn deletable(
    vault: &Vault,
    session: Option<&Session>,
) -> (HashSet<ObjectName>, BTreeMap<Obstacle, HashSet<ObjectName>>) {
    deletable_by(vault, &vault.acknowledged(session).into_iter().collect())
}

/// The condemned packs that may be deleted if no snapshot needs them, and what holds up the others. `mine` is what all running work of
/// this client has seen.
fn deletable_by(
    vault: &Vault,
    mine: &BTreeMap<ClientId, u64>,
) -> (HashSet<ObjectName>, BTreeMap<Obstacle, HashSet<ObjectName>>) {
    let me = vault.client();
    let acks = vault.acknowledgements(&vault.log());
    let (mut free, mut held) = (HashSet::new(), Vec::new());
    for (client, number, packs) in condemnations(vault) {
        let holding = acks.holding(&client, number, me.as_ref(), mine);
        if holding.is_empty() {
            free.extend(packs.into_iter().map(|pack| pack.name));
        } else {
            held.push((packs, holding));
        }
    }
    let mut obstacles: BTreeMap<Obstacle, HashSet<ObjectName>> = BTreeMap::new();
    for (packs, holding) in held {
        let waiting: Vec<ObjectName> = packs.iter().map(|pack| pack.name).filter(|name| !free.contains(name)).collect();
        for obstacle in holding.into_iter().filter(|_| !waiting.is_empty()) {
            obstacles.entry(obstacle).or_default().extend(&waiting);
        }
    }
    (free, obstacles)
}

fn waiting(vault: &Vault, session: &Session, report: &mut CollectReport) {
    let condemned = vault.condemned();
    let lens: HashMap<ObjectName, u64> = {
        let log = vault.log();
        condemned.iter().filter_map(|name| Some((*name, log.packs.get(name)?.1))).collect()
    };
    report.packs_waiting = condemned.len() as u64;
    report.bytes_waiting = lens.values().sum();
    if !condemned.is_empty() {
        let obstacles = deletable(vault, Some(session)).1;
        report.obstacles = obstacles.keys().cloned().collect();
        let bytes = |packs: HashSet<ObjectName>| packs.iter().filter_map(|name| lens.get(name)).sum();
        report.held = obstacles.into_iter().map(|(obstacle, packs)| (obstacle, bytes(packs))).collect();
    }
}

/// One marking, and the plan made from it.
struct Pass<'a> {
    vault: &'a Vault,
    options: &'a CollectOptions<'a>,
    progress: &'a dyn Progress,
    reader: Arc<Reader>,
    infos: BTreeMap<u32, PackInfo>,
    marked: HashSet<ObjectName>,
    marks: Marks,
    condemned: HashSet<u32>,
    standings: Standings,
    uses: Vec<PackUse>,
    plan: CollectPlan,
    /// Packs that no visible snapshot needs any more.
    cleared: HashSet<ObjectName>,
    /// Packs with copies of needed chunks.
    copies: HashSet<ObjectName>,
}

impl<'a> Pass<'a> {
    fn new(
        vault: &'a Vault,
        session: Option<&Session>,
        forgotten: &BTreeSet<ObjectName>,
        options: &'a CollectOptions<'a>,
        progress: &'a dyn Progress,
    ) -> Result<Self, CollectError> {
        vault.know_all(progress)?;
        let mut snapshots = vault.needed();
        snapshots.retain(|info| !forgotten.contains(&info.id));
        let reader = Arc::new(vault.catalogue().reader()?);
        let infos = reader.packs()?;
        may_collect(vault)?;
        progress.counters().restart(0, 0);
        progress.phase(Phase::Plan);
        let marks = mark(vault, &reader, snapshots.iter().map(|info| &info.body), progress)?;
        if !marks.lost.is_empty() || !marks.is_whole() {
            // Of the others, nobody needs all data any more.
            let kept: Vec<SnapshotInfo> =
                vault.snapshots().into_iter().filter(|info| !forgotten.contains(&info.id)).collect();
            hurt::remember(vault, &reader, &kept, &marks.lost, progress)?;
        }
        if let Some(what) = marks.unknown() {
            if !marks.is_damaged && hurt::is_late(vault, &reader, &snapshots, &HashSet::new())? {
                return Err(CollectError::NotArrived);
            }
            let what = format!("a folder of a snapshot cannot be read ({what})");
            return Err(if marks.is_whole() { CollectError::Newer { what } } else { CollectError::Refused(what) });
        }
        let condemned_names = vault.condemned();
        let condemned: HashSet<u32> =
            infos.iter().filter(|(_, info)| condemned_names.contains(&info.name)).map(|(number, _)| *number).collect();
        let mut standings = Standings::new(vault, &reader, &infos, condemned.clone())?;
        standings.look_at_copies(vault, &reader, &infos, &marks, progress)?;
        let uses = uses(&reader, &infos, &marks, &condemned, &standings)?;
        let marked = snapshots.iter().map(|info: &SnapshotInfo| info.id).collect();
        let mut pass = Self {
            vault,
            options,
            progress,
            reader,
            infos,
            marked,
            marks,
            condemned,
            standings,
            uses,
            plan: CollectPlan::default(),
            cleared: HashSet::new(),
            copies: HashSet::new(),
        };
        pass.judge(session)?;
        pass.plan = plan(&pass.uses, options.max_unused, options.max_moved.unwrap_or(u64::MAX));
        reason::tell(&pass);
        Ok(pass)
    }

    /// Decides which packs may be condemned or deleted.
    fn judge(&mut self, session: Option<&Session>) -> Result<(), CollectError> {
        let vault = self.vault;
        let (free, _) = deletable(vault, session);
        let noted = vault.noted(session);
        let me = vault.client();
        let log = vault.log();
        let claimed = log.chains.claimed();
        let acks = vault.acknowledgements(&log);
        // Packs that others claim while their run continues belong to work in progress; so do packs claimed by other work here.
        let goes_on = |client: &ClientId| Some(*client) != me || vault.has_other_work(session);
        let active: Vec<ClientId> = acks.active().filter(goes_on).collect();
        let unfinished: HashSet<ObjectName> = active.iter().flat_map(|client| log.chains.unfinished(client)).collect();
        drop(log);
        // Nobody else can be at work unnoticed.
        let alone = vault.delivery() == Delivery::Direct && acks.active().all(|client| Some(client) == me);
        let forsaken = if alone { HashSet::new() } else { self.forsaken(session, &acks, &claimed)? };
        for pack in &mut self.uses {
            let Some(info) = self.infos.get(&pack.number) else { continue };
            pack.free = if pack.condemned {
                free.contains(&info.name)
            } else {
                let is_done = claimed.contains(&info.name) || alone || forsaken.contains(&info.name);
                is_done && !noted.may_be_under_way(&info.name) && !unfinished.contains(&info.name)
            };
        }
        Ok(())
    }

    /// Abandoned packs: no record claims them, and all work that was in progress when they were first seen has ended, so their writer
    /// lost its state. If they were condemned earlier, nothing would be lost, but a writer that is still working on them would have to
    /// copy all of them (SPEC §8.6).
    fn forsaken(
        &self,
        session: Option<&Session>,
        acks: &Acknowledgements,
        claimed: &HashSet<ObjectName>,
    ) -> Result<HashSet<ObjectName>, CollectError> {
        let vault = self.vault;
        let (Some(session), Some(me), Delivery::Direct) = (session, vault.client(), vault.delivery()) else {
            return Ok(HashSet::new());
        };
        let own = vault.noted(Some(session));
        let is_unclaimed = |name: &ObjectName| !claimed.contains(name) && !own.may_contain(name);
        let packs = self.infos.values().map(|info| info.name).filter(is_unclaimed).collect();
        let last = vault.log().chains.last(&me).map_or(0, |link| link.record.number);
        let mut first_seen = vault.catalogue().note_unclaimed(&packs, last)?;
        let mine: BTreeMap<ClientId, u64> = vault.acknowledged(Some(session)).into_iter().collect();
        first_seen.retain(|_, number| acks.holding(&me, *number + 1, Some(&me), &mine).is_empty());
        Ok(first_seen.into_keys().collect())
    }

    /// Carries out the plan, copying `batch` packs before any of them is condemned. Returns whether it is complete: otherwise new
    /// snapshots appeared, and a new plan is needed.
    fn run(&mut self, session: &Session, batch: usize, report: &mut CollectReport) -> Result<bool, CollectError> {
        report.bytes_unused = self.plan.bytes_unused;
        let unclaimed = self.uses.iter().filter(|pack| !pack.free && !pack.condemned && !pack.live());
        report.packs_unclaimed = unclaimed.clone().count() as u64;
        report.bytes_unclaimed = unclaimed.map(|pack| pack.len).sum();
        let goal = self.plan.bytes_moved;
        self.progress.counters().restart(0, goal);
        self.progress.phase(Phase::Collect);
        let dead = std::mem::take(&mut self.plan.dead);
        let mut not_dead = Vec::new();
        for dead in dead.chunks(BATCH * 8) {
            let (needed, empty): (Vec<Needed>, Vec<Needed>) = self.needed(dead)?.into_iter().partition(Needed::any);
            not_dead.extend(needed.into_iter().map(|pack| pack.number));
            if !self.give_up(session, &empty)? {
                return Ok(false);
            }
        }
        if !self.sweep(session, report)? {
            return Ok(false);
        }
        let mut moved: Vec<u32> = not_dead.into_iter().chain(std::mem::take(&mut self.plan.moved)).collect();
        let used: HashMap<u32, u64> = self.uses.iter().map(|pack| (pack.number, pack.used())).collect();
        if batch == 1 {
            // Start with those that need the least space: each deleted pack makes room for the next.
            moved.sort_by_key(|number| used.get(number).copied());
        }
        for batch in moved.chunks(batch) {
            let mut needed = self.needed(batch)?;
            let options = MoveOptions { level: self.options.level, verify: self.options.verify };
            let moved = move_needed(self.vault, session, &needed, &self.plan.carried, options, self.progress);
            let moved = moved.map_err(|error| match CollectError::from(error) {
                error if error.is_full() && batch.len() == 1 => {
                    let used = used.get(&batch[0]).copied().unwrap_or(self.vault.pack_len() as u64);
                    // Including padding, footer and records.
                    CollectError::NoRoom { room: used + used / 8 + ROOM_BESIDE }
                }
                error => error,
            })?;
            report.bytes_stored += moved.bytes_stored;
            self.copies.extend(&moved.packs);
            let lens = needed.iter().flat_map(|pack| pack.footer.segments.iter().zip(&pack.chunks));
            report.bytes_moved += lens
                .filter(|(_, chunks)| !chunks.is_empty())
                .map(|(entry, _)| u64::from(entry.sealed_len))
                .sum::<u64>();
            needed.retain(|pack| !moved.failed.contains(&pack.number));
            if !self.give_up(session, &needed)? {
                return Ok(false);
            }
            if !self.sweep(session, report)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the footers of these packs, and finds which of their chunks must be copied: those that a snapshot needs and that are in no
    /// other pack that stays. Packs whose footers cannot be read are left out.
    fn needed(&self, packs: &[u32]) -> Result<Vec<Needed>, CollectError> {
        let reader = self.vault.pack_reader();
        let infos = |numbers: &mut dyn Iterator<Item = &u32>| -> Vec<(u32, &PackInfo)> {
            numbers.filter_map(|number| self.infos.get(number).map(|info| (*number, info))).collect()
        };
        let footers = |infos: &[(u32, &PackInfo)]| {
            let reads = self.vault.store().limits().reads;
            try_share(infos.len(), reads, |at| self.footer(&reader, infos[at].1))
        };
        let given_up = infos(&mut packs.iter());
        let footers_here = footers(&given_up)?;
        let mut found = Vec::new();
        let mut ids: Vec<Sought> = Vec::new();
        for ((number, info), footer) in given_up.into_iter().zip(footers_here) {
            let Some(footer) = footer else { continue };
            let slot = found.len() as u32;
            for (segment, entry) in footer.segments.iter().enumerate() {
                let chunks = entry.chunks.iter().enumerate();
                ids.extend(chunks.map(|(index, (id, _))| Sought {
                    id: *id,
                    slot,
                    segment: segment as u32,
                    index: index as u32,
                }));
            }
            let chunks = vec![Vec::new(); footer.segments.len()];
            found.push(Needed { number, info: info.clone(), footer, chunks });
        }
        ids.par_sort_unstable();
        let given_up: HashSet<u32> = packs.iter().copied().collect();
        let mut elsewhere: HashMap<u32, Vec<Sought>> = HashMap::new();
        let mut here: Vec<Sought> = Vec::new();
        let mut at = 0;
        self.reader.for_each_place(|rank, id, places| {
            while let Some(first) = ids.get(at).filter(|first| first.id <= id).copied() {
                if first.id == id && self.marks.bits.get(rank) {
                    let from = found[first.slot as usize].number;
                    let stays = |pack: &u32| {
                        !given_up.contains(pack)
                            && !self.condemned.contains(pack)
                            && self.standings.replaces(*pack, from)
                    };
                    match places.iter().map(|place| place.pack).find(stays) {
                        Some(pack) => elsewhere.entry(pack).or_default().push(first),
                        None => here.push(first),
                    }
                } else if first.id < id && self.marks.lost.contains(&first.id) {
                    here.push(first);
                }
                while ids.get(at).is_some_and(|other| other.id == first.id) {
                    at += 1;
                }
            }
            at < ids.len()
        })?;
        here.extend(ids[at..].iter().filter(|sought| self.marks.lost.contains(&sought.id)));
        let others = infos(&mut elsewhere.keys());
        let numbers = others.iter().map(|(number, _)| *number);
        let mut footers: HashMap<u32, Option<Footer>> = numbers.zip(footers(&others)?).collect();
        for (pack, wanted) in elsewhere {
            let footer = footers.remove(&pack).flatten();
            let has: HashSet<ChunkId> = footer
                .iter()
                .flat_map(|footer| &footer.segments)
                .flat_map(|entry| &entry.chunks)
                .map(|(id, _)| *id)
                .collect();
            here.extend(wanted.into_iter().filter(|sought| !has.contains(&sought.id)));
        }
        for Sought { slot, segment, index, .. } in here {
            found[slot as usize].chunks[segment as usize].push(index);
        }
        for pack in &mut found {
            for chunks in &mut pack.chunks {
                chunks.sort_unstable();
                chunks.dedup();
            }
        }
        Ok(found)
    }

    /// The footer of a pack; `None` if it cannot be read, which is only reported.
    fn footer(&self, reader: &PackReader<'_>, info: &PackInfo) -> Result<Option<Footer>, CollectError> {
        match reader.footer(info.kind, info.name, info.len) {
            Ok(footer) => Ok(Some(footer)),
            Err(PackError::Store(StoreError::Missing { .. })) => Ok(None),
            Err(error) if error.is_contained() => {
                self.progress.warn(&format!("{error}; the pack stays as it is"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Condemns these packs, whose needed chunks are all in other packs. Returns `false` if that no longer holds.
    fn give_up(&mut self, session: &Session, packs: &[Needed]) -> Result<bool, CollectError> {
        self.cleared.extend(packs.iter().map(|pack| pack.info.name));
        let fresh: Vec<&Needed> = packs.iter().filter(|pack| !self.condemned.contains(&pack.number)).collect();
        for part in fresh.chunks(self.vault.limits.names) {
            let time = (self.options.clock)();
            let body = RecordBody::Condemn(part.iter().map(|pack| pack_ref(pack.info.name, pack.info.kind)).collect());
            if self.vault.publish_relying(&body, &self.copies, time, session, self.progress)?.is_none() {
                return Ok(false);
            }
            self.condemned.extend(part.iter().map(|pack| pack.number));
        }
        Ok(true)
    }

    /// Whether there are snapshots that were not marked, or packs that were relied on do not stay because another client has condemned
    /// them. Or the plan was made for a client that cannot continue, so no other client waits for it.
    fn is_outdated(&self, session: &Session) -> bool {
        if !self.vault.is_bound(session) && self.vault.rules.bound {
            return true;
        }
        let condemned = self.vault.condemned();
        let there: HashSet<ObjectName> = self.vault.pack_names().into_iter().collect();
        let stays = |number: &u32| !self.condemned.contains(number);
        let counted = self.infos.iter().filter(|(number, _)| stays(number)).map(|(_, info)| info.name);
        self.vault.needed().iter().any(|info| !self.marked.contains(&info.id))
            || counted
                .chain(self.copies.iter().copied())
                .any(|name| condemned.contains(&name) || !there.contains(&name))
    }

    /// The packs that may be deleted, after another look at the store. The condition for deleting must be known before that look begins:
    /// a listing does not show one moment, and one that shows why a client no longer has to be waited for may lack what that client wrote
    /// before.
    fn look_before_deleting(&self, session: &Session) -> Result<HashSet<ObjectName>, CollectError> {
        // Read the sessions first, then the store: every session that has ended has put its record before.
        let mine: BTreeMap<ClientId, u64> = self.vault.acknowledged(Some(session)).into_iter().collect();
        let mut before = deletable_by(self.vault, &mine).0;
        loop {
            self.vault.refresh(self.progress)?;
            let mut after = deletable_by(self.vault, &mine).0;
            let is_known = after.intersection(&self.cleared).all(|name| before.contains(name));
            if is_known || !self.vault.rules.read_before || self.is_outdated(session) {
                if self.vault.rules.read_before {
                    after.retain(|name| before.contains(name));
                }
                return Ok(after);
            }
            before = after;
        }
    }

    /// Deletes the condemned packs that nothing holds up. Returns `false` if the plan no longer applies: these packs may be needed.
    fn sweep(&self, session: &Session, report: &mut CollectReport) -> Result<bool, CollectError> {
        if self.cleared.is_empty() {
            return Ok(true);
        }
        let free = self.look_before_deleting(session)?;
        if self.is_outdated(session) {
            return Ok(false);
        }
        may_collect(self.vault)?;
        let log = self.vault.log();
        let there = log.packs.clone();
        drop(log);
        let packs: Vec<(ObjectName, ObjectKind, u64)> = free
            .intersection(&self.cleared)
            .filter_map(|name| there.get(name).map(|(kind, len)| (*name, *kind, *len)))
            .collect();
        for part in packs.chunks(self.vault.limits.names) {
            for together in part.chunks(DELETED_TOGETHER) {
                if self.progress.stopped() {
                    return Err(VaultError::Interrupted.into());
                }
                let lens: HashMap<ObjectKey, u64> =
                    together.iter().map(|(name, kind, len)| (object_key(*kind, *name), *len)).collect();
                let keys: Vec<ObjectKey> = together.iter().map(|(name, kind, _)| object_key(*kind, *name)).collect();
                self.vault.store().delete_many(&keys, &mut |key| {
                    report.packs_deleted += 1;
                    report.bytes_deleted += lens.get(key).copied().unwrap_or(0);
                })?;
            }
            let gone: Vec<ObjectName> = part.iter().map(|(name, ..)| *name).collect();
            let txn = self.vault.catalogue().write()?;
            self.vault.catalogue().remove_packs(&txn, &gone)?;
            txn.commit().map_err(CatalogueError::from)?;
            self.vault.forget_packs(&gone);
            let body = RecordBody::Sweep(part.iter().map(|(name, kind, _)| pack_ref(*name, *kind)).collect());
            self.vault.publish(body, (self.options.clock)(), Some(session), |_| true, self.progress)?;
        }
        Ok(true)
    }
}

/// The reference to a pack in a record.
fn pack_ref(name: ObjectName, kind: ObjectKind) -> PackRef {
    PackRef { meta: kind == ObjectKind::Meta, name }
}

/// How much of each pack is needed. A chunk that is in several packs is needed from one of them: the most trustworthy one.
fn uses(
    reader: &Reader,
    infos: &BTreeMap<u32, PackInfo>,
    marks: &Marks,
    condemned: &HashSet<u32>,
    standings: &Standings,
) -> Result<Vec<PackUse>, CollectError> {
    let live: HashMap<u32, Vec<AtomicU64>> = infos
        .iter()
        .map(|(number, info)| (*number, info.segments.iter().map(|_| AtomicU64::new(0)).collect()))
        .collect();
    reader.in_parts(|part| {
        part.for_each_place(|rank, _, places| {
            if marks.bits.get(rank)
                && let Some(home) = standings.home(places)
                && let Some(live) = live.get(&home.pack).and_then(|pack| pack.get(home.segment as usize))
            {
                live.fetch_add(u64::from(home.len), Relaxed);
            }
            true
        })
    })?;
    let pack = |(number, info): (&u32, &PackInfo)| {
        let live = live.get(number).into_iter().flatten().map(|live| live.load(Relaxed));
        let segment = |(info, live): (&SegmentInfo, u64)| SegmentUse {
            sealed: info.sealed,
            raw: info.raw,
            live: u32::try_from(live).unwrap_or(u32::MAX),
        };
        PackUse {
            number: *number,
            meta: info.kind == ObjectKind::Meta,
            len: info.len,
            segments: info.segments.iter().zip(live).map(segment).collect(),
            condemned: condemned.contains(number),
            free: false,
        }
    };
    Ok(infos.iter().map(pack).collect())
}
