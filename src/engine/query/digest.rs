//! Digests of contents and of folders (SPEC §7.5): equal for equal names and contents, whatever the times, owners and permissions.

use std::sync::LazyLock;

use crate::engine::query::index::{Graph, Index, IndexError, explore};
use crate::id::TreeDigest;
use crate::progress::Progress;
use crate::tree::digest::finish;
use crate::tree::{FileKind, Stream};
use crate::varint;
use crate::vault::ReadError;

static FOLDER: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key("vault 2026 folder digest"));

/// Data gathered from one folder: the names and digests of its entries, folders without their digests.
#[derive(Debug, Default)]
pub struct Gathered {
    others: Vec<u8>,
    folders: Vec<Vec<u8>>,
}

fn put(out: &mut Vec<u8>, name: &[u8], digest: &TreeDigest) {
    varint::put(out, name.len() as u64);
    out.extend_from_slice(name);
    out.extend_from_slice(digest.as_bytes());
}

/// The digests of folders.
pub struct Digests {
    graph: Graph<Gathered>,
    by_number: Vec<Option<TreeDigest>>,
    /// Why folders could not be read.
    pub broken: Vec<ReadError>,
}

impl Digests {
    /// The digests of these folders and all folders below.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole, or the user stops it.
    pub fn of(
        index: &Index<'_>,
        listings: &[Stream],
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<Self, IndexError> {
        let mut graph =
            explore(index, listings, threads, progress, |gathered: &mut Gathered, entry| match entry.kind {
                FileKind::Directory => gathered.folders.push(entry.name.to_vec()),
                _ => put(&mut gathered.others, entry.name, &entry.digest),
            })?;
        let mut digests: Vec<Option<TreeDigest>> = vec![None; graph.nodes.len()];
        for number in graph.upwards() {
            let node = &graph.nodes[number];
            let mut bytes = node.data.others.clone();
            let mut known = node.broken.is_none();
            for (name, child) in node.data.folders.iter().zip(&node.children) {
                match &digests[*child as usize] {
                    Some(digest) => put(&mut bytes, name, digest),
                    None => known = false,
                }
            }
            digests[number] = known.then(|| finish(FOLDER.clone().update(&bytes)));
        }
        let broken = graph.nodes.iter_mut().filter_map(|node| node.broken.take()).collect();
        Ok(Self { graph, by_number: digests, broken })
    }

    /// The digest of a folder; `None` if something below it cannot be read.
    pub fn get(&self, listing: &Stream) -> Option<TreeDigest> {
        self.graph.number(listing).and_then(|number| self.by_number[number])
    }
}
