//! Odd key slots: slots of this vault in the store that no record calls valid, and valid ones that lack copies (SPEC
//! §8.4, kind 11).

use std::collections::BTreeSet;

use crate::id::{ClientId, Digest, SlotId};
use crate::log::record::ValidSlot;
use crate::log::{Acknowledgements, Sight, SlotSet, Standing};
use crate::seal::SlotFile;
use crate::store::{Delivery, Kind, ObjectKey};
use crate::sync::lock;
use crate::vault::locked::Slots;
use crate::vault::{Vault, VaultError};

/// The fault of a key slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotFault {
    /// It was removed, and its file is here again: it opens the vault.
    Returned,
    /// It opens the vault, and no record says that it is valid.
    Unlisted,
    /// It has this vault's id, but was made without its key: it opens nothing.
    Forged,
    /// It is valid, but one of the two copies that there should be is gone.
    OnlyCopy,
    /// It is valid, but there is no copy of it: anyone who relies on it cannot open the vault.
    Missing,
    /// It is valid, but its copies may just not have arrived yet.
    Late,
}

/// A key slot with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OddSlot {
    /// Its id and the hash of its bytes. `device` has no meaning for a forged one.
    pub slot: ValidSlot,
    /// The fault.
    pub fault: SlotFault,
}

/// The hash by which a record identifies the bytes of a slot.
pub(crate) fn digest(slot: &SlotFile) -> Digest {
    Digest::new(*blake3::hash(slot.as_bytes()).as_bytes())
}

impl Vault {
    /// The machines that may not know yet that a slot was removed.
    pub(crate) fn unaware_of_removal(&self, set: &SlotSet, id: SlotId) -> Vec<ClientId> {
        let acks = Acknowledgements::new(&self.chains());
        let own = self.client();
        let unaware = |(client, number): (ClientId, u64)| -> Vec<ClientId> {
            let others = acks.active().filter(|other| *other != client && Some(*other) != own);
            others.filter(|other| acks.of(other, &client) < number).collect()
        };
        let clients: BTreeSet<ClientId> = set.removals(&id).flat_map(unaware).collect();
        clients.into_iter().collect()
    }

    /// Whether the file of a removed slot should be gone: all active clients know of the removal, and the client that
    /// removed it knows that they do, as that client deletes the file.
    pub(crate) fn is_removal_settled(&self, set: &SlotSet, id: SlotId) -> bool {
        if self.delivery() == Delivery::Direct {
            return true;
        }
        if !self.unaware_of_removal(set, id).is_empty() {
            return false;
        }
        let chains = self.chains();
        let (acks, sight) = (Acknowledgements::new(&chains), Sight::new(&chains));
        let active: BTreeSet<ClientId> = acks.active().collect();
        set.removals(&id).all(|(remover, number)| {
            // A retired client deletes nothing any more. One that has not written since deletes the file with its next
            // work.
            if !active.contains(&remover) {
                return true;
            }
            let seen = chains.last(&remover).map(|last| sight.of(&last.record)).unwrap_or_default();
            active.iter().filter(|other| **other != remover).all(|other| {
                let records = chains.clients.get(other);
                let link = seen.get(other).and_then(|last| records?.get(last)?.first());
                link.is_some_and(|link| sight.has_seen(&link.record, &remover, number))
            })
        })
    }

    /// Reads the files of slots again: some may have been put, deleted or moved.
    ///
    /// # Errors
    /// If the store fails as a whole.
    pub(crate) fn look_at_slots(&self) -> Result<(), VaultError> {
        let slots = Slots::read(self.store())?;
        self.log().bad.retain(|bad| !matches!(bad.key, ObjectKey::Named(Kind::Key, _)));
        self.note_bad(slots.bad_of(self.may_share()).cloned().collect())?;
        *lock(&self.slots) = slots.counted().into_iter().filter(|(slot, _)| slot.vault() == self.id()).collect();
        Ok(())
    }

    /// Slots of this vault that are here and should not be, and valid ones that lack a copy, as of the last look. A
    /// removed slot whose file is about to be deleted does not count, unless it opened the vault now.
    pub fn odd_slots(&self) -> Vec<OddSlot> {
        let set = self.slot_set();
        let mut odd = Vec::new();
        let files = lock(&self.slots).clone();
        let mut there = BTreeSet::new();
        for (file, copies) in &files {
            let valid = self.valid_slot(file);
            let slot = valid.unwrap_or_else(|| ValidSlot { id: file.id(), digest: digest(file), device: false });
            let fault = match (valid.is_some(), set.standing(&slot.id, &slot.digest)) {
                (false, _) => SlotFault::Forged,
                (true, Standing::Removed) if slot.id == self.opened_by() || self.is_removal_settled(&set, slot.id) => {
                    SlotFault::Returned
                }
                (true, Standing::Other) => SlotFault::Unlisted,
                // Before there is any record, the slots that were put when the vault was made are valid.
                (true, Standing::Pending) if set.exists() => SlotFault::Unlisted,
                (true, Standing::Removed) => continue,
                (true, Standing::Pending | Standing::Valid) => {
                    there.insert(slot.id);
                    if *copies > 1 {
                        continue;
                    }
                    SlotFault::OnlyCopy
                }
            };
            odd.push(OddSlot { slot, fault });
        }
        let gone = if self.delivery() == Delivery::Synced { SlotFault::Late } else { SlotFault::Missing };
        odd.extend(set.valid().filter(|slot| !there.contains(&slot.id)).map(|slot| OddSlot { slot, fault: gone }));
        odd
    }
}
