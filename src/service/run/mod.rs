//! A run: everything that is due, in one go.
//!
//! [`plan`](crate::service::plan) decides what is due, and [`report`] holds the results. In this module:
//! - `work` takes the snapshots, and `care` maintains the vaults;
//! - `hooks` runs the commands before and after;
//! - [`now`] informs other processes while the run goes on;
//! - [`history`] keeps the reports of earlier runs, and [`overview`] shows the state of all sources and vaults;
//! - `notice` notifies the user and other services;
//! - `observer` holds a run's surroundings, its options and the receiver of its results;
//! - `then` performs the action after the run.

mod care;
pub mod history;
mod hooks;
mod notice;
pub mod now;
mod observer;
pub mod overview;
mod then;
mod work;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::failure::{Exit, Failure, quoted};
use crate::service::ahead::measure;
use crate::service::config::{NotifyConfig, RunConfig, VaultConfig};
use crate::service::drill::Last;
use crate::service::machine::Machine;
use crate::service::plan::{Due, Job, Plan};
use crate::service::report::{self, Outcome, Report, State};
use crate::service::schedule::power;
use crate::service::status::{self, Status};
use crate::tree::Time;
use notice::Ping;
use now::Journal;
pub use observer::*;
use overview::known;
use work::{Crew, Wishes};

/// The longest time spent measuring a source whose size is not remembered.
const MEASURE_MAX: Duration = Duration::from_secs(5);

/// Takes every source that is due, and maintains the vaults. Returns the exit code.
///
/// # Errors
/// If another run is in the way, or if the results cannot be recorded or reported. Failures of single sources and
/// vaults are in the report.
pub fn run(
    at: &Setting<'_>,
    plan: &mut Plan,
    (settings, notify): (&RunConfig, &NotifyConfig),
    wish: &Wish<'_>,
) -> Result<Exit, Failure> {
    let begun = at.machine.now();
    let nothing = |way, plan: &Plan| {
        let (report, ended) = (&Report::default(), at.machine.now());
        at.observer.done(&Ran { way, plan, report, summary: "", begun: ended, ended }).map(|()| Exit::Done)
    };
    let held = if wish.dry_run { None } else { status::lock(at.runs)? };
    if held.is_none() && !wish.dry_run {
        if wish.own {
            return Err(Failure::new("another vault run is going on").hint("Try again when it is done."));
        }
        return nothing(Way::Another, plan);
    }
    let mut status = Status::load(at.runs);
    if wish.background {
        status.last_background = Some(begun.secs);
        if !settings.on_battery && power::on_battery(at.machine) {
            status.save(at.runs)?;
            return nothing(Way::OnBattery, plan);
        }
    }
    plan.decide(&status, begun.secs, wish.force, &|place| at.doors.id_in(place).map(|id| id.to_string()));
    plan.arrange(settings.order, &|job, vaults| size(job, vaults, &status, at.machine));
    let one = One { at, plan, notify, wish, begun };
    if wish.dry_run {
        return one.trial();
    }
    if !plan.jobs.iter().any(Job::is_due) {
        return one.idle(&mut status);
    }
    one.work(settings, &mut status)
}

/// A run once it has been decided what is due.
struct One<'a> {
    at: &'a Setting<'a>,
    plan: &'a Plan,
    notify: &'a NotifyConfig,
    wish: &'a Wish<'a>,
    begun: Time,
}

impl One<'_> {
    fn work(&self, settings: &RunConfig, status: &mut Status) -> Result<Exit, Failure> {
        let Self { at, plan, wish, begun, .. } = *self;
        if wish.makes_vaults {
            for vault in &plan.vaults {
                if !at.doors.has_vault(&vault.place)? {
                    at.doors.make(vault)?;
                }
            }
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
        let check = plan.vaults.iter().filter(check_is_due).filter(|_| wish.check);
        let wishes = Wishes {
            prune: wish.prune,
            check: check.map(|vault| vault.place.to_string()).collect::<BTreeSet<_>>(),
            drill: wish.check,
            parallel: settings.parallel,
            digests: wish.digests,
        };
        if let Some(address) = &self.notify.ping {
            self.ping(address, Ping::Start, "");
        }
        at.observer.begin();
        let targets = plan.jobs.iter().flat_map(|job| &job.targets);
        let due = targets.filter(|target| target.due == Due::Now).count();
        let clock = (begun, at.machine.clock());
        let journal = Journal::begin(at.observer.watch(), at.runs, clock, wish.background, due);
        let done = self.work_told(wishes, status, &journal);
        journal.end(&done);
        done
    }

    /// Does the work while the journal is open.
    fn work_told(&self, wishes: Wishes, status: &mut Status, journal: &Journal) -> Result<Exit, Failure> {
        let Self { at, plan, begun, .. } = *self;
        let start = at.machine.elapsed();
        let mut report = Crew::new(at, plan, wishes, journal).work()?;
        report.known = known(at.doors, plan);
        report.drills = drills(at.doors, plan);
        self.tell_known(&report);
        let ended = at.machine.now();
        remember(status, &report, ended.secs);
        let mut exit = report.exit();
        let summary = report::summary(&report, at.machine.elapsed().saturating_sub(start));
        self.tell_others(&report, status, &summary, ended.secs);
        status.save(at.runs)?;
        if let Err(failure) = self.write_report(&report, ended) {
            at.observer.progress().warn(&failure.what);
            exit = if exit == Exit::Done { failure.exit } else { exit };
        }
        if let Err(error) = history::keep(at.runs, &report, begun, ended) {
            at.observer.progress().detail(&format!("the report of this run cannot be kept: {error}"));
        }
        journal.summary(&summary);
        at.observer.done(&Ran { way: Way::Worked, plan, report: &report, summary: &summary, begun, ended })?;
        self.act_then(exit)
    }

    fn idle(&self, status: &mut Status) -> Result<Exit, Failure> {
        let Self { at, plan, begun, .. } = *self;
        let mut report = idle(plan, begun);
        report.known = known(at.doors, plan);
        report.drills = drills(at.doors, plan);
        self.tell_known(&report);
        let exit = report.exit();
        if exit != Exit::Done {
            self.tell_others(&report, status, "nothing was due", begun.secs);
        }
        status.save(at.runs)?;
        self.write_report(&report, at.machine.now())?;
        let ended = at.machine.now();
        at.observer.done(&Ran { way: Way::Idle, plan, report: &report, summary: "", begun, ended })?;
        self.act_then(exit)
    }

    /// Reports what would be done.
    fn trial(&self) -> Result<Exit, Failure> {
        let Self { at, plan, begun, .. } = *self;
        let mut report = idle(plan, begun);
        report.known = known(at.doors, plan);
        self.tell_known(&report);
        let ended = at.machine.now();
        at.observer.done(&Ran { way: Way::Trial, plan, report: &report, summary: "", begun, ended })?;
        Ok(report.exit())
    }

    /// Performs the action after the run, if there is one and the exit code allows it.
    fn act_then(&self, exit: Exit) -> Result<Exit, Failure> {
        let Some((action, always)) = self.wish.then else { return Ok(exit) };
        if then::is_wanted(exit, always) {
            let removable = self.plan.vaults.iter().filter(|vault| vault.removable);
            let removable: Vec<&Path> = removable.filter_map(|vault| vault.place.folder()).collect();
            then::act(action, exit, &removable, self.at.machine)?;
        } else {
            self.at.observer.left_undone(action);
        }
        Ok(exit)
    }

    /// Warns of every known finding.
    fn tell_known(&self, report: &Report) {
        for known in &report.known {
            for finding in &known.findings {
                self.at.observer.progress().warn(&format!("{}: {finding}", known.vault));
            }
        }
    }

    fn ping(&self, address: &str, what: Ping, text: &str) {
        if let Err(error) = notice::ping(address, what, text) {
            self.at.observer.progress().warn(&error);
        }
    }

    fn tell_others(&self, report: &Report, status: &mut Status, summary: &str, now: i64) {
        let (notify, progress) = (self.notify, self.at.observer.progress());
        let troubles = report.troubles();
        if let Some(address) = &notify.ping {
            let text = troubles.iter().chain([&summary.to_owned()]).cloned().collect::<Vec<_>>().join("\n");
            let good = matches!(report.exit(), Exit::Done | Exit::Skipped);
            self.ping(address, if good { Ping::Good } else { Ping::Bad }, &text);
        }
        if let Some((title, text)) = notice::desktop_text(notify.desktop, report, status, now)
            && let Err(error) = notice::show(&title, &text, self.at.machine)
        {
            // The failure is only a detail: many machines have no desktop.
            progress.detail(&error);
        }
        if let Some(path) = &notify.prometheus
            && let Err(failure) = notice::replace_file(path, &notice::metrics(status, report))
        {
            progress.warn(&failure.what);
        }
    }

    fn write_report(&self, report: &Report, ended: Time) -> Result<(), Failure> {
        let Some(path) = self.wish.report else { return Ok(()) };
        let text = serde_json::to_string_pretty(&report.json(self.begun, ended)).map_err(|error| {
            Failure::caused(format!("cannot write {}", quoted(&path.display().to_string())), &error)
        })?;
        notice::replace_file(path, &(text + "\n"))
    }
}

/// The last restore drill of each vault of a plan on this machine.
fn drills(doors: &dyn Doors, plan: &Plan) -> Vec<(String, Last)> {
    let Some(state) = doors.state() else { return Vec::new() };
    let look = |vault: &VaultConfig| {
        let id = doors.known_in(&vault.place)?;
        Some((vault.place.to_string(), Last::in_folder(&state.join(id.to_string()))?))
    };
    plan.vaults.iter().filter_map(look).collect()
}

/// A report of what is due and what is not, before any work.
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

/// The size of a source in bytes: the remembered one, or else the result of a short measurement; `u64::MAX` if that did
/// not finish.
fn size(job: &Job, vaults: &[VaultConfig], status: &Status, machine: &dyn Machine) -> u64 {
    let places = job.targets.iter().map(|target| vaults[target.vault].place.to_string());
    let known = places.filter_map(|place| status.pair(&job.source.name, &place)).filter(|pair| pair.taken.is_some());
    known.map(|pair| pair.bytes).max().unwrap_or_else(|| match measure(&job.source.paths, MEASURE_MAX, machine) {
        (bytes, true) => bytes,
        (_, false) => u64::MAX,
    })
}

/// Records the results that later runs need.
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
