//! `vault schedule`: what starts `vault run` by itself.
//!
//! [`systemd`], [`launchd`], [`tasks`] and [`cron`] each know the texts that their scheduler wants, which are made by pure functions
//! on every platform, and the commands that put them in force · [`power`] whether the machine runs on battery.

mod cron;
mod launchd;
pub mod power;
mod systemd;
mod tasks;

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use vault::progress::Progress;

use crate::cli::args::ScheduleCommand;
use crate::cli::args::SchedulerArg;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::machine;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::run::folder as run_folder;
use crate::cli::run::status::Status;
use crate::cli::units;

/// What is to be started, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The program, absolute.
    program: PathBuf,
    /// Its arguments.
    args: Vec<String>,
    /// How often it is started; what is due is up to it.
    every: Duration,
    /// Whether it is started on battery too.
    on_battery: bool,
    /// Where its messages go, if the system keeps none itself.
    log: PathBuf,
}

/// A file that a scheduler reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    name: String,
    /// Its text.
    text: String,
}

/// What is known of an installed schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The scheduler has it.
    installed: bool,
    /// The scheduler will start it.
    active: bool,
    /// When the scheduler says that it started it last, in its own words.
    last: Option<String>,
    /// When it will start it next, in its own words.
    next: Option<String>,
    /// What is wrong with it.
    problem: Option<String>,
}

/// A scheduler of some system.
trait Scheduler {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// The files that it reads.
    fn units(&self, job: &Job) -> Result<Vec<Unit>, String>;

    /// The folder that they lie in.
    fn folder(&self, context: &Context) -> Result<PathBuf, Failure>;

    /// The bytes of a file.
    fn encode(&self, text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    /// Puts the files in force, which have been written.
    fn load(&self, folder: &Path) -> Result<(), String>;

    /// Takes them out of force, before they are removed.
    fn unload(&self, folder: &Path) -> Result<(), String>;

    /// After the files were removed.
    fn forget(&self) {}

    /// What the scheduler says.
    fn state(&self, folder: &Path) -> Result<State, String>;
}

/// The scheduler of this system, for all of it or for this user.
fn own(system: bool) -> Result<Box<dyn Scheduler>, Failure> {
    if system && !cfg!(target_os = "linux") {
        return Err(Failure::new("--system is for systemd, on Linux")
            .hint("Here the schedule of the user who runs it is installed: leave --system out."));
    }
    Ok(if cfg!(windows) {
        Box::new(tasks::Tasks)
    } else if cfg!(target_os = "macos") {
        Box::new(launchd::Launchd)
    } else {
        Box::new(systemd::Systemd { system })
    })
}

#[derive(Serialize)]
struct StatusJson<'a> {
    scheduler: &'a str,
    installed: bool,
    active: bool,
    up_to_date: bool,
    files: Vec<String>,
    last_started: Option<&'a str>,
    next_start: Option<&'a str>,
    last_background_run: Option<String>,
    problem: Option<&'a str>,
}

/// Runs `vault schedule ...`.
pub fn run(context: &Context, command: &ScheduleCommand) -> Result<Exit, Failure> {
    match command {
        ScheduleCommand::Install { every, print, scheduler, system } => {
            let job = job(context, *every, *system)?;
            match (print, scheduler) {
                (true, Some(scheduler)) => show(&job, named(*scheduler, *system).as_ref()),
                (true, None) => show(&job, own(*system)?.as_ref()),
                (false, _) => install(context, &job, *system),
            }
        }
        ScheduleCommand::Status { system } => status(context, *system),
        ScheduleCommand::Remove { system } => remove(context, *system),
    }
}

fn named(scheduler: SchedulerArg, system: bool) -> Box<dyn Scheduler> {
    match scheduler {
        SchedulerArg::Systemd => Box::new(systemd::Systemd { system }),
        SchedulerArg::Cron => Box::new(cron::Cron),
        SchedulerArg::Launchd => Box::new(launchd::Launchd),
        SchedulerArg::TaskScheduler => Box::new(tasks::Tasks),
    }
}

/// What is to be started: this program, with what was given to find the configuration and the state.
/// What the system starts has no home folder: the places are named.
fn job(context: &Context, every: Duration, system: bool) -> Result<Job, Failure> {
    let mut args: Vec<String> = ["run", "--background", "--quiet", "--no-progress"].map(str::to_owned).to_vec();
    args.extend(places(context, system)?.into_iter().flat_map(|(option, path)| [option.to_owned(), path]));
    let on_battery = context.config()?.is_none_or(|config| config.run.on_battery);
    Ok(Job { program: program()?, args, every, on_battery, log: run_folder(context)?.join("schedule.log") })
}

/// Where this program lies.
pub fn program() -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| Failure::caused("cannot find where this program lies", &error);
    env::current_exe().and_then(fs::canonicalize).map_err(failed)
}

/// The options by which what the system starts finds the same configuration and state, each with its path.
pub fn places(context: &Context, system: bool) -> Result<Vec<(&'static str, String)>, Failure> {
    let current = current_folder()?;
    let mut args = Vec::new();
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    // What a schedule starts does not have the variables of this shell.
    let config = match &context.global.config {
        None if system || is_set("XDG_CONFIG_HOME") => Some(context.config_place()?),
        given => given.clone(),
    };
    let state = match &context.global.state {
        None if system || is_set("XDG_STATE_HOME") => Some(context.state_folder()?),
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

/// The program's path as text: what schedulers read is text.
fn program_text(job: &Job) -> Result<&str, String> {
    job.program.to_str().ok_or_else(|| format!("{} is not UTF-8", job.program.display()))
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

/// Installs a schedule that looks this often for what is due.
pub fn install_every(context: &Context, every: Duration) -> Result<Exit, Failure> {
    install(context, &job(context, every, false)?, false)
}

fn install(context: &Context, job: &Job, system: bool) -> Result<Exit, Failure> {
    let Some(config) = context.config()? else {
        return Err(Failure::new("there is no configuration that says what to do")
            .hint("Write one to begin with: vault config init"));
    };
    let scheduler = own(system)?;
    let folder = scheduler.folder(context)?;
    let units = scheduler.units(job).map_err(Failure::new)?;
    let before: Vec<Option<Vec<u8>>> = units.iter().map(|unit| fs::read(folder.join(&unit.name)).ok()).collect();
    let done = write_units(scheduler.as_ref(), &folder, &units).and_then(|()| scheduler.load(&folder)).and_then(|()| {
        match scheduler.state(&folder)? {
            State { active: true, .. } => Ok(()),
            State { problem, .. } => Err(problem.unwrap_or_else(|| "the scheduler does not start it".to_owned())),
        }
    });
    if let Err(what) = done {
        // As it was before: what is not in force must not look as if it were.
        for (unit, before) in units.iter().zip(before) {
            let path = folder.join(&unit.name);
            let _ = match before {
                Some(bytes) => fs::write(path, bytes),
                None => fs::remove_file(path),
            };
        }
        scheduler.forget();
        let line = cron::line(job).map_err(Failure::new)?;
        let failure = Failure::new(format!("no schedule was installed: {}: {what}", scheduler.name()));
        return Err(failure.hint(if system && !is_root() {
            "Nothing was left behind. Only root can install it for the system: use sudo.".to_owned()
        } else {
            format!("Nothing was left behind. Cron can start it, by this line (crontab -e): {line}")
        }));
    }
    let mut out = Output::new();
    if context.global.json {
        out.json(&described(context, scheduler.as_ref(), job)?.1)?;
    } else if !context.global.quiet {
        let every = units::every(job.every);
        let when = if system { "when the machine starts" } else { "at log-in" };
        out.say(format_args!("Installed: vault run looks every {every}, and {when}, for what is due."))?;
        for unit in &units {
            out.line(format_args!("  {}", folder.join(&unit.name).display()))?;
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

/// A schedule has no terminal: each vault needs a password from elsewhere.
fn password_note(context: &Context, config: &crate::cli::config::Config) -> Option<String> {
    let state = context.state_folder().ok()?;
    let needs = |vault: &&crate::cli::config::VaultConfig| {
        let id = context.id_in(&vault.place);
        let key = id.and_then(|id| vault::engine::keys::DeviceKey::load(&state.join(id.to_string())));
        vault.password.is_none() && key.is_none()
    };
    let names: Vec<String> =
        config.vaults.iter().filter(needs).map(|vault| crate::cli::error::quoted(&vault.name)).collect();
    let first = names.first()?;
    Some(format!(
        "A schedule cannot ask for the password of {}. Let this machine open it: vault key add --device --repo {first}",
        names.join(", ")
    ))
}

fn write_units(scheduler: &dyn Scheduler, folder: &Path, units: &[Unit]) -> Result<(), String> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        units.iter().try_for_each(|unit| fs::write(folder.join(&unit.name), scheduler.encode(&unit.text)))
    };
    write().map_err(|error| format!("cannot write to {}: {}", folder.display(), chain(&error)))
}

/// Whether the schedule is all right, and what is known of it.
fn described<'a>(
    context: &Context,
    scheduler: &'a dyn Scheduler,
    job: &Job,
) -> Result<(State, StatusJson<'a>), Failure> {
    let folder = scheduler.folder(context)?;
    let units = scheduler.units(job).map_err(Failure::new)?;
    let there: Vec<PathBuf> = units.iter().map(|unit| folder.join(&unit.name)).filter(|path| path.exists()).collect();
    let same = |unit: &Unit| fs::read(folder.join(&unit.name)).is_ok_and(|bytes| bytes == scheduler.encode(&unit.text));
    let state = scheduler.state(&folder).unwrap_or_else(|problem| State { problem: Some(problem), ..State::default() });
    let background = Status::load(&run_folder(context)?).last_background;
    let json = StatusJson {
        scheduler: scheduler.name(),
        installed: state.installed && there.len() == units.len(),
        active: state.active,
        up_to_date: units.iter().all(same),
        files: there.iter().map(|path| path.display().to_string()).collect(),
        last_started: None,
        next_start: None,
        last_background_run: background.map(|secs| dates::exact(dates::from_secs(secs.unsigned_abs()))),
        problem: None,
    };
    Ok((state, json))
}

fn status(context: &Context, system: bool) -> Result<Exit, Failure> {
    let scheduler = own(system)?;
    let which = if system { " --system" } else { "" };
    // The period that is installed is what counts, not the default.
    let mut job = job(context, DEFAULT_EVERY, system)?;
    let folder = scheduler.folder(context)?;
    let installed = |every: &Duration| {
        let job = Job { every: *every, ..job.clone() };
        let units = scheduler.units(&job).unwrap_or_default();
        units.iter().all(|unit| fs::read(folder.join(&unit.name)).is_ok_and(|b| b == scheduler.encode(&unit.text)))
    };
    if let Some(every) = periods().into_iter().find(installed) {
        job.every = every;
    }
    let (state, json) = described(context, scheduler.as_ref(), &job)?;
    let json = StatusJson {
        last_started: state.last.as_deref(),
        next_start: state.next.as_deref(),
        problem: state.problem.as_deref(),
        ..json
    };
    let good = json.installed && json.active;
    let mut out = Output::new();
    if context.global.json {
        out.json(&json)?;
    } else {
        let text = match (json.installed, json.active) {
            (true, true) => "The schedule is installed and active.",
            (true, false) => "The schedule is installed, but NOT active: nothing is started.",
            (false, _) => "No schedule is installed.",
        };
        out.styled(if good { Style::Bold } else { Style::Warning }, text)?;
        let background = Status::load(&run_folder(context)?).last_background;
        let background = background.map_or_else(
            || "never".to_owned(),
            |secs| dates::shown(dates::from_secs(secs.unsigned_abs()), &context.zone),
        );
        for (what, value) in [
            ("scheduler", Some(scheduler.name().to_owned())),
            ("looks every", json.up_to_date.then(|| units::every(job.every))),
            ("started last, it says", state.last.clone()),
            ("vault was started by it", good.then_some(background)),
            ("starts next", state.next.clone()),
            ("problem", state.problem.clone()),
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
    let scheduler = own(system)?;
    let folder = scheduler.folder(context)?;
    let units = scheduler.units(&job(context, DEFAULT_EVERY, system)?).map_err(Failure::new)?;
    let there: Vec<PathBuf> = units.iter().map(|unit| folder.join(&unit.name)).filter(|path| path.exists()).collect();
    let unloaded = if there.is_empty() { Ok(()) } else { scheduler.unload(&folder) };
    for path in &there {
        fs::remove_file(path).map_err(|error| Failure::caused(format!("cannot remove {}", path.display()), &error))?;
    }
    scheduler.forget();
    let was_there = !there.is_empty();
    if let Err(what) = unloaded {
        context.screen.warn(&format!("{}: {what}", scheduler.name()));
    }
    let mut out = Output::new();
    if context.global.json {
        out.json(&serde_json::json!({ "removed": was_there }))?;
    } else if !context.global.quiet {
        out.line(if was_there { "The schedule is removed." } else { "There was no schedule." })?;
    }
    out.finish().map(|()| Exit::Done)
}

/// Whether this user may change what belongs to the system.
#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this user may change what belongs to the system.
#[cfg(not(unix))]
fn is_root() -> bool {
    true
}

/// How often it is looked for what is due, where nothing is said.
const DEFAULT_EVERY: Duration = Duration::from_secs(15 * 60);
/// The periods that every scheduler can keep, in minutes.
const PERIODS: &[u64] = &[5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720, 1440];

fn periods() -> Vec<Duration> {
    PERIODS.iter().map(|minutes| Duration::from_secs(minutes * 60)).collect()
}

/// Reads a period that every scheduler can keep.
pub fn parse_every(text: &str) -> Result<Duration, String> {
    let every = crate::cli::args::parse_duration(text)?;
    let all: Vec<String> = periods().into_iter().map(units::every).collect();
    if periods().contains(&every) { Ok(every) } else { Err(format!("give one of {}", all.join(", "))) }
}

/// Runs a command of the system. Returns whether it succeeded, and what it printed.
fn ask(program: &str, args: &[&str]) -> Result<(bool, String), String> {
    let output = machine::program(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("the program {program} is not there"),
        _ => format!("cannot run {program}: {}", chain(&error)),
    })?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((
        output.status.success(),
        if text.is_empty() || !output.status.success() { [text, error].join("\n").trim().to_owned() } else { text },
    ))
}

/// Runs a command of the system that must succeed.
fn order(program: &str, args: &[&str]) -> Result<String, String> {
    match ask(program, args)? {
        (true, text) => Ok(text),
        (false, text) => Err(format!("{program} {}: {text}", args.join(" "))),
    }
}

/// Text inside XML.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// No scheduler takes control characters in a command.
fn check_text(text: &str) -> Result<&str, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("'{}' has control characters in it", text.escape_debug()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job with everything that needs quoting.
    pub fn odd_job() -> Job {
        Job {
            program: "/opt/my tools/vault".into(),
            args: ["run", "--config", "/home/me/50% & \"more\"/$x\\y.toml"].map(str::to_owned).to_vec(),
            every: Duration::from_secs(900),
            on_battery: false,
            log: "/home/me/log <1>".into(),
        }
    }

    #[test]
    fn periods_are_those_that_all_schedulers_keep() {
        assert_eq!(parse_every("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_every("1d"), Ok(Duration::from_secs(86_400)));
        for bad in ["7m", "0m", "2d", "x"] {
            assert!(parse_every(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn control_characters_are_refused_by_all() {
        let job = Job { args: vec!["a\nExecStart=/bin/evil".to_owned()], ..odd_job() };
        for scheduler in [SchedulerArg::Systemd, SchedulerArg::Cron, SchedulerArg::Launchd, SchedulerArg::TaskScheduler]
        {
            assert!(named(scheduler, false).units(&job).is_err(), "{scheduler:?}");
        }
    }
}
