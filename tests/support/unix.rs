//! Unix functions for the tests.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use vault::tree::FileKind;

/// Names that programs stumble over.
pub const ODD_NAMES: &[&[u8]] =
    &[b"\xff\xfe not UTF-8", b"new\nline", b"-rf", b" ", b"*?[a]", b"\xc3\xa9 and e\xcc\x81", b"...", b"\x01\x1b[31m"];

/// Properties of a file, as the system reports them.
pub struct Facts {
    /// Kind of the file.
    pub kind: FileKind,
    /// Permissions and the bits above them.
    pub mode: u32,
    /// Numbers of user and group.
    pub owner: (u32, u32),
    /// Numbers of a device.
    pub device: Option<(u32, u32)>,
    /// Extended attributes, sorted.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Identity of the file, if it has several names.
    pub file: Option<(u64, u64)>,
}

/// Properties of a file, as the system reports them.
pub fn facts(path: &Path, meta: &Metadata) -> Facts {
    let file_type = meta.file_type();
    let kind = if file_type.is_dir() {
        FileKind::Directory
    } else if file_type.is_symlink() {
        FileKind::Symlink
    } else if file_type.is_fifo() {
        FileKind::Fifo
    } else if file_type.is_socket() {
        FileKind::Socket
    } else if file_type.is_char_device() {
        FileKind::CharDevice
    } else if file_type.is_block_device() {
        FileKind::BlockDevice
    } else {
        FileKind::File
    };
    let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    let rdev = meta.rdev();
    Facts {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        device: is_device.then(|| (rustix::fs::major(rdev), rustix::fs::minor(rdev))),
        xattrs: xattrs(path),
        target: if kind == FileKind::Symlink {
            fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        },
        file: (kind != FileKind::Directory && meta.nlink() > 1).then(|| (meta.dev(), meta.ino())),
    }
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 1 << 16];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names[..]) else { return Vec::new() };
    let names = &names[..len];
    let mut out: Vec<(Vec<u8>, Vec<u8>)> = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect();
    out.sort();
    out
}

/// Opens a file or folder to set its times.
pub fn open_to_touch(path: &Path) -> File {
    File::open(path).unwrap()
}

/// Writes at a position.
pub fn write_all_at(file: &File, bytes: &[u8], at: u64) {
    file.write_all_at(bytes, at).unwrap();
}

/// Sets an extended attribute, if the file system has them.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let _ = rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty());
}

/// Makes a named pipe.
pub fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// Adds files that only Unix has to a planted folder.
pub fn plant_special(folder: &Path) {
    symlink("folder 0/file 1.bin", folder.join("link to a file")).unwrap();
    symlink("folder 1", folder.join("link to a folder")).unwrap();
    symlink("/nowhere/at all", folder.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"../\xff\n"), folder.join("odd target")).unwrap();
    fs::hard_link(folder.join("folder 0/file 2.bin"), folder.join("folder 1/another name")).unwrap();
    fs::hard_link(folder.join("folder 0/file 2.bin"), folder.join("a third name")).unwrap();
    fs::hard_link(folder.join("folder 2/file 0.bin"), folder.join("empty, too")).unwrap();
    fifo(&folder.join("pipe"));
    // Only root can read files without read rights.
    let closed = if rustix::process::geteuid().is_root() { 0o000 } else { 0o400 };
    for (file, mode) in [("folder 0/file 0.bin", 0o4755), ("folder 1/file 1.bin", closed), ("folder 2/empty", 0o1777)] {
        fs::set_permissions(folder.join(file), fs::Permissions::from_mode(mode)).unwrap();
    }
    set_xattr(&folder.join("folder 3/file 3.bin"), "user.note", b"\x00\xff");
    set_xattr(&folder.join("folder 3"), "user.folder", b"x");
}
