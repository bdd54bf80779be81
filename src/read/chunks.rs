//! Reads chunks from the store, wherever the catalogue says that they are: [`ChunkReader`] for many threads at once,
//! [`TreeReader`] for one thread that reads streams from front to back.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::catalogue::{CatalogueError, ChunkPlace, PackInfo, Reader, SegmentRef};
use crate::id::{ChunkId, ObjectName};
use crate::pack::segment::Segment;
use crate::pack::together::around;
use crate::pack::{PackReader, SegmentPlace};
use crate::read::listing::{self, Listing};
use crate::seal::ObjectKind;
use crate::tree::{ChunkSource, Entry, Stream};
use crate::vault::segments::SegmentCache;
use crate::vault::{Lookup, ReadError, Vault};

/// Raw bytes of opened segments that are kept for readers of a few trees.
const SEGMENTS_KEPT: usize = 24 << 20;
/// Raw bytes of opened segments that are kept for readers of all trees.
const SEGMENTS_OF_ALL: usize = 40 << 20;

/// A verified chunk in its opened segment.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The segment.
    pub segment: Arc<Segment>,
    /// The chunk's index in it.
    pub index: usize,
}

impl Piece {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.segment.bytes(self.index)
    }

    /// The next chunk of the segment, if it is this one.
    fn next(self, id: &ChunkId) -> Option<Self> {
        let index = self.segment.follows(self.index, id)?;
        Some(Self { index, ..self })
    }
}

/// Packs by their numbers in the catalogue, as far as they were needed.
#[derive(Debug)]
pub(crate) struct PackInfos {
    known: RwLock<HashMap<u32, Arc<PackInfo>>>,
    /// From this number on they are forgotten.
    max: usize,
}

impl PackInfos {
    /// Remembers up to `max` packs.
    pub(crate) fn new(max: usize) -> Self {
        Self { known: RwLock::default(), max }
    }

    /// A pack; `None` if it is not listed.
    fn get(&self, number: u32, lookup: &Lookup<'_>) -> Result<Option<Arc<PackInfo>>, CatalogueError> {
        if let Some(info) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return Ok(Some(info.clone()));
        }
        let Some(info) = lookup.pack(number)?.map(Arc::new) else { return Ok(None) };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.max {
            known.clear();
        }
        known.insert(number, info.clone());
        Ok(Some(info))
    }
}

/// Reads chunks of a vault, for many threads at once.
pub struct ChunkReader<'a> {
    packs: PackReader<'a>,
    lookup: Arc<Lookup<'a>>,
    infos: Arc<PackInfos>,
    segments: Arc<SegmentCache>,
    /// Another vault, which is asked for chunks that cannot be read here.
    donor: Option<Box<(&'a Vault, Self)>>,
}

impl Vault {
    /// A reader that starts with the catalogue of this moment.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn tree_reader(&self) -> Result<TreeReader<'_>, ReadError> {
        Ok(self.tree_reader_by(Lookup::new(self)?))
    }

    /// The same, for work that only reads: see [`Lookup::looking_again`].
    ///
    /// # Errors
    /// If the catalogue fails.
    pub(crate) fn tree_reader_looking_again(&self) -> Result<TreeReader<'_>, ReadError> {
        Ok(self.tree_reader_by(Lookup::new(self)?.looking_again()))
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
        let segments = self.segments(SEGMENTS_KEPT);
        let infos = Arc::new(PackInfos::new(usize::MAX));
        TreeReader::sharing(&Arc::new(ChunkReader::with(self.tree_packs(), lookup, infos, segments)))
    }
}

impl<'a> ChunkReader<'a> {
    /// A reader made of these parts.
    pub(crate) fn with(
        packs: PackReader<'a>,
        lookup: Lookup<'a>,
        infos: Arc<PackInfos>,
        segments: Arc<SegmentCache>,
    ) -> Self {
        Self { packs, lookup: Arc::new(lookup), infos, segments, donor: None }
    }

    /// A reader of all chunks at their places in this view of the catalogue.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn new(vault: &'a Vault, reader: Arc<Reader>) -> Result<Self, CatalogueError> {
        Self::by(Lookup::with(vault, reader))
    }

    /// The same, for work that only reads: see [`Lookup::looking_again`].
    ///
    /// # Errors
    /// If the catalogue fails.
    pub(crate) fn looking_again(vault: &'a Vault, reader: Arc<Reader>) -> Result<Self, CatalogueError> {
        Self::by(Lookup::with(vault, reader).looking_again())
    }

    fn by(lookup: Lookup<'a>) -> Result<Self, CatalogueError> {
        let vault = lookup.vault();
        let known = lookup.reader().packs()?.into_iter().map(|(number, info)| (number, Arc::new(info))).collect();
        let infos = PackInfos { known: RwLock::new(known), max: usize::MAX };
        Ok(Self::with(vault.tree_packs(), lookup, Arc::new(infos), vault.segments(SEGMENTS_OF_ALL)))
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

    /// A reader of a vault that lends chunks to another one.
    ///
    /// # Errors
    /// [`ReadError::Lender`] if its catalogue fails.
    pub fn of_lender(donor: &'a Vault) -> Result<Self, ReadError> {
        let chunks = donor.catalogue().reader().and_then(|reader| Self::new(donor, Arc::new(reader)));
        chunks.map_err(|error| ReadError::from(error).of_lender(donor))
    }

    /// The lookup that finds the chunks.
    pub const fn lookup(&self) -> &Arc<Lookup<'a>> {
        &self.lookup
    }

    /// The reader of the packs.
    pub(super) const fn packs(&self) -> &PackReader<'a> {
        &self.packs
    }

    /// The opened segments.
    pub(super) const fn segments(&self) -> &Arc<SegmentCache> {
        &self.segments
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
        self.infos.get(number, &self.lookup)
    }

    /// Opens a segment, verifying every chunk; `None` if the catalogue does not list it.
    fn segment(&self, at: SegmentRef) -> Result<Option<Arc<Segment>>, ReadError> {
        let Some(info) = self.info(at.pack)? else { return Ok(None) };
        let Some(place) = info.place(at.segment) else { return Ok(None) };
        if place.kind == ObjectKind::Meta && self.packs.store().is_far() && self.packs.is_new(place.pack) {
            self.bring_around(&info, &place);
        }
        let open = |decompressor: &mut _| Ok(self.packs.segment(&place, None, decompressor)?);
        self.segments.get((info.name, at.segment), open).map(Some)
    }

    /// Brings a segment of a meta pack from a far store into the cache, with the header and with its neighbours, of which the
    /// next steps of a walk through trees are likely to need some. Nothing that goes wrong is reported: the segment is read
    /// alone then.
    fn bring_around(&self, info: &PackInfo, wanted: &SegmentPlace) {
        let vault = self.lookup.vault();
        if self.segments.has(&(wanted.pack, wanted.number)) || vault.has_kept(wanted) {
            return;
        }
        let places: Vec<_> = (0..info.segments.len() as u32).map_while(|number| info.place(number)).collect();
        let run = &places[around(&places, wanted.number as usize)];
        let [first, ..] = run else { return };
        let packs = self.packs.by(vault.store());
        let Ok(together) = packs.read_together(first, run.last().unwrap_or(first)) else { return };
        vault.keep_together(&together, run);
        for place in run {
            let Some(sealed) = together.part(place) else { continue };
            let key = (place.pack, place.number);
            let _ = self.segments.get(key, |decompressor| Ok(packs.open_read(place, sealed, decompressor)?));
        }
    }

    /// Opens a segment, verifying every chunk.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn open(&self, at: SegmentRef) -> Result<Arc<Segment>, ReadError> {
        Ok(self.segment(at)?.ok_or_else(not_listed)?)
    }

    /// The chunk at a place; `None` if the catalogue does not list such a segment.
    ///
    /// # Errors
    /// If the segment is missing or damaged, or has no such chunk.
    pub(super) fn piece_at(&self, id: &ChunkId, place: ChunkPlace) -> Result<Option<Piece>, ReadError> {
        let Some(segment) = self.segment(place.segment_ref())? else { return Ok(None) };
        let index = segment.index_of(id, place.offset, place.len).ok_or(ReadError::Lost(*id))?;
        Ok(Some(Piece { segment, index }))
    }

    /// Checks that the newest view of the catalogue lists the pack of a chunk that was not found, if it has one. An older
    /// view may name a pack that is gone by now.
    fn check_listed(&self, id: &ChunkId) -> Result<(), ReadError> {
        let reader = self.lookup.reader();
        let place = reader.locate(id)?;
        let is_unlisted = place.map(|place| reader.pack(place.pack)).transpose()?.is_some_and(|pack| pack.is_none());
        if is_unlisted { Err(not_listed().into()) } else { Ok(()) }
    }

    /// A chunk.
    ///
    /// # Errors
    /// If it is in no pack, or cannot be read from any that contains it.
    pub fn chunk(&self, id: &ChunkId) -> Result<Piece, ReadError> {
        let found = self.lookup.try_places(id, |place| self.piece_at(id, place)?.ok_or(ReadError::Lost(*id)));
        let found = found.and_then(|found| found.ok_or_else(|| self.lookup.lost(id)));
        if matches!(found, Err(ReadError::Lost(_))) {
            self.check_listed(id)?;
        }
        let (error, (donor, lender)) = match (found, self.donor.as_deref()) {
            (Err(error), Some(donor)) if error.is_contained() => (error, donor),
            (found, _) => return found,
        };
        // What is wrong with the donor says nothing about this vault.
        let lent = lender.lookup.locate(id).and_then(|place| place.map(|_| lender.chunk(id)).transpose());
        match lent {
            Ok(Some(lent)) => Ok(lent),
            Ok(None) => Err(error),
            Err(theirs) if theirs.is_contained() => Err(error),
            Err(theirs) => Err(theirs.of_lender(donor)),
        }
    }
}

fn not_listed() -> CatalogueError {
    CatalogueError::Database("a chunk lies in a pack that is not listed".to_owned())
}

/// Reads trees and other streams, one thread at a time: the chunk that follows the last one is found without a look-up.
pub struct TreeReader<'a> {
    chunks: Arc<ChunkReader<'a>>,
    /// The chunk that was used last.
    last: Option<Piece>,
}

impl<'a> TreeReader<'a> {
    /// A reader for one thread of those that share `chunks`.
    pub fn sharing(chunks: &Arc<ChunkReader<'a>>) -> Self {
        Self { chunks: chunks.clone(), last: None }
    }

    /// Another reader, for another thread, that shares what this one knows.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::sharing(&self.chunks)
    }

    /// The reader of chunks that is shared.
    pub const fn chunks(&self) -> &Arc<ChunkReader<'a>> {
        &self.chunks
    }

    /// The lookup that finds the chunks.
    pub fn lookup(&self) -> &Arc<Lookup<'a>> {
        self.chunks.lookup()
    }

    /// The newest view of the catalogue.
    pub fn catalogue(&self) -> Arc<Reader> {
        self.lookup().reader()
    }

    /// The entry of this name in a listing.
    ///
    /// # Errors
    /// As [`Self::for_each_entry`].
    pub fn entry(&mut self, listing: &Stream, name: &[u8]) -> Result<Option<Entry>, ReadError> {
        listing::entry(listing, name, self)
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
        let next = self.last.take().and_then(|last| last.next(id));
        let piece = next.map_or_else(|| self.chunks.chunk(id), Ok)?;
        let bytes = piece.bytes().to_vec();
        self.last = Some(piece);
        Ok(bytes)
    }

    fn invalid(&mut self, error: impl Into<ReadError>) -> ReadError {
        self.lookup().judged(error.into())
    }
}

/// Reads chunks for one thread, and records which were requested.
pub struct Recorder<'a> {
    trees: TreeReader<'a>,
    /// Every chunk requested.
    pub asked: Vec<ChunkId>,
}

impl<'a> Recorder<'a> {
    /// A reader for one thread of those that share `chunks`.
    pub fn new(chunks: &Arc<ChunkReader<'a>>) -> Self {
        Self { trees: TreeReader::sharing(chunks), asked: Vec::new() }
    }
}

impl ChunkSource for Recorder<'_> {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        self.asked.push(*id);
        self.trees.chunk(id)
    }

    fn invalid(&mut self, error: impl Into<ReadError>) -> ReadError {
        self.trees.invalid(error)
    }
}
