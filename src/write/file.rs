//! Reads the content of one source file into the depot (SPEC §8.5): a small one whole, a large one in blocks that all threads work on.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chunk::Cutter;
use crate::fs::{SourceFile, Stat, Window};
use crate::id::ChunkId;
use crate::limits::{HOLES_INLINE, STREAM_IDS_INLINE};
use crate::progress::Progress;
use crate::tree::{Holes, IdList, Stream, StreamWriter};
use crate::varint;
use crate::write::depot::{Depot, Failed};

/// Maximum length of files that are read whole into a buffer; mapping pays only above it.
pub const SMALL_MAX: u64 = 1 << 20;
/// Number of bytes of a large file to map or read at once.
const BLOCK: usize = 4 << 20;
/// Number of bytes of a large file that the system is asked to read ahead.
const AHEAD_LEN: u64 = 16 << 20;

/// Content that was read and stored.
#[derive(Debug, Clone)]
pub struct Content {
    /// The data between the holes.
    pub stream: Stream,
    /// The holes.
    pub holes: Option<Holes>,
    /// Length of the file including its holes.
    pub size: u64,
    /// Whether the file changed while it was read.
    pub torn: bool,
}

/// Why a file could not be read and stored.
#[derive(Debug)]
pub enum ReadFailed {
    /// The file could not be read.
    Source(io::Error),
    /// The store failed, or the user stopped the run.
    Run,
}

impl From<Failed> for ReadFailed {
    fn from(_: Failed) -> Self {
        Self::Run
    }
}

impl From<io::Error> for ReadFailed {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

/// Whether the metadata of a file at two times shows that its content is the same.
pub fn same_content(a: &Stat, b: &Stat) -> bool {
    a.size == b.size && a.mtime == b.mtime && a.ctime == b.ctime
}

/// Reads a file of at most [`SMALL_MAX`] bytes without holes. `seen` is its metadata before it was opened. Returns also its metadata
/// after it was read. `None` if it is much longer than `seen` says.
///
/// # Errors
/// If it cannot be read, or the run has failed.
pub fn read_small(depot: &Depot<'_>, file: &SourceFile, seen: &Stat) -> Result<Option<(Content, Stat)>, ReadFailed> {
    let mut buffer = std::mem::take(&mut depot.worker().buffer);
    let read =
        read_whole(&Source { read: &|out, at| file.read_full_at(out, at), stat: &|| file.stat() }, seen, &mut buffer);
    let stream = match &read {
        Ok(Some((size, _, _))) => Some(store_whole(depot, &buffer[..*size])),
        _ => None,
    };
    depot.worker().buffer = buffer;
    let Some((size, after, torn)) = read? else { return Ok(None) };
    let stream = stream.unwrap_or(Ok(Stream::EMPTY))?;
    Ok(Some((Content { stream, holes: None, size: size as u64, torn }, after)))
}

/// Stores content that is in memory.
///
/// # Errors
/// If the run has failed.
pub fn store_whole(depot: &Depot<'_>, bytes: &[u8]) -> Result<Stream, Failed> {
    let mut ids = Vec::new();
    {
        let mut worker = depot.worker();
        let cutter = depot.keys().cutter();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (chunk, next) = rest.split_at(cutter.cut(rest));
            ids.push(depot.put_data(&mut worker, |out| out.extend_from_slice(chunk))?);
            rest = next;
        }
    }
    list_ids(depot, ids, bytes.len() as u64)
}

/// The stream of `len` bytes that consists of these chunks.
fn list_ids(depot: &Depot<'_>, ids: Vec<ChunkId>, len: u64) -> Result<Stream, Failed> {
    if ids.len() <= STREAM_IDS_INLINE {
        return Ok(Stream { len, depth: 0, ids });
    }
    let (cutter, sink) = (depot.keys().cutter(), &mut depot.meta_sink());
    let mut list = IdList::default();
    ids.into_iter().try_for_each(|id| list.push(id, cutter, sink))?;
    list.finish(len, cutter, sink)
}

/// Maximum number of times to reread a file that changes while it is read.
const TRIES: usize = 3;

/// A file that can be read at any offset and whose metadata can be read.
struct Source<'f> {
    read: &'f dyn Fn(&mut [u8], u64) -> io::Result<usize>,
    stat: &'f dyn Fn() -> io::Result<Stat>,
}

/// Reads the whole file into `buffer`, up to its end, whatever length the system reports. Returns its length, its metadata now, and
/// whether it changed during every attempt. `None` if it is longer than twice [`SMALL_MAX`].
fn read_whole(file: &Source<'_>, seen: &Stat, buffer: &mut Vec<u8>) -> io::Result<Option<(usize, Stat, bool)>> {
    let mut before = seen.clone();
    let mut tries = 0;
    loop {
        // One byte more than the reported length, so that the end is seen.
        let mut wanted = before.size.min(2 * SMALL_MAX) as usize + 1;
        let mut got = 0;
        loop {
            if buffer.len() < wanted {
                buffer.resize(wanted, 0);
            }
            got += (file.read)(&mut buffer[got..wanted], got as u64)?;
            if got < wanted {
                break;
            }
            if got > 2 * SMALL_MAX as usize {
                return Ok(None);
            }
            wanted = (2 * got).max(4096).min(2 * SMALL_MAX as usize + 1);
        }
        let after = (file.stat)()?;
        tries += 1;
        // Same metadata means same content, even if the system reports a wrong length (`/proc`).
        let still = same_content(&before, &after);
        if still || tries == TRIES {
            return Ok(Some((got, after, !still)));
        }
        before = after;
    }
}

/// A file or another source of bytes that is read in blocks.
pub enum Feed<'r> {
    /// A regular file.
    File {
        /// The open file.
        file: Arc<SourceFile>,
        /// Ranges that have data, in order.
        extents: Vec<(u64, u64)>,
        /// Whether it may be mapped.
        map: bool,
    },
    /// Bytes from another source, which end at some point.
    Reader(Box<dyn io::Read + 'r>),
}

/// Some bytes of the source, preceded by the rest of the block before.
enum Block {
    Mapped(Window),
    Owned(Vec<u8>),
}

impl Block {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(window) => window.bytes(),
            Self::Owned(bytes) => bytes,
        }
    }

    fn torn(&self) -> bool {
        matches!(self, Self::Mapped(window) if window.torn())
    }

    fn copy_to(&self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        match self {
            Self::Mapped(window) => window.copy_to(range, out),
            Self::Owned(bytes) => out.extend_from_slice(&bytes[range]),
        }
    }
}

/// The ids of a large file's chunks. Blocks are finished in any order.
#[derive(Default)]
struct Gathered {
    ids: IdList,
    next: usize,
    waiting: BTreeMap<usize, Vec<ChunkId>>,
    len: u64,
    failure: Option<ReadFailed>,
}

/// Called when a large file has been read, with its stream, and whether a mapped part was torn.
pub type Done<'s> = Box<dyn FnOnce(Result<(Stream, bool), ReadFailed>) + Send + 's>;

/// A large file whose blocks are being stored.
struct Large<'s, 'a> {
    depot: &'s Depot<'a>,
    gathered: Mutex<Gathered>,
    torn: AtomicBool,
    /// Number of unfinished blocks passed to other threads, plus one for the thread that finds the cut points.
    outstanding: AtomicUsize,
    done: Mutex<Option<Done<'s>>>,
}

impl Large<'_, '_> {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the chunks of a block.
    fn store(&self, index: usize, block: &Block, cuts: &[(usize, usize)]) {
        let depot = self.depot;
        let mut ids = Vec::with_capacity(cuts.len());
        {
            let mut worker = depot.worker();
            for (start, end) in cuts {
                match depot.put_data(&mut worker, |out| block.copy_to(*start..*end, out)) {
                    Ok(id) => ids.push(id),
                    Err(failed) => return self.fail(failed.into()),
                }
            }
        }
        if block.torn() {
            self.torn.store(true, Relaxed);
        }
        let mut gathered = self.gathered();
        gathered.len += cuts.iter().map(|(start, end)| (end - start) as u64).sum::<u64>();
        gathered.waiting.insert(index, ids);
        loop {
            let next = gathered.next;
            let Some(ids) = gathered.waiting.remove(&next) else { break };
            gathered.next += 1;
            for id in ids {
                if let Err(failed) = gathered.ids.push(id, depot.keys().cutter(), &mut depot.meta_sink()) {
                    gathered.failure.get_or_insert(failed.into());
                    return;
                }
            }
        }
    }

    fn fail(&self, failure: ReadFailed) {
        self.gathered().failure.get_or_insert(failure);
    }

    /// Marks one share of the work as finished; the thread that finishes the last one ends the file. No thread waits.
    fn leave(&self) {
        if self.outstanding.fetch_sub(1, AcqRel) > 1 {
            return;
        }
        let gathered = std::mem::take(&mut *self.gathered());
        let depot = self.depot;
        let result = match gathered.failure {
            Some(failure) => Err(failure),
            None => match gathered.ids.finish(gathered.len, depot.keys().cutter(), &mut depot.meta_sink()) {
                Ok(stream) => Ok((stream, self.torn.load(Relaxed))),
                Err(failed) => Err(failed.into()),
            },
        };
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            done(result);
        }
    }
}

/// Reads a feed to its end, then calls `done`. The calling thread finds the cut points; if there is a scope, hashing, compressing and
/// sealing are spread over the threads of its pool, and any of them may call `done`.
pub fn read_large<'s, 'a: 's>(
    depot: &'s Depot<'a>,
    mut feed: Feed<'_>,
    scope: Option<&rayon::Scope<'s>>,
    progress: &dyn Progress,
    done: Done<'s>,
) {
    let cutter = depot.keys().cutter();
    let large = Arc::new(Large {
        depot,
        gathered: Mutex::default(),
        torn: AtomicBool::new(false),
        outstanding: AtomicUsize::new(1),
        done: Mutex::new(Some(done)),
    });
    let threads = rayon::current_num_threads();
    let mut position = Position::default();
    let mut index = 0;
    loop {
        if depot.has_failed() || progress.stopped() {
            large.fail(ReadFailed::Run);
            break;
        }
        let (block, last) = match position.next(&mut feed) {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(error) => {
                large.fail(error.into());
                break;
            }
        };
        let cuts = cut_block(&block, cutter, last);
        let consumed = cuts.last().map_or(0, |(_, end)| *end);
        position.consumed(&block, consumed);
        progress.counters().bytes.fetch_add(consumed as u64, Relaxed);
        progress.counters().bytes_read.fetch_add(consumed as u64, Relaxed);
        match scope {
            Some(scope) if large.outstanding.load(Acquire) <= threads && threads > 1 => {
                large.outstanding.fetch_add(1, AcqRel);
                let large = large.clone();
                scope.spawn(move |_| {
                    large.store(index, &block, &cuts);
                    large.leave();
                });
            }
            // All threads are busy: this one stores a block itself, which limits the number of blocks in memory.
            _ => large.store(index, &block, &cuts),
        }
        index += 1;
        if large.gathered().failure.is_some() {
            break;
        }
    }
    large.leave();
}

/// The chunks of a block. Unless it is the last block, a rest that may be shorter than a chunk is left for the next one.
fn cut_block(block: &Block, cutter: &Cutter, last: bool) -> Vec<(usize, usize)> {
    let bytes = block.bytes();
    let mut cuts = Vec::with_capacity(bytes.len() / (cutter.params().avg() as usize) + 1);
    let mut start = 0;
    while start < bytes.len() && (last || bytes.len() - start >= cutter.params().max() as usize) {
        let end = start + cutter.cut(&bytes[start..]);
        cuts.push((start, end));
        start = end;
    }
    cuts
}

/// The position up to which a feed has been read.
#[derive(Default)]
struct Position {
    extent: usize,
    /// Bytes of the current extent that have been cut or carried over.
    offset: u64,
    carry: Vec<u8>,
    ended: bool,
}

impl Position {
    /// The next block, and whether it is the last one. Every block but the last is longer than the longest chunk.
    fn next(&mut self, feed: &mut Feed<'_>) -> io::Result<Option<(Block, bool)>> {
        if self.ended {
            return Ok(None);
        }
        if let Feed::File { file, extents, map: true } = feed
            && let [(start, end)] = extents[..]
        {
            let offset = start + self.offset;
            let len = (end - offset).min(BLOCK as u64);
            if len == 0 {
                self.ended = true;
                return Ok(None);
            }
            if let Ok(window) = file.map(offset, len as usize) {
                file.prefetch(offset + len, (end - offset - len).min(AHEAD_LEN));
                self.ended = offset + len == end;
                return Ok(Some((Block::Mapped(window), self.ended)));
            }
        }
        let mut buffer = std::mem::take(&mut self.carry);
        let filled = buffer.len();
        buffer.resize(BLOCK, 0);
        let got = self.fill(feed, &mut buffer[filled..])?;
        self.ended = filled + got < BLOCK;
        buffer.truncate(filled + got);
        Ok((!buffer.is_empty()).then_some((Block::Owned(buffer), self.ended)))
    }

    /// Fills `out` as far as the feed goes.
    fn fill(&mut self, feed: &mut Feed<'_>, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match feed {
                Feed::Reader(reader) => match reader.read(&mut out[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                },
                Feed::File { file, extents, .. } => {
                    let Some((start, end)) = extents.get(self.extent).copied() else { break };
                    let rest = end - start - self.offset;
                    let want = rest.min((out.len() - filled) as u64) as usize;
                    let got = file.read_full_at(&mut out[filled..filled + want], start + self.offset)?;
                    filled += got;
                    self.offset += got as u64;
                    if got < want {
                        // The file was truncated; its metadata after reading will show that.
                        extents.truncate(self.extent);
                    } else if self.offset == end - start {
                        self.extent += 1;
                        self.offset = 0;
                    }
                }
            }
        }
        Ok(filled)
    }

    /// Carries over the part of a block that was not cut.
    fn consumed(&mut self, block: &Block, consumed: usize) {
        match block {
            Block::Mapped(_) => self.offset += consumed as u64,
            Block::Owned(bytes) => self.carry = bytes[consumed..].to_vec(),
        }
    }
}

/// The holes of a file of `size` bytes with data in these ranges.
///
/// # Errors
/// If the run has failed.
pub fn holes_between(extents: &[(u64, u64)], size: u64, depot: &Depot<'_>) -> Result<Option<Holes>, Failed> {
    let mut bytes = Vec::new();
    let (mut data_end, mut hole_end) = (0, 0);
    for (start, end) in extents.iter().copied().chain([(size, size)]) {
        if start > data_end {
            varint::put(&mut bytes, data_end - hole_end);
            varint::put(&mut bytes, start - data_end);
            hole_end = start;
        }
        data_end = end;
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() <= HOLES_INLINE {
        return Ok(Some(Holes::Inline(bytes)));
    }
    let (cutter, sink) = (depot.keys().cutter(), &mut depot.meta_sink());
    let mut writer = StreamWriter::default();
    writer.write(&bytes, cutter, sink)?;
    writer.finish(cutter, sink).map(Holes::Stream).map(Some)
}
