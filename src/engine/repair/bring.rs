//! Brings back from another vault what is lost in this one. A mirror, and a vault that was made like this one, call the same chunks by
//! the same ids (SPEC §4.2): each chunk is verified by its id, and sealed into new packs, so nothing is put under a name that was
//! taken before. Of any other vault the copies of hurt snapshots (SPEC §8.12) are read: what is lost is cut anew, which gives the
//! ids that it had. Whatever is wrong with the other vault is its own trouble.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::engine::browse::BrowseError;
use crate::engine::copy::tree::{Memory, Trees};
use crate::engine::copy::{self, CopyError};
use crate::engine::depot::{self, Depot, DepotOptions, Ended, Failed, Published};
use crate::engine::diff::entry_at;
use crate::engine::hurt::HurtSnapshot;
use crate::engine::mark::{MarkError, Segments, Source};
use crate::engine::repair::{LEVEL, RepairError, RepairOptions};
use crate::engine::trust::VerifyOthers;
use crate::id::{ChunkId, ObjectName};
use crate::progress::{Phase, Progress};
use crate::seal::ObjectKind;
use crate::sync::lock;
use crate::tree::{ChunkSink, FileKind, Holes, Snapshot};
use crate::vault::session::Session;
use crate::vault::{ReadError, Vault, VaultError};

/// So many threads read at least, where the other vault takes as many requests: they wait more than they work.
const READERS: usize = 8;

/// What another vault has of what is lost.
#[derive(Debug, Default)]
pub struct Lent {
    /// The chunks.
    pub(super) ids: Vec<ChunkId>,
    /// Their bytes.
    pub bytes: u64,
    /// There may be more than was looked for.
    pub(super) is_cut: bool,
}

impl Lent {
    /// How many chunks there are.
    pub const fn count(&self) -> u64 {
        self.ids.len() as u64
    }
}

/// What came of bringing chunks.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// The packs that they lie in now.
    pub(super) packs: Vec<ObjectName>,
    /// Bytes of these packs.
    pub(super) bytes_stored: u64,
    /// Chunks that could not be read in the other vault.
    pub(super) failed: HashSet<ChunkId>,
}

/// What of hurt snapshots another vault may have, since it has copies of them.
#[derive(Debug, Default)]
pub struct Copies(Vec<(Snapshot, Vec<Vec<u8>>)>);

impl Copies {
    /// How many files and folders.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, paths)| paths.len() as u64).sum()
    }
}

/// Finds the copies of hurt snapshots.
pub(super) fn copies_of(vault: &Vault, donor: &Vault, hurt: &[HurtSnapshot]) -> Copies {
    let there = copy::there(donor);
    let snapshots = vault.snapshots();
    let copies = hurt.iter().filter_map(|hurt| {
        let info = snapshots.iter().find(|info| info.id == hurt.id)?;
        let copy = there.get(&copy::identity(vault.id(), info))?;
        Some((copy.body.clone(), hurt.files.iter().map(|file| file.path.clone()).collect()))
    });
    Copies(copies.collect())
}

/// Stores again what the copies have of what is lost here. What they do not have is passed over.
///
/// # Errors
/// As [`bring`].
pub(super) fn bring_copies(
    vault: &Vault,
    donor: &Vault,
    copies: &Copies,
    session: &Session,
    options: &RepairOptions<'_>,
    progress: &dyn Progress,
) -> Result<Brought, RepairError> {
    progress.counters().restart(copies.count(), 0);
    progress.phase(Phase::Collect);
    let ((), published) = in_depot(vault, donor, session, options, progress, |depot| {
        let reader = |vault: &Vault| Ok::<_, RepairError>(Arc::new(vault.catalogue().reader()?));
        let from = Segments::new(donor, reader(donor)?).map_err(RepairError::from)?;
        let there = Segments::new(vault, reader(vault)?).map_err(RepairError::from)?;
        let memory = Memory::new();
        let trees = Trees { from: &from, there: &there, depot, memory: &memory, is_alike: false, progress };
        for (body, path) in copies.0.iter().flat_map(|(body, paths)| paths.iter().map(move |path| (body, path))) {
            match again(&trees, body, path) {
                Ok(()) => progress.counters().add(1, 0),
                Err(Ended::Elsewhere) => return Err(Ended::Elsewhere),
                Err(Ended::Why(CopyError::Vault(error))) => return Err(RepairError::from(error).into()),
                Err(Ended::Why(error)) => return Err(RepairError::from(error).into()),
            }
        }
        Ok(())
    })?;
    Ok(Brought { packs: published.packs, bytes_stored: published.bytes_stored, failed: HashSet::new() })
}

/// Stores again what a copy has at a path.
fn again(trees: &Trees<'_, '_>, body: &Snapshot, path: &[u8]) -> Result<(), Ended<CopyError>> {
    if let Some((list, _)) = body.lists().into_iter().find(|(_, name)| name.as_bytes() == path) {
        return trees.meta_stream(list).map(drop);
    }
    let entry = match entry_at(&body.tree, path, &mut Source::new(trees.from)) {
        Ok(entry) => entry,
        Err(BrowseError::Read { source, .. }) if !source.is_contained() => return Err(CopyError::from(source).into()),
        Err(_) => return Ok(()),
    };
    if let Some(Holes::Stream(holes)) = &entry.holes {
        trees.meta_stream(holes)?;
    }
    match (entry.kind, entry.content) {
        (FileKind::Directory, Some(listing)) => trees.copy(&listing, None).map(drop),
        (_, Some(content)) => trees.content(&content),
        (_, None) => Ok(()),
    }
}

/// What goes wrong with the other vault as a whole.
fn failure(error: ReadError) -> RepairError {
    MarkError::from(error).into()
}

/// Says which of these chunks another vault has.
///
/// # Errors
/// If its store or its catalogue fails as a whole.
pub(super) fn available(donor: &Vault, wanted: impl Iterator<Item = ChunkId>) -> Result<Lent, RepairError> {
    let segments = Segments::new(donor, Arc::new(donor.catalogue().reader()?))?;
    let mut lent = Lent::default();
    for id in wanted {
        if let Some((place, _)) = segments.locate(&id).map_err(failure)? {
            lent.bytes += u64::from(place.len);
            lent.ids.push(id);
        }
    }
    lent.ids.sort_unstable();
    Ok(lent)
}

/// Stores these chunks of another vault in this one.
///
/// # Errors
/// If either store or catalogue fails as a whole, or the user stops it. What was put by then is found by the next one.
pub(super) fn bring(
    vault: &Vault,
    donor: &Vault,
    lent: &Lent,
    session: &Session,
    options: &RepairOptions<'_>,
    progress: &dyn Progress,
) -> Result<Brought, RepairError> {
    progress.counters().restart(lent.count(), lent.bytes);
    progress.phase(Phase::Collect);
    let (failed, published) = in_depot(vault, donor, session, options, progress, |depot| {
        read(donor, lent, depot, progress).map_err(Ended::Why)
    })?;
    let mut brought = Brought { packs: published.packs, bytes_stored: published.bytes_stored, failed };
    // What the depot took for stored elsewhere is not where it can be read.
    let reader = vault.catalogue().reader()?;
    let new: HashSet<ObjectName> = brought.packs.iter().copied().collect();
    let numbers = reader.packs()?.into_iter().filter(|(_, info)| new.contains(&info.name));
    let numbers: HashSet<u32> = numbers.map(|(number, _)| number).collect();
    for id in &lent.ids {
        if !reader.locate_all(id)?.iter().any(|place| numbers.contains(&place.pack)) {
            brought.failed.insert(*id);
        }
    }
    Ok(brought)
}

/// Works with a depot of this vault, on threads enough for what is read from the other one.
fn in_depot<T: Send>(
    vault: &Vault,
    donor: &Vault,
    session: &Session,
    options: &RepairOptions<'_>,
    progress: &dyn Progress,
    work: impl FnOnce(&Depot<'_>) -> Result<T, Ended<RepairError>> + Send,
) -> Result<(T, Published), RepairError> {
    let threads = options.threads.max(READERS.min(donor.store().limits().reads));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| RepairError::Threads(error.to_string()))?;
    let depot_options = DepotOptions {
        level: LEVEL,
        verify: true,
        dry_run: false,
        keep_trees: false,
        others: VerifyOthers::Sample,
        threads,
        clock: options.clock,
    };
    depot::fill(vault, depot_options, Some(session), progress, |depot| pool.install(|| work(depot)))
}

/// Reads the chunks in the order in which they lie there, each segment once. Returns those that cannot be read.
fn read(
    donor: &Vault,
    lent: &Lent,
    depot: &Depot<'_>,
    progress: &dyn Progress,
) -> Result<HashSet<ChunkId>, RepairError> {
    let segments = Segments::new(donor, Arc::new(donor.catalogue().reader()?))?;
    let mut placed = Vec::with_capacity(lent.ids.len());
    for id in &lent.ids {
        if let Some((place, kind)) = segments.locate(id).map_err(failure)? {
            placed.push(((place.pack, place.segment, place.offset), kind, *id));
        }
    }
    placed.sort_unstable_by_key(|(place, ..)| *place);
    let groups: Vec<_> = placed.chunk_by(|(a, ..), (b, ..)| (a.0, a.1) == (b.0, b.1)).collect();
    let failed = Mutex::new(HashSet::new());
    groups.into_par_iter().try_for_each(|group| {
        for (_, kind, id) in group {
            if progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            let (segment, index) = match segments.chunk(id) {
                Ok(found) => found,
                Err(error) if error.is_contained() => {
                    lock(&failed).insert(*id);
                    continue;
                }
                Err(error) => return Err(failure(error)),
            };
            let bytes = segment.bytes(index);
            let put = if *kind == ObjectKind::Meta {
                depot.meta_sink().put_chunk(bytes)
            } else {
                depot.put_data(&mut depot.worker(), |buffer| buffer.extend_from_slice(bytes))
            };
            if let Err(Failed) = put {
                // The depot knows why.
                return Ok(());
            }
            progress.counters().add(1, bytes.len() as u64);
        }
        Ok::<_, RepairError>(())
    })?;
    Ok(failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
