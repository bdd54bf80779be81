//! Headers of archives: the POSIX form, with extended headers where its fields are too short, and the GNU form for sparse files, which
//! every common program reads.

use tar::{EntryType, Header};

use crate::engine::archive::{BLOCK, acl, pax};
use crate::tree::{Entry, FileKind};

/// Maximum length of a name in a plain header.
const NAME_MAX: usize = 100;
/// Maximum length of an owner's name.
const OWNER_MAX: usize = 31;
/// Largest owner number that fits in seven octal digits.
const OWNER_ID_MAX: u32 = 0o777_7777;
/// Largest size that fits in eleven octal digits.
const SIZE_MAX: u64 = 0o777_7777_7777;

/// The file that a header describes.
pub struct Member<'a> {
    /// Its path in the archive.
    pub path: &'a [u8],
    /// Its entry in the snapshot.
    pub entry: &'a Entry,
    /// If it is another name of a file: the path of that file.
    pub link: Option<&'a [u8]>,
    /// The ranges of a sparse file that have data, as offset and length. Each begins and, except for the last, ends at a multiple of 512.
    pub sparse: Option<&'a [(u64, u64)]>,
}

fn header(kind: EntryType, gnu: bool) -> Header {
    let mut header = if gnu { Header::new_gnu() } else { Header::new_ustar() };
    header.set_entry_type(kind);
    header
}

/// Writes bytes into a field of a header, truncated if necessary.
fn set(header: &mut Header, at: usize, len: usize, bytes: &[u8]) {
    let len = len.min(bytes.len());
    header.as_mut_bytes()[at..at + len].copy_from_slice(&bytes[..len]);
}

/// Appends zeros up to the next multiple of a block.
pub fn fill(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// Writes an extra member in front of another one, with values that do not fit in that one's header.
fn extra(out: &mut Vec<u8>, kind: EntryType, name: &[u8], content: &[u8]) {
    let mut header = header(kind, kind != EntryType::XHeader);
    set(&mut header, 0, NAME_MAX, name);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(content);
    fill(out);
}

/// The header of a member with everything before its content; `None` for kinds that archives cannot contain (sockets).
pub fn head(member: &Member<'_>) -> Option<Vec<u8>> {
    let entry = member.entry;
    let kind = kind_of(member)?;
    let mut path = member.path.to_vec();
    if entry.kind == FileKind::Directory {
        path.push(b'/');
    }
    let target: &[u8] = member.link.unwrap_or(&entry.target);
    let size = match (member.sparse, member.link, entry.kind) {
        (Some(parts), None, _) => parts.iter().map(|(_, len)| len).sum(),
        (None, None, FileKind::File) => entry.size,
        _ => 0,
    };
    let (mut out, mut records) = (Vec::new(), Vec::new());
    for (value, key, long) in
        [(path.as_slice(), &b"path"[..], EntryType::GNULongName), (target, b"linkpath", EntryType::GNULongLink)]
    {
        if value.len() > NAME_MAX && std::str::from_utf8(value).is_ok() {
            pax::put(&mut records, key, value);
        } else if value.len() > NAME_MAX {
            // Extended headers are text; other bytes are written in the GNU form.
            extra(&mut out, long, b"././@LongLink", &[value, b"\0"].concat());
        }
    }
    let Entry { owner, mtime, .. } = entry;
    put_too_long(&mut records, entry, size);
    if member.link.is_none() {
        put_attributes(&mut records, entry);
    }
    if !records.is_empty() {
        extra(&mut out, EntryType::XHeader, b"././@PaxHeader", &records);
    }
    let mut header = header(kind, member.sparse.is_some());
    set(&mut header, 0, NAME_MAX, &path);
    set(&mut header, 157, NAME_MAX, target);
    header.set_mode(entry.mode);
    header.set_uid(owner.uid.into());
    header.set_gid(owner.gid.into());
    header.set_size(size);
    header.set_mtime(u64::try_from(mtime.secs).unwrap_or(0));
    set(&mut header, 265, OWNER_MAX, if owner.user.len() > OWNER_MAX { b"" } else { &owner.user });
    set(&mut header, 297, OWNER_MAX, if owner.group.len() > OWNER_MAX { b"" } else { &owner.group });
    if let Some((major, minor)) = entry.device {
        // Both forms have these fields.
        let _ = header.set_device_major(major);
        let _ = header.set_device_minor(minor);
    }
    let more = member.sparse.map_or_else(Vec::new, |parts| put_sparse(&mut header, entry.size, parts));
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&more);
    Some(out)
}

/// The kind in a member's header; `None` for a socket.
const fn kind_of(member: &Member<'_>) -> Option<EntryType> {
    Some(match member.entry.kind {
        _ if member.link.is_some() => EntryType::Link,
        FileKind::File if member.sparse.is_some() => EntryType::GNUSparse,
        FileKind::File => EntryType::Regular,
        FileKind::Directory => EntryType::Directory,
        FileKind::Symlink => EntryType::Symlink,
        FileKind::Fifo => EntryType::Fifo,
        FileKind::CharDevice => EntryType::Char,
        FileKind::BlockDevice => EntryType::Block,
        FileKind::Socket => return None,
    })
}

/// Writes records for time, owner and size, where these are too long or too fine for the fields of a header.
fn put_too_long(records: &mut Vec<u8>, entry: &Entry, size: u64) {
    let Entry { owner, mtime, .. } = entry;
    if mtime.nanos > 0 || mtime.secs < 0 || mtime.secs.cast_unsigned() > SIZE_MAX {
        pax::put(records, b"mtime", pax::time(*mtime).as_bytes());
    }
    for (id, key) in [(owner.uid, &b"uid"[..]), (owner.gid, b"gid")] {
        if id > OWNER_ID_MAX {
            pax::put(records, key, id.to_string().as_bytes());
        }
    }
    for (name, key) in [(&owner.user, &b"uname"[..]), (&owner.group, b"gname")] {
        if name.len() > OWNER_MAX && std::str::from_utf8(name).is_ok() {
            pax::put(records, key, name);
        }
    }
    if size > SIZE_MAX {
        pax::put(records, b"size", size.to_string().as_bytes());
    }
}

/// Writes records for extended attributes, access lists and flags.
fn put_attributes(records: &mut Vec<u8>, entry: &Entry) {
    for (name, value) in &entry.xattrs {
        let list = acl::LISTS.iter().find(|(_, other)| other == name).map(|(key, _)| key);
        if let Some((key, text)) = list.zip(acl::list_to_text(value)) {
            // In addition to the attribute: some programs read only one of the two.
            pax::put(records, key, &text);
        }
        if name.contains(&b'=') {
            // In the plain form the name would end there.
            let key = [b"LIBARCHIVE.xattr.", acl::percent(name).as_slice()].concat();
            pax::put(records, &key, &acl::base64(value));
        } else {
            pax::put(records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
    }
    if entry.flags != 0 {
        pax::put(records, b"SCHILY.fflags", &acl::flags_to_text(entry.flags));
    }
}

/// Writes the map of a sparse file into its header; returns the blocks after the header in which the map continues.
fn put_sparse(header: &mut Header, size: u64, parts: &[(u64, u64)]) -> Vec<u8> {
    // A last part without data marks the end of the file.
    let ends_in_hole = parts.last().is_none_or(|(offset, len)| offset + len < size);
    let mut parts = parts.iter().copied().chain(ends_in_hole.then_some((size, 0))).peekable();
    let Some(gnu) = header.as_gnu_mut() else { return Vec::new() };
    gnu.set_real_size(size);
    for slot in &mut gnu.sparse {
        if let Some((offset, len)) = parts.next() {
            slot.set_offset(offset);
            slot.set_length(len);
        }
    }
    gnu.set_is_extended(parts.peek().is_some());
    let mut more = Vec::new();
    while parts.peek().is_some() {
        let mut block = tar::GnuExtSparseHeader::new();
        for slot in block.sparse_mut() {
            if let Some((offset, len)) = parts.next() {
                slot.set_offset(offset);
                slot.set_length(len);
            }
        }
        block.set_is_extended(parts.peek().is_some());
        more.extend_from_slice(block.as_bytes());
    }
    more
}
