//! Walks distinct folders through the index of names: each is looked at once, however many snapshots share it, and is read from the store
//! only if it is not in the index yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use crate::catalogue::names::{NameRow, Named};
use crate::catalogue::{CatalogueError, Reader};
use crate::id::{NamesKey, ObjectName, StreamKey, TreeDigest};
use crate::progress::Progress;
use crate::read::graph::{Visitor, walk};
use crate::read::mark::stream_key;
use crate::read::{ChunkReader, Listing, TreeReader};
use crate::tree::digest::content_digest;
use crate::tree::{EntryError, FileKind, Stream};
use crate::vault::{ReadError, Vault};

/// Maximum length of listings in the index, in bytes, so that a row always fits in memory.
const ROW_LISTING_MAX: u64 = 32 << 20;
/// Maximum size of rows that wait for the catalogue, in bytes.
const ROWS_WAITING: usize = 16 << 20;

/// Why folders could not be walked. Damage to single folders is not such a reason.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Something could not be read, for a reason other than damage.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No threads could be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// There is more to list than fits in memory: a folder is at very many paths.
    #[error("more lies in {path} than can be listed at once")]
    TooMany {
        /// The folder to list.
        path: String,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl From<CatalogueError> for IndexError {
    fn from(error: CatalogueError) -> Self {
        Self::Read(error.into())
    }
}

/// The index of names of a vault.
pub struct Index<'a> {
    vault: &'a Vault,
    reader: Arc<Reader>,
    chunks: Arc<ChunkReader<'a>>,
    looks_again: bool,
    fresh: Mutex<(Vec<(StreamKey, NameRow)>, usize)>,
}

/// Reads for one thread; costs nothing until the store is needed.
pub struct Hand<'i, 'a> {
    index: &'i Index<'a>,
    source: Option<TreeReader<'a>>,
}

impl<'a> Index<'a> {
    /// The index in the catalogue at this moment.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn new(vault: &'a Vault) -> Result<Self, IndexError> {
        Self::made(vault, false)
    }

    /// The same, for work that only reads: what another machine has moved meanwhile is found at its new place.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn looking_again(vault: &'a Vault) -> Result<Self, IndexError> {
        Self::made(vault, true)
    }

    fn made(vault: &'a Vault, looks_again: bool) -> Result<Self, IndexError> {
        let reader = Arc::new(vault.catalogue().reader()?);
        let chunks = if looks_again { ChunkReader::looking_again } else { ChunkReader::new };
        let chunks = Arc::new(chunks(vault, reader.clone())?);
        Ok(Self { vault, reader, chunks, looks_again, fresh: Mutex::default() })
    }

    /// As [`Vault::judged`], for these snapshots, each with whether it may be late (see [`Vault::may_be_late`]).
    pub(crate) fn judged(
        &self,
        error: ReadError,
        snapshots: impl Iterator<Item = (ObjectName, bool)> + Clone,
    ) -> ReadError {
        let is_late = self.chunks.lookup().is_late(snapshots.clone().all(|(_, is_late)| is_late), &error);
        self.vault.verdict(error, is_late, snapshots.map(|(snapshot, _)| snapshot))
    }

    /// The vault.
    pub(crate) const fn vault(&self) -> &'a Vault {
        self.vault
    }

    /// A hand for the calling thread.
    pub const fn hand(&self) -> Hand<'_, 'a> {
        Hand { index: self, source: None }
    }

    /// Enters newly read folders into the catalogue, like [`Self::finish`], and continues with the result.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn renew(self, used: Option<&HashSet<StreamKey>>) -> Result<Self, IndexError> {
        if self.finish(used)? { Self::made(self.vault, self.looks_again) } else { Ok(self) }
    }

    fn fresh(&self) -> MutexGuard<'_, (Vec<(StreamKey, NameRow)>, usize)> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, key: StreamKey, row: NameRow) -> Result<(), CatalogueError> {
        let mut fresh = self.fresh();
        fresh.1 += row.len() + 64;
        fresh.0.push((key, row));
        if fresh.1 < ROWS_WAITING {
            return Ok(());
        }
        let rows = std::mem::take(&mut *fresh).0;
        drop(fresh);
        self.vault.catalogue().insert_names(&rows, None)
    }

    /// Enters newly read folders into the catalogue. `used` are all folders of the vault, if all of them were walked: others are deleted
    /// if there are many. Returns whether anything changed.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn finish(&self, used: Option<&HashSet<StreamKey>>) -> Result<bool, IndexError> {
        let (rows, _) = std::mem::take(&mut *self.fresh());
        let crowded = match used {
            Some(used) => self.reader.names_len()? + rows.len() as u64 > 2 * used.len() as u64,
            None => false,
        };
        let changes = !rows.is_empty() || crowded;
        if changes {
            self.vault.catalogue().insert_names(&rows, used)?;
        }
        Ok(changes)
    }
}

impl Hand<'_, '_> {
    /// The view of the catalogue that is used.
    pub fn reader(&self) -> &Reader {
        &self.index.reader
    }

    /// Calls `each` for every entry of a folder, in the order of the names.
    ///
    /// # Errors
    /// If the folder cannot be read; `each` has been called for the entries before the error.
    pub fn visit(&mut self, listing: &Stream, each: &mut dyn FnMut(&Named<'_>)) -> Result<(), ReadError> {
        if self.index.reader.names(&stream_key(listing), each)? {
            return Ok(());
        }
        self.read(listing, each).map(drop)
    }

    /// The key of the names in a folder, if they are in the index or are entered now, and the folders in it.
    ///
    /// # Errors
    /// If the folder cannot be read; `below` then has the folders before the error.
    pub fn way(&mut self, listing: &Stream, below: &mut Vec<Stream>) -> Result<Option<NamesKey>, ReadError> {
        if let Some(outline) = self.index.reader.outline(&stream_key(listing))? {
            below.extend(outline.folders.into_iter().map(|(_, listing)| listing));
            return Ok(Some(outline.names));
        }
        self.read(listing, &mut |entry| below.extend(entry.listing.clone()))
    }

    /// Reads a folder from the store, for `each` and for the index. Returns the key of its names, unless it is too large for the index.
    fn read(&mut self, listing: &Stream, each: &mut dyn FnMut(&Named<'_>)) -> Result<Option<NamesKey>, ReadError> {
        let source = match &mut self.source {
            Some(source) => source,
            none => none.insert(TreeReader::sharing(&self.index.chunks)),
        };
        let mut entries = Listing::new(listing);
        let mut row = NameRow::default();
        while let Some(entry) = entries.next(source)? {
            let is_folder = entry.kind == FileKind::Directory;
            let digest = if is_folder {
                TreeDigest::new([0; 16])
            } else {
                content_digest(&entry).map_err(|error| EntryError::Malformed(error.to_string()))?
            };
            let listing_of = entry.content.filter(|_| is_folder);
            let named = Named {
                name: &entry.name,
                kind: entry.kind,
                size: entry.size,
                mtime: entry.mtime,
                digest,
                listing: listing_of,
            };
            each(&named);
            if listing.len <= ROW_LISTING_MAX {
                row.push(&named);
            }
        }
        if listing.len > ROW_LISTING_MAX {
            return Ok(None);
        }
        let names = self.index.vault.catalogue().names_key(&row);
        self.index.keep(stream_key(listing), row)?;
        Ok(Some(names))
    }
}

/// A folder of the graph.
#[derive(Debug, Default)]
pub struct Node<T> {
    /// The data collected from it.
    pub data: T,
    /// The folders in it, in the order of their names.
    pub children: Vec<u32>,
    /// The error, if it could not be read completely.
    pub broken: Option<ReadError>,
}

/// All distinct folders below some given ones, each once.
#[derive(Debug)]
pub struct Graph<T> {
    /// The folders.
    pub nodes: Vec<Node<T>>,
    numbers: HashMap<StreamKey, u32>,
}

impl<T> Graph<T> {
    /// The number of the folder with this listing.
    pub fn number(&self, listing: &Stream) -> Option<usize> {
        self.numbers.get(&stream_key(listing)).map(|number| *number as usize)
    }

    /// The keys of all folders.
    pub fn keys(&self) -> HashSet<StreamKey> {
        self.numbers.keys().copied().collect()
    }

    /// The folders in an order in which each comes after those in it. A folder that contains itself, which no vault writes, may be
    /// anywhere.
    pub fn upwards(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut begun = vec![false; self.nodes.len()];
        let mut way: Vec<(usize, usize)> = Vec::new();
        for top in 0..self.nodes.len() {
            if std::mem::replace(&mut begun[top], true) {
                continue;
            }
            way.push((top, 0));
            while let Some((node, next)) = way.last_mut() {
                if let Some(child) = self.nodes[*node].children.get(*next) {
                    *next += 1;
                    let child = *child as usize;
                    if !std::mem::replace(&mut begun[child], true) {
                        way.push((child, 0));
                    }
                } else {
                    order.push(*node);
                    way.pop();
                }
            }
        }
        order
    }

    /// Spreads a property from folders to all folders above them.
    pub fn spread_up(&self, is_so: impl Fn(&Node<T>) -> bool) -> Vec<bool> {
        let mut so: Vec<bool> = self.nodes.iter().map(is_so).collect();
        for number in self.upwards() {
            so[number] = so[number] || self.nodes[number].children.iter().any(|child| so[*child as usize]);
        }
        so
    }
}

/// Looks at every distinct folder below these listings once, on `threads` threads. Calls `visit` for each entry.
///
/// # Errors
/// If the catalogue or the store fails as a whole, or the user stops it. Damage is recorded in the node of the folder.
pub fn explore<T: Default + Send + Sync>(
    index: &Index<'_>,
    tops: &[Stream],
    threads: usize,
    progress: &dyn Progress,
    visit: impl Fn(&mut T, &Named<'_>) + Sync,
) -> Result<Graph<T>, IndexError> {
    let look = |hand: &mut Hand<'_, '_>, listing: &Stream, data: &mut T, below: &mut Vec<Stream>| {
        let mut files = 0;
        let read = hand.visit(listing, &mut |entry| {
            visit(data, entry);
            match &entry.listing {
                Some(listing) => below.push(listing.clone()),
                None => files += 1,
            }
        });
        progress.counters().add(files, 0);
        read
    };
    pool(index.vault.store().reading_threads(threads))?.install(|| explore_here(index, tops, progress, &look))
}

/// Finds the way through every distinct folder below these listings, on `threads` threads: the folders in it, and the key of its list of
/// names (`None` if it is too long for the index).
///
/// # Errors
/// If the catalogue or the store fails as a whole, or the user stops it. Damage is recorded in the node of the folder.
pub fn explore_ways(
    index: &Index<'_>,
    tops: &[Stream],
    threads: usize,
    progress: &dyn Progress,
) -> Result<Graph<Option<NamesKey>>, IndexError> {
    let look = |hand: &mut Hand<'_, '_>, listing: &Stream, names: &mut Option<NamesKey>, below: &mut Vec<Stream>| {
        *names = hand.way(listing, below)?;
        Ok(())
    };
    pool(index.vault.store().reading_threads(threads))?.install(|| explore_here(index, tops, progress, &look))
}

/// Those of these lists of names that have a name accepted by `wanted`, on `threads` threads. A list that is not in the index counts as
/// one that has.
///
/// # Errors
/// If the catalogue fails.
pub fn lists_with(
    index: &Index<'_>,
    lists: &[NamesKey],
    threads: usize,
    wanted: impl Fn(&[u8]) -> bool + Sync,
) -> Result<HashSet<NamesKey>, IndexError> {
    let has = |key: &NamesKey| -> Result<Option<NamesKey>, IndexError> {
        let names = index.reader.name_list(key)?;
        Ok(names.is_none_or(|names| names.iter().any(&wanted)).then_some(*key))
    };
    pool(threads)?.install(|| lists.par_iter().filter_map(|key| has(key).transpose()).collect())
}

fn pool(threads: usize) -> Result<rayon::ThreadPool, IndexError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    pool.map_err(|error| IndexError::Threads(error.to_string()))
}

fn explore_here<'i, 'a, T, L>(
    index: &'i Index<'a>,
    tops: &[Stream],
    progress: &dyn Progress,
    look: &L,
) -> Result<Graph<T>, IndexError>
where
    T: Default + Send + Sync,
    L: Fn(&mut Hand<'i, 'a>, &Stream, &mut T, &mut Vec<Stream>) -> Result<(), ReadError> + Sync,
{
    let graph = Graph { nodes: Vec::new(), numbers: HashMap::new() };
    let mut explorer = Explorer { index, progress, look, graph, next: Vec::new() };
    for top in tops {
        explorer.number(top.clone());
    }
    walk(&mut explorer)?;
    Ok(explorer.graph)
}

/// Explores level by level, so that folders are numbered in the order in which they are met.
struct Explorer<'e, 'i, 'a, T, L> {
    index: &'i Index<'a>,
    progress: &'e dyn Progress,
    look: &'e L,
    graph: Graph<T>,
    /// The folders of the next level.
    next: Vec<(u32, Stream)>,
}

impl<T: Default, L> Explorer<'_, '_, '_, T, L> {
    /// The number of a folder. A new one is looked at with the next level.
    fn number(&mut self, stream: Stream) -> u32 {
        let next = self.graph.nodes.len() as u32;
        let number = *self.graph.numbers.entry(stream_key(&stream)).or_insert(next);
        if number == next {
            self.graph.nodes.push(Node::default());
            self.next.push((number, stream));
        }
        number
    }
}

/// The findings in a folder.
struct Seen<T> {
    number: u32,
    data: T,
    below: Vec<Stream>,
    broken: Option<ReadError>,
}

impl<'i, 'a, T, L> Visitor for Explorer<'_, 'i, 'a, T, L>
where
    T: Default + Send + Sync,
    L: Fn(&mut Hand<'i, 'a>, &Stream, &mut T, &mut Vec<Stream>) -> Result<(), ReadError> + Sync,
{
    type Node = (u32, Stream);
    type Hand = (Hand<'i, 'a>, Vec<Seen<T>>);
    type Found = Vec<Seen<T>>;
    type Error = IndexError;

    const BATCH: usize = usize::MAX;

    fn reader(&self) -> &Reader {
        &self.index.reader
    }

    fn progress(&self) -> &dyn Progress {
        self.progress
    }

    fn stopped(&self) -> IndexError {
        IndexError::Interrupted
    }

    fn listing<'n>(&self, (_, listing): &'n (u32, Stream)) -> &'n Stream {
        listing
    }

    fn is_at_hand(&self, listing: &Stream) -> Result<bool, CatalogueError> {
        self.index.reader.has_names(&stream_key(listing))
    }

    fn hand(&self) -> Self::Hand {
        (self.index.hand(), Vec::new())
    }

    fn read(&self, (hand, seen): &mut Self::Hand, (number, listing): &(u32, Stream)) -> Result<(), IndexError> {
        let (mut data, mut below) = (T::default(), Vec::new());
        let broken = match (self.look)(hand, listing, &mut data, &mut below) {
            Ok(()) => None,
            Err(error) if error.is_contained() => Some(error),
            Err(error) => return Err(error.into()),
        };
        seen.push(Seen { number: *number, data, below, broken });
        Ok(())
    }

    fn done(&self, (_, seen): Self::Hand) -> Result<Vec<Seen<T>>, IndexError> {
        Ok(seen)
    }

    fn enter(&mut self, found: Vec<Vec<Seen<T>>>, _: &mut Vec<(u32, Stream)>) -> Result<(), IndexError> {
        for Seen { number, data, below, broken } in found.into_iter().flatten() {
            let children = below.into_iter().map(|stream| self.number(stream)).collect();
            self.graph.nodes[number as usize] = Node { data, children, broken };
        }
        Ok(())
    }

    fn level(&mut self) -> Vec<(u32, Stream)> {
        std::mem::take(&mut self.next)
    }
}
