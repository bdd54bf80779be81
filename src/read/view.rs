//! A vault that stays open for weeks: a catalogue view and a session that last for minutes, and are renewed again and
//! again.
//!
//! A [`Moment`] has a view of the catalogue, which keeps old pages of its file alive, and a session, which keeps packs
//! from being swept (SPEC §8.6). Neither may last for weeks. A [`View`] hands out the newest moment, and takes another
//! one when it is told to, or when a chunk is not where the moment says: packs are copied and deleted while a reader is
//! idle, but a chunk that a snapshot needs always exists somewhere.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::catalogue::{ChunkPlace, Reader};
use crate::id::{ChunkId, ObjectName};
use crate::pack::Openers;
use crate::progress::{Progress, Silent};
use crate::read::chunks::{ChunkReader, PackInfos, Piece};
use crate::sync::lock;
use crate::tree::ChunkSource;
use crate::vault::segments::SegmentCache;
use crate::vault::session::Session;
use crate::vault::{Lookup, ReadError, SnapshotInfo, Vault, VaultError};

/// Number of lost chunks that are remembered, so that they are not searched for again.
const FAILED_KEPT: usize = 1 << 16;
/// Number of packs whose segment places are remembered.
const INFOS_KEPT: usize = 1 << 14;

/// Reads something from a place of a chunk, with the reader that has found it.
type Get<'a, T> = dyn Fn(&ChunkReader<'_>, ChunkPlace) -> Result<T, ReadError> + 'a;

/// The newest moment of a vault, for many threads.
pub struct View {
    vault: Arc<Vault>,
    segments: Arc<SegmentCache>,
    /// The raw bytes of opened segments that are kept.
    cache: usize,
    openers: Openers,
    current: RwLock<Arc<Moment>>,
    /// Held while a newer moment is taken.
    renewing: Mutex<()>,
}

/// A vault as of one look at the store.
pub struct Moment {
    /// Replaced by a newer one once footers were read that the catalogue did not have.
    reader: RwLock<Arc<Reader>>,
    infos: Arc<PackInfos>,
    /// Keeps needed packs from being swept. `None` if no state can be written, or if nobody reads.
    session: Mutex<Option<Session>>,
    snapshots: Arc<Vec<SnapshotInfo>>,
    /// The records of the log at that moment.
    records: Arc<HashSet<ObjectName>>,
    /// Chunks that could not be read although the store had just been looked at.
    failed: Mutex<HashSet<ChunkId>>,
}

impl Moment {
    /// Looks at the store, and takes a moment.
    fn take(vault: &Vault, progress: &dyn Progress) -> Result<Self, VaultError> {
        let session = match vault.begin_reading(progress) {
            Ok(session) => Some(session),
            // If no state can be written, no other process can be told.
            Err(VaultError::State { .. }) => {
                vault.refresh_if_changed(progress)?;
                None
            }
            Err(error) => return Err(error),
        };
        let records = vault.log().records.keys().copied().collect();
        Ok(Self {
            reader: RwLock::new(Arc::new(vault.catalogue().reader()?)),
            infos: Arc::new(PackInfos::new(INFOS_KEPT)),
            session: Mutex::new(session),
            snapshots: Arc::new(vault.snapshots()),
            records: Arc::new(records),
            failed: Mutex::default(),
        })
    }

    /// The snapshots at that moment, the oldest first.
    pub fn snapshots(&self) -> &[SnapshotInfo] {
        &self.snapshots
    }

    /// Whether the moment has this snapshot.
    pub fn has(&self, snapshot: &ObjectName) -> bool {
        self.snapshots.iter().any(|info| info.id == *snapshot)
    }

    /// The records at that moment: while they are the same, so are the snapshots.
    pub const fn records(&self) -> &Arc<HashSet<ObjectName>> {
        &self.records
    }

    fn reader(&self) -> Arc<Reader> {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl View {
    /// Looks at the store, and begins to read. At least `cache` raw bytes of opened segments are kept.
    ///
    /// # Errors
    /// If the store or the catalogue fails.
    pub fn new(vault: Arc<Vault>, cache: usize, progress: &dyn Progress) -> Result<Self, VaultError> {
        let moment = Moment::take(&vault, progress)?;
        let segments = vault.segments(cache);
        Ok(Self {
            vault,
            segments,
            cache,
            openers: Openers::default(),
            current: RwLock::new(Arc::new(moment)),
            renewing: Mutex::default(),
        })
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The newest moment.
    pub fn moment(&self) -> Arc<Moment> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the store, and continues with its present state.
    ///
    /// # Errors
    /// If the store or the catalogue fails; everything then stays as it was.
    pub fn renew(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        let _renewing = lock(&self.renewing);
        self.vault.forget_looks();
        self.put(Moment::take(&self.vault, progress)?);
        Ok(())
    }

    fn put(&self, moment: Moment) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(moment);
    }

    /// Gives up the session until the next renewal, because nobody reads. Reads still work: chunks that have moved are
    /// searched for. Call this again and again during a long rest: old pages of the catalogue's file are kept only
    /// since the last call.
    pub fn rest(&self) {
        let _renewing = lock(&self.renewing);
        let before = self.moment();
        lock(&before.session).take();
        // If the catalogue fails, the next read reports it.
        let Ok(reader) = self.vault.catalogue().reader() else { return };
        self.put(Moment {
            reader: RwLock::new(Arc::new(reader)),
            infos: Arc::new(PackInfos::new(INFOS_KEPT)),
            session: Mutex::default(),
            snapshots: before.snapshots.clone(),
            records: before.records.clone(),
            failed: Mutex::new(lock(&before.failed).clone()),
        });
    }

    /// Forgets the opened segments, unless somebody reads just now. Later reads open them again.
    pub fn forget(&self) {
        // Each reader holds the cache that all share.
        if Arc::strong_count(&self.segments) == 1 {
            self.segments.rest(self.cache);
        }
    }

    /// Marks the catalogue as contradicting the store: it is rebuilt when it is next opened.
    pub fn distrust(&self) {
        self.moment().reader().distrust();
    }

    /// Whether a session keeps data from being swept while it is read.
    pub fn is_at_work(&self) -> bool {
        lock(&self.moment().session).is_some()
    }

    /// A newer moment than the given one.
    fn newer(&self, moment: &Arc<Moment>) -> Result<Arc<Moment>, VaultError> {
        let _renewing = lock(&self.renewing);
        // Another thread may have been first.
        if Arc::ptr_eq(&self.moment(), moment) {
            // The packs are listed even if the log is as it was: a store may have shown too little for a moment.
            self.vault.look_again(None)?;
            let newer = Moment::take(&self.vault, &Silent::default())?;
            if newer.records == moment.records {
                lock(&newer.failed).clone_from(&lock(&moment.failed));
            }
            self.put(newer);
        }
        Ok(self.moment())
    }

    /// A reader of chunks at their places as of a moment.
    fn chunks(&self, moment: &Moment) -> ChunkReader<'_> {
        let lookup = Lookup::with(&self.vault, moment.reader());
        let packs = self.vault.tree_packs().sharing(&self.openers);
        ChunkReader::with(packs, lookup, moment.infos.clone(), self.segments.clone())
    }

    /// Searches for a chunk in a moment. With `bring`, also in packs whose footers were not read yet.
    fn search<T>(&self, moment: &Moment, id: &ChunkId, bring: bool, get: &Get<'_, T>) -> Result<T, ReadError> {
        let chunks = self.chunks(moment);
        let found = chunks.lookup().search(id, bring, |place| get(&chunks, place))?;
        let newest = chunks.lookup().reader();
        if bring && !Arc::ptr_eq(&newest, &moment.reader()) {
            *moment.reader.write().unwrap_or_else(PoisonError::into_inner) = newest;
        }
        found.map_err(|first| first.unwrap_or_else(|| chunks.lookup().lost(id)))
    }

    /// Searches for a chunk, and again in a newer moment if it is not where it should be. Only then is it lost.
    fn look_for<T>(&self, id: &ChunkId, get: &Get<'_, T>) -> Result<T, ReadError> {
        let moment = self.moment();
        let mut found = self.search(&moment, id, false, get);
        if found.as_ref().is_err_and(ReadError::is_contained) && self.vault.unread() > 0 {
            found = self.search(&moment, id, true, get);
        }
        let error = match found {
            Err(error) if error.is_contained() => error,
            found => return found,
        };
        if lock(&moment.failed).contains(id) {
            return Err(error);
        }
        // A store that cannot be asked does not mean that anything is lost.
        let newer = self.newer(&moment).map_err(ReadError::from)?;
        self.search(&newer, id, true, get).inspect_err(|error| {
            let mut failed = lock(&newer.failed);
            if error.is_contained() && failed.len() < FAILED_KEPT {
                failed.insert(*id);
            }
        })
    }

    /// A chunk.
    ///
    /// # Errors
    /// If no place has it, or the store fails.
    pub fn chunk(&self, id: &ChunkId) -> Result<Piece, ReadError> {
        // Whatever is wrong with a place, the chunk is not there.
        self.look_for(id, &|chunks, place| chunks.piece_at(id, place)?.ok_or(ReadError::Lost(*id)))
    }

    /// The place of a chunk: its pack, the segment in it, and the chunk's length in bytes. Reads nothing from the
    /// store, unless the catalogue does not know the chunk.
    ///
    /// # Errors
    /// If no place has it, or the catalogue fails.
    pub fn place(&self, id: &ChunkId) -> Result<ChunkPlace, ReadError> {
        self.look_for(id, &|_, place| Ok(place))
    }
}

impl ChunkSource for &View {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        Ok(View::chunk(self, id)?.bytes().to_vec())
    }
}
