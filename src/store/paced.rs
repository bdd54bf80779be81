//! A store with limited speed, for a line that others use, too.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::store::Store;
use crate::store::gated::GatedStore;
use crate::sync::lock;

/// Writes at most `rate` bytes per second (at least one) to `inner`. `clock` returns the time since a fixed moment;
/// `wait` waits for a time, or less if there is a reason to.
///
/// An object is put only after the time that the objects before it should have taken. So the average speed is
/// bounded, while each object is written as fast as possible.
pub fn paced(
    inner: Arc<dyn Store>,
    rate: u64,
    clock: impl Fn() -> Duration + Send + Sync + 'static,
    wait: impl Fn(Duration) + Send + Sync + 'static,
) -> GatedStore {
    let pace = pace(rate, clock, wait);
    GatedStore::new(inner, move |_, len| {
        pace(len);
        Ok(())
    })
}

/// Reads at most `rate` bytes per second (at least one) from `inner`, as [`paced`] writes.
pub fn paced_reads(
    inner: Arc<dyn Store>,
    rate: u64,
    clock: impl Fn() -> Duration + Send + Sync + 'static,
    wait: impl Fn(Duration) + Send + Sync + 'static,
) -> GatedStore {
    GatedStore::reading(inner, pace(rate, clock, wait))
}

/// Returns a function that is called with each next number of bytes, and waits until those before have had their
/// time.
fn pace(
    rate: u64,
    clock: impl Fn() -> Duration + Send + Sync + 'static,
    wait: impl Fn(Duration) + Send + Sync + 'static,
) -> impl Fn(usize) + Send + Sync + 'static {
    // The time at which the next bytes may begin.
    let due: Mutex<Duration> = Mutex::default();
    let rate = u128::from(rate.max(1));
    move |len| {
        let now = clock();
        let begin = {
            let mut due = lock(&due);
            let begin = now.max(*due);
            let nanos = len as u128 * 1_000_000_000 / rate;
            *due = begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            begin
        };
        if begin > now {
            wait(begin.saturating_sub(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use bytes::Bytes;

    use super::*;
    use crate::store::Kind;
    use crate::store::testing::conformance::{check_store, key};
    use crate::store::testing::mem::MemStore;

    /// A store of 1000 bytes per second, whose clock moves only while somebody waits.
    fn slow() -> (GatedStore, Arc<AtomicU64>) {
        let millis = Arc::new(AtomicU64::new(0));
        let (clock, waited) = (millis.clone(), millis.clone());
        let store = paced(
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
        check_store(|| slow().0);
    }

    #[test]
    fn each_object_waits_for_those_before_it() {
        let (store, millis) = slow();
        for (number, len, expected) in [(1, 500, 0), (2, 2000, 500), (3, 0, 2500), (4, 1, 2500), (5, 1, 2501)] {
            store.begin_put(&key(Kind::Pack, number), Bytes::copy_from_slice(&vec![0; len])).unwrap().finish().unwrap();
            assert_eq!(millis.load(Relaxed), expected, "object {number}");
        }
        // Time without writes is not made up for.
        millis.store(10_000, Relaxed);
        store.put(&key(Kind::Log, 6), Bytes::copy_from_slice(&[0; 100])).unwrap();
        store.put(&key(Kind::Log, 7), Bytes::copy_from_slice(&[0; 100])).unwrap();
        assert_eq!(millis.load(Relaxed), 10_100);
        store.get_range(&key(Kind::Pack, 2), 0, 2000).unwrap();
        assert_eq!(millis.load(Relaxed), 10_100, "reading is free");
    }
}
