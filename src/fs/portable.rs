//! Files by paths, for Windows; `windows` has the functions that the standard library lacks. Owners, devices, holes and
//! extended attributes do not exist here. Directories are paths: a link that someone plants during a restore is refused
//! when it is seen, but not with the certainty that handles give.

use std::fs::{self, File, FileTimes, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

#[cfg(unix)]
use super::plain as system;
#[cfg(not(unix))]
use super::windows as system;
use crate::fs::{CACHEDIR_TAG, Identity, Meta, Names, Problem, Stat, checked, read_bounded, read_full};
use crate::path;
use crate::tree::{FileKind, Owner, Time};

pub use system::{low_priority, low_priority_thread, own_group, shell};

/// Names with values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A directory of the source.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
}

impl Dir {
    /// Opens a directory by its path; links in it are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_exact(system::exact(path)?)
    }

    fn open_exact(path: PathBuf) -> io::Result<Self> {
        fs::read_dir(&path)?;
        Ok(Self { path })
    }

    /// Opens a directory in this one; fails if it is a link.
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        self.expect(name, FileKind::Directory)?;
        Self::open_exact(self.at(name)?)
    }

    /// Opens the directory above, if it is still the one with these `dev` and `ino`.
    pub fn open_parent(&self, dev_ino: (u64, u64)) -> io::Result<Self> {
        let parent = Self::open_exact(self.path.parent().ok_or(io::ErrorKind::NotFound)?.to_owned())?;
        let stat = parent.stat()?;
        if (stat.dev, stat.ino) == dev_ino {
            Ok(parent)
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "the folder was moved meanwhile"))
        }
    }

    /// Properties of the directory itself.
    pub fn stat(&self) -> io::Result<Stat> {
        let (metadata, identity) = system::inspect(&self.real()?)?;
        stat_of(&metadata, identity)
    }

    /// The path of the directory itself, since the given path may have been that of a link.
    fn real(&self) -> io::Result<PathBuf> {
        let is_link = fs::symlink_metadata(&self.path)?.is_symlink();
        if is_link { fs::canonicalize(&self.path) } else { Ok(self.path.clone()) }
    }

    /// Properties of `name`, without following a link.
    pub fn stat_at(&self, name: &[u8]) -> io::Result<Stat> {
        let (metadata, identity) = system::inspect(&self.at(name)?)?;
        stat_of(&metadata, identity)
    }

    /// Replaces `out` with the names in this directory, sorted bytewise.
    pub fn names(&self, out: &mut Names) -> io::Result<()> {
        out.clear();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let kind = entry.file_type().ok().and_then(|file_type| kind_of(file_type).ok());
            out.push(&path::from_os(&entry.file_name()), kind)?;
        }
        out.sort();
        Ok(())
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(path::from_path(&path::plain(fs::read_link(self.at(name)?)?)))
    }

    /// Opens a file for reading; fails for anything but a regular file.
    pub fn open_file(&self, name: &[u8]) -> io::Result<SourceFile> {
        self.expect(name, FileKind::File)?;
        Ok(SourceFile { file: Mutex::new(File::open(self.at(name)?)?) })
    }

    /// Opens a pipe or a device for reading.
    pub fn open_special(&self, name: &[u8]) -> io::Result<File> {
        File::open(self.at(name)?)
    }

    /// Always empty here.
    pub fn xattrs_at(&self, _name: &[u8]) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    /// Always empty here.
    pub fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    /// Whether the directory is marked as a cache.
    pub fn is_cachedir_tagged(&self) -> bool {
        let (name, signature) = CACHEDIR_TAG;
        let mut start = vec![0; signature.len()];
        self.open_file(name).and_then(|file| file.read_full_at(&mut start, 0)).is_ok() && start == signature
    }

    /// Whether this name exists, or that cannot be found out.
    pub fn may_contain(&self, name: &[u8]) -> bool {
        !self.stat_at(name).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// The content of a small file; `None` if there is no regular file of this name.
    ///
    /// # Errors
    /// If it is longer than `max` bytes, a link, or cannot be read.
    pub fn read_small(&self, name: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
        match self.stat_at(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(stat) if !matches!(stat.kind, FileKind::File | FileKind::Symlink) => Ok(None),
            Err(error) => Err(error),
            Ok(_) => self.open_file(name)?.read_all(max).map(Some),
        }
    }

    /// Always false: nothing is mapped here.
    pub fn is_local(&self) -> bool {
        false
    }

    fn at(&self, name: &[u8]) -> io::Result<PathBuf> {
        let refused = |what| io::Error::new(io::ErrorKind::InvalidFilename, what);
        let name = checked(name)?;
        if cfg!(windows) && name.iter().any(|byte| b"\\:".contains(byte)) {
            return Err(refused("Windows cannot have a file whose name contains a backslash or a colon"));
        }
        let name = path::to_os(name).ok_or_else(|| refused("Windows cannot have a file whose name is not Unicode"))?;
        Ok(self.path.join(name))
    }

    fn expect(&self, name: &[u8], kind: FileKind) -> io::Result<()> {
        if self.stat_at(name)?.kind == kind { Ok(()) } else { Err(another_kind()) }
    }
}

/// An open file of the source.
#[derive(Debug)]
pub struct SourceFile {
    file: Mutex<File>,
}

impl SourceFile {
    /// Properties of the open file.
    pub fn stat(&self) -> io::Result<Stat> {
        let file = locked(&self.file);
        stat_of(&file.metadata()?, system::identity(&file)?)
    }

    /// Reads at a position; 0 bytes mean the end.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(&self.file, buf, offset)
    }

    /// Fills `buf` from a position on, or as much of it as the file has bytes for. Returns the number of bytes read.
    pub fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&|buf, offset| self.read_at(buf, offset), buf, offset)
    }

    /// The whole content.
    ///
    /// # Errors
    /// If it is longer than `max` bytes or cannot be read.
    pub fn read_all(&self, max: usize) -> io::Result<Vec<u8>> {
        read_bounded(&|buf, offset| self.read_at(buf, offset), max)
    }

    /// Always empty here.
    pub fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    /// Always `None`: holes are not visible.
    pub fn extents(&self, _size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
        Ok(None)
    }

    /// Does nothing here.
    pub fn prefetch(&self, _offset: u64, _len: u64) {}

    /// Reads the range: a mapping would keep other programs from changing the file.
    pub fn map(&self, offset: u64, len: usize) -> io::Result<Window> {
        let mut bytes = vec![0; len];
        let used = self.read_full_at(&mut bytes, offset)?;
        Ok(Window { bytes, torn: used < len })
    }
}

/// A part of a file that was read in advance.
#[derive(Debug)]
pub struct Window {
    bytes: Vec<u8>,
    torn: bool,
}

impl Window {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends a copy of a part to `out`.
    ///
    /// # Panics
    /// If the range exceeds the window.
    pub fn copy_to(&self, range: Range<usize>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[range]);
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the file was shorter than requested.
    pub fn torn(&self) -> bool {
        self.torn
    }
}

/// Names of users and groups, which this system does not have.
#[derive(Debug, Default)]
pub struct OwnerNames;

impl OwnerNames {
    /// An empty set of names.
    pub fn new() -> Self {
        Self
    }

    /// Always empty.
    pub fn user(&self, _uid: u32) -> Arc<[u8]> {
        Arc::default()
    }

    /// Always empty.
    pub fn group(&self, _gid: u32) -> Arc<[u8]> {
        Arc::default()
    }

    /// The numbers without names.
    pub fn owner(&self, uid: u32, gid: u32) -> Owner {
        Owner { uid, gid, ..Owner::default() }
    }

    /// Always unknown.
    pub fn uid(&self, _name: &[u8]) -> Option<u32> {
        None
    }

    /// Always unknown.
    pub fn gid(&self, _name: &[u8]) -> Option<u32> {
        None
    }

    /// The numbers as they are.
    pub fn resolve(&self, owner: &Owner, _numeric: bool) -> (u32, u32) {
        (owner.uid, owner.gid)
    }
}

/// A directory that is restored into.
#[derive(Debug)]
pub struct TargetDir {
    dir: Dir,
}

impl TargetDir {
    /// Opens the directory to restore into; `create` makes it and its parents if they are missing.
    pub fn open_root(path: &Path, create: bool) -> io::Result<Self> {
        if create {
            fs::create_dir_all(path)?;
        }
        Ok(Self { dir: Dir::open(path)? })
    }

    /// The same directory for reading.
    pub fn as_source(&self) -> &Dir {
        &self.dir
    }

    /// Makes a directory.
    pub fn make_dir(&self, name: &[u8]) -> io::Result<()> {
        fs::create_dir(self.at(name)?)
    }

    /// Marks this directory as just made by this process, which changes nothing here.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // elsewhere it asks the system
    pub fn claim(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Opens a directory in this one; fails if it is a link.
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self { dir: self.dir.open_dir(name)? })
    }

    /// Opens the directory above.
    pub fn open_parent(&self, dev_ino: (u64, u64)) -> io::Result<Self> {
        Ok(Self { dir: self.dir.open_parent(dev_ino)? })
    }

    /// Properties of the directory itself.
    pub fn stat(&self) -> io::Result<Stat> {
        self.dir.stat()
    }

    /// Properties of `name`, if it exists, without following a link.
    pub fn stat_at(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match self.dir.stat_at(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            stat => stat.map(Some),
        }
    }

    /// The names in this directory, sorted bytewise.
    pub fn names(&self) -> io::Result<Names> {
        let mut names = Names::new();
        self.dir.names(&mut names)?;
        Ok(names)
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.dir.path)?.next().is_none())
    }

    /// Makes a file; fails if the name exists.
    pub fn create_file(&self, name: &[u8], _mode: u32) -> io::Result<TargetFile> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.at(name)?)?;
        Ok(TargetFile { file: Mutex::new(file) })
    }

    /// Opens a regular file to change it; fails for anything else.
    pub fn open_existing(&self, name: &[u8]) -> io::Result<TargetFile> {
        self.dir.expect(name, FileKind::File)?;
        self.unlock_at(name)?;
        let file = OpenOptions::new().read(true).write(true).open(self.at(name)?)?;
        Ok(TargetFile { file: Mutex::new(file) })
    }

    /// Makes a symbolic link. Links to folders are of a different kind: if the target does not exist yet, `folder`
    /// decides.
    pub fn symlink(&self, name: &[u8], target: &[u8], folder: bool) -> io::Result<()> {
        let target: PathBuf = path::to_path(target).components().collect(); // with the system's separators
        system::symlink(&self.at(name)?, target.as_os_str(), folder)
    }

    /// Unsupported here.
    pub fn fifo(&self, _name: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Unsupported here.
    pub fn socket(&self, _name: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Unsupported here.
    pub fn device(&self, _name: &[u8], _kind: FileKind, _device: (u32, u32)) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives a file in `from` another name here.
    pub fn hard_link(&self, name: &[u8], from: &TargetDir, from_name: &[u8]) -> io::Result<()> {
        from.dir.expect(from_name, FileKind::File)?;
        fs::hard_link(from.at(from_name)?, self.at(name)?)
    }

    /// Removes anything but a directory, even if it is read-only.
    pub fn remove_file(&self, name: &[u8]) -> io::Result<()> {
        let path = self.at(name)?;
        let (metadata, _) = system::inspect(&path)?;
        // A link to a folder counts as a folder on Windows.
        if system::links_folder(&metadata) {
            return fs::remove_dir(&path);
        }
        unlock_path(&path, &metadata)?;
        fs::remove_file(&path)
    }

    /// Removes an empty directory, even if it is read-only.
    pub fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        let path = self.at(name)?;
        let (metadata, _) = system::inspect(&path)?;
        if !metadata.is_dir() {
            return Err(another_kind());
        }
        match fs::remove_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                unlock_path(&path, &metadata)?;
                fs::remove_dir(&path)
            }
            done => done,
        }
    }

    /// Always false here.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // elsewhere it asks the system
    pub fn is_locked(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Always allowed here: only the attempt shows.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // elsewhere it asks the system
    pub fn may_write(&self, _unlock: bool) -> io::Result<()> {
        Ok(())
    }

    /// Always allowed here: only the attempt shows.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // elsewhere it asks the system
    pub fn may_take(&self, _name: &[u8], _unlock: bool) -> io::Result<()> {
        Ok(())
    }

    /// Always empty here: only the attempt shows.
    #[allow(clippy::unused_self)] // elsewhere it asks the system
    pub fn foresee_metadata(&self, _name: &[u8], _meta: &Meta, _touched: bool) -> Vec<Problem> {
        Vec::new()
    }

    /// Always empty here: only the attempt shows.
    #[allow(clippy::unused_self)] // elsewhere it asks the system
    pub fn foresee_own_metadata(&self, _meta: &Meta, _touched: bool) -> Vec<Problem> {
        Vec::new()
    }

    /// Always empty here: only the attempt shows.
    pub fn foresee_new_metadata(_dir: Option<&Self>, _meta: &Meta) -> Vec<Problem> {
        Vec::new()
    }

    /// Always allowed here: only the attempt shows.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // elsewhere it asks the system
    pub fn may_change(&self, _name: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Always allowed here: only the attempt shows.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // elsewhere it asks the system
    pub fn may_unlock(&self, _name: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Gives a file or directory a new name in this directory.
    pub fn rename(&self, name: &[u8], new: &[u8]) -> io::Result<()> {
        fs::rename(self.at(name)?, self.at(new)?)
    }

    /// Does nothing here.
    pub fn unlock(&self) -> io::Result<()> {
        Ok(())
    }

    /// Makes a file writable.
    pub fn unlock_at(&self, name: &[u8]) -> io::Result<()> {
        let path = self.at(name)?;
        let (metadata, _) = system::inspect(&path)?;
        unlock_path(&path, &metadata)
    }

    /// Sets the time and whether a file is read-only. Returns the properties that could not be set.
    pub fn set_metadata(&self, name: &[u8], meta: &Meta) -> Vec<Problem> {
        let opened = self.at(name).and_then(|path| system::open_attributes(&path, true));
        match opened.and_then(|file| Ok((kind_of(file.metadata()?.file_type())?, file))) {
            Ok((kind, file)) if kind == meta.kind => set_metadata(&file, meta),
            Ok(_) => vec![Problem::new("metadata", another_kind(), false)],
            Err(error) => vec![Problem::new("metadata", error, false)],
        }
    }

    /// Sets the time of the directory itself. Returns the properties that could not be set.
    pub fn set_own_metadata(&self, meta: &Meta) -> Vec<Problem> {
        match self.dir.real().and_then(|path| system::open_attributes(&path, true)) {
            Ok(file) => set_metadata(&file, meta),
            Err(error) => vec![Problem::new("metadata", error, false)],
        }
    }

    /// Does nothing: the system offers nothing for this.
    pub fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// The path of a name that may be made here: many names have a special meaning on Windows.
    fn at(&self, name: &[u8]) -> io::Result<PathBuf> {
        if cfg!(windows) && is_reserved(name) {
            let what = "Windows cannot have a file of this name; `vault cat` and `vault export` bring its content";
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, what));
        }
        self.dir.at(name)
    }
}

/// Whether Windows interprets this name as something else: a device, a part of a file, a name without its end.
fn is_reserved(name: &[u8]) -> bool {
    let stem = name.split(|&byte| byte == b'.').next().unwrap_or_default().trim_ascii_end().to_ascii_uppercase();
    let numbered = |prefix: &[u8]| {
        stem.strip_prefix(prefix).is_some_and(|rest| {
            // The superscripts one to three count as digits.
            matches!(rest, [b'0'..=b'9'] | [0xc2, 0xb2 | 0xb3 | 0xb9])
        })
    };
    name.iter().any(|byte| byte.is_ascii_control() || b"<>:\"/\\|?*".contains(byte))
        || name.ends_with(b".")
        || name.ends_with(b" ")
        || matches!(&stem[..], b"CON" | b"PRN" | b"AUX" | b"NUL" | b"CONIN$" | b"CONOUT$")
        || numbered(b"COM")
        || numbered(b"LPT")
}

/// An open file that is being restored.
#[derive(Debug)]
pub struct TargetFile {
    file: Mutex<File>,
}

impl TargetFile {
    /// Writes the whole of `buf` at a position.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut file = locked(&self.file);
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(buf)
    }

    /// Fills `buf` from a position on, or as much of it as the file has bytes for. Returns the number of bytes read.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&|buf, offset| read_at(&self.file, buf, offset), buf, offset)
    }

    /// Truncates or extends the file.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        locked(&self.file).set_len(len)
    }

    /// Does nothing: the system offers nothing for this.
    pub fn preallocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Overwrites a range with zeros.
    pub fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; 64 << 10];
        let end = offset.saturating_add(len).min(self.stat()?.size);
        let mut position = offset;
        while position < end {
            let n = (end - position).min(zeros.len() as u64);
            self.write_at(&zeros[..n as usize], position)?;
            position += n;
        }
        Ok(())
    }

    /// Properties of the open file.
    pub fn stat(&self) -> io::Result<Stat> {
        let file = locked(&self.file);
        stat_of(&file.metadata()?, system::identity(&file)?)
    }

    /// Sets the time and whether the file is read-only. Returns the properties that could not be set.
    pub fn set_metadata(&self, meta: &Meta) -> Vec<Problem> {
        set_metadata(&locked(&self.file), meta)
    }

    /// Makes the content survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        locked(&self.file).sync_all()
    }
}

/// Always `None`: the system is not asked here.
pub fn free_space(_: &Path) -> Option<u64> {
    None
}

/// A large number: there is no such limit here.
pub fn raise_file_limit() -> u64 {
    u64::from(u16::MAX)
}

/// Does nothing: allocators here have no such setting.
pub const fn share_heap() {}

/// Does nothing: the system offers nothing of the kind.
pub const fn keep_to_itself() {}

/// Does nothing: there is no such limit.
pub const fn survive_file_size_limit() {}

/// Does nothing: there is no such user.
pub const fn give_to_owner(_: &Path) {}

/// Only calls `take_over`: there is no such signal here.
pub fn leaving_hangups(take_over: impl FnOnce()) {
    take_over();
}

/// Ends a command; there is only one way here, gentle or not.
pub fn end_group(child: &mut std::process::Child, _: bool) {
    system::end_group(child);
}

/// Always false: the difference is not determined here.
pub fn privileged() -> bool {
    false
}

fn locked(file: &Mutex<File>) -> std::sync::MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_at(file: &Mutex<File>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut file = locked(file);
    file.seek(SeekFrom::Start(offset))?;
    loop {
        match file.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Makes a regular file writable.
#[allow(clippy::permissions_set_readonly_false)] // on the system this is for, it means no more than it says
fn unlock_path(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mut permissions = metadata.permissions();
    if !metadata.is_file() || !permissions.readonly() {
        return Ok(());
    }
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions)
}

/// Sets the metadata of an open file or folder. The read-only attribute of a folder has another meaning here, and is
/// not set.
fn set_metadata(file: &File, meta: &Meta) -> Vec<Problem> {
    let mut problems = Vec::new();
    let times = to_system(meta.mtime)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .and_then(|time| file.set_times(FileTimes::new().set_modified(time)));
    problems.extend(times.err().map(|error| Problem::new("times", error, false)));
    if meta.kind == FileKind::File {
        let mode = set_readonly(file, meta.mode & 0o200 == 0);
        problems.extend(mode.err().map(|error| Problem::new("mode", error, false)));
    }
    problems
}

fn another_kind() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "another kind of file lies there")
}

#[allow(clippy::permissions_set_readonly_false)] // on the systems this is for, it means no more than it says
fn set_readonly(file: &File, readonly: bool) -> io::Result<()> {
    let mut permissions = file.metadata()?.permissions();
    if permissions.readonly() == readonly {
        return Ok(());
    }
    permissions.set_readonly(readonly);
    file.set_permissions(permissions)
}

fn kind_of(file_type: fs::FileType) -> io::Result<FileKind> {
    if file_type.is_file() {
        Ok(FileKind::File)
    } else if file_type.is_dir() {
        Ok(FileKind::Directory)
    } else if file_type.is_symlink() {
        Ok(FileKind::Symlink)
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "an unknown kind of file"))
    }
}

/// If the time of the last change is unknown, that of the content is used instead.
fn stat_of(metadata: &Metadata, identity: Identity) -> io::Result<Stat> {
    let kind = kind_of(metadata.file_type())?;
    let mtime = metadata.modified().map(from_system)?;
    let mode = match kind {
        FileKind::File if metadata.permissions().readonly() => 0o444,
        FileKind::Directory => 0o755,
        // As on other systems. A link to a file is recognized by the missing rights to enter a folder.
        FileKind::Symlink if system::links_folder(metadata) => 0o777,
        FileKind::Symlink => 0o666,
        _ => 0o644,
    };
    Ok(Stat {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: if kind == FileKind::File { metadata.len() } else { 0 },
        mtime,
        ctime: identity.ctime.unwrap_or(mtime),
        btime: metadata.created().ok().map(from_system),
        dev: identity.dev,
        ino: identity.ino,
        nlink: if kind == FileKind::Directory { 1 } else { identity.nlink },
        device: (0, 0),
        blocks: metadata.len().div_ceil(512),
        flags: 0,
        mount_root: false,
        mount: 0,
    })
}

fn from_system(time: SystemTime) -> Time {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Time { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let secs = -before.as_secs().cast_signed();
            match before.subsec_nanos() {
                0 => Time { secs, nanos: 0 },
                nanos => Time { secs: secs - 1, nanos: 1_000_000_000 - nanos },
            }
        }
    }
}

fn to_system(time: Time) -> Option<SystemTime> {
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let whole =
        if time.secs < 0 { SystemTime::UNIX_EPOCH.checked_sub(secs) } else { SystemTime::UNIX_EPOCH.checked_add(secs) };
    whole?.checked_add(Duration::from_nanos(u64::from(time.nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        // Windows counts in steps of 100 ns.
        for time in [(0, 0), (-1, 0), (-1, 100), (-1, 999_999_900), (5, 600), (-5_000_000_000, 700)] {
            let time = Time { secs: time.0, nanos: time.1 };
            assert_eq!(to_system(time).map(from_system), Some(time));
        }
    }

    #[test]
    fn names_with_a_meaning_are_known() {
        for name in ["con", "NUL.txt", "aux .c", "com1", "lpt9.x", "a:b", "a\\b", "a.", "a ", "a?", "\u{1}"] {
            assert!(is_reserved(name.as_bytes()), "{name}");
        }
        for name in ["console", "a.b", "com", "com10", ".con", "\u{e4}"] {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }

    fn meta<'a>(kind: FileKind, owner: &'a Owner, names: &'a crate::fs::OwnerNames) -> Meta<'a> {
        let options = crate::fs::MetaOptions::default();
        Meta { kind, mode: 0o444, owner, mtime: Time { secs: -7, nanos: 100 }, xattrs: &[], flags: 0, options, names }
    }

    #[test]
    fn folders_have_times_and_files_are_told_apart() {
        let scratch = tempfile::tempdir().unwrap();
        let root = TargetDir::open_root(scratch.path(), false).unwrap();
        root.make_dir(b"dir").unwrap();
        let dir = root.open_dir(b"dir").unwrap();
        let (owner, names) = (Owner::default(), crate::fs::OwnerNames::new());
        let (of_dir, of_file) = (meta(FileKind::Directory, &owner, &names), meta(FileKind::File, &owner, &names));
        assert!(dir.set_own_metadata(&of_dir).is_empty());
        assert_eq!(root.stat_at(b"dir").unwrap().unwrap().mtime, of_dir.mtime);
        assert_eq!(root.set_metadata(b"dir", &of_file).len(), 1, "another kind");

        let id = |stat: &Stat| (stat.dev, stat.ino);
        let (above, below) = (root.stat().unwrap(), dir.stat().unwrap());
        assert_ne!(id(&above), id(&below));
        assert_eq!(id(&dir.open_parent(id(&above)).unwrap().stat().unwrap()), id(&above));
        assert!(dir.open_parent(id(&below)).is_err(), "not the expected folder");

        dir.create_file(b"file", 0o644).unwrap();
        root.hard_link(b"same", &dir, b"file").unwrap();
        root.create_file(b"other", 0o644).unwrap();
        let stat = |name: &[u8]| root.stat_at(name).unwrap().unwrap();
        let same = dir.stat_at(b"file").unwrap().unwrap();
        assert_eq!((id(&same), same.nlink), (id(&stat(b"same")), 2));
        assert_ne!(id(&same), id(&stat(b"other")));
        assert_eq!((stat(b"other").nlink, dir.as_source().open_file(b"file").unwrap().stat().unwrap()), (1, same));
    }

    #[test]
    fn what_may_not_be_written_can_be_removed_and_links_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = TargetDir::open_root(scratch.path(), false).unwrap();
        let (owner, names) = (Owner::default(), crate::fs::OwnerNames::new());
        let locked = meta(FileKind::File, &owner, &names);
        for name in [b"dir".as_slice(), b"kept"] {
            root.make_dir(name).unwrap();
            let dir = root.open_dir(name).unwrap();
            dir.make_dir(b"deep").unwrap();
            for dir in [&dir, &dir.open_dir(b"deep").unwrap()] {
                assert!(dir.create_file(b"file", 0o644).unwrap().set_metadata(&locked).is_empty());
            }
        }
        let dir = root.open_dir(b"dir").unwrap();
        assert!(dir.open_existing(b"file").unwrap().write_at(b"x", 0).is_ok());
        assert!(root.symlink(b"dir/link", b"../kept", true).is_err(), "a path is not a name");
        // Not everyone may make links on Windows.
        let linked = dir.symlink(b"link", b"../kept", true).is_ok();
        assert!(linked || cfg!(windows));
        if linked {
            assert_eq!(dir.stat_at(b"link").unwrap().unwrap().kind, FileKind::Symlink);
            assert_eq!(dir.as_source().read_link(b"link").unwrap(), b"../kept");
            assert!(dir.open_dir(b"link").is_err());
        }
        remove_tree(&root, b"dir").unwrap();
        assert_eq!(root.names().unwrap().iter().collect::<Vec<_>>(), [b"kept".as_slice()]);
        let kept = root.open_dir(b"kept").unwrap();
        kept.remove_file(b"file").unwrap();
        assert!(kept.open_dir(b"deep").unwrap().stat_at(b"file").unwrap().is_some());
    }

    #[test]
    fn files_are_read_and_written() {
        let scratch = tempfile::tempdir().unwrap();
        let root = TargetDir::open_root(&scratch.path().join("a/b"), true).unwrap();
        root.make_dir(b"dir").unwrap();
        let file = root.create_file(b"file", 0o644).unwrap();
        assert!(root.create_file(b"file", 0o644).is_err());
        file.write_at(b"hello", 3).unwrap();
        file.punch_hole(4, 2).unwrap();
        let (owner, names) = (Owner::default(), crate::fs::OwnerNames::new());
        let meta = meta(FileKind::File, &owner, &names);
        assert!(file.set_metadata(&meta).is_empty());
        let source = Dir::open(&scratch.path().join("a/b")).unwrap();
        let stat = source.stat_at(b"file").unwrap();
        assert_eq!((stat.kind, stat.mode, stat.size, stat.mtime), (FileKind::File, 0o444, 8, meta.mtime));
        let window = source.open_file(b"file").unwrap().map(1, 9).unwrap();
        assert!(window.torn());
        assert_eq!(window.bytes(), b"\0\0h\0\0lo\0\0");
        assert!(source.open_dir(b"file").is_err() && source.open_dir(b"..").is_err());
        assert_eq!(root.names().unwrap().iter().collect::<Vec<_>>(), [b"dir".as_slice(), b"file"]);
        root.open_existing(b"file").unwrap().set_len(1).unwrap();
        root.hard_link(b"again", &root, b"file").unwrap();
        remove_tree(&root, b"dir").unwrap();
        root.remove_file(b"again").unwrap();
        root.rename(b"file", b"other").unwrap();
        assert_eq!(source.read_small(b"other", 1).unwrap().unwrap(), b"\0");
        assert_eq!(source.read_small(b"file", 1).unwrap(), None);
    }

    fn remove_tree(dir: &TargetDir, name: &[u8]) -> io::Result<()> {
        if dir.dir.stat_at(name)?.kind != FileKind::Directory {
            return dir.remove_file(name);
        }
        let below = dir.open_dir(name)?;
        below.names()?.iter().try_for_each(|name| remove_tree(&below, name))?;
        dir.remove_dir(name)
    }
}
