//! What is started, and what a scheduler of some system can do.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::failure::{Failure, chain};
use crate::service::config::Config;
use crate::service::machine::Machine;

/// What is to be started, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// How often it is started; what is due is up to it.
    pub every: Duration,
    /// Whether it is started on battery too.
    pub on_battery: bool,
    /// Where its messages go, if the system keeps none itself.
    pub log: PathBuf,
}

/// A file that a scheduler reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is known of an installed schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The scheduler has it.
    pub installed: bool,
    /// The scheduler will start it.
    pub active: bool,
    /// When the scheduler says that it started it last, in its own words.
    pub last: Option<String>,
    /// When it will start it next, in its own words.
    pub next: Option<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// A scheduler of some system.
pub trait Scheduler {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// The files that it reads.
    fn units(&self, job: &Job) -> Result<Vec<Unit>, String>;

    /// The folder that they lie in.
    fn folder(&self) -> Result<PathBuf, Failure>;

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

impl Job {
    /// How `vault run` is started: with low priority and without a terminal, by options that lead to the same configuration and state.
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

    /// The program's path as text: what schedulers read is text.
    pub fn program_text(&self) -> Result<&str, String> {
        self.program.to_str().ok_or_else(|| format!("{} is not UTF-8", self.program.display()))
    }
}

/// Runs a command of the system. Returns whether it succeeded, and what it printed.
pub fn ask(machine: &dyn Machine, program: &str, args: &[&str]) -> Result<(bool, String), String> {
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
pub fn order(machine: &dyn Machine, program: &str, args: &[&str]) -> Result<String, String> {
    match ask(machine, program, args)? {
        (true, text) => Ok(text),
        (false, text) => Err(format!("{program} {}: {text}", args.join(" "))),
    }
}

/// Text inside XML.
pub fn xml(text: &str) -> String {
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
pub fn check_text(text: &str) -> Result<&str, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("'{}' has control characters in it", text.escape_debug()));
    }
    Ok(text)
}

#[cfg(test)]
pub(crate) mod tests {
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
}
