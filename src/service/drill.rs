//! Restore drills: they restore a sample to see that it works, and each machine remembers its last drill of each vault.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::check::drill::{self, DrillOptions, DrillReport};
use crate::failure::Failure;
use crate::json::{Name, time_text};
use crate::ownfile::replace_private_file;
use crate::progress::{Progress, plain};
use crate::seal::random_array;
use crate::service::machine::Machine;
use crate::service::select::Filter;
use crate::service::temporary::Temporary;
use crate::tree::Time;
use crate::vault::{SnapshotInfo, Vault};

/// The default number of files per source in a drill.
pub const FILES: u16 = 50;
/// The default maximum length of a file in a drill, in bytes.
pub const LEN_MAX: u64 = 1 << 30;
/// The number of files per source in a drill by a run. It is smaller, because runs make drills often.
pub const FILES_OF_RUN: u16 = 20;
/// The maximum length of a file in a drill by a run, in bytes.
pub const LEN_MAX_OF_RUN: u64 = 64 << 20;
/// The record of the last drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When the drill was made, in seconds since 1970.
    pub secs: i64,
    /// The number of files restored.
    pub files: u64,
    /// The total size of these files in bytes.
    pub bytes: u64,
    /// The number of files that did not come back as they were.
    pub failed: u64,
}

impl Last {
    /// Loads the record of a vault's last drill on this machine, if there is one.
    pub fn load(vault: &Vault) -> Option<Self> {
        Self::in_folder(vault.state())
    }

    /// Saves the record in the folder of the vault's state.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, state: &Path) -> std::io::Result<()> {
        replace_private_file(&state.join("drill"), &serde_json::to_vec(self)?)
    }

    /// Loads the record from the folder of a vault's state.
    pub fn in_folder(state: &Path) -> Option<Self> {
        let last: Self = serde_json::from_slice(&crate::ownfile::read(&state.join("drill")).ok()?).ok()?;
        last.says_anything().then_some(last)
    }

    /// Whether anything was tried. If not, it proves nothing.
    const fn says_anything(&self) -> bool {
        self.files > 0 || self.failed > 0
    }

    /// Whether another drill is due. It also is if the clock was set back.
    pub fn is_due(last: Option<&Self>, every: Duration, now: i64) -> bool {
        last.is_none_or(|last| u64::try_from(now - last.secs).map_or(true, |age| age >= every.as_secs()))
    }

    /// When the drill was made.
    pub const fn time(&self) -> Time {
        Time { secs: self.secs, nanos: 0 }
    }
}

#[derive(Serialize)]
struct FailedJson<'a> {
    path: Name<'a>,
    what: &'a str,
}

/// A drill, as `--json` prints it.
#[derive(Serialize)]
pub struct DrillJson<'a> {
    time: String,
    snapshots: Vec<String>,
    files: u64,
    bytes: u64,
    verified: u64,
    compared: u64,
    broken: u64,
    newer: u64,
    late: u64,
    failed: u64,
    failures: Vec<FailedJson<'a>>,
}

/// The options of a drill.
pub struct Wish<'a> {
    /// The number of files per source.
    pub files: u16,
    /// The maximum length of a file in bytes.
    pub len_max: u64,
    /// The filter for snapshots.
    pub filter: &'a Filter,
}

/// Restores a sample of the last snapshot of each source that counts, and records the result, if anything was tried.
pub fn perform(
    vault: &Vault,
    wish: &Wish<'_>,
    threads: usize,
    machine: &dyn Machine,
    progress: &dyn Progress,
) -> Result<(Vec<SnapshotInfo>, DrillReport), Failure> {
    let all = vault.snapshots();
    let mut last: Vec<&SnapshotInfo> = Vec::new();
    // A snapshot with a root that was not mounted proves nothing where there is another one.
    let (lost, whole): (Vec<_>, Vec<_>) =
        all.iter().rev().filter(|info| wish.filter.matches(info)).partition(|info| info.has_lost_root());
    for info in whole.into_iter().chain(lost) {
        if !last.iter().any(|other| other.body.source == info.body.source && other.body.host == info.body.host) {
            last.push(info);
        }
    }
    if last.is_empty() {
        return Err(Failure::new("there is no snapshot to try").hint("See which there are with: vault list"));
    }
    let within = machine.temporary();
    let scratch = Temporary::new(&within, None, None)
        .map_err(|error| Failure::caused(format!("cannot make a scratch folder in {}", within.display()), &error))?;
    let seed = random_array().map_err(|error| Failure::caused("the system has no random numbers", &error))?;
    let options = DrillOptions {
        files: usize::from(wish.files),
        len_max: wish.len_max,
        scratch: scratch.path().to_owned(),
        seed: u64::from_le_bytes(seed),
        threads,
    };
    let report = drill::drill(vault, &last, &options, progress)?;
    let kept = Last {
        secs: machine.now().secs,
        files: report.files,
        bytes: report.bytes,
        failed: report.failed.len() as u64 + report.broken,
    };
    if kept.says_anything()
        && let Err(error) = kept.save(vault.state())
    {
        progress.warn(&format!("it cannot be remembered what came of this: {}", plain(&error)));
    }
    Ok((last.into_iter().cloned().collect(), report))
}

impl<'a> DrillJson<'a> {
    /// The result of a drill at this time.
    pub fn new(snapshots: &[SnapshotInfo], report: &'a DrillReport, now: Time) -> Self {
        Self {
            time: time_text(now),
            snapshots: snapshots.iter().map(|info| info.id.to_string()).collect(),
            files: report.files,
            bytes: report.bytes,
            verified: report.verified,
            compared: report.compared,
            broken: report.broken,
            newer: report.newer,
            late: report.late,
            failed: report.failed.len() as u64,
            failures: report.failed.iter().map(|one| FailedJson { path: Name(&one.path), what: &one.what }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_due_when_the_last_one_is_old_enough() {
        let (last, day) = (Last { secs: 1000, files: 1, bytes: 1, failed: 0 }, Duration::from_secs(86_400));
        assert!(Last::is_due(None, day, 1000));
        assert!(!Last::is_due(Some(&last), day, 1000 + 86_399));
        assert!(Last::is_due(Some(&last), day, 1000 + 86_400));
        assert!(Last::is_due(Some(&last), day, 999), "the clock was set back");
    }
}
