//! State shared by all parts of one restore: its options, its counts, and the reason if it ends early.

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

/// Reason given for an unchanged item.
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
    /// Changes that have not been reported yet, each with its position in the order of the tree.
    changes: Mutex<Vec<(u64, Change)>>,
    /// The last position given out.
    places: AtomicU64,
    /// Devices and mounts of the folders in which the restore begins.
    bases: Mutex<Vec<(u64, u64)>>,
    /// File systems, each a device and a mount number, that can no longer be written, and why.
    dead: Mutex<BTreeMap<(u64, u64), io::ErrorKind>>,
    /// For files with several names: how many names a dry run counts as deleted.
    forgotten: Mutex<BTreeMap<(u64, u64), u64>>,
    /// The first failure of the target.
    first_target: Mutex<Option<(Vec<u8>, io::Error)>>,
    halted: AtomicBool,
    failure: Mutex<Option<RestoreError>>,
}

/// Counts so far; the fields are those of the report.
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
    /// Number of problems that are damage.
    damage: AtomicU64,
    /// Whether something that was to be read has not arrived yet.
    is_late: AtomicBool,
    /// Problems: damage first, then by path.
    problems: Mutex<First<(bool, Vec<u8>), String>>,
    kept: Mutex<First<Vec<u8>, Kept>>,
    not_permitted: Mutex<BTreeMap<String, u64>>,
}

/// The first of many items in the order of their keys, whatever order the threads add them in, so a dry run and the real run list the
/// same ones. Items with equal keys stay in the order in which they were added.
#[derive(Debug)]
struct First<K, V> {
    told: BTreeMap<(K, u64), V>,
    /// Number of items added.
    count: u64,
}

impl<K, V> Default for First<K, V> {
    fn default() -> Self {
        Self { told: BTreeMap::new(), count: 0 }
    }
}

impl<K: Ord, V> First<K, V> {
    /// Adds an item; of all items, the first `most` are kept.
    fn add(&mut self, key: K, value: V, most: usize) {
        self.told.insert((key, self.count), value);
        self.count += 1;
        if self.told.len() > most {
            self.told.pop_last();
        }
    }

    /// The kept items, in order.
    fn into_list<T>(self, make: impl Fn(K, V) -> T) -> Vec<T> {
        self.told.into_iter().map(|((key, _), value)| make(key, value)).collect()
    }
}

/// Why a path cannot be restored.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    /// The reason.
    pub(super) what: String,
    /// Whether it is damage of the vault.
    pub(super) is_damage: bool,
}

impl Loss {
    /// Damage of the vault.
    pub(super) fn damage(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_damage: true }
    }

    /// Anything else.
    pub(super) fn other(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_damage: false }
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

    /// Sets the guard.
    pub(super) fn set_guard(&self, guard: Guard) {
        let _ = self.guard.set(guard);
    }

    /// The guard that decides what stays.
    pub(super) fn guard(&self) -> &Guard {
        self.guard.get().expect("set at the start") // always: `restore` sets it before anything is looked at
    }

    /// Lists an item that stays although the snapshot does not have it.
    pub(super) fn keep(&self, path: Vec<u8>, why: Kept) {
        self.progress.detail(&format!("kept: {} ({why})", Shown(&path)));
        lock(&self.tally.kept).add(path, why, KEPT_SHOWN);
    }

    /// The next position in the order of changes.
    pub(super) fn next_place(&self) -> u64 {
        self.places.fetch_add(1, Relaxed) + 1
    }

    /// Whether changes with this mark are reported.
    pub(super) fn tells(&self, mark: Mark) -> bool {
        self.tell.is_some() && (mark != Mark::Same || self.progress.wants_reasons())
    }

    /// Records a change, at this position or the next one.
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

    /// Number of changes waiting to be reported.
    pub(super) fn changes_waiting(&self) -> usize {
        lock(&self.changes).len()
    }

    /// Reports the changes up to this position, in order; a file before its copy, which has the same position.
    pub(super) fn tell_up_to(&self, place: u64) {
        let Some(tell) = self.tell else { return };
        let mut changes = lock(&self.changes);
        changes.sort_by(|(place, change), (other, after)| place.cmp(other).then_with(|| change.path.cmp(&after.path)));
        let known = changes.partition_point(|(at, _)| *at <= place);
        changes.drain(..known).for_each(|(_, change)| tell(&change));
    }

    /// Counts one name of this file as deleted in a dry run.
    pub(super) fn forget_name(&self, stat: &Stat) {
        if stat.nlink > 1 {
            *lock(&self.forgotten).entry((stat.dev, stat.ino)).or_default() += 1;
        }
    }

    /// Number of names of a file, without those that count as deleted.
    pub(super) fn names_of(&self, stat: &Stat) -> u64 {
        if stat.nlink == 1 {
            return 1;
        }
        stat.nlink - lock(&self.forgotten).get(&(stat.dev, stat.ino)).copied().unwrap_or(0).min(stat.nlink - 1)
    }

    /// Records that the restore begins in a folder of this device and mount.
    pub(super) fn begins_on(&self, device: (u64, u64)) {
        lock(&self.bases).push(device);
    }

    /// Why nothing more can be written on the file system of this folder, if so.
    pub(super) fn dead(&self, folder: &Folder) -> Option<io::Error> {
        let device = folder.device()?;
        lock(&self.dead).get(&device).map(|kind| io::Error::from(*kind))
    }

    /// Ends the restore; the first reason counts.
    pub(super) fn fail(&self, error: RestoreError) -> Halt {
        lock(&self.failure).get_or_insert(error);
        self.halted.store(true, Relaxed);
        Halt
    }

    /// Why the restore ended early.
    pub(super) fn failure(&self) -> RestoreError {
        lock(&self.failure).take().unwrap_or(RestoreError::Interrupted)
    }

    /// Stops with an error if the restore has failed or the user stopped it.
    pub(super) fn check(&self) -> Result<(), Halt> {
        if self.halted.load(Relaxed) {
            return Err(Halt);
        }
        if self.progress.stopped() { Err(self.fail(RestoreError::Interrupted)) } else { Ok(()) }
    }

    /// Lists an item that could not be restored as it was.
    pub(super) fn problem(&self, path: Vec<u8>, what: String, damage: bool) {
        self.progress.warn(&format!("{}: {what}", called(&path)));
        self.tally.damage.fetch_add(u64::from(damage), Relaxed);
        lock(&self.tally.problems).add((!damage, path), what, PROBLEMS_SHOWN);
    }

    /// Counts an action that this user may not do.
    pub(super) fn not_permitted(&self, kind: &str) {
        *lock(&self.tally.not_permitted).entry(kind.to_owned()).or_default() += 1;
    }

    /// Classifies a failure in the target, in this folder if known: a failure that will affect everything else ends the restore; any
    /// other concerns only this path, and its description is returned.
    pub(super) fn target(
        &self,
        path: &[u8],
        folder: Option<&Arc<Folder>>,
        action: &str,
        error: io::Error,
    ) -> Result<String, Halt> {
        let device = folder.and_then(|folder| folder.device());
        // A failure on a mounted file system says nothing about the folder that it is mounted in.
        if is_hopeless(&error) {
            let mut dead = lock(&self.dead);
            device.map(|device| dead.entry(device).or_insert_with(|| error.kind()));
            // A read-only file system may contain mounts that are writable, and its files may already be right.
            let is_all = lock(&self.bases).iter().all(|base| dead.contains_key(base));
            if error.kind() != io::ErrorKind::ReadOnlyFilesystem && (is_all || device.is_none()) {
                return Err(self.fail(RestoreError::Target { path: Shown(path).to_string(), source: error }));
            }
        }
        let what = format!("{action}: {}", plain(&error));
        lock(&self.first_target).get_or_insert_with(|| (path.to_vec(), error));
        Ok(what)
    }

    /// As [`Run::target`], and lists the problem.
    pub(super) fn target_problem(&self, path: Vec<u8>, action: &str, error: io::Error) -> Result<(), Halt> {
        self.target_problem_in(path, None, action, error)
    }

    /// As [`Run::target_problem`], for an item in this folder.
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

    /// Lists or counts metadata that could not be set.
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

    /// Classifies a failure to read from the vault: a loss concerns only this path. It is no damage if this version merely does not know
    /// something, or if something has not arrived yet.
    pub(super) fn read(&self, error: ReadError) -> Result<Loss, Halt> {
        match fatal(error) {
            Ok(error) => Err(self.fail(error)),
            Err(error) => {
                self.tally.is_late.fetch_or(error.is_late(), Relaxed);
                Ok(Loss { what: error.to_string(), is_damage: !error.is_newer() && !error.is_late() })
            }
        }
    }

    /// The report. `wanted` is the number of files that were to be restored.
    ///
    /// # Errors
    /// If the target failed and nothing was restored.
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
            is_late: self.tally.is_late.into_inner(),
            not_permitted: into_inner(self.tally.not_permitted),
        })
    }
}

/// Separates errors that end a restore from those that concern single chunks, which are returned as they are. An object that cannot be
/// read (a bad block on the disk) is one of the latter: everything else in the store is restored.
pub(super) fn fatal(error: ReadError) -> Result<RestoreError, ReadError> {
    match error {
        ReadError::Pack(PackError::Store(error)) if error.is_of_whole() => Ok(RestoreError::Store(error)),
        ReadError::Catalogue(error) => Ok(RestoreError::Catalogue(error)),
        ReadError::Gone(gone) => Ok(RestoreError::Gone(gone)),
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
        assert_eq!(
            list(&[2, 0, 3, 4, 1]),
            [("a", 4), ("a", 1), ("b", 3)],
            "equal keys stay in the order in which they were added"
        );
    }
}
