//! A stream: any byte string stored as chunks (SPEC §6). File content and directory listings are both streams.

use serde::{Deserialize, Serialize};

use crate::chunk::Cutter;
use crate::id::{ChunkId, StreamKey};
use crate::limits::{CHUNK_MAX_CEILING, STREAM_DEPTH_MAX, STREAM_IDS_INLINE};

/// Reason why bytes are not a valid stream.
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

    /// Whether it is the empty byte string.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the fields are within the limits of the format and do not contradict each other.
    pub fn is_valid(&self) -> bool {
        self.depth <= STREAM_DEPTH_MAX
            && self.ids.len() <= STREAM_IDS_INLINE
            && (self.len == 0) == self.ids.is_empty()
            && (self.depth == 0 || !self.ids.is_empty())
    }
}

/// The key of a stream.
pub fn stream_key(stream: &Stream) -> StreamKey {
    match stream.ids.as_slice() {
        [only] if stream.depth == 0 => StreamKey::new(*only.as_bytes()),
        ids => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&stream.len.to_le_bytes()).update(&[stream.depth]);
            for id in ids {
                hasher.update(id.as_bytes());
            }
            let mut key = [0; 16];
            hasher.finalize_xof().fill(&mut key);
            StreamKey::new(key)
        }
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
        let (len, depth, Ids(ids)): (u64, u64, Ids) = Deserialize::deserialize(deserializer)?;
        let depth = u8::try_from(depth).unwrap_or(u8::MAX);
        let stream = Self { len, depth, ids };
        if stream.is_valid() { Ok(stream) } else { Err(serde::de::Error::custom("a stream is out of bounds")) }
    }
}

/// The ids of a stream, as they are read from one byte string.
struct Ids(Vec<ChunkId>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(IdsVisitor)
    }
}

struct IdsVisitor;

impl serde::de::Visitor<'_> for IdsVisitor {
    type Value = Ids;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Ids, E> {
        if bytes.len() > STREAM_IDS_INLINE * ChunkId::LEN {
            return Err(E::custom("a stream has too many ids"));
        }
        ids_from_bytes(bytes).map(Ids).map_err(E::custom)
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

/// Stores chunks and returns their ids.
pub trait ChunkSink {
    /// Error of storing a chunk.
    type Error;

    /// Stores a chunk that is not empty, unless it is already stored.
    fn put_chunk(&mut self, bytes: &[u8]) -> Result<ChunkId, Self::Error>;
}

/// The growing list of a stream's ids. Lists that are too long for one entry become chunks themselves, level by level,
/// so that memory stays bounded for streams of any length.
#[derive(Debug, Default)]
pub struct IdList {
    levels: Vec<Level>,
}

#[derive(Debug, Default)]
struct Level {
    /// The ids, while there are few.
    inline: Vec<ChunkId>,
    /// Bytes of ids that have not been cut yet, once there are many.
    buffer: Vec<u8>,
    spilled: bool,
}

impl IdList {
    /// Adds the id of the stream's next chunk.
    pub fn push<S: ChunkSink>(&mut self, id: ChunkId, cutter: &Cutter, sink: &mut S) -> Result<(), S::Error> {
        self.push_at(0, id, cutter, sink)
    }

    fn push_at<S: ChunkSink>(
        &mut self,
        depth: usize,
        id: ChunkId,
        cutter: &Cutter,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        if self.levels.len() == depth {
            self.levels.push(Level::default());
        }
        let level = &mut self.levels[depth];
        if level.spilled {
            level.buffer.extend_from_slice(id.as_bytes());
        } else {
            level.inline.push(id);
            if level.inline.len() <= STREAM_IDS_INLINE {
                return Ok(());
            }
            level.spilled = true;
            level.buffer = level.inline.iter().flat_map(|id| *id.as_bytes()).collect();
            level.inline = Vec::new();
        }
        if level.buffer.len() < 2 * cutter.params().max() as usize {
            return Ok(());
        }
        self.cut_level(depth, cutter, sink)
    }

    fn cut_level<S: ChunkSink>(&mut self, depth: usize, cutter: &Cutter, sink: &mut S) -> Result<(), S::Error> {
        let len = cutter.cut(&self.levels[depth].buffer);
        let id = sink.put_chunk(&self.levels[depth].buffer[..len])?;
        self.levels[depth].buffer.drain(..len);
        self.push_at(depth + 1, id, cutter, sink)
    }

    /// The stream of `len` bytes whose ids were added.
    pub fn finish<S: ChunkSink>(mut self, len: u64, cutter: &Cutter, sink: &mut S) -> Result<Stream, S::Error> {
        let mut depth = 0;
        while self.levels.get(depth).is_some_and(|level| level.spilled) {
            while !self.levels[depth].buffer.is_empty() {
                self.cut_level(depth, cutter, sink)?;
            }
            depth += 1;
        }
        let ids = self.levels.into_iter().nth(depth).map(|level| level.inline).unwrap_or_default();
        Ok(Stream { len, depth: depth as u8, ids })
    }
}

/// Writes a byte string as a stream.
#[derive(Debug, Default)]
pub struct StreamWriter {
    buffer: Vec<u8>,
    len: u64,
    ids: IdList,
}

impl StreamWriter {
    /// Appends bytes.
    pub fn write<S: ChunkSink>(&mut self, bytes: &[u8], cutter: &Cutter, sink: &mut S) -> Result<(), S::Error> {
        self.buffer.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        self.cut(cutter.params().max() as usize, cutter, sink)
    }

    /// Cuts chunks off the front while more than `keep` bytes are left (so that a cut never depends on how the bytes
    /// were passed in).
    fn cut<S: ChunkSink>(&mut self, keep: usize, cutter: &Cutter, sink: &mut S) -> Result<(), S::Error> {
        let mut start = 0;
        while self.buffer.len() - start > keep {
            let len = cutter.cut(&self.buffer[start..]);
            let id = sink.put_chunk(&self.buffer[start..start + len])?;
            self.ids.push(id, cutter, sink)?;
            start += len;
        }
        self.buffer.drain(..start);
        Ok(())
    }

    /// Ends the byte string.
    pub fn finish<S: ChunkSink>(mut self, cutter: &Cutter, sink: &mut S) -> Result<Stream, S::Error> {
        self.cut(0, cutter, sink)?;
        self.ids.finish(self.len, cutter, sink)
    }
}

/// A source of chunks.
pub trait ChunkSource {
    /// Error of reading a chunk, or of a malformed stream.
    type Error: From<StreamError>;

    /// The bytes of a chunk, verified against its id.
    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, Self::Error>;

    /// The error for chunks that are sound, and whose content is not valid.
    fn invalid(&mut self, error: impl Into<Self::Error>) -> Self::Error {
        error.into()
    }
}

/// The ids of a stream's chunks, in order, reading nested lists as it goes along. Memory is bounded by the depth.
#[derive(Debug)]
pub struct IdReader {
    /// The list being read at each level, from the stream's own down to the one whose ids are the content's.
    levels: Vec<std::vec::IntoIter<ChunkId>>,
    /// For each level, the bytes of an id that the last chunk of its list cut in two.
    carries: Vec<Vec<u8>>,
}

impl IdReader {
    /// Reads the ids of this stream.
    pub fn new(stream: &Stream) -> Self {
        Self { levels: vec![stream.ids.clone().into_iter()], carries: vec![Vec::new(); usize::from(stream.depth)] }
    }

    /// The next id, or `None` at the end.
    ///
    /// # Errors
    /// If a chunk of a list cannot be read, or a list is malformed.
    pub fn next<S: ChunkSource>(&mut self, source: &mut S) -> Result<Option<ChunkId>, S::Error> {
        while let Some(level) = self.levels.len().checked_sub(1) {
            match self.levels[level].next() {
                Some(id) if level == self.carries.len() => return Ok(Some(id)),
                Some(id) => {
                    let mut bytes = std::mem::take(&mut self.carries[level]);
                    bytes.extend_from_slice(&source.chunk(&id)?);
                    let whole = bytes.len() - bytes.len() % ChunkId::LEN;
                    let ids = ids_from_bytes(&bytes[..whole]).map_err(|error| source.invalid(error))?;
                    self.carries[level] = bytes.split_off(whole);
                    self.levels.push(ids.into_iter());
                }
                None => {
                    self.levels.pop();
                }
            }
        }
        if self.carries.iter().all(Vec::is_empty) {
            Ok(None)
        } else {
            Err(source.invalid(StreamError::Malformed("a list of ids has a length that is no multiple of 16")))
        }
    }
}

/// Reads a stream's bytes chunk by chunk.
#[derive(Debug)]
pub struct StreamReader {
    ids: IdReader,
    rest: u64,
}

impl StreamReader {
    /// Reads this stream from its start.
    pub fn new(stream: &Stream) -> Self {
        Self { ids: IdReader::new(stream), rest: stream.len }
    }

    /// The next chunk's bytes, or `None` at the end.
    ///
    /// # Errors
    /// If a chunk cannot be read, or the lengths of the chunks do not add up to the stream's.
    pub fn next<S: ChunkSource>(&mut self, source: &mut S) -> Result<Option<Vec<u8>>, S::Error> {
        let Some(id) = self.ids.next(source)? else {
            return if self.rest == 0 {
                Ok(None)
            } else {
                Err(source.invalid(StreamError::Malformed("it is shorter than it says")))
            };
        };
        let bytes = source.chunk(&id)?;
        debug_assert!(bytes.len() <= CHUNK_MAX_CEILING as usize);
        match self.rest.checked_sub(bytes.len() as u64) {
            Some(rest) => self.rest = rest,
            None => return Err(source.invalid(StreamError::Malformed("it is longer than it says"))),
        }
        Ok(Some(bytes))
    }
}

/// Reads a whole stream of at most `max` bytes.
pub fn read_stream<S: ChunkSource>(stream: &Stream, max: u64, source: &mut S) -> Result<Vec<u8>, S::Error> {
    if stream.len > max {
        return Err(source.invalid(StreamError::Malformed("it is longer than is allowed here")));
    }
    let mut reader = StreamReader::new(stream);
    let mut out = Vec::new();
    while let Some(bytes) = reader.next(source)? {
        out.extend_from_slice(&bytes);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkParams, Gear};
    use std::collections::HashMap;

    /// Chunks in memory.
    #[derive(Default)]
    struct Memory(HashMap<ChunkId, Vec<u8>>);

    impl ChunkSink for Memory {
        type Error = StreamError;

        fn put_chunk(&mut self, bytes: &[u8]) -> Result<ChunkId, StreamError> {
            let hash = blake3::hash(bytes);
            let id = ChunkId::from_slice(&hash.as_bytes()[..16]).unwrap();
            self.0.insert(id, bytes.to_vec());
            Ok(id)
        }
    }

    impl ChunkSource for Memory {
        type Error = StreamError;

        fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, StreamError> {
            self.0.get(id).cloned().ok_or(StreamError::Malformed("missing"))
        }
    }

    fn cutter() -> Cutter {
        let mut table = [0; 2048];
        blake3::Hasher::new().update(b"gear").finalize_xof().fill(&mut table);
        Cutter::new(ChunkParams::new(256, 512, 1024).unwrap(), Gear::from_bytes(&table))
    }

    fn bytes(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(b"data").finalize_xof().fill(&mut out);
        out
    }

    fn write(data: &[u8], piece: usize, memory: &mut Memory) -> Stream {
        let mut writer = StreamWriter::default();
        data.chunks(piece).for_each(|part| writer.write(part, &cutter(), memory).unwrap());
        writer.finish(&cutter(), memory).unwrap()
    }

    #[test]
    fn streams_of_every_depth_read_back() {
        for (len, depth) in [(0, 0), (1, 0), (10_000, 0), (60_000, 1), (3_000_000, 2)] {
            let (data, mut memory) = (bytes(len), Memory::default());
            let stream = write(&data, 4096, &mut memory);
            assert_eq!((stream.len, stream.depth), (len as u64, depth));
            assert!(stream.is_valid());
            assert_eq!(read_stream(&stream, len as u64, &mut memory).unwrap(), data);
            assert_eq!(
                write(&data, 77_777, &mut memory),
                stream,
                "the cuts do not depend on how the bytes were passed in"
            );
        }
    }

    #[test]
    fn a_wrong_length_is_noticed() {
        let mut memory = Memory::default();
        let stream = write(&bytes(60_000), 4096, &mut memory);
        for len in [59_999, 60_001] {
            assert!(read_stream(&Stream { len, ..stream.clone() }, 100_000, &mut memory).is_err());
        }
        assert!(read_stream(&stream, 59_999, &mut memory).is_err());
    }

    #[test]
    fn a_change_moves_few_chunks() {
        let mut memory = Memory::default();
        let mut data = bytes(1_000_000);
        write(&data, 4096, &mut memory);
        let before = memory.0.len();
        data.insert(500_000, 7);
        write(&data, 4096, &mut memory);
        assert!(memory.0.len() - before < 20, "{} new chunks", memory.0.len() - before);
    }
}
