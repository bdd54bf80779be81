//! The input of a snapshot before it is read: the named paths, exclusions, and files with lists of paths or patterns.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::failure::Failure;
use crate::ownfile;
use crate::path::Shown;
use crate::service::config::SourceConfig;
use crate::service::{local, roots};
use crate::text;

/// The length in bytes at which a list of paths or patterns is refused as a mistake.
const LIST_LEN_MAX: u64 = 1 << 30;

/// A path as it is shown.
pub fn shown(path: &Path) -> String {
    Shown(&roots::bytes_of(path.as_os_str())).to_string()
}

/// The kind of a special file in words; `None` for files and folders.
#[cfg(unix)]
pub fn special_kind(path: &Path) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = fs::metadata(path).ok()?.file_type();
    [
        (kind.is_fifo(), "a pipe"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device(), "a device"),
        (kind.is_block_device(), "a device"),
    ]
    .into_iter()
    .find_map(|(is, name)| is.then_some(name))
}

#[cfg(not(unix))]
pub fn special_kind(_: &Path) -> Option<&'static str> {
    None
}

/// Refuses a path of which only the existence would be kept. A user who names a pipe or a device wants its content.
pub fn refuse_special(path: &Path) -> Result<(), Failure> {
    let Some(kind) = special_kind(path) else { return Ok(()) };
    let failure = Failure::new(format!("{} is {kind}, not a file or a folder", shown(path)));
    Err(match kind {
        "a socket" => failure.hint("Nothing can be kept of a socket by itself. Name the folder that it lies in."),
        "a pipe" => failure
            .hint("To keep what comes out of it, give --read-special, or send it to standard input with --stdin NAME."),
        _ => failure.hint("To keep its content, give --read-special. To keep only that it is there, name its folder."),
    })
}

/// The absolute form of a path as it was written. If `..` follows a symbolic link, that form may lead to another folder
/// than the system would; then the system's path is returned.
pub fn absolute(current: &Path, path: &Path) -> Result<PathBuf, Failure> {
    let written = roots::absolute(current, path);
    if !path.components().any(|component| component == Component::ParentDir) {
        return Ok(written);
    }
    let failed = |error: io::Error| Failure::caused(format!("cannot find {}", shown(path)), &error);
    let real = fs::canonicalize(current.join(path)).map_err(failed)?;
    Ok(if fs::canonicalize(&written).is_ok_and(|same| same == real) { written } else { real })
}

/// The absolute form of a path that must exist.
pub fn existing(current: &Path, written: &Path) -> Result<PathBuf, Failure> {
    let path = absolute(current, written)?;
    match fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            local::refuse_remote(written, "what a snapshot keeps")?;
            Err(Failure::new(format!("there is no {}", shown(&path)))
                .hint("No snapshot was made: a missing path is never taken for an empty one."))
        }
        Err(error) => Err(Failure::caused(format!("cannot read {}", shown(&path)), &error)),
    }
}

/// The content of a file with a list.
pub fn read_list(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::caused(format!("cannot read the list {}", path.display()), &error);
    read_list_from(fs::File::open(path).map_err(failed)?, path)
}

/// The content of a list from another input. Errors call it `path`.
pub fn read_list_from(input: impl Read, path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::caused(format!("cannot read the list {}", path.display()), &error);
    ownfile::bounded(input, LIST_LEN_MAX).map_err(failed)
}

/// The text of a list, in a form that a person may have written.
pub fn text_of<'t>(file: &Path, bytes: &'t [u8]) -> Result<&'t [u8], Failure> {
    text::content(bytes).map_err(|error| Failure::caused(format!("cannot read the list {}", file.display()), &error))
}

/// The patterns in the bytes of this file, without empty lines and comments.
pub fn patterns(file: &Path, bytes: &[u8]) -> Result<Vec<String>, Failure> {
    let patterns = text::lines(text_of(file, bytes)?).filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    patterns
        .map(|line| String::from_utf8(line.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::new(format!("the file of patterns {} is not UTF-8", file.display())))
}

/// The exclusions of a configured source, with the patterns of its files.
pub fn exclude_of(source: &SourceConfig) -> Result<ExcludeOptions, Failure> {
    let mut exclude = source.exclude.clone();
    for file in &source.exclude_from {
        exclude.patterns.extend(patterns(file, &read_list(file)?)?);
    }
    Ok(exclude)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(existing(folder.path(), Path::new("gone")).unwrap_err().what.ends_with("/gone"));
        assert_eq!(existing(folder.path(), Path::new(".")).unwrap(), folder.path());
    }

    #[test]
    fn dots_after_a_link_lead_to_where_the_system_goes() {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", top.join("link")).unwrap();
        assert_eq!(absolute(&top, Path::new("a/b/..")).unwrap(), top.join("a"));
        assert_eq!(absolute(&top, Path::new("link/..")).unwrap(), top.join("a"));
        assert_eq!(absolute(&top, Path::new("link")).unwrap(), top.join("link"));
    }
}
