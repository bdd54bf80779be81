//! The parts of some folders that are usually excluded, and their sizes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::patterns::exclude::Rules;
use crate::path::join;
use crate::service::machine::Machine;
use crate::service::roots::bytes_of;
use crate::service::usual::USUAL;

/// The time limit for measuring all chosen folders.
const MEASURE_ALL: Duration = Duration::from_secs(3);
/// The minimum number of bytes per second that a usual computer stores in a first snapshot on a usual disk.
const USUAL_SPEED: u64 = 60 << 20;
/// The result of looking through some folders.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The total size of all files in bytes.
    pub bytes: u64,
    /// The files and folders that are usually excluded, each with its size in bytes.
    pub unwanted: Vec<(PathBuf, u64)>,
    /// Whether the time was long enough to see everything.
    pub is_all: bool,
}

/// A folder to be looked through.
struct Folder {
    path: PathBuf,
    /// Its path below the root.
    below: Vec<u8>,
    /// The index in [`Found::unwanted`] of the excluded folder that it is a part of, if any.
    part_of: Option<usize>,
}

/// Looks through folders for a few seconds. It opens no files.
pub fn look(roots: &[PathBuf], machine: &dyn Machine) -> Found {
    look_for(roots, MEASURE_ALL, machine)
}

fn look_for(roots: &[PathBuf], time: Duration, machine: &dyn Machine) -> Found {
    let begun = machine.elapsed();
    let patterns: Vec<String> = USUAL.iter().map(|pattern| (*pattern).to_owned()).collect();
    let mut found = Found::default();
    for root in roots {
        let Ok(rules) = Rules::new(&patterns, root) else { continue };
        if let Ok(only) = fs::symlink_metadata(root).map(|only| if only.is_file() { only.len() } else { 0 }) {
            found.bytes = found.bytes.saturating_add(only);
        }
        let mut folders = vec![Folder { path: root.clone(), below: Vec::new(), part_of: None }];
        while let Some(folder) = folders.pop() {
            if machine.elapsed().saturating_sub(begun) > time {
                return found;
            }
            for entry in crate::folder::entries(&folder.path).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                let below = join(&folder.below, &bytes_of(&entry.file_name()));
                let part_of = folder.part_of.or_else(|| {
                    rules.exclude(&below, metadata.is_dir()).then(|| {
                        found.unwanted.push((entry.path(), 0));
                        found.unwanted.len() - 1
                    })
                });
                if metadata.is_dir() {
                    folders.push(Folder { path: entry.path(), below, part_of });
                } else if metadata.is_file() {
                    found.bytes = found.bytes.saturating_add(metadata.len());
                    if let Some((_, bytes)) = part_of.and_then(|at| found.unwanted.get_mut(at)) {
                        *bytes = bytes.saturating_add(metadata.len());
                    }
                }
            }
        }
    }
    found.is_all = true;
    found
}

impl Found {
    /// The size in bytes of everything that is usually excluded.
    pub fn unwanted_bytes(&self) -> u64 {
        self.unwanted.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// The estimated minutes for a first snapshot of this many bytes on a usual disk.
pub fn minutes(bytes: u64) -> u64 {
    (bytes / USUAL_SPEED).div_ceil(60).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::machine::tests::{Still, ticking};

    #[test]
    fn what_is_usually_not_wanted_is_told_from_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, len) in
            [(".cache/a/b", 1000), (".cache/c", 24), ("docs/letter", 5), ("docs/Thumbs.db", 7), ("docs/cache", 11)]
        {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), vec![0; len]).unwrap();
        }
        let mut found = look(&[folder.path().to_owned()], &Still(&[]));
        found.unwanted.sort();
        let unwanted = vec![(at(".cache"), 1024), (at("docs/Thumbs.db"), 7)];
        assert_eq!(found, Found { bytes: 1047, unwanted, is_all: true });
        // A named folder is wanted whatever its name; a single file may be named, too.
        let named = look(&[at(".cache"), at("docs/letter")], &Still(&[]));
        assert_eq!(named, Found { bytes: 1029, unwanted: Vec::new(), is_all: true });
        let slow = ticking();
        assert!(!look_for(&[folder.path().to_owned()], Duration::from_secs(1), &slow).is_all);
    }

    #[test]
    fn a_first_snapshot_takes_a_minute_at_least() {
        assert_eq!([0, USUAL_SPEED * 600, USUAL_SPEED * 601].map(minutes), [1, 10, 11]);
    }
}
