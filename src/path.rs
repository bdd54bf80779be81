//! Names and paths as bytes: the files of a user need not be text (SPEC §7).

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use crate::limits::NAME_LEN_MAX;

/// Reason why some bytes cannot be the name of one path component.
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

/// Checks that `name` can be one component of a path on any system that this format is made for. Further restrictions
/// of a target system are checked when it is restored there.
pub fn check_name(name: &[u8]) -> Result<(), NameError> {
    match name {
        b"" => Err(NameError::Empty),
        b"." | b".." => Err(NameError::Dots),
        _ if name.len() > NAME_LEN_MAX => Err(NameError::TooLong),
        _ if name.iter().any(|&byte| byte == b'/' || byte == 0) => Err(NameError::Separator),
        _ => Ok(()),
    }
}

/// The components of a `/`-separated path inside a snapshot; empty ones and `.` are skipped.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// The bytes of a word or a name from the system.
#[cfg(unix)]
pub fn from_os(text: &OsStr) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(text).to_vec()
}

/// The bytes of a word or a name from the system: UTF-8, in which an unpaired half of a surrogate pair takes three
/// bytes, so that every name can be restored.
#[cfg(not(unix))]
pub fn from_os(text: &OsStr) -> Vec<u8> {
    #[cfg(windows)]
    return wide::to_bytes(std::os::windows::ffi::OsStrExt::encode_wide(text));
    #[cfg(not(windows))]
    text.to_string_lossy().into_owned().into_bytes()
}

/// A word or a name in the system's form; `None` if the system cannot have it.
#[cfg(unix)]
pub fn to_os(bytes: &[u8]) -> Option<Cow<'_, OsStr>> {
    Some(Cow::Borrowed(std::os::unix::ffi::OsStrExt::from_bytes(bytes)))
}

/// A word or a name in the system's form; `None` if the system cannot have it.
#[cfg(not(unix))]
pub fn to_os(bytes: &[u8]) -> Option<Cow<'_, OsStr>> {
    #[cfg(windows)]
    return wide::from_bytes(bytes).map(|wide| Cow::Owned(std::os::windows::ffi::OsStringExt::from_wide(&wide)));
    #[cfg(not(windows))]
    std::str::from_utf8(bytes).ok().map(|text| Cow::Borrowed(OsStr::new(text)))
}

/// The bytes of a path, with `/` between its components on every system.
pub fn from_path(path: &Path) -> Vec<u8> {
    let mut bytes = from_os(path.as_os_str());
    if MAIN_SEPARATOR != '/' {
        bytes.iter_mut().filter(|byte| **byte == MAIN_SEPARATOR as u8).for_each(|byte| *byte = b'/');
    }
    bytes
}

/// A typed path, with `/` between its components on every system.
pub fn slashed(text: &str) -> Cow<'_, str> {
    if MAIN_SEPARATOR == '/' { Cow::Borrowed(text) } else { Cow::Owned(text.replace(MAIN_SEPARATOR, "/")) }
}

/// The path with these bytes. Characters that this system cannot have in a path are replaced.
pub fn to_path(bytes: &[u8]) -> Cow<'_, Path> {
    match to_os(bytes) {
        Some(Cow::Borrowed(text)) => Cow::Borrowed(Path::new(text)),
        Some(Cow::Owned(text)) => Cow::Owned(text.into()),
        None => Cow::Owned(String::from_utf8_lossy(bytes).into_owned().into()),
    }
}

/// A path in the form that people write: Windows has a second form for paths of any length (`\\?\C:\...`), which it
/// also uses for the real path of a folder.
pub fn plain(path: PathBuf) -> PathBuf {
    #[cfg(windows)]
    if let Some(text) = path.to_str().filter(|text| text.len() < wide::PLAIN_LEN_MAX)
        && let Some(rest) = text.strip_prefix(r"\\?\")
    {
        if let Some(share) = rest.strip_prefix(r"UNC\") {
            return PathBuf::from(format!(r"\\{share}"));
        }
        if rest.as_bytes().get(1) == Some(&b':') {
            return PathBuf::from(rest);
        }
    }
    path
}

/// Converts the 16-bit units of Windows names to bytes and back.
#[cfg(any(windows, test))]
mod wide {
    /// Longest path in bytes that is converted to the plain form: longer plain ones would reach the system's limit of
    /// 260.
    #[cfg(windows)]
    pub(super) const PLAIN_LEN_MAX: usize = 200;

    /// UTF-8; an unpaired half of a surrogate pair is encoded as if it were a character.
    pub(super) fn to_bytes(units: impl Iterator<Item = u16>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for unit in char::decode_utf16(units) {
            match unit {
                Ok(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                Err(half) => {
                    let half = half.unpaired_surrogate();
                    bytes.extend_from_slice(&[0xed, (half >> 6 & 0x3f) as u8 | 0x80, (half & 0x3f) as u8 | 0x80]);
                }
            }
        }
        bytes
    }

    /// The reverse of [`to_bytes`]; `None` for other bytes.
    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Vec<u16>> {
        let mut units = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if let [0xed, high @ 0xa0..=0xbf, low @ 0x80..=0xbf, rest @ ..] = bytes {
                units.push(0xd000 | u16::from(high & 0x3f) << 6 | u16::from(low & 0x3f));
                bytes = rest;
                continue;
            }
            let next_half = bytes.windows(2).position(|pair| pair[0] == 0xed && pair[1] >= 0xa0);
            let (text, rest) = bytes.split_at(next_half.unwrap_or(bytes.len()));
            if text.is_empty() {
                return None;
            }
            units.extend(std::str::from_utf8(text).ok()?.encode_utf16());
            bytes = rest;
        }
        Some(units)
    }
}

/// `parent/name`, or just `name` if the parent is empty.
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

/// A path inside a snapshot as named in a sentence; the empty path is that of the top folder.
pub fn called(path: &[u8]) -> String {
    if path.is_empty() { "the top folder".to_owned() } else { Shown(path).to_string() }
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
    fn names_of_windows_come_back_as_they_were() {
        for units in [&[][..], &[0x61, 0x2f], &[0xe4, 0x20ac, 0xd83d, 0xde00], &[0xd800], &[0x61, 0xde00, 0xd83d, 0x62]]
        {
            let bytes = wide::to_bytes(units.iter().copied());
            assert_eq!(wide::from_bytes(&bytes).as_deref(), Some(units), "{}", Shown(&bytes));
            if let Ok(text) = String::from_utf16(units) {
                assert_eq!(bytes, text.as_bytes());
            }
        }
        for bytes in [&b"\xff"[..], b"a\xe4", b"\xed\xa0", b"\xed\xa0a", b"a\xed", b"\xed\xa0\x80\xff"] {
            assert_eq!(wide::from_bytes(bytes), None, "{}", Shown(bytes));
        }
    }

    #[test]
    fn paths_come_back_as_they_were() {
        let path = Path::new("a").join("b \u{e4}");
        assert_eq!(from_path(&path), "a/b \u{e4}".as_bytes());
        assert_eq!(components(&from_path(&path)).map(|name| to_os(name).unwrap()).collect::<PathBuf>(), path);
        assert_eq!(plain(path.clone()), path);
        assert_eq!(from_path(&to_path(b"/x/y")), b"/x/y");
    }

    #[cfg(windows)]
    #[test]
    fn long_paths_are_shown_plainly() {
        for (path, expected) in [
            (r"\\?\C:\a\b", r"C:\a\b"),
            (r"\\?\UNC\server\share\a", r"\\server\share\a"),
            (r"\\?\Volume{1}\a", r"\\?\Volume{1}\a"),
            (r"C:\a", r"C:\a"),
        ] {
            assert_eq!(plain(PathBuf::from(path)), Path::new(expected));
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
