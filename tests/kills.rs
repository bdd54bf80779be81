//! The real program, killed at random moments: kill -9 can come between any two instructions.
//!
//! Six kills by default; `VAULT_CAMPAIGN=n` makes it 30 times n.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use vault::seal::Secret;
use vault::store::Store;
use vault::store::dir::DirStore;
use vault::vault::Vault;

use crate::support::model::{assert_same, of_disk, of_snapshot};
use crate::support::source::{Rng, Size, bytes, plant};
use crate::support::{campaign, check_all, copies, open_as, scratch};

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault"));
    command
        .args(args)
        .env("VAULT_PASSWORD", "password")
        .env("VAULT_STATE_DIR", home.join("state"))
        .env("VAULT_REPO", home.join("store"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn open(home: &Path) -> Vault {
    let store: Arc<dyn Store> = Arc::new(DirStore::open(&home.join("store")).unwrap());
    // Another machine, which knows only the content of the store.
    open_as(&store, scratch().path(), &Secret::password("password"), "another").unwrap()
}

#[test]
fn a_run_killed_at_any_moment_loses_and_repeats_nothing() {
    let folder = scratch();
    let (home, source) = (folder.path(), folder.path().join("source"));
    fs::create_dir(&source).unwrap();
    plant(&source, 9, Size::Small);
    let take = ["snapshot", source.to_str().unwrap()];
    assert!(command(home, &["init"]).status().unwrap().success());
    let begun = Instant::now();
    assert!(command(home, &take).status().unwrap().success());
    let first = begun.elapsed();
    let mut expected = BTreeMap::new();
    let mut rng = Rng(campaign());
    let rounds = if campaign() > 0 { 30 * campaign() } else { 6 };
    let mut finished = 0;
    for round in 0..=rounds {
        // The last run is not killed.
        fs::write(source.join(format!("new {}", round % 4)), bytes(2 * round, 9 << 20)).unwrap();
        let mut child = command(home, &take).spawn().unwrap();
        if round < rounds {
            let longest = 2 * u64::try_from(first.as_millis()).unwrap();
            sleep(Duration::from_millis(rng.below(longest)));
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        let now = of_disk(&source, b"source");
        let vault = open(home);
        if round > 0 {
            check_all(&vault, &expected);
        }
        assert!(vault.bad_objects().is_empty() && vault.findings().is_empty());
        let mut is_there = false;
        for snapshot in vault.snapshots() {
            if round > 0 && !expected.contains_key(&snapshot.id) {
                is_there = true;
                let read = of_snapshot(&vault, &snapshot.body);
                assert!(read.errors.is_empty(), "{:?}", read.errors);
                assert_same(&now, &read.nodes, "a snapshot that a killed run left");
            }
            expected.entry(snapshot.id).or_insert_with(|| of_snapshot(&vault, &snapshot.body).nodes);
        }
        assert!(is_there || !status.success() || round == 0, "reported snapshots exist");
        finished += u64::from(is_there);
        assert_eq!(copies(&vault), 0, "chunks were stored twice");
    }
    println!("{rounds} runs killed, of which {} had just finished", finished.saturating_sub(1));
}
