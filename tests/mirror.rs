//! A second place with a vault's objects: what it holds, who may write to it, and what becomes of it when the vault is lost.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::binary::{Desk, said};
use crate::support::s3::{FakeS3, KEY};
use crate::support::source::bytes;

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// A vault with a snapshot, and a place for its mirror.
struct Mirrored {
    desk: Desk,
    store: PathBuf,
    mirror: PathBuf,
    to: String,
}

impl Mirrored {
    fn new() -> Self {
        let desk = Desk::new();
        desk.write("one", bytes(1, 200_000));
        desk.take("2026-01-01T12:00:00Z");
        let (store, mirror) = (desk.path("store"), desk.path("mirror"));
        let to = mirror.to_str().unwrap().to_owned();
        Self { desk, store, mirror, to }
    }

    /// Mirrors without a password, and returns what was done.
    fn mirror(&self, code: i32) -> serde_json::Value {
        let mut command = self.desk.command(&["mirror", "--to", &self.to, "--json"]);
        let said = said(&command.env_remove("VAULT_PASSWORD").output().unwrap());
        assert_eq!(said.code, code, "{}{}", said.out, said.err);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// What the newest snapshot of the mirror has.
    fn restored(&self) -> Vec<u8> {
        let to = self.desk.path("restored");
        let _ = fs::remove_dir_all(&to);
        self.desk.ok(&["restore", "latest", "--repo", &self.to, "--to", to.to_str().unwrap()]);
        fs::read(to.join("source/one")).unwrap()
    }

    fn check(&self) {
        let said = self.desk.ok(&["check", "--read-data", "--repo", &self.to]);
        assert!(said.contains("No damage was found."), "{said}");
    }

    fn packs(folder: &Path) -> Vec<PathBuf> {
        files(&folder.join("packs"))
    }
}

/// Puts other bytes in the place of an object.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_mirror_is_read_like_the_vault_and_written_by_nobody_else() {
    let all = Mirrored::new();
    let count = ["keys", "packs", "meta", "log", "index"].iter().map(|kind| all.store.join(kind));
    let count: usize = count.filter(|folder| folder.exists()).map(|folder| files(&folder).len()).sum();
    let first = all.mirror(0);
    assert_eq!((&first["copied"], &first["there"]), (&count.into(), &0.into()), "{first}");
    let again = all.mirror(0);
    assert_eq!((&again["copied"], &again["there"]), (&0.into(), &count.into()), "{again}");
    assert_eq!(all.restored(), bytes(1, 200_000));
    // What was seen in the vault is not missed in the mirror.
    all.desk.write("one", bytes(2, 200_000));
    all.desk.take("2026-01-02T12:00:00Z");
    all.check();
    assert_eq!(all.restored(), bytes(1, 200_000));
    let before = files(&all.mirror);
    for args in [
        &["snapshot", ".", "--repo", &all.to][..],
        &["prune", "--keep", "1", "--yes", "--repo", &all.to],
        &["key", "add", "--recovery-key", "--repo", &all.to],
        &["pin", "latest", "--repo", &all.to],
    ] {
        let said = all.desk.run(args);
        assert_eq!(said.code, 1, "{args:?}: {}{}", said.out, said.err);
        assert!(said.err.contains("only read") && said.err.contains("vault promote"), "{args:?}: {}", said.err);
    }
    assert_eq!(files(&all.mirror), before);
    let second = all.mirror(0);
    assert!(second["copied"].as_u64().unwrap() >= 3 && second["there"] == count, "{second}");
    assert_eq!(all.restored(), bytes(2, 200_000));
    assert_eq!(all.desk.run(&["mirror", "--to", all.store.to_str().unwrap()]).code, 2, "no mirror of itself");
}

#[test]
fn what_is_damaged_is_not_copied_and_what_was_cut_short_is_copied_again() {
    let all = Mirrored::new();
    all.mirror(0);
    let pack = Mirrored::packs(&all.mirror).remove(0);
    let whole = fs::read(&pack).unwrap();
    replace(&pack, &whole[..whole.len() / 2]);
    let mended = all.mirror(0);
    assert_eq!((&mended["mended"], &mended["copied"]), (&1.into(), &1.into()), "{mended}");
    assert_eq!(fs::read(&pack).unwrap(), whole);
    // A check says what it finds, and writes it nowhere.
    let mut other = whole.clone();
    other[1000] ^= 1;
    replace(&pack, &other);
    let before = files(&all.mirror);
    assert_eq!(all.desk.run(&["check", "--read-data", "--repo", &all.to]).code, 4);
    assert_eq!(files(&all.mirror), before);
    replace(&pack, &whole);
    all.check();
    all.desk.write("two", bytes(3, 90_000));
    all.desk.take("2026-01-02T12:00:00Z");
    let is_new = |path: &PathBuf| !all.mirror.join(path.strip_prefix(&all.store).unwrap()).exists();
    let new = Mirrored::packs(&all.store).into_iter().find(is_new).unwrap();
    let mut content = fs::read(&new).unwrap();
    content[1000] ^= 1;
    replace(&new, &content);
    let told = all.mirror(4);
    let damaged = told["damaged"].as_array().unwrap();
    let name = new.file_name().unwrap().to_str().unwrap();
    assert!(damaged.len() == 1 && damaged[0].as_str().unwrap().ends_with(name), "{told}");
    assert!(is_new(&new));
}

#[test]
fn only_what_was_given_up_goes_from_a_mirror() {
    let all = Mirrored::new();
    for day in 2..5 {
        all.desk.write("one", bytes(day, 200_000));
        all.desk.take(&format!("2026-01-0{day}T12:00:00Z"));
    }
    all.mirror(0);
    let packs = Mirrored::packs(&all.mirror).len();
    all.desk.ok(&["prune", "--keep", "1", "--yes", "--max-unused", "0%"]);
    let told = all.mirror(0);
    assert!(told["surplus"].as_u64().unwrap() >= 3 && told["deleted"] == 0, "{told}");
    assert!(Mirrored::packs(&all.mirror).len() >= packs);
    let stranger = all.mirror.join("packs/aa").join("a".repeat(32));
    fs::create_dir_all(stranger.parent().unwrap()).unwrap();
    fs::write(&stranger, b"no record speaks of it").unwrap();
    let told = all.desk.json(&["mirror", "--to", &all.to, "--delete"]).remove(0);
    assert!(told["deleted"].as_u64().unwrap() >= 3, "{told}");
    assert!(stranger.exists());
    fs::remove_file(&stranger).unwrap();
    assert_eq!(Mirrored::packs(&all.mirror).len(), Mirrored::packs(&all.store).len());
    all.check();
    assert_eq!(all.restored(), bytes(4, 200_000));
}

#[test]
fn a_mirror_that_is_promoted_is_a_vault() {
    let all = Mirrored::new();
    all.mirror(0);
    let said = all.desk.run(&["promote", "--repo", &all.to]);
    assert!(said.code == 1 && said.err.contains("--yes"), "{}", said.err);
    fs::rename(&all.store, all.desk.path("lost")).unwrap();
    all.desk.ok(&["promote", "--repo", &all.to, "--yes"]);
    all.desk.write("one", bytes(7, 100_000));
    all.desk.ok(&["snapshot", ".", "--repo", &all.to]);
    assert_eq!(all.restored(), bytes(7, 100_000));
    all.check();
    assert_eq!(all.desk.run(&["promote", "--repo", &all.to, "--yes"]).code, 1, "it is one already");
    // The old one does not write over it, nor over anything else.
    fs::rename(all.desk.path("lost"), &all.store).unwrap();
    let said = all.desk.run(&["mirror", "--to", &all.to]);
    assert!(said.code == 1 && said.err.contains("promoted"), "{}", said.err);
    let other = all.desk.path("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("letter"), b"letter").unwrap();
    assert_ne!(all.desk.run(&["mirror", "--to", other.to_str().unwrap()]).code, 0);
    assert_eq!(files(&other).len(), 1);
}

#[test]
fn a_mirror_may_lie_on_another_machine() {
    let mut all = Mirrored::new();
    let server = FakeS3::start(1000);
    all.to = server.vault("mirror");
    let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let run = |args: &[&str]| {
        let said = said(&all.desk.command(args).envs(variables).output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    };
    run(&["mirror", "--to", &all.to]);
    assert!(run(&["check", "--read-data", "--repo", &all.to]).contains("No damage was found."));
    let to = all.desk.path("restored");
    run(&["restore", "latest", "--repo", &all.to, "--to", to.to_str().unwrap()]);
    assert_eq!(fs::read(to.join("source/one")).unwrap(), bytes(1, 200_000));
    // It can be mirrored, too.
    let third = all.desk.path("third");
    run(&["mirror", "--repo", &all.to, "--to", third.to_str().unwrap()]);
    run(&["check", "--read-data", "--repo", third.to_str().unwrap()]);
}
