//! Files and folders that only their owner can read, and that are whole or not there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Makes a folder, with all that leads to it, that only this user can read. One that is there stays as it is.
///
/// # Errors
/// What the system says.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file that only this user can read, so that after any crash it is the old one or the new one.
///
/// # Errors
/// What the system says; then the old one is there as before.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        // A file that a crash left behind is not believed: it may be readable to others.
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
        // What was left behind, and what was there, may be readable to all.
        std::fs::write(below.join("key.new"), "old").unwrap();
        std::fs::write(&file, "old").unwrap();
        replace_private_file(&file, b"secret").unwrap();
        assert_eq!((mode(&file), std::fs::read(&file).unwrap().as_slice()), (0o600, &b"secret"[..]));
        assert!(!below.join("key.new").exists());
        assert!(replace_private_file(&below.join("missing/key"), b"x").is_err());
    }
}
