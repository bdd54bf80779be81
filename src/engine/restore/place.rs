//! The starting points of a restore: which parts of the snapshot go to which folders of this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::engine::query::browse;
use crate::engine::restore::attributes::{Attributes, Identity};
use crate::engine::restore::folder::Folder;
use crate::engine::restore::guard::Kept;
use crate::engine::restore::run::{Halt, Run, fatal};
use crate::engine::restore::select::Picked;
use crate::engine::restore::{Overwrite, RestoreError, Target};
use crate::fs::TargetDir;
use crate::path;
use crate::path::Shown;
use crate::read::TreeReader;
use crate::tree::{Entry, FileKind, Owner, Root, Stream};
use crate::vault::{ReadError, SnapshotInfo};

/// A part of the snapshot and the folder that it is restored to.
#[derive(Debug)]
pub(super) struct Place {
    /// The path inside the snapshot of the folder's content.
    pub(super) path: Vec<u8>,
    /// The folder.
    base: PathBuf,
    /// The snapshot's entry for the folder itself, whose metadata is set; only in place.
    own: Option<Entry>,
    /// Folders below it, on the way to the restored item.
    pub(super) chain: Vec<Entry>,
    pub(super) what: What,
    folder: OnceLock<Arc<Folder>>,
}

/// The content to restore into a folder.
#[derive(Debug)]
pub(super) enum What {
    /// Everything in this listing.
    Content(Stream),
    /// One item, under this name.
    One(Box<Entry>, Vec<u8>),
}

/// All places of a restore.
#[derive(Debug)]
pub(super) struct Places(pub(super) Vec<Place>);

impl Place {
    fn new(path: Vec<u8>, base: PathBuf, what: What) -> Self {
        Self { path, base, own: None, chain: Vec::new(), what, folder: OnceLock::new() }
    }

    /// The folder, after [`Places::prepare`].
    pub(super) fn folder(&self) -> Option<&Arc<Folder>> {
        self.folder.get()
    }

    /// The names from the folder to a path inside the snapshot, or `None` if the path is not in this place.
    pub(super) fn names_to<'p>(&'p self, path: &'p [u8]) -> Option<Vec<&'p [u8]>> {
        if let What::One(entry, name) = &self.what {
            // Only this item is restored here, not its neighbours.
            let mut names: Vec<&[u8]> = self.chain.iter().map(|entry| entry.name.as_slice()).collect();
            let mut own = self.path.clone();
            names.iter().chain([&entry.name.as_slice()]).for_each(|name| own = path::join(&own, name));
            let below = path.strip_prefix(own.as_slice())?;
            if !below.is_empty() && !below.starts_with(b"/") {
                return None;
            }
            names.push(name);
            names.extend(path::components(below));
            return Some(names);
        }
        let below = path.strip_prefix(self.path.as_slice())?;
        let below = if self.path.is_empty() { below } else { below.strip_prefix(b"/")? };
        Some(path::components(below).collect())
    }
}

impl Places {
    /// Finds the parts to restore.
    pub(super) fn find(run: &Run<'_>, info: &SnapshotInfo, trees: &mut TreeReader<'_>) -> Result<Self, RestoreError> {
        let options = run.options;
        let asked = options.path.as_deref().unwrap_or_default();
        let missing = || RestoreError::NoSuchPath { path: Shown(asked).to_string() };
        let way = browse::find_all(trees, info, asked).map_err(|error| RestoreError::browse(error, asked))?;
        let mut way = way.ok_or_else(missing)?;
        let found = way.pop().ok_or_else(missing)?;
        let names: Vec<&[u8]> = path::components(asked).collect();
        let parent = names[..names.len().saturating_sub(1)].join(&b'/');
        let place = match (&options.target, way.len()) {
            (Target::Folder(folder), 0) => {
                let listing = found.content.unwrap_or_default();
                Place::new(Vec::new(), folder.clone(), What::Content(listing))
            }
            (Target::Folder(folder), _) => {
                let name = found.name.clone();
                Place::new(parent, folder.clone(), What::One(Box::new(found), name))
            }
            (Target::InPlace, 0) => return Self::in_place(run, info, &found.content.unwrap_or_default(), trees),
            (Target::InPlace, 1) => in_place(info, found)?,
            (Target::InPlace, _) => {
                let base = original(info, &way[1].name)?;
                let name = found.name.clone();
                let mut place =
                    Place::new(way[1].name.clone(), path::to_path(base).into_owned(), What::One(Box::new(found), name));
                place.chain = way.drain(2..).collect();
                place
            }
        };
        Ok(Self(vec![place]))
    }

    /// Restores every root to where it came from.
    fn in_place(
        run: &Run<'_>,
        info: &SnapshotInfo,
        top: &Stream,
        trees: &mut TreeReader<'_>,
    ) -> Result<Self, RestoreError> {
        let mut roots = Vec::new();
        let listed = trees.for_each_entry(top, |entry| {
            roots.push(entry);
            roots.len() < ROOTS_MAX
        });
        if let Err(error) = listed {
            let source: ReadError = fatal(error).map_or_else(Ok, Err)?;
            return Err(RestoreError::Read { path: "the snapshot's top folder".to_owned(), source });
        }
        let excluded =
            |entry: &Entry| run.selection.pick_path(&entry.name, entry.kind == FileKind::Directory) == Picked::No;
        roots.retain(|entry| !excluded(entry));
        roots.into_iter().map(|entry| in_place(info, entry)).collect::<Result<_, _>>().map(Self)
    }

    /// Refuses places into which nothing may ever be restored.
    pub(super) fn refuse(&self, run: &Run<'_>) -> Result<(), RestoreError> {
        for place in &self.0 {
            if let Some((folder, own)) = run.guard().own_around(&place.base) {
                return Err(RestoreError::InOwn { path: folder.display().to_string(), is_state: own == Kept::State });
            }
            let is_all = matches!(place.what, What::Content(_)) && run.options.include.is_empty();
            if run.options.delete && is_all && is_root(&place.base) {
                return Err(RestoreError::WholeSystem { path: place.base.display().to_string() });
            }
        }
        Ok(())
    }

    /// Checks that the folders may be restored into, and opens or creates them.
    pub(super) fn prepare(&self, run: &Run<'_>, trees: &mut TreeReader<'_>) -> Result<(), RestoreError> {
        for place in &self.0 {
            place.check(run, trees)?;
        }
        for place in &self.0 {
            match place.open(run) {
                Ok(folder) => {
                    folder.device().into_iter().for_each(|device| run.begins_on(device));
                    let _ = place.folder.set(folder);
                }
                // The other places are restored all the same.
                Err(error) if self.0.len() > 1 => {
                    let action = "cannot be written to, so nothing in it is restored";
                    let path = match &place.what {
                        What::One(_, name) => path::join(&place.path, name),
                        What::Content(_) => place.path.clone(),
                    };
                    run.target_problem(path, action, error).map_err(|Halt| run.failure())?;
                }
                Err(error) => return Err(target_error(&place.base, error)),
            }
        }
        Ok(())
    }
}

/// Whether a folder is the root of a file system's tree, by its path or through a mount of it.
fn is_root(folder: &Path) -> bool {
    let Ok(real) = std::fs::canonicalize(folder) else { return false };
    let id =
        |path: &Path| TargetDir::open_root(path, false).and_then(|dir| dir.stat()).ok().map(|stat| Identity::of(&stat));
    let top = real.ancestors().last().unwrap_or(&real);
    real.parent().is_none() || id(&real).is_some_and(|id_here| id_here.ino != 0 && id(top) == Some(id_here))
}

/// Whether existing items may be changed.
fn changes(run: &Run<'_>) -> bool {
    !run.options.dry_run && run.options.overwrite != Overwrite::Never
}

/// Maximum number of roots of a snapshot, as each is kept in memory here.
const ROOTS_MAX: usize = 1 << 16;

fn target_error(path: &Path, source: io::Error) -> RestoreError {
    RestoreError::Target { path: path.display().to_string(), source }
}

/// The path that a root was read from.
fn original<'i>(info: &'i SnapshotInfo, name: &[u8]) -> Result<&'i [u8], RestoreError> {
    let root: Option<&Root> = info.body.roots.iter().find(|root| root.name == name);
    match root.map(|root| root.path.as_slice()) {
        Some(path) if path::to_path(path).is_absolute() => Ok(path),
        _ => Err(RestoreError::NoPlace { name: Shown(name).to_string() }),
    }
}

/// The place of a root that is restored to where it came from.
fn in_place(info: &SnapshotInfo, root: Entry) -> Result<Place, RestoreError> {
    let path = path::to_path(original(info, &root.name)?).into_owned();
    if root.kind == FileKind::Directory {
        let listing = root.content.clone().unwrap_or_default();
        let mut place = Place::new(root.name.clone(), path, What::Content(listing));
        place.own = Some(root);
        return Ok(place);
    }
    let no_place = || RestoreError::NoPlace { name: Shown(&root.name).to_string() };
    let parent = path.parent().ok_or_else(no_place)?.to_path_buf();
    let name = path::from_os(path.file_name().ok_or_else(no_place)?);
    Ok(Place::new(Vec::new(), parent, What::One(Box::new(root), name)))
}

impl Place {
    /// The listing of the folder whose content is restored, if it is a folder.
    pub(super) fn listing(&self) -> Option<&Stream> {
        match &self.what {
            What::Content(listing) => Some(listing),
            What::One(entry, _) => entry.content.as_ref().filter(|_| entry.kind == FileKind::Directory),
        }
    }

    /// Opens or creates the folder.
    fn open(&self, run: &Run<'_>) -> io::Result<Arc<Folder>> {
        let there = match TargetDir::open_root(&self.base, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        let fresh = there.is_none();
        let handle = match there {
            None if run.options.dry_run => {
                // It would be created in the first existing folder above.
                let above = self.base.ancestors().skip(1).find_map(|above| TargetDir::open_root(above, false).ok());
                above.map_or(Ok(()), |above| above.may_write(false))?;
                None
            }
            None => Some(TargetDir::open_root(&self.base, true)?),
            there => there,
        };
        let selected = self.own.is_some() && run.selection.pick_path(&self.path, true) == Picked::Yes;
        let attributes =
            self.own.clone().map(|mut entry| Attributes::take(&mut entry, &mut Arc::new(Owner::default())));
        if let Some(handle) = handle.as_ref().filter(|_| !fresh && selected && changes(run)) {
            // If this fails, so do the changes in it, which are then reported.
            let _ = handle.unlock();
        }
        Ok(Folder::base(&self.path, handle, fresh, attributes, selected))
    }

    /// Refuses a place where something exists, unless an option says how to handle it.
    fn check(&self, run: &Run<'_>, trees: &mut TreeReader<'_>) -> Result<(), RestoreError> {
        if run.options.overwrite != Overwrite::Refuse {
            return Ok(());
        }
        let failed = |error| target_error(&self.base, error);
        let dir = match TargetDir::open_root(&self.base, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        match &self.what {
            What::One(_, name) => self.check_one(dir, name).map_err(failed)?,
            What::Content(_) if self.own.is_some() => {
                if !dir.is_empty().map_err(failed)? {
                    return Err(RestoreError::NotEmpty { path: self.base.display().to_string(), is_folder: true });
                }
                None
            }
            // Only items that would be overwritten are in the way.
            What::Content(listing) => {
                let mut names = Vec::new();
                let listed = trees.for_each_entry(listing, |entry| {
                    let path = path::join(&self.path, &entry.name);
                    if run.selection.pick_path(&path, entry.kind == FileKind::Directory) != Picked::No {
                        names.push(entry.name);
                    }
                    names.len() < ROOTS_MAX
                });
                // An unreadable listing is reported when it is restored.
                if let Err(error) = listed {
                    run.read(error).map_err(|Halt| run.failure())?;
                }
                let mut there = None;
                for name in names {
                    there = there_at(&dir, &self.base, &name).map_err(failed)?;
                    if there.is_some() {
                        break;
                    }
                }
                there
            }
        }
        .map_or(Ok(()), |(path, is_folder)| Err(RestoreError::NotEmpty { path: path.display().to_string(), is_folder }))
    }

    /// The path of the item that is to be restored, if something exists there, and whether that is a folder.
    fn check_one(&self, mut dir: TargetDir, name: &[u8]) -> io::Result<Option<(PathBuf, bool)>> {
        let mut path = self.base.clone();
        for entry in &self.chain {
            path.push(&*path::to_path(&entry.name));
            dir = match dir.open_dir(&entry.name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
        }
        there_at(&dir, &path, name)
    }
}

/// The path of the item of this name in a folder, unless it is missing or an empty folder, and whether it is a folder.
fn there_at(dir: &TargetDir, path: &Path, name: &[u8]) -> io::Result<Option<(PathBuf, bool)>> {
    let is_folder = match dir.stat_at(name)? {
        None => return Ok(None),
        Some(stat) => stat.kind == FileKind::Directory,
    };
    // A folder that cannot be read counts as not empty.
    let is_empty = is_folder && dir.open_dir(name).and_then(|dir| dir.is_empty()).unwrap_or(false);
    Ok((!is_empty).then(|| (path.join(&*path::to_path(name)), is_folder)))
}
