//! The page of `vault ui`, used by a plain client: access, answers and changes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::PASSWORD;
use crate::support::binary::{Desk, Said};
use crate::support::http::{Answer, exchange};
use crate::support::model::{assert_same, of_disk};
use crate::support::source::{Size, bytes, plant};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of the page. It is ended when this is dropped.
pub struct Page {
    child: Child,
    port: u16,
    token: String,
    cookie: String,
}

impl Page {
    fn begin(desk: &Desk, args: &[&str]) -> Self {
        Self::attempt(desk, args).unwrap_or_else(|said| panic!("it does not begin: {}{}", said.out, said.err))
    }

    /// As `begin`; if it does not start, returns its output instead.
    fn attempt(desk: &Desk, args: &[&str]) -> Result<Self, Said> {
        let mut child = desk.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (mut said, mut address) = (String::new(), None);
        while address.is_none() && out.read_line(&mut said).unwrap() > 0 {
            address = said.lines().find_map(|line| Some(line.split_once("http://")?.1.to_owned()));
        }
        let Some(address) = address else {
            let output = child.wait_with_output().unwrap();
            return Err(Said { out: said, ..crate::support::binary::said(&output) });
        };
        let (host, token) = address.split_once("/#token=").unwrap();
        let token: String = token.chars().take_while(char::is_ascii_hexdigit).collect();
        let port = host.split_once(':').unwrap().1.parse().unwrap();
        // Later output goes nowhere, and must not stop it.
        thread::spawn(move || drop(out.read_to_string(&mut String::new())));
        Ok(Self { child, port, token, cookie: String::new() })
    }

    /// A page with a browser that was let in.
    fn entered(desk: &Desk, args: &[&str]) -> Self {
        Self::attempt_to_enter(desk, args).unwrap_or_else(|said| panic!("it does not begin: {}{}", said.out, said.err))
    }

    /// As `entered`; if it does not start, returns its output instead.
    pub fn attempt_to_enter(desk: &Desk, args: &[&str]) -> Result<Self, Said> {
        let mut page = Self::attempt(desk, args)?;
        let answer = page.enter(&page.token);
        assert_eq!(answer.status, 200, "{}", answer.head);
        let cookie = answer.header("set-cookie").unwrap();
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/"),
            "{cookie}"
        );
        assert!(!cookie.contains(&page.token), "the token is no cookie");
        cookie.split(';').next().unwrap().clone_into(&mut page.cookie);
        Ok(page)
    }

    fn enter(&self, token: &str) -> Answer {
        self.post_with("session", &json!({ "token": token }), &[])
    }

    fn raw(&self, request: &[u8]) -> Answer {
        exchange(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), request)
    }

    /// Sends a request with these lines besides those of a browser; a line replaces one of the same name.
    fn request(&self, method: &str, target: &str, lines: &[(&str, &str)], body: &str) -> Answer {
        let host = format!("127.0.0.1:{}", self.port);
        let length = body.len().to_string();
        let mut all = vec![("Host", host.as_str()), ("Connection", "close"), ("Content-Length", length.as_str())];
        if !self.cookie.is_empty() {
            all.push(("Cookie", &self.cookie));
        }
        all.retain(|(name, _)| !lines.iter().any(|(other, _)| other == name));
        all.extend_from_slice(lines);
        all.retain(|(_, value)| *value != "-");
        let head: Vec<String> = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = head.concat();
        self.raw(format!("{method} {target} HTTP/1.1\r\n{head}\r\n{body}").as_bytes())
    }

    /// Follows the stream of events, as an open page does.
    fn events(&self) -> impl Iterator<Item = String> + use<> {
        let mut events = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let (port, cookie) = (self.port, &self.cookie);
        write!(events, "GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n").unwrap();
        events.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(events).lines().map(Result::unwrap)
    }

    fn get(&self, path: &str) -> Answer {
        self.request("GET", &format!("/api/v1/{path}"), &[], "")
    }

    fn post_with(&self, path: &str, body: &Value, lines: &[(&str, &str)]) -> Answer {
        let lines = [&[("Content-Type", "application/json")], lines].concat();
        self.request("POST", &format!("/api/v1/{path}"), &lines, &body.to_string())
    }

    #[track_caller]
    pub fn told(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    #[track_caller]
    fn act(&self, path: &str, body: &Value) -> Value {
        let answer = self.post_with(path, body, &[]);
        assert_eq!(answer.status, 200, "{path} {body}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Begins a job, and waits until it is over.
    #[track_caller]
    fn done(&self, path: &str, body: &Value) -> Value {
        let begun = self.act(path, body);
        self.wait(begun["id"].as_u64().unwrap())
    }

    #[track_caller]
    fn wait(&self, id: u64) -> Value {
        let since = Instant::now();
        loop {
            let job = self.told(&format!("job?id={id}"));
            if job["state"] != "running" {
                return job;
            }
            assert!(since.elapsed() < PATIENCE, "it does not end: {job}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the signal of Ctrl-C, and returns the exit code and the output.
    pub fn end(mut self) -> (i32, String) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let since = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(since.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), err)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes as encoded in an address.
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}

fn names(listing: &Value) -> Vec<String> {
    listing["entries"].as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn nobody_but_a_browser_that_was_let_in_is_told_anything() {
    let desk = Desk::new();
    desk.write("a.txt", "secret");
    desk.take("2026-11-20T12:00");
    let mut page = Page::begin(&desk, &["ui", "--no-open"]);
    let host = format!("127.0.0.1:{}", page.port);
    for path in
        ["status", "snapshots", "ls?snapshot=x", "file?snapshot=x&path=a.txt", "events", "keys", "settings", "x"]
    {
        assert_eq!(page.get(path).status, 401, "{path}: without a cookie");
    }
    assert_eq!(page.enter("").status, 401);
    assert_eq!(page.enter(&"0".repeat(32)).status, 401);
    // Other pages cannot use the token either, and do not use it up.
    let evil = [("Origin", "http://evil.example")];
    assert_eq!(page.post_with("session", &json!({ "token": page.token }), &evil).status, 403);
    let rebound = [("Host", "evil.example")];
    assert_eq!(page.post_with("session", &json!({ "token": page.token }), &rebound).status, 421);
    let form = page.request(
        "POST",
        "/api/v1/session",
        &[("Content-Type", "text/plain")],
        &json!({ "token": page.token }).to_string(),
    );
    assert_eq!(form.status, 415);
    let entered = page.enter(&page.token);
    assert_eq!(entered.status, 200);
    page.cookie = entered.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(page.enter(&page.token).status, 401, "the token works once");
    assert_eq!(page.get("status").status, 200);

    for host in [
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:80",
        "localhost",
        "localhost.evil.example",
        "0.0.0.0",
        "[::1]",
        "127.1",
        "2130706433",
        "",
        "a b",
    ] {
        let answer = page.request("GET", "/api/v1/status", &[("Host", host)], "");
        assert!(matches!(answer.status, 421 | 400), "{host}: {}", answer.status);
        assert!(!String::from_utf8_lossy(&answer.body).contains("vault\""));
    }
    assert_eq!(
        page.request("GET", "/api/v1/status", &[("Host", &host.replace("127.0.0.1", "localhost"))], "").status,
        200
    );
    for line in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://localhost:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Cookie", "-"),
        ("Cookie", "vault_1=x"),
    ] {
        for (method, path) in [("GET", "status"), ("POST", "stop"), ("GET", "file?snapshot=x"), ("GET", "events")] {
            let lines = [line, ("Content-Type", "application/json")];
            let answer = page.request(method, &format!("/api/v1/{path}"), &lines, "{}");
            assert!(matches!(answer.status, 401 | 403), "{line:?} {method} {path}: {}", answer.status);
        }
    }
    // GET never changes anything, and changes never work by GET.
    for path in ["restore", "save", "check", "stop", "folders", "configure", "session", "keep", "leave"] {
        assert_eq!(page.get(path).status, 405, "GET {path}");
    }
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let answer = page.request(method, "/api/v1/status", &[("Content-Type", "application/json")], "");
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, answer.header("allow"), &problem["code"]), (405, Some("GET,HEAD"), &json!(2)));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    // What is not as it is described is refused, and nothing is begun.
    for (path, request) in [
        ("keep", json!({ "rules": { "last": "3" } })),
        ("keep", json!({})),
        ("check", json!({ "sample": 101 })),
        ("restore", json!({ "snapshot": "x", "to": "in-place", "dry_run": 1 })),
        ("configure", json!({ "text": "", "write": "no" })),
        ("stop", json!([])),
        ("stop-run", json!({ "run": "none" })),
    ] {
        assert_eq!(page.post_with(path, &request, &[]).status, 400, "{path} {request}");
    }
    let long = "x".repeat(2 << 20);
    let answer = page.post_with("keep", &json!({ "rules": long }), &[]);
    assert_eq!(answer.status, 413);
    for wrong in [
        &b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"[..],
        b"\0\0\0\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nConnection: close\r\nHost: x\r\nHost: y\r\n\r\n",
    ] {
        assert!(page.raw(&[wrong, b""].concat()).status >= 400);
    }
    // Every answer forbids use by other pages.
    for path in ["/", "/page.js", "/words.en.json", "/api/v1/status", "/nothing"] {
        let answer = page.request("GET", path, &[], "");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
    assert_eq!(page.act("leave", &json!({})), json!({}));
    assert_eq!(page.get("status").status, 401, "it left");
    let (token, first) = (page.token.clone(), page.port);
    assert_eq!(page.end(), (0, String::new()));
    // Another server does not accept the cookie of the one before.
    let later = Page::begin(&desk, &["ui", "--no-open", "--port", &first.to_string()]);
    assert_eq!((later.port, later.enter(&token).status), (first, 401));
}

#[test]
fn secrets_are_in_no_log_and_no_file() {
    let desk = Desk::new();
    desk.write("a.txt", "x");
    desk.take("2026-11-20T12:00");
    let page = Page::entered(&desk, &["ui", "--no-open", "-v"]);
    let secrets = [PASSWORD.to_owned(), page.token.clone(), page.cookie.split_once('=').unwrap().1.to_owned()];
    let pid = page.child.id();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut texts =
        vec![line, page.told("settings").to_string().into_bytes(), page.told("status").to_string().into_bytes()];
    let mut folders = vec![desk.path("state")];
    while let Some(folder) = folders.pop() {
        for found in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if found.file_type().unwrap().is_dir() {
                folders.push(found.path());
            } else {
                texts.push(fs::read(found.path()).unwrap());
            }
        }
    }
    let (code, said) = page.end();
    assert_eq!(code, 0);
    assert!(said.contains("a browser was let in"), "{said}");
    texts.push(said.into_bytes());
    for secret in &secrets {
        let is_in = |text: &Vec<u8>| text.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!texts.iter().any(is_in));
    }
}

#[test]
fn a_socket_is_for_tunnels_and_goes_with_the_page() {
    let desk = Desk::new();
    desk.write("a.txt", "x");
    desk.take("2026-11-20T12:00");
    let said = desk.run(&["ui", "--no-open", "--socket", desk.path("missing/s").to_str().unwrap()]);
    assert_eq!((said.code, said.err.contains("mkdir -p -m 700")), (1, true), "{}", said.err);
    let folder = desk.path("private");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.join("s");
    let said = desk.run(&["ui", "--no-open", "--socket", socket.to_str().unwrap()]);
    assert_eq!((said.code, said.err.contains("not only for you")), (1, true), "{}", said.err);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let page = Page::begin(&desk, &["ui", "--no-open", "--socket", socket.to_str().unwrap()]);
    let ask = |host: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "POST /api/v1/session HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        exchange(UnixStream::connect(&socket).unwrap(), request.as_bytes())
    };
    let body = json!({ "token": page.token }).to_string();
    assert_eq!(ask("evil.example:8484", &body).status, 421);
    assert_eq!(ask("localhost:8484", &body).status, 200);
    assert_eq!(page.end(), (0, String::new()));
    assert!(!socket.exists());
}

/// A source with names that are meant to do harm, in a page, a header, or a path.
fn hostile(desk: &Desk) -> Vec<Vec<u8>> {
    let names: [&[u8]; 9] = [
        b"<img src=x onerror=alert(1)>.txt",
        b"a\r\nSet-Cookie: evil=1.txt",
        b"quote\"; filename=evil.exe",
        b"%2e%2e%2fx",
        b"back\\slash",
        "rtl\u{202e}gpj.exe".as_bytes(),
        b"not\xff\xfetext",
        b"q?a=b&c#d",
        b" space ",
    ];
    for name in names {
        let path = desk.source().join(vault::path::to_path(name));
        fs::write(path, [b"content of ", name].concat()).unwrap();
    }
    names.map(<[u8]>::to_vec).to_vec()
}

#[test]
fn files_are_looked_at_in_the_shapes_of_the_commands() {
    let desk = Desk::new();
    desk.write("sub/letter.txt", "one\ntwo\n");
    desk.write("picture.png", b"\x89PNG\r\n\x1a\nxxxx");
    desk.write("script.svg", "<svg onload=alert(1)></svg>");
    desk.write("noise", [vec![0], bytes(7, 3 << 20)].concat());
    let all = hostile(&desk);
    let first = desk.take("2026-11-20T12:00");
    desk.write("sub/letter.txt", "one\nthree\n");
    let second = desk.take("2026-11-21T12:00");
    let page = Page::entered(&desk, &["ui", "--no-open"]);
    let list = page.told("snapshots");
    assert_eq!(list, desk.json(&["list"])[0]);
    assert_eq!(page.told("keys"), desk.json(&["key", "list"])[0]);
    let mut listed = page.told(&format!("ls?snapshot={second}&path=source"));
    assert_eq!(listed["next"], Value::Null);
    assert_eq!(listed["entries"].take(), Value::Array(desk.json(&["ls", &format!("{second}:source")])));
    let part = page.told(&format!("ls?snapshot={second}&path=/source/&from=2&count=3"));
    let whole = page.told(&format!("ls?snapshot={second}&path=source"));
    let entries = whole["entries"].as_array().unwrap();
    assert_eq!((part["entries"].as_array().unwrap().as_slice(), &part["next"]), (&entries[2..5], &json!(5)));
    assert_eq!(names(&page.told(&format!("ls?snapshot={second}"))), ["source"]);

    let host = list["snapshots"][0]["host"].as_str().unwrap();
    let history = page.told(&format!("history?source=source&host={host}&path=source/sub/letter.txt"));
    assert_eq!(history["versions"], Value::Array(desk.json(&["history", "source/sub/letter.txt"])));
    let found = page.told("find?pattern=LETTER");
    assert_eq!(found["matches"], Value::Array(desk.json(&["find", "*letter*"])));
    let differs = page.told(&format!("diff?old={first}&new={second}"));
    let mut printed = desk.json(&["diff", &first, &second]);
    assert_eq!((differs["summary"].clone(), differs["old"].clone()), {
        let sums = printed.pop().unwrap();
        (sums["summary"].clone(), sums["old"].clone())
    });
    assert_eq!(differs["differences"], Value::Array(printed));

    // Sums of folders are those of du; only the largest entries are told.
    let sums = |query: &str| page.told(&format!("usage?snapshot={second}{query}"));
    let du = |args: &[&str]| desk.json(&[&["du"], args].concat()).swap_remove(0);
    let without = |mut told: Value| {
        let told_more = (told["more"].take(), told["broken"].take());
        let fields = told.as_object_mut().unwrap();
        assert!(fields.remove("more").is_some() && fields.remove("broken").is_some());
        (told, told_more)
    };
    let printed = du(&[&second, "--depth", "3"]);
    assert_eq!(without(sums("&depth=3&count=2000")), (printed.clone(), (json!(false), json!(0))));
    assert!(printed["entries"].as_array().unwrap().len() > all.len(), "hostile names are among them");
    let printed = du(&[&format!("{second}:source"), "--since", &first, "--depth", "2"]);
    assert_eq!(without(sums(&format!("&path=source&since={first}&depth=2"))).0, printed);
    assert_eq!((&printed["files"], &printed["entries"][0]["path"]), (&json!(1), &json!("source/sub")));
    let largest = sums("&path=source&count=1");
    assert_eq!((&largest["entries"][0]["path"], &largest["more"]), (&json!("source/noise"), &json!(true)));
    assert_eq!(largest["entries"].as_array().unwrap().len(), 1);
    for (query, status) in [
        (format!("snapshot={second}&path=none"), 404),
        (format!("snapshot={second}&since=none"), 404),
        (format!("snapshot={second}&depth=deep"), 400),
        ("path=source".to_owned(), 400),
    ] {
        assert_eq!(page.get(&format!("usage?{query}")).status, status, "{query}");
    }
    let (mut told, mut printed) = (page.told("stats"), desk.json(&["stats"]).swap_remove(0));
    // Others write to the same disk.
    assert!(told["bytes_free"].take().as_u64() > Some(0) && printed["bytes_free"].take().as_u64() > Some(0));
    assert_eq!(told, printed);

    let preview = |path: &str| page.told(&format!("preview?snapshot={second}&path={path}"));
    assert_eq!(preview("source/sub/letter.txt"), json!({ "kind": "text", "text": "one\nthree\n", "whole": true }));
    assert_eq!(preview("source/picture.png"), json!({ "kind": "image/png" }));
    assert_eq!(preview("source/script.svg")["kind"], "text", "it is shown as plain text");
    assert_eq!(preview("source/noise"), json!({ "kind": "none" }));
    assert_eq!(preview("source/sub"), json!({ "kind": "none" }));

    let noise = page.get(&format!("file?snapshot={second}&path=source/noise"));
    assert!(noise.body == [vec![0], bytes(7, 3 << 20)].concat(), "{}", noise.head);
    for name in &all {
        let answer = page.get(&format!("file?snapshot={first}&path=source/{}", encoded(name)));
        assert_eq!((answer.status, answer.body), (200, [b"content of ", name.as_slice()].concat()), "{}", answer.head);
        let lines = |name: &str| answer.head.lines().filter(|line| line.to_lowercase().starts_with(name)).count();
        assert_eq!((lines("set-cookie"), lines("content-disposition")), (0, 1), "{}", answer.head);
        let sent = Answer { status: 200, head: answer.head.clone(), body: Vec::new() };
        let disposition = sent.header("content-disposition").unwrap();
        assert!(
            disposition.starts_with("attachment; filename=\"") && disposition.matches('"').count() == 2,
            "{disposition}"
        );
        assert!(!disposition.contains(['/', '\\']), "{disposition}");
        assert_eq!(sent.header("content-type"), Some("application/octet-stream"));
        assert!(sent.header("content-security-policy").unwrap().starts_with("sandbox"));
    }
    // A folder comes as the archive that the command writes.
    for (path, name) in [("source/sub", "sub.tar"), ("", "source.tar")] {
        let folder = page.get(&format!("file?snapshot={second}&path={path}"));
        assert!(folder.head.contains(&format!("filename=\"{name}\"")), "{}", folder.head);
        let archive = desk.path(name);
        desk.ok(&["export", &format!("{second}:{path}"), "--tar", archive.to_str().unwrap()]);
        assert!(folder.body == fs::read(archive).unwrap(), "{path}: {} bytes", folder.body.len());
    }
    let (code, said) = page.end();
    assert_eq!((code, said.as_str()), (0, ""));
}

/// Files and folders that wait for the sync have not arrived, says the page, until they are there.
#[test]
fn the_page_waits_for_what_has_not_arrived() {
    for (folder, waiting) in
        [("packs", &["preview", "file"][..]), ("meta", &["ls", "entry", "preview", "file", "skipped"])]
    {
        let desk = Desk::new();
        desk.write("old", bytes(1, 50_000));
        desk.take("2026-01-01");
        let late = desk.await_another(folder);
        let page = Page::entered(&desk, &["ui", "--no-open"]);
        let list = page.told("snapshots");
        let id = list["snapshots"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
        let asked = |what: &&str| {
            let path = if *what == "ls" { "source" } else { "source/new" };
            page.get(&format!("{what}?snapshot={id}&path={path}"))
        };
        for what in waiting.iter().filter(|what| **what != "skipped") {
            let answer = asked(what);
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!((answer.status, &problem["code"]), (503, &json!(3)), "{folder} {what}: {problem}");
            let text = problem.to_string();
            assert!(text.contains("has not arrived yet") && text.contains("Nothing is lost"), "{what}: {text}");
            assert!(!text.contains("damage") && !text.contains("is lost:"), "{what}: {text}");
        }
        let archive = || page.get(&format!("file?snapshot={id}&path=source"));
        // Such a connection breaks off, which the reader of answers takes for a defect.
        let is_whole = || catch_unwind(AssertUnwindSafe(archive)).is_ok_and(|answer| answer.status == 200);
        assert!(!is_whole(), "an archive that lacks something looks whole");
        let check = page.done("check", &json!({}));
        let result = &check["result"];
        assert_eq!((&result["damaged"], &result["findings"][0]["about"]), (&json!(false), &json!("late")), "{check}");
        let list = page.told("snapshots");
        assert_eq!((&list["late"][0]["snapshot"], &list["damaged"]), (&json!(id), &json!([])), "{list}");
        assert!(page.told("overview")["state"].to_string().contains("not arrived yet"));
        late.iter().for_each(|(aside, path)| fs::rename(aside, path).unwrap());
        let since = Instant::now();
        while waiting.iter().any(|what| asked(what).status != 200) {
            assert!(since.elapsed() < PATIENCE, "{folder}: it does not arrive");
            thread::sleep(Duration::from_millis(200));
        }
        assert!(is_whole());
        let list = page.told("snapshots");
        assert_eq!((&list["late"], &list["findings"]), (&json!([]), &json!([])), "{list}");
    }
}

#[test]
fn paths_lead_nowhere_but_into_snapshots() {
    let desk = Desk::new();
    desk.write("a.txt", "x");
    let id = desk.take("2026-11-20T12:00");
    let page = Page::entered(&desk, &["ui", "--no-open"]);
    let parts = [
        "..",
        ".",
        "%2e%2e",
        "..%2f",
        "%00",
        "%ff",
        "~",
        "C:",
        "\\..",
        "....//",
        "%c0%ae%c0%ae",
        "/etc/passwd",
        "source/..",
        "source/../a.txt",
        "a.txt/x",
    ];
    let mut count = 0;
    for first in parts {
        for second in parts {
            let path = format!("{first}/{second}").replace(' ', "%20");
            // A path that leads to itself leads nowhere else.
            let asked: &[&str] = if path == "./." { &[] } else { &["ls", "file"] };
            for ask in asked {
                let answer = page.get(&format!("{ask}?snapshot={id}&path={path}"));
                assert_eq!(answer.status, 404, "{ask} {path}: {}", String::from_utf8_lossy(&answer.body));
                count += 1;
            }
        }
    }
    assert!(count >= 300);
    for path in [
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "/assets/page.js",
        "//page.js",
        "/page.js/..",
        "/api/v1/../../etc/passwd",
        "/api/v2/status",
    ] {
        let answer = page.request("GET", path, &[], "");
        assert!(matches!(answer.status, 404 | 400), "{path}: {}", answer.status);
    }
    for id in ["", "x", "..", &id[..8], &format!("{id}0"), "00112233445566778899aabbccddeeff"] {
        assert_eq!(page.get(&format!("ls?snapshot={id}")).status, 404, "{id}");
    }
}

#[test]
fn a_restore_is_tried_first_and_then_brings_all_back() {
    let desk = Desk::new();
    plant(&desk.source(), 11, Size::Small);
    let before = of_disk(&desk.source(), b"source");
    let id = desk.take("2026-11-20T12:00");
    let page = Page::entered(&desk, &["ui", "--no-open"]);
    // Into a folder of its own, a part of it by hand, then in place.
    let back = desk.path("back");
    let wish = json!({ "snapshot": id, "path": "source", "to": { "folder": back }, "verify": true });
    let with = |more: Value| {
        let mut wish = wish.clone();
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wish
    };
    let tried = page.done("restore", &with(json!({ "dry_run": true })));
    assert_eq!(tried["state"], "done", "{tried}");
    assert!(tried["result"]["change_count"].as_u64().unwrap() > 5 && !back.exists(), "nothing was written");
    let done = page.done("restore", &wish);
    assert_eq!((&done["state"], &done["result"]["problem_count"]), (&json!("done"), &json!(0)), "{done}");
    assert_eq!(done["result"]["files_verified"].as_u64().map(|count| count > 0), Some(true), "{done}");
    assert_same(&before, &of_disk(&back.join("source"), b"source"), "in a folder of its own");
    assert_eq!(page.post_with("restore", &wish, &[]).status, 200, "it begins, and then refuses");
    let again = page.done("restore", &wish);
    assert_eq!(
        (&again["state"], again["error"]["error"].as_str().unwrap().contains("is there already")),
        (&json!("failed"), true)
    );

    let files: Vec<_> = fs::read_dir(desk.source()).unwrap().map(|found| found.unwrap().path()).collect();
    for path in &files {
        if path.is_file() && !path.is_symlink() {
            fs::write(path, "spoilt").unwrap();
        }
    }
    desk.write("new.txt", "new");
    let wish = json!({ "snapshot": id, "to": "in-place", "delete": true });
    let with = |more: Value| {
        let mut wish = wish.clone();
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wish
    };
    assert_eq!(page.post_with("restore", &wish, &[]).status, 409, "a restore that deletes needs a dry run first");
    let tried = page.done("restore", &with(json!({ "dry_run": true })));
    assert_eq!((&tried["result"]["deleted"], desk.source().join("new.txt").exists()), (&json!(1), true), "{tried}");
    let other = with(json!({ "plan": tried["id"], "overwrite": "always" }));
    assert_eq!(page.post_with("restore", &other, &[]).status, 409, "the dry run was for another restore");
    let done = page.done("restore", &with(json!({ "plan": tried["id"] })));
    assert_eq!((&done["state"], &done["result"]["deleted"]), (&json!("done"), &json!(1)), "{done}");
    assert_same(&before, &of_disk(&desk.source(), b"source"), "in place");
    // The result is the same as that of the command.
    let printed = desk.json(&["restore", &id, "--in-place", "--dry-run"]);
    let (mut told, printed) =
        (page.done("restore", &json!({ "snapshot": id, "to": "in-place", "dry_run": true })), &printed[0]);
    told["result"].as_object_mut().unwrap().remove("change_count");
    assert_eq!(&told["result"], printed);
    assert_eq!(page.told("jobs")["jobs"].as_array().unwrap().len(), 7);
}

#[test]
fn a_restore_does_only_what_its_plan_listed() {
    let desk = Desk::new();
    desk.write("d/kept", "as it was");
    desk.write("d/changed", "as it was");
    let id = desk.take("2026-11-20T12:00");
    desk.write("d/extra", "extra");
    desk.write("d/changed", "something else");
    let page = Page::entered(&desk, &["ui", "--no-open"]);
    for delete in [true, false] {
        let with = |more: Value| {
            let mut wish = json!({ "snapshot": id, "to": "in-place", "delete": delete });
            wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            wish
        };
        let plan = || page.done("restore", &with(json!({ "dry_run": true })))["id"].clone();
        let refused = |plan: &Value, what: &str| {
            let done = page.done("restore", &with(json!({ "plan": plan })));
            assert_eq!(done["state"], "failed", "{what}: {done}");
            let error = done["error"]["error"].as_str().unwrap();
            assert!(error.contains("changed since") && error.contains("nothing was restored"), "{what}: {error}");
            assert!(done["error"]["hint"].as_str().unwrap().contains("Look again"), "{what}: {done}");
        };
        // Something that would be deleted, or overwritten, came after the plan.
        let first = plan();
        if delete {
            desk.write("d/extra2", "written after the plan");
            refused(&first, "one more to delete");
        }
        let second = plan();
        desk.write("d/kept", "written after the plan");
        refused(&second, "one more to overwrite");
        assert_eq!(fs::read_to_string(desk.source().join("d/kept")).unwrap(), "written after the plan");
        assert_eq!(fs::read_to_string(desk.source().join("d/changed")).unwrap(), "something else");
        assert_eq!(desk.source().join("d/extra2").exists(), delete);
        // What is gone already is another plan, too.
        let third = plan();
        fs::rename(desk.source().join("d/changed"), desk.path("aside")).unwrap();
        refused(&third, "one less to overwrite");
        fs::rename(desk.path("aside"), desk.source().join("d/changed")).unwrap();
        // A new plan does it.
        let done = page.done("restore", &with(json!({ "plan": plan() })));
        assert_eq!((&done["state"], &done["result"]["problem_count"]), (&json!("done"), &json!(0)), "{done}");
        assert_eq!(done["result"]["deleted"], if delete { 2 } else { 0 }, "{done}");
        assert_eq!(fs::read_to_string(desk.source().join("d/kept")).unwrap(), "as it was");
        // A plan of something else is none, and neither is a restore.
        for wrong in [done["id"].clone(), json!(999)] {
            let answer = page.post_with("restore", &with(json!({ "plan": wrong })), &[]);
            assert_eq!(answer.status, 409, "{wrong}");
        }
        desk.write("d/changed", "something else");
    }
}

#[test]
fn a_restore_goes_only_where_it_may() {
    let desk = Desk::new();
    desk.write("a.txt", "x");
    let id = desk.take("2026-11-20T12:00");
    // A folder that is not below the home folder.
    let elsewhere = crate::support::scratch();
    let page = Page::entered(&desk, &["ui", "--no-open"]);
    let to = |folder: &Path| json!({ "snapshot": id, "path": "source/a.txt", "to": { "folder": folder } });
    for folder in [elsewhere.path().join("back"), Path::new("/etc").to_owned(), desk.path("x/../../../etc")] {
        let answer = page.post_with("restore", &to(&folder), &[]);
        assert_eq!(answer.status, 403, "{}", folder.display());
    }
    for name in ["store/x", "state/x", "store"] {
        let job = page.done("restore", &to(&desk.path(name)));
        assert_eq!(job["state"], "failed", "{name}: {job}");
    }
    let listed = page.act("folders", &json!({ "path": elsewhere.path() }));
    assert_eq!(listed["folders"], json!([]));
    assert_eq!(page.done("restore", &to(&elsewhere.path().join("back")))["state"], "done");
    assert_eq!(fs::read(elsewhere.path().join("back/a.txt")).unwrap(), b"x");
    let home = page.act("folders", &json!({}));
    assert!(home["folders"].as_array().unwrap().contains(&json!("source")), "{home}");
    for wrong in
        [json!({ "path": "../x" }), json!({ "path": desk.path("none") }), json!({ "path": desk.path("a/../b") })]
    {
        assert_eq!(page.post_with("folders", &wrong, &[]).status, 400, "{wrong}");
    }
    // A snapshot of another machine has no place here.
    desk.ok(&["snapshot", ".", "--source", "other", "--host", "elsewhere"]);
    thread::sleep(Duration::from_millis(1));
    let since = Instant::now();
    let other = loop {
        let list = page.told("snapshots");
        let found = list["snapshots"].as_array().unwrap().iter().find(|info| info["source"] == "other").cloned();
        if let Some(found) = found {
            break found;
        }
        assert!(since.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(other["host"], "elsewhere");
}

#[test]
fn what_goes_on_is_watched_and_stopped() {
    let desk = Desk::new();
    for number in 0..12 {
        desk.write(&format!("{number}"), bytes(number, 1 << 20));
    }
    let id = desk.take("2026-11-20T12:00");
    let page = Page::entered(&desk, &["ui", "--no-open"]);
    let mut lines = page.events();
    let begun = page.act("restore", &json!({ "snapshot": id, "to": { "folder": desk.path("back") } }));
    let stopped = page.act("stop", &json!({ "id": begun["id"] }));
    assert_eq!(stopped, begun);
    let job = page.wait(begun["id"].as_u64().unwrap());
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("stopped"), &json!(130)), "{job}");
    let told = lines.find(|line| line.starts_with("data: {")).unwrap();
    let told: Value = serde_json::from_str(told.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&told["id"], &told["kind"]), (&begun["id"], &json!("restore")));
    // Once more, to its end.
    let wish = json!({ "snapshot": id, "to": { "folder": desk.path("back") }, "overwrite": "if-changed" });
    let job = page.done("restore", &wish);
    assert_eq!((&job["state"], &job["result"]["problem_count"]), (&json!("done"), &json!(0)), "{job}");
    let (disk, back) = (of_disk(&desk.source(), b"x"), of_disk(&desk.path("back/source"), b"x"));
    assert_same(&disk, &back, "after a stop");
    // Ending the page also ends its jobs, properly.
    page.act("restore", &json!({ "snapshot": id, "to": { "folder": desk.path("third") } }));
    assert_eq!(page.end(), (0, String::new()));
}

#[test]
fn saving_now_is_a_process_of_its_own() {
    let desk = Desk::new();
    desk.write("a.txt", "one");
    desk.take("2026-11-20T12:00");
    let page = Page::entered(&desk, &["ui", "--no-open"]);
    desk.write("a.txt", "two");
    let job = page.done("save", &json!({ "source": "source" }));
    assert_eq!(job["state"], "done", "{job}");
    let taken = job["result"]["snapshot"]["id"].as_str().unwrap();
    assert_eq!(page.get(&format!("file?snapshot={taken}&path=source/a.txt")).body, b"two");
    let printed = &desk.json(&["list"])[0];
    assert_eq!(page.told("snapshots")["snapshots"], printed["snapshots"]);
    let job = page.done("save", &json!({ "source": "--delete" }));
    assert_eq!(job["state"], "failed", "{job}");
    let job = page.done("save", &json!({ "source": "unknown" }));
    assert!(job["error"]["error"].as_str().unwrap().contains("not known"), "{job}");
    let drill = page.done("drill", &json!({}));
    assert_eq!((&drill["result"]["files"], &drill["result"]["failed"]), (&json!(1), &json!(0)), "{drill}");
    assert_eq!(page.told("overview")["drill"]["files"], 1);
    let check = page.done("check", &json!({ "sample": 100 }));
    assert_eq!((&check["state"], &check["result"]["damaged"]), (&json!("done"), &json!(false)), "{check}");
    let doctor = page.told("doctor");
    assert!(doctor["findings"].as_array().unwrap().len() > 3, "{doctor}");
    assert_eq!(page.told("stats")["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(page.told("overview")["plan"], Value::Null);
    let kept = page.act("keep", &json!({ "rules": { "last": 1 } }));
    assert_eq!((&kept["dry_run"], &kept["forgotten"]), (&json!(true), &json!(0)), "{kept}");
    assert_eq!(kept["snapshots"].as_array().unwrap().len(), 2, "one of a given date and one of the clock stay");
    let quick = page.act("keep", &json!({ "rules": { "last": 1 }, "estimate": false }));
    assert_eq!(quick, json!({ "snapshots": kept["snapshots"], "forgotten": 0 }), "the space is not estimated");
}

#[test]
fn runs_of_the_configuration_are_begun_seen_and_reported() {
    let desk = Desk::new();
    desk.write("a.txt", "one");
    let config = desk.path("vault.toml");
    let text = format!(
        "[vaults.disk]\npath = {:?}\nremovable = true\n[sources.documents]\npaths = [{:?}]\nevery = \"1d\"\n",
        desk.path("store"),
        desk.source()
    );
    fs::write(&config, &text).unwrap();
    let page = Page::entered(&desk, &["ui", "--no-open", "--config", config.to_str().unwrap(), "--repo", "disk"]);
    let overview = page.told("overview");
    assert_eq!(
        overview["plan"]["places"],
        json!([{ "vault": "disk", "place": desk.path("store"), "state": "there", "removable": true }])
    );
    assert_eq!((&overview["plan"]["sources"][0]["last"], &overview["running"]), (&Value::Null, &json!(false)));
    let job = page.done("save", &json!({}));
    assert_eq!((&job["state"], &job["result"]["verdict"]), (&json!("done"), &json!("complete")), "{job}");
    let runs = page.told("runs");
    assert_eq!(runs["runs"], json!([job["result"]]), "the report of the run is kept");
    assert_eq!(page.told("overview")["plan"]["sources"][0]["result"], "complete");
    // The follow-up is one of three actions, never a command.
    let job = page.done("save", &json!({ "then": "touch x" }));
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!(2)), "{job}");
    let job = page.done("save", &json!({ "source": "source", "then": "suspend" }));
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!(2)), "{job}");
    let job = page.done("save", &json!({ "then": "eject" }));
    let not_ejected = job["messages"].to_string() + &job["error"].to_string();
    assert!(not_ejected.contains("not on a disk that can be ejected"), "{job}");
    assert_eq!(page.told("runs")["runs"].as_array().unwrap().len(), 2, "everything before it was done");
    // A run that somebody else has started is seen.
    let lock = fs::File::options().write(true).open(desk.path("state/run/lock")).unwrap();
    lock.lock().unwrap();
    let since = Instant::now();
    while page.told("status")["running"] != json!(true) {
        assert!(since.elapsed() < Duration::from_secs(5), "it is not seen");
        thread::sleep(Duration::from_millis(50));
    }
    drop(lock);

    let settings = page.told("settings");
    assert_eq!(
        (settings["text"].as_str().unwrap(), settings["mistakes"].as_array().unwrap().len()),
        (text.as_str(), 0)
    );
    let wrong = page.act("configure", &json!({ "text": "[vaults", "hash": settings["hash"], "write": true }));
    assert_eq!((wrong["mistakes"][0]["line"].as_u64(), fs::read_to_string(&config).unwrap() == text), (Some(1), true));
    let new = format!("# mine\n{text}");
    assert_eq!(page.post_with("configure", &json!({ "text": new, "hash": "0", "write": true }), &[]).status, 400);
    let written = page.act("configure", &json!({ "text": new, "hash": settings["hash"], "write": true }));
    assert_eq!((written["mistakes"].as_array().unwrap().len(), fs::read_to_string(&config).unwrap()), (0, new));
    assert_eq!(fs::read_to_string(desk.path("vault.toml~")).unwrap(), text, "the one before stays");
}

#[test]
fn the_first_search_and_the_use_of_space_are_prepared_for_an_open_page() {
    let desk = Desk::new();
    desk.write("folder/a.txt", "one");
    let id = desk.take("2026-11-20T12:00");
    let mut page = Page::entered(&desk, &["ui", "--no-open", "-v"]);
    let log = BufReader::new(page.child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let _open = page.events();
    // On a machine with no time for it, it gives up.
    let mut prepared = log.filter(|line| line.contains("prepared"));
    assert!(prepared.next().is_some());
    assert_eq!(page.told("find?pattern=a.txt")["matches"][0]["path"], "source/folder/a.txt");
    let before = page.told("stats");
    assert_eq!((&before["snapshots"][0]["id"], before["snapshots"].as_array().unwrap().len()), (&json!(id), 1));
    // What is saved later is in both, and is prepared again.
    desk.write("folder/b.txt", "two");
    let later = desk.take("2026-11-21T12:00");
    // After a job the page looks at the store.
    page.done("check", &json!({}));
    assert_eq!(page.told("find?pattern=b.txt")["matches"][0]["path"], "source/folder/b.txt");
    assert_eq!(page.told("stats")["snapshots"][1]["id"], json!(later));
    assert_ne!(page.told("stats")["bytes_packs"], before["bytes_packs"]);
    assert!(prepared.next().is_some());
}

#[test]
fn a_run_of_the_schedule_is_seen_as_it_goes_on_and_stopped() {
    let desk = Desk::new();
    desk.write("a.txt", "one");
    let (config, begun) = (desk.path("vault.toml"), desk.path("begun"));
    let text = format!(
        "[vaults.disk]\npath = {:?}\n[sources.documents]\npaths = [{:?}]\n[sources.slow]\npaths = [{:?}]\n\
         before = \"touch {}; sleep 60\"\n",
        desk.path("store"),
        desk.source(),
        desk.source(),
        begun.display()
    );
    fs::write(&config, &text).unwrap();
    let config = config.to_str().unwrap();
    let page = Page::entered(&desk, &["ui", "--no-open", "--config", config, "--repo", "disk"]);
    assert_eq!(page.told("run"), json!({ "running": false, "now": null, "log": [] }));
    assert_eq!(page.post_with("stop-run", &json!({ "run": "1-2" }), &[]).status, 400);
    let mut lines = page.events();
    let mut run = desk.command(&["run", "--background", "--config", config]).stdout(Stdio::null()).spawn().unwrap();
    let data = |line: &str| serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap()).unwrap();
    assert!(lines.any(|line| line == "event: run"));
    assert_eq!(lines.next().unwrap(), "data: begun");
    // Reports come during the run: the first source is done, and the other has begun.
    let now = loop {
        assert!(lines.any(|line| line == "event: now"));
        let now = data(&lines.next().unwrap());
        if now["results"][0]["state"] == "complete" && begun.exists() {
            break now;
        }
    };
    assert_eq!((&now["background"], &now["due"], &now["process"]), (&json!(true), &json!(2), &json!(run.id())));
    let told = page.told("run");
    assert_eq!((&told["running"], &told["now"]["run"]), (&json!(true), &now["run"]));
    assert_eq!(told["log"][0]["event"], "begun");
    assert_eq!(page.act("stop-run", &json!({ "run": now["run"] })), json!({ "stopping": now["run"] }));
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(lines.any(|line| line == "data: ended"));
    assert_eq!(page.told("run")["running"], json!(false));
    let runs = page.told("runs");
    assert_eq!(
        (&runs["runs"][0]["verdict"], &runs["runs"][0]["results"][0]["state"]),
        (&json!("interrupted"), &json!("complete"))
    );
}

#[test]
fn keys_are_changed_by_the_rules_of_the_command_line() {
    let desk = Desk::new();
    desk.write("a.txt", "x");
    desk.take("2026-11-20T12:00");
    let page = Page::entered(&desk, &["ui", "--no-open"]);
    let opens =
        |password: &str| desk.command(&["list"]).env("VAULT_PASSWORD", password).output().unwrap().status.code();
    let refused = |path: &str, wish: Value| {
        let answer = page.post_with(path, &wish, &[]);
        let told = answer.json();
        // A wrong request is not the program's failure.
        let expected = if told["code"] == 12 { 403 } else { 400 };
        let is_last = told["error"].as_str().is_some_and(|error| error.contains("last"));
        assert!(answer.status == expected || is_last, "{path} {wish}: {} {told}", answer.status);
        told
    };
    // A browser that was let in still needs the password.
    let told = refused("key-add", json!({ "password": "wrong", "new": "a second one" }));
    assert_eq!(told["code"], 12, "{told}");
    assert_eq!(refused("key-add", json!({ "new": "a second one" }))["code"], 2);
    assert_eq!(refused("key-add", json!({ "password": PASSWORD, "new": "" }))["code"], 2);
    let slots = page.told("keys")["slots"].as_array().unwrap().clone();
    let slot = |purpose: &str| slots.iter().find(|slot| slot["purpose"] == purpose).unwrap()["id"].as_str().unwrap();
    let only = slot("password").to_owned();
    page.act("key-remove", &json!({ "password": PASSWORD, "id": slot("recovery") }));
    // The last one stays, with the same message.
    let told = refused("key-remove", json!({ "password": PASSWORD, "id": only }));
    let said = desk.run(&["key", "remove", &only, "--yes"]);
    assert!(said.err.contains(told["error"].as_str().unwrap()), "{told} {}", said.err);
    assert_eq!(said.code, told["code"].as_i64().unwrap() as i32);
    assert_eq!(refused("key-remove", json!({ "password": PASSWORD, "id": "12" }))["code"], 2);

    let added = page.act("key-add", &json!({ "password": PASSWORD, "new": "a second one", "label": "paper" }));
    let slots = page.told("keys");
    assert_eq!(slots, desk.json(&["key", "list"])[0]);
    assert!(
        slots["slots"].as_array().unwrap().iter().any(|slot| slot["id"] == added["slot"] && slot["label"] == "paper")
    );
    let changed = page.act("key-passwd", &json!({ "password": "a second one", "new": "a third one" }));
    assert_eq!((opens("a second one"), opens("a third one"), opens(PASSWORD)), (Some(12), Some(0), Some(0)));
    let removed = page.act("key-remove", &json!({ "password": PASSWORD, "id": changed["slot"] }));
    assert_eq!(removed, json!({ "removed": changed["slot"], "waiting": [] }));
    assert_eq!((opens("a third one"), opens(PASSWORD)), (Some(12), Some(0)));
    assert_eq!(page.told("keys")["slots"].as_array().unwrap().len(), 1);
    let (code, said) = page.end();
    assert!(code == 0 && !said.contains("one"), "{said}");
}

/// The password that the page was called with is no longer one.
#[test]
fn a_page_that_changes_its_own_password_goes_on_saving() {
    let ways: [&[&str]; 3] = [&[], &["--password-file", "../password"], &["--password-command", "cat ../password"]];
    for way in ways {
        let desk = Desk::new();
        desk.write("a.txt", "x");
        desk.take("2026-11-20T12:00");
        fs::write(desk.path("password"), PASSWORD).unwrap();
        let page = Page::entered(&desk, &[&["ui", "--no-open"], way].concat());
        page.act("key-passwd", &json!({ "password": PASSWORD, "new": "another one" }));
        desk.write("a.txt", "more");
        let job = page.done("save", &json!({ "source": "source" }));
        assert_eq!(job["state"], "done", "{way:?}: {job}");
        page.end();
    }
}

#[test]
fn whoever_only_looks_can_change_nothing() {
    let desk = Desk::new();
    desk.write("a.txt", "x");
    let id = desk.take("2026-11-20T12:00");
    let page = Page::entered(&desk, &["ui", "--no-open", "--read-only"]);
    assert_eq!(page.told("status")["read_only"], json!(true));
    assert_eq!(names(&page.told(&format!("ls?snapshot={id}&path=source"))), ["source/a.txt"]);
    for path in [
        "restore",
        "folders",
        "save",
        "check",
        "drill",
        "stop",
        "stop-run",
        "key-add",
        "key-passwd",
        "key-remove",
        "configure",
    ] {
        let answer = page.post_with(path, &json!({ "snapshot": id, "to": "in-place", "text": "" }), &[]);
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[test]
fn the_page_is_put_into_the_menu_and_taken_out_again() {
    let desk = Desk::new();
    let (data, config) = (desk.path("data"), desk.path("config home"));
    let run = |args: &[&str]| {
        let mut command = desk.command(args);
        command.env("XDG_DATA_HOME", &data).env("XDG_CONFIG_HOME", &config);
        crate::support::binary::said(&command.output().unwrap())
    };
    let menu = data.join("applications/vault.desktop");
    let login = config.join("autostart/vault.desktop");
    let done = run(&["ui", "--install", "--read-only", "--json"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let said: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(said["installed"].as_array().unwrap().len(), 2, "an entry and its picture");
    assert!(menu.exists() && !login.exists());
    let text = fs::read_to_string(&menu).unwrap();
    let exec = text.lines().find_map(|line| line.strip_prefix("Exec=")).unwrap();
    assert!(exec.contains("\"ui\" \"--read-only\" \"--repo\"") && exec.contains("\"--state\""), "{exec}");
    if let Ok(checked) = std::process::Command::new("desktop-file-validate").arg(&menu).output() {
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
    // It starts the page: the words are those that a shell would read, since none of them is odd.
    let mut started = desk.command(&[]);
    started.env("XDG_CONFIG_HOME", &config).arg("ui").arg("--read-only").arg("--no-open");
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(format!("exec {exec} --no-open")).stdout(Stdio::piped());
    for (name, value) in started.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(desk.folder.path());
    let mut child = shell.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("The page of"), "{line}");
    assert_eq!(run(&["ui", "--install", "--at-login"]).code, 0, "again, and more");
    assert!(menu.exists() && login.exists());
    // Only vault's own files are removed, or replaced.
    fs::write(&login, "[Desktop Entry]\nName=mine\n").unwrap();
    let refused = run(&["ui", "--install", "--at-login"]);
    assert!(refused.code == 1 && refused.err.contains("vault has not written it"), "{}", refused.err);
    let done = run(&["ui", "--uninstall"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(!menu.exists() && login.exists());
    assert!(run(&["ui", "--uninstall"]).out.contains("Nothing was installed."));
}
