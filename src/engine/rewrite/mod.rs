//! Replaces snapshots (SPEC §8.3, `replaces`): with other tags, another description, host or date, or without some of their files.
//!
//! A rewrite stores nothing but changed listings. One record is put for each snapshot that changes, so a crash leaves each of them either
//! unchanged or fully changed, and running the same command again does the rest.
//!
//! If two clients replace the same snapshot at the same time, only one replacement counts (the one with the lower name). So after putting
//! a record we look whether somebody else put another one. If theirs counts, we change theirs in turn. If ours counts, theirs may have
//! been reported as done all the same: then we change what theirs says, and put the result in the place of both. On a synced store,
//! neither client can know.

pub(crate) mod before;
mod doubt;
mod plan;
mod thin;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::engine::patterns::exclude::PatternError;
use crate::engine::query::browse::BrowseError;
use crate::engine::query::browse::entry_at;
use crate::engine::query::diff::{self, Difference};
use crate::engine::query::index::IndexError;
use crate::engine::repair::BODY_LEN;
use crate::engine::snapshot::presence::is_future;
use crate::id::{ChunkId, ObjectName};
use crate::limits::{LEVEL, PATH_COST, PATHS_LEN_MAX};
use crate::log::record::{DamagedSnapshot, LostFile};
use crate::log::{Damage, RecordBody};
use crate::progress::{Phase, Progress};
use crate::read::mark::{MarkError, mark};
use crate::tree::{EntryError, Snapshot, Time};
use crate::vault::client::Batch;
use crate::vault::findings::warn_unless_noted;
use crate::vault::session::Session;
use crate::vault::{ReadError, SnapshotInfo, Vault, VaultError};
use crate::write::depot::{self, Depot, DepotOptions, Ended, Published};
use crate::write::trust::{VerifyOthers, pay_debts};

pub use before::as_it_was;
pub use doubt::settle;
use doubt::{is_given_up, is_whole, unreliable};
pub use plan::{Gone, Sum, Thinned, TreePlan, Unread, Why};
use plan::{PlanError, Taken, TreeFate};
use thin::{Outcome, Thinner};

/// The changes to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Tags to add.
    pub add_tags: Vec<String>,
    /// Tags to remove.
    pub remove_tags: Vec<String>,
    /// New description.
    pub description: Option<String>,
    /// New host.
    pub host: Option<String>,
    /// New date, which says when the content was current.
    pub time: Option<Time>,
    /// Files to remove, as gitignore patterns like those of [`crate::engine::patterns::exclude::ExcludeOptions`].
    pub exclude: Vec<String>,
}

impl Change {
    /// The snapshot with the changes that do not concern its files.
    fn apply(&self, before: &Snapshot) -> Snapshot {
        let mut body = before.clone();
        let tags: BTreeSet<String> = std::mem::take(&mut body.tags).into_iter().chain(self.add_tags.clone()).collect();
        body.tags = tags.into_iter().filter(|tag| !self.remove_tags.contains(tag)).collect();
        body.description = self.description.clone().unwrap_or(body.description);
        body.host = self.host.clone().unwrap_or(body.host);
        if let Some(time) = self.time {
            (body.time, body.given, body.redated) = (time, true, true);
        }
        body
    }
}

/// Options of a rewrite.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RewriteOptions<'a> {
    /// The clock.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Open, decompress and hash every new segment before its pack is put.
    pub verify: bool,
    /// How packs that this machine did not put are verified before something relies on them.
    pub others: VerifyOthers,
    /// Number of threads.
    pub threads: usize,
}

impl<'a> RewriteOptions<'a> {
    /// A rewrite by one thread.
    pub const fn new(clock: &'a (dyn Fn() -> Time + Sync)) -> Self {
        Self { clock, level: LEVEL, verify: true, others: VerifyOthers::Sample, threads: 1 }
    }
}

/// A snapshot that changes.
#[derive(Debug)]
pub struct Planned {
    /// The snapshot as it is now.
    pub info: SnapshotInfo,
    /// The files that are removed from it.
    pub thinned: Option<Thinned>,
}

/// The effect of a change, before anything is done.
#[derive(Debug, Default)]
pub struct RewritePlan {
    /// The snapshots that change, in their order.
    pub changes: Vec<Planned>,
    /// Snapshots that could not be read completely: which part of each stays as it is, and why.
    pub unread: Vec<(SnapshotInfo, Unread)>,
    /// Snapshots from which everything would be removed. They stay as they are: forgetting them is another command.
    pub whole: Vec<(SnapshotInfo, Sum)>,
    /// The files and folders that are removed.
    pub trees: TreePlan,
}

/// Result of a rewrite.
#[derive(Debug, Default)]
pub struct RewriteReport {
    /// Ids of the old snapshots and of those that replaced them, in the order of the snapshots.
    pub replaced: Vec<(ObjectName, ObjectName)>,
    /// Snapshots that already are as asked for.
    pub unchanged: Vec<ObjectName>,
    /// Snapshots that were forgotten meanwhile.
    pub forgotten: Vec<ObjectName>,
    /// Snapshots that could not be read completely: which part of each stays as it is, and why.
    pub unread: Vec<(SnapshotInfo, Unread)>,
    /// Snapshots from which everything would be removed by now. They stay as they are.
    pub whole: Vec<(SnapshotInfo, Sum)>,
    /// Bytes put into the store, records not counted.
    pub bytes_stored: u64,
}

/// Why snapshots stay as they are. If several were to change, some may have changed; the same command again does the rest.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The given date is in the future.
    #[error("the date that was given lies in the future")]
    Future,
    /// A pattern is not valid.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A list of a snapshot could not be read.
    #[error(transparent)]
    Browse(#[from] BrowseError),
    /// Something could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The chunks that the snapshots need could not be determined.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// The folders could not be walked.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Data that the snapshots need is only in packs that are about to be deleted: perhaps another machine forgot the snapshots, or a
    /// prune was interrupted.
    #[error("what these snapshots need is being given up")]
    GivenUp,
    /// Packs vanished, or others changed the same snapshots, at every attempt.
    #[error("others keep changing the vault meanwhile")]
    Unsettled,
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// It failed after some snapshots had been changed.
    #[error("{done} of {all} snapshots are changed by now")]
    Partly {
        /// Snapshots changed.
        done: usize,
        /// Snapshots to change.
        all: usize,
        /// The reason.
        source: Box<Self>,
    },
}

impl From<EntryError> for RewriteError {
    fn from(error: EntryError) -> Self {
        Self::Read(error.into())
    }
}

impl From<PlanError> for RewriteError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Pattern(error) => error.into(),
            PlanError::Index(IndexError::Interrupted) => Self::Interrupted,
            PlanError::Index(error) => error.into(),
        }
    }
}

/// Number of attempts.
const ATTEMPTS: usize = 5;

/// A snapshot that is to change.
struct Goal {
    /// The id that the snapshot had when the work began.
    id: ObjectName,
    /// Its body at that time.
    origin: Snapshot,
    /// The snapshot to change: the original, or what somebody else has put in its place meanwhile.
    base: SnapshotInfo,
    /// The records that the next record replaces.
    names: Vec<ObjectName>,
    /// Records that this run has put.
    own: Vec<ObjectName>,
    /// Records of others that have been considered.
    rivals: Vec<ObjectName>,
    /// The snapshot that currently counts, if it is not the base. It stays if it says everything that the base says.
    stands: Option<SnapshotInfo>,
    /// The same, but put by a client that could not finish: no prune waited for it, so data that it relies on may be gone.
    doubted: Option<SnapshotInfo>,
    /// Put a record even if the base already is as asked for.
    forced: bool,
}

/// Determines the effect of a change. Changes nothing.
///
/// # Errors
/// If a pattern is not valid, the catalogue or the store fails as a whole, or the user stops it.
pub fn plan(
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    change: &Change,
    threads: usize,
    progress: &dyn Progress,
) -> Result<RewritePlan, RewriteError> {
    plan_without(vault, snapshots, &HashMap::new(), change, threads, progress)
}

/// As [`plan()`]; also removes from each snapshot the paths in `taken`.
fn plan_without(
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    taken: &HashMap<ObjectName, Taken>,
    change: &Change,
    threads: usize,
    progress: &dyn Progress,
) -> Result<RewritePlan, RewriteError> {
    let is_said = |info: &SnapshotInfo| {
        let after = Snapshot { redated: info.body.redated, ..change.apply(&info.body) };
        after != info.body || is_redated(info, change)
    };
    if change.exclude.is_empty() && taken.is_empty() {
        let changes = snapshots.iter().filter(|info| is_said(info));
        let changes = changes.map(|info| Planned { info: info.clone(), thinned: None }).collect();
        let mut plan = RewritePlan { changes, ..RewritePlan::default() };
        plan.leave_newer(vault)?;
        plan.leave_unawaited(vault, progress)?;
        part_late(vault, &mut plan.unread);
        return Ok(plan);
    }
    progress.counters().restart(0, 0);
    progress.phase(Phase::Plan);
    let (trees, fates) = plan::plan(vault, snapshots, &change.exclude, taken, threads, progress)?;
    let mut plan = RewritePlan { trees, ..RewritePlan::default() };
    for (info, (fate, unread)) in snapshots.iter().zip(fates) {
        plan.unread.extend(unread.map(|unread| (info.clone(), unread)));
        let thinned = match fate {
            TreeFate::Thinned(thinned) => Some(thinned),
            TreeFate::Stays if is_said(info) => None,
            TreeFate::Stays => continue,
            TreeFate::All(sum) => {
                plan.whole.push((info.clone(), sum));
                continue;
            }
        };
        plan.changes.push(Planned { info: info.clone(), thinned });
    }
    plan.leave_newer(vault)?;
    part_late(vault, &mut plan.unread);
    for (info, _) in plan.unread.iter().filter(|(_, unread)| unread.why == Why::Damaged) {
        warn_unless_noted(vault.note_loss(info.id, None), progress);
    }
    plan.leave_unawaited(vault, progress)?;
    Ok(plan)
}

impl RewritePlan {
    /// Leaves out snapshots with keys of a later version, which would be lost.
    fn leave_newer(&mut self, vault: &Vault) -> Result<(), VaultError> {
        let newer = vault.said_by_later(self.changes.iter().map(|planned| planned.info.id))?;
        for Planned { info, .. } in self.changes.extract_if(.., |planned| newer.contains(&planned.info.id)) {
            let what = "its record has keys that this version does not know".to_owned();
            self.unread.push((info, Unread { path: Vec::new(), why: Why::Newer, what }));
        }
        Ok(())
    }
}

/// Changes "damaged" to "not arrived" for data that may still be on its way.
pub(super) fn part_late(vault: &Vault, unread: &mut [(SnapshotInfo, Unread)]) {
    let lost = unread.iter().filter(|(_, unread)| unread.why == Why::Damaged);
    let late: HashSet<ObjectName> =
        vault.part_late(lost.map(|(info, _)| info.id).collect(), |id| *id).0.into_iter().collect();
    for (info, unread) in unread {
        if unread.why == Why::Damaged && late.contains(&info.id) {
            unread.why = Why::NotArrived;
        }
    }
}

/// Merges two changes of one snapshot: applies the changed tags of both, and takes each other field from the one that changed it, or from
/// `one` if both did.
fn both(origin: &Snapshot, one: Snapshot, other: &Snapshot) -> Snapshot {
    let mut body = other.clone();
    let tags: BTreeSet<&String> = one.tags.iter().chain(&other.tags).collect();
    let is_off = |tag: &String| origin.tags.contains(tag) && !(one.tags.contains(tag) && other.tags.contains(tag));
    body.tags = tags.into_iter().filter(|tag| !is_off(tag)).cloned().collect();
    if one.description != origin.description {
        body.description = one.description;
    }
    if one.host != origin.host {
        body.host = one.host;
    }
    if (one.time, one.given) != (origin.time, origin.given) || one.redated && !origin.redated {
        (body.time, body.given, body.redated) = (one.time, one.given, one.redated);
    }
    if one.tree == origin.tree {
        return body;
    }
    let Snapshot { time, host, tags, description, given, redated, .. } = body;
    Snapshot { time, host, tags, description, given, redated, ..one }
}

/// Whether two snapshots are equal except for what they replace.
fn says_the_same(one: &Snapshot, other: &Snapshot) -> bool {
    *one == Snapshot { replaces: one.replaces.clone(), ..other.clone() }
}

/// Whether a snapshot gets another date, even if its record already says that date.
fn is_redated(info: &SnapshotInfo, change: &Change) -> bool {
    change.time.is_some_and(|time| time != info.date)
}

/// Changes these snapshots, if they still exist.
///
/// # Errors
/// If the change fails. Some of several snapshots may have changed.
pub fn rewrite(
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    change: &Change,
    options: &RewriteOptions<'_>,
    progress: &dyn Progress,
) -> Result<RewriteReport, RewriteError> {
    if change.time.is_some_and(|time| is_future(true, time, (options.clock)())) {
        return Err(RewriteError::Future);
    }
    put_all(vault, snapshots, change, options, progress).map_err(|error| {
        let there = vault.snapshots();
        let is_done = |info: &&SnapshotInfo| there.iter().any(|now| now.replaced.contains(&info.id));
        match snapshots.iter().filter(is_done).count() {
            0 => error,
            done => RewriteError::Partly { done, all: snapshots.len(), source: Box::new(error) },
        }
    })
}

fn put_all(
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    change: &Change,
    options: &RewriteOptions<'_>,
    progress: &dyn Progress,
) -> Result<RewriteReport, RewriteError> {
    let mut goals: Vec<Goal> = snapshots.iter().map(Goal::new).collect();
    let (mut report, mut merged) = (RewriteReport::default(), Vec::new());
    vault.know_all(progress)?;
    for _ in 0..ATTEMPTS {
        let session = vault.begin_writing((options.clock)(), progress)?;
        let there = vault.snapshots();
        // A snapshot that is gone was forgotten.
        for mut goal in std::mem::take(&mut goals) {
            if goal.settle(vault, &there, progress)? {
                goals.push(goal);
            } else {
                report.forgotten.push(goal.id);
            }
        }
        look_again(vault, &mut goals, &session, options, &mut report, progress)?;
        let void = vault.void_changes();
        for mut goal in std::mem::take(&mut goals) {
            if goal.meet_void(vault, &there, &void, progress)? {
                goals.push(goal);
            } else if *change != Change::default() {
                return Err(RewriteError::GivenUp);
            }
        }
        let mut first: HashMap<ObjectName, ObjectName> = HashMap::new();
        goals.retain(|goal| {
            let of = *first.entry(goal.base.id).or_insert(goal.id);
            // Somebody has replaced both by one.
            merged.extend((of != goal.id).then_some((goal.id, of)));
            of == goal.id
        });
        let mut plan = plan_goals(vault, &goals, change, options.threads, progress)?;
        report.unread.append(&mut plan.unread);
        report.whole.append(&mut plan.whole);
        goals.retain(|goal| {
            let changes = plan.changes.iter().any(|planned| planned.info.id == goal.base.id);
            let stays = |info: &SnapshotInfo| info.id == goal.base.id;
            let is_told = report.unread.iter().any(|(info, unread)| stays(info) && unread.path.is_empty())
                || report.whole.iter().any(|(info, _)| stays(info));
            if !changes && !goal.own.is_empty() {
                // Somebody has changed a record of ours, or somebody else's record stays as it is.
                report.replaced.push((goal.id, goal.stands.as_ref().map_or(goal.base.id, |stands| stands.id)));
            } else if !changes && !is_told {
                report.unchanged.push(goal.id);
            }
            changes
        });
        if !goals.is_empty() {
            may_rely(vault, &plan, progress)?;
            let work = Work { vault, change, options, progress, session: &session, plan: &plan };
            work.attempt(&mut goals, &mut report)?;
        }
        if goals.is_empty() {
            report.join(&merged);
            report.replaced.sort_by_key(|(id, _)| snapshots.iter().position(|info| info.id == *id));
            let mut told = HashSet::new();
            report.unread.retain(|(info, unread)| told.insert((info.id, unread.path.clone())));
            part_late(vault, &mut report.unread);
            return Ok(report);
        }
    }
    Err(RewriteError::Unsettled)
}

impl RewriteReport {
    /// Records the outcome of snapshots that have been merged with another one.
    fn join(&mut self, merged: &[(ObjectName, ObjectName)]) {
        for (id, with) in merged.iter().rev() {
            let now = self.replaced.iter().find(|(id, _)| id == with).map(|(_, now)| *now);
            self.replaced.extend(now.map(|now| (*id, now)));
            if self.unchanged.contains(with) {
                self.unchanged.push(*id);
            }
        }
    }
}

impl Goal {
    fn new(info: &SnapshotInfo) -> Self {
        Self {
            id: info.id,
            origin: info.body.clone(),
            base: info.clone(),
            names: vec![info.id],
            own: Vec::new(),
            rivals: Vec::new(),
            stands: None,
            doubted: None,
            forced: false,
        }
    }

    /// Determines the snapshot to change now. Returns whether there is one.
    fn settle(&mut self, vault: &Vault, there: &[SnapshotInfo], progress: &dyn Progress) -> Result<bool, RewriteError> {
        let Some(info) = there.iter().find(|info| info.stands_for(&self.id)) else { return Ok(false) };
        if !self.own.contains(&info.id) && info.id != self.base.id {
            // Somebody has changed a record of ours. What we considered before may or may not be part of theirs, so we consider
            // everything again.
            let (own, origin) = (std::mem::take(&mut self.own), self.origin.clone());
            *self = Self { id: self.id, origin, own, ..Self::new(info) };
            if !self.own.is_empty() {
                self.meet_rival(vault, there, info, progress)?;
            }
        }
        self.doubted = (self.own.contains(&info.id) && self.stands.is_none()).then(|| info.clone());
        Ok(true)
    }

    /// Whether the record that counts is ours and nothing else is left to do: somebody else may have put another record there at the same
    /// time, and may have been told that it counts.
    fn is_reached(
        &mut self,
        vault: &Vault,
        there: &[SnapshotInfo],
        progress: &dyn Progress,
    ) -> Result<bool, RewriteError> {
        let own = self.own.last();
        let Some(new) = own.and_then(|id| there.iter().find(|info| info.id == *id)) else { return Ok(false) };
        Ok(!self.meet_rival(vault, there, new, progress)?)
    }

    /// Looks for records that others put in the same place, beside the one that stands there. What they say must be said too. Returns
    /// whether there is one. Our own records count only if they are there, and changes in doubt only if all of their data is: until
    /// somebody names such a change, it stays in doubt.
    fn meet_rival(
        &mut self,
        vault: &Vault,
        there: &[SnapshotInfo],
        stands: &SnapshotInfo,
        progress: &dyn Progress,
    ) -> Result<bool, RewriteError> {
        let rivals = vault.meant_for(&[&self.names[..], &[self.id]].concat()).0;
        let is_there = |id: &ObjectName| there.iter().any(|info| info.id == *id);
        let chains = vault.chains();
        for rival in rivals {
            let is_known = rival.id == stands.id
                || self.rivals.contains(&rival.id)
                || self.own.contains(&rival.id) && !is_there(&rival.id);
            let is_doubted = chains.put_unawaited().contains(&rival.id);
            if !is_known && (!is_doubted || is_whole(vault, &rival, progress)?) {
                self.take_over(stands.id, rival);
                self.stands = Some(stands.clone());
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Paths that this run or others removed in the snapshot that counts. They are removed from the base as well, so that none of them
    /// comes back. `None` if none were.
    fn taken(&self, vault: &Vault, progress: &dyn Progress) -> Result<Option<Taken>, RewriteError> {
        let Some(stands) = self.stands.as_ref().filter(|stands| stands.body.tree != self.origin.tree) else {
            return Ok(None);
        };
        let (mut taken, mut len) = (Taken::new(), 0_u64);
        let mut found = |difference: Difference| {
            if difference.change == diff::Change::Removed {
                len = len.saturating_add(difference.path.len() as u64 + PATH_COST);
                taken.insert(difference.path);
            }
            len <= PATHS_LEN_MAX
        };
        let (mut old, mut new) = (vault.tree_reader()?, vault.tree_reader()?);
        let pair = (entry_at(&self.origin.tree, b"", &mut old)?, entry_at(&stands.body.tree, b"", &mut new)?);
        diff::diff(b"", (pair.0, &mut old), (pair.1, &mut new), &[], progress, &mut found)?;
        if len > PATHS_LEN_MAX {
            return Err(RewriteError::Unsettled);
        }
        Ok(Some(taken).filter(|taken| !taken.is_empty()))
    }

    /// The first of these records that somebody else put and that has not been considered yet.
    fn rival(&self, meant: Vec<SnapshotInfo>) -> Option<SnapshotInfo> {
        let is_new = |info: &SnapshotInfo| !self.own.contains(&info.id) && !self.rivals.contains(&info.id);
        meant.into_iter().find(is_new)
    }

    /// Makes somebody else's record the next one to change, in the place of that record and of our own.
    fn take_over(&mut self, own: ObjectName, rival: SnapshotInfo) {
        self.rivals.push(rival.id);
        self.names = vec![own, rival.id];
        self.base = rival;
        self.forced = true;
    }
}

/// Checks, as a client that had to start again, the records that this run has put. A record stays if everything it needs is there: from
/// now on it is needed like any other. If not, the record that somebody else put in the same place is changed instead, if there is one.
/// If the snapshot that it was to replace, or somebody else's replacement, was forgotten meanwhile, ours is forgotten as well. Otherwise
/// it is put again.
fn look_again(
    vault: &Vault,
    goals: &mut Vec<Goal>,
    session: &Session,
    options: &RewriteOptions<'_>,
    report: &mut RewriteReport,
    progress: &dyn Progress,
) -> Result<(), RewriteError> {
    let mut withdrawn = Vec::new();
    let mut left = Vec::new();
    for mut goal in std::mem::take(goals) {
        let Some(put) = goal.doubted.take() else {
            left.push(goal);
            continue;
        };
        if is_whole(vault, &put, progress)? {
            report.replaced.push((goal.id, put.id));
            continue;
        }
        let (meant, is_forgotten) = vault.meant_for(&[goal.base.id]);
        match goal.rival(meant) {
            Some(rival) => goal.take_over(put.id, rival),
            None if is_forgotten => {
                withdrawn.push(put.id);
                report.forgotten.push(goal.id);
                continue;
            }
            None => {}
        }
        left.push(goal);
    }
    *goals = left;
    for part in withdrawn.chunks(vault.limits.names) {
        let time = (options.clock)();
        vault.publish(RecordBody::Forget(part.to_vec()), time, Some(session), |_| true, progress)?;
    }
    Ok(())
}

/// As [`plan()`]; a record that somebody else put in the same place is included even if nothing in it changes.
fn plan_goals(
    vault: &Vault,
    goals: &[Goal],
    change: &Change,
    threads: usize,
    progress: &dyn Progress,
) -> Result<RewritePlan, RewriteError> {
    let bases: Vec<SnapshotInfo> = goals.iter().map(|goal| goal.base.clone()).collect();
    let taken = goals.iter().filter_map(|goal| Some((goal.base.id, goal.taken(vault, progress).transpose()?)));
    let taken = taken.map(|(id, taken)| Ok((id, taken?))).collect::<Result<HashMap<_, _>, RewriteError>>()?;
    let mut plan = plan_without(vault, &bases, &taken, change, threads, progress)?;
    let mut changes = std::mem::take(&mut plan.changes).into_iter().peekable();
    plan.changes = goals
        .iter()
        .filter_map(|goal| {
            let planned = changes.next_if(|planned| planned.info.id == goal.base.id);
            let is_kept = plan.unread.iter().any(|(info, unread)| info.id == goal.base.id && unread.path.is_empty());
            let forced = goal.forced && !is_kept;
            planned.or_else(|| forced.then(|| Planned { info: goal.base.clone(), thinned: None }))
        })
        .collect();
    Ok(plan)
}

/// Makes sure that nothing the snapshots need is about to be deleted: others may already have been told that nobody here needs it.
fn may_rely(vault: &Vault, plan: &RewritePlan, progress: &dyn Progress) -> Result<(), RewriteError> {
    if unreliable(vault).is_empty() {
        return Ok(());
    }
    let reader = Arc::new(vault.catalogue().reader().map_err(VaultError::from)?);
    let marks = mark(vault, &reader, plan.changes.iter().map(|planned| &planned.info.body), progress)?;
    if is_given_up(vault, &reader, &marks)? { Err(RewriteError::GivenUp) } else { Ok(()) }
}

/// One attempt.
struct Work<'w> {
    vault: &'w Vault,
    change: &'w Change,
    options: &'w RewriteOptions<'w>,
    progress: &'w dyn Progress,
    session: &'w Session,
    plan: &'w RewritePlan,
}

impl Work<'_> {
    /// Puts the replacements. Removes the goals that are reached.
    fn attempt(&self, goals: &mut Vec<Goal>, report: &mut RewriteReport) -> Result<(), RewriteError> {
        let Self { vault, change, options, progress, .. } = *self;
        let condemned = vault.condemned();
        let there: Vec<ObjectName> = vault.pack_names().into_iter().filter(|name| !condemned.contains(name)).collect();
        let (bodies, published) = self.store()?;
        // Some snapshots turn out to be damaged only when their folders are read.
        let mut bodies = VecDeque::from(bodies);
        report.bytes_stored += published.bytes_stored;
        progress.phase(Phase::Publish);
        let mut records = Vec::new();
        goals.retain_mut(|goal| {
            let body = match bodies.pop_front() {
                Some(Ok(body)) => body,
                Some(Err(why)) => {
                    report.unread.push((goal.base.clone(), why));
                    return false;
                }
                None => return false,
            };
            // A replacement of one snapshot has that snapshot's date, whatever clock it is put by; a replacement of several has the date
            // of the last.
            let body = match &goal.stands {
                Some(stands) => both(&goal.origin, body, &stands.body),
                None => body,
            };
            let redated = change.time.is_some() || body.redated && goal.names != [goal.base.id];
            let body = Snapshot { replaces: goal.names.clone(), redated, ..body };
            if let Some(stands) = goal.stands.as_ref().filter(|stands| says_the_same(&stands.body, &body)) {
                report.replaced.push((goal.id, stands.id));
                return false;
            }
            records.push(RecordBody::Snapshot(Box::new(body)));
            true
        });
        if goals.is_empty() {
            return Ok(());
        }
        let needed: HashSet<ObjectName> = there.into_iter().chain(published.packs.iter().copied()).collect();
        let time = (options.clock)();
        let batch = Batch { bodies: &mut records, pinned: &HashSet::new(), ends: true };
        let names = vault.publish_together(batch, &needed, time, self.session, progress)?;
        for (goal, record) in goals.iter_mut().zip(&records) {
            if let RecordBody::Snapshot(body) = record {
                // Some records were put that do not count, since the client that put them could not finish.
                goal.own.extend(body.replaces.iter().filter(|name| !goal.names.contains(name)));
                goal.names.clone_from(&body.replaces);
            }
        }
        let Some(names) = names else {
            progress.detail("packs or snapshots went away meanwhile: it is done again");
            return Ok(());
        };
        let new: Vec<(ObjectName, ObjectName)> = goals.iter().map(|goal| goal.base.id).zip(names.clone()).collect();
        self.carry_damage(&new)?;
        let there = vault.snapshots();
        for (mut goal, name) in std::mem::take(goals).into_iter().zip(names) {
            goal.own.push(name);
            if goal.is_reached(vault, &there, progress)? {
                report.replaced.push((goal.id, name));
            } else {
                goals.push(goal);
            }
        }
        if !published.packs.is_empty() {
            vault.tend_index(progress);
        }
        Ok(())
    }

    /// Stores the trees. Returns the new bodies.
    fn store(&self) -> Result<(Vec<Outcome>, Published), RewriteError> {
        let Self { vault, change, options, progress, session, plan } = *self;
        let said = |planned: &Planned| Ok(change.apply(&planned.info.body));
        if plan.changes.iter().all(|planned| planned.thinned.is_none()) {
            return Ok((plan.changes.iter().map(said).collect(), Published::default()));
        }
        pay_debts(vault, options.others, progress)?;
        let depot_options = DepotOptions {
            level: options.level,
            verify: options.verify,
            dry_run: false,
            keep_trees: false,
            others: options.others,
            threads: options.threads.max(1),
            clock: options.clock,
        };
        depot::fill(vault, depot_options, Some(session), progress, |depot| self.store_in(depot))
    }

    fn store_in(&self, depot: &Depot<'_>) -> Result<Vec<Outcome>, Ended<RewriteError>> {
        let Self { vault, change, progress, plan, .. } = *self;
        let trees = vault.tree_reader().map_err(RewriteError::from)?;
        let mut thinner = Thinner::new(depot, &plan.trees, &change.exclude, trees);
        let thinned = plan.changes.iter().filter_map(|planned| planned.thinned.as_ref());
        thinner.store_folders(thinned, || progress.stopped())?;
        let mut bodies = Vec::new();
        for Planned { info, thinned } in &plan.changes {
            let body = change.apply(&info.body);
            bodies.push(match thinned {
                Some(thinned) => thinner.snapshot(&body, thinned)?,
                None => Ok(body),
            });
        }
        Ok(bodies)
    }

    /// Copies known damage of a snapshot to its replacement, except for files that were removed.
    fn carry_damage(&self, new: &[(ObjectName, ObjectName)]) -> Result<(), RewriteError> {
        let recorded = self.vault.recorded_damage();
        let mut damage = Damage::default();
        let mut bytes = 0;
        for (base, name) in new {
            let Some(known) = recorded.get(base).filter(|known| known.count > 0) else { continue };
            let planned = self.plan.changes.iter().find(|planned| planned.info.id == *base);
            let mut gone = HashSet::new();
            if let Some(thinned) = planned.and_then(|planned| planned.thinned.as_ref()) {
                self.plan.trees.for_each(thinned, |path, _| {
                    gone.insert(path.to_vec());
                    true
                });
            }
            let (files, went): (Vec<_>, Vec<_>) =
                known.files.iter().partition(|(path, _)| !thin::prefixes(path).any(|prefix| gone.contains(prefix)));
            let count = known.count.saturating_sub(went.len() as u64);
            let index = damage.snapshots.len() as u64;
            damage.snapshots.push(DamagedSnapshot { id: *name, count });
            for (path, ids) in files {
                bytes += 24 + path.len() + ids.len() * ChunkId::LEN;
                if bytes < BODY_LEN {
                    let ids = ids.iter().flat_map(|id| *id.as_bytes()).collect();
                    damage.lost.push(LostFile { path: path.clone(), ids, of: vec![index] });
                }
            }
        }
        if !damage.snapshots.is_empty() {
            let time = (self.options.clock)();
            self.vault.publish(RecordBody::Damage(damage), time, Some(self.session), |_| true, self.progress)?;
        }
        Ok(())
    }
}
