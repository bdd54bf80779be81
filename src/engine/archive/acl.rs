//! Less common properties of files in archives, as other programs write them: access lists (in the form of star, GNU tar and bsdtar),
//! flags, and attributes whose names or values are not text.

use crate::fs::OwnerNames;
use crate::tree::entry::flags;

/// The keys of access lists in extended headers, and the attributes in which Linux stores them.
pub const LISTS: [(&[u8], &[u8]); 2] =
    [(b"SCHILY.acl.access", b"system.posix_acl_access"), (b"SCHILY.acl.default", b"system.posix_acl_default")];

/// The version at the start of such an attribute.
const VERSION: [u8; 4] = 2_u32.to_le_bytes();
/// The id of an entry that is not for a certain user or group.
const NOBODY: u32 = u32::MAX;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The text of an access list; `None` if it is not one.
pub fn list_to_text(value: &[u8]) -> Option<Vec<u8>> {
    let entries = value.strip_prefix(&VERSION)?;
    let mut text = String::new();
    if entries.is_empty() || !entries.len().is_multiple_of(8) {
        return None;
    }
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let rights = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            OWNER => "user:".to_owned(),
            USER => format!("user:{id}"),
            OWNING_GROUP => "group:".to_owned(),
            GROUP => format!("group:{id}"),
            MASK => "mask:".to_owned(),
            OTHER => "other:".to_owned(),
            _ => return None,
        };
        let right = |bit: u16, letter: char| if rights & bit == 0 { '-' } else { letter };
        if rights > 7 {
            return None;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&who);
        text.push(':');
        text.extend([right(4, 'r'), right(2, 'w'), right(1, 'x')]);
    }
    Some(text.into_bytes())
}

/// The attribute for an access list in text form. Names are looked up on this machine, unless a number is given with them. `None` if the
/// list says no more than the mode, and is not a default list.
///
/// # Errors
/// A message, if the text is malformed or names someone unknown here.
pub fn list_from_text(text: &[u8], is_default: bool, names: &OwnerNames) -> Result<Option<Vec<u8>>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for line in text.split(['\n', ',', '\0']) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        entries.push(entry_from_text(line, names)?);
    }
    if entries.is_empty() {
        return Ok(None);
    }
    entries.sort_unstable();
    entries.dedup_by_key(|(tag, id, _)| (*tag, *id));
    let has = |tag: u16| entries.iter().any(|(other, _, _)| *other == tag);
    if !(has(OWNER) && has(OWNING_GROUP) && has(OTHER)) {
        return Err("it says nothing of the owner, the group or the others".to_owned());
    }
    if (has(USER) || has(GROUP)) && !has(MASK) {
        let of_groups = entries.iter().filter(|(tag, _, _)| matches!(*tag, USER | GROUP | OWNING_GROUP));
        let mask = of_groups.fold(0, |mask, (_, _, bits)| mask | bits);
        entries.push((MASK, NOBODY, mask));
        entries.sort_unstable();
    }
    if entries.len() == 3 && !is_default {
        return Ok(None);
    }
    let mut value = VERSION.to_vec();
    for (tag, id, bits) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&bits.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(Some(value))
}

/// An entry of an access list: its tag, its id and its rights.
fn entry_from_text(line: &str, names: &OwnerNames) -> Result<(u16, u32, u16), String> {
    let malformed = || format!("'{line}' is no entry of one");
    let mut fields: Vec<&str> = line.split(':').map(str::trim).collect();
    if fields.len() > 2 && matches!(fields[0], "default" | "d") {
        fields.remove(0);
    }
    // The name may be omitted if it is empty.
    if fields.len() == 2 {
        fields.insert(1, "");
    }
    let [kind, name, rights, number @ ..] = fields.as_slice() else { return Err(malformed()) };
    let tag = match (*kind, name.is_empty()) {
        ("user" | "u", true) => OWNER,
        ("user" | "u", false) => USER,
        ("group" | "g", true) => OWNING_GROUP,
        ("group" | "g", false) => GROUP,
        ("mask" | "m", true) => MASK,
        ("other" | "o", true) => OTHER,
        _ => return Err(malformed()),
    };
    let mut bits = 0;
    for letter in rights.chars() {
        bits |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return Err(malformed()),
        };
    }
    if !matches!(tag, USER | GROUP) {
        return Ok((tag, NOBODY, bits));
    }
    let given = number.first().and_then(|number| number.parse().ok()).or_else(|| name.parse().ok());
    let known = || if tag == USER { names.uid(name.as_bytes()) } else { names.gid(name.as_bytes()) };
    let unknown = || format!("there is no {} '{name}' here", if tag == USER { "user" } else { "group" });
    Ok((tag, given.or_else(known).ok_or_else(unknown)?, bits))
}

/// Flags with their words; the first word is the one that is written.
const FLAGS: [(u32, &[&str]); 4] = [
    (flags::IMMUTABLE, &["schg", "schange", "simmutable", "uchg", "uchange", "uimmutable", "immutable"]),
    (flags::APPEND, &["sappnd", "sappend", "uappnd", "uappend", "append"]),
    (flags::NODUMP, &["nodump"]),
    (flags::COMPRESSED, &["compress", "ucompress", "compressed"]),
];

/// The words for flags; empty for no flags.
pub fn flags_to_text(bits: u32) -> Vec<u8> {
    let set = FLAGS.iter().filter(|(flag, _)| bits & flag != 0).map(|(_, words)| words[0]);
    set.collect::<Vec<_>>().join(",").into_bytes()
}

/// The flags named in a text, and its unknown words.
pub fn flags_from_text(text: &[u8]) -> (u32, Vec<String>) {
    let text = String::from_utf8_lossy(text);
    let (mut bits, mut unknown) = (0, Vec::new());
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match FLAGS.iter().find(|(_, words)| words.contains(&word)) {
            Some((flag, _)) => bits |= flag,
            None => unknown.push(word.to_owned()),
        }
    }
    (bits, unknown)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 encoding, without padding.
pub fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let three = [part[0], part.get(1).copied().unwrap_or(0), part.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        out.extend((0..=part.len()).map(|at| BASE64[((bits >> (18 - 6 * at)) & 63) as usize]));
    }
    out
}

/// Decodes base64; `None` if the text is malformed.
pub fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for letter in text.iter().filter(|letter| !b"=\r\n".contains(letter)) {
        bits = (bits << 6) | BASE64.iter().position(|other| other == letter)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// A name with `%` and two digits for bytes that cannot be written.
pub fn percent(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in name {
        if byte.is_ascii_graphic() && !b"%=".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// The decoded name.
pub fn from_percent(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(byte) = text.get(at) {
        let digits = text.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, is_default: bool) -> Result<Option<String>, String> {
        let value = list_from_text(text.as_bytes(), is_default, &OwnerNames::new())?;
        Ok(value.map(|value| String::from_utf8(list_to_text(&value).unwrap()).unwrap()))
    }

    #[test]
    fn access_lists_are_read_in_the_forms_of_other_programs() {
        let full = "user::rw-,user:1234:rw-,group::r--,group:99:r-x,mask::rwx,other::r--";
        assert_eq!(read(full, false), Ok(Some(full.to_owned())));
        // GNU tar writes lines, bsdtar puts the number after the name, and either may leave out the mask.
        let lines = "user::rw-\nuser:1234:rw-\t#effective:r--\ngroup::r--\nmask::rw-\nother::---\n";
        let expected = "user::rw-,user:1234:rw-,group::r--,mask::rw-,other::---";
        assert_eq!(read(lines, false), Ok(Some(expected.to_owned())));
        assert_eq!(read("u::rw-,u:no-such-user:rw-:1234,g::r--,o::---", false), Ok(Some(expected.to_owned())));
        assert_eq!(read("user::rwx,group::r-x,other::r-x", false), Ok(None));
        let base = "user::rwx,group::r-x,other::r-x";
        assert_eq!(read("default:user::rwx,default:group::r-x,default:other::r-x", true), Ok(Some(base.to_owned())));
        assert_eq!(read("", false), Ok(None));
        for bad in ["user::rw", "user:x", "user::rw-,user:no-such-user-here:r--,group::r--,other::r--", "what::r--"] {
            assert!(read(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_access_list_has_no_text() {
        for bad in [&b""[..], b"\x02\0\0\0", b"\x01\0\0\0\x01\0\x07\0\xff\xff\xff\xff", b"\x02\0\0\0\x01\0\x07\0\xff"] {
            assert_eq!(list_to_text(bad), None);
        }
    }

    #[test]
    fn flags_have_words() {
        assert_eq!(flags_to_text(flags::IMMUTABLE | flags::NODUMP), b"schg,nodump");
        assert_eq!(
            flags_from_text(b"uchg, nodump,strange"),
            (flags::IMMUTABLE | flags::NODUMP, vec!["strange".to_owned()])
        );
        assert_eq!(flags_from_text(b""), (0, Vec::new()));
    }

    #[test]
    fn names_and_values_come_back() {
        for value in [&b""[..], b"a", b"ab", b"abc", b"\0\xff\xfe\x80"] {
            assert_eq!(from_base64(&base64(value)).as_deref(), Some(value));
            assert_eq!(from_percent(&percent(value)), value);
        }
        assert_eq!(from_base64(b"aGk="), Some(b"hi".to_vec()));
        assert_eq!(from_base64(b"a b"), None);
        assert_eq!(percent(b"user.a=b"), b"user.a%3Db");
    }
}
