//! Segments: new chunks laid end to end, compressed as one frame and sealed as one message (SPEC §5.2).

use crate::id::ChunkId;
use crate::limits::{CHUNK_MAX_DEFAULT, SEGMENT_CHUNKS_TARGET, SEGMENT_RAW_MAX, SEGMENT_SEALED_TARGET, SEGMENT_TARGET};
use crate::pack::PackError;
use crate::pack::footer::{SegmentEntry, entry_len, read_lengths};
use crate::seal::{Compressor, Decompressor, Keys, Method, ObjectOpener, SEGMENT_HEAD_LEN, TAG_LEN};
use crate::store::ObjectKey;
use crate::varint::{self, DecodeError, Reader};

/// Collects chunks for a segment. A chunk is copied in once, and hashed, compressed and sealed from that copy: so a
/// file that changes meanwhile can never be stored under an id that is not that of its content.
#[derive(Debug, Default)]
pub struct SegmentBuilder {
    raw: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
    /// Compression ratio of the last segment, in parts of [`WHOLE`]; 0 before the first.
    ratio: u64,
}

/// Compression ratio of incompressible data (fixed point).
const WHOLE: u64 = 1 << 12;
/// Bytes that a segment takes in its pack beside its chunks: head, tag, method, and lengths and counts here and in the
/// footer.
const SURROUNDINGS: usize = SEGMENT_HEAD_LEN + TAG_LEN + 32;
/// Fewest raw bytes that are worth a segment of their own.
const PART_MIN: usize = 16 << 10;

impl SegmentBuilder {
    /// Copies in a chunk, whose bytes `fill` appends, and hashes the copy. If `is_new` returns false, because the chunk
    /// is already stored, the copy is removed again.
    pub fn push(
        &mut self,
        keys: &Keys,
        fill: impl FnOnce(&mut Vec<u8>),
        is_new: impl FnOnce(&ChunkId) -> bool,
    ) -> ChunkId {
        self.reserve();
        let start = self.raw.len();
        fill(&mut self.raw);
        let id = keys.chunk_id(&self.raw[start..]);
        if self.raw.len() > start && is_new(&id) {
            self.chunks.push((id, (self.raw.len() - start) as u32));
        } else {
            self.raw.truncate(start);
        }
        id
    }

    /// Reserves room for a whole segment: growing by doubling would take twice as much.
    fn reserve(&mut self) {
        if self.raw.capacity() == 0 {
            self.raw.reserve_exact(SEGMENT_TARGET + CHUNK_MAX_DEFAULT as usize);
        }
    }

    /// Copies in a chunk that was verified when it was read. (An error in the copy shows when the segment is verified.)
    pub fn push_known(&mut self, id: ChunkId, bytes: &[u8]) {
        self.reserve();
        self.raw.extend_from_slice(bytes);
        self.chunks.push((id, bytes.len() as u32));
    }

    /// Bytes collected so far.
    pub const fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether nothing has been collected.
    pub const fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether the segment has reached its size and should be compressed now.
    pub const fn is_full(&self) -> bool {
        self.raw.len() >= SEGMENT_TARGET
            || self.chunks.len() >= SEGMENT_CHUNKS_TARGET
            || self.shrunk(self.raw.len()) >= SEGMENT_SEALED_TARGET
    }

    /// The probable compressed length of this many bytes; 0 if nothing is known yet.
    const fn shrunk(&self, raw_len: usize) -> usize {
        (raw_len as u64 * self.ratio / WHOLE) as usize
    }

    /// The chunks collected so far.
    pub fn collected(&self) -> impl Iterator<Item = (ChunkId, &[u8])> {
        let mut rest = &self.raw[..];
        self.chunks.iter().map(move |(id, len)| {
            let (chunk, behind) = rest.split_at(*len as usize);
            rest = behind;
            (*id, chunk)
        })
    }

    /// Discards the collected chunks, and the compression ratio of earlier ones.
    pub fn clear(&mut self) {
        self.raw.clear();
        self.chunks.clear();
        self.ratio = 0;
    }

    /// Compresses the collected chunks, and starts the next segment.
    pub fn compress(&mut self, compressor: &mut Compressor) -> SealedBody {
        self.compress_first(self.chunks.len(), compressor)
    }

    /// Compresses the collected chunks, or only those that a pack with this much room can probably take: segments of
    /// incompressible data would otherwise leave a large part of each pack empty. The rest begins the next segment.
    pub fn compress_for(&mut self, room: usize, compressor: &mut Compressor) -> SealedBody {
        self.compress_first(self.fitting(room), compressor)
    }

    /// Number of chunks that a pack with this much room can probably take; all, if they begin the next pack.
    fn fitting(&self, room: usize) -> usize {
        // Ratios differ from segment to segment, except for incompressible data.
        let unsure = if self.ratio < WHOLE * 15 / 16 { 16 } else { 512 };
        let (mut raw_len, mut listed) = (0, SURROUNDINGS);
        for (count, (_, len)) in self.chunks.iter().enumerate() {
            let longer = raw_len + *len as usize;
            listed += ChunkId::LEN + 2 * varint::len(u64::from(*len));
            if listed + self.shrunk(longer + longer / unsure) > room {
                return if raw_len < PART_MIN { self.chunks.len() } else { count };
            }
            raw_len = longer;
        }
        self.chunks.len()
    }

    fn compress_first(&mut self, count: usize, compressor: &mut Compressor) -> SealedBody {
        let rest = self.chunks.split_off(count);
        let chunks = std::mem::replace(&mut self.chunks, rest);
        let raw_len = chunks.iter().map(|(_, len)| *len as usize).sum();
        let mut buffer = Vec::with_capacity(SEGMENT_HEAD_LEN + 16 + 3 * count + raw_len + TAG_LEN);
        buffer.resize(SEGMENT_HEAD_LEN + 1, 0);
        varint::put(&mut buffer, raw_len as u64);
        varint::put(&mut buffer, count as u64);
        chunks.iter().for_each(|(_, len)| varint::put(&mut buffer, u64::from(*len)));
        let before = buffer.len();
        let method = compressor.compress(&self.raw[..raw_len], &mut buffer);
        buffer[SEGMENT_HEAD_LEN] = method as u8;
        buffer.shrink_to(buffer.len() + TAG_LEN);
        self.raw.drain(..raw_len);
        self.ratio = (buffer.len() - before) as u64 * WHOLE / raw_len.max(1) as u64;
        SealedBody { buffer, method, raw_len: raw_len as u32, chunks, reused: None }
    }
}

/// A compressed segment, ready to be sealed into whichever pack has room for it.
#[derive(Debug)]
pub struct SealedBody {
    /// Room for the head, then the plaintext of the segment's body.
    pub(super) buffer: Vec<u8>,
    /// Compression method of its payload.
    pub method: Method,
    /// Sum of the lengths of the chunks.
    pub raw_len: u32,
    /// The chunks in it.
    pub chunks: Vec<(ChunkId, u32)>,
    /// Hash of the body, if it comes unchanged from another pack: then it was verified when it was compressed.
    pub(super) reused: Option<blake3::Hash>,
}

/// A chunk in an opened segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSpan {
    /// Its id.
    pub id: ChunkId,
    /// Where it begins in the raw bytes.
    pub offset: u32,
    /// Its length, in bytes.
    pub len: u32,
}

/// An opened segment: its raw bytes and the chunks in them, every id verified.
#[derive(Debug, Default)]
pub struct Segment {
    /// The chunks end to end.
    pub raw: Vec<u8>,
    /// The chunks, in that order.
    pub chunks: Vec<ChunkSpan>,
}

impl Segment {
    /// The number of the next chunk, if it is the wanted one: chunks that belong together were mostly stored together,
    /// so this often saves a look-up.
    pub fn follows(&self, index: usize, id: &ChunkId) -> Option<usize> {
        (self.chunks.get(index + 1)?.id == *id).then_some(index + 1)
    }

    /// The number of the chunk with this id, offset and length; `None` if there is none.
    pub fn index_of(&self, id: &ChunkId, offset: u32, len: u32) -> Option<usize> {
        let found = self.chunks.binary_search_by_key(&offset, |chunk| chunk.offset).ok();
        found.filter(|index| self.chunks[*index] == ChunkSpan { id: *id, offset, len })
    }

    /// The bytes of a chunk by its number; empty if there is no such chunk.
    pub fn bytes(&self, index: usize) -> &[u8] {
        let span = self.chunks.get(index);
        span.map_or(&[], |span| &self.raw[span.offset as usize..(span.offset + span.len) as usize])
    }
}

/// Opens a sealed segment, decompresses it, and hashes its chunks. With `expected` (the footer's entry) the ids must be
/// those; without it, they follow from the content, as when a footer is rebuilt.
pub fn open_segment(
    keys: &Keys,
    opener: &ObjectOpener,
    object: &ObjectKey,
    number: u32,
    sealed: &[u8],
    expected: Option<&[(ChunkId, u32)]>,
    decompressor: &mut Decompressor,
) -> Result<Segment, PackError> {
    let damaged = |what: String| PackError::Damaged { object: *object, what };
    let mut plain = Vec::with_capacity(sealed.len());
    opener.open_segment(number, sealed, &mut plain).map_err(|error| PackError::open(*object, &error))?;
    let mut segment = Segment::default();
    let Body { method, raw_len, lengths, payload } = read_body(&plain).map_err(|error| match error {
        DecodeError::Unknown(what) => {
            PackError::Newer { object: *object, what: format!("segment {number}: unknown {what}") }
        }
        _ => damaged(format!("segment {number}: {error}")),
    })?;
    decompressor
        .decompress(method, payload, raw_len as usize, &mut segment.raw)
        .map_err(|error| damaged(format!("segment {number}: {error}")))?;
    if expected.is_some_and(|chunks| chunks.len() != lengths.len()) {
        return Err(damaged(format!("segment {number} holds another number of chunks than its index says")));
    }
    let mut start = 0;
    segment.chunks.reserve(lengths.len());
    for (index, len) in lengths.iter().enumerate() {
        let end = start + *len as usize;
        let id = keys.chunk_id(&segment.raw[start..end]);
        if expected.is_some_and(|chunks| chunks[index] != (id, *len)) {
            return Err(damaged(format!("segment {number}: a chunk is not what its id says")));
        }
        segment.chunks.push(ChunkSpan { id, offset: start as u32, len: *len });
        start = end;
    }
    Ok(segment)
}

/// Splits the plaintext of a segment's body.
///
/// # Errors
/// If anything is malformed or over its limit.
pub fn read_body(plain: &[u8]) -> Result<Body<'_>, DecodeError> {
    let mut reader = Reader::new(plain);
    let method = Method::from_byte(reader.byte()?).map_err(|_| DecodeError::Unknown("compression method"))?;
    let raw_len = reader.bounded("the raw length of a segment", SEGMENT_RAW_MAX)? as u32;
    let lengths = read_lengths(&mut reader, raw_len)?;
    Ok(Body { method, raw_len, lengths, payload: reader.rest() })
}

/// The plaintext of a segment's body, split into its parts.
#[derive(Debug)]
pub struct Body<'b> {
    /// Compression method of the payload.
    pub method: Method,
    /// Sum of the lengths of the chunks.
    pub raw_len: u32,
    /// Length of each chunk.
    pub lengths: Vec<u32>,
    /// The chunks end to end, compressed.
    pub payload: &'b [u8],
}

impl SealedBody {
    /// The body of an opened segment, to be sealed into another pack without compressing it again. `buffer` is room for
    /// the head, then the plaintext of the body; `entry` is the segment's entry in the footer of its pack.
    ///
    /// # Errors
    /// If the two contradict each other.
    pub fn reused(buffer: Vec<u8>, entry: &SegmentEntry) -> Result<Self, DecodeError> {
        let plain = buffer.get(SEGMENT_HEAD_LEN..).ok_or(DecodeError::Short)?;
        let Body { method, raw_len, lengths, .. } = read_body(plain)?;
        // The method in the body counts.
        if raw_len != entry.raw_len || !lengths.iter().eq(entry.chunks.iter().map(|(_, len)| len)) {
            return Err(DecodeError::Limit("a segment that is not what its footer says"));
        }
        let hash = blake3::hash(plain);
        Ok(Self { buffer, method, raw_len, chunks: entry.chunks.clone(), reused: Some(hash) })
    }

    /// Its length in a pack, in bytes.
    pub const fn sealed_len(&self) -> usize {
        self.buffer.len() + TAG_LEN
    }

    /// The room that it takes in a pack, with its entry in the footer, in bytes.
    pub fn room(&self) -> usize {
        self.sealed_len() + entry_len(self.sealed_len() as u32, self.raw_len, &self.chunks)
    }

    /// The footer's entry for this segment.
    pub(super) fn entry(&self) -> SegmentEntry {
        SegmentEntry {
            sealed_len: self.sealed_len() as u32,
            method: self.method,
            raw_len: self.raw_len,
            chunks: self.chunks.clone(),
        }
    }
}
