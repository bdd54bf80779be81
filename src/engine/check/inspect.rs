//! Reads packs completely (SPEC §5.4): opens every segment, hashes every chunk, and compares the checksum of the pack.
//!
//! The unit of work is a piece of some segments, so that all threads are busy even with only one pack. The bytes of a pack are read in
//! order, each piece by the next free thread, which also adds it to the checksum; then that thread opens the segments while another one
//! continues reading. A thread starts a new pack as long as there is one, and then helps with others.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;

use crate::id::ObjectName;
use crate::pack::reader::object_key;
use crate::pack::segment::open_segment;
use crate::pack::{Footer, PackError, PackReader, TRAILER_LEN};
use crate::progress::Progress;
use crate::seal::{Decompressor, HEADER_LEN, ObjectKind, ObjectOpener};
use crate::sync::lock;
use crate::vault::{Vault, VaultError};

/// Number of bytes of a pack to read at once, if its segments allow it.
const PIECE: usize = 2 << 20;
/// The same at a far store.
const PIECE_FAR: usize = 4 << 20;

/// A pack as the store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListedPack {
    /// Kind: pack or meta pack.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
    /// Its length, in bytes.
    pub len: u64,
}

/// Result of reading a pack.
#[derive(Debug)]
pub struct Inspection {
    /// Its footer, or why it cannot be read; in that case nothing else was checked.
    pub footer: Result<Footer, PackError>,
    /// Segments that cannot be read, and why.
    pub bad: Vec<(u32, PackError)>,
    /// Whether the checksum of the whole pack is wrong.
    pub is_checksum_wrong: bool,
}

impl Inspection {
    /// Whether every byte is as it was.
    pub fn is_sound(&self) -> bool {
        self.footer.is_ok() && self.bad.is_empty() && !self.is_checksum_wrong
    }
}

/// A pack that is being read.
struct Job {
    pack: ListedPack,
    footer: Footer,
    /// Its key, once the first piece was read.
    opener: OnceLock<Arc<ObjectOpener>>,
    state: Mutex<State>,
}

struct State {
    /// Offset of the next piece, and the number of its first segment.
    offset: u64,
    number: usize,
    /// Hash of all bytes so far; `None` if some could not be read.
    hasher: Option<Box<blake3::Hasher>>,
    trailer: Vec<u8>,
    /// Number of pieces that are being opened.
    outstanding: usize,
    bad: Vec<(u32, PackError)>,
}

/// Some neighbouring segments, and the bytes from the start of the first one; `None` if they could not be read.
struct Piece {
    segments: std::ops::Range<usize>,
    offset: u64,
    bytes: Option<Bytes>,
}

/// State shared by all threads.
struct Inspector<'a> {
    vault: &'a Vault,
    packs: &'a [ListedPack],
    next: AtomicUsize,
    /// Packs that have not been read to their end.
    open: Mutex<Vec<Arc<Job>>>,
    reader: PackReader<'a>,
    /// Number of bytes to read at once.
    piece: usize,
    goes_on: &'a (dyn Fn() -> bool + Sync),
    done: &'a (dyn Fn(&ListedPack, Inspection) -> Result<(), VaultError> + Sync),
    progress: &'a dyn Progress,
}

/// Reads these packs completely, in about this order, on the current thread pool. No further pack is started once `goes_on` returns
/// `false`. The result for each pack is passed to `done`.
///
/// # Errors
/// If the store fails as a whole, `done` fails, or the user stops it.
pub fn inspect(
    vault: &Vault,
    packs: &[ListedPack],
    goes_on: &(dyn Fn() -> bool + Sync),
    done: &(dyn Fn(&ListedPack, Inspection) -> Result<(), VaultError> + Sync),
    progress: &dyn Progress,
) -> Result<(), VaultError> {
    let inspector = Inspector {
        vault,
        packs,
        next: AtomicUsize::new(0),
        open: Mutex::default(),
        reader: vault.pack_reader(),
        piece: if vault.store().is_far() { PIECE_FAR } else { PIECE },
        goes_on,
        done,
        progress,
    };
    rayon::broadcast(|_| inspector.work()).into_iter().collect()
}

impl Inspector<'_> {
    fn work(&self) -> Result<(), VaultError> {
        let result = self.read_all();
        if result.is_err() {
            // End the other threads too.
            self.next.store(self.packs.len(), Relaxed);
            lock(&self.open).clear();
        }
        result
    }

    fn read_all(&self) -> Result<(), VaultError> {
        let mut decompressor = Decompressor::new()?;
        let mut current: Option<Arc<Job>> = None;
        loop {
            if self.progress.stopped() {
                return Err(VaultError::Interrupted);
            }
            let Some(job) = current.take().map_or_else(|| self.next_job(), |job| Ok(Some(job)))? else { return Ok(()) };
            if let Some(piece) = self.take_piece(&job)? {
                self.open_piece(&job, piece, &mut decompressor)?;
                current = Some(job);
            }
        }
    }

    /// A pack with bytes left to read: preferably a new one.
    fn next_job(&self) -> Result<Option<Arc<Job>>, VaultError> {
        while (self.goes_on)() {
            let Some(pack) = self.packs.get(self.next.fetch_add(1, Relaxed)) else { break };
            match self.reader.footer(pack.kind, pack.name, pack.len) {
                Ok(footer) => {
                    let state = State {
                        offset: 0,
                        number: 0,
                        hasher: Some(Box::default()),
                        trailer: Vec::new(),
                        outstanding: 0,
                        bad: Vec::new(),
                    };
                    let job = Arc::new(Job { pack: *pack, footer, opener: OnceLock::new(), state: Mutex::new(state) });
                    lock(&self.open).push(job.clone());
                    return Ok(Some(job));
                }
                Err(error) => self.without_frame(pack, error)?,
            }
        }
        // The one with the most bytes left to read.
        let left = |job: &Arc<Job>| job.pack.len - lock(&job.state).offset;
        // The list must not be locked together with a pack: other code locks the pack first.
        let open = lock(&self.open).clone();
        Ok(open.into_iter().max_by_key(left))
    }

    /// Passes on that header or footer of a pack cannot be read, so that nothing else of it is checked.
    fn without_frame(&self, pack: &ListedPack, error: PackError) -> Result<(), VaultError> {
        if !error.is_of_pack() {
            return Err(error.into());
        }
        (self.done)(pack, Inspection { footer: Err(error), bad: Vec::new(), is_checksum_wrong: false })?;
        self.progress.counters().add(1, pack.len);
        Ok(())
    }

    /// Takes the header out of the first piece, or reads it, if the piece as a whole cannot be read.
    fn open_header(&self, job: &Job, piece: Option<&Bytes>) -> Result<(), PackError> {
        let (kind, name) = (job.pack.kind, job.pack.name);
        let opener = match piece.and_then(|bytes| bytes.get(..HEADER_LEN)) {
            Some(header) => self.reader.opener_of(kind, name, header),
            None => self.reader.opener_by_footer(kind, name),
        };
        let opener = opener?;
        job.opener.get_or_init(|| opener);
        Ok(())
    }

    /// Reads the next piece of a pack. `None` if everything has been read, or the header does not open.
    fn take_piece(&self, job: &Arc<Job>) -> Result<Option<Piece>, VaultError> {
        let mut state = lock(&job.state);
        let (offset, first) = (state.offset, state.number);
        if offset == job.pack.len {
            return Ok(None);
        }
        // Whole segments, up to the length of a piece; the header is read with the first piece, the bytes after the segments with the
        // last.
        let mut number = first;
        let mut len = if offset == 0 { HEADER_LEN } else { 0 };
        while let Some(entry) = job.footer.segments.get(number)
            && (number == first || len + entry.sealed_len as usize <= self.piece)
        {
            len += entry.sealed_len as usize;
            number += 1;
        }
        if number == job.footer.segments.len() {
            len = len.max((job.pack.len - offset).min(self.piece as u64) as usize);
        }
        let key = object_key(job.pack.kind, job.pack.name);
        let bytes = match self.vault.store().get_range(&key, offset, len) {
            Ok(bytes) => {
                let before_trailer =
                    (job.pack.len - TRAILER_LEN as u64).saturating_sub(offset).min(len as u64) as usize;
                if let Some(hasher) = &mut state.hasher {
                    hasher.update(&bytes[..before_trailer]);
                }
                state.trailer.extend_from_slice(&bytes[before_trailer..]);
                Some(bytes)
            }
            Err(error) => {
                let error = PackError::from(error);
                if !error.is_of_pack() {
                    return Err(error.into());
                }
                state.hasher = None;
                if first == number {
                    // It has no segment in it: it is padding, or the footer, which could be read before.
                    state.bad.push((number as u32, error));
                }
                None
            }
        };
        if offset == 0
            && let Err(error) = self.open_header(job, bytes.as_ref())
        {
            // No other thread finds anything left to read.
            state.offset = job.pack.len;
            drop(state);
            lock(&self.open).retain(|other| !Arc::ptr_eq(other, job));
            return self.without_frame(&job.pack, error).map(|()| None);
        }
        state.offset += len as u64;
        state.number = number;
        state.outstanding += 1;
        if state.offset == job.pack.len {
            lock(&self.open).retain(|other| !Arc::ptr_eq(other, job));
        }
        Ok(Some(Piece { segments: first..number, offset, bytes }))
    }

    /// Opens the segments of a piece. The thread that opens the last one of a pack passes on the result.
    fn open_piece(&self, job: &Job, piece: Piece, decompressor: &mut Decompressor) -> Result<(), VaultError> {
        let key = object_key(job.pack.kind, job.pack.name);
        let mut bad = Vec::new();
        let mut offset = if piece.offset == 0 { HEADER_LEN as u64 } else { piece.offset };
        for number in piece.segments {
            let entry = &job.footer.segments[number];
            let len = entry.sealed_len as usize;
            let at = (offset - piece.offset) as usize;
            let opened = match &piece.bytes {
                Some(bytes) => self.open(job, number, &bytes[at..at + len], decompressor),
                // Segments that cannot be read together may be readable one by one.
                None => match self.vault.store().get_range(&key, offset, len) {
                    Ok(sealed) => self.open(job, number, &sealed, decompressor),
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(error) = opened {
                if !error.is_of_pack() {
                    return Err(error.into());
                }
                bad.push((number as u32, error));
            }
            offset += len as u64;
            self.progress.counters().bytes_read.fetch_add(len as u64, Relaxed);
            self.progress.counters().add(0, len as u64);
        }
        let mut state = lock(&job.state);
        state.bad.append(&mut bad);
        state.outstanding -= 1;
        if state.outstanding > 0 || state.offset < job.pack.len {
            return Ok(());
        }
        let is_checksum_wrong =
            state.hasher.take().is_some_and(|hasher| hasher.finalize().as_bytes()[..] != state.trailer[..]);
        let mut bad = std::mem::take(&mut state.bad);
        drop(state);
        bad.sort_by_key(|(number, _)| *number);
        let sealed: u64 = job.footer.segments.iter().map(|entry| u64::from(entry.sealed_len)).sum();
        self.progress.counters().add(1, job.pack.len - sealed);
        (self.done)(&job.pack, Inspection { footer: Ok(job.footer.clone()), bad, is_checksum_wrong })
    }

    fn open(&self, job: &Job, number: usize, sealed: &[u8], decompressor: &mut Decompressor) -> Result<(), PackError> {
        let key = object_key(job.pack.kind, job.pack.name);
        let expected = Some(job.footer.segments[number].chunks.as_slice());
        let keys = self.vault.keys();
        let unopened = || PackError::Damaged { object: key, what: "its header was not read".to_owned() };
        let opener = job.opener.get().ok_or_else(unopened)?;
        open_segment(keys, opener, &key, number as u32, sealed, expected, decompressor).map(drop)
    }
}
