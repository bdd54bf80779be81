//! Stores new chunks (SPEC §5): looks them up, puts them into segments on the core that read them, seals these into packs, has a separate
//! thread put the packs into the store, and enters them in the catalogue once they are durable.

use std::collections::{HashMap, HashSet};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;

use crate::catalogue::packs::NewPack;
use crate::catalogue::stat::FolderRows;
use crate::catalogue::{CatalogueError, Filter, Reader};
use crate::engine::trust::{Lookout, VerifyOthers};
use crate::id::{ChunkId, ObjectName};
use crate::pack::{FinishedPack, PackWriter, SegmentBuilder};
use crate::progress::Progress;
use crate::seal::{Compressor, Decompressor, Keys, ObjectKind};
use crate::store::{ObjectKey, StoreError, Upload, Uploads};
use crate::sync::{lock, spawn};
use crate::tree::{ChunkSink, Time};
use crate::vault::session::Session;
use crate::vault::{Vault, VaultError};

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
/// Number of packs that the store has received and that may wait to become durable.
const PENDING_MAX: usize = 8;
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

enum Message {
    Pack(FinishedPack),
    Rows(Gathered),
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

/// State shared by the depot and its publisher.
struct Shared<'a> {
    vault: &'a Vault,
    claims: Claims,
    known: RwLock<Arc<Known>>,
    /// The first failure; everything after it is only a consequence.
    failure: Mutex<Option<VaultError>>,
    failed: AtomicBool,
    counters: DepotCounters,
    trees: Mutex<HashMap<ChunkId, Vec<u8>>>,
    /// Verifies packs before something relies on them; `None` in a dry run, which stores nothing that could.
    lookout: Option<Lookout<'a>>,
}

impl Shared<'_> {
    fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, error: VaultError) {
        if matches!(error, VaultError::Catalogue(CatalogueError::Database(_))) {
            self.known().reader.distrust();
        }
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Relaxed);
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
    let (depot, publisher) = Depot::new(vault, options, session)?;
    std::thread::scope(|scope| {
        let publisher = spawn(scope, move || publisher.run(progress));
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
    messages: SyncSender<Message>,
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
    /// A depot for one run, and the publisher that must run beside it. The session notes the packs.
    ///
    /// # Errors
    /// If the catalogue fails, or compressors cannot be set up.
    pub fn new(
        vault: &'a Vault,
        options: DepotOptions<'a>,
        session: Option<&'a Session>,
    ) -> Result<(Self, Publisher<'a>), VaultError> {
        // A pack is passed on only after the one before has been put: together with the pack being filled, that limits the memory for
        // packs in progress.
        let (messages, received) = sync_channel(0);
        let hand_on = |messages: &SyncSender<Message>| {
            let messages = messages.clone();
            move |pack| messages.send(Message::Pack(pack)).is_ok()
        };
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
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
            counters: DepotCounters::default(),
            trees: Mutex::default(),
            lookout: (!options.dry_run).then(|| Lookout::new(vault, options.others)),
        });
        let publisher = Publisher {
            shared: shared.clone(),
            session,
            clock: options.clock,
            received,
            packs: Vec::new(),
            names: Vec::new(),
            rows: Gathered::default(),
            chunks: 0,
            entered: 0,
        };
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
        Ok((depot, publisher))
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
        self.shared.failed.store(true, Relaxed);
    }

    /// Records a failure of the store or the catalogue; the run ends soon.
    pub fn fail(&self, error: VaultError) {
        self.shared.fail(error);
    }

    /// Whether there was a failure.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Relaxed)
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
        let failure = lock(&self.shared.failure).take();
        failure.map_or(Ok(()), Err)
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

/// Puts finished packs into the store and enters them in the catalogue. Runs on a separate thread.
pub struct Publisher<'a> {
    shared: Arc<Shared<'a>>,
    session: Option<&'a Session>,
    clock: &'a (dyn Fn() -> Time + Sync),
    received: Receiver<Message>,
    packs: Vec<NewPack>,
    names: Vec<ObjectName>,
    rows: Gathered,
    /// Number of chunks that wait to be entered, and of those entered.
    chunks: usize,
    entered: usize,
}

impl Publisher<'_> {
    /// Works until the depot is finished. Failures are recorded, and returned by [`Depot::finish`] or [`Publisher::run`], whichever is
    /// later.
    ///
    /// # Errors
    /// The first failure of the run, if the depot has not returned it.
    pub fn run(mut self, progress: &dyn Progress) -> Result<Published, VaultError> {
        let (shared, session, clock) = (self.shared.clone(), self.session, self.clock);
        let (_, nothing) = sync_channel(0);
        let received = std::mem::replace(&mut self.received, nothing);
        let uploads = Uploads::new(shared.vault.store());
        let uploads = &uploads;
        std::thread::scope(|scope| {
            let (written, arriving) = sync_channel(PENDING_MAX.max(uploads.most()));
            // One thread starts the puts, so that the depot never waits for the store; this one waits for them to finish, in order.
            let taking = spawn(scope, move || {
                for message in received {
                    if shared.failed.load(Relaxed) {
                        continue; // discard messages, so that no sender waits
                    }
                    let put = |key: &ObjectKey, bytes| uploads.begin(scope, key, bytes);
                    match begin(&shared, session, (clock, progress), message, put) {
                        Ok(begun) => drop(written.send(begun)),
                        Err(error) => shared.fail(error),
                    }
                }
            });
            for begun in arriving {
                if self.shared.failed.load(Relaxed) {
                    continue;
                }
                if let Err(error) = self.finish(begun, progress) {
                    self.shared.fail(error);
                }
            }
            taking.join().unwrap_or_else(|panic| resume_unwind(panic));
        });
        if !self.shared.failed.load(Relaxed) {
            self.commit()?;
        }
        if let Some(lookout) = &self.shared.lookout {
            lookout.settle(progress)?;
        }
        let failure = lock(&self.shared.failure).take();
        let counters = &self.shared.counters;
        let published = Published {
            packs: self.names,
            bytes_new: counters.bytes_new.load(Relaxed),
            bytes_stored: counters.bytes_stored.load(Relaxed),
            trees: std::mem::take(&mut *lock(&self.shared.trees)),
        };
        failure.map_or(Ok(published), Err)
    }

    /// Makes a pack durable, or takes rows; enters them once there are many.
    fn finish(&mut self, begun: Begun<'_>, progress: &dyn Progress) -> Result<(), VaultError> {
        match begun {
            Begun::Pack(upload, pack, kept) => {
                upload.finish()?;
                if let Some(bytes) = kept {
                    self.shared.vault.keep_meta_pack(&pack.name, &bytes, &pack.footer);
                }
                self.shared.counters.bytes_stored.fetch_add(pack.len, Relaxed);
                progress.counters().bytes_stored.fetch_add(pack.len, Relaxed);
                self.chunks += pack.footer.segments.iter().map(|segment| segment.chunks.len()).sum::<usize>();
                self.names.push(pack.name);
                self.packs.push(pack);
            }
            Begun::Rows(Gathered { rows, weight }) => {
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

/// A put that has started.
enum Begun<'s> {
    /// With the pack's bytes, if parts of them are to be kept on this machine once the store has them.
    Pack(Upload<'s>, NewPack, Option<Bytes>),
    Rows(Gathered),
}

/// Starts to put a pack into the store.
fn begin<'s>(
    shared: &Shared<'_>,
    session: Option<&Session>,
    (clock, progress): (&dyn Fn() -> Time, &dyn Progress),
    message: Message,
    put: impl FnOnce(&ObjectKey, Bytes) -> Result<Upload<'s>, StoreError>,
) -> Result<Begun<'s>, VaultError> {
    let pack = match message {
        Message::Pack(pack) => pack,
        Message::Rows(rows) => return Ok(Begun::Rows(rows)),
    };
    let key = ObjectKey::Named(pack.kind.store_kind(), pack.name);
    let len = pack.bytes.len() as u64;
    if let Some(session) = session {
        shared.vault.publish_claims(session, clock, progress)?;
        session.note_pack(&pack.name, pack.kind, len)?;
    }
    let kept = shared.vault.keeps(pack.kind).then(|| pack.bytes.clone());
    let upload = put(&key, pack.bytes)?;
    Ok(Begun::Pack(upload, NewPack { kind: pack.kind, name: pack.name, len, footer: pack.footer }, kept))
}
