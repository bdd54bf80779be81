//! Random histories: edits of a source, snapshots, prunes by random rules, pins, checks, catalogues that are lost,
//! garbled or set back, interrupted runs, other machines. Each kept snapshot reads back, and restores, as the source of
//! its own day; after a prune, no more unneeded data is stored than the prune was told to leave.
//!
//! 60 histories of up to 40 steps by default; `VAULT_CAMPAIGN=n` makes it n thousand.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};
use vault::engine::check::{CheckOptions, check};
use vault::engine::patterns::exclude::ExcludeOptions;
use vault::engine::prune::collect::CollectOptions;
use vault::engine::prune::retention::{self, Rules};
use vault::engine::prune::{prune, say};
use vault::engine::repair::{self, RepairOptions};
use vault::engine::restore::{RestoreOptions, Target, restore};
use vault::engine::snapshot::{Empty, SnapshotOptions, snapshot};
use vault::id::ObjectName;
use vault::log::{Acknowledgements, RecordBody};
use vault::progress::Silent;
use vault::store::testing::faulty::{Fault, FaultyStore, Leaves};
use vault::store::{Kind, ObjectKey, Store};
use vault::vault::{SnapshotInfo, Vault};

use crate::support::model::{Model, assert_same, of_disk, of_snapshot};
use crate::support::os::set_xattr;
use crate::support::source::{self, Size, bytes, plant};
use crate::support::usage::usage;
use crate::support::{THREADS, World, campaign, check_all, now, open_vault, options, scratch, small_chunks, take};

/// One step of a history. Its numbers select among the files and snapshots that exist then.
#[derive(Debug, Clone)]
enum Step {
    Create {
        at: u16,
        len: u32,
        seed: u64,
    },
    /// The same size, in place.
    Overwrite {
        at: u16,
        seed: u64,
    },
    /// The same size, in place, with the modification time set back: only ctime shows it.
    OverwriteQuietly {
        at: u16,
        seed: u64,
    },
    /// Another file of the same size and the same time under the same name.
    ReplaceQuietly {
        at: u16,
        seed: u64,
    },
    Append {
        at: u16,
        len: u16,
        seed: u64,
    },
    Truncate {
        at: u16,
    },
    Delete {
        at: u16,
    },
    MakeFolder {
        at: u16,
    },
    Rename {
        at: u16,
        to: u16,
    },
    SetMode {
        at: u16,
        mode: u16,
    },
    SetTime {
        at: u16,
        secs: i32,
    },
    SetXattr {
        at: u16,
        value: u8,
    },
    HardLink {
        at: u16,
        to: u16,
    },
    Symlink {
        at: u16,
        to: u16,
    },
    SwapKinds {
        at: u16,
    },
    Sparse {
        at: u16,
        seed: u64,
    },
    Snapshot,
    /// The same folder under another source name, whose files are remembered separately.
    OtherSource,
    ReadAll,
    /// Another machine with a state of its own.
    OtherMachine,
    CutRun {
        write: u8,
        whole: bool,
    },
    LoseCatalogue,
    GarbleCatalogue {
        at: u32,
        len: u16,
    },
    /// The catalogue, or this machine's whole state, as it was at an earlier moment.
    SetBack {
        all: bool,
    },
    Restore {
        which: u16,
    },
    /// A snapshot with a tag.
    Tagged {
        tag: u8,
    },
    Pin {
        which: u16,
        pinned: bool,
    },
    Forget {
        which: u16,
    },
    /// Forgets by random rules, and frees the space; interrupted at a write, if one is given.
    Prune {
        last: Option<u8>,
        tag: Option<u8>,
        unused: u8,
        cut: Option<u8>,
    },
    Check {
        read_data: bool,
    },
    /// A pack is damaged, or lost; then a repair, and a snapshot.
    Damage {
        which: u16,
        at: u32,
        gone: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::*;
    let len = prop_oneof![4 => 0..200_u32, 4 => 0..20_000_u32, 1 => 0..200_000_u32];
    let step = prop_oneof![
        6 => (any::<u16>(), len, any::<u64>()).prop_map(|(at, len, seed)| Create { at, len, seed }),
        2 => (any::<u16>(), any::<u64>()).prop_map(|(at, seed)| Overwrite { at, seed }),
        2 => (any::<u16>(), any::<u64>()).prop_map(|(at, seed)| OverwriteQuietly { at, seed }),
        1 => (any::<u16>(), any::<u64>()).prop_map(|(at, seed)| ReplaceQuietly { at, seed }),
        2 => (any::<u16>(), 0..5000_u16, any::<u64>()).prop_map(|(at, len, seed)| Append { at, len, seed }),
        1 => any::<u16>().prop_map(|at| Truncate { at }),
        2 => any::<u16>().prop_map(|at| Delete { at }),
        3 => any::<u16>().prop_map(|at| MakeFolder { at }),
        3 => (any::<u16>(), any::<u16>()).prop_map(|(at, to)| Rename { at, to }),
        1 => (any::<u16>(), 0..0o10000_u16).prop_map(|(at, mode)| SetMode { at, mode }),
        1 => (any::<u16>(), any::<i32>()).prop_map(|(at, secs)| SetTime { at, secs }),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(at, value)| SetXattr { at, value }),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(at, to)| HardLink { at, to }),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(at, to)| Symlink { at, to }),
        1 => any::<u16>().prop_map(|at| SwapKinds { at }),
        1 => (any::<u16>(), any::<u64>()).prop_map(|(at, seed)| Sparse { at, seed }),
        9 => Just(Snapshot),
        1 => Just(OtherSource),
        1 => Just(ReadAll),
        1 => Just(OtherMachine),
        2 => (0..6_u8, any::<bool>()).prop_map(|(write, whole)| CutRun { write, whole }),
        1 => Just(LoseCatalogue),
        1 => (any::<u32>(), 1..2000_u16).prop_map(|(at, len)| GarbleCatalogue { at, len }),
        1 => any::<bool>().prop_map(|all| SetBack { all }),
        1 => any::<u16>().prop_map(|which| Restore { which }),
        1 => (0..3_u8).prop_map(|tag| Tagged { tag }),
        1 => (any::<u16>(), any::<bool>()).prop_map(|(which, pinned)| Pin { which, pinned }),
        1 => any::<u16>().prop_map(|which| Forget { which }),
        3 => (prop::option::weighted(0.8, 0..4_u8), prop::option::of(0..3_u8), prop::sample::select(vec![0, 5, 50_u8]),
            prop::option::weighted(0.25, 0..12_u8)).prop_map(|(last, tag, unused, cut)| Prune { last, tag, unused, cut }),
        1 => any::<bool>().prop_map(|read_data| Check { read_data }),
        1 => (any::<u16>(), any::<u32>(), prop::bool::weighted(0.3)).prop_map(|(which, at, gone)| Damage { which, at, gone }),
    ];
    prop::collection::vec(step, 1..40)
}

struct History {
    world: World,
    /// An earlier state of this machine.
    earlier: PathBuf,
    /// The last statements about pins.
    pins: BTreeMap<ObjectName, bool>,
    /// Number of finished prunes, and of packs that they deleted.
    pruned: u64,
    freed: u64,
    /// Number of repairs, of snapshots that lost something, and of those that were whole again after the next snapshot.
    repaired: u64,
    hurt: u64,
    healed: u64,
}

impl History {
    fn new() -> Self {
        let world = World::new(small_chunks());
        let earlier = world.folder.path().join("earlier");
        Self { world, earlier, pins: BTreeMap::new(), pruned: 0, freed: 0, repaired: 0, hurt: 0, healed: 0 }
    }

    /// Everything in the source, sorted, the source itself first.
    fn paths(&self) -> Vec<PathBuf> {
        let mut out = vec![self.world.source()];
        let mut next = 0;
        while next < out.len() {
            if fs::symlink_metadata(&out[next]).unwrap().is_dir() {
                let entries = fs::read_dir(&out[next]).unwrap();
                let mut below: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
                below.sort();
                out.extend(below);
            }
            next += 1;
        }
        out
    }

    /// One of the paths for which `wanted` returns true.
    fn choose(&self, at: u16, wanted: impl Fn(&Path, &fs::Metadata) -> bool) -> Option<PathBuf> {
        let mut paths = self.paths();
        paths.retain(|path| wanted(path, &fs::symlink_metadata(path).unwrap()));
        (!paths.is_empty()).then(|| paths.swap_remove(usize::from(at) % paths.len()))
    }

    fn file(&self, at: u16) -> Option<PathBuf> {
        self.choose(at, |_, meta| meta.is_file())
    }

    fn folder(&self, at: u16) -> PathBuf {
        self.choose(at, |_, meta| meta.is_dir()).unwrap()
    }

    /// Anything but the source itself.
    fn inner(&self, at: u16) -> Option<PathBuf> {
        let top = self.world.source();
        self.choose(at, |path, _| path != top)
    }

    /// An unused name in one of the folders.
    fn free(&self, at: u16) -> PathBuf {
        let folder = self.folder(at);
        let base = ["a", "file.txt", "b.o", "\u{e9}", " ", "x\ny", "Z"][usize::from(at / 7) % 7];
        (0_u16..1000)
            .map(|number| folder.join(format!("{base}{number}")))
            .find(|path| fs::symlink_metadata(path).is_err())
            .unwrap()
    }

    fn edit(&self, step: &Step) {
        match *step {
            Step::Create { at, len, seed } => source::write(&self.free(at), seed, len as usize),
            Step::Overwrite { at, seed } => {
                if let Some(path) = self.file(at) {
                    let len = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap().min(1 << 20);
                    OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes(seed, len)).unwrap();
                }
            }
            Step::OverwriteQuietly { at, seed } => {
                if let Some(path) = self.file(at) {
                    let meta = fs::metadata(&path).unwrap();
                    let len = usize::try_from(meta.len()).unwrap().min(1 << 20);
                    OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes(seed, len)).unwrap();
                    File::open(&path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
                }
            }
            Step::ReplaceQuietly { at, seed } => {
                if let Some(path) = self.file(at) {
                    let meta = fs::metadata(&path).unwrap();
                    let len = usize::try_from(meta.len()).unwrap().min(1 << 20);
                    let other = path.with_file_name("in between");
                    fs::write(&other, bytes(seed, len)).unwrap();
                    File::open(&other).unwrap().set_modified(meta.modified().unwrap()).unwrap();
                    fs::rename(&other, &path).unwrap();
                }
            }
            Step::Append { at, len, seed } => {
                if let Some(path) = self.file(at) {
                    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                    file.write_all(&bytes(seed, usize::from(len))).unwrap();
                }
            }
            Step::Truncate { at } => {
                if let Some(path) = self.file(at) {
                    let file = OpenOptions::new().write(true).open(&path).unwrap();
                    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
                }
            }
            Step::Delete { at } => {
                if let Some(path) = self.inner(at) {
                    remove(&path);
                }
            }
            Step::MakeFolder { at } => fs::create_dir(self.free(at)).unwrap(),
            Step::Rename { at, to } => {
                if let Some(path) = self.inner(at) {
                    let to = self.free(to);
                    if !to.starts_with(&path) {
                        fs::rename(&path, to).unwrap();
                    }
                }
            }
            Step::SetMode { at, mode } => {
                if let Some(path) = self.inner(at).filter(|path| !path.is_symlink()) {
                    // A user other than root must still be able to read it.
                    let readable = if path.is_dir() { 0o700 } else { 0o600 };
                    fs::set_permissions(&path, fs::Permissions::from_mode(u32::from(mode) | readable)).unwrap();
                }
            }
            Step::SetTime { at, secs } => {
                if let Some(path) = self.inner(at).filter(|path| !path.is_symlink()) {
                    source::set_mtime(&path, i64::from(secs), secs.unsigned_abs() % 1_000_000_000);
                }
            }
            Step::SetXattr { at, value } => {
                if let Some(path) = self.inner(at).filter(|path| !path.is_symlink()) {
                    set_xattr(&path, "user.test", &vec![value; usize::from(value)]);
                }
            }
            Step::HardLink { at, to } => {
                if let Some(path) = self.file(at) {
                    fs::hard_link(path, self.free(to)).unwrap();
                }
            }
            Step::Symlink { at, to } => symlink(self.folder(at), self.free(to)).unwrap(),
            Step::SwapKinds { at } => {
                if let Some(path) = self.inner(at) {
                    let was_folder = fs::symlink_metadata(&path).unwrap().is_dir();
                    remove(&path);
                    if was_folder { fs::write(&path, "now a file").unwrap() } else { fs::create_dir(&path).unwrap() }
                }
            }
            Step::Sparse { at, seed } => source::sparse(&self.free(at), seed, 100_000),
            _ => {}
        }
    }

    fn take(&mut self, vault: &Vault, change: impl FnOnce(&mut SnapshotOptions<'_>)) {
        // An emptied source is intended here.
        let mut options = options(&self.world.source(), &now);
        options.empty = Empty::Accepted;
        change(&mut options);
        let report = snapshot(vault, options, &Silent::default()).unwrap();
        assert_eq!(report.skipped, []);
        self.world.expected.insert(report.id.unwrap(), of_disk(&self.world.source(), b"top"));
    }

    fn run(&mut self, step: &Step) {
        let catalogue = || {
            let id = fs::read_dir(self.world.state()).ok()?.next()?.ok()?.path();
            Some(id.join("catalogue.redb")).filter(|path| path.exists())
        };
        match *step {
            Step::Snapshot => {
                let vault = self.world.open();
                self.take(&vault, |_| {});
            }
            Step::OtherSource => {
                let vault = self.world.open();
                self.take(&vault, |options| "other".clone_into(&mut options.source));
            }
            Step::ReadAll => {
                let vault = self.world.open();
                self.take(&vault, |options| options.read_all = true);
            }
            Step::OtherMachine => {
                let vault = open_vault(&self.world.shared(), &self.world.folder.path().join("other state")).unwrap();
                self.take(&vault, |_| {});
            }
            Step::CutRun { write, whole } => {
                let leaves = if whole { Leaves::Whole } else { Leaves::Nothing };
                let faulty = FaultyStore::new(self.world.store.clone());
                faulty.add(Fault::CutAtWrite { write: write.into(), leaves });
                let shared: Arc<dyn Store> = Arc::new(faulty);
                let vault = open_vault(&shared, &self.world.state()).unwrap();
                if let Ok(report) = take(&vault, &self.world.source()) {
                    self.world.expected.insert(report.id.unwrap(), of_disk(&self.world.source(), b"top"));
                }
            }
            Step::LoseCatalogue => {
                if let Some(path) = catalogue() {
                    fs::remove_file(path).unwrap();
                }
            }
            Step::GarbleCatalogue { at, len } => {
                if let Some(path) = catalogue() {
                    let mut file = OpenOptions::new().write(true).open(path).unwrap();
                    let at = u64::from(at) % file.metadata().unwrap().len();
                    file.seek(SeekFrom::Start(at)).unwrap();
                    file.write_all(&bytes(at, len.into())).unwrap();
                }
            }
            Step::SetBack { all } => {
                if self.earlier.exists() {
                    let state = self.world.state();
                    if all {
                        remove(&state);
                        crate::support::copy_folder(&self.earlier, &state);
                    } else if let Some(path) = catalogue() {
                        let below = path.strip_prefix(&state).unwrap();
                        if self.earlier.join(below).exists() {
                            fs::copy(self.earlier.join(below), &path).unwrap();
                        }
                    }
                }
                if self.world.state().exists() {
                    fs::remove_dir_all(&self.earlier).unwrap_or_default();
                    crate::support::copy_folder(&self.world.state(), &self.earlier);
                }
            }
            Step::Restore { which } => {
                let ids: Vec<ObjectName> = self.world.expected.keys().copied().collect();
                if !ids.is_empty() {
                    let id = ids[usize::from(which) % ids.len()];
                    check_restore(&self.world.open(), id, &self.world.expected[&id]);
                }
            }
            Step::Tagged { tag } => {
                let vault = self.world.open();
                self.take(&vault, |options| options.tags = vec![format!("tag {tag}")]);
            }
            Step::Pin { which, pinned } => {
                if let Some(id) = self.snapshot(which) {
                    let body = RecordBody::Pin { snapshots: vec![id], pinned };
                    say(&self.world.open(), body, now(), &Silent::default()).unwrap();
                    self.pins.insert(id, pinned);
                }
            }
            Step::Forget { which } => {
                if let Some(id) = self.snapshot(which) {
                    say(&self.world.open(), RecordBody::Forget(vec![id]), now(), &Silent::default()).unwrap();
                    self.world.expected.remove(&id);
                }
            }
            Step::Prune { last, tag, unused, cut } => self.prune(last, tag, unused, cut),
            Step::Check { read_data } => {
                let mut options = CheckOptions::new(&now);
                options.read_data = read_data;
                options.threads = THREADS;
                let report = check(&self.world.open(), &options, &Silent::default()).unwrap();
                assert!(!report.is_damaged(), "{report:?}");
            }
            Step::Damage { which, at, gone } => self.damage(which, at, gone),
            _ => self.edit(step),
        }
    }

    /// After a repair only files that are marked as lost are missing; and the next snapshot brings back those that are
    /// still on the disk.
    fn damage(&mut self, which: u16, at: u32, gone: bool) {
        let objects = self.world.store.objects().into_iter().map(|(key, _)| key);
        let packs: Vec<ObjectKey> =
            objects.filter(|key| matches!(key, ObjectKey::Named(Kind::Pack | Kind::Meta, _))).collect();
        if packs.is_empty() {
            return;
        }
        let key = &packs[usize::from(which) % packs.len()];
        if gone {
            assert!(self.world.store.remove(key).is_some());
        } else {
            assert!(self.world.store.mutate(key, |bytes| {
                let at = at as usize % bytes.len();
                bytes[at] ^= 1 << (at % 8);
            }));
        }
        let mut options = RepairOptions::new(&now);
        options.read_data = true;
        options.of_others = true;
        options.threads = THREADS;
        let vault = self.world.open();
        let planned = repair::plan(&vault, &options, &Silent::default()).unwrap();
        let marked: BTreeSet<ObjectName> = planned.hurt.iter().map(|hurt| hurt.id).collect();
        repair::execute(&vault, planned, &options, &Silent::default()).unwrap();
        for snapshot in vault.snapshots() {
            let Some(expected) = self.world.expected.get(&snapshot.id) else { continue };
            let read = of_snapshot(&vault, &snapshot.body);
            assert_eq!(!read.errors.is_empty(), marked.contains(&snapshot.id), "{:?}", read.errors);
            for (path, mut node) in read.nodes {
                let expected = &expected[&path];
                node.first_name.clone_from(&expected.first_name);
                assert_eq!(&node, expected, "{path:?}");
            }
        }
        self.take(&vault, |_| ());
        self.repaired += 1;
        self.hurt += marked.len() as u64;
        let there: HashSet<blake3::Hash> =
            of_disk(&self.world.source(), b"top").values().filter_map(|node| node.content).collect();
        for snapshot in vault.snapshots() {
            let Some(expected) = self.world.expected.get(&snapshot.id) else { continue };
            let errors = of_snapshot(&vault, &snapshot.body).errors;
            let is_there = |path: &Vec<u8>| expected[path].content.is_some_and(|content| there.contains(&content));
            let stays: Vec<_> =
                errors.iter().filter(|(path, _)| expected.contains_key(path) && is_there(path)).collect();
            assert!(stays.is_empty(), "on the disk, and not healed: {stays:?}");
            if errors.is_empty() {
                self.healed += u64::from(marked.contains(&snapshot.id));
            } else {
                assert!(marked.contains(&snapshot.id), "{errors:?}");
                say(&vault, RecordBody::Forget(vec![snapshot.id]), now(), &Silent::default()).unwrap();
                self.world.expected.remove(&snapshot.id);
            }
        }
        // Packs that an interrupted run left may be damaged as well.
        for snapshot in vault.snapshots() {
            if !self.world.expected.contains_key(&snapshot.id) && marked.contains(&snapshot.id) {
                say(&vault, RecordBody::Forget(vec![snapshot.id]), now(), &Silent::default()).unwrap();
            }
        }
    }

    /// One of the known snapshots.
    fn snapshot(&self, which: u16) -> Option<ObjectName> {
        let ids: Vec<ObjectName> = self.world.expected.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[usize::from(which) % ids.len()])
    }

    /// The snapshots that a simple reading of the rules keeps: the last of each source, tagged ones, pinned ones; and
    /// always the last one, which is complete here, unless the rules explicitly keep nothing.
    fn kept(&self, vault: &Vault, last: Option<u8>, tag: Option<u8>) -> BTreeSet<ObjectName> {
        let snapshots = vault.snapshots();
        let mut kept = BTreeSet::new();
        for source in ["source", "other"] {
            let mut group: Vec<_> = snapshots.iter().filter(|info| info.body.source == source).collect();
            group.reverse();
            let wanted = |info: &SnapshotInfo| {
                self.pins.get(&info.id) == Some(&true)
                    || tag.is_some_and(|tag| info.body.tags == [format!("tag {tag}")])
            };
            let newest = group.iter().take(last.unwrap_or(0).into()).map(|info| info.id);
            let mut ids: BTreeSet<ObjectName> = newest.collect();
            ids.extend(group.iter().filter(|info| wanted(info)).map(|info| info.id));
            if last != Some(0) {
                ids.extend(group.first().map(|info| info.id));
            }
            kept.extend(ids);
        }
        kept
    }

    fn prune(&mut self, last: Option<u8>, tag: Option<u8>, unused: u8, cut: Option<u8>) {
        let faulty = Arc::new(FaultyStore::new(self.world.store.clone()));
        let shared: Arc<dyn Store> = faulty.clone();
        let vault = open_vault(&shared, &self.world.state()).unwrap();
        let tags = tag.iter().map(|tag| format!("tag {tag}")).collect();
        let rules = Rules { last: last.map(u64::from), tags, ..Rules::default() };
        let decisions = retention::plan(&vault.snapshots(), &rules, &|_, _| String::new());
        let kept = self.kept(&vault, last, tag);
        let planned = decisions.iter().filter(|decision| decision.keep()).map(|decision| decision.id);
        assert_eq!(planned.collect::<BTreeSet<_>>(), kept, "{rules:?}");
        if let Some(write) = cut {
            faulty.add(Fault::CutAtWrite { write: faulty.counts().writes + u64::from(write), leaves: Leaves::Nothing });
        }
        let max_unused = f64::from(unused) / 100.0;
        let mut options = CollectOptions::new(&now);
        options.max_unused = max_unused;
        options.level = 1;
        options.threads = THREADS;
        let pruned = prune(&vault, &decisions, &options, &Silent::default());
        drop(vault);
        let Ok(report) = pruned else {
            assert!(cut.is_some(), "{pruned:?}");
            let left: BTreeSet<ObjectName> = self.world.open().snapshots().iter().map(|info| info.id).collect();
            // Forgotten together, or not at all.
            if !self.world.expected.keys().all(|id| left.contains(id)) {
                assert_eq!(left, kept);
                self.world.expected.retain(|id, _| kept.contains(id));
            }
            return;
        };
        self.world.expected.retain(|id, _| kept.contains(id));
        let elsewhere = scratch();
        let vault = open_vault(&self.world.shared(), elsewhere.path()).unwrap();
        check_all(&vault, &self.world.expected);
        // Packs that another machine has yet to acknowledge, and those that may belong to its work, must stay.
        let chains = vault.chains();
        let mut waiting = vault.condemned();
        if Acknowledgements::new(&chains).active().count() > 1 {
            let claimed = chains.claimed();
            waiting.extend(vault.pack_names().into_iter().filter(|name| !claimed.contains(name)));
        }
        if report.packs_waiting > 0 {
            assert!(!report.obstacles.is_empty(), "{report:?}");
        }
        let found = usage(&vault, &waiting);
        assert_eq!(found.dead_packs, 0, "{found:?}, {report:?}");
        // One in a thousand for rounding.
        let allowed = found.needed * u64::from(unused) / 100 + found.needed / 1000 + 16;
        assert!(found.unused <= allowed, "{found:?} with at most {unused} %, {report:?}");
        self.pruned += 1;
        self.freed += report.packs_deleted;
    }
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

fn restore_options(snapshot: ObjectName, to: &Path) -> RestoreOptions {
    let mut options = RestoreOptions::new(snapshot, Target::Folder(to.to_owned()));
    options.numeric_owner = true;
    options.threads = THREADS;
    options
}

/// Restores a snapshot, and compares everything.
#[track_caller]
fn check_restore(vault: &Vault, id: ObjectName, expected: &Model) {
    let folder = scratch();
    let report = restore(vault, &restore_options(id, &folder.path().join("to")), &Silent::default()).unwrap();
    assert_eq!(report.problem_count, 0, "{:?}", report.problems);
    let restored = of_disk(&folder.path().join("to/top"), b"top");
    assert_same(expected, &restored, "restored");
}

#[test]
fn every_snapshot_reads_back_and_restores_as_its_own_day() {
    let cases = if campaign() > 0 { u32::try_from(campaign() * 1000).unwrap() } else { 60 };
    let config = Config {
        cases,
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        rng_seed: RngSeed::Fixed(campaign()),
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let (pruned, freed) = (Cell::new(0), Cell::new(0));
    let (repaired, hurt, healed) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let done = runner.run(&steps(), |steps| {
        let mut history = History::new();
        let mut garbled = false;
        for step in steps.iter().chain([&Step::Snapshot]) {
            garbled |= matches!(step, Step::GarbleCatalogue { .. });
            // A catalogue full of garbage may end one command, and no more.
            if !garbled || catch_unwind(AssertUnwindSafe(|| history.run(step))).is_err() {
                history.run(step);
                garbled = false;
            }
        }
        pruned.set(pruned.get() + history.pruned);
        freed.set(freed.get() + history.freed);
        repaired.set(repaired.get() + history.repaired);
        hurt.set(hurt.get() + history.hurt);
        healed.set(healed.get() + history.healed);
        let mut vault = history.world.open();
        if garbled && catch_unwind(AssertUnwindSafe(|| check_all(&vault, &history.world.expected))).is_err() {
            drop(vault);
            vault = history.world.open();
        }
        check_all(&vault, &history.world.expected);
        let snapshots = vault.snapshots();
        // Snapshots of an interrupted run may be there as well; all of them are whole.
        for snapshot in &snapshots {
            let read = of_snapshot(&vault, &snapshot.body);
            prop_assert!(read.errors.is_empty(), "{:?}", read.errors);
        }
        drop(vault);
        // The store alone brings all of it back.
        let vault = open_vault(&history.world.shared(), &history.world.folder.path().join("nowhere")).unwrap();
        check_all(&vault, &history.world.expected);
        for (id, expected) in history.world.expected.iter().take(3) {
            check_restore(&vault, *id, expected);
        }
        Ok(())
    });
    if let Err(error) = done {
        panic!("{error}");
    }
    assert!(pruned.get() > 0 && freed.get() > 0);
    assert!(repaired.get() > 0 && hurt.get() > healed.get() && healed.get() > 0);
    println!("histories: {cases}, prunes in them: {}, packs that these deleted: {}", pruned.get(), freed.get());
    println!("repairs: {}, hurt snapshots: {}, healed: {}", repaired.get(), hurt.get(), healed.get());
}

#[test]
fn a_tree_of_every_kind_of_file_restores_as_it_was() {
    for seed in 0..=campaign() {
        let mut world = World::new(vault::chunk::ChunkParams::default());
        plant(&world.source(), seed, if seed % 4 == 0 { Size::Large } else { Size::Small });
        let id = world.take();
        let vault = world.open();
        check_all(&vault, &world.expected);
        check_restore(&vault, id, &world.expected[&id]);
        let folder = scratch();
        restore(&vault, &restore_options(id, &folder.path().join("to")), &Silent::default()).unwrap();
        let disk = |path: &str, root: &Path| fs::metadata(root.join(path)).unwrap().blocks();
        for path in ["sparse", "only a hole"] {
            let (before, after) = (disk(path, &world.source()), disk(path, &folder.path().join("to/top")));
            assert!(after <= before + 16, "{path} takes {after} blocks, and took {before}: its holes are filled");
        }
    }
}

/// The result of a simple reading of gitignore: the last matching pattern decides, and everything below an excluded
/// folder is excluded.
fn is_left_out(patterns: &[String], path: &str, model: &BTreeMap<String, bool>) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    (1..=parts.len()).any(|depth| {
        let prefix = parts[..depth].join("/");
        let is_folder = model[&prefix];
        let mut out = false;
        for pattern in patterns {
            let (negated, rest) = pattern.strip_prefix('!').map_or((false, pattern.as_str()), |rest| (true, rest));
            let (only_folders, rest) = rest.strip_suffix('/').map_or((false, rest), |rest| (true, rest));
            let name = parts[depth - 1];
            let fits = match rest.strip_prefix('/') {
                Some(anchored) => anchored == prefix,
                None => rest.strip_prefix('*').map_or(rest == name, |suffix| name.ends_with(suffix)),
            };
            if fits && (is_folder || !only_folders) {
                out = !negated;
            }
        }
        out
    })
}

#[test]
fn excludes_leave_out_what_a_simple_model_says() {
    let world = World::new(small_chunks());
    let names = ["a.o", "b.c", "build", "keep", "deep"];
    let mut model = BTreeMap::new();
    for first in names {
        for second in names {
            fs::create_dir_all(world.source().join(first).join(second)).unwrap();
            model.extend([(first.to_owned(), true), (format!("{first}/{second}"), true)]);
            for third in ["a.o", "b.c", "keep"] {
                let path = format!("{first}/{second}/{third}");
                fs::write(world.source().join(&path), &path).unwrap();
                model.insert(path, false);
            }
        }
    }
    let vocabulary =
        ["*.o", "*.c", "/build", "/keep/deep", "build/", "keep", "!keep", "!a.o", "!*.c", "deep/", "/a.o/"];
    let config = Config {
        cases: 40,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        rng_seed: RngSeed::Fixed(campaign()),
        ..Config::default()
    };
    let vault = world.open();
    let done = TestRunner::new(config).run(&prop::collection::vec(0..vocabulary.len(), 0..6), |chosen| {
        let patterns: Vec<String> = chosen.iter().map(|index| vocabulary[*index].to_owned()).collect();
        let mut options = options(&world.source(), &now);
        options.exclude = ExcludeOptions { patterns: patterns.clone(), ..ExcludeOptions::default() };
        let report = snapshot(&vault, options, &Silent::default()).unwrap();
        let read = of_snapshot(&vault, &vault.snapshot(&report.id.unwrap()).unwrap().body);
        let found: BTreeSet<String> = read
            .nodes
            .into_keys()
            .filter_map(|path| String::from_utf8(path).unwrap().strip_prefix("top/").map(str::to_owned))
            .collect();
        let expected: BTreeSet<String> =
            model.keys().filter(|path| !is_left_out(&patterns, path, &model)).cloned().collect();
        prop_assert_eq!(found, expected, "{:?}", patterns);
        Ok(())
    });
    if let Err(error) = done {
        panic!("{error}");
    }
}
