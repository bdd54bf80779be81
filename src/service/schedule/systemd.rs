//! systemd's timers (Linux), for a user or for the system.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;
use crate::service::folders;
use crate::service::machine::Machine;
use crate::service::schedule::scheduler::{Job, Scheduler, State, Unit, ask, check_text, order};

const SERVICE: &str = "vault-run.service";
const TIMER: &str = "vault-run.timer";

/// systemd.
#[derive(Clone, Copy)]
pub(super) struct Systemd<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
    /// Whether to use the system's manager, as root; otherwise this user's.
    pub system: bool,
}

/// The folder for an administrator's units.
const SYSTEM_FOLDER: &str = "/etc/systemd/system";

impl Systemd<'_> {
    /// Runs systemctl for the chosen manager.
    fn control(self, args: &[&str]) -> Result<String, String> {
        order(self.machine, "systemctl", &self.with_manager(args))
    }

    fn with_manager<'w>(self, args: &[&'w str]) -> Vec<&'w str> {
        let manager = if self.system { "--system" } else { "--user" };
        [manager].into_iter().chain(args.iter().copied()).collect()
    }
}

impl Scheduler for Systemd<'_> {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn units(&self, job: &Job) -> Result<Vec<Unit>, String> {
        Ok(vec![
            Unit { name: SERVICE.to_owned(), text: service(job, self.system)? },
            Unit { name: TIMER.to_owned(), text: timer(job.every, self.system) },
        ])
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        if self.system {
            return Ok(PathBuf::from(SYSTEM_FOLDER));
        }
        let folder = folders::configurations(self.machine);
        let failed = || Failure::new("there is no home folder to install a schedule in");
        folder.map(|folder| folder.join("systemd/user")).ok_or_else(failed)
    }

    fn load(&self, _: &Path) -> Result<(), String> {
        self.control(&["daemon-reload"])?;
        // A running timer would keep its old text.
        self.control(&["reenable", TIMER])?;
        self.control(&["restart", TIMER]).map(|_| ())
    }

    fn unload(&self, _: &Path) -> Result<(), String> {
        self.control(&["disable", "--now", TIMER]).map(|_| ())
    }

    fn forget(&self) {
        // A manager that does not answer has not loaded the files either.
        let _ = ask(self.machine, "systemctl", &self.with_manager(&["daemon-reload"]));
    }

    fn state(&self, _: &Path) -> Result<State, String> {
        let timer = "LoadState,UnitFileState,ActiveState,LastTriggerUSec,NextElapseUSecRealtime";
        let text = self.control(&["show", TIMER, "-p", timer])?;
        let service = self.control(&["show", SERVICE, "-p", "LoadState,Result,ExecMainStatus"])?;
        let journal = if self.system { "journalctl" } else { "journalctl --user" };
        Ok(read_state(&text, &service, journal))
    }
}

fn service(job: &Job, system: bool) -> Result<String, String> {
    let mut command = quoted(check_text(job.program_text()?)?);
    for arg in &job.args {
        command.push(' ');
        command.push_str(&quoted(check_text(arg)?));
    }
    let mains = if job.on_battery { "" } else { "ConditionACPower=true\n" };
    let which = if system { " --system" } else { "" };
    Ok(format!(
        "# Written by vault schedule install{which}, and taken away by vault schedule remove{which}.\n\
         [Unit]\n\
         Description=Do what is due in the vaults (vault run)\n\
         {mains}\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={command}\n\
         # Some files could not be read: it is said, and no failure.\n\
         SuccessExitStatus=3\n\
         Nice=10\n\
         CPUSchedulingPolicy=batch\n\
         IOSchedulingClass=idle\n\
         # It ends in good order, and goes on the next time.\n\
         KillSignal=SIGINT\n\
         TimeoutStopSec=2min\n"
    ))
}

fn timer(every: Duration, system: bool) -> String {
    let calendar = calendar(every);
    let (which, first) = if system {
        (
            " --system",
            "# When the machine has started; then by the clock, and at once if that was missed.\nOnBootSec=2min",
        )
    } else {
        ("", "# At log-in; then by the clock, and at once if that was missed.\nOnStartupSec=2min")
    };
    format!(
        "# Written by vault schedule install{which}, and taken away by vault schedule remove{which}.\n\
         [Unit]\n\
         Description=Look for what is due in the vaults\n\
         \n\
         [Timer]\n\
         {first}\n\
         OnCalendar={calendar}\n\
         Persistent=true\n\
         AccuracySec=1min\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n"
    )
}

/// An interval in systemd's calendar notation.
fn calendar(every: Duration) -> String {
    let minutes = every.as_secs() / 60;
    match minutes {
        0..60 => format!("*:0/{}", minutes.max(1)),
        60..1440 => format!("0/{}:00", minutes / 60),
        _ => "daily".to_owned(),
    }
}

/// Quotes a word of a command line for systemd.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@=".contains(c);
    let word: String = word
        .chars()
        .map(|c| match c {
            '%' => "%%".to_owned(),
            '$' => "$$".to_owned(),
            '\\' => "\\\\".to_owned(),
            '"' => "\\\"".to_owned(),
            c => c.to_string(),
        })
        .collect();
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("\"{word}\"") }
}

/// Reads the output of `systemctl show` for the timer and the service. `journal` is the command that shows the
/// service's messages.
fn read_state(timer: &str, service: &str, journal: &str) -> State {
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim().to_owned()).filter(|value| !value.is_empty() && value != "n/a" && value != "0")
    };
    let is = |key: &str, expected: &str| value(timer, key).as_deref() == Some(expected);
    let active = is("ActiveState", "active") && is("UnitFileState", "enabled");
    let loaded = is("LoadState", "loaded") && value(service, "LoadState").as_deref() == Some("loaded");
    let result = value(service, "Result").filter(|result| result != "success");
    let problem = match (loaded, active, result) {
        (true, false, _) => Some("its timer is not enabled and active".to_owned()),
        (true, true, Some(result)) => {
            let status =
                value(service, "ExecMainStatus").map_or_else(String::new, |status| format!(", exit code {status}"));
            Some(format!("the last run ended with {result}{status}; see: {journal} -u {SERVICE}"))
        }
        _ => None,
    };
    State {
        installed: loaded,
        active: loaded && active,
        last: value(timer, "LastTriggerUSec"),
        next: value(timer, "NextElapseUSecRealtime"),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::schedule::scheduler::tests::odd_job;

    const JOURNAL: &str = "journalctl --user";

    #[test]
    fn the_units_are_as_expected() {
        let text = service(&odd_job(), false).unwrap();
        let line = r#"ExecStart="/opt/my tools/vault" run --config "/home/me/50%% & \"more\"/$$x\\y.toml""#;
        assert!(text.lines().any(|other| other == line), "{text}");
        assert!(text.contains("ConditionACPower=true\n") && text.contains("IOSchedulingClass=idle\n"));
        assert!(!service(&Job { on_battery: true, ..odd_job() }, false).unwrap().contains("ConditionACPower"));
        let text = timer(Duration::from_secs(900), false);
        for line in ["OnCalendar=*:0/15", "Persistent=true", "OnStartupSec=2min", "WantedBy=timers.target"] {
            assert!(text.lines().any(|other| other == line), "{text}");
        }
        let text = timer(Duration::from_secs(900), true);
        assert!(text.contains("OnBootSec=2min\n") && !text.contains("OnStartupSec"), "{text}");
        assert!(service(&odd_job(), true).unwrap().starts_with("# Written by vault schedule install --system,"));
        assert_eq!([5, 120, 1440].map(|m| calendar(Duration::from_secs(m * 60))), ["*:0/5", "0/2:00", "daily"]);
    }

    #[test]
    fn what_it_says_is_understood() {
        let timer = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\n\
                     LastTriggerUSec=Sun 2026-11-22 08:15:00 UTC\nNextElapseUSecRealtime=Sun 2026-11-22 08:30:00 UTC\n";
        let service = "LoadState=loaded\nResult=success\nExecMainStatus=0\n";
        let state = read_state(timer, service, JOURNAL);
        assert!(state.installed && state.active && state.problem.is_none());
        assert_eq!(state.last.as_deref(), Some("Sun 2026-11-22 08:15:00 UTC"));
        let state = read_state(timer, "LoadState=loaded\nResult=exit-code\nExecMainStatus=1\n", JOURNAL);
        assert!(state.active && state.problem.unwrap().contains("exit code 1"));
        let state = read_state(&timer.replace("enabled", "disabled"), service, JOURNAL);
        assert!(state.installed && !state.active && state.problem.is_some());
        let state = read_state("LoadState=not-found\nActiveState=inactive\n", "LoadState=not-found\n", JOURNAL);
        assert_eq!(state, State::default());
    }
}
