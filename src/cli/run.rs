//! `vault run`: everything that is due, in one go.
//!
//! What is due, what earlier runs did, and what this one did is in [`vault::service`]. Here: [`work`] doing it, and [`care`] for the vaults ·
//! [`hooks`] commands before and after · [`now`] telling others while it goes on, and [`follow`] showing that · [`overview`] how things
//! stand · [`notice`] who is told · [`then`] what follows.

mod care;
mod follow;
mod hooks;
mod notice;
pub mod now;
pub mod overview;
mod then;
mod work;

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
pub use vault::service::{list, plan, report, status};

use notice::Ping;
use now::Journal;
use plan::Due;
use plan::Job;
use plan::Plan;
use report::Known;
use report::Outcome;
use report::Report;
use report::State;
use status::Status;
use vault::engine::place;
use vault::progress::Progress;
use vault::tree::Time;
use vault::vault::findings::last_known;
use work::Crew;
use work::Wishes;

use crate::cli::args::DeliveryArg;
use crate::cli::args::Kdf;
use crate::cli::args::NewVaultArgs;
use crate::cli::args::RunArgs;
use crate::cli::config::NotifyConfig;
use crate::cli::config::RunConfig;
use crate::cli::config::VaultConfig;
use crate::cli::context::Chosen;
use crate::cli::context::Context;
use crate::cli::context::place_name;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::init;
use crate::cli::machine::Here;
use crate::cli::machine::Machine;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::units;
use vault::service::ahead::measure;
use vault::service::drill::Last;
use vault::service::schedule::power;

/// How long the sizes of sources are measured where none is remembered.
const MEASURE_MAX: Duration = Duration::from_secs(5);
/// How many reports of runs are kept.
const REPORTS_KEPT: usize = 200;

/// Where runs are remembered.
pub fn folder(context: &Context) -> Result<PathBuf, Failure> {
    Ok(context.state_folder()?.join("run"))
}

/// Runs `vault run`.
pub fn run(context: &Context, args: &RunArgs) -> Result<Exit, Failure> {
    if args.follow || args.stop {
        return follow::run(context, args.stop, args.follow);
    }
    let begun = dates::now();
    if args.background {
        vault::fs::low_priority();
    }
    let config = context.config()?;
    let (mut plan, settings, notify) = match (&args.list, config) {
        (Some(list), config) => {
            let plan = list::read(list, config, Here.home().as_deref())?;
            let (run, notify) = config.map(|config| (config.run.clone(), config.notify.clone())).unwrap_or_default();
            (plan, run, notify)
        }
        (None, Some(config)) => {
            if config.sources.is_empty() {
                return Err(Failure::usage("the configuration has no source: there is nothing to do")
                    .hint(format!("Add one to {}", context.config_place()?.display())));
            }
            (Plan::new(config, &args.names)?, config.run.clone(), config.notify.clone())
        }
        (None, None) => {
            return Err(Failure::usage(format!("there is no configuration {}", context.config_place()?.display()))
                .hint("Write one with vault config init, or give a list: vault run --list FILE"));
        }
    };
    let folder = folder(context)?;
    let held = if args.dry_run { None } else { status::lock(&folder)? };
    if held.is_none() && !args.dry_run {
        return another_run(context, args);
    }
    let mut status = Status::load(&folder);
    if args.background {
        status.last_background = Some(begun.secs);
        if !settings.on_battery && power::on_battery(&Here) {
            status.save(&folder)?;
            return say(context, "On battery: it waits for the mains (on-battery = false in the configuration).");
        }
    }
    plan.decide(&status, begun.secs, args.now || args.list.is_some(), &|place| {
        context.id_in(place).map(|id| id.to_string())
    });
    plan.arrange(settings.order, &|job, vaults| size(job, vaults, &status));
    if args.dry_run {
        return trial(context, &plan, begun);
    }
    if !plan.jobs.iter().any(Job::is_due) {
        return finish_idle(context, args, &plan, &notify, &mut status, &folder, begun);
    }
    work(context, args, &plan, &settings, &notify, &mut status, &folder, begun)
}

#[allow(clippy::too_many_arguments)] // each is one thing, and they are used once
fn work(
    context: &Context,
    args: &RunArgs,
    plan: &Plan,
    settings: &RunConfig,
    notify: &NotifyConfig,
    status: &mut Status,
    folder: &Path,
    begun: Time,
) -> Result<Exit, Failure> {
    if args.list.is_some() {
        make_vaults(context, plan)?;
    }
    let check_is_due = |vault: &&VaultConfig| {
        let last = status.checked.get(&vault.place.to_string());
        let is_old = |every: Duration| {
            last.is_none_or(|last| {
                u64::try_from(begun.secs.saturating_sub(*last)).map_or(true, |age| age >= every.as_secs())
            })
        };
        vault.check_every.is_some_and(is_old)
    };
    let check = plan.vaults.iter().filter(check_is_due).filter(|_| !args.no_check);
    let wishes = Wishes {
        prune: !args.no_prune,
        check: check.map(|vault| vault.place.to_string()).collect::<BTreeSet<_>>(),
        drill: !args.no_check,
        parallel: settings.parallel,
        digests: context.global.json || args.report.is_some(),
    };
    if let Some(address) = &notify.ping {
        ping(context, address, Ping::Start, "");
    }
    context.screen.watch_interrupts();
    let targets = plan.jobs.iter().flat_map(|job| &job.targets);
    let due = targets.filter(|target| target.due == Due::Now).count();
    let journal = Journal::begin(&context.screen, folder, begun, args.background, due);
    let done = work_told(context, args, plan, wishes, notify, status, folder, begun, &journal);
    journal.end(&context.screen, &done);
    done
}

/// Works, while others are told of it.
#[allow(clippy::too_many_arguments)] // each is one thing, and they are used once
fn work_told(
    context: &Context,
    args: &RunArgs,
    plan: &Plan,
    wishes: Wishes,
    notify: &NotifyConfig,
    status: &mut Status,
    folder: &Path,
    begun: Time,
    journal: &Journal,
) -> Result<Exit, Failure> {
    let start = Instant::now();
    let mut report = Crew::new(context, plan, wishes, journal).work()?;
    report.known = known(context, plan);
    report.drills = drills(context, plan);
    tell_known(context, &report);
    let ended = dates::now();
    remember(status, &report, ended.secs);
    let mut exit = report.exit();
    let summary = report::summary(&report, start.elapsed());
    tell_others(context, notify, &report, status, &summary, ended.secs);
    status.save(folder)?;
    if let Err(failure) = write_report(args, &report, begun, ended) {
        context.screen.warn(&failure.what);
        exit = if exit == Exit::Done { failure.exit } else { exit };
    }
    if let Err(error) = keep_report(folder, &report, begun, ended) {
        context.screen.detail(&format!("the report of this run cannot be kept: {error}"));
    }
    journal.summary(&summary);
    let mut out = Output::new();
    if context.global.json {
        out.json(&report.json(begun, ended))?;
    } else if !context.global.quiet {
        out.styled(Style::Bold, &summary)?;
    }
    out.finish()?;
    act_then(context, args, plan, exit)
}

/// Keeps the report of a run beside those before it, of which the last [`REPORTS_KEPT`] stay.
fn keep_report(folder: &Path, report: &Report, begun: Time, ended: Time) -> std::io::Result<()> {
    let path = report_path(folder, &now::name(begun));
    let folder = folder.join("reports");
    vault::fs::make_private_folder(&folder)?;
    vault::fs::replace_private_file(&path, &serde_json::to_vec(&report.json(begun, ended))?)?;
    let kept = reports(&folder);
    let surplus = kept.len().saturating_sub(REPORTS_KEPT);
    kept.iter().take(surplus).try_for_each(std::fs::remove_file)
}

/// Where the report of a run lies.
fn report_path(folder: &Path, run: &str) -> PathBuf {
    folder.join("reports").join(format!("{run}.json"))
}

/// The reports that are kept, the oldest first.
fn reports(folder: &Path) -> Vec<PathBuf> {
    let found = vault::folder::entries(folder).into_iter().flatten().filter_map(|found| Some(found.ok()?.path()));
    let mut reports: Vec<_> = found.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    reports.sort();
    reports
}

/// What earlier runs did, as `--json` printed it, the newest first.
#[cfg(feature = "ui")]
pub fn told(context: &Context) -> Result<serde_json::Value, Failure> {
    let kept = reports(&folder(context)?.join("reports"));
    let read = |path: &PathBuf| serde_json::from_slice(&vault::ownfile::read(path).ok()?).ok();
    let runs: Vec<serde_json::Value> = kept.iter().rev().filter_map(read).collect();
    Ok(serde_json::json!({ "runs": runs }))
}

/// How many lines of the log of a run are told at once.
#[cfg(feature = "ui")]
const LINES: usize = 200;

/// The run that goes on, whoever started it, with the last lines of its log.
#[cfg(feature = "ui")]
pub fn now_with_log(context: &Context) -> Result<serde_json::Value, Failure> {
    let folder = folder(context)?;
    let told = now::look(&folder);
    let run = told.as_ref().and_then(|told| told["run"].as_str()).unwrap_or_default();
    let lines = now::log_from(&folder, run, 0).0;
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Ok(serde_json::json!({ "running": told.is_some(), "now": told, "log": last }))
}

/// Asks a run to stop, if it is the one that goes on.
#[cfg(feature = "ui")]
pub fn stop(context: &Context, run: &str) -> Result<(), Failure> {
    let folder = folder(context)?;
    if now::look(&folder).is_none_or(|told| told["run"] != run) {
        return Err(Failure::new("this run goes on no more"));
    }
    now::ask_to_stop(&folder, run)
}

/// Does what `--then` says.
fn act_then(context: &Context, args: &RunArgs, plan: &Plan, exit: Exit) -> Result<Exit, Failure> {
    let Some(action) = &args.then else { return Ok(exit) };
    if then::is_wanted(exit, args.then_always) {
        let removable = plan.vaults.iter().filter(|vault| vault.removable);
        let removable: Vec<&Path> = removable.filter_map(|vault| vault.place.folder()).collect();
        then::act(action, exit, &removable)?;
    } else if !context.global.quiet {
        context.screen.warn(&format!("not done, as not all went well: --then {action} (see --then-always)"));
    }
    Ok(exit)
}

fn another_run(context: &Context, args: &RunArgs) -> Result<Exit, Failure> {
    let wants_more = !args.names.is_empty() || args.now || args.list.is_some();
    if wants_more || args.report.is_some() || args.then.is_some() {
        return Err(Failure::new("another vault run is going on").hint("Try again when it is done."));
    }
    say(context, "Another vault run is going on: it does what is due.")
}

fn say(context: &Context, text: &str) -> Result<Exit, Failure> {
    let mut out = Output::new();
    if context.global.json {
        out.json(&Report::default().json(dates::now(), dates::now()))?;
    } else if !context.global.quiet {
        out.say(text)?;
    }
    out.finish().map(|()| Exit::Done)
}

/// What is known to be wrong with the vaults of a plan, as it was when each was last opened on this machine.
fn known(context: &Context, plan: &Plan) -> Vec<Known> {
    let Ok(state) = context.state_folder() else { return Vec::new() };
    let look = |vault: &VaultConfig| {
        let id = *place::known(&state, &place_name(&vault.place)).first()?;
        let (exit, findings) = last_known(&state.join(id.to_string()));
        let place = vault.place.to_string();
        (exit != Exit::Done).then(|| Known { vault: vault.name.clone(), place, exit, findings })
    };
    plan.vaults.iter().filter_map(look).collect()
}

/// The last restore that was tried of each vault of a plan on this machine.
fn drills(context: &Context, plan: &Plan) -> Vec<(String, Last)> {
    let Ok(state) = context.state_folder() else { return Vec::new() };
    let look = |vault: &VaultConfig| {
        let id = *place::known(&state, &place_name(&vault.place)).first()?;
        Some((vault.place.to_string(), Last::in_folder(&state.join(id.to_string()))?))
    };
    plan.vaults.iter().filter_map(look).collect()
}

/// Says what is known to be wrong.
fn tell_known(context: &Context, report: &Report) {
    for known in &report.known {
        for finding in &known.findings {
            context.screen.warn(&format!("{}: {finding}", known.vault));
        }
    }
}

fn finish_idle(
    context: &Context,
    args: &RunArgs,
    plan: &Plan,
    notify: &NotifyConfig,
    status: &mut Status,
    folder: &Path,
    begun: Time,
) -> Result<Exit, Failure> {
    let mut report = idle(plan, begun);
    report.known = known(context, plan);
    report.drills = drills(context, plan);
    tell_known(context, &report);
    let exit = report.exit();
    if exit != Exit::Done {
        tell_others(context, notify, &report, status, "nothing was due", begun.secs);
    }
    status.save(folder)?;
    write_report(args, &report, begun, dates::now())?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&report.json(begun, dates::now()))?;
    } else if !context.global.quiet {
        let next = plan.next().map_or_else(String::new, |(source, vault, time)| {
            format!(" Next: {source} → {vault} in {}.", units::about(time))
        });
        out.say(format_args!("Nothing is due.{next}"))?;
    }
    out.finish()?;
    act_then(context, args, plan, exit)
}

/// What would be done.
fn trial(context: &Context, plan: &Plan, begun: Time) -> Result<Exit, Failure> {
    let mut report = idle(plan, begun);
    report.known = known(context, plan);
    tell_known(context, &report);
    let mut out = Output::new();
    if context.global.json {
        out.json(&report.json(begun, dates::now()))?;
    } else {
        for outcome in &report.outcomes {
            out.line(report::line(outcome).0)?;
        }
        out.styled(Style::Bold, "Dry run: nothing was done.")?;
    }
    out.finish().map(|()| report.exit())
}

/// What is due and what is not, before anything is done.
fn idle(plan: &Plan, now: Time) -> Report {
    let outcomes = plan.jobs.iter().flat_map(|job| {
        job.targets.iter().map(move |target| {
            let vault = &plan.vaults[target.vault];
            let (state, due_in) = match target.due {
                Due::Now => (State::Due, None),
                Due::In(time) => (State::NotDue, Some(time)),
            };
            Outcome {
                source: job.source.name.clone(),
                vault: vault.name.clone(),
                place: vault.place.to_string(),
                id: None,
                time: now,
                state,
                snapshot: None,
                digest: None,
                body: None,
                overdue: target.overdue,
                due_in,
                trouble: None,
            }
        })
    });
    Report { outcomes: outcomes.collect(), ..Report::default() }
}

/// How many bytes a source has: as remembered, else as a quick look finds.
fn size(job: &Job, vaults: &[VaultConfig], status: &Status) -> u64 {
    let places = job.targets.iter().map(|target| vaults[target.vault].place.to_string());
    let known = places.filter_map(|place| status.pair(&job.source.name, &place)).filter(|pair| pair.taken.is_some());
    known.map(|pair| pair.bytes).max().unwrap_or_else(|| match measure(&job.source.paths, MEASURE_MAX, &Here) {
        (bytes, true) => bytes,
        (_, false) => u64::MAX,
    })
}

/// Makes the vaults of a list that are not there yet.
fn make_vaults(context: &Context, plan: &Plan) -> Result<(), Failure> {
    for vault in &plan.vaults {
        if context.has_vault(&vault.place)? {
            continue;
        }
        let new = NewVaultArgs {
            recovery_key: false,
            kdf: Kdf::Standard,
            delivery: None::<DeliveryArg>,
            label: None,
            another: false,
            chunk_avg: 64 << 10,
        };
        let chosen = Chosen { place: vault.place.clone(), config: Some(vault.clone()) };
        let created = init::create_at(context, &chosen, &new)?;
        context.remember(&vault.place, created.password.again());
        if !context.global.json {
            let mut out = Output::new();
            init::tell(context, &created, &mut out)?;
            out.finish()?;
        }
    }
    Ok(())
}

/// Keeps what the next run must know.
fn remember(status: &mut Status, report: &Report, now: i64) {
    status.last_run = Some(now);
    for outcome in report.outcomes.iter().filter(|outcome| outcome.state != State::NotDue) {
        let pair = status.pair_mut(&outcome.source, &outcome.vault, &outcome.place);
        pair.tried = outcome.time.secs;
        pair.first = pair.first.or(Some(outcome.time.secs)).filter(|_| !outcome.state.is_taken());
        outcome.state.word().clone_into(&mut pair.result);
        if let Some(body) = outcome.body.as_deref().filter(|_| outcome.state.is_taken()) {
            pair.taken = Some(outcome.time.secs);
            pair.id.clone_from(&outcome.id);
            (pair.files, pair.bytes) = (body.files, body.bytes);
            (pair.bytes_stored, pair.duration_ms) = (body.bytes_stored, body.duration_ms);
        }
    }
    for care in &report.cares {
        for source in &care.held {
            let pair = status.pair_mut(source, &care.vault, &care.place);
            pair.held = Some(pair.tried);
        }
        for source in &care.pruned {
            status.pair_mut(source, &care.vault, &care.place).held = None;
        }
    }
    for care in report.cares.iter().filter(|care| care.checked.is_some()) {
        status.checked.insert(care.place.clone(), now);
    }
}

fn ping(context: &Context, address: &str, what: Ping, text: &str) {
    if let Err(error) = notice::ping(address, what, text) {
        context.screen.warn(&error);
    }
}

fn tell_others(
    context: &Context,
    notify: &NotifyConfig,
    report: &Report,
    status: &mut Status,
    summary: &str,
    now: i64,
) {
    let troubles = report.troubles();
    if let Some(address) = &notify.ping {
        let text = troubles.iter().chain([&summary.to_owned()]).cloned().collect::<Vec<_>>().join("\n");
        let good = matches!(report.exit(), Exit::Done | Exit::Skipped);
        ping(context, address, if good { Ping::Good } else { Ping::Bad }, &text);
    }
    if let Some((title, text)) = notice::desktop_text(notify.desktop, report, status, now)
        && let Err(error) = notice::show(&title, &text)
    {
        // A machine without a desktop is no reason to worry.
        context.screen.detail(&error);
    }
    if let Some(path) = &notify.prometheus
        && let Err(failure) = notice::replace_file(path, &notice::metrics(status, report))
    {
        context.screen.warn(&failure.what);
    }
}

fn write_report(args: &RunArgs, report: &Report, begun: Time, ended: Time) -> Result<(), Failure> {
    let Some(path) = &args.report else { return Ok(()) };
    let text = serde_json::to_string_pretty(&report.json(begun, ended))
        .map_err(|error| Failure::caused(format!("cannot write {}", quoted(&path.display().to_string())), &error))?;
    notice::replace_file(path, &(text + "\n"))
}
