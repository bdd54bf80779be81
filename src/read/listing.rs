//! Reads the entries of a listing (SPEC §7.2).

use crate::limits::ENTRY_LEN_MAX;
use crate::read::records::{Arrived, Decoded, Records};
use crate::tree::entry::LISTING_VERSION;
use crate::tree::{ChunkSource, Entry, EntryError, Stream, decode_entry};
use crate::vault::ReadError;

/// The order of what a listing holds: its version first, then entries by their names.
#[derive(Debug, Default)]
struct Order {
    /// Whether the version was read.
    begun: bool,
    /// The name of the last entry.
    last: Vec<u8>,
}

impl Order {
    /// Decodes the version (as `None`), or the next entry.
    fn decode(&mut self, bytes: &[u8], ended: bool) -> Result<Decoded<Option<Entry>>, EntryError> {
        let Some(version) = bytes.first() else { return Ok(None) };
        if !self.begun {
            if *version != LISTING_VERSION {
                return Err(EntryError::Newer(*version));
            }
            self.begun = true;
            return Ok(Some((None, 1)));
        }
        match decode_entry(bytes)? {
            Some((entry, _)) if entry.name <= self.last => {
                Err(EntryError::Malformed("its names are not in order".to_owned()))
            }
            Some((entry, len)) => {
                self.last.clone_from(&entry.name);
                Ok(Some((Some(entry), len)))
            }
            None if ended || bytes.len() > ENTRY_LEN_MAX => {
                Err(EntryError::Malformed("it ends in the middle of an entry".to_owned()))
            }
            None => Ok(None),
        }
    }
}

/// Decodes the entries of a listing from its bytes, wherever these come from.
#[derive(Debug, Default)]
pub struct EntryDecoder {
    arrived: Arrived,
    order: Order,
}

impl EntryDecoder {
    /// A decoder for the rest of a listing, after the entry of this name.
    pub fn behind(last: Vec<u8>) -> Self {
        Self { arrived: Arrived::default(), order: Order { begun: true, last } }
    }

    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.arrived.push(bytes);
    }

    /// Number of bytes of the listing that were decoded.
    pub const fn taken(&self) -> u64 {
        self.arrived.taken()
    }

    /// The name of the last entry.
    pub fn last(&self) -> &[u8] {
        &self.order.last
    }

    /// The next entry, or `None` if more bytes are needed. `ended` means that there are no more.
    ///
    /// # Errors
    /// If the bytes are not a valid listing: a newer version, a forbidden name, names out of order, an end amid an entry.
    pub fn next(&mut self, ended: bool) -> Result<Option<Entry>, EntryError> {
        loop {
            match self.arrived.next(ended, |bytes, ended| self.order.decode(bytes, ended))? {
                // The version.
                Some(None) => {}
                entry => return Ok(entry.flatten()),
            }
        }
    }
}

/// Reads the entries of one listing, a chunk at a time.
#[derive(Debug)]
pub struct Listing {
    records: Records,
    order: Order,
}

impl Listing {
    /// Reads this listing from its start.
    pub fn new(listing: &Stream) -> Self {
        Self { records: Records::new(listing), order: Order::default() }
    }

    /// The bytes of the last entry, as they are stored.
    pub fn last_bytes(&self) -> &[u8] {
        self.records.last_bytes()
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
            match self.records.next(source, |bytes, ended| self.order.decode(bytes, ended))? {
                // The version.
                Some(None) => {}
                entry => return Ok(entry.flatten()),
            }
        }
    }
}

/// The entry of this name in a listing.
///
/// # Errors
/// If the listing cannot be read up to that name, or is not valid.
pub(crate) fn entry<S: ChunkSource<Error = ReadError>>(
    listing: &Stream,
    name: &[u8],
    source: &mut S,
) -> Result<Option<Entry>, ReadError> {
    let mut entries = Listing::new(listing);
    while let Some(entry) = entries.next(source)? {
        if entry.name.as_slice() >= name {
            return Ok(Some(entry).filter(|entry| entry.name == name));
        }
    }
    Ok(None)
}
