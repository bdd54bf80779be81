//! What all parts of one restore share: what is to be done, what was counted, and why it ends early.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

pub(super) use crate::engine::restore::Mark;
use crate::engine::restore::folder::{Folder, Handles};
use crate::engine::restore::guard::{Guard, Kept};
use crate::engine::restore::select::Selection;
use crate::engine::restore::{
    Change, KEPT_SHOWN, KeptThing, PROBLEMS_SHOWN, RestoreError, RestoreOptions, RestoreProblem, RestoreReport, Tell,
};
use crate::fs::{MetaOptions, OwnerNames, Problem, Stat};
use crate::pack::PackError;
use crate::path::{Shown, called};
use crate::progress::{Progress, plain};
pub(super) use crate::sync::{into_inner, lock};
use crate::vault::{ReadError, Vault};

/// Why something is left as it is.
pub(super) const UNCHANGED: &str = "it is as it should be";

/// The restore is over; [`Run::failure`] knows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Halt;

/// One restore.
pub(super) struct Run<'a> {
    pub(super) vault: &'a Vault,
    pub(super) options: &'a RestoreOptions,
    pub(super) progress: &'a dyn Progress,
    pub(super) selection: Selection,
    pub(super) names: OwnerNames,
    pub(super) meta: MetaOptions,
    pub(super) handles: Handles,
    pub(super) tally: Tally,
    guard: OnceLock<Guard>,
    tell: Option<Tell<'a>>,
    /// Changes that have not been told yet, each with its place in the order of the tree.
    changes: Mutex<Vec<(u64, Change)>>,
    /// The last place that was given out.
    places: AtomicU64,
    /// Devices and mounts of the folders in which the restore begins.
    bases: Mutex<Vec<(u64, u64)>>,
    /// Devices, each by a mount, that cannot be written to any more, and why.
    dead: Mutex<BTreeMap<(u64, u64), io::ErrorKind>>,
    /// Names that a dry run counts as deleted, of files that have several.
    forgotten: Mutex<BTreeMap<(u64, u64), u64>>,
    /// The first failure of the target.
    first_target: Mutex<Option<(Vec<u8>, io::Error)>>,
    halted: AtomicBool,
    failure: Mutex<Option<RestoreError>>,
}

/// What has been counted so far; the fields are those of the report.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) files: AtomicU64,
    pub(super) folders: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) files_unchanged: AtomicU64,
    pub(super) files_kept: AtomicU64,
    pub(super) deleted: AtomicU64,
    pub(super) files_verified: AtomicU64,
    pub(super) copies: AtomicU64,
    /// How many of the problems are damage.
    damage: AtomicU64,
    /// What could not be restored: damage first, then by path.
    problems: Mutex<First<(bool, Vec<u8>), String>>,
    kept: Mutex<First<Vec<u8>, Kept>>,
    not_permitted: Mutex<BTreeMap<String, u64>>,
}

/// The first of many things in the order of their keys, whatever order the threads tell them in: a dry run and the real one list
/// the same. Those with equal keys stay in the order in which they are told.
#[derive(Debug)]
struct First<K, V> {
    told: BTreeMap<(K, u64), V>,
    /// How many were told.
    count: u64,
}

impl<K, V> Default for First<K, V> {
    fn default() -> Self {
        Self { told: BTreeMap::new(), count: 0 }
    }
}

impl<K: Ord, V> First<K, V> {
    /// Adds one; of all, the first `most` are kept.
    fn add(&mut self, key: K, value: V, most: usize) {
        self.told.insert((key, self.count), value);
        self.count += 1;
        if self.told.len() > most {
            self.told.pop_last();
        }
    }

    /// What is kept, in order.
    fn into_list<T>(self, make: impl Fn(K, V) -> T) -> Vec<T> {
        self.told.into_iter().map(|((key, _), value)| make(key, value)).collect()
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        vault: &'a Vault,
        options: &'a RestoreOptions,
        progress: &'a dyn Progress,
        selection: Selection,
        tell: Option<Tell<'a>>,
    ) -> Self {
        let meta = MetaOptions { owner: !options.no_owner, numeric: options.numeric_owner, xattrs: true };
        Self {
            vault,
            options,
            progress,
            selection,
            names: OwnerNames::new(),
            meta,
            handles: Handles::default(),
            tally: Tally::default(),
            guard: OnceLock::new(),
            tell,
            changes: Mutex::default(),
            places: AtomicU64::new(0),
            bases: Mutex::default(),
            dead: Mutex::default(),
            forgotten: Mutex::default(),
            first_target: Mutex::default(),
            halted: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Lets this guard decide from now on.
    pub(super) fn set_guard(&self, guard: Guard) {
        let _ = self.guard.set(guard);
    }

    /// Who decides what stays.
    pub(super) fn guard(&self) -> &Guard {
        self.guard.get().expect("set at the start") // always: `restore` sets it before anything is looked at
    }

    /// Lists something that stays although the snapshot does not have it.
    pub(super) fn keep(&self, path: Vec<u8>, why: Kept) {
        self.progress.detail(&format!("kept: {} ({why})", Shown(&path)));
        lock(&self.tally.kept).add(path, why, KEPT_SHOWN);
    }

    /// A place in the order in which changes are told.
    pub(super) fn next_place(&self) -> u64 {
        self.places.fetch_add(1, Relaxed) + 1
    }

    /// Whether somebody wants to know of such changes.
    pub(super) fn tells(&self, mark: Mark) -> bool {
        self.tell.is_some() && (mark != Mark::Same || self.progress.wants_reasons())
    }

    /// Notes a change, in this place or the next one.
    pub(super) fn change(
        &self,
        mark: Mark,
        path: Vec<u8>,
        is_folder: bool,
        why: impl Into<Cow<'static, str>>,
        place: Option<u64>,
    ) {
        if self.tells(mark) {
            let place = place.unwrap_or_else(|| self.next_place());
            lock(&self.changes).push((place, Change { mark, path, is_folder, why: why.into() }));
        }
    }

    /// How many changes wait to be told.
    pub(super) fn changes_waiting(&self) -> usize {
        lock(&self.changes).len()
    }

    /// Tells the changes up to this place in their order; a file before its copy, which has the same place.
    pub(super) fn tell_up_to(&self, place: u64) {
        let Some(tell) = self.tell else { return };
        let mut changes = lock(&self.changes);
        changes.sort_by(|(place, change), (other, after)| place.cmp(other).then_with(|| change.path.cmp(&after.path)));
        let known = changes.partition_point(|(at, _)| *at <= place);
        changes.drain(..known).for_each(|(_, change)| tell(&change));
    }

    /// A dry run counts a name of this file as deleted.
    pub(super) fn forget_name(&self, stat: &Stat) {
        if stat.nlink > 1 {
            *lock(&self.forgotten).entry((stat.dev, stat.ino)).or_default() += 1;
        }
    }

    /// How many names a file has, without those that count as deleted.
    pub(super) fn names_of(&self, stat: &Stat) -> u64 {
        if stat.nlink == 1 {
            return 1;
        }
        stat.nlink - lock(&self.forgotten).get(&(stat.dev, stat.ino)).copied().unwrap_or(0).min(stat.nlink - 1)
    }

    /// The restore begins in a folder of this device and mount.
    pub(super) fn begins_on(&self, device: (u64, u64)) {
        lock(&self.bases).push(device);
    }

    /// Why nothing more can be written on the file system of this folder.
    pub(super) fn dead(&self, folder: &Folder) -> Option<io::Error> {
        let device = folder.device()?;
        lock(&self.dead).get(&device).map(|kind| io::Error::from(*kind))
    }

    /// Ends the restore; the first reason is the one that counts.
    pub(super) fn fail(&self, error: RestoreError) -> Halt {
        lock(&self.failure).get_or_insert(error);
        self.halted.store(true, Relaxed);
        Halt
    }

    /// Why it ended early.
    pub(super) fn failure(&self) -> RestoreError {
        lock(&self.failure).take().unwrap_or(RestoreError::Interrupted)
    }

    /// Asks whether to go on.
    pub(super) fn check(&self) -> Result<(), Halt> {
        if self.halted.load(Relaxed) {
            return Err(Halt);
        }
        if self.progress.stopped() { Err(self.fail(RestoreError::Interrupted)) } else { Ok(()) }
    }

    /// Lists something that could not be restored as it was.
    pub(super) fn problem(&self, path: Vec<u8>, what: String, damage: bool) {
        self.progress.warn(&format!("{}: {what}", called(&path)));
        self.tally.damage.fetch_add(u64::from(damage), Relaxed);
        lock(&self.tally.problems).add((!damage, path), what, PROBLEMS_SHOWN);
    }

    /// Counts something that this user may not do.
    pub(super) fn not_permitted(&self, kind: &str) {
        *lock(&self.tally.not_permitted).entry(kind.to_owned()).or_default() += 1;
    }

    /// Judges a failure in the target, in this folder if it is known: one that will hit everything else, too, ends the
    /// restore; any other one concerns this path, and its description is returned.
    pub(super) fn target(
        &self,
        path: &[u8],
        folder: Option<&Arc<Folder>>,
        action: &str,
        error: io::Error,
    ) -> Result<String, Halt> {
        let device = folder.and_then(|folder| folder.device());
        // Of what is mounted itself nothing follows for the folder that it is in.
        if is_hopeless(&error) {
            let mut dead = lock(&self.dead);
            device.map(|device| dead.entry(device).or_insert_with(|| error.kind()));
            // One that is read-only may have others below it, and its files may be right as they are.
            let is_all = lock(&self.bases).iter().all(|base| dead.contains_key(base));
            if error.kind() != io::ErrorKind::ReadOnlyFilesystem && (is_all || device.is_none()) {
                return Err(self.fail(RestoreError::Target { path: Shown(path).to_string(), source: error }));
            }
        }
        let what = format!("{action}: {}", plain(&error));
        lock(&self.first_target).get_or_insert_with(|| (path.to_vec(), error));
        Ok(what)
    }

    /// The same, and lists it.
    pub(super) fn target_problem(&self, path: Vec<u8>, action: &str, error: io::Error) -> Result<(), Halt> {
        self.target_problem_in(path, None, action, error)
    }

    /// The same for something in this folder.
    pub(super) fn target_problem_in(
        &self,
        path: Vec<u8>,
        folder: Option<&Arc<Folder>>,
        action: &str,
        error: io::Error,
    ) -> Result<(), Halt> {
        let what = self.target(&path, folder, action, error)?;
        self.problem(path, what, false);
        Ok(())
    }

    /// Lists or counts what could not be set.
    pub(super) fn metadata(&self, path: impl Fn() -> Vec<u8>, problems: Vec<Problem>) -> Result<(), Halt> {
        for problem in problems {
            if problem.expected {
                self.not_permitted(problem.what.split(' ').next().unwrap_or_default());
            } else {
                let action = problem.to_string();
                self.target_problem(path(), &action, problem.error)?;
            }
        }
        Ok(())
    }

    /// Judges a failure to read from the vault: damage concerns this path only; its description is returned, and
    /// whether it is damage at all or only something that this program does not know.
    pub(super) fn read(&self, error: ReadError) -> Result<(String, bool), Halt> {
        match fatal(error) {
            Ok(error) => Err(self.fail(error)),
            Err(error) => Ok((error.to_string(), !error.is_newer())),
        }
    }

    /// What came out. `wanted` is how many files were to be restored.
    ///
    /// # Errors
    /// If the target failed, and nothing came out.
    pub(super) fn into_report(self, wanted: u64) -> Result<RestoreReport, RestoreError> {
        let problems = into_inner(self.tally.problems);
        let kept = into_inner(self.tally.kept);
        let damage_count = self.tally.damage.into_inner();
        let is_nothing = self.tally.files.load(Relaxed) + self.tally.files_kept.load(Relaxed) == 0
            && (wanted > 0 || self.tally.folders.load(Relaxed) == 0);
        let first = into_inner(self.first_target);
        if let Some((path, source)) = first.filter(|_| is_nothing && damage_count == 0) {
            return Err(RestoreError::Target { path: Shown(&path).to_string(), source });
        }
        Ok(RestoreReport {
            files: self.tally.files.into_inner(),
            folders: self.tally.folders.into_inner(),
            bytes: self.tally.bytes.into_inner(),
            bytes_written: self.tally.bytes_written.into_inner(),
            files_unchanged: self.tally.files_unchanged.into_inner(),
            files_kept: self.tally.files_kept.into_inner(),
            deleted: self.tally.deleted.into_inner(),
            copies: self.tally.copies.into_inner(),
            kept_count: kept.count,
            kept: kept.into_list(|path, why| KeptThing { path, why }),
            files_verified: self.tally.files_verified.into_inner(),
            problem_count: problems.count,
            problems: problems.into_list(|(is_other, path), what| RestoreProblem { path, what, damage: !is_other }),
            damage_count,
            not_permitted: into_inner(self.tally.not_permitted),
        })
    }
}

/// The errors that end a restore; all others (returned as they are) concern single chunks. An object that cannot be read
/// (a bad block on the disk) is one of these: whatever else the store has is restored.
pub(super) fn fatal(error: ReadError) -> Result<RestoreError, ReadError> {
    match error {
        ReadError::Pack(PackError::Store(error)) if error.is_of_whole() => Ok(RestoreError::Store(error)),
        ReadError::Catalogue(error) => Ok(RestoreError::Catalogue(error)),
        ReadError::Seal(_) => Ok(RestoreError::Read { path: "the store".to_owned(), source: error }),
        error => Err(error),
    }
}

/// Whether an error in the target means that nothing more can be written there.
fn is_hopeless(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StaleNetworkFileHandle, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | StaleNetworkFileHandle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_order_things_are_told_in_the_same_are_listed_in_the_same_order() {
        let told = ["c", "a", "d", "b", "a"];
        let list = |order: &[usize]| {
            let mut first = First::default();
            for &at in order {
                first.add(told[at], at, 3);
            }
            assert_eq!(first.count, 5);
            first.into_list(|key, at| (key, at))
        };
        assert_eq!(list(&[0, 1, 2, 3, 4]), [("a", 1), ("a", 4), ("b", 3)]);
        assert_eq!(list(&[3, 1, 4, 2, 0]), [("a", 1), ("a", 4), ("b", 3)]);
        assert_eq!(list(&[2, 0, 3, 4, 1]), [("a", 4), ("a", 1), ("b", 3)], "equal keys stay as they were told");
    }
}
