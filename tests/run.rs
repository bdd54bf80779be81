//! `vault config` and `vault run`, through the program: due work is done, a failure does not stop other work, and the
//! exit code and the report say what happened.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vault::engine::snapshot::snapshot;
use vault::progress::Silent;
use vault::seal::Secret;
use vault::store::dir::DirStore;
use vault::tree::Time;
use vault::vault::open::open;
use vault::vault::{Identity, OpenOptions};

use crate::support::source::bytes;
use crate::support::terminal::{Terminal, can_drive};
use crate::support::{identity, now, options, scratch};

/// A home folder of its own, with sources and room for vaults.
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// An empty home, with the sources `a` and `b`.
    pub fn new() -> Self {
        let home = Self { folder: scratch() };
        for (name, text) in
            [("a/one.txt", "one"), ("a/deep/two.txt", "two"), ("b/three.txt", "three"), ("b/x.tmp", "x")]
        {
            let path = home.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        home
    }

    /// A path below it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The program in this home, with the password `password` in its environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vault"));
        command.args(args).stdin(Stdio::null()).current_dir(self.folder.path());
        for name in ["VAULT_REPO", "VAULT_CONFIG", "VAULT_PASSWORD_FILE", "VAULT_PASSWORD_COMMAND", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.folder.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("VAULT_PASSWORD", "password")
            .env("PATH", format!("{}:{}", self.text("bin"), std::env::var("PATH").unwrap()));
        command
    }

    /// Runs it. Returns the exit code, standard output and standard error.
    #[track_caller]
    pub fn vault(&self, args: &[&str]) -> (i32, String, String) {
        result(self.command(args).output().unwrap())
    }

    /// Runs it; the exit code must be this.
    #[track_caller]
    pub fn expect(&self, code: i32, args: &[&str]) -> String {
        let (found, out, err) = self.vault(args);
        assert_eq!(found, code, "{args:?}\n{out}\n{err}");
        out + &err
    }

    /// The same with `--json`; returns the printed value.
    #[track_caller]
    pub fn json(&self, code: i32, args: &[&str]) -> Value {
        let (found, out, err) = self.vault(&[args, &["--json"]].concat());
        assert_eq!(found, code, "{args:?}\n{out}\n{err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// The same if each line is a value.
    #[track_caller]
    pub fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        let (code, out, err) = self.vault(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}\n{out}\n{err}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Writes the configuration; `HOME` in it stands for this home.
    pub fn configure(&self, text: &str) {
        fs::create_dir_all(self.path(".config/vault")).unwrap();
        fs::write(self.path(".config/vault/vault.toml"), text.replace("HOME", self.folder.path().to_str().unwrap()))
            .unwrap();
    }

    /// Puts a program into the path, before all others.
    pub fn program(&self, name: &str, script: &str) {
        fs::create_dir_all(self.path("bin")).unwrap();
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The content of a file below it.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn result(output: Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

const TWO: &str = r#"
[vaults.disk]
path = "HOME/disk/vault"
[vaults.usb]
path = "HOME/usb/vault"
[sources.docs]
paths = ["~/a"]
every = "1d"
[sources.other]
paths = ["~/b"]
exclude = ["*.tmp"]
vaults = ["disk"]
"#;

/// The state of each result, as `source>vault=state`.
fn states(report: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let list = report["results"].as_array().unwrap().iter();
    list.map(|one| format!("{}>{}={}", word(&one["source"]), word(&one["vault"]), word(&one["state"]))).collect()
}

#[test]
fn the_configuration_is_written_checked_and_explained() {
    let home = Home::new();
    assert!(home.expect(1, &["config"]).contains("vault config init"));
    assert!(!home.path(".config/vault/vault.toml").exists(), "it writes nothing");
    let said = home.expect(0, &["config", "init"]);
    assert!(said.contains(".config/vault/vault.toml"), "{said}");
    let starter = home.read(".config/vault/vault.toml");
    assert!(home.expect(0, &["config", "check"]).contains("No mistakes: 0 vaults, 0 sources."));
    assert!(home.expect(1, &["config", "init"]).contains("already"));
    assert_eq!(home.read(".config/vault/vault.toml"), starter);

    home.configure("[vaults.disk]\npaht = \"/mnt\"\n[run]\n\tparallel = \"two\"\n");
    let (code, out, _) = home.vault(&["config", "check"]);
    assert_eq!(code, 2);
    for part in
        [":2:1: 'paht' is not known; did you mean 'path'?", ":4:13: parallel is a number, not a text", "3 mistakes in"]
    {
        assert!(out.contains(part), "{part}\n{out}");
    }
    assert!(out.contains("    paht = \"/mnt\"\n    ^\n"), "{out}");
    let json = home.json(2, &["config", "check"]);
    assert_eq!((json["mistakes"][1]["line"].as_u64(), json["mistakes"][1]["column"].as_u64()), (Some(2), Some(1)));
    // Other commands say so too; those that do not need it continue.
    assert!(home.expect(2, &["run"]).contains("vault config check"));
    home.expect(0, &["init", "--repo", &home.text("disk/vault")]);

    home.configure(TWO);
    let out = home.expect(0, &["config"]);
    for part in ["vault disk: ", "vault usb: ", "source docs: ", "→ disk, usb, every 1d"] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    let out = home.expect(0, &["config", "check"]);
    assert!(out.contains("note: there is no folder") && out.contains("No mistakes: 2 vaults, 2 sources."), "{out}");
    // In another place, by option and by variable.
    fs::rename(home.path(".config/vault/vault.toml"), home.path("other.toml")).unwrap();
    home.expect(0, &["--config", "other.toml", "config", "check"]);
    home.expect(10, &["--config", "missing.toml", "list", "--repo", "disk"]);
    let output = home.command(&["config", "--json"]).env("VAULT_CONFIG", home.path("other.toml")).output().unwrap();
    assert!(result(output).1.contains("other.toml"));
}

#[test]
fn a_vault_is_called_by_its_name() {
    let home = Home::new();
    home.configure(&format!("default-vault = \"disk\"\n{TWO}"));
    home.expect(0, &["init", "--repo", "usb"]);
    assert!(home.path("usb/vault/VAULT").exists());
    home.expect(0, &["init"]);
    assert!(home.path("disk/vault/VAULT").exists(), "the default vault is used if none is named");
    home.expect(0, &["snapshot", "--repo", "usb", &home.text("a")]);
    assert_eq!(home.json(0, &["list", "--repo", "usb"])["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(home.json(0, &["list"])["snapshots"].as_array().unwrap().len(), 0);
    // A path is a path.
    home.expect(10, &["list", "--repo", "./usb"]);
    home.configure(TWO);
    let said = home.expect(2, &["list"]);
    assert!(said.contains("which vault?") && said.contains("disk, usb"), "{said}");
}

#[test]
fn commands_know_what_is_configured() {
    let home = Home::new();
    home.configure(&format!(
        "{}\n[vaults.away]\npath = \"HOME/no/disk/vault\"\nremovable = true\n",
        TWO.replace("every = \"1d\"", "every = \"1d\"\nkeep = { last = 1 }")
    ));
    let said = home.expect(3, &["init"]);
    assert!(home.path("disk/vault/VAULT").exists() && home.path("usb/vault/VAULT").exists(), "{said}");
    assert!(said.contains("away is not connected now") && !home.path("no").exists(), "{said}");
    assert!(home.read("disk/vault/RESTORE.txt").contains("vault restore latest"));
    // Nothing is known of the sources yet; then all of them are taken, and nothing is due.
    let row = |out: &str, source: &str, vault: &str| {
        let found = out.lines().find(|line| line.starts_with(source) && line.contains(vault)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("{source} {vault}: {out}"))
    };
    let out = home.expect(0, &[]);
    assert!(row(&out, "docs", "usb").contains("never") && row(&out, "docs", "usb").ends_with("now"), "{out}");
    assert!(out.contains("\naway is ") && out.contains("(not connected)"), "{out}");
    home.expect(3, &["run"]);
    let out = home.expect(0, &[]);
    let taken = row(&out, "docs", "disk");
    assert!(["complete", "6 B", "in 1 d"].iter().all(|part| taken.contains(part)), "{out}");
    assert!(row(&out, "docs", "away").contains("away"), "{out}");
    // Just the paths of a source are that source, in a list too; anything else is not.
    let source = |paths: &[&str]| {
        let args = [&["backup", "--repo", "disk"], paths].concat();
        home.json(0, &args)["snapshot"]["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(source(&[&home.text("a")]), "docs");
    assert_eq!(source(&["b", "./a"]), format!("{}, {}", home.text("b"), home.text("a")));
    fs::write(home.path("l.csv"), format!("src;dst\n{};disk\n", home.text("a"))).unwrap();
    assert_eq!(home.json(0, &["run", "--list", "l.csv"])["results"][0]["source"], "docs");
    // The rules of the configuration drop all snapshots that they do not keep, and touch no other source.
    let count = || home.json(0, &["list", "--repo", "disk", "--source", "docs"])["snapshots"].as_array().unwrap().len();
    assert_eq!(count(), 3);
    let plan = home.json(0, &["prune", "--repo", "disk", "--dry-run"]);
    assert_eq!(plan["snapshots"].as_array().unwrap().len(), 3, "{plan}");
    home.expect(0, &["prune", "--repo", "disk", "--yes"]);
    assert_eq!(count(), 1);
    home.configure(TWO);
    assert!(home.expect(2, &["prune", "--repo", "disk"]).contains("a keep in the configuration"));
}

#[test]
fn new_and_changed_files_are_listed_if_details_are_wanted() {
    let home = Home::new();
    let vault = home.text("disk");
    let lines = |args: &[&str]| {
        let (code, _, err) = home.vault(&[args, &["-v", "--repo", &vault]].concat());
        assert_eq!(code, 0, "{err}");
        let mut lines: Vec<String> =
            err.lines().filter(|line| line.as_bytes().get(1) == Some(&b' ')).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&["snapshot", "--init", "a"]), ["+ a/deep/two.txt", "+ a/one.txt"]);
    fs::write(home.path("a/one.txt"), "changed").unwrap();
    fs::write(home.path("a/new.txt"), "new").unwrap();
    assert_eq!(lines(&["snapshot", "a"]), ["+ a/new.txt", "M a/one.txt"]);
    assert_eq!(lines(&["restore", "latest:a/new.txt", "--to", "back"]), ["+  a/new.txt"]);
}

#[test]
fn passwords_come_from_files_commands_and_keyrings() {
    let home = Home::new();
    home.program("secret-tool", "test \"$*\" = 'lookup service vault vault ring' && echo 'ring password'");
    fs::write(home.path("secret"), "file password\n").unwrap();
    home.configure(
        "[vaults.file]\npath = \"HOME/v/file\"\npassword-file = \"~/secret\"\n\
         [vaults.command]\npath = \"HOME/v/command\"\npassword-command = \"echo command password\"\n\
         [vaults.ring]\npath = \"HOME/v/ring\"\nkeyring = true\n\
         [vaults.silent]\npath = \"HOME/v/silent\"\nkeyring = true\n",
    );
    for (name, password) in [("file", "file password"), ("command", "command password"), ("ring", "ring password")] {
        let run = |args: &[&str]| result(home.command(args).env_remove("VAULT_PASSWORD").output().unwrap());
        assert_eq!(run(&["init", "--repo", name]).0, 0, "{name}");
        assert_eq!(run(&["list", "--repo", name]).0, 0, "{name}");
        let by_hand = home.command(&["list", "--repo", name]).env("VAULT_PASSWORD", password).output().unwrap();
        assert!(by_hand.status.success(), "{name}");
        let wrong = home.command(&["list", "--repo", name]).env("VAULT_PASSWORD", "wrong").output().unwrap();
        assert_eq!(wrong.status.code(), Some(12), "an explicit password counts");
    }
    if cfg!(target_os = "linux") {
        let (code, _, err) =
            result(home.command(&["init", "--repo", "silent"]).env_remove("VAULT_PASSWORD").output().unwrap());
        assert_eq!(code, 1);
        assert!(err.contains("secret-tool store --label="), "{err}");
    }
}

#[test]
fn what_is_due_is_done_and_the_rest_is_passed_over() {
    let home = Home::new();
    home.configure(TWO);
    for vault in ["disk", "usb"] {
        home.expect(0, &["init", "--repo", vault]);
    }
    let said = home.expect(0, &["run", "--dry-run"]);
    assert!(said.contains("docs → disk: due now") && said.contains("nothing was done"), "{said}");
    let (code, out, err) = home.vault(&["run"]);
    assert_eq!(code, 0, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("docs → usb: complete, 2 files (2 new, 0 changed), ")), "{out}");
    assert!(lines.last().unwrap().starts_with("3 taken, in "), "{out}");
    // If nothing is due, no vault is opened: no password is needed, and no key is derived.
    let idle = result(home.command(&["run"]).env("VAULT_PASSWORD", "wrong").output().unwrap());
    assert!(idle.0 == 0 && idle.1.starts_with("Nothing is due. Next: "), "{idle:?}");
    // Excluded files are not in it.
    let json = home.json(0, &["list", "--repo", "disk", "--source", "other"]);
    assert_eq!(json["snapshots"][0]["files"], 1);

    let json = home.json(0, &["run", "docs", "--now"]);
    assert_eq!(states(&json), ["docs>disk=complete", "docs>usb=complete"]);
    assert_eq!(json["results"][0]["files_unchanged"], 2);
    // In one vault the digests of equal trees are equal.
    let digest = &json["results"][1]["digest"];
    assert!(digest.as_str().is_some_and(|digest| digest.len() == 32), "{json}");
    assert_eq!(digest, &home.json(0, &["run", "docs", "--now"])["results"][1]["digest"]);
    fs::write(home.path("a/one.txt"), "two").unwrap();
    let newest = home.json(0, &["run", "docs", "--now"])["results"][1]["digest"].clone();
    assert_ne!(digest, &newest);
    // It is the digest that `ls` shows for the top folder.
    let shown = home.json_lines(&["ls", "latest", "--digest", "--repo", "usb", "--source", "docs"]);
    assert_eq!(shown[0]["digest"], newest, "{shown:?}");
    assert!(home.expect(2, &["run", "dcos"]).contains("Did you mean docs?"));
    // Another vault in the same folder does not know it.
    fs::remove_dir_all(home.path("usb/vault")).unwrap();
    home.expect(10, &["init", "--repo", "usb"]);
    home.expect(0, &["init", "--repo", "usb", "--another"]);
    let json = home.json(0, &["run"]);
    assert_eq!(states(&json), ["docs>disk=not-due", "docs>usb=complete", "other>disk=not-due"]);
}

#[test]
fn a_vault_that_is_gone_keeps_nothing_else_from_being_done() {
    let home = Home::new();
    home.configure(TWO);
    home.expect(0, &["init", "--repo", "disk"]);
    let report = home.text("report.json");
    let (code, out, _) = home.vault(&["run", "--report", &report, "--then", "touch done"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("docs → usb: FAILED: there is no folder") && out.contains("2 taken, 1 failed"), "{out}");
    assert!(!home.path("done").exists(), "nothing follows a failure");
    let json: Value = serde_json::from_str(&home.read("report.json")).unwrap();
    assert_eq!((json["verdict"].as_str(), json["exit_code"].as_u64()), (Some("failed"), Some(1)));
    assert_eq!(states(&json), ["docs>disk=complete", "docs>usb=failed", "other>disk=complete"]);
    assert!(json["results"][1]["error"].as_str().unwrap().contains("there is no folder"));
    assert_eq!(json["results"][0]["snapshot"].as_str().unwrap().len(), 32);
    assert_eq!(json["results"][1]["destination"], home.text("usb/vault"));
    home.expect(1, &["run", "--then", "touch done", "--then-always"]);
    assert!(home.path("done").exists());

    // A disk that may be away is no failure, until the source is overdue.
    home.configure(&TWO.replace("usb/vault\"", "usb/vault\"\nremovable = true"));
    assert_eq!(states(&home.json(3, &["run", "docs"])), ["docs>disk=not-due", "docs>usb=away"]);
    home.expect(0, &["init", "--repo", "usb"]);
    assert_eq!(states(&home.json(0, &["run"]))[1], "docs>usb=complete");
    fs::rename(home.path("usb"), home.path("unplugged")).unwrap();
    home.configure(
        &TWO.replace("usb/vault\"", "usb/vault\"\nremovable = true").replace("\"1d\"", "\"1s\"\noverdue = \"1s\""),
    );
    std::thread::sleep(Duration::from_millis(2100));
    let json = home.json(1, &["run", "docs"]);
    assert_eq!(states(&json)[1], "docs>usb=away");
    assert_eq!(json["results"][1]["overdue"], true);
}

#[test]
fn old_snapshots_go_and_a_part_is_checked() {
    let home = Home::new();
    home.configure(
        "[vaults.disk]\npath = \"HOME/disk\"\ncheck-sample = \"100%\"\n\
         [sources.a]\npaths = [\"~/a\"]\nkeep = { last = 2 }\n[sources.b]\npaths = [\"~/b\"]\n",
    );
    home.expect(0, &["init"]);
    let json = home.json(0, &["run"]);
    assert_eq!(json["vaults"][0]["checked"], true);
    assert!(json["vaults"][0]["bytes_read"].as_u64().unwrap() > 0);
    for round in 0..3 {
        fs::write(home.path("a/one.txt"), format!("round {round}")).unwrap();
        let json = home.json(0, &["run", "--now", "--no-prune"]);
        assert_eq!(
            (json["vaults"][0]["checked"].as_bool(), json["vaults"][0]["forgotten"].as_u64()),
            (Some(false), Some(0))
        );
    }
    // A snapshot of this source, taken by hand on a machine of another name, does not concern this machine.
    home.expect(0, &["snapshot", "--source", "a", "--host", "elsewhere", &home.text("a")]);
    let json = home.json(0, &["run", "--now"]);
    assert_eq!(json["vaults"][0]["forgotten"], 3);
    let list = home.json(0, &["list"]);
    let count = |source: &str| list["snapshots"].as_array().unwrap().iter().filter(|s| s["source"] == source).count();
    assert_eq!((count("a"), count("b")), (3, 5));

    // Damage is found, named, and shown by the exit code.
    let packs = home.path("disk/packs");
    for folder in fs::read_dir(packs).unwrap() {
        for pack in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = pack.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes[200] ^= 1;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }
    fs::write(
        home.path(".config/vault/vault.toml"),
        home.read(".config/vault/vault.toml").replace("check-", "check-every = \"1s\"\ncheck-"),
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let (code, out, _) = home.vault(&["run", "--now"]);
    assert_eq!(code, 4, "{out}");
    assert!(out.contains("DAMAGE was found") && out.contains("vault check --repo disk"), "{out}");
    // It is known from then on, whether anything is checked or due.
    home.expect(4, &["list"]);
    home.expect(4, &["run", "--no-check"]);
    assert!(home.vault(&["run", "--no-check"]).2.contains("damaged"));
    // The next snapshots store damaged data again. Then nothing needs the old packs, and a prune deletes them.
    home.expect(0, &["run", "--now", "--no-check"]);
    home.expect(0, &["check", "--read-data"]);
    home.expect(0, &["restore", "latest~1", "--source", "a", "--to", &home.text("back")]);
}

#[test]
fn hooks_run_and_their_failures_follow_the_rules() {
    let home = Home::new();
    let config = |hooks: &str| {
        home.configure(&format!(
            "[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\n{hooks}\n[sources.b]\npaths = [\"~/b\"]\n"
        ));
    };
    config(
        "before = \"echo dump > ~/a/dump; test -z $VAULT_PASSWORD\"\n\
         after = \"echo $VAULT_HOOK $VAULT_SOURCE $VAULT_RESULT $VAULT_FILES >> ~/log; rm ~/a/dump\"\n\
         on-failure = \"echo $VAULT_HOOK $VAULT_RESULT $VAULT_ERROR >> ~/log\"",
    );
    home.expect(0, &["init"]);
    let json = home.json(0, &["run"]);
    assert_eq!(json["results"][0]["files"], 3, "the hook's file is in it");
    assert_eq!(home.read("log"), "after a complete 3\n");
    assert!(!home.path("a/dump").exists());

    // The command before fails: no snapshot of this source, the others are taken.
    fs::remove_file(home.path("log")).unwrap();
    config(
        "before = \"exit 7\"\nafter = \"echo after >> ~/log\"\non-failure = \"echo $VAULT_RESULT: $VAULT_ERROR >> ~/log\"",
    );
    let json = home.json(1, &["run", "--now"]);
    assert_eq!(states(&json), ["a>disk=failed", "b>disk=complete"]);
    assert_eq!(json["hooks"][0]["hook"], "before");
    assert_eq!(home.read("log"), "after\nfailed: the command before it: it failed: exit status: 7\n");
    config(
        "before = \"exit 7\"\nif-before-fails = \"go-on\"\non-failure = \"echo $VAULT_RESULT $VAULT_ERROR > ~/log\"",
    );
    assert_eq!(states(&home.json(1, &["run", "--now"])), ["a>disk=complete", "b>disk=complete"]);
    assert_eq!(home.read("log"), "failed the command before: it failed: exit status: 7\n");
    // The command after fails: the snapshot exists, and the run has failed.
    config("after = \"exit 8\"");
    let (code, out, _) = home.vault(&["run", "--now"]);
    assert_eq!(code, 1);
    assert!(out.contains("a: the command after: it failed: exit status: 8"), "{out}");
    config("before = \"sleep 60\"\nhook-timeout = \"1s\"");
    assert!(home.expect(1, &["run", "--now", "a"]).contains("took longer than 1s"));
}

#[test]
fn a_list_is_checked_whole_before_anything_runs() {
    let home = Home::new();
    fs::create_dir(home.path("disk")).unwrap();
    let top = home.text("");
    let top = top.trim_end_matches('/');
    fs::write(
        home.path("list.csv"),
        format!("{top}/a,{top}/disk/vault\n{top}/gone,{top}/disk/vault\n{top}/b,{top}/no/vault\n"),
    )
    .unwrap();
    let (code, out, err) = home.vault(&["run", "--list", "list.csv"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("line 2: there is no source") && err.contains("line 3: the destination"), "{err}");
    assert!(!home.path("disk/vault").exists(), "nothing ran");

    fs::write(
        home.path("list.csv"),
        format!(
            "source,destination,keep,exclude\n{top}/a,{top}/disk/vault,1\n{top}/b,{top}/disk/vault,,*.tmp;three*\n"
        ),
    )
    .unwrap();
    let json = home.json(0, &["run", "--list", "list.csv", "--report", "r.json"]);
    assert_eq!(json["results"].as_array().unwrap().len(), 2);
    assert_eq!((json["results"][0]["files"].as_u64(), json["results"][1]["files"].as_u64()), (Some(2), Some(0)));
    assert_eq!(json["results"][0]["source"], home.text("a"));
    assert_eq!(home.read("r.json").matches("\"complete\"").count(), 3);
    // A list is always due.
    let json = home.json(0, &["run", "--list", "list.csv"]);
    assert_eq!(json["vaults"][0]["forgotten"], 1);
    // The configuration's names are understood.
    home.configure(TWO);
    home.expect(0, &["init", "--repo", "usb"]);
    fs::write(home.path("list.csv"), format!("{top}/a,usb\n")).unwrap();
    assert!(states(&home.json(0, &["run", "--list", "list.csv"]))[0].ends_with(">usb=complete"));
}

#[test]
fn people_services_and_figures_are_told() {
    let home = Home::new();
    home.program("notify-send", "printf '%s|' \"$@\" >> ~/notices");
    home.configure(&format!("{TWO}[notify]\nprometheus = \"HOME/vault.prom\"\nping = \"http://127.0.0.1:1/x\"\n"));
    home.expect(0, &["init", "--repo", "disk"]);
    let (code, _, err) = home.vault(&["run"]);
    assert_eq!(code, 1);
    assert!(err.contains("warning: http://127.0.0.1:1/x/fail could not be called"), "{err}");
    if cfg!(target_os = "linux") {
        let notices = home.read("notices");
        assert!(notices.contains("not everything is kept|docs → usb: there is no folder"), "{notices}");
        home.expect(1, &["run"]);
        assert_eq!(home.read("notices"), notices, "told once");
    }
    let figures = home.read("vault.prom");
    assert!(figures.contains("vault_last_try_success{source=\"docs\",vault=\"usb\"} 0"), "{figures}");
    assert!(figures.contains("vault_last_try_success{source=\"docs\",vault=\"disk\"} 1"), "{figures}");
    assert!(figures.contains("vault_snapshot_files{source=\"docs\",vault=\"disk\"} 2"), "{figures}");
}

#[test]
fn small_sources_come_first_if_so_configured() {
    let home = Home::new();
    fs::write(home.path("a/large"), vec![b'x'; 100_000]).unwrap();
    let config =
        "[vaults.disk]\npath = \"HOME/disk\"\n[sources.large]\npaths = [\"~/a\"]\n[sources.small]\npaths = [\"~/b\"]\n";
    home.configure(config);
    home.expect(0, &["init"]);
    let order = |said: String| said.find("large →").unwrap() < said.find("small →").unwrap();
    assert!(order(home.expect(0, &["run", "-n"])));
    home.configure(&format!("{config}[run]\norder = \"small-first\"\n"));
    assert!(!order(home.expect(0, &["run", "-n"])), "measured");
    assert!(!order(home.expect(0, &["run"])));
    fs::remove_file(home.path("a/large")).unwrap();
    assert!(!order(home.expect(0, &["run", "-n", "--now"])), "remembered");
}

#[test]
fn one_run_at_a_time_and_ctrl_c_ends_it_in_good_order() {
    let home = Home::new();
    home.configure(
        "[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\nbefore = \"touch ~/begun; sleep 30\"\n\
         after = \"echo $VAULT_HOOK >> ~/log\"\n[sources.b]\npaths = [\"~/b\"]\n",
    );
    home.expect(0, &["init"]);
    let child = home.command(&["run", "--report", "r.json", "--then", "touch done"]).spawn().unwrap();
    let begun = Instant::now();
    while !home.path("begun").exists() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(home.expect(0, &["run"]).contains("Another vault run is going on"));
    home.expect(1, &["run", "b"]);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let json: Value = serde_json::from_str(&home.read("r.json")).unwrap();
    assert_eq!(json["verdict"], "interrupted");
    assert_eq!(states(&json), ["a>disk=interrupted", "b>disk=interrupted"]);
    assert_eq!(home.read("log"), "after\n");
    assert!(!home.path("done").exists());
    assert!(home.json(0, &["list"])["snapshots"].as_array().unwrap().is_empty());
}

/// Waits until something is true.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_run_is_followed_and_stopped_from_elsewhere() {
    let home = Home::new();
    home.configure(
        "[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\n[sources.b]\npaths = [\"~/b\"]\n\
         before = \"touch ~/begun; sleep 60\"\n",
    );
    home.expect(0, &["init"]);
    assert!(home.expect(0, &["run", "--follow"]).contains("No vault run is going on"));
    assert!(home.expect(0, &["run", "--stop"]).contains("No vault run is going on"));
    let piped = |args: &[&str]| {
        home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output()
    };
    let run = home.command(&["run", "--background", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    until("it does not begin", || home.path("begun").exists());
    let now = find(&home.path("state"), "now.json");
    let folder = now.parent().unwrap().to_owned();
    let (stopped, followed, told) = std::thread::scope(|scope| {
        let followed = scope.spawn(|| piped(&["run", "--follow"]));
        let told = scope.spawn(|| {
            let mut child = home.command(&["run", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            // The hook of one source is still running while the other is taken.
            let is_taken = |line: &String| line.contains("\"state\":\"complete\"");
            let first = lines.by_ref().map(Result::unwrap).find(is_taken).unwrap();
            // Another process that knows the run asks it to stop.
            let asked = home.json(0, &["run", "--stop"]);
            let last = lines.last().unwrap().unwrap();
            (first, asked, last, child.wait().unwrap().code())
        });
        let stopped = result(run.wait_with_output().unwrap());
        (stopped, result(followed.join().unwrap().unwrap()), told.join().unwrap())
    });
    assert_eq!(stopped.0, 130, "{stopped:?}");
    let report: Value = serde_json::from_str(&stopped.1).unwrap();
    assert_eq!(states(&report), ["a>disk=complete", "b>disk=interrupted"], "finished sources stay");
    assert_eq!(home.json(0, &["list"])["snapshots"].as_array().unwrap().len(), 1);
    let (first, asked, last, code) = told;
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&first["background"], &first["due"]), (&Value::from(true), &Value::from(2)), "{first}");
    assert_eq!(first["results"][0]["state"], "complete", "{first}");
    assert_eq!(asked["stopping"], first["run"]);
    assert_eq!((serde_json::from_str::<Value>(&last).unwrap(), code), (report, Some(130)));
    assert_eq!(followed.0, 130, "{followed:?}");
    assert!(followed.1.contains("a → disk") && followed.1.contains("b → disk"), "{followed:?}");
    assert!(!now.exists() && !folder.join("stop").exists());

    // Its files are for this user alone, and contain no secret.
    let log = fs::read_dir(folder.join("log")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains("password") && text.contains("\"exit_code\":130"), "{text}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&log), mode(log.parent().unwrap())), (0o600, 0o700));

    // A killed run is no run, and its followers learn that.
    fs::remove_file(home.path("begun")).unwrap();
    let mut run = home.command(&["run", "b"]).stdout(Stdio::null()).spawn().unwrap();
    until("it does not begin", || home.path("begun").exists());
    assert_eq!(mode(&now), 0o600);
    let args = ["run", "--follow", "--json"];
    let mut follow = home.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(lines.last().unwrap().unwrap().contains("\"exit_code\":null"));
    let (code, _, err) = result(follow.wait_with_output().unwrap());
    assert!(code == 1 && err.contains("without a word"), "{code} {err}");
    assert!(now.exists(), "it had no time to clean up");
    assert!(home.expect(0, &["run", "--follow"]).contains("No vault run is going on"));
}

/// A schedule's run lets others go first, and is remembered.
#[test]
fn a_run_in_the_background_is_modest() {
    let home = Home::new();
    home.configure("[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\nbefore = \"nice > ~/nice\"\n");
    home.expect(0, &["init"]);
    let said = home.expect(0, &["run", "--background", "--quiet"]);
    assert_eq!((home.read("nice").as_str(), said.as_str()), ("10\n", ""));
    assert!(fs::read_to_string(find(&home.path("state"), "status.json")).unwrap().contains("\"last_background\": 1"));
}

#[test]
fn what_follows_a_run_is_done() {
    let home = Home::new();
    home.program("systemctl", "echo \"$@\" >> ~/system");
    home.configure("[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\n");
    home.expect(0, &["init"]);
    home.expect(0, &["run", "--then", "echo $VAULT_EXIT_CODE > ~/then"]);
    assert_eq!(home.read("then"), "0\n");
    if cfg!(target_os = "linux") {
        home.expect(0, &["run", "--then", "shutdown"]);
        home.expect(0, &["run", "--then", "suspend"]);
        assert_eq!(home.read("system"), "poweroff\nsuspend\n");
    }
    home.expect(1, &["run", "--then", "exit 3"]);
    assert!(home.expect(1, &["run", "--then", "eject"]).contains("removable = true"));
}

/// A restore is tried when that is due, and the run, its figures, and the doctor report it.
#[test]
fn a_restore_is_tried_where_that_is_due() {
    let home = Home::new();
    let configure = |every: &str| {
        home.configure(&format!(
            "[vaults.disk]\npath = \"HOME/disk\"\ndrill-every = \"{every}\"\n[sources.a]\npaths = [\"~/a\"]\n\
             [notify]\nprometheus = \"~/vault.prom\"\n"
        ));
    };
    configure("30d");
    home.expect(0, &["init"]);
    home.expect(0, &["run", "--no-check"]);
    assert!(!home.read("vault.prom").contains("vault_last_drill_files{"), "it can be switched off");
    home.expect(0, &["run", "--now"]);
    let figures = home.read("vault.prom");
    let labels = format!("{{place=\"{}\"}}", home.text("disk"));
    assert!(figures.contains(&format!("vault_last_drill_files{labels} 2\n")), "{figures}");
    assert!(figures.contains(&format!("vault_last_drill_failed{labels} 0\n")), "{figures}");
    let report = home.json(0, &["run", "--now"]);
    assert_eq!(report["vaults"][0]["drilled"], false, "it is not due yet: {report}");
    assert!(home.vault(&["doctor"]).1.contains("A restore of 2 files was tried"), "the doctor knows of it");
    configure("1s");
    std::thread::sleep(Duration::from_millis(2100));
    assert!(home.vault(&["doctor"]).1.contains("No restore was tried for a long time"));
    let report = home.json(0, &["run", "--now"]);
    let tried = &report["vaults"][0];
    let (drilled, files, failed) = (&tried["drilled"], &tried["drill_files"], &tried["drill_failed"]);
    assert_eq!((drilled, files, failed), (&true.into(), &2.into(), &0.into()), "{report}");
}

#[test]
fn this_machine_opens_a_vault_by_a_key_of_its_own() {
    let home = Home::new();
    home.configure("[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\n");
    home.expect(0, &["init"]);
    let bare = |args: &[&str]| result(home.command(args).env_remove("VAULT_PASSWORD").output().unwrap());
    assert_eq!(bare(&["list"]).0, 1, "without it a password is needed");
    let slot = home.json(0, &["key", "add", "--device", "--label", "laptop"])["slot"].as_str().unwrap().to_owned();
    let (code, out, err) = bare(&["run"]);
    assert_eq!(code, 0, "{out}{err}");
    // It is listed like any other, is kept in a file for this user only, and exists once.
    let list = home.expect(0, &["key", "list"]);
    assert!(list.contains("device") && list.contains("laptop"), "{list}");
    let file = find(&home.path("state"), "device-key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(home.expect(1, &["key", "add", "--device"]).contains("already"));
    // An explicitly given password is not ignored; `passwd` changes that one.
    let wrong = home.command(&["list"]).env("VAULT_PASSWORD", "wrong").output().unwrap();
    assert_eq!(wrong.status.code(), Some(12));
    let change = home.command(&["key", "passwd"]).env("VAULT_NEW_PASSWORD", "another").output().unwrap();
    assert!(change.status.success());
    assert_eq!(bare(&["list"]).0, 0, "the key of the machine stays");
    // After its removal it opens nothing, on this machine and with a copy of the file.
    let copy = fs::read(&file).unwrap();
    let remove = home.command(&["key", "remove", &slot, "--yes"]).env("VAULT_PASSWORD", "another").output().unwrap();
    assert!(remove.status.success());
    assert!(!file.exists());
    fs::write(&file, copy).unwrap();
    let (code, _, err) = bare(&["list"]);
    assert_eq!(code, 1);
    assert!(err.contains("opens the vault no more"), "{err}");
    assert_eq!(result(home.command(&["list"]).env("VAULT_PASSWORD", "another").output().unwrap()).0, 0);
    // Another one takes its place.
    let again = home.command(&["key", "add", "--device"]).env("VAULT_PASSWORD", "another").output().unwrap();
    assert!(again.status.success());
    assert_eq!(bare(&["list"]).0, 0);
}

/// The only file of this name below a folder.
fn find(folder: &Path, name: &str) -> PathBuf {
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.ends_with(name) {
                return path;
            }
        }
    }
    panic!("there is no {name}");
}

/// Two vaults on different file systems are written at once, and nothing is mixed up.
#[test]
fn different_disks_work_at_once() {
    let memory = Path::new("/dev/shm");
    let home = Home::new();
    let other = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if !memory.is_dir() {
        return;
    }
    home.configure(&format!(
        "[vaults.one]\npath = \"HOME/one\"\n[vaults.two]\npath = \"{}/two\"\n[sources.a]\npaths = [\"~/a\"]\n\
         [sources.b]\npaths = [\"{}\"]\nvaults = [\"two\"]\n[run]\nparallel = 4\n",
        other.path().display(),
        home.text("b"),
    ));
    for vault in ["one", "two"] {
        home.expect(0, &["init", "--repo", vault]);
    }
    let json = home.json(0, &["run"]);
    assert_eq!(states(&json), ["a>one=complete", "a>two=complete", "b>two=complete"]);
    for vault in ["one", "two"] {
        home.expect(0, &["check", "--read-data", "--repo", vault]);
    }
}

/// On a terminal each source under way has a line of its own, and messages come above them.
#[test]
fn each_source_under_way_has_a_bar() {
    if !can_drive() || !Path::new("/dev/shm").is_dir() {
        return;
    }
    let home = Home::new();
    let other = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let elsewhere = other.path().display();
    fs::create_dir(other.path().join("far")).unwrap();
    home.configure(&format!(
        "[vaults.one]\npath = \"HOME/one\"\n[vaults.two]\npath = \"{elsewhere}/two\"\n\
         [sources.near]\npaths = [\"~/a\"]\nvaults = [\"one\"]\n\
         [sources.far]\npaths = [\"{elsewhere}/far\"]\nvaults = [\"two\"]\n[run]\nparallel = 2\n",
    ));
    for vault in ["one", "two"] {
        home.expect(0, &["init", "--repo", vault]);
    }
    let show = |words: &str, round: u64| {
        // More data than this limit lets through at once, and different data: so both take some seconds.
        fs::write(home.path("a/large"), bytes(round, 2 << 20)).unwrap();
        fs::write(other.path().join("far/large"), bytes(round + 10, 2 << 20)).unwrap();
        let mut terminal = Terminal::start(&home.command(&[]), words);
        assert_eq!(terminal.end(), 0, "{}", terminal.text());
        terminal.text()
    };
    let screen = show("run --now --limit-upload 700K", 1);
    let bar = |name: &str| screen.matches(&format!("{name}  ")).count();
    assert!(bar("near → one") > 3 && bar("far → two") > 3, "{screen}");
    // Both were on the screen together: the terminal goes up a line to draw the first one again.
    assert!(screen.contains("\x1b[1A"), "{screen:?}");
    for result in ["near → one: ", "far → two: "] {
        assert!(screen.contains(result), "{result} in {screen}");
    }
    // At the end only the results are left on the screen.
    let last = screen.trim_end().lines().last().unwrap();
    assert!(last.contains("2 "), "{last}");
    let quiet = show("run --now --limit-upload 700K --no-progress", 2);
    assert!(!quiet.contains('\x1b') && quiet.contains("near → one"), "{quiet:?}");
    let list = ["run", "--now", "--no-progress"];
    assert!(!home.expect(0, &list).contains('\x1b'), "no terminal");
}

/// A vault with `copy-from` is filled from the other one, if that was just taken; otherwise the disk is read.
#[test]
fn a_second_vault_is_filled_from_the_first() {
    let home = Home::new();
    home.configure(&TWO.replace("[sources.docs]", "copy-from = \"disk\"\n[sources.docs]"));
    home.expect(0, &["init"]);
    let report = home.json(0, &["run"]);
    assert_eq!(states(&report), ["docs>disk=complete", "docs>usb=complete", "other>disk=complete"]);
    let listed = |vault: &str| home.json(0, &["list", "--repo", vault])["snapshots"].clone();
    let (disk, usb) = (listed("disk"), listed("usb"));
    let docs = disk.as_array().unwrap().iter().find(|info| info["source"] == "docs").unwrap();
    assert_eq!(usb[0]["origin"]["snapshot"], docs["id"], "{usb}");
    assert_eq!((&usb[0]["time"], &usb[0]["given"]), (&docs["time"], &docs["given"]));
    home.expect(0, &["restore", "latest", "--repo", "usb", "--to", &home.text("back")]);
    assert_eq!(home.read("back/a/deep/two.txt"), "two");
    // The first one is away: the second one is not.
    fs::rename(home.path("disk"), home.path("away")).unwrap();
    fs::write(home.path("a/one.txt"), "one more").unwrap();
    let report = home.json(1, &["run", "--now"]);
    assert_eq!(states(&report), ["docs>disk=failed", "docs>usb=complete", "other>disk=failed"]);
    assert!(listed("usb")[1]["origin"].is_null());
    fs::rename(home.path("away"), home.path("disk")).unwrap();
    home.json(0, &["run", "--now"]);
    assert!(listed("usb")[2]["origin"].is_object());
    // The snapshot of this run is copied, whichever has the latest date: a machine of the same name, whose clock is
    // ahead, was here.
    let store = std::sync::Arc::new(DirStore::open(&home.path("disk/vault")).unwrap());
    let host = docs["host"].as_str().unwrap().to_owned();
    let who = OpenOptions::new(home.path("ahead"), Identity { host, ..identity("another") });
    let vault = open(store, &Secret::password("password"), who, &Silent::default()).unwrap();
    let ahead = || Time { secs: now().secs + 1_800, nanos: 0 };
    let mut options = options(&home.path("b"), &ahead);
    options.source = "docs".to_owned();
    let other = snapshot(&vault, options, &Silent::default()).unwrap().id.unwrap();
    drop(vault);
    let report = home.json(0, &["run", "--now"]);
    let taken = report["results"][0]["snapshot"].as_str().unwrap();
    assert_eq!(listed("disk").as_array().unwrap().last().unwrap()["id"], other.to_string());
    assert_eq!(listed("usb").as_array().unwrap().last().unwrap()["origin"]["snapshot"], taken, "{report}");
    // No circles.
    home.configure(&TWO.replace("[vaults.usb]", "[vaults.usb]\ncopy-from = \"usb\""));
    let said = home.expect(2, &["config", "check"]);
    assert!(said.contains("copy-from names a vault that stands before this one"), "{said}");
}

/// A snapshot that cannot be copied whole is read from the disk, and nothing else is put for it.
#[test]
fn what_is_hurt_in_the_first_vault_is_read_from_the_disk() {
    let home = Home::new();
    fs::write(home.path("a/large"), bytes(1, 300_000)).unwrap();
    home.configure(
        &format!("{TWO}[sources.unused]\npaths = [\"~/b\"]\n").replace("every = \"1d\"", "vaults = [\"disk\"]"),
    );
    home.expect(0, &["init"]);
    home.json(0, &["run", "docs"]);
    for pack in files_below(&home.path("disk/vault/packs")) {
        let mut content = fs::read(&pack).unwrap();
        let at = content.len() / 2;
        content[at..at + 50].fill(7);
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, content).unwrap();
    }
    home.configure(&TWO.replace("[sources.docs]", "copy-from = \"disk\"\n[sources.docs]"));
    let (_, out, err) = home.vault(&["run", "--now", "--json", "docs"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(states(&report), ["docs>disk=complete", "docs>usb=complete"], "{err}");
    assert!(err.contains("since a part of it is damaged, so docs is read from the disk again"), "{err}");
    let usb = home.json(0, &["list", "--repo", "usb"]);
    assert_eq!(usb["snapshots"].as_array().unwrap().len(), 1, "{usb}");
    assert!(usb["snapshots"][0]["origin"].is_null() && usb["snapshots"][0]["verdict"] == "complete", "{usb}");
    home.expect(0, &["restore", "latest", "--repo", "usb", "--to", &home.text("back")]);
    assert_eq!(fs::read(home.path("back/a/large")).unwrap(), bytes(1, 300_000));
}

/// A failure to write the second vault is not blamed on the first, and the disk is not read for it.
#[test]
fn what_is_wrong_with_the_second_vault_is_told_of_it() {
    let home = Home::new();
    home.configure(&TWO.replace("[sources.docs]", "copy-from = \"disk\"\n[sources.docs]"));
    home.expect(0, &["init"]);
    let packs = home.path("usb/vault/packs");
    let _ = fs::remove_dir_all(&packs);
    fs::write(&packs, "").unwrap();
    let (code, out, err) = home.vault(&["run", "--json", "docs"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(states(&report), ["docs>disk=complete", "docs>usb=failed"], "{code} {err}");
    assert!(!err.contains("from the disk again") && !report.to_string().contains("snapshot in disk"), "{err}{report}");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
