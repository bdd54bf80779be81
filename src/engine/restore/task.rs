//! Files to restore, and the pieces of their content.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::catalogue::ChunkPlace;
use crate::engine::restore::attributes::{Attributes, Differs, Identity};
use crate::engine::restore::folder::Folder;
use crate::engine::restore::run::Loss;
use crate::fs::TargetFile;
use crate::id::ChunkId;
use crate::path::join;
use crate::sync::Room;

/// How a regular file is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing exists there.
    Create,
    /// Something exists there: the file is written under another name and then replaces it.
    Replace,
    /// A file exists there and is compared; only differences are written.
    Update {
        /// Its length.
        size: u64,
        /// Its identity.
        identity: Identity,
    },
}

/// A regular file to restore.
#[derive(Debug)]
pub(super) struct FileTask {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Box<[u8]>,
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    /// Number of its bytes in holes.
    pub(super) holes_len: u64,
    pub(super) sparse: bool,
    pub(super) action: Action,
    /// The existing file is a mount point.
    pub(super) is_mount: bool,
    /// The existing file may not be overwritten.
    pub(super) frozen: bool,
    /// The existing file is newer, and is kept as a copy if it is replaced.
    pub(super) keeps_copy: bool,
    /// Which metadata of the existing file differs.
    pub(super) differs: Differs,
    /// Why the existing file is replaced, if it is.
    pub(super) replaced: &'static str,
    /// Its position in the order in which changes are reported.
    pub(super) place: u64,
    /// Its group, if other names will be linked to it.
    pub(super) group: Option<u32>,
    /// Number of pieces not yet in place, plus one for the planner until it has reached the end of the file.
    pub(super) pending: AtomicUsize,
    pub(super) state: Mutex<FileState>,
}

/// The progress of a file.
#[derive(Debug, Default)]
pub(super) struct FileState {
    pub(super) handle: Option<Arc<TargetFile>>,
    /// The file has been created, or opened for writing.
    pub(super) begun: bool,
    /// The identity of the file, if it was closed in between.
    pub(super) identity: Option<Identity>,
    /// The name under which it is written, if not its own.
    pub(super) temporary: Option<Vec<u8>>,
    /// Why it cannot be restored, if so.
    pub(super) failed: Option<Loss>,
    pub(super) finished: bool,
}

impl FileTask {
    /// The folder that an error says something about: none, if the file itself is a mount point.
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
    /// Offset of the piece in the chunk.
    pub(super) skip: u32,
    pub(super) len: u32,
    /// Number of the file in the window.
    pub(super) file: u32,
    /// Number of the chunk's places that have been tried without success.
    pub(super) tried: u32,
    /// Offset in the file.
    pub(super) at: u64,
}

impl Piece {
    /// Sort key in the order of the store, so that each segment is read once and front to back.
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

/// A part of the work, with bounded memory.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) files: Vec<Arc<FileTask>>,
    /// In the order of the files and of their content.
    pub(super) pieces: Vec<Piece>,
    pub(super) holes: Vec<Hole>,
    /// Files that need only their last step: empty ones, and those that began in an earlier window.
    pub(super) ending: Vec<u32>,
    /// Position of the last planned change up to here.
    pub(super) place: u64,
}

/// A segment of a window that was read ahead.
pub(super) struct Arrived<'r> {
    /// Its number in the order of the store.
    pub(super) number: usize,
    /// Its bytes, unless it must be read by itself.
    pub(super) sealed: Option<Bytes>,
    /// The room that it takes with its neighbours, until the last of them is opened.
    pub(super) _room: Option<Arc<Room<'r>>>,
}

/// The file that has the first name of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    /// The identity of the file; unknown in a dry run if the file would be new.
    pub(super) identity: Option<Identity>,
    /// Its length in bytes.
    pub(super) size: u64,
    /// The file existed and was changed in place.
    pub(super) changed: bool,
}

/// Why a file could not be finished.
pub(super) enum FinishError {
    /// An operation on the target failed.
    Target(io::Error),
    /// The file reads back differently.
    Differs(String),
    /// The restore has been stopped.
    Halt,
}

impl From<io::Error> for FinishError {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}
