//! Snapshots, folders, versions, previews.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::engine::query::browse;
use crate::engine::query::history::history;
use crate::id::ObjectName;
use crate::json::{EntryJson, ListJson, Name, SkippedJson, SpellJson};
use crate::path;
use crate::progress::Silent;
use crate::read::StoredFile;
use crate::read::path::{top, way};
use crate::tree::{Entry, FileKind, Stream};
use crate::vault::SnapshotInfo;
use crate::web::answer::{Problem, Told, encode};
use crate::web::desk::Desk;
use crate::web::query::{Query, from_hex};

/// The largest number of entries in one answer.
const PAGE_MAX: u64 = 10_000;
/// The longest text shown in a preview.
const TEXT_MAX: u64 = 256 << 10;
/// The longest picture shown in a preview.
const PICTURE_MAX: u64 = 24 << 20;

/// `GET status`.
///
/// # Errors
/// None.
pub fn status(desk: &Arc<Desk>, _: &Query) -> Told {
    let vault = desk.view().vault();
    encode(&json!({
        "vault": vault.id().to_string(),
        "place": desk.home().place(),
        "host": vault.identity().host,
        "user": vault.identity().user,
        "read_only": desk.is_read_only(),
        "running": desk.is_running(),
        "home": desk.home().folder().map(|folder| folder.display().to_string()),
        "now": crate::json::time_text(desk.home().now()),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// `GET snapshots`: as `vault list --json`.
///
/// # Errors
/// If the vault cannot be read.
pub fn snapshots(desk: &Arc<Desk>, _: &Query) -> Told {
    let view = desk.fresh();
    let vault = view.vault();
    let moment = view.moment();
    let findings = vault.known_findings(desk.home().now())?;
    let (damage, late) = (vault.known_damage()?, vault.known_late()?);
    encode(&ListJson::new(vault.id().to_string(), moment.snapshots(), &damage, &late, &findings))
}

/// The entry at a path of a snapshot. The top of a snapshot is a folder without a name.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn find(desk: &Desk, info: &SnapshotInfo, at: &[u8]) -> Result<Arc<Entry>, Problem> {
    let view = desk.view();
    let entry = |listing: &Stream, name: &[u8]| desk.folders().entry(view.as_ref(), listing, name);
    let found = way(Arc::new(top(&info.body.tree)), at, entry).map_err(|unread| desk.unread(info, unread.error))?;
    let missing = || Problem::missing(format!("there is no {} in this snapshot", path::Shown(at)));
    found.and_then(|mut way| way.pop()).ok_or_else(missing)
}

#[derive(Serialize)]
struct FolderJson<'a> {
    snapshot: String,
    path: Name<'a>,
    entries: Vec<EntryJson<'a>>,
    /// The number of the next entry after these; null at the end.
    next: Option<u64>,
}

/// `GET ls`: some entries of a folder, in the order of their names, each as `vault ls --json` prints it.
///
/// # Errors
/// If there is no such folder, or it cannot be read.
pub fn ls(desk: &Arc<Desk>, query: &Query) -> Told {
    let info = desk.snapshot(query.text("snapshot")?)?;
    let at = query.path();
    let (from, count) = (query.number("from", 0)?, query.number("count", 500)?.clamp(1, PAGE_MAX));
    let folder = find(desk, &info, &at)?;
    let listing = folder.content.as_ref().filter(|_| folder.kind == FileKind::Directory);
    let listing = listing.ok_or_else(|| Problem::usage("this is no folder"))?;
    let mut found: Vec<(Vec<u8>, Arc<Entry>)> = Vec::new();
    let mut next = None;
    loop {
        let page = desk.folders().page_with(desk.view().as_ref(), listing, from + found.len() as u64);
        let Some(page) = page.map_err(|error| desk.unread(&info, error))? else { break };
        let skip = usize::try_from(from + found.len() as u64 - page.first).unwrap_or(usize::MAX);
        for entry in page.entries.iter().skip(skip) {
            if found.len() as u64 == count {
                next = Some(from + count);
                break;
            }
            found.push((path::join(&at, &entry.name), entry.clone()));
        }
        if next.is_some() {
            break;
        }
    }
    let entries = found.iter().map(|(at, entry)| EntryJson::new(at, entry)).collect();
    encode(&FolderJson { snapshot: info.id.to_string(), path: Name(&at), entries, next })
}

/// `GET entry`: one entry, as `vault ls --json` prints it.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn entry(desk: &Arc<Desk>, query: &Query) -> Told {
    let info = desk.snapshot(query.text("snapshot")?)?;
    let at = query.path();
    let entry = find(desk, &info, &at)?;
    encode(&EntryJson::new(&at, &entry))
}

/// `GET skipped`: the files that could not be saved, as `vault ls --skipped --json`.
///
/// # Errors
/// If the list cannot be read.
pub fn skipped(desk: &Arc<Desk>, query: &Query) -> Told {
    let info = desk.snapshot(query.text("snapshot")?)?;
    let skipped = browse::skipped(desk.view().vault(), &info)?;
    let skipped: Vec<_> = skipped.iter().map(SkippedJson::from).collect();
    encode(&json!({ "snapshot": info.id.to_string(), "skipped": skipped }))
}

#[derive(Serialize)]
struct VersionsJson<'a> {
    versions: Vec<SpellJson<'a>>,
    /// The number of snapshots that could not be read.
    broken: usize,
}

/// `GET history`: the versions of a path in the snapshots of one source and host, each as `vault history --json`
/// prints it.
///
/// # Errors
/// If the vault cannot be read.
pub fn versions(desk: &Arc<Desk>, query: &Query) -> Told {
    let (source, host) = (query.text("source")?, query.text("host")?);
    let at = query.path();
    let view = desk.view();
    let moment = view.moment();
    let of_source = |info: &&SnapshotInfo| info.body.source == source && info.body.host == host && info.covers(&at);
    let snapshots: Vec<&SnapshotInfo> = moment.snapshots().iter().rev().filter(of_source).collect();
    let mut broken = Vec::new();
    let spells = history(view.vault(), &snapshots, &|_| at.clone(), &mut broken, &Silent::default())?;
    // The snapshots before the first version have nothing to tell.
    let first = spells.iter().rposition(|spell| spell.entry.is_some());
    let spells: Vec<_> = spells.into_iter().take(first.map_or(0, |first| first + 1)).collect();
    encode(&VersionsJson { versions: SpellJson::all(&at, &spells, &snapshots), broken: broken.len() })
}

/// The type of a picture, recognized by its first bytes; `None` if it is not a picture.
fn picture(start: &[u8]) -> Option<&'static str> {
    match start {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// These bytes as text, of which the last character may be cut; `None` if they are not text.
fn text_of(bytes: &[u8], is_whole: bool) -> Option<&str> {
    if bytes.contains(&0) {
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && !is_whole => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// `GET preview`: the start of a text, or the note that the file is a picture, which the page then requests as a
/// file.
///
/// # Errors
/// If there is no such file, or it cannot be read.
pub fn preview(desk: &Arc<Desk>, query: &Query) -> Told {
    let info = desk.snapshot(query.text("snapshot")?)?;
    let entry = find(desk, &info, &query.path())?;
    let Some(file) = StoredFile::new(&entry) else { return encode(&json!({ "kind": "none" })) };
    let mut start = vec![0; file.size().min(TEXT_MAX) as usize];
    let read = file.read_at(desk.view().as_ref(), 0, &mut start).map_err(|error| desk.unread(&info, error))?;
    start.truncate(read);
    let is_whole = file.size() <= TEXT_MAX;
    if let Some(kind) = picture(&start) {
        let kind = if file.size() <= PICTURE_MAX { kind } else { "none" };
        return encode(&json!({ "kind": kind }));
    }
    match text_of(&start, is_whole) {
        Some(text) => encode(&json!({ "kind": "text", "text": text, "whole": is_whole })),
        None => encode(&json!({ "kind": "none" })),
    }
}

/// Parses an id.
///
/// # Errors
/// If the text is not an id.
pub fn id_of(text: &str) -> Result<ObjectName, Problem> {
    let bytes = from_hex(text).and_then(|bytes| bytes.try_into().ok());
    bytes.map(ObjectName::new).ok_or_else(|| Problem::usage("this is no id of a snapshot"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_pictures_are_told_by_their_bytes() {
        assert_eq!(text_of("aé".as_bytes(), true), Some("aé"));
        assert_eq!(text_of(&"aé".as_bytes()[..2], false), Some("a"));
        assert_eq!(text_of(&"aé".as_bytes()[..2], true), None);
        assert_eq!(text_of(b"a\0", true), None);
        assert_eq!(text_of(b"a\xffb", false), None);
        assert_eq!(picture(b"\x89PNG\r\n\x1a\n...."), Some("image/png"));
        assert_eq!(picture(b"<svg onload=x>"), None);
        assert_eq!(from_hex("61ff"), Some(vec![0x61, 0xff]));
        assert_eq!((from_hex("6"), from_hex("6g"), from_hex("é")), (None, None, None));
    }
}
