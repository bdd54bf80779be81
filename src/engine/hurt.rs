//! Which of the user's files damage has hurt (SPEC §9.3). Walked only where there is damage; subtrees without any are read
//! once, whatever the number of snapshots. Others are walked by their paths only until as many paths are found as are kept: then
//! those of a subtree that is met again are only counted, for a vault can name one folder from any number of places.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::catalogue::Reader;
use crate::engine::mark::{MarkError, Segments, Source, StreamKey, stream_key};
use crate::id::{ChunkId, ObjectName};
use crate::path::join;
use crate::tree::{Entry, FileKind, Holes, IdReader, Stream};
use crate::vault::read::Listing;
use crate::vault::{ReadError, SnapshotInfo, Vault};

/// How many paths of each snapshot a check keeps.
pub const PATHS_KEPT: usize = 100;
/// How many ids of lost chunks are kept for each file.
const IDS_KEPT: usize = 64;

/// A file whose content is lost, or a folder, which stands for everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HurtFile {
    /// Path inside the snapshot; empty for the top folder.
    pub path: Vec<u8>,
    /// The lost chunks: the first ones, if there are many.
    pub ids: Vec<ChunkId>,
}

/// What damage did to one snapshot.
#[derive(Debug, Clone)]
pub struct HurtSnapshot {
    /// The snapshot.
    pub id: ObjectName,
    /// What is lost of it: the first ones, if there are many.
    pub files: Vec<HurtFile>,
    /// How many there are.
    pub count: u64,
}

struct Search<'a> {
    source: Source<'a, 'a>,
    bad: &'a HashSet<ChunkId>,
    /// How many paths are hurt at or below each listing that was searched.
    counts: HashMap<StreamKey, u64>,
    /// Streams that are no listings, and have no damage.
    clean: HashSet<StreamKey>,
    /// How many paths of a snapshot are kept.
    keep: usize,
}

/// A folder that is being searched.
struct Frame {
    path: Vec<u8>,
    key: StreamKey,
    below: std::vec::IntoIter<(Vec<u8>, Stream)>,
    /// How many paths of the snapshot were known to be hurt before.
    before: u64,
}

/// Finds what the loss of these chunks (and of those that cannot be read at all) means for each snapshot, with so many paths
/// of each. Snapshots that are whole are left out. Listings that cannot be read are read from `donor`, if it has them.
///
/// # Errors
/// If the catalogue or the store fails as a whole.
pub(crate) fn find(
    vault: &Vault,
    donor: Option<&Vault>,
    reader: &Arc<Reader>,
    snapshots: &[SnapshotInfo],
    bad: &HashSet<ChunkId>,
    keep: usize,
) -> Result<Vec<HurtSnapshot>, MarkError> {
    let segments = Segments::new(vault, reader.clone())?.lent_by(donor)?;
    let mut search =
        Search { source: Source::new(&segments), bad, counts: HashMap::new(), clean: HashSet::new(), keep };
    let mut found = Vec::new();
    for snapshot in snapshots {
        let mut hurt = HurtSnapshot { id: snapshot.id, files: Vec::new(), count: 0 };
        search.tree(&snapshot.body.tree, &mut hurt)?;
        for (stream, name) in snapshot.body.lists() {
            if let Some(ids) = search.losses(stream)? {
                search.note(&mut hurt, name.as_bytes().to_vec(), ids);
            }
        }
        if hurt.count > 0 {
            found.push(hurt);
        }
    }
    Ok(found)
}

/// Damage is a finding; anything else ends the search. Nothing follows behind what a later version wrote, and nothing of it is
/// lost.
fn damage<T>(result: Result<Option<T>, ReadError>) -> Result<Next<T>, ReadError> {
    match result {
        Ok(Some(value)) => Ok(Next::Some(value)),
        Ok(None) => Ok(Next::End),
        Err(error) if error.is_damage() => Ok(Next::Lost),
        Err(error) if error.is_newer() => Ok(Next::End),
        Err(error) => Err(error),
    }
}

/// What comes next of something that is read.
enum Next<T> {
    Some(T),
    End,
    Lost,
}

impl Search<'_> {
    fn tree(&mut self, tree: &Stream, hurt: &mut HurtSnapshot) -> Result<(), ReadError> {
        let mut stack: Vec<Frame> = self.enter(Vec::new(), tree, hurt)?.into_iter().collect();
        while let Some(frame) = stack.last_mut() {
            if let Some((path, listing)) = frame.below.next() {
                stack.extend(self.enter(path, &listing, hurt)?);
            } else if let Some(done) = stack.pop() {
                self.counts.insert(done.key, hurt.count - done.before);
            }
        }
        Ok(())
    }

    /// Reads one listing. `None` if there is nothing to look for below it.
    fn enter(&mut self, path: Vec<u8>, listing: &Stream, hurt: &mut HurtSnapshot) -> Result<Option<Frame>, ReadError> {
        let (key, before) = (stream_key(listing), hurt.count);
        if let Some(count) = self.counts.get(&key).filter(|count| **count == 0 || hurt.files.len() >= self.keep) {
            hurt.count = before.saturating_add(*count);
            return Ok(None);
        }
        let (mut entries, mut below) = (Listing::new(listing), Vec::new());
        loop {
            self.source.asked.clear();
            let entry = match damage(entries.next(&mut self.source))? {
                Next::Some(entry) => entry,
                Next::End => break,
                Next::Lost => {
                    // Damage inside of a chunk that can be read has no id.
                    let ids = self.source.asked.last().copied().into_iter().collect();
                    self.note(hurt, path, ids);
                    self.counts.insert(key, hurt.count - before);
                    return Ok(None);
                }
            };
            let entry_path = join(&path, &entry.name);
            if entry.kind == FileKind::Directory {
                below.extend(entry.content.map(|content| (entry_path, content)));
            } else if let Some(ids) = self.entry_losses(&entry)? {
                self.note(hurt, entry_path, ids);
            }
        }
        Ok(Some(Frame { path, key, below: below.into_iter(), before }).filter(|frame| frame.path.len() < 1 << 20))
    }

    fn note(&self, hurt: &mut HurtSnapshot, path: Vec<u8>, ids: Vec<ChunkId>) {
        hurt.count = hurt.count.saturating_add(1);
        if hurt.files.len() < self.keep {
            hurt.files.push(HurtFile { path, ids });
        }
    }

    /// The lost chunks of a file; `None` if it is whole.
    fn entry_losses(&mut self, entry: &Entry) -> Result<Option<Vec<ChunkId>>, ReadError> {
        let holes = match &entry.holes {
            Some(Holes::Stream(holes)) => self.losses(holes)?,
            _ => None,
        };
        let content = match &entry.content {
            Some(content) => self.losses(content)?,
            None => None,
        };
        Ok(match (holes, content) {
            (Some(holes), Some(content)) => Some([holes, content].concat()),
            (holes, content) => holes.or(content),
        })
    }

    /// The lost chunks of a stream that is no listing; `None` if it is whole.
    fn losses(&mut self, stream: &Stream) -> Result<Option<Vec<ChunkId>>, ReadError> {
        if stream.depth == 0 {
            let ids: Vec<ChunkId> = stream.ids.iter().filter(|id| self.bad.contains(id)).copied().collect();
            return Ok(Some(ids).filter(|ids| !ids.is_empty()));
        }
        let key = stream_key(stream);
        if self.clean.contains(&key) {
            return Ok(None);
        }
        let mut ids = IdReader::new(stream);
        let (mut lost, mut is_whole) = (Vec::new(), true);
        while lost.len() < IDS_KEPT {
            self.source.asked.clear();
            match damage(ids.next(&mut self.source))? {
                Next::Some(id) if !self.bad.contains(&id) => {}
                Next::Some(id) => {
                    is_whole = false;
                    lost.push(id);
                }
                Next::End => break,
                Next::Lost => {
                    is_whole = false;
                    lost.extend(self.source.asked.last());
                    break;
                }
            }
        }
        if is_whole {
            self.clean.insert(key);
        }
        Ok((!is_whole).then_some(lost))
    }
}
