//! `vault restore`.

use std::time::Duration;
use std::time::Instant;

use vault::engine::restore::Overwrite;
use vault::engine::restore::RestoreOptions;
use vault::engine::restore::RestoreReport;
use vault::engine::restore::Target;
use vault::path::Shown;
use vault::vault::SnapshotInfo;

use crate::cli::args::OverwriteArg;
use crate::cli::args::RestoreArgs;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::json::RestoreJson;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Wanted;
use crate::cli::units;

/// How many problems are shown.
const PROBLEMS_SHOWN: usize = 20;

/// Runs `vault restore`.
pub fn run(context: &Context, args: &RestoreArgs) -> Result<Exit, Failure> {
    let wanted = Wanted::parse(&args.snapshot, &context.zone)?;
    let target = match &args.to {
        Some(folder) => Target::Folder(roots::absolute(&current_folder()?, folder)),
        None => Target::InPlace,
    };
    let (vault, _) = context.open()?;
    let snapshots = vault.snapshots();
    let aim = if args.in_place { Aim::Write } else { Aim::Read };
    let info = wanted.find(context, &vault, &snapshots, &args.filter, aim)?;
    let path = wanted.path.as_deref().map(|path| select::inside(&info.body.roots, path));
    let options = RestoreOptions {
        snapshot: info.id,
        path: path.filter(|path| !path.is_empty()),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        overwrite: overwrite(args),
        target,
        delete: args.delete,
        dry_run: args.dry_run,
        verify: args.verify,
        no_owner: args.no_owner,
        numeric_owner: args.numeric_owner,
        threads: context.threads(),
    };
    context.screen.watch_interrupts();
    let start = Instant::now();
    let report = vault::engine::restore::restore(&vault, &options, &context.screen);
    context.screen.clear();
    let report = report?;
    let mut out = Output::new();
    let told = if context.global.json {
        out.json(&RestoreJson::new(info, args.dry_run, &report))
    } else {
        tell(context, args, info, &report, start.elapsed(), &mut out)
    };
    // The files are there, whether or not somebody reads on: the exit code stays.
    match told.and_then(|()| out.finish()) {
        Err(failure) if failure.exit != Exit::Done => Err(failure),
        _ => Ok(exit(&report)),
    }
}

/// What is there is refused in a folder, unless something was said about it: in place, and where extra files are to be
/// deleted, that is the point.
fn overwrite(args: &RestoreArgs) -> Overwrite {
    match args.overwrite {
        Some(OverwriteArg::Always) => Overwrite::Always,
        Some(OverwriteArg::IfChanged) => Overwrite::IfChanged,
        Some(OverwriteArg::Never) => Overwrite::Never,
        None if args.in_place || args.delete => Overwrite::IfChanged,
        None => Overwrite::Refuse,
    }
}

fn exit(report: &RestoreReport) -> Exit {
    if report.problems.iter().any(|problem| problem.damage) {
        Exit::Damage
    } else if report.problem_count > 0 {
        Exit::Skipped
    } else {
        Exit::Done
    }
}

/// Says in plain words what was done.
fn tell(
    context: &Context,
    args: &RestoreArgs,
    info: &SnapshotInfo,
    report: &RestoreReport,
    took: Duration,
    out: &mut Output,
) -> Result<(), Failure> {
    if !context.global.quiet {
        let of = select::named(info, &context.zone);
        let to =
            args.to.as_ref().map_or_else(|| "where it came from".to_owned(), |folder| folder.display().to_string());
        let title = if args.dry_run {
            format!("Dry run: nothing was written. Restoring snapshot {of} to {to} would be:")
        } else {
            format!("Restored snapshot {of} to {to}.")
        };
        out.styled(Style::Bold, &title)?;
        out.line(format_args!(
            "  restored   {} in {}, {}, in {}",
            units::counted(report.files, "file", "files"),
            units::counted(report.folders, "folder", "folders"),
            units::size(report.bytes),
            units::took(took)
        ))?;
        out.line(format_args!("  written    {}", units::size(report.bytes_written)))?;
        for (what, number, why) in [
            ("unchanged ", report.files_unchanged, "was there already"),
            ("left alone", report.files_kept, "was there (--overwrite never)"),
            ("verified  ", report.files_verified, "was read back and is right"),
        ] {
            if number > 0 {
                let why = if number == 1 {
                    why.to_owned()
                } else {
                    why.replace("was ", "were ").replace("is right", "are right")
                };
                out.line(format_args!("  {what} {} {why}", units::counted(number, "file", "files")))?;
            }
        }
        if report.deleted > 0 {
            out.line(format_args!("  deleted    {} that the snapshot does not have", units::count(report.deleted)))?;
        }
        for (what, number) in &report.not_permitted {
            out.line(format_args!(
                "  left out   {what} of {}, which only an administrator may restore",
                units::counted(*number, "file", "files")
            ))?;
        }
        if info.body.skipped > 0 {
            out.line(format_args!(
                "  When the snapshot was taken, {} could not be saved as it should be: vault ls --skipped {}",
                units::counted(info.body.skipped, "thing", "things"),
                info.id.short()
            ))?;
        }
    }
    if report.problem_count > 0 {
        out.styled(Style::Warning, &format!("  not restored as it was: {}", units::count(report.problem_count)))?;
        // Damage first: it is what matters most, and must not be pushed out of the list.
        let (damage, other): (Vec<_>, Vec<_>) = report.problems.iter().partition(|problem| problem.damage);
        for problem in damage.into_iter().chain(other).take(PROBLEMS_SHOWN) {
            let damage = if problem.damage { " (the vault is damaged)" } else { "" };
            out.line(format_args!("    {}: {}{damage}", Shown(&problem.path), problem.what))?;
        }
        let more = report.problem_count.saturating_sub(report.problems.len().min(PROBLEMS_SHOWN) as u64);
        if more > 0 {
            out.line(format_args!("    and {} more", units::count(more)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vault::engine::restore::RestoreProblem;

    use super::*;

    #[test]
    fn damage_outranks_what_was_skipped() {
        let problem = |damage| RestoreProblem { path: b"a".to_vec(), what: "x".into(), damage };
        let report = |problems: Vec<RestoreProblem>| RestoreReport {
            problem_count: problems.len() as u64,
            problems,
            ..RestoreReport::default()
        };
        assert_eq!(exit(&report(vec![])), Exit::Done);
        assert_eq!(exit(&report(vec![problem(false)])), Exit::Skipped);
        assert_eq!(exit(&report(vec![problem(false), problem(true)])), Exit::Damage);
        let mut report = RestoreReport::default();
        report.not_permitted.insert("owner".into(), 3);
        assert_eq!(exit(&report), Exit::Done);
    }
}
