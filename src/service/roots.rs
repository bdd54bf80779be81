//! Turns typed paths into the roots of a snapshot: absolute paths, their names, and lists of files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use crate::path::from_path;
use crate::path::plain;
use crate::path::to_path;

/// The bytes of a path or a word that was typed, with `/` between components on every system.
pub fn bytes_of(text: &OsStr) -> Vec<u8> {
    from_path(Path::new(text))
}

/// The path made of these bytes.
pub fn path_of(bytes: &[u8]) -> PathBuf {
    to_path(bytes).into_owned()
}

/// The absolute form of a path, without `.` and `..`. Symbolic links are not followed: `a/..` is taken as written.
pub fn absolute(current: &Path, path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in plain(current.join(path)).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop(); // at the top, `..` leads to the top, as on any system
            }
            other => out.push(other),
        }
    }
    out
}

/// A root: its name in the snapshot's top folder, and its path on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRoot {
    /// The last component of the path; `root` for `/`.
    pub name: Vec<u8>,
    /// The absolute path.
    pub path: PathBuf,
}

/// Gives each path a unique name: its last component, with `~2`, `~3` appended if several have the same. A path that is
/// given twice is used once.
pub fn name_roots(paths: &[PathBuf], taken: &mut BTreeSet<Vec<u8>>) -> Vec<NamedRoot> {
    let mut seen = BTreeSet::new();
    let mut roots = Vec::new();
    for path in paths {
        if !seen.insert(path.clone()) {
            continue;
        }
        let base = path.file_name().map_or_else(|| drive_name(path), bytes_of);
        roots.push(NamedRoot { name: free_name(&base, taken), path: path.clone() });
    }
    roots
}

/// Takes the name, or the first of `name~2`, `name~3`, ... that is not in `taken`, and adds it to `taken`.
pub fn free_name(base: &[u8], taken: &mut BTreeSet<Vec<u8>>) -> Vec<u8> {
    let mut name = base.to_vec();
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = [base, format!("~{number}").as_bytes()].concat();
        number += 1;
    }
    name
}

/// A name for the top of a file system: `root`, or the letter of the drive.
fn drive_name(path: &Path) -> Vec<u8> {
    match path.components().next() {
        Some(Component::Prefix(prefix)) => {
            let text = prefix.as_os_str().to_string_lossy();
            text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().into_bytes()
        }
        _ => b"root".to_vec(),
    }
}

/// The paths in a list, separated by newlines or zero bytes. Empty paths are left out.
pub fn split_list(bytes: &[u8], zero: bool) -> Vec<PathBuf> {
    let parts = bytes.split(|&byte| byte == if zero { 0 } else { b'\n' });
    parts
        .map(|part| if zero { part } else { part.strip_suffix(b"\r").unwrap_or(part) })
        .filter(|part| !part.is_empty())
        .map(path_of)
        .collect()
}

/// A list of paths as one root: the deepest folder that contains them all, and the paths below it.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// The folder.
    pub folder: PathBuf,
    /// The selected paths below the folder, sorted; a path below another one is covered by it. `None`: everything.
    pub only: Option<Vec<Vec<u8>>>,
}

/// Groups absolute paths; `None` if there are none.
pub fn group(paths: &[PathBuf]) -> Option<Group> {
    let mut parents = paths.iter().map(|path| path.parent().unwrap_or(path));
    let mut folder = parents.next()?.to_path_buf();
    for parent in parents {
        while !parent.starts_with(&folder) && folder.pop() {}
    }
    let mut only: Vec<Vec<u8>> = Vec::new();
    // In component order, a folder comes right before everything below it.
    for path in paths.iter().collect::<BTreeSet<_>>() {
        let Ok(below) = path.strip_prefix(&folder) else { continue };
        let below = bytes_of(below.as_os_str());
        if below.is_empty() {
            return Some(Group { folder, only: None });
        }
        let covered = only.last().is_some_and(|last| {
            below.strip_prefix(last.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        });
        if !covered {
            only.push(below);
        }
    }
    Some(Group { folder, only: Some(only) })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_as_written() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("b", "/cur/dir/b"),
            (".", "/cur/dir"),
            ("..", "/cur"),
            ("./a/../b//c/", "/cur/dir/b/c"),
            ("/../..", "/"),
            ("../../../x", "/x"),
        ] {
            assert_eq!(absolute(Path::new("/cur/dir"), Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn every_root_has_its_own_name() {
        let check = |paths: &[&str], expected: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            let names: Vec<_> = name_roots(&paths, &mut BTreeSet::new()).into_iter().map(|root| root.name).collect();
            assert_eq!(names, expected.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>());
        };
        check(&["/home/me/Documents", "/etc"], &["Documents", "etc"]);
        check(&["/"], &["root"]);
        check(&["/root", "/"], &["root", "root~2"]);
        check(&["/x/a", "/y/a", "/z/a", "/x/a"], &["a", "a~2", "a~3"]);
        check(&["/x/a", "/w/a~2", "/y/a"], &["a", "a~2", "a~3"]);
        check(&["/x/a", "/y/a", "/w/a~2"], &["a", "a~2", "a~2~2"]);
    }

    #[test]
    fn lists_are_split_into_exact_names() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(split_list(b"a\n\nb c\r\n d", false), paths(&["a", "b c", " d"]));
        assert_eq!(split_list(b"a\nb\0c\r\0\0", true), paths(&["a\nb", "c\r"]));
        assert_eq!(split_list(b"\xff\n", false), [path_of(b"\xff")]);
    }

    #[test]
    fn lists_become_one_folder_and_what_is_taken_of_it() {
        let check = |paths: &[&str], expected: Option<(&str, Option<&[&str]>)>| {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            let expected = expected.map(|(folder, only)| Group {
                folder: PathBuf::from(folder),
                only: only.map(|only| only.iter().map(|path| path.as_bytes().to_vec()).collect()),
            });
            assert_eq!(group(&paths), expected, "{paths:?}");
        };
        check(&[], None);
        check(&["/a/b/c"], Some(("/a/b", Some(&["c"]))));
        check(&["/a/b/d/e", "/a/b/c"], Some(("/a/b", Some(&["c", "d/e"]))));
        check(&["/a/b", "/a/b/c", "/a/b-c", "/a/b/d/e"], Some(("/a", Some(&["b", "b-c"]))));
        check(&["/a/x", "/b/y"], Some(("/", Some(&["a/x", "b/y"]))));
        check(&["/a", "/"], Some(("/", None)));
        check(&["/ab/x", "/a/x"], Some(("/", Some(&["a/x", "ab/x"]))));
    }
}
