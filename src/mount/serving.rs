//! The parts that every kind of mount needs while it lasts: updating the list of snapshots, renewing the session, reading files, and
//! reporting unreadable ones.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::id::NodeKey;
use crate::lru::Lru;
use crate::mount::tree::{Node, Tree};
use crate::progress::Silent;
use crate::read::ahead::Course;
use crate::read::{Ahead, StoredFile};
use crate::sync::{lock, survive};
use crate::vault::ReadError;

/// How long the list of snapshots may be remembered; so the store is listed at most this often.
pub const FLEETING: Duration = Duration::from_secs(1);
/// Length of the longest read that is answered at once, in bytes.
pub const READ_MAX: usize = 16 << 20;
/// Maximum number of files to keep open.
const FILES_KEPT: usize = 64;
/// Maximum number of unreadable places to remember, so that each is reported once. Further ones are only counted.
const TOLD_MAX: usize = 1024;
/// Interval between periodic tasks.
const TICK: Duration = Duration::from_secs(1);
/// After a slow listing of the store, the next one waits this many times its duration.
const PAUSE: u32 = 20;

/// Receives the place of something unreadable, and the error.
pub type Report = dyn Fn(&str, &ReadError) + Send + Sync;

/// Options of serving a tree.
pub struct ServingOptions {
    /// Time after which a session is renewed, or ended if nothing was read.
    pub renew: Duration,
    /// The time since a fixed moment.
    pub now: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Receives each unreadable place, with the error.
    pub report: Box<Report>,
}

/// An open file.
pub struct Open {
    /// The file.
    pub file: Arc<StoredFile>,
    course: Course,
}

/// Why something cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Its snapshot was forgotten.
    Gone,
    /// It is damaged, has not arrived yet, or the store does not respond.
    Unreadable,
    /// It is not a file.
    NoFile,
}

/// A tree that is served.
pub struct Serving {
    tree: Arc<Tree>,
    ahead: Ahead,
    options: ServingOptions,
    files: Mutex<Lru<NodeKey, Arc<Open>>>,
    /// Whether anything was read since the session was renewed.
    is_used: AtomicBool,
    /// When the store was last listed, and when the session was last renewed.
    looked: Mutex<Duration>,
    renewed: Mutex<Duration>,
    /// The earliest time for the next listing of the store.
    paused: Mutex<Duration>,
    /// Places that were reported, and whether they had just not arrived.
    told: Mutex<HashSet<(String, bool)>>,
    damaged: AtomicUsize,
    late: AtomicUsize,
    has_panicked: AtomicBool,
    is_over: AtomicBool,
}

impl Serving {
    /// Starts serving.
    pub fn new(tree: Arc<Tree>, options: ServingOptions) -> Self {
        let now = (options.now)();
        Self {
            ahead: Ahead::new(tree.view(), 2),
            tree,
            options,
            files: Mutex::new(Lru::new(FILES_KEPT)),
            is_used: AtomicBool::new(true),
            looked: Mutex::new(now),
            renewed: Mutex::new(now),
            paused: Mutex::new(now),
            told: Mutex::default(),
            damaged: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
            has_panicked: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Number of places that could not be read because of damage.
    pub fn damaged(&self) -> usize {
        self.damaged.load(Relaxed)
    }

    /// Number of places that could not be read because they have not arrived yet.
    pub fn late(&self) -> usize {
        self.late.load(Relaxed)
    }

    /// Whether a panic prevented an answer.
    pub fn has_panicked(&self) -> bool {
        self.has_panicked.load(Relaxed)
    }

    /// Runs `work` so that a panic costs only the one request; the program reports the panic. Returns `None` after a panic.
    pub fn guard<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let done = survive(work);
        if done.is_none() {
            self.has_panicked.store(true, Relaxed);
        }
        done
    }

    /// Renews the session periodically, or ends it if nothing is read, until [`Self::end`]; and calls `also` every second. This happens
    /// on a separate thread, which nothing waits for: the store may be slow, and so may the system.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn attend(self: &Arc<Self>, also: impl Fn() + Send + 'static) -> io::Result<()> {
        let serving = self.clone();
        let attend = move || {
            while !serving.is_over.load(Relaxed) {
                thread::sleep(TICK);
                let _ = serving.guard(|| {
                    serving.tick();
                    also();
                });
            }
        };
        thread::Builder::new().name("vault-mount".to_owned()).spawn(attend).map(drop)
    }

    fn tick(&self) {
        let now = (self.options.now)();
        {
            let mut renewed = lock(&self.renewed);
            if now.saturating_sub(*renewed) < self.options.renew {
                return;
            }
            *renewed = now;
        }
        if self.is_used.swap(false, Relaxed) {
            self.look(Duration::ZERO);
        } else {
            self.tree.view().rest();
        }
    }

    /// Ends the session, before the program ends.
    pub fn end(&self) {
        self.is_over.store(true, Relaxed);
        self.tree.view().rest();
    }

    /// Updates the list of snapshots, unless that was done within this time, or took so long that readers would only wait. If it fails,
    /// nothing changes.
    fn look(&self, within: Duration) {
        let now = (self.options.now)();
        {
            let mut looked = lock(&self.looked);
            let is_paused = !within.is_zero() && now < *lock(&self.paused);
            if is_paused || now.saturating_sub(*looked) < within {
                return;
            }
            *looked = now;
        }
        let _ = self.tree.refresh(&Silent::default());
        let ended = (self.options.now)();
        *lock(&self.paused) = ended + ended.saturating_sub(now) * PAUSE;
    }

    /// Records that something is read: a session that has ended begins again.
    fn touch(&self) {
        if !self.is_used.swap(true, Relaxed) && !self.tree.view().is_at_work() {
            self.look(FLEETING);
        }
    }

    /// Updates the list of snapshots if the content of this folder depends on it.
    pub fn look_for(&self, node: &Node) {
        match node {
            Node::Top | Node::All | Node::Source(_) => self.look(FLEETING),
            _ => self.touch(),
        }
    }

    /// Reports, once for each place, that it cannot be read. Returns the answer for the reader.
    pub fn failed(&self, node: &Node, error: ReadError) -> Trouble {
        let moment = self.tree.view().moment();
        if node.item().is_some_and(|item| !moment.has(&item.snap.info.id)) {
            return Trouble::Gone;
        }
        // Only items in snapshots have anything to read.
        let error = match node.item() {
            Some(item) => self.tree.view().vault().judged(error, &item.snap.info.id),
            None => error,
        };
        if error.gone().is_some() {
            self.look(Duration::ZERO);
            return Trouble::Gone;
        }
        if error.is_late() {
            // The next request finds what has arrived meanwhile.
            self.look(FLEETING);
        }
        if matches!(error, ReadError::Lost(_)) {
            self.tree.view().distrust();
        }
        let at = self.tree.shown(node);
        let (is_told, is_full) = {
            let mut told = lock(&self.told);
            let is_full = told.len() >= TOLD_MAX;
            {
                let place = (at.clone(), error.is_late());
                (told.contains(&place) || (!is_full && !told.insert(place)), is_full)
            }
        };
        if !is_told && error.is_damage() {
            self.damaged.fetch_add(1, Relaxed);
        }
        if !is_told && error.is_late() {
            self.late.fetch_add(1, Relaxed);
        }
        if !is_told && !is_full {
            (self.options.report)(&at, &error);
        }
        Trouble::Unreadable
    }

    /// Opens a file of a snapshot.
    ///
    /// # Errors
    /// [`Trouble::NoFile`] if it is not a file.
    pub fn open(&self, node: &Node) -> Result<Arc<Open>, Trouble> {
        let key = self.tree.key_of(node);
        if let Some(open) = lock(&self.files).get(&key) {
            return Ok(open);
        }
        let item = node.item().ok_or(Trouble::NoFile)?;
        let file = Arc::new(StoredFile::new(&item.entry).ok_or(Trouble::NoFile)?);
        let open = Arc::new(Open { file, course: Course::default() });
        lock(&self.files).insert(key, open.clone(), 1);
        Ok(open)
    }

    /// Reads up to `size` bytes of a file into `out`, replacing its content.
    ///
    /// # Errors
    /// Why they cannot be read. It has been reported.
    pub fn read(&self, node: &Node, open: &Open, offset: u64, size: usize, out: &mut Vec<u8>) -> Result<(), Trouble> {
        self.touch();
        self.ahead.tell(&open.file, &open.course, offset, size as u64);
        out.clear();
        out.resize(size.min(READ_MAX), 0);
        let read = open.file.read_at(self.tree.view().as_ref(), offset, out);
        let read = read.map_err(|error| self.failed(node, error))?;
        out.truncate(read);
        Ok(())
    }

    /// Bytes of `README.txt`.
    pub fn readme(&self, offset: u64, size: usize) -> &[u8] {
        let text = self.tree.readme();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        &text[from..from.saturating_add(size).min(text.len())]
    }
}
