//! Tests of a place's behaviour, before a vault is trusted to it.
//!
//! The test objects are of the kind on which nothing depends, and are deleted again.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use crate::id::ObjectName;
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, Told};
use crate::sync::try_share;

/// The number of times that listings are checked for a put and a deletion.
pub const ROUNDS: usize = 10;
/// The number of requests whose shortest time counts as a round trip.
const TRIPS: usize = 5;
/// Bytes that are put to measure the speed. If they take less than `QUICK`, `OBJECTS` objects of `MANY` bytes are put
/// as well.
const FEW: usize = 256 << 10;
const QUICK: Duration = Duration::from_millis(500);
const OBJECTS: usize = 4;
const MANY: usize = 4 << 20;

/// Whether listings show puts and deletions at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listings {
    /// Each put was listed.
    pub show_puts: bool,
    /// No deleted object was listed. `None` if nothing may be deleted.
    pub show_deletions: Option<bool>,
}

impl Listings {
    /// Whether listings are up to date, so that all machines see at once what one has done.
    pub const fn are_current(&self) -> bool {
        self.show_puts && !matches!(self.show_deletions, Some(false))
    }
}

/// The findings about a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// Whether an object reads back as it was put.
    pub is_kept: bool,
    /// Whether a part of an object reads back correctly.
    pub gives_parts: bool,
    /// Whether a second put of a name fails, and changes nothing.
    pub is_exclusive: bool,
    /// The behaviour of listings.
    pub listings: Listings,
    /// The shortest time of a small request.
    pub round_trip: Duration,
    /// The bytes that were put, and the time that they took.
    pub up: (u64, Duration),
    /// The bytes that were read, and the time that they took.
    pub down: (u64, Duration),
    /// The store's clock, in seconds since 1970, if the place reports it.
    pub time: Option<i64>,
    /// Properties that only the place's protocol shows.
    pub told: Told,
}

/// The means that the tests need from outside.
pub struct Means<'m> {
    /// A new name each time.
    pub name: &'m mut dyn FnMut() -> ObjectName,
    /// The time since a fixed moment.
    pub clock: &'m dyn Fn() -> Duration,
}

fn is_listed(store: &dyn Store, wanted: &ObjectKey) -> Result<bool, StoreError> {
    let mut found = false;
    store.list(Kind::Index, &mut |listed| {
        found |= matches!(listed, Listed::Object { name, .. } if ObjectKey::Named(Kind::Index, name) == *wanted);
    })?;
    Ok(found)
}

/// Puts an object, lists, deletes it, and lists again, several times. Where nothing may be deleted, one object stays.
///
/// # Errors
/// If the store fails.
pub fn look_at_listings(
    store: &dyn Store,
    rounds: usize,
    name: &mut dyn FnMut() -> ObjectName,
) -> Result<Listings, StoreError> {
    let mut listings = Listings { show_puts: true, show_deletions: Some(true) };
    for _ in 0..rounds {
        let key = ObjectKey::Named(Kind::Index, name());
        store.put(&key, Bytes::from_static(b"put by vault to see what this place does; may be deleted"))?;
        listings.show_puts &= is_listed(store, &key)?;
        match store.delete(&key) {
            Ok(()) if is_listed(store, &key)? => listings.show_deletions = Some(false),
            Ok(()) => {}
            Err(StoreError::Denied { .. }) => {
                listings.show_deletions = None;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listings)
}

/// Bytes that no compression shortens, different for each number.
fn noise(number: usize, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&(number as u64).to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Runs all tests. Where nothing may be deleted, a few small objects stay, and nothing large is put.
///
/// # Errors
/// If the store fails.
pub fn try_out(store: &dyn Store, means: &mut Means<'_>) -> Result<Findings, StoreError> {
    let listings = look_at_listings(store, ROUNDS, means.name)?;
    let may_delete = listings.show_deletions.is_some();
    let mut put = Vec::new();
    let done = measure(store, means, listings, &mut put);
    if may_delete {
        let cleared = store.delete_many(&put, &mut |_| {});
        let findings = done?;
        cleared?;
        return Ok(findings);
    }
    done
}

fn measure(
    store: &dyn Store,
    means: &mut Means<'_>,
    listings: Listings,
    put: &mut Vec<ObjectKey>,
) -> Result<Findings, StoreError> {
    let mut new = |put: &mut Vec<ObjectKey>| {
        let key = ObjectKey::Named(Kind::Index, (means.name)());
        put.push(key);
        key
    };
    let first = new(put);
    let bytes = noise(0, FEW);
    let begun = (means.clock)();
    store.put(&first, bytes.clone())?;
    let up_few = (means.clock)().saturating_sub(begun);
    let begun = (means.clock)();
    let back = store.get(&first, FEW as u64)?;
    let down_few = (means.clock)().saturating_sub(begun);
    let mut is_kept = back == bytes && store.len(&first)? == FEW as u64;
    let part = store.get_range(&first, 100, 1000)?;
    let end = store.get_range(&first, FEW as u64 - 10, 10)?;
    let gives_parts = part == bytes[100..1100] && end == bytes[FEW - 10..];
    let is_exclusive = match store.put(&first, noise(1, 1000)) {
        Err(StoreError::Exists { .. }) => store.get(&first, FEW as u64)? == bytes,
        Ok(()) => false,
        Err(error) => return Err(error),
    };
    let mut round_trip = Duration::MAX;
    for _ in 0..TRIPS {
        let begun = (means.clock)();
        store.len(&first)?;
        round_trip = round_trip.min((means.clock)().saturating_sub(begun));
    }
    let (mut up, mut down) = ((FEW as u64, up_few), (FEW as u64, down_few));
    if listings.show_deletions.is_some() && up_few.max(down_few) < QUICK + round_trip {
        let many: Vec<(ObjectKey, Bytes)> = (0..OBJECTS).map(|number| (new(put), noise(number + 2, MANY))).collect();
        let sum = (OBJECTS * MANY) as u64;
        let begun = (means.clock)();
        try_share(many.len(), store.limits().writes, |at| store.put(&many[at].0, many[at].1.clone()))?;
        up = (sum, (means.clock)().saturating_sub(begun));
        let begun = (means.clock)();
        let same = try_share(many.len(), store.limits().reads, |at| {
            store.get(&many[at].0, MANY as u64).map(|bytes| bytes == many[at].1)
        })?;
        down = (sum, (means.clock)().saturating_sub(begun));
        is_kept &= same.into_iter().all(|same| same);
        let mut found = HashSet::new();
        store.list(Kind::Index, &mut |listed| {
            if let Listed::Object { name, len } = listed {
                found.insert((name, len));
            }
        })?;
        is_kept &= many.iter().all(
            |(key, bytes)| matches!(key, ObjectKey::Named(_, name) if found.contains(&(*name, bytes.len() as u64))),
        );
    }
    let told = store.told(&new(put), &noise(OBJECTS + 2, 1000))?;
    let time = store.told_time();
    Ok(Findings { is_kept, gives_parts, is_exclusive, listings, round_trip, up, down, time, told })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::testing::mem::MemStore;

    fn tried(store: &dyn Store) -> Findings {
        let (mut number, time) = (0_u8, Cell::new(0));
        let mut name = || {
            number += 1;
            ObjectName::new([number; 16])
        };
        let clock = || {
            time.set(time.get() + 1);
            Duration::from_millis(time.get())
        };
        try_out(store, &mut Means { name: &mut name, clock: &clock }).unwrap()
    }

    #[test]
    fn a_sound_place_is_found_sound_and_left_empty() {
        let store = MemStore::new();
        let found = tried(&store);
        assert!(found.is_kept && found.gives_parts && found.is_exclusive, "{found:?}");
        assert!(found.listings.are_current() && found.listings.show_deletions == Some(true));
        assert_eq!((found.up.0, found.down.0), (16 << 20, 16 << 20));
        assert_eq!(found.round_trip, Duration::from_millis(1));
        assert!(!is_listed(&store, &ObjectKey::Named(Kind::Index, ObjectName::new([1; 16]))).unwrap());
        let mut left = 0;
        store.list(Kind::Index, &mut |_| left += 1).unwrap();
        assert_eq!(left, 0);
    }
}
