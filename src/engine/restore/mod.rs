//! Restores snapshots (SPEC §9).
//!
//! A separate thread walks the trees and plans: it makes the folders, and collects files with the places of their chunks in windows of
//! bounded size. A window is executed while the next one is planned: its chunks are sorted by segment, each segment is opened once, and
//! every chunk is written to all its places.
//!
//! `select` which paths are restored · `run` state that all parts share, and counts · `attributes` metadata to set · `folder` folders and
//! their handles · `make` making and finishing them · `task` files and the pieces of their content · `place` where each part goes ·
//! `plan` from trees to windows · `special` existing items, links, pipes, devices · `execute` from windows to files · `fetch` segments read
//! ahead from a far store · `compare` existing content, and reading back · `links` hard links · `guard` what is never removed, by the
//! `facts` · `removal` removing the rest · `planned` what a dry run would do.

mod select;
mod attributes;
mod guard;
mod facts;
mod run;
mod folder;
mod make;
mod task;
mod place;
mod plan;
mod special;
mod execute;
mod fetch;
mod compare;
mod links;
mod removal;
mod planned;

#[cfg(all(test, unix))]
mod tests;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use crate::catalogue::CatalogueError;
use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::query::browse::BrowseError;
use crate::engine::restore::execute::Executor;
pub use crate::engine::restore::guard::{Kept, vault_around};
use crate::engine::restore::links::Links;
use crate::engine::restore::place::{Place, Places};
use crate::engine::restore::plan::Planner;
pub use crate::engine::restore::planned::Planned;
use crate::engine::restore::run::{Halt, Run};
use crate::engine::restore::select::Selection;
use crate::id::ObjectName;
use crate::progress::{Phase, Progress};
use crate::store::StoreError;
use crate::tree::Stream;
use crate::vault::{Gone, ReadError, Vault};
use crate::write::trust::damaged_numbers;

/// Destination of a restore.
#[derive(Debug, Clone)]
pub enum Target {
    /// Below this folder, which is created if it is missing.
    Folder(PathBuf),
    /// Where each root was read from.
    InPlace,
}

/// How existing files are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// None may exist: a target folder that is not empty is refused.
    Refuse,
    /// They are written again.
    Always,
    /// They are compared, and only differences are written.
    IfChanged,
    /// As [`Overwrite::IfChanged`]; but a file that differs and is newer than in the snapshot is kept as a copy beside it.
    KeepNewer,
    /// They are left as they are.
    Never,
}

/// Options of a restore.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// The snapshot.
    pub snapshot: ObjectName,
    /// Restore the snapshot of that id even if another one has replaced it since.
    pub as_it_was: bool,
    /// Only this path inside the snapshot, and everything below it; it is placed at `TARGET/last component`.
    pub path: Option<Vec<u8>>,
    /// Only paths that match one of these globs (a folder matches with everything below it). Empty: everything.
    pub include: Vec<String>,
    /// Leave out paths that match one of these globs.
    pub exclude: Vec<String>,
    /// Destination.
    pub target: Target,
    /// How existing files are handled.
    pub overwrite: Overwrite,
    /// Delete items in restored folders that are not in the snapshot. Nothing outside the selection is touched, and items that may have
    /// been left out of the snapshot stay.
    pub delete: bool,
    /// Also delete items that the rules of the snapshot, or `today`, leave out, and those that a snapshot without rules may have left
    /// out.
    pub delete_excluded: bool,
    /// The rules by which a snapshot of this source would leave out files today.
    pub today: ExcludeOptions,
    /// The program's state folders, in addition to that of this vault. They are never touched.
    pub state: Vec<PathBuf>,
    /// Files and folders with the program's configuration. They are never removed.
    pub configuration: Vec<PathBuf>,
    /// Plan and count, but write nothing.
    pub dry_run: bool,
    /// Delete nothing that this dry run would not have deleted.
    pub planned: Option<Arc<Planned>>,
    /// Read every written file back and compare its chunks.
    pub verify: bool,
    /// Do not restore owners.
    pub no_owner: bool,
    /// Owners by number only, not by name.
    pub numeric_owner: bool,
    /// Number of threads that read, open and write.
    pub threads: usize,
}

impl RestoreOptions {
    /// A whole snapshot to this target, which must be empty, by one thread.
    pub fn new(snapshot: ObjectName, target: Target) -> Self {
        Self {
            snapshot,
            as_it_was: false,
            path: None,
            include: Vec::new(),
            exclude: Vec::new(),
            target,
            overwrite: Overwrite::Refuse,
            delete: false,
            delete_excluded: false,
            today: ExcludeOptions::default(),
            state: Vec::new(),
            configuration: Vec::new(),
            dry_run: false,
            planned: None,
            verify: false,
            no_owner: false,
            numeric_owner: false,
            threads: 1,
        }
    }
}

/// An item that could not be restored as it was.
#[derive(Debug, Clone)]
pub struct RestoreProblem {
    /// Path inside the snapshot.
    pub path: Vec<u8>,
    /// The failed action and the reason.
    pub what: String,
    /// True if content is missing or wrong because of damage in the store.
    pub damage: bool,
}

/// Result of a restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Files of all kinds except folders that are now as in the snapshot.
    pub files: u64,
    /// Number of folders.
    pub folders: u64,
    /// Total size of the regular files, in bytes.
    pub bytes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Files whose existing content was already right.
    pub files_unchanged: u64,
    /// Existing files left alone because of [`Overwrite::Never`].
    pub files_kept: u64,
    /// Files and folders deleted: because of `delete`, or to make room for an item of another kind.
    pub deleted: u64,
    /// Newer files kept as copies.
    pub copies: u64,
    /// Items that are not in the snapshot but were kept, by path, the first [`KEPT_SHOWN`].
    pub kept: Vec<KeptThing>,
    /// Number of items kept.
    pub kept_count: u64,
    /// Files read back and found right (`verify`).
    pub files_verified: u64,
    /// Problems: damage first, then by path, the first [`PROBLEMS_SHOWN`].
    pub problems: Vec<RestoreProblem>,
    /// Number of problems.
    pub problem_count: u64,
    /// Number of problems that are damage in the store.
    pub damage_count: u64,
    /// Whether something was not restored since it has not arrived yet.
    pub is_late: bool,
    /// Actions that a normal user may not do, by kind (`owner`, `device`, ...), with their number. Not an error.
    pub not_permitted: std::collections::BTreeMap<String, u64>,
}

/// An item that was not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptThing {
    /// The path that it would have inside the snapshot.
    pub path: Vec<u8>,
    /// Why it is kept, with everything in it.
    pub why: Kept,
}

/// The effect on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It is created.
    Added,
    /// It existed and is changed or replaced.
    Changed,
    /// It is deleted.
    Deleted,
    /// It stays as it is. Only reported if reasons are asked for (`-vv`).
    Same,
}

/// A path that a restore changes or would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The effect.
    pub mark: Mark,
    /// The path inside the snapshot.
    pub path: Vec<u8>,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// The reason, in a few words.
    pub why: Cow<'static, str>,
}

/// Receives each change, in the order of the tree.
pub type Tell<'t> = &'t (dyn Fn(&Change) + Sync);

/// Maximum number of kept items in a report.
pub const KEPT_SHOWN: usize = 1000;
/// Maximum number of problems in a report.
pub const PROBLEMS_SHOWN: usize = 1000;

/// Why nothing was restored, or why a restore ended early.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The vault has no such snapshot.
    #[error("there is no snapshot {id}")]
    NoSuchSnapshot {
        /// Its id.
        id: ObjectName,
    },
    /// The snapshot does not contain this path.
    #[error("there is no {path} in this snapshot")]
    NoSuchPath {
        /// The path inside the snapshot.
        path: String,
    },
    /// The patterns select nothing.
    #[error("nothing in this snapshot matches {patterns}")]
    NothingSelected {
        /// The patterns.
        patterns: String,
    },
    /// A pattern is not valid.
    #[error("the pattern {pattern} is not valid: {what}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The mistake in it.
        what: String,
    },
    /// The target is, or is inside, a folder of a vault or the state folder.
    #[error("{path} {}", if *.is_state {
        "holds the state that vault keeps, and nothing is restored into it"
    } else {
        "is a vault, and nothing is restored into a vault"
    })]
    InOwn {
        /// The vault folder or state folder.
        path: String,
        /// Whether it is the state folder.
        is_state: bool,
    },
    /// Everything on the machine that is not in the snapshot would be deleted.
    #[error("deleting in the root of the file system, {path}, needs --include")]
    WholeSystem {
        /// The root folder of the file system.
        path: String,
    },
    /// Something exists there already, and no option says how to handle it.
    #[error("{path} is there already{}", if *.is_folder { " and is not empty" } else { "" })]
    NotEmpty {
        /// The folder or the file.
        path: String,
        /// Whether it is a folder.
        is_folder: bool,
    },
    /// Data read from a command or from standard input has no place of its own.
    #[error("{name} was read from a stream, so there is no place to restore it to")]
    NoPlace {
        /// Its name in the snapshot.
        name: String,
    },
    /// The target cannot be written: it is full, read-only, or gone.
    #[error("cannot write {path}")]
    Target {
        /// The file or folder.
        path: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// One of the program's own places, which a restore never removes, cannot be looked at.
    #[error("cannot look at {}, which the restore must not touch", path.display())]
    OwnPlace {
        /// The vault, the state folder or the configuration.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The store failed as a whole.
    #[error(transparent)]
    Store(StoreError),
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The snapshot is no longer kept as it was. What was restored before stays.
    #[error(transparent)]
    Gone(Gone),
    /// The requested path cannot be found because of damage, or nothing can be read at all.
    #[error("cannot read {path}")]
    Read {
        /// The path inside the snapshot.
        path: String,
        /// The error.
        source: ReadError,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl Overwrite {
    /// Whether existing items may be changed at all.
    pub(crate) const fn changes(self) -> bool {
        matches!(self, Self::Always | Self::IfChanged | Self::KeepNewer)
    }

    /// Whether existing files are compared.
    pub(crate) const fn compares(self) -> bool {
        matches!(self, Self::IfChanged | Self::KeepNewer)
    }
}

impl RestoreError {
    /// Whether the error is damage in the store.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.is_damage(),
            _ => false,
        }
    }

    fn browse(error: BrowseError, path: &[u8]) -> Self {
        match error {
            BrowseError::Read { path, source } | BrowseError::Partial { path, source, .. } => {
                run::fatal(source).unwrap_or_else(|source| Self::Read { path, source })
            }
            _ => Self::NoSuchPath { path: crate::path::Shown(path).to_string() },
        }
    }
}

/// Restores a snapshot, or a part of it.
///
/// # Errors
/// If nothing was restored, or the restore had to end early. Single files that could not be restored are listed in the report.
pub fn restore(
    vault: &Vault,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport, RestoreError> {
    restore_telling(vault, options, progress, None)
}

/// As [`restore`], and reports each path that is changed. A dry run reports what would be changed.
///
/// # Errors
/// As [`restore`].
pub fn restore_telling(
    vault: &Vault,
    options: &RestoreOptions,
    progress: &dyn Progress,
    tell: Option<Tell<'_>>,
) -> Result<RestoreReport, RestoreError> {
    let missing = || RestoreError::NoSuchSnapshot { id: options.snapshot };
    let info = vault.snapshot(&options.snapshot).ok_or_else(missing)?;
    let before = vault.snapshot_before(&info, &options.snapshot).filter(|_| options.as_it_was);
    let info = before.unwrap_or(info);
    let run = Run::new(vault, options, progress, Selection::new(options)?, tell);
    // Protects the needed packs from a concurrent sweep. With a read-only state folder we do without.
    let _session = vault.begin_session().ok();
    let unreadable = |source| {
        run::fatal(source).unwrap_or_else(|source| RestoreError::Read { path: "the snapshot".to_owned(), source })
    };
    let mut trees = vault.tree_reader_of([info.id]).map_err(unreadable)?;
    let places = Places::find(&run, &info, &mut trees)?;
    run.set_guard(run.learn(&info, &mut trees).map_err(|Halt| run.failure())?);
    places.refuse(&run)?;
    run.tell_of_lost_roots(&info);
    if run.selection.is_all() {
        let listings: Vec<&Stream> = places.0.iter().filter_map(Place::listing).collect();
        trees.bring_trees(&listings, &|| run.check().is_ok());
    }
    let (files, bytes, counted) = plan::totals(&run, &info, &places, &mut trees)?;
    places.prepare(&run, &mut trees)?;
    let links = Links::load(&run, &info, &places, &mut trees);
    let links = links.map_err(|Halt| run.failure())?;
    progress.counters().restart(files, bytes);
    progress.phase(Phase::Restore);
    let executor = Executor::new(&run, &links, trees.lookup().clone()).map_err(unreadable)?;
    let damaged = damaged_numbers(vault, &trees.catalogue())?;
    let mut kept = trees.another();
    let (windows, planned) = sync_channel(0);
    let planner = Planner::new(&run, &links, trees, damaged, counted, windows);
    let done = executor.execute_all(planned, || planner.plan(&places));
    run.tell_up_to(u64::MAX);
    if done.is_err() {
        executor.clean_up();
        return Err(run.failure());
    }
    links.link(&run, &info, &places, &mut kept).map_err(|Halt| run.failure())?;
    run.tell_up_to(u64::MAX);
    drop(executor);
    run.into_report(files)
}
