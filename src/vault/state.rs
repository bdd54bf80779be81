//! States of objects of the store, as far as this machine can tell: sound, not arrived, damaged, unknown, or not this
//! vault's.

use std::collections::{HashMap, HashSet};

use crate::id::{ChunkId, ClientId, ObjectName};
use crate::log::Chains;
use crate::pack::{PackError, TRAILER_LEN};
use crate::store::{Delivery, Kind, ObjectKey, StoreError};
use crate::vault::identity::ClientState;
use crate::vault::read_error::ReadError;
use crate::vault::{BadObject, SnapshotInfo, Vault, VaultError};

/// State of an object. Only one of these is damage; each has words of its own everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectState {
    /// It is as it was put.
    Sound,
    /// Another machine put it, and the sync has not brought all of it yet.
    NotArrived,
    /// A later version wrote it.
    Newer,
    /// It belongs to another vault in the same place.
    OfAnotherVault,
    /// vault did not put it there.
    Foreign,
    /// It was there, and is gone.
    Missing,
    /// It is not as it was put, but only made things quicker: its content exists elsewhere, too.
    Redundant,
    /// It is not as it was put.
    Damaged,
}

impl ObjectState {
    /// State of an object that cannot be read, as long as nothing more is known about it.
    pub(super) const fn of_unread(newer: bool) -> Self {
        if newer { Self::Newer } else { Self::Damaged }
    }

    /// Whether data is lost by it.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Missing | Self::Damaged)
    }

    /// Whether the user should know of it although nothing is lost.
    pub const fn is_remark(self) -> bool {
        matches!(self, Self::NotArrived | Self::Newer | Self::Redundant)
    }

    /// The text for an object in this state that could not be read for `reason`. For one that has not arrived the
    /// reason says nothing.
    pub fn told(self, reason: String) -> String {
        if self == Self::NotArrived { "it is not here as it was put".to_owned() } else { reason }
    }

    /// A word for it, as shown and in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::NotArrived => "not arrived",
            Self::Newer => "newer",
            Self::OfAnotherVault => "of another vault",
            Self::Foreign => "foreign",
            Self::Missing => "missing",
            Self::Redundant => "redundant",
            Self::Damaged => "damaged",
        }
    }
}

/// Longest object of a vault in a synced folder that is read to check its trailer.
const LOOKED_AT_MAX: u64 = 256 << 20;

impl Vault {
    /// The state of an object that cannot be read as it was put.
    ///
    /// # Errors
    /// If the store as a whole is unavailable.
    pub fn state_of(&self, key: &ObjectKey) -> Result<ObjectState, VaultError> {
        if self.is_of_another(key)? {
            return Ok(ObjectState::OfAnotherVault);
        }
        let delivery = self.delivery();
        let own = self.is_own(key, &self.log().chains);
        let is_strange = delivery == Delivery::Synced && !own && self.is_strange(key)?;
        self.state_by(key, delivery, own, is_strange)
    }

    /// As [`Self::state_of`], given the store's delivery, whether the object is this client's own, and whether nothing
    /// names it and it does not open. In that case the key slots of its vault, or the record that names it, may not
    /// have arrived.
    pub(crate) fn state_by(
        &self,
        key: &ObjectKey,
        delivery: Delivery,
        own: bool,
        is_strange: bool,
    ) -> Result<ObjectState, VaultError> {
        let useless = match key {
            ObjectKey::Named(Kind::Index, _) => ObjectState::Redundant,
            _ => ObjectState::Damaged,
        };
        if delivery == Delivery::Direct || own {
            return Ok(useless);
        }
        let is_key = matches!(key, ObjectKey::Named(Kind::Key, _));
        Ok(if (!is_strange || is_key) && self.is_whole(key)? { useless } else { ObjectState::NotArrived })
    }

    /// Whether the store has packs that a later version wrote: chunks that this version finds nowhere may be in them.
    pub fn has_newer_packs(&self) -> bool {
        let is_newer_pack = |bad: &BadObject| {
            bad.state == ObjectState::Newer && matches!(bad.key, ObjectKey::Named(Kind::Pack | Kind::Meta, _))
        };
        self.log().bad.iter().any(is_newer_pack)
    }

    /// Whether the log has objects that a later version wrote: they may be snapshots of which nothing is known here.
    pub fn has_newer_records(&self) -> bool {
        let is_newer_record =
            |bad: &BadObject| bad.state == ObjectState::Newer && matches!(bad.key, ObjectKey::Named(Kind::Log, _));
        self.log().bad.iter().any(is_newer_record)
    }

    /// The error for a chunk that is in none of the packs whose footers were read.
    pub(crate) fn lost(&self, id: &ChunkId) -> ReadError {
        if self.has_newer_packs() { ReadError::Hidden(*id) } else { ReadError::Lost(*id) }
    }

    /// Splits snapshots that lack something into those that may still be sound, and the rest. The state is that of the
    /// former: newer if there are packs that this version cannot read and that may have the chunks; otherwise not
    /// arrived.
    pub fn part_unsure<T>(&self, hurt: Vec<T>, id: impl Fn(&T) -> ObjectName) -> (ObjectState, Vec<T>, Vec<T>) {
        if self.has_newer_packs() {
            return (ObjectState::Newer, hurt, Vec::new());
        }
        let (late, lost) = self.part_late(hurt, id);
        (ObjectState::NotArrived, late, lost)
    }

    /// Splits snapshots that lack something into those whose data may just not have arrived yet, and the rest: on a
    /// store that delivers late, data of another client may be on its way. This includes snapshots of this client that
    /// another one has replaced, or that replace another client's.
    pub fn part_late<T>(&self, hurt: Vec<T>, id: impl Fn(&T) -> ObjectName) -> (Vec<T>, Vec<T>) {
        if self.delivery() == Delivery::Direct {
            return (Vec::new(), hurt);
        }
        let me = ClientState::load(self.state()).map(|state| state.client);
        let chains = self.chains();
        let writers: HashMap<ObjectName, ClientId> =
            chains.links().map(|link| (link.name, link.record.client)).collect();
        let is_own = |info: &SnapshotInfo| {
            let mut names = info.replaced.iter().chain([&info.id]);
            me.is_some() && Some(info.client) == me && names.all(|name| writers.get(name).copied() == me)
        };
        let own: HashSet<ObjectName> = self
            .snapshots()
            .into_iter()
            .filter(is_own)
            .flat_map(|info| std::iter::once(info.id).chain(info.replaced))
            .collect();
        hurt.into_iter().partition(|hurt| !own.contains(&id(hurt)))
    }

    /// Those of these snapshots for which [`Self::may_be_late`] says yes, with one look at the log for all.
    pub(crate) fn late_among(&self, snapshots: impl IntoIterator<Item = ObjectName>) -> HashSet<ObjectName> {
        self.part_late(snapshots.into_iter().collect(), |id| *id).0.into_iter().collect()
    }

    /// Whether what these snapshots lack may just not have arrived yet (see [`Self::part_late`]). For one of them that is
    /// known not to be late the answer is no.
    pub fn may_be_late(&self, snapshots: impl IntoIterator<Item = ObjectName>) -> bool {
        self.delivery() == Delivery::Synced && {
            let (late, lost) = self.part_late(snapshots.into_iter().collect(), |id| *id);
            !late.is_empty() && lost.is_empty()
        }
    }

    /// The error of reading something that this snapshot needs: what looks like damage is [`ReadError::NotArrived`] if
    /// the sync may still bring it. Both are remembered.
    #[must_use]
    pub fn judged(&self, error: ReadError, snapshot: &ObjectName) -> ReadError {
        let is_late = error.is_damage()
            && self.may_be_late([*snapshot])
            && self.state_of_unread(&error, true) == ObjectState::NotArrived;
        self.verdict(error, is_late, [*snapshot])
    }

    /// State of an object that a tree needs and that could not be read because of `error`. `may_be_late`: others have a
    /// part in that tree (see [`Self::part_late`]), so that missing objects may be on their way.
    pub(crate) fn state_of_unread(&self, error: &ReadError, may_be_late: bool) -> ObjectState {
        let object = match error {
            error if error.is_newer() => return ObjectState::Newer,
            error if error.is_late() => return ObjectState::NotArrived,
            _ if !may_be_late => return ObjectState::Damaged,
            ReadError::Lost(_) | ReadError::Pack(PackError::Store(StoreError::Missing { .. })) => {
                return ObjectState::NotArrived;
            }
            error => match error.object() {
                Some(object) => object,
                None => return ObjectState::Damaged,
            },
        };
        // An object whose state cannot be determined may as well be on its way.
        self.state_of(object).unwrap_or(ObjectState::NotArrived)
    }

    /// Packs that only other, active clients claim, with the machine name of one of them: they may have the packs
    /// whole, and are the ones to repair them.
    pub fn packs_of_others(&self) -> HashMap<ObjectName, String> {
        let me = ClientState::load(self.state()).map(|state| state.client);
        let log = self.log();
        let retired = log.chains.retired();
        let mut others: HashMap<ObjectName, String> = HashMap::new();
        let mut free: HashSet<ObjectName> = HashSet::new();
        for link in log.chains.links() {
            let client = link.record.client;
            for pack in &link.record.claims {
                if Some(client) == me || retired.contains(&client) {
                    free.insert(*pack);
                } else if !others.contains_key(pack) {
                    let host = log.chains.join(&client).map_or_else(|| client.to_string(), |join| join.host.clone());
                    others.insert(*pack, host);
                }
            }
        }
        others.retain(|pack, _| !free.contains(pack));
        others
    }

    /// Whether this client put the object, so that it was here whole before any sync saw it.
    pub(crate) fn is_own(&self, key: &ObjectKey, chains: &Chains) -> bool {
        let ObjectKey::Named(kind, name) = key else { return false };
        match kind {
            // These are caches, no matter which client put them.
            Kind::Key | Kind::Index => false,
            // A client's own record is remembered when it is put, so one that has to be read is another's.
            Kind::Log => chains.place_of(name).is_some_and(|(client, _)| self.is_this_client(client)),
            Kind::Pack | Kind::Meta => self.is_claimed_here(name, chains),
        }
    }

    fn is_this_client(&self, client: ClientId) -> bool {
        ClientState::load(self.state()).is_some_and(|state| state.client == client)
    }

    fn is_claimed_here(&self, pack: &ObjectName, chains: &Chains) -> bool {
        let claimed = |state: ClientState| chains.claimed_by(&state.client).contains(pack);
        ClientState::load(self.state()).is_some_and(claimed) || self.noted(None).contains(pack)
    }

    /// Whether an object ends with the hash of all bytes before: then all of it is here as it was put.
    fn is_whole(&self, key: &ObjectKey) -> Result<bool, VaultError> {
        let bytes = match self.store().get(key, LOOKED_AT_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_of_whole() => return Err(error.into()),
            Err(
                StoreError::Missing { .. } | StoreError::Short { .. } | StoreError::Long { .. } | StoreError::Io { .. },
            ) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(split) = bytes.len().checked_sub(TRAILER_LEN) else { return Ok(false) };
        let (head, trailer) = bytes.split_at(split);
        Ok(blake3::hash(head) == *trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_damage_and_loss_are_losses() {
        use ObjectState::{Damaged, Foreign, Missing, Newer, NotArrived, OfAnotherVault, Redundant, Sound};
        for state in [Sound, NotArrived, Newer, OfAnotherVault, Foreign, Redundant] {
            assert!(!state.is_loss(), "{state:?}");
        }
        assert!(Missing.is_loss() && Damaged.is_loss());
        assert!(!NotArrived.told("it is damaged".to_owned()).contains("damage"));
        assert_eq!(Damaged.told("it is damaged".to_owned()), "it is damaged");
        assert!(NotArrived.is_remark() && Newer.is_remark() && !Sound.is_remark() && !Foreign.is_remark());
    }
}
