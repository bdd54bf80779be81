//! The source of chunks for the tests of this module.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::chunk::{ChunkParams, Cutter, Gear};
use crate::id::ChunkId;
use crate::read::chunked::Chunks;
use crate::tree::stream::{ChunkSink, StreamWriter};
use crate::tree::{ChunkSource, Stream, StreamError};
use crate::vault::ReadError;

/// Chunks in memory.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) chunks: HashMap<ChunkId, Vec<u8>>,
    pub(super) asked: AtomicU64,
    /// Wrong lengths.
    pub(super) lens: HashMap<ChunkId, u32>,
    pub(super) distrusted: AtomicU64,
}

impl ChunkSink for Memory {
    type Error = StreamError;

    fn put_chunk(&mut self, bytes: &[u8]) -> Result<ChunkId, StreamError> {
        let id = ChunkId::from_slice(&blake3::hash(bytes).as_bytes()[..16]).unwrap();
        self.chunks.insert(id, bytes.to_vec());
        Ok(id)
    }
}

impl ChunkSource for &Memory {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        self.chunks.get(id).cloned().ok_or(ReadError::Lost(*id))
    }
}

impl Chunks for Memory {
    fn len_of(&self, id: &ChunkId) -> Result<u32, ReadError> {
        let len = self.chunks.get(id).map(|bytes| bytes.len() as u32).ok_or(ReadError::Lost(*id))?;
        Ok(self.lens.get(id).copied().unwrap_or(len))
    }

    fn with(&self, id: &ChunkId, use_it: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        self.asked.fetch_add(1, Relaxed);
        use_it(self.chunks.get(id).ok_or(ReadError::Lost(*id))?);
        Ok(())
    }

    fn distrust(&self) {
        self.distrusted.fetch_add(1, Relaxed);
    }
}

pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(b"data").finalize_xof().fill(&mut out);
    out
}

pub(super) fn write(data: &[u8], memory: &mut Memory) -> Stream {
    let mut table = [0; 2048];
    blake3::Hasher::new().update(b"gear").finalize_xof().fill(&mut table);
    let cutter = Cutter::new(ChunkParams::new(256, 512, 1024).unwrap(), Gear::from_bytes(&table));
    let mut writer = StreamWriter::default();
    writer.write(data, &cutter, memory).unwrap();
    writer.finish(&cutter, memory).unwrap()
}
