//! The reader in Python against vaults of every sort, made by the real program: two machines, prunes, a repair, late
//! delivery, small chunks, a recovery key, standard input, many files. It must find the files of the disk: contents
//! byte by byte, and metadata as the system reported it before the snapshot.
//!
//! By default the largest vault has 2,000 files; with `VAULT_CAMPAIGN=1` it has 50,000 files with 300 MB in all, and a
//! vault with a strong password is tried.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use vault::tree::FileKind;

use crate::reader::{python, reader};
use crate::support::binary::{Desk, Said, said};
use crate::support::os::facts;
use crate::support::source::{Rng, Size, plant, write};
use crate::support::{PASSWORD, campaign};

/// The properties of a file, as text that can be compared and shown.
type Known = BTreeMap<Vec<u8>, Value>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn hash(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).unwrap()).unwrap();
    hasher.finalize().to_string()
}

/// Every file below `top` by its relative path, with everything that a snapshot keeps of it.
fn on_disk(top: &Path) -> Known {
    fn visit(path: &Path, name: &[u8], found: &mut Known) {
        let meta = fs::symlink_metadata(path).unwrap();
        let fact = facts(path, &meta);
        let mut known = serde_json::json!({
            "kind": u8::from(fact.kind),
            "mode": fact.mode,
            "owner": [fact.owner.0, fact.owner.1],
            "changed": [meta.mtime(), meta.mtime_nsec()],
            "target": hex(&fact.target),
        });
        if let Some((major, minor)) = fact.device {
            known["device"] = [major, minor].into();
        }
        known["attributes"] = fact.xattrs.iter().map(|(name, value)| vec![hex(name), hex(value)]).collect();
        if fact.kind == FileKind::File {
            known["size"] = meta.size().into();
            known["content"] = hash(path).into();
        }
        found.insert(name.to_vec(), known);
        if fact.kind == FileKind::Directory {
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                visit(&entry.path(), &[name, b"/", entry.file_name().as_bytes()].concat(), found);
            }
        }
    }
    let mut found = Known::new();
    visit(top, b"source", &mut found);
    found
}

struct Stranger {
    desk: Desk,
    python: &'static Path,
}

impl Stranger {
    /// A vault of small chunks. `None` if there is no Python.
    fn new() -> Option<Self> {
        Some(Self { python: python()?, desk: Desk::new() })
    }

    fn run(&self, repo: &str, password: &str, args: &[&str]) -> String {
        let store = self.desk.path(repo).display().to_string();
        let output = reader(self.python, password, &[&[store.as_str()], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The files that the reader finds in a snapshot.
    fn in_snapshot(&self, repo: &str, password: &str, id: &str) -> Known {
        let out = self.desk.path("extracted");
        self.run(repo, password, &["extract", id, "", &out.display().to_string()]);
        let mut found = Known::new();
        for line in self.run(repo, password, &["entries", id]).lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            let path = unhex(entry["path"].as_str().unwrap());
            let or = |key: &str, other: Value| entry.get(key).cloned().unwrap_or(other);
            let mut known = serde_json::json!({
                "kind": or("k", 0.into()),
                "mode": entry["p"],
                "owner": [or("u", 0.into()), or("g", 0.into())],
                "changed": entry["m"],
                "target": or("t", "".into()),
                "attributes": or("x", Value::Array(Vec::new())),
            });
            if let Some(device) = entry.get("d") {
                known["device"] = device.clone();
            }
            if known["kind"] == 0 {
                known["size"] = or("s", 0.into());
                known["content"] = hash(&out.join(std::ffi::OsStr::from_bytes(&path))).into();
            }
            found.insert(path, known);
        }
        fs::remove_dir_all(&out).unwrap();
        found
    }

    #[track_caller]
    fn compare(&self, repo: &str, password: &str, id: &str, expected: &Known) {
        let found = self.in_snapshot(repo, password, id);
        for (path, known) in expected {
            assert_eq!(found.get(path), Some(known), "{} in {id}", path.escape_ascii());
        }
        assert_eq!(found.len(), expected.len());
    }

    /// The snapshots that the reader knows, in their order.
    fn listed(&self, repo: &str) -> Vec<String> {
        let listed = self.run(repo, PASSWORD, &["list"]);
        listed.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    /// Takes a snapshot as another machine.
    fn take_elsewhere(&self, time: &str) -> String {
        let mut command = self.desk.command(&["snapshot", ".", "--time", time, "--source", "source", "--json"]);
        let taken = said(&command.env("VAULT_STATE_DIR", self.desk.path("elsewhere")).output().unwrap());
        assert_eq!(taken.code, 0, "{}", taken.err);
        let report: Value = serde_json::from_str(taken.out.lines().next().unwrap()).unwrap();
        report["snapshot"]["id"].as_str().unwrap().to_owned()
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Files of every kind that the system lets this user make.
fn plant_everything(source: &Path) {
    plant(source, 5, Size::Tiny);
    let deep = (0..60).fold(source.to_owned(), |path, depth| path.join(format!("d{depth}")));
    fs::create_dir_all(&deep).unwrap();
    write(&deep.join("file"), 3, 100);
    let sparse = File::create(source.join("thousand holes")).unwrap();
    for hole in 0..1000 {
        crate::support::os::write_all_at(&sparse, b"data", hole * 65_536 + 4096);
    }
    sparse.set_len(1000 * 65_536).unwrap();
    drop(std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap());
    if rustix::process::geteuid().is_root() {
        let mode = Mode::from_raw_mode(0o600);
        for (name, kind) in [("character", FileType::CharacterDevice), ("block", FileType::BlockDevice)] {
            // If containers forbid it, there are none.
            let _ = mknodat(CWD, source.join(name), kind, mode, rustix::fs::makedev(1, 3));
        }
        let far = (4_000_000_000, 4_000_000_001);
        let _ = std::os::unix::fs::lchown(source.join("n".repeat(255)), Some(far.0), Some(far.1));
    }
}

/// Flips a bit in the first segment of a pack.
fn break_pack(desk: &Desk) -> PathBuf {
    let folder = fs::read_dir(desk.path("store/packs")).unwrap().next().unwrap().unwrap().path();
    let path = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 16;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn two_machines_a_prune_and_a_repair() {
    let Some(stranger) = Stranger::new() else { return };
    let desk = &stranger.desk;
    plant_everything(&desk.source());
    let mut kept = Vec::new();
    let mut take = |id: String| kept.push((id, on_disk(&desk.source())));
    take(desk.take("2026-01-01 12:00"));
    desk.write("folder 0/file 1.bin", "changed");
    fs::remove_dir_all(desk.source().join("folder 2")).unwrap();
    take(stranger.take_elsewhere("2026-01-02 12:00"));
    write(&desk.source().join("more"), 8, 60_000);
    take(desk.take("2026-01-03 12:00"));
    fs::remove_file(desk.source().join("more")).unwrap();
    take(stranger.take_elsewhere("2026-01-04 12:00"));
    let all: Vec<String> = kept.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(stranger.listed("store"), all);
    for (id, known) in &kept {
        stranger.compare("store", PASSWORD, id, known);
    }

    // The first and the third are forgotten, and data that only they need is deleted once both machines know.
    desk.ok(&["forget", &kept[2].0, "--yes"]);
    desk.ok(&["forget", &kept[0].0, "--yes"]);
    let prune = |state: &str| {
        let mut command = desk.command(&["prune", "--keep", "99", "--max-unused", "0%"]);
        said(&command.env("VAULT_STATE_DIR", desk.path(state)).output().unwrap())
    };
    for state in ["state", "elsewhere", "state"] {
        let Said { code, err, out } = prune(state);
        assert_eq!(code, 0, "{out}{err}");
    }
    assert_eq!(stranger.listed("store"), [all[1].clone(), all[3].clone()]);
    for at in [1, 3] {
        stranger.compare("store", PASSWORD, &kept[at].0, &kept[at].1);
    }

    // The VAULT file, a copy of a key slot, the record of a snapshot, a segment.
    fs::remove_file(desk.path("store/VAULT")).unwrap();
    let slot = fs::read_dir(desk.path("store/keys")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(slot).unwrap();
    fs::remove_file(desk.path("store/log").join(&all[3])).unwrap();
    let broken = break_pack(desk);
    let repaired = desk.run(&["repair", "--yes", "--of-others"]);
    assert!([0, 4].contains(&repaired.code), "{}{}", repaired.out, repaired.err);
    assert!(!broken.exists() && desk.path("store/VAULT").exists());
    stranger.run("store", PASSWORD, &["verify"]);
    assert_eq!(stranger.listed("store"), [all[1].clone(), all[3].clone()]);
    let last = desk.take("2026-01-05 12:00");
    stranger.compare("store", PASSWORD, &last, &on_disk(&desk.source()));
    // The last snapshot but one has the files that are on the disk now: it is whole again.
    stranger.compare("store", PASSWORD, &kept[3].0, &kept[3].1);
}

#[test]
fn a_synced_vault_of_small_chunks_with_a_recovery_key_and_standard_input() {
    let Some(stranger) = Stranger::new() else { return };
    let desk = &stranger.desk;
    plant(&desk.source(), 9, Size::Tiny);
    // Ids of its chunks are in a list of a list.
    write(&desk.source().join("long"), 4, 400_000);
    let init = ["init", "--repo", "../synced", "--delivery", "synced", "--chunk-avg", "1K", "--recovery-key"];
    let made = desk.json(&init);
    let recovery = made[0]["recovery_key"].as_str().unwrap();
    desk.ok(&["snapshot", ".", "--repo", "../synced", "--source", "source", "--time", "2026-01-01 12:00"]);
    let dump = ["snapshot", "--repo", "../synced", "--stdin", "dump", "--command", "cat long"];
    desk.ok(&[&dump[..], &["--time", "2026-01-02 12:00"]].concat());
    let ids = stranger.listed("synced");
    let known = on_disk(&desk.source());
    for password in [PASSWORD, recovery, &recovery.to_lowercase().replace('-', " ")] {
        stranger.compare("synced", password, &ids[0], &known);
    }
    let out = desk.path("dump").display().to_string();
    stranger.run("synced", recovery, &["extract", &ids[1], "dump", &out]);
    assert_eq!(fs::read(out).unwrap(), fs::read(desk.source().join("long")).unwrap());
    stranger.run("synced", PASSWORD, &["verify"]);
}

#[test]
fn many_files() {
    let Some(stranger) = Stranger::new() else { return };
    let desk = &stranger.desk;
    let (files, noise) = if campaign() > 0 { (50_000, 300 << 20) } else { (2_000, 5 << 20) };
    let mut rng = Rng(1);
    for number in 0..files {
        let folder = desk.source().join(format!("folder {}", number / 500));
        if number % 500 == 0 {
            fs::create_dir(&folder).unwrap();
        }
        write(&folder.join(format!("file {number}")), rng.next(), usize::try_from(rng.below(600)).unwrap());
    }
    write(&desk.source().join("noise"), 2, noise);
    desk.ok(&["init", "--repo", "../large"]);
    desk.ok(&["snapshot", ".", "--repo", "../large", "--source", "source"]);
    let known = on_disk(&desk.source());
    stranger.compare("large", PASSWORD, "latest", &known);
    if campaign() > 0 {
        desk.ok(&["init", "--repo", "../strong", "--kdf", "strong"]);
        fs::remove_file(desk.source().join("noise")).unwrap();
        desk.ok(&["snapshot", ".", "--repo", "../strong", "--source", "source"]);
        stranger.compare("strong", PASSWORD, "latest", &on_disk(&desk.source()));
    }
    eprintln!("{} entries", known.len());
}
