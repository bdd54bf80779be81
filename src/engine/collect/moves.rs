//! Copies what is needed out of packs that are given up. Segments that are needed wholly are sealed again as they are; from
//! others, the needed chunks are taken and compressed anew.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::catalogue::PackInfo;
use crate::catalogue::packs::NewPack;
use crate::pack::reader::object_key;
use crate::pack::segment::open_segment;
use crate::pack::{FinishedPack, Footer, PackError, PackReader, PackWriter, SealedBody, SegmentBuilder};
use crate::progress::Progress;
use crate::seal::{Compressor, Decompressor, ObjectKind, SEGMENT_HEAD_LEN, SealError};
use crate::store::ObjectKey;
use crate::sync::lock;
use crate::vault::client::Session;
use crate::vault::{Vault, VaultError};

/// What is needed of one pack.
#[derive(Debug)]
pub struct Needed {
    /// The pack.
    pub number: u32,
    /// Where it lies.
    pub info: PackInfo,
    /// Its index, read from the store.
    pub footer: Footer,
    /// For each segment the positions of the chunks that are needed from here, sorted.
    pub chunks: Vec<Vec<u32>>,
}

impl Needed {
    /// Whether anything is needed of it.
    pub fn any(&self) -> bool {
        self.chunks.iter().any(|chunks| !chunks.is_empty())
    }
}

/// How it is copied.
#[derive(Debug, Clone, Copy)]
pub struct MoveOptions {
    /// zstd level for what is compressed anew.
    pub level: i32,
    /// Open what was sealed before it is put.
    pub verify: bool,
}

/// What was copied.
#[derive(Debug, Default)]
pub struct Moved {
    /// Packs of which something cannot be read; they must stay.
    pub failed: BTreeSet<u32>,
    /// Bytes of the packs that were put.
    pub bytes_stored: u64,
}

struct Worker {
    data: Lane,
    meta: Lane,
    compressor: Compressor,
    decompressor: Decompressor,
}

/// What a worker has for packs of one kind.
#[derive(Default)]
struct Lane {
    /// Chunks that are compressed anew.
    builder: SegmentBuilder,
    /// Segments that are copied as they are, for which the open pack has no room: shorter ones may still fill it.
    waiting: Vec<SealedBody>,
}

/// So many segments wait at most. Packs are of one size, so what stays empty at their ends takes space.
const WAITING: usize = 4;

impl Worker {
    const fn parts(&mut self, kind: ObjectKind) -> (&mut Lane, &mut Compressor, &mut Decompressor) {
        let lane = match kind {
            ObjectKind::Meta => &mut self.meta,
            _ => &mut self.data,
        };
        (lane, &mut self.compressor, &mut self.decompressor)
    }
}

struct Mover<'a> {
    vault: &'a Vault,
    reader: PackReader<'a>,
    carried: &'a HashSet<(u32, u32)>,
    workers: Vec<Mutex<Worker>>,
    data: PackWriter<'a>,
    meta: PackWriter<'a>,
    failed: Mutex<BTreeSet<u32>>,
    progress: &'a dyn Progress,
}

/// Copies what is needed of these packs into new ones, which are durable and in the catalogue when this returns. Works on
/// the current thread pool.
///
/// # Errors
/// If the store or the catalogue fails. A pack that is damaged is only noted.
pub(crate) fn move_needed(
    vault: &Vault,
    session: &Session,
    packs: &[Needed],
    carried: &HashSet<(u32, u32)>,
    options: MoveOptions,
    progress: &dyn Progress,
) -> Result<Moved, VaultError> {
    let (sender, received) = sync_channel::<FinishedPack>(0);
    let hand_on = |sender: &std::sync::mpsc::SyncSender<FinishedPack>| {
        let sender = sender.clone();
        move |pack| sender.send(pack).is_ok()
    };
    let worker = || -> Result<Mutex<Worker>, SealError> {
        Ok(Mutex::new(Worker {
            data: Lane::default(),
            meta: Lane::default(),
            compressor: Compressor::new(options.level)?,
            decompressor: Decompressor::new()?,
        }))
    };
    let threads = rayon::current_num_threads().max(1);
    let mover = Mover {
        vault,
        reader: PackReader::new(vault.store(), vault.keys()),
        carried,
        workers: (0..threads).map(|_| worker()).collect::<Result<_, _>>()?,
        data: PackWriter::new(vault.keys(), ObjectKind::Pack, options.verify, hand_on(&sender)),
        meta: PackWriter::new(vault.keys(), ObjectKind::Meta, options.verify, hand_on(&sender)),
        failed: Mutex::default(),
        progress,
    };
    drop(sender);
    let (moved, put) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(vault, session, received, progress));
        let moved = mover.run(packs);
        let failed = std::mem::take(&mut *lock(&mover.failed));
        drop(mover);
        (moved.map(|()| failed), publisher.join().unwrap_or(Err(VaultError::Interrupted)))
    });
    // If putting failed, copying only noticed that nobody took its packs.
    let new = put?;
    let failed = moved?;
    let bytes_stored = new.iter().map(|pack| pack.len).sum();
    if !new.is_empty() {
        vault.catalogue().enter_packs(&new)?;
    }
    Ok(Moved { failed, bytes_stored })
}

/// Puts finished packs into the store.
fn publish(
    vault: &Vault,
    session: &Session,
    received: Receiver<FinishedPack>,
    progress: &dyn Progress,
) -> Result<Vec<NewPack>, VaultError> {
    let mut new = Vec::new();
    while let Ok(pack) = received.recv() {
        let len = pack.bytes.len() as u64;
        session.note_pack(&pack.name)?;
        vault.store().put(&ObjectKey::Named(pack.kind.store_kind(), pack.name), &pack.bytes)?;
        progress.counters().bytes_stored.fetch_add(len, Relaxed);
        new.push(NewPack { kind: pack.kind, name: pack.name, len, footer: pack.footer });
    }
    Ok(new)
}

impl Mover<'_> {
    fn run(&self, packs: &[Needed]) -> Result<(), VaultError> {
        let segments: Vec<(&Needed, u32)> = packs
            .iter()
            .flat_map(|pack| (0..pack.chunks.len() as u32).map(move |number| (pack, number)))
            .filter(|(pack, number)| !pack.chunks[*number as usize].is_empty())
            .collect();
        // In order: if the store becomes full, what was copied by then makes the first packs superfluous.
        let next = AtomicUsize::new(0);
        let copied = rayon::broadcast(|_| {
            while let Some((pack, number)) = segments.get(next.fetch_add(1, Relaxed)) {
                if let Err(error) = self.copy(pack, *number) {
                    next.store(segments.len(), Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        });
        copied.into_iter().collect::<Result<(), VaultError>>()?;
        for worker in &self.workers {
            let worker = &mut *lock(worker);
            for kind in [ObjectKind::Pack, ObjectKind::Meta] {
                self.settle(worker, kind, 0)?;
                while !worker.parts(kind).0.builder.is_empty() {
                    self.flush(worker, kind)?;
                }
            }
        }
        self.data.finish()?;
        self.meta.finish()?;
        Ok(())
    }

    /// Copies what is needed of a segment; notes a pack that is damaged.
    fn copy(&self, pack: &Needed, number: u32) -> Result<(), VaultError> {
        if self.progress.stopped() {
            return Err(VaultError::Interrupted);
        }
        if lock(&self.failed).contains(&pack.number) {
            return Ok(());
        }
        match self.move_segment(pack, number) {
            Err(VaultError::Pack(error)) if error.is_damage() => {
                self.progress.warn(&format!("{error}; its pack stays as it is"));
                lock(&self.failed).insert(pack.number);
                Ok(())
            }
            done => done,
        }
    }

    fn writer(&self, kind: ObjectKind) -> &PackWriter<'_> {
        if kind == ObjectKind::Meta { &self.meta } else { &self.data }
    }

    fn move_segment(&self, pack: &Needed, number: u32) -> Result<(), VaultError> {
        let entry = &pack.footer.segments[number as usize];
        let needed = &pack.chunks[number as usize];
        let kind = pack.info.kind;
        let key = object_key(kind, pack.info.name);
        let damaged = |what: &str| PackError::Damaged { object: key.to_string(), what: what.to_owned() };
        let place = pack.info.place(number).ok_or_else(|| damaged("its footer has more segments than before"))?;
        let sealed = self.vault.store().get_range(&key, place.offset, entry.sealed_len as usize)?;
        self.progress.counters().add(0, u64::from(entry.sealed_len));
        let opener = self.reader.opener(kind, pack.info.name)?;
        let worker = &mut *lock(&self.workers[rayon::current_thread_index().unwrap_or(0) % self.workers.len()]);
        if needed.len() == entry.chunks.len() || self.carried.contains(&(pack.number, number)) {
            let mut buffer = Vec::with_capacity(sealed.len() + SEGMENT_HEAD_LEN);
            buffer.resize(SEGMENT_HEAD_LEN, 0);
            opener.open_segment(number, &sealed, &mut buffer).map_err(|error| damaged(&error.to_string()))?;
            let body = SealedBody::reused(buffer, entry).map_err(|error| damaged(&error.to_string()))?;
            worker.parts(kind).0.waiting.push(body);
            return self.settle(worker, kind, WAITING);
        }
        let expected = Some(entry.chunks.as_slice());
        let keys = self.vault.keys();
        let segment = open_segment(keys, &opener, &key, number, &sealed, expected, &mut worker.decompressor)?;
        for index in needed {
            let (id, offset, len) = segment.chunks[*index as usize];
            let bytes = &segment.raw[offset as usize..(offset + len) as usize];
            let builder = &mut worker.parts(kind).0.builder;
            builder.push_known(id, bytes);
            if builder.is_full() {
                self.flush(worker, kind)?;
            }
        }
        Ok(())
    }

    fn flush(&self, worker: &mut Worker, kind: ObjectKind) -> Result<(), VaultError> {
        let (lane, compressor, decompressor) = worker.parts(kind);
        self.writer(kind).put_collected(&mut lane.builder, compressor, decompressor)?;
        Ok(())
    }

    /// Puts the segments that wait, the longest first that the open pack has room for; so many may go on waiting for it to
    /// be filled.
    fn settle(&self, worker: &mut Worker, kind: ObjectKind, waiting: usize) -> Result<(), VaultError> {
        let writer = self.writer(kind);
        let (lane, _, decompressor) = worker.parts(kind);
        loop {
            let room = writer.room();
            let fitting = lane.waiting.iter().enumerate().filter(|(_, body)| body.room() <= room);
            let next = match fitting.max_by_key(|(_, body)| body.room()) {
                Some((index, _)) => index,
                None if lane.waiting.len() > waiting => 0, // begins the next pack
                None => return Ok(()),
            };
            writer.put(lane.waiting.remove(next), decompressor)?;
        }
    }
}
