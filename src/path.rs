//! Names and paths as bytes: the files of a user need not be text (SPEC §7).

use std::fmt;

use crate::limits::NAME_LEN_MAX;

/// Why some bytes cannot be the name of one path component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The empty name.
    #[error("the name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("the name is '.' or '..'")]
    Dots,
    /// It contains `/` or a zero byte.
    #[error("the name contains a separator or a zero byte")]
    Separator,
    /// It is longer than [`NAME_LEN_MAX`] bytes.
    #[error("the name is too long")]
    TooLong,
}

/// Whether `name` can be one component of a path on any system this format was made for. What a particular target
/// system forbids beyond this is checked when it is restored there.
pub fn check_name(name: &[u8]) -> Result<(), NameError> {
    match name {
        b"" => Err(NameError::Empty),
        b"." | b".." => Err(NameError::Dots),
        _ if name.len() > NAME_LEN_MAX => Err(NameError::TooLong),
        _ if name.iter().any(|&byte| byte == b'/' || byte == 0) => Err(NameError::Separator),
        _ => Ok(()),
    }
}

/// The components of a `/`-separated path inside a snapshot; empty ones and `.` are passed over.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// The bytes of a name that the system gave.
#[cfg(unix)]
pub fn from_os(name: &std::ffi::OsStr) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    name.as_bytes().to_vec()
}

/// The bytes of a name that the system gave. Names that are not Unicode are kept as well as text can keep them.
#[cfg(not(unix))]
pub fn from_os(name: &std::ffi::OsStr) -> Vec<u8> {
    name.to_string_lossy().into_owned().into_bytes()
}

/// `parent/name`, or just `name` where the parent is empty.
pub fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    if !parent.is_empty() && !parent.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Shows bytes as text that is safe on a terminal: control characters, bytes that are not UTF-8, and characters that
/// change the writing direction are escaped as `\xNN` or `\u{N}`.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                match c {
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                        write!(f, "\\u{{{:x}}}", c as u32)?;
                    }
                    c if c.is_control() => write!(f, "\\x{:02x}", c as u32)?,
                    c => write!(f, "{c}")?,
                }
            }
            part.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        let long = vec![b'a'; NAME_LEN_MAX + 1];
        for (name, expected) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::Separator),
            (b"/", NameError::Separator),
            (b"a\0", NameError::Separator),
            (&long, NameError::TooLong),
        ] {
            assert_eq!(check_name(name), Err(expected), "{}", Shown(name));
        }
        for name in [&b"a"[..], b"...", b" ", b"\xff\xfe", b"new\nline", &long[..255]] {
            assert_eq!(check_name(name), Ok(()));
        }
    }

    #[test]
    fn shown_names_cannot_drive_a_terminal() {
        assert_eq!(Shown(b"a\x1b[31m\xff\n\xe2\x80\xae").to_string(), "a\\x1b[31m\\xff\\n\\u{202e}");
    }

    #[test]
    fn paths_split_and_join() {
        assert_eq!(components(b"/a//b/./c/").collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(join(b"", b"a"), b"a");
        assert_eq!(join(b"a", b"b"), b"a/b");
        assert_eq!(join(b"/", b"b"), b"/b");
    }
}
