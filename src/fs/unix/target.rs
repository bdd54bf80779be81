//! The target of a restore. Every step is one name in an open directory, checked before, and no link is ever followed:
//! neither a hostile tree nor a link that someone plants meanwhile leads outside.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fd::AsFd as _;
use rustix::fs::{
    AtFlags, Dev, FallocateFlags, FileType, Mode, OFlags, fallocate, linkat, makedev, mkdirat, openat, renameat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::foresee::{self, is_ours};
use super::meta::{Handle, Newborn, is_locked, set_metadata, set_newborn, unlock};
use super::open::{DIRECTORY, FILE, open_quietly, read_at, retried};
use super::source::Dir;
use super::stat::{stat_at, stat_fd};
use crate::fs::{Meta, Names, Problem, Stat, checked, read_full};
use crate::tree::FileKind;

/// An open directory that is restored into.
#[derive(Debug)]
pub struct TargetDir {
    dir: Dir,
    /// What files are like that are created in here, if nobody else can enter it.
    pub(super) newborn: Option<Arc<OnceLock<Newborn>>>,
}

impl TargetDir {
    /// Opens the directory to restore into; `create` makes it, and those above it, if they are missing. Links in the
    /// path are followed: the user named it.
    pub fn open_root(path: &Path, create: bool) -> io::Result<Self> {
        if create {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        Ok(Self::from(Dir::open(path)?))
    }

    /// The same directory to be read: what is already there can be compared through it.
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

    /// Says that this directory was just made by this process. If nobody else can enter it, files that are created in it
    /// are all alike, and only the first one is looked at before its metadata is set.
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

    /// What the directory itself is like.
    pub fn stat(&self) -> io::Result<Stat> {
        self.dir.stat()
    }

    /// What `name` is, if there is anything; a link itself.
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

    /// Makes a file that only its owner may read; fails if there is anything of this name. In a directory that nobody else
    /// can enter, it has the rights of `mode` already, which it will get in the end.
    pub fn create_file(&self, name: &[u8], mode: u32) -> io::Result<TargetFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = checked(name)?;
        let mode = 0o600 | if self.newborn.is_some() { mode & 0o777 } else { 0 };
        let fd = retried(|| openat(self.fd(), name, flags, Mode::from_raw_mode(mode as rustix::fs::RawMode)))?;
        Ok(TargetFile { file: fd.into(), newborn: self.newborn.clone().map(|family| (mode, family)) })
    }

    /// Opens a regular file to change it; fails for anything else. What keeps its owner from changing it (a read-only
    /// mode, flags) is taken away where that is allowed, to be set again by [`TargetFile::set_metadata`].
    pub fn open_existing(&self, name: &[u8]) -> io::Result<TargetFile> {
        let name = checked(name)?;
        let regular = |stat: Stat| match stat.kind {
            FileKind::File => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        };
        // Asked before as well, since opening a device can have effects.
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

    /// Makes a socket, which nobody listens to.
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

    /// macOS makes these by path only, which could lead astray.
    #[cfg(target_os = "macos")]
    fn make_node(&self, _name: &[u8], _file_type: FileType, _device: Dev) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives a file in `from` a further name here.
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

    /// Whether names could be made in here, now or after [`TargetDir::unlock`]. Nothing is changed for the question.
    ///
    /// # Errors
    /// What would come of the attempt.
    pub fn may_write(&self, unlock: bool) -> io::Result<()> {
        foresee::write_in(self.fd(), unlock)
    }

    /// Whether what has this name, if anything has, could be removed or replaced, now or after [`TargetDir::unlock`].
    ///
    /// # Errors
    /// What would come of the attempt.
    pub fn may_take(&self, name: &[u8], unlock: bool) -> io::Result<()> {
        foresee::take(self.fd(), checked(name)?, unlock)
    }

    /// Whether the content of a file could be changed.
    ///
    /// # Errors
    /// What would come of the attempt.
    pub fn may_change(&self, name: &[u8]) -> io::Result<()> {
        foresee::change(self.fd(), checked(name)?)
    }

    /// What [`TargetDir::set_metadata`] could not set. `touched`: its content would have been changed before.
    pub fn foresee_metadata(&self, name: &[u8], meta: &Meta, touched: bool) -> Vec<Problem> {
        let result = checked(name).and_then(|name| {
            let kind = stat_at(self.fd(), name)?.kind;
            self.with_handle(name, kind, |file| super::meta::foresee(file, meta, touched))
        });
        result.unwrap_or_else(|error| vec![Problem::new("metadata", error, false)])
    }

    /// What [`TargetDir::set_own_metadata`] could not set. `touched`: something in it would have been made or removed before.
    pub fn foresee_own_metadata(&self, meta: &Meta, touched: bool) -> Vec<Problem> {
        super::meta::foresee(&Handle::Open(self.fd()), meta, touched)
    }

    /// What could not be set on something that would be made; in `dir`, if that is there.
    pub fn foresee_new_metadata(dir: Option<&Self>, meta: &Meta) -> Vec<Problem> {
        let handle = dir.map(|dir| Handle::Open(dir.fd()));
        super::meta::foresee_new(handle.as_ref(), meta)
    }

    /// Whether a directory in this one cannot be opened, but could be after [`TargetDir::unlock_at`].
    pub fn is_closed(&self, name: &[u8]) -> bool {
        let Ok(name) = checked(name) else { return false };
        matches!(self.open_dir(name), Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
            && stat_at(self.fd(), name).is_ok_and(|stat| is_ours(&stat))
    }

    /// Gives a file or directory a new name in this directory, in place of anything that has it.
    pub fn rename(&self, name: &[u8], new: &[u8]) -> io::Result<()> {
        Ok(renameat(self.fd(), checked(name)?, self.fd(), checked(new)?)?)
    }

    /// Lets the owner change this directory: adds the rights for it and clears the flags that forbid it, where that is
    /// allowed. [`TargetDir::set_metadata`] sets them again.
    pub fn unlock(&self) -> io::Result<()> {
        unlock(&Handle::Open(self.fd()), &self.stat()?)
    }

    /// The same for a file or directory in this one.
    pub fn unlock_at(&self, name: &[u8]) -> io::Result<()> {
        let name = checked(name)?;
        let stat = stat_at(self.fd(), name)?;
        self.with_handle(name, stat.kind, |file| {
            let stat = file.stat()?;
            unlock(file, &stat)
        })?
    }

    /// Sets what belongs to `name`, itself even if it is a link. For a directory this comes after its content. Returns
    /// what could not be set.
    pub fn set_metadata(&self, name: &[u8], meta: &Meta) -> Vec<Problem> {
        let result = checked(name).and_then(|name| {
            // Nothing is opened that is not what it should be: opening a device can have effects.
            let kind = stat_at(self.fd(), name)?.kind;
            self.with_handle(name, kind, |file| set_metadata(file, meta))
        });
        result.unwrap_or_else(|error| vec![Problem::new("metadata", error, false)])
    }

    /// Sets what belongs to this directory itself. Returns what could not be set.
    pub fn set_own_metadata(&self, meta: &Meta) -> Vec<Problem> {
        set_metadata(&Handle::Open(self.fd()), meta)
    }

    /// Makes what was created in this directory survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.fd())?)
    }

    /// Opens files and directories for reading; anything else, and what may not be read, is only held fast.
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

/// An open file that is restored.
#[derive(Debug)]
pub struct TargetFile {
    file: File,
    /// The mode that it was created with, and what its like are like, if nobody else could change it since.
    newborn: Option<(u32, Arc<OnceLock<Newborn>>)>,
}

impl TargetFile {
    /// Writes the whole of `buf` at a position.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    /// Fills `buf` from a position on, as far as the file reaches. Returns how many bytes were read.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&|buf, offset| read_at(&self.file, buf, offset), buf, offset)
    }

    /// Cuts the file off or lets it grow by a hole.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Takes room for `len` bytes beforehand, so that a full disk is noticed at once. A file system that cannot do so
    /// is passed over.
    pub fn preallocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match retried(|| fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Turns a range into a hole; where there are none, it is overwritten with zeros.
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

    /// What the open file is.
    pub fn stat(&self) -> io::Result<Stat> {
        stat_fd(&self.file)
    }

    /// Sets what belongs to the file, after its content. Returns what could not be set.
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
