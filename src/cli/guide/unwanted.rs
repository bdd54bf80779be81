//! What of the chosen folders is usually not wanted: how much it is, and whether it is to be left out.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use vault::engine::exclude::Rules;
use vault::path::join;

use crate::cli::error::Failure;
use crate::cli::guide::Step;
use crate::cli::guide::TRIES;
use crate::cli::guide::answer;
use crate::cli::guide::explained;
use crate::cli::guide::gave_up;
use crate::cli::guide::places;
use crate::cli::note;
use crate::cli::roots::bytes_of;
use crate::cli::units;
use crate::cli::usual::USUAL;

/// How long all that was chosen is measured.
const MEASURE_ALL: Duration = Duration::from_secs(3);
/// Bytes in a second that a usual computer stores in a first snapshot on a usual disk, at least.
const USUAL_SPEED: u64 = 60 << 20;
/// So many of the largest are shown.
const SHOWN: usize = 5;

const ABOUT: &str = "\
These are caches, trash and indexes, what compilers and package managers fetch
again, and what programs hold while they work. Nothing among them is made by a
person. They change all the time, so they would cost time and space in each
backup. All patterns are listed under exclude-usual in docs/backup.md. It can be
changed at any time: exclude-usual in the configuration.";

/// What was found below some folders.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Bytes of all files.
    bytes: u64,
    /// What is usually not wanted, and how many bytes it holds.
    unwanted: Vec<(PathBuf, u64)>,
    /// Whether that is all: the time was long enough.
    is_all: bool,
}

/// A folder that is still to be looked through.
struct Folder {
    path: PathBuf,
    /// Its path below the root.
    below: Vec<u8>,
    /// What it is a part of, if that is not wanted.
    part_of: Option<usize>,
}

/// Looks through folders for so long. Nothing is opened but folders.
fn look(roots: &[PathBuf], time: Duration) -> Found {
    let begun = Instant::now();
    let patterns: Vec<String> = USUAL.iter().map(|pattern| (*pattern).to_owned()).collect();
    let mut found = Found::default();
    for root in roots {
        let Ok(rules) = Rules::new(&patterns, root) else { continue };
        if let Ok(only) = fs::symlink_metadata(root).map(|only| if only.is_file() { only.len() } else { 0 }) {
            found.bytes = found.bytes.saturating_add(only);
        }
        let mut folders = vec![Folder { path: root.clone(), below: Vec::new(), part_of: None }];
        while let Some(folder) = folders.pop() {
            if begun.elapsed() > time {
                return found;
            }
            for entry in vault::folder::entries(&folder.path).into_iter().flatten().flatten() {
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

/// A size, which may be more where not all was looked through.
fn size(bytes: u64, is_all: bool) -> String {
    format!("{}{}", if is_all { "" } else { "more than " }, units::size(bytes))
}

/// How long a first backup of so much may take.
fn time(bytes: u64, is_all: bool) -> String {
    let minutes = (bytes / USUAL_SPEED).div_ceil(60).max(1);
    if minutes == 1 && is_all {
        return "about a minute or less".to_owned();
    }
    format!("{}about {}", if is_all { "" } else { "more than " }, units::about(Duration::from_secs(minutes * 60)))
}

/// Says how much was chosen and how long that may take, and asks whether what is usually not wanted is to be left out.
pub fn ask(sources: &[PathBuf], home: Option<&Path>) -> Result<Step<bool>, Failure> {
    let mut found = look(sources, MEASURE_ALL);
    let all = size(found.bytes, found.is_all);
    let unwanted = found.unwanted.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if unwanted == 0 && found.is_all {
        note(&format!("Together {all}. On a usual disk the first backup takes {}.", time(found.bytes, true)));
        return Ok(Step::Answer(false));
    }
    let part = size(unwanted, found.is_all);
    note(&format!("Together {all}. Of that, {part} is usually not wanted: caches,\ntrash, what programs make again."));
    found.unwanted.sort_by(|(one, a), (other, b)| b.cmp(a).then_with(|| one.cmp(other)));
    for (path, bytes) in found.unwanted.iter().take(SHOWN) {
        note(&format!("  {}  ({})", places::short(path, home), units::size(*bytes)));
    }
    if let Some(more) = found.unwanted.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        note(&format!("  and {} more", units::count(more as u64)));
    }
    for _ in 0..TRIES {
        let text = answer("Leave that out, and all of that kind later? [Y/n] ")?;
        if explained(&text, ABOUT) {
            continue;
        }
        let leaves_out = match text.to_lowercase().as_str() {
            "back" => return Ok(Step::Back),
            "" | "y" | "yes" => true,
            "n" | "no" => false,
            _ => {
                note("Please answer y (yes) or n (no).");
                continue;
            }
        };
        let bytes = if leaves_out { found.bytes - unwanted } else { found.bytes };
        let (size, time) = (size(bytes, found.is_all), time(bytes, found.is_all));
        note(&format!("That makes {size}.\nOn a usual disk the first backup takes {time}."));
        return Ok(Step::Answer(leaves_out));
    }
    Err(gave_up("what is to be left out"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut found = look(&[folder.path().to_owned()], Duration::from_secs(600));
        found.unwanted.sort();
        let unwanted = vec![(at(".cache"), 1024), (at("docs/Thumbs.db"), 7)];
        assert_eq!(found, Found { bytes: 1047, unwanted, is_all: true });
        // What was named is wanted, whatever it is called; a file may be named as well.
        let named = look(&[at(".cache"), at("docs/letter")], Duration::from_secs(600));
        assert_eq!(named, Found { bytes: 1029, unwanted: Vec::new(), is_all: true });
        assert!(!look(&[folder.path().to_owned()], Duration::ZERO).is_all);
    }

    #[test]
    fn times_are_those_of_a_usual_disk() {
        assert_eq!(time(0, true), "about a minute or less");
        assert_eq!(time(0, false), "more than about 1 min");
        assert_eq!(time(USUAL_SPEED * 600, true), "about 10 min");
    }
}
