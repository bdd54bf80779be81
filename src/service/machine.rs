//! What the work of this layer takes from the machine that it runs on: environment, home folder, clock. The library reads none of
//! these itself, so whoever calls it hands them in.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::tree::Time;

/// Set for the process that goes on in the background for a mount.
pub const IN_BACKGROUND: &str = "VAULT_MOUNT_IN_BACKGROUND";

/// The machine, as one process sees it.
pub trait Machine: Sync {
    /// The value of a variable of the environment.
    fn variable(&self, name: &str) -> Option<OsString>;

    /// The names of all variables.
    fn variables(&self) -> Vec<OsString>;

    /// The user's home folder, absolute.
    fn home(&self) -> Option<PathBuf>;

    /// The folder for what is needed only for a while.
    fn temporary(&self) -> PathBuf;

    /// The clock, for threads that outlive this reference.
    fn clock(&self) -> fn() -> Time;

    /// The time now.
    fn now(&self) -> Time {
        (self.clock())()
    }

    /// How long this process has been running. It never goes back.
    fn elapsed(&self) -> Duration;

    /// Whether a variable is set, and not empty.
    fn is_set(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| !value.is_empty())
    }

    /// The absolute path that a variable holds.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// A program, to be found as the shell finds it. Like all that vault starts, it inherits no secret, nor what is meant for vault
    /// alone.
    fn program(&self, name: &str) -> Command {
        without_secrets(self.variables(), Command::new(name))
    }

    /// A command as the shell runs it.
    fn shell(&self, command: &OsStr) -> Command {
        without_secrets(self.variables(), crate::fs::shell(command))
    }
}

fn without_secrets(names: Vec<OsString>, mut command: Command) -> Command {
    for name in names.into_iter().filter(|name| name.to_str().is_some_and(is_secret)) {
        command.env_remove(name);
    }
    command.env_remove(IN_BACKGROUND);
    command
}

/// Whether the value of a variable is a secret, or may hold one: passwords, and commands that print them. The name of a file
/// is none, and a hook that calls vault may need it.
fn is_secret(name: &str) -> bool {
    // Windows does not tell upper from lower case in names.
    let name = name.to_ascii_uppercase();
    name.starts_with("VAULT_") && name.contains("PASSWORD") && !name.ends_with("_FILE")
}

#[cfg(test)]
pub(crate) mod tests;
