//! The catalogue: what lies where in the store, and what the source files looked like last time. One redb file on this
//! machine; a cache that can be deleted at any time.
//!
//! It is never believed against the store: a vault compares it with the store's list of objects when it is opened. redb
//! does not verify pages on ordinary reads, so whatever would do harm if a bit of it flipped (records, and the rows of the
//! stat cache, which flow into new trees) carries a keyed checksum of its own.
//!
//! [`packs`] packs · [`records`] records · [`chunks`] where each chunk lies · [`filter`] what is certainly not stored ·
//! [`stat`] the stat cache · [`upkeep`] what was verified and collected when, and how well packs are known ·
//! [`indexes`] what index objects describe ·
//! [`names`] what lies in which folder, for searching.

pub mod chunks;
pub mod filter;
pub mod packs;
pub mod records;
pub mod stat;
pub mod upkeep;
pub mod indexes;
pub mod names;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use redb::{
    ConcurrencyMode, Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

pub use chunks::{ChunkPlace, Part};
pub use filter::Filter;
pub use packs::PackInfo;
pub use stat::{StatEntry, StatRow};
pub use upkeep::Look;

/// The layout of the tables; a catalogue of another version is built anew.
const VERSION: u64 = 10;

/// The number that tells that the catalogue was made anew because another was doubted, and that no session ended since.
const DOUBTED: &str = "doubted";

/// Memory for redb's pages, in bytes.
const CACHE_LEN: usize = 12 << 20;

/// Single numbers: `version`, `epoch`, `next_pack`, `next_session`.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

/// The catalogue could not be used. It can always be built anew, so this never means that data is lost.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file or its folder cannot be written or read.
    #[error("the catalogue {path} cannot be used: {what}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The file is not what a catalogue was left as.
    #[error("the catalogue {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The database failed in the middle of work.
    #[error(
        "the catalogue failed: {0} (it is only a cache, which the next command builds anew from the store: try again)"
    )]
    Database(String),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for CatalogueError {
            fn from(error: $error) -> Self {
                Self::Database(error.to_string())
            }
        })*
    };
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::CursorError
);

/// An opened catalogue. Several processes may have it open at once; one writes at a time, and only for moments.
#[derive(Debug)]
pub struct Catalogue {
    db: Database,
    path: PathBuf,
    key: [u8; 32],
    mark: Mark,
    own: Mutex<indexes::OwnPacks>,
}

/// What the processes that had the catalogue open before left to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// They closed it.
    Nothing,
    /// One ended without closing it.
    Open,
    /// One found that something in it does not fit the store.
    Doubt,
}

/// Why a catalogue is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// To be used.
    Use,
    /// It is made anew, as the one before was damaged or doubted.
    Doubt,
}

/// A locked file beside the catalogue for as long as a process has it open. One that is there and not locked tells that a
/// process ended without closing the catalogue; one that holds something, that the process found what cannot be.
#[derive(Debug)]
struct Mark {
    path: PathBuf,
    file: File,
    doubt: Arc<AtomicBool>,
}

impl Mark {
    /// Makes the mark of this process. Returns also what others left behind.
    fn new(catalogue: &Path) -> std::io::Result<(Self, Left)> {
        let folder = catalogue.with_extension("open");
        std::fs::create_dir_all(&folder)?;
        let mut left = Left::Nothing;
        for entry in crate::folder::entries(&folder)? {
            let path = entry?.path();
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() {
                let doubted = file.metadata().is_ok_and(|meta| meta.len() > 0);
                left = left.max(if doubted { Left::Doubt } else { Left::Open });
                let _ = std::fs::remove_file(&path);
            }
        }
        let mut name = [0; 16];
        crate::seal::random(&mut name).map_err(std::io::Error::other)?;
        let path = folder.join(crate::id::ObjectName::new(name).to_string());
        let file = File::options().create_new(true).write(true).open(&path)?;
        file.lock()?;
        Ok((Self { path, file, doubt: Arc::default() }, left))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if std::thread::panicking() || self.doubt.load(Relaxed) {
            let _ = self.file.write_all(b"?");
        } else {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Catalogue {
    /// Opens the catalogue in this file, or makes a new one if it is missing or useless. `key` authenticates what is read
    /// back. Returns also whether it is new.
    ///
    /// # Errors
    /// If the file can neither be opened nor replaced.
    pub fn open(path: &Path, key: [u8; 32]) -> Result<(Self, bool), CatalogueError> {
        match Self::try_open(path, key, Reason::Use) {
            // No space, no permission: a new one would fare no better.
            Err(error @ CatalogueError::Unusable { .. }) => Err(error),
            Err(_) => Ok((Self::anew(path, key)?, true)),
            Ok(opened) => Ok(opened),
        }
    }

    /// A new catalogue in place of one that is damaged or doubted. It takes over the records that were remembered, since the
    /// store may have lost them.
    ///
    /// # Errors
    /// If the file cannot be replaced.
    pub fn anew(path: &Path, key: [u8; 32]) -> Result<Self, CatalogueError> {
        let remembered = records::Remembered::salvage(path, &key);
        Self::discard(path)?;
        let (catalogue, _) = Self::try_open(path, key, Reason::Doubt)?;
        catalogue.take_over(&remembered)?;
        Ok(catalogue)
    }

    /// Moves a useless catalogue away, so that a process that still has it open is not disturbed.
    fn discard(path: &Path) -> Result<(), CatalogueError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CatalogueError::Unusable { path: path.display().to_string(), what: error.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Whether damage inside redb's own pages makes it panic is up to redb, so a panic counts as damage.
    /// A catalogue that was doubted is not taken, unless it was made anew out of doubt and nothing was entered
    /// since: then it is the store that is damaged.
    fn try_open(path: &Path, key: [u8; 32], reason: Reason) -> Result<(Self, bool), CatalogueError> {
        let unusable = |what: String| CatalogueError::Unusable { path: path.display().to_string(), what };
        let damaged = |what: String| CatalogueError::Damaged { path: path.display().to_string(), what };
        let open = || -> Result<(Self, bool), CatalogueError> {
            let (mark, left) = Mark::new(path).map_err(|error| unusable(error.to_string()))?;
            // The hook of a panic belongs to the program; here it is enough that the panic is caught.
            let db = Database::builder()
                .set_cache_size(CACHE_LEN)
                .set_concurrency_mode(ConcurrencyMode::MultiWriter)
                .set_check_integrity_on_open(left > Left::Nothing)
                .create(path)
                .map_err(|error| match error {
                    redb::DatabaseError::Storage(redb::StorageError::Io(error))
                        if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
                    {
                        unusable(error.to_string())
                    }
                    error => damaged(error.to_string()),
                })?;
            private(path).map_err(|error| unusable(error.to_string()))?;
            let catalogue = Self { db, path: path.to_owned(), key, mark, own: Mutex::default() };
            let version = catalogue.number("version")?;
            if version.is_some_and(|version| version != VERSION) {
                return Err(damaged("it has another version".to_owned()));
            }
            if left == Left::Doubt && catalogue.number(DOUBTED)?.is_none() {
                return Err(damaged("it does not fit the store".to_owned()));
            }
            if version.is_none() {
                let txn = catalogue.write()?;
                txn.open_table(NUMBERS)?.insert("version", VERSION)?;
                if reason == Reason::Doubt {
                    txn.open_table(NUMBERS)?.insert(DOUBTED, 1)?;
                }
                packs::create_tables(&txn)?;
                records::create_tables(&txn)?;
                chunks::create_tables(&txn)?;
                stat::create_tables(&txn)?;
                upkeep::create_tables(&txn)?;
                txn.commit()?;
            }
            catalogue.probe()?;
            Ok((catalogue, version.is_none()))
        };
        crate::sync::catch(open).unwrap_or_else(|| Err(damaged("redb cannot read it".to_owned())))
    }

    /// Touches every table, so that one that is not there is noticed at once.
    fn probe(&self) -> Result<(), CatalogueError> {
        let reader = self.reader()?;
        reader.packs()?;
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A write transaction. Waits while another process has one, which takes moments.
    pub(crate) fn write(&self) -> Result<WriteTransaction, CatalogueError> {
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(true);
        Ok(txn)
    }

    /// A view of the state at this moment.
    ///
    /// # Errors
    /// If the database fails.
    pub fn reader(&self) -> Result<Reader, CatalogueError> {
        Reader::new(self.db.begin_read()?, self.key, self.mark.doubt.clone())
    }

    /// One of the single numbers.
    fn number(&self, name: &str) -> Result<Option<u64>, CatalogueError> {
        let txn = self.db.begin_read()?;
        match txn.open_table(NUMBERS) {
            Ok(table) => Ok(table.get(name)?.map(|value| value.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes a number and leaves the next one.
fn next_number(txn: &WriteTransaction, name: &str) -> Result<u64, CatalogueError> {
    let mut table = txn.open_table(NUMBERS)?;
    let value = table.get(name)?.map_or(1, |value| value.value());
    table.insert(name, value + 1)?;
    Ok(value)
}

/// The catalogue holds names of files in clear: nobody else may read it.
fn private(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    }
    let _ = path;
    Ok(())
}

/// A view of the catalogue at one moment; may be used from many threads.
pub struct Reader {
    key: [u8; 32],
    epoch: u64,
    packs: packs::Tables,
    records: records::Tables,
    chunks: chunks::Tables,
    stat: stat::Tables,
    upkeep: upkeep::Tables,
    names: names::Tables,
    doubt: Arc<AtomicBool>,
}

impl Reader {
    fn new(txn: ReadTransaction, key: [u8; 32], doubt: Arc<AtomicBool>) -> Result<Self, CatalogueError> {
        let epoch = txn.open_table(NUMBERS)?.get("epoch")?.map_or(0, |value| value.value());
        let (packs, records) = (packs::Tables::open(&txn)?, records::Tables::open(&txn)?);
        let chunks = chunks::Tables::open(&txn, &key)?;
        let (stat, upkeep, names) =
            (stat::Tables::open(&txn)?, upkeep::Tables::open(&txn)?, names::Tables::open(&txn)?);
        Ok(Self { key, epoch, packs, records, chunks, stat, upkeep, names, doubt })
    }

    /// Something that the catalogue says does not fit the store, such as a chunk that is not where it should be. That may be
    /// damage in the store, or in the catalogue: whoever opens it next builds it anew. (A damaged page that a later
    /// transaction has written again has the right checksum, so to verify it would not do.)
    pub fn distrust(&self) {
        self.doubt.store(true, Relaxed);
    }

    /// How often packs have been lost or condemned. What was known to be stored in an earlier epoch is looked up again.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubted_catalogue_is_built_anew_once_until_something_is_entered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalogue.redb");
        let doubt = || {
            let (catalogue, is_new) = Catalogue::open(&path, [0; 32]).unwrap();
            catalogue.reader().unwrap().distrust();
            is_new
        };
        assert!(doubt(), "there was none");
        assert!(doubt(), "what was doubted is not taken");
        assert!(!doubt(), "doubt in one that was made out of doubt is doubt in the store");
        let (catalogue, is_new) = Catalogue::open(&path, [0; 32]).unwrap();
        assert!(!is_new);
        let txn = catalogue.write().unwrap();
        Catalogue::end_session(&txn, 1, 0).unwrap();
        txn.commit().unwrap();
        drop(catalogue);
        assert!(!doubt(), "it was closed without doubt");
        assert!(doubt(), "it may have gone bad since it was made");
    }
}
