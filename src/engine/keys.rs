//! The key slots of a vault: listing, adding, removing, changing (SPEC §4.2).

use std::collections::BTreeMap;

use crate::id::{ObjectName, SlotId};
use crate::limits::KEY_SLOTS_MAX;
use crate::seal::{KdfParams, Purpose, SealError, Secret, SlotError, SlotFile};
use crate::store::{Kind, ObjectKey, StoreError};
use crate::vault::create::put_slot;
use crate::vault::open::Slots;
use crate::vault::{Vault, VaultError};

/// A key slot as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its id, the same in both copies.
    pub id: SlotId,
    /// What it is for.
    pub purpose: Purpose,
    /// The user's own name for it.
    pub label: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// How many readable copies the store has; two are normal.
    pub copies: u64,
}

/// Why the key slots could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such slot.
    #[error("there is no key slot {0}")]
    NoSuchSlot(SlotId),
    /// It is the last one: without it nobody could open the vault.
    #[error("key slot {0} is the last one: without it nobody could open the vault")]
    Last(SlotId),
    /// There are as many as there may be.
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
}

/// The readable slots of this vault with the objects that hold their copies.
fn copies(vault: &Vault) -> Result<BTreeMap<SlotId, (SlotFile, Vec<ObjectName>)>, StoreError> {
    let mut copies: BTreeMap<SlotId, (SlotFile, Vec<ObjectName>)> = BTreeMap::new();
    for (name, slot) in Slots::read(vault.store())?.copies {
        if slot.vault() == vault.id() {
            copies.entry(slot.id()).or_insert_with(|| (slot, Vec::new())).1.push(name);
        }
    }
    Ok(copies)
}

/// All key slots, oldest first. A slot whose label cannot be opened (it was forged) is left out.
///
/// # Errors
/// If the store fails.
pub fn list(vault: &Vault) -> Result<Vec<SlotInfo>, KeyError> {
    let mut slots: Vec<SlotInfo> = copies(vault)?
        .into_iter()
        .filter_map(|(id, (slot, names))| {
            let info = slot.info(&vault.keyring().master).ok()?;
            let copies = names.len() as u64;
            Some(SlotInfo { id, purpose: info.purpose, label: info.label, created: info.created, copies })
        })
        .collect();
    slots.sort_by_key(|slot| (slot.created, slot.id));
    Ok(slots)
}

/// Adds a slot that opens with `secret`.
///
/// # Errors
/// If there are too many, or the store fails.
pub fn add(
    vault: &Vault,
    secret: &Secret,
    purpose: Purpose,
    label: &str,
    kdf: KdfParams,
    now: u64,
) -> Result<SlotId, KeyError> {
    if copies(vault)?.len() >= KEY_SLOTS_MAX {
        return Err(KeyError::Full);
    }
    let slot = SlotFile::create(vault.keyring(), secret, purpose, label, now, kdf)?;
    put_slot(vault.store(), &slot)?;
    Ok(slot.id())
}

/// Removes a slot and both its copies.
///
/// # Errors
/// If it is the last one, or does not exist.
pub fn remove(vault: &Vault, id: SlotId) -> Result<(), KeyError> {
    let copies = copies(vault)?;
    let (_, names) = copies.get(&id).ok_or(KeyError::NoSuchSlot(id))?;
    if copies.len() == 1 {
        return Err(KeyError::Last(id));
    }
    for name in names {
        vault.store().delete(&ObjectKey::Named(Kind::Key, *name))?;
    }
    Ok(())
}

/// Replaces the slot that opens with `old` by one that opens with `new`, with the same label. The new one is stored, read
/// back and opened before the old one goes.
///
/// # Errors
/// If no slot opens with the old secret, or the store fails: the old one stays then.
pub fn change(vault: &Vault, old: &Secret, new: &Secret, kdf: KdfParams, now: u64) -> Result<SlotId, KeyError> {
    let before = copies(vault)?;
    let opens = |slot: &SlotFile, secret: &Secret| slot.unlock(secret).is_ok_and(|keyring| keyring.vault == vault.id());
    let slot = before.values().map(|(slot, _)| slot).find(|slot| opens(slot, old)).ok_or(KeyError::WrongSecret)?;
    let info = slot.info(&vault.keyring().master)?;
    let made = SlotFile::create(vault.keyring(), new, info.purpose, &info.label, now, kdf)?;
    put_slot(vault.store(), &made)?;
    let after = copies(vault)?;
    let stored = after.get(&made.id()).ok_or(KeyError::NoSuchSlot(made.id()))?;
    if !opens(&stored.0, new) {
        return Err(KeyError::WrongSecret);
    }
    remove(vault, slot.id())?;
    Ok(made.id())
}
