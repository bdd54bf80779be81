//! Opens packs: their footers, and segments one at a time (SPEC §5.3, §5.4).

use std::sync::{Arc, Mutex, PoisonError};

use crate::id::{ChunkId, ObjectName};
use crate::limits::{FOOTER_LEN_MAX, PACK_LEN_MAX};
use crate::pack::footer::Footer;
use crate::pack::segment::{Segment, open_segment};
use crate::pack::{LOCATOR_LEN, PackError, TRAILER_LEN};
use crate::seal::{Decompressor, HEADER_LEN, Keys, NONCE_LEN, ObjectKind, ObjectOpener, Section, TAG_LEN};
use crate::store::{ObjectKey, Store};
use crate::varint::Reader;

/// Where a segment lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentPlace {
    /// Pack or meta pack.
    pub kind: ObjectKind,
    /// The pack.
    pub pack: ObjectName,
    /// The number of the segment in it.
    pub number: u32,
    /// Where it begins in the pack, in bytes.
    pub offset: u64,
    /// Its sealed length, in bytes.
    pub len: u32,
}

/// Opens packs of one store. Remembers the keys of the packs that were opened last.
pub struct PackReader<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    recent: Mutex<Vec<(ObjectName, Arc<ObjectOpener>)>>,
}

/// How many packs' keys are remembered.
const RECENT: usize = 64;

/// How much of a pack's end is read at once in the hope that the footer is in it, in bytes.
const TAIL: u64 = 128 << 10;

/// The key of an object of this kind and name.
pub fn object_key(kind: ObjectKind, name: ObjectName) -> ObjectKey {
    ObjectKey::Named(kind.store_kind(), name)
}

impl<'a> PackReader<'a> {
    /// A reader of the packs in `store`.
    pub const fn new(store: &'a dyn Store, keys: &'a Keys) -> Self {
        Self { store, keys, recent: Mutex::new(Vec::new()) }
    }

    /// Reads and authenticates a pack's header.
    ///
    /// # Errors
    /// If it is missing, damaged, or from a newer version.
    pub fn opener(&self, kind: ObjectKind, name: ObjectName) -> Result<Arc<ObjectOpener>, PackError> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = recent.iter().position(|(other, _)| *other == name) {
            recent[..=index].rotate_right(1);
            return Ok(recent[0].1.clone());
        }
        drop(recent);
        let key = object_key(kind, name);
        let header = self.store.get_range(&key, 0, HEADER_LEN)?;
        let opener = self.keys.open_object(kind, name, &header).map_err(|error| PackError::open(key, &error))?;
        let opener = Arc::new(opener);
        recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.insert(0, (name, opener.clone()));
        recent.truncate(RECENT);
        Ok(opener)
    }

    /// Reads the footer of a pack of `len` bytes.
    ///
    /// # Errors
    /// If any part on the way to it is missing, damaged, or from a newer version.
    pub fn footer(&self, kind: ObjectKind, name: ObjectName, len: u64) -> Result<Footer, PackError> {
        let key = object_key(kind, name);
        let damaged = |what: &str| PackError::Damaged { object: key, what: what.to_owned() };
        let frame = (HEADER_LEN + LOCATOR_LEN + TRAILER_LEN) as u64;
        if !(frame..=PACK_LEN_MAX).contains(&len) {
            return Err(damaged(&format!("{len} bytes is no length of a pack")));
        }
        let opener = self.opener(kind, name)?;
        let tail_offset = len.saturating_sub(TAIL).max(HEADER_LEN as u64);
        let tail = self.store.get_range(&key, tail_offset, (len - tail_offset) as usize)?;
        let (rest, _) = tail.split_at(tail.len() - TRAILER_LEN);
        let (rest, locator) = rest.split_at(rest.len() - LOCATOR_LEN);
        let open = |section, sealed: &[u8]| opener.open(section, sealed).map_err(|error| PackError::open(key, &error));
        let locator = open(Section::Locator, locator)?;
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
            open(Section::Footer, &rest[(offset - tail_offset) as usize..])?
        } else {
            open(Section::Footer, &self.store.get_range(&key, offset, footer_len as usize)?)?
        };
        let footer = Footer::decode(&footer).map_err(|error| PackError::malformed(key, error))?;
        let sum: u64 = footer.segments.iter().map(|segment| u64::from(segment.sealed_len)).sum();
        if footer.segments.len() != count as usize || sum + HEADER_LEN as u64 != segments_end {
            return Err(damaged("its footer and its locator contradict each other"));
        }
        Ok(footer)
    }

    /// Reads, opens and decompresses one segment, and verifies the id of each chunk in it. With `expected`, they must be
    /// those.
    ///
    /// # Errors
    /// If it is missing, damaged, or from a newer version.
    pub fn segment(
        &self,
        place: &SegmentPlace,
        expected: Option<&[(ChunkId, u32)]>,
        decompressor: &mut Decompressor,
    ) -> Result<Segment, PackError> {
        let key = object_key(place.kind, place.pack);
        let opener = self.opener(place.kind, place.pack)?;
        let sealed = self.store.get_range(&key, place.offset, place.len as usize)?;
        open_segment(self.keys, &opener, &key, place.number, &sealed, expected, decompressor)
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
