//! What the upkeep of the vault remembers: when each pack was read and verified last, what the last collection left, and since
//! when packs lie there that no record claims.

use std::collections::{HashMap, HashSet};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::catalogue::{Catalogue, CatalogueError, NUMBERS, Reader};
use crate::id::ObjectName;

/// Name of a pack → when every byte of it was last read and found right, in seconds since 1970.
const VERIFIED: TableDefinition<&[u8; 16], i64> = TableDefinition::new("verified");

/// Name of a pack that no record claims → the number of this client's last record when that was first seen.
const UNCLAIMED: TableDefinition<&[u8; 16], u64> = TableDefinition::new("unclaimed");

/// The number under which a fingerprint of what the last collection left is kept.
const COLLECTED: &str = "collected";

/// Creates the tables.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    txn.open_table(VERIFIED)?;
    Ok(())
}

/// The tables of a reader.
pub(super) struct Tables {
    verified: ReadOnlyTable<&'static [u8; 16], i64>,
}

impl Tables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, CatalogueError> {
        Ok(Self { verified: txn.open_table(VERIFIED)? })
    }
}

impl Catalogue {
    /// Notes that every byte of these packs was right at this time (seconds since 1970), and forgets those that are not in
    /// `there` any more.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_verified(
        &self,
        packs: &[ObjectName],
        time: i64,
        there: impl Fn(&ObjectName) -> bool,
    ) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        {
            let mut table = txn.open_table(VERIFIED)?;
            table.retain(|name, _| there(&ObjectName::new(*name)))?;
            for name in packs {
                table.insert(name.as_bytes(), time)?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Notes which packs no record claims, this client's last record being number `last`. Returns for each the number that was
    /// the last one when it was first noted.
    ///
    /// # Errors
    /// If the database fails.
    pub fn note_unclaimed(
        &self,
        packs: &HashSet<ObjectName>,
        last: u64,
    ) -> Result<HashMap<ObjectName, u64>, CatalogueError> {
        let txn = self.write()?;
        let mut noted = HashMap::new();
        let changed = {
            let mut table = txn.open_table(UNCLAIMED)?;
            for row in table.iter()? {
                let (name, number) = row?;
                noted.insert(ObjectName::new(*name.value()), number.value());
            }
            let before = noted.len();
            noted.retain(|name, _| packs.contains(name));
            let changed = noted.len() < before.max(packs.len());
            if changed {
                table.retain(|name, _| packs.contains(&ObjectName::new(*name)))?;
                for name in packs {
                    if let std::collections::hash_map::Entry::Vacant(new) = noted.entry(*name) {
                        table.insert(name.as_bytes(), *new.insert(last))?;
                    }
                }
            }
            changed
        };
        if changed {
            txn.commit()?;
        } else {
            txn.abort()?;
        }
        Ok(noted)
    }

    /// Notes a fingerprint of what a collection left: as long as it fits, there is nothing to collect.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_collected(&self, fingerprint: u64) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        txn.open_table(NUMBERS)?.insert(COLLECTED, fingerprint)?;
        txn.commit()?;
        Ok(())
    }

    /// The fingerprint of what the last collection left.
    ///
    /// # Errors
    /// If the database fails.
    pub fn collected(&self) -> Result<Option<u64>, CatalogueError> {
        self.number(COLLECTED)
    }
}

impl Reader {
    /// When each pack was last verified, in seconds since 1970; packs that never were are not in it.
    ///
    /// # Errors
    /// If the database fails.
    pub fn verified(&self) -> Result<HashMap<ObjectName, i64>, CatalogueError> {
        let mut times = HashMap::new();
        for row in self.upkeep.verified.iter()? {
            let (name, time) = row?;
            times.insert(ObjectName::new(*name.value()), time.value());
        }
        Ok(times)
    }
}
