//! Tests of a folder beyond the suite that every store passes: ways to publish, leftovers, links, wrong folders.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::store::dir::publish::Way;
use crate::store::testing::conformance::check_foreign;
use crate::store::testing::conformance::check_store;
use crate::store::testing::conformance::key;
use crate::store::testing::conformance::list;

const WAYS: [Way; 4] = [Way::Anonymous, Way::Rename, Way::HardLink, Way::Look];

/// A store in a temporary folder.
#[derive(Debug)]
struct Scratch {
    store: DirStore,
    folder: TempDir,
}

impl Scratch {
    fn new(best: Way) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DirStore::create(&folder.path().join("a/store")).unwrap();
        store.publisher.best = best;
        Self { store, folder }
    }

    fn top(&self) -> PathBuf {
        self.folder.path().join("a/store")
    }
}

impl Store for Scratch {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.store.get_range(key, offset, len)
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.store.get(key, max)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.store.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.store.list(kind, found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.store.delete(key)
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.store.delete_durably(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.store.quarantine(key)
    }

    fn limits(&self) -> StoreLimits {
        self.store.limits()
    }

    fn place(&self) -> String {
        self.store.place()
    }
}

/// Every file below a folder, sorted.
fn files(top: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(top).unwrap().display().to_string());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn conforms_with_nameless_files() {
    check_store(|| Scratch::new(Way::Anonymous));
}

#[test]
fn conforms_with_renamed_files() {
    check_store(|| Scratch::new(Way::Rename));
}

#[test]
fn conforms_with_linked_files() {
    check_store(|| Scratch::new(Way::HardLink));
}

/// Leaves out the race of two puts for one name, which a look before the rename cannot decide.
#[test]
fn the_poorest_way_replaces_nothing() {
    let scratch = Scratch::new(Way::Look);
    scratch.put(&ObjectKey::Vault, Bytes::from_static(b"first")).unwrap();
    assert!(matches!(scratch.put(&ObjectKey::Vault, Bytes::from_static(b"second")), Err(StoreError::Exists { .. })));
    assert_eq!(files(&scratch.top()), ["VAULT"]);
}

/// Also where a part of the object is written by direct I/O.
#[test]
fn large_objects_are_stored_whole() {
    let store = Scratch::new(Way::Anonymous);
    for (number, more) in [0, 1, 511, 4095, 4096, 70_001].into_iter().enumerate() {
        let mut pages = memmap2::MmapMut::map_anon((1 << 20) + more).unwrap();
        pages.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7 + i / 4096) as u8);
        for (aligned, bytes) in [(0, &pages[..]), (1, &pages[1..])] {
            let key = ObjectKey::Named(Kind::Pack, ObjectName::new([number as u8 * 2 + aligned; 16]));
            store.put(&key, Bytes::copy_from_slice(bytes)).unwrap();
            assert_eq!(store.get_range(&key, 0, bytes.len()).unwrap(), bytes);
            assert_eq!(store.len(&key).unwrap(), bytes.len() as u64);
        }
    }
}

#[test]
fn what_is_foreign_is_reported_and_not_touched() {
    check_foreign(
        || Scratch::new(Way::Anonymous),
        |scratch, kind, name| {
            let path = scratch.top().join(kind.folder()).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"foreign").unwrap();
        },
    );
    let scratch = Scratch::new(Way::Anonymous);
    let hex = "00112233445566778899aabbccddeeff";
    let packs = scratch.top().join("packs");
    for folder in [&format!("00/{}", "0".repeat(32)), "0", "AB", "abc", hex, "cd"] {
        fs::create_dir_all(packs.join(folder)).unwrap();
    }
    symlink("00", packs.join("11")).unwrap();
    symlink("/etc/hostname", packs.join(format!("00/{hex}"))).unwrap();
    fs::write(packs.join(format!("cd/{hex}")), b"wrong folder").unwrap();
    fs::write(packs.join("zz"), b"file").unwrap();
    fs::write(packs.join(std::ffi::OsStr::from_bytes(b"\xff\n")), b"file").unwrap();
    let zeros = format!("packs/00/{}", "0".repeat(32));
    let (link, wrong, name) = (format!("packs/00/{hex}"), format!("packs/cd/{hex}"), format!("packs/{hex}"));
    let mut expected =
        [&zeros, "packs/0", "packs/AB", "packs/abc", &name, "packs/11", &link, &wrong, "packs/zz", "packs/\\xff\\n"];
    expected.sort_unstable();
    let (objects, mut foreign) = list(&scratch, Kind::Pack);
    foreign.sort();
    assert_eq!(objects, []);
    assert_eq!(foreign, expected);
}

#[test]
fn only_regular_files_are_objects() {
    let scratch = Scratch::new(Way::Anonymous);
    let log = scratch.top().join("log");
    fs::write(log.join("real"), b"1234").unwrap();
    symlink("real", scratch.store.path_of(&key(Kind::Log, 1))).unwrap();
    let fifo = scratch.store.path_of(&key(Kind::Log, 2));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::create_dir(scratch.store.path_of(&key(Kind::Log, 3))).unwrap();
    for number in 1..=3 {
        let key = key(Kind::Log, number);
        assert!(matches!(scratch.get_range(&key, 0, 1), Err(StoreError::Io { .. })), "{number}");
        assert!(matches!(scratch.len(&key), Err(StoreError::Io { .. })), "{number}");
        assert!(matches!(scratch.put(&key, Bytes::from_static(b"x")), Err(StoreError::Exists { .. })), "{number}");
    }
    assert_eq!(fs::read(log.join("real")).unwrap(), b"1234");
    // Where case is ignored, the folder `vault` answers to the name of the VAULT file.
    fs::create_dir(scratch.store.path_of(&ObjectKey::Vault)).unwrap();
    assert!(matches!(scratch.len(&ObjectKey::Vault), Err(StoreError::Missing { .. })));
    assert!(matches!(scratch.get_range(&ObjectKey::Vault, 0, 1), Err(StoreError::Missing { .. })));
}

#[test]
fn objects_are_read_only_files_in_private_folders() {
    for way in WAYS {
        let scratch = Scratch::new(way);
        let key = key(Kind::Pack, 0xAB);
        scratch.put(&key, Bytes::from_static(b"bytes")).unwrap();
        let path = scratch.store.path_of(&key);
        assert!(path.ends_with(key.to_string()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap()), mode(&scratch.top())), (0o400, 0o700, 0o700), "{way:?}");
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 1, "{way:?}");
        assert_eq!(files(&scratch.top()), [key.to_string()], "{way:?}: nothing else is left");
        scratch.delete(&key).unwrap();
        assert_eq!(files(&scratch.top()), Vec::<String>::new());
    }
}

#[test]
fn what_cannot_be_made_durable_does_not_appear() {
    for way in WAYS {
        for fails_file in [true, false] {
            let mut scratch = Scratch::new(way);
            scratch.put(&key(Kind::Log, 1), Bytes::from_static(b"before")).unwrap();
            if fails_file {
                scratch.store.publisher.sync.file = |_| Err(io::Error::other("no"));
            } else {
                scratch.store.publisher.sync.folder = |_| Err(io::Error::other("no"));
            }
            let error = scratch.put(&key(Kind::Log, 2), Bytes::from_static(b"bytes")).unwrap_err();
            assert!(matches!(error, StoreError::Io { action: "write", .. }), "{way:?}: {error:?}");
            assert_eq!(files(&scratch.top()), [key(Kind::Log, 1).to_string()], "{way:?}");
        }
    }
}

#[test]
fn errors_of_the_system_get_their_meaning() {
    let check = |action: Action, kind: ErrorKind, is_there: bool| {
        error_at(Path::new("/top"), is_there, action, "log/1".to_owned().into(), kind.into())
    };
    assert!(matches!(check(Action::Write, ErrorKind::FileTooLarge, true), StoreError::TooLarge { .. }));
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        assert!(matches!(check(Action::Write, kind, true), StoreError::Full { .. }));
    }
    for kind in [ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied] {
        assert!(matches!(check(Action::Write, kind, false), StoreError::Gone { .. }));
    }
    assert!(matches!(check(Action::Delete, ErrorKind::ReadOnlyFilesystem, true), StoreError::ReadOnly { .. }));
    assert!(matches!(check(Action::Read, ErrorKind::ReadOnlyFilesystem, true), StoreError::Io { .. }));
    for action in [Action::Delete, Action::Read, Action::Write] {
        assert!(matches!(check(action, ErrorKind::PermissionDenied, true), StoreError::Denied { .. }));
    }
    assert!(matches!(check(Action::Read, ErrorKind::NotFound, true), StoreError::Missing { .. }));
    assert!(matches!(check(Action::Read, ErrorKind::NotFound, false), StoreError::Gone { .. }));
    assert!(matches!(check(Action::Write, ErrorKind::AlreadyExists, true), StoreError::Exists { .. }));
    assert!(matches!(check(Action::Read, ErrorKind::OutOfMemory, true), StoreError::Exhausted { .. }));
    for (errno, kind) in [
        (rustix::io::Errno::NOSPC, ErrorKind::StorageFull),
        (rustix::io::Errno::DQUOT, ErrorKind::QuotaExceeded),
        (rustix::io::Errno::FBIG, ErrorKind::FileTooLarge),
        (rustix::io::Errno::ROFS, ErrorKind::ReadOnlyFilesystem),
        (rustix::io::Errno::PERM, ErrorKind::PermissionDenied),
    ] {
        assert_eq!(io::Error::from(errno).kind(), kind);
    }
    for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE] {
        let error = error_at(Path::new("/top"), true, Action::Read, "log/1".to_owned().into(), errno.into());
        assert!(matches!(error, StoreError::Exhausted { .. }), "{error:?}");
    }
}

/// Objects deleted while a folder is read may or may not be listed; all others are listed, and nothing ends the list
/// early.
#[test]
fn what_is_deleted_during_a_list_hides_nothing_else() {
    let scratch = Scratch::new(Way::Anonymous);
    let name = |number: u8| {
        let mut bytes = [7; 16];
        bytes[15] = number;
        ObjectName::new(bytes)
    };
    for kind in [Kind::Pack, Kind::Key] {
        for number in 0..200 {
            scratch.put(&ObjectKey::Named(kind, name(number)), Bytes::from_static(b"x")).unwrap();
        }
        let mut listed = Vec::new();
        let mut deleted = Vec::new();
        let found = &mut |found| {
            let Listed::Object { name: now, len: 1 } = found else { panic!("{found:?}") };
            listed.push(now);
            // Delete two others for each listed object, whether those were listed already or not.
            for number in [listed.len() * 2, listed.len() * 2 + 1].map(|number| (number * 61 % 200) as u8) {
                if name(number) != now && deleted.len() < 100 && !deleted.contains(&name(number)) {
                    scratch.delete(&ObjectKey::Named(kind, name(number))).unwrap();
                    deleted.push(name(number));
                }
            }
        };
        scratch.list(kind, found).unwrap();
        assert_eq!(deleted.len(), 100);
        let stay: Vec<ObjectName> = (0..200).map(name).filter(|name| !deleted.contains(name)).collect();
        assert!(stay.iter().all(|name| listed.contains(name)), "{} of {}", listed.len(), stay.len());
    }
}

#[test]
fn a_store_that_vanishes_is_gone() {
    let scratch = Scratch::new(Way::Anonymous);
    let object = key(Kind::Pack, 1);
    scratch.put(&object, Bytes::from_static(b"bytes")).unwrap();
    fs::rename(scratch.top(), scratch.folder.path().join("elsewhere")).unwrap();
    let errors = [
        scratch.put(&object, Bytes::from_static(b"bytes")).unwrap_err(),
        scratch.put(&ObjectKey::Vault, Bytes::from_static(b"bytes")).unwrap_err(),
        scratch.get_range(&key(Kind::Pack, 2), 0, 1).map(drop).unwrap_err(),
        scratch.len(&object).map(drop).unwrap_err(),
        scratch.list(Kind::Pack, &mut |_| {}).unwrap_err(),
        scratch.delete(&object).unwrap_err(),
        scratch.quarantine(&object).unwrap_err(),
        scratch.store.writable().unwrap_err(),
        scratch.store.free_space().map(drop).unwrap_err(),
        scratch.store.foreign_at_top().map(drop).unwrap_err(),
        DirStore::open(&scratch.top()).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Gone { .. }), "{error:?}");
    }
    assert!(!scratch.top().exists(), "nothing is made in the place of a store that is gone");
}

#[test]
fn folders_that_vanish_are_made_again() {
    let scratch = Scratch::new(Way::Anonymous);
    let object = key(Kind::Pack, 1);
    scratch.put(&object, Bytes::from_static(b"bytes")).unwrap();
    fs::remove_dir_all(scratch.top().join("packs")).unwrap();
    assert_eq!(list(&scratch, Kind::Pack), (vec![], vec![]));
    assert!(
        matches!(scratch.get_range(&object, 0, 1), Err(StoreError::Missing { .. })),
        "it is not read from a kept file"
    );
    scratch.put(&object, Bytes::from_static(b"again")).unwrap();
    assert_eq!(scratch.get(&object, 9).unwrap(), b"again"[..]);
}

#[test]
fn leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    for way in [Way::Anonymous, Way::Rename] {
        let scratch = Scratch::new(way);
        let tmp = scratch.top().join(TEMPORARY);
        fs::create_dir(&tmp).unwrap();
        let path = |digit: &str| tmp.join(format!("{}.part", digit.repeat(32)));
        fs::write(path("a"), b"dead").unwrap();
        fs::set_permissions(path("a"), fs::Permissions::from_mode(0o400)).unwrap();
        let living = File::create(path("b")).unwrap();
        living.lock().unwrap();
        fs::write(tmp.join("notes.txt"), b"foreign").unwrap();
        let dead = format!("tmp/{}.part", "a".repeat(32));
        assert_eq!(scratch.store.foreign_at_top().unwrap(), [&dead, "tmp/notes.txt"]);
        scratch.put(&ObjectKey::Vault, Bytes::from_static(b"vault")).unwrap();
        assert!(!path("a").exists() && path("b").exists() && tmp.join("notes.txt").exists(), "{way:?}");
        drop(living);
        DirStore::open(&scratch.top()).unwrap().put(&key(Kind::Log, 1), Bytes::from_static(b"log")).unwrap();
        assert!(!path("b").exists());
        assert_eq!(scratch.store.foreign_at_top().unwrap(), ["tmp/notes.txt"]);
    }
}

#[test]
fn quarantine_keeps_every_copy() {
    for way in WAYS {
        let scratch = Scratch::new(way);
        let key = key(Kind::Pack, 5);
        for bytes in [b"one", b"two"] {
            scratch.put(&key, Bytes::copy_from_slice(bytes)).unwrap();
            scratch.quarantine(&key).unwrap();
        }
        let ObjectKey::Named(_, name) = key else { unreachable!() };
        let path = format!("{QUARANTINE}/packs-{name}");
        assert_eq!(fs::read(scratch.top().join(&path)).unwrap(), b"one");
        assert_eq!(files(&scratch.top()), [path.clone(), format!("{path}-1")], "{way:?}");
        assert_eq!(scratch.store.foreign_at_top().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn create_takes_only_what_is_empty_or_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let create = |name: &str| DirStore::create(&folder.path().join(name));
    fs::create_dir_all(folder.path().join("disk/lost+found")).unwrap();
    create("disk").unwrap();
    create("disk").unwrap();
    create("disk").unwrap().put(&ObjectKey::Vault, Bytes::from_static(b"vault")).unwrap();
    fs::write(folder.path().join("disk/notes"), b"notes").unwrap();
    assert_eq!(create("disk").unwrap().foreign_at_top().unwrap(), ["notes"], "a vault with a foreign file is a vault");

    fs::create_dir(folder.path().join("full")).unwrap();
    fs::write(folder.path().join("full/letter"), b"letter").unwrap();
    let error = create("full").unwrap_err();
    assert!(
        matches!(&error, StoreError::Io { source, .. } if source.kind() == ErrorKind::DirectoryNotEmpty),
        "{error:?}"
    );
    assert_eq!(files(&folder.path().join("full")), ["letter"]);
    assert!(!folder.path().join("full/packs").exists());

    let tmp = folder.path().join("interrupted/tmp");
    fs::create_dir_all(&tmp).unwrap();
    fs::write(tmp.join(format!("{}.part", "a".repeat(32))), b"dead").unwrap();
    create("interrupted").unwrap();
    fs::write(tmp.join("letter"), b"letter").unwrap();
    assert!(create("interrupted").is_err(), "a folder of that name may be the user's");

    let error = create("full/letter").unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    assert!(matches!(DirStore::open(&folder.path().join("full/letter")), Err(StoreError::Io { .. })));
    assert!(matches!(DirStore::open(&folder.path().join("nothing")), Err(StoreError::Gone { .. })));
}

#[test]
fn a_link_to_the_store_may_change_while_it_is_open() {
    let scratch = Scratch::new(Way::Anonymous);
    let link = scratch.folder.path().join("link");
    symlink("a/store", &link).unwrap();
    let store = DirStore::open(&link).unwrap();
    assert_eq!(store.folder(), scratch.store.folder());
    fs::remove_file(&link).unwrap();
    fs::create_dir(&link).unwrap();
    store.put(&ObjectKey::Vault, Bytes::from_static(b"vault")).unwrap();
    assert_eq!(scratch.get(&ObjectKey::Vault, 9).unwrap(), b"vault"[..]);
    assert_eq!(files(&link), Vec::<String>::new());
}

#[test]
fn a_store_says_whether_it_can_be_written() {
    for way in WAYS {
        let scratch = Scratch::new(way);
        scratch.store.writable().unwrap();
        assert_eq!(files(&scratch.top()), Vec::<String>::new());
        assert!(scratch.store.free_space().unwrap().is_some_and(|bytes| bytes > 0));
    }
}

#[test]
fn a_durable_deletion_says_when_the_folder_could_not_be_synced() {
    let mut scratch = Scratch::new(Way::Anonymous);
    let key = key(Kind::Key, 1);
    scratch.put(&key, Bytes::from_static(b"bytes")).unwrap();
    let sound = scratch.store.publisher.sync.folder;
    scratch.store.publisher.sync.folder = |_| Err(io::Error::other("no"));
    scratch.delete(&key).unwrap();
    // The object is gone, but may come back: only a successful sync of the folder makes the deletion a success.
    let error = scratch.delete_durably(&key).unwrap_err();
    assert!(matches!(error, StoreError::Io { action: "delete", .. }), "{error:?}");
    scratch.store.publisher.sync.folder = |path| {
        assert!(path.ends_with("keys"), "{path:?}");
        Ok(())
    };
    scratch.delete_durably(&key).unwrap();
    scratch.store.publisher.sync.folder = sound;
    fs::remove_dir(scratch.top().join("keys")).unwrap();
    scratch.delete_durably(&key).unwrap();
}

#[test]
fn trouble_of_the_line_to_a_file_server_is_no_fault_of_an_object() {
    let failed = |kind: ErrorKind| {
        let object = Subject::Object(ObjectKey::Vault);
        error_at(Path::new("/mnt/nas"), true, Action::Read, object, io::Error::new(kind, "the system's words"))
    };
    for kind in [
        ErrorKind::TimedOut,
        ErrorKind::ConnectionReset,
        ErrorKind::HostUnreachable,
        ErrorKind::NotConnected,
        ErrorKind::StaleNetworkFileHandle,
    ] {
        let error = failed(kind);
        assert!(matches!(error, StoreError::Unreachable { .. }) && error.is_of_whole(), "{error:?}");
    }
    assert!(matches!(failed(ErrorKind::Other), StoreError::Io { .. }));
    assert!(matches!(failed(ErrorKind::NotFound), StoreError::Missing { .. }));
}
