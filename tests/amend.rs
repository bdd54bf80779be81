//! Single cases of `vault tag`, `amend` and `rewrite`: roots that are meant as a whole, unknown rules, corrected dates,
//! and the traces of a secret after a prune.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;
use vault::engine::prune::say;
use vault::engine::rewrite::{Change, RewriteError, RewriteOptions, rewrite};
use vault::engine::snapshot::snapshot;
use vault::failure::{Exit, Failure};
use vault::id::ChunkId;
use vault::log::RecordBody;
use vault::progress::{Counters, Phase, Progress, Silent};
use vault::read::Listing;
use vault::seal::Secret;
use vault::store::Store;
use vault::store::dir::DirStore;
use vault::tree::{ChunkSource, RuleSet, Snapshot, Stream, Time};
use vault::vault::Vault;

use crate::rewrite::member;
use crate::support::binary::Desk;
use crate::support::{RAW, World, copy_folder, now, open_as, options, small_chunks};

/// The vault of a desk, opened by a machine with this name.
fn opened(desk: &Desk, machine: &str) -> Vault {
    let store: Arc<dyn Store> = Arc::new(DirStore::open(&desk.path("store")).unwrap());
    open_as(&store, &desk.path(machine), &Secret::raw(&RAW), machine).unwrap()
}

/// The content of a file of a snapshot.
fn content(vault: &Vault, body: &Snapshot, path: &[&str]) -> Stream {
    let mut trees = vault.tree_reader().unwrap();
    path.iter().fold(body.tree.clone(), |folder, name| {
        let mut listing = Listing::new(&folder);
        loop {
            let entry = listing.next(&mut trees).unwrap().unwrap();
            if entry.name == name.as_bytes() {
                return entry.content.unwrap();
            }
        }
    })
}

/// The names in the last snapshot's top folder.
fn top(desk: &Desk) -> String {
    desk.ok(&["ls", "latest"])
}

#[test]
fn roots_are_taken_out_by_their_names_and_by_their_paths() {
    let desk = Desk::new();
    for path in ["note.txt", "docs/a", "private/b", "private/c"] {
        desk.write(path, "1");
    }
    let at = |name: &str| desk.source().join(name).display().to_string();
    let (docs, private, folder) = (at("docs"), at("private"), desk.source().display().to_string());
    desk.ok(&["snapshot", &at("note.txt"), &docs, &private, "--time", "2026-01-01", "--source", "s"]);
    assert_eq!(top(&desk), "docs/\nnote.txt\nprivate/\n");
    // Relative to the roots nothing matches.
    let said = desk.ok(&["rewrite", "--exclude", "/private", "--exclude", "source/docs", "--yes"]);
    assert!(said.contains("Nothing in these snapshots is like that."), "{said}");
    let said = desk.ok(&["rewrite", "--exclude", "*.txt", "--yes"]);
    assert!(said.contains("note.txt  (1 B, in 1 snapshot)") && said.contains("note.txt is still there"), "{said}");
    assert_eq!(top(&desk), "docs/\nprivate/\n");
    let said = desk.ok(&["rewrite", "--exclude", &private, "--yes"]);
    assert!(said.contains("private/  (2 files, 2 B, in 1 snapshot)"), "{said}");
    let listed = desk.json(&["list"]).remove(0);
    assert_eq!((&listed["snapshots"][0]["files"], &listed["snapshots"][0]["folders"]), (&1.into(), &1.into()));
    assert!(!listed.to_string().contains("private"), "{listed}");
    // The pattern matches a folder above everything that is left: that is another command.
    for args in [["rewrite", "--exclude", &folder, "--yes"], ["rewrite", "--exclude", "docs/", "--yes"]] {
        let said = desk.run(&args);
        assert_eq!(said.code, 3, "{}{}", said.out, said.err);
        assert!(said.out.contains("All of snapshot") && said.out.contains("vault forget "), "{}", said.out);
        assert!(said.out.contains("Nothing in the others is like that."), "{}", said.out);
    }
    let said: Value = serde_json::from_str(&desk.run(&["rewrite", "--exclude", "docs", "-y", "--json"]).out).unwrap();
    assert_eq!((said["whole"].as_array().unwrap().len(), said["changed"].as_array().unwrap().len()), (1, 0));
    assert_eq!(top(&desk), "docs/\n");
    // Paths that were taken out count as left out: a restore that deletes does not delete them.
    desk.write("private/b", "other");
    desk.ok(&["restore", "latest", "--in-place", "--delete", "--yes"]);
    assert!(desk.source().join("private/b").exists() && desk.source().join("note.txt").exists());
}

#[test]
fn streams_and_archives_have_paths_in_the_snapshot() {
    let desk = Desk::new();
    desk.write("a", "1");
    desk.ok(&["snapshot", "a", "--stdin", "said", "--command", "echo secret", "--source", "s"]);
    desk.ok(&["rewrite", "--exclude", "/said", "--yes"]);
    assert_eq!(top(&desk), "a\n");
    let members = [("home/key", b'0'), ("home/more", b'0'), ("etc/key", b'0'), ("lone", b'0')];
    let mut tar: Vec<u8> = members.iter().flat_map(|(name, kind)| member(name, *kind)).collect();
    tar.extend([0; 1024]);
    fs::write(desk.path("b-2024-05-31.tar"), tar).unwrap();
    desk.ok(&["import", "--tar", desk.path("b-2024-05-31.tar").to_str().unwrap(), "--source", "t"]);
    let shown = || desk.ok(&["ls", "-R", "latest", "--source", "t"]).lines().map(str::to_owned).collect::<Vec<_>>();
    let said = desk.ok(&["rewrite", "--exclude", "/home/key", "--exclude", "/lone", "--source", "t", "--yes"]);
    assert!(said.contains("2 things go"), "{said}");
    assert!(!shown().concat().contains("home/key") && !shown().concat().contains("lone"), "{:?}", shown());
    assert!(shown().concat().contains("etc/key") && shown().concat().contains("home/more"), "{:?}", shown());
    desk.ok(&["rewrite", "--exclude", "home", "--source", "t", "--yes"]);
    assert!(!shown().concat().contains("home"), "{:?}", shown());
}

#[test]
fn a_restore_deletes_nothing_where_the_rules_could_not_be_read() {
    let desk = Desk::new();
    desk.write("stays", "1");
    desk.write("secret", "2");
    desk.take("2026-01-01");
    let before = desk.packs();
    // The same tree, so that the rules are alone in their pack.
    desk.ok(&["snapshot", ".", "--source", "source", "--exclude", "*.none", "--time", "2026-01-02"]);
    let new: Vec<_> = desk.packs().difference(&before).cloned().collect();
    assert_eq!(new.len(), 1);
    fs::rename(&new[0], desk.path("aside")).unwrap();
    let said = desk.run(&["rewrite", "--exclude", "/secret", "latest", "--yes"]);
    assert!(said.out.contains("1 thing goes, from 1 of 1 snapshots."), "{}{}", said.out, said.err);
    fs::rename(desk.path("aside"), &new[0]).unwrap();
    desk.write("new", "3");
    let restored = desk.json(&["restore", "latest", "--in-place", "--delete", "--yes"]);
    assert_eq!(restored[0]["deleted"], 0);
    assert!(desk.source().join("secret").exists() && desk.source().join("new").exists());
}

#[test]
fn rules_that_are_not_known_in_full_become_none() {
    let desk = Desk::new();
    desk.write("secret", "2");
    // [{"k": 99}]
    desk.write("rules", b"\x91\x81\xa1k\x63");
    desk.take("2026-01-01");
    let vault = opened(&desk, "other");
    let info = vault.snapshots().remove(0);
    let mut body = Snapshot { time: now(), replaces: vec![info.id], ..info.body.clone() };
    body.rules = content(&vault, &body, &["source", "rules"]);
    assert_eq!(RuleSet::read(&body.rules, &mut vault.tree_reader().unwrap()).unwrap(), None);
    say(&vault, RecordBody::Snapshot(Box::new(body)), now(), &Silent::default()).unwrap();
    desk.ok(&["rewrite", "--exclude", "/secret", "--yes"]);
    vault.refresh(&Silent::default()).unwrap();
    assert!(vault.snapshots()[0].body.rules.is_empty());
    desk.ok(&["restore", "latest", "--in-place", "--delete", "--yes"]);
    assert!(desk.source().join("secret").exists());
}

#[test]
fn an_ignore_file_that_is_taken_out_is_told_no_more() {
    let desk = Desk::new();
    desk.write("a/.vaultignore", "the-name-of-it\n");
    desk.write("a/b", "1");
    desk.take("2026-01-01");
    desk.ok(&["rewrite", "--exclude", ".vaultignore", "--yes"]);
    assert!(opened(&desk, "other").snapshots()[0].body.rules.is_empty());
    desk.write("a/the-name-of-it", "2");
    desk.write("a/c", "2");
    desk.ok(&["restore", "latest", "--in-place", "--delete", "--yes"]);
    assert!(desk.source().join("a/the-name-of-it").exists() && desk.source().join("a/c").exists());
}

#[test]
fn the_least_secret_is_gone_after_a_prune_that_leaves_nothing() {
    let desk = Desk::new();
    desk.write("zeros", vec![0; 1 << 20]);
    desk.write("secret", "sesame");
    desk.take("2026-01-01");
    let there = |id: &ChunkId, machine: &str| {
        let vault = opened(&desk, machine);
        vault.know_all(&Silent::default()).unwrap();
        vault.tree_reader().unwrap().chunk(id).is_ok()
    };
    let id = {
        let vault = opened(&desk, "first");
        let body = vault.snapshots().remove(0).body;
        content(&vault, &body, &["source", "secret"]).ids[0]
    };
    assert!(there(&id, "second"));
    let said = desk.ok(&["rewrite", "--exclude", "/secret", "--yes"]);
    assert!(said.contains("vault prune --max-unused 0%"), "{said}");
    desk.ok(&["prune", "--keep", "9"]);
    assert!(there(&id, "third"), "so little stays for later: that is why the option is needed");
    desk.ok(&["prune", "--keep", "9", "--max-unused", "0%"]);
    assert!(!there(&id, "fourth"));
    desk.ok(&["check", "--read-data"]);
}

#[test]
fn a_date_that_was_put_right_stays_whatever_is_changed_then() {
    let world = World::new(small_chunks());
    let vault = world.open();
    let day = |day: i64| Time { secs: day * 86_400, nanos: 0 };
    let take = |text: &str, day: Time| {
        fs::write(world.source().join("a"), text).unwrap();
        let mut options = options(&world.source(), &now);
        options.time = day;
        options.given = true;
        snapshot(&vault, options, &Silent::default()).unwrap().id.unwrap()
    };
    let old = || day(20);
    let how = {
        let mut options = RewriteOptions::new(&now);
        options.level = 1;
        options
    };
    let slow = {
        let mut options = how;
        options.clock = &old;
        options
    };
    let change = |id, change: &Change, how| {
        let all = vault.snapshots();
        let info = all.iter().find(|info| info.stands_for(&id)).unwrap();
        assert_eq!(
            rewrite(&vault, std::slice::from_ref(info), change, how, &Silent::default()).unwrap().replaced.len(),
            1
        );
    };
    let (first, second) = (take("1", day(100)), take("2", day(200)));
    change(first, &Change { time: Some(day(200)), ..Change::default() }, &how);
    let third = take("3", day(200));
    let order = || -> Vec<(usize, i64)> {
        let place = |info: &vault::vault::SnapshotInfo| {
            let number = [first, second, third].iter().position(|id| info.stands_for(id)).unwrap();
            (number + 1, info.date.secs / 86_400)
        };
        vault.snapshots().iter().map(place).collect()
    };
    let expected = [(2, 200), (1, 200), (3, 200)];
    assert_eq!(order(), expected);
    for (tag, how) in [("t", &how), ("u", &slow)] {
        change(first, &Change { add_tags: vec![tag.to_owned()], ..Change::default() }, how);
        assert_eq!(order(), expected, "{tag}");
    }
    // It already has that date.
    let again = Change { time: Some(day(200)), ..Change::default() };
    assert!(rewrite(&vault, &vault.snapshots(), &again, &how, &Silent::default()).unwrap().replaced.is_empty());
}

#[test]
fn snapshots_to_be_changed_are_chosen_as_others_are() {
    let desk = Desk::new();
    for (source, host) in [("a", "h1"), ("a", "h2"), ("b", "h2")] {
        desk.write("x/file", source);
        desk.ok(&["snapshot", ".", "--source", source, "--host", host]);
    }
    let tags = || {
        let listed = desk.json(&["list"]).remove(0);
        let rows = listed["snapshots"].as_array().unwrap().clone();
        rows.iter().map(|row| row["tags"].as_array().unwrap().len()).collect::<Vec<_>>()
    };
    desk.ok(&["tag", "add", "one", "latest", "--source", "a", "--host", "h1"]);
    desk.ok(&["tag", "add", "two,three", "latest", "--source", "b", "--host", "h2"]);
    assert_eq!(tags(), [1, 0, 2]);
    desk.ok(&["tag", "remove", "two", "latest", "--source", "b", "--host", "h2"]);
    assert_eq!(tags(), [1, 0, 1]);
    let count = |args: &[&str]| desk.json(args)[0]["snapshots"].as_array().unwrap().len();
    assert_eq!(count(&["rewrite", "--exclude", "file", "--source", "a", "--dry-run"]), 2);
    assert_eq!(count(&["rewrite", "--iexclude", "FILE", "--host", "h2", "-n"]), 2);
    assert_eq!(count(&["rewrite", "--exclude", "file", "--source", "a", "--host", "h2", "--yes"]), 1);
    assert_eq!(count(&["rewrite", "--exclude", "file", "--dry-run"]), 2);
}

/// The meta packs of a desk's vault.
fn meta_packs(desk: &Desk) -> Vec<PathBuf> {
    desk.packs().into_iter().filter(|path| path.starts_with(desk.path("store/meta"))).collect()
}

#[test]
fn a_folder_that_is_lost_stays_and_all_else_is_taken_out() {
    let desk = Desk::new();
    desk.write("a/x.tmp", "1");
    desk.write("a/keep", "1");
    desk.take("2026-01-01");
    let lost = meta_packs(&desk).remove(0);
    desk.write("b/y.tmp", "2");
    desk.write("b/keep", "2");
    desk.take("2026-01-02");
    fs::rename(&lost, desk.path("aside")).unwrap();
    let state = desk.path("fresh").display().to_string();
    let none = desk.run(&["rewrite", "--exclude", "none", "--yes", "--state", &state]);
    assert_eq!(none.code, 4, "{}", none.err);
    assert!(none.out.contains("Nothing in what could be looked into is like that."), "{}", none.out);
    assert!(none.out.contains("the folder source/a stays as it is, since it cannot be read"), "{}", none.out);
    let said = desk.run(&["rewrite", "--exclude", "*.tmp", "--yes", "--state", &state, "--json"]);
    assert_eq!(said.code, 4, "{}", said.err);
    let said: Value = serde_json::from_str(&said.out).unwrap();
    let broken = said["broken"].as_array().unwrap();
    let paths: Vec<&str> = broken.iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["", "source/a"]);
    assert!(broken.iter().all(|one| one["state"] == "damaged"), "{said}");
    assert_eq!(said["changed"].as_array().unwrap().len(), 1);
    let shown = |path: &str| desk.ok(&["ls", path, "--state", &state]);
    assert_eq!(shown("latest:source/b"), "keep\n");
    // Once it is back, the rest is taken out, too.
    fs::rename(desk.path("aside"), &lost).unwrap();
    assert_eq!(shown("latest:source/a"), "keep\nx.tmp\n");
    desk.ok(&["rewrite", "--exclude", "*.tmp", "--yes", "--state", &state]);
    assert_eq!(shown("latest:source/a"), "keep\n");
    assert!(desk.json(&["find", "*.tmp"]).is_empty());
}

/// Copies everything that one folder has and the other lacks.
fn copy_missing(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy_missing(&path, &to);
        } else if !to.exists() {
            fs::copy(path, to).unwrap();
        }
    }
}

#[test]
fn what_another_machine_has_put_in_the_place_may_be_on_its_way() {
    let desk = Desk::new();
    desk.ok(&["delivery", "synced"]);
    desk.write("a/x.tmp", "1");
    desk.write("b/keep", "2");
    desk.take("2026-01-01");
    let [here, there] = ["store", "there"].map(|name| desk.path(name));
    copy_folder(&here, &there);
    let elsewhere = ["--repo", there.to_str().unwrap(), "--state", "../elsewhere"];
    // The machines get to know each other: before that, none relies on data of the others.
    desk.ok(&[&["snapshot", ".", "--source", "other", "--time", "2026-01-02"][..], &elsewhere].concat());
    copy_missing(&there, &here);
    desk.take("2026-01-03");
    copy_missing(&here, &there);
    desk.ok(&[&["rewrite", "--exclude", "*.tmp", "--yes"][..], &elsewhere].concat());
    // Everything but the new listings arrives.
    let mut folders = vec![there.clone()];
    let mut late = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, to) = (entry.path(), here.join(entry.path().strip_prefix(&there).unwrap()));
            if path.is_dir() {
                fs::create_dir_all(to).unwrap();
                folders.push(path);
            } else if path.starts_with(there.join("meta")) {
                late += usize::from(!to.exists());
            } else if !to.exists() {
                fs::copy(path, to).unwrap();
            }
        }
    }
    assert_eq!(late, 1);
    let checked = desk.run(&["check"]);
    assert_eq!(checked.code, 3, "{}{}", checked.out, checked.err);
    let said = desk.run(&["rewrite", "--exclude", "keep", "--yes"]);
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    assert!(said.out.contains("stays as it is, since it has not arrived yet"), "{}", said.out);
}

/// Stops the work once records are being put.
#[derive(Default)]
struct Impatient {
    silent: Silent,
    ends: AtomicBool,
}

impl Progress for Impatient {
    fn phase(&self, phase: Phase) {
        self.ends.store(phase == Phase::Publish, Relaxed);
    }

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        self.silent.counters()
    }

    fn stopped(&self) -> bool {
        self.ends.load(Relaxed)
    }
}

#[test]
fn many_can_be_stopped_between_and_the_same_again_does_the_rest() {
    let world = World::new(small_chunks());
    fs::write(world.source().join("a"), "1").unwrap();
    let vault = world.open();
    for _ in 0..70 {
        crate::support::take(&vault, &world.source()).unwrap();
    }
    let how = {
        let mut options = RewriteOptions::new(&now);
        options.level = 1;
        options
    };
    let change = Change { add_tags: vec!["t".to_owned()], ..Change::default() };
    let all = vault.snapshots();
    let error = rewrite(&vault, &all, &change, &how, &Impatient::default()).unwrap_err();
    assert!(matches!(error, RewriteError::Partly { done: 64, all: 70, .. }), "{error}");
    let failure = Failure::from(error);
    assert_eq!(failure.exit, Exit::Interrupted);
    assert!(failure.what.contains("64 of 70") && failure.hint.unwrap().contains("goes on with the others"));
    assert_eq!(vault.snapshots().len(), 70);
    let report = rewrite(&vault, &vault.snapshots(), &change, &how, &Silent::default()).unwrap();
    assert_eq!((report.replaced.len(), report.unchanged.len()), (6, 64));
    assert!(vault.snapshots().iter().all(|info| info.body.tags == ["t"]));
}

#[test]
fn two_that_are_one_by_now_are_both_reported() {
    let mut world = World::new(small_chunks());
    fs::write(world.source().join("a"), "1").unwrap();
    world.take();
    world.take();
    let vault = world.open();
    let before = vault.snapshots();
    let replaces = before.iter().map(|info| info.id).collect();
    let one = Snapshot { replaces, ..before[0].body.clone() };
    say(&vault, RecordBody::Snapshot(Box::new(one)), now(), &Silent::default()).unwrap();
    let how = {
        let mut options = RewriteOptions::new(&now);
        options.level = 1;
        options
    };
    let change = Change { add_tags: vec!["t".to_owned()], ..Change::default() };
    for round in 0..2 {
        let report = rewrite(&vault, &before, &change, &how, &Silent::default()).unwrap();
        let now = vault.snapshots();
        assert_eq!(now.len(), 1);
        let both = [before[0].id, before[1].id];
        if round == 0 {
            assert_eq!(report.replaced, both.map(|id| (id, now[0].id)));
        } else {
            assert_eq!((report.unchanged, report.replaced.len()), (both.to_vec(), 0));
        }
    }
}
