//! The versions of one path over the snapshots.

use std::collections::HashMap;

use crate::engine::browse::BrowseError;
use crate::engine::mark::{StreamKey, stream_key};
use crate::limits::PATH_DEPTH_MAX;
use crate::path;
use crate::path::called;
use crate::progress::Progress;
use crate::tree::{Entry, FileKind, Stream};
use crate::vault::{ReadError, SnapshotInfo, TreeReader, Vault};

/// What was at the path in some snapshots that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spell {
    /// What was there; `None`: nothing. Of a folder, as in the first of the snapshots.
    pub entry: Option<Entry>,
    /// The snapshots, by their place in the list, in the order of that list.
    pub snapshots: Vec<usize>,
}

/// Follows a path through snapshots, in their order. `path` says where it is in each of them. A file is the same as long as
/// nothing about it changed that a restore would bring back; a folder, as long as all in it is the same, too.
///
/// A snapshot in which a folder on the way is damaged, or was written by a later version, is passed over; why is added to
/// `broken`.
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
    let trees = vault.tree_reader().map_err(|source| BrowseError::Read { path: "the snapshots".to_owned(), source })?;
    let mut looker = Looker { trees, known: HashMap::new() };
    let mut spells: Vec<Spell> = Vec::new();
    for (number, info) in snapshots.iter().enumerate() {
        if progress.stopped() {
            return Err(BrowseError::Interrupted);
        }
        let entry = match looker.look(&info.body.tree, &path(info)) {
            Err(BrowseError::Read { source, .. }) if source.is_contained() => {
                broken.push(source);
                continue;
            }
            entry => entry?,
        };
        match spells.last_mut() {
            Some(spell) if same(spell.entry.as_ref(), entry.as_ref()) => spell.snapshots.push(number),
            _ => spells.push(Spell { entry, snapshots: vec![number] }),
        }
    }
    Ok(spells)
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

/// Looks paths up; what it found in a folder it remembers, since most snapshots share most folders.
struct Looker<'v> {
    trees: TreeReader<'v>,
    known: HashMap<(StreamKey, Vec<u8>), Option<Entry>>,
}

impl Looker<'_> {
    fn look(&mut self, top: &Stream, path: &[u8]) -> Result<Option<Entry>, BrowseError> {
        let mut found = Entry::new(Vec::new(), FileKind::Directory);
        found.content = Some(top.clone());
        let mut at = Vec::new();
        for (depth, name) in path::components(path).enumerate() {
            let listing = found.content.take().filter(|_| found.kind == FileKind::Directory && depth < PATH_DEPTH_MAX);
            let Some(listing) = listing else { return Ok(None) };
            match self.entry(&listing, name, &at)? {
                Some(entry) => found = entry,
                None => return Ok(None),
            }
            at = path::join(&at, name);
        }
        Ok(Some(found))
    }

    fn entry(&mut self, listing: &Stream, name: &[u8], at: &[u8]) -> Result<Option<Entry>, BrowseError> {
        let key = (stream_key(listing), name.to_vec());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let found = self.trees.entry(listing, name);
        let found = found.map_err(|source| BrowseError::Read { path: called(at), source })?;
        self.known.insert(key, found.clone());
        Ok(found)
    }
}
