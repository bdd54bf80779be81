//! Walks the source and turns folders into trees (SPEC §7, §8.5).
//!
//! Every folder is read in pages of neighbouring names. A page is finished when each of its files is stored and each of
//! its folders has a tree; a folder is finished when its pages are, and its listing goes up into the page of its parent.
//! Whoever finishes the last part goes on with what depends on it, so nobody waits and nothing recurses. Tasks run on a
//! pool that works on the newest first, which keeps few folders open at a time; an idle thread takes the oldest, which
//! keeps what lies together in the tree together in the segments.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::Scope;

use crate::catalogue::stat::{FolderKey, FolderRows};
use crate::catalogue::{StatEntry, StatRow};
use crate::engine::depot::{Depot, Failed};
use crate::engine::exclude::{ExcludeOptions, Rules};
use crate::engine::read_file::{Content, Feed, ReadFailed, SMALL_MAX, holes_between, read_large, read_small, same_content};
use crate::fs::{Dir, Names, OwnerNames, Stat};
use crate::limits::PATH_DEPTH_MAX;
use crate::path::{Shown, join};
use crate::progress::Progress;
use crate::tree::entry::{LISTING_VERSION, flags};
use crate::tree::{
    ChunkSource, Entry, FileKind, Holes, IdReader, Skipped, Stream, StreamWriter, Time, decode_entry, encode_entry,
};
use crate::vault::{ReadError, TreeReader};

/// Folders with more names than this are read in pages.
const PAGE_MAX: usize = 4096;
/// A page ends behind a name whose hash has these bits zero, so that a new name moves no other page's bounds.
const PAGE_MASK: u64 = 0x3ff;
/// Small files are read in batches of about this many bytes, so that other threads can take some.
const BATCH_LEN: u64 = 4 << 20;
/// Files from this size on are worked on by all threads at once.
const SHARED_LEN: u64 = 32 << 20;

/// Paths that are wanted, as a tree of names.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Everything from here on.
    all: bool,
    below: BTreeMap<Vec<u8>, Arc<Wanted>>,
}

impl Wanted {
    /// The tree of these paths.
    pub fn new(paths: &[Vec<u8>]) -> Self {
        let mut sorted: Vec<Vec<&[u8]>> = paths.iter().map(|path| crate::path::components(path).collect()).collect();
        sorted.sort_unstable();
        Self::build(&sorted, 0)
    }

    fn build(paths: &[Vec<&[u8]>], depth: usize) -> Self {
        let mut wanted = Self { all: paths.iter().any(|path| path.len() == depth), below: BTreeMap::new() };
        if !wanted.all {
            for group in paths.chunk_by(|a, b| a[depth] == b[depth]) {
                wanted.below.insert(group[0][depth].to_vec(), Arc::new(Self::build(group, depth + 1)));
            }
        }
        wanted
    }
}

/// What was found, in numbers.
#[derive(Debug, Default)]
pub struct Found {
    /// Files of every kind but folders.
    pub files: AtomicU64,
    /// Folders.
    pub folders: AtomicU64,
    /// Sizes of the regular files.
    pub bytes: AtomicU64,
    /// Files that were not there before.
    pub files_new: AtomicU64,
    /// Files that differ from before.
    pub files_changed: AtomicU64,
    /// Files that were not opened.
    pub files_unchanged: AtomicU64,
    /// Bytes read from files.
    pub bytes_read: AtomicU64,
    /// Things that could not be read.
    pub unreadable: AtomicU64,
}

/// The walk of one snapshot.
pub struct Walk<'a> {
    /// Where chunks go.
    pub depot: &'a Depot<'a>,
    /// Whom to tell.
    pub progress: &'a dyn Progress,
    /// What to leave out.
    pub exclude: &'a ExcludeOptions,
    /// A hash of the source's name: sources do not share remembered folders.
    pub source: [u8; 16],
    /// Number of the session that writes rows.
    pub session: u64,
    /// Sessions whose rows are believed without looking chunks up.
    pub trusted: std::collections::BTreeSet<u64>,
    /// Read every file.
    pub read_all: bool,
    /// What was changed from this time on may have been changed after it was read, too.
    pub racy_from: Time,
    /// Folders that are never entered: the store's and the catalogue's own (device, inode).
    pub never: Vec<(u64, u64)>,
    /// Names of owners.
    pub owners: &'a OwnerNames,
    /// Reads lists of ids of large unchanged files, where they have to be looked up.
    pub trees: Mutex<TreeReader<'a>>,
    /// What was found.
    pub found: Found,
    /// Names of files that have several, by device and inode.
    pub links: Mutex<HashMap<(u64, u64), Links>>,
    /// What could not be saved as it should be.
    pub skipped: Mutex<SkippedList>,
    /// The entries of the top folder.
    pub top: Mutex<Vec<Option<Vec<u8>>>>,
}

/// The names of one file.
#[derive(Debug, Default)]
pub struct Links {
    /// Paths in the snapshot.
    pub paths: Vec<Vec<u8>>,
    /// Its entry, once it has been read under one of them, with what it looked like.
    entry: Option<(Entry, Stat)>,
}

/// What was skipped: the first ones for the report, all of them as a stream.
#[derive(Default)]
pub struct SkippedList {
    /// The first ones.
    pub first: Vec<Skipped>,
    /// How many there are.
    pub count: u64,
    /// All of them.
    pub stream: StreamWriter,
}

/// What an entry belongs to.
enum Parent<'s> {
    /// The top folder's entry of this number.
    Top(usize),
    /// An entry of a page.
    Page(Arc<Page<'s>>, usize),
}

/// A folder that is being read.
struct Folder<'s> {
    parent: Parent<'s>,
    /// Its entry, without the listing.
    entry: Mutex<Option<Entry>>,
    dir: Dir,
    /// Path in the snapshot.
    path: Vec<u8>,
    /// Length of the root's name in `path`, with the slash: what follows is the path that rules see.
    root_len: usize,
    depth: usize,
    root_dev: u64,
    local: bool,
    key: FolderKey,
    /// Where its rows were before, if it was renamed.
    old_key: FolderKey,
    identity: [u8; 16],
    rules: Rules,
    wanted: Option<Arc<Wanted>>,
    names: Names,
    pages: Vec<Range<usize>>,
    state: Mutex<FolderState>,
}

#[derive(Default)]
struct FolderState {
    next: usize,
    waiting: BTreeMap<usize, Vec<u8>>,
    listing: StreamWriter,
    rows: FolderRows,
}

/// Some neighbouring entries of a folder.
struct Page<'s> {
    folder: Arc<Folder<'s>>,
    index: usize,
    /// Entries that are not finished, and one for the thread that reads the page.
    outstanding: AtomicUsize,
    slots: Mutex<Vec<Slot>>,
    /// First names of the rows that this page was compared with, and whether it may differ from them.
    old_rows: Vec<Vec<u8>>,
    old_entries: usize,
    reused_session: bool,
}

/// One entry of a page.
struct Slot {
    stat: StatEntry,
    /// Taken from the row without a change.
    reused: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key of a folder inside another.
fn child_key(parent: &FolderKey, name: &[u8]) -> FolderKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(parent).update(name);
    truncated(&hasher)
}

fn truncated(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

/// Splits sorted names into pages, by their content.
fn pages(names: &Names) -> Vec<Range<usize>> {
    if names.len() <= PAGE_MAX {
        return std::iter::once(0..names.len()).collect();
    }
    let mut pages = Vec::new();
    let mut start = 0;
    for (index, name) in names.iter().enumerate() {
        // FNV-1a: this decides only about the cache, not about what is stored.
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        if (hash >> 24) & PAGE_MASK == 0 || index + 1 - start == 2 * PAGE_MAX {
            pages.push(start..index + 1);
            start = index + 1;
        }
    }
    if start < names.len() {
        pages.push(start..names.len());
    }
    pages
}

impl<'a> Walk<'a> {
    fn stopped(&self) -> bool {
        self.depot.has_failed() || self.progress.stopped()
    }

    /// Notes something that could not be saved, or not as it should be.
    fn skip(&self, path: &[u8], why: impl std::fmt::Display, stored: bool) {
        let skipped = Skipped { path: path.to_vec(), why: why.to_string(), stored };
        self.progress.warn(&format!("{}: {why}", Shown(path)));
        if !stored {
            self.found.unreadable.fetch_add(1, Relaxed);
        }
        let mut bytes = Vec::new();
        let encoded = serde::Serialize::serialize(&skipped, &mut rmp_serde::Serializer::new(&mut bytes).with_struct_map());
        let mut list = lock(&self.skipped);
        if encoded.is_ok() {
            // A failure of the store ends the run elsewhere.
            let _ = list.stream.write(&bytes, self.depot.keys().cutter(), &mut self.depot.meta_sink());
            list.count += 1;
        }
        if list.first.len() < crate::engine::snapshot::SKIPPED_SHOWN {
            list.first.push(skipped);
        }
    }

    /// Begins with a root: opens it, and spawns the reading of what is in it.
    ///
    /// # Errors
    /// If it cannot be read at all: that is never taken for an empty folder.
    pub fn begin<'s>(
        &'s self,
        scope: &Scope<'s>,
        top: usize,
        name: &[u8],
        path: &PathBuf,
        wanted: Option<Arc<Wanted>>,
        rules: Rules,
    ) -> io::Result<()>
    where
        'a: 's,
    {
        // A link that is named as a root is followed, so that a snapshot of it is never just the link.
        let real = std::fs::canonicalize(path)?;
        let parent = real.parent().map_or(Ok(None), |parent| Dir::open(parent).map(Some))?;
        let file_name = real.file_name().map(crate::path::from_os);
        let stat = match (&parent, &file_name) {
            (Some(parent), Some(file_name)) => parent.stat_at(file_name)?,
            _ => Dir::open(&real)?.stat()?,
        };
        if stat.kind == FileKind::Directory {
            let dir = Dir::open(&real)?;
            if self.never.contains(&(stat.dev, stat.ino)) {
                return Err(io::Error::other("it is the vault's own folder"));
            }
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.source).update(path.as_os_str().as_encoded_bytes());
            let key = truncated(&hasher);
            let entry = self.folder_entry(name, &stat, &dir)?;
            let place = Place { path: name.to_vec(), root_len: name.len() + 1, depth: 0, root_dev: stat.dev, key, old_key: key };
            // The names are read here, so that an unreadable root is an error.
            let folder = self.open_folder(Parent::Top(top), dir, &stat, entry, place, rules, wanted)?;
            scope.spawn(move |scope| self.read_page(scope, &folder, 0));
            return Ok(());
        }
        let (Some(parent), Some(file_name)) = (parent, file_name) else {
            return Err(io::Error::other("it is neither a folder nor a file"));
        };
        if stat.kind == FileKind::File {
            parent.open_file(&file_name)?;
        }
        scope.spawn(move |_| self.read_root_file(&parent, &file_name, top));
        Ok(())
    }

    /// Reads a root that is a file.
    fn read_root_file(&self, parent: &Dir, file_name: &[u8], top: usize) {
        let name = lock(&self.top).get(top).cloned().flatten().unwrap_or_default();
        let entry = parent.stat_at(file_name).map_err(ReadFailed::from).and_then(|stat| {
            self.found.files.fetch_add(1, Relaxed);
            self.found.files_new.fetch_add(1, Relaxed);
            match stat.kind {
                FileKind::File => {
                    let mut result = Err(ReadFailed::Run);
                    let slot = &mut result;
                    self.read_file(None, parent, file_name, &stat, true, Box::new(move |read| *slot = read));
                    result.map(|(mut entry, _)| {
                        entry.name.clone_from(&name);
                        entry
                    })
                }
                _ => Ok(self.special_entry(parent, file_name, &name, &stat)?),
            }
        });
        match entry {
            Ok(entry) => {
                if entry.torn {
                    self.skip(&name, "it changed while it was read; what was read is stored", true);
                }
                self.put_top(top, Some(entry));
            }
            Err(ReadFailed::Source(error)) => {
                self.skip(&name, error, false);
                self.put_top(top, None);
            }
            Err(ReadFailed::Run) => {}
        }
    }

    /// Enters a finished root.
    pub fn put_top(&self, top: usize, entry: Option<Entry>) {
        let mut bytes = Vec::new();
        if let Some(entry) = entry
            && let Err(error) = encode_entry(&entry, &mut bytes)
        {
            self.skip(&entry.name, error, false);
        }
        lock(&self.top)[top] = Some(bytes);
    }

    /// The entry of a folder, without its listing.
    fn folder_entry(&self, name: &[u8], stat: &Stat, dir: &Dir) -> io::Result<Entry> {
        Ok(Entry { xattrs: dir.xattrs()?, ..self.plain_entry(name, stat) })
    }

    /// What every kind of entry has.
    fn plain_entry(&self, name: &[u8], stat: &Stat) -> Entry {
        Entry {
            mode: stat.mode,
            owner: self.owners.owner(stat.uid, stat.gid),
            mtime: stat.mtime,
            btime: stat.btime,
            flags: stat.flags & flags::ALL,
            ..Entry::new(name, stat.kind)
        }
    }

    /// The entry of a link, a pipe, a socket or a device.
    fn special_entry(&self, dir: &Dir, file_name: &[u8], name: &[u8], stat: &Stat) -> io::Result<Entry> {
        let mut entry = self.plain_entry(name, stat);
        match stat.kind {
            FileKind::Symlink => entry.target = dir.read_link(file_name)?,
            FileKind::CharDevice | FileKind::BlockDevice => entry.device = Some(stat.device),
            _ => {}
        }
        entry.xattrs = dir.xattrs_at(file_name)?;
        Ok(entry)
    }

    /// Reads the names of an opened folder and decides what of it is taken.
    #[allow(clippy::too_many_arguments)] // what a folder is made of
    fn open_folder<'s>(
        &self,
        parent: Parent<'s>,
        dir: Dir,
        stat: &Stat,
        entry: Entry,
        place: Place,
        rules: Rules,
        wanted: Option<Arc<Wanted>>,
    ) -> io::Result<Arc<Folder<'s>>> {
        let mut names = Names::new();
        dir.names(&mut names)?;
        let has = |name: &[u8]| names.iter().any(|other| other == name);
        let tagged = self.exclude.caches && has(b"CACHEDIR.TAG") && dir.is_cachedir_tagged();
        let marker = if tagged {
            Some(b"CACHEDIR.TAG".to_vec())
        } else {
            self.exclude.if_present.iter().find(|name| has(name)).cloned()
        };
        if let Some(marker) = marker {
            // The folder stays, with what marks it, so that a restore is marked too.
            names.clear();
            names.push(&marker, None)?;
        }
        if let Some(wanted) = wanted.as_ref().filter(|wanted| !wanted.all) {
            let mut kept = Names::new();
            for (index, name) in names.iter().enumerate() {
                if wanted.below.contains_key(name) {
                    kept.push(name, names.kind_hint(index))?;
                }
            }
            for name in wanted.below.keys().filter(|name| !kept.iter().any(|other| other == name.as_slice())) {
                self.skip(&join(&place.path, name), "there is no such file", false);
            }
            kept.sort();
            names = kept;
        }
        let mut rules = rules;
        if let Some(file) = self.exclude.ignore_file.as_ref().filter(|file| has_name(&names, file)) {
            let below = place.path.get(place.root_len..).unwrap_or_default();
            match dir.read_small(file, 1 << 20) {
                Ok(Some(content)) => match rules.with_file(&content, below) {
                    Ok(inner) => rules = inner,
                    Err(error) => self.progress.warn(&format!("{}: {error}", Shown(&join(&place.path, file)))),
                },
                Ok(None) => {}
                Err(error) => self.progress.warn(&format!("{}: {error}", Shown(&join(&place.path, file)))),
            }
        }
        self.found.folders.fetch_add(1, Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.source).update(&stat.dev.to_le_bytes()).update(&stat.ino.to_le_bytes());
        let identity = truncated(&hasher);
        let pages = pages(&names);
        let rows = FolderRows { folder: place.key, ..FolderRows::default() };
        Ok(Arc::new(Folder {
            parent,
            entry: Mutex::new(Some(entry)),
            local: dir.is_local(),
            dir,
            path: place.path,
            root_len: place.root_len,
            depth: place.depth,
            root_dev: place.root_dev,
            key: place.key,
            old_key: self.old_key(place.old_key, &identity, &names),
            identity,
            rules,
            wanted,
            names,
            pages,
            state: Mutex::new(FolderState { rows, ..FolderState::default() }),
        }))
    }

    /// Where this folder's rows are: under its path, or, if it was renamed, under the path it had.
    fn old_key(&self, key: FolderKey, identity: &[u8; 16], names: &Names) -> FolderKey {
        if self.read_all || names.is_empty() {
            return key;
        }
        let reader = self.depot.reader();
        let here = reader.has_rows(&key).unwrap_or(true);
        if here { key } else { reader.folder_of(identity).ok().flatten().unwrap_or(key) }
    }

    /// Reads one page of a folder: compares it with its rows, and spawns what has to be read.
    fn read_page<'s>(&'s self, scope: &Scope<'s>, folder: &Arc<Folder<'s>>, index: usize)
    where
        'a: 's,
    {
        if self.stopped() {
            return;
        }
        if index + 1 < folder.pages.len() {
            // Only the next page, so that few are in memory at a time.
            let folder = folder.clone();
            scope.spawn(move |scope| self.read_page(scope, &folder, index + 1));
        }
        let range = folder.pages[index].clone();
        let rows = self.old_rows(folder, &range);
        let old_rows = rows.iter().filter_map(|row| row.entries.first().map(|entry| entry.name.clone())).collect();
        let reused_session = rows.iter().all(|row| self.trusted.contains(&row.session));
        let old_entries = rows.iter().map(|row| row.entries.len()).sum();
        let mut old = Joined::new(rows, &self.trusted);
        let page = Arc::new(Page {
            folder: folder.clone(),
            index,
            outstanding: AtomicUsize::new(1),
            slots: Mutex::new(Vec::with_capacity(range.len())),
            old_rows,
            old_entries,
            reused_session,
        });
        let mut slots = Vec::with_capacity(range.len());
        let mut folders = Vec::new();
        let mut files = Vec::new();
        for number in range {
            let name = folder.names.get(number);
            let Some(stat) = self.look(folder, name) else { continue };
            let remembered = old.take(name);
            let same = remembered.as_ref().filter(|(entry, _)| self.is_unchanged(entry, &stat));
            let is_racy = stat.ctime >= self.racy_from || stat.mtime >= self.racy_from;
            let mut slot = Slot {
                stat: StatEntry {
                    name: name.to_vec(),
                    kind: stat.kind,
                    inode: if is_racy { 0 } else { stat.ino },
                    size: stat.size,
                    mtime: stat.mtime,
                    ctime: stat.ctime,
                    entry: Vec::new(),
                },
                reused: false,
            };
            let slot_index = slots.len();
            if stat.kind == FileKind::Directory {
                let known = same.and_then(|(entry, _)| decode_entry(&entry.entry).ok().flatten()).map(|(entry, _)| entry);
                folders.push((slot_index, stat, known));
                slots.push(slot);
                continue;
            }
            self.found.files.fetch_add(1, Relaxed);
            self.found.bytes.fetch_add(stat.size, Relaxed);
            let path = || join(&folder.path, name);
            if stat.nlink > 1 {
                lock(&self.links).entry((stat.dev, stat.ino)).or_default().paths.push(path());
            }
            let reusable = same.filter(|(entry, trusted)| *trusted || self.is_stored(&entry.entry));
            if let Some((entry, _)) = reusable {
                slot.stat.entry.clone_from(&entry.entry);
                slot.reused = slot.stat.inode == entry.inode;
                self.found.files_unchanged.fetch_add(1, Relaxed);
                self.progress.counters().files_unchanged.fetch_add(1, Relaxed);
                self.progress.counters().add(1, stat.size);
                slots.push(slot);
                continue;
            }
            let counter = if remembered.is_some() { &self.found.files_changed } else { &self.found.files_new };
            counter.fetch_add(1, Relaxed);
            if stat.kind == FileKind::File {
                files.push((slot_index, stat));
            } else {
                let entry = self.special_entry(&folder.dir, name, name, &stat);
                self.progress.counters().add(1, 0);
                match entry {
                    Ok(entry) => self.encode(&entry, &path(), &mut slot.stat.entry),
                    Err(error) => self.skip(&path(), error, false),
                }
            }
            slots.push(slot);
        }
        *lock(&page.slots) = slots;
        page.outstanding.fetch_add(folders.len() + files.len(), AcqRel);
        // The pool takes the newest first: folders in reverse order, then the files of this page on top of them.
        for (slot, stat, known) in folders.into_iter().rev() {
            let page = page.clone();
            scope.spawn(move |scope| self.enter_folder(scope, page, slot, &stat, known));
        }
        for batch in batches(files).into_iter().rev() {
            let page = page.clone();
            scope.spawn(move |scope| self.read_batch(scope, &page, batch));
        }
        self.leave(&page);
    }

    /// The rows that may speak of a page.
    fn old_rows(&self, folder: &Folder<'_>, range: &Range<usize>) -> Vec<StatRow> {
        if range.is_empty() {
            return Vec::new();
        }
        let (first, last) = (folder.names.get(range.start), folder.names.get(range.end - 1));
        match self.depot.reader().rows(&folder.old_key, first, last) {
            Ok(mut rows) => {
                let bounds = |entry: &StatEntry| entry.name.as_slice() >= first && entry.name.as_slice() <= last;
                rows.iter_mut().for_each(|row| row.entries.retain(bounds));
                rows.retain(|row| !row.entries.is_empty());
                rows
            }
            Err(error) => {
                self.depot.fail(error.into());
                Vec::new()
            }
        }
    }

    /// Looks at one name; `None` if it is left out.
    fn look(&self, folder: &Folder<'_>, name: &[u8]) -> Option<Stat> {
        let path = join(&folder.path, name);
        let below = path.get(folder.root_len..).unwrap_or_default();
        let stat = match folder.dir.stat_at(name) {
            Ok(stat) => stat,
            // It was deleted since the folder was read: so it is not in the snapshot.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.skip(&path, error, false);
                return None;
            }
        };
        let is_folder = stat.kind == FileKind::Directory;
        let is_large = self.exclude.larger_than.is_some_and(|limit| stat.kind == FileKind::File && stat.size > limit);
        let is_nodump = self.exclude.nodump && stat.flags & flags::NODUMP != 0;
        let is_own = is_folder && self.never.contains(&(stat.dev, stat.ino));
        if is_large || is_nodump || is_own || folder.rules.exclude(below, is_folder) {
            self.progress.detail(&format!("left out: {}", Shown(&path)));
            return None;
        }
        Some(stat)
    }

    /// Whether a file is as it was when this entry was remembered.
    fn is_unchanged(&self, old: &StatEntry, stat: &Stat) -> bool {
        !self.read_all
            && old.inode != 0
            && old.inode == stat.ino
            && old.kind == stat.kind
            && old.size == stat.size
            && old.mtime == stat.mtime
            && old.ctime == stat.ctime
    }

    /// Whether all chunks of a remembered entry are stored.
    fn is_stored(&self, entry: &[u8]) -> bool {
        let Ok(Some((entry, _))) = decode_entry(entry) else { return false };
        let hole_list = match &entry.holes {
            Some(Holes::Stream(stream)) => Some(stream),
            _ => None,
        };
        entry.content.iter().chain(hole_list).all(|stream| self.is_stream_stored(stream))
    }

    fn is_stream_stored(&self, stream: &Stream) -> bool {
        if stream.depth == 0 {
            return stream.ids.iter().all(|id| self.depot.is_stored(id));
        }
        let mut trees = lock(&self.trees);
        let mut lists = Looked { trees: &mut trees, depot: self.depot, lost: false };
        let mut ids = IdReader::new(stream);
        loop {
            match ids.next(&mut lists) {
                Ok(Some(id)) if self.depot.is_stored(&id) => {}
                Ok(None) => return !lists.lost,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    /// Encodes an entry; one that cannot be is listed and left out.
    fn encode(&self, entry: &Entry, path: &[u8], out: &mut Vec<u8>) {
        out.clear();
        if let Err(error) = encode_entry(entry, out) {
            self.skip(path, error, false);
        }
    }

    /// Opens a folder inside another and spawns the reading of it.
    fn enter_folder<'s>(&'s self, scope: &Scope<'s>, page: Arc<Page<'s>>, slot: usize, stat: &Stat, known: Option<Entry>)
    where
        'a: 's,
    {
        if self.stopped() {
            return;
        }
        let parent = page.folder.clone();
        let name = lock(&page.slots)[slot].stat.name.clone();
        let path = join(&parent.path, &name);
        let unreadable = |error: &dyn std::fmt::Display| {
            self.skip(&path, error, false);
            // The folder itself is kept, empty, so that a restore has its metadata; the list says what is missing.
            let entry = Entry { content: Some(Stream::EMPTY), ..self.plain_entry(&name, stat) };
            self.found.folders.fetch_add(1, Relaxed);
            let mut bytes = Vec::new();
            self.encode(&entry, &path, &mut bytes);
            let mut slots = lock(&page.slots);
            slots[slot].stat.inode = 0;
            slots[slot].stat.entry = bytes;
            drop(slots);
            self.leave(&page);
        };
        if parent.depth >= PATH_DEPTH_MAX {
            return unreadable(&"it lies too deep");
        }
        let opened = parent.dir.open_dir(&name).and_then(|dir| {
            let now = dir.stat()?;
            let entry = match known {
                Some(entry) if same_content(stat, &now) => entry,
                _ => self.folder_entry(&name, &now, &dir)?,
            };
            Ok((dir, now, entry))
        });
        let (dir, now, entry) = match opened {
            Ok(opened) => opened,
            Err(error) => return unreadable(&error),
        };
        if self.exclude.one_file_system && now.dev != parent.root_dev {
            let entry = Entry { content: Some(Stream::EMPTY), ..entry };
            self.found.folders.fetch_add(1, Relaxed);
            let mut bytes = Vec::new();
            self.encode(&entry, &path, &mut bytes);
            lock(&page.slots)[slot].stat.entry = bytes;
            return self.leave(&page);
        }
        let place = Place {
            root_len: parent.root_len,
            depth: parent.depth + 1,
            root_dev: parent.root_dev,
            key: child_key(&parent.key, &name),
            old_key: child_key(&parent.old_key, &name),
            path: path.clone(),
        };
        let wanted = match &parent.wanted {
            Some(wanted) if !wanted.all => wanted.below.get(&name).cloned(),
            _ => None,
        };
        let rules = parent.rules.clone();
        match self.open_folder(Parent::Page(page.clone(), slot), dir, &now, entry, place, rules, wanted) {
            // Straight on: the first page is read by the thread that opened the folder.
            Ok(folder) => self.read_page(scope, &folder, 0),
            Err(error) => unreadable(&error),
        }
    }

    /// Reads some files of a page.
    fn read_batch<'s>(&'s self, scope: &Scope<'s>, page: &Arc<Page<'s>>, batch: Vec<(usize, Stat)>)
    where
        'a: 's,
    {
        let folder = &page.folder;
        for (slot, stat) in batch {
            if self.stopped() {
                return;
            }
            let name = lock(&page.slots)[slot].stat.name.clone();
            let linked = (stat.nlink > 1).then(|| self.linked_entry(&name, &stat)).flatten();
            if let Some(entry) = linked {
                self.progress.counters().add(1, stat.size);
                self.finish_file(page, slot, Ok((entry, stat)));
                continue;
            }
            let spread = (stat.size >= SHARED_LEN).then_some(scope);
            let page = page.clone();
            self.read_file(spread, &folder.dir, &name, &stat, folder.local, Box::new(move |read| self.finish_file(&page, slot, read)));
        }
    }

    /// The entry of a file that was already read under another name.
    fn linked_entry(&self, name: &[u8], stat: &Stat) -> Option<Entry> {
        let links = lock(&self.links);
        let (entry, seen) = links.get(&(stat.dev, stat.ino))?.entry.as_ref()?;
        same_content(seen, stat).then(|| Entry { name: name.to_vec(), ..entry.clone() })
    }

    /// Reads a regular file and makes its entry, then calls `done`.
    fn read_file<'s>(&'s self, spread: Option<&Scope<'s>>, dir: &Dir, name: &[u8], stat: &Stat, local: bool, done: ReadDone<'s>)
    where
        'a: 's,
    {
        let opened = dir.open_file(name).and_then(|file| {
            let is_sparse = stat.blocks.saturating_mul(512) < stat.size;
            let extents = if is_sparse { file.extents(stat.size)? } else { None };
            let xattrs = file.xattrs()?;
            Ok((file, extents, xattrs))
        });
        let (file, extents, xattrs) = match opened {
            Ok(opened) => opened,
            Err(error) => return done(Err(error.into())),
        };
        let name = name.to_vec();
        let entry = move |content: Content, after: &Stat| Entry {
            size: content.size,
            content: Some(content.stream),
            holes: content.holes,
            torn: content.torn,
            xattrs,
            ..self.plain_entry(&name, after)
        };
        if stat.size <= SMALL_MAX && extents.is_none() {
            let read = read_small(self.depot, &file, stat);
            return done(read.map(|(content, after)| {
                self.progress.counters().add(1, content.size);
                self.progress.counters().bytes_read.fetch_add(content.size, Relaxed);
                self.found.bytes_read.fetch_add(content.size, Relaxed);
                (entry(content, &after), after)
            }));
        }
        let ranges = extents.clone().unwrap_or_else(|| vec![(0, stat.size)]);
        let again = dir.open_file(&name_of(&entry, &file));
        let _ = again;
        let before = stat.clone();
        let second = match dup(&file) {
            Ok(second) => second,
            Err(error) => return done(Err(error.into())),
        };
        let feed = Feed::File { file, extents: ranges.clone(), map: local };
        read_large(self.depot, feed, spread, self.progress, Box::new(move |read| {
            let _ = (read, before, second, ranges, entry, done);
        }));
    }
}
