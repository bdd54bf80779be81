//! Puts snapshots in the place of others (SPEC §8.3, `replaces`): with other tags, another description, host or date, or without
//! some of their files.
//!
//! A rewrite is a snapshot that stores nothing but changed listings. For each snapshot that changes one record is put, so a crash
//! leaves each of them either as it was or as it is meant to be, and the same command again does the rest.
//!
//! Of two that are put in one place at the same time only one counts (the one of the lower name). So behind the record it is looked
//! whether somebody else put one there. If that one counts, it is changed in its turn. If it does not, it may have been reported all the
//! same: then what it says is changed, and put in the place of both. Where things arrive late, neither can know.

pub(crate) mod before;
mod doubt;
mod plan;
mod thin;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::engine::browse::BrowseError;
use crate::engine::depot::{self, Depot, DepotOptions, Ended, Published};
use crate::engine::diff::{self, Difference, entry_at};
use crate::engine::exclude::PatternError;
use crate::engine::index::IndexError;
use crate::engine::mark::{MarkError, mark};
use crate::engine::presence::is_future;
use crate::engine::repair::BODY_LEN;
use crate::engine::trust::{VerifyOthers, pay_debts};
use crate::id::{ChunkId, ObjectName};
use crate::limits::{PATH_COST, PATHS_LEN_MAX};
use crate::log::record::{DamagedSnapshot, LostFile};
use crate::log::{Damage, RecordBody};
use crate::progress::{Phase, Progress};
use crate::tree::{EntryError, Snapshot, Time};
use crate::vault::client::Batch;
use crate::vault::session::Session;
use crate::vault::{ReadError, SnapshotInfo, Vault, VaultError};

pub use before::as_it_was;
pub use doubt::settle;
use doubt::{is_given_up, is_whole, unreliable};
pub use plan::{Gone, Sum, Thinned, TreePlan, Unread, Why};
use plan::{PlanError, Taken, TreeFate};
use thin::{Outcome, Thinner};

/// What is to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Tags that are added.
    pub add_tags: Vec<String>,
    /// Tags that are taken off.
    pub remove_tags: Vec<String>,
    /// Another description.
    pub description: Option<String>,
    /// Another host.
    pub host: Option<String>,
    /// Another date, which says what the content is of.
    pub time: Option<Time>,
    /// What goes, as gitignore patterns like those of [`crate::engine::exclude::ExcludeOptions`].
    pub exclude: Vec<String>,
}

impl Change {
    /// A snapshot with the changes that need no look at its files.
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

/// How it is done.
#[derive(Clone, Copy)]
pub struct RewriteOptions<'a> {
    /// The clock.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Open, decompress and hash every new segment before its pack is put.
    pub verify: bool,
    /// How packs that this machine has not put are looked at before something relies on them.
    pub others: VerifyOthers,
    /// How many threads work.
    pub threads: usize,
}

/// A snapshot that changes.
#[derive(Debug)]
pub struct Planned {
    /// The snapshot.
    pub info: SnapshotInfo,
    /// What goes of it.
    pub thinned: Option<Thinned>,
}

/// What a change comes to.
#[derive(Debug, Default)]
pub struct RewritePlan {
    /// The snapshots that change, in their order.
    pub changes: Vec<Planned>,
    /// Those in which something could not be looked into: what of each stays as it is, and why.
    pub unread: Vec<(SnapshotInfo, Unread)>,
    /// Those of which all is meant, so that nothing would be left. They stay as they are: to forget them is another command.
    pub whole: Vec<(SnapshotInfo, Sum)>,
    /// What goes.
    pub trees: TreePlan,
}

/// What was done.
#[derive(Debug, Default)]
pub struct RewriteReport {
    /// The ids that were, and those of the snapshots that took their places, in the order of the snapshots.
    pub replaced: Vec<(ObjectName, ObjectName)>,
    /// Those that are like that already.
    pub unchanged: Vec<ObjectName>,
    /// Those that were forgotten meanwhile.
    pub forgotten: Vec<ObjectName>,
    /// Those in which something could not be looked into: what of each stays as it is, and why.
    pub unread: Vec<(SnapshotInfo, Unread)>,
    /// Those of which all is meant by now, and which stay as they are.
    pub whole: Vec<(SnapshotInfo, Sum)>,
    /// Bytes put into the store, records not counted.
    pub bytes_stored: u64,
}

/// Why snapshots stay as they are. Where several were to change, some may have changed: the same again does the rest.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The date that was given lies in the future.
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
    /// What is needed could not be found out.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// The folders could not be walked.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// What the snapshots need lies only in packs that are being given up: it was forgotten by another machine, perhaps, or a prune was
    /// cut off.
    #[error("what these snapshots need is being given up")]
    GivenUp,
    /// Packs vanished, or others changed the same snapshots, again and again.
    #[error("others keep changing the vault meanwhile")]
    Unsettled,
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// It ended when some had changed already.
    #[error("{done} of {all} snapshots are changed by now")]
    Partly {
        /// How many.
        done: usize,
        /// Of how many.
        all: usize,
        /// Why it ended.
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

/// How often it is tried.
const ATTEMPTS: usize = 5;

/// A snapshot that is to change.
struct Goal {
    /// The id that it had when the work began.
    id: ObjectName,
    /// What it said then.
    origin: Snapshot,
    /// What is changed: that one, or what somebody else has put in its place meanwhile.
    base: SnapshotInfo,
    /// What the next record takes the place of.
    names: Vec<ObjectName>,
    /// What this work has put.
    own: Vec<ObjectName>,
    /// Others' that were looked at.
    rivals: Vec<ObjectName>,
    /// What stands in the place, if it is not the base. It stays, if it says all that the base says.
    stands: Option<SnapshotInfo>,
    /// The same, put by a client that could not go on: nobody waited for that, so what it relies on may be gone.
    doubted: Option<SnapshotInfo>,
    /// A record is put even if the base is like that already.
    forced: bool,
}

/// Finds out what a change comes to. Nothing is changed.
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

/// As [`plan()`]; what was taken out of some of them goes as well.
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
    plan.leave_unawaited(vault, progress)?;
    part_late(vault, &mut plan.unread);
    Ok(plan)
}

impl RewritePlan {
    /// Leaves out snapshots of which a later version has said something that would be lost.
    fn leave_newer(&mut self, vault: &Vault) -> Result<(), VaultError> {
        let newer = vault.said_by_later(self.changes.iter().map(|planned| planned.info.id))?;
        for Planned { info, .. } in self.changes.extract_if(.., |planned| newer.contains(&planned.info.id)) {
            let what = "its record has keys that this version does not know".to_owned();
            self.unread.push((info, Unread { path: Vec::new(), why: Why::Newer, what }));
        }
        Ok(())
    }
}

/// Of what seems to be lost, finds what may just not have arrived yet.
fn part_late(vault: &Vault, unread: &mut [(SnapshotInfo, Unread)]) {
    let lost = unread.iter().filter(|(_, unread)| unread.why == Why::Damaged);
    let late: HashSet<ObjectName> =
        vault.part_late(lost.map(|(info, _)| info.id).collect(), |id| *id).0.into_iter().collect();
    for (info, unread) in unread {
        if unread.why == Why::Damaged && late.contains(&info.id) {
            unread.why = Why::NotArrived;
        }
    }
}

/// What two have made of one snapshot, in one: of each thing that one of them changed, what that one says; where both did, the first.
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

/// Whether two snapshots differ in nothing but what they take the place of.
fn says_the_same(one: &Snapshot, other: &Snapshot) -> bool {
    *one == Snapshot { replaces: one.replaces.clone(), ..other.clone() }
}

/// Whether a snapshot gets another date, even if its record says that one already.
fn is_redated(info: &SnapshotInfo, change: &Change) -> bool {
    change.time.is_some_and(|time| time != info.date)
}

/// Changes these snapshots, as far as they are still there.
///
/// # Errors
/// If it is not done. Where several were to change, some may have changed.
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
        // One that is nowhere any more was forgotten.
        goals.retain_mut(|goal| {
            let is_there = goal.settle(vault, &there);
            report.forgotten.extend((!is_there).then_some(goal.id));
            is_there
        });
        look_again(vault, &mut goals, &session, options, &mut report, progress)?;
        for mut goal in std::mem::take(&mut goals) {
            if goal.meet_doubted(vault, &there, progress)? {
                goals.push(goal);
            } else if *change != Change::default() {
                return Err(RewriteError::GivenUp);
            }
        }
        let mut first: HashMap<ObjectName, ObjectName> = HashMap::new();
        goals.retain(|goal| {
            let of = *first.entry(goal.base.id).or_insert(goal.id);
            // Somebody has put one in the place of both.
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
                // Somebody has changed what this work had put.
                report.replaced.push((goal.id, goal.base.id));
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
    /// What has become of snapshots that are one with another by now.
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

    /// Finds what is to be changed now. Returns whether there is anything.
    fn settle(&mut self, vault: &Vault, there: &[SnapshotInfo]) -> bool {
        let Some(info) = there.iter().find(|info| info.stands_for(&self.id)) else { return false };
        if !self.own.contains(&info.id) && info.id != self.base.id {
            // Somebody has changed what this work has put. What was looked at before has a part in that, or has none: so all is looked
            // at again.
            let (own, origin) = (std::mem::take(&mut self.own), self.origin.clone());
            *self = Self { id: self.id, origin, own, ..Self::new(info) };
            if !self.own.is_empty() {
                self.meet_rival(vault, there, info);
            }
        }
        self.doubted = (self.own.contains(&info.id) && self.stands.is_none()).then(|| info.clone());
        true
    }

    /// What this work has put stands in the place now. Returns whether that is all: somebody else may have meant to put something
    /// there at the same time, and may have been told that it stands there.
    fn is_reached(&mut self, vault: &Vault, there: &[SnapshotInfo]) -> bool {
        let Some(new) = self.own.last().and_then(|id| there.iter().find(|info| info.id == *id)) else { return false };
        !self.meet_rival(vault, there, new)
    }

    /// Looks for what others have put in the place, beside what stands there. What it says is to be said, too. Returns whether there is
    /// anything. What this work itself has put counts only if it stands there as well.
    fn meet_rival(&mut self, vault: &Vault, there: &[SnapshotInfo], stands: &SnapshotInfo) -> bool {
        let rivals = vault.meant_for(&[&self.names[..], &[self.id]].concat()).0;
        let is_there = |id: &ObjectName| there.iter().any(|info| info.id == *id);
        let counts = |info: &&SnapshotInfo| {
            info.id != stands.id
                && !self.rivals.contains(&info.id)
                && (!self.own.contains(&info.id) || is_there(&info.id))
        };
        let Some(rival) = rivals.iter().find(counts) else { return false };
        self.take_over(stands.id, rival.clone());
        self.stands = Some(stands.clone());
        true
    }

    /// What was taken out of what stands in the place, by this work or by others: it goes from the base as well, so that nothing of it comes
    /// back. `None` if nothing was.
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

    /// What somebody else meant to put in the place, of these, and was not looked at yet.
    fn rival(&self, meant: Vec<SnapshotInfo>) -> Option<SnapshotInfo> {
        let is_new = |info: &SnapshotInfo| !self.own.contains(&info.id) && !self.rivals.contains(&info.id);
        meant.into_iter().find(is_new)
    }

    /// What somebody else meant is changed next, in the place of that and of what this work has put.
    fn take_over(&mut self, own: ObjectName, rival: SnapshotInfo) {
        self.rivals.push(rival.id);
        self.names = vec![own, rival.id];
        self.base = rival;
        self.forced = true;
    }
}

/// Looks at what this work has put as a client that could not go on. If all is there that it needs, it stays: from now on it is needed
/// like any other. If not, what somebody else meant to put there is changed instead, if there is any. If what it was to take the place of
/// was forgotten meanwhile, or what somebody else had put there, it is forgotten as well. Otherwise it is put once more.
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

/// As [`plan()`]; what somebody else meant to put in the same place is a part of it even if nothing of it changes.
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

/// Makes sure that nothing of what these snapshots need is being given up: others may have been told already that nobody here needs it.
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
    /// Puts the snapshots. Goals that are reached are taken out.
    fn attempt(&self, goals: &mut Vec<Goal>, report: &mut RewriteReport) -> Result<(), RewriteError> {
        let Self { vault, change, options, progress, .. } = *self;
        let condemned = vault.condemned();
        let there: Vec<ObjectName> = vault.pack_names().into_iter().filter(|name| !condemned.contains(name)).collect();
        let (bodies, published) = self.store()?;
        // Some turn out to be damaged only when their folders are read.
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
            // What takes the place of one alone has that one's date, whatever clock it is put by; of several, that of the last.
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
                // Some were put that do not count, since the client that put them could not go on.
                goal.own.extend(body.replaces.iter().filter(|name| !goal.names.contains(name)));
                goal.names.clone_from(&body.replaces);
            }
        }
        let Some(names) = names else {
            progress.detail("packs went away meanwhile: it is done again");
            return Ok(());
        };
        let new: Vec<(ObjectName, ObjectName)> = goals.iter().map(|goal| goal.base.id).zip(names.clone()).collect();
        self.carry_damage(&new)?;
        let there = vault.snapshots();
        let mut names = names.into_iter();
        goals.retain_mut(|goal| {
            goal.own.extend(names.next());
            let is_reached = goal.is_reached(vault, &there);
            report.replaced.extend(goal.own.last().filter(|_| is_reached).map(|now| (goal.id, *now)));
            !is_reached
        });
        if !published.packs.is_empty() {
            vault.tend_index(progress);
        }
        Ok(())
    }

    /// Stores the trees, and returns the snapshots as they will be.
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

    /// What is known to be lost of a snapshot is lost of that which takes its place, as far as it has not gone.
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
