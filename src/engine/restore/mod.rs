//! Bringing a snapshot back (SPEC §9).

use std::path::PathBuf;

use crate::id::ObjectName;

/// Where a restore writes.
#[derive(Debug, Clone)]
pub enum Target {
    /// Below this folder, which is made if it is missing.
    Folder(PathBuf),
    /// Where the roots were snapshotted from.
    InPlace,
}

/// What happens to files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Nothing may be there: a target folder that is not empty is refused.
    Refuse,
    /// They are written anew.
    Always,
    /// They are compared, and only what differs is written.
    IfChanged,
    /// They are left as they are.
    Never,
}

/// What to restore, where and how.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The snapshot.
    pub snapshot: ObjectName,
    /// Only this path inside the snapshot, and what is below it; what is restored is placed as `TARGET/last component`.
    pub path: Option<Vec<u8>>,
    /// Only paths that match one of these globs (a folder matches with everything below it). Empty: everything.
    pub include: Vec<String>,
    /// Not paths that match one of these globs.
    pub exclude: Vec<String>,
    /// Where to.
    pub target: Target,
    /// What happens to files that are there already.
    pub overwrite: Overwrite,
    /// Delete what is in restored folders but not in the snapshot. Nothing outside the selection is touched.
    pub delete: bool,
    /// Plan and count, but write nothing.
    pub dry_run: bool,
    /// Read every written file back and compare its chunks.
    pub verify: bool,
    /// Do not restore owners.
    pub no_owner: bool,
    /// Owners by number only, not by name.
    pub numeric_owner: bool,
    /// How many threads read, open and write.
    pub threads: usize,
}

/// One thing that could not be restored as it was.
#[derive(Debug, Clone)]
pub struct RestoreProblem {
    /// Path inside the snapshot.
    pub path: Vec<u8>,
    /// What could not be done, and why.
    pub what: String,
    /// True if content is missing or wrong because of damage in the store.
    pub damage: bool,
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Files of every kind but folders that are now as in the snapshot.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Sum of the sizes of the regular files, in bytes.
    pub bytes: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Files whose content was there already and right.
    pub files_unchanged: u64,
    /// Existing files left alone because of [`Overwrite::Never`].
    pub files_kept: u64,
    /// Things deleted because of `delete`.
    pub deleted: u64,
    /// Files that were read back and found right (`verify`).
    pub files_verified: u64,
    /// What could not be restored, the first [`PROBLEMS_SHOWN`].
    pub problems: Vec<RestoreProblem>,
    /// How many problems there were.
    pub problem_count: u64,
    /// What a normal user may not do, by kind (`owner`, `device`, ...), and how often it was met. Not a failure.
    pub not_permitted: std::collections::BTreeMap<String, u64>,
}

/// How many problems a report carries.
pub const PROBLEMS_SHOWN: usize = 1000;
