//! The surroundings of a run ([`Setting`]), its options ([`Wish`]), and the [`Observer`] it reports to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::failure::Failure;
use crate::id::VaultId;
use crate::progress::{Counters, Phase, Progress};
use crate::service::config::VaultConfig;
use crate::service::machine::Machine;
use crate::service::plan::Plan;
use crate::service::report::{Care, HookTrouble, Outcome, Report};
use crate::store::place::Place;
use crate::tree::Time;
use crate::vault::Vault;

/// The subject of a piece of work: a source that goes into a vault, or a vault under maintenance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Of {
    /// The source's name; `None` for a vault's maintenance.
    pub source: Option<String>,
    /// The vault's name.
    pub vault: String,
}

impl Of {
    /// The work of taking a source into a vault.
    pub fn source(source: &str, vault: &str) -> Self {
        Self { source: Some(source.to_owned()), vault: vault.to_owned() }
    }

    /// The maintenance of a vault.
    pub fn vault(vault: &str) -> Self {
        Self { source: None, vault: vault.to_owned() }
    }

    /// The name that is shown for the work.
    pub fn name(&self) -> String {
        self.source.as_ref().map_or_else(|| self.vault.clone(), |source| format!("{source} → {}", self.vault))
    }
}

/// A piece of work at one moment.
#[derive(Debug, Clone)]
pub struct AtWork {
    /// The subject of the work.
    pub of: Of,
    /// The current phase, once there is one.
    pub phase: Option<Phase>,
    /// When the phase began.
    pub since: Time,
    /// The progress so far.
    pub numbers: Numbers,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Numbers {
    /// The number of files done.
    pub files: u64,
    /// The total size of these files.
    pub bytes: u64,
    #[serde(rename = "files_unchanged")]
    /// The number of unchanged files.
    pub unchanged: u64,
    #[serde(rename = "bytes_read")]
    /// The number of bytes read.
    pub read: u64,
    /// The expected final value of `files`; 0 if it is not known.
    pub files_goal: u64,
    /// The expected final value of `bytes`; 0 if it is not known.
    pub bytes_goal: u64,
}

impl Numbers {
    /// The current values of the counters.
    pub fn of(counters: &Counters) -> Self {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Self {
            files: get(&counters.files),
            bytes: get(&counters.bytes),
            unchanged: get(&counters.files_unchanged),
            read: get(&counters.bytes_read),
            files_goal: get(&counters.files_goal),
            bytes_goal: get(&counters.bytes_goal),
        }
    }
}

/// A listener for the warnings and phases of a run.
pub trait Hear: Send + Sync {
    /// A warning was given.
    fn warning(&self, text: &str);

    /// A piece of work has entered a phase.
    fn phase(&self, of: &Of, phase: Phase);
}

/// A handle by which another thread follows the work of a run and can stop it.
pub trait Watch: Send + Sync {
    /// All pieces of work under way.
    fn at_work(&self) -> Vec<AtWork>;

    /// Asks the work to end in good order, as Ctrl-C does.
    fn stop(&self);

    /// Whether the work has been asked to end.
    fn is_stopped(&self) -> bool;

    /// Passes all further warnings and phases to this listener; `None` removes the listener.
    fn let_hear(&self, hearer: Option<Arc<dyn Hear>>);
}

/// The receiver of a run's results and progress: a terminal, a program or nobody.
pub trait Observer: Sync {
    /// The progress sink for the run as a whole. It also says whether the run should stop.
    fn progress(&self) -> &dyn Progress;

    /// Begins a piece of work, which ends when the returned sink is dropped.
    fn lane(&self, of: Of) -> Box<dyn Progress + '_>;

    /// A handle by which another thread follows the work.
    fn watch(&self) -> Arc<dyn Watch>;

    /// Whether progress is shown, so that it is worth counting the files first.
    fn draws(&self) -> bool;

    /// Work begins. From now on, an interrupt asks the work to end in good order.
    fn begin(&self);

    /// A source was taken into a vault, or could not be.
    fn result(&self, outcome: &Outcome);

    /// A vault's maintenance has ended.
    fn care(&self, care: &Care);

    /// A hook failed.
    fn hook(&self, trouble: &HookTrouble);

    /// Writes out everything reported so far.
    fn flush(&self) -> Result<(), Failure>;

    /// The action after the run ([`Wish::then`]) is not performed, because the run did not succeed.
    fn left_undone(&self, action: &str);

    /// The run has ended; only the action after it ([`Wish::then`]) remains.
    fn done(&self, ran: &Ran<'_>) -> Result<(), Failure>;
}

/// Access to vaults. Opening one may require asking for a password.
pub trait Doors: Sync {
    /// The state folder of this user, which holds the state of all vaults.
    fn state(&self) -> Option<PathBuf>;

    /// The id of the vault that this machine remembers at a place.
    fn known_in(&self, place: &Place) -> Option<VaultId>;

    /// The id of the vault at a place, if it can be known without opening the vault.
    fn id_in(&self, place: &Place) -> Option<VaultId>;

    /// Whether there is a vault at a place, or the remains of one.
    fn has_vault(&self, place: &Place) -> Result<bool, Failure>;

    /// Opens a vault.
    fn open(&self, config: &VaultConfig, progress: &dyn Progress) -> Result<Vault, Failure>;

    /// Creates a vault.
    fn make(&self, config: &VaultConfig) -> Result<(), Failure>;
}

/// The surroundings of a run.
pub struct Setting<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
    /// The local time zone.
    pub zone: &'a TimeZone,
    /// The number of threads.
    pub threads: usize,
    /// The folder that holds the records of runs.
    pub runs: &'a Path,
    /// Access to vaults.
    pub doors: &'a dyn Doors,
    /// The receiver of results and progress.
    pub observer: &'a dyn Observer,
}

/// The options of a run.
#[derive(Debug, Clone, Default)]
pub struct Wish<'a> {
    /// A schedule started the run.
    pub background: bool,
    /// Only report what is due; change nothing.
    pub dry_run: bool,
    /// Treat every source as due.
    pub force: bool,
    /// Create vaults that do not exist.
    pub makes_vaults: bool,
    /// Drop old snapshots.
    pub prune: bool,
    /// Check vaults and make restore drills where these are due.
    pub check: bool,
    /// Put the digest of each tree in the report.
    pub digests: bool,
    /// Fail if another run is going on, because that run would not do what this one is asked to do.
    pub own: bool,
    /// The file to write the report to.
    pub report: Option<&'a Path>,
    /// The action after the run, and whether to perform it even after a failure.
    pub then: Option<(&'a str, bool)>,
}

/// The kind of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing was done: another run is going on, and does what is due.
    Another,
    /// Nothing was done: the machine runs on battery, and the run waits for mains power.
    OnBattery,
    /// A dry run: the report lists what is due.
    Trial,
    /// Nothing was due.
    Idle,
    /// Something was due, and was worked on.
    Worked,
}

/// A finished run.
pub struct Ran<'a> {
    /// The kind of the run.
    pub way: Way,
    /// The sources and vaults of the run, and what was due.
    pub plan: &'a Plan,
    /// The results.
    pub report: &'a Report,
    /// The results as one line.
    pub summary: &'a str,
    /// When it began.
    pub begun: Time,
    /// When it ended.
    pub ended: Time,
}
