//! An unwritable state folder stops nobody from reading a vault.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::guard::Mounted;
use crate::support::binary::{Desk, Said, said};

/// A desk with a snapshot, and a folder for temporary files.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("file", "content");
    desk.write("folder/other", "more");
    desk.ok(&["snapshot", ".", "--source", "source"]);
    fs::create_dir(desk.path("tmp")).unwrap();
    desk
}

fn run(desk: &Desk, state: &PathBuf, args: &[&str]) -> Said {
    let mut command = desk.command(args);
    command.env("VAULT_STATE_DIR", state).env("TMPDIR", desk.path("tmp"));
    said(&command.output().unwrap())
}

/// Commands that read do their work and leave nothing behind; commands that write refuse, and say why.
#[track_caller]
fn reads_and_refuses(desk: &Desk, state: &PathBuf) {
    let reading: &[&[&str]] = &[
        &["list"],
        &["ls", "latest"],
        &["cat", "latest:source/file"],
        &["find", "fil*"],
        &["history", "file"],
        &["diff", "latest", "latest"],
        &["diff", "latest"],
        &["du", "latest"],
        &["check"],
        &["check", "--read-data"],
        &["stats"],
        &["accept"],
        &["export", "latest", "--tar", "../out.tar"],
        &["restore", "latest", "--to", "../out"],
    ];
    for args in reading {
        let said = run(desk, state, args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        assert_eq!(said.err.matches("temporary").count(), 1, "{args:?}: {}", said.err);
        assert_eq!(fs::read_dir(desk.path("tmp")).unwrap().count(), 0, "{args:?} left something behind");
    }
    assert_eq!(fs::read_to_string(desk.path("out/source/file")).unwrap(), "content");
    fs::remove_dir_all(desk.path("out")).unwrap();
    fs::remove_file(desk.path("out.tar")).unwrap();
    let records = fs::read_dir(desk.path("store/log")).unwrap().count();
    let writing: &[&[&str]] =
        &[&["snapshot", "."], &["prune", "--keep", "1"], &["forget", "latest", "--yes"], &["repair", "--yes"]];
    for args in writing {
        let said = run(desk, state, args);
        assert_eq!(said.code, 1, "{args:?}: {}{}", said.out, said.err);
        assert!(said.err.contains("--state") && !said.err.contains("temporary"), "{args:?}: {}", said.err);
    }
    assert_eq!(fs::read_dir(desk.path("store/log")).unwrap().count(), records);
}

#[test]
fn a_state_folder_that_cannot_be_made_stops_no_reader() {
    let desk = desk();
    // Below a file there is no folder, not even for root.
    reads_and_refuses(&desk, &desk.path("source/file/state"));
}

#[test]
fn a_state_folder_that_cannot_be_written_stops_no_reader() {
    let desk = desk();
    let state = desk.path("state");
    if rustix::process::geteuid().is_root() {
        let path = state.to_str().unwrap();
        let Some(_mounted) = Mounted::new(&["--bind", path], &state) else { return };
        let remounted = Command::new("mount").args(["-o", "remount,bind,ro", path]).status();
        assert!(remounted.unwrap().success());
        reads_and_refuses(&desk, &state);
        return;
    }
    let close = |mode: &str| {
        let changed = Command::new("chmod").args(["-R", mode]).arg(&state).status();
        assert!(changed.unwrap().success());
    };
    close("a-w");
    reads_and_refuses(&desk, &state);
    close("u+w");
}

#[test]
fn what_was_remembered_counts_where_nothing_can_be_written() {
    let desk = desk();
    desk.write("file", "newer");
    let taken = desk.json(&["snapshot", ".", "--source", "source"]);
    let id = taken[0]["snapshot"]["id"].as_str().unwrap();
    fs::remove_file(desk.path("store/log").join(id)).unwrap();
    let state = desk.path("state");
    if rustix::process::geteuid().is_root() {
        let path = state.to_str().unwrap();
        let Some(_mounted) = Mounted::new(&["--bind", path], &state) else { return };
        assert!(Command::new("mount").args(["-o", "remount,bind,ro", path]).status().unwrap().success());
        let said = run(&desk, &state, &["list"]);
        assert_eq!(said.code, 4, "{}{}", said.out, said.err);
    }
}

#[test]
fn what_was_remembered_and_cannot_be_read_is_told_where_nothing_can_be_written() {
    let desk = desk();
    let state = desk.path("state");
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut folders = fs::read_dir(&state).unwrap().map(|folder| folder.unwrap().path());
    let folder = folders.find(|folder| folder.join("client").exists()).unwrap();
    for note in ["findings", "seen"] {
        let path = folder.join(note);
        let _ = fs::remove_file(&path);
        // A link to itself cannot be opened.
        symlink(&path, &path).unwrap();
    }
    let path = state.to_str().unwrap();
    let Some(_mounted) = Mounted::new(&["--bind", path], &state) else { return };
    assert!(Command::new("mount").args(["-o", "remount,bind,ro", path]).status().unwrap().success());
    let said = run(&desk, &state, &["accept"]);
    assert_eq!((said.code, said.out.matches("could not be read").count()), (3, 2), "{}{}", said.out, said.err);
}

#[test]
fn a_memory_of_places_that_cannot_be_read_is_no_reason_for_a_new_vault() {
    let desk = desk();
    let places = desk.path("state/places");
    fs::rename(desk.path("store"), desk.path("away")).unwrap();
    let taken = || desk.run(&["snapshot", "--init", ".", "--source", "source"]);
    assert_eq!(taken().code, 10, "its disk is away");
    let memory = fs::read_dir(&places).unwrap().next().unwrap().unwrap().path();
    // A link to itself cannot be opened.
    for unreadable in [&memory, &places] {
        let aside = desk.path("aside");
        fs::rename(unreadable, &aside).unwrap();
        symlink(unreadable, unreadable).unwrap();
        let makes = [&["init"][..], &["mirror", "--repo", "../away", "--to", "../store"]];
        for said in std::iter::once(taken()).chain(makes.map(|args| desk.run(args))) {
            assert!(said.code == 1 && said.err.contains("memory of it cannot be read"), "{}: {}", said.code, said.err);
        }
        assert!(!desk.path("store").exists());
        fs::remove_file(unreadable).unwrap();
        fs::rename(&aside, unreadable).unwrap();
    }
    assert_eq!(taken().code, 10);
}
