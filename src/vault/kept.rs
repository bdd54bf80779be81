//! A cache of a far store on this machine, so that nothing is fetched twice: parts of meta packs, which hold the
//! trees, and the key slots. Nothing depends on it.
//!
//! A part is kept as the store sent it, sealed, with a hash under a key of the vault that also covers its name and
//! its position. It is opened and verified like any other when it is read. A part that does not match its hash is
//! fetched from the store, and so are all parts of a pack that does not open. A part counts only as long as its pack
//! is listed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::id::ObjectName;
use crate::ownfile;
use crate::pack::together::Together;
use crate::pack::{Footer, PackReader, SegmentPlace};
use crate::seal::{HEADER_LEN, ObjectKind, SlotFile};
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits};
use crate::sync::lock;
use crate::vault::Vault;
use crate::vault::files::{make_private_folder, replace_file};

/// The length of the hash at the start of a kept part.
const HASH_LEN: usize = 32;
/// The share of the limit that remains when too much is kept: seven eighths.
const STAYS: (u64, u64) = (7, 8);

/// A store that keeps the parts of meta packs that were read on this machine.
#[derive(Debug)]
pub(crate) struct KeptStore {
    store: Arc<dyn Store>,
    /// The folder, with a folder for each pack, in which each part is a file.
    folder: PathBuf,
    key: HashKey,
    /// The largest number of bytes to keep.
    max: u64,
    /// The number of bytes kept, once they were counted.
    used: Mutex<Option<u64>>,
}

/// The key for the hashes of parts.
struct HashKey([u8; 32]);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

impl KeptStore {
    fn pack_folder(&self, name: &ObjectName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    fn hash(&self, name: &ObjectName, offset: u64, bytes: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key.0);
        hasher.update(name.as_bytes()).update(&offset.to_le_bytes()).update(bytes).finalize()
    }

    /// A part, if it is kept and matches its hash.
    fn find(&self, name: &ObjectName, offset: u64, len: usize) -> Option<Bytes> {
        let path = self.pack_folder(name).join(offset.to_string());
        let mut bytes = Bytes::from(ownfile::read_up_to(&path, (HASH_LEN + len) as u64).ok()?);
        if bytes.len() != HASH_LEN + len {
            return None;
        }
        let part = bytes.split_off(HASH_LEN);
        (self.hash(name, offset, &part) == bytes[..]).then_some(part)
    }

    /// Keeps a part. If that fails, the part is fetched again when it is needed.
    fn keep(&self, name: &ObjectName, offset: u64, bytes: &[u8]) {
        let folder = self.pack_folder(name);
        let len = (HASH_LEN + bytes.len()) as u64;
        if len > self.max || make_private_folder(&folder).is_err() {
            return;
        }
        let whole = [&self.hash(name, offset, bytes).as_bytes()[..], bytes].concat();
        if replace_file(&folder.join(offset.to_string()), &whole, false).is_ok() {
            self.make_room(len);
        }
    }

    /// Counts added bytes. If there are too many, removes the packs to which nothing was added for the longest time.
    fn make_room(&self, added: u64) {
        let mut used = lock(&self.used);
        match &mut *used {
            Some(used) => *used += added,
            None => *used = Some(self.packs().iter().map(|pack| pack.len).sum()),
        }
        if used.is_none_or(|used| used <= self.max) {
            return;
        }
        let mut packs = self.packs();
        packs.sort_unstable_by_key(|pack| pack.changed);
        let mut sum: u64 = packs.iter().map(|pack| pack.len).sum();
        for pack in packs {
            if sum <= self.max / STAYS.1 * STAYS.0 {
                break;
            }
            if fs::remove_dir_all(&pack.path).is_ok() {
                sum -= pack.len;
            }
        }
        *used = Some(sum);
    }

    /// The packs with kept parts.
    fn packs(&self) -> Vec<KeptPack> {
        let folders = crate::folder::entries(&self.folder).into_iter().flatten().flatten();
        folders.map(|folder| folder.path()).filter_map(|path| KeptPack::new(&path)).collect()
    }

    /// Removes the packs that are no longer listed.
    fn keep_only(&self, is_listed: impl Fn(&ObjectName) -> bool) {
        let folders = crate::folder::entries(&self.folder).into_iter().flatten().flatten();
        for folder in folders {
            let name = folder.file_name().to_str().and_then(|name| name.parse::<ObjectName>().ok());
            if !name.is_some_and(|name| is_listed(&name)) && fs::remove_dir_all(folder.path()).is_ok() {
                *lock(&self.used) = None;
            }
        }
    }

    /// Removes a pack that does not open.
    fn forget(&self, name: &ObjectName) {
        if fs::remove_dir_all(self.pack_folder(name)).is_ok() {
            *lock(&self.used) = None;
        }
    }
}

/// A pack with kept parts.
struct KeptPack {
    path: PathBuf,
    len: u64,
    changed: Option<std::time::SystemTime>,
}

impl KeptPack {
    fn new(path: &Path) -> Option<Self> {
        let changed = fs::symlink_metadata(path).ok()?.modified().ok();
        let parts = crate::folder::entries(path).ok()?.flatten();
        let len = parts.filter_map(|part| part.metadata().ok()).map(|part| part.len()).sum();
        Some(Self { path: path.to_owned(), len, changed })
    }
}

impl Store for KeptStore {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(key, bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let ObjectKey::Named(Kind::Meta, name) = key else { return self.store.get_range(key, offset, len) };
        if let Some(part) = self.find(name, offset, len) {
            return Ok(part);
        }
        let part = self.store.get_range(key, offset, len)?;
        self.keep(name, offset, &part);
        Ok(part)
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

impl Vault {
    /// From now on, keeps on this machine the parts of meta packs that are read or put, up to about `max` bytes, so
    /// that trees are not fetched twice. Worth it where a request costs more than a file.
    pub fn keep_trees(&self, max: u64) {
        let kept = KeptStore {
            store: self.store.clone(),
            folder: self.state.join("trees"),
            key: HashKey(self.keys().derive_local("kept trees")),
            max,
            used: Mutex::default(),
        };
        let kept = self.kept.get_or_init(|| kept);
        let log = self.log();
        kept.keep_only(|name| log.packs.contains_key(name));
    }

    /// A reader of the packs in the store. It notes packs that it finds damaged (see [`Self::note_findings`]).
    pub(crate) fn pack_reader(&self) -> PackReader<'_> {
        PackReader::new(self.store(), self.keys()).watched(self)
    }

    /// As [`Self::pack_reader`], for callers that need the content of trees, and not the state of the store: it may
    /// read the parts of meta packs that are kept on this machine.
    pub(crate) fn tree_packs(&self) -> PackReader<'_> {
        let store = if self.is_store_judged.load(Relaxed) { self.store() } else { self.store_with_trees() };
        PackReader::new(store, self.keys()).watched(self)
    }

    /// Makes everything from now on be read from the store itself, because the store is to be checked.
    pub(crate) fn judge_store(&self) {
        self.is_store_judged.store(true, Relaxed);
    }

    /// The store as readers of trees use it.
    fn store_with_trees(&self) -> &dyn Store {
        match self.kept.get() {
            Some(kept) => kept,
            None => self.store(),
        }
    }

    /// Keeps parts of a meta pack that was just put, and that the store has.
    pub(crate) fn keep_meta_pack(&self, name: &ObjectName, bytes: &Bytes, footer: &Footer) {
        let Some(kept) = self.kept.get() else { return };
        let mut offset = HEADER_LEN;
        let lens = footer.segments.iter().map(|segment| segment.sealed_len as usize);
        let parts = lens.map(|len| {
            offset += len;
            offset - len..offset
        });
        for part in std::iter::once(0..HEADER_LEN).chain(parts) {
            if let Some(part_bytes) = bytes.get(part.clone()) {
                kept.keep(name, part.start as u64, part_bytes);
            }
        }
    }

    /// Whether readers of trees have a segment of a meta pack on this machine. Whether that is whole shows when it is read.
    pub(crate) fn has_kept(&self, place: &SegmentPlace) -> bool {
        let kept = self.kept.get().filter(|_| !self.is_store_judged.load(Relaxed));
        kept.is_some_and(|kept| kept.pack_folder(&place.pack).join(place.offset.to_string()).exists())
    }

    /// Keeps segments of a meta pack that were read together, and its header if they came with it.
    pub(crate) fn keep_together(&self, together: &Together, places: &[SegmentPlace]) {
        let Some(kept) = self.kept.get() else { return };
        let Some(SegmentPlace { pack, .. }) = places.first() else { return };
        if let Some(header) = together.header() {
            kept.keep(pack, 0, &header);
        }
        for place in places {
            if let Some(part) = together.part(place) {
                kept.keep(pack, place.offset, &part);
            }
        }
    }

    /// Whether [`Self::keep_meta_pack`] should be called for a pack that is put.
    pub(crate) fn keeps(&self, kind: ObjectKind) -> bool {
        kind == ObjectKind::Meta && self.kept.get().is_some()
    }

    /// Called after the store was listed: removes packs that are gone.
    pub(super) fn keep_only_listed(&self) {
        if let Some(kept) = self.kept.get() {
            let log = self.log();
            kept.keep_only(|name| log.packs.contains_key(name));
        }
    }

    /// Called for a pack that does not open: removes its parts.
    pub(super) fn forget_kept(&self, pack: &ObjectKey) {
        if let (Some(kept), ObjectKey::Named(Kind::Meta, name)) = (self.kept.get(), pack) {
            kept.forget(name);
        }
    }
}

/// Key slots kept on this machine, each in a file under its name in the store. A slot counts only while it is listed.
pub(super) struct KeptSlots<'f>(pub &'f Path);

impl KeptSlots<'_> {
    /// The slot of this name, if it is kept and whole. Whether it opens is checked as with any other.
    pub(super) fn find(&self, name: &ObjectName) -> Option<SlotFile> {
        SlotFile::parse(&ownfile::read(&self.0.join(name.to_string())).ok()?).ok()
    }

    /// Keeps a slot that is whole.
    pub(super) fn keep(&self, name: &ObjectName, slot: &SlotFile) {
        if make_private_folder(self.0).is_ok() {
            // A slot that cannot be kept is fetched again.
            let _ = replace_file(&self.0.join(name.to_string()), slot.as_bytes(), false);
        }
    }

    /// Removes the slots that are no longer listed.
    pub(super) fn keep_only(&self, listed: &[ObjectName]) {
        let listed: HashSet<&ObjectName> = listed.iter().collect();
        for file in crate::folder::entries(self.0).into_iter().flatten().flatten() {
            let name = file.file_name().to_str().and_then(|name| name.parse::<ObjectName>().ok());
            if !name.is_some_and(|name| listed.contains(&name)) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::conformance::key;
    use crate::store::testing::counting::CountingStore;
    use crate::store::testing::mem::MemStore;

    struct Fixture {
        counting: Arc<CountingStore<MemStore>>,
        folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let store = MemStore::new();
            for number in 0..20 {
                store.put(&key(Kind::Meta, number), Bytes::from(vec![number as u8; 2000])).unwrap();
                store.put(&key(Kind::Pack, number), Bytes::from(vec![number as u8; 2000])).unwrap();
            }
            Self { counting: Arc::new(CountingStore::new(store)), folder: tempfile::tempdir().unwrap() }
        }

        fn kept(&self, max: u64) -> KeptStore {
            let folder = self.folder.path().join("trees");
            KeptStore { store: self.counting.clone(), folder, key: HashKey([7; 32]), max, used: Mutex::default() }
        }

        /// The number of requests that a read takes.
        fn read(&self, kept: &KeptStore, key: &ObjectKey, offset: u64) -> usize {
            self.counting.take();
            let expected = self.counting.get_range(key, offset, 100).unwrap();
            self.counting.take();
            assert_eq!(kept.get_range(key, offset, 100).unwrap(), expected);
            self.counting.take().total()
        }

        fn parts(&self) -> Vec<PathBuf> {
            let folders = fs::read_dir(self.folder.path().join("trees")).unwrap().flatten();
            folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten()).map(|part| part.path()).collect()
        }
    }

    #[test]
    fn parts_of_meta_packs_are_fetched_once() {
        let fixture = Fixture::new();
        for expected in [1, 0] {
            // A second store, as in another process.
            let kept = fixture.kept(1 << 20);
            for (number, offset) in [(1, 0), (1, 500), (2, 0)] {
                assert_eq!(fixture.read(&kept, &key(Kind::Meta, number), offset), expected);
            }
            assert_eq!(fixture.read(&kept, &key(Kind::Pack, 1), 0), 1, "content is not kept");
        }
        // A part does not match another key or another length.
        let other = KeptStore { key: HashKey([8; 32]), ..fixture.kept(1 << 20) };
        assert_eq!(fixture.read(&other, &key(Kind::Meta, 1), 0), 1);
        assert_eq!(fixture.kept(1 << 20).get_range(&key(Kind::Meta, 2), 0, 50).unwrap(), vec![2; 50]);
        assert!(matches!(other.get_range(&key(Kind::Meta, 99), 0, 1), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn nothing_that_is_kept_is_believed() {
        let fixture = Fixture::new();
        let kept = fixture.kept(1 << 20);
        let object = key(Kind::Meta, 1);
        assert_eq!(fixture.read(&kept, &object, 0), 1);
        let [part] = fixture.parts().try_into().unwrap();
        let sound = fs::read(&part).unwrap();
        let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sound.clone();
            change(&mut bytes);
            fs::write(&part, bytes).unwrap();
            assert_eq!(fixture.read(&kept, &object, 0), 1, "it is fetched");
            assert_eq!(fixture.read(&kept, &object, 0), 0, "and kept again");
        };
        damaged(&|bytes| bytes[40] ^= 1);
        damaged(&|bytes| bytes[0] ^= 1);
        damaged(&|bytes| bytes.truncate(131));
        damaged(&Vec::clear);
        // A part from another position, or of another pack, does not match.
        fs::write(part.with_file_name("100"), &sound).unwrap();
        assert_eq!(fixture.read(&kept, &object, 100), 1);
        assert_eq!(fixture.read(&kept, &key(Kind::Meta, 2), 0), 1);
        let ObjectKey::Named(_, two) = key(Kind::Meta, 2) else { panic!("it has a name") };
        fs::copy(&part, kept.pack_folder(&two).join("0")).unwrap();
        assert_eq!(fixture.read(&kept, &key(Kind::Meta, 2), 0), 1);
    }

    #[test]
    fn what_is_kept_is_bounded_and_listed() {
        let fixture = Fixture::new();
        let max = 8 * 132;
        let kept = fixture.kept(max);
        for number in 0..20 {
            fixture.read(&kept, &key(Kind::Meta, number), 0);
            let sum: u64 = fixture.parts().iter().map(|part| fs::metadata(part).unwrap().len()).sum();
            assert!(sum <= max, "{sum}");
        }
        assert!(fixture.parts().len() >= 6, "{}", fixture.parts().len());
        assert_eq!(fixture.read(&kept, &key(Kind::Meta, 19), 0), 0, "the newest stays");
        let ObjectKey::Named(_, last) = key(Kind::Meta, 19) else { panic!("it has a name") };
        kept.keep_only(|name| *name == last);
        assert_eq!(fixture.parts().len(), 1);
        kept.forget(&last);
        assert_eq!(fixture.parts().len(), 0);
        // A part larger than the limit is not kept at all.
        assert_eq!(fixture.read(&fixture.kept(100), &key(Kind::Meta, 1), 0), 1);
        assert_eq!(fixture.parts().len(), 0);
    }
}
