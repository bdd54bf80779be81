//! The user's files: walking and reading them, and writing them back with all their metadata.
//!
//! All access uses directory handles and single names, so that no link planted meanwhile leads elsewhere, and no path
//! is too long. [`source`](Dir) reads, [`target`](TargetDir) writes. `unix` is complete on Linux; `portable`, with
//! `windows` below it, offers the same on paths, and returns `Unsupported` for the rest.

mod names;
#[cfg(any(not(unix), test))]
pub mod portable;
#[cfg(all(unix, test))]
mod plain;
#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod windows;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use crate::path::{check_name, plain};
use crate::tree::{FileKind, Owner, Time};

pub use names::Names;
#[cfg(not(unix))]
pub use portable::{
    Dir, OwnerNames, SourceFile, TargetDir, TargetFile, Window, end_group, free_space, give_to_owner, keep_to_itself,
    leaving_hangups, low_priority, low_priority_thread, own_group, privileged, raise_file_limit, share_heap, shell,
    survive_file_size_limit,
};
#[cfg(unix)]
pub use unix::{
    Dir, OwnerNames, SourceFile, TargetDir, TargetFile, Window, end_group, free_space, give_to_owner, keep_to_itself,
    leaving_hangups, low_priority, low_priority_thread, own_group, privileged, raise_file_limit, share_heap, shell,
    survive_file_size_limit,
};

/// The real path, without links, `.` and `..`, in the form that people write.
///
/// # Errors
/// If the path does not exist, or cannot be followed.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path).map(plain)
}

/// Whether a path is one at which systems mount removable disks, in a folder that they make for each disk and remove
/// with it. If that folder is missing, this says nothing about the files on the disk. Other mount points come and go
/// for good (of containers, of packages).
pub fn is_removable_disk(path: &Path) -> bool {
    let places = ["/media", "/run/media", "/Volumes"].map(Path::new);
    let above = |levels: usize| path.ancestors().nth(levels);
    // Below a folder of the user's name, or not.
    [1, 2].into_iter().filter_map(above).any(|folder| places.contains(&folder))
}

/// Identity of a file, beyond what the standard library tells.
#[cfg(any(not(unix), test))]
#[derive(Debug, Clone, Copy)]
struct Identity {
    /// The file system.
    dev: u64,
    /// The number there; 0 if unknown.
    ino: u64,
    /// Number of its names.
    nlink: u64,
    /// Time of the last change of anything about it, if the system knows.
    ctime: Option<Time>,
}

#[cfg(any(not(unix), test))]
impl Default for Identity {
    fn default() -> Self {
        Self { dev: 0, ino: 0, nlink: 1, ctime: None }
    }
}

/// Properties of a file, as the file system reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Kind of the file.
    pub kind: FileKind,
    /// The low twelve bits of the mode.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Length of a regular file in bytes; 0 for everything else.
    pub size: u64,
    /// Time of the last change of the content.
    pub mtime: Time,
    /// Time of the last change of anything about the file.
    pub ctime: Time,
    /// Time of creation, if known.
    pub btime: Option<Time>,
    /// Number of its file system.
    pub dev: u64,
    /// Its number there; 0 if the system has none.
    pub ino: u64,
    /// Number of its names.
    pub nlink: u64,
    /// Major and minor number of a device; zero for everything else.
    pub device: (u32, u32),
    /// Number of blocks of 512 bytes that it occupies.
    pub blocks: u64,
    /// Bits of [`crate::tree::entry::flags`].
    pub flags: u32,
    /// Whether a file system is mounted here (Linux 5.8 and newer report it; compare `dev` as well).
    pub mount_root: bool,
    /// The mount through which it was reached (Linux 5.8 and newer report it); 0 if unknown.
    pub mount: u64,
}

/// Metadata to set on a restored file.
#[derive(Debug, Clone, Copy)]
pub struct Meta<'a> {
    /// Kind of the file; nothing is set on a file of another kind.
    pub kind: FileKind,
    /// The low twelve bits of the mode.
    pub mode: u32,
    /// Its owner: by name if this machine knows the name, else by number.
    pub owner: &'a Owner,
    /// Time of the last change of its content.
    pub mtime: Time,
    /// All extended attributes that it should have.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Bits of [`crate::tree::entry::flags`].
    pub flags: u32,
    /// The metadata to set at all.
    pub options: MetaOptions,
    /// Looks up the names of owners.
    pub names: &'a OwnerNames,
}

/// Which metadata is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaOptions {
    /// Set the owner and the group.
    pub owner: bool,
    /// Use the numbers of owner and group as they are, without looking up names.
    pub numeric: bool,
    /// Set extended attributes, including ACLs and capabilities, and remove those that were not saved.
    pub xattrs: bool,
}

impl Default for MetaOptions {
    fn default() -> Self {
        Self { owner: true, numeric: false, xattrs: true }
    }
}

/// A property of a file that could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {what}")]
pub struct Problem {
    /// `owner`, `mode`, `times`, `flags`, `xattr user.x`, or `metadata` if the file could not be reached at all.
    pub what: Cow<'static, str>,
    /// Error of the system.
    #[source]
    pub error: io::Error,
    /// Whether nothing is wrong: a normal user simply may not set it, or few file systems have it (compression).
    /// Reported once, in a summary.
    pub expected: bool,
}

impl Problem {
    fn new(what: impl Into<Cow<'static, str>>, error: io::Error, expected: bool) -> Self {
        Self { what: what.into(), error, expected }
    }
}

/// Whether an error only means that a normal user may not do this (change an owner, make a device).
pub fn is_expected(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && !privileged()
}

/// Refuses everything but the name of a single path component, before it gets anywhere near the system.
fn checked(name: &[u8]) -> io::Result<&[u8]> {
    check_name(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(name)
}

/// The content of a file of at most `max` bytes.
fn read_bounded(file: &SourceFileRef<'_>, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    loop {
        let n = file(&mut block, bytes.len() as u64)?;
        if n == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&block[..n]);
        if bytes.len() > max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too long"));
        }
    }
}

/// Reads at a position.
type SourceFileRef<'a> = dyn Fn(&mut [u8], u64) -> io::Result<usize> + 'a;

/// The name and the first bytes of the file that marks a cache (<https://bford.info/cachedir/>).
pub(crate) const CACHEDIR_TAG: (&[u8], &[u8]) = (b"CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

/// Fills `buf`, or as much of it as the file has bytes for. Returns the number of bytes read.
fn read_full(read_at: &SourceFileRef<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match read_at(&mut buf[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}
