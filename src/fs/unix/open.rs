//! Opening and listing, shared by source and target.

use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt as _;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::path::Arg;

use super::stat::{kind_of, stat_fd};
use crate::fs::Names;

/// For directories of the source and the target: never through a link in the last component.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// For files that are read: a pipe that someone put in the file's place does not block.
pub(super) const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Opens for reading without changing the time of last access, where that is allowed (to the owner and root).
pub(super) fn open_quietly(dir: impl AsFd, path: impl Arg + Copy, flags: OFlags) -> io::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    match retried(|| openat(&dir, path, flags | OFlags::NOATIME, Mode::empty())) {
        Err(Errno::PERM) => {}
        result => return Ok(result?),
    }
    Ok(retried(|| openat(&dir, path, flags, Mode::empty()))?)
}

/// Opens the directory above, which must have these numbers: if the directory was moved meanwhile, `..` is another one.
pub(super) fn open_parent(dir: impl AsFd, (dev, ino): (u64, u64)) -> io::Result<OwnedFd> {
    let parent = open_quietly(dir, c"..", DIRECTORY)?;
    let stat = stat_fd(&parent)?;
    if (stat.dev, stat.ino) == (dev, ino) {
        Ok(parent)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "the directory was moved meanwhile"))
    }
}

/// Reads at a position. Returns the number of bytes read: 0 at the end.
pub(super) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buf, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Repeats a call that a signal interrupted.
pub(super) fn retried<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Adds the names in a directory that is read from its beginning, without `.` and `..`.
#[cfg(target_os = "linux")]
#[allow(clippy::large_stack_arrays)] // much cheaper than memory of its own for each directory
pub(super) fn list(dir: impl AsFd, out: &mut Names) -> io::Result<()> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32 << 10];
    let mut entries = rustix::fs::RawDir::new(dir.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            entry => entry?,
        };
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => out.push(name, kind_of(entry.file_type()))?,
        }
    }
    Ok(())
}

/// Adds the names in a directory that is read from its beginning, without `.` and `..`.
#[cfg(not(target_os = "linux"))]
pub fn list(dir: impl AsFd, out: &mut Names) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => out.push(name, kind_of(entry.file_type()))?,
        }
    }
    Ok(())
}
