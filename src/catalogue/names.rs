//! The index of names: the content of each folder, as far as searching and adding up need it, so that no tree has to be read from the
//! store for that. A search fills it, and it can be deleted like the whole catalogue.
//!
//! A folder is found by the key of its listing, which identifies its content: so its rows never become outdated. Its names are stored
//! apart from the rest, since most changes leave them as they are: the many versions of a folder share one list of names, which a search
//! reads once.

use std::collections::HashSet;
use std::ops::Range;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError};

use crate::catalogue::stat::checksum;
use crate::catalogue::{Catalogue, CatalogueError, Reader};
use crate::id::{ChunkId, NamesKey, StreamKey, TreeDigest};
use crate::tree::{FileKind, Stream, Time};
use crate::varint;

/// Key of a listing → keyed checksum (16 bytes) and an [`Outline`].
const OUTLINES: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("outlines");
/// Key of a list of names → the names.
const NAME_LISTS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("name_lists");
/// Key of a listing → keyed checksum (16 bytes) and [`DETAIL_LEN`] bytes for each entry.
const DETAILS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("details");

/// Length of kind, size, seconds and nanoseconds of the modification time, and digest.
const DETAIL_LEN: usize = 1 + 8 + 8 + 4 + 16;

type Table = ReadOnlyTable<&'static [u8; 16], &'static [u8]>;

/// The tables of a reader; a catalogue that was never used for a search has none.
pub(super) struct Tables(Option<(Table, Table, Table)>);

impl Tables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, CatalogueError> {
        match txn.open_table(OUTLINES) {
            Ok(outlines) => Ok(Self(Some((outlines, txn.open_table(NAME_LISTS)?, txn.open_table(DETAILS)?)))),
            Err(TableError::TableDoesNotExist(_)) => Ok(Self(None)),
            Err(error) => Err(error.into()),
        }
    }
}

/// An entry of a folder in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Its kind.
    pub kind: FileKind,
    /// Length of a regular file, in bytes.
    pub size: u64,
    /// When the content was last modified.
    pub mtime: Time,
    /// The digest of the content; zeros for a folder.
    pub digest: TreeDigest,
    /// The listing of a folder.
    pub listing: Option<Stream>,
}

/// A folder to enter in the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameRow {
    names: Vec<u8>,
    details: Vec<u8>,
    /// Position and listing of each folder in it.
    folders: Vec<u8>,
    count: u64,
}

impl NameRow {
    /// Adds an entry. Entries come in the order of their names.
    pub fn push(&mut self, entry: &Named<'_>) {
        varint::put(&mut self.names, entry.name.len() as u64);
        self.names.extend_from_slice(entry.name);
        self.details.push(entry.kind as u8);
        self.details.extend_from_slice(&entry.size.to_le_bytes());
        self.details.extend_from_slice(&entry.mtime.secs.to_le_bytes());
        self.details.extend_from_slice(&entry.mtime.nanos.to_le_bytes());
        self.details.extend_from_slice(entry.digest.as_bytes());
        if let Some(listing) = &entry.listing {
            let out = &mut self.folders;
            varint::put(out, self.count);
            varint::put(out, listing.len);
            out.push(listing.depth);
            varint::put(out, listing.ids.len() as u64);
            listing.ids.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
        }
        self.count += 1;
    }

    /// Its length, in bytes.
    pub const fn len(&self) -> usize {
        self.names.len() + self.details.len() + self.folders.len()
    }

    /// Whether the folder is empty.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The names in a folder, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameList {
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl NameList {
    /// Reads a list. It had a valid checksum, so it is complete: nothing is cut off here.
    fn new(bytes: &[u8]) -> Self {
        let (bytes, mut places) = (bytes.to_vec(), Vec::new());
        let mut reader = varint::Reader::new(&bytes);
        while let Ok(len) = reader.bounded("", reader.rest().len()) {
            let start = bytes.len() - reader.rest().len();
            if reader.bytes(len).is_err() {
                break;
            }
            places.push(start..start + len);
        }
        Self { bytes, places }
    }

    /// The name at this position.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        self.places.get(at).map(|place| &self.bytes[place.clone()])
    }

    /// All names.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| &self.bytes[place.clone()])
    }
}

/// The part of a folder that is needed to find a way through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its list of names.
    pub names: NamesKey,
    /// The folders in it: the position of the name in the list, and the listing.
    pub folders: Vec<(usize, Stream)>,
}

impl Outline {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = varint::Reader::new(bytes);
        let mut outline = Self { names: NamesKey::new(reader.array().ok()?), folders: Vec::new() };
        while !reader.rest().is_empty() {
            let at = usize::try_from(reader.number().ok()?).ok()?;
            let (len, depth) = (reader.number().ok()?, reader.byte().ok()?);
            let count = reader.bounded("", reader.rest().len()).ok()?;
            let ids = (0..count).map(|_| reader.array().ok().map(ChunkId::new)).collect::<Option<_>>()?;
            outline.folders.push((at, Stream { len, depth, ids }));
        }
        Some(outline)
    }
}

/// The properties of a folder's entries other than their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details(Vec<u8>);

impl Details {
    /// The entry at this position, which has this name; for a folder, without its listing.
    pub fn get<'n>(&self, at: usize, name: &'n [u8]) -> Option<Named<'n>> {
        let bytes = self.0.get(at * DETAIL_LEN..(at + 1) * DETAIL_LEN)?;
        let mut reader = varint::Reader::new(bytes);
        let kind = FileKind::try_from(reader.byte().ok()?).ok()?;
        let size = u64::from_le_bytes(reader.array().ok()?);
        let secs = i64::from_le_bytes(reader.array().ok()?);
        let nanos = u32::from_le_bytes(reader.array().ok()?);
        let digest = TreeDigest::new(reader.array().ok()?);
        Some(Named { name, kind, size, mtime: Time { secs, nanos }, digest, listing: None })
    }
}

impl Catalogue {
    /// The key of the list of names in a folder.
    pub fn names_key(&self, row: &NameRow) -> NamesKey {
        names_key(&self.key, &row.names)
    }

    /// Enters folders. If `used` is given and more of the folders are outside it than in it, deletes those outside.
    ///
    /// # Errors
    /// If the database fails.
    pub fn insert_names(
        &self,
        rows: &[(StreamKey, NameRow)],
        used: Option<&HashSet<StreamKey>>,
    ) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        {
            let mut outlines = txn.open_table(OUTLINES)?;
            let mut lists = txn.open_table(NAME_LISTS)?;
            let mut details = txn.open_table(DETAILS)?;
            for (key, row) in rows {
                let summed = |body: &[u8]| [&checksum(&self.key, key.as_bytes(), body)[..], body].concat();
                let names = self.names_key(row);
                lists.insert(names.as_bytes(), row.names.as_slice())?;
                outlines
                    .insert(key.as_bytes(), summed(&[names.as_bytes(), row.folders.as_slice()].concat()).as_slice())?;
                details.insert(key.as_bytes(), summed(&row.details).as_slice())?;
            }
            if let Some(used) = used
                && outlines.len()? > 2 * used.len() as u64
            {
                outlines.retain(|key, _| used.contains(&StreamKey::new(*key)))?;
                details.retain(|key, _| used.contains(&StreamKey::new(*key)))?;
                let mut names: HashSet<NamesKey> = HashSet::new();
                for row in outlines.iter()? {
                    names.extend(row?.1.value().get(16..32).and_then(NamesKey::from_slice));
                }
                lists.retain(|key, _| names.contains(&NamesKey::new(*key)))?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

fn names_key(key: &[u8; 32], names: &[u8]) -> NamesKey {
    NamesKey::new(checksum(key, b"names", names))
}

impl Reader {
    /// The content of a row, if its checksum is right.
    fn summed<T>(
        &self,
        table: &Table,
        key: &StreamKey,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, CatalogueError> {
        let Some(value) = table.get(key.as_bytes())? else { return Ok(None) };
        let Some((sum, body)) = value.value().split_first_chunk::<16>() else { return Ok(None) };
        Ok(if checksum(&self.key, key.as_bytes(), body) == *sum { read(body) } else { None })
    }

    /// The outline of a folder; `None` if the index does not have it or it is damaged.
    ///
    /// # Errors
    /// If the database fails.
    pub fn outline(&self, key: &StreamKey) -> Result<Option<Outline>, CatalogueError> {
        let Some((outlines, _, _)) = &self.names.0 else { return Ok(None) };
        self.summed(outlines, key, Outline::decode)
    }

    /// A list of names; `None` if the index does not have it or it is damaged.
    ///
    /// # Errors
    /// If the database fails.
    pub fn name_list(&self, key: &NamesKey) -> Result<Option<NameList>, CatalogueError> {
        let Some((_, lists, _)) = &self.names.0 else { return Ok(None) };
        let list = lists.get(key.as_bytes())?;
        let list = list.as_ref().map(redb::AccessGuard::value).filter(|bytes| names_key(&self.key, bytes) == *key);
        Ok(list.map(NameList::new))
    }

    /// The details of a folder's entries; `None` if the index does not have them or they are damaged.
    ///
    /// # Errors
    /// If the database fails.
    pub fn details(&self, key: &StreamKey) -> Result<Option<Details>, CatalogueError> {
        let Some((_, _, details)) = &self.names.0 else { return Ok(None) };
        self.summed(details, key, |bytes| Some(Details(bytes.to_vec())))
    }

    /// Calls `each` for every entry of a folder. Returns `false` if the index does not have the folder or its rows are damaged.
    ///
    /// # Errors
    /// If the database fails.
    pub fn names(&self, key: &StreamKey, each: &mut dyn FnMut(&Named<'_>)) -> Result<bool, CatalogueError> {
        let Some(outline) = self.outline(key)? else { return Ok(false) };
        let Some(names) = self.name_list(&outline.names)? else { return Ok(false) };
        let Some(details) = self.details(key)? else { return Ok(false) };
        if details.0.len() != names.places.len() * DETAIL_LEN {
            return Ok(false);
        }
        let mut folders = outline.folders.into_iter().peekable();
        for (at, name) in names.iter().enumerate() {
            let Some(mut entry) = details.get(at, name) else { return Ok(false) };
            entry.listing = folders.next_if(|(place, _)| *place == at).map(|(_, listing)| listing);
            each(&entry);
        }
        Ok(true)
    }

    /// Whether the index has a folder.
    ///
    /// # Errors
    /// If the database fails.
    pub fn has_names(&self, key: &StreamKey) -> Result<bool, CatalogueError> {
        self.names.0.as_ref().map_or(Ok(false), |(outlines, _, _)| Ok(outlines.get(key.as_bytes())?.is_some()))
    }

    /// Number of folders in the index.
    ///
    /// # Errors
    /// If the database fails.
    pub fn names_len(&self) -> Result<u64, CatalogueError> {
        Ok(self.names.0.as_ref().map_or(Ok(0), |(outlines, _, _)| outlines.len())?)
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
            catalogue.reader().unwrap().names(&StreamKey::new([key; 16]), &mut each).unwrap().then_some(found)
        };
        assert_eq!(read(1), None);
        let listing = Stream { len: 9, depth: 1, ids: vec![ChunkId::new([7; 16]), ChunkId::new([8; 16])] };
        let mtime = Time { secs: -5, nanos: 6 };
        let file = Named {
            name: b"a",
            kind: FileKind::File,
            size: 1 << 40,
            mtime,
            digest: TreeDigest::new([3; 16]),
            listing: None,
        };
        let below = Named {
            name: b"\xff",
            kind: FileKind::Directory,
            size: 0,
            digest: TreeDigest::new([0; 16]),
            ..file.clone()
        };
        let below = Named { listing: Some(listing), ..below };
        let mut row = NameRow::default();
        row.push(&file);
        row.push(&below);
        let expected = [file, below].map(|entry| (entry.name.to_vec(), Named { name: b"", ..entry })).to_vec();
        let [one, two, three] = [1, 2, 3].map(|key| StreamKey::new([key; 16]));
        let rows = [(one, row), (two, NameRow::default()), (three, NameRow::default())];
        catalogue.insert_names(&rows, None).unwrap();
        assert_eq!((read(1), read(2)), (Some(expected.clone()), Some(Vec::new())));
        catalogue.insert_names(&[], Some(&HashSet::from([one, two]))).unwrap();
        assert_eq!(read(3), Some(Vec::new()), "a few unused ones stay, as they may be used again");
        catalogue.insert_names(&[], Some(&HashSet::from([one]))).unwrap();
        assert_eq!((read(1), read(2), read(3)), (Some(expected), None, None));
    }
}
