//! A store that counts requests as a far store would need them, so that tests can assert the cost of a command
//! without a clock.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use crate::store::testing::PAGE;
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits};
use crate::sync::lock;

/// The action of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Puts an object.
    Put,
    /// Reads an object or a part of it.
    Get,
    /// Asks for a length.
    Len,
    /// Lists a page.
    List,
    /// Deletes an object, or up to [`PAGE`] of them.
    Delete,
    /// Moves an object aside.
    Quarantine,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Len => "len",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Quarantine => "quarantine",
        })
    }
}

/// The target of a request: VAULT, the folder of a kind, or several folders at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The VAULT file.
    Vault,
    /// An object in the folder of a kind, or that folder.
    Folder(Kind),
    /// The whole store.
    All,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vault => "VAULT",
            Self::Folder(kind) => kind.folder(),
            Self::All => "all",
        })
    }
}

impl From<&ObjectKey> for Target {
    fn from(key: &ObjectKey) -> Self {
        match key {
            ObjectKey::Vault => Self::Vault,
            ObjectKey::Named(kind, _) => Self::Folder(*kind),
        }
    }
}

/// Requests by action and target, with their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<(Action, Target), usize>);

impl Requests {
    /// The number of all requests.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// The number of requests with this action, whatever their target.
    pub fn of(&self, action: Action) -> usize {
        self.0.iter().filter(|((other, _), _)| *other == action).map(|(_, count)| count).sum()
    }

    /// The number of requests with this action and target.
    pub fn at(&self, action: Action, target: Target) -> usize {
        self.0.get(&(action, target)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Requests {
    /// Writes, for example, `get log 2, list all 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> =
            self.0.iter().map(|((action, target), count)| format!("{action} {target} {count}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// A store that counts requests.
#[derive(Debug)]
pub struct CountingStore<S> {
    inner: S,
    requests: Mutex<Requests>,
    /// The number of bytes read.
    read: AtomicU64,
}

impl<S: Store> CountingStore<S> {
    /// Wraps another store; all counts are zero.
    pub fn new(inner: S) -> Self {
        Self { inner, requests: Mutex::default(), read: AtomicU64::new(0) }
    }

    /// The store inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The requests since the last call.
    pub fn take(&self) -> Requests {
        std::mem::take(&mut *lock(&self.requests))
    }

    /// The number of bytes of objects read since the last call.
    pub fn take_read(&self) -> u64 {
        self.read.swap(0, Relaxed)
    }

    fn note_read(&self, read: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        let bytes = read?;
        self.read.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes)
    }

    fn note(&self, action: Action, target: impl Into<Target>, count: usize) {
        *lock(&self.requests).0.entry((action, target.into())).or_default() += count;
    }

    /// Counts the pages of a list of this many objects: one even if there are none.
    fn note_pages(&self, action: Action, target: Target, objects: usize) {
        self.note(action, target, objects.div_ceil(PAGE).max(1));
    }
}

impl<S: Store> Store for CountingStore<S> {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.note(Action::Put, key, 1);
        self.inner.put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.note(Action::Get, key, 1);
        self.note_read(self.inner.get_range(key, offset, len))
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.note(Action::Get, key, 1);
        self.note_read(self.inner.get(key, max))
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.note(Action::Len, key, 1);
        self.inner.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let mut objects = 0;
        let listed = self.inner.list(kind, &mut |listed| {
            objects += 1;
            found(listed);
        });
        self.note_pages(Action::List, Target::Folder(kind), objects);
        listed
    }

    /// Counts one list of all folders, as on a store that lists names with a common prefix in their order.
    fn list_all(&self, kinds: &[Kind], found: &mut dyn FnMut(Kind, Listed)) -> Result<(), StoreError> {
        let mut objects = 0;
        let listed = self.inner.list_all(kinds, &mut |kind, listed| {
            objects += 1;
            found(kind, listed);
        });
        self.note_pages(Action::List, Target::All, objects);
        listed
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.note(Action::Delete, key, 1);
        self.inner.delete(key)
    }

    fn delete_many(&self, keys: &[ObjectKey], deleted: &mut dyn FnMut(&ObjectKey)) -> Result<(), StoreError> {
        if !keys.is_empty() {
            self.note_pages(Action::Delete, Target::All, keys.len());
        }
        self.inner.delete_many(keys, deleted)
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.note(Action::Delete, key, 1);
        self.inner.delete_durably(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.note(Action::Quarantine, key, 1);
        self.inner.quarantine(key)
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn small_reads(&self) -> usize {
        self.inner.small_reads()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn folder(&self) -> Option<&Path> {
        self.inner.folder()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::conformance::{check_foreign, check_store, key};
    use crate::store::testing::mem::MemStore;

    #[test]
    fn conforms() {
        check_store(|| CountingStore::new(MemStore::new()));
        check_foreign(
            || CountingStore::new(MemStore::new()),
            |store, kind, name| store.inner().add_foreign(kind, name),
        );
    }

    #[test]
    fn each_request_is_noted_once() {
        let store = CountingStore::new(MemStore::new());
        let keys: Vec<ObjectKey> = (0..2001).map(|number| key(Kind::Pack, number)).collect();
        for key in &keys {
            store.put(key, Bytes::new()).unwrap();
        }
        assert_eq!(store.take().to_string(), "put packs 2001");
        store.put(&key(Kind::Log, 0), Bytes::from_static(b"bytes")).unwrap();
        store.take();
        store.get_range(&key(Kind::Log, 0), 1, 3).unwrap();
        assert_eq!((store.take().to_string().as_str(), store.take_read(), store.take_read()), ("get log 1", 3, 0));
        store.delete(&key(Kind::Log, 0)).unwrap();
        store.take();
        store.get(&keys[0], 0).unwrap();
        store.get_range(&keys[0], 0, 0).unwrap();
        store.list(Kind::Pack, &mut |_| {}).unwrap();
        store.list(Kind::Log, &mut |_| {}).unwrap();
        store.list_all(&[Kind::Log, Kind::Pack], &mut |_, _| {}).unwrap();
        store.delete_many(&keys[..1001], &mut |_| {}).unwrap();
        let requests = store.take();
        assert_eq!(requests.to_string(), "get packs 2, list packs 3, list log 1, list all 3, delete all 2");
        assert_eq!((requests.total(), requests.of(Action::List)), (11, 7));
        assert_eq!(requests.at(Action::Get, Target::Folder(Kind::Pack)), 2);
        assert_eq!(store.take(), Requests::default());
    }
}
