//! What is done when all is done: the machine is switched off or put to sleep, or a command runs.

use std::process::Command;
use std::process::Stdio;

use crate::cli::child::program;
use crate::cli::child::shell;
use crate::cli::error::Exit;
use crate::cli::error::Failure;

/// Whether it is done at all: not after a failure unless that was asked for, and never after an interruption.
pub fn is_wanted(exit: Exit, always: bool) -> bool {
    match exit {
        Exit::Done | Exit::Skipped => true,
        Exit::Failed | Exit::Damage | Exit::Unreachable | Exit::WrongPassword => always,
        Exit::Usage | Exit::Panic | Exit::Interrupted => false,
    }
}

/// Does it, and waits for it.
pub fn act(action: &str, exit: Exit) -> Result<(), Failure> {
    let mut command = match action {
        "shutdown" => system(SHUTDOWN),
        "suspend" => system(SUSPEND),
        _ => shell(action.as_ref()),
    };
    command.env("VAULT_EXIT_CODE", (exit as u8).to_string()).stdin(Stdio::null()).stdout(std::io::stderr());
    let failed = |what: String| Failure::new(format!("--then {action}: {what}")).hint("Everything before it was done.");
    let status = command.status().map_err(|error| failed(format!("it cannot be started: {error}")))?;
    if status.success() { Ok(()) } else { Err(failed(format!("it failed: {status}"))) }
}

const SHUTDOWN: &[&str] = if cfg!(windows) {
    &["shutdown", "/s", "/t", "60"]
} else if cfg!(target_os = "macos") {
    &["osascript", "-e", "tell application \"System Events\" to shut down"]
} else {
    &["systemctl", "poweroff"]
};

const SUSPEND: &[&str] = if cfg!(windows) {
    &["rundll32.exe", "powrprof.dll,SetSuspendState", "0,1,0"]
} else if cfg!(target_os = "macos") {
    &["pmset", "sleepnow"]
} else {
    &["systemctl", "suspend"]
};

fn system(words: &[&str]) -> Command {
    let mut command = program(words[0]);
    command.args(&words[1..]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_failure_unless_told() {
        for (exit, otherwise, always) in [
            (Exit::Done, true, true),
            (Exit::Skipped, true, true),
            (Exit::Failed, false, true),
            (Exit::Damage, false, true),
            (Exit::Interrupted, false, false),
        ] {
            assert_eq!((is_wanted(exit, false), is_wanted(exit, true)), (otherwise, always), "{exit:?}");
        }
    }
}
