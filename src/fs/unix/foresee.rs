//! Foresees the result of an attempt: a dry run asks here where the real run acts. Asking changes nothing.
//!
//! The system is asked where that is possible: for rights (`faccessat`), and for mounts that are read-only
//! (`fstatvfs`). Everything else follows from owner, mode, flags and mounts.

use std::cell::Cell;
use std::io;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Access, AtFlags, FileType, Gid, StatVfsMountFlags, Uid, accessat, fstatvfs};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgroups};

use super::process::{clears_locks, privileged};
use super::stat::{stat_at, stat_fd};
use super::xattr::Node;
use crate::fs::Stat;
use crate::tree::FileKind;
use crate::tree::entry::flags;

/// The result of an attempt, from the answer to the question whether it is allowed.
pub(super) fn may(answer: rustix::io::Result<()>, can_unlock: impl FnOnce() -> bool) -> io::Result<()> {
    match answer {
        // The owner can give himself the right.
        Err(Errno::ACCESS) if can_unlock() => Ok(()),
        // Not every system can answer.
        Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        answer => Ok(answer?),
    }
}

/// Whether this user can give himself rights to the file.
pub(super) fn is_ours(stat: &Stat) -> bool {
    privileged() || stat.uid == geteuid().as_raw()
}

/// The answer of a file or directory with these of the flags in [`flags::LOCKS`]. `unlock`: they are cleared first, if this user
/// may do that.
fn locked(flags: u32, unlock: bool) -> io::Result<()> {
    if flags == 0 || unlock && clears_locks() { Ok(()) } else { Err(Errno::PERM.into()) }
}

/// Whether names could be made in a directory. `unlock`: its owner first gives himself the rights.
pub(super) fn write_in(dir: BorrowedFd<'_>, unlock: bool) -> io::Result<()> {
    // In one that may only grow, names can be made.
    locked(stat_fd(dir)?.flags & flags::IMMUTABLE, unlock)?;
    may(accessat(dir, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS), || {
        unlock && stat_fd(dir).is_ok_and(|stat| is_ours(&stat))
    })
}

/// Whether the file of this name in a directory could be removed, or replaced by something else.
pub(super) fn take(dir: BorrowedFd<'_>, name: &[u8], unlock: bool) -> io::Result<()> {
    write_in(dir, unlock)?;
    let there = match stat_at(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    let folder = stat_fd(dir)?;
    locked(folder.flags & flags::LOCKS, unlock)?;
    if there.mount_root {
        return Err(Errno::BUSY.into());
    }
    let user = geteuid().as_raw();
    if !privileged() && folder.mode & 0o1000 != 0 && folder.uid != user && there.uid != user {
        return Err(Errno::PERM.into());
    }
    locked(there.flags & flags::LOCKS, true)
}

/// Whether the content of a file could be changed.
pub(super) fn change(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let is_there = || stat_at(dir, name);
    locked(is_there()?.flags & flags::LOCKS, true)?;
    may(accessat(dir, name, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS), || {
        is_there().is_ok_and(|stat| is_ours(&stat))
    })
}

/// Whether a file or directory could be unlocked: its owner gives himself the rights, and clears the flags that forbid
/// every change.
pub(super) fn unlock(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let there = stat_at(dir, name)?;
    locked(there.flags & flags::LOCKS, true)?;
    if is_ours(&there) { Ok(()) } else { Err(Errno::PERM.into()) }
}

/// A way to a file, for questions.
#[derive(Default)]
pub(super) struct Way<'a> {
    /// A handle of the file.
    pub fd: Option<BorrowedFd<'a>>,
    /// Whether the handle can read or write.
    pub is_open: bool,
    /// How its attributes are reached.
    pub node: Option<Node<'a>>,
}

/// A file whose metadata would be set, with the answers that it would give.
pub(super) struct Asked<'a> {
    /// The way to the file itself if it exists; otherwise to the directory in which it would be made, if that is known.
    near: Way<'a>,
    is_there: bool,
    uid: u32,
    gid: u32,
    /// With those that would have been cleared and set before the next question.
    flags: Cell<u32>,
    kind: FileKind,
    is_read_only: bool,
}

impl<'a> Asked<'a> {
    /// A file that exists.
    pub(super) fn of(file: Way<'a>, stat: &Stat) -> Self {
        let is_read_only = file.fd.is_some_and(is_read_only);
        Self {
            near: file,
            is_there: true,
            uid: stat.uid,
            gid: stat.gid,
            flags: Cell::new(stat.flags),
            kind: stat.kind,
            is_read_only,
        }
    }

    /// A file that this process would make in a directory, with what is known of that.
    pub(super) fn new(kind: FileKind, dir: Way<'a>, above: Option<&Stat>) -> Self {
        // Owner and flags that systems give to files made in a directory.
        let gid = above.filter(|above| above.mode & 0o2000 != 0).map(|above| above.gid);
        Self {
            near: dir,
            is_there: false,
            uid: geteuid().as_raw(),
            gid: gid.unwrap_or_else(|| getegid().as_raw()),
            flags: Cell::new(above.map_or(0, |above| above.flags & (flags::NODUMP | flags::COMPRESSED))),
            kind,
            is_read_only: false,
        }
    }

    /// Its user, group and flags.
    pub(super) const fn owner_and_flags(&self) -> (u32, u32, u32) {
        (self.uid, self.gid, self.flags.get())
    }

    /// Whether it would be made first.
    pub(super) const fn is_new(&self) -> bool {
        !self.is_there
    }

    fn is_own(&self) -> bool {
        privileged() || self.uid == geteuid().as_raw()
    }

    const fn is_locked(&self) -> bool {
        self.flags.get() & flags::LOCKS != 0
    }

    /// Whether its owner could change something about it.
    pub(super) fn own(&self) -> rustix::io::Result<()> {
        if self.is_read_only {
            return Err(Errno::ROFS);
        }
        if self.is_own() && !self.is_locked() { Ok(()) } else { Err(Errno::PERM) }
    }

    /// Whether it could be given to this user and group.
    pub(super) fn chown(&self, user: Option<Uid>, group: Option<Gid>) -> rustix::io::Result<()> {
        self.own()?;
        let is_member = |group: Gid| {
            group == getegid() || getgroups().is_ok_and(|groups| groups.contains(&group)) || group.as_raw() == self.gid
        };
        let may = user.is_none_or(|user| user.as_raw() == self.uid) && group.is_none_or(is_member);
        if privileged() || may { Ok(()) } else { Err(Errno::PERM) }
    }

    /// Whether these flags, among the known ones, could be set.
    #[cfg(target_os = "linux")]
    pub(super) fn set_flags(&self, wanted: u32, known: u32) -> io::Result<()> {
        let fd = self.near.fd.filter(|_| self.near.is_open);
        // Only files and directories have them.
        if fd.is_none() && self.is_there {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !matches!(self.kind, FileKind::File | FileKind::Directory) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if let Some(fd) = fd {
            rustix::fs::ioctl_getflags(fd)?;
        }
        let changed = (self.flags.get() ^ wanted) & known;
        if changed == 0 {
            return Ok(());
        }
        if self.is_read_only {
            return Err(Errno::ROFS.into());
        }
        if !self.is_own() || changed & flags::LOCKS != 0 && !clears_locks() {
            return Err(Errno::PERM.into());
        }
        self.flags.set(self.flags.get() ^ changed);
        Ok(())
    }

    /// No system but Linux has them.
    #[cfg(not(target_os = "linux"))]
    pub fn set_flags(&self, _wanted: u32, _known: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether an attribute could be set or removed.
    pub(super) fn set_xattr(&self, name: &[u8]) -> rustix::io::Result<()> {
        if self.is_read_only {
            return Err(Errno::ROFS);
        }
        let is_plain = matches!(self.kind, FileKind::File | FileKind::Directory);
        let may = match name {
            [b'u', b's', b'e', b'r', b'.', ..] => is_plain && (self.is_own() || self.near.fd.is_some_and(can_write)),
            [b's', b'y', b's', b't', b'e', b'm', b'.', ..] => self.is_own(),
            _ => privileged(),
        };
        if !may || self.is_locked() {
            return Err(Errno::PERM);
        }
        // Asking for an attribute shows whether the file system has attributes of this sort.
        match self.near.node.as_ref().map(|node| node.ask(name)) {
            Some(Err(Errno::OPNOTSUPP)) => Err(Errno::OPNOTSUPP),
            _ => Ok(()),
        }
    }

    /// The attributes of the file, if it exists.
    pub(super) fn node(&self) -> Option<Node<'a>> {
        self.near.node.clone().filter(|_| self.is_there)
    }
}

fn is_read_only(fd: BorrowedFd<'_>) -> bool {
    fstatvfs(fd).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn can_write(fd: BorrowedFd<'_>) -> bool {
    let is_folder =
        rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let path = if is_folder { Some(c".".to_owned()) } else { super::xattr::fd_path(fd.as_fd(), None) };
    path.is_some_and(|path| accessat(fd, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok())
}
