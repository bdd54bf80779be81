//! Copies needed chunks out of packs that are about to be deleted. Segments that are needed completely are sealed again as they are; from
//! others, the needed chunks are compressed again.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};

use crate::catalogue::packs::NewPack;
use crate::catalogue::{Look, PackInfo, SegmentRef};
use crate::id::ObjectName;
use crate::limits::PACK_LEN;
use crate::pack::reader::object_key;
use crate::pack::segment::open_segment;
use crate::pack::{Footer, PackError, PackReader, PackWriter, SealedBody, SegmentBuilder};
use crate::progress::Progress;
use crate::seal::{Compressor, Decompressor, ObjectKind, SEGMENT_HEAD_LEN, SealError};
use crate::sync::{lock, spawn};
use crate::vault::session::Session;
use crate::vault::{Vault, VaultError};
use crate::write::publisher::{Durable, Failure, Publisher, channel, hand_on};

/// Maximum number of consecutive, partly needed segments of a pack that one thread compresses together: neighbours have much in common,
/// and the result can be predicted.
pub const RUN: usize = 16;

/// The needed chunks of one pack.
#[derive(Debug)]
pub struct Needed {
    /// Its number in the catalogue.
    pub number: u32,
    /// Its row in the catalogue.
    pub info: PackInfo,
    /// Its footer, read from the store.
    pub footer: Footer,
    /// For each segment, the positions of the needed chunks, sorted.
    pub chunks: Vec<Vec<u32>>,
}

impl Needed {
    /// Whether any chunk is needed.
    pub fn any(&self) -> bool {
        self.chunks.iter().any(|chunks| !chunks.is_empty())
    }
}

/// How chunks are copied.
#[derive(Debug, Clone, Copy)]
pub struct MoveOptions {
    /// zstd level for chunks that are compressed again.
    pub level: i32,
    /// Open new segments before they are put.
    pub verify: bool,
}

/// Result of copying.
#[derive(Debug, Default)]
pub struct Moved {
    /// Packs that cannot be read completely; they must stay.
    pub failed: BTreeSet<u32>,
    /// Bytes of the packs put.
    pub bytes_stored: u64,
    /// The packs put.
    pub packs: Vec<ObjectName>,
}

/// State of one thread.
struct Worker {
    /// Chunks of the current run to compress again; empty between runs.
    builder: SegmentBuilder,
    compressor: Compressor,
    decompressor: Decompressor,
}

/// The new packs of one kind.
struct Lane<'a> {
    writer: PackWriter<'a>,
    /// Chunks left over by runs.
    rest: Mutex<SegmentBuilder>,
}

struct Mover<'a> {
    vault: &'a Vault,
    reader: PackReader<'a>,
    carried: &'a HashSet<SegmentRef>,
    /// Numbers of packs that this machine knows completely: their segments are copied without hashing their chunks again.
    known: HashSet<u32>,
    workers: Vec<Mutex<Worker>>,
    data: Lane<'a>,
    meta: Lane<'a>,
    failed: Mutex<BTreeSet<u32>>,
    /// The failure of a put, after which there is nothing left to do.
    failure: &'a Failure,
    progress: &'a dyn Progress,
}

/// Copies the needed chunks of these packs into new ones, which are durable and in the catalogue when this returns. Works on the current
/// thread pool.
///
/// # Errors
/// If the store or the catalogue fails. A damaged pack is only recorded.
pub(crate) fn move_needed(
    vault: &Vault,
    session: &Session,
    packs: &[Needed],
    carried: &HashSet<SegmentRef>,
    options: MoveOptions,
    progress: &dyn Progress,
) -> Result<Moved, VaultError> {
    let (messages, received) = channel::<Infallible>();
    let worker = || -> Result<Mutex<Worker>, SealError> {
        Ok(Mutex::new(Worker {
            builder: SegmentBuilder::default(),
            compressor: Compressor::new(options.level)?,
            decompressor: Decompressor::new()?,
        }))
    };
    let lane = |kind| Lane {
        writer: PackWriter::new(vault.keys(), kind, options.verify, hand_on(&messages)).with_pack_len(match kind {
            ObjectKind::Pack => vault.pack_len(),
            _ => PACK_LEN,
        }),
        rest: Mutex::default(),
    };
    let threads = rayon::current_num_threads().max(1);
    let catalogue = vault.catalogue().reader()?;
    let mut known = HashSet::new();
    for pack in packs {
        if catalogue.look(&pack.info.name)? == Some(Look::Whole) {
            known.insert(pack.number);
        }
    }
    let failure = Failure::default();
    let mover = Mover {
        vault,
        reader: vault.pack_reader(),
        carried,
        known,
        workers: (0..threads).map(|_| worker()).collect::<Result<_, _>>()?,
        data: lane(ObjectKind::Pack),
        meta: lane(ObjectKind::Meta),
        failed: Mutex::default(),
        failure: &failure,
        progress,
    };
    drop(messages);
    let publisher = Publisher { vault, session: Some(session), clock: None, failure: &failure, progress };
    let (moved, new) = std::thread::scope(|scope| {
        let publishing = spawn(scope, || {
            let mut new = Vec::new();
            publisher.run(received, |durable| {
                let Durable::Pack(pack) = durable;
                new.push(pack);
                Ok(())
            });
            new
        });
        let moved = mover.run(packs);
        let failed = std::mem::take(&mut *lock(&mover.failed));
        drop(mover);
        (moved.map(|()| failed), publishing.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    // If a put failed, copying has only noticed that it was to end.
    if let Some(error) = failure.take() {
        return Err(error);
    }
    let failed = moved?;
    let bytes_stored = new.iter().map(|pack: &NewPack| pack.len).sum();
    if !new.is_empty() {
        vault.catalogue().enter_own_packs(&new)?;
    }
    Ok(Moved { failed, bytes_stored, packs: new.iter().map(|pack| pack.name).collect() })
}

impl Mover<'_> {
    fn run(&self, packs: &[Needed]) -> Result<(), VaultError> {
        let work: Vec<(&Needed, Vec<u32>)> =
            packs.iter().flat_map(|pack| self.runs(pack).into_iter().map(move |run| (pack, run))).collect();
        // In order: if the store becomes full, the copies made by then make the first packs unneeded.
        let next = AtomicUsize::new(0);
        let copied = rayon::broadcast(|_| {
            while let Some((pack, run)) = work.get(next.fetch_add(1, Relaxed)) {
                let copied = run.iter().try_for_each(|number| self.copy(pack, *number));
                if let Err(error) = copied.and_then(|()| self.end_run(pack.info.kind)) {
                    next.store(work.len(), Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        });
        copied.into_iter().collect::<Result<(), VaultError>>()?;
        for lane in [&self.data, &self.meta] {
            let mut rest = lock(&lane.rest);
            let Worker { compressor, decompressor, .. } = &mut *self.worker();
            while !rest.is_empty() {
                lane.writer.put_collected(&mut rest, compressor, decompressor)?;
            }
            lane.writer.finish()?;
        }
        Ok(())
    }

    /// The segments of a pack with needed chunks, in order, grouped by the thread that has to copy them.
    fn runs(&self, pack: &Needed) -> Vec<Vec<u32>> {
        let (mut runs, mut again) = (vec![Vec::new()], 0);
        for (number, _) in (0..).zip(&pack.chunks).filter(|(_, chunks)| !chunks.is_empty()) {
            if let Some(run) = runs.last_mut() {
                run.push(number);
            }
            again += usize::from(!self.stays_whole(pack, number));
            if again == RUN {
                runs.push(Vec::new());
                again = 0;
            }
        }
        runs
    }

    /// Whether a segment is copied as it is.
    fn stays_whole(&self, pack: &Needed, number: u32) -> bool {
        pack.chunks[number as usize].len() == pack.footer.segments[number as usize].chunks.len()
            || self.carried.contains(&SegmentRef { pack: pack.number, segment: number })
    }

    /// Copies the needed chunks of a segment; records a damaged pack.
    fn copy(&self, pack: &Needed, number: u32) -> Result<(), VaultError> {
        if self.progress.stopped() {
            return Err(VaultError::Interrupted);
        }
        if self.failure.is_over() {
            return Err(VaultError::Unexplained);
        }
        if lock(&self.failed).contains(&pack.number) {
            return Ok(());
        }
        match self.move_segment(pack, number) {
            Err(VaultError::Pack(error)) if error.is_contained() => {
                self.progress.warn(&format!("{error}; its pack stays as it is"));
                lock(&self.failed).insert(pack.number);
                Ok(())
            }
            done => done,
        }
    }

    fn lane(&self, kind: ObjectKind) -> &Lane<'_> {
        if kind == ObjectKind::Meta { &self.meta } else { &self.data }
    }

    fn worker(&self) -> MutexGuard<'_, Worker> {
        lock(&self.workers[rayon::current_thread_index().unwrap_or(0) % self.workers.len()])
    }

    fn move_segment(&self, pack: &Needed, number: u32) -> Result<(), VaultError> {
        let entry = &pack.footer.segments[number as usize];
        let needed = &pack.chunks[number as usize];
        let kind = pack.info.kind;
        let key = object_key(kind, pack.info.name);
        let damaged = |what: &str| PackError::Damaged { object: key, what: what.to_owned() };
        let place = pack.info.place(number).ok_or_else(|| damaged("its footer has more segments than before"))?;
        let sealed = self.vault.store().get_range(&key, place.offset, entry.sealed_len as usize)?;
        self.progress.counters().add(0, u64::from(entry.sealed_len));
        let opener = self.reader.opener_by_footer(kind, pack.info.name)?;
        let (worker, lane) = (&mut *self.worker(), self.lane(kind));
        let (expected, keys) = (Some(entry.chunks.as_slice()), self.vault.keys());
        if self.stays_whole(pack, number) {
            if !self.known.contains(&pack.number) {
                // The new pack is this machine's own, and trusted: it must not contain anything that was never verified.
                open_segment(keys, &opener, &key, number, &sealed, expected, &mut worker.decompressor)?;
            }
            let mut buffer = Vec::with_capacity(sealed.len() + SEGMENT_HEAD_LEN);
            buffer.resize(SEGMENT_HEAD_LEN, 0);
            opener.open_segment(number, &sealed, &mut buffer).map_err(|error| damaged(&error.to_string()))?;
            let body = SealedBody::reused(buffer, entry).map_err(|error| damaged(&error.to_string()))?;
            return Ok(lane.writer.put(body, &mut worker.decompressor)?);
        }
        let segment = open_segment(keys, &opener, &key, number, &sealed, expected, &mut worker.decompressor)?;
        for index in needed {
            let index = *index as usize;
            worker.builder.push_known(segment.chunks[index].id, segment.bytes(index));
            if worker.builder.is_full() {
                let Worker { builder, compressor, decompressor } = worker;
                lane.writer.put_collected(builder, compressor, decompressor)?;
            }
        }
        Ok(())
    }

    /// Adds chunks that do not fill a segment to those left over by other runs.
    fn end_run(&self, kind: ObjectKind) -> Result<(), VaultError> {
        let lane = self.lane(kind);
        let worker = &mut *self.worker();
        let mut rest = lock(&lane.rest);
        for (id, bytes) in worker.builder.collected() {
            rest.push_known(id, bytes);
            if rest.is_full() {
                lane.writer.put_collected(&mut rest, &mut worker.compressor, &mut worker.decompressor)?;
            }
        }
        worker.builder.clear();
        Ok(())
    }
}
