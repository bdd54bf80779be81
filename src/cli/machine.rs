//! The machine that this process runs on, for the library, which learns of the environment and the clock only from
//! here.

use std::env;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;
use std::time::Instant;

pub use crate::service::machine::IN_BACKGROUND;
pub use crate::service::machine::Machine;
use crate::tree::Time;

use crate::cli::dates;

/// When this process first asked for its running time.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct Here;

impl Machine for Here {
    fn variable(&self, name: &str) -> Option<OsString> {
        env::var_os(name)
    }

    fn variables(&self) -> Vec<OsString> {
        env::vars_os().map(|(name, _)| name).collect()
    }

    fn home(&self) -> Option<PathBuf> {
        env::home_dir().filter(|home| home.is_absolute())
    }

    fn temporary(&self) -> PathBuf {
        env::temp_dir()
    }

    fn clock(&self) -> fn() -> Time {
        dates::now
    }

    fn elapsed(&self) -> Duration {
        BEGUN.elapsed()
    }
}

/// A command for a program that is found as the shell finds it.
pub fn program(name: &str) -> Command {
    Here.program(name)
}

/// A command that the shell runs.
pub fn shell(command: &OsStr) -> Command {
    Here.shell(command)
}
