//! The catalogue's tables of packs.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::catalogue::chunks::Places;
use crate::catalogue::upkeep::{Look, forget_all_looks, forget_looks};
use crate::catalogue::{Catalogue, CatalogueError, ChunkPlace, NUMBERS, Reader, next_number};
use crate::id::ObjectName;
use crate::pack::footer::SegmentEntry;
use crate::pack::{Footer, SegmentPlace};
use crate::seal::{HEADER_LEN, ObjectKind};
use crate::varint;

/// Number of a pack in this catalogue → see [`PackInfo::encode`].
const PACKS: TableDefinition<u32, &[u8]> = TableDefinition::new("packs");
/// Name of a pack → its number.
const NUMBERS_OF_PACKS: TableDefinition<&[u8; 16], u32> = TableDefinition::new("pack_numbers");
/// Creates the tables.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    txn.open_table(PACKS)?;
    txn.open_table(NUMBERS_OF_PACKS)?;
    Ok(())
}

/// The tables of a reader.
pub(super) struct Tables {
    packs: ReadOnlyTable<u32, &'static [u8]>,
}

impl Tables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, CatalogueError> {
        Ok(Self { packs: txn.open_table(PACKS)? })
    }
}

/// A segment as the catalogue knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its sealed length, in bytes.
    pub sealed: u32,
    /// The length of its chunks together, in bytes.
    pub raw: u32,
    /// Number of its chunks.
    pub chunks: u32,
}

impl SegmentInfo {
    /// The segment that a footer describes.
    fn of(entry: &SegmentEntry) -> Self {
        Self { sealed: entry.sealed_len, raw: entry.raw_len, chunks: entry.chunks.len() as u32 }
    }
}

/// A pack as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackInfo {
    /// Kind: pack or meta pack.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
    /// Its length, in bytes.
    pub len: u64,
    /// Its segments, in order.
    pub segments: Vec<SegmentInfo>,
    /// The offset of each segment in the pack.
    offsets: Vec<u64>,
}

impl PackInfo {
    /// A pack of contiguous segments.
    pub fn new(kind: ObjectKind, name: ObjectName, len: u64, segments: Vec<SegmentInfo>) -> Self {
        let mut offset = HEADER_LEN as u64;
        let offsets = segments
            .iter()
            .map(|segment| {
                let start = offset;
                offset += u64::from(segment.sealed);
                start
            })
            .collect();
        Self { kind, name, len, segments, offsets }
    }

    /// Whether a footer has segments with these lengths and numbers of chunks: whether it is the one that the catalogue knows.
    pub fn is_of(&self, footer: &Footer) -> bool {
        footer.segments.iter().map(SegmentInfo::of).eq(self.segments.iter().copied())
    }

    /// The place of a segment.
    pub fn place(&self, number: u32) -> Option<SegmentPlace> {
        let index = number as usize;
        let len = self.segments.get(index)?.sealed;
        Some(SegmentPlace { kind: self.kind, pack: self.name, number, offset: *self.offsets.get(index)?, len })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.kind == ObjectKind::Meta)];
        out.extend_from_slice(self.name.as_bytes());
        varint::put(&mut out, self.len);
        for segment in &self.segments {
            for value in [segment.sealed, segment.raw, segment.chunks] {
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
            let (sealed, raw, chunks) = (field(&mut reader)?, field(&mut reader)?, field(&mut reader)?);
            segments.push(SegmentInfo { sealed, raw, chunks });
        }
        Some(Self::new(kind, name, len, segments))
    }
}

/// A pack with its footer, to be entered.
#[derive(Debug)]
pub struct NewPack {
    /// Kind: pack or meta pack.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
    /// Its length, in bytes.
    pub len: u64,
    /// Its footer.
    pub footer: Footer,
}

impl Catalogue {
    /// Enters packs that are in the store, in a transaction of its own.
    ///
    /// # Errors
    /// If the database fails; then none is entered.
    pub fn enter_packs(&self, new: &[NewPack]) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        self.insert_packs(&txn, new)?;
        txn.commit()?;
        Ok(())
    }

    /// Enters packs that this machine has put itself, in a transaction of its own: it knows their content.
    ///
    /// # Errors
    /// If the database fails; then none is entered.
    pub fn enter_own_packs(&self, new: &[NewPack]) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        self.insert_own_packs(&txn, new)?;
        txn.commit()?;
        Ok(())
    }

    /// As [`Self::enter_own_packs`], within a transaction.
    pub(crate) fn insert_own_packs(&self, txn: &WriteTransaction, new: &[NewPack]) -> Result<(), CatalogueError> {
        self.keep_own_entries(new);
        self.insert_packs(txn, new)?;
        Self::insert_looks(txn, new.iter().map(|pack| (pack.name, Look::Whole)))
    }

    /// Enters packs that are in the store, within a transaction.
    pub(crate) fn insert_packs(&self, txn: &WriteTransaction, new: &[NewPack]) -> Result<(), CatalogueError> {
        let segments = new.iter().flat_map(|pack| &pack.footer.segments);
        let mut places = Places::new(segments.map(|segment| segment.chunks.len()).sum());
        {
            let mut packs = txn.open_table(PACKS)?;
            let mut numbers = txn.open_table(NUMBERS_OF_PACKS)?;
            for pack in new {
                if numbers.get(pack.name.as_bytes())?.is_some() {
                    continue;
                }
                let number = next_number(txn, "next_pack")? as u32;
                let segments = pack.footer.segments.iter();
                let segments = segments.map(SegmentInfo::of).collect();
                let info = PackInfo::new(pack.kind, pack.name, pack.len, segments);
                packs.insert(number, info.encode().as_slice())?;
                numbers.insert(pack.name.as_bytes(), number)?;
                for (segment, entry) in pack.footer.segments.iter().enumerate() {
                    let mut offset = 0;
                    for (id, len) in &entry.chunks {
                        places.push(*id, ChunkPlace { pack: number, segment: segment as u32, offset, len: *len });
                        offset += len;
                    }
                }
            }
        }
        self.insert_places(txn, places)
    }

    /// Removes packs that are no longer in the store, and all places in them; chunks with another place stay.
    pub(crate) fn remove_packs(&self, txn: &WriteTransaction, gone: &[ObjectName]) -> Result<(), CatalogueError> {
        let mut numbers_gone = BTreeSet::new();
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
        forget_looks(txn, gone)?;
        if numbers_gone.is_empty() {
            return Ok(());
        }
        self.remove_places(txn, &numbers_gone)?;
        bump_epoch(txn)
    }

    /// Starts a new epoch: from now on, chunks known to be stored before are looked up again.
    ///
    /// # Errors
    /// If the database fails.
    pub fn bump_epoch(&self) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        bump_epoch(&txn)?;
        txn.commit()?;
        Ok(())
    }

    /// Removes everything about packs and records: it is read from the store again.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn clear(&self) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        self.clear_places(&txn)?;
        txn.open_table(PACKS)?.retain(|_, _| false)?;
        txn.open_table(NUMBERS_OF_PACKS)?.retain(|_, _| false)?;
        Self::clear_records(&txn)?;
        forget_all_looks(&txn)?;
        bump_epoch(&txn)?;
        txn.commit()?;
        Ok(())
    }
}

/// Starts a new epoch: from now on, chunks known to be stored before are looked up again.
pub(crate) fn bump_epoch(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    let mut table = txn.open_table(NUMBERS)?;
    let epoch = table.get("epoch")?.map_or(0, |value| value.value());
    table.insert("epoch", epoch + 1)?;
    Ok(())
}

impl Reader {
    /// A pack by its number in this catalogue.
    ///
    /// # Errors
    /// If the database fails.
    pub fn pack(&self, number: u32) -> Result<Option<PackInfo>, CatalogueError> {
        Ok(self.packs.packs.get(number)?.and_then(|bytes| PackInfo::decode(bytes.value())))
    }

    /// All packs, by number.
    ///
    /// # Errors
    /// If the database fails.
    pub fn packs(&self) -> Result<BTreeMap<u32, PackInfo>, CatalogueError> {
        let mut packs = BTreeMap::new();
        for row in self.packs.packs.iter()? {
            let (number, bytes) = row?;
            let info = PackInfo::decode(bytes.value()).ok_or_else(|| {
                self.distrust();
                CatalogueError::Database("a row of the table of packs is malformed".to_owned())
            })?;
            packs.insert(number.value(), info);
        }
        Ok(packs)
    }
}
