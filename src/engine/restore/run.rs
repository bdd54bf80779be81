//! What all parts of one restore share: what is to be done, what was counted, and why it ends early.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::engine::restore::folder::Handles;
use crate::engine::restore::select::Selection;
use crate::engine::restore::{PROBLEMS_SHOWN, RestoreError, RestoreOptions, RestoreProblem, RestoreReport};
use crate::fs::{MetaOptions, OwnerNames, Problem};
use crate::pack::PackError;
use crate::path::Shown;
use crate::progress::Progress;
pub(super) use crate::sync::lock;
use crate::vault::{ReadError, Vault};

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
    /// Only its problems are used.
    problems: Mutex<RestoreReport>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        vault: &'a Vault,
        options: &'a RestoreOptions,
        progress: &'a dyn Progress,
        selection: Selection,
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
            halted: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
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
        let problem = RestoreProblem { path, what, damage };
        self.progress.warn(&format!("{}: {}", Shown(&problem.path), problem.what));
        let mut report = lock(&self.tally.problems);
        report.problem_count += 1;
        report.damage_count += u64::from(damage);
        if report.problems.len() < PROBLEMS_SHOWN {
            report.problems.push(problem);
        }
    }

    /// Counts something that this user may not do.
    pub(super) fn not_permitted(&self, kind: &str) {
        let mut report = lock(&self.tally.problems);
        match report.not_permitted.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                report.not_permitted.insert(kind.to_owned(), 1);
            }
        }
    }

    /// Judges a failure in the target: one that will hit everything else, too, ends the restore; any other one concerns
    /// this path only, and its description is returned.
    pub(super) fn target(&self, path: &[u8], action: &str, error: io::Error) -> Result<String, Halt> {
        if is_hopeless(&error) {
            return Err(self.fail(RestoreError::Target { path: Shown(path).to_string(), source: error }));
        }
        Ok(format!("{action}: {error}"))
    }

    /// The same, and lists it.
    pub(super) fn target_problem(&self, path: Vec<u8>, action: &str, error: io::Error) -> Result<(), Halt> {
        let what = self.target(&path, action, error)?;
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

    pub(super) fn into_report(self) -> RestoreReport {
        let problems = self.tally.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
        RestoreReport {
            files: self.tally.files.into_inner(),
            folders: self.tally.folders.into_inner(),
            bytes: self.tally.bytes.into_inner(),
            bytes_written: self.tally.bytes_written.into_inner(),
            files_unchanged: self.tally.files_unchanged.into_inner(),
            files_kept: self.tally.files_kept.into_inner(),
            deleted: self.tally.deleted.into_inner(),
            files_verified: self.tally.files_verified.into_inner(),
            ..problems
        }
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
