//! The index of names: what lies in each folder, as far as searching and adding up need it, so that no tree has to be read
//! from the store for that. It is filled when something is searched for, and can be thrown away like all of the catalogue.
//!
//! A row is found by the key of the folder's listing, which stands for its content: so a row never becomes outdated.

use std::collections::HashSet;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition, TableError};

use crate::catalogue::stat::{checksum, put_time, read_time};
use crate::catalogue::{Catalogue, CatalogueError, Reader};
use crate::id::ChunkId;
use crate::tree::{FileKind, Stream, Time};
use crate::varint;

/// Key of a listing → keyed checksum (16 bytes) and the row.
const NAMES: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("names");

/// Stands for a listing: the id of its only chunk, or a hash of its stream.
pub type ListingKey = [u8; 16];

/// The table of a reader; a catalogue in which nothing was searched yet has none.
pub(super) struct Tables {
    names: Option<ReadOnlyTable<&'static [u8; 16], &'static [u8]>>,
}

impl Tables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, CatalogueError> {
        match txn.open_table(NAMES) {
            Ok(names) => Ok(Self { names: Some(names) }),
            Err(TableError::TableDoesNotExist(_)) => Ok(Self { names: None }),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the index knows of one entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What it is.
    pub kind: FileKind,
    /// Length of a regular file, in bytes.
    pub size: u64,
    /// When the content was last changed.
    pub mtime: Time,
    /// The digest of the content (SPEC §7.5); zeros for a folder.
    pub digest: [u8; 16],
    /// The listing of a folder.
    pub listing: Option<Stream>,
}

/// What the index knows of one folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameRow(Vec<u8>);

impl NameRow {
    /// Adds an entry; they come in the order of the names.
    pub fn push(&mut self, entry: &Named<'_>) {
        let out = &mut self.0;
        varint::put(out, entry.name.len() as u64);
        out.extend_from_slice(entry.name);
        out.push(entry.kind as u8);
        varint::put(out, entry.size);
        put_time(out, entry.mtime);
        if let Some(listing) = &entry.listing {
            varint::put(out, listing.len);
            out.push(listing.depth);
            varint::put(out, listing.ids.len() as u64);
            listing.ids.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
        } else {
            out.extend_from_slice(&entry.digest);
        }
    }

    /// Its length, in bytes.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in the folder.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The entries of a row, in order.
fn entries(row: &[u8]) -> impl Iterator<Item = Named<'_>> {
    let mut reader = varint::Reader::new(row);
    // What was written with a checksum is whole: nothing is cut off here.
    std::iter::from_fn(move || if reader.rest().is_empty() { None } else { read_entry(&mut reader) })
}

fn read_entry<'a>(reader: &mut varint::Reader<'a>) -> Option<Named<'a>> {
    let len = reader.bounded("", reader.rest().len()).ok()?;
    let name = reader.bytes(len).ok()?;
    let kind = FileKind::try_from(reader.byte().ok()?).ok()?;
    let (size, mtime) = (reader.number().ok()?, read_time(reader)?);
    let mut entry = Named { name, kind, size, mtime, digest: [0; 16], listing: None };
    if kind == FileKind::Directory {
        let (len, depth) = (reader.number().ok()?, reader.byte().ok()?);
        let count = reader.bounded("", reader.rest().len()).ok()?;
        let ids = (0..count).map(|_| reader.array().ok().map(ChunkId::new)).collect::<Option<_>>()?;
        entry.listing = Some(Stream { len, depth, ids });
    } else {
        entry.digest = reader.array().ok()?;
    }
    Some(entry)
}

impl Catalogue {
    /// Enters rows. If `used` is given and the rows of other folders are more than those, the others are taken out.
    ///
    /// # Errors
    /// If the database fails.
    pub fn insert_names(
        &self,
        rows: &[(ListingKey, NameRow)],
        used: Option<&HashSet<ListingKey>>,
    ) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        {
            let mut table = txn.open_table(NAMES)?;
            for (key, row) in rows {
                let value = [&checksum(&self.key, key, &row.0)[..], &row.0].concat();
                table.insert(key, value.as_slice())?;
            }
            if let Some(used) = used
                && table.len()? > 2 * used.len() as u64
            {
                table.retain(|key, _| used.contains(key))?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

impl Reader {
    /// Calls `each` for what the index knows of a folder. Returns `false` if it does not know it, or the row is damaged.
    ///
    /// # Errors
    /// If the database fails.
    pub fn names(&self, key: &ListingKey, each: &mut dyn FnMut(&Named<'_>)) -> Result<bool, CatalogueError> {
        let Some(table) = &self.names.names else { return Ok(false) };
        let Some(value) = table.get(key)? else { return Ok(false) };
        let Some((sum, row)) = value.value().split_first_chunk::<16>() else { return Ok(false) };
        let is_whole = checksum(&self.key, key, row) == *sum;
        if is_whole {
            entries(row).for_each(|entry| each(&entry));
        }
        Ok(is_whole)
    }

    /// Whether the index has a row of a folder.
    ///
    /// # Errors
    /// If the database fails.
    pub fn has_names(&self, key: &ListingKey) -> Result<bool, CatalogueError> {
        self.names.names.as_ref().map_or(Ok(false), |table| Ok(table.get(key)?.is_some()))
    }

    /// How many folders the index knows.
    ///
    /// # Errors
    /// If the database fails.
    pub fn names_len(&self) -> Result<u64, CatalogueError> {
        Ok(self.names.names.as_ref().map_or(Ok(0), ReadableTableMetadata::len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_those_of_no_use_go() {
        let folder = tempfile::tempdir().unwrap();
        let (catalogue, _) = Catalogue::open(&folder.path().join("c.redb"), [1; 32]).unwrap();
        let read = |key| {
            let mut found = Vec::new();
            let mut each = |entry: &Named<'_>| found.push((entry.name.to_vec(), Named { name: b"", ..entry.clone() }));
            catalogue.reader().unwrap().names(&[key; 16], &mut each).unwrap().then_some(found)
        };
        assert_eq!(read(1), None);
        let listing = Stream { len: 9, depth: 1, ids: vec![ChunkId::new([7; 16]), ChunkId::new([8; 16])] };
        let mtime = Time { secs: -5, nanos: 6 };
        let file = Named { name: b"a", kind: FileKind::File, size: 1 << 40, mtime, digest: [3; 16], listing: None };
        let below = Named { name: b"\xff", kind: FileKind::Directory, size: 0, digest: [0; 16], ..file.clone() };
        let below = Named { listing: Some(listing), ..below };
        let mut row = NameRow::default();
        row.push(&file);
        row.push(&below);
        let expected = [file, below].map(|entry| (entry.name.to_vec(), Named { name: b"", ..entry })).to_vec();
        let rows = [([1; 16], row), ([2; 16], NameRow::default()), ([3; 16], NameRow::default())];
        catalogue.insert_names(&rows, None).unwrap();
        assert_eq!((read(1), read(2)), (Some(expected.clone()), Some(Vec::new())));
        catalogue.insert_names(&[], Some(&HashSet::from([[1; 16], [2; 16]]))).unwrap();
        assert_eq!(read(3), Some(Vec::new()), "a few are kept: they may be used again");
        catalogue.insert_names(&[], Some(&HashSet::from([[1; 16]]))).unwrap();
        assert_eq!((read(1), read(2), read(3)), (Some(expected), None, None));
    }
}
