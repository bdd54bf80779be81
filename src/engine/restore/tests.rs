//! Takes snapshots of real trees into memory and restores them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::chunk::ChunkParams;
use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::query::browse;
use crate::engine::snapshot::{Empty, Input, SnapshotOptions, snapshot};
use crate::progress::Silent;
use crate::seal::{KdfParams, Secret};
use crate::store::testing::mem::MemStore;
use crate::store::{Delivery, Kind, ObjectKey, Store};
use crate::tree::{FileKind, Time};
use crate::vault::{CreateOptions, Identity, OpenOptions, SnapshotInfo};

mod hostile;

/// A vault in memory with small chunks, and scratch folders.
struct Fixture {
    dir: TempDir,
    store: Arc<MemStore>,
    vault: Vault,
}

fn open(store: &Arc<MemStore>, state: &Path) -> Vault {
    let machine = "m".to_owned();
    let identity = Identity { host: "h".to_owned(), user: "u".to_owned(), machine, program: "test".to_owned() };
    let options = OpenOptions::new(state.to_owned(), identity);
    crate::vault::open::open(store.clone(), &Secret::raw(&[7; 32]), options, &Silent::default()).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(MemStore::new());
        let options = CreateOptions {
            secret: Secret::raw(&[7; 32]),
            label: String::new(),
            kdf: KdfParams::Standard,
            params: ChunkParams::new(256, 512, 1024).unwrap(),
            delivery: Delivery::Direct,
            now: 0,
            recovery: None,
        };
        crate::vault::create::create(store.as_ref(), &options).unwrap();
        let vault = open(&store, &dir.path().join("state"));
        fs::create_dir(dir.path().join("source")).unwrap();
        Self { dir, store, vault }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes a snapshot of `source`.
    fn snapshot(&self) -> SnapshotInfo {
        self.snapshot_of(&["source"])
    }

    fn snapshot_of(&self, names: &[&str]) -> SnapshotInfo {
        let input = |name: &&str| Input::Path { name: name.as_bytes().to_vec(), path: self.path(name), only: None };
        let options = SnapshotOptions {
            source: "test".to_owned(),
            inputs: names.iter().map(input).collect(),
            time: Time { secs: 1, nanos: 0 },
            given: false,
            clock: &|| Time { secs: 2, nanos: 0 },
            tags: Vec::new(),
            description: String::new(),
            exclude: ExcludeOptions::default(),
            skip_if_unchanged: false,
            empty: Empty::IfItWasFull,
            dry_run: false,
            level: 1,
            verify: false,
            others: crate::write::trust::VerifyOthers::Sample,
            read_all: true,
            read_special: false,
            threads: 2,
        };
        let report = snapshot(&self.vault, options, &Silent::default()).unwrap();
        assert_eq!(report.snapshot.skipped, 0, "{:?}", report.skipped);
        self.vault.snapshot(&report.id.unwrap()).unwrap()
    }

    fn options(&self, info: &SnapshotInfo) -> RestoreOptions {
        RestoreOptions { threads: 2, ..RestoreOptions::new(info.id, Target::Folder(self.path("target"))) }
    }

    fn restore(&self, options: &RestoreOptions) -> RestoreReport {
        let report = restore(&self.vault, options, &Silent::default()).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        report
    }

    /// Writes a file below `source`.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path("source").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[track_caller]
    fn check_equal(&self, source: &str, target: &str) {
        assert_eq!(describe(&self.path(source)), describe(&self.path(target)));
    }
}

/// Pseudo-random bytes.
fn bytes(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Everything about a tree that a restore should restore.
fn describe(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut folders = vec![top.to_owned()];
    while let Some(path) = folders.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let relative = path.strip_prefix(top).unwrap().to_owned();
        let kind = meta.file_type();
        let content = if kind.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            folders.extend(entries.into_iter().rev());
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).unwrap())
        } else if kind.is_file() {
            let sparse = meta.blocks() * 512 + (64 << 10) < meta.size();
            format!("{} bytes {} sparse {sparse}", meta.size(), blake3::hash(&fs::read(&path).unwrap()))
        } else {
            format!("special {kind:?} {}", meta.rdev())
        };
        let first = inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| relative.clone()).clone();
        let text = format!(
            "{content} {:o} {}:{} {}.{:09} same as {first:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        found.insert(relative, text);
    }
    found
}

fn set_mtime(path: &Path, secs: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(secs, 123_456_789);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// A tree with items of all kinds.
fn make_everything(fixture: &Fixture) {
    let source = fixture.path("source");
    for (name, len) in [("empty", 0), ("one", 1), ("small", 5000), ("large", 3_000_000), ("deep/er/still/file", 70_000)]
    {
        fixture.write(name, &bytes(name, len));
    }
    for at in 0..300 {
        fixture.write(&format!("many/{at:03}"), &bytes(&at.to_string(), at * 7));
    }
    fixture.write("same/a", &bytes("large", 3_000_000));
    fs::write(source.join(OsStr::from_bytes(b"\xff\n odd")), b"odd").unwrap();
    fs::create_dir_all(source.join("hollow/inner")).unwrap();
    symlink("nowhere/at/all", source.join("dangling")).unwrap();
    symlink("deep", source.join("to-folder")).unwrap();
    for (from, to) in [("small", "many/linked"), ("small", "zz"), ("dangling", "deep/linked"), ("one", "one-b")] {
        fs::hard_link(source.join(from), source.join(to)).unwrap();
    }
    // "a-b" comes after "a/..." in the tree, but before it in byte order.
    fixture.write("a/b", &bytes("ab", 2000));
    fs::hard_link(source.join("a/b"), source.join("a-b")).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(&bytes("x", 100_000), 8 << 20).unwrap();
    sparse.write_all_at(&bytes("y", 5_000), (30 << 20) + 77).unwrap();
    File::create(source.join("all-hole")).unwrap().set_len(1 << 20).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, source.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    fs::set_permissions(source.join("one"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(source.join("small"), fs::Permissions::from_mode(0o400)).unwrap();
    for (name, secs) in [("small", 1), ("deep/er/still/file", 2_000_000_000), ("deep/er", 5), ("many", 7), ("", 9)] {
        set_mtime(&source.join(name), secs);
    }
    fs::set_permissions(source.join("hollow"), fs::Permissions::from_mode(0o555)).unwrap();
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let fixture = Fixture::new();
    make_everything(&fixture);
    let info = fixture.snapshot();
    for verify in [false, true] {
        for threads in [1, 3] {
            let target = Target::Folder(fixture.path(&format!("target-{verify}-{threads}")));
            let report = fixture.restore(&RestoreOptions { target, verify, threads, ..fixture.options(&info) });
            fixture.check_equal("source", &format!("target-{verify}-{threads}/source"));
            assert_eq!((report.files, report.folders), (info.body.files, info.body.folders));
            assert_eq!(report.bytes, info.body.bytes);
            assert_eq!(report.files_verified > 300, verify);
        }
    }
}

#[test]
fn a_file_of_many_windows_comes_back() {
    let fixture = Fixture::new();
    fixture.write("before", b"before");
    fixture.write("huge", &bytes("huge", 20_000_000));
    fixture.write("later", b"later");
    let sparse = File::create(fixture.path("source/huge-sparse")).unwrap();
    for at in 0..40_u64 {
        sparse.write_all_at(&bytes(&at.to_string(), 200_000), at << 20).unwrap();
    }
    sparse.set_len(50 << 20).unwrap();
    let info = fixture.snapshot();
    let options = fixture.options(&info);
    fixture.restore(&options);
    fixture.check_equal("source", "target/source");
    // Again over the restored files: nothing is written.
    let options = RestoreOptions { overwrite: Overwrite::IfChanged, verify: true, ..options };
    let report = fixture.restore(&options);
    assert_eq!((report.bytes_written, report.files_unchanged), (0, 4));
    fixture.check_equal("source", "target/source");
    // Changes in the middle, in a hole, and at the end.
    let huge = File::options().write(true).open(fixture.path("target/source/huge")).unwrap();
    huge.write_all_at(b"changed", 10_000_000).unwrap();
    huge.set_len(20_000_003).unwrap();
    let sparse = File::options().write(true).open(fixture.path("target/source/huge-sparse")).unwrap();
    sparse.write_all_at(&[1; 5000], (20 << 20) + 500_000).unwrap();
    sparse.set_len(60 << 20).unwrap();
    let report = fixture.restore(&options);
    assert!((1..5000).contains(&report.bytes_written), "{}", report.bytes_written);
    assert_eq!((report.files_unchanged, report.files_verified), (2, 2));
    fixture.check_equal("source", "target/source");
}

#[test]
fn only_what_is_selected_is_restored() {
    let fixture = Fixture::new();
    for name in ["a/x.rs", "a/y.o", "a/sub/z.rs", "b/w.rs", "b/v.c", "top.rs"] {
        fixture.write(name, name.as_bytes());
    }
    set_mtime(&fixture.path("source/a"), 77);
    let info = fixture.snapshot();
    let mut number = 0;
    let mut check = |path: Option<&str>, include: &[&str], exclude: &[&str], expected: &[&str]| {
        number += 1;
        let name = format!("target{number}");
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let options = RestoreOptions {
            path: path.map(|path| path.as_bytes().to_vec()),
            include: strings(include),
            exclude: strings(exclude),
            target: Target::Folder(fixture.path(&name)),
            ..fixture.options(&info)
        };
        let report = fixture.restore(&options);
        let found: Vec<String> = describe(&fixture.path(&name))
            .into_keys()
            .map(|path| path.to_str().unwrap().to_owned())
            .filter(|path| !path.is_empty())
            .collect();
        assert_eq!(found, expected);
        assert_eq!(report.files + report.folders, expected.len() as u64);
        fixture.path(&name)
    };
    check(Some("source/a/x.rs"), &[], &[], &["x.rs"]);
    check(Some("/source//a/sub/"), &[], &[], &["sub", "sub/z.rs"]);
    check(Some("source/a"), &[], &["*.o"], &["a", "a/sub", "a/sub/z.rs", "a/x.rs"]);
    check(None, &["*.o"], &[], &["source", "source/a", "source/a/y.o"]);
    check(None, &["source/b"], &["*.c"], &["source", "source/b", "source/b/w.rs"]);
    let target = check(None, &["x.rs", "top.rs"], &[], &["source", "source/a", "source/a/x.rs", "source/top.rs"]);
    assert_eq!(fs::metadata(target.join("source/a")).unwrap().mtime(), 77, "parents have their metadata");
    let failed = |options: RestoreOptions| restore(&fixture.vault, &options, &Silent::default()).unwrap_err();
    let path = Some(b"source/none".to_vec());
    assert!(matches!(failed(RestoreOptions { path, ..fixture.options(&info) }), RestoreError::NoSuchPath { .. }));
    let include = vec!["*.none".to_owned()];
    let error = failed(RestoreOptions { include, ..fixture.options(&info) });
    assert!(error.to_string().contains("*.none"), "{error}");
    assert!(!fixture.path("target").exists());
}

#[test]
fn what_is_there_is_treated_as_told() {
    let fixture = Fixture::new();
    for name in ["same", "different", "missing", "folder/file"] {
        fixture.write(name, &bytes(name, 10_000));
    }
    symlink("somewhere", fixture.path("source/link")).unwrap();
    let info = fixture.snapshot();
    let options = fixture.options(&info);
    let target = fixture.path("target/source");
    let prepare = || {
        let _ = fs::remove_dir_all(fixture.path("target"));
        fixture.restore(&options);
        let mut changed = bytes("different", 10_000);
        changed[5000] ^= 1;
        fs::write(target.join("different"), changed).unwrap();
        fs::remove_file(target.join("missing")).unwrap();
        fs::remove_file(target.join("link")).unwrap();
        symlink("elsewhere", target.join("link")).unwrap();
        fs::write(target.join("mine"), b"mine").unwrap();
    };
    prepare();
    let refused = restore(&fixture.vault, &options, &Silent::default()).unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty { .. }));

    let with = |overwrite| RestoreOptions { overwrite, ..options.clone() };
    let report = fixture.restore(&with(Overwrite::Never));
    assert_eq!((report.files, report.files_kept), (1, 4));
    assert_ne!(fs::read(target.join("different")).unwrap(), bytes("different", 10_000));
    assert_eq!(fs::read(target.join("missing")).unwrap(), bytes("missing", 10_000));
    assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("elsewhere"));

    for (overwrite, written) in [(Overwrite::IfChanged, 500..12_000), (Overwrite::Always, 40_000..40_001)] {
        prepare();
        let inode = fs::metadata(target.join("different")).unwrap().ino();
        let dry = fixture.restore(&RestoreOptions { dry_run: true, ..with(overwrite) });
        assert_ne!(fs::read(target.join("different")).unwrap(), bytes("different", 10_000));
        assert!(!target.join("missing").exists());
        let report = fixture.restore(&with(overwrite));
        assert_eq!((dry.files, dry.bytes, dry.bytes_written), (report.files, report.bytes, report.bytes_written));
        assert!(written.contains(&report.bytes_written), "{}", report.bytes_written);
        assert_eq!(fs::metadata(target.join("different")).unwrap().ino() == inode, overwrite == Overwrite::IfChanged);
        fs::remove_file(target.join("mine")).unwrap();
        set_mtime(&target, 0);
        let (mut expected, mut found) = (describe(&fixture.path("source")), describe(&target));
        expected.remove(Path::new(""));
        found.remove(Path::new(""));
        assert_eq!(expected, found);
    }
}

#[test]
fn conflicts_of_kind_are_told_or_resolved() {
    let fixture = Fixture::new();
    fixture.write("was-folder", b"now a file");
    fixture.write("was-file/inner", b"now a folder");
    fixture.write("was-empty-folder", b"now a file");
    let info = fixture.snapshot();
    let target = fixture.path("target/source");
    let prepare = || {
        let _ = fs::remove_dir_all(&target);
        fs::create_dir_all(target.join("was-folder/full")).unwrap();
        fs::create_dir_all(target.join("was-empty-folder")).unwrap();
        fs::write(target.join("was-file"), b"file").unwrap();
    };
    let options = RestoreOptions { overwrite: Overwrite::Always, ..fixture.options(&info) };
    prepare();
    let report = restore(&fixture.vault, &options, &Silent::default()).unwrap();
    assert_eq!((report.problem_count, report.damage_count, report.files), (1, 0, 2));
    assert_eq!(report.problems[0].path, b"source/was-folder");
    assert!(target.join("was-folder/full").exists());
    prepare();
    let report =
        restore(&fixture.vault, &RestoreOptions { overwrite: Overwrite::Never, ..options.clone() }, &Silent::default());
    assert_eq!(report.unwrap().problem_count, 1, "the file in the place of a folder");
    assert_eq!(fs::read(target.join("was-file")).unwrap(), b"file");
    prepare();
    fixture.restore(&RestoreOptions { delete: true, ..options });
    fixture.check_equal("source", "target/source");
}

#[test]
fn extra_files_are_deleted_only_where_everything_is_restored() {
    let fixture = Fixture::new();
    for name in ["a/keep", "b/keep", "c"] {
        fixture.write(name, name.as_bytes());
    }
    let info = fixture.snapshot();
    let target = fixture.path("target/source");
    let prepare = || {
        let _ = fs::remove_dir_all(fixture.path("target"));
        fixture.restore(&fixture.options(&info));
        fs::create_dir_all(target.join("a/extra/deep")).unwrap();
        for name in ["0", "a/extra/deep/x", "a/extra/y.keep", "a/lost", "b/lost", "zz"] {
            fs::write(target.join(name), b"extra").unwrap();
        }
        fs::write(fixture.path("target/beside"), b"extra").unwrap();
    };
    let options = RestoreOptions { overwrite: Overwrite::IfChanged, delete: true, ..fixture.options(&info) };
    prepare();
    let dry = fixture.restore(&RestoreOptions { dry_run: true, ..options.clone() });
    assert!(target.join("a/lost").exists());
    let report = fixture.restore(&options);
    // Each file and folder is counted.
    assert_eq!((dry.deleted, report.deleted), (8, 8));
    fixture.check_equal("source", "target/source");
    assert!(fixture.path("target/beside").exists(), "the target folder itself is not one of the snapshot's");

    prepare();
    fixture.restore(&RestoreOptions { include: vec!["/source/a".to_owned()], ..options.clone() });
    assert!(!target.join("a/lost").exists() && target.join("b/lost").exists() && target.join("zz").exists());

    prepare();
    fixture.restore(&RestoreOptions { exclude: vec!["*.keep".to_owned(), "lost".to_owned()], ..options.clone() });
    assert!(target.join("a/lost").exists() && target.join("a/extra/y.keep").exists() && !target.join("zz").exists());

    prepare();
    fixture.restore(&RestoreOptions {
        path: Some(b"source/b".to_vec()),
        target: Target::Folder(target.clone()),
        ..options
    });
    assert!(target.join("a/lost").exists() && !target.join("b/lost").exists() && target.join("zz").exists());
}

#[test]
fn planted_links_are_replaced_and_never_followed() {
    let fixture = Fixture::new();
    fixture.write("folder/file", b"content");
    fixture.write("file", b"content");
    let info = fixture.snapshot();
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::Never] {
        let (target, outside) = (fixture.path("target/source"), fixture.path("outside"));
        let _ = fs::remove_dir_all(&target);
        let _ = fs::remove_dir_all(&outside);
        fs::create_dir_all(&target).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("file"), b"untouched").unwrap();
        symlink(&outside, target.join("folder")).unwrap();
        symlink(outside.join("file"), target.join("file")).unwrap();
        let before = describe(&outside);
        let options = RestoreOptions { overwrite, ..fixture.options(&info) };
        let report = restore(&fixture.vault, &options, &Silent::default()).unwrap();
        assert_eq!(describe(&outside), before, "{overwrite:?}");
        if overwrite == Overwrite::Never {
            assert_eq!(report.problem_count, 1);
            assert!(fs::symlink_metadata(target.join("file")).unwrap().is_symlink());
        } else {
            assert_eq!(report.problem_count, 0);
            fixture.check_equal("source", "target/source");
        }
    }
}

#[test]
fn names_outside_the_restore_keep_their_content() {
    let fixture = Fixture::new();
    for name in ["a", "b", "alone"] {
        fixture.write(name, &bytes(name, 3000));
    }
    fs::hard_link(fixture.path("source/a"), fixture.path("source/a2")).unwrap();
    let info = fixture.snapshot();
    let options = RestoreOptions { overwrite: Overwrite::IfChanged, ..fixture.options(&info) };
    fixture.restore(&options);
    let target = fixture.path("target/source");
    fs::hard_link(target.join("alone"), fixture.path("outside")).unwrap();
    fs::write(target.join("alone"), b"changed").unwrap();
    // Two names of one group that are no longer linked, one of them linked to another file.
    fs::remove_file(target.join("a2")).unwrap();
    fs::hard_link(target.join("b"), target.join("a2")).unwrap();
    let (a, b) = (fs::metadata(target.join("a")).unwrap().ino(), fs::metadata(target.join("b")).unwrap().ino());
    fixture.restore(&options);
    fixture.check_equal("source", "target/source");
    assert_eq!(fs::read(fixture.path("outside")).unwrap(), b"changed");
    assert_eq!(fs::metadata(target.join("a")).unwrap().ino(), a, "it was right already");
    assert_ne!(fs::metadata(target.join("b")).unwrap().ino(), b);
    // A complete group is changed in place.
    let file = File::options().write(true).open(target.join("a")).unwrap();
    file.write_all_at(b"x", 100).unwrap();
    let report = fixture.restore(&options);
    assert_eq!(fs::metadata(target.join("a")).unwrap().ino(), a);
    assert!(report.bytes_written < 3000);
    fixture.check_equal("source", "target/source");
}

#[test]
fn a_restore_in_place_brings_every_root_back() {
    let fixture = Fixture::new();
    fixture.write("folder/file", b"content");
    fs::write(fixture.path("single"), b"single").unwrap();
    let info = fixture.snapshot_of(&["single", "source"]);
    let before = (describe(&fixture.path("source")), describe(&fixture.path("single")));
    let options = RestoreOptions { target: Target::InPlace, ..fixture.options(&info) };
    let refused = restore(&fixture.vault, &options, &Silent::default()).unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");
    fs::remove_dir_all(fixture.path("source")).unwrap();
    fs::remove_file(fixture.path("single")).unwrap();
    fixture.restore(&options);
    assert_eq!((describe(&fixture.path("source")), describe(&fixture.path("single"))), before);
    // Restore a part of it.
    fs::remove_dir_all(fixture.path("source/folder")).unwrap();
    fs::write(fixture.path("source/mine"), b"mine").unwrap();
    let path = Some(b"source/folder/file".to_vec());
    fixture.restore(&RestoreOptions { path, ..options.clone() });
    assert_eq!(fs::read(fixture.path("source/folder/file")).unwrap(), b"content");
    fs::write(fixture.path("single"), b"changed").unwrap();
    let delete = RestoreOptions { overwrite: Overwrite::IfChanged, delete: true, ..options };
    assert_eq!(fixture.restore(&delete).deleted, 1);
    assert_eq!((describe(&fixture.path("source")), describe(&fixture.path("single"))), before);
}

/// The packs of one kind.
fn packs(store: &MemStore, kind: Kind) -> Vec<ObjectKey> {
    let is_kind = |key: &ObjectKey| matches!(key, ObjectKey::Named(other, _) if *other == kind);
    store.objects().into_iter().map(|(key, _)| key).filter(is_kind).collect()
}

#[test]
fn damage_harms_only_the_files_it_is_in() {
    let fixture = Fixture::new();
    for at in 0..40 {
        fixture.write(&format!("file{at:02}"), &bytes(&at.to_string(), 150_000));
    }
    let info = fixture.snapshot();
    let pack = packs(&fixture.store, Kind::Pack)[0];
    assert!(fixture.store.mutate(&pack, |bytes| bytes[100_000] ^= 1));
    let options = fixture.options(&info);
    let report = restore(&fixture.vault, &options, &Silent::default()).unwrap();
    // At most the files that have a chunk in the damaged segment.
    assert!((1..20).contains(&report.damage_count), "{}", report.damage_count);
    assert_eq!(report.files + report.damage_count, 40);
    assert!(report.problems[0].what.contains(&pack.to_string()), "{}", report.problems[0].what);
    let (source, found) = (describe(&fixture.path("source")), describe(&fixture.path("target/source")));
    assert_eq!(found.len() as u64, report.files + 1, "no damaged file is left");
    assert!(found.iter().all(|(path, text)| source.get(path) == Some(text)));
    // Existing files that are right do not need the damaged pack; existing files that are wrong are left as they are.
    let damaged: Vec<PathBuf> =
        report.problems.iter().map(|problem| PathBuf::from(OsStr::from_bytes(&problem.path[7..]))).collect();
    for (at, path) in damaged.iter().enumerate() {
        let mut content = fs::read(fixture.path("source").join(path)).unwrap();
        content[0] ^= u8::from(at == 0);
        fs::write(fixture.path("target/source").join(path), content).unwrap();
    }
    let options = RestoreOptions { overwrite: Overwrite::IfChanged, ..options };
    let report = restore(&fixture.vault, &options, &Silent::default()).unwrap();
    assert_eq!((report.damage_count, report.files), (1, 39));
    assert_eq!(fs::metadata(fixture.path("target/source").join(&damaged[0])).unwrap().size(), 150_000);
    // Overwriting keeps the existing files too.
    let options = RestoreOptions { overwrite: Overwrite::Always, ..options };
    let report = restore(&fixture.vault, &options, &Silent::default()).unwrap();
    assert_eq!(report.damage_count as usize, damaged.len());
    assert_eq!(fs::read_dir(fixture.path("target/source")).unwrap().count(), 40);
    let inner = |error: &RestoreProblem| error.what.contains("left as it is");
    assert!(report.problems.iter().all(inner), "{:?}", report.problems);
}

#[test]
fn a_damaged_listing_harms_only_its_folder() {
    let fixture = Fixture::new();
    fixture.write("bad/file", b"lost");
    fixture.write("bad/sub/file", b"lost as well");
    fixture.write("good/file", b"good");
    let whole = fixture.snapshot();
    let bad = browse::find_entry(&fixture.vault, &whole, b"source/bad").unwrap().content.unwrap();
    // Make the listing's chunk unreadable: its pack is removed, the others stay.
    let before: Vec<ObjectKey> = packs(&fixture.store, Kind::Meta);
    assert_eq!((before.len(), bad.ids.len()), (1, 1));
    fixture.write("good/other", b"more");
    let info = fixture.snapshot();
    fixture.store.remove(&before[0]);
    let vault = open(&fixture.store, &fixture.path("state"));
    let report = restore(&vault, &fixture.options(&info), &Silent::default()).unwrap();
    assert_eq!((report.damage_count, report.files), (1, 2), "{:?}", report.problems);
    assert_eq!(report.problems[0].path, b"source/bad");
    assert_eq!(fs::read(fixture.path("target/source/good/other")).unwrap(), b"more");
    let mut listed = Vec::new();
    let error = browse::list(&vault, &info, b"", true, &mut |path, _| {
        listed.push(String::from_utf8(path.to_vec()).unwrap());
        true
    });
    assert!(error.unwrap_err().is_damage());
    assert_eq!(listed, ["source", "source/bad", "source/good", "source/good/file", "source/good/other"]);
}

#[test]
fn another_copy_of_a_chunk_takes_the_place_of_a_damaged_one() {
    let fixture = Fixture::new();
    for at in 0..10 {
        fixture.write(&format!("file{at}"), &bytes(&at.to_string(), 100_000));
    }
    let info = fixture.snapshot();
    // The same chunks stored again, as by two machines that do not know of each other.
    let copy = packs(&fixture.store, Kind::Pack)[0];
    let other = MemStore::from_state(fixture.store.snapshot());
    for key in packs(&other, Kind::Pack).into_iter().chain(packs(&other, Kind::Meta)).chain(packs(&other, Kind::Log)) {
        other.remove(&key);
    }
    let other = Arc::new(other);
    let second = Fixture {
        dir: tempfile::tempdir().unwrap(),
        store: other.clone(),
        vault: open(&other, &fixture.path("state2")),
    };
    fs::create_dir(second.path("source")).unwrap();
    for at in 0..10 {
        second.write(&format!("file{at}"), &bytes(&at.to_string(), 100_000));
    }
    second.snapshot();
    for (key, bytes) in other.objects() {
        if matches!(key, ObjectKey::Named(Kind::Pack, _)) {
            fixture.store.put(&key, bytes.clone()).unwrap();
        }
    }
    for damaged in packs(&fixture.store, Kind::Pack) {
        let before = fixture.store.snapshot();
        fixture.store.mutate(&damaged, |bytes| bytes[50_000] ^= 1);
        let vault = open(&fixture.store, &fixture.path(&format!("state-{damaged}")));
        let target = Target::Folder(fixture.path(&format!("target-{damaged}")));
        let report = restore(&vault, &RestoreOptions { target, ..fixture.options(&info) }, &Silent::default()).unwrap();
        assert_eq!(report.problem_count, 0, "{:?}", report.problems);
        fixture.check_equal("source", &format!("target-{damaged}/source"));
        fixture.store.restore(before);
    }
    assert!(packs(&fixture.store, Kind::Pack).contains(&copy));
}

#[test]
fn a_restore_that_is_stopped_leaves_no_half_files() {
    let fixture = Fixture::new();
    fixture.write("huge", &bytes("huge", 30_000_000));
    let info = fixture.snapshot();
    let stopped = Silent::default();
    stopped.stop();
    let options = fixture.options(&info);
    assert!(matches!(restore(&fixture.vault, &options, &stopped), Err(RestoreError::Interrupted)));
    // Stop in the middle of the file.
    let progress = Silent::default();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while progress.counters().bytes.load(std::sync::atomic::Ordering::Relaxed) < 1_000_000 {
                std::thread::yield_now();
            }
            progress.stop();
        });
        restore(&fixture.vault, &options, &progress)
    });
    assert!(matches!(result, Err(RestoreError::Interrupted)), "{result:?}");
    assert!(!fixture.path("target/source/huge").exists());
}

#[test]
fn a_missing_pack_is_named() {
    let fixture = Fixture::new();
    fixture.write("file", &bytes("file", 100_000));
    let info = fixture.snapshot();
    let pack = packs(&fixture.store, Kind::Pack)[0];
    fixture.store.remove(&pack);
    let report = restore(&fixture.vault, &fixture.options(&info), &Silent::default()).unwrap();
    assert_eq!((report.damage_count, report.files), (1, 0));
    assert!(report.problems[0].what.contains(&pack.to_string()), "{}", report.problems[0].what);
}

#[test]
fn snapshots_can_be_looked_into() {
    let fixture = Fixture::new();
    fixture.write("a/file", &bytes("file", 300_000));
    fixture.write("b", b"b");
    let sparse = File::create(fixture.path("source/sparse")).unwrap();
    sparse.write_all_at(b"data", 5_000_000).unwrap();
    sparse.set_len(6_000_000).unwrap();
    let info = fixture.snapshot();
    let list = |path: &str, recursive| {
        let mut found = Vec::new();
        browse::list(&fixture.vault, &info, path.as_bytes(), recursive, &mut |path, entry| {
            found.push(format!("{} {}", String::from_utf8_lossy(path), entry.size));
            true
        })
        .map(|()| found)
    };
    assert_eq!(list("", false).unwrap(), ["source 0"]);
    assert_eq!(list("source", false).unwrap(), ["source/a 0", "source/b 1", "source/sparse 6000000"]);
    assert_eq!(list("/source/a/", true).unwrap(), ["source/a/file 300000"]);
    assert_eq!(list("source/b", true).unwrap(), ["source/b 1"]);
    assert_eq!(list("", true).unwrap().len(), 5);
    assert!(matches!(list("none", true), Err(browse::BrowseError::NotFound { .. })));
    assert!(matches!(list("source/b/c", true), Err(browse::BrowseError::NotFound { .. })));
    let cat = |path: &str| {
        let mut out = Vec::new();
        browse::cat(&fixture.vault, &info, path.as_bytes(), &mut out, &Silent::default()).map(|len| {
            assert_eq!(len, out.len() as u64);
            out
        })
    };
    for name in ["a/file", "b", "sparse"] {
        assert_eq!(cat(&format!("source/{name}")).unwrap(), fs::read(fixture.path("source").join(name)).unwrap());
    }
    assert!(matches!(cat("source/a"), Err(browse::BrowseError::NotAFile { .. })));
    assert_eq!(browse::find_entry(&fixture.vault, &info, b"source/a").unwrap().kind, FileKind::Directory);
    assert!(browse::skipped(&fixture.vault, &info).unwrap().is_empty());
}

#[test]
fn a_deep_tree_comes_back() {
    let fixture = Fixture::new();
    // Deeper than handles or listings are kept, and deeper than a path of the system may be.
    let mut dir =
        rustix::fs::open(fixture.path("source"), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for depth in 0..700 {
        for name in ["a", "x-long-name-of-a-folder", "z"] {
            rustix::fs::mkdirat(&dir, name, rustix::fs::Mode::RWXU).unwrap();
        }
        let file = rustix::fs::openat(
            &dir,
            "y",
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
            rustix::fs::Mode::RUSR,
        )
        .unwrap();
        rustix::io::write(&file, depth.to_string().as_bytes()).unwrap();
        dir = rustix::fs::openat(
            &dir,
            "x-long-name-of-a-folder",
            rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
    }
    let info = fixture.snapshot();
    let report = fixture.restore(&fixture.options(&info));
    assert_eq!((report.files, report.folders), (700, 3 * 700 + 1));
    let report =
        fixture.restore(&RestoreOptions { overwrite: Overwrite::IfChanged, delete: true, ..fixture.options(&info) });
    assert_eq!((report.files_unchanged, report.deleted), (700, 0));
    // The scratch folder is too deep to delete in the ordinary way, so a restore deletes everything in it.
    fs::rename(fixture.path("source"), fixture.path("target/source/a")).unwrap();
    fixture.write("stays", b"so that the source is not empty");
    let empty = fixture.snapshot();
    let report =
        fixture.restore(&RestoreOptions { overwrite: Overwrite::IfChanged, delete: true, ..fixture.options(&empty) });
    assert_eq!((report.deleted, report.kept_count), (2 * (700 + 3 * 700), 0));
    fixture.check_equal("source", "target/source");
}

#[test]
fn a_program_that_runs_is_replaced() {
    let Some(program) = ["/bin/sleep", "/usr/bin/sleep"].iter().find(|path| Path::new(path).is_file()) else { return };
    let fixture = Fixture::new();
    fixture.write("program", &fs::read(program).unwrap());
    fs::set_permissions(fixture.path("source/program"), fs::Permissions::from_mode(0o755)).unwrap();
    let info = fixture.snapshot();
    let options = RestoreOptions { overwrite: Overwrite::IfChanged, ..fixture.options(&info) };
    fixture.restore(&options);
    let target = fixture.path("target/source/program");
    File::options().append(true).open(&target).unwrap().set_len(1 << 20).unwrap();
    let mut running = std::process::Command::new(&target).arg("60").spawn().unwrap();
    let report = restore(&fixture.vault, &options, &Silent::default());
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(report.unwrap().problem_count, 0);
    fixture.check_equal("source", "target/source");
}
