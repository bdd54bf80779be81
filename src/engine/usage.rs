//! What takes up the space: sizes of folders with all below them, and of what is new in them since a snapshot.

use std::collections::BTreeMap;

use crate::catalogue::names::Named;
use crate::engine::diff::{Change, Difference};
use crate::engine::index::{Graph, Hand, Index, IndexError, explore};
use crate::path::join;
use crate::progress::Progress;
use crate::tree::{Entry, FileKind, Stream};
use crate::vault::{ReadError, Vault};

/// How much something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Sizes of the regular files, holes included, each name of a file with several counted.
    pub bytes: u64,
    /// Files of every kind but folders.
    pub files: u64,
    /// Folders, itself not included.
    pub folders: u64,
}

impl Usage {
    fn add(&mut self, other: &Self) {
        // A vault cannot hold so much, but a forged one can say so.
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files = self.files.saturating_add(other.files);
        self.folders = self.folders.saturating_add(other.folders);
    }
}

/// A path and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The path.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// What it holds, with all below.
    pub usage: Usage,
}

/// What was added up.
#[derive(Debug, Default)]
pub struct Sums {
    /// All of it.
    pub total: Usage,
    /// What lies at most so deep as was asked for, the largest first.
    pub lines: Vec<Line>,
    /// Folders that could not be read: they count as empty. Only their number is known, and why the first could not be.
    pub broken: Option<(u64, ReadError)>,
}

fn sort(lines: &mut [Line]) {
    lines.sort_by(|a, b| b.usage.bytes.cmp(&a.usage.bytes).then_with(|| a.path.cmp(&b.path)));
}

/// Adds up a folder that is called `base`, and says what is in it down to `depth` levels.
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
    let index = Index::new(vault)?;
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
    list(&mut index.hand(), &graph, listing, base, depth, &mut sums.lines)?;
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

/// Lists what lies in a folder down to `depth` levels.
fn list(
    hand: &mut Hand<'_, '_>,
    graph: &Graph<Usage>,
    listing: &Stream,
    base: &[u8],
    depth: u32,
    lines: &mut Vec<Line>,
) -> Result<(), IndexError> {
    let mut waiting = vec![(base.to_vec(), listing.clone(), depth)];
    while let Some((path, listing, depth)) = waiting.pop() {
        if depth == 0 {
            continue;
        }
        let read = hand.visit(&listing, &mut |entry| {
            let path = join(&path, entry.name);
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
    }
    Ok(())
}

/// Adds up what is new: files that are added or have another content.
#[derive(Debug, Default)]
pub struct News {
    total: Usage,
    lines: BTreeMap<Vec<u8>, (FileKind, Usage)>,
}

impl News {
    /// Takes a difference into account; lines are made `depth` levels below the folder called `base`.
    pub fn add(&mut self, difference: &Difference, base: &[u8], depth: u32) {
        let Some(new) = difference.new.as_ref() else { return };
        let usage = match (difference.change, new.kind) {
            (Change::Added | Change::Kind, FileKind::Directory) => Usage { folders: 1, ..Usage::default() },
            (Change::Metadata, _) | (_, FileKind::Directory) => return,
            _ => Usage { bytes: new.size, files: 1, folders: 0 },
        };
        self.total.add(&usage);
        let path = &difference.path;
        let skip = if base.is_empty() { 0 } else { base.len() + 1 };
        let below = path.get(skip..).unwrap_or_default();
        let ends = below.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.take(depth as usize) {
            self.put(&path[..skip + end], FileKind::Directory, &usage);
        }
        if below.split(|byte| *byte == b'/').count() <= depth as usize && !below.is_empty() {
            // A folder does not count itself.
            let usage = if new.kind == FileKind::Directory { Usage::default() } else { usage };
            self.put(path, new.kind, &usage);
        }
    }

    fn put(&mut self, path: &[u8], kind: FileKind, usage: &Usage) {
        self.lines.entry(path.to_vec()).or_insert((kind, Usage::default())).1.add(usage);
    }

    /// The sums.
    pub fn finish(self) -> Sums {
        let lines = self.lines.into_iter().map(|(path, (kind, usage))| Line { path, kind, usage });
        let mut lines: Vec<Line> = lines.collect();
        sort(&mut lines);
        Sums { total: self.total, lines, broken: None }
    }
}

/// What a single file holds.
pub fn of_entry(path: &[u8], entry: &Entry) -> Sums {
    let usage = Usage { bytes: entry.size, files: 1, folders: 0 };
    Sums { total: usage, lines: vec![Line { path: path.to_vec(), kind: entry.kind, usage }], broken: None }
}
