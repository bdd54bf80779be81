//! Inputs of vault: patterns, lists in any form that editors write, files whose length differs from the reported one,
//! pipes, devices, and empty input; and the environment of the commands that it starts.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::PASSWORD;
use crate::support::binary::{Desk, said};
use crate::support::os::fifo;

/// The names in the newest snapshot, below the source.
fn kept(desk: &Desk) -> Vec<String> {
    let lines = desk.ok(&["ls", "latest", "--recursive"]);
    let mut names: Vec<String> =
        lines.lines().filter_map(|line| Some(line.split_once("source/")?.1.trim_end_matches('/').to_owned())).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names
}

#[test]
fn each_new_and_changed_file_is_told_and_why_it_counts_as_that() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    for name in ["size", "time", "mode", "inode", "type", "xattr", "names", "same", "all at once"] {
        desk.write(name, "as it was");
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        fs::File::options().write(true).open(desk.source().join(name)).unwrap().set_modified(old).unwrap();
    }
    let told = |args: &[&str]| -> Vec<String> {
        let said = desk.run(&[&["snapshot", ".", "--source", "source"][..], args].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        let mut lines: Vec<String> =
            said.err.lines().filter(|line| line.starts_with(['+', 'M'])).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    // A file that was just written is too fresh to be trusted.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(told(&["--dry-run"]).is_empty());
    let first = told(&["-vv"]);
    assert!(first.len() == 9 && first[8] == "+ source/xattr (new)", "{first:?}");
    let path = |name: &str| desk.source().join(name);
    fs::write(path("size"), "longer than it was").unwrap();
    let old = fs::metadata(path("same")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(path("size")).unwrap().set_modified(old).unwrap();
    fs::File::options()
        .write(true)
        .open(path("time"))
        .unwrap()
        .set_modified(old - std::time::Duration::from_secs(9))
        .unwrap();
    fs::set_permissions(path("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path("other"), "as it was").unwrap();
    fs::File::options().write(true).open(path("other")).unwrap().set_modified(old).unwrap();
    fs::rename(path("other"), path("inode")).unwrap();
    fs::remove_file(path("type")).unwrap();
    std::os::unix::fs::symlink("same", path("type")).unwrap();
    crate::support::os::set_xattr(&path("xattr"), "user.test", b"x");
    fs::hard_link(path("names"), desk.path("another name")).unwrap();
    fs::write(path("all at once"), "other").unwrap();
    fs::set_permissions(path("all at once"), fs::Permissions::from_mode(0o600)).unwrap();
    let names: Vec<String> = told(&["-v", "--dry-run"]).iter().map(|line| line[2..].to_owned()).collect();
    assert_eq!(names.len(), 8 - usize::from(!has_xattr(&path("xattr"))), "{names:?}");
    let reasons = told(&["-vv"]);
    for (name, why) in [
        ("size", "size"),
        ("time", "time"),
        ("mode", "mode"),
        ("inode", "inode"),
        ("type", "type, inode, size, time"),
        ("names", "change time"),
        ("all at once", "size, time, mode"),
    ] {
        assert!(reasons.contains(&format!("M source/{name} ({why})")), "{name}: {reasons:?}");
    }
    if has_xattr(&path("xattr")) {
        assert!(reasons.contains(&"M source/xattr (xattr)".to_owned()), "{reasons:?}");
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    told(&[]);
    assert!(told(&["-vv", "--read-all"]).iter().all(|line| line.ends_with("(all files are read)")));
    // The same for a root that is a single file.
    let single = ["snapshot", "same", "--source", "single", "-vv"];
    assert!(desk.run(&single).err.contains("+ same (new)"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    desk.ok(&single);
    fs::set_permissions(path("same"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(desk.run(&single).err.contains("M same (mode)"));
}

/// Whether the file system has kept the attribute.
fn has_xattr(path: &Path) -> bool {
    rustix::fs::lgetxattr(path, "user.test", &mut [0_u8; 8][..]).is_ok()
}

#[test]
fn patterns_leave_out_what_git_leaves_out() {
    let desk = Desk::new();
    if Command::new("git").arg("--version").output().is_err() {
        return;
    }
    let names = [
        "x",
        "y",
        "{x}",
        "{x,y}",
        "a.c",
        "a.{c,h}",
        "a b",
        "tail ",
        "tail",
        "tab\t",
        "#hash",
        "!bang",
        "[x]",
        "x[",
        "[a",
        "a]",
        "-",
        "Upper",
        "upper",
        "a*b",
        "axb",
        "back\\slash",
        "dir/x",
        "dir/sub/x",
        "dir/sub/deep/a.c",
        "other/dir/x",
        "foo/bar/baz",
        "foobar/baz",
        "fooz/q/baz",
        "\u{e9}",
        "dir/\u{e9}e",
        "z1",
        "zA",
        "z_",
    ];
    for name in names {
        desk.write(name, name);
    }
    let git = |args: &[&str]| Command::new("git").args(args).current_dir(desk.source()).output().unwrap();
    assert!(git(&["init", "-q", "."]).status.success());
    let tables = [
        "{x}\n",
        "{x,y}\n",
        "a.{c,h}\n",
        "*.{c,h}\n",
        "a\\ b\n",
        "tail\n",
        "tail \n",
        "tail\\ \n",
        "tab\t\n",
        "tab\n",
        "#hash\n",
        "\\#hash\n",
        "!bang\n",
        "\\!bang\n",
        "*\n!x\n",
        "[x]\n",
        "\\[x]\n",
        "[a\n",
        "x[\n",
        "[]a]\n",
        "a]\n",
        "[!a-z]\n",
        "[^a-z]\n",
        "[z-a]\n",
        "[a-]\n",
        "UPPER\n",
        "upper\n",
        "a\\*b\n",
        "a*b\n",
        "a?b\n",
        "back\\slash\n",
        "back\\\\slash\n",
        "back*\n",
        "/x\n",
        "x/\n",
        "dir/\n",
        "/dir\n",
        "dir/x\n",
        "/dir/*\n!/dir/x\n",
        "**/x\n",
        "dir/**\n",
        "dir/**/x\n",
        "**/dir/x\n",
        "/**\n",
        "**\n",
        "foo**/baz\n",
        "foo*/**\n",
        "fo**\n",
        "d*/s*/\n",
        "dir/**/a.c\n",
        "dir/*/a.c\n",
        "?\n",
        "??\n",
        "z[[:digit:]]\n",
        "z[[:alpha:]_]\n",
        "z[[:nope:]]\n",
        "x\\\n",
        "/\n",
        "!\n",
        " x\n",
        "x\r\ny\r\n",
        "\u{feff}x\n",
        "*/x\n",
        "dir//x\n",
        "./x\n",
        "dir\\/x\n",
        "**/\n!dir/\n",
        "[[:upper:]]*\n",
        "a[!b]b\n",
    ];
    for table in tables {
        fs::write(desk.path("source/.gitignore"), table).unwrap();
        fs::write(desk.path("source/.vaultignore"), table).unwrap();
        let untracked = git(&["-c", "core.quotePath=false", "ls-files", "-z", "--others", "--exclude-standard"]);
        let text = String::from_utf8(untracked.stdout).unwrap();
        let mut wanted: Vec<&str> = text.split('\0').filter(|name| !name.is_empty()).collect();
        wanted.sort_unstable();
        desk.ok(&["snapshot", ".", "--exclude", "/.git/", "--source", "table"]);
        let out = desk.path("out");
        desk.ok(&["restore", "latest", "--to", out.to_str().unwrap()]);
        let mut found = Vec::new();
        walk(&out.join("source"), "", &mut found);
        found.sort();
        assert_eq!(found, wanted, "{table:?}");
        fs::remove_dir_all(out).unwrap();
    }
}

fn walk(folder: &Path, below: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), &format!("{name}/"), found);
        } else {
            found.push(name);
        }
    }
}

#[test]
fn case_need_not_count() {
    let desk = Desk::new();
    ["a.JPG", "b.jpg", "c.txt"].iter().for_each(|name| desk.write(name, "x"));
    desk.ok(&["snapshot", ".", "--iexclude", "*.Jpg"]);
    let names = kept(&desk);
    assert!(names.iter().any(|name| name == "c.txt") && names.len() == 1, "{names:?}");
    let changed = desk.ok(&["diff", "latest", "--iexclude", "C.*"]);
    assert!(changed.contains("c.txt") || changed.contains("a.JPG"), "{changed}");
}

#[test]
fn marks_and_line_ends_of_editors_are_no_part_of_a_text() {
    let desk = Desk::new();
    ["a", "b", "c"].iter().for_each(|name| desk.write(name, "x"));
    let file = |name: &str, content: &[u8]| {
        fs::write(desk.path(name), content).unwrap();
        desk.path(name).to_str().unwrap().to_owned()
    };
    let patterns = file("patterns", b"\xef\xbb\xbfa\r\nb\r\n");
    desk.ok(&["snapshot", ".", "--exclude-from", &patterns]);
    assert_eq!(kept(&desk), ["c"]);
    let list = file("list", b"\xef\xbb\xbfa\r\nb\r\n");
    desk.ok(&["snapshot", "--files-from", &list]);
    assert_eq!(kept(&desk), ["a", "b"]);
    desk.write(".vaultignore", "\u{feff}a\r\n");
    desk.ok(&["snapshot", "."]);
    assert_eq!(kept(&desk), [".vaultignore", "b", "c"]);
    let password = file("password", format!("\u{feff}{PASSWORD}\r\n").as_bytes());
    desk.ok(&["list", "--password-file", &password]);
    let wide = file("wide", b"\xff\xfea\0\n\0");
    for args in [["snapshot", ".", "--exclude-from", &wide], ["snapshot", "--from0", "--files-from", "/dev/null"]] {
        assert_ne!(desk.run(&args).code, 0, "{args:?}");
    }
    assert!(desk.run(&["snapshot", ".", "--exclude-from", &wide]).err.contains("UTF-16"));
    desk.write(".vaultignore", b"\xff\xfea\0\n\0");
    let said = desk.run(&["snapshot", "."]);
    assert_eq!(said.code, 3, "{}", said.out);
    assert!(said.out.contains(".vaultignore") && said.out.contains("UTF-16"), "{}", said.out);
}

#[test]
fn a_large_file_of_patterns_is_used() {
    let desk = Desk::new();
    let line = |number: u32| format!("/left-out/number-{number}-*\n");
    let lines = (0..150_000).map(line).collect::<Vec<String>>().concat();
    assert!(lines.len() > 3 << 20);
    desk.write(".vaultignore", lines + "*.tmp\n");
    desk.write("a.tmp", "x");
    desk.write("b", "x");
    desk.ok(&["snapshot", "."]);
    assert_eq!(kept(&desk), [".vaultignore", "b"]);
}

#[cfg(target_os = "linux")]
#[test]
fn files_are_read_to_their_ends_whatever_length_the_system_says() {
    let desk = Desk::new();
    desk.ok(&["snapshot", "/proc/version"]);
    let version = fs::read_to_string("/proc/version").unwrap();
    assert_eq!(desk.ok(&["cat", "latest:version"]), version);
    let taken = desk.json(&["snapshot", "/proc/version"]);
    assert_eq!(taken[0]["snapshot"]["bytes"], version.len());
    let short = "/sys/kernel/mm/transparent_hugepage/enabled";
    if let Ok(text) = fs::read_to_string(short) {
        desk.ok(&["snapshot", short]);
        assert_eq!(desk.ok(&["cat", "latest:enabled"]), text);
    }
}

#[test]
fn pipes_and_devices_are_named_or_read() {
    let desk = Desk::new();
    let pipe = desk.path("pipe");
    fifo(&pipe);
    let path = pipe.to_str().unwrap();
    let said_of_pipe = desk.run(&["snapshot", path]);
    assert_eq!(said_of_pipe.code, 1);
    assert!(said_of_pipe.err.contains("--stdin"), "{}", said_of_pipe.err);
    let device = desk.run(&["snapshot", "/dev/null"]);
    assert!(device.code == 1 && device.err.contains("--read-special"), "{}", device.err);
    let write = || Command::new("sh").args(["-c", "echo content > \"$0\"", path]).spawn().unwrap();
    let mut writer = write();
    desk.ok(&["snapshot", path, "--read-special"]);
    writer.wait().unwrap();
    assert_eq!(desk.ok(&["cat", "latest:pipe"]), "content\n");
    fs::rename(&pipe, desk.path("source/inner")).unwrap();
    let mut writer = Command::new("sh").args(["-c", "echo inner > inner"]).current_dir(desk.source()).spawn().unwrap();
    desk.ok(&["snapshot", ".", "--read-special"]);
    writer.wait().unwrap();
    assert_eq!(desk.ok(&["cat", "latest:source/inner"]), "inner\n");
}

#[test]
fn nothing_on_standard_input_is_a_warning() {
    let desk = Desk::new();
    let said_of_nothing = desk.run(&["--json", "snapshot", "--stdin", "dump"]);
    assert_eq!(said_of_nothing.code, 3);
    let json: serde_json::Value = serde_json::from_str(&said_of_nothing.out).unwrap();
    assert_eq!(json["skipped"][0]["path"], "dump");
    assert_eq!(json["snapshot"]["verdict"], "partial");
    assert_eq!(desk.run(&["snapshot", "--stdin", "dump", "--command", "true"]).code, 3);
    desk.ok(&["snapshot", "--stdin", "dump", "--allow-empty"]);
}

#[test]
fn commands_inherit_no_secrets_and_leave_no_memory_behind() {
    let desk = Desk::new();
    let text = "env; echo core $(ulimit -c); cat /proc/$PPID/status /proc/$PPID/limits";
    let mut command = desk.command(&["snapshot", "--stdin", "out", "--command", text]);
    command.env("VAULT_NEW_PASSWORD", "new-secret").env("VAULT_PASSWORD_COMMAND", "echo other-secret");
    let taken = said(&command.stdin(Stdio::null()).output().unwrap());
    let out = desk.ok(&["cat", "latest:out"]);
    assert!(taken.code == 0 || cfg!(not(target_os = "linux")), "{}", taken.err);
    for secret in [PASSWORD, "new-secret", "other-secret"] {
        assert!(!out.contains(secret), "{out}");
    }
    assert!(out.contains("core 0\n"), "{out}");
    // A line end after a password is not part of it.
    let mut command = desk.command(&["list"]);
    assert_eq!(said(&command.env("VAULT_PASSWORD", format!("{PASSWORD}\n")).output().unwrap()).code, 0);
}

/// Needs a mount of its own, so it runs only as root.
#[cfg(target_os = "linux")]
#[test]
fn what_lies_on_another_file_system_is_named() {
    let desk = Desk::new();
    desk.write("m/hidden", "x");
    desk.write("a", "x");
    let vault = env!("CARGO_BIN_EXE_vault");
    let script = format!("mount -t tmpfs t m && echo x > m/f && \"{vault}\" \"$@\"");
    let inner = desk.command(&[]);
    let run = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh"]).args(args).current_dir(desk.source());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        command.output().map(|output| said(&output))
    };
    let Ok(taken) = run(&["snapshot", ".", "-x"]) else { return };
    if taken.err.contains("unshare") || taken.err.contains("mount") {
        return;
    }
    assert_eq!(taken.code, 0, "{}", taken.err);
    assert!(taken.out.contains("left out, another file system: source/m"), "{}", taken.out);
    let taken = run(&["--json", "snapshot", ".", "--one-file-system"]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&taken.out).unwrap();
    assert_eq!(json["left_out"][0]["path"], "source/m");
    assert!(!kept(&desk).iter().any(|name| name == "m/f"));
}

#[test]
fn access_lists_and_flags_go_into_archives_and_come_back() {
    let desk = Desk::new();
    let archive = desk.path("2020-01-01.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    let list = "user::rw-,user:1234:rw-,group::r--,mask::rw-,other::r--";
    let mut records = vec![("SCHILY.acl.access", list.as_bytes()), ("SCHILY.fflags", b"nodump")];
    let add = |builder: &mut tar::Builder<fs::File>, name: &str, records: &[(&str, &[u8])]| {
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o664);
        header.set_cksum();
        builder.append_data(&mut header, name, &b"x"[..]).unwrap();
    };
    add(&mut builder, "a", &records);
    builder.finish().unwrap();
    desk.ok(&["import", "--tar", archive.to_str().unwrap(), "--source", "in"]);
    let out = desk.path("out.tar");
    desk.ok(&["export", "latest", "--tar", out.to_str().unwrap()]);
    let bytes = fs::read(&out).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(&format!("SCHILY.acl.access={list}\n")) && has("SCHILY.fflags=nodump\n"));
    records.push(("SCHILY.acl.ace", b"owner@:rw:allow"));
    let archive = desk.path("2020-01-02.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    add(&mut builder, "b", &records);
    builder.finish().unwrap();
    let said = desk.run(&["import", "--tar", archive.to_str().unwrap(), "--source", "in"]);
    assert_eq!(said.code, 3, "{}{}", said.out, said.err);
    assert!(said.err.contains("b: its access list"), "{}{}", said.out, said.err);
}

#[test]
fn what_is_usually_not_wanted_is_left_out_and_why_says_so() {
    let desk = Desk::new();
    for name in [
        "me/.cache/x",
        "me/.local/share/Trash/files/x",
        "me/.local/share/notes",
        "me/letter.odt",
        "me/.~lock.letter.odt#",
        "Users/me/AppData/Local/Temp/x",
        "Users/me/AppData/Roaming/settings",
        "pictures/.DS_Store",
        "pictures/one.jpg",
        "wanted/.cache/x",
        "tmp/a.tmp",
    ] {
        desk.write(name, name);
    }
    desk.write("tmp/.vaultignore", "# rubbish\n*.tmp\n");
    let source = desk.source();
    let source = source.to_str().unwrap();
    desk.ok(&["snapshot", source, "--exclude-usual", "--exclude", "!/wanted/.cache/"]);
    let files: Vec<String> = kept(&desk).into_iter().filter(|name| !desk.source().join(name).is_dir()).collect();
    assert_eq!(
        files,
        [
            "Users/me/AppData/Roaming/settings",
            "me/.local/share/notes",
            "me/letter.odt",
            "pictures/one.jpg",
            "tmp/.vaultignore",
            "wanted/.cache/x",
        ]
    );
    let why = |name: &str| desk.ok(&["why", desk.source().join(name).to_str().unwrap()]);
    let said = why("me/.cache/x");
    assert!(said.contains("the pattern .cache/ in its rules matches") && said.contains("No snapshot"), "{said}");
    let said = why("tmp/a.tmp");
    assert!(said.contains("the pattern *.tmp in ") && said.contains("tmp/.vaultignore matches"), "{said}");
    let said = why("me/letter.odt");
    assert!(said.contains("keeps it.") && said.contains("1 snapshot holds it"), "{said}");
    let json = &desk.json(&["why", desk.source().join("wanted/.cache/x").to_str().unwrap()])[0];
    assert_eq!((json["sources"][0]["taken"].as_bool(), json["snapshots"]["count"].as_u64()), (Some(true), Some(1)));
    let said = desk.ok(&["why", "/nowhere/at/all"]);
    assert!(said.contains("No source") && said.contains("No snapshot"), "{said}");
}
