//! What the index objects of the store describe, so that each of them is read once by whoever writes. Nothing of it is ever
//! believed where it would matter: at worst an object is written that was there already.

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::catalogue::{Catalogue, CatalogueError};
use crate::id::ObjectName;
use crate::pack::index::{IndexNote, decode_note, encode_note};

/// Name of an index object → see [`encode_note`].
const INDEXES: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("indexes");

impl Catalogue {
    /// What is known of index objects.
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
            // A row that does not decode was damaged here: its object is read again.
            notes.extend(decode_note(ObjectName::new(*name.value()), bytes.value()));
        }
        Ok(notes)
    }

    /// Keeps exactly this about index objects.
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
