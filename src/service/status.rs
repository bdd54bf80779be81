//! The record of earlier runs on this machine. With it, vault knows what is due without opening any vault.
//!
//! It is only a memory. If it is lost or damaged, everything is due once more.

use std::collections::BTreeMap;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::ownfile::make_private_folder;
use crate::ownfile::replace_private_file;
use serde::Deserialize;
use serde::Serialize;

use crate::failure::Failure;

/// The version of the file's format.
const VERSION: u32 = 1;
/// The number of attempts to take the lock, and the pause between them.
const LOOKS: u32 = 4;
const LOOK: Duration = Duration::from_millis(25);

/// The record of earlier runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    version: u32,
    /// When the last run ended, in seconds since 1970.
    #[serde(default)]
    pub last_run: Option<i64>,
    /// When a schedule last started a run, in seconds since 1970.
    #[serde(default)]
    pub last_background: Option<i64>,
    /// One entry for each source and place of a vault.
    #[serde(default)]
    pairs: Vec<Pair>,
    /// When each vault was last checked, by its folder or address.
    #[serde(default)]
    pub checked: BTreeMap<String, i64>,
    /// The known findings last shown to the user, and when, by the vault's folder or address.
    #[serde(default)]
    pub told_known: BTreeMap<String, (Vec<String>, i64)>,
}

/// The record of one source in one vault.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The source's name.
    pub source: String,
    /// The vault's name.
    pub vault: String,
    /// The vault's folder or address.
    pub place: String,
    /// The vault's id, if it is known.
    pub id: Option<String>,
    /// When the last snapshot was taken, or found unnecessary.
    pub taken: Option<i64>,
    /// When the first attempt was made, if no snapshot was ever taken.
    #[serde(default)]
    pub first: Option<i64>,
    /// When the last attempt was made.
    pub tried: i64,
    /// The result of the last attempt, in a word.
    pub result: String,
    /// The number of files in the last snapshot.
    pub files: u64,
    /// The total size of these files.
    pub bytes: u64,
    /// The bytes that the snapshot added to the vault.
    pub bytes_stored: u64,
    /// The duration of the snapshot in milliseconds.
    pub duration_ms: u64,
    /// When pruning was first held back because the clock had jumped.
    #[serde(default)]
    pub held: Option<i64>,
    /// When the user was told that the source fails or is overdue; `None` while all is well.
    #[serde(default)]
    pub told: Option<i64>,
}

impl Status {
    /// Loads the record from this folder.
    pub fn load(folder: &Path) -> Self {
        let bytes = crate::ownfile::read(&path(folder)).unwrap_or_default();
        let status: Self = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.version == VERSION { status } else { Self { version: VERSION, ..Self::default() } }
    }

    /// Saves the record.
    pub fn save(&self, folder: &Path) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::caused(format!("cannot write {}", path(folder).display()), &error);
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        replace_private_file(&path(folder), &bytes).map_err(failed)
    }

    /// The record of a source in a vault.
    pub fn pair(&self, source: &str, place: &str) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.source == source && pair.place == place)
    }

    /// The record of a source in a vault, to be changed. It is created if it does not exist.
    pub fn pair_mut(&mut self, source: &str, vault: &str, place: &str) -> &mut Pair {
        let at = self.pairs.iter().position(|pair| pair.source == source && pair.place == place);
        let at = at.unwrap_or_else(|| {
            self.pairs.push(Pair { source: source.to_owned(), place: place.to_owned(), ..Pair::default() });
            self.pairs.len() - 1
        });
        let pair = &mut self.pairs[at];
        vault.clone_into(&mut pair.vault);
        pair
    }

    /// The records of all sources in all vaults.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("status.json")
}

/// Takes the lock that excludes other runs; `None` if another run holds it. The system releases it when the process
/// ends.
pub fn lock(folder: &Path) -> Result<Option<File>, Failure> {
    let failed = |error: &io::Error| {
        Failure::caused(format!("cannot use the state folder {}", folder.display()), error)
            .hint("Another folder for it can be given with --state DIR, or VAULT_STATE_DIR.")
    };
    make_private_folder(folder).map_err(|error| failed(&error))?;
    let file = crate::ownfile::open_lock(&folder.join("lock"));
    let file = file.map_err(|error| failed(&error))?;
    for _ in 0..LOOKS {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            // The holder may only be testing the lock.
            Err(TryLockError::WouldBlock) => thread::sleep(LOOK),
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
    Ok(None)
}

/// Whether a run is going on.
pub fn is_locked(folder: &Path) -> bool {
    let held = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    crate::ownfile::open(&folder.join("lock")).is_ok_and(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back_and_damage_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut status = Status::load(folder.path());
        assert_eq!(status.pairs, []);
        status.pair_mut("s", "disk", "/v").taken = Some(5);
        status.pair_mut("s", "disk", "/v").files = 7;
        status.pair_mut("s", "other", "/w").taken = Some(6);
        status.save(folder.path()).unwrap();
        let read = Status::load(folder.path());
        assert_eq!(read, status);
        let pair = read.pair("s", "/v").unwrap();
        assert_eq!((pair.taken, pair.files, pair.vault.as_str()), (Some(5), 7, "disk"));
        assert_eq!(read.pair("t", "/v"), None);
        std::fs::write(path(folder.path()), "{\"version\": 1, \"pairs\": 3}").unwrap();
        assert_eq!(Status::load(folder.path()).pairs, []);
    }

    #[test]
    fn two_runs_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(held.is_some());
        assert!(lock(folder.path()).unwrap().is_none());
        assert!(is_locked(folder.path()));
        drop(held);
        assert!(!is_locked(folder.path()));
        assert!(lock(folder.path()).unwrap().is_some());
    }
}
