//! `vault prune`, `vault forget`, `vault pin` and `vault unpin`.

use std::collections::BTreeMap;

use crate::engine::prune;
use crate::engine::prune::collect::CollectOptions;
use crate::engine::prune::collect::CollectReport;
use crate::engine::prune::retention;
use crate::engine::prune::retention::Decision;
use crate::engine::prune::retention::Rules;
use crate::id::ObjectName;
use crate::limits::LEVEL;
use crate::log::Obstacle;
use crate::log::RecordBody;
use crate::path::Shown;
use crate::progress::Progress;
use crate::service::forget as policy;
use crate::service::keep::Keep;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use crate::vault::findings::exit_of;
use crate::vault::twins;
use serde::Serialize;

use crate::cli::accept;
use crate::cli::args::CollectArgs;
use crate::cli::args::ForgetArgs;
use crate::cli::args::PinArgs;
use crate::cli::args::PruneArgs;
use crate::cli::consent;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::key;
use crate::cli::offer;
use crate::cli::output::Output;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Filter;
use crate::cli::table;
use crate::cli::table::Column;
use crate::cli::units;

const COLUMNS: &[Column] = &[
    Column::left(""),
    Column::left("Date"),
    Column::left("Id"),
    Column::left("Source").min(8).keep_end(),
    Column::left("Host").min(6).drop(1),
    Column::left("Why").min(16),
];

#[derive(Serialize)]
struct DecisionJson<'a> {
    snapshot: String,
    time: String,
    source: &'a str,
    host: &'a str,
    keep: bool,
    reasons: &'a [String],
}

#[derive(Serialize)]
struct PlanJson<'a> {
    snapshots: Vec<DecisionJson<'a>>,
    forgotten: u64,
}

#[derive(Serialize)]
struct PruneJson<'a> {
    dry_run: bool,
    #[serde(flatten)]
    plan: PlanJson<'a>,
    packs_deleted: u64,
    bytes_deleted: u64,
    bytes_moved: u64,
    bytes_stored: u64,
    bytes_unused: u64,
    packs_waiting: u64,
    bytes_waiting: u64,
    packs_unclaimed: u64,
    bytes_unclaimed: u64,
    waiting_for: Vec<String>,
    held_up: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct SaidJson<'a> {
    snapshots: Vec<String>,
    named: Vec<NamedJson<'a>>,
}

/// A snapshot with the properties that identify it to a person.
#[derive(Serialize)]
struct NamedJson<'a> {
    id: String,
    time: String,
    source: &'a str,
    host: &'a str,
}

/// The library's options from those of the command line.
pub(super) fn collect_options(context: &Context, args: &CollectArgs) -> CollectOptions<'static> {
    CollectOptions {
        max_unused: args.max_unused,
        max_moved: args.max_repack_size,
        level: LEVEL,
        verify: !args.no_verify,
        clock: &dates::now,
        threads: context.threads(),
    }
}

/// Runs `vault prune`.
pub(super) fn run(context: &Context, args: &PruneArgs) -> Result<Exit, Failure> {
    let rules = Keep::from(&args.keep).rules(dates::now());
    let configured = if rules.is_empty() { configured_rules(context)? } else { Vec::new() };
    if rules.is_empty() && configured.is_empty() {
        return Err(Failure::usage("which snapshots are to be kept?").hint(
            "Give at least one rule, such as --keep 5, or --keep-daily 7 --keep-monthly 12, or a keep in the configuration. \
             See: vault help prune",
        ));
    }
    let (vault, _) = context.open()?;
    context.screen.watch_interrupts();
    let filter = Filter::from(&args.filter);
    let mut snapshots: Vec<SnapshotInfo> = vault.snapshots().into_iter().filter(|info| filter.matches(info)).collect();
    let period = |time, length| policy::period(&context.zone, time, length);
    let decisions = if rules.is_empty() {
        // As in `vault run`, the rules of a source apply only to its snapshots of this machine.
        let host = &vault.identity().host;
        let all = std::mem::take(&mut snapshots);
        let mut decisions = Vec::new();
        for (source, rules) in &configured {
            let own = policy::of_source(&all, source, host);
            decisions.extend(retention::plan_in(&vault, &own, rules, &period, &context.screen)?);
            snapshots.extend(own);
        }
        decisions
    } else {
        retention::plan_in(&vault, &snapshots, &rules, &period, &context.screen)?
    };
    let mut out = Output::new();
    if !context.global.json && !context.global.quiet {
        tell_plan(context, &snapshots, &decisions, &mut out)?;
        out.flush()?;
    }
    if !args.dry_run && !args.yes {
        permit(context, &rules, &snapshots, &decisions)?;
    }
    let options = collect_options(context, &args.collect);
    let report = if args.dry_run {
        prune::estimate(&vault, &decisions, &options, &context.screen)
    } else {
        prune::prune(&vault, &decisions, &options, &context.screen)
    };
    context.screen.clear();
    let report = report?;
    if !args.dry_run {
        offer::note_snapshots(&vault, &vault.snapshots(), &context.zone);
        key::settle(context, &vault);
    }
    let told = if context.global.json {
        out.json(&json(args.dry_run, &snapshots, &decisions, &report))
    } else {
        tell(context, args.dry_run, &vault, &report, &mut out)
    };
    let exit = tell_losses(context, &vault)?;
    match told.and_then(|()| out.finish()) {
        Err(failure) if failure.exit != Exit::Done => Err(failure),
        _ => Ok(exit),
    }
}

/// Warns of everything that is known to be lost: a snapshot that stays may need it.
fn tell_losses(context: &Context, vault: &Vault) -> Result<Exit, Failure> {
    let mut known = vault.known_findings(dates::now())?;
    known.retain(|finding| finding.exit() == Exit::Damage);
    for finding in &known {
        context.screen.warn(&format!("{}; it ends with: {}", accept::line(finding, &context.zone), finding.ends()));
    }
    Ok(exit_of(&known))
}

/// The output of `--dry-run --json` for these rules; without `estimate` only the snapshots, by the damage that is known.
#[cfg(feature = "ui")]
pub(super) fn told(
    context: &Context,
    vault: &Vault,
    rules: &Rules,
    estimate: bool,
    progress: &dyn crate::progress::Progress,
) -> Result<serde_json::Value, Failure> {
    let snapshots = vault.snapshots();
    let period = |time, length| policy::period(&context.zone, time, length);
    if !estimate {
        let decisions = retention::plan_known(vault, &snapshots, rules, &period)?;
        return Ok(serde_json::json!(plan_json(&snapshots, &decisions)));
    }
    let decisions = retention::plan_in(vault, &snapshots, rules, &period, progress)?;
    let options = CollectOptions {
        max_unused: crate::engine::prune::collect::MAX_UNUSED,
        max_moved: None,
        level: LEVEL,
        verify: true,
        clock: &dates::now,
        threads: context.threads(),
    };
    let report = prune::estimate(vault, &decisions, &options, progress)?;
    Ok(serde_json::json!(json(true, &snapshots, &decisions, &report)))
}

/// The configured rules for the chosen vault, by source.
fn configured_rules(context: &Context) -> Result<Vec<(String, Rules)>, Failure> {
    let Some(vault) = context.chosen()?.config else { return Ok(Vec::new()) };
    Ok(context.config()?.map(|config| policy::of_vault(config, &vault.name, dates::now())).unwrap_or_default())
}

/// Asks for permission to drop the snapshots shown. If nobody can be asked, the rules suffice, unless they drop
/// unusually many snapshots.
fn permit(context: &Context, rules: &Rules, snapshots: &[SnapshotInfo], decisions: &[Decision]) -> Result<(), Failure> {
    let dropped = decisions.iter().filter(|decision| !decision.keep()).count() as u64;
    if dropped == 0 {
        return Ok(());
    }
    if consent::can_ask(context) {
        let count = units::counted(dropped, "snapshot", "snapshots");
        return consent::ask(context, &format!("Drop {count} for good?"));
    }
    let why = if rules.last == Some(0) {
        Some("--keep 0 may leave no snapshot".to_owned())
    } else {
        policy::mostly_dropped(snapshots, decisions).map(|(source, host, dropped, all)| {
            let (source, host) = (Shown(source.as_bytes()), Shown(host.as_bytes()));
            format!("{dropped} of the {all} snapshots of {source} on {host} would be dropped, which is more than half")
        })
    };
    why.map_or(Ok(()), |why| {
        Err(Failure::usage(format!("{why}, and nobody is there to be asked"))
            .hint("Nothing was changed. Look at it with --dry-run, and give --yes to do it."))
    })
}

fn plan_json<'a>(snapshots: &'a [SnapshotInfo], decisions: &'a [Decision]) -> PlanJson<'a> {
    let rows = snapshots.iter().zip(decisions);
    PlanJson {
        snapshots: rows
            .map(|(info, decision)| DecisionJson {
                snapshot: info.id.to_string(),
                time: dates::exact(info.date),
                source: &info.body.source,
                host: &info.body.host,
                keep: decision.keep(),
                reasons: &decision.reasons,
            })
            .collect(),
        forgotten: decisions.iter().filter(|decision| !decision.keep()).count() as u64,
    }
}

fn json<'a>(
    dry_run: bool,
    snapshots: &'a [SnapshotInfo],
    decisions: &'a [Decision],
    report: &CollectReport,
) -> PruneJson<'a> {
    PruneJson {
        dry_run,
        plan: plan_json(snapshots, decisions),
        packs_deleted: report.packs_deleted,
        bytes_deleted: report.bytes_deleted,
        bytes_moved: report.bytes_moved,
        bytes_stored: report.bytes_stored,
        bytes_unused: report.bytes_unused,
        packs_waiting: report.packs_waiting,
        bytes_waiting: report.bytes_waiting,
        packs_unclaimed: report.packs_unclaimed,
        bytes_unclaimed: report.bytes_unclaimed,
        waiting_for: report.obstacles.iter().map(obstacle_word).collect(),
        held_up: report.held.iter().map(|(obstacle, bytes)| (obstacle_word(obstacle), *bytes)).collect(),
    }
}

fn obstacle_word(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Waiting(client) => format!("client {client}"),
        Obstacle::Missing(client) => format!("missing records of client {client}"),
        Obstacle::Fork(client) => format!("fork of client {client}"),
        Obstacle::Unknown(client) => format!("newer records of client {client}"),
        Obstacle::Session => "session".to_owned(),
    }
}

fn tell_plan(
    context: &Context,
    snapshots: &[SnapshotInfo],
    decisions: &[Decision],
    out: &mut Output,
) -> Result<(), Failure> {
    let surplus = twins::surplus(snapshots);
    let why = |id: &ObjectName| match surplus.get(id) {
        Some(other) => format!("{} is the same", other.short()),
        None => "no rule keeps it".to_owned(),
    };
    let row = |(info, decision): (&SnapshotInfo, &Decision)| {
        vec![
            if decision.keep() { "keep" } else { "drop" }.to_owned(),
            dates::shown(info.date, &context.zone),
            info.id.short(),
            Shown(info.body.source.as_bytes()).to_string(),
            Shown(info.body.host.as_bytes()).to_string(),
            if decision.keep() { decision.reasons.join(", ") } else { why(&info.id) },
        ]
    };
    let rows: Vec<Vec<String>> = snapshots.iter().zip(decisions).map(row).collect();
    let mut lines = table::render(COLUMNS, &rows, out.width).into_iter();
    if let Some(titles) = lines.next() {
        out.head(&titles)?;
    }
    lines.try_for_each(|line| out.line(line))
}

fn tell(
    context: &Context,
    dry_run: bool,
    vault: &Vault,
    report: &CollectReport,
    out: &mut Output,
) -> Result<(), Failure> {
    if context.global.quiet {
        return Ok(());
    }
    let copied = if report.bytes_moved > 0 {
        format!("; {} beside them copied", units::size(report.bytes_moved))
    } else {
        String::new()
    };
    let packs = units::counted(report.packs_deleted, "pack", "packs");
    if report.nothing_new {
        out.say("Nothing is to be given back since the last time.")?;
    } else if dry_run && report.packs_deleted == 0 {
        out.say("Dry run: nothing was changed. There is no space to be given back.")?;
    } else if dry_run {
        out.say(format_args!(
            "Dry run: nothing was changed. {packs} of {} would be deleted{copied}.",
            units::size(report.bytes_deleted)
        ))?;
    } else {
        let freed = report.bytes_deleted.saturating_sub(report.bytes_stored);
        out.say(format_args!("{} given back ({packs} deleted{copied}).", units::size(freed)))?;
    }
    if report.packs_waiting > 0 {
        out.say(format_args!(
            "{} of {} will be deleted by a later prune{}",
            units::counted(report.packs_waiting, "pack", "packs"),
            units::size(report.bytes_waiting),
            if report.obstacles.is_empty() { "." } else { ":" }
        ))?;
        tell_obstacles(vault, report, out)?;
    }
    if report.packs_unclaimed > 0 {
        out.say(format_args!(
            "{} of {} {} to work that goes on, or to a machine that lost its state: see vault doctor",
            units::counted(report.packs_unclaimed, "pack", "packs"),
            units::size(report.bytes_unclaimed),
            if report.packs_unclaimed == 1 { "belongs" } else { "belong" }
        ))?;
    }
    Ok(())
}

/// Explains what delays the deletion of condemned packs, how many bytes are affected, and what to do about it.
fn tell_obstacles(vault: &Vault, report: &CollectReport, out: &mut Output) -> Result<(), Failure> {
    let (chains, own) = (vault.chains(), vault.client());
    let short = |client: &crate::id::ClientId| client.to_string()[..8].to_owned();
    let who = |client: &crate::id::ClientId| {
        let join = chains.join(client);
        let name = join.map_or_else(String::new, |join| format!(" ({}@{})", join.user, join.host));
        format!("{}{}", short(client), Shown(name.as_bytes()))
    };
    for obstacle in &report.obstacles {
        let line = match obstacle {
            Obstacle::Waiting(client) => format!(
                "client {} has not been seen since; if it is gone for good: vault client retire {}",
                who(client),
                short(client)
            ),
            Obstacle::Missing(client) if Some(*client) == own => {
                "records of this machine itself are missing from the log; what it remembers is put back by: vault repair".to_owned()
            }
            Obstacle::Missing(client) => format!(
                "records of client {} have not arrived; if they are lost: vault client retire {}",
                who(client),
                short(client)
            ),
            Obstacle::Fork(client) => format!(
                "client {} was cloned or set back to an earlier state: vault client retire {}",
                who(client),
                short(client)
            ),
            Obstacle::Unknown(client) => format!("client {} uses a newer vault: update this one", who(client)),
            Obstacle::Session => "another vault command on this machine is still running".to_owned(),
        };
        let held = report.held.get(obstacle).map_or_else(String::new, |bytes| format!("{}: ", units::size(*bytes)));
        out.say(format_args!("  {held}{line}"))?;
    }
    Ok(())
}

/// Reports the action on these snapshots.
fn said(context: &Context, found: &[SnapshotInfo], done: &str, then: &str) -> Result<Exit, Failure> {
    let mut out = Output::new();
    if context.global.json {
        let named = |info: &SnapshotInfo| (info.id.to_string(), dates::exact(info.date));
        let named = found.iter().map(|info| {
            let (id, time) = named(info);
            NamedJson { id, time, source: &info.body.source, host: &info.body.host }
        });
        let named = named.collect();
        out.json(&SaidJson { snapshots: found.iter().map(|info| info.id.to_string()).collect(), named })?;
    } else if !context.global.quiet {
        for info in found {
            out.say(format_args!("{done} {}.", select::named(info, &context.zone)))?;
        }
        if !then.is_empty() {
            out.line(then)?;
        }
    }
    out.finish().map(|()| Exit::Done)
}

/// Runs `vault forget`.
pub(super) fn forget(context: &Context, args: &ForgetArgs) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let snapshots = vault.snapshots();
    let found = select::find_all(context, &vault, &snapshots, &args.filter, &args.snapshots, Aim::Write)?;
    if let Some(pinned) = found.iter().find(|info| info.pinned) {
        return Err(Failure::new(format!("snapshot {} is pinned, so it is not forgotten", pinned.id.short()))
            .hint(format!("Let it go with: vault unpin {}", pinned.id.short())));
    }
    if let Some(last) = found.iter().find(|info| policy::is_last_complete(&snapshots, info))
        && !args.yes
        && consent::can_ask(context)
    {
        let last = select::named(last, &context.zone);
        consent::ask(context, &format!("{last} is the last complete snapshot of its source. Forget it all the same?"))?;
    }
    let ids: Vec<ObjectName> = found.iter().map(|info| info.id).collect();
    prune::say(&vault, RecordBody::Forget(ids), dates::now(), &context.screen)?;
    offer::note_snapshots(&vault, &vault.snapshots(), &context.zone);
    said(context, &found, "Forgot snapshot", "The space is given back by: vault prune")
}

/// Runs `vault pin` and `vault unpin`.
pub(super) fn pin(context: &Context, args: &PinArgs, pinned: bool) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let found = select::find_all(context, &vault, &vault.snapshots(), &args.filter, &args.snapshots, Aim::Write)?;
    let snapshots: Vec<ObjectName> = found.iter().map(|info| info.id).collect();
    let body = RecordBody::Pin { snapshots, pinned };
    prune::say(&vault, body, dates::now(), &context.screen)?;
    said(context, &found, if pinned { "Pinned snapshot" } else { "Unpinned snapshot" }, "")
}
