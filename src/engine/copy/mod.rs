//! Copying snapshots into another vault (SPEC §8.12). Content is read, opened and verified here. There it is cut and
//! named by the other vault's own keys, unless both vaults cut alike. Chunks that the other vault has are not stored
//! again, and snapshots that it has are skipped.
//!
//! Snapshots are copied in their order, in parts. For each part, the packs are put first, then the pins, then the
//! records of its snapshots. So an interrupted copy keeps the parts that it has put, and the next copy goes on from
//! there.

pub(crate) mod tree;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::engine::copy::tree::{Lost, Memory, Trees};
use crate::engine::snapshot::presence::is_future;
use crate::id::{ObjectName, VaultId};
use crate::limits::{LEVEL, sum_of};
use crate::log::RecordBody;
use crate::progress::{Phase, Progress};
use crate::read::ChunkReader;
use crate::tree::{Origin, Skipped, Snapshot, Stream, Time, Verdict};
use crate::vault::client::Batch;
use crate::vault::findings::warn_unless_noted;
use crate::vault::session::Session;
use crate::vault::twins;
use crate::vault::{ObjectState, ReadError, SnapshotInfo, Vault, VaultError};
use crate::write::depot::{self, Depot, DepotOptions, Ended};
use crate::write::tree::SkippedList;
use crate::write::trust::{VerifyOthers, pay_debts};

/// A part ends when this many bytes were put ...
const PART_BYTES: u64 = 256 << 20;
/// ... or this many snapshots are ready.
const PART_SNAPSHOTS: usize = 64;
/// The number of paths listed for a snapshot that cannot be copied.
const NAMED: usize = 20;
/// The reason why an entry is missing from a copy.
const DAMAGED: &str = "it is damaged in the vault that this is a copy from";

/// Options for copying snapshots.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct CopyOptions<'a> {
    /// Only report which snapshots would be copied.
    pub dry_run: bool,
    /// Skip a partly damaged snapshot, instead of copying its readable part.
    pub whole: bool,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Open, decompress and hash every new segment before its pack is put.
    pub verify: bool,
    /// How to check packs put by other machines, before the copies rely on them.
    pub others: VerifyOthers,
    /// The clock.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// The number of threads.
    pub threads: usize,
}

impl<'a> CopyOptions<'a> {
    /// Copies whatever can be read, by one thread.
    pub const fn new(clock: &'a (dyn Fn() -> Time + Sync)) -> Self {
        Self {
            dry_run: false,
            whole: false,
            level: LEVEL,
            verify: true,
            others: VerifyOthers::Sample,
            clock,
            threads: 1,
        }
    }
}

/// The reason why snapshots could not be copied. Those that were copied before it stay.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Both vaults are the same.
    #[error("{place} holds this vault itself: a vault is not copied into itself")]
    Same {
        /// The place of the other vault.
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
    /// The user stopped the copy.
    #[error("interrupted")]
    Interrupted,
    /// An entry cannot be written in the form in which it was read.
    #[error("{path} cannot be written into the other vault: {what}")]
    Entry {
        /// Its path in the snapshot.
        path: String,
        /// The reason.
        what: String,
    },
    /// Packs vanished from the other vault while snapshots were copied.
    #[error("packs vanished from the other vault while snapshots were copied into it")]
    Unsettled,
    /// The threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

/// Errors of a vault are taken for errors of the vault that is copied into, unless stated otherwise.
impl From<VaultError> for CopyError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Interrupted => Self::Interrupted,
            error => Self::To(error),
        }
    }
}

impl CopyError {
    /// Whether the fault lies with the vault that is copied.
    pub const fn is_of_source(&self) -> bool {
        matches!(self, Self::From(_) | Self::Entry { .. })
    }
}

/// The reason why a snapshot was not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// None of it can be read, because of damage.
    Damaged,
    /// Parts of it have not arrived yet.
    NotArrived,
    /// A later version wrote a part of it.
    Newer,
    /// Its date is in the future.
    Future,
    /// A part of it is damaged, and the user asked for whole snapshots only.
    Partial,
    /// Another machine has dropped or changed it meanwhile.
    Gone,
}

impl Left {
    /// The word for this reason in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::NotArrived => "not arrived",
            Self::Newer => "newer",
            Self::Future => "in the future",
            Self::Partial => "partly damaged",
            Self::Gone => "dropped meanwhile",
        }
    }
}

/// A snapshot that was not copied.
#[derive(Debug, Clone)]
pub struct LeftSnapshot {
    /// The snapshot's id.
    pub from: ObjectName,
    /// The reason.
    pub why: Left,
    /// The paths of the entries that prevent the copy, up to a limit.
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
    /// The id of the original.
    pub from: ObjectName,
    /// The id in the other vault; `None` in a dry run.
    pub id: Option<ObjectName>,
    /// The body of its record.
    pub body: Snapshot,
    /// Entries that are damaged here and therefore missing there, up to a limit.
    pub lost: Vec<Skipped>,
}

impl CopiedSnapshot {
    /// A snapshot that would be copied.
    fn planned(info: &SnapshotInfo) -> Self {
        Self { from: info.id, id: None, body: info.body.clone(), lost: Vec::new() }
    }
}

/// The result of a copy.
#[derive(Debug, Clone, Default)]
pub struct CopyReport {
    /// The snapshots that were copied.
    pub copied: Vec<CopiedSnapshot>,
    /// The number of snapshots that the other vault had before.
    pub there: u64,
    /// The number of snapshots that the other vault has incompletely, because the missing entries are still damaged
    /// here.
    pub still_lacking: u64,
    /// The snapshots that were not copied.
    pub left: Vec<LeftSnapshot>,
    /// Bytes of new content chunks, before compression.
    pub bytes_new: u64,
    /// Bytes put into the other vault's store, without records.
    pub bytes_stored: u64,
}

/// The identity of a snapshot in all vaults: the vault in which it was taken, and its id there.
pub(crate) type Identity = (VaultId, ObjectName);

pub(crate) fn identity(vault: VaultId, info: &SnapshotInfo) -> Identity {
    info.body.origin_in(vault, info.id)
}

/// The identities of the records that a snapshot of this vault has replaced.
fn before(
    info: &SnapshotInfo,
    vault: VaultId,
    origins: &HashMap<ObjectName, Identity>,
) -> impl Iterator<Item = Identity> {
    info.replaced.iter().map(move |name| origins.get(name).copied().unwrap_or((vault, *name)))
}

/// The other vault's snapshots by identity: those copied from here or to here, and those that both vaults have from a
/// third. A snapshot that was changed there also stands for its earlier versions, so that content removed there does
/// not come back.
pub(crate) fn there(to: &Vault) -> HashMap<Identity, SnapshotInfo> {
    let (mut there, origins) = (HashMap::new(), to.origins());
    let mut snapshots = to.snapshots();
    for info in &snapshots {
        for before in before(info, to.id(), &origins) {
            there.insert(before, info.clone());
        }
    }
    // Of several copies of one snapshot, the one counts that stays.
    snapshots.sort_by_key(|info| std::cmp::Reverse(twins::rank(info)));
    there.extend(snapshots.into_iter().map(|info| (identity(to.id(), &info), info)));
    there
}

/// The copy of a snapshot in another vault, if there is one.
pub fn copy_of(from: &Vault, info: &SnapshotInfo, to: &Vault) -> Option<SnapshotInfo> {
    there(to).remove(&identity(from.id(), info))
}

fn is_partial(info: &SnapshotInfo) -> bool {
    info.body.origin.as_ref().is_some_and(|origin| origin.partial)
}

/// Copies snapshots from one vault into another, in their order, the oldest first.
///
/// # Errors
/// If either vault fails as a whole, or the user stops the copy. Damage in the vault that is copied only leaves
/// entries out.
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
    // The session keeps the packs that are read in the store. If the state cannot be written, they may be deleted,
    // and are then missing.
    let _reading = from.begin_reading(progress).ok();
    let left: HashSet<ObjectName> = from.snapshots().iter().map(|info| info.id).collect();
    to.know_all(progress)?;
    let mut report = CopyReport::default();
    let mut there = there(to);
    let missing = |there: &HashMap<Identity, SnapshotInfo>, info: &SnapshotInfo| {
        there.get(&identity(from.id(), info)).is_none_or(is_partial)
    };
    // Snapshots forgotten since they were chosen may already have lost their packs.
    let wanted = wanted.iter().filter(|info| left.contains(&info.id));
    let (mut wanted, known): (Vec<&SnapshotInfo>, Vec<_>) = wanted.partition(|info| missing(&there, info));
    report.there = known.len() as u64;
    report.left = leave(from, &mut wanted, begun)?;
    if options.dry_run {
        report.copied = wanted.into_iter().map(CopiedSnapshot::planned).collect();
        return Ok(report);
    }
    if wanted.is_empty() {
        return Ok(report);
    }
    let session = to.begin_writing(begun, progress)?;
    pay_debts(to, options.others, progress)?;
    let unusable = to.unusable();
    let usable = to.pack_names().into_iter().filter(|name| !unusable.contains(name)).collect();
    // Others may have copied since the first look.
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

/// Takes out the snapshots that cannot be copied as they are. Returns them.
fn leave(from: &Vault, wanted: &mut Vec<&SnapshotInfo>, begun: Time) -> Result<Vec<LeftSnapshot>, CopyError> {
    let newer = from.said_by_later(wanted.iter().map(|info| info.id)).map_err(|error| CopyError::From(error.into()))?;
    let mut left = Vec::new();
    wanted.retain(|info| {
        let why = match info {
            info if newer.contains(&info.id) => Left::Newer,
            // A snapshot dated in the future would get another date there.
            info if is_future(true, info.date, begun) => Left::Future,
            _ => return true,
        };
        left.push(LeftSnapshot::new(info, why));
        false
    });
    Ok(left)
}

/// The snapshots to which other clients contribute, and which are not known to have lost anything.
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

/// The number of threads: more than asked for if the store takes many requests at a time, because readers then mostly
/// wait.
fn threads(from: &Vault, options: &CopyOptions<'_>) -> usize {
    options.threads.max(from.store().limits().reads.min(8))
}

/// Snapshots that both vaults have whole: content unchanged since one of them need not be read.
#[derive(Default)]
struct Bases {
    /// The copied snapshots of each source and host.
    trees: BTreeMap<(String, String), Vec<Copied>>,
}

/// The date of a snapshot, its tree here, and its tree there.
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

    /// The last base before a snapshot, or else the first one after it.
    fn find(&self, info: &SnapshotInfo) -> Option<(Stream, Stream)> {
        let trees = self.trees.get(&(info.body.source.clone(), info.body.host.clone()))?;
        let before = trees.iter().filter(|(date, ..)| *date <= info.date).max_by_key(|(date, ..)| *date);
        let found = before.or_else(|| trees.iter().min_by_key(|(date, ..)| *date))?;
        Some((found.1.clone(), found.2.clone()))
    }
}

/// A copy under way.
struct Run<'r> {
    from: &'r Vault,
    to: &'r Vault,
    options: &'r CopyOptions<'r>,
    progress: &'r dyn Progress,
    session: &'r Session,
    pool: &'r rayon::ThreadPool,
    /// The snapshots of the other vault, by identity.
    there: HashMap<Identity, SnapshotInfo>,
    /// The identities of the snapshot records of the vault that is copied.
    origins: HashMap<ObjectName, Identity>,
    /// The snapshots whose missing parts may not have arrived yet.
    late: HashSet<ObjectName>,
    bases: Bases,
    memory: Memory,
    /// The packs that the copies must not rely on, as known when the content of `memory` was stored or found.
    avoided: HashSet<ObjectName>,
    /// The packs that the copies rely on.
    usable: HashSet<ObjectName>,
    report: CopyReport,
}

/// A reader of the chunks of a vault, by its current catalogue.
fn chunks(vault: &Vault) -> Result<ChunkReader<'_>, ReadError> {
    Ok(ChunkReader::new(vault, Arc::new(vault.catalogue().reader()?))?)
}

/// A reader of the chunks of the vault that is copied, which is only read.
fn chunks_to_copy(vault: &Vault) -> Result<ChunkReader<'_>, ReadError> {
    Ok(ChunkReader::looking_again(vault, Arc::new(vault.catalogue().reader()?))?)
}

/// The outcome for a snapshot.
type Done<'s> = Result<Ready<'s>, LeftSnapshot>;

/// A snapshot whose trees are stored.
struct Ready<'s> {
    info: &'s SnapshotInfo,
    body: Snapshot,
    lost: Vec<Skipped>,
}

impl Run<'_> {
    /// Copies the first part of these snapshots, and returns its length.
    fn part(&mut self, wanted: &[&SnapshotInfo]) -> Result<usize, CopyError> {
        let avoided = avoided(self.to);
        if avoided != self.avoided {
            // Streams in memory may be stored in these packs alone.
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

    /// Stores the trees of the first part of these snapshots.
    fn trees<'s>(&self, depot: &Depot<'_>, wanted: &[&'s SnapshotInfo]) -> Result<Vec<Done<'s>>, Ended<CopyError>> {
        let from = Arc::new(chunks_to_copy(self.from).map_err(CopyError::From)?);
        let there = Arc::new(chunks(self.to).map_err(CopyError::There)?);
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
        // A listing begins with its version; this one has nothing after it.
        let is_nothing = copied.tree.len <= 1 && lost.iter().any(|lost| lost.path.is_empty());
        let [(links, links_name), (skipped, skipped_name), (rules, rules_name)] = info.body.lists();
        let mut note = |name: &str, state| lost.push(Lost { path: name.as_bytes().to_vec(), state });
        let links = trees.meta_stream(links)?.unwrap_or_else(|state| (note(links_name, state), Stream::EMPTY).1);
        let rules = trees.meta_stream(rules)?.unwrap_or_else(|state| (note(rules_name, state), Stream::EMPTY).1);
        let skipped = trees.skipped(skipped)?;
        let mut skipped = skipped.unwrap_or_else(|state| (note(skipped_name, state), SkippedList::default()).1);
        if !lost.is_empty() {
            let looked = self.from.part_gone(None, [info.id]).map_err(|error| CopyError::From(error.into()))?;
            if !looked.0.is_empty() {
                return Ok(Err(LeftSnapshot::new(info, Left::Gone)));
            }
        }
        if lost.iter().any(|lost| lost.state.is_loss()) {
            warn_unless_noted(self.from.note_loss(info.id, None), self.progress);
        }
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
            skipped_list: skipped.stream.finish(trees.depot)?,
            skipped: count,
            verdict: if lost.is_empty() { info.body.verdict } else { Verdict::Partial },
            // The copy has the snapshot's date, even if that was corrected after an earlier copy.
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

    /// The reason why a snapshot with these unreadable entries is not copied; `None` if it is copied.
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
            // Do not replace one incomplete copy by another.
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
        // The session stays open, and relies on the records that it saw when it began.
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
