//! A panic in any thread comes out as that panic, never as an interruption or another error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use vault::engine::archive::export::export;
use vault::engine::archive::import::{ImportOptions, import};
use vault::engine::prune;
use vault::engine::prune::collect::CollectOptions;
use vault::engine::prune::retention;
use vault::engine::restore::{RestoreOptions, Target, restore};
use vault::progress::Silent;
use vault::store::testing::mem::MemStore;
use vault::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits};

use crate::support::source::{Size, bytes, plant};
use crate::support::{THREADS, World, now, open_vault, small_chunks, take};

/// A store in which access to a pack panics, if it is told to.
#[derive(Debug)]
struct Brittle {
    store: MemStore,
    breaks: AtomicBool,
    spares_trees: AtomicBool,
}

impl Brittle {
    fn touch(&self, key: &ObjectKey) {
        let is_pack = match key {
            ObjectKey::Named(Kind::Pack, _) => true,
            ObjectKey::Named(Kind::Meta, _) => !self.spares_trees.load(Relaxed),
            _ => false,
        };
        assert!(!(is_pack && self.breaks.load(Relaxed)), "brittle");
    }
}

impl Store for Brittle {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.touch(key);
        self.store.put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.touch(key);
        self.store.get_range(key, offset, len)
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.touch(key);
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

#[test]
fn a_panic_in_a_helper_thread_is_a_panic() {
    let mut world = World::new(small_chunks());
    plant(&world.source(), 1, Size::Tiny);
    world.take();
    std::fs::write(world.source().join("more"), bytes(1, 50_000)).unwrap();
    world.take();
    let brittle = Arc::new(Brittle {
        store: MemStore::from_state(world.store.snapshot()),
        breaks: AtomicBool::new(false),
        spares_trees: AtomicBool::new(false),
    });
    let store: Arc<dyn Store> = brittle.clone();
    let vault = open_vault(&store, &world.state()).unwrap();
    let info = vault.snapshots().pop().unwrap();
    let mut archive = Vec::new();
    export(&vault, &info, b"", &mut archive, &Silent::default()).unwrap();
    let check = |what: &str, work: &mut dyn FnMut() -> String| {
        brittle.breaks.store(true, Relaxed);
        let done = catch_unwind(AssertUnwindSafe(work));
        brittle.breaks.store(false, Relaxed);
        assert!(done.is_err(), "{what}: {done:?}");
    };
    std::fs::write(world.source().join("new"), bytes(2, 50_000)).unwrap();
    check("snapshot", &mut || format!("{:?}", take(&vault, &world.source()).map(drop)));
    // Only packs of content: the threads that read ahead meet it.
    let content = |work: &mut dyn FnMut() -> String| {
        brittle.spares_trees.store(true, Relaxed);
        check("restore", work);
        brittle.spares_trees.store(false, Relaxed);
    };
    let to = world.folder.path().join("restored");
    let options = RestoreOptions::new(info.id, Target::Folder(to));
    content(&mut || format!("{:?}", restore(&vault, &options, &Silent::default()).map(drop)));
    check("export", &mut || format!("{:?}", export(&vault, &info, b"", &mut Vec::new(), &Silent::default()).map(drop)));
    let mut options = ImportOptions::new("other", &now);
    options.level = 1;
    options.verify = false;
    options.threads = THREADS;
    // Its new content must be put.
    archive.truncate(archive.len() - 1024);
    archive.extend(changed(&archive));
    archive.extend([0; 1024]);
    check("import", &mut || {
        format!("{:?}", import(&vault, &mut archive.as_slice(), &options, &Silent::default()).map(drop))
    });
    let decisions = retention::plan(&vault.snapshots(), &retention::Rules::default(), &|_, _| String::new());
    let mut options = CollectOptions::new(&now);
    options.max_unused = 0.0;
    options.level = 1;
    options.threads = THREADS;
    let mut drop_all = decisions;
    drop_all.truncate(1);
    drop_all.iter_mut().for_each(|decision| decision.reasons.clear());
    check("prune", &mut || format!("{:?}", prune::prune(&vault, &drop_all, &options, &Silent::default()).map(drop)));
    // This breaks nothing.
    let copy = world.folder.path().join("fresh");
    std::fs::create_dir(&copy).unwrap();
    assert!(Path::new(&copy).is_dir());
    take(&vault, &world.source()).unwrap();
}

/// A new file, as a member of an archive.
fn changed(like: &[u8]) -> Vec<u8> {
    let content = bytes(77, 40_000);
    let mut block = [0; 512];
    block[257..265].copy_from_slice(&like[257..265]);
    block[..5].copy_from_slice(b"fresh");
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000001");
    block[148..156].copy_from_slice(b"        ");
    block[156] = b'0';
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut out = block.to_vec();
    out.extend(&content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}
