//! Where each chunk lies.
//!
//! Ids are random: as rows of one table, nearly every chunk that is entered would have a page read and written of its own. So
//! places are kept in *runs*, as in a log-structured merge-tree (O'Neil et al. 1996). A run is a table of its own, sorted by
//! id; what is entered together becomes one, merged with those that are not much longer. It is cut into buckets: equal parts of
//! the range of ids, as many as make about a hundred places each, so that the bucket of an id is known without searching. A chunk
//! that is stored in several packs has a place for each.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::catalogue::stat::checksum;
use crate::catalogue::{Catalogue, CatalogueError, Reader, next_number};
use crate::id::ChunkId;

/// Number of a run → its length (8 bytes), its number of buckets (4), and a keyed checksum of both (16).
const RUNS: TableDefinition<u32, &[u8]> = TableDefinition::new("runs");

/// An id and a place, in bytes.
const ROW_LEN: usize = 32;
/// So many places are in a bucket, on average: nearly all buckets then fit into a page of 4 KiB.
const BUCKET_LEN: u64 = 100;
/// What comes together is merged with a run that is shorter than so many times as long. So each place is written about
/// once for each doubling, and there are few runs to look into.
const FACTOR: u64 = 2;
/// What is shorter is treated as if it had so many places.
const SHORT: u64 = 1 << 12;
/// So many buckets are gone through at a time where they are changed.
const BUCKETS_AT_ONCE: u32 = 1024;

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

/// A place, with the chunk that is there.
pub(super) type Row = (ChunkId, ChunkPlace);

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

/// A run. Its table: number of a bucket → the places there, in order, each with its id in front.
#[derive(Debug, Clone, Copy)]
struct Run {
    number: u32,
    /// How many places are in it.
    len: u64,
    buckets: u32,
}

impl Run {
    fn with<R>(self, use_table: impl FnOnce(TableDefinition<'_, u32, &'static [u8]>) -> R) -> R {
        use_table(TableDefinition::new(&format!("run {}", self.number)))
    }

    /// The bucket of an id.
    fn bucket(self, id: &ChunkId) -> u32 {
        let [a, b, c, d, ..] = *id.as_bytes();
        ((u64::from(u32::from_be_bytes([a, b, c, d])) * u64::from(self.buckets)) >> 32) as u32
    }

    fn row(self, key: &[u8; 32]) -> [u8; 28] {
        let mut row = [0; 28];
        row[..8].copy_from_slice(&self.len.to_le_bytes());
        row[8..12].copy_from_slice(&self.buckets.to_le_bytes());
        let sum = checksum(key, &self.number.to_le_bytes(), &row[..12]);
        row[12..].copy_from_slice(&sum);
        row
    }

    fn from_row(key: &[u8; 32], number: u32, row: &[u8]) -> Option<Self> {
        let (len, rest) = row.split_first_chunk()?;
        let run = Self { number, len: u64::from_le_bytes(*len), buckets: u32::from_le_bytes(*rest.first_chunk()?) };
        (run.row(key) == row).then_some(run)
    }

    /// All runs, the longest first: most chunks are there.
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

/// The tables of a reader.
pub(super) struct Tables(Vec<(Run, ReadOnlyTable<u32, &'static [u8]>)>);

impl Tables {
    pub(super) fn open(txn: &ReadTransaction, key: &[u8; 32]) -> Result<Self, CatalogueError> {
        let runs = Run::all(&txn.open_table(RUNS)?, key)?.into_iter();
        Ok(Self(
            runs.map(|run| Ok((run, run.with(|table| txn.open_table(table))?)))
                .collect::<Result<_, CatalogueError>>()?,
        ))
    }

    fn merged(&self) -> Result<Merged<'_>, CatalogueError> {
        Merged::new(self.0.iter().map(|(_, table)| table.iter()))
    }
}

/// The rows of a run.
struct Cursor<'t> {
    buckets: redb::Range<'t, u32, &'static [u8]>,
    bucket: Vec<u8>,
    at: usize,
    next: Option<Row>,
}

impl Cursor<'_> {
    fn advance(&mut self) -> Result<(), CatalogueError> {
        loop {
            if let Some(row) = rows(&self.bucket).get(self.at) {
                self.at += 1;
                self.next = Some(decode(row));
                return Ok(());
            }
            self.bucket.clear();
            self.at = 0;
            let Some(bucket) = self.buckets.next().transpose()? else {
                self.next = None;
                return Ok(());
            };
            self.bucket.extend_from_slice(bucket.1.value());
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
            let mut cursor = Cursor { buckets: buckets?, bucket: Vec::new(), at: 0, next: None };
            cursor.advance()?;
            cursors.push(cursor);
        }
        Ok(Self(cursors))
    }

    fn next(&mut self) -> Result<Option<Row>, CatalogueError> {
        let mut first: Option<(Row, usize)> = None;
        for (index, cursor) in self.0.iter().enumerate() {
            if let Some(row) = cursor.next
                && first.is_none_or(|(least, _)| row < least)
            {
                first = Some((row, index));
            }
        }
        let Some((row, index)) = first else { return Ok(None) };
        self.0[index].advance()?;
        Ok(Some(row))
    }
}

/// Writes a run, row by row.
struct Writer<'t> {
    run: Run,
    /// At the end of its table: what is entered in order there is not searched for a place.
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

impl Catalogue {
    fn runs(&self, txn: &WriteTransaction) -> Result<Vec<Run>, CatalogueError> {
        Run::all(&txn.open_table(RUNS)?, &self.key)
    }

    /// Enters places, which must be in order.
    pub(super) fn insert_places(&self, txn: &WriteTransaction, new: &[Row]) -> Result<(), CatalogueError> {
        if new.is_empty() {
            return Ok(());
        }
        let mut runs = self.runs(txn)?;
        let mut len = new.len() as u64;
        let mut merged = Vec::new();
        while let Some(run) = runs.pop_if(|run| run.len < FACTOR * len.max(SHORT)) {
            len += run.len;
            merged.push(run);
        }
        self.write_run(txn, &merged, new)
    }

    /// Writes a run of these places and of those in `old`, which it replaces.
    fn write_run(&self, txn: &WriteTransaction, old: &[Run], new: &[Row]) -> Result<(), CatalogueError> {
        let number = next_number(txn, "next_run")? as u32;
        let len = new.len() as u64 + old.iter().map(|run| run.len).sum::<u64>();
        let buckets = u32::try_from(len.div_ceil(BUCKET_LEN)).unwrap_or(u32::MAX);
        let run = Run { number, len: 0, buckets };
        {
            let mut table = run.with(|table| txn.open_table(table))?;
            let end = table.upper_bound_mut(Bound::<u32>::Unbounded)?;
            let doubt = &*self.mark.doubt;
            let mut writer = Writer { run, end, bucket: 0, bytes: Vec::new(), last: None, doubt };
            let tables = old.iter().map(|run| run.with(|table| txn.open_table(table)));
            let tables = tables.collect::<Result<Vec<_>, _>>()?;
            let mut rows = Merged::new(tables.iter().map(ReadableTable::iter))?;
            let mut new = new.iter().copied().peekable();
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
        old.iter().try_for_each(|run| Self::delete_run(txn, *run))
    }

    fn delete_run(txn: &WriteTransaction, run: Run) -> Result<(), CatalogueError> {
        run.with(|table| txn.delete_table(table))?;
        txn.open_table(RUNS)?.remove(run.number)?;
        Ok(())
    }

    /// Takes out all places in these packs.
    pub(super) fn remove_places(&self, txn: &WriteTransaction, gone: &BTreeSet<u32>) -> Result<(), CatalogueError> {
        for run in self.runs(txn)? {
            let before = run.len;
            let run = Run { len: run.with(|table| keep_in(&mut txn.open_table(table)?, run.buckets, gone))?, ..run };
            if run.len == 0 {
                Self::delete_run(txn, run)?;
            } else if run.len.div_ceil(BUCKET_LEN) * 2 < u64::from(run.buckets) {
                self.write_run(txn, &[run], &[])?;
            } else if run.len != before {
                txn.open_table(RUNS)?.insert(run.number, run.row(&self.key).as_slice())?;
            }
        }
        Ok(())
    }

    /// Takes out all places.
    pub(super) fn clear_places(&self, txn: &WriteTransaction) -> Result<(), CatalogueError> {
        self.runs(txn)?.into_iter().try_for_each(|run| Self::delete_run(txn, run))
    }
}

/// Leaves only the places that are in no pack of `gone`. Returns how many those are.
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

impl Reader {
    /// A place of a chunk, if it is stored.
    ///
    /// # Errors
    /// If the database fails.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<ChunkPlace>, CatalogueError> {
        for (run, table) in &self.chunks.0 {
            if let Some(bucket) = table.get(run.bucket(id))?
                && let Some(place) = places_in(bucket.value(), id).next()
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Every place of a chunk; the one that [`Self::locate`] gives comes first.
    ///
    /// # Errors
    /// If the database fails.
    pub fn locate_all(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, CatalogueError> {
        let mut places = Vec::new();
        for (run, table) in &self.chunks.0 {
            if let Some(bucket) = table.get(run.bucket(id))? {
                places.extend(places_in(bucket.value(), id));
            }
        }
        Ok(places)
    }

    /// The number of places: no more different chunks are stored.
    #[must_use]
    pub fn place_count(&self) -> u64 {
        self.chunks.0.iter().map(|(run, _)| run.len).sum()
    }

    /// Calls `found` for every place of every chunk, in no order.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_chunk(&self, mut found: impl FnMut(ChunkId, ChunkPlace)) -> Result<(), CatalogueError> {
        for (_, table) in &self.chunks.0 {
            for bucket in table.iter()? {
                for row in rows(bucket?.1.value()) {
                    let (id, place) = decode(row);
                    found(id, place);
                }
            }
        }
        Ok(())
    }

    /// Calls `found` for the id of every chunk, in order, until it returns `false`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_id(&self, mut found: impl FnMut(ChunkId) -> bool) -> Result<(), CatalogueError> {
        let mut rows = self.chunks.merged()?;
        let mut last = None;
        while let Some((id, _)) = rows.next()? {
            if last.replace(id) != Some(id) && !found(id) {
                break;
            }
        }
        Ok(())
    }

    /// Calls `found` for every chunk with all its places in order, by the order of the ids, until it returns `false`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn for_each_place(&self, mut found: impl FnMut(ChunkId, &[ChunkPlace]) -> bool) -> Result<(), CatalogueError> {
        let mut rows = self.chunks.merged()?;
        let mut places = Vec::new();
        let mut row = rows.next()?;
        while let Some((id, place)) = row {
            places.clear();
            places.push(place);
            row = rows.next()?;
            while let Some((_, place)) = row.filter(|(other, _)| *other == id) {
                places.push(place);
                row = rows.next()?;
            }
            if !found(id, &places) {
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

    /// The places of all chunks, by what is said of these packs.
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
            most_runs = most_runs.max(reader.chunks.0.len());
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
            let mut list = |id, places: &[ChunkPlace]| found.insert(id, places.to_vec()).is_none();
            reader.for_each_place(&mut list).unwrap();
            assert_eq!(found, expected, "round {round}");
            let mut list = |id| {
                ids.push(id);
                true
            };
            reader.for_each_id(&mut list).unwrap();
            assert!(ids.iter().eq(expected.keys()), "round {round}");
            reader.for_each_chunk(|id, place| each.entry(id).or_insert_with(Vec::new).push(place)).unwrap();
            each.values_mut().for_each(|places| places.sort_unstable());
            assert_eq!(each, expected, "round {round}");
            let filter = Filter::new(&reader).unwrap();
            assert!(ids.iter().all(|id| filter.may_contain(id)));
            let wrong = (100_000..110_000).filter(|number| filter.may_contain(&id(*number))).count();
            assert!(wrong < 300, "{wrong} of 10,000 that are not there");
        }
        assert!(most_runs > 1);
    }

    #[test]
    fn a_run_whose_row_is_damaged_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (catalogue, _) = Catalogue::open(&folder.path().join("catalogue.redb"), [0; 32]).unwrap();
        let txn = catalogue.write().unwrap();
        let place = ChunkPlace { pack: 1, segment: 0, offset: 0, len: 10 };
        catalogue.insert_places(&txn, &[(id(1), place)]).unwrap();
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
        catalogue.insert_places(&txn, &[row(1), row(2)]).unwrap();
        let run = Run::all(&txn.open_table(RUNS).unwrap(), &[0; 32]).unwrap()[0];
        let mut bucket = Vec::new();
        [row(2), row(1)].iter().for_each(|row| encode(&mut bucket, row));
        run.with(|table| txn.open_table(table).unwrap().insert(0, bucket.as_slice()).map(drop)).unwrap();
        txn.commit().unwrap();
        let txn = catalogue.write().unwrap();
        assert!(matches!(catalogue.insert_places(&txn, &[row(3)]), Err(CatalogueError::Database(_))));
        txn.abort().unwrap();
        drop(catalogue);
        let (_, is_new) = Catalogue::open(&path, [0; 32]).unwrap();
        assert!(is_new);
    }
}
