//! Decides how existing items are handled, and restores links, pipes, sockets and devices.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::engine::restore::Overwrite;
use crate::engine::restore::attributes::{Attributes, Identity, as_it_was};
use crate::engine::restore::folder::Folder;
use crate::engine::restore::guard::{Kept, Ward};
use crate::engine::restore::run::{Halt, Mark, Run, UNCHANGED};
use crate::engine::restore::task::First;
use crate::fs::{Problem, SourceFile, Stat, TargetDir, TargetFile, is_expected, privileged};
use crate::path::join;
use crate::seal::random;
use crate::tree::entry::flags;
use crate::tree::{Entry, FileKind};

/// Number of bytes to copy at a time.
const COPIED_AT_ONCE: usize = 256 << 10;

/// How an item is restored.
#[derive(Debug)]
pub(super) enum Decision {
    /// Its name is free.
    Free,
    /// This exists, and is replaced or changed.
    Over(Stat),
    /// There is nothing to do, or nothing can be done; that has been counted or reported.
    Done,
}

/// A random name for an item that will replace another one when it is complete.
pub(super) fn temporary_name() -> io::Result<Vec<u8>> {
    let mut bytes = [0; 8];
    random(&mut bytes).map_err(io::Error::other)?;
    Ok(format!(".vault-{:016x}", u64::from_le_bytes(bytes)).into_bytes())
}

/// The obstacle to an item, before the guard is asked about it.
enum Way {
    Decided(Decision),
    Blocked(&'static str),
    /// This item of another kind exists: the guard has to be asked.
    OfAnotherKind(Stat),
}

/// How a change is reported: its mark and its reason.
type Told = (Mark, Cow<'static, str>);
/// The item made, how it is reported, and the metadata that could not be set.
type Made = (Option<Identity>, Told, Vec<Problem>);

impl Run<'_> {
    /// Decides how `name`, which is of this kind in the snapshot and not a folder, is restored. `ward` belongs to its folder.
    pub(super) fn decide(
        &self,
        folder: &Arc<Folder>,
        name: &[u8],
        path: &[u8],
        kind: FileKind,
        ward: &Ward,
    ) -> Result<Decision, Halt> {
        if folder.is_blank(self.options.dry_run) {
            return Ok(Decision::Free);
        }
        let blocked = |what: &str| {
            self.problem(path.to_vec(), what.to_owned(), false);
            Ok(Decision::Done)
        };
        let stat = match self.try_decide(folder, name, kind, ward) {
            Ok(Way::Decided(decision)) => return Ok(decision),
            Ok(Way::Blocked(what)) => return blocked(what),
            Ok(Way::OfAnotherKind(stat)) => stat,
            Err(error) => {
                self.target_problem_in(path.to_vec(), Some(folder), "cannot replace what lies there", error)?;
                return Ok(Decision::Done);
            }
        };
        if stat.kind != FileKind::Directory {
            // It is replaced when its replacement is complete.
            return match self.guard().keeps_from_change(ward, path, &stat) {
                None => Ok(Decision::Over(stat)),
                Some(why) => {
                    self.keep(path.to_vec(), why);
                    blocked(&format!("what lies there is left as it is: {why}"))
                }
            };
        }
        let dir = match self.handles.open(folder) {
            Ok(dir) => dir,
            Err(error) => {
                self.target_problem_in(path.to_vec(), Some(folder), "cannot replace what lies there", error)?;
                return Ok(Decision::Done);
            }
        };
        match self.give_way(folder, &dir, name, path.to_vec(), ward)? {
            None => Ok(Decision::Free),
            Some(what) => blocked(&what),
        }
    }

    fn try_decide(&self, folder: &Arc<Folder>, name: &[u8], kind: FileKind, ward: &Ward) -> io::Result<Way> {
        let dir = self.handles.open(folder)?;
        let Some(stat) = dir.stat_at(name)? else { return Ok(Way::Decided(Decision::Free)) };
        match self.options.overwrite {
            Overwrite::Refuse => return Ok(Way::Blocked("something of this name is there already")),
            Overwrite::Never => {
                self.tally.files_kept.fetch_add(1, Relaxed);
                let (path, is_folder) = (join(&folder.path(), name), stat.kind == FileKind::Directory);
                self.change(Mark::Same, path, is_folder, "it is there, and nothing is overwritten", None);
                return Ok(Way::Decided(Decision::Done));
            }
            Overwrite::Always | Overwrite::IfChanged | Overwrite::KeepNewer => {}
        }
        if stat.kind == FileKind::Directory {
            let is_full = || dir.open_dir(name).and_then(|dir| Ok(!dir.is_empty()?));
            if !self.options.delete && is_full()? {
                return Ok(Way::Blocked("a folder lies there that is not empty; it is left as it is"));
            }
            return Ok(Way::OfAnotherKind(stat));
        }
        if let Some(why @ (Kept::Vault | Kept::State)) = self.guard().own(&stat) {
            return Ok(Way::Blocked(if why == Kept::Vault {
                "what lies there belongs to the vault itself; it is left as it is"
            } else {
                "what lies there is the state that vault keeps; it is left as it is"
            }));
        }
        let can_compare = self.options.overwrite.compares() && kind == FileKind::File && stat.kind == kind;
        if ward.is_frozen() && !(can_compare && stat.nlink == 1) {
            return Ok(Way::Blocked("what lies there belongs to another vault; it is left as it is"));
        }
        Ok(if stat.kind == kind { Way::Decided(Decision::Over(stat)) } else { Way::OfAnotherKind(stat) })
    }

    /// Counts a file that is now as in the snapshot.
    pub(super) fn count_file(&self, size: u64) {
        self.tally.files.fetch_add(1, Relaxed);
        self.tally.bytes.fetch_add(size, Relaxed);
    }

    /// Makes a link, pipe, socket or device. Returns its identity, if it exists or would exist.
    pub(super) fn make_special(
        &self,
        folder: &Arc<Folder>,
        entry: &Entry,
        attributes: &Attributes,
        there: Option<&Stat>,
    ) -> Result<Option<First>, Halt> {
        let path = || join(&folder.path(), &entry.name);
        self.progress.counters().add(1, 0);
        match self.try_make_special(folder, entry, attributes, there) {
            Ok((identity, (mark, why), problems)) => {
                self.metadata(path, problems)?;
                self.count_file(0);
                self.change(mark, path(), false, why, None);
                Ok(Some(First { identity, size: 0, changed: mark == Mark::Changed }))
            }
            Err(error) if is_expected(&error) && entry.device.is_some() => {
                self.not_permitted("device");
                Ok(None)
            }
            Err(error) => {
                self.target_problem_in(path(), Some(folder), "cannot make it", error)?;
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
    ) -> io::Result<Made> {
        let dry = self.options.dry_run;
        let name = entry.name.as_slice();
        let meta = attributes.meta(entry.kind, &self.names, self.meta);
        let told: Told = match there {
            None => (Mark::Added, "it is not there".into()),
            Some(stat) if stat.kind != entry.kind => (Mark::Changed, "a thing of another kind is there".into()),
            Some(_) if !self.options.overwrite.compares() => (Mark::Changed, "all is written anew".into()),
            Some(_) => (Mark::Changed, "what is there is another".into()),
        };
        if folder.is_blank(dry) && dry {
            return Ok((None, told, self.foresee_new(folder, &meta)));
        }
        let dir = self.handles.open(folder)?;
        if let Some(stat) = there
            && self.options.overwrite.compares()
            && stat.nlink == 1
            && is_same(&dir, entry, stat)?
        {
            self.tally.files_unchanged.fetch_add(1, Relaxed);
            let differs = attributes.differs(stat, &self.names, self.meta);
            let told = if differs.any() {
                (Mark::Changed, differs.after(Vec::new()).into())
            } else {
                (Mark::Same, UNCHANGED.into())
            };
            let problems = if dry { dir.foresee_metadata(name, &meta, false) } else { dir.set_metadata(name, &meta) };
            return Ok((Some(Identity::of(stat)), told, problems));
        }
        if dry && entry.device.is_some() && !privileged() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let keeps_copy = there.is_some_and(|stat| self.keeps_copy(attributes, stat));
        if dry {
            if there.is_some() {
                self.may_take(folder, name)?;
            } else {
                self.may_write(folder)?;
            }
            if keeps_copy {
                self.keep_copy(&dir, name, &folder.path(), None)?;
            }
            return Ok((None, told, self.foresee_new(folder, &meta)));
        }
        if there.is_some() {
            self.make_instead(folder, &dir, entry, keeps_copy)?;
        } else {
            make(&dir, name, entry)?;
        }
        let problems = dir.set_metadata(name, &meta);
        let stat = dir.stat_at(name)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((Some(Identity::of(&stat)), told, problems))
    }

    /// Makes an item in the place of another one, of which a copy is kept if it must be.
    fn make_instead(&self, folder: &Arc<Folder>, dir: &TargetDir, entry: &Entry, keeps_copy: bool) -> io::Result<()> {
        let name = entry.name.as_slice();
        // Nothing is made that could not take its place.
        dir.may_take(name, self.sets_metadata(folder, false))?;
        let temporary = temporary_name()?;
        make(dir, &temporary, entry)?;
        let put = || {
            if keeps_copy {
                self.keep_copy(dir, name, &folder.path(), None)?;
            }
            put_in_place(dir, &temporary, name)
        };
        // An item that cannot be put in place must not stay under its temporary name.
        put().inspect_err(|_| drop(dir.remove_file(&temporary)))
    }

    /// Whether an existing item must be kept as a copy.
    pub(super) fn keeps_copy(&self, attributes: &Attributes, there: &Stat) -> bool {
        self.options.overwrite == Overwrite::KeepNewer && attributes.is_older_than(there)
    }

    /// Gives an item that will be replaced another, free name. `above` is the path of its folder. The copy is reported at this position, or
    /// the next one.
    pub(super) fn keep_copy(&self, dir: &TargetDir, name: &[u8], above: &[u8], place: Option<u64>) -> io::Result<()> {
        let mut number = 1;
        loop {
            let end = if number == 1 { ".newer".to_owned() } else { format!(".newer~{number}") };
            let copy = [name, end.as_bytes()].concat();
            number += 1;
            if dir.stat_at(&copy)?.is_some() {
                continue;
            }
            if !self.options.dry_run
                && let Some(there) = dir.stat_at(name)?.filter(|there| there.flags & flags::LOCKS != 0)
            {
                // With these flags it can have no other name.
                dir.unlock_at(name)?;
                dir.rename(name, &copy)?;
                // If this fails, the copy lacks nothing but the flags.
                let _ = dir.set_metadata(&copy, &as_it_was(&there, &self.names));
            } else if !self.options.dry_run {
                match dir.hard_link(&copy, dir, name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    // Not every file system has hard links. Then the old file is renamed.
                    Err(_) => dir.rename(name, &copy)?,
                    Ok(()) => {}
                }
            }
            self.tally.copies.fetch_add(1, Relaxed);
            self.change(Mark::Added, join(above, &copy), false, "what was there is newer, and is kept", place);
            return Ok(());
        }
    }

    /// Keeps an item that is no folder under another, free name only, since a folder will have its name.
    pub(super) fn keep_instead(&self, folder: &Arc<Folder>, dir: &TargetDir, name: &[u8]) -> io::Result<()> {
        if self.options.dry_run {
            self.may_take(folder, name)?;
        }
        self.keep_copy(dir, name, &folder.path(), None)?;
        if self.options.dry_run || dir.stat_at(name)?.is_none() {
            return Ok(());
        }
        match dir.remove_file(name) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && dir.unlock_at(name).is_ok() => {
                dir.remove_file(name)
            }
            result => result,
        }
    }

    /// Deletes an item that the snapshot does not have, as far as the guard allows. `ward` belongs to the folder.
    pub(super) fn delete_extra(&self, folder: &Arc<Folder>, name: &[u8], ward: &Ward) -> Result<(), Halt> {
        let path = join(&folder.path(), name);
        match self.handles.open(folder) {
            Ok(dir) => self.remove(folder, &dir, name, path, ward),
            Err(error) => {
                let action = "cannot delete what the snapshot does not have";
                self.target_problem_in(path, Some(folder), action, error)
            }
        }
    }
}

/// Gives an item its final name, replacing any item that has that name.
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

/// Whether an existing item is as its entry says, apart from its metadata.
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
