//! `vault restore`.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::restore::Change;
use crate::engine::restore::Mark;
use crate::engine::restore::Overwrite;
use crate::engine::restore::RestoreOptions;
use crate::engine::restore::RestoreReport;
use crate::engine::restore::Target;
use crate::engine::restore::restore_telling;
use crate::path::Shown;
use crate::path::called;
use crate::progress::Hushed;
use crate::progress::Progress;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;

use crate::cli::args::OverwriteArg;
use crate::cli::args::RestoreArgs;
use crate::cli::config::PasswordFrom;
use crate::cli::consent::Consent;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::local;
use crate::cli::note;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Spot;
use crate::cli::units;
use crate::json::ChangeJson;
use crate::json::RestoreJson;
use crate::service::config::IGNORE_FILE;
use crate::service::sources::exclude_of;

/// The number of problems shown.
const PROBLEMS_SHOWN: usize = 20;

/// The number of deletions shown before the confirmation.
const DELETED_SHOWN: usize = 20;

/// A folder in a form for the end of a sentence, where `.` alone would look like a full stop.
fn shown_folder(folder: &Path) -> String {
    if folder.file_name().is_some() {
        folder.display().to_string()
    } else {
        format!("the folder '{}'", folder.display())
    }
}

/// Runs `vault restore`.
pub(super) fn run(context: &Context, args: &RestoreArgs) -> Result<Exit, Failure> {
    let wanted = select::parse(context, &args.snapshot)?;
    let is_free = !args.delete || args.dry_run || args.yes;
    let hint = "Give --yes to delete, or --dry-run to see first what would be deleted.";
    let consent = Consent::new(context, is_free, "anything shall be deleted", hint)?;
    if let Some(to) = &args.to {
        local::refuse_remote(to, "the target of a restore")?;
    }
    let target = match &args.to {
        Some(folder) => Target::Folder(roots::absolute(&current_folder()?, folder)),
        None => Target::InPlace,
    };
    let vault = context.open_to_read()?;
    let snapshots = vault.snapshots();
    let aim = if args.in_place { Aim::Write } else { Aim::Read };
    let spot = select::spot(context, &vault, &snapshots, &args.filter, &wanted, aim)?;
    let info = &spot.info;
    let options = RestoreOptions {
        path: (!spot.path.is_empty()).then(|| spot.path.clone()),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        overwrite: overwrite(args),
        delete: args.delete,
        delete_excluded: args.delete_excluded,
        today: rules_of_today(context, args.delete, &info.body.source)?,
        state: context.state_folders()?,
        configuration: configuration(context),
        dry_run: args.dry_run,
        verify: args.verify,
        no_owner: args.no_owner,
        numeric_owner: args.numeric_owner,
        threads: context.threads(),
        as_it_was: true,
        ..RestoreOptions::new(info.id, target)
    };
    context.screen.watch_interrupts();
    if !consent.is_given() && deletes(context, args, &vault, &spot, &options)? {
        consent.ask(context, "Do this?")?;
    }
    let start = Instant::now();
    let listing = Listing::new(context, args.dry_run);
    let tell = |change: &Change| listing.add(change);
    let listens = args.dry_run || context.global.verbose > 0;
    let report = restore_telling(&vault, &options, &context.screen, if listens { Some(&tell) } else { None });
    context.screen.clear();
    let mut out = listing.finish(report.is_err())?;
    let report = report.map_err(|error| spot.failure(error))?;
    tell_of_room(context, &options, &report);
    let told = if context.global.json {
        let summary = RestoreJson::new(info, args.dry_run, &report);
        if args.dry_run { finish_json(&mut out, &summary) } else { out.json(&summary) }
    } else {
        tell_report(context, args, info, &report, start.elapsed(), &mut out)
    };
    // The files are restored whether or not somebody reads the output, so the exit code stays.
    match told.and_then(|()| out.finish()) {
        Err(failure) if failure.exit != Exit::Done => Err(failure),
        _ => Ok(exit(&report)),
    }
}

/// Warns if the target has no room for the bytes of a dry run: the real restore would fill it and fail.
fn tell_of_room(context: &Context, options: &RestoreOptions, report: &RestoreReport) {
    let (true, Target::Folder(to)) = (options.dry_run, &options.target) else { return };
    let Some(free) = crate::fs::free_space(to).filter(|free| *free < report.bytes_written) else { return };
    let (needed, free) = (units::size(report.bytes_written), units::size(free));
    context.screen.warn(&format!("{needed} would be written, and {free} are free in {}", shown_folder(to)));
}

/// The exclusions that a snapshot of this source would have today: the configured ones, if the configuration has the
/// source.
pub(super) fn rules_of_today(context: &Context, delete: bool, source: &str) -> Result<ExcludeOptions, Failure> {
    let found = || -> Result<Option<ExcludeOptions>, Failure> {
        let Some(config) = context.config()? else { return Ok(None) };
        let Some(source) = config.sources.iter().find(|other| other.name == source) else { return Ok(None) };
        exclude_of(source).map(Some)
    };
    let plain = ExcludeOptions { ignore_file: Some(IGNORE_FILE.to_vec()), ..ExcludeOptions::default() };
    match found() {
        Ok(found) => Ok(found.unwrap_or(plain)),
        // The exclusions decide what is deleted, so a wrong configuration is an error here.
        Err(failure) if delete => Err(failure),
        Err(_) => Ok(plain),
    }
}

/// The paths that this command depends on: the configuration file, and its folder if it holds nothing else; the files
/// with passwords that the configuration or an option names; and the path of the vault, which may contain links.
pub(super) fn configuration(context: &Context) -> Vec<PathBuf> {
    let file = context.config_place().ok();
    let folder = file.as_deref().and_then(Path::parent).filter(|folder| folder.ends_with("vault")).map(Path::to_owned);
    let vault = context.chosen().ok().and_then(|chosen| chosen.place.folder().map(Path::to_owned));
    let config = context.config().ok().flatten();
    let of_vaults = config.into_iter().flat_map(|config| &config.vaults).filter_map(|vault| match &vault.password {
        Some(PasswordFrom::File(file)) => Some(file.clone()),
        _ => None,
    });
    let given = [context.global.password_file.clone(), std::env::var_os("VAULT_PASSWORD_FILE").map(PathBuf::from)];
    let here = current_folder().ok();
    let passwords = of_vaults.chain(given.into_iter().flatten());
    let passwords = passwords.filter_map(|file| here.as_ref().map(|here| roots::absolute(here, &file)));
    file.into_iter().chain(folder).chain(vault).chain(passwords).collect()
}

/// Shows what would be deleted. Returns whether anything would be.
fn deletes(
    context: &Context,
    args: &RestoreArgs,
    vault: &Vault,
    spot: &Spot<'_>,
    options: &RestoreOptions,
) -> Result<bool, Failure> {
    let plan = RestoreOptions { dry_run: true, ..options.clone() };
    let first = Mutex::new(Vec::new());
    let tell = |change: &Change| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        if change.mark == Mark::Deleted && first.len() < DELETED_SHOWN {
            first.push(line(change));
        }
    };
    let report = restore_telling(vault, &plan, &Hushed(&context.screen), Some(&tell));
    context.screen.clear();
    let report = report.map_err(|error| spot.failure(error))?;
    if report.deleted == 0 {
        return Ok(false);
    }
    let first = crate::sync::into_inner(first);
    note(&format!("Restoring snapshot {} to {} deletes:", select::named(&spot.info, &context.zone), place(args)));
    first.iter().for_each(|line| note(&format!("  {line}")));
    let more = report.deleted - first.len() as u64;
    if more > 0 {
        note(&format!("  and {} more (all of them are listed by --dry-run)", units::count(more)));
    }
    if report.kept_count > 0 {
        note(&format!("and keeps {} as before.", units::counted(report.kept_count, "thing", "things")));
    }
    Ok(true)
}

/// The target of the restore in words.
fn place(args: &RestoreArgs) -> String {
    args.to.as_ref().map_or_else(|| "where it came from".to_owned(), |folder| shown_folder(folder))
}

const fn mark(change: &Change) -> &'static str {
    match change.mark {
        Mark::Added => "+",
        Mark::Changed => "M",
        Mark::Deleted => "-",
        Mark::Same => "=",
    }
}

fn line(change: &Change) -> String {
    format!("{}  {}{}", mark(change), Shown(&change.path), if change.is_folder { "/" } else { "" })
}

/// The list of changes of a dry run.
struct Listing<'c> {
    context: &'c Context,
    dry: bool,
    /// Standard output, the number of changes written to it, and the failure that ended the writing.
    out: Mutex<(Output, u64, Option<Failure>)>,
}

impl<'c> Listing<'c> {
    fn new(context: &'c Context, dry: bool) -> Self {
        Self { context, dry, out: Mutex::new((Output::new(), 0, None)) }
    }

    /// The line for a change, with its reason if reasons are wanted.
    fn line(&self, change: &Change) -> String {
        let line = line(change);
        if self.context.screen.wants_reasons() { format!("{line} ({})", change.why) } else { line }
    }

    fn add(&self, change: &Change) {
        if !self.dry {
            return self.context.screen.detail(&self.line(change));
        }
        let (out, count, failed) = &mut *self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some() || self.context.global.quiet && !self.context.global.json {
            return;
        }
        self.context.screen.clear();
        let written = if self.context.global.json {
            let start = if *count == 0 { &b"{\"changes\":["[..] } else { b"," };
            let value = ChangeJson::new(mark(change), &change.path, change.is_folder);
            out.bytes(start).and_then(|()| out.json_inline(&value))
        } else {
            out.line(self.line(change))
        };
        *count += 1;
        *failed = written.err();
    }

    /// Ends the list. Standard output is then ready for further output.
    fn finish(self, has_failed: bool) -> Result<Output, Failure> {
        let (mut out, count, failed) = crate::sync::into_inner(self.out);
        let is_json = self.dry && self.context.global.json;
        if failed.is_none() && is_json && (count > 0 || !has_failed) {
            if count == 0 {
                out.bytes(b"{\"changes\":[")?;
            }
            out.bytes(if has_failed { b"]}\n" } else { b"]," })?;
        }
        Ok(out)
    }
}

/// Prints the rest of a JSON object whose beginning is already printed.
fn finish_json(out: &mut Output, rest: &RestoreJson<'_>) -> Result<(), Failure> {
    let text = serde_json::to_string(rest).map_err(|error| Failure::output(&error.into()))?;
    out.line(text.trim_start_matches('{'))
}

/// The rule for existing files. By default they are refused; with `--in-place` or `--delete`, which mean existing
/// files, changed ones are replaced.
fn overwrite(args: &RestoreArgs) -> Overwrite {
    match args.overwrite {
        Some(OverwriteArg::Always) => Overwrite::Always,
        Some(OverwriteArg::IfChanged) => Overwrite::IfChanged,
        Some(OverwriteArg::KeepNewerCopy) => Overwrite::KeepNewer,
        Some(OverwriteArg::Never) => Overwrite::Never,
        None if args.in_place || args.delete => Overwrite::IfChanged,
        None => Overwrite::Refuse,
    }
}

fn exit(report: &RestoreReport) -> Exit {
    if report.damage_count > 0 {
        Exit::Damage
    } else if report.problem_count > 0 {
        Exit::Skipped
    } else {
        Exit::Done
    }
}

/// Reports the restore in plain words.
fn tell_report(
    context: &Context,
    args: &RestoreArgs,
    info: &SnapshotInfo,
    report: &RestoreReport,
    took: Duration,
    out: &mut Output,
) -> Result<(), Failure> {
    if !context.global.quiet {
        let (of, to) = (format!("snapshot {}", select::named(info, &context.zone)), place(args));
        let title = if args.dry_run {
            format!("Dry run: nothing was written. Restoring {of} to {to} would be:")
        } else {
            format!("Restored {of} to {to}.")
        };
        out.styled(Style::Bold, &title)?;
        out.say(format_args!(
            "  restored   {} in {}, {}, in {}",
            units::counted(report.files, "file", "files"),
            units::counted(report.folders, "folder", "folders"),
            units::size(report.bytes),
            units::took(took)
        ))?;
        out.say(format_args!("  written    {}", units::size(report.bytes_written)))?;
        for (what, number, why) in [
            ("unchanged ", report.files_unchanged, "was there already"),
            ("left alone", report.files_kept, "was there (--overwrite never)"),
            ("copied    ", report.copies, "was newer, and is kept as NAME.newer"),
            ("verified  ", report.files_verified, "was read back and is right"),
        ] {
            if number > 0 {
                let why = if number == 1 {
                    why.to_owned()
                } else {
                    why.replace("was ", "were ").replace("is right", "are right").replace("is kept", "are kept")
                };
                out.say(format_args!("  {what} {} {why}", units::counted(number, "file", "files")))?;
            }
        }
        if report.deleted > 0 {
            out.say(format_args!(
                "  deleted    {} that the snapshot does not have, or has as something else",
                units::count(report.deleted)
            ))?;
        }
        tell_kept(report, out)?;
        for (what, number) in &report.not_permitted {
            out.say(format_args!(
                "  left out   {what} of {}, which only an administrator may restore",
                units::counted(*number, "file", "files")
            ))?;
        }
        if info.body.skipped > 0 {
            out.say(format_args!(
                "  When the snapshot was taken, {} could not be saved as it should be: vault ls --skipped {}",
                units::counted(info.body.skipped, "thing", "things"),
                info.id.short()
            ))?;
        }
    }
    if report.problem_count > 0 { tell_problems(report, out) } else { Ok(()) }
}

/// Lists what could not be restored as it was, and says what to do.
fn tell_problems(report: &RestoreReport, out: &mut Output) -> Result<(), Failure> {
    out.styled(Style::Warning, &format!("  not restored as it was: {}", units::count(report.problem_count)))?;
    for problem in report.problems.iter().take(PROBLEMS_SHOWN) {
        out.say(format_args!("    {}: {}", called(&problem.path), problem.what))?;
    }
    let more = report.problem_count.saturating_sub(report.problems.len().min(PROBLEMS_SHOWN) as u64);
    if more > 0 {
        out.say(format_args!("    and {} more", units::count(more)))?;
    }
    if report.damage_count > 0 {
        out.say("  The vault is damaged. What that costs, and what to do: vault check")
    } else if report.is_late {
        out.say("  Nothing is lost. When the sync has brought the rest: the same command with --overwrite if-changed")
    } else {
        Ok(())
    }
}

/// Lists the files that were not deleted, and the reasons.
fn tell_kept(report: &RestoreReport, out: &mut Output) -> Result<(), Failure> {
    if report.kept_count == 0 {
        return Ok(());
    }
    let things = units::counted(report.kept_count, "thing", "things");
    out.say(format_args!("  kept       {things} as before:"))?;
    for kept in report.kept.iter().take(PROBLEMS_SHOWN) {
        out.say(format_args!("    {}: {}", Shown(&kept.path), kept.why))?;
    }
    let more = report.kept_count.saturating_sub(report.kept.len().min(PROBLEMS_SHOWN) as u64);
    if more > 0 {
        out.say(format_args!("    and {} more", units::count(more)))?;
    }
    if report.kept.iter().any(|kept| kept.why.is_of_rules()) {
        out.say("    What was left out is deleted as well with --delete-excluded.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::engine::restore::RestoreProblem;

    use super::*;

    #[test]
    fn damage_outranks_what_was_skipped() {
        let problem = |damage| RestoreProblem { path: b"a".to_vec(), what: "x".into(), damage };
        let report = |problems: Vec<RestoreProblem>| RestoreReport {
            problem_count: problems.len() as u64,
            damage_count: problems.iter().filter(|problem| problem.damage).count() as u64,
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
