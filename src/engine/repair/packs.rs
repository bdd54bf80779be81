//! Finds broken packs, the parts of them that can be read, and the lost chunks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::catalogue::packs::NewPack;
use crate::catalogue::{CatalogueError, Look, PackInfo, Reader};
use crate::engine::check::inspect::{Inspection, ListedPack, inspect};
use crate::engine::repair::small::left;
use crate::engine::repair::{RepairError, RepairOptions, RepairPlan};
use crate::id::{ChunkId, ObjectName};
use crate::pack::reader::object_key;
use crate::pack::{Footer, PackError, PackReader};
use crate::progress::{Phase, Progress};
use crate::read::mark::Marks;
use crate::seal::Decompressor;
use crate::store::{ObjectKey, StoreError};
use crate::vault::{ObjectState, Vault, VaultError};

/// Error number (EIO) of the operating system for a bad block of the disk.
const BAD_PLACE: i32 = 5;

/// A pack of which some part cannot be read.
#[derive(Debug)]
pub struct BrokenPack {
    /// The pack.
    pub pack: ListedPack,
    /// The fault.
    pub what: String,
    /// Its footer; unreadable segments have no chunks in it.
    pub footer: Footer,
    /// For each segment, whether it has chunks that are in no other pack: these segments are copied.
    pub copied: Vec<bool>,
    /// Size of these segments, in bytes.
    pub bytes_saved: u64,
}

impl BrokenPack {
    /// Its key in the store.
    pub fn key(&self) -> ObjectKey {
        object_key(self.pack.kind, self.pack.name)
    }

    /// Number of segments that cannot be read, as far as known.
    pub fn segments_lost(&self) -> u64 {
        self.footer.segments.iter().filter(|entry| entry.chunks.is_empty()).count() as u64
    }

    /// For each segment, the positions of the chunks to copy: all of a segment that is copied.
    pub fn saved_chunks(&self) -> Vec<Vec<u32>> {
        let segments = self.footer.segments.iter().zip(&self.copied);
        segments
            .map(|(entry, copied)| if *copied { (0..entry.chunks.len() as u32).collect() } else { vec![] })
            .collect()
    }
}

/// Result of the diagnosis of all packs.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Names of broken packs.
    broken: HashSet<ObjectName>,
    /// Chunks that are copied from them.
    saved: HashSet<ChunkId>,
}

/// The packs that were checked, by verdict.
#[derive(Default)]
struct Judged {
    broken: Vec<(ListedPack, Inspection)>,
    sound: Vec<ObjectName>,
    left: Vec<crate::engine::check::Problem>,
}

impl Judged {
    /// Adds a pack by the verdict on it. `others`: the packs that only other machines mend, with the names of these.
    fn add(
        &mut self,
        vault: &Vault,
        others: &HashMap<ObjectName, String>,
        pack: &ListedPack,
        inspection: Inspection,
    ) -> Result<(), VaultError> {
        let key = object_key(pack.kind, pack.name);
        let errors = inspection.footer.as_ref().err().into_iter().chain(inspection.bad.iter().map(|(_, error)| error));
        match errors.clone().find(|error| !is_broken(error)) {
            // It was deleted since it was listed.
            Some(PackError::Store(StoreError::Missing { .. })) => {}
            Some(error) => {
                let state = if error.is_newer() { ObjectState::Newer } else { ObjectState::Damaged };
                self.left.push(left(key, error.reason(), state));
            }
            None if inspection.is_sound() => self.sound.push(pack.name),
            None => match vault.state_of(&key)? {
                ObjectState::Damaged => match others.get(&pack.name) {
                    Some(host) => {
                        let what = format!(
                            "{}; the machine {host} put it: repair it there, or with --of-others",
                            reason(&inspection)
                        );
                        self.left.push(left(key, what, ObjectState::Damaged));
                    }
                    None => self.broken.push((*pack, inspection)),
                },
                ObjectState::OfAnotherVault => {}
                state => self.left.push(left(key, state.told(reason(&inspection)), state)),
            },
        }
        Ok(())
    }
}

impl Packs {
    /// Checks all packs, corrects the catalogue, and plans the replacement of broken packs.
    pub(super) fn diagnose(
        vault: &Vault,
        options: &RepairOptions<'_>,
        plan: &mut RepairPlan,
        progress: &dyn Progress,
    ) -> Result<Self, RepairError> {
        let read_data = options.read_data;
        let judged = judge(vault, options, plan, progress)?;
        plan.left.extend(judged.left);
        if read_data {
            plan.verified = judged.sound;
        }
        if plan.catalogue > 0 {
            vault.rebuild_catalogue(progress)?;
        }
        let mut broken = Vec::new();
        let reader = PackReader::new(vault.store(), vault.keys());
        for (pack, inspection) in judged.broken {
            if progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            broken.extend(readable(&reader, pack, inspection, plan)?);
        }
        broken.sort_by_key(|pack| pack.pack);
        enter(vault, &broken)?;
        let mut packs = Self { broken: broken.iter().map(|pack| pack.pack.name).collect(), saved: HashSet::new() };
        packs.choose(vault, &mut broken, plan)?;
        plan.packs = broken;
        Ok(packs)
    }

    /// Chooses the segments to copy: those with a chunk that is in no pack known to be sound and not condemned.
    fn choose(
        &mut self,
        vault: &Vault,
        broken: &mut [BrokenPack],
        plan: &mut RepairPlan,
    ) -> Result<(), CatalogueError> {
        let reader = vault.catalogue().reader()?;
        let infos = reader.packs()?;
        let (condemned, damaged, looks) = (vault.condemned(), vault.damaged_packs(), reader.looks()?);
        let verified: HashSet<&ObjectName> = plan.verified.iter().collect();
        let is_sound = |name: &ObjectName| {
            let is_known = verified.contains(name) || looks.get(name).is_some_and(|look| *look > Look::Owed);
            is_known && !self.broken.contains(name) && !condemned.contains(name) && !damaged.contains(name)
        };
        let stays = |number: &u32| infos.get(number).map(|info| info.name).filter(is_sound);
        let mut relied_on = HashSet::new();
        for pack in broken {
            pack.copied = vec![false; pack.footer.segments.len()];
            for (entry, copied) in pack.footer.segments.iter().zip(&mut pack.copied) {
                let mut here = Vec::new();
                for (id, _) in &entry.chunks {
                    let places = reader.locate_all(id)?;
                    match places.iter().find_map(|place| stays(&place.pack)) {
                        Some(name) => drop(relied_on.insert(name)),
                        None if self.saved.contains(id) => {}
                        None => here.push(*id),
                    }
                }
                if !here.is_empty() {
                    *copied = true;
                    pack.bytes_saved += u64::from(entry.sealed_len);
                    self.saved.extend(here);
                }
            }
        }
        plan.relied_on.extend(relied_on);
        Ok(())
    }

    /// Chunks that are only in broken packs and cannot be read there: those that the snapshots need, as far as known.
    pub(super) fn lost_chunks(&self, reader: &Reader, marks: &Marks) -> Result<HashSet<ChunkId>, CatalogueError> {
        let mut lost = HashSet::new();
        if self.broken.is_empty() {
            return Ok(lost);
        }
        let infos = reader.packs()?;
        let broken: HashSet<u32> =
            infos.iter().filter(|(_, info)| self.broken.contains(&info.name)).map(|(number, _)| *number).collect();
        let is_known = marks.unknown().is_none();
        reader.for_each_place(|rank, id, places| {
            let may_be_needed = !is_known || marks.bits.get(rank);
            if may_be_needed && places.iter().all(|place| broken.contains(&place.pack)) && !self.saved.contains(&id) {
                lost.insert(id);
            }
            true
        })?;
        Ok(lost)
    }
}

/// Checks every pack that the store lists; compares the catalogue with the sound ones.
fn judge(
    vault: &Vault,
    options: &RepairOptions<'_>,
    plan: &mut RepairPlan,
    progress: &dyn Progress,
) -> Result<Judged, RepairError> {
    let read_data = options.read_data;
    let others = if options.of_others { HashMap::new() } else { vault.packs_of_others() };
    let mut listed: Vec<ListedPack> = vault
        .log()
        .packs
        .iter()
        .map(|(name, (kind, len))| ListedPack { kind: *kind, name: *name, len: *len })
        .collect();
    // Start with the largest, so that all threads end at about the same time.
    listed.sort_by_key(|pack| (std::cmp::Reverse(pack.len), pack.name));
    let reader = vault.catalogue().reader()?;
    let mut rows: HashMap<u32, u64> = HashMap::new();
    reader.for_each_chunk(|_, place| *rows.entry(place.pack).or_default() += 1)?;
    let infos: BTreeMap<ObjectName, (u32, PackInfo)> =
        reader.packs()?.into_iter().map(|(number, info)| (info.name, (number, info))).collect();
    let judged: Mutex<Judged> = Mutex::default();
    let wrong = AtomicU64::new(0);
    let done = |pack: &ListedPack, inspection: Inspection| -> Result<(), VaultError> {
        if let (true, Ok(footer)) = (inspection.is_sound(), &inspection.footer) {
            let known = infos.get(&pack.name);
            let fits = match known {
                Some((number, info)) => fits(&reader, *number, info, footer, rows.get(number).copied().unwrap_or(0))?,
                None => false,
            };
            if !fits {
                wrong.fetch_add(1, Relaxed);
            }
        }
        judged.lock().unwrap_or_else(PoisonError::into_inner).add(vault, &others, pack, inspection)
    };
    progress
        .counters()
        .restart(listed.len() as u64, if read_data { listed.iter().map(|pack| pack.len).sum() } else { 0 });
    progress.phase(Phase::Check);
    if read_data {
        inspect(vault, &listed, &|| true, &done, progress)?;
    } else {
        inspect_frames(vault, &listed, &done, progress)?;
    }
    plan.catalogue = wrong.into_inner();
    Ok(crate::sync::into_inner(judged))
}

/// Inspects the frames of packs only: their headers and footers.
fn inspect_frames(
    vault: &Vault,
    packs: &[ListedPack],
    done: &(dyn Fn(&ListedPack, Inspection) -> Result<(), VaultError> + Sync),
    progress: &dyn Progress,
) -> Result<(), VaultError> {
    let reader = PackReader::new(vault.store(), vault.keys());
    packs.par_iter().try_for_each(|pack| {
        if progress.stopped() {
            return Err(VaultError::Interrupted);
        }
        let footer = reader.frame(pack.kind, pack.name, pack.len).map(|(_, footer)| footer);
        if let Err(error) = footer.as_ref()
            && !error.is_of_pack()
        {
            footer?;
            return Ok(());
        }
        progress.counters().add(1, 0);
        done(pack, Inspection { footer, bad: Vec::new(), is_checksum_wrong: false })
    })
}

/// The fault of a pack that was checked.
fn reason(inspection: &Inspection) -> String {
    match &inspection.footer {
        Err(error) => error.reason(),
        Ok(footer) if inspection.bad.is_empty() => {
            let segments = footer.segments.len();
            format!("its checksum is wrong ({segments} {})", if segments == 1 { "segment" } else { "segments" })
        }
        Ok(footer) if footer.segments.len() == 1 => "its only segment cannot be read".to_owned(),
        Ok(footer) => format!("{} of its {} segments cannot be read", inspection.bad.len(), footer.segments.len()),
    }
}

/// Whether an error means that a part of a pack is lost for good: not if a later version wrote it, and not if the store could not be
/// asked.
fn is_broken(error: &PackError) -> bool {
    match error {
        PackError::Damaged { .. } | PackError::Store(StoreError::Short { .. }) => true,
        PackError::Store(StoreError::Io { source, .. }) => source.raw_os_error() == Some(BAD_PLACE),
        _ => false,
    }
}

/// Whether the catalogue agrees with the footer of a pack.
fn fits(reader: &Reader, number: u32, info: &PackInfo, footer: &Footer, rows: u64) -> Result<bool, CatalogueError> {
    let chunks: u64 = footer.segments.iter().map(|entry| entry.chunks.len() as u64).sum();
    if !info.is_of(footer) || rows > chunks {
        return Ok(false);
    }
    for (id, _) in footer.segments.iter().flat_map(|entry| &entry.chunks) {
        let mut here = reader.locate_all(id)?.into_iter().filter(|place| place.pack == number);
        let is_there = |segment: u32, offset: u32| {
            let mut start = 0;
            footer.segments.get(segment as usize).is_some_and(|entry| {
                entry.chunks.iter().any(|(other, len)| {
                    let found = other == id && start == offset;
                    start += len;
                    found
                })
            })
        };
        if !here.any(|place| is_there(place.segment, place.offset)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The readable parts of a broken pack. `None` if it is left as it is, which is recorded in the plan.
fn readable(
    reader: &PackReader<'_>,
    pack: ListedPack,
    inspection: Inspection,
    plan: &mut RepairPlan,
) -> Result<Option<BrokenPack>, RepairError> {
    let key = object_key(pack.kind, pack.name);
    let what = reason(&inspection);
    let footer = match inspection.footer {
        Ok(mut footer) => {
            for (number, _) in &inspection.bad {
                if let Some(entry) = footer.segments.get_mut(*number as usize) {
                    entry.chunks.clear();
                }
            }
            footer
        }
        Err(_) => match reader.scan(pack.kind, pack.name, pack.len, &mut Decompressor::new()?) {
            Ok(footer) => footer,
            // The footer says that the pack is of this version, so the header that contradicts it is damaged, and with it the keys of all
            // segments.
            Err(PackError::Newer { .. }) if reader.footer(pack.kind, pack.name, pack.len).is_ok() => Footer::default(),
            Err(error @ PackError::Newer { .. }) => {
                plan.left.push(left(key, error.reason(), ObjectState::Newer));
                return Ok(None);
            }
            Err(error) if is_broken(&error) => Footer::default(),
            Err(PackError::Store(StoreError::Missing { .. })) => return Ok(None),
            Err(error) => return Err(error.into()),
        },
    };
    Ok(Some(BrokenPack { pack, what, footer, copied: Vec::new(), bytes_saved: 0 }))
}

/// Enters the readable chunks of packs that the catalogue does not know, so that they can be read.
fn enter(vault: &Vault, broken: &[BrokenPack]) -> Result<(), CatalogueError> {
    let known: HashSet<ObjectName> = vault.catalogue().reader()?.packs()?.into_values().map(|info| info.name).collect();
    let new: Vec<NewPack> = broken
        .iter()
        .filter(|pack| !known.contains(&pack.pack.name) && pack.footer.segments.iter().any(|s| !s.chunks.is_empty()))
        .map(|pack| NewPack {
            kind: pack.pack.kind,
            name: pack.pack.name,
            len: pack.pack.len,
            footer: pack.footer.clone(),
        })
        .collect();
    if !new.is_empty() {
        vault.catalogue().enter_packs(&new)?;
    }
    Ok(())
}
