//! A store in a folder: on a disk, on a file server, or in a folder that a sync client uploads (SPEC §3).
//!
//! Objects are files that never change. `publish` makes a new one appear whole and durable, or not at all; this file
//! maps names to paths, reads, lists, and explains errors. Paths start at the folder's real path, found once when the
//! store is opened, so that a symbolic link on the way to it may change while we work. Below it, no link in place of
//! a fan-out folder or an object is followed: someone who can write to the store must not make us read or write
//! elsewhere.

mod publish;

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;

use crate::id::ObjectName;
use crate::path::Shown;
use crate::path::plain;
use crate::store::Kind;
use crate::store::Listed;
use crate::store::ObjectKey;
use crate::store::Pending;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreLimits;
use crate::store::Subject;
use crate::store::dir::publish::Publisher;
use crate::store::dir::publish::Written;
use crate::store::error::is_of_line;
use crate::sync::lock;

/// The most recently read objects stay open, since a pack is read many times from many threads.
const OPEN_FILES_MAX: usize = 32;

/// The folder for objects that are moved aside, below the top of the store.
pub(crate) const QUARANTINE: &str = "quarantine";

/// The folder for temporary files, where the file system has no nameless ones, below the top of the store.
const TEMPORARY: &str = "tmp";

/// Folders that later versions may use, below the top of the store.
const RESERVED: &[&str] = &["parity", "hold"];

/// Names that systems and sync clients create by themselves at the top of a disk or of a shared folder.
const HARMLESS: &[&str] = &[
    "$RECYCLE.BIN",
    ".DS_Store",
    ".Spotlight-V100",
    ".Trashes",
    ".directory",
    ".dropbox",
    ".fseventsd",
    ".stfolder",
    ".stignore",
    "System Volume Information",
    "desktop.ini",
    "lost+found",
];

/// A store in a folder.
#[derive(Debug)]
pub struct DirStore {
    /// Its real path, without symbolic links.
    top: PathBuf,
    /// The device of `top`: an unplugged disk leaves an empty folder of another device behind.
    device: u64,
    publisher: Publisher,
    /// Folders whose own entry in their parent is known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
    /// The most recently read files, the newest last.
    open_files: Mutex<Vec<(ObjectKey, Arc<File>)>>,
}

impl DirStore {
    /// Opens the store in the folder `path`. Writes nothing.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the folder does not exist.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| error_at(path, false, Action::Open, path.display().to_string().into(), source);
        let top = plain(fs::canonicalize(path).map_err(failed)?);
        let found = fs::metadata(&top).map_err(failed)?;
        if !found.is_dir() {
            let source = io::Error::new(ErrorKind::NotADirectory, "it is not a folder");
            return Err(error_at(path, true, Action::Open, path.display().to_string().into(), source));
        }
        Ok(Self {
            device: device_of(&found),
            publisher: Publisher::new(top.join(TEMPORARY)),
            durable: Mutex::default(),
            open_files: Mutex::default(),
            top,
        })
    }

    /// Makes the folder `path` with its missing parents, and opens the empty store in it. An existing folder must be
    /// empty or made by this function.
    ///
    /// # Errors
    /// [`StoreError::Io`] of kind `DirectoryNotEmpty` if anything else is in it; then nothing was changed.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| error_at(path, true, Action::Create, path.display().to_string().into(), source);
        publish::make_folders(path).map_err(failed)?;
        let store = Self::open(path)?;
        // A process killed while making the vault may have left a temporary file.
        let is_leftover = |path: &String| {
            let name = path.strip_prefix(TEMPORARY).and_then(|path| path.strip_prefix('/'));
            name.is_some_and(publish::is_temporary_name)
        };
        if !store.path_of(&ObjectKey::Vault).is_file() && !store.foreign_at_top()?.iter().all(is_leftover) {
            let text = "the folder is not empty, and what is in it is no vault";
            return Err(failed(io::Error::new(ErrorKind::DirectoryNotEmpty, text)));
        }
        for kind in Kind::ALL {
            store.ensure_folder(kind.folder()).map_err(|e| store.error(Action::Create, kind, e))?;
        }
        Ok(store)
    }

    /// Checks whether the store can be written, without leaving anything in it.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] with the folder that cannot be written, or any other obstacle.
    pub fn writable(&self) -> Result<(), StoreError> {
        for folder in Kind::ALL.map(Kind::folder).into_iter().chain([""]) {
            let path = self.top.join(folder);
            if path.is_dir() {
                let shown = if folder.is_empty() { self.place() } else { folder.to_owned() };
                self.publisher.probe(&path).map_err(|e| self.error(Action::Write, shown.clone(), e))?;
            } else if !self.is_there() {
                return Err(StoreError::Gone { place: self.place() });
            }
        }
        Ok(())
    }

    /// The free space in bytes, where the system reports it.
    ///
    /// # Errors
    /// [`StoreError::Gone`], or the system's error.
    pub fn free_space(&self) -> Result<Option<u64>, StoreError> {
        free_space(&self.top).map_err(|e| self.error(Action::List, self.place(), e))
    }

    /// Paths at the top of the store that are neither vault's own nor usual on any disk, and the files that dead
    /// writers left in the folder for temporary files.
    ///
    /// # Errors
    /// [`StoreError::Gone`], or the system's error.
    pub fn foreign_at_top(&self) -> Result<Vec<String>, StoreError> {
        let failed = |e| self.error(Action::List, self.place(), e);
        let mut foreign = Vec::new();
        for entry in crate::folder::entries(&self.top).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let is_dir = entry.path().is_dir();
            let known = match name.to_str() {
                Some("VAULT") => !is_dir,
                Some(QUARANTINE | TEMPORARY) => is_dir,
                Some(name) if RESERVED.contains(&name) => is_dir,
                Some(name) => HARMLESS.contains(&name) || is_dir && Kind::ALL.iter().any(|kind| kind.folder() == name),
                None => false,
            };
            if !known {
                foreign.push(shown(&name));
            }
        }
        let leftovers = self.publisher.leftovers().map_err(failed)?;
        foreign.extend(leftovers.iter().map(|name| format!("{TEMPORARY}/{}", shown(name))));
        foreign.sort();
        Ok(foreign)
    }

    /// The path of an object.
    pub fn path_of(&self, key: &ObjectKey) -> PathBuf {
        self.top.join(key.to_string())
    }

    /// Moves a file of the store's folder into the quarantine, under this name or the next free one. Returns its new path.
    ///
    /// # Errors
    /// The system's error.
    pub fn move_aside(&self, from: &Path, name: &str) -> io::Result<PathBuf> {
        fs::symlink_metadata(from)?;
        let folder = self.ensure_folder(QUARANTINE)?;
        let mut to = folder.join(name);
        for number in 1.. {
            match self.publisher.move_new(from, &to) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => to = folder.join(format!("{name}-{number}")),
                done => return done.map(|()| to),
            }
        }
        Ok(to)
    }

    /// Whether the store's folder exists, and is still on the same device.
    fn is_there(&self) -> bool {
        fs::metadata(&self.top).is_ok_and(|found| found.is_dir() && device_of(&found) == self.device)
    }

    fn error(&self, action: Action, object: impl Into<Subject>, source: io::Error) -> StoreError {
        error_at(&self.top, self.is_there(), action, object.into(), source)
    }

    /// Makes a folder below the top if it does not exist, and makes its entry durable. An existing folder may come
    /// from a process that died before it made the entry durable, so each folder is synced once.
    fn ensure_folder(&self, relative: &str) -> io::Result<PathBuf> {
        let mut path = self.top.clone();
        for part in relative.split('/').filter(|part| !part.is_empty()) {
            path.push(part);
            if lock(&self.durable).contains(&path) {
                publish::check_folder(&path)?;
            } else {
                self.publisher.make_folder(&path)?;
                lock(&self.durable).insert(path.clone());
            }
        }
        Ok(path)
    }

    /// Returns an error if an object's folder is reached through a link.
    fn check_way(&self, key: &ObjectKey) -> io::Result<()> {
        let object = key.to_string();
        let mut path = self.top.clone();
        for part in object.rsplit_once('/').map_or("", |(folder, _)| folder).split('/').filter(|part| !part.is_empty())
        {
            path.push(part);
            publish::check_folder(&path)?;
        }
        Ok(())
    }

    fn put_file(&self, object: &str, bytes: &[u8]) -> io::Result<()> {
        let (folder, name) = object.rsplit_once('/').unwrap_or(("", object));
        let first = self.ensure_folder(folder).and_then(|path| self.publisher.publish(&path, name, bytes));
        match first {
            // Sync clients remove empty folders, so the folder may have to be made again.
            Err(e) if e.kind() == ErrorKind::NotFound && self.is_there() => {
                lock(&self.durable).clear();
                self.ensure_folder(folder).and_then(|path| self.publisher.publish(&path, name, bytes))
            }
            done => done,
        }
    }

    /// Writes an object's bytes into a file without a name, where there are such files.
    fn begin_file(&self, object: &str, bytes: &[u8]) -> io::Result<Option<Written>> {
        let (folder, name) = object.rsplit_once('/').unwrap_or(("", object));
        match self.ensure_folder(folder).and_then(|path| self.publisher.begin(&path, name, bytes)) {
            // The caller then puts the object in one step, which tries again.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            begun => begun,
        }
    }

    /// Opens an object's file, and returns it with its length. Opens only a regular file: a FIFO would block for
    /// ever.
    fn open_object(&self, key: &ObjectKey) -> io::Result<(Arc<File>, u64)> {
        let kept = lock(&self.open_files).iter().find(|(kept, _)| kept == key).map(|(_, file)| Arc::clone(file));
        if let Some(file) = kept {
            let found = file.metadata()?;
            if !is_deleted(&found) {
                return Ok((file, found.len()));
            }
            self.forget(key);
        }
        let path = self.path_of(key);
        if is_folder_of_that_name(key, &path) {
            return Err(ErrorKind::NotFound.into());
        }
        let file = Arc::new(open_regular(&path)?);
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(not_a_file());
        }
        let mut files = lock(&self.open_files);
        if !files.iter().any(|(kept, _)| kept == key) {
            if files.len() >= OPEN_FILES_MAX {
                files.remove(0);
            }
            files.push((*key, Arc::clone(&file)));
        }
        Ok((file, found.len()))
    }

    fn read(&self, key: &ObjectKey, file: &File, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; len];
        read_exact_at(file, &mut bytes, offset).map_err(|e| match e.kind() {
            // The file was cut short after it was opened.
            ErrorKind::UnexpectedEof => StoreError::Short {
                object: key.into(),
                need: offset.saturating_add(len as u64),
                have: file.metadata().map_or(0, |found| found.len()),
            },
            _ => self.error(Action::Read, key, e),
        })?;
        Ok(bytes.into())
    }

    fn forget(&self, key: &ObjectKey) {
        lock(&self.open_files).retain(|(kept, _)| kept != key);
    }

    /// Lists one folder of objects. `relative` is its path below the top; the names in it must begin with `prefix`.
    fn list_folder(&self, relative: &str, prefix: &str, found: &mut dyn FnMut(Listed)) -> io::Result<()> {
        for entry in crate::folder::entries(self.top.join(relative))? {
            let entry = entry?;
            let name = entry.file_name();
            let object = name.to_str().filter(|text| text.starts_with(prefix)).and_then(|text| text.parse().ok());
            let foreign = || Listed::Foreign(format!("{relative}/{}", shown(&name)));
            let listed = match object {
                Some(name) => match entry.metadata() {
                    Ok(found) if found.is_file() => Listed::Object { name, len: found.len() },
                    Ok(_) => foreign(),
                    // The file was deleted since the folder was read.
                    Err(e) if e.kind() == ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                },
                None => foreign(),
            };
            found(listed);
        }
        Ok(())
    }

    fn list_kind(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> io::Result<()> {
        if !kind.fans_out() {
            return self.list_folder(kind.folder(), "", found);
        }
        for entry in crate::folder::entries(self.top.join(kind.folder()))? {
            let entry = entry?;
            let name = entry.file_name();
            let is_dir = match entry.file_type() {
                Ok(found) => found.is_dir(),
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                // The objects in it are not known, which is not the same as missing.
                Err(e) => return Err(e),
            };
            let Some(prefix) = name.to_str().filter(|text| is_dir && is_fan_out(text)) else {
                found(Listed::Foreign(format!("{}/{}", kind.folder(), shown(&name))));
                continue;
            };
            match self.list_folder(&format!("{}/{prefix}", kind.folder()), prefix, found) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                done => done?,
            }
        }
        Ok(())
    }
}

impl Store for DirStore {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        if !self.is_there() {
            // Otherwise, we would fill the mount point of an unplugged disk.
            return Err(StoreError::Gone { place: self.place() });
        }
        let object = key.to_string();
        self.put_file(&object, &bytes).map_err(|e| self.error(Action::Write, key, e))
    }

    fn begin_put<'s>(&'s self, key: &ObjectKey, bytes: Bytes) -> Result<Pending<'s>, StoreError> {
        let object = key.to_string();
        let begun = if self.is_there() { self.begin_file(&object, &bytes) } else { Ok(None) };
        match begun.map_err(|e| self.error(Action::Write, key, e))? {
            Some(written) => {
                let key = *key;
                Ok(Pending::new(move || self.publisher.finish(written).map_err(|e| self.error(Action::Write, &key, e))))
            }
            None => self.put(key, bytes).map(|()| Pending::done()),
        }
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let (file, have) = self.open_object(key).map_err(|e| self.error(Action::Read, key, e))?;
        let need = offset.saturating_add(len as u64);
        if have < need {
            return Err(StoreError::Short { object: key.into(), need, have });
        }
        self.read(key, &file, offset, len)
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        let (file, have) = self.open_object(key).map_err(|e| self.error(Action::Read, key, e))?;
        if have > max {
            return Err(StoreError::Long { object: key.into(), max, have });
        }
        self.read(key, &file, 0, have as usize)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        let failed = |e| self.error(Action::Read, key, e);
        let path = self.path_of(key);
        if is_folder_of_that_name(key, &path) {
            return Err(failed(ErrorKind::NotFound.into()));
        }
        let found = fs::symlink_metadata(path).map_err(failed)?;
        if found.is_file() { Ok(found.len()) } else { Err(failed(not_a_file())) }
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        match self.list_kind(kind, found) {
            // Without its folder, a kind has no objects, as long as the store itself is there.
            Err(e) if e.kind() == ErrorKind::NotFound && self.is_there() => Ok(()),
            done => done.map_err(|e| self.error(Action::List, kind, e)),
        }
    }

    /// Does not sync the folder: after a power cut, a deleted object may be back, which does no harm if it is a pack
    /// or a record.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.forget(key);
        match self.check_way(key).and_then(|()| fs::remove_file(self.path_of(key))) {
            Err(e) if e.kind() == ErrorKind::NotFound && self.is_there() => Ok(()),
            done => done.map_err(|e| self.error(Action::Delete, key, e)),
        }
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)?;
        let path = self.path_of(key);
        let folder = path.parent().unwrap_or(&self.top);
        match (self.publisher.sync.folder)(folder) {
            // A missing folder holds nothing, and its own removal deleted what was in it.
            Err(e) if e.kind() == ErrorKind::NotFound && self.is_there() => Ok(()),
            done => done.map_err(|e| self.error(Action::Delete, key, e)),
        }
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.forget(key);
        let plain = match key {
            ObjectKey::Vault => key.to_string(),
            ObjectKey::Named(kind, name) => format!("{}-{name}", kind.folder()),
        };
        let failed = |e| self.error(Action::Quarantine, key, e);
        self.check_way(key).map_err(failed)?;
        self.move_aside(&self.path_of(key), &plain).map(drop).map_err(failed)
    }

    /// Disks are faster when a few reads wait at once. Puts are written one after the other, each in two halves.
    fn limits(&self) -> StoreLimits {
        StoreLimits { reads: 8, writes: 1, bytes: 128 << 20 }
    }

    fn place(&self) -> String {
        self.top.display().to_string()
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.top)
    }
}

/// The action that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Open,
    Create,
    Read,
    List,
    Write,
    Delete,
    Quarantine,
}

impl Action {
    const fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::List => "list",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Quarantine => "quarantine",
        }
    }

    const fn writes(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::List)
    }
}

/// The system's error numbers for too many open files: in the process, and in the whole system.
#[cfg(unix)]
const TOO_MANY_FILES: [i32; 2] = [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()];
/// The system's error number for too many open files.
#[cfg(windows)]
const TOO_MANY_FILES: [i32; 1] = [4];

/// Turns a system error into a store error; `is_there` tells whether the store as a whole is there.
fn error_at(top: &Path, is_there: bool, action: Action, object: Subject, source: io::Error) -> StoreError {
    if source.kind() == ErrorKind::OutOfMemory || source.raw_os_error().is_some_and(|n| TOO_MANY_FILES.contains(&n)) {
        return StoreError::Exhausted { action: action.verb(), object, source };
    }
    match source.kind() {
        ErrorKind::FileTooLarge if action.writes() => StoreError::TooLarge { object },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded if action.writes() => StoreError::Full { object },
        ErrorKind::AlreadyExists if action == Action::Write => StoreError::Exists { object },
        ErrorKind::PermissionDenied if action == Action::Open => {
            StoreError::Io { action: action.verb(), object, source }
        }
        _ if !is_there => StoreError::Gone { place: top.display().to_string() },
        // The folder is on another machine, whose connection failed.
        _ if is_of_line(&source) => {
            StoreError::Unreachable { action: action.verb(), object, place: top.display().to_string(), source }
        }
        ErrorKind::ReadOnlyFilesystem if action.writes() => StoreError::ReadOnly { object },
        ErrorKind::PermissionDenied => {
            let path = match &object {
                Subject::Object(key) => top.join(key.to_string()),
                Subject::Folder(kind) => top.join(kind.folder()),
                Subject::Place(_) => top.to_owned(),
            };
            let there = path.ancestors().find(|path| path.exists()).unwrap_or(top);
            StoreError::Denied {
                action: action.verb(),
                object,
                path: there.display().to_string(),
                owner: owner_of(there),
                source,
            }
        }
        ErrorKind::NotFound if matches!(action, Action::Read | Action::Quarantine) => StoreError::Missing { object },
        _ => StoreError::Io { action: action.verb(), object, source },
    }
}

/// The user id of a file's owner.
#[cfg(unix)]
fn owner_of(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().map(|found| std::os::unix::fs::MetadataExt::uid(&found))
}

#[cfg(not(unix))]
fn owner_of(_: &Path) -> Option<u32> {
    None
}

/// Whether a folder `vault` answers to the name of the VAULT file, as on systems that ignore case. Such a folder is
/// common where someone looks for a vault.
fn is_folder_of_that_name(key: &ObjectKey, path: &Path) -> bool {
    *key == ObjectKey::Vault && path.is_dir()
}

fn not_a_file() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// Whether this is the name of a fan-out folder: two lower-case hexadecimal digits.
fn is_fan_out(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn shown(name: &std::ffi::OsStr) -> String {
    Shown(name.as_encoded_bytes()).to_string()
}

/// A random name of 128 bits for a temporary file. The layer that owns randomness is above this one.
fn random_name() -> io::Result<ObjectName> {
    let mut bytes = [0; ObjectName::LEN];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(ObjectName::new(bytes))
}

#[cfg(unix)]
fn device_of(found: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(found)
}

#[cfg(not(unix))]
fn device_of(_: &fs::Metadata) -> u64 {
    0
}

#[cfg(unix)]
fn is_deleted(found: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(found) == 0
}

#[cfg(not(unix))]
fn is_deleted(_: &fs::Metadata) -> bool {
    false
}

#[cfg(unix)]
fn open_regular(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, rustix::fs::Mode::empty()) {
        Ok(fd) => Ok(fd.into()),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => Err(not_a_file()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(unix))]
fn open_regular(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path)?.is_file() { File::open(path) } else { Err(not_a_file()) }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

#[cfg(unix)]
fn free_space(path: &Path) -> io::Result<Option<u64>> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> io::Result<Option<u64>> {
    Ok(None)
}

#[cfg(all(test, unix))]
mod tests;
