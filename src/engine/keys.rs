//! Key slots of a vault: listing, adding, removing, changing (SPEC §4.2, §8.4).
//!
//! Records say which slots are valid. A new slot is put first, then its record, and only then is an old slot deleted; removing a slot
//! first puts a record and then deletes the slot's files, durably. A slot that someone without the key could have made is ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::id::{ClientId, ObjectName, SlotId};
use crate::limits::KEY_SLOTS_MAX;
use crate::log::{RecordBody, SlotChange, SlotSet, Standing};
use crate::ownfile::replace_private_file;
use crate::progress::Progress;
use crate::seal::{KdfParams, Purpose, SealError, Secret, SlotError, SlotFile, random};
use crate::store::{Delivery, Kind, ObjectKey, Store, StoreError};
use crate::tree::Time;
use crate::vault::create::{put_slot, take_back};
use crate::vault::locked::Slots;
use crate::vault::slots::{SlotFault, digest};
use crate::vault::{Vault, VaultError};

/// State of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// It is valid.
    Valid,
    /// It opens the vault, but no record mentions it: its creation was interrupted, or its record has not arrived.
    Pending,
    /// It was removed but still opens the vault: its files have not been deleted yet, or were put back.
    Removed,
    /// It is valid, but its files do not exist: they were deleted, or have not arrived.
    Missing,
}

/// A key slot as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its id, the same in both copies.
    pub id: SlotId,
    /// Its purpose. For a missing slot, this is all that is known, and only roughly: a device key or a password.
    pub purpose: Purpose,
    /// The user's name for it.
    pub label: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Number of readable copies in the store; two is normal.
    pub copies: u64,
    /// Its state.
    pub state: SlotState,
}

impl SlotInfo {
    /// Whether a person can open the vault with it, now and legitimately: a device key is on one machine only.
    pub fn is_for_a_person(&self) -> bool {
        self.purpose != Purpose::Device && matches!(self.state, SlotState::Valid | SlotState::Pending)
    }
}

/// Why the key slots could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such slot.
    #[error("there is no key slot {0}")]
    NoSuchSlot(SlotId),
    /// It is the last one that a person can use: without it only machines with a device key could open the vault.
    #[error("key slot {0} is the last password or recovery key: without it nobody could open the vault any more")]
    Last(SlotId),
    /// Another machine removed another slot at the same time, and together they would have left none.
    #[error(
        "key slot {0} stays: another machine removed the other one at the same time, and none would have been left"
    )]
    Crossed(SlotId),
    /// A command of this machine started earlier and does not know the slot yet.
    #[error(
        "key slot {0} cannot be removed while another vault command of this machine is running that began before it was made"
    )]
    Busy(SlotId),
    /// The vault has the maximum number of slots.
    #[error("a vault has at most {KEY_SLOTS_MAX} key slots")]
    Full,
    /// No slot opens with the old password.
    #[error("no key slot opens with the old password")]
    WrongSecret,
    /// A slot could not be made.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The file with this machine's key could not be written or removed.
    #[error("cannot {action} the device key {path}")]
    Device {
        /// The failed action.
        action: &'static str,
        /// The file.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
}

/// The key of one machine and user for one vault: random, in this user's state folder, with its own key slot. Wiped when dropped, never
/// shown in Debug.
pub struct DeviceKey {
    slot: SlotId,
    secret: Zeroizing<Vec<u8>>,
}

const DEVICE_KEY_LEN: usize = 32;
const DEVICE_KEY_MAGIC: &str = "vault device key 1";

impl DeviceKey {
    fn path(state: &Path) -> PathBuf {
        state.join("device-key")
    }

    /// Loads the key from this machine's folder for a vault; `None` if there is none or it is damaged.
    pub fn load(state: &Path) -> Option<Self> {
        let text = Zeroizing::new(crate::ownfile::read_text(&Self::path(state)).ok()?);
        let mut lines = text.lines();
        if lines.next() != Some(DEVICE_KEY_MAGIC) {
            return None;
        }
        let slot = lines.next()?.parse().ok()?;
        let digits = lines.next()?.as_bytes();
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let mut secret = Zeroizing::new(Vec::with_capacity(DEVICE_KEY_LEN));
        for pair in digits.chunks(2) {
            let [high, low] = pair else { return None };
            secret.push(digit(high)? << 4 | digit(low)?);
        }
        (secret.len() == DEVICE_KEY_LEN).then_some(Self { slot, secret })
    }

    /// Its key slot.
    pub const fn slot(&self) -> SlotId {
        self.slot
    }

    /// The random secret that opens the slot.
    pub const fn secret(&self) -> &Zeroizing<Vec<u8>> {
        &self.secret
    }

    /// Removes the key from this machine's folder for a vault.
    ///
    /// # Errors
    /// If it exists and cannot be removed.
    pub fn discard(state: &Path) -> Result<(), KeyError> {
        match std::fs::remove_file(Self::path(state)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(KeyError::Device { action: "remove", path: Self::path(state).display().to_string(), source })
            }
            _ => Ok(()),
        }
    }
}

/// Creates a key for this machine: a slot, and a file in this machine's folder that only this user can read. An existing key is replaced;
/// its slot stays.
///
/// # Errors
/// If there are too many slots, the store fails, or the file cannot be written: then no slot is left either.
pub fn add_device(vault: &Vault, label: &str, time: Time, progress: &dyn Progress) -> Result<SlotId, KeyError> {
    let mut secret = Zeroizing::new(vec![0; DEVICE_KEY_LEN]);
    random(&mut secret)?;
    let secret_again = Secret::Raw(secret.clone());
    let slot = add(vault, &secret_again, Purpose::Device, label, KdfParams::Standard, time, progress)?;
    let mut text = Zeroizing::new(String::with_capacity(256));
    text.push_str(DEVICE_KEY_MAGIC);
    text.push('\n');
    text.push_str(&slot.to_string());
    text.push('\n');
    for byte in secret.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
    }
    text.push('\n');
    let path = DeviceKey::path(vault.state());
    if let Err(source) = replace_private_file(&path, text.as_bytes()) {
        // A slot that nothing opens would only be in the way.
        let _ = remove(vault, slot, When::Now, time, progress);
        return Err(KeyError::Device { action: "write", path: path.display().to_string(), source });
    }
    Ok(slot)
}

/// A slot that was made with the vault's key, and the objects with its copies.
struct Held {
    slot: SlotFile,
    purpose: Purpose,
    label: String,
    created: u64,
    names: Vec<ObjectName>,
    standing: Standing,
}

/// All slots of this vault.
#[derive(Default)]
struct Survey {
    /// The slots that were made with the vault's key.
    held: BTreeMap<SlotId, Held>,
    /// Number of slots that were not: they claim to belong to this vault, but open nothing.
    forged: u64,
    set: SlotSet,
}

/// Reads all slots and compares them with the log as known now.
fn survey(vault: &Vault) -> Result<Survey, StoreError> {
    let mut survey = Survey { set: vault.slot_set(), ..Survey::default() };
    let mut forged = BTreeSet::new();
    for (name, slot) in Slots::read(vault.store())?.copies {
        if slot.vault() != vault.id() {
            continue;
        }
        let standing = survey.set.standing(&slot.id(), &digest(&slot));
        let info = slot.info(&vault.keyring().master).ok().filter(|_| standing != Standing::Other);
        let Some(info) = info else {
            forged.insert(*slot.as_bytes());
            continue;
        };
        let held = survey.held.entry(slot.id()).or_insert_with(|| Held {
            purpose: info.purpose,
            label: info.label,
            created: info.created,
            names: Vec::new(),
            standing,
            slot: slot.clone(),
        });
        // Two genuine slots with one id can only be made by someone who has the key: the first one counts.
        if held.slot.as_bytes() == slot.as_bytes() {
            held.names.push(name);
        }
    }
    survey.forged = forged.len() as u64;
    Ok(survey)
}

impl Survey {
    /// Whether there is a slot other than `id` that a person can use, whose files are here, and that `counts` accepts.
    fn others_for_a_person(&self, id: SlotId, counts: impl Fn(&Held) -> bool) -> bool {
        let is_one = |held: &&Held| {
            held.purpose != Purpose::Device && matches!(held.standing, Standing::Valid | Standing::Pending)
        };
        self.held.values().filter(is_one).any(|held| held.slot.id() != id && counts(held))
    }

    /// Whether the right people could still open the vault without this slot.
    fn may_go(&self, id: SlotId) -> bool {
        let is_for_a_person = self.held.get(&id).is_none_or(|held| held.purpose != Purpose::Device);
        let another = |held: &Held| held.slot.id() != id && held.standing != Standing::Removed;
        // A device key may be removed unless nothing else is left at all.
        self.others_for_a_person(id, |_| true) || !is_for_a_person && self.held.values().any(another)
    }

    fn infos(&self) -> Vec<SlotInfo> {
        let held = self.held.values().map(|held| SlotInfo {
            id: held.slot.id(),
            purpose: held.purpose,
            label: held.label.clone(),
            created: held.created,
            copies: held.names.len() as u64,
            state: match held.standing {
                Standing::Valid => SlotState::Valid,
                Standing::Removed => SlotState::Removed,
                // No record mentions any slot yet: these were created with the vault.
                Standing::Pending if !self.set.exists() => SlotState::Valid,
                Standing::Pending | Standing::Other => SlotState::Pending,
            },
        });
        let missing = self.set.valid().filter(|slot| !self.held.contains_key(&slot.id)).map(|slot| SlotInfo {
            id: slot.id,
            purpose: if slot.device { Purpose::Device } else { Purpose::Password },
            label: String::new(),
            created: 0,
            copies: 0,
            state: SlotState::Missing,
        });
        let mut infos: Vec<SlotInfo> = held.chain(missing).collect();
        infos.sort_by_key(|slot| (slot.created, slot.id));
        infos
    }
}

/// All key slots, oldest first. Slots that were not made with the vault's key are left out.
///
/// # Errors
/// If the store fails.
pub fn list(vault: &Vault) -> Result<Vec<SlotInfo>, KeyError> {
    Ok(survey(vault)?.infos())
}

/// All key slots, and the number of files that only look like slots of this vault.
///
/// # Errors
/// If the store fails.
pub fn list_all(vault: &Vault) -> Result<(Vec<SlotInfo>, u64), KeyError> {
    let survey = survey(vault)?;
    Ok((survey.infos(), survey.forged))
}

/// Adds a slot that opens with `secret`.
///
/// # Errors
/// If there are too many, or the store fails: then no new slot is left.
pub fn add(
    vault: &Vault,
    secret: &Secret,
    purpose: Purpose,
    label: &str,
    kdf: KdfParams,
    time: Time,
    progress: &dyn Progress,
) -> Result<SlotId, KeyError> {
    vault.may_write()?;
    let count = |survey: &Survey| survey.held.values().filter(|held| held.standing != Standing::Removed).count();
    if count(&survey(vault)?) >= KEY_SLOTS_MAX {
        return Err(KeyError::Full);
    }
    let slot = SlotFile::create(vault.keyring(), secret, purpose, label, seconds(time), kdf)?;
    put_recorded(vault, &slot, Vec::new(), time, |_| true, progress)?;
    Ok(slot.id())
}

fn seconds(time: Time) -> u64 {
    u64::try_from(time.secs).unwrap_or(0)
}

/// Puts both copies of a slot, then the record that makes it valid and removes others. If anything fails, or `confirm` returns `false`
/// (then this does too), the copies are deleted again.
fn put_recorded(
    vault: &Vault,
    slot: &SlotFile,
    remove: Vec<SlotId>,
    time: Time,
    confirm: impl FnOnce(&Vault) -> bool,
    progress: &dyn Progress,
) -> Result<bool, KeyError> {
    if !vault.slot_set().exists() {
        // The existing slots are recorded before the new one is put, which would otherwise be taken for one of them.
        vault.publish(RecordBody::Slots(SlotChange::default()), time, None, |_| false, progress)?;
    }
    let names = put_slot(vault.store(), slot)?;
    let added = vault.valid_slot(slot).into_iter().collect();
    let change = RecordBody::Slots(SlotChange { add: added, remove });
    let published = vault.publish(change, time, None, confirm, progress);
    // A record that was put, and could just not be looked for behind it, has made the slot valid.
    let is_valid = || vault.slot_set().standing(&slot.id(), &digest(slot)) == Standing::Valid;
    if !matches!(published, Ok(Some(_))) && !is_valid() {
        take_back(vault.store(), &names);
    }
    Ok(published?.is_some())
}

/// When the files of a removed slot are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// On a synced store, once all machines know of the removal; otherwise at once.
    Known,
    /// At once, whatever others do at the same time.
    Now,
}

/// Deletes the files of a slot that no record mentions yet: one that was created with its vault, by the same program.
///
/// # Errors
/// If the store fails.
pub fn discard_unrecorded(store: &dyn Store, id: SlotId) -> Result<(), KeyError> {
    for (name, _) in Slots::read(store)?.copies.into_iter().filter(|(_, slot)| slot.id() == id) {
        store.delete_durably(&ObjectKey::Named(Kind::Key, name))?;
    }
    Ok(())
}

/// Result of removing a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// Its files are deleted.
    Gone,
    /// It is removed, but its files stay until these machines know of the removal.
    Waiting(Vec<ClientId>),
}

/// Removes a slot: with a record, then by deleting its files, durably.
///
/// # Errors
/// If it is the last one that a person can use, or does not exist.
pub fn remove(vault: &Vault, id: SlotId, when: When, time: Time, progress: &dyn Progress) -> Result<Removal, KeyError> {
    vault.may_write()?;
    vault.refresh(progress)?;
    let before = survey(vault)?;
    let standing = before.held.get(&id).map(|held| held.standing);
    let is_missing = before.set.valid().any(|slot| slot.id == id);
    if standing.is_none() && !is_missing && !Notes::load(vault).0.contains_key(&id) {
        return Err(KeyError::NoSuchSlot(id));
    }
    if !before.may_go(id) {
        return Err(KeyError::Last(id));
    }
    note(vault, id, before.held.get(&id))?;
    if standing != Some(Standing::Removed) && (standing.is_some() || is_missing) {
        let mut refused = None;
        let confirm = |vault: &Vault| {
            refused = refusal(vault, id);
            refused.is_none()
        };
        let change = RecordBody::Slots(SlotChange { add: Vec::new(), remove: vec![id] });
        vault.publish(change, time, None, confirm, progress)?;
        if let Some(refused) = refused {
            forget(vault, id)?;
            return Err(refused);
        }
    }
    finish(vault, id, when, time, progress)
}

/// Why a slot cannot be removed by a record written now, if so.
fn refusal(vault: &Vault, id: SlotId) -> Option<KeyError> {
    let survey = match survey(vault) {
        Ok(survey) => survey,
        Err(error) => return Some(error.into()),
    };
    if !survey.may_go(id) {
        return Some(KeyError::Last(id));
    }
    // A record removes only additions that it acknowledges, which are those that all running work of this client has seen.
    let acknowledged: BTreeMap<ClientId, u64> = vault.acknowledged(None).into_iter().collect();
    let own = vault.client();
    let mut additions = survey.set.additions(&id);
    let knows = |(client, number)| Some(client) == own || acknowledged.get(&client).is_some_and(|seen| *seen >= number);
    (!additions.all(knows)).then_some(KeyError::Busy(id))
}

/// Deletes the files of a slot that a record has removed, if it is time.
fn finish(vault: &Vault, id: SlotId, when: When, time: Time, progress: &dyn Progress) -> Result<Removal, KeyError> {
    // This comes after the record: another machine that removed another slot at the same time sees this record, or its record is seen
    // here.
    vault.refresh(progress)?;
    let survey = survey(vault)?;
    let is_for_a_person = survey.held.get(&id).is_some_and(|held| held.purpose != Purpose::Device);
    let is_void = survey.set.valid().any(|slot| slot.id == id);
    let late = vault.delivery() == Delivery::Synced;
    let is_alone = || !survey.others_for_a_person(id, |held| is_certain(&survey, held));
    if is_void || is_for_a_person && !late && is_alone() {
        // Another machine has removed the other slot meanwhile, and may have deleted it already: this slot stays, whichever record wins.
        // A record says so, so that it no longer depends on that.
        if let Some(valid) = survey.held.get(&id).and_then(|held| vault.valid_slot(&held.slot)) {
            let change = RecordBody::Slots(SlotChange { add: vec![valid], remove: Vec::new() });
            vault.publish(change, time, None, |_| true, progress)?;
        }
        forget(vault, id)?;
        return Err(KeyError::Crossed(id));
    }
    if late && when == When::Known {
        let waiting = vault.unaware_of_removal(&survey.set, id);
        if !waiting.is_empty() {
            return Ok(Removal::Waiting(waiting));
        }
    }
    if !survey.may_go(id) {
        return Err(KeyError::Last(id));
    }
    let mut names = Notes::load(vault).0.remove(&id).unwrap_or_default();
    names.extend(survey.held.get(&id).into_iter().flat_map(|held| &held.names));
    for name in names {
        vault.store().delete_durably(&ObjectKey::Named(Kind::Key, name))?;
    }
    forget(vault, id)?;
    Ok(Removal::Gone)
}

/// Whether a slot stays even if removals that are void now become valid. True for slots that no record mentions.
fn is_certain(survey: &Survey, held: &Held) -> bool {
    held.standing == Standing::Pending || survey.set.is_beyond_doubt(&held.slot.id())
}

/// Whether the files of a slot may be moved aside: it was removed, and they should be gone.
pub(crate) fn is_done_with(vault: &Vault, slot: &SlotFile) -> bool {
    let set = vault.slot_set();
    set.standing(&slot.id(), &digest(slot)) == Standing::Removed && vault.is_removal_settled(&set, slot.id())
}

/// Slots that were removed but still have files, as found when the slots were last read: the files were put back. A slot that only waits
/// for its files to be deleted is not included, unless it opened the vault now.
pub fn returned(vault: &Vault) -> Vec<SlotId> {
    let odd = vault.odd_slots().into_iter();
    odd.filter(|odd| odd.fault == SlotFault::Returned).map(|odd| odd.slot.id).collect()
}

/// Slots that this machine has removed and whose files must still be deleted, with the objects that contain them. Objects that were put
/// back later are not included.
#[derive(Default)]
struct Notes(BTreeMap<SlotId, BTreeSet<ObjectName>>);

impl Notes {
    fn path(vault: &Vault) -> PathBuf {
        vault.state().join("removals")
    }

    fn load(vault: &Vault) -> Self {
        let text = crate::ownfile::read_text(&Self::path(vault)).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split(' ');
            let id = words.next()?.parse().ok()?;
            Some((id, words.filter_map(|word| word.parse().ok()).collect()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn save(&self, vault: &Vault) -> Result<(), KeyError> {
        let line = |(id, names): (&SlotId, &BTreeSet<ObjectName>)| {
            names.iter().fold(id.to_string(), |line, name| format!("{line} {name}")) + "\n"
        };
        let text: String = self.0.iter().map(line).collect();
        let path = Self::path(vault);
        replace_private_file(&path, text.as_bytes())
            .map_err(|source| VaultError::State { action: "write", path: path.display().to_string(), source }.into())
    }
}

/// Notes that the files of a slot must be deleted.
fn note(vault: &Vault, id: SlotId, held: Option<&Held>) -> Result<(), KeyError> {
    let mut notes = Notes::load(vault);
    notes.0.entry(id).or_default().extend(held.into_iter().flat_map(|held| &held.names));
    notes.save(vault)
}

fn forget(vault: &Vault, id: SlotId) -> Result<(), KeyError> {
    let mut notes = Notes::load(vault);
    if notes.0.remove(&id).is_some() {
        notes.save(vault)?;
    }
    Ok(())
}

/// Deletes the files of slots that this machine removed earlier, if all machines know of the removal by now. Returns the slots whose
/// files are deleted.
///
/// # Errors
/// If the store fails.
pub fn settle(vault: &Vault, time: Time, progress: &dyn Progress) -> Result<Vec<SlotId>, KeyError> {
    let mut gone = Vec::new();
    for id in Notes::load(vault).0.into_keys() {
        let now = survey(vault)?;
        if now.held.contains_key(&id) && now.set.removals(&id).next().is_none() {
            // The record that was to remove it was never put.
            forget(vault, id)?;
            continue;
        }
        match finish(vault, id, When::Known, time, progress) {
            Ok(Removal::Gone) => gone.push(id),
            Ok(Removal::Waiting(_)) | Err(KeyError::Crossed(_) | KeyError::Last(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if !gone.is_empty() {
        vault.look_at_slots()?;
    }
    Ok(gone)
}

/// Result of changing a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The new slot.
    pub slot: SlotId,
    /// The result for the old slot.
    pub old: Removal,
}

/// Replaces the slot that opens with `old` by one that opens with `new`, with the same label. The new one is stored, read back and
/// opened, and recorded as valid, before the old one is deleted.
///
/// # Errors
/// If no slot opens with the old secret, or the store fails: then the old slot stays, and no new one is left.
pub fn change(
    vault: &Vault,
    old: &Secret,
    new: &Secret,
    kdf: KdfParams,
    when: When,
    time: Time,
    progress: &dyn Progress,
) -> Result<Changed, KeyError> {
    vault.may_write()?;
    vault.refresh(progress)?;
    let before = survey(vault)?;
    let opens = |slot: &SlotFile, secret: &Secret| slot.unlock(secret).is_ok_and(|keyring| keyring.vault == vault.id());
    let mut held: Vec<&Held> = before.held.values().collect();
    // Try the slot that opened the vault first, then the valid ones.
    held.sort_by_key(|held| (held.slot.id() != vault.opened_by(), held.standing != Standing::Valid));
    let found = held.into_iter().find(|held| opens(&held.slot, old)).ok_or(KeyError::WrongSecret)?;
    let made = SlotFile::create(vault.keyring(), new, found.purpose, &found.label, seconds(time), kdf)?;
    let id = found.slot.id();
    note(vault, id, Some(found))?;
    let mut refused = None;
    let confirm = |vault: &Vault| {
        refused = match survey(vault) {
            Ok(now) if now.held.get(&made.id()).is_none_or(|held| held.names.len() < 2 || !opens(&held.slot, new)) => {
                Some(KeyError::WrongSecret)
            }
            Ok(_) => refusal(vault, id),
            Err(error) => Some(error.into()),
        };
        refused.is_none()
    };
    let put = put_recorded(vault, &made, vec![id], time, confirm, progress);
    if !matches!(put, Ok(true)) {
        forget(vault, id)?;
    }
    put?;
    if let Some(refused) = refused {
        return Err(refused);
    }
    Ok(Changed { slot: made.id(), old: finish(vault, id, when, time, progress)? })
}

/// Whether a secret opens the vault by one of its slots: users who change slots show that they may.
///
/// # Errors
/// If the store fails.
pub fn opens(vault: &Vault, secret: &Secret) -> Result<bool, KeyError> {
    let survey = survey(vault)?;
    let mut held: Vec<&Held> = survey.held.values().collect();
    held.sort_by_key(|held| (held.slot.id() != vault.opened_by(), held.standing != Standing::Valid));
    Ok(held.into_iter().any(|held| held.slot.unlock(secret).is_ok_and(|keyring| keyring.vault == vault.id())))
}

#[cfg(test)]
mod tests;
