//! Hard links: the first name of a file is restored, and the others are linked to it at the end (SPEC §7.4).
//!
//! Groups are kept as hashes of paths, so that a million links take little memory; the paths themselves are read from the snapshot again
//! when they are linked.

use std::io;
use std::sync::{Arc, Mutex};

use crate::engine::restore::attributes::{Identity, as_it_was};
use crate::engine::restore::place::Places;
use crate::engine::restore::run::{Halt, Loss, Mark, Run, UNCHANGED, lock};
use crate::engine::restore::select::Picked;
use crate::engine::restore::special::{copy_content, put_in_place, temporary_name};
use crate::engine::restore::task::{FinishError, First};
use crate::fs::{Meta, MetaOptions, Stat, TargetDir};
use crate::path;
use crate::read::TreeReader;
use crate::read::links::GroupReader;
use crate::tree::entry::flags;
use crate::tree::{FileKind, Owner};
use crate::vault::SnapshotInfo;

/// Maximum number of names to remember; further names become separate files.
const MEMBERS_MAX: usize = 1 << 20;
/// Maximum number of names of one file that wait for the name they are linked to.
const WAITING_MAX: usize = 1 << 16;

/// The beginning of the hash of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PathHash([u8; 16]);

/// The role of a path among the hard links of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    /// The only name of its file.
    None,
    /// The first name of this group that is restored.
    First(u32),
    /// Another name, which is linked at the end.
    Other,
}

/// The groups of names.
#[derive(Debug, Default)]
pub(super) struct Links(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Ordered by hash.
    members: Vec<Row>,
    groups: Vec<Group>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    hash: PathHash,
    group: u32,
    met: Met,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    No,
    First,
    Other,
}

#[derive(Debug, Default, Clone, Copy)]
struct Group {
    has_first: bool,
    /// The file in the target, once it is there.
    made: Option<First>,
    /// A file in the target all of whose names are restored with this group.
    covers: Option<Identity>,
}

fn hash(path: &[u8]) -> PathHash {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(path).as_bytes()[..16]);
    PathHash(out)
}

impl Links {
    /// Reads which of the paths to restore are names of one file. If the list is damaged, the names become separate files, and a problem
    /// is reported.
    pub(super) fn load(
        run: &Run<'_>,
        info: &SnapshotInfo,
        places: &Places,
        trees: &mut TreeReader<'_>,
    ) -> Result<Self, Halt> {
        let mut state = State::default();
        let mut reader = GroupReader::new(&info.body.links);
        let mut group: Vec<Row> = Vec::new();
        let mut there = There::default();
        loop {
            run.check()?;
            let next = match reader.next(trees) {
                Ok(next) => next,
                Err(error) => {
                    let Loss { what, is_damage } = run.read(error)?;
                    let what = format!("hard links are restored as files of their own: {what}");
                    run.problem(Vec::new(), what, is_damage);
                    None
                }
            };
            if next.as_ref().is_none_or(|(first, _)| *first) {
                state.add(&mut group, std::mem::take(&mut there));
            }
            let Some((_, path)) = next else { break };
            let wanted = places.0.iter().any(|place| place.names_to(&path).is_some())
                && run.selection.pick_path(&path, false) == Picked::Yes;
            if !wanted {
                continue;
            }
            if state.members.len() + group.len() == MEMBERS_MAX {
                let what = "there are too many hard links; the rest are restored as files of their own".to_owned();
                run.problem(path, what, false);
                break;
            }
            if run.options.overwrite.compares() {
                there.add(places, &path);
            }
            group.push(Row { hash: hash(&path), group: state.groups.len() as u32, met: Met::No });
        }
        state.add(&mut group, there);
        state.members.sort_unstable_by_key(|row| (row.hash, row.group));
        // A path belongs to only one group, whatever the list says.
        state.members.dedup_by_key(|row| row.hash);
        Ok(Self(Mutex::new(state)))
    }

    /// The role of a file's path. If it is the first of its group, the caller restores it.
    pub(super) fn meet(&self, path: &[u8]) -> Member {
        let state = &mut *lock(&self.0);
        let Some(at) = state.find(path) else { return Member::None };
        let row = &mut state.members[at];
        let group = &mut state.groups[row.group as usize];
        if std::mem::replace(&mut group.has_first, true) {
            row.met = Met::Other;
            return Member::Other;
        }
        row.met = Met::First;
        Member::First(row.group)
    }

    /// Whether all names of this file in the target belong to the group.
    pub(super) fn covers(&self, group: u32, identity: Identity) -> bool {
        lock(&self.0).groups[group as usize].covers == Some(identity)
    }

    /// Records that the first name of a group is in place.
    pub(super) fn made(&self, group: u32, first: First) {
        lock(&self.0).groups[group as usize].made = Some(first);
    }

    /// Whether a path is one of several names of a file.
    pub(super) fn knows(&self, path: &[u8]) -> bool {
        lock(&self.0).find(path).is_some()
    }

    /// Links all the other names.
    pub(super) fn link(
        &self,
        run: &Run<'_>,
        info: &SnapshotInfo,
        places: &Places,
        trees: &mut TreeReader<'_>,
    ) -> Result<(), Halt> {
        let state = &mut *lock(&self.0);
        if state.members.is_empty() {
            return Ok(());
        }
        let mut reader = GroupReader::new(&info.body.links);
        let mut linker = Linker { run, places, first: None, waiting: Vec::new() };
        loop {
            run.check()?;
            // If the end of the list is damaged, the names in it were not read before either.
            let Ok(Some((begins, path))) = reader.next(trees) else { break };
            if begins {
                linker.end_group()?;
            }
            let Some(at) = state.find(&path) else { continue };
            let row = state.members[at];
            match row.met {
                Met::No => {}
                Met::First => linker.begin_group(path, state.groups[row.group as usize].made)?,
                Met::Other => linker.add(path)?,
            }
            // A path that is listed twice is linked once.
            state.members[at].met = Met::No;
        }
        linker.end_group()
    }
}

impl State {
    fn find(&self, path: &[u8]) -> Option<usize> {
        if self.members.is_empty() {
            return None;
        }
        let hash = hash(path);
        self.members.binary_search_by(|row| row.hash.cmp(&hash)).ok()
    }

    /// Adds a group. A group of one name needs no links.
    fn add(&mut self, rows: &mut Vec<Row>, there: There) {
        if rows.len() > 1 {
            let covers = there.file.filter(|(_, nlink)| *nlink == there.names).map(|(identity, _)| identity);
            self.groups.push(Group { covers, ..Group::default() });
            self.members.append(rows);
        }
        rows.clear();
    }
}

/// The file at the first existing name of a group, and how many names of the group it has.
#[derive(Debug, Default)]
struct There {
    file: Option<(Identity, u64)>,
    names: u64,
}

impl There {
    fn add(&mut self, places: &Places, path: &[u8]) {
        let Ok((dir, name)) = resolve(places, path) else { return };
        let Ok(Some(stat)) = dir.stat_at(&name) else { return };
        let (identity, _) = self.file.get_or_insert((Identity::of(&stat), stat.nlink));
        self.names += u64::from(*identity == Identity::of(&stat));
    }
}

/// The target folder and the name in it for a path inside the snapshot. Follows no links.
fn resolve(places: &Places, path: &[u8]) -> io::Result<(Arc<TargetDir>, Vec<u8>)> {
    for place in &places.0 {
        let (Some(mut names), Some(folder)) = (place.names_to(path), place.folder()) else { continue };
        let Some(name) = names.pop() else { continue };
        let mut dir = folder.base_handle().ok_or(io::ErrorKind::NotFound)?;
        for name in names {
            dir = Arc::new(dir.open_dir(name)?);
        }
        return Ok((dir, name.to_vec()));
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Links the names of one group after the other.
struct Linker<'l, 'a> {
    run: &'l Run<'a>,
    places: &'l Places,
    /// The path of the first name, and its file if it could be restored.
    first: Option<(Vec<u8>, Option<First>)>,
    /// Names listed before the first one.
    waiting: Vec<Vec<u8>>,
}

impl Linker<'_, '_> {
    fn begin_group(&mut self, path: Vec<u8>, made: Option<First>) -> Result<(), Halt> {
        self.first = Some((path, made));
        std::mem::take(&mut self.waiting).into_iter().try_for_each(|path| self.add(path))
    }

    fn add(&mut self, path: Vec<u8>) -> Result<(), Halt> {
        match &self.first {
            None if self.waiting.len() < WAITING_MAX => {
                self.waiting.push(path);
                Ok(())
            }
            None => {
                self.run.problem(path, "its file has too many names to be linked".to_owned(), false);
                Ok(())
            }
            Some((first, None)) => {
                let what = format!("it is another name of {}, which could not be restored", path::Shown(first));
                self.run.problem(path, what, false);
                Ok(())
            }
            Some((first, Some(file))) => match self.link(first, *file, &path) {
                Ok(size) => {
                    self.run.count_file(size);
                    self.run.progress.counters().add(1, size);
                    Ok(())
                }
                Err(FinishError::Target(error)) => self.run.target_problem(path, "cannot link it", error),
                Err(FinishError::Differs(what)) => {
                    self.run.problem(path, what, false);
                    Ok(())
                }
                Err(FinishError::Halt) => Err(Halt),
            },
        }
    }

    fn end_group(&mut self) -> Result<(), Halt> {
        if self.first.is_none() && !self.waiting.is_empty() {
            // They were met before, so the first name was too, unless the list is damaged.
            let first = (b"a file that is not listed".to_vec(), None);
            self.begin_group(first.0, first.1)?;
        }
        self.first = None;
        Ok(())
    }

    /// Links one name. Returns the length of the file.
    fn link(&self, first: &[u8], file: First, path: &[u8]) -> Result<u64, FinishError> {
        let at = match resolve(self.places, path) {
            // In a dry run its folder may not exist yet.
            Err(error) if self.run.options.dry_run && error.kind() == io::ErrorKind::NotFound => None,
            at => Some(at?),
        };
        let there = at.as_ref().map_or(Ok(None), |(dir, name)| dir.stat_at(name))?;
        match &there {
            Some(there) if Some(Identity::of(there)) == file.identity => {
                if file.changed {
                    self.run.change(Mark::Changed, path.to_vec(), false, "a further name of a changed file", None);
                } else {
                    self.run.change(Mark::Same, path.to_vec(), false, UNCHANGED, None);
                    self.run.tally.files_unchanged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                return Ok(file.size);
            }
            // In a dry run the folder has already been reported as replaced, if it can be.
            Some(there) if there.kind == FileKind::Directory && !self.run.options.dry_run => {
                return Err(FinishError::Differs("a folder lies there".to_owned()));
            }
            _ => {}
        }
        if let Some((dir, name)) = at {
            if self.run.options.dry_run {
                self.foresee_link(first, path, there.as_ref(), &dir, &name)?;
            } else {
                self.make_link(first, file, path, there.as_ref(), &dir, &name)?;
            }
        }
        let is_new = there.is_none_or(|there| there.kind == FileKind::Directory);
        let (mark, why) = if is_new {
            (Mark::Added, "a further name of a file, and it is not there")
        } else {
            (Mark::Changed, "a further name of a file, and it names another")
        };
        self.run.change(mark, path.to_vec(), false, why, None);
        Ok(file.size)
    }

    /// For a dry run: reports what would become of the link.
    fn foresee_link(
        &self,
        first: &[u8],
        path: &[u8],
        there: Option<&Stat>,
        dir: &TargetDir,
        name: &[u8],
    ) -> Result<(), FinishError> {
        if there.is_some() {
            dir.may_take(name, true)?;
        } else {
            dir.may_write(true)?;
        }
        let folder = dir.stat()?;
        if let Ok((from, from_name)) = resolve(self.places, first) {
            let there = from.stat_at(&from_name)?;
            if there.as_ref().is_some_and(|there| there.flags & flags::LOCKS != 0) {
                from.may_unlock(&from_name)?;
            }
            let file = there.map_or_else(|| from.stat(), Ok)?;
            if (file.dev, file.mount) != (folder.dev, folder.mount) {
                self.run.not_permitted("hard-link");
            }
        }
        let problems = dir.foresee_own_metadata(&as_it_was(&folder, &self.run.names), true);
        self.run.metadata(|| path.to_vec(), problems).map_err(|Halt| FinishError::Halt)
    }

    fn make_link(
        &self,
        first: &[u8],
        file: First,
        path: &[u8],
        there: Option<&Stat>,
        dir: &TargetDir,
        name: &[u8],
    ) -> Result<(), FinishError> {
        let (from, from_name) = resolve(self.places, first)?;
        let stat = from.stat_at(&from_name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        if Some(Identity::of(&stat)) != file.identity {
            return Err(FinishError::Differs("someone replaced the file it is another name of".to_owned()));
        }
        // The folder is finished already: its metadata is set back to this.
        let folder = dir.stat()?;
        let locked = stat.flags & flags::LOCKS != 0;
        if locked {
            from.unlock_at(&from_name)?;
        }
        // If this fails, so does the next step, which reports it.
        let _ = dir.unlock();
        let linked = if let (true, Err(error)) = (there.is_some(), dir.may_take(name, true)) {
            // Nothing is made that could not take its place.
            Err(error)
        } else if there.is_some() {
            let temporary = temporary_name()?;
            self.link_or_copy(&from, &from_name, &stat, dir, &temporary).and_then(|()| {
                put_in_place(dir, &temporary, name).inspect_err(|_| {
                    let _ = dir.remove_file(&temporary);
                })
            })
        } else {
            self.link_or_copy(&from, &from_name, &stat, dir, name)
        };
        let names = &self.run.names;
        let problems = if locked { from.set_metadata(&from_name, &as_it_was(&stat, names)) } else { Vec::new() };
        self.run.metadata(|| first.to_vec(), problems).map_err(|Halt| FinishError::Halt)?;
        let problems = dir.set_own_metadata(&as_it_was(&folder, names));
        self.run.metadata(|| path.to_vec(), problems).map_err(|Halt| FinishError::Halt)?;
        Ok(linked?)
    }

    /// Links a name, or copies the file if the file system has no hard links.
    fn link_or_copy(
        &self,
        from: &TargetDir,
        from_name: &[u8],
        stat: &Stat,
        dir: &TargetDir,
        name: &[u8],
    ) -> io::Result<()> {
        use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
        match dir.hard_link(name, from, from_name) {
            Err(error)
                if matches!(error.kind(), Unsupported | PermissionDenied | TooManyLinks | CrossesDevices)
                    && stat.kind == FileKind::File =>
            {
                copy(self.run, from, from_name, stat, dir, name)?;
                self.run.not_permitted("hard-link");
                Ok(())
            }
            result => result,
        }
    }
}

fn copy(
    run: &Run<'_>,
    from: &TargetDir,
    from_name: &[u8],
    stat: &Stat,
    dir: &TargetDir,
    name: &[u8],
) -> io::Result<()> {
    let source = from.as_source().open_file(from_name)?;
    let file = dir.create_file(name, stat.mode)?;
    copy_content(&source, &file)?;
    let xattrs = source.xattrs()?;
    let owner = Owner { uid: stat.uid, gid: stat.gid, ..Owner::default() };
    let options = MetaOptions { numeric: true, ..run.meta };
    let meta = Meta { owner: &owner, xattrs: &xattrs, options, ..as_it_was(stat, &run.names) };
    // Metadata that could be set on the first name can be set here.
    file.set_metadata(&meta);
    Ok(())
}
