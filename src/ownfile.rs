//! The small files that the program keeps for itself. They are read without ever blocking, and never without a bound:
//! anything else in their place, such as a pipe or a file that fills the memory, counts as a file that cannot be read.
//! Only their owner can read them, and they are replaced as a whole. Whatever the program makes as root in a user's folder
//! belongs to that user.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Length of the longest file that is read whole if nothing smaller is said: many times that of any the program writes.
pub const LEN_MAX: u64 = 64 << 20;

/// Length up to which memory is taken before anything is read.
const LEN_AT_ONCE: u64 = 64 << 10;

/// Opens a file for reading. Only a regular file is opened: a pipe in its place would block for ever.
///
/// # Errors
/// The error of the system; [`io::ErrorKind::InvalidInput`] for anything but a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    open_regular(OpenOptions::new().read(true), path)
}

/// Opens a file for locking, and creates it if it is missing. Nothing is written.
///
/// # Errors
/// As [`open`].
pub fn open_lock(path: &Path) -> io::Result<File> {
    open_regular(OpenOptions::new().create(true).truncate(false).write(true), path)
}

/// Reads a file of at most [`LEN_MAX`].
///
/// # Errors
/// As [`open`]; [`io::ErrorKind::FileTooLarge`] for one that is longer.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, LEN_MAX)
}

/// Whether this error of reading a file says that nothing is there, rather than that it cannot be read.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Reads a text file, which must be UTF-8.
///
/// # Errors
/// As [`read`].
pub fn read_text(path: &Path) -> io::Result<String> {
    text_of(read(path)?)
}

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// As [`read`].
pub fn read_up_to(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    // A long file is not read to the bound first.
    if file.metadata()?.len() > max { Err(too_long()) } else { bounded(file, max) }
}

/// Reads a file that the user names, of at most `max` bytes. It may also be a pipe, as the shell makes them.
///
/// # Errors
/// As [`bounded`].
pub fn read_given(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    bounded(File::open(path)?, max)
}

/// The rest of an input, which has at most `max` bytes.
///
/// # Errors
/// The error of the system; [`io::ErrorKind::FileTooLarge`] if it is longer.
pub fn bounded(input: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fill(input, max, &mut bytes)?;
    Ok(bytes)
}

/// As [`bounded`], into an empty buffer. Up to 64 KiB it does not grow, which would leave copies behind.
///
/// # Errors
/// As [`bounded`].
pub fn fill(input: impl Read, max: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.reserve_exact(usize::try_from(max.min(LEN_AT_ONCE)).unwrap_or_default() + 1);
    input.take(max.saturating_add(1)).read_to_end(bytes)?;
    if bytes.len() as u64 > max {
        return Err(too_long());
    }
    Ok(())
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "it is too long")
}

/// These bytes as text.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if they are no UTF-8.
pub fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    match options.open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(no_file()),
        // A pipe without a reader cannot be opened for writing.
        Err(_) if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) => Err(no_file()),
        Err(error) => Err(error),
    }
}

/// Makes a folder, and its parents, that only this user can read. An existing one stays as it is.
///
/// # Errors
/// The error of the system.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let there = path.ancestors().find(|folder| folder.exists());
    builder.create(path)?;
    adopt(path, there);
    Ok(())
}

/// Makes a folder, and its parents, as any program would. As root, new folders belong to the owner of the folder in which
/// they are made.
///
/// # Errors
/// The error of the system.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let there = path.ancestors().find(|folder| folder.exists());
    std::fs::create_dir_all(path)?;
    adopt(path, there);
    Ok(())
}

/// As root, gives a new file to the owner of its folder, who could not change it otherwise.
pub fn hand_over(file: &Path) {
    // A name without a folder is in the current one.
    let folder = file.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    if let (Some(folder), Some(name)) = (folder, file.file_name()) {
        adopt(&folder.join(name), Some(folder));
    }
}

/// As root, gives what was made in the folder `there` to the owner of that folder: `path`, and the folders between.
#[cfg(unix)]
fn adopt(path: &Path, there: Option<&Path>) {
    use std::os::unix::fs::{MetadataExt, lchown};
    let Some((there, owner)) = there.and_then(|there| Some((there, std::fs::metadata(there).ok()?))) else { return };
    if rustix::process::geteuid().is_root() && owner.uid() != 0 {
        for made in path.ancestors().take_while(|folder| *folder != there) {
            // What stays root's is as usable as before.
            let _ = lchown(made, Some(owner.uid()), Some(owner.gid()));
        }
    }
}

#[cfg(not(unix))]
const fn adopt(_: &Path, _: Option<&Path>) {}

/// Replaces a file that only this user can read, so that after any crash it is either the old one or the new one.
///
/// # Errors
/// The error of the system; the old file then remains.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, true)
}

/// As [`replace_private_file`]. Only `durable` makes the new file survive a power cut.
///
/// # Errors
/// As [`replace_private_file`].
pub fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        // A leftover from a crash is not reused: it may be readable to others. A pipe would make us wait, and through a
        // link another file would be overwritten.
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
        if durable {
            file.sync_all()?;
        }
        hand_over(&temporary);
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) if durable && cfg!(unix) => File::open(folder)?.sync_all(),
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

    #[test]
    fn a_pipe_in_place_of_a_file_makes_nobody_wait() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for error in [
            open(&pipe).unwrap_err(),
            open_lock(&pipe).unwrap_err(),
            read(&pipe).unwrap_err(),
            read_text(folder.path()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        assert_eq!(read_given(folder.path(), 9).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let file = folder.path().join("file");
        drop(open_lock(&file).unwrap());
        std::fs::write(&file, "text").unwrap();
        drop(open_lock(&file).unwrap());
        assert_eq!(read_text(&file).unwrap(), "text");
    }

    #[test]
    fn no_file_is_read_beyond_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read_up_to(&file, 4).unwrap(), b"text");
        assert_eq!(read_given(&file, 4).unwrap(), b"text");
        // Longer than any memory.
        File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
        for error in [
            read(&file).unwrap_err(),
            read_text(&file).unwrap_err(),
            read_up_to(&file, 4).unwrap_err(),
            read_given(&file, 4).unwrap_err(),
            read_given(Path::new("/dev/zero"), 1 << 20).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::FileTooLarge, "it is too long"));
        }
        let mut secret = Vec::new();
        fill(io::repeat(1).take(LEN_AT_ONCE), LEN_AT_ONCE, &mut secret).unwrap();
        assert_eq!((secret.len() as u64, secret.capacity() as u64), (LEN_AT_ONCE, LEN_AT_ONCE + 1), "it did not grow");
    }
}
