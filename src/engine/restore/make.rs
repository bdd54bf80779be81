//! Makes target folders, and sets their metadata when everything in them is done.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering::AcqRel, Ordering::Relaxed};

use crate::engine::restore::Overwrite;
use crate::engine::restore::folder::{Folder, Made};
use crate::engine::restore::guard::{Kept, Ward};
use crate::engine::restore::run::{Halt, Mark, Run, lock};
use crate::fs::{Meta, Problem, Stat, TargetDir};
use crate::tree::FileKind;

/// The item at the place of a folder.
enum Found {
    Nothing,
    Folder(Stat),
    Other(Stat),
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
            Found::Other(_) if !self.options.overwrite.changes() => {
                return obstacle("something that is no folder lies there; it is left as it is".to_owned());
            }
            Found::Other(stat) => {
                let dir = match self.handles.open(parent) {
                    Ok(dir) => dir,
                    Err(error) => return failed(error),
                };
                let is_newer = folder.attributes.as_ref().is_some_and(|attributes| self.keeps_copy(attributes, &stat));
                if is_newer && self.guard().keeps_from_change(ward, &folder.path(), &stat).is_none() {
                    if let Err(error) = self.keep_instead(parent, &dir, &folder.name) {
                        return failed(error);
                    }
                } else if let Some(what) = self.give_way(parent, &dir, &folder.name, folder.path(), ward)? {
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
            Some(stat) => Found::Other(stat),
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
                if self.options.dry_run {
                    return dir.may_unlock(&folder.name).map(|()| made);
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
            let differs = folder.attributes.as_ref().map(|attributes| attributes.differs(stat, &self.names, self.meta));
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
            let meta = attributes.meta(FileKind::Directory, &self.names, self.meta);
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
