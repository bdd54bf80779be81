//! The catalogue: the places of objects in the store, and the state of the source files at the last snapshot. One redb file on this
//! machine; a cache that can be deleted at any time.
//!
//! If catalogue and store disagree, the store wins: a vault compares the catalogue with the store's list of objects when it is opened.
//! redb does not verify pages on ordinary reads, so all data in which a flipped bit would do harm (records, and the rows of the stat
//! cache, which become parts of new trees) has its own keyed checksum.
//!
//! [`packs`] packs · [`records`] records · [`chunks`] the places of chunks · [`filter`] chunks that are certainly not stored · [`stat`]
//! the stat cache · [`upkeep`] when packs were verified and pruned, and how well they are known · [`indexes`] the content of index
//! objects · [`names`] names in folders, for searching · `file` the file itself, and what is done if it cannot grow.

mod file;
pub mod chunks;
pub mod filter;
pub mod packs;
pub mod records;
pub mod stat;
pub mod upkeep;
pub mod indexes;
pub mod names;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use redb::{
    ConcurrencyMode, Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

pub use chunks::{ChunkPlace, Part, SegmentRef};
pub use file::Spare;
pub use filter::Filter;
pub use packs::PackInfo;
pub use stat::{StatEntry, StatRow};
pub use upkeep::Look;

use crate::progress::plain;
use file::{CatalogueFile, Fate, FileFault};

/// Version of the table layout; a catalogue of another version is rebuilt.
const VERSION: u64 = 10;

/// Name of the number that is set if this catalogue replaced a distrusted one and no session has ended since.
const DOUBTED: &str = "doubted";

/// Memory for redb's pages, in bytes.
const CACHE_LEN: usize = 12 << 20;

/// Table of single numbers: `version`, `epoch`, `next_pack`, `next_session`.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

/// The catalogue could not be used. It can always be rebuilt, so this never means that data is lost.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file or its folder cannot be written or read.
    #[error("the catalogue {path} cannot be used: {what}")]
    Unusable {
        /// The file.
        path: String,
        /// The fault.
        what: String,
    },
    /// The file is not as the catalogue was left.
    #[error("the catalogue {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// The fault.
        what: String,
    },
    /// The database failed during an operation.
    #[error(
        "the catalogue failed: {0} (it is only a cache, which the next command builds anew from the store: try again)"
    )]
    Database(String),
}

impl CatalogueError {
    /// An error of redb: if the system refused something, it is no damage.
    fn of_redb(error: &redb::Error) -> Self {
        let refused = match error {
            redb::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<FileFault>()),
            _ => None,
        };
        match refused {
            Some(FileFault { path, what }) => Self::Unusable { path: path.clone(), what: what.clone() },
            None => Self::Database(error.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for CatalogueError {
            fn from(error: $error) -> Self {
                Self::of_redb(&error.into())
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

/// An open catalogue. Several processes may have it open at the same time; one writes at a time, and only briefly.
#[derive(Debug)]
pub struct Catalogue {
    db: Database,
    path: PathBuf,
    key: [u8; 32],
    mark: Mark,
    own: Mutex<indexes::OwnPacks>,
    fate: Fate,
}

/// The state in which earlier processes left the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// They closed it.
    Nothing,
    /// One ended without closing it.
    Open,
    /// One found that it does not agree with the store.
    Doubt,
}

/// Why a catalogue is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// To use it.
    Use,
    /// To replace one that was damaged or distrusted.
    Doubt,
}

/// A locked file beside the catalogue while a process has it open. If the file exists and is not locked, a process ended without closing
/// the catalogue; if it is also not empty, that process found an inconsistency.
#[derive(Debug)]
struct Mark {
    path: PathBuf,
    file: File,
    doubt: Arc<AtomicBool>,
    fate: Fate,
}

impl Mark {
    /// Creates the mark of this process. Returns also the state left by others.
    fn new(catalogue: &Path) -> std::io::Result<(Self, Left)> {
        let folder = catalogue.with_extension("open");
        std::fs::create_dir_all(&folder)?;
        let mut left = Left::Nothing;
        for entry in crate::folder::entries(&folder)? {
            let path = entry?.path();
            let Ok(file) = crate::ownfile::open(&path) else { continue };
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
        Ok((Self { path, file, doubt: Arc::default(), fate: Fate::default() }, left))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if std::thread::panicking() || self.doubt.load(Relaxed) {
            let _ = self.file.write_all(b"?");
        } else if !self.fate.is_left() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Catalogue {
    /// Opens the catalogue in this file, or makes a new one if it is missing or unusable. `key` authenticates data that is read back.
    /// Returns also whether it is new.
    ///
    /// # Errors
    /// If the file can neither be opened nor replaced.
    pub fn open(path: &Path, key: [u8; 32]) -> Result<(Self, bool), CatalogueError> {
        Self::open_with(path, key, None)
    }

    /// As [`Self::open`], for work that need not remember anything: if the file cannot grow, the catalogue goes on in the
    /// spare place.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: &Path, key: [u8; 32], spare: Option<&Spare>) -> Result<(Self, bool), CatalogueError> {
        match Self::try_open(path, key, Reason::Use, spare) {
            // No space or no permission: a new catalogue would fail in the same way.
            Err(error @ CatalogueError::Unusable { .. }) => Err(error),
            Err(_) => Ok((Self::anew(path, key, spare)?, true)),
            Ok(opened) => Ok(opened),
        }
    }

    /// Makes a new catalogue in place of a damaged or distrusted one. It takes over the records in the old one, since the store may have
    /// lost them.
    ///
    /// # Errors
    /// If the file cannot be replaced.
    pub fn anew(path: &Path, key: [u8; 32], spare: Option<&Spare>) -> Result<Self, CatalogueError> {
        let remembered = records::Remembered::salvage(path, &key);
        Self::discard(path)?;
        let (catalogue, _) = Self::try_open(path, key, Reason::Doubt, spare)?;
        catalogue.take_over(&remembered)?;
        Ok(catalogue)
    }

    /// Deletes an unusable catalogue. A process that still has it open is not disturbed.
    fn discard(path: &Path) -> Result<(), CatalogueError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CatalogueError::Unusable { path: path.display().to_string(), what: plain(&error) })
            }
            _ => Ok(()),
        }
    }

    /// Opens the catalogue. redb may panic because of damage inside its own pages, so a panic counts as damage. A distrusted catalogue is
    /// rebuilt, unless it was just rebuilt for that reason: then the store is at fault.
    fn try_open(
        path: &Path,
        key: [u8; 32],
        reason: Reason,
        spare: Option<&Spare>,
    ) -> Result<(Self, bool), CatalogueError> {
        let unusable = |what: String| CatalogueError::Unusable { path: path.display().to_string(), what };
        let damaged = |what: String| CatalogueError::Damaged { path: path.display().to_string(), what };
        let open = || -> Result<(Self, bool), CatalogueError> {
            let (mut mark, left) = Mark::new(path).map_err(|error| unusable(plain(&error)))?;
            let of_file = |error: redb::DatabaseError| match CatalogueError::of_redb(&error.into()) {
                CatalogueError::Database(what) => damaged(what),
                refused => refused,
            };
            let file = CatalogueFile::open(path, spare.cloned()).map_err(|error| unusable(plain(&error)))?;
            let fate = file.fate();
            mark.fate = fate.clone();
            // The panic hook belongs to the program; here it is enough to catch the panic.
            let db = Database::builder()
                .set_cache_size(CACHE_LEN)
                .set_concurrency_mode(ConcurrencyMode::MultiWriter)
                .set_check_integrity_on_open(left > Left::Nothing)
                .create_with_backend(file)
                .map_err(of_file)?;
            private(path).map_err(|error| unusable(plain(&error)))?;
            let catalogue = Self { db, path: path.to_owned(), key, mark, own: Mutex::default(), fate };
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

    /// Opens every table, so that a missing one is noticed at once.
    fn probe(&self) -> Result<(), CatalogueError> {
        let reader = self.reader()?;
        reader.packs()?;
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A write transaction. Waits while another process has one, which is brief.
    pub(crate) fn write(&self) -> Result<WriteTransaction, CatalogueError> {
        self.still_works()?;
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(true);
        Ok(txn)
    }

    /// Fails with the reason if the system has refused something before: from then on redb does nothing more.
    fn still_works(&self) -> Result<(), CatalogueError> {
        let unusable = |what| CatalogueError::Unusable { path: self.path.display().to_string(), what };
        self.fate.fault().map_or(Ok(()), |what| Err(unusable(what)))
    }

    /// A view of the present state.
    ///
    /// # Errors
    /// If the database fails.
    pub fn reader(&self) -> Result<Reader, CatalogueError> {
        self.still_works()?;
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

/// Takes a number and stores the next one.
fn next_number(txn: &WriteTransaction, name: &str) -> Result<u64, CatalogueError> {
    let mut table = txn.open_table(NUMBERS)?;
    let value = table.get(name)?.map_or(1, |value| value.value());
    table.insert(name, value + 1)?;
    Ok(value)
}

/// Makes the file private: the catalogue contains names of files in clear text.
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

    /// Records that the catalogue does not agree with the store, such as a chunk that is not in its place. The damage may be in the store
    /// or in the catalogue: the next process to open the catalogue rebuilds it. (Verifying it would not be enough: a damaged page that a
    /// later transaction has rewritten has a valid checksum.)
    pub fn distrust(&self) {
        self.doubt.store(true, Relaxed);
    }

    /// Number of times that packs were lost or condemned. Chunks known to be stored in an earlier epoch are looked up again.
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
        assert!(doubt(), "there was no catalogue");
        assert!(doubt(), "a distrusted catalogue is rebuilt");
        assert!(!doubt(), "if it was just rebuilt, the store is at fault");
        let (catalogue, is_new) = Catalogue::open(&path, [0; 32]).unwrap();
        assert!(!is_new);
        let txn = catalogue.write().unwrap();
        Catalogue::end_session(&txn, 1, 0).unwrap();
        txn.commit().unwrap();
        drop(catalogue);
        assert!(!doubt(), "it was closed without distrust");
        assert!(doubt(), "it may have become damaged since it was rebuilt");
    }
}
