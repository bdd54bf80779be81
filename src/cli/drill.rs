//! `vault drill`: restores a sample to see that it works.

use crate::engine::check::drill::DrillReport;
use crate::path::called;
use crate::service::drill;
use crate::service::drill::DrillJson;
use crate::service::drill::Wish;

use crate::cli::args::DrillArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::machine::Here;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::select;
use crate::cli::units;

/// The number of failures shown.
const SHOWN: usize = 20;

/// Runs `vault drill`.
pub(super) fn run(context: &Context, args: &DrillArgs) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    context.screen.watch_interrupts();
    select::all(context, &vault)?;
    let wish = Wish { files: args.files, len_max: args.max_size, filter: &(&args.filter).into() };
    let done = drill::perform(&vault, &wish, context.threads(), &Here, &context.screen);
    context.screen.clear();
    let (snapshots, report) = done?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&DrillJson::new(&snapshots, &report, dates::now()))?;
    } else {
        tell(context, &report, &mut out)?;
    }
    out.finish()?;
    Ok(match (report.failed.is_empty() && report.broken == 0, report.newer + report.late) {
        (true, 0) if !report.is_empty() => Exit::Done,
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
    if report.late > 0 {
        let (has, have) = ("thing of the snapshots has", "things of the snapshots have");
        let many = units::counted(report.late, has, have);
        out.styled(Style::Warning, &format!("{many} not arrived yet; the sync brings it"))?;
    }
    if report.is_empty() {
        return out.styled(Style::Warning, "No file was restored, so nothing is proven.");
    }
    if report.failed.is_empty() && report.broken == 0 {
        if report.late > 0 {
            return out.styled(Style::Bold, "All of the sample that has arrived came back as it was.");
        }
        if !context.global.quiet {
            out.styled(Style::Bold, "All of the sample came back as it was.")?;
        }
        return Ok(());
    }
    out.styled(Style::Bold, "Not all of the sample came back as it was.")?;
    out.say("  What is damaged, and what to do: vault check --read-data")
}
