//! Removes files, and folders with their content, as far as the guard allows.
//!
//! A dry run takes the same steps, without the last step of each removal.

use std::io;
use std::sync::Arc;

use crate::engine::restore::attributes::as_it_was;
use crate::engine::restore::folder::Folder;
use crate::engine::restore::guard::{Kept, Ward};
use crate::engine::restore::run::{Halt, Mark, Run};
use crate::engine::restore::select::Picked;
use crate::fs::{Names, Stat, TargetDir};
use crate::path::join;
use crate::tree::FileKind;

/// Above this depth, the handles of the uppermost folders are closed.
const HANDLES_MAX: usize = 64;

/// The outcome of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    /// It is gone.
    Yes,
    /// It, or something in it, still exists; that has been reported.
    No,
}

/// How items that may be removed are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Remove them; in a dry run only report them.
    Remove,
    /// Leave them: only search for something that must stay.
    Look,
}

/// A folder on the way down to the item being removed.
struct Level {
    name: Vec<u8>,
    path_len: usize,
    id: (u64, u64),
    names: Names,
    next: usize,
    ward: Ward,
    /// The folder's metadata, if the restore has given its owner the rights to it.
    unlocked: Option<Stat>,
    /// Something in it stays.
    stays: bool,
    /// Its handle while a folder below it is being emptied, unless that is too far below.
    held: Option<TargetDir>,
}

/// The path of an item that stays, and why.
type Stayed = (Vec<u8>, Kept);

/// The outcome of one step of the walk.
enum Step {
    Gone,
    Stays,
    Entered,
}

/// A walk through a tree.
struct Walk<'w, 'a> {
    run: &'w Run<'a>,
    /// The folder in which it begins.
    folder: &'w Arc<Folder>,
    /// Length of the path of the item at the top.
    top_len: usize,
    way: Way,
    path: Vec<u8>,
    levels: Vec<Level>,
    /// The first item that stays, and why.
    found: Option<Stayed>,
}

/// An item to remove, which was just looked at.
struct Item<'i> {
    folder: &'i Arc<Folder>,
    dir: &'i TargetDir,
    name: &'i [u8],
    stat: &'i Stat,
    /// The rules of its folder.
    ward: &'i Ward,
}

impl Run<'_> {
    /// Removes an item that the snapshot does not have. `ward` belongs to its folder.
    pub(super) fn remove(
        &self,
        folder: &Arc<Folder>,
        dir: &TargetDir,
        name: &[u8],
        path: Vec<u8>,
        ward: &Ward,
    ) -> Result<(), Halt> {
        let stat = match dir.stat_at(name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(()),
            Err(error) => return self.target_problem(path, NOT_DELETED, error),
        };
        if let Some(kept) = self.keeps(ward, &path, &stat) {
            self.keep(path, kept);
            return Ok(());
        }
        self.clear(&Item { folder, dir, name, stat: &stat, ward }, path, Way::Remove).map(|_| ())
    }

    /// Removes an item to make room for one of another kind. Returns why it stays, if it does: then no part of it was removed.
    pub(super) fn give_way(
        &self,
        folder: &Arc<Folder>,
        dir: &TargetDir,
        name: &[u8],
        path: Vec<u8>,
        ward: &Ward,
    ) -> Result<Option<String>, Halt> {
        let stat = match dir.stat_at(name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(None),
            Err(error) => return self.target(&path, None, "cannot look at what lies there", error).map(Some),
        };
        if let Some(kept) = self.guard().keeps_from_change(ward, &path, &stat) {
            self.keep(path, kept);
            return Ok(Some(format!("what lies there is left as it is: {kept}")));
        }
        let item = Item { folder, dir, name, stat: &stat, ward };
        let (looked, found) = self.clear(&item, path.clone(), Way::Look)?;
        if let Some((inner, kept)) = found {
            let shown = crate::path::Shown(&inner).to_string();
            self.keep(inner, kept);
            return Ok(Some(format!("what lies there is left as it is, because of {shown}: {kept}")));
        }
        let removed = if looked == Removed::Yes { self.clear(&item, path, Way::Remove)?.0 } else { looked };
        Ok((removed == Removed::No).then(|| "what lies there could not be removed".to_owned()))
    }

    /// Why an item that the snapshot does not have is kept, if it is.
    fn keeps(&self, ward: &Ward, path: &[u8], stat: &Stat) -> Option<Kept> {
        let picked = self.selection.pick(Picked::Yes, path, stat.kind == FileKind::Directory);
        if picked != Picked::Yes {
            return Some(Kept::Excluded);
        }
        let is_unplanned = || self.options.planned.as_ref().is_some_and(|planned| !planned.deletes(path));
        self.guard().keeps(ward, path, stat).or_else(|| is_unplanned().then_some(Kept::Unplanned))
    }

    /// Walks through the item to remove, whatever the guard says about the item itself.
    fn clear(&self, item: &Item<'_>, path: Vec<u8>, way: Way) -> Result<(Removed, Option<Stayed>), Halt> {
        let Item { folder, dir, name, stat, ward } = *item;
        let mut walk = Walk { run: self, folder, top_len: path.len(), way, path, levels: Vec::new(), found: None };
        let mut current = None;
        let step = walk.step(dir, name, stat, ward, &mut current)?;
        if let (Step::Entered, Some(current)) = (&step, current) {
            let gone = walk.descend(current)?;
            let removed = if gone && walk.way == Way::Remove { walk.finish(dir, name, true)? } else { gone };
            return Ok((if removed { Removed::Yes } else { Removed::No }, walk.found));
        }
        Ok((if matches!(step, Step::Gone) { Removed::Yes } else { Removed::No }, walk.found))
    }
}

/// Text of the failed action.
const NOT_DELETED: &str = "cannot delete what the snapshot does not have";

impl Walk<'_, '_> {
    /// Records that an item stays. A search ends with it.
    fn stays(&mut self, why: Kept) {
        match self.way {
            Way::Remove => self.run.keep(self.path.clone(), why),
            Way::Look => self.found = Some((self.path.clone(), why)),
        }
    }

    /// Removes an item that is not a folder, or enters a folder and sets `current` to its handle. The path is that of the item.
    fn step(
        &mut self,
        dir: &TargetDir,
        name: &[u8],
        stat: &Stat,
        above: &Ward,
        current: &mut Option<TargetDir>,
    ) -> Result<Step, Halt> {
        if stat.kind != FileKind::Directory {
            if self.way == Way::Look {
                return Ok(Step::Gone);
            }
            let gone = self.finish(dir, name, false)?;
            if gone && self.run.options.dry_run {
                self.run.forget_name(stat);
            }
            return Ok(if gone { Step::Gone } else { Step::Stays });
        }
        let opened = dir.open_dir(name).and_then(|below| {
            let names = below.names()?;
            Ok((below.stat()?, names, below))
        });
        let (stat, names, below) = match opened {
            Ok(opened) => opened,
            // Something in it may have to stay.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && self.way == Way::Look => {
                self.stays(Kept::Closed);
                return Ok(Step::Stays);
            }
            Err(error) => {
                self.run.target_problem(self.path.clone(), NOT_DELETED, error)?;
                return Ok(Step::Stays);
            }
        };
        let mut ward = self.run.guard().below(above, &self.path);
        if let Err(error) = self.run.guard().enter(&mut ward, &below, &stat, false) {
            self.run.target_problem(self.path.clone(), NOT_DELETED, error)?;
            return Ok(Step::Stays);
        }
        self.run.guard().enter_names(&mut ward, &below, &self.path, &names);
        // Nothing can have been left out of an empty folder.
        if let Some(why) = ward.shield().filter(|why| !(names.is_empty() && why.is_of_rules())) {
            self.stays(why);
            return Ok(Step::Stays);
        }
        let mut unlocked = None;
        if self.way == Way::Remove
            && !self.run.options.dry_run
            && !names.is_empty()
            && below.is_locked().unwrap_or(false)
        {
            // If this fails, so does the next step, which reports it.
            unlocked = below.unlock().is_ok().then(|| stat.clone());
        }
        self.levels.push(Level {
            name: name.to_vec(),
            path_len: self.path.len(),
            id: (stat.dev, stat.ino),
            names,
            next: 0,
            ward,
            unlocked,
            stays: false,
            held: None,
        });
        *current = Some(below);
        Ok(Step::Entered)
    }

    /// Walks through the entered folder, which has this handle. Returns whether it is empty now.
    fn descend(&mut self, mut dir: TargetDir) -> Result<bool, Halt> {
        loop {
            self.run.check()?;
            if self.way == Way::Look && self.found.is_some() {
                return Ok(false);
            }
            let Some(mut level) = self.levels.pop() else { return Ok(true) };
            self.path.truncate(level.path_len);
            if level.next == level.names.len() {
                if let Some(was) = level.unlocked.as_ref().filter(|_| level.stays) {
                    let problems = dir.set_own_metadata(&as_it_was(was, &self.run.names));
                    self.run.metadata(|| self.path.clone(), problems)?;
                }
                let Some(mut above) = self.levels.pop() else { return Ok(!level.stays) };
                let parent = match above.held.take() {
                    Some(parent) => Ok(parent),
                    None => dir.open_parent(above.id),
                };
                dir = match parent {
                    Ok(parent) => parent,
                    Err(error) => {
                        self.run.target_problem(self.path.clone(), NOT_DELETED, error)?;
                        return Ok(false);
                    }
                };
                let gone = !level.stays && (self.way == Way::Look || self.finish(&dir, &level.name, true)?);
                above.stays |= !gone;
                self.levels.push(above);
                continue;
            }
            let name = level.names.get(level.next).to_vec();
            level.next += 1;
            self.path = join(&self.path, &name);
            let step = match dir.stat_at(&name) {
                Ok(None) => Step::Gone,
                Ok(Some(stat)) => {
                    if let Some(why) = self.run.keeps(&level.ward, &self.path, &stat) {
                        self.stays(why);
                        Step::Stays
                    } else {
                        let mut below = None;
                        let ward = level.ward.clone();
                        let at = self.levels.len();
                        let step = self.step(&dir, &name, &stat, &ward, &mut below)?;
                        if let Some(below) = below {
                            level.held = Some(std::mem::replace(&mut dir, below));
                            self.levels.insert(at, level);
                            if let Some(far) = (self.levels.len() - 1).checked_sub(HANDLES_MAX) {
                                self.levels[far].held = None;
                            }
                            continue;
                        }
                        step
                    }
                }
                Err(error) => {
                    self.run.target_problem(self.path.clone(), NOT_DELETED, error)?;
                    Step::Stays
                }
            };
            level.stays |= !matches!(step, Step::Gone);
            self.levels.push(level);
        }
    }

    /// The last step of a removal. Returns whether the item is gone, or would be.
    fn finish(&self, dir: &TargetDir, name: &[u8], is_folder: bool) -> Result<bool, Halt> {
        // The restore itself gives the rights to the folders below.
        let is_top = self.path.len() == self.top_len;
        let done = if self.run.options.dry_run {
            dir.may_take(name, !is_top || self.run.sets_metadata(self.folder, false))
        } else if is_folder {
            dir.remove_dir(name)
        } else {
            dir.remove_file(name)
        };
        match done {
            Ok(()) => {
                if is_top {
                    self.folder.touch();
                }
                self.run.deleted(self.path.clone(), is_folder);
                Ok(true)
            }
            Err(error) => {
                self.run.target_problem(self.path.clone(), NOT_DELETED, error)?;
                Ok(false)
            }
        }
    }
}

impl Run<'_> {
    fn deleted(&self, path: Vec<u8>, is_folder: bool) {
        self.tally.deleted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.change(Mark::Deleted, path, is_folder, "the snapshot does not have it", None);
    }
}
