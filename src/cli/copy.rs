//! `vault copy`.

use crate::engine::copy;
use crate::engine::copy::CopiedSnapshot;
use crate::engine::copy::CopyOptions;
use crate::engine::copy::CopyReport;
use crate::engine::copy::Left;
use crate::engine::copy::LeftSnapshot;
use crate::engine::prune;
use crate::json;
use crate::json::SkippedJson;
use crate::limits::LEVEL;
use crate::path::Shown;
use crate::tree::Time;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use serde::Serialize;

use crate::cli::args::CopyArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::of_left;
use crate::cli::local;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::password::Sources;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Filter;
use crate::cli::units;

/// The number of snapshots listed.
const SHOWN: usize = 100;

#[derive(Serialize)]
struct CopiedJson<'a> {
    from: String,
    /// Null in a dry run.
    snapshot: Option<String>,
    #[serde(serialize_with = "json::exact")]
    time: Time,
    source: &'a str,
    host: &'a str,
    /// Damaged parts of the vault, which are missing in the copy.
    lost: Vec<SkippedJson<'a>>,
}

#[derive(Serialize)]
struct LeftJson {
    from: String,
    why: &'static str,
    /// The first paths that prevent the copy.
    paths: Vec<String>,
}

#[derive(Serialize)]
struct CopyJson<'a> {
    dry_run: bool,
    to: String,
    copied: Vec<CopiedJson<'a>>,
    there: u64,
    still_lacking: u64,
    left: Vec<LeftJson>,
    surplus: u64,
    bytes_new: u64,
    bytes_stored: u64,
}

impl<'a> From<&'a CopiedSnapshot> for CopiedJson<'a> {
    fn from(copied: &'a CopiedSnapshot) -> Self {
        Self {
            from: copied.from.to_string(),
            snapshot: copied.id.map(|id| id.to_string()),
            time: copied.body.time,
            source: &copied.body.source,
            host: &copied.body.host,
            lost: copied.lost.iter().map(SkippedJson::from).collect(),
        }
    }
}

impl From<&LeftSnapshot> for LeftJson {
    fn from(left: &LeftSnapshot) -> Self {
        let paths = left.paths.iter().map(|path| Shown(path).to_string()).collect();
        Self { from: left.from.to_string(), why: left.why.word(), paths }
    }
}

/// Runs `vault copy`.
pub(super) fn run(context: &Context, args: &CopyArgs) -> Result<Exit, Failure> {
    let chosen = context.chosen_by(Some(&args.to))?;
    if context.chosen()?.place == chosen.place {
        return Err(Failure::usage("a vault is not copied into itself: --to is where another one lies"));
    }
    local::refuse_around(&chosen.place, "another vault")?;
    let (vault, password) = context.open()?;
    context.screen.watch_interrupts();
    let wanted = wanted(context, args, &vault)?;
    let sources = Sources {
        file: args.to_password_file.as_deref(),
        command: args.to_password_command.as_deref(),
        option: "to-password",
        variable: "VAULT_TO_PASSWORD",
        config: chosen.config.as_ref().and_then(|vault| vault.password.as_ref()),
    };
    let to = context.open_other(&chosen, sources, (&vault, &password), false)?;
    let options = CopyOptions {
        dry_run: args.dry_run,
        whole: false,
        level: chosen.config.as_ref().map_or(LEVEL, |vault| vault.level),
        verify: true,
        others: chosen.config.as_ref().map(|vault| vault.others).unwrap_or_default(),
        clock: &dates::now,
        threads: context.threads(),
    };
    let copied = copy::copy(&vault, &to, &wanted, &options, &context.screen);
    context.screen.clear();
    let report = copied?;
    let surplus = if args.dry_run { 0 } else { prune::drop_surplus(&to, dates::now(), &context.screen)? };
    let mut out = Output::new();
    if context.global.json {
        out.json(&CopyJson {
            dry_run: args.dry_run,
            to: chosen.shown(),
            copied: report.copied.iter().map(CopiedJson::from).collect(),
            there: report.there,
            still_lacking: report.still_lacking,
            left: report.left.iter().map(LeftJson::from).collect(),
            surplus,
            bytes_new: report.bytes_new,
            bytes_stored: report.bytes_stored,
        })?;
    } else {
        tell(context, args.dry_run, &chosen.shown(), &wanted, &report, &mut out)?;
        if surplus > 0 && !context.global.quiet {
            let copies = units::counted(surplus, "copy", "copies");
            out.say(format_args!(
                "{copies} that it had once more, since machines copied at the same time, went from there."
            ))?;
        }
    }
    // A user who asks for all snapshots must know that there may be more.
    let may_be_more = args.snapshots.is_empty() && vault.has_newer_records();
    if may_be_more && !context.global.json {
        let what = "A newer vault wrote records here: if they are snapshots, they were not copied. Update vault.";
        out.styled(Style::Warning, what)?;
    }
    out.finish()?;
    let is_lacking = report.still_lacking > 0 || report.copied.iter().any(|copied| !copied.lost.is_empty());
    let exit = if is_lacking { Exit::Damage } else { Exit::Done };
    let exit = if may_be_more { exit.worse(Exit::Skipped) } else { exit };
    Ok(report.left.iter().fold(exit, |exit, left| exit.worse(of_left(left.why).0)))
}

/// The snapshots to copy: the named ones, or all that pass the filter.
fn wanted(context: &Context, args: &CopyArgs, vault: &Vault) -> Result<Vec<SnapshotInfo>, Failure> {
    let mut snapshots = vault.snapshots();
    if args.snapshots.is_empty() {
        snapshots = select::all(context, vault)?;
        let filter = Filter::from(&args.filter);
        if let Some(meant) = filter.meant(&snapshots) {
            return Err(Failure::new("there is no snapshot to copy").hint(meant));
        }
        snapshots.retain(|info| filter.matches(info));
        return Ok(snapshots);
    }
    let mut ids = Vec::new();
    for name in &args.snapshots {
        let wanted = select::parse(context, name)?;
        if wanted.path.is_some() {
            let name = name.display();
            return Err(Failure::usage(format!("'{name}': snapshots are copied whole, name one without a path in it")));
        }
        ids.push(select::find(context, vault, &snapshots, &args.filter, &wanted, Aim::Read)?.id);
    }
    snapshots.retain(|info| ids.contains(&info.id));
    Ok(snapshots)
}

fn tell(
    context: &Context,
    dry_run: bool,
    to: &str,
    wanted: &[SnapshotInfo],
    report: &CopyReport,
    out: &mut Output,
) -> Result<(), Failure> {
    if !context.global.quiet {
        for copied in report.copied.iter().take(SHOWN) {
            let info = wanted.iter().find(|info| info.id == copied.from);
            let named = info.map_or_else(|| copied.from.short(), |info| select::named(info, &context.zone));
            match copied.id {
                Some(id) => out.line(format_args!("{named} is {} there", id.short()))?,
                None => out.line(named)?,
            }
        }
        if report.copied.len() > SHOWN {
            out.say(format_args!("and {} more", units::count((report.copied.len() - SHOWN) as u64)))?;
        }
        let count = units::counted(report.copied.len() as u64, "snapshot", "snapshots");
        let there =
            if report.there > 0 { format!("; {} there before", units::count(report.there)) } else { String::new() };
        if dry_run {
            out.styled(Style::Bold, &format!("Dry run: {count} would be copied to {to}{there}."))?;
        } else {
            let stored = units::size(report.bytes_stored);
            out.styled(Style::Bold, &format!("{count} copied to {to}, {stored} stored{there}."))?;
        }
    }
    let lost: u64 = report.copied.iter().map(|copied| copied.lost.len() as u64).sum();
    if lost > 0 {
        let lost = units::counted(lost, "file or folder is", "files and folders are");
        out.styled(Style::Warning, &format!("{lost} damaged in this vault, and missing in the copies: vault check"))?;
    }
    if report.still_lacking > 0 {
        let lacking = units::counted(report.still_lacking, "copy lacks", "copies lack");
        out.styled(Style::Warning, &format!("{lacking} something that is still damaged in this vault: vault check"))?;
    }
    tell_left(context, wanted, &report.left, out)
}

/// Lists the snapshots that were not copied, and what to do about it.
fn tell_left(
    context: &Context,
    wanted: &[SnapshotInfo],
    left: &[LeftSnapshot],
    out: &mut Output,
) -> Result<(), Failure> {
    let mut hints: Vec<&str> = Vec::new();
    for LeftSnapshot { from, why, paths } in left.iter().take(SHOWN) {
        let named = wanted.iter().find(|info| info.id == *from).map(|info| select::named(info, &context.zone));
        let (_, reason, hint) = of_left(*why);
        let path = match (why, paths.as_slice()) {
            (Left::NotArrived | Left::Newer, [first, rest @ ..]) if !first.is_empty() => {
                let more = if rest.is_empty() { "" } else { ", …" };
                format!(" ({}{more})", Shown(first))
            }
            _ => String::new(),
        };
        let named = named.unwrap_or_else(|| from.short());
        out.styled(Style::Warning, &format!("not copied: {named}, since {reason}{path}"))?;
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    if left.len() > SHOWN {
        out.styled(Style::Warning, &format!("and {} more", units::count((left.len() - SHOWN) as u64)))?;
    }
    hints.into_iter().try_for_each(|hint| out.say(hint))
}
