//! The file of a catalogue, as redb sees it. A command that only reads needs no room in the user's state folder: if the
//! file cannot grow, the catalogue goes on in a copy elsewhere, which nobody else sees and which is gone at the end.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::catalogue::CatalogueError;
use crate::progress::plain;
use crate::sync::{lock, read_lock, write_lock};

/// Number of bytes that are copied at once.
const BLOCK_LEN: usize = 1 << 20;

/// Where a catalogue goes on whose own file system has no more room. Only for work that need not remember anything.
#[derive(Clone)]
pub struct Spare {
    folder: PathBuf,
    told: Arc<dyn Fn(&CatalogueError) + Send + Sync>,
}

impl Spare {
    /// A file in this folder. `told` hears why, at the moment when it becomes necessary.
    pub fn new(folder: PathBuf, told: impl Fn(&CatalogueError) + Send + Sync + 'static) -> Self {
        Self { folder, told: Arc::new(told) }
    }

    /// An empty file that only this user can read, and that is gone as soon as it is closed.
    fn file(&self) -> io::Result<File> {
        let name = crate::seal::random_name().map_err(io::Error::other)?;
        let path = self.folder.join(format!("vault-{name}"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, DELETE_ON_CLOSE);
        let file = options.open(&path)?;
        if cfg!(unix) {
            fs::remove_file(&path)?;
        }
        Ok(file)
    }
}

/// `FILE_FLAG_DELETE_ON_CLOSE`.
#[cfg(windows)]
const DELETE_ON_CLOSE: u32 = 0x0400_0000;

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spare").field(&self.folder).finish()
    }
}

/// The fate of a file since redb has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Fate(Arc<Mutex<(Option<String>, bool)>>);

impl Fate {
    /// The first error of the system. From then on redb does nothing more, and only says that there was one.
    pub(super) fn fault(&self) -> Option<String> {
        lock(&self.0).0.clone()
    }

    /// Whether it was left behind in the middle of a change, for a copy.
    pub(super) fn is_left(&self) -> bool {
        lock(&self.0).1
    }

    fn note(&self, error: &io::Error) {
        lock(&self.0).0.get_or_insert_with(|| plain(error));
    }

    fn leave(&self) {
        lock(&self.0).1 = true;
    }
}

/// An error of the system, with the file that it concerns.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub(super) struct FileFault {
    /// The file.
    pub(super) path: String,
    /// The text of the system.
    pub(super) what: String,
}

/// Whether this error says what is in the file rather than that the system refuses it.
pub(super) fn is_of_content(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

/// Whether a file system takes nothing more, while everything in it can still be read.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// The file of a catalogue, or the copy in which it goes on.
#[derive(Debug)]
pub(super) struct CatalogueFile<B = FileBackend> {
    path: PathBuf,
    own: B,
    copy: RwLock<Option<FileBackend>>,
    spare: Option<Spare>,
    fate: Fate,
}

impl CatalogueFile {
    /// Opens the file, or creates it.
    pub(super) fn open(path: &Path, spare: Option<Spare>) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self::above(FileBackend::new(file).map_err(io::Error::other)?, path, spare))
    }
}

impl<B: StorageBackend> CatalogueFile<B> {
    fn above(own: B, path: &Path, spare: Option<Spare>) -> Self {
        Self { path: path.to_owned(), own, copy: RwLock::default(), spare, fate: Fate::default() }
    }

    /// Its fate.
    pub(super) fn fate(&self) -> Fate {
        self.fate.clone()
    }

    fn copied(&self) -> RwLockReadGuard<'_, Option<FileBackend>> {
        read_lock(&self.copy)
    }

    /// Does this with the file, or with the copy if there is one.
    fn with<T>(&self, act: impl FnOnce(&dyn StorageBackend) -> io::Result<T>) -> io::Result<T> {
        let done = match &*self.copied() {
            Some(copy) => act(copy),
            None => act(&self.own),
        };
        done.map_err(|error| self.named(error))
    }

    /// Changes the file. If its file system is full, continues in a copy.
    ///
    /// redb changes the file only while it has the lock of writers, so that nobody changes it while it is copied. A
    /// change that failed half is made again as a whole. After a failed flush nothing is copied: what the system then
    /// gives to read may not be what was written.
    fn change(&self, act: impl Fn(&dyn StorageBackend) -> io::Result<()>) -> io::Result<()> {
        let (error, spare) = match (&*self.copied(), &self.spare) {
            (Some(copy), _) => return act(copy).map_err(|error| self.named(error)),
            (None, spare) => match (act(&self.own), spare) {
                (Ok(()), _) => return Ok(()),
                (Err(error), Some(spare)) if is_full(&error) => (error, spare),
                (Err(error), _) => return Err(self.named(error)),
            },
        };
        let mut copy = write_lock(&self.copy);
        if let Some(copy) = &*copy {
            return act(copy).map_err(|error| self.named(error));
        }
        let Ok(made) = self.duplicate(spare) else { return Err(self.named(error)) };
        act(&made).map_err(|error| self.named(error))?;
        *copy = Some(made);
        self.fate.leave();
        let path = self.path.display().to_string();
        (spare.told)(&CatalogueError::Unusable { path, what: plain(&error) });
        Ok(())
    }

    fn duplicate(&self, spare: &Spare) -> io::Result<FileBackend> {
        let made = FileBackend::new(spare.file()?).map_err(io::Error::other)?;
        let len = self.own.len()?;
        let mut block = vec![0; BLOCK_LEN];
        let mut at = 0;
        while at < len {
            let part = usize::try_from(len - at).unwrap_or(BLOCK_LEN).min(BLOCK_LEN);
            self.own.read(at, &mut block[..part])?;
            made.write(at, &block[..part])?;
            at += part as u64;
        }
        Ok(made)
    }

    /// The error with the name of the file, noted if it is one of the system.
    fn named(&self, error: io::Error) -> io::Error {
        if is_of_content(&error) {
            return error;
        }
        self.fate.note(&error);
        let fault = FileFault { path: self.path.display().to_string(), what: plain(&error) };
        io::Error::new(error.kind(), fault)
    }

    /// Asks for a lock among processes. Nobody else has the copy, so there every lock is given at once.
    fn locked<T>(&self, alone: T, ask: impl FnOnce(&B) -> Result<T, BackendError>) -> Result<T, BackendError> {
        // The guard ends here: another process may keep a lock for long.
        if self.copied().is_some() { Ok(alone) } else { ask(&self.own) }
    }
}

impl<B: StorageBackend> StorageBackend for CatalogueFile<B> {
    fn len(&self) -> io::Result<u64> {
        self.with(StorageBackend::len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|file| file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(StorageBackend::sync_data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|file| file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.own.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.locked(true, |own| own.try_lock_range(start, end))
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.locked(true, |own| own.try_lock_shared_range(start, end))
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.locked((), |own| own.lock_range(start, end))
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.locked((), |own| own.lock_shared_range(start, end))
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        let done = self.own.unlock_range(start, end);
        // A lock that was given for the copy is none of the file.
        if self.copied().is_some() { Ok(()) } else { done }
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.locked(false, |own| own.query_lock_range(start, end))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

    /// A disk with this many bytes.
    #[derive(Debug)]
    struct Disk {
        bytes: InMemoryBackend,
        room: Arc<AtomicU64>,
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.bytes.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.bytes.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.bytes.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let room = usize::try_from(self.room.load(Relaxed).saturating_sub(offset)).unwrap_or(usize::MAX);
            // Even the write that fails leaves something.
            self.bytes.write(offset, &data[..data.len().min(room)])?;
            if data.len() > room { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    fn rows(db: &Database) -> Result<Vec<u64>, CatalogueError> {
        let table = db.begin_read()?.open_table(TABLE)?;
        let rows = redb::ReadableTable::iter(&table)?.map(|row| Ok(row?.0.value()));
        rows.collect()
    }

    fn enter(db: &Database, number: u64) -> Result<(), CatalogueError> {
        let txn = db.begin_write()?;
        txn.open_table(TABLE)?.insert(number, [7; 9000].as_slice())?;
        Ok(txn.commit()?)
    }

    #[test]
    fn what_fits_no_more_goes_on_in_a_copy_and_only_if_there_may_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Arc::new(AtomicUsize::new(0));
        let hear = heard.clone();
        let spare = Spare::new(folder.path().to_owned(), move |error| {
            assert_eq!(error.to_string(), "the catalogue /c cannot be used: no storage space");
            hear.fetch_add(1, Relaxed);
        });
        for spare in [Some(spare), None] {
            let room = Arc::new(AtomicU64::new(u64::MAX));
            let disk = Disk { bytes: InMemoryBackend::new(), room: room.clone() };
            let file = CatalogueFile::above(disk, Path::new("/c"), spare.clone());
            let fate = file.fate();
            // Without a cache every page is read from the file again.
            let db = Database::builder().set_cache_size(0).create_with_backend(file).unwrap();
            (0..3).for_each(|number| enter(&db, number).unwrap());
            room.store(20_000, Relaxed);
            if spare.is_some() {
                assert!(!fate.is_left());
                (3..90).for_each(|number| enter(&db, number).unwrap());
                assert_eq!(rows(&db).unwrap(), (0..90).collect::<Vec<_>>());
                assert!(fate.is_left() && fate.fault().is_none());
            } else {
                let error = (3..90).find_map(|number| enter(&db, number).err()).unwrap();
                assert!(matches!(&error, CatalogueError::Unusable { path, .. } if path == "/c"), "{error}");
                assert_eq!(fate.fault().as_deref(), Some("no storage space"));
                assert!(!fate.is_left());
            }
        }
        assert_eq!(heard.load(Relaxed), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays");
    }
}
