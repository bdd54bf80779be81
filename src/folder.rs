//! Contents of a folder of this machine, for callers that read it once and do not keep it open. The standard library's
//! own function panics if closing the folder fails.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

/// Type of a folder's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// Anything else, including links.
    Other,
}

impl Type {
    /// Whether it is a regular file.
    pub const fn is_file(self) -> bool {
        matches!(self, Self::File)
    }

    /// Whether it is a folder.
    pub const fn is_dir(self) -> bool {
        matches!(self, Self::Folder)
    }
}

impl From<std::fs::FileType> for Type {
    fn from(found: std::fs::FileType) -> Self {
        if found.is_file() {
            Self::File
        } else if found.is_dir() {
            Self::Folder
        } else {
            Self::Other
        }
    }
}

/// An entry of a folder.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    /// The type according to the folder, if it tells.
    told: Option<Type>,
}

impl Entry {
    /// The folder's path and the name.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The name.
    pub fn file_name(&self) -> OsString {
        self.path.file_name().map(OsString::from).unwrap_or_default()
    }

    /// The type, without following a link. The system is asked only if the folder does not tell.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn file_type(&self) -> io::Result<Type> {
        match self.told {
            Some(told) => Ok(told),
            None => self.metadata().map(|found| found.file_type().into()),
        }
    }

    /// The metadata, without following a link.
    ///
    /// # Errors
    /// If the system does not tell; also if the entry was deleted since the folder was read.
    pub fn metadata(&self) -> io::Result<Metadata> {
        std::fs::symlink_metadata(&self.path)
    }
}

/// Entries of a folder, in no particular order. An error in the middle is the last item.
///
/// # Errors
/// If it is no folder, or cannot be read.
#[cfg(unix)]
pub fn entries(folder: impl AsRef<Path>) -> io::Result<std::vec::IntoIter<io::Result<Entry>>> {
    use std::os::unix::ffi::OsStrExt;

    use rustix::fs::{Mode, OFlags};

    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = folder.as_ref();
    let opened = rustix::fs::open(folder, flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::new(opened)? {
        match entry {
            Ok(entry) => match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => {
                    let told = match entry.file_type() {
                        rustix::fs::FileType::RegularFile => Some(Type::File),
                        rustix::fs::FileType::Directory => Some(Type::Folder),
                        rustix::fs::FileType::Unknown => None,
                        _ => Some(Type::Other),
                    };
                    found.push(Ok(Entry { path: folder.join(std::ffi::OsStr::from_bytes(name)), told }));
                }
            },
            Err(error) => {
                found.push(Err(error.into()));
                break;
            }
        }
    }
    Ok(found.into_iter())
}

/// Entries of a folder, in no particular order.
///
/// # Errors
/// If it is no folder, or cannot be read.
#[cfg(not(unix))]
pub fn entries(folder: impl AsRef<Path>) -> io::Result<std::vec::IntoIter<io::Result<Entry>>> {
    let known = |entry: std::fs::DirEntry| Entry { path: entry.path(), told: entry.file_type().ok().map(Type::from) };
    let found = std::fs::read_dir(folder)?.map(|entry| entry.map(known));
    Ok(found.collect::<Vec<_>>().into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_lies_in_a_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b c"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("d")).unwrap();
        let mut found: Vec<(OsString, bool)> = entries(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), entry.file_type().unwrap().is_dir()))
            .collect();
        found.sort();
        assert_eq!(found, [("a".into(), false), ("b c".into(), false), ("d".into(), true)]);
        // The type from the folder is known even after the entry was deleted.
        let read = entries(folder.path()).unwrap().map(Result::unwrap).find(|entry| entry.file_name() == "a").unwrap();
        std::fs::remove_file(folder.path().join("a")).unwrap();
        assert!(read.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        assert!(entries(folder.path().join("b c")).is_err());
        assert_eq!(entries(folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
