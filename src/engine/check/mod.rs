//! Checks a vault (SPEC §5.4, §8.2): whether everything that the snapshots need exists: trees, chunks and packs; and, on request, whether
//! every byte is as it was stored. Changes nothing in the store.

pub mod inspect;
pub mod hurt;
pub mod drill;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rayon::prelude::*;

use crate::catalogue::{CatalogueError, Look, PackInfo, Reader};
use crate::engine::check::hurt::{HurtSnapshot, PATHS_KEPT};
use crate::engine::check::inspect::{Inspection, ListedPack, inspect};
use crate::engine::query::browse::{BrowseError, read_skipped};
use crate::exit::Exit;
use crate::id::{ChunkId, ObjectName, SlotId, VaultId};
use crate::limits::part_of;
use crate::log::record::{FoundDamage, ObjectRef};
use crate::log::{Record, RecordError};
use crate::pack::reader::object_key;
use crate::pack::{Footer, PackError, PackReader};
use crate::progress::{Phase, Progress};
use crate::read::links::GroupReader;
use crate::read::mark::{MarkError, mark};
use crate::seal::SealError;
use crate::store::{Kind, Listed, ObjectKey, StoreError, Subject};
use crate::sync::{lock, try_share};
use crate::tree::stream::stream_key;
use crate::tree::{RuleSet, Snapshot, Stream, Time};
use crate::vault::findings::{About, Awaited, KnownFinding, Lacking, exit_of, warn_unless_noted};
use crate::vault::slots::SlotFault;
use crate::vault::{ObjectState, ReadError, SnapshotInfo, Vault, VaultError};
use crate::write::trust::{LOOK_BYTES, OTHER_FOOTER, open_segments};

/// Options of a check.
#[non_exhaustive]
pub struct CheckOptions<'a> {
    /// Read every byte of every pack.
    pub read_data: bool,
    /// Read this part (0 to 1) of the packs' bytes: those that have gone unverified the longest.
    pub sample: Option<f64>,
    /// Start reading no further pack after this time.
    pub max_time: Option<Duration>,
    /// The clock.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// Number of threads that read.
    pub threads: usize,
}

impl<'a> CheckOptions<'a> {
    /// A check that reads none of the packs' contents, by one thread.
    pub const fn new(clock: &'a (dyn Fn() -> Time + Sync)) -> Self {
        Self { read_data: false, sample: None, max_time: None, clock, threads: 1 }
    }

    /// Whether all data is to be read, as far as the time allows.
    const fn asks_for_all(&self) -> bool {
        self.sample.is_none() && (self.read_data || self.max_time.is_some())
    }
}

/// Why a check could not be done. Damage is not an error: the report describes it.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The trees could not be read, for a reason other than damage.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// No threads could be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

macro_rules! through_vault {
    ($($error:ty),*) => {
        $(impl From<$error> for CheckError {
            fn from(error: $error) -> Self {
                Self::Vault(error.into())
            }
        })*
    };
}
through_vault!(CatalogueError, StoreError, PackError, SealError);

/// A problem in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place.
    pub subject: Subject,
    /// The state of the object.
    pub state: ObjectState,
    /// The fault.
    pub what: String,
}

/// Number of chunks remembered of all that have not arrived, where these are of more files than are named.
const AWAITED_KEPT: usize = 1000;

/// Result of a check.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Number of snapshots whose trees were read.
    pub snapshots: u64,
    /// Number of different folders in them.
    pub folders: u64,
    /// Number of entries in these folders that are not folders.
    pub files: u64,
    /// Number of packs in the store.
    pub packs: u64,
    /// Their total length, in bytes.
    pub bytes: u64,
    /// Number of packs whose every byte was read.
    pub packs_read: u64,
    /// Number of bytes read from them.
    pub bytes_read: u64,
    /// Number of packs that this machine neither put nor had sampled, and of which one segment was opened now.
    pub packs_sampled: u64,
    /// Number of packs that this machine neither put nor has sampled yet: there were too many for one check.
    pub packs_unseen: u64,
    /// The problems, one for each object.
    pub problems: Vec<Problem>,
    /// Needed chunks that are in no pack. (At least; counting stops at a limit.)
    pub chunks_lost: u64,
    /// Snapshots affected by the damage.
    pub hurt: Vec<HurtSnapshot>,
    /// Snapshots of which it is unknown whether something is lost: it may not have arrived yet, or be in a pack of a later version.
    pub unsure: Vec<HurtSnapshot>,
    /// Which of these applies.
    pub why_unsure: Option<ObjectState>,
    /// Snapshots that have lost only what was accepted as lost.
    pub accepted: Vec<HurtSnapshot>,
    /// Findings about the log itself: forks, broken chains, missing records.
    pub findings: Vec<String>,
    /// All known problems, found by this check or an earlier one.
    pub known: Vec<KnownFinding>,
    /// Files that vault did not put there.
    pub foreign: Vec<String>,
    /// Key slots that were removed and whose files exist again.
    pub returned_slots: BTreeSet<SlotId>,
    /// Other vaults that share the folder.
    pub other_vaults: BTreeSet<VaultId>,
    /// Time since which every byte of every pack has been verified, in seconds since 1970; `None` if some never were.
    pub verified_since: Option<i64>,
    /// Number of packs never verified on this machine.
    pub never_verified: u64,
    /// Whether time ran out before everything requested had been read.
    pub out_of_time: bool,
}

impl CheckReport {
    /// Whether there is damage.
    pub fn is_damaged(&self) -> bool {
        self.problems.iter().any(|problem| problem.state.is_loss())
            || self.chunks_lost > 0
            || !self.hurt.is_empty()
            || exit_of(&self.known) == Exit::Damage
    }

    /// Whether there is something that a person should know but that is not damage.
    pub fn has_remarks(&self) -> bool {
        !self.returned_slots.is_empty()
            || !self.unsure.is_empty()
            || exit_of(&self.known) == Exit::Skipped
            || self.problems.iter().any(|problem| problem.state.is_remark())
    }
}

/// Checks a vault.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it.
pub fn check(vault: &Vault, options: &CheckOptions<'_>, progress: &dyn Progress) -> Result<CheckReport, CheckError> {
    let threads = vault.store().reading_threads(options.threads.max(1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| CheckError::Threads(error.to_string()))?;
    vault.judge_store();
    pool.install(|| Check::new(vault, options, progress)?.run())
}

struct Check<'a> {
    vault: &'a Vault,
    options: &'a CheckOptions<'a>,
    progress: &'a dyn Progress,
    reader: Arc<Reader>,
    packs: BTreeMap<u32, PackInfo>,
    pack_reader: PackReader<'a>,
    problems: Mutex<BTreeMap<String, Problem>>,
    /// Packs that were not found.
    missing: Mutex<Vec<ObjectName>>,
    /// Chunks in segments that cannot be opened.
    bad_chunks: Mutex<HashSet<ChunkId>>,
    /// Packs whose every byte was read and found right.
    good: Mutex<HashSet<ObjectName>>,
    /// Records that were found right, and index objects whose every entry was compared and found right.
    good_small: Mutex<Vec<ObjectRef>>,
    begun: Time,
}

impl<'a> Check<'a> {
    fn new(vault: &'a Vault, options: &'a CheckOptions<'a>, progress: &'a dyn Progress) -> Result<Self, CheckError> {
        vault.know_all(progress)?;
        let reader = Arc::new(vault.catalogue().reader()?);
        let packs = reader.packs()?;
        Ok(Self {
            vault,
            options,
            progress,
            packs,
            reader,
            pack_reader: PackReader::new(vault.store(), vault.keys()),
            problems: Mutex::default(),
            missing: Mutex::default(),
            bad_chunks: Mutex::default(),
            good: Mutex::default(),
            good_small: Mutex::default(),
            begun: (options.clock)(),
        })
    }

    fn run(&self) -> Result<CheckReport, CheckError> {
        let (vault, progress) = (self.vault, self.progress);
        let mut report = CheckReport::default();
        self.check_slots(&mut report)?;
        for bad in vault.bad_objects() {
            self.problem(Subject::Object(bad.key), bad.what, bad.state);
        }
        self.check_records()?;
        report.packs = self.packs.len() as u64;
        report.bytes = self.packs.values().map(|info| info.len).sum();
        report.findings = vault.findings().iter().map(ToString::to_string).collect();
        report.foreign = vault.foreign();
        report.other_vaults = vault.others();
        let mut snapshots = vault.snapshots();
        let goal: u64 = snapshots.last().map_or(0, |last| last.body.files);
        progress.counters().restart(goal, 0);
        progress.phase(Phase::Plan);
        self.tell("trees of all snapshots", || "is all there that they need?".to_owned());
        let mut reader = self.reader.clone();
        let mut marks = mark(vault, &reader, snapshots.iter().map(|info| &info.body), progress)?;
        self.check_lists(&snapshots)?;
        self.read_packs(&mut report)?;
        let is_doubtful = !marks.lost.is_empty() || !marks.is_whole() || !lock(&self.missing).is_empty();
        // Before anything is called lost: others may have dropped snapshots or moved data meanwhile.
        if is_doubtful && vault.changed_meanwhile(&snapshots, progress)? {
            (snapshots, reader) = (vault.snapshots(), Arc::new(vault.catalogue().reader()?));
            marks = mark(vault, &reader, snapshots.iter().map(|info| &info.body), progress)?;
        }
        report.snapshots = snapshots.len() as u64;
        report.folders = marks.folders;
        report.files = marks.files;
        report.chunks_lost = marks.lost.len() as u64;
        let indexes = vault.bad_indexes(self.options.read_data, progress)?;
        if self.options.read_data {
            let is_bad = |key: &ObjectKey| indexes.iter().any(|bad| bad.key == *key);
            lock(&self.good_small)
                .extend(vault.index_keys().filter(|key| !is_bad(key)).filter_map(|key| ObjectRef::of(&key)));
        }
        for bad in indexes {
            self.problem(Subject::Object(bad.key), bad.what, bad.state);
        }
        let mut bad = self.without_good_copy(&reader)?;
        bad.extend(&marks.lost);
        if !bad.is_empty() || !marks.is_whole() {
            report.hurt = hurt::find(vault, None, &reader, &snapshots, &bad, PATHS_KEPT)?;
            let (state, unsure, hurt) = vault.part_unsure(std::mem::take(&mut report.hurt), |hurt| hurt.id);
            (report.why_unsure, report.unsure, report.hurt) = (Some(state), unsure, hurt);
            let losses = vault.accepted_losses();
            let is_accepted = |hurt: &HurtSnapshot| losses.cover(&hurt.id, hurt.count);
            (report.accepted, report.hurt) = std::mem::take(&mut report.hurt).into_iter().partition(is_accepted);
            if report.hurt.is_empty() && !(report.unsure.is_empty() && report.accepted.is_empty()) {
                report.chunks_lost = 0;
            }
        }
        for (_, what) in marks.newer {
            self.problem(Subject::Place("a folder of a snapshot".to_owned()), what, ObjectState::Newer);
        }
        self.forgive_swept()?;
        report.problems = std::mem::take(&mut *lock(&self.problems)).into_values().collect();
        // A lost chunk may be one that will not arrive either.
        let sample = if report.hurt.is_empty() && report.accepted.is_empty() { AWAITED_KEPT } else { 0 };
        self.remember(&mut report, bad.into_iter().take(sample).collect())?;
        Ok(report)
    }

    /// Records the objects found damaged and those found sound, and what has not arrived, of which some chunks are given.
    /// Adds problems that were known before.
    fn remember(&self, report: &mut CheckReport, sample: Vec<ChunkId>) -> Result<(), CheckError> {
        let files = report.hurt.iter().map(|hurt| hurt.count).sum();
        let snapshots = report.hurt.len() as u64;
        let found = report.problems.iter().filter_map(|problem| match problem {
            Problem { subject: Subject::Object(key), state: ObjectState::Damaged | ObjectState::Redundant, what } => {
                let ObjectKey::Named(kind, name) = key else { return None };
                let (snapshots, files) = match kind {
                    Kind::Pack | Kind::Meta => (snapshots, files),
                    Kind::Log => (u64::from(self.vault.snapshot(name).is_some()), 0),
                    Kind::Index => (0, 0),
                    Kind::Key => return None,
                };
                Some(FoundDamage { object: ObjectRef::of(key)?, what: what.clone(), snapshots, files })
            }
            _ => None,
        });
        let good = lock(&self.good);
        let sound = self.packs.values().filter(|info| good.contains(&info.name));
        let sound = sound.filter_map(|info| ObjectRef::of(&object_key(info.kind, info.name)));
        let sound: Vec<ObjectRef> = sound.chain(std::mem::take(&mut *lock(&self.good_small))).collect();
        let late = report.unsure.iter().filter(|_| report.why_unsure == Some(ObjectState::NotArrived));
        let late: Vec<Lacking> = late.map(HurtSnapshot::lacking).collect();
        let is_named = late.iter().all(|late| late.count <= late.files.len() as u64);
        let awaited = Awaited {
            snapshots: late,
            chunks: if is_named { Vec::new() } else { sample },
            objects: self.late_objects(report),
        };
        let read_all = self.options.asks_for_all() && !report.out_of_time;
        let lacking = self.vault.note_check(report.hurt.iter().map(HurtSnapshot::lacking).collect(), awaited, read_all);
        warn_unless_noted(lacking.and_then(|()| self.vault.note_findings(found.collect(), &sound)), self.progress);
        report.known = self.vault.known_findings((self.options.clock)())?;
        // Objects accepted as lost in the log are no longer problems.
        let accepted = self.vault.accepted_objects();
        report.problems.retain(|problem| match problem.subject {
            Subject::Object(key) => !ObjectRef::of(&key).is_some_and(|object| accepted.contains(&object)),
            Subject::Folder(_) | Subject::Place(_) => true,
        });
        for known in &report.known {
            if let About::Object { key, state, what } = &known.about
                && report.problems.iter().all(|problem| problem.subject != Subject::Object(*key))
            {
                let (subject, what) = (Subject::Object(*key), format!("{what} (it was found earlier)"));
                report.problems.push(Problem { subject, state: *state, what });
            }
        }
        Ok(())
    }

    /// Objects that had to be read to find out that only a part of them has arrived. Opening the vault finds the others.
    fn late_objects(&self, report: &CheckReport) -> Vec<ObjectRef> {
        let bad = self.vault.bad_objects();
        let late = report.problems.iter().filter_map(|problem| match problem {
            Problem { subject: Subject::Object(key), state: ObjectState::NotArrived, .. } => Some(key),
            _ => None,
        });
        late.filter(|key| bad.iter().all(|bad| bad.key != **key)).filter_map(ObjectRef::of).collect()
    }

    /// Reports that something is read, and why, if the user asked for reasons.
    fn tell(&self, what: impl std::fmt::Display, why: impl FnOnce() -> String) {
        if self.progress.wants_reasons() {
            self.progress.detail(&format!("read {what} ({})", why()));
        } else if self.progress.wants_details() {
            self.progress.detail(&format!("read {what}"));
        }
    }

    /// Why the data of a pack is read, given the time of its last verification.
    fn why_data(&self, verified: Option<i64>) -> String {
        let days = verified.map(|secs| self.begun.secs.saturating_sub(secs).max(0) / 86_400);
        let since = match days {
            None => "it was never verified on this machine".to_owned(),
            Some(0) => "it was verified less than a day ago".to_owned(),
            Some(days) => format!("it was verified {days} days ago"),
        };
        if self.options.sample.is_none() && self.options.max_time.is_none() {
            format!("all data is asked for; {since}")
        } else {
            format!("part of what was not verified for longest: {since}")
        }
    }

    fn problem(&self, subject: Subject, what: String, state: ObjectState) {
        let mut problems = lock(&self.problems);
        problems.entry(subject.to_string()).or_insert(Problem { subject, state, what });
    }

    /// Records something that cannot be read. It may be another machine's and still arriving.
    fn unreadable(&self, key: ObjectKey, what: String, newer: bool) -> Result<(), VaultError> {
        let state = if newer { ObjectState::Newer } else { self.vault.state_of(&key)? };
        if state != ObjectState::OfAnotherVault {
            self.problem(Subject::Object(key), state.told(what), state);
        }
        Ok(())
    }

    /// Records an error about a pack; returns errors that do not concern the pack itself.
    fn pack_problem(&self, info: &PackInfo, error: PackError) -> Result<(), VaultError> {
        if !error.is_of_pack() {
            return Err(error.into());
        }
        if matches!(error, PackError::Store(StoreError::Missing { .. })) {
            lock(&self.missing).push(info.name);
        }
        self.unreadable(object_key(info.kind, info.name), error.reason(), error.is_newer())
    }

    /// Checks the key slots again, and so finds their faults.
    fn check_slots(&self, report: &mut CheckReport) -> Result<(), CheckError> {
        self.vault.look_at_slots()?;
        let returned = self.vault.odd_slots().into_iter().filter(|odd| odd.fault == SlotFault::Returned);
        report.returned_slots = returned.map(|odd| odd.slot.id).collect();
        Ok(())
    }

    /// Reads all records. The catalogue keeps records, so damage to their objects is not noticed when the vault is opened.
    fn check_records(&self) -> Result<(), CheckError> {
        let mut names = Vec::new();
        self.vault.store().list(Kind::Log, &mut |listed| {
            if let Listed::Object { name, .. } = listed {
                names.push(name);
            }
        })?;
        try_share(names.len(), self.vault.store().limits().reads, |number| {
            if self.progress.stopped() {
                return Err(VaultError::Interrupted);
            }
            let name = &names[number];
            self.tell(ObjectKey::Named(Kind::Log, *name), || "records are few, and all are read".to_owned());
            match Record::read(self.vault.store(), self.vault.keys(), *name) {
                Ok(_) => lock(&self.good_small).push(ObjectRef::record(*name)),
                Err(RecordError::Store(StoreError::Missing { .. })) => {}
                Err(RecordError::Store(error)) if error.is_of_whole() => return Err(error.into()),
                Err(error) => {
                    let newer = matches!(error, RecordError::Newer { .. });
                    self.unreadable(ObjectKey::Named(Kind::Log, *name), error.reason(), newer)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Reads the lists of each snapshot as a restore would. The marks find parts of them that are in lost chunks.
    fn check_lists(&self, snapshots: &[SnapshotInfo]) -> Result<(), CheckError> {
        let mut trees = self.vault.tree_reader().map_err(MarkError::from)?;
        let mut seen = HashSet::new();
        for info in snapshots {
            if self.progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            let Snapshot { links, skipped_list, rules, .. } = &info.body;
            let mut is_new = |stream: &Stream, list: u8| seen.insert((list, stream_key(stream)));
            let mut read = Vec::new();
            if is_new(links, 0) {
                let mut groups = GroupReader::new(links);
                read.push(loop {
                    match groups.next(&mut trees) {
                        Ok(Some(_)) => {}
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                });
            }
            if is_new(skipped_list, 1) {
                read.push(match read_skipped(skipped_list, &mut trees) {
                    Err(BrowseError::Read { source, .. } | BrowseError::Partial { source, .. }) => Err(source),
                    _ => Ok(()),
                });
            }
            if is_new(rules, 2) {
                read.push(RuleSet::read(rules, &mut trees).map(drop));
            }
            for error in read.into_iter().filter_map(Result::err) {
                match error {
                    error @ (ReadError::Stream(_) | ReadError::Entry(_)) if error.is_damage() => self.problem(
                        Subject::Place(format!("a list of snapshot {}", info.id.short())),
                        error.to_string(),
                        ObjectState::Damaged,
                    ),
                    error if error.is_contained() => {}
                    error => return Err(MarkError::from(error).into()),
                }
            }
        }
        Ok(())
    }

    /// Reads the requested packs completely, and the footers of the others.
    fn read_packs(&self, report: &mut CheckReport) -> Result<(), CheckError> {
        let mut verified = self.reader.verified()?;
        let mut order: Vec<&PackInfo> = self.packs.values().collect();
        order.sort_by_key(|info| (verified.get(&info.name).copied(), info.name));
        let wanted = match self.options.sample {
            Some(part) => part_of(report.bytes, part),
            None if self.options.asks_for_all() => u64::MAX,
            None => 0,
        };
        let mut sum = 0;
        let take = order.iter().take_while(|info| (sum < wanted, sum += info.len).0).count();
        let (mut whole, others) = (order[..take].to_vec(), &order[take..]);
        let bytes = whole.iter().map(|info| info.len).sum();
        self.progress.counters().restart(whole.len() as u64, bytes);
        self.progress.phase(Phase::Check);
        let suspects = self.look_at_others(others, report)?;
        let doubted: HashSet<ObjectName> = suspects.iter().map(|info| info.name).collect();
        self.progress
            .counters()
            .restart((whole.len() + suspects.len()) as u64, whole.iter().chain(&suspects).map(|info| info.len).sum());
        // A pack with one bad segment may have others.
        whole.extend(suspects);
        if self.options.max_time.is_none() {
            // Start with the largest, so that all threads end at about the same time.
            whole.sort_by_key(|info| std::cmp::Reverse(info.len));
        }
        let bytes_read = AtomicU64::new(0);
        let out_of_time = AtomicBool::new(false);
        let by_name: HashMap<ObjectName, &PackInfo> = whole.iter().map(|info| (info.name, *info)).collect();
        let listed: Vec<ListedPack> =
            whole.iter().map(|info| ListedPack { kind: info.kind, name: info.name, len: info.len }).collect();
        let goes_on = || {
            let late = self.is_late();
            if late {
                out_of_time.store(true, Relaxed);
            }
            !late
        };
        let found = |pack: &ListedPack, inspection: Inspection| -> Result<(), VaultError> {
            let Some(info) = by_name.get(&pack.name) else { return Ok(()) };
            bytes_read.fetch_add(info.len, Relaxed);
            self.tell(object_key(info.kind, info.name), || {
                if doubted.contains(&info.name) {
                    "a part of it is not what it should be".to_owned()
                } else {
                    self.why_data(verified.get(&info.name).copied())
                }
            });
            if self.judge(info, inspection)? {
                lock(&self.good).insert(info.name);
            }
            Ok(())
        };
        let done = inspect(self.vault, &listed, &goes_on, &found, self.progress);
        report.bytes_read = bytes_read.into_inner();
        report.out_of_time = out_of_time.into_inner();
        let now = (self.options.clock)().secs;
        let good = self.remember_good(now);
        report.packs_read = good.len() as u64;
        done?;
        verified.extend(good.into_iter().map(|name| (name, now)));
        let times: Vec<Option<i64>> = self.packs.values().map(|info| verified.get(&info.name).copied()).collect();
        report.never_verified = times.iter().filter(|time| time.is_none()).count() as u64;
        report.verified_since = times.into_iter().min().flatten();
        Ok(())
    }

    /// Remembers which packs were found good now. Returns them.
    fn remember_good(&self, now: i64) -> Vec<ObjectName> {
        let good: Vec<ObjectName> = lock(&self.good).iter().copied().collect();
        if !good.is_empty() {
            let there: HashSet<ObjectName> = self.packs.values().map(|info| info.name).collect();
            let noted = self.vault.catalogue().set_verified(&good, now, |name| there.contains(name));
            if let Err(error) = noted {
                self.progress.warn(&format!("it cannot be remembered what was verified: {error}"));
            }
        }
        good
    }

    fn is_late(&self) -> bool {
        let now = (self.options.clock)();
        self.options.max_time.is_some_and(|max| now.secs.saturating_sub(self.begun.secs) >= max.as_secs().cast_signed())
    }

    /// Reads the footers of packs, and one segment of each that this machine has neither put nor sampled, up to a limit in bytes per
    /// check. Returns those whose segment does not match the footer.
    fn look_at_others<'i>(
        &self,
        others: &[&'i PackInfo],
        report: &mut CheckReport,
    ) -> Result<Vec<&'i PackInfo>, CheckError> {
        let looks = self.reader.looks()?;
        let is_known = |info: &PackInfo| looks.get(&info.name).is_some_and(|look| *look > Look::Owed);
        let spent = AtomicU64::new(0);
        let (sampled, suspects) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let unseen = AtomicU64::new(0);
        others.par_iter().try_for_each(|info| {
            self.tell(format_args!("footer of {}", object_key(info.kind, info.name)), || {
                "its data is not asked for".to_owned()
            });
            let Some(footer) = self.check_footer(info)?.filter(|_| !is_known(info)) else { return Ok(()) };
            if spent.load(Relaxed) >= LOOK_BYTES {
                unseen.fetch_add(1, Relaxed);
                return Ok(());
            }
            match open_segments(&self.pack_reader, info, &footer, false) {
                Ok(bytes) => {
                    self.tell(format_args!("a part of {}", object_key(info.kind, info.name)), || {
                        "another machine put it, and nobody has looked at it here".to_owned()
                    });
                    spent.fetch_add(bytes, Relaxed);
                    lock(&sampled).push((info.name, Look::Sampled));
                }
                Err(error) if error.is_of_pack() => lock(&suspects).push(*info),
                Err(error) => return Err(error.into()),
            }
            Ok::<_, CheckError>(())
        })?;
        let (sampled, suspects) = (std::mem::take(&mut *lock(&sampled)), std::mem::take(&mut *lock(&suspects)));
        report.packs_sampled = (sampled.len() + suspects.len()) as u64;
        report.packs_unseen = unseen.into_inner();
        if let Err(error) = self.vault.catalogue().note_looks(&sampled) {
            self.progress.warn(&format!("it cannot be remembered what was looked at: {error}"));
        }
        Ok(suspects)
    }

    /// Reads a pack's header and footer, and compares the footer with the catalogue. Returns the footer if they agree.
    /// Without its header nothing in a pack can be read, so a check always reads that, too.
    fn check_footer(&self, info: &PackInfo) -> Result<Option<Footer>, CheckError> {
        if self.progress.stopped() {
            return Err(VaultError::Interrupted.into());
        }
        match self.pack_reader.frame(info.kind, info.name, info.len) {
            Ok((_, footer)) => Ok(self.compare(info, &footer).then_some(footer)),
            Err(error) => Ok(self.pack_problem(info, error).map(|()| None)?),
        }
    }

    /// Whether a footer agrees with the catalogue.
    fn compare(&self, info: &PackInfo, footer: &Footer) -> bool {
        let same = info.is_of(footer);
        if !same {
            let object = Subject::Object(object_key(info.kind, info.name));
            self.problem(object, OTHER_FOOTER.to_owned(), ObjectState::Damaged);
        }
        same
    }

    /// Records the findings in a pack that was read completely. Returns whether it is sound.
    fn judge(&self, info: &PackInfo, inspection: Inspection) -> Result<bool, VaultError> {
        let sound = inspection.is_sound();
        let footer = match inspection.footer {
            Ok(footer) => footer,
            Err(error) => return self.pack_problem(info, error).map(|()| false),
        };
        let same = self.compare(info, &footer);
        for (number, error) in inspection.bad {
            if let Some(entry) = footer.segments.get(number as usize) {
                self.bad_segments(std::slice::from_ref(entry));
            }
            self.pack_problem(info, error)?;
        }
        if inspection.is_checksum_wrong {
            self.unreadable(object_key(info.kind, info.name), "its checksum is wrong".to_owned(), false)?;
        }
        Ok(sound && same)
    }

    fn bad_segments(&self, entries: &[crate::pack::SegmentEntry]) {
        let ids = entries.iter().flat_map(|entry| &entry.chunks).map(|(id, _)| *id);
        lock(&self.bad_chunks).extend(ids.take(crate::read::mark::LOSSES_KEPT));
    }

    /// The chunks in bad segments that are in no other place.
    fn without_good_copy(&self, reader: &Reader) -> Result<HashSet<ChunkId>, CheckError> {
        let mut bad = std::mem::take(&mut *lock(&self.bad_chunks));
        let mut copied = HashMap::new();
        for id in &bad {
            copied.insert(*id, reader.locate_all(id)?.len() > 1);
        }
        // A copy elsewhere may be damaged as well, but a vault where that matters is rare.
        bad.retain(|id| !copied.get(id).copied().unwrap_or(false));
        Ok(bad)
    }

    /// A pack that disappeared before it was read is not damage if it was condemned.
    fn forgive_swept(&self) -> Result<(), CheckError> {
        let missing = std::mem::take(&mut *lock(&self.missing));
        if missing.is_empty() {
            return Ok(());
        }
        self.vault.refresh(self.progress)?;
        let chains = self.vault.chains();
        let condemned: HashSet<ObjectName> = chains.condemned().into_iter().collect();
        let mut problems = lock(&self.problems);
        for info in self.packs.values().filter(|info| missing.contains(&info.name) && condemned.contains(&info.name)) {
            problems.remove(&object_key(info.kind, info.name).to_string());
        }
        Ok(())
    }
}
