//! The interface of a scheduler, and the job that it starts.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::failure::{Failure, chain};
use crate::service::config::Config;
use crate::service::machine::Machine;

/// The program to start, and its interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The program's absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The interval at which it is started. The program itself decides what is due.
    pub every: Duration,
    /// Whether it is also started on battery.
    pub on_battery: bool,
    /// The file for its messages, if the system keeps none itself.
    pub log: PathBuf,
}

/// A file for a scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The file's name.
    pub name: String,
    /// The file's text.
    pub text: String,
}

/// The state of an installed schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Whether the scheduler knows it.
    pub installed: bool,
    /// Whether the scheduler will start it.
    pub active: bool,
    /// When it was last started, in the scheduler's words.
    pub last: Option<String>,
    /// When it will next be started, in the scheduler's words.
    pub next: Option<String>,
    /// The problem, if there is one.
    pub problem: Option<String>,
}

/// The scheduler of a system.
pub trait Scheduler {
    /// The scheduler's name.
    fn name(&self) -> &'static str;

    /// The files for a job.
    fn units(&self, job: &Job) -> Result<Vec<Unit>, String>;

    /// The folder for these files.
    fn folder(&self) -> Result<PathBuf, Failure>;

    /// The bytes of a file with this text.
    fn encode(&self, text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    /// Puts the written files in force.
    fn load(&self, folder: &Path) -> Result<(), String>;

    /// Takes the files out of force, before they are removed.
    fn unload(&self, folder: &Path) -> Result<(), String>;

    /// Makes the scheduler forget the files after they were removed.
    fn forget(&self) {}

    /// The scheduler's state of the schedule.
    fn state(&self, folder: &Path) -> Result<State, String>;
}

impl Job {
    /// The job that starts `vault run` with low priority and without a terminal. Its options lead to the same
    /// configuration and state.
    pub fn new(
        program: PathBuf,
        places: Vec<(&'static str, String)>,
        every: Duration,
        config: Option<&Config>,
        runs: &Path,
    ) -> Self {
        let mut args: Vec<String> = ["run", "--background", "--quiet", "--no-progress"].map(str::to_owned).to_vec();
        args.extend(places.into_iter().flat_map(|(option, path)| [option.to_owned(), path]));
        let on_battery = config.is_none_or(|config| config.run.on_battery);
        Self { program, args, every, on_battery, log: runs.join("schedule.log") }
    }

    /// The program's path as text, because schedulers read text.
    pub fn program_text(&self) -> Result<&str, String> {
        self.program.to_str().ok_or_else(|| format!("{} is not UTF-8", self.program.display()))
    }
}

/// Runs a command of the system. Returns whether it succeeded, and its output.
pub(super) fn ask(machine: &dyn Machine, program: &str, args: &[&str]) -> Result<(bool, String), String> {
    let output = machine.program(program).args(args).stdin(Stdio::null()).output();
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
pub(super) fn order(machine: &dyn Machine, program: &str, args: &[&str]) -> Result<String, String> {
    match ask(machine, program, args)? {
        (true, text) => Ok(text),
        (false, text) => Err(format!("{program} {}: {text}", args.join(" "))),
    }
}

/// Escapes text for XML.
pub(super) fn xml(text: &str) -> String {
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

/// Refuses control characters, which no scheduler accepts in a command.
pub(super) fn check_text(text: &str) -> Result<&str, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("'{}' has control characters in it", text.escape_debug()));
    }
    Ok(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A job with every character that needs quoting.
    pub fn odd_job() -> Job {
        Job {
            program: "/opt/my tools/vault".into(),
            args: ["run", "--config", "/home/me/50% & \"more\"/$x\\y.toml"].map(str::to_owned).to_vec(),
            every: Duration::from_secs(900),
            on_battery: false,
            log: "/home/me/log <1>".into(),
        }
    }
}
