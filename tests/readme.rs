//! Every command in README.md is run as it stands there, in a home of its own: the blocks, and the examples of the table, in
//! their order. Only paths outside of the home, dates and ids are replaced by ones that are there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::scratch;

/// Commands that a test must not run, because of what they do to the machine. Their options are looked up in the help.
const NOT_RUN: &[&str] = &[
    "vault snapshot --read-special /dev/sdb1",
    "vault run --report report.json --then shutdown",
    "vault schedule install",
    "vault schedule status",
];
struct Home {
    folder: TempDir,
}

impl Home {
    /// A home with what the examples speak of.
    fn new() -> Self {
        let home = Self { folder: scratch() };
        for folder in [
            "bin",
            "cwd",
            "disk",
            "Documents/deep",
            "Pictures/old",
            "etc",
            "Dropbox",
            "copies/2024-05-31",
            "copies/2024-06-30",
            ".local/share/bash-completion/completions",
            ".local/share/man/man1",
            ".config/vault",
        ] {
            fs::create_dir_all(home.path(folder)).unwrap();
        }
        for file in [
            "Documents/letter.odt",
            "Documents/letter.txt",
            "Documents/deep/other.odt",
            "Pictures/one.jpg",
            "Pictures/old/two.jpg",
            "etc/hosts",
            "copies/2024-05-31/a",
            "copies/2024-06-30/b",
        ] {
            fs::write(home.path(file), file).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_vault"), home.path("bin/vault")).unwrap();
        fs::write(home.path("bin/pg_dump"), "#!/bin/sh\necho the tables of $1\n").unwrap();
        fs::set_permissions(home.path("bin/pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
        home
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn shell(&self, script: &str, folder: &Path) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder).stdin(Stdio::null());
        for name in [
            "VAULT_STATE_DIR",
            "VAULT_CONFIG",
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
            "VAULT_PASSWORD_FILE",
            "VAULT_PASSWORD_COMMAND",
        ] {
            command.env_remove(name);
        }
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("TZ", "UTC")
            .env("VAULT_REPO", self.path("disk/vault"))
            .env("VAULT_PASSWORD", "password")
            .env("VAULT_NEW_PASSWORD", "password")
            .output()
            .unwrap()
    }

    /// Runs something that succeeds, in an empty folder. Returns what it printed.
    #[track_caller]
    fn run(&self, script: &str) -> String {
        let cwd = if script.starts_with("find ") { self.path("Documents") } else { self.path("cwd") };
        fs::remove_dir_all(self.path("back")).unwrap_or_default();
        fs::remove_dir_all(self.path("cwd")).unwrap();
        fs::create_dir(self.path("cwd")).unwrap();
        if script.contains("--tar home-") {
            let made = self.shell("tar czf home-2024-05-31.tar.gz -C ~ Documents", &cwd);
            assert!(made.status.success());
        }
        if script.contains("--list backups.csv") {
            let list =
                format!("source,to\n{},{}\n", self.path("Documents").display(), self.path("disk/vault").display());
            fs::write(cwd.join("backups.csv"), list).unwrap();
        }
        let output = self.shell(script, &cwd);
        let said = String::from_utf8_lossy(&output.stderr);
        // A doctor with nothing but advice says so by its exit code.
        let is_advice = script.contains("vault doctor") && output.status.code() == Some(3);
        assert!(output.status.success() || is_advice, "{script}\n{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, script: &str) -> serde_json::Value {
        serde_json::from_str(&self.run(&format!("{script} --json"))).unwrap()
    }

    /// The example with what is here in place of what is not.
    fn fill_in(&self, example: &str) -> String {
        let today = self.run("date +%Y-%m-%d");
        let home = self.folder.path().display();
        let mut text =
            example.replace("\\|", "|").replace("2026-11-20", today.trim()).replace("2026-11-01", today.trim());
        for (there, here) in
            [("/mnt/disk/", "disk/"), ("/mnt/old/", ""), (":/home/me", ":{}/Documents"), (" /etc ", " {}/etc ")]
        {
            let here =
                if here.contains("{}") { here.replace("{}", &home.to_string()) } else { format!("{home}/{here}") };
            text = text.replace(there, &here);
        }
        if text.contains("1f2e3d4c") {
            let (list, of) =
                if text.contains("key remove") { ("vault key list", "slots") } else { ("vault list", "snapshots") };
            let all = self.json(list);
            let id = all[of].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
            text = text.replace("1f2e3d4c", &id);
        }
        if text.contains("5a6b7c8d") {
            self.run("VAULT_STATE_DIR=$HOME/elsewhere vault snapshot ~/etc");
            let clients = self.json("vault client list");
            let other = clients["clients"].as_array().unwrap().iter().find(|client| client["own"] == false).unwrap();
            text = text.replace("5a6b7c8d", other["id"].as_str().unwrap());
        }
        text
    }
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The examples of the table of commands.
fn examples(readme: &str) -> Vec<String> {
    let lines = readme.lines().skip_while(|line| *line != "| command | for example |").skip(2);
    let rows = lines.take_while(|line| line.starts_with('|')).map(|line| line.replace("\\|", "\u{1}"));
    let cells = rows.map(|row| row.split('|').nth(2).unwrap().replace('\u{1}', "|"));
    cells.flat_map(|cell| quoted(&cell).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The lines of the blocks without a language.
fn block_lines(readme: &str) -> Vec<String> {
    let (mut inside, mut lines) = (None, Vec::new());
    for line in readme.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(language), None) => inside = Some(language.is_empty()),
            (Some(_), Some(_)) => inside = None,
            (None, Some(true)) => lines.push(line.split(" #").next().unwrap().trim().to_owned()),
            _ => {}
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[test]
fn every_command_of_the_readme_works() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let home = Home::new();
    let blocks = block_lines(&readme);
    assert!(
        blocks.contains(&".ci/demo".to_owned()) && blocks.contains(&"cargo test --locked".to_owned()),
        "{blocks:?}"
    );
    let demo = fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/demo")).unwrap();
    assert!(demo.permissions().mode() & 0o111 != 0);
    // One after the other in one shell, as a person would.
    let is_run = |line: &&String| line.starts_with("export ") || line.starts_with("vault ");
    let by_hand: Vec<&String> = blocks.iter().filter(is_run).collect();
    assert!(by_hand.len() >= 4, "{blocks:?}");
    let script: Vec<String> = by_hand.iter().map(|line| home.fill_in(line)).collect();
    home.run(&format!("set -e\n{}", script.join("\n")));
    assert_eq!(fs::read(home.path("back/Documents/letter.txt")).unwrap(), b"Documents/letter.txt");

    let config = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("\n[notify]").next()).unwrap();
    fs::write(home.path(".config/vault/vault.toml"), home.fill_in(config)).unwrap();
    let examples = examples(&readme);
    assert!(examples.len() > 40, "{examples:?}");
    let mut is_fresh = false;
    for example in &examples {
        if NOT_RUN.contains(&example.as_str()) {
            let command = example.split(' ').nth(1).unwrap();
            let help = home.run(&format!("vault help {command}"));
            for word in example.split(' ').skip(2).filter(|word| word.starts_with("--")) {
                assert!(help.contains(word), "{example}: {word} is unknown");
            }
            continue;
        }
        if !is_fresh {
            home.run("vault snapshot ~/Documents ~/Pictures");
        }
        home.run(&home.fill_in(example));
        let changes =
            ["vault snapshot", "find ", "vault import", "vault prune", "vault forget", "vault run", "vault client"];
        is_fresh = !changes.iter().any(|start| example.starts_with(start));
    }
    println!("examples of the README that were run: {}", examples.len() - NOT_RUN.len() + by_hand.len());
}
