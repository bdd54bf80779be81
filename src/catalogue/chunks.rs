//! The places of chunks.
//!
//! Ids are random: if places were rows of one table, nearly every chunk entered would read and write another page. So places are kept in
//! *runs*, as in a log-structured merge-tree (O'Neil et al. 1996). A run is a table of its own, sorted by id; places entered together
//! become one run, merged with runs that are not much longer. It is divided into buckets: equal parts of the range of ids, each with a
//! few hundred places, so that the bucket of an id is known without a search. A chunk that is stored in several packs has a place for
//! each. Ids are divided into parts by their first bits, and each part has its own runs, so that several threads can read them at the
//! same time (redb takes longer to write from several).

use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::catalogue::stat::checksum;
use crate::catalogue::{Catalogue, CatalogueError, Reader, next_number};
use crate::id::ChunkId;
use crate::sync::{lock, share};

/// Number of a run → its length (8 bytes), its number of buckets (4), its part (1), and a keyed checksum of these (16).
const RUNS: TableDefinition<u32, &[u8]> = TableDefinition::new("runs");

/// An id and a place, in bytes.
const ROW_LEN: usize = 32;
/// Average number of places in a bucket: nearly all buckets then fit in a page of 16 KiB. Smaller buckets are found faster where the
/// pages are not in memory, but the system's cost for each page written or read in order is as high as for its bytes.
const BUCKET_LEN: u64 = 440;
/// New places are merged with a run that is less than this many times as long. So each place is written about once for each doubling, and
/// there are few runs to search.
const FACTOR: u64 = 2;
/// Shorter runs are treated as if they had this many places.
const SHORT: u64 = 1 << 9;
/// Number of bits of an id that determine its part.
const PART_BITS: u32 = 3;
/// Number of parts of the range of ids.
const PARTS: usize = 1 << PART_BITS;
/// Number of places below which more threads cost more time than they save.
const SHARED_FROM: u64 = 1 << 16;
/// Number of buckets to read at a time when changing them.
const BUCKETS_AT_ONCE: u32 = 1024;

/// The place of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkPlace {
    /// Number of the pack in this catalogue.
    pub pack: u32,
    /// Number of the segment in the pack.
    pub segment: u32,
    /// Offset of the chunk in the opened segment, in bytes.
    pub offset: u32,
    /// Its length, in bytes.
    pub len: u32,
}

impl ChunkPlace {
    /// The segment that it lies in.
    pub const fn segment_ref(&self) -> SegmentRef {
        SegmentRef { pack: self.pack, segment: self.segment }
    }
}

/// A segment of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentRef {
    /// Number of the pack in this catalogue.
    pub pack: u32,
    /// Number of the segment in the pack.
    pub segment: u32,
}

/// A chunk's id and a place of it.
type Row = (ChunkId, ChunkPlace);

/// Places to enter, by part.
pub(super) struct Places(Vec<Vec<Row>>);

impl Places {
    /// With room for about this many.
    pub(super) fn new(count: usize) -> Self {
        // By chance some parts get more than others.
        let room = count.div_ceil(PARTS) + (count as u64).isqrt() as usize;
        Self((0..PARTS).map(|_| Vec::with_capacity(room)).collect())
    }

    pub(super) fn push(&mut self, id: ChunkId, place: ChunkPlace) {
        self.0[part_of(&id)].push((id, place));
    }

    /// The places of each part, in order.
    fn sorted(self) -> Vec<Vec<Row>> {
        let threads = threads(self.0.iter().map(|part| part.len() as u64).sum());
        let parts: Vec<Mutex<Vec<Row>>> = self.0.into_iter().map(Mutex::new).collect();
        share(parts.len(), threads, |at| {
            let mut part = std::mem::take(&mut *lock(&parts[at]));
            part.sort_unstable();
            part
        })
    }
}

fn encode(out: &mut Vec<u8>, (id, place): &Row) {
    out.extend_from_slice(id.as_bytes());
    for value in [place.pack, place.segment, place.offset, place.len] {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn decode(row: &[u8; ROW_LEN]) -> Row {
    let mut id = [0; 16];
    id.copy_from_slice(&row[..16]);
    let field = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    (ChunkId::new(id), ChunkPlace { pack: field(16), segment: field(20), offset: field(24), len: field(28) })
}

/// The rows of a bucket.
fn rows(bucket: &[u8]) -> &[[u8; ROW_LEN]] {
    bucket.as_chunks().0
}

/// The places of a chunk in its bucket.
fn places_in<'b>(bucket: &'b [u8], id: &'b ChunkId) -> impl Iterator<Item = ChunkPlace> + 'b {
    let rows = rows(bucket);
    let first = rows.partition_point(|row| row[..16] < id.as_bytes()[..]);
    rows[first..].iter().take_while(|row| row[..16] == id.as_bytes()[..]).map(|row| decode(row).1)
}

/// The first 64 bits of an id.
fn first_bits(id: &ChunkId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.as_bytes()[..8]);
    u64::from_be_bytes(bytes)
}

/// The part of an id.
fn part_of(id: &ChunkId) -> usize {
    (first_bits(id) >> (64 - PART_BITS)) as usize
}

/// Number of threads for work on this many places.
fn threads(places: u64) -> usize {
    if places < SHARED_FROM { 1 } else { rayon::current_num_threads() }
}

/// A run. Its table: number of a bucket → the places in it, in order, each preceded by its id.
#[derive(Debug, Clone, Copy)]
struct Run {
    number: u32,
    /// Number of places.
    len: u64,
    buckets: u32,
    part: u8,
}

impl Run {
    fn with<R>(self, use_table: impl FnOnce(TableDefinition<'_, u32, &'static [u8]>) -> R) -> R {
        use_table(TableDefinition::new(&format!("run {}", self.number)))
    }

    /// The bucket of an id.
    fn bucket(self, id: &ChunkId) -> u32 {
        let in_part = first_bits(id) << PART_BITS >> 32;
        ((in_part * u64::from(self.buckets)) >> 32) as u32
    }

    fn row(self, key: &[u8; 32]) -> [u8; 29] {
        let mut row = [0; 29];
        row[..8].copy_from_slice(&self.len.to_le_bytes());
        row[8..12].copy_from_slice(&self.buckets.to_le_bytes());
        row[12] = self.part;
        let sum = checksum(key, &self.number.to_le_bytes(), &row[..13]);
        row[13..].copy_from_slice(&sum);
        row
    }

    fn from_row(key: &[u8; 32], number: u32, row: &[u8]) -> Option<Self> {
        let (len, rest) = row.split_first_chunk()?;
        let (buckets, rest) = rest.split_first_chunk()?;
        let (len, buckets) = (u64::from_le_bytes(*len), u32::from_le_bytes(*buckets));
        let run = Self { number, len, buckets, part: *rest.first()? };
        (run.row(key) == row && usize::from(run.part) < PARTS).then_some(run)
    }

    /// All runs, the longest first, as most chunks are in it.
    fn all(table: &impl ReadableTable<u32, &'static [u8]>, key: &[u8; 32]) -> Result<Vec<Self>, CatalogueError> {
        let mut runs = Vec::new();
        for row in table.iter()? {
            let (number, row) = row?;
            let malformed = || CatalogueError::Database("a row of the table of runs is malformed".to_owned());
            runs.push(Self::from_row(key, number.value(), row.value()).ok_or_else(malformed)?);
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.len));
        Ok(runs)
    }
}

/// Creates the table.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    txn.open_table(RUNS)?;
    Ok(())
}

/// The runs of a part, the longest first, with their tables.
type PartTables = Vec<(Run, ReadOnlyTable<u32, &'static [u8]>)>;

/// The tables of a reader, by part.
pub(super) struct Tables([PartTables; PARTS]);

impl Tables {
    pub(super) fn open(txn: &ReadTransaction, key: &[u8; 32]) -> Result<Self, CatalogueError> {
        let mut parts = Self(std::array::from_fn(|_| Vec::new()));
        for run in Run::all(&txn.open_table(RUNS)?, key)? {
            let table = run.with(|table| txn.open_table(table))?;
            parts.0[usize::from(run.part)].push((run, table));
        }
        Ok(parts)
    }

    /// The runs in which an id may be.
    fn of(&self, id: &ChunkId) -> &PartTables {
        &self.0[part_of(id)]
    }

    fn runs(&self) -> impl Iterator<Item = &(Run, ReadOnlyTable<u32, &'static [u8]>)> {
        self.0.iter().flatten()
    }
}

/// The rows of a run, in order.
struct Cursor<'t> {
    buckets: redb::Range<'t, u32, &'static [u8]>,
    bucket: Vec<u8>,
    /// Number of rows of the bucket before the current one.
    at: usize,
    /// The id of the current row.
    id: u128,
}

impl<'t> Cursor<'t> {
    /// A cursor at the first row, if there is one.
    fn new(buckets: redb::Range<'t, u32, &'static [u8]>) -> Result<Option<Self>, CatalogueError> {
        let mut cursor = Self { buckets, bucket: Vec::new(), at: 0, id: 0 };
        Ok(cursor.settle()?.then_some(cursor))
    }

    fn row(&self) -> Row {
        decode(&rows(&self.bucket)[self.at])
    }

    /// Moves to the next row. Returns whether there is one.
    fn advance(&mut self) -> Result<bool, CatalogueError> {
        self.at += 1;
        self.settle()
    }

    fn settle(&mut self) -> Result<bool, CatalogueError> {
        loop {
            if let Some(row) = rows(&self.bucket).get(self.at) {
                let mut id = [0; 16];
                id.copy_from_slice(&row[..16]);
                self.id = u128::from_be_bytes(id);
                return Ok(true);
            }
            let Some(bucket) = self.buckets.next().transpose()? else { return Ok(false) };
            self.bucket.clear();
            self.bucket.extend_from_slice(bucket.1.value());
            self.at = 0;
        }
    }
}

/// The rows of several runs, in order.
struct Merged<'t>(Vec<Cursor<'t>>);

impl<'t> Merged<'t> {
    fn new(
        runs: impl Iterator<Item = Result<redb::Range<'t, u32, &'static [u8]>, redb::StorageError>>,
    ) -> Result<Self, CatalogueError> {
        let mut cursors = Vec::new();
        for buckets in runs {
            cursors.extend(Cursor::new(buckets?)?);
        }
        Ok(Self(cursors))
    }

    fn next(&mut self) -> Result<Option<Row>, CatalogueError> {
        let mut first = 0;
        for index in 1..self.0.len() {
            let (cursor, least) = (&self.0[index], &self.0[first]);
            if cursor.id < least.id || (cursor.id == least.id && cursor.row() < least.row()) {
                first = index;
            }
        }
        let Some(cursor) = self.0.get_mut(first) else { return Ok(None) };
        let row = cursor.row();
        if !cursor.advance()? {
            self.0.swap_remove(first);
        }
        Ok(Some(row))
    }
}

/// Writes a run, row by row.
struct Writer<'t> {
    run: Run,
    /// At the end of its table: entries added in order there need no search.
    end: redb::CursorMut<'t, u32, &'static [u8]>,
    bucket: u32,
    bytes: Vec<u8>,
    last: Option<Row>,
    doubt: &'t AtomicBool,
}

impl Writer<'_> {
    fn put(&mut self, row: Row) -> Result<(), CatalogueError> {
        if self.last.is_some_and(|last| row < last) {
            self.doubt.store(true, Relaxed);
            return Err(CatalogueError::Database("the places of chunks are not in order".to_owned()));
        }
        let bucket = self.run.bucket(&row.0);
        if bucket != self.bucket {
            self.flush()?;
            self.bucket = bucket;
        }
        encode(&mut self.bytes, &row);
        self.last = Some(row);
        self.run.len += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CatalogueError> {
        if !self.bytes.is_empty() {
            self.end.insert_before(self.bucket, self.bytes.as_slice())?;
            self.bytes.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Run, CatalogueError> {
        self.flush()?;
        self.end.close()?;
        Ok(self.run)
    }
}

/// The parts of a new run: these runs, and these places. `len` is the number of places in all of them.
struct Merge<'r> {
    part: u8,
    len: u64,
    old: Vec<Run>,
    new: &'r [Row],
}

impl Catalogue {
    fn runs(&self, txn: &WriteTransaction) -> Result<Vec<Run>, CatalogueError> {
        Run::all(&txn.open_table(RUNS)?, &self.key)
    }

    /// Enters places.
    pub(super) fn insert_places(&self, txn: &WriteTransaction, new: Places) -> Result<(), CatalogueError> {
        let runs = self.runs(txn)?;
        for (part, rows) in (0..).zip(new.sorted()).filter(|(_, rows)| !rows.is_empty()) {
            let mut len = rows.len() as u64;
            let mut old = Vec::new();
            for run in runs.iter().rev().filter(|run| run.part == part) {
                if run.len >= FACTOR * len.max(SHORT) {
                    break;
                }
                len += run.len;
                old.push(*run);
            }
            self.merge(txn, &Merge { part, len, old, new: &rows })?;
        }
        Ok(())
    }

    /// Writes a run of all these places, in place of the old runs.
    fn merge(&self, txn: &WriteTransaction, merge: &Merge<'_>) -> Result<(), CatalogueError> {
        let number = next_number(txn, "next_run")? as u32;
        let buckets = u32::try_from(merge.len.div_ceil(BUCKET_LEN)).unwrap_or(u32::MAX);
        let run = Run { number, len: 0, buckets, part: merge.part };
        {
            let mut table = run.with(|table| txn.open_table(table))?;
            let end = table.upper_bound_mut(Bound::<u32>::Unbounded)?;
            let mut writer = Writer { run, end, bucket: 0, bytes: Vec::new(), last: None, doubt: &self.mark.doubt };
            let tables = merge.old.iter().map(|run| run.with(|table| txn.open_table(table)));
            let tables = tables.collect::<Result<Vec<_>, _>>()?;
            let mut rows = Merged::new(tables.iter().map(ReadableTable::iter))?;
            let mut new = merge.new.iter().copied().peekable();
            while let Some(row) = rows.next()? {
                while let Some(before) = new.next_if(|new| *new < row) {
                    writer.put(before)?;
                }
                writer.put(row)?;
            }
            new.try_for_each(|row| writer.put(row))?;
            let run = writer.finish()?;
            txn.open_table(RUNS)?.insert(number, run.row(&self.key).as_slice())?;
        }
        merge.old.iter().try_for_each(|run| Self::delete_run(txn, *run))
    }

    fn delete_run(txn: &WriteTransaction, run: Run) -> Result<(), CatalogueError> {
        run.with(|table| txn.delete_table(table))?;
        txn.open_table(RUNS)?.remove(run.number)?;
        Ok(())
    }

    /// Removes all places in these packs.
    pub(super) fn remove_places(&self, txn: &WriteTransaction, gone: &BTreeSet<u32>) -> Result<(), CatalogueError> {
        for run in self.runs(txn)? {
            let before = run.len;
            let run = Run { len: run.with(|table| keep_in(&mut txn.open_table(table)?, run.buckets, gone))?, ..run };
            if run.len == 0 {
                Self::delete_run(txn, run)?;
            } else if run.len.div_ceil(BUCKET_LEN) * 2 < u64::from(run.buckets) {
                self.merge(txn, &Merge { part: run.part, len: run.len, old: vec![run], new: &[] })?;
            } else if run.len != before {
                txn.open_table(RUNS)?.insert(run.number, run.row(&self.key).as_slice())?;
            }
        }
        Ok(())
    }

    /// Removes all places.
    pub(super) fn clear_places(&self, txn: &WriteTransaction) -> Result<(), CatalogueError> {
        self.runs(txn)?.into_iter().try_for_each(|run| Self::delete_run(txn, run))
    }
}

/// Removes the places in packs of `gone`. Returns the number of those left.
fn keep_in(
    table: &mut redb::Table<'_, u32, &'static [u8]>,
    buckets: u32,
    gone: &BTreeSet<u32>,
) -> Result<u64, CatalogueError> {
    let mut len = 0;
    for start in (0..buckets).step_by(BUCKETS_AT_ONCE as usize) {
        let mut changed = Vec::new();
        for bucket in table.range(start..start.saturating_add(BUCKETS_AT_ONCE))? {
            let (number, bytes) = bucket?;
            let rows = rows(bytes.value());
            let stays = |row: &&[u8; ROW_LEN]| !gone.contains(&decode(row).1.pack);
            let kept = rows.iter().filter(stays).count();
            len += kept as u64;
            if kept < rows.len() {
                changed.push((number.value(), rows.iter().filter(stays).copied().collect::<Vec<_>>()));
            }
        }
        for (number, kept) in changed {
            if kept.is_empty() {
                table.remove(number)?;
            } else {
                table.insert(number, kept.as_flattened())?;
            }
        }
    }
    Ok(len)
}

/// A part of the chunks of a view, by the range of their ids.
pub struct Part<'r> {
    runs: &'r PartTables,
    number: usize,
    first_rank: usize,
}

impl Part<'_> {
    fn merged(&self) -> Result<Merged<'_>, CatalogueError> {
        Merged::new(self.runs.iter().map(|(_, table)| table.iter()))
    }

    /// The range of these items, sorted by id, that belong to this part.
    pub fn range<T>(&self, items: &[T], id: impl Fn(&T) -> &ChunkId) -> Range<usize> {
        let end = |number| items.partition_point(|item| part_of(id(item)) < number);
        end(self.number)..end(self.number + 1)
    }

    /// Calls `found` with the rank and the id of every chunk, in order, until it returns `false`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_id(&self, mut found: impl FnMut(usize, ChunkId) -> bool) -> Result<(), CatalogueError> {
        let mut rows = self.merged()?;
        let (mut last, mut rank) = (None, self.first_rank);
        while let Some((id, _)) = rows.next()? {
            if last.replace(id) == Some(id) {
                continue;
            }
            if !found(rank, id) {
                break;
            }
            rank += 1;
        }
        Ok(())
    }

    /// Calls `found` with the rank and the id of every chunk and all its places, in the order of the ids, until it returns `false`.
    /// Returns whether it never did.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_place(
        &self,
        mut found: impl FnMut(usize, ChunkId, &[ChunkPlace]) -> bool,
    ) -> Result<bool, CatalogueError> {
        let mut rows = self.merged()?;
        let (mut places, mut rank) = (Vec::new(), self.first_rank);
        let mut row = rows.next()?;
        while let Some((id, place)) = row {
            places.clear();
            places.push(place);
            row = rows.next()?;
            while let Some((_, place)) = row.filter(|(other, _)| *other == id) {
                places.push(place);
                row = rows.next()?;
            }
            if !found(rank, id, &places) {
                return Ok(false);
            }
            rank += 1;
        }
        Ok(true)
    }
}

impl Reader {
    /// A place of a chunk, if it is stored.
    ///
    /// # Errors
    /// If the database fails.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<ChunkPlace>, CatalogueError> {
        for (run, table) in self.chunks.of(id) {
            if let Some(bucket) = table.get(run.bucket(id))?
                && let Some(place) = places_in(bucket.value(), id).next()
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Every place of a chunk; that of [`Self::locate`] comes first.
    ///
    /// # Errors
    /// If the database fails.
    pub fn locate_all(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, CatalogueError> {
        let mut places = Vec::new();
        for (run, table) in self.chunks.of(id) {
            if let Some(bucket) = table.get(run.bucket(id))? {
                places.extend(places_in(bucket.value(), id));
            }
        }
        Ok(places)
    }

    /// The number of places, which is at least the number of different chunks. The *rank* of a chunk is less than this; it increases with
    /// the id, and one view always gives the same rank.
    #[must_use]
    pub fn place_count(&self) -> u64 {
        self.chunks.runs().map(|(run, _)| run.len).sum()
    }

    /// Does some work for each part, with several threads if there are many chunks. These threads take up no other work meanwhile, so it
    /// may be called while a lock is held.
    ///
    /// # Errors
    /// The first error of the work.
    pub fn in_parts<T: Send, E: Send>(&self, work: impl Fn(&Part<'_>) -> Result<T, E> + Sync) -> Result<Vec<T>, E> {
        let parts: Vec<Part<'_>> = self.parts().collect();
        share(parts.len(), threads(self.place_count()), |at| work(&parts[at])).into_iter().collect()
    }

    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.chunks.0.iter().enumerate().scan(0, |places, (number, runs)| {
            let first_rank = *places;
            *places += runs.iter().map(|(run, _)| run.len as usize).sum::<usize>();
            Some(Part { runs, number, first_rank })
        })
    }

    /// Calls `found` with every place of every chunk, in no particular order.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_chunk(&self, mut found: impl FnMut(ChunkId, ChunkPlace)) -> Result<(), CatalogueError> {
        for (_, table) in self.chunks.runs() {
            for bucket in table.iter()? {
                for row in rows(bucket?.1.value()) {
                    let (id, place) = decode(row);
                    found(id, place);
                }
            }
        }
        Ok(())
    }

    /// Calls `found` with the rank and the id of every chunk and all its places, in the order of the ids, until it returns `false`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_place(
        &self,
        mut found: impl FnMut(usize, ChunkId, &[ChunkPlace]) -> bool,
    ) -> Result<(), CatalogueError> {
        for part in self.parts() {
            if !part.for_each_place(&mut found)? {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalogue::packs::NewPack;
    use crate::catalogue::{Filter, NUMBERS};
    use crate::id::ObjectName;
    use crate::pack::Footer;
    use crate::pack::footer::SegmentEntry;
    use crate::seal::{Method, ObjectKind};

    /// The places of all chunks of these packs.
    fn expected(packs: &BTreeMap<u32, Vec<ChunkId>>) -> BTreeMap<ChunkId, Vec<ChunkPlace>> {
        let mut places: BTreeMap<ChunkId, Vec<ChunkPlace>> = BTreeMap::new();
        for (pack, ids) in packs {
            for (index, id) in (0..).zip(ids) {
                let place = ChunkPlace { pack: *pack, segment: index / 3, offset: index % 3 * 10, len: 10 };
                places.entry(*id).or_default().push(place);
            }
        }
        places
    }

    fn places<const COUNT: usize>(rows: [Row; COUNT]) -> Places {
        let mut places = Places::new(COUNT);
        rows.into_iter().for_each(|(id, place)| places.push(id, place));
        places
    }

    fn id(number: u32) -> ChunkId {
        let mut id = [0; 16];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut id);
        ChunkId::new(id)
    }

    #[test]
    fn chunks_are_found_whichever_runs_they_are_in() {
        let folder = tempfile::tempdir().unwrap();
        let (catalogue, _) = Catalogue::open(&folder.path().join("catalogue.redb"), [0; 32]).unwrap();
        let mut noise = blake3::Hasher::new().update(b"chunks").finalize_xof();
        let mut roll = |bound: u32| {
            let mut bytes = [0; 4];
            noise.fill(&mut bytes);
            u32::from_le_bytes(bytes) % bound
        };
        let (mut packs, mut names) = (BTreeMap::new(), BTreeMap::new());
        let mut most_runs = 0;
        for round in 0..60_u8 {
            let txn = catalogue.write().unwrap();
            if roll(4) == 0 && round > 10 {
                let count = 1 + roll(3) as usize;
                let gone: Vec<u32> = names.keys().copied().filter(|_| roll(3) == 0).take(count).collect();
                let gone: Vec<ObjectName> =
                    gone.iter().filter_map(|number| packs.remove(number).and(names.remove(number))).collect();
                catalogue.remove_packs(&txn, &gone).unwrap();
            } else {
                let most = [10, 100, 1000, 20_000][if round == 0 { 3 } else { roll(4) as usize }];
                let ids: BTreeSet<u32> = (0..most / 2 + roll(most)).map(|_| roll(60_000)).collect();
                let ids: Vec<ChunkId> = ids.into_iter().map(id).collect();
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
                catalogue.insert_packs(&txn, &[pack]).unwrap();
                packs.insert(number as u32, ids);
                names.insert(number as u32, name);
            }
            txn.commit().unwrap();
            let expected = expected(&packs);
            let reader = catalogue.reader().unwrap();
            most_runs = most_runs.max(reader.chunks.0[0].len());
            assert_eq!(reader.place_count(), expected.values().map(|places| places.len() as u64).sum::<u64>());
            for number in 0..2000 {
                let id = id(number * 31);
                let places = expected.get(&id).cloned().unwrap_or_default();
                let mut all = reader.locate_all(&id).unwrap();
                assert_eq!(reader.locate(&id).unwrap().as_ref(), all.first());
                all.sort_unstable();
                assert_eq!(all, places);
            }
            if round % 6 != 5 {
                continue;
            }
            let (mut found, mut ids, mut each) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
            let mut ranks = Vec::new();
            let mut list = |rank, id, places: &[ChunkPlace]| {
                ranks.push(rank);
                found.insert(id, places.to_vec()).is_none()
            };
            reader.for_each_place(&mut list).unwrap();
            assert_eq!(found, expected, "round {round}");
            assert!(ranks.is_sorted_by(|a, b| a < b) && ranks.iter().all(|rank| *rank < reader.place_count() as usize));
            let wanted: Vec<ChunkId> = expected.keys().step_by(3).copied().collect();
            let parts = reader.in_parts(|part| {
                let (mut found, mut of_part) = (Vec::new(), wanted[part.range(&wanted, |id| id)].iter().peekable());
                part.for_each_id(|rank, id| {
                    assert!(of_part.next_if(|wanted| **wanted <= id).is_none_or(|wanted| *wanted == id));
                    found.push((rank, id));
                    true
                })?;
                assert!(of_part.next().is_none());
                Ok::<_, CatalogueError>(found)
            });
            for (rank, id) in parts.unwrap().into_iter().flatten() {
                assert_eq!(rank, ranks[ids.len()]);
                ids.push(id);
            }
            assert!(ids.iter().eq(expected.keys()), "round {round}");
            reader.for_each_chunk(|id, place| each.entry(id).or_insert_with(Vec::new).push(place)).unwrap();
            each.values_mut().for_each(|places| places.sort_unstable());
            assert_eq!(each, expected, "round {round}");
            let filter = Filter::new(&reader).unwrap();
            assert!(ids.iter().all(|id| filter.may_contain(id)));
            let wrong = (100_000..110_000).filter(|number| filter.may_contain(&id(*number))).count();
            assert!(wrong < 300, "{wrong} of 10,000 absent ids");
        }
        assert!(most_runs > 1);
    }

    #[test]
    fn a_run_whose_row_is_damaged_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (catalogue, _) = Catalogue::open(&folder.path().join("catalogue.redb"), [0; 32]).unwrap();
        let txn = catalogue.write().unwrap();
        let place = ChunkPlace { pack: 1, segment: 0, offset: 0, len: 10 };
        catalogue.insert_places(&txn, places([(id(1), place)])).unwrap();
        txn.commit().unwrap();
        assert_eq!(catalogue.reader().unwrap().locate(&id(1)).unwrap(), Some(place));
        let txn = catalogue.write().unwrap();
        {
            let mut runs = txn.open_table(RUNS).unwrap();
            let (number, mut row) = runs.first().unwrap().map(|row| (row.0.value(), row.1.value().to_vec())).unwrap();
            row[9] ^= 1;
            runs.insert(number, row.as_slice()).unwrap();
        }
        txn.commit().unwrap();
        assert!(matches!(catalogue.reader(), Err(CatalogueError::Database(_))));
        drop(catalogue);
        let (_, is_new) = Catalogue::open(&folder.path().join("catalogue.redb"), [0; 32]).unwrap();
        assert!(is_new);
    }

    #[test]
    fn a_catalogue_whose_places_are_not_in_order_is_built_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalogue.redb");
        let (catalogue, _) = Catalogue::open(&path, [0; 32]).unwrap();
        let row = |number: u8| (ChunkId::new([number; 16]), ChunkPlace { pack: 1, segment: 0, offset: 0, len: 10 });
        let txn = catalogue.write().unwrap();
        catalogue.insert_places(&txn, places([row(1), row(2)])).unwrap();
        let run = Run::all(&txn.open_table(RUNS).unwrap(), &[0; 32]).unwrap()[0];
        let mut bucket = Vec::new();
        [row(2), row(1)].iter().for_each(|row| encode(&mut bucket, row));
        run.with(|table| txn.open_table(table).unwrap().insert(0, bucket.as_slice()).map(drop)).unwrap();
        txn.commit().unwrap();
        let txn = catalogue.write().unwrap();
        assert!(matches!(catalogue.insert_places(&txn, places([row(3)])), Err(CatalogueError::Database(_))));
        txn.abort().unwrap();
        drop(catalogue);
        let (_, is_new) = Catalogue::open(&path, [0; 32]).unwrap();
        assert!(is_new);
    }
}
