//! What all answers work with: a vault that lasts, the program around the page, jobs, browsers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::engine::exclude::ExcludeOptions;
use crate::id::ObjectName;
use crate::progress::{Progress, Silent};
use crate::read::Folders;
use crate::sync::lock;
use crate::tree::Time;
use crate::vault::{SnapshotInfo, Vault, VaultError, View};
use crate::web::answer::Problem;
use crate::web::gate::Names;
use crate::web::jobs::Jobs;
use crate::web::session::Sessions;

/// Bytes of listings that are kept.
const LISTINGS: usize = 8 << 20;
/// Bytes of opened segments that are kept.
const CACHE: usize = 16 << 20;
/// How long a session of the vault lasts before it is renewed, and how long after the last request none is held.
const RENEW: Duration = Duration::from_secs(10 * 60);
/// Who looks at the page sees what was stored so long ago.
const FRESH: Duration = Duration::from_secs(10);

/// What the page asks the program around it, which knows the configuration, the clock, and who runs it.
pub enum Question {
    /// How things stand: what is configured, what was done last, what is known to be wrong.
    Overview,
    /// Is all well, and what should be done?
    Doctor,
    /// What takes the space?
    Stats,
    /// What would these rules keep?
    Keep(Value),
    /// The text of the configuration, and what is wrong with it.
    Settings,
    /// Checks a text of the configuration and, if that is wanted, writes it.
    Configure(Value),
    /// What earlier runs did.
    Runs,
    /// Takes snapshots now, by a process of its own.
    Save(Value),
    /// Looks for damage.
    Check(Value),
    /// Restores a sample, and compares it.
    Drill(Value),
    /// The run that goes on, whoever started it, with its log.
    Run,
    /// Asks the run that goes on to stop.
    StopRun(Value),
    /// Adds a password.
    AddKey(Value),
    /// Changes a password.
    ChangeKey(Value),
    /// Removes a key slot.
    RemoveKey(Value),
}

/// What a restore has to know of the surroundings.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// What a snapshot of the source would leave out today.
    pub today: ExcludeOptions,
    /// Folders in which the program keeps its state.
    pub state: Vec<PathBuf>,
    /// Files and folders that configure the program.
    pub configuration: Vec<PathBuf>,
}

/// The program around the page.
pub trait Home: Send + Sync + 'static {
    /// What time it is.
    fn now(&self) -> Time;

    /// The time since some moment.
    fn elapsed(&self) -> Duration;

    /// The folder of the user who runs it, if there is one.
    fn folder(&self) -> Option<PathBuf>;

    /// The place of the vault, for people.
    fn place(&self) -> String;

    /// How many threads work.
    fn threads(&self) -> usize;

    /// Answers, in the shape of the command that does the same.
    ///
    /// # Errors
    /// Why it cannot.
    fn answer(&self, question: &Question, vault: &Vault, progress: &dyn Progress) -> Result<Value, Problem>;

    /// What a restore of this source has to know. With `delete`, all of it must be known.
    ///
    /// # Errors
    /// If something is configured that cannot be read.
    fn around(&self, source: &str, delete: bool) -> Result<Around, Problem>;

    /// What the run that goes on says of itself, whoever started it: null if it says nothing yet, `None` if none goes on.
    fn running(&self) -> Option<Value>;

    /// Makes a change of state known to who watches the log.
    fn log(&self, text: &str);
}

/// What all answers work with.
pub struct Desk {
    view: Arc<View>,
    folders: Folders,
    home: Box<dyn Home>,
    sessions: Sessions,
    jobs: Jobs,
    names: Names,
    read_only: bool,
    /// Folders that were looked into, to choose where a restore goes.
    chosen: Mutex<BTreeSet<PathBuf>>,
    /// Whether anyone has asked for anything since the session of the vault was renewed.
    is_used: AtomicBool,
    /// When the store was looked at last, and when the session was renewed.
    looked: Mutex<Duration>,
    renewed: Mutex<Duration>,
    /// The run that went on when that was looked at last.
    running: Mutex<Option<Arc<Value>>>,
    /// How many pages want to be told what changes.
    watchers: AtomicUsize,
}

/// A page that wants to be told what changes, until this is dropped.
pub struct Watching(Arc<Desk>);

impl Watching {
    /// One more.
    pub fn new(desk: Arc<Desk>) -> Self {
        desk.watchers.fetch_add(1, Relaxed);
        Self(desk)
    }

    /// What all answers work with.
    pub const fn desk(&self) -> &Arc<Desk> {
        &self.0
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Relaxed);
    }
}

impl Desk {
    /// Begins with a vault that was opened.
    ///
    /// # Errors
    /// If the vault cannot be read.
    pub fn new(vault: Arc<Vault>, home: Box<dyn Home>, names: Names, read_only: bool) -> Result<Self, VaultError> {
        let view = Arc::new(View::new(vault, CACHE, &Silent::default())?);
        let now = home.elapsed();
        let running = home.running().map(Arc::new);
        Ok(Self {
            view,
            folders: Folders::new(LISTINGS),
            home,
            sessions: Sessions::default(),
            jobs: Jobs::default(),
            names,
            read_only,
            chosen: Mutex::default(),
            is_used: AtomicBool::new(true),
            looked: Mutex::new(now),
            renewed: Mutex::new(now),
            running: Mutex::new(running),
            watchers: AtomicUsize::new(0),
        })
    }

    /// The vault. Whoever asks for it looks at it: it rests no longer.
    pub fn view(&self) -> &Arc<View> {
        let was_used = self.is_used.swap(true, Relaxed);
        if !was_used && !self.view.is_at_work() {
            self.look(Duration::ZERO);
        }
        &self.view
    }

    /// The same, as the store is now.
    pub fn fresh(&self) -> &Arc<View> {
        self.is_used.store(true, Relaxed);
        self.look(FRESH);
        &self.view
    }

    /// Looks at the store, unless that was done in this time. If it fails, all is as it was.
    fn look(&self, within: Duration) {
        let now = self.home.elapsed();
        {
            let mut looked = lock(&self.looked);
            if now.saturating_sub(*looked) < within {
                return;
            }
            *looked = now;
        }
        let _ = self.view.renew(&Silent::default());
    }

    /// The store has been changed by this page: it is looked at again.
    pub fn changed(&self) {
        self.look(Duration::ZERO);
    }

    /// Listings that were read.
    pub const fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The program around the page.
    pub fn home(&self) -> &dyn Home {
        self.home.as_ref()
    }

    /// The browsers.
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What takes long.
    pub const fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// By which names the page may be asked for.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Whether nothing may be changed.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// A snapshot, as the vault was when it was looked at last.
    ///
    /// # Errors
    /// If there is none.
    pub fn snapshot(&self, id: &str) -> Result<SnapshotInfo, Problem> {
        let moment = self.view().moment();
        // One that was changed since the page was made has another id.
        let is_meant = |other: &ObjectName| other.to_string() == id;
        let stands_for = |info: &&SnapshotInfo| is_meant(&info.id) || info.replaced.iter().any(is_meant);
        let found = moment.snapshots().iter().find(stands_for);
        found.cloned().ok_or_else(|| Problem::missing("there is no such snapshot (any more)"))
    }

    /// Whether a snapshot is of this machine, so that it can be brought back to where it came from.
    pub fn is_own(&self, info: &SnapshotInfo) -> bool {
        let vault = self.view.vault();
        info.body.host == vault.identity().host || vault.own_clients().contains(&info.client)
    }

    /// The snapshot's id and the records that there are: both change with the store.
    pub fn records(&self) -> Arc<std::collections::HashSet<ObjectName>> {
        self.view.moment().records().clone()
    }

    /// A folder was looked into: a restore may go there.
    pub fn choose(&self, folder: PathBuf) {
        lock(&self.chosen).insert(folder);
    }

    /// Whether a restore may go to a folder: below the user's own, or where it was looked into.
    pub fn may_go(&self, folder: &std::path::Path) -> bool {
        let is_home = self.home.folder().is_some_and(|home| folder.starts_with(home));
        let chosen = lock(&self.chosen);
        is_home || chosen.contains(folder) || folder.parent().is_some_and(|parent| chosen.contains(parent))
    }

    /// The run that goes on, as far as is known.
    pub fn running(&self) -> Option<Arc<Value>> {
        lock(&self.running).clone()
    }

    /// Whether a run goes on, as far as is known.
    pub fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }

    /// Looks whether a run goes on, and what it does, if anybody wants to know: a few times in each second.
    pub fn watch(&self) {
        if self.watchers.load(Relaxed) == 0 && !self.is_used.load(Relaxed) {
            return;
        }
        let now = self.home.running();
        let has_ended = {
            let mut running = lock(&self.running);
            let has_ended = running.is_some() && now.is_none();
            if running.as_deref() != now.as_ref() {
                *running = now.map(Arc::new);
            }
            has_ended
        };
        if has_ended {
            self.changed();
        }
    }

    /// What has to be done once in a while: about each second.
    pub fn tick(&self) {
        let now = self.home.elapsed();
        let is_due = {
            let mut renewed = lock(&self.renewed);
            let is_due = now.saturating_sub(*renewed) >= RENEW;
            *renewed = if is_due { now } else { *renewed };
            is_due
        };
        if is_due {
            if self.is_used.swap(false, Relaxed) {
                self.look(Duration::ZERO);
            } else {
                self.view.rest();
            }
        }
    }

    /// Holds nothing any more, before the program ends.
    pub fn rest(&self) {
        self.view.rest();
    }
}
