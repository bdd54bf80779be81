//! Findings in the state folder: until they can be written into the log, and those that each machine finds for itself (SPEC §8.8).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::id::{ChunkId, ObjectName};
use crate::log::record::{FoundDamage, ObjectRef};
use crate::msgpack;
use crate::vault::files::replace_file;
use crate::vault::finding::KnownFinding;
use crate::vault::late::{Awaited, CHUNKS_NAMED, Lacking};
use crate::vault::notes::Note;
use crate::vault::{SnapshotDamage, VaultError};

/// Findings as the state folder remembers them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// When each finding was first noticed, in seconds since 1970.
    #[serde(default)]
    pub(super) since: BTreeMap<String, i64>,
    /// Damage that is not in the log yet.
    #[serde(default)]
    pub(super) found: Vec<FoundDamage>,
    /// Objects that were seen sound since, which is not in the log yet.
    #[serde(default)]
    pub(super) sound: Vec<ObjectRef>,
    /// Snapshots that lacked files in the last check, although no record says so.
    #[serde(default)]
    pub(super) lacking: Vec<Lacking>,
    /// Snapshots in which a command met a loss since the last check.
    #[serde(default)]
    pub(super) suspects: BTreeSet<ObjectName>,
    /// All that had not arrived in the last check.
    #[serde(default)]
    pub(super) awaited: Awaited,
    /// Snapshots that were seen whole after a loss of theirs was accepted: later losses of these are new.
    #[serde(default)]
    pub(super) healed: BTreeSet<ObjectName>,
    /// Findings of the last look: each a sentence, and whether something is lost.
    #[serde(default)]
    pub(super) last: Vec<(String, bool)>,
    /// Notes of this machine that could not be read.
    #[serde(default)]
    pub(super) lost: BTreeSet<Note>,
}

impl Memory {
    pub(super) fn load(folder: &Path) -> Self {
        let (mut memory, is_lost): (Self, bool) = Note::Problems.load(folder);
        if is_lost {
            memory.lose(Note::Problems);
        }
        memory
    }

    /// Notes that a note could not be read, and the sentence about it for those who do not open the vault.
    pub(super) fn lose(&mut self, note: Note) {
        if self.lost.insert(note) {
            self.last.push((note.text().to_owned(), false));
        }
    }

    /// Notes that a loss was met in a snapshot, and the sentence about it for those who do not open the vault.
    pub(super) fn suspect(&mut self, snapshot: ObjectName) {
        if self.suspects.insert(snapshot) {
            self.last.push((KnownFinding::unexamined(snapshot).text(), true));
        }
    }

    /// Notes that a snapshot waits for files, unless it is known to wait.
    pub(super) fn await_files(&mut self, waiting: Lacking) {
        if self.awaited.snapshots.iter().all(|known| known.snapshot != waiting.snapshot) {
            self.awaited.snapshots.push(waiting);
        }
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), VaultError> {
        let path = folder.join(Note::Problems.file());
        let failed = |error: String| VaultError::State {
            action: "write",
            path: path.display().to_string(),
            source: std::io::Error::other(error),
        };
        replace_file(&path, &msgpack::encode(self).map_err(failed)?, true)
    }
}

/// Whether the loss of this chunk, or of something else, is among what a snapshot is known to have lost. Of many files only
/// the first ones are known by name, and so are their chunks.
pub(super) fn is_known(damage: &SnapshotDamage, chunk: Option<&ChunkId>) -> bool {
    let has = |known: &[ChunkId], chunk| known.len() >= CHUNKS_NAMED || known.contains(chunk);
    let is_of_file = |chunk| damage.files.iter().any(|(_, known)| has(known, chunk));
    damage.count > damage.files.len() as u64 || damage.count > 0 && chunk.is_none_or(is_of_file)
}

/// Records that a note in this state folder could not be read, before it is written again.
///
/// # Errors
/// If the state folder cannot be written. The note must then stay as it is.
pub(crate) fn note_lost(folder: &Path, note: Note) -> Result<(), VaultError> {
    let mut memory = Memory::load(folder);
    memory.lose(note);
    memory.save(folder)
}

/// The last known findings of a vault, without opening it: the exit code for a command, and the sentences to show.
/// `folder` is the state folder of that vault.
pub fn last_known(folder: &Path) -> (Exit, Vec<String>) {
    let last = Memory::load(folder).last;
    let exit = last
        .iter()
        .fold(Exit::Done, |exit, (_, is_loss)| exit.worse(if *is_loss { Exit::Damage } else { Exit::Skipped }));
    (exit, last.into_iter().map(|(text, _)| text).collect())
}

/// Notes, until the vault is opened again, that it is not where this machine expects it. `folder` is the state folder
/// of that vault.
pub fn note_away(folder: &Path, what: &str) {
    let mut memory = Memory::load(folder);
    let what = (what.to_owned(), false);
    if folder.is_dir() && !memory.last.contains(&what) {
        memory.last.push(what);
        // Where no state can be written, nothing is remembered.
        let _ = memory.save(folder);
    }
}
