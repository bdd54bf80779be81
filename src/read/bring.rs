//! Brings segments from a far store before they are needed, many at a time, into the cache that all readers of a vault share.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::id::{ChunkId, StreamKey};
use crate::pack::SegmentPlace;
use crate::pack::together::runs;
use crate::read::TreeReader;
use crate::read::chunks::ChunkReader;
use crate::sync::{share, try_spawn};
use crate::tree::stream::stream_key;
use crate::tree::{FileKind, IdReader, Stream, StreamReader};
use crate::vault::ReadError;

/// Raw bytes of segments that are brought together.
const TOGETHER: u64 = 16 << 20;
/// Streams of at most this length are brought as a whole.
const SMALL: u64 = 4 << 20;
/// Raw bytes to keep, so that nothing is dropped before it is used: what is used, what waits, and what is being brought.
const KEPT: usize = 4 * TOGETHER as usize;
/// Raw bytes of trees that are brought before a walk.
const TREES: u64 = 48 << 20;
/// The most folders of one depth whose listings are brought before a walk.
const FOLDERS: usize = 64 << 10;

/// Brings segments into the cache. Nothing that goes wrong is reported: the reader that needs a segment reads it then.
pub(crate) struct Bringer<'a> {
    chunks: Arc<ChunkReader<'a>>,
    reads: usize,
}

impl<'a> Bringer<'a> {
    /// For the readers that share `chunks`.
    pub(super) fn new(chunks: Arc<ChunkReader<'a>>) -> Self {
        chunks.segments().keep(KEPT);
        let reads = chunks.packs().store().limits().reads;
        Self { chunks, reads }
    }

    /// The place of a chunk's segment, and its raw length.
    fn place(&self, id: &ChunkId) -> Option<(SegmentPlace, u64)> {
        let place = self.chunks.lookup().locate(id).ok()??;
        let info = self.chunks.lookup().pack(place.pack).ok()??;
        let raw = info.segments.get(place.segment as usize)?.raw;
        Some((info.place(place.segment)?, u64::from(raw)))
    }

    /// Brings segments that are not in the cache.
    fn bring(&self, mut places: Vec<SegmentPlace>) {
        places.retain(|place| !self.chunks.segments().has(&(place.pack, place.number)));
        places.sort_unstable_by_key(|place| (place.pack, place.offset));
        places.dedup();
        let known: Vec<_> = places.iter().copied().map(Some).collect();
        let runs = runs(&known);
        share(runs.len(), self.reads, |number| self.bring_run(&places[runs[number].clone()]));
    }

    fn bring_run(&self, run: &[SegmentPlace]) {
        let (packs, segments) = (self.chunks.packs(), self.chunks.segments());
        let [first, .., last] = run else {
            for place in run {
                let key = (place.pack, place.number);
                let _ = segments.get(key, |decompressor| Ok(packs.segment(place, None, decompressor)?));
            }
            return;
        };
        let Ok(together) = packs.read_together(first, last) else { return };
        for place in run {
            let Some(sealed) = together.part(place) else { continue };
            let key = (place.pack, place.number);
            let _ = segments.get(key, |decompressor| Ok(packs.open_read(place, sealed, decompressor)?));
        }
    }

    /// Brings the content of a stream, in parts, in the order in which it is read. Sends the number of chunks of each part
    /// once they can be read; each part waits for the one before to be received.
    fn bring_stream(&self, stream: &Stream, trees: &mut TreeReader<'_>, brought: &SyncSender<u64>) {
        let mut ids = IdReader::new(stream);
        let (mut places, mut last, mut raw, mut count) = (Vec::new(), None, 0, 0);
        while let Ok(Some(id)) = ids.next(trees) {
            count += 1;
            let Some((place, len)) = self.place(&id) else { continue };
            if last == Some(place) {
                continue;
            }
            last = Some(place);
            places.push(place);
            raw += len;
            if raw >= TOGETHER {
                self.bring(std::mem::take(&mut places));
                if brought.send(count).is_err() {
                    return;
                }
                (raw, count) = (0, 0);
            }
        }
        self.bring(places);
        // Nobody receives it if the reader has ended.
        let _ = brought.send(count);
    }

    /// Brings the content of streams that are small, or its lists of ids.
    fn bring_small<'s>(&self, streams: impl Iterator<Item = &'s Stream>) {
        let ids = streams.filter(|stream| stream.len <= SMALL).flat_map(|stream| &stream.ids);
        self.bring(ids.filter_map(|id| self.place(id)).map(|(place, _)| place).collect());
    }

    /// Brings the listings of trees, the folders of one depth together, up to some bytes. Of two trees to be compared only
    /// what differs is brought.
    fn bring_trees(
        &self,
        tops: &[&Stream],
        compared: &[&Stream],
        trees: &mut TreeReader<'_>,
        goes_on: &dyn Fn() -> bool,
    ) {
        let owned = |streams: &[&Stream]| streams.iter().map(|stream| (*stream).clone()).collect::<Vec<Stream>>();
        let mut levels = [owned(tops), owned(compared)];
        let mut seen: HashSet<StreamKey> = HashSet::new();
        let mut raw = 0;
        while levels.iter().any(|level| !level.is_empty()) && raw < TREES {
            let keys = |level: &[Stream]| level.iter().map(stream_key).collect::<HashSet<_>>();
            let (a, b) = (keys(&levels[0]), keys(&levels[1]));
            for level in &mut levels {
                level.retain(|listing| {
                    let key = stream_key(listing);
                    !(a.contains(&key) && b.contains(&key)) && seen.insert(key)
                });
                level.truncate(FOLDERS);
            }
            let ids = levels.iter().flatten().flat_map(|listing| &listing.ids);
            let places: BTreeMap<SegmentPlace, u64> = ids.filter_map(|id| self.place(id)).collect();
            raw += places.values().sum::<u64>();
            self.bring(places.into_keys().collect());
            for level in &mut levels {
                let mut below = Vec::new();
                for listing in std::mem::take(level) {
                    if !goes_on() {
                        return;
                    }
                    let read = trees.for_each_entry(&listing, |entry| {
                        below.extend(entry.content.filter(|_| entry.kind == FileKind::Directory));
                        below.len() < FOLDERS
                    });
                    if read.is_err_and(|error| !error.is_contained()) {
                        return;
                    }
                }
                *level = below;
            }
        }
    }
}

impl<'a> TreeReader<'a> {
    /// Whether the store is far.
    pub fn is_far(&self) -> bool {
        self.chunks().packs().store().is_far()
    }

    /// The bringer for this reader and others; `None` unless the store is far.
    fn bringer(&self) -> Option<Bringer<'a>> {
        self.is_far().then(|| Bringer::new(self.chunks().clone()))
    }

    /// Reads a stream to its end. From a far store, what follows is brought meanwhile, in many requests at a time.
    ///
    /// # Errors
    /// Those of reading, and those of `each`.
    pub fn read_ahead<E: From<ReadError>>(
        &mut self,
        stream: &Stream,
        mut each: impl FnMut(&[u8], &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut chunks = StreamReader::new(stream);
        let bringer = self.bringer().filter(|_| stream.depth > 0 || stream.ids.len() > 1);
        if stream.len <= SMALL {
            bringer.iter().for_each(|bringer| bringer.bring_small([stream].into_iter()));
        }
        let Some(bringer) = bringer.filter(|_| stream.len > SMALL) else {
            while let Some(bytes) = chunks.next(self)? {
                each(&bytes, self)?;
            }
            return Ok(());
        };
        let mut lists = self.another();
        std::thread::scope(|scope| {
            let (sender, brought) = sync_channel(0);
            // Without a thread nothing is brought ahead.
            let _ = try_spawn(scope, move || bringer.bring_stream(stream, &mut lists, &sender));
            let mut left = 0;
            loop {
                if left == 0 {
                    left = brought.recv().unwrap_or(u64::MAX);
                }
                let Some(bytes) = chunks.next(self)? else { return Ok(()) };
                left = left.saturating_sub(1);
                each(&bytes, self)?;
            }
        })
    }

    /// Before a walk through trees at a far store: brings their listings, the folders of one depth together, as far as
    /// they can be kept.
    pub fn bring_trees(&self, tops: &[&Stream], goes_on: &dyn Fn() -> bool) {
        if let Some(bringer) = self.bringer() {
            bringer.bring_trees(tops, &[], &mut self.another(), goes_on);
        }
    }

    /// As [`Self::bring_trees`], before two trees are compared: only folders that differ are brought.
    pub fn bring_differences(&self, old: &Stream, new: &Stream, goes_on: &dyn Fn() -> bool) {
        if let Some(bringer) = self.bringer() {
            bringer.bring_trees(&[old], &[new], &mut self.another(), goes_on);
        }
    }

    /// From a far store, brings the content of those of these streams that are small: as much as a caller will read
    /// next, and as can be kept. Of the others [`Self::read_ahead`] brings it.
    pub fn bring_small<'s>(&self, streams: impl Iterator<Item = &'s Stream>) {
        if let Some(bringer) = self.bringer() {
            bringer.bring_small(streams);
        }
    }
}
