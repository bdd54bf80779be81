//! Snapshots that replace others: tags, descriptions, dates and machines that are corrected, and files that are taken
//! out of all of them. Everything else stays, whatever is interrupted or done by others meanwhile.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use serde_json::Value;
use vault::engine::patterns::exclude::ExcludeOptions;
use vault::engine::prune::collect::CollectOptions;
use vault::engine::prune::{prune, say};
use vault::engine::rewrite::{Change, RewriteOptions, RewriteReport, plan, rewrite};
use vault::engine::snapshot::snapshot;
use vault::id::ObjectName;
use vault::log::RecordBody;
use vault::progress::{Counters, Phase, Progress, Silent};
use vault::seal::Secret;
use vault::store::Store;
use vault::store::testing::faulty::{Fault, FaultyStore, Leaves};
use vault::store::testing::mem::MemStore;
use vault::tree::{FileKind, Time};
use vault::vault::{SnapshotInfo, Vault};

use crate::support::binary::Desk;
use crate::support::model::{assert_same, of_disk, of_snapshot};
use crate::support::source::{bytes, write};
use crate::support::terminal::{Terminal, can_drive};
use crate::support::{RAW, World, check_all, copies, copy_folder, now, open_as, options, small_chunks, take};

fn how() -> RewriteOptions<'static> {
    let mut options = RewriteOptions::new(&now);
    options.level = 1;
    options.threads = 2;
    options
}

fn without(patterns: &[&str]) -> Change {
    Change { exclude: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(), ..Change::default() }
}

fn tagged(tag: &str) -> Change {
    Change { add_tags: vec![tag.to_owned()], ..Change::default() }
}

fn change(vault: &Vault, change: &Change) -> RewriteReport {
    rewrite(vault, &vault.snapshots(), change, &how(), &Silent::default()).unwrap()
}

/// The snapshots as `list` shows them.
fn listed(desk: &Desk) -> Vec<Value> {
    desk.json(&["list"])[0]["snapshots"].as_array().unwrap().clone()
}

#[test]
fn tags_and_descriptions_change_and_all_else_stays() {
    let desk = Desk::new();
    desk.write("a", "1");
    let first = desk.take("2026-01-01");
    desk.write("a", "2");
    let second = desk.take("2026-01-02");
    desk.ok(&["pin", &first]);
    let before = listed(&desk);
    let said = desk.json(&["tag", "add", "good,old", &first[..8]]);
    let new = said[0]["changed"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(said[0]["changed"][0]["replaces"], first.as_str());
    assert_ne!(new, first);
    desk.ok(&["amend", &new, "--description", "the first one"]);
    let after = listed(&desk);
    let ids: Vec<&str> = after[0]["replaces"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert!(ids.len() == 2 && ids.contains(&first.as_str()) && ids.contains(&new.as_str()), "{ids:?}");
    assert_eq!(after[1], before[1], "{second}");
    let (mut old, mut now) = (before[0].clone(), after[0].clone());
    assert_eq!((&now["tags"], &now["description"]), (&serde_json::json!(["good", "old"]), &"the first one".into()));
    for field in ["id", "replaces", "tags", "description"] {
        (old[field], now[field]) = (Value::Null, Value::Null);
    }
    assert_eq!(old, now, "date, place, pin and everything else are unchanged");
    // Old ids lead to it, with a message.
    let seen = desk.run(&["cat", &format!("{}:source/a", &first[..8])]);
    assert_eq!((seen.code, seen.out.as_str()), (0, "1"));
    assert!(seen.err.contains("was changed, and is"), "{}", seen.err);
    let refused = desk.run(&["forget", &first]);
    assert!(refused.code == 1 && refused.err.contains("is pinned"), "{}", refused.err);
    desk.ok(&["unpin", &first]);
    assert!(!listed(&desk)[0]["pinned"].as_bool().unwrap());
    // Snapshots that already match stay.
    let again = desk.json(&["tag", "add", "good", "latest~1"]);
    assert_eq!(
        (again[0]["changed"].as_array().unwrap().len(), again[0]["unchanged"].as_array().unwrap().len()),
        (0, 1)
    );
    desk.ok(&["tag", "remove", "good", "latest~1"]);
    assert_eq!(listed(&desk)[0]["tags"], serde_json::json!(["old"]));
    assert_eq!(desk.json(&["list", "--tag", "old"])[0]["snapshots"].as_array().unwrap().len(), 1);
    for bad in [&["tag", "add", "a,,b", "latest"][..], &["amend", "latest"], &["amend", "latest", "--host", ""]] {
        assert_eq!(desk.run(bad).code, 2, "{bad:?}");
    }
    desk.ok(&["forget", "latest~1"]);
    assert_eq!(listed(&desk).len(), 1, "forgetting it brings nothing back");
    assert_eq!(desk.run(&["check"]).code, 0);
}

#[test]
fn a_date_and_a_machine_can_be_put_right() {
    let desk = Desk::new();
    for (text, time) in [("1", "2026-01-01"), ("2", "2026-01-02")] {
        desk.write("a", text);
        desk.take(time);
    }
    desk.write("a", "3");
    desk.ok(&["snapshot", ".", "--source", "source"]);
    let ids: Vec<String> = listed(&desk).iter().map(|info| info["id"].as_str().unwrap().to_owned()).collect();
    desk.ok(&["pin", &ids[0]]);
    let first = ids[0].as_str();
    desk.ok(&["amend", first, "--time", "2026-01-03"]);
    let after = listed(&desk);
    assert_eq!(
        (&after[0]["id"], &after[1]["time"]),
        (&ids[1].as_str().into(), &"2026-01-03T00:00:00.000000000Z".into())
    );
    assert!(after[1]["given"].as_bool().unwrap() && after[1]["pinned"].as_bool().unwrap());
    assert_eq!(desk.ok(&["cat", "2026-01-03:source/a"]), "1");
    // Later changes keep that date, and a date can be corrected twice.
    desk.ok(&["tag", "add", "t", &ids[0]]);
    assert_eq!(desk.ok(&["cat", "2026-01-03:source/a"]), "1");
    desk.ok(&["amend", &ids[0], "--time", "2025-12-31"]);
    assert_eq!(listed(&desk)[0]["replaces"].as_array().unwrap().len(), 3);
    // The newest one keeps its clock's date with another machine's name.
    desk.ok(&["amend", &ids[2], "--host", "elsewhere"]);
    let after = listed(&desk);
    assert_eq!((&after[2]["host"], &after[2]["given"]), (&"elsewhere".into(), &false.into()));
    assert_eq!(desk.ok(&["cat", "latest:source/a", "--host", "elsewhere"]), "3");
    let future = desk.run(&["amend", &ids[1], "--time", "2999-01-01"]);
    assert!(future.code == 2 && future.err.contains("lies in the future"), "{}", future.err);
    assert_eq!(listed(&desk), after);
    // If several could be meant, --host would be the new name, so only an id selects one.
    desk.ok(&["snapshot", ".", "--source", "other"]);
    let unclear = desk.run(&["amend", "latest", "--description", "x"]);
    assert!(unclear.code == 2 && unclear.err.contains("by its id"), "{}", unclear.err);
    let reader = desk.json(&["prune", "--keep", "1", "--dry-run"]);
    let kept: Vec<bool> =
        reader[0]["snapshots"].as_array().unwrap().iter().map(|row| row["keep"].as_bool().unwrap()).collect();
    assert_eq!(
        kept,
        [true, true, true, true],
        "one of given date is pinned, one is the last of such, one of each machine and source"
    );
}

#[test]
fn what_is_taken_out_is_gone_after_a_prune() {
    let desk = Desk::new();
    let secret = bytes(7, 3 << 20);
    desk.write("keep/a", "1");
    desk.write("keep/image.iso", &secret);
    desk.write("deep/er/image.ISO", &secret);
    desk.write("private/letter", "dear diary");
    desk.write("private/more/letter", "dear diary, too");
    let folder = desk.source().to_string_lossy().into_owned();
    let take = |time: &str| {
        let taken = desk.json(&["snapshot", &folder, "--time", time, "--source", "source"]);
        taken[0]["snapshot"]["id"].as_str().unwrap().to_owned()
    };
    let first = take("2026-01-01");
    desk.write("keep/a", "2");
    let second = take("2026-01-02");
    let dir = desk.path("clean");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("x"), "x").unwrap();
    desk.ok(&["snapshot", dir.to_str().unwrap(), "--source", "clean"]);
    let before = listed(&desk);
    let private = format!("{folder}/private");
    let args = ["rewrite", "--iexclude", "*.iso", "--exclude", &private];
    // Nobody is there to be asked.
    let refused = desk.run(&args);
    assert!(refused.code == 2 && refused.err.contains("--yes"), "{}", refused.err);
    let shown = desk.ok(&[&args[..], &["--dry-run"]].concat());
    for part in [
        "source/keep/image.iso  (3.0 MiB, in 2 snapshots)",
        "source/deep/er/image.ISO  (3.0 MiB, in 2 snapshots)",
        "source/private/  (2 files, 25 B, in 2 snapshots)",
        "3 things go, from 2 of 3 snapshots.",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let planned = desk.json(&[&args[..], &["--dry-run"]].concat());
    assert_eq!(planned[0]["gone"].as_array().unwrap().len(), 3);
    assert_eq!(planned[0]["snapshots"], serde_json::json!([first, second]));
    assert_eq!(listed(&desk), before, "a dry run changes nothing");
    let said = desk.ok(&[&args[..], &["--yes"]].concat());
    assert!(
        said.contains("vault prune") && said.contains("is still there: the next snapshot takes it again"),
        "{said}"
    );
    let after = listed(&desk);
    assert_eq!(after[2], before[2]);
    for (old, new) in before.iter().zip(&after).take(2) {
        assert_eq!((&old["time"], &old["source"], &old["tags"]), (&new["time"], &new["source"], &new["tags"]));
        assert_eq!(old["files"].as_u64().unwrap() - 4, new["files"].as_u64().unwrap());
        assert_eq!(old["folders"].as_u64().unwrap() - 2, new["folders"].as_u64().unwrap());
        assert_eq!(old["bytes"].as_u64().unwrap() - 2 * (3 << 20) - 25, new["bytes"].as_u64().unwrap());
    }
    assert_eq!(desk.json(&["find", "*.iso", "--ignore-case"]).len() + desk.json(&["find", "letter"]).len(), 0);
    assert_eq!(desk.ok(&["cat", &format!("{first}:source/keep/a")]), "1");
    // A second time there is nothing to do, and no question.
    let again = desk.ok(&[&args[..], &["--yes"]].concat());
    assert!(again.contains("Nothing in these snapshots is like that"), "{again}");
    let size = || desk.json(&["stats"])[0]["bytes_packs"].as_u64().unwrap();
    let full = size();
    desk.ok(&["prune", "--keep", "9", "--max-unused", "0%", "--yes"]);
    assert!(size() < full / 3, "{full} to {}", size());
    assert_eq!(desk.run(&["check", "--read-data"]).code, 0);
    // Files that were taken out do not count as absent: a restore that deletes leaves them alone.
    desk.write("new", "3");
    let restored = desk.json(&["restore", &after[1]["id"].as_str().unwrap()[..8], "--in-place", "--delete", "--yes"]);
    assert_eq!(restored[0]["deleted"], 1);
    assert!(!desk.source().join("new").exists());
    for stays in ["keep/image.iso", "deep/er/image.ISO", "private/letter", "private/more/letter"] {
        assert!(desk.source().join(stays).exists(), "{stays}");
    }
    // The next snapshot that also leaves them out has the same tree.
    let same = desk.json(&["snapshot", &folder, "--source", "source", "--iexclude", "*.iso", "--exclude", "/private"]);
    assert!(same[0]["unchanged"].as_bool().unwrap());
}

#[test]
fn it_is_asked_on_a_terminal_and_said_what_goes() {
    if !can_drive() {
        return;
    }
    let desk = Desk::new();
    desk.write("a", "1");
    desk.write("b", "2");
    desk.take("2026-01-01");
    let before = listed(&desk);
    for (answer, code) in [("n", 130), ("y", 0)] {
        let mut terminal = Terminal::start(&desk.command(&[]), "rewrite --exclude /b");
        let shown = terminal.wait("[y/N] ");
        assert!(shown.contains("source/b  (1 B, in 1 snapshot)"), "{shown}");
        assert!(shown.contains("Take this out of 1 snapshot for good?"), "{shown}");
        terminal.enter(answer);
        assert_eq!(terminal.end(), code, "{}", terminal.text());
        assert_eq!(listed(&desk) == before, answer == "n");
    }
    assert_eq!(desk.ok(&["ls", "latest:source"]), "a\n");
}

/// Three snapshots of a source with shared folders, and files of several names.
fn world() -> World {
    let mut world = World::new(small_chunks());
    for folder in ["one", "one/two", "three"] {
        fs::create_dir(world.source().join(folder)).unwrap();
        write(&world.source().join(folder).join("keep"), 5, 3_000);
        write(&world.source().join(folder).join("x.tmp"), folder.len() as u64, 9_000);
    }
    fs::create_dir(world.source().join("gone")).unwrap();
    write(&world.source().join("gone/file"), 9, 20_000);
    fs::hard_link(world.source().join("gone/file"), world.source().join("other name")).unwrap();
    fs::hard_link(world.source().join("one/keep"), world.source().join("one/again")).unwrap();
    fs::hard_link(world.source().join("one/keep"), world.source().join("gone/again")).unwrap();
    for number in 0..3 {
        write(&world.source().join("three/changes"), number, 2_000);
        world.take();
    }
    world
}

/// Removes from the disk everything that the patterns match.
fn leave(world: &World) {
    fs::remove_dir_all(world.source().join("gone")).unwrap();
    for folder in ["one", "one/two", "three"] {
        fs::remove_file(world.source().join(folder).join("x.tmp")).unwrap();
    }
}

const PATTERNS: [&str; 2] = ["*.tmp", "/gone/"];

#[test]
fn what_stays_is_as_a_snapshot_would_have_taken_it_that_left_out_the_same() {
    let world = world();
    let vault = world.open();
    let before = vault.snapshots();
    // The content that such a snapshot stores now, in a vault of its own.
    let other = World::new(small_chunks());
    let taken = {
        let exclude = ExcludeOptions { patterns: without(&PATTERNS).exclude, ..ExcludeOptions::default() };
        let mut options = options(&world.source(), &now);
        options.exclude = exclude;
        snapshot(&other.open(), options, &Silent::default()).unwrap().snapshot
    };
    let report = change(&vault, &without(&PATTERNS));
    assert_eq!(report.replaced.len(), 3);
    let after = vault.snapshots();
    let last = &after[2].body;
    assert_eq!((last.files, last.folders, last.bytes), (taken.files, taken.folders, taken.bytes));
    leave(&world);
    let read = of_snapshot(&vault, last);
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    let (mut left, mut found) = (of_disk(&world.source(), b"top"), read.nodes);
    // Only the times of folders differ: the files were deleted on the disk later.
    for node in left.values_mut().chain(found.values_mut()).filter(|node| node.kind == FileKind::Directory) {
        node.mtime = Time::default();
    }
    assert_same(&left, &found, "what is left");
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((old.date, &old.body.source, &old.body.tags), (new.date, &new.body.source, &new.body.tags));
        assert_eq!(new.replaced, [old.id]);
        assert!(of_snapshot(&vault, &new.body).errors.is_empty());
    }
    assert_eq!(copies(&vault), 0, "nothing is stored twice");
    // A snapshot of the remaining files finds everything stored.
    let next = take(&vault, &world.source()).unwrap();
    assert_eq!(next.snapshot.links, last.links);
    assert_eq!(next.snapshot.bytes_new, 0);
}

#[test]
fn folders_that_snapshots_share_are_stored_once() {
    let world = world();
    let vault = world.open();
    let all = vault.snapshots();
    let one = {
        let world = World { store: MemStore::from_state(world.store.snapshot()), ..self::world() };
        let vault = open_as(&world.shared(), &world.folder.path().join("fresh"), &Secret::raw(&RAW), "third").unwrap();
        rewrite(&vault, &vault.snapshots()[..1], &without(&PATTERNS), &how(), &Silent::default()).unwrap().bytes_stored
    };
    let trial = plan(&vault, &all, &without(&PATTERNS), 2, &Silent::default()).unwrap();
    assert_eq!(trial.changes.len(), 3);
    let three = change(&vault, &without(&PATTERNS)).bytes_stored;
    // Only two of the five folders differ from one snapshot to the next.
    assert!(three < one * 2, "{three} against {one}");
}

#[test]
fn a_crash_at_any_write_leaves_each_as_it_was_or_as_it_is_to_be() {
    let world = world();
    let clean = world.store.snapshot();
    crate::support::copy_folder(&world.state(), &world.folder.path().join("saved"));
    let before = world.open().snapshots();
    let raw = Secret::raw(&RAW);
    let (mut is_cut, mut half) = (0, 0);
    for write in 0.. {
        for leaves in [Leaves::Nothing, Leaves::Whole] {
            fs::remove_dir_all(world.state()).unwrap();
            crate::support::copy_folder(&world.folder.path().join("saved"), &world.state());
            let store = Arc::new(
                FaultyStore::new(MemStore::from_state(clean.clone())).with(Fault::CutAtWrite { write, leaves }),
            );
            let shared: Arc<dyn Store> = store.clone();
            let vault = open_as(&shared, &world.state(), &raw, "machine").unwrap();
            let done = rewrite(&vault, &before, &without(&PATTERNS), &how(), &Silent::default());
            drop(vault);
            store.heal();
            let vault = open_as(&shared, &world.state(), &raw, "machine").unwrap();
            let now = vault.snapshots();
            assert_eq!(now.len(), 3, "write {write}");
            let changed = now.iter().zip(&before).filter(|(now, before)| now.id != before.id).count();
            half += usize::from(changed > 0 && changed < 3);
            for (now, before) in now.iter().zip(&before) {
                assert!(now.stands_for(&before.id) && now.date == before.date);
                assert!(of_snapshot(&vault, &now.body).errors.is_empty(), "write {write}");
            }
            if done.is_err() {
                is_cut += 1;
                change(&vault, &without(&PATTERNS));
            }
            let after = vault.snapshots();
            assert!(after.iter().zip(&before).all(|(now, before)| now.stands_for(&before.id) && now.id != before.id));
            assert!(plan(&vault, &after, &without(&PATTERNS), 1, &Silent::default()).unwrap().changes.is_empty());
            if leaves == Leaves::Whole && done.is_ok() {
                assert!(is_cut > 6 && half > 0, "{is_cut} {half}");
                return;
            }
        }
    }
}

/// The work at such a moment.
type Deed<'m> = Box<dyn FnOnce() + Send + 'm>;

/// Does some work when records are about to be put, one item each time.
struct Meanwhile<'m> {
    silent: Silent,
    deeds: Mutex<VecDeque<Deed<'m>>>,
}

impl<'m> Meanwhile<'m> {
    fn new(work: impl FnOnce() + Send + 'm) -> Self {
        Self::each([Box::new(work) as Deed<'m>])
    }

    fn each(deeds: impl IntoIterator<Item = Deed<'m>>) -> Self {
        Self { silent: Silent::default(), deeds: Mutex::new(deeds.into_iter().collect()) }
    }
}

impl Progress for Meanwhile<'_> {
    fn phase(&self, phase: Phase) {
        if phase == Phase::Publish
            && let Some(deed) = self.deeds.lock().unwrap().pop_front()
        {
            deed();
        }
    }

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        self.silent.counters()
    }

    fn stopped(&self) -> bool {
        false
    }
}

/// Two machines over the same vault.
fn two(world: &World) -> [Vault; 2] {
    let open =
        |name: &str| open_as(&world.shared(), &world.folder.path().join(name), &Secret::raw(&RAW), name).unwrap();
    [open("first"), open("second")]
}

fn refreshed(vault: &Vault) -> Vec<SnapshotInfo> {
    vault.refresh(&Silent::default()).unwrap();
    vault.snapshots()
}

#[test]
fn two_that_change_the_same_snapshot_at_once_both_get_what_they_wanted() {
    let (mut won, mut lost) = (0, 0);
    // Names are random: either the second record counts, or the first.
    for round in 0..200 {
        let world = world();
        let [first, second] = two(&world);
        let before = second.snapshots();
        let meanwhile = Meanwhile::new(|| {
            change(&first, &without(&PATTERNS));
        });
        let report = rewrite(&second, &before[..1], &tagged("mine"), &how(), &meanwhile).unwrap();
        for vault in [&first, &second] {
            let after = refreshed(vault);
            assert_eq!(after.len(), 3, "round {round}");
            assert!(after[0].stands_for(&before[0].id) && after[0].date == before[0].date);
            assert_eq!(after[0].body.tags, ["mine"]);
            assert_eq!(report.replaced, [(before[0].id, after[0].id)]);
            for info in &after {
                let read = of_snapshot(vault, &info.body);
                assert!(
                    read.errors.is_empty() && !read.nodes.keys().any(|path| path.ends_with(b".tmp")),
                    "round {round}"
                );
            }
        }
        let records = |vault: &Vault| {
            let chains = vault.chains();
            let bodies = chains.links().map(|link| link.record.body.clone()).collect::<Vec<_>>();
            bodies
                .into_iter()
                .filter(|body| matches!(body, RecordBody::Snapshot(body) if body.tags == ["mine"]))
                .count()
        };
        // It was put again, replacing the other one's, or both.
        assert_eq!(records(&second), 2, "round {round}");
        let is_void = |info: &SnapshotInfo| info.replaced.len();
        if is_void(&second.snapshots()[0]) == 3 {
            won += 1;
        } else {
            lost += 1;
        }
        if won > 0 && lost > 0 {
            return;
        }
    }
    panic!("only one of two orders came: {won} {lost}");
}

#[test]
fn what_three_say_at_once_is_all_said() {
    // Names are random: each time another one counts.
    for round in 0..12 {
        let world = world();
        let [first, second] = two(&world);
        let before = second.snapshots();
        // One that finishes before it can know the second one, and one that changes whichever counts by then.
        let deeds: [Deed<'_>; 2] = [
            Box::new(|| drop(change(&first, &without(&PATTERNS)))),
            Box::new(|| {
                let now = refreshed(&first);
                rewrite(&first, &now[..1], &tagged("third"), &how(), &Silent::default()).unwrap();
            }),
        ];
        let meanwhile = Meanwhile::each(deeds);
        rewrite(&second, &before[..1], &tagged("mine"), &how(), &meanwhile).unwrap();
        assert!(meanwhile.deeds.lock().unwrap().is_empty());
        let after = refreshed(&first);
        assert_eq!(after.len(), 3, "round {round}");
        assert!(after[0].stands_for(&before[0].id) && after[0].date == before[0].date);
        assert_eq!(after[0].body.tags, ["mine", "third"], "round {round}");
        let read = of_snapshot(&first, &after[0].body);
        assert!(read.errors.is_empty() && !read.nodes.keys().any(|path| path.ends_with(b".tmp")), "round {round}");
    }
}

#[test]
fn what_was_forgotten_meanwhile_stays_forgotten_or_is_changed() {
    let world = world();
    let [first, second] = two(&world);
    let before = second.snapshots();
    let forget =
        |info: &SnapshotInfo| say(&first, RecordBody::Forget(vec![info.id]), now(), &Silent::default()).unwrap();
    // Before the records are put: forgetting the old one does not forget the new one (SPEC 8.3).
    let meanwhile = Meanwhile::new(|| forget(&before[0]));
    rewrite(&second, &before[..1], &tagged("t"), &how(), &meanwhile).unwrap();
    assert_eq!(refreshed(&first).len(), 3);
    // Before the work begins: there is nothing to change.
    forget(&before[1]);
    let report = rewrite(&second, &before[1..2], &tagged("t"), &how(), &Silent::default()).unwrap();
    assert!(report.replaced.is_empty() && report.unchanged.is_empty());
    assert_eq!(report.forgotten, [before[1].id]);
    assert_eq!(refreshed(&second).len(), 2);
}

#[test]
fn what_is_being_given_up_is_not_relied_on() {
    let world = world();
    let [first, second] = two(&world);
    take(&second, &world.source()).unwrap();
    let all = refreshed(&first);
    let mut options = CollectOptions::new(&now);
    options.max_unused = 0.0;
    options.level = 1;
    // The first condemns packs, which it may not delete before the second has seen that.
    let names: Vec<ObjectName> = all.iter().skip(1).map(|info| info.id).collect();
    say(&first, RecordBody::Forget(names.clone()), now(), &Silent::default()).unwrap();
    prune(&first, &[], &options, &Silent::default()).unwrap();
    let condemned = first.condemned();
    assert!(!condemned.is_empty(), "packs that are deleted at once prove nothing");
    // Snapshots that do not need them stay, and can be changed.
    change(&first, &tagged("fine"));
    let needed = refreshed(&first)[0].body.clone();
    assert!(of_snapshot(&first, &needed).errors.is_empty());
    // A snapshot that needs condemned packs: as if its record had come late.
    let gone = all.iter().find(|info| info.id == names[2]).unwrap();
    say(&first, RecordBody::Snapshot(Box::new(gone.body.clone())), now(), &Silent::default()).unwrap();
    let late = refreshed(&first);
    let error = rewrite(&first, &late, &tagged("late"), &how(), &Silent::default()).unwrap_err();
    assert!(error.to_string().contains("being given up"), "{error}");
}

#[test]
fn a_snapshot_of_another_machine_can_be_changed_and_stays_theirs() {
    let world = world();
    let [first, second] = two(&world);
    take(&first, &world.source()).unwrap();
    let theirs = refreshed(&second).pop().unwrap();
    assert_eq!(theirs.client, first.client().unwrap());
    rewrite(&second, std::slice::from_ref(&theirs), &tagged("seen"), &how(), &Silent::default()).unwrap();
    let now = second.snapshots().pop().unwrap();
    assert_eq!((now.client, now.body.host.as_str()), (first.client().unwrap(), "host"));
    assert_eq!(now.body.tags, ["seen"]);
}

#[test]
fn what_is_lost_stays_known_and_goes_with_what_is_taken_out() {
    let desk = Desk::new();
    desk.write("gone", bytes(1, 200_000));
    desk.write("stays", "s");
    desk.take("2026-01-01");
    // The pack with the content is lost; the trees are not.
    let packs = walk(&desk.path("store/packs"));
    assert_eq!(packs.len(), 1);
    fs::remove_file(&packs[0]).unwrap();
    assert_eq!(desk.run(&["repair", "--yes"]).code, 4);
    let lost = |desk: &Desk| {
        let said = desk.run(&["list", "--json"]);
        let list: Value = serde_json::from_str(said.out.lines().next().unwrap()).unwrap();
        list["damaged"].as_array().unwrap().first().map_or(0, |damaged| damaged["count"].as_u64().unwrap())
    };
    assert_eq!(lost(&desk), 2);
    desk.run(&["tag", "add", "t", "latest"]);
    assert_eq!(lost(&desk), 2, "the replacement has lost the same files");
    let said = desk.run(&["rewrite", "--exclude", "/gone", "--yes"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(lost(&desk), 1);
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_snapshot_whose_folders_are_lost_stays_as_it_is() {
    let desk = Desk::new();
    desk.write("a/x.tmp", "1");
    desk.take("2026-01-01");
    let first = walk(&desk.path("store/meta"));
    desk.write("b/y.tmp", "2");
    fs::remove_dir_all(desk.source().join("a")).unwrap();
    desk.take("2026-01-02");
    assert_eq!(first.len(), 1);
    fs::remove_file(&first[0]).unwrap();
    let said = desk.run(&["rewrite", "--exclude", "*.tmp", "--yes", "--state", desk.path("fresh").to_str().unwrap()]);
    assert_eq!(said.code, 4, "{}{}", said.out, said.err);
    assert!(said.out.contains("stays as it is, since it cannot be read"), "{}", said.out);
    assert!(said.out.contains("1 thing goes, from 1 of 2 snapshots."), "{}", said.out);
    let left = desk.run(&["find", "y.tmp", "--json"]);
    assert_eq!((left.code, left.out.as_str()), (4, ""));
    // The same if this machine remembers the names of the lost files.
    let desk = Desk::new();
    desk.write("a/x.tmp", "1");
    desk.take("2026-01-01");
    desk.ok(&["find", "x.tmp"]);
    let first = walk(&desk.path("store/meta"));
    desk.write("a/x.tmp", "2");
    desk.write("a/y", "2");
    desk.take("2026-01-02");
    fs::remove_file(&first[0]).unwrap();
    let said = desk.run(&["rewrite", "--exclude", "*.tmp", "--yes", "--json"]);
    assert_eq!(said.code, 4, "{}{}", said.out, said.err);
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((report["changed"].as_array().unwrap().len(), report["broken"].as_array().unwrap().len()), (1, 1));
}

#[test]
fn what_is_taken_out_is_not_in_the_lists_of_a_snapshot_either() {
    let desk = Desk::new();
    desk.write("secret/a", "1");
    desk.write("secret/.vaultignore", "*.o\n");
    desk.write("ok/.vaultignore", "*.tmp\n");
    desk.write("ok/b", "1");
    desk.take("2026-01-01");
    let vault = {
        let store: Arc<dyn Store> = Arc::new(vault::store::dir::DirStore::open(&desk.path("store")).unwrap());
        open_as(&store, &desk.path("state2"), &Secret::raw(&RAW), "machine").unwrap()
    };
    let rules = |vault: &Vault| {
        let info = vault.snapshots().pop().unwrap();
        let mut trees = vault.tree_reader().unwrap();
        (vault::tree::RuleSet::read(&info.body.rules, &mut trees).unwrap().unwrap(), info)
    };
    assert_eq!(rules(&vault).0.ignore_files.len(), 2);
    change(&vault, &without(&["secret"]));
    let (rules, info) = rules(&vault);
    assert_eq!(rules.left_out, [b"source/secret".to_vec()].into());
    assert_eq!(rules.ignore_files.keys().collect::<Vec<_>>(), [b"source/ok"]);
    assert_eq!(info.body.skipped, 0);
    check_all(&vault, &std::collections::BTreeMap::new());
}

/// A member of an archive, empty.
pub fn member(name: &str, kind: u8) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(b"00000000000");
    block[136..147].copy_from_slice(b"00000000001");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[test]
fn what_could_not_be_saved_is_named_no_more_where_it_is_taken_out() {
    let desk = Desk::new();
    // Members of an unknown kind are not saved, but named.
    let members = [("top/secret/file", b'0'), ("top/secret/odd", b'9'), ("top/lone/odd", b'9'), ("top/ok/file", b'0')];
    let mut tar: Vec<u8> = members.iter().flat_map(|(name, kind)| member(name, *kind)).collect();
    tar.extend([0; 1024]);
    fs::write(desk.path("a-2024-05-31.tar"), tar).unwrap();
    assert_eq!(desk.run(&["import", "--tar", desk.path("a-2024-05-31.tar").to_str().unwrap()]).code, 3);
    let skipped = |desk: &Desk| -> Vec<String> {
        let said = desk.json(&["ls", "--skipped", "latest"]);
        said[0]["skipped"].as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(skipped(&desk), ["top/secret/odd", "top/lone/odd"]);
    desk.ok(&["rewrite", "--exclude", "/secret", "--yes"]);
    assert_eq!(skipped(&desk), ["top/lone/odd"]);
    assert_eq!(listed(&desk)[0]["verdict"], "partial");
    // Nothing in the tree matches, but the name is in the list.
    let said = desk.ok(&["rewrite", "--exclude", "/ok", "--exclude", "/lone", "--yes"]);
    assert!(said.contains("1 thing goes"), "{said}");
    assert!(skipped(&desk).is_empty());
    assert_eq!(listed(&desk)[0]["verdict"], "complete");
}

/// A desk with a synced vault and the folder as another machine has it.
struct Far {
    desk: Desk,
    view: std::path::PathBuf,
}

impl Far {
    fn new() -> Self {
        let desk = Desk::new();
        desk.write("keep", bytes(1, 30_000));
        desk.write("secret", bytes(2, 30_000));
        desk.take("2026-01-01");
        desk.ok(&["delivery", "synced"]);
        let view = desk.path("view");
        copy_folder(&desk.path("store"), &view);
        Self { desk, view }
    }

    /// Runs a command on the other machine.
    fn run(&self, args: &[&str]) -> crate::support::binary::Said {
        let mut command = self.desk.command(args);
        command.env("VAULT_REPO", &self.view).env("VAULT_STATE_DIR", self.desk.path("far"));
        crate::support::binary::said(&command.output().unwrap())
    }

    /// Copies everything from one folder to the other.
    fn bring(from: &Path, to: &Path, below: &str) {
        let from = from.join(below);
        if from.exists() {
            copy_folder(&from, &to.join(below));
        }
    }
}

/// The record of a change may arrive before the rest of it: under its old id the snapshot is read unchanged.
#[test]
fn what_a_snapshot_was_is_there_until_what_it_is_now_has_arrived() {
    let far = Far::new();
    let old = listed(&far.desk)[0]["id"].as_str().unwrap().to_owned();
    far.desk.ok(&["rewrite", "--exclude", "secret", "--yes"]);
    let new = listed(&far.desk)[0]["id"].as_str().unwrap().to_owned();
    let store = far.desk.path("store");
    Far::bring(&store, &far.view, "log");
    let to = far.desk.path("restored");
    let restore = |name: &str| {
        let _ = fs::remove_dir_all(&to);
        far.run(&["restore", name, "--to", to.to_str().unwrap()])
    };
    let told = restore(&old);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    let words = told.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("has arrived here yet, so it is read as it was before that change"), "{words}");
    assert_eq!(fs::read(to.join("source/secret")).unwrap(), bytes(2, 30_000));
    assert!(far.run(&["ls", &format!("{old}:source")]).out.contains("secret"));
    assert_ne!(restore(&new).code, 0, "the new id means the new snapshot");
    for folder in ["packs", "meta", "index"] {
        Far::bring(&store, &far.view, folder);
    }
    let told = restore(&old);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    assert!(!to.join("source/secret").exists() && to.join("source/keep").exists());
}

/// Two machines add a tag to one snapshot, and neither sees the other's change. Returns the snapshot's id.
fn changed_at_once(far: &Far) -> String {
    let id = listed(&far.desk)[0]["id"].as_str().unwrap().to_owned();
    // Each of them knows the other.
    let store = far.desk.path("store");
    for _ in 0..2 {
        let told = far.run(&["pin", &id]);
        assert_eq!(told.code, 0, "{}{}", told.out, told.err);
        Far::bring(&far.view, &store, "log");
        far.desk.ok(&["unpin", &id]);
        Far::bring(&store, &far.view, "log");
    }
    far.desk.ok(&["tag", "add", "here", &id]);
    let told = far.run(&["tag", "add", "there", &id]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    Far::bring(&far.view, &store, "log");
    let list = far.desk.run(&["list"]);
    assert_eq!(list.code, 3, "{}{}", list.out, list.err);
    let doctor = far.desk.run(&["doctor"]);
    let words = doctor.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("does not count, since another machine changed it at the same time"), "{words}");
    let tags = listed_with(&far.desk, 3)[0]["tags"].clone();
    assert!(tags == serde_json::json!(["here"]) || tags == serde_json::json!(["there"]), "{tags}");
    id
}

#[test]
fn a_change_that_does_not_count_is_told_and_the_next_one_takes_it_over() {
    let far = Far::new();
    let id = changed_at_once(&far);
    let told = far.desk.run(&["tag", "add", "more", &id]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    let list = far.desk.run(&["list"]);
    assert_eq!(list.code, 0, "{}{}", list.out, list.err);
    assert_eq!(listed(&far.desk)[0]["tags"], serde_json::json!(["here", "more", "there"]));
    // The other machine sees the same.
    Far::bring(&far.desk.path("store"), &far.view, "log");
    let list = far.run(&["list", "--json"]);
    assert_eq!(list.code, 0, "{}{}", list.out, list.err);
    assert!(list.out.contains("\"more\"") && list.out.contains("\"there\""), "{}", list.out);
}

#[test]
fn a_change_that_does_not_count_can_be_given_up() {
    let far = Far::new();
    changed_at_once(&far);
    let known: Value = serde_json::from_str(&far.desk.run(&["accept", "--json"]).out).unwrap();
    let finding = known["findings"][0]["id"].as_str().unwrap();
    let before = listed_with(&far.desk, 3)[0]["tags"].clone();
    let accepted = far.desk.run(&["accept", finding, "--yes"]);
    assert_eq!(accepted.code, 0, "{}{}", accepted.out, accepted.err);
    assert_eq!(listed(&far.desk)[0]["tags"], before);
}

fn listed_with(desk: &Desk, code: i32) -> Vec<Value> {
    let said = desk.run(&["list", "--json"]);
    assert_eq!(said.code, code, "{}", said.err);
    serde_json::from_str::<Value>(&said.out).unwrap()["snapshots"].as_array().unwrap().clone()
}
