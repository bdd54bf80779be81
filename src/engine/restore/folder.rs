//! Target folders of a restore, and their handles.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::engine::restore::attributes::Attributes;
use crate::fs::TargetDir;
use crate::sync::lock;

/// A folder that is restored into. It is finished, and gets its metadata, when its listing has been walked and everything in it is
/// finished.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) parent: Option<Arc<Folder>>,
    /// The name in the parent; without a parent, the path inside the snapshot of what is restored here.
    pub(super) name: Box<[u8]>,
    pub(super) attributes: Option<Attributes>,
    /// The folder belongs to the selection, so its metadata is set even if it existed before.
    pub(super) selected: bool,
    /// How the folder came to be, once it is made or found.
    pub(super) made: OnceLock<Made>,
    /// Device number and mount number, if the folder exists.
    pub(super) device: OnceLock<(u64, u64)>,
    /// In a dry run: whether something in it would have been made or removed.
    pub(super) touched: AtomicBool,
    pub(super) pending: AtomicUsize,
    pub(super) handle: Mutex<Option<Arc<TargetDir>>>,
}

/// How a target folder came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// The restore made it, so it was empty.
    New,
    /// It existed.
    Found,
    /// It existed, but its owner had no right to read it, which the restore has given back. In a dry run the owner still has no right.
    Closed,
    /// It existed and could not be read when the snapshot was taken, nor can it be now. It is left as it is.
    Sealed,
}

/// The handles of folders: those opened last stay open.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<VecDeque<Weak<Folder>>>,
}

/// Maximum number of folders that stay open.
const HANDLES_MAX: usize = 256;

impl Folder {
    /// A folder in which a restore begins. Its handle stays open; in a dry run, a folder that does not exist has none.
    pub(super) fn base(
        path: &[u8],
        handle: Option<TargetDir>,
        fresh: bool,
        attributes: Option<Attributes>,
        selected: bool,
    ) -> Arc<Self> {
        let folder = Self::new(None, path, attributes, selected);
        let _ = folder.made.set(if fresh { Made::New } else { Made::Found });
        if let Some(stat) = handle.as_ref().and_then(|handle| handle.stat().ok()) {
            let _ = folder.device.set((stat.dev, stat.mount));
        }
        *lock(&folder.handle) = handle.map(Arc::new);
        Arc::new(folder)
    }

    /// A folder in `parent`, to be made.
    pub(super) fn child(parent: &Arc<Self>, name: &[u8], attributes: Attributes, selected: bool) -> Arc<Self> {
        parent.hold();
        Arc::new(Self::new(Some(parent.clone()), name, Some(attributes), selected))
    }

    fn new(parent: Option<Arc<Self>>, name: &[u8], attributes: Option<Attributes>, selected: bool) -> Self {
        Self {
            parent,
            name: name.into(),
            attributes,
            selected,
            made: OnceLock::new(),
            device: OnceLock::new(),
            touched: AtomicBool::new(false),
            pending: AtomicUsize::new(1),
            handle: Mutex::new(None),
        }
    }

    /// Adds one thing that must be finished before the folder is.
    pub(super) fn hold(&self) {
        self.pending.fetch_add(1, AcqRel);
    }

    /// Whether the folder has been made or found.
    pub(super) fn is_made(&self) -> bool {
        self.made.get().is_some()
    }

    /// How the folder came to be, once it has been made or found.
    pub(super) fn made(&self) -> Option<Made> {
        self.made.get().copied()
    }

    /// Whether the folder is known to have been empty.
    pub(super) fn is_fresh(&self) -> bool {
        self.made() == Some(Made::New)
    }

    /// Whether nothing can be known about its content: it is new, or a dry run may not open it.
    pub(super) fn is_blank(&self, dry: bool) -> bool {
        self.is_fresh() || dry && self.made() == Some(Made::Closed)
    }

    /// For a dry run: records that something in it would have been made or removed.
    pub(super) fn touch(&self) {
        self.touched.store(true, Relaxed);
    }

    /// Device number and mount number, if the folder exists.
    pub(super) fn device(&self) -> Option<(u64, u64)> {
        self.device.get().copied()
    }

    /// Whether the folder itself is restored, not only something in it.
    pub(super) fn is_selected(&self) -> bool {
        self.selected
    }

    /// The path inside the snapshot.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut names = vec![&self.name];
        let mut folder = self;
        while let Some(parent) = &folder.parent {
            folder = parent;
            names.push(&folder.name);
        }
        let mut path = Vec::new();
        for name in names.into_iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }

    /// The handle of a folder in which a restore begins.
    pub(super) fn base_handle(&self) -> Option<Arc<TargetDir>> {
        self.handle()
    }

    fn handle(&self) -> Option<Arc<TargetDir>> {
        lock(&self.handle).clone()
    }
}

/// Not recursive, as a path may have thousands of folders.
impl Drop for Folder {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(folder) = next {
            next = Arc::into_inner(folder).and_then(|mut folder| folder.parent.take());
        }
    }
}

impl Handles {
    /// The handle of a folder that was made. If it has been closed, it is opened again by its name in its parent, never through a link.
    pub(super) fn open(&self, folder: &Arc<Folder>) -> io::Result<Arc<TargetDir>> {
        let mut closed = Vec::new();
        let mut at = folder;
        let mut dir = loop {
            if let Some(dir) = at.handle() {
                break dir;
            }
            closed.push(at);
            at = at.parent.as_ref().ok_or(io::ErrorKind::NotFound)?;
        };
        while let Some(folder) = closed.pop() {
            dir = Arc::new(dir.open_dir(&folder.name)?);
            if closed.len() < HANDLES_MAX / 2 {
                self.keep(folder, dir.clone());
            }
        }
        Ok(dir)
    }

    /// Keeps a handle open and closes the oldest one.
    pub(super) fn keep(&self, folder: &Arc<Folder>, dir: Arc<TargetDir>) {
        *lock(&folder.handle) = Some(dir);
        let oldest = {
            let mut open = lock(&self.open);
            open.push_back(Arc::downgrade(folder));
            if open.len() > HANDLES_MAX { open.pop_front() } else { None }
        };
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            lock(&oldest.handle).take();
        }
    }
}
