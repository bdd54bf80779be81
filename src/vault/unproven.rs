//! Unproven records: they were put, but no later look has shown that the store has kept them (SPEC §8.5). If the
//! store still lacks a record after another try, it counts as never put: this client goes back to its memory from
//! before it.

use std::collections::{HashMap, HashSet};

use crate::catalogue::{Catalogue, CatalogueError};
use crate::id::{Digest, ObjectName};
use crate::progress::Silent;
use crate::store::proof::{Given, prove};
use crate::store::{Delivery, StoreError};
use crate::sync::lock;
use crate::vault::identity::ClientState;
use crate::vault::{Vault, VaultError};

/// Above this number of records, one list is cheaper than looking for each.
const ONE_BY_ONE: usize = 2;

/// A record that the store reported as written.
#[derive(Debug, Clone)]
pub(super) struct Unproven {
    pub(super) name: ObjectName,
    pub(super) digest: Digest,
    pub(super) given: Given,
    /// The client's state before the record.
    pub(super) before: ClientState,
}

impl Vault {
    /// Makes sure that the store has the records put since the last look. `listed` is a list of the log taken after
    /// them.
    ///
    /// # Errors
    /// If the store has not kept a record, or fails. After a failure, the next look checks the records again.
    pub(super) fn prove_records(&self, listed: Option<&HashMap<ObjectName, u64>>) -> Result<(), VaultError> {
        let unproven = std::mem::take(&mut *lock(&self.unproven));
        if unproven.is_empty() {
            return Ok(());
        }
        let own_list = match listed {
            None if unproven.len() > ONE_BY_ONE && self.delivery() == Delivery::Direct => self.list_records().map(Some),
            _ => Ok(None),
        };
        let own_list = match own_list {
            Ok(list) => list,
            Err(error) => return self.keep_unproven(unproven, error),
        };
        let listed = listed.or(own_list.as_ref());
        for (number, record) in unproven.iter().enumerate() {
            let len = listed.and_then(|listed| listed.get(&record.name)).copied();
            match prove(self.store(), &record.given, len) {
                Ok(()) => {}
                Err(error @ StoreError::NotKept { .. }) => {
                    self.unput(&unproven[number..]);
                    return Err(error.into());
                }
                Err(error) => return self.keep_unproven(unproven[number..].to_vec(), error),
            }
        }
        Ok(())
    }

    fn keep_unproven(&self, unproven: Vec<Unproven>, error: StoreError) -> Result<(), VaultError> {
        let mut list = lock(&self.unproven);
        let since = std::mem::replace(&mut *list, unproven);
        list.extend(since);
        Err(error.into())
    }

    /// Forgets lost records, of which the first is not in the store, unless a later record is there. If a forgotten
    /// record turns up, this client recognizes it as its own.
    fn unput(&self, lost: &[Unproven]) {
        let (Some(first), Some(last)) = (lost.first(), lost.last()) else { return };
        let is_there = |record: &Unproven| self.store().len(&record.given.key).is_ok();
        let is_last = |state: &ClientState| state.client == first.before.client && state.digest == last.digest;
        if lost[1..].iter().any(is_there) || !ClientState::load(self.state()).is_some_and(|state| is_last(&state)) {
            return;
        }
        let names: Vec<ObjectName> = lost.iter().map(|record| record.name).collect();
        let forget = || -> Result<(), VaultError> {
            let before = ClientState { pending: Some(first.digest), ..first.before.clone() };
            before.save(self.state(), true)?;
            let txn = self.catalogue().write()?;
            Catalogue::drop_records(&txn, &names)?;
            txn.commit().map_err(CatalogueError::from)?;
            Ok(())
        };
        // If this fails, this machine remembers a record that the store has lost, as it would without this step.
        if forget().is_ok() {
            let gone: HashSet<&ObjectName> = names.iter().collect();
            let mut log = self.log();
            log.read.clear();
            log.records.retain(|name, _| !gone.contains(name));
            drop(log);
            // Read everything again. If the store cannot be listed, this vault goes on with its earlier knowledge.
            let _ = self.refresh(&Silent::default());
        }
    }

    /// Notes a record that the store reported as written.
    pub(super) fn note_unproven(&self, record: Unproven) {
        lock(&self.unproven).push(record);
    }
}
