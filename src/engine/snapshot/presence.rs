//! Decides whether a source is really there: a disk that is not mounted leaves an empty folder behind, and a missing file an empty file
//! or folder, which must not be taken for the source.
//!
//! There are two signs: a root that held something in the last snapshot now holds nothing, whatever it was and is; or a folder that was
//! a mount point is now on the same file system as its parent. A removable disk's folder comes and goes with the disk, so there the sign
//! is the missing folder. This machine remembers which roots, and which folders below them, were mount points.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::query::browse::entry_at;
use crate::engine::snapshot::walk::{MountPoints, NOT_MOUNTED};
use crate::fs::Dir;
use crate::id::FolderKey;
use crate::ownfile::replace_private_file;
use crate::tree::{Entry, FileKind, Time};
use crate::vault::findings::{Note, note_lost};
use crate::vault::{SnapshotInfo, Vault, VaultError};

/// Length of a listing that consists only of its version.
const EMPTY_LISTING_LEN: u64 = 1;

/// Why a root that held something and now holds nothing is probably not there.
const EMPTIED: &str = "it was not empty in the last snapshot, and now it is: is its disk mounted? If it is to be empty: \
                       vault snapshot --allow-empty";
/// As [`EMPTIED`], for one of several copies that are imported together.
const EMPTY_BESIDE: &str = "it is empty, and other copies of it are not: is it a folder whose disk is not mounted? Such a \
                            snapshot does not count for what prune keeps";

/// When a path that holds nothing is taken for one that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// Never: the user confirmed it, also that a plain folder was a mount point.
    Accepted,
    /// If the path held something in the last snapshot in which it was there.
    IfItWasFull,
    /// Always: other copies of the same thing, at paths of their own, hold something.
    IsLost,
}

/// The remembered state of all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Whether each root was a mount point when it was last there, by a hash of its source and its path.
    #[serde(default)]
    roots: BTreeMap<String, bool>,
    /// For each source, by name: the mount points below its roots, and their paths in the snapshot.
    #[serde(default)]
    below: BTreeMap<String, BTreeMap<FolderKey, Vec<u8>>>,
}

/// The state of the roots of a source.
pub(crate) struct Presence {
    /// The vault's state folder.
    folder: PathBuf,
    known: Known,
    /// Whether the remembered state could not be read.
    is_lost: bool,
    /// The present state, to be remembered once the snapshot is taken.
    seen: BTreeMap<String, bool>,
}

/// The name under which a root is remembered.
fn key(source: &str, path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(source.len() as u64).to_le_bytes()).update(source.as_bytes());
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Whether a folder is on another file system than its parent; `None` if it has no parent, or is not a folder.
fn is_mount_point(path: &Path) -> Option<bool> {
    let real = std::fs::canonicalize(path).ok()?;
    let stat = Dir::open(&real).and_then(|dir| dir.stat()).ok()?;
    let above = Dir::open(real.parent()?).and_then(|dir| dir.stat()).ok()?;
    (stat.kind == FileKind::Directory).then_some(stat.mount_root || stat.dev != above.dev)
}

/// Whether nothing is held at this path: neither a name by a folder nor a byte by a file. What cannot be read is not empty, and what is
/// neither a folder nor a file holds nothing. `special`: pipes and devices are read like files, and are not judged.
pub(crate) fn holds_nothing(path: &Path, special: bool) -> bool {
    let Ok(meta) = std::fs::metadata(path) else { return false };
    if meta.is_dir() {
        return crate::folder::entries(path).is_ok_and(|mut entries| entries.next().is_none());
    }
    if !meta.is_file() {
        return !special;
    }
    // Files of some file systems of the kernel have the length 0 and a content.
    meta.len() == 0 && File::open(path).is_ok_and(|mut file| matches!(file.read(&mut [0]), Ok(0)))
}

impl Presence {
    /// Reads the remembered state.
    pub(crate) fn load(vault: &Vault) -> Self {
        let folder = vault.state().to_owned();
        let (known, is_lost) = Note::MountPoints.load(&folder);
        Self { folder, known, is_lost, seen: BTreeMap::new() }
    }

    /// Checks a root, and returns why it is probably not there, if so. `special`: pipes and devices are read like files.
    pub(crate) fn look(
        &mut self,
        vault: &Vault,
        snapshots: &[SnapshotInfo],
        source: &str,
        path: &Path,
        empty: Empty,
        special: bool,
    ) -> Option<&'static str> {
        let key = key(source, path);
        let is_mount = is_mount_point(path);
        let was_mount = self.known.roots.get(&key).copied().unwrap_or(false);
        let why = match empty {
            Empty::Accepted => None,
            _ if is_mount == Some(false) && was_mount => Some(NOT_MOUNTED),
            _ if !holds_nothing(path, special) => None,
            Empty::IsLost => Some(EMPTY_BESIDE),
            Empty::IfItWasFull => was_full(vault, snapshots, source, path).then_some(EMPTIED),
        };
        if let Some(is_mount) = is_mount.filter(|_| why.is_none()) {
            self.seen.insert(key, is_mount);
        }
        why
    }

    /// The remembered mount points below the roots of a source. `accepted`: whatever is seen now is right.
    pub(crate) fn below(&self, source: &str, accepted: bool) -> MountPoints {
        MountPoints::new(self.known.below.get(source).cloned().unwrap_or_default(), accepted)
    }

    /// Remembers the present state: the roots, and the mount points below them.
    ///
    /// # Errors
    /// If the state folder cannot be written.
    pub(crate) fn remember(mut self, source: &str, below: &MountPoints) -> Result<(), VaultError> {
        let before = self.known.clone();
        self.known.roots.append(&mut self.seen);
        match below.seen() {
            none if none.is_empty() => drop(self.known.below.remove(source)),
            some => drop(self.known.below.insert(source.to_owned(), some)),
        }
        if self.is_lost {
            note_lost(&self.folder, Note::MountPoints)?;
        } else if self.known == before {
            return Ok(());
        }
        let file = self.folder.join(Note::MountPoints.file());
        let failed = |source| VaultError::State { action: "write", path: file.display().to_string(), source };
        let bytes = rmp_serde::to_vec(&self.known).map_err(|error| failed(std::io::Error::other(error)))?;
        replace_private_file(&file, &bytes).map_err(failed)
    }
}

/// Whether the root held anything in the last snapshot of this machine in which it was there. A user who accepted that it is empty ends
/// that: then it was there, and held nothing.
fn was_full(vault: &Vault, snapshots: &[SnapshotInfo], source: &str, path: &Path) -> bool {
    let path = crate::path::from_path(path);
    let host = &vault.identity().host;
    let mut found = snapshots.iter().rev().filter(|info| info.body.source == source && info.body.host == *host);
    let root = |info: &SnapshotInfo| info.body.roots.iter().find(|root| root.path == path && !root.lost).cloned();
    let Some((info, root)) = found.find_map(|info| Some((info, root(info)?))) else { return false };
    let Ok(mut trees) = vault.tree_reader() else { return false };
    entry_at(&info.body.tree, &root.name, &mut trees).is_ok_and(|entry| held_something(&entry))
}

/// Whether a root held anything as it was stored.
fn held_something(entry: &Entry) -> bool {
    match entry.kind {
        FileKind::Directory => entry.content.as_ref().is_some_and(|listing| listing.len > EMPTY_LISTING_LEN),
        FileKind::File => entry.size > 0,
        _ => false,
    }
}

/// Whether a given date is in the future.
pub(crate) fn is_future(given: bool, time: Time, now: Time) -> bool {
    given && time > now
}
