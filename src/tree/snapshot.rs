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
    /// Where that path led to, if links on the way made it another place; empty otherwise.
    #[serde(rename = "r", with = "serde_bytes", default, skip_serializing_if = "Vec::is_empty")]
    pub real: Vec<u8>,
    /// It held files before, and now it is empty, or lies on another device, or that is so of a mount point below it: a disk is
    /// probably not mounted.
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

impl Root {
    /// A root that is there, and whose path has no links.
    pub const fn new(name: Vec<u8>, path: Vec<u8>) -> Self {
        Self { name, path, real: Vec::new(), lost: false }
    }

    /// Where the root lay, without links on the way.
    pub fn place(&self) -> &[u8] {
        if self.real.is_empty() { &self.path } else { &self.real }
    }
}

/// Whether everything that should be in the snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was read.
    Complete,
    /// Something could not be read; the list says what. Words of later versions are read as this one.
    #[serde(other)]
    Partial,
}

/// One thing that could not be saved as it should be, as listed in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Path inside the snapshot.
    #[serde(rename = "p", with = "serde_bytes")]
    pub path: Vec<u8>,
    /// Why, in words.
    #[serde(rename = "w")]
    pub why: String,
    /// True if the content is stored nevertheless, but may be torn (the file changed while it was read).
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without a path it is about the whole.
        if !self.path.is_empty() {
            write!(f, "{}: ", Shown(&self.path))?;
        }
        write!(f, "{}", Shown(self.why.as_bytes()))
    }
}

/// A dated state of a source. Unknown fields of later versions are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was begun (or the time that was given).
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
    /// Files of every kind but folders.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Sum of the sizes of the regular files, holes included, in bytes.
    pub bytes: u64,
    /// Files that were not there in the snapshot before, by what the catalogue knew.
    pub files_new: u64,
    /// Files that differ from the snapshot before.
    pub files_changed: u64,
    /// Files that were found unchanged.
    pub files_unchanged: u64,
    /// Bytes that were read from the source.
    pub bytes_read: u64,
    /// Bytes of new chunks, before compression.
    pub bytes_new: u64,
    /// Bytes that were added to the store, records not counted.
    pub bytes_stored: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Version of the program.
    pub program: String,
    /// Tags, sorted.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A line of the user's own; may be empty.
    #[serde(default)]
    pub description: String,
    /// Whether everything was read.
    pub verdict: Verdict,
    /// How many things are in `skipped_list`.
    #[serde(default)]
    pub skipped: u64,
    /// A stream of msgpack-encoded [`Skipped`], one after the other. Empty if there are none.
    #[serde(default)]
    pub skipped_list: Stream,
    /// `time` was given by the user or by an archive: it says what the content is of, not what a clock showed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
    /// The rules by which things were left out (SPEC §8.3). Empty if none were recorded.
    #[serde(default, skip_serializing_if = "Stream::is_empty")]
    pub rules: Stream,
    /// Snapshots whose place this one takes: their date and their pins are its own (SPEC §8.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<ObjectName>,
    /// It has a date of its own all the same: a person has put it right (SPEC §8.3).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redated: bool,
    /// What it is a copy of, if it was copied out of another vault (SPEC §8.12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What a snapshot is a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The vault that it was taken in.
    #[serde(rename = "v")]
    pub vault: VaultId,
    /// Its id there.
    #[serde(rename = "n")]
    pub snapshot: ObjectName,
    /// Its date was uncertain there.
    #[serde(rename = "u", default, skip_serializing_if = "std::ops::Not::not")]
    pub uncertain: bool,
    /// The date of an outlier there that may be the right one, its own being wrong.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub rival: Option<Time>,
    /// Something of it was damaged there when it was copied, and is missing here.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

impl Snapshot {
    /// Whether its time says what the content is of, whatever the clock of the record showed.
    pub const fn is_dated(&self) -> bool {
        self.given || self.origin.is_some()
    }

    /// What the snapshot of this id in this vault is in any vault: what it is a copy of, or itself (SPEC §8.12).
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
