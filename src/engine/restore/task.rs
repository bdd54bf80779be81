//! Files to be restored, and the pieces of their content.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use crate::catalogue::ChunkPlace;
use crate::engine::restore::folder::Folder;
use crate::engine::restore::run::Run;
use crate::fs::{Meta, Stat, TargetFile, privileged};
use crate::id::ChunkId;
use crate::path::join;
use crate::tree::{Entry, FileKind, Owner, Time};

/// What is set on a file or folder when its content is there.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    flags: u32,
    mtime: Time,
    owner: Arc<Owner>,
    xattrs: Box<[(Vec<u8>, Vec<u8>)]>,
}

impl Attributes {
    /// Takes them out of an entry. Neighbours mostly have the same owner, which is then kept once.
    pub(super) fn take(entry: &mut Entry, last: &mut Arc<Owner>) -> Self {
        if **last != entry.owner {
            *last = Arc::new(std::mem::take(&mut entry.owner));
        }
        Self {
            mode: entry.mode,
            flags: entry.flags,
            mtime: entry.mtime,
            owner: last.clone(),
            xattrs: std::mem::take(&mut entry.xattrs).into_boxed_slice(),
        }
    }

    /// What something has other metadata in, as far as its folder tells, and as far as that is set.
    pub(super) fn differs(&self, stat: &Stat, run: &Run<'_>) -> Differs {
        let owner = || run.names.resolve(&self.owner, run.meta.numeric) != (stat.uid, stat.gid);
        Differs {
            time: stat.mtime != self.mtime,
            mode: cfg!(unix) && stat.kind != FileKind::Symlink && stat.mode != self.mode & 0o7777,
            owner: cfg!(unix) && run.meta.owner && privileged() && owner(),
        }
    }

    /// Whether something was changed later than what the snapshot has.
    pub(super) fn is_older_than(&self, stat: &Stat) -> bool {
        self.mtime < stat.mtime
    }

    /// In the form in which they are set.
    pub(super) fn meta<'a>(&'a self, kind: FileKind, run: &'a Run<'_>) -> Meta<'a> {
        Meta {
            kind,
            mode: self.mode,
            owner: &self.owner,
            mtime: self.mtime,
            xattrs: &self.xattrs,
            flags: self.flags,
            options: run.meta,
            names: &run.names,
        }
    }
}

/// What of the metadata of something differs from what is to be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Differs {
    time: bool,
    mode: bool,
    owner: bool,
}

impl Differs {
    /// Whether anything does.
    pub(super) const fn any(self) -> bool {
        self.time || self.rights()
    }

    /// Whether rights or owner do.
    pub(super) const fn rights(self) -> bool {
        self.mode || self.owner
    }

    /// In words, after others.
    pub(super) fn after(self, mut words: Vec<&'static str>) -> String {
        let all = [("time", self.time), ("mode", self.mode), ("owner", self.owner)];
        words.extend(all.into_iter().filter(|(_, differs)| *differs).map(|(word, _)| word));
        words.join(", ")
    }
}

/// Which file on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl Identity {
    pub(super) const fn of(stat: &Stat) -> Self {
        Self { dev: stat.dev, ino: stat.ino }
    }
}

/// How a regular file comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing is there.
    Create,
    /// Something is there: the file is written under another name and then takes its place.
    Replace,
    /// A file is there and is compared; what differs is written into it.
    Update {
        /// Its length.
        size: u64,
        /// Which file it is.
        identity: Identity,
    },
}

/// A regular file to be restored.
#[derive(Debug)]
pub(super) struct FileTask {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Box<[u8]>,
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    /// Bytes of it that lie in holes.
    pub(super) holes_len: u64,
    pub(super) sparse: bool,
    pub(super) action: Action,
    /// What is there is mounted itself.
    pub(super) is_mount: bool,
    /// What is there may not be overwritten.
    pub(super) frozen: bool,
    /// What is there is newer, and is kept as a copy if it gives way.
    pub(super) keeps_copy: bool,
    /// In what metadata of what is there differs.
    pub(super) differs: Differs,
    /// Why what is there is replaced, if it is.
    pub(super) replaced: &'static str,
    /// Its place in the order in which changes are told.
    pub(super) place: u64,
    /// Its group, if other names will be linked to it.
    pub(super) group: Option<u32>,
    /// Pieces that are not in their place yet, and one for the planner while it has not come to the file's end.
    pub(super) pending: AtomicUsize,
    pub(super) state: Mutex<FileState>,
}

/// How far a file is.
#[derive(Debug, Default)]
pub(super) struct FileState {
    pub(super) handle: Option<Arc<TargetFile>>,
    /// It has been created, or opened to be written.
    pub(super) begun: bool,
    /// Which file it is, if it was closed in between.
    pub(super) identity: Option<Identity>,
    /// The name under which it is written, if not its own.
    pub(super) temporary: Option<Vec<u8>>,
    /// Why it cannot be restored, and whether that is damage.
    pub(super) failed: Option<(String, bool)>,
    pub(super) finished: bool,
}

impl FileTask {
    /// The folder of which something follows from an error: none, if the file is mounted itself.
    pub(super) fn place_of_errors(&self) -> Option<&Arc<Folder>> {
        Some(&self.folder).filter(|_| !self.is_mount)
    }

    /// The path inside the snapshot.
    pub(super) fn path(&self) -> Vec<u8> {
        join(&self.folder.path(), &self.name)
    }
}

/// A chunk, or a part of one (where a hole divides it), that goes to one place in one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) id: ChunkId,
    pub(super) place: ChunkPlace,
    /// Where it begins in the chunk.
    pub(super) skip: u32,
    pub(super) len: u32,
    /// Number of the file in the window.
    pub(super) file: u32,
    /// How many of the chunk's places have been tried in vain.
    pub(super) tried: u32,
    /// Where it goes in the file.
    pub(super) at: u64,
}

impl Piece {
    /// By the order of the store, so that each segment is read once and front to back.
    pub(super) fn store_order(&self) -> (u32, u32, u32, u64) {
        (self.place.pack, self.place.segment, self.file, self.at)
    }
}

/// A hole in a file that is updated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole {
    pub(super) file: u32,
    pub(super) at: u64,
    pub(super) len: u64,
}

/// A part of the work, bounded in memory.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) files: Vec<Arc<FileTask>>,
    /// In the order of the files and of their content.
    pub(super) pieces: Vec<Piece>,
    pub(super) holes: Vec<Hole>,
    /// Files that need nothing but their last step: empty ones, and those that began in an earlier window.
    pub(super) ending: Vec<u32>,
    /// The last change of the plan up to here.
    pub(super) place: u64,
}
