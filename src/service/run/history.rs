//! The reports that earlier runs left, as `--json` printed them. `folder` is always the folder that holds the records
//! of runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::ownfile;
use crate::service::report::Report;
use crate::service::run::now;
use crate::tree::Time;

/// The number of reports kept.
const REPORTS_KEPT: usize = 200;
/// The number of log lines returned at once.
const LINES: usize = 200;

/// Keeps the report of a run, and deletes the oldest ones beyond [`REPORTS_KEPT`].
pub(super) fn keep(folder: &Path, report: &Report, begun: Time, ended: Time) -> io::Result<()> {
    let path = path(folder, &now::name(begun));
    let folder = folder.join("reports");
    crate::ownfile::make_private_folder(&folder)?;
    crate::ownfile::replace_private_file(&path, &serde_json::to_vec(&report.json(begun, ended))?)?;
    let kept = all(&folder);
    let surplus = kept.len().saturating_sub(REPORTS_KEPT);
    kept.iter().take(surplus).try_for_each(fs::remove_file)
}

fn path(folder: &Path, run: &str) -> PathBuf {
    folder.join("reports").join(format!("{run}.json"))
}

/// The reports in a folder, the oldest first.
fn all(folder: &Path) -> Vec<PathBuf> {
    let found = crate::folder::entries(folder).into_iter().flatten().filter_map(|found| Some(found.ok()?.path()));
    let mut reports: Vec<_> = found.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    reports.sort();
    reports
}

/// The report of a run, if it is still kept.
pub fn report(folder: &Path, run: &str) -> Option<Value> {
    serde_json::from_slice(&ownfile::read(&path(folder, run)).ok()?).ok()
}

/// The reports of earlier runs, as JSON.
#[derive(Debug, Serialize)]
pub struct RunsJson {
    /// Their reports, the newest first.
    runs: Vec<Value>,
}

/// The reports of earlier runs.
pub fn runs(folder: &Path) -> RunsJson {
    let kept = all(&folder.join("reports"));
    let read = |path: &PathBuf| serde_json::from_slice(&ownfile::read(path).ok()?).ok();
    RunsJson { runs: kept.iter().rev().filter_map(read).collect() }
}

/// The run that is going on, regardless of what started it.
#[derive(Debug, Serialize)]
pub struct RunningJson {
    /// Whether a run is going on.
    running: bool,
    /// The content of its `now.json`.
    now: Option<Value>,
    /// The last lines of its log.
    log: Vec<Value>,
}

/// The run that is going on, with the last lines of its log.
pub fn running(folder: &Path) -> RunningJson {
    let told = now::look(folder);
    let run = told.as_ref().and_then(|told| told["run"].as_str()).unwrap_or_default();
    let mut log = now::log_from(folder, run, 0).0;
    log.drain(..log.len().saturating_sub(LINES));
    RunningJson { running: told.is_some(), now: told, log }
}

/// Asks a run to stop, if it is still going on.
///
/// # Errors
/// If that run is not going on, or the request cannot be written.
pub fn stop(folder: &Path, run: &str) -> Result<(), Failure> {
    if now::look(folder).is_none_or(|told| told["run"] != run) {
        return Err(Failure::usage("this run goes on no more"));
    }
    now::ask_to_stop(folder, run)
}
