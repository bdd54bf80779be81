//! Sources that misbehave: files that vanish, shrink, grow and change while they are read, unreadable files, and files
//! with wrong times; and exclusions. A file that could not be saved is never hidden.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use vault::engine::patterns::exclude::ExcludeOptions;
use vault::engine::snapshot::{Input, SnapshotError, SnapshotOptions, SnapshotReport, snapshot};
use vault::progress::Silent;
use vault::store::Store;
use vault::store::dir::DirStore;
use vault::tree::{FileKind, Verdict};
use vault::vault::Vault;

use crate::support::model::{Model, Node, of_disk, of_snapshot};
use crate::support::source::{Size, bytes, plant, set_mtime, write};
use crate::support::{World, create_vault, now, open_vault, options, scratch, small_chunks, take};

/// The content of a snapshot with these options, and its report.
fn take_with(vault: &Vault, folder: &Path, change: impl FnOnce(&mut SnapshotOptions<'_>)) -> (SnapshotReport, Model) {
    let mut options = options(folder, &now);
    change(&mut options);
    let report = snapshot(vault, options, &Silent::default()).unwrap();
    let read = of_snapshot(vault, &report.snapshot);
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    (report, read.nodes)
}

fn names(model: &Model) -> Vec<String> {
    model.keys().map(|path| String::from_utf8(path.clone()).unwrap()).collect()
}

/// Tells another thread to end, even if a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Runs `disturb` again and again while snapshots are taken.
fn while_disturbed(
    world: &World,
    snapshots: usize,
    disturb: impl Fn(u64) + Sync,
    check: impl Fn(&Vault, SnapshotReport),
) {
    let vault = world.open();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Relaxed) {
                disturb(round);
                round += 1;
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..snapshots {
            check(&vault, take(&vault, &world.source()).unwrap());
        }
    });
}

#[test]
fn files_that_come_and_go_are_there_whole_or_not_at_all() {
    let world = World::new(small_chunks());
    plant(&world.source(), 1, Size::Tiny);
    let steady = of_disk(&world.source().join("folder 3"), b"top/folder 3");
    let folder = world.source().join("folder 0");
    let disturb = |round: u64| {
        let path = folder.join(format!("comes and goes {}", round % 20));
        if round % 40 < 20 {
            fs::write(path, bytes(round % 20, 3000)).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    };
    while_disturbed(&world, 15, disturb, |vault, report| {
        let read = of_snapshot(vault, &report.snapshot);
        assert!(read.errors.is_empty());
        for (path, node) in &steady {
            assert_eq!(read.nodes.get(path), Some(node));
        }
        // A file that was being written is stored with its content at that moment; torn files are marked.
        assert!(report.skipped.iter().all(|skipped| skipped.stored), "{:?}", report.skipped);
        assert_eq!(report.snapshot.verdict, Verdict::Complete);
    });
}

#[test]
fn files_that_change_while_they_are_read_are_stored_and_marked() {
    let world = World::new(small_chunks());
    let path = world.source().join("a log");
    fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
    fs::write(world.source().join("steady"), "steady").unwrap();
    let disturb = |round: u64| {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        match round % 3 {
            0 => file.write_all_at(&bytes(round, 100), round % (2 << 20)).unwrap(),
            1 => file.set_len((1 << 20) + round % 4096).unwrap(),
            _ => (&file).write_all(&bytes(round, 2 << 20)).unwrap(),
        }
    };
    while_disturbed(&world, 10, disturb, |vault, report| {
        let read = of_snapshot(vault, &report.snapshot);
        assert!(read.errors.is_empty());
        assert!(read.nodes.contains_key(&b"top/a log"[..]) && read.nodes.contains_key(&b"top/steady"[..]));
        assert!(report.skipped.iter().all(|skipped| skipped.stored && skipped.path == b"top/a log"));
    });
    // When it is quiet, it is read again, whatever was remembered.
    let vault = world.open();
    let (report, model) = take_with(&vault, &world.source(), |_| {});
    assert_eq!(report.skipped, []);
    assert_eq!(model, of_disk(&world.source(), b"top"));
}

/// A mapped file that becomes shorter raises a signal; the run must survive it.
#[test]
fn large_files_cut_off_while_they_are_mapped_kill_nobody() {
    let world = World::new(vault::chunk::ChunkParams::default());
    let path = world.source().join("large");
    let content = bytes(2, 24 << 20);
    fs::write(&path, &content).unwrap();
    let disturb = |_| {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(&content, 0).unwrap();
    };
    while_disturbed(&world, 12, disturb, |vault, report| {
        let read = of_snapshot(vault, &report.snapshot);
        assert!(read.errors.is_empty());
        assert!(report.skipped.iter().all(|skipped| skipped.stored));
    });
    let (report, model) = take_with(&world.open(), &world.source(), |_| {});
    assert_eq!(report.skipped, []);
    assert_eq!(model, of_disk(&world.source(), b"top"));
}

/// The clock of file systems is coarse: a file may change within one tick after it was read, and look the same.
#[test]
fn changes_that_leave_no_trace_in_the_times_are_found() {
    let world = World::new(small_chunks());
    let path = world.source().join("file");
    fs::write(&path, bytes(0, 5000)).unwrap();
    for round in 1..30 {
        let vault = world.open();
        take(&vault, &world.source()).unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes(round, 5000)).unwrap();
        File::open(&path).unwrap().set_modified(time).unwrap();
        let (_, model) = take_with(&vault, &world.source(), |_| {});
        assert_eq!(model, of_disk(&world.source(), b"top"), "round {round}");
    }
}

#[test]
fn a_root_that_is_a_file_is_remembered_like_any_other() {
    let world = World::new(small_chunks());
    let path = world.source().join("image");
    // Larger than one thread reads alone.
    let mut content = bytes(1, 33 << 20);
    fs::write(&path, &content).unwrap();
    set_mtime(&path, 1_600_000_000, 0);
    let counts = |content: &[u8]| {
        // Long after the last change, so that no file is too young to be trusted.
        thread::sleep(std::time::Duration::from_millis(100));
        let vault = world.open();
        let (report, model) = take_with(&vault, &path, |_| {});
        let (_, node) = model.iter().next().unwrap();
        assert_eq!(node.content, Some(blake3::hash(content)));
        let found = &report.snapshot;
        assert_eq!((found.files, found.bytes), (1, content.len() as u64));
        (found.files_new, found.files_changed, found.files_unchanged, found.bytes_read)
    };
    let len = content.len() as u64;
    assert_eq!(counts(&content), (1, 0, 0, len));
    counts(&content);
    assert_eq!(counts(&content), (0, 0, 1, 0));
    content[7] ^= 1;
    fs::write(&path, &content).unwrap();
    assert_eq!(counts(&content), (0, 1, 0, len));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    counts(&content);
    assert_eq!(counts(&content), (0, 0, 1, 0));
}

#[test]
fn a_root_that_is_missing_or_the_vaults_own_is_an_error() {
    let world = World::new(small_chunks());
    let vault = world.open();
    let root_error = |vault: &Vault, path: &Path| match take(vault, path) {
        Err(SnapshotError::Root { path: named, .. }) => assert_eq!(named, path.display().to_string()),
        other => panic!("{other:?}"),
    };
    root_error(&vault, &world.folder.path().join("missing"));
    assert!(vault.snapshots().is_empty(), "no empty snapshot was taken");
    let dangling = world.folder.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    root_error(&vault, &dangling);
    drop(vault);

    // A store and a state folder inside the source are never a part of it.
    let folder = scratch();
    let store_folder = folder.path().join("inner/store");
    fs::create_dir_all(&store_folder).unwrap();
    fs::write(folder.path().join("inner/file"), "x").unwrap();
    let store: Arc<dyn Store> = Arc::new(DirStore::create(&store_folder).unwrap());
    create_vault(store.as_ref(), small_chunks()).unwrap();
    let vault = open_vault(&store, &folder.path().join("inner/state")).unwrap();
    let (_, model) = take_with(&vault, folder.path(), |_| {});
    assert_eq!(names(&model), ["top", "top/inner", "top/inner/file", "top/inner/state"]);
    root_error(&vault, &store_folder);
}

#[test]
fn what_is_left_out_is_what_was_asked_for() {
    let world = World::new(small_chunks());
    let top = world.source();
    for folder in ["cache", "marked", "plain", "ignoring/below"] {
        fs::create_dir_all(top.join(folder)).unwrap();
        fs::write(top.join(folder).join("file"), "x").unwrap();
    }
    fs::write(top.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    fs::write(top.join("plain/CACHEDIR.TAG"), "not the signature").unwrap();
    fs::write(top.join("marked/.nobackup"), "").unwrap();
    fs::write(top.join("ignoring/.vaultignore"), "file\n!below/file\n").unwrap();
    fs::write(top.join("ignoring/file"), "x").unwrap();
    fs::write(top.join("big"), vec![0; 2000]).unwrap();
    let vault = world.open();
    let (_, all) = take_with(&vault, &top, |_| {});
    assert_eq!(names(&all).len(), 16);
    let (report, left) = take_with(&vault, &top, |options| {
        options.exclude = ExcludeOptions {
            caches: true,
            if_present: vec![b".nobackup".to_vec()],
            ignore_file: Some(b".vaultignore".to_vec()),
            larger_than: Some(1999),
            ..ExcludeOptions::default()
        };
    });
    let gone: Vec<String> = names(&all).into_iter().filter(|name| !left.contains_key(name.as_bytes())).collect();
    assert_eq!(gone, ["top/big", "top/cache/file", "top/ignoring/file", "top/marked/file"]);
    assert_eq!(report.snapshot.verdict, Verdict::Complete, "an exclusion is no failure");

    let (_, only) = take_with(&vault, &top, |options| {
        let only = Some(vec![b"plain/file".to_vec(), b"ignoring/below".to_vec()]);
        options.inputs = vec![Input::Path { name: b"top".to_vec(), path: top.clone(), only }];
    });
    assert_eq!(
        names(&only),
        ["top", "top/ignoring", "top/ignoring/below", "top/ignoring/below/file", "top/plain", "top/plain/file"]
    );
}

#[test]
fn streams_are_stored_as_files_and_their_failure_is_the_snapshots() {
    let world = World::new(small_chunks());
    let vault = world.open();
    let feed = |content: Vec<u8>, result: Result<(), String>| {
        let mut options = options(&world.source(), &now);
        options.inputs = vec![Input::Reader {
            name: b"dump.sql".to_vec(),
            reader: Box::new(std::io::Cursor::new(content)),
            finish: Box::new(|| result),
            may_be_empty: true,
        }];
        snapshot(&vault, options, &Silent::default())
    };
    for len in [0, 1, 100_000, 9 << 20] {
        let content = bytes(3, len);
        let report = feed(content.clone(), Ok(())).unwrap();
        let read = of_snapshot(&vault, &report.snapshot);
        let node: &Node = &read.nodes[&b"dump.sql"[..]];
        assert_eq!((node.kind, node.size), (FileKind::File, len as u64));
        assert_eq!(node.content, Some(blake3::hash(&content)));
    }
    let before = vault.snapshots().len();
    assert!(matches!(feed(bytes(4, 1000), Err("exit status 1".to_owned())), Err(SnapshotError::Feed { .. })));
    assert_eq!(vault.snapshots().len(), before, "half a dump is no dump");
}

/// Runs the binary as a user, with a state folder of its own.
fn vault_as(user: Option<u32>, home: &Path, args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_vault");
    let mut command = match user {
        Some(user) => {
            let mut command = Command::new("setpriv");
            let id = user.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", program]);
            command
        }
        None => Command::new(program),
    };
    let output = command
        .args(args)
        .env("VAULT_PASSWORD", "password")
        .env("VAULT_STATE_DIR", home.join("state"))
        .env("VAULT_REPO", home.join("store"))
        .env("HOME", home)
        .output()
        .unwrap();
    assert!(output.status.code().is_some(), "it was killed: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn what_may_not_be_read_is_listed_and_the_exit_code_says_so() {
    let folder = scratch();
    let (home, source) = (folder.path(), folder.path().join("source"));
    fs::create_dir_all(source.join("closed folder")).unwrap();
    fs::write(source.join("closed folder/file"), "x").unwrap();
    write(&source.join("closed"), 1, 100);
    write(&source.join("open"), 2, 100);
    fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(source.join("closed folder"), fs::Permissions::from_mode(0o000)).unwrap();
    let user = rustix::process::geteuid().is_root().then_some(65534);
    if user.is_some() && Command::new("setpriv").arg("--version").output().is_err() {
        return;
    }
    if let Some(user) = user {
        for path in [home, &source] {
            std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
        }
    }
    let path = source.to_str().unwrap();
    let run = |args: &[&str]| vault_as(user, home, args);
    assert!(run(&["init"]).status.success());
    let taken = run(&["snapshot", path]);
    assert_eq!(taken.status.code(), Some(3), "{}", String::from_utf8_lossy(&taken.stderr));
    let said = format!("{}{}", String::from_utf8_lossy(&taken.stdout), String::from_utf8_lossy(&taken.stderr));
    assert!(said.contains("source/closed") && said.contains("closed folder"), "{said}");
    let listed = run(&["ls", "-R", "latest"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("open") && !listed.contains("closed\n"), "{listed}");
    fs::set_permissions(source.join("closed folder"), fs::Permissions::from_mode(0o700)).unwrap();
    // An unreadable root is an error, not an empty snapshot.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o000)).unwrap();
    let refused = run(&["snapshot", path]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    fs::set_permissions(&source, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Another file system is not entered, but its folder is kept.
#[test]
fn other_file_systems_are_left_out_when_asked() {
    let world = World::new(small_chunks());
    let mounted = world.source().join("mounted");
    fs::create_dir(&mounted).unwrap();
    fs::write(world.source().join("file"), "x").unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&mounted).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return; // only root may mount
    }
    fs::write(mounted.join("inside"), "x").unwrap();
    let vault = world.open();
    let (_, all) = take_with(&vault, &world.source(), |_| {});
    let (_, one) = take_with(&vault, &world.source(), |options| options.exclude.one_file_system = true);
    let unmounted = Command::new("umount").arg(&mounted).output().unwrap();
    assert!(unmounted.status.success());
    assert_eq!(names(&all), ["top", "top/file", "top/mounted", "top/mounted/inside"]);
    assert_eq!(names(&one), ["top", "top/file", "top/mounted"]);
    set_mtime(&world.source(), 1, 0);
}
