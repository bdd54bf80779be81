//! `vault schedule`: the schedule that starts `vault run` ([`crate::service::schedule`]).

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::progress::Progress;
use crate::service::schedule;
use crate::service::schedule::At;
use crate::service::schedule::DEFAULT_EVERY;
use crate::service::schedule::Job;
use crate::service::schedule::Kind;
use crate::service::schedule::Scheduler;

use crate::cli::args::ScheduleCommand;
use crate::cli::args::SchedulerArg;
use crate::cli::config::Config;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::machine::Here;
use crate::cli::machine::Machine;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::run::folder as run_folder;
use crate::cli::units;

impl From<SchedulerArg> for Kind {
    fn from(arg: SchedulerArg) -> Self {
        match arg {
            SchedulerArg::Systemd => Self::Systemd,
            SchedulerArg::Cron => Self::Cron,
            SchedulerArg::Launchd => Self::Launchd,
            SchedulerArg::TaskScheduler => Self::Tasks,
        }
    }
}

/// Runs `vault schedule ...`.
pub fn run(context: &Context, command: &ScheduleCommand) -> Result<Exit, Failure> {
    match command {
        ScheduleCommand::Install { every, print, scheduler, system } => {
            let job = job(context, *every, *system)?;
            if !print {
                return install(context, &job, *system);
            }
            let runs = run_folder(context)?;
            let at = At { machine: &Here, runs: &runs, system: *system };
            let scheduler = scheduler.map_or_else(|| at.own(), |scheduler| Ok(at.scheduler(scheduler.into())))?;
            show(&job, scheduler.as_ref())
        }
        ScheduleCommand::Status { system } => status(context, *system),
        ScheduleCommand::Remove { system } => remove(context, *system),
    }
}

/// The job of a schedule: this program, with options that lead to the same configuration and state. The system starts
/// it without a home folder, so the paths are written out.
fn job(context: &Context, every: Duration, system: bool) -> Result<Job, Failure> {
    let runs = run_folder(context)?;
    Ok(Job::new(program()?, places(context, system)?, every, context.config()?, &runs))
}

/// The path of this program.
pub fn program() -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| Failure::caused("cannot find where this program lies", &error);
    env::current_exe().and_then(fs::canonicalize).map_err(failed)
}

/// The options that lead a job of the system to the same configuration and state, each with its path.
pub fn places(context: &Context, system: bool) -> Result<Vec<(&'static str, String)>, Failure> {
    let current = current_folder()?;
    let mut args = Vec::new();
    // A scheduled job does not have the variables of this shell.
    let config = match &context.global.config {
        None if system || Here.is_set("XDG_CONFIG_HOME") => Some(context.config_place()?),
        given => given.clone(),
    };
    let state = match &context.global.state {
        None if system || Here.is_set("XDG_STATE_HOME") => Some(context.state_folder()?),
        given => given.clone(),
    };
    for (option, path) in [("--config", config), ("--state", state)] {
        if let Some(path) = path {
            let path = roots::absolute(&current, &path);
            let text = path.to_str().ok_or_else(|| {
                Failure::new(format!(
                    "{option} {}: the system cannot start it with a path that is not UTF-8",
                    path.display()
                ))
            })?;
            args.push((option, text.to_owned()));
        }
    }
    Ok(args)
}

fn show(job: &Job, scheduler: &dyn Scheduler) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let units = scheduler.units(job).map_err(Failure::new)?;
    for unit in &units {
        if units.len() > 1 {
            out.line(format_args!("# {}", unit.name))?;
        }
        out.bytes(unit.text.as_bytes())?;
    }
    out.finish().map(|()| Exit::Done)
}

/// Installs a schedule that starts `vault run` at this interval.
pub fn install_every(context: &Context, every: Duration) -> Result<Exit, Failure> {
    install(context, &job(context, every, false)?, false)
}

fn install(context: &Context, job: &Job, system: bool) -> Result<Exit, Failure> {
    let Some(config) = context.config()? else {
        return Err(Failure::new("there is no configuration that says what to do")
            .hint("Write one to begin with: vault config init"));
    };
    let runs = run_folder(context)?;
    let (json, files) = schedule::install(At { machine: &Here, runs: &runs, system }, job)?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&json)?;
    } else if !context.global.quiet {
        let every = units::every(job.every);
        let when = if system { "when the machine starts" } else { "at log-in" };
        out.say(format_args!("Installed: vault run looks every {every}, and {when}, for what is due."))?;
        for file in &files {
            out.line(format_args!("  {}", file.display()))?;
        }
        if let Some(note) = password_note(context, config) {
            out.styled(Style::Warning, &note)?;
        }
        if cfg!(target_os = "linux") && !system {
            out.say("It runs while you are logged in; to run always: loginctl enable-linger")?;
        }
        let which = if system { " --system" } else { "" };
        out.say(format_args!("See whether it runs with: vault schedule status{which}"))?;
    }
    out.finish().map(|()| Exit::Done)
}

/// A note on vaults whose password a schedule cannot get, because it has no terminal.
fn password_note(context: &Context, config: &Config) -> Option<String> {
    let state = context.state_folder().ok()?;
    let without = schedule::without_password(config, &state, &|place| context.id_in(place));
    let names: Vec<String> = without.into_iter().map(|vault| quoted(&vault.name)).collect();
    let first = names.first()?;
    Some(format!(
        "A schedule cannot ask for the password of {}. Let this machine open it: vault key add --device --repo {first}",
        names.join(", ")
    ))
}

fn status(context: &Context, system: bool) -> Result<Exit, Failure> {
    let which = if system { " --system" } else { "" };
    let runs = run_folder(context)?;
    let found = schedule::status(At { machine: &Here, runs: &runs, system }, job(context, DEFAULT_EVERY, system)?)?;
    let json = &found.json;
    let good = json.installed && json.active;
    let mut out = Output::new();
    if context.global.json {
        out.json(json)?;
    } else {
        let text = match (json.installed, json.active) {
            (true, true) => "The schedule is installed and active.",
            (true, false) => "The schedule is installed, but NOT active: nothing is started.",
            (false, _) => "No schedule is installed.",
        };
        out.styled(if good { Style::Bold } else { Style::Warning }, text)?;
        let background = found.last_background.map_or_else(
            || "never".to_owned(),
            |secs| dates::shown(dates::from_secs(secs.unsigned_abs()), &context.zone),
        );
        for (what, value) in [
            ("scheduler", Some(json.scheduler.to_owned())),
            ("looks every", found.every.map(units::every)),
            ("started last, it says", json.last_started.clone()),
            ("vault was started by it", good.then_some(background)),
            ("starts next", json.next_start.clone()),
            ("problem", json.problem.clone()),
        ] {
            if let Some(value) = value {
                out.line(format_args!("  {what}: {value}"))?;
            }
        }
        if json.installed && !json.up_to_date {
            let text = format!("It is not what would be installed now. Renew it with: vault schedule install{which}");
            out.styled(Style::Warning, &text)?;
        } else if !good {
            out.say(format_args!("Install it with: vault schedule install{which}"))?;
        }
    }
    out.finish()?;
    Ok(if good { Exit::Done } else { Exit::Failed })
}

fn remove(context: &Context, system: bool) -> Result<Exit, Failure> {
    let runs = run_folder(context)?;
    let at = At { machine: &Here, runs: &runs, system };
    let done = schedule::remove(at, &job(context, DEFAULT_EVERY, system)?)?;
    if let Some(warning) = &done.warning {
        context.screen.warn(warning);
    }
    let mut out = Output::new();
    if context.global.json {
        out.json(&done)?;
    } else if !context.global.quiet {
        out.line(if done.removed { "The schedule is removed." } else { "There was no schedule." })?;
    }
    out.finish().map(|()| Exit::Done)
}
