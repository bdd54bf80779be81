//! A stream: any byte string stored as chunks (SPEC §6). File content and directory listings are both streams.

use serde::{Deserialize, Serialize};

use crate::id::ChunkId;
use crate::limits::{STREAM_DEPTH_MAX, STREAM_IDS_INLINE};

/// Why bytes are not a valid stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Fields out of range, or that contradict each other.
    #[error("a stream is malformed: {0}")]
    Malformed(&'static str),
}

/// Points to a byte string that is stored as chunks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Stream {
    /// Length of the byte string.
    pub len: u64,
    /// 0 if `ids` are the chunks of the byte string; otherwise `ids` are the chunks of the list of ids (16 bytes each)
    /// of the stream of depth one less.
    pub depth: u8,
    /// The chunks, in order; at most [`STREAM_IDS_INLINE`].
    pub ids: Vec<ChunkId>,
}

impl Stream {
    /// The empty byte string.
    pub const EMPTY: Self = Self { len: 0, depth: 0, ids: Vec::new() };

    /// Whether the fields are within the limits of the format and do not contradict each other.
    pub fn is_valid(&self) -> bool {
        self.depth <= STREAM_DEPTH_MAX
            && self.ids.len() <= STREAM_IDS_INLINE
            && (self.len == 0) == self.ids.is_empty()
            && (self.depth == 0 || !self.ids.is_empty())
    }

    /// A stream whose level-by-level list of ids is `ids`, if it fits without another level.
    pub fn inline(len: u64, depth: u8, ids: Vec<ChunkId>) -> Option<Self> {
        (ids.len() <= STREAM_IDS_INLINE).then_some(Self { len, depth, ids })
    }
}

/// On the wire: `[len, depth, ids]`, with the ids as one byte string.
impl Serialize for Stream {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut ids = Vec::with_capacity(self.ids.len() * ChunkId::LEN);
        self.ids.iter().for_each(|id| ids.extend_from_slice(id.as_bytes()));
        (self.len, self.depth, serde_bytes::Bytes::new(&ids)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Stream {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (len, depth, bytes): (u64, u8, serde_bytes::ByteBuf) = Deserialize::deserialize(deserializer)?;
        let ids = ids_from_bytes(&bytes).map_err(serde::de::Error::custom)?;
        let stream = Self { len, depth, ids };
        if stream.is_valid() { Ok(stream) } else { Err(serde::de::Error::custom("a stream is out of bounds")) }
    }
}

/// Splits a list of ids, 16 bytes each.
///
/// # Errors
/// If the length is not a multiple of 16.
pub fn ids_from_bytes(bytes: &[u8]) -> Result<Vec<ChunkId>, StreamError> {
    let (ids, rest) = bytes.as_chunks::<{ ChunkId::LEN }>();
    if rest.is_empty() {
        Ok(ids.iter().map(|id| ChunkId::new(*id)).collect())
    } else {
        Err(StreamError::Malformed("a list of ids has a length that is no multiple of 16"))
    }
}
