//! Finds why a file on the disk is left out of snapshots: the rule that decides about it, on the way from the root down to it.

use std::io;
use std::path::Path;

use crate::engine::patterns::exclude::{ExcludeOptions, Rules};
use crate::engine::patterns::gitignore::numbered;
use crate::engine::snapshot::walk::{IGNORE_FILE_MAX, marker};
use crate::fs::{Dir, Names};
use crate::path::{components, join};
use crate::text;
use crate::tree::FileKind;
use crate::tree::entry::flags;

/// The decision about a file when its root is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is included.
    Taken,
    /// It does not exist, and no rule decides before that.
    Absent,
    /// A pattern leaves out the file or a folder above it.
    Pattern {
        /// The pattern.
        pattern: String,
        /// The folder below the root that has the ignore file; `None` if the pattern was given for the root.
        file_in: Option<Vec<u8>>,
        /// The path that it matches, below the root.
        matched: Vec<u8>,
    },
    /// The content of a folder above it is left out because of a file in that folder.
    Marked {
        /// The folder, below the root.
        folder: Vec<u8>,
        /// The name of the file.
        marker: Vec<u8>,
    },
    /// It is larger than this many bytes.
    Large(u64),
    /// It has the nodump flag.
    NoDump {
        /// The item with the flag, below the root.
        matched: Vec<u8>,
    },
    /// A folder on the way is on another file system.
    OtherFileSystem {
        /// The folder, below the root.
        folder: Vec<u8>,
    },
    /// It is in one of the vault's own folders.
    OfVault {
        /// The folder, below the root.
        folder: Vec<u8>,
    },
}

/// Determines how these rules decide about the file with the path `below` a root. `own` are folders of the vault, by device and inode
/// number.
///
/// # Errors
/// If a folder on the way cannot be read, or a pattern given for the root is not valid.
pub fn why(root: &Path, below: &[u8], options: &ExcludeOptions, own: &[(u64, u64)]) -> io::Result<Why> {
    let mut rules = Rules::new(&options.patterns, root).map_err(io::Error::other)?;
    let mut dir = Dir::open(root)?;
    let root_dev = dir.stat()?.dev;
    // The ignore files on the way: the length of the path of its folder, and its content.
    let mut files: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut path = Vec::new();
    let mut parts = components(below).peekable();
    while let Some(name) = parts.next() {
        let mut names = Names::new();
        dir.names(&mut names)?;
        if let Some(marker) = marker(options, &names, &dir)
            && (name != marker || parts.peek().is_some())
        {
            return Ok(Why::Marked { folder: path, marker });
        }
        if let Some(file) = &options.ignore_file
            && let Some(content) = dir.read_small(file, IGNORE_FILE_MAX)?
            && let Ok(inner) = rules.with_file(&content, &path)
        {
            files.push((if path.is_empty() { 0 } else { path.len() + 1 }, content));
            rules = inner;
        }
        path = join(&path, name);
        let stat = match dir.stat_at(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Why::Absent),
            stat => stat?,
        };
        let is_folder = stat.kind == FileKind::Directory;
        if is_folder && own.contains(&(stat.dev, stat.ino)) {
            return Ok(Why::OfVault { folder: path });
        }
        if let Some(limit) = options.larger_than.filter(|limit| stat.kind == FileKind::File && stat.size > *limit) {
            return Ok(Why::Large(limit));
        }
        if options.nodump && stat.flags & flags::NODUMP != 0 {
            return Ok(Why::NoDump { matched: path });
        }
        if let Some((decision, skip)) = rules.decide(&path, is_folder)
            && decision.excluded
        {
            let of_file = files.iter().find(|(len, _)| Some(*len) == skip);
            let pattern = match of_file {
                Some((_, content)) => pattern_in(content, decision.number),
                None => numbered(&options.patterns, decision.number).map(|pattern| pattern.as_bytes().to_vec()),
            };
            let pattern = String::from_utf8_lossy(&pattern.unwrap_or_default()).into_owned();
            let file_in = of_file.map(|(len, _)| path[..len.saturating_sub(1)].to_vec());
            return Ok(Why::Pattern { pattern, file_in, matched: path });
        }
        if parts.peek().is_some() {
            if !is_folder {
                return Ok(Why::Absent);
            }
            dir = dir.open_dir(name)?;
            if options.one_file_system && dir.stat()?.dev != root_dev {
                return Ok(Why::OtherFileSystem { folder: path });
            }
        }
    }
    Ok(Why::Taken)
}

/// The pattern with a number in an ignore file.
fn pattern_in(content: &[u8], number: u32) -> Option<Vec<u8>> {
    numbered(text::lines(text::content(content).ok()?), number).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pattern(pattern: &str, file_in: Option<&str>, matched: &str) -> Why {
        let file_in = file_in.map(|folder| folder.as_bytes().to_vec());
        Why::Pattern { pattern: pattern.to_owned(), file_in, matched: matched.as_bytes().to_vec() }
    }

    #[test]
    fn the_rule_that_decides_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (path, text) in [
            ("a/x.tmp", "1"),
            ("a/keep.tmp", "1"),
            ("a/.vaultignore", "# remark\n\n!keep.tmp\n/only\n"),
            ("a/only/deep/file", "1"),
            ("big", "12345"),
            ("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n"),
            ("cache/file", "1"),
            ("marked/.nobackup", ""),
            ("marked/file", "1"),
            ("own/file", "1"),
            ("plain", "1"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let options = ExcludeOptions {
            patterns: vec!["# no pattern".to_owned(), "*.o".to_owned(), "*.tmp".to_owned()],
            ignore_file: Some(b".vaultignore".to_vec()),
            caches: true,
            if_present: vec![b".nobackup".to_vec()],
            larger_than: Some(100),
            one_file_system: true,
            nodump: true,
        };
        let own = Dir::open(&root.join("own")).unwrap().stat().unwrap();
        let options_of_large = ExcludeOptions { larger_than: Some(4), ..options.clone() };
        let why = |path: &str| why(root, path.as_bytes(), &options, &[(own.dev, own.ino)]).unwrap();
        assert_eq!(why("plain"), Why::Taken);
        assert_eq!(why("a/keep.tmp"), Why::Taken);
        assert_eq!(why("nothing/here"), Why::Absent);
        assert_eq!(why("a/x.tmp"), pattern("*.tmp", None, "a/x.tmp"));
        assert_eq!(why("a/only/deep/file"), pattern("/only", Some("a"), "a/only"));
        assert_eq!(why("cache/file"), Why::Marked { folder: b"cache".to_vec(), marker: b"CACHEDIR.TAG".to_vec() });
        assert_eq!(why("marked/file"), Why::Marked { folder: b"marked".to_vec(), marker: b".nobackup".to_vec() });
        assert_eq!(why("marked/.nobackup"), Why::Taken);
        assert_eq!(why("own/file"), Why::OfVault { folder: b"own".to_vec() });
        assert_eq!(super::why(root, b"big", &options_of_large, &[]).unwrap(), Why::Large(4));
    }
}
