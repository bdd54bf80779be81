//! Tests of each answer of a far store and its consequences. The client answers by a script, and the clock moves only
//! when somebody waits.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, Weak};

use proptest::prelude::*;

use super::*;
use crate::store::remote::line::{Policy, Surroundings};
use crate::store::testing::conformance::{check_foreign, check_store, key};
use crate::store::testing::mem::MemStore;
use crate::sync::lock;

/// The outcome of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The request is carried out and answered.
    Done,
    /// The connection breaks before the request is carried out.
    Reset,
    /// The request is carried out; then the connection breaks.
    DoneThenReset,
    /// Half of the object is stored; then the connection breaks.
    HalfThenReset,
    /// Another object is stored under the name; then the connection breaks.
    OtherThenReset,
    /// The client reports trouble of the line as an error of the object.
    ResetAsIo(ErrorKind),
    /// 429 or 503, with the seconds to wait, if the answer gives them.
    Busy(Option<u64>),
    /// The request is carried out, but answered with 503.
    DoneThenBusy,
    /// 404 without any mention of the bucket.
    NotFound,
    /// 404 NoSuchBucket.
    NoBucket,
    /// 401, or 403 for everything.
    NoCredential,
    /// 403 for this object.
    Forbidden,
    /// 412.
    Taken,
    /// 507.
    Full,
    /// 416, or a body that ends early: the object seems to end here.
    ShortAt(u64),
    /// 206 with fewer bytes than asked for.
    Fewer,
    /// A list breaks after this many entries.
    CutList(usize),
    /// A deletion of many objects breaks after this many of them.
    CutDeletes(usize),
    /// No answer ever comes.
    Hang,
    /// The request takes this many seconds, with a sign of life in each.
    Drip(u64),
    /// The body takes this many seconds to leave, after the system has taken it.
    Slow(u64),
    /// The user stops the work while it waits.
    StoppedMeanwhile,
}

/// A clock that moves when somebody waits.
#[derive(Debug, Default)]
struct World {
    millis: AtomicU64,
    stop: AtomicBool,
    dice: AtomicU64,
    told: Mutex<Vec<String>>,
    /// A line on which another request makes progress whenever somebody waits.
    busy: OnceLock<Weak<Line>>,
}

impl Surroundings for World {
    fn now(&self) -> Duration {
        Duration::from_millis(self.millis.load(Relaxed))
    }

    fn wait(&self, time: Duration) {
        if !self.stop.load(Relaxed) {
            // At least a little, so that the clock moves.
            self.millis.fetch_add(u64::try_from(time.as_millis()).unwrap().max(1), Relaxed);
            if let Some(line) = self.busy.get().and_then(Weak::upgrade) {
                line.watch("read", Kind::Pack).received();
            }
            std::thread::yield_now();
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn random(&self) -> u64 {
        // Weyl's sequence, which visits every part of the range in turn.
        self.dice.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed)
    }

    fn tell(&self, what: &str) {
        lock(&self.told).push(what.to_owned());
    }
}

/// A client that answers by a script, and correctly after its end.
#[derive(Debug)]
struct Scripted {
    inner: MemStore,
    line: Arc<Line>,
    world: Arc<World>,
    script: Mutex<VecDeque<Answer>>,
    requests: AtomicUsize,
    /// Above this number of requests at a time, they are refused.
    capacity: AtomicUsize,
    under_way: AtomicUsize,
    refused: AtomicUsize,
}

impl Scripted {
    fn request<T>(
        &self,
        action: &'static str,
        object: Subject,
        len: u64,
        work: impl Fn(Answer) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.requests.fetch_add(1, Relaxed);
        let busy = |after: Option<u64>| StoreError::Throttled {
            place: "far".to_owned(),
            after: after.map(Duration::from_secs),
        };
        let reset = || self.line.unreachable(action, object.clone(), ErrorKind::ConnectionReset.into());
        let mut watch = self.line.watch(action, object.clone());
        let answer = lock(&self.script).pop_front().unwrap_or(Answer::Done);
        match answer {
            Answer::Done | Answer::ShortAt(_) | Answer::Fewer | Answer::CutList(_) | Answer::CutDeletes(_) => {
                work(answer)
            }
            Answer::Reset => Err(reset()),
            Answer::DoneThenReset | Answer::HalfThenReset | Answer::OtherThenReset => {
                work(answer)?;
                Err(reset())
            }
            Answer::ResetAsIo(kind) => Err(StoreError::Io { action, object, source: kind.into() }),
            Answer::Busy(after) => Err(busy(after)),
            Answer::DoneThenBusy => {
                work(answer)?;
                Err(busy(None))
            }
            Answer::NotFound => Err(StoreError::Missing { object }),
            Answer::NoBucket => Err(StoreError::Gone { place: "far: there is no such bucket".to_owned() }),
            Answer::NoCredential => Err(denied(action, Subject::Place("far".to_owned()))),
            Answer::Forbidden => Err(denied(action, object)),
            Answer::Taken => Err(StoreError::Exists { object }),
            Answer::Full => Err(StoreError::Full { object }),
            Answer::Hang => loop {
                self.world.wait(Duration::from_millis(100));
                watch.check()?;
            },
            Answer::Drip(seconds) => {
                for _ in 0..seconds {
                    self.world.wait(Duration::from_secs(1));
                    watch.check()?;
                    watch.received();
                }
                work(Answer::Done)
            }
            Answer::Slow(seconds) => {
                watch.sent(len);
                for _ in 0..seconds {
                    self.world.wait(Duration::from_secs(1));
                    watch.check()?;
                }
                work(Answer::Done)
            }
            Answer::StoppedMeanwhile => {
                self.world.stop.store(true, Relaxed);
                watch.check()?;
                work(Answer::Done)
            }
        }
    }

    /// Refuses requests above the capacity.
    fn crowd<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let now = self.under_way.fetch_add(1, Relaxed) + 1;
        std::thread::yield_now();
        let done = if now > self.capacity.load(Relaxed) {
            self.refused.fetch_add(1, Relaxed);
            Err(StoreError::Throttled { place: "far".to_owned(), after: None })
        } else {
            work()
        };
        self.under_way.fetch_sub(1, Relaxed);
        done
    }
}

fn denied(action: &'static str, object: Subject) -> StoreError {
    let source = io::Error::new(ErrorKind::PermissionDenied, "AccessDenied");
    StoreError::Denied { action, object, path: "far".to_owned(), owner: None, source }
}

impl Store for Scripted {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.crowd(|| {
            self.request("write", key.into(), bytes.len() as u64, |answer| match answer {
                Answer::HalfThenReset => self.inner.put(key, bytes.slice(..bytes.len() / 2)),
                Answer::OtherThenReset => {
                    let other: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
                    self.inner.put(key, other.into())
                }
                _ => self.inner.put(key, bytes.clone()),
            })
        })
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.request("read", key.into(), 0, |answer| match answer {
            Answer::ShortAt(have) => {
                Err(StoreError::Short { object: key.into(), need: offset.saturating_add(len as u64), have })
            }
            Answer::Fewer => self.inner.get_range(key, offset, len).map(|bytes| bytes.slice(..len / 2)),
            _ => self.inner.get_range(key, offset, len),
        })
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.request("read", key.into(), 0, |_| self.inner.get(key, max))
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.request("read", key.into(), 0, |_| self.inner.len(key))
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let found = Mutex::new(found);
        self.request("list", kind.into(), 0, |answer| {
            let mut listed = Vec::new();
            self.inner.list(kind, &mut |entry| listed.push(entry))?;
            if let Answer::CutList(most) = answer {
                listed.into_iter().take(most).for_each(&mut **lock(&found));
                return Err(self.line.unreachable("list", kind, ErrorKind::UnexpectedEof.into()));
            }
            listed.into_iter().for_each(&mut **lock(&found));
            Ok(())
        })
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.request("delete", key.into(), 0, |_| self.inner.delete(key))
    }

    fn delete_many(&self, keys: &[ObjectKey], deleted: &mut dyn FnMut(&ObjectKey)) -> Result<(), StoreError> {
        let deleted = Mutex::new(deleted);
        self.request("delete", Subject::Place("far".to_owned()), 0, |answer| {
            let most = if let Answer::CutDeletes(most) = answer { most } else { keys.len() };
            self.inner.delete_many(&keys[..most.min(keys.len())], &mut **lock(&deleted))?;
            if most < keys.len() {
                Err(self.line.unreachable("delete", "far".to_owned(), ErrorKind::BrokenPipe.into()))
            } else {
                Ok(())
            }
        })
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.request("quarantine", key.into(), 0, |_| self.inner.quarantine(key))
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { reads: 8, writes: 8, bytes: 1 << 20 }
    }

    fn place(&self) -> String {
        "far".to_owned()
    }
}

/// A far store that answers by this script and then correctly, and its world.
fn far(script: &[Answer]) -> (FarStore<Scripted>, Arc<World>) {
    far_with(script, Policy::default())
}

fn far_with(script: &[Answer], policy: Policy) -> (FarStore<Scripted>, Arc<World>) {
    let world = Arc::new(World::default());
    let line = Arc::new(Line::new("far", 8, policy, world.clone()));
    let client = Scripted {
        inner: MemStore::new(),
        line: line.clone(),
        world: world.clone(),
        script: Mutex::new(script.iter().copied().collect()),
        requests: AtomicUsize::new(0),
        capacity: AtomicUsize::new(usize::MAX),
        under_way: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
    };
    (FarStore::new(client, line), world)
}

const OBJECT: &[u8] = b"0123456789";

fn one() -> ObjectKey {
    key(Kind::Pack, 1)
}

/// Checks a put of [`OBJECT`]: its outcome in a word, the number of requests, and the bytes stored afterwards.
fn check_put(script: &[Answer], end: &str, requests: usize, stored: Option<&[u8]>) {
    let (store, _) = far(script);
    let done = store.put(&one(), Bytes::from_static(OBJECT));
    assert_eq!(word(done.as_ref().err()), end, "{script:?}: {done:?}");
    assert_eq!(store.client().requests.load(Relaxed), requests, "{script:?}");
    let found = store.client().inner.objects();
    assert_eq!(found.iter().map(|(_, bytes)| &bytes[..]).next(), stored, "{script:?}");
    assert!(found.len() <= 1, "no second object under another name");
}

/// Checks a read of bytes 2 to 6 of [`OBJECT`].
fn check_get(script: &[Answer], end: &str, requests: usize) {
    let (store, _) = far(script);
    store.client().inner.put(&one(), Bytes::from_static(OBJECT)).unwrap();
    let done = store.get_range(&one(), 2, 5);
    assert_eq!(word(done.as_ref().err()), end, "{script:?}: {done:?}");
    assert_eq!(store.client().requests.load(Relaxed), requests, "{script:?}");
    if let Ok(bytes) = done {
        assert_eq!(bytes, OBJECT[2..7]);
    }
}

fn word(error: Option<&StoreError>) -> &'static str {
    match error {
        None => "done",
        Some(StoreError::Missing { .. }) => "missing",
        Some(StoreError::Exists { .. }) => "exists",
        Some(StoreError::Short { .. }) => "short",
        Some(StoreError::Full { .. }) => "full",
        Some(StoreError::Gone { .. }) => "gone",
        Some(StoreError::Denied { object: Subject::Place(_), .. }) => "denied all",
        Some(StoreError::Denied { .. }) => "denied",
        Some(StoreError::Unreachable { .. }) => "unreachable",
        Some(StoreError::Throttled { .. }) => "throttled",
        Some(StoreError::Stopped) => "stopped",
        Some(_) => "other",
    }
}

#[test]
fn conforms() {
    check_store(|| far(&[]).0);
    check_foreign(|| far(&[]).0, |store, kind, name| store.client().inner.add_foreign(kind, name));
}

#[test]
fn what_the_store_says_of_an_object_stands_at_once() {
    use Answer::{Forbidden, Full, NoBucket, NoCredential, NotFound, Taken};
    check_get(&[NotFound], "missing", 1);
    check_get(&[NoBucket], "gone", 1);
    check_get(&[NoCredential], "denied all", 1);
    check_get(&[Forbidden], "denied", 1);
    check_put(&[Forbidden], "denied", 1, None);
    check_put(&[NoCredential], "denied all", 1, None);
    check_put(&[Full], "full", 1, None);
    check_put(&[NoBucket], "gone", 1, None);
    check_put(&[Taken], "exists", 1, None);
}

#[test]
fn trouble_of_the_line_is_tried_again() {
    use Answer::{Busy, Hang, Reset, ResetAsIo};
    for trouble in [
        Reset,
        Busy(None),
        Busy(Some(7)),
        Hang,
        ResetAsIo(ErrorKind::TimedOut),
        ResetAsIo(ErrorKind::BrokenPipe),
        ResetAsIo(ErrorKind::UnexpectedEof),
    ] {
        check_get(&[trouble], "done", 2);
        check_get(&[trouble, trouble, trouble], "done", 4);
        check_put(&[trouble, trouble], "done", 3, Some(OBJECT));
    }
}

#[test]
fn after_a_lost_answer_the_same_name_is_compared_and_never_believed() {
    use Answer::{DoneThenBusy, DoneThenReset, HalfThenReset, OtherThenReset, Reset};
    // Put, second put, comparison.
    check_put(&[DoneThenReset], "done", 3, Some(OBJECT));
    check_put(&[DoneThenBusy], "done", 3, Some(OBJECT));
    check_put(&[Reset, DoneThenReset], "done", 4, Some(OBJECT));
    // The answers of the second put and then of the comparison are lost too, so the comparison asks again.
    check_put(&[DoneThenReset, Reset], "done", 4, Some(OBJECT));
    check_put(&[HalfThenReset], "exists", 3, Some(&OBJECT[..5]));
    let other: Vec<u8> = OBJECT.iter().map(|byte| !byte).collect();
    check_put(&[OtherThenReset], "exists", 3, Some(&other));
    let (store, _) = far(&[DoneThenReset, Answer::Done, Reset]);
    store.put(&one(), Bytes::from_static(OBJECT)).unwrap();
    assert_eq!(store.client().requests.load(Relaxed), 5, "put, put and compare, put and compare");
}

#[test]
fn other_writes_may_be_repeated() {
    use Answer::{CutDeletes, DoneThenReset, Reset};
    let (store, _) = far(&[]);
    let keys: Vec<ObjectKey> = (0..10).map(|number| key(Kind::Pack, number)).collect();
    let say = |script: &[Answer]| *lock(&store.client().script) = script.iter().copied().collect();
    for key in &keys {
        store.put(key, Bytes::from_static(OBJECT)).unwrap();
    }
    say(&[DoneThenReset, Reset]);
    store.delete(&keys[0]).unwrap();
    store.quarantine(&keys[1]).unwrap();
    say(&[DoneThenReset]);
    store.quarantine(&keys[2]).unwrap();
    assert_eq!(store.client().inner.quarantined().len(), 2);
    assert!(matches!(store.quarantine(&keys[2]), Err(StoreError::Missing { .. })), "nothing was lost this time");
    say(&[CutDeletes(3), Reset, CutDeletes(2)]);
    let mut told = Vec::new();
    store.delete_many(&keys[3..], &mut |key| told.push(*key)).unwrap();
    assert_eq!(told, keys[3..], "each is told once");
    assert!(store.client().inner.objects().is_empty());
}

#[test]
fn an_answer_that_is_cut_short_is_no_short_object() {
    use Answer::{Fewer, Reset, ShortAt};
    // Read, length, second read.
    check_get(&[ShortAt(4)], "done", 3);
    check_get(&[Fewer], "done", 2);
    check_get(&[ShortAt(4), Reset], "done", 3);
    let (store, _) = far(&[]);
    store.put(&one(), Bytes::from_static(OBJECT)).unwrap();
    let error = store.get_range(&one(), 5, 6).unwrap_err();
    assert!(matches!(error, StoreError::Short { need: 11, have: 10, .. }), "{error:?}");
}

#[test]
fn a_list_is_whole_or_an_error_and_nothing_is_told_twice() {
    use Answer::{Busy, CutList, Reset};
    let objects = |script: &[Answer]| {
        let (store, _) = far(script);
        for number in 0..5 {
            store.client().inner.put(&key(Kind::Log, number), Bytes::new()).unwrap();
        }
        let mut count = 0;
        let done = store.list(Kind::Log, &mut |_| count += 1);
        let mut all = 0;
        *lock(&store.client().script) = script.iter().copied().collect();
        let done_all = store.list_all(&[Kind::Log, Kind::Pack], &mut |_, _| all += 1);
        assert_eq!((count, word(done.as_ref().err())), (all, word(done_all.as_ref().err())));
        (count, word(done.as_ref().err()))
    };
    assert_eq!(objects(&[CutList(3), Reset, CutList(0), Busy(None)]), (5, "done"));
    assert_eq!(objects(&vec![CutList(3); 10_000]), (0, "unreachable"));
}

#[test]
fn patience_ends_and_the_error_is_of_the_whole() {
    for (answer, end) in
        [(Answer::Reset, "unreachable"), (Answer::Busy(None), "throttled"), (Answer::Hang, "unreachable")]
    {
        let (store, world) = far(&vec![answer; 10_000]);
        let error = store.get(&one(), 10).unwrap_err();
        assert_eq!(word(Some(&error)), end);
        assert!(error.is_of_whole(), "{error:?}");
        let took = world.now();
        let patience = Policy::default().patience;
        assert!(took >= patience && took < patience + Duration::from_secs(180), "{answer:?}: {took:?}");
        assert_eq!(lock(&world.told).len(), 1, "a person is told once: {:?}", world.told);
        assert!(lock(&world.told)[0].contains("far"));
    }
    let (store, world) = far(&[Answer::Busy(Some(100_000))]);
    assert_eq!(word(store.get(&one(), 10).err().as_ref()), "throttled");
    assert!(world.now() < Duration::from_secs(1), "nobody waits for a store that asks for a day");
}

#[test]
fn patience_is_counted_from_what_any_request_last_heard() {
    let (store, world) = far(&[]);
    // Another request makes progress all the time, while this one keeps failing.
    world.busy.set(Arc::downgrade(&store.client().line)).unwrap();
    *lock(&store.client().script) = std::iter::repeat_n(Answer::Reset, 200).collect();
    let end = store.get(&one(), 10);
    assert_eq!(word(end.err().as_ref()), "missing", "it was tried to the end of the script, {:?}", world.now());
    assert!(world.now() > Policy::default().patience);
}

#[test]
fn a_wait_is_as_long_as_the_store_asks_and_grows_by_chance() {
    let (store, world) = far(&[Answer::Busy(Some(7))]);
    assert!(store.get(&one(), 10).is_err());
    assert!(world.now() >= Duration::from_secs(7));
    // The second request must not start before the time given in the answer to the first.
    let (store, world) = far(&[]);
    let line = &store.client().line;
    line.enter().unwrap().refused(Duration::from_secs(9));
    drop(line.enter().unwrap());
    assert!(world.now() >= Duration::from_secs(9));
    let pauses: Vec<Duration> = (0..200).map(|_| store.pause(1)).collect();
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_millis(500)));
    assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(50)));
    assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(450)));
    let longest = |tries| (0..200).map(|_| store.pause(tries)).max().unwrap();
    assert!(longest(3) > Duration::from_millis(1900) && longest(3) <= Duration::from_secs(2));
    for tries in [8, 33, 1000, u32::MAX] {
        assert!(longest(tries) > Duration::from_secs(29) && longest(tries) <= Duration::from_secs(30), "{tries}");
    }
}

#[test]
fn silence_ends_a_request_and_slowness_does_not() {
    use Answer::{Drip, Hang, Slow};
    check_get(&[Hang], "done", 2);
    let (store, world) = far(&[Drip(1000)]);
    store.put(&one(), Bytes::from_static(OBJECT)).unwrap();
    assert_eq!(store.client().requests.load(Relaxed), 1, "a byte a second is alive");
    assert!(world.now() >= Duration::from_secs(1000));
    // 16 MiB need 512 seconds on the slowest line allowed, and the answer may take a minute more.
    for (seconds, requests) in [(500, 1), (570, 1), (573, 2)] {
        let (store, _) = far(&[Slow(seconds)]);
        store.put(&one(), vec![1; 16 << 20].into()).unwrap();
        assert_eq!(store.client().requests.load(Relaxed), requests, "{seconds} seconds");
    }
    let (store, world) = far(&[]);
    let mut watch = store.client().line.watch("delete", Kind::Pack);
    watch.grant(Duration::from_secs(100));
    world.wait(Duration::from_secs(159));
    assert!(watch.check().is_ok());
    world.wait(Duration::from_secs(2));
    assert_eq!(word(watch.check().err().as_ref()), "unreachable");
}

#[test]
fn whoever_stops_need_not_wait() {
    use Answer::{Busy, Hang, Reset, StoppedMeanwhile};
    for script in [&[StoppedMeanwhile][..], &[Reset, StoppedMeanwhile], &[Hang, StoppedMeanwhile]] {
        check_put(script, "stopped", script.len(), None);
        check_get(script, "stopped", script.len());
    }
    let (store, world) = far(&[Busy(Some(600))]);
    world.stop.store(true, Relaxed);
    assert_eq!(word(store.get(&one(), 10).err().as_ref()), "stopped");
    assert_eq!(world.now(), Duration::ZERO);
    assert_eq!(store.client().requests.load(Relaxed), 0, "nothing more is begun");
}

#[test]
fn a_store_that_refuses_gets_half_as_many_requests_at_a_time() {
    let (store, _) = far(&[]);
    let line = &store.client().line;
    assert_eq!(line.allowed(), 8);
    let together: Vec<_> = (0..8).map(|_| line.enter().unwrap()).collect();
    for under_way in &together {
        under_way.refused(Duration::ZERO);
    }
    assert_eq!(line.allowed(), 4, "those that were under way together halve it once");
    drop(together);
    for expected in [2, 1, 1] {
        line.enter().unwrap().refused(Duration::ZERO);
        assert_eq!(line.allowed(), expected);
    }
    for expected in 1..=8 {
        assert_eq!(line.allowed(), expected);
        (0..20).for_each(|_| line.enter().unwrap().answered());
    }
    (0..100).for_each(|_| line.enter().unwrap().answered());
    assert_eq!(line.allowed(), 8);
}

#[test]
fn a_storm_of_refusals_ends_by_itself() {
    // The clock races while 32 threads wait.
    let (store, _) = far_with(&[], Policy { patience: Duration::MAX, ..Policy::default() });
    store.client().capacity.store(2, Relaxed);
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..20 {
                    store.put(&key(Kind::Pack, thread * 100 + number), Bytes::from_static(OBJECT)).unwrap();
                }
            });
        }
    });
    assert_eq!(store.client().inner.objects().len(), 640);
    assert!(store.client().line.allowed() <= 8);
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    use Answer::{Busy, CutList, Done, DoneThenBusy, DoneThenReset, Drip, Fewer, Hang, Reset, ResetAsIo, ShortAt};
    let answer = prop_oneof![
        3 => Just(Done),
        2 => Just(Reset),
        2 => Just(DoneThenReset),
        1 => Just(ResetAsIo(ErrorKind::ConnectionAborted)),
        1 => Just(Busy(None)),
        1 => Just(Busy(Some(20))),
        1 => Just(DoneThenBusy),
        1 => (0..12_u64).prop_map(ShortAt),
        1 => Just(Fewer),
        1 => (0..4_usize).prop_map(CutList),
        1 => Just(Hang),
        1 => Just(Drip(90)),
    ];
    proptest::collection::vec(answer, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the line does, each request ends as it would without trouble, or with an error of the whole store.
    #[test]
    fn no_trouble_of_the_line_becomes_a_fault_of_an_object(script in answers()) {
        let (store, _) = far(&script);
        let sound = MemStore::new();
        for number in 0..4 {
            let bytes = Bytes::from(vec![number as u8; 10]);
            let put = store.put(&key(Kind::Log, number), bytes.clone());
            prop_assert!(put.as_ref().err().is_none_or(StoreError::is_of_whole), "{put:?}");
            if put.is_ok() {
                sound.put(&key(Kind::Log, number), bytes).unwrap();
            }
            let read = store.get_range(&key(Kind::Log, number), 2, 8);
            match (&read, sound.get_range(&key(Kind::Log, number), 2, 8)) {
                (Ok(read), Ok(expected)) => prop_assert_eq!(read, &expected),
                (Err(error), _) => prop_assert!(error.is_of_whole() || put.is_err(), "{:?}", error),
                (Ok(_), Err(_)) => prop_assert!(put.is_err()),
            }
            let mut listed = 0;
            if store.list(Kind::Log, &mut |_| listed += 1).is_ok() {
                prop_assert_eq!(listed, store.client().inner.objects().len());
            } else {
                prop_assert_eq!(listed, 0);
            }
        }
    }
}
