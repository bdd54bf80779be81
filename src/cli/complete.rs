//! Completion of names at the prompt: vaults and sources of the configuration, and names from the snapshots of a vault
//! as this machine last saw them. It asks for no password, reads no store and prints no message; if nothing is known,
//! it offers nothing.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io::Write;
use std::panic;
use std::path::Path;
use std::path::PathBuf;

use clap::CommandFactory;
use clap::Parser;
use clap_complete::CompleteEnv;
use clap_complete::Shell;
use clap_complete::engine::CompletionCandidate;
use clap_complete::engine::PathCompleter;
use clap_complete::engine::ValueCompleter;
use clap_complete::env::Shells;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::Serialize;
use vault::fs::replace_private_file;
use vault::ownfile;
use vault::path::Shown;
use vault::vault::SnapshotInfo;
use vault::vault::Vault;
use vault::vault::findings::KnownFinding;

use crate::cli::args::Cli;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Failure;

/// The variable by which a shell asks for completions. It holds the shell's name.
const VARIABLE: &str = "VAULT_COMPLETE";
/// The file with remembered names in the state folder of a vault.
const FILE: &str = "names";
/// The number of newest snapshots remembered.
const REMEMBERED: usize = 500;
/// The end of the script for zsh. If packages put the script into a folder of functions, zsh runs it for the first
/// completion, and that completion would only define the function.
const ZSH_FIRST: &[u8] = b"[[ ${funcstack[1]} != _vault ]] || ${_comps[vault]} \"$@\"\n";
/// The options that choose the vault or its state.
const CHOOSING: [&str; 4] = ["--repo", "--config", "--state", "--vault"];

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

/// Answers a shell that completes a command line, if one asks. On any failure it gets no answer.
pub fn answer(args: &[OsString]) -> bool {
    if env::var_os(VARIABLE).is_none_or(|shell| shell.is_empty() || shell == "0") {
        return false;
    }
    panic::set_hook(Box::new(|_| {}));
    let folder = env::current_dir().ok();
    let asked = || CompleteEnv::with_factory(Cli::command).var(VARIABLE).try_complete(args, folder.as_deref());
    // An error would be shown in the middle of the line that is being typed.
    let _ = panic::catch_unwind(asked);
    true
}

/// The script by which a shell asks this program for completions.
pub fn script(shell: Shell) -> Result<Vec<u8>, Failure> {
    let (name, mut script) = (shell.to_string(), Vec::new());
    let unknown = || Failure::usage(format!("{name} cannot ask while a line is typed")).hint("Leave --dynamic out.");
    let shells = Shells::builtins();
    let completer = shells.completer(&name).ok_or_else(unknown)?;
    let written = completer.write_registration(VARIABLE, "vault", "vault", "vault", &mut script);
    written.map_err(|error| Failure::output(&error))?;
    if shell == Shell::Zsh {
        script.extend_from_slice(ZSH_FIRST);
    }
    script.flush().map_err(|error| Failure::output(&error))?;
    Ok(script)
}

/// The words that are being completed.
fn words() -> Vec<OsString> {
    env::args_os().skip_while(|word| word != "--").skip(1).collect()
}

/// The context of the options that are already on the line.
fn context() -> Option<Context> {
    let mut line: Vec<OsString> = ["vault", "--quiet", "--no-progress"].map(OsString::from).to_vec();
    let mut words = words().into_iter().peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let name = if text == "-r" { "--repo" } else { text.split('=').next().unwrap_or_default() };
        if !CHOOSING.contains(&name) {
            continue;
        }
        match text.split_once('=') {
            Some(_) => line.push(word),
            None if words.peek().is_some() => {
                line.push(name.into());
                line.extend(words.next());
            }
            None => {}
        }
    }
    // If an option on the line is still incomplete, the options are ignored.
    let cli = Cli::try_parse_from(&line).or_else(|_| Cli::try_parse_from(&line[..3])).ok()?;
    Some(Context::new(cli.global))
}

fn names() -> Names {
    let state = || -> Option<PathBuf> {
        let context = context()?;
        let id = context.known_in(&context.chosen().ok()?.place)?;
        Some(context.state_folder().ok()?.join(id.to_string()))
    };
    state().map(|state| Names::load(&state)).unwrap_or_default()
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

/// Sources of the configuration.
fn configured() -> Vec<String> {
    let context = context();
    let config = context.as_ref().and_then(|context| context.config().ok().flatten());
    config.map(|config| config.sources.iter().map(|source| source.name.clone()).collect()).unwrap_or_default()
}

/// Sources of the configuration, by name.
pub fn configured_sources(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning(current, configured().into_iter().map(|name| (name, None)))
}

/// Sources of the configuration and of snapshots.
pub fn sources(current: &OsStr) -> Vec<CompletionCandidate> {
    let of_snapshots = names().snapshots.into_iter().rev().map(|info| info.source);
    beginning(current, configured().into_iter().chain(of_snapshots).map(|name| (name, None)))
}

/// Vaults of the configuration, and folders.
pub fn repos(current: &OsStr) -> Vec<CompletionCandidate> {
    let context = context();
    let config = context.as_ref().and_then(|context| context.config().ok().flatten());
    let vaults = config.into_iter().flat_map(|config| &config.vaults);
    let named = vaults.map(|vault| (vault.name.clone(), Some(vault.place.to_string())));
    let mut found = beginning(current, named);
    found.extend(PathCompleter::dir().complete(current));
    found
}

#[cfg(test)]
mod tests {
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
