//! Stores new chunks (SPEC §5): looks them up, puts them into segments on the core that read them, seals these into packs, has a separate
//! thread put the packs into the store, and enters them in the catalogue once they are durable.

use std::collections::{HashMap, HashSet};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::catalogue::packs::NewPack;
use crate::catalogue::stat::FolderRows;
use crate::catalogue::{CatalogueError, Filter, Reader};
use crate::id::{ChunkId, ObjectName};
use crate::pack::{PackWriter, SegmentBuilder};
use crate::progress::Progress;
use crate::seal::{Compressor, Decompressor, Keys, ObjectKind};
use crate::sync::{lock, spawn};
use crate::tree::{ChunkSink, Time};
use crate::vault::session::Session;
use crate::vault::{Vault, VaultError};
use crate::write::publisher::{Durable, Failure, Message, Publisher, channel, hand_on};
use crate::write::trust::{Lookout, VerifyOthers};

/// How new data is stored.
#[derive(Clone, Copy)]
pub struct DepotOptions<'a> {
    /// zstd level.
    pub level: i32,
    /// Open and hash every segment before its pack is put.
    pub verify: bool,
    /// Look up and count, but store nothing.
    pub dry_run: bool,
    /// Keep the new chunks of trees in memory, for a dry run whose trees are read afterwards.
    pub keep_trees: bool,
    /// How packs of others are verified before something relies on them.
    pub others: VerifyOthers,
    /// Number of threads that will put chunks.
    pub threads: usize,
    /// The clock, for the records that claim packs during a run.
    pub clock: &'a (dyn Fn() -> Time + Sync),
}

/// Rows wait in memory up to about this many bytes before they are written.
const ROWS_WAITING: usize = 4 << 20;
/// Pass rows to the publisher in batches of this many bytes; waking it for each folder costs more than writing the rows.
const ROWS_HANDED: usize = 256 << 10;
/// Number of chunks of durable packs that may wait in memory before they are entered.
const CHUNKS_WAITING: usize = 50_000;
/// Build the filter once this run has stored 1/32 of all known chunks.
const FILTER_FROM: u64 = 32;
/// Number of locks over which claims are spread.
const SHARDS: usize = 64;

/// Ids that this run stores and that are not in the catalogue yet.
struct Claims([Mutex<HashSet<ChunkId>>; SHARDS]);

impl Claims {
    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, HashSet<ChunkId>> {
        lock(&self.0[usize::from(id.as_bytes()[0]) % SHARDS])
    }
}

/// Rows of the stat cache, with their approximate size in memory, in bytes.
#[derive(Debug, Default)]
struct Gathered {
    rows: Vec<FolderRows>,
    weight: usize,
}

#[derive(Debug, Default)]
struct DepotCounters {
    bytes_new: AtomicU64,
    bytes_stored: AtomicU64,
}

/// Data that a run added to the store.
#[derive(Debug, Default)]
pub struct Published {
    /// The packs.
    pub packs: Vec<ObjectName>,
    /// Bytes of new chunks of content, before compression.
    pub bytes_new: u64,
    /// Bytes put into the store.
    pub bytes_stored: u64,
    /// New chunks of trees, if they were to be kept.
    pub trees: HashMap<ChunkId, Vec<u8>>,
}

/// The stored chunks that have been entered in the catalogue.
struct Known {
    reader: Arc<Reader>,
    /// Bloom filter of stored ids. Built only once many chunks are stored, when catalogue look-ups begin to dominate.
    filter: Option<Arc<Filter>>,
}

/// State shared by the depot and the thread that publishes.
struct Shared<'a> {
    vault: &'a Vault,
    claims: Claims,
    known: RwLock<Arc<Known>>,
    failure: Failure,
    counters: DepotCounters,
    trees: Mutex<HashMap<ChunkId, Vec<u8>>>,
    /// Verifies packs before something relies on them; `None` in a dry run, which stores nothing that could.
    lookout: Option<Lookout<'a>>,
}

impl Shared<'_> {
    fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The failure, for the first who asks. A catalogue that has failed is not trusted again.
    fn take_failure(&self) -> Option<VaultError> {
        let failure = self.failure.take();
        if matches!(failure, Some(VaultError::Catalogue(CatalogueError::Database(_)))) {
            self.known().reader.distrust();
        }
        failure
    }
}

/// The run has failed or was stopped; the reason is known elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Failed;

/// Why work with a depot ended early.
pub(crate) enum Ended<E> {
    /// This reason.
    Why(E),
    /// The depot or its publisher failed, and has the reason.
    Elsewhere,
}

impl<E> From<E> for Ended<E>
where
    E: std::error::Error,
{
    fn from(error: E) -> Self {
        Self::Why(error)
    }
}

impl<E> From<Failed> for Ended<E>
where
    E: std::error::Error,
{
    fn from(_: Failed) -> Self {
        Self::Elsewhere
    }
}

/// Does work that puts chunks into a new depot, while another thread puts finished packs into the store. If the work ends early, so does
/// that thread.
///
/// # Errors
/// The reason why the work ended early; or else why the depot or its publisher failed.
pub(crate) fn fill<T, E: From<VaultError>>(
    vault: &Vault,
    options: DepotOptions<'_>,
    session: Option<&Session>,
    progress: &dyn Progress,
    work: impl FnOnce(&Depot<'_>) -> Result<T, Ended<E>>,
) -> Result<(T, Published), E> {
    let (depot, received) = Depot::new(vault, options)?;
    let entering = Entering::new(&depot);
    std::thread::scope(|scope| {
        let publisher = spawn(scope, move || entering.run(received, session, options.clock, progress));
        let done = work(&depot);
        if done.is_err() {
            depot.abandon();
        }
        let finished = depot.finish();
        let published = publisher.join().unwrap_or_else(|panic| resume_unwind(panic));
        match done {
            Ok(done) => Ok(finished.and(published).map(|published| (done, published))?),
            Err(Ended::Why(error)) => Err(error),
            Err(Ended::Elsewhere) => Err(finished.err().or(published.err()).unwrap_or(VaultError::Unexplained).into()),
        }
    })
}

/// Receives chunks from many threads.
pub struct Depot<'a> {
    shared: Arc<Shared<'a>>,
    options: DepotOptions<'a>,
    /// Numbers of packs whose chunks count as absent.
    condemned: HashSet<u32>,
    workers: Vec<Mutex<Worker>>,
    data: PackWriter<'a>,
    meta: PackWriter<'a>,
    rows: Mutex<Gathered>,
    messages: SyncSender<Message<Gathered>>,
}

/// State of one thread.
pub struct Worker {
    data: SegmentBuilder,
    meta: SegmentBuilder,
    compressor: Compressor,
    decompressor: Decompressor,
    /// For the content of small files.
    pub buffer: Vec<u8>,
}

impl<'a> Depot<'a> {
    /// A depot for one run, and what must be published beside it.
    ///
    /// # Errors
    /// If the catalogue fails, or compressors cannot be set up.
    fn new(vault: &'a Vault, options: DepotOptions<'a>) -> Result<(Self, Receiver<Message<Gathered>>), VaultError> {
        let (messages, received) = channel();
        let (hand_data_on, hand_meta_on) = (hand_on(&messages), hand_on(&messages));
        let reader = Arc::new(vault.catalogue().reader()?);
        let condemned_names = vault.unusable();
        let condemned = if condemned_names.is_empty() {
            HashSet::new()
        } else {
            let packs = reader.packs()?.into_iter();
            packs.filter(|(_, info)| condemned_names.contains(&info.name)).map(|(number, _)| number).collect()
        };
        let worker = || -> Result<Mutex<Worker>, VaultError> {
            Ok(Mutex::new(Worker {
                data: SegmentBuilder::default(),
                meta: SegmentBuilder::default(),
                compressor: Compressor::new(options.level)?,
                decompressor: Decompressor::new()?,
                buffer: Vec::new(),
            }))
        };
        let shared = Arc::new(Shared {
            vault,
            claims: Claims(std::array::from_fn(|_| Mutex::default())),
            known: RwLock::new(Arc::new(Known { reader, filter: None })),
            failure: Failure::default(),
            counters: DepotCounters::default(),
            trees: Mutex::default(),
            lookout: (!options.dry_run).then(|| Lookout::new(vault, options.others)),
        });
        let depot = Self {
            shared,
            options,
            condemned,
            workers: (0..options.threads.max(1)).map(|_| worker()).collect::<Result<_, _>>()?,
            data: PackWriter::new(vault.keys(), ObjectKind::Pack, options.verify, hand_data_on)
                .with_pack_len(vault.pack_len()),
            meta: PackWriter::new(vault.keys(), ObjectKind::Meta, options.verify, hand_meta_on),
            rows: Mutex::default(),
            messages,
        };
        Ok((depot, received))
    }

    /// The keys.
    pub fn keys(&self) -> &'a Keys {
        self.shared.vault.keys()
    }

    /// Number of bytes put so far.
    pub fn bytes_stored(&self) -> u64 {
        self.shared.counters.bytes_stored.load(Relaxed)
    }

    /// The newest view of the catalogue.
    pub fn reader(&self) -> Arc<Reader> {
        self.shared.known().reader.clone()
    }

    /// The state of the calling thread, which must be one of the pool that was counted in the options.
    pub fn worker(&self) -> MutexGuard<'_, Worker> {
        lock(&self.workers[rayon::current_thread_index().unwrap_or(0) % self.workers.len()])
    }

    /// Discards everything from now on: nothing of this run will be used.
    pub fn abandon(&self) {
        self.shared.failure.end();
    }

    /// Records a failure of the store or the catalogue; the run ends soon.
    pub fn fail(&self, error: VaultError) {
        self.shared.failure.record(error);
    }

    /// Whether there was a failure.
    pub fn has_failed(&self) -> bool {
        self.shared.failure.is_over()
    }

    /// Whether a chunk is stored, in a pack that is not condemned, or by this run.
    pub fn is_stored(&self, id: &ChunkId) -> bool {
        self.shared.claims.shard(id).contains(id) || self.is_in_catalogue(id)
    }

    fn is_in_catalogue(&self, id: &ChunkId) -> bool {
        let known = self.shared.known();
        let Known { reader, filter } = &*known;
        if filter.as_ref().is_some_and(|filter| !filter.may_contain(id)) {
            return false;
        }
        self.has_usable(reader, id).unwrap_or_else(|error| {
            self.fail(error);
            true
        })
    }

    /// Whether a chunk is in a pack that can be relied on.
    fn has_usable(&self, reader: &Reader, id: &ChunkId) -> Result<bool, VaultError> {
        let Some(first) = reader.locate(id)? else { return Ok(false) };
        if self.is_usable(reader, first.pack)? {
            return Ok(true);
        }
        for place in reader.locate_all(id)? {
            if place.pack != first.pack && self.is_usable(reader, place.pack)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_usable(&self, reader: &Reader, pack: u32) -> Result<bool, VaultError> {
        if self.condemned.contains(&pack) {
            return Ok(false);
        }
        self.shared.lookout.as_ref().map_or(Ok(true), |lookout| lookout.may_rely(reader, pack))
    }

    /// Whether the caller must store this chunk: it is not stored, and no other thread stores it.
    fn claim(&self, id: &ChunkId) -> bool {
        if !self.shared.claims.shard(id).insert(*id) {
            return false;
        }
        let known = self.is_in_catalogue(id);
        if known {
            self.shared.claims.shard(id).remove(id);
        }
        !known
    }

    /// Stores a chunk of content, which `fill` appends to the buffer it is given.
    ///
    /// # Errors
    /// If the run has failed; the failure itself is kept.
    pub fn put_data(&self, worker: &mut Worker, fill: impl FnOnce(&mut Vec<u8>)) -> Result<ChunkId, Failed> {
        let id = worker.data.push(self.keys(), |buffer| fill(buffer), |id| self.claim(id));
        self.put_full(worker)?;
        Ok(id)
    }

    fn put_full(&self, worker: &mut Worker) -> Result<(), Failed> {
        if worker.data.is_full() {
            self.flush_data(worker)?;
        }
        if worker.meta.is_full() {
            self.flush_meta(worker)?;
        }
        if self.has_failed() { Err(Failed) } else { Ok(()) }
    }

    fn flush_data(&self, worker: &mut Worker) -> Result<(), Failed> {
        let Worker { data, compressor, decompressor, .. } = worker;
        let bytes_new = &self.shared.counters.bytes_new;
        if self.options.dry_run {
            bytes_new.fetch_add(data.len() as u64, Relaxed);
            data.clear();
            return Ok(());
        }
        let put = self.data.put_collected(data, compressor, decompressor).map_err(|error| self.give_up(error))?;
        bytes_new.fetch_add(put, Relaxed);
        Ok(())
    }

    fn flush_meta(&self, worker: &mut Worker) -> Result<(), Failed> {
        let Worker { meta, compressor, decompressor, .. } = worker;
        if self.options.dry_run {
            meta.clear();
            return Ok(());
        }
        self.meta.put_collected(meta, compressor, decompressor).map(drop).map_err(|error| self.give_up(error))
    }

    fn give_up(&self, error: impl Into<VaultError>) -> Failed {
        self.fail(error.into());
        Failed
    }

    /// Receives rows of the stat cache.
    pub fn put_rows(&self, rows: FolderRows) {
        if self.options.dry_run {
            return;
        }
        let mut gathered = lock(&self.rows);
        gathered.weight += rows.weight();
        gathered.rows.push(rows);
        if gathered.weight > ROWS_HANDED {
            let full = std::mem::take(&mut *gathered);
            drop(gathered);
            self.hand_rows_on(full);
        }
    }

    /// Passes rows to the publisher.
    fn hand_rows_on(&self, rows: Gathered) {
        // Sending fails only if the publisher has failed, which it has recorded.
        let _ = self.messages.send(Message::Rows(rows));
    }

    /// Flushes the workers' remaining chunks and closes the packs. Ends the publisher.
    ///
    /// # Errors
    /// The first failure of the run.
    pub fn finish(self) -> Result<(), VaultError> {
        for worker in &self.workers {
            let mut worker = lock(worker);
            if self.has_failed() {
                break;
            }
            let flush = |depot: &Self, worker: &mut Worker| -> Result<(), Failed> {
                while !worker.data.is_empty() {
                    depot.flush_data(worker)?;
                }
                while !worker.meta.is_empty() {
                    depot.flush_meta(worker)?;
                }
                Ok(())
            };
            if flush(&self, &mut worker).is_err() {
                break;
            }
        }
        for packs in [&self.data, &self.meta] {
            if !self.has_failed()
                && let Err(error) = packs.finish()
            {
                self.fail(error.into());
            }
        }
        self.hand_rows_on(std::mem::take(&mut *lock(&self.rows)));
        self.shared.take_failure().map_or(Ok(()), Err)
    }

    /// Receives chunks of trees for the calling thread.
    pub const fn meta_sink(&self) -> MetaSink<'_, 'a> {
        MetaSink(self)
    }
}

/// Stores chunks of trees and of lists of ids.
pub struct MetaSink<'d, 'a>(&'d Depot<'a>);

impl ChunkSink for MetaSink<'_, '_> {
    type Error = Failed;

    fn put_chunk(&mut self, bytes: &[u8]) -> Result<ChunkId, Failed> {
        let depot = self.0;
        let worker = &mut *depot.worker();
        let is_new = |id: &ChunkId| {
            let is_new = depot.claim(id);
            if is_new && depot.options.keep_trees {
                lock(&depot.shared.trees).insert(*id, bytes.to_vec());
            }
            is_new
        };
        let id = worker.meta.push(depot.keys(), |buffer| buffer.extend_from_slice(bytes), is_new);
        depot.put_full(worker)?;
        Ok(id)
    }
}

/// Enters durable packs and rows in the catalogue, while packs are published on a separate thread.
struct Entering<'a> {
    shared: Arc<Shared<'a>>,
    packs: Vec<NewPack>,
    names: Vec<ObjectName>,
    rows: Gathered,
    /// Number of chunks that wait to be entered, and of those entered.
    chunks: usize,
    entered: usize,
}

impl<'a> Entering<'a> {
    fn new(depot: &Depot<'a>) -> Self {
        let shared = depot.shared.clone();
        Self { shared, packs: Vec::new(), names: Vec::new(), rows: Gathered::default(), chunks: 0, entered: 0 }
    }

    /// Works until the depot is finished. Failures are recorded, and returned by [`Depot::finish`] or by this, whichever is
    /// later.
    ///
    /// # Errors
    /// The first failure of the run, if the depot has not returned it.
    fn run(
        mut self,
        received: Receiver<Message<Gathered>>,
        session: Option<&Session>,
        clock: &(dyn Fn() -> Time + Sync),
        progress: &dyn Progress,
    ) -> Result<Published, VaultError> {
        let shared = self.shared.clone();
        let publisher =
            Publisher { vault: shared.vault, session, clock: Some(clock), failure: &shared.failure, progress };
        publisher.run(received, |durable| self.take(durable));
        if !shared.failure.is_over() {
            self.commit()?;
        }
        if let Some(lookout) = &shared.lookout {
            lookout.settle(progress)?;
        }
        let counters = &shared.counters;
        let published = Published {
            packs: self.names,
            bytes_new: counters.bytes_new.load(Relaxed),
            bytes_stored: counters.bytes_stored.load(Relaxed),
            trees: std::mem::take(&mut *lock(&shared.trees)),
        };
        shared.take_failure().map_or(Ok(published), Err)
    }

    /// Takes a pack or rows; enters all once there are many.
    fn take(&mut self, durable: Durable<Gathered>) -> Result<(), VaultError> {
        match durable {
            Durable::Pack(pack) => {
                self.shared.counters.bytes_stored.fetch_add(pack.len, Relaxed);
                self.chunks += pack.footer.segments.iter().map(|segment| segment.chunks.len()).sum::<usize>();
                self.names.push(pack.name);
                self.packs.push(pack);
            }
            Durable::Rows(Gathered { rows, weight }) => {
                self.rows.weight += weight;
                self.rows.rows.extend(rows);
            }
        }
        if self.rows.weight > ROWS_WAITING || self.chunks > CHUNKS_WAITING { self.commit() } else { Ok(()) }
    }

    /// Enters durable packs and rows in the catalogue, and frees their memory.
    fn commit(&mut self) -> Result<(), VaultError> {
        if self.packs.is_empty() && self.rows.rows.is_empty() {
            return Ok(());
        }
        let catalogue = self.shared.vault.catalogue();
        let txn = catalogue.write()?;
        catalogue.insert_own_packs(&txn, &self.packs)?;
        catalogue.insert_rows(&txn, std::mem::take(&mut self.rows).rows)?;
        txn.commit().map_err(CatalogueError::from)?;
        // Make the new entries visible first, then drop the claims: so no chunk is ever taken for new in between.
        let reader = Arc::new(catalogue.reader()?);
        self.entered += std::mem::take(&mut self.chunks);
        let filter = self.filter(&reader)?;
        *self.shared.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Known { reader, filter });
        for pack in self.packs.drain(..) {
            for id in ids(&pack) {
                self.shared.claims.shard(id).remove(id);
            }
        }
        Ok(())
    }

    /// The filter including the chunks just entered.
    fn filter(&self, reader: &Reader) -> Result<Option<Arc<Filter>>, CatalogueError> {
        let places = reader.place_count();
        let filter = match self.shared.known().filter.clone().filter(|filter| !filter.is_full(places)) {
            Some(filter) => {
                self.packs.iter().flat_map(ids).for_each(|id| filter.insert(id));
                filter
            }
            // Reading all ids takes as long as looking up a few hundredths of them.
            None if places <= FILTER_FROM * self.entered as u64 => Arc::new(Filter::new(reader)?),
            None => return Ok(None),
        };
        Ok(Some(filter))
    }
}

/// The chunks of a pack.
fn ids(pack: &NewPack) -> impl Iterator<Item = &ChunkId> {
    pack.footer.segments.iter().flat_map(|segment| &segment.chunks).map(|(id, _)| id)
}
