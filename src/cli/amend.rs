//! `vault tag`, `vault amend` and `vault rewrite`, which replace snapshots with changed ones.

use std::collections::BTreeMap;
use std::path::Path;

use crate::engine::patterns::exclude::check;
use crate::engine::patterns::gitignore::ANY_CASE;
use crate::engine::rewrite::Change;
use crate::engine::rewrite::RewriteOptions;
use crate::engine::rewrite::RewritePlan;
use crate::engine::rewrite::RewriteReport;
use crate::engine::rewrite::Sum;
use crate::engine::rewrite::Unread;
use crate::engine::rewrite::plan;
use crate::engine::rewrite::rewrite as put_in_place;
use crate::failure::of_unread;
use crate::id::ObjectName;
use crate::json::Name;
use crate::path::Shown;
use crate::path::join;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use serde::Serialize;

use crate::cli::args::AmendArgs;
use crate::cli::args::RewriteArgs;
use crate::cli::args::TagChangeArgs;
use crate::cli::args::TagCommand;
use crate::cli::consent::Consent;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::offer;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Filter;
use crate::cli::units;
use crate::limits::LEVEL;

/// The number of removed paths shown before the confirmation.
const GONE_SHOWN: usize = 20;

/// A snapshot that replaced another one.
#[derive(Serialize)]
struct ChangedJson<'a> {
    id: String,
    replaces: String,
    time: String,
    source: &'a str,
    host: &'a str,
}

/// A part of a snapshot that could not be read.
#[derive(Serialize)]
struct BrokenJson<'a> {
    snapshot: String,
    /// Empty if the whole snapshot stays as it is.
    path: Name<'a>,
    state: &'a str,
    why: &'a str,
}

impl<'a> BrokenJson<'a> {
    fn new((info, unread): &'a (SnapshotInfo, Unread)) -> Self {
        let (path, state) = (Name(&unread.path), unread.why.word());
        Self { snapshot: info.id.to_string(), path, state, why: &unread.what }
    }
}

#[derive(Serialize)]
struct AmendJson<'a> {
    changed: Vec<ChangedJson<'a>>,
    /// Snapshots that need no change.
    unchanged: Vec<String>,
    /// Snapshots that were forgotten meanwhile.
    forgotten: Vec<String>,
    /// Snapshots changed by a later version of vault in ways that this version does not know.
    broken: Vec<BrokenJson<'a>>,
}

/// A path that is removed.
#[derive(Serialize)]
struct GoneJson<'a> {
    path: Name<'a>,
    folder: bool,
    /// The counts in the snapshot that has most of it.
    files: u64,
    bytes: u64,
    snapshots: u64,
}

#[derive(Serialize)]
struct RewriteJson<'a> {
    dry_run: bool,
    changed: Vec<ChangedJson<'a>>,
    /// Snapshots that would be changed, or were.
    snapshots: Vec<String>,
    gone: Vec<GoneJson<'a>>,
    /// Snapshots that stay because everything in them would be removed.
    whole: Vec<String>,
    broken: Vec<BrokenJson<'a>>,
    bytes_stored: u64,
}

/// The tags in a typed list.
fn tags(typed: &str) -> Result<Vec<String>, Failure> {
    let tags: Vec<String> = typed.split(',').map(|tag| tag.trim().to_owned()).collect();
    if tags.iter().any(String::is_empty) {
        return Err(
            Failure::usage(format!("'{typed}' has an empty tag in it")).hint("Write tags like: weekly,important")
        );
    }
    Ok(tags)
}

/// Runs `vault tag`.
pub(super) fn tag(context: &Context, command: TagCommand) -> Result<Exit, Failure> {
    let (TagChangeArgs { tags: typed, snapshots, filter }, adds) = match command {
        TagCommand::Add(args) => (args, true),
        TagCommand::Remove(args) => (args, false),
    };
    let mut tags = tags(&typed)?;
    let change = if adds {
        Change { add_tags: tags, ..Change::default() }
    } else {
        // The typed text may itself be a tag with a comma in it.
        tags.push(typed);
        Change { remove_tags: tags, ..Change::default() }
    };
    let (vault, _) = context.open()?;
    let found = select::find_all(context, &vault, &vault.snapshots(), &filter, &snapshots, Aim::Write)?;
    change_all(context, &vault, &found, &change)
}

/// Runs `vault amend`.
pub(super) fn amend(context: &Context, args: &AmendArgs) -> Result<Exit, Failure> {
    if args.host.as_deref() == Some("") {
        return Err(Failure::usage("the name of the machine is empty"));
    }
    let change =
        Change { description: args.description.clone(), host: args.host.clone(), time: args.time, ..Change::default() };
    let (vault, _) = context.open()?;
    // The filter options do not apply here: --host gives the new name of the machine.
    let found = select::find_all(context, &vault, &vault.snapshots(), Filter::default(), &args.snapshots, Aim::Name)?;
    change_all(context, &vault, &found, &change)
}

fn options(context: &Context) -> RewriteOptions<'static> {
    RewriteOptions {
        clock: &dates::now,
        level: LEVEL,
        verify: true,
        others: context.verify_others(None),
        threads: context.threads(),
    }
}

/// The JSON form of a snapshot that replaced one of these.
fn changed<'a>(
    (id, now): &(ObjectName, ObjectName),
    found: &'a [SnapshotInfo],
    there: &'a [SnapshotInfo],
) -> Option<ChangedJson<'a>> {
    let info = there.iter().find(|info| info.id == *now).or_else(|| found.iter().find(|info| info.id == *id))?;
    Some(ChangedJson {
        id: now.to_string(),
        replaces: id.to_string(),
        time: dates::exact(info.date),
        source: &info.body.source,
        host: &info.body.host,
    })
}

/// Changes the metadata of snapshots, and reports the changes.
fn change_all(context: &Context, vault: &Vault, found: &[SnapshotInfo], change: &Change) -> Result<Exit, Failure> {
    let report = put_in_place(vault, found, change, &options(context), &context.screen);
    context.screen.clear();
    let report = report?;
    let there = vault.snapshots();
    offer::note_snapshots(vault, &there, &context.zone);
    let mut out = Output::new();
    let ids = |ids: &[ObjectName]| ids.iter().map(ToString::to_string).collect();
    if context.global.json {
        out.json(&AmendJson {
            changed: report.replaced.iter().filter_map(|pair| changed(pair, found, &there)).collect(),
            unchanged: ids(&report.unchanged),
            forgotten: ids(&report.forgotten),
            broken: report.unread.iter().map(BrokenJson::new).collect(),
        })?;
    } else if !context.global.quiet {
        tell_changed(context, &report, &there, &mut out)?;
        for info in found.iter().filter(|info| report.unchanged.contains(&info.id)) {
            out.say(format_args!("Snapshot {} is like that already.", select::named(info, &context.zone)))?;
        }
        tell_forgotten(context, &report, found, &mut out)?;
        tell_unread(context, &report.unread.iter().collect::<Vec<_>>(), &mut out)?;
    }
    let exit = report.unread.iter().fold(Exit::Done, |exit, (_, unread)| exit.worse(of_unread(unread).0));
    out.finish().map(|()| exit)
}

/// Lists each replaced snapshot with its replacement.
fn tell_changed(
    context: &Context,
    report: &RewriteReport,
    there: &[SnapshotInfo],
    out: &mut Output,
) -> Result<(), Failure> {
    for (id, now) in &report.replaced {
        if let Some(info) = there.iter().find(|info| info.id == *now) {
            let named = select::named(info, &context.zone);
            out.say(format_args!("Snapshot {} is now {named}.", id.short()))?;
        }
    }
    Ok(())
}

fn tell_forgotten(
    context: &Context,
    report: &RewriteReport,
    found: &[SnapshotInfo],
    out: &mut Output,
) -> Result<(), Failure> {
    for info in found.iter().filter(|info| report.forgotten.contains(&info.id)) {
        out.say(format_args!("Snapshot {} was forgotten meanwhile.", select::named(info, &context.zone)))?;
    }
    Ok(())
}

/// The removed paths: for each, whether it is a folder, the largest size in any snapshot, and the number of snapshots.
type Gone = BTreeMap<Vec<u8>, (bool, Sum, u64)>;

fn gone(plan: &RewritePlan) -> Gone {
    let mut all = Gone::new();
    for thinned in plan.changes.iter().filter_map(|planned| planned.thinned.as_ref()) {
        plan.trees.for_each(thinned, |path, gone| {
            let (is_folder, most, snapshots) = all.entry(path.to_vec()).or_default();
            *is_folder |= gone.is_folder;
            if gone.sum.bytes >= most.bytes {
                *most = gone.sum;
            }
            *snapshots += 1;
            true
        });
    }
    all
}

/// A line for one removed path.
fn line(path: &[u8], (is_folder, sum, snapshots): &(bool, Sum, u64)) -> String {
    let count = units::counted(*snapshots, "snapshot", "snapshots");
    let (slash, files) = if *is_folder {
        ("/", format!("{}, ", units::counted(sum.files, "file", "files")))
    } else {
        ("", String::new())
    };
    format!("{}{slash}  ({files}{}, in {count})", Shown(path), units::size(sum.bytes))
}

/// Runs `vault rewrite`.
pub(super) fn rewrite(context: &Context, args: &RewriteArgs) -> Result<Exit, Failure> {
    let hint = "Give --yes to take it out, or --dry-run to see first what would go.";
    let consent = Consent::new(context, args.dry_run || args.yes, "files shall be taken out of snapshots", hint)?;
    let any_case = args.iexclude.iter().map(|pattern| format!("{ANY_CASE}{pattern}"));
    let exclude: Vec<String> = args.exclude.iter().cloned().chain(any_case).collect();
    for pattern in &exclude {
        check(pattern).map_err(|error| Failure::usage(error.to_string()))?;
    }
    let (vault, _) = context.open()?;
    context.screen.watch_interrupts();
    let all = vault.snapshots();
    let found = if args.snapshots.is_empty() {
        let filter = Filter::from(&args.filter);
        select::all(context, &vault)?.into_iter().filter(|info| filter.matches(info)).collect()
    } else {
        select::find_all(context, &vault, &all, &args.filter, &args.snapshots, Aim::Write)?
    };
    let change = Change { exclude, ..Change::default() };
    let planned = plan(&vault, &found, &change, context.threads(), &context.screen);
    context.screen.clear();
    let plan = planned?;
    let gone = gone(&plan);
    let mut out = Output::new();
    if !context.global.json {
        let shows_all = args.dry_run || context.global.verbose > 0;
        tell_plan(context, &plan, &gone, found.len(), shows_all, &mut out)?;
        out.flush()?;
    }
    let mut report = RewriteReport::default();
    if !args.dry_run && !plan.changes.is_empty() {
        let count = units::counted(plan.changes.len() as u64, "snapshot", "snapshots");
        consent.ask(context, &format!("Take this out of {count} for good?"))?;
        let meant: Vec<SnapshotInfo> = plan.changes.iter().map(|planned| planned.info.clone()).collect();
        let done = put_in_place(&vault, &meant, &change, &options(context), &context.screen);
        context.screen.clear();
        report = done?;
    }
    let there = vault.snapshots();
    offer::note_snapshots(&vault, &there, &context.zone);
    if context.global.json {
        out.json(&json(args.dry_run, &plan, &gone, &report, &there))?;
    } else if !context.global.quiet && !args.dry_run && !plan.changes.is_empty() {
        tell_changed(context, &report, &there, &mut out)?;
        let meant: Vec<SnapshotInfo> = plan.changes.iter().map(|planned| planned.info.clone()).collect();
        tell_forgotten(context, &report, &meant, &mut out)?;
        tell_unread(context, &news(&plan, &report), &mut out)?;
        tell_whole(context, &report.whole, &mut out)?;
        out.say(
            "Whoever has the password can get at it until all its space is given back by: vault prune --max-unused 0%",
        )?;
        if let Some(path) = still_taken(&vault, &plan, &gone) {
            out.say(format_args!(
                "{} is still there: the next snapshot takes it again, unless it is given the same --exclude, or exclude in \
                 the configuration.",
                Shown(&path)
            ))?;
        }
    }
    let is_whole = !plan.whole.is_empty() || !report.whole.is_empty();
    let exit = if is_whole { Exit::Skipped } else { Exit::Done };
    let unread = plan.unread.iter().chain(&report.unread);
    let exit = unread.fold(exit, |exit, (_, unread)| exit.worse(of_unread(unread).0));
    out.finish().map(|()| exit)
}

/// The parts that turned out to be unreadable only during the rewrite.
fn news<'a>(plan: &RewritePlan, report: &'a RewriteReport) -> Vec<&'a (SnapshotInfo, Unread)> {
    let is_told = |(info, unread): &(SnapshotInfo, Unread)| {
        plan.unread.iter().any(|(other, told)| other.id == info.id && told.path == unread.path)
    };
    report.unread.iter().filter(|unread| !is_told(unread)).collect()
}

/// A removed path of this machine's snapshots that still exists at its original place on the disk.
fn still_taken(vault: &Vault, plan: &RewritePlan, gone: &Gone) -> Option<Vec<u8>> {
    let own = vault.own_clients();
    let snapshots = || plan.changes.iter().map(|planned| &planned.info).filter(|info| own.contains(&info.client));
    let roots = || snapshots().flat_map(|info| &info.body.roots).filter(|root| !root.path.is_empty());
    gone.keys().take(GONE_SHOWN).find_map(|path| {
        roots().find_map(|root| {
            let below = path.strip_prefix(&root.name[..])?;
            let place = match below {
                [] => root.path.clone(),
                [b'/', below @ ..] => join(&root.path, below),
                _ => return None,
            };
            is_there(&crate::path::to_path(&place)).then_some(place)
        })
    })
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn tell_unread(context: &Context, unread: &[&(SnapshotInfo, Unread)], out: &mut Output) -> Result<(), Failure> {
    for (info, unread) in unread {
        let (named, (_, why)) = (select::named(info, &context.zone), of_unread(unread));
        let what = if unread.path.is_empty() {
            format!("Snapshot {named} stays as it is, since {why}")
        } else {
            format!("In snapshot {named} the folder {} stays as it is, since {why}", Shown(&unread.path))
        };
        out.styled(Style::Warning, &what)?;
    }
    Ok(())
}

fn tell_whole(context: &Context, whole: &[(SnapshotInfo, Sum)], out: &mut Output) -> Result<(), Failure> {
    for (info, sum) in whole {
        let (named, files) = (select::named(info, &context.zone), units::counted(sum.files, "file", "files"));
        let all = format!("All of snapshot {named} ({files}) is like that, so it stays as it is. To forget it:");
        out.styled(Style::Warning, &format!("{all} vault forget {}", info.id.short()))?;
    }
    Ok(())
}

fn tell_plan(
    context: &Context,
    plan: &RewritePlan,
    gone: &Gone,
    looked_at: usize,
    shows_all: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    tell_unread(context, &plan.unread.iter().collect::<Vec<_>>(), out)?;
    if context.global.quiet {
        return Ok(());
    }
    tell_whole(context, &plan.whole, out)?;
    if plan.changes.is_empty() {
        return out.say(match (plan.unread.is_empty(), plan.whole.is_empty()) {
            (true, true) => "Nothing in these snapshots is like that.",
            (true, _) => "Nothing in the others is like that.",
            _ => "Nothing in what could be looked into is like that.",
        });
    }
    let shown = if shows_all { gone.len() } else { GONE_SHOWN };
    for (path, what) in gone.iter().take(shown) {
        out.line(line(path, what))?;
    }
    if gone.len() > shown {
        let more = units::count((gone.len() - shown) as u64);
        out.say(format_args!("and {more} more (all of them are listed by --dry-run)"))?;
    }
    let (changing, all) = (units::count(plan.changes.len() as u64), units::count(looked_at as u64));
    let things = units::counted(gone.len() as u64, "thing goes", "things go");
    out.say(format_args!("{things}, from {changing} of {all} snapshots."))?;
    if shows_all {
        for planned in &plan.changes {
            out.line(format_args!("  {}", select::named(&planned.info, &context.zone)))?;
        }
    }
    Ok(())
}

fn json<'a>(
    dry_run: bool,
    plan: &'a RewritePlan,
    gone: &'a Gone,
    report: &'a RewriteReport,
    there: &'a [SnapshotInfo],
) -> RewriteJson<'a> {
    let of = |(path, (folder, sum, snapshots)): (&'a Vec<u8>, &(bool, Sum, u64))| GoneJson {
        path: Name(path),
        folder: *folder,
        files: sum.files,
        bytes: sum.bytes,
        snapshots: *snapshots,
    };
    let broken = plan.unread.iter().chain(news(plan, report));
    RewriteJson {
        dry_run,
        changed: report.replaced.iter().filter_map(|pair| changed(pair, &[], there)).collect(),
        snapshots: plan.changes.iter().map(|planned| planned.info.id.to_string()).collect(),
        gone: gone.iter().map(of).collect(),
        whole: plan.whole.iter().chain(&report.whole).map(|(info, _)| info.id.to_string()).collect(),
        broken: broken.map(BrokenJson::new).collect(),
        bytes_stored: report.bytes_stored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_parted_by_commas() {
        assert_eq!(tags("a, b").unwrap(), ["a", "b"]);
        assert!(tags("a,,b").is_err() && tags("").is_err());
    }

    #[test]
    fn what_goes_is_told_in_a_line() {
        let sum = Sum { files: 12, folders: 2, bytes: 5 << 20 };
        assert_eq!(line(b"docs/a\x1b", &(true, sum, 3)), "docs/a\\x1b/  (12 files, 5.0 MiB, in 3 snapshots)");
        assert_eq!(line(b"docs/a", &(false, Sum { files: 1, ..sum }, 1)), "docs/a  (5.0 MiB, in 1 snapshot)");
    }
}
