//! Progress reports of the library: counters that anyone may read while work goes on, and messages through a narrow
//! trait. The library itself prints nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The present step, for the label of a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The catalogue is compared with the store; the goal counts packs and records to read.
    Catalogue,
    /// Source files are walked and read; the goal is an estimate from the previous snapshot, or nothing.
    Snapshot,
    /// The last packs and the record are written.
    Publish,
    /// Trees are read to find the data that a command needs.
    Plan,
    /// Files are written; the goal is exact.
    Restore,
    /// Packs are read and verified; the goal is exact.
    Check,
    /// Living segments are copied out of condemned packs; the goal is exact.
    Collect,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 7] =
        [Self::Catalogue, Self::Snapshot, Self::Publish, Self::Plan, Self::Restore, Self::Check, Self::Collect];

    /// The word for the phase, as in JSON.
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

/// Progress of the work. All counters only grow within one phase.
#[derive(Debug, Default)]
pub struct Counters {
    /// Number of files (of any kind except folders) that are finished.
    pub files: AtomicU64,
    /// Sum of their sizes, in bytes.
    pub bytes: AtomicU64,
    /// Number of files that were found unchanged and not opened.
    pub files_unchanged: AtomicU64,
    /// Number of bytes read from source files, or from the store.
    pub bytes_read: AtomicU64,
    /// Number of bytes added to the store.
    pub bytes_stored: AtomicU64,
    /// Expected final value of `files`, or 0 if unknown.
    pub files_goal: AtomicU64,
    /// Expected final value of `bytes`, or 0 if unknown.
    pub bytes_goal: AtomicU64,
}

impl Counters {
    /// Adds finished files and bytes.
    pub fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Resets the counters for a phase with this goal (0 if unknown).
    pub fn restart(&self, files_goal: u64, bytes_goal: u64) {
        for counter in [&self.files, &self.bytes, &self.files_unchanged, &self.bytes_read, &self.bytes_stored] {
            counter.store(0, Relaxed);
        }
        self.files_goal.store(files_goal, Relaxed);
        self.bytes_goal.store(bytes_goal, Relaxed);
    }
}

/// Receives reports of the library while it works. Methods may be called from many threads.
pub trait Progress: Send + Sync {
    /// A phase begins; the counters have been reset for it.
    fn phase(&self, phase: Phase);

    /// A message of one or two lines that the user should see, and that does not stop the work.
    fn warn(&self, message: &str);

    /// A detail for users who asked for more (`-v`).
    fn detail(&self, message: &str);

    /// Whether someone reads details, so that one for each file is worth making.
    fn wants_details(&self) -> bool {
        false
    }

    /// Whether someone also wants reasons: why a file counts as new, is written or left alone, or why a pack is read,
    /// deleted or kept (`-vv`).
    fn wants_reasons(&self) -> bool {
        false
    }

    /// A large file is being read (`Some`), or is finished (`None`).
    fn long_file(&self, _path: Option<&[u8]>) {}

    /// The counters that the work updates.
    fn counters(&self) -> &Counters;

    /// Whether the user wants to stop. Long work asks often, and ends with an `Interrupted` error soon after.
    fn stopped(&self) -> bool;
}

/// Passes everything on but messages: for a dry run before the real work, which meets the same problems and reports them.
pub struct Hushed<'p>(pub &'p dyn Progress);

impl Progress for Hushed<'_> {
    fn phase(&self, phase: Phase) {
        self.0.phase(phase);
    }

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        self.0.counters()
    }

    fn stopped(&self) -> bool {
        self.0.stopped()
    }
}

/// Reports nothing; keeps the counters, and can be told to stop.
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

/// Records every message, for tests.
#[derive(Debug, Default)]
pub struct Recorded {
    silent: Silent,
    messages: std::sync::Mutex<Vec<String>>,
}

impl Recorded {
    /// The messages so far: phases as `phase NAME`, warnings as `warn TEXT`, details as `detail TEXT`.
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
/// The text of an error without the number that the standard library appends to the system's message: users get words.
pub fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        // Windows ends its messages with a full stop.
        Some(end) if error.is::<std::io::Error>() => text[..end].trim_end_matches('.').to_owned(),
        _ => text,
    }
}
