//! Proof that a store has kept an object that it reported as written. Some stores answer well, but lose an object or
//! keep only a part. The name and length of each object show that, looked up after the put and before anything relies
//! on it. This file decides which objects count as kept, and what to do about the others.

use bytes::Bytes;

use crate::store::{ObjectKey, Store, StoreError};

/// An object that a store reported as written.
#[derive(Debug, Clone)]
pub struct Given {
    /// The object's key.
    pub key: ObjectKey,
    /// The bytes that were put.
    pub bytes: Bytes,
}

/// Whether an object that was put with this length is kept. `there` is its length in the store now; `None` if it does
/// not exist.
pub fn is_kept(put: u64, there: Option<u64>) -> bool {
    there == Some(put)
}

/// Checks that the store has an object that was put with this length. `listed` is its length in a list taken after
/// the put. If that is missing or differs, the store is asked about this object alone, since a list may lag. Returns
/// the error to report if the object is not kept.
///
/// # Errors
/// If the store fails.
pub fn look_for(
    store: &dyn Store,
    key: &ObjectKey,
    need: u64,
    listed: Option<u64>,
) -> Result<Result<(), StoreError>, StoreError> {
    if is_kept(need, listed) {
        return Ok(Ok(()));
    }
    let have = match store.len(key) {
        Ok(len) => Some(len),
        Err(StoreError::Missing { .. }) => None,
        Err(error) => return Err(error),
    };
    let not_kept = || StoreError::NotKept { object: key.into(), place: store.place(), need, have };
    Ok(if is_kept(need, have) { Ok(()) } else { Err(not_kept()) })
}

/// Makes sure that the store has an object that it reported as written. Checks as [`look_for`] does, and if the
/// object is missing, puts the same bytes under the same name again. A partial object in its place is deleted first.
///
/// # Errors
/// [`StoreError::NotKept`] if the store does not keep the object this time either; or if it fails.
pub fn prove(store: &dyn Store, given: &Given, listed: Option<u64>) -> Result<(), StoreError> {
    let need = given.bytes.len() as u64;
    let Err(lost) = look_for(store, &given.key, need, listed)? else { return Ok(()) };
    if matches!(lost, StoreError::NotKept { have: Some(_), .. }) {
        // An object's name is random, so nobody else has put this one; but VAULT may be another vault's.
        if given.key == ObjectKey::Vault {
            return Err(lost);
        }
        match store.delete(&given.key) {
            Err(StoreError::Denied { .. }) => return Err(lost),
            done => done?,
        }
    }
    match store.put(&given.key, given.bytes.clone()) {
        Ok(()) | Err(StoreError::Exists { .. }) => {}
        Err(error) => return Err(error),
    }
    let done = look_for(store, &given.key, need, None)?;
    if matches!(done, Err(StoreError::NotKept { have: Some(_), .. })) && given.key != ObjectKey::Vault {
        // A partial object is in everybody's way. If it cannot be deleted, it stays, and a check reports it.
        let _ = store.delete(&given.key);
    }
    done
}

/// Puts an object, and checks that the store has kept it. Objects that are put together are checked together: by
/// [`prove`].
///
/// # Errors
/// As [`Store::put`] and [`prove`].
pub fn put_proven(store: &dyn Store, key: ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
    store.put(&key, bytes.clone())?;
    prove(store, &Given { key, bytes }, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;
    use crate::store::testing::conformance::key;
    use crate::store::testing::faulty::{Fault, FaultyStore, Leaves};
    use crate::store::testing::mem::MemStore;

    fn given(key: ObjectKey) -> Given {
        Given { key, bytes: Bytes::from_static(b"what is put") }
    }

    /// A store that reports its first `puts` puts as written, but keeps only what `leaves` says of them.
    fn losing(puts: u64, leaves: Leaves) -> FaultyStore<MemStore> {
        (0..puts).fold(FaultyStore::new(MemStore::new()), |store, put| store.with(Fault::LosesPut { put, leaves }))
    }

    #[test]
    fn what_is_lost_is_put_again_and_what_is_lost_again_is_told() {
        for (leaves, have) in [(Leaves::Nothing, None), (Leaves::Half, Some(5))] {
            let given = given(key(Kind::Log, 1));
            let store = losing(1, leaves);
            store.put(&given.key, given.bytes.clone()).unwrap();
            prove(&store, &given, have).unwrap();
            assert_eq!(store.get(&given.key, 100).unwrap(), given.bytes, "{leaves:?}");
            let store = losing(2, leaves);
            store.put(&given.key, given.bytes.clone()).unwrap();
            let told = prove(&store, &given, None).unwrap_err();
            assert!(matches!(&told, StoreError::NotKept { need: 11, have: found, .. } if *found == have), "{told:?}");
            assert!(told.is_of_whole(), "it is no damage of an object");
        }
    }

    #[test]
    fn what_is_listed_as_it_was_put_costs_nothing_and_a_list_that_lags_is_not_believed() {
        let store = FaultyStore::new(MemStore::new());
        let given = given(key(Kind::Key, 1));
        store.put(&given.key, given.bytes.clone()).unwrap();
        let before = store.counts().operations;
        prove(&store, &given, Some(11)).unwrap();
        assert_eq!(store.counts().operations, before);
        prove(&store, &given, None).unwrap();
        assert_eq!((store.counts().operations, store.counts().writes), (before + 1, 1));
    }

    #[test]
    fn the_vault_file_of_another_is_left_alone() {
        let store = MemStore::new();
        store.put(&ObjectKey::Vault, Bytes::from_static(b"another's")).unwrap();
        assert!(matches!(prove(&store, &given(ObjectKey::Vault), None), Err(StoreError::NotKept { .. })));
        assert_eq!(store.get(&ObjectKey::Vault, 100).unwrap(), b"another's"[..]);
    }
}
