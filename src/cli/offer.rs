//! Names that are offered at the prompt: vaults and sources of the configuration, and names from the snapshots of a vault
//! as this machine last saw them. If nothing is known, nothing is offered.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::ownfile;
use crate::ownfile::replace_private_file;
use crate::path::Shown;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use crate::vault::findings::KnownFinding;
use clap_complete::engine::CompletionCandidate;
use clap_complete::engine::PathCompleter;
use clap_complete::engine::ValueCompleter;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::Serialize;

use crate::cli::dates;

/// The file with remembered names in the state folder of a vault.
const FILE: &str = "names";
/// The number of newest snapshots remembered.
const REMEMBERED: usize = 500;

/// Questions about the line that is being typed.
pub struct Line {
    /// The state folder of the vault that it chooses.
    pub state: fn() -> Option<PathBuf>,
    /// Names of the sources in the configuration.
    pub sources: fn() -> Vec<String>,
    /// Names and places of the vaults in the configuration.
    pub vaults: fn() -> Vec<(String, String)>,
}

/// The line, if a shell asks about one.
static LINE: OnceLock<Line> = OnceLock::new();

/// Answers by this line from now on. Before, nothing is offered.
pub fn answer_by(line: Line) {
    let _ = LINE.set(line);
}

/// The answer to a question about the line.
fn on_the_line<T: Default>(question: impl FnOnce(&Line) -> fn() -> T) -> T {
    LINE.get().map(|line| question(line)()).unwrap_or_default()
}

/// The remembered names of a vault.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Names {
    /// The snapshots, the oldest first.
    #[serde(default)]
    snapshots: Vec<KnownSnapshot>,
    /// The ids and texts of findings.
    #[serde(default)]
    findings: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct KnownSnapshot {
    id: String,
    date: String,
    source: String,
    host: String,
    tags: Vec<String>,
}

impl Names {
    fn load(state: &Path) -> Self {
        ownfile::read(&state.join(FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Changes the remembered names, and saves them if they differ. A failure only means that the new names are not
    /// offered.
    fn change(state: &Path, change: impl FnOnce(&mut Self)) {
        let mut names = Self::load(state);
        let before = serde_json::to_vec(&names).unwrap_or_default();
        change(&mut names);
        let after = serde_json::to_vec(&names).unwrap_or_default();
        if before != after {
            let _ = replace_private_file(&state.join(FILE), &after);
        }
    }
}

/// Remembers the snapshots of a vault.
pub fn note_snapshots(vault: &Vault, snapshots: &[SnapshotInfo], zone: &TimeZone) {
    let newest = &snapshots[snapshots.len().saturating_sub(REMEMBERED)..];
    let known = |info: &SnapshotInfo| KnownSnapshot {
        id: info.id.short(),
        date: dates::shown(info.date, zone),
        source: info.body.source.clone(),
        host: info.body.host.clone(),
        tags: info.body.tags.clone(),
    };
    Names::change(vault.state(), |names| names.snapshots = newest.iter().map(known).collect());
}

/// Remembers the known findings of a vault.
pub fn note_findings(vault: &Vault, findings: &[KnownFinding]) {
    let known = findings.iter().map(|finding| (finding.id.to_string(), finding.text()));
    Names::change(vault.state(), |names| names.findings = known.collect());
}

fn names() -> Names {
    on_the_line(|line| line.state).map(|state| Names::load(&state)).unwrap_or_default()
}

/// The words that begin with the typed text, each once, in this order.
fn beginning(current: &OsStr, words: impl IntoIterator<Item = (String, Option<String>)>) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let mut seen = BTreeSet::new();
    let words = words.into_iter().filter(|(word, _)| !word.is_empty() && word.starts_with(&*typed));
    let words = words.filter(|(word, _)| seen.insert(word.clone())).enumerate();
    let candidate = |(order, (word, help)): (usize, (String, Option<String>))| {
        let help = help.map(|help| Shown(help.as_bytes()).to_string().into());
        CompletionCandidate::new(word).help(help).display_order(Some(order))
    };
    // A word that must be escaped for a terminal cannot be typed as it is shown.
    words.filter(|(_, (word, _))| Shown(word.as_bytes()).to_string() == *word).map(candidate).collect()
}

/// Snapshots, the newest first.
pub fn snapshots(current: &OsStr) -> Vec<CompletionCandidate> {
    let known = names().snapshots;
    let latest = known.last().map(|last| ("latest".to_owned(), Some(format!("{} {}", last.date, last.source))));
    let all = known.iter().rev().map(|info| (info.id.clone(), Some(format!("{} {}", info.date, info.source))));
    beginning(current, latest.into_iter().chain(all))
}

/// Ids of known findings.
pub fn findings(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning(current, names().findings.into_iter().map(|(id, text)| (id, Some(text))))
}

/// Tags of snapshots.
pub fn tags(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning(current, names().snapshots.into_iter().flat_map(|info| info.tags).map(|tag| (tag, None)))
}

/// Machines of snapshots.
pub fn hosts(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning(current, names().snapshots.into_iter().rev().map(|info| (info.host, None)))
}

/// Sources of the configuration, by name.
pub fn configured_sources(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning(current, on_the_line(|line| line.sources).into_iter().map(|name| (name, None)))
}

/// Sources of the configuration and of snapshots.
pub fn sources(current: &OsStr) -> Vec<CompletionCandidate> {
    let of_snapshots = names().snapshots.into_iter().rev().map(|info| info.source);
    beginning(current, on_the_line(|line| line.sources).into_iter().chain(of_snapshots).map(|name| (name, None)))
}

/// Vaults of the configuration, and folders.
pub fn repos(current: &OsStr) -> Vec<CompletionCandidate> {
    let vaults = on_the_line(|line| line.vaults).into_iter().map(|(name, place)| (name, Some(place)));
    let mut found = beginning(current, vaults);
    found.extend(PathCompleter::dir().complete(current));
    found
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;

    use super::*;

    #[test]
    fn what_begins_alike_is_offered_once_and_nothing_that_cannot_be_typed() {
        let words = ["docs", "dots", "docs", "", "do\x1b", "pics"].map(|word| (word.to_owned(), None));
        let found: Vec<OsString> =
            beginning(OsStr::new("do"), words).iter().map(|found| found.get_value().into()).collect();
        assert_eq!(found, ["docs", "dots"]);
    }

    #[test]
    fn what_is_remembered_changes_only_with_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        Names::change(folder.path(), |_| {});
        assert!(!path.exists());
        let change =
            || Names::change(folder.path(), |names| names.findings = vec![("1a".to_owned(), "bad".to_owned())]);
        change();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        change();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
        assert_eq!(Names::load(folder.path()).findings.len(), 1);
        fs::write(&path, "rubbish").unwrap();
        assert_eq!(Names::load(folder.path()), Names::default());
    }
}
