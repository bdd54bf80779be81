//! The target of a restore. Every step is one checked name in an open directory, and no link is ever followed: neither
//! a hostile tree nor a link that someone plants meanwhile leads outside.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fd::AsFd as _;
use rustix::fs::{
    AtFlags, Dev, FallocateFlags, FileType, Mode, OFlags, fallocate, linkat, makedev, mkdirat, openat, renameat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::foresee;
use super::meta::{Handle, Newborn, is_locked, set_metadata, set_newborn, unlock};
use super::open::{DIRECTORY, FILE, open_quietly, read_at, retried};
use super::source::Dir;
use super::stat::{stat_at, stat_fd};
use crate::fs::{Meta, Names, Problem, Stat, checked, read_full};
use crate::tree::FileKind;

/// An open directory to restore into.
#[derive(Debug)]
pub struct TargetDir {
    dir: Dir,
    /// Default metadata of files that are created here, if nobody else can enter it.
    pub(super) newborn: Option<Arc<OnceLock<Newborn>>>,
}

impl TargetDir {
    /// Opens the directory to restore into; `create` makes it and its parents if they are missing, and gives them to the
    /// owner of the folder in which they are made. Links in the path are followed: the user named it.
    pub fn open_root(path: &Path, create: bool) -> io::Result<Self> {
        if create {
            crate::ownfile::make_private_folder(path)?;
        }
        Ok(Self::from(Dir::open(path)?))
    }

    /// The same directory for reading, so that existing files can be compared.
    pub fn as_source(&self) -> &Dir {
        &self.dir
    }

    /// Makes a directory that only its owner may enter.
    pub fn make_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(mkdirat(self.fd(), checked(name)?, Mode::RWXU)?)
    }

    /// Opens a directory in this one; fails if it is a link.
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        Ok(self.dir.open_dir(name)?.into())
    }

    /// Marks this directory as just made by this process. If nobody else can enter it, all files that are created in it
    /// are alike, and only the first one is examined before its metadata is set.
    pub fn claim(&mut self) -> io::Result<()> {
        let stat = self.stat()?;
        let mode = Mode::from_raw_mode(stat.mode as rustix::fs::RawMode);
        if stat.uid == geteuid().as_raw() && !mode.intersects(Mode::RWXG | Mode::RWXO) {
            self.newborn = Some(Arc::default());
        }
        Ok(())
    }

    /// Opens the directory above, if it is still the one with these `dev` and `ino`.
    pub fn open_parent(&self, dev_ino: (u64, u64)) -> io::Result<Self> {
        Ok(self.dir.open_parent(dev_ino)?.into())
    }

    /// Properties of the directory itself.
    pub fn stat(&self) -> io::Result<Stat> {
        self.dir.stat()
    }

    /// Properties of `name`, if it exists, without following a link.
    pub fn stat_at(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match stat_at(self.fd(), checked(name)?) {
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
        Ok(self.names()?.is_empty())
    }

    /// Makes a file that only its owner may read; fails if the name exists. In a directory that nobody else can enter,
    /// it is created with the rights of `mode`, which it will get in the end.
    pub fn create_file(&self, name: &[u8], mode: u32) -> io::Result<TargetFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = checked(name)?;
        let mode = 0o600 | if self.newborn.is_some() { mode & 0o777 } else { 0 };
        let fd = retried(|| openat(self.fd(), name, flags, Mode::from_raw_mode(mode as rustix::fs::RawMode)))?;
        Ok(TargetFile { file: fd.into(), newborn: self.newborn.clone().map(|family| (mode, family)) })
    }

    /// Opens a regular file to change it; fails for anything else. A read-only mode and flags that keep the owner from
    /// changing it are cleared where that is allowed; [`TargetFile::set_metadata`] sets them again.
    pub fn open_existing(&self, name: &[u8]) -> io::Result<TargetFile> {
        let name = checked(name)?;
        let regular = |stat: Stat| match stat.kind {
            FileKind::File => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        };
        // Also checked before opening, since opening a device can have effects.
        regular(stat_at(self.fd(), name)?)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || retried(|| openat(self.fd(), name, flags, Mode::empty()));
        let fd = match open() {
            Err(Errno::PERM | Errno::ACCESS) if self.unlock_at(name).is_ok() => open(),
            result => result,
        }?;
        regular(stat_fd(&fd)?)?;
        Ok(TargetFile { file: fd.into(), newborn: None })
    }

    /// Makes a symbolic link; whether it leads to a folder makes no difference here.
    pub fn symlink(&self, name: &[u8], target: &[u8], _folder: bool) -> io::Result<()> {
        Ok(symlinkat(target, self.fd(), checked(name)?)?)
    }

    /// Makes a named pipe.
    pub fn fifo(&self, name: &[u8]) -> io::Result<()> {
        self.make_node(name, FileType::Fifo, 0)
    }

    /// Makes a socket without a listener.
    pub fn socket(&self, name: &[u8]) -> io::Result<()> {
        self.make_node(name, FileType::Socket, 0)
    }

    /// Makes a device.
    pub fn device(&self, name: &[u8], kind: FileKind, (major, minor): (u32, u32)) -> io::Result<()> {
        let file_type = match kind {
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a kind of device")),
        };
        self.make_node(name, file_type, makedev(major, minor))
    }

    #[cfg(not(target_os = "macos"))]
    fn make_node(&self, name: &[u8], file_type: FileType, device: Dev) -> io::Result<()> {
        Ok(rustix::fs::mknodat(self.fd(), checked(name)?, file_type, Mode::RUSR | Mode::WUSR, device)?)
    }

    /// Unsupported: macOS makes these by path only, which could lead elsewhere.
    #[cfg(target_os = "macos")]
    fn make_node(&self, _name: &[u8], _file_type: FileType, _device: Dev) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives a file in `from` another name here.
    pub fn hard_link(&self, name: &[u8], from: &TargetDir, from_name: &[u8]) -> io::Result<()> {
        Ok(linkat(from.fd(), checked(from_name)?, self.fd(), checked(name)?, AtFlags::empty())?)
    }

    /// Removes anything but a directory; flags that forbid it are cleared where that is allowed.
    pub fn remove_file(&self, name: &[u8]) -> io::Result<()> {
        self.remove(checked(name)?, AtFlags::empty())
    }

    fn remove(&self, name: &[u8], flags: AtFlags) -> io::Result<()> {
        match unlinkat(self.fd(), name, flags) {
            Err(Errno::PERM) if self.unlock_at(name).is_ok() => Ok(unlinkat(self.fd(), name, flags)?),
            result => Ok(result?),
        }
    }

    /// Removes an empty directory; flags that forbid it are cleared where that is allowed.
    pub fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        self.remove(checked(name)?, AtFlags::REMOVEDIR)
    }

    /// Whether [`TargetDir::unlock`] would have anything to do.
    pub fn is_locked(&self) -> io::Result<bool> {
        Ok(is_locked(&self.stat()?))
    }

    /// Whether names could be made in here, now or after [`TargetDir::unlock`]. Asking changes nothing.
    ///
    /// # Errors
    /// The error that the attempt would have.
    pub fn may_write(&self, unlock: bool) -> io::Result<()> {
        foresee::write_in(self.fd(), unlock)
    }

    /// Whether the file of this name, if there is one, could be removed or replaced, now or after
    /// [`TargetDir::unlock`].
    ///
    /// # Errors
    /// The error that the attempt would have.
    pub fn may_take(&self, name: &[u8], unlock: bool) -> io::Result<()> {
        foresee::take(self.fd(), checked(name)?, unlock)
    }

    /// Whether the content of a file could be changed.
    ///
    /// # Errors
    /// The error that the attempt would have.
    pub fn may_change(&self, name: &[u8]) -> io::Result<()> {
        foresee::change(self.fd(), checked(name)?)
    }

    /// The properties that [`TargetDir::set_metadata`] could not set. `touched`: its content would have been changed
    /// before.
    pub fn foresee_metadata(&self, name: &[u8], meta: &Meta, touched: bool) -> Vec<Problem> {
        let result = checked(name).and_then(|name| {
            let kind = stat_at(self.fd(), name)?.kind;
            self.with_handle(name, kind, |file| super::meta::foresee(file, meta, touched))
        });
        result.unwrap_or_else(|error| vec![Problem::new("metadata", error, false)])
    }

    /// The properties that [`TargetDir::set_own_metadata`] could not set. `touched`: a file in it would have been made
    /// or removed before.
    pub fn foresee_own_metadata(&self, meta: &Meta, touched: bool) -> Vec<Problem> {
        super::meta::foresee(&Handle::Open(self.fd()), meta, touched)
    }

    /// The properties that could not be set on a file that would be made; in `dir`, if that exists.
    pub fn foresee_new_metadata(dir: Option<&Self>, meta: &Meta) -> Vec<Problem> {
        let handle = dir.map(|dir| Handle::Open(dir.fd()));
        super::meta::foresee_new(handle.as_ref(), meta)
    }

    /// Whether [`TargetDir::unlock_at`] would succeed. Asking changes nothing.
    ///
    /// # Errors
    /// The error that the attempt would have.
    pub fn may_unlock(&self, name: &[u8]) -> io::Result<()> {
        foresee::unlock(self.fd(), checked(name)?)
    }

    /// Gives a file or directory a new name in this directory, replacing any file of that name.
    pub fn rename(&self, name: &[u8], new: &[u8]) -> io::Result<()> {
        Ok(renameat(self.fd(), checked(name)?, self.fd(), checked(new)?)?)
    }

    /// Lets the owner change this directory: adds the rights and clears the flags that forbid it, where that is
    /// allowed. [`TargetDir::set_metadata`] restores both.
    pub fn unlock(&self) -> io::Result<()> {
        unlock(&Handle::Open(self.fd()), &self.stat()?)
    }

    /// As [`Self::unlock`], for a file or directory in this one.
    pub fn unlock_at(&self, name: &[u8]) -> io::Result<()> {
        let name = checked(name)?;
        let stat = stat_at(self.fd(), name)?;
        self.with_handle(name, stat.kind, |file| {
            let stat = file.stat()?;
            unlock(file, &stat)
        })?
    }

    /// Sets the metadata of `name`, without following a link. For a directory this comes after its content. Returns the
    /// properties that could not be set.
    pub fn set_metadata(&self, name: &[u8], meta: &Meta) -> Vec<Problem> {
        let result = checked(name).and_then(|name| {
            // Only files of the expected kind are opened: opening a device can have effects.
            let kind = stat_at(self.fd(), name)?.kind;
            self.with_handle(name, kind, |file| set_metadata(file, meta))
        });
        result.unwrap_or_else(|error| vec![Problem::new("metadata", error, false)])
    }

    /// Sets the metadata of this directory itself. Returns the properties that could not be set.
    pub fn set_own_metadata(&self, meta: &Meta) -> Vec<Problem> {
        set_metadata(&Handle::Open(self.fd()), meta)
    }

    /// Makes the names created in this directory survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.fd())?)
    }

    /// Opens files and directories for reading; anything else, and unreadable ones, are held by a handle that can
    /// neither read nor write.
    fn with_handle<T>(&self, name: &[u8], kind: FileKind, act: impl FnOnce(&Handle) -> T) -> io::Result<T> {
        let opened = match kind {
            FileKind::File => open_quietly(self.fd(), name, FILE),
            FileKind::Directory => open_quietly(self.fd(), name, DIRECTORY),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        };
        match opened {
            Ok(fd) => Ok(act(&Handle::Open(fd.as_fd()))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.with_pinned(name, act),
            Err(error) => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn with_pinned<T>(&self, name: &[u8], act: impl FnOnce(&Handle) -> T) -> io::Result<T> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.fd(), name, flags, Mode::empty())?;
        Ok(act(&Handle::Pinned(fd.as_fd())))
    }

    #[cfg(not(target_os = "linux"))]
    fn with_pinned<T>(&self, name: &[u8], act: impl FnOnce(&Handle) -> T) -> io::Result<T> {
        Ok(act(&Handle::Named(self.fd(), name)))
    }

    fn fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.dir.fd()
    }
}

impl From<Dir> for TargetDir {
    fn from(dir: Dir) -> Self {
        Self { dir, newborn: None }
    }
}

/// An open file that is being restored.
#[derive(Debug)]
pub struct TargetFile {
    file: File,
    /// The mode with which it was created, and the default metadata of its family, if nobody else could have changed it
    /// since.
    newborn: Option<(u32, Arc<OnceLock<Newborn>>)>,
}

impl TargetFile {
    /// Writes the whole of `buf` at a position.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    /// Fills `buf` from a position on, or as much of it as the file has bytes for. Returns the number of bytes read.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&|buf, offset| read_at(&self.file, buf, offset), buf, offset)
    }

    /// Truncates the file, or extends it by a hole.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Reserves room for `len` bytes, so that a full disk is noticed at once. Does nothing on a file system that cannot
    /// reserve.
    pub fn preallocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match retried(|| fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Turns a range into a hole; without support for holes, overwrites it with zeros.
    pub fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match retried(|| if len == 0 { Ok(()) } else { fallocate(&self.file, flags, offset, len) }) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY) => {}
                result => return Ok(result?),
            }
        }
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
        stat_fd(&self.file)
    }

    /// Sets the metadata of the file, after its content. Returns the properties that could not be set.
    pub fn set_metadata(&self, meta: &Meta) -> Vec<Problem> {
        let file = Handle::Open(self.file.as_fd());
        match &self.newborn {
            Some((mode, family)) => set_newborn(&file, *mode, family, meta),
            None => set_metadata(&file, meta),
        }
    }

    /// Makes the content survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
