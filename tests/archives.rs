//! Archives: other programs unpack exports unchanged, imports match the packed files, and truncated, damaged or hostile
//! archives do no harm.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::binary::{Desk, said};
use crate::support::model::{assert_same, of_disk};
use crate::support::source::{Size, bytes, plant, set_mtime, sparse};

/// Whether a program is installed; tests that compare with it are skipped otherwise.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Runs GNU tar.
#[track_caller]
fn tar(args: &[&str]) {
    let output = Command::new("tar").args(args).output().unwrap();
    assert!(output.status.success(), "tar {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A source with all kinds of files, names that do not fit plain headers, and a file of many holes.
fn rich() -> Desk {
    let desk = Desk::new();
    plant(&desk.source(), 5, Size::Small);
    let deep = desk.source().join(format!("{}/{}", "d".repeat(120), "e\u{e9}".repeat(60)));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("x".repeat(90)), "deep").unwrap();
    symlink("t".repeat(150), deep.join("long target")).unwrap();
    fs::hard_link(deep.join("x".repeat(90)), deep.join("another name")).unwrap();
    let holes = fs::File::create(desk.source().join("many holes")).unwrap();
    for part in 0..60 {
        std::os::unix::fs::FileExt::write_all_at(&holes, &bytes(part, 5000), part * 40_000).unwrap();
    }
    holes.set_len(3_000_000).unwrap();
    sparse(&desk.source().join("ends in a hole"), 8, 500_001);
    desk.write("large", bytes(9, 6 << 20));
    desk
}

#[test]
fn gnu_tar_unpacks_what_is_exported_as_it_was() {
    if !has("tar") {
        return;
    }
    let desk = rich();
    desk.take("2026-01-01");
    let (file, back) = (desk.path("out.tar"), desk.path("back"));
    fs::create_dir(&back).unwrap();
    let report = desk.json(&["export", "latest:source", "--tar", text(&file)]).swap_remove(0);
    assert_eq!(report["problem_count"], 0);
    assert_eq!(report["written"].as_u64(), Some(fs::metadata(&file).unwrap().len()));
    tar(&["-xpf", text(&file), "-C", text(&back), "--xattrs", "--xattrs-include=*", "--numeric-owner"]);
    assert_same(&of_disk(&desk.source(), b"top"), &of_disk(&back.join("source"), b"top"), "unpacked");
    let holes = fs::metadata(back.join("source/many holes")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&holes) * 512 < 1_500_000, "holes are holes again");
    assert!(fs::metadata(&file).unwrap().len() < 20 << 20, "holes take no room in the archive");
}

#[test]
fn an_export_that_is_imported_is_the_same_again() {
    let desk = rich();
    desk.take("2026-01-01");
    for name in ["2026-02-01.tar", "2026-02-02.tar.zst"] {
        let file = desk.path(name);
        desk.ok(&["export", "2026-01-01", "--tar", text(&file)]);
        let imported = desk.json(&["import", "--tar", text(&file), "--source", "again"]).swap_remove(0);
        assert_eq!(imported["items"][0]["became"], "imported", "{imported}");
        assert_eq!(imported["items"][0]["snapshot"]["verdict"], "complete");
        let time = imported["items"][0]["snapshot"]["time"].as_str().unwrap();
        assert!(time.starts_with(&name[..10]), "{time}");
        assert_eq!(desk.ok(&["diff", "2026-01-01", "latest"]), "No difference.\n");
        // The same contents are not stored again.
        assert_eq!(imported["items"][0]["snapshot"]["bytes_new"], 0);
    }
    let list = desk.json(&["list"]).swap_remove(0);
    let snapshots = list["snapshots"].as_array().unwrap();
    for field in ["files", "folders", "bytes"] {
        assert_eq!(snapshots[0][field], snapshots[1][field], "{field}");
    }
    let plain = fs::metadata(desk.path("2026-02-01.tar")).unwrap().len();
    assert!(fs::metadata(desk.path("2026-02-02.tar.zst")).unwrap().len() < plain);
    // Names of one file are names of one file again.
    desk.ok(&["restore", "latest", "--to", text(&desk.path("back"))]);
    assert_same(&of_disk(&desk.source(), b"top"), &of_disk(&desk.path("back/source"), b"top"), "restored");
}

#[test]
fn archives_of_all_forms_are_imported_as_they_were_packed() {
    if !has("tar") {
        return;
    }
    let desk = rich();
    desk.take("2026-01-01");
    let digest = |of: &str| desk.json(&["ls", "--digest", of]).swap_remove(0)["digest"].clone();
    let expected = digest("latest:source");
    let forms: &[&[&str]] = &[
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu"],
        &["--format=posix", "--xattrs"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ];
    for (day, form) in forms.iter().enumerate() {
        let file = desk.path(&format!("copy 2026-03-0{}.tar", day + 1));
        let (parent, path) = (text(desk.folder.path()), text(&file));
        tar(&[*form, &["-cf", path, "-C", parent, "source"]].concat());
        let imported = desk.json(&["import", "--tar", path]).swap_remove(0);
        let snapshot = &imported["items"][0]["snapshot"];
        assert_eq!((snapshot["verdict"].as_str(), snapshot["source"].as_str()), (Some("complete"), Some("copy")));
        if form.contains(&"--sparse") {
            assert_eq!(digest("latest:source"), expected, "{form:?}");
        } else {
            // Without holes the contents are longer, but restored they are the same.
            let back = desk.path(&format!("back {day}"));
            desk.ok(&["restore", "latest", "--to", text(&back)]);
            let contents = |folder: &Path| -> Vec<_> {
                let model = of_disk(folder, b"");
                model.into_iter().map(|(path, node)| (path, node.kind, node.content, node.target)).collect()
            };
            assert_eq!(contents(&back.join("source")), contents(&desk.source()), "{form:?}");
        }
    }
    // The oldest form has neither long names nor extra fields.
    fs::create_dir(desk.path("plain")).unwrap();
    fs::write(desk.path("plain/a"), "a").unwrap();
    fs::hard_link(desk.path("plain/a"), desk.path("plain/b")).unwrap();
    for form in ["v7", "ustar"] {
        let file = desk.path(&format!("{form}-2026-04-01.tar"));
        tar(&[&format!("--format={form}"), "-cf", text(&file), "-C", text(&desk.path("plain")), "."]);
        desk.ok(&["import", "--tar", text(&file)]);
        let listed = desk.ok(&["ls", "-R", "latest"]);
        assert_eq!(listed, "a\nb\n", "{form}");
        assert_eq!(desk.ok(&["cat", "latest:b"]), "a");
    }
}

#[test]
fn an_export_can_be_a_part_go_to_standard_output_and_replaces_nothing_unasked() {
    let desk = Desk::new();
    desk.write("docs/a.txt", "a");
    desk.write("docs/sub/b.txt", "b");
    let _socket = std::os::unix::net::UnixListener::bind(desk.source().join("socket")).unwrap();
    desk.take("2026-01-01");
    let file = desk.path("docs.tar");
    let part = ["export", "latest:source/docs", "--tar", text(&file)];
    let told = desk.ok(&part);
    assert!(told.contains("2 files in 2 folders"), "{told}");
    let again = desk.run(&part);
    assert!(again.code == 1 && again.err.contains("--overwrite"), "{}", again.err);
    desk.ok(&[&part[..], &["--overwrite"]].concat());
    let out = desk.command(&["export", "latest:source/docs", "--tar", "-"]).output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stdout == fs::read(&file).unwrap(), "the same archive on standard output");
    let single = desk.command(&["export", "latest:source/docs/a.txt", "--tar", "-"]).output().unwrap();
    assert!(single.stdout.windows(7).any(|part| part == b"\0a.txt\0"), "the name begins with the last component");
    if has("tar") {
        let listed = Command::new("tar").args(["-tf", text(&file)]).output().unwrap();
        assert_eq!(said(&listed).out, "docs/\ndocs/a.txt\ndocs/sub/\ndocs/sub/b.txt\n");
    }
    let all = desk.run(&["export", "latest", "--tar", text(&desk.path("all.tar"))]);
    assert!(all.code == 3 && all.out.contains("source/socket: archives cannot hold sockets"), "{}", all.out);
    let refused = desk.run(&["export", "latest", "--tar", "x.tar.gz"]);
    assert!(refused.code == 2 && refused.err.contains("| gzip > x.tar.gz"), "{}", refused.err);
    assert_eq!(desk.run(&["export", "latest:nothing", "--tar", "y.tar"]).code, 1);
    assert!(!desk.source().join("y.tar").exists() && !desk.source().join("y.tar.part").exists());
}

#[test]
fn what_is_damaged_is_left_out_and_told() {
    let desk = Desk::new();
    desk.write("small", bytes(2, 30_000));
    desk.write("large", bytes(4, 9 << 20));
    desk.write("empty", "");
    desk.take("2026-01-01");
    for folder in fs::read_dir(desk.path("store/packs")).unwrap() {
        fs::remove_dir_all(folder.unwrap().path()).unwrap();
    }
    let file = desk.path("out.tar");
    let out = desk.run(&["export", "latest", "--tar", text(&file), "--json"]);
    assert_eq!(out.code, 4, "{}{}", out.out, out.err);
    let report: Value = serde_json::from_str(out.out.lines().next().unwrap()).unwrap();
    let whats: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|problem| problem["what"].as_str().unwrap()).collect();
    assert_eq!(whats.len(), 2);
    assert!(
        whats[0].starts_with("its content is cut off at 0 bytes") && whats[1].starts_with("it is left out"),
        "{whats:?}"
    );
    // The archive itself is whole.
    let imported = desk.json(&["import", "--tar", text(&file), "--source", "rest"]).swap_remove(0);
    assert_eq!(
        (imported["items"][0]["snapshot"]["files"].as_u64(), imported["items"][0]["snapshot"]["verdict"].as_str()),
        (Some(2), Some("complete"))
    );
}

/// An archive with these members: kind, path, target of a link, content.
fn archive(members: &[(tar::EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, path, link, content) in members {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        header.set_uid(1);
        header.set_gid(1);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn hostile_and_odd_archives_do_no_harm() {
    use tar::EntryType as Kind;
    let desk = Desk::new();
    let file = desk.path("odd-2026-01-01.tar");
    let members: &[(Kind, &str, &str, &[u8])] = &[
        (Kind::Regular, "/absolute", "", b"1"),
        (Kind::Regular, "../above", "", b"2"),
        (Kind::Regular, "a/../../b", "", b"3"),
        (Kind::Regular, "./dir/implied/file", "", b"4"),
        (Kind::Regular, "twice", "", b"first"),
        (Kind::Regular, "twice", "", b"second"),
        (Kind::Link, "hard", "twice", b""),
        (Kind::Link, "hard to nothing", "nowhere", b""),
        (Kind::Regular, "turned/x", "", b"5"),
        (Kind::Regular, "turned", "", b"a file now"),
        (Kind::new(b'V'), "a label", "", b""),
        (Kind::new(b'Q'), "unknown", "", b"6"),
        (Kind::Symlink, "link", "../../etc/passwd", b""),
    ];
    fs::write(&file, archive(members)).unwrap();
    let out = desk.run(&["import", "--tar", text(&file)]);
    assert_eq!(out.code, 3, "{}{}", out.out, out.err);
    let listed = desk.ok(&["ls", "-R", "latest"]);
    assert_eq!(listed, "absolute\ndir/\ndir/implied/\ndir/implied/file\nhard\nlink\nturned\ntwice\n");
    assert_eq!(desk.ok(&["cat", "latest:twice"]), "second");
    assert_eq!(desk.ok(&["cat", "latest:turned"]), "a file now");
    let skipped = desk.json(&["ls", "--skipped", "latest"]).swap_remove(0);
    let paths: Vec<_> =
        skipped["skipped"].as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["../above", "a/../../b", "hard to nothing", "unknown"]);
    // With the first folder stripped.
    let less = desk.run(&["import", "--tar", text(&file), "--strip-components", "1", "--source", "less"]);
    assert_eq!(less.code, 3);
    assert_eq!(desk.ok(&["ls", "-R", "latest"]), "implied/\nimplied/file\nx\n");
}

#[test]
fn archives_that_are_cut_off_make_no_snapshot() {
    let desk = Desk::new();
    let whole = archive(&[
        (tar::EntryType::Regular, "small", "", &bytes(1, 3000)),
        (tar::EntryType::Regular, "large", "", &bytes(2, 5 << 20)),
    ]);
    let check = |name: &str, content: &[u8], expected: &str| {
        let file = desk.path(name);
        fs::write(&file, content).unwrap();
        let out = desk.run(&["import", "--tar", text(&file)]);
        assert_eq!(out.code, 1, "{name}: {}{}", out.out, out.err);
        assert!(out.out.contains(expected), "{name}: {}", out.out);
    };
    check("a-2026-01-01.tar", &whole[..1000], "cut off after 1000 bytes");
    check("b-2026-01-01.tar", &whole[..2 << 20], "cut off after 2097152 bytes");
    check("c-2026-01-01.tar", &whole[..whole.len() - 1500], "cut off");
    check("d-2026-01-01.tar", b"nothing of the kind", "not a tar archive");
    check("e-2026-01-01.tar", b"", "nothing in it");
    let compressed = zstd::bulk::compress(&whole, 1).unwrap();
    check("f-2026-01-01.tar.zst", &compressed[..compressed.len() / 2], "f-2026-01-01.tar.zst");
    if has("gzip") {
        let mut child = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let copy = whole.clone();
        let writing = std::thread::spawn(move || stdin.write_all(&copy));
        let zipped = child.wait_with_output().unwrap().stdout;
        writing.join().unwrap().unwrap();
        // The archive is complete, but the checksum after it is missing.
        check("g-2026-01-01.tar.gz", &zipped[..zipped.len() - 6], "gzip failed");
        fs::write(desk.path("h-2026-01-01.tgz"), &zipped).unwrap();
        desk.ok(&["import", "--tar", text(&desk.path("h-2026-01-01.tgz"))]);
        assert!(desk.command(&["cat", "latest:large"]).output().unwrap().stdout == bytes(2, 5 << 20));
    }
    // Without the end mark the archive may be complete, so it is kept, and reported.
    let file = desk.path("i-2026-01-01.tar");
    fs::write(&file, &whole[..whole.len() - 1024]).unwrap();
    let out = desk.run(&["import", "--tar", text(&file)]);
    assert_eq!(out.code, 3, "{}", out.out);
    assert!(desk.ok(&["ls", "--skipped", "latest"]).contains("may be cut off"));
}

#[test]
fn dated_archives_are_imported_once_and_in_their_order() {
    let desk = Desk::new();
    let folder = desk.path("old");
    fs::create_dir(&folder).unwrap();
    for (name, content) in [
        ("home-20240601.tar", "june"),
        ("home-2024-05-31_12-30-00.tar", "may"),
        ("undated.tar", "now"),
        ("notes.txt", ""),
    ] {
        fs::write(folder.join(name), archive(&[(tar::EntryType::Regular, "file", "", content.as_bytes())])).unwrap();
    }
    set_mtime(&folder.join("undated.tar"), 1_704_067_200, 0);
    let dry = desk.json(&["import", "--tar", text(&folder), "--dry-run"]).swap_remove(0);
    let words = |json: &Value| -> Vec<String> {
        let items = json["items"].as_array().unwrap().iter();
        items.map(|item| format!("{} {} {}", item["became"], item["source"], item["time"]).replace('"', "")).collect()
    };
    let day = |word: &str| {
        [
            format!("{word} undated 2024-01-01T00:00:00.000000000Z"),
            format!("{word} home 2024-05-31T12:30:00.000000000Z"),
            format!("{word} home 2024-06-01T00:00:00.000000000Z"),
        ]
    };
    assert_eq!(words(&dry), day("would"));
    assert!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().is_empty());
    let first = desk.json(&["import", "--tar", text(&folder), "--tag", "old", "--level", "fast"]).swap_remove(0);
    assert_eq!(words(&first), day("imported"));
    assert_eq!(first["items"][1]["snapshot"]["tags"][0], "old");
    let again = desk.json(&["import", "--tar", text(&folder)]).swap_remove(0);
    assert_eq!(words(&again), day("there"));
    assert_eq!(again["items"][2]["there"], first["items"][2]["snapshot"]["id"]);
    assert_eq!(desk.ok(&["cat", "2024-05-31T13:00:file"]), "may");
    assert_eq!(desk.json(&["history", "file", "--source", "home"]).len(), 2);
    let doubles = desk.run(&[
        "import",
        "--source",
        "x",
        "--tar",
        text(&folder.join("home-20240601.tar")),
        text(&folder.join("home-20240601.tar")),
    ]);
    assert!(doubles.code == 1 && doubles.err.contains("--source"), "{}", doubles.err);
    let nothing = desk.run(&["import", "--tar", text(&desk.source())]);
    assert!(nothing.code == 1 && nothing.err.contains("no tar archive"), "{}", nothing.err);
}

#[test]
fn dated_copies_of_a_folder_become_snapshots() {
    let desk = Desk::new();
    let copies = desk.path("copies");
    for (name, content) in [("2024-05-31", "one"), ("20240602_0800", "two"), ("2024-06-01", "between")] {
        fs::create_dir_all(copies.join(name)).unwrap();
        fs::write(copies.join(name).join("file"), content).unwrap();
        fs::write(copies.join(name).join("same"), "same").unwrap();
        set_mtime(&copies.join(name).join("same"), 1_700_000_000, 5);
    }
    symlink("20240602_0800", copies.join("latest 2024-06-03")).unwrap();
    desk.ok(&["import", "--dirs", text(&copies)]);
    let list = desk.json(&["list", "--source", "copies"]).swap_remove(0);
    let times: Vec<_> = list["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|snapshot| snapshot["time"].as_str().unwrap()[..16].to_owned())
        .collect();
    assert_eq!(times, ["2024-05-31T00:00", "2024-06-01T00:00", "2024-06-02T08:00"]);
    let versions = desk.json(&["history", "copies/file"]);
    assert_eq!((versions.len(), desk.json(&["history", "copies/same"]).len()), (3, 1));
    assert_eq!(desk.ok(&["cat", "2024-06-01:copies/file"]), "between");
    fs::create_dir(copies.join("2024-06-05")).unwrap();
    fs::create_dir(copies.join("no date")).unwrap();
    let again = desk.run(&["import", "--dirs", text(&copies), "--json"]);
    assert_eq!(again.code, 3, "{}", again.err);
    let again: Value = serde_json::from_str(&again.out).unwrap();
    let words: Vec<_> =
        again["items"].as_array().unwrap().iter().map(|item| item["became"].as_str().unwrap()).collect();
    assert_eq!(words, ["there", "there", "there", "imported"]);
    assert!(again["passed_over"][0]["path"].as_str().unwrap().ends_with("no date"));
    assert_eq!(desk.run(&["import", "--dirs", text(&desk.source())]).code, 1);
    assert_eq!(desk.run(&["import"]).code, 2);
    assert_eq!(desk.run(&["import", "--tar", "x", "--dirs", "y"]).code, 2);
}

#[test]
fn an_archive_that_nobody_reads_to_its_end_is_no_success() {
    let desk = Desk::new();
    desk.write("a", crate::support::source::bytes(1, 3_000_000));
    desk.take("2026-01-01 12:00");
    let mut child = desk
        .command(&["export", "latest", "--tar", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begin = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut begin).unwrap();
    let said = said(&child.wait_with_output().unwrap());
    assert!(said.code == 1 && said.err.contains("before it was whole"), "{} {}", said.code, said.err);
}
