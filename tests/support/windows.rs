//! Windows functions for the tests.

use std::fs::{self, File, Metadata, OpenOptions};
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use vault::tree::FileKind;

/// Names that programs stumble over.
pub const ODD_NAMES: &[&[u8]] =
    &[b"-rf", b" first", b"%TEMP%", b"[a]^", b"\xc3\xa9 and e\xcc\x81", b"\xf0\x9f\x98\x80"];

/// Properties of a file, as the system reports them.
pub struct Facts {
    /// Kind of the file.
    pub kind: FileKind,
    /// Whether it is writable, as a mode.
    pub mode: u32,
    /// Always empty here.
    pub owner: (u32, u32),
    /// Always empty here.
    pub device: Option<(u32, u32)>,
    /// Always empty here.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// The standard library does not report it.
    pub file: Option<(u64, u64)>,
}

/// Properties of a file, as the system reports them.
pub fn facts(path: &Path, meta: &Metadata) -> Facts {
    let (kind, mode) = match (meta.is_dir(), meta.is_symlink()) {
        (true, _) => (FileKind::Directory, 0o755),
        (_, true) => (FileKind::Symlink, if path.is_dir() { 0o777 } else { 0o666 }),
        _ => (FileKind::File, if meta.permissions().readonly() { 0o444 } else { 0o644 }),
    };
    let target = fs::read_link(path).map_or_else(|_| Vec::new(), |target| vault::path::from_path(&target));
    Facts { kind, mode, owner: (0, 0), device: None, xattrs: Vec::new(), target, file: None }
}

/// Opens a file or folder to set its times.
pub fn open_to_touch(path: &Path) -> File {
    let (write_attributes, backup_semantics) = (0x100, 0x0200_0000);
    OpenOptions::new().access_mode(write_attributes).custom_flags(backup_semantics).open(path).unwrap()
}

/// Writes at a position.
pub fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) {
    while !bytes.is_empty() {
        let written = file.seek_write(bytes, at).unwrap();
        bytes = &bytes[written..];
        at += written as u64;
    }
}

/// Adds read-only files to a planted folder.
pub fn plant_special(folder: &Path) {
    for file in ["folder 0/file 0.bin", "folder 1/file 1.bin"] {
        super::source::set_readonly(&folder.join(file), true);
    }
}
