//! Differences between two trees. Folders with equal listings are never read, so the cost depends on the size of the difference.
//!
//! A vault can contain one folder at many places, and so have far more paths than folders. Two folders that were compared before are not
//! compared again if nothing differed, or if the caller only needs the counts: then the earlier counts are added again.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::engine::query::browse::{BrowseError, Step, TreeWalk};
use crate::id::StreamKey;
use crate::path::{Shown, called};
use crate::progress::Progress;
use crate::read::TreeReader;
use crate::tree::stream::stream_key;
use crate::tree::{ChunkSource, Entry, EntryError, FileKind, Stream};
use crate::vault::ReadError;

/// Why a path is not in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Absence {
    /// It did not exist.
    Gone,
    /// A rule left out the path or a folder above it; or it was removed from the snapshot later.
    LeftOut,
    /// The path or a folder above it could not be read.
    Unread,
    /// The disk of its root was probably not mounted.
    NotMounted,
    /// The snapshot does not say what it left out, or that part of it cannot be read.
    Unknown,
}

impl Absence {
    /// Key in the JSON output.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::LeftOut => "left_out",
            Self::Unread => "unread",
            Self::NotMounted => "not_mounted",
            Self::Unknown => "unknown",
        }
    }

    /// Text for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::LeftOut => "left out by a rule",
            Self::Unread => "could not be read",
            Self::NotMounted => "its disk was probably not mounted",
            Self::Unknown => "not there, or left out",
        }
    }
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the second tree has it.
    Added,
    /// Only the first tree has it.
    Removed,
    /// The content differs.
    Content,
    /// Only metadata differs.
    Metadata,
    /// The kind of file differs.
    Kind,
    /// Only one tree has it, and the other may lack it for another reason than deletion: see [`Judge`](crate::engine::query::absence::Judge).
    Omitted(Absence),
}

/// A path that differs.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The path.
    pub path: Vec<u8>,
    /// How it differs.
    pub change: Change,
    /// The fields that differ: `kind`, `content`, `size`, `holes`, `target`, `device`, `mode`, `owner`, `mtime`, `xattrs`, `flags`. Empty
    /// if only one tree has the path.
    pub fields: Vec<&'static str>,
    /// Its entry in the first tree.
    pub old: Option<Entry>,
    /// Its entry in the second tree.
    pub new: Option<Entry>,
}

/// Number and size of the differences between two trees.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sums {
    /// Number of paths only in the second tree.
    pub added: u64,
    /// Number of paths only in the first tree.
    pub removed: u64,
    /// Number of paths with different content.
    pub changed: u64,
    /// Number of paths that differ only in metadata.
    pub metadata: u64,
    /// Number of paths of different kinds.
    pub kind: u64,
    /// Total size, in the second tree, of files that are added or have different content.
    pub bytes_new: u64,
    /// Total size, in the first tree, of files that are removed or have different content.
    pub bytes_old: u64,
    /// Number of paths left out of one tree by a rule; a folder with its content is one.
    pub left_out: u64,
    /// Number of paths that could not be compared.
    pub unknown: u64,
    /// Number of files of all kinds except folders that are added or have different content.
    #[serde(skip)]
    pub files_new: u64,
    /// Number of added folders.
    #[serde(skip)]
    pub folders_new: u64,
}

impl Sums {
    /// Counts a difference.
    fn add(&mut self, difference: &Difference) {
        let mut one = Self::default();
        *match difference.change {
            Change::Added => &mut one.added,
            Change::Removed => &mut one.removed,
            Change::Content => &mut one.changed,
            Change::Metadata => &mut one.metadata,
            Change::Kind => &mut one.kind,
            Change::Omitted(Absence::LeftOut) => &mut one.left_out,
            Change::Omitted(_) => &mut one.unknown,
        } = 1;
        if !matches!(difference.change, Change::Metadata | Change::Omitted(_)) {
            one.bytes_new = difference.new.as_ref().map_or(0, |entry| entry.size);
            one.bytes_old = difference.old.as_ref().map_or(0, |entry| entry.size);
            match (&difference.new, difference.change) {
                (Some(new), _) if new.kind != FileKind::Directory => one.files_new = 1,
                (Some(_), Change::Added | Change::Kind) => one.folders_new = 1,
                _ => {}
            }
        }
        self.each(&one, u64::saturating_add);
    }

    /// The increase of these sums since `before`.
    fn since(&self, before: &Self) -> Self {
        let mut news = self.clone();
        news.each(before, u64::saturating_sub);
        news
    }

    fn each(&mut self, other: &Self, how: fn(u64, u64) -> u64) {
        for (sum, other) in [
            (&mut self.added, other.added),
            (&mut self.removed, other.removed),
            (&mut self.changed, other.changed),
            (&mut self.metadata, other.metadata),
            (&mut self.kind, other.kind),
            (&mut self.left_out, other.left_out),
            (&mut self.unknown, other.unknown),
            (&mut self.bytes_new, other.bytes_new),
            (&mut self.bytes_old, other.bytes_old),
            (&mut self.files_new, other.files_new),
            (&mut self.folders_new, other.folders_new),
        ] {
            *sum = how(*sum, other);
        }
    }

    /// Whether one tree lacks paths that the other has: the reason may depend on the path.
    const fn has_absent(&self) -> bool {
        self.added > 0 || self.removed > 0 || self.left_out > 0 || self.unknown > 0
    }

    /// Whether nothing differs.
    pub const fn is_nothing(&self) -> bool {
        self.added == 0 && self.removed == 0 && self.changed == 0 && self.metadata == 0 && self.kind == 0
    }
}

/// Result of a comparison.
#[derive(Debug, Default)]
pub struct Compared {
    /// Folders that could not be read, each by the first path at which it was found, with the error; their content was not compared.
    pub broken: Vec<(Vec<u8>, ReadError)>,
    /// Counts of the differences, without what could not be compared.
    pub sums: Sums,
}

/// Receives differences.
pub trait Visitor {
    /// Receives a path that differs, in the order of the names. Returns whether to go on.
    fn differs(&mut self, difference: Difference) -> bool;

    /// The difference as it is to be reported and counted; `None` if it is inside something already reported.
    fn judge(&mut self, difference: Difference) -> Option<Difference> {
        Some(difference)
    }

    /// Whether [`Visitor::judge`] depends on the path.
    fn judges_by_path(&self) -> bool {
        false
    }

    /// Called for two folders that were compared before, at another path, with these results. Returns whether each of their differences
    /// should be reported again; if not, they are only counted.
    fn again(&mut self, _path: &[u8], _sums: &Sums) -> bool {
        true
    }
}

impl<F: FnMut(Difference) -> bool> Visitor for F {
    fn differs(&mut self, difference: Difference) -> bool {
        self(difference)
    }
}

/// The difference between two entries at one path; `None` if they would be restored alike. The times of folders are ignored, since they
/// change with every change in the folder.
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

/// The state of one of the two walks.
struct Side<'s, S> {
    walk: Option<TreeWalk>,
    source: &'s mut S,
    /// The next entry, if it has been read, and whether it is a folder that was entered.
    next: Option<(Entry, bool)>,
}

/// The state of a path in one tree: the entry, if there is one, and the key of its listing if it is a folder that was entered.
type Item = (Option<Entry>, Option<StreamKey>);

impl<'s, S: ChunkSource<Error = ReadError>> Side<'s, S> {
    /// The walk of a folder's content; of anything else, a walk without entries.
    fn new(base: &[u8], top: &Entry, source: &'s mut S) -> Self {
        Self { walk: listing_of(top).map(|listing| TreeWalk::new(base, listing)), source, next: None }
    }

    /// Reads the next entry. Returns whether there is one.
    fn peek(&mut self, work: &mut Work<'_>) -> Result<bool, BrowseError> {
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
                    work.broken(walk.path(), entry.content.as_ref(), error);
                }
                Some(Step::Broken(error)) if error.is_contained() => {
                    work.broken(walk.path(), walk.listing(), error);
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

    /// Takes the next entry, if it has been read, and the key of its listing if it was entered.
    fn take(&mut self) -> Item {
        let Some((entry, is_entered)) = self.next.take() else { return (None, None) };
        let key = entry.content.as_ref().filter(|_| is_entered).map(stream_key);
        (Some(entry), key)
    }

    /// Skips the content of the folder taken last.
    fn skip(&mut self) {
        self.walk.iter_mut().for_each(TreeWalk::skip);
    }
}

/// Takes the next path of two trees, with what each of them has there; `None` at the end of both.
fn next_path<A, B>(
    a: &mut Side<'_, A>,
    b: &mut Side<'_, B>,
    work: &mut Work<'_>,
) -> Result<Option<(Vec<u8>, Item, Item)>, BrowseError>
where
    A: ChunkSource<Error = ReadError>,
    B: ChunkSource<Error = ReadError>,
{
    let (from_a, from_b) = match (a.peek(work)?, b.peek(work)?) {
        (false, false) => return Ok(None),
        (true, true) => {
            let order = order(a.path(), b.path());
            (order.is_le(), order.is_ge())
        }
        sides => sides,
    };
    let path = if from_a { a.path() } else { b.path() }.to_vec();
    let old = if from_a { a.take() } else { (None, None) };
    let new = if from_b { b.take() } else { (None, None) };
    Ok(Some((path, old, new)))
}

/// The keys of two folders that are compared; `None` if one does not exist.
type Pair = (Option<StreamKey>, Option<StreamKey>);

/// The state of a comparison.
struct Work<'u> {
    compared: Compared,
    /// Paths that the second tree does not have completely, in order.
    unknown: Vec<&'u [u8]>,
    /// Listings that could not be read and have been reported.
    told: HashSet<Option<StreamKey>>,
    /// The unreadable folders on the way to the current path.
    shut: Vec<Vec<u8>>,
    /// The folders on the way, each with the counts before it was entered.
    way: Vec<(Vec<u8>, Pair, Sums)>,
    /// Counts for folders that have been compared.
    known: HashMap<Pair, Sums>,
}

impl<'u> Work<'u> {
    /// A comparison that has not begun.
    fn new(unknown: &'u [Vec<u8>]) -> Self {
        let mut unknown: Vec<&[u8]> = unknown.iter().map(Vec::as_slice).collect();
        unknown.sort_unstable();
        Self {
            compared: Compared::default(),
            unknown,
            told: HashSet::new(),
            shut: Vec::new(),
            way: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Counts a difference and reports it. Returns whether to go on.
    fn report(&mut self, difference: Difference, visitor: &mut dyn Visitor) -> bool {
        self.compared.sums.add(&difference);
        visitor.differs(difference)
    }

    /// Records that a folder cannot be read.
    fn broken(&mut self, path: &[u8], listing: Option<&Stream>, error: ReadError) {
        self.shut.push(path.to_vec());
        if self.told.insert(listing.map(stream_key)) {
            self.compared.broken.push((path.to_vec(), error));
        }
    }

    /// Leaves the folders that do not contain this path.
    fn come_to(&mut self, path: &[u8]) {
        let is_in = |folder: &[u8]| lies_in(path, folder) && path.len() > folder.len();
        while let Some((_, pair, before)) = self.way.pop_if(|(folder, ..)| !is_in(folder)) {
            self.known.insert(pair, self.compared.sums.since(&before));
        }
        while self.shut.pop_if(|folder| order(path, folder).is_gt() && !lies_in(path, folder)).is_some() {}
    }

    /// Whether nothing is known of a path.
    fn is_unknown(&self, path: &[u8]) -> bool {
        self.unknown.iter().any(|folder| lies_in(path, folder))
    }

    /// Whether nothing is known of some path in a folder.
    fn has_unknown(&self, folder: &[u8]) -> bool {
        let start = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
        let first = self.unknown.partition_point(|path| *path < start.as_slice());
        self.unknown.get(first).is_some_and(|path| path.starts_with(&start))
    }

    /// Comes to two folders that differ. Returns whether to enter them.
    fn enter(&mut self, path: Vec<u8>, pair: Pair, visitor: &mut dyn Visitor) -> bool {
        if self.is_unknown(&path) {
            return false;
        }
        if self.has_unknown(&path) {
            return true;
        }
        if let Some(sums) = self.known.get(&pair)
            && !(sums.has_absent() && visitor.judges_by_path())
            && (sums.is_nothing() || !visitor.again(&path, sums))
        {
            self.compared.sums.each(sums, u64::saturating_add);
            return false;
        }
        self.way.push((path, pair, self.compared.sums.clone()));
        true
    }
}

/// The order in which trees are walked: by name, one component after the other.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    // No name contains a zero byte, so with zero bytes for slashes, byte order is the order of the components.
    let bytes = |path: &[u8]| -> Vec<u8> { path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect() };
    bytes(a).cmp(&bytes(b))
}

/// Whether a path is this one or is below it.
fn lies_in(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || folder.is_empty() || rest.starts_with(b"/"))
}

/// The listing of a folder.
fn listing_of(entry: &Entry) -> Option<&Stream> {
    entry.content.as_ref().filter(|_| entry.kind == FileKind::Directory)
}

/// To be called before two trees of one vault are compared: brings the folders that differ from a far store, those of one depth together.
pub fn bring(old: &Entry, new: &Entry, trees: &TreeReader<'_>, progress: &dyn Progress) {
    if let (Some(old), Some(new)) = (listing_of(old), listing_of(new)) {
        trees.bring_differences(old, new, &|| !progress.stopped());
    }
}

/// Compares two entries and everything below them; `base` is their path. Reports each path that differs, in the order of the names, until
/// the visitor has enough. `unknown` are paths that the second tree does not have completely; they and everything below them are not
/// reported.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it.
pub fn diff<A, B>(
    base: &[u8],
    old: (Entry, &mut A),
    new: (Entry, &mut B),
    unknown: &[Vec<u8>],
    progress: &dyn Progress,
    visitor: &mut dyn Visitor,
) -> Result<Compared, BrowseError>
where
    A: ChunkSource<Error = ReadError>,
    B: ChunkSource<Error = ReadError>,
{
    let mut work = Work::new(unknown);
    let ((old, old_source), (new, new_source)) = (old, new);
    if !base.is_empty()
        && !work.is_unknown(base)
        && let Some((change, fields)) = compare(&old, &new)
    {
        let (old, new) = (Some(old.clone()), Some(new.clone()));
        let difference = Difference { path: base.to_vec(), change, fields, old, new };
        if !work.report(difference, visitor) {
            return Ok(work.compared);
        }
    }
    if listing_of(&old) == listing_of(&new) {
        return Ok(work.compared);
    }
    let mut a = Side::new(base, &old, old_source);
    let mut b = Side::new(base, &new, new_source);
    loop {
        if progress.stopped() {
            return Err(BrowseError::Interrupted);
        }
        let Some((path, (old, old_key), (new, new_key))) = next_path(&mut a, &mut b, &mut work)? else {
            return Ok(work.compared);
        };
        progress.counters().add(1, 0);
        work.come_to(&path);
        let are_folders = old_key.is_some() && new_key.is_some();
        let is_same = are_folders && matches!((&old, &new), (Some(a), Some(b)) if a.content == b.content);
        let difference = difference(&path, old, new);
        if let Some(difference) = difference
            && !work.shut.iter().any(|folder| lies_in(&path, folder))
            && !work.is_unknown(&path)
            && let Some(difference) = visitor.judge(difference)
            && !work.report(difference, visitor)
        {
            return Ok(work.compared);
        }
        let is_entered = old_key.is_some() || new_key.is_some();
        if is_entered && (is_same || !work.enter(path, (old_key, new_key), visitor)) {
            old_key.iter().for_each(|_| a.skip());
            new_key.iter().for_each(|_| b.skip());
        }
    }
}

/// The difference between the entries of two trees at one path.
fn difference(path: &[u8], old: Option<Entry>, new: Option<Entry>) -> Option<Difference> {
    let (change, fields) = match (&old, &new) {
        (Some(old), Some(new)) => compare(old, new)?,
        (None, _) => (Change::Added, Vec::new()),
        (_, None) => (Change::Removed, Vec::new()),
    };
    Some(Difference { path: path.to_vec(), change, fields, old, new })
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
        for (path, expected) in [("a/b", true), ("a/b/c", true), ("a/bc", false), ("a", false)] {
            assert_eq!(lies_in(path.as_bytes(), b"a/b"), expected, "{path}");
        }
        assert!(lies_in(b"x", b""));
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
