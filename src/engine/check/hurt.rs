//! Files affected by damage (SPEC §9.3). Trees are walked only if there is damage; subtrees without damage are read once, whatever the
//! number of snapshots. Others are walked by path only until enough paths have been found: then the paths of a subtree that is met again
//! are only counted, as a vault can contain one folder at any number of places.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::catalogue::{ChunkPlace, Reader};
use crate::id::{ChunkId, ObjectName, StreamKey};
use crate::path::join;
use crate::progress::Progress;
use crate::read::mark::{MarkError, mark, stream_key};
use crate::read::{ChunkReader, Listing, Recorder};
use crate::store::Delivery;
use crate::tree::{Entry, FileKind, Holes, IdReader, Stream};
use crate::vault::findings::{CHUNKS_NAMED, Lacking, warn_unless_noted};
use crate::vault::{ObjectState, ReadError, SnapshotInfo, Vault};

/// Maximum number of paths per snapshot that a check keeps.
pub const PATHS_KEPT: usize = 100;

/// A file whose content is lost, or a folder, which stands for everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HurtFile {
    /// Path inside the snapshot; empty for the top folder.
    pub path: Vec<u8>,
    /// The lost chunks, or the first of them if there are many.
    pub ids: Vec<ChunkId>,
}

/// The effect of damage on one snapshot.
#[derive(Debug, Clone)]
pub struct HurtSnapshot {
    /// The snapshot.
    pub id: ObjectName,
    /// The lost files and folders, or the first of them if there are many.
    pub files: Vec<HurtFile>,
    /// Number of lost files and folders.
    pub count: u64,
}

struct Search<'a> {
    source: Recorder<'a>,
    bad: &'a HashSet<ChunkId>,
    /// Number of affected paths at or below each searched listing.
    counts: HashMap<StreamKey, u64>,
    /// Streams, other than listings, without damage.
    clean: HashSet<StreamKey>,
    /// Maximum number of paths per snapshot to keep.
    keep: usize,
}

/// A folder that is being searched.
struct Frame {
    path: Vec<u8>,
    key: StreamKey,
    below: std::vec::IntoIter<(Vec<u8>, Stream)>,
    /// Number of affected paths of the snapshot before it was entered.
    before: u64,
}

/// Finds the effect of losing these chunks (and those that cannot be read at all) on each snapshot, with at most `keep` paths of each.
/// Undamaged snapshots are left out. Unreadable listings are read from `donor`, if it has them.
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
    let chunks = Arc::new(ChunkReader::new(vault, reader.clone())?.lent_by(donor)?);
    let mut search =
        Search { source: Recorder::new(&chunks), bad, counts: HashMap::new(), clean: HashSet::new(), keep };
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

/// Those of these snapshots that are known to be damaged, or not to have arrived whole. If only packs are known to be
/// damaged, and no check has found out what that costs, these are the snapshots that need anything which is in no other
/// pack.
///
/// # Errors
/// If the catalogue or the store fails as a whole.
pub(crate) fn known(vault: &Vault, snapshots: &[SnapshotInfo]) -> Result<BTreeSet<ObjectName>, MarkError> {
    let (known, damaged) = (vault.damaged_snapshots()?, vault.damaged_packs());
    // What has not arrived yet cannot be restored either.
    let late = vault.known_late()?.into_keys();
    if !known.is_empty() || damaged.is_empty() {
        return Ok(known.into_iter().chain(late).collect());
    }
    let reader = Arc::new(vault.catalogue().reader()?);
    let packs = reader.packs()?;
    let is_damaged = |place: &ChunkPlace| packs.get(&place.pack).is_some_and(|info| damaged.contains(&info.name));
    let mut lost = HashSet::new();
    let look = |_, id, places: &[ChunkPlace]| {
        if places.iter().all(is_damaged) {
            lost.insert(id);
        }
        true
    };
    reader.for_each_place(look)?;
    Ok(find(vault, None, &reader, snapshots, &lost, 1)?.into_iter().map(|hurt| hurt.id).chain(late).collect())
}

/// Those of these snapshots that lack something, by the catalogue and their folders alone, or of which that cannot be told.
///
/// # Errors
/// If the catalogue or the store fails as a whole, or the user stops it.
pub(crate) fn lacking(
    vault: &Vault,
    snapshots: &[&SnapshotInfo],
    progress: &dyn Progress,
) -> Result<BTreeSet<ObjectName>, MarkError> {
    let reader = Arc::new(vault.catalogue().reader()?);
    let is_whole = |snapshots: &[&SnapshotInfo]| {
        let marks = mark(vault, &reader, snapshots.iter().map(|info| &info.body), progress)?;
        Ok::<bool, MarkError>(marks.unknown().is_none() && marks.lost.is_empty())
    };
    let mut lacking = BTreeSet::new();
    // Snapshots have most of their folders in common: all at once cost little more than one.
    if is_whole(snapshots)? {
        return Ok(lacking);
    }
    for info in snapshots {
        if !is_whole(&[*info])? {
            lacking.insert(info.id);
        }
    }
    Ok(lacking)
}

/// Whether all of these snapshots that lack one of these chunks, or something that cannot be read at all, may just wait for the sync.
///
/// # Errors
/// If the catalogue or the store fails as a whole.
pub(crate) fn is_late(
    vault: &Vault,
    reader: &Arc<Reader>,
    snapshots: &[SnapshotInfo],
    lacking: &HashSet<ChunkId>,
) -> Result<bool, MarkError> {
    if vault.delivery() == Delivery::Direct || vault.has_newer_packs() {
        return Ok(false);
    }
    let hurt = find(vault, None, reader, snapshots, lacking, 1)?;
    Ok(vault.may_be_late(hurt.into_iter().map(|hurt| hurt.id)))
}

/// Turns damage into a result; any other error ends the search. Reading stops at data of a later version, which does not count as lost.
fn damage<T>(result: Result<Option<T>, ReadError>) -> Result<Next<T>, ReadError> {
    match result {
        Ok(Some(value)) => Ok(Next::Some(value)),
        Ok(None) => Ok(Next::End),
        Err(ReadError::Stream(_)) => Ok(Next::Invalid),
        Err(error @ ReadError::Entry(_)) if error.is_damage() => Ok(Next::Invalid),
        Err(error) if error.is_damage() => Ok(Next::Lost),
        Err(error) if error.is_newer() => Ok(Next::End),
        Err(error) => Err(error),
    }
}

/// The next item of something that is read.
enum Next<T> {
    Some(T),
    End,
    /// The chunk that was asked for last cannot be read.
    Lost,
    /// All chunks can be read, and what they contain is not valid.
    Invalid,
}

impl HurtSnapshot {
    /// The same, as the state folder remembers it.
    pub(crate) fn lacking(&self) -> Lacking {
        Lacking {
            snapshot: self.id,
            count: self.count,
            files: self.files.iter().map(|file| (file.path.clone().into(), file.ids.clone())).collect(),
        }
    }
}

/// Remembers which of these snapshots lack one of these chunks, or something that cannot be read at all, or wait for it, unless a later
/// version of the program may have it. Returns whether all of them may just wait for the sync.
///
/// # Errors
/// If the catalogue or the store fails as a whole.
pub(crate) fn remember(
    vault: &Vault,
    reader: &Arc<Reader>,
    snapshots: &[SnapshotInfo],
    lost: &HashSet<ChunkId>,
    progress: &dyn Progress,
) -> Result<bool, MarkError> {
    let hurt = find(vault, None, reader, snapshots, lost, PATHS_KEPT)?;
    let (state, unsure, lost) = vault.part_unsure(hurt, |hurt| hurt.id);
    let late = unsure.iter().filter(|_| state == ObjectState::NotArrived);
    let late: Vec<Lacking> = late.map(HurtSnapshot::lacking).collect();
    let is_late = !late.is_empty() && lost.is_empty();
    warn_unless_noted(vault.note_losses(lost.iter().map(HurtSnapshot::lacking).collect(), late), progress);
    Ok(is_late)
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

    /// Reads one listing. `None` if there is nothing to search below it.
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
                lost @ (Next::Lost | Next::Invalid) => {
                    let ids = self.source.asked.last().filter(|_| matches!(lost, Next::Lost));
                    let ids = ids.copied().into_iter().collect();
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

    /// The lost chunks of a file; `None` if it is undamaged.
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

    /// The lost chunks of a stream other than a listing; `None` if it is undamaged.
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
        while lost.len() < CHUNKS_NAMED {
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
                Next::Invalid => {
                    is_whole = false;
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
