//! The first steps of a look at the store: this machine's knowledge before it, and a listing of what is there.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::catalogue::Reader;
use crate::id::{ClientId, ObjectName};
use crate::seal::ObjectKind;
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError};

/// This machine's knowledge before a look at the store. Other processes use the same state folder: objects that they
/// put and entered since the look began exist, although the look does not show them.
pub(super) struct Known {
    pub(super) catalogue: Reader,
    /// The highest number of each client that was ever seen.
    pub(super) seen: BTreeMap<ClientId, u64>,
}

/// Raises each client's number to the given one.
pub(super) fn raise(seen: &mut BTreeMap<ClientId, u64>, numbers: impl Iterator<Item = (ClientId, u64)>) {
    for (client, number) in numbers {
        let highest = seen.entry(client).or_default();
        *highest = number.max(*highest);
    }
}

/// A listing of the store.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) packs: HashMap<ObjectName, (ObjectKind, u64)>,
    /// Records, with the lengths of their objects.
    pub(super) records: HashMap<ObjectName, u64>,
    /// Index objects, with their lengths.
    pub(super) indexes: HashMap<ObjectName, u64>,
    pub(super) foreign: Vec<String>,
}

impl Listing {
    /// Lists the store.
    pub(super) fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let mut listing = Self::default();
        // Records first: packs that a listed record mentions were put before it, so they are listed too.
        store.list_all(
            &[Kind::Log, Kind::Meta, Kind::Pack, Kind::Index],
            &mut |kind, listed| match (kind, listed) {
                (_, Listed::Foreign(path)) => listing.foreign.push(path),
                (Kind::Log, Listed::Object { name, len }) => drop(listing.records.insert(name, len)),
                (Kind::Pack, Listed::Object { name, len }) => drop(listing.packs.insert(name, (ObjectKind::Pack, len))),
                (Kind::Meta, Listed::Object { name, len }) => drop(listing.packs.insert(name, (ObjectKind::Meta, len))),
                (Kind::Index, Listed::Object { name, len }) => drop(listing.indexes.insert(name, len)),
                (Kind::Key, Listed::Object { .. }) => {}
            },
        )?;
        Ok(listing)
    }

    /// Removes objects of another vault.
    pub(super) fn take_out(&mut self, elsewhere: &HashSet<ObjectKey>) {
        for key in elsewhere {
            match key {
                ObjectKey::Named(Kind::Log, name) => drop(self.records.remove(name)),
                ObjectKey::Named(Kind::Index, name) => drop(self.indexes.remove(name)),
                ObjectKey::Named(_, name) => drop(self.packs.remove(name)),
                ObjectKey::Vault => {}
            }
        }
    }
}
