//! The stat cache: the metadata of each file when it was last read, and its entry in its folder's tree.
//!
//! A row contains a page of neighbouring entries of one folder. It may be written before its chunks are durable: it has the number of the
//! session that wrote it, and is only trusted if that session ended with a snapshot and no pack was lost or condemned since. Otherwise
//! each chunk is looked up before an entry is used.

use std::collections::BTreeSet;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::catalogue::{Catalogue, CatalogueError, DOUBTED, NUMBERS, Reader, next_number};
use crate::id::FolderKey;
use crate::tree::{FileKind, Time};
use crate::varint;

/// Key of a folder (16 bytes) and the first name of the page → row.
const STAT: TableDefinition<&[u8], &[u8]> = TableDefinition::new("stat");
/// Identity of a folder (source, device, inode) → the key it was stored under, so that a renamed folder is found again.
const FOLDERS: TableDefinition<&[u8; 16], &[u8; 16]> = TableDefinition::new("folders");
/// Number of a session that ended with a snapshot → the epoch it ended in.
const SESSIONS: TableDefinition<u64, u64> = TableDefinition::new("sessions");

/// Creates the tables.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    txn.open_table(STAT)?;
    txn.open_table(FOLDERS)?;
    txn.open_table(SESSIONS)?;
    Ok(())
}

/// The tables of a reader.
pub(super) struct Tables {
    stat: ReadOnlyTable<&'static [u8], &'static [u8]>,
    folders: ReadOnlyTable<&'static [u8; 16], &'static [u8; 16]>,
    sessions: ReadOnlyTable<u64, u64>,
}

impl Tables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, CatalogueError> {
        Ok(Self { stat: txn.open_table(STAT)?, folders: txn.open_table(FOLDERS)?, sessions: txn.open_table(SESSIONS)? })
    }
}

/// A remembered entry. Entries that were read together share their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatEntry {
    /// The name.
    pub name: Bytes,
    /// Its kind.
    pub kind: FileKind,
    /// Inode number; 0 if the entry must not be trusted (its timestamps were too recent when it was read).
    pub inode: u64,
    /// Size, in bytes.
    pub size: u64,
    /// When its content was last modified.
    pub mtime: Time,
    /// When its inode was last changed.
    pub ctime: Time,
    /// Its encoding in the folder's tree.
    pub entry: Bytes,
}

/// A page of entries of one folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatRow {
    /// The session that wrote it.
    pub session: u64,
    /// The entries, sorted by name.
    pub entries: Vec<StatEntry>,
}

/// Minimum length of nearly every entry in a row, in bytes.
const ENTRY_LEN: usize = 96;

fn put_time(out: &mut Vec<u8>, time: Time) {
    // Zigzag, so that times before 1970 stay short.
    varint::put(out, ((time.secs << 1) ^ (time.secs >> 63)).cast_unsigned());
    varint::put(out, u64::from(time.nanos));
}

fn read_time(reader: &mut varint::Reader<'_>) -> Option<Time> {
    let zigzag = reader.number().ok()?;
    let secs = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
    Some(Time { secs, nanos: u32::try_from(reader.number().ok()?).ok()? })
}

impl StatRow {
    /// The row's bytes, preceded by a keyed checksum over them and the row's key.
    fn encode(&self, key: &[u8; 32], row_key: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 16];
        varint::put(&mut out, self.session);
        for entry in &self.entries {
            varint::put(&mut out, entry.name.len() as u64);
            out.extend_from_slice(&entry.name);
            out.push(entry.kind as u8);
            varint::put(&mut out, entry.inode);
            varint::put(&mut out, entry.size);
            put_time(&mut out, entry.mtime);
            put_time(&mut out, entry.ctime);
            varint::put(&mut out, entry.entry.len() as u64);
            out.extend_from_slice(&entry.entry);
        }
        let checksum = checksum(key, row_key, &out[16..]);
        out[..16].copy_from_slice(&checksum);
        out
    }

    /// The row, or `None` if its checksum is wrong or it is malformed.
    fn decode(key: &[u8; 32], row_key: &[u8], bytes: &[u8]) -> Option<Self> {
        let (sum, body) = bytes.split_at_checked(16)?;
        if checksum(key, row_key, body) != sum {
            return None;
        }
        let body = Bytes::copy_from_slice(body);
        let mut reader = varint::Reader::new(&body);
        let session = reader.number().ok()?;
        let mut row = Self { session, entries: Vec::with_capacity(body.len() / ENTRY_LEN) };
        while !reader.rest().is_empty() {
            let bytes = |reader: &mut varint::Reader<'_>| {
                let len = reader.bounded("", body.len()).ok()?;
                reader.bytes(len).ok().map(|bytes| body.slice_ref(bytes))
            };
            row.entries.push(StatEntry {
                name: bytes(&mut reader)?,
                kind: FileKind::try_from(reader.byte().ok()?).ok()?,
                inode: reader.number().ok()?,
                size: reader.number().ok()?,
                mtime: read_time(&mut reader)?,
                ctime: read_time(&mut reader)?,
                entry: bytes(&mut reader)?,
            });
        }
        Some(row)
    }
}

pub(super) fn checksum(key: &[u8; 32], row_key: &[u8], body: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&(row_key.len() as u64).to_le_bytes()).update(row_key).update(body);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

fn row_key(folder: &FolderKey, first: &[u8]) -> Vec<u8> {
    [folder.as_bytes().as_slice(), first].concat()
}

/// Changes to the rows of one folder.
#[derive(Debug, Clone)]
pub struct FolderRows {
    /// The folder.
    pub folder: FolderKey,
    /// Its identity (a hash of source, device and inode), if it should be found again after it is renamed.
    pub identity: Option<[u8; 16]>,
    /// Rows to write.
    pub rows: Vec<StatRow>,
    /// First names of rows to delete.
    pub stale: Vec<Vec<u8>>,
}

impl FolderRows {
    /// No changes to the rows of this folder.
    pub const fn new(folder: FolderKey) -> Self {
        Self { folder, identity: None, rows: Vec::new(), stale: Vec::new() }
    }

    /// Approximate memory use, in bytes.
    pub fn weight(&self) -> usize {
        let entries = self.rows.iter().flat_map(|row| &row.entries);
        64 + entries.map(|entry| entry.name.len() + entry.entry.len() + size_of::<StatEntry>() + 32).sum::<usize>()
    }
}

impl Catalogue {
    /// Starts a session that will write rows; returns its number.
    ///
    /// # Errors
    /// If the database fails.
    pub fn begin_session(&self) -> Result<u64, CatalogueError> {
        let txn = self.write()?;
        let session = next_number(&txn, "next_session")?;
        txn.commit()?;
        Ok(session)
    }

    /// Writes rows, within a transaction.
    pub(crate) fn insert_rows(
        &self,
        txn: &WriteTransaction,
        mut folders: Vec<FolderRows>,
    ) -> Result<(), CatalogueError> {
        folders.sort_by_key(|rows| rows.folder);
        let mut stat = txn.open_table(STAT)?;
        let mut identities = txn.open_table(FOLDERS)?;
        for folder in folders {
            for first in &folder.stale {
                stat.remove(row_key(&folder.folder, first).as_slice())?;
            }
            for row in &folder.rows {
                let Some(first) = row.entries.first() else { continue };
                let key = row_key(&folder.folder, &first.name);
                stat.insert(key.as_slice(), row.encode(&self.key, &key).as_slice())?;
            }
            if let Some(identity) = folder.identity {
                identities.insert(&identity, folder.folder.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Marks a session as ended with a snapshot: its rows are trusted from now on, unless packs were lost since the epoch in which it
    /// looked up its chunks.
    pub(crate) fn end_session(txn: &WriteTransaction, session: u64, epoch: u64) -> Result<(), CatalogueError> {
        let mut numbers = txn.open_table(NUMBERS)?;
        numbers.remove(DOUBTED)?;
        let now = numbers.get("epoch")?.map_or(0, |value| value.value());
        let mut sessions = txn.open_table(SESSIONS)?;
        sessions.retain(|_, ended| ended == now)?;
        if epoch == now {
            sessions.insert(session, epoch)?;
        }
        Ok(())
    }
}

impl Reader {
    /// The sessions whose rows are trusted without looking up their chunks.
    ///
    /// # Errors
    /// If the database fails.
    pub fn trusted_sessions(&self) -> Result<BTreeSet<u64>, CatalogueError> {
        let mut trusted = BTreeSet::new();
        for row in self.stat.sessions.iter()? {
            let (session, epoch) = row?;
            if epoch.value() == self.epoch() {
                trusted.insert(session.value());
            }
        }
        Ok(trusted)
    }

    /// The key that a folder with this identity was stored under.
    ///
    /// # Errors
    /// If the database fails.
    pub fn folder_of(&self, identity: &[u8; 16]) -> Result<Option<FolderKey>, CatalogueError> {
        Ok(self.stat.folders.get(identity)?.map(|folder| FolderKey::new(*folder.value())))
    }

    /// Whether a folder has rows.
    ///
    /// # Errors
    /// If the database fails.
    pub fn has_rows(&self, folder: &FolderKey) -> Result<bool, CatalogueError> {
        let (low, high) = (row_key(folder, b""), row_key(folder, &[0xff; 2]));
        Ok(self.stat.stat.range(low.as_slice()..=high.as_slice())?.next().transpose()?.is_some())
    }

    /// The rows of a folder that may have entries from `first` to `last` (names, both included), in order, each with the name it is
    /// stored under. Damaged rows are skipped: their files are read again.
    ///
    /// # Errors
    /// If the database fails.
    pub fn rows(
        &self,
        folder: &FolderKey,
        first: &[u8],
        last: &[u8],
    ) -> Result<Vec<(Vec<u8>, StatRow)>, CatalogueError> {
        let (low, high) = (row_key(folder, b""), row_key(folder, last));
        let from = row_key(folder, first);
        let mut rows = Vec::new();
        // The page with `first` begins at or before it.
        let before = self.stat.stat.range(low.as_slice()..=from.as_slice())?.next_back().transpose()?;
        let start = before.as_ref().map_or_else(|| from.clone(), |(key, _)| key.value().to_vec());
        drop(before);
        for row in self.stat.stat.range(start.as_slice()..=high.as_slice())? {
            let (key, bytes) = row?;
            let name = key.value().get(low.len()..).unwrap_or_default().to_vec();
            rows.extend(StatRow::decode(&self.key, key.value(), bytes.value()).map(|row| (name, row)));
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_no_flipped_bit_is_believed() {
        let entry = StatEntry {
            name: Bytes::from_static(b"name"),
            kind: FileKind::File,
            inode: 77,
            size: 1 << 40,
            mtime: Time { secs: -5, nanos: 7 },
            ctime: Time { secs: 1 << 40, nanos: 999_999_999 },
            entry: Bytes::from_static(&[1, 2, 3]),
        };
        let row = StatRow { session: 9, entries: vec![entry] };
        let bytes = row.encode(&[1; 32], b"key");
        assert_eq!(StatRow::decode(&[1; 32], b"key", &bytes), Some(row));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StatRow::decode(&[1; 32], b"key", &bad), None);
        }
        assert_eq!(StatRow::decode(&[1; 32], b"kez", &bytes), None, "a row moved to another key is not trusted");
    }
}
