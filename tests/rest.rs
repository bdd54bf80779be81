//! Stores behind restic's REST protocol: a server of it, and rclone as a child. Each answer has its right meaning, and
//! a vault works there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use vault::store::remote::Policy;
use vault::store::testing::conformance::{check_store, key, list};
use vault::store::{Kind, ObjectKey, Store, StoreError};

use crate::far::{Quick, Shared, hasty, live, only_adds, opened_with};
use crate::support::binary::{Desk, said};
use crate::support::rest::{FakeRest, has_rclone};
use crate::support::s3::{Fault, Op};

const PASSWORD: &[(&str, &str)] = &[("VAULT_REST_PASSWORD", "secret")];

/// New stores on a server.
fn new_stores(server: &FakeRest) -> impl Fn() -> Shared {
    let (next, quick) = (AtomicUsize::new(0), Quick::new());
    move || {
        let address = server.vault(&format!("v{}", next.fetch_add(1, Relaxed)));
        Shared(opened_with(&address, quick.clone(), Policy::default(), PASSWORD))
    }
}

#[test]
fn servers_of_rest_conform() {
    let server = FakeRest::start();
    check_store(new_stores(&server));
    let store = Shared(opened_with(&server.vault("foreign"), Quick::new(), Policy::default(), PASSWORD));
    store.put(&key(Kind::Pack, 1), Bytes::from_static(b"pack")).unwrap();
    server.plant("foreign/packs/00/desktop.ini", b"x");
    let (objects, foreign) = list(&store, Kind::Pack);
    // A list has names, but not their folders.
    assert_eq!((objects.len(), foreign), (1, vec!["packs/desktop.ini".to_owned()]));
}

const THERE: &[u8] = &[7; 1000];

fn with_object() -> (FakeRest, Arc<Quick>, Arc<dyn Store>) {
    let (server, quick) = (FakeRest::start(), Quick::new());
    let store = opened_with(&server.vault("v"), quick.clone(), hasty(), PASSWORD);
    store.put(&key(Kind::Pack, 1), Bytes::from_static(THERE)).unwrap();
    (server, quick, store)
}

type Act = fn(&dyn Store) -> Result<(), StoreError>;

fn get(store: &dyn Store) -> Result<(), StoreError> {
    store.get(&key(Kind::Pack, 1), 1000).map(|bytes| assert_eq!(bytes, THERE))
}

fn range(store: &dyn Store) -> Result<(), StoreError> {
    store.get_range(&key(Kind::Pack, 1), 10, 500).map(|bytes| assert_eq!(bytes, THERE[10..510]))
}

fn len(store: &dyn Store) -> Result<(), StoreError> {
    store.len(&key(Kind::Pack, 1)).map(|len| assert_eq!(len, 1000))
}

fn put(store: &dyn Store) -> Result<(), StoreError> {
    let done = store.put(&key(Kind::Pack, 2), Bytes::from_static(b"what is put"));
    if done.is_ok() {
        assert_eq!(store.get(&key(Kind::Pack, 2), 100).unwrap(), b"what is put"[..]);
    }
    done
}

fn delete(store: &dyn Store) -> Result<(), StoreError> {
    store.delete(&key(Kind::Pack, 1))
}

fn list_packs(store: &dyn Store) -> Result<(), StoreError> {
    let mut count = 0;
    let done = store.list(Kind::Pack, &mut |_| count += 1);
    assert_eq!(count, usize::from(done.is_ok()), "a list is whole or none");
    done
}

const ACTS: &[(Op, Act)] =
    &[(Op::Get, get), (Op::Get, range), (Op::Head, len), (Op::Put, put), (Op::Delete, delete), (Op::List, list_packs)];

#[test]
fn what_passes_is_tried_again_and_what_stands_is_told() {
    let passing = [
        Fault::Status(500, ""),
        Fault::Status(502, ""),
        Fault::Status(503, ""),
        Fault::Status(429, ""),
        Fault::Page(200),
        Fault::Page(404),
        Fault::Page(502),
        Fault::Close,
        Fault::Lose,
        Fault::Half,
        Fault::Late(500, ""),
    ];
    for (op, act) in ACTS {
        for fault in &passing {
            // The answer to HEAD has no body.
            if *op == Op::Head && *fault == Fault::Half {
                continue;
            }
            let (server, _, store) = with_object();
            server.fail(*op, fault.clone());
            server.fail(*op, fault.clone());
            act(store.as_ref()).unwrap_or_else(|error| panic!("{op:?} {fault:?}: {error}"));
            if *op == Op::Put {
                assert_eq!(server.object(&format!("v/{}", key(Kind::Pack, 2))).unwrap(), b"what is put");
            }
        }
        let (server, _, store) = with_object();
        server.always(*op, Fault::Status(401, ""));
        let done = act(store.as_ref());
        assert!(matches!(done, Err(StoreError::Unusable { .. })), "{op:?}: {done:?}");
        server.heal();
        server.always(*op, Fault::Status(403, ""));
        let done = act(store.as_ref());
        match op {
            Op::Put | Op::Delete => {
                assert!(matches!(&done, Err(error @ StoreError::Denied { .. }) if !error.is_of_whole()), "{done:?}");
            }
            _ => assert!(matches!(done, Err(StoreError::Unusable { .. })), "{op:?}: {done:?}"),
        }
        for fault in [Fault::Close, Fault::Status(500, ""), Fault::Page(404)] {
            let (server, quick, store) = with_object();
            server.always(*op, fault.clone());
            let done = act(store.as_ref());
            assert!(matches!(&done, Err(error) if error.is_of_whole()), "{op:?} {fault:?}: {done:?}");
            assert!(quick.waited() >= Duration::from_secs(10 * 60), "{op:?} {fault:?}");
        }
    }
    let (server, _, store) = with_object();
    server.always(Op::Put, Fault::Status(507, ""));
    assert!(matches!(put(store.as_ref()), Err(StoreError::Full { .. })));
    server.heal();
    // A server that cannot send parts sends the whole.
    server.fail(Op::Get, Fault::Whole);
    range(store.as_ref()).unwrap();
    let beyond = store.get_range(&key(Kind::Pack, 1), 2000, 5);
    assert!(matches!(beyond, Err(StoreError::Short { have: 1000, .. })), "{beyond:?}");
    assert!(matches!(store.get(&key(Kind::Log, 9), 10), Err(StoreError::Missing { .. })));
}

#[test]
fn what_does_not_speak_the_protocol_is_no_store() {
    for fault in [Fault::Status(404, ""), Fault::Forget] {
        let server = FakeRest::start();
        server.always(Op::List, fault.clone());
        let store = opened_with(&server.vault("v"), Quick::new(), hasty(), PASSWORD);
        for act in [list_packs as Act, get, len, delete, put] {
            let done = act(store.as_ref());
            assert!(matches!(done, Err(StoreError::Unusable { .. })), "{fault:?}: {done:?}");
        }
    }
}

#[test]
fn a_server_that_only_grows_takes_what_is_new() {
    let (server, _, store) = with_object();
    server.only_grow();
    put(store.as_ref()).unwrap();
    let again = store.put(&key(Kind::Pack, 1), Bytes::from_static(b"other"));
    assert!(matches!(again, Err(StoreError::Exists { .. })), "{again:?}");
    assert!(matches!(delete(store.as_ref()), Err(StoreError::Denied { .. })));
    get(store.as_ref()).unwrap();
}

#[test]
fn requests_are_few() {
    let (server, _, store) = with_object();
    for op in [Op::Get, Op::Head, Op::List, Op::Put, Op::Delete] {
        server.count(op);
    }
    get(store.as_ref()).unwrap();
    range(store.as_ref()).unwrap();
    list_packs(store.as_ref()).unwrap();
    assert_eq!([Op::Get, Op::Head, Op::List, Op::Put].map(|op| server.count(op)), [2, 0, 1, 0]);
    store.put(&key(Kind::Pack, 3), Bytes::from_static(b"x")).unwrap();
    assert_eq!([Op::Get, Op::Head, Op::List, Op::Put].map(|op| server.count(op)), [0, 1, 0, 1]);
}

#[test]
fn a_vault_lives_behind_rest() {
    let server = FakeRest::start();
    live(server.vault("life"), vec![("VAULT_REST_PASSWORD", "secret".to_owned())]);
    let desk = Desk::new();
    let refused = desk.run(&["list", "--repo", &server.vault("life")]);
    assert!(refused.code == 10 && refused.err.contains("password is not taken"), "{}", refused.err);
}

/// A folder that rclone serves, started by a script that notes its process.
struct Remote {
    folder: TempDir,
    program: String,
}

impl Remote {
    fn new() -> Option<Self> {
        use std::os::unix::fs::PermissionsExt;
        if !has_rclone() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("rclone");
        let pid = folder.path().join("pid");
        let text = format!(
            "#!/bin/sh\necho $$ > {}\nRCLONE_CONFIG=/dev/null RCLONE_CONFIG_HERE_TYPE=local exec rclone \"$@\"\n",
            pid.display()
        );
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let program = program.to_str().unwrap().to_owned();
        Some(Self { folder, program })
    }

    fn vault(&self, name: &str) -> String {
        format!("rclone:here:{}/{name}", self.folder.path().display())
    }

    /// The process that was started last.
    fn process(&self) -> PathBuf {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).unwrap();
        PathBuf::from("/proc").join(pid.trim())
    }

    fn open(&self, name: &str, quick: &Arc<Quick>) -> Arc<dyn Store> {
        opened_with(&self.vault(name), quick.clone(), Policy::default(), &[("VAULT_RCLONE", &self.program)])
    }
}

#[test]
fn what_rclone_reaches_conforms() {
    let Some(remote) = Remote::new() else { return };
    let (next, quick) = (AtomicUsize::new(0), Quick::new());
    check_store(|| Shared(remote.open(&format!("v{}", next.fetch_add(1, Relaxed)), &quick)));
}

#[test]
fn a_vault_lives_where_rclone_leads() {
    let Some(remote) = Remote::new() else { return };
    live(remote.vault("life"), vec![("VAULT_RCLONE", remote.program.clone())]);
    let begun = Instant::now();
    while remote.process().exists() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!remote.process().exists(), "it ends with the command");
    let desk = Desk::new();
    let run = |repo: &str, program: &str| {
        said(&desk.command(&["list", "--repo", repo]).env("VAULT_RCLONE", program).output().unwrap())
    };
    let gone = run("rclone:nowhere:x", &remote.program);
    assert!(gone.code == 10 && gone.err.contains("rclone ends"), "{}", gone.err);
    let missing = run(&remote.vault("life"), "/nowhere/rclone");
    assert!(missing.code == 10 && missing.err.contains("rclone"), "{}", missing.err);
}

/// Somebody ends rclone: it is started again, and no object counts as missing.
#[test]
fn rclone_is_begun_again() {
    let Some(remote) = Remote::new() else { return };
    let store = remote.open("v", &Quick::new());
    store.put(&key(Kind::Pack, 1), Bytes::from_static(THERE)).unwrap();
    for _ in 0..3 {
        let process = remote.process();
        let pid: i32 = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        get(store.as_ref()).unwrap();
        list_packs(store.as_ref()).unwrap();
    }
    assert!(matches!(store.len(&ObjectKey::Vault), Err(StoreError::Missing { .. })));
}

/// A server that rclone is, as others run it: with a password, and nothing goes from it.
struct OnlyGrows {
    _folder: TempDir,
    child: std::process::Child,
    port: u16,
}

impl OnlyGrows {
    fn start() -> Option<Self> {
        if !has_rclone() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = std::process::Command::new("rclone");
        command.args(["serve", "restic", "--append-only", "--user", "me", "--pass", "secret", "--addr"]);
        command.arg(format!("127.0.0.1:{port}")).arg(folder.path()).env("RCLONE_CONFIG", "/dev/null");
        let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let server = Self { _folder: folder, child, port };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "rclone does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    fn vault(&self, name: &str) -> String {
        format!("rest+http://me@127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for OnlyGrows {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Over rclone itself: what was put cannot be replaced or deleted, and a machine takes snapshots there as anywhere.
#[test]
fn a_machine_that_may_only_add_by_rclone_takes_snapshots() {
    let Some(server) = OnlyGrows::start() else { return };
    let store = opened_with(&server.vault("objects"), Quick::new(), Policy::default(), PASSWORD);
    put(store.as_ref()).unwrap();
    let again = store.put(&key(Kind::Pack, 2), Bytes::from_static(b"other"));
    assert!(matches!(again, Err(StoreError::Exists { .. })), "{again:?}");
    let deleted = store.delete(&key(Kind::Pack, 2));
    assert!(matches!(deleted, Err(StoreError::Denied { .. })), "{deleted:?}");
    assert_eq!(store.get(&key(Kind::Pack, 2), 100).unwrap(), b"what is put"[..]);
    only_adds(server.vault("life"), vec![("VAULT_REST_PASSWORD", "secret".to_owned())]);
}
