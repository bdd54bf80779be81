//! Integration tests.
#![allow(clippy::disallowed_methods, reason = "tests may read the environment and the clock")]

mod reader;
mod golden;
#[cfg(unix)]
mod reader_vaults;
mod tidy;
mod portable;
mod support;
#[cfg(unix)]
mod archives;
mod browse;
mod ahead;
mod budgets;
mod line;
mod lost;
mod damage;
mod hints;
mod crash;
#[cfg(unix)]
mod histories;
#[cfg(unix)]
mod order;
#[cfg(unix)]
mod databases;
#[cfg(unix)]
mod reasons;
#[cfg(unix)]
mod amend;
#[cfg(unix)]
mod rewrite;
#[cfg(unix)]
mod complete;
#[cfg(unix)]
mod sources;
#[cfg(unix)]
mod inputs;
#[cfg(unix)]
mod surroundings;
#[cfg(unix)]
mod options;
#[cfg(unix)]
mod keys;
#[cfg(unix)]
mod refusals;
#[cfg(unix)]
mod guard;
mod collect;
mod gone;
mod repair;
#[cfg(unix)]
mod kills;
#[cfg(target_os = "linux")]
mod power;
#[cfg(target_os = "linux")]
mod calls;
#[cfg(unix)]
mod processes;
mod panics;
mod protocol;
#[cfg(unix)]
mod unknown;
#[cfg(unix)]
mod paths;
#[cfg(unix)]
mod like;
#[cfg(unix)]
mod trust;
#[cfg(unix)]
mod state;
#[cfg(unix)]
mod links;
#[cfg(unix)]
mod verdict;
#[cfg(unix)]
mod deliveries;
#[cfg(target_os = "linux")]
mod mount;
#[cfg(unix)]
mod readme;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod packages;
mod screens;
mod schedule;
#[cfg(unix)]
mod guide;
#[cfg(all(unix, feature = "ui"))]
mod ui;
#[cfg(all(unix, feature = "ui"))]
mod share;
#[cfg(feature = "remote")]
mod far;
#[cfg(feature = "remote")]
mod servers;
#[cfg(feature = "remote")]
mod settings;
#[cfg(all(unix, feature = "remote"))]
mod rest;
#[cfg(all(unix, feature = "remote"))]
mod sftp;
#[cfg(all(target_os = "linux", feature = "remote"))]
mod memory;
#[cfg(feature = "remote")]
mod mirror;
#[cfg(all(unix, feature = "remote"))]
mod copy;
