//! Facts that must hold on every system for which vault is built, tested with the program: whole trees are restored,
//! with names, times and links as far as the system has them.

use std::fs;

use crate::support::binary::Desk;
use crate::support::model;
use crate::support::os::ODD_NAMES;
use crate::support::source::{Size, plant, set_mtime, set_readonly};

/// Snapshot, restore, compare.
#[track_caller]
fn comes_back(desk: &Desk) {
    let taken = desk.json(&["snapshot", ".", "--source", "source"]);
    assert_eq!(taken[0]["skipped"].as_array().map(Vec::len), Some(0), "{}", taken[0]);
    let back = desk.path("back");
    desk.ok(&["restore", "latest", "--to", back.to_str().unwrap()]);
    let (old, new) = (model::of_disk(&desk.source(), b"top"), model::of_disk(&back.join("source"), b"top"));
    model::assert_same(&old, &new, "what was restored");
}

#[test]
fn a_tree_comes_back() {
    let desk = Desk::new();
    plant(&desk.source(), 7, Size::Small);
    let deep = desk.source().join("folder 1/deep");
    set_mtime(&deep, 1_234_567_890, 123_456_700);
    // A file with a future date is read again each time.
    set_mtime(&desk.source().join("folder 3/file 4.bin"), 1_000_000_000, 100);
    // A file that was just changed might change again within the same tick, so it is read again.
    std::thread::sleep(std::time::Duration::from_millis(300));
    comes_back(&desk);
    // An unchanged file is not read again.
    let again = &desk.json(&["snapshot", ".", "--source", "source"])[0]["snapshot"];
    assert_eq!((&again["files_unchanged"], &again["bytes_read"]), (&again["files"], &0.into()), "{again}");
    assert_eq!(desk.json(&["diff", "latest"]).len(), 1, "nothing but the sum");
    desk.write("folder 1/deep/new.txt", "new");
    let changes = desk.json(&["diff", "latest"]);
    assert!(changes.iter().any(|line| line["path"] == "source/folder 1/deep/new.txt" && line["change"] == "added"));
    desk.ok(&["check", "--read-data"]);
    desk.ok(&["prune", "--keep", "1"]);
    desk.ok(&["check", "--read-data"]);
    assert!(desk.ok(&["ls", "-R", "latest"]).contains("source/folder 3/deep/deeper/5"));
    let advice = desk.run(&["doctor"]);
    assert!(matches!(advice.code, 0 | 3), "well, perhaps with advice: {}{}", advice.out, advice.err);
}

#[test]
fn odd_names_and_long_paths_come_back() {
    let desk = Desk::new();
    for (number, name) in ODD_NAMES.iter().enumerate() {
        let folder = desk.source().join(vault::path::to_path(name));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), number.to_string()).unwrap();
    }
    let long = (0..12).fold(desk.source(), |path, number| path.join(format!("{number:0>60}")));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("end"), "at the end of a long path").unwrap();
    comes_back(&desk);
    let below = (0..12).map(|number| format!("{number:0>60}")).collect::<Vec<_>>().join("/");
    assert_eq!(desk.ok(&["cat", &format!("latest:source/{below}/end")]), "at the end of a long path");
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let desk = Desk::new();
    desk.write("one", "shared");
    fs::create_dir(desk.source().join("folder")).unwrap();
    fs::hard_link(desk.source().join("one"), desk.source().join("folder/two")).unwrap();
    comes_back(&desk);
    let back = desk.path("back/source");
    fs::write(back.join("one"), "written through one name").unwrap();
    assert_eq!(fs::read_to_string(back.join("folder/two")).unwrap(), "written through one name");
}

#[test]
fn what_may_not_be_written_is_replaced_and_deleted_where_asked() {
    let desk = Desk::new();
    desk.write("kept", "as it was");
    desk.write("other", "other");
    set_readonly(&desk.source().join("kept"), true);
    comes_back(&desk);
    let back = desk.path("back/source");
    assert!(fs::metadata(back.join("kept")).unwrap().permissions().readonly());
    set_readonly(&back.join("kept"), false);
    fs::write(back.join("kept"), "AS IT WAS").unwrap();
    fs::create_dir_all(back.join("extra/deep")).unwrap();
    for name in ["kept", "extra/deep/file"] {
        if name != "kept" {
            fs::write(back.join(name), "not in the snapshot").unwrap();
        }
        set_readonly(&back.join(name), true);
    }
    let to = desk.path("back");
    desk.ok(&["restore", "latest", "--to", to.to_str().unwrap(), "--overwrite", "if-changed", "--delete", "--yes"]);
    let (old, new) = (model::of_disk(&desk.source(), b"top"), model::of_disk(&back, b"top"));
    model::assert_same(&old, &new, "what was restored over");
}

#[test]
fn what_lies_at_its_place_is_put_right() {
    let desk = Desk::new();
    desk.write("folder/changed.txt", "before");
    desk.write("folder/gone.txt", "gone");
    desk.write("same.txt", "same");
    desk.take("2026-01-01");
    let before = model::of_disk(&desk.source(), b"top");
    desk.write("folder/changed.txt", "after!");
    fs::remove_file(desk.source().join("folder/gone.txt")).unwrap();
    desk.write("new.txt", "new");
    desk.ok(&["restore", "latest", "--in-place", "--delete", "--yes"]);
    model::assert_same(&before, &model::of_disk(&desk.source(), b"top"), "in place");
}

#[test]
fn paths_of_the_system_are_understood() {
    let desk = Desk::new();
    desk.write("folder/a.txt", "a");
    desk.write("folder/b.tmp", "b");
    desk.write("cache/c.txt", "c");
    let cache = desk.source().join("cache");
    desk.ok(&["snapshot", desk.source().to_str().unwrap(), "--exclude", cache.to_str().unwrap(), "--exclude", "*.tmp"]);
    let listed = desk.ok(&["ls", "-R", "latest"]);
    assert!(
        listed.contains("source/folder/a.txt") && !listed.contains("b.tmp") && !listed.contains("c.txt"),
        "{listed}"
    );
    let file = desk.source().join("folder").join("a.txt");
    assert_eq!(desk.ok(&["cat", &format!("latest:{}", file.display())]), "a");
    assert!(desk.ok(&["history", file.to_str().unwrap()]).contains("new"));
}

#[test]
fn commands_run_by_the_shell_of_the_system() {
    let desk = Desk::new();
    desk.ok(&["snapshot", "--stdin", "said.txt", "--command", "echo \"two words\"&& echo three"]);
    let said = desk.ok(&["cat", "latest:said.txt"]);
    let quotes: &[_] = &['"', ' '];
    assert_eq!(said.lines().map(|line| line.trim_matches(quotes)).collect::<Vec<_>>(), ["two words", "three"]);
    let failed = desk.run(&["snapshot", "--stdin", "said.txt", "--command", "exit 9"]);
    assert_eq!(failed.code, 1, "{}", failed.err);
    let mut command = desk.command(&["list"]);
    command.env_remove("VAULT_PASSWORD").env("VAULT_PASSWORD_COMMAND", "echo correct horse");
    assert!(command.output().unwrap().status.success(), "the line is the password, without a trailing space");
}

/// An archive brings names into a vault that not every system can have.
#[test]
fn names_that_the_system_cannot_have_are_told_and_the_rest_is_restored() {
    let desk = Desk::new();
    let archive = desk.path("2026-01-01.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    let names = ["a:b", "back\\slash", "con", "dot.", "fine", "folder/nul.txt", "folder/too", "star*"];
    for name in names {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_size(name.len() as u64);
        header.set_cksum();
        builder.append(&header, name.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap();
    desk.ok(&["import", "--tar", archive.to_str().unwrap()]);
    let back = desk.path("back");
    let said = desk.run(&["restore", "latest", "--to", back.to_str().unwrap()]);
    let possible: &[&str] = if cfg!(windows) { &["fine", "folder/too"] } else { &names };
    assert_eq!(said.code, if cfg!(windows) { 3 } else { 0 }, "{}{}", said.out, said.err);
    let found = model::of_disk(&back, b"top");
    let files = found.values().filter(|node| node.content.is_some()).count();
    assert_eq!(files, possible.len(), "{found:?}");
    for name in names {
        let is_there = found.keys().any(|path| path.ends_with(format!("/{name}").as_bytes()));
        assert_eq!(is_there, possible.contains(&name), "{name}");
        assert!(is_there || said.err.contains(name) || said.out.contains(name), "{name}: {}{}", said.out, said.err);
        // If a backslash separates folders, it cannot be typed as a part of a name.
        if !(cfg!(windows) && name.contains('\\')) {
            assert_eq!(desk.ok(&["cat", &format!("latest:{}{name}", prefix(&desk))]), name);
        }
    }
}

/// The name that the import gave the folder of the archive, with a slash.
fn prefix(desk: &Desk) -> String {
    let top = desk.ok(&["ls", "latest"]);
    if top.lines().any(|line| line.contains("fine")) { String::new() } else { format!("{}/", top.trim()) }
}

#[test]
fn a_run_does_what_the_configuration_says() {
    let desk = Desk::new();
    desk.write("a.txt", "a");
    let config = desk.path("vault.toml");
    let quoted = |path: std::path::PathBuf| format!("'{}'", path.display());
    let text = format!(
        "[vaults.disk]\npath = {}\n[sources.docs]\npaths = [{}]\nevery = \"1d\"\nkeep = {{ last = 2 }}\n\
         before = \"echo ran>ran.txt\"\n",
        quoted(desk.path("store")),
        quoted(desk.source()),
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    desk.ok(&["config", "check", "--config", config]);
    let mut command = desk.command(&["run", "--config", config, "--json"]);
    command.env_remove("VAULT_REPO");
    let said = crate::support::binary::said(&command.output().unwrap());
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["results"][0]["state"], "complete", "{report}");
    assert!(desk.source().join("ran.txt").exists(), "the hook ran");
    assert!(desk.ok(&["list"]).contains("docs"));
    assert!(desk.ok(&["schedule", "install", "--help"]).contains("vault schedule"));
}
