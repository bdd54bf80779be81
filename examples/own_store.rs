//! A custom store: a whole vault in one file, which is a database. `main` creates a vault in it, takes a snapshot,
//! and reads it back; the test runs the suite that every store must pass.
//!
//! ```text
//! cargo run --example own_store -- FOLDER NEW-FILE
//! cargo test --example own_store
//! ```
#![allow(clippy::disallowed_methods, reason = "a program reads the clock and its arguments; only the library does not")]

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use vault::store::{Kind, Listed, ObjectKey, StoreLimits};
use vault::{
    CreateOptions, Identity, Input, ObjectName, OpenOptions, Secret, Silent, SnapshotOptions, Store, StoreError,
};
use vault::{Time, create, open, snapshot};

/// Objects by their path below the store's top, such as `packs/3f/3f…`.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Objects that were moved aside, so that a person can look at them.
const ASIDE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("aside");

/// A store in one file.
#[derive(Debug)]
struct FileStore {
    database: Database,
    path: PathBuf,
}

/// Turns an error of the database into an error of the store.
fn io(action: &'static str, key: &ObjectKey) -> impl FnOnce(redb::Error) -> StoreError {
    move |error| StoreError::Io { action, object: key.into(), source: io::Error::other(error) }
}

impl FileStore {
    fn new(path: &Path) -> Result<Self, redb::Error> {
        let database = Database::create(path)?;
        // Opening a table for writing creates it.
        let begun = database.begin_write()?;
        begun.open_table(OBJECTS)?;
        begun.open_table(ASIDE)?;
        begun.commit()?;
        Ok(Self { database, path: path.to_owned() })
    }

    /// Calls `look` with the bytes of an object.
    fn look<T>(&self, key: &ObjectKey, look: impl FnOnce(&[u8]) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let find = || -> Result<_, redb::Error> {
            Ok(self.database.begin_read()?.open_table(OBJECTS)?.get(key.to_string().as_str())?)
        };
        let found = find().map_err(io("read", key))?;
        look(found.ok_or_else(|| StoreError::Missing { object: key.into() })?.value())
    }

    /// Removes an object; if `is_kept`, moves it to the other table. Returns whether it existed.
    fn take(&self, key: &ObjectKey, is_kept: bool) -> Result<bool, redb::Error> {
        let (begun, path) = (self.database.begin_write()?, key.to_string());
        let was_there = {
            let mut objects = begun.open_table(OBJECTS)?;
            let taken = objects.remove(path.as_str())?;
            if let (Some(bytes), true) = (&taken, is_kept) {
                begun.open_table(ASIDE)?.insert(path.as_str(), bytes.value())?;
            }
            taken.is_some()
        };
        begun.commit()?;
        Ok(was_there)
    }
}

impl Store for FileStore {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let put = || -> Result<bool, redb::Error> {
            // One write at a time; a commit is durable.
            let (begun, path) = (self.database.begin_write()?, key.to_string());
            let mut objects = begun.open_table(OBJECTS)?;
            if objects.get(path.as_str())?.is_some() {
                return Ok(false);
            }
            objects.insert(path.as_str(), &bytes[..])?;
            drop(objects);
            begun.commit()?;
            Ok(true)
        };
        let is_new = put().map_err(io("write", key))?;
        is_new.then_some(()).ok_or_else(|| StoreError::Exists { object: key.into() })
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.look(key, |bytes| {
            let (need, have) = (offset.saturating_add(len as u64), bytes.len() as u64);
            let range = usize::try_from(offset).ok().and_then(|from| bytes.get(from..from.checked_add(len)?));
            range.map(Bytes::copy_from_slice).ok_or_else(|| StoreError::Short { object: key.into(), need, have })
        })
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.look(key, |bytes| match bytes.len() as u64 {
            have if have > max => Err(StoreError::Long { object: key.into(), max, have }),
            _ => Ok(Bytes::copy_from_slice(bytes)),
        })
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.look(key, |bytes| Ok(bytes.len() as u64))
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let list = || -> Result<Vec<(String, u64)>, redb::Error> {
            let objects = self.database.begin_read()?.open_table(OBJECTS)?;
            let (from, to) = (format!("{}/", kind.folder()), format!("{}0", kind.folder()));
            let listed = objects.range(from.as_str()..to.as_str())?;
            let entry = |entry: Result<_, redb::StorageError>| {
                let (path, bytes): (redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>) = entry?;
                Ok((path.value().to_owned(), bytes.value().len() as u64))
            };
            listed.map(entry).collect()
        };
        let listed = list().map_err(|error| StoreError::Io {
            action: "list",
            object: kind.into(),
            source: io::Error::other(error),
        })?;
        for (path, len) in listed {
            let name = path.rsplit('/').next().and_then(|name| name.parse::<ObjectName>().ok());
            found(name.map_or(Listed::Foreign(path), |name| Listed::Object { name, len }));
        }
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.take(key, false).map(drop).map_err(io("delete", key))
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let was_there = self.take(key, true).map_err(io("quarantine", key))?;
        was_there.then_some(()).ok_or_else(|| StoreError::Missing { object: key.into() })
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { reads: 4, writes: 1, bytes: 64 << 20 }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(file)) = (args.next(), args.next()) else {
        return Err("usage: own_store FOLDER NEW-FILE".into());
    };
    let store: Arc<dyn Store> = Arc::new(FileStore::new(&file)?);
    let secret = || Secret::password("an example");
    create(store.as_ref(), &CreateOptions::new(secret(), now().secs.cast_unsigned()))?;
    let (host, user, machine) = ("host".to_owned(), "user".to_owned(), "machine".to_owned());
    let identity = Identity { host, user, machine, program: "example".to_owned() };
    let state = file.with_extension("state");
    let vault = open(store, &secret(), OpenOptions::new(state, identity), &Silent::default())?;
    let inputs = vec![Input::Path { name: b"folder".to_vec(), path: folder, only: None }];
    let options = SnapshotOptions::new("folder", inputs, &now);
    let report = snapshot(&vault, options, &Silent::default())?;
    let (files, bytes) = (report.snapshot.files, report.snapshot.bytes);
    println!("kept {files} files, {bytes} bytes, in {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use vault::store::testing::conformance::{check_foreign, check_store};

    #[test]
    fn it_passes_the_suite_of_all_stores() {
        let (folder, number) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
        let make = || FileStore::new(&folder.path().join(number.fetch_add(1, Relaxed).to_string())).unwrap();
        check_store(make);
        check_foreign(make, |store, kind, path| {
            let begun = store.database.begin_write().unwrap();
            let path = format!("{}/{path}", kind.folder());
            begun.open_table(OBJECTS).unwrap().insert(path.as_str(), &b"foreign"[..]).unwrap();
            begun.commit().unwrap();
        });
    }
}
