//! Asking the system about a file.

use std::io;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, fstat, major, minor, statat};
#[cfg(target_os = "linux")]
use rustix::fs::{Statx, StatxAttributes, StatxFlags, StatxTimestamp, makedev, statx};
#[cfg(target_os = "linux")]
use rustix::io::Errno;

use crate::fs::Stat;
#[cfg(target_os = "linux")]
use crate::tree::entry::flags;
use crate::tree::{FileKind, Time};

/// The properties requested in one call.
#[cfg(target_os = "linux")]
const ASKED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

/// Properties of an open file.
pub(super) fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    #[cfg(target_os = "linux")]
    match statx(&fd, c"", AtFlags::EMPTY_PATH, ASKED) {
        Err(Errno::NOSYS) => {}
        result => return from_statx(&result?),
    }
    from_stat(&fstat(fd)?)
}

/// Properties of `name` in a directory, without following a link or triggering a mount.
pub(super) fn stat_at(dir: impl AsFd, name: &[u8]) -> io::Result<Stat> {
    #[cfg(target_os = "linux")]
    match statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, ASKED) {
        // Linux before 4.11, and some sandboxes.
        Err(Errno::NOSYS) => {}
        result => return from_statx(&result?),
    }
    from_stat(&statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The kind for the system's own type.
pub(super) fn kind_of(file_type: FileType) -> Option<FileKind> {
    Some(match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => return None,
    })
}

fn known_kind(raw_mode: u32) -> io::Result<FileKind> {
    kind_of(FileType::from_raw_mode(raw_mode as rustix::fs::RawMode))
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "an unknown kind of file"))
}

#[cfg(target_os = "linux")]
fn from_statx(stat: &Statx) -> io::Result<Stat> {
    let time = |time: StatxTimestamp| Time { secs: time.tv_sec, nanos: time.tv_nsec };
    let kind = known_kind(u32::from(stat.stx_mode))?;
    let attributes = stat.stx_attributes;
    let flags = [
        (StatxAttributes::IMMUTABLE, flags::IMMUTABLE),
        (StatxAttributes::APPEND, flags::APPEND),
        (StatxAttributes::NODUMP, flags::NODUMP),
        (StatxAttributes::COMPRESSED, flags::COMPRESSED),
    ]
    .into_iter()
    .filter(|&(attribute, _)| attributes.contains(attribute))
    .fold(0, |flags, (_, flag)| flags | flag);
    Ok(Stat {
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: if kind == FileKind::File { stat.stx_size } else { 0 },
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        btime: (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| time(stat.stx_btime)),
        dev: makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        nlink: u64::from(stat.stx_nlink),
        device: match kind {
            FileKind::CharDevice | FileKind::BlockDevice => (stat.stx_rdev_major, stat.stx_rdev_minor),
            _ => (0, 0),
        },
        blocks: stat.stx_blocks,
        flags,
        mount_root: attributes.contains(StatxAttributes::MOUNT_ROOT),
        mount: if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 { stat.stx_mnt_id } else { 0 },
    })
}

/// Converts the older structure, without file flags: macOS has others, and old Linux would need an open file for them.
#[allow(clippy::unnecessary_cast, clippy::cast_lossless, clippy::cast_sign_loss)] // types differ between systems
fn from_stat(stat: &rustix::fs::Stat) -> io::Result<Stat> {
    let kind = known_kind(stat.st_mode as u32)?;
    #[cfg(target_os = "macos")]
    let btime = Some(Time { secs: stat.st_birthtime as i64, nanos: stat.st_birthtime_nsec as u32 });
    #[cfg(not(target_os = "macos"))]
    let btime = None;
    Ok(Stat {
        kind,
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == FileKind::File { stat.st_size as u64 } else { 0 },
        mtime: Time { secs: stat.st_mtime as i64, nanos: stat.st_mtime_nsec as u32 },
        ctime: Time { secs: stat.st_ctime as i64, nanos: stat.st_ctime_nsec as u32 },
        btime,
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        nlink: stat.st_nlink as u64,
        device: match kind {
            FileKind::CharDevice | FileKind::BlockDevice => (major(stat.st_rdev), minor(stat.st_rdev)),
            _ => (0, 0),
        },
        blocks: stat.st_blocks as u64,
        flags: 0,
        mount_root: false,
        mount: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_call_tells_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("file")).unwrap();
        file.set_len(12345).unwrap();
        let new = stat_fd(&file).unwrap();
        let old = from_stat(&fstat(&file).unwrap()).unwrap();
        assert_eq!(Stat { btime: None, mount: 0, ..new }, old);
    }
}
