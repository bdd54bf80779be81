//! Brings back lost chunks from another vault. A mirror, and a vault that was created like this one, use the same ids for the same
//! chunks (SPEC §4.2): each chunk is verified by its id and sealed into new packs, so no name is ever reused. From any other vault,
//! the copies of affected snapshots (SPEC §8.12) are read: their content is cut again, which gives the same ids as before. Faults of the
//! other vault are not reported as faults of this one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::engine::check::hurt::HurtSnapshot;
use crate::engine::copy::tree::{Memory, Trees};
use crate::engine::copy::{self, CopyError};
use crate::engine::query::browse::BrowseError;
use crate::engine::query::browse::entry_at;
use crate::engine::repair::{LEVEL, RepairError, RepairOptions};
use crate::id::{ChunkId, ObjectName};
use crate::progress::{Phase, Progress};
use crate::read::{ChunkReader, TreeReader};
use crate::seal::ObjectKind;
use crate::store::Delivery;
use crate::sync::lock;
use crate::tree::{ChunkSink, FileKind, Holes, Snapshot};
use crate::vault::session::Session;
use crate::vault::{ObjectState, ReadError, Vault, VaultError};
use crate::write::depot::{self, Depot, DepotOptions, Ended, Failed, Published};
use crate::write::trust::VerifyOthers;

/// Minimum number of reading threads, if the other vault allows as many requests: they wait more than they work.
const READERS: usize = 8;

/// The lost chunks that another vault has.
#[derive(Debug, Default)]
pub struct Lent {
    /// The chunks.
    pub(super) ids: Vec<ChunkId>,
    /// Their bytes.
    pub bytes: u64,
    /// Number of chunks that it does not have but may still receive, because not everything has arrived there.
    pub late: u64,
    /// More may be lost than was searched for.
    pub(super) is_cut: bool,
}

impl Lent {
    /// Number of chunks.
    pub const fn count(&self) -> u64 {
        self.ids.len() as u64
    }
}

/// Result of bringing chunks.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// The packs that now contain them.
    pub(super) packs: Vec<ObjectName>,
    /// Bytes of these packs.
    pub(super) bytes_stored: u64,
    /// Chunks that could not be read from the other vault.
    pub(super) failed: HashSet<ChunkId>,
    /// Number of these, or of the files of copies, that have just not arrived there yet.
    pub(super) late: u64,
}

/// Whether missing data may still be on its way to the other vault.
fn may_be_late(donor: &Vault) -> bool {
    donor.delivery() == Delivery::Synced
}

/// Affected files of which another vault has copies.
#[derive(Debug, Default)]
pub struct Copies(Vec<(Snapshot, Vec<Vec<u8>>)>);

impl Copies {
    /// Number of files and folders.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, paths)| paths.len() as u64).sum()
    }
}

/// Finds the copies of affected snapshots.
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

/// Stores lost content again from the copies. Content that they do not have is skipped.
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
    let (late, published) = in_depot(vault, donor, session, options, progress, |depot| {
        let from = chunks(donor)?;
        let reader = Arc::new(vault.catalogue().reader().map_err(RepairError::from)?);
        let there = Arc::new(ChunkReader::new(vault, reader).map_err(RepairError::from)?);
        let trees = Trees {
            vault: donor,
            may_be_late: may_be_late(donor),
            from: &from,
            there: &there,
            depot,
            memory: &Memory::new(),
            is_alike: false,
            progress,
        };
        let mut late = 0;
        for (body, path) in copies.0.iter().flat_map(|(body, paths)| paths.iter().map(move |path| (body, path))) {
            let states = again(&trees, body, path).map_err(|ended| match ended {
                Ended::Elsewhere => Ended::Elsewhere,
                Ended::Why(CopyError::From(error)) => Ended::Why(error.of_lender(donor).into()),
                Ended::Why(error) => Ended::Why(RepairError::from(error)),
            })?;
            late += u64::from(states.contains(&ObjectState::NotArrived));
            progress.counters().add(1, 0);
        }
        Ok(late)
    })?;
    Ok(Brought { packs: published.packs, bytes_stored: published.bytes_stored, failed: HashSet::new(), late })
}

/// Stores the content of a path of a copy again. Returns the state of the objects that the copy lacks.
fn again(trees: &Trees<'_, '_>, body: &Snapshot, path: &[u8]) -> Result<Vec<ObjectState>, Ended<CopyError>> {
    if let Some((list, _)) = body.lists().into_iter().find(|(_, name)| name.as_bytes() == path) {
        return Ok(trees.meta_stream(list)?.err().into_iter().collect());
    }
    let entry = match entry_at(&body.tree, path, &mut TreeReader::sharing(trees.from)) {
        Ok(entry) => entry,
        Err(BrowseError::Read { source, .. }) => {
            return Ok(trees.contained::<()>(Err(source))?.err().into_iter().collect());
        }
        Err(_) => return Ok(Vec::new()),
    };
    let mut states = Vec::new();
    if let Some(Holes::Stream(holes)) = &entry.holes {
        states.extend(trees.meta_stream(holes)?.err());
    }
    match (entry.kind, entry.content) {
        (FileKind::Directory, Some(listing)) => {
            states.extend(trees.copy(&listing, None)?.lost.into_iter().map(|lost| lost.state));
        }
        (_, Some(content)) => states.extend(trees.content(&content)?),
        (_, None) => {}
    }
    Ok(states)
}

/// Opens the other vault for reading. Its own failures are reported as failures of the lender.
fn chunks(donor: &Vault) -> Result<Arc<ChunkReader<'_>>, RepairError> {
    Ok(Arc::new(ChunkReader::of_lender(donor)?))
}

/// Finds which of these chunks another vault has, in packs that its store lists with their right length.
///
/// # Errors
/// If its store or its catalogue fails as a whole.
pub(super) fn available(donor: &Vault, wanted: impl Iterator<Item = ChunkId>) -> Result<Lent, RepairError> {
    let chunks = chunks(donor)?;
    let failed = |error: ReadError| RepairError::from(error.of_lender(donor));
    let mut lent = Lent::default();
    let mut whole: HashMap<u32, bool> = HashMap::new();
    for id in wanted {
        let place = chunks.locate(&id).map_err(failed)?.map(|(place, _)| place);
        let place = match place {
            Some(place) => match whole.entry(place.pack) {
                Entry::Occupied(known) => Some(place).filter(|_| *known.get()),
                Entry::Vacant(new) => {
                    let is_whole = chunks.is_listed_whole(donor, place.pack).map_err(failed)?;
                    Some(place).filter(|_| *new.insert(is_whole))
                }
            },
            None => None,
        };
        if let Some(place) = place {
            lent.bytes += u64::from(place.len);
            lent.ids.push(id);
        } else {
            lent.late += u64::from(may_be_late(donor));
        }
    }
    lent.ids.sort_unstable();
    Ok(lent)
}

/// Stores these chunks of another vault in this one.
///
/// # Errors
/// If either store or catalogue fails as a whole, or the user stops it. The next run finds the packs put so far.
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
    let late = failed.values().filter(|state| **state == ObjectState::NotArrived).count() as u64;
    let failed = failed.into_keys().collect();
    let mut brought = Brought { packs: published.packs, bytes_stored: published.bytes_stored, failed, late };
    // If the depot took a chunk for stored elsewhere, it cannot be read from there.
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

/// Works with a depot of this vault, on enough threads for reading from the other vault.
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

/// Reads the chunks in the order in which they are stored there, each segment once. Returns the chunks that cannot be read, and the state
/// of the object at fault.
fn read(
    donor: &Vault,
    lent: &Lent,
    depot: &Depot<'_>,
    progress: &dyn Progress,
) -> Result<HashMap<ChunkId, ObjectState>, RepairError> {
    let chunks = chunks(donor)?;
    let failed_there = |error: ReadError| RepairError::from(error.of_lender(donor));
    let mut placed = Vec::with_capacity(lent.ids.len());
    for id in &lent.ids {
        if let Some((place, kind)) = chunks.locate(id).map_err(failed_there)? {
            placed.push(((place.pack, place.segment, place.offset), kind, *id));
        }
    }
    placed.sort_unstable_by_key(|(place, ..)| *place);
    let groups: Vec<_> = placed.chunk_by(|(a, ..), (b, ..)| (a.0, a.1) == (b.0, b.1)).collect();
    let failed = Mutex::new(HashMap::new());
    groups.into_par_iter().try_for_each(|group| {
        for (_, kind, id) in group {
            if progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            let piece = match chunks.chunk(id) {
                Ok(found) => found,
                Err(error) if error.is_contained() => {
                    lock(&failed).insert(*id, donor.state_of_unread(&error, may_be_late(donor)));
                    continue;
                }
                Err(error) => return Err(failed_there(error)),
            };
            let bytes = piece.bytes();
            let put = if *kind == ObjectKind::Meta {
                depot.meta_sink().put_chunk(bytes)
            } else {
                depot.put_data(&mut depot.worker(), |buffer| buffer.extend_from_slice(bytes))
            };
            if let Err(Failed) = put {
                // The depot knows the reason.
                return Ok(());
            }
            progress.counters().add(1, bytes.len() as u64);
        }
        Ok::<_, RepairError>(())
    })?;
    Ok(failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
