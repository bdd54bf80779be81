//! Notes about the content of index objects in the store, so that a writer reads each of them only once. The notes are never trusted where
//! it would matter: at worst, an index object is written that existed already.

use std::collections::HashMap;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::catalogue::packs::NewPack;
use crate::catalogue::{Catalogue, CatalogueError};
use crate::id::ObjectName;
use crate::pack::index::{Hint, IndexNote, decode_note, encode_note};
use crate::sync::lock;

/// Name of an index object → see [`encode_note`].
const INDEXES: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("indexes");

/// Maximum number of entries of new packs to keep, 12 bytes each.
const OWN_ENTRIES_MAX: usize = 2 << 20;

/// The entries of packs put since the catalogue was opened, so that their footers need not be read back to describe them.
#[derive(Debug, Default)]
pub(super) struct OwnPacks {
    packs: HashMap<ObjectName, Vec<Hint>>,
    entries: usize,
}

impl Catalogue {
    /// Keeps the entries of packs that this machine has just put, as far as there is room.
    pub(super) fn keep_own_entries(&self, new: &[NewPack]) {
        let mut own = lock(&self.own);
        for pack in new {
            let chunks = || pack.footer.segments.iter().flat_map(|segment| &segment.chunks);
            let count = chunks().count();
            if own.entries + count <= OWN_ENTRIES_MAX {
                own.entries += count;
                own.packs.insert(pack.name, chunks().map(|(id, _)| Hint::new(id, &pack.name)).collect());
            }
        }
    }

    /// Takes the kept entries of packs that this machine has put since it opened the catalogue or last called this.
    pub fn take_own_entries(&self) -> HashMap<ObjectName, Vec<Hint>> {
        std::mem::take(&mut *lock(&self.own)).packs
    }

    /// The notes about index objects.
    ///
    /// # Errors
    /// If the database fails.
    pub fn index_notes(&self) -> Result<Vec<IndexNote>, CatalogueError> {
        let txn = self.db.begin_read()?;
        let table = match txn.open_table(INDEXES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut notes = Vec::new();
        for row in table.iter()? {
            let (name, bytes) = row?;
            // A row that does not decode is damaged: its object is read again.
            notes.extend(decode_note(ObjectName::new(*name.value()), bytes.value()));
        }
        Ok(notes)
    }

    /// Replaces the notes about index objects: keeps those that `is_there` accepts, and adds the new ones.
    ///
    /// # Errors
    /// If the database fails.
    pub fn keep_index_notes<'n>(
        &self,
        new: impl IntoIterator<Item = &'n IndexNote>,
        is_there: impl Fn(&ObjectName) -> bool,
    ) -> Result<(), CatalogueError> {
        let txn = self.write()?;
        {
            let mut table = txn.open_table(INDEXES)?;
            table.retain(|name, _| is_there(&ObjectName::new(*name)))?;
            for note in new {
                table.insert(note.name.as_bytes(), encode_note(note).as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}
