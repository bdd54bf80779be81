//! The reader in Python, which was written from SPEC.md alone, must find in a vault everything that the library put
//! there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use vault::chunk::ChunkParams;
use vault::engine::prune::collect::CollectOptions;
use vault::engine::prune::prune;
use vault::engine::query::digest::Digests;
use vault::engine::query::index::Index;
use vault::engine::snapshot::{Input, SnapshotOptions, SnapshotReport, snapshot};
use vault::log::RecordBody;
use vault::progress::Silent;
use vault::seal::{KdfParams, RecoveryKey, Secret};
use vault::store::dir::DirStore;
use vault::tree::Time;
use vault::vault::{CreateOptions, Identity, OpenOptions, Vault};

const PASSWORD: &str = "correct horse é";
const PACKAGES: [&str; 6] = ["blake3", "zstandard", "argon2-cffi", "PyNaCl", "msgpack", "kyber-py"];
const MODULES: &str = "import blake3, zstandard, argon2, nacl, msgpack, kyber_py";

/// A Python with the packages that the reader needs, kept below `target`. `None` if there is no Python, or no way to
/// get the packages.
pub fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON
        .get_or_init(|| {
            let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reader-venv");
            let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
            let works = |program: &Path, args: &[&str]| {
                Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
            };
            let pip = [&["-m", "pip", "install", "--quiet", "--disable-pip-version-check"][..], &PACKAGES].concat();
            let ready = works(&python, &["-c", MODULES])
                || works(Path::new("python3"), &["-m", "venv", &venv.to_string_lossy()])
                    && works(&python, &pip)
                    && works(&python, &["-c", MODULES]);
            if !ready {
                eprintln!("NOTICE: the reader in Python was not tried: python3 or its packages cannot be had here");
            }
            ready.then_some(python)
        })
        .as_deref()
}

/// Runs the reader with this password, whatever the result.
pub fn reader(python: &Path, password: &str, args: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py");
    Command::new(python).arg(script).args(args).env("VAULT_PASSWORD", password).output().unwrap()
}

/// Runs the reader, which must succeed; returns its output.
fn read(python: &Path, args: &[&str]) -> String {
    let output = reader(python, PASSWORD, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A vault in a folder of its own, with its source files beside it.
struct Scene {
    folder: tempfile::TempDir,
    vault: Vault,
    recovery: RecoveryKey,
}

impl Scene {
    fn new(params: ChunkParams) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let recovery = RecoveryKey::generate().unwrap();
        let mut options = CreateOptions::new(Secret::password(PASSWORD), 1_800_000_000);
        "reader".clone_into(&mut options.label);
        options.kdf = KdfParams::Explicit { memory_kib: 19 << 10, passes: 1, lanes: 2 };
        options.params = params;
        options.recovery = Some(recovery.secret());
        let store = DirStore::create(&store).unwrap();
        vault::vault::create::create(&store, &options).unwrap();
        let text = |text: &str| text.to_owned();
        let identity =
            Identity { host: text("here"), user: text("me"), machine: text("machine"), program: text("test") };
        let options = OpenOptions::new(folder.path().join("state"), identity);
        let secret = Secret::password(PASSWORD);
        let vault = vault::vault::open::open(Arc::new(store), &secret, options, &Silent::default()).unwrap();
        Self { folder, vault, recovery }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> String {
        self.path("store").to_string_lossy().into_owned()
    }

    fn snapshot(&self, time: i64) -> SnapshotReport {
        let mut options = SnapshotOptions::new(
            "files",
            vec![Input::Path { name: b"files".to_vec(), path: self.path("files"), only: None }],
            &|| Time { secs: 1_900_000_000, nanos: 0 },
        );
        options.time = Time { secs: time, nanos: 0 };
        options.threads = 2;
        snapshot(&self.vault, options, &Silent::default()).unwrap()
    }

    /// Extracts a path of a snapshot with the reader, and returns the extracted files.
    fn extract(&self, python: &Path, snapshot: &str, path: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let out = self.path("out");
        read(python, &[&self.store(), "extract", snapshot, path, &out.to_string_lossy()]);
        let found = contents(&out);
        if out.is_dir() { fs::remove_dir_all(&out) } else { fs::remove_file(&out) }.unwrap();
        found
    }
}

/// Every path below `top` with its content (the target of a link, nothing for a folder).
fn contents(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn visit(top: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        let kind = fs::symlink_metadata(path).unwrap().file_type();
        let content = if kind.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                visit(top, &entry.unwrap().path(), found);
            }
            Vec::new()
        } else if kind.is_symlink() {
            fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(path).unwrap()
        };
        found.insert(path.strip_prefix(top).unwrap().to_owned(), content);
    }
    let mut found = BTreeMap::new();
    visit(top, top, &mut found);
    found
}

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut bytes);
    bytes
}

/// Files of every sort that the format stores in a special way.
fn make_files(top: &Path) {
    fs::create_dir_all(top.join("empty folder")).unwrap();
    fs::create_dir_all(top.join("many")).unwrap();
    fs::write(top.join("empty"), b"").unwrap();
    // Its content is that of the listing of an empty folder: one chunk, in one pack only.
    fs::write(top.join("one"), [1]).unwrap();
    fs::write(top.join("text"), "all work and no play\n".repeat(5000)).unwrap();
    fs::write(top.join("noise"), noise("vault test reader", 3_000_000)).unwrap();
    for number in 0..500 {
        fs::write(top.join("many").join(format!("file {number}")), format!("{number}")).unwrap();
    }
    for (name, holes) in [("sparse", 3_u64), ("very sparse", 400)] {
        let mut file = File::create(top.join(name)).unwrap();
        for number in 0..holes {
            file.seek(SeekFrom::Start((2 * number + 1) * 65_536)).unwrap();
            file.write_all(format!("data {number}").as_bytes()).unwrap();
        }
        file.set_len(2 * holes * 65_536 + 1_000_000).unwrap();
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        fs::write(top.join(std::ffi::OsStr::from_bytes(b"not \xff text\n")), b"bytes").unwrap();
        std::os::unix::fs::symlink("nowhere/at all", top.join("link")).unwrap();
        fs::hard_link(top.join("text"), top.join("text again")).unwrap();
    }
}

/// The digest of the folder `files` in a snapshot, by its place among them.
fn digest(vault: &Vault, number: usize) -> String {
    let info = vault.snapshots().swap_remove(number);
    let entry = vault::engine::query::browse::find_entry(vault, &info, b"files").unwrap();
    let listing = entry.content.unwrap();
    let index = Index::new(vault).unwrap();
    let digests = Digests::of(&index, std::slice::from_ref(&listing), 2, &Silent::default()).unwrap();
    let digest = digests.get(&listing).unwrap();
    digest.to_string()
}

/// Everything that a test calls a vector is printed in SPEC.md.
#[test]
fn the_spec_prints_the_vectors() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    let spec = plain(&fs::read_to_string(top.join("SPEC.md")).unwrap());
    let mut count = 0;
    for (path, bytes) in contents(&top.join("src")) {
        let source = String::from_utf8_lossy(&bytes).replace("\\\n", " ");
        for vector in source.split("const VECTOR_").skip(1) {
            let value = plain(vector.split('"').nth(1).unwrap());
            assert!(spec.contains(&value), "{}: VECTOR_{}", path.display(), &vector[..40]);
            count += 1;
        }
    }
    assert!(count > 10, "{count} vectors");
}

/// The reader computes or opens each vector by itself.
#[test]
fn the_reader_agrees_with_every_vector() {
    let Some(python) = python() else { return };
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("SPEC.md");
    let said = read(python, &[&spec.to_string_lossy(), "vectors"]);
    let count: u32 = said.trim_end().strip_suffix(" vectors").unwrap().parse().unwrap();
    assert!(count >= 54, "{said}");
}

#[test]
fn the_reader_written_from_the_spec_finds_everything() {
    let Some(python) = python() else { return };
    // The small chunks make lists of ids that are nested twice.
    for params in [ChunkParams::default(), ChunkParams::new(256, 512, 2048).unwrap()] {
        let scene = Scene::new(params);
        let files = scene.path("files");
        make_files(&files);
        let first = scene.snapshot(1_700_000_000).id.unwrap().to_string();
        let before = contents(&files);
        fs::write(files.join("text"), "changed").unwrap();
        fs::remove_file(files.join("noise")).unwrap();
        let second = scene.snapshot(1_700_000_100).id.unwrap().to_string();
        let after = contents(&files);

        let listed = read(python, &[&scene.store(), "list"]);
        let ids: Vec<&str> = listed.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!(ids, [&first, &second]);
        assert!(listed.contains("2023-11-14T22:13:20Z\tfiles\t"), "{listed}");
        assert_eq!(scene.extract(python, &first, "files"), before);
        assert_eq!(scene.extract(python, "latest", "/files/"), after);
        let one = |path: &str| scene.extract(python, &first[..8], path).into_values().next().unwrap();
        assert_eq!(one("files/many/file 77"), b"77");
        assert_eq!(one("files/noise"), before[Path::new("noise")]);
        assert!(read(python, &[&scene.store(), "verify"]).ends_with("2 snapshots\n"));
        for (id, time) in [(&first, 0), (&second, 1)] {
            let read = read(python, &[&scene.store(), "digest", id, "files"]);
            assert_eq!(read.trim(), digest(&scene.vault, time), "snapshot {time}");
        }

        let forget = RecordBody::Forget(vec![second.parse().unwrap()]);
        let time = Time { secs: 1_700_000_200, nanos: 0 };
        scene.vault.publish(forget, time, None, |_| true, &Silent::default()).unwrap();
        assert_eq!(read(python, &[&scene.store(), "list"]).lines().count(), 1);
        assert_eq!(scene.extract(python, "latest", "files"), before);
    }
}

#[test]
fn the_reader_takes_records_out_of_merges() {
    let Some(python) = python() else { return };
    let scene = Scene::new(ChunkParams::default());
    make_files(&scene.path("files"));
    let first = scene.snapshot(1_700_000_000).id.unwrap();
    let listed = read(python, &[&scene.store(), "list"]);
    // After everything before, so that it moves no date.
    let clock = || Time { secs: 4_000_000_000, nanos: 0 };
    for _ in 0..70 {
        let nothing = RecordBody::Forget(Vec::new());
        scene.vault.publish(nothing, clock(), None, |_| true, &Silent::default()).unwrap();
    }
    let mut options = CollectOptions::new(&clock);
    options.max_unused = 0.0;
    options.level = 1;
    options.verify = false;
    options.threads = 2;
    // The first one merges, the second one deletes the merged records.
    let merged = prune(&scene.vault, &[], &options, &Silent::default()).unwrap();
    let deleted = prune(&scene.vault, &[], &options, &Silent::default()).unwrap();
    assert!(merged.records_merged > 70 && deleted.records_deleted == merged.records_merged, "{merged:?} {deleted:?}");
    assert!(fs::read_dir(scene.path("store/log")).unwrap().count() < 5);
    assert!(scene.vault.has_all_before(&first));
    assert_eq!(read(python, &[&scene.store(), "list"]), listed);
    assert!(read(python, &[&scene.store(), "verify"]).ends_with("1 snapshots\n"));
    assert_eq!(scene.extract(python, "latest", "files"), contents(&scene.path("files")));
}

#[test]
fn the_reader_takes_a_recovery_key_and_refuses_what_is_wrong() {
    let Some(python) = python() else { return };
    let scene = Scene::new(ChunkParams::default());
    make_files(&scene.path("files"));
    scene.snapshot(1_700_000_000);
    let store = scene.store();
    let run = |password: &str, args: &[&str]| {
        let output = reader(python, password, args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let recovery = scene.recovery.to_text().to_lowercase();
    assert_eq!(run(&recovery, &[&store, "list"]).0, Some(0));
    fs::remove_file(scene.path("store/VAULT")).unwrap();
    assert_eq!(run(PASSWORD, &[&store, "verify"]), (Some(0), String::new()));
    assert!(run("correct horse", &[&store, "list"]).1.contains("wrong"));

    // One flipped bit in the middle of each object: this object is named, and no other.
    for folder in ["packs", "meta", "log"] {
        let top = scene.path("store").join(folder);
        let object = contents(&top).into_iter().find(|(_, bytes)| !bytes.is_empty()).unwrap();
        let mut bytes = object.1.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        let path = top.join(&object.0);
        fs::write(&path, &bytes).unwrap();
        let (code, said) = run(PASSWORD, &[&store, "verify"]);
        let name = object.0.file_name().unwrap().to_string_lossy().into_owned();
        assert!(code == Some(4) && said.lines().count() == 1 && said.contains(&name), "{folder}: {said}");
        fs::write(&path, &object.1).unwrap();
    }
}
