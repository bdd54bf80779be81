//! The suite that every implementation of a store must pass.

use bytes::Bytes;

use crate::id::ObjectName;
use crate::store::Kind;
use crate::store::Listed;
use crate::store::ObjectKey;
use crate::store::Pending;
use crate::store::Store;
use crate::store::StoreError;

/// The key of an object of a kind; different numbers give different names, also in their first digits.
pub fn key(kind: Kind, number: u32) -> ObjectKey {
    let mut bytes = [0xA5; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    ObjectKey::Named(kind, ObjectName::new(bytes))
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Everything in a kind's folder, sorted.
pub fn list(store: &impl Store, kind: Kind) -> (Vec<(ObjectName, u64)>, Vec<String>) {
    let (mut objects, mut foreign) = (Vec::new(), Vec::new());
    store
        .list(kind, &mut |entry| match entry {
            Listed::Object { name, len } => objects.push((name, len)),
            Listed::Foreign(path) => foreign.push(path),
        })
        .unwrap();
    objects.sort();
    foreign.sort();
    (objects, foreign)
}

/// Runs the suite; `make` makes an empty store.
pub fn check_store<S: Store>(make: impl Fn() -> S) {
    an_empty_store_is_empty(&make());
    what_is_put_is_read(&make());
    an_object_is_never_replaced(&make());
    a_put_in_two_halves_is_a_put(&make());
    ranges_are_exact(&make());
    a_whole_object_is_read_up_to_a_limit(&make());
    what_is_missing_is_named(&make());
    lists_are_whole(&make());
    one_list_of_all_is_the_lists_of_each(&make());
    what_is_held_is_compared(&make());
    many_deletions_are_each_told(&make());
    deleted_objects_are_gone(&make());
    durably_deleted_objects_are_gone(&make());
    quarantined_objects_are_out_of_the_way(&make());
    big_objects_are_kept(&make());
    many_threads_work_at_once(&make());
    one_of_many_puts_of_a_name_wins(&make());
}

fn a_put_in_two_halves_is_a_put<S: Store>(store: &S) {
    let (one, two) = (key(Kind::Pack, 1), key(Kind::Pack, 2));
    let first = store.begin_put(&one, Bytes::from_static(b"one")).unwrap();
    let second = store.begin_put(&two, Bytes::from_static(b"two")).unwrap();
    second.finish().unwrap();
    first.finish().unwrap();
    assert_eq!(store.get_range(&one, 0, 3).unwrap(), b"one"[..]);
    assert_eq!(store.get_range(&two, 0, 3).unwrap(), b"two"[..]);
    let again = store.begin_put(&one, Bytes::from_static(b"new")).and_then(Pending::finish);
    assert!(matches!(again, Err(StoreError::Exists { .. })), "{again:?}");
    assert_eq!(store.get_range(&one, 0, 3).unwrap(), b"one"[..]);
}

/// Runs the part of the suite about files that vault did not put into the store; `plant` makes such a file at a path
/// below a kind's folder.
pub fn check_foreign<S: Store>(make: impl Fn() -> S, plant: impl Fn(&S, Kind, &str)) {
    let store = make();
    let hex = "00112233445566778899aabbccddeeff";
    store.put(&key(Kind::Pack, 1), Bytes::from_static(b"pack")).unwrap();
    store.put(&key(Kind::Log, 1), Bytes::from_static(b"log")).unwrap();
    let log =
        ["desktop.ini".to_owned(), format!("{hex} (conflicted copy)"), hex[1..].to_owned(), format!("{hex}.part")];
    for name in &log {
        plant(&store, Kind::Log, name);
    }
    plant(&store, Kind::Pack, &format!("00/{} (conflicted copy)", &hex[1..]));
    let expected = |folder: &str, names: &[String]| -> Vec<String> {
        let mut paths: Vec<_> = names.iter().map(|name| format!("{folder}/{name}")).collect();
        paths.sort();
        paths
    };
    let (objects, foreign) = list(&store, Kind::Log);
    assert_eq!(objects.len(), 1);
    assert_eq!(foreign, expected("log", &log));
    let (objects, foreign) = list(&store, Kind::Pack);
    assert_eq!(objects.len(), 1);
    assert_eq!(foreign, expected("packs", &[format!("00/{} (conflicted copy)", &hex[1..])]));
}

fn an_empty_store_is_empty(store: &impl Store) {
    for kind in Kind::ALL {
        assert_eq!(list(store, kind), (vec![], vec![]));
    }
    assert!(matches!(store.len(&ObjectKey::Vault), Err(StoreError::Missing { .. })));
    assert!(!store.place().is_empty());
}

fn what_is_put_is_read(store: &impl Store) {
    let keys = Kind::ALL.map(|kind| key(kind, 7)).into_iter().chain([ObjectKey::Vault]);
    for (number, key) in keys.enumerate() {
        let bytes = pattern(1000 + number);
        store.put(&key, Bytes::copy_from_slice(&bytes)).unwrap();
        assert_eq!(store.len(&key).unwrap(), bytes.len() as u64, "{key}");
        assert_eq!(store.get(&key, 2000).unwrap(), bytes, "{key}");
        assert!(store.get(&key, 999).is_err(), "{key}: the bound holds");
    }
    store.put(&key(Kind::Meta, 8), Bytes::from_static(b"")).unwrap();
    assert_eq!(store.len(&key(Kind::Meta, 8)).unwrap(), 0);
    assert_eq!(store.get(&key(Kind::Meta, 8), 0).unwrap(), b""[..]);
}

fn an_object_is_never_replaced(store: &impl Store) {
    for key in [ObjectKey::Vault, key(Kind::Key, 1), key(Kind::Pack, 1)] {
        store.put(&key, Bytes::from_static(b"first")).unwrap();
        for bytes in [&b"second, longer"[..], b"first", b""] {
            let error = store.put(&key, Bytes::from_static(bytes)).unwrap_err();
            assert!(matches!(&error, StoreError::Exists { object } if *object == (&key).into()), "{error:?}");
        }
        assert_eq!(store.get(&key, 100).unwrap(), b"first"[..]);
    }
    let name = ObjectName::new([3; 16]);
    store.put(&ObjectKey::Named(Kind::Pack, name), Bytes::from_static(b"pack")).unwrap();
    store.put(&ObjectKey::Named(Kind::Meta, name), Bytes::from_static(b"meta")).unwrap();
    assert_eq!(store.get(&ObjectKey::Named(Kind::Pack, name), 9).unwrap(), b"pack"[..], "kinds are apart");
}

fn ranges_are_exact(store: &impl Store) {
    let key = key(Kind::Pack, 2);
    let bytes = pattern(10_000);
    store.put(&key, Bytes::copy_from_slice(&bytes)).unwrap();
    for (offset, len) in [(0, 0), (0, 1), (0, 10_000), (1, 9_999), (4095, 2), (9_999, 1), (10_000, 0)] {
        assert_eq!(store.get_range(&key, offset, len).unwrap(), bytes[offset as usize..][..len], "{offset}+{len}");
    }
    for (offset, len) in [(0, 10_001), (10_000, 1), (10_001, 0), (u64::MAX, 1), (5, usize::MAX)] {
        let error = store.get_range(&key, offset, len).unwrap_err();
        let need_expected = offset.saturating_add(len as u64);
        assert!(
            matches!(&error, StoreError::Short { object, need, have: 10_000 }
                if *object == (&key).into() && *need == need_expected),
            "{offset}+{len}: {error:?}"
        );
    }
}

fn a_whole_object_is_read_up_to_a_limit(store: &impl Store) {
    let key = key(Kind::Log, 3);
    let bytes = Bytes::from(pattern(1000));
    store.put(&key, bytes.clone()).unwrap();
    for max in [1000, 1001, u64::MAX] {
        assert_eq!(store.get(&key, max).unwrap(), bytes);
    }
    for max in [0, 999] {
        let error = store.get(&key, max).unwrap_err();
        assert!(matches!(error, StoreError::Long { have: 1000, .. }), "{error:?}");
    }
}

fn what_is_missing_is_named(store: &impl Store) {
    store.put(&key(Kind::Pack, 1), Bytes::from_static(b"another")).unwrap();
    for key in [ObjectKey::Vault, key(Kind::Key, 9), key(Kind::Pack, 0x0101), key(Kind::Meta, 9), key(Kind::Log, 9)] {
        let errors = [
            store.get_range(&key, 0, 1).map(drop).unwrap_err(),
            store.get_range(&key, 0, 0).map(drop).unwrap_err(),
            store.len(&key).map(drop).unwrap_err(),
            store.get(&key, 10).map(drop).unwrap_err(),
            store.quarantine(&key).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(&error, StoreError::Missing { object } if *object == (&key).into()), "{error:?}");
        }
    }
}

fn lists_are_whole(store: &impl Store) {
    store.put(&ObjectKey::Vault, Bytes::from_static(b"not listed")).unwrap();
    for kind in Kind::ALL {
        for number in 0..50 {
            store.put(&key(kind, number), Bytes::copy_from_slice(&pattern(number as usize))).unwrap();
        }
    }
    for kind in Kind::ALL {
        let (objects, foreign) = list(store, kind);
        assert_eq!(foreign, Vec::<String>::new());
        assert_eq!(objects.len(), 50);
        for (name, len) in objects {
            assert_eq!(store.len(&ObjectKey::Named(kind, name)).unwrap(), len);
        }
    }
    // The callback may use the store.
    let mut count = 0;
    store
        .list(Kind::Log, &mut |entry| {
            if let Listed::Object { name, .. } = entry {
                store.delete(&ObjectKey::Named(Kind::Log, name)).unwrap();
                count += 1;
            }
        })
        .unwrap();
    assert!(count > 0);
}

fn one_list_of_all_is_the_lists_of_each(store: &impl Store) {
    for (kind, count) in [(Kind::Key, 2), (Kind::Log, 3), (Kind::Pack, 300), (Kind::Meta, 0)] {
        for number in 0..count {
            store.put(&key(kind, number), Bytes::from_static(b"x")).unwrap();
        }
    }
    let kinds = [Kind::Log, Kind::Meta, Kind::Pack];
    let mut found = Vec::new();
    store.list_all(&kinds, &mut |kind, listed| found.push((kind, listed))).unwrap();
    let place = |kind: &Kind| kinds.iter().position(|other| other == kind);
    assert!(found.is_sorted_by_key(|(kind, _)| place(kind)), "in the order that was asked for");
    for kind in kinds {
        let of_kind = found.iter().filter(|(other, _)| *other == kind);
        let mut objects: Vec<(ObjectName, u64)> = of_kind
            .map(|(_, listed)| match listed {
                Listed::Object { name, len } => (*name, *len),
                Listed::Foreign(path) => panic!("{path}"),
            })
            .collect();
        objects.sort();
        assert_eq!(objects, list(store, kind).0, "{kind:?}");
    }
    assert_eq!(found.len(), 303);
}

fn what_is_held_is_compared(store: &impl Store) {
    let key = key(Kind::Log, 1);
    let held = |bytes: &'static [u8]| store.holds(&key, &Bytes::from_static(bytes)).unwrap();
    assert!(!held(b"bytes") && !held(b""));
    store.put(&key, Bytes::from_static(b"bytes")).unwrap();
    assert!(held(b"bytes"));
    for other in [&b""[..], b"byte", b"bytes2", b"bytez"] {
        assert!(!held(other), "{other:?}");
    }
}

fn many_deletions_are_each_told(store: &impl Store) {
    let keys: Vec<ObjectKey> = (0..50).map(|number| key(Kind::Pack, number)).collect();
    for key in &keys[..45] {
        store.put(key, Bytes::from_static(b"x")).unwrap();
    }
    let mut told = Vec::new();
    // Deleting an object that does not exist succeeds as well.
    store.delete_many(&keys[5..], &mut |key| told.push(*key)).unwrap();
    told.sort();
    let mut expected = keys[5..].to_vec();
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!(list(store, Kind::Pack).0.len(), 5);
    store.delete_many(&[], &mut |_| panic!("nothing is deleted")).unwrap();
}

fn deleted_objects_are_gone(store: &impl Store) {
    for key in [ObjectKey::Vault, key(Kind::Pack, 1), key(Kind::Log, 1)] {
        store.delete(&key).unwrap();
        store.put(&key, Bytes::from_static(b"bytes")).unwrap();
        assert_eq!(store.get(&key, 10).unwrap(), b"bytes"[..]);
        store.delete(&key).unwrap();
        assert!(matches!(store.get(&key, 10), Err(StoreError::Missing { .. })), "{key}");
        assert!(matches!(store.get_range(&key, 0, 1), Err(StoreError::Missing { .. })), "{key}");
        store.delete(&key).unwrap();
        store.put(&key, Bytes::from_static(b"again")).unwrap();
        assert_eq!(store.get_range(&key, 0, 5).unwrap(), b"again"[..], "{key}");
    }
}

fn durably_deleted_objects_are_gone(store: &impl Store) {
    for key in [ObjectKey::Vault, key(Kind::Key, 1), key(Kind::Pack, 1), key(Kind::Log, 1)] {
        store.delete_durably(&key).unwrap();
        store.put(&key, Bytes::from_static(b"bytes")).unwrap();
        store.delete_durably(&key).unwrap();
        assert!(matches!(store.get(&key, 10), Err(StoreError::Missing { .. })), "{key}");
        store.put(&key, Bytes::from_static(b"again")).unwrap();
        store.delete(&key).unwrap();
        store.delete_durably(&key).unwrap();
        assert!(matches!(store.len(&key), Err(StoreError::Missing { .. })), "{key}");
    }
}

fn quarantined_objects_are_out_of_the_way(store: &impl Store) {
    for kind in Kind::ALL {
        let key = key(kind, 5);
        for bytes in [&b"one"[..], b"two", b"three"] {
            store.put(&key, Bytes::from_static(bytes)).unwrap();
            assert_eq!(store.get(&key, 10).unwrap(), bytes);
            store.quarantine(&key).unwrap();
            assert!(matches!(store.get_range(&key, 0, 1), Err(StoreError::Missing { .. })));
        }
        assert_eq!(list(store, kind), (vec![], vec![]));
    }
    store.put(&ObjectKey::Vault, Bytes::from_static(b"vault")).unwrap();
    store.quarantine(&ObjectKey::Vault).unwrap();
    assert!(matches!(store.len(&ObjectKey::Vault), Err(StoreError::Missing { .. })));
}

fn big_objects_are_kept(store: &impl Store) {
    let bytes = pattern(33 << 10).repeat(1 << 10);
    let key = key(Kind::Pack, 6);
    store.put(&key, Bytes::copy_from_slice(&bytes)).unwrap();
    assert!(store.get(&key, u64::MAX).unwrap() == bytes);
    assert!(store.get_range(&key, (32 << 20) - 7, 1 << 20).unwrap() == bytes[(32 << 20) - 7..][..1 << 20]);
}

fn many_threads_work_at_once(store: &impl Store) {
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            scope.spawn(move || {
                for number in 0..25 {
                    let own = key(Kind::Pack, thread * 1000 + number);
                    let bytes = pattern(500 + thread as usize);
                    store.put(&own, Bytes::copy_from_slice(&bytes)).unwrap();
                    assert_eq!(store.get_range(&own, 100, 400).unwrap(), bytes[100..500]);
                    if number % 5 == 0 {
                        store.delete(&own).unwrap();
                    }
                    if number % 10 == 1 {
                        store.list(Kind::Pack, &mut |_| {}).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(list(store, Kind::Pack).0.len(), 8 * 20);
}

fn one_of_many_puts_of_a_name_wins(store: &impl Store) {
    let key = key(Kind::Log, 1);
    let won: Vec<u8> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|n| scope.spawn(move || (n, store.put(&key, Bytes::copy_from_slice(&[n; 100]))))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).filter(|(_, done)| done.is_ok()).map(|(n, _)| n).collect()
    });
    assert_eq!(won.len(), 1);
    assert_eq!(store.get(&key, 100).unwrap(), [won[0]; 100][..]);
    assert_eq!(list(store, Kind::Log).0.len(), 1);
}
