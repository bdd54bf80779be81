//! A store in memory, for tests: it keeps the same promises, and lets tests look at the objects and damage them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;

use bytes::Bytes;

use crate::store::Kind;
use crate::store::Listed;
use crate::store::ObjectKey;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreLimits;

/// The content of a [`MemStore`]. Copies share the bytes of the objects, so a copy is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemState {
    objects: BTreeMap<ObjectKey, Bytes>,
    quarantined: Vec<(ObjectKey, Bytes)>,
    foreign: BTreeSet<(Kind, String)>,
}

/// A store in memory. A clone is another handle to the same store; see [`MemStore::deep_copy`] for an independent
/// copy.
#[derive(Debug, Clone, Default)]
pub struct MemStore {
    state: Arc<RwLock<MemState>>,
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store with this content.
    pub fn from_state(state: MemState) -> Self {
        Self { state: Arc::new(RwLock::new(state)) }
    }

    /// An independent store with the same content.
    #[must_use]
    pub fn deep_copy(&self) -> Self {
        Self::from_state(self.snapshot())
    }

    /// The present content of the store.
    pub fn snapshot(&self) -> MemState {
        self.read().clone()
    }

    /// Replaces the content of the store.
    pub fn restore(&self, state: MemState) {
        *self.write() = state;
    }

    /// Every object, in the order of the keys.
    pub fn objects(&self) -> Vec<(ObjectKey, Bytes)> {
        self.read().objects.iter().map(|(key, bytes)| (*key, bytes.clone())).collect()
    }

    /// Objects that were moved aside, oldest first.
    pub fn quarantined(&self) -> Vec<(ObjectKey, Bytes)> {
        self.read().quarantined.clone()
    }

    /// The sum of the lengths of all objects.
    pub fn total_len(&self) -> u64 {
        self.read().objects.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Changes an object without the knowledge of the store's users; returns whether it exists.
    pub fn mutate(&self, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.write();
        let Some(bytes) = state.objects.get_mut(key) else { return false };
        let mut changed = bytes.to_vec();
        change(&mut changed);
        *bytes = changed.into();
        true
    }

    /// Puts these bytes under a name, whether it is taken or not; returns the earlier bytes.
    pub fn replace(&self, key: ObjectKey, bytes: impl Into<Bytes>) -> Option<Bytes> {
        self.write().objects.insert(key, bytes.into())
    }

    /// Removes an object; returns its bytes.
    pub fn remove(&self, key: &ObjectKey) -> Option<Bytes> {
        self.write().objects.remove(key)
    }

    /// Puts a foreign file into the folder of a kind; `name` is its path below that folder.
    pub fn add_foreign(&self, kind: Kind, name: &str) {
        self.write().foreign.insert((kind, name.to_owned()));
    }

    fn read(&self) -> RwLockReadGuard<'_, MemState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, MemState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of an object, shared.
    fn object(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
        self.read().objects.get(key).cloned().ok_or_else(|| StoreError::Missing { object: key.into() })
    }
}

impl Store for MemStore {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let mut state = self.write();
        if state.objects.contains_key(key) {
            return Err(StoreError::Exists { object: key.into() });
        }
        // Copy the bytes: they may be a small part of a large buffer.
        state.objects.insert(*key, Bytes::copy_from_slice(&bytes));
        Ok(())
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let bytes = self.object(key)?;
        let have = bytes.len() as u64;
        let need = offset.saturating_add(len as u64);
        if have < need {
            return Err(StoreError::Short { object: key.into(), need, have });
        }
        Ok(bytes.slice(offset as usize..need as usize))
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        let bytes = self.object(key)?;
        let have = bytes.len() as u64;
        if have > max { Err(StoreError::Long { object: key.into(), max, have }) } else { Ok(bytes) }
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        Ok(self.object(key)?.len() as u64)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        // Do not hold the lock while `found` runs: it may use the store.
        let mut listed = Vec::new();
        {
            let state = self.read();
            for (key, bytes) in &state.objects {
                match key {
                    ObjectKey::Named(of, name) if *of == kind => {
                        listed.push(Listed::Object { name: *name, len: bytes.len() as u64 });
                    }
                    _ => {}
                }
            }
            for (_, name) in state.foreign.iter().filter(|(of, _)| *of == kind) {
                listed.push(Listed::Foreign(format!("{}/{name}", kind.folder())));
            }
        }
        listed.into_iter().for_each(found);
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.remove(key);
        Ok(())
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let mut state = self.write();
        let bytes = state.objects.remove(key).ok_or_else(|| StoreError::Missing { object: key.into() })?;
        state.quarantined.push((*key, bytes));
        Ok(())
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { reads: 2, writes: 1, bytes: 64 << 20 }
    }

    fn place(&self) -> String {
        "in memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::conformance::check_foreign;
    use crate::store::testing::conformance::check_store;

    #[test]
    fn conforms() {
        check_store(MemStore::new);
        check_foreign(MemStore::new, MemStore::add_foreign);
    }

    #[test]
    fn a_clone_shares_and_a_deep_copy_does_not() {
        let store = MemStore::new();
        store.clone().put(&ObjectKey::Vault, Bytes::from_static(b"one")).unwrap();
        let copy = store.deep_copy();
        let before = store.snapshot();
        assert!(store.mutate(&ObjectKey::Vault, |bytes| bytes[0] ^= 1));
        assert_eq!(copy.get(&ObjectKey::Vault, 9).unwrap(), b"one"[..]);
        assert_eq!(store.get(&ObjectKey::Vault, 9).unwrap(), b"nne"[..]);
        store.restore(before);
        assert_eq!(store.get(&ObjectKey::Vault, 9).unwrap(), b"one"[..]);
        assert_eq!(store.total_len(), 3);
    }
}
