//! The shared state behind all answers: a long-lived vault, the program around the page, jobs, browsers.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::query::find::learn;
use crate::fs::low_priority_thread;
use crate::id::ObjectName;
use crate::progress::{Counters, Phase, Progress, Silent};
use crate::read::Folders;
use crate::read::View;
use crate::sync::lock;
use crate::tree::Time;
use crate::vault::{ReadError, SnapshotInfo, Vault, VaultError};
use crate::web::answer::Problem;
use crate::web::gate::Names;
use crate::web::jobs::{Employer, Jobs};
use crate::web::session::Sessions;

/// Bytes of listings kept in memory.
const LISTINGS: usize = 8 << 20;
/// Bytes of opened segments kept in memory.
const CACHE: usize = 16 << 20;
/// The age at which a session of the vault is renewed; also the time after the last request when the session ends.
const RENEW: Duration = Duration::from_secs(10 * 60);
/// Seconds without work after which freed memory is given back.
const QUIET: usize = 5;
/// Seconds without work after which all that can be read again is forgotten.
const IDLE: usize = 30;
/// The longest time that preparing may take.
const PREPARING: Duration = Duration::from_secs(10);
/// The age at which a view is no longer fresh, so that the store is looked at again.
const FRESH: Duration = Duration::from_secs(10);

/// A question of the page to the program around it, which knows the configuration, the clock, and the user.
pub enum Question {
    /// The present state: the configuration, the last results, the known problems.
    Overview,
    /// The state of everything, and advice on what to do.
    Doctor,
    /// The use of space in the vault.
    Stats,
    /// The snapshots that these rules would keep.
    Keep(Value),
    /// The text of the configuration, and its errors.
    Settings,
    /// Checks a text of the configuration and, on request, writes it.
    Configure(Value),
    /// The results of earlier runs.
    Runs,
    /// Takes snapshots now, in a separate process.
    Save(Value),
    /// Looks for damage.
    Check(Value),
    /// Restores a sample, and compares it with the files.
    Drill(Value),
    /// The current run, by any process, with its log.
    Run,
    /// Asks the current run to stop.
    StopRun(Value),
    /// Adds a password.
    AddKey(Value),
    /// Changes a password.
    ChangeKey(Value),
    /// Removes a key slot.
    RemoveKey(Value),
}

/// Facts about the surroundings that a restore needs.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// The rules by which a snapshot of the source would leave out files today.
    pub today: ExcludeOptions,
    /// Folders in which the program keeps its state.
    pub state: Vec<PathBuf>,
    /// Files and folders that configure the program.
    pub configuration: Vec<PathBuf>,
}

/// The program around the page.
pub trait Home: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Time;

    /// The time since a fixed moment.
    fn elapsed(&self) -> Duration;

    /// The home folder of the user who runs the program, if there is one.
    fn folder(&self) -> Option<PathBuf>;

    /// The place of the vault, for people.
    fn place(&self) -> String;

    /// The number of threads to work with.
    fn threads(&self) -> usize;

    /// Answers in the form of the command that does the same.
    ///
    /// # Errors
    /// The reason why it cannot answer.
    fn answer(&self, question: &Question, vault: &Vault, progress: &dyn Progress) -> Result<Value, Problem>;

    /// The facts that a restore of this source needs. With `delete`, all of them must be known.
    ///
    /// # Errors
    /// If a part of the configuration cannot be read.
    fn around(&self, source: &str, delete: bool) -> Result<Around, Problem>;

    /// The progress of the current run, by any process: null if it has reported none yet, `None` if there is no run.
    fn running(&self) -> Option<Value>;

    /// Reports a change of state to the people who watch the log.
    fn log(&self, text: &str);
}

/// The shared state behind all answers.
pub struct Desk {
    view: Arc<View>,
    folders: Folders,
    home: Box<dyn Home>,
    sessions: Sessions,
    jobs: Jobs,
    names: Names,
    read_only: bool,
    /// Folders that the user opened in order to choose the target of a restore.
    chosen: Mutex<BTreeSet<PathBuf>>,
    /// Whether there was any request since the session of the vault was renewed.
    is_used: AtomicBool,
    /// Seconds since the last work.
    quiet: AtomicUsize,
    /// The time of the last look at the store, and of the last renewal of the session.
    looked: Mutex<Duration>,
    renewed: Mutex<Duration>,
    /// The records for which the first search and the use of space were prepared last.
    prepared: Mutex<Arc<HashSet<ObjectName>>>,
    is_preparing: AtomicBool,
    /// Whether the program ends.
    is_over: AtomicBool,
    /// The current run, as of the last look.
    running: Mutex<Option<Arc<Value>>>,
    /// The number of pages that follow changes.
    watchers: AtomicUsize,
}

impl Employer for Desk {
    fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    fn now(&self) -> Time {
        self.home.now()
    }

    fn elapsed(&self) -> Duration {
        self.home.elapsed()
    }
}

/// Counts a page that follows changes, until this is dropped.
pub struct Watching(Arc<Desk>);

impl Watching {
    /// Counts one more page.
    pub fn new(desk: Arc<Desk>) -> Self {
        desk.watchers.fetch_add(1, Relaxed);
        desk.worked();
        Self(desk)
    }

    /// The shared state.
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
    /// A desk for an opened vault.
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
            quiet: AtomicUsize::new(0),
            looked: Mutex::new(now),
            renewed: Mutex::new(now),
            prepared: Mutex::default(),
            is_preparing: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            running: Mutex::new(running),
            watchers: AtomicUsize::new(0),
        })
    }

    /// The vault's view. Asking for it keeps the session alive.
    pub fn view(&self) -> &Arc<View> {
        let was_used = self.is_used.swap(true, Relaxed);
        self.worked();
        if !was_used && !self.view.is_at_work() {
            self.look(Duration::ZERO);
        }
        &self.view
    }

    /// The same view, brought up to date with the store.
    pub fn fresh(&self) -> &Arc<View> {
        self.is_used.store(true, Relaxed);
        self.worked();
        self.look(FRESH);
        &self.view
    }

    /// Brings the view up to date, unless that happened within this time. If it fails, the view stays as it was.
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

    /// The answer to a request for a part of a snapshot that cannot be read.
    pub fn unread(&self, info: &SnapshotInfo, error: ReadError) -> Problem {
        let error = self.view.vault().judged(error, &info.id);
        if error.gone().is_some() {
            self.look(Duration::ZERO);
            return Problem { status: StatusCode::GONE, ..error.into() };
        }
        if !error.is_late() {
            return error.into();
        }
        // The next request finds what has arrived meanwhile.
        self.look(FRESH);
        let problem = Problem { status: StatusCode::SERVICE_UNAVAILABLE, ..error.into() };
        problem.hint("Nothing is lost. Try again when the sync has brought the rest.")
    }

    /// Notes that there was work until now, whose memory is to be given back later.
    pub fn worked(&self) {
        self.quiet.store(0, Relaxed);
    }

    /// Brings the view up to date after this page has changed the store.
    pub fn changed(&self) {
        self.look(Duration::ZERO);
    }

    /// The cache of listings.
    pub const fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The program around the page.
    pub fn home(&self) -> &dyn Home {
        self.home.as_ref()
    }

    /// The known browsers.
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The jobs.
    pub const fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The host names under which the page answers.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Whether changes are forbidden.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// A snapshot in the current view of the vault.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn snapshot(&self, id: &str) -> Result<SnapshotInfo, Problem> {
        let moment = self.view().moment();
        // A snapshot changed since the page was loaded has another id.
        let is_meant = |other: &ObjectName| other.to_string() == id;
        let stands_for = |info: &&SnapshotInfo| is_meant(&info.id) || info.replaced.iter().any(is_meant);
        let found = moment.snapshots().iter().find(stands_for);
        found.cloned().ok_or_else(|| Problem::missing("there is no such snapshot (any more)"))
    }

    /// Whether a snapshot was taken on this machine, so that it can be restored to its origin.
    pub fn is_own(&self, info: &SnapshotInfo) -> bool {
        let vault = self.view.vault();
        info.body.host == vault.identity().host || vault.own_clients().contains(&info.client)
    }

    /// The records in the current view, which change with the store.
    pub fn records(&self) -> Arc<HashSet<ObjectName>> {
        self.view.moment().records().clone()
    }

    /// Notes that the user opened a folder, so a restore may go there.
    pub fn choose(&self, folder: PathBuf) {
        lock(&self.chosen).insert(folder);
    }

    /// Whether a restore may go to a folder: one below the user's home, or one that the user opened.
    pub fn may_go(&self, folder: &std::path::Path) -> bool {
        let is_home = self.home.folder().is_some_and(|home| folder.starts_with(home));
        let chosen = lock(&self.chosen);
        is_home || chosen.contains(folder) || folder.parent().is_some_and(|parent| chosen.contains(parent))
    }

    /// The current run, as of the last look.
    pub fn running(&self) -> Option<Arc<Value>> {
        lock(&self.running).clone()
    }

    /// Whether there is a run, as of the last look.
    pub fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }

    /// Checks for a run and its progress, if any page follows changes. Called a few times a second.
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

    /// Regular upkeep, about once a second.
    pub fn tick(self: &Arc<Self>) {
        if self.jobs.is_busy() || self.is_preparing() {
            self.worked();
        }
        let quiet = self.quiet.fetch_add(1, Relaxed) + 1;
        match quiet {
            QUIET => crate::memory::give_back(),
            IDLE => {
                self.view.forget();
                self.folders.forget();
                crate::memory::give_back();
            }
            _ => {}
        }
        if self.watchers.load(Relaxed) > 0 && !self.is_running() && !self.jobs.is_busy() {
            self.prepare();
        }
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

    /// Lets go of the vault's session, before the program ends.
    pub fn rest(&self) {
        self.view.rest();
    }

    /// Asks preparations to end, before the program does.
    pub fn end(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Whether answers are being prepared.
    pub fn is_preparing(&self) -> bool {
        self.is_preparing.load(Relaxed)
    }

    /// Prepares the answers that take the longest for those who look at the page: the first search, and the use of space. Does nothing
    /// if that was done for the same records, or if the store is far and all reading costs time and money.
    fn prepare(self: &Arc<Self>) {
        let records = self.records();
        let is_done = *lock(&self.prepared) == records || self.view.vault().store().is_far();
        if is_done || self.is_preparing.swap(true, Relaxed) {
            return;
        }
        *lock(&self.prepared) = records;
        let begun = self.home.elapsed();
        let preparing = Preparing { begun, counters: Counters::default(), desk: self.clone() };
        // Without a thread, the answers take their time.
        let _ = std::thread::Builder::new().spawn(move || preparing.run());
    }
}

/// Prepares answers; stops after a while, or if the program ends.
struct Preparing {
    begun: Duration,
    counters: Counters,
    desk: Arc<Desk>,
}

impl Preparing {
    fn run(&self) {
        low_priority_thread();
        let (view, home) = (&self.desk.view, &self.desk.home);
        // If anything fails, the first answer says why.
        let learned = learn(view.vault(), view.moment().snapshots(), home.threads(), self);
        // Where that takes long, the use of space would take longer.
        let is_quick = home.elapsed() < self.begun + PREPARING / 4;
        let is_done = learned.is_ok() && is_quick && home.answer(&Question::Stats, view.vault(), self).is_ok();
        home.log(if is_done {
            "a search and the use of space are prepared"
        } else {
            "a search is not prepared any further"
        });
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.desk.is_preparing.store(false, Relaxed);
    }
}

impl Progress for Preparing {
    fn phase(&self, _: Phase) {}

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn stopped(&self) -> bool {
        self.desk.is_over.load(Relaxed) || self.desk.home.elapsed() >= self.begun + PREPARING
    }
}
