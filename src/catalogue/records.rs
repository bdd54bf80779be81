//! The catalogue's tables of records: what this machine remembers of the log, including records that are no longer in the store.
//!
//! redb keeps the small rows of a table together in one page, and a page grows with its longest row. A merge has tens of megabytes: each
//! change of a neighbouring row would read and write all of them again. So a long record is split into parts, in a separate table.

use std::path::Path;

use redb::{
    ConcurrencyMode, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};

use crate::catalogue::stat::checksum;
use crate::catalogue::{Catalogue, CatalogueError, Reader};
use crate::id::ObjectName;

/// Maximum length of a record that is not split, in bytes.
const SHORT_LEN: usize = 2 << 10;
/// Length of a part, in bytes: with its key it fits in a page of 64 KiB.
const PART_LEN: usize = 60 << 10;

/// Name of a record → [`Head`].
type Heads = TableDefinition<'static, &'static [u8; 16], &'static [u8]>;
/// Name of a record and number of the part → the part.
type Parts = TableDefinition<'static, (&'static [u8; 16], u32), &'static [u8]>;

/// Records, in two tables.
#[derive(Clone, Copy)]
struct Records {
    heads: Heads,
    parts: Parts,
}

/// Records that were in the store when it was last listed.
const THERE: Records = Records { heads: TableDefinition::new("records"), parts: TableDefinition::new("record_parts") };
/// Records that were in the store once and no longer are.
const LOST: Records =
    Records { heads: TableDefinition::new("lost_records"), parts: TableDefinition::new("lost_record_parts") };

/// Creates the tables.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    for records in [THERE, LOST] {
        txn.open_table(records.heads)?;
        txn.open_table(records.parts)?;
    }
    Ok(())
}

/// The row of a record in the table of heads: a keyed checksum of name and value (16 bytes), the number of parts (4 bytes,
/// little-endian), and, if there are none, the value itself.
struct Head<'r> {
    sum: [u8; 16],
    parts: u32,
    value: &'r [u8],
}

impl<'r> Head<'r> {
    fn decode(row: &'r [u8]) -> Option<Self> {
        let (sum, rest) = row.split_first_chunk()?;
        let (parts, value) = rest.split_first_chunk()?;
        Some(Self { sum: *sum, parts: u32::from_le_bytes(*parts), value })
    }

    fn encode(&self) -> Vec<u8> {
        [&self.sum[..], &self.parts.to_le_bytes(), self.value].concat()
    }

    /// Number of parts of a row; 0 if it is damaged.
    fn parts_of(row: &[u8]) -> u32 {
        Head::decode(row).map_or(0, |head| head.parts)
    }
}

/// The two tables of [`Records`] in a transaction.
struct Written<'t> {
    heads: Table<'t, &'static [u8; 16], &'static [u8]>,
    parts: Table<'t, (&'static [u8; 16], u32), &'static [u8]>,
}

impl<'t> Written<'t> {
    fn open(txn: &'t WriteTransaction, records: Records) -> Result<Self, CatalogueError> {
        Ok(Self { heads: txn.open_table(records.heads)?, parts: txn.open_table(records.parts)? })
    }

    fn insert(&mut self, key: &[u8; 32], name: &ObjectName, value: &[u8]) -> Result<(), CatalogueError> {
        let sum = checksum(key, name.as_bytes(), value);
        let (mut parts, is_short) = (0, value.len() <= SHORT_LEN);
        if !is_short {
            for part in value.chunks(PART_LEN) {
                self.parts.insert((name.as_bytes(), parts), part)?;
                parts += 1;
            }
        }
        let head = Head { sum, parts, value: if is_short { value } else { &[] } };
        let before = self.heads.insert(name.as_bytes(), head.encode().as_slice())?;
        let before = before.map_or(0, |row| Head::parts_of(row.value()));
        self.remove_parts(name, parts, before)
    }

    /// Removes a record, and returns it if it existed and was undamaged.
    fn take(&mut self, key: &[u8; 32], name: &ObjectName) -> Result<Option<Vec<u8>>, CatalogueError> {
        let row = self.heads.remove(name.as_bytes())?.map(|row| row.value().to_vec());
        let Some(row) = row else { return Ok(None) };
        let value = whole(key, name, &row, &self.parts)?;
        self.remove_parts(name, 0, Head::parts_of(&row))?;
        Ok(value)
    }

    fn remove(&mut self, name: &ObjectName) -> Result<(), CatalogueError> {
        let parts = self.heads.remove(name.as_bytes())?.map_or(0, |row| Head::parts_of(row.value()));
        self.remove_parts(name, 0, parts)
    }

    fn remove_parts(&mut self, name: &ObjectName, from: u32, to: u32) -> Result<(), CatalogueError> {
        for number in from..to {
            // A damaged head may name any number of parts.
            if self.parts.remove((name.as_bytes(), number))?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// The value of a row, if it and its parts are as they were written.
fn whole(
    key: &[u8; 32],
    name: &ObjectName,
    row: &[u8],
    parts: &impl ReadableTable<(&'static [u8; 16], u32), &'static [u8]>,
) -> Result<Option<Vec<u8>>, CatalogueError> {
    let Some(head) = Head::decode(row) else { return Ok(None) };
    let mut value = head.value.to_vec();
    for number in 0..head.parts {
        let Some(part) = parts.get((name.as_bytes(), number))? else { return Ok(None) };
        value.extend_from_slice(part.value());
    }
    Ok((checksum(key, name.as_bytes(), &value) == head.sum).then_some(value))
}

/// The two tables of [`Records`] as a reader sees them.
struct ReadRecords {
    heads: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    parts: ReadOnlyTable<(&'static [u8; 16], u32), &'static [u8]>,
}

impl ReadRecords {
    fn open(txn: &ReadTransaction, records: Records) -> Result<Self, CatalogueError> {
        Ok(Self { heads: txn.open_table(records.heads)?, parts: txn.open_table(records.parts)? })
    }

    /// Calls `each` for every record; for a damaged one, without its value.
    fn for_each(
        &self,
        key: &[u8; 32],
        mut each: impl FnMut(ObjectName, Option<Vec<u8>>),
    ) -> Result<(), CatalogueError> {
        for entry in self.heads.iter()? {
            let (name, row) = entry?;
            let name = ObjectName::new(*name.value());
            each(name, whole(key, &name, row.value(), &self.parts)?);
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<ObjectName>, CatalogueError> {
        self.heads.iter()?.map(|entry| Ok(ObjectName::new(*entry?.0.value()))).collect()
    }
}

/// The tables of a reader.
pub(super) struct Tables {
    there: ReadRecords,
    lost: ReadRecords,
}

impl Tables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, CatalogueError> {
        Ok(Self { there: ReadRecords::open(txn, THERE)?, lost: ReadRecords::open(txn, LOST)? })
    }
}

/// The records that a catalogue remembers, including those that are no longer in the store.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    there: Vec<(ObjectName, Vec<u8>)>,
    lost: Vec<(ObjectName, Vec<u8>)>,
}

impl Remembered {
    /// Reads the records that can still be read in an otherwise unusable catalogue.
    pub(super) fn salvage(path: &Path, key: &[u8; 32]) -> Self {
        let mut found = Self::default();
        // Damage may make redb panic: then only the records found before are returned.
        let _ = crate::sync::catch(|| found.read(path, key));
        found
    }

    fn read(&mut self, path: &Path, key: &[u8; 32]) -> Result<(), CatalogueError> {
        let db = Database::builder().set_concurrency_mode(ConcurrencyMode::MultiWriter).open(path)?;
        let txn = db.begin_read()?;
        for (records, rows) in [(THERE, &mut self.there), (LOST, &mut self.lost)] {
            let mut keep = |name, value: Option<Vec<u8>>| rows.extend(value.map(|value| (name, value)));
            ReadRecords::open(&txn, records)?.for_each(key, &mut keep)?;
        }
        Ok(())
    }
}

impl Catalogue {
    /// Enters records, within a transaction.
    pub(crate) fn insert_records(
        &self,
        txn: &WriteTransaction,
        records: &[(ObjectName, Vec<u8>)],
    ) -> Result<(), CatalogueError> {
        let mut table = Written::open(txn, THERE)?;
        records.iter().try_for_each(|(name, value)| table.insert(&self.key, name, value))
    }

    /// Removes records that are no longer in the store; they are remembered in the table of lost records.
    pub(crate) fn remove_records(&self, txn: &WriteTransaction, gone: &[ObjectName]) -> Result<(), CatalogueError> {
        let (mut there, mut lost) = (Written::open(txn, THERE)?, Written::open(txn, LOST)?);
        for name in gone {
            if let Some(value) = there.take(&self.key, name)? {
                lost.insert(&self.key, name, &value)?;
            }
        }
        Ok(())
    }

    /// Removes records that are held by others, which are remembered instead.
    pub(crate) fn drop_records(txn: &WriteTransaction, held: &[ObjectName]) -> Result<(), CatalogueError> {
        for records in [THERE, LOST] {
            let mut table = Written::open(txn, records)?;
            held.iter().try_for_each(|name| table.remove(name))?;
        }
        Ok(())
    }

    /// Removes all records that were in the store when it was last listed.
    pub(super) fn clear_records(txn: &WriteTransaction) -> Result<(), CatalogueError> {
        txn.delete_table(THERE.heads)?;
        txn.delete_table(THERE.parts)?;
        create_tables(txn)
    }

    /// Enters the records of an earlier catalogue.
    pub(super) fn take_over(&self, remembered: &Remembered) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        for (records, rows) in [(THERE, &remembered.there), (LOST, &remembered.lost)] {
            let mut table = Written::open(&txn, records)?;
            rows.iter().try_for_each(|(name, value)| table.insert(&self.key, name, value))?;
        }
        txn.commit()?;
        Ok(())
    }
}

impl Reader {
    /// One record: hash of the object (32 bytes) followed by the plaintext; `None` if it is not known or is damaged here.
    ///
    /// # Errors
    /// If the database fails.
    pub fn record(&self, name: &ObjectName) -> Result<Option<Vec<u8>>, CatalogueError> {
        let there = &self.records.there;
        let Some(row) = there.heads.get(name.as_bytes())? else { return Ok(None) };
        let value = whole(&self.key, name, row.value(), &there.parts)?;
        if value.is_none() {
            self.distrust();
        }
        Ok(value)
    }

    /// All records, in the form of [`Self::record`], about `len` bytes at a time; a record damaged here has an empty value.
    ///
    /// # Errors
    /// If the database fails.
    pub fn records_in_parts(
        &self,
        len: usize,
        mut each: impl FnMut(Vec<(ObjectName, Vec<u8>)>),
    ) -> Result<(), CatalogueError> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        self.records.there.for_each(&self.key, |name, value| {
            let value = self.believed(value);
            bytes += value.len();
            part.push((name, value));
            if bytes >= len {
                each(std::mem::take(&mut part));
                bytes = 0;
            }
        })?;
        each(part);
        Ok(())
    }

    /// Records that were in the store once and no longer are, in the same form.
    ///
    /// # Errors
    /// If the database fails.
    pub fn lost_records(&self) -> Result<Vec<(ObjectName, Vec<u8>)>, CatalogueError> {
        let mut records = Vec::new();
        self.records.lost.for_each(&self.key, |name, value| records.push((name, self.believed(value))))?;
        Ok(records)
    }

    /// The names of all records, including those that are no longer in the store.
    ///
    /// # Errors
    /// If the database fails.
    pub fn record_names(&self) -> Result<Vec<ObjectName>, CatalogueError> {
        let mut names = self.records.there.names()?;
        names.extend(self.records.lost.names()?);
        Ok(names)
    }

    fn believed(&self, value: Option<Vec<u8>>) -> Vec<u8> {
        value.unwrap_or_else(|| {
            self.distrust();
            Vec::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u8) -> ObjectName {
        ObjectName::new([number; 16])
    }

    /// Records by name.
    type Rows = Vec<(ObjectName, Vec<u8>)>;

    /// The records that the catalogue remembers: those in the store, and lost ones.
    fn all(catalogue: &Catalogue) -> (Rows, Rows) {
        let (reader, mut there) = (catalogue.reader().unwrap(), Vec::new());
        reader.records_in_parts(100_000, |part| there.extend(part)).unwrap();
        (there, reader.lost_records().unwrap())
    }

    /// Number of parts in the tables.
    fn parts(catalogue: &Catalogue) -> usize {
        let txn = catalogue.db.begin_read().unwrap();
        let count = |records: Records| txn.open_table(records.parts).unwrap().iter().unwrap().count();
        count(THERE) + count(LOST)
    }

    #[test]
    fn records_of_every_length_come_back_and_leave_no_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.redb");
        let (catalogue, _) = Catalogue::open(&path, [1; 32]).unwrap();
        let write = |work: &dyn Fn(&WriteTransaction)| {
            let txn = catalogue.write().unwrap();
            work(&txn);
            txn.commit().unwrap();
        };
        let lens = [0, 1, SHORT_LEN, SHORT_LEN + 1, PART_LEN, PART_LEN + 1, 5 * PART_LEN];
        let rows: Rows = lens.iter().zip(1..).map(|(len, number)| (name(number), vec![number; *len])).collect();
        write(&|txn| catalogue.insert_records(txn, &rows).unwrap());
        assert_eq!(all(&catalogue), (rows.clone(), Vec::new()));
        assert_eq!(parts(&catalogue), 1 + 1 + 2 + 5);
        for (name, value) in &rows {
            assert_eq!(catalogue.reader().unwrap().record(name).unwrap().as_ref(), Some(value));
        }
        // A shorter record that replaces the longest leaves no parts behind.
        let last = name(lens.len() as u8);
        write(&|txn| catalogue.insert_records(txn, &[(last, vec![9; PART_LEN + 1])]).unwrap());
        assert_eq!(parts(&catalogue), 1 + 1 + 2 + 2);
        write(&|txn| catalogue.remove_records(txn, &[last, name(1), name(99)]).unwrap());
        let (there, lost) = all(&catalogue);
        assert_eq!(there, rows[1..rows.len() - 1]);
        assert_eq!(lost, [(name(1), Vec::new()), (last, vec![9; PART_LEN + 1])]);
        assert_eq!(catalogue.reader().unwrap().record_names().unwrap().len(), rows.len());
        // A new catalogue takes over both from an otherwise unusable one.
        drop(catalogue);
        let catalogue = Catalogue::anew(&path, [1; 32], None).unwrap();
        assert_eq!(all(&catalogue), (there, lost));
        let names: Vec<ObjectName> = rows.iter().map(|(name, _)| *name).collect();
        let txn = catalogue.write().unwrap();
        Catalogue::drop_records(&txn, &names).unwrap();
        txn.commit().unwrap();
        assert_eq!((all(&catalogue), parts(&catalogue)), ((Vec::new(), Vec::new()), 0));
    }

    #[test]
    fn a_damaged_part_makes_its_record_unknown_and_the_catalogue_doubted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.redb");
        let (catalogue, _) = Catalogue::open(&path, [1; 32]).unwrap();
        let txn = catalogue.write().unwrap();
        let value = vec![7; 3 * PART_LEN];
        catalogue.insert_records(&txn, &[(name(1), value.clone()), (name(2), value.clone())]).unwrap();
        txn.open_table(THERE.parts).unwrap().insert((&[1; 16], 1), vec![8; PART_LEN].as_slice()).unwrap();
        txn.commit().unwrap();
        let reader = catalogue.reader().unwrap();
        assert_eq!(reader.record(&name(1)).unwrap(), None);
        assert_eq!(all(&catalogue).0, [(name(1), Vec::new()), (name(2), value.clone())]);
        drop((reader, catalogue));
        let (catalogue, is_new) = Catalogue::open(&path, [1; 32]).unwrap();
        assert!(is_new, "it was distrusted");
        assert_eq!(all(&catalogue).0, [(name(2), value)], "undamaged records were taken over");
    }
}
