//! Shared parts of the tests of the whole: vaults in memory, source trees made from a seed, and a model of a tree that
//! is read from the disk and from a vault by two independent pieces of code.

pub mod binary;
#[cfg(feature = "remote")]
pub mod faults;
#[cfg(all(unix, feature = "ui"))]
pub mod http;
#[cfg(feature = "remote")]
pub mod rest;
#[cfg(feature = "remote")]
pub mod s3;
#[cfg(all(unix, feature = "remote"))]
pub mod sftp;
#[cfg(unix)]
pub mod ssh;
#[cfg(feature = "remote")]
pub mod cluster;
#[cfg(feature = "remote")]
pub mod weed;
#[cfg(target_os = "linux")]
pub mod disk;
pub mod model;
#[cfg(unix)]
#[path = "unix.rs"]
pub mod os;
#[cfg(windows)]
#[path = "windows.rs"]
pub mod os;
pub mod source;
#[cfg(unix)]
pub mod terminal;
#[cfg(unix)]
pub mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use vault::chunk::ChunkParams;
use vault::engine::prune::collect::{CollectError, CollectOptions, CollectReport};
use vault::engine::prune::prune;
use vault::engine::prune::retention::{self, Decision, Rules};
use vault::engine::snapshot::{Input, SnapshotError, SnapshotOptions, SnapshotReport, snapshot};
use vault::id::ObjectName;
use vault::id::VaultId;
use vault::progress::Silent;
use vault::seal::{KdfParams, Secret};
use vault::store::Store;
use vault::store::testing::mem::MemStore;
use vault::tree::Time;
use vault::vault::create::create;
use vault::vault::open::open;
use vault::vault::{CreateOptions, Identity, OpenOptions, Vault, VaultError};

use model::Model;

/// Opens the second key slot of test vaults, without any key derivation.
pub const RAW: [u8; 16] = *b"a device secret!";
/// Opens the first one, with the cheapest allowed derivation.
pub const PASSWORD: &str = "correct horse";

/// Two threads on every machine, so that tests take the same paths everywhere.
pub const THREADS: usize = 2;

/// Runs `work` for each case, as many at a time as there are processors. A waiting thread of a pool would begin another
/// case within its present one, as deep as its stack lasts; these threads simply wait.
pub fn each<T: Sync>(cases: &[T], work: impl Fn(usize, &T) + Sync) {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    vault::sync::share(cases.len(), threads, |number| work(number, &cases[number]));
}

/// The size of the campaign: `VAULT_CAMPAIGN=n`. 0 if it is not set.
pub fn campaign() -> u64 {
    std::env::var("VAULT_CAMPAIGN").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A folder for the files of a test, in memory if the system offers that.
pub fn scratch() -> TempDir {
    // Absolute, so that it has a drive on Windows, where such a folder may exist under Wine.
    let memory = std::path::absolute("/dev/shm").unwrap();
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("vault-test-");
        builder
    };
    if memory.is_dir()
        && let Ok(folder) = builder().tempdir_in(&memory)
    {
        return folder;
    }
    builder().tempdir().unwrap()
}

/// The time of the clock.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() }
}

/// The identity in test vaults.
pub fn identity(machine: &str) -> Identity {
    Identity {
        host: "host".to_owned(),
        user: "user".to_owned(),
        machine: machine.to_owned(),
        program: "test".to_owned(),
    }
}

/// Small chunks, so that small files have many.
pub fn small_chunks() -> ChunkParams {
    ChunkParams::new(256, 1024, 4096).unwrap()
}

/// The lowest cost of a password.
pub fn cheap() -> KdfParams {
    KdfParams::Explicit { memory_kib: 19 << 10, passes: 1, lanes: 1 }
}

/// Makes a vault with two key slots.
pub fn create_vault(store: &dyn Store, params: ChunkParams) -> Result<VaultId, VaultError> {
    let mut options = CreateOptions::new(Secret::password(PASSWORD), 1_700_000_000);
    "first".clone_into(&mut options.label);
    options.kdf = cheap();
    options.params = params;
    options.recovery = Some(Secret::raw(&RAW));
    create(store, &options).map(|created| created.id)
}

/// Opens a vault without a key derivation.
pub fn open_vault(store: &Arc<dyn Store>, state: &Path) -> Result<Vault, VaultError> {
    open_as(store, state, &Secret::raw(&RAW), "machine")
}

/// Opens a vault with a secret, as a machine.
pub fn open_as(store: &Arc<dyn Store>, state: &Path, secret: &Secret, machine: &str) -> Result<Vault, VaultError> {
    let options = OpenOptions::new(state.to_owned(), identity(machine));
    open(store.clone(), secret, options, &Silent::default())
}

/// Default options of a snapshot of one folder.
pub fn options<'a>(folder: &Path, clock: &'a (dyn Fn() -> Time + Sync)) -> SnapshotOptions<'a> {
    let mut options = SnapshotOptions::new(
        "source",
        vec![Input::Path { name: b"top".to_vec(), path: folder.to_owned(), only: None }],
        clock,
    );
    options.level = 1;
    options.threads = THREADS;
    options
}

/// How to prune to the last snapshot of each source. Data of these moves, too.
pub fn to_last(vault: &Vault) -> (Vec<Decision>, CollectOptions<'static>) {
    let rules = Rules { last: Some(1), ..Rules::default() };
    let decisions = retention::plan(&vault.snapshots(), &rules, &|_, _| String::new());
    let mut options = CollectOptions::new(&now);
    options.max_unused = 0.0;
    options.level = 1;
    options.threads = THREADS;
    (decisions, options)
}

/// Prunes to the last snapshot of each source.
pub fn prune_to_last(vault: &Vault) -> Result<CollectReport, CollectError> {
    let (decisions, options) = to_last(vault);
    prune(vault, &decisions, &options, &Silent::default())
}

/// Takes a snapshot of one folder.
pub fn take(vault: &Vault, folder: &Path) -> Result<SnapshotReport, SnapshotError> {
    snapshot(vault, options(folder, &now), &Silent::default())
}

/// A vault in memory, its source folder, and the expected content of each of its snapshots.
pub struct World {
    /// The store.
    pub store: MemStore,
    /// All files of the world on the disk.
    pub folder: TempDir,
    /// The expected content of each snapshot.
    pub expected: BTreeMap<ObjectName, Model>,
}

impl World {
    /// An empty vault, an empty source.
    pub fn new(params: ChunkParams) -> Self {
        let store = MemStore::new();
        create_vault(&store, params).unwrap();
        let folder = scratch();
        std::fs::create_dir(folder.path().join("source")).unwrap();
        Self { store, folder, expected: BTreeMap::new() }
    }

    /// The folder that is snapshotted.
    pub fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    /// The folder of this machine's state.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The store as an opened vault has it.
    pub fn shared(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    /// Opens the vault with this machine's state.
    pub fn open(&self) -> Vault {
        open_vault(&self.shared(), &self.state()).unwrap()
    }

    /// Takes a snapshot with this machine's state, and remembers its expected content.
    pub fn take(&mut self) -> ObjectName {
        let report = take(&self.open(), &self.source()).unwrap();
        assert_eq!((report.skipped.len(), report.snapshot.skipped), (0, 0), "{:?}", report.skipped);
        let id = report.id.unwrap();
        self.expected.insert(id, model::of_disk(&self.source(), b"top"));
        id
    }
}

/// Copies a folder of plain files, such as a state folder.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Reads every snapshot of a vault; each must be one of the expected ones, and equal; all expected ones must exist.
#[track_caller]
pub fn check_all(vault: &Vault, expected: &BTreeMap<ObjectName, Model>) {
    let snapshots = vault.snapshots();
    for id in expected.keys() {
        assert!(snapshots.iter().any(|snapshot| snapshot.id == *id), "snapshot {id} is lost");
    }
    for snapshot in &snapshots {
        if let Some(expected) = expected.get(&snapshot.id) {
            let read = model::of_snapshot(vault, &snapshot.body);
            assert!(read.errors.is_empty(), "snapshot {}: {:?}", snapshot.id, read.errors);
            model::assert_same(expected, &read.nodes, &format!("snapshot {}", snapshot.id));
        }
    }
}

/// Number of chunks that are stored in more than one place.
pub fn copies(vault: &Vault) -> u64 {
    let reader = vault.catalogue().reader().unwrap();
    let mut copied = 0;
    reader
        .for_each_place(|_, _, places| {
            copied += places.len() as u64 - 1;
            true
        })
        .unwrap();
    copied
}
