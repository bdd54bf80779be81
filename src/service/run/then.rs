//! The action after a run: ejecting disks, switching the machine off, putting it to sleep, or running a command.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use crate::failure::{Exit, Failure};
use crate::progress::plain;
use crate::service::machine::Machine;

/// Whether to perform the action: after a failure only if that was asked for, and never after an interruption.
pub(super) fn is_wanted(exit: Exit, always: bool) -> bool {
    match exit {
        Exit::Done | Exit::Skipped => true,
        Exit::Failed | Exit::Damage | Exit::Unreachable | Exit::WrongPassword => always,
        Exit::Usage | Exit::Panic | Exit::Interrupted => false,
    }
}

/// Performs the action, and waits for it. `removable` are the folders of vaults on removable disks.
pub(super) fn act(action: &str, exit: Exit, removable: &[&Path], machine: &dyn Machine) -> Result<(), Failure> {
    if action == "eject" {
        return eject(removable, machine);
    }
    let mut command = match action {
        "shutdown" => system(machine, SHUTDOWN),
        "suspend" => system(machine, SUSPEND),
        _ => machine.shell(action.as_ref()),
    };
    command.env("VAULT_EXIT_CODE", (exit as u8).to_string()).stdin(Stdio::null()).stdout(std::io::stderr());
    let failed = |what: String| Failure::new(format!("--then {action}: {what}")).hint("Everything before it was done.");
    let status = command.status().map_err(|error| failed(format!("it cannot be started: {}", plain(&error))))?;
    if status.success() { Ok(()) } else { Err(failed(format!("it failed: {status}"))) }
}

/// Ejects the disks of vaults. A folder that does not exist is skipped: its disk is already gone.
fn eject(removable: &[&Path], machine: &dyn Machine) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(format!("--then eject: {what}")).hint("Everything before it was done.");
    if removable.is_empty() {
        return Err(failed("no vault of this run is on a disk that may be taken out".to_owned())
            .hint("Say so in its section of the configuration: removable = true"));
    }
    let there = removable.iter().filter_map(|folder| fs::canonicalize(folder).ok());
    let mut words: Vec<Vec<String>> = Vec::new();
    for folder in there {
        let shown = folder.display();
        let disk = disk_of(&folder).ok_or_else(|| failed(format!("{shown} is not on a disk that can be ejected")))?;
        words.extend(disk.into_iter().filter(|line| !words.contains(line)).collect::<Vec<_>>());
    }
    for line in &words {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let mut command = system(machine, &words);
        command.stdin(Stdio::null()).stdout(std::io::stderr());
        let status = command.status();
        let status = status.map_err(|error| failed(format!("{} cannot be started: {}", words[0], plain(&error))))?;
        if !status.success() {
            return Err(failed(format!("{}: {status}", words.join(" "))));
        }
    }
    Ok(())
}

/// The commands that eject the disk of a folder; `None` if the disk cannot be ejected.
#[cfg(target_os = "linux")]
fn disk_of(folder: &Path) -> Option<Vec<Vec<String>>> {
    let table = crate::ownfile::read(Path::new("/proc/self/mountinfo")).ok()?;
    let device = device_of(&table, folder)?;
    let line = |what: &str| ["udisksctl", what, "--no-user-interaction", "--block-device", &device].map(str::to_owned);
    Some(["unmount", "power-off"].into_iter().map(|what| line(what).to_vec()).collect())
}

/// The command that ejects the disk of a folder. On macOS, each disk is a folder below `/Volumes`.
#[cfg(target_os = "macos")]
fn disk_of(folder: &Path) -> Option<Vec<Vec<String>>> {
    let name = folder.strip_prefix("/Volumes").ok()?.components().next()?;
    let disk = Path::new("/Volumes").join(name).to_str()?.to_owned();
    Some(vec![vec!["diskutil".to_owned(), "eject".to_owned(), disk]])
}

/// Always `None`: no way to eject a disk is known on this system.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn disk_of(_: &Path) -> Option<Vec<Vec<String>>> {
    None
}

/// The device that a folder is on, according to the system's mount table; `None` for the device of `/`, which is never
/// ejected.
#[cfg(any(target_os = "linux", test))]
fn device_of(table: &[u8], folder: &Path) -> Option<String> {
    let field = |text: &str| -> PathBuf {
        let parts = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
        PathBuf::from(parts)
    };
    let text = String::from_utf8_lossy(table);
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        Some((field(before.split(' ').nth(4)?), after.split(' ').nth(1)?.to_owned()))
    };
    // Of two mounts at the same point, only the later one is visible.
    let above = text.lines().filter_map(mount).filter(|(point, _)| folder.starts_with(point));
    let (point, device) = above.max_by_key(|(point, _)| point.components().count())?;
    (point != Path::new("/") && device.starts_with("/dev/")).then_some(device)
}

const SHUTDOWN: &[&str] = if cfg!(windows) {
    &["shutdown", "/s", "/t", "60"]
} else if cfg!(target_os = "macos") {
    &["osascript", "-e", "tell application \"System Events\" to shut down"]
} else {
    &["systemctl", "poweroff"]
};

const SUSPEND: &[&str] = if cfg!(windows) {
    &["rundll32.exe", "powrprof.dll,SetSuspendState", "0,1,0"]
} else if cfg!(target_os = "macos") {
    &["pmset", "sleepnow"]
} else {
    &["systemctl", "suspend"]
};

fn system(machine: &dyn Machine, words: &[&str]) -> Command {
    let mut command = machine.program(words[0]);
    command.args(&words[1..]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::machine::tests::Still;

    #[test]
    fn the_disk_of_a_folder_is_found_and_never_that_of_the_system() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:5 / /proc rw - proc proc rw\n\
            24 22 8:17 / /media/me/my\\040disk rw,nosuid shared:9 - vfat /dev/sdb1 rw\n\
            25 22 0:9 / /media/me rw - tmpfs tmpfs rw\n\
            26 24 8:33 / /media/me/my\\040disk/inner rw - ext4 /dev/sdc1 rw\n";
        let device = |folder: &str| device_of(table, Path::new(folder));
        assert_eq!(device("/media/me/my disk/vault").as_deref(), Some("/dev/sdb1"));
        assert_eq!(device("/media/me/my disk/inner/vault").as_deref(), Some("/dev/sdc1"));
        assert_eq!(device("/media/me/my disk2/vault"), None, "what is in memory is no disk");
        assert_eq!((device("/home/me/vault"), device("/proc/x")), (None, None));
    }

    #[test]
    fn what_cannot_be_ejected_is_said() {
        assert!(eject(&[], &Still(&[])).unwrap_err().hint.unwrap().contains("removable = true"));
        assert!(eject(&[Path::new("/nowhere/vault")], &Still(&[])).is_ok(), "it is out already");
        let here = eject(&[Path::new("/")], &Still(&[])).unwrap_err();
        assert!(here.what.contains("not on a disk that can be ejected"), "{}", here.what);
    }

    #[test]
    fn nothing_follows_a_failure_unless_told() {
        for (exit, otherwise, always) in [
            (Exit::Done, true, true),
            (Exit::Skipped, true, true),
            (Exit::Failed, false, true),
            (Exit::Damage, false, true),
            (Exit::Interrupted, false, false),
        ] {
            assert_eq!((is_wanted(exit, false), is_wanted(exit, true)), (otherwise, always), "{exit:?}");
        }
    }
}
