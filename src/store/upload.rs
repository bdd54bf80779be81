//! Several puts at a time: as many as the store takes, within its limit of bytes.

use std::panic::resume_unwind;
use std::thread::{Scope, ScopedJoinHandle};

use bytes::Bytes;

use crate::store::{ObjectKey, Pending, Store, StoreError};
use crate::sync::{Rooms, spawn};

/// Puts many objects at a time. Where the store takes one at a time, each is put in two halves instead (see
/// [`Store::begin_put`]).
#[derive(Debug)]
pub struct Uploads<'s> {
    store: &'s dyn Store,
    most: usize,
    rooms: Rooms,
}

/// A put that has begun.
pub enum Upload<'scope> {
    /// Its second half remains to be done.
    Begun(Pending<'scope>),
    /// A thread does all of it.
    UnderWay(ScopedJoinHandle<'scope, Result<(), StoreError>>),
}

impl<'s> Uploads<'s> {
    /// Puts into this store.
    pub fn new(store: &'s dyn Store) -> Self {
        let limits = store.limits();
        let most = limits.writes.max(1);
        Self { store, most, rooms: Rooms::new(most, limits.bytes) }
    }

    /// The largest number of puts that may be begun and unfinished.
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Begins a put as soon as there is room for it. If several may be under way, a thread of `scope` does it.
    ///
    /// # Errors
    /// As [`Store::begin_put`].
    pub fn begin<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        key: &ObjectKey,
        bytes: Bytes,
    ) -> Result<Upload<'scope>, StoreError> {
        if self.most == 1 {
            return self.store.begin_put(key, bytes).map(Upload::Begun);
        }
        let (key, room) = (*key, self.rooms.enter(bytes.len() as u64));
        Ok(Upload::UnderWay(spawn(scope, move || {
            let _room = room;
            self.store.put(&key, bytes)
        })))
    }
}

impl Upload<'_> {
    /// Waits until the object is durable and visible.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn finish(self) -> Result<(), StoreError> {
        match self {
            Self::Begun(pending) => pending.finish(),
            Self::UnderWay(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;
    use crate::store::gated::GatedStore;
    use crate::store::testing::conformance::key;
    use crate::store::testing::mem::MemStore;
    use crate::store::testing::sleeping::SleepingStore;
    use crate::store::{Kind, StoreLimits};

    /// Puts objects of these lengths; returns the most puts and the most bytes that were under way together.
    fn check(limits: StoreLimits, lens: &[u64]) -> (usize, u64) {
        let (bytes, most_bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mem = MemStore::new();
        let (now, most) = (bytes.clone(), most_bytes.clone());
        let slow = GatedStore::new(Arc::new(mem.clone()), move |_, len| {
            most.fetch_max(now.fetch_add(len as u64, Relaxed) + len as u64, Relaxed);
            std::thread::sleep(Duration::from_millis(20));
            now.fetch_sub(len as u64, Relaxed);
            Ok(())
        });
        let store = SleepingStore::new(Arc::new(slow), limits, || {});
        let uploads = Uploads::new(&store);
        std::thread::scope(|scope| {
            let begun: Vec<_> = lens
                .iter()
                .zip(0..)
                .map(|(len, number)| {
                    let bytes = Bytes::from(vec![0; usize::try_from(*len).unwrap()]);
                    uploads.begin(scope, &key(Kind::Pack, number), bytes).unwrap()
                })
                .collect();
            begun.into_iter().try_for_each(Upload::finish).unwrap();
        });
        assert_eq!(mem.objects().len(), lens.len());
        (store.take().1, most_bytes.load(Relaxed))
    }

    #[test]
    fn puts_keep_to_the_limits_of_the_store() {
        let limits = |writes, bytes| StoreLimits { reads: 1, writes, bytes };
        assert_eq!(check(limits(1, 0), &[10; 4]), (1, 10));
        let (most, bytes) = check(limits(3, 1000), &[10; 12]);
        assert!((2..=3).contains(&most) && bytes <= 30, "{most} {bytes}");
        let (_, bytes) = check(limits(8, 25), &[10; 12]);
        assert!(bytes <= 20, "{bytes}");
        // An object longer than the limit is put alone.
        let (_, bytes) = check(limits(8, 25), &[10, 40, 10, 10]);
        assert_eq!(bytes, 40);
    }

    #[test]
    fn what_became_of_a_put_comes_out_of_it() {
        let full = |object: &ObjectKey| StoreError::Full { object: object.into() };
        let gated = GatedStore::new(Arc::new(MemStore::new()), move |key, len| match len {
            1 => Err(full(key)),
            2 => panic!("a defect"),
            _ => Ok(()),
        });
        let store = SleepingStore::new(Arc::new(gated), StoreLimits { reads: 1, writes: 2, bytes: 10 }, || {});
        let uploads = Uploads::new(&store);
        std::thread::scope(|scope| {
            let put = |len| uploads.begin(scope, &key(Kind::Pack, len), vec![0; len as usize].into()).unwrap();
            let (well, ill) = (put(3), put(1));
            assert!(well.finish().is_ok());
            assert!(matches!(ill.finish(), Err(StoreError::Full { .. })));
            let broken = put(2);
            assert!(catch_unwind(AssertUnwindSafe(|| broken.finish())).is_err());
            // Failed puts give their room back.
            (4..10).map(put).for_each(|upload| upload.finish().unwrap());
        });
    }
}
