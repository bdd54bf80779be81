//! Opening a vault: the password, then the catalogue brought up to date with what the store lists (SPEC §3, §9.1).

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::catalogue::packs::{NewPack, bump_epoch};
use crate::catalogue::{Catalogue, CatalogueError};
use crate::id::{Digest, ObjectName, VaultId};
use crate::limits::{KEY_SLOTS_MAX, VAULT_FILE_LEN_MAX};
use crate::log::record::{OpenedRecord, SealedRecord};
use crate::log::{Chains, FoundRecord, Link, Record, RecordBody, RecordError};
use crate::pack::{PackError, PackReader};
use crate::progress::{Phase, Progress};
use crate::seal::{
    Keyring, Keys, ObjectKind, SLOT_LEN, Secret, SlotError, SlotFile, UnlockError, VaultFile, VaultFileError,
    unlock_any,
};
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError};
use crate::vault::client::{ClientState, Identity};
use crate::vault::{BadObject, LogState, Vault, VaultError};

/// How a vault is opened.
pub struct OpenOptions {
    /// The folder in which this user keeps the state of all vaults.
    pub state: PathBuf,
    /// Who works with it.
    pub identity: Identity,
}

/// Footers are read in groups of this many packs.
const GROUP: usize = 32;
/// So many chunks at least are entered in one transaction, if there are as many: a good part of those that are there is written
/// again with them.
const CHUNKS_TOGETHER: usize = 1 << 20;

/// The key slots of a store: the readable ones with the objects they lie in, and what is wrong with the others.
pub struct Slots {
    /// Each readable copy.
    pub copies: Vec<(ObjectName, SlotFile)>,
    /// Unreadable copies.
    pub bad: Vec<BadObject>,
}

impl Slots {
    /// Reads all key slots.
    ///
    /// # Errors
    /// If the store fails as a whole.
    pub fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut names = Vec::new();
        store.list(Kind::Key, &mut |listed| {
            if let Listed::Object { name, .. } = listed {
                names.push(name);
            }
        })?;
        names.sort_unstable();
        // More than this is no vault's doing, and each could cost a key derivation.
        names.truncate(8 * KEY_SLOTS_MAX);
        let mut slots = Self { copies: Vec::new(), bad: Vec::new() };
        for name in names {
            let key = ObjectKey::Named(Kind::Key, name);
            let parsed = match store.get(&key, SLOT_LEN as u64) {
                Ok(bytes) => SlotFile::parse(&bytes)
                    .map_err(|error| (error.to_string(), matches!(error, SlotError::Newer { .. }))),
                Err(error) if error.is_of_whole() => return Err(error),
                Err(error) => Err((error.to_string(), false)),
            };
            match parsed {
                Ok(slot) => slots.copies.push((name, slot)),
                Err((what, newer)) => slots.bad.push(BadObject { object: key.to_string(), what, newer }),
            }
        }
        Ok(slots)
    }

    /// The slots, each once: a forged copy that only borrows the id of a genuine one does not hide it.
    pub fn distinct(&self) -> Vec<SlotFile> {
        let mut seen = HashSet::new();
        self.copies
            .iter()
            .filter(|(_, slot)| seen.insert(*slot.as_bytes()))
            .map(|(_, slot)| slot.clone())
            .take(KEY_SLOTS_MAX)
            .collect()
    }
}

/// Reads the VAULT file. `None` if it is missing or damaged: its content can be had from any key slot.
fn vault_file(store: &dyn Store, bad: &mut Vec<BadObject>) -> Result<Option<VaultId>, VaultError> {
    let mut damaged = |what: String| {
        bad.push(BadObject { object: ObjectKey::Vault.to_string(), what, newer: false });
        Ok(None)
    };
    match store.get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX) {
        Ok(bytes) => match VaultFile::parse(&bytes) {
            Ok(file) => Ok(Some(file.id)),
            Err(VaultFileError::Newer { what }) => {
                Err(VaultError::Newer { place: store.place(), what: what.to_owned() })
            }
            Err(error) => damaged(error.to_string()),
        },
        Err(StoreError::Missing { .. }) => damaged("it is missing".to_owned()),
        Err(error) if error.is_of_whole() => Err(error.into()),
        Err(error) => damaged(error.to_string()),
    }
}

/// The id that a store says its vault has: in the VAULT file, or else in the first key slot that can be read. Nothing is
/// proven by it; it only tells where this machine may have a key.
pub fn claimed_id(store: &dyn Store) -> Option<VaultId> {
    let file = store.get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX).ok().and_then(|bytes| VaultFile::parse(&bytes).ok());
    let first = || Some(Slots::read(store).ok()?.copies.first()?.1.vault());
    file.map(|file| file.id).or_else(first)
}

/// Finds the slot that `secret` opens.
fn unlock(store: &dyn Store, secret: &Secret, bad: &mut Vec<BadObject>) -> Result<Keyring, VaultError> {
    let place = || store.place();
    let id = vault_file(store, bad)?;
    let slots = Slots::read(store)?;
    bad.extend(slots.bad.iter().cloned());
    let mut candidates = slots.distinct();
    if candidates.is_empty() {
        if id.is_none() && slots.bad.is_empty() {
            return Err(VaultError::NoVault { place: place() });
        }
        if let Some(newer) = slots.bad.iter().find(|slot| slot.newer) {
            return Err(VaultError::Newer { place: place(), what: newer.what.clone() });
        }
        let what =
            slots.bad.first().map_or("there are none".to_owned(), |slot| format!("{}: {}", slot.object, slot.what));
        return Err(VaultError::NoSlot { place: place(), what });
    }
    if let Some(id) = id {
        if candidates.iter().any(|slot| slot.vault() == id) {
            // A slot of another vault, put here by mistake or malice, opens nothing.
            candidates.retain(|slot| slot.vault() == id);
        } else {
            let what = "it names another vault than every key slot".to_owned();
            bad.push(BadObject { object: ObjectKey::Vault.to_string(), what, newer: false });
        }
    }
    match unlock_any(&candidates, secret) {
        Ok((_, keyring)) => Ok(keyring),
        Err(error @ (UnlockError::Wrong | UnlockError::Mistyped)) => {
            Err(VaultError::WrongSecret { place: place(), mistyped: matches!(error, UnlockError::Mistyped) })
        }
        Err(error) => Err(VaultError::NoSlot { place: place(), what: error.to_string() }),
    }
}

/// Unlocks a vault and brings its catalogue up to date.
///
/// # Errors
/// If there is no vault, the secret is wrong, the store or the catalogue fails as a whole. Single damaged objects are only
/// noted.
pub fn open(
    store: Arc<dyn Store>,
    secret: &Secret,
    options: OpenOptions,
    progress: &dyn Progress,
) -> Result<Vault, VaultError> {
    let mut bad = Vec::new();
    let keyring = unlock(store.as_ref(), secret, &mut bad)?;
    let keys = Keys::new(&keyring.master, keyring.vault, keyring.params);
    let state = options.state.join(keyring.vault.to_string());
    crate::vault::client::make_private_folder(&state)?;
    let key = keys.derive_local("catalogue");
    let path = state.join("catalogue.redb");
    let (catalogue, fresh) = Catalogue::open(&path, key)?;
    let mut vault = Vault {
        store,
        keys,
        keyring,
        catalogue,
        state,
        identity: options.identity,
        log: Mutex::new(LogState::default()),
    };
    if fresh {
        progress.detail("the catalogue is new: it is built from the store");
    }
    // redb may panic over damage inside its file; that only means that the catalogue must be built anew.
    let synced = catch_unwind(AssertUnwindSafe(|| vault.refresh(progress)))
        .unwrap_or_else(|_| Err(CatalogueError::Database("redb cannot read it".to_owned()).into()));
    if let Err(VaultError::Catalogue(error)) = synced {
        // What looked like a catalogue was not one inside: once more, from nothing.
        progress.warn(&format!("the catalogue was damaged ({error}); it is rebuilt from the store"));
        drop(vault.catalogue);
        vault.catalogue = Catalogue::anew(&path, key)?;
        vault.refresh(progress)?;
    } else {
        synced?;
    }
    vault.log().bad.extend(bad);
    Ok(vault)
}

/// A record as the catalogue keeps it: the hash of its object, and what was sealed in it.
fn stored_value(digest: Digest, plain: &[u8]) -> Vec<u8> {
    [&digest.as_bytes()[..], plain].concat()
}

/// Rows of the catalogue as a record carries them.
fn found(rows: Vec<(ObjectName, Vec<u8>)>) -> Vec<FoundRecord> {
    let record = |(name, value): (ObjectName, Vec<u8>)| {
        let (digest, plain) = value.split_first_chunk()?;
        Record::decode(plain).ok()?;
        Some(FoundRecord { name, digest: Digest::new(*digest), plain: plain.to_vec() })
    };
    rows.into_iter().filter_map(record).collect()
}

/// What the store lists.
struct Listing {
    packs: HashMap<ObjectName, (ObjectKind, u64)>,
    records: HashSet<ObjectName>,
    foreign: Vec<String>,
}

fn list(store: &dyn Store) -> Result<Listing, StoreError> {
    let mut listing = Listing { packs: HashMap::new(), records: HashSet::new(), foreign: Vec::new() };
    // Records first: a pack that a listed record speaks of was put before it, so it is listed too.
    store.list(Kind::Log, &mut |listed| match listed {
        Listed::Object { name, .. } => {
            listing.records.insert(name);
        }
        Listed::Foreign(path) => listing.foreign.push(path),
    })?;
    for (kind, object_kind) in [(Kind::Pack, ObjectKind::Pack), (Kind::Meta, ObjectKind::Meta)] {
        store.list(kind, &mut |listed| match listed {
            Listed::Object { name, len } => {
                listing.packs.insert(name, (object_kind, len));
            }
            Listed::Foreign(path) => listing.foreign.push(path),
        })?;
    }
    Ok(listing)
}

impl Vault {
    /// Looks at the store again: reads new records and the footers of new packs, and takes what is gone out of the
    /// catalogue.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole. A single object that cannot be read is only noted.
    pub fn refresh(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        let listing = list(self.store())?;
        let mut bad = Vec::new();
        let chains = self.refresh_records(&listing, &mut bad, progress)?;
        let features = chains.format().unknown().read;
        if features != 0 {
            let what = format!("it uses features that are unknown ({features:016x})");
            return Err(VaultError::Newer { place: self.store.place(), what });
        }
        self.refresh_packs(&listing, &mut bad, progress)?;
        let remembered = ClientState::load(&self.state).map(|state| state.remembered).unwrap_or_default();
        let findings = chains.findings(&remembered);
        *self.log() = LogState { chains, findings, packs: listing.packs, bad, foreign: listing.foreign };
        Ok(())
    }

    fn refresh_records(
        &self,
        listing: &Listing,
        bad: &mut Vec<BadObject>,
        progress: &dyn Progress,
    ) -> Result<Chains, VaultError> {
        let known = self.catalogue.reader()?.records()?;
        let gone: Vec<ObjectName> =
            known.iter().map(|(name, _)| *name).filter(|name| !listing.records.contains(name)).collect();
        let known: HashMap<ObjectName, Vec<u8>> =
            known.into_iter().filter(|(name, _)| listing.records.contains(name)).collect();
        let mut new: Vec<ObjectName> =
            listing.records.iter().filter(|name| !known.contains_key(*name)).copied().collect();
        new.sort_unstable();
        let mut links = Vec::with_capacity(listing.records.len());
        let (mut fresh, mut condemns) = (Vec::new(), false);
        for (name, value) in known {
            match Self::stored_link(name, &value) {
                Some(link) => links.push(link),
                // A row that does not decode was damaged on this machine; the object decides.
                None => new.push(name),
            }
        }
        let read: Vec<_> = new.par_iter().map(|name| (*name, Record::read(self.store(), &self.keys, *name))).collect();
        for (name, result) in read {
            match result {
                Ok(OpenedRecord { record, digest, plain }) => {
                    fresh.push((name, stored_value(digest, &plain)));
                    condemns |= matches!(record.body, RecordBody::Condemn(_));
                    links.push(Link { name, digest, record });
                }
                Err(RecordError::Store(error)) if error.is_of_whole() => return Err(error.into()),
                Err(error) => {
                    let newer = matches!(error, RecordError::Newer { .. });
                    let object = ObjectKey::Named(Kind::Log, name).to_string();
                    bad.push(BadObject { object, what: error.to_string(), newer });
                }
            }
            if progress.stopped() {
                return Err(VaultError::Interrupted);
            }
        }
        if !(gone.is_empty() && fresh.is_empty()) {
            let txn = self.catalogue.write()?;
            Catalogue::remove_records(&txn, &gone)?;
            self.catalogue.insert_records(&txn, &fresh)?;
            if condemns {
                // What was known to be stored may lie in packs that count as absent from now on.
                bump_epoch(&txn)?;
            }
            txn.commit().map_err(CatalogueError::from)?;
        }
        for link in &links {
            if let RecordBody::Unknown(what) = &link.record.body {
                let object = ObjectKey::Named(Kind::Log, link.name).to_string();
                bad.push(BadObject { object, what: what.to_string(), newer: true });
            }
        }
        Ok(Chains::new(links))
    }

    /// Reads everything about packs and records from the store again, whatever the catalogue says.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn rebuild_catalogue(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        self.catalogue.clear()?;
        self.refresh(progress)
    }

    /// Records that this machine remembers and that the store does not have any more: name and hash of the object, and
    /// the plaintext.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn lost_records(&self) -> Result<Vec<FoundRecord>, VaultError> {
        Ok(found(self.catalogue.reader()?.lost_records()?))
    }

    /// Records that this machine remembers, whether their objects can still be read or not.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn remembered_records(&self) -> Result<Vec<FoundRecord>, VaultError> {
        Ok(found(self.catalogue.reader()?.records()?))
    }

    /// Enters a record that was just put.
    pub(crate) fn remember_record(&self, sealed: &SealedRecord, condemns: bool) -> Result<(), VaultError> {
        let txn = self.catalogue.write()?;
        let digest = Digest::new(*blake3::hash(&sealed.bytes).as_bytes());
        self.catalogue.insert_records(&txn, &[(sealed.name, stored_value(digest, &sealed.plain))])?;
        if condemns {
            bump_epoch(&txn)?;
        }
        txn.commit().map_err(CatalogueError::from)?;
        Ok(())
    }

    fn stored_link(name: ObjectName, value: &[u8]) -> Option<Link> {
        let (digest, plain) = value.split_first_chunk()?;
        Some(Link { name, digest: Digest::new(*digest), record: Record::decode(plain).ok()? })
    }

    fn refresh_packs(
        &self,
        listing: &Listing,
        bad: &mut Vec<BadObject>,
        progress: &dyn Progress,
    ) -> Result<(), VaultError> {
        let known = self.catalogue.reader()?.packs()?;
        let same = |info: &crate::catalogue::PackInfo| listing.packs.get(&info.name) == Some(&(info.kind, info.len));
        let gone: Vec<ObjectName> = known.values().filter(|info| !same(info)).map(|info| info.name).collect();
        let kept: HashSet<ObjectName> = known.values().filter(|info| same(info)).map(|info| info.name).collect();
        let mut new: Vec<_> = listing.packs.iter().filter(|(name, _)| !kept.contains(*name)).collect();
        new.sort_unstable_by_key(|(name, _)| **name);
        if !gone.is_empty() {
            let txn = self.catalogue.write()?;
            self.catalogue.remove_packs(&txn, &gone)?;
            txn.commit().map_err(CatalogueError::from)?;
        }
        if new.is_empty() {
            return Ok(());
        }
        progress.counters().restart(new.len() as u64, new.iter().map(|(_, (_, len))| len).sum());
        progress.phase(Phase::Catalogue);
        let reader = PackReader::new(self.store(), &self.keys);
        let (mut packs, mut chunks) = (Vec::new(), 0);
        let mut groups = new.chunks(GROUP).peekable();
        while let Some(group) = groups.next() {
            let read: Vec<_> = group
                .par_iter()
                .map(|(name, (kind, len))| {
                    let footer = reader.footer(*kind, **name, *len);
                    progress.counters().add(1, *len);
                    (**name, *kind, *len, footer)
                })
                .collect();
            for (name, kind, len, footer) in read {
                match footer {
                    Ok(footer) => {
                        chunks += footer.segments.iter().map(|segment| segment.chunks.len()).sum::<usize>();
                        packs.push(NewPack { kind, name, len, footer });
                    }
                    Err(PackError::Store(error)) if error.is_of_whole() => return Err(error.into()),
                    // It may have been swept since it was listed.
                    Err(PackError::Store(StoreError::Missing { .. })) => {}
                    Err(error) => {
                        let newer = matches!(error, PackError::Newer { .. });
                        let object = ObjectKey::Named(kind.store_kind(), name).to_string();
                        bad.push(BadObject { object, what: error.to_string(), newer });
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
        Ok(())
    }
}
