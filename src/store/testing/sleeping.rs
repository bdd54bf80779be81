//! A store in which every request takes time, as over a slow line: it shows which requests wait for each other.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits};
use crate::sync::lock;

/// The order in which requests began and ended, in steps: each beginning and each end is one.
#[derive(Debug, Default)]
struct Spans {
    step: u64,
    under_way: usize,
    most: usize,
    ended: Vec<(u64, u64)>,
}

/// A store in which every request takes time.
pub struct SleepingStore {
    inner: Arc<dyn Store>,
    limits: StoreLimits,
    sleep: Box<dyn Fn() + Send + Sync>,
    spans: Mutex<Spans>,
}

impl fmt::Debug for SleepingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SleepingStore")
            .field("inner", &self.inner)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl SleepingStore {
    /// Passes each request on to `inner` after a call of `sleep`, and reports these limits.
    pub fn new(inner: Arc<dyn Store>, limits: StoreLimits, sleep: impl Fn() + Send + Sync + 'static) -> Self {
        Self { inner, limits, sleep: Box::new(sleep), spans: Mutex::default() }
    }

    /// Round trips and requests under way since the last call. Round trips: the longest chain of requests of which
    /// each began only after the one before had ended. The second number is the most requests under way together.
    pub fn take(&self) -> (usize, usize) {
        let spans = std::mem::take(&mut *lock(&self.spans));
        let mut ended = spans.ended;
        ended.sort_unstable_by_key(|(_, end)| *end);
        // The request that ends first is always in a longest chain.
        let (mut rounds, mut free_from) = (0, 0);
        for (begin, end) in ended {
            if begin > free_from {
                rounds += 1;
                free_from = end;
            }
        }
        (rounds, spans.most)
    }

    fn request<T>(&self, work: impl FnOnce() -> T) -> T {
        let begin = {
            let mut spans = lock(&self.spans);
            spans.step += 1;
            spans.under_way += 1;
            spans.most = spans.most.max(spans.under_way);
            spans.step
        };
        (self.sleep)();
        let done = work();
        let mut spans = lock(&self.spans);
        spans.step += 1;
        spans.under_way = spans.under_way.saturating_sub(1);
        let end = spans.step;
        spans.ended.push((begin, end));
        done
    }
}

impl Store for SleepingStore {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.request(|| self.inner.put(key, bytes))
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.request(|| self.inner.get_range(key, offset, len))
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.request(|| self.inner.get(key, max))
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.request(|| self.inner.len(key))
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.request(|| self.inner.list(kind, found))
    }

    fn list_all(&self, kinds: &[Kind], found: &mut dyn FnMut(Kind, Listed)) -> Result<(), StoreError> {
        self.request(|| self.inner.list_all(kinds, found))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.request(|| self.inner.delete(key))
    }

    fn delete_many(&self, keys: &[ObjectKey], deleted: &mut dyn FnMut(&ObjectKey)) -> Result<(), StoreError> {
        if keys.is_empty() { Ok(()) } else { self.request(|| self.inner.delete_many(keys, deleted)) }
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.request(|| self.inner.delete_durably(key))
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.request(|| self.inner.quarantine(key))
    }

    fn limits(&self) -> StoreLimits {
        self.limits
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn folder(&self) -> Option<&Path> {
        self.inner.folder()
    }

    fn is_far(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::testing::conformance::{check_store, key};
    use crate::store::testing::mem::MemStore;
    use crate::sync::share;

    fn sleeping(millis: u64) -> SleepingStore {
        let limits = StoreLimits { reads: 4, writes: 4, bytes: 0 };
        SleepingStore::new(Arc::new(MemStore::new()), limits, move || {
            std::thread::sleep(Duration::from_millis(millis));
        })
    }

    #[test]
    fn conforms() {
        check_store(|| sleeping(0));
    }

    #[test]
    fn requests_that_wait_for_each_other_are_round_trips() {
        let store = sleeping(20);
        for number in 0..3 {
            store.put(&key(Kind::Log, number), Bytes::new()).unwrap();
        }
        assert_eq!(store.take(), (3, 1));
        share(4, 4, |number| store.get(&key(Kind::Log, number as u32 % 3), 0).unwrap());
        let (rounds, most) = store.take();
        assert!(rounds < 4 && most > 1, "{rounds} {most}");
        assert_eq!(store.take(), (0, 0));
    }
}
