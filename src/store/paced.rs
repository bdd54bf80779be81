//! A store that is not written to faster than it may be: for a line that others use, too.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::store::{Kind, Listed, ObjectKey, Pending, Store, StoreError};

/// The time that has passed since some moment.
type Clock = dyn Fn() -> Duration + Send + Sync;
/// Waits so long, or less if there is a reason to.
type Wait = dyn Fn(Duration) + Send + Sync;

/// Passes everything on to another store. An object is put only when those before it have taken the time that they should
/// have taken: so what is written in a while is bounded, while each object goes as fast as it can.
pub struct PacedStore {
    inner: Arc<dyn Store>,
    rate: u64,
    clock: Box<Clock>,
    wait: Box<Wait>,
    /// When the next object may begin.
    due: Mutex<Duration>,
}

impl fmt::Debug for PacedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacedStore").field("inner", &self.inner).field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl PacedStore {
    /// Writes at most `rate` bytes per second (at least one) to `inner`.
    pub fn new(
        inner: Arc<dyn Store>,
        rate: u64,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        wait: impl Fn(Duration) + Send + Sync + 'static,
    ) -> Self {
        Self { inner, rate: rate.max(1), clock: Box::new(clock), wait: Box::new(wait), due: Mutex::default() }
    }

    /// Waits for this object's turn.
    fn admit(&self, len: usize) {
        let now = (self.clock)();
        let begin = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = now.max(*due);
            let nanos = len as u128 * 1_000_000_000 / u128::from(self.rate);
            *due = begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            begin
        };
        if begin > now {
            (self.wait)(begin.saturating_sub(now));
        }
    }
}

impl Store for PacedStore {
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StoreError> {
        self.admit(bytes.len());
        self.inner.put(key, bytes)
    }

    fn begin_put<'s>(&'s self, key: &ObjectKey, bytes: &[u8]) -> Result<Pending<'s>, StoreError> {
        self.admit(bytes.len());
        self.inner.begin_put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(key, offset, len)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.inner.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.inner.list(kind, found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.quarantine(key)
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn folder(&self) -> Option<&std::path::Path> {
        self.inner.folder()
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get(key, max)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::store::conformance::{check_store, key};
    use crate::store::mem::MemStore;

    /// A store of 1000 bytes per second, whose clock only moves while somebody waits.
    fn paced() -> (PacedStore, Arc<AtomicU64>) {
        let millis = Arc::new(AtomicU64::new(0));
        let (clock, waited) = (millis.clone(), millis.clone());
        let store = PacedStore::new(
            Arc::new(MemStore::new()),
            1000,
            move || Duration::from_millis(clock.load(Relaxed)),
            move |time| {
                waited.fetch_add(u64::try_from(time.as_millis()).unwrap(), Relaxed);
            },
        );
        (store, millis)
    }

    #[test]
    fn conforms() {
        check_store(|| paced().0);
    }

    #[test]
    fn each_object_waits_for_those_before_it() {
        let (store, millis) = paced();
        for (number, len, expected) in [(1, 500, 0), (2, 2000, 500), (3, 0, 2500), (4, 1, 2500), (5, 1, 2501)] {
            store.begin_put(&key(Kind::Pack, number), &vec![0; len]).unwrap().finish().unwrap();
            assert_eq!(millis.load(Relaxed), expected, "object {number}");
        }
        // Time in which nothing was written is not made up for.
        millis.store(10_000, Relaxed);
        store.put(&key(Kind::Log, 6), &[0; 100]).unwrap();
        store.put(&key(Kind::Log, 7), &[0; 100]).unwrap();
        assert_eq!(millis.load(Relaxed), 10_100);
        store.get_range(&key(Kind::Pack, 2), 0, 2000).unwrap();
        assert_eq!(millis.load(Relaxed), 10_100, "reading is free");
    }
}
