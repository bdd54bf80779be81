//! Copying snapshots into another vault (SPEC §8.12): read, opened and verified here, cut and named anew there, unless both vaults
//! cut alike. What is there already is not stored again, and a snapshot that is there is passed over.
//!
//! Snapshots are copied in their order, in parts: of each part the packs are put first, then the pins, then the records of its
//! snapshots. So an interrupted copy has what it has put, and the next one goes on from there.

pub(crate) mod tree;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::catalogue::CatalogueError;
use crate::engine::copy::tree::{Memory, Trees};
use crate::engine::depot::{self, Depot, DepotOptions, Ended};
use crate::engine::mark::Segments;
use crate::engine::trust::{VerifyOthers, pay_debts};
use crate::id::{ObjectName, VaultId};
use crate::log::RecordBody;
use crate::progress::{Phase, Progress};
use crate::tree::{Origin, Skipped, Snapshot, Stream, Time, Verdict};
use crate::vault::client::Batch;
use crate::vault::session::Session;
use crate::vault::{ReadError, SnapshotInfo, Vault, VaultError};

/// A part ends when so many bytes were put ...
const PART_BYTES: u64 = 256 << 20;
/// ... or so many snapshots are ready.
const PART_SNAPSHOTS: usize = 64;
/// Why something is not in a copy.
const DAMAGED: &str = "it is damaged in the vault that this is a copy from";

/// How snapshots are copied.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Say what would be copied, and copy nothing.
    pub dry_run: bool,
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
    /// The catalogue of either vault failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// Either vault failed, or the user stopped it.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Something could not be read, for a reason other than damage.
    #[error(transparent)]
    Read(#[from] ReadError),
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
    /// Those of which nothing can be read: these are not copied.
    pub unreadable: Vec<ObjectName>,
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
    // What is read stays in the store meanwhile. Where the state cannot be written, it may go, and is then missing.
    let _reading = from.begin_reading(progress).ok();
    let left: HashSet<ObjectName> = from.snapshots().iter().map(|info| info.id).collect();
    to.know_all(progress)?;
    let mut report = CopyReport::default();
    let mut there = there(to);
    let all = wanted.len();
    let missing = |there: &HashMap<Identity, SnapshotInfo>, info: &SnapshotInfo| {
        there.get(&identity(from.id(), info)).is_none_or(is_partial)
    };
    // What was forgotten since it was chosen may be given up already.
    let wanted = wanted.iter().filter(|info| left.contains(&info.id));
    let mut wanted: Vec<&SnapshotInfo> = wanted.filter(|info| missing(&there, info)).collect();
    report.there = (all - wanted.len()) as u64;
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
    let session = to.begin_writing((options.clock)(), progress)?;
    pay_debts(to, options.others, progress)?;
    let unusable = to.unusable();
    let usable = to.pack_names().into_iter().filter(|name| !unusable.contains(name)).collect();
    // Others may have copied since it was looked.
    there = self::there(to);
    wanted.retain(|info| missing(&there, info));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads(from, options)).build();
    let pool = pool.map_err(|error| CopyError::Threads(error.to_string()))?;
    let files = wanted.iter().map(|info| info.body.files).sum();
    progress.counters().restart(files, wanted.iter().map(|info| info.body.bytes).sum());
    progress.phase(Phase::Snapshot);
    let mut run = Run {
        from,
        to,
        options,
        progress,
        session: &session,
        pool: &pool,
        origins: from.origins(),
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
    bases: Bases,
    memory: Memory,
    /// The packs that the copies must not rely on, as was known when what is remembered was stored or found.
    avoided: HashSet<ObjectName>,
    /// The packs that the copies rely on.
    usable: HashSet<ObjectName>,
    report: CopyReport,
}

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
        self.record(ready)?;
        Ok(done)
    }

    /// Stores the trees of the first ones of these snapshots.
    fn trees<'s>(&self, depot: &Depot<'_>, wanted: &[&'s SnapshotInfo]) -> Result<Vec<Ready<'s>>, Ended<CopyError>> {
        let reader = |vault: &Vault| vault.catalogue().reader().map(Arc::new).map_err(CopyError::from);
        let from = Segments::new(self.from, reader(self.from)?).map_err(CopyError::from)?;
        let there = Segments::new(self.to, reader(self.to)?).map_err(CopyError::from)?;
        let trees = Trees {
            from: &from,
            there: &there,
            depot,
            memory: &self.memory,
            is_alike: self.from.keys().names_alike(self.to.keys()),
            progress: self.progress,
        };
        let mut ready = Vec::new();
        for info in wanted.iter().take(PART_SNAPSHOTS) {
            ready.push(self.tree(&trees, info)?);
            self.progress.counters().files.fetch_add(info.body.files, std::sync::atomic::Ordering::Relaxed);
            if depot.bytes_stored() >= PART_BYTES {
                break;
            }
        }
        Ok(ready)
    }

    fn tree<'s>(&self, trees: &Trees<'_, '_>, info: &'s SnapshotInfo) -> Result<Ready<'s>, Ended<CopyError>> {
        let base = self.bases.find(info);
        let copied = trees.copy(&info.body.tree, base.as_ref())?;
        let mut lost = copied.lost;
        let mut list = |stream: &Stream, name: &str| {
            let copy = trees.meta_stream(stream)?;
            if copy.is_none() {
                lost.push(Skipped { path: name.as_bytes().to_vec(), why: DAMAGED.to_owned(), stored: false });
            }
            Ok::<_, Ended<CopyError>>(copy.unwrap_or_default())
        };
        let [(links, links_name), _, (rules, rules_name)] = info.body.lists();
        let (links, rules) = (list(links, links_name)?, list(rules, rules_name)?);
        lost.iter().for_each(|skipped| self.progress.warn(&skipped.to_string()));
        let skipped = trees.skipped(&info.body.skipped_list, &mut lost)?;
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
                partial: !lost.is_empty() || origin.is_some_and(|origin| origin.partial),
            }),
            ..info.body.clone()
        };
        Ok(Ready { info, body, lost })
    }

    /// Puts the records of snapshots whose trees are stored.
    fn record(&mut self, ready: Vec<Ready<'_>>) -> Result<(), CopyError> {
        let damaged = self.to.damaged_packs();
        self.usable.retain(|name| !damaged.contains(name));
        let mut chosen = Vec::new();
        for Ready { info, body, lost } in ready {
            // A listing begins with its version; this one has nothing behind it.
            if body.tree.len <= 1 && lost.iter().any(|lost| lost.path.is_empty()) {
                self.report.unreadable.push(info.id);
                continue;
            }
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
