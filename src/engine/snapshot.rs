//! Taking a snapshot (SPEC §8): walk, compare with the stat cache, read what changed, store, and write the record.

use std::path::PathBuf;

use crate::engine::exclude::ExcludeOptions;
use crate::id::ObjectName;
use crate::tree::{Skipped, Snapshot, Time};

/// Something to snapshot.
pub enum Input {
    /// A path of this machine.
    Path {
        /// Name in the snapshot's top folder.
        name: Vec<u8>,
        /// The absolute path. A symbolic link is followed here, and only here.
        path: PathBuf,
        /// Where given, only these paths (relative to `path`, with everything below them) are taken.
        only: Option<Vec<Vec<u8>>>,
    },
    /// Bytes that come from elsewhere (standard input, the output of a command), stored as one file.
    Reader {
        /// Name in the snapshot's top folder.
        name: Vec<u8>,
        /// Where the bytes come from.
        reader: Box<dyn std::io::Read + Send>,
        /// Called when the reader has ended; an error (the command failed, say) fails the snapshot.
        finish: Box<dyn FnOnce() -> Result<(), String> + Send>,
    },
}

/// What to take, and how.
pub struct SnapshotOptions<'a> {
    /// Name of the source.
    pub source: String,
    /// What to take. At least one; the names must differ.
    pub inputs: Vec<Input>,
    /// The time that the snapshot carries.
    pub time: Time,
    /// The clock: the time now. Used for the duration and for the racy check of timestamps.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// Tags.
    pub tags: Vec<String>,
    /// A line of the user's own.
    pub description: String,
    /// What to leave out.
    pub exclude: ExcludeOptions,
    /// Do not write a record if the tree is the one of the source's last snapshot.
    pub skip_if_unchanged: bool,
    /// Walk and count, but store nothing.
    pub dry_run: bool,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Open, decompress and hash every new segment before its pack is put.
    pub verify: bool,
    /// Read every file, even if the stat cache says that it did not change.
    pub read_all: bool,
    /// How many threads read, compress and seal.
    pub threads: usize,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct SnapshotReport {
    /// The snapshot's id; `None` for a dry run, or where nothing changed and that was to be skipped.
    pub id: Option<ObjectName>,
    /// The body of the record, as it was or would have been written.
    pub snapshot: Snapshot,
    /// The first [`SKIPPED_SHOWN`] things that were skipped or are torn; the snapshot has them all.
    pub skipped: Vec<Skipped>,
    /// Whether the tree is the same as that of the source's last snapshot.
    pub unchanged: bool,
}

/// How many skipped things a report carries.
pub const SKIPPED_SHOWN: usize = 1000;
