//! Selection, order and retention of snapshots: a machine's clock may be wrong, its name is not the only one in the
//! vault, and its disks are not always there.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use vault::engine::prune::retention;
use vault::engine::prune::retention::{Decision, Rules};
use vault::engine::snapshot::snapshot;
use vault::id::ObjectName;
use vault::progress::Silent;
use vault::store::Store;
use vault::store::testing::mem::MemStore;
use vault::tree::Time;
use vault::vault::Vault;

use crate::support::RAW;
use crate::support::binary::{Desk, Said, said};
use crate::support::{create_vault, open_as, options, scratch, small_chunks};

/// 2026-01-01.
const START: i64 = 1_767_225_600;
const DAY: i64 = 86_400;

/// Takes a snapshot of a source called `of`, while the clock shows a day.
fn take_on(vault: &Vault, folder: &Path, day: i64, of: &str, given: Option<i64>) -> ObjectName {
    fs::write(folder.join("file"), format!("{day} {of} {given:?}")).unwrap();
    let at = |day: i64| Time { secs: START + day * DAY, nanos: 0 };
    let clock = move || at(day);
    let mut options = options(folder, &clock);
    of.clone_into(&mut options.source);
    if let Some(given) = given {
        (options.time, options.given) = (at(given), true);
    }
    snapshot(vault, options, &Silent::default()).unwrap().id.unwrap()
}

fn kept(vault: &Vault, rules: Rules, day: i64) -> Vec<ObjectName> {
    let rules = Rules { now: Some(Time { secs: START + day * DAY, nanos: 0 }), ..rules };
    let by_day = |time: Time, _| (time.secs / DAY).to_string();
    let decisions = retention::plan(&vault.snapshots(), &rules, &by_day);
    decisions.into_iter().filter(Decision::keep).map(|decision| decision.id).collect()
}

#[test]
fn a_clock_that_was_wrong_once_drops_nothing_and_does_not_last() {
    let folder = scratch();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    let store: Arc<dyn Store> = Arc::new(MemStore::default());
    create_vault(&*store, small_chunks()).unwrap();
    let raw = vault::seal::Secret::raw(&RAW);
    let vault = open_as(&store, &folder.path().join("state"), &raw, "machine").unwrap();
    let first = take_on(&vault, &source, 1, "s", None);
    let wrong = take_on(&vault, &source, 26_000, "s", None);
    let third = take_on(&vault, &source, 2, "s", None);
    let last = take_on(&vault, &source, 3, "s", None);
    let order: Vec<_> = vault.snapshots().into_iter().map(|info| (info.id, info.is_outlier)).collect();
    assert_eq!(order, [(first, false), (wrong, true), (third, false), (last, false)]);
    let rules = |last| Rules { last: Some(last), ..Rules::default() };
    assert_eq!(kept(&vault, rules(1), 4), [wrong, last]);
    let daily = Rules { periods: [(retention::Period::Day, 3)].into(), ..Rules::default() };
    assert_eq!(kept(&vault, daily, 4), [first, wrong, third, last]);
    // A machine that lost its state continues in the same row.
    let again = open_as(&store, &folder.path().join("state"), &raw, "machine").unwrap();
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    drop((vault, again));
    let vault = open_as(&store, &folder.path().join("state"), &raw, "machine").unwrap();
    let newest = take_on(&vault, &source, 4, "s", None);
    assert_eq!(vault.snapshots().last().unwrap().id, newest);
    // A last date in the future drops nothing either.
    let within = Rules { within: Some(std::time::Duration::from_secs(30 * 86_400)), ..Rules::default() };
    let jumped = take_on(&vault, &source, 2000, "s", None);
    for now in [5, 2000] {
        let kept = kept(&vault, within.clone(), now);
        assert!(kept.contains(&jumped) && kept.contains(&first) && kept.contains(&newest), "{now}: {kept:?}");
    }
    // A given date is that of the content: such a snapshot is never the latest, and takes no slot.
    let old = take_on(&vault, &source, 2001, "s", Some(-5000));
    assert_eq!(vault.snapshots().first().unwrap().id, old);
    assert_eq!(kept(&vault, rules(1), 2001), [old, wrong, jumped]);
}

/// Another machine with the same vault.
fn elsewhere(desk: &Desk, args: &[&str]) -> Said {
    said(&desk.command(args).env("VAULT_STATE_DIR", desk.path("state2")).output().unwrap())
}

fn id(values: &[Value]) -> String {
    values[0]["snapshot"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn the_latest_snapshot_of_another_machine_is_not_written_over_this_one() {
    let desk = Desk::new();
    desk.write("a", "mine");
    desk.ok(&["snapshot", ".", "--host", "mine", "--source", "docs"]);
    fs::create_dir(desk.path("other")).unwrap();
    fs::write(desk.path("other/a"), "theirs").unwrap();
    let taken = elsewhere(&desk, &["snapshot", "../other", "--host", "theirs", "--source", "docs"]);
    assert_eq!(taken.code, 0, "{}", taken.err);
    desk.write("a", "changed");
    let report = desk.json(&["restore", "latest", "--in-place"]);
    assert_eq!(report[0]["host"], "mine");
    assert_eq!((report[0]["source"].as_str(), report[0]["time"].is_string()), (Some("docs"), true));
    assert_eq!(fs::read_to_string(desk.source().join("a")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(desk.path("other/a")).unwrap(), "theirs");
    // A machine without snapshots may look, and learns whose snapshot it sees; commands that write must name the host.
    let new = |args: &[&str]| said(&desk.command(args).env("VAULT_STATE_DIR", desk.path("state3")).output().unwrap());
    let seen = new(&["ls", "latest"]);
    assert!(seen.code == 0 && seen.err.contains("is one of theirs"), "{}", seen.err);
    for args in
        [&["restore", "latest", "--in-place"][..], &["forget", "latest"], &["pin", "latest"], &["diff", "latest"]]
    {
        let refused = new(args);
        assert_eq!(refused.code, 2, "{args:?}: {}", refused.err);
        assert!(refused.err.contains("--host mine, or --host theirs"), "{}", refused.err);
    }
    let said = new(&["pin", "latest", "--host", "theirs"]);
    assert!(said.code == 0 && said.out.contains("(docs on theirs)"), "{}{}", said.out, said.err);
}

#[test]
fn of_several_sources_one_is_named_before_anything_is_written() {
    let desk = Desk::new();
    desk.write("a/file", "1");
    desk.write("b/file", "2");
    let a = id(&desk.json(&["snapshot", "a", "--source", "alpha"]));
    let b = id(&desk.json(&["snapshot", "b", "--source", "beta"]));
    for args in
        [&["restore", "latest", "--in-place"][..], &["forget", "latest"], &["pin", "latest"], &["diff", "latest"]]
    {
        let refused = desk.run(args);
        assert_eq!(refused.code, 2, "{args:?}: {}", refused.err);
        assert!(refused.err.contains("alpha, beta") && refused.err.contains("--source alpha"), "{}", refused.err);
    }
    let restored = |args: &[&str]| desk.json(args)[0]["snapshot"].as_str().unwrap().to_owned();
    assert_eq!(restored(&["restore", "latest", "--in-place", "--source", "alpha"]), a);
    // A path tells which one it is.
    assert_eq!(restored(&["restore", "latest:a/file", "--in-place"]), a);
    let path = desk.source().join("a/file");
    assert_eq!(restored(&["restore", &format!("latest:{}", path.display()), "--in-place"]), a);
    assert_eq!(desk.ok(&["cat", "latest:a/file"]), "1");
    assert_eq!(desk.ok(&["cat", "latest:b/file"]), "2");
    assert_eq!(desk.json(&["diff", "latest", "--source", "beta"]).pop().unwrap()["old"], *b);
}

#[test]
fn a_history_is_that_of_snapshots_that_cover_the_path() {
    let desk = Desk::new();
    desk.write("a/file", "1");
    desk.write("b/other", "2");
    for _ in 0..2 {
        desk.ok(&["snapshot", "a", "--source", "alpha"]);
        desk.ok(&["snapshot", "b", "--source", "beta"]);
    }
    let spells = desk.json(&["history", "a/file"]);
    assert_eq!(spells.len(), 1, "{spells:?}");
    assert_eq!((spells[0]["change"].as_str(), spells[0]["source"].as_str()), (Some("new"), Some("alpha")));
    assert_eq!(spells[0]["snapshots"].as_array().unwrap().len(), 2);
    assert!(!desk.ok(&["history", "a/file"]).contains("gone"));
}

#[test]
fn pins_are_shown() {
    let desk = Desk::new();
    desk.write("a", "1");
    let id = id(&desk.json(&["snapshot", "."]));
    assert_eq!(desk.json(&["list"])[0]["snapshots"][0]["pinned"], false);
    desk.ok(&["pin", &id]);
    assert_eq!(desk.json(&["list"])[0]["snapshots"][0]["pinned"], true);
    assert!(desk.ok(&["list"]).contains("complete, pinned"));
}

#[test]
fn prune_drops_most_of_a_source_only_if_that_is_said() {
    let desk = Desk::new();
    for day in 1..=5 {
        desk.write("a", day.to_string());
        desk.take(&format!("2026-01-0{day}"));
    }
    let refused = desk.run(&["prune", "--keep", "1"]);
    assert!(
        refused.code == 2 && refused.err.contains("4 of the 5") && refused.err.contains("--yes"),
        "{}",
        refused.err
    );
    let refused = desk.run(&["prune", "--keep", "0"]);
    assert!(refused.code == 2 && refused.err.contains("--keep 0"), "{}", refused.err);
    desk.ok(&["prune", "--keep", "1", "--dry-run"]);
    desk.ok(&["prune", "--keep", "3"]);
    assert_eq!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 3);
    desk.ok(&["prune", "--keep", "1", "--yes"]);
    assert_eq!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 1);
    // The last complete snapshot stays whatever the rules say.
    desk.ok(&["prune", "--keep-tag", "none"]);
    assert_eq!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 1);
    desk.ok(&["forget", "latest", "--yes"]);
    desk.ok(&["prune", "--keep", "0"]);
}

/// The snapshots, ignoring other messages.
fn listed(desk: &Desk) -> Vec<Value> {
    let said = desk.run(&["list", "--json"]);
    let mut list: Value = serde_json::from_str(&said.out).unwrap();
    serde_json::from_value(list["snapshots"].take()).unwrap()
}

#[test]
fn a_source_that_vanished_is_not_taken_for_an_empty_one() {
    let desk = Desk::new();
    desk.write("disk/file", "1");
    let full = id(&desk.json(&["snapshot", "disk", "--source", "disk"]));
    fs::remove_file(desk.source().join("disk/file")).unwrap();
    for _ in 0..2 {
        let taken = desk.run(&["snapshot", "disk", "--source", "disk"]);
        assert_eq!(taken.code, 3, "{}{}", taken.out, taken.err);
        assert!(taken.err.contains("is its disk mounted?") && taken.err.contains("--allow-empty"), "{}", taken.err);
    }
    let list = listed(&desk);
    assert_eq!((&list[2]["verdict"], &list[2]["roots"][0]["lost"]), (&Value::from("partial"), &Value::from(true)));
    assert!(desk.run(&["list"]).out.contains("lost"));
    // Retention does not count it.
    desk.run(&["prune", "--keep", "1"]);
    let left = listed(&desk);
    let left: Vec<&Value> = left.iter().map(|snapshot| &snapshot["id"]).collect();
    assert!(left.len() == 2 && left[0] == full.as_str(), "{left:?}");
    // With a path, the newest snapshot that has it is meant.
    assert_eq!(desk.ok(&["cat", "latest:disk/file"]), "1");
    // A user who emptied the source says so once.
    desk.ok(&["snapshot", "disk", "--source", "disk", "--allow-empty"]);
    desk.ok(&["snapshot", "disk", "--source", "disk"]);
    desk.ok(&["list"]);
}

/// A state of a path: its name, and what makes it.
type State = (&'static str, fn(&Path));

/// A path that holds nothing may be another kind of thing than before: docker makes a folder where a file is missing, and a program that
/// fails leaves a file of 0 bytes.
#[test]
fn a_source_that_held_something_and_holds_nothing_is_lost_whatever_it_was_and_is() {
    let desk = Desk::new();
    let path = desk.source().join("it");
    let clear = || {
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir_all(&path);
    };
    let full: [State; 2] = [
        ("file", |path| fs::write(path, "cfg").unwrap()),
        ("folder", |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), "cfg").unwrap();
        }),
    ];
    let empty: [State; 2] = [
        ("file of 0 bytes", |path| fs::write(path, "").unwrap()),
        ("empty folder", |path| fs::create_dir(path).unwrap()),
    ];
    for (was, fill) in full {
        for order in [[0, 1, 0], [1, 0, 1]] {
            let source = format!("{was} {order:?}");
            let take = |more: &[&str]| desk.run(&[&["snapshot", "it", "--source", &source], more].concat());
            clear();
            fill(&path);
            assert_eq!(take(&[]).code, 0, "{source}");
            // The state to compare with is the last one that held something, not the one before.
            for at in order {
                clear();
                (empty[at].1)(&path);
                let taken = take(&[]);
                let what = format!("{was} to {}: {}{}", empty[at].0, taken.out, taken.err);
                assert!(taken.code == 3 && taken.err.contains("--allow-empty"), "{what}");
            }
            desk.run(&["prune", "--keep", "1", "--yes"]);
            let left = listed(&desk).into_iter().filter(|one| one["source"] == source.as_str());
            let lost: Vec<Value> = left.map(|one| one["roots"][0]["lost"].clone()).collect();
            assert_eq!(lost, [Value::from(false), Value::from(true)], "{source}");
            // A user says once that it is to be so.
            assert_eq!(take(&["--allow-empty"]).code, 0, "{source}");
            assert_eq!(take(&[]).code, 0, "{source}");
        }
    }
    // A file that never held anything is no loss, and neither is a folder that becomes a file that holds something.
    clear();
    empty[0].1(&path);
    desk.ok(&["snapshot", "it", "--source", "never"]);
    desk.ok(&["snapshot", "it", "--source", "never"]);
    clear();
    full[1].1(&path);
    desk.ok(&["snapshot", "it", "--source", "never"]);
    clear();
    full[0].1(&path);
    desk.ok(&["snapshot", "it", "--source", "never"]);
}

#[test]
fn an_empty_copy_beside_full_ones_is_partial_and_takes_no_slot() {
    let desk = Desk::new();
    let import = || desk.run(&["import", "--dirs", "dd"]);
    desk.write("dd/2020-01-02/a", "1");
    for empty in ["2020-01-01", "2020-01-03"] {
        fs::create_dir(desk.source().join("dd").join(empty)).unwrap();
    }
    let done = import();
    assert!(done.code == 3 && done.err.contains("it is empty"), "{}{}", done.out, done.err);
    let words = |list: &[Value]| list.iter().map(|one| one["verdict"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(words(&listed(&desk)), ["partial", "complete", "partial"]);
    desk.run(&["prune", "--keep", "1", "--yes"]);
    assert_eq!(words(&listed(&desk)), ["complete", "partial"]);
    // A later import of an empty copy alone is compared with what came before.
    fs::remove_dir_all(desk.source().join("dd")).unwrap();
    fs::create_dir_all(desk.source().join("dd/2020-01-04")).unwrap();
    assert_eq!(import().code, 3);
    // Nothing says that copies that are all empty should not be.
    fs::rename(desk.source().join("dd"), desk.source().join("ee")).unwrap();
    desk.ok(&["import", "--dirs", "ee"]);
}

#[test]
fn reading_out_of_a_snapshot_whose_disk_was_not_mounted_is_told_and_is_no_proof() {
    let desk = Desk::new();
    desk.write("disk/file", "content");
    desk.write("other/file", "more");
    desk.write("conf", "cfg");
    let roots = ["disk", "other", "conf"];
    let take = || desk.run(&[&["snapshot", "--source", "all"], &roots[..]].concat());
    assert_eq!(take().code, 0);
    fs::remove_file(desk.source().join("disk/file")).unwrap();
    fs::write(desk.source().join("conf"), "").unwrap();
    assert_eq!(take().code, 3);
    let told = |args: &[&str], lost: &[&str]| {
        let said = desk.run(args);
        let text = format!("{}{}", said.out, said.err);
        let code = if lost.is_empty() { 0 } else { 3 };
        assert_eq!(said.code, code, "{args:?}: {text}");
        for root in roots {
            let is_told = text.contains(&format!("{root}: it, or a disk below it, held nothing"));
            assert_eq!(is_told, lost.contains(&root), "{args:?}: {text}");
        }
    };
    told(&["restore", "latest", "--to", "../a"], &["disk", "conf"]);
    told(&["restore", "latest", "--to", "../b", "--include", "/other"], &[]);
    told(&["restore", "latest:other", "--to", "../c"], &[]);
    told(&["export", "latest", "--tar", "../a.tar"], &["disk", "conf"]);
    told(&["export", "latest:other", "--tar", "../c.tar"], &[]);
    let id = listed(&desk)[1]["id"].as_str().unwrap().to_owned();
    told(&["restore", &format!("{id}:disk"), "--to", "../d"], &["disk"]);
    told(&["export", &format!("{id}:conf"), "--tar", "../d.tar"], &["conf"]);
    // In place, nothing takes the place of something.
    fs::write(desk.source().join("conf"), "it is back").unwrap();
    desk.write("disk/file", "it is back");
    for more in [&["--overwrite", "always"][..], &["--delete", "--yes"]] {
        told(&[&["restore", "latest", "--in-place"], more].concat(), &["disk", "conf"]);
        for path in ["conf", "disk/file"] {
            assert_eq!(fs::read_to_string(desk.source().join(path)).unwrap(), "it is back");
        }
    }
    // A drill takes the newest snapshot that counts.
    let drill = desk.json(&["drill"]);
    assert_eq!((&drill[0]["files"], &drill[0]["failed"]), (&Value::from(3), &Value::from(0)));
    assert_eq!(drill[0]["snapshots"], serde_json::json!([listed(&desk)[0]["id"]]));
    assert!(desk.run(&["doctor"]).out.contains("A restore of 3 files"));
}

#[test]
fn a_drill_that_finds_no_file_proves_nothing() {
    let desk = Desk::new();
    fs::create_dir(desk.source().join("empty")).unwrap();
    desk.ok(&["snapshot", "empty"]);
    for _ in 0..2 {
        let drill = desk.run(&["drill"]);
        assert!(drill.code == 3 && drill.out.contains("nothing is proven"), "{}{}", drill.out, drill.err);
        assert!(!drill.out.contains("came back as it was"), "{}", drill.out);
    }
    assert!(!desk.run(&["doctor"]).out.contains("A restore of"));
    assert!(!desk.path("state").read_dir().unwrap().any(|one| one.unwrap().path().join("drill").exists()));
}

#[test]
fn a_date_that_is_given_is_never_in_the_future() {
    let desk = Desk::new();
    desk.write("a", "1");
    let refused = desk.run(&["snapshot", ".", "--time", "2999-01-01"]);
    assert!(refused.code == 2 && refused.err.contains("future"), "{}", refused.err);
    fs::write(desk.path("home-2999-05-31.tar"), vec![0; 1024]).unwrap();
    let tar = desk.path("home-2999-05-31.tar");
    let refused = desk.run(&["import", "--tar", tar.to_str().unwrap()]);
    assert!(refused.code != 0 && (refused.out + &refused.err).contains("future"));
}

#[test]
fn an_import_is_not_the_latest_and_takes_no_slot() {
    let desk = Desk::new();
    desk.write("file", "now");
    let living = id(&desk.json(&["snapshot", ".", "--source", "home"]));
    desk.ok(&["export", "latest", "--tar", "../home-2019-05-31.tar"]);
    desk.ok(&["import", "--tar", "../home-2019-05-31.tar"]);
    let list = desk.json(&["list"]);
    let list = list[0]["snapshots"].as_array().unwrap();
    assert_eq!((list.len(), list[1]["id"].as_str()), (2, Some(living.as_str())));
    assert_eq!((&list[0]["given"], &list[1]["given"]), (&Value::from(true), &Value::from(false)));
    desk.ok(&["prune", "--keep", "1"]);
    assert_eq!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 2);
}
