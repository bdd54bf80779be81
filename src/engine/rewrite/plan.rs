//! Determines which files a rewrite removes from which snapshots. Each distinct folder is looked at once, through the index of names, and
//! again only where the part of its path that matters to the patterns differs. Only folders in which something changes are remembered.

use std::collections::{BTreeSet, HashMap};
use std::ops::AddAssign;

use crate::engine::patterns::exclude::{PatternError, Rules, means_root};
use crate::engine::query::index::{Hand, Index, IndexError, explore_ways};
use crate::id::{ObjectName, StreamKey};
use crate::limits::{PATH_COST, PATH_DEPTH_MAX, PATHS_LEN_MAX};
use crate::path::{Shown, join, to_path};
use crate::progress::Progress;
use crate::tree::stream::stream_key;
use crate::tree::{FileKind, Root, Snapshot, Stream};
use crate::vault::{ReadError, SnapshotInfo, Vault};

/// Why something could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is lost or damaged.
    Damaged,
    /// A later version wrote it.
    Newer,
    /// Another machine put it, and the sync has not brought all of it yet.
    NotArrived,
    /// It is longer than the limit for reading.
    TooLong,
}

impl Why {
    /// Key in the JSON output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Newer => "newer",
            Self::NotArrived => "not arrived",
            Self::TooLong => "too long",
        }
    }
}

/// A part of a snapshot that could not be read and so stays as it is.
#[derive(Debug, Clone)]
pub struct Unread {
    /// Path of a folder in the snapshot, which stays with its whole content; empty if the whole snapshot stays as it is.
    pub path: Vec<u8>,
    /// The reason.
    pub why: Why,
    /// The error, in words.
    pub what: String,
}

impl Unread {
    pub(super) fn new(path: &[u8], error: &ReadError) -> Self {
        let why = if error.is_newer() { Why::Newer } else { Why::Damaged };
        Self { path: path.to_vec(), why, what: error.to_string() }
    }
}

/// Number and size of files and folders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of files of all kinds except folders.
    pub files: u64,
    /// Number of folders.
    pub folders: u64,
    /// Total size of the regular files.
    pub bytes: u64,
}

impl AddAssign for Sum {
    /// Saturates: sizes come from entries and may be wrong.
    fn add_assign(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.folders = self.folders.saturating_add(other.folders);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// A file or folder that is removed, with its whole content.
#[derive(Debug, Clone)]
pub struct Gone {
    /// Its name in its folder.
    pub(super) name: Vec<u8>,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// The item and its whole content.
    pub sum: Sum,
}

/// A folder that changes because something in it or below is removed.
#[derive(Debug)]
pub(super) struct Node {
    /// The old listing.
    pub(super) listing: Stream,
    /// Items to remove, ordered by name.
    pub(super) gone: Vec<Gone>,
    /// The folders in it that change, ordered by name, each with its number, which is always lower than the number of this folder.
    pub(super) below: Vec<(Vec<u8>, u32)>,
    /// Everything that is removed, here and below.
    sum: Sum,
    /// Number of removed items; a folder with its content is one.
    count: u64,
    /// Bytes of their paths from here on.
    paths_len: u64,
}

/// The effect on a folder.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// The number of its node, if something in it is removed.
    changes: Option<u32>,
    /// The way to the first unreadable folder: this one or one below it.
    unread: Option<u32>,
}

/// The way from a folder to an unreadable one.
#[derive(Debug)]
enum Way {
    /// This folder is the unreadable one (with an empty path).
    Here(Unread),
    /// It is in the folder of this name, and the way with this number leads on from there.
    Below(Vec<u8>, u32),
}

impl Fate {
    const STAYS: Self = Self { changes: None, unread: None };
}

/// A snapshot from which something is removed.
#[derive(Debug)]
pub struct Thinned {
    /// Its top folder.
    pub(super) node: u32,
    /// Everything that is removed.
    pub sum: Sum,
    /// Number of removed items; a folder with its content is one.
    pub count: u64,
}

/// The files and folders to remove from some snapshots.
#[derive(Debug, Default)]
pub struct TreePlan {
    pub(super) nodes: Vec<Node>,
    fates: HashMap<(StreamKey, [u8; 16]), Fate>,
    sums: HashMap<StreamKey, Sum>,
    /// Ways to unreadable folders.
    unread: Vec<Way>,
    /// Number of folders looked into; one that is at several places may count several times.
    pub looked_into: u64,
}

/// The effect on the tree of one snapshot.
#[derive(Debug)]
pub(super) enum TreeFate {
    /// Nothing is removed.
    Stays,
    /// Something is removed.
    Thinned(Thinned),
    /// Everything would be removed. An empty snapshot says nothing: its owner should forget it instead.
    All(Sum),
}

/// The effect, and the first unreadable folder.
type Planned = (TreeFate, Option<Unread>);

/// A folder that is being looked at.
struct Frame {
    key: (StreamKey, [u8; 16]),
    name: Vec<u8>,
    /// Path below its root.
    path: Vec<u8>,
    node: Node,
    rest: std::vec::IntoIter<(Vec<u8>, Stream)>,
    unread: Option<u32>,
}

/// The path of a root that patterns apply to: the path it was read from or, if it came from an archive or another program, its path in
/// the snapshot.
pub(super) fn place_of(roots: &[Root], name: &[u8]) -> Vec<u8> {
    let path = roots.iter().find(|root| root.name == name).map(|root| &root.path);
    path.filter(|path| !path.is_empty()).cloned().unwrap_or_else(|| [b"/", name].concat())
}

/// Paths in a snapshot that are removed whatever the patterns say: somebody else has removed them.
pub(super) type Taken = BTreeSet<Vec<u8>>;

/// The rules for one root.
struct Ground<'g> {
    rules: Rules,
    place: Vec<u8>,
    name: &'g [u8],
    taken: &'g Taken,
}

impl Ground<'_> {
    /// Hash of the rules and of the part of a path that matters to them: it determines what they say about everything below the path.
    fn key(&self, path: &[u8]) -> [u8; 16] {
        let mut key = [0; 16];
        let mut hasher = blake3::Hasher::new();
        let here = if path.is_empty() { self.name.to_vec() } else { join(self.name, path) };
        let start = [&here[..], b"/"].concat();
        let mut below = self.taken.range(start.clone()..);
        if below.next().is_some_and(|taken| taken.starts_with(&start)) {
            hasher.update(&start);
            for taken in self.taken {
                hasher.update(&(taken.len() as u64).to_le_bytes()).update(taken);
            }
        }
        hasher.update(&u64::MAX.to_le_bytes());
        hasher.update(&(self.place.len() as u64).to_le_bytes()).update(&self.place);
        let mut counts = Vec::new();
        self.rules.put_ahead(path, &mut counts);
        hasher.update(&counts).finalize_xof().fill(&mut key);
        key
    }

    /// Whether the item at a path below the root is removed.
    fn goes(&self, path: &[u8], is_folder: bool) -> bool {
        self.rules.exclude(path, is_folder) || !self.taken.is_empty() && self.taken.contains(&join(self.name, path))
    }
}

/// Determines what these patterns and the paths in `taken` remove from each snapshot, and the first folder of each that cannot be read.
/// The content of such a folder stays.
///
/// # Errors
/// If a pattern is not valid, the catalogue or the store fails as a whole, or the user stops it.
pub(super) fn plan(
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    patterns: &[String],
    taken: &HashMap<ObjectName, Taken>,
    threads: usize,
    progress: &dyn Progress,
) -> Result<(TreePlan, Vec<Planned>), PlanError> {
    let index = Index::new(vault)?;
    let tops: Vec<Stream> = snapshots.iter().map(|info| info.body.tree.clone()).collect();
    // All threads read what the index does not have yet.
    explore_ways(&index, &tops, threads, progress)?;
    let index = index.renew(None)?;
    let (mut plan, mut hand) = (TreePlan::default(), index.hand());
    let (mut fates, nothing) = (Vec::new(), Taken::new());
    for info in snapshots {
        let taken = taken.get(&info.id).unwrap_or(&nothing);
        fates.push(plan.snapshot(&mut hand, &info.body, patterns, taken, progress)?);
    }
    drop(hand);
    index.finish(None)?;
    Ok((plan, fates))
}

/// Why the plan could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A pattern is not valid.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The catalogue or the store failed, or the user stopped it.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<ReadError> for PlanError {
    fn from(error: ReadError) -> Self {
        Self::Index(error.into())
    }
}

impl TreePlan {
    /// Calls `each` for every item removed from a snapshot, with its path in it, until it returns `false`.
    pub fn for_each(&self, thinned: &Thinned, mut each: impl FnMut(&[u8], &Gone) -> bool) {
        let mut waiting = vec![(Vec::new(), thinned.node)];
        while let Some((path, number)) = waiting.pop() {
            let Some(node) = self.nodes.get(number as usize) else { continue };
            if !node.gone.iter().all(|gone| each(&join(&path, &gone.name), gone)) {
                return;
            }
            waiting.extend(node.below.iter().rev().map(|(name, below)| (join(&path, name), *below)));
        }
    }

    fn snapshot(
        &mut self,
        hand: &mut Hand<'_, '_>,
        body: &Snapshot,
        patterns: &[String],
        taken: &Taken,
        progress: &dyn Progress,
    ) -> Result<Planned, PlanError> {
        let mut roots = Vec::new();
        let read = hand.visit(&body.tree, &mut |entry| {
            let is_folder = entry.kind == FileKind::Directory;
            roots.push((Gone::new(entry.name, is_folder, entry.size), entry.listing.clone()));
        });
        match read {
            Err(error) if error.is_contained() => return Ok((TreeFate::Stays, Some(Unread::new(b"", &error)))),
            read => read?,
        }
        let mut top = Node::new(&body.tree);
        let (count, mut unread) = (roots.len(), None);
        for (root, listing) in roots {
            let place = place_of(&body.roots, &root.name);
            if taken.contains(&root.name) || means_root(patterns, &place, root.is_folder)? {
                self.add_gone(&mut top, hand, root, listing, progress)?;
                continue;
            }
            let Some(listing) = listing else { continue };
            let ground = Ground { rules: Rules::new(patterns, &to_path(&place))?, place, name: &root.name, taken };
            let fate = self.folder(hand, &ground, listing, progress)?;
            if let Some(found) =
                fate.unread.filter(|_| unread.is_none()).and_then(|way| self.unread_at(&root.name, way))
            {
                unread = Some(found);
            }
            if let Some(number) = fate.changes {
                self.add_below(&mut top, root.name, number);
            }
        }
        let (sum, goes, paths_len) = (top.sum, top.count, top.paths_len);
        let fate = match top.gone.len() {
            _ if goes == 0 => TreeFate::Stays,
            gone if gone == count => TreeFate::All(sum),
            _ => TreeFate::Thinned(Thinned { node: self.add(top), sum, count: goes }),
        };
        if let (TreeFate::Thinned(thinned), true) = (&fate, paths_len > PATHS_LEN_MAX) {
            return Ok((TreeFate::Stays, Some(self.too_many(thinned))));
        }
        Ok((fate, unread))
    }

    /// More items would be removed from a snapshot than can be listed: one folder is at very many places in it.
    fn too_many(&self, thinned: &Thinned) -> Unread {
        let mut first = Vec::new();
        self.for_each(thinned, |path, _| {
            first = path.to_vec();
            false
        });
        let what = format!("{} things in it would go, the first is {}", thinned.count, Shown(&first));
        Unread { path: Vec::new(), why: Why::TooLong, what }
    }

    /// The unreadable folder that a way leads to from a folder with this path.
    fn unread_at(&self, path: &[u8], way: u32) -> Option<Unread> {
        let (mut path, mut way) = (path.to_vec(), self.unread.get(way as usize)?);
        loop {
            match way {
                Way::Here(unread) => return Some(Unread { path, ..unread.clone() }),
                Way::Below(name, next) => {
                    path = join(&path, name);
                    way = self.unread.get(*next as usize)?;
                }
            }
        }
    }

    fn way(&mut self, way: Way) -> u32 {
        self.unread.push(way);
        self.unread.len() as u32 - 1
    }

    fn add(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    fn add_below(&self, node: &mut Node, name: Vec<u8>, number: u32) {
        if let Some(below) = self.nodes.get(number as usize) {
            node.sum += below.sum;
            node.count = node.count.saturating_add(below.count);
            let longer = below.count.saturating_mul(name.len() as u64 + 1);
            node.paths_len = node.paths_len.saturating_add(below.paths_len).saturating_add(longer);
            node.below.push((name, number));
        }
    }

    /// Adds an item of a folder that is removed with its whole content.
    fn add_gone(
        &mut self,
        node: &mut Node,
        hand: &mut Hand<'_, '_>,
        mut gone: Gone,
        listing: Option<Stream>,
        progress: &dyn Progress,
    ) -> Result<(), PlanError> {
        if let Some(listing) = listing {
            gone.sum += self.sum(hand, &listing, progress)?;
        }
        node.sum += gone.sum;
        node.count = node.count.saturating_add(1);
        node.paths_len = node.paths_len.saturating_add(gone.name.len() as u64 + PATH_COST);
        node.gone.push(gone);
        Ok(())
    }

    /// Determines the effect on a root's folder and its whole content.
    fn folder(
        &mut self,
        hand: &mut Hand<'_, '_>,
        ground: &Ground<'_>,
        listing: Stream,
        progress: &dyn Progress,
    ) -> Result<Fate, PlanError> {
        let mut way: Vec<Frame> = Vec::new();
        let mut next = Some((Vec::new(), Vec::new(), listing));
        loop {
            let mut known = None;
            if let Some((name, path, listing)) = next.take() {
                let key = (stream_key(&listing), ground.key(&path));
                known = self.fates.get(&key).map(|fate| (name.clone(), *fate));
                if known.is_none() {
                    let frame = Frame::new(key, name, path, &listing);
                    way.push(self.open(hand, ground, frame, way.len() > PATH_DEPTH_MAX, progress)?);
                }
            }
            let (name, fate) = if let Some(known) = known {
                known
            } else {
                let Some(frame) = way.last_mut() else { return Ok(Fate::STAYS) };
                if let Some((name, listing)) = frame.rest.next() {
                    let path = join(&frame.path, &name);
                    next = Some((name, path, listing));
                    continue;
                }
                let Some(done) = way.pop() else { return Ok(Fate::STAYS) };
                self.close(done)
            };
            let Some(above) = way.last_mut() else { return Ok(fate) };
            if let (Some(below), None) = (fate.unread, above.unread) {
                above.unread = Some(self.way(Way::Below(name.clone(), below)));
            }
            if let Some(number) = fate.changes {
                self.add_below(&mut above.node, name, number);
            }
        }
    }

    /// Looks into a folder: which items are removed, and which folders to look at next.
    fn open(
        &mut self,
        hand: &mut Hand<'_, '_>,
        ground: &Ground<'_>,
        mut frame: Frame,
        is_too_deep: bool,
        progress: &dyn Progress,
    ) -> Result<Frame, PlanError> {
        if progress.stopped() {
            return Err(IndexError::Interrupted.into());
        }
        if is_too_deep {
            let what = "it lies too deep".to_owned();
            return Ok(self.give_up(frame, Unread { path: Vec::new(), why: Why::Damaged, what }));
        }
        self.looked_into += 1;
        let (mut gone, mut rest, mut files) = (Vec::new(), Vec::new(), 0);
        let read = hand.visit(&frame.node.listing, &mut |entry| {
            let is_folder = entry.kind == FileKind::Directory;
            files += u64::from(!is_folder);
            if ground.goes(&join(&frame.path, entry.name), is_folder) {
                gone.push((Gone::new(entry.name, is_folder, entry.size), entry.listing.clone()));
            } else if let Some(listing) = &entry.listing {
                rest.push((entry.name.to_vec(), listing.clone()));
            }
        });
        progress.counters().add(files, 0);
        match read {
            Err(error) if error.is_contained() => return Ok(self.give_up(frame, Unread::new(b"", &error))),
            read => read?,
        }
        for (gone, listing) in gone {
            self.add_gone(&mut frame.node, hand, gone, listing, progress)?;
        }
        frame.rest = rest.into_iter();
        Ok(frame)
    }

    fn give_up(&mut self, frame: Frame, unread: Unread) -> Frame {
        Frame { unread: Some(self.way(Way::Here(unread))), ..frame }
    }

    /// Finishes a folder whose whole content has been looked at.
    fn close(&mut self, done: Frame) -> (Vec<u8>, Fate) {
        let fate = Fate { changes: (done.node.count > 0).then(|| self.add(done.node)), unread: done.unread };
        self.fates.insert(done.key, fate);
        (done.name, fate)
    }

    /// Number and size of everything in a folder that is removed as a whole, as far as it can be read.
    fn sum(&mut self, hand: &mut Hand<'_, '_>, listing: &Stream, progress: &dyn Progress) -> Result<Sum, PlanError> {
        let mut way: Vec<(StreamKey, Sum, Vec<Stream>)> = Vec::new();
        let mut next = Some(listing.clone());
        loop {
            let mut known = None;
            if let Some(listing) = next.take() {
                if progress.stopped() {
                    return Err(IndexError::Interrupted.into());
                }
                let key = stream_key(&listing);
                known = self.sums.get(&key).copied();
                if known.is_none() && way.len() <= PATH_DEPTH_MAX {
                    let (mut sum, mut below) = (Sum::default(), Vec::new());
                    let read = hand.visit(&listing, &mut |entry| match &entry.listing {
                        Some(listing) => below.push(listing.clone()),
                        None => sum += Sum { files: 1, folders: 0, bytes: entry.size },
                    });
                    match read {
                        Err(error) if error.is_contained() => {}
                        read => read?,
                    }
                    way.push((key, sum, below));
                }
            }
            let sum = if let Some(sum) = known {
                sum
            } else {
                let Some((_, _, below)) = way.last_mut() else { return Ok(Sum::default()) };
                if let Some(listing) = below.pop() {
                    next = Some(listing);
                    continue;
                }
                let Some((key, sum, _)) = way.pop() else { return Ok(Sum::default()) };
                self.sums.insert(key, sum);
                sum
            };
            let Some((_, above, _)) = way.last_mut() else { return Ok(sum) };
            *above += sum;
            *above += Sum { folders: 1, ..Sum::default() };
        }
    }
}

impl Gone {
    /// A file, or a folder without its content.
    fn new(name: &[u8], is_folder: bool, size: u64) -> Self {
        let sum =
            if is_folder { Sum { files: 0, folders: 1, bytes: 0 } } else { Sum { files: 1, folders: 0, bytes: size } };
        Self { name: name.to_vec(), is_folder, sum }
    }
}

impl Node {
    fn new(listing: &Stream) -> Self {
        let (gone, below, sum) = (Vec::new(), Vec::new(), Sum::default());
        Self { listing: listing.clone(), gone, below, sum, count: 0, paths_len: 0 }
    }
}

impl Frame {
    fn new(key: (StreamKey, [u8; 16]), name: Vec<u8>, path: Vec<u8>, listing: &Stream) -> Self {
        Self { key, name, path, node: Node::new(listing), rest: Vec::new().into_iter(), unread: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_out_counts_for_the_folders_above_it() {
        let (none, taken) = (Taken::new(), Taken::from([b"root/a/b".to_vec()]));
        let key = |taken: &Taken, path: &str| {
            let rules = Rules::new(&["*.o".to_owned()], &to_path(b"/x")).unwrap();
            Ground { rules, place: b"/x".to_vec(), name: b"root", taken }.key(path.as_bytes())
        };
        for (path, counts) in [("", true), ("a", true), ("a/b", false), ("a/c", false), ("ab", false)] {
            assert_eq!(key(&none, path) != key(&taken, path), counts, "{path}");
        }
        // Patterns of names alone have the same key in each folder.
        assert_eq!(key(&none, ""), key(&none, "a/c"));
    }
}
