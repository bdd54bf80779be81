//! Opening a vault: the password, then the catalogue brought up to date with what the store lists (SPEC §3, §9.1).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::catalogue::packs::{NewPack, bump_epoch};
use crate::catalogue::{Catalogue, CatalogueError};
use crate::id::{ClientId, Digest, ObjectName, SlotId, VaultId};
use crate::limits::{KEY_SLOTS_MAX, VAULT_FILE_LEN_MAX};
use crate::log::record::{OpenedRecord, SealedRecord};
use crate::log::{Chains, FoundRecord, Link, Record, RecordBody, RecordError, SweepRules};
use crate::pack::{PackError, PackReader, TRAILER_LEN};
use crate::progress::{Phase, Progress};
use crate::seal::{
    HEADER_LEN, Keyring, Keys, NONCE_LEN, ObjectKind, Secret, SlotError, SlotFile, TAG_LEN, UnlockError, VaultFile,
    VaultFileError, unlock_with,
};
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError};
use crate::sync::catch;
use crate::vault::client::{ClientState, Identity, RecordLimits, replace_file};
use crate::vault::{BadObject, LogState, ObjectState, Vault, VaultError};

/// How a vault is opened.
pub struct OpenOptions {
    /// The folder in which this user keeps the state of all vaults.
    pub state: PathBuf,
    /// Who works with it.
    pub identity: Identity,
}

/// Which vault is meant, and which key slot, as far as anybody said or remembers.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The vault whose id begins with these digits, and no other.
    pub vault: Option<String>,
    /// The vaults that this machine has met in this place, the one that is meant first. Another one is not opened.
    pub known: Vec<VaultId>,
    /// The slot whose id begins with these digits, and no other.
    pub slot: Option<String>,
}

/// Footers are read in groups of this many packs.
const GROUP: usize = 32;
/// So many chunks at least are entered in one transaction, if there are as many: a good part of those that are there is written
/// again with them.
const CHUNKS_TOGETHER: usize = 1 << 20;

/// A longer file in `keys/` is no key slot of any version.
const SLOT_FILE_LEN_MAX: u64 = 64 << 10;
/// From this much work on (memory in KiB times passes, of all slots that are tried), a person is told why it takes so long.
const WORK_TO_TELL: u64 = 8 << 20;

/// The key slots of a store: the readable ones with the objects they lie in, and what is wrong with the others.
pub struct Slots {
    /// Each readable copy.
    pub copies: Vec<(ObjectName, SlotFile)>,
    /// Unreadable copies.
    pub bad: Vec<BadObject>,
}

impl Slots {
    /// Reads all key slots: however many there are, none hides another one.
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
        let mut slots = Self { copies: Vec::new(), bad: Vec::new() };
        for name in names {
            let key = ObjectKey::Named(Kind::Key, name);
            let parsed = match store.get(&key, SLOT_FILE_LEN_MAX) {
                Ok(bytes) => SlotFile::parse(&bytes)
                    .map_err(|error| (error.to_string(), matches!(error, SlotError::Newer { .. }))),
                Err(error) if error.is_of_whole() => return Err(error),
                // It was removed since it was listed.
                Err(StoreError::Missing { .. }) => continue,
                Err(error) => Err((error.reason(), false)),
            };
            match parsed {
                Ok(slot) => slots.copies.push((name, slot)),
                Err((what, newer)) => slots.bad.push(BadObject { key, state: state(newer), what }),
            }
        }
        Ok(slots)
    }

    /// The slots, each once: a forged copy that only borrows the id of a genuine one does not hide it.
    pub fn distinct(&self) -> Vec<SlotFile> {
        let mut seen = HashSet::new();
        let distinct = self.copies.iter().filter(|(_, slot)| seen.insert(*slot.as_bytes()));
        distinct.map(|(_, slot)| slot.clone()).collect()
    }

    /// The vaults that the slots say they belong to.
    pub fn vaults(&self) -> BTreeSet<VaultId> {
        self.copies.iter().map(|(_, slot)| slot.vault()).collect()
    }
}

/// What an object is that cannot be read, as long as nothing more is known of it.
const fn state(newer: bool) -> ObjectState {
    if newer { ObjectState::Newer } else { ObjectState::Damaged }
}

/// Reads the VAULT file. `None` if it is missing or damaged: its content can be had from any key slot.
fn vault_file(store: &dyn Store, bad: &mut Vec<BadObject>) -> Result<Option<VaultId>, VaultError> {
    let mut damaged = |what: String| {
        bad.push(BadObject { key: ObjectKey::Vault, state: ObjectState::Damaged, what });
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
        Err(error) if error.is_of_whole() => Err(error.into()),
        Err(error) => damaged(error.reason()),
    }
}

/// The vault that is meant where the slots are of `vaults` and the VAULT file says `claimed`. `None` if nothing tells.
fn choose(
    vaults: &BTreeSet<VaultId>,
    claimed: Option<VaultId>,
    wanted: &Wanted,
    place: &dyn Fn() -> String,
) -> Result<Option<VaultId>, VaultError> {
    let found = || vaults.iter().copied().collect();
    if let Some(start) = &wanted.vault {
        let mut fitting = vaults.iter().filter(|id| id.to_string().starts_with(start.as_str()));
        return match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(Some(*id)),
            (None, _) => Err(VaultError::NotThatVault { place: place(), wanted: start.clone(), found: found() }),
            (Some(_), Some(_)) => Err(VaultError::Ambiguous { place: place(), start: start.clone(), found: found() }),
        };
    }
    if let Some(first) = wanted.known.first() {
        let there = wanted.known.iter().find(|id| vaults.contains(id));
        return match there {
            Some(id) => Ok(Some(*id)),
            // Slots that cannot be read say nothing about another vault.
            None if vaults.is_empty() => Ok(None),
            None => Err(VaultError::OtherVault { place: place(), known: *first, found: found() }),
        };
    }
    Ok(claimed.filter(|id| vaults.contains(id)))
}

/// The id of the vault that would be opened, as far as the store says it and this machine remembers it. Nothing is proven
/// by it; it only tells where this machine may have a key.
pub fn claimed_id(store: &dyn Store, wanted: &Wanted) -> Option<VaultId> {
    let file = store.get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX).ok().and_then(|bytes| VaultFile::parse(&bytes).ok());
    let claimed = file.map(|file| file.id);
    let vaults = Slots::read(store).ok()?.vaults();
    let chosen = choose(&vaults, claimed, wanted, &|| store.place()).ok()?;
    chosen.or_else(|| vaults.first().copied()).or(claimed)
}

/// Where it is remembered which slot opened a vault last.
fn opened_path(state: &Path, vault: VaultId) -> PathBuf {
    state.join(vault.to_string()).join("opened")
}

/// The slot that opened this vault last on this machine.
fn opened_last(state: &Path, vault: VaultId) -> Option<SlotId> {
    std::fs::read_to_string(opened_path(state, vault)).ok()?.trim().parse().ok()
}

/// What a secret has opened.
struct Unlocked {
    keyring: Keyring,
    slot: SlotFile,
    /// This vault's slots, each once.
    slots: Vec<SlotFile>,
    /// Other vaults that have slots here.
    others: BTreeSet<VaultId>,
}

/// Finds the slot that `secret` opens.
fn unlock(
    store: &dyn Store,
    secret: &Secret,
    state: &Path,
    wanted: &Wanted,
    bad: &mut Vec<BadObject>,
    progress: &dyn Progress,
) -> Result<Unlocked, VaultError> {
    let place = || store.place();
    let claimed = vault_file(store, bad)?;
    let slots = Slots::read(store)?;
    let vaults = slots.vaults();
    if vaults.is_empty() {
        if claimed.is_none() && slots.bad.is_empty() {
            return Err(VaultError::NoVault { place: place() });
        }
        if let Some(newer) = slots.bad.iter().find(|slot| slot.state == ObjectState::Newer) {
            return Err(VaultError::Newer { place: place(), what: newer.what.clone() });
        }
        let what = slots.bad.first().map_or("there are none".to_owned(), |slot| format!("{}: {}", slot.key, slot.what));
        return Err(VaultError::NoSlot { place: place(), what });
    }
    let chosen = choose(&vaults, claimed, wanted, &place)?;
    let mut candidates = slots.distinct();
    if let Some(id) = chosen {
        // A slot of another vault, put here by mistake or malice, opens nothing.
        candidates.retain(|slot| slot.vault() == id);
    }
    if let Some(start) = &wanted.slot {
        candidates.retain(|slot| slot.id().to_string().starts_with(start.as_str()));
        if candidates.is_empty() {
            return Err(VaultError::NoSuchSlot { place: place(), slot: start.clone() });
        }
    }
    // Slots that were planted come last where this machine has a memory, and cost as little as they can.
    let last: HashSet<SlotId> = vaults.iter().filter_map(|id| opened_last(state, *id)).collect();
    candidates.sort_by_key(|slot| (!last.contains(&slot.id()), slot.work(), slot.id()));
    let count = candidates.iter().filter(|slot| slot.takes_password()).count();
    let works: Vec<u64> = candidates.iter().filter(|slot| slot.takes_password()).map(SlotFile::work).collect();
    let mut told = false;
    let mut goes_on = |tried: usize| {
        let work: u64 = works.iter().take(tried + 1).sum();
        if !told && tried > 0 && (tried >= KEY_SLOTS_MAX || work > WORK_TO_TELL) {
            told = true;
            progress.warn(&format!(
                "{count} key slots take a password, and the password is tried on one after the other: {tried} so far. If \
                 its slot is known, --slot ID tries only that one"
            ));
        }
        !progress.stopped()
    };
    match unlock_with(&candidates, secret, &mut goes_on) {
        Ok((index, keyring)) => {
            let id = keyring.vault;
            if claimed.is_some_and(|claimed| !vaults.contains(&claimed)) {
                let what = "it names another vault than every key slot".to_owned();
                bad.push(BadObject { key: ObjectKey::Vault, state: ObjectState::Damaged, what });
            }
            let others: BTreeSet<VaultId> = vaults.into_iter().filter(|other| *other != id).collect();
            if others.is_empty() {
                // Whose a slot is that cannot be read, nothing tells.
                bad.extend(slots.bad.iter().cloned());
            } else {
                bad.extend(slots.bad.iter().filter(|bad| bad.state == ObjectState::Newer).cloned());
            }
            let slot = candidates.swap_remove(index);
            let slots = slots.distinct().into_iter().filter(|slot| slot.vault() == id).collect();
            Ok(Unlocked { keyring, slot, slots, others })
        }
        Err(UnlockError::Stopped) => Err(VaultError::Interrupted),
        Err(error @ (UnlockError::Wrong | UnlockError::Mistyped)) => {
            let others = vaults.into_iter().filter(|id| chosen.is_some_and(|chosen| chosen != *id)).collect();
            let mistyped = matches!(error, UnlockError::Mistyped);
            Err(VaultError::WrongSecret { place: place(), mistyped, others })
        }
        Err(UnlockError::Slot(SlotError::PreRelease)) => Err(VaultError::PreRelease { place: place() }),
        Err(UnlockError::Slot(SlotError::Newer { what })) => {
            Err(VaultError::Newer { place: place(), what: format!("unknown {what}") })
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
    open_wanted(store, secret, options, &Wanted::default(), progress)
}

/// As [`open`], where it is known which vault is meant.
///
/// # Errors
/// As [`open`]; and if another vault lies in this place than the one that is meant.
pub fn open_wanted(
    store: Arc<dyn Store>,
    secret: &Secret,
    options: OpenOptions,
    wanted: &Wanted,
    progress: &dyn Progress,
) -> Result<Vault, VaultError> {
    let mut bad = Vec::new();
    let Unlocked { keyring, slot, slots, others } =
        unlock(store.as_ref(), secret, &options.state, wanted, &mut bad, progress)?;
    let keys = Keys::new(&keyring.master, &keyring.writer, keyring.vault, keyring.params);
    let state = options.state.join(keyring.vault.to_string());
    crate::vault::client::make_private_folder(&state)?;
    // That the next opening is quick is worth a try, and no error.
    let _ = std::fs::write(opened_path(&options.state, keyring.vault), format!("{}\n", slot.id()));
    let key = keys.derive_local("catalogue");
    let path = state.join("catalogue.redb");
    let (catalogue, fresh) = Catalogue::open(&path, key)?;
    let mut vault = Vault {
        store,
        keys,
        keyring,
        catalogue,
        place: state.display().to_string(),
        state,
        identity: options.identity,
        opened_by: slot.id(),
        slots,
        others,
        log: Mutex::new(LogState::default()),
        rules: SweepRules::default(),
        limits: RecordLimits::default(),
    };
    if fresh {
        progress.detail("the catalogue is new: it is built from the store");
    }
    // redb may panic over damage inside its file; that only means that the catalogue must be built anew.
    let synced = catch(|| vault.refresh(progress))
        .unwrap_or_else(|| Err(CatalogueError::Database("redb cannot read it".to_owned()).into()));
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

/// The length of the object of a record, by its row in the catalogue.
const fn object_len(value: &[u8]) -> u64 {
    let plain = value.len().saturating_sub(Digest::LEN);
    (HEADER_LEN + NONCE_LEN + plain + TAG_LEN + TRAILER_LEN) as u64
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
    /// With their lengths.
    records: HashMap<ObjectName, u64>,
    foreign: Vec<String>,
}

impl Listing {
    /// Leaves out what is another vault's.
    fn take_out(&mut self, elsewhere: &HashSet<ObjectKey>) {
        for key in elsewhere {
            match key {
                ObjectKey::Named(Kind::Log, name) => drop(self.records.remove(name)),
                ObjectKey::Named(_, name) => drop(self.packs.remove(name)),
                ObjectKey::Vault => {}
            }
        }
    }
}

fn list(store: &dyn Store) -> Result<Listing, StoreError> {
    let mut listing = Listing { packs: HashMap::new(), records: HashMap::new(), foreign: Vec::new() };
    // Records first: a pack that a listed record speaks of was put before it, so it is listed too.
    store.list(Kind::Log, &mut |listed| match listed {
        Listed::Object { name, len } => {
            listing.records.insert(name, len);
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
        let mut listing = list(self.store())?;
        let mut elsewhere = self.log().elsewhere.clone();
        listing.take_out(&elsewhere);
        let mut bad = Vec::new();
        let chains = self.refresh_records(&listing, &mut bad, progress)?;
        let features = chains.format().unknown().read;
        if features != 0 {
            let what = format!("it uses features that are unknown ({features:016x})");
            return Err(VaultError::Newer { place: self.store.place(), what });
        }
        self.refresh_packs(&listing, &mut bad, progress)?;
        self.set_aside(&mut bad, &mut elsewhere, &chains)?;
        listing.take_out(&elsewhere);
        let findings = chains.findings(&self.remember_seen(&chains));
        *self.log() = LogState { chains, findings, packs: listing.packs, bad, foreign: listing.foreign, elsewhere };
        Ok(())
    }

    /// The highest number of each client that was ever seen on this machine, by whatever command; what these chains have is
    /// remembered for the next time.
    fn remember_seen(&self, chains: &Chains) -> BTreeMap<ClientId, u64> {
        let path = self.state.join("seen");
        let bytes = std::fs::read(&path).unwrap_or_default();
        let before: BTreeMap<ClientId, u64> = crate::msgpack::decode(&bytes).unwrap_or_default();
        let mut seen = before.clone();
        let client = ClientState::load(&self.state).map(|state| state.remembered).unwrap_or_default();
        for (client, number) in client.into_iter().chain(chains.seen()) {
            let known = seen.entry(client).or_default();
            *known = number.max(*known);
        }
        if seen != before
            && let Ok(bytes) = crate::msgpack::encode(&seen)
        {
            // Where no state can be written, this machine has no memory, and says what it sees.
            let _ = replace_file(&path, &bytes, false);
        }
        seen
    }

    /// Says of each object that cannot be read what it is, and takes out what may be another vault's, where several share
    /// the folder.
    fn set_aside(
        &self,
        bad: &mut Vec<BadObject>,
        elsewhere: &mut HashSet<ObjectKey>,
        chains: &Chains,
    ) -> Result<(), VaultError> {
        if bad.is_empty() {
            return Ok(());
        }
        let ours = if self.others.is_empty() { None } else { Some(self.named(chains)?) };
        let delivery = self.delivery_by(chains);
        let mut left = Vec::new();
        for mut object in std::mem::take(bad) {
            if object.state != ObjectState::Newer {
                if let Some(ours) = &ours
                    && self.may_be_of_another(&object.key, ours)?
                {
                    elsewhere.insert(object.key);
                    continue;
                }
                object.state = self.state_by(&object.key, delivery, self.is_own(&object.key, chains))?;
            }
            left.push(object);
        }
        *bad = left;
        Ok(())
    }

    /// The objects that this vault's records or this machine's memory name: they are this vault's.
    fn named(&self, chains: &Chains) -> Result<HashSet<ObjectName>, VaultError> {
        let reader = self.catalogue.reader()?;
        let records = reader.records()?.into_iter().chain(reader.lost_records()?).map(|(name, _)| name);
        let mut named: HashSet<ObjectName> = records.collect();
        named.extend(reader.packs()?.into_values().map(|info| info.name));
        for link in chains.links() {
            named.insert(link.name);
            named.extend(&link.record.claims);
        }
        Ok(named)
    }

    /// Whether an object that cannot be opened may be one of another vault that has key slots here: its header does not open
    /// with this vault's key, and nothing that this vault or this machine remembers names it.
    fn may_be_of_another(&self, key: &ObjectKey, ours: &HashSet<ObjectName>) -> Result<bool, VaultError> {
        let ObjectKey::Named(kind, name) = key else { return Ok(false) };
        let object_kind = match kind {
            Kind::Key => return Ok(true),
            Kind::Pack => ObjectKind::Pack,
            Kind::Meta => ObjectKind::Meta,
            Kind::Log => ObjectKind::Record,
        };
        if ours.contains(name) {
            return Ok(false);
        }
        match self.store().get_range(key, 0, HEADER_LEN) {
            Ok(header) => Ok(self.keys.open_object(object_kind, *name, &header).is_err()),
            Err(error) if error.is_of_whole() => Err(error.into()),
            Err(_) => Ok(true),
        }
    }

    /// Whether an object that cannot be opened may be one of another vault that has key slots here. Such an object is never
    /// called damaged, and never moved.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn is_of_another(&self, key: &ObjectKey) -> Result<bool, VaultError> {
        if self.others.is_empty() {
            return Ok(false);
        }
        let log = self.log();
        if log.elsewhere.contains(key) {
            return Ok(true);
        }
        let chains = log.chains.clone();
        drop(log);
        self.may_be_of_another(key, &self.named(&chains)?)
    }

    /// Looks at the log alone: reads the records that have come since the last look. Costs one listing if there are none.
    /// What cannot be read is judged by the next whole look.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub(crate) fn look_at_log(&self) -> Result<(), VaultError> {
        let mut names = Vec::new();
        self.store.list(Kind::Log, &mut |listed| {
            if let Listed::Object { name, .. } = listed {
                names.push(name);
            }
        })?;
        {
            let log = self.log();
            names.retain(|name| !log.chains.has(name));
        }
        for name in names {
            match Record::read(self.store(), &self.keys, name) {
                Ok(OpenedRecord { record, digest, .. }) => self.log().chains.push(Link { name, digest, record }),
                Err(RecordError::Store(error)) if error.is_of_whole() => return Err(error.into()),
                Err(_) => {}
            }
        }
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
            known.iter().map(|(name, _)| *name).filter(|name| !listing.records.contains_key(name)).collect();
        let known: HashMap<ObjectName, Vec<u8>> =
            known.into_iter().filter(|(name, _)| listing.records.contains_key(name)).collect();
        let mut new: Vec<ObjectName> =
            listing.records.keys().filter(|name| !known.contains_key(*name)).copied().collect();
        new.sort_unstable();
        let mut links = Vec::with_capacity(listing.records.len());
        let (mut fresh, mut condemns) = (Vec::new(), false);
        for (name, value) in known {
            match Self::stored_link(name, &value) {
                Some(link) => {
                    let len = object_len(&value);
                    if let Some(there) = listing.records.get(&name).filter(|there| **there != len) {
                        // What it said is known, but its object is not what was put.
                        let what = format!("it has {there} bytes instead of {len}");
                        bad.push(BadObject { key: ObjectKey::Named(Kind::Log, name), state: state(false), what });
                    }
                    links.push(link);
                }
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
                    bad.push(BadObject {
                        key: ObjectKey::Named(Kind::Log, name),
                        state: state(newer),
                        what: error.reason(),
                    });
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
                let key = ObjectKey::Named(Kind::Log, link.name);
                bad.push(BadObject { key, state: ObjectState::Newer, what: what.to_string() });
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

    /// Records that this machine remembers, that the store does not have any more, and that nothing makes up for: no other
    /// record holds them, and nobody gave them up. Those of a client that wrote another record of that number since (its store
    /// was set back) are not among them.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn missing_records(&self) -> Result<Vec<FoundRecord>, VaultError> {
        let mut lost = self.lost_records()?;
        let log = self.log();
        lost.retain(|found| {
            Record::decode(&found.plain).is_ok_and(|record| !log.chains.is_accounted(&record.client, record.number))
        });
        Ok(lost)
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
                        let key = ObjectKey::Named(kind.store_kind(), name);
                        bad.push(BadObject { key, state: state(newer), what: error.reason() });
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
