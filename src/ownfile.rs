//! Reads the small files that the program keeps for itself, without ever blocking: anything else in their place, such
//! as a pipe, counts as a file that cannot be read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

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

/// Reads a file.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a text file, which must be UTF-8.
///
/// # Errors
/// As [`open`].
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

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
        let file = folder.path().join("file");
        drop(open_lock(&file).unwrap());
        std::fs::write(&file, "text").unwrap();
        drop(open_lock(&file).unwrap());
        assert_eq!(read_text(&file).unwrap(), "text");
    }
}
