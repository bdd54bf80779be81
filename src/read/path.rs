//! Finds what lies at a path of a snapshot.

use std::borrow::Borrow;

use crate::limits::PATH_DEPTH_MAX;
use crate::path;
use crate::tree::{Entry, FileKind, Stream};
use crate::vault::ReadError;

/// A folder on the way to a path that cannot be read.
#[derive(Debug)]
pub struct Unread {
    /// The folder's path.
    pub path: Vec<u8>,
    /// The error.
    pub error: ReadError,
}

/// The top folder of a snapshot, as an entry without a name.
pub fn top(tree: &Stream) -> Entry {
    let mut entry = Entry::new(Vec::new(), FileKind::Directory);
    entry.content = Some(tree.clone());
    entry
}

/// The entries on the way to `path`, from `top` (the folder where the path begins) to that of the path itself; `None` if
/// there is no such path, or it is deeper than any path of a vault. `entry` finds a name in a listing.
///
/// # Errors
/// If a folder on the way cannot be read.
pub fn way<E: Borrow<Entry>>(
    top: E,
    path: &[u8],
    mut entry: impl FnMut(&Stream, &[u8]) -> Result<Option<E>, ReadError>,
) -> Result<Option<Vec<E>>, Unread> {
    let mut found = vec![top];
    let mut at = Vec::new();
    for name in path::components(path) {
        let folder = found.last().map(Borrow::borrow).filter(|entry| entry.kind == FileKind::Directory);
        let listing = folder.and_then(|entry| entry.content.as_ref()).filter(|_| found.len() <= PATH_DEPTH_MAX);
        let Some(listing) = listing else { return Ok(None) };
        let next = match entry(listing, name) {
            Ok(next) => next,
            Err(error) => return Err(Unread { path: at, error }),
        };
        let Some(next) = next else { return Ok(None) };
        at = path::join(&at, name);
        found.push(next);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;

    /// A folder in which each folder holds itself, and a file.
    fn circle(listing: &Stream, name: &[u8]) -> Result<Option<Entry>, ReadError> {
        match name {
            b"folder" => Ok(Some(Entry { name: name.to_vec(), ..top(listing) })),
            b"file" => Ok(Some(Entry::new(name.to_vec(), FileKind::File))),
            b"broken" => Err(ReadError::Lost(ChunkId::new([7; 16]))),
            _ => Ok(None),
        }
    }

    fn find(path: &[u8]) -> Result<Option<Vec<Entry>>, Unread> {
        way(top(&Stream::EMPTY), path, circle)
    }

    #[test]
    fn a_way_ends_where_the_path_does() {
        let names =
            |path: &[u8]| find(path).unwrap().map(|way| way.into_iter().map(|entry| entry.name).collect::<Vec<_>>());
        assert_eq!(names(b""), Some(vec![b"".to_vec()]));
        assert_eq!(names(b"folder/file"), Some(vec![b"".to_vec(), b"folder".to_vec(), b"file".to_vec()]));
        assert_eq!(names(b"folder/other"), None);
        assert_eq!(names(b"file/folder"), None, "a file is no folder");
    }

    #[test]
    fn the_folder_that_cannot_be_read_is_named() {
        assert_eq!(find(b"folder/folder/broken/file").unwrap_err().path, b"folder/folder");
    }

    #[test]
    fn no_path_is_deeper_than_a_vault_has() {
        let deep = |depth: usize| vec!["folder"; depth].join("/").into_bytes();
        assert_eq!(find(&deep(PATH_DEPTH_MAX)).unwrap().map(|way| way.len()), Some(PATH_DEPTH_MAX + 1));
        assert!(find(&deep(PATH_DEPTH_MAX + 1)).unwrap().is_none());
    }
}
