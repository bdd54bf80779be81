//! Opened segments that many readers share: bounded in bytes, each opened by one thread at a time.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::id::ObjectName;
use crate::lru::Lru;
use crate::pack::segment::Segment;
use crate::seal::Decompressor;
use crate::sync::lock;
use crate::vault::{ReadError, Vault};

/// A pack, and the number of a segment in it.
pub type SegmentKey = (ObjectName, u32);

/// The segments that were used last, with every chunk in them verified.
pub struct SegmentCache {
    kept: Mutex<Kept>,
    /// Notified whenever a segment was opened, or could not be.
    opened: Condvar,
    /// Idle decompressors.
    idle: Mutex<Vec<Decompressor>>,
}

struct Kept {
    /// Each weighs its raw bytes.
    segments: Lru<SegmentKey, Arc<Segment>>,
    /// Segments that some thread is opening, each with the number of the attempt.
    opening: HashMap<SegmentKey, u64>,
    /// The number of the next attempt.
    attempt: u64,
}

impl Default for SegmentCache {
    fn default() -> Self {
        let kept = Kept { segments: Lru::new(0), opening: HashMap::new(), attempt: 0 };
        Self { kept: Mutex::new(kept), opened: Condvar::new(), idle: Mutex::default() }
    }
}

/// Ends the opening of a segment, even after a panic: others may wait for it.
struct Opening<'c>(&'c SegmentCache, SegmentKey);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        lock(&self.0.kept).opening.remove(&self.1);
        self.0.opened.notify_all();
    }
}

impl SegmentCache {
    /// Makes the cache keep at least this many raw bytes from now on, and always the segment that was used last.
    pub fn keep(&self, bytes: usize) {
        let mut kept = lock(&self.kept);
        let max = kept.segments.max().max(bytes);
        kept.segments.set_max(max);
    }

    /// Forgets all segments, and keeps only this many bytes from now on, for readers that rest.
    pub fn rest(&self, bytes: usize) {
        lock(&self.idle).clear();
        let mut kept = lock(&self.kept);
        kept.segments.clear();
        kept.segments.set_max(bytes);
    }

    /// Raw bytes of the segments in the cache.
    pub fn bytes(&self) -> usize {
        lock(&self.kept).segments.weight()
    }

    /// Whether a segment is in the cache.
    pub fn has(&self, key: &SegmentKey) -> bool {
        lock(&self.kept).segments.get(key).is_some()
    }

    /// Returns a segment, which `open` opens unless it is cached. If another thread is opening it, this one waits. If
    /// that attempt fails, all waiting threads try by themselves, at once: none waits for one failure after the other.
    ///
    /// # Errors
    /// Those of `open`. They are not remembered: the next call tries again.
    pub fn get(
        &self,
        key: SegmentKey,
        open: impl FnOnce(&mut Decompressor) -> Result<Segment, ReadError>,
    ) -> Result<Arc<Segment>, ReadError> {
        let mut kept = lock(&self.kept);
        let mut awaited = None;
        let is_first = loop {
            if let Some(segment) = kept.segments.get(&key) {
                return Ok(segment);
            }
            match (kept.opening.get(&key).copied(), awaited) {
                (None, None) => {
                    let attempt = kept.attempt;
                    kept.attempt += 1;
                    kept.opening.insert(key, attempt);
                    break true;
                }
                (Some(attempt), None) => awaited = Some(attempt),
                (Some(attempt), Some(before)) if attempt == before => {
                    kept = self.opened.wait(kept).unwrap_or_else(PoisonError::into_inner);
                }
                (_, Some(_)) => break false,
            }
        };
        drop(kept);
        let _opening = is_first.then(|| Opening(self, key));
        let idle = lock(&self.idle).pop();
        let mut decompressor = idle.map_or_else(Decompressor::new, Ok)?;
        let opened = open(&mut decompressor);
        lock(&self.idle).push(decompressor);
        let segment = Arc::new(opened?);
        lock(&self.kept).segments.insert(key, segment.clone(), segment.raw.len());
        Ok(segment)
    }
}

impl Vault {
    /// The opened segments that all readers of this vault share. The cache lives as long as any reader, and keeps at
    /// least this many raw bytes.
    pub(crate) fn segments(&self, kept: usize) -> Arc<SegmentCache> {
        let mut shared = lock(&self.segments);
        let segments = shared.upgrade().unwrap_or_default();
        *shared = Arc::downgrade(&segments);
        segments.keep(kept);
        segments
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::catalogue::CatalogueError;

    fn segment(len: usize) -> Segment {
        Segment { raw: vec![0; len], chunks: Vec::new() }
    }

    fn key(number: u32) -> SegmentKey {
        (ObjectName::new([1; 16]), number)
    }

    #[test]
    fn what_was_used_last_is_kept_within_the_bound() {
        let cache = SegmentCache::default();
        cache.keep(250);
        let opened = AtomicUsize::new(0);
        let get = |number| {
            let open = |_: &mut Decompressor| {
                opened.fetch_add(1, Relaxed);
                Ok(segment(100))
            };
            cache.get(key(number), open).unwrap();
            opened.swap(0, Relaxed)
        };
        assert_eq!([1, 2, 1, 3, 1, 2].map(get), [1, 1, 0, 1, 0, 1]);
        assert_eq!(cache.bytes(), 200);
        cache.get(key(9), |_| Ok(segment(1000))).unwrap();
        assert_eq!(cache.bytes(), 1000, "one segment stays, whatever its length");
        cache.keep(10);
        assert_eq!([1, 1, 2, 1].map(get), [1, 0, 1, 0], "the bound only rises");
        cache.rest(110);
        assert_eq!(cache.bytes(), 0);
        assert_eq!([1, 1, 2, 1].map(get), [1, 0, 1, 1], "until the readers rest");
    }

    #[test]
    fn one_thread_opens_and_the_others_wait() {
        let cache = SegmentCache::default();
        let opened = AtomicUsize::new(0);
        let all = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    all.wait();
                    let open = |_: &mut Decompressor| {
                        opened.fetch_add(1, Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(segment(10))
                    };
                    assert_eq!(cache.get(key(1), open).unwrap().raw.len(), 10);
                });
            }
        });
        assert_eq!(opened.into_inner(), 1);
    }

    #[test]
    fn who_has_waited_for_a_failure_waits_for_no_other() {
        let cache = SegmentCache::default();
        let tries = AtomicUsize::new(0);
        let begun = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let (cache, tries, begun) = (&cache, &tries, &begun);
            scope.spawn(move || {
                cache.get(key(1), |_| {
                    begun.wait();
                    // Wait until all others wait.
                    std::thread::sleep(std::time::Duration::from_millis(200));
                    Err(CatalogueError::Database("x".to_owned()).into())
                })
            });
            begun.wait();
            let together = std::sync::Arc::new((Mutex::new(0), Condvar::new()));
            for _ in 0..6 {
                let together = together.clone();
                scope.spawn(move || {
                    let failed = cache.get(key(1), |_| {
                        tries.fetch_add(1, Relaxed);
                        *lock(&together.0) += 1;
                        together.1.notify_all();
                        // Each continues only when all are under way.
                        let patience = std::time::Duration::from_secs(10);
                        let all = together.1.wait_timeout_while(lock(&together.0), patience, |count| *count < 6);
                        assert!(!all.unwrap().1.timed_out(), "one waits for the other");
                        Err(CatalogueError::Database("y".to_owned()).into())
                    });
                    assert!(failed.is_err());
                });
            }
        });
        assert_eq!(tries.into_inner(), 6);
    }

    #[test]
    fn a_failure_is_not_remembered_and_nobody_waits_for_it() {
        let cache = SegmentCache::default();
        let failed = cache.get(key(1), |_| Err(CatalogueError::Database("x".to_owned()).into()));
        assert!(failed.is_err());
        let panicked = crate::sync::catch(|| cache.get(key(1), |_| panic!("damage")).is_ok());
        assert_eq!(panicked, None);
        assert!(cache.get(key(1), |_| Ok(segment(1))).is_ok());
    }
}
