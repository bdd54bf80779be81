//! What is there already and what becomes of it; and what is neither file nor folder: links, pipes, sockets, devices.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::engine::restore::Overwrite;
use crate::engine::restore::folder::Folder;
use crate::engine::restore::run::{Halt, Run};
use crate::engine::restore::select::Picked;
use crate::engine::restore::task::{Attributes, Identity};
use crate::fs::{Problem, SourceFile, Stat, TargetDir, TargetFile, is_expected};
use crate::path::join;
use crate::seal::random;
use crate::tree::{Entry, FileKind};

/// Bytes that are copied at a time.
const COPIED_AT_ONCE: usize = 256 << 10;

/// What becomes of something that is to be restored.
#[derive(Debug)]
pub(super) enum Decision {
    /// Its name is free.
    Free,
    /// This is there, and is replaced or changed.
    Over(Stat),
    /// Nothing is to be done, or nothing can be; that has been counted or told.
    Done,
}

/// A random name for something that will take the place of something else when it is whole.
pub(super) fn temporary_name() -> io::Result<Vec<u8>> {
    let mut bytes = [0; 8];
    random(&mut bytes).map_err(io::Error::other)?;
    Ok(format!(".vault-{:016x}", u64::from_le_bytes(bytes)).into_bytes())
}

impl Run<'_> {
    /// Decides what becomes of `name`, which is not a folder in the snapshot.
    pub(super) fn decide(&self, folder: &Arc<Folder>, name: &[u8], path: &[u8]) -> Result<Decision, Halt> {
        if folder.is_fresh() {
            return Ok(Decision::Free);
        }
        match self.try_decide(folder, name) {
            Ok(Ok(decision)) => Ok(decision),
            Ok(Err(what)) => {
                self.problem(path.to_vec(), what.to_owned(), false);
                Ok(Decision::Done)
            }
            Err(error) => {
                self.target_problem(path.to_vec(), "cannot replace what lies there", error)?;
                Ok(Decision::Done)
            }
        }
    }

    /// See [`Run::decide`]; the inner error says what stands in the way.
    fn try_decide(&self, folder: &Arc<Folder>, name: &[u8]) -> io::Result<Result<Decision, &'static str>> {
        let dir = self.handles.open(folder)?;
        let Some(stat) = dir.stat_at(name)? else { return Ok(Ok(Decision::Free)) };
        match self.options.overwrite {
            Overwrite::Refuse => return Ok(Err("something of this name is there already")),
            Overwrite::Never => {
                self.tally.files_kept.fetch_add(1, Relaxed);
                return Ok(Ok(Decision::Done));
            }
            Overwrite::Always | Overwrite::IfChanged => {}
        }
        if stat.kind != FileKind::Directory {
            return Ok(Ok(Decision::Over(stat)));
        }
        if !self.options.delete && !dir.open_dir(name)?.is_empty()? {
            return Ok(Err("a folder lies there that is not empty; it is left as it is"));
        }
        if !self.options.dry_run {
            dir.remove_tree(name)?;
        }
        self.tally.deleted.fetch_add(1, Relaxed);
        Ok(Ok(Decision::Free))
    }

    /// Counts a file that is now as it should be.
    pub(super) fn count_file(&self, size: u64) {
        self.tally.files.fetch_add(1, Relaxed);
        self.tally.bytes.fetch_add(size, Relaxed);
    }

    /// Makes a link, pipe, socket or device. Returns which file it is, if that was asked for and it is there.
    pub(super) fn make_special(
        &self,
        folder: &Arc<Folder>,
        entry: &Entry,
        attributes: &Attributes,
        there: Option<&Stat>,
    ) -> Result<Option<Identity>, Halt> {
        let path = || join(&folder.path(), &entry.name);
        self.progress.counters().add(1, 0);
        if self.options.dry_run {
            self.count_file(0);
            return Ok(None);
        }
        match self.try_make_special(folder, entry, attributes, there) {
            Ok((identity, problems)) => {
                self.metadata(path, problems)?;
                self.count_file(0);
                Ok(Some(identity))
            }
            Err(error) if is_expected(&error) && entry.device.is_some() => {
                self.not_permitted("device");
                Ok(None)
            }
            Err(error) => {
                self.target_problem(path(), "cannot make it", error)?;
                Ok(None)
            }
        }
    }

    fn try_make_special(
        &self,
        folder: &Arc<Folder>,
        entry: &Entry,
        attributes: &Attributes,
        there: Option<&Stat>,
    ) -> io::Result<(Identity, Vec<Problem>)> {
        let dir = self.handles.open(folder)?;
        let meta = attributes.meta(entry.kind, self);
        let name = entry.name.as_slice();
        if let Some(stat) = there {
            if self.options.overwrite == Overwrite::IfChanged && stat.nlink == 1 && is_same(&dir, entry, stat)? {
                self.tally.files_unchanged.fetch_add(1, Relaxed);
                return Ok((Identity::of(stat), dir.set_metadata(name, &meta)));
            }
            let temporary = temporary_name()?;
            make(&dir, &temporary, entry)?;
            if let Err(error) = put_in_place(&dir, &temporary, name) {
                // What cannot be put in place must not stay under its other name.
                let _ = dir.remove_file(&temporary);
                return Err(error);
            }
        } else {
            make(&dir, name, entry)?;
        }
        let problems = dir.set_metadata(name, &meta);
        let stat = dir.stat_at(name)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((Identity::of(&stat), problems))
    }

    /// Deletes something that the snapshot does not have, unless it is not in the selection.
    pub(super) fn delete_extra(&self, folder: &Arc<Folder>, name: &[u8]) -> Result<(), Halt> {
        let path = join(&folder.path(), name);
        let delete = || {
            let dir = self.handles.open(folder)?;
            let Some(stat) = dir.stat_at(name)? else { return Ok(()) };
            let is_folder = stat.kind == FileKind::Directory;
            if self.selection.pick(Picked::Yes, &path, is_folder) != Picked::Yes
                || is_folder && self.selection.excludes() && self.has_excluded(&dir.open_dir(name)?, &path, 0)?
            {
                return Ok(());
            }
            if !self.options.dry_run {
                dir.remove_tree(name)?;
            }
            self.tally.deleted.fetch_add(1, Relaxed);
            io::Result::Ok(())
        };
        match delete() {
            Ok(()) => Ok(()),
            Err(error) => self.target_problem(path, "cannot delete what the snapshot does not have", error),
        }
    }

    /// Whether something excluded lies in a folder, or it is too deep to tell.
    fn has_excluded(&self, dir: &TargetDir, path: &[u8], depth: usize) -> io::Result<bool> {
        const DEPTH_MAX: usize = 128;
        if depth == DEPTH_MAX {
            return Ok(true);
        }
        let names = dir.names()?;
        for at in 0..names.len() {
            let (name, path) = (names.get(at), join(path, names.get(at)));
            let is_folder = dir.stat_at(name)?.is_some_and(|stat| stat.kind == FileKind::Directory);
            if self.selection.pick(Picked::Yes, &path, is_folder) != Picked::Yes
                || is_folder && self.has_excluded(&dir.open_dir(name)?, &path, depth + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Gives something its final name, over whatever has that name.
pub(super) fn put_in_place(dir: &TargetDir, temporary: &[u8], name: &[u8]) -> io::Result<()> {
    match dir.rename(temporary, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && dir.unlock_at(name).is_ok() => {
            dir.rename(temporary, name)
        }
        result => result,
    }
}

/// Copies the content of a file.
pub(super) fn copy_content(from: &SourceFile, to: &TargetFile) -> io::Result<()> {
    let mut buffer = vec![0; COPIED_AT_ONCE];
    let mut at = 0;
    loop {
        let len = from.read_full_at(&mut buffer, at)?;
        if len == 0 {
            return Ok(());
        }
        to.write_at(&buffer[..len], at)?;
        at += len as u64;
    }
}

/// Whether what is there is what the entry says, but for its metadata.
fn is_same(dir: &TargetDir, entry: &Entry, stat: &Stat) -> io::Result<bool> {
    Ok(stat.kind == entry.kind
        && match entry.kind {
            FileKind::Symlink => dir.as_source().read_link(&entry.name)? == entry.target,
            FileKind::CharDevice | FileKind::BlockDevice => Some(stat.device) == entry.device,
            _ => true,
        })
}

fn make(dir: &TargetDir, name: &[u8], entry: &Entry) -> io::Result<()> {
    match (entry.kind, entry.device) {
        (FileKind::Symlink, _) => dir.symlink(name, &entry.target, entry.mode & 0o111 != 0),
        (FileKind::Fifo, _) => dir.fifo(name),
        (FileKind::Socket, _) => dir.socket(name),
        (kind, Some(device)) => dir.device(name, kind, device),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
