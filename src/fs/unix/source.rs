//! The source: directories that are walked and files that are read.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, fstatfs, openat, readlinkat, seek, statat};
use rustix::io::Errno;

use super::open::{DIRECTORY, FILE, list, open_parent, open_quietly, read_at, retried};
use super::stat::{stat_at, stat_fd};
use super::window::Window;
use super::xattr::{Node, Xattrs, fd_path};
use crate::fs::{CACHEDIR_TAG, Names, Stat, checked, read_bounded, read_full};
use crate::tree::FileKind;

/// Most ranges of data that are distinguished, so that memory stays bounded: the rest counts as data.
const EXTENTS_MAX: usize = 1 << 20;

/// An open directory of the source.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Whether the handle's position has left the beginning; held while names are read.
    listed: Mutex<bool>,
}

impl Dir {
    /// Opens a directory by its path. Links in the path are followed: the user named it.
    pub fn open(path: &Path) -> io::Result<Self> {
        open_quietly(CWD, path, DIRECTORY.difference(OFlags::NOFOLLOW)).map(Self::new)
    }

    /// Opens a directory in this one; fails if it is a link.
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        open_quietly(&self.fd, checked(name)?, DIRECTORY).map(Self::new)
    }

    /// Opens the directory above, if it is still the one with these `dev` and `ino`. So a walk of thousands of levels
    /// need not keep as many handles.
    pub fn open_parent(&self, dev_ino: (u64, u64)) -> io::Result<Self> {
        open_parent(&self.fd, dev_ino).map(Self::new)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn new(fd: OwnedFd) -> Self {
        Self { fd, listed: Mutex::new(false) }
    }

    /// Properties of the directory itself.
    pub fn stat(&self) -> io::Result<Stat> {
        stat_fd(&self.fd)
    }

    /// Properties of `name`, in one call, without following a link or triggering a mount.
    pub fn stat_at(&self, name: &[u8]) -> io::Result<Stat> {
        stat_at(&self.fd, name)
    }

    /// Replaces `out` with the names in this directory, sorted bytewise.
    pub fn names(&self, out: &mut Names) -> io::Result<()> {
        out.clear();
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *listed, true) {
            seek(&self.fd, SeekFrom::Start(0))?;
        }
        list(&self.fd, out)?;
        out.sort();
        Ok(())
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    /// Opens a file for reading; fails if it is a link. The caller checks with `stat` whether it is a regular file: a
    /// pipe or a device in its place opens as well, without blocking.
    pub fn open_file(&self, name: &[u8]) -> io::Result<SourceFile> {
        Ok(SourceFile { file: open_quietly(&self.fd, checked(name)?, FILE)?.into() })
    }

    /// Opens a pipe or a device for reading; fails if it is a link. Waits until somebody writes into a pipe.
    pub fn open_special(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let name = checked(name)?;
        Ok(retried(|| openat(&self.fd, name, flags, Mode::empty()))?.into())
    }

    /// The extended attributes of `name`, without following a link, sorted by name.
    pub fn xattrs_at(&self, name: &[u8]) -> io::Result<Xattrs> {
        let name = checked(name)?;
        if let Some(path) = fd_path(&self.fd, Some(name)) {
            return Node::Link(path).all();
        }
        // Only files and directories may be opened to read them: opening a device can have effects.
        match self.stat_at(name)?.kind {
            FileKind::File => self.open_file(name)?.xattrs(),
            FileKind::Directory => self.open_dir(name)?.xattrs(),
            _ => Ok(Vec::new()),
        }
    }

    /// The extended attributes of the directory itself, sorted by name.
    pub fn xattrs(&self) -> io::Result<Xattrs> {
        Node::Open(self.fd.as_fd()).all()
    }

    /// Whether the directory is marked as a cache by a `CACHEDIR.TAG` with the agreed signature.
    pub fn is_cachedir_tagged(&self) -> bool {
        let (name, signature) = CACHEDIR_TAG;
        let start = || {
            let file = self.open_file(name)?;
            let mut start = vec![0; signature.len()];
            if file.stat()?.kind == FileKind::File {
                file.read_full_at(&mut start, 0)?;
            }
            io::Result::Ok(start)
        };
        start().is_ok_and(|start| start == signature)
    }

    /// Whether this name exists, or that cannot be found out.
    pub fn may_contain(&self, name: &[u8]) -> bool {
        !matches!(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW), Err(rustix::io::Errno::NOENT))
    }

    /// The content of a small file; `None` if there is no regular file of this name.
    ///
    /// # Errors
    /// If it is longer than `max` bytes, a link, or cannot be read.
    pub fn read_small(&self, name: &[u8], max: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        if file.stat()?.kind != FileKind::File {
            return Ok(None);
        }
        read_bounded(&|buf, offset| file.read_at(buf, offset), max).map(Some)
    }

    /// Whether the file system is known to be on this machine, so that its files may be mapped: a file that comes over
    /// a network can fail at any page.
    pub fn is_local(&self) -> bool {
        fstatfs(&self.fd).is_ok_and(|stat| is_local(&stat))
    }
}

#[cfg(target_os = "linux")]
#[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // the type of the number differs between architectures
fn is_local(stat: &rustix::fs::StatFs) -> bool {
    const LOCAL: &[u32] = &[
        0xef53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683e, // Btrfs
        0x2fc1_2fc1, // ZFS
        0xca45_1a4e, // bcachefs
        0xf2f5_2010, // F2FS
        0x0102_1994, // tmpfs
        0x8584_58f6, // ramfs
        0x794c_7630, // overlayfs
        0x7366_746e, // NTFS
        0x2011_bab0, // exFAT
        0x4d44,      // FAT
        0x3153_464a, // JFS
        0x5265_4973, // ReiserFS
        0x3434,      // NILFS
        0xe0f5_e1e2, // EROFS
        0x7371_7368, // SquashFS
        0x9660,      // ISO 9660
        0x1501_3346, // UDF
        0x482b,      // HFS+
    ];
    LOCAL.contains(&(stat.f_type as u32))
}

#[cfg(target_os = "macos")]
#[allow(clippy::cast_sign_loss)] // the flags are declared differently
fn is_local(stat: &rustix::fs::StatFs) -> bool {
    stat.f_flags & libc::MNT_LOCAL as u32 != 0
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn is_local(_stat: &rustix::fs::StatFs) -> bool {
    false
}

/// An open file of the source.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
}

impl SourceFile {
    /// Properties of the open file.
    pub fn stat(&self) -> io::Result<Stat> {
        stat_fd(&self.file)
    }

    /// Reads at a position; fewer bytes than requested are normal, 0 means the end.
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

    /// The extended attributes, sorted by name.
    pub fn xattrs(&self) -> io::Result<Xattrs> {
        Node::Open(self.file.as_fd()).all()
    }

    /// The ranges of data within the first `size` bytes of the file, in order: each from a first byte up to, not
    /// including, a last one. `None` if there is no hole or the file system cannot tell.
    pub fn extents(&self, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
        let mut ranges = Vec::new();
        let mut position = 0;
        while position < size {
            let start = match seek(&self.file, SeekFrom::Data(position)) {
                // Only a hole is left up to the end.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => return Ok(None),
                start => start?,
            };
            if start >= size {
                break;
            }
            let end = match seek(&self.file, SeekFrom::Hole(start)) {
                // The file was truncated in between: the reader will notice.
                Err(Errno::NXIO) => size,
                end => end?.clamp(start + 1, size),
            };
            if ranges.len() == EXTENTS_MAX - 1 {
                ranges.push((start, size));
                break;
            }
            ranges.push((start, end));
            position = end;
        }
        Ok(if ranges == [(0, size)] || size == 0 { None } else { Some(ranges) })
    }

    /// Makes the system begin to read this range, so that it is in memory when it is requested. Does not wait, and
    /// promises nothing.
    pub fn prefetch(&self, offset: u64, len: u64) {
        if let Some(len) = NonZeroU64::new(len) {
            #[cfg(not(target_os = "macos"))]
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), rustix::fs::Advice::WillNeed);
            #[cfg(target_os = "macos")]
            let _ = rustix::fs::fcntl_rdadvise(&self.file, offset, len.get());
        }
    }

    /// Maps `len` bytes from any position on. If this fails, the caller reads instead.
    pub fn map(&self, offset: u64, len: usize) -> io::Result<Window> {
        Window::new(&self.file, offset, len)
    }
}
