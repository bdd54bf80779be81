//! The key slots of a vault: listing, adding, removing, changing (SPEC §4.2).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::fs::replace_private_file;
use crate::id::{ObjectName, SlotId};
use crate::limits::KEY_SLOTS_MAX;
use crate::seal::{KdfParams, Purpose, SealError, Secret, SlotError, SlotFile, random};
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
    /// The file with the key of this machine could not be written or removed.
    #[error("cannot {action} the device key {path}")]
    Device {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The key of one machine and user to one vault: random, in this user's state folder, with a key slot of its own. Wiped
/// when dropped, never shown in Debug.
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

    /// The key in this machine's folder for a vault; `None` if there is none, or it is damaged.
    pub fn load(state: &Path) -> Option<Self> {
        let text = Zeroizing::new(std::fs::read_to_string(Self::path(state)).ok()?);
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

    /// What opens the slot, as a random secret.
    pub const fn secret(&self) -> &Zeroizing<Vec<u8>> {
        &self.secret
    }

    /// Removes the key from this machine's folder for a vault.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn discard(state: &Path) -> Result<(), KeyError> {
        match std::fs::remove_file(Self::path(state)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(KeyError::Device { action: "remove", path: Self::path(state).display().to_string(), source })
            }
            _ => Ok(()),
        }
    }
}

/// Makes a key for this machine: a slot of its own, and a file in this machine's folder that only this user can read.
/// One that was there before is replaced; its slot stays.
///
/// # Errors
/// If there are too many slots, the store fails, or the file cannot be written: then there is no slot either.
pub fn add_device(vault: &Vault, label: &str, now: u64) -> Result<SlotId, KeyError> {
    let mut secret = Zeroizing::new(vec![0; DEVICE_KEY_LEN]);
    random(&mut secret)?;
    let slot = add(vault, &Secret::Raw(secret.clone()), Purpose::Device, label, KdfParams::Standard, now)?;
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
        let _ = remove(vault, slot);
        return Err(KeyError::Device { action: "write", path: path.display().to_string(), source });
    }
    Ok(slot)
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
