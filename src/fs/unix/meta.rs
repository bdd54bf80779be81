//! Sets the metadata of a file, in the one order that works: the owner first, since a change of owner clears
//! capabilities and setuid bits; attributes before the mode, since an ACL changes it; times after everything that
//! touches them; flags last, since an immutable file can no longer be changed.

use std::io;
use std::sync::OnceLock;

use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, fchown, futimens, utimensat,
};
use rustix::io::Errno;

use super::foresee::{Asked, Way};
use super::process::privileged;
#[cfg(not(target_os = "linux"))]
use super::stat::stat_at;
use super::stat::stat_fd;
use super::xattr::Node;
#[cfg(target_os = "linux")]
use super::xattr::fd_path;
use crate::fs::{Meta, Problem, Stat};
use crate::path::Shown;
use crate::tree::entry::flags;
use crate::tree::{FileKind, Time};

/// An attribute that is kept even if it was not saved: it belongs to the system on which the file is restored.
const LABEL: &[u8] = b"security.selinux";

/// A file whose metadata is set.
pub(super) enum Handle<'a> {
    /// Open for reading or writing.
    Open(BorrowedFd<'a>),
    /// Held by a handle that can neither read nor write: for links, devices, and unreadable files.
    #[cfg(target_os = "linux")]
    Pinned(BorrowedFd<'a>),
    /// A name in a directory, for systems without such handles.
    #[cfg(not(target_os = "linux"))]
    Named(BorrowedFd<'a>, &'a [u8]),
    /// Sets nothing: only foresees the result.
    Asked(Asked<'a>),
}

/// Default metadata of files that this process creates in a private folder (one that nobody else can enter): owner,
/// group and flags come from the process and the folder, and there are no attributes.
#[derive(Debug)]
pub(super) struct Newborn {
    uid: u32,
    gid: u32,
    flags: u32,
    /// Rights that they get if they are created with them.
    mode: u32,
}

/// Metadata of a file before it is set.
struct Had {
    uid: u32,
    gid: u32,
    flags: u32,
    mode: u32,
    /// `None` for a file that was just written: the time is about now.
    mtime: Option<Time>,
    /// Names of extended attributes, if they are to be set.
    xattrs: Vec<Vec<u8>>,
}

/// Sets everything in `meta`. Returns the properties that could not be set.
pub(super) fn set_metadata(file: &Handle, meta: &Meta) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(had) = look(file, meta, &mut problems) {
        apply(file, &had, meta, &mut problems);
    }
    problems
}

/// The properties that could not be set. `touched`: its content, or a file in it, would have been changed before.
pub(super) fn foresee(file: &Handle, meta: &Meta, touched: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let (Some(mut had), Ok(stat)) = (look(file, meta, &mut problems), file.stat()) {
        had.mtime = had.mtime.filter(|_| !touched);
        apply(&Handle::Asked(Asked::of(file.way(), &stat)), &had, meta, &mut problems);
    }
    problems
}

/// As [`foresee`], for a file that this process would make in a directory, if that is known.
pub(super) fn foresee_new(dir: Option<&Handle>, meta: &Meta) -> Vec<Problem> {
    let mut problems = Vec::new();
    let above = dir.and_then(|dir| dir.stat().ok());
    let asked = Asked::new(meta.kind, dir.map(Handle::way).unwrap_or_default(), above.as_ref());
    let (uid, gid, flags) = asked.owner_and_flags();
    let had = Had { uid, gid, flags, mode: owner_needs(meta.kind), mtime: None, xattrs: Vec::new() };
    apply(&Handle::Asked(asked), &had, meta, &mut problems);
    problems
}

/// As [`set_metadata`], for a regular file that this process created with `mode`. The first file of a family is
/// examined; the others are assumed to be like it.
pub(super) fn set_newborn(file: &Handle, mode: u32, family: &OnceLock<Newborn>, meta: &Meta) -> Vec<Problem> {
    let mut problems = Vec::new();
    let like = family.get().filter(|like| mode & !like.mode == 0 && meta.options.xattrs);
    let had = if let Some(&Newborn { uid, gid, flags, .. }) = like {
        Had { uid, gid, flags, mode, mtime: None, xattrs: Vec::new() }
    } else {
        let Some(had) = look(file, meta, &mut problems) else { return problems };
        let plain = had.mode == mode && had.flags & flags::LOCKS == 0 && had.xattrs.iter().all(|name| name == LABEL);
        if plain && meta.options.xattrs && problems.is_empty() {
            let _ = family.set(Newborn { uid: had.uid, gid: had.gid, flags: had.flags, mode });
        }
        had
    };
    apply(file, &had, meta, &mut problems);
    problems
}

/// Metadata of a file; `None` if it is not of the expected kind.
fn look(file: &Handle, meta: &Meta, problems: &mut Vec<Problem>) -> Option<Had> {
    let stat = match file.stat() {
        Ok(stat) if stat.kind == meta.kind => stat,
        Ok(_) => {
            problems.push(Problem::new("metadata", io::Error::other("another kind of file lies there"), false));
            return None;
        }
        Err(error) => {
            problems.push(Problem::new("metadata", error, false));
            return None;
        }
    };
    let Stat { uid, gid, flags, mode, mtime, .. } = stat;
    let mut had = Had { uid, gid, flags, mode, mtime: Some(mtime), xattrs: Vec::new() };
    if meta.options.xattrs {
        match file.node().map_or_else(|| Ok(Vec::new()), |node| node.names()) {
            Ok(names) => had.xattrs = names,
            Err(error) => problems.push(Problem::new("xattrs", error, false)),
        }
    }
    Some(had)
}

fn apply(file: &Handle, had: &Had, meta: &Meta, problems: &mut Vec<Problem>) {
    let mut changed = false;
    if had.flags & flags::LOCKS != 0 {
        // If this fails, the following calls fail too, and report it.
        changed = file.set_flags(0, flags::LOCKS).is_ok();
    }
    let (user_fits, group_fits) = set_owner(file, had, meta, &mut changed, problems);
    if meta.options.xattrs {
        set_xattrs(file, had, meta, &mut changed, problems);
    }
    let mut mode = meta.mode & 0o7777;
    if meta.kind == FileKind::File {
        // A program must not run with the rights of someone for whom it was never meant.
        mode &= !(if user_fits { 0 } else { 0o4000 } | if group_fits { 0 } else { 0o2000 });
    }
    if meta.kind != FileKind::Symlink && (changed || had.mode != mode) {
        if let Err(error) = file.chmod(mode) {
            problems.push(Problem::new("mode", error.into(), false));
        }
        changed = true;
    }
    if (changed || had.mtime != Some(meta.mtime))
        && let Err(error) = file.set_mtime(meta.mtime)
    {
        problems.push(Problem::new("times", error.into(), false));
    }
    if (had.flags ^ meta.flags) & flags::ALL != 0 || had.flags & flags::LOCKS != 0 {
        set_flags(file, meta.flags & flags::ALL, problems);
    }
}

/// Sets the owner. Returns whether user and group are now right.
fn set_owner(file: &Handle, had: &Had, meta: &Meta, changed: &mut bool, problems: &mut Vec<Problem>) -> (bool, bool) {
    let (uid, gid) = meta.names.resolve(meta.owner, meta.options.numeric);
    let fits = (had.uid == uid, had.gid == gid);
    if !meta.options.owner || fits == (true, true) {
        return fits;
    }
    // The highest number means "leave unchanged" to the system.
    if uid == u32::MAX || gid == u32::MAX {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "the number of the owner is not valid");
        problems.push(Problem::new("owner", error, false));
        return fits;
    }
    let user = (!fits.0).then(|| Uid::from_raw(uid));
    let group = (!fits.1).then(|| Gid::from_raw(gid));
    *changed = true;
    let Err(error) = file.chown(user, group) else { return (true, true) };
    problems.push(Problem::new("owner", error.into(), error == Errno::PERM && !privileged()));
    // A member of the group may give the file to the group, even if not to the user.
    let group_fits = fits.1 || user.is_some() && file.chown(None, group).is_ok();
    (fits.0, group_fits)
}

fn set_xattrs(file: &Handle, had: &Had, meta: &Meta, changed: &mut bool, problems: &mut Vec<Problem>) {
    if had.xattrs.is_empty() && meta.xattrs.is_empty() {
        return;
    }
    let refused = |error: Errno| matches!(error, Errno::PERM | Errno::ACCESS);
    let reserved = |name: &[u8]| name.starts_with(b"trusted.") || name.starts_with(b"security.");
    if let Handle::Asked(asked) = file
        && asked.is_new()
    {
        for (name, _) in meta.xattrs {
            *changed = true;
            if let Err(error) = asked.set_xattr(name) {
                let expected = reserved(name) && refused(error) && !privileged();
                problems.push(Problem::new(xattr(name), error.into(), expected));
            }
        }
        return;
    }
    let Some(node) = file.node() else {
        if !meta.xattrs.is_empty() {
            problems.push(Problem::new("xattrs", io::ErrorKind::Unsupported.into(), false));
        }
        return;
    };
    for name in &had.xattrs {
        if name == LABEL || meta.xattrs.iter().any(|(wanted, _)| wanted == name) {
            continue;
        }
        make_writable(file, had, meta.kind, changed);
        match file.remove_xattr(&node, name) {
            Ok(()) => *changed = true,
            Err(error) if refused(error) || error == super::xattr::NO_ATTRIBUTE || error == Errno::OPNOTSUPP => {}
            Err(error) => problems.push(Problem::new(xattr(name), error.into(), false)),
        }
    }
    for (name, value) in meta.xattrs {
        if had.xattrs.contains(name) && node.get(name).is_ok_and(|old| old.as_ref() == Some(value)) {
            continue;
        }
        make_writable(file, had, meta.kind, changed);
        *changed = true;
        if let Err(error) = file.set_xattr(&node, name, value) {
            problems.push(Problem::new(xattr(name), error.into(), reserved(name) && refused(error) && !privileged()));
        }
    }
}

/// Makes a file writable: a normal user may change attributes only of files that he may write, whatever they are opened
/// for. The mode is set later.
fn make_writable(file: &Handle, had: &Had, kind: FileKind, changed: &mut bool) {
    let needed = owner_needs(kind);
    if had.mode & needed != needed && !privileged() {
        // If this fails, the following calls fail too, and report it.
        *changed |= file.chmod(had.mode & 0o777 | needed).is_ok();
    }
}

/// The rights without which an owner cannot work on his own file.
fn owner_needs(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => 0o600,
        FileKind::Directory => 0o700,
        _ => 0,
    }
}

fn xattr(name: &[u8]) -> String {
    format!("xattr {}", Shown(name))
}

fn set_flags(file: &Handle, wanted: u32, problems: &mut Vec<Problem>) {
    let Err(error) = file.set_flags(wanted, flags::ALL) else { return };
    // Locks are for administrators, and few file systems compress: the other flags are set nevertheless.
    let (dropped, expected) = match Errno::from_io_error(&error) {
        Some(Errno::PERM) => (flags::LOCKS, !privileged()),
        Some(Errno::OPNOTSUPP | Errno::INVAL) => (flags::COMPRESSED, wanted & flags::COMPRESSED != 0),
        _ => (0, false),
    };
    let settled = wanted & dropped != 0 && file.set_flags(wanted & !dropped, flags::ALL & !dropped).is_ok();
    problems.push(Problem::new("flags", error, expected && settled));
}

/// Makes a file of this user accessible to its owner, and clears the flags that forbid every change.
pub(super) fn unlock(file: &Handle, stat: &Stat) -> io::Result<()> {
    if stat.flags & flags::LOCKS != 0 {
        file.set_flags(0, flags::LOCKS)?;
    }
    let needed = owner_needs(stat.kind);
    if stat.mode & needed != needed && !privileged() {
        file.chmod(stat.mode | needed)?;
    }
    Ok(())
}

/// Whether [`unlock`] has anything to do.
pub(super) fn is_locked(stat: &Stat) -> bool {
    stat.flags & flags::LOCKS != 0 || (stat.kind == FileKind::Directory && stat.mode & 0o700 != 0o700 && !privileged())
}

impl Handle<'_> {
    pub(super) fn stat(&self) -> io::Result<Stat> {
        match self {
            Self::Open(fd) => stat_fd(fd),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd) => stat_fd(fd),
            #[cfg(not(target_os = "linux"))]
            Self::Named(dir, name) => stat_at(dir, name),
            Self::Asked(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The handle of the file itself, if there is one.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Open(fd) => Some(*fd),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd) => Some(*fd),
            #[cfg(not(target_os = "linux"))]
            Self::Named(..) => None,
            Self::Asked(_) => None,
        }
    }

    fn way(&self) -> Way<'_> {
        Way { fd: self.fd(), is_open: matches!(self, Self::Open(_)), node: self.node() }
    }

    fn set_xattr(&self, node: &Node<'_>, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Asked(asked) => asked.set_xattr(name),
            _ => node.set(name, value),
        }
    }

    fn remove_xattr(&self, node: &Node<'_>, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Asked(asked) => asked.set_xattr(name),
            _ => node.remove(name),
        }
    }

    fn chown(&self, user: Option<Uid>, group: Option<Gid>) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchown(fd, user, group),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd) => chownat(fd, c"", user, group, AtFlags::EMPTY_PATH),
            #[cfg(not(target_os = "linux"))]
            Self::Named(dir, name) => chownat(dir, *name, user, group, AtFlags::SYMLINK_NOFOLLOW),
            Self::Asked(asked) => asked.chown(user, group),
        }
    }

    fn chmod(&self, mode: u32) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd) => rustix::fs::chmod(fd_path(fd, None).ok_or(Errno::OPNOTSUPP)?, mode),
            #[cfg(not(target_os = "linux"))]
            Self::Named(dir, name) => rustix::fs::chmodat(dir, *name, mode, AtFlags::SYMLINK_NOFOLLOW),
            Self::Asked(asked) => asked.own(),
        }
    }

    #[allow(clippy::cast_lossless)] // the types of the fields differ between systems
    fn set_mtime(&self, time: Time) -> rustix::io::Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
            last_modification: Timespec { tv_sec: time.secs as _, tv_nsec: time.nanos as _ },
        };
        match self {
            Self::Open(fd) => futimens(fd, &times),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd) => match utimensat(fd, c"", &times, AtFlags::EMPTY_PATH) {
                // Linux before 5.8.
                Err(Errno::INVAL) => {
                    let path = fd_path(fd, None).ok_or(Errno::INVAL)?;
                    utimensat(rustix::fs::CWD, path, &times, AtFlags::empty())
                }
                result => result,
            },
            #[cfg(not(target_os = "linux"))]
            Self::Named(dir, name) => utimensat(dir, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
            Self::Asked(asked) => asked.own(),
        }
    }

    pub(super) fn node(&self) -> Option<Node<'_>> {
        match self {
            Self::Open(fd) => Some(Node::Open(*fd)),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd) => fd_path(fd, None).map(Node::Magic),
            #[cfg(not(target_os = "linux"))]
            Self::Named(..) => None,
            Self::Asked(asked) => asked.node(),
        }
    }

    /// Sets the `wanted` flags among the `known` ones and clears the other known ones; the rest stays as it is.
    #[cfg(target_os = "linux")]
    fn set_flags(&self, wanted: u32, known: u32) -> io::Result<()> {
        use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
        let bits = |flags: u32| {
            [
                (flags::IMMUTABLE, IFlags::IMMUTABLE),
                (flags::APPEND, IFlags::APPEND),
                (flags::NODUMP, IFlags::NODUMP),
                (flags::COMPRESSED, IFlags::COMPRESSED),
            ]
            .into_iter()
            .filter(|&(flag, _)| flags & flag != 0)
            .fold(IFlags::empty(), |bits, (_, bit)| bits | bit)
        };
        if let Self::Asked(asked) = self {
            return asked.set_flags(wanted, known);
        }
        // Only on files and directories: devices give such requests other meanings.
        let Self::Open(fd) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        let old = ioctl_getflags(fd)?;
        // Not `!bits(known)`, which would clear flags that have no name here (such as the one for extents).
        let new = old.difference(bits(known)).union(bits(wanted));
        if new != old {
            ioctl_setflags(fd, new)?;
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn set_flags(&self, wanted: u32, known: u32) -> io::Result<()> {
        match self {
            Self::Asked(asked) => asked.set_flags(wanted, known),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
