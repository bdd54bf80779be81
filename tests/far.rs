//! Stores on other machines: each answer of a server means what it must, nothing that the line does is taken for damage, and a
//! vault lives there as it does in a folder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vault::store::place::Address;
use vault::store::remote::{Policy, Settings, Surroundings, open};
use vault::store::testing::conformance::{check_foreign, check_store, key, list};
use vault::store::{Delivery, Kind, Listed, ObjectKey, Pending, Store, StoreError, StoreLimits};

use crate::support::s3::{FakeS3, Fault, KEY, Op};

/// Surroundings in which waiting takes no time.
#[derive(Default)]
pub struct Quick {
    begun: Mutex<Option<Instant>>,
    skipped: AtomicU64,
    seed: AtomicU64,
    stops: AtomicBool,
    pub told: Mutex<Vec<String>>,
}

impl Quick {
    fn new() -> Arc<Self> {
        let quick = Self::default();
        *quick.begun.lock().unwrap() = Some(Instant::now());
        Arc::new(quick)
    }

    /// How long was waited.
    fn waited(&self) -> Duration {
        Duration::from_nanos(self.skipped.load(Relaxed))
    }
}

impl Surroundings for Quick {
    fn now(&self) -> Duration {
        self.begun.lock().unwrap().unwrap().elapsed() + self.waited()
    }

    fn wait(&self, time: Duration) {
        self.skipped.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stops.load(Relaxed)
    }

    fn random(&self) -> u64 {
        self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed)
    }

    fn tell(&self, what: &str) {
        self.told.lock().unwrap().push(what.to_owned());
    }
}

/// The store at an address, opened with credentials that the servers of the tests take.
fn opened(address: &str, surroundings: Arc<Quick>, policy: Policy) -> Arc<dyn Store> {
    let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let settings = Settings { variables, home: None, policy };
    let address = Address::parse(address).unwrap().unwrap();
    open(&address, &settings, surroundings).unwrap()
}

/// A store of the suite, which takes stores by value.
#[derive(Debug, Clone)]
struct Shared(Arc<dyn Store>);

impl Store for Shared {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.0.put(key, bytes)
    }

    fn begin_put<'s>(&'s self, key: &ObjectKey, bytes: Bytes) -> Result<Pending<'s>, StoreError> {
        self.0.begin_put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.0.get_range(key, offset, len)
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.0.get(key, max)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.0.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.0.list(kind, found)
    }

    fn list_all(&self, kinds: &[Kind], found: &mut dyn FnMut(Kind, Listed)) -> Result<(), StoreError> {
        self.0.list_all(kinds, found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.0.delete(key)
    }

    fn delete_many(&self, keys: &[ObjectKey], deleted: &mut dyn FnMut(&ObjectKey)) -> Result<(), StoreError> {
        self.0.delete_many(keys, deleted)
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.0.delete_durably(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.0.quarantine(key)
    }

    fn limits(&self) -> StoreLimits {
        self.0.limits()
    }

    fn place(&self) -> String {
        self.0.place()
    }

    fn holds(&self, key: &ObjectKey, bytes: &Bytes) -> Result<bool, StoreError> {
        self.0.holds(key, bytes)
    }
}

/// Stores at addresses, each a new one.
fn new_stores(address: impl Fn(usize) -> String) -> impl Fn() -> Shared {
    let next = AtomicUsize::new(0);
    let quick = Quick::new();
    move || Shared(opened(&address(next.fetch_add(1, Relaxed)), quick.clone(), Policy::default()))
}

#[test]
fn object_stores_conform() {
    let server = FakeS3::start(40);
    check_store(new_stores(|number| server.vault(&format!("v{number}"))));
    check_foreign(new_stores(|number| server.vault(&format!("foreign{number}/below"))), |store, kind, name| {
        let place = store.place();
        let below = place.split_once("/bucket/").unwrap().1;
        server.plant(&format!("{below}/{}/{name}", kind.folder()), b"foreign");
    });
}
