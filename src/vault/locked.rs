//! A vault before it is opened: its VAULT file and its key slots, and the search for the slot that a secret opens (SPEC
//! §3, §4).

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::id::{ObjectName, SlotId, VaultId};
use crate::limits::{KEY_SLOT_LEN_MAX, KEY_SLOTS_MAX, VAULT_FILE_LEN_MAX};
use crate::progress::Progress;
use crate::seal::{Keyring, MIRROR, Secret, SlotError, SlotFile, UnlockError, VaultFile, VaultFileError, unlock_with};
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError};
use crate::sync::{both, try_share};
use crate::vault::kept::KeptSlots;
use crate::vault::{BadObject, ObjectState, VaultError};

/// The vault and the key slot to open, as far as the user named them or this machine remembers them.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Start of the id of the vault; no other is opened.
    pub vault: Option<String>,
    /// Vaults that this machine has met in this place, the wanted one first. Others are not opened.
    pub known: Vec<VaultId>,
    /// Start of the id of the slot; no other is tried.
    pub slot: Option<String>,
}

impl Wanted {
    /// Refuses a vault other than the wanted one.
    ///
    /// # Errors
    /// [`VaultError::NotThatVault`], [`VaultError::OtherVault`].
    pub fn require(&self, id: VaultId, place: &dyn Fn() -> String) -> Result<(), VaultError> {
        choose(&BTreeSet::from([id]), Some(id), self, place).map(drop)
    }

    /// Whether this vault would be chosen whatever others are there.
    pub fn is_first(&self, id: VaultId) -> bool {
        match &self.vault {
            Some(start) => id.to_string().starts_with(start.as_str()),
            None => self.known.first().is_none_or(|first| *first == id),
        }
    }
}

/// From this much work on (memory in KiB times passes, of all slots that are tried), the user is told why it takes so
/// long.
const WORK_TO_TELL: u64 = 8 << 20;

/// The key slots of a store: the readable ones with their objects, and the reasons why others are not readable.
pub struct Slots {
    /// Each readable copy.
    pub copies: Vec<(ObjectName, SlotFile)>,
    /// Unreadable copies.
    pub bad: Vec<BadObject>,
}

impl Slots {
    /// Reads all key slots: whatever their number, none hides another.
    ///
    /// # Errors
    /// If the store fails as a whole.
    pub fn read(store: &dyn Store) -> Result<Self, StoreError> {
        Self::read_beside(store, None)
    }

    /// As [`Self::read`], using the slots that are kept on this machine, as far as the store lists them.
    fn read_beside(store: &dyn Store, kept: Option<&KeptSlots<'_>>) -> Result<Self, StoreError> {
        let mut names = Vec::new();
        store.list(Kind::Key, &mut |listed| {
            if let Listed::Object { name, .. } = listed {
                names.push(name);
            }
        })?;
        names.sort_unstable();
        if let Some(kept) = kept {
            kept.keep_only(&names);
        }
        let parsed = try_share(names.len(), store.limits().reads, |number| {
            if let Some(slot) = kept.and_then(|kept| kept.find(&names[number])) {
                return Ok(Some(Ok(slot)));
            }
            Ok(match store.get(&ObjectKey::Named(Kind::Key, names[number]), KEY_SLOT_LEN_MAX) {
                Ok(bytes) => Some(
                    SlotFile::parse(&bytes)
                        .map_err(|error| (error.to_string(), matches!(error, SlotError::Newer { .. }))),
                ),
                Err(error) if error.is_of_whole() => return Err(error),
                // It was removed since it was listed.
                Err(StoreError::Missing { .. }) => None,
                Err(error) => Some(Err((error.reason(), false))),
            })
        })?;
        let mut slots = Self { copies: Vec::new(), bad: Vec::new() };
        for (name, parsed) in names.into_iter().zip(parsed) {
            match parsed {
                Some(Ok(slot)) => {
                    if let Some(kept) = kept {
                        kept.keep(&name, &slot);
                    }
                    slots.copies.push((name, slot));
                }
                Some(Err((what, newer))) => {
                    let key = ObjectKey::Named(Kind::Key, name);
                    slots.bad.push(BadObject { key, state: ObjectState::of_unread(newer), what });
                }
                None => {}
            }
        }
        Ok(slots)
    }

    /// The distinct slots: a forged copy that borrows the id of a genuine slot does not hide it.
    pub fn distinct(&self) -> Vec<SlotFile> {
        self.counted().into_iter().map(|(slot, _)| slot).collect()
    }

    /// The distinct slots, each with the number of its copies.
    pub(super) fn counted(&self) -> Vec<(SlotFile, u64)> {
        let mut counted: Vec<(SlotFile, u64)> = Vec::new();
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        for (_, slot) in &self.copies {
            match places.entry(slot.as_bytes().as_slice()) {
                Entry::Occupied(at) => counted[*at.get()].1 += 1,
                Entry::Vacant(at) => {
                    at.insert(counted.len());
                    counted.push((slot.clone(), 1));
                }
            }
        }
        counted
    }

    /// The slots to try, in this order: those of the chosen vault that were asked for.
    fn candidates(
        &self,
        chosen: Option<VaultId>,
        wanted: &Wanted,
        state: &Path,
        place: &dyn Fn() -> String,
    ) -> Result<Vec<SlotFile>, VaultError> {
        let mut candidates = self.distinct();
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
        // Planted slots come last if this machine remembers a slot, and otherwise after those that cost less.
        let last: HashSet<SlotId> = self.vaults().iter().filter_map(|id| opened_last(state, *id)).collect();
        candidates.sort_by_key(|slot| (!last.contains(&slot.id()), slot.work(), slot.id()));
        Ok(candidates)
    }

    /// Unreadable copies that concern this vault. A copy does not tell its vault: if others share the store, only
    /// copies of a later version concern it.
    pub(super) fn bad_of(&self, shared: bool) -> impl Iterator<Item = &BadObject> {
        self.bad.iter().filter(move |bad| !shared || bad.state == ObjectState::Newer)
    }

    /// The vaults that the slots name.
    pub fn vaults(&self) -> BTreeSet<VaultId> {
        self.copies.iter().map(|(_, slot)| slot.vault()).collect()
    }
}

/// Content of the VAULT file.
struct FileLook {
    /// The vault that it names. `None` if it is missing or damaged: its content can be restored from any key slot.
    claimed: Option<VaultId>,
    /// Whether it says that this is a mirror.
    is_mirror: bool,
    is_there: bool,
    bad: Option<BadObject>,
}

/// Reads the VAULT file.
fn vault_file(store: &dyn Store) -> Result<FileLook, VaultError> {
    let damaged = |is_there, what| {
        let bad = Some(BadObject { key: ObjectKey::Vault, state: ObjectState::Damaged, what });
        Ok(FileLook { claimed: None, is_mirror: false, is_there, bad })
    };
    match store.get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX) {
        Ok(bytes) => match VaultFile::parse(&bytes) {
            Ok(file) => {
                let is_mirror = file.features & MIRROR != 0;
                Ok(FileLook { claimed: Some(file.id), is_mirror, is_there: true, bad: None })
            }
            Err(VaultFileError::Newer { what }) => {
                Err(VaultError::Newer { place: store.place(), what: what.to_owned() })
            }
            Err(error) => damaged(true, error.to_string()),
        },
        Err(error) if error.is_of_whole() => Err(error.into()),
        Err(error) => damaged(!matches!(error, StoreError::Missing { .. }), error.reason()),
    }
}

/// A vault before it is opened: the part of its store that anyone can read. It is read once, no matter how many secrets
/// are tried.
pub struct LockedVault {
    file: FileLook,
    slots: Slots,
}

impl LockedVault {
    /// Reads the VAULT file and all key slots.
    ///
    /// # Errors
    /// [`VaultError::Newer`] if a later version wrote the vault, or if the store fails as a whole.
    pub fn read(store: &dyn Store) -> Result<Self, VaultError> {
        Self::read_beside(store, None)
    }

    /// As [`Self::read`]; keeps the key slots in a folder of this machine, so that they are fetched only once. Only
    /// those that the store lists count. Worthwhile if a request costs more than reading a file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_keeping(store: &dyn Store, folder: &Path) -> Result<Self, VaultError> {
        Self::read_beside(store, Some(&KeptSlots(folder)))
    }

    fn read_beside(store: &dyn Store, kept: Option<&KeptSlots<'_>>) -> Result<Self, VaultError> {
        let slots = || Slots::read_beside(store, kept);
        let (file, slots) = both(store.limits().reads > 1, || vault_file(store), slots);
        Ok(Self { file: file?, slots: slots? })
    }

    /// Whether this is a mirror of a vault, which is only read.
    pub const fn is_mirror(&self) -> bool {
        self.file.is_mirror
    }

    /// Whether the VAULT file exists and is whole.
    pub(super) const fn is_file_sound(&self) -> bool {
        self.file.bad.is_none()
    }

    /// Whether the store has no trace of any vault.
    pub fn is_empty(&self) -> bool {
        !self.file.is_there && self.slots.copies.is_empty() && self.slots.bad.is_empty()
    }

    /// Whether several vaults have key slots here.
    pub fn is_shared(&self) -> bool {
        self.slots.vaults().len() > 1
    }

    /// Refuses a mirror that has got no key slot yet. It gets them when it has all else, so its first run was cut off.
    ///
    /// # Errors
    /// [`VaultError::Unfinished`].
    pub fn require_finished(&self, place: &dyn Fn() -> String) -> Result<(), VaultError> {
        if self.is_mirror() && self.slots.copies.is_empty() && self.slots.bad.is_empty() {
            return Err(VaultError::Unfinished { place: place() });
        }
        Ok(())
    }

    /// Why it cannot be opened if no slot of it can be read.
    fn without_slot(&self, place: &dyn Fn() -> String) -> VaultError {
        let bad = &self.slots.bad;
        if self.file.claimed.is_none() && bad.is_empty() {
            return VaultError::NoVault { place: place() };
        }
        if let Some(newer) = bad.iter().find(|slot| slot.state == ObjectState::Newer) {
            return VaultError::Newer { place: place(), what: newer.what.clone() };
        }
        let what = bad.first().map_or("there are none".to_owned(), |slot| format!("{}: {}", slot.key, slot.what));
        VaultError::NoSlot { place: place(), what }
    }

    /// The vault to open, if anything decides.
    ///
    /// # Errors
    /// [`VaultError::NotThatVault`], [`VaultError::OtherVault`], [`VaultError::Ambiguous`].
    pub fn choose(&self, wanted: &Wanted, place: &dyn Fn() -> String) -> Result<Option<VaultId>, VaultError> {
        choose(&self.slots.vaults(), self.file.claimed, wanted, place)
    }

    /// Id of the vault that would be opened, as far as the store and this machine's memory tell. It is not proven; it
    /// only shows where this machine may have a key.
    pub fn claimed_id(&self, wanted: &Wanted) -> Option<VaultId> {
        let chosen = self.choose(wanted, &String::new).ok()?;
        chosen.or_else(|| self.slots.vaults().first().copied()).or(self.file.claimed)
    }
}

/// Chooses the vault to open, if the slots belong to `vaults` and the VAULT file names `claimed`. `None` if nothing
/// decides.
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

/// The file that remembers which slot last opened a vault.
pub(super) fn opened_path(state: &Path, vault: VaultId) -> PathBuf {
    state.join(vault.to_string()).join("opened")
}

/// The slot that last opened this vault on this machine.
fn opened_last(state: &Path, vault: VaultId) -> Option<SlotId> {
    crate::ownfile::read_text(&opened_path(state, vault)).ok()?.trim().parse().ok()
}

/// Result of unlocking.
pub(super) struct Unlocked {
    pub(super) keyring: Keyring,
    pub(super) slot: SlotFile,
    /// This vault's slots, each once with the number of its copies.
    pub(super) slots: Vec<(SlotFile, u64)>,
    /// Other vaults that have slots here.
    pub(super) others: BTreeSet<VaultId>,
    /// The vault that the VAULT file names, if it is another one and has no slots here.
    pub(super) named: Option<VaultId>,
}

/// Finds the slot that `secret` opens.
pub(super) fn unlock(
    locked: &LockedVault,
    place: &dyn Fn() -> String,
    secret: &Secret,
    state: &Path,
    wanted: &Wanted,
    bad: &mut Vec<BadObject>,
    progress: &dyn Progress,
) -> Result<Unlocked, VaultError> {
    locked.require_finished(place)?;
    let LockedVault { file: FileLook { claimed, bad: bad_file, .. }, slots } = locked;
    let claimed = *claimed;
    bad.extend(bad_file.iter().cloned());
    let vaults = slots.vaults();
    if vaults.is_empty() {
        return Err(locked.without_slot(place));
    }
    let chosen = choose(&vaults, claimed, wanted, place)?;
    let mut candidates = slots.candidates(chosen, wanted, state, place)?;
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
            let named = claimed.filter(|claimed| !vaults.contains(claimed));
            if named.is_some() {
                // Exception: if that vault's objects are here, the file may be right, and its slots are gone.
                let what = "it names another vault than every key slot".to_owned();
                bad.push(BadObject { key: ObjectKey::Vault, state: ObjectState::Damaged, what });
            }
            let others: BTreeSet<VaultId> = vaults.into_iter().filter(|other| *other != id).collect();
            bad.extend(slots.bad_of(!others.is_empty() || named.is_some()).cloned());
            let slot = candidates.swap_remove(index);
            let slots = slots.counted().into_iter().filter(|(slot, _)| slot.vault() == id).collect();
            Ok(Unlocked { keyring, slot, slots, others, named })
        }
        Err(error) => {
            let others = vaults.into_iter().filter(|id| chosen.is_some_and(|chosen| chosen != *id)).collect();
            Err(why_locked(error, others, place()))
        }
    }
}

/// Why no slot was opened. `others` are the vaults here whose slots were not tried.
fn why_locked(error: UnlockError, others: Vec<VaultId>, place: String) -> VaultError {
    match error {
        UnlockError::Stopped => VaultError::Interrupted,
        UnlockError::Wrong => VaultError::WrongSecret { place, mistyped: false, others },
        UnlockError::Mistyped => VaultError::WrongSecret { place, mistyped: true, others },
        UnlockError::Slot(SlotError::PreRelease) => VaultError::PreRelease { place },
        UnlockError::Slot(SlotError::Newer { what }) => VaultError::Newer { place, what: format!("unknown {what}") },
        // This error says nothing about the slot.
        UnlockError::Slot(error @ SlotError::Memory { .. }) => error.into(),
        UnlockError::NoSlots | UnlockError::Slot(_) => VaultError::NoSlot { place, what: error.to_string() },
    }
}
