//! Marks the chunks that the snapshots need: every distinct tree is read once, whatever the number of snapshots (SPEC §8.6).
//!
//! Trees are read in batches, sorted by their places, so that each segment is opened about once. Ids of chunks are collected up to a
//! limit, sorted, and merged with the catalogue's table, which is sorted as well: only one bit per chunk stays in memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rayon::prelude::*;

use crate::catalogue::{CatalogueError, ChunkPlace, PackInfo, Reader};
use crate::id::ChunkId;
use crate::pack::PackReader;
use crate::pack::segment::Segment;
use crate::progress::Progress;
use crate::seal::ObjectKind;
use crate::sync::lock;
pub use crate::tree::stream::{StreamKey, stream_key};
use crate::tree::{ChunkSource, Entry, FileKind, Holes, IdReader, Snapshot, Stream};
use crate::vault::read::Listing;
use crate::vault::segments::SegmentCache;
use crate::vault::{Lookup, ReadError, Vault, VaultError};

/// Number of ids to collect before they are merged with the catalogue.
const IDS_WAITING: usize = 3 << 20;
/// Number of ids that a thread collects before it passes them on.
const IDS_LOCAL: usize = 4096;
/// Number of listings to read together.
const BATCH: usize = 16 << 10;
/// Size of the opened segments to keep, in raw bytes.
const SEGMENTS_KEPT: usize = 40 << 20;
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

/// Opened segments, shared by many threads.
pub struct Segments<'a> {
    packs: PackReader<'a>,
    lookup: Lookup<'a>,
    /// The packs used.
    infos: RwLock<HashMap<u32, Arc<PackInfo>>>,
    shared: Arc<SegmentCache>,
    /// Another vault, which is asked for chunks that cannot be read here.
    donor: Option<Box<(&'a Vault, Self)>>,
}

impl<'a> Segments<'a> {
    /// Reads the segments of a vault at their places in this view of the catalogue.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn new(vault: &'a Vault, reader: Arc<Reader>) -> Result<Self, CatalogueError> {
        let packs = vault.tree_packs();
        let lookup = Lookup::with(vault, reader);
        let infos = lookup.reader().packs()?.into_iter().map(|(number, info)| (number, Arc::new(info))).collect();
        let shared = vault.segments(SEGMENTS_KEPT);
        Ok(Self { packs, lookup, infos: RwLock::new(infos), shared, donor: None })
    }

    /// The same, but chunks that cannot be read here are read from another vault with the same ids, if one is given.
    ///
    /// # Errors
    /// [`ReadError::Lender`] if that one's catalogue fails.
    pub fn lent_by(self, donor: Option<&'a Vault>) -> Result<Self, ReadError> {
        let donor = donor.map(|donor| Ok((donor, Self::of_lender(donor)?)));
        let donor: Option<Result<_, ReadError>> = donor;
        Ok(Self { donor: donor.transpose()?.map(Box::new), ..self })
    }

    /// The segments of a vault that lends chunks to another one.
    ///
    /// # Errors
    /// [`ReadError::Lender`] if its catalogue fails.
    pub fn of_lender(donor: &'a Vault) -> Result<Self, ReadError> {
        let segments = donor.catalogue().reader().and_then(|reader| Self::new(donor, Arc::new(reader)));
        segments.map_err(|error| ReadError::from(error).of_lender(donor))
    }

    /// As [`Vault::judged`], for snapshots of which this is known: see [`Vault::may_be_late`].
    pub(crate) fn judged_if(&self, may_be_late: bool, error: ReadError) -> ReadError {
        self.lookup.judged_if(may_be_late, error)
    }

    /// The place of a chunk, if it is stored, and the kind of its pack.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<(ChunkPlace, ObjectKind)>, ReadError> {
        let Some(place) = self.lookup.locate(id)? else { return Ok(None) };
        Ok(self.info(place.pack)?.map(|info| (place, info.kind)))
    }

    /// Whether the length of the pack with this number, as listed by the store, is the one in its footer.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub(crate) fn is_listed_whole(&self, vault: &Vault, number: u32) -> Result<bool, ReadError> {
        let Some(info) = self.info(number)? else { return Ok(false) };
        Ok(vault.log().packs.get(&info.name).is_some_and(|(_, len)| *len == info.len))
    }

    /// A pack by its number in the catalogue.
    fn info(&self, number: u32) -> Result<Option<Arc<PackInfo>>, CatalogueError> {
        if let Some(info) = self.infos.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return Ok(Some(info.clone()));
        }
        let info = self.lookup.pack(number)?.map(Arc::new);
        let mut infos = self.infos.write().unwrap_or_else(PoisonError::into_inner);
        infos.extend(info.clone().map(|info| (number, info)));
        Ok(info)
    }

    /// Opens a segment of the pack with this number, verifying every chunk.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn open(&self, pack: u32, segment: u32) -> Result<Arc<Segment>, ReadError> {
        let unknown = || CatalogueError::Database("a chunk lies in a pack that is not listed".to_owned());
        let info = self.info(pack)?.ok_or_else(unknown)?;
        let place = info.place(segment).ok_or_else(unknown)?;
        self.shared.get((info.name, segment), |decompressor| Ok(self.packs.segment(&place, None, decompressor)?))
    }

    /// Finds a chunk: the opened segment that contains it, and its index in the segment.
    ///
    /// # Errors
    /// If it is in no pack, or cannot be read from any that contains it.
    pub fn chunk(&self, id: &ChunkId) -> Result<(Arc<Segment>, usize), ReadError> {
        let found = self.lookup.try_places(id, |place| {
            let segment = self.open(place.pack, place.segment)?;
            let index = segment.index_of(id, place.offset, place.len).ok_or(ReadError::Lost(*id))?;
            Ok((segment, index))
        });
        let (error, (donor, segments)) =
            match (found.and_then(|found| found.ok_or_else(|| self.lookup.lost(id))), self.donor.as_deref()) {
                (Err(error), Some(donor)) if error.is_contained() => (error, donor),
                (found, _) => return found,
            };
        // What is wrong with the donor says nothing about this vault.
        let lent = segments.lookup.locate(id).and_then(|place| place.map(|_| segments.chunk(id)).transpose());
        match lent {
            Ok(Some(lent)) => Ok(lent),
            Ok(None) => Err(error),
            Err(theirs) if theirs.is_contained() => Err(error),
            Err(theirs) => Err(theirs.of_lender(donor)),
        }
    }
}

/// Pack, segment and offset of a stream's first chunk, if it is stored.
type FirstPlace = Option<(u32, u32, u32)>;

/// Sorts items by the places of the first chunks of their streams.
///
/// # Errors
/// If the catalogue fails.
pub fn in_order<T: Send>(
    reader: &Reader,
    items: Vec<T>,
    stream: impl Fn(&T) -> &Stream + Sync,
) -> Result<Vec<(FirstPlace, T)>, CatalogueError> {
    let mut placed = items
        .into_par_iter()
        .map(|item| {
            let place = stream(&item).ids.first().map_or(Ok(None), |id| reader.locate(id))?;
            Ok((place.map(|place| (place.pack, place.segment, place.offset)), item))
        })
        .collect::<Result<Vec<_>, CatalogueError>>()?;
    placed.par_sort_unstable_by_key(|(place, _)| *place);
    Ok(placed)
}

/// Groups of neighbours in one segment, each for one thread; no group is large.
pub fn by_segment<T>(placed: &[(FirstPlace, T)]) -> Vec<&[(FirstPlace, T)]> {
    placed
        .chunk_by(|(a, _), (b, _)| a.map(|place| (place.0, place.1)) == b.map(|place| (place.0, place.1)))
        .flat_map(|group| group.chunks(1024))
        .collect()
}

/// Reads chunks for one thread, and records which were requested.
pub struct Source<'s, 'a> {
    segments: &'s Segments<'a>,
    /// The place of the last chunk.
    last: Option<(Arc<Segment>, usize)>,
    /// Every chunk requested.
    pub asked: Vec<ChunkId>,
}

impl<'s, 'a> Source<'s, 'a> {
    /// A source for one thread.
    pub const fn new(segments: &'s Segments<'a>) -> Self {
        Self { segments, last: None, asked: Vec::new() }
    }
}

impl ChunkSource for Source<'_, '_> {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        self.asked.push(*id);
        let last = self.last.take();
        let next = last.and_then(|(segment, index)| segment.follows(index, id).map(|index| (segment, index)));
        let (segment, index) = next.map_or_else(|| self.segments.chunk(id), Ok)?;
        let bytes = segment.bytes(index).to_vec();
        self.last = Some((segment, index));
        Ok(bytes)
    }
}

struct Marker<'a> {
    /// The view of the catalogue in which bits are set.
    reader: &'a Arc<Reader>,
    segments: Segments<'a>,
    progress: &'a dyn Progress,
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
    let marker = Marker {
        reader,
        segments: Segments::new(vault, reader.clone())?.lent_by(donor)?,
        progress,
        waiting: Mutex::new((Vec::new(), marks)),
        listings: Mutex::default(),
        streams: Mutex::default(),
    };
    let mut listings = Vec::new();
    for snapshot in snapshots {
        if lock(&marker.listings).insert(stream_key(&snapshot.tree)) {
            listings.push(snapshot.tree.clone());
        }
        let mut source = Source::new(&marker.segments);
        for (stream, _) in snapshot.lists() {
            marker.mark_stream(stream, &mut source, &mut Vec::new())?;
        }
        marker.put(&mut source.asked)?;
    }
    while !listings.is_empty() {
        if progress.stopped() {
            return Err(VaultError::Interrupted.into());
        }
        let batch = listings.split_off(listings.len().saturating_sub(BATCH));
        listings.extend(marker.read_batch(batch)?);
    }
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
        marks.is_damaged |= self.segments.judged_if(true, error).is_damage();
        Ok(())
    }

    /// Records the chunks of a stream other than a listing: its content, and its lists of ids.
    fn mark_stream(
        &self,
        stream: &Stream,
        source: &mut Source<'_, '_>,
        ids: &mut Vec<ChunkId>,
    ) -> Result<(), MarkError> {
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

    /// Reads listings; returns those below them that have not been read.
    fn read_batch(&self, batch: Vec<Stream>) -> Result<Vec<Stream>, MarkError> {
        let placed = in_order(self.reader, batch, |stream| stream)?;
        let groups = by_segment(&placed);
        let found: Vec<Vec<Stream>> = groups
            .into_par_iter()
            .map(|group| {
                let mut source = Source::new(&self.segments);
                let (mut below, mut ids) = (Vec::new(), Vec::new());
                for (_, stream) in group {
                    self.read_listing(stream, &mut source, &mut below, &mut ids)?;
                    if self.progress.stopped() {
                        return Err(VaultError::Interrupted.into());
                    }
                }
                self.put(&mut source.asked)?;
                Ok(below)
            })
            .collect::<Result<_, MarkError>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn read_listing(
        &self,
        stream: &Stream,
        source: &mut Source<'_, '_>,
        below: &mut Vec<Stream>,
        ids: &mut Vec<ChunkId>,
    ) -> Result<(), MarkError> {
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
        source: &mut Source<'_, '_>,
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
