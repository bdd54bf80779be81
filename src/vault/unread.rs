//! Records whose content this machine does not know: as long as there are some, it may not know all snapshots, nor
//! everything that was said of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::id::{ClientId, ObjectName};
use crate::log::record::ObjectRef;
use crate::log::{Finding, Record, RecordBody};
use crate::store::{Delivery, Kind, ObjectKey};
use crate::vault::finding::About;
use crate::vault::{BadObject, ObjectState, Vault, VaultError};

impl Vault {
    /// The numbers of records that this machine or others have seen, and that are neither here nor remembered: for each
    /// client the first ones, if there are many.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn unread_numbers(&self) -> Result<BTreeMap<ClientId, BTreeSet<u64>>, VaultError> {
        let missing: Vec<(ClientId, Vec<u64>)> = self.log().findings.iter().filter_map(Finding::missing).collect();
        if missing.is_empty() {
            return Ok(BTreeMap::new());
        }
        let remembered: HashSet<(ClientId, u64)> = self
            .missing_records()?
            .records
            .iter()
            .filter_map(|found| Record::decode(&found.plain).ok())
            .map(|record| (record.client, record.number))
            .collect();
        let mut unread: BTreeMap<ClientId, BTreeSet<u64>> = BTreeMap::new();
        for (client, numbers) in missing {
            let numbers = numbers.into_iter().filter(|number| !remembered.contains(&(client, *number)));
            unread.entry(client).or_default().extend(numbers);
        }
        unread.retain(|_, numbers| !numbers.is_empty());
        Ok(unread)
    }

    /// The objects of the log that may hold a snapshot and cannot be read here.
    pub fn unread_objects(&self) -> Vec<BadObject> {
        let log = self.log();
        if log.bad.is_empty() {
            return Vec::new();
        }
        let unknown = log.chains.links().filter(|link| match &link.record.body {
            RecordBody::Unknown(what) => !what.may_need(),
            _ => false,
        });
        let harmless: HashSet<ObjectName> = unknown.map(|link| link.name).collect();
        let bad = log.bad.iter().filter(|bad| match &bad.key {
            ObjectKey::Named(Kind::Log, name) => !harmless.contains(name),
            _ => false,
        });
        bad.cloned().collect()
    }

    /// The reasons why there may be snapshots that this machine does not list: records that are not here, even if it
    /// remembers them, and objects that cannot be read. Losses that a person accepted are none, and neither is what a
    /// later version wrote, which is told when the vault is opened.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn unread_records(&self) -> Result<Vec<About>, VaultError> {
        let mut reasons = Vec::new();
        self.record_findings(&mut reasons)?;
        Ok(reasons.into_iter().map(|finding| finding.about).chain(self.unread_objects_not_accepted()).collect())
    }

    /// The reasons why this machine may not know the newest snapshots of a machine of this name, without the records
    /// that it remembers.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn unread_of(&self, host: &str) -> Result<Vec<About>, VaultError> {
        let gaps = self.unread_numbers()?.into_iter().filter(|(client, _)| self.may_write_for(client, host));
        let gaps = gaps.map(|(client, numbers)| About::Records {
            client,
            numbers: numbers.into_iter().collect(),
            snapshots: Vec::new(),
            late: self.may_come(&client),
        });
        Ok(gaps.chain(self.unread_objects_not_accepted()).collect())
    }

    /// Whether a missing record of this client may just not have arrived yet. What this machine has put itself was here.
    pub(super) fn may_come(&self, client: &ClientId) -> bool {
        self.delivery() == Delivery::Synced && self.client() != Some(*client)
    }

    fn unread_objects_not_accepted(&self) -> Vec<About> {
        let objects = self.unread_objects();
        if objects.is_empty() {
            return Vec::new();
        }
        let accepted = self.accepted_objects();
        let is_accepted = |key: &ObjectKey| ObjectRef::of(key).is_some_and(|object| accepted.contains(&object));
        let counts = |bad: &BadObject| match bad.state {
            ObjectState::Missing | ObjectState::Damaged => !is_accepted(&bad.key),
            ObjectState::NotArrived => true,
            _ => false,
        };
        let counting = objects.into_iter().filter(counts);
        counting.map(|BadObject { key, state, what }| About::Object { key, state, what }).collect()
    }

    /// Whether a client may have taken snapshots of a machine of this name.
    fn may_write_for(&self, client: &ClientId, host: &str) -> bool {
        let joined = self.log().chains.join(client).map(|join| join.host.clone());
        joined.is_none_or(|joined| joined == host)
            || self.snapshots().iter().any(|info| info.client == *client && info.body.host == host)
    }
}
