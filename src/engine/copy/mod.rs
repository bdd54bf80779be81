//! Copying snapshots into another vault (SPEC §8.12): read, opened and verified here, cut and named anew there, unless both vaults
//! cut alike. What is there already is not stored again, and a snapshot that is there is passed over.
//!
//! Snapshots are copied in their order, in parts: of each part the packs are put first, then the pins, then the records of its
//! snapshots. So an interrupted copy has what it has put, and the next one goes on from there.

pub(crate) mod tree;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::engine::copy::tree::{Lost, Memory, Trees};
use crate::engine::depot::{self, Depot, DepotOptions, Ended};
use crate::engine::mark::Segments;
use crate::engine::presence::is_future;
use crate::engine::trust::{VerifyOthers, pay_debts};
use crate::engine::walk::SkippedList;
use crate::id::{ObjectName, VaultId};
use crate::limits::sum_of;
use crate::log::RecordBody;
use crate::progress::{Phase, Progress};
use crate::tree::{Origin, Skipped, Snapshot, Stream, Time, Verdict};
use crate::vault::client::Batch;
use crate::vault::session::Session;
use crate::vault::{ObjectState, ReadError, SnapshotInfo, Vault, VaultError};

/// A part ends when so many bytes were put ...
const PART_BYTES: u64 = 256 << 20;
/// ... or so many snapshots are ready.
const PART_SNAPSHOTS: usize = 64;
/// So much is named of what keeps a snapshot from being copied.
const NAMED: usize = 20;
/// Why something is not in a copy.
const DAMAGED: &str = "it is damaged in the vault that this is a copy from";

/// How snapshots are copied.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Say what would be copied, and copy nothing.
    pub dry_run: bool,
    /// Leave a snapshot of which something is damaged as it is, instead of copying what can be read of it.
    pub whole: bool,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Open, decompress and hash every new segment before its pack is put.
    pub verify: bool,
    /// How packs are looked at that this machine has not put, before the copies rely on them.
    pub others: VerifyOthers,
    /// The clock.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// How many threads work.
    pub threads: usize,
}

/// Why snapshots could not be copied. Those that were copied before are there.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Both are one vault.
    #[error("{place} holds this vault itself: a vault is not copied into itself")]
    Same {
        /// Where.
        place: String,
    },
    /// The vault that is copied could not be read, for a reason other than damage.
    #[error("the vault that is copied")]
    From(#[source] ReadError),
    /// The other vault failed.
    #[error("the vault that is copied into")]
    To(#[source] VaultError),
    /// The other vault could not be read, for a reason other than damage.
    #[error("the vault that is copied into")]
    There(#[source] ReadError),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// An entry cannot be written as it was read.
    #[error("{path} cannot be written into the other vault: {what}")]
    Entry {
        /// Its path in the snapshot.
        path: String,
        /// Why.
        what: String,
    },
    /// Packs went away from the other vault while snapshots were copied.
    #[error("packs vanished from the other vault while snapshots were copied into it")]
    Unsettled,
    /// No threads could be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

/// What goes wrong with the vault that is copied into, unless it is said otherwise.
impl From<VaultError> for CopyError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Interrupted => Self::Interrupted,
            error => Self::To(error),
        }
    }
}

impl CopyError {
    /// Whether it is the vault that is copied that is to blame.
    pub const fn is_of_source(&self) -> bool {
        matches!(self, Self::From(_) | Self::Entry { .. })
    }
}

/// Why a snapshot was not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing of it can be read, for damage.
    Damaged,
    /// Not all of it has arrived yet.
    NotArrived,
    /// A later version wrote something of it.
    Newer,
    /// Its date lies after the clock.
    Future,
    /// Something of it is damaged, and only whole ones were asked for.
    Partial,
}

impl Left {
    /// A word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::NotArrived => "not arrived",
            Self::Newer => "newer",
            Self::Future => "in the future",
            Self::Partial => "partly damaged",
        }
    }
}

/// A snapshot that was not copied.
#[derive(Debug, Clone)]
pub struct LeftSnapshot {
    /// Which one.
    pub from: ObjectName,
    /// Why.
    pub why: Left,
    /// The paths of what keeps it from being copied: the first ones.
    pub paths: Vec<Vec<u8>>,
}

impl LeftSnapshot {
    const fn new(info: &SnapshotInfo, why: Left) -> Self {
        Self { from: info.id, why, paths: Vec::new() }
    }
}

/// A snapshot that was copied, or would be.
#[derive(Debug, Clone)]
pub struct CopiedSnapshot {
    /// What it is a copy of.
    pub from: ObjectName,
    /// Its id in the other vault; none in a dry run.
    pub id: Option<ObjectName>,
    /// The body of its record.
    pub body: Snapshot,
    /// What is damaged here, and so is missing there: the first ones.
    pub lost: Vec<Skipped>,
}

/// What came of copying.
#[derive(Debug, Clone, Default)]
pub struct CopyReport {
    /// The snapshots.
    pub copied: Vec<CopiedSnapshot>,
    /// How many were there before.
    pub there: u64,
    /// How many are there without what is damaged here, which has not changed.
    pub still_lacking: u64,
    /// Those that were not copied.
    pub left: Vec<LeftSnapshot>,
    /// Bytes of new chunks of content, before compression.
    pub bytes_new: u64,
    /// Bytes put into the other vault's store, records not counted.
    pub bytes_stored: u64,
}

/// What is the same snapshot in any vault: where it was taken, and its id there.
pub(crate) type Identity = (VaultId, ObjectName);

pub(crate) fn identity(vault: VaultId, info: &SnapshotInfo) -> Identity {
    info.body.origin_in(vault, info.id)
}

/// What the records that a snapshot of this vault took the place of are in any vault.
fn before(
    info: &SnapshotInfo,
    vault: VaultId,
    origins: &HashMap<ObjectName, Identity>,
) -> impl Iterator<Item = Identity> {
    info.replaced.iter().map(move |name| origins.get(name).copied().unwrap_or((vault, *name)))
}

/// Says which of these snapshots are in the other vault: those that were copied from here or to here, or that both have from a third. What
/// was changed there since stands for what it was before: nothing that was taken out comes back.
pub(crate) fn there(to: &Vault) -> HashMap<Identity, SnapshotInfo> {
    let (mut there, origins) = (HashMap::new(), to.origins());
    for info in to.snapshots() {
        for before in before(&info, to.id(), &origins) {
            there.insert(before, info.clone());
        }
        there.insert(identity(to.id(), &info), info);
    }
    there
}

/// The copy of a snapshot in another vault, if there is one.
pub fn copy_of(from: &Vault, info: &SnapshotInfo, to: &Vault) -> Option<SnapshotInfo> {
    there(to).remove(&identity(from.id(), info))
}

fn is_partial(info: &SnapshotInfo) -> bool {
    info.body.origin.as_ref().is_some_and(|origin| origin.partial)
}

/// Copies snapshots of one vault into another. They come in their order, the oldest first.
///
/// # Errors
/// If either vault fails as a whole, or the user stops it. What is damaged in the vault that is copied is only missing.
pub fn copy(
    from: &Vault,
    to: &Vault,
    wanted: &[SnapshotInfo],
    options: &CopyOptions<'_>,
    progress: &dyn Progress,
) -> Result<CopyReport, CopyError> {
    if from.id() == to.id() {
        return Err(CopyError::Same { place: to.store().place() });
    }
    let begun = (options.clock)();
    // What is read stays in the store meanwhile. Where the state cannot be written, it may go, and is then missing.
    let _reading = from.begin_reading(progress).ok();
    let left: HashSet<ObjectName> = from.snapshots().iter().map(|info| info.id).collect();
    to.know_all(progress)?;
    let mut report = CopyReport::default();
    let mut there = there(to);
    let missing = |there: &HashMap<Identity, SnapshotInfo>, info: &SnapshotInfo| {
        there.get(&identity(from.id(), info)).is_none_or(is_partial)
    };
    // What was forgotten since it was chosen may be given up already.
    let wanted = wanted.iter().filter(|info| left.contains(&info.id));
    let (mut wanted, known): (Vec<&SnapshotInfo>, Vec<_>) = wanted.partition(|info| missing(&there, info));
    report.there = known.len() as u64;
    let newer = from.said_by_later(wanted.iter().map(|info| info.id)).map_err(|error| CopyError::From(error.into()))?;
    wanted.retain(|info| {
        let why = match info {
            info if newer.contains(&info.id) => Left::Newer,
            // There it would get another date.
            info if is_future(true, info.date, begun) => Left::Future,
            _ => return true,
        };
        report.left.push(LeftSnapshot::new(info, why));
        false
    });
    if options.dry_run {
        let would = |info: &&SnapshotInfo| CopiedSnapshot {
            from: info.id,
            id: None,
            body: info.body.clone(),
            lost: Vec::new(),
        };
        report.copied = wanted.iter().map(would).collect();
        return Ok(report);
    }
    if wanted.is_empty() {
        return Ok(report);
    }
    let session = to.begin_writing(begun, progress)?;
    pay_debts(to, options.others, progress)?;
    let unusable = to.unusable();
    let usable = to.pack_names().into_iter().filter(|name| !unusable.contains(name)).collect();
    // Others may have copied since it was looked.
    there = self::there(to);
    wanted.retain(|info| missing(&there, info));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads(from, options)).build();
    let pool = pool.map_err(|error| CopyError::Threads(error.to_string()))?;
    let files = sum_of(wanted.iter().map(|info| info.body.files));
    progress.counters().restart(files, sum_of(wanted.iter().map(|info| info.body.bytes)));
    progress.phase(Phase::Snapshot);
    let mut run = Run {
        from,
        to,
        options,
        progress,
        session: &session,
        pool: &pool,
        origins: from.origins(),
        late: late(from, &wanted),
        bases: Bases::new(from, &there),
        there,
        memory: Memory::new(),
        avoided: avoided(to),
        usable,
        report,
    };
    let mut rest = &wanted[..];
    while !rest.is_empty() {
        let done = run.part(rest)?;
        rest = &rest[done..];
    }
    to.tend_index(progress);
    Ok(run.report)
}

/// Those of these snapshots in which others have a part, and of which it is not known that something is lost.
fn late(from: &Vault, wanted: &[&SnapshotInfo]) -> HashSet<ObjectName> {
    let damage = from.recorded_damage();
    let is_hurt = |id: &ObjectName| damage.get(id).is_some_and(|damage| damage.count > 0);
    let ids = wanted.iter().map(|info| info.id).filter(|id| !is_hurt(id)).collect();
    from.part_late(ids, |id| *id).0.into_iter().collect()
}

/// The packs that nothing may rely on from now on.
fn avoided(to: &Vault) -> HashSet<ObjectName> {
    let mut avoided = to.unusable();
    avoided.extend(to.damaged_packs());
    avoided
}

/// Who reads from a store that takes many requests at a time waits more than it works.
fn threads(from: &Vault, options: &CopyOptions<'_>) -> usize {
    options.threads.max(from.store().limits().reads.min(8))
}

/// Snapshots of which both vaults have all: what is unchanged since one of them need not be read.
#[derive(Default)]
struct Bases {
    /// For each source and host.
    trees: BTreeMap<(String, String), Vec<Copied>>,
}

/// The date of a snapshot, its tree here, and what that is there.
type Copied = (Time, Stream, Stream);

impl Bases {
    fn new(from: &Vault, there: &HashMap<Identity, SnapshotInfo>) -> Self {
        let mut bases = Self::default();
        for info in from.snapshots().iter().filter(|info| !is_partial(info)) {
            if let Some(copy) = there.get(&identity(from.id(), info)).filter(|copy| !is_partial(copy)) {
                bases.add(info, copy.body.tree.clone());
            }
        }
        bases
    }

    fn add(&mut self, info: &SnapshotInfo, tree: Stream) {
        let of = (info.body.source.clone(), info.body.host.clone());
        self.trees.entry(of).or_default().push((info.date, info.body.tree.clone(), tree));
    }

    /// The last one before a snapshot, or else the first one after it.
    fn find(&self, info: &SnapshotInfo) -> Option<(Stream, Stream)> {
        let trees = self.trees.get(&(info.body.source.clone(), info.body.host.clone()))?;
        let before = trees.iter().filter(|(date, ..)| *date <= info.date).max_by_key(|(date, ..)| *date);
        let found = before.or_else(|| trees.iter().min_by_key(|(date, ..)| *date))?;
        Some((found.1.clone(), found.2.clone()))
    }
}

/// Snapshots on their way.
struct Run<'r> {
    from: &'r Vault,
    to: &'r Vault,
    options: &'r CopyOptions<'r>,
    progress: &'r dyn Progress,
    session: &'r Session,
    pool: &'r rayon::ThreadPool,
    /// What the other vault has.
    there: HashMap<Identity, SnapshotInfo>,
    /// What each snapshot record of the vault that is copied is in any vault.
    origins: HashMap<ObjectName, Identity>,
    /// Those of which what seems to be lost may not have arrived yet.
    late: HashSet<ObjectName>,
    bases: Bases,
    memory: Memory,
    /// The packs that the copies must not rely on, as was known when what is remembered was stored or found.
    avoided: HashSet<ObjectName>,
    /// The packs that the copies rely on.
    usable: HashSet<ObjectName>,
    report: CopyReport,
}

/// Reads the segments of a vault as its catalogue is now.
fn segments(vault: &Vault) -> Result<Segments<'_>, ReadError> {
    Ok(Segments::new(vault, Arc::new(vault.catalogue().reader()?))?)
}

/// What came of a snapshot.
type Done<'s> = Result<Ready<'s>, LeftSnapshot>;

/// A snapshot whose trees are stored.
struct Ready<'s> {
    info: &'s SnapshotInfo,
    body: Snapshot,
    lost: Vec<Skipped>,
}

impl Run<'_> {
    /// Copies the first ones of these snapshots. Returns how many.
    fn part(&mut self, wanted: &[&SnapshotInfo]) -> Result<usize, CopyError> {
        let avoided = avoided(self.to);
        if avoided != self.avoided {
            // What is remembered may lie in them alone.
            self.memory = Memory::new();
            self.usable.retain(|name| !avoided.contains(name));
            self.avoided = avoided;
        }
        let options = self.options;
        let depot_options = DepotOptions {
            level: options.level,
            verify: options.verify,
            dry_run: false,
            keep_trees: false,
            others: options.others,
            threads: self.pool.current_num_threads(),
            clock: options.clock,
        };
        let work = |depot: &Depot<'_>| self.pool.install(|| self.trees(depot, wanted));
        let (ready, published) = depot::fill(self.to, depot_options, Some(self.session), self.progress, work)?;
        self.report.bytes_new += published.bytes_new;
        self.report.bytes_stored += published.bytes_stored;
        self.usable.extend(published.packs);
        let done = ready.len();
        let mut stored = Vec::new();
        for ready in ready {
            match ready {
                Ok(ready) => stored.push(ready),
                Err(left) => self.report.left.push(left),
            }
        }
        self.record(stored)?;
        Ok(done)
    }

    /// Stores the trees of the first ones of these snapshots.
    fn trees<'s>(&self, depot: &Depot<'_>, wanted: &[&'s SnapshotInfo]) -> Result<Vec<Done<'s>>, Ended<CopyError>> {
        let from = segments(self.from).map_err(CopyError::From)?;
        let there = segments(self.to).map_err(CopyError::There)?;
        let mut ready = Vec::new();
        for info in wanted.iter().take(PART_SNAPSHOTS) {
            let trees = Trees {
                vault: self.from,
                may_be_late: self.late.contains(&info.id),
                from: &from,
                there: &there,
                depot,
                memory: &self.memory,
                is_alike: self.from.keys().names_alike(self.to.keys()),
                progress: self.progress,
            };
            ready.push(self.tree(&trees, info)?);
            self.progress.counters().files.fetch_add(info.body.files, std::sync::atomic::Ordering::Relaxed);
            if depot.bytes_stored() >= PART_BYTES {
                break;
            }
        }
        Ok(ready)
    }

    fn tree<'s>(&self, trees: &Trees<'_, '_>, info: &'s SnapshotInfo) -> Result<Done<'s>, Ended<CopyError>> {
        let base = self.bases.find(info);
        let copied = trees.copy(&info.body.tree, base.as_ref())?;
        let mut lost = copied.lost;
        // A listing begins with its version; this one has nothing behind it.
        let is_nothing = copied.tree.len <= 1 && lost.iter().any(|lost| lost.path.is_empty());
        let [(links, links_name), (skipped, skipped_name), (rules, rules_name)] = info.body.lists();
        let mut note = |name: &str, state| lost.push(Lost { path: name.as_bytes().to_vec(), state });
        let links = trees.meta_stream(links)?.unwrap_or_else(|state| (note(links_name, state), Stream::EMPTY).1);
        let rules = trees.meta_stream(rules)?.unwrap_or_else(|state| (note(rules_name, state), Stream::EMPTY).1);
        let skipped = trees.skipped(skipped)?;
        let mut skipped = skipped.unwrap_or_else(|state| (note(skipped_name, state), SkippedList::default()).1);
        if let Some(left) = self.left(info, &lost, is_nothing) {
            return Ok(Err(left));
        }
        let named = |lost: Lost| Skipped { path: lost.path, why: DAMAGED.to_owned(), stored: false };
        let lost: Vec<Skipped> = lost.into_iter().map(named).collect();
        for one in &lost {
            self.progress.warn(&one.to_string());
            skipped.push(one.clone(), trees.depot);
        }
        let count = info.body.skipped + lost.len() as u64;
        let origin = info.body.origin.as_ref();
        let (vault, snapshot) = identity(self.from.id(), info);
        let mut replaces: Vec<ObjectName> = Vec::new();
        let old = self.there.get(&(vault, snapshot)).map(|info| info.id);
        let before = before(info, self.from.id(), &self.origins);
        replaces.extend(before.filter_map(|before| self.there.get(&before)).map(|info| info.id).chain(old));
        replaces.sort_unstable();
        replaces.dedup();
        let body = Snapshot {
            time: info.date,
            tree: copied.tree,
            links,
            rules,
            skipped_list: trees.finish(skipped.stream)?,
            skipped: count,
            verdict: if lost.is_empty() { info.body.verdict } else { Verdict::Partial },
            // Its date is that of the snapshot, also where that was put right since the one before it was copied.
            redated: !replaces.is_empty(),
            replaces,
            origin: Some(Origin {
                vault,
                snapshot,
                uncertain: info.is_outlier,
                rival: info.rival,
                partial: !lost.is_empty() || origin.is_some_and(|origin| origin.partial),
            }),
            ..info.body.clone()
        };
        Ok(Ok(Ready { info, body, lost }))
    }

    /// Why a snapshot is not copied of which this cannot be read, if it is not.
    fn left(&self, info: &SnapshotInfo, lost: &[Lost], is_nothing: bool) -> Option<LeftSnapshot> {
        let is = |state| lost.iter().any(|lost| lost.state == state);
        let (why, state) = if is(ObjectState::NotArrived) {
            (Left::NotArrived, ObjectState::NotArrived)
        } else if is(ObjectState::Newer) {
            (Left::Newer, ObjectState::Newer)
        } else if is_nothing {
            return Some(LeftSnapshot::new(info, Left::Damaged));
        } else if self.options.whole && !lost.is_empty() {
            (Left::Partial, ObjectState::Damaged)
        } else {
            return None;
        };
        let paths = lost.iter().filter(|lost| lost.state == state).map(|lost| lost.path.clone());
        Some(LeftSnapshot { paths: paths.take(NAMED).collect(), ..LeftSnapshot::new(info, why) })
    }

    /// Puts the records of snapshots whose trees are stored.
    fn record(&mut self, ready: Vec<Ready<'_>>) -> Result<(), CopyError> {
        let damaged = self.to.damaged_packs();
        self.usable.retain(|name| !damaged.contains(name));
        let mut chosen = Vec::new();
        for Ready { info, body, lost } in ready {
            let old = self.there.get(&identity(self.from.id(), info));
            // One that lacks something is no better for another one that does.
            if old.is_some() && !lost.is_empty() || old.is_some_and(|old| old.body.tree == body.tree) {
                self.report.still_lacking += 1;
                continue;
            }
            chosen.push(Ready { info, body, lost });
        }
        if chosen.is_empty() {
            return Ok(());
        }
        let record = |ready: &Ready<'_>| RecordBody::Snapshot(Box::new(ready.body.clone()));
        let mut records: Vec<RecordBody> = chosen.iter().map(record).collect();
        let pinned = (0..).zip(&chosen).filter(|(_, ready)| ready.info.pinned).map(|(number, _)| number).collect();
        // The session goes on to rely on what it had seen when it began.
        let batch = Batch { bodies: &mut records, pinned: &pinned, ends: false };
        let time = (self.options.clock)();
        let put = self.to.publish_together(batch, &self.usable, time, self.session, self.progress)?;
        for (Ready { info, body, lost }, id) in chosen.into_iter().zip(put.ok_or(CopyError::Unsettled)?) {
            let copy = SnapshotInfo::new(id, info.client, info.number, body.clone());
            if lost.is_empty() && !is_partial(&copy) {
                self.bases.add(info, body.tree.clone());
            }
            self.there.insert(identity(self.from.id(), info), copy);
            self.report.copied.push(CopiedSnapshot { from: info.id, id: Some(id), body, lost });
        }
        Ok(())
    }
}
