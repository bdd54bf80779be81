//! Reads chunks and trees from the store, through the catalogue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::catalogue::{CatalogueError, ChunkPlace, PackInfo, Reader};
use crate::id::{ChunkId, ObjectName};
use crate::limits::ENTRY_LEN_MAX;
use crate::pack::PackReader;
use crate::pack::segment::Segment;
use crate::sync::lock;
use crate::tree::entry::LISTING_VERSION;
use crate::tree::{ChunkSource, Entry, EntryError, Stream, StreamReader, decode_entry};
use crate::vault::segments::SegmentCache;
use crate::vault::{Lookup, ReadError, Vault};

/// Raw bytes of opened segments that are kept for readers of trees.
const SEGMENTS_KEPT: usize = 24 << 20;

/// Reads trees and other streams, one thread at a time.
pub struct TreeReader<'a> {
    pub(super) packs: PackReader<'a>,
    pub(super) lookup: Arc<Lookup<'a>>,
    infos: HashMap<u32, Arc<PackInfo>>,
    pub(super) segments: Arc<SegmentCache>,
    /// The segment that was used last, and the number of the chunk that was read from it.
    last: Option<(Arc<Segment>, usize)>,
}

impl Vault {
    /// A reader of the packs in the store. It notes packs that it finds damaged (see [`Self::note_findings`]).
    pub(crate) fn pack_reader(&self) -> PackReader<'_> {
        PackReader::new(self.store(), self.keys()).watched(self)
    }

    /// As [`Self::pack_reader`], for callers that need the content of trees, and not the state of the store: it may
    /// read the parts of meta packs that are kept on this machine.
    pub(crate) fn tree_packs(&self) -> PackReader<'_> {
        let store = if self.is_store_judged.load(Relaxed) { self.store() } else { self.store_with_trees() };
        PackReader::new(store, self.keys()).watched(self)
    }

    /// Makes everything from now on be read from the store itself, because the store is to be checked.
    pub(crate) fn judge_store(&self) {
        self.is_store_judged.store(true, Relaxed);
    }

    /// A reader that starts with the catalogue of this moment.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn tree_reader(&self) -> Result<TreeReader<'_>, ReadError> {
        Ok(self.tree_reader_by(Lookup::new(self)?))
    }

    /// As [`Self::tree_reader`], of trees of these snapshots: what the sync may still bring for them is
    /// [`ReadError::NotArrived`].
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn tree_reader_of(&self, snapshots: impl IntoIterator<Item = ObjectName>) -> Result<TreeReader<'_>, ReadError> {
        Ok(self.tree_reader_by(Lookup::new(self)?.needed_by(snapshots)))
    }

    fn tree_reader_by<'v>(&'v self, lookup: Lookup<'v>) -> TreeReader<'v> {
        TreeReader {
            packs: self.tree_packs(),
            lookup: Arc::new(lookup),
            infos: HashMap::new(),
            segments: self.segments(SEGMENTS_KEPT),
            last: None,
        }
    }

    /// The opened segments that all readers of this vault share. The cache lives as long as any reader, and keeps at
    /// least this many raw bytes.
    pub(crate) fn segments(&self, kept: usize) -> Arc<SegmentCache> {
        let mut shared = lock(&self.segments);
        let segments = shared.upgrade().unwrap_or_default();
        *shared = Arc::downgrade(&segments);
        segments.keep(kept);
        segments
    }
}

impl<'a> TreeReader<'a> {
    /// Another reader, for another thread, that shares what this one knows.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            packs: self.packs.clone(),
            lookup: self.lookup.clone(),
            infos: HashMap::new(),
            segments: self.segments.clone(),
            last: None,
        }
    }

    /// The lookup that finds the chunks.
    pub const fn lookup(&self) -> &Arc<Lookup<'a>> {
        &self.lookup
    }

    /// The newest view of the catalogue.
    pub fn catalogue(&self) -> Arc<Reader> {
        self.lookup.reader()
    }

    /// A pack by its number in the catalogue.
    fn info(&mut self, number: u32) -> Result<Option<Arc<PackInfo>>, CatalogueError> {
        if let Some(info) = self.infos.get(&number) {
            return Ok(Some(info.clone()));
        }
        let info = self.lookup.pack(number)?.map(Arc::new);
        self.infos.extend(info.clone().map(|info| (number, info)));
        Ok(info)
    }

    fn chunk_at(&mut self, id: &ChunkId, place: ChunkPlace) -> Result<(Arc<Segment>, usize), ReadError> {
        let unknown = || CatalogueError::Database("a chunk lies in a pack that is not listed".to_owned());
        let info = self.info(place.pack)?.ok_or_else(unknown)?;
        let segment_place = info.place(place.segment).ok_or_else(unknown)?;
        let segments = self.segments.clone();
        let segment = segments.get((info.name, place.segment), |decompressor| {
            Ok(self.packs.segment(&segment_place, None, decompressor)?)
        })?;
        let index = segment.index_of(id, place.offset, place.len).ok_or(ReadError::Lost(*id))?;
        Ok((segment, index))
    }

    /// Returns the bytes of a chunk, and remembers it as the last one used.
    fn take(&mut self, segment: Arc<Segment>, index: usize) -> Vec<u8> {
        let bytes = segment.bytes(index).to_vec();
        self.last = Some((segment, index));
        bytes
    }

    /// The entry of this name in a listing.
    ///
    /// # Errors
    /// As [`Self::for_each_entry`].
    pub fn entry(&mut self, listing: &Stream, name: &[u8]) -> Result<Option<Entry>, ReadError> {
        let mut found = None;
        self.for_each_entry(listing, |entry| {
            let go_on = entry.name.as_slice() < name;
            found = Some(entry).filter(|entry| entry.name == name);
            go_on
        })?;
        Ok(found)
    }

    /// Calls `each` for every entry of a listing, in the order of the names; stops when it returns `false`.
    ///
    /// # Errors
    /// If the listing cannot be read, or is not valid.
    pub fn for_each_entry(&mut self, listing: &Stream, mut each: impl FnMut(Entry) -> bool) -> Result<(), ReadError> {
        let mut entries = Listing::new(listing);
        while let Some(entry) = entries.next(self)? {
            if !each(entry) {
                break;
            }
        }
        Ok(())
    }
}

impl ChunkSource for TreeReader<'_> {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        if let Some((segment, last)) = self.last.take()
            && let Some(next) = segment.follows(last, id)
        {
            return Ok(self.take(segment, next));
        }
        let lookup = self.lookup.clone();
        let found = lookup.try_places(id, |place| self.chunk_at(id, place))?;
        let (segment, index) = found.ok_or_else(|| lookup.lost(id))?;
        Ok(self.take(segment, index))
    }
}

/// Decodes the entries of a listing from its bytes, wherever these come from.
#[derive(Debug, Default)]
pub struct EntryDecoder {
    buffer: Vec<u8>,
    used: usize,
    /// Number of used bytes that belong to the last entry.
    last_len: usize,
    /// Number of bytes that were decoded.
    taken: u64,
    begun: bool,
    last: Vec<u8>,
}

impl EntryDecoder {
    /// A decoder for the rest of a listing, after the entry of this name.
    pub fn behind(last: Vec<u8>) -> Self {
        Self { begun: true, last, ..Self::default() }
    }

    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        (self.used, self.last_len) = (0, 0);
        self.buffer.extend_from_slice(bytes);
    }

    /// Number of bytes of the listing that were decoded.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// The bytes of the last entry, until more are added.
    pub fn last_bytes(&self) -> &[u8] {
        &self.buffer[self.used - self.last_len..self.used]
    }

    /// The name of the last entry.
    pub fn last(&self) -> &[u8] {
        &self.last
    }

    /// The next entry, or `None` if more bytes are needed. `ended` means that there are no more.
    ///
    /// # Errors
    /// If the bytes are not a valid listing: a newer version, a forbidden name, names out of order, an end amid an entry.
    pub fn next(&mut self, ended: bool) -> Result<Option<Entry>, EntryError> {
        if !self.begun && self.buffer.len() > self.used {
            let version = self.buffer[self.used];
            if version != LISTING_VERSION {
                return Err(EntryError::Newer(version));
            }
            self.used += 1;
            self.taken += 1;
            self.begun = true;
        }
        if self.used == self.buffer.len() {
            return Ok(None);
        }
        match decode_entry(&self.buffer[self.used..])? {
            Some((entry, len)) => {
                self.used += len;
                self.last_len = len;
                self.taken += len as u64;
                if entry.name <= self.last {
                    return Err(EntryError::Malformed("its names are not in order".to_owned()));
                }
                self.last.clone_from(&entry.name);
                Ok(Some(entry))
            }
            None if ended || self.buffer.len() - self.used > ENTRY_LEN_MAX => {
                Err(EntryError::Malformed("it ends in the middle of an entry".to_owned()))
            }
            None => Ok(None),
        }
    }
}

/// Reads the entries of one listing, a chunk at a time.
#[derive(Debug)]
pub struct Listing {
    stream: StreamReader,
    entries: EntryDecoder,
    ended: bool,
}

impl Listing {
    /// Reads this listing from its start.
    pub fn new(listing: &Stream) -> Self {
        Self { stream: StreamReader::new(listing), entries: EntryDecoder::default(), ended: listing.len == 0 }
    }

    /// The bytes of the last entry, as they are stored.
    pub fn last_bytes(&self) -> &[u8] {
        self.entries.last_bytes()
    }

    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    /// If a chunk cannot be read, or as [`EntryDecoder::next`].
    pub fn next<S: ChunkSource>(&mut self, source: &mut S) -> Result<Option<Entry>, S::Error>
    where
        S::Error: From<EntryError>,
    {
        loop {
            let entry = self.entries.next(self.ended)?;
            if entry.is_some() || self.ended {
                return Ok(entry);
            }
            match self.stream.next(source)? {
                Some(bytes) => self.entries.push(&bytes),
                None => self.ended = true,
            }
        }
    }
}
