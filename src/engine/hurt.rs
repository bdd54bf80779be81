//! Which of the user's files damage has hurt (SPEC §9.3). Walked only where there is damage; subtrees without any are read
//! once, whatever the number of snapshots.

use std::collections::HashSet;
use std::sync::Arc;

use crate::catalogue::Reader;
use crate::engine::mark::{MarkError, Segments, Source, StreamKey, stream_key};
use crate::id::{ChunkId, ObjectName};
use crate::path::join;
use crate::tree::{Entry, FileKind, Holes, IdReader, Stream};
use crate::vault::read::Listing;
use crate::vault::{ReadError, SnapshotInfo, Vault};

/// How many paths are kept for each snapshot.
pub const PATHS_KEPT: usize = 100;

/// What damage did to one snapshot.
#[derive(Debug, Clone)]
pub struct HurtSnapshot {
    /// The snapshot.
    pub id: ObjectName,
    /// Paths inside it whose content is lost, the first [`PATHS_KEPT`]. A folder stands for everything below it.
    pub paths: Vec<Vec<u8>>,
    /// How many there are.
    pub count: u64,
}

struct Search<'a> {
    source: Source<'a, 'a>,
    bad: &'a HashSet<ChunkId>,
    /// Streams without any damage, with all below them if they are listings.
    clean: HashSet<StreamKey>,
}

/// A folder that is being searched.
struct Frame {
    path: Vec<u8>,
    key: StreamKey,
    below: std::vec::IntoIter<(Vec<u8>, Stream)>,
    hurt: bool,
}

/// Finds what the loss of these chunks (and of those that cannot be read at all) means for each snapshot. Snapshots that
/// are whole are left out.
///
/// # Errors
/// If the catalogue or the store fails as a whole.
pub(crate) fn find(
    vault: &Vault,
    reader: &Arc<Reader>,
    snapshots: &[SnapshotInfo],
    bad: &HashSet<ChunkId>,
) -> Result<Vec<HurtSnapshot>, MarkError> {
    let segments = Segments::new(vault, reader.clone())?;
    let mut search = Search { source: Source::new(&segments)?, bad, clean: HashSet::new() };
    let mut found = Vec::new();
    for snapshot in snapshots {
        let mut hurt = HurtSnapshot { id: snapshot.id, paths: Vec::new(), count: 0 };
        search.tree(&snapshot.body.tree, &mut hurt)?;
        for (stream, name) in [
            (&snapshot.body.links, &b"(list of hard links)"[..]),
            (&snapshot.body.skipped_list, b"(list of skipped files)"),
        ] {
            if search.is_hurt(stream)? {
                note(&mut hurt, name.to_vec());
            }
        }
        if hurt.count > 0 {
            found.push(hurt);
        }
    }
    Ok(found)
}

fn note(hurt: &mut HurtSnapshot, path: Vec<u8>) {
    hurt.count += 1;
    if hurt.paths.len() < PATHS_KEPT {
        hurt.paths.push(path);
    }
}

/// Damage is a finding; anything else ends the search.
fn damage<T>(result: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Search<'_> {
    fn tree(&mut self, tree: &Stream, hurt: &mut HurtSnapshot) -> Result<(), ReadError> {
        let mut stack: Vec<Frame> = self.enter(Vec::new(), tree, hurt)?.into_iter().collect();
        while let Some(frame) = stack.last_mut() {
            if let Some((path, listing)) = frame.below.next() {
                let before = hurt.count;
                let entered = self.enter(path, &listing, hurt)?;
                frame.hurt |= hurt.count > before;
                stack.extend(entered);
            } else if let Some(done) = stack.pop() {
                if done.hurt {
                    if let Some(above) = stack.last_mut() {
                        above.hurt = true;
                    }
                } else {
                    self.clean.insert(done.key);
                }
            }
        }
        Ok(())
    }

    /// Reads one listing. `None` if there is nothing to look for below it.
    fn enter(&mut self, path: Vec<u8>, listing: &Stream, hurt: &mut HurtSnapshot) -> Result<Option<Frame>, ReadError> {
        let key = stream_key(listing);
        if self.clean.contains(&key) {
            return Ok(None);
        }
        let (mut entries, mut below, mut is_hurt) = (Listing::new(listing), Vec::new(), false);
        loop {
            self.source.asked.clear();
            let entry = match damage(entries.next(&mut self.source))? {
                Some(Some(entry)) => entry,
                Some(None) => break,
                None => {
                    note(hurt, if path.is_empty() { b"/".to_vec() } else { path });
                    return Ok(None);
                }
            };
            let entry_path = join(&path, &entry.name);
            if entry.kind == FileKind::Directory {
                below.extend(entry.content.map(|content| (entry_path, content)));
            } else if self.is_entry_hurt(&entry)? {
                is_hurt = true;
                note(hurt, entry_path);
            }
        }
        Ok(Some(Frame { path, key, below: below.into_iter(), hurt: is_hurt })
            .filter(|frame| frame.path.len() < 1 << 20))
    }

    fn is_entry_hurt(&mut self, entry: &Entry) -> Result<bool, ReadError> {
        let holes = match &entry.holes {
            Some(Holes::Stream(holes)) => self.is_hurt(holes)?,
            _ => false,
        };
        Ok(holes || entry.content.as_ref().map_or(Ok(false), |content| self.is_hurt(content))?)
    }

    fn is_hurt(&mut self, stream: &Stream) -> Result<bool, ReadError> {
        if stream.depth == 0 {
            return Ok(stream.ids.iter().any(|id| self.bad.contains(id)));
        }
        let key = stream_key(stream);
        if self.clean.contains(&key) {
            return Ok(false);
        }
        let mut ids = IdReader::new(stream);
        loop {
            self.source.asked.clear();
            match damage(ids.next(&mut self.source))? {
                Some(Some(id)) if !self.bad.contains(&id) => {}
                Some(None) => break,
                _ => return Ok(true),
            }
        }
        self.clean.insert(key);
        Ok(false)
    }
}
