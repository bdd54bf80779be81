//! Surroundings of the program: completions, manual pages, slow lines, versions.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::binary::Desk;
use crate::support::source::bytes;

#[test]
fn completions_are_scripts_that_know_every_command() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = desk.ok(&["completions", shell]);
        for word in ["snapshot", "history", "completions", "limit-upload"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        let path = desk.path(shell);
        fs::write(&path, script).unwrap();
        if let Ok(checked) = Command::new(shell).arg("-n").arg(&path).output() {
            assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    // The script does complete.
    let script = format!(
        "source {}; COMP_WORDS=(vault hist); COMP_CWORD=1; _vault vault hist vault; echo \"${{COMPREPLY[@]}}\"",
        desk.path("bash").display()
    );
    if let Ok(completed) = Command::new("bash").args(["-c", &script]).output() {
        assert_eq!(String::from_utf8_lossy(&completed.stdout), "history\n");
    }
    assert_eq!(desk.run(&["completions", "tcsh"]).code, 2);
}

#[test]
fn there_is_a_page_for_each_command() {
    let desk = Desk::new();
    let first = desk.ok(&["man"]);
    assert!(first.contains(".TH VAULT 1") && first.contains("vault\\-snapshot(1)"), "{first}");
    let folder = desk.path("man/man1");
    let told = desk.json(&["man", folder.to_str().unwrap()]).swap_remove(0);
    let pages: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(told["pages"].as_u64(), Some(pages.len() as u64));
    for name in ["vault.1", "vault-snapshot.1", "vault-key-add.1", "vault-diff.1"] {
        let page = fs::read_to_string(folder.join(name)).unwrap_or_else(|_| panic!("{name} is missing: {pages:?}"));
        assert!(page.contains(".SH NAME") && page.contains(".SH OPTIONS"), "{name}");
    }
    let snapshot = fs::read_to_string(folder.join("vault-snapshot.1")).unwrap();
    assert!(snapshot.contains("skip\\-if\\-unchanged") && snapshot.contains(".SH EXAMPLES"), "{snapshot}");
    match Command::new("mandoc").args(["-T", "lint", "-W", "error"]).args(&pages).output() {
        Ok(lint) => assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout)),
        Err(_) => eprintln!("NOTICE: the pages were not linted: mandoc is not installed"),
    }
}

#[test]
fn what_is_written_is_held_to_the_limit() {
    let desk = Desk::new();
    let timed = |args: &[&str]| {
        let begun = Instant::now();
        desk.ok(args);
        begun.elapsed()
    };
    desk.write("first", bytes(2, 2 << 20));
    // The pack of 2 MiB is written at once, everything after it waits.
    assert!(timed(&["snapshot", ".", "--limit-upload", "1M"]) >= Duration::from_millis(1500));
    // A wide limit delays nothing. Other work on the machine may.
    let is_free = |seed| {
        desk.write("second", bytes(seed, 2 << 20));
        let free = timed(&["snapshot", "."]);
        desk.write("third", bytes(seed + 1, 2 << 20));
        timed(&["snapshot", ".", "--limit-upload", "1G"]) < free + Duration::from_millis(1400)
    };
    assert!((5..25).step_by(2).any(is_free), "ten times it was as slow as with a limit of 1 MiB/s");
    desk.write("third", bytes(6, 2 << 20));
    desk.ok(&["snapshot", "."]);
    desk.ok(&["check", "--read-data"]);
    let (slow, quick) = (desk.path("slow"), desk.path("quick"));
    let restored = |to: &std::path::Path, rate: &str| {
        timed(&["restore", "latest", "--to", to.to_str().unwrap(), "--limit-download", rate])
    };
    assert!(restored(&slow, "3M") >= Duration::from_secs(1), "6 MiB, of which the last segments wait for the others");
    restored(&quick, "1G");
    assert_eq!(fs::read(slow.join("source/third")).unwrap(), bytes(6, 2 << 20));
    // Ctrl-C does not wait for the limit.
    desk.write("fourth", bytes(8, 2 << 20));
    let mut child =
        desk.command(&["snapshot", ".", "--limit-upload", "10K"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let begun = Instant::now();
    child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(desk.run(&["snapshot", ".", "--limit-upload", "0"]).code, 2);
}

/// Systems let a program have about a thousand files open, unless it asks for more.
#[test]
fn a_tree_is_deeper_than_files_may_be_open() {
    let desk = Desk::new();
    let base = desk.source();
    let mut deep = base.join("deep");
    for _ in 0..700 {
        deep.push("d");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "").unwrap();
    }
    let limited = |args: &[&str]| {
        let done = desk.limited("-Sn 300", args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    limited(&["snapshot", "deep"]);
    limited(&["restore", "latest", "--to", "out"]);
    let listed = desk.json(&["list"]);
    assert_eq!(listed[0]["snapshots"][0]["files"].as_u64(), Some(700), "{listed:?}");
    assert!(base.join("out").join(deep.strip_prefix(&base).unwrap()).join("f").exists());
}

#[test]
fn the_version_says_how_it_was_built() {
    let desk = Desk::new();
    assert_eq!(desk.ok(&["version"]), format!("vault {}\n", env!("CARGO_PKG_VERSION")));
    let verbose = desk.ok(&["version", "--verbose"]);
    for word in ["format:   1", "target:   ", "features: "] {
        assert!(verbose.contains(word), "{verbose}");
    }
    assert_eq!(desk.json(&["version"])[0]["format"], 1);
}
