//! The question whether to exclude the usual files from the chosen folders, with their size.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::service::guide::unwanted;

use crate::cli::error::Failure;
use crate::cli::guide::TRIES;
use crate::cli::guide::Turn;
use crate::cli::guide::answer;
use crate::cli::guide::explained;
use crate::cli::guide::gave_up;
use crate::cli::machine::Here;
use crate::cli::note;
use crate::cli::units;

/// The number of largest paths shown.
const SHOWN: usize = 5;

const ABOUT: &str = "\
These are caches, trash and indexes, what compilers and package managers fetch
again, and what programs hold while they work. Nothing among them is made by a
person. They change all the time, so they would cost time and space in each
backup. All patterns are listed under exclude-usual in docs/backup.md. It can be
changed at any time: exclude-usual in the configuration.";

/// A path in the form that is shown, with `~` for the home folder.
fn short(path: &Path, home: Option<&Path>) -> String {
    match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(below) if !below.as_os_str().is_empty() => format!("~/{}", below.display()),
        _ => path.display().to_string(),
    }
}

/// A size in words, as a minimum if not everything was looked through.
fn size(bytes: u64, is_all: bool) -> String {
    format!("{}{}", if is_all { "" } else { "more than " }, units::size(bytes))
}

/// The estimated time of a first backup of this size.
fn time(bytes: u64, is_all: bool) -> String {
    let minutes = unwanted::minutes(bytes);
    if minutes == 1 && is_all {
        return "about a minute or less".to_owned();
    }
    format!("{}about {}", if is_all { "" } else { "more than " }, units::about(Duration::from_secs(minutes * 60)))
}

/// Shows the size of the chosen folders and the estimated time, and asks whether to exclude the files that are usually
/// excluded.
pub fn ask(sources: &[PathBuf], home: Option<&Path>) -> Result<Turn<bool>, Failure> {
    let mut found = unwanted::look(sources, &Here);
    let all = size(found.bytes, found.is_all);
    let unwanted = found.unwanted_bytes();
    if unwanted == 0 && found.is_all {
        note(&format!("Together {all}. On a usual disk the first backup takes {}.", time(found.bytes, true)));
        return Ok(Turn::Answer(false));
    }
    let part = size(unwanted, found.is_all);
    note(&format!("Together {all}. Of that, {part} is usually not wanted: caches,\ntrash, what programs make again."));
    found.unwanted.sort_by(|(one, a), (other, b)| b.cmp(a).then_with(|| one.cmp(other)));
    for (path, bytes) in found.unwanted.iter().take(SHOWN) {
        note(&format!("  {}  ({})", short(path, home), units::size(*bytes)));
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
            "back" => return Ok(Turn::Back),
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
        return Ok(Turn::Answer(leaves_out));
    }
    Err(gave_up("what is to be left out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_a_usual_disk() {
        assert_eq!(time(0, true), "about a minute or less");
        assert_eq!(time(0, false), "more than about 1 min");
        assert_eq!(time((60 << 20) * 600, true), "about 10 min");
    }
}
