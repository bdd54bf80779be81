//! Opens packs: their footers, and segments one at a time (SPEC §5.3, §5.4).

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::id::{ChunkId, ObjectName};
use crate::limits::{FOOTER_LEN_MAX, PACK_LEN_MAX};
use crate::pack::footer::Footer;
use crate::pack::segment::{Segment, open_segment};
use crate::pack::together::{GAP, SegmentPlace, Together};
use crate::pack::{LOCATOR_LEN, PackError, TRAILER_LEN};
use crate::seal::{Decompressor, HEADER_LEN, IndexSection, Keys, NONCE_LEN, ObjectKind, ObjectOpener, TAG_LEN};
use crate::store::{ObjectKey, Store, StoreError};
use crate::sync::lock;
use crate::varint::Reader;

/// Receives each pack that is found damaged, at the moment when it is found.
pub trait Witness: Sync {
    /// A pack is not as it was put.
    fn saw_damage(&self, pack: &ObjectKey, what: &str);
}

/// Keys of the packs that were opened last.
#[derive(Clone, Default)]
pub struct Openers(Arc<Mutex<Vec<Opened>>>);

/// A pack, and its key.
type Opened = (ObjectName, Arc<ObjectOpener>);

/// Opens packs of one store. Remembers the keys of the packs that were opened last, together
/// with its clones.
#[derive(Clone)]
pub struct PackReader<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    recent: Openers,
    witness: Option<&'a dyn Witness>,
}

/// Number of packs whose keys are remembered.
const RECENT: usize = 64;

/// Number of bytes at a pack's end that are read at once, since the footer is probably among them. The footer of a full
/// pack of chunks of the default size has less than 5 KiB, or three times that if they compress well.
const TAIL: u64 = 16 << 10;

/// The key of an object of this kind and name.
pub fn object_key(kind: ObjectKind, name: ObjectName) -> ObjectKey {
    ObjectKey::Named(kind.store_kind(), name)
}

/// The error of a header, if the footer shows that the pack is of this version.
fn by_footer(error: PackError) -> PackError {
    match error {
        PackError::Newer { object, .. } => {
            PackError::Damaged { object, what: "its header is not what its footer says".to_owned() }
        }
        error => error,
    }
}

impl<'a> PackReader<'a> {
    /// A reader of the packs in `store`.
    pub fn new(store: &'a dyn Store, keys: &'a Keys) -> Self {
        Self { store, keys, recent: Openers::default(), witness: None }
    }

    /// Shares the remembered keys with other readers of the same store.
    #[must_use]
    pub fn sharing(mut self, openers: &Openers) -> Self {
        self.recent = openers.clone();
        self
    }

    /// Reports each pack whose segments turn out to be damaged to `witness`.
    #[must_use]
    pub fn watched(mut self, witness: &'a dyn Witness) -> Self {
        self.witness = Some(witness);
        self
    }

    /// Reads and authenticates a pack's header.
    ///
    /// # Errors
    /// If it is missing, damaged, or from a newer version.
    pub fn opener(&self, kind: ObjectKind, name: ObjectName) -> Result<Arc<ObjectOpener>, PackError> {
        if let Some(opener) = self.known_opener(name) {
            return Ok(opener);
        }
        let header = self.store.get_range(&object_key(kind, name), 0, HEADER_LEN)?;
        self.enter_header(kind, name, &header)
    }

    /// The key of a pack, if it is remembered.
    fn known_opener(&self, name: ObjectName) -> Option<Arc<ObjectOpener>> {
        let mut recent = lock(&self.recent.0);
        let index = recent.iter().position(|(other, _)| *other == name)?;
        recent[..=index].rotate_right(1);
        Some(recent[0].1.clone())
    }

    /// Authenticates a pack's header, and remembers its key.
    fn enter_header(&self, kind: ObjectKind, name: ObjectName, header: &[u8]) -> Result<Arc<ObjectOpener>, PackError> {
        let opener = self.keys.open_object(kind, name, header);
        let opener = Arc::new(opener.map_err(|error| PackError::open(object_key(kind, name), &error))?);
        let mut recent = lock(&self.recent.0);
        recent.retain(|(other, _)| *other != name);
        recent.insert(0, (name, opener.clone()));
        recent.truncate(RECENT);
        Ok(opener)
    }

    /// Reads the footer of a pack of `len` bytes from its end alone, in one request, or two if the footer is long. The
    /// header is read only to find out why a footer does not open.
    ///
    /// # Errors
    /// If locator or footer are missing, damaged, or from a newer version.
    pub fn footer(&self, kind: ObjectKind, name: ObjectName, len: u64) -> Result<Footer, PackError> {
        let key = object_key(kind, name);
        let damaged = |what: &str| PackError::Damaged { object: key, what: what.to_owned() };
        let frame = (HEADER_LEN + LOCATOR_LEN + TRAILER_LEN) as u64;
        if !(frame..=PACK_LEN_MAX).contains(&len) {
            return Err(damaged(&format!("{len} bytes is no length of a pack")));
        }
        let tail_offset = len.saturating_sub(TAIL).max(HEADER_LEN as u64);
        let tail = self.store.get_range(&key, tail_offset, (len - tail_offset) as usize)?;
        let (rest, _) = tail.split_at(tail.len() - TRAILER_LEN);
        let (rest, locator) = rest.split_at(rest.len() - LOCATOR_LEN);
        let seal = self.keys.index_seal(kind, name);
        let open = |section, sealed: &[u8]| {
            seal.open(section, sealed).or_else(|error| {
                // A newer object, or that of another vault, can be recognized by its header.
                self.opener(kind, name)?;
                Err(PackError::open(key, &error))
            })
        };
        let locator = open(IndexSection::Locator, locator)?;
        let mut fields = Reader::new(&locator);
        let mut read = || -> Result<_, crate::varint::DecodeError> {
            let offset = u64::from_le_bytes(fields.array()?);
            let footer_len = u64::from(u32::from_le_bytes(fields.array()?));
            let segments_end = u64::from_le_bytes(fields.array()?);
            Ok((offset, footer_len, segments_end, u32::from_le_bytes(fields.array()?)))
        };
        let (offset, footer_len, segments_end, count) = read().map_err(|error| PackError::malformed(key, error))?;
        let end = len - (LOCATOR_LEN + TRAILER_LEN) as u64;
        if footer_len > FOOTER_LEN_MAX as u64
            || footer_len < (NONCE_LEN + TAG_LEN) as u64
            || offset.checked_add(footer_len) != Some(end)
            || segments_end > offset
        {
            return Err(damaged("its locator is out of bounds: it is cut short or was made longer"));
        }
        let footer = if offset >= tail_offset {
            open(IndexSection::Footer, &rest[(offset - tail_offset) as usize..])?
        } else {
            open(IndexSection::Footer, &self.store.get_range(&key, offset, footer_len as usize)?)?
        };
        let footer = Footer::decode(&footer).map_err(|error| PackError::malformed(key, error))?;
        let sum: u64 = footer.segments.iter().map(|segment| u64::from(segment.sealed_len)).sum();
        if footer.segments.len() != count as usize || sum + HEADER_LEN as u64 != segments_end {
            return Err(damaged("its footer and its locator contradict each other"));
        }
        Ok(footer)
    }

    /// Reads header and footer of a pack of `len` bytes, which must be sound for anything in it to be readable.
    ///
    /// # Errors
    /// As [`Self::opener`] and [`Self::footer`].
    pub fn frame(
        &self,
        kind: ObjectKind,
        name: ObjectName,
        len: u64,
    ) -> Result<(Arc<ObjectOpener>, Footer), PackError> {
        let footer = self.footer(kind, name, len)?;
        Ok((self.opener_by_footer(kind, name)?, footer))
    }

    /// As [`Self::opener`], for a pack whose footer was read. The footer shows that the pack is of this version, so a
    /// header that claims something newer is damaged.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn opener_by_footer(&self, kind: ObjectKind, name: ObjectName) -> Result<Arc<ObjectOpener>, PackError> {
        self.opener(kind, name).map_err(by_footer)
    }

    /// As [`Self::opener_by_footer`], with the first [`HEADER_LEN`] bytes of the pack.
    ///
    /// # Errors
    /// If the header is damaged.
    pub fn opener_of(&self, kind: ObjectKind, name: ObjectName, header: &[u8]) -> Result<Arc<ObjectOpener>, PackError> {
        self.enter_header(kind, name, header).map_err(by_footer)
    }

    /// Reads, opens and decompresses one segment, and verifies the id of each chunk in it. With `expected`, the ids and
    /// lengths must be these.
    ///
    /// # Errors
    /// If it is missing, damaged, or from a newer version.
    pub fn segment(
        &self,
        place: &SegmentPlace,
        expected: Option<&[(ChunkId, u32)]>,
        decompressor: &mut Decompressor,
    ) -> Result<Segment, PackError> {
        let read =
            || Ok(self.store.get_range(&object_key(place.kind, place.pack), place.offset, place.len as usize)?);
        self.open_sealed(place, read, expected, decompressor)
    }

    /// As [`Self::segment`], for a segment whose sealed bytes were read already.
    ///
    /// # Errors
    /// As [`Self::segment`].
    pub fn open_read(
        &self,
        place: &SegmentPlace,
        sealed: Bytes,
        decompressor: &mut Decompressor,
    ) -> Result<Segment, PackError> {
        self.open_sealed(place, || Ok(sealed), None, decompressor)
    }

    fn open_sealed(
        &self,
        place: &SegmentPlace,
        sealed: impl FnOnce() -> Result<Bytes, PackError>,
        expected: Option<&[(ChunkId, u32)]>,
        decompressor: &mut Decompressor,
    ) -> Result<Segment, PackError> {
        let key = object_key(place.kind, place.pack);
        let open = || {
            let opener = self.opener_by_footer(place.kind, place.pack)?;
            open_segment(self.keys, &opener, &key, place.number, &sealed()?, expected, decompressor)
        };
        open().inspect_err(|error| {
            if let (Some(witness), PackError::Damaged { .. } | PackError::Store(StoreError::Short { .. })) =
                (self.witness, error)
            {
                witness.saw_damage(&key, &error.reason());
            }
        })
    }

    /// Reads everything from the first to the last of some segments of one pack, with one request. The same request
    /// brings the header, if that is needed and not far away; otherwise the header is read afterwards, unless another thread
    /// has read it meanwhile. Nothing is opened.
    ///
    /// # Errors
    /// If the bytes cannot be read. That says nothing about each single segment. A header that cannot be read shows
    /// when a segment is opened.
    pub fn read_together(&self, first: &SegmentPlace, last: &SegmentPlace) -> Result<Together, PackError> {
        let brings_header = self.is_new(first.pack) && first.offset <= GAP;
        let from = if brings_header { 0 } else { first.offset };
        let len = (last.offset + u64::from(last.len)).saturating_sub(from) as usize;
        let bytes = self.store.get_range(&object_key(first.kind, first.pack), from, len)?;
        match bytes.get(..HEADER_LEN) {
            Some(header) if brings_header => drop(self.enter_header(first.kind, first.pack, header)),
            _ => drop(self.opener(first.kind, first.pack)),
        }
        Ok(Together { from, bytes })
    }

    /// Whether the header of a pack is still to be read.
    pub fn is_new(&self, name: ObjectName) -> bool {
        self.known_opener(name).is_none()
    }

    /// This reader on another way to the same store.
    #[must_use]
    pub fn by(&self, store: &'a dyn Store) -> Self {
        Self { store, ..self.clone() }
    }

    /// The store that is read.
    pub const fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// The keys it is opened with.
    pub const fn keys(&self) -> &'a Keys {
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkParams;
    use crate::id::VaultId;
    use crate::limits::CHUNK_AVG_DEFAULT;
    use crate::pack::{FinishedPack, PackWriter, SegmentBuilder};
    use crate::seal::{Compressor, MasterKey, WriterKey};
    use crate::store::testing::faulty::FaultyStore;
    use crate::store::testing::mem::MemStore;

    fn keys_of(master: u8, writer: &WriterKey) -> Keys {
        let master = MasterKey::from_bytes(&[master; 32]);
        Keys::new(&master, writer, VaultId::new([2; 16]), ChunkParams::default())
    }

    fn keys() -> Keys {
        keys_of(1, &WriterKey::from_bytes(&[5; 32]))
    }

    /// A pack of `count` chunks of noise of this length.
    fn pack(keys: &Keys, count: u32, len: usize) -> FinishedPack {
        let finished = Mutex::new(None);
        let writer = PackWriter::new(keys, ObjectKind::Pack, false, |pack| {
            *finished.lock().unwrap() = Some(pack);
            true
        });
        let (mut compressor, mut decompressor) = (Compressor::new(1).unwrap(), Decompressor::new().unwrap());
        let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
        let mut builder = SegmentBuilder::default();
        for _ in 0..count {
            let mut chunk = vec![0; len];
            noise.fill(&mut chunk);
            builder.push(keys, |buffer| buffer.extend_from_slice(&chunk), |_| true);
            if builder.is_full() {
                writer.put(builder.compress(&mut compressor), &mut decompressor).unwrap();
            }
        }
        if !builder.is_empty() {
            writer.put(builder.compress(&mut compressor), &mut decompressor).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        finished.into_inner().unwrap().unwrap()
    }

    fn stored(pack: &FinishedPack) -> FaultyStore<MemStore> {
        let store = MemStore::new();
        store.put(&object_key(pack.kind, pack.name), pack.bytes.clone()).unwrap();
        FaultyStore::new(store)
    }

    #[test]
    fn a_footer_is_read_with_one_small_request() {
        let keys = keys();
        // A full pack of chunks of the average length; a pack of a few; and one of very many, whose footer is long.
        let full = (15 << 20) / CHUNK_AVG_DEFAULT;
        for (count, len, requests) in [(full, CHUNK_AVG_DEFAULT as usize, 1), (3, 100, 1), (2000, 300, 2)] {
            let pack = pack(&keys, count, len);
            let store = stored(&pack);
            let footer = PackReader::new(&store, &keys).footer(pack.kind, pack.name, pack.bytes.len() as u64).unwrap();
            assert_eq!(footer, pack.footer);
            let counts = store.counts();
            assert_eq!(counts.gets, requests, "{count} chunks");
            let longest = TAIL + (pack.footer.encode().len() + NONCE_LEN + TAG_LEN) as u64;
            assert!(counts.bytes_read <= if requests == 1 { TAIL } else { longest }, "{} bytes", counts.bytes_read);
        }
    }

    #[test]
    fn a_footer_opens_with_the_writers_key_and_without_the_header() {
        let (keys, pack) = (keys(), pack(&keys(), 3, 100));
        let (store, len) = (stored(&pack), pack.bytes.len() as u64);
        let key = object_key(pack.kind, pack.name);
        store.inner().mutate(&key, |bytes| bytes[..HEADER_LEN].fill(0));
        for (at, byte) in [(8, 2), (11, 2), (14, 1)] {
            // The footer shows that the pack is of this version.
            store.inner().mutate(&key, |bytes| bytes[..HEADER_LEN].copy_from_slice(&pack.bytes[..HEADER_LEN]));
            store.inner().mutate(&key, |bytes| bytes[at] = byte);
            let reader = PackReader::new(&store, &keys);
            assert!(reader.opener(pack.kind, pack.name).unwrap_err().is_newer());
            assert!(reader.frame(pack.kind, pack.name, len).unwrap_err().is_damage());
        }
        store.inner().mutate(&key, |bytes| bytes[..HEADER_LEN].fill(0));
        let writer = keys_of(9, &WriterKey::from_bytes(&[5; 32]));
        for keys in [&keys, &writer] {
            let reader = PackReader::new(&store, keys);
            assert_eq!(reader.footer(pack.kind, pack.name, len).unwrap(), pack.footer);
            assert!(reader.frame(pack.kind, pack.name, len).is_err());
        }
        let other = keys_of(1, &WriterKey::from_bytes(&[6; 32]));
        let error = PackReader::new(&store, &other).footer(pack.kind, pack.name, len).unwrap_err();
        assert!(error.is_damage(), "{error}");
    }

    #[test]
    fn a_tail_that_does_not_open_is_judged_by_the_header() {
        let (keys, pack) = (keys(), pack(&keys(), 3, 100));
        let (store, len) = (stored(&pack), pack.bytes.len() as u64);
        let key = object_key(pack.kind, pack.name);
        let footer = || PackReader::new(&store, &keys).footer(pack.kind, pack.name, len);
        store.inner().mutate(&key, |bytes| bytes[len as usize - 50] ^= 1);
        let error = footer().unwrap_err();
        assert!(error.is_damage() && error.reason().contains("locator"), "{error}");
        for (at, newer) in [(8, true), (11, true), (14, true), (50, false)] {
            store.inner().mutate(&key, |bytes| bytes[at] ^= 64);
            let error = footer().unwrap_err();
            assert_eq!((error.is_newer(), error.is_damage()), (newer, !newer), "byte {at}: {error}");
            store.inner().mutate(&key, |bytes| bytes[at] ^= 64);
        }
    }
}
