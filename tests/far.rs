//! Tests of stores on other machines: each answer of a server is understood correctly, trouble of the line is never
//! taken for damage, and a vault lives there as it does in a folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vault::engine::check::{CheckOptions, check};
use vault::engine::prune::prune;
use vault::progress::Silent;
use vault::store::place::Address;
use vault::store::remote::{Policy, Settings, Surroundings, open};
use vault::store::testing::conformance::{check_foreign, check_store, key, list};
use vault::store::{Kind, Listed, ObjectKey, Pending, Store, StoreError, StoreLimits};
use vault::vault::Vault;

use crate::support::binary::{Desk, said};
use crate::support::s3::{FakeS3, Fault, KEY, Op};
use crate::support::source::{Rng, bytes};
#[cfg(unix)]
use crate::support::ssh::Sshd;
use crate::support::weed::{KEYS, Weed};
use crate::support::{THREADS, campaign, create_vault, now, open_vault, scratch, small_chunks, take, to_last};

/// Surroundings in which waiting takes no time.
#[derive(Default)]
pub struct Quick {
    begun: Mutex<Option<Instant>>,
    skipped: AtomicU64,
    seed: AtomicU64,
    pub stops: AtomicBool,
    pub told: Mutex<Vec<String>>,
}

impl Quick {
    pub fn new() -> Arc<Self> {
        let quick = Self::default();
        *quick.begun.lock().unwrap() = Some(Instant::now());
        Arc::new(quick)
    }

    /// The total time waited.
    pub fn waited(&self) -> Duration {
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

/// The store at an address, opened with credentials that the test servers accept.
fn opened(address: &str, surroundings: Arc<Quick>, policy: Policy) -> Arc<dyn Store> {
    opened_with(address, surroundings, policy, &[("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "secret")])
}

/// As above, with these variables.
pub fn opened_with(
    address: &str,
    surroundings: Arc<Quick>,
    policy: Policy,
    variables: &[(&str, &str)],
) -> Arc<dyn Store> {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let settings = Settings { variables, policy, ..Settings::default() };
    let address = Address::parse(address).unwrap().unwrap();
    open(&address, &settings, surroundings).unwrap()
}

/// A shared store for the suite, which takes stores by value.
#[derive(Debug, Clone)]
pub struct Shared(pub Arc<dyn Store>);

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

/// Makes stores at addresses, each a new one.
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

/// The expected outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    Missing,
    Exists,
    Short,
    Full,
    Denied,
    Unusable,
    Gone,
    Unreachable,
}

pub fn end<T>(done: Result<T, StoreError>) -> End {
    match done {
        Ok(_) => End::Done,
        Err(StoreError::Missing { .. }) => End::Missing,
        Err(StoreError::Exists { .. }) => End::Exists,
        Err(StoreError::Short { have: 1000, .. }) => End::Short,
        Err(StoreError::Full { .. }) => End::Full,
        Err(error @ StoreError::Denied { .. }) => {
            assert!(!error.is_of_whole() && error.key().is_some(), "{error:?}");
            End::Denied
        }
        Err(error @ StoreError::Unusable { .. }) if error.is_of_whole() => End::Unusable,
        Err(error @ StoreError::Gone { .. }) if error.is_of_whole() => End::Gone,
        Err(error @ (StoreError::Unreachable { .. } | StoreError::Throttled { .. })) if error.is_of_whole() => {
            End::Unreachable
        }
        Err(error) => panic!("{error:?} is not expected"),
    }
}

/// A policy with little patience for silence.
pub fn hasty() -> Policy {
    Policy { timeout: Duration::from_millis(400), rate_min: 1 << 30, ..Policy::default() }
}

pub const THERE: &[u8] = &[7; 1000];

/// A server with one object, and a store on it.
fn with_object() -> (FakeS3, Arc<Quick>, Arc<dyn Store>) {
    let server = FakeS3::start(40);
    let quick = Quick::new();
    let store = opened(&server.vault("v"), quick.clone(), hasty());
    store.put(&key(Kind::Pack, 1), Bytes::from_static(THERE)).unwrap();
    server.asked();
    (server, quick, store)
}

/// A request to a store.
pub type Act = fn(&dyn Store) -> End;

pub fn get(store: &dyn Store) -> End {
    end(store.get(&key(Kind::Pack, 1), 1000).map(|bytes| assert_eq!(bytes, THERE)))
}

pub fn range(store: &dyn Store) -> End {
    end(store.get_range(&key(Kind::Pack, 1), 10, 500).map(|bytes| assert_eq!(bytes, THERE[10..510])))
}

pub fn beyond(store: &dyn Store) -> End {
    end(store.get_range(&key(Kind::Pack, 1), 2000, 5))
}

pub fn len(store: &dyn Store) -> End {
    end(store.len(&key(Kind::Pack, 1)).map(|len| assert_eq!(len, 1000)))
}

pub fn put(store: &dyn Store) -> End {
    let done = store.put(&key(Kind::Pack, 2), Bytes::from_static(b"what is put"));
    if done.is_ok() {
        assert_eq!(store.get(&key(Kind::Pack, 2), 100).unwrap(), b"what is put"[..]);
    }
    end(done)
}

pub fn delete(store: &dyn Store) -> End {
    end(store.delete_many(&[key(Kind::Pack, 1), key(Kind::Pack, 3)], &mut |_| {}))
}

pub fn list_packs(store: &dyn Store) -> End {
    let mut count = 0;
    let done = store.list(Kind::Pack, &mut |_| count += 1);
    assert_eq!(count, usize::from(done.is_ok()));
    end(done)
}

pub fn list_everything(store: &dyn Store) -> End {
    let mut count = 0;
    let done = store.list_all(&[Kind::Log, Kind::Meta, Kind::Pack], &mut |_, _| count += 1);
    assert_eq!(count, usize::from(done.is_ok()));
    end(done)
}

/// Faults that pass: the request is repeated until it succeeds.
const PASSING: &[Fault] = &[
    Fault::Status(500, "InternalError"),
    Fault::Status(500, ""),
    Fault::Status(502, ""),
    Fault::Status(503, "SlowDown"),
    Fault::Status(504, ""),
    Fault::Status(429, ""),
    Fault::Status(400, "RequestTimeout"),
    Fault::Status(408, ""),
    Fault::Page(502),
    Fault::Page(200),
    Fault::Page(404),
    Fault::Close,
    Fault::Lose,
    Fault::Half,
    Fault::Hang,
    Fault::Drip,
    Fault::Late(500, "InternalError"),
    Fault::Late(503, "SlowDown"),
    Fault::Region("eu-north-7"),
];

/// Answers that stand, whatever the request.
const STANDING: &[(Fault, End)] = &[
    (Fault::Status(401, ""), End::Unusable),
    (Fault::Status(403, "InvalidAccessKeyId"), End::Unusable),
    (Fault::Status(403, "SignatureDoesNotMatch"), End::Unusable),
    (Fault::Status(403, "RequestTimeTooSkewed"), End::Unusable),
    (Fault::Status(400, "ExpiredToken"), End::Unusable),
    (Fault::Status(404, "NoSuchBucket"), End::Gone),
];

const READS: &[(Op, Act)] = &[(Op::Get, get), (Op::Get, range), (Op::List, list_packs), (Op::List, list_everything)];

#[test]
fn what_passes_is_tried_again_and_what_stands_is_told() {
    let acts = READS.iter().chain(&[(Op::Head, len as Act), (Op::Put, put), (Op::Delete, delete)]);
    for (op, act) in acts {
        for fault in PASSING {
            let (server, _, store) = with_object();
            // A put with a good answer is believed; the list before the record shows whether the object was kept.
            let is_believed = *op == Op::Put && matches!(fault, Fault::Half | Fault::Page(200));
            // An answer to HEAD has no body.
            let is_heads = *op == Op::Head && matches!(fault, Fault::Page(200));
            if is_believed || is_heads {
                continue;
            }
            server.script(*op, [Some(fault.clone()), Some(fault.clone())]);
            assert_eq!(act(store.as_ref()), End::Done, "{op:?} {fault:?}");
        }
        for (fault, expected) in STANDING {
            let (server, _, store) = with_object();
            let is_head = *op == Op::Head;
            server.always(*op, fault.clone());
            if is_head {
                server.always(Op::Get, fault.clone());
            }
            assert_eq!(act(store.as_ref()), *expected, "{op:?} {fault:?}");
        }
        // A fault that never passes becomes an error of the whole store, and says nothing about the object.
        for fault in [Fault::Status(500, ""), Fault::Close, Fault::Page(404), Fault::Wait(503, "SlowDown", 100)] {
            let (server, quick, store) = with_object();
            server.always(*op, fault.clone());
            server.always(Op::Get, fault.clone());
            assert_eq!(act(store.as_ref()), End::Unreachable, "{op:?} {fault:?}");
            assert!(quick.waited() >= Duration::from_secs(10 * 60), "{op:?} {fault:?}: {:?}", quick.waited());
            let told = quick.told.lock().unwrap().clone();
            assert!(told.len() == 1 && told[0].starts_with("waiting for s3+http://"), "{told:?}");
        }
    }
}

#[test]
fn each_answer_means_what_it_says() {
    let cases: &[(Op, Act, Fault, End)] = &[
        (Op::Get, get, Fault::Status(403, "AccessDenied"), End::Unusable),
        (Op::Get, get, Fault::Status(404, "NoSuchKey"), End::Missing),
        (Op::Get, range, Fault::Unsaid, End::Done),
        (Op::Get, range, Fault::Whole, End::Unreachable),
        (Op::Get, beyond, Fault::Status(416, "InvalidRange"), End::Short),
        (Op::Get, get, Fault::Status(403, "InvalidObjectState"), End::Unusable),
        (Op::Put, put, Fault::Status(403, "AccessDenied"), End::Denied),
        (Op::Put, put, Fault::Status(507, ""), End::Full),
        (Op::Put, put, Fault::Status(403, "QuotaExceeded"), End::Full),
        (Op::Put, put, Fault::Status(412, "PreconditionFailed"), End::Exists),
        (Op::Put, put, Fault::Status(405, "MethodNotAllowed"), End::Unusable),
        (Op::Delete, delete, Fault::Status(403, "AccessDenied"), End::Denied),
        (Op::List, list_packs, Fault::Status(403, "AccessDenied"), End::Unusable),
    ];
    for (op, act, fault, expected) in cases {
        let (server, _, store) = with_object();
        server.always(*op, fault.clone());
        assert_eq!(act(store.as_ref()), *expected, "{op:?} {fault:?}");
    }
    // One fault, then success.
    for fault in [
        Fault::Status(400, "BadDigest"),
        Fault::Status(409, "ConditionalRequestConflict"),
        Fault::Status(501, "NotImplemented"),
        Fault::Status(400, "InvalidArgument"),
        Fault::Tag,
    ] {
        let (server, _, store) = with_object();
        server.fail(Op::Put, fault.clone());
        assert_eq!(put(store.as_ref()), End::Done, "{fault:?}");
    }
    // Another object under the same name is not a success, even after a lost answer.
    let (server, _, store) = with_object();
    server.fail(Op::Put, Fault::Lose);
    server.plant(&format!("v/{}", key(Kind::Pack, 2)), b"what is not");
    assert_eq!(put(store.as_ref()), End::Exists);
    // Where the server ignores conditions, a repeated put of the same bytes makes up for a lost answer.
    let (server, _, store) = with_object();
    server.ignore_conditions();
    server.script(Op::Put, [Some(Fault::Lose), Some(Fault::Lose)]);
    assert_eq!(put(store.as_ref()), End::Done);
    assert_eq!(server.names().len(), 2, "one name for all tries");
}

#[test]
fn a_server_that_asks_to_wait_is_obeyed() {
    let (server, quick, store) = with_object();
    server.fail(Op::Get, Fault::Wait(503, "SlowDown", 77));
    assert_eq!(get(store.as_ref()), End::Done);
    assert!(quick.waited() >= Duration::from_secs(77));
}

#[test]
fn what_is_slow_is_not_taken_for_dead() {
    let (server, _, store) = with_object();
    server.fail(Op::Get, Fault::Drip);
    assert_eq!(get(store.as_ref()), End::Done);
    assert_eq!(server.count(Op::Get), 1, "a second in small pieces, and no try of its 0.4 s too many");
}

#[test]
fn a_wait_ends_when_the_work_is_to_stop() {
    let (server, quick, _) = with_object();
    let store = opened(&server.vault("v"), quick.clone(), Policy::default());
    server.always(Op::Get, Fault::Hang);
    let begun = Instant::now();
    let done = std::thread::scope(|scope| {
        let waits = scope.spawn(|| store.get(&key(Kind::Pack, 1), 1000));
        std::thread::sleep(Duration::from_millis(100));
        quick.stops.store(true, Relaxed);
        waits.join().unwrap()
    });
    assert!(matches!(done, Err(StoreError::Stopped)), "{done:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_list_is_whole_or_none() {
    let server = FakeS3::start(10);
    let store = opened(&server.vault("v"), Quick::new(), hasty());
    for number in 0..35 {
        store.put(&key(Kind::Pack, number), Bytes::from_static(b"x")).unwrap();
    }
    server.asked();
    server.script(Op::List, [None, Some(Fault::Status(500, "")), None, None, Some(Fault::Lose)]);
    assert_eq!(list(&Shared(store.clone()), Kind::Pack).0.len(), 35);
    server.script(Op::List, [None, None]);
    server.always(Op::List, Fault::Page(200));
    let done = store.list(Kind::Pack, &mut |_| panic!("a part of a list"));
    assert_eq!(end(done), End::Unreachable);
    // One request for each page, also for all kinds together; objects that are not the vault's are not read page by
    // page.
    server.heal();
    server.asked();
    store.list_all(&[Kind::Log, Kind::Meta, Kind::Pack], &mut |_, _| {}).unwrap();
    assert_eq!(server.count(Op::List), 4);
    for number in 0..100 {
        server.plant(&format!("v/a stranger's/{number}"), b"x");
    }
    server.asked();
    let mut count = 0;
    store.list_all(&[Kind::Log, Kind::Meta, Kind::Pack], &mut |_, _| count += 1).unwrap();
    assert_eq!(count, 35);
    assert!(server.count(Op::List) <= 1 + 1 + 1 + 4, "{}", server.count(Op::List));
}

/// Other users of a bucket may choose names that no vault uses, and that the library rejects.
#[test]
fn strange_names_in_a_bucket_spoil_no_list() {
    let strange =
        |prefix: &str, name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    for prefix in ["", "v"] {
        let server = FakeS3::start(7);
        let store = opened(server.vault(prefix).trim_end_matches('/'), Quick::new(), hasty());
        for number in 0..20 {
            store.put(&key(Kind::Pack, number), Bytes::from_static(b"x")).unwrap();
            for name in ["/x", "packs//x", "packs/", "packs/../x", "a//", "packs/a&\u{1}b"] {
                server.plant(&strange(prefix, &format!("{name}{number}")), b"foreign");
            }
            // The marker of a folder made in a browser, and one of our names below another place.
            server.plant(&strange(prefix, &format!("{}/", key(Kind::Pack, 100 + number))), b"");
            server.plant(&strange(prefix, &format!("/{}", key(Kind::Pack, 200 + number))), b"foreign");
        }
        let own = |count: usize| {
            assert_eq!(list(&Shared(store.clone()), Kind::Pack).0.len(), count, "{prefix}");
            let mut found = 0;
            store
                .list_all(&[Kind::Log, Kind::Meta, Kind::Pack], &mut |_, listed| {
                    found += usize::from(matches!(listed, Listed::Object { .. }));
                })
                .unwrap();
            assert_eq!(found, count, "{prefix}");
        };
        own(20);
        store.delete(&key(Kind::Pack, 7)).unwrap();
        own(19);
    }
}

/// A request that never succeeds ends, even while others succeed.
#[test]
fn an_answer_that_makes_no_sense_ends_what_waits_for_it() {
    let (server, quick, store) = with_object();
    server.always(Op::Get, Fault::Page(200));
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Relaxed) {
                store.list(Kind::Pack, &mut |_| {}).unwrap();
            }
        });
        let done = get(store.as_ref());
        ends.store(true, Relaxed);
        assert_eq!(done, End::Unreachable);
    });
    assert!(quick.waited() >= Duration::from_secs(10 * 60), "{:?}", quick.waited());
}

#[test]
fn what_is_moved_aside_is_copied_once() {
    let (server, _, store) = with_object();
    // The copy is made, but the deletion fails.
    server.always(Op::Delete, Fault::Status(403, "AccessDenied"));
    assert_eq!(end(store.quarantine(&key(Kind::Pack, 1))), End::Denied);
    assert_eq!(end(store.quarantine(&key(Kind::Pack, 1))), End::Denied);
    server.heal();
    store.quarantine(&key(Kind::Pack, 1)).unwrap();
    let aside = || server.names().into_iter().filter(|name| name.contains("quarantine/")).count();
    assert_eq!((aside(), server.names().len()), (1, 1));
    // Later, another object under that name.
    store.put(&key(Kind::Pack, 1), Bytes::from_static(b"another")).unwrap();
    store.quarantine(&key(Kind::Pack, 1)).unwrap();
    assert_eq!(aside(), 2);
    assert_eq!(end(store.quarantine(&key(Kind::Pack, 1))), End::Missing);
}

/// Without credentials, opening fails at once and says how to give them.
#[test]
fn missing_credentials_are_told_at_once() {
    let desk = Desk::new();
    let begun = Instant::now();
    for repo in ["s3://bucket/vault", "s3://bucket?endpoint=https://s3.example.org"] {
        let mut command = desk.command(&["list", "--repo", repo]);
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", desk.path("nobody"));
        let said = said(&command.output().unwrap());
        assert_eq!(said.code, 10, "{}", said.err);
        assert!(said.err.contains("AWS_ACCESS_KEY_ID"), "{}", said.err);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// However many requests wait for credentials, the command that prints them runs once. If it fails later, its earlier
/// credentials are used.
#[cfg(unix)]
#[test]
fn a_command_is_asked_for_credentials_once() {
    use std::os::unix::fs::PermissionsExt;
    let server = FakeS3::start(1000);
    let home = scratch();
    let program = home.path().join("program");
    let text = format!(
        "#!/bin/sh\necho x >> {0}/runs\n[ -e {0}/fails ] && exit 1\nsleep 0.2\n\
         echo '{{\"Version\":1,\"AccessKeyId\":\"{KEY}\",\"SecretAccessKey\":\"s\",\"Expiration\":\"2030-01-01T00:00:00Z\"}}'\n",
        home.path().display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let config = home.path().join("config");
    std::fs::write(&config, format!("[default]\ncredential_process = {}\n", program.display())).unwrap();
    let quick = Quick::new();
    let variables = [("AWS_CONFIG_FILE", config.to_str().unwrap())];
    let store = opened_with(&server.vault("v"), quick.clone(), hasty(), &variables);
    let runs = || std::fs::read(home.path().join("runs")).unwrap().len() / 2;
    std::thread::scope(|scope| {
        for number in 0..8 {
            let store = store.clone();
            scope.spawn(move || store.put(&key(Kind::Pack, number), Bytes::from_static(b"x")).unwrap());
        }
    });
    assert_eq!(runs(), 1);
    quick.wait(Duration::from_secs(6 * 60));
    assert_eq!(list(&Shared(store.clone()), Kind::Pack).0.len(), 8);
    assert_eq!(runs(), 2, "before they end");
    std::fs::write(home.path().join("fails"), "").unwrap();
    quick.wait(Duration::from_secs(6 * 60));
    for _ in 0..3 {
        assert_eq!(list(&Shared(store.clone()), Kind::Pack).0.len(), 8);
    }
    assert_eq!(runs(), 3, "not for each request");
}

#[test]
fn requests_are_as_few_as_they_can_be() {
    let (server, _, store) = with_object();
    let counted = |what: &dyn Fn(), expected: &[(Op, usize)]| {
        server.asked();
        what();
        let asked = server.asked();
        for op in [Op::Put, Op::Get, Op::Head, Op::List, Op::Delete, Op::Copy] {
            let wanted = expected.iter().find(|(other, _)| *other == op).map_or(0, |(_, count)| *count);
            let found = asked.iter().filter(|(other, _)| *other == op).count();
            assert_eq!(found, wanted, "{op:?}: {asked:?}");
        }
    };
    counted(&|| drop(store.get(&key(Kind::Pack, 1), 1000)), &[(Op::Get, 1)]);
    counted(&|| drop(store.get(&key(Kind::Pack, 9), 1000)), &[(Op::Get, 1)]);
    counted(&|| drop(store.get(&key(Kind::Pack, 1), 10)), &[(Op::Get, 1)]);
    counted(&|| drop(store.get_range(&key(Kind::Pack, 1), 5, 10)), &[(Op::Get, 1)]);
    counted(&|| drop(store.len(&key(Kind::Pack, 1))), &[(Op::Head, 1)]);
    counted(&|| store.put(&key(Kind::Log, 1), Bytes::from_static(b"x")).unwrap(), &[(Op::Put, 1)]);
    let many: Vec<ObjectKey> = (100..1600).map(|number| key(Kind::Pack, number)).collect();
    counted(&|| store.delete_many(&many, &mut |_| {}).unwrap(), &[(Op::Delete, 2)]);
    counted(&|| store.list_all(&[Kind::Log, Kind::Pack], &mut |_, _| {}).unwrap(), &[(Op::List, 1)]);
}

#[test]
fn a_machine_that_may_not_delete_says_so_of_the_object() {
    let (server, _, store) = with_object();
    server.always(Op::Delete, Fault::Status(403, "AccessDenied"));
    assert_eq!(end(store.delete(&key(Kind::Pack, 1))), End::Denied);
    assert_eq!(end(store.quarantine(&key(Kind::Pack, 1))), End::Denied);
    server.always(Op::Delete, Fault::Status(501, "NotImplemented"));
    assert_eq!(end(store.delete(&key(Kind::Pack, 1))), End::Unusable, "neither many at once nor one");
    assert_eq!(get(store.as_ref()), End::Done, "the copy is not the original");
}

/// Checks that a new machine finds no damage in the vault.
pub fn check_whole(store: &Arc<dyn Store>, snapshots: usize, what: &str) {
    let fresh = scratch();
    let vault = open_vault(store, fresh.path()).unwrap();
    assert!(vault.bad_objects().is_empty() && vault.findings().is_empty(), "{what}: {:?}", vault.bad_objects());
    assert_eq!(vault.snapshots().len(), snapshots, "{what}");
    let mut options = CheckOptions::new(&now);
    options.read_data = true;
    options.threads = THREADS;
    let report = check(&vault, &options, &Silent::default()).unwrap();
    assert!(!report.is_damaged(), "{what}: {report:?}");
}

/// A vault in an object store of the test's own, and a source folder.
struct Far {
    server: FakeS3,
    store: Arc<dyn Store>,
    folder: tempfile::TempDir,
}

impl Far {
    fn new() -> Self {
        let server = FakeS3::start(1000);
        let store = opened(&server.vault("v"), Quick::new(), hasty());
        create_vault(store.as_ref(), small_chunks()).unwrap();
        let folder = scratch();
        std::fs::create_dir(folder.path().join("source")).unwrap();
        Self { server, store, folder }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn open(&self) -> Vault {
        open_vault(&self.store, &self.folder.path().join("state")).unwrap()
    }

    /// Another machine reads everything: no chunk of a snapshot may be lost. Returns the number of snapshots.
    fn snapshots_that_are_whole(&self, what: &str) -> usize {
        let fresh = scratch();
        let vault = open_vault(&self.store, fresh.path()).unwrap();
        let mut options = CheckOptions::new(&now);
        options.read_data = true;
        options.threads = THREADS;
        let report = check(&vault, &options, &Silent::default()).unwrap();
        assert!(report.chunks_lost == 0, "{what}: {report:?}");
        vault.snapshots().len()
    }
}

/// The behaviour of a store that reports a put as done but has not kept the object.
const NOT_KEPT: [Fault; 2] = [Fault::Forget, Fault::Half];

#[test]
fn a_store_that_says_yes_and_loses_is_caught_before_the_record() {
    for fault in NOT_KEPT {
        let far = Far::new();
        std::fs::write(far.source().join("first"), bytes(1, 50_000)).unwrap();
        let vault = far.open();
        take(&vault, &far.source()).unwrap();
        std::fs::write(far.source().join("second"), bytes(2, 50_000)).unwrap();
        // The first object that this run puts is a pack.
        far.server.fail(Op::Put, fault.clone());
        let taken = take(&vault, &far.source());
        assert!(taken.is_ok(), "it is stored again: {fault:?}, {taken:?}");
        assert_eq!(far.snapshots_that_are_whole(&format!("{fault:?}")), 2, "{fault:?}");
        // If the store keeps nothing, the run fails.
        std::fs::write(far.source().join("third"), bytes(3, 50_000)).unwrap();
        far.server.always(Op::Put, fault.clone());
        let taken = take(&vault, &far.source());
        assert!(taken.is_err(), "{fault:?}");
        far.server.heal();
        assert_eq!(far.snapshots_that_are_whole(&format!("{fault:?}")), 2, "{fault:?}");
        // The leftovers of such a run do not hinder another one.
        take(&far.open(), &far.source()).unwrap();
        assert_eq!(far.snapshots_that_are_whole(&format!("{fault:?}")), 3, "{fault:?}");
    }
}

#[test]
fn nothing_is_deleted_for_a_copy_that_a_store_has_lost() {
    for fault in NOT_KEPT {
        let far = Far::new();
        for round in 0..3 {
            std::fs::write(far.source().join("kept"), bytes(1, 50_000)).unwrap();
            std::fs::write(far.source().join("other"), bytes(10 + round, 50_000)).unwrap();
            take(&far.open(), &far.source()).unwrap();
        }
        let vault = far.open();
        let (decisions, options) = to_last(&vault);
        // The record that forgets is put first, then the packs with the moved chunks.
        far.server.script(Op::Put, [None, Some(fault.clone())]);
        let pruned = prune(&vault, &decisions, &options, &Silent::default());
        far.server.heal();
        let again = prune(&far.open(), &decisions, &options, &Silent::default());
        assert_eq!(far.snapshots_that_are_whole(&format!("{fault:?}: {pruned:?}, {again:?}")), 1, "{fault:?}");
    }
}

/// Random faults.
const BY_CHANCE: &[Fault] = &[
    Fault::Status(500, "InternalError"),
    Fault::Status(503, "SlowDown"),
    Fault::Status(502, ""),
    Fault::Page(404),
    Fault::Page(502),
    Fault::Close,
    Fault::Lose,
    Fault::Late(500, ""),
    Fault::Tag,
];

#[test]
fn whatever_a_server_does_a_run_succeeds_or_says_that_the_store_fails() {
    for seed in 0..6.max(campaign()) {
        let mut random = Rng(seed);
        let server = FakeS3::start(7);
        let store = opened(&server.vault("v"), Quick::new(), hasty());
        create_vault(store.as_ref(), small_chunks()).unwrap();
        let folder = scratch();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let mut taken = 0;
        for round in 0..3 {
            std::fs::write(source.join("file"), bytes(seed * 10 + round, 30_000)).unwrap();
            for op in [Op::Put, Op::Get, Op::Head, Op::List] {
                let faults = (0..40).map(|_| {
                    let is_ill = random.below(3) == 0;
                    is_ill.then(|| BY_CHANCE[random.below(BY_CHANCE.len() as u64) as usize].clone())
                });
                server.script(op, faults);
            }
            // Sometimes, puts fail from now on.
            if random.below(3) == 0 {
                server.always(Op::Put, Fault::Status(500, "InternalError"));
            }
            let state = folder.path().join("state");
            let done = open_vault(&store, &state).map_err(|error| format!("{error:?}"));
            let done = done.and_then(|vault| take(&vault, &source).map_err(|error| format!("{error:?}")));
            match done {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert!(error.contains("Unreachable") || error.contains("Throttled"), "{seed} {round}: {error}");
                }
            }
            server.heal();
            check_whole(&store, taken, &format!("{seed} {round}"));
        }
    }
}

/// A desk whose vault is on another machine.
struct Elsewhere {
    desk: Desk,
    repo: String,
    variables: Vec<(&'static str, String)>,
}

impl Elsewhere {
    #[track_caller]
    fn run(&self, args: &[&str], code: i32) -> String {
        let mut command = self.desk.command(args);
        command.env("VAULT_REPO", &self.repo).envs(self.variables.iter().cloned());
        let said = said(&command.output().unwrap());
        assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
        said.out + &said.err
    }
}

/// The life of a vault on another machine.
pub fn live(repo: String, variables: Vec<(&'static str, String)>) {
    let elsewhere = Elsewhere { desk: Desk::new(), repo, variables };
    let desk = &elsewhere.desk;
    desk.write("a/one", bytes(1, 300_000));
    desk.write("b/two", bytes(2, 5000));
    let run = |args: &[&str]| elsewhere.run(args, 0);
    elsewhere.run(&["list"], 10);
    run(&["init"]);
    assert!(elsewhere.run(&["init"], 1).contains("there is a vault"), "a second time");
    run(&["snapshot", "."]);
    run(&["snapshot", "."]);
    desk.write("b/two", bytes(3, 7000));
    run(&["snapshot", "."]);
    assert_eq!(run(&["list"]).lines().count(), 4);
    run(&["restore", "latest", "--to", desk.path("restored").to_str().unwrap()]);
    assert_eq!(std::fs::read(desk.path("restored/source/b/two")).unwrap(), bytes(3, 7000));
    assert_eq!(std::fs::read(desk.path("restored/source/a/one")).unwrap(), bytes(1, 300_000));
    assert!(run(&["check", "--read-data"]).contains("No damage was found."));
    run(&["prune", "--keep", "1", "--yes", "--max-unused", "0%"]);
    assert_eq!(run(&["list"]).lines().count(), 2);
    assert!(run(&["repair", "--dry-run"]).contains("Nothing is damaged."));
    // A new machine restores it.
    std::fs::remove_dir_all(desk.path("state")).unwrap();
    run(&["restore", "latest", "--to", desk.path("again").to_str().unwrap()]);
    assert_eq!(std::fs::read(desk.path("again/source/a/one")).unwrap(), bytes(1, 300_000));
    run(&["check", "--read-data"]);
}

#[test]
fn a_vault_lives_in_an_object_store() {
    let server = FakeS3::start(1000);
    let variables = vec![("AWS_ACCESS_KEY_ID", KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", "secret".to_owned())];
    live(server.vault("a vault"), variables.clone());
    let desk = Desk::new();
    let repo = server.vault("a vault");
    // In every place where a vault is named.
    let config = format!("[vaults.far]\npath = \"{repo}\"\n[sources.s]\npaths = [\"/etc/hostname\"]\n");
    std::fs::write(desk.path("vault.toml"), config).unwrap();
    std::fs::write(desk.path("list.csv"), format!("{},{repo}\n", desk.source().display())).unwrap();
    desk.write("file", "content");
    let list = desk.path("list.csv");
    for args in [&["list", "--repo", "far"][..], &["run", "--list", list.to_str().unwrap()], &["list", "--repo", &repo]]
    {
        let mut command = desk.command(args);
        command.env("VAULT_CONFIG", desk.path("vault.toml")).env_remove("VAULT_REPO").envs(variables.iter().cloned());
        let said = said(&command.output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
    }
}

/// The place's behaviour is reported before a vault is trusted to it.
#[test]
fn a_place_is_tried_out() {
    let variables = vec![("AWS_ACCESS_KEY_ID", KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", "secret".to_owned())];
    let tried = |server: &FakeS3, code: i32| {
        let elsewhere = Elsewhere { desk: Desk::new(), repo: server.vault("unused"), variables: variables.clone() };
        let place = server.vault("a/place");
        let told = elsewhere.run(&["doctor", &place, "--json"], code);
        assert!(elsewhere.run(&["doctor", &place], code).contains(&place));
        serde_json::from_str::<serde_json::Value>(&told).unwrap()
    };
    let server = FakeS3::start(1000);
    let told = tried(&server, 0);
    for name in ["fit", "reads_back", "reads_parts", "exclusive", "lists_puts", "lists_deletions", "deletes"] {
        assert_eq!(told[name], true, "{name}: {told}");
    }
    assert!(told["bytes_per_s_up"].as_f64().unwrap() > 0.0 && told["clock_offset_s"].is_i64(), "{told}");
    assert_eq!(server.names(), [""; 0], "nothing is left behind");
    let properties = |told: &serde_json::Value| {
        serde_json::json!([told["server"], told["verifies_digests"], told["keeps_versions"], told["locked"]])
    };
    assert_eq!(properties(&told), serde_json::json!(["Fake", true, false, null]));
    let server = FakeS3::start(1000);
    server.ignore_digests();
    server.lock_objects("GOVERNANCE", "2026-12-28T00:00:00Z");
    let locked = "GOVERNANCE until 2026-12-28T00:00:00Z";
    assert_eq!(properties(&tried(&server, 0)), serde_json::json!(["Fake", false, true, locked]));
    assert_eq!(server.names(), [""; 0], "nothing is left behind");
    let server = FakeS3::start(1000);
    server.ignore_conditions();
    let told = tried(&server, 0);
    assert_eq!((&told["exclusive"], &told["fit"]), (&false.into(), &true.into()), "{told}");
    let server = FakeS3::start(1000);
    server.always(Op::Delete, Fault::Status(403, "AccessDenied"));
    let told = tried(&server, 0);
    assert_eq!((&told["deletes"], &told["lists_deletions"]), (&false.into(), &serde_json::Value::Null), "{told}");
    // Lists that lag.
    let server = FakeS3::start(1000);
    server.list_late();
    let told = tried(&server, 3);
    assert_eq!((&told["lists_puts"], &told["fit"]), (&false.into(), &false.into()), "{told}");
    let elsewhere = Elsewhere { desk: Desk::new(), repo: server.vault("new"), variables };
    assert!(elsewhere.run(&["init"], 1).contains("--delivery synced"));
    elsewhere.run(&["init", "--delivery", "synced"], 0);
    let desk = Desk::new();
    let said = desk.run(&["doctor", "s4://bucket"]);
    assert_eq!(said.code, 2, "{}", said.err);
}

/// Trees and key slots are fetched once: a repeated command fetches none of them again.
#[test]
fn what_is_kept_here_is_not_fetched_again() {
    let server = FakeS3::start(1000);
    let variables = vec![("AWS_ACCESS_KEY_ID", KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", "secret".to_owned())];
    let elsewhere = Elsewhere { desk: Desk::new(), repo: server.vault("v"), variables };
    let desk = &elsewhere.desk;
    for number in 0..20 {
        desk.write(&format!("folder {}/file {number}", number % 4), bytes(number, 5000));
    }
    let run = |args: &[&str]| elsewhere.run(args, 0);
    run(&["init"]);
    run(&["snapshot", "."]);
    desk.write("folder 1/two", bytes(30, 7000));
    run(&["snapshot", "."]);
    // Names of the objects read, without VAULT, which each command reads to see that the vault is there.
    let fetched = |args: &[&str]| {
        server.asked();
        let said = run(args);
        let gets = server.asked().into_iter().filter(|(op, name)| *op == Op::Get && name != "v/VAULT");
        (gets.map(|(_, name)| name).collect::<Vec<_>>(), said)
    };
    let commands: [&[&str]; 5] = [&["ls"], &["find", "two"], &["diff", "latest~1", "latest"], &["du"], &["stats"]];
    // The machine that put them fetches nothing.
    let said = commands.map(|args| {
        let (gets, said) = fetched(args);
        assert!(gets.is_empty(), "{args:?}: {gets:?}");
        said
    });
    // A new machine fetches them once.
    std::fs::remove_dir_all(desk.path("state")).unwrap();
    for args in commands {
        fetched(args);
    }
    for (args, said) in commands.into_iter().zip(&said) {
        let (gets, again) = fetched(args);
        assert!(gets.is_empty(), "{args:?}: {gets:?}");
        assert_eq!(again, *said);
    }
    // Packs put by another machine are checked once, before a snapshot relies on them.
    fetched(&["snapshot", "."]);
    let (gets, _) = fetched(&["snapshot", "."]);
    assert!(gets.is_empty(), "{gets:?}");
    // A check reads from the store.
    let (gets, _) = fetched(&["check"]);
    assert!(gets.iter().any(|name| name.starts_with("v/meta/")), "{gets:?}");
    // A kept part that is damaged is fetched again.
    let mut folders = vec![desk.path("state")];
    let mut damaged = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.components().any(|part| ["trees", "slots"].iter().any(|name| part.as_os_str() == *name)) {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 4, "{damaged}");
    let (gets, again) = fetched(&["ls"]);
    assert!(!gets.is_empty() && again == said[0], "{gets:?}");
}

#[test]
fn what_is_no_address_makes_no_folder() {
    let desk = Desk::new();
    for (repo, expected) in [
        ("s3://key:secret@bucket", "AWS_ACCESS_KEY_ID"),
        ("s3://bucket?secret_access_key=abc", "no secret"),
        ("sftp://me:secret@nas/vault", "no secret"),
        ("s4://bucket", "looks like an address"),
        ("b2:bucket:path", "looks like an address"),
        ("s3:bucket", "Write it as: s3://bucket"),
        ("sftp:me@nas:/srv/vault", "Write it as: sftp://me@nas/srv/vault"),
        ("rest+http://example.org/", "without encryption"),
    ] {
        let said = desk.run(&["init", "--repo", repo]);
        assert_eq!(said.code, 2, "{repo}: {}", said.err);
        assert!(said.err.contains(expected) && !said.err.contains("abc"), "{repo}: {}", said.err);
    }
    assert_eq!(std::fs::read_dir(desk.source()).unwrap().count(), 0);
}

/// An SSH server; `None`, with a message, if there is none.
#[cfg(unix)]
fn sshd() -> Option<Sshd> {
    match Sshd::start() {
        Ok(sshd) => Some(sshd),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// New stores by SFTP, through this program.
#[cfg(unix)]
fn new_folders<'s>(sshd: &'s Sshd, program: &'s str) -> impl Fn() -> Shared + 's {
    let next = AtomicUsize::new(0);
    let quick = Quick::new();
    move || {
        let name = format!("v{}", next.fetch_add(1, Relaxed));
        std::fs::create_dir_all(sshd.folder(&name)).unwrap();
        std::fs::read_dir(sshd.folder(&name)).unwrap().for_each(|entry| {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        });
        Shared(opened_with(&sshd.vault(&name), quick.clone(), Policy::default(), &[("VAULT_SSH", program)]))
    }
}

#[cfg(unix)]
#[test]
fn folders_reached_by_sftp_conform() {
    let Some(sshd) = sshd() else { return };
    let program = sshd.program();
    check_store(new_folders(&sshd, &program));
    check_foreign(new_folders(&sshd, &program), |store, kind, name| {
        let place = store.place();
        let path = std::path::Path::new("/").join(place.splitn(4, '/').nth(3).unwrap()).join(kind.folder()).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"foreign").unwrap();
    });
}

#[cfg(unix)]
#[test]
fn a_vault_lives_where_sftp_leads() {
    let Some(sshd) = sshd() else { return };
    live(sshd.vault("life"), vec![("VAULT_SSH", sshd.program())]);
    assert_eq!(std::fs::read_dir(sshd.folder("life").join("tmp")).unwrap().count(), 0, "nothing is left behind");
}

/// Prune removes old leftovers of puts that were cut off.
#[cfg(unix)]
#[test]
fn what_was_left_long_ago_is_swept() {
    let Some(sshd) = sshd() else { return };
    let program = sshd.program();
    let store = new_folders(&sshd, &program)();
    assert_eq!(store.0.sweep_leftovers().unwrap(), 0, "there is no folder for it yet");
    store.put(&key(Kind::Pack, 1), Bytes::from_static(THERE)).unwrap();
    let tmp = sshd.folder("v0").join("tmp");
    let plant = |name: &str, days: u64| {
        let file = std::fs::File::create(tmp.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(days * 24 * 3600)).unwrap();
    };
    plant(&"a".repeat(32), 8);
    plant(&"b".repeat(32), 6);
    plant("a letter", 100);
    assert_eq!(store.0.sweep_leftovers().unwrap(), 1);
    let mut left: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a letter", "b".repeat(32).as_str()]);
}

#[cfg(unix)]
#[test]
fn a_connection_that_ends_says_nothing_of_objects() {
    let Some(sshd) = sshd() else { return };
    let program = sshd.program();
    let quick = Quick::new();
    let settings = [("VAULT_SSH", program.as_str())];
    std::fs::create_dir_all(sshd.folder("v")).unwrap();
    let store = opened_with(&sshd.vault("v"), quick.clone(), Policy::default(), &settings);
    store.put(&key(Kind::Pack, 1), Bytes::from_static(THERE)).unwrap();
    // Each connection is killed after a moment, whatever it is doing; each next one lives somewhat longer.
    let count = sshd.folder("count");
    let text = format!(
        "n=$(($(cat {0} 2>/dev/null || echo 0) + 1)); echo $n > {0}\n\
         exec 3<&0; {program} \"$@\" <&3 3<&- & ssh=$!; (sleep $((n / 4)).$((n % 4 * 25)); kill $ssh) > /dev/null 2>&1 &\nwait $ssh",
        count.display()
    );
    let short = sshd.script("short", &text);
    let ends = opened_with(&sshd.vault("v"), quick.clone(), Policy::default(), &[("VAULT_SSH", &short)]);
    for number in 2..8 {
        let bytes = Bytes::from(bytes(number, 2_000_000));
        ends.put(&key(Kind::Pack, number as u32), bytes.clone()).unwrap();
        assert!(store.holds(&key(Kind::Pack, number as u32), &bytes).unwrap());
        assert_eq!(ends.get(&key(Kind::Pack, 1), 1000).unwrap(), THERE);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(list(&Shared(ends), Kind::Pack).0.len(), 7);
    // A program that does not exist, one that fails, and one that is not a server.
    let not = sshd.script("not", "echo 'ssh: connect to host nas port 22: No route to host' >&2; exit 255");
    let other = sshd.script("other", "echo Welcome to this machine, which is no server of files; cat > /dev/null");
    for (program, expected) in [(&*not, "No route to host"), ("/no/such/program", "No such file"), (&*other, "")] {
        // One that never answers is waited for; the others tell why, as soon as the machine lets them.
        let patience = Duration::from_millis(if expected.is_empty() { 400 } else { 60_000 });
        let policy = Policy { timeout: patience, ..Policy::default() };
        let store = opened_with(&sshd.vault("v"), quick.clone(), policy, &[("VAULT_SSH", program)]);
        let error = store.get(&key(Kind::Pack, 1), 1000).unwrap_err();
        assert!(format!("{error:?}").contains(expected), "{error:?}");
        assert_eq!(end(Err::<(), _>(error)), End::Unreachable);
        let mut found = 0;
        let listed = store.list(Kind::Pack, &mut |_| found += 1);
        assert_eq!((end(listed), found), (End::Unreachable, 0));
        assert_eq!(put(store.as_ref()), End::Unreachable);
        assert_eq!(end(store.delete(&key(Kind::Pack, 1))), End::Unreachable);
    }
    // A folder that is missing is not a vault without objects.
    std::fs::rename(sshd.folder("v"), sshd.folder("away")).unwrap();
    for done in [
        end(store.get(&key(Kind::Pack, 1), 1000)),
        end(store.len(&key(Kind::Log, 1))),
        list_packs(store.as_ref()),
        end(store.delete(&key(Kind::Pack, 1))),
    ] {
        assert_eq!(done, End::Gone);
    }
    assert_eq!(end(store.put(&key(Kind::Pack, 77), Bytes::from_static(b"x"))), End::Gone);
    assert!(!sshd.folder("v").exists(), "it is not made again");
}

/// OpenSSH's SFTP server, without a network: a program that runs in place of ssh. `options` forbid or remove
/// abilities.
#[cfg(unix)]
fn sftp_server(folder: &std::path::Path, options: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let places = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"];
    let Some(server) = places.into_iter().find(|place| std::path::Path::new(place).exists()) else {
        eprintln!("skipped: OpenSSH's sftp-server is not installed");
        return None;
    };
    let program = folder.join(format!("ssh{}", options.replace([' ', ','], "_")));
    std::fs::write(&program, format!("#!/bin/sh\nexec {server} {options}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    Some(program.to_str().unwrap().to_owned())
}

/// A server with only the basic abilities: files get their names by renaming, and the server reports no limits.
#[cfg(unix)]
#[test]
fn folders_behind_a_plain_server_of_files_conform() {
    let folder = scratch();
    let lacks = "-P hardlink,fsync,limits,statvfs,posix-rename";
    let Some(program) = sftp_server(folder.path(), lacks) else { return };
    let (next, quick) = (AtomicUsize::new(0), Quick::new());
    check_store(|| {
        let place = folder.path().join(format!("v{}", next.fetch_add(1, Relaxed)));
        std::fs::create_dir(&place).unwrap();
        let address = format!("sftp://nas{}", place.display());
        Shared(opened_with(&address, quick.clone(), Policy::default(), &[("VAULT_SSH", &program)]))
    });
}

/// If an SFTP server forbids something, the error names the object. Nothing is retried, and nothing counts as
/// missing.
#[cfg(unix)]
#[test]
fn what_a_server_of_files_forbids_is_told_of_the_object() {
    let folder = scratch();
    let place = folder.path().join("v");
    std::fs::create_dir(&place).unwrap();
    let address = format!("sftp://nas{}", place.display());
    let open = |options: &str| {
        let program = sftp_server(folder.path(), options)?;
        let quick = Quick::new();
        Some((opened_with(&address, quick.clone(), hasty(), &[("VAULT_SSH", &program)]), quick))
    };
    let Some((store, _)) = open("") else { return };
    store.put(&key(Kind::Pack, 1), Bytes::from_static(THERE)).unwrap();
    assert_eq!(beyond(store.as_ref()), End::Short);
    assert_eq!(end(store.get(&key(Kind::Pack, 9), 10)), End::Missing);
    assert_eq!(end(store.put(&key(Kind::Pack, 1), Bytes::from_static(b"other"))), End::Exists);
    // A server that allows only reading.
    let (reads, quick) = open("-R").unwrap();
    for act in [get, range, len, list_packs, list_everything] {
        assert_eq!(act(reads.as_ref()), End::Done);
    }
    assert_eq!(put(reads.as_ref()), End::Denied);
    assert_eq!(delete(reads.as_ref()), End::Denied);
    assert_eq!(end(reads.quarantine(&key(Kind::Pack, 1))), End::Denied);
    assert_eq!(quick.waited(), Duration::ZERO, "what is forbidden is not waited for");
    // A server that allows only adding.
    let (adds, quick) = open("-P remove,rmdir,rename,posix-rename").unwrap();
    assert_eq!(put(adds.as_ref()), End::Done);
    assert_eq!(delete(adds.as_ref()), End::Denied);
    assert_eq!(end(adds.quarantine(&key(Kind::Pack, 1))), End::Denied);
    assert_eq!(get(adds.as_ref()), End::Done, "it is where it was");
    assert_eq!(quick.waited(), Duration::ZERO);
}

/// A disk that is full on the other side is told as that, at once, if the server tells its space; else as trouble that
/// may pass. What is there stays readable, and there is room again once something is deleted.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_sftp_is_told() {
    use crate::support::disk::system;
    let folder = scratch();
    let place = folder.path().join("v");
    std::fs::create_dir(&place).unwrap();
    let at = place.to_str().unwrap();
    if let Err(why) = system("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", at]) {
        eprintln!("skipped: {why}");
        return;
    }
    let tried = std::panic::catch_unwind(|| {
        let Some(program) = sftp_server(folder.path(), "") else { return };
        let silent = sftp_server(folder.path(), "-P statvfs").unwrap();
        let quick = Quick::new();
        let open =
            |program: &str| opened_with(&format!("sftp://nas{at}"), quick.clone(), hasty(), &[("VAULT_SSH", program)]);
        let store = open(&program);
        store.put(&key(Kind::Pack, 1), Bytes::from_static(THERE)).unwrap();
        store.put(&key(Kind::Pack, 2), bytes(1, 600 << 10).into()).unwrap();
        let large = || Bytes::from(bytes(2, 600 << 10));
        assert_eq!(end(store.put(&key(Kind::Pack, 3), large())), End::Full);
        assert_eq!(quick.waited(), Duration::ZERO, "nobody waits for a full disk");
        assert_eq!(end(open(&silent).put(&key(Kind::Pack, 3), large())), End::Unreachable);
        assert_eq!((get(store.as_ref()), end(store.get(&key(Kind::Pack, 3), 10))), (End::Done, End::Missing));
        assert_eq!(std::fs::read_dir(place.join("tmp")).unwrap().count(), 0, "nothing is left behind");
        store.delete(&key(Kind::Pack, 2)).unwrap();
        store.put(&key(Kind::Pack, 3), large()).unwrap();
    });
    system("umount", &["--lazy", at]).unwrap();
    tried.unwrap();
}

/// Footers are short, so more of them are under way than of other reads.
#[test]
fn short_reads_are_under_way_in_greater_number() {
    let far = Far::new();
    for number in 0..20 {
        std::fs::write(far.source().join("file"), bytes(number, 5000)).unwrap();
        take(&far.open(), &far.source()).unwrap();
    }
    far.server.take_time(Duration::from_millis(200));
    far.server.most_under_way();
    let fresh = scratch();
    drop(open_vault(&far.store, fresh.path()).unwrap());
    let most = far.server.most_under_way();
    assert!(most > 16 && most <= 32, "{most}");
}

/// A machine that may only add takes snapshots, and its prune says why it deletes nothing.
#[cfg(unix)]
#[test]
fn a_machine_that_may_only_add_over_sftp_takes_snapshots() {
    let folder = scratch();
    let place = folder.path().join("v");
    std::fs::create_dir(&place).unwrap();
    let Some(program) = sftp_server(folder.path(), "-P remove,rmdir,rename,posix-rename") else { return };
    only_adds(format!("sftp://nas{}", place.display()), vec![("VAULT_SSH", program)]);
}

/// The life of a vault for a machine that may not delete.
pub fn only_adds(repo: String, variables: Vec<(&'static str, String)>) {
    let elsewhere = Elsewhere { desk: Desk::new(), repo, variables };
    let desk = &elsewhere.desk;
    elsewhere.run(&["init"], 0);
    for number in 0..3 {
        desk.write("file", bytes(number, 200_000));
        elsewhere.run(&["snapshot", "."], 0);
    }
    let pruned = elsewhere.run(&["prune", "--keep", "1", "--yes", "--max-unused", "0%"], 1);
    assert!(pruned.contains("does not allow it") && pruned.contains("whose credentials may delete"), "{pruned}");
    desk.write("file", bytes(9, 200_000));
    elsewhere.run(&["snapshot", "."], 0);
    assert!(elsewhere.run(&["check", "--read-data"], 0).contains("No damage was found."));
    elsewhere.run(&["restore", "latest", "--to", desk.path("restored").to_str().unwrap()], 0);
    assert_eq!(std::fs::read(desk.path("restored/source/file")).unwrap(), bytes(9, 200_000));
}

#[test]
fn a_machine_that_may_only_add_to_a_bucket_takes_snapshots() {
    let server = FakeS3::start(1000);
    server.always(Op::Delete, Fault::Status(403, "AccessDenied"));
    let variables = vec![("AWS_ACCESS_KEY_ID", KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", "secret".to_owned())];
    only_adds(server.vault("v"), variables);
}

#[test]
fn a_vault_lives_in_seaweedfs() {
    let weed = match Weed::start() {
        Ok(weed) => weed,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    let next = AtomicUsize::new(0);
    let quick = Quick::new();
    check_store(|| {
        let place = weed.vault(&format!("suite/{}", next.fetch_add(1, Relaxed)));
        Shared(opened_with(&place, quick.clone(), Policy::default(), &KEYS))
    });
    live(weed.vault("life"), KEYS.map(|(name, value)| (name, value.to_owned())).into());
}
