//! What differs between two trees. Folders with equal listings are never looked into, so the cost is that of the difference.

use std::cmp::Ordering;

use crate::engine::browse::{BrowseError, Step, TreeWalk};
use crate::path;
use crate::path::{Shown, called};
use crate::progress::Progress;
use crate::tree::{ChunkSource, Entry, EntryError, FileKind, Stream};
use crate::vault::ReadError;
use crate::vault::read::Listing;

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the second tree has it.
    Added,
    /// Only the first tree has it.
    Removed,
    /// The content is another.
    Content,
    /// Only metadata is other.
    Metadata,
    /// It is another kind of file.
    Kind,
}

/// A path that differs.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The path.
    pub path: Vec<u8>,
    /// How it differs.
    pub change: Change,
    /// Which fields differ: `kind`, `content`, `size`, `holes`, `target`, `device`, `mode`, `owner`, `mtime`, `xattrs`,
    /// `flags`. Empty where only one tree has it.
    pub fields: Vec<&'static str>,
    /// What it is in the first tree.
    pub old: Option<Entry>,
    /// What it is in the second tree.
    pub new: Option<Entry>,
}

/// Folders that could not be read; what is in them was not compared.
#[derive(Debug, Default)]
pub struct Compared {
    /// Paths, with why.
    pub broken: Vec<(Vec<u8>, ReadError)>,
}

/// How two entries of one path differ; `None` if they would be restored alike. The times of folders do not count, since they
/// change whenever anything in them does.
pub fn compare(old: &Entry, new: &Entry) -> Option<(Change, Vec<&'static str>)> {
    let mut fields = Vec::new();
    let mut look = |differs: bool, field: &'static str| {
        if differs {
            fields.push(field);
        }
        differs
    };
    let folders = old.kind == FileKind::Directory && new.kind == FileKind::Directory;
    let kind = look(old.kind != new.kind, "kind");
    let content = [
        look(!folders && !kind && old.content != new.content, "content"),
        look(!kind && old.size != new.size, "size"),
        look(!kind && old.holes != new.holes, "holes"),
        look(!kind && old.target != new.target, "target"),
        look(!kind && old.device != new.device, "device"),
    ];
    look(old.mode != new.mode, "mode");
    look(old.owner != new.owner, "owner");
    look(!folders && old.mtime != new.mtime, "mtime");
    look(old.xattrs != new.xattrs, "xattrs");
    look(old.flags != new.flags, "flags");
    let change = if kind {
        Change::Kind
    } else if content.contains(&true) {
        Change::Content
    } else if fields.is_empty() {
        return None;
    } else {
        Change::Metadata
    };
    Some((change, fields))
}

/// One of the two trees, from its start.
struct Side<'s, S> {
    walk: Option<TreeWalk>,
    source: &'s mut S,
    /// What comes next, if it has been looked at; `true`: it is a folder that was entered.
    next: Option<(Entry, bool)>,
}

impl<S: ChunkSource<Error = ReadError>> Side<'_, S> {
    /// Looks at what comes next.
    fn peek(&mut self, compared: &mut Compared) -> Result<bool, BrowseError> {
        while self.next.is_none() {
            let Some(walk) = &mut self.walk else { return Ok(false) };
            match walk.next(self.source) {
                None => self.walk = None,
                Some(Step::Enter(entry)) => self.next = Some((entry, true)),
                Some(Step::Other(entry)) => self.next = Some((entry, false)),
                Some(Step::Leave) => {}
                Some(Step::TooDeep(entry)) => {
                    let name = Shown(&entry.name).to_string();
                    let error = EntryError::Invalid { name, what: "it lies too deep" }.into();
                    compared.broken.push((walk.path().to_vec(), error));
                }
                Some(Step::Broken(error)) if error.is_contained() => {
                    compared.broken.push((walk.path().to_vec(), error));
                }
                Some(Step::Broken(source)) => {
                    return Err(BrowseError::Read { path: called(walk.path()), source });
                }
            }
        }
        Ok(true)
    }

    fn path(&self) -> &[u8] {
        self.walk.as_ref().map_or(&[], TreeWalk::path)
    }

    fn take(&mut self) -> Option<(Vec<u8>, Entry)> {
        let path = self.path().to_vec();
        self.next.take().map(|(entry, _)| (path, entry))
    }
}

/// The order in which trees are walked: by the names, one component after the other.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    // No name has a zero byte, so with one in place of each slash the order of bytes is that of the components.
    let bytes = |path: &[u8]| -> Vec<u8> { path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect() };
    bytes(a).cmp(&bytes(b))
}

/// Whether a path is one of these or lies below one.
fn lies_in(path: &[u8], folders: &[Vec<u8>]) -> bool {
    folders.iter().any(|folder| {
        path.strip_prefix(folder.as_slice())
            .is_some_and(|rest| rest.is_empty() || folder.is_empty() || rest.starts_with(b"/"))
    })
}

/// What a snapshot has at a path.
///
/// # Errors
/// If a folder on the way cannot be read, or there is no such path.
pub fn entry_at<S: ChunkSource<Error = ReadError>>(
    tree: &Stream,
    path: &[u8],
    source: &mut S,
) -> Result<Entry, BrowseError> {
    let mut found = Entry::new(Vec::new(), FileKind::Directory);
    found.content = Some(tree.clone());
    let mut at = Vec::new();
    for name in path::components(path) {
        let missing = || BrowseError::NotFound { path: Shown(path).to_string() };
        let listing = found.content.take().filter(|_| found.kind == FileKind::Directory).ok_or_else(missing)?;
        let failed = |source| BrowseError::Read { path: called(&at), source };
        let mut entries = Listing::new(&listing);
        found = loop {
            match entries.next(source).map_err(failed)? {
                Some(entry) if entry.name == name => break entry,
                Some(entry) if entry.name.as_slice() < name => {}
                _ => return Err(missing()),
            }
        };
        at = path::join(&at, name);
    }
    Ok(found)
}

/// Compares two entries and all below them; `base` is what they are called. Calls `found` for each path that differs, in the
/// order of the names, until it returns `false`. `unknown` are paths of which the second tree has not all; nothing is said
/// of them and of what is below them.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it.
pub fn diff<A, B>(
    base: &[u8],
    old: (Entry, &mut A),
    new: (Entry, &mut B),
    unknown: &[Vec<u8>],
    progress: &dyn Progress,
    found: &mut dyn FnMut(Difference) -> bool,
) -> Result<Compared, BrowseError>
where
    A: ChunkSource<Error = ReadError>,
    B: ChunkSource<Error = ReadError>,
{
    let mut compared = Compared::default();
    let ((old, old_source), (new, new_source)) = (old, new);
    if !base.is_empty()
        && !lies_in(base, unknown)
        && let Some((change, fields)) = compare(&old, &new)
        && !found(Difference { path: base.to_vec(), change, fields, old: Some(old.clone()), new: Some(new.clone()) })
    {
        return Ok(compared);
    }
    let (is_folder, listing) =
        (|entry: &Entry| entry.kind == FileKind::Directory, |entry: &Entry| entry.content.clone());
    let (a, b) = (listing(&old).filter(|_| is_folder(&old)), listing(&new).filter(|_| is_folder(&new)));
    if a == b {
        return Ok(compared);
    }
    let walk = |listing: Option<Stream>| listing.map(|listing| TreeWalk::new(base, &listing));
    let mut a = Side { walk: walk(a), source: old_source, next: None };
    let mut b = Side { walk: walk(b), source: new_source, next: None };
    loop {
        if progress.stopped() {
            return Err(BrowseError::Interrupted);
        }
        let difference = match (a.peek(&mut compared)?, b.peek(&mut compared)?) {
            (false, false) => return Ok(compared),
            (true, true) => match order(a.path(), b.path()) {
                Ordering::Less => removed(&mut a),
                Ordering::Greater => added(&mut b),
                Ordering::Equal => both(&mut a, &mut b),
            },
            (true, false) => removed(&mut a),
            (false, true) => added(&mut b),
        };
        progress.counters().add(1, 0);
        let Some(difference) = difference else { continue };
        let is_broken =
            compared.broken.iter().any(|(folder, _)| lies_in(&difference.path, std::slice::from_ref(folder)));
        if !is_broken && !lies_in(&difference.path, unknown) && !found(difference) {
            return Ok(compared);
        }
    }
}

fn removed<S: ChunkSource<Error = ReadError>>(a: &mut Side<'_, S>) -> Option<Difference> {
    let (path, entry) = a.take()?;
    Some(Difference { path, change: Change::Removed, fields: Vec::new(), old: Some(entry), new: None })
}

fn added<S: ChunkSource<Error = ReadError>>(b: &mut Side<'_, S>) -> Option<Difference> {
    let (path, entry) = b.take()?;
    Some(Difference { path, change: Change::Added, fields: Vec::new(), old: None, new: Some(entry) })
}

fn both<A, B>(a: &mut Side<'_, A>, b: &mut Side<'_, B>) -> Option<Difference>
where
    A: ChunkSource<Error = ReadError>,
    B: ChunkSource<Error = ReadError>,
{
    let entered = |next: &Option<(Entry, bool)>| next.as_ref().is_some_and(|(_, entered)| *entered);
    let (a_entered, b_entered) = (entered(&a.next), entered(&b.next));
    let ((path, old), (_, new)) = (a.take()?, b.take()?);
    if a_entered && b_entered && old.content == new.content {
        a.walk.iter_mut().for_each(TreeWalk::skip);
        b.walk.iter_mut().for_each(TreeWalk::skip);
    }
    let (change, fields) = compare(&old, &new)?;
    Some(Difference { path, change, fields, old: Some(old), new: Some(new) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_ordered_by_components() {
        let mut paths: Vec<&[u8]> = vec![b"a.txt", b"a/b", b"a", b"a-b", b"a/b/c"];
        paths.sort_by(|a, b| order(a, b));
        assert_eq!(paths, [&b"a"[..], b"a/b", b"a/b/c", b"a-b", b"a.txt"]);
    }

    #[test]
    fn what_lies_in_a_folder_is_known() {
        let folders = [b"a/b".to_vec()];
        for (path, expected) in [("a/b", true), ("a/b/c", true), ("a/bc", false), ("a", false)] {
            assert_eq!(lies_in(path.as_bytes(), &folders), expected, "{path}");
        }
        assert!(lies_in(b"x", &[Vec::new()]));
    }

    #[test]
    fn each_field_is_told() {
        let mut old = Entry::new(*b"a", FileKind::File);
        old.content = Some(Stream::EMPTY);
        assert_eq!(compare(&old, &old), None);
        let check = |change: &dyn Fn(&mut Entry), expected: Change, fields: &[&str]| {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(compare(&old, &new), Some((expected, fields.to_vec())));
        };
        check(&|entry| entry.mode = 1, Change::Metadata, &["mode"]);
        check(&|entry| entry.mtime.secs = 1, Change::Metadata, &["mtime"]);
        check(&|entry| entry.owner.uid = 1, Change::Metadata, &["owner"]);
        check(&|entry| entry.size = 1, Change::Content, &["size"]);
        check(&|entry| entry.content = Some(Stream { len: 1, ..Stream::EMPTY }), Change::Content, &["content"]);
        check(&|entry| entry.kind = FileKind::Fifo, Change::Kind, &["kind"]);
        let mut torn = old.clone();
        (torn.torn, torn.btime) = (true, Some(crate::tree::Time { secs: 1, nanos: 0 }));
        assert_eq!(compare(&old, &torn), None);
        let (mut folder, mut later) = (old.clone(), old.clone());
        (folder.kind, later.kind, later.mtime.secs) = (FileKind::Directory, FileKind::Directory, 1);
        assert_eq!(compare(&folder, &later), None);
    }
}
