//! Marks the chunks that the snapshots need: every distinct tree is read once, whatever the number of snapshots (SPEC §8.6).
//!
//! Ids of chunks are collected up to a limit, sorted, and merged with the catalogue's table, which is sorted as well: only one bit per
//! chunk stays in memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::catalogue::{CatalogueError, Reader};
use crate::id::{ChunkId, StreamKey};
use crate::progress::Progress;
use crate::read::graph::{Visitor, walk};
use crate::read::{ChunkReader, Listing, Recorder};
use crate::sync::lock;
pub use crate::tree::stream::stream_key;
use crate::tree::{Entry, FileKind, Holes, IdReader, Snapshot, Stream};
use crate::vault::{ReadError, Vault, VaultError};

/// Number of ids to collect before they are merged with the catalogue.
const IDS_WAITING: usize = 3 << 20;
/// Number of ids that a thread collects before it passes them on.
const IDS_LOCAL: usize = 4096;
/// Maximum number of ids of lost chunks, and of unreadable streams, to keep.
pub const LOSSES_KEPT: usize = 1 << 20;

/// Why the needed chunks could not be determined.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// Something could not be read, for a reason other than damage.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A bit for each chunk of the catalogue, by its rank.
#[derive(Debug, Default)]
pub struct Bits(Vec<AtomicU64>);

impl Bits {
    fn new(len: u64) -> Self {
        let mut words = Vec::new();
        words.resize_with((len as usize).div_ceil(64), AtomicU64::default);
        Self(words)
    }

    fn set(&self, rank: usize) {
        if let Some(word) = self.0.get(rank / 64) {
            word.fetch_or(1 << (rank % 64), Relaxed);
        }
    }

    /// Whether the chunk of this rank is needed.
    pub fn get(&self, rank: usize) -> bool {
        self.0.get(rank / 64).is_some_and(|word| word.load(Relaxed) >> (rank % 64) & 1 == 1)
    }
}

/// The needs of snapshots.
#[derive(Debug, Default)]
pub struct Marks {
    /// One bit for each chunk, by its rank in the catalogue that was read.
    pub bits: Bits,
    /// Needed chunks that are in no pack: the first [`LOSSES_KEPT`].
    pub lost: HashSet<ChunkId>,
    /// Listings and lists of ids that cannot be read, with the errors: the first [`LOSSES_KEPT`]. The chunks that they need are not
    /// known.
    pub unreadable: HashMap<StreamKey, String>,
    /// The same for those written by a later version. They are not damaged, but the chunks that they need are not known either.
    pub newer: HashMap<StreamKey, String>,
    /// Whether something cannot be read that the sync does not bring either.
    pub is_damaged: bool,
    /// Number of different folders read.
    pub folders: u64,
    /// Number of entries in them that are not folders.
    pub files: u64,
}

impl Marks {
    /// Whether nothing that the snapshots need is unreadable because of damage.
    pub fn is_whole(&self) -> bool {
        self.unreadable.is_empty()
    }

    /// Why the needs of the snapshots are not completely known, if so.
    pub fn unknown(&self) -> Option<&str> {
        self.unreadable.values().chain(self.newer.values()).next().map(String::as_str)
    }
}

/// Reads listings for one thread.
struct Hand<'a> {
    source: Recorder<'a>,
    /// Ids that have not been passed on yet.
    ids: Vec<ChunkId>,
    /// Listings that have not been read.
    below: Vec<Stream>,
}

struct Marker<'a> {
    /// The view of the catalogue in which bits are set.
    reader: &'a Arc<Reader>,
    chunks: Arc<ChunkReader<'a>>,
    progress: &'a dyn Progress,
    /// Listings to begin with.
    tops: Vec<Stream>,
    /// Waiting ids, and the results for earlier ones.
    waiting: Mutex<(Vec<ChunkId>, Marks)>,
    /// Listings seen, and other streams seen: a file may have the content of a listing, which needs more when read as a listing.
    listings: Mutex<HashSet<StreamKey>>,
    streams: Mutex<HashSet<StreamKey>>,
}

/// Marks the chunks that these snapshots need, in the view `reader` of the catalogue. Works on the current thread pool.
///
/// # Errors
/// If the vault or the catalogue fails, or the user stops it. Damage is only recorded.
pub fn mark<'s>(
    vault: &Vault,
    reader: &Arc<Reader>,
    snapshots: impl IntoIterator<Item = &'s Snapshot>,
    progress: &dyn Progress,
) -> Result<Marks, MarkError> {
    mark_lent(vault, None, reader, snapshots, progress)
}

/// As [`mark`], but unreadable listings are read from `donor`, if it has them. Chunks that only it has still count as lost.
///
/// # Errors
/// As [`mark`].
pub fn mark_lent<'s>(
    vault: &Vault,
    donor: Option<&Vault>,
    reader: &Arc<Reader>,
    snapshots: impl IntoIterator<Item = &'s Snapshot>,
    progress: &dyn Progress,
) -> Result<Marks, MarkError> {
    let marks = Marks { bits: Bits::new(reader.place_count()), ..Marks::default() };
    let mut marker = Marker {
        reader,
        chunks: Arc::new(ChunkReader::new(vault, reader.clone())?.lent_by(donor)?),
        progress,
        tops: Vec::new(),
        waiting: Mutex::new((Vec::new(), marks)),
        listings: Mutex::default(),
        streams: Mutex::default(),
    };
    for snapshot in snapshots {
        if lock(&marker.listings).insert(stream_key(&snapshot.tree)) {
            marker.tops.push(snapshot.tree.clone());
        }
        let mut source = Recorder::new(&marker.chunks);
        for (stream, _) in snapshot.lists() {
            marker.mark_stream(stream, &mut source, &mut Vec::new())?;
        }
        marker.put(&mut source.asked)?;
    }
    walk(&mut marker)?;
    let (mut ids, mut marks) = crate::sync::into_inner(marker.waiting);
    merge(reader, &mut ids, &mut marks)?;
    Ok(marks)
}

/// Sets the bits of these chunks.
fn merge(reader: &Reader, ids: &mut Vec<ChunkId>, marks: &mut Marks) -> Result<(), CatalogueError> {
    // Not in a pool: while waiting for the pool, this thread could take up a task that needs the lock held here.
    ids.sort_unstable();
    ids.dedup();
    let bits = &marks.bits;
    let lost = reader.in_parts(|part| {
        let mut lost: Vec<&ChunkId> = Vec::new();
        let mut needed = ids[part.range(ids, |id| id)].iter().peekable();
        part.for_each_id(|rank, id| {
            lost.extend(std::iter::from_fn(|| needed.next_if(|needed| **needed < id)));
            if needed.next_if_eq(&&id).is_some() {
                bits.set(rank);
            }
            needed.peek().is_some()
        })?;
        lost.extend(needed);
        Ok::<_, CatalogueError>(lost)
    })?;
    for id in lost.into_iter().flatten() {
        if marks.lost.len() < LOSSES_KEPT {
            marks.lost.insert(*id);
        }
    }
    ids.clear();
    Ok(())
}

impl<'a> Visitor for Marker<'a> {
    type Node = Stream;
    type Hand = Hand<'a>;
    type Found = Vec<Stream>;
    type Error = MarkError;

    fn reader(&self) -> &Reader {
        self.reader
    }

    fn progress(&self) -> &dyn Progress {
        self.progress
    }

    fn stopped(&self) -> MarkError {
        VaultError::Interrupted.into()
    }

    fn listing<'n>(&self, node: &'n Stream) -> &'n Stream {
        node
    }

    fn hand(&self) -> Hand<'a> {
        Hand { source: Recorder::new(&self.chunks), ids: Vec::new(), below: Vec::new() }
    }

    fn read(&self, hand: &mut Hand<'a>, listing: &Stream) -> Result<(), MarkError> {
        self.read_listing(listing, hand)
    }

    fn done(&self, mut hand: Hand<'a>) -> Result<Vec<Stream>, MarkError> {
        self.put(&mut hand.source.asked)?;
        Ok(hand.below)
    }

    fn enter(&mut self, found: Vec<Vec<Stream>>, waiting: &mut Vec<Stream>) -> Result<(), MarkError> {
        waiting.extend(found.into_iter().flatten());
        Ok(())
    }

    fn level(&mut self) -> Vec<Stream> {
        std::mem::take(&mut self.tops)
    }
}

impl Marker<'_> {
    /// Takes ids of needed chunks.
    fn put(&self, ids: &mut Vec<ChunkId>) -> Result<(), MarkError> {
        let mut waiting = lock(&self.waiting);
        waiting.0.append(ids);
        if waiting.0.len() >= IDS_WAITING {
            let (ids, marks) = &mut *waiting;
            merge(self.reader, ids, marks)?;
        }
        Ok(())
    }

    fn unreadable(&self, stream: &Stream, error: ReadError) -> Result<(), MarkError> {
        if !error.is_contained() {
            return Err(error.into());
        }
        let mut waiting = lock(&self.waiting);
        let marks = &mut waiting.1;
        let streams = if error.is_newer() { &mut marks.newer } else { &mut marks.unreadable };
        if streams.len() < LOSSES_KEPT {
            streams.insert(stream_key(stream), error.to_string());
        }
        marks.is_damaged |= self.chunks.judged_if(true, error).is_damage();
        Ok(())
    }

    /// Records the chunks of a stream other than a listing: its content, and its lists of ids.
    fn mark_stream(&self, stream: &Stream, source: &mut Recorder<'_>, ids: &mut Vec<ChunkId>) -> Result<(), MarkError> {
        if stream.depth == 0 {
            source.asked.extend_from_slice(&stream.ids);
        } else if lock(&self.streams).insert(stream_key(stream)) {
            let mut reader = IdReader::new(stream);
            loop {
                match reader.next(source) {
                    Ok(Some(id)) => ids.push(id),
                    Ok(None) => break,
                    Err(error) => {
                        // The known ids are needed all the same.
                        source.asked.extend_from_slice(&stream.ids);
                        self.unreadable(stream, error)?;
                        break;
                    }
                }
                if ids.len() >= IDS_LOCAL {
                    self.put(ids)?;
                }
            }
            self.put(ids)?;
        }
        Ok(())
    }

    fn read_listing(&self, stream: &Stream, hand: &mut Hand<'_>) -> Result<(), MarkError> {
        let Hand { source, ids, below } = hand;
        let (mut listing, mut files) = (Listing::new(stream), 0);
        loop {
            match listing.next(source) {
                Ok(Some(entry)) => {
                    files += u64::from(entry.kind != FileKind::Directory);
                    self.mark_entry(entry, source, below, ids)?;
                }
                Ok(None) => break,
                Err(error) => {
                    source.asked.extend_from_slice(&stream.ids);
                    self.unreadable(stream, error)?;
                    break;
                }
            }
            if source.asked.len() >= IDS_LOCAL {
                self.put(&mut source.asked)?;
            }
        }
        self.progress.counters().files.fetch_add(files, Relaxed);
        let mut waiting = lock(&self.waiting);
        waiting.1.folders += 1;
        waiting.1.files += files;
        Ok(())
    }

    fn mark_entry(
        &self,
        entry: Entry,
        source: &mut Recorder<'_>,
        below: &mut Vec<Stream>,
        ids: &mut Vec<ChunkId>,
    ) -> Result<(), MarkError> {
        if let Some(Holes::Stream(holes)) = &entry.holes {
            self.mark_stream(holes, source, ids)?;
        }
        match entry.content {
            Some(content) if entry.kind != FileKind::Directory => self.mark_stream(&content, source, ids)?,
            Some(listing) if lock(&self.listings).insert(stream_key(&listing)) => below.push(listing),
            _ => {}
        }
        Ok(())
    }
}
