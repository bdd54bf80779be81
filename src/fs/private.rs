//! Files and folders that only their owner can read, and that exist either whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Makes a folder, and its parents, that only this user can read. An existing one stays as it is.
///
/// # Errors
/// The error of the system.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file that only this user can read, so that after any crash it is either the old one or the new one.
///
/// # Errors
/// The error of the system; the old file then remains.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        // A leftover from a crash is not reused: it may be readable to others.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary); // there may be none
    }
    written
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_private_is_readable_to_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        make_private_folder(&below).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&below), 0o700);
        let file = below.join("key");
        // The leftover and the old file may be readable to all.
        std::fs::write(below.join("key.new"), "old").unwrap();
        std::fs::write(&file, "old").unwrap();
        replace_private_file(&file, b"secret").unwrap();
        assert_eq!((mode(&file), std::fs::read(&file).unwrap().as_slice()), (0o600, &b"secret"[..]));
        assert!(!below.join("key.new").exists());
        assert!(replace_private_file(&below.join("missing/key"), b"x").is_err());
    }
}
