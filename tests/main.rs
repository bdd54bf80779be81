//! Integration tests.
#![allow(clippy::disallowed_methods, reason = "tests may read the environment and the clock")]

mod reader;
mod tidy;
#[cfg(unix)]
mod support;
#[cfg(unix)]
mod archives;
#[cfg(unix)]
mod browse;
#[cfg(unix)]
mod damage;
#[cfg(unix)]
mod crash;
#[cfg(unix)]
mod histories;
#[cfg(unix)]
mod sources;
#[cfg(unix)]
mod surroundings;
#[cfg(unix)]
mod options;
#[cfg(unix)]
mod refusals;
#[cfg(unix)]
mod collect;
#[cfg(unix)]
mod repair;
#[cfg(unix)]
mod kills;
#[cfg(unix)]
mod processes;
#[cfg(unix)]
mod protocol;
#[cfg(unix)]
mod readme;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod schedule;
#[cfg(unix)]
mod guide;
