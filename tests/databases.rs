//! Databases in use are backed up by the commands of the starter configuration, restored, and rebuilt from the restored
//! files by the commands of the documents. If a database is not installed, the test says so.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::run::Home;

/// The section of a source that the starter offers, enabled.
fn offered(starter: &str, source: &str) -> String {
    let head = format!("# [sources.{source}]");
    let section = starter.lines().skip_while(|line| *line != head);
    let lines: Vec<&str> = section.map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    let end = lines[1..].iter().position(|line| line.starts_with('[') || line.is_empty()).unwrap() + 1;
    lines[..end].join("\n") + "\n"
}

/// A home with the starter's source of this name, and a new vault.
fn home(source: &str) -> Home {
    let home = Home::new();
    home.expect(0, &["config", "init"]);
    let section = offered(&home.read(".config/vault/vault.toml"), source);
    // The documents say the same.
    let documents = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    assert!(documents.contains(&section), "docs/configuration.md has not:\n{section}");
    let text = format!("[vaults.disk]\npath = \"~/disk\"\n{section}");
    fs::write(home.path(".config/vault/vault.toml"), text).unwrap();
    home.expect(0, &["init"]);
    home
}

/// The documented command that rebuilds a database of this kind from its dump.
fn again(kind: &str, dir: &Path) -> String {
    let documents = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let (_, table) = documents.split_once("To make the database again,").unwrap();
    let row = table.lines().find(|line| line.starts_with(&format!("| {kind}"))).unwrap();
    row.split('`').nth(1).unwrap().replace("DIR", dir.to_str().unwrap())
}

/// The program in this home, where it can reach the database.
fn vault(home: &Home, around: &[(&str, String)], args: &[&str]) -> (i32, String) {
    let output = home.command(args).envs(around.iter().map(|(name, value)| (*name, value))).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout) + &text(&output.stderr))
}

/// Runs a shell command, which must succeed.
#[track_caller]
fn sh(around: &[(&str, String)], command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).envs(around.iter().cloned()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.exists())
}

/// No dump is left, and nobody else could have entered its folder.
#[track_caller]
fn assert_no_dump(home: &Home, source: &str) {
    let folder = home.path("dumps").join(source);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "a dump is left");
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o077, 0);
}

/// Nothing is backed up if the database cannot be dumped, and this is reported.
#[track_caller]
fn assert_failure_is_told(home: &Home, source: &str, around: &[(&str, String)]) {
    let before = home.json(0, &["list"])["snapshots"].as_array().unwrap().len();
    let (code, said) = vault(home, around, &["run", "--now"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("before"), "{said}");
    assert_eq!(home.json(0, &["list"])["snapshots"].as_array().unwrap().len(), before, "{said}");
    assert_no_dump(home, source);
}

#[test]
fn sqlite_is_backed_up_while_it_is_written() {
    if found("sqlite3").is_none() {
        eprintln!("skipped: sqlite3 is not installed");
        return;
    }
    let home = home("sqlite");
    fs::create_dir(home.path("app")).unwrap();
    let database = home.text("app/shop.db");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)";
    let sql = format!(
        "CREATE TABLE goods (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO goods {rows} SELECT i, hex(i * i) FROM n;"
    );
    let around = [("DB", database.clone()), ("SQL", sql)];
    sh(&around, "sqlite3 \"$DB\" 'PRAGMA journal_mode = WAL;' && sqlite3 \"$DB\" \"$SQL\"");
    // Another program has it open, with a committed change that is only in the log, and an uncommitted one.
    let mut writer =
        Command::new("sqlite3").arg(&database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut typed = writer.stdin.take().unwrap();
    typed
        .write_all(
            b"INSERT INTO goods VALUES (9001, 'in force');\nBEGIN; INSERT INTO goods VALUES (9002, 'not yet');\n",
        )
        .unwrap();
    let begun = Instant::now();
    let count = || sh(&around, "sqlite3 -readonly \"$DB\" 'SELECT count(*) FROM goods'");
    while count().trim() != "5001" {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(20));
    }
    let expected = sh(&around, "sqlite3 -readonly \"$DB\" 'SELECT * FROM goods ORDER BY id'");
    let (code, said) = vault(&home, &[], &["run"]);
    assert_eq!(code, 0, "{said}");
    assert_no_dump(&home, "sqlite");
    typed.write_all(b"ROLLBACK;\n").unwrap();
    drop(typed);
    assert!(writer.wait().unwrap().success());

    home.expect(0, &["restore", "latest", "--source", "sqlite", "--to", &home.text("back")]);
    let restored = [("DB", home.text("back/sqlite/shop.db"))];
    assert_eq!(sh(&restored, "sqlite3 \"$DB\" 'SELECT * FROM goods ORDER BY id'"), expected);
    assert_eq!(sh(&restored, "sqlite3 \"$DB\" 'PRAGMA integrity_check'").trim(), "ok");

    fs::write(&database, "this is no database".repeat(1000)).unwrap();
    assert_failure_is_told(&home, "sqlite", &[]);
    fs::remove_file(&database).unwrap();
    assert_failure_is_told(&home, "sqlite", &[]);
}

/// A server in a folder of its own, as a user without rights, reachable only by a socket in that folder.
struct Server {
    folder: TempDir,
    child: Child,
    /// The signal that shuts it down cleanly.
    signal: Signal,
    /// The environment for the programs of the database.
    around: Vec<(&'static str, String)>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), self.signal);
        let _ = self.child.wait();
    }
}

/// A user with no other rights.
const NOBODY: u32 = 65534;

/// Servers of databases do not run as root.
fn without_rights(program: &Path) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// A folder that such a user owns, with a path that is short enough for a socket.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if geteuid().is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    folder
}

impl Server {
    /// Waits until it answers, or says why it does not.
    fn ready(mut self, question: &str) -> Self {
        let begun = Instant::now();
        loop {
            let asked = Command::new("sh").args(["-c", question]).envs(self.around.iter().cloned()).output().unwrap();
            if asked.status.success() {
                return self;
            }
            let ended = self.child.try_wait().unwrap();
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(120), "{asked:?}\n{}", log());
            sleep(Duration::from_millis(100));
        }
    }
}

/// A server of PostgreSQL; `None` if it is not installed.
fn postgresql() -> Option<Server> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.extend(found("initdb").and_then(|path| Some(fs::canonicalize(path).ok()?.parent()?.to_owned())));
    let programs =
        folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())?;
    let folder = folder();
    let data = folder.path().join("data");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let made = without_rights(&programs.join("initdb"))
        .args(["--no-sync", "--auth=trust", "--username=shopkeeper", "--encoding=UTF8", "--pgdata"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let child = without_rights(&programs.join("postgres"))
        .arg("-D")
        .arg(&data)
        .args(["-F", "-c", "listen_addresses=", "-c"])
        .arg(format!("unix_socket_directories={}", folder.path().display()))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let around = vec![
        ("PATH", path),
        ("PGHOST", folder.path().to_str().unwrap().to_owned()),
        ("PGUSER", "shopkeeper".to_owned()),
        ("PGDATABASE", "postgres".to_owned()),
    ];
    Some(Server { folder, child, signal: Signal::INT, around }.ready("psql --command 'SELECT 1'"))
}

#[test]
fn postgresql_is_backed_up_while_it_is_written() {
    let Some(server) = postgresql() else {
        eprintln!("skipped: the server of PostgreSQL is not installed");
        return;
    };
    let home = home("postgresql");
    let around = &server.around;
    sh(
        around,
        "createdb shop
        psql --set ON_ERROR_STOP=1 shop <<'END'
        CREATE TABLE goods (id integer PRIMARY KEY, name text NOT NULL, data bytea);
        INSERT INTO goods SELECT i, md5(i::text), decode(md5(i::text), 'hex') FROM generate_series(1, 5000) AS i;
        INSERT INTO goods VALUES (9001, E'quotes '' \" \\\\ and\\na line', NULL);
        CREATE VIEW few AS SELECT * FROM goods WHERE id < 3;
END",
    );
    let all = "psql --no-align --command 'SELECT * FROM goods ORDER BY id' shop; psql --command 'TABLE few' shop";
    let expected = sh(around, all);
    // Somebody is in the middle of a change.
    let mut writer = Command::new("psql")
        .arg("shop")
        .envs(around.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut typed = writer.stdin.take().unwrap();
    typed.write_all(b"BEGIN; INSERT INTO goods VALUES (9002, 'not yet', NULL);\n").unwrap();
    let begun = Instant::now();
    let open =
        "psql --tuples-only --command \"SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'\"";
    while sh(around, open).trim() != "1" {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(20));
    }
    let (code, said) = vault(&home, around, &["run"]);
    assert_eq!(code, 0, "{said}");
    assert_no_dump(&home, "postgresql");
    drop(typed);
    writer.wait().unwrap();

    // The database is lost, and rebuilt.
    sh(around, "dropdb shop");
    assert_failure_is_told(&home, "postgresql", around);
    let back = home.path("back");
    home.expect(0, &["restore", "latest", "--source", "postgresql", "--to", back.to_str().unwrap()]);
    sh(around, &again("PostgreSQL", &back));
    assert_eq!(sh(around, all), expected);
    assert!(expected.contains("quotes ' \" \\ and"), "{expected}");
}

/// A server of MariaDB or MySQL; `None` if it is not installed.
fn mysql() -> Option<Server> {
    let server = ["mariadbd", "mysqld"].into_iter().find_map(|name| {
        let places = [found(name), Some(Path::new("/usr/sbin").join(name))];
        places.into_iter().flatten().find(|path| path.exists())
    })?;
    found("mysqldump")?;
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let data = format!("--datadir={}", at("data"));
    let installs = found("mariadb-install-db").or_else(|| found("mysql_install_db"));
    let made = match installs {
        Some(program) => without_rights(&program)
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data])
            .output(),
        None => without_rights(&server).args(["--no-defaults", "--initialize-insecure", &data]).output(),
    };
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let socket = at("socket");
    let child = without_rights(&server)
        .args(["--no-defaults", "--skip-networking", &data])
        .args([format!("--socket={socket}"), format!("--pid-file={}", at("pid"))])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    // The usual way to give these programs the name and the password.
    fs::write(folder.path().join(".my.cnf"), format!("[client]\nuser = root\nsocket = {socket}\n")).unwrap();
    let around = vec![("HOME", at(""))];
    Some(Server { folder, child, signal: Signal::TERM, around }.ready("mysqladmin ping"))
}

#[test]
fn mysql_is_backed_up_while_it_is_written() {
    let Some(server) = mysql() else {
        eprintln!("skipped: a server of MySQL or MariaDB is not installed");
        return;
    };
    let home = home("mysql");
    fs::copy(server.folder.path().join(".my.cnf"), home.path(".my.cnf")).unwrap();
    let around = &server.around;
    sh(
        around,
        "mysqladmin create shop
        mysql shop <<'END'
        CREATE TABLE goods (id integer PRIMARY KEY, name varchar(200) NOT NULL, data varbinary(200)) ENGINE = InnoDB;
        INSERT INTO goods VALUES (1, 'quotes '' \" \\\\ and\\na line', x'00ff'), (2, 'two', NULL);
        CREATE PROCEDURE few() SELECT name FROM goods WHERE id < 2;
END",
    );
    let all = "mysql --execute='SELECT id, name, hex(data) FROM goods ORDER BY id; CALL few()' shop";
    let expected = sh(around, all);
    let mut writer = Command::new("mysql")
        .arg("shop")
        .envs(around.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut typed = writer.stdin.take().unwrap();
    typed.write_all(b"START TRANSACTION; INSERT INTO goods VALUES (3, 'not yet', NULL);\n").unwrap();
    let begun = Instant::now();
    let open = "mysql --skip-column-names --execute='SELECT count(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0'";
    while sh(around, open).trim() != "1" {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(20));
    }
    let (code, said) = vault(&home, &[], &["run"]);
    assert_eq!(code, 0, "{said}");
    assert_no_dump(&home, "mysql");
    drop(typed);
    writer.wait().unwrap();

    sh(around, "mysqladmin --force drop shop");
    assert_failure_is_told(&home, "mysql", &[]);
    let back = home.path("back");
    home.expect(0, &["restore", "latest", "--source", "mysql", "--to", back.to_str().unwrap()]);
    sh(around, &again("MySQL", &back));
    assert_eq!(sh(around, all), expected);
    assert!(expected.contains("two"), "{expected}");
}
