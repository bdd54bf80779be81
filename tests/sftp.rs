//! A vault over SFTP, with a server of the test's own that fails in each way of real ones: each answer is understood
//! rightly, and trouble of the line is never taken for damage or for a missing object.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vault::engine::check::{CheckOptions, check};
use vault::engine::restore::{RestoreOptions, Target, restore};
use vault::progress::Silent;
use vault::store::remote::Policy;
use vault::store::testing::conformance::{check_store, key};
use vault::store::{Kind, Store, StoreError};

use crate::far::{
    Act, End, Quick, Shared, THERE, beyond, check_whole, delete, end, get, hasty, len, list_everything, list_packs,
    opened_with, put, range,
};
use crate::support::sftp::{
    ALL, Ask, CONNECTION_LOST, DENIED, EOF, FAILURE, FakeSftp, Fault, NO_SUCH_FILE, OK, Offers, UNSUPPORTED, VAULT,
};
use crate::support::source::{Rng, bytes};
use crate::support::{THREADS, campaign, create_vault, each, now, open_vault, scratch, small_chunks, take};

/// Servers that differ in how a file gets its name: links, as OpenSSH has; links that the file system refuses; renaming,
/// which keeps or replaces what has the name.
const SERVERS: &[Offers] = &[
    ALL,
    Offers { has_no_links: true, ..ALL },
    Offers { extensions: &[], ..ALL },
    Offers { extensions: &[], replaces: true, ..ALL },
];

fn open(server: &FakeSftp, quick: &Arc<Quick>, policy: Policy) -> Arc<dyn Store> {
    opened_with(VAULT, quick.clone(), policy, &[("VAULT_SSH", &server.program())])
}

/// A server with one object, and a store on it that has no connection yet.
fn with_object(offers: Offers) -> Option<(FakeSftp, Arc<Quick>, Arc<dyn Store>)> {
    let server = FakeSftp::start(offers)?;
    let quick = Quick::new();
    open(&server, &quick, hasty()).put(&key(Kind::Pack, 1), Bytes::from_static(THERE)).unwrap();
    let store = open(&server, &quick, hasty());
    Some((server, quick, store))
}

fn quarantine(store: &dyn Store) -> End {
    let done = end(store.quarantine(&key(Kind::Pack, 1)));
    if done == End::Done {
        assert_eq!(get(store), End::Missing);
    }
    done
}

#[test]
fn each_kind_of_server_conforms() {
    // Where a file replaces another one by renaming, two puts of one name at the same moment both succeed.
    for offers in SERVERS.iter().filter(|offers| !offers.replaces) {
        let servers = Mutex::new(Vec::new());
        let quick = Quick::new();
        if FakeSftp::start(*offers).is_none() {
            return;
        }
        check_store(|| {
            let server = FakeSftp::start(*offers).unwrap();
            let store = Shared(open(&server, &quick, Policy::default()));
            servers.lock().unwrap().push(server);
            store
        });
    }
}

/// Faults that pass: the request is made again.
const PASSING: &[Fault] = &[
    Fault::Status(FAILURE, "Failure"),
    Fault::Status(CONNECTION_LOST, "Connection lost"),
    Fault::Status(5, "Bad message"),
    // Of a later version of the protocol: an exhausted quota.
    Fault::Status(15, "Quota exceeded"),
    Fault::Status(OK, "Success"),
    Fault::Close,
    Fault::Lose,
    Fault::Half,
    Fault::Hang,
    Fault::Strange,
    Fault::Astray,
    Fault::Long,
    Fault::Untyped,
    Fault::Words,
];

/// Each request, in work that makes it.
const ASKED: &[(Ask, Act)] = &[
    (Ask::Hello, get),
    (Ask::Limits, put),
    (Ask::Open, get),
    (Ask::Open, range),
    (Ask::FStat, get),
    (Ask::Read, get),
    (Ask::Read, range),
    (Ask::Stat, len),
    (Ask::Create, put),
    (Ask::Write, put),
    (Ask::Sync, put),
    (Ask::FStat, put),
    (Ask::Link, put),
    (Ask::Remove, put),
    (Ask::Remove, delete),
    (Ask::Folder, list_packs),
    (Ask::Page, list_packs),
    (Ask::Page, list_everything),
    (Ask::Stat, quarantine),
    (Ask::Link, quarantine),
    (Ask::Remove, quarantine),
];

#[test]
fn what_passes_is_tried_again() {
    let cases: Vec<_> = ASKED.iter().flat_map(|asked| PASSING.iter().map(move |fault| (asked, fault))).collect();
    each(&cases, |_, ((ask, act), fault)| {
        // These say that it was done, and are believed; the length shows it.
        let is_believed =
            **fault == Fault::Status(OK, "Success") && matches!(ask, Ask::Write | Ask::Sync | Ask::Link | Ask::Remove);
        if is_believed {
            return;
        }
        let Some((server, _, store)) = with_object(ALL) else { return };
        server.script(*ask, [Some((*fault).clone())]);
        assert_eq!(act(store.as_ref()), End::Done, "{ask:?} {fault:?}");
        assert!(server.is_played(), "{ask:?} {fault:?}");
    });
}

#[test]
fn a_name_that_was_given_before_the_answer_was_lost_is_kept() {
    for offers in SERVERS {
        let naming = if offers.extensions.is_empty() || offers.has_no_links { Ask::Rename } else { Ask::Link };
        for fault in [Fault::Lose, Fault::Half, Fault::Strange] {
            let Some((server, _, store)) = with_object(*offers) else { return };
            server.script(naming, [Some(fault.clone())]);
            assert_eq!(put(store.as_ref()), End::Done, "{offers:?} {fault:?}");
            assert!(server.is_played());
            // Another object under the name stays, and is no success.
            let taken = store.put(&key(Kind::Pack, 1), Bytes::from_static(b"another"));
            assert_eq!((end(taken), get(store.as_ref())), (End::Exists, End::Done), "{offers:?} {fault:?}");
            server.script(naming, [Some(fault.clone())]);
            assert_eq!(quarantine(store.as_ref()), End::Done, "{offers:?} {fault:?}");
            let aside = server.names().into_iter().find(|name| name.contains("/quarantine/")).unwrap();
            assert_eq!(server.content(&aside).unwrap(), THERE);
        }
    }
}

#[test]
fn each_answer_means_what_it_says() {
    let cases: &[(Ask, Act, Fault, End)] = &[
        (Ask::Open, get, Fault::Status(NO_SUCH_FILE, "No such file"), End::Missing),
        (Ask::Open, range, Fault::Status(NO_SUCH_FILE, "No such file"), End::Missing),
        (Ask::Open, get, Fault::Status(DENIED, "Permission denied"), End::Denied),
        (Ask::Read, range, Fault::Status(DENIED, "Permission denied"), End::Denied),
        (Ask::Create, put, Fault::Status(DENIED, "Permission denied"), End::Denied),
        (Ask::Write, put, Fault::Status(DENIED, "Permission denied"), End::Denied),
        (Ask::Link, put, Fault::Status(DENIED, "Permission denied"), End::Done),
        (Ask::Remove, delete, Fault::Status(DENIED, "Permission denied"), End::Denied),
        (Ask::Remove, delete, Fault::Status(NO_SUCH_FILE, "No such file"), End::Done),
        (Ask::Write, put, Fault::Status(FAILURE, "No space left on device"), End::Full),
        (Ask::Write, put, Fault::Status(FAILURE, "Disk quota exceeded"), End::Full),
        (Ask::Close, put, Fault::Status(FAILURE, "Disk quota exceeded"), End::Full),
        (Ask::Write, put, Fault::Status(UNSUPPORTED, "Operation unsupported"), End::Unusable),
        (Ask::Folder, list_packs, Fault::Status(UNSUPPORTED, "Operation unsupported"), End::Unusable),
        (Ask::Limits, put, Fault::Status(UNSUPPORTED, "Operation unsupported"), End::Done),
        // What a server may do.
        (Ask::Read, get, Fault::Few, End::Done),
        (Ask::Read, range, Fault::Few, End::Done),
        (Ask::Read, get, Fault::Much, End::Done),
        (Ask::Read, range, Fault::Much, End::Done),
        (Ask::Page, list_packs, Fault::Few, End::Done),
        // What never passes says nothing of the object, whatever it looks like.
        (Ask::Open, get, Fault::Status(FAILURE, "Failure"), End::Unreachable),
        (Ask::Open, get, Fault::Status(OK, "Success"), End::Unreachable),
        (Ask::Read, get, Fault::Status(EOF, "End of file"), End::Unreachable),
        (Ask::Read, range, Fault::Status(EOF, "End of file"), End::Unreachable),
        (Ask::Read, range, Fault::None, End::Unreachable),
        (Ask::Read, get, Fault::Half, End::Unreachable),
        (Ask::Open, get, Fault::Strange, End::Unreachable),
        (Ask::Hello, get, Fault::Words, End::Unreachable),
        (Ask::Hello, delete, Fault::Close, End::Unreachable),
        (Ask::Stat, len, Fault::Untyped, End::Unreachable),
        (Ask::Page, list_packs, Fault::None, End::Unreachable),
        (Ask::Page, list_packs, Fault::Half, End::Unreachable),
        (Ask::Page, list_everything, Fault::Status(FAILURE, "Failure"), End::Unreachable),
        (Ask::Folder, list_packs, Fault::Close, End::Unreachable),
        (Ask::Write, put, Fault::Status(FAILURE, "Failure"), End::Unreachable),
        (Ask::Sync, put, Fault::Status(FAILURE, "Failure"), End::Unreachable),
    ];
    each(cases, |_, (ask, act, fault, expected)| {
        let Some((server, quick, store)) = with_object(ALL) else { return };
        server.always(*ask, fault.clone());
        assert_eq!(act(store.as_ref()), *expected, "{ask:?} {fault:?}");
        assert!(server.count(*ask) > 0, "{ask:?} {fault:?}");
        if *expected == End::Unreachable {
            assert!(quick.waited() >= Duration::from_secs(10 * 60), "{ask:?} {fault:?}: {:?}", quick.waited());
            let told = quick.told.lock().unwrap().clone();
            assert!(told.len() == 1 && told[0].starts_with("waiting for sftp://nas/v"), "{told:?}");
        } else {
            assert_eq!(quick.waited(), Duration::ZERO, "{ask:?} {fault:?}: nobody waits for an answer that stands");
        }
    });
}

#[test]
fn a_folder_that_is_not_there_is_no_missing_object() {
    for offers in SERVERS {
        let Some((server, _, store)) = with_object(*offers) else { return };
        assert_eq!(beyond(store.as_ref()), End::Short);
        assert_eq!(end(store.get(&key(Kind::Pack, 9), 10)), End::Missing);
        server.take_away();
        for act in [get as Act, range, len, list_packs, delete, put] {
            assert_eq!(act(store.as_ref()), End::Gone, "{offers:?}");
        }
        assert_eq!(server.names(), Vec::<String>::new(), "nothing is put where the vault is not");
    }
}

#[test]
fn a_full_disk_is_told_at_once() {
    let Some((server, quick, store)) = with_object(ALL) else { return };
    server.limit_room(10_000);
    let large = Bytes::from(bytes(1, 300_000));
    assert_eq!(end(store.put(&key(Kind::Pack, 3), large.clone())), End::Full);
    assert_eq!(quick.waited(), Duration::ZERO);
    assert_eq!(server.names().len(), 1, "nothing is left behind: {:?}", server.names());
    assert_eq!((get(store.as_ref()), end(store.get(&key(Kind::Pack, 3), 10))), (End::Done, End::Missing));
    server.heal();
    store.put(&key(Kind::Pack, 3), large.clone()).unwrap();
    assert_eq!(store.get(&key(Kind::Pack, 3), 1 << 20).unwrap(), large);
}

#[test]
fn a_wait_ends_when_the_work_is_to_stop() {
    for (ask, act) in [(Ask::Hello, len as Act), (Ask::Open, get), (Ask::Read, range), (Ask::Write, put)] {
        let Some((server, quick, _)) = with_object(ALL) else { return };
        // With all the patience of the program.
        let store = open(&server, &quick, Policy::default());
        server.always(ask, Fault::Hang);
        let begun = Instant::now();
        let stopped = std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let done = match ask {
                    Ask::Hello => store.len(&key(Kind::Pack, 1)).map(drop),
                    Ask::Write => store.put(&key(Kind::Pack, 2), Bytes::from_static(b"x")),
                    _ => store.get(&key(Kind::Pack, 1), 1000).map(drop),
                };
                matches!(done, Err(StoreError::Stopped))
            });
            while server.count(ask) == usize::from(ask == Ask::Hello) && begun.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(20));
            }
            quick.stops.store(true, Relaxed);
            waits.join().unwrap()
        });
        assert!(stopped && begun.elapsed() < Duration::from_secs(30), "{ask:?} {:?}", begun.elapsed());
        // What was stopped has left nothing that hinders the next.
        quick.stops.store(false, Relaxed);
        server.heal();
        assert_eq!(act(open(&server, &quick, hasty()).as_ref()), End::Done, "{ask:?}");
    }
}

/// All kinds of requests that carry a vault.
const EACH: &[Ask] = &[
    Ask::Open,
    Ask::Create,
    Ask::Read,
    Ask::Write,
    Ask::Sync,
    Ask::Stat,
    Ask::FStat,
    Ask::Folder,
    Ask::Page,
    Ask::Remove,
    Ask::MakeFolder,
    Ask::Link,
];

/// Faults without a wait.
const BY_CHANCE: &[Fault] = &[
    Fault::Status(FAILURE, "Failure"),
    Fault::Status(CONNECTION_LOST, "Connection lost"),
    Fault::Close,
    Fault::Lose,
    Fault::Half,
    Fault::Strange,
    Fault::Untyped,
];

#[test]
fn whatever_a_server_does_nothing_is_called_damaged() {
    for seed in 0..3.max(campaign()) {
        let mut random = Rng(seed);
        let Some(server) = FakeSftp::start(SERVERS[seed as usize % SERVERS.len()]) else { return };
        let store = open(&server, &Quick::new(), hasty());
        create_vault(store.as_ref(), small_chunks()).unwrap();
        let folder = scratch();
        let (source, state) = (folder.path().join("source"), folder.path().join("state"));
        std::fs::create_dir(&source).unwrap();
        let mut plague = |server: &FakeSftp| {
            for ask in EACH {
                let faults = (0..20).map(|_| {
                    let is_ill = random.below(5) == 0;
                    is_ill.then(|| BY_CHANCE[random.below(BY_CHANCE.len() as u64) as usize].clone())
                });
                server.script(*ask, faults);
            }
        };
        let mut taken = 0;
        for round in 0..2 {
            std::fs::write(source.join("file"), bytes(seed * 10 + round, 30_000)).unwrap();
            plague(&server);
            let done = open_vault(&store, &state).map_err(|error| format!("{error:?}"));
            let done = done.and_then(|vault| take(&vault, &source).map_err(|error| format!("{error:?}")));
            match done {
                Ok(_) => taken += 1,
                Err(error) => assert!(error.contains("Unreachable"), "{seed} {round}: {error}"),
            }
            server.heal();
            check_whole(&store, taken, &format!("{seed} {round}"));
        }
        assert!(taken > 0);
        // What only reads meets them, too.
        plague(&server);
        check_whole(&store, taken, &format!("{seed}, while it fails"));
    }
}

/// The line ends in the middle of a check and of a restore, and does not come back.
#[test]
fn a_line_that_ends_is_no_damage() {
    let Some(server) = FakeSftp::start(ALL) else { return };
    let quick = Quick::new();
    let store = open(&server, &quick, hasty());
    create_vault(store.as_ref(), small_chunks()).unwrap();
    let folder = scratch();
    let (source, state) = (folder.path().join("source"), folder.path().join("state"));
    std::fs::create_dir(&source).unwrap();
    for number in 0..3 {
        std::fs::write(source.join(format!("file {number}")), bytes(number, 30_000)).unwrap();
        take(&open_vault(&store, &state).unwrap(), &source).unwrap();
    }
    for after in [0, 2, 5] {
        let vault = open_vault(&store, &state).unwrap();
        let ends = || {
            server.script(Ask::Read, std::iter::repeat_n(None, after));
            server.always(Ask::Read, Fault::Half);
        };
        ends();
        let mut options = CheckOptions::new(&now);
        options.read_data = true;
        options.threads = THREADS;
        let checked = check(&vault, &options, &Silent::default()).map(|report| report.is_damaged());
        let error = format!("{:?}", checked.expect_err("a check that has not read all is no check"));
        assert!(error.contains("Unreachable"), "{after}: {error}");
        server.heal();
        ends();
        let last = vault.snapshots().last().unwrap().id;
        let target = Target::Folder(folder.path().join(format!("to {after}")));
        let restored = restore(&vault, &RestoreOptions::new(last, target), &Silent::default());
        let error = format!("{:?}", restored.map(|report| report.damage_count).expect_err("not all was read"));
        assert!(error.contains("Unreachable"), "{after}: {error}");
        server.heal();
        assert!(vault.findings().is_empty() && vault.bad_objects().is_empty());
        check_whole(&store, 3, &format!("after {after} reads"));
    }
}
