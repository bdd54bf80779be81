//! A store that fails on request, around any other: it simulates a power cut, a full disk, a lost answer or a bad
//! wire.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::Bytes;

use crate::store::Kind;
use crate::store::Listed;
use crate::store::ObjectKey;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreLimits;

/// The remains of a failed write in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing: the write was not done.
    Nothing,
    /// For a put, the first half of the object, which no store may leave but some remote ones have left; for any
    /// other write the same as `Nothing`.
    Half,
    /// All of it: the write was done, and only its acknowledgement was lost.
    Whole,
}

/// A way to fail. Operations and writes are counted from 0; a write is a put, a delete or a quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The power is cut at this write: it and every later operation fail.
    CutAtWrite {
        /// The number of the write.
        write: u64,
        /// The remains of the write.
        leaves: Leaves,
    },
    /// One write fails; the next ones work.
    FailAtWrite {
        /// The number of the write.
        write: u64,
        /// The remains of the write.
        leaves: Leaves,
    },
    /// The store reports this put as done, but keeps only a part of it.
    LosesPut {
        /// The number of the put, from 0.
        put: u64,
        /// The part that is kept.
        leaves: Leaves,
    },
    /// The store reports this put and all later ones as done, but keeps only a part of each.
    LosesPutsFrom {
        /// The number of the first such put, from 0.
        put: u64,
        /// The part that is kept.
        leaves: Leaves,
    },
    /// One operation of any sort fails without any effect; the next ones work.
    FailAtOperation(u64),
    /// The line is cut at this operation: it and every later one cannot reach the store.
    CutLineAt(u64),
    /// A put fails if it would bring the bytes of all puts above this number.
    FullAfter(u64),
    /// Lists omit this object, although it can be read.
    Hide(ObjectKey),
    /// Lists fail after this many entries.
    CutListsAfter(u64),
    /// Lists come in reverse order.
    ReverseLists,
    /// A deletion that was not durable is undone by the next [`FaultyStore::cut_power`].
    UndoDeletes,
    /// One read returns wrong data.
    FlipInGet {
        /// The number of the read, among reads only.
        get: u64,
        /// The bit of the data to flip, modulo its length.
        bit: u64,
    },
}

/// Counts of the operations on a [`FaultyStore`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations of any sort.
    pub operations: u64,
    /// Puts, deletes and quarantines.
    pub writes: u64,
    /// Puts.
    pub puts: u64,
    /// Reads of bytes.
    pub gets: u64,
    /// Bytes of the puts that succeeded.
    pub bytes_put: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    counts: Counts,
    is_cut: bool,
    /// Objects deleted, but not durably, while [`Fault::UndoDeletes`] is set.
    undoable: Vec<(ObjectKey, Bytes)>,
}

/// A store that fails on request.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
}

/// The fate of one write.
enum Verdict {
    Works,
    /// The write reports success, but keeps only this.
    Loses(Leaves),
    Fails(Leaves, StoreError),
}

impl<S: Store> FaultyStore<S> {
    /// A store that works, and counts.
    pub fn new(inner: S) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// A store that dies at this write, without carrying it out.
    pub fn dying(inner: S, write: u64) -> Self {
        Self::new(inner).with(Fault::CutAtWrite { write, leaves: Leaves::Nothing })
    }

    /// The same store with one more fault.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        self.add(fault);
        self
    }

    /// Adds a fault.
    pub fn add(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Removes all faults, and brings the power back. The counts go on.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.is_cut = false;
    }

    /// Cuts the power for a moment: objects that were not deleted durably are back.
    ///
    /// # Errors
    /// If the store inside fails.
    pub fn cut_power(&self) -> Result<(), StoreError> {
        let undoable = std::mem::take(&mut self.state().undoable);
        undoable.into_iter().try_for_each(|(key, bytes)| self.inner.put(&key, bytes))
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The store inside, which never fails by itself.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The store inside, with everything that survived.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one operation, or fails it.
    fn operate(&self, action: &'static str, object: &dyn ToString) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.state();
        let number = state.counts.operations;
        state.counts.operations += 1;
        if state.is_cut {
            return Err(failed(action, object, "the power is cut"));
        }
        if state.faults.iter().any(|fault| matches!(fault, Fault::CutLineAt(from) if *from <= number)) {
            return Err(StoreError::Unreachable {
                action,
                object: object.to_string().into(),
                place: "far".to_owned(),
                source: io::ErrorKind::TimedOut.into(),
            });
        }
        if state.faults.contains(&Fault::FailAtOperation(number)) {
            return Err(failed(action, object, "this operation was to fail"));
        }
        Ok(state)
    }

    /// Counts one write, and decides its fate.
    fn judge_write(&self, action: &'static str, key: &ObjectKey, len: u64) -> Verdict {
        let mut state = match self.operate(action, key) {
            Ok(state) => state,
            Err(e) => return Verdict::Fails(Leaves::Nothing, e),
        };
        let number = state.counts.writes;
        state.counts.writes += 1;
        let bytes_after = state.counts.bytes_put + len;
        let mut verdict = Verdict::Works;
        let mut is_cut = false;
        for fault in &state.faults {
            match fault {
                Fault::CutAtWrite { write, leaves } if *write == number => {
                    is_cut = true;
                    verdict = Verdict::Fails(*leaves, failed(action, key, "the power was cut"));
                    break;
                }
                Fault::FailAtWrite { write, leaves } if *write == number => {
                    verdict = Verdict::Fails(*leaves, failed(action, key, "this write was to fail"));
                }
                Fault::FullAfter(bytes) if len > 0 && bytes_after > *bytes => {
                    verdict = Verdict::Fails(Leaves::Nothing, StoreError::Full { object: key.into() });
                }
                _ => {}
            }
        }
        state.is_cut |= is_cut;
        verdict
    }

    /// Counts one put, and returns what is kept of it if it is to be lost.
    fn lost_of_put(&self) -> Option<Leaves> {
        let mut state = self.state();
        let number = state.counts.puts;
        state.counts.puts += 1;
        state.faults.iter().find_map(|fault| match fault {
            Fault::LosesPut { put, leaves } if *put == number => Some(*leaves),
            Fault::LosesPutsFrom { put, leaves } if *put <= number => Some(*leaves),
            _ => None,
        })
    }

    /// Carries out a write other than a put, as far as the faults allow.
    fn write(
        &self,
        action: &'static str,
        key: &ObjectKey,
        work: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self.judge_write(action, key, 0) {
            Verdict::Works | Verdict::Loses(_) => work(),
            Verdict::Fails(Leaves::Whole, e) => work().and(Err(e)),
            Verdict::Fails(_, e) => Err(e),
        }
    }
}

impl<S: Store> FaultyStore<S> {
    /// Reads bytes, and flips a bit if a fault says so.
    fn read(&self, key: &ObjectKey, read: impl FnOnce() -> Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        let number = {
            let mut state = self.operate("read", key)?;
            state.counts.gets += 1;
            state.counts.gets - 1
        };
        let bytes = read()?;
        let mut state = self.state();
        state.counts.bytes_read += bytes.len() as u64;
        let flipped = state.faults.iter().find_map(|fault| match fault {
            Fault::FlipInGet { get, bit } if *get == number && !bytes.is_empty() => Some(*bit),
            _ => None,
        });
        Ok(match flipped {
            Some(bit) => {
                let mut bytes = bytes.to_vec();
                let bit = (bit % (bytes.len() as u64 * 8)) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes.into()
            }
            None => bytes,
        })
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let len = bytes.len();
        let verdict = match (self.judge_write("write", key, len as u64), self.lost_of_put()) {
            (Verdict::Works, Some(leaves)) => Verdict::Loses(leaves),
            (verdict, _) => verdict,
        };
        let done = match verdict {
            Verdict::Works | Verdict::Loses(Leaves::Whole) => self.inner.put(key, bytes),
            Verdict::Loses(Leaves::Nothing) => Ok(()),
            Verdict::Loses(Leaves::Half) => self.inner.put(key, bytes.slice(..len / 2)),
            Verdict::Fails(Leaves::Nothing, e) => Err(e),
            Verdict::Fails(Leaves::Half, e) => self.inner.put(key, bytes.slice(..len / 2)).and(Err(e)),
            Verdict::Fails(Leaves::Whole, e) => self.inner.put(key, bytes).and(Err(e)),
        };
        if done.is_ok() {
            self.state().counts.bytes_put += len as u64;
        }
        done
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.read(key, || self.inner.get_range(key, offset, len))
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.read(key, || self.inner.get(key, max))
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        drop(self.operate("read", key)?);
        self.inner.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let faults = self.operate("list", &kind.folder())?.faults.clone();
        let hidden: BTreeSet<ObjectKey> =
            faults.iter().filter_map(|fault| if let Fault::Hide(key) = fault { Some(*key) } else { None }).collect();
        let mut listed = Vec::new();
        self.inner.list(kind, &mut |entry| match entry {
            Listed::Object { name, .. } if hidden.contains(&ObjectKey::Named(kind, name)) => {}
            entry => listed.push(entry),
        })?;
        if faults.contains(&Fault::ReverseLists) {
            listed.reverse();
        }
        let cut = faults.iter().find_map(|fault| if let Fault::CutListsAfter(n) = fault { Some(*n) } else { None });
        for (number, entry) in listed.into_iter().enumerate() {
            if cut == Some(number as u64) {
                return Err(failed("list", &kind.folder(), "the list was to be cut"));
            }
            found(entry);
        }
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.write("delete", key, || {
            let undoes = self.state().faults.contains(&Fault::UndoDeletes);
            if undoes && let Ok(bytes) = self.inner.get(key, u64::MAX) {
                self.state().undoable.push((*key, bytes));
            }
            self.inner.delete(key)
        })
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.write("delete", key, || {
            self.inner.delete_durably(key)?;
            // Syncing the folder also makes earlier deletions in it durable.
            let same_folder = |other: &ObjectKey| match (other, key) {
                (ObjectKey::Named(other, _), ObjectKey::Named(kind, _)) if !kind.fans_out() => other == kind,
                _ => other == key,
            };
            self.state().undoable.retain(|(other, _)| !same_folder(other));
            Ok(())
        })
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.write("quarantine", key, || self.inner.quarantine(key))
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn folder(&self) -> Option<&Path> {
        self.inner.folder()
    }
}

fn failed(action: &'static str, object: &dyn ToString, why: &'static str) -> StoreError {
    StoreError::Io { action, object: object.to_string().into(), source: io::Error::other(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectName;
    use crate::store::testing::conformance::check_foreign;
    use crate::store::testing::conformance::check_store;
    use crate::store::testing::mem::MemStore;

    fn key(number: u8) -> ObjectKey {
        ObjectKey::Named(Kind::Pack, ObjectName::new([number; 16]))
    }

    /// Puts objects 0 to 3 of ten bytes each; compares the puts that succeeded and the lengths of the objects stored
    /// afterwards.
    fn check(fault: Fault, succeeded: &[u8], left: &[(u8, u64)]) {
        let store = FaultyStore::new(MemStore::new()).with(fault);
        let done: Vec<u8> = (0..4).filter(|&n| store.put(&key(n), Bytes::copy_from_slice(&[n; 10])).is_ok()).collect();
        assert_eq!(done, succeeded, "{store:?}");
        let found: Vec<_> = store.inner().objects().iter().map(|(k, bytes)| (*k, bytes.len() as u64)).collect();
        let expected: Vec<_> = left.iter().map(|(n, len)| (key(*n), *len)).collect();
        assert_eq!(found, expected, "{store:?}");
        assert_eq!(store.counts().operations, 4);
    }

    #[test]
    fn conforms_without_faults_and_with_lists_in_another_order() {
        check_store(|| FaultyStore::new(MemStore::new()));
        check_store(|| FaultyStore::new(MemStore::new()).with(Fault::ReverseLists));
        check_foreign(|| FaultyStore::new(MemStore::new()), |store, kind, name| store.inner().add_foreign(kind, name));
    }

    #[test]
    fn writes_fail_as_told() {
        use Leaves::Half;
        use Leaves::Nothing;
        use Leaves::Whole;
        check(Fault::CutAtWrite { write: 2, leaves: Nothing }, &[0, 1], &[(0, 10), (1, 10)]);
        check(Fault::CutAtWrite { write: 1, leaves: Whole }, &[0], &[(0, 10), (1, 10)]);
        check(Fault::CutAtWrite { write: 1, leaves: Half }, &[0], &[(0, 10), (1, 5)]);
        check(Fault::FailAtWrite { write: 1, leaves: Half }, &[0, 2, 3], &[(0, 10), (1, 5), (2, 10), (3, 10)]);
        check(Fault::FailAtWrite { write: 3, leaves: Whole }, &[0, 1, 2], &[(0, 10), (1, 10), (2, 10), (3, 10)]);
        check(Fault::FailAtOperation(1), &[0, 2, 3], &[(0, 10), (2, 10), (3, 10)]);
        check(Fault::FullAfter(29), &[0, 1], &[(0, 10), (1, 10)]);
        check(Fault::FullAfter(30), &[0, 1, 2], &[(0, 10), (1, 10), (2, 10)]);
    }

    #[test]
    fn after_a_cut_nothing_works_until_it_is_healed() {
        let store = FaultyStore::dying(MemStore::new(), 1);
        store.put(&key(0), Bytes::from_static(b"bytes")).unwrap();
        assert!(store.delete(&key(0)).is_err());
        assert!(store.get_range(&key(0), 0, 5).is_err());
        assert!(store.len(&key(0)).is_err());
        assert!(store.list(Kind::Pack, &mut |_| {}).is_err());
        store.heal();
        assert_eq!(store.get(&key(0), 5).unwrap(), b"bytes"[..]);
    }

    #[test]
    fn a_power_cut_brings_back_what_was_not_deleted_durably() {
        let store = FaultyStore::new(MemStore::new()).with(Fault::UndoDeletes);
        for number in 0..3 {
            store.put(&key(number), Bytes::copy_from_slice(&[number; 5])).unwrap();
        }
        store.delete(&key(0)).unwrap();
        store.delete_durably(&key(1)).unwrap();
        store.delete(&key(2)).unwrap();
        store.delete_durably(&key(2)).unwrap();
        store.cut_power().unwrap();
        assert_eq!(store.get(&key(0), 5).unwrap(), [0; 5][..]);
        assert!(store.len(&key(1)).is_err() && store.len(&key(2)).is_err());
    }

    #[test]
    fn reads_and_lists_lie_as_told() {
        let store = FaultyStore::new(MemStore::new())
            .with(Fault::FlipInGet { get: 1, bit: 9 })
            .with(Fault::Hide(key(1)))
            .with(Fault::CutListsAfter(2));
        for number in 0..3 {
            store.put(&key(number), Bytes::copy_from_slice(&[0; 2])).unwrap();
        }
        let read: Vec<_> = (0..3).map(|_| store.get_range(&key(0), 0, 2).unwrap()).collect();
        assert_eq!(read, [&[0, 0][..], &[0, 2], &[0, 0]]);
        let mut names = Vec::new();
        store.list(Kind::Pack, &mut |entry| names.push(entry)).unwrap();
        assert_eq!(names, [0, 2].map(|n| Listed::Object { name: ObjectName::new([n; 16]), len: 2 }));
        store.put(&key(3), Bytes::new()).unwrap();
        assert!(store.list(Kind::Pack, &mut |_| {}).is_err(), "a list that is not whole is an error");
    }
}
