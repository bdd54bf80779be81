//! `vault check`.

use std::collections::HashMap;

use crate::engine::check;
use crate::engine::check::CheckOptions;
use crate::engine::check::CheckReport;
use crate::engine::check::Problem;
use crate::engine::check::hurt::HurtSnapshot;
use crate::engine::check::hurt::PATHS_KEPT;
use crate::id::ObjectName;
use crate::path::Shown;
#[cfg(feature = "ui")]
use crate::progress::Progress;
use crate::store::Delivery;
use crate::tree::Time;
use crate::vault::ObjectState;
use crate::vault::SnapshotInfo;
#[cfg(feature = "ui")]
use crate::vault::Vault;
use crate::vault::findings::About;
use serde::Serialize;

use crate::cli::accept;
use crate::cli::args::CheckArgs;
use crate::cli::companion;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::key;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::units;
use crate::json::FindingJson;
use crate::json::Name;
use crate::json::shown_path;

/// The number of paths shown of a hurt snapshot.
const PATHS_SHOWN: usize = 10;

/// A problem with an object.
#[derive(Serialize)]
pub(super) struct ProblemJson<'a> {
    object: String,
    what: &'a str,
    /// `damaged`, `missing`, `newer`, `not arrived`.
    state: &'static str,
    newer: bool,
}

impl<'a> ProblemJson<'a> {
    /// The JSON form of a problem.
    pub(super) fn new(problem: &'a Problem) -> Self {
        let newer = problem.state == ObjectState::Newer;
        Self { object: problem.subject.to_string(), what: &problem.what, state: problem.state.word(), newer }
    }
}

/// The files that a snapshot has lost.
#[derive(Serialize)]
pub(super) struct HurtJson<'a> {
    snapshot: String,
    count: u64,
    /// The first lost paths.
    paths: Vec<Name<'a>>,
}

impl<'a> HurtJson<'a> {
    /// The JSON form of a hurt snapshot.
    pub(super) fn new(hurt: &'a HurtSnapshot) -> Self {
        let paths = hurt.files.iter().take(PATHS_KEPT).map(|file| Name(shown_path(&file.path))).collect();
        Self { snapshot: hurt.id.to_string(), count: hurt.count, paths }
    }
}

#[derive(Serialize)]
struct CheckJson<'a> {
    damaged: bool,
    snapshots: u64,
    folders: u64,
    files: u64,
    packs: u64,
    bytes: u64,
    packs_read: u64,
    bytes_read: u64,
    packs_sampled: u64,
    packs_unseen: u64,
    chunks_lost: u64,
    problems: Vec<ProblemJson<'a>>,
    hurt: Vec<HurtJson<'a>>,
    findings: Vec<FindingJson>,
    log: &'a [String],
    /// Whether the vault has the snapshot of `--at-least`, and all records before it.
    at_least: Option<bool>,
    foreign: &'a [String],
    returned_slots: Vec<String>,
    other_vaults: Vec<String>,
    verified_since: Option<String>,
    never_verified: u64,
    out_of_time: bool,
    /// The fault of RESTORE.txt, if it has one.
    restore_text: Option<String>,
}

/// Runs `vault check`.
pub(super) fn run(context: &Context, args: &CheckArgs) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    context.screen.watch_interrupts();
    let options = CheckOptions {
        read_data: args.read_data,
        sample: args.sample,
        max_time: args.max_time,
        clock: &dates::now,
        threads: context.threads(),
    };
    let report = check::check(&vault, &options, &context.screen);
    context.screen.clear();
    let report = report?;
    if vault.client().is_some() {
        key::settle(context, &vault);
    }
    let is_older = args.at_least.is_some_and(|id| !vault.has_all_before(&id));
    let exit = match (report.is_damaged() || is_older, report.has_remarks()) {
        (true, _) => Exit::Damage,
        (false, true) => Exit::Skipped,
        (false, false) => Exit::Done,
    };
    let text = companion::fault(&vault);
    let mut out = Output::new();
    let told = if context.global.json {
        out.json(&json(&report, args.at_least.map(|_| !is_older), text))
    } else {
        if let Some(what) = &text {
            let mend = if vault.is_mirror() { "it may be deleted" } else { "it is written anew by: vault repair" };
            let late = if vault.delivery() == Delivery::Synced { " or has not arrived whole" } else { "" };
            let name = companion::NAME;
            context
                .screen
                .warn(&format!("{name}, the text on how to get the files back, is damaged{late}: {what} ({mend})"));
        }
        tell(context, &report, &vault.snapshots(), &mut out).and_then(|()| match args.at_least {
            Some(id) if is_older => out.styled(
                Style::Warning,
                &format!("The vault is older than snapshot {id}, or records before it are missing."),
            ),
            Some(id) => out.say(format_args!("The vault has snapshot {id} and all that its writer had seen before.")),
            None => Ok(()),
        })
    };
    match told.and_then(|()| out.finish()) {
        Err(failure) if failure.exit != Exit::Done => Err(failure),
        _ => Ok(exit),
    }
}

/// The `--json` output of a check that reads this part of the data, if any.
#[cfg(feature = "ui")]
pub(super) fn told(
    context: &Context,
    vault: &Vault,
    sample: Option<f64>,
    progress: &dyn Progress,
) -> Result<serde_json::Value, Failure> {
    let options =
        CheckOptions { read_data: false, sample, max_time: None, clock: &dates::now, threads: context.threads() };
    let report = check::check(vault, &options, progress)?;
    Ok(serde_json::json!(json(&report, None, companion::fault(vault))))
}

fn json(report: &CheckReport, at_least: Option<bool>, restore_text: Option<String>) -> CheckJson<'_> {
    CheckJson {
        damaged: report.is_damaged(),
        snapshots: report.snapshots,
        folders: report.folders,
        files: report.files,
        packs: report.packs,
        bytes: report.bytes,
        packs_read: report.packs_read,
        bytes_read: report.bytes_read,
        packs_sampled: report.packs_sampled,
        packs_unseen: report.packs_unseen,
        chunks_lost: report.chunks_lost,
        problems: report.problems.iter().map(ProblemJson::new).collect(),
        hurt: report.hurt.iter().map(HurtJson::new).collect(),
        findings: report.known.iter().map(FindingJson::new).collect(),
        log: &report.findings,
        at_least,
        foreign: &report.foreign,
        returned_slots: report.returned_slots.iter().map(ToString::to_string).collect(),
        other_vaults: report.other_vaults.iter().map(ToString::to_string).collect(),
        verified_since: report.verified_since.map(|secs| dates::exact(Time { secs, nanos: 0 })),
        never_verified: report.never_verified,
        out_of_time: report.out_of_time,
        restore_text,
    }
}

fn tell(context: &Context, report: &CheckReport, snapshots: &[SnapshotInfo], out: &mut Output) -> Result<(), Failure> {
    if !context.global.quiet {
        tell_extent(context, report, out)?;
    }
    for finding in &report.findings {
        out.styled(Style::Warning, &format!("log: {finding}"))?;
    }
    for finding in report.known.iter().filter(|finding| !matches!(finding.about, About::Object { .. })) {
        out.styled(Style::Warning, &accept::line(finding, &context.zone))?;
    }
    for path in &report.foreign {
        out.say(format_args!("not part of the vault: {}", Shown(path.as_bytes())))?;
    }
    for problem in &report.problems {
        out.styled(Style::Warning, &format!("{}: {}: {}", problem.state.word(), problem.subject, problem.what))?;
    }
    tell_hurt(context, &report.hurt, snapshots, out)?;
    tell_unsure(report, out)?;
    if report.is_damaged() {
        return tell_damaged(report, out);
    }
    if !context.global.quiet {
        out.styled(Style::Bold, "No damage was found.")?;
    }
    Ok(())
}

/// Tells what there is, and how much of it was read.
fn tell_extent(context: &Context, report: &CheckReport, out: &mut Output) -> Result<(), Failure> {
    out.say(format_args!(
        "{} with {} in {}; {} of {}",
        units::counted(report.snapshots, "snapshot", "snapshots"),
        units::counted(report.files, "different file", "different files"),
        units::counted(report.folders, "folder", "folders"),
        units::counted(report.packs, "pack", "packs"),
        units::size(report.bytes)
    ))?;
    if report.bytes_read > 0 {
        out.say(format_args!(
            "{} read and verified, {}",
            units::counted(report.packs_read, "pack", "packs"),
            units::size(report.bytes_read)
        ))?;
    }
    if report.packs_sampled > 0 {
        out.say(format_args!(
            "{} that this machine has not put looked at, a part of each",
            units::counted(report.packs_sampled, "pack", "packs")
        ))?;
    }
    if report.packs_unseen > 0 {
        out.say(format_args!(
            "{} more such {} for the next check",
            units::count(report.packs_unseen),
            if report.packs_unseen == 1 { "pack is left" } else { "packs are left" }
        ))?;
    }
    if report.out_of_time {
        out.say("The time was over before everything was read; the next check goes on from there.")?;
    }
    match report.verified_since {
        Some(secs) => {
            let time = Time { secs, nanos: 0 };
            out.say(format_args!("Every byte was verified since {}.", dates::shown(time, &context.zone)))
        }
        None if report.never_verified > 0 => out.say(format_args!(
            "{} never read and verified on this machine: vault check --read-data",
            units::packs_were(report.never_verified, report.packs)
        )),
        None => Ok(()),
    }
}

/// Lists the snapshots of which something cannot be judged yet.
fn tell_unsure(report: &CheckReport, out: &mut Output) -> Result<(), Failure> {
    for unsure in &report.unsure {
        let text = if report.why_unsure == Some(ObjectState::Newer) {
            let count = units::counted(unsure.count, "file or folder needs", "files and folders need");
            format!("{count} a newer version of vault, whose packs are here")
        } else if report
            .known
            .iter()
            .all(|known| !matches!(known.about, About::Late { snapshot, .. } if snapshot == unsure.id))
        {
            // Where nothing can be remembered, it is no known finding.
            format!("{} not arrived yet", units::counted(unsure.count, "file or folder has", "files and folders have"))
        } else {
            continue;
        };
        out.styled(Style::Warning, &format!("snapshot {}: {text}", unsure.id.short()))?;
    }
    Ok(())
}

/// Tells what the damage costs, and what to do.
fn tell_damaged(report: &CheckReport, out: &mut Output) -> Result<(), Failure> {
    out.styled(Style::Bold, "The vault is damaged.")?;
    let costs = report.known.iter().any(|finding| finding.snapshots + finding.files > 0);
    if report.hurt.is_empty() && costs {
        // Earlier findings are listed above, each with the files that it affects.
        out.say("  What was found earlier is still so; which files it hurts: vault check --read-data")?;
    } else if report.hurt.is_empty() {
        out.say("  No file of a snapshot is known to be hurt.")?;
    } else {
        out.say("  All other files can be restored.")?;
    }
    out.say("  A snapshot after it stores again what it finds. To mend what can be mended: vault repair")
}

/// Lists the files that cannot be restored, by snapshot.
pub(super) fn tell_hurt(
    context: &Context,
    found: &[HurtSnapshot],
    snapshots: &[SnapshotInfo],
    out: &mut Output,
) -> Result<(), Failure> {
    let infos: HashMap<ObjectName, &SnapshotInfo> = snapshots.iter().map(|info| (info.id, info)).collect();
    for hurt in found {
        let of = infos.get(&hurt.id).map_or_else(String::new, |info| {
            let date = dates::shown(info.date, &context.zone);
            format!(" of {} ({date})", Shown(info.body.source.as_bytes()))
        });
        let count = units::counted(hurt.count, "file or folder", "files or folders");
        out.styled(Style::Warning, &format!("snapshot {}{of}: {count} cannot be restored:", hurt.id.short()))?;
        for file in hurt.files.iter().take(PATHS_SHOWN) {
            out.say(format_args!("    {}", Shown(shown_path(&file.path))))?;
        }
        if hurt.count > PATHS_SHOWN as u64 {
            out.say(format_args!("    and {} more", units::count(hurt.count - PATHS_SHOWN as u64)))?;
        }
    }
    Ok(())
}
