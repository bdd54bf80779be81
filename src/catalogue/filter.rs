//! In-memory test for chunks that are certainly not stored: a Bloom filter (Bloom 1970), blocked so that a look-up touches one line of
//! the processor's cache (Putze, Sanders and Singler 2007).
//!
//! Ids are hashes already, so their bits are used directly.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::catalogue::{CatalogueError, Reader};
use crate::id::ChunkId;

/// Number of bits set for each id, all in one block.
const PROBES: usize = 6;
/// Number of words in a block: 512 bits.
const BLOCK: usize = 8;
/// The minimum and maximum number of blocks. With the maximum (8 MiB), about one in twenty chunks that are not stored is wrongly reported
/// as possibly stored when 10 million are stored, and one in three with 20 million; such a vault has a terabyte of data, unless its
/// chunks are tiny.
const BLOCKS: (u64, u64) = (1 << 10, 1 << 17);
/// Number of ids for which a block is meant: 8 bits for each when it is full.
const IDS_IN_BLOCK: u64 = 64;

/// A set of ids that may report an id it does not contain, but never misses one that it contains. Many threads may use it at the same
/// time.
pub struct Filter {
    words: Vec<AtomicU64>,
    blocks: u64,
}

impl Filter {
    /// A filter with all ids of this view, and room for as many more.
    ///
    /// # Errors
    /// If the database fails.
    pub fn new(reader: &Reader) -> Result<Self, CatalogueError> {
        let blocks = (2 * reader.place_count()).div_ceil(IDS_IN_BLOCK).next_power_of_two().clamp(BLOCKS.0, BLOCKS.1);
        let mut words = Vec::new();
        words.resize_with(blocks as usize * BLOCK, AtomicU64::default);
        let filter = Self { words, blocks };
        reader.for_each_chunk(|id, _| filter.insert(&id))?;
        Ok(filter)
    }

    /// Whether the filter is too small for this many ids.
    pub const fn is_full(&self, ids: u64) -> bool {
        self.blocks < BLOCKS.1 && ids > self.blocks * IDS_IN_BLOCK
    }

    /// The block of an id, and the bits in it.
    fn place(&self, id: &ChunkId) -> (&[AtomicU64], impl Iterator<Item = (usize, u64)> + use<>) {
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&id.as_bytes()[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let block = (half(0) & (self.blocks - 1)) as usize * BLOCK;
        let bits = half(8);
        let bits = (0..PROBES).map(move |probe| bits >> (9 * probe) & 511);
        (&self.words[block..block + BLOCK], bits.map(|bit| ((bit / 64) as usize, 1 << (bit % 64))))
    }

    /// Adds an id.
    pub fn insert(&self, id: &ChunkId) {
        let (block, bits) = self.place(id);
        for (word, bit) in bits {
            block[word].fetch_or(bit, Relaxed);
        }
    }

    /// Whether an id may have been added; if `false`, it certainly was not.
    pub fn may_contain(&self, id: &ChunkId) -> bool {
        let (block, mut bits) = self.place(id);
        bits.all(|(word, bit)| block[word].load(Relaxed) & bit != 0)
    }
}
