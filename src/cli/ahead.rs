//! How much a first snapshot will find, counted beside it, so that its bar has an end.
//!
//! Later snapshots need no counting: they expect what the one before found.

use std::fs;
use std::fs::Metadata;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use vault::engine::exclude::ExcludeOptions;
use vault::engine::exclude::Rules;
use vault::progress::Counters;

use crate::cli::roots::bytes_of;

/// What marks a folder of caches begins so.
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Does `work`. Beside it, counts what is below `roots`, and gives that to the counters as the goal if they have none by then.
/// Where nothing is drawn (`draws`), nothing is counted.
pub fn count_beside<R>(
    counters: &Counters,
    draws: bool,
    roots: &[PathBuf],
    exclude: &ExcludeOptions,
    work: impl FnOnce() -> R,
) -> R {
    if !draws || roots.is_empty() {
        return work();
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut count = Count { exclude, over: &over, files: 0, bytes: 0 };
            let is_whole = roots.iter().all(|root| count.root(root).is_some());
            if is_whole && counters.files_goal.load(Relaxed) == 0 && counters.bytes_goal.load(Relaxed) == 0 {
                counters.files_goal.store(count.files, Relaxed);
                counters.bytes_goal.store(count.bytes, Relaxed);
            }
        });
        let done = work();
        over.store(true, Relaxed);
        done
    })
}

struct Count<'c> {
    exclude: &'c ExcludeOptions,
    /// The work is over: nobody needs the count any more.
    over: &'c AtomicBool,
    files: u64,
    bytes: u64,
}

/// A folder that is still to be counted: where it lies, its path below the root, and the rules above it.
struct Folder {
    path: PathBuf,
    below: Vec<u8>,
    rules: Rules,
}

impl Count<'_> {
    /// Counts a root; `None` if that was given up.
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
        if self.is_marked(&folder.path) {
            return;
        }
        if let Some(name) = &self.exclude.ignore_file
            && let Ok(content) = fs::read(folder.path.join(crate::cli::roots::path_of(name)))
            && let Ok(rules) = folder.rules.with_file(&content, &folder.below)
        {
            folder.rules = rules;
        }
        for entry in fs::read_dir(&folder.path).into_iter().flatten().flatten() {
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

    /// Whether the content of a folder is left out because of something that lies in it.
    fn is_marked(&self, path: &Path) -> bool {
        let is_cache = || fs::read(path.join("CACHEDIR.TAG")).is_ok_and(|content| content.starts_with(CACHE_TAG));
        let has = |name: &Vec<u8>| path.join(crate::cli::roots::path_of(name)).symlink_metadata().is_ok();
        (self.exclude.caches && is_cache()) || self.exclude.if_present.iter().any(has)
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
        fs::write(at("cache/CACHEDIR.TAG"), CACHE_TAG).unwrap();
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
        let counted = |draws: bool, goal: u64| {
            let counters = Counters::default();
            counters.bytes_goal.store(goal, Relaxed);
            count_beside(&counters, draws, &[folder.path().to_owned()], &exclude, || {
                // The work goes on until the goal is there, as that of a large snapshot does.
                for _ in 0..1000 {
                    if !draws || counters.files_goal.load(Relaxed) > 0 || goal > 0 {
                        break;
                    }
                    thread::sleep(std::time::Duration::from_millis(10));
                }
            });
            (counters.files_goal.load(Relaxed), counters.bytes_goal.load(Relaxed))
        };
        assert_eq!(counted(true, 0), (3, 1024 + 4), "two files, and the file of patterns");
        assert_eq!(counted(false, 0), (0, 0));
        assert_eq!(counted(true, 7), (0, 7), "what is expected already stays");
    }
}
