//! A store reports a put as done, but keeps none or only a part of it: for each object that each command puts, in
//! turn. An object lost once is put again. If the store loses it again and again, the command that put it reports
//! that, and later nobody sees damage.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use vault::engine::keys::{self, When};
use vault::engine::mirror::mirror;
use vault::engine::prune;
use vault::log::RecordBody;
use vault::progress::Silent;
use vault::seal::{Purpose, Secret};
use vault::store::testing::faulty::{Fault, FaultyStore, Leaves};
use vault::store::testing::mem::MemStore;
use vault::store::{ObjectKey, Store};
use vault::vault::{Vault, Wanted};

use crate::line::{End, Fixture, end};
use crate::support::source::bytes;
use crate::support::{
    PASSWORD, campaign, cheap, create_vault, now, open_vault, prune_to_last, scratch, small_chunks, take,
};

/// A command; it gets the vault and the folder that holds the source.
type Command = fn(&Vault, &Path) -> End;

fn pruned(vault: &Vault) -> End {
    end(prune_to_last(vault))
}

const COMMANDS: &[(&str, Command)] = &[
    ("snapshot", |vault, folder| {
        fs::write(folder.join("source/new"), bytes(7, 30_000)).unwrap();
        end(take(vault, &folder.join("source")))
    }),
    ("snapshot, unchanged", |vault, folder| end(take(vault, &folder.join("source")))),
    ("forget", |vault, _| {
        let first = vault.snapshots()[0].id;
        end(prune::say(vault, RecordBody::Forget(vec![first]), now(), &Silent::default()))
    }),
    ("prune", |vault, _| pruned(vault)),
    ("key add", |vault, _| {
        let secret = Secret::password("another one");
        end(keys::add(vault, &secret, Purpose::Password, "new", cheap(), now(), &Silent::default()))
    }),
    ("key passwd", |vault, _| {
        let (old, new) = (Secret::password(PASSWORD), Secret::password("a new one"));
        end(keys::change(vault, &old, &new, cheap(), When::Known, now(), &Silent::default()))?;
        end(keys::change(vault, &new, &old, cheap(), When::Known, now(), &Silent::default()))
    }),
];

/// The same machine goes on working, and all stays well.
fn goes_on(fixture: &Fixture, store: &Arc<FaultyStore<MemStore>>, what: &str) {
    fixture.check_later(store, what);
    let shared: Arc<dyn Store> = store.clone();
    let vault = open_vault(&shared, &fixture.world.state()).unwrap();
    let before = vault.snapshots().len();
    take(&vault, &fixture.world.source()).unwrap();
    assert_eq!(vault.snapshots().len(), before + 1, "{what}");
    drop(vault);
    fixture.check_later(store, &format!("{what}, and then a snapshot"));
}

#[test]
fn what_a_store_loses_is_put_again_or_told_and_never_called_damage() {
    let fixture = Fixture::new();
    let folder = fixture.world.folder.path();
    let (mut told, mut made_good) = (0, 0);
    for (name, command) in COMMANDS {
        let run = |faults: &dyn Fn(u64) -> Option<Fault>| {
            let (store, shared) = fixture.begin();
            let _ = fs::remove_file(folder.join("source/new"));
            let vault = open_vault(&shared, &fixture.world.state()).unwrap();
            let opened = store.counts().puts;
            if let Some(fault) = faults(opened) {
                store.add(fault);
            }
            let end = command(&vault, folder);
            (end, store.counts().puts - opened, store, vault.snapshots().len())
        };
        let (ended, puts, ..) = run(&|_| None);
        ended.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(puts > 0, "{name}");
        for put in 0..puts {
            for leaves in [Leaves::Nothing, Leaves::Half] {
                let what = format!("{name}, put {put} of {puts} leaves {leaves:?}");
                let (ended, _, store, _) = run(&|opened| Some(Fault::LosesPut { put: opened + put, leaves }));
                ended.unwrap_or_else(|error| panic!("{what}: {error}"));
                made_good += 1;
                fixture.check_later(&store, &what);
                // The store also loses all later puts.
                let (ended, _, store, snapshots) =
                    run(&|opened| Some(Fault::LosesPutsFrom { put: opened + put, leaves }));
                let what = format!("{what}, as do all later ones");
                match ended {
                    Err(error) => {
                        let is_told = ["has it not", " bytes", "vanish"].iter().any(|words| error.contains(words));
                        assert!(is_told, "{what}: {error}");
                        told += 1;
                        // A failed command leaves no snapshot.
                        let shared: Arc<dyn Store> = store.clone();
                        store.heal();
                        let vault = open_vault(&shared, scratch().path()).unwrap();
                        assert!(vault.snapshots().len() <= snapshots.max(2), "{what}");
                    }
                    // Index objects only help others: a command succeeds without them.
                    Ok(()) => assert!(put + 1 >= puts, "{what}: it succeeds"),
                }
                if put % 2 == 0 || campaign() > 0 {
                    goes_on(&fixture, &store, &what);
                }
            }
        }
    }
    assert!(told > 10 && made_good > 20, "{told} {made_good}");
}

#[test]
fn a_vault_that_is_lost_while_it_is_made_is_not_made() {
    for leaves in [Leaves::Nothing, Leaves::Half] {
        for put in 0..5 {
            let store = FaultyStore::new(MemStore::new()).with(Fault::LosesPut { put, leaves });
            match create_vault(&store, small_chunks()) {
                Ok(_) => {
                    let shared: Arc<dyn Store> = Arc::new(store.into_inner());
                    let vault = open_vault(&shared, scratch().path()).unwrap();
                    assert!(vault.bad_objects().is_empty() && vault.odd_slots().is_empty(), "put {put} {leaves:?}");
                }
                Err(error) => {
                    assert!(leaves == Leaves::Half, "put {put}: {error}");
                    assert!(error.to_string().contains("VAULT was written"), "put {put}: {error}");
                }
            }
            let store = FaultyStore::new(MemStore::new()).with(Fault::LosesPutsFrom { put, leaves });
            let made = create_vault(&store, small_chunks());
            assert_eq!(made.is_ok(), store.counts().puts <= put, "from {put}: {made:?}");
            if made.is_err() {
                let left = store.into_inner().objects();
                assert!(left.iter().all(|(key, _)| *key == ObjectKey::Vault), "nothing stays that opens: {left:?}");
            }
        }
    }
}

#[test]
fn a_mirror_that_loses_is_told() {
    let fixture = Fixture::new();
    let from = &fixture.world.store;
    let run = |fault: Option<Fault>| {
        let to = FaultyStore::new(MemStore::new());
        if let Some(fault) = fault {
            to.add(fault);
        }
        let done = end(mirror(from, &to, &Wanted::default(), &Silent::default()));
        (done, to)
    };
    let (done, to) = run(None);
    done.unwrap();
    let whole = to.inner().objects();
    for put in 0..to.counts().puts {
        for leaves in [Leaves::Nothing, Leaves::Half] {
            let (done, to) = run(Some(Fault::LosesPut { put, leaves }));
            // VAULT is put first; a partial one is not deleted, since it may belong to another vault.
            if put == 0 && leaves == Leaves::Half {
                assert!(done.unwrap_err().contains("VAULT was written"));
                continue;
            }
            done.unwrap();
            assert_eq!(to.inner().objects(), whole, "put {put} {leaves:?}");
            let (done, _) = run(Some(Fault::LosesPutsFrom { put, leaves }));
            assert!(done.unwrap_err().contains("was written, and has"), "from {put} {leaves:?}");
        }
    }
}
