//! What a run works with, and who it speaks to.

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

/// What a piece of work is about: a source that goes into a vault, or a vault that is cared for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Of {
    /// The source.
    pub source: Option<String>,
    /// The vault.
    pub vault: String,
}

impl Of {
    /// A source that goes into a vault.
    pub fn source(source: &str, vault: &str) -> Self {
        Self { source: Some(source.to_owned()), vault: vault.to_owned() }
    }

    /// A vault that is cared for.
    pub fn vault(vault: &str) -> Self {
        Self { source: None, vault: vault.to_owned() }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        self.source.as_ref().map_or_else(|| self.vault.clone(), |source| format!("{source} → {}", self.vault))
    }
}

/// A piece of work as it is at one moment.
#[derive(Debug, Clone)]
pub struct AtWork {
    /// What it is about.
    pub of: Of,
    /// What is being done, if that has begun.
    pub phase: Option<Phase>,
    /// Since when.
    pub since: Time,
    /// How far it is.
    pub numbers: Numbers,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Numbers {
    /// Files that are done.
    pub files: u64,
    /// Their sizes.
    pub bytes: u64,
    #[serde(rename = "files_unchanged")]
    /// Files that are as they were.
    pub unchanged: u64,
    #[serde(rename = "bytes_read")]
    /// Bytes that were read.
    pub read: u64,
    /// What `files` is expected to reach; 0 if that is not known.
    pub files_goal: u64,
    /// The same of `bytes`.
    pub bytes_goal: u64,
}

impl Numbers {
    /// As they are now.
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

/// Hears what is said and begun.
pub trait Hear: Send + Sync {
    /// A warning.
    fn warning(&self, text: &str);

    /// A piece of work enters a phase.
    fn phase(&self, of: &Of, phase: Phase);
}

/// Looks at the work of a run from another thread, and can end it.
pub trait Watch: Send + Sync {
    /// The pieces of work that go on at once.
    fn at_work(&self) -> Vec<AtWork>;

    /// Asks the work to end in good order, as Ctrl-C does.
    fn stop(&self);

    /// Whether it has been asked to end.
    fn is_stopped(&self) -> bool;

    /// Lets somebody hear what is said and begun from now on; `None` for nobody.
    fn let_hear(&self, hearer: Option<Arc<dyn Hear>>);
}

/// Who a run speaks to: a terminal, a program, nobody.
pub trait Observer: Sync {
    /// Hears what is about the run as a whole, and knows whether it is to stop.
    fn progress(&self) -> &dyn Progress;

    /// A piece of work begins. It ends when this is dropped.
    fn lane(&self, of: Of) -> Box<dyn Progress + '_>;

    /// Looks at all that from another thread.
    fn watch(&self) -> Arc<dyn Watch>;

    /// Whether somebody sees how far the work is, so that counting what there is makes sense.
    fn draws(&self) -> bool;

    /// Work begins: from now on, whoever wants it to stop asks it to.
    fn begin(&self);

    /// What became of a source in a vault.
    fn result(&self, outcome: &Outcome);

    /// What the care for a vault did.
    fn care(&self, care: &Care);

    /// A command that failed.
    fn hook(&self, trouble: &HookTrouble);

    /// All that was told so far is to be where it belongs.
    fn flush(&self) -> Result<(), Failure>;

    /// What was to follow is not done, since not all went well.
    fn left_undone(&self, action: &str);

    /// All is done but for what follows ([`Wish::then`]).
    fn done(&self, ran: &Ran<'_>) -> Result<(), Failure>;
}

/// The way to vaults: whoever opens one may have to ask for a password.
pub trait Doors: Sync {
    /// The folder of this user's state of all vaults.
    fn state(&self) -> Option<PathBuf>;

    /// The vault that this machine knows in a place.
    fn known_in(&self, place: &Place) -> Option<VaultId>;

    /// The id of the vault in a place, as far as that can be told without opening it.
    fn id_in(&self, place: &Place) -> Option<VaultId>;

    /// Whether there is a vault in a place, or what is left of one.
    fn has_vault(&self, place: &Place) -> Result<bool, Failure>;

    /// Opens a vault.
    fn open(&self, config: &VaultConfig, progress: &dyn Progress) -> Result<Vault, Failure>;

    /// Makes a vault that is not there.
    fn make(&self, config: &VaultConfig) -> Result<(), Failure>;
}

/// What a run works with.
pub struct Setting<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
    /// The local time zone.
    pub zone: &'a TimeZone,
    /// How many threads work.
    pub threads: usize,
    /// The folder in which runs are remembered.
    pub runs: &'a Path,
    /// The way to vaults.
    pub doors: &'a dyn Doors,
    /// Who it speaks to.
    pub observer: &'a dyn Observer,
}

/// How a run is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wish<'a> {
    /// A schedule has started it.
    pub background: bool,
    /// Nothing is done.
    pub dry_run: bool,
    /// Everything is due.
    pub force: bool,
    /// Vaults that are not there are made.
    pub makes_vaults: bool,
    /// Old snapshots are dropped.
    pub prune: bool,
    /// Vaults are checked, and restores tried, where that is due.
    pub check: bool,
    /// The report has the digest of each tree.
    pub digests: bool,
    /// The run must do what is asked here: another one that goes on does not do it.
    pub own: bool,
    /// A file that gets the report.
    pub report: Option<&'a Path>,
    /// What is done when all is done, and whether also after a failure.
    pub then: Option<(&'a str, bool)>,
}

/// What a run was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// None: another one goes on, and does what is due.
    Another,
    /// None: it waits for the mains.
    OnBattery,
    /// A trial: the report says what would be done.
    Trial,
    /// Nothing was due.
    Idle,
    /// Something was due.
    Worked,
}

/// A run.
pub struct Ran<'a> {
    /// What it was.
    pub way: Way,
    /// What was due.
    pub plan: &'a Plan,
    /// What came of it.
    pub report: &'a Report,
    /// All in one line.
    pub summary: &'a str,
    /// When it began.
    pub begun: Time,
    /// When it ended.
    pub ended: Time,
}
