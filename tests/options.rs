//! Every option that `--help` shows is used by a test that shows its effect. The options come from the program itself,
//! the uses from the sources of the tests: a list of words that begins with the command and contains the option.
//! Options that no other test uses are used here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::run::Home;
use crate::schedule::fake_systemctl;
use crate::support::PASSWORD;
use crate::support::binary::{Desk, Said, said};
use crate::support::source::{bytes, set_mtime};

/// An option in the help: long name, and short one.
pub type Shown = (String, Option<String>);

/// Options and commands in the help of a command.
fn help(words: &[String]) -> (Vec<Shown>, Vec<String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_vault")).args(words).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut options, mut commands, mut part) = (Vec::new(), Vec::new(), "");
    for line in text.lines().take_while(|line| !line.starts_with("Example")) {
        if let Some(title) = line.strip_suffix(':').filter(|title| !title.starts_with(' ')) {
            part = title;
        }
        let word = line.split_whitespace().next().unwrap_or_default();
        let indent = line.len() - line.trim_start().len();
        if part == "Commands" && indent == 2 && word != "help" {
            commands.push(word.to_owned());
        } else if word.starts_with('-')
            && (2..=6).contains(&indent)
            && (part != "Options of every command" || words.is_empty())
        {
            let names =
                line.split_whitespace().take_while(|word| word.starts_with('-')).map(|word| word.trim_matches(','));
            let (long, short): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("--"));
            let name = |names: Vec<&str>| names.first().map(|name| name.split(['[', '.']).next().unwrap().to_owned());
            options.push((name(long).unwrap(), name(short)));
        }
    }
    (options, commands)
}

/// All commands with their options.
pub fn tree(words: &[String], found: &mut Vec<(Vec<String>, Vec<Shown>)>) {
    let (options, commands) = help(words);
    found.push((words.to_vec(), options));
    for command in commands {
        tree(&[words, &[command]].concat(), found);
    }
}

/// The strings of each innermost list in a source text.
fn lists(text: &str) -> Vec<Vec<String>> {
    let (mut lists, mut open): (Vec<Vec<String>>, Option<Vec<String>>) = (Vec::new(), None);
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '[' => open = Some(Vec::new()),
            ']' => lists.extend(open.take()),
            '"' => {
                let mut escaped = false;
                let end = rest.find(|(_, c)| {
                    let ends = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                });
                if let (Some(list), Some((end, _))) = (&mut open, end) {
                    list.push(text[at + 1..end].to_owned());
                }
            }
            // A quotation mark as a character does not open a string.
            '\'' if text[at..].starts_with("'\"'") => drop(rest.nth(1)),
            _ => {}
        }
    }
    lists
}

#[test]
fn every_option_of_the_help_is_used_by_a_test() {
    let mut uses = Vec::new();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            uses.extend(lists(&fs::read_to_string(path).unwrap()));
        }
    }
    let mut commands = Vec::new();
    tree(&[], &mut commands);
    assert!(commands.len() > 30, "the help was not understood: {commands:?}");
    let mut missing = Vec::new();
    for (words, options) in &commands {
        for (long, short) in options {
            let is_it =
                |word: &String| word == long || word.starts_with(&format!("{long}=")) || Some(word) == short.as_ref();
            if !uses.iter().any(|list| list.starts_with(words) && list[words.len()..].iter().any(is_it)) {
                missing.push(format!("vault {} {long}", words.join(" ")));
            }
        }
    }
    assert!(missing.is_empty(), "no test uses:\n{}", missing.join("\n"));
}

/// Two snapshots: `a/one` as source alpha of machine h1, then `b/two` as source beta of machine h2.
fn two() -> (Desk, [String; 2]) {
    let desk = Desk::new();
    desk.write("a/one", "1");
    desk.write("b/two", "22");
    let take = |args: &[&str]| desk.json(args)[0]["snapshot"]["id"].as_str().unwrap().to_owned();
    let one = take(&["snapshot", "a", "--source", "alpha", "--host", "h1", "--tag", "first", "--time", "2026-01-01"]);
    let two = take(&["snapshot", "b", "--source", "beta", "--host", "h2", "--description", "the second"]);
    (desk, [one, two])
}

#[test]
fn sources_and_machines_narrow_what_is_meant() {
    let (desk, [one, two]) = two();
    let id = |args: &[&str]| desk.json(args)[0]["snapshot"].as_str().unwrap().to_owned();
    let ids = |args: &[&str]| -> Vec<String> {
        let found = desk.json(args)[0]["snapshots"].as_array().unwrap().clone();
        found.iter().map(|found| found.as_str().or(found["id"].as_str()).unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&["list"]), [one.clone(), two.clone()]);
    assert_eq!(ids(&["list", "--last", "1"]), std::slice::from_ref(&two));
    assert_eq!(ids(&["list", "--last", "5"]), [one.clone(), two.clone()]);
    for list in [
        ["list", "--source", "alpha"],
        ["list", "--host", "h1"],
        ["list", "--tag", "first"],
        ["list", "--path", "a/one"],
    ] {
        assert_eq!(ids(&list), std::slice::from_ref(&one));
    }
    assert_eq!(desk.json(&["list"])[0]["snapshots"][1]["description"], "the second");
    assert_eq!(desk.ok(&["ls", "latest"]), "b/\n");
    assert_eq!(desk.ok(&["ls", "latest", "--source", "alpha"]), "a/\n");
    assert_eq!(desk.ok(&["ls", "latest", "--host", "h1"]), "a/\n");
    // With a path, the newest snapshot that covers it is meant.
    assert_eq!(desk.ok(&["cat", "latest:a/one"]), "1");
    assert_eq!(desk.ok(&["cat", "latest:a/one", "--source", "alpha"]), "1");
    assert_eq!(desk.ok(&["cat", "latest:a/one", "--host", "h1"]), "1");
    assert_eq!(desk.json(&["find", "one"]).len(), 1);
    assert_eq!(desk.json(&["find", "ONE", "--ignore-case", "--source", "alpha"]).len(), 1);
    assert_eq!(desk.json(&["find", "one", "--source", "beta"]).len(), 0);
    assert_eq!(desk.json(&["find", "one", "--host", "h2"]).len(), 0);
    assert_eq!(desk.json(&["history", "a/one", "--source", "alpha"]).len(), 1);
    assert_eq!(desk.run(&["history", "a/one", "--source", "beta"]).code, 1);
    assert_eq!(desk.run(&["history", "a/one", "--host", "h2"]).code, 1);
    desk.ok(&["diff", "latest~1", "latest"]);
    assert_eq!(desk.run(&["diff", "latest~1", "latest", "--source", "alpha"]).code, 1, "alpha has only one");
    assert_eq!(desk.run(&["diff", "latest~1", "latest", "--host", "h1"]).code, 1);
    assert_eq!(id(&["du", "--source", "alpha"]), one);
    assert_eq!(id(&["du", "--host", "h1"]), one);
    let back = desk.path("back");
    let back = back.to_str().unwrap();
    assert_eq!(id(&["restore", "latest", "--to", back, "--dry-run", "--source", "alpha"]), one);
    assert_eq!(id(&["restore", "latest", "--to", back, "--dry-run", "--host", "h1"]), one);
    assert!(!Path::new(back).exists());
    let tar = desk.path("a.tar");
    let tar = tar.to_str().unwrap();
    assert_eq!(id(&["export", "latest", "--tar", tar, "--source", "alpha"]), one);
    assert_eq!(desk.run(&["export", "latest", "--tar", tar]).code, 1, "the file already exists");
    assert_eq!(id(&["export", "latest", "--tar", tar, "--overwrite", "--host", "h1"]), one);

    assert_eq!(ids(&["pin", "latest", "--source", "alpha"]), std::slice::from_ref(&one));
    assert_eq!(ids(&["pin", "latest", "--host", "h2"]), std::slice::from_ref(&two));
    assert_eq!(ids(&["rewrite", "--exclude", "one", "--dry-run", "--source", "alpha"]), std::slice::from_ref(&one));
    assert_eq!(ids(&["rewrite", "--iexclude", "TWO", "--dry-run", "--host", "h2"]), std::slice::from_ref(&two));
    assert!(ids(&["rewrite", "--exclude", "TWO", "--yes"]).is_empty());
    // From here on the snapshots have other ids.
    let changed = |args: &[&str]| {
        let said = desk.json(args)[0]["changed"][0].clone();
        (said["replaces"].as_str().unwrap().to_owned(), said["id"].as_str().unwrap().to_owned())
    };
    let (was, three) = changed(&["tag", "add", "x", "latest", "--source", "alpha"]);
    assert_eq!(was, one);
    let (was, one) = changed(&["tag", "remove", "x", "latest", "--source", "alpha"]);
    assert_eq!(was, three);
    let (was, four) = changed(&["tag", "add", "x", "latest", "--host", "h2"]);
    assert_eq!(was, two);
    let (was, two) = changed(&["tag", "remove", "x", "latest", "--host", "h2"]);
    assert_eq!(was, four);
    assert_eq!(ids(&["unpin", "latest", "--source", "alpha"]), std::slice::from_ref(&one));
    assert_eq!(ids(&["unpin", "latest", "--host", "h2"]), std::slice::from_ref(&two));
    // With a given date, like the others: dates of the clock count separately.
    let third = desk.json(&["snapshot", "a", "--source", "alpha", "--host", "h1", "--time", "2026-06-01"]);
    let third = third[0]["snapshot"]["id"].as_str().unwrap();
    let forgotten = |args: &[&str]| desk.json(args)[0]["forgotten"].as_u64().unwrap();
    assert_eq!(forgotten(&["prune", "--keep", "1", "--dry-run", "--host", "h2"]), 0);
    assert_eq!(forgotten(&["prune", "--keep", "1", "--dry-run", "--host", "h1"]), 1);
    assert_eq!(forgotten(&["prune", "--keep", "1", "--source", "beta"]), 0);
    assert_eq!(forgotten(&["prune", "--keep", "1", "--source", "alpha"]), 1);
    assert_eq!(ids(&["list"]), [third.to_owned(), two.clone()]);
    assert_eq!(ids(&["forget", "latest", "--source", "beta"]), [two]);
    assert_eq!(ids(&["forget", "latest", "--host", "h1"]), [third]);
    assert_eq!(ids(&["list"]), Vec::<String>::new());
}

/// The names of the files in the last snapshot.
fn kept(desk: &Desk) -> BTreeSet<String> {
    let listed = desk.json(&["ls", "-R", "latest"]);
    let files = listed.iter().filter(|entry| entry["kind"] == "file");
    files.map(|entry| entry["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn what_is_left_out_of_a_snapshot_is_left_out_of_a_comparison_too() {
    let desk = Desk::new();
    for file in [
        "plain",
        "x.tmp",
        "y.bak",
        "marked/.mark",
        "marked/in",
        "cache/in-cache",
        "ignored",
        "big",
        "nodump",
        "Thumbs.db",
    ] {
        desk.write(file, file);
    }
    desk.write("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    desk.write(".vaultignore", "ignored\n");
    desk.write("big", vec![0; 5000]);
    fs::write(desk.path("patterns"), "*.bak\n").unwrap();
    let patterns = desk.path("patterns");
    let patterns = patterns.to_str().unwrap();
    desk.ok(&["snapshot", "."]);
    let all = kept(&desk);
    assert!(all.contains("plain") && !all.contains("ignored"), "{all:?}");
    // Each option leaves something out of a snapshot. With the same option the disk equals the snapshot, without it it
    // does not.
    let check = |gone: &[&str], take: &[&str], alike: &[&str]| {
        desk.ok(take);
        let without: BTreeSet<String> = all.iter().filter(|name| !gone.contains(&name.as_str())).cloned().collect();
        assert_eq!(kept(&desk), without, "{take:?}");
        let differences = |args: &[&str]| desk.json(args).len() - 1;
        assert_eq!(differences(alike), 0, "{alike:?}");
        assert_eq!(differences(&["diff", "latest"]), gone.len(), "{take:?}");
    };
    check(&["x.tmp"], &["snapshot", ".", "--exclude", "*.tmp"], &["diff", "latest", "--exclude", "*.tmp"]);
    check(&["y.bak"], &["snapshot", ".", "--exclude-from", patterns], &["diff", "latest", "--exclude-from", patterns]);
    check(
        &["in"],
        &["snapshot", ".", "--exclude-if-present", ".mark"],
        &["diff", "latest", "--exclude-if-present", ".mark"],
    );
    check(&["Thumbs.db"], &["snapshot", ".", "--exclude-usual"], &["diff", "latest", "--exclude-usual"]);
    check(&["in-cache"], &["snapshot", ".", "--exclude-caches"], &["diff", "latest", "--exclude-caches"]);
    check(
        &["big"],
        &["snapshot", ".", "--exclude-larger-than", "4K"],
        &["diff", "latest", "--exclude-larger-than", "4K"],
    );
    let flag = |change: &str| {
        Command::new("chattr").arg(change).arg(desk.source().join("nodump")).stderr(Stdio::null()).status()
    };
    if flag("+d").is_ok_and(|status| status.success()) {
        check(&["nodump"], &["snapshot", ".", "--exclude-nodump"], &["diff", "latest", "--exclude-nodump"]);
        flag("-d").unwrap();
    } else {
        eprintln!("NOTICE: --exclude-nodump was not tried: this file system has no flags");
    }
    desk.ok(&["snapshot", ".", "--no-vaultignore"]);
    assert!(kept(&desk).contains("ignored"));
    assert_eq!(desk.json(&["diff", "latest", "--no-vaultignore"]).len(), 1);
    assert_eq!(desk.json(&["diff", "latest"]).len(), 2, "the ignored file seems to be gone");

    let mounted = desk.source().join("marked");
    let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&mounted).stderr(Stdio::null()).status();
    if mount.is_ok_and(|status| status.success()) {
        fs::write(mounted.join("elsewhere"), "x").unwrap();
        desk.ok(&["snapshot", "."]);
        let both = kept(&desk);
        desk.ok(&["snapshot", ".", "--one-file-system"]);
        let one = kept(&desk);
        let alike = desk.json(&["diff", "latest", "--one-file-system"]).len();
        let other = desk.json(&["diff", "latest"]).len();
        assert!(Command::new("umount").arg(&mounted).status().unwrap().success());
        assert!(both.contains("elsewhere") && !one.contains("elsewhere"), "{one:?}");
        assert_eq!((alike, other), (1, 2));
    } else {
        eprintln!("NOTICE: --one-file-system was not tried: only root may mount");
    }
}

#[test]
fn what_is_kept_can_be_a_list_or_a_stream() {
    let desk = Desk::new();
    for file in ["one", "two", "three\nlines"] {
        desk.write(file, file);
    }
    fs::write(desk.path("list"), "one\n").unwrap();
    fs::write(desk.path("list0"), "two\0three\nlines\0").unwrap();
    let (list, list0) = (desk.path("list"), desk.path("list0"));
    desk.ok(&["snapshot", "--files-from", list.to_str().unwrap()]);
    assert_eq!(kept(&desk), BTreeSet::from(["one".to_owned()]));
    desk.ok(&["snapshot", "--files-from", list0.to_str().unwrap(), "--from0"]);
    assert_eq!(kept(&desk), BTreeSet::from(["two".to_owned(), "three\nlines".to_owned()]));
    desk.ok(&["snapshot", "--stdin", "said", "--command", "echo said"]);
    assert_eq!(desk.ok(&["cat", "latest:said"]), "said\n");
    assert_eq!(desk.run(&["snapshot", "--stdin", "said", "--command", "echo half; exit 3"]).code, 1);
}

#[test]
fn how_a_snapshot_is_taken_can_be_chosen() {
    let desk = Desk::new();
    let lines: Vec<String> = (0..20_000).map(|n| format!("line {} of {}", n * 7919 % 1000, n % 13)).collect();
    let text = lines.join("\n");
    desk.write("text", &text);
    let count = || desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len();
    assert_eq!(desk.json(&["snapshot", ".", "--dry-run"])[0]["snapshot"]["files_new"], 1);
    assert_eq!(count(), 0);
    let taken = |args: &[&str]| desk.json(args)[0]["snapshot"].clone();
    let fast = taken(&["snapshot", ".", "--level", "fast", "--time", "2026-01-02T03:04"]);
    assert!(desk.ok(&["list"]).contains("2026-01-02 03:04"));
    assert_eq!(desk.json(&["snapshot", ".", "--skip-if-unchanged"])[0]["unchanged"], true);
    assert_eq!(count(), 1);
    assert_eq!(taken(&["snapshot", "."])["bytes_read"], 0);
    assert_eq!(taken(&["snapshot", ".", "--read-all"])["bytes_read"], text.len());
    // A client that retires itself is not waited for any more, and the next run joins again.
    let retired = |desk: &Desk| {
        let clients = desk.json(&["client", "list"])[0]["clients"].clone();
        clients.as_array().unwrap().iter().filter(|client| client["retired"] == true).count()
    };
    assert_eq!(retired(&desk), 0);
    taken(&["snapshot", ".", "--retire-after-run"]);
    assert_eq!(retired(&desk), 1);
    taken(&["snapshot", "."]);
    assert_eq!(desk.json(&["client", "list"])[0]["clients"].as_array().unwrap().len(), 2);
    // Other chunks, so that they are stored again; content that was not verified when it was sealed is just as good.
    desk.write("text", format!("{text}{text}").replace("line", "LINE"));
    let slow = taken(&["snapshot", ".", "--level", "max", "--no-verify"]);
    let stored = |snapshot: &Value| snapshot["bytes_stored"].as_u64().unwrap();
    assert!(stored(&slow) < 2 * stored(&fast), "{slow} {fast}");
    desk.ok(&["check", "--read-data"]);
    // Of two vaults that differ only in the level, the one with the higher level is smaller.
    let size = |args: &[&str]| {
        let other = Desk::new();
        other.write(
            "text",
            bytes(1, 300_000).iter().map(|byte| b"abcdefgh"[usize::from(*byte) % 8]).collect::<Vec<u8>>(),
        );
        other.json(args)[0]["snapshot"]["bytes_stored"].as_u64().unwrap()
    };
    assert!(size(&["snapshot", ".", "--level", "max"]) <= size(&["snapshot", ".", "--level", "fast"]));
}

#[test]
fn names_and_sizes_are_shown_as_asked_for() {
    let desk = Desk::new();
    desk.write("a/b/c", "12345");
    desk.take("2026-01-01");
    let long = desk.ok(&["ls", "--long", "latest:source/a/b"]);
    assert!(long.starts_with("-rw") && long.contains("5 B") && long.ends_with("  c\n"), "{long}");
    assert_eq!(desk.ok(&["ls", "--print0", "-R", "latest:source/a"]), "source/a/b\0source/a/b/c\0");
    assert_eq!(desk.json(&["du", "--depth", "1"])[0]["entries"].as_array().unwrap().len(), 1);
    assert_eq!(desk.json(&["du", "--depth", "3"])[0]["entries"].as_array().unwrap().len(), 3);
}

/// The files below a folder, by their paths.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder_here) = waiting.pop() {
        for entry in fs::read_dir(&folder_here).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found
}

#[test]
fn a_restore_does_what_its_options_say() {
    let desk = Desk::new();
    for file in ["a.jpg", "b.txt", "old/c.jpg"] {
        desk.write(file, file);
    }
    desk.take("2026-01-01");
    let to = |name: &str| desk.path(name).display().to_string();
    let set = |names: &[&str]| names.iter().map(|name| format!("source/{name}")).collect::<BTreeSet<_>>();
    desk.ok(&["restore", "latest", "--to", &to("jpg"), "--include", "*.jpg", "--exclude", "/source/old"]);
    assert_eq!(files(&desk.path("jpg")), set(&["a.jpg"]));
    let verified = desk.json(&["restore", "latest", "--to", &to("all"), "--verify"]);
    assert_eq!((verified[0]["files_verified"].as_u64(), verified[0]["files"].as_u64()), (Some(3), Some(3)));
    // Files that exist already.
    fs::write(desk.path("all/source/b.txt"), "own").unwrap();
    fs::write(desk.path("all/source/more"), "own").unwrap();
    assert_eq!(desk.run(&["restore", "latest", "--to", &to("all")]).code, 1);
    desk.ok(&["restore", "latest", "--to", &to("all"), "--overwrite", "never"]);
    assert_eq!(fs::read_to_string(desk.path("all/source/b.txt")).unwrap(), "own");
    let changed =
        desk.json(&["restore", "latest", "--to", &to("all"), "--overwrite", "if-changed", "--delete", "--yes"]);
    assert_eq!((changed[0]["files_unchanged"].as_u64(), changed[0]["deleted"].as_u64()), (Some(2), Some(1)));
    assert_eq!(files(&desk.path("all")), set(&["a.jpg", "b.txt", "old/c.jpg"]));
    fs::write(desk.path("all/source/x.own"), "own").unwrap();
    fs::write(desk.path("all/source/.vaultignore"), "*.own\n").unwrap();
    let deleted = desk.json(&["restore", "latest", "--to", &to("all"), "--delete", "--delete-excluded", "-y"]);
    assert_eq!(deleted[0]["deleted"].as_u64(), Some(2));
    // In place; first a dry run.
    desk.write("b.txt", "changed");
    assert_eq!(desk.json(&["restore", "latest", "--in-place", "--dry-run"])[0]["dry_run"], true);
    assert_eq!(fs::read_to_string(desk.source().join("b.txt")).unwrap(), "changed");
    desk.ok(&["restore", "latest", "--in-place"]);
    assert_eq!(fs::read_to_string(desk.source().join("b.txt")).unwrap(), "b.txt");
}

#[test]
fn owners_come_back_by_name_by_number_or_not_at_all() {
    use std::os::unix::fs::MetadataExt;
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || number_of("daemon").is_none() {
        eprintln!("NOTICE: owners were not tried: only root may set them");
        return;
    }
    let daemon = number_of("daemon").unwrap();
    let desk = Desk::new();
    desk.write("file", "x");
    // An archive of a machine on which daemon had another number.
    let packed = Command::new("tar")
        .args(["--owner=daemon:4242", "--group=4343", "-cf"])
        .arg(desk.path("other-2026-01-01.tar"))
        .args(["-C", desk.source().to_str().unwrap(), "file"])
        .status();
    assert!(packed.unwrap().success());
    desk.ok(&["import", "--tar", desk.path("other-2026-01-01.tar").to_str().unwrap()]);
    let owner = |args: &[&str], name: &str| {
        desk.ok(args);
        fs::metadata(desk.path(name).join("file")).unwrap().uid()
    };
    let to = |name: &str| desk.path(name).display().to_string();
    assert_eq!(owner(&["restore", "latest", "--to", &to("named")], "named"), daemon);
    assert_eq!(owner(&["restore", "latest", "--to", &to("numbered"), "--numeric-owner"], "numbered"), 4242);
    assert_eq!(owner(&["restore", "latest", "--to", &to("own"), "--no-owner"], "own"), 0);
}

/// The number of a user.
fn number_of(name: &str) -> Option<u32> {
    let output = Command::new("id").args(["-u", name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[test]
fn each_rule_keeps_what_it_says() {
    let desk = Desk::new();
    let times = [
        "2024-06-10T10:00",
        "2025-12-10T10:00",
        "2025-12-29T10:00",
        "2026-01-05T10:00",
        "2026-01-06T10:10",
        "2026-01-06T10:50",
        "2026-01-06T11:30",
    ];
    for (round, time) in times.iter().enumerate() {
        desk.write("file", bytes(round as u64, 20_000));
        let tag = if round == 1 { "special" } else { "usual" };
        desk.ok(&["snapshot", ".", "--source", "source", "--time", time, "--tag", tag]);
    }
    let check = |args: &[&str], expected: &[usize]| {
        let said = desk.json(args);
        let snapshots = said[0]["snapshots"].as_array().unwrap();
        let keeps: Vec<usize> =
            snapshots.iter().enumerate().filter(|(_, one)| one["keep"] == true).map(|(at, _)| at).collect();
        // The last complete snapshot stays whatever the rules say.
        let expected: std::collections::BTreeSet<usize> = expected.iter().copied().chain([6]).collect();
        assert_eq!(keeps, expected.into_iter().collect::<Vec<_>>(), "{args:?}");
    };
    check(&["prune", "--dry-run", "--keep", "2"], &[5, 6]);
    check(&["prune", "--dry-run", "--keep-hourly", "2"], &[5, 6]);
    check(&["prune", "--dry-run", "--keep-daily", "2"], &[3, 6]);
    check(&["prune", "--dry-run", "--keep-weekly", "2"], &[2, 6]);
    check(&["prune", "--dry-run", "--keep-monthly", "2"], &[2, 6]);
    check(&["prune", "--dry-run", "--keep-yearly", "3"], &[0, 2, 6]);
    check(&["prune", "--dry-run", "--keep-within", "2h"], &[4, 5, 6]);
    check(&["prune", "--dry-run", "--keep-tag", "special"], &[1]);
    assert_eq!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), times.len(), "nothing was done");
}

#[test]
fn how_space_is_given_back_can_be_bounded() {
    let desk = Desk::new();
    // Most of the data of the first snapshot is still needed: its pack can only be deleted if that data is copied.
    desk.write("stays", bytes(1, 800_000));
    desk.write("goes", bytes(2, 400_000));
    desk.take("2026-01-01");
    fs::remove_file(desk.source().join("goes")).unwrap();
    desk.take("2026-01-02");
    let moved = |args: &[&str]| desk.json(args)[0]["bytes_moved"].as_u64().unwrap();
    assert_eq!(moved(&["prune", "--keep", "1", "--dry-run", "--max-unused", "90%"]), 0);
    assert_eq!(moved(&["prune", "--keep", "1", "--dry-run", "--max-repack-size", "0"]), 0);
    assert!(moved(&["prune", "--keep", "1", "--dry-run", "--max-unused", "0%"]) >= 400_000);
    assert!(moved(&["prune", "--keep", "1", "--max-unused", "0%", "--no-verify"]) >= 400_000);
    desk.ok(&["check", "--read-data"]);
}

#[test]
fn a_check_reads_as_much_as_it_is_told() {
    let desk = Desk::new();
    desk.write("file", bytes(1, 100_000));
    desk.take("2026-01-01");
    let read = |args: &[&str]| {
        let said = desk.json(args).swap_remove(0);
        (said["packs_read"].as_u64().unwrap(), said["out_of_time"] == true)
    };
    assert_eq!(read(&["check", "--sample", "0%"]), (0, false));
    assert_eq!(read(&["check", "--max-time", "0s"]), (0, true));
    assert!(read(&["check", "--sample", "100%"]).0 >= 2);
    assert!(read(&["check", "--max-time", "1h"]).0 >= 2);
}

/// Whether the vault can be opened with too little memory to try a strong password.
fn opens_in_little_memory(desk: &Desk, repo: &str, password: &str) -> bool {
    let script = "ulimit -v 900000; exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_vault");
    let mut command = Command::new("sh");
    let words = ["-c", script, "sh", program, "key", "list", "--threads", "1", "--repo", repo];
    command
        .args(words)
        .env("VAULT_PASSWORD", password)
        .env("VAULT_STATE_DIR", desk.path("little"))
        .env("HOME", desk.path(""));
    command.output().unwrap().status.success()
}

#[test]
fn a_new_vault_is_as_it_was_asked_for() {
    let desk = Desk::new();
    let at = |name: &str| desk.path(name).display().to_string();
    let (plain, small, strong, taken, strong_too) =
        (at("plain"), at("small"), at("strong"), at("taken"), at("strong too"));
    let made = desk.json(&["init", "--repo", &plain, "--delivery", "synced", "--recovery-key", "--label", "mine"]);
    assert_eq!(made[0]["delivery"], "synced");
    let labels = |repo: &str| -> Vec<String> {
        let slots = desk.json(&["key", "list", "--repo", repo])[0]["slots"].as_array().unwrap().clone();
        slots.iter().map(|slot| slot["label"].as_str().unwrap().to_owned()).collect()
    };
    assert!(labels(&plain).contains(&"mine".to_owned()));
    // The recovery key opens it.
    let key = made[0]["recovery_key"].as_str().unwrap();
    let opened = desk.command(&["list", "--repo", &plain]).env("VAULT_PASSWORD", key).output().unwrap();
    assert!(opened.status.success());
    assert!(opens_in_little_memory(&desk, &plain, PASSWORD));

    desk.write("file", bytes(1, 200_000));
    let chunks = |repo: &str| desk.json(&["stats", "--repo", repo])[0]["chunks"].as_u64().unwrap();
    desk.ok(&["init", "--repo", &small, "--chunk-avg", "1K"]);
    desk.ok(&["snapshot", ".", "--repo", &plain]);
    desk.ok(&["snapshot", ".", "--repo", &small]);
    assert!(chunks(&small) > 5 * chunks(&plain));
    desk.ok(&["init", "--repo", &strong, "--kdf", "strong"]);
    assert!(!opens_in_little_memory(&desk, &strong, PASSWORD));
    // The same when a snapshot makes the vault.
    let first = ["snapshot", ".", "--repo", &taken, "--init", "--delivery", "synced", "--recovery-key"];
    let made = desk.json(&[&first[..], &["snapshot", "--label", "own", "--chunk-avg", "1K"][1..]].concat());
    assert_eq!(made[0]["init"]["delivery"], "synced");
    assert!(made[0]["init"]["recovery_key"].is_string());
    assert!(labels(&taken).contains(&"own".to_owned()));
    assert!(chunks(&taken) > 5 * chunks(&plain));
    desk.ok(&["snapshot", ".", "--repo", &strong_too, "--init", "--kdf", "strong"]);
    assert!(!opens_in_little_memory(&desk, &strong_too, PASSWORD));
}

#[test]
fn new_passwords_come_from_where_they_are_said_to_be() {
    let desk = Desk::new();
    fs::write(desk.path("new"), "from a file\nsecond line\n").unwrap();
    let file = desk.path("new");
    let file = file.to_str().unwrap();
    let store = desk.path("store");
    let store = store.to_str().unwrap();
    let opens =
        |password: &str| desk.command(&["list"]).env("VAULT_PASSWORD", password).output().unwrap().status.success();
    desk.ok(&["key", "add", "--new-password-file", file, "--label", "file"]);
    desk.ok(&["key", "add", "--new-password-command", "echo from a command"]);
    assert!(opens("from a file") && opens("from a command") && opens(PASSWORD) && !opens("second line"));
    assert!(desk.ok(&["key", "list"]).contains("file"));
    let change = |password: &str, args: &[&str]| {
        let changed = desk.command(args).env("VAULT_PASSWORD", password).output().unwrap();
        assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    };
    fs::write(file, "changed by a file").unwrap();
    change("from a file", &["key", "passwd", "--new-password-file", file]);
    change("from a command", &["key", "passwd", "--new-password-command", "echo changed"]);
    assert!(opens("changed by a file") && opens("changed"));
    assert!(!opens("from a file") && !opens("from a command"));
    assert!(opens_in_little_memory(&desk, store, "changed"));
    // A strong one cannot be tried with little memory.
    change("changed", &["key", "passwd", "--new-password-command", "echo strong", "--kdf", "strong"]);
    assert!(!opens_in_little_memory(&desk, store, "strong"));
    let other = Desk::new();
    other.ok(&["key", "add", "--new-password-command", "echo strong", "--kdf", "strong"]);
    assert!(!opens_in_little_memory(&other, other.path("store").to_str().unwrap(), "strong"));
}

#[test]
fn options_of_every_command_have_their_effect() {
    let desk = Desk::new();
    desk.write("file", bytes(1, 100_000));
    desk.take("2026-01-01");
    let bare = |args: &[&str]| -> Said { said(&desk.command(args).env_remove("VAULT_PASSWORD").output().unwrap()) };
    fs::write(desk.path("password"), PASSWORD).unwrap();
    let password = desk.path("password");
    assert_eq!(bare(&["list"]).code, 1);
    assert_eq!(bare(&["--password-file", password.to_str().unwrap(), "list"]).code, 0);
    assert_eq!(bare(&["--password-command", &format!("echo '{PASSWORD}'"), "list"]).code, 0);
    assert_eq!(bare(&["--password-command", "echo another", "list"]).code, 12);
    let nowhere = desk.path("nowhere");
    assert_eq!(desk.run(&["--repo", nowhere.to_str().unwrap(), "list"]).code, 10);
    let state = desk.path("another state");
    desk.ok(&["--state", state.to_str().unwrap(), "list"]);
    assert!(state.is_dir());
    let config = desk.path("own.toml");
    fs::write(&config, format!("[vaults.own]\npath = {:?}\n", desk.path("store"))).unwrap();
    desk.ok(&["--config", config.to_str().unwrap(), "--repo", "own", "list"]);
    assert_eq!(desk.run(&["--repo", "own", "list"]).code, 10);
    assert_eq!(desk.run(&["--quiet", "snapshot", "."]).out, "");
    assert_ne!(desk.run(&["snapshot", "."]).out, "");
    assert!(desk.ok(&["--verbose", "version"]).lines().count() > desk.ok(&["version"]).lines().count());
    assert!(desk.ok(&["--help"]).len() > desk.ok(&["-h"]).len());
    assert_eq!(desk.ok(&["--version"]), desk.ok(&["version"]));
    assert!(desk.ok(&["--json", "list"]).starts_with('{'));
    set_mtime(&desk.source(), 1, 0);
}

/// Most threads that a command has, as the system counts them.
fn threads(desk: &Desk, args: &[&str]) -> usize {
    let mut child = desk.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let folder = format!("/proc/{}/task", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(fs::read_dir(&folder).map_or(0, Iterator::count));
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    most
}

#[test]
fn as_many_threads_work_as_are_asked_for() {
    let desk = Desk::new();
    for file in 0..200 {
        desk.write(&format!("{file}"), bytes(file, 100_000));
    }
    let one = threads(&desk, &["--threads", "1", "snapshot", "."]);
    for file in 0..200 {
        desk.write(&format!("{file}"), bytes(1000 + file, 100_000));
    }
    let twelve = threads(&desk, &["--threads", "12", "snapshot", "."]);
    assert!(twelve >= one + 8, "{twelve} instead of {one}");
}

#[test]
fn every_command_speaks_json() {
    let home = Home::new();
    fake_systemctl(&home);
    home.configure("[vaults.disk]\npath = \"HOME/disk/vault\"\n[sources.docs]\npaths = [\"~/a\"]\n");
    fs::create_dir_all(home.path("copies/2024-05-31")).unwrap();
    fs::write(home.path("copies/2024-05-31/file"), "x").unwrap();
    fs::write(home.path("new"), "another password").unwrap();
    let (copies, new) = (home.text("copies"), home.text("new"));
    let cases: &[&[&str]] = &[
        &["init"],
        &["snapshot", "a"],
        &["list"],
        &["ls", "-R"],
        &["cat", "latest:a/one.txt"],
        &["find", "one"],
        &["history", "a/one.txt"],
        &["why", "a/one.txt"],
        &["mount", "nowhere/at all"],
        &["umount", "nowhere/at all"],
        &["ui", "--socket", "nowhere/at all"],
        &["drill"],
        &["diff", "latest"],
        &["du"],
        &["restore", "latest", "--to", "back"],
        &["export", "latest", "--tar", "x.tar"],
        &["import", "--dirs", &copies],
        &["pin", "latest"],
        &["unpin", "latest"],
        &["tag", "add", "x", "latest"],
        &["tag", "remove", "x", "latest"],
        &["amend", "latest", "--description", "x"],
        &["rewrite", "--exclude", "none", "--dry-run"],
        &["prune", "--keep", "5"],
        &["check"],
        &["repair", "--dry-run"],
        &["doctor"],
        &["stats"],
        &["mirror", "--to", "second"],
        &["init", "--repo", "third"],
        &["copy", "--to", "third"],
        &["promote", "--repo", "second", "--yes"],
        &["client", "list"],
        &["client", "retire", "0123"],
        &["key", "list"],
        &["key", "add", "--new-password-file", &new],
        &["key", "remove", "0123"],
        &["key", "passwd", "--new-password-file", &new],
        &["delivery"],
        &["accept"],
        &["completions", "bash"],
        &["man", "pages"],
        &["config"],
        &["config", "init"],
        &["config", "check"],
        &["run", "--dry-run"],
        &["schedule", "install"],
        &["schedule", "status"],
        &["schedule", "remove"],
        &["version"],
        &["forget", "latest"],
    ];
    // Output for other programs is printed unchanged.
    let not_json = ["cat", "completions"];
    for args in cases {
        // `key passwd` changes the password for the following commands.
        let password = if home.path("changed").exists() { "another password" } else { "password" };
        let mut command = home.command(&[args, &["--json", "--threads", "1"][..]].concat());
        let output = said(&command.env("VAULT_PASSWORD", password).output().unwrap());
        if args.starts_with(&["key", "passwd"]) {
            fs::write(home.path("changed"), "").unwrap();
        }
        let (text, what) = if matches!(output.code, 0 | 3 | 4) { (&output.out, "out") } else { (&output.err, "err") };
        if not_json.contains(&args[0]) {
            assert_eq!(output.code, 0, "{args:?}: {}", output.err);
            continue;
        }
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        let values = values.unwrap_or_else(|error| panic!("{args:?}: {error} in {what}: {text}"));
        assert!(!values.is_empty() && values.iter().all(Value::is_object), "{args:?}: {text}{}", output.err);
    }
    let mut commands = Vec::new();
    tree(&[], &mut commands);
    for (words, _) in commands.iter().filter(|(words, _)| !words.is_empty()) {
        assert!(cases.iter().any(|case| case.iter().zip(words).all(|(a, b)| a == b)), "{words:?} is not tried");
    }
}
