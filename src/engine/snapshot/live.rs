//! The disk as it is now, as a tree that can be compared with a snapshot. Files that look unchanged are not read; the chunks of the
//! others are hashed, and nothing is stored.

use std::collections::{BTreeSet, HashMap};

use crate::engine::query::absence::Omitted;
use crate::engine::query::browse::{BrowseError, read_skipped};
use crate::engine::snapshot::{SnapshotError, SnapshotOptions, look};
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::read::TreeReader;
use crate::tree::{ChunkSource, RuleSet, Skipped, Stream};
use crate::vault::{ReadError, Vault};

/// A tree of the disk.
pub struct Live<'v> {
    /// The listing of its top folder.
    pub tree: Stream,
    /// Files that could not be read, or not completely.
    pub skipped: Vec<Skipped>,
    /// The rules for leaving out, and the paths left out.
    pub omitted: Omitted,
    chunks: HashMap<ChunkId, Vec<u8>>,
    trees: TreeReader<'v>,
}

/// Why the disk could not be scanned.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SnapshotError),
    /// The list of skipped files could not be read.
    #[error(transparent)]
    Browse(#[from] BrowseError),
}

impl<'v> Live<'v> {
    /// Scans the paths of these options.
    ///
    /// # Errors
    /// If they cannot be read as a whole: a missing path is never treated as an empty one.
    pub fn look(vault: &'v Vault, options: SnapshotOptions<'_>, progress: &dyn Progress) -> Result<Self, LiveError> {
        let looked = look(vault, options, progress)?;
        let trees = vault.tree_reader().map_err(SnapshotError::from)?;
        let mut live =
            Self { tree: looked.tree, skipped: Vec::new(), omitted: Omitted::default(), chunks: looked.trees, trees };
        if looked.skipped > 0 {
            live.skipped = read_skipped(&looked.skipped_list, &mut live)?;
        }
        let missing =
            live.skipped.iter().filter(|skipped| !skipped.stored).map(|skipped| skipped.path.clone()).collect();
        let rules = RuleSet::read(&looked.rules, &mut live).map_err(SnapshotError::from)?;
        // Perhaps only a part of a root is scanned. The rest is not compared at all.
        let rules = rules.map(|rules| RuleSet { listed: BTreeSet::new(), ..rules });
        live.omitted = Omitted::new(Some(missing), rules);
        Ok(live)
    }
}

impl ChunkSource for Live<'_> {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        match self.chunks.get(id) {
            Some(bytes) => Ok(bytes.clone()),
            None => self.trees.chunk(id),
        }
    }
}
