//! `-v` names each file or pack that is changed, `-vv` gives the reason for each, including those that stay unchanged.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::support::binary::Desk;
use crate::support::source::bytes;

/// The lines about single files and packs that a command prints, sorted.
#[track_caller]
fn told(desk: &Desk, code: i32, args: &[&str]) -> Vec<String> {
    let said = desk.run(args);
    assert_eq!(said.code, code, "{args:?}\n{}\n{}", said.out, said.err);
    let is_told = |line: &&str| ["+ ", "M ", "- ", "= ", "read "].iter().any(|mark| line.starts_with(mark));
    let mut lines: Vec<String> = said.err.lines().filter(is_told).map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The path or pack of each line.
fn subjects(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split(" (").next().unwrap()).collect()
}

#[test]
fn a_restore_says_why_each_file_is_written_or_left() {
    let desk = Desk::new();
    for name in ["content", "size", "time", "mode", "same", "missing", "kind", "folder/inner", "named"] {
        desk.write(name, "as it was");
    }
    let path = |name: &str| desk.source().join(name);
    symlink("same", path("link")).unwrap();
    symlink("same", path("link that leads elsewhere")).unwrap();
    fs::hard_link(path("named"), path("named twice")).unwrap();
    desk.take("2026-01-01");
    let time = |name: &str| fs::metadata(path(name)).unwrap().modified().unwrap();
    let set_time = |name: &str, time| {
        fs::File::options().write(true).open(path(name)).unwrap().set_modified(time).unwrap();
    };
    for (name, text) in [("content", "AS IT WAS"), ("size", "as it was not")] {
        let old = time(name);
        fs::write(path(name), text).unwrap();
        set_time(name, old);
    }
    set_time("time", time("time") - std::time::Duration::from_secs(9));
    let mode = fs::metadata(path("mode")).unwrap().mode() ^ 0o100;
    fs::set_permissions(path("mode"), fs::Permissions::from_mode(mode)).unwrap();
    fs::remove_file(path("missing")).unwrap();
    fs::remove_dir_all(path("folder")).unwrap();
    fs::remove_file(path("kind")).unwrap();
    symlink("same", path("kind")).unwrap();
    fs::remove_file(path("link that leads elsewhere")).unwrap();
    symlink("time", path("link that leads elsewhere")).unwrap();
    desk.write("extra", "x");
    let expected = [
        ("+  source/folder/", "it is not there"),
        ("+  source/folder/inner", "it is not there"),
        ("+  source/missing", "it is not there"),
        ("-  source/extra", "the snapshot does not have it"),
        ("=  source/link", "it is as it should be"),
        ("=  source/named", "it is as it should be"),
        ("=  source/named twice", "it is as it should be"),
        ("=  source/same", "it is as it should be"),
        ("M  source/content", "content"),
        ("M  source/kind", "a thing of another kind is there"),
        ("M  source/link that leads elsewhere", "what is there is another"),
        ("M  source/mode", "mode"),
        ("M  source/size", "size"),
        ("M  source/time", "time"),
    ];
    let restore = ["restore", "latest", "--in-place", "--delete", "--yes"];
    // A dry run lists to standard output.
    let dry = desk.ok(&[&restore[..], &["--dry-run", "-vv"]].concat());
    let exact = expected.map(|(line, why)| format!("{line} ({why})"));
    for line in &exact {
        assert!(dry.lines().any(|told| told == line), "{line}: {dry}");
    }
    assert!(!desk.ok(&[&restore[..], &["--dry-run", "-v"]].concat()).contains("=  "));
    let listed = desk.json(&[&restore[..], &["--dry-run", "-vv"]].concat()).pop().unwrap();
    let marks: Vec<&str> =
        listed["changes"].as_array().unwrap().iter().map(|change| change["change"].as_str().unwrap()).collect();
    assert!(marks.len() == 10 && !marks.contains(&"="), "{listed}");

    let lines = told(&desk, 0, &[&restore[..], &["-vv"]].concat());
    assert_eq!(lines, exact);
    // Without reasons, unchanged files are not named. Now all are unchanged.
    fs::write(path("content"), "again").unwrap();
    assert_eq!(told(&desk, 0, &[&restore[..], &["-v"]].concat()), ["M  source/content"]);
    assert!(told(&desk, 0, &[&restore[..], &["-v"]].concat()).is_empty());
    fs::write(path("content"), "again").unwrap();
    let never = ["restore", "latest:source/content", "--in-place", "--overwrite", "never", "-vv"];
    assert_eq!(told(&desk, 0, &never), ["=  source/content (it is there, and nothing is overwritten)"]);
    let always = ["restore", "latest:source/same", "--in-place", "--overwrite", "always", "-vv"];
    assert_eq!(told(&desk, 0, &always), ["M  source/same (all is written anew)"]);
    let one = ["restore", "latest:source/named", "--in-place", "-vv"];
    fs::write(path("named"), "changed under both names").unwrap();
    assert_eq!(told(&desk, 0, &one), ["M  source/named (it has other names, which stay as they are)"]);
}

#[test]
fn a_check_says_what_it_reads_and_why() {
    let desk = Desk::new();
    desk.write("a", bytes(1, 300_000));
    desk.take("2026-01-01");
    let quick = told(&desk, 0, &["check", "-vv"]);
    assert!(quick.contains(&"read trees of all snapshots (is all there that they need?)".to_owned()), "{quick:?}");
    let footers = |lines: &[String]| lines.iter().filter(|line| line.starts_with("read footer of packs/")).count();
    assert!(footers(&quick) == 1 && quick.iter().all(|line| !line.starts_with("read packs/")), "{quick:#?}");
    let whole = told(&desk, 0, &["check", "--read-data", "-vv"]);
    let is_told = |lines: &[String], start: &str, end: &str| {
        lines.iter().any(|line| line.starts_with(start) && line.ends_with(end))
    };
    let never = "(all data is asked for; it was never verified on this machine)";
    assert!(is_told(&whole, "read packs/", never) && is_told(&whole, "read meta/", never), "{whole:#?}");
    for lines in [&quick, &whole] {
        assert!(is_told(lines, "read log/", "(records are few, and all are read)"), "{lines:#?}");
    }
    assert_eq!(footers(&whole), 0);
    let again = told(&desk, 0, &["check", "--read-data", "-vv"]);
    assert!(is_told(&again, "read packs/", "it was verified less than a day ago)"), "{again:#?}");
    let part = told(&desk, 0, &["check", "--sample", "1%", "-vv"]);
    assert!(is_told(&part, "", "(part of what was not verified for longest: it was verified less than a day ago)"));
    let plain = told(&desk, 0, &["check", "--read-data", "-v"]);
    assert_eq!(plain, subjects(&whole));
    // A machine that does not know the client that put a pack examines the pack.
    fs::remove_dir_all(desk.path("state")).unwrap();
    let other = told(&desk, 0, &["check", "-vv"]);
    assert!(is_told(&other, "read a part of packs/", "(another machine put it, and nobody has looked at it here)"));
}

#[test]
fn a_prune_says_why_each_pack_goes_or_stays() {
    let desk = Desk::new();
    desk.write("large", bytes(1, 3_000_000));
    desk.take("2026-01-01");
    fs::remove_file(desk.source().join("large")).unwrap();
    desk.write("other", bytes(2, 1_000_000));
    desk.take("2026-01-02");
    let dry = told(&desk, 0, &["prune", "--keep", "1", "--dry-run", "-vv"]);
    let is_told = |lines: &[String], start: &str, why: &str| {
        lines.iter().any(|line| line.starts_with(start) && line.contains(why))
    };
    assert!(is_told(&dry, "- packs/", "(no snapshot needs it; "), "{dry:#?}");
    assert!(is_told(&dry, "= packs/", "(all in it is needed)"), "{dry:#?}");
    assert!(is_told(&dry, "= meta/", "(all in it is needed)"), "{dry:#?}");
    // Without reasons only deleted packs are named.
    let plain = told(&desk, 0, &["prune", "--keep", "1", "--dry-run", "-v"]);
    let going: Vec<&str> = subjects(&dry).into_iter().filter(|line| !line.starts_with('=')).collect();
    assert_eq!(plain, going);
    let done = told(&desk, 0, &["prune", "--keep", "1", "--yes", "-vv"]);
    assert!(dry.iter().all(|line| done.contains(line)), "{dry:#?}\n{done:#?}");
}
