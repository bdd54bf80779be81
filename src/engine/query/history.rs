//! The versions of one path in the snapshots.

use std::collections::{HashMap, HashSet};

use crate::engine::query::absence::Sayings;
use crate::engine::query::browse::BrowseError;
use crate::engine::query::diff::Absence;
use crate::id::StreamKey;
use crate::limits::PATH_DEPTH_MAX;
use crate::path;
use crate::path::Shown;
use crate::progress::Progress;
use crate::read::TreeReader;
use crate::read::mark::stream_key;
use crate::read::path::{top, way};
use crate::tree::{Entry, FileKind, Stream};
use crate::vault::{ReadError, SnapshotInfo, Vault};

/// Number of folders that are read together from a far store.
const FOLDERS_TOGETHER: usize = 32;

/// The state of a path in consecutive snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spell {
    /// Its entry; `None` if there was nothing. For a folder, that in the first of the snapshots.
    pub entry: Option<Entry>,
    /// Why nothing was there; [`Absence::Gone`] if something was.
    pub absence: Absence,
    /// The snapshots, by their index in the list, in order.
    pub snapshots: Vec<usize>,
}

/// Follows a path through snapshots, in order. `path` returns its path in each of them. A file is the same as long as nothing about it
/// changed that a restore would restore; a folder, as long as everything in it is the same, too.
///
/// Snapshots in which a folder on the way is damaged, or was written by a later version, are skipped; the reason is added to `broken`.
///
/// # Errors
/// If the store fails as a whole, or the user stops it.
pub fn history(
    vault: &Vault,
    snapshots: &[&SnapshotInfo],
    path: &dyn Fn(&SnapshotInfo) -> Vec<u8>,
    broken: &mut Vec<ReadError>,
    progress: &dyn Progress,
) -> Result<Vec<Spell>, BrowseError> {
    let trees = vault
        .tree_reader_looking_again()
        .map_err(|source| BrowseError::Read { path: "the snapshots".to_owned(), source })?;
    let mut looker = Looker { trees, known: HashMap::new() };
    looker.look_ahead(snapshots.iter().map(|info| (info.body.tree.clone(), path(info))).collect(), progress);
    let mut spells: Vec<Spell> = Vec::new();
    for (number, info) in snapshots.iter().enumerate() {
        if progress.stopped() {
            return Err(BrowseError::Interrupted);
        }
        let entry = match looker.look(&info.body.tree, &path(info)) {
            Err(BrowseError::Read { source, .. }) if source.is_contained() => {
                broken.push(vault.judged(source, &info.id));
                continue;
            }
            entry => entry?,
        };
        match spells.last_mut() {
            Some(spell) if same(spell.entry.as_ref(), entry.as_ref()) => spell.snapshots.push(number),
            _ => spells.push(Spell { entry, absence: Absence::Gone, snapshots: vec![number] }),
        }
    }
    explained(snapshots, path, spells, &mut looker.trees)
}

/// Adds why nothing was there, if so: spells are split where the reason changes.
fn explained(
    snapshots: &[&SnapshotInfo],
    path: &dyn Fn(&SnapshotInfo) -> Vec<u8>,
    spells: Vec<Spell>,
    trees: &mut TreeReader<'_>,
) -> Result<Vec<Spell>, BrowseError> {
    let kind_of = |at: Option<usize>| at.and_then(|at| spells.get(at)?.entry.as_ref()).map(|entry| entry.kind);
    let mut sayings = Sayings::default();
    let mut told: Vec<Spell> = Vec::with_capacity(spells.len());
    for (at, spell) in spells.iter().enumerate() {
        if spell.entry.is_some() {
            told.push(spell.clone());
            continue;
        }
        // Its kind before or after, on which rules for folders alone depend.
        let kind = kind_of(Some(at + 1)).or_else(|| kind_of(at.checked_sub(1)));
        let first = told.len();
        for number in &spell.snapshots {
            let (body, path) = (&snapshots[*number].body, path(snapshots[*number]));
            let read = |source| BrowseError::Read { path: Shown(&path).to_string(), source };
            let absence = sayings.of(body, trees).map_err(read)?.why(&body.roots, &path, kind);
            match told[first..].last_mut() {
                Some(last) if last.absence == absence => last.snapshots.push(*number),
                _ => told.push(Spell { entry: None, absence, snapshots: vec![*number] }),
            }
        }
    }
    Ok(told)
}

/// The spell before the one at `at`, in a list with the newest first: snapshots in which the path was merely left out, or could not be
/// read, are skipped, as it was not gone.
pub fn before(spells: &[Spell], at: usize) -> Option<&Spell> {
    let is_known = |spell: &&Spell| spell.entry.is_some() || spell.absence == Absence::Gone;
    spells.get(at + 1..)?.iter().find(is_known)
}

/// Whether two entries would be restored alike.
fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            let plain = |entry: &Entry| Entry { btime: None, torn: false, ..entry.clone() };
            plain(a) == plain(b)
        }
        (None, None) => true,
        _ => false,
    }
}

/// Looks up paths, and remembers the results for each folder, since most snapshots share most folders.
struct Looker<'v> {
    trees: TreeReader<'v>,
    known: HashMap<(StreamKey, Vec<u8>), Option<Entry>>,
}

impl Looker<'_> {
    /// Looks up paths in trees of a far store, with many requests at a time. What goes wrong shows when they are looked up again.
    fn look_ahead(&mut self, mut ways: Vec<(Stream, Vec<u8>)>, progress: &dyn Progress) {
        if !self.trees.is_far() {
            return;
        }
        for depth in 0..PATH_DEPTH_MAX {
            let mut seen = HashSet::new();
            ways.retain(|(listing, path)| {
                path::components(path).nth(depth).is_some_and(|name| seen.insert((stream_key(listing), name.to_vec())))
            });
            let mut below = Vec::new();
            for ways in ways.chunks(FOLDERS_TOGETHER) {
                if progress.stopped() {
                    return;
                }
                self.trees.bring_small(ways.iter().map(|(listing, _)| listing));
                for (listing, path) in ways {
                    let Some(name) = path::components(path).nth(depth) else { continue };
                    let Ok(Some(entry)) = self.entry(listing, name) else { continue };
                    let listing = entry.content.filter(|_| entry.kind == FileKind::Directory);
                    below.extend(listing.map(|listing| (listing, path.clone())));
                }
            }
            if below.is_empty() {
                return;
            }
            ways = below;
        }
    }

    fn look(&mut self, tree: &Stream, path: &[u8]) -> Result<Option<Entry>, BrowseError> {
        Ok(way(top(tree), path, |listing, name| self.entry(listing, name))?.and_then(|mut way| way.pop()))
    }

    fn entry(&mut self, listing: &Stream, name: &[u8]) -> Result<Option<Entry>, ReadError> {
        let key = (stream_key(listing), name.to_vec());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let found = self.trees.entry(listing, name)?;
        self.known.insert(key, found.clone());
        Ok(found)
    }
}
