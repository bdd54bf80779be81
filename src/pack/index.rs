//! Index objects: hints that tell which pack has which chunk (SPEC §5.5).
//!
//! A footer lists the chunks of one pack, so finding the pack of a chunk would mean reading all footers. An index
//! object has an entry for each chunk of many packs, sorted, in ranges that are sealed one by one, so that a look-up
//! reads a few KiB. It is only a cache: an entry tells which footer is worth reading, and nothing is ever taken from it
//! that the footer does not say, too.

use std::collections::HashSet;
use std::hash::BuildHasher;

use bytes::Bytes;

use crate::id::{ChunkId, ObjectName};
use crate::limits::{INDEX_ENTRIES_MAX, INDEX_LEN_MAX, INDEX_RANGE_ENTRIES_MAX, INDEX_RANGES_MAX};
use crate::pack::writer::stepped_len;
use crate::pack::{PackError, TRAILER_LEN};
use crate::seal::{IndexSeal, IndexSection, Keys, ObjectKind, SEAL_OVERHEAD, SealError, random, random_name};
use crate::store::{Kind, ObjectKey, Store, StoreError};
use crate::varint::{self, DecodeError, Reader};

const VERSION: u8 = 1;
/// Length of the locator in clear: version, length of the fence table, length of the list of packs.
const LOCATOR_PLAIN_LEN: usize = 1 + 4 + 4;
/// Length of the end of every index object: the sealed locator, and the trailer.
const END_LEN: usize = LOCATOR_PLAIN_LEN + SEAL_OVERHEAD + TRAILER_LEN;
/// Average number of entries of a range: with its sealing, 4 KiB.
const RANGE_ENTRIES: u64 = 338;
/// Shortest length to which an object is padded.
const LEN_FLOOR: usize = 4 << 10;
/// Number of bytes at an object's end that are read at once, since the fence table is probably among them.
const TAIL: u64 = 16 << 10;
/// Number of bytes of one request when ranges are read one after the other.
const READ_AHEAD: u64 = 512 << 10;
/// Number of objects of about one size that are merged into one.
const TIER: usize = 16;
/// Ratio of the numbers of entries in neighbouring tiers.
const TIER_FACTOR: u64 = 16;
/// Objects of fewer entries than this are in the lowest tier.
const TIER_LOWEST: u64 = 1 << 12;

/// The first bytes of an id or a name.
pub type Start = [u8; 6];

/// The first bytes of a pack's name, as entries contain them.
pub fn start_of(name: &ObjectName) -> Start {
    let bytes = name.as_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}

/// An entry: a chunk whose id has this start is in a pack whose name has this start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hint {
    chunk: Start,
    /// The first bytes of the name of the pack.
    pub pack: Start,
}

impl Hint {
    /// Length in bytes.
    pub const LEN: usize = 12;

    /// The entry of a chunk in a pack.
    pub fn new(chunk: &ChunkId, pack: &ObjectName) -> Self {
        Self { chunk: chunk_start(chunk), pack: start_of(pack) }
    }

    /// A number that differs for nearly all entries.
    pub fn mixed(&self) -> u64 {
        let half = |start: &Start| start.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let mix = |number: u64| {
            let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            number ^ number >> 31
        };
        mix(half(&self.chunk) ^ mix(half(&self.pack).wrapping_add(0x9e37_79b9_7f4a_7c15)))
    }

    fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let (mut chunk, mut pack) = ([0; 6], [0; 6]);
        chunk.copy_from_slice(&bytes[..6]);
        pack.copy_from_slice(&bytes[6..]);
        Self { chunk, pack }
    }
}

fn chunk_start(id: &ChunkId) -> Start {
    let bytes = id.as_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}

/// The range of an id with this start, if there are `ranges` of them.
fn range_of(start: Start, ranges: usize) -> usize {
    let number = start.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    // There are at most 2²⁰ ranges, so this never overflows.
    ((u128::from(number) * ranges as u128) >> 48) as usize
}

/// A pack that an index object describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexedPack {
    /// Its name.
    pub name: ObjectName,
    /// Pack or meta pack.
    pub kind: ObjectKind,
    /// Its length, in bytes.
    pub len: u64,
}

/// The plaintext of a list of packs.
pub fn encode_packs(packs: &[IndexedPack]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packs.len() * 21);
    for pack in packs {
        out.extend_from_slice(pack.name.as_bytes());
        varint::put(&mut out, pack.len << 1 | u64::from(pack.kind == ObjectKind::Meta));
    }
    out
}

/// Reads a list of packs.
///
/// # Errors
/// If it is malformed, or its names are not in order.
pub fn decode_packs(bytes: &[u8]) -> Result<Vec<IndexedPack>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut packs: Vec<IndexedPack> = Vec::with_capacity(bytes.len() / 17);
    while !reader.rest().is_empty() {
        let name = ObjectName::new(reader.array()?);
        let number = reader.number()?;
        let kind = if number & 1 == 1 { ObjectKind::Meta } else { ObjectKind::Pack };
        if packs.last().is_some_and(|last| last.name >= name) {
            return Err(DecodeError::Limit("the order of packs"));
        }
        packs.push(IndexedPack { name, kind, len: number >> 1 });
    }
    Ok(packs)
}

/// The fence table of an index object: the positions of its ranges, and the objects that it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fence {
    /// Number of entries of each range.
    pub counts: Vec<u32>,
    /// Objects whose packs are all in this one, or are gone.
    pub replaced: Vec<ObjectName>,
}

impl Fence {
    /// The plaintext of a fence table.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        varint::put(&mut out, self.counts.len() as u64);
        self.counts.iter().for_each(|count| varint::put(&mut out, u64::from(*count)));
        self.replaced.iter().for_each(|name| out.extend_from_slice(name.as_bytes()));
        out
    }

    /// Reads a fence table.
    ///
    /// # Errors
    /// If it is malformed, or over a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = reader.bounded("the number of ranges", INDEX_RANGES_MAX)?;
        if count == 0 || count > reader.rest().len() {
            return Err(DecodeError::Short);
        }
        let mut counts = Vec::with_capacity(count);
        for _ in 0..count {
            counts.push(reader.bounded("the number of entries in a range", INDEX_RANGE_ENTRIES_MAX)? as u32);
        }
        let (names, rest) = reader.rest().as_chunks::<{ ObjectName::LEN }>();
        if !rest.is_empty() {
            return Err(DecodeError::Short);
        }
        Ok(Self { counts, replaced: names.iter().map(|name| ObjectName::new(*name)).collect() })
    }

    /// The number of entries.
    pub fn entries(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }
}

/// Length of a sealed range of `count` entries.
const fn range_len(count: u32) -> usize {
    if count == 0 { 0 } else { count as usize * Hint::LEN + SEAL_OVERHEAD }
}

/// Reads the entries of range `number` of `ranges`.
///
/// # Errors
/// If they are not in order, or do not belong to this range.
pub fn decode_range(bytes: &[u8], number: usize, ranges: usize) -> Result<Vec<Hint>, DecodeError> {
    let (entries, rest) = bytes.as_chunks::<{ Hint::LEN }>();
    if !rest.is_empty() {
        return Err(DecodeError::Short);
    }
    let hints: Vec<Hint> = entries.iter().map(Hint::from_bytes).collect();
    let belongs = |hint: &Hint| range_of(hint.chunk, ranges) == number;
    if !hints.is_sorted_by(|a, b| a < b) || !hints.iter().all(belongs) {
        return Err(DecodeError::Limit("the order of entries"));
    }
    Ok(hints)
}

/// Builds an index object from entries that come in order.
pub struct IndexBuilder {
    seal: IndexSeal,
    name: ObjectName,
    bytes: Vec<u8>,
    fence: Fence,
    ranges: usize,
    plain: Vec<u8>,
    last: Option<Hint>,
}

impl IndexBuilder {
    /// A builder of an object under a fresh name, for about `entries` entries.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn new(keys: &Keys, entries: u64) -> Result<Self, SealError> {
        Ok(Self::named(keys, random_name()?, entries))
    }

    fn named(keys: &Keys, name: ObjectName, entries: u64) -> Self {
        let ranges = entries.div_ceil(RANGE_ENTRIES).clamp(1, INDEX_RANGES_MAX as u64) as usize;
        let seal = keys.index_seal(ObjectKind::Index, name);
        Self { seal, name, bytes: Vec::new(), fence: Fence::default(), ranges, plain: Vec::new(), last: None }
    }

    /// Adds the next entry. A repeated one is ignored.
    ///
    /// # Errors
    /// If sealing fails.
    pub fn push(&mut self, hint: Hint) -> Result<(), SealError> {
        if self.last.is_some_and(|last| hint <= last) {
            return Ok(());
        }
        self.last = Some(hint);
        let range = range_of(hint.chunk, self.ranges);
        while self.fence.counts.len() < range {
            self.close_range()?;
        }
        self.plain.extend_from_slice(&hint.chunk);
        self.plain.extend_from_slice(&hint.pack);
        Ok(())
    }

    fn close_range(&mut self) -> Result<(), SealError> {
        let number = self.fence.counts.len() as u32;
        self.fence.counts.push((self.plain.len() / Hint::LEN) as u32);
        if !self.plain.is_empty() {
            self.seal.seal(IndexSection::Range(number), &self.plain, &mut self.bytes)?;
            self.plain.clear();
        }
        Ok(())
    }

    /// Finishes the object, which describes these packs, in order, and replaces these objects. Returns its name, its
    /// bytes, and its number of entries.
    ///
    /// # Errors
    /// If sealing fails.
    pub fn finish(
        mut self,
        packs: &[IndexedPack],
        replaced: Vec<ObjectName>,
    ) -> Result<(ObjectName, Vec<u8>, u64), SealError> {
        while self.fence.counts.len() < self.ranges {
            self.close_range()?;
        }
        self.fence.replaced = replaced;
        let mut tail = Vec::new();
        self.seal.seal(IndexSection::Packs, &encode_packs(packs), &mut tail)?;
        let packs_len = tail.len();
        self.seal.seal(IndexSection::Footer, &self.fence.encode(), &mut tail)?;
        let fence_len = tail.len() - packs_len;
        let mut locator = vec![VERSION];
        locator.extend_from_slice(&(fence_len as u32).to_le_bytes());
        locator.extend_from_slice(&(packs_len as u32).to_le_bytes());
        self.seal.seal(IndexSection::Locator, &locator, &mut tail)?;
        let used = self.bytes.len() + tail.len() + TRAILER_LEN;
        let padding = stepped_len(used, LEN_FLOOR)? - used;
        let start = self.bytes.len();
        self.bytes.reserve_exact(padding + tail.len() + TRAILER_LEN);
        self.bytes.resize(start + padding, 0);
        random(&mut self.bytes[start..])?;
        self.bytes.extend_from_slice(&tail);
        let trailer = blake3::hash(&self.bytes);
        self.bytes.extend_from_slice(trailer.as_bytes());
        let entries = self.fence.entries();
        Ok((self.name, self.bytes, entries))
    }
}

/// An index object whose fence table was read.
#[derive(Debug)]
pub struct IndexHead {
    /// Its name.
    pub name: ObjectName,
    /// Its length, in bytes.
    pub len: u64,
    /// Its fence table.
    pub fence: Fence,
    /// Offset of each range, and the end of the last one.
    offsets: Vec<u64>,
    /// Offset of the sealed list of packs, and its length.
    packs: (u64, usize),
    /// The bytes read from its end, and their offset.
    tail: (u64, Bytes),
}

/// Opens the index objects of a store.
#[derive(Clone, Copy)]
pub struct IndexReader<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    /// Bytes that are read from the end of an object with its fence table, if that alone takes fewer.
    tail: u64,
}

impl<'a> IndexReader<'a> {
    /// A reader of the index objects in `store`.
    pub const fn new(store: &'a dyn Store, keys: &'a Keys) -> Self {
        Self { store, keys, tail: 0 }
    }

    /// Reads at least these bytes from the end of an object with its fence table: the ranges in them cost no requests later.
    #[must_use]
    pub const fn with_tail(self, tail: u64) -> Self {
        Self { tail, ..self }
    }

    fn open(&self, name: ObjectName, section: IndexSection, sealed: &[u8]) -> Result<Vec<u8>, PackError> {
        let seal = self.keys.index_seal(ObjectKind::Index, name);
        seal.open(section, sealed).map_err(|error| PackError::open(key(name), &error))
    }

    /// Whether the end of an object opens with these keys, so that it is not another vault's.
    ///
    /// # Errors
    /// If the store cannot read it.
    pub fn is_of_these_keys(&self, name: ObjectName) -> Result<bool, StoreError> {
        let len = self.store.len(&key(name))?;
        let Some(start) = len.checked_sub(END_LEN as u64) else { return Ok(false) };
        let end = self.store.get_range(&key(name), start, END_LEN - TRAILER_LEN)?;
        Ok(self.open(name, IndexSection::Locator, &end).is_ok())
    }

    /// Reads the fence table of an object of `len` bytes: in one request, or two if it is long.
    ///
    /// # Errors
    /// If it is missing, damaged, of another vault, or of a later version.
    pub fn head(&self, name: ObjectName, len: u64) -> Result<IndexHead, PackError> {
        let damaged = |what: &str| PackError::Damaged { object: key(name), what: what.to_owned() };
        if !(END_LEN as u64..=INDEX_LEN_MAX).contains(&len) {
            return Err(damaged(&format!("{len} bytes is no length of an index object")));
        }
        // A fence table takes less than two bytes for each 4 KiB.
        let tail_len = TAIL.saturating_add(len / 2048).max(self.tail).min(len);
        let start = len - tail_len;
        let tail = self.store.get_range(&key(name), start, tail_len as usize)?;
        let end = tail.len() - END_LEN;
        let locator = self.open(name, IndexSection::Locator, &tail[end..tail.len() - TRAILER_LEN])?;
        let malformed = |error| PackError::malformed(key(name), error);
        let mut fields = Reader::new(&locator);
        match fields.byte().map_err(malformed)? {
            VERSION => {}
            0 => return Err(damaged("there is no such version")),
            _ => return Err(malformed(DecodeError::Unknown("version of an index object"))),
        }
        let fence_len = u64::from(u32::from_le_bytes(fields.array().map_err(malformed)?));
        let packs_len = u64::from(u32::from_le_bytes(fields.array().map_err(malformed)?));
        let fence_end = start + end as u64;
        let fence_at = fence_end.checked_sub(fence_len).filter(|_| fence_len >= SEAL_OVERHEAD as u64);
        let packs_at = fence_at.and_then(|at| at.checked_sub(packs_len)).filter(|_| packs_len >= SEAL_OVERHEAD as u64);
        let (Some(fence_at), Some(packs_at), true) = (fence_at, packs_at, fields.rest().is_empty()) else {
            return Err(damaged("its locator is out of bounds"));
        };
        let fence = if fence_at >= start {
            self.open(name, IndexSection::Footer, &tail[(fence_at - start) as usize..end])?
        } else {
            let sealed = self.store.get_range(&key(name), fence_at, fence_len as usize)?;
            self.open(name, IndexSection::Footer, &sealed)?
        };
        let fence = Fence::decode(&fence).map_err(malformed)?;
        let mut offsets = vec![0];
        let mut offset = 0;
        for count in &fence.counts {
            offset += range_len(*count) as u64;
            offsets.push(offset);
        }
        if offset > packs_at {
            return Err(damaged("its ranges overlap what follows them"));
        }
        Ok(IndexHead { name, len, fence, offsets, packs: (packs_at, packs_len as usize), tail: (start, tail) })
    }

    /// Reads bytes of an object, from the tail that was read already if they are in it.
    fn bytes(&self, head: &IndexHead, at: u64, len: usize) -> Result<Bytes, PackError> {
        let (start, tail) = &head.tail;
        let there = at.checked_sub(*start).map(|at| at as usize).filter(|at| at.saturating_add(len) <= tail.len());
        there.map_or_else(|| Ok(self.store.get_range(&key(head.name), at, len)?), |at| Ok(tail.slice(at..at + len)))
    }

    /// The packs that an object describes.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn packs(&self, head: &IndexHead) -> Result<Vec<IndexedPack>, PackError> {
        let sealed = self.bytes(head, head.packs.0, head.packs.1)?;
        let plain = self.open(head.name, IndexSection::Packs, &sealed)?;
        decode_packs(&plain).map_err(|error| PackError::malformed(key(head.name), error))
    }

    fn range(&self, head: &IndexHead, number: usize, sealed: &[u8]) -> Result<Vec<Hint>, PackError> {
        if sealed.is_empty() {
            return Ok(Vec::new());
        }
        let plain = self.open(head.name, IndexSection::Range(number as u32), sealed)?;
        let malformed = |error| PackError::malformed(key(head.name), error);
        decode_range(&plain, number, head.fence.counts.len()).map_err(malformed)
    }

    /// The packs that may have a chunk, according to an object. Reads one range of it.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn look_up(&self, head: &IndexHead, id: &ChunkId) -> Result<Vec<Start>, PackError> {
        let chunk = chunk_start(id);
        let number = range_of(chunk, head.fence.counts.len());
        let (at, end) = (head.offsets[number], head.offsets[number + 1]);
        let hints = self.range(head, number, &self.bytes(head, at, (end - at) as usize)?)?;
        Ok(hints.into_iter().filter(|hint| hint.chunk == chunk).map(|hint| hint.pack).collect())
    }

    /// All entries of an object, in order.
    pub const fn entries<'h>(&self, head: &'h IndexHead) -> Entries<'h, 'a> {
        Entries { reader: *self, head, next: 0, ahead: Bytes::new(), at: 0, hints: Vec::new() }
    }

    /// Reads the whole object, and compares it with the hash at its end.
    ///
    /// # Errors
    /// If it is not as it was put.
    pub fn verify(&self, head: &IndexHead) -> Result<(), PackError> {
        let mut hasher = blake3::Hasher::new();
        let end = head.len - TRAILER_LEN as u64;
        let mut at = 0;
        while at < end {
            let len = READ_AHEAD.min(end - at) as usize;
            hasher.update(&self.bytes(head, at, len)?);
            at += len as u64;
        }
        if hasher.finalize().as_bytes()[..] == self.bytes(head, end, TRAILER_LEN)?[..] {
            return Ok(());
        }
        Err(PackError::Damaged { object: key(head.name), what: "its checksum is wrong".to_owned() })
    }
}

/// The key of an index object.
pub const fn key(name: ObjectName) -> ObjectKey {
    ObjectKey::Named(Kind::Index, name)
}

/// The entries of an object in order, read in large pieces.
pub struct Entries<'h, 'a> {
    reader: IndexReader<'a>,
    head: &'h IndexHead,
    /// Number of the next range.
    next: usize,
    /// Bytes that were read ahead, and their offset.
    ahead: Bytes,
    at: u64,
    /// The remaining entries of the previous range, in reverse order.
    hints: Vec<Hint>,
}

impl Entries<'_, '_> {
    fn fill(&mut self) -> Result<bool, PackError> {
        while self.hints.is_empty() {
            let offsets = &self.head.offsets;
            let (Some(start), Some(end)) = (offsets.get(self.next), offsets.get(self.next + 1)) else {
                return Ok(false);
            };
            if *end > self.at + self.ahead.len() as u64 {
                let last = offsets.partition_point(|offset| *offset <= start + READ_AHEAD) - 1;
                let until = offsets[last.max(self.next + 1)];
                self.ahead = self.reader.bytes(self.head, *start, (until - start) as usize)?;
                self.at = *start;
            }
            let sealed = &self.ahead[(start - self.at) as usize..(end - self.at) as usize];
            self.hints = self.reader.range(self.head, self.next, sealed)?;
            self.hints.reverse();
            self.next += 1;
        }
        Ok(true)
    }

    /// The next entry.
    ///
    /// # Errors
    /// As [`IndexReader::head`].
    pub fn peek(&mut self) -> Result<Option<Hint>, PackError> {
        Ok(if self.fill()? { self.hints.last().copied() } else { None })
    }

    /// Goes to the next entry.
    pub fn advance(&mut self) {
        self.hints.pop();
    }
}

/// Calls `found` for the entries of several objects, in order, each once, if their packs are in `kept`.
///
/// # Errors
/// The first object that cannot be read, with the error.
pub fn merge(
    reader: IndexReader<'_>,
    heads: &[IndexHead],
    kept: &HashSet<Start, impl BuildHasher>,
    mut found: impl FnMut(Hint) -> Result<(), SealError>,
) -> Result<(), (ObjectName, PackError)> {
    let mut sources: Vec<Entries<'_, '_>> = heads.iter().map(|head| reader.entries(head)).collect();
    let mut last = None;
    loop {
        let mut least: Option<(Hint, usize)> = None;
        for (at, source) in sources.iter_mut().enumerate() {
            let next = source.peek().map_err(|error| (source.head.name, error))?;
            if let Some(next) = next
                && least.is_none_or(|(hint, _)| next < hint)
            {
                least = Some((next, at));
            }
        }
        let Some((hint, at)) = least else { return Ok(()) };
        sources[at].advance();
        if last.replace(hint) != Some(hint) && kept.contains(&hint.pack) {
            let sealed = found(hint);
            sealed.map_err(|error| (sources[at].head.name, PackError::Seal(error.to_string())))?;
        }
    }
}

/// Description of an index object, as writing clients remember it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexNote {
    /// Its name.
    pub name: ObjectName,
    /// Its length, in bytes.
    pub len: u64,
    /// Number of its entries.
    pub entries: u64,
    /// The objects that it replaces.
    pub replaced: Vec<ObjectName>,
    /// The packs that it describes.
    pub packs: Vec<IndexedPack>,
}

impl IndexReader<'_> {
    /// The description of the object of this name and length.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn note(&self, name: ObjectName, len: u64) -> Result<IndexNote, PackError> {
        let head = self.head(name, len)?;
        let packs = self.packs(&head)?;
        Ok(IndexNote { name, len, entries: head.fence.entries(), replaced: head.fence.replaced, packs })
    }
}

/// A description as the catalogue keeps it.
pub fn encode_note(note: &IndexNote) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [note.len, note.entries, note.replaced.len() as u64] {
        varint::put(&mut out, number);
    }
    note.replaced.iter().for_each(|name| out.extend_from_slice(name.as_bytes()));
    out.extend_from_slice(&encode_packs(&note.packs));
    out
}

/// Decodes a description from the catalogue.
pub fn decode_note(name: ObjectName, bytes: &[u8]) -> Option<IndexNote> {
    let mut reader = Reader::new(bytes);
    let (len, entries, count) = (reader.number().ok()?, reader.number().ok()?, reader.number().ok()?);
    let names = reader.bytes(usize::try_from(count).ok()?.checked_mul(ObjectName::LEN)?).ok()?;
    let replaced = names.as_chunks::<{ ObjectName::LEN }>().0.iter().map(|name| ObjectName::new(*name)).collect();
    Some(IndexNote { name, len, entries, replaced, packs: decode_packs(reader.rest()).ok()? })
}

/// Size of an index object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Number of its entries.
    pub entries: u64,
    /// Number of packs that it describes.
    pub packs: usize,
    /// Number of these that are gone.
    pub gone: usize,
}

/// Tier of an object.
fn tier(entries: u64) -> u32 {
    let (mut tier, mut most) = (0, TIER_LOWEST);
    while entries >= most {
        tier += 1;
        most = most.saturating_mul(TIER_FACTOR);
    }
    tier
}

/// Positions of the objects that should be merged into one; none if all is well. They are `TIER` objects of one tier,
/// or objects most of whose packs are gone. One merge never makes an object of more than [`INDEX_ENTRIES_MAX`] entries.
pub fn choose(objects: &[Extent]) -> Vec<usize> {
    let mut most = 0;
    let mut by_size: Vec<usize> = (0..objects.len()).collect();
    by_size.sort_by_key(|at| objects[*at].entries);
    let fitting = |candidates: Vec<usize>| -> Vec<usize> {
        let mut sum = 0;
        let fits = |at: &usize| {
            sum += objects[*at].entries;
            sum <= INDEX_ENTRIES_MAX
        };
        candidates.into_iter().take_while(fits).collect()
    };
    by_size.iter().for_each(|at| most = most.max(tier(objects[*at].entries)));
    for number in 0..=most {
        let of_tier: Vec<usize> = by_size.iter().copied().filter(|at| tier(objects[*at].entries) == number).collect();
        if of_tier.len() >= TIER {
            let merged = fitting(of_tier);
            if merged.len() > 1 {
                return merged;
            }
        }
    }
    fitting(by_size.into_iter().filter(|at| objects[*at].gone * 2 > objects[*at].packs).collect())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::chunk::ChunkParams;
    use crate::id::VaultId;
    use crate::seal::{MasterKey, WriterKey};
    use crate::store::testing::mem::MemStore;

    fn keys_of(vault: u8) -> Keys {
        let master = MasterKey::from_bytes(&[1; 32]);
        Keys::new(&master, &WriterKey::derive(&master), VaultId::new([vault; 16]), ChunkParams::default())
    }

    fn id(number: u32) -> ChunkId {
        let mut id = [0; 16];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut id);
        ChunkId::new(id)
    }

    fn pack(number: u32) -> IndexedPack {
        let name = ObjectName::new(*id(number | 1 << 31).as_bytes());
        let kind = if number.is_multiple_of(3) { ObjectKind::Meta } else { ObjectKind::Pack };
        IndexedPack { name, kind, len: u64::from(number) + 70_000 }
    }

    /// Puts an object that places chunk `n` in pack `n / 100`, for all of this range.
    fn put(
        store: &MemStore,
        keys: &Keys,
        chunks: std::ops::Range<u32>,
        replaced: Vec<ObjectName>,
    ) -> (ObjectName, u64) {
        let mut packs: Vec<IndexedPack> = (chunks.start / 100..chunks.end.div_ceil(100)).map(pack).collect();
        packs.sort_unstable();
        let mut hints: Vec<Hint> = chunks.map(|chunk| Hint::new(&id(chunk), &pack(chunk / 100).name)).collect();
        hints.sort_unstable();
        let mut builder = IndexBuilder::new(keys, hints.len() as u64).unwrap();
        for hint in hints {
            builder.push(hint).unwrap();
            builder.push(hint).unwrap();
        }
        let (name, bytes, _) = builder.finish(&packs, replaced).unwrap();
        let len = bytes.len() as u64;
        store.put(&key(name), bytes.into()).unwrap();
        (name, len)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn each_chunk_is_found_and_no_other() {
        let (store, keys) = (MemStore::new(), keys_of(2));
        let reader = IndexReader::new(&store, &keys);
        for count in [0, 1, 337, 339, 5000, 12_000] {
            let (name, len) = put(&store, &keys, 0..count, vec![pack(9).name]);
            let head = reader.head(name, len).unwrap();
            assert_eq!((head.fence.entries(), head.fence.replaced.len()), (u64::from(count), 1));
            assert_eq!(reader.packs(&head).unwrap().len() as u32, count.div_ceil(100));
            for chunk in (0..count).step_by(61) {
                assert_eq!(reader.look_up(&head, &id(chunk)).unwrap(), [start_of(&pack(chunk / 100).name)]);
            }
            for chunk in 50_000..50_030 {
                assert!(reader.look_up(&head, &id(chunk)).unwrap().is_empty());
            }
            let mut all = reader.entries(&head);
            let mut found = 0;
            while all.peek().unwrap().is_some() {
                all.advance();
                found += 1;
            }
            assert_eq!(found, count);
            reader.verify(&head).unwrap();
            let used = count as usize * 13 + 4 * 1024 + count.div_ceil(100) as usize * 20;
            assert!(len as usize <= used * 3 / 2 + 1024, "{len} bytes for {count}");
        }
    }

    #[test]
    fn what_is_merged_has_all_that_is_kept_once() {
        let (store, keys) = (MemStore::new(), keys_of(2));
        let reader = IndexReader::new(&store, &keys);
        let objects = [put(&store, &keys, 0..6000, vec![]), put(&store, &keys, 3000..9000, vec![])];
        let heads: Vec<IndexHead> = objects.iter().map(|(name, len)| reader.head(*name, *len).unwrap()).collect();
        let kept: HashSet<Start> = (10..80).map(|number| start_of(&pack(number).name)).collect();
        let mut merged = Vec::new();
        merge(reader, &heads, &kept, |hint| {
            merged.push(hint);
            Ok(())
        })
        .unwrap();
        let mut expected: Vec<Hint> =
            (1000..8000).map(|chunk| Hint::new(&id(chunk), &pack(chunk / 100).name)).collect();
        expected.sort_unstable();
        assert_eq!(merged, expected);
        store.mutate(&key(objects[1].0), |bytes| bytes[9000] ^= 1);
        let Err((name, error)) = merge(reader, &heads, &kept, |_| Ok(())) else { panic!("a range is damaged") };
        assert!(name == objects[1].0 && error.is_damage());
    }

    #[test]
    fn nothing_but_what_was_put_is_read() {
        let (store, keys) = (MemStore::new(), keys_of(2));
        let reader = IndexReader::new(&store, &keys);
        let (name, len) = put(&store, &keys, 0..1000, vec![]);
        let bytes = store.get(&key(name), len).unwrap().to_vec();
        let sound = reader.head(name, len).unwrap();
        let ranges = *sound.offsets.last().unwrap() as usize;
        let whole = |bytes: &[u8]| -> Result<(), PackError> {
            store.replace(key(name), bytes.to_vec());
            let head = reader.head(name, bytes.len() as u64)?;
            reader.packs(&head)?;
            let mut entries = reader.entries(&head);
            while entries.peek()?.is_some() {
                entries.advance();
            }
            Ok(())
        };
        whole(&bytes).unwrap();
        for at in (0..ranges).step_by(97).chain(sound.packs.0 as usize..bytes.len() - TRAILER_LEN) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(whole(&changed).is_err(), "byte {at}");
        }
        for end in [0, 10, END_LEN, bytes.len() / 2, bytes.len() - 1] {
            assert!(whole(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(whole(&[&bytes[..], &[0]].concat()).is_err());
        let mut padding = bytes.clone();
        padding[ranges] ^= 1;
        whole(&padding).unwrap();
        assert!(reader.verify(&reader.head(name, len).unwrap()).unwrap_err().is_damage());
        store.replace(key(name), bytes.clone());
        let others = keys_of(3);
        assert!(IndexReader::new(&store, &others).head(name, len).unwrap_err().is_damage());
        let other = ObjectName::new([7; 16]);
        store.replace(key(other), bytes);
        assert!(reader.head(other, len).unwrap_err().is_damage());
    }

    #[test]
    fn later_versions_are_newer_and_contradictions_are_refused() {
        let (store, keys, name) = (MemStore::new(), keys_of(2), ObjectName::new([3; 16]));
        let reader = IndexReader::new(&store, &keys);
        let head = |locator: &[u8], fence: &[u8]| {
            let seal = keys.index_seal(ObjectKind::Index, name);
            let mut bytes = Vec::new();
            seal.seal(IndexSection::Packs, b"", &mut bytes).unwrap();
            seal.seal(IndexSection::Footer, fence, &mut bytes).unwrap();
            seal.seal(IndexSection::Locator, locator, &mut bytes).unwrap();
            bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
            let len = bytes.len() as u64;
            store.replace(key(name), bytes);
            reader.head(name, len)
        };
        let locator = |version: u8, fence: u32, packs: u32| {
            [&[version][..], &(fence + 40).to_le_bytes(), &(packs + 40).to_le_bytes()].concat()
        };
        assert!(head(&locator(1, 2, 0), &[1, 0]).is_ok());
        assert!(head(&locator(2, 2, 0), &[1, 0]).unwrap_err().is_newer());
        assert!(head(&locator(255, 9, 9), &[1, 0]).unwrap_err().is_newer());
        for (locator, fence) in [
            (locator(0, 2, 0), &[1, 0][..]),
            (locator(1, 3, 0), &[1, 0]),
            (locator(1, 2, 1), &[1, 0]),
            (locator(1, 2, 0)[..8].to_vec(), &[1, 0]),
            ([&locator(1, 2, 0)[..], &[0]].concat(), &[1, 0]),
            (locator(1, 2, 0), &[1, 1]),
            (locator(1, 2, 0), &[0, 0]),
            (locator(1, 2, 0), &[9, 0]),
            (locator(1, 3, 0), &[1, 0, 0]),
        ] {
            assert!(head(&locator, fence).unwrap_err().is_damage(), "{locator:?} {fence:?}");
        }
    }

    #[test]
    fn entries_are_in_order_and_in_their_range() {
        let mut hints: Vec<Hint> = (0..50).map(|chunk| Hint::new(&id(chunk), &pack(1).name)).collect();
        hints.sort_unstable();
        let plain =
            |hints: &[Hint]| hints.iter().flat_map(|hint| [hint.chunk, hint.pack]).flatten().collect::<Vec<u8>>();
        assert_eq!(decode_range(&plain(&hints), 0, 1).unwrap(), hints);
        let half = hints.partition_point(|hint| hint.chunk[0] < 128);
        assert_eq!(decode_range(&plain(&hints[half..]), 1, 2).unwrap(), hints[half..]);
        assert!(decode_range(&plain(&hints), 1, 2).is_err());
        assert!(decode_range(&plain(&hints)[1..], 0, 1).is_err());
        assert!(decode_range(&plain(&[hints[1], hints[0]]), 0, 1).is_err());
        assert!(decode_range(&plain(&[hints[0], hints[0]]), 0, 1).is_err());
        assert_eq!(range_of([255; 6], 1 << 20), (1 << 20) - 1);
        assert_eq!(range_of([0; 6], 7), 0);
    }

    #[test]
    fn packs_and_notes_round_trip() {
        let mut packs: Vec<IndexedPack> = (0..20).map(pack).collect();
        packs.sort_unstable();
        assert_eq!(decode_packs(&encode_packs(&packs)).unwrap(), packs);
        assert!(decode_packs(&encode_packs(&[packs[1], packs[0]])).is_err());
        assert!(decode_packs(&encode_packs(&packs)[..30]).is_err());
        let note = IndexNote { name: pack(1).name, len: 5, entries: 6, replaced: vec![pack(2).name], packs };
        assert_eq!(decode_note(note.name, &encode_note(&note)), Some(note.clone()));
        assert_eq!(decode_note(note.name, &[1, 2, 200]), None);
    }

    #[test]
    fn objects_stay_few() {
        let extent = |entries| Extent { entries, packs: 2, gone: 0 };
        assert!(choose(&[extent(10); 15]).is_empty());
        assert_eq!(choose(&[extent(10); 16]).len(), 16);
        assert!(choose(&[&[extent(10); 15][..], &[extent(1 << 13); 15]].concat()).is_empty());
        let half_gone = Extent { gone: 1, ..extent(10) };
        let more_gone = Extent { gone: 2, ..extent(10) };
        assert_eq!(choose(&[extent(10), half_gone, more_gone]), [2]);
        // Runs of all sizes, one after the other.
        let (mut objects, mut most, mut noise) = (Vec::new(), 0, blake3::Hasher::new().finalize_xof());
        let mut moved = 0;
        for _ in 0..20_000 {
            let mut bytes = [0; 2];
            noise.fill(&mut bytes);
            objects.push(extent(1 << (bytes[0] % 13) | u64::from(bytes[1])));
            loop {
                let chosen = choose(&objects);
                if chosen.is_empty() {
                    break;
                }
                let sum = chosen.iter().map(|at| objects[*at].entries).sum();
                assert!(chosen.len() > 1 && sum <= INDEX_ENTRIES_MAX);
                moved += sum;
                let mut at = 0;
                objects.retain(|_| (!chosen.contains(&at), at += 1).0);
                objects.push(extent(sum));
            }
            most = most.max(objects.len());
        }
        let all: u64 = objects.iter().map(|object| object.entries).sum();
        assert!(most <= 64, "{most}");
        assert!(moved < 5 * all, "{moved} of {all}");
    }

    /// In SPEC.
    #[test]
    fn the_encodings_are_pinned() {
        let (first, second) = (ObjectName::new([4; 16]), ObjectName::new([5; 16]));
        let packs = [
            IndexedPack { name: first, kind: ObjectKind::Pack, len: 70_000 },
            IndexedPack { name: second, kind: ObjectKind::Meta, len: 65_536 },
        ];
        assert_eq!(hex(&encode_packs(&packs)), VECTOR_PACKS);
        let fence = Fence { counts: vec![1, 0, 300], replaced: vec![ObjectName::new([6; 16])] };
        assert_eq!(hex(&fence.encode()), VECTOR_FENCE);
        assert_eq!(Fence::decode(&fence.encode()).unwrap(), fence);
        let keys = keys_of(2);
        let seal = keys.index_seal(ObjectKind::Index, ObjectName::new([3; 16]));
        let sealed = |section, plain: &[u8]| {
            let mut out = Vec::new();
            seal.seal_with(&[6; 32], section, plain, &mut out).unwrap();
            hex(&out)
        };
        let hint = Hint::new(&ChunkId::new([7; 16]), &first);
        let range = [hint.chunk, hint.pack].concat();
        assert_eq!(range_of(hint.chunk, 3), 0);
        assert_eq!(sealed(IndexSection::Range(0), &range), VECTOR_RANGE);
        assert_eq!(sealed(IndexSection::Packs, b"packs"), VECTOR_SEALED_PACKS);
        assert_eq!(sealed(IndexSection::Footer, b"fence"), VECTOR_SEALED_FENCE);
        assert_eq!(sealed(IndexSection::Locator, b"locator"), VECTOR_SEALED_LOCATOR);
    }

    const VECTOR_PACKS: &str = "04040404040404040404040404040404e0c50805050505050505050505050505050505818008";
    const VECTOR_FENCE: &str = "030100ac0206060606060606060606060606060606";
    const VECTOR_RANGE: &str =
        "b5079c01c3c0cc39f6a559281b32d062d33fd693d1f53a536769eb084f92f06b8067b8692674a0cf2abf07f6555bceb12a1d7664";
    const VECTOR_SEALED_PACKS: &str =
        "4de7771723924d6924df89538001211b26191560496fc515bb8d2c8eafc2686b407a2360aaddcc10c57dedc275";
    const VECTOR_SEALED_FENCE: &str =
        "dbd74bc0e06f6d7fe41dc5f81484a23f43cb8d6bc9b7110fe39d236608a4d69b0b20a9a27fbd9b5ebeb4687c80";
    const VECTOR_SEALED_LOCATOR: &str =
        "bdfa8ee21796f05d6ad295c64fc4aa6cb491835dded2f64d54af7961d8c54df73d30374a44d1a838ddea39058a4a87";
}
