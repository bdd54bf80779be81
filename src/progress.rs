//! How the library speaks: counters that anyone may read while work goes on, and messages through a narrow trait. The
//! library itself prints nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What is being done, for the label of a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The catalogue is compared with the store; the goal counts packs and records to read.
    Catalogue,
    /// Source files are walked and read; the goal is an estimate from the previous snapshot, or nothing.
    Snapshot,
    /// The last packs and the record are written.
    Publish,
    /// Trees are read to find what a command needs.
    Plan,
    /// Files are written; the goal is exact.
    Restore,
    /// Packs are read and verified; the goal is exact.
    Check,
    /// Living segments are copied out of condemned packs; the goal is exact.
    Collect,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Catalogue, Self::Snapshot, Self::Publish, Self::Plan, Self::Restore, Self::Check, Self::Collect];

    /// The word for it, as in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Catalogue => "catalogue",
            Self::Snapshot => "snapshot",
            Self::Publish => "publish",
            Self::Plan => "plan",
            Self::Restore => "restore",
            Self::Check => "check",
            Self::Collect => "collect",
        }
    }
}

/// How far the work is. All counters only grow within one phase.
#[derive(Debug, Default)]
pub struct Counters {
    /// Files (of any kind but folders) finished.
    pub files: AtomicU64,
    /// Their sizes, in bytes.
    pub bytes: AtomicU64,
    /// Files found unchanged and not opened.
    pub files_unchanged: AtomicU64,
    /// Bytes read from source files, or from the store.
    pub bytes_read: AtomicU64,
    /// Bytes added to the store.
    pub bytes_stored: AtomicU64,
    /// What `files` is expected to reach, or 0 if not known.
    pub files_goal: AtomicU64,
    /// What `bytes` is expected to reach, or 0 if not known.
    pub bytes_goal: AtomicU64,
}

impl Counters {
    /// Adds finished files and bytes.
    pub fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Starts a phase anew with this goal (0 where it is not known).
    pub fn restart(&self, files_goal: u64, bytes_goal: u64) {
        for counter in [&self.files, &self.bytes, &self.files_unchanged, &self.bytes_read, &self.bytes_stored] {
            counter.store(0, Relaxed);
        }
        self.files_goal.store(files_goal, Relaxed);
        self.bytes_goal.store(bytes_goal, Relaxed);
    }
}

/// Where the library reports while it works. Methods may be called from many threads.
pub trait Progress: Send + Sync {
    /// Work of this kind begins; the counters have been set for it.
    fn phase(&self, phase: Phase);

    /// Something the user should know, in one or two lines, that does not stop the work.
    fn warn(&self, message: &str);

    /// A detail for those who asked for more (`-v`).
    fn detail(&self, message: &str);

    /// Whether someone reads details, so that one of each file is worth making.
    fn wants_details(&self) -> bool {
        false
    }

    /// Whether someone wants to know why as well: why a file counts as new, is written or left, a pack is read, goes or stays (`-vv`).
    fn wants_reasons(&self) -> bool {
        false
    }

    /// A file that takes long is being read (`Some`), or is done (`None`).
    fn long_file(&self, _path: Option<&[u8]>) {}

    /// The counters that the work updates.
    fn counters(&self) -> &Counters;

    /// Whether the user wants to stop. Long work asks often, and ends with an `Interrupted` error soon after.
    fn stopped(&self) -> bool;
}

/// Says nothing; keeps the counters, and can be told to stop.
#[derive(Debug, Default)]
pub struct Silent {
    counters: Counters,
    stop: AtomicBool,
}

impl Silent {
    /// Makes [`Progress::stopped`] true from now on.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }
}

impl Progress for Silent {
    fn phase(&self, _: Phase) {}

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// Keeps every message, for tests.
#[derive(Debug, Default)]
pub struct Recorded {
    silent: Silent,
    messages: std::sync::Mutex<Vec<String>>,
}

impl Recorded {
    /// The messages so far, phases as `phase NAME`, warnings as `warn TEXT`, details as `detail TEXT`.
    pub fn messages(&self) -> Vec<String> {
        self.messages.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |list| list.clone())
    }

    fn push(&self, message: String) {
        if let Ok(mut messages) = self.messages.lock() {
            messages.push(message);
        }
    }
}

impl Progress for Recorded {
    fn phase(&self, phase: Phase) {
        self.push(format!("phase {phase:?}"));
    }

    fn warn(&self, message: &str) {
        self.push(format!("warn {message}"));
    }

    fn detail(&self, message: &str) {
        self.push(format!("detail {message}"));
    }

    fn counters(&self) -> &Counters {
        self.silent.counters()
    }

    fn stopped(&self) -> bool {
        self.silent.stopped()
    }
}
/// The text of an error without the number that the standard library adds to what the system said: people are told in words.
pub fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        // Windows ends what it says with a full stop.
        Some(end) if error.is::<std::io::Error>() => text[..end].trim_end_matches('.').to_owned(),
        _ => text,
    }
}
