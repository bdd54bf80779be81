//! Finds files by name in all snapshots at once: which snapshots have which version of which path.
//!
//! First, the way through every distinct folder is found, and every distinct list of names is searched once. Then the folders that
//! contain or lead to matches are walked by path: for each path, all the folders that snapshots have there together. So the cost is that
//! of the distinct folders, not of the snapshots, and hardly depends on the number of entries.
//!
//! A vault can contain one folder at many places, and so have far more paths than folders. A folder in which nothing was found, nor below
//! it, is not entered again with the same rest of the pattern: so however many paths there are, every long walk has results to report.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::catalogue::Reader;
use crate::catalogue::names::{NameList, Named};
use crate::engine::patterns::glob::{Pattern, Places};
use crate::engine::query::index::{Graph, Hand, Index, IndexError, explore_ways, lists_with};
use crate::id::{NamesKey, ObjectName, StreamKey, TreeDigest};
use crate::limits::PATH_DEPTH_MAX;
use crate::path::join;
use crate::progress::Progress;
use crate::read::mark::stream_key;
use crate::tree::{FileKind, Stream, Time};
use crate::vault::{ReadError, SnapshotInfo, Vault};

/// A version of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The kind of file.
    pub kind: FileKind,
    /// Length of a regular file, in bytes.
    pub size: u64,
    /// When its content was last modified; for a folder, in the newest snapshot that has it.
    pub mtime: Time,
    /// The digest of its content (SPEC §7.5); `None` for a folder, which counts as one version whatever its content.
    pub digest: Option<TreeDigest>,
    /// The snapshots that have it, by their index in the searched list, in order.
    pub snapshots: Vec<usize>,
}

/// A matching path with its versions, starting with that of the first snapshot in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The path in the snapshots.
    pub path: Vec<u8>,
    /// The versions.
    pub versions: Vec<Version>,
}

/// The path of a folder that could not be read, and why not.
pub type BrokenFolder = (Vec<u8>, ReadError);

/// Result of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// Number of different folders searched.
    pub folders: u64,
    /// Folders that could not be read, each by the first path at which it was found, with the error; their content is unknown.
    pub broken: Vec<BrokenFolder>,
}

/// Receives a name.
pub type Look<'s> = dyn Fn(&[u8]) + Sync + 's;

/// Options of a search.
#[derive(Clone, Copy)]
pub struct Search<'s> {
    /// The pattern for paths.
    pub pattern: &'s Pattern,
    /// Whether the searched snapshots are all of the vault.
    pub all: bool,
    /// If nothing matches, this receives the names of all files and folders, each at least once, from several threads.
    pub otherwise: Option<&'s Look<'s>>,
}

/// The next step.
enum Next {
    /// Enter the folders at a path, with the rest of the pattern there.
    Enter { path: Vec<u8>, group: Group, places: Places, depth: usize },
    /// Everything below these folders has been searched; there had been this many matches before.
    Leave { group: Vec<StreamKey>, places: Places, matches: u64 },
}

/// The folders that snapshots have at one path, each with those snapshots.
type Group = Vec<(Stream, Vec<usize>)>;

/// Enters the folders of these snapshots, which are all of the vault, into the index of names, so that the next search need not read them.
///
/// # Errors
/// As [`find`].
pub fn learn(
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    threads: usize,
    progress: &dyn Progress,
) -> Result<(), IndexError> {
    let tops: Vec<Stream> = snapshots.iter().map(|info| info.body.tree.clone()).collect();
    explored(vault, &tops, true, threads, progress).map(drop)
}

/// The ways through all folders below these, and the index with all of them. `all` says whether they are all folders of the vault.
fn explored<'v>(
    vault: &'v Vault,
    tops: &[Stream],
    all: bool,
    threads: usize,
    progress: &dyn Progress,
) -> Result<(Index<'v>, Graph<Option<NamesKey>>), IndexError> {
    let index = Index::looking_again(vault)?;
    let graph = explore_ways(&index, tops, threads, progress)?;
    let index = index.renew(all.then(|| graph.keys()).as_ref())?;
    Ok((index, graph))
}

/// Searches the snapshots; calls `found` for each path that matches, folder by folder, until it returns `false`. Files with equal content
/// and modification time are one version.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it.
pub fn find(
    vault: &Vault,
    snapshots: &[&SnapshotInfo],
    search: &Search<'_>,
    threads: usize,
    progress: &dyn Progress,
    found: &mut dyn FnMut(Match) -> bool,
) -> Result<Found, IndexError> {
    let Search { pattern, all, otherwise } = *search;
    let tops: Vec<Stream> = snapshots.iter().map(|info| info.body.tree.clone()).collect();
    let (index, graph) = explored(vault, &tops, all, threads, progress)?;
    let mut lists: Vec<NamesKey> = graph.nodes.iter().filter_map(|node| node.data).collect();
    lists.sort_unstable();
    lists.dedup();
    let every = lists;
    let lists = lists_with(&index, &every, threads, |name| pattern.may_match(name))?;
    let leads = graph.spread_up(|node| node.broken.is_some() || node.data.is_none_or(|names| lists.contains(&names)));
    let leads = |listing: &Stream| graph.number(listing).is_some_and(|number| leads[number]);
    let late = vault.late_among(snapshots.iter().map(|info| info.id));
    let may_be_late: Vec<_> = snapshots.iter().map(|info| (info.id, late.contains(&info.id))).collect();
    let mut top: Group = Vec::new();
    for (number, tree) in tops.iter().enumerate().filter(|(_, tree)| leads(tree)) {
        put(&mut top, tree, &[number]);
    }
    let walk = Walk {
        index: &index,
        hand: index.hand(),
        pattern,
        leads: &leads,
        may_be_late: &may_be_late,
        told: HashSet::new(),
        broken: Vec::new(),
        gone: HashSet::new(),
        progress,
        matches: 0,
    };
    let (matches, broken) = walk.run(top, progress, found)?;
    if let Some(otherwise) = otherwise.filter(|_| matches == 0) {
        lists_with(&index, &every, threads, |name| {
            otherwise(name);
            progress.stopped()
        })?;
    }
    index.finish(None)?;
    Ok(Found { folders: graph.nodes.len() as u64, broken })
}

/// A walk by path through the folders that contain or lead to matches.
struct Walk<'w, 'i, 'v> {
    index: &'i Index<'v>,
    hand: Hand<'i, 'v>,
    pattern: &'w Pattern,
    /// Whether a folder contains or leads to matches.
    leads: &'w dyn Fn(&Stream) -> bool,
    /// For each snapshot its id, and whether parts of it may not have arrived yet.
    may_be_late: &'w [(ObjectName, bool)],
    /// Listings that could not be read and have been reported.
    told: HashSet<StreamKey>,
    /// As in [`Found`].
    broken: Vec<BrokenFolder>,
    /// The numbers of snapshots that were dropped meanwhile: nothing more of them is found.
    gone: HashSet<usize>,
    progress: &'w dyn Progress,
    /// Number of matching paths.
    matches: u64,
}

impl Walk<'_, '_, '_> {
    /// Walks from these top folders on, until `found` returns `false`. Returns the number of matches, and the folders that could not be
    /// read.
    fn run(
        mut self,
        top: Group,
        progress: &dyn Progress,
        found: &mut dyn FnMut(Match) -> bool,
    ) -> Result<(u64, Vec<BrokenFolder>), IndexError> {
        let mut waiting = vec![Next::Enter { path: Vec::new(), group: top, places: self.pattern.start(), depth: 0 }];
        let mut barren = HashSet::new();
        while let Some(next) = waiting.pop() {
            let (path, mut group, places, depth) = match next {
                Next::Enter { path, group, places, depth } => (path, group, places, depth),
                Next::Leave { group, places, matches: before } => {
                    if self.matches == before {
                        barren.extend(group.into_iter().map(|listing| (listing, places.clone())));
                    }
                    continue;
                }
            };
            group.retain(|(listing, _)| !barren.contains(&(stream_key(listing), places.clone())));
            if group.is_empty() {
                continue;
            }
            if progress.stopped() {
                return Err(IndexError::Interrupted);
            }
            let mut here = Here::default();
            here.read(&mut self, &path, &group)?;
            let keys = group.iter().map(|(listing, _)| stream_key(listing)).collect();
            waiting.push(Next::Leave { group: keys, places: places.clone(), matches: self.matches });
            for (name, mut versions) in here.matches {
                for version in &mut versions {
                    version.snapshots.retain(|number| !self.gone.contains(number));
                    version.snapshots.sort_unstable();
                }
                versions.retain(|version| !version.snapshots.is_empty());
                if versions.is_empty() {
                    continue;
                }
                self.matches += 1;
                versions.sort_by_key(|version| version.snapshots.first().copied());
                if !found(Match { path: join(&path, &name), versions }) {
                    return Ok((self.matches, self.broken));
                }
            }
            if depth < PATH_DEPTH_MAX {
                waiting.extend(here.folders.into_iter().rev().filter_map(|(name, group)| {
                    let below = self.pattern.below(&places, &name);
                    let path = join(&path, &name);
                    (!below.is_empty()).then_some(Next::Enter { path, group, places: below, depth: depth + 1 })
                }));
            }
        }
        Ok((self.matches, self.broken))
    }
}

impl Walk<'_, '_, '_> {
    /// Notes a folder of these snapshots that cannot be read. Snapshots that were dropped meanwhile are left out.
    fn note(&mut self, path: &[u8], error: ReadError, snapshots: &[usize]) -> Result<(), IndexError> {
        if error.gone().is_none() {
            self.broken.push((path.to_vec(), error));
            return Ok(());
        }
        let ids = snapshots.iter().map(|number| self.may_be_late[*number].0);
        let (gone, _) = self.index.vault().part_gone(None, ids).map_err(ReadError::from)?;
        for gone in gone {
            let number = snapshots.iter().find(|number| self.may_be_late[**number].0 == gone.snapshot());
            if number.is_some_and(|number| self.gone.insert(*number)) {
                self.progress.warn(&gone.left_out());
            }
        }
        Ok(())
    }
}

/// Adds a folder of these snapshots.
fn put(group: &mut Group, listing: &Stream, snapshots: &[usize]) {
    match group.iter_mut().find(|(other, _)| other == listing) {
        Some((_, holders)) => holders.extend_from_slice(snapshots),
        None => group.push((listing.clone(), snapshots.to_vec())),
    }
}

/// The items at one path in all snapshots.
#[derive(Default)]
struct Here {
    matches: BTreeMap<Vec<u8>, Vec<Version>>,
    folders: BTreeMap<Vec<u8>, Group>,
    /// The lists of names seen here, with the positions of the matches.
    lists: HashMap<NamesKey, (NameList, Vec<usize>)>,
}

impl Here {
    /// Reads what these folders contain; `path` is theirs.
    fn read(&mut self, walk: &mut Walk<'_, '_, '_>, path: &[u8], group: &Group) -> Result<(), IndexError> {
        let (pattern, leads) = (walk.pattern, walk.leads);
        for (listing, snapshots) in group {
            if self.read_index(walk.hand.reader(), path, (listing, snapshots), pattern, leads)? {
                continue;
            }
            let read = walk.hand.visit(listing, &mut |entry| {
                if pattern.matches(path, entry.name) {
                    self.add(entry, snapshots);
                }
                if let Some(listing) = entry.listing.as_ref().filter(|listing| leads(listing)) {
                    put(self.folders.entry(entry.name.to_vec()).or_default(), listing, snapshots);
                }
            });
            match read {
                Ok(()) => {}
                Err(error) if error.is_contained() => {
                    if walk.told.insert(stream_key(listing)) {
                        let of = snapshots.iter().map(|number| walk.may_be_late[*number]);
                        let error = walk.index.judged(error, of);
                        walk.note(path, error, snapshots)?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads a folder from the index: its outline, its names unless another version had the same, and the details of matches. Returns
    /// `false` if the index does not have it.
    fn read_index(
        &mut self,
        reader: &Reader,
        path: &[u8],
        (listing, snapshots): (&Stream, &[usize]),
        pattern: &Pattern,
        leads: &dyn Fn(&Stream) -> bool,
    ) -> Result<bool, IndexError> {
        let key = stream_key(listing);
        let Some(outline) = reader.outline(&key)? else { return Ok(false) };
        let (names, hits) = if let Some(seen) = self.lists.remove(&outline.names) {
            seen
        } else {
            let Some(names) = reader.name_list(&outline.names)? else { return Ok(false) };
            let matching = names.iter().enumerate().filter(|(_, name)| pattern.matches(path, name));
            let hits = matching.map(|(at, _)| at).collect();
            (names, hits)
        };
        let mut found = Vec::with_capacity(hits.len());
        if !hits.is_empty() {
            let Some(details) = reader.details(&key)? else { return Ok(false) };
            for at in &hits {
                let Some(entry) = names.get(*at).and_then(|name| details.get(*at, name)) else { return Ok(false) };
                found.push(entry);
            }
        }
        found.iter().for_each(|entry| self.add(entry, snapshots));
        for (at, listing) in outline.folders.iter().filter(|(_, listing)| leads(listing)) {
            if let Some(name) = names.get(*at) {
                put(self.folders.entry(name.to_vec()).or_default(), listing, snapshots);
            }
        }
        self.lists.insert(outline.names, (names, hits));
        Ok(true)
    }

    fn add(&mut self, entry: &Named<'_>, snapshots: &[usize]) {
        let digest = (entry.kind != FileKind::Directory).then_some(entry.digest);
        let versions = self.matches.entry(entry.name.to_vec()).or_default();
        let same = |version: &&mut Version| {
            version.kind == entry.kind && version.digest == digest && (digest.is_none() || version.mtime == entry.mtime)
        };
        match versions.iter_mut().find(same) {
            Some(version) => {
                if digest.is_none() && snapshots.iter().min() < version.snapshots.iter().min() {
                    version.mtime = entry.mtime;
                }
                version.snapshots.extend_from_slice(snapshots);
            }
            None => versions.push(Version {
                kind: entry.kind,
                size: entry.size,
                mtime: entry.mtime,
                digest,
                snapshots: snapshots.to_vec(),
            }),
        }
    }
}
