//! The documents are true: every command in README.md and docs/ is run as printed, in a home of its own; the table of
//! commands is compared with the program; links lead somewhere. Only paths outside of the home, dates and ids are
//! replaced by existing ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::scratch;

/// Commands that a test must not run, because of their effects on the machine. Their options are looked up in the help.
const NOT_RUN: &[&str] = &[
    "vault snapshot --read-special /dev/sdb1",
    "vault mount ~/old --background",
    "vault mount latest:Documents ~/old",
    "vault mount --webdav",
    "vault umount ~/old",
    "vault run --report report.json --then shutdown",
    "vault run --then eject",
    "vault doctor s3://bucket/vault",
    "vault repair --from /mnt/second/mirror",
    "vault mirror --to /mnt/disk/vault",
    "vault mirror --to sftp://nas/vault --delete",
    "vault mirror --to sftp://nas/vault --verify",
    "vault promote --repo /mnt/disk/vault --yes",
    "vault schedule install",
    "vault schedule status",
    "vault schedule remove",
];
/// Lines of the README that fit on the first screen of a terminal or browser.
const FIRST_SCREEN: usize = 24;
const README_LINES_MAX: usize = 400;
/// The length of all pictures together.
const PICTURES_MAX: u64 = 300_000;

struct Home {
    folder: TempDir,
}

impl Home {
    /// A home with the files that the examples mention.
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
            "old/Documents",
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
            "old/Documents/letter.txt",
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

    /// Runs a script that must succeed, in an empty folder. Returns its output.
    #[track_caller]
    fn run(&self, script: &str) -> String {
        let cwd = if script.starts_with("find ") { self.path("Documents") } else { self.path("cwd") };
        for folder in ["back", "restored", "restored-first"] {
            fs::remove_dir_all(self.path(folder)).unwrap_or_default();
        }
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
        // A doctor that only has advice says so by its exit code.
        let is_advice = script.contains("vault doctor") && output.status.code() == Some(3);
        assert!(output.status.success() || is_advice, "{script}\n{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, script: &str) -> serde_json::Value {
        serde_json::from_str(&self.run(&format!("{script} --json"))).unwrap()
    }

    /// The example with existing names in place of missing ones.
    fn fill_in(&self, example: &str) -> String {
        let today = self.run("date +%Y-%m-%d");
        let home = self.folder.path().display();
        let mut text =
            example.replace("\\|", "|").replace("2026-11-20", today.trim()).replace("2026-11-01", today.trim());
        for (there, here) in [
            ("/mnt/disk/", "disk/"),
            ("/mnt/copy/", "copy/"),
            ("/mnt/old/", ""),
            (":/home/me", ":{}/Documents"),
            (" /etc ", " {}/etc "),
        ] {
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

    /// Runs an example, or looks up its options if it must not be run.
    fn try_example(&self, example: &str) {
        // The page is served until somebody ends it: `ui.rs` tests that.
        if NOT_RUN.contains(&example) || example.starts_with("vault ui") {
            let command = example.split(' ').nth(1).unwrap();
            let help = self.run(&format!("vault help {command}"));
            for word in example.split(' ').skip(2).filter(|word| word.starts_with("--")) {
                assert!(help.contains(word), "{example}: {word} is unknown");
            }
        } else {
            self.run(&self.fill_in(example));
        }
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents for users, by their paths.
fn pages() -> BTreeMap<String, String> {
    let docs = fs::read_dir(top().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let docs = docs
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "md"))
        .map(|name| format!("docs/{name}"));
    let others = ["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(str::to_owned);
    docs.chain(others).map(|name| (name.clone(), page(&name))).collect()
}

/// The texts between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of the table of commands: the description, and the example.
fn rows(table: &str) -> Vec<(String, String)> {
    let lines = table.lines().skip_while(|line| *line != "| command | example |").skip(2);
    let rows = lines.take_while(|line| line.starts_with('|')).map(|line| line.replace("\\|", "\u{1}"));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(|cell| cell.replace('\u{1}', "|"));
        let (says, example) = (cells.next().unwrap(), cells.next().unwrap());
        (says, quoted(&example).next().unwrap().to_owned())
    })
    .collect()
}

/// The lines of the blocks of a language, without remarks.
fn block_lines(text: &str, wanted: &str) -> Vec<String> {
    let (mut inside, mut lines) = (None, Vec::new());
    for line in text.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(language), None) => inside = Some(language == wanted),
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
    let readme = page("README.md");
    let home = Home::new();
    let blocks = block_lines(&readme, "");
    let demo = fs::metadata(top().join(".ci/demo")).unwrap();
    assert!(demo.permissions().mode() & 0o111 != 0);
    let config = page("docs/configuration.md");
    let config = config.split("```toml\n").nth(1).and_then(|rest| rest.split("\n[notify]").next()).unwrap();
    let by_hand: Vec<&String> = blocks.iter().filter(|line| line.starts_with("vault ")).collect();
    assert!(by_hand.len() >= 12, "{blocks:?}");
    for line in &by_hand {
        if *line == "vault run" {
            // Sections that a user has written into the configuration by now.
            fs::write(home.path(".config/vault/vault.toml"), home.fill_in(config)).unwrap();
        }
        home.try_example(line);
        if *line == "vault restore latest --to ~/back" {
            assert_eq!(fs::read(home.path("back/Documents/letter.txt")).unwrap(), b"Documents/letter.txt");
            assert_eq!(fs::read(home.path("back/Pictures/one.jpg")).unwrap(), b"Pictures/one.jpg");
        }
    }
}

#[test]
fn every_example_of_the_commands_works() {
    let home = Home::new();
    home.run("vault snapshot --init ~/Documents ~/Pictures");
    let config = page("docs/configuration.md");
    let config = config.split("```toml\n").nth(1).and_then(|rest| rest.split("\n[notify]").next()).unwrap();
    let rows = rows(&page("docs/commands.md"));
    assert!(rows.len() > 40, "{rows:?}");
    let mut is_fresh = false;
    for (_, example) in &rows {
        if example == "vault config" {
            fs::write(home.path(".config/vault/vault.toml"), home.fill_in(config)).unwrap();
        }
        if !is_fresh {
            home.run("vault snapshot ~/Documents ~/Pictures");
        }
        home.try_example(example);
        let changes =
            ["vault snapshot", "find ", "vault import", "vault prune", "vault forget", "vault run", "vault client"];
        is_fresh = !changes.iter().any(|start| example.starts_with(start));
    }
    println!("examples of the table of commands that were tried: {}", rows.len());
}

#[test]
fn every_block_of_the_documents_works() {
    let mut count = 0;
    for (name, text) in pages().iter().filter(|(name, _)| name.starts_with("docs/")) {
        let lines: Vec<String> =
            block_lines(text, "sh").into_iter().filter(|line| line.starts_with("vault ")).collect();
        if lines.is_empty() {
            continue;
        }
        let home = Home::new();
        home.run("vault snapshot --init ~/Documents");
        home.run("vault snapshot ~/Documents ~/Pictures");
        if name == "docs/emergency.md" {
            // The computer is gone, and with it its state.
            fs::remove_dir_all(home.path(".local/state")).unwrap();
        }
        for line in lines {
            home.try_example(&line);
            count += 1;
        }
    }
    assert!(count > 15, "{count}");
    println!("lines of docs/ that were run: {count}");
}

/// The commands of the program, including subcommands: `key add`.
fn commands_of_the_program(home: &Home) -> BTreeSet<String> {
    let below = |command: &str| {
        let help = home.run(&format!("vault help {command}"));
        let list = help.split("\nCommands:\n").nth(1).map(str::to_owned).unwrap_or_default();
        let lines = list.lines().take_while(|line| !line.trim().is_empty() && line.starts_with("  "));
        let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        names.filter(|name| *name != "help").map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all = BTreeSet::new();
    for command in below("") {
        let nested = below(&command);
        if nested.is_empty() || command == "config" {
            all.insert(command.clone());
        }
        all.extend(nested.iter().map(|inner| format!("{command} {inner}")));
    }
    all
}

#[test]
fn the_table_has_every_command() {
    let home = Home::new();
    let program = commands_of_the_program(&home);
    assert!(program.len() > 30 && program.contains("key add"), "{program:?}");
    let rows = rows(&page("docs/commands.md"));
    let named: Vec<String> = rows
        .iter()
        .filter(|(says, _)| says.trim().starts_with('`'))
        .map(|(says, _)| quoted(says).next().unwrap().to_owned())
        .collect();
    let table: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(table.len(), named.len(), "a command has two rows: {named:?}");
    assert_eq!(table, program);
    // Each row shows its own command, and a continued row shows the one before it.
    let mut current = String::new();
    for (says, example) in &rows {
        if says.trim().starts_with('`') {
            current = quoted(says).next().unwrap().to_owned();
        }
        assert!(example.contains(&format!("vault {current}")), "{current}: {example}");
    }
}

#[test]
fn commands_that_are_named_exist() {
    let home = Home::new();
    let program = commands_of_the_program(&home);
    let first: BTreeSet<&str> = program.iter().filter_map(|command| command.split(' ').next()).collect();
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut count = 0;
    for (name, text) in pages() {
        let blocks = ["", "sh"].into_iter().flat_map(|language| block_lines(&text, language));
        let outside: String = text.split("```").step_by(2).collect();
        let inline: Vec<String> = quoted(&outside.replace("\\|", "|")).map(|code| code.replace('\n', " ")).collect();
        for code in blocks.chain(inline).filter(|code| code.starts_with("vault ")) {
            let words: Vec<&str> = code.split_whitespace().skip(1).collect();
            let Some(command) = words.iter().find(|word| first.contains(*word) || **word == "help") else {
                panic!("{name}: {code}: there is no such command");
            };
            assert_eq!(words[0], *command, "{name}: {code}");
            let nested = words.get(1).map(|inner| format!("{command} {inner}"));
            let path = nested.filter(|path| program.contains(path)).unwrap_or_else(|| (*command).to_owned());
            let help = helps.entry(path.clone()).or_insert_with(|| home.run(&format!("vault help {path}")));
            for option in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                assert!(help.contains(option), "{name}: {code}: {option} is unknown");
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

/// A heading as links name it.
fn slug(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    for (name, text) in &pages {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there = top().join(name).parent().unwrap().join(file);
            let there = if file.is_empty() { top().join(name) } else { there };
            assert!(there.exists(), "{name}: {target}");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&there).unwrap();
                let found = text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
                assert!(found, "{name}: {target}: there is no such heading");
            }
        }
    }
    let readme = &pages["README.md"];
    for name in pages.keys().filter(|name| *name != "README.md") {
        assert!(readme.contains(&format!("]({name})")), "README.md does not lead to {name}");
    }
}

/// The text beside VAULT names the versions that can read it; this version is one of them.
#[test]
fn this_version_is_one_of_those_that_the_restore_text_names() {
    let text = page("src/cli/restore.txt");
    let named = text.split("version ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let numbers = |version: &str| version.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
    assert!(numbers(named) <= numbers(env!("CARGO_PKG_VERSION")), "{named}");
}

/// Everyone who copies the project gets its pictures, so they are small; and each is shown.
#[test]
fn pictures_are_small_and_shown() {
    let pictures = fs::read_dir(top().join("docs/images")).unwrap().map(|entry| entry.unwrap());
    let pictures: Vec<_> =
        pictures.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect();
    assert!(pictures.len() >= 3 && pictures.iter().map(|(_, len)| len).sum::<u64>() <= PICTURES_MAX, "{pictures:?}");
    let readme = page("README.md");
    for (name, _) in pictures {
        assert!(readme.contains(&format!("](docs/images/{name})")), "{name}");
    }
}

#[test]
fn the_readme_is_short_and_its_two_commands_are_seen_at_once() {
    let readme = page("README.md");
    assert!(readme.lines().count() < README_LINES_MAX);
    let screen: Vec<&str> = readme.lines().take(FIRST_SCREEN).collect();
    let test = "cargo test --locked";
    assert!(screen.contains(&".ci/demo") && screen.contains(&test), "{screen:?}");
    // The gate runs the command in the README.
    let gate = page(".ci/run");
    let last = gate.lines().rfind(|line| !line.trim().is_empty()).unwrap();
    assert_eq!(last, format!("run {test}"));
}
