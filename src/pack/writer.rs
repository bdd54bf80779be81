//! Fills packs with segments from many threads (SPEC §5.3).
//!
//! A segment gets its place in a pack when it is compressed (its length is known then), is sealed by the thread that
//! made it, and copied into the pack. A pack that is full and has all its segments is closed by the thread that comes
//! last, and handed on to be put into the store.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use memmap2::MmapMut;

use crate::id::{ChunkId, ObjectName};
use crate::limits::{PACK_CHUNKS_TARGET, PACK_LEN, PACK_LEN_FLOOR, PADDING_STEP_MAX};
use crate::pack::footer::{Footer, SegmentEntry};
use crate::pack::segment::{SealedBody, SegmentBuilder, open_segment};
use crate::pack::{LOCATOR_LEN, PackError, TRAILER_LEN};
use crate::seal::{
    Compressor, Decompressor, HEADER_LEN, IndexSection, Keys, NONCE_LEN, ObjectKind, ObjectSealer, SealError, TAG_LEN,
};
use crate::store::ObjectKey;
use crate::store::StoreError;
use crate::sync::lock;

/// Room reserved for everything but the segments and the footer's entries: header, the footer's version, count, nonce
/// and tag, locator, trailer.
const FRAME: usize = HEADER_LEN + 1 + 5 + NONCE_LEN + TAG_LEN + LOCATOR_LEN + TRAILER_LEN;

/// Most segments that wait. Packs are of one size, so room that stays empty at their ends is lost.
const WAITING: usize = 8;
/// Least room that is worth a segment.
const ROOM_MIN: usize = 16 << 10;

/// A pack that is whole and sealed, to be put into the store.
#[derive(Debug)]
pub struct FinishedPack {
    /// Pack or meta pack.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
    /// All its bytes.
    pub bytes: Bytes,
    /// Its footer.
    pub footer: Footer,
}

/// The bytes of a pack, in pages of their own: they go back to the system as soon as the pack is put. An allocator
/// would keep them, and place smaller allocations between them.
#[derive(Debug, Default)]
pub struct PackBytes {
    /// `None` only if there are no bytes.
    pages: Option<MmapMut>,
    len: usize,
}

impl PackBytes {
    /// This many zeros.
    fn zeros(len: usize) -> Result<Self, PackError> {
        let lacking = |source| StoreError::Exhausted { action: "write", object: "pack".to_owned().into(), source };
        let pages = MmapMut::map_anon(len).map_err(lacking)?;
        // All of it will be written: use large pages, if the system has any.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Ok(Self { pages: Some(pages), len })
    }
}

impl Deref for PackBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.as_ref().map_or(&[], |pages| &pages[..self.len])
    }
}

impl AsRef<[u8]> for PackBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl DerefMut for PackBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut().map_or(&mut [], |pages| &mut pages[..self.len])
    }
}

#[derive(Debug)]
struct OpenPack {
    sealer: ObjectSealer,
    state: Mutex<PackState>,
}

#[derive(Debug, Default)]
struct PackState {
    buffer: PackBytes,
    /// Offset of the next segment.
    end: usize,
    footer_len: usize,
    footer: Footer,
    chunks: usize,
    /// Number of segments that have a place but have not been copied in.
    pending: usize,
    closed: bool,
    /// Whether it has no room for a further segment.
    full: bool,
}

impl PackState {
    /// Number of bytes of the segments and of their entries.
    const fn taken(&self) -> usize {
        self.footer_len + self.end - HEADER_LEN
    }
}

/// Position of a segment.
struct Place {
    pack: Arc<OpenPack>,
    number: u32,
    offset: usize,
    len: usize,
}

/// Fills packs of one kind. All methods may be called from many threads.
pub struct PackWriter<'a> {
    keys: &'a Keys,
    kind: ObjectKind,
    pack_len: usize,
    verify: bool,
    /// Segments for which the open pack has no room.
    waiting: Mutex<Vec<SealedBody>>,
    open: Mutex<Option<Arc<OpenPack>>>,
    finished: Box<HandOn<'a>>,
}

/// Takes a finished pack; returns `false` if no more are wanted.
type HandOn<'a> = dyn Fn(FinishedPack) -> bool + Send + Sync + 'a;

impl<'a> PackWriter<'a> {
    /// A writer whose finished packs go to `finished`. With `verify`, every segment is opened and hashed again before it
    /// is accepted.
    pub fn new(
        keys: &'a Keys,
        kind: ObjectKind,
        verify: bool,
        finished: impl Fn(FinishedPack) -> bool + Send + Sync + 'a,
    ) -> Self {
        let (waiting, open) = (Mutex::default(), Mutex::default());
        Self { keys, kind, pack_len: PACK_LEN, verify, waiting, open, finished: Box::new(finished) }
    }

    /// The same writer with full packs of this size.
    #[must_use]
    pub fn with_pack_len(self, pack_len: usize) -> Self {
        Self { pack_len, ..self }
    }

    /// Room of the open pack for a further segment and its entry in the footer, in bytes.
    pub fn room(&self) -> usize {
        let taken = lock(&self.open).as_ref().map_or(0, |pack| lock(&pack.state).taken());
        self.pack_len.saturating_sub(FRAME + taken)
    }

    /// Compresses the collected chunks, or those for which the open pack probably has room, and puts the segment.
    /// Returns the number of its raw bytes.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_collected(
        &self,
        builder: &mut SegmentBuilder,
        compressor: &mut Compressor,
        decompressor: &mut Decompressor,
    ) -> Result<u64, PackError> {
        let body = builder.compress_for(self.room(), compressor);
        let raw_len = u64::from(body.raw_len);
        self.put(body, decompressor)?;
        Ok(raw_len)
    }

    /// Seals a segment into a pack, now or a little later: one for which the open pack has no room waits for the next
    /// pack, since shorter ones may still fill this one. The decompressor is used to verify the sealed segment.
    ///
    /// # Errors
    /// If sealing or verifying fails, or if nobody takes finished packs any more.
    pub fn put(&self, body: SealedBody, decompressor: &mut Decompressor) -> Result<(), PackError> {
        lock(&self.waiting).push(body);
        self.settle(WAITING, decompressor)
    }

    /// Puts waiting segments, until only `most` are left and the open pack has room for none of them.
    fn settle(&self, most: usize, decompressor: &mut Decompressor) -> Result<(), PackError> {
        loop {
            let mut waiting = lock(&self.waiting);
            let Some(body) = self.next(&mut waiting, most) else { return Ok(()) };
            // Its place is reserved before another thread chooses.
            let (place, complete) = self.reserve(body.entry())?;
            drop(waiting);
            if let Some(complete) = complete {
                self.finish_pack(&complete)?;
            }
            self.fill(&place, body, decompressor)?;
        }
    }

    /// The longest waiting segment for which the open pack has room. If there is none: the one that begins the next
    /// pack, if too many wait, or the room is too small for any.
    fn next(&self, waiting: &mut Vec<SealedBody>, most: usize) -> Option<SealedBody> {
        let room = self.room();
        let fitting = waiting.iter().map(SealedBody::room).enumerate().filter(|(_, need)| *need <= room);
        let index = match fitting.max_by_key(|(_, need)| *need) {
            Some((index, _)) => index,
            None if waiting.len() > most || room < ROOM_MIN && !waiting.is_empty() => 0,
            None => return None,
        };
        Some(waiting.remove(index))
    }

    /// Seals a segment into its place.
    fn fill(&self, place: &Place, mut body: SealedBody, decompressor: &mut Decompressor) -> Result<(), PackError> {
        let Place { pack, number, offset, len } = place;
        let ids: Vec<ChunkId> = body.chunks.iter().map(|(id, _)| *id).collect();
        let done =
            pack.sealer.seal_segment_in_place(*number, &ids, &mut body.buffer, 0).map_err(seal_error).and_then(|()| {
                if self.verify {
                    self.verify(&pack.sealer, *number, &body, decompressor)?;
                }
                if body.buffer.len() == *len {
                    Ok(())
                } else {
                    Err(PackError::Seal(format!("{} bytes changed length", body.raw_len)))
                }
            });
        if let Err(error) = done {
            // The place stays empty, so this pack can never be finished: the next segments go elsewhere.
            let mut open = lock(&self.open);
            if open.as_ref().is_some_and(|current| Arc::ptr_eq(current, pack)) {
                *open = None;
            }
            return Err(error);
        }
        let mut state = lock(&pack.state);
        state.buffer[*offset..*offset + *len].copy_from_slice(&body.buffer);
        state.pending -= 1;
        let finished = state.closed && state.pending == 0;
        drop(state);
        if finished { self.finish_pack(pack) } else { Ok(()) }
    }

    /// Opens the segment that was just sealed, and compares it with its source.
    fn verify(
        &self,
        sealer: &ObjectSealer,
        number: u32,
        body: &SealedBody,
        decompressor: &mut Decompressor,
    ) -> Result<(), PackError> {
        let sealed = &body.buffer;
        if let Some(hash) = body.reused {
            let mut plain = Vec::with_capacity(sealed.len());
            sealer.opener().open_segment(number, sealed, &mut plain).map_err(seal_error)?;
            return if blake3::hash(&plain) == hash {
                Ok(())
            } else {
                Err(PackError::Seal("a segment changed while it was copied".to_owned()))
            };
        }
        let object = ObjectKey::Named(sealer.kind().store_kind(), sealer.name());
        let expected = Some(body.chunks.as_slice());
        open_segment(self.keys, sealer.opener(), &object, number, sealed, expected, decompressor)
            .map_err(|error| PackError::Seal(error.reason()))?;
        Ok(())
    }

    /// Reserves a place for a segment. Closes the pack if it has no room, and returns it if it is complete.
    fn reserve(&self, entry: SegmentEntry) -> Result<(Place, Option<Arc<OpenPack>>), PackError> {
        let (len, entry_len) = (entry.sealed_len as usize, entry.encoded_len());
        let mut open = lock(&self.open);
        let mut complete = None;
        if let Some(pack) = open.as_ref() {
            let mut state = lock(&pack.state);
            state.full = FRAME + state.taken() + entry_len + len > self.pack_len;
            if state.full || state.chunks + entry.chunks.len() > PACK_CHUNKS_TARGET {
                state.closed = true;
                complete = (state.pending == 0).then(|| pack.clone());
                drop(state);
                *open = None;
            }
        }
        let pack = match open.as_ref() {
            Some(pack) => pack.clone(),
            None => open.insert(self.create_pack(FRAME + entry_len + len)?).clone(),
        };
        let mut state = lock(&pack.state);
        let (number, offset) = (state.footer.segments.len() as u32, state.end);
        state.end += len;
        state.footer_len += entry_len;
        state.chunks += entry.chunks.len();
        state.footer.segments.push(entry);
        state.pending += 1;
        drop(state);
        drop(open);
        Ok((Place { pack, number, offset, len }, complete))
    }

    /// A new pack, with room for a first segment that needs `need` bytes of it.
    fn create_pack(&self, need: usize) -> Result<Arc<OpenPack>, PackError> {
        let sealer = self.keys.create_object(self.kind).map_err(seal_error)?;
        let mut buffer = PackBytes::zeros(self.pack_len.max(need))?;
        buffer[..HEADER_LEN].copy_from_slice(sealer.header());
        let state = PackState { buffer, end: HEADER_LEN, ..PackState::default() };
        Ok(Arc::new(OpenPack { sealer, state: Mutex::new(state) }))
    }

    /// Seals the segments that still wait, and finishes the open pack, if there is one. All segments must have been
    /// put.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn finish(&self) -> Result<(), PackError> {
        let mut decompressor = Decompressor::new().map_err(seal_error)?;
        // A pack without room for a waiting segment is one of the last, and is not lengthened to that of a full one.
        loop {
            self.settle(usize::MAX, &mut decompressor)?;
            let pack = lock(&self.open).take();
            match pack {
                Some(pack) => self.finish_pack(&pack)?,
                None if lock(&self.waiting).is_empty() => return Ok(()),
                None => self.settle(0, &mut decompressor)?,
            }
        }
    }

    /// Adds padding, footer, locator and trailer, and hands the pack on.
    fn finish_pack(&self, pack: &OpenPack) -> Result<(), PackError> {
        let mut state = std::mem::take(&mut *lock(&pack.state));
        let mut tail = Vec::new();
        let index = self.keys.index_seal(self.kind, pack.sealer.name());
        index.seal(IndexSection::Footer, &state.footer.encode(), &mut tail).map_err(seal_error)?;
        let footer_len = tail.len();
        let need = state.end + footer_len + LOCATOR_LEN + TRAILER_LEN;
        let total = if state.full { self.pack_len.max(need) } else { padded_len(need, self.pack_len)? };
        let footer_offset = total - TRAILER_LEN - LOCATOR_LEN - footer_len;
        let padding = pack.sealer.padding(footer_offset - state.end);
        let mut locator = Vec::with_capacity(24);
        locator.extend_from_slice(&(footer_offset as u64).to_le_bytes());
        locator.extend_from_slice(&(footer_len as u32).to_le_bytes());
        locator.extend_from_slice(&(state.end as u64).to_le_bytes());
        locator.extend_from_slice(&(state.footer.segments.len() as u32).to_le_bytes());
        index.seal(IndexSection::Locator, &locator, &mut tail).map_err(seal_error)?;
        let mut bytes = state.buffer;
        bytes.len = total;
        bytes[state.end..footer_offset].copy_from_slice(&padding);
        let (sealed, trailer) = bytes.split_at_mut(total - TRAILER_LEN);
        sealed[footer_offset..].copy_from_slice(&tail);
        trailer.copy_from_slice(blake3::hash(sealed).as_bytes());
        let footer = std::mem::take(&mut state.footer);
        let bytes = Bytes::from_owner(bytes);
        let finished = FinishedPack { kind: self.kind, name: pack.sealer.name(), bytes, footer };
        if (self.finished)(finished) {
            Ok(())
        } else {
            Err(PackError::Seal("writing to the store has stopped".to_owned()))
        }
    }
}

fn seal_error(error: SealError) -> PackError {
    PackError::Seal(error.to_string())
}

/// The length of the last pack of a session: Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
/// Communication with PURBs", 2019) of the length with random jitter, so that lengths cannot be probed by adding to the
/// data bit by bit; never below the floor, never above a full pack. Its steps grow with the length only up to 64 KiB:
/// larger ones would cost each run hundreds of KiB, and blur how much space a prune frees, to hide three bits more.
fn padded_len(need: usize, pack_len: usize) -> Result<usize, PackError> {
    let base = need.max(PACK_LEN_FLOOR);
    let mut bytes = [0; 8];
    crate::seal::random(&mut bytes).map_err(seal_error)?;
    let jitter = u64::from_le_bytes(bytes) as usize % padme_step(base);
    Ok(padme(base + jitter).min(pack_len).max(need))
}

/// A length of at least `need` and at least `floor` that reveals little about it. With a step of a quarter of the power
/// of two below it, a random part of a step is added, and the sum is rounded up to a multiple of the step.
pub(super) fn stepped_len(need: usize, floor: usize) -> Result<usize, SealError> {
    let step = (1_usize << need.max(floor).ilog2()) / 4;
    let mut bytes = [0; 8];
    crate::seal::random(&mut bytes)?;
    Ok((need.max(floor) + u64::from_le_bytes(bytes) as usize % step).next_multiple_of(step))
}

/// The step to which lengths of this size are rounded up.
fn padme_step(len: usize) -> usize {
    let exponent = len.ilog2();
    PADDING_STEP_MAX.min(1 << (exponent - (exponent.ilog2() + 1)))
}

fn padme(len: usize) -> usize {
    len.next_multiple_of(padme_step(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkParams;
    use crate::id::VaultId;
    use crate::pack::PackReader;
    use crate::pack::reader::object_key;
    use crate::seal::{MasterKey, WriterKey};
    use crate::store::Store;
    use crate::store::testing::mem::MemStore;

    fn keys() -> Keys {
        let master = MasterKey::from_bytes(&[1; 32]);
        Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default())
    }

    /// Packs are of one size, so room that stays empty is lost: for photographs, whose segments are incompressible, an
    /// eighth of each pack, if segments were not cut to the remaining room.
    #[test]
    fn what_does_not_get_shorter_fills_its_packs() {
        let keys = keys();
        let (store, finished) = (MemStore::new(), Mutex::new(Vec::new()));
        let writer = PackWriter::new(&keys, ObjectKind::Pack, false, |pack| {
            store.put(&object_key(pack.kind, pack.name), pack.bytes.clone()).unwrap();
            lock(&finished).push((pack.name, pack.bytes.len(), pack.footer));
            true
        });
        let (mut compressor, mut decompressor) = (Compressor::new(1).unwrap(), Decompressor::new().unwrap());
        let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
        let (mut builder, mut put) = (SegmentBuilder::default(), Vec::new());
        let mut flush = |builder: &mut SegmentBuilder| {
            writer.put_collected(builder, &mut compressor, &mut decompressor).unwrap();
        };
        for _ in 0..1200 {
            let mut len = [0; 2];
            noise.fill(&mut len);
            let mut chunk = vec![0; 16_384 + usize::from(u16::from_le_bytes(len))];
            noise.fill(&mut chunk);
            put.push(builder.push(&keys, |buffer| buffer.extend_from_slice(&chunk), |_| true));
            if builder.is_full() {
                flush(&mut builder);
            }
        }
        while !builder.is_empty() {
            flush(&mut builder);
        }
        writer.finish().unwrap();
        drop(writer);
        let packs = finished.into_inner().unwrap();
        let segments = || packs.iter().flat_map(|(_, _, footer)| &footer.segments);
        let mut stored: Vec<ChunkId> = segments().flat_map(|segment| &segment.chunks).map(|(id, _)| *id).collect();
        stored.sort_unstable();
        put.sort_unstable();
        assert_eq!(stored, put);
        assert!(segments().all(|segment| segment.method == crate::seal::Method::Raw));
        assert_eq!(packs.len(), 4);
        for (_, len, footer) in &packs[..3] {
            let used: usize = footer.segments.iter().map(|segment| segment.sealed_len as usize).sum();
            let used = used + footer.encode().len() + FRAME;
            assert!(*len == PACK_LEN && used * 200 > PACK_LEN * 199, "{used} of {len}");
        }
        let reader = PackReader::new(&store, &keys);
        for (name, len, footer) in &packs {
            assert_eq!(reader.footer(ObjectKind::Pack, *name, *len as u64).unwrap(), *footer);
            assert_eq!(reader.scan(ObjectKind::Pack, *name, *len as u64, &mut decompressor).unwrap(), *footer);
        }
    }

    #[test]
    fn padded_lengths_are_few_and_cost_little() {
        let mut sizes = std::collections::BTreeSet::new();
        for len in (PACK_LEN_FLOOR..PACK_LEN).step_by(997) {
            let padded = padme(len);
            assert!(padded >= len && (padded - len) * 8 <= len, "{len} became {padded}");
            sizes.insert(padded);
        }
        assert!(sizes.len() < 400, "{} different sizes", sizes.len());
        for need in [1, 70_000, 1 << 20, 9_000_000, PACK_LEN - 1, PACK_LEN] {
            let total = padded_len(need, PACK_LEN).unwrap();
            assert!((need.max(PACK_LEN_FLOOR)..=PACK_LEN).contains(&total));
            assert!(total <= need.max(PACK_LEN_FLOOR) + 2 * PADDING_STEP_MAX, "{need} became {total}");
        }
    }
}
