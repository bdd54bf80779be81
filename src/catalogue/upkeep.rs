//! Data for maintaining the vault: when each pack was last read and verified, how well this machine knows each pack, what the last prune
//! left, and since when there have been packs that no record claims.

use std::collections::{HashMap, HashSet};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::catalogue::{Catalogue, CatalogueError, NUMBERS, Reader};
use crate::id::ObjectName;

/// Name of a pack → when every byte of it was last read and found right, in seconds since 1970.
const VERIFIED: TableDefinition<&[u8; 16], i64> = TableDefinition::new("verified");

/// Name of a pack → the number of its [`Look`].
const LOOKED: TableDefinition<&[u8; 16], u8> = TableDefinition::new("looked");

/// Name of a pack that no record claims → the number of this client's last record when that was first seen.
const UNCLAIMED: TableDefinition<&[u8; 16], u64> = TableDefinition::new("unclaimed");

/// How well this machine knows that a pack contains what its footer says. If a pack has no entry, nothing on this machine relies on it
/// and nothing of it was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Look {
    /// Something that this machine stored relies on it, and nothing of it has been opened here yet.
    Owed = 0,
    /// Its footer and one of its segments were opened.
    Sampled = 1,
    /// All of its segments were opened, or this machine put it.
    Whole = 2,
}

impl Look {
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Owed,
            1 => Self::Sampled,
            _ => Self::Whole,
        }
    }
}

/// Name of the number that is a fingerprint of the state after the last prune.
const COLLECTED: &str = "collected";

/// Creates the tables.
pub(super) fn create_tables(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    txn.open_table(VERIFIED)?;
    txn.open_table(LOOKED)?;
    Ok(())
}

/// Removes the entries of packs that no longer exist.
pub(super) fn forget_looks(txn: &WriteTransaction, gone: &[ObjectName]) -> Result<(), CatalogueError> {
    let mut table = txn.open_table(LOOKED)?;
    for name in gone {
        table.remove(name.as_bytes())?;
    }
    Ok(())
}

/// Removes the entries of all packs.
pub(super) fn forget_all_looks(txn: &WriteTransaction) -> Result<(), CatalogueError> {
    txn.open_table(LOOKED)?.retain(|_, _| false)?;
    Ok(())
}

/// The tables of a reader.
pub(super) struct Tables {
    verified: ReadOnlyTable<&'static [u8; 16], i64>,
    looked: ReadOnlyTable<&'static [u8; 16], u8>,
}

impl Tables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, CatalogueError> {
        Ok(Self { verified: txn.open_table(VERIFIED)?, looked: txn.open_table(LOOKED)? })
    }
}

impl Catalogue {
    /// Records that every byte of these packs was right at this time (seconds since 1970), so that they are known completely, and removes
    /// the entries of packs not in `there`.
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
        Self::insert_looks(&txn, packs.iter().map(|name| (*name, Look::Whole)))?;
        txn.commit()?;
        Ok(())
    }

    /// Records how well packs are known, within a transaction. Never lowers an entry.
    pub(crate) fn insert_looks(
        txn: &WriteTransaction,
        looks: impl IntoIterator<Item = (ObjectName, Look)>,
    ) -> Result<(), CatalogueError> {
        let mut table = txn.open_table(LOOKED)?;
        for (name, look) in looks {
            let before = table.get(name.as_bytes())?.map(|number| number.value());
            if before.is_none_or(|before| before < look as u8) {
                table.insert(name.as_bytes(), look as u8)?;
            }
        }
        Ok(())
    }

    /// Records how well packs are known. Never lowers an entry.
    ///
    /// # Errors
    /// If the database fails.
    pub fn note_looks(&self, looks: &[(ObjectName, Look)]) -> Result<(), CatalogueError> {
        if looks.is_empty() {
            return Ok(());
        }
        let txn = self.write()?;
        Self::insert_looks(&txn, looks.iter().copied())?;
        txn.commit()?;
        Ok(())
    }

    /// Records which packs no record claims, at a time when this client's last record has number `last`. Returns for each the number at
    /// the time when it was first recorded.
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

    /// Records a fingerprint of the state after a prune: while it matches, there is nothing to prune.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set_collected(&self, fingerprint: u64) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        txn.open_table(NUMBERS)?.insert(COLLECTED, fingerprint)?;
        txn.commit()?;
        Ok(())
    }

    /// The fingerprint of the state after the last prune.
    ///
    /// # Errors
    /// If the database fails.
    pub fn collected(&self) -> Result<Option<u64>, CatalogueError> {
        self.number(COLLECTED)
    }
}

impl Reader {
    /// How well a pack is known on this machine; `None` if nothing relies on it and it was never opened.
    ///
    /// # Errors
    /// If the database fails.
    pub fn look(&self, pack: &ObjectName) -> Result<Option<Look>, CatalogueError> {
        Ok(self.upkeep.looked.get(pack.as_bytes())?.map(|number| Look::from_number(number.value())))
    }

    /// Packs that something relies on and that are known less well than this.
    ///
    /// # Errors
    /// If the database fails.
    pub fn known_less(&self, wanted: Look) -> Result<HashSet<ObjectName>, CatalogueError> {
        let mut packs = HashSet::new();
        for row in self.upkeep.looked.iter()? {
            let (name, number) = row?;
            if number.value() < wanted as u8 {
                packs.insert(ObjectName::new(*name.value()));
            }
        }
        Ok(packs)
    }

    /// How well each pack is known on this machine.
    ///
    /// # Errors
    /// If the database fails.
    pub fn looks(&self) -> Result<HashMap<ObjectName, Look>, CatalogueError> {
        let mut looks = HashMap::new();
        for row in self.upkeep.looked.iter()? {
            let (name, number) = row?;
            looks.insert(ObjectName::new(*name.value()), Look::from_number(number.value()));
        }
        Ok(looks)
    }

    /// When each pack was last verified, in seconds since 1970; packs that never were are not included.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_never_known_less_than_before() {
        let folder = tempfile::tempdir().unwrap();
        let (catalogue, _) = Catalogue::open(&folder.path().join("catalogue.redb"), [0; 32]).unwrap();
        let names = [1, 2, 3].map(|byte| ObjectName::new([byte; 16]));
        catalogue.note_looks(&[(names[0], Look::Owed), (names[1], Look::Sampled)]).unwrap();
        catalogue.note_looks(&[(names[0], Look::Sampled), (names[1], Look::Owed)]).unwrap();
        catalogue.set_verified(&[names[2]], 5, |_| true).unwrap();
        let reader = catalogue.reader().unwrap();
        let looks = names.map(|name| reader.look(&name).unwrap());
        assert_eq!(looks, [Some(Look::Sampled), Some(Look::Sampled), Some(Look::Whole)]);
        assert_eq!(reader.known_less(Look::Whole).unwrap(), HashSet::from([names[0], names[1]]));
        assert_eq!(reader.look(&ObjectName::new([9; 16])).unwrap(), None);
    }
}
