//! Passwords that are removed and passwords that stay, the identity of the vault in a place, and its way to other
//! machines.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use crate::support::PASSWORD;
use crate::support::binary::{Desk, Said, said};
use crate::support::copy_folder;

/// Runs a command with another password.
fn with(desk: &Desk, password: &str, args: &[&str]) -> Said {
    said(&desk.command(args).env("VAULT_PASSWORD", password).output().unwrap())
}

/// The id of a desk's vault.
fn id(desk: &Desk) -> String {
    desk.json(&["list"])[0]["vault"].as_str().unwrap().to_owned()
}

/// The key slots: id, purpose and state of each.
fn slots(desk: &Desk, password: &str) -> Vec<(String, String, String)> {
    let said = with(desk, password, &["key", "list", "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let list: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let text = |slot: &serde_json::Value, key: &str| slot[key].as_str().unwrap().to_owned();
    let slots = list["slots"].as_array().unwrap().iter();
    slots.map(|slot| (text(slot, "id"), text(slot, "purpose"), text(slot, "state"))).collect()
}

fn slot_of(desk: &Desk, password: &str, purpose: &str) -> String {
    slots(desk, password).into_iter().find(|slot| slot.1 == purpose).unwrap().0
}

/// All files below a folder, with their content.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut todo) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_last_way_in_for_a_person_is_not_removed_and_nothing_is_removed_unasked() {
    let desk = Desk::new();
    desk.write("file", "x");
    desk.ok(&["snapshot", "."]);
    desk.ok(&["key", "add", "--device"]);
    let recovery = slot_of(&desk, PASSWORD, "recovery");
    let unasked = desk.run(&["key", "remove", &recovery]);
    assert!(unasked.code == 2 && unasked.err.contains("--yes"), "{}", unasked.err);
    desk.ok(&["key", "remove", &recovery, "--yes"]);
    let password = slot_of(&desk, PASSWORD, "password");
    let last = desk.run(&["key", "remove", &password, "--yes"]);
    assert!(last.code == 1 && last.err.contains("last password or recovery key"), "{}", last.err);
    assert!(desk.run(&["doctor"]).out.contains("There is no recovery key"));
    // At once, for a stolen password; here there is nobody to wait for.
    desk.ok(&["key", "add", "--new-password-command", "echo another"]);
    desk.ok(&["key", "remove", &password, "--yes", "--now"]);
    assert_ne!(desk.run(&["list"]).code, 0);
    assert_eq!(with(&desk, "another", &["key", "passwd", "--now", "--new-password-command", "echo third"]).code, 0);
    assert!(with(&desk, "another", &["list"]).code != 0 && with(&desk, "third", &["list"]).code == 0);
}

#[test]
fn an_old_password_that_is_put_back_is_told_each_time() {
    let desk = Desk::new();
    desk.write("file", "x");
    desk.ok(&["snapshot", "."]);
    let keys = desk.path("store/keys");
    copy_folder(&keys, &desk.path("old"));
    desk.ok(&["key", "passwd", "--new-password-command", "echo new"]);
    assert_ne!(desk.run(&["list"]).code, 0);
    for entry in fs::read_dir(desk.path("old")).unwrap() {
        let entry = entry.unwrap();
        if !keys.join(entry.file_name()).exists() {
            fs::copy(entry.path(), keys.join(entry.file_name())).unwrap();
        }
    }
    // It opens, as nothing can prevent that; and every command says so.
    let listed = desk.run(&["list"]);
    assert!(listed.code == 3 && listed.err.contains("was removed"), "{}", listed.err);
    assert!(with(&desk, "new", &["list"]).err.contains("was removed"));
    let checked = with(&desk, "new", &["check"]);
    assert!(checked.code == 3 && checked.out.contains("was removed"), "{}", checked.out);
    let doctor = with(&desk, "new", &["doctor"]);
    assert!(doctor.code >= 3 && doctor.out.contains("its file is here again"), "{}", doctor.out);
    assert!(slots(&desk, "new").iter().any(|slot| slot.2 == "removed"));
    assert_eq!(with(&desk, "new", &["repair", "--quick", "--yes"]).code, 0);
    assert_ne!(desk.run(&["list"]).code, 0);
    assert_eq!(with(&desk, "new", &["check"]).code, 0);
}

#[test]
fn a_recovery_key_that_cannot_be_printed_is_taken_back() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    // Nobody reads the other end of this pipe.
    let unread = || Stdio::from(std::io::pipe().unwrap().1);
    let desk = Desk::new();
    desk.write("file", "x");
    desk.ok(&["snapshot", "."]);
    let before = slots(&desk, PASSWORD);
    for args in [&["key", "add", "--recovery-key"][..], &["key", "add", "--recovery-key", "--json"]] {
        for out in [full(), unread(), Stdio::null()] {
            let failed = said(&desk.command(args).stdout(out).output().unwrap());
            assert!(failed.code == 1 && failed.err.contains("taken back"), "{}", failed.err);
            assert_eq!(slots(&desk, PASSWORD), before);
        }
        // Standard output is closed.
        let failed = said(&desk.shell("exec \"$@\" >&-", args).output().unwrap());
        assert!(failed.code == 1 && failed.err.contains("is closed, or leads to where"), "{}", failed.err);
        assert_eq!(slots(&desk, PASSWORD), before);
    }
    let new = desk.path("new").display().to_string();
    let first = ["snapshot", ".", "--init", "--recovery-key", "--repo", &new, "--json"];
    let cases = [
        (&["init", "--recovery-key", "--repo", &new][..], full as fn() -> Stdio),
        (&first, full),
        (&first, unread),
        (&first, Stdio::null),
        (&["init", "--recovery-key", "--json", "--repo", &new], Stdio::null),
    ];
    for (args, out) in cases {
        let failed = said(&desk.command(args).stdout(out()).output().unwrap());
        assert!(failed.code == 1 && failed.err.contains("taken back"), "{}", failed.err);
        let listed = desk.json(&["key", "list", "--repo", &new]);
        assert_eq!(listed[0]["slots"].as_array().unwrap().len(), 1);
        fs::remove_dir_all(&new).unwrap();
        fs::remove_dir_all(desk.path("state/places")).unwrap();
    }
}

#[test]
fn a_slot_can_be_named() {
    let desk = Desk::new();
    desk.ok(&["key", "add", "--new-password-command", "echo second"]);
    let all = slots(&desk, PASSWORD);
    let opens = |password: &str| {
        let fits = all.iter().filter(|slot| with(&desk, password, &["list", "--slot", &slot.0[..8]]).code == 0);
        fits.map(|slot| slot.0.clone()).collect::<Vec<_>>()
    };
    let (first, second) = (opens(PASSWORD), opens("second"));
    assert!(first.len() == 1 && second.len() == 1 && first != second);
    assert_ne!(desk.run(&["list", "--slot", "00000000000000000000000000000000"]).code, 0);
    assert_eq!(desk.run(&["list", "--slot", "xyz"]).code, 2);
    // The printed key names the slot that it opens.
    let printed = desk.ok(&["key", "add", "--recovery-key", "--label", "paper"]);
    let slot = slots(&desk, PASSWORD).into_iter().find(|slot| !all.contains(slot)).unwrap().0;
    assert!(printed.contains(&format!("(key slot {})", &slot[..8])), "{printed}");
}

/// Two desks with a snapshot each, and the vault of the second delivered into the folder of the first.
fn merged() -> (Desk, Desk) {
    let (one, two) = (Desk::new(), Desk::new());
    for (desk, name) in [(&one, "one"), (&two, "two")] {
        desk.write(name, name.repeat(50_000));
        desk.ok(&["snapshot", ".", "--source", name]);
    }
    for kind in ["keys", "log", "meta", "packs"] {
        copy_folder(&two.path("store").join(kind), &one.path("store").join(kind));
    }
    (one, two)
}

#[test]
fn two_vaults_in_one_folder_do_each_other_no_harm() {
    let (one, two) = merged();
    let (x, y) = (id(&Desk::new()), id(&two));
    assert_ne!(x, y);
    let before = files(&one.path("store"));
    let listed = one.run(&["list"]);
    assert!(listed.code == 3 && listed.out.contains("one") && !listed.out.contains("two"), "{}", listed.out);
    assert!(listed.err.contains("2 vaults") && listed.err.contains(&y[..8]), "{}", listed.err);
    assert!(!listed.err.contains("damaged") && !listed.err.contains("cannot"), "{}", listed.err);
    for args in [&["check"][..], &["check", "--read-data"]] {
        let checked = one.run(args);
        assert!(checked.code == 3 && checked.out.contains("No damage"), "{}{}", checked.out, checked.err);
        assert!(checked.out.contains(&y), "{}", checked.out);
    }
    for args in [&["repair", "--yes"][..], &["repair", "--yes", "--quick"]] {
        let repaired = one.run(args);
        assert_eq!(repaired.code, 3, "{}{}", repaired.out, repaired.err);
    }
    assert_eq!(files(&one.path("store")), before, "nothing was moved");
    one.write("more", "more");
    one.ok(&["snapshot", ".", "--source", "one"]);
    one.ok(&["prune", "--keep", "1", "--max-unused", "0%"]);
    let doctor = one.run(&["doctor"]);
    assert!(doctor.code == 3 && doctor.out.contains(&y), "{}", doctor.out);
    // The other one is whole, and opens by its id, here and on the machine that made it.
    let other = one.run(&["list", "--vault", &y[..8]]);
    assert!(other.code == 3 && other.out.contains("two") && !other.out.contains("one "), "{}", other.out);
    assert_eq!(one.run(&["check", "--read-data", "--vault", &y]).code, 3);
    let store = one.path("store");
    let there = |args: &[&str]| said(&two.command(args).env("VAULT_REPO", &store).output().unwrap());
    assert_eq!(there(&["list", "--vault", &y]).code, 3);
    assert!(there(&["list"]).out.contains("two"), "the machine has met it here");
    assert!(there(&["snapshot", ".", "--source", "two"]).code == 0);
    assert!(one.run(&["list", "--vault", "00000000"]).err.contains("00000000"));
    assert!(one.run(&["list"]).out.contains("one"), "the chosen vault stays chosen");
}

#[test]
fn another_vault_in_the_same_place_is_not_taken_for_the_known_one() {
    let (one, two) = (Desk::new(), Desk::new());
    for desk in [&one, &two] {
        desk.write("file", "x");
        desk.ok(&["snapshot", "."]);
    }
    let y = id(&two);
    let store = one.path("store");
    fs::rename(&store, one.path("away")).unwrap();
    copy_folder(&two.path("store"), &store);
    let before = files(&store);
    for args in [&["list"][..], &["snapshot", "."], &["check"], &["prune", "--keep", "1"]] {
        let refused = one.run(args);
        assert!(refused.code != 0 && refused.err.contains("another vault"), "{args:?}: {}", refused.err);
        assert!(refused.err.contains(&format!("--vault {}", &y[..8])), "{}", refused.err);
    }
    assert_eq!(files(&store), before);
    // Once it was named, it is known.
    assert_eq!(one.run(&["list", "--vault", &y[..8]]).code, 0);
    one.ok(&["list"]);
    // A configuration can name the expected vault.
    let config = |id: &str| {
        fs::write(one.path("vault.toml"), format!("[vaults.disk]\npath = \"{}\"\nid = \"{id}\"\n", store.display()))
            .unwrap();
        let mut command =
            one.command(&["list", "--config", one.path("vault.toml").to_str().unwrap(), "--repo", "disk"]);
        said(&command.env_remove("VAULT_REPO").output().unwrap())
    };
    assert_eq!(config(&y).code, 0);
    let other = config("0123456789abcdef");
    assert!(other.code != 0 && other.err.contains("0123456789abcdef"), "{}", other.err);
}

#[test]
fn no_vault_is_made_where_this_machine_knows_one_that_is_away() {
    let desk = Desk::new();
    desk.write("file", "x");
    desk.ok(&["snapshot", "."]);
    let store = desk.path("store");
    // The disk is not mounted: an empty folder, or none.
    fs::rename(&store, desk.path("away")).unwrap();
    let list = desk.path("list.csv");
    fs::write(&list, format!("{},{}\n", desk.source().display(), store.display())).unwrap();
    for exists in [false, true] {
        if exists {
            fs::create_dir(&store).unwrap();
        }
        for args in [&["init"][..], &["snapshot", ".", "--init"], &["run", "--list", list.to_str().unwrap()]] {
            let refused = desk.run(args);
            assert!(refused.code != 0 && refused.err.contains("not there now"), "{args:?}: {}", refused.err);
        }
        assert_eq!(store.exists(), exists);
    }
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
    assert!(desk.run(&["list"]).err.contains("mounted"));
    desk.ok(&["snapshot", ".", "--init", "--another"]);
    desk.ok(&["list"]);
    fs::rename(&store, desk.path("away too")).unwrap();
    desk.ok(&["init", "--another"]);
    // The first one, mounted again, is still known.
    fs::remove_dir_all(&store).unwrap();
    fs::rename(desk.path("away"), &store).unwrap();
    assert!(desk.ok(&["list"]).contains("source"));
}

#[test]
fn a_vault_can_be_told_that_it_lies_in_a_synced_folder_and_not_the_other_way() {
    let desk = Desk::new();
    assert!(desk.ok(&["delivery"]).starts_with("direct"));
    assert_eq!(desk.json(&["delivery", "direct"])[0]["changed"], false);
    let raised = desk.json(&["delivery", "synced"]);
    assert_eq!((&raised[0]["delivery"], &raised[0]["changed"]), (&"synced".into(), &true.into()));
    assert!(desk.ok(&["delivery"]).starts_with("synced"));
    assert_eq!(desk.json(&["delivery", "synced"])[0]["changed"], false);
    let lowered = desk.run(&["delivery", "direct"]);
    assert!(lowered.code == 1 && lowered.err.contains("not arrived"), "{}", lowered.err);
    // Any machine knows it from the store alone.
    fs::remove_dir_all(desk.path("state")).unwrap();
    assert!(desk.ok(&["delivery"]).starts_with("synced"));
    desk.write("file", "x");
    desk.ok(&["snapshot", "."]);
}

#[test]
fn the_same_password_from_another_keyboard_opens() {
    let desk = Desk::new();
    desk.ok(&["key", "add", "--new-password-command", "printf 'Ze\\314\\201ro'"]);
    assert_eq!(with(&desk, "Z\u{e9}ro", &["list"]).code, 0);
    assert_eq!(with(&desk, "Ze\u{301}ro\n", &["list"]).code, 0);
    assert_ne!(with(&desk, "Zero", &["list"]).code, 0);
}
