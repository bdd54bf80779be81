//! The line to a far store is cut at each request of each command in turn. The command says so, and nothing is taken
//! for damaged or missing, neither then nor later.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use vault::engine::check::{CheckOptions, check};
use vault::engine::patterns::glob::Pattern;
use vault::engine::query::browse;
use vault::engine::query::find::{Search, find};
use vault::engine::repair::{self, RepairOptions};
use vault::engine::restore::{RestoreOptions, Target, restore};
use vault::engine::stats::stats;
use vault::progress::Silent;
use vault::store::Store;
use vault::store::testing::faulty::{Fault, FaultyStore};
use vault::store::testing::mem::{MemState, MemStore};
use vault::vault::Vault;

use crate::support::source::{Size, bytes, plant};
use crate::support::{
    THREADS, World, campaign, copy_folder, now, open_vault, prune_to_last, scratch, small_chunks, take,
};

/// The outcome of a command; an error as its text.
pub type End = Result<(), String>;

/// The text of an error with all its causes.
fn told(error: &dyn Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", told(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}

pub fn end<T, E: Error>(done: Result<T, E>) -> End {
    done.map(drop).map_err(|error| told(&error))
}

fn repair_options() -> RepairOptions<'static> {
    let mut options = RepairOptions::new(&now);
    options.read_data = true;
    options.threads = THREADS;
    options
}

/// A command; it gets the vault and the folder that holds the source.
type Command = fn(&Vault, &Path) -> End;

const COMMANDS: &[(&str, Command)] = &[
    ("snapshot", |vault, folder| {
        fs::write(folder.join("source/new"), bytes(7, 30_000)).unwrap();
        end(take(vault, &folder.join("source")))
    }),
    ("snapshot, unchanged", |vault, folder| end(take(vault, &folder.join("source")))),
    ("ls", |vault, _| end(browse::list(vault, vault.snapshots().last().unwrap(), b"", true, &mut |_, _| true))),
    ("find", |vault, _| {
        let snapshots = vault.snapshots();
        let all: Vec<_> = snapshots.iter().collect();
        let search = Search { pattern: &Pattern::new(b"extra", false), all: true, otherwise: None };
        match find(vault, &all, &search, THREADS, &Silent::default(), &mut |_| true) {
            Ok(found) => found.broken.first().map_or(Ok(()), |(path, error)| panic!("{path:?} is broken: {error}")),
            Err(error) => Err(told(&error)),
        }
    }),
    ("restore", |vault, folder| {
        let id = vault.snapshots().last().unwrap().id;
        let to = folder.join("restored");
        let _ = fs::remove_dir_all(&to);
        match restore(vault, &RestoreOptions::new(id, Target::Folder(to)), &Silent::default()) {
            Ok(report) => {
                assert!(report.problems.is_empty(), "{:?}", report.problems);
                Ok(())
            }
            Err(error) => Err(told(&error)),
        }
    }),
    ("check", |vault, _| {
        let mut options = CheckOptions::new(&now);
        options.read_data = true;
        options.threads = THREADS;
        match check(vault, &options, &Silent::default()) {
            Ok(report) => {
                assert!(!report.is_damaged() && !report.has_remarks(), "{report:?}");
                Ok(())
            }
            Err(error) => Err(told(&error)),
        }
    }),
    ("stats", |vault, _| end(stats(vault, None, THREADS, &Silent::default()))),
    ("prune", |vault, _| end(prune_to_last(vault))),
    ("repair", |vault, _| match repair::plan(vault, &repair_options(), &Silent::default()) {
        Ok(plan) => {
            assert!(plan.is_empty() && plan.left.is_empty(), "there is nothing to repair");
            Ok(())
        }
        Err(error) => Err(told(&error)),
    }),
];

/// A vault with two snapshots, and its state folder.
pub struct Fixture {
    pub world: World,
    clean: MemState,
}

impl Fixture {
    pub fn new() -> Self {
        let mut world = World::new(small_chunks());
        plant(&world.source(), 1, Size::Tiny);
        for round in 0..2 {
            fs::write(world.source().join("extra"), bytes(100 + round, 40_000)).unwrap();
            world.take();
        }
        copy_folder(&world.state(), &world.folder.path().join("saved"));
        Self { clean: world.store.snapshot(), world }
    }

    /// Fresh copies of the store and the state.
    pub fn begin(&self) -> (Arc<FaultyStore<MemStore>>, Arc<dyn Store>) {
        fs::remove_dir_all(self.world.state()).unwrap();
        copy_folder(&self.world.folder.path().join("saved"), &self.world.state());
        let store = Arc::new(FaultyStore::new(MemStore::from_state(self.clean.clone())));
        (store.clone(), store)
    }

    /// Checks that afterwards all is well, for this machine and for a new one.
    pub fn check_later(&self, store: &Arc<FaultyStore<MemStore>>, what: &str) {
        store.heal();
        assert!(store.inner().quarantined().is_empty(), "{what}: something was moved aside");
        let shared: Arc<dyn Store> = store.clone();
        let fresh = scratch();
        for state in [&self.world.state(), fresh.path()] {
            let vault = open_vault(&shared, state).unwrap();
            assert!(vault.bad_objects().is_empty() && vault.findings().is_empty(), "{what}: {:?}", vault.bad_objects());
            let mut options = CheckOptions::new(&now);
            options.read_data = true;
            options.threads = THREADS;
            let report = check(&vault, &options, &Silent::default()).unwrap();
            assert!(!report.is_damaged() && !report.has_remarks(), "{what}: {report:?}");
        }
    }
}

#[test]
fn a_line_that_is_cut_is_said_to_be_that_and_nothing_is_called_damaged() {
    let fixture = Fixture::new();
    for (name, command) in COMMANDS {
        let folder = fixture.world.folder.path();
        let (store, shared) = fixture.begin();
        let vault = open_vault(&shared, &fixture.world.state()).unwrap();
        let opened = store.counts().operations;
        command(&vault, folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        let all = store.counts().operations;
        drop(vault);
        let mut cuts = 0;
        // Test some of the requests, evenly spread; a campaign tests all.
        let step = if campaign() > 0 { 1 } else { (all / 12).max(1) };
        for cut in (0..all).step_by(usize::try_from(step).unwrap()) {
            let what = format!("{name}, cut at {cut} of {all}");
            let (store, shared) = fixture.begin();
            let _ = fs::remove_file(folder.join("source/new"));
            store.add(Fault::CutLineAt(cut));
            let end = match open_vault(&shared, &fixture.world.state()) {
                Ok(vault) => command(&vault, folder),
                Err(error) => Err(told(&error)),
            };
            if let Err(error) = &end {
                assert!(error.contains("far cannot be reached"), "{what}: {error}");
                cuts += 1;
            }
            assert!(end.is_err() || cut >= opened, "{what}: the vault was opened without its store");
            fixture.check_later(&store, &what);
        }
        assert!(cuts > 0, "{name}: no cut was noticed");
    }
}
