//! Maintains the index objects of the store (SPEC §5.5): writes one for packs that none describes, merges many into
//! one, and deletes useless ones. All of it only saves time for machines that do not know the store yet. If it fails,
//! nothing else is lost, so no failure here is a failure of the command.

use std::collections::{HashMap, HashSet};

use crate::id::ObjectName;
use crate::limits::INDEX_ENTRIES_MAX;
use crate::pack::index::{
    Extent, Hint, IndexBuilder, IndexHead, IndexNote, IndexReader, IndexedPack, Start, choose, key, merge, start_of,
};
use crate::pack::{PackError, PackReader};
use crate::progress::Progress;
use crate::store::proof::put_proven;
use crate::store::{Delivery, ObjectKey, StoreError};
use crate::sync::{share, try_share};
use crate::vault::lookup::unless_of_whole;
use crate::vault::{BadObject, ObjectState, Vault, VaultError};

/// A new object gets no further packs once it has this many entries: they are sorted in memory.
const ENTRIES_AT_ONCE: usize = 1 << 20;
/// Number of footers that are read together.
const GROUP: usize = 64;
/// Most merges of one run; the rest is left to the next.
const MERGES: usize = 8;

/// The readable index objects of the store.
struct Shelf<'a> {
    vault: &'a Vault,
    /// The packs that the store lists, with their lengths.
    listed: HashMap<ObjectName, u64>,
    /// Packs that are condemned, or were.
    condemned: HashSet<ObjectName>,
    delivery: Delivery,
    notes: HashMap<ObjectName, IndexNote>,
    /// Objects that this run has put.
    new: Vec<ObjectName>,
}

impl Vault {
    /// Ensures that the index objects of the store describe all packs, are few, and are all of use. Called at the end
    /// of a run that has put or deleted packs. A failure is only reported: nothing depends on index objects.
    pub fn tend_index(&self, progress: &dyn Progress) {
        if let Err(error) = self.try_to_tend(progress) {
            progress.detail(&format!("the index of the store is left as it is: {error}"));
        }
    }

    fn try_to_tend(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        let mut shelf = Shelf::read(self)?;
        shelf.describe_new(progress)?;
        for _ in 0..MERGES {
            if progress.stopped() || !shelf.merge_some()? {
                break;
            }
        }
        let there: HashSet<ObjectName> = shelf.notes.keys().copied().collect();
        let new = shelf.new.iter().filter_map(|name| shelf.notes.get(name));
        self.catalogue().keep_index_notes(new, |name| there.contains(name))?;
        shelf.delete_useless()
    }
}

/// A checksum of an object's entries, independent of their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    sum: u64,
}

impl Sum {
    fn add(&mut self, hint: Hint) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hint.mixed());
    }
}

impl Vault {
    /// Index objects that cannot be read, or that contradict the footers, with their states. They are never damage,
    /// since nothing depends on them. `thoroughly` compares each entry with the catalogue, which must know all packs.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole, or the user stops it.
    pub fn bad_indexes(&self, thoroughly: bool, progress: &dyn Progress) -> Result<Vec<BadObject>, VaultError> {
        let reader = IndexReader::new(self.store(), self.keys());
        let listed = self.listed_indexes();
        let read = try_share(listed.len(), self.store().limits().reads, |at| {
            let head = reader.head(listed[at].0, listed[at].1);
            unless_of_whole(head.and_then(|head| {
                let packs = reader.packs(&head)?;
                Ok((head, packs))
            }))
        })?;
        let (mut sound, mut bad) = (Vec::new(), Vec::new());
        for ((name, _), read) in listed.iter().zip(read) {
            match read {
                Ok(read) => sound.push(read),
                Err(error) => bad.extend(self.bad_index(*name, error)?),
            }
        }
        if thoroughly && !sound.is_empty() {
            bad.extend(self.false_indexes(&reader, &sound, progress)?);
        }
        Ok(bad)
    }

    /// The state of an index object that cannot be read or says something false; `None` if that concerns no one.
    fn bad_index(&self, name: ObjectName, error: PackError) -> Result<Option<BadObject>, VaultError> {
        match error {
            PackError::Store(error) if error.is_of_whole() => return Err(error.into()),
            // It was merged into another object since it was listed.
            PackError::Store(StoreError::Missing { .. }) => return Ok(None),
            _ => {}
        }
        let key = key(name);
        let state = if error.is_newer() { ObjectState::Newer } else { self.state_of(&key)? };
        Ok((state != ObjectState::OfAnotherVault).then(|| BadObject { key, state, what: error.reason() }))
    }

    /// The index objects among these whose entries are not those of the catalogue.
    fn false_indexes(
        &self,
        reader: &IndexReader<'_>,
        objects: &[(IndexHead, Vec<IndexedPack>)],
        progress: &dyn Progress,
    ) -> Result<Vec<BadObject>, VaultError> {
        let view = self.catalogue().reader()?;
        let infos = view.packs()?;
        let numbers: HashMap<(ObjectName, u64), u32> =
            infos.iter().map(|(number, info)| ((info.name, info.len), *number)).collect();
        // Positions of the objects that describe a pack, by its number.
        let mut described: HashMap<u32, Vec<usize>> = HashMap::new();
        let mut found: Vec<Result<Sum, PackError>> = Vec::new();
        for (at, (head, packs)) in objects.iter().enumerate() {
            let there =
                packs.iter().filter_map(|pack| Some((*numbers.get(&(pack.name, pack.len))?, start_of(&pack.name))));
            let there: HashMap<u32, Start> = there.collect();
            there.keys().for_each(|number| described.entry(*number).or_default().push(at));
            let there: HashSet<Start> = there.into_values().collect();
            found.push(sum_of(reader, head, packs, &there));
            if progress.stopped() {
                return Err(VaultError::Interrupted);
            }
        }
        let mut expected = vec![Sum::default(); objects.len()];
        let mut hints: Vec<(usize, Hint)> = Vec::new();
        view.for_each_place(|_, id, places| {
            hints.clear();
            for place in places {
                let (Some(objects), Some(info)) = (described.get(&place.pack), infos.get(&place.pack)) else {
                    continue;
                };
                hints.extend(objects.iter().map(|at| (*at, Hint::new(&id, &info.name))));
            }
            hints.sort_unstable();
            hints.dedup();
            hints.iter().for_each(|(at, hint)| expected[*at].add(*hint));
            true
        })?;
        let mut bad = Vec::new();
        for (((head, _), found), expected) in objects.iter().zip(found).zip(expected) {
            match found {
                Ok(found) if found == expected => {}
                Ok(_) => {
                    let what = "it is not what the footers of its packs say".to_owned();
                    bad.extend(self.bad_index(head.name, PackError::Damaged { object: key(head.name), what })?);
                }
                Err(error) => bad.extend(self.bad_index(head.name, error)?),
            }
        }
        Ok(bad)
    }
}

/// The checksum of those entries of an index object whose packs are `there`. Each entry must be of a pack that the
/// object names.
fn sum_of(
    reader: &IndexReader<'_>,
    head: &IndexHead,
    packs: &[IndexedPack],
    there: &HashSet<Start>,
) -> Result<Sum, PackError> {
    let all: HashSet<Start> = packs.iter().map(|pack| start_of(&pack.name)).collect();
    reader.verify(head)?;
    let mut sum = Sum::default();
    let mut entries = reader.entries(head);
    while let Some(hint) = entries.peek()? {
        if there.contains(&hint.pack) {
            sum.add(hint);
        } else if !all.contains(&hint.pack) {
            let what = "it has entries of packs that it does not name".to_owned();
            return Err(PackError::Damaged { object: key(head.name), what });
        }
        entries.advance();
    }
    Ok(sum)
}

impl<'a> Shelf<'a> {
    /// Collects the contents of all index objects. Those that this machine does not know yet are read from the store.
    fn read(vault: &'a Vault) -> Result<Self, VaultError> {
        let listed = vault.listed_indexes();
        let known: HashMap<ObjectName, IndexNote> =
            vault.catalogue().index_notes()?.into_iter().map(|note| (note.name, note)).collect();
        let (mut notes, mut unknown) = (HashMap::new(), Vec::new());
        for (name, len) in listed {
            match known.get(&name).filter(|note| note.len == len) {
                Some(note) => drop(notes.insert(name, note.clone())),
                None => unknown.push((name, len)),
            }
        }
        let reader = IndexReader::new(vault.store(), vault.keys());
        let mut new = Vec::new();
        let read = try_share(unknown.len(), vault.store().limits().reads, |at| {
            unless_of_whole(reader.note(unknown[at].0, unknown[at].1))
        })?;
        // An object that is damaged, still arriving, newer, or of another vault is not judged here.
        for note in read.into_iter().flatten() {
            new.push(note.name);
            notes.insert(note.name, note);
        }
        let log = vault.log();
        let packs = log.packs.iter().map(|(name, (_, len))| (*name, *len)).collect();
        let condemned = log.chains.condemned().into_iter().collect();
        drop(log);
        let shelf = Self { vault, listed: packs, condemned, delivery: vault.delivery(), notes, new };
        // Notes read from the store are kept, whatever happens to the rest.
        let fresh = shelf.new.iter().filter_map(|name| shelf.notes.get(name));
        if !shelf.new.is_empty() {
            vault.catalogue().keep_index_notes(fresh, |name| shelf.notes.contains_key(name))?;
        }
        Ok(Self { new: Vec::new(), ..shelf })
    }

    /// Whether a pack that an object describes is not in the store with that length. On a store that delivers late it
    /// may still be on its way, unless it was condemned.
    fn is_gone(&self, pack: &IndexedPack) -> bool {
        self.listed.get(&pack.name) != Some(&pack.len)
            && (self.delivery == Delivery::Direct || self.condemned.contains(&pack.name))
    }

    /// Objects whose remaining packs are all described by another object among those for which `may_speak` holds.
    fn replaced(&self, may_speak: impl Fn(&IndexNote) -> bool) -> HashSet<ObjectName> {
        let mut replaced = HashSet::new();
        for note in self.notes.values().filter(|note| !note.replaced.is_empty() && may_speak(note)) {
            let packs: HashSet<&IndexedPack> = note.packs.iter().collect();
            let is_superfluous = |name: &&ObjectName| {
                let old = self.notes.get(*name).filter(|old| old.name != note.name);
                old.is_some_and(|old| old.packs.iter().all(|pack| packs.contains(pack) || self.is_gone(pack)))
            };
            replaced.extend(note.replaced.iter().filter(is_superfluous));
        }
        replaced
    }

    fn put(
        &mut self,
        builder: IndexBuilder,
        packs: Vec<IndexedPack>,
        replaced: Vec<ObjectName>,
    ) -> Result<(), VaultError> {
        let (name, bytes, entries) = builder.finish(&packs, replaced.clone())?;
        let len = bytes.len() as u64;
        put_proven(self.vault.store(), key(name), bytes.into())?;
        self.vault.log().indexes.insert(name, len);
        self.notes.insert(name, IndexNote { name, len, entries, replaced, packs });
        self.new.push(name);
        Ok(())
    }

    /// Writes an object for the packs that none describes. Footers of packs that this run did not put are read. So the
    /// object also covers packs of a run that was interrupted, and of a program that knows no index objects.
    fn describe_new(&mut self, progress: &dyn Progress) -> Result<(), VaultError> {
        let described: HashSet<(ObjectName, u64)> =
            self.notes.values().flat_map(|note| &note.packs).map(|pack| (pack.name, pack.len)).collect();
        let mut packs: Vec<IndexedPack> = {
            let log = self.vault.log();
            let all = log.packs.iter().map(|(name, (kind, len))| IndexedPack { name: *name, kind: *kind, len: *len });
            all.filter(|pack| !described.contains(&(pack.name, pack.len))).collect()
        };
        packs.retain(|pack| !self.condemned.contains(&pack.name));
        let reader = PackReader::new(self.vault.store(), self.vault.keys());
        let (mut hints, mut read) = (Vec::new(), Vec::new());
        let mut own = self.vault.catalogue().take_own_entries();
        packs.retain(|pack| match own.remove(&pack.name) {
            Some(entries) => {
                hints.extend(entries);
                read.push(*pack);
                false
            }
            None => true,
        });
        drop(own);
        for group in packs.chunks(GROUP) {
            if progress.stopped() {
                return Ok(());
            }
            let footers = try_share(group.len(), self.vault.store().limits().reads, |at| {
                unless_of_whole(reader.footer(group[at].kind, group[at].name, group[at].len))
            })?;
            for (pack, footer) in group.iter().zip(footers) {
                let Ok(footer) = footer else { continue };
                let chunks = footer.segments.iter().flat_map(|segment| &segment.chunks);
                hints.extend(chunks.map(|(id, _)| Hint::new(id, &pack.name)));
                read.push(*pack);
            }
            if hints.len() >= ENTRIES_AT_ONCE {
                self.put_sorted(std::mem::take(&mut hints), std::mem::take(&mut read))?;
            }
        }
        if read.is_empty() { Ok(()) } else { self.put_sorted(hints, read) }
    }

    fn put_sorted(&mut self, mut hints: Vec<Hint>, mut packs: Vec<IndexedPack>) -> Result<(), VaultError> {
        hints.sort_unstable();
        packs.sort_unstable();
        let mut builder = IndexBuilder::new(self.vault.keys(), hints.len() as u64)?;
        for hint in hints {
            builder.push(hint)?;
        }
        self.put(builder, packs, Vec::new())
    }

    /// Merges several objects into one, if too many are of about one size, or some describe few remaining packs.
    /// Returns whether it did.
    fn merge_some(&mut self) -> Result<bool, VaultError> {
        let replaced = self.replaced(|_| true);
        let is_live = |note: &&IndexNote| !replaced.contains(&note.name) && note.entries <= INDEX_ENTRIES_MAX;
        let mut live: Vec<&IndexNote> = self.notes.values().filter(is_live).collect();
        live.sort_by_key(|note| note.name);
        let extents: Vec<Extent> = live
            .iter()
            .map(|note| Extent {
                entries: note.entries,
                packs: note.packs.len(),
                gone: note.packs.iter().filter(|pack| self.is_gone(pack)).count(),
            })
            .collect();
        let chosen: Vec<&IndexNote> = choose(&extents).into_iter().map(|at| live[at]).collect();
        if chosen.is_empty() {
            return Ok(false);
        }
        let mut packs: Vec<IndexedPack> =
            chosen.iter().flat_map(|note| &note.packs).filter(|pack| !self.is_gone(pack)).copied().collect();
        packs.sort_unstable();
        packs.dedup_by_key(|pack| pack.name);
        let mut all_replaced: Vec<ObjectName> = chosen
            .iter()
            .flat_map(|note| note.replaced.iter().filter(|name| self.notes.contains_key(*name)).chain([&note.name]))
            .copied()
            .collect();
        all_replaced.sort_unstable();
        all_replaced.dedup();
        let entries = chosen.iter().map(|note| note.entries).sum();
        let kept: HashSet<_> = packs.iter().map(|pack| start_of(&pack.name)).collect();
        if kept.is_empty() {
            // No pack is left to describe: the objects are deleted as they are.
            return Ok(false);
        }
        let reader = IndexReader::new(self.vault.store(), self.vault.keys());
        let heads = share(chosen.len(), self.vault.store().limits().reads, |at| {
            reader.head(chosen[at].name, chosen[at].len).map_err(|error| (chosen[at].name, error))
        });
        let mut builder = IndexBuilder::new(self.vault.keys(), entries)?;
        let merged = heads
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .and_then(|heads| merge(reader, &heads, &kept, |hint| builder.push(hint)));
        match merged {
            Ok(()) => self.put(builder, packs, all_replaced)?,
            Err((_, PackError::Store(error))) if error.is_of_whole() => return Err(error.into()),
            Err((_, error @ PackError::Seal(_))) => return Err(error.into()),
            // It has become unreadable, or another client has deleted it: a later run describes its packs again.
            Err((name, _)) => drop(self.notes.remove(&name)),
        }
        Ok(true)
    }

    /// Deletes the objects that another one replaces, and those that describe no remaining pack. Where nothing may be
    /// deleted, they stay.
    fn delete_useless(&self) -> Result<(), VaultError> {
        // On a store that delivers late, others have to see the replacement first: one of an earlier run they have
        // probably seen.
        let mut useless = self.replaced(|note| self.delivery == Delivery::Direct || !self.new.contains(&note.name));
        let describes_nothing = |note: &&IndexNote| note.packs.iter().all(|pack| self.is_gone(pack));
        useless.extend(self.notes.values().filter(describes_nothing).map(|note| note.name));
        self.vault.log().indexes.retain(|name, _| !useless.contains(name));
        let useless: Vec<ObjectKey> = useless.into_iter().map(key).collect();
        Ok(self.vault.store().delete_many(&useless, &mut |_| {})?)
    }
}
