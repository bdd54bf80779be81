//! `vault drill`: a restore of a sample, to see that it works.

use serde::Serialize;
use vault::engine::drill;
use vault::engine::drill::DrillOptions;
use vault::engine::drill::DrillReport;
use vault::json::Name;
use vault::path::called;
use vault::progress::Progress;
use vault::progress::plain;
use vault::seal::random_array;
use vault::service::drill::Last;
use vault::vault::SnapshotInfo;
use vault::vault::Vault;

use crate::cli::args::DrillArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::select::Filter;
use crate::cli::temporary::Temporary;
use crate::cli::units;

/// How many files of each source are tried, where nothing is said.
pub const FILES: u16 = 50;
/// How long the files that are tried may be, where nothing is said, in bytes.
pub const LEN_MAX: u64 = 1 << 30;
/// How many files of each source a run tries, and how long they may be: it does so often.
pub const FILES_OF_RUN: u16 = 20;
/// The same in bytes.
pub const LEN_MAX_OF_RUN: u64 = 64 << 20;
/// How many failures are shown.
const SHOWN: usize = 20;

#[derive(Serialize)]
struct FailedJson<'a> {
    path: Name<'a>,
    what: &'a str,
}

#[derive(Serialize)]
struct DrillJson<'a> {
    time: String,
    snapshots: Vec<String>,
    files: u64,
    bytes: u64,
    verified: u64,
    compared: u64,
    broken: u64,
    newer: u64,
    failed: u64,
    failures: Vec<FailedJson<'a>>,
}

/// What is tried.
pub struct Wish<'a> {
    /// How many files of each source.
    pub files: u16,
    /// How long they may be, in bytes.
    pub len_max: u64,
    /// Which snapshots.
    pub filter: &'a Filter,
}

/// Tries a restore of a sample of the last snapshot of each source, and remembers what came of it.
pub fn perform(
    context: &Context,
    vault: &Vault,
    wish: &Wish<'_>,
    progress: &dyn Progress,
) -> Result<(Vec<SnapshotInfo>, DrillReport), Failure> {
    let all = vault.snapshots();
    let mut last: Vec<&SnapshotInfo> = Vec::new();
    for info in all.iter().rev().filter(|info| wish.filter.matches(info)) {
        if !last.iter().any(|other| other.body.source == info.body.source && other.body.host == info.body.host) {
            last.push(info);
        }
    }
    if last.is_empty() {
        return Err(Failure::new("there is no snapshot to try").hint("See which there are with: vault list"));
    }
    let scratch =
        Temporary::new(None, None).map_err(|error| Failure::caused("cannot make a scratch folder", &error))?;
    let seed = random_array().map_err(|error| Failure::caused("the system has no random numbers", &error))?;
    let options = DrillOptions {
        files: usize::from(wish.files),
        len_max: wish.len_max,
        scratch: scratch.path().to_owned(),
        seed: u64::from_le_bytes(seed),
        threads: context.threads(),
    };
    let report = drill::drill(vault, &last, &options, progress)?;
    let kept = Last {
        secs: dates::now().secs,
        files: report.files,
        bytes: report.bytes,
        failed: report.failed.len() as u64 + report.broken,
    };
    if let Err(error) = kept.save(vault.state()) {
        progress.warn(&format!("it cannot be remembered what came of this: {}", plain(&error)));
    }
    Ok((last.into_iter().cloned().collect(), report))
}

fn json<'a>(snapshots: &[SnapshotInfo], report: &'a DrillReport) -> DrillJson<'a> {
    DrillJson {
        time: dates::exact(dates::now()),
        snapshots: snapshots.iter().map(|info| info.id.to_string()).collect(),
        files: report.files,
        bytes: report.bytes,
        verified: report.verified,
        compared: report.compared,
        broken: report.broken,
        newer: report.newer,
        failed: report.failed.len() as u64,
        failures: report.failed.iter().map(|one| FailedJson { path: Name(&one.path), what: &one.what }).collect(),
    }
}

/// What `--json` prints.
#[cfg(feature = "ui")]
pub fn told(context: &Context, vault: &Vault, progress: &dyn Progress) -> Result<serde_json::Value, Failure> {
    let filter = Filter::default();
    let wish = Wish { files: FILES, len_max: LEN_MAX, filter: &filter };
    let (snapshots, report) = perform(context, vault, &wish, progress)?;
    Ok(serde_json::json!(json(&snapshots, &report)))
}

/// Runs `vault drill`.
pub fn run(context: &Context, args: &DrillArgs) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    context.screen.watch_interrupts();
    let wish = Wish { files: args.files, len_max: args.max_size, filter: &(&args.filter).into() };
    let done = perform(context, &vault, &wish, &context.screen);
    context.screen.clear();
    let (snapshots, report) = done?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&json(&snapshots, &report))?;
    } else {
        tell(context, &report, &mut out)?;
    }
    out.finish()?;
    Ok(match (report.failed.is_empty() && report.broken == 0, report.newer) {
        (true, 0) => Exit::Done,
        (true, _) => Exit::Skipped,
        (false, _) => Exit::Damage,
    })
}

fn tell(context: &Context, report: &DrillReport, out: &mut Output) -> Result<(), Failure> {
    if !context.global.quiet {
        out.say(format_args!(
            "{} restored to a scratch folder, {}; {} read back and right, {} equal to the disk",
            units::counted(report.files, "file was", "files were"),
            units::size(report.bytes),
            units::count(report.verified),
            units::count(report.compared)
        ))?;
    }
    for one in report.failed.iter().take(SHOWN) {
        out.styled(Style::Warning, &format!("{}: {}", called(&one.path), one.what))?;
    }
    if report.broken > 0 {
        let many = units::counted(report.broken, "folder", "folders");
        out.styled(Style::Warning, &format!("{many} of the snapshots cannot be read"))?;
    }
    if report.newer > 0 {
        let many = units::counted(report.newer, "thing needs", "things need");
        out.styled(Style::Warning, &format!("{many} a newer version of vault"))?;
    }
    if report.failed.is_empty() && report.broken == 0 {
        if !context.global.quiet {
            out.styled(Style::Bold, "All of the sample came back as it was.")?;
        }
        return Ok(());
    }
    out.styled(Style::Bold, "Not all of the sample came back as it was.")?;
    out.say("  What is damaged, and what to do: vault check --read-data")
}
