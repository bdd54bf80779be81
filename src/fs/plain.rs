//! The functions that `portable` uses on Windows, for Unix: so that its tests run there as well.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::Identity;

/// The path as it is.
pub(crate) fn exact(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path)
}

/// Opens a file or a folder to read or change its metadata.
pub(crate) fn open_attributes(path: &Path, _write: bool) -> io::Result<File> {
    File::open(path)
}

/// Metadata and identity of a file, without following a link.
pub(crate) fn inspect(path: &Path) -> io::Result<(Metadata, Identity)> {
    let metadata = fs::symlink_metadata(path)?;
    let identity = of_metadata(&metadata);
    Ok((metadata, identity))
}

/// The identity of an open file.
pub(crate) fn identity(file: &File) -> io::Result<Identity> {
    Ok(of_metadata(&file.metadata()?))
}

fn of_metadata(metadata: &Metadata) -> Identity {
    Identity { dev: metadata.dev(), ino: metadata.ino(), nlink: metadata.nlink(), ctime: None }
}

/// Always false: Unix does not record it.
pub(crate) fn links_folder(_: &Metadata) -> bool {
    false
}

/// Makes a symbolic link.
pub(crate) fn symlink(path: &Path, target: &OsStr, _folder: bool) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Not offered here.
pub fn low_priority() {}

/// Not offered here.
pub const fn low_priority_thread() {}

/// A command that runs in the shell.
pub fn shell(command: &OsStr) -> Command {
    let mut process = Command::new("sh");
    process.arg("-c").arg(command);
    process
}

/// There are no groups here.
pub fn own_group(_: &mut Command) {}

/// Ends a command.
pub(crate) fn end_group(child: &mut Child) {
    let _ = child.kill(); // what has ended already need not be ended
}
