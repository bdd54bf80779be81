//! Finds chunks without knowing all packs (SPEC §9.1), through the index objects of the store.
//!
//! When a vault is opened only for reading, footers that the catalogue does not have stay unread. A chunk that the
//! catalogue does not know is looked up in the index objects; the footer of the pack that they name is read and
//! entered, and so are all other chunks of that pack. Only footers are entered, never the content of an index object.
//! How many unread footers are so few that they are all read at once, and how many are read one by one before the others
//! are, depends on what a request costs: in a folder of this machine next to nothing, elsewhere a round trip.
//! If the index objects name no pack, or a wrong one, all remaining footers are read: those of packs that no index
//! object describes first. So nothing is called lost before every footer was read.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use crate::catalogue::packs::NewPack;
use crate::catalogue::{CatalogueError, ChunkPlace, PackInfo, Reader};
use crate::id::{ChunkId, ObjectName};
use crate::pack::index::{IndexHead, IndexReader, IndexedPack, Start, start_of};
use crate::pack::{PackError, PackReader};
use crate::progress::{Phase, Progress, Silent};
use crate::seal::ObjectKind;
use crate::store::{Delivery, Kind, ObjectKey, StoreError};
use crate::sync::{lock, try_share};
use crate::vault::{BadObject, ObjectState, ReadError, Vault, VaultError};

/// Number of packs whose footers are read together.
const GROUP: usize = 256;
/// Fewest chunks that one transaction enters, if there are that many: each transaction rewrites a good part of the
/// existing chunks.
const CHUNKS_TOGETHER: usize = 1 << 20;
/// If no more footers than this are unread, they are all read at once.
const FEW: usize = 64;
/// The same at a far store, where a footer costs a round trip, and most work needs few of them.
const FEW_FAR: usize = 8;
/// Limits of reading footers one by one: once their number exceeds the first, and exceeds the number of all packs divided
/// by the second, the remaining footers are all read.
const ONE_BY_ONE: (usize, usize) = (256, 8);
/// Index objects of a far store that have no more bytes together are read whole: a range of one costs a round trip, in
/// which a slow line brings about as much.
const WHOLE_TOGETHER: u64 = 1 << 20;
/// Number of fence tables that are read before the replaced objects are skipped.
const HEADS_AT_ONCE: usize = 64;

/// A pack as it was listed: its name, its kind, and its length in bytes.
type Pack = (ObjectName, ObjectKind, u64);

/// Packs whose footers were not read yet, and the index objects that may describe them.
#[derive(Default)]
pub(crate) struct Unread {
    packs: HashMap<ObjectName, (ObjectKind, u64)>,
    /// The same packs, by the first bytes of their names.
    by_start: HashMap<Start, Vec<ObjectName>>,
    /// The index objects, the largest first, once they were read.
    heads: Option<Vec<IndexHead>>,
    /// Number of footers that were read one by one.
    brought: usize,
}

impl Unread {
    pub(crate) fn new(packs: HashMap<ObjectName, (ObjectKind, u64)>) -> Self {
        let mut by_start: HashMap<Start, Vec<ObjectName>> = HashMap::new();
        packs.keys().for_each(|name| by_start.entry(start_of(name)).or_default().push(*name));
        Self { packs, by_start, heads: None, brought: 0 }
    }

    fn take(&mut self, wanted: impl Fn(&ObjectName) -> bool) -> Vec<Pack> {
        let taken: Vec<_> = self.packs.extract_if(|name, _| wanted(name)).collect();
        let mut taken: Vec<_> = taken.into_iter().map(|(name, (kind, len))| (name, kind, len)).collect();
        taken.sort_unstable();
        taken
    }
}

/// Separates errors of one object from errors of the whole store, which any other object would have met too.
pub(super) fn unless_of_whole<T>(read: Result<T, PackError>) -> Result<Result<T, PackError>, StoreError> {
    match read {
        Err(PackError::Store(error)) if error.is_of_whole() => Err(error),
        read => Ok(read),
    }
}

impl Vault {
    /// Number of footers that were not read yet.
    pub fn unread(&self) -> usize {
        lock(&self.unread).packs.len()
    }

    /// Whether these are so few unread footers that the index objects are not worth asking.
    pub(super) fn are_few(&self, unread: usize) -> bool {
        unread <= if self.store.is_far() { FEW_FAR } else { FEW }
    }

    /// Number of footers that are read one by one, of this number of packs, before the remaining ones are all read. At a
    /// far store as many as take about as long as all together, which come many at a time: so no work takes more than twice
    /// as long as with either way alone.
    fn one_by_one(&self, all: usize) -> usize {
        if self.store.is_far() {
            FEW_FAR.max(all / self.store.small_reads().max(1))
        } else {
            ONE_BY_ONE.0.max(all / ONE_BY_ONE.1)
        }
    }

    /// Reads all footers that were not read yet, and from now on those of new packs at once. Work that has to know all
    /// stored chunks begins with this.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole, or the user stops it.
    pub fn know_all(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        self.lazy.store(false, Relaxed);
        if self.unread() == 0 {
            return Ok(());
        }
        let bad = self.read_unread(progress)?;
        self.note_bad(bad)
    }

    /// Reads all footers that were not read yet. Returns the packs that cannot be read, with the reasons.
    ///
    /// # Errors
    /// As [`Self::know_all`].
    pub(super) fn read_unread(&self, progress: &dyn Progress) -> Result<Vec<BadObject>, VaultError> {
        let mut unread = lock(&self.unread);
        let packs = unread.take(|_| true);
        self.read_taken(&mut unread, packs, progress)
    }

    /// As [`Self::read_footers`], for packs taken out of `unread`. If it ends early, they are put back: what could not be
    /// asked for is not lost.
    fn read_taken(
        &self,
        unread: &mut Unread,
        packs: Vec<Pack>,
        progress: &dyn Progress,
    ) -> Result<Vec<BadObject>, VaultError> {
        let read = self.read_footers(&packs, progress);
        if read.is_err() {
            unread.packs.extend(packs.into_iter().map(|(name, kind, len)| (name, (kind, len))));
        }
        self.learned();
        read
    }

    /// Reads the footers of these packs, and enters them in the catalogue. Returns the packs that cannot be read, with
    /// the reasons.
    fn read_footers(&self, new: &[Pack], progress: &dyn Progress) -> Result<Vec<BadObject>, VaultError> {
        let mut bad = Vec::new();
        if new.is_empty() {
            return Ok(bad);
        }
        progress.counters().restart(new.len() as u64, new.iter().map(|(_, _, len)| len).sum());
        progress.phase(Phase::Catalogue);
        let reader = PackReader::new(self.store(), &self.keys);
        let (mut packs, mut chunks) = (Vec::new(), 0);
        let mut groups = new.chunks(GROUP).peekable();
        while let Some(group) = groups.next() {
            let read = try_share(group.len(), self.store.small_reads(), |at| {
                let (name, kind, len) = group[at];
                let footer = match reader.footer(kind, name, len) {
                    Err(PackError::Store(error)) if error.is_of_whole() => return Err(error),
                    footer => footer,
                };
                progress.counters().add(1, len);
                Ok(footer)
            })?;
            for ((name, kind, len), footer) in group.iter().copied().zip(read) {
                match footer {
                    Ok(footer) => {
                        chunks += footer.segments.iter().map(|segment| segment.chunks.len()).sum::<usize>();
                        packs.push(NewPack { kind, name, len, footer });
                    }
                    // It may have been swept since it was listed.
                    Err(PackError::Store(StoreError::Missing { .. })) => {}
                    Err(error) => {
                        let newer = matches!(error, PackError::Newer { .. });
                        let key = ObjectKey::Named(kind.store_kind(), name);
                        bad.push(BadObject { key, state: ObjectState::of_unread(newer), what: error.reason() });
                    }
                }
            }
            if chunks >= CHUNKS_TOGETHER || groups.peek().is_none() {
                self.catalogue.enter_packs(&std::mem::take(&mut packs))?;
                chunks = 0;
            }
            if progress.stopped() {
                return Err(VaultError::Interrupted);
            }
        }
        Ok(bad)
    }

    /// Notes objects that turned out to be unreadable since the last look at the store.
    pub(crate) fn note_bad(&self, mut bad: Vec<BadObject>) -> Result<(), VaultError> {
        let (chains, mut elsewhere) = {
            let log = self.log();
            (log.chains.clone(), log.elsewhere.clone())
        };
        self.set_aside(&mut bad, &mut elsewhere, &chains)?;
        let mut log = self.log();
        log.elsewhere = elsewhere;
        log.bad.extend(bad);
        Ok(())
    }

    /// Readers take a newer view of the catalogue before they call anything lost.
    pub(super) fn learned(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    /// The index objects of the last listing.
    pub(crate) fn index_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.listed_indexes().into_iter().map(|(name, _)| ObjectKey::Named(Kind::Index, name))
    }

    /// The index objects of the last listing with their lengths, the longest first.
    pub(crate) fn listed_indexes(&self) -> Vec<(ObjectName, u64)> {
        let mut listed: Vec<_> = self.log().indexes.iter().map(|(name, len)| (*name, *len)).collect();
        listed.sort_unstable_by_key(|(name, len)| (std::cmp::Reverse(*len), *name));
        listed
    }

    /// Fence tables of the index objects that no other one replaces; unreadable ones are skipped.
    fn heads(&self) -> Result<Vec<IndexHead>, StoreError> {
        let listed = self.listed_indexes();
        let together = listed.iter().fold(0_u64, |sum, (_, len)| sum.saturating_add(*len));
        let whole = if self.store.is_far() && together <= WHOLE_TOGETHER { WHOLE_TOGETHER } else { 0 };
        let reader = IndexReader::new(self.store(), self.keys()).with_tail(whole);
        let mut replaced: HashSet<ObjectName> = HashSet::new();
        let mut heads: Vec<IndexHead> = Vec::new();
        for some in listed.chunks(HEADS_AT_ONCE) {
            let some: Vec<_> = some.iter().filter(|(name, _)| !replaced.contains(name)).collect();
            let read = try_share(some.len(), self.store.limits().reads, |at| {
                unless_of_whole(reader.head(some[at].0, some[at].1)).map(Result::ok)
            })?;
            for head in read.into_iter().flatten() {
                replaced.extend(head.fence.replaced.iter().filter(|name| **name != head.name));
                heads.push(head);
            }
        }
        heads.retain(|head| !replaced.contains(&head.name));
        Ok(heads)
    }

    /// Reads the footers of unread packs that may have this chunk. `known` is the generation that the caller has seen,
    /// and is updated. Returns whether there is something new to look at.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    fn bring(&self, id: &ChunkId, known: &mut u64) -> Result<bool, ReadError> {
        let mut unread = lock(&self.unread);
        let now = self.generation.load(Relaxed);
        if now != *known {
            *known = now;
            return Ok(true);
        }
        if unread.packs.is_empty() {
            return Ok(false);
        }
        let packs = self.candidates(&mut unread, id)?;
        let read = self.read_taken(&mut unread, packs, &Silent::default());
        *known = self.generation.load(Relaxed);
        drop(unread);
        self.note_bad(read?)?;
        Ok(true)
    }

    /// The packs whose footers to read next in search of a chunk.
    fn candidates(&self, unread: &mut Unread, id: &ChunkId) -> Result<Vec<Pack>, ReadError> {
        let all = unread.packs.len() + unread.brought;
        if unread.brought > self.one_by_one(all) {
            return Ok(unread.take(|_| true));
        }
        let reader = IndexReader::new(self.store(), self.keys());
        let heads = match unread.heads.take() {
            Some(heads) => heads,
            None => self.heads().map_err(PackError::from)?,
        };
        let (mut found, mut sound) = (Vec::new(), Vec::new());
        for head in heads {
            // The first object that names a pack is enough: if it is wrong, the next search asks the others.
            let starts = if found.is_empty() { reader.look_up(&head, id) } else { Ok(Vec::new()) };
            // An object that is damaged here is not asked about others either.
            let Ok(starts) = unless_of_whole(starts).map_err(PackError::from)? else { continue };
            let named = starts.iter().filter_map(|start| unread.by_start.get(start)).flatten();
            found.extend(named.filter(|name| unread.packs.contains_key(*name)).copied());
            sound.push(head);
        }
        if found.is_empty() {
            let reads = self.store.limits().reads;
            let lists = try_share(sound.len(), reads, |at| unless_of_whole(reader.packs(&sound[at])));
            let lists = lists.map_err(PackError::from)?.into_iter().flatten();
            let is_as_listed =
                |pack: &IndexedPack| unread.packs.get(&pack.name).is_some_and(|(_, len)| *len == pack.len);
            let described: HashSet<ObjectName> = lists.flatten().filter(is_as_listed).map(|pack| pack.name).collect();
            let others = unread.take(|name| !described.contains(name));
            unread.heads = Some(sound);
            return Ok(if others.is_empty() { unread.take(|_| true) } else { others });
        }
        unread.heads = Some(sound);
        unread.brought += found.len();
        let found: HashSet<ObjectName> = found.into_iter().collect();
        Ok(found
            .iter()
            .filter_map(|name| unread.packs.remove_entry(name))
            .map(|(name, (kind, len))| (name, kind, len))
            .collect())
    }
}

/// Places of chunks: those in the catalogue, and those learned meanwhile. For many threads.
pub struct Lookup<'a> {
    vault: &'a Vault,
    /// The generation when the view was taken, and the view.
    current: Mutex<(u64, Arc<Reader>)>,
    /// The snapshots that need the chunks, if they are known.
    needed_by: Vec<ObjectName>,
    /// Whether the chunks may just not have arrived yet.
    may_be_late: bool,
    /// Whether the store is looked at once more before anything is called lost. Work that deletes decides by one look at the
    /// log, and takes no other in between.
    looks_again: bool,
    /// States of objects that could not be read, if they may be late: finding one out means reading all of the object.
    states: Mutex<HashMap<ObjectKey, ObjectState>>,
}

impl<'a> Lookup<'a> {
    /// The vault whose chunks it finds.
    pub(crate) const fn vault(&self) -> &'a Vault {
        self.vault
    }

    /// The error for a chunk that has no place.
    pub(crate) fn lost(&self, id: &ChunkId) -> ReadError {
        self.judged(self.vault.lost(id))
    }

    /// The same, for chunks that these snapshots need: see [`Vault::judged`].
    #[must_use]
    pub fn needed_by(self, snapshots: impl IntoIterator<Item = ObjectName>) -> Self {
        let needed_by: Vec<ObjectName> = snapshots.into_iter().collect();
        Self { may_be_late: self.vault.may_be_late(needed_by.iter().copied()), needed_by, looks_again: true, ..self }
    }

    /// The same, for work that only reads: what another machine has moved meanwhile is found at its new place.
    #[must_use]
    pub(crate) fn looking_again(self) -> Self {
        Self { looks_again: true, ..self }
    }

    /// As [`Vault::judged`], for the snapshots that need what is looked up here.
    pub(crate) fn judged(&self, error: ReadError) -> ReadError {
        let is_late = self.is_late(self.may_be_late, &error);
        self.vault.verdict(error, is_late, self.needed_by.iter().copied())
    }

    /// As [`Vault::judged`], for snapshots of which this is known: see [`Vault::may_be_late`].
    pub(crate) fn judged_if(&self, may_be_late: bool, error: ReadError) -> ReadError {
        if self.is_late(may_be_late, &error) { ReadError::NotArrived } else { error }
    }

    /// Whether what this error is about may just not have arrived yet.
    pub(crate) fn is_late(&self, may_be_late: bool, error: &ReadError) -> bool {
        if !may_be_late || !error.is_damage() || self.vault.delivery() == Delivery::Direct {
            return false;
        }
        let state = match error.object() {
            None => self.vault.state_of_unread(error, true),
            Some(object) => {
                let mut states = lock(&self.states);
                *states.entry(*object).or_insert_with(|| self.vault.state_of_unread(error, true))
            }
        };
        state == ObjectState::NotArrived
    }

    /// Starts with the catalogue of this moment.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn new(vault: &'a Vault) -> Result<Self, CatalogueError> {
        let known = vault.generation.load(Relaxed);
        let current = Mutex::new((known, Arc::new(vault.catalogue().reader()?)));
        Ok(Self {
            vault,
            current,
            needed_by: Vec::new(),
            may_be_late: false,
            looks_again: false,
            states: Mutex::default(),
        })
    }

    /// As [`Self::new`], with this view of the catalogue until something has to be learned.
    pub fn with(vault: &'a Vault, reader: Arc<Reader>) -> Self {
        // How much was learned since it was taken is unknown: the first miss takes a newer one.
        let current = Mutex::new((u64::MAX, reader));
        Self { vault, current, needed_by: Vec::new(), may_be_late: false, looks_again: false, states: Mutex::default() }
    }

    /// The newest view of the catalogue.
    pub fn reader(&self) -> Arc<Reader> {
        lock(&self.current).1.clone()
    }

    /// A newer view than `seen`, in which this chunk may have further places. `None` if nothing is left to learn.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn more(&self, id: &ChunkId, seen: &Arc<Reader>) -> Result<Option<Arc<Reader>>, ReadError> {
        let mut current = lock(&self.current);
        let (known, reader) = &mut *current;
        if Arc::ptr_eq(reader, seen) {
            if !self.vault.bring(id, known)? {
                return Ok(None);
            }
            *reader = Arc::new(self.vault.catalogue().reader()?);
        }
        Ok(Some(reader.clone()))
    }

    /// A place of a chunk, if it is stored.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<ChunkPlace>, ReadError> {
        let mut reader = self.reader();
        loop {
            if let Some(place) = reader.locate(id).inspect_err(|_| reader.distrust())? {
                return Ok(Some(place));
            }
            match self.more(id, &reader)? {
                Some(newer) => reader = newer,
                None => return Ok(None),
            }
        }
    }

    /// The next place of a chunk after this one, or its first. Places that become known only later come last.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn next_place(&self, id: &ChunkId, after: Option<ChunkPlace>) -> Result<Option<ChunkPlace>, ReadError> {
        let mut reader = self.reader();
        loop {
            let places = reader.locate_all(id).inspect_err(|_| reader.distrust())?;
            let next = places.into_iter().filter(|place| after.is_none_or(|after| *place > after)).min();
            if next.is_some() {
                return Ok(next);
            }
            match self.more(id, &reader)? {
                Some(newer) => reader = newer,
                None => return Ok(None),
            }
        }
    }

    /// Tries the places of a chunk, one after the other, until `get` succeeds with one, including places that become
    /// known only then. Returns `None` if there are no places.
    ///
    /// # Errors
    /// If `get` fails for all of them: the error of the first.
    pub fn try_places<T>(
        &self,
        id: &ChunkId,
        get: impl FnMut(ChunkPlace) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        match self.search(id, true, get)? {
            Ok(found) => Ok(Some(found)),
            Err(first) => {
                self.reader().distrust();
                first.map_or(Ok(None), |error| Err(self.judged(error)))
            }
        }
    }

    /// Tries the places of a chunk, one after the other, until `get` succeeds with one. If it `learns`, also places that
    /// become known only then. If `get` fails for all of them, returns the error of the first, if there is one.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub(crate) fn search<T>(
        &self,
        id: &ChunkId,
        learns: bool,
        mut get: impl FnMut(ChunkPlace) -> Result<T, ReadError>,
    ) -> Result<Result<T, Option<ReadError>>, ReadError> {
        let (mut reader, mut tried, mut first) = (self.reader(), Vec::new(), None);
        let mut looks_again = learns && self.looks_again;
        loop {
            for place in reader.locate_all(id).inspect_err(|_| reader.distrust())? {
                if tried.contains(&place) {
                    continue;
                }
                match get(place) {
                    Ok(found) => return Ok(Ok(found)),
                    Err(error) => first = first.or(Some(error)),
                }
                tried.push(place);
            }
            let mut more = if learns { self.more(id, &reader)? } else { None };
            if more.is_none() && std::mem::take(&mut looks_again) {
                self.vault.look_again(first.as_ref())?;
                more = self.more(id, &reader)?;
            }
            match more {
                Some(newer) => reader = newer,
                None => return Ok(Err(first)),
            }
        }
    }

    /// Whether all of these chunks, which could not be read at these places because of `error`, have further ones: another
    /// machine may have moved them meanwhile.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub(crate) fn has_moved(
        &self,
        error: &ReadError,
        mut chunks: impl Iterator<Item = (ChunkId, ChunkPlace)>,
    ) -> Result<bool, ReadError> {
        if !error.is_damage() || error.object().is_some() {
            return Ok(false);
        }
        self.vault.look_again(Some(error))?;
        let is_lost = chunks.try_fold(false, |is_lost, (id, place)| {
            Ok::<_, ReadError>(is_lost || self.next_place(&id, Some(place))?.is_none())
        });
        Ok(!is_lost?)
    }

    /// A pack by its number in the catalogue.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn pack(&self, number: u32) -> Result<Option<PackInfo>, CatalogueError> {
        self.reader().pack(number)
    }
}
