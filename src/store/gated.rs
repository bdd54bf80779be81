//! A store that asks a gate before it takes an object.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::{Kind, Listed, ObjectKey, Pending, Store, StoreError, StoreLimits};

/// Decides whether an object of this length may be put; it may wait.
type Gate = dyn Fn(&ObjectKey, usize) -> Result<(), StoreError> + Send + Sync;

/// Is called with the number of bytes read, and may wait.
type ReadGate = dyn Fn(usize) + Send + Sync;

/// Passes every request on to another store; puts only when the gate allows them.
pub struct GatedStore {
    inner: Arc<dyn Store>,
    gate: Box<Gate>,
    reads: Option<Box<ReadGate>>,
}

impl fmt::Debug for GatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatedStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl GatedStore {
    /// Puts into `inner` only what `gate` allows.
    pub fn new(
        inner: Arc<dyn Store>,
        gate: impl Fn(&ObjectKey, usize) -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, gate: Box::new(gate), reads: None }
    }

    /// Reads from `inner`, and calls `reads` with the number of bytes: before a part is read, but after an object is
    /// read whole, because its length is not known before.
    pub fn reading(inner: Arc<dyn Store>, reads: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self { inner, gate: Box::new(|_, _| Ok(())), reads: Some(Box::new(reads)) }
    }

    fn read(&self, len: usize) {
        if let Some(reads) = &self.reads {
            reads(len);
        }
    }
}

impl Store for GatedStore {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        (self.gate)(key, bytes.len())?;
        self.inner.put(key, bytes)
    }

    fn begin_put<'s>(&'s self, key: &ObjectKey, bytes: Bytes) -> Result<Pending<'s>, StoreError> {
        (self.gate)(key, bytes.len())?;
        self.inner.begin_put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.read(len);
        self.inner.get_range(key, offset, len)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.inner.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.inner.list(kind, found)
    }

    fn list_all(&self, kinds: &[Kind], found: &mut dyn FnMut(Kind, Listed)) -> Result<(), StoreError> {
        self.inner.list_all(kinds, found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key)
    }

    fn delete_many(&self, keys: &[ObjectKey], deleted: &mut dyn FnMut(&ObjectKey)) -> Result<(), StoreError> {
        self.inner.delete_many(keys, deleted)
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete_durably(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.quarantine(key)
    }

    fn sweep_leftovers(&self) -> Result<u64, StoreError> {
        self.inner.sweep_leftovers()
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn small_reads(&self) -> usize {
        self.inner.small_reads()
    }

    fn holds(&self, key: &ObjectKey, bytes: &Bytes) -> Result<bool, StoreError> {
        self.inner.holds(key, bytes)
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn folder(&self) -> Option<&std::path::Path> {
        self.inner.folder()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.inner.get(key, max).inspect(|bytes| self.read(bytes.len()))
    }
}
