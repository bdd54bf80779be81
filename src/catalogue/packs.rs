//! The catalogue's tables of packs, chunks and records.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{
    ConcurrencyMode, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};

use crate::catalogue::stat::checksum;
use crate::catalogue::{Catalogue, CatalogueError, NUMBERS, Reader, next_number};
use crate::id::{ChunkId, ObjectName};
use crate::pack::{Footer, SegmentPlace};
use crate::seal::{HEADER_LEN, ObjectKind};
use crate::varint;

/// Number of a pack in this catalogue → see [`PackInfo::encode`].
const PACKS: TableDefinition<u32, &[u8]> = TableDefinition::new("packs");
/// Name of a pack → its number.
const NUMBERS_OF_PACKS: TableDefinition<&[u8; 16], u32> = TableDefinition::new("pack_numbers");
/// Id of a chunk → pack, segment, offset in the opened segment, length.
const CHUNKS: TableDefinition<&[u8; 16], [u8; 16]> = TableDefinition::new("chunks");
/// The same, for what was entered last. Ids are random: a few that are entered into a large table would have most of it written
/// again. So they gather here, until they are worth that.
const RECENT: TableDefinition<&[u8; 16], [u8; 16]> = TableDefinition::new("recent");
/// Other places of chunks that are stored more than once: id and pack → as in `chunks`.
const COPIES: TableDefinition<&[u8; 20], [u8; 16]> = TableDefinition::new("copies");
/// Name of a log record → keyed checksum (16 bytes), hash of its object (32 bytes), and the record's plaintext.
const RECORDS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("records");

/// The same, for records that are no longer in the store: what this machine remembers of them.
const LOST_RECORDS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("lost_records");

/// Creates the tables.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    txn.open_table(PACKS)?;
    txn.open_table(NUMBERS_OF_PACKS)?;
    txn.open_table(CHUNKS)?;
    txn.open_table(RECENT)?;
    txn.open_table(COPIES)?;
    txn.open_table(RECORDS)?;
    txn.open_table(LOST_RECORDS)?;
    Ok(())
}

/// The tables of a reader.
pub(super) struct Tables {
    packs: ReadOnlyTable<u32, &'static [u8]>,
    chunks: ReadOnlyTable<&'static [u8; 16], [u8; 16]>,
    recent: ReadOnlyTable<&'static [u8; 16], [u8; 16]>,
    copies: ReadOnlyTable<&'static [u8; 20], [u8; 16]>,
    records: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    lost_records: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
}

impl Tables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, CatalogueError> {
        Ok(Self {
            packs: txn.open_table(PACKS)?,
            chunks: txn.open_table(CHUNKS)?,
            recent: txn.open_table(RECENT)?,
            copies: txn.open_table(COPIES)?,
            records: txn.open_table(RECORDS)?,
            lost_records: txn.open_table(LOST_RECORDS)?,
        })
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkPlace {
    /// Number of the pack in this catalogue.
    pub pack: u32,
    /// Number of the segment in the pack.
    pub segment: u32,
    /// Where the chunk begins in the opened segment, in bytes.
    pub offset: u32,
    /// Its length, in bytes.
    pub len: u32,
}

impl ChunkPlace {
    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (field, value) in bytes.chunks_exact_mut(4).zip([self.pack, self.segment, self.offset, self.len]) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: [u8; 16]) -> Self {
        let field = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { pack: field(0), segment: field(4), offset: field(8), len: field(12) }
    }
}

/// A pack as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackInfo {
    /// Pack or meta pack.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
    /// Its length, in bytes.
    pub len: u64,
    /// Sealed length, raw length and number of chunks of each segment, in order.
    pub segments: Vec<(u32, u32, u32)>,
    /// Where each segment begins in the pack.
    offsets: Vec<u64>,
}

impl PackInfo {
    /// A pack of segments that lie back to back.
    pub fn new(kind: ObjectKind, name: ObjectName, len: u64, segments: Vec<(u32, u32, u32)>) -> Self {
        let mut offset = HEADER_LEN as u64;
        let offsets = segments
            .iter()
            .map(|(sealed, _, _)| {
                let start = offset;
                offset += u64::from(*sealed);
                start
            })
            .collect();
        Self { kind, name, len, segments, offsets }
    }

    /// Where a segment lies.
    pub fn place(&self, number: u32) -> Option<SegmentPlace> {
        let index = number as usize;
        let (len, _, _) = *self.segments.get(index)?;
        Some(SegmentPlace { kind: self.kind, pack: self.name, number, offset: *self.offsets.get(index)?, len })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.kind == ObjectKind::Meta)];
        out.extend_from_slice(self.name.as_bytes());
        varint::put(&mut out, self.len);
        for (sealed, raw, chunks) in &self.segments {
            for value in [*sealed, *raw, *chunks] {
                varint::put(&mut out, u64::from(value));
            }
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = varint::Reader::new(bytes);
        let kind = if reader.byte().ok()? == 1 { ObjectKind::Meta } else { ObjectKind::Pack };
        let name = ObjectName::new(reader.array().ok()?);
        let len = reader.number().ok()?;
        let mut segments = Vec::new();
        let field = |reader: &mut varint::Reader<'_>| u32::try_from(reader.number().ok()?).ok();
        while !reader.rest().is_empty() {
            segments.push((field(&mut reader)?, field(&mut reader)?, field(&mut reader)?));
        }
        Some(Self::new(kind, name, len, segments))
    }
}

/// A pack with its footer, to be entered.
#[derive(Debug)]
pub struct NewPack {
    /// Pack or meta pack.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
    /// Its length, in bytes.
    pub len: u64,
    /// What is in it.
    pub footer: Footer,
}

impl Catalogue {
    /// Enters packs that are in the store, in a transaction of its own.
    ///
    /// # Errors
    /// If the database fails; then none is entered.
    pub fn enter_packs(&self, new: &[NewPack]) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        Self::insert_packs(&txn, new)?;
        txn.commit()?;
        Ok(())
    }

    /// Enters packs that are in the store, within a transaction.
    pub(crate) fn insert_packs(txn: &WriteTransaction, new: &[NewPack]) -> Result<(), CatalogueError> {
        let segments = new.iter().flat_map(|pack| &pack.footer.segments);
        let mut places = Vec::with_capacity(segments.map(|segment| segment.chunks.len()).sum());
        {
            let mut packs = txn.open_table(PACKS)?;
            let mut numbers = txn.open_table(NUMBERS_OF_PACKS)?;
            for pack in new {
                if numbers.get(pack.name.as_bytes())?.is_some() {
                    continue;
                }
                let number = next_number(txn, "next_pack")? as u32;
                let segments = pack.footer.segments.iter();
                let segments = segments.map(|s| (s.sealed_len, s.raw_len, s.chunks.len() as u32)).collect();
                let info = PackInfo::new(pack.kind, pack.name, pack.len, segments);
                packs.insert(number, info.encode().as_slice())?;
                numbers.insert(pack.name.as_bytes(), number)?;
                for (segment, entry) in pack.footer.segments.iter().enumerate() {
                    let mut offset = 0;
                    for (id, len) in &entry.chunks {
                        let place = ChunkPlace { pack: number, segment: segment as u32, offset, len: *len };
                        places.push((*id, place));
                        offset += len;
                    }
                }
            }
        }
        // In the order of the keys, inserting costs a quarter.
        places.sort_unstable_by_key(|(id, _)| *id);
        let limit = RECENT_MAX.max(txn.open_table(CHUNKS)?.len()? / 8);
        let few = (places.len() as u64) < limit;
        if !few {
            settle(txn)?;
        }
        let places = places.into_iter().map(|(id, place)| Ok((id, place.encode())));
        insert_places(txn, if few { RECENT } else { CHUNKS }, places)?;
        let recent = txn.open_table(RECENT)?.len()?;
        if recent < limit { Ok(()) } else { settle(txn) }
    }

    /// Takes out packs that are no longer in the store, and everything that lies in them; chunks with another copy stay.
    pub(crate) fn remove_packs(txn: &WriteTransaction, gone: &[ObjectName]) -> Result<(), CatalogueError> {
        let mut numbers_gone = std::collections::BTreeSet::new();
        {
            let mut packs = txn.open_table(PACKS)?;
            let mut numbers = txn.open_table(NUMBERS_OF_PACKS)?;
            for name in gone {
                let number = numbers.remove(name.as_bytes())?.map(|number| number.value());
                if let Some(number) = number {
                    packs.remove(number)?;
                    numbers_gone.insert(number);
                }
            }
        }
        if numbers_gone.is_empty() {
            return Ok(());
        }
        let mut copies = txn.open_table(COPIES)?;
        copies.retain(|_, place| !numbers_gone.contains(&ChunkPlace::decode(place).pack))?;
        let mut chunks = txn.open_table(CHUNKS)?;
        let mut recent = txn.open_table(RECENT)?;
        let mut lost = Vec::new();
        for table in [&mut chunks, &mut recent] {
            table.retain(|id, place| {
                let keep = !numbers_gone.contains(&ChunkPlace::decode(place).pack);
                if !keep {
                    lost.push(ChunkId::new(*id));
                }
                keep
            })?;
        }
        for id in lost {
            if chunks.get(id.as_bytes())?.is_some() || recent.get(id.as_bytes())?.is_some() {
                continue;
            }
            let copy = copies.range::<&[u8; 20]>(&copy_key(&id, 0)..=&copy_key(&id, u32::MAX))?.next().transpose()?;
            let copy = copy.map(|(key, place)| (*key.value(), place.value()));
            if let Some((key, place)) = copy {
                copies.remove(&key)?;
                chunks.insert(id.as_bytes(), place)?;
            }
        }
        bump_epoch(txn)
    }

    /// From now on nothing that was known to be stored is believed without looking it up.
    ///
    /// # Errors
    /// If the database fails.
    pub fn bump_epoch(&self) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        bump_epoch(&txn)?;
        txn.commit()?;
        Ok(())
    }

    /// Enters records, within a transaction.
    pub(crate) fn insert_records(
        &self,
        txn: &WriteTransaction,
        records: &[(ObjectName, Vec<u8>)],
    ) -> Result<(), CatalogueError> {
        let mut table = txn.open_table(RECORDS)?;
        for (name, value) in records {
            table.insert(name.as_bytes(), row(&self.key, name, value).as_slice())?;
        }
        Ok(())
    }

    /// Takes out records that are no longer in the store; what they said is kept apart.
    pub(crate) fn remove_records(txn: &WriteTransaction, gone: &[ObjectName]) -> Result<(), CatalogueError> {
        let mut table = txn.open_table(RECORDS)?;
        let mut lost = txn.open_table(LOST_RECORDS)?;
        for name in gone {
            if let Some(value) = table.remove(name.as_bytes())? {
                lost.insert(name.as_bytes(), value.value())?;
            }
        }
        Ok(())
    }

    /// Enters what was remembered in a catalogue before this one.
    pub(super) fn take_over(&self, remembered: &Remembered) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        self.insert_records(&txn, &remembered.records)?;
        {
            let mut lost = txn.open_table(LOST_RECORDS)?;
            for (name, value) in &remembered.lost {
                lost.insert(name.as_bytes(), row(&self.key, name, value).as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Takes out everything that is known of packs and records: it is read from the store again.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn clear(&self) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        txn.open_table(PACKS)?.retain(|_, _| false)?;
        txn.open_table(NUMBERS_OF_PACKS)?.retain(|_, _| false)?;
        txn.open_table(CHUNKS)?.retain(|_, _| false)?;
        txn.open_table(RECENT)?.retain(|_, _| false)?;
        txn.open_table(COPIES)?.retain(|_, _| false)?;
        txn.open_table(RECORDS)?.retain(|_, _| false)?;
        bump_epoch(&txn)?;
        txn.commit()?;
        Ok(())
    }
}

/// So many chunks gather beside a table that is not larger than eight times that.
const RECENT_MAX: u64 = 1 << 19;

/// Moves what has gathered into the large table.
fn settle(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    {
        let recent = txn.open_table(RECENT)?;
        let places = recent.iter()?.map(|row| {
            let (id, place) = row?;
            Ok((ChunkId::new(*id.value()), place.value()))
        });
        insert_places(txn, CHUNKS, places)?;
    }
    txn.delete_table(RECENT)?;
    txn.open_table(RECENT)?;
    Ok(())
}

/// Enters places of chunks; what was in the table for one of them becomes a copy.
fn insert_places(
    txn: &WriteTransaction,
    table: TableDefinition<'_, &[u8; 16], [u8; 16]>,
    places: impl Iterator<Item = Result<(ChunkId, [u8; 16]), redb::StorageError>>,
) -> Result<(), CatalogueError> {
    let mut table = txn.open_table(table)?;
    let mut copies = txn.open_table(COPIES)?;
    for row in places {
        let (id, place) = row?;
        let previous = table.insert(id.as_bytes(), place)?.map(|previous| previous.value());
        if let Some(previous) = previous {
            let pack = ChunkPlace::decode(previous).pack;
            copies.insert(&copy_key(&id, pack), previous)?;
        }
    }
    Ok(())
}

/// A remembered record as it lies in its table: with a keyed checksum in front.
fn row(key: &[u8; 32], name: &ObjectName, value: &[u8]) -> Vec<u8> {
    [&checksum(key, name.as_bytes(), value)[..], value].concat()
}

/// What a row says, if it is as it was written.
fn whole<'r>(key: &[u8; 32], name: &ObjectName, row: &'r [u8]) -> Option<&'r [u8]> {
    let (sum, value) = row.split_first_chunk::<16>()?;
    (checksum(key, name.as_bytes(), value) == *sum).then_some(value)
}

/// The records that a catalogue remembers, with those that are not in the store any more.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    records: Vec<(ObjectName, Vec<u8>)>,
    lost: Vec<(ObjectName, Vec<u8>)>,
}

impl Remembered {
    /// What can still be read of them in a catalogue that is of no other use.
    pub(super) fn salvage(path: &Path, key: &[u8; 32]) -> Self {
        let mut found = Self::default();
        // Damage inside may make redb panic: then what was found before is all.
        let _ = catch_unwind(AssertUnwindSafe(|| found.read(path, key)));
        found
    }

    fn read(&mut self, path: &Path, key: &[u8; 32]) -> Result<(), CatalogueError> {
        let db = Database::builder().set_concurrency_mode(ConcurrencyMode::MultiWriter).open(path)?;
        let txn = db.begin_read()?;
        for (table, rows) in [(RECORDS, &mut self.records), (LOST_RECORDS, &mut self.lost)] {
            for entry in txn.open_table(table)?.iter()? {
                let (name, value) = entry?;
                let name = ObjectName::new(*name.value());
                rows.extend(whole(key, &name, value.value()).map(|value| (name, value.to_vec())));
            }
        }
        Ok(())
    }
}

/// From now on nothing that was known to be stored is believed without looking it up.
pub(crate) fn bump_epoch(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    let mut table = txn.open_table(NUMBERS)?;
    let epoch = table.get("epoch")?.map_or(0, |value| value.value());
    table.insert("epoch", epoch + 1)?;
    Ok(())
}

fn copy_key(id: &ChunkId, pack: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(id.as_bytes());
    key[16..].copy_from_slice(&pack.to_le_bytes());
    key
}

/// The rows of a table of chunks.
struct Rows<'t> {
    rows: redb::Range<'t, &'static [u8; 16], [u8; 16]>,
    next: Option<(ChunkId, ChunkPlace)>,
}

impl<'t> Rows<'t> {
    fn new(table: &'t ReadOnlyTable<&'static [u8; 16], [u8; 16]>) -> Result<Self, CatalogueError> {
        let mut rows = Self { rows: table.iter()?, next: None };
        rows.take()?;
        Ok(rows)
    }

    /// The next row, which is followed by the one behind it.
    fn take(&mut self) -> Result<Option<(ChunkId, ChunkPlace)>, CatalogueError> {
        let following = self.rows.next().transpose()?;
        let following = following.map(|(id, place)| (ChunkId::new(*id.value()), ChunkPlace::decode(place.value())));
        Ok(std::mem::replace(&mut self.next, following))
    }
}

/// The rows of both tables of chunks, in the order of the ids.
struct Merged<'t> {
    recent: Rows<'t>,
    chunks: Rows<'t>,
}

impl<'t> Merged<'t> {
    fn new(tables: &'t Tables) -> Result<Self, CatalogueError> {
        Ok(Self { recent: Rows::new(&tables.recent)?, chunks: Rows::new(&tables.chunks)? })
    }

    /// The next id, with its place, the later first if it is in both tables.
    fn next(&mut self) -> Result<Option<(ChunkId, ChunkPlace, Option<ChunkPlace>)>, CatalogueError> {
        let (recent, chunks) = (self.recent.next, self.chunks.next);
        let from_recent = match (recent, chunks) {
            (Some((id, _)), Some((other, _))) => id <= other,
            (recent, _) => recent.is_some(),
        };
        let Some((id, place)) = (if from_recent { self.recent.take()? } else { self.chunks.take()? }) else {
            return Ok(None);
        };
        let same = from_recent && chunks.is_some_and(|(other, _)| other == id);
        let other = if same { self.chunks.take()? } else { None };
        Ok(Some((id, place, other.map(|(_, place)| place))))
    }
}

impl Reader {
    /// Where a chunk lies, if it is stored.
    ///
    /// # Errors
    /// If the database fails.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<ChunkPlace>, CatalogueError> {
        let place = match self.tables.recent.get(id.as_bytes())? {
            Some(place) => Some(place),
            None => self.tables.chunks.get(id.as_bytes())?,
        };
        Ok(place.map(|place| ChunkPlace::decode(place.value())))
    }

    /// Every place of a chunk; the one that [`Self::locate`] gives comes first.
    ///
    /// # Errors
    /// If the database fails.
    pub fn locate_all(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, CatalogueError> {
        let mut places = Vec::new();
        for table in [&self.tables.recent, &self.tables.chunks] {
            places.extend(table.get(id.as_bytes())?.map(|place| ChunkPlace::decode(place.value())));
        }
        for copy in self.tables.copies.range::<&[u8; 20]>(&copy_key(id, 0)..=&copy_key(id, u32::MAX))? {
            places.push(ChunkPlace::decode(copy?.1.value()));
        }
        Ok(places)
    }

    /// At least so many different chunks are stored, and at most twice as many.
    ///
    /// # Errors
    /// If the database fails.
    pub fn chunk_count(&self) -> Result<u64, CatalogueError> {
        Ok(self.tables.chunks.len()? + self.tables.recent.len()?)
    }

    /// Calls `found` for every place of every chunk, in no order.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_chunk(&self, mut found: impl FnMut(ChunkPlace)) -> Result<(), CatalogueError> {
        for table in [&self.tables.recent, &self.tables.chunks] {
            for row in table.iter()? {
                found(ChunkPlace::decode(row?.1.value()));
            }
        }
        for row in self.tables.copies.iter()? {
            found(ChunkPlace::decode(row?.1.value()));
        }
        Ok(())
    }

    /// Calls `found` for the id of every chunk, in order, until it returns `false`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_id(&self, mut found: impl FnMut(ChunkId) -> bool) -> Result<(), CatalogueError> {
        let mut rows = Merged::new(&self.tables)?;
        while let Some((id, ..)) = rows.next()? {
            if !found(id) {
                break;
            }
        }
        Ok(())
    }

    /// Calls `found` for every chunk with all its places, in the order of the ids, until it returns `false`. The place that
    /// [`Self::locate`] gives comes first.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_place(&self, mut found: impl FnMut(ChunkId, &[ChunkPlace]) -> bool) -> Result<(), CatalogueError> {
        let mut copies = self.tables.copies.iter()?;
        let mut next_copy = || -> Result<Option<([u8; 16], ChunkPlace)>, CatalogueError> {
            let Some(row) = copies.next().transpose()? else { return Ok(None) };
            let mut id = [0; 16];
            id.copy_from_slice(&row.0.value()[..16]);
            Ok(Some((id, ChunkPlace::decode(row.1.value()))))
        };
        let mut copy = next_copy()?;
        let mut places = Vec::new();
        let mut rows = Merged::new(&self.tables)?;
        while let Some((id, place, other_place)) = rows.next()? {
            places.clear();
            places.push(place);
            places.extend(other_place);
            while let Some((other, place)) = copy.filter(|(other, _)| other <= id.as_bytes()) {
                if other == *id.as_bytes() {
                    places.push(place);
                }
                copy = next_copy()?;
            }
            if !found(id, &places) {
                break;
            }
        }
        Ok(())
    }

    /// A pack by its number in this catalogue.
    ///
    /// # Errors
    /// If the database fails.
    pub fn pack(&self, number: u32) -> Result<Option<PackInfo>, CatalogueError> {
        Ok(self.tables.packs.get(number)?.and_then(|bytes| PackInfo::decode(bytes.value())))
    }

    /// All packs, by number.
    ///
    /// # Errors
    /// If the database fails.
    pub fn packs(&self) -> Result<BTreeMap<u32, PackInfo>, CatalogueError> {
        let mut packs = BTreeMap::new();
        for row in self.tables.packs.iter()? {
            let (number, bytes) = row?;
            let info = PackInfo::decode(bytes.value()).ok_or_else(|| {
                self.distrust();
                CatalogueError::Database("a row of the table of packs is malformed".to_owned())
            })?;
            packs.insert(number.value(), info);
        }
        Ok(packs)
    }

    /// All records: name, and hash of the object (32 bytes) followed by the plaintext; nothing for one that is damaged here.
    ///
    /// # Errors
    /// If the database fails.
    pub fn records(&self) -> Result<Vec<(ObjectName, Vec<u8>)>, CatalogueError> {
        self.records_of(&self.tables.records)
    }

    /// Records that were in the store once and are not any more, in the same form.
    ///
    /// # Errors
    /// If the database fails.
    pub fn lost_records(&self) -> Result<Vec<(ObjectName, Vec<u8>)>, CatalogueError> {
        self.records_of(&self.tables.lost_records)
    }

    fn records_of(
        &self,
        table: &ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    ) -> Result<Vec<(ObjectName, Vec<u8>)>, CatalogueError> {
        let mut records = Vec::new();
        for row in table.iter()? {
            let (name, value) = row?;
            let name = ObjectName::new(*name.value());
            let value = whole(&self.key, &name, value.value());
            if value.is_none() {
                self.distrust();
            }
            records.push((name, value.map_or_else(Vec::new, <[u8]>::to_vec)));
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::pack::footer::SegmentEntry;
    use crate::seal::Method;

    /// The places of all chunks, by what is said of these packs.
    fn expected(packs: &BTreeMap<u32, Vec<ChunkId>>) -> BTreeMap<ChunkId, BTreeSet<ChunkPlace>> {
        let mut places: BTreeMap<ChunkId, BTreeSet<ChunkPlace>> = BTreeMap::new();
        for (pack, ids) in packs {
            for (index, id) in (0..).zip(ids) {
                let place = ChunkPlace { pack: *pack, segment: index / 3, offset: index % 3 * 10, len: 10 };
                places.entry(*id).or_default().insert(place);
            }
        }
        places
    }

    #[test]
    fn chunks_are_found_whichever_table_they_are_in() {
        let folder = tempfile::tempdir().unwrap();
        let (catalogue, _) = Catalogue::open(&folder.path().join("catalogue.redb"), [0; 32]).unwrap();
        let mut noise = blake3::Hasher::new().update(b"packs").finalize_xof();
        let mut roll = |bound: u8| {
            let mut byte = [0];
            noise.fill(&mut byte);
            byte[0] % bound
        };
        let (mut packs, mut names) = (BTreeMap::new(), BTreeMap::new());
        for round in 0..150_u8 {
            let txn = catalogue.write().unwrap();
            match roll(4) {
                0 => settle(&txn).unwrap(),
                1 if !names.is_empty() => {
                    let count = 1 + usize::from(roll(3));
                    let gone: Vec<u32> = names.keys().copied().filter(|_| roll(3) == 0).take(count).collect();
                    let gone: Vec<ObjectName> =
                        gone.iter().filter_map(|number| packs.remove(number).and(names.remove(number))).collect();
                    Catalogue::remove_packs(&txn, &gone).unwrap();
                }
                _ => {
                    let ids: BTreeSet<u8> = (0..roll(12)).map(|_| roll(50)).collect();
                    let ids: Vec<ChunkId> = ids.into_iter().map(|byte| ChunkId::new([byte; 16])).collect();
                    let segments = ids.chunks(3).map(|ids| SegmentEntry {
                        sealed_len: 100,
                        method: Method::Raw,
                        raw_len: 10 * ids.len() as u32,
                        chunks: ids.iter().map(|id| (*id, 10)).collect(),
                    });
                    let footer = Footer { segments: segments.collect() };
                    let name = ObjectName::new([round; 16]);
                    let number = txn.open_table(NUMBERS).unwrap().get("next_pack").unwrap().map_or(1, |n| n.value());
                    let pack = NewPack { kind: ObjectKind::Pack, name, len: 1000, footer };
                    Catalogue::insert_packs(&txn, &[pack]).unwrap();
                    packs.insert(number as u32, ids);
                    names.insert(number as u32, name);
                }
            }
            txn.commit().unwrap();
            let expected = expected(&packs);
            let reader = catalogue.reader().unwrap();
            let (mut found, mut ids, mut count) = (BTreeMap::new(), Vec::new(), 0);
            reader
                .for_each_place(|id, places| {
                    assert_eq!(reader.locate(&id).unwrap().as_ref(), places.first());
                    assert_eq!(reader.locate_all(&id).unwrap(), places);
                    assert!(found.insert(id, places.iter().copied().collect::<BTreeSet<_>>()).is_none());
                    true
                })
                .unwrap();
            assert_eq!(found, expected, "round {round}");
            reader
                .for_each_id(|id| {
                    ids.push(id);
                    true
                })
                .unwrap();
            assert!(ids.iter().eq(expected.keys()), "round {round}");
            reader.for_each_chunk(|_| count += 1).unwrap();
            assert_eq!(count, expected.values().map(BTreeSet::len).sum::<usize>());
            let bound = reader.chunk_count().unwrap() as usize;
            assert!((ids.len()..=2 * ids.len()).contains(&bound), "{bound}");
            assert_eq!(reader.locate(&ChunkId::new([77; 16])).unwrap(), None);
        }
    }
}
