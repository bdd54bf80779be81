//! Digests of contents and of folders (SPEC §7.5): equal for equal names and contents, whatever the times, owners and permissions.

use std::sync::LazyLock;

use serde::Serialize;

use crate::engine::index::{Graph, Index, IndexError, explore};
use crate::path::Shown;
use crate::progress::Progress;
use crate::tree::{Entry, EntryError, FileKind, Holes, Stream};
use crate::varint;

/// A digest.
pub type TreeDigest = [u8; 16];

static CONTENT: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("vault 2026 content digest"));
static FOLDER: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key("vault 2026 folder digest"));

/// The keys of an entry (SPEC §7.2) that describe its content.
#[derive(Serialize)]
struct Held<'a> {
    #[serde(rename = "k", skip_serializing_if = "is_file")]
    kind: u8,
    #[serde(rename = "s", skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    content: Option<&'a Stream>,
    #[serde(rename = "h", skip_serializing_if = "Option::is_none")]
    holes: Option<&'a Holes>,
    #[serde(rename = "t", skip_serializing_if = "<[u8]>::is_empty", with = "serde_bytes")]
    target: &'a [u8],
    #[serde(rename = "d", skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
fn is_file(kind: &u8) -> bool {
    *kind == FileKind::File as u8
}

fn finish(hasher: &blake3::Hasher) -> TreeDigest {
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}

/// The digest of anything but a folder.
///
/// # Errors
/// If the entry cannot be encoded.
pub fn content_digest(entry: &Entry) -> Result<TreeDigest, EntryError> {
    let held = Held {
        kind: entry.kind.into(),
        size: entry.size,
        content: entry.content.as_ref(),
        holes: entry.holes.as_ref(),
        target: &entry.target,
        device: entry.device,
    };
    let mut bytes = Vec::with_capacity(64);
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    let encoded = held.serialize(&mut serializer);
    encoded.map_err(|error| EntryError::Malformed(format!("{}: {error}", Shown(&entry.name))))?;
    Ok(finish(CONTENT.clone().update(&bytes)))
}

/// Data gathered from one folder: the names and digests of its entries, folders without their digests.
#[derive(Debug, Default)]
pub struct Gathered {
    others: Vec<u8>,
    folders: Vec<Vec<u8>>,
}

fn put(out: &mut Vec<u8>, name: &[u8], digest: &TreeDigest) {
    varint::put(out, name.len() as u64);
    out.extend_from_slice(name);
    out.extend_from_slice(digest);
}

/// The digests of folders.
pub struct Digests {
    graph: Graph<Gathered>,
    digests: Vec<Option<TreeDigest>>,
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
        let graph = explore(index, listings, threads, progress, |gathered: &mut Gathered, entry| match entry.kind {
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
        Ok(Self { graph, digests })
    }

    /// The digest of a folder; `None` if something below it cannot be read.
    pub fn get(&self, listing: &Stream) -> Option<TreeDigest> {
        self.graph.number(listing).and_then(|number| self.digests[number])
    }
}
