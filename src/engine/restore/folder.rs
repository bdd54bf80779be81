//! Folders of the target while they are restored into, and their handles.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::engine::restore::run::{Halt, Run, lock};
use crate::engine::restore::task::Attributes;
use crate::engine::restore::{Overwrite, RestoreError};
use crate::fs::TargetDir;
use crate::path::Shown;
use crate::tree::FileKind;

/// A folder that is restored into. It is done, and gets its metadata, when its listing has been walked and everything
/// in it is done.
#[derive(Debug)]
pub(super) struct Folder {
    parent: Option<Arc<Folder>>,
    /// The name in the parent; without a parent, the path inside the snapshot of what lies here.
    name: Box<[u8]>,
    attributes: Option<Attributes>,
    /// It belongs to the selection, so its metadata is set even if it was there before.
    selected: bool,
    /// Once it is made or found: whether it is new, so that nothing was in it.
    made: OnceLock<bool>,
    pending: AtomicUsize,
    handle: Mutex<Option<Arc<TargetDir>>>,
}

/// The handles of folders: those that were opened last stay open.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<VecDeque<Weak<Folder>>>,
}

/// Folders that stay open, at most.
const HANDLES_MAX: usize = 256;

impl Folder {
    /// A folder in which a restore begins. Its handle stays open; there is none in a dry run for a folder that is not
    /// there.
    pub(super) fn base(
        path: &[u8],
        handle: Option<TargetDir>,
        fresh: bool,
        attributes: Option<Attributes>,
        selected: bool,
    ) -> Arc<Self> {
        let folder = Self::new(None, path, attributes, selected);
        let _ = folder.made.set(fresh);
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
            pending: AtomicUsize::new(1),
            handle: Mutex::new(None),
        }
    }

    /// One more thing must be done before the folder is.
    pub(super) fn hold(&self) {
        self.pending.fetch_add(1, AcqRel);
    }

    /// Whether it has been made or found.
    pub(super) fn is_made(&self) -> bool {
        self.made.get().is_some()
    }

    /// Whether it is known that nothing was in it.
    pub(super) fn is_fresh(&self) -> bool {
        self.made.get() == Some(&true)
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

/// A path of thousands of folders must not be dropped by recursion.
impl Drop for Folder {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(folder) = next {
            next = Arc::into_inner(folder).and_then(|mut folder| folder.parent.take());
        }
    }
}

impl Handles {
    /// The handle of a folder that was made. Where it is not open any more, it is opened by its name in its parent,
    /// never through a link.
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

    /// Keeps a handle open, and closes the oldest one.
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

impl Run<'_> {
    /// Makes a folder, whose parent has been made, or takes the one that is there. Returns `false` if it cannot be had;
    /// that has been told then.
    pub(super) fn make_folder(&self, folder: &Arc<Folder>) -> Result<bool, Halt> {
        let Some(parent) = &folder.parent else { return Ok(true) };
        match self.try_make_folder(folder, parent) {
            Ok(true) => Ok(true),
            Ok(false) => {
                let what = "something that is no folder lies there; it is left as it is, and what belongs into the \
                            folder is not restored";
                self.problem(folder.path(), what.to_owned(), false);
                Ok(false)
            }
            // What lies directly in the folder that the user named fails for the whole restore.
            Err(error) if parent.parent.is_none() && error.kind() == io::ErrorKind::PermissionDenied => {
                Err(self.fail(RestoreError::Target { path: Shown(&folder.path()).to_string(), source: error }))
            }
            Err(error) => {
                self.target_problem(folder.path(), "cannot make the folder, so nothing in it is restored", error)?;
                Ok(false)
            }
        }
    }

    fn try_make_folder(&self, folder: &Arc<Folder>, parent: &Arc<Folder>) -> io::Result<bool> {
        let dry = self.options.dry_run;
        if dry && parent.is_fresh() {
            let _ = folder.made.set(true);
            return Ok(true);
        }
        let dir = self.handles.open(parent)?;
        let there = if parent.is_fresh() { None } else { dir.stat_at(&folder.name)? };
        if there.as_ref().is_some_and(|stat| stat.kind != FileKind::Directory) {
            if !matches!(self.options.overwrite, Overwrite::Always | Overwrite::IfChanged) {
                return Ok(false);
            }
            if !dry {
                dir.remove_file(&folder.name)?;
            }
        }
        let fresh = there.is_none_or(|stat| stat.kind != FileKind::Directory);
        if fresh && !dry {
            dir.make_dir(&folder.name)?;
        }
        if !(fresh && dry) {
            let mut opened = match dir.open_dir(&folder.name) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !dry => {
                    dir.unlock_at(&folder.name)?;
                    dir.open_dir(&folder.name)
                }
                opened => opened,
            }?;
            if fresh {
                opened.claim()?;
            } else if !dry && self.sets_metadata(folder, false) {
                opened.unlock()?;
            }
            self.handles.keep(folder, Arc::new(opened));
        }
        let _ = folder.made.set(fresh);
        Ok(true)
    }

    /// Whether a folder's own metadata is set.
    fn sets_metadata(&self, folder: &Folder, fresh: bool) -> bool {
        folder.attributes.is_some() && (fresh || folder.selected && self.options.overwrite != Overwrite::Never)
    }

    /// Something in a folder is done, or its listing is. Whoever does the last thing finishes the folder, and with it
    /// perhaps those above.
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
        let Some(fresh) = folder.made.get() else { return Ok(()) };
        let Some(attributes) = &folder.attributes else { return Ok(()) };
        if self.sets_metadata(folder, *fresh) && !self.options.dry_run {
            match self.handles.open(folder) {
                Ok(dir) => {
                    let problems = dir.set_own_metadata(&attributes.meta(FileKind::Directory, self));
                    self.metadata(|| folder.path(), problems)?;
                }
                Err(error) => self.target_problem(folder.path(), "cannot set the metadata", error)?,
            }
        }
        if folder.parent.is_some() {
            lock(&folder.handle).take();
        }
        self.tally.folders.fetch_add(1, AcqRel);
        Ok(())
    }
}
