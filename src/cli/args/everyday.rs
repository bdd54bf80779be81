//! The options of the commands that do the everyday work by themselves: config, run, schedule.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use clap_complete::engine::ArgValueCompleter;

use crate::service::schedule;

use crate::cli::offer;

/// `vault config`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vault config init         writes one to begin with
  vault config              where it is, and what it says
  vault config check        explains every mistake, with line and column
  vault --config ~/work.toml config check

The file is ~/.config/vault/vault.toml, unless --config or VAULT_CONFIG says
otherwise. A vault that has a name in it can be called by it: --repo NAME."
)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<ConfigCommand>,
}

/// The commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Write a configuration to begin with, in which every setting is explained
    Init,
    /// Explain every mistake in the configuration
    Check,
}

/// `vault run`.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  vault run                    what is due, as the configuration says
  vault run documents --now    one source, whether it is due or not
  vault run --dry-run          what would be done
  vault run --report r.json --then shutdown
  vault run --list backups.csv
  vault run --follow           watch the one that the schedule has started

Each source goes to each of its vaults; then old snapshots are dropped by its
keep rules, and a part of the data is checked. If one vault is missing or one
source fails, all others are still backed up; the exit code says so.
What is not due is passed over in milliseconds, so it may be started often.

A list has lines of source,destination[,keep,exclude]: a folder, a vault (its
folder or its name; made if it is not there), how many snapshots stay (5, or
daily=7 weekly=4), and patterns separated by semicolons. Semicolons or tabs may
stand between fields. Every line is checked before anything runs.

Hooks of a source run by the shell: before (if it fails, the source is not
taken, unless if-before-fails = \"go-on\"), after (always), on-failure. They find
what happened in VAULT_RESULT (complete, unchanged, partial, away, failed,
interrupted), VAULT_SOURCE, VAULT_HOOK, VAULT_ERROR, VAULT_SNAPSHOTS,
VAULT_FILES, VAULT_BYTES, VAULT_BYTES_STORED, VAULT_DURATION_MS.")]
pub struct RunArgs {
    /// Only these sources
    #[arg(add = ArgValueCompleter::new(offer::configured_sources), value_name = "NAME", conflicts_with = "list")]
    pub names: Vec<String>,

    /// Take the sources from a CSV file instead of the configuration
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,

    /// Write a report of what happened, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// When all is done and nothing failed: eject (removable vaults), suspend, shutdown, or a shell command
    #[arg(long, value_name = "ACTION")]
    pub then: Option<String>,

    /// Do what --then says even if something failed
    #[arg(long, requires = "then")]
    pub then_always: bool,

    /// Take sources whether they are due or not
    #[arg(long)]
    pub now: bool,

    /// Say what is due, and do nothing
    #[arg(short = 'n', long, conflicts_with_all = ["report", "then"])]
    pub dry_run: bool,

    /// Let other programs go first, and wait for the mains if so configured: for schedules
    #[arg(long)]
    pub background: bool,

    /// Show the run that goes on, whoever started it, and end with it and its exit code
    #[arg(long, conflicts_with_all = ["names", "list", "report", "then", "now", "dry_run", "background", "no_prune", "no_check"])]
    pub follow: bool,

    /// Ask the run that goes on to stop: what it has stored stays
    #[arg(long, conflicts_with_all = ["names", "list", "report", "then", "now", "dry_run", "background", "no_prune", "no_check"])]
    pub stop: bool,

    /// Drop no old snapshots
    #[arg(long)]
    pub no_prune: bool,

    /// Check nothing, and try no restore
    #[arg(long)]
    pub no_check: bool,
}

/// `vault ui`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault ui                     of the default vault, in your browser
  vault ui --repo disk         of another one
  vault ui --read-only         look, and change nothing
  vault ui --no-open --port 8484
  vault ui --install           in the menu of programs from now on

Only this user of this computer can use the page: it is listened for on
127.0.0.1, and its address is good once, for ten minutes. Enter makes a new
one, Ctrl-C ends it. Work that the page has begun is then stopped, except
saving.

From another computer, through ssh: vault ui --socket ~/.vault/ui.sock there,
then ssh -L 8484:.vault/ui.sock THERE here, and the printed address.")]
#[cfg_attr(not(feature = "ui"), allow(dead_code, reason = "it is understood everywhere, and done where it was built"))]
pub struct UiArgs {
    /// The port [default: any that is free]
    #[arg(long, value_name = "N", conflicts_with = "socket")]
    pub port: Option<u16>,

    /// Open no browser
    #[arg(long)]
    pub no_open: bool,

    /// Change nothing: no restores, no snapshots
    #[arg(long)]
    pub read_only: bool,

    /// Listen at a socket in a folder that is yours alone, for ssh
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Put it into the menu of programs, with this vault and these places
    #[arg(long, conflicts_with_all = ["port", "no_open", "socket", "uninstall"])]
    pub install: bool,

    /// With --install: open it at log-in, too
    #[arg(long, requires = "install")]
    pub at_login: bool,

    /// Take it out of the menu, and of the log-in
    #[arg(long, conflicts_with_all = ["port", "no_open", "socket", "read_only"])]
    pub uninstall: bool,
}

/// `vault schedule`.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ScheduleCommand,
}

/// Who starts programs by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchedulerArg {
    /// Linux
    Systemd,
    /// Any system with cron
    Cron,
    /// macOS
    Launchd,
    /// Windows
    TaskScheduler,
}

/// The commands about schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Let vault run be started by itself: by the clock, at log-in, and after sleep
    #[command(after_help = "\
Examples:
  vault schedule install
  vault schedule install --every 1h
  vault schedule install --print      the files, and nothing is installed
  vault schedule install --print --system     the same for root's schedule
  vault schedule install --print --for cron

It uses the scheduler of the system, for this user: a systemd timer, a launchd
agent, a task of the Task Scheduler. With --system it is systemd's own, which
runs it as root, with root's configuration, when the machine starts. It looks
often, and vault run does what is due; with low priority, and with
on-battery = false in the configuration only on mains. A schedule cannot ask for
a password: vault key add --device")]
    Install {
        /// How often to look for what is due: 5m, 10m, 15m, 20m, 30m, 1h to 12h, 1d
        #[arg(long, value_name = "TIME", value_parser = schedule::parse_every, default_value = "15m")]
        every: Duration,

        /// Print what would be installed
        #[arg(long)]
        print: bool,

        /// For the whole system, run by root (Linux)
        #[arg(long)]
        system: bool,

        /// With --print: for the scheduler of this system [default: the own one]
        #[arg(long = "for", value_name = "SCHEDULER", value_enum, requires = "print")]
        scheduler: Option<SchedulerArg>,
    },
    /// Show whether it is really installed, and when it ran last
    Status {
        /// That of the whole system
        #[arg(long)]
        system: bool,
    },
    /// Take the schedule away
    Remove {
        /// That of the whole system
        #[arg(long)]
        system: bool,
    },
}
