//! Functions that only Windows has: identity of an open handle, paths of any length, links of two kinds, its own shell.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::{FileTypeExt as _, OpenOptionsExt as _, symlink_dir, symlink_file};
use std::os::windows::io::AsRawHandle as _;
use std::os::windows::process::CommandExt as _;
use std::path::{Component, Path, PathBuf, Prefix};
use std::process::{Child, Command, Stdio};

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_BASIC_INFO, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_READ_ATTRIBUTES, FILE_WRITE_ATTRIBUTES, FileBasicInfo, GetFileInformationByHandle,
    GetFileInformationByHandleEx,
};
use windows_sys::Win32::System::Threading::{
    BELOW_NORMAL_PRIORITY_CLASS, CREATE_NEW_PROCESS_GROUP, GetCurrentProcess, SetPriorityClass,
};

use super::Identity;
use crate::tree::Time;

/// Seconds from 1601, when the system's clock begins, to 1970.
const SECS_TO_1970: i64 = 11_644_473_600;
/// Error code of the system when a user may not make links.
const PRIVILEGE_NOT_HELD: i32 = 1314;

/// The path in the form that allows any length and takes every name literally (`\\?\C:\...`): otherwise the system
/// strips dots and blanks from the end of names, and takes `nul` for a device.
pub fn exact(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut components = path.components();
    let Some(Component::Prefix(prefix)) = components.next() else { return Ok(path) };
    let mut exact = match prefix.kind() {
        Prefix::Disk(letter) => PathBuf::from(format!(r"\\?\{}:\", char::from(letter))),
        Prefix::UNC(server, share) => {
            let mut exact = PathBuf::from(r"\\?\UNC\").into_os_string();
            exact.push(server);
            exact.push("\\");
            exact.push(share);
            exact.push("\\");
            exact.into()
        }
        _ => return Ok(path),
    };
    exact.extend(components.filter(|component| matches!(component, Component::Normal(_))));
    Ok(exact)
}

/// Opens anything, without following a link, to read or change its metadata.
pub fn open_attributes(path: &Path, write: bool) -> io::Result<File> {
    let access = if write { FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES } else { FILE_READ_ATTRIBUTES };
    let flags = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT;
    OpenOptions::new().access_mode(access).custom_flags(flags).open(path)
}

/// Metadata and identity of a file, without following a link.
pub fn inspect(path: &Path) -> io::Result<(Metadata, Identity)> {
    match open_attributes(path, false) {
        Ok(file) => Ok((file.metadata()?, identity(&file)?)),
        // Files that the system keeps to itself can still be examined through their folder.
        Err(_) => Ok((fs::symlink_metadata(path)?, Identity::default())),
    }
}

/// The identity of an open file.
pub fn identity(file: &File) -> io::Result<Identity> {
    let mut found = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open as long as `file` is borrowed, and the system writes one structure of this type.
    if unsafe { GetFileInformationByHandle(handle(file), &raw mut found) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let mut basic = FILE_BASIC_INFO::default();
    let len = size_of::<FILE_BASIC_INFO>() as u32;
    // SAFETY: as above; the length is that of the structure.
    let known = unsafe { GetFileInformationByHandleEx(handle(file), FileBasicInfo, (&raw mut basic).cast(), len) } != 0;
    Ok(Identity {
        dev: u64::from(found.dwVolumeSerialNumber),
        ino: u64::from(found.nFileIndexHigh) << 32 | u64::from(found.nFileIndexLow),
        nlink: u64::from(found.nNumberOfLinks).max(1),
        // Simple file systems do not have this time, and report zero.
        ctime: (known && basic.ChangeTime != 0).then(|| Time {
            secs: basic.ChangeTime.div_euclid(10_000_000) - SECS_TO_1970,
            nanos: u32::try_from(basic.ChangeTime.rem_euclid(10_000_000)).unwrap_or_default() * 100,
        }),
    })
}

fn handle(file: &File) -> HANDLE {
    file.as_raw_handle()
}

/// Whether a link was made for a folder: such links are of a different kind.
pub fn links_folder(metadata: &Metadata) -> bool {
    metadata.file_type().is_symlink_dir()
}

/// Makes a symbolic link. Its target decides its kind; if the target does not exist yet, `folder` does.
pub fn symlink(path: &Path, target: &OsStr, folder: bool) -> io::Result<()> {
    let place = path.parent().map_or_else(|| PathBuf::from(target), |parent| parent.join(target));
    let folder = fs::metadata(place).map_or(folder, |found| found.is_dir());
    let made = if folder { symlink_dir(target, path) } else { symlink_file(target, path) };
    match made {
        Err(error) if error.raw_os_error() == Some(PRIVILEGE_NOT_HELD) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "Windows lets only administrators make links, or anyone in developer mode",
        )),
        // Some systems that imitate Windows report success without making a link.
        Ok(()) if fs::symlink_metadata(path).is_err() => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this system cannot make links"))
        }
        made => made,
    }
}

/// Lets other programs go first.
pub fn low_priority() {
    // SAFETY: this only changes a number of our own process. Where it fails, we work as before.
    let _ = unsafe { SetPriorityClass(GetCurrentProcess(), BELOW_NORMAL_PRIORITY_CLASS) };
}

/// Threads do not pass on their priority here.
pub const fn low_priority_thread() {}

/// A command that runs in the shell. The shell has its own rules for quotes, so it gets the command literally, in one
/// more pair of quotes, which it removes.
pub fn shell(command: &OsStr) -> Command {
    let mut line = OsStr::new("\"").to_os_string();
    line.push(command);
    line.push("\"");
    let mut process = Command::new("cmd");
    process.raw_arg("/D /S /C").raw_arg(line);
    process
}

/// Keeps Ctrl-C at the terminal from reaching a command that is about to be started.
pub fn own_group(command: &mut Command) {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP);
}

/// Ends a command and the processes that it has started.
pub fn end_group(child: &mut Child) {
    let mut end = Command::new("taskkill");
    end.args(["/T", "/F", "/PID"]).arg(child.id().to_string());
    let ended = end.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !ended.is_ok_and(|status| status.success()) {
        let _ = child.kill(); // what has ended already need not be ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_have_any_length() {
        for (path, expected) in [
            (r"C:\a\b", r"\\?\C:\a\b"),
            (r"C:\", r"\\?\C:\"),
            ("c:/a/./b/../d", r"\\?\C:\a\d"),
            (r"\\server\share\a", r"\\?\UNC\server\share\a"),
            (r"\\?\C:\a ", r"\\?\C:\a "),
        ] {
            let exact = exact(Path::new(path)).unwrap();
            assert!(exact.as_os_str().eq_ignore_ascii_case(expected), "{path}: {}", exact.display());
        }
    }

    #[test]
    fn the_shell_gets_the_command_as_it_stands() {
        let said = |command: &str| {
            let output = shell(OsStr::new(command)).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(said("echo a\"b c\"d"), "a\"b c\"d");
        assert_eq!(said("echo a& echo b").split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(shell(OsStr::new("exit 7")).status().unwrap().code(), Some(7));
    }
}
