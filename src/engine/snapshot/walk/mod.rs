//! Walks the source and turns folders into trees (SPEC §7, §8.5).
//!
//! Every folder is read in pages of neighbouring names. A page is finished when each of its files is stored and each of its folders has a
//! tree; a folder is finished when its pages are, and its listing is added to the page of its parent. The thread that finishes the last
//! part continues with the parent, so no thread waits and nothing recurses. Tasks run on a pool that runs the newest first, which keeps
//! few folders open at a time; an idle thread takes the oldest, which keeps neighbours in the tree together in the segments.

mod finish;
mod page;
mod reason;
mod root;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rayon::Scope;

use crate::catalogue::StatEntry;
use crate::catalogue::stat::FolderRows;
use crate::engine::patterns::exclude::{ExcludeOptions, Rules};
use crate::engine::snapshot::walk::root::RootFile;
use crate::fs::{CACHEDIR_TAG, Dir, Names, OwnerNames, Stat};
use crate::id::FolderKey;
use crate::path::join;
use crate::progress::Progress;
use crate::read::TreeReader;
use crate::sync::lock;
use crate::tree::entry::flags;
use crate::tree::{Entry, FileKind, RuleSet, Skipped, Time};
use crate::write::depot::Depot;
use crate::write::file::ReadFailed;
use crate::write::tree::{ListingBuilder, SKIPPED_SHOWN, SkippedList};

/// Maximum number of names in a folder that is read as one page.
const PAGE_MAX: usize = 4096;
/// Maximum length of a file of patterns, in bytes.
pub const IGNORE_FILE_MAX: usize = 64 << 20;
/// A page ends after a name whose hash has these bits zero, so that a new name moves no other page's bounds.
const PAGE_MASK: u64 = 0x3ff;

/// The requested paths, as a tree of names.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Everything from here on is requested.
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

/// Counts of the walk.
#[derive(Debug, Default)]
pub struct Found {
    /// Number of files of all kinds except folders.
    pub files: AtomicU64,
    /// Number of folders.
    pub folders: AtomicU64,
    /// Total size of the regular files.
    pub bytes: AtomicU64,
    /// Number of files that did not exist before.
    pub files_new: AtomicU64,
    /// Number of files that differ from before.
    pub files_changed: AtomicU64,
    /// Number of files that were not opened.
    pub files_unchanged: AtomicU64,
    /// Number of bytes read from files.
    pub bytes_read: AtomicU64,
    /// Number of items that could not be read.
    pub unreadable: AtomicU64,
}

/// The walk of one snapshot.
pub struct Walk<'a> {
    /// Destination of the chunks.
    pub depot: &'a Depot<'a>,
    /// Progress sink.
    pub progress: &'a dyn Progress,
    /// The rules for leaving out.
    pub exclude: &'a ExcludeOptions,
    /// Hash of the source's name: sources do not share remembered folders.
    pub source: [u8; 16],
    /// Number of the session that writes the rows.
    pub session: u64,
    /// Sessions whose rows are trusted without looking up chunks.
    pub trusted: BTreeSet<u64>,
    /// Whether to read every file.
    pub read_all: bool,
    /// Files changed at or after this time may have been changed again after they were read.
    pub racy_from: Time,
    /// Folders that are never entered: those of the store and the catalogue (device, inode).
    pub never: Vec<(u64, u64)>,
    /// Names of owners.
    pub owners: &'a OwnerNames,
    /// Reads lists of ids of large unchanged files, where these have to be looked up.
    pub trees: TreeReader<'a>,
    /// Counts.
    pub found: Found,
    /// The names of files that have several, by device and inode.
    pub links: Mutex<HashMap<(u64, u64), Links>>,
    /// Files that could not be saved completely.
    pub(crate) skipped: Mutex<SkippedList>,
    /// Whether to read pipes and devices like files.
    pub read_special: bool,
    /// Folders on other file systems whose content was left out.
    pub elsewhere: Mutex<LeftOut>,
    /// The rules for leaving out, and the paths that were left out for other reasons.
    pub rules: Mutex<RuleSet>,
    /// The entries of the top folder; an empty one does not exist.
    pub top: Mutex<Vec<Bytes>>,
    /// Mount points below the roots.
    pub mounts: &'a MountPoints,
}

/// Mount points below the roots of a source: those of the last snapshot and those seen now, each with its path in the snapshot.
#[derive(Debug, Default)]
pub struct MountPoints {
    known: BTreeMap<FolderKey, Vec<u8>>,
    accepted: bool,
    seen: Mutex<BTreeMap<FolderKey, Vec<u8>>>,
    lost: Mutex<BTreeSet<Vec<u8>>>,
}

impl MountPoints {
    /// `known` are the remembered ones. `accepted`: whatever is seen now is right.
    pub const fn new(known: BTreeMap<FolderKey, Vec<u8>>, accepted: bool) -> Self {
        Self { known, accepted, seen: Mutex::new(BTreeMap::new()), lost: Mutex::new(BTreeSet::new()) }
    }

    /// Records whether a folder of this root is a mount point. Returns whether it was one and no longer is.
    fn has_gone(&self, folder: FolderKey, is_mount: bool, root: &[u8], path: &[u8]) -> bool {
        let has_gone = !is_mount && !self.accepted && self.known.contains_key(&folder);
        if is_mount || has_gone {
            lock(&self.seen).insert(folder, path.to_vec());
        }
        if has_gone {
            lock(&self.lost).insert(root.to_vec());
        }
        has_gone
    }

    /// The mount points below this root that were not seen and whose folders do not exist either; they may be mounted again. `is_away`
    /// checks that, given the path below the root.
    pub fn vanished(&self, root: &[u8], is_away: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        if self.accepted {
            return Vec::new();
        }
        let mut seen = lock(&self.seen);
        let mut vanished = Vec::new();
        for (folder, path) in &self.known {
            let below = path.strip_prefix(root).and_then(|rest| rest.strip_prefix(b"/"));
            if !seen.contains_key(folder) && below.is_some_and(&is_away) {
                vanished.push((*folder, path.clone()));
            }
        }
        if !vanished.is_empty() {
            lock(&self.lost).insert(root.to_vec());
        }
        seen.extend(vanished.iter().cloned());
        vanished.into_iter().map(|(_, path)| path).collect()
    }

    /// Whether a mount point below this root has disappeared.
    pub fn has_lost(&self, root: &[u8]) -> bool {
        lock(&self.lost).contains(root)
    }

    /// The mount points to remember: the present ones, and those that were ones and may be again.
    pub fn seen(&self) -> BTreeMap<FolderKey, Vec<u8>> {
        lock(&self.seen).clone()
    }
}

/// Why the content of a folder is probably not what the user meant.
pub const NOT_MOUNTED: &str = "it was a mount point, and now it is a folder like any other: is its disk mounted? If this \
                               is how it is to be: vault snapshot --allow-empty";
/// As [`NOT_MOUNTED`], for a removable disk whose folder has disappeared too.
pub const TAKEN_OUT: &str = "a disk was mounted here, and is not there now: is it taken out? If this is how it is to be: \
                             vault snapshot --allow-empty";

/// The names of one file.
#[derive(Debug, Default)]
pub struct Links {
    /// Paths in the snapshot.
    pub paths: Vec<Vec<u8>>,
    /// Its entry, once it has been read under one of them, with its metadata at that time.
    entry: Option<(Entry, Stat)>,
}

/// The marker file for which a folder's content is left out, if there is one.
pub(crate) fn marker(exclude: &ExcludeOptions, names: &Names, dir: &Dir) -> Option<Vec<u8>> {
    if exclude.caches && has_name(names, CACHEDIR_TAG.0) && dir.is_cachedir_tagged() {
        return Some(CACHEDIR_TAG.0.to_vec());
    }
    exclude.if_present.iter().find(|name| has_name(names, name)).cloned()
}

/// Folders whose content was left out because they are on another file system: the first ones and their number.
#[derive(Debug, Clone, Default)]
pub struct LeftOut {
    /// Paths in the snapshot, of the first ones.
    pub first: Vec<Vec<u8>>,
    /// Number of folders.
    pub count: u64,
}

impl LeftOut {
    fn push(&mut self, path: &[u8]) {
        self.count += 1;
        if self.first.len() < SKIPPED_SHOWN {
            self.first.push(path.to_vec());
        }
    }
}

/// The parent of an entry.
enum Parent {
    /// The top folder, and the number of the entry in it.
    Top(usize),
    /// A page, and the number of the entry in it.
    Page(Arc<Page>, usize),
}

/// A folder that is being read.
struct Folder {
    parent: Parent,
    /// Its entry, without the listing.
    entry: Mutex<Option<Entry>>,
    dir: Dir,
    /// Path in the snapshot.
    path: Vec<u8>,
    /// Length of the root's name in `path`, including the slash: the rules see the rest of the path.
    root_len: usize,
    depth: usize,
    root_dev: u64,
    dev: u64,
    local: bool,
    key: FolderKey,
    /// The key of its earlier rows; different if it was renamed.
    old_key: FolderKey,
    identity: [u8; 16],
    rules: Rules,
    wanted: Option<Arc<Wanted>>,
    names: Names,
    pages: Vec<Range<usize>>,
    state: Mutex<FolderState>,
}

struct FolderState {
    listing: ListingBuilder,
    rows: FolderRows,
}

/// Some neighbouring entries of a folder.
struct Page {
    folder: Arc<Folder>,
    index: usize,
    /// Number of unfinished entries, plus one for the thread that reads the page.
    outstanding: AtomicUsize,
    slots: Mutex<Vec<Slot>>,
    /// Names under which the rows are stored that this page was compared with.
    old_rows: Vec<Vec<u8>>,
    /// Number of entries in these rows.
    old_entries: usize,
    /// Whether all of these rows are trusted.
    old_trusted: bool,
}

/// One entry of a page.
struct Slot {
    /// The row to remember. While a folder is being read, this is its earlier entry.
    stat: StatEntry,
    /// Whether this is the remembered entry, unchanged.
    reused: bool,
}

/// The key of a folder inside another.
fn child_key(parent: &FolderKey, name: &[u8]) -> FolderKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(parent.as_bytes()).update(name);
    FolderKey::new(truncated(&hasher))
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
        // FNV-1a: this only affects the cache, not what is stored.
        let hash = name
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
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

    /// Records a file that could not be saved, or not completely.
    pub(super) fn skip(&self, path: &[u8], why: impl std::fmt::Display, stored: bool) {
        let skipped = Skipped { path: path.to_vec(), why: why.to_string(), stored };
        self.progress.warn(&skipped.to_string());
        if !stored {
            self.found.unreadable.fetch_add(1, Relaxed);
        }
        lock(&self.skipped).push(skipped, self.depot);
    }

    /// Records something that was saved but is probably not what the user meant: this makes the snapshot partial.
    pub(super) fn doubt(&self, path: &[u8], why: impl std::fmt::Display) {
        self.found.unreadable.fetch_add(1, Relaxed);
        self.skip(path, why, true);
    }

    /// Starts with a root: opens it, and spawns the reading of its content.
    ///
    /// # Errors
    /// If it cannot be read at all: it is never treated as an empty folder.
    pub fn begin<'s>(
        &'s self,
        scope: &Scope<'s>,
        top: usize,
        name: &[u8],
        path: &Path,
        wanted: Option<Arc<Wanted>>,
        rules: Rules,
    ) -> io::Result<()>
    where
        'a: 's,
    {
        // A link given as a root is followed, so that its snapshot is never just the link.
        let real = std::fs::canonicalize(path)?;
        let parent = real.parent().map_or(Ok(None), |parent| Dir::open(parent).map(Some))?;
        let file_name = real.file_name().map(crate::path::from_os);
        let stat = match (&parent, &file_name) {
            (Some(parent), Some(file_name)) => parent.stat_at(file_name)?,
            _ => Dir::open(&real)?.stat()?,
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.source).update(path.as_os_str().as_encoded_bytes());
        let key = FolderKey::new(truncated(&hasher));
        if stat.kind == FileKind::Directory {
            let dir = Dir::open(&real)?;
            if self.never.contains(&(stat.dev, stat.ino)) {
                return Err(io::Error::other("it is the vault's own folder"));
            }
            let entry = self.folder_entry(name, &stat, &dir)?;
            if wanted.as_ref().is_some_and(|wanted| !wanted.all) {
                lock(&self.rules).listed.insert(name.to_vec());
            }
            let place = Place {
                path: name.to_vec(),
                root_len: name.len() + 1,
                depth: 0,
                root_dev: stat.dev,
                local: None,
                key,
                old_key: key,
                stayed: false,
            };
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
        let root = RootFile { top, name: name.to_vec(), key: child_key(&key, name) };
        scope.spawn(move |scope| self.read_root_file(scope, root, &parent, &file_name));
        Ok(())
    }

    /// The row to remember for a file, without its entry. A file that may have changed again unnoticed is remembered as unknown.
    fn stat_entry(&self, name: &[u8], stat: &Stat) -> StatEntry {
        let is_racy = stat.ctime >= self.racy_from || stat.mtime >= self.racy_from;
        StatEntry {
            name: Bytes::copy_from_slice(name),
            kind: stat.kind,
            inode: if is_racy { 0 } else { stat.ino },
            size: stat.size,
            mtime: stat.mtime,
            ctime: stat.ctime,
            entry: Bytes::new(),
        }
    }

    /// Counts a file that need not be read.
    fn count_unchanged(&self, size: u64) {
        self.found.files_unchanged.fetch_add(1, Relaxed);
        self.progress.counters().files_unchanged.fetch_add(1, Relaxed);
        self.progress.counters().add(1, size);
    }

    /// Records a finished root.
    pub fn put_top(&self, top: usize, entry: Option<Entry>) {
        let bytes = entry.map_or_else(Bytes::new, |entry| self.encode(&entry, &entry.name));
        lock(&self.top)[top] = bytes;
    }

    /// The entry of a folder, without its listing.
    fn folder_entry(&self, name: &[u8], stat: &Stat, dir: &Dir) -> io::Result<Entry> {
        Ok(Entry { xattrs: dir.xattrs()?, ..self.plain_entry(name, stat) })
    }

    /// The fields that every kind of entry has.
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

    /// Reads the names of an open folder and decides which of them are included.
    #[allow(clippy::too_many_arguments)] // the parts of a folder
    fn open_folder(
        &self,
        parent: Parent,
        dir: Dir,
        stat: &Stat,
        entry: Entry,
        place: Place,
        rules: Rules,
        wanted: Option<Arc<Wanted>>,
    ) -> io::Result<Arc<Folder>> {
        let names = self.included(&dir, &place, wanted.as_deref())?;
        let rules = self.rules_inside(&dir, &names, &place, rules);
        self.found.folders.fetch_add(1, Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.source).update(&stat.dev.to_le_bytes()).update(&stat.ino.to_le_bytes());
        let identity = truncated(&hasher);
        let pages = pages(&names);
        let rows = FolderRows::new(place.key);
        Ok(Arc::new(Folder {
            parent,
            entry: Mutex::new(Some(entry)),
            local: place.local.unwrap_or_else(|| dir.is_local()),
            dev: stat.dev,
            dir,
            path: place.path,
            root_len: place.root_len,
            depth: place.depth,
            root_dev: place.root_dev,
            key: place.key,
            old_key: if place.stayed { place.old_key } else { self.old_key(place.old_key, &identity, &names) },
            identity,
            rules,
            wanted,
            names,
            pages,
            state: Mutex::new(FolderState { listing: ListingBuilder::default(), rows }),
        }))
    }

    /// The names of a folder that are included: all of them, its marker alone, or the requested ones.
    fn included(&self, dir: &Dir, place: &Place, wanted: Option<&Wanted>) -> io::Result<Names> {
        let mut names = Names::new();
        dir.names(&mut names)?;
        if let Some(marker) = marker(self.exclude, &names, dir) {
            // The folder stays, with its marker, so that a restored folder is marked too.
            lock(&self.rules).emptied.insert(place.path.clone());
            names.clear();
            names.push(&marker, None)?;
        }
        let Some(wanted) = wanted.filter(|wanted| !wanted.all) else { return Ok(names) };
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
        Ok(kept)
    }

    /// The rules inside a folder: those around it and, if it has one, those of its file of patterns.
    fn rules_inside(&self, dir: &Dir, names: &Names, place: &Place, rules: Rules) -> Rules {
        let Some(file) = self.exclude.ignore_file.as_ref().filter(|file| has_name(names, file)) else { return rules };
        let below = place.path.get(place.root_len..).unwrap_or_default();
        let why = match dir.read_small(file, IGNORE_FILE_MAX) {
            Ok(Some(content)) => match rules.with_file(&content, below) {
                Ok(inner) => {
                    lock(&self.rules).ignore_files.insert(place.path.clone(), content);
                    return inner;
                }
                Err(error) => error.to_string(),
            },
            Ok(None) => return rules,
            Err(error) => error.to_string(),
        };
        // Unusable patterns are never ignored silently: many files would be stored that the user meant to leave out.
        self.doubt(&join(&place.path, file), format!("the patterns in it are not used: {why}"));
        rules
    }

    /// The key of this folder's earlier rows: that of its path or, if it was renamed, that of its old path.
    fn old_key(&self, key: FolderKey, identity: &[u8; 16], names: &Names) -> FolderKey {
        if self.read_all || names.is_empty() {
            return key;
        }
        let reader = self.depot.reader();
        let here = reader.has_rows(&key).unwrap_or(true);
        if here { key } else { reader.folder_of(identity).ok().flatten().unwrap_or(key) }
    }
}

/// The position of a folder.
struct Place {
    path: Vec<u8>,
    root_len: usize,
    depth: usize,
    root_dev: u64,
    /// Whether files may be mapped, if known.
    local: Option<bool>,
    key: FolderKey,
    old_key: FolderKey,
    /// The folder is the one remembered under `old_key`, so it was not renamed.
    stayed: bool,
}

/// Called with a file's entry and its metadata after it was read.
type ReadDone<'s> = Box<dyn FnOnce(Result<(Entry, Stat), ReadFailed>) + Send + 's>;

fn has_name(names: &Names, name: &[u8]) -> bool {
    names.iter().any(|other| other == name)
}
