//! Snapshots as a share (`vault mount --webdav`), read by a plain client, and by rclone if it is installed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::binary::Desk;
use crate::support::http::{Answer, exchange, try_exchange};
use crate::support::source::bytes;

/// A share. Its program is ended when this is dropped.
struct Share {
    child: Child,
    port: u16,
    /// The address without the computer: a slash, the secret, a slash.
    top: String,
}

impl Share {
    fn begin(desk: &Desk, args: &[&str]) -> Self {
        let args = [&["mount", "--webdav", "--json"], args].concat();
        let mut child = desk.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut err = String::new();
            child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
            panic!("it does not begin: {err}");
        }
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = said["address"].as_str().unwrap().strip_prefix("http://127.0.0.1:").unwrap();
        let (port, top) = address.split_once('/').unwrap();
        assert!(top.len() == 33 && top.ends_with('/'), "128 bits: {address}");
        Self { child, port: port.parse().unwrap(), top: format!("/{top}") }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.top)
    }

    /// Sends a request for a path below the top.
    fn ask(&self, method: &str, at: &str, lines: &[(&str, &str)]) -> Answer {
        self.ask_for(method, &format!("{}{at}", self.top), &format!("127.0.0.1:{}", self.port), lines)
    }

    fn ask_for(&self, method: &str, target: &str, host: &str, lines: &[(&str, &str)]) -> Answer {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in lines {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        exchange(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), text.as_bytes())
    }

    /// The content of a file, as far as it comes. An answer may be broken off before its head is sent.
    fn read(&self, at: &str) -> Vec<u8> {
        let text =
            format!("GET {}{at} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", self.top, self.port);
        let answer = try_exchange(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), text.as_bytes());
        answer.map(|answer| answer.body).unwrap_or_default()
    }

    /// The names in a folder, as addresses have them.
    fn list(&self, at: &str) -> BTreeSet<String> {
        let answer = self.ask("PROPFIND", at, &[("Depth", "1")]);
        assert_eq!(answer.status, 207, "{}", answer.head);
        let text = String::from_utf8(answer.body).unwrap();
        let all = text.split("<D:href>").skip(1).map(|rest| rest.split('<').next().unwrap());
        let own = format!("{}{at}", self.top);
        all.filter_map(|href| href.strip_prefix(own.as_str()))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Ends it as Ctrl-C does, and returns its exit code and its output.
    fn end(mut self) -> (i32, String) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), err)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_share_shows_what_was_kept_and_nothing_can_be_changed() {
    let desk = Desk::new();
    desk.write("long", bytes(1, 3 << 20));
    desk.write("folder/page.html", "<script>alert(1)</script>");
    desk.write("folder/empty", "");
    fs::write(desk.source().join(std::ffi::OsStr::from_bytes(b"odd \xff%&<name>")), "odd").unwrap();
    for (name, target) in [
        ("inside", "folder/page.html"),
        ("outside", "/etc/passwd"),
        ("above", "../../all"),
        ("loop", "loop"),
        ("dir", "folder"),
    ] {
        std::os::unix::fs::symlink(target, desk.source().join(name)).unwrap();
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, desk.source().join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    desk.take("2026-01-01");
    desk.write("long", bytes(2, 3 << 20));
    desk.take("2026-01-02");
    let share = Share::begin(&desk, &[]);
    assert_eq!(share.list(""), set(&["README.txt", "all/", "source/"]));
    assert_eq!(share.list("source/"), set(&["latest/", "2026-01-01%2000.00/", "2026-01-02%2000.00/"]));
    assert_eq!(share.list("all/").len(), 2);
    let latest = "source/latest/source/";
    // Links are followed inside of the snapshot; pipes have no content.
    let listed = share.list(latest);
    assert_eq!(listed.len(), 5, "{listed:?}");
    assert!(set(&["long", "folder/", "inside", "dir/"]).is_subset(&listed), "{listed:?}");
    let odd = listed.iter().find(|name| name.starts_with("odd")).unwrap();
    assert_eq!(share.ask("GET", &format!("{latest}{odd}"), &[]).body, b"odd");
    let get = |at: &str, lines: &[(&str, &str)]| share.ask("GET", &format!("{latest}{at}"), lines);
    assert_eq!(get("long", &[]).body, bytes(2, 3 << 20));
    assert_eq!(get("folder/empty", &[]).body, b"");
    let before = share.ask("GET", "source/2026-01-01%2000.00/source/long", &[]);
    assert_eq!(before.body, bytes(1, 3 << 20));
    let part = get("long", &[("Range", "bytes=1048570-1048580")]);
    assert_eq!((part.status, part.body), (206, bytes(2, 3 << 20)[1_048_570..=1_048_580].to_vec()));
    assert_eq!(get("long", &[("Range", "bytes=9999999-")]).status, 416);
    let tag = get("long", &[]).header("etag").unwrap().to_owned();
    assert_eq!(get("long", &[("If-None-Match", &tag)]).status, 304);
    // A page from a snapshot runs no scripts.
    for at in ["inside", "folder/page.html", "dir/page.html"] {
        let page = get(at, &[]);
        assert_eq!(page.body, b"<script>alert(1)</script>");
        assert_eq!(page.header("content-security-policy"), Some("sandbox; default-src 'none'"));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    }
    for at in ["outside", "above", "loop", "pipe", "none", "..", "../../../../source", "folder/../../../../../x"] {
        let answer = get(at, &[]);
        assert!(answer.status >= 300 && !answer.body.starts_with(b"root:"), "{at}: {}", answer.head);
    }
    let readme = share.ask("GET", "README.txt", &[]);
    assert!(String::from_utf8(readme.body).unwrap().contains("To leave, press Ctrl-C"));
    let version = format!("{latest}.versions/long/");
    assert_eq!(share.list(&version), set(&["2026-01-01%2000.00", "2026-01-02%2000.00"]));
    assert!(share.ask("OPTIONS", "", &[]).header("dav").is_some());
    let infinite = share.ask("PROPFIND", "", &[("Depth", "infinity"), ("X-Litmus", "1")]);
    assert_eq!(infinite.status, 501, "no request makes it walk through everything");
    for method in ["PUT", "DELETE", "MKCOL", "PROPPATCH", "MOVE", "COPY", "LOCK", "UNLOCK", "PATCH", "POST"] {
        let answer = share.ask(method, &format!("{latest}long"), &[("Content-Length", "0"), ("Destination", "/x")]);
        assert!((400..=599).contains(&answer.status), "{method}: {}", answer.head);
    }
    assert_eq!(get("long", &[]).body.len(), 3 << 20);
    // Wrong users and addresses.
    let own = format!("127.0.0.1:{}", share.port);
    let status = |target: &str, host: &str, lines: &[(&str, &str)]| share.ask_for("GET", target, host, lines).status;
    let at = format!("{}README.txt", share.top);
    assert_eq!(status(&at, &own, &[]), 200);
    assert_eq!((status("/README.txt", &own, &[]), status("/", &own, &[])), (404, 404));
    assert_eq!(status(&at, "evil.example", &[]), 421);
    assert_eq!(status(&at, &own, &[("Origin", "http://evil.example")]), 403);
    assert_eq!(status(&at, &own, &[("Sec-Fetch-Site", "cross-site")]), 403);
    let (code, err) = share.end();
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn a_share_of_one_folder_follows_what_is_asked_for() {
    let desk = Desk::new();
    desk.write("folder/a", "a");
    desk.write("b", "b");
    desk.take("2026-01-01");
    let share = Share::begin(&desk, &["latest:source/folder"]);
    assert_eq!(share.list(""), set(&["a"]));
    assert_eq!(share.ask("GET", "a", &[]).body, b"a");
    // New snapshots appear if all are shown.
    let all = Share::begin(&desk, &["--source", "source"]);
    assert_eq!(all.list("source/").len(), 2);
    desk.take("2026-01-02");
    let begun = std::time::Instant::now();
    while all.list("source/").len() != 3 {
        assert!(begun.elapsed().as_secs() < 20, "it does not appear");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let refused = desk.run(&["mount", "--webdav", "--source", "sauce"]);
    assert!(refused.code == 1 && refused.err.contains("Did you mean --source source?"), "{}", refused.err);
    let port = all.port.to_string();
    let taken = desk.run(&["mount", &format!("--webdav={port}")]);
    assert!(taken.code == 1 && taken.err.contains("cannot listen on 127.0.0.1"), "{}", taken.err);
}

#[test]
fn damage_breaks_an_answer_off_and_is_remembered() {
    let desk = Desk::new();
    desk.write("a", bytes(1, 1 << 20));
    desk.take("2026-01-01");
    let longest = desk.packs().into_iter().max_by_key(|path| fs::metadata(path).unwrap().len());
    let file = File::options().write(true).open(longest.unwrap()).unwrap();
    file.write_all_at(&[0; 2000], 500_000).unwrap();
    let share = Share::begin(&desk, &[]);
    assert!(share.read("source/latest/source/a").len() < 1 << 20, "lost data is never sent as zeros");
    let (code, err) = share.end();
    assert!(code == 4 && err.contains("source/a") && err.contains("vault doctor"), "{code} {err}");
    assert_eq!(desk.run(&["list"]).code, 4, "it is remembered");
}

#[test]
fn a_share_waits_for_what_has_not_arrived() {
    for folder in ["packs", "meta"] {
        let desk = Desk::new();
        desk.write("old", bytes(1, 50_000));
        desk.take("2026-01-01");
        let late = desk.await_another(folder);
        let share = Share::begin(&desk, &[]);
        let read = || share.read("other/latest/source/new");
        let answer = share.ask("GET", "other/latest/source/new", &[]);
        assert!(answer.status >= 400 && answer.body.len() < 1000, "{folder}: {}", answer.head);
        late.iter().for_each(|(aside, path)| fs::rename(aside, path).unwrap());
        let begun = std::time::Instant::now();
        while read() != bytes(77, 150_000) {
            assert!(begun.elapsed().as_secs() < 20, "{folder}: it does not arrive");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let (code, err) = share.end();
        assert!(code == 3 && err.contains("has not arrived yet"), "{folder}: {code} {err}");
        assert!(!err.contains("lost") && !err.contains("damage") && !err.contains("doctor"), "{folder}: {err}");
        assert_eq!(desk.run(&["list"]).code, 0, "{folder}: nothing of it is remembered as damage");
    }
}

#[test]
fn rclone_copies_out_of_a_share() {
    if Command::new("rclone").arg("version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: rclone is not installed");
        return;
    }
    let desk = Desk::new();
    for number in 0..600_u32 {
        desk.write(&format!("many/{number} ä&%"), number.to_string());
    }
    desk.write("long", bytes(3, 9 << 20));
    desk.take("2026-01-01");
    let share = Share::begin(&desk, &[]);
    let out = desk.path("out");
    let copied = Command::new("rclone")
        .args(["--config", "/dev/null", "copy", "--webdav-url", &share.url(), ":webdav:source/latest/source"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let same = Command::new("diff").arg("-r").arg(&out).arg(desk.source()).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
}
