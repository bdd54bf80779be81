//! Digests of contents (SPEC §7.5): equal for equal contents, whatever the times, owners and permissions.

use std::sync::LazyLock;

use serde::Serialize;

use crate::id::TreeDigest;
use crate::path::Shown;
use crate::tree::{Entry, EntryError, FileKind, Holes, Stream};

static CONTENT: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("vault 2026 content digest"));

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

/// The digest of all that a hasher was given.
pub(crate) fn finish(hasher: &blake3::Hasher) -> TreeDigest {
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    TreeDigest::new(digest)
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
