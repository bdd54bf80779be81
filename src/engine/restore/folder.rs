//! Target folders of a restore, and their handles.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::engine::restore::Overwrite;
use crate::engine::restore::guard::{Kept, Ward};
use crate::engine::restore::run::{Halt, Mark, Run, lock};
use crate::engine::restore::task::Attributes;
use crate::fs::{Meta, Problem, Stat, TargetDir};
use crate::tree::FileKind;

/// A folder that is restored into. It is finished, and gets its metadata, when its listing has been walked and everything in it is
/// finished.
#[derive(Debug)]
pub(super) struct Folder {
    parent: Option<Arc<Folder>>,
    /// The name in the parent; without a parent, the path inside the snapshot of what is restored here.
    name: Box<[u8]>,
    attributes: Option<Attributes>,
    /// The folder belongs to the selection, so its metadata is set even if it existed before.
    selected: bool,
    /// How the folder came to be, once it is made or found.
    made: OnceLock<Made>,
    /// Device number and mount number, if the folder exists.
    device: OnceLock<(u64, u64)>,
    /// In a dry run: whether something in it would have been made or removed.
    touched: AtomicBool,
    pending: AtomicUsize,
    handle: Mutex<Option<Arc<TargetDir>>>,
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
    fn keep(&self, folder: &Arc<Folder>, dir: Arc<TargetDir>) {
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

/// The item at the place of a folder.
enum Found {
    Nothing,
    Folder(Stat),
    Other,
}

impl Run<'_> {
    /// Makes a folder, whose parent has been made, or uses the existing one. `ward` belongs to the parent. Returns `false` if it cannot
    /// be made; that has been reported.
    pub(super) fn make_folder(&self, folder: &Arc<Folder>, ward: &Ward) -> Result<bool, Halt> {
        let Some(parent) = &folder.parent else { return Ok(true) };
        let failed = |error| {
            let action = "cannot make the folder, so nothing in it is restored";
            self.target_problem_in(folder.path(), Some(parent), action, error).map(|()| false)
        };
        let found = match self.find_folder(folder, parent) {
            Ok(found) => found,
            Err(error) => return failed(error),
        };
        let obstacle = |what: String| {
            self.problem(folder.path(), format!("{what}; what belongs into the folder is not restored"), false);
            Ok(false)
        };
        let made = match found {
            Found::Folder(stat) => {
                match self.guard().own(&stat) {
                    Some(Kept::State) => {
                        // A snapshot of a home folder contains the state folder as it was then. Nobody wants it reset.
                        self.keep(folder.path(), Kept::State);
                        return Ok(false);
                    }
                    Some(Kept::Vault) => return obstacle(format!("nothing is written there: {}", Kept::Vault)),
                    _ => {}
                }
                self.open_folder(folder, parent, &stat)
            }
            Found::Other if !self.options.overwrite.changes() => {
                return obstacle("something that is no folder lies there; it is left as it is".to_owned());
            }
            Found::Other => {
                let dir = match self.handles.open(parent) {
                    Ok(dir) => dir,
                    Err(error) => return failed(error),
                };
                if let Some(what) = self.give_way(parent, &dir, &folder.name, folder.path(), ward)? {
                    return obstacle(what);
                }
                self.new_folder(folder, parent)
            }
            Found::Nothing => self.new_folder(folder, parent),
        };
        match made {
            Ok(made) => {
                let _ = folder.made.set(made);
                Ok(true)
            }
            Err(error) => failed(error),
        }
    }

    fn find_folder(&self, folder: &Arc<Folder>, parent: &Arc<Folder>) -> io::Result<Found> {
        if parent.is_blank(self.options.dry_run) {
            return Ok(Found::Nothing);
        }
        Ok(match self.handles.open(parent)?.stat_at(&folder.name)? {
            None => Found::Nothing,
            Some(stat) if stat.kind == FileKind::Directory => Found::Folder(stat),
            Some(_) => Found::Other,
        })
    }

    fn new_folder(&self, folder: &Arc<Folder>, parent: &Arc<Folder>) -> io::Result<Made> {
        if self.options.dry_run {
            self.may_write(parent)?;
        } else {
            let dir = self.handles.open(parent)?;
            dir.make_dir(&folder.name)?;
            let mut opened = dir.open_dir(&folder.name)?;
            opened.claim()?;
            self.opened(folder, opened);
        }
        self.change(Mark::Added, folder.path(), true, "it is not there", None);
        Ok(Made::New)
    }

    fn open_folder(&self, folder: &Arc<Folder>, parent: &Arc<Folder>, stat: &Stat) -> io::Result<Made> {
        let dir = self.handles.open(parent)?;
        let mut made = Made::Found;
        let opened = match dir.open_dir(&folder.name) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if self.guard().is_skipped(&folder.path()) {
                    return Ok(Made::Sealed);
                }
                made = Made::Closed;
                if self.options.dry_run && dir.is_closed(&folder.name) {
                    return Ok(made);
                }
                if self.options.dry_run {
                    return Err(error);
                }
                dir.unlock_at(&folder.name)?;
                dir.open_dir(&folder.name)?
            }
            opened => opened?,
        };
        if self.sets_metadata(folder, false) {
            if !self.options.dry_run {
                // If this fails, so do the changes in it, which are then reported.
                let _ = opened.unlock();
            }
            // Its time changes with every change in it.
            let differs = folder.attributes.as_ref().map(|attributes| attributes.differs(stat, self));
            if let Some(differs) = differs.filter(|differs| differs.rights()) {
                self.change(Mark::Changed, folder.path(), true, differs.after(Vec::new()), None);
            }
        }
        self.opened(folder, opened);
        Ok(made)
    }

    fn opened(&self, folder: &Arc<Folder>, opened: TargetDir) {
        if let Ok(stat) = opened.stat() {
            let _ = folder.device.set((stat.dev, stat.mount));
        }
        self.handles.keep(folder, Arc::new(opened));
    }

    /// For a dry run: whether names could be created in a folder.
    pub(super) fn may_write(&self, folder: &Arc<Folder>) -> io::Result<()> {
        if !folder.is_blank(true) {
            self.handles.open(folder)?.may_write(self.sets_metadata(folder, false))?;
        }
        folder.touch();
        Ok(())
    }

    /// For a dry run: whether the item of this name in a folder could be replaced.
    pub(super) fn may_take(&self, folder: &Arc<Folder>, name: &[u8]) -> io::Result<()> {
        if !folder.is_blank(true) {
            self.handles.open(folder)?.may_take(name, self.sets_metadata(folder, false))?;
        }
        folder.touch();
        Ok(())
    }

    /// For a dry run: metadata that could not be set on a new item in a folder.
    pub(super) fn foresee_new(&self, folder: &Arc<Folder>, meta: &Meta) -> Vec<Problem> {
        // A missing folder will be made in the first existing one above it.
        let mut near = Some(folder);
        while let Some(folder) = near {
            if !folder.is_blank(true)
                && let Ok(dir) = self.handles.open(folder)
            {
                return TargetDir::foresee_new_metadata(Some(&dir), meta);
            }
            near = folder.parent.as_ref();
        }
        TargetDir::foresee_new_metadata(None, meta)
    }

    /// Metadata that could not be set on the folder itself.
    fn foresee_own(&self, folder: &Arc<Folder>, made: Made, meta: &Meta) -> io::Result<Vec<Problem>> {
        let touched = folder.touched.load(Relaxed);
        match (made, &folder.parent) {
            (Made::New, parent) => Ok(parent
                .as_ref()
                .map_or_else(|| TargetDir::foresee_new_metadata(None, meta), |parent| self.foresee_new(parent, meta))),
            (Made::Sealed | Made::Closed, Some(parent)) => {
                self.handles.open(parent).map(|dir| dir.foresee_metadata(&folder.name, meta, touched))
            }
            _ => self.handles.open(folder).map(|dir| dir.foresee_own_metadata(meta, touched)),
        }
    }

    /// Whether the folder's own metadata is set.
    pub(super) fn sets_metadata(&self, folder: &Folder, fresh: bool) -> bool {
        folder.attributes.is_some() && (fresh || folder.selected && self.options.overwrite != Overwrite::Never)
    }

    /// Drops one pending item: the listing or something in the folder. Dropping the last one finishes the folder, and possibly its
    /// parents.
    pub(super) fn folder_done(&self, folder: &Arc<Folder>) -> Result<(), Halt> {
        let mut folder = folder;
        loop {
            if folder.pending.fetch_sub(1, AcqRel) > 1 {
                return Ok(());
            }
            self.finish_folder(folder)?;
            match &folder.parent {
                Some(parent) => folder = parent,
                None => return Ok(()),
            }
        }
    }

    fn finish_folder(&self, folder: &Arc<Folder>) -> Result<(), Halt> {
        let Some(made) = folder.made() else { return Ok(()) };
        let Some(attributes) = &folder.attributes else { return Ok(()) };
        if self.sets_metadata(folder, made == Made::New) {
            let meta = attributes.meta(FileKind::Directory, self);
            let set = match (made, &folder.parent) {
                _ if self.options.dry_run => self.foresee_own(folder, made, &meta),
                (Made::Sealed, Some(parent)) => {
                    self.handles.open(parent).map(|dir| dir.set_metadata(&folder.name, &meta))
                }
                _ => self.handles.open(folder).map(|dir| dir.set_own_metadata(&meta)),
            };
            match set {
                Ok(problems) => self.metadata(|| folder.path(), problems)?,
                Err(error) => {
                    self.target_problem_in(folder.path(), Some(folder), "cannot set the metadata", error)?;
                }
            }
        }
        if folder.parent.is_some() {
            lock(&folder.handle).take();
        }
        self.tally.folders.fetch_add(1, AcqRel);
        Ok(())
    }
}
