//! The vault of SPEC §12.8: it was made once and is kept in the repository. This program and the reader in Python must
//! read it as the text beside it says, now and in every later version.
//!
//! `VAULT_GOLDEN=write` makes it again, which only a change of the format needs.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault::chunk::ChunkParams;
use vault::engine::check::{CheckOptions, check};
use vault::engine::prune::collect::CollectOptions;
use vault::engine::prune::prune;
use vault::engine::query::digest::Digests;
use vault::engine::query::index::Index;
use vault::engine::snapshot::snapshot;
use vault::id::ObjectName;
use vault::log::RecordBody;
use vault::progress::Silent;
use vault::seal::Secret;
use vault::store::Store;
use vault::store::dir::DirStore;
use vault::tree::{Time, Verdict};
use vault::vault::Vault;

use crate::reader::{python, reader};
use crate::support::{PASSWORD, copy_folder, create_vault, now, open_as, options, scratch};

/// Midnight of the first of January 2026, in seconds since 1970.
const DAY_ONE: i64 = 1_767_225_600;
const DAY: i64 = 86_400;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Opens the store in this folder, with a state folder beside it.
fn opened(folder: &Path, machine: &str) -> Vault {
    let store: Arc<dyn Store> = Arc::new(DirStore::open(&folder.join("vault")).unwrap());
    open_as(&store, &folder.join(machine), &Secret::password(PASSWORD), machine).unwrap()
}

/// A machine that has the vault open, with an adjustable clock.
struct Machine {
    vault: Vault,
    source: PathBuf,
}

impl Machine {
    fn new(folder: &Path, name: &str) -> Self {
        let source = folder.join(format!("files of {name}"));
        fs::create_dir_all(&source).unwrap();
        Self { vault: opened(folder, name), source }
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.source.join(name), content).unwrap();
    }

    /// Takes a snapshot while the clock says `secs`, of the content at `given`.
    fn take(&self, source: &str, secs: i64, given: Option<i64>) -> ObjectName {
        let clock = || Time { secs, nanos: 7 };
        let time = Time { secs: given.unwrap_or(secs), nanos: 0 };
        let mut options = options(&self.source, &clock);
        (options.source, options.time, options.given) = (source.to_owned(), time, given.is_some());
        self.vault.refresh(&Silent::default()).unwrap();
        snapshot(&self.vault, options, &Silent::default()).unwrap().id.unwrap()
    }

    fn publish(&self, body: RecordBody, secs: i64) -> ObjectName {
        self.vault.refresh(&Silent::default()).unwrap();
        let time = Time { secs, nanos: 0 };
        self.vault.publish(body, time, None, |_| true, &Silent::default()).unwrap().unwrap()
    }

    /// Puts a changed copy of a snapshot's record.
    fn again(&self, id: ObjectName, secs: i64, change: impl FnOnce(&mut vault::tree::Snapshot)) -> ObjectName {
        self.vault.refresh(&Silent::default()).unwrap();
        let found = self.vault.snapshots().into_iter().find(|snapshot| snapshot.id == id);
        let mut body = found.unwrap().body;
        change(&mut body);
        self.publish(RecordBody::Snapshot(Box::new(body)), secs)
    }

    fn prune(&self, secs: i64) -> (u64, u64) {
        let clock = || Time { secs, nanos: 0 };
        self.vault.refresh(&Silent::default()).unwrap();
        let mut options = CollectOptions::new(&clock);
        options.max_unused = 0.0;
        options.level = 1;
        let report = prune(&self.vault, &[], &options, &Silent::default()).unwrap();
        (report.records_merged, report.records_deleted)
    }
}

/// Makes the vault: two machines, a clock that was wrong twice, a given date, a pin, forgotten snapshots and a replaced
/// one, a merged log, and files of every kind that the format stores in a special way.
fn make(folder: &Path) {
    let store = DirStore::create(&folder.join("vault")).unwrap();
    create_vault(&store, ChunkParams::new(256, 512, 2048).unwrap()).unwrap();
    let (one, two) = (Machine::new(folder, "one"), Machine::new(folder, "two"));
    let mut noise = vec![0; 60_000];
    blake3::Hasher::new_derive_key("vault test golden").finalize_xof().fill(&mut noise);
    one.write("noise", &noise);
    one.write("text", "all work and no play\n".repeat(300).as_bytes());
    one.write("empty", b"");
    fs::create_dir(one.source.join("folder")).unwrap();
    one.write("folder/in it", b"small");
    let mut sparse = fs::File::create(one.source.join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(131_072)).unwrap();
    sparse.write_all(b"data").unwrap();
    sparse.set_len(1_000_000).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        one.write("folder/again", b"of two names");
        fs::hard_link(one.source.join("folder/again"), one.source.join("folder/and again")).unwrap();
        std::os::unix::fs::symlink("nowhere/at all", one.source.join("link")).unwrap();
        fs::write(one.source.join(std::ffi::OsStr::from_bytes(b"not \xff text")), b"bytes").unwrap();
    }
    two.write("letter", b"Dear reader,\n");

    let first = one.take("files", DAY_ONE, None);
    two.take("letters", DAY_ONE + DAY / 2, None);
    one.write("text", "something else\n".repeat(200).as_bytes());
    let second = one.take("files", DAY_ONE + DAY, None);
    // A clock that is five years ahead, and one that was reset.
    one.take("files", DAY_ONE + 5 * 365 * DAY, None);
    two.take("letters", 3_600, None);
    one.take("files", DAY_ONE + 3 * DAY, None);
    two.take("letters", DAY_ONE + 4 * DAY, Some(DAY_ONE - 2_000 * DAY));
    one.publish(RecordBody::Pin { snapshots: vec![first], pinned: true }, DAY_ONE + 5 * DAY);
    one.again(second, DAY_ONE + 6 * DAY, |body| {
        body.replaces = vec![second];
        body.tags = vec!["told".to_owned()];
        "What was replaced has this date".clone_into(&mut body.description);
    });
    let mut hourly = Vec::new();
    for hour in 0..66 {
        let time = DAY_ONE + 7 * DAY + hour * 3_600;
        hourly.push(one.again(first, time, |body| body.time = Time { secs: time, nanos: 0 }));
    }
    let last = hourly.pop().unwrap();
    one.publish(RecordBody::Forget(hourly), DAY_ONE + 10 * DAY);
    two.again(last, DAY_ONE + 11 * DAY, |body| {
        "letters".clone_into(&mut body.source);
        body.time = Time { secs: DAY_ONE + 11 * DAY, nanos: 0 };
        body.verdict = Verdict::Partial;
    });
    assert!(two.prune(DAY_ONE + 12 * DAY).0 > 60, "the log was merged");
    one.take("files", DAY_ONE + 13 * DAY, None);
    two.take("letters", DAY_ONE + 14 * DAY, None);
    assert!(two.prune(DAY_ONE + 15 * DAY).1 > 60, "the merged records were deleted");
    two.take("letters", DAY_ONE + 16 * DAY, None);
}

/// The content as this program reads it: a line for each snapshot, in their order: id, effective date, source, files,
/// verdict, digest of its top folder.
fn told(vault: &Vault) -> String {
    let index = Index::new(vault).unwrap();
    let line = |snapshot: &vault::vault::SnapshotInfo| {
        let tree = &snapshot.body.tree;
        let digests = Digests::of(&index, std::slice::from_ref(tree), 1, &Silent::default()).unwrap();
        let verdict = if snapshot.body.verdict == Verdict::Complete { "complete" } else { "partial" };
        let date = jiff::Timestamp::new(snapshot.date.secs, 0).unwrap();
        let (id, source, files) = (snapshot.id, &snapshot.body.source, snapshot.body.files);
        format!("{id}\t{date}\t{source}\t{files}\t{verdict}\t{}\n", digests.get(tree).unwrap())
    };
    vault.snapshots().iter().map(line).collect()
}

#[test]
fn the_vault_of_the_specification_reads_as_it_says() {
    let (home, folder) = (home(), scratch());
    if std::env::var_os("VAULT_GOLDEN").is_some() {
        make(folder.path());
        let _ = fs::remove_dir_all(home.join("vault"));
        copy_folder(&folder.path().join("vault"), &home.join("vault"));
        fs::write(home.join("vault.txt"), told(&opened(folder.path(), "three"))).unwrap();
        fs::remove_dir_all(folder.path().join("vault")).unwrap();
    }
    let expected = fs::read_to_string(home.join("vault.txt")).unwrap();
    assert!(expected.lines().count() > 8, "{expected}");
    let spec = fs::read_to_string(home.join("../../SPEC.md")).unwrap();
    for cell in expected.lines().flat_map(|line| line.split('\t')) {
        assert!(spec.contains(cell), "SPEC.md does not say {cell}");
    }
    copy_folder(&home.join("vault"), &folder.path().join("vault"));
    let vault = opened(folder.path(), "four");
    assert_eq!(told(&vault), expected);
    let mut options = CheckOptions::new(&now);
    options.read_data = true;
    let report = check(&vault, &options, &Silent::default()).unwrap();
    assert!(report.problems.is_empty() && report.findings.is_empty() && report.foreign.is_empty(), "{report:?}");

    let Some(python) = python() else { return };
    let store = folder.path().join("vault").to_string_lossy().into_owned();
    let read = |args: &[&str]| {
        let output = reader(python, PASSWORD, &[&[store.as_str()], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let listed = read(&["list"]);
    let digest = |line: &str| format!("{line}\t{}\n", read(&["digest", line.split('\t').next().unwrap(), ""]));
    assert_eq!(listed.lines().map(digest).collect::<String>(), expected);
    read(&["verify"]);
}
