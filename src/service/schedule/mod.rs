//! The schedule that starts `vault run`.
//!
//! `systemd`, `launchd`, `tasks` and `cron` each serve one scheduler: pure functions make its texts on every platform,
//! and commands put them in force · [`power`] tells whether the machine runs on battery.

mod cron;
mod launchd;
pub mod power;
mod scheduler;
mod systemd;
mod tasks;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::engine::keys::DeviceKey;
use crate::failure::{Failure, chain};
use crate::id::VaultId;
use crate::ownfile;
use crate::service::config::{Config, VaultConfig};
use crate::service::dates;
use crate::service::machine::Machine;
use crate::service::status::Status;
use crate::service::units;
use crate::service::values::parse_duration;
use crate::store::place::Place;
pub use scheduler::{Job, Scheduler, State, Unit};

/// The schedulers that vault knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// systemd's timers.
    Systemd,
    /// A line for cron. It is only printed.
    Cron,
    /// launchd's agents.
    Launchd,
    /// The Task Scheduler.
    Tasks,
}

/// The surroundings of a schedule.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
    /// The folder that holds the records of runs.
    pub runs: &'a Path,
    /// Whether the schedule is for the whole system and runs as root; otherwise it is for this user.
    pub system: bool,
}

impl<'a> At<'a> {
    /// The scheduler of this kind, even if this system has another one.
    pub fn scheduler(self, kind: Kind) -> Box<dyn Scheduler + 'a> {
        let Self { machine, runs, system } = self;
        match kind {
            Kind::Systemd => Box::new(systemd::Systemd { machine, system }),
            Kind::Cron => Box::new(cron::Cron),
            Kind::Launchd => Box::new(launchd::Launchd { machine }),
            Kind::Tasks => Box::new(tasks::Tasks { machine, runs }),
        }
    }

    /// The scheduler of this system.
    pub fn own(self) -> Result<Box<dyn Scheduler + 'a>, Failure> {
        if self.system && !cfg!(target_os = "linux") {
            return Err(Failure::new("--system is for systemd, on Linux")
                .hint("Here the schedule of the user who runs it is installed: leave --system out."));
        }
        Ok(self.scheduler(if cfg!(windows) {
            Kind::Tasks
        } else if cfg!(target_os = "macos") {
            Kind::Launchd
        } else {
            Kind::Systemd
        }))
    }
}

/// A schedule, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct ScheduleJson {
    /// The scheduler's name.
    pub scheduler: &'static str,
    /// Whether the scheduler knows the schedule, and all its files exist.
    pub installed: bool,
    /// Whether the scheduler will start it.
    pub active: bool,
    /// Whether the files are as they would be written now.
    pub up_to_date: bool,
    /// The files that exist.
    pub files: Vec<String>,
    /// When the scheduler last started it, in the scheduler's words.
    pub last_started: Option<String>,
    /// When the scheduler will next start it, in the scheduler's words.
    pub next_start: Option<String>,
    /// When a schedule last started a run, from vault's own records.
    pub last_background_run: Option<String>,
    /// The problem, if there is one.
    pub problem: Option<String>,
}

/// The state of a schedule.
#[derive(Debug, Clone)]
pub struct Described {
    /// The form for `--json`.
    pub json: ScheduleJson,
    /// The interval at which the schedule starts runs; `None` if its files are not as they would be written now.
    pub every: Option<Duration>,
    /// When a schedule last started a run, in seconds since 1970.
    pub last_background: Option<i64>,
}

/// Installs a schedule, and makes sure that it is in force. If that fails, the files are put back as they were before.
/// Returns the form for `--json`, and the files written.
///
/// # Errors
/// If the scheduler does not accept the schedule.
pub fn install(at: At<'_>, job: &Job) -> Result<(ScheduleJson, Vec<PathBuf>), Failure> {
    let scheduler = at.own()?;
    let folder = scheduler.folder()?;
    let units = scheduler.units(job).map_err(Failure::new)?;
    let before: Vec<Option<Vec<u8>>> = units.iter().map(|unit| ownfile::read(&folder.join(&unit.name)).ok()).collect();
    let done = write_units(scheduler.as_ref(), &folder, &units).and_then(|()| scheduler.load(&folder)).and_then(|()| {
        match scheduler.state(&folder)? {
            State { active: true, .. } => Ok(()),
            State { problem, .. } => Err(problem.unwrap_or_else(|| "the scheduler does not start it".to_owned())),
        }
    });
    if let Err(what) = done {
        // Files that are not in force must not look as if they were, so they are put back as they were before.
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
        return Err(failure.hint(if at.system && !crate::fs::privileged() {
            "Nothing was left behind. Only root can install it for the system: use sudo.".to_owned()
        } else {
            format!("Nothing was left behind. Cron can start it, by this line (crontab -e): {line}")
        }));
    }
    let (json, _) = described(at, scheduler.as_ref(), job)?;
    Ok((json, units.iter().map(|unit| folder.join(&unit.name)).collect()))
}

/// The vaults for which a schedule, which has no terminal, finds neither a password in the configuration nor a device
/// key. `id` gives the id of the vault at a place, and `state` is the state folder of this user.
pub fn without_password<'c>(
    config: &'c Config,
    state: &Path,
    id: &dyn Fn(&Place) -> Option<VaultId>,
) -> Vec<&'c VaultConfig> {
    let needs = |vault: &&VaultConfig| {
        let key = id(&vault.place).and_then(|id| DeviceKey::load(&state.join(id.to_string())));
        vault.password.is_none() && key.is_none()
    };
    config.vaults.iter().filter(needs).collect()
}

fn write_units(scheduler: &dyn Scheduler, folder: &Path, units: &[Unit]) -> Result<(), String> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        units.iter().try_for_each(|unit| fs::write(folder.join(&unit.name), scheduler.encode(&unit.text)))
    };
    write().map_err(|error| format!("cannot write to {}: {}", folder.display(), chain(&error)))
}

/// The schedule's form for `--json` without the scheduler's words, and the scheduler's state.
fn described(at: At<'_>, scheduler: &dyn Scheduler, job: &Job) -> Result<(ScheduleJson, State), Failure> {
    let folder = scheduler.folder()?;
    let units = scheduler.units(job).map_err(Failure::new)?;
    let there: Vec<PathBuf> = units.iter().map(|unit| folder.join(&unit.name)).filter(|path| path.exists()).collect();
    let state = scheduler.state(&folder).unwrap_or_else(|problem| State { problem: Some(problem), ..State::default() });
    let background = Status::load(at.runs).last_background;
    let json = ScheduleJson {
        scheduler: scheduler.name(),
        installed: state.installed && there.len() == units.len(),
        active: state.active,
        up_to_date: are_there(scheduler, &folder, &units),
        files: there.iter().map(|path| path.display().to_string()).collect(),
        last_started: None,
        next_start: None,
        last_background_run: background.map(|secs| dates::exact(dates::from_secs(secs.unsigned_abs()))),
        problem: None,
    };
    Ok((json, state))
}

/// Whether the files exist with the text that would be written.
fn are_there(scheduler: &dyn Scheduler, folder: &Path, units: &[Unit]) -> bool {
    let same =
        |unit: &Unit| ownfile::read(&folder.join(&unit.name)).is_ok_and(|bytes| bytes == scheduler.encode(&unit.text));
    units.iter().all(same)
}

/// The state of the schedule that would start this job, at any interval.
///
/// # Errors
/// If there is no scheduler, or no folder for its files.
pub fn status(at: At<'_>, mut job: Job) -> Result<Described, Failure> {
    let scheduler = at.own()?;
    // The installed interval counts, not the given one.
    let folder = scheduler.folder()?;
    let installed = |every: &Duration| {
        let job = Job { every: *every, ..job.clone() };
        are_there(scheduler.as_ref(), &folder, &scheduler.units(&job).unwrap_or_default())
    };
    if let Some(every) = periods().into_iter().find(installed) {
        job.every = every;
    }
    let (json, state) = described(at, scheduler.as_ref(), &job)?;
    let State { last, next, problem, .. } = state;
    let every = json.up_to_date.then_some(job.every);
    let json = ScheduleJson { last_started: last, next_start: next, problem, ..json };
    Ok(Described { json, every, last_background: Status::load(at.runs).last_background })
}

/// The result of removing a schedule.
#[derive(Debug, Clone, Serialize)]
pub struct Removed {
    /// Whether there was a schedule.
    pub removed: bool,
    /// The scheduler's message, if it failed to unload the schedule.
    #[serde(skip)]
    pub warning: Option<String>,
}

/// Unloads a schedule, and removes its files.
///
/// # Errors
/// If a file cannot be removed.
pub fn remove(at: At<'_>, job: &Job) -> Result<Removed, Failure> {
    let scheduler = at.own()?;
    let folder = scheduler.folder()?;
    let units = scheduler.units(job).map_err(Failure::new)?;
    let there: Vec<PathBuf> = units.iter().map(|unit| folder.join(&unit.name)).filter(|path| path.exists()).collect();
    let unloaded = if there.is_empty() { Ok(()) } else { scheduler.unload(&folder) };
    for path in &there {
        fs::remove_file(path).map_err(|error| Failure::caused(format!("cannot remove {}", path.display()), &error))?;
    }
    scheduler.forget();
    let warning = unloaded.err().map(|what| format!("{}: {what}", scheduler.name()));
    Ok(Removed { removed: !there.is_empty(), warning })
}

/// The default interval at which a schedule starts runs.
pub const DEFAULT_EVERY: Duration = Duration::from_secs(15 * 60);
/// The intervals that every scheduler supports, in minutes.
const PERIODS: &[u64] = &[5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720, 1440];

fn periods() -> Vec<Duration> {
    PERIODS.iter().map(|minutes| Duration::from_secs(minutes * 60)).collect()
}

/// Reads an interval that every scheduler supports.
pub fn parse_every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    let all: Vec<String> = periods().into_iter().map(units::every).collect();
    if periods().contains(&every) { Ok(every) } else { Err(format!("give one of {}", all.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::machine::tests::Still;
    use crate::service::schedule::scheduler::tests::odd_job;

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
        let at = At { machine: &Still(&[]), runs: Path::new("/run"), system: false };
        for kind in [Kind::Systemd, Kind::Cron, Kind::Launchd, Kind::Tasks] {
            assert!(at.scheduler(kind).units(&job).is_err(), "{kind:?}");
        }
    }
}
