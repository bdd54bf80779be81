//! The body of a snapshot's record (SPEC §8.3).

use serde::{Deserialize, Serialize};

use super::entry::Time;
use super::stream::Stream;
use crate::id::{ObjectName, VaultId};
use crate::path::Shown;

/// One of the paths that were snapshotted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its name in the snapshot's top folder: normally the last component of the path.
    #[serde(rename = "n", with = "serde_bytes")]
    pub name: Vec<u8>,
    /// The absolute path it was read from; empty for a stream that was read from a command or from standard input.
    #[serde(rename = "p", with = "serde_bytes")]
    pub path: Vec<u8>,
    /// The place that the path led to through links; empty if there were none.
    #[serde(rename = "r", with = "serde_bytes", default, skip_serializing_if = "Vec::is_empty")]
    pub real: Vec<u8>,
    /// Whether it had files before, and is now empty or on another device, or the same is true of a mount point below
    /// it: a disk is probably not mounted.
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

impl Root {
    /// A root that is not lost, and whose path has no links.
    pub const fn new(name: Vec<u8>, path: Vec<u8>) -> Self {
        Self { name, path, real: Vec::new(), lost: false }
    }

    /// The place of the root, without links.
    pub fn place(&self) -> &[u8] {
        if self.real.is_empty() { &self.path } else { &self.real }
    }
}

/// Whether the snapshot has everything that it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was read.
    Complete,
    /// Something could not be read; the list has the details. Verdicts of later versions are read as this one.
    #[serde(other)]
    Partial,
}

/// A file that could not be saved properly, as listed in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Path inside the snapshot.
    #[serde(rename = "p", with = "serde_bytes")]
    pub path: Vec<u8>,
    /// Reason, in words.
    #[serde(rename = "w")]
    pub why: String,
    /// True if the content is stored nevertheless, but may be torn (the file changed while it was read).
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without a path the reason concerns the whole snapshot.
        if !self.path.is_empty() {
            write!(f, "{}: ", Shown(&self.path))?;
        }
        write!(f, "{}", Shown(self.why.as_bytes()))
    }
}

/// A dated state of a source. Unknown fields of later versions are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Time when it was begun (or the time that was given).
    pub time: Time,
    /// Name of the source.
    pub source: String,
    /// Name of the machine.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// The paths that were snapshotted together.
    pub roots: Vec<Root>,
    /// The listing of the top folder, which has one entry for each root.
    pub tree: Stream,
    /// Files with more than one name: see SPEC §7.4. Empty if there are none.
    #[serde(default)]
    pub links: Stream,
    /// Number of files of every kind except folders.
    pub files: u64,
    /// Number of folders.
    pub folders: u64,
    /// Sum of the sizes of the regular files, holes included, in bytes.
    pub bytes: u64,
    /// Number of files that the snapshot before did not have, by what the catalogue knew.
    pub files_new: u64,
    /// Number of files that differ from the snapshot before.
    pub files_changed: u64,
    /// Number of files that were found unchanged.
    pub files_unchanged: u64,
    /// Number of bytes that were read from the source.
    pub bytes_read: u64,
    /// Number of bytes of new chunks, before compression.
    pub bytes_new: u64,
    /// Number of bytes that were added to the store, without records.
    pub bytes_stored: u64,
    /// Duration, in milliseconds.
    pub duration_ms: u64,
    /// Version of the program.
    pub program: String,
    /// Tags, sorted.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A line of text from the user; may be empty.
    #[serde(default)]
    pub description: String,
    /// Whether everything was read.
    pub verdict: Verdict,
    /// Number of items in `skipped_list`.
    #[serde(default)]
    pub skipped: u64,
    /// A stream of msgpack-encoded [`Skipped`], one after the other. Empty if there are none.
    #[serde(default)]
    pub skipped_list: Stream,
    /// Whether `time` was given by the user or by an archive: it is then the date of the content, not the time of a
    /// clock.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
    /// The rules by which paths were left out (SPEC §8.3). Empty if none were recorded.
    #[serde(default, skip_serializing_if = "Stream::is_empty")]
    pub rules: Stream,
    /// Snapshots that this one replaces: it takes their date and their pins (SPEC §8.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<ObjectName>,
    /// Whether it has a date of its own nevertheless, because a person has corrected it (SPEC §8.3).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redated: bool,
    /// The snapshot that it is a copy of, if it was copied from another vault (SPEC §8.12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// The original of a copied snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The vault in which it was taken.
    #[serde(rename = "v")]
    pub vault: VaultId,
    /// Its id there.
    #[serde(rename = "n")]
    pub snapshot: ObjectName,
    /// Whether its date was uncertain there.
    #[serde(rename = "u", default, skip_serializing_if = "std::ops::Not::not")]
    pub uncertain: bool,
    /// The date of an outlier there that may be right, with its own being wrong.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub rival: Option<Time>,
    /// Whether some of it was damaged there when it was copied, and is missing here.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

impl Snapshot {
    /// Whether its time is the date of its content, whatever the clock of the record showed.
    pub const fn is_dated(&self) -> bool {
        self.given || self.origin.is_some()
    }

    /// The identity of the snapshot with this id across vaults: its original, or itself (SPEC §8.12).
    pub fn origin_in(&self, vault: VaultId, id: ObjectName) -> (VaultId, ObjectName) {
        self.origin.as_ref().map_or((vault, id), |origin| (origin.vault, origin.snapshot))
    }

    /// The streams of the record besides the tree, each with a name for people.
    pub fn lists(&self) -> [(&Stream, &'static str); 3] {
        [
            (&self.links, "(list of hard links)"),
            (&self.skipped_list, "(list of skipped files)"),
            (&self.rules, "(list of rules)"),
        ]
    }
}

/// Snapshots for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use super::{Snapshot, Stream, Time, Verdict};

    /// A complete snapshot of nothing: each field has its empty value.
    pub const fn empty() -> Snapshot {
        Snapshot {
            time: Time { secs: 0, nanos: 0 },
            source: String::new(),
            host: String::new(),
            user: String::new(),
            roots: Vec::new(),
            tree: Stream::EMPTY,
            links: Stream::EMPTY,
            files: 0,
            folders: 0,
            bytes: 0,
            files_new: 0,
            files_changed: 0,
            files_unchanged: 0,
            bytes_read: 0,
            bytes_new: 0,
            bytes_stored: 0,
            duration_ms: 0,
            program: String::new(),
            tags: Vec::new(),
            description: String::new(),
            verdict: Verdict::Complete,
            skipped: 0,
            skipped_list: Stream::EMPTY,
            given: false,
            rules: Stream::EMPTY,
            replaces: Vec::new(),
            redated: false,
            origin: None,
        }
    }
}
