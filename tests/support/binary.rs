//! The real program, with a vault and a home of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use vault::store::dir::DirStore;

use super::{PASSWORD, create_vault, scratch, small_chunks};

/// A folder with a vault whose password is cheap to try, and a source.
pub struct Desk {
    /// Contains all of it.
    pub folder: TempDir,
}

/// Output of a command.
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Desk {
    /// An empty vault, an empty source.
    pub fn new() -> Self {
        let folder = scratch();
        let store = folder.path().join("store");
        std::fs::create_dir(&store).unwrap();
        create_vault(&DirStore::open(&store).unwrap(), small_chunks()).unwrap();
        std::fs::create_dir(folder.path().join("source")).unwrap();
        Self { folder }
    }

    /// The folder that is snapshotted.
    pub fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    /// A path in the desk.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// A command in the source's folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vault"));
        command
            .args(args)
            .env("VAULT_PASSWORD", PASSWORD)
            .env("VAULT_STATE_DIR", self.path("state"))
            .env("VAULT_REPO", self.path("store"))
            .env("HOME", self.folder.path())
            .env("TZ", "UTC")
            .env_remove("VAULT_CONFIG")
            .current_dir(self.source())
            .stdin(Stdio::null());
        command
    }

    /// The same, after `ulimit` with these arguments.
    #[cfg(unix)]
    pub fn limited(&self, limits: &str, args: &[&str]) -> Command {
        self.shell(&format!("ulimit {limits}; exec \"$@\""), args)
    }

    /// The program as a script of the shell starts it, which gets it and its arguments.
    pub fn shell(&self, script: &str, args: &[&str]) -> Command {
        let inner = self.command(args);
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("VAULT_CONFIG");
        command.current_dir(self.source()).stdin(Stdio::null());
        command
    }

    /// Runs a command, whatever the result.
    pub fn run(&self, args: &[&str]) -> Said {
        said(&self.command(args).output().unwrap())
    }

    /// The packs of the vault.
    pub fn packs(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.path("store/packs"), self.path("store/meta")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.insert(entry.path());
                }
            }
        }
        found
    }

    /// Makes the vault one in which things arrive late. Takes a snapshot of the source `other` with the new file `new` on
    /// another machine, whose packs in this folder of the store have not arrived. Returns where each lies, and belongs.
    pub fn await_another(&self, folder: &str) -> Vec<(PathBuf, PathBuf)> {
        self.ok(&["delivery", "synced"]);
        let before = self.packs();
        self.write("new", super::source::bytes(77, 150_000));
        let mut other = self.command(&["snapshot", ".", "--source", "other"]);
        let said = said(&other.env("VAULT_STATE_DIR", self.path("state of another")).output().unwrap());
        assert_eq!(said.code, 0, "{}", said.err);
        let new = self.packs().into_iter().filter(|path| !before.contains(path));
        let new = new.filter(|path| path.starts_with(self.path("store").join(folder))).enumerate();
        let aside = |(number, path): (usize, PathBuf)| {
            let aside = self.path(&format!("not arrived {number}"));
            fs::rename(&path, &aside).unwrap();
            (aside, path)
        };
        let found: Vec<_> = new.map(aside).collect();
        assert!(!found.is_empty(), "{folder}");
        found
    }

    /// Runs a command that must succeed, and returns its standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    /// The same, as JSON with one value per line.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Vec<serde_json::Value> {
        let args = [args, &["--json"]].concat();
        self.ok(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Accepts all findings.
    pub fn accept_all(&self) {
        let known: serde_json::Value = serde_json::from_str(&self.run(&["accept", "--json"]).out).unwrap();
        for finding in known["findings"].as_array().unwrap() {
            self.run(&["accept", finding["id"].as_str().unwrap(), "--yes"]);
        }
    }

    /// Takes a snapshot of the source at a time; returns its id.
    #[track_caller]
    pub fn take(&self, time: &str) -> String {
        let taken = self.json(&["snapshot", ".", "--time", time, "--source", "source"]);
        taken[0]["snapshot"]["id"].as_str().unwrap().to_owned()
    }

    /// Writes a file of the source.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.source().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// The output of a finished command.
pub fn said(output: &Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
