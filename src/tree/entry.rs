//! One entry of a directory's listing (SPEC §7.2): only properties that a restore can bring back.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::stream::Stream;
use crate::limits::{ENTRY_LEN_MAX, HOLES_INLINE, LINK_TARGET_LEN_MAX};
use crate::msgpack::{self, Form, FormError};
use crate::path::{NameError, Shown, check_name};

/// The version byte that begins every listing.
pub const LISTING_VERSION: u8 = 1;

/// Reason why bytes are not a valid entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not msgpack of the expected shape.
    #[error("a tree entry is malformed: {0}")]
    Malformed(String),
    /// A name that no file can have, such as `..`.
    #[error("a tree entry has a forbidden name {name}: {source}")]
    Name {
        /// The name, made safe to show.
        name: String,
        /// The fault of the name.
        source: NameError,
    },
    /// Fields that contradict each other or exceed a limit.
    #[error("the tree entry {name} is not valid: {what}")]
    Invalid {
        /// The name, made safe to show.
        name: String,
        /// The fault of the entry.
        what: &'static str,
    },
    /// An entry has something that this program does not know and must not ignore.
    #[error("the tree entry {name} was written by a newer vault ({what})")]
    Unknown {
        /// The name, made safe to show.
        name: String,
        /// The unknown part.
        what: String,
    },
    /// A listing begins with a version that this program does not know.
    #[error("a tree was written by a newer vault (listing version {0})")]
    Newer(u8),
}

impl EntryError {
    /// Whether the error concerns something that a later version wrote.
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Newer(_))
    }
}

/// A point in time: seconds since 1970 and nanoseconds, as file systems store it (before 1970 the seconds are negative
/// and the nanoseconds still count forward).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.secs, self.nanos).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (secs, nanos): (i64, u64) = Deserialize::deserialize(deserializer)?;
        match u32::try_from(nanos) {
            Ok(nanos) if nanos <= 999_999_999 => Ok(Self { secs, nanos }),
            _ => Err(serde::de::Error::custom("nanoseconds out of range")),
        }
    }
}

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum FileKind {
    /// A regular file.
    File = 0,
    /// A folder.
    Directory = 1,
    /// A symbolic link.
    Symlink = 2,
    /// A named pipe.
    Fifo = 3,
    /// A socket.
    Socket = 4,
    /// A character device.
    CharDevice = 5,
    /// A block device.
    BlockDevice = 6,
}

impl From<FileKind> for u8 {
    fn from(kind: FileKind) -> Self {
        kind as Self
    }
}

impl TryFrom<u8> for FileKind {
    type Error = String;

    fn try_from(byte: u8) -> Result<Self, String> {
        [Self::File, Self::Directory, Self::Symlink, Self::Fifo, Self::Socket, Self::CharDevice, Self::BlockDevice]
            .get(usize::from(byte))
            .copied()
            .ok_or_else(|| format!("unknown kind of file {byte}"))
    }
}

/// Owner of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Name of the user; empty if unknown.
    pub user: Vec<u8>,
    /// Name of the group; empty if unknown.
    pub group: Vec<u8>,
}

/// The holes of a sparse file, which have no data. The content stream has only the data between the holes.
///
/// The bytes are pairs of LEB128 numbers: the distance from the end of the last hole (from 0 at first) to the next
/// one, and its length, both in bytes (SPEC §7.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HolesWire")]
pub enum Holes {
    /// The pairs themselves, at most [`HOLES_INLINE`] bytes.
    #[serde(rename = "i")]
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The pairs as a stream.
    #[serde(rename = "s")]
    Stream(Stream),
}

/// The keys of [`Holes`] as they are read: keys of later versions are ignored, as in every map.
#[derive(Deserialize)]
struct HolesWire {
    #[serde(rename = "i", default)]
    inline: Option<ByteBuf>,
    #[serde(rename = "s", default)]
    stream: Option<Stream>,
}

impl TryFrom<HolesWire> for Holes {
    type Error = &'static str;

    fn try_from(wire: HolesWire) -> Result<Self, Self::Error> {
        match (wire.inline, wire.stream) {
            (Some(bytes), None) => Ok(Self::Inline(bytes.into_vec())),
            (None, Some(stream)) => Ok(Self::Stream(stream)),
            _ => Err("holes lie in the entry or in a stream, and nowhere else"),
        }
    }
}

/// File flags that Linux keeps for a file (SPEC §7.2, field `f`).
pub mod flags {
    /// The file may not be changed (`chattr +i`).
    pub const IMMUTABLE: u32 = 1;
    /// The file may only grow (`chattr +a`).
    pub const APPEND: u32 = 2;
    /// The file is left out by dump programs (`chattr +d`).
    pub const NODUMP: u32 = 4;
    /// The file is compressed by the file system (`chattr +c`).
    pub const COMPRESSED: u32 = 8;
    /// The flags that keep everyone from changing a file.
    pub const LOCKS: u32 = IMMUTABLE | APPEND;
    /// Every flag that this version knows.
    pub const ALL: u32 = 15;
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name: bytes, not text.
    pub name: Vec<u8>,
    /// Kind of the file.
    pub kind: FileKind,
    /// The low twelve bits of the mode: permissions, setuid, setgid, sticky.
    pub mode: u32,
    /// Owner of the file.
    pub owner: Owner,
    /// Time of the last change of its content.
    pub mtime: Time,
    /// Time of its creation, if the file system knows it. Recorded; Linux cannot set it.
    pub btime: Option<Time>,
    /// Length of a regular file, holes included, in bytes; 0 for everything else.
    pub size: u64,
    /// Content of a file without its holes; the listing of a folder.
    pub content: Option<Stream>,
    /// The holes of a sparse file.
    pub holes: Option<Holes>,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Extended attributes by name, ACLs and capabilities among them, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// File flags, see [`flags`].
    pub flags: u32,
    /// The file changed while it was read, so its content may never have existed like this on disk.
    pub torn: bool,
}

impl Entry {
    /// An entry of this name and kind, with everything else empty.
    pub fn new(name: impl Into<Vec<u8>>, kind: FileKind) -> Self {
        Self {
            name: name.into(),
            kind,
            mode: 0,
            owner: Owner::default(),
            mtime: Time::default(),
            btime: None,
            size: 0,
            content: None,
            holes: None,
            target: Vec::new(),
            device: None,
            xattrs: Vec::new(),
            flags: 0,
            torn: false,
        }
    }

    /// Checks the requirements of the format (SPEC §7.2), so that a hostile tree is refused before anything is done
    /// with it.
    fn check(&self) -> Result<(), EntryError> {
        let shown = || Shown(&self.name).to_string();
        check_name(&self.name).map_err(|source| EntryError::Name { name: shown(), source })?;
        let holes_ok = match &self.holes {
            None => true,
            Some(Holes::Inline(bytes)) => self.kind == FileKind::File && bytes.len() <= HOLES_INLINE,
            Some(Holes::Stream(stream)) => self.kind == FileKind::File && stream.is_valid(),
        };
        let what = if self.mode > 0o7777 {
            "its mode has unknown bits"
        } else if !holes_ok {
            "its holes are malformed"
        } else if self.content.as_ref().is_some_and(|content| !content.is_valid()) {
            "its content stream is malformed"
        } else if matches!(self.kind, FileKind::File | FileKind::Directory) != self.content.is_some() {
            "content and kind do not fit"
        } else if self.kind != FileKind::File && self.size != 0 {
            "only a regular file has a size"
        } else if self.kind == FileKind::File
            && self.content.as_ref().is_some_and(|content| {
                if self.holes.is_some() { content.len > self.size } else { content.len != self.size }
            })
        {
            "content and size do not fit"
        } else if (self.kind == FileKind::Symlink) == self.target.is_empty()
            || self.target.len() > LINK_TARGET_LEN_MAX
            || self.target.contains(&0)
        {
            "its link target is malformed"
        } else if matches!(self.kind, FileKind::CharDevice | FileKind::BlockDevice) != self.device.is_some() {
            "device numbers and kind do not fit"
        } else if self.xattrs.windows(2).any(|pair| pair[0].0 >= pair[1].0)
            || self.xattrs.iter().any(|(name, _)| name.is_empty() || name.contains(&0))
        {
            "its extended attributes are malformed"
        } else {
            return Ok(());
        };
        Err(EntryError::Invalid { name: shown(), what })
    }
}

/// The stored fields: a map with one-letter keys, so that fields can be added; empty ones are left out. Borrowed while
/// an entry is encoded.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(rename = "n", with = "serde_bytes", borrow)]
    name: Cow<'a, [u8]>,
    #[serde(rename = "k", default, skip_serializing_if = "is_zero")]
    kind: u64,
    #[serde(rename = "p")]
    mode: u64,
    #[serde(rename = "u", default, skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(rename = "g", default, skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(rename = "U", default, skip_serializing_if = "is_empty", with = "serde_bytes", borrow)]
    user: Cow<'a, [u8]>,
    #[serde(rename = "G", default, skip_serializing_if = "is_empty", with = "serde_bytes", borrow)]
    group: Cow<'a, [u8]>,
    #[serde(rename = "m")]
    mtime: Time,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    btime: Option<Time>,
    #[serde(rename = "s", default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, Stream>>,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    holes: Option<Cow<'a, Holes>>,
    #[serde(rename = "t", default, skip_serializing_if = "is_empty", with = "serde_bytes", borrow)]
    target: Cow<'a, [u8]>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    device: Option<(u64, u64)>,
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(ByteBuf, ByteBuf)>,
    #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
    flags: u64,
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    torn: bool,
}

fn is_empty(bytes: &[u8]) -> bool {
    bytes.is_empty()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Appends the encoding of an entry to `out`. Equal entries have equal encodings.
///
/// # Errors
/// If the entry breaks the rules of SPEC §7.2 (a forbidden name, say): it is never written then.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) -> Result<(), EntryError> {
    entry.check()?;
    let bytes = |bytes: &Vec<u8>| ByteBuf::from(bytes.clone());
    let wire = Wire {
        name: Cow::Borrowed(&entry.name),
        kind: u64::from(u8::from(entry.kind)),
        mode: u64::from(entry.mode),
        uid: u64::from(entry.owner.uid),
        gid: u64::from(entry.owner.gid),
        user: Cow::Borrowed(&entry.owner.user),
        group: Cow::Borrowed(&entry.owner.group),
        mtime: entry.mtime,
        btime: entry.btime,
        size: entry.size,
        content: entry.content.as_ref().map(Cow::Borrowed),
        holes: entry.holes.as_ref().map(Cow::Borrowed),
        target: Cow::Borrowed(&entry.target),
        device: entry.device.map(|(major, minor)| (u64::from(major), u64::from(minor))),
        xattrs: entry.xattrs.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
        flags: u64::from(entry.flags),
        torn: entry.torn,
    };
    let start = out.len();
    let mut serializer = rmp_serde::Serializer::new(&mut *out).with_struct_map();
    wire.serialize(&mut serializer).map_err(|error| EntryError::Malformed(error.to_string()))?;
    if out.len() - start > ENTRY_LEN_MAX {
        out.truncate(start);
        return Err(EntryError::Invalid { name: Shown(&entry.name).to_string(), what: "it is too long" });
    }
    Ok(())
}

/// Decodes the entry at the start of `bytes`. Returns it with its encoded length, or `None` if `bytes` end in its
/// middle (the caller then reads more, up to [`ENTRY_LEN_MAX`]).
pub fn decode_entry(bytes: &[u8]) -> Result<Option<(Entry, usize)>, EntryError> {
    let form = match msgpack::form(bytes) {
        Ok(form) => form,
        Err(FormError::Cut) => return Ok(None),
        Err(FormError::Malformed(what)) => return Err(EntryError::Malformed(what)),
    };
    let bytes = bytes.get(..form.len).unwrap_or_default();
    let wire: Wire<'_> = msgpack::decode_borrowed(bytes).map_err(|error| newer(bytes, &form, error))?;
    let shown = || Shown(&wire.name).to_string();
    if form.len > ENTRY_LEN_MAX {
        return Err(EntryError::Invalid { name: shown(), what: "it is too long" });
    }
    let unknown = |what: String| EntryError::Unknown { name: shown(), what };
    if let Some(key) = form.critical {
        return Err(unknown(format!("key {key:?}")));
    }
    let kind = u8::try_from(wire.kind).ok().and_then(|kind| FileKind::try_from(kind).ok());
    let kind = kind.ok_or_else(|| unknown(format!("kind of file {}", wire.kind)))?;
    // All numbers of present systems fit into 32 bits.
    let number = |what: &str, number: u64| u32::try_from(number).map_err(|_| unknown(format!("{what} {number}")));
    let device = match wire.device {
        Some((major, minor)) => Some((number("device", major)?, number("device", minor)?)),
        None => None,
    };
    let mode = number("mode", wire.mode)?;
    let (uid, gid) = (number("user", wire.uid)?, number("group", wire.gid)?);
    let entry = Entry {
        name: wire.name.into_owned(),
        kind,
        mode,
        owner: Owner { uid, gid, user: wire.user.into_owned(), group: wire.group.into_owned() },
        mtime: wire.mtime,
        btime: wire.btime,
        size: wire.size,
        content: wire.content.map(Cow::into_owned),
        holes: wire.holes.map(Cow::into_owned),
        target: wire.target.into_owned(),
        device,
        xattrs: wire.xattrs.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect(),
        flags: (wire.flags & u64::from(u32::MAX)) as u32,
        torn: wire.torn,
    };
    entry.check()?;
    Ok(Some((entry, form.len)))
}

/// The error for an entry that does not have this version's shape: unknown, if a critical key or an unknown kind of file
/// marks it as a later version's, otherwise malformed.
#[cold]
fn newer(bytes: &[u8], form: &Form, malformed: String) -> EntryError {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "k", default)]
        kind: u64,
    }
    let unknown = |what: String| EntryError::Unknown { name: String::new(), what };
    match (&form.critical, msgpack::decode_borrowed(bytes)) {
        (_, Ok(Kind { kind })) if !u8::try_from(kind).is_ok_and(|kind| FileKind::try_from(kind).is_ok()) => {
            unknown(format!("kind of file {kind}"))
        }
        (Some(key), _) => unknown(format!("key {key:?}")),
        (None, _) => EntryError::Malformed(malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;

    fn full() -> Entry {
        let stream = Stream { len: 40, depth: 0, ids: vec![ChunkId::new([7; 16])] };
        Entry {
            mode: 0o4755,
            owner: Owner { uid: 1000, gid: 1001, user: b"me".to_vec(), group: b"us".to_vec() },
            mtime: Time { secs: -1, nanos: 999_999_999 },
            btime: Some(Time { secs: 5, nanos: 6 }),
            size: 1 << 40,
            content: Some(stream),
            holes: Some(Holes::Inline(vec![40, 1])),
            xattrs: vec![(b"user.a".to_vec(), vec![0, 255]), (b"user.b".to_vec(), vec![])],
            flags: flags::NODUMP,
            torn: true,
            ..Entry::new(*b"\xff name", FileKind::File)
        }
    }

    #[test]
    fn entries_round_trip_and_every_prefix_is_incomplete() {
        let mut bytes = Vec::new();
        encode_entry(&full(), &mut bytes).unwrap();
        assert_eq!(decode_entry(&bytes).unwrap(), Some((full(), bytes.len())));
        for end in 0..bytes.len() {
            assert!(matches!(decode_entry(&bytes[..end]), Ok(None)), "prefix of {end} bytes");
        }
    }

    /// In SPEC.
    #[test]
    fn the_encoding_is_pinned() {
        let mut bytes = Vec::new();
        encode_entry(&full(), &mut bytes).unwrap();
        let hex = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(hex, VECTOR_ENTRY);
    }

    const VECTOR_ENTRY: &str = "\
         8ea16ec406ff206e616d65a170cd09eda175cd03e8a167cd03e9a155c4026d65a147c4027573a16d92ffce3b9ac9ffa1\
         62920506a173cf0000010000000000a163932800c41007070707070707070707070707070707a16881a169c4022801a1\
         789292c406757365722e61c40200ff92c406757365722e62c400a16604a165c3";

    #[test]
    fn newer_is_not_malformed() {
        let entry = Entry { content: Some(Stream::EMPTY), ..Entry::new(*b"a", FileKind::Directory) };
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes).unwrap();
        let kind = bytes.windows(2).position(|pair| pair == b"k\x01").unwrap() + 1;
        bytes[kind] = 7;
        assert!(matches!(decode_entry(&bytes), Err(EntryError::Unknown { .. })));
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |change: &dyn Fn(&mut Entry)| {
            let mut entry = full();
            change(&mut entry);
            assert!(encode_entry(&entry, &mut Vec::new()).is_err(), "{entry:?}");
        };
        refused(&|entry| entry.name = b"..".to_vec());
        refused(&|entry| entry.name = b"a/b".to_vec());
        refused(&|entry| entry.mode = 0o10000);
        refused(&|entry| entry.content = None);
        refused(&|entry| entry.size = 39);
        refused(&|entry| entry.holes = None);
        refused(&|entry| entry.target = b"x".to_vec());
        refused(&|entry| entry.kind = FileKind::Symlink);
        refused(&|entry| entry.device = Some((1, 2)));
        refused(&|entry| entry.xattrs.swap(0, 1));
    }

    #[test]
    fn holes_pass_over_what_a_later_version_adds() {
        let decode = |bytes: &[u8]| msgpack::decode::<Holes>(bytes);
        let inline = Ok(Holes::Inline(vec![40, 1]));
        assert_eq!(decode(b"\x81\xa1i\xc4\x02\x28\x01"), inline);
        assert_eq!(decode(b"\x82\xa1i\xc4\x02\x28\x01\xa3new\x05"), inline);
        let stream = Ok(Holes::Stream(Stream::default()));
        assert_eq!(decode(b"\x81\xa1s\x93\x00\x00\xc4\x00"), stream);
        assert!(decode(b"\x80").is_err() && decode(b"\x81\xa3new\x05").is_err());
        assert!(decode(b"\x82\xa1i\xc4\x00\xa1s\x93\x00\x00\xc4\x00").is_err());
    }
}
