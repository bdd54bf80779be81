//! Mount points: finding them, making folders for them, and ending mounts.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::cli::args::UmountArgs;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::local;
use crate::cli::machine;
use crate::cli::output::Output;
use crate::cli::roots;
use crate::ownfile;

/// The time allowed for a mount to disappear.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// The time allowed for programs to let go of a mount.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);
/// The number of programs named that use a mount.
const USERS_SHOWN: usize = 3;

/// The folder of a mount, which is removed with this value if it was made for the mount.
pub(super) struct Point {
    /// The folder, absolute.
    pub folder: PathBuf,
    is_made: bool,
}

impl Point {
    /// Keeps the folder when the mount ends.
    pub(super) const fn keep(&mut self) {
        self.is_made = false;
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        if self.is_made {
            // A folder that is still used remains, empty.
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// The folders in which vaults are mounted, including those whose program is gone.
#[cfg(target_os = "linux")]
pub(super) fn all() -> Vec<PathBuf> {
    let text = ownfile::read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(vault_mount).collect()
}

/// The folder in a line of `mountinfo`, if it is a vault's mount.
#[cfg(target_os = "linux")]
fn vault_mount(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let folder = fields.nth(4)?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (rest.next()?, rest.next()?);
    let is_vault = kind == b"fuse.vault" || (kind == b"fuse" && source == b"vault");
    is_vault.then(|| PathBuf::from(OsString::from_vec(unescaped(folder))))
}

/// Decodes the kernel's escapes, such as `\040` for a space.
#[cfg(target_os = "linux")]
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let code = text.get(at + 1..at + 4).filter(|_| text[at] == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(text[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    out
}

/// The folders in which vaults are mounted.
#[cfg(not(target_os = "linux"))]
pub fn all() -> Vec<PathBuf> {
    let said = machine::program("mount").arg("-p").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&said).into_owned();
    let of_vault = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, folder, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "fusefs.vault").then(|| PathBuf::from(folder))
    };
    text.lines().filter_map(of_vault).collect()
}

/// Whether a folder is a mount whose program is gone.
pub(super) fn is_dead(folder: &Path) -> bool {
    let gone = [libc::ENOTCONN, libc::ECONNABORTED, libc::ENXIO];
    fs::metadata(folder).is_err_and(|error| error.raw_os_error().is_some_and(|code| gone.contains(&code)))
}

/// The system's path of a folder, with links resolved. The folder of a dead mount cannot be queried, so only its parent
/// is resolved.
fn real(folder: &Path) -> PathBuf {
    let folder = match current_folder() {
        Ok(current) => roots::absolute(&current, folder),
        Err(_) => folder.to_owned(),
    };
    if let Ok(real) = fs::canonicalize(&folder) {
        return real;
    }
    let parent = folder.parent().and_then(|parent| fs::canonicalize(parent).ok());
    match (parent, folder.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => folder,
    }
}

/// Prepares a folder for a mount: the given one, or a new one for a vault of this name.
pub(super) fn prepare(given: Option<&Path>, name: &str) -> Result<Point, Failure> {
    let folder = real(&match given {
        Some(folder) => folder.to_owned(),
        None => own(name)?,
    });
    let shown = folder.display().to_string();
    if all().contains(&folder) {
        if !is_dead(&folder) {
            return Err(Failure::new(format!("a vault is mounted in {shown} already"))
                .hint(format!("Look into it, or end it with: vault umount {}", quoted(&shown))));
        }
        // The mount's program was killed, so nobody answers there any more.
        end(&folder, true).map_err(|error| Failure::caused(format!("cannot end the dead mount in {shown}"), &error))?;
    }
    if given.is_none() && !folder.exists() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| Failure::caused(format!("cannot make the folder {shown}"), &error))?;
    }
    let mut point = Point { folder, is_made: given.is_none() };
    let entries = crate::folder::entries(&point.folder).map_err(|error| {
        let failure = Failure::caused(format!("cannot mount in {shown}"), &error);
        match error.kind() {
            io::ErrorKind::NotFound => failure.hint(format!("Make it first: mkdir -p {}", quoted(&shown))),
            _ => failure.hint("Give an empty folder that is yours, or none: one is made then."),
        }
    })?;
    if entries.into_iter().next().is_some() {
        point.keep();
        return Err(Failure::new(format!("{shown} is not empty"))
            .hint("What is in it would be hidden. Give an empty folder, or none: one is made then."));
    }
    local::refuse_in_vault(&point.folder, "a mount")?;
    Ok(point)
}

/// The folder for mounts of a vault of this name.
fn own(name: &str) -> Result<PathBuf, Failure> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(run) = absolute("XDG_RUNTIME_DIR").filter(|run| run.is_dir()) {
        return Ok(run.join("vault").join(name));
    }
    match env::home_dir().filter(|home| home.is_absolute()) {
        Some(home) => Ok(home.join("Vault").join(name)),
        None => Err(Failure::usage("there is no home folder to mount in").hint("Say where: vault mount DIR")),
    }
}

/// Ends a mount. With `even_if_used`, also one that programs use; it stays for these programs until they let go.
/// Otherwise programs that are just ending, or starting another one, get a moment to let go.
pub(super) fn end(folder: &Path, even_if_used: bool) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match end_at_once(folder, even_if_used) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && begun.elapsed() < LET_GO_WITHIN => {
                thread::sleep(Duration::from_millis(50));
            }
            ended => return ended,
        }
    }
}

fn end_at_once(folder: &Path, even_if_used: bool) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::mount::{UnmountFlags, unmount};
        let flags = if even_if_used { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        match unmount(folder, flags) {
            Err(rustix::io::Errno::PERM) => {}
            ended => return ended.map_err(io::Error::from),
        }
        let mut missing = None;
        for program in ["fusermount3", "fusermount"] {
            let mut command = machine::program(program);
            command.arg("-u").args(even_if_used.then_some("-z")).arg("--").arg(folder);
            match command.stdin(Stdio::null()).output() {
                Ok(output) if output.status.success() => return Ok(()),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    let is_busy = said.to_lowercase().contains("busy");
                    return Err(if is_busy {
                        io::Error::from(io::ErrorKind::ResourceBusy)
                    } else {
                        io::Error::other(said)
                    });
                }
                Err(error) => missing = Some(error),
            }
        }
        Err(missing.unwrap_or_else(|| io::Error::other("fusermount3 is missing")))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let mut command = machine::program("umount");
        command.args(even_if_used.then_some("-f")).arg(folder);
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(()) } else { Err(io::Error::other(said)) }
    }
}

/// The programs that use something below a folder, as far as the system shows them.
pub(super) fn users(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for process in crate::folder::entries("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        if !process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let files = crate::folder::entries(path.join("fd")).into_iter().flatten().flatten().map(|file| file.path());
        let uses = files
            .chain([path.join("cwd"), path.join("exe"), path.join("root")])
            .any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(folder)));
        if uses {
            let name = ownfile::read_text(&path.join("comm")).unwrap_or_default();
            found.push(format!("{} (process {})", name.trim(), process.file_name().to_string_lossy()));
        }
    }
    found
}

/// The programs that use a folder, in words.
pub(super) fn told(users: &[String]) -> String {
    match users {
        [] => "a program still uses it".to_owned(),
        users => {
            let more = if users.len() > USERS_SHOWN { ", …" } else { "" };
            format!("it is still used by {}{more}", users[..users.len().min(USERS_SHOWN)].join(", "))
        }
    }
}

#[derive(Serialize)]
struct UmountJson {
    unmounted: String,
    /// The mount disappears only when the programs that use it let go.
    is_used: bool,
}

/// Runs `vault umount`.
pub(super) fn umount(context: &Context, args: &UmountArgs) -> Result<Exit, Failure> {
    let mounted = all();
    let folder = match &args.folder {
        Some(folder) => {
            let folder = real(folder);
            if !mounted.contains(&folder) {
                return Err(Failure::new(format!("no vault is mounted in {}", folder.display())).hint(listed(&mounted)));
            }
            folder
        }
        None => match mounted.as_slice() {
            [only] => only.clone(),
            [] => return Err(Failure::new("no vault is mounted")),
            several => return Err(Failure::usage("which mount?").hint(listed(several))),
        },
    };
    let shown = folder.display().to_string();
    let users = match end(&folder, false) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let users = users(&folder);
            end(&folder, true).map_err(|error| Failure::caused(format!("cannot end the mount in {shown}"), &error))?;
            Some(users)
        }
        Err(error) => return Err(Failure::caused(format!("cannot end the mount in {shown}"), &error)),
    };
    let begun = Instant::now();
    while all().contains(&folder) && begun.elapsed() < GONE_WITHIN {
        thread::sleep(Duration::from_millis(20));
    }
    let mut out = Output::new();
    if context.global.json {
        out.json(&UmountJson { unmounted: shown, is_used: users.is_some() })?;
    } else if !context.global.quiet {
        match users {
            None => out.line(format_args!("Unmounted {shown}."))?,
            Some(users) => out.say(format_args!("Unmounted {shown}; {}, for which it stays.", told(&users)))?,
        }
    }
    out.finish().map(|()| Exit::Done)
}

fn listed(mounted: &[PathBuf]) -> String {
    let folders: Vec<String> = mounted.iter().map(|folder| quoted(&folder.display().to_string())).collect();
    if folders.is_empty() { "None is mounted at all.".to_owned() } else { format!("There is: {}", folders.join(", ")) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_vaults_are_told_from_others() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(vault_mount(line.as_bytes()), expected.map(PathBuf::from), "{line}");
        };
        check("1 2 0:3 / /home/me/old ro,nosuid shared:1 - fuse.vault vault ro,user_id=0", Some("/home/me/old"));
        check("1 2 0:3 / /mnt/with\\040space ro - fuse vault ro", Some("/mnt/with space"));
        check("1 2 0:3 / /mnt ro - fuse.sshfs vault ro", None);
        check("1 2 0:3 / /mnt ro - fuse restic ro", None);
        check("1 2 0:3 / /mnt ro - ext4 vault ro", None);
        check("", None);
    }
}
