//! The machine's environment, home folder and clock, as the services use them. The library reads none of these itself;
//! its caller provides them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::tree::Time;

/// The variable that is set for the background process of a mount.
pub const IN_BACKGROUND: &str = "VAULT_MOUNT_IN_BACKGROUND";

/// The machine as a process sees it.
pub trait Machine: Sync {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<OsString>;

    /// The names of all environment variables.
    fn variables(&self) -> Vec<OsString>;

    /// The user's home folder, absolute.
    fn home(&self) -> Option<PathBuf>;

    /// The folder for temporary files.
    fn temporary(&self) -> PathBuf;

    /// The clock, for threads that outlive this reference.
    fn clock(&self) -> fn() -> Time;

    /// The current time.
    fn now(&self) -> Time {
        (self.clock())()
    }

    /// The time since the start of this process. It never decreases.
    fn elapsed(&self) -> Duration;

    /// Whether a variable is set and not empty.
    fn is_set(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| !value.is_empty())
    }

    /// The absolute path in a variable.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// A command for a program that is found as the shell finds it. Like every process that vault starts, it inherits
    /// neither secrets nor variables meant only for vault.
    fn program(&self, name: &str) -> Command {
        without_secrets(self.variables(), Command::new(name))
    }

    /// A command that the shell runs.
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

/// Whether a variable's value is or may contain a secret: passwords, and commands that print them. The name of a file
/// is not secret, and a hook that calls vault may need it.
fn is_secret(name: &str) -> bool {
    // Variable names on Windows are not case-sensitive.
    let name = name.to_ascii_uppercase();
    name.starts_with("VAULT_") && name.contains("PASSWORD") && !name.ends_with("_FILE")
}

#[cfg(test)]
pub(crate) mod tests;
