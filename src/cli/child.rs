//! Commands that vault starts: all of them are made here, and none of them inherits a secret, or what is meant for vault alone.

use std::env;
use std::ffi::OsStr;
use std::process::Command;

/// Set for the process that goes on in the background for a mount.
pub const IN_BACKGROUND: &str = "VAULT_MOUNT_IN_BACKGROUND";

/// A program, to be found as the shell finds it.
pub fn program(name: &str) -> Command {
    without_secrets(Command::new(name))
}

/// A command as the shell runs it.
pub fn shell(command: &OsStr) -> Command {
    without_secrets(vault::fs::shell(command))
}

fn without_secrets(mut command: Command) -> Command {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_secret)) {
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
mod tests {
    use super::*;

    #[test]
    fn passwords_are_told_from_other_variables() {
        for name in ["VAULT_PASSWORD", "VAULT_NEW_PASSWORD", "VAULT_PASSWORD_COMMAND", "vault_password"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["VAULT_PASSWORD_FILE", "VAULT_REPO", "PATH", "PGPASSWORD"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
