//! The size of sources before they are read: measured to show it or to order the sources, and counted during a first
//! snapshot, so that its progress bar has an end. Later snapshots need no counting, because they expect the size of the
//! one before.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::engine::patterns::exclude::{ExcludeOptions, Rules};
use crate::engine::snapshot::walk::IGNORE_FILE_MAX;
use crate::fs::Dir;
use crate::progress::Counters;
use crate::service::machine::Machine;
use crate::service::roots::bytes_of;
use crate::sync::try_spawn;
use crate::vault::Vault;

/// The total size of the files below these paths, and whether it is complete. After `time`, the measurement stops, and
/// the size so far is returned. It opens no files.
pub fn measure(paths: &[PathBuf], time: Duration, machine: &dyn Machine) -> (u64, bool) {
    let begun = machine.elapsed();
    let mut todo = paths.to_vec();
    let mut bytes = 0_u64;
    while let Some(path) = todo.pop() {
        if machine.elapsed().saturating_sub(begun) > time {
            return (bytes, false);
        }
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            todo.extend(crate::folder::entries(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if found.is_file() {
            bytes = bytes.saturating_add(found.len());
        }
    }
    (bytes, true)
}

/// Whether this machine has no snapshot of a source yet, so that the source's size is unknown.
pub fn is_first(vault: &Vault, source: &str) -> bool {
    let host = &vault.identity().host;
    !vault.snapshots().iter().any(|info| info.body.source == source && info.body.host == *host)
}

/// Does `work`. If `wanted`, it meanwhile counts the files below `roots`, and makes the result the goal of the counters
/// if they have no goal by then.
pub fn count_beside<R>(
    counters: &Counters,
    wanted: bool,
    roots: &[PathBuf],
    exclude: &ExcludeOptions,
    work: impl FnOnce() -> R,
) -> R {
    if !wanted || roots.is_empty() {
        return work();
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // If no thread can be started, nothing is counted.
        let _ = try_spawn(scope, || {
            let mut count = Count { exclude, over: &over, files: 0, bytes: 0 };
            let is_whole = roots.iter().all(|root| count.root(root).is_some());
            if is_whole && counters.files_goal.load(Relaxed) == 0 && counters.bytes_goal.load(Relaxed) == 0 {
                counters.files_goal.store(count.files, Relaxed);
                counters.bytes_goal.store(count.bytes, Relaxed);
            }
        });
        let _ends = Ends(&over);
        work()
    })
}

/// Ends the count when it is dropped, so also if the work panics.
struct Ends<'o>(&'o AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

struct Count<'c> {
    exclude: &'c ExcludeOptions,
    /// Whether the work is over, so that the count is no longer needed.
    over: &'c AtomicBool,
    files: u64,
    bytes: u64,
}

/// A folder to be counted: its path, its path below the root, and the rules above it.
struct Folder {
    path: PathBuf,
    below: Vec<u8>,
    rules: Rules,
}

impl Count<'_> {
    /// Counts a root; `None` if the count was given up.
    fn root(&mut self, root: &Path) -> Option<()> {
        let found = fs::symlink_metadata(root).ok()?;
        if !found.is_dir() {
            self.add(&found);
            return Some(());
        }
        let rules = Rules::new(&self.exclude.patterns, root).ok()?;
        let mut folders = vec![Folder { path: root.to_owned(), below: Vec::new(), rules }];
        while let Some(folder) = folders.pop() {
            if self.over.load(Relaxed) {
                return None;
            }
            self.folder(folder, &found, &mut folders);
        }
        Some(())
    }

    fn folder(&mut self, mut folder: Folder, root: &Metadata, folders: &mut Vec<Folder>) {
        let Ok(dir) = Dir::open(&folder.path) else { return };
        // A folder's content may be excluded because of a file in it.
        if (self.exclude.caches && dir.is_cachedir_tagged())
            || self.exclude.if_present.iter().any(|name| dir.may_contain(name))
        {
            return;
        }
        if let Some(name) = &self.exclude.ignore_file
            && let Ok(Some(content)) = dir.read_small(name, IGNORE_FILE_MAX)
            && let Ok(rules) = folder.rules.with_file(&content, &folder.below)
        {
            folder.rules = rules;
        }
        for entry in crate::folder::entries(&folder.path).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            let name = bytes_of(&entry.file_name());
            let below = if folder.below.is_empty() { name } else { [&folder.below[..], b"/", &name].concat() };
            if folder.rules.exclude(&below, found.is_dir()) {
                continue;
            }
            if !found.is_dir() {
                self.add(&found);
            } else if !(self.exclude.one_file_system && is_elsewhere(&found, root)) {
                folders.push(Folder { path: entry.path(), below, rules: folder.rules.clone() });
            }
        }
    }

    fn add(&mut self, found: &Metadata) {
        let len = if found.is_file() { found.len() } else { 0 };
        if self.exclude.larger_than.is_none_or(|limit| len <= limit) {
            self.files += 1;
            self.bytes += len;
        }
    }
}

#[cfg(unix)]
fn is_elsewhere(found: &Metadata, root: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    found.dev() != root.dev()
}

#[cfg(not(unix))]
fn is_elsewhere(_: &Metadata, _: &Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::machine::tests::{Still, ticking};

    #[test]
    fn folders_are_measured() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), vec![0; 1000]).unwrap();
        fs::write(folder.path().join("d"), vec![0; 24]).unwrap();
        assert_eq!(measure(&[folder.path().to_owned()], Duration::from_secs(60), &Still(&[])), (1024, true));
        assert_eq!(measure(&[folder.path().join("d")], Duration::from_secs(60), &Still(&[])), (24, true));
        let is_all = measure(&[folder.path().to_owned()], Duration::from_secs(2), &ticking()).1;
        assert!(!is_all, "the time was over");
    }

    #[test]
    fn what_is_left_out_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a/b", "cache", "no", "rules"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for (name, len) in [
            ("a/b/one", 1000),
            ("a/two", 24),
            ("a/x.tmp", 7),
            ("cache/x", 7),
            ("no/x", 7),
            ("rules/x.o", 7),
            ("big", 5000),
        ] {
            fs::write(at(name), vec![0; len]).unwrap();
        }
        fs::write(at("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
        fs::write(at("no/.nobackup"), "").unwrap();
        fs::write(at("rules/.vaultignore"), "*.o\n").unwrap();
        let exclude = ExcludeOptions {
            patterns: vec!["*.tmp".to_owned()],
            ignore_file: Some(b".vaultignore".to_vec()),
            caches: true,
            if_present: vec![b".nobackup".to_vec()],
            larger_than: Some(4000),
            ..ExcludeOptions::default()
        };
        let counted = |wanted: bool, goal: u64| {
            let counters = Counters::default();
            counters.bytes_goal.store(goal, Relaxed);
            count_beside(&counters, wanted, &[folder.path().to_owned()], &exclude, || {
                // The work goes on until the goal is set, as a large snapshot would.
                for _ in 0..1000 {
                    if !wanted || counters.files_goal.load(Relaxed) > 0 || goal > 0 {
                        break;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            });
            (counters.files_goal.load(Relaxed), counters.bytes_goal.load(Relaxed))
        };
        assert_eq!(counted(true, 0), (3, 1024 + 4), "two files, and the file of patterns");
        assert_eq!(counted(false, 0), (0, 0));
        assert_eq!(counted(true, 7), (0, 7), "what is expected already stays");
    }

    /// A pipe in the place of a pattern file or tag does not block the count.
    #[cfg(unix)]
    #[test]
    fn pipes_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".vaultignore", "CACHEDIR.TAG"] {
            let made = std::process::Command::new("mkfifo").arg(folder.path().join(name)).status().unwrap();
            assert!(made.success());
        }
        let exclude =
            ExcludeOptions { ignore_file: Some(b".vaultignore".to_vec()), caches: true, ..ExcludeOptions::default() };
        let counters = Counters::default();
        count_beside(&counters, true, &[folder.path().to_owned()], &exclude, || {
            for _ in 0..1000 {
                if counters.files_goal.load(Relaxed) > 0 {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        assert_eq!(counters.files_goal.load(Relaxed), 2);
    }
}
