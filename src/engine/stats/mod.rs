//! Disk usage (SPEC §5, §6): of the vault as a whole, of each source, and what each snapshot alone needs.
//!
//! For each tree and each chunk it is enough to know its users: one snapshot, several of one source, or several sources. Trees are read
//! level by level, so that all users of a tree are known before it is read: each is read once, whatever the number of snapshots. Memory
//! is bounded by the number of trees and chunks.

pub mod weigh;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::catalogue::{CatalogueError, PackInfo, Reader};
use crate::engine::check::hurt;
use crate::engine::stats::weigh::{Sample, weigh};
use crate::id::{ChunkId, ObjectName, StreamKey};
use crate::limits::sum_of;
use crate::progress::{Phase, Progress};
use crate::read::graph::{Visitor, walk};
use crate::read::mark::{LOSSES_KEPT, MarkError, stream_key};
use crate::read::{ChunkReader, Listing, Recorder};
use crate::store::{Delivery, Kind, Listed, StoreError};
use crate::sync::lock;
use crate::tree::{FileKind, Holes, IdReader, Stream, Time};
use crate::vault::{ReadError, SnapshotInfo, Vault, VaultError};

/// Most looks at all that snapshots need, if others change the vault during each.
const WALKS_MAX: u32 = 3;
/// Number of ids to collect before they are merged with the catalogue.
const IDS_WAITING: usize = 1 << 20;
/// Number of ids that one thread collects before it passes them on.
const IDS_LOCAL: usize = 4096;

/// Disk usage of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStats {
    /// Its name.
    pub source: String,
    /// The machine.
    pub host: String,
    /// Number of its snapshots.
    pub snapshots: u64,
    /// Total size of the files of all its snapshots, in bytes.
    pub bytes_raw: u64,
    /// Size of the files of its last snapshot, in bytes.
    pub bytes_last: u64,
    /// Stored size of data that only snapshots of this source need, in bytes.
    pub bytes_alone: u64,
}

/// Disk usage of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Its id.
    pub id: ObjectName,
    /// When it was taken.
    pub time: Time,
    /// Name of its source.
    pub source: String,
    /// The machine.
    pub host: String,
    /// Size of its files, in bytes.
    pub bytes_raw: u64,
    /// Bytes that it added to the store when it was taken.
    pub bytes_added: u64,
    /// Stored size of data that no other snapshot needs, in bytes: forgetting the snapshot and pruning until nothing is unused frees this
    /// much. Includes its share of headers and footers of packs.
    pub bytes_alone: u64,
}

/// Disk usage of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Number of packs of content and of trees.
    pub packs: u64,
    /// Their size, in bytes.
    pub bytes_packs: u64,
    /// Size of the meta packs among them, in bytes.
    pub bytes_meta: u64,
    /// Number of records in the log.
    pub records: u64,
    /// Their size, in bytes.
    pub bytes_records: u64,
    /// Total size of the files of all snapshots, in bytes.
    pub bytes_raw: u64,
    /// Total size of the different chunks of content and trees, uncompressed, in bytes.
    pub bytes_unique: u64,
    /// Stored size of needed data, in bytes.
    pub bytes_needed: u64,
    /// Stored size of data that no snapshot needs, in bytes: the rest of the packs.
    pub bytes_dead: u64,
    /// The part of it in packs that no record claims: of another machine's run in progress, or of a machine that lost its state.
    pub bytes_unclaimed: u64,
    /// Stored size of data that more than one source needs, in bytes.
    pub bytes_shared: u64,
    /// Number of different chunks that are needed.
    pub chunks: u64,
    /// The sources, the largest first.
    pub sources: Vec<SourceStats>,
    /// The snapshots, in order.
    pub snapshots: Vec<SnapshotStats>,
    /// Number of listings that cannot be read: the chunks that they need count as dead.
    pub unreadable: u64,
    /// Number of streams that a later version wrote: the chunks that they need are not known.
    pub newer: u64,
    /// Number of listings and chunks that have not arrived yet: the figures are without them.
    pub late: u64,
}

/// The users of something: 0 nobody, 1 + n snapshot n alone, then each source, and last "more than one source".
type Class = u32;

/// The numbering of classes.
struct Classes {
    /// The source of each snapshot.
    source_of: Vec<u32>,
    sources: u32,
}

impl Classes {
    const fn of_snapshot(index: usize) -> Class {
        1 + index as Class
    }

    fn of_source(&self, source: u32) -> Class {
        1 + self.source_of.len() as Class + source
    }

    fn mixed(&self) -> Class {
        self.of_source(self.sources)
    }

    /// The source that a class belongs to; `None` if nobody or several sources use it.
    fn source(&self, class: Class) -> Option<u32> {
        let count = self.source_of.len() as Class;
        match class {
            0 => None,
            _ if class <= count => self.source_of.get(class as usize - 1).copied(),
            _ => Some(class - count - 1).filter(|source| *source < self.sources),
        }
    }

    fn join(&self, a: Class, b: Class) -> Class {
        if a == b || b == 0 {
            a
        } else if a == 0 {
            b
        } else {
            match (self.source(a), self.source(b)) {
                (Some(a), Some(b)) if a == b => self.of_source(a),
                _ => self.mixed(),
            }
        }
    }
}

/// Computes the disk usage with this number of threads. The stored size that each snapshot needs alone is measured with this sample, or
/// else only estimated from the uncompressed lengths.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it. Damage is only counted.
pub fn stats(
    vault: &Vault,
    sample: Option<Sample>,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Stats, MarkError> {
    let threads = vault.store().reading_threads(threads.max(1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| CatalogueError::Database(format!("cannot start threads: {error}")))?;
    pool.install(|| {
        progress.counters().restart(0, 0);
        progress.phase(Phase::Plan);
        vault.know_all(progress)?;
        let mut stats = Stats::default();
        list_records(vault, &mut stats).map_err(VaultError::from)?;
        let Walked { snapshots, names, walk } = walked(vault, progress)?;
        stats.newer = walk.newer;
        let lacking = std::mem::take(&mut *lock(&walk.lacking));
        let is_any = walk.lacks(&lacking);
        let is_late = is_any && hurt::remember(vault, &walk.reader, &snapshots, &lacking, progress)?;
        (stats.unreadable, stats.late) = if is_late {
            (walk.unreadable, walk.late + lacking.len() as u64)
        } else {
            (walk.unreadable + walk.late, 0)
        };
        let chunks = std::mem::take(&mut lock(&walk.uses).chunks);
        let chunks: Vec<Class> = chunks.into_iter().map(AtomicU32::into_inner).collect();
        let infos = walk.reader.packs()?;
        let alone = weigh(&walk.reader, &walk.chunks, &infos, &chunks, snapshots.len(), sample, progress)?;
        let used = sum(&walk, &chunks, &infos, &snapshots, &names, &alone, &mut stats)?;
        let (claimed, condemned, own) = (vault.chains().claimed(), vault.condemned(), vault.noted(None));
        let is_unclaimed =
            |name: &ObjectName| !claimed.contains(name) && !condemned.contains(name) && !own.may_contain(name);
        let unclaimed = infos.iter().filter(|(number, info)| !used.contains(number) && is_unclaimed(&info.name));
        stats.bytes_unclaimed = unclaimed.map(|(_, info)| info.len).sum();
        Ok(stats)
    })
}

/// The findings of a walk over all that snapshots need.
struct Walked<'v> {
    snapshots: Vec<SnapshotInfo>,
    /// The sources and hosts, by the numbers of their classes.
    names: Vec<(String, String)>,
    walk: Walk<'v>,
}

/// Looks at what all snapshots need. If something is lacking, others may have dropped snapshots or moved data meanwhile:
/// then all is looked at again.
fn walked<'v>(vault: &'v Vault, progress: &'v dyn Progress) -> Result<Walked<'v>, MarkError> {
    let mut walks = 1;
    loop {
        let snapshots = vault.snapshots();
        let (classes, names) = classes(&snapshots);
        let reader = Arc::new(vault.catalogue().reader()?);
        let mut walk = Walk {
            chunks: Arc::new(ChunkReader::new(vault, reader.clone())?),
            reader,
            classes,
            trees: HashMap::new(),
            below: Vec::new(),
            uses: Mutex::default(),
            unreadable: 0,
            newer: 0,
            late: 0,
            lacking: Mutex::default(),
            is_synced: vault.delivery() == Delivery::Synced,
            progress,
        };
        lock(&walk.uses).chunks.resize_with(walk.reader.place_count() as usize, AtomicU32::default);
        walk.run(&snapshots)?;
        let is_sound = !walk.lacks(&lock(&walk.lacking));
        if is_sound || walks == WALKS_MAX || !vault.changed_meanwhile(&snapshots, progress)? {
            return Ok(Walked { snapshots, names, walk });
        }
        walks += 1;
    }
}

/// Gives each snapshot its source. Returns the names of the sources too.
fn classes(snapshots: &[SnapshotInfo]) -> (Classes, Vec<(String, String)>) {
    let mut numbers: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut names = Vec::new();
    let source_of = snapshots
        .iter()
        .map(|info| {
            let name = (info.body.source.clone(), info.body.host.clone());
            *numbers.entry(name.clone()).or_insert_with(|| {
                names.push(name);
                names.len() as u32 - 1
            })
        })
        .collect();
    (Classes { source_of, sources: names.len() as u32 }, names)
}

fn list_records(vault: &Vault, stats: &mut Stats) -> Result<(), StoreError> {
    vault.store().list(Kind::Log, &mut |listed| {
        if let Listed::Object { len, .. } = listed {
            stats.records += 1;
            stats.bytes_records += len;
        }
    })
}

struct Walk<'a> {
    chunks: Arc<ChunkReader<'a>>,
    reader: Arc<Reader>,
    classes: Classes,
    trees: HashMap<StreamKey, Class>,
    /// Listings of the next level, once for each of their users.
    below: Vec<(Stream, Class)>,
    uses: Mutex<Uses>,
    unreadable: u64,
    newer: u64,
    late: u64,
    /// Needed chunks that are in no pack, the first [`LOSSES_KEPT`], if the sync may bring them.
    lacking: Mutex<HashSet<ChunkId>>,
    is_synced: bool,
    progress: &'a dyn Progress,
}

/// Reads listings for one thread.
struct Hand<'a> {
    source: Recorder<'a>,
    found: Found,
}

/// The users of chunks.
#[derive(Default)]
struct Uses {
    /// Findings that are not entered yet.
    waiting: Vec<(ChunkId, Class)>,
    /// By rank in the catalogue.
    chunks: Vec<AtomicU32>,
}

/// Findings in some listings.
#[derive(Default)]
struct Found {
    below: Vec<(Stream, Class)>,
    /// Ids that have not been passed on yet.
    ids: Vec<(ChunkId, Class)>,
    unreadable: u64,
    newer: u64,
    late: u64,
}

impl Found {
    /// The result of a read; damage is counted and becomes `None`, so nothing behind it is read.
    fn unless_damaged<T>(&mut self, read: Result<Option<T>, ReadError>) -> Result<Option<T>, ReadError> {
        match read {
            Err(error) if error.is_contained() => {
                self.unreadable += u64::from(error.is_damage());
                self.newer += u64::from(error.is_newer());
                self.late += u64::from(error.is_late());
                Ok(None)
            }
            read => read,
        }
    }
}

impl<'a> Visitor for Walk<'a> {
    type Node = (Stream, Class);
    type Hand = Hand<'a>;
    type Found = Found;
    type Error = MarkError;

    fn reader(&self) -> &Reader {
        &self.reader
    }

    fn progress(&self) -> &dyn Progress {
        self.progress
    }

    fn stopped(&self) -> MarkError {
        VaultError::Interrupted.into()
    }

    fn listing<'n>(&self, (stream, _): &'n (Stream, Class)) -> &'n Stream {
        stream
    }

    fn hand(&self) -> Hand<'a> {
        Hand { source: Recorder::new(&self.chunks), found: Found::default() }
    }

    fn read(&self, hand: &mut Hand<'a>, (stream, class): &(Stream, Class)) -> Result<(), MarkError> {
        self.read_listing(stream, *class, &mut hand.source, &mut hand.found)
    }

    fn done(&self, mut hand: Hand<'a>) -> Result<Found, MarkError> {
        self.put(&mut hand.found.ids)?;
        Ok(hand.found)
    }

    fn enter(&mut self, found: Vec<Found>, _: &mut Vec<(Stream, Class)>) -> Result<(), MarkError> {
        for mut found in found {
            self.below.append(&mut found.below);
            self.count(&found);
        }
        Ok(())
    }

    fn level(&mut self) -> Vec<(Stream, Class)> {
        let below = std::mem::take(&mut self.below);
        self.join_level(below)
    }
}

impl Walk<'_> {
    /// Whether anything that snapshots need cannot be read, or is among these chunks that are in no pack.
    fn lacks(&self, lacking: &HashSet<ChunkId>) -> bool {
        self.unreadable + self.late > 0 || !lacking.is_empty()
    }

    fn run(&mut self, snapshots: &[SnapshotInfo]) -> Result<(), MarkError> {
        for (index, info) in snapshots.iter().enumerate() {
            let class = Classes::of_snapshot(index);
            self.below.push((info.body.tree.clone(), class));
            let mut hand = self.hand();
            for (stream, _) in info.body.lists() {
                self.read_ids(stream, class, &mut hand.source, &mut hand.found)?;
            }
            let found = self.done(hand)?;
            self.count(&found);
        }
        walk(self)?;
        self.merge(&mut lock(&self.uses))
    }

    /// Counts what cannot be read.
    const fn count(&mut self, found: &Found) {
        self.unreadable += found.unreadable;
        self.newer += found.newer;
        self.late += found.late;
    }

    /// Joins the users of each tree. Returns the trees whose class has changed.
    fn join_level(&mut self, level: Vec<(Stream, Class)>) -> Vec<(Stream, Class)> {
        let mut changed: HashMap<StreamKey, Stream> = HashMap::new();
        for (stream, class) in level {
            let key = stream_key(&stream);
            let known = self.trees.entry(key).or_insert(0);
            let joined = self.classes.join(*known, class);
            if joined != *known {
                *known = joined;
                changed.insert(key, stream);
            }
        }
        changed.into_iter().map(|(key, stream)| (stream, self.trees.get(&key).copied().unwrap_or(0))).collect()
    }

    /// Tells what the sync may still bring from what is damaged.
    fn judged<T>(&self, read: Result<T, ReadError>) -> Result<T, ReadError> {
        read.map_err(|error| self.chunks.judged_if(self.is_synced, error))
    }

    /// Takes ids that were found.
    fn put(&self, ids: &mut Vec<(ChunkId, Class)>) -> Result<(), MarkError> {
        let mut uses = lock(&self.uses);
        uses.waiting.append(ids);
        if uses.waiting.len() >= IDS_WAITING { self.merge(&mut uses) } else { Ok(()) }
    }

    /// Enters the users of the waiting chunks.
    fn merge(&self, uses: &mut Uses) -> Result<(), MarkError> {
        let Uses { waiting: ids, chunks } = uses;
        // Not in a pool: while waiting for the pool, this thread could take up a task that needs the lock held here.
        ids.sort_unstable();
        ids.dedup();
        self.reader.in_parts(|part| {
            let mut needed = ids[part.range(ids, |(id, _)| id)].iter().peekable();
            let mut lacking = Vec::new();
            part.for_each_id(|rank, id| {
                while let Some((needed, class)) = needed.next_if(|(needed, _)| *needed <= id) {
                    match chunks.get(rank) {
                        // Each rank belongs to one part, which is one thread's.
                        Some(known) if *needed == id => {
                            known.store(self.classes.join(known.load(Relaxed), *class), Relaxed);
                        }
                        _ => lacking.push(*needed),
                    }
                }
                needed.peek().is_some()
            })?;
            lacking.extend(needed.map(|(id, _)| *id));
            if !lacking.is_empty() {
                let mut all = lock(&self.lacking);
                all.extend(lacking.into_iter().take(LOSSES_KEPT));
            }
            Ok::<_, CatalogueError>(())
        })?;
        ids.clear();
        Ok(())
    }

    /// Records the chunks of a stream that is not a listing, and of its lists of ids.
    fn read_ids(
        &self,
        stream: &Stream,
        class: Class,
        source: &mut Recorder<'_>,
        found: &mut Found,
    ) -> Result<(), MarkError> {
        if stream.depth == 0 {
            found.ids.extend(stream.ids.iter().map(|id| (*id, class)));
            return Ok(());
        }
        source.asked.clear();
        let mut ids = IdReader::new(stream);
        while let Some(id) = found.unless_damaged(self.judged(ids.next(source)))? {
            found.ids.push((id, class));
            if found.ids.len() >= IDS_LOCAL {
                self.put(&mut found.ids)?;
            }
        }
        found.ids.extend(source.asked.drain(..).map(|id| (id, class)));
        Ok(())
    }

    fn read_listing(
        &self,
        stream: &Stream,
        class: Class,
        source: &mut Recorder<'_>,
        found: &mut Found,
    ) -> Result<(), MarkError> {
        let mut listing = Listing::new(stream);
        source.asked.clear();
        while let Some(entry) = found.unless_damaged(self.judged(listing.next(source)))? {
            found.ids.extend(source.asked.drain(..).map(|id| (id, class)));
            if let Some(Holes::Stream(holes)) = &entry.holes {
                self.read_ids(holes, class, source, found)?;
            }
            match entry.content {
                Some(content) if entry.kind != FileKind::Directory => self.read_ids(&content, class, source, found)?,
                Some(listing) => found.below.push((listing, class)),
                None => {}
            }
            if found.ids.len() >= IDS_LOCAL {
                self.put(&mut found.ids)?;
            }
        }
        found.ids.extend(source.asked.drain(..).map(|id| (id, class)));
        Ok(())
    }
}

/// A share of these bytes, rounded up: if all of a pack is needed, none of it counts as dead.
const fn share(bytes: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 { 0 } else { (bytes as u128 * part as u128).div_ceil(whole as u128) as u64 }
}

/// Number of fractions of a byte to count in.
const FINE: u64 = 1 << 10;

/// Adds up the needs of each snapshot, each source and all of them. All bytes of a pack are attributed to its chunks, in proportion.
/// Returns the packs of which anything is needed.
#[allow(clippy::too_many_arguments)] // all findings
fn sum(
    walk: &Walk<'_>,
    chunks: &[Class],
    infos: &BTreeMap<u32, PackInfo>,
    snapshots: &[SnapshotInfo],
    names: &[(String, String)],
    weighed: &[u64],
    stats: &mut Stats,
) -> Result<HashSet<u32>, CatalogueError> {
    let sealed: HashMap<u32, u64> = infos
        .iter()
        .map(|(number, info)| (*number, info.segments.iter().map(|segment| u64::from(segment.sealed)).sum()))
        .collect();
    stats.packs = infos.len() as u64;
    stats.bytes_packs = infos.values().map(|info| info.len).sum();
    let meta = infos.values().filter(|info| info.kind == crate::seal::ObjectKind::Meta);
    stats.bytes_meta = meta.map(|info| info.len).sum();
    let total = Mutex::new((vec![0_u64; walk.classes.mixed() as usize + 1], HashSet::new()));
    let sums = walk.reader.in_parts(|part| {
        let (mut count, mut bytes) = (0, 0);
        let mut held = vec![0_u64; walk.classes.mixed() as usize + 1];
        let mut used = HashSet::new();
        part.for_each_place(|rank, _, places| {
            let class = chunks.get(rank).copied().unwrap_or(0);
            let (Some(place), true) = (places.first(), class > 0) else { return true };
            count += 1;
            used.insert(place.pack);
            bytes += u64::from(place.len);
            if let Some(info) = infos.get(&place.pack)
                && let Some(segment) = info.segments.get(place.segment as usize)
            {
                let stored = share(u64::from(segment.sealed) * FINE, u64::from(place.len), u64::from(segment.raw));
                held[class as usize] += share(stored, info.len, sealed.get(&place.pack).copied().unwrap_or(0));
            }
            true
        })?;
        let mut total = lock(&total);
        total.0.iter_mut().zip(held).for_each(|(sum, held)| *sum += held);
        total.1.extend(used);
        Ok::<_, CatalogueError>((count, bytes))
    })?;
    let (held, used) = crate::sync::into_inner(total);
    stats.chunks = sums.iter().map(|(count, _)| count).sum();
    stats.bytes_unique = sums.iter().map(|(_, bytes)| bytes).sum();
    let held = |class: Class| held.get(class as usize).copied().unwrap_or(0);
    stats.bytes_raw = sum_of(snapshots.iter().map(|info| info.body.bytes));
    stats.bytes_shared = held(walk.classes.mixed()) / FINE;
    stats.bytes_needed = ((1..=walk.classes.mixed()).map(held).sum::<u64>() / FINE).min(stats.bytes_packs);
    stats.bytes_dead = stats.bytes_packs - stats.bytes_needed;
    list(walk, &held, snapshots, names, weighed, stats);
    Ok(used)
}

/// Lists the sources and the snapshots with what they hold. `held` has the bytes that each class holds, in parts of [`FINE`].
fn list(
    walk: &Walk<'_>,
    held: &dyn Fn(Class) -> u64,
    snapshots: &[SnapshotInfo],
    names: &[(String, String)],
    weighed: &[u64],
    stats: &mut Stats,
) {
    let mut sources: Vec<SourceStats> = (0..)
        .zip(names)
        .map(|(number, (source, host))| SourceStats {
            source: source.clone(),
            host: host.clone(),
            snapshots: 0,
            bytes_raw: 0,
            bytes_last: 0,
            bytes_alone: held(walk.classes.of_source(number)) / FINE,
        })
        .collect();
    for (index, info) in snapshots.iter().enumerate() {
        let alone = held(Classes::of_snapshot(index)) / FINE;
        let source = walk.classes.source_of.get(index).and_then(|source| sources.get_mut(*source as usize));
        if let Some(source) = source {
            source.snapshots += 1;
            source.bytes_raw = source.bytes_raw.saturating_add(info.body.bytes);
            source.bytes_last = info.body.bytes;
            source.bytes_alone += alone;
        }
        stats.snapshots.push(SnapshotStats {
            id: info.id,
            time: info.body.time,
            source: info.body.source.clone(),
            host: info.body.host.clone(),
            bytes_raw: info.body.bytes,
            bytes_added: info.body.bytes_stored,
            bytes_alone: weighed.get(index).copied().unwrap_or(alone),
        });
    }
    sources.sort_by_key(|source| (std::cmp::Reverse(source.bytes_alone), source.source.clone()));
    stats.sources = sources;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_join_to_those_of_a_source_and_then_of_several() {
        let classes = Classes { source_of: vec![0, 1, 0], sources: 2 };
        let [a, b, c] = [0, 1, 2].map(Classes::of_snapshot);
        assert_eq!(classes.join(0, a), a);
        assert_eq!(classes.join(a, a), a);
        assert_eq!(classes.join(a, c), classes.of_source(0));
        assert_eq!(classes.join(classes.of_source(0), a), classes.of_source(0));
        assert_eq!(classes.join(a, b), classes.mixed());
        assert_eq!(classes.join(classes.of_source(0), classes.of_source(1)), classes.mixed());
        assert_eq!(classes.join(classes.mixed(), a), classes.mixed());
        assert_eq!(
            [a, b, c, classes.of_source(1), classes.mixed()].map(|class| classes.source(class)),
            [Some(0), Some(1), Some(0), Some(1), None]
        );
    }
}
