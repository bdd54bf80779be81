//! Parses archives: the old form, POSIX with extended headers, GNU with long names and sparse files, in any mixture.
//!
//! Nothing in an archive is trusted: every length is checked before memory is allocated for it, and paths are returned as they are, for
//! the caller to check.
//!
//! This is our own parser because GNU tar writes sparse files in POSIX archives as records beside the header and as a map in front of the
//! data (versions 0.0, 0.1 and 1.0), which the `tar` crate takes for content: a file with holes would be imported as a different file.
//! That crate makes the headers when we write.

use std::collections::BTreeMap;
use std::io;
use std::io::Read;
use std::sync::Arc;

use crate::engine::archive::{BLOCK, acl, pax};
use crate::tree::Time;

/// Maximum total size of everything before one member, in bytes: extended headers, and names in headers of their own.
const EXTRA_MAX: u64 = 16 << 20;
/// Maximum number of records before one member.
const RECORDS_MAX: usize = 1 << 20;
/// Maximum total size of the records that apply to all members, in bytes.
const GLOBALS_MAX: usize = 1 << 20;
/// Maximum size of a member's content, in bytes.
const LEN_MAX: u64 = 1 << 60;
/// Maximum number of digits of a number in a map of a sparse file.
const DIGITS_MAX: usize = 20;
/// Maximum number of parts of a sparse file.
const PARTS_MAX: usize = 1 << 20;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It could not be read at all.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// It does not begin like an archive.
    #[error("it is not a tar archive")]
    NotOne,
    /// It ends in the middle of a member.
    #[error("it is cut off after {at} bytes")]
    Cut {
        /// Number of bytes that could be read.
        at: u64,
    },
    /// A member is malformed.
    #[error("it is damaged at byte {at}: {what}")]
    Malformed {
        /// The offset of the member.
        at: u64,
        /// The fault.
        what: &'static str,
    },
}

/// The kind of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file.
    File,
    /// Another name of an earlier file.
    Link,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A folder.
    Directory,
    /// A named pipe.
    Fifo,
    /// Anything else, by the letter of its kind.
    Other(u8),
}

/// The name and the value of an extended attribute.
type Attribute = (Vec<u8>, Vec<u8>);

/// A member of an archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The path as the archive has it.
    pub path: Vec<u8>,
    /// Its kind.
    pub kind: MemberKind,
    /// The low twelve bits of the mode.
    pub mode: u32,
    /// Numbers of user and group.
    pub owner: (u32, u32),
    /// Names of user and group; empty if unknown.
    pub owner_names: (Vec<u8>, Vec<u8>),
    /// When the content was last modified.
    pub mtime: Time,
    /// Length of the file including its holes, in bytes.
    pub size: u64,
    /// The ranges of a sparse file that have data, each from its first byte up to, but not including, its last; in order. The content
    /// consists of these only.
    pub parts: Option<Vec<(u64, u64)>>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Numbers of a device.
    pub device: (u32, u32),
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Attribute>,
    /// The access list as text, and a folder's default list for new items; empty if there is none.
    pub lists: [Vec<u8>; 2],
    /// Words for flags.
    pub flags: Vec<u8>,
    /// When the file was created, if the archive says so.
    pub btime: Option<Time>,
    /// Properties in the archive that a snapshot cannot contain.
    pub lost: Vec<&'static str>,
}

/// Keys of properties that snapshots cannot contain.
const LOST: [(&[u8], &str); 2] = [
    (b"SCHILY.acl.ace", "its access list of the kind of NFSv4 is not kept"),
    (b"MSWINDOWS.rawsd", "its access list of the kind of Windows is not kept"),
];

/// Reads an archive from start to end.
pub struct ArchiveReader<R> {
    input: R,
    at: u64,
    /// Bytes of the current member's content that have not been read, and the padding up to a whole block.
    content: u64,
    padding: u64,
    /// Records that apply to all members that follow.
    globals: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Whether the end marker has been read.
    ended: bool,
}

/// Additional properties of a member, read before it.
#[derive(Default)]
struct Extras {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
    globals: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Their length in the archive, in bytes.
    len: u64,
}

impl Extras {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let own = self.records.iter().rev().find(|(other, _)| other == key).map(|(_, value)| value);
        own.or_else(|| self.globals.get(key)).map(Vec::as_slice)
    }

    fn number(&self, key: &[u8]) -> Option<u64> {
        std::str::from_utf8(self.get(key)?).ok()?.parse().ok()
    }

    /// The extended attributes, sorted by name, and what a snapshot cannot contain.
    fn attributes(&self) -> (Vec<Attribute>, Vec<&'static str>) {
        let records = || self.globals.iter().chain(self.records.iter().map(|(key, value)| (key, value)));
        let mut lost: Vec<&'static str> =
            LOST.iter().filter(|(key, _)| self.get(key).is_some()).map(|(_, what)| *what).collect();
        let mut xattrs: Vec<Attribute> = Vec::new();
        // bsdtar writes both forms; the plain one needs no decoding, so it takes precedence.
        for (key, value) in records() {
            if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                match acl::from_base64(value) {
                    Some(value) => xattrs.push((acl::from_percent(name), value)),
                    None => lost.push("an extended attribute of it is malformed"),
                }
            }
        }
        if let Some(label) = self.get(b"RHT.security.selinux") {
            // The attribute ends with a zero byte.
            xattrs.push((b"security.selinux".to_vec(), [label.strip_suffix(b"\0").unwrap_or(label), b"\0"].concat()));
        }
        xattrs.extend(
            records().filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))),
        );
        xattrs.retain(|(name, _)| !name.is_empty() && !name.contains(&0));
        // Of several with the same name, the last counts.
        xattrs.reverse();
        xattrs.sort_by(|(a, _), (b, _)| a.cmp(b));
        xattrs.dedup_by(|(a, _), (b, _)| a == b);
        (xattrs, lost)
    }
}

/// The length of a file including its holes and, if it is sparse, the ranges that have data.
type Extent = (u64, Option<Vec<(u64, u64)>>);

/// A text field, up to its first zero.
fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// A number field: octal digits or, if the first bit is set, binary.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // The next bit marks negative numbers.
        let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first | 0x80) - 256 };
        let value = field[1..]
            .iter()
            .try_fold(start, |value, byte| value.checked_mul(256).map(|value| value + i128::from(*byte)))?;
        return i64::try_from(value).ok();
    }
    let digits = text(field);
    let digits = std::str::from_utf8(&digits).ok()?.trim_matches(' ');
    if digits.is_empty() { Some(0) } else { i64::from_str_radix(digits, 8).ok().filter(|value| *value >= 0) }
}

/// A member's path: from the records before it, or else from its header.
fn path_of(header: &[u8; BLOCK], extras: &Extras) -> Vec<u8> {
    if let Some(long) = extras.get(b"GNU.sparse.name").or(extras.get(b"path")).or(extras.path.as_deref()) {
        return long.to_vec();
    }
    let path = text(&header[..100]);
    let is_posix = &header[257..263] == b"ustar\0";
    let prefix = if is_posix { text(&header[345..500]) } else { Vec::new() };
    if prefix.is_empty() { path } else { [prefix.as_slice(), b"/", &path].concat() }
}

/// The kind of a member, by its letter.
fn kind_of(letter: u8, path: &[u8]) -> MemberKind {
    match letter {
        // In the old form, a trailing slash marks folders.
        b'0' | 0 if path.ends_with(b"/") => MemberKind::Directory,
        b'0' | 0 | b'7' | b'S' => MemberKind::File,
        b'1' => MemberKind::Link,
        b'2' => MemberKind::Symlink,
        b'3' => MemberKind::CharDevice,
        b'4' => MemberKind::BlockDevice,
        b'5' | b'D' => MemberKind::Directory,
        b'6' => MemberKind::Fifo,
        other => MemberKind::Other(other),
    }
}

/// Whether the checksum in a header is right, computed in either of the two ways that were in use.
fn sum_fits(header: &[u8; BLOCK]) -> bool {
    let blank = |at: usize| (148..156).contains(&at);
    let bytes = || header.iter().enumerate().map(|(at, byte)| if blank(at) { b' ' } else { *byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    number(&header[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
}

impl<R: Read> ArchiveReader<R> {
    /// A reader that starts here.
    pub fn new(input: R) -> Self {
        Self { input, at: 0, content: 0, padding: 0, globals: Arc::default(), ended: false }
    }

    /// Whether the end marker was read. An archive without one may have been truncated between two members.
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Number of bytes read so far.
    pub const fn position(&self) -> u64 {
        self.at
    }

    /// Reads to the end of the input, whatever follows.
    ///
    /// # Errors
    /// If the input cannot be read.
    pub fn drain(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; 64 << 10];
        while self.fill(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Fills `out` as far as the archive goes.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while filled < out.len() {
            match self.input.read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Io(error)),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    fn skip(&mut self, mut len: u64) -> Result<(), ArchiveError> {
        let mut buffer = [0; 16 << 10];
        while len > 0 {
            let want = len.min(buffer.len() as u64) as usize;
            if self.fill(&mut buffer[..want])? < want {
                return Err(ArchiveError::Cut { at: self.at });
            }
            len -= want as u64;
        }
        Ok(())
    }

    /// The next header; `None` at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut header = [0; BLOCK];
        let begin = self.at;
        match self.fill(&mut header)? {
            0 => return Ok(None),
            BLOCK => {}
            _ if begin == 0 => return Err(ArchiveError::NotOne),
            _ => return Err(ArchiveError::Cut { at: self.at }),
        }
        if header.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        if sum_fits(&header) {
            Ok(Some(header))
        } else if begin == 0 {
            Err(ArchiveError::NotOne)
        } else {
            Err(ArchiveError::Malformed { at: begin, what: "a header does not fit its sum" })
        }
    }

    /// Reads the content of an extra member.
    fn extra(&mut self, len: u64, extras: &mut Extras) -> Result<Vec<u8>, ArchiveError> {
        // Empty ones count too, so that their number is limited.
        extras.len = extras.len.saturating_add(len).saturating_add(BLOCK as u64);
        if extras.len > EXTRA_MAX {
            return Err(ArchiveError::Malformed { at: self.at, what: "an extended header is too long" });
        }
        let mut bytes = vec![0; len as usize];
        if self.fill(&mut bytes)? < bytes.len() {
            return Err(ArchiveError::Cut { at: self.at });
        }
        self.skip(len.next_multiple_of(BLOCK as u64) - len)?;
        Ok(bytes)
    }

    /// The next member; the unread content of the one before is skipped. `None` at the end.
    ///
    /// # Errors
    /// If the archive cannot be read, is truncated, or is damaged.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArchiveError> {
        let rest = self.content + self.padding;
        (self.content, self.padding) = (0, 0);
        self.skip(rest)?;
        if self.ended {
            return Ok(None);
        }
        let mut extras = Extras { globals: Arc::clone(&self.globals), ..Extras::default() };
        loop {
            let begin = self.at;
            let Some(header) = self.header()? else { return Ok(None) };
            let malformed = |what| ArchiveError::Malformed { at: begin, what };
            let field = |range: std::ops::Range<usize>, what| number(&header[range]).ok_or_else(|| malformed(what));
            let len =
                u64::try_from(field(124..136, "a size is no number")?).map_err(|_| malformed("a negative size"))?;
            match header[156] {
                b'L' => extras.path = Some(text(&self.extra(len, &mut extras)?)),
                b'K' => extras.link = Some(text(&self.extra(len, &mut extras)?)),
                kind @ (b'x' | b'X' | b'g') => {
                    let bytes = self.extra(len, &mut extras)?;
                    let records = pax::read(&bytes).ok_or_else(|| malformed("an extended header is malformed"))?;
                    let records = records.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
                    if kind == b'g' {
                        let globals = Arc::make_mut(&mut self.globals);
                        globals.extend(records);
                        if globals.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > GLOBALS_MAX {
                            return Err(malformed("too much is said of all members"));
                        }
                        extras.globals = Arc::clone(&self.globals);
                    } else {
                        extras.records.extend(records);
                        if extras.records.len() > RECORDS_MAX {
                            return Err(malformed("too much is said of a member"));
                        }
                    }
                }
                _ => return self.member(&header, begin, len, &extras).map(Some),
            }
        }
    }

    fn member(&mut self, header: &[u8; BLOCK], begin: u64, len: u64, extras: &Extras) -> Result<Member, ArchiveError> {
        let malformed = |what| ArchiveError::Malformed { at: begin, what };
        let field = |range: std::ops::Range<usize>, what| number(&header[range]).ok_or_else(|| malformed(what));
        let path = path_of(header, extras);
        let link =
            extras.get(b"linkpath").or(extras.link.as_deref()).map_or_else(|| text(&header[157..257]), <[u8]>::to_vec);
        let kind = kind_of(header[156], &path);
        let (size, parts) = self.begin_content(header, begin, extras.number(b"size").unwrap_or(len), extras, kind)?;
        let id = |range, key: &[u8]| -> Result<u32, ArchiveError> {
            let id = match extras.number(key) {
                Some(id) => Some(id),
                None => u64::try_from(field(range, "an owner is no number")?).ok(),
            };
            Ok(id.and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX))
        };
        let name = |range: std::ops::Range<usize>, key: &[u8]| match extras.get(key) {
            Some(name) => name.to_vec(),
            None if header[257..262] == *b"ustar" => text(&header[range]),
            None => Vec::new(),
        };
        let mtime = match extras.get(b"mtime").and_then(pax::read_time) {
            Some(time) => time,
            None => Time { secs: field(136..148, "a time is no number")?, nanos: 0 },
        };
        let major_minor = |range| number(&header[range]).and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        let (xattrs, lost) = extras.attributes();
        Ok(Member {
            path,
            kind,
            mode: u32::try_from(field(100..108, "a mode is no number")? & 0o7777).unwrap_or(0),
            owner: (id(108..116, b"uid")?, id(116..124, b"gid")?),
            owner_names: (name(265..297, b"uname"), name(297..329, b"gname")),
            mtime,
            size,
            parts,
            link,
            device: (major_minor(329..337), major_minor(337..345)),
            xattrs,
            lists: acl::LISTS.map(|(key, _)| extras.get(key).unwrap_or_default().to_vec()),
            flags: extras.get(b"SCHILY.fflags").unwrap_or_default().to_vec(),
            btime: extras.get(b"LIBARCHIVE.creationtime").and_then(pax::read_time),
            lost,
        })
    }

    /// Finds out how much content a member has, and how long its file is. The map of a sparse file is read.
    fn begin_content(
        &mut self,
        header: &[u8; BLOCK],
        begin: u64,
        len: u64,
        extras: &Extras,
        kind: MemberKind,
    ) -> Result<Extent, ArchiveError> {
        let malformed = |what| ArchiveError::Malformed { at: begin, what };
        let has_content = matches!(kind, MemberKind::File | MemberKind::Other(_)) || header[156] == b'D';
        if len > LEN_MAX {
            return Err(malformed("a member is longer than any file"));
        }
        self.content = if has_content { len } else { 0 };
        self.padding = self.content.next_multiple_of(BLOCK as u64) - self.content;
        let (size, parts) = if header[156] == b'S' {
            self.gnu_parts(header, begin)?
        } else if kind == MemberKind::File {
            self.pax_parts(extras, begin)?.unwrap_or((self.content, None))
        } else {
            (self.content, None)
        };
        if size > LEN_MAX {
            return Err(malformed("a member is longer than any file"));
        }
        if let Some(parts) = &parts {
            let data: u64 = parts.iter().map(|(from, until)| until - from).sum();
            if data != self.content {
                return Err(malformed("a sparse file has not as much data as it says"));
            }
        }
        Ok((size, parts))
    }

    /// Reads the map of a sparse file of the GNU form, which may continue in blocks after the header.
    fn gnu_parts(&mut self, header: &[u8; BLOCK], begin: u64) -> Result<Extent, ArchiveError> {
        let malformed = |what| ArchiveError::Malformed { at: begin, what };
        let bad = || malformed("the map of a sparse file is malformed");
        let size = number(&header[483..495]).and_then(|size| u64::try_from(size).ok()).ok_or_else(bad)?;
        let mut pairs = Vec::new();
        let mut take = |slots: &[u8]| {
            for slot in slots.chunks_exact(24).filter(|slot| slot[12] != 0) {
                let field = |range| number(range).and_then(|value| u64::try_from(value).ok());
                pairs.push((field(&slot[..12]).ok_or_else(bad)?, field(&slot[12..]).ok_or_else(bad)?));
            }
            if pairs.len() > PARTS_MAX { Err(bad()) } else { Ok(()) }
        };
        take(&header[386..482])?;
        let mut goes_on = header[482] == 1;
        while goes_on {
            let mut block = [0; BLOCK];
            if self.fill(&mut block)? < BLOCK {
                return Err(ArchiveError::Cut { at: self.at });
            }
            take(&block[..504])?;
            goes_on = block[504] == 1;
        }
        ranges(&pairs, size).map(|parts| (size, Some(parts))).ok_or_else(bad)
    }

    /// Reads the map of a sparse file of the POSIX form, in any of its three versions.
    fn pax_parts(&mut self, extras: &Extras, begin: u64) -> Result<Option<Extent>, ArchiveError> {
        let bad = || ArchiveError::Malformed { at: begin, what: "the map of a sparse file is malformed" };
        let Some(size) = extras.number(b"GNU.sparse.realsize").or(extras.number(b"GNU.sparse.size")) else {
            return Ok(None);
        };
        let mut numbers = Vec::new();
        if extras.get(b"GNU.sparse.major") == Some(b"1") {
            let mut count = None;
            // Lines in front of the data: the number of pairs, then the pairs; padded to a whole block.
            let mut line = Vec::new();
            while count.is_none_or(|count| numbers.len() < count) {
                let mut block = [0; BLOCK];
                self.content = self.content.checked_sub(BLOCK as u64).ok_or_else(bad)?;
                if self.fill(&mut block)? < BLOCK {
                    return Err(ArchiveError::Cut { at: self.at });
                }
                for byte in block {
                    if byte != b'\n' {
                        if line.len() == DIGITS_MAX && count.is_none_or(|count| numbers.len() < count) {
                            return Err(bad());
                        }
                        line.push(byte);
                        continue;
                    }
                    if count.is_some_and(|count| numbers.len() >= count) {
                        break;
                    }
                    let value: u64 =
                        std::str::from_utf8(&line).ok().and_then(|line| line.parse().ok()).ok_or_else(bad)?;
                    line.clear();
                    match count {
                        None if value > PARTS_MAX as u64 => return Err(bad()),
                        None => count = Some(2 * value as usize),
                        Some(_) => numbers.push(value),
                    }
                }
            }
        } else if let Some(map) = extras.get(b"GNU.sparse.map") {
            let map = std::str::from_utf8(map).map_err(|_| bad())?;
            for part in map.split(',').filter(|part| !part.is_empty()) {
                numbers.push(part.parse().map_err(|_| bad())?);
            }
        } else {
            let wanted = |key: &[u8]| key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes";
            for (_, value) in extras.records.iter().filter(|(key, _)| wanted(key)) {
                numbers.push(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)?);
            }
        }
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() > PARTS_MAX {
            return Err(bad());
        }
        let pairs: Vec<(u64, u64)> = pairs.iter().map(|[offset, len]| (*offset, *len)).collect();
        ranges(&pairs, size).map(|parts| Some((size, Some(parts)))).ok_or_else(bad)
    }
}

/// Offsets and lengths as ranges; `None` if they are out of order or reach beyond the end.
fn ranges(pairs: &[(u64, u64)], size: u64) -> Option<Vec<(u64, u64)>> {
    let (mut ranges, mut last) = (Vec::new(), 0);
    for (offset, len) in pairs {
        let end = offset.checked_add(*len).filter(|end| *end <= size && *offset >= last)?;
        if *len > 0 {
            ranges.push((*offset, end));
        }
        last = end;
    }
    Some(ranges)
}

/// The content of the current member.
impl<R: Read> Read for ArchiveReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = self.content.min(out.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut out[..want])?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off"));
        }
        self.at += got as u64;
        self.content -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_forms() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   755 \0", Some(0o755)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"00000009", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    #[test]
    fn what_is_no_archive_is_told_from_a_damaged_one() {
        let read = |bytes: &[u8]| ArchiveReader::new(bytes).next_member();
        assert!(matches!(read(b""), Ok(None)));
        assert!(matches!(read(b"PK\x03\x04 and more"), Err(ArchiveError::NotOne)));
        assert!(matches!(read(&[b'x'; 2000]), Err(ArchiveError::NotOne)));
        let mut header = tar::Header::new_ustar();
        header.set_size(1000);
        header.set_cksum();
        let mut archive = header.as_bytes().to_vec();
        archive.extend_from_slice(&[7; 1024]);
        let mut whole = ArchiveReader::new(archive.as_slice());
        assert_eq!(whole.next_member().unwrap().unwrap().size, 1000);
        assert!(whole.next_member().unwrap().is_none());
        assert!(!whole.has_ended(), "no end marker");
        let mut cut = ArchiveReader::new(&archive[..1200]);
        cut.next_member().unwrap();
        assert!(matches!(cut.next_member(), Err(ArchiveError::Cut { at: 1200 })));
        archive.extend_from_slice(&[9; BLOCK]);
        let mut damaged = ArchiveReader::new(archive.as_slice());
        damaged.next_member().unwrap();
        assert!(matches!(damaged.next_member(), Err(ArchiveError::Malformed { at: 1536, .. })));
    }

    /// A sparse file in the POSIX form, followed by a plain one.
    fn two_members() -> Vec<u8> {
        let mut records = Vec::new();
        for (key, value) in [("major", "1"), ("minor", "0"), ("name", "holes"), ("realsize", "5000")] {
            pax::put(&mut records, format!("GNU.sparse.{key}").as_bytes(), value.as_bytes());
        }
        pax::put(&mut records, b"SCHILY.xattr.user.a", b"\n=\0");
        let mut out = Vec::new();
        let mut add = |kind: u8, name: &[u8], content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name);
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_size(content.len() as u64);
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        };
        let mut map = b"2\n0\n3\n4000\n2\n".to_vec();
        map.resize(BLOCK, 0);
        map.extend_from_slice(b"abcde");
        add(b'x', b"extra", &records);
        add(b'0', b"GNUSparseFile.0/holes", &map);
        add(b'0', b"plain", b"12345");
        out.resize(out.len() + 2 * BLOCK, 0);
        out
    }

    fn read_all(archive: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, ArchiveError> {
        let mut reader = ArchiveReader::new(archive);
        let mut members = Vec::new();
        while let Some(member) = reader.next_member()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).map_err(ArchiveError::Io)?;
            members.push((member, content));
        }
        Ok(members)
    }

    #[test]
    fn sparse_members_are_taken_apart() {
        let members = read_all(&two_members()).unwrap();
        assert_eq!(members.len(), 2);
        let (sparse, content) = &members[0];
        assert_eq!((sparse.path.as_slice(), sparse.size, content.as_slice()), (&b"holes"[..], 5000, &b"abcde"[..]));
        assert_eq!(sparse.parts, Some(vec![(0, 3), (4000, 4002)]));
        assert_eq!(sparse.xattrs, [(b"user.a".to_vec(), b"\n=\0".to_vec())]);
        assert_eq!((members[1].0.path.as_slice(), members[1].1.as_slice()), (&b"plain"[..], &b"12345"[..]));
    }

    #[test]
    fn no_change_of_a_byte_and_no_cut_does_harm() {
        let archive = two_members();
        for at in 0..archive.len() {
            let _ = read_all(&archive[..at]);
            for change in [1, 0x10, 0x80, 0xff] {
                let mut bad = archive.clone();
                bad[at] ^= change;
                let _ = read_all(&bad);
                // The same with a matching checksum.
                for header in [0, 1024, 2560].into_iter().filter(|header| (*header..*header + BLOCK).contains(&at)) {
                    let mut fitting = tar::Header::new_old();
                    fitting.as_mut_bytes().copy_from_slice(&bad[header..header + BLOCK]);
                    fitting.set_cksum();
                    bad[header..header + BLOCK].copy_from_slice(fitting.as_bytes());
                    let _ = read_all(&bad);
                }
            }
        }
    }

    /// Headers without end: memory for them is limited.
    #[test]
    fn what_comes_before_a_member_is_bounded() {
        let extra = |kind: u8, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_size(content.len() as u64);
            header.set_cksum();
            let mut out = header.as_bytes().to_vec();
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
            out
        };
        let read = |block: Vec<u8>| {
            let endless = std::iter::repeat_with(|| block.clone()).take(4_000_000_000 / block.len());
            let blocks = endless.map(std::io::Cursor::new).map(|block| Box::new(block) as Box<dyn Read>);
            let mut reader = ArchiveReader::new(Chain(blocks, None));
            let result = reader.next_member();
            assert!(matches!(result, Err(ArchiveError::Malformed { .. })), "{result:?}");
            assert!(reader.position() < 3 * EXTRA_MAX);
        };
        let records = |count: usize, key: &dyn Fn(usize) -> String, len: usize| {
            let mut out = Vec::new();
            (0..count).for_each(|number| pax::put(&mut out, key(number).as_bytes(), &vec![b'v'; len]));
            out
        };
        read(extra(b'x', &records(100_000, &|_| "k".to_owned(), 0)));
        read(extra(b'x', &records(3, &|_| "k".to_owned(), 1 << 20)));
        read(extra(b'g', &records(200_000, &|number| format!("{number}"), 0)));
        read(extra(b'L', &vec![b'n'; 1 << 20]));
        read(extra(b'x', b""));
        // The same record for all members, repeated many times, counts once.
        let said = extra(b'g', &records(1, &|_| "comment".to_owned(), 40));
        let mut archive = Vec::new();
        for _ in 0..100 {
            archive.extend_from_slice(&said);
            archive.extend_from_slice(&extra(b'0', b"content"));
        }
        let mut reader = ArchiveReader::new(archive.as_slice());
        while reader.next_member().unwrap().is_some() {}
        assert_eq!(reader.globals.len(), 1);
    }

    /// Several inputs, one after the other.
    struct Chain<I>(I, Option<Box<dyn Read>>);

    impl<I: Iterator<Item = Box<dyn Read>>> Read for Chain<I> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            loop {
                let Some(input) = &mut self.1 else {
                    self.1 = self.0.next();
                    if self.1.is_none() {
                        return Ok(0);
                    }
                    continue;
                };
                match input.read(out)? {
                    0 => self.1 = None,
                    count => return Ok(count),
                }
            }
        }
    }

    #[test]
    fn parts_are_bounded() {
        assert_eq!(ranges(&[(0, 10), (20, 0), (30, 5)], 40), Some(vec![(0, 10), (30, 35)]));
        assert_eq!(ranges(&[(30, 5), (0, 10)], 40), None);
        assert_eq!(ranges(&[(30, 11)], 40), None);
        assert_eq!(ranges(&[(u64::MAX, 2)], u64::MAX), None);
    }
}
