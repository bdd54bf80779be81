//! Brings chunks and trees out of the store, through the catalogue.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalogue::{CatalogueError, ChunkPlace, PackInfo, Reader};
use crate::id::ChunkId;
use crate::limits::ENTRY_LEN_MAX;
use crate::pack::segment::Segment;
use crate::pack::{PackError, PackReader};
use crate::seal::{Decompressor, SealError};
use crate::tree::entry::LISTING_VERSION;
use crate::tree::{ChunkSource, Entry, EntryError, Stream, StreamError, StreamReader, decode_entry};
use crate::vault::{Lookup, Vault};

/// Why something that is stored could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No pack has this chunk.
    #[error("chunk {0} is in no pack of the store")]
    Lost(ChunkId),
    /// A pack could not be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// What the chunks hold is no valid stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// What the chunks hold is no valid listing.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The decompressor could not be set up.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl ReadError {
    /// Whether it tells of damage in the store.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Stream(_) => true,
            Self::Entry(error) => !error.is_newer(),
            Self::Pack(error) => error.is_damage(),
            Self::Catalogue(_) | Self::Seal(_) => false,
        }
    }

    /// Whether it tells of something that a later version wrote.
    pub const fn is_newer(&self) -> bool {
        match self {
            Self::Entry(error) => error.is_newer(),
            Self::Pack(error) => error.is_newer(),
            Self::Lost(_) | Self::Stream(_) | Self::Catalogue(_) | Self::Seal(_) => false,
        }
    }

    /// Whether it concerns only what depends on what was read, so that all else can go on.
    pub const fn is_contained(&self) -> bool {
        self.is_damage() || self.is_newer()
    }
}

/// Opened segments that are kept, in raw bytes: those that were used last, and one at least.
const SEGMENTS_KEPT: usize = 24 << 20;

/// Reads trees and other streams, one thread at a time.
pub struct TreeReader<'a> {
    packs: PackReader<'a>,
    lookup: Arc<Lookup<'a>>,
    infos: HashMap<u32, Arc<PackInfo>>,
    segments: Vec<((u32, u32), Arc<Segment>)>,
    /// Number of the last chunk in the first of them.
    last: usize,
    decompressor: Decompressor,
}

impl Vault {
    /// A reader of packs. What it finds damaged is known from then on (see [`Self::note_findings`]).
    pub(crate) fn pack_reader(&self) -> PackReader<'_> {
        PackReader::new(self.store(), self.keys()).watched(self)
    }

    /// A reader of what the catalogue knows at this moment.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn tree_reader(&self) -> Result<TreeReader<'_>, ReadError> {
        Ok(TreeReader {
            packs: self.pack_reader(),
            lookup: Arc::new(Lookup::new(self)?),
            infos: HashMap::new(),
            segments: Vec::new(),
            last: 0,
            decompressor: Decompressor::new()?,
        })
    }
}

impl<'a> TreeReader<'a> {
    /// What finds the chunks.
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

    fn segment(&mut self, place: ChunkPlace) -> Result<Arc<Segment>, ReadError> {
        let key = (place.pack, place.segment);
        if let Some(index) = self.segments.iter().position(|(other, _)| *other == key) {
            self.segments[..=index].rotate_right(1);
            return Ok(self.segments[0].1.clone());
        }
        let unknown = || CatalogueError::Database("a chunk lies in a pack that is not listed".to_owned());
        let info = self.info(place.pack)?.ok_or_else(unknown)?;
        let segment_place = info.place(place.segment).ok_or_else(unknown)?;
        let segment = Arc::new(self.packs.segment(&segment_place, None, &mut self.decompressor)?);
        self.segments.insert(0, (key, segment.clone()));
        let mut bytes = 0;
        let is_kept = |(_, segment): &&((u32, u32), Arc<Segment>)| {
            bytes += segment.raw.len();
            bytes <= SEGMENTS_KEPT
        };
        let kept = self.segments.iter().take_while(is_kept).count();
        self.segments.truncate(kept.max(1));
        Ok(segment)
    }

    fn chunk_at(&mut self, id: &ChunkId, place: ChunkPlace) -> Result<Vec<u8>, ReadError> {
        let segment = self.segment(place)?;
        let found = segment.chunks.binary_search_by_key(&place.offset, |(_, offset, _)| *offset).ok();
        match found.filter(|index| segment.chunks[*index].0 == *id) {
            Some(index) => Ok(self.take(index)),
            None => Err(ReadError::Lost(*id)),
        }
    }

    /// A chunk of the segment that was used last.
    fn take(&mut self, index: usize) -> Vec<u8> {
        self.last = index;
        let segment = &self.segments[0].1;
        let (_, offset, len) = segment.chunks[index];
        segment.raw[offset as usize..(offset + len) as usize].to_vec()
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
        let next = self.segments.first().and_then(|(_, segment)| segment.follows(self.last, id));
        if let Some(next) = next {
            return Ok(self.take(next));
        }
        let lookup = self.lookup.clone();
        lookup.try_places(id, |place| self.chunk_at(id, place))?.ok_or(ReadError::Lost(*id))
    }
}

/// Reads the entries of one listing, a chunk at a time.
#[derive(Debug)]
pub struct Listing {
    stream: StreamReader,
    buffer: Vec<u8>,
    used: usize,
    begun: bool,
    ended: bool,
    last: Vec<u8>,
}

impl Listing {
    /// Reads this listing from its start.
    pub fn new(listing: &Stream) -> Self {
        let ended = listing.len == 0;
        Self { stream: StreamReader::new(listing), buffer: Vec::new(), used: 0, begun: false, ended, last: Vec::new() }
    }

    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    /// If a chunk cannot be brought, or the bytes are not a valid listing: a newer version, a forbidden name, names out
    /// of order.
    pub fn next<S: ChunkSource>(&mut self, source: &mut S) -> Result<Option<Entry>, S::Error>
    where
        S::Error: From<EntryError>,
    {
        loop {
            if !self.begun && self.buffer.len() > self.used {
                let version = self.buffer[self.used];
                if version != LISTING_VERSION {
                    return Err(EntryError::Newer(version).into());
                }
                self.used += 1;
                self.begun = true;
            }
            if self.begun && self.used < self.buffer.len() {
                match decode_entry(&self.buffer[self.used..])? {
                    Some((entry, len)) => {
                        self.used += len;
                        if entry.name <= self.last {
                            return Err(EntryError::Malformed("its names are not in order".to_owned()).into());
                        }
                        self.last.clone_from(&entry.name);
                        return Ok(Some(entry));
                    }
                    None if self.ended || self.buffer.len() - self.used > ENTRY_LEN_MAX => {
                        return Err(EntryError::Malformed("it ends in the middle of an entry".to_owned()).into());
                    }
                    None => {}
                }
            }
            if self.ended {
                return Ok(None);
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            match self.stream.next(source)? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => self.ended = true,
            }
        }
    }
}
