//! Disk usage: sizes of folders with everything below them, and of what was added to them since a snapshot.

use std::collections::BTreeMap;

use crate::catalogue::names::Named;
use crate::engine::query::diff::{self, Change, Difference, Visitor};
use crate::engine::query::index::{Graph, Hand, Index, IndexError, explore};
use crate::limits::{PATH_COST, PATHS_LEN_MAX};
use crate::path::{Shown, components, join};
use crate::progress::Progress;
use crate::tree::{Entry, FileKind, Stream};
use crate::vault::{ReadError, Vault};

/// Number and size of files and folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Total size of the regular files, including holes; a file with several names counts once for each name.
    pub bytes: u64,
    /// Number of files of all kinds except folders.
    pub files: u64,
    /// Number of folders, without the folder itself.
    pub folders: u64,
}

impl Usage {
    fn add(&mut self, other: &Self) {
        // No vault can be so large, but a forged one can claim to be.
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files = self.files.saturating_add(other.files);
        self.folders = self.folders.saturating_add(other.folders);
    }
}

/// A path and its usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The path.
    pub path: Vec<u8>,
    /// Its kind.
    pub kind: FileKind,
    /// Its usage, including everything below.
    pub usage: Usage,
}

/// Result of adding up.
#[derive(Debug, Default)]
pub struct Sums {
    /// All of it.
    pub total: Usage,
    /// Items down to the requested depth, the largest first.
    pub lines: Vec<Line>,
    /// Unreadable folders (counted as empty): how many, and the first error.
    pub broken: Option<(u64, ReadError)>,
}

fn sort(lines: &mut [Line]) {
    lines.sort_by(|a, b| b.usage.bytes.cmp(&a.usage.bytes).then_with(|| a.path.cmp(&b.path)));
}

/// Adds up a folder with path `base`, and lists its content down to `depth` levels.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it.
pub fn usage(
    vault: &Vault,
    listing: &Stream,
    base: &[u8],
    depth: u32,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Sums, IndexError> {
    let index = Index::looking_again(vault)?;
    let mut graph = explore(&index, std::slice::from_ref(listing), threads, progress, |usage: &mut Usage, entry| {
        match entry.kind {
            FileKind::Directory => {}
            _ => usage.add(&of_file(entry)),
        }
    })?;
    for number in graph.upwards() {
        let mut sum = graph.nodes[number].data;
        for child in &graph.nodes[number].children {
            sum.add(&graph.nodes[*child as usize].data);
            sum.add(&Usage { folders: 1, ..Usage::default() });
        }
        graph.nodes[number].data = sum;
    }
    let total = graph.number(listing).map(|number| graph.nodes[number].data).unwrap_or_default();
    let mut sums = Sums { total, ..Sums::default() };
    list(&mut index.hand(), &graph, listing, base, depth, progress, &mut sums.lines)?;
    sort(&mut sums.lines);
    let mut count = 0;
    for node in &mut graph.nodes {
        if let Some(error) = node.broken.take() {
            count += 1;
            sums.broken.get_or_insert((0, error)).0 = count;
        }
    }
    index.finish(None)?;
    Ok(sums)
}

fn of_file(entry: &Named<'_>) -> Usage {
    Usage { bytes: entry.size, files: 1, folders: 0 }
}

/// Number of bytes that the paths of lines take, which is limited: one folder may be at any number of paths.
#[derive(Debug, Default)]
struct Room(u64);

impl Room {
    /// Takes room for a line. Returns whether there is enough.
    fn take(&mut self, path: &[u8]) -> bool {
        self.0 = self.0.saturating_add(path.len() as u64 + PATH_COST);
        self.0 <= PATHS_LEN_MAX
    }
}

fn too_many(base: &[u8]) -> IndexError {
    IndexError::TooMany { path: if base.is_empty() { "the snapshot".to_owned() } else { Shown(base).to_string() } }
}

/// Lists the content of a folder down to `depth` levels.
fn list(
    hand: &mut Hand<'_, '_>,
    graph: &Graph<Usage>,
    listing: &Stream,
    base: &[u8],
    depth: u32,
    progress: &dyn Progress,
    lines: &mut Vec<Line>,
) -> Result<(), IndexError> {
    let (mut waiting, mut room, mut fits) = (vec![(base.to_vec(), listing.clone(), depth)], Room::default(), true);
    while let Some((path, listing, depth)) = waiting.pop() {
        if depth == 0 {
            continue;
        }
        if progress.stopped() {
            return Err(IndexError::Interrupted);
        }
        let read = hand.visit(&listing, &mut |entry| {
            let path = join(&path, entry.name);
            fits = fits && room.take(&path);
            if !fits {
                return;
            }
            let usage = match &entry.listing {
                None => of_file(entry),
                Some(listing) => graph.number(listing).map(|number| graph.nodes[number].data).unwrap_or_default(),
            };
            if let Some(listing) = &entry.listing {
                waiting.push((path.clone(), listing.clone(), depth - 1));
            }
            lines.push(Line { path, kind: entry.kind, usage });
        });
        match read {
            Err(error) if !error.is_contained() => return Err(error.into()),
            _ => {} // the graph knows of damage
        }
        if !fits {
            return Err(too_many(base));
        }
    }
    Ok(())
}

/// Adds up what is new: files that are added or have different content. Lines are made down to `depth` levels below the folder with path
/// `base`.
#[derive(Debug)]
pub struct News<'b> {
    base: &'b [u8],
    depth: usize,
    total: Usage,
    lines: BTreeMap<Vec<u8>, (FileKind, Usage)>,
    room: Room,
    fits: bool,
}

impl<'b> News<'b> {
    /// An empty sum.
    pub fn new(base: &'b [u8], depth: u32) -> Self {
        let (total, lines) = (Usage::default(), BTreeMap::new());
        Self { base, depth: depth as usize, total, lines, room: Room::default(), fits: true }
    }

    /// Offset in a path of the part below the folder.
    fn skip(&self) -> usize {
        if self.base.is_empty() { 0 } else { self.base.len() + 1 }
    }

    fn put(&mut self, path: &[u8], kind: FileKind, usage: &Usage) {
        if let Some((_, sum)) = self.lines.get_mut(path) {
            return sum.add(usage);
        }
        self.fits = self.fits && self.room.take(path);
        if self.fits {
            self.lines.insert(path.to_vec(), (kind, *usage));
        }
    }

    /// Adds to the lines of the folders that end at these offsets of a path.
    fn put_above(&mut self, path: &[u8], ends: impl Iterator<Item = usize>, usage: &Usage) {
        let (skip, depth) = (self.skip(), self.depth);
        ends.take(depth).for_each(|end| self.put(&path[..skip + end], FileKind::Directory, usage));
    }

    /// The sums.
    ///
    /// # Errors
    /// If there are more lines than can be listed.
    pub fn finish(self) -> Result<Sums, IndexError> {
        if !self.fits {
            return Err(too_many(self.base));
        }
        let lines = self.lines.into_iter().map(|(path, (kind, usage))| Line { path, kind, usage });
        let mut lines: Vec<Line> = lines.collect();
        sort(&mut lines);
        Ok(Sums { total: self.total, lines, broken: None })
    }
}

/// The offsets of the slashes in a path, where its folders end.
fn slashes(path: &[u8]) -> impl Iterator<Item = usize> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at)
}

impl Visitor for News<'_> {
    fn differs(&mut self, difference: Difference) -> bool {
        let Some(new) = difference.new.as_ref() else { return true };
        let usage = match (difference.change, new.kind) {
            (Change::Added | Change::Kind, FileKind::Directory) => Usage { folders: 1, ..Usage::default() },
            (Change::Metadata, _) | (_, FileKind::Directory) => return true,
            _ => Usage { bytes: new.size, files: 1, folders: 0 },
        };
        self.total.add(&usage);
        let path = &difference.path;
        let below = path.get(self.skip()..).unwrap_or_default();
        self.put_above(path, slashes(below), &usage);
        if components(below).count() <= self.depth && !below.is_empty() {
            // A folder does not count itself.
            let usage = if new.kind == FileKind::Directory { Usage::default() } else { usage };
            self.put(path, new.kind, &usage);
        }
        self.fits
    }

    /// Paths deeper than any line are only added up.
    fn again(&mut self, path: &[u8], sums: &diff::Sums) -> bool {
        let below = path.get(self.skip()..).unwrap_or_default();
        if components(below).count() < self.depth {
            return true;
        }
        let usage = Usage { bytes: sums.bytes_new, files: sums.files_new, folders: sums.folders_new };
        if usage == Usage::default() {
            return false;
        }
        self.total.add(&usage);
        self.put_above(path, slashes(below).chain([below.len()]), &usage);
        false
    }
}

/// The usage of a single file.
pub fn of_entry(path: &[u8], entry: &Entry) -> Sums {
    let usage = Usage { bytes: entry.size, files: 1, folders: 0 };
    Sums { total: usage, lines: vec![Line { path: path.to_vec(), kind: entry.kind, usage }], broken: None }
}
