//! The source of chunks for the tests of this module, and the test that readers do not wait for each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::chunk::{ChunkParams, Cutter, Gear};
use crate::id::ChunkId;
use crate::read::chunked::{Chunked, Chunks};
use crate::read::{Folders, StoredFile};
use crate::tree::entry::LISTING_VERSION;
use crate::tree::stream::{ChunkSink, StreamWriter};
use crate::tree::{ChunkSource, Entry, FileKind, Holes, Stream, StreamError, encode_entry};
use crate::varint;
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

/// Chunks that are handed out only once two threads ask for some at the same time.
struct Meeting {
    memory: Memory,
    asking: Mutex<usize>,
    both: Condvar,
    /// Whether a thread has waited in vain.
    missed: AtomicBool,
}

impl Chunks for Meeting {
    fn len_of(&self, id: &ChunkId) -> Result<u32, ReadError> {
        self.memory.len_of(id)
    }

    fn with(&self, id: &ChunkId, use_it: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let mut asking = self.asking.lock().unwrap();
        *asking += 1;
        self.both.notify_all();
        let wait = self.both.wait_timeout_while(asking, Duration::from_secs(20), |asking| *asking < 2).unwrap();
        self.missed.fetch_or(wait.1.timed_out(), Relaxed);
        drop(wait);
        self.memory.with(id, use_it)
    }

    fn distrust(&self) {}
}

/// Reads with two threads, which must not wait for each other's requests.
fn read_twice(memory: Memory, read: impl Fn(&Meeting) + Sync) {
    let both = Meeting { memory, asking: Mutex::new(0), both: Condvar::new(), missed: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        scope.spawn(|| read(&both));
        scope.spawn(|| read(&both));
    });
    assert!(!both.missed.into_inner(), "one thread asks while the other waits for its answer");
}

#[test]
fn nothing_is_locked_while_the_store_is_asked() {
    let (data, mut memory) = (noise(3_000_000), Memory::default());
    let stream = write(&data, &mut memory);
    assert!(stream.depth > 0, "its list of chunks is a stream");
    let chunked = Chunked::new(&stream);
    read_twice(memory, |chunks| assert_eq!(chunked.read_at(0, &mut [0; 100], chunks).unwrap(), 100));

    let (mut list, mut memory) = (Vec::new(), Memory::default());
    for _ in 0..2000 {
        [100, 100].into_iter().for_each(|number| varint::put(&mut list, number));
    }
    let mut entry = Entry::new(b"sparse".to_vec(), FileKind::File);
    entry.size = 2000 * 200;
    entry.holes = Some(Holes::Stream(write(&list, &mut memory)));
    entry.content = Some(write(&noise(2000 * 100), &mut memory));
    let file = StoredFile::new(&entry).unwrap();
    read_twice(memory, |chunks| assert_eq!(file.next_data(chunks, 150).unwrap(), Some(200)));

    let (mut bytes, mut memory) = (vec![LISTING_VERSION], Memory::default());
    for number in 0..2000 {
        let mut entry = Entry::new(format!("file {number:04}").into_bytes(), FileKind::File);
        entry.content = Some(Stream::EMPTY);
        encode_entry(&entry, &mut bytes).unwrap();
    }
    let listing = write(&bytes, &mut memory);
    let folders = Folders::new(1 << 20);
    read_twice(memory, |chunks| assert!(folders.entry(chunks, &listing, b"file 0007").unwrap().is_some()));
    assert!(folders.entry(&Memory::default(), &listing, b"file 0008").unwrap().is_some(), "the page is kept");
}
