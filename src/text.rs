//! Text supplied by a person: lists, patterns, passwords, configurations. Editors may put a byte order mark in front and end lines in two
//! ways; neither is part of the content.

/// The byte order mark that some editors write before UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text is in another encoding than UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is UTF-16, not UTF-8: save it as UTF-8")]
pub struct OtherEncoding;

/// The text without the byte order mark.
///
/// # Errors
/// If the mark is that of UTF-16.
pub fn content(bytes: &[u8]) -> Result<&[u8], OtherEncoding> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(OtherEncoding);
    }
    Ok(bytes.strip_prefix(MARK).unwrap_or(bytes))
}

/// The lines of a text without their ends, `\n` or `\r\n`.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_in_front_of_a_text_does_not_belong_to_it() {
        assert_eq!(content(b"\xef\xbb\xbfa\n"), Ok(&b"a\n"[..]));
        assert_eq!(content(b"a\xef\xbb\xbf"), Ok(&b"a\xef\xbb\xbf"[..]));
        assert_eq!(content(b""), Ok(&b""[..]));
        assert_eq!(content(b"\xff\xfea\0"), Err(OtherEncoding));
        assert_eq!(content(b"\xfe\xff\0a"), Err(OtherEncoding));
    }

    #[test]
    fn lines_end_in_either_way() {
        let all = |text: &'static [u8]| lines(text).collect::<Vec<_>>();
        assert_eq!(all(b"a\r\n\nb"), [&b"a"[..], b"", b"b"]);
        assert_eq!(all(b"a\rb\n"), [&b"a\rb"[..]]);
    }
}
