//! Known problems stay known: until they are seen to be gone, repaired, or accepted.
//!
//! Some of the ways to harm an object, and of the orders of the commands after it, are tried by default; with
//! `VAULT_CAMPAIGN=n` all of them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use vault::id::{ClientId, Digest};
use vault::log::{Record, RecordBody};
use vault::progress::Silent;
use vault::seal::Secret;
use vault::store::dir::DirStore;
use vault::tree::{FileKind, Snapshot, Time};
use vault::vault::OpenOptions;
use vault::vault::open::open;

use crate::support::binary::{Desk, said};
use crate::support::os::fifo;
use crate::support::source::{Rng, bytes};
use crate::support::{PASSWORD, RAW, campaign, copy_folder, identity};

/// The files below a folder of the store.
fn objects(desk: &Desk, folder: &str) -> Vec<PathBuf> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(&desk.path("store").join(folder), &mut found);
    found.sort();
    found
}

/// The record of the newest snapshot.
fn newest(desk: &Desk) -> PathBuf {
    let list = desk.json(&["list"]);
    let id = list[0]["snapshots"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    desk.path("store/log").join(id)
}

#[track_caller]
fn ends(desk: &Desk, args: &[&str], code: i32) -> String {
    let said = desk.run(args);
    assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
    format!("{}{}", said.out, said.err)
}

/// A vault with two snapshots; the second one has a file of its own.
fn desk() -> Desk {
    desk_and_new().0
}

/// The same, and the objects that were put with the second snapshot.
fn desk_and_new() -> (Desk, Vec<PathBuf>) {
    let desk = Desk::new();
    desk.write("a", vec![1; 3000]);
    desk.take("2026-01-01 12:00");
    let before = objects(&desk, "");
    desk.write("b", (0..40_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    desk.take("2026-01-02 12:00");
    let new = objects(&desk, "").into_iter().filter(|path| !before.contains(path)).collect();
    (desk, new)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_that_was_found_is_known_until_it_is_seen_sound() {
    let desk = desk();
    let pack = objects(&desk, "packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    flip(&pack, 5000);
    ends(&desk, &["check"], 0);
    ends(&desk, &["check", "--read-data"], 4);
    for args in [&["check"][..], &["list"], &["stats"], &["doctor"], &["check"], &["accept"]] {
        let text = ends(&desk, args, 4);
        assert!(args[0] == "stats" || text.contains(pack.file_name().unwrap().to_str().unwrap()), "{args:?}: {text}");
    }
    // Another machine knows it as well, since it was written into the log.
    let other = said(&desk.command(&["list"]).env("VAULT_STATE_DIR", desk.path("other")).output().unwrap());
    assert_eq!(other.code, 4, "{}{}", other.out, other.err);
    flip(&pack, 5000);
    ends(&desk, &["check"], 4);
    ends(&desk, &["check", "--read-data"], 0);
    for args in [&["check"][..], &["list"], &["stats"]] {
        ends(&desk, args, 0);
    }
    let other = said(&desk.command(&["list"]).env("VAULT_STATE_DIR", desk.path("other")).output().unwrap());
    assert_eq!(other.code, 0, "{}{}", other.out, other.err);
}

#[test]
fn damage_that_was_accepted_is_not_spoken_of() {
    let desk = desk();
    let pack = objects(&desk, "packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    flip(&pack, 5000);
    ends(&desk, &["check", "--read-data"], 4);
    let findings = desk.run(&["accept", "--json"]).out;
    let findings: serde_json::Value = serde_json::from_str(&findings).unwrap();
    let id = findings["findings"][0]["id"].as_str().unwrap();
    // Without a terminal it must be confirmed explicitly.
    ends(&desk, &["accept", id], 2);
    ends(&desk, &["accept", "00000000", "--yes"], 2);
    ends(&desk, &["accept", id, "--yes"], 0);
    ends(&desk, &["list"], 0);
    ends(&desk, &["check"], 0);
}

#[test]
fn a_record_that_was_seen_and_is_gone_holds_up_the_prune_until_it_is_put_again() {
    let desk = desk();
    let (record, packs) = (newest(&desk), objects(&desk, "packs"));
    fs::remove_file(&record).unwrap();
    for args in [&["list"][..], &["check"], &["doctor"], &["prune", "--keep", "9"], &["check"]] {
        ends(&desk, args, 4);
    }
    assert_eq!(objects(&desk, "packs"), packs, "a pack was deleted");
    ends(&desk, &["repair", "--yes"], 0);
    ends(&desk, &["check"], 0);
    ends(&desk, &["prune", "--keep", "9"], 0);
    desk.ok(&["restore", "2026-01-02", "--to", "../out"]);
    assert_eq!(fs::read(desk.path("out/source/b")).unwrap(), fs::read(desk.source().join("b")).unwrap());
}

#[test]
fn a_record_that_is_lost_can_be_given_up() {
    let desk = desk();
    fs::remove_file(newest(&desk)).unwrap();
    let text = ends(&desk, &["list", "--json"], 4);
    let list: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let ids: Vec<String> =
        list["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap().to_owned()).collect();
    for id in ids {
        ends(&desk, &["accept", &id, "--yes"], 0);
    }
    for args in [&["list"][..], &["check"], &["prune", "--keep", "9"], &["repair", "--yes"], &["check"]] {
        ends(&desk, args, 0);
    }
}

#[test]
fn a_machine_that_only_reads_notices_that_the_store_was_set_back() {
    let desk = desk();
    let as_reader =
        |args: &[&str]| said(&desk.command(args).env("VAULT_STATE_DIR", desk.path("reader")).output().unwrap());
    assert_eq!(as_reader(&["list"]).code, 0);
    fs::remove_file(newest(&desk)).unwrap();
    for args in [&["list"][..], &["check"], &["doctor"]] {
        assert_eq!(as_reader(args).code, 4, "{args:?}");
    }
}

#[test]
fn an_id_that_was_written_down_proves_that_a_store_is_not_older() {
    let desk = desk();
    let record = newest(&desk);
    let id = record.file_name().unwrap().to_str().unwrap().to_owned();
    ends(&desk, &["check", "--at-least", &id], 0);
    fs::rename(&record, desk.path("record")).unwrap();
    let fresh =
        desk.command(&["check", "--at-least", &id]).env("VAULT_STATE_DIR", desk.path("fresh")).output().unwrap();
    assert_eq!(said(&fresh).code, 4);
}

#[test]
fn a_store_that_was_set_back_is_not_made_worse_by_repair() {
    let desk = Desk::new();
    desk.write("a", vec![1; 3000]);
    desk.take("2026-01-01 12:00");
    copy_folder(&desk.path("store"), &desk.path("before"));
    desk.write("b", vec![2; 300_000]);
    desk.take("2026-01-02 12:00");
    fs::remove_dir_all(desk.path("store")).unwrap();
    copy_folder(&desk.path("before"), &desk.path("store"));
    ends(&desk, &["doctor"], 4);
    // The snapshot whose packs are gone is not put back.
    ends(&desk, &["repair", "--yes"], 4);
    let fresh =
        said(&desk.command(&["check", "--read-data"]).env("VAULT_STATE_DIR", desk.path("fresh")).output().unwrap());
    assert_eq!(fresh.code, 0, "{}{}", fresh.out, fresh.err);
    let findings: serde_json::Value = serde_json::from_str(&desk.run(&["accept", "--json"]).out).unwrap();
    for finding in findings["findings"].as_array().unwrap() {
        desk.run(&["accept", finding["id"].as_str().unwrap(), "--yes"]);
    }
    ends(&desk, &["check"], 0);
    ends(&desk, &["list"], 0);
}

#[test]
fn a_pipe_that_is_closed_changes_no_verdict() {
    let desk = desk();
    fs::remove_file(newest(&desk)).unwrap();
    for args in [&["list"][..], &["check"], &["doctor"], &["repair", "--dry-run"], &["check", "--json"]] {
        let mut command = desk.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(4), "{args:?}: {text}");
    }
}

/// A log file on a full disk: the work is done, and the exit code is the worse of its own and 1.
#[test]
fn an_output_that_takes_nothing_more_hides_no_verdict() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let desk = desk();
    let full = |args: &[&str]| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        said(&desk.command(args).stdout(full).output().unwrap())
    };
    let told = |args: &[&str], code: i32| {
        let ended = full(args);
        assert_eq!(ended.code, code, "{args:?}: {}", ended.err);
        assert_eq!(ended.err.matches("cannot write the output: No space left").count(), 1, "{args:?}: {}", ended.err);
        if args.contains(&"--json") {
            assert!(ended.err.contains(&format!("\"code\":{code}")), "{args:?}: {}", ended.err);
        }
    };
    told(&["--help"], 1);
    told(&["list"], 1);
    told(&["find", "*", "--json"], 1);
    told(&["cat", "latest:source/a"], 1);
    told(&["export", "latest", "--tar", "-"], 1);
    desk.write("new", vec![3; 3000]);
    let before = desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len();
    told(&["snapshot", ".", "-v"], 1);
    assert_eq!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), before + 1);
    assert_eq!(full(&["list", "--snapshots"]).code, 2, "a mistake is one");
    fs::remove_file(newest(&desk)).unwrap();
    for args in
        [&["list"][..], &["check"], &["doctor"], &["stats"], &["repair", "--dry-run"], &["accept"], &["list", "--json"]]
    {
        told(args, 4);
    }
}

/// Objects of another machine that have not fully arrived through a sync.
#[test]
fn what_has_half_arrived_is_not_damaged() {
    let desk = Desk::new();
    desk.ok(&["delivery", "synced"]);
    desk.write("a", vec![1; 3000]);
    desk.take("2026-01-01 12:00");
    let here = objects(&desk, "");
    // Another machine writes.
    desk.write("b", (0..40_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    let other =
        desk.command(&["snapshot", ".", "--source", "other"]).env("VAULT_STATE_DIR", desk.path("other")).output();
    assert_eq!(said(&other.unwrap()).code, 0);
    let new: Vec<PathBuf> = objects(&desk, "").into_iter().filter(|path| !here.contains(path)).collect();
    let packs: Vec<&PathBuf> = new.iter().filter(|path| path.starts_with(desk.path("store/packs"))).collect();
    assert!(!packs.is_empty());
    for cut in [0, 100, 30_000] {
        let whole: Vec<Vec<u8>> = packs.iter().map(|path| fs::read(path).unwrap()).collect();
        for (path, bytes) in packs.iter().zip(&whole) {
            fs::write(path, &bytes[..cut]).unwrap();
        }
        for args in [&["check"][..], &["list"], &["doctor"], &["check", "--read-data"], &["repair", "--dry-run"]] {
            let text = ends(&desk, args, 3).to_lowercase().replace("no damage", "");
            assert!(!text.contains("damage"), "{args:?}: {text}");
        }
        ends(&desk, &["repair", "--yes"], 3);
        for (path, bytes) in packs.iter().zip(&whole) {
            assert_eq!(fs::read(path).unwrap(), bytes[..cut], "it was moved");
            fs::write(path, bytes).unwrap();
        }
        ends(&desk, &["check", "--read-data"], 0);
    }
}

/// Every object missing, truncated, or replaced by a FIFO, with a state folder that has seen it whole: no check reports
/// success where a repair would find a loss, and a prune in between costs nothing that a repair could have brought
/// back.
#[test]
fn no_check_is_well_where_repair_is_not() {
    let whole = desk();
    let names: Vec<PathBuf> = objects(&whole, "")
        .into_iter()
        .map(|path| path.strip_prefix(whole.path("store")).unwrap().to_owned())
        .filter(|path| !path.starts_with("keys") && path != Path::new("VAULT"))
        .collect();
    for name in names {
        for harm in ["gone", "short", "fifo"] {
            let path = whole.path("store").join(&name);
            let bytes = fs::read(&path).unwrap();
            copy_folder(&whole.path("store"), &whole.path("kept-store"));
            copy_folder(&whole.path("state"), &whole.path("kept-state"));
            fs::remove_file(&path).unwrap();
            match harm {
                "short" => fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
                "fifo" => fifo(&path),
                _ => {}
            }
            let check = whole.run(&["check"]);
            let prune = whole.run(&["prune", "--keep", "9"]);
            let repair = whole.run(&["repair", "--yes"]);
            assert!(
                check.code != 0 || repair.code == 0,
                "{} {harm}: check {} repair {}: {}{}",
                name.display(),
                check.code,
                repair.code,
                repair.out,
                repair.err
            );
            if name.starts_with("log") {
                assert_ne!(check.code, 0, "{} {harm}: {}", name.display(), check.out);
                // Lost parts of the log are remembered here, so nothing is lost.
                let restored = whole.run(&["restore", "2026-01-02", "--to", "../out"]);
                assert_eq!(restored.code, 0, "{} {harm}: {}{}{}", name.display(), prune.err, repair.out, restored.err);
                assert_eq!(fs::read(whole.path("out/source/b")).unwrap(), fs::read(whole.source().join("b")).unwrap());
                fs::remove_dir_all(whole.path("out")).unwrap();
            }
            for (kept, place) in [("kept-store", "store"), ("kept-state", "state")] {
                fs::remove_dir_all(whole.path(place)).unwrap();
                fs::rename(whole.path(kept), whole.path(place)).unwrap();
            }
        }
    }
}

/// Ways to harm an object.
const HARMS: [&str; 6] = ["gone", "short", "fifo", "folder", "link", "rubbish"];

fn harm(path: &Path, how: &str, aside: &Path) {
    let whole = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    match how {
        "gone" => {}
        "short" => fs::write(path, &whole[..whole.len() / 2]).unwrap(),
        "fifo" => fifo(path),
        "folder" => fs::create_dir(path).unwrap(),
        "link" => {
            fs::write(aside, &whole).unwrap();
            std::os::unix::fs::symlink(aside, path).unwrap();
        }
        _ => fs::write(path, bytes(2 * whole.len() as u64, whole.len())).unwrap(),
    }
}

/// The readable parts of the two snapshots, with the state of the machine.
fn readable(desk: &Desk) -> Vec<(&'static str, &'static str)> {
    let files = [("2026-01-01", "a"), ("2026-01-02", "a"), ("2026-01-02", "b")];
    let reads = |(day, file): &(&str, &str)| {
        let output = desk.command(&["cat", &format!("{day}:source/{file}")]).output().unwrap();
        output.status.success() && output.stdout == fs::read(desk.source().join(file)).unwrap()
    };
    files.into_iter().filter(reads).collect()
}

/// One object harmed, with a state folder that has seen it whole; then check, prune and repair in each order.
#[test]
fn no_order_of_commands_loses_what_a_repair_brings_back_and_none_calls_a_loss_well() {
    let desk = desk();
    let all = readable(&desk);
    assert_eq!(all.len(), 3);
    let names: Vec<PathBuf> = objects(&desk, "")
        .into_iter()
        .map(|path| path.strip_prefix(desk.path("store")).unwrap().to_owned())
        .filter(|path| !path.starts_with("keys"))
        .collect();
    for (place, kept) in [("store", "kept-store"), ("state", "kept-state")] {
        copy_folder(&desk.path(place), &desk.path(kept));
    }
    let reset = |name: &Path, how: &str| {
        for (place, kept) in [("store", "kept-store"), ("state", "kept-state")] {
            fs::remove_dir_all(desk.path(place)).unwrap();
            copy_folder(&desk.path(kept), &desk.path(place));
        }
        harm(&desk.path("store").join(name), how, &desk.path("aside"));
    };
    let (check, prune, repair) =
        (&["check"][..], &["prune", "--keep", "9", "--max-unused", "0%"][..], &["repair", "--yes"][..]);
    let orders = [
        [check, prune, repair],
        [prune, check, repair],
        [prune, repair, check],
        [check, repair, prune],
        [repair, check, prune],
        [repair, prune, check],
    ];
    let mut cases: Vec<(&PathBuf, &str)> =
        names.iter().flat_map(|name| HARMS.iter().map(move |how| (name, *how))).collect();
    let mut rng = Rng(7);
    if campaign() == 0 {
        cases = (0..4).map(|_| cases[rng.below(cases.len() as u64) as usize]).collect();
    }
    let (mut tried, mut losses) = (0, 0);
    for (name, how) in cases {
        reset(name, how);
        desk.run(repair);
        // The remaining content after an immediate repair.
        let best = readable(&desk);
        for (number, order) in orders.iter().enumerate().filter(|_| campaign() > 0 || rng.below(3) == 0) {
            let what = format!("{} {how}, order {number}", name.display());
            reset(name, how);
            let mut known = false;
            let mut seen = Vec::new();
            for args in order {
                let said = desk.run(args);
                seen.push((args[0], said.code));
                let shown = format!("{what}: {seen:?}: {}{}", said.out, said.err);
                assert!(matches!(said.code, 0 | 3 | 4), "{shown}");
                match args[0] {
                    // Only a repair ends the findings.
                    "check" => {
                        assert!(!known || said.code == 4, "{shown}");
                        known = said.code == 4;
                    }
                    "repair" => {
                        let well = seen.iter().any(|(command, code)| *command == "check" && *code == 0);
                        assert!(!(well && said.code == 4), "{shown}");
                        known = said.code == 4;
                    }
                    _ => {}
                }
            }
            let left = readable(&desk);
            assert!(
                best.iter().all(|file| left.contains(file)),
                "{what}: {seen:?}: {left:?} is left, and was {best:?}"
            );
            let last = desk.run(check);
            assert!(left == all || last.code == 4, "{what}: {seen:?}: lost, and called {}: {}", last.code, last.out);
            tried += 1;
            losses += u64::from(left != all);
        }
    }
    println!("{tried} orders of commands after harm, {losses} of which had lost something before they began");
}

#[test]
fn a_broken_pack_is_repaired_by_the_machine_that_put_it() {
    let desk = desk();
    let pack = objects(&desk, "packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    flip(&pack, 5000);
    let as_other = |args: &[&str]| {
        said(
            &desk.command(args).env("VAULT_STATE_DIR", desk.path("other")).arg("--host").arg("other").output().unwrap(),
        )
    };
    let other = |args: &[&str]| said(&desk.command(args).env("VAULT_STATE_DIR", desk.path("other")).output().unwrap());
    assert_eq!(as_other(&["snapshot", ".", "--source", "other"]).code, 0);
    let repaired = other(&["repair", "--yes"]);
    assert_eq!(repaired.code, 4, "{}{}", repaired.out, repaired.err);
    assert!(repaired.out.contains("--of-others") && pack.exists(), "{}", repaired.out);
    other(&["repair", "--yes", "--of-others"]);
    assert!(!pack.exists());
}

/// Whichever command reads it first, damage is known from then on.
#[test]
fn damage_that_any_command_met_is_known_until_it_is_seen_sound() {
    for args in [
        &["cat", "latest:source/b"][..],
        &["restore", "latest", "--to", "../out"],
        &["export", "latest", "--tar", "../out.tar"],
    ] {
        let desk = desk();
        let pack = objects(&desk, "packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        let middle = fs::metadata(&pack).unwrap().len() as usize / 2;
        flip(&pack, middle);
        ends(&desk, args, 4);
        for known in [&["check"][..], &["list"], &["doctor"], &["stats"]] {
            ends(&desk, known, 4);
        }
        // A check reports its cost, and the next snapshot tells the other machines.
        ends(&desk, &["check", "--read-data"], 4);
        ends(&desk, &["accept"], 4);
        desk.write("c", "c");
        desk.run(&["snapshot", ".", "--source", "source"]);
        let other = said(&desk.command(&["list"]).env("VAULT_STATE_DIR", desk.path("other")).output().unwrap());
        assert_eq!(other.code, 4, "{args:?}: {}{}", other.out, other.err);
        flip(&pack, middle);
        ends(&desk, &["check", "--read-data"], 0);
        ends(&desk, &["list"], 0);
    }
}

/// Objects of another vault arrive in a synced folder before any sign of that vault.
#[test]
fn what_arrives_of_another_vault_before_its_key_slots_is_not_damaged() {
    let (desk, other) = (desk(), desk());
    desk.ok(&["delivery", "synced"]);
    let here = objects(&desk, "");
    for folder in ["packs", "meta", "log"] {
        copy_folder(&other.path("store").join(folder), &desk.path("store").join(folder));
    }
    let arrived: Vec<PathBuf> = objects(&desk, "").into_iter().filter(|path| !here.contains(path)).collect();
    assert!(arrived.len() > 3);
    for args in [&["check"][..], &["list"], &["doctor"], &["check", "--read-data"], &["repair", "--yes"]] {
        let text = ends(&desk, args, 3).to_lowercase().replace("no damage", "");
        assert!(!text.contains("the vault is damaged"), "{args:?}: {text}");
    }
    assert!(arrived.iter().all(|path| path.exists()), "nothing is moved");
    // Then the slots arrive, and tell which vault it is.
    copy_folder(&other.path("store/keys"), &desk.path("store/keys"));
    let checked = ends(&desk, &["check"], 3);
    assert!(checked.contains(other.json(&["list"])[0]["vault"].as_str().unwrap()), "{checked}");
}

/// The VAULT file of one vault, the key slots of the other: the objects of the first are not damaged, and nothing is
/// moved.
#[test]
fn what_the_vault_file_alone_speaks_of_is_not_damaged() {
    let (desk, other) = (desk(), desk());
    for folder in ["packs", "meta", "log", "VAULT"] {
        let (from, to) = (other.path("store").join(folder), desk.path("store").join(folder));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
    let before = objects(&desk, "");
    let id = other.json(&["list"])[0]["vault"].as_str().unwrap().to_owned();
    for args in [&["check"][..], &["doctor"], &["check", "--read-data"]] {
        let text = ends(&desk, args, 3);
        assert!(text.contains(&id[..8]) && !text.contains("The vault is damaged"), "{args:?}: {text}");
    }
    ends(&desk, &["list"], 3);
    desk.run(&["repair", "--yes"]);
    assert_eq!(objects(&desk, ""), before, "nothing was moved");
    // Alone, such a file is a mistake, and repair makes the right one.
    fs::remove_dir_all(desk.path("store")).unwrap();
    let desk = self::desk();
    fs::copy(other.path("store/VAULT"), desk.path("store/VAULT")).unwrap();
    ends(&desk, &["check"], 4);
    desk.run(&["repair", "--yes"]);
    ends(&desk, &["check"], 0);
}

/// Missing data that a check found is known from then on, until it is stored again.
#[test]
fn what_a_check_found_missing_stays_known() {
    let desk = desk();
    let pack = objects(&desk, "packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(pack).unwrap();
    for _ in 0..2 {
        ends(&desk, &["check"], 4);
        for args in [&["list"][..], &["doctor"], &["stats"], &["accept"]] {
            ends(&desk, args, 4);
        }
    }
    let said = ends(&desk, &["list"], 4);
    assert!(said.contains("has lost"), "{said}");
    // The next snapshot stores the data that it still finds.
    ends(&desk, &["snapshot", ".", "--source", "source", "--read-all"], 0);
    let (check, list) = (desk.run(&["check"]), desk.run(&["list"]));
    assert_eq!(check.code, list.code, "{}{}", check.out, list.out);
}

/// Files of the source that no snapshot has yet.
const FRESH: &str = "fresh";

/// A machine of another name, with a state of its own.
fn elsewhere(desk: &Desk, args: &[&str]) -> crate::support::binary::Said {
    said(&desk.command(args).env("VAULT_STATE_DIR", desk.path("elsewhere")).output().unwrap())
}

/// Writes a record of another machine with this date.
fn record_of(desk: &Desk, machine: &str, secs: i64) {
    let store = std::sync::Arc::new(DirStore::open(&desk.path("store")).unwrap());
    let options = OpenOptions::new(desk.path(machine), identity(machine));
    let vault = open(store, &Secret::raw(&RAW), options, &Silent::default()).unwrap();
    let time = Time { secs, nanos: 0 };
    vault.publish(RecordBody::Forget(Vec::new()), time, None, |_| true, &Silent::default()).unwrap().unwrap();
}

/// A snapshot of another machine with this many files, in a vault where things may arrive late. Returns what it put.
fn of_another(desk: &Desk, files: usize) -> Vec<PathBuf> {
    desk.ok(&["delivery", "synced"]);
    let here = objects(desk, "");
    let folder = desk.path("of another");
    fs::create_dir(&folder).unwrap();
    for number in 0..files {
        fs::write(folder.join(number.to_string()), bytes(number as u64, 9000)).unwrap();
    }
    let mut other = desk.command(&["snapshot", folder.to_str().unwrap(), "--source", "other"]);
    assert_eq!(said(&other.env("VAULT_STATE_DIR", desk.path("other")).output().unwrap()).code, 0);
    objects(desk, "").into_iter().filter(|path| !here.contains(path)).collect()
}

/// Takes the first of these objects that lies in this folder of the store away from there. Returns its path.
fn take_aside<'o>(desk: &Desk, objects: &'o [PathBuf], folder: &str) -> &'o Path {
    let object = objects.iter().find(|path| path.starts_with(desk.path("store").join(folder))).unwrap();
    fs::write(desk.path("name"), object.to_str().unwrap()).unwrap();
    fs::rename(object, desk.path("aside")).unwrap();
    object
}

/// Brings back what [`take_aside`] has taken.
fn put_back(desk: &Desk) {
    fs::rename(desk.path("aside"), fs::read_to_string(desk.path("name")).unwrap()).unwrap();
}

/// Two machines have changed the last snapshot, and neither had seen the other's change.
fn two_changes(desk: &Desk) {
    let store = std::sync::Arc::new(DirStore::open(&desk.path("store")).unwrap());
    let options = OpenOptions::new(desk.path("a witness"), identity("a witness"));
    let vault = open(store, &Secret::raw(&RAW), options, &Silent::default()).unwrap();
    let info = vault.snapshots().pop().unwrap();
    for machine in [0xe1, 0xe2] {
        let body = Snapshot { replaces: vec![info.id], tags: vec![format!("{machine:x}")], ..info.body.clone() };
        let record = Record {
            client: ClientId::new([machine; 16]),
            number: 1,
            previous: Digest::new([0; 32]),
            seen: vec![(info.client, info.number)],
            time: info.body.time,
            claims: Vec::new(),
            closed: Vec::new(),
            body: RecordBody::Snapshot(Box::new(body)),
        };
        let sealed = record.seal(vault.keys()).unwrap();
        fs::write(desk.path("store/log").join(sealed.name.to_string()), &sealed.bytes).unwrap();
    }
}

/// The largest pack of content.
fn largest(desk: &Desk) -> PathBuf {
    objects(desk, "packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// A file of `keys/` with these bytes changed; its checksum fits.
fn slot_with(desk: &Desk, at: usize, change: u8) {
    let mut bytes = fs::read(&objects(desk, "keys")[0]).unwrap();
    bytes[at] ^= change;
    bytes.truncate(560);
    bytes.extend_from_slice(blake3::hash(&bytes.clone()).as_bytes());
    fs::write(desk.path("store/keys").join("ee".repeat(16)), bytes).unwrap();
}

/// Adds a password. Returns its slot, and the slot's files with their content.
fn second_password(desk: &Desk) -> (String, Vec<(PathBuf, Vec<u8>)>) {
    let before = objects(desk, "keys");
    fs::write(desk.path("password"), "another one\n").unwrap();
    let password = desk.path("password");
    let added = desk.json(&["key", "add", "--label", "second", "--new-password-file", password.to_str().unwrap()]);
    let new = objects(desk, "keys").into_iter().filter(|path| !before.contains(path));
    let files = new.map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    (added[0]["slot"].as_str().unwrap().to_owned(), files)
}

/// One kind of finding: its name in JSON, the exit code, the harm that makes it, and the action that ends it.
type Kind = (&'static str, &'static str, i32, fn(&Desk), fn(&Desk));

const KINDS: &[Kind] = &[
    (
        "damage that was found",
        "object",
        4,
        |desk| {
            flip(&largest(desk), 5000);
            ends(desk, &["check", "--read-data"], 4);
        },
        |desk| {
            flip(&largest(desk), 5000);
            ends(desk, &["check", "--read-data"], 0);
        },
    ),
    (
        "an object of a later version",
        "object",
        3,
        // The version of a key slot.
        |desk| slot_with(desk, 8, 3),
        |desk| fs::remove_file(desk.path("store/keys").join("ee".repeat(16))).unwrap(),
    ),
    (
        "a pack that has not arrived",
        "object",
        3,
        |desk| {
            desk.ok(&["delivery", "synced"]);
            let before = objects(desk, "packs");
            desk.write(FRESH, (0..50_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<u8>>());
            assert_eq!(elsewhere(desk, &["snapshot", ".", "--source", "other"]).code, 0);
            let new = objects(desk, "packs").into_iter().find(|path| !before.contains(path)).unwrap();
            let bytes = fs::read(&new).unwrap();
            fs::write(desk.path("whole"), &bytes).unwrap();
            fs::write(desk.path("name"), new.to_str().unwrap()).unwrap();
            fs::write(&new, &bytes[..500]).unwrap();
            // Only a check tells which snapshots wait for it.
            ends(desk, &["check"], 3);
        },
        |desk| {
            let name = fs::read_to_string(desk.path("name")).unwrap();
            fs::rename(desk.path("whole"), name).unwrap();
        },
    ),
    (
        "a record that is missing",
        "records",
        4,
        |desk| fs::rename(newest(desk), desk.path("record")).unwrap(),
        |desk| {
            ends(desk, &["repair", "--yes"], 0);
        },
    ),
    (
        "a record that has not arrived",
        "records",
        3,
        |desk| {
            desk.ok(&["delivery", "synced"]);
            record_of(desk, "other machine", crate::support::now().secs);
            let before = objects(desk, "log");
            record_of(desk, "other machine", crate::support::now().secs);
            let new = objects(desk, "log").into_iter().find(|path| !before.contains(path)).unwrap();
            desk.ok(&["list"]);
            fs::write(desk.path("name"), new.to_str().unwrap()).unwrap();
            fs::rename(new, desk.path("record")).unwrap();
        },
        |desk| {
            let name = fs::read_to_string(desk.path("name")).unwrap();
            fs::rename(desk.path("record"), name).unwrap();
        },
    ),
    (
        "files that are lost",
        "files",
        4,
        |desk| {
            flip(&largest(desk), 5000);
            ends(desk, &["repair", "--yes"], 4);
        },
        Desk::accept_all,
    ),
    (
        "a source that vanished",
        "source",
        3,
        |desk| {
            fs::rename(desk.source().join("a"), desk.path("a")).unwrap();
            fs::rename(desk.source().join("b"), desk.path("b")).unwrap();
            ends(desk, &["snapshot", ".", "--source", "source"], 3);
        },
        |desk| {
            fs::rename(desk.path("a"), desk.source().join("a")).unwrap();
            fs::rename(desk.path("b"), desk.source().join("b")).unwrap();
            ends(desk, &["snapshot", ".", "--source", "source"], 0);
        },
    ),
    (
        "a key slot that was removed and is back",
        "slot",
        3,
        |desk| {
            let (id, files) = second_password(desk);
            desk.ok(&["key", "remove", &id, "--yes"]);
            fs::write(&files[0].0, &files[0].1).unwrap();
        },
        |desk| {
            ends(desk, &["repair", "--yes"], 0);
        },
    ),
    (
        "a key slot that was made without the key",
        "slot",
        3,
        // Another slot id.
        |desk| slot_with(desk, 41, 1),
        |desk| {
            ends(desk, &["repair", "--yes"], 0);
        },
    ),
    (
        "a key slot that no record knows",
        "slot",
        3,
        |desk| {
            copy_folder(&desk.path("store"), &desk.path("kept-store"));
            copy_folder(&desk.path("state"), &desk.path("kept-state"));
            let (_, files) = second_password(desk);
            for (kept, place) in [("kept-store", "store"), ("kept-state", "state")] {
                fs::remove_dir_all(desk.path(place)).unwrap();
                fs::rename(desk.path(kept), desk.path(place)).unwrap();
            }
            for (path, bytes) in files {
                fs::write(path, bytes).unwrap();
            }
        },
        |desk| {
            let found: serde_json::Value = serde_json::from_str(&desk.run(&["accept", "--json"]).out).unwrap();
            desk.ok(&["accept", found["findings"][0]["id"].as_str().unwrap(), "--yes"]);
        },
    ),
    ("a change that does not count", "change", 3, two_changes, |desk| {
        drop(desk.ok(&["tag", "add", "done", "latest", "--source", "docs"]));
    }),
    (
        "a record that is damaged",
        "object",
        4,
        |desk| {
            flip(&newest(desk), 300);
            ends(desk, &["check"], 4);
        },
        |desk| {
            ends(desk, &["repair", "--yes"], 0);
        },
    ),
    (
        "an index object that is damaged",
        "object",
        3,
        |desk| {
            let index = &objects(desk, "index")[0];
            flip(index, fs::metadata(index).unwrap().len() as usize / 2);
            ends(desk, &["check", "--read-data"], 3);
        },
        |desk| {
            ends(desk, &["repair", "--yes"], 0);
        },
    ),
    (
        "data of another machine that has not arrived",
        "late",
        3,
        |desk| {
            // More files than a finding names.
            take_aside(desk, &of_another(desk, 120), "packs");
            ends(desk, &["check"], 3);
        },
        put_back,
    ),
    (
        "trees of another machine that have not arrived",
        "late",
        3,
        |desk| {
            take_aside(desk, &of_another(desk, 2), "meta");
            ends(desk, &["check"], 3);
        },
        put_back,
    ),
    (
        "a pack of another machine that has its full length, and a gap",
        "object",
        3,
        |desk| {
            let new = of_another(desk, 2);
            ends(desk, &["list"], 0);
            let pack = take_aside(desk, &new, "packs");
            let mut bytes = fs::read(desk.path("aside")).unwrap();
            bytes[300..1000].fill(0);
            fs::write(pack, bytes).unwrap();
            ends(desk, &["check", "--read-data"], 3);
        },
        put_back,
    ),
    (
        "a key slot of which one copy is left",
        "slot",
        3,
        |desk| {
            let (_, files) = second_password(desk);
            fs::remove_file(&files[0].0).unwrap();
            ends(desk, &["repair", "--dry-run"], 3);
        },
        |desk| {
            ends(desk, &["repair", "--yes"], 0);
        },
    ),
    (
        "a key slot that is gone",
        "slot",
        4,
        |desk| {
            let (_, files) = second_password(desk);
            files.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
        },
        |desk| {
            let found: serde_json::Value = serde_json::from_str(&desk.run(&["accept", "--json"]).out).unwrap();
            desk.ok(&["accept", found["findings"][0]["id"].as_str().unwrap(), "--yes"]);
        },
    ),
    (
        "a copy of a key slot that is damaged",
        "object",
        4,
        |desk| {
            let (_, files) = second_password(desk);
            let third = files[0].0.with_file_name("0123456789abcdef0123456789abcdef");
            fs::copy(&files[0].0, &third).unwrap();
            flip(&third, 100);
        },
        |desk| {
            ends(desk, &["repair", "--yes"], 0);
        },
    ),
    (
        "another vault in the same folder",
        "vault",
        3,
        |desk| {
            let other = Desk::new();
            for (number, slot) in objects(&other, "keys").iter().enumerate() {
                fs::copy(slot, desk.path("store/keys").join(format!("{number:032x}"))).unwrap();
            }
        },
        |desk| {
            for slot in objects(desk, "keys") {
                if slot.file_name().unwrap().to_str().unwrap().starts_with("0000000") {
                    fs::remove_file(slot).unwrap();
                }
            }
        },
    ),
    (
        "clocks that contradict each other",
        "clocks",
        3,
        |desk| {
            record_of(desk, "machine of the future", 4_000_000_000);
            desk.write(FRESH, "seen");
            desk.run(&["snapshot", ".", "--source", "source"]);
        },
        |desk| {
            // More records with the right time than with the wrong one, so that the right ones are believed.
            for _ in 0..4 {
                record_of(desk, "machine of the future", crate::support::now().secs);
            }
            desk.write(FRESH, "seen again");
            desk.ok(&["snapshot", ".", "--source", "source"]);
        },
    ),
    (
        "a list of known problems that cannot be read",
        "note",
        3,
        |desk| damage_note(desk, "findings"),
        |desk| {
            ends(desk, &["check", "--read-data"], 0);
        },
    ),
    (
        "a memory of records that cannot be read",
        "note",
        3,
        |desk| damage_note(desk, "seen"),
        |desk| {
            ends(desk, &["check", "--read-data"], 3);
            desk.accept_all();
        },
    ),
    (
        "a memory of mount points that cannot be read",
        "note",
        3,
        |desk| {
            damage_note(desk, "roots");
            desk.run(&["snapshot", ".", "--source", "source"]);
        },
        Desk::accept_all,
    ),
];

/// Replaces a note in the vault's state folder with something that is none.
fn damage_note(desk: &Desk, note: &str) {
    let mut folders = fs::read_dir(desk.path("state")).unwrap().map(|folder| folder.unwrap().path());
    let folder = folders.find(|folder| folder.join("client").exists()).unwrap();
    fs::write(folder.join(note), "no note").unwrap();
}

/// Each kind of finding in turn, and all commands that report findings: the same ids everywhere, the same exit code,
/// and an end.
#[test]
fn every_kind_of_finding_is_told_by_all_alike() {
    std::thread::scope(|scope| {
        for part in KINDS.chunks(KINDS.len().div_ceil(3)) {
            scope.spawn(move || part.iter().for_each(is_told_by_all));
        }
    });
}

fn is_told_by_all((name, about, code, make, end): &Kind) {
    let desk = desk();
    let (config, figures) = (desk.path("vault.toml"), desk.path("vault.prom"));
    let (store, source) = (desk.path("store"), desk.source());
    let text = format!(
        "[vaults.disk]\npath = {store:?}\ncheck-every = \"never\"\n[sources.docs]\npaths = [{source:?}]\nevery = \"90d\"\n\
         overdue = \"900d\"\n[notify]\ndesktop = \"never\"\nprometheus = {figures:?}\n"
    );
    fs::write(&config, text).unwrap();
    let run = |args: &[&str]| {
        said(&desk.command(args).env("VAULT_CONFIG", &config).env_remove("VAULT_REPO").output().unwrap())
    };
    let first = run(&["run"]);
    assert_eq!(first.code, 0, "{name}: {}{}", first.out, first.err);
    make(&desk);
    let json = |args: &[&str]| -> serde_json::Value {
        let said = desk.run(&[args, &["--json"]].concat());
        assert_eq!(said.code, *code, "{name} {args:?}: {}{}", said.out, said.err);
        serde_json::from_str(said.out.lines().last().unwrap()).unwrap()
    };
    let ids = |value: &serde_json::Value| -> Vec<String> {
        let found = value["findings"].as_array().unwrap();
        found.iter().map(|finding| finding["id"].as_str().unwrap().to_owned()).collect()
    };
    let known = json(&["accept"]);
    let kinds: Vec<&str> = known["findings"].as_array().unwrap().iter().map(|f| f["about"].as_str().unwrap()).collect();
    assert!(kinds.contains(about), "{name}: {known}");
    for args in [&["list"][..], &["check"]] {
        assert_eq!(ids(&json(args)), ids(&known), "{name} {args:?}");
    }
    let doctor = json(&["doctor"])["findings"].to_string();
    assert!(ids(&known).iter().all(|id| doctor.contains(&format!("[{id}]"))), "{name}: {doctor}");
    json(&["stats"]);
    // Nothing is due, but it is reported: by the run, to a service, and in the figures.
    let idle = run(&["run"]);
    assert_eq!(idle.code, *code, "{name}: {}{}", idle.out, idle.err);
    for finding in known["findings"].as_array().unwrap() {
        assert!(idle.err.contains(finding["what"].as_str().unwrap()), "{name}: {}", idle.err);
    }
    let figures = fs::read_to_string(&figures).unwrap();
    let figure = format!("code=\"{code}\"}} {}", kinds.len());
    assert!(
        figures.lines().any(|line| line.starts_with("vault_known_findings") && line.ends_with(&figure)),
        "{figures}"
    );
    end(&desk);
    let left = desk.run(&["list"]);
    assert_eq!(left.code, 0, "{name} does not end: {}{}", left.out, left.err);
    assert_eq!(run(&["run"]).code, 0, "{name}: the run still speaks of it");
}

#[test]
fn what_is_lost_beyond_what_was_accepted_is_new() {
    let desk = Desk::new();
    desk.write("a", vec![1; 3000]);
    desk.take("2026-01-01 12:00");
    let first = objects(&desk, "packs");
    desk.write("b", bytes(7, 50_000));
    desk.take("2026-01-02 12:00");
    let kept: Vec<_> = first.iter().map(|path| (path, fs::read(path).unwrap())).collect();
    first.iter().for_each(|path| fs::remove_file(path).unwrap());
    ends(&desk, &["check"], 4);
    assert!(ends(&desk, &["list"], 4).contains("damaged"));
    desk.accept_all();
    for args in [&["list"][..], &["accept"], &["check"]] {
        ends(&desk, args, 0);
    }
    let restores = |to: &str| ends(&desk, &["restore", "latest", "--to", desk.path(to).to_str().unwrap()], 4);
    restores("some");
    ends(&desk, &["list"], 0);
    // More than that, of which a restore knows before any check.
    objects(&desk, "packs").iter().for_each(|path| fs::remove_file(path).unwrap());
    restores("less");
    ends(&desk, &["list"], 4);
    ends(&desk, &["check"], 4);
    for args in [&["list"][..], &["accept"], &["doctor"], &["check"]] {
        ends(&desk, args, 4);
    }
    desk.accept_all();
    ends(&desk, &["check"], 0);
    // It comes back, and goes again.
    for (path, bytes) in &kept {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    ends(&desk, &["check"], 0);
    ends(&desk, &["list"], 0);
}

#[test]
fn a_loss_that_was_accepted_and_healed_is_new_when_it_happens_again() {
    let desk = Desk::new();
    desk.write("a", vec![1; 3000]);
    desk.take("2026-01-01 12:00");
    let (pack, aside) = (objects(&desk, "packs").remove(0), desk.path("aside"));
    fs::rename(&pack, &aside).unwrap();
    ends(&desk, &["check"], 4);
    desk.accept_all();
    ends(&desk, &["check"], 0);
    fs::rename(&aside, &pack).unwrap();
    ends(&desk, &["check", "--read-data"], 0);
    fs::rename(&pack, &aside).unwrap();
    ends(&desk, &["check"], 4);
    ends(&desk, &["list"], 4);
}

#[test]
fn latest_is_nothing_older_where_the_latest_is_missing() {
    let desk = desk();
    let (record, first) = (newest(&desk), desk.json(&["list"])[0]["snapshots"][0]["id"].as_str().unwrap().to_owned());
    fs::rename(&record, desk.path("record")).unwrap();
    let out = desk.path("out");
    for args in [
        &["restore", "latest", "--in-place", "--delete", "--yes"][..],
        &["restore", "2026-01-02", "--in-place", "--yes"],
        &["forget", "latest", "--yes"],
        &["tag", "add", "x", "latest"],
    ] {
        let said = ends(&desk, args, 4);
        assert!(said.contains("missing from the store"), "{args:?}: {said}");
    }
    assert!(desk.source().join("b").exists());
    // Commands that only read go on, with a message that this is not the latest.
    for args in [&["ls", "latest"][..], &["restore", "latest", "--to", out.to_str().unwrap()]] {
        assert!(ends(&desk, args, 4).contains("is taken"), "{args:?}");
    }
    ends(&desk, &["ls", &first], 0);
    ends(&desk, &["ls", "2026-01-01"], 0);
    ends(&desk, &["restore", &first, "--in-place", "--yes"], 0);
    fs::rename(desk.path("record"), &record).unwrap();
    ends(&desk, &["ls", "latest"], 0);
}

/// A record of a machine, unreadable or missing, that nobody has read before.
#[derive(Debug, Clone, Copy)]
enum Hidden {
    Damaged,
    Missing,
}

/// A vault in which the last snapshot of the source is hidden, and the record.
fn hidden(how: Hidden) -> (Desk, PathBuf) {
    let desk = desk();
    let record = newest(&desk);
    // It tells of the record before.
    let mut other = desk.command(&["snapshot", ".", "--source", "other"]);
    assert_eq!(said(&other.output().unwrap()).code, 0);
    match how {
        Hidden::Damaged => flip(&record, 80),
        Hidden::Missing => fs::rename(&record, desk.path("record")).unwrap(),
    }
    fs::remove_dir_all(desk.path("state")).unwrap();
    (desk, record)
}

/// The ids of the listed snapshots, the oldest first, whatever list ends with.
fn listed(desk: &Desk) -> Vec<String> {
    let told: serde_json::Value = serde_json::from_str(&desk.run(&["list", "--json"]).out).unwrap();
    told["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// Nothing is remembered: the log alone shows that another snapshot may be the latest.
#[test]
fn latest_is_not_guessed_where_a_record_cannot_be_read() {
    for how in [Hidden::Damaged, Hidden::Missing] {
        let (desk, _) = hidden(how);
        let first = listed(&desk)[0].clone();
        for args in [
            &["restore", "latest", "--source", "source", "--in-place", "--delete", "--yes"][..],
            &["restore", "2026-01-02", "--source", "source", "--in-place", "--yes"],
            &["forget", "latest", "--source", "source", "--yes"],
        ] {
            let said = ends(&desk, args, 4);
            let is_told = said.contains("may be another snapshot") || said.contains("may be more snapshots");
            assert!(is_told, "{how:?} {args:?}: {said}");
        }
        assert!(desk.source().join("b").exists());
        let out = desk.path("out");
        for args in [&["ls", "latest"][..], &["restore", "latest", "--to", out.to_str().unwrap()]] {
            let args = [args, &["--source", "source"]].concat();
            assert!(ends(&desk, &args, 4).contains("may be another snapshot"), "{how:?} {args:?}");
        }
        ends(&desk, &["ls", &first], 0);
        ends(&desk, &["restore", &first, "--in-place", "--yes"], 0);
        // Another machine's snapshots are not in doubt because of a record that is missing of this one.
        if matches!(how, Hidden::Missing) {
            let told = desk.run(&["ls", "latest", "--host", "elsewhere"]);
            assert!(!told.err.contains("may be another"), "{}", told.err);
        }
    }
}

/// A missing record may pin a snapshot, or be one.
#[test]
fn nothing_is_dropped_by_rules_while_a_record_cannot_be_read() {
    for how in [Hidden::Damaged, Hidden::Missing] {
        let (desk, record) = hidden(how);
        let before = listed(&desk).len();
        for args in [&["prune", "--keep", "1", "--dry-run"][..], &["prune", "--keep", "1", "--yes"]] {
            ends(&desk, args, 4);
        }
        assert_eq!(listed(&desk).len(), before, "{how:?}");
        if matches!(how, Hidden::Missing) {
            fs::rename(desk.path("record"), record).unwrap();
            ends(&desk, &["prune", "--keep", "1", "--yes"], 0);
            assert_eq!(listed(&desk).len(), 2, "one of each source");
        }
    }
}

/// Whether this machine remembers the record or not.
#[test]
fn commands_about_all_snapshots_know_that_there_may_be_more() {
    for (how, is_remembered) in [(Hidden::Damaged, false), (Hidden::Missing, false), (Hidden::Missing, true)] {
        let (desk, record) = hidden(how);
        let id = record.file_name().unwrap().to_str().unwrap().to_owned();
        if is_remembered {
            fs::rename(desk.path("record"), &record).unwrap();
            ends(&desk, &["list"], 0);
            fs::remove_file(&record).unwrap();
        }
        let copy = desk.path("copy");
        ends(&desk, &["init", "--repo", copy.to_str().unwrap()], 0);
        for args in [
            &["find", "b"][..],
            &["why", desk.source().join("b").to_str().unwrap()],
            &["history", desk.source().join("a").to_str().unwrap()],
            &["drill"],
            &["rewrite", "--exclude", "x", "--dry-run"],
            &["copy", "--to", copy.to_str().unwrap()],
        ] {
            let mut command = desk.command(args);
            let said = said(&command.env("VAULT_TO_PASSWORD", PASSWORD).output().unwrap());
            assert_eq!(said.code, 4, "{how:?} {is_remembered} {args:?}: {}{}", said.out, said.err);
            assert!(said.err.contains("there may be more snapshots"), "{args:?}: {}", said.err);
        }
        if is_remembered {
            let said = ends(&desk, &["ls", &id], 4);
            assert!(said.contains("missing from the store"), "{said}");
        }
    }
}

#[test]
fn another_vault_in_the_same_place_is_told_by_all_alike() {
    let (desk, other) = (desk(), Desk::new());
    fs::remove_dir_all(desk.path("store")).unwrap();
    copy_folder(&other.path("store"), &desk.path("store"));
    for args in [&["list"][..], &["check"], &["doctor"], &["stats"], &["accept"], &["snapshot", "."]] {
        assert!(ends(&desk, args, 10).contains("another vault"), "{args:?}");
    }
}

/// Retention keeps a whole snapshot of each source beside a damaged last one, however the damage was found.
#[test]
fn the_last_undamaged_snapshot_stays_beside_a_damaged_last_one() {
    for find in [&["check", "--read-data"][..], &["cat", "latest:source/file"]] {
        let desk = Desk::new();
        desk.write("file", bytes(1, 100_000));
        let whole = desk.take("2026-01-01");
        let before = objects(&desk, "packs");
        desk.write("file", bytes(2, 200_000));
        let last = desk.take("2026-01-02");
        for path in objects(&desk, "packs").iter().filter(|path| !before.contains(path)) {
            let mut content = fs::read(path).unwrap();
            content[1000] ^= 1;
            // Objects cannot be written to.
            fs::remove_file(path).unwrap();
            fs::write(path, content).unwrap();
        }
        assert_eq!(desk.run(find).code, 4, "{find:?}");
        let told = desk.run(&["prune", "--keep", "1", "--dry-run"]);
        assert!(told.out.contains("last whole"), "{find:?}: {}", told.out);
        desk.run(&["prune", "--keep", "1", "--yes"]);
        let listed: serde_json::Value = serde_json::from_str(&desk.run(&["list", "--json"]).out).unwrap();
        let ids: Vec<&str> =
            listed["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [whole.as_str(), last.as_str()], "{find:?}");
        desk.ok(&["cat", &format!("{whole}:source/file")]);
    }
}

/// Nothing has looked before: the prune itself finds out that the last snapshot cannot be restored, whether something of it is lost or has not
/// arrived.
#[test]
fn a_last_snapshot_that_lacks_something_drops_no_earlier_one() {
    for (is_late, folder) in [(false, "packs"), (false, "meta"), (true, "packs"), (true, "meta")] {
        let desk = Desk::new();
        let folders = [desk.path("one"), desk.path("two")];
        let put = |number: usize| {
            fs::create_dir(&folders[number]).unwrap();
            fs::write(folders[number].join("file"), bytes(number as u64, 100_000)).unwrap();
            let before = objects(&desk, "");
            let mut take = desk.command(&["snapshot", folders[number].to_str().unwrap(), "--source", "other"]);
            take.env("VAULT_STATE_DIR", desk.path("other"));
            let said = said(&take.output().unwrap());
            assert_eq!(said.code, 0, "{}", said.err);
            objects(&desk, "").into_iter().filter(|path| !before.contains(path)).collect::<Vec<PathBuf>>()
        };
        if is_late {
            desk.ok(&["delivery", "synced"]);
        }
        put(0);
        let new = put(1);
        let listed = || desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len();
        assert_eq!(listed(), 2);
        let object = take_aside(&desk, &new, folder).to_owned();
        let told = desk.run(&["prune", "--keep", "1", "--dry-run"]);
        assert!(told.out.contains("last whole"), "{is_late} {folder}: {}{}", told.out, told.err);
        desk.run(&["prune", "--keep", "1"]);
        put_back(&desk);
        assert!(object.exists());
        assert_eq!(listed(), 2, "{is_late} {folder}");
        desk.run(&["prune", "--keep", "1"]);
        assert_eq!(listed(), 1, "{is_late} {folder}: all of it is there");
    }
}

/// Commands that read the content of a snapshot, its folders, or what all snapshots need; `{}` is a folder beside the source `{s}`.
const READERS: &[&[&str]] = &[
    &["restore", "latest", "--to", "{}/out"],
    &["restore", "latest", "--in-place", "--dry-run"],
    &["cat", "latest:{s}/b"],
    &["export", "latest", "--tar", "{}/out.tar"],
    &["ls", "latest"],
    &["ls", "--recursive", "--digest", "latest"],
    &["find", "b"],
    &["du", "latest"],
    &["diff", "latest~1", "latest"],
    &["history", "{s}/b"],
    &["drill", "--files", "50"],
    &["stats"],
    &["doctor"],
    &["mirror", "--to", "{}/mirror"],
    &["copy", "--to", "{}/copy"],
    &["rewrite", "latest", "--exclude", "x", "--yes"],
    &["prune", "--keep", "1"],
    &["prune", "--keep", "9", "--dry-run"],
    &["repair", "--dry-run"],
    &["check"],
];

/// No check has looked: once a command meets the loss, all know of it from then on, until a check finds that nothing is lost.
#[test]
fn a_loss_that_any_command_meets_is_known_from_then_on() {
    for (harm, enough) in [(Harm::Lost("packs"), 10), (Harm::Lost("meta"), 14), (Harm::Invalid, 14)] {
        let mut met = Vec::new();
        std::thread::scope(|scope| {
            let tried: Vec<_> = READERS.iter().map(|args| scope.spawn(move || (args, is_met(harm, args)))).collect();
            let tried = tried.into_iter().map(|tried| tried.join().unwrap());
            met.extend(tried.filter(|(_, is_met)| *is_met).map(|(args, _)| args.join(" ")));
        });
        assert!(met.len() >= enough && met.contains(&"prune --keep 1".to_owned()), "{harm:?}: {met:?}");
    }
}

/// The harm done to a store.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// The newest object in this folder is lost.
    Lost(&'static str),
    /// A folder of the newest snapshot is not valid.
    Invalid,
}

/// Whether this command meets the harm. Then all others must speak of it.
fn is_met(harm: Harm, args: &[&str]) -> bool {
    let (desk, new) = desk_and_new();
    ends(&desk, &["list"], 0);
    ends(&desk, &["init", "--repo", desk.path("copy").to_str().unwrap()], 0);
    match harm {
        Harm::Lost(folder) => drop(take_aside(&desk, &new, folder)),
        Harm::Invalid => drop(put_invalid(&desk)),
    }
    let (beside, source) = (desk.path("").to_str().unwrap().trim_end_matches('/').to_owned(), desk.source());
    let args: Vec<String> =
        args.iter().map(|arg| arg.replace("{}", &beside).replace("{s}", source.to_str().unwrap())).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = said(&desk.command(&args).env("VAULT_TO_PASSWORD", PASSWORD).output().unwrap());
    let is_met = said.code == 4;
    assert!(is_met || said.code == 0, "{harm:?} {args:?}: {}{}", said.out, said.err);
    if is_met {
        for look in [&["list"][..], &["accept"], &["stats"], &["doctor"], &["list"]] {
            let known = desk.run(look);
            assert_eq!(known.code, 4, "{look:?} after {harm:?} {args:?}: {}{}", known.out, known.err);
        }
    }
    if let Harm::Lost(_) = harm {
        put_back(&desk);
        ends(&desk, &["check"], 0);
        ends(&desk, &["list"], 0);
    }
    is_met
}

/// Puts a snapshot with a folder that is not valid, although its chunks are in a sound pack. Returns its id.
fn put_invalid(desk: &Desk) -> String {
    let store = std::sync::Arc::new(DirStore::open(&desk.path("store")).unwrap());
    let options = OpenOptions::new(desk.path("a witness"), identity("a witness"));
    let vault = open(store, &Secret::raw(&RAW), options, &Silent::default()).unwrap();
    let info = vault.snapshots().pop().unwrap();
    let (mut trees, mut listing) = (vault.tree_reader().unwrap(), info.body.tree.clone());
    let file = loop {
        let mut first = None;
        trees.for_each_entry(&listing, |entry| first.replace(entry).is_some()).unwrap();
        let entry = first.unwrap();
        if entry.kind != FileKind::Directory {
            break entry.content.unwrap();
        }
        listing = entry.content.unwrap();
    };
    let record = Record {
        client: ClientId::new([0xe3; 16]),
        number: 1,
        previous: Digest::new([0; 32]),
        seen: vec![(info.client, info.number)],
        time: info.body.time,
        claims: Vec::new(),
        closed: Vec::new(),
        body: RecordBody::Snapshot(Box::new(Snapshot { tree: file, ..info.body.clone() })),
    };
    let sealed = record.seal(vault.keys()).unwrap();
    fs::write(desk.path("store/log").join(sealed.name.to_string()), &sealed.bytes).unwrap();
    sealed.name.to_string()
}

/// Nothing that is stored again makes the folder valid.
#[test]
fn a_snapshot_with_a_folder_that_is_not_valid_stays_damaged() {
    let desk = desk();
    let id = put_invalid(&desk);
    ends(&desk, &["ls", &id], 4);
    ends(&desk, &["check"], 4);
    desk.take("2026-01-03 12:00");
    for args in [&["list"][..], &["check"], &["doctor"], &["list"]] {
        ends(&desk, args, 4);
    }
    desk.accept_all();
    for args in [&["list"][..], &["check"], &["list"]] {
        ends(&desk, args, 0);
    }
}

/// Of many lost files, only the first ones are remembered by name.
#[test]
fn a_loss_of_more_files_than_are_named_does_not_end_with_those() {
    let desk = Desk::new();
    let name = |number: u64| format!("{number:03}");
    (0..120).for_each(|number| desk.write(&name(number), bytes(number, 9000)));
    desk.take("2026-01-01 12:00");
    objects(&desk, "packs").iter().for_each(|path| fs::remove_file(path).unwrap());
    ends(&desk, &["check"], 4);
    (110..120).for_each(|number| fs::remove_file(desk.source().join(name(number))).unwrap());
    desk.take("2026-01-02 12:00");
    for args in [&["list"][..], &["doctor"], &["check"], &["list"]] {
        ends(&desk, args, 4);
    }
    (110..120).for_each(|number| desk.write(&name(number), bytes(number, 9000)));
    desk.take("2026-01-03 12:00");
    ends(&desk, &["check"], 0);
    ends(&desk, &["list"], 0);
}
