//! Commands that run before and after a source is taken. Environment variables tell them what happened; their own
//! output goes to standard error.

use std::io;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::fs::{end_group, own_group};
use crate::progress::plain;
use crate::service::machine::Machine;
use crate::service::units;

/// The interval at which a running command is checked.
const TICK: Duration = Duration::from_millis(20);
/// The time a command gets to end when it is told to; then it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a command in the shell, and waits for it. `stopped` ends it early.
///
/// # Errors
/// In words: the command failed, could not be started, or took too long.
pub(super) fn call(
    command: &str,
    variables: &[(&str, String)],
    timeout: Duration,
    stopped: &dyn Fn() -> bool,
    machine: &dyn Machine,
) -> Result<(), String> {
    let mut process = machine.shell(command.as_ref());
    process.stdin(Stdio::null()).stdout(io::stderr());
    process.envs(variables.iter().map(|(name, value)| (*name, value.replace('\0', ""))));
    // The command and its children form a process group of their own. So Ctrl-C at the terminal ends only us, and we
    // end the command.
    own_group(&mut process);
    let mut child = process.spawn().map_err(|error| format!("it cannot be started: {}", plain(&error)))?;
    let begun = machine.elapsed();
    let mut told: Option<(Duration, String)> = None;
    loop {
        let now = machine.elapsed();
        let is_late = now.saturating_sub(begun) >= timeout;
        match child.try_wait() {
            Ok(Some(status)) => return told.map_or_else(|| result(status), |(_, why)| Err(why)),
            Ok(None) => {}
            Err(error) => return Err(format!("it is lost: {}", plain(&error))),
        }
        match &told {
            None if stopped() || is_late => {
                let why = if is_late {
                    format!("it took longer than {}, and was ended", units::every(timeout))
                } else {
                    "interrupted".to_owned()
                };
                end_group(&mut child, true);
                told = Some((now, why));
            }
            Some((when, _)) if now.saturating_sub(*when) >= GRACE => end_group(&mut child, false),
            _ => {}
        }
        sleep(TICK);
    }
}

fn result(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("it failed: {status}")) }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests may read the clock")]

    use std::time::Instant;

    use super::*;
    use crate::service::machine::tests::real;

    fn run(command: &str, timeout_ms: u64) -> Result<(), String> {
        call(command, &[("VAULT_X", "a b".to_owned())], Duration::from_millis(timeout_ms), &|| false, &real())
    }

    #[test]
    fn commands_succeed_fail_or_take_too_long() {
        assert_eq!(run("test \"$VAULT_X\" = 'a b'", 10_000), Ok(()));
        assert_eq!(run("exit 3", 10_000), Err("it failed: exit status: 3".to_owned()));
        let begun = Instant::now();
        // The processes started by the command end with it.
        let error = run("sleep 30 & sleep 30; wait", 100).unwrap_err();
        assert!(error.starts_with("it took longer than 0s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_command_that_does_not_listen_is_ended_all_the_same() {
        let begun = Instant::now();
        let error = run("trap '' TERM; while :; do sleep 0.05; done", 50).unwrap_err();
        assert!(error.contains("was ended"));
        assert!((GRACE..GRACE * 3).contains(&begun.elapsed()));
    }

    #[test]
    fn a_run_that_is_stopped_stops_the_command() {
        let error = call("sleep 30", &[], Duration::from_secs(60), &|| true, &real()).unwrap_err();
        assert_eq!(error, "interrupted");
    }
}
