//! Rewriting a snapshot's trees for another vault: every listing gets the ids that the other vault gives its content.
//!
//! A tree is walked twice, in the same order. The first walk runs ahead and gathers contents that must be read; all
//! threads copy them, a window at a time. The second walk writes the listings. Content that is unchanged since an
//! earlier snapshot, of which the other vault has a copy, is not read at all, as long as the other vault still stores
//! all of it.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::engine::copy::CopyError;
use crate::engine::snapshot::Ended;
use crate::id::StreamKey;
use crate::limits::{PATH_COST, PATHS_LEN_MAX};
use crate::lru::Lru;
use crate::path::{Shown, join};
use crate::progress::Progress;
use crate::read::mark::stream_key;
use crate::read::{ChunkReader, Listing, Recorder, TreeReader};
use crate::sync::lock;
use crate::tree::{ChunkSink, Entry, FileKind, Holes, IdReader, Stream, StreamReader, encode_entry, read_stream};
use crate::vault::{ObjectState, ReadError, Vault};
use crate::write::depot::Depot;
use crate::write::file::{Feed, ReadFailed, SMALL_MAX, read_large, store_whole};
use crate::write::tree::{ListingBuilder, MetaStream, SkippedList};

/// The number of contents gathered before they are read.
const WINDOW: usize = 4096;
/// The number of streams whose copies are remembered.
const REMEMBERED: usize = 1 << 18;

/// The role of a stream. A file may have the same bytes as a listing: as content, it is copied to another stream than
/// as a listing, which needs its entries' content too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum As {
    Listing,
    Content,
}

/// A memory of streams and their copies in the other vault; it lasts from one snapshot to the next.
pub(crate) struct Memory {
    known: Mutex<Lru<(As, StreamKey), Stream>>,
    /// Streams that the other vault stores; for listings, with everything below them.
    stored: Mutex<HashSet<(As, StreamKey)>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::new(Lru::new(REMEMBERED)), stored: Mutex::default() }
    }

    fn get(&self, what: As, stream: &Stream) -> Option<Stream> {
        lock(&self.known).get(&(what, stream_key(stream)))
    }

    fn put(&self, what: As, stream: &Stream, copy: Stream) {
        lock(&self.known).insert((what, stream_key(stream)), copy, 1);
    }
}

/// A listing here and its copy in the other vault.
type Base = (Stream, Stream);

/// Copies trees.
pub(crate) struct Trees<'t, 'a> {
    /// The vault that is copied.
    pub(crate) vault: &'t Vault,
    /// Whether other clients contribute to the snapshot, so that missing parts may not have arrived yet.
    pub(crate) may_be_late: bool,
    /// Reads the vault that is copied.
    pub(crate) from: &'t Arc<ChunkReader<'t>>,
    /// Reads the other vault, as it was when this part of the work began.
    pub(crate) there: &'t Arc<ChunkReader<'t>>,
    pub(crate) depot: &'t Depot<'a>,
    pub(crate) memory: &'t Memory,
    /// Whether both vaults name chunks alike.
    pub(crate) is_alike: bool,
    pub(crate) progress: &'t dyn Progress,
}

/// A tree that was copied.
#[derive(Default)]
pub(crate) struct Copied {
    pub(crate) tree: Stream,
    /// Entries that could not be read.
    pub(crate) lost: Vec<Lost>,
    /// The total length of their paths, in bytes.
    lost_len: u64,
}

impl Copied {
    /// Notes an entry that could not be read. If it is found at very many paths, it is lost at each of them.
    fn lose(&mut self, path: Vec<u8>, state: ObjectState) -> Result<(), CopyError> {
        self.lost_len = self.lost_len.saturating_add(path.len() as u64 + PATH_COST);
        if self.lost_len > PATHS_LEN_MAX {
            let what = "more is lost of the snapshot than can be listed, for it lies at very many paths".to_owned();
            return Err(CopyError::Entry { path: Shown(&path).to_string(), what });
        }
        self.lost.push(Lost { path, state });
        Ok(())
    }
}

/// An entry or a list that could not be read.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    /// Its path in the snapshot, or the name of the list.
    pub(crate) path: Vec<u8>,
    /// The state of the damaged object.
    pub(crate) state: ObjectState,
}

/// Content that was read, or the reason why it could not be.
type Found<T> = Result<T, ObjectState>;

/// Reads a listing, together with the same folder of the base snapshot and its copy.
struct Level {
    listing: Listing,
    base: Option<BaseListing>,
    path: Vec<u8>,
}

struct BaseListing {
    before: Listing,
    copied: Listing,
    /// The last pair of entries read from the base, which may come after the requested name.
    next: Option<(Entry, Entry)>,
}

impl Level {
    fn new(path: Vec<u8>, listing: &Stream, base: Option<&Base>) -> Self {
        let base = base.map(|(before, copied)| BaseListing {
            before: Listing::new(before),
            copied: Listing::new(copied),
            next: None,
        });
        Self { listing: Listing::new(listing), base, path }
    }
}

impl BaseListing {
    /// The entry of this name in the base snapshot, and its copy. Names must be requested in order.
    fn find(
        &mut self,
        name: &[u8],
        from: &mut Recorder<'_>,
        there: &mut Recorder<'_>,
    ) -> Result<Option<&(Entry, Entry)>, CopyError> {
        while self.next.as_ref().is_none_or(|(entry, _)| entry.name.as_slice() < name) {
            let before = self.before.next(from).map_err(CopyError::From)?;
            let copied = self.copied.next(there).map_err(CopyError::There)?;
            let (Some(before), Some(mut copied)) = (before, copied) else { return Ok(None) };
            // The copy may have more entries, which exist only in the other vault.
            while copied.name < before.name {
                match self.copied.next(there).map_err(CopyError::There)? {
                    Some(next) => copied = next,
                    None => return Ok(None),
                }
            }
            if copied.name != before.name {
                return Ok(None);
            }
            self.next = Some((before, copied));
        }
        Ok(self.next.as_ref().filter(|(entry, _)| entry.name == name))
    }
}

/// The next step in a folder.
enum Step {
    Entry(Box<Entry>, Option<Box<(Entry, Entry)>>),
    End,
    /// The rest of the listing cannot be read.
    Broken(ObjectState),
}

/// A folder whose new listing is being written.
struct Folder {
    level: Level,
    writer: ListingBuilder,
    /// Its listing in the vault that is copied.
    source: Stream,
    /// Its entry, without content so far.
    entry: Option<Entry>,
    is_whole: bool,
}

impl Trees<'_, '_> {
    fn step(
        &self,
        level: &mut Level,
        from: &mut Recorder<'_>,
        there: &mut Recorder<'_>,
    ) -> Result<Step, Ended<CopyError>> {
        from.asked.clear();
        there.asked.clear();
        if self.progress.stopped() {
            return Err(CopyError::Interrupted.into());
        }
        if self.depot.has_failed() {
            return Err(Ended::Elsewhere);
        }
        let entry = match self.contained(level.listing.next(from))? {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(Step::End),
            Err(state) => return Ok(Step::Broken(state)),
        };
        let mut base = None;
        if let Some(listing) = &mut level.base {
            match listing.find(&entry.name, from, there) {
                Ok(found) => base = found.cloned().map(Box::new),
                // The base cannot be read, so do without it.
                Err(CopyError::From(error) | CopyError::There(error)) if error.is_contained() => level.base = None,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Step::Entry(Box::new(entry), base))
    }

    /// The copy of a content stream, if it is known and stored.
    fn known(&self, stream: &Stream, base: Option<(&Stream, &Stream)>) -> Result<Option<Stream>, CopyError> {
        if stream.is_empty() {
            return Ok(Some(Stream::EMPTY));
        }
        if let Some(copy) = self.memory.get(As::Content, stream) {
            return Ok(Some(copy));
        }
        let copy = base.filter(|(before, _)| *before == stream).map(|(_, copy)| copy.clone());
        match copy {
            Some(copy) if self.is_stored(&copy)? => Ok(Some(copy)),
            _ => Ok(None),
        }
    }

    /// Whether the other vault stores all chunks of one of its streams.
    fn is_stored(&self, stream: &Stream) -> Result<bool, CopyError> {
        let is_there = |ids: &[crate::id::ChunkId]| ids.iter().all(|id| self.depot.is_stored(id));
        if stream.depth == 0 {
            return Ok(is_there(&stream.ids));
        }
        let key = (As::Content, stream_key(stream));
        if lock(&self.memory.stored).contains(&key) {
            return Ok(true);
        }
        let (mut source, mut ids) = (Recorder::new(self.there), IdReader::new(stream));
        loop {
            match ids.next(&mut source) {
                Ok(Some(id)) if !self.depot.is_stored(&id) => return Ok(false),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if error.is_contained() => return Ok(false),
                Err(error) => return Err(CopyError::There(error)),
            }
        }
        if !is_there(&source.asked) {
            return Ok(false);
        }
        lock(&self.memory.stored).insert(key);
        Ok(true)
    }

    /// Whether the other vault stores one of its folders with everything below it.
    fn is_folder_stored(&self, listing: &Stream) -> Result<bool, CopyError> {
        let mut folders = vec![listing.clone()];
        let mut done = Vec::new();
        let mut source = Recorder::new(self.there);
        while let Some(listing) = folders.pop() {
            let key = (As::Listing, stream_key(&listing));
            if lock(&self.memory.stored).contains(&key) {
                continue;
            }
            source.asked.clear();
            let mut entries = Listing::new(&listing);
            loop {
                let entry = match entries.next(&mut source) {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(error) if error.is_contained() => return Ok(false),
                    Err(error) => return Err(CopyError::There(error)),
                };
                if let Some(Holes::Stream(holes)) = &entry.holes
                    && !self.is_stored(holes)?
                {
                    return Ok(false);
                }
                match (entry.kind, entry.content) {
                    (FileKind::Directory, Some(content)) => folders.push(content),
                    (_, Some(content)) if !self.is_stored(&content)? => return Ok(false),
                    _ => {}
                }
            }
            if !source.asked.iter().all(|id| self.depot.is_stored(id)) {
                return Ok(false);
            }
            done.push(key);
        }
        lock(&self.memory.stored).extend(done);
        Ok(true)
    }

    /// The copy of a folder, if it is known and stored with everything below it.
    fn known_folder(&self, listing: &Stream, base: Option<&Base>) -> Result<Option<Stream>, CopyError> {
        if let Some(copy) = self.memory.get(As::Listing, listing) {
            return Ok(Some(copy));
        }
        let Some((before, copy)) = base.filter(|(before, _)| before == listing) else { return Ok(None) };
        if !self.is_folder_stored(copy)? {
            return Ok(None);
        }
        self.memory.put(As::Listing, before, copy.clone());
        Ok(Some(copy.clone()))
    }

    /// Copies a tree. `base`: the tree of an earlier snapshot, and its copy.
    pub(crate) fn copy(&self, tree: &Stream, base: Option<&Base>) -> Result<Copied, Ended<CopyError>> {
        let mut copied = Copied::default();
        if let Some(known) = self.known_folder(tree, base)? {
            copied.tree = known;
            return Ok(copied);
        }
        let (mut from, mut there) = (Recorder::new(self.from), Recorder::new(self.there));
        let stack = vec![Level::new(Vec::new(), tree, base)];
        let mut ahead = Ahead { trees: self, stack, been_in: Lru::new(REMEMBERED), lost: HashMap::new() };
        let folder =
            |level, source, entry| Folder { level, writer: ListingBuilder::default(), source, entry, is_whole: true };
        let mut stack = vec![folder(Level::new(Vec::new(), tree, base), tree.clone(), None)];
        while let Some(current) = stack.last_mut() {
            match self.step(&mut current.level, &mut from, &mut there)? {
                Step::Entry(entry, before) => {
                    let path = join(&current.level.path, &entry.name);
                    if entry.kind == FileKind::Directory {
                        let listing = entry.content.clone().unwrap_or_default();
                        let base = folders_of(before.as_deref());
                        if let Some(known) = self.known_folder(&listing, base.as_ref())? {
                            let entry = Entry { content: Some(known), ..*entry };
                            write_entry(&entry, &mut current.writer, self.depot, &path)?;
                        } else {
                            let level = Level::new(path, &listing, base.as_ref());
                            stack.push(folder(level, listing, Some(*entry)));
                        }
                        continue;
                    }
                    match self.entry(*entry, before.as_deref(), &mut ahead)? {
                        Ok(entry) => write_entry(&entry, &mut current.writer, self.depot, &path)?,
                        Err(state) => {
                            current.is_whole = false;
                            copied.lose(path, state)?;
                        }
                    }
                }
                Step::Broken(state) => {
                    copied.lose(current.level.path.clone(), state)?;
                    current.is_whole = false;
                    self.leave(&mut stack, &mut copied)?;
                }
                Step::End => self.leave(&mut stack, &mut copied)?,
            }
        }
        Ok(copied)
    }

    /// Finishes the last folder, and adds it to its parent.
    fn leave(&self, stack: &mut Vec<Folder>, copied: &mut Copied) -> Result<(), Ended<CopyError>> {
        let Some(Folder { level, writer, source, entry, is_whole }) = stack.pop() else { return Ok(()) };
        let listing = writer.finish(self.depot)?;
        if is_whole {
            self.memory.put(As::Listing, &source, listing.clone());
        }
        let (Some(above), Some(entry)) = (stack.last_mut(), entry) else {
            copied.tree = listing;
            return Ok(());
        };
        above.is_whole &= is_whole;
        let entry = Entry { content: Some(listing), ..entry };
        write_entry(&entry, &mut above.writer, self.depot, &level.path)
    }

    /// Copies an entry that is not a folder, if its content can be read.
    fn entry(
        &self,
        mut entry: Entry,
        before: Option<&(Entry, Entry)>,
        ahead: &mut Ahead<'_, '_, '_>,
    ) -> Result<Found<Entry>, Ended<CopyError>> {
        if let Some(Holes::Stream(holes)) = &entry.holes {
            match self.meta_stream(holes)? {
                Ok(holes) => entry.holes = Some(Holes::Stream(holes)),
                Err(state) => return Ok(Err(state)),
            }
        }
        let Some(content) = &entry.content else { return Ok(Ok(entry)) };
        let base = contents_of(before);
        if let Some(known) = self.known(content, base)? {
            entry.content = Some(known);
            return Ok(Ok(entry));
        }
        let key = stream_key(content);
        if !ahead.lost.contains_key(&key) {
            ahead.fill(content)?;
        }
        let Some(copy) = self.memory.get(As::Content, content) else {
            return Ok(Err(ahead.lost.get(&key).copied().unwrap_or(ObjectState::Damaged)));
        };
        entry.content = Some(copy);
        Ok(Ok(entry))
    }

    /// Copies one content stream, unless it was copied before. If it cannot be read, returns the reason.
    pub(crate) fn content(&self, stream: &Stream) -> Result<Option<ObjectState>, Ended<CopyError>> {
        match self.known(stream, None)? {
            Some(_) => Ok(None),
            None => Ok(self.contents(vec![stream.clone()])?.into_values().next()),
        }
    }

    /// Copies contents, with all threads, and remembers the copies. Returns those that cannot be read.
    fn contents(&self, wanted: Vec<Stream>) -> Result<HashMap<StreamKey, ObjectState>, Ended<CopyError>> {
        let lost = Mutex::new(HashMap::new());
        let note = |stream: &Stream, copy: Found<Stream>| match copy {
            Ok(copy) => self.memory.put(As::Content, stream, copy),
            Err(state) => drop(lock(&lost).insert(stream_key(stream), state)),
        };
        let (large, small): (Vec<Stream>, Vec<Stream>) =
            wanted.into_iter().partition(|stream| stream.len > SMALL_MAX && !self.is_alike);
        small.par_iter().try_for_each(|stream| {
            if self.progress.stopped() {
                return Err(CopyError::Interrupted.into());
            }
            let copy = if self.is_alike { self.same_content(stream) } else { self.small_content(stream) };
            note(stream, copy?);
            Ok::<_, Ended<CopyError>>(())
        })?;
        for stream in large {
            note(&stream, self.large_content(&stream)?);
        }
        Ok(crate::sync::into_inner(lost))
    }

    /// Turns a read error into the state of the damaged object, if everything else can go on. Any other error ends
    /// the work.
    pub(crate) fn contained<T>(&self, read: Result<T, ReadError>) -> Result<Found<T>, CopyError> {
        match read {
            Ok(read) => Ok(Ok(read)),
            Err(error) if error.is_contained() => Ok(Err(self.vault.state_of_unread(&error, self.may_be_late))),
            Err(error) => Err(CopyError::From(error)),
        }
    }

    fn small_content(&self, stream: &Stream) -> Result<Found<Stream>, Ended<CopyError>> {
        let read = read_stream(stream, stream.len, &mut Recorder::new(self.from));
        let bytes = match self.contained(read)? {
            Ok(bytes) => bytes,
            Err(state) => return Ok(Err(state)),
        };
        let counters = self.progress.counters();
        counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
        counters.bytes_read.fetch_add(bytes.len() as u64, Relaxed);
        Ok(Ok(store_whole(self.depot, &bytes)?))
    }

    fn large_content(&self, stream: &Stream) -> Result<Found<Stream>, Ended<CopyError>> {
        let mut content = Content {
            stream: StreamReader::new(stream),
            source: TreeReader::sharing(self.from),
            rest: Vec::new(),
            used: 0,
            error: None,
        };
        let result = Mutex::new(Err(ReadFailed::Run));
        rayon::scope(|scope| {
            let done = Box::new(|read| *lock(&result) = read);
            read_large(self.depot, Feed::Reader(Box::new(&mut content)), Some(scope), self.progress, done);
        });
        match (crate::sync::into_inner(result), content.error) {
            (Ok((copy, _)), None) => Ok(Ok(copy)),
            (_, Some(error)) => Ok(self.contained(Err(error))?),
            (Err(_), None) if self.progress.stopped() => Err(CopyError::Interrupted.into()),
            (Err(_), None) => Err(Ended::Elsewhere),
        }
    }

    /// Copies content that the other vault cuts and names alike: reads only the chunks that it does not have.
    fn same_content(&self, stream: &Stream) -> Result<Found<Stream>, Ended<CopyError>> {
        let (mut source, mut ids) = (Recorder::new(self.from), IdReader::new(stream));
        loop {
            let id = match self.contained(ids.next(&mut source))? {
                Ok(Some(id)) => id,
                Ok(None) => break,
                Err(state) => return Ok(Err(state)),
            };
            if self.depot.is_stored(&id) {
                continue;
            }
            let piece = match self.contained(self.from.chunk(&id))? {
                Ok(found) => found,
                Err(state) => return Ok(Err(state)),
            };
            let bytes = piece.bytes();
            self.progress.counters().bytes_read.fetch_add(bytes.len() as u64, Relaxed);
            self.depot.put_data(&mut self.depot.worker(), |buffer| buffer.extend_from_slice(bytes))?;
        }
        for id in std::mem::take(&mut source.asked) {
            match self.contained(self.from.chunk(&id))? {
                Ok(piece) => self.depot.meta_sink().put_chunk(piece.bytes())?,
                Err(state) => return Ok(Err(state)),
            };
        }
        self.progress.counters().bytes.fetch_add(stream.len, Relaxed);
        Ok(Ok(stream.clone()))
    }

    /// Copies a list, which is a stream other than the content of a file.
    pub(crate) fn meta_stream(&self, stream: &Stream) -> Result<Found<Stream>, Ended<CopyError>> {
        let mut copy = MetaStream::default();
        match self.append(stream, &mut copy)? {
            Ok(()) => Ok(Ok(copy.finish(self.depot)?)),
            Err(state) => Ok(Err(state)),
        }
    }

    /// Copies the list of skipped entries, so that more can be added to its end.
    pub(crate) fn skipped(&self, stream: &Stream) -> Result<Found<SkippedList>, Ended<CopyError>> {
        let mut list = SkippedList::default();
        Ok(self.append(stream, &mut list.stream)?.map(|()| list))
    }

    fn append(&self, stream: &Stream, copy: &mut MetaStream) -> Result<Found<()>, Ended<CopyError>> {
        let (mut reader, mut source) = (StreamReader::new(stream), Recorder::new(self.from));
        loop {
            match self.contained(reader.next(&mut source))? {
                Ok(Some(bytes)) => copy.write(&bytes, self.depot)?,
                Ok(None) => return Ok(Ok(())),
                Err(state) => return Ok(Err(state)),
            }
        }
    }
}

/// The listings of a folder in the base snapshot and in its copy.
fn folders_of(before: Option<&(Entry, Entry)>) -> Option<Base> {
    let (before, copied) = before?;
    if [before.kind, copied.kind] != [FileKind::Directory; 2] {
        return None;
    }
    Some((before.content.clone()?, copied.content.clone()?))
}

/// The contents of a file in the base snapshot and in its copy.
fn contents_of(before: Option<&(Entry, Entry)>) -> Option<(&Stream, &Stream)> {
    let (before, copied) = before?;
    if [before.kind, copied.kind] != [FileKind::File; 2] {
        return None;
    }
    Some((before.content.as_ref()?, copied.content.as_ref()?))
}

fn write_entry(
    entry: &Entry,
    writer: &mut ListingBuilder,
    depot: &Depot<'_>,
    path: &[u8],
) -> Result<(), Ended<CopyError>> {
    let mut bytes = Vec::new();
    encode_entry(entry, &mut bytes)
        .map_err(|error| CopyError::Entry { path: Shown(path).to_string(), what: error.to_string() })?;
    writer.push(&bytes, depot)?;
    Ok(())
}

/// The walk that runs ahead and gathers contents.
struct Ahead<'w, 't, 'a> {
    trees: &'w Trees<'t, 'a>,
    stack: Vec<Level>,
    /// Folders that it has visited. The contents of a folder are gathered once, however many paths lead to it.
    been_in: Lru<StreamKey, ()>,
    /// Contents that cannot be read.
    lost: HashMap<StreamKey, ObjectState>,
}

impl Ahead<'_, '_, '_> {
    /// Copies the next contents that are not known yet, including this one.
    fn fill(&mut self, wanted: &Stream) -> Result<(), Ended<CopyError>> {
        let trees = self.trees;
        let (mut from, mut there) = (Recorder::new(trees.from), Recorder::new(trees.there));
        // Always gather this one: it may have been remembered when this walk passed it, and forgotten since.
        let mut found = HashSet::from([stream_key(wanted)]);
        let mut window = vec![wanted.clone()];
        while window.len() < WINDOW
            && let Some(level) = self.stack.last_mut()
        {
            match trees.step(level, &mut from, &mut there)? {
                Step::Entry(entry, before) => {
                    let path = join(&level.path, &entry.name);
                    let Some(content) = &entry.content else { continue };
                    if entry.kind == FileKind::Directory {
                        let base = folders_of(before.as_deref());
                        let key = stream_key(content);
                        if self.been_in.get(&key).is_none() && trees.known_folder(content, base.as_ref())?.is_none() {
                            self.been_in.insert(key, (), 1);
                            self.stack.push(Level::new(path, content, base.as_ref()));
                        }
                    } else if trees.known(content, contents_of(before.as_deref()))?.is_none()
                        && found.insert(stream_key(content))
                    {
                        window.push(content.clone());
                    }
                }
                Step::End | Step::Broken(_) => drop(self.stack.pop()),
            }
        }
        self.lost.extend(trees.contents(window)?);
        Ok(())
    }
}

/// The content of a file in the vault that is copied, from start to end.
struct Content<'a> {
    stream: StreamReader,
    source: TreeReader<'a>,
    rest: Vec<u8>,
    used: usize,
    error: Option<ReadError>,
}

impl Read for &mut Content<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.used == self.rest.len() {
            match self.stream.next(&mut self.source) {
                Ok(Some(bytes)) => (self.rest, self.used) = (bytes, 0),
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.error = Some(error);
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        let len = out.len().min(self.rest.len() - self.used);
        out[..len].copy_from_slice(&self.rest[self.used..self.used + len]);
        self.used += len;
        Ok(len)
    }
}
