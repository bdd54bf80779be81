//! A trial before the user relies on a vault: a few small files are saved, restored and compared.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::prune;
use crate::engine::restore::{RestoreOptions, Target, restore};
use crate::engine::snapshot::{Empty, Input, SnapshotOptions, snapshot};
use crate::failure::Failure;
use crate::log::RecordBody;
use crate::ownfile::{self, make_private_folder};
use crate::progress::Progress;
use crate::service::machine::Machine;
use crate::service::roots;
use crate::vault::Vault;
use crate::write::trust::VerifyOthers;

/// The maximum number of files and bytes in a trial.
const FILES_MAX: usize = 20;
const BYTES_MAX: u64 = 4 << 20;
/// The maximum number of folders searched for files to try.
const FOLDERS_MAX: usize = 200;

/// The progress of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The trial begins: there are files to try.
    Begun,
    /// The files are saved.
    Kept {
        /// The number of files.
        files: u64,
        /// Their total size in bytes.
        bytes: u64,
    },
    /// The files are restored.
    Restored {
        /// The number of files.
        files: u64,
    },
    /// The restored files are compared with the originals.
    Compared {
        /// The number of originals that have changed meanwhile.
        changed: u64,
    },
}

/// Saves a few small files of these folders, restores them into the folder `scratch`, and compares them. At the end, it
/// removes the folder and forgets the snapshot. Returns whether there were any such files.
///
/// # Errors
/// If any of that fails.
pub fn perform(
    vault: &Vault,
    sources: &[PathBuf],
    scratch: &Path,
    threads: usize,
    machine: &dyn Machine,
    (progress, tell): (&dyn Progress, &dyn Fn(Step)),
) -> Result<bool, Failure> {
    let files = small_files(sources);
    if files.is_empty() {
        return Ok(false);
    }
    let Some(group) = roots::group(&files) else { return Ok(true) };
    let name = roots::name_roots(std::slice::from_ref(&group.folder), &mut BTreeSet::new());
    let Some(root) = name.into_iter().next() else { return Ok(true) };
    let clock = || machine.now();
    let options = SnapshotOptions {
        source: "trial".to_owned(),
        inputs: vec![Input::Path { name: root.name.clone(), path: root.path.clone(), only: group.only }],
        time: machine.now(),
        given: false,
        clock: &clock,
        tags: Vec::new(),
        description: "the first trial".to_owned(),
        exclude: ExcludeOptions::default(),
        others: VerifyOthers::None,
        skip_if_unchanged: false,
        empty: Empty::IfItWasFull,
        dry_run: false,
        level: 3,
        verify: true,
        read_all: false,
        read_special: false,
        threads,
    };
    tell(Step::Begun);
    let report = snapshot(vault, options, progress)?;
    let Some(id) = report.id else { return Ok(true) };
    tell(Step::Kept { files: report.snapshot.files, bytes: report.snapshot.bytes });
    let removed = Removed(scratch.to_owned());
    make_private_folder(scratch)
        .map_err(|error| Failure::caused(format!("cannot make {}", scratch.display()), &error))?;
    let options = RestoreOptions {
        verify: true,
        no_owner: true,
        threads,
        ..RestoreOptions::new(id, Target::Folder(scratch.to_owned()))
    };
    let restored = restore(vault, &options, progress)?;
    tell(Step::Restored { files: restored.files });
    let restored_root = scratch.join(roots::path_of(&root.name));
    let same = files.iter().filter(|path| {
        let below = path.strip_prefix(&root.path).unwrap_or(path);
        let content = |path: &Path| ownfile::read_given(path, BYTES_MAX);
        content(path).is_ok_and(|bytes| content(&restored_root.join(below)).is_ok_and(|other| other == bytes))
    });
    tell(Step::Compared { changed: (files.len() - same.count()) as u64 });
    drop(removed);
    prune::say(vault, RecordBody::Forget(vec![id]), machine.now(), progress)?;
    Ok(true)
}

/// A folder that is removed when this value is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // files that remain are in a folder of our own
    }
}

/// Some small files of the sources.
fn small_files(sources: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = sources.to_vec();
    let (mut files, mut bytes, mut looked) = (Vec::new(), 0, 0);
    while let Some(path) = folders.pop() {
        if looked >= FOLDERS_MAX || files.len() >= FILES_MAX {
            break;
        }
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_file() && found.len() > 0 && bytes + found.len() <= BYTES_MAX && fs::File::open(&path).is_ok() {
            bytes += found.len();
            files.push(path);
        } else if found.is_dir() {
            looked += 1;
            let mut below: Vec<PathBuf> =
                crate::folder::entries(&path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            below.sort();
            folders.extend(below.into_iter().rev());
        }
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_small_files_are_tried() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..40 {
            fs::write(folder.path().join(format!("{number:02}")), "x").unwrap();
        }
        fs::write(folder.path().join("00"), vec![0; 5 << 20]).unwrap();
        fs::write(folder.path().join("01"), "").unwrap();
        let files = small_files(&[folder.path().to_owned()]);
        assert_eq!(files.len(), FILES_MAX);
        assert_eq!(files[0], folder.path().join("02"));
    }
}
