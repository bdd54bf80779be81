//! Looking into snapshots with the real program: find, history, diff, du and digests.

use std::fs;

use serde_json::Value;

use crate::support::binary::Desk;
use crate::support::source::{Size, plant, set_mtime, set_readonly};

/// The paths that a search printed.
fn paths(found: &[Value]) -> Vec<&str> {
    found.iter().map(|line| line["path"].as_str().unwrap()).collect()
}

/// Five snapshots: a letter that changes twice, and a folder that appears and disappears.
fn letters() -> (Desk, Vec<String>) {
    let desk = Desk::new();
    desk.write("docs/letter.odt", "first");
    desk.write("docs/other.txt", "other");
    desk.write("photos/2024/a.jpg", "a picture");
    let mut ids = vec![desk.take("2026-01-01"), desk.take("2026-01-02")];
    desk.write("docs/letter.odt", "second, longer");
    fs::create_dir(desk.source().join("letters")).unwrap();
    ids.push(desk.take("2026-01-03"));
    desk.write("letters/letter 2.ODT", "another one");
    ids.push(desk.take("2026-01-04"));
    fs::remove_dir_all(desk.source().join("letters")).unwrap();
    fs::remove_file(desk.source().join("docs/letter.odt")).unwrap();
    ids.push(desk.take("2026-01-05"));
    (desk, ids)
}

#[test]
fn find_groups_the_versions_of_each_path_by_the_snapshots_that_hold_them() {
    let (desk, ids) = letters();
    let found = desk.json(&["find", "letter"]);
    assert_eq!(paths(&found), ["source/letters", "source/docs/letter.odt", "source/letters/letter 2.ODT"]);
    let versions = found[1]["versions"].as_array().unwrap();
    let holders = |version: &Value| -> Vec<String> {
        version["snapshots"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(versions.len(), 2);
    assert_eq!((versions[0]["size"].as_u64(), versions[1]["size"].as_u64()), (Some(14), Some(5)));
    assert_eq!(holders(&versions[0]), [ids[3].clone(), ids[2].clone()]);
    assert_eq!(holders(&versions[1]), [ids[1].clone(), ids[0].clone()]);
    // A folder is one version, whatever it contains.
    assert_eq!((found[0]["versions"].as_array().unwrap().len(), holders(&found[0]["versions"][0]).len()), (1, 2));
    // The index gives the same answer as the store.
    assert_eq!(desk.json(&["find", "letter"]), found);

    let text = desk.ok(&["find", "letter.odt"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "source/docs/letter.odt");
    let (short, dated) =
        (|id: &str| id[..8].to_owned(), |id: &str, day: u8| format!("{} (2026-01-0{day} 00:00)", &id[..8]));
    assert!(
        lines[1].contains("14 B")
            && lines[1].ends_with(&format!("in 2 snapshots, {} to {}", dated(&ids[2], 3), dated(&ids[3], 4)))
    );
    assert!(!text.contains(&short(&ids[4])));
    let long = desk.ok(&["find", "letter.odt", "--long"]);
    assert_eq!(long.lines().filter(|line| line.starts_with("              ")).count(), 4, "{long}");
}

#[test]
fn find_takes_patterns_and_filters() {
    let (desk, ids) = letters();
    let find = |args: &[&str]| -> Vec<String> {
        let found = desk.json(&[&["find"], args].concat());
        paths(&found).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(find(&["*.odt"]), ["source/docs/letter.odt"]);
    assert_eq!(find(&["*.odt", "-i"]), ["source/docs/letter.odt", "source/letters/letter 2.ODT"]);
    assert_eq!(find(&["docs/*.txt"]), ["source/docs/other.txt"]);
    assert_eq!(find(&["/source/*/?.jpg"]), Vec::<String>::new());
    assert_eq!(find(&["/source/**/?.jpg"]), ["source/photos/2024/a.jpg"]);
    assert_eq!(find(&["/photos/**"]), Vec::<String>::new());
    assert!(desk.ok(&["find", "nothing like it"]).contains("Nothing in 5 snapshots matches"));
    desk.ok(&["snapshot", "docs", "--source", "another"]);
    assert_eq!(find(&["other.txt", "--source", "another"]), ["docs/other.txt"]);
    assert_eq!(find(&["other.txt"]), ["docs/other.txt", "source/docs/other.txt"]);
    let refused = desk.run(&["find", "x", "--host", "nobody's"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("There is: --host "), "{}", refused.err);
    // Forgotten snapshots are not found any more, and the index still works.
    desk.ok(&["forget", &ids[3]]);
    assert_eq!(find(&["letter 2"]), Vec::<String>::new());
}

/// With several sources each hit names its source; if nothing is found, the nearest name is offered.
#[test]
fn find_names_sources_and_what_may_have_been_meant() {
    let (desk, ids) = letters();
    let one = |of: &str| format!("in {} (2026-01-02 00:00){of}", &ids[1][..8]);
    assert!(!desk.ok(&["find", "letter.odt", "--long"]).contains(" of "), "there is only one source");
    desk.ok(&["snapshot", "docs", "--source", "another", "--host", "elsewhere", "--time", "2026-01-07"]);
    let text = desk.ok(&["find", "other.txt", "--long"]);
    assert!(text.contains(" of another on elsewhere"), "{text}");
    assert!(text.contains(&one("")[3..]) && text.contains(" snapshots of source on "), "{text}");
    let found = desk.json(&["find", "other.txt"]);
    let named = |at: usize| found[at]["versions"][0]["sources"].as_array().unwrap().clone();
    assert_eq!(named(0), [serde_json::json!({ "source": "another", "host": "elsewhere" })]);
    assert_eq!((named(1).len(), &named(1)[0]["source"]), (1, &Value::from("source")));
    for (asked, near) in [("leter.odt", "letter.odt"), ("LETTER.ODT", "letter.odt"), ("docs/othr.txt", "other.txt")] {
        let text = desk.ok(&["find", asked]);
        assert!(text.contains(&format!("matches {asked}.\nDid you mean: vault find {near}\n")), "{asked}: {text}");
    }
    for asked in ["*.nothing", "nothing like it"] {
        assert!(!desk.ok(&["find", asked]).contains("Did you mean"), "{asked}");
    }
    assert_eq!(desk.ok(&["find", "leter.odt", "--quiet"]), "");
    let refused = desk.run(&["history", "source/docs/leter.odt"]);
    assert!(refused.err.contains("Did you mean: vault history source/docs/letter.odt\n"), "{}", refused.err);
}

/// Each command that takes SNAPSHOT:PATH says which snapshot it searched, and suggests what may have been meant.
#[test]
fn what_a_snapshot_does_not_have_is_looked_for_nearby() {
    let (desk, ids) = letters();
    let (last, out) = (format!("in snapshot {} of 2026-01-05 00:00 (source on ", &ids[4][..8]), desk.path("out"));
    let out = out.to_str().unwrap();
    let tar = format!("{out}.tar");
    let typed = "latest:source/dosc";
    for args in [
        &["ls", typed][..],
        &["ls", "--digest", typed],
        &["cat", typed],
        &["du", typed],
        &["restore", typed, "--to", out],
        &["restore", typed, "--in-place"],
        &["export", typed, "--tar", &tar],
        &["export", typed, "--tar", "-"],
        &["diff", typed, "latest"],
        &["diff", "latest:source/docs", typed],
    ] {
        let refused = desk.run(args);
        let said = &refused.err;
        assert!(
            refused.code == 1 && said.contains("there is no source/dosc") && said.contains(&last),
            "{args:?}: {said}"
        );
        assert!(said.contains("\n  Did you mean latest:source/docs?\n"), "{args:?}: {said}");
        assert!(!desk.path("out").exists() && !desk.path("out.tar.part").exists(), "{args:?}");
    }
    desk.ok(&["snapshot", "photos", "--source", "pics", "--time", "2026-01-07"]);
    let hint = |typed: &str| desk.run(&["ls", typed]).err.lines().last().unwrap().trim().to_owned();
    // Several names at once, and a name in other letter cases.
    assert_eq!(hint("latest:Source/dcs/othr.txt"), "Did you mean latest:source/docs/other.txt?");
    // A path that another snapshot has, of this source or another one.
    let older = hint(&format!("{}:source/letters", &ids[4][..8]));
    let shown = format!("Snapshot {} of 2026-01-04 00:00 (source on ", &ids[3][..8]);
    assert!(
        older.starts_with(&shown) && older.ends_with(&format!(" has it: {}:source/letters", &ids[3][..8])),
        "{older}"
    );
    assert!(hint("latest:photso").ends_with("Did you mean latest:photos?"), "{}", hint("latest:photso"));
    // By the end of its path on the disk, and with a typing mistake.
    let top = desk.source();
    let above = top.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let by_end = hint(&format!("latest:{above}/source/docs"));
    assert!(by_end.starts_with("Snapshot ") && by_end.ends_with(" has it: latest:source/docs"), "{by_end}");
    assert_eq!(hint(&format!("latest:{above}/source/dosc")), "Did you mean latest:source/docs?");
    let mistyped = format!("latest:{}", top.join("photis/2024").display());
    assert_eq!(hint(&mistyped), "Did you mean latest:source/photos/2024?");
    assert_eq!(hint("latest:source/docs/zzzzzz"), "See what is there with: vault ls latest:source/docs");
    assert_eq!(hint("latest:zzzzzz"), "Look for it by its name: vault find zzzzzz");
    let none = desk.run(&["restore", "latest", "--source", "source", "--include", "*.none", "--to", out]);
    assert!(none.err.contains("nothing in snapshot ") && none.err.contains(" matches *.none"), "{}", none.err);
}

#[test]
fn history_tells_when_a_file_came_changed_and_went() {
    let (desk, ids) = letters();
    let check = |path: &str| {
        let versions = desk.json(&["history", path]);
        let said: Vec<_> = versions
            .iter()
            .map(|version| (version["change"].as_str().unwrap(), version["snapshots"].as_array().unwrap().len()))
            .collect();
        assert_eq!(said, [("gone", 1), ("content", 2), ("new", 2)], "{path}");
        assert_eq!(versions[2]["snapshots"][1], ids[0]);
        assert_eq!(versions[1]["entry"]["size"], 14);
        assert_eq!(versions[0]["entry"], Value::Null);
    };
    check("source/docs/letter.odt");
    check("docs/letter.odt"); // from the current folder
    check(desk.source().join("docs/letter.odt").to_str().unwrap());
    set_readonly(&desk.source().join("docs/other.txt"), true);
    desk.take("2026-01-06");
    let text = desk.ok(&["history", "docs/other.txt"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("Since") && lines[1].starts_with("2026-01-06 00:00") && lines[1].ends_with("mode"));
    assert!(lines[2].starts_with("2026-01-01 00:00") && lines[2].ends_with("new") && lines.len() == 3, "{text}");
    let refused = desk.run(&["history", "never was"]);
    assert!(refused.code == 1 && refused.err.contains("vault find"), "{}", refused.err);
}

/// Each change of a path, newest first, with the number of snapshots that have it.
fn changes(desk: &Desk, path: &str) -> Vec<(String, usize)> {
    let versions = desk.json(&["history", path]);
    let change = |version: &Value| {
        (version["change"].as_str().unwrap().to_owned(), version["snapshots"].as_array().unwrap().len())
    };
    versions.iter().map(change).collect()
}

fn said(pairs: &[(&str, usize)]) -> Vec<(String, usize)> {
    pairs.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

#[test]
fn what_a_rule_left_out_is_not_gone() {
    let desk = Desk::new();
    for path in ["notes.tmp", "sub/deep/file", "kept", "large", "goes", "here/own"] {
        desk.write(path, path.repeat(10));
    }
    let take = |more: &[&str]| {
        desk.ok(&[&["snapshot", ".", "--source", "source"], more].concat());
        desk.json(&["list", "--last", "1"])[0]["snapshots"][0]["id"].as_str().unwrap().to_owned()
    };
    let first = take(&[]);
    desk.write("here/.vaultignore", "/own\n");
    fs::remove_file(desk.source().join("goes")).unwrap();
    desk.write("large", "x".repeat(5000));
    let second = take(&["--exclude", "*.tmp", "--exclude", "/sub/deep/", "--exclude-larger-than", "4000"]);
    assert_eq!(changes(&desk, "notes.tmp"), said(&[("left_out", 1), ("new", 1)]));
    for path in ["sub/deep/file", "sub/deep", "large", "here/own"] {
        assert_eq!(changes(&desk, path), said(&[("left_out", 1), ("new", 1)]), "{path}");
    }
    assert_eq!(changes(&desk, "goes"), said(&[("gone", 1), ("new", 1)]));
    let text = desk.ok(&["history", "notes.tmp"]);
    assert!(text.contains("left out by a rule") && !text.contains("gone"), "{text}");
    // When it is back, it is compared with its last version.
    fs::remove_file(desk.source().join("here/.vaultignore")).unwrap();
    fs::remove_file(desk.source().join("notes.tmp")).unwrap();
    desk.write("here/own", "changed");
    take(&[]);
    assert_eq!(changes(&desk, "notes.tmp"), said(&[("gone", 1), ("left_out", 1), ("new", 1)]));
    assert_eq!(changes(&desk, "sub/deep/file"), said(&[("same", 1), ("left_out", 1), ("new", 1)]));
    assert_eq!(changes(&desk, "here/own"), said(&[("content", 1), ("left_out", 1), ("new", 1)]));
    assert!(desk.ok(&["history", "sub/deep/file"]).contains("as before"));
    // A comparison says the same about each path once, in both directions.
    let differences = |args: &[&str]| -> (Vec<(String, String)>, Value) {
        let mut all = desk.json(args);
        let sums = all.pop().unwrap();
        let told = |one: &Value| (one["path"].as_str().unwrap().to_owned(), one["change"].as_str().unwrap().to_owned());
        let mut told: Vec<_> = all.iter().map(told).filter(|(_, change)| change != "metadata").collect();
        told.sort();
        (told, sums["summary"].clone())
    };
    let out = |path: &str| (format!("source/{path}"), "left_out".to_owned());
    let is = |path: &str, change: &str| (format!("source/{path}"), change.to_owned());
    let (told, sums) = differences(&["diff", &first, &second]);
    let left = [out("here/own"), out("large"), out("notes.tmp"), out("sub/deep")];
    let mut expected = [&left[..], &[is("goes", "removed"), is("here/.vaultignore", "added")]].concat();
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!((&sums["left_out"], &sums["removed"], &sums["added"]), (&4.into(), &1.into(), &1.into()));
    let (told, sums) = differences(&["diff", &second, &first]);
    assert_eq!((told.len(), &sums["left_out"], &sums["removed"]), (6, &4.into(), &1.into()));
    let text = desk.ok(&["diff", &first, &second]);
    assert!(text.contains("?  source/sub/deep/  (left out by a rule)") && !text.contains("-  source/sub"), "{text}");
    assert!(text.contains("Left out on one side by a rule: 4 files or folders."), "{text}");
    // So does a comparison with the disk, by its rules and by the snapshot's.
    let (told, _) = differences(&["diff", &second, "live"]);
    assert!(told.contains(&out("sub/deep")) && told.contains(&out("here/own")), "{told:?}");
    let (told, _) = differences(&["diff", &first, "live", "--exclude", "kept"]);
    assert!(told.contains(&out("kept")) && told.contains(&is("notes.tmp", "removed")), "{told:?}");
}

#[cfg(unix)] // nobody may read them
#[test]
fn what_could_not_be_read_is_not_gone() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let desk = Desk::new();
    for path in ["file", "closed/inner", "goes"] {
        desk.write(path, path);
    }
    let as_nobody = |args: &[&str]| {
        let mut command = desk.command(args);
        if rustix::process::geteuid().is_root() {
            std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(desk.path("")).status().unwrap();
            command.uid(65534).gid(65534);
        }
        crate::support::binary::said(&command.output().unwrap())
    };
    let close = |mode: u32| {
        for path in ["file", "closed"] {
            fs::set_permissions(desk.source().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let take = || as_nobody(&["snapshot", ".", "--source", "source"]);
    assert_eq!(take().code, 0);
    close(0);
    fs::remove_file(desk.source().join("goes")).unwrap();
    let taken = take();
    if taken.code != 3 {
        close(0o700);
        return eprintln!("NOTICE: not tried: everybody reads everything here: {}", taken.err);
    }
    close(0o700);
    assert_eq!(take().code, 0);
    let changes = |path: &str| {
        let told = as_nobody(&["history", path, "--json"]);
        assert_eq!(told.code, 0, "{}", told.err);
        let lines = told.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["change"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(changes("closed/inner"), ["same", "unread", "new"]);
    assert_eq!(changes("goes"), ["gone", "new"]);
    let file = changes("file");
    assert_eq!(file[1..], ["unread", "new"]);
    let text = as_nobody(&["history", "file"]).out;
    assert!(text.contains("could not be read") && !text.contains("gone"), "{text}");
    let diff = as_nobody(&["diff", "latest~2", "latest~1"]);
    assert!(diff.out.contains("?  source/file  (could not be read)"), "{}", diff.out);
    assert!(diff.out.contains("?  source/closed/inner  (could not be read)"), "{}", diff.out);
    assert!(diff.out.contains("-  source/goes") && diff.code == 3, "{} {}", diff.code, diff.out);
}

#[cfg(unix)] // it has links
#[test]
fn diff_tells_what_differs_and_how() {
    let desk = Desk::new();
    for name in ["stays", "changes", "goes", "turns", "mode", "deep/er/file", "gone folder/x"] {
        desk.write(name, name);
    }
    std::os::unix::fs::symlink("here", desk.source().join("link")).unwrap();
    let old = desk.take("2026-01-01");
    desk.write("changes", "changed");
    fs::remove_file(desk.source().join("goes")).unwrap();
    fs::remove_file(desk.source().join("turns")).unwrap();
    fs::create_dir(desk.source().join("turns")).unwrap();
    desk.write("turns/inside", "x");
    set_readonly(&desk.source().join("mode"), true);
    desk.write("deep/er/new", "0123456789");
    fs::remove_dir_all(desk.source().join("gone folder")).unwrap();
    fs::remove_file(desk.source().join("link")).unwrap();
    std::os::unix::fs::symlink("there", desk.source().join("link")).unwrap();
    let expected = [
        ("source/changes", "content"),
        ("source/deep/er/new", "added"),
        ("source/goes", "removed"),
        ("source/gone folder", "removed"),
        ("source/gone folder/x", "removed"),
        ("source/link", "content"),
        ("source/mode", "metadata"),
        ("source/turns", "kind"),
        ("source/turns/inside", "added"),
    ];
    let check = |args: &[&str]| {
        let mut lines = desk.json(&[&["diff"], args].concat());
        let sums = lines.pop().unwrap()["summary"].clone();
        let said: Vec<_> =
            lines.iter().map(|line| (line["path"].as_str().unwrap(), line["change"].as_str().unwrap())).collect();
        assert_eq!(said, expected, "{args:?}");
        let sum = |field: &str| sums[field].as_u64().unwrap();
        assert_eq!(["added", "removed", "changed", "metadata", "kind"].map(sum), [2, 3, 2, 1, 1], "{args:?}");
        assert_eq!((sum("bytes_new"), sum("bytes_old")), (7 + 1 + 10, 7 + 4 + 13 + 5));
    };
    // First the disk, then the snapshot of it.
    check(&[&old, "live"]);
    check(&[&old]);
    let new = desk.take("2026-01-02");
    check(&[&old, &new]);
    check(&["latest~1", "latest"]);
    assert_eq!(desk.ok(&["diff", "latest", "live"]), "No difference.\n");
    assert_eq!(desk.ok(&["diff", "latest", "latest~0"]), "No difference.\n");

    let text = desk.ok(&["diff", &old, &new]);
    for line in [
        "M  source/changes  (7 B)",
        "+  source/deep/er/new  (10 B)",
        "-  source/gone folder/",
        "U  source/mode  (mode)",
        "T  source/turns/  (5 B -> directory)",
    ] {
        assert!(text.lines().any(|said| said == line), "{line} is missing in {text}");
    }
    assert_eq!(desk.ok(&["diff", &old, &new, "--summary"]).lines().count(), 1);
    let below = desk.json(&["diff", &format!("{old}:source/deep"), &new]);
    assert_eq!((below.len(), below[0]["path"].as_str()), (2, Some("source/deep/er/new")));
    let live = desk.json(&["diff", &format!("{old}:source/deep"), "live"]);
    // The compared snapshots are named at the end.
    assert_eq!((&live[0], &live[1]["summary"]), (&below[0], &below[1]["summary"]));
    // In the other direction, and folders of different names.
    let back = desk.json(&["diff", &new, &old]);
    assert_eq!(back.last().unwrap()["summary"]["added"], 3);
    let other = desk.json(&["diff", &format!("{old}:source/deep"), &format!("{old}:source/deep/er")]);
    assert_eq!(other.last().unwrap()["summary"]["added"], 1);
}

#[test]
fn the_disk_is_compared_without_reading_what_did_not_change() {
    let desk = Desk::new();
    desk.write("kept", "kept");
    desk.write("secret", "secret");
    let path = desk.source().join("secret");
    set_mtime(&path, 1_700_000_000, 0);
    set_mtime(&desk.source().join("kept"), 1_700_000_000, 0);
    std::thread::sleep(std::time::Duration::from_millis(300)); // so that nothing counts as changed a moment ago
    desk.take("2026-01-01");
    // The same length and time: only the time of the inode's change differs, and that is enough.
    desk.write("secret", "SECRET");
    set_mtime(&path, 1_700_000_000, 0);
    let found = desk.json(&["diff", "latest", "live"]);
    assert_eq!(found[0]["path"], "source/secret");
    assert_eq!(found[0]["fields"][0], "content");
    assert_eq!(found.len(), 2);
    // This stored nothing.
    assert_eq!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 1);
    let shown = desk.ok(&["diff", "latest", "live", "--exclude", "secret", "-s"]);
    assert_eq!(shown, "No difference.\nLeft out on one side by a rule: 1 file or folder.\n");
    desk.write("x.tmp", "x");
    desk.write(".vaultignore", "secret\n");
    let found = desk.json(&["diff", "latest", "live", "--exclude", "*.tmp", "--no-vaultignore"]);
    let names: Vec<_> = found.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(names, ["source/.vaultignore", "source/secret"]);
    fs::rename(desk.source(), desk.path("elsewhere")).unwrap();
    fs::create_dir(desk.source()).unwrap();
    fs::remove_dir(desk.source()).unwrap();
    let refused = desk.command(&["diff", "latest"]).current_dir(desk.folder.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("never taken for an empty one"));
}

#[test]
fn what_did_not_come_from_the_disk_is_not_compared_with_it() {
    let desk = Desk::new();
    desk.ok(&["snapshot", "--stdin", "dump.sql", "--command", "echo dump"]);
    let refused = desk.run(&["diff", "latest"]);
    assert!(refused.code == 1 && refused.err.contains("did not come from the disk"), "{}", refused.err);
    let refused = desk.run(&["diff", "live", "latest"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
}

#[test]
fn digests_are_equal_for_equal_folders_only() {
    let desk = Desk::new();
    fs::create_dir(desk.source().join("a")).unwrap();
    plant(&desk.source().join("a"), 3, Size::Tiny);
    desk.write("b/x", "x");
    desk.write("c/x", "x");
    desk.write("d/x", "y");
    desk.write("e/y", "x");
    desk.take("2026-01-01");
    let digests = |of: &str| -> Vec<(String, String)> {
        let text = desk.ok(&["ls", "--digest", of]);
        text.lines().map(|line| line.split_once("  ").unwrap()).map(|(a, b)| (b.to_owned(), a.to_owned())).collect()
    };
    let first = digests("latest:source");
    let get = |name: &str| first.iter().find(|(other, _)| other == name).unwrap().1.clone();
    assert_eq!(get("b/"), get("c/"));
    assert!(get("b/") != get("d/") && get("b/") != get("e/") && get("d/") != get("e/"));
    // Times, owners, permissions and the place do not count: a restored folder has the same digest.
    desk.ok(&["restore", "latest:source/a", "--to", "back"]);
    set_readonly(&desk.source().join("back/a/folder 0/file 1.bin"), true);
    set_mtime(&desk.source().join("back/a/folder 0"), 5, 5);
    desk.take("2026-01-02");
    assert_eq!(digests("latest:source/back").iter().find(|(name, _)| name == "a/").unwrap().1, get("a/"));
    assert_eq!(digests("latest:source/back/a")[0], (".".to_owned(), get("a/")));
    let digest_of_all = digests("latest").swap_remove(0);
    assert_ne!(digest_of_all.1, digests("latest~1").swap_remove(0).1);
    let json = desk.json(&["ls", "--digest", "latest:source/b"]);
    assert_eq!((json[0]["digest"].as_str(), json[0]["path"].as_str()), (Some(get("b/").as_str()), Some("source/b")));
    assert_eq!(json[1]["digest"].as_str().unwrap().len(), 32);
    assert!(desk.json(&["ls", "latest:source/b"])[0].get("digest").is_none());
}

#[test]
fn du_adds_up_and_says_what_is_new() {
    let desk = Desk::new();
    desk.write("small/a", vec![1; 10]);
    desk.write("large/deep/b", vec![2; 1000]);
    desk.write("large/c", vec![3; 500]);
    desk.write("top", vec![4; 200]);
    desk.take("2026-01-01");
    let du = |args: &[&str]| -> (u64, u64, Vec<(String, u64)>) {
        let said = desk.json(&[&["du"], args].concat()).swap_remove(0);
        let entries = said["entries"].as_array().unwrap().iter();
        let entries = entries.map(|line| (line["path"].as_str().unwrap().to_owned(), line["bytes"].as_u64().unwrap()));
        (said["bytes"].as_u64().unwrap(), said["files"].as_u64().unwrap(), entries.collect())
    };
    let lines =
        |lines: &[(&str, u64)]| lines.iter().map(|(path, size)| ((*path).to_owned(), *size)).collect::<Vec<_>>();
    assert_eq!(du(&[]), (1710, 4, lines(&[("source", 1710)])));
    let below = lines(&[("source/large", 1500), ("source/top", 200), ("source/small", 10)]);
    assert_eq!(du(&["latest:source"]), (1710, 4, below.clone()));
    assert_eq!(du(&["latest:source/large/c"]), (500, 1, lines(&[("source/large/c", 500)])));
    let (_, _, deep) = du(&["latest:source", "--depth", "3", "-n", "3"]);
    assert_eq!(deep, lines(&[("source/large", 1500), ("source/large/deep", 1000), ("source/large/deep/b", 1000)]));
    desk.write("large/deep/new", vec![5; 70]);
    desk.write("top", vec![6; 201]);
    fs::remove_dir_all(desk.source().join("small")).unwrap();
    desk.write("fresh/x", "x");
    desk.take("2026-01-02");
    let (bytes, files, new) = du(&["latest:source", "--since", "latest~1"]);
    assert_eq!((bytes, files), (272, 3));
    assert_eq!(new, lines(&[("source/top", 201), ("source/large", 70), ("source/fresh", 1)]));
    assert_eq!(du(&["latest:source/fresh", "--since", "latest~1"]).0, 1);
    assert_eq!(du(&["--since", "latest"]), (0, 0, Vec::new()));
    let text = desk.ok(&["du", "latest:source", "-n", "1"]);
    assert!(text.contains("and 2 more") && text.contains("source/large/"), "{text}");
    assert_eq!(desk.run(&["du", "--since", "latest:x"]).code, 2);
}

#[cfg(unix)]
#[test]
fn a_drill_restores_a_sample_and_remembers_what_came_of_it() {
    use crate::support::binary::Desk;
    use crate::support::source::bytes;
    let desk = Desk::new();
    for number in 0..8 {
        desk.write(&format!("{number}"), bytes(number, 1000 * number as usize));
    }
    desk.write("long", bytes(99, 2 << 20));
    desk.take("2026-11-20T12:00");
    let text = |desk: &Desk| desk.run(&["doctor", "--json"]).out;
    assert!(!text(&desk).contains("A restore of"));
    // A file that has changed since proves nothing; neither does one that is gone.
    desk.write("3", "other");
    std::fs::remove_file(desk.source().join("4")).unwrap();
    let all = &desk.json(&["drill"])[0];
    assert_eq!((&all["broken"], &all["newer"]), (&0.into(), &0.into()), "{all}");
    let count = |name: &str| all[name].as_u64().unwrap();
    assert_eq!((count("files"), count("verified"), count("compared"), count("failed")), (9, 9, 7, 0), "{all}");
    assert!(text(&desk).contains("A restore of 9 files was tried less than an hour ago"), "{}", text(&desk));
    let few = &desk.json(&["drill", "--files", "2", "--max-size", "1M"])[0];
    assert_eq!(few["files"], 2);
    assert!(few["bytes"].as_u64().unwrap() < 1 << 20, "without the long one");
    let none = desk.run(&["drill", "--source", "none", "--host", "none"]);
    assert_eq!((none.code, none.err.contains("no snapshot")), (1, true), "{}", none.err);
    // A file with other content, but the same size and time, is reported.
    let path = desk.source().join("long");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, bytes(98, 2 << 20)).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let said = desk.run(&["drill", "--json"]);
    assert_eq!((said.code, said.out.contains("the disk has other content")), (4, true), "{}", said.out);
    assert!(text(&desk).contains("1 did not come back"), "{}", text(&desk));
}
