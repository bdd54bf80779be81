//! Reads a page of a folder: compares it with the remembered rows, and reads changed files.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use bytes::Bytes;
use rayon::Scope;

use crate::catalogue::{StatEntry, StatRow};
use crate::engine::snapshot::walk::{Folder, NOT_MOUNTED, Page, Parent, Place, ReadDone, Slot, Walk, child_key};
use crate::fs::{Dir, SourceFile, Stat};
use crate::id::ChunkId;
use crate::limits::PATH_DEPTH_MAX;
use crate::path::{Shown, join};
use crate::read::TreeReader;
use crate::sync::lock;
use crate::tree::entry::flags;
use crate::tree::{ChunkSource, Entry, FileKind, Holes, IdReader, Stream, decode_entry, encode_entry};
use crate::vault::ReadError;
use crate::write::depot::Depot;
use crate::write::file::{Content, Feed, ReadFailed, SMALL_MAX, holes_between, read_large, read_small, same_content};

/// Small files are read in batches of about this many bytes, so that other threads can take some.
const BATCH_LEN: u64 = 4 << 20;
/// Length from which a file takes long enough to be shown while it is read.
const LONG_LEN: u64 = 64 << 20;
/// Maximum number of files that a reading thread keeps open, so that the system reads the next ones while it works.
const AHEAD_MAX: usize = 16;
/// Number of bytes that the system is asked to read ahead for each thread.
const AHEAD_LEN: u64 = 8 << 20;
/// Size from which all threads work on one file.
pub(super) const SHARED_LEN: u64 = 32 << 20;
/// Files below this size that change while they are read are read again.
const RETRY_MAX: u64 = 64 << 20;

/// Most entries are shorter than this.
const ENTRY_ROOM: usize = 256;

impl Folder {
    /// Whether the rules leave out a name in this folder.
    fn is_excluded(&self, name: &[u8], is_folder: bool) -> bool {
        !self.rules.is_empty() && {
            let path = join(&self.path, name);
            self.rules.exclude(path.get(self.root_len..).unwrap_or_default(), is_folder)
        }
    }
}

impl<'a> Walk<'a> {
    /// Reads one page of a folder: compares it with its rows, and spawns the reading of what has changed.
    pub(super) fn read_page<'s>(&'s self, scope: &Scope<'s>, folder: &Arc<Folder>, index: usize)
    where
        'a: 's,
    {
        if self.stopped() {
            return;
        }
        if index + 1 < folder.pages.len() {
            // Only the next page is spawned, so that few are in memory at a time.
            let folder = folder.clone();
            scope.spawn(move |scope| self.read_page(scope, &folder, index + 1));
        }
        let range = folder.pages[index].clone();
        let (rows, old_entries) = self.old_rows(folder, &range);
        // A row that begins in the page before is replaced by that page.
        let before = range.start.checked_sub(1).map(|last| folder.names.get(last));
        let is_own = |name: &[u8]| before.is_none_or(|before| name > before);
        let old_rows = rows.iter().map(|(name, _)| name.clone()).filter(|name| is_own(name)).collect();
        let old_trusted = rows.iter().all(|(_, row)| self.trusted.contains(&row.session));
        let mut old = Joined::new(rows);
        let page = Arc::new(Page {
            folder: folder.clone(),
            index,
            outstanding: AtomicUsize::new(1),
            slots: Mutex::default(),
            old_rows,
            old_entries,
            old_trusted,
        });
        let mut sorted = Sorted { slots: Vec::with_capacity(range.len()), ..Sorted::default() };
        for number in range {
            self.sort(&page, folder.names.get(number), &mut old, &mut sorted);
        }
        self.spawn_reading(scope, &page, sorted);
        self.leave(&page);
    }

    /// Adds the slot of one name to a page, unless it is left out. What is as remembered, or is no file, gets its entry at once.
    fn sort(&self, page: &Page, name: &[u8], old: &mut Joined, sorted: &mut Sorted) {
        let folder = &page.folder;
        let Some(stat) = self.look(folder, name) else { return };
        let remembered = old.take(name);
        let was_there = remembered.is_some();
        let before = if self.progress.wants_reasons() { remembered.clone() } else { None };
        let same = remembered.filter(|entry| self.is_unchanged(entry, &stat));
        let at = sorted.slots.len();
        if stat.kind == FileKind::Directory {
            let known = same.as_ref().and_then(|row| decode_entry(&row.entry).ok().flatten()).map(|(entry, _)| entry);
            let row = same.unwrap_or_else(|| self.stat_entry(name, &stat));
            sorted.folders.push((at, stat, known));
            sorted.slots.push(Slot { stat: row, reused: false });
            return;
        }
        self.found.files.fetch_add(1, Relaxed);
        self.found.bytes.fetch_add(stat.size, Relaxed);
        let path = || join(&folder.path, name);
        if stat.nlink > 1 {
            lock(&self.links).entry((stat.dev, stat.ino)).or_default().paths.push(path());
        }
        let reusable = same.filter(|entry| page.old_trusted || self.is_stored(&entry.entry));
        if let Some(remembered) = reusable {
            self.count_unchanged(stat.size);
            sorted.slots.push(Slot { stat: remembered, reused: true });
            return;
        }
        let mut slot = Slot { stat: self.stat_entry(name, &stat), reused: false };
        let counter = if was_there { &self.found.files_changed } else { &self.found.files_new };
        counter.fetch_add(1, Relaxed);
        if self.progress.wants_details() {
            self.tell(&path(), was_there, before.as_ref(), &stat, &folder.dir, name);
        }
        if stat.kind == FileKind::File {
            sorted.files.push((at, stat));
        } else if self.reads(stat.kind) {
            sorted.specials.push((at, stat));
        } else {
            let entry = self.special_entry(&folder.dir, name, name, &stat);
            self.progress.counters().add(1, 0);
            match entry {
                Ok(entry) => slot.stat.entry = self.encode(&entry, &path()),
                Err(error) => self.skip(&path(), error, false),
            }
        }
        sorted.slots.push(slot);
    }

    /// Spawns the reading of everything in a page that has no entry yet.
    fn spawn_reading<'s>(&'s self, scope: &Scope<'s>, page: &Arc<Page>, sorted: Sorted)
    where
        'a: 's,
    {
        let Sorted { slots, folders, files, specials } = sorted;
        *lock(&page.slots) = slots;
        page.outstanding.fetch_add(folders.len() + files.len() + specials.len(), AcqRel);
        // The pool runs the newest first: spawn the folders in reverse order, then the files of this page on top of them.
        for (slot, stat, known) in folders.into_iter().rev() {
            let page = page.clone();
            scope.spawn(move |scope| self.enter_folder(scope, page, slot, &stat, known));
        }
        for (slot, stat) in specials {
            let page = page.clone();
            scope.spawn(move |_| {
                let name = lock(&page.slots)[slot].stat.name.to_vec();
                let folder = page.folder.clone();
                self.read_special(
                    &folder.dir,
                    &name,
                    &name,
                    &stat,
                    Box::new(move |read| self.finish_file(&page, slot, read)),
                );
            });
        }
        for batch in batches(files).into_iter().rev() {
            let page = page.clone();
            scope.spawn(move |scope| self.read_batch(scope, &page, batch));
        }
    }

    /// The rows that may concern a page, with only the entries in the page, and the number of entries they had.
    fn old_rows(&self, folder: &Folder, range: &Range<usize>) -> (Vec<(Vec<u8>, StatRow)>, usize) {
        if range.is_empty() {
            return (Vec::new(), 0);
        }
        let (first, last) = (folder.names.get(range.start), folder.names.get(range.end - 1));
        match self.depot.reader().rows(&folder.old_key, first, last) {
            Ok(mut rows) => {
                let bounds = |entry: &StatEntry| *entry.name >= *first && *entry.name <= *last;
                // Entries outside the page count too: a row that has some is not the row of this page.
                let entries = rows.iter().map(|(_, row)| row.entries.len()).sum();
                for (_, row) in &mut rows {
                    row.entries.retain(bounds);
                }
                (rows, entries)
            }
            Err(error) => {
                self.depot.fail(error.into());
                (Vec::new(), 0)
            }
        }
    }

    /// The metadata of one name; `None` if it is left out.
    fn look(&self, folder: &Folder, name: &[u8]) -> Option<Stat> {
        let path = || join(&folder.path, name);
        let stat = match folder.dir.stat_at(name) {
            Ok(stat) => stat,
            // It was deleted since the folder was read, so it is not in the snapshot.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.skip(&path(), error, false);
                return None;
            }
        };
        let is_folder = stat.kind == FileKind::Directory;
        let is_large = self.exclude.larger_than.is_some_and(|limit| stat.kind == FileKind::File && stat.size > limit);
        let is_nodump = self.exclude.nodump && stat.flags & flags::NODUMP != 0;
        let is_own = is_folder && self.never.contains(&(stat.dev, stat.ino));
        if is_large || is_nodump || is_own || folder.is_excluded(name, is_folder) {
            if is_own {
                lock(&self.rules).own.insert(path());
            } else if is_large || is_nodump {
                lock(&self.rules).left_out.insert(path());
            }
            self.progress.detail(&format!("left out: {}", Shown(&path())));
            return None;
        }
        Some(stat)
    }

    /// Whether a file is as it was when this entry was remembered.
    pub(super) fn is_unchanged(&self, old: &StatEntry, stat: &Stat) -> bool {
        !self.read_all
            && old.inode != 0
            && old.inode == stat.ino
            && old.kind == stat.kind
            && old.size == stat.size
            && old.mtime == stat.mtime
            && old.ctime == stat.ctime
    }

    /// Whether all chunks of a remembered entry are stored.
    pub(super) fn is_stored(&self, entry: &[u8]) -> bool {
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
        let mut trees = self.trees.another();
        let mut lists = Looked { trees: &mut trees, depot: self.depot };
        let mut ids = IdReader::new(stream);
        loop {
            match ids.next(&mut lists) {
                Ok(Some(id)) if self.depot.is_stored(&id) => {}
                Ok(None) => return true,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    /// Encodes an entry. One that cannot be encoded is listed and left out.
    pub(super) fn encode(&self, entry: &Entry, path: &[u8]) -> Bytes {
        let mut bytes = Vec::with_capacity(ENTRY_ROOM);
        match encode_entry(entry, &mut bytes) {
            // A copy has no spare capacity.
            Ok(()) => Bytes::copy_from_slice(&bytes),
            Err(error) => {
                self.skip(path, error, false);
                Bytes::new()
            }
        }
    }

    /// Keeps a folder on another file system without its content.
    fn leave_empty(&self, page: &Arc<Page>, slot: usize, entry: Entry, path: Vec<u8>) {
        let entry = Entry { content: Some(Stream::EMPTY), ..entry };
        self.found.folders.fetch_add(1, Relaxed);
        self.progress.detail(&format!("left out, another file system: {}", Shown(&path)));
        lock(&self.elsewhere).push(&path);
        let bytes = self.encode(&entry, &path);
        lock(&page.slots)[slot].stat.entry = bytes;
        lock(&self.rules).emptied.insert(path);
        self.leave(page);
    }

    /// Opens a folder inside another and spawns the reading of it.
    fn enter_folder<'s>(&'s self, scope: &Scope<'s>, page: Arc<Page>, slot: usize, stat: &Stat, known: Option<Entry>)
    where
        'a: 's,
    {
        if self.stopped() {
            return;
        }
        let parent = page.folder.clone();
        let name = lock(&page.slots)[slot].stat.name.to_vec();
        let path = join(&parent.path, &name);
        let unreadable = |error: &dyn std::fmt::Display| {
            self.skip(&path, error, false);
            // The folder itself is kept, empty, so that a restore has its metadata; the list says what is missing.
            let entry = Entry { content: Some(Stream::EMPTY), ..self.plain_entry(&name, stat) };
            self.found.folders.fetch_add(1, Relaxed);
            let bytes = self.encode(&entry, &path);
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
            let known = known.filter(|_| same_content(stat, &now));
            let stayed = known.is_some();
            let entry = known.map_or_else(|| self.folder_entry(&name, &now, &dir), Ok)?;
            Ok((dir, now, entry, stayed))
        });
        let (dir, now, entry, stayed) = match opened {
            Ok(opened) => opened,
            Err(error) => return unreadable(&error),
        };
        if self.exclude.one_file_system && now.dev != parent.root_dev {
            return self.leave_empty(&page, slot, entry, path);
        }
        let key = child_key(&parent.key, &name);
        let root = &path[..parent.root_len.saturating_sub(1).min(path.len())];
        if self.mounts.has_gone(key, now.mount_root || now.dev != parent.dev, root, &path) {
            self.skip(&path, NOT_MOUNTED, false);
        }
        let place = Place {
            root_len: parent.root_len,
            depth: parent.depth + 1,
            root_dev: parent.root_dev,
            local: (now.dev == parent.dev).then_some(parent.local),
            key,
            old_key: child_key(&parent.old_key, &name),
            stayed,
            path: path.clone(),
        };
        let wanted = match &parent.wanted {
            Some(wanted) if !wanted.all => wanted.below.get(&name).cloned(),
            _ => None,
        };
        let rules = parent.rules.clone();
        match self.open_folder(Parent::Page(page.clone(), slot), dir, &now, entry, place, rules, wanted) {
            // The thread that opened the folder reads its first page.
            Ok(folder) => self.read_page(scope, &folder, 0),
            Err(error) => unreadable(&error),
        }
    }

    /// Reads some files of a page.
    fn read_batch<'s>(&'s self, scope: &Scope<'s>, page: &Arc<Page>, batch: Vec<(usize, Stat)>)
    where
        'a: 's,
    {
        let folder = &page.folder;
        let mut rest = batch.into_iter();
        let mut ahead: VecDeque<Ahead> = VecDeque::new();
        let mut ahead_len = 0;
        loop {
            while ahead.len() < AHEAD_MAX && ahead_len < AHEAD_LEN {
                let Some((slot, stat)) = rest.next() else { break };
                let name = lock(&page.slots)[slot].stat.name.to_vec();
                // A file with several names may have been read under another one.
                let file = (stat.nlink == 1).then(|| folder.dir.open_file(&name));
                if let Some(Ok(file)) = &file {
                    file.prefetch(0, stat.size.min(AHEAD_LEN));
                }
                ahead_len += stat.size;
                ahead.push_back(Ahead { slot, stat, name, file });
            }
            let Some(Ahead { slot, stat, name, file }) = ahead.pop_front() else { return };
            ahead_len -= stat.size;
            if self.stopped() {
                return;
            }
            let linked = (stat.nlink > 1).then(|| self.linked_entry(&name, &stat)).flatten();
            if let Some(entry) = linked {
                self.progress.counters().add(1, stat.size);
                self.finish_file(page, slot, Ok((entry, stat)));
                continue;
            }
            let spread = (stat.size >= SHARED_LEN).then_some(scope);
            let page = page.clone();
            let file = file.unwrap_or_else(|| folder.dir.open_file(&name));
            let is_long = stat.size >= LONG_LEN;
            if is_long {
                self.progress.long_file(Some(&join(&folder.path, &name)));
            }
            let done = move |read| {
                if is_long {
                    self.progress.long_file(None);
                }
                self.finish_file(&page, slot, read);
            };
            self.read_file(spread, file, &name, &stat, folder.local, Box::new(done));
        }
    }

    /// The entry of a file that was already read under another name.
    fn linked_entry(&self, name: &[u8], stat: &Stat) -> Option<Entry> {
        let links = lock(&self.links);
        let (entry, seen) = links.get(&(stat.dev, stat.ino))?.entry.as_ref()?;
        same_content(seen, stat).then(|| Entry { name: name.to_vec(), ..entry.clone() })
    }

    /// Reads a regular file, makes its entry, and calls `done`.
    pub(super) fn read_file<'s>(
        &'s self,
        spread: Option<&Scope<'s>>,
        file: io::Result<SourceFile>,
        name: &[u8],
        stat: &Stat,
        local: bool,
        done: ReadDone<'s>,
    ) where
        'a: 's,
    {
        let opened = file.and_then(|file| {
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
            match read_small(self.depot, &file, stat) {
                Ok(Some((content, after))) => {
                    self.count_read(content.size);
                    self.progress.counters().add(1, content.size);
                    self.progress.counters().bytes_read.fetch_add(content.size, Relaxed);
                    return done(Ok((entry(content, &after), after)));
                }
                Ok(None) => {
                    let done = Box::new(move |read: Result<(Content, Stat), ReadFailed>| {
                        self.progress.counters().add(1, 0);
                        done(read.map(|(content, after)| (entry(content, &after), after)));
                    });
                    return self.read_to_end(Arc::new(file), stat.clone(), done);
                }
                Err(failed) => return done(Err(failed)),
            }
        }
        let large = LargeFile {
            file: Arc::new(file),
            extents: extents.unwrap_or_else(|| vec![(0, stat.size)]),
            before: stat.clone(),
        };
        let done = Box::new(move |read: Result<(Content, Stat), ReadFailed>| {
            self.progress.counters().add(1, 0);
            done(read.map(|(content, after)| (entry(content, &after), after)));
        });
        self.read_large_file(spread, large, local, done);
    }

    /// Reads a large or sparse file. If it changed and is not very large, reads it again, in one thread and without mapping it.
    fn read_large_file<'s>(&'s self, spread: Option<&Scope<'s>>, large: LargeFile, map: bool, done: ContentDone<'s>)
    where
        'a: 's,
    {
        let feed = Feed::File { file: large.file.clone(), extents: large.extents.clone(), map };
        let finish = move |read: Result<(Stream, bool), ReadFailed>| {
            let looked = read.and_then(|(stream, torn)| {
                let after = large.file.stat()?;
                let torn = torn || !same_content(&large.before, &after);
                // Some systems do not report the length of their files: then there is more to read, and nothing has changed.
                let is_longer = !torn && large.file.read_full_at(&mut [0], large.before.size)? > 0;
                Ok((stream, torn, is_longer, after))
            });
            let (stream, torn, is_longer, after) = match looked {
                Ok(looked) => looked,
                Err(failed) => return done(Err(failed)),
            };
            self.count_read(stream.len);
            if is_longer {
                return self.read_to_end(large.file, large.before, done);
            }
            if torn && map && after.size < RETRY_MAX {
                let extents = large.file.extents(after.size).ok().flatten().unwrap_or_else(|| vec![(0, after.size)]);
                let again = LargeFile { extents, before: after, ..large };
                return self.read_large_file(None, again, false, done);
            }
            let data: u64 = large.extents.iter().map(|(start, end)| end - start).sum();
            let content = if data == large.before.size || data != stream.len {
                // If it was truncated meanwhile, its holes are not known.
                Ok(Content { size: stream.len, stream, holes: None, torn })
            } else {
                holes_between(&large.extents, large.before.size, self.depot).map(|holes| Content {
                    stream,
                    holes,
                    size: large.before.size,
                    torn,
                })
            };
            done(content.map(|content| (content, after)).map_err(ReadFailed::from));
        };
        read_large(self.depot, feed, spread, self.progress, Box::new(finish));
    }

    /// Reads a file of unknown length to its end.
    fn read_to_end<'s>(&'s self, file: Arc<SourceFile>, before: Stat, done: ContentDone<'s>)
    where
        'a: 's,
    {
        let feed = Feed::Reader(Box::new(FromStart { file: file.clone(), at: 0 }));
        let finish = move |read: Result<(Stream, bool), ReadFailed>| {
            done(read.and_then(|(stream, _)| {
                let after = file.stat()?;
                self.count_read(stream.len);
                let torn = !same_content(&before, &after);
                Ok((Content { size: stream.len, stream, holes: None, torn }, after))
            }));
        };
        read_large(self.depot, feed, None, self.progress, Box::new(finish));
    }

    fn count_read(&self, len: u64) {
        self.found.bytes_read.fetch_add(len, Relaxed);
    }

    /// Whether items of this kind are read like files.
    pub(super) fn reads(&self, kind: FileKind) -> bool {
        self.read_special && matches!(kind, FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice)
    }

    /// Reads a pipe or a device to its end, and makes a file entry for it.
    pub(super) fn read_special<'s>(&'s self, dir: &Dir, file_name: &[u8], name: &[u8], stat: &Stat, done: ReadDone<'s>)
    where
        'a: 's,
    {
        let opened = match dir.open_special(file_name) {
            Ok(opened) => opened,
            Err(error) => return done(Err(error.into())),
        };
        let (name, stat) = (name.to_vec(), stat.clone());
        let finish = move |read: Result<(Stream, bool), ReadFailed>| {
            self.progress.counters().add(1, 0);
            done(read.map(|(stream, _)| {
                self.count_read(stream.len);
                let kind = FileKind::File;
                let stat = Stat { kind, ..stat };
                let entry = Entry { size: stream.len, content: Some(stream), ..self.plain_entry(&name, &stat) };
                (entry, stat)
            }));
        };
        read_large(self.depot, Feed::Reader(Box::new(opened)), None, self.progress, Box::new(finish));
    }
}

/// The slots of a page, and those of them whose entries are still missing, each with the metadata of its file.
#[derive(Default)]
struct Sorted {
    slots: Vec<Slot>,
    /// Folders, each with its remembered entry if it looks as remembered.
    folders: Vec<(usize, Stat, Option<Entry>)>,
    files: Vec<(usize, Stat)>,
    /// Pipes and devices that are read like files.
    specials: Vec<(usize, Stat)>,
}

/// Reads a file from its start.
struct FromStart {
    file: Arc<SourceFile>,
    at: u64,
}

impl io::Read for FromStart {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(out, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// A file that is opened ahead of its turn.
struct Ahead {
    slot: usize,
    stat: Stat,
    name: Vec<u8>,
    file: Option<io::Result<SourceFile>>,
}

/// A large file that is being read.
struct LargeFile {
    file: Arc<SourceFile>,
    extents: Vec<(u64, u64)>,
    before: Stat,
}

type ContentDone<'s> = Box<dyn FnOnce(Result<(Content, Stat), ReadFailed>) + Send + 's>;

/// Splits the files of a page into batches that are worth passing to another thread.
fn batches(files: Vec<(usize, Stat)>) -> Vec<Vec<(usize, Stat)>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut len = 0;
    for file in files {
        len += file.1.size + 4096;
        batch.push(file);
        if len >= BATCH_LEN {
            batches.push(std::mem::take(&mut batch));
            len = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Remembered entries, in the order of their names.
struct Joined {
    entries: std::iter::Peekable<std::vec::IntoIter<StatEntry>>,
}

impl Joined {
    /// The entries of these rows.
    fn new(rows: Vec<(Vec<u8>, StatRow)>) -> Self {
        let several = rows.len() > 1;
        let mut rows = rows.into_iter().map(|(_, row)| row.entries);
        let mut entries = rows.next().unwrap_or_default();
        if several {
            // Rows of different sessions may overlap where pages were bounded differently.
            entries.extend(rows.flatten());
            entries.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Self { entries: entries.into_iter().peekable() }
    }

    /// The entry with this name. Must be called with names in order.
    fn take(&mut self, name: &[u8]) -> Option<StatEntry> {
        while self.entries.next_if(|entry| *entry.name < *name).is_some() {}
        self.entries.next_if(|entry| *entry.name == *name)
    }
}

/// Reads lists of ids, but only from chunks in packs that stay.
struct Looked<'t, 'v, 'd> {
    trees: &'t mut TreeReader<'v>,
    depot: &'d Depot<'d>,
}

impl ChunkSource for Looked<'_, '_, '_> {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        if self.depot.is_stored(id) { self.trees.chunk(id) } else { Err(ReadError::Lost(*id)) }
    }
}
