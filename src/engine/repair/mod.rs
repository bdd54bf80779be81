//! Repairs a vault (SPEC §8.7): damaged objects are made again from what is left, the rest is moved aside, never deleted, and losses are
//! recorded, so that the next snapshot stores again whatever it still finds.
//!
//! `small` the VAULT file, key slots, records · `packs` which packs are broken, and which parts of them can be read · `bring` lost
//! chunks, from another vault that has them.
//!
//! Every step only adds objects, or moves aside objects that can no longer be used and have been copied as far as they can be read. So an
//! interrupted repair does no harm, and the next one continues from there. Others may work with the vault meanwhile: a broken pack is
//! condemned before it is moved, as in a prune; since everything readable in it is in other packs by then, no acknowledgements have to be
//! awaited.

pub mod bring;
pub mod packs;
pub mod small;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use crate::catalogue::CatalogueError;
use crate::engine::check::Problem;
use crate::engine::check::hurt::{self, HurtSnapshot};
use crate::engine::copy::CopyError;
use crate::engine::repair::bring::{Copies, Lent, available, bring, bring_copies, copies_of};
use crate::engine::repair::packs::{BrokenPack, Packs};
use crate::engine::repair::small::{Aside, LostRecord, SlotCopy};
use crate::id::{ChunkId, ObjectName};
use crate::limits::LEVEL;
use crate::log::past::Past;
use crate::log::record::{DamagedSnapshot, FoundDamage, LostFile, ObjectRef, PackRef};
use crate::log::{Damage, FoundRecord, Held, RecordBody, RecordError};
use crate::pack::PackError;
use crate::pack::reader::object_key;
use crate::progress::{Phase, Progress};
use crate::read::mark::{LOSSES_KEPT, MarkError, mark_lent};
use crate::seal::{ObjectKind, SealError};
use crate::store::proof::put_proven;
use crate::store::{Kind, ObjectKey, StoreError, Subject};
use crate::sync::try_share;
use crate::tree::Time;
use crate::vault::findings::warn_unless_noted;
use crate::vault::session::Session;
use crate::vault::{ObjectState, ReadError, Vault, VaultError};
use crate::write::repack::{MoveOptions, Needed, move_needed};

/// Maximum number of lost files to record per snapshot.
const PATHS_KEPT: usize = 10_000;
/// Size of a record's body, in bytes, from which nothing more is added.
pub(crate) const BODY_LEN: usize = 8 << 20;
/// Number of broken packs to replace together.
const BATCH: usize = 1 << 10;

/// Options of a repair.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RepairOptions<'a> {
    /// Read every byte of every pack. Otherwise only damage in their frames is found.
    pub read_data: bool,
    /// Also move aside broken packs of other clients, which would repair them themselves.
    pub of_others: bool,
    /// The clock.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// Number of threads.
    pub threads: usize,
    /// Another vault from which lost data is brought back. A vault with the same ids (a mirror, or one created like this one)
    /// provides chunks; any other provides its copies of snapshots. A mirror also provides records.
    pub from: Option<&'a Vault>,
}

impl<'a> RepairOptions<'a> {
    /// A repair of the damage that shows without reading the packs' contents, by one thread.
    pub const fn new(clock: &'a (dyn Fn() -> Time + Sync)) -> Self {
        Self { read_data: false, of_others: false, clock, threads: 1, from: None }
    }
}

impl<'a> RepairOptions<'a> {
    /// The vault from which chunks may be brought back.
    fn lender(&self, vault: &Vault) -> Option<&'a Vault> {
        self.from.filter(|donor| donor.keys().names_alike(vault.keys()))
    }

    /// The mirror of this vault from which objects may be brought back.
    fn mirror(&self, vault: &Vault) -> Option<&'a Vault> {
        self.from.filter(|donor| donor.id() == vault.id() && donor.is_mirror())
    }
}

/// Why a vault could not be repaired. Steps done before that stay done.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The trees could not be read, for a reason other than damage.
    #[error(transparent)]
    Mark(MarkError),
    /// The vault that data is brought back from could not be read, for a reason other than damage.
    #[error("{place}, from which it is brought back")]
    Lender {
        /// Its place.
        place: String,
        /// The trouble there.
        source: ReadError,
    },
    /// An entry cannot be stored here as it was read.
    #[error("{path} cannot be brought back: {what}")]
    Entry {
        /// Its path in the snapshot.
        path: String,
        /// The reason.
        what: String,
    },
    /// Packs were deleted or condemned since the plan was made.
    #[error("the vault was changed by another client in the meantime")]
    Changed,
    /// No threads could be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

/// Errors of storing copies again: there, the vault that is copied is the lender, and the other one is this vault.
impl From<CopyError> for RepairError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::From(error) | CopyError::There(error) => error.into(),
            CopyError::To(error) => error.into(),
            CopyError::Interrupted => VaultError::Interrupted.into(),
            CopyError::Entry { path, what } => Self::Entry { path, what },
            CopyError::Threads(why) => Self::Threads(why),
            CopyError::Same { .. } | CopyError::Unsettled => Self::Changed,
        }
    }
}

/// An error of the vault that data is read from names that vault.
impl From<ReadError> for RepairError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Lender { place, source } => Self::Lender { place, source: *source },
            error => Self::Mark(error.into()),
        }
    }
}

impl From<MarkError> for RepairError {
    fn from(error: MarkError) -> Self {
        match error {
            MarkError::Read(error) => error.into(),
            error => Self::Mark(error),
        }
    }
}

macro_rules! through_vault {
    ($($error:ty),*) => {
        $(impl From<$error> for RepairError {
            fn from(error: $error) -> Self {
                Self::Vault(error.into())
            }
        })*
    };
}
through_vault!(CatalogueError, StoreError, PackError, SealError, RecordError);

/// The damage, and what will be done about it.
#[derive(Debug, Default)]
pub struct RepairPlan {
    /// The fault of the VAULT file, which will be written again.
    pub vault_file: Option<String>,
    /// Key slots that will get a second copy.
    pub slot_copies: Vec<SlotCopy>,
    /// Records that this machine remembers and that will be put into the log again.
    pub found: Vec<(LostRecord, FoundRecord)>,
    /// Past records that were held by merges and will be put into the log again: for each merge, one list per client.
    pub past: Vec<Vec<Past>>,
    /// Records that this machine does not remember.
    pub lost_records: Vec<LostRecord>,
    /// Damaged key slots and records, and useless index objects, that will be moved aside.
    pub aside: Vec<Aside>,
    /// Number of packs for which the catalogue was wrong; it has been corrected.
    pub catalogue: u64,
    /// Packs that will be moved aside after everything readable in them has been copied.
    pub packs: Vec<BrokenPack>,
    /// Chunks that will be brought back from another vault.
    pub lent: Lent,
    /// Files that may come back from copies in another vault; they also count as lost in `hurt`.
    pub copies: Copies,
    /// Snapshots that have lost files.
    pub hurt: Vec<HurtSnapshot>,
    /// The losses that will be recorded; `None` if they are recorded already.
    pub marks: Option<Damage>,
    /// Problems that a repair cannot solve.
    pub left: Vec<Problem>,
    /// Packs that the plan relies on: they must stay.
    relied_on: HashSet<ObjectName>,
    /// Packs whose every byte was read and found right.
    verified: Vec<ObjectName>,
}

impl RepairPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.vault_file.is_none()
            && self.slot_copies.is_empty()
            && self.found.is_empty()
            && self.past.is_empty()
            && self.aside.is_empty()
            && self.packs.is_empty()
            && self.lent.ids.is_empty()
            && self.copies.count() == 0
            && self.marks.is_none()
    }

    /// Whether the plan only restores redundancy, or only makes things faster.
    pub fn restores_redundancy_only(&self) -> bool {
        let is_index = |aside: &Aside| matches!(aside.key, ObjectKey::Named(Kind::Index, _));
        self.vault_file.is_none()
            && self.found.is_empty()
            && self.past.is_empty()
            && self.aside.iter().all(is_index)
            && self.packs.is_empty()
            && self.lent.ids.is_empty()
            && self.copies.count() == 0
            && self.marks.is_none()
    }

    /// Whether something is left that is not damage: objects of a later version, or not arrived yet, here or in the lender.
    pub fn has_remarks(&self) -> bool {
        self.lent.late > 0 || self.left.iter().any(|problem| problem.state.is_remark())
    }

    /// Whether something is lost or stays damaged.
    pub fn has_losses(&self) -> bool {
        !self.hurt.is_empty() || self.left.iter().any(|problem| problem.state.is_loss())
    }
}

/// Result of a repair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Whether the VAULT file was written again.
    pub vault_file: bool,
    /// Number of copies of key slots put.
    pub slot_copies: u64,
    /// Number of records put into the log again.
    pub records_found: u64,
    /// Number of objects moved aside.
    pub moved_aside: u64,
    /// Bytes of the packs written in their place.
    pub bytes_stored: u64,
    /// Number of chunks brought back from another vault.
    pub chunks_brought: u64,
    /// Number of chunks that the other vault should have but that cannot be read there.
    pub chunks_not_brought: u64,
    /// Number of chunks and files that may still come back, as not all of the other vault has arrived where it is.
    pub late: u64,
    /// Number of lost files and folders that came back from copies.
    pub files_brought: u64,
    /// Number of snapshots that still lack files.
    pub hurt_left: u64,
    /// Whether something is lost or stays damaged.
    pub has_losses: bool,
    /// Broken packs that stay, since they became worse after the plan was made.
    pub packs_left: Vec<ObjectName>,
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> Result<T, RepairError> + Send) -> Result<T, RepairError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    pool.map_err(|error| RepairError::Threads(error.to_string()))?.install(work)
}

/// Checks everything and plans the repair. Changes nothing in the store; corrects the catalogue.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it.
pub fn plan(vault: &Vault, options: &RepairOptions<'_>, progress: &dyn Progress) -> Result<RepairPlan, RepairError> {
    vault.judge_store();
    let threads = vault.store().reading_threads(options.threads);
    in_pool(threads, || look(vault, options, &HashSet::new(), progress))
}

/// Checks everything; the chunks in `not_there` cannot be brought back.
fn look(
    vault: &Vault,
    options: &RepairOptions<'_>,
    not_there: &HashSet<ChunkId>,
    progress: &dyn Progress,
) -> Result<RepairPlan, RepairError> {
    vault.know_all(progress)?;
    vault.refresh(progress)?;
    let mut plan = RepairPlan::default();
    small::diagnose(vault, options.mirror(vault), not_there, &mut plan, progress)?;
    let packs = Packs::diagnose(vault, options, &mut plan, progress)?;
    small::indexes(vault, options.read_data, &mut plan, progress)?;
    find_losses(vault, &packs, options.lender(vault), not_there, &mut plan, progress)?;
    if let (Some(donor), None) = (options.from, options.lender(vault)) {
        plan.copies = copies_of(vault, donor, &plan.hurt);
    }
    let broken = plan.packs.iter().filter_map(|pack| {
        let object = ObjectRef::of(&pack.key())?;
        let snapshots = plan.hurt.len() as u64;
        let files = plan.hurt.iter().map(|hurt| hurt.count).sum();
        Some(FoundDamage { object, what: pack.what.clone(), snapshots, files })
    });
    let records = plan.aside.iter().filter_map(|aside| match aside.key {
        ObjectKey::Named(Kind::Log, name) => Some(FoundDamage {
            object: ObjectRef::record(name),
            what: aside.what.clone(),
            snapshots: u64::from(vault.snapshot(&name).is_some()),
            files: 0,
        }),
        _ => None,
    });
    let there = vault.catalogue().reader()?.packs()?;
    let kinds: HashMap<ObjectName, ObjectKind> = there.into_values().map(|info| (info.name, info.kind)).collect();
    let sound = plan.verified.iter().filter_map(|name| ObjectRef::of(&object_key(*kinds.get(name)?, *name)));
    let noted = vault.note_findings(broken.chain(records).collect(), &sound.collect::<Vec<_>>());
    warn_unless_noted(noted, progress);
    plan.left.sort_by_key(|problem| problem.subject.to_string());
    plan.left.dedup();
    Ok(plan)
}

/// Finds which files the snapshots have lost, and whether that is recorded.
fn find_losses(
    vault: &Vault,
    packs: &Packs,
    donor: Option<&Vault>,
    not_there: &HashSet<ChunkId>,
    plan: &mut RepairPlan,
    progress: &dyn Progress,
) -> Result<(), RepairError> {
    let reader = Arc::new(vault.catalogue().reader()?);
    let snapshots = vault.snapshots_with(plan.found.iter().map(|(_, found)| found));
    progress.counters().restart(snapshots.last().map_or(0, |last| last.body.files), 0);
    progress.phase(Phase::Plan);
    let marks = mark_lent(vault, donor, &reader, snapshots.iter().map(|info| &info.body), progress)?;
    plan.left.extend(marks.newer.values().map(|what| Problem {
        subject: Subject::Place("a folder of a snapshot".to_owned()),
        state: ObjectState::Newer,
        what: what.clone(),
    }));
    let mut bad = packs.lost_chunks(&reader, &marks)?;
    bad.extend(&marks.lost);
    if let Some(donor) = donor {
        let lent = available(donor, bad.iter().filter(|id| !not_there.contains(id)).copied())?;
        bad.retain(|id| lent.ids.binary_search(id).is_err());
        plan.lent = Lent { is_cut: marks.lost.len() >= LOSSES_KEPT, ..lent };
    }
    if !bad.is_empty() || !marks.is_whole() {
        plan.hurt = hurt::find(vault, donor, &reader, &snapshots, &bad, PATHS_KEPT)?;
        if plan.packs.is_empty() || vault.has_newer_packs() {
            let (state, unsure, lost) = vault.part_unsure(std::mem::take(&mut plan.hurt), |hurt| hurt.id);
            plan.hurt = lost;
            plan.left.extend(unsure.iter().map(|hurt| Problem {
                subject: Subject::Object(ObjectKey::Named(Kind::Log, hurt.id)),
                state,
                what: format!("{} of its files and folders", hurt.count),
            }));
        }
    }
    plan.marks = marks_to_write(vault, &plan.hurt);
    warn_unless_noted(vault.note_lacking(plan.hurt.iter().map(HurtSnapshot::lacking).collect()), progress);
    Ok(())
}

/// The losses that the log should record, if it does not yet.
fn marks_to_write(vault: &Vault, hurt: &[HurtSnapshot]) -> Option<Damage> {
    let recorded = vault.recorded_damage();
    let mut damage = Damage::default();
    let mut lost: BTreeMap<(&[u8], &[ChunkId]), Vec<u64>> = BTreeMap::new();
    let mut bytes = 0;
    for snapshot in hurt {
        let same = recorded.get(&snapshot.id).is_some_and(|known| {
            let files: BTreeSet<_> = known.files.iter().map(|(path, ids)| (path, ids)).collect();
            let mut now = snapshot.files.iter().map(|file| (&file.path, &file.ids));
            // A check records fewer files if there are many.
            known.count == snapshot.count && now.by_ref().filter(|file| files.contains(file)).count() == files.len()
        });
        if same {
            continue;
        }
        let index = damage.snapshots.len() as u64;
        damage.snapshots.push(DamagedSnapshot { id: snapshot.id, count: snapshot.count });
        for file in &snapshot.files {
            if bytes < BODY_LEN {
                let of = lost.entry((&file.path, &file.ids)).or_default();
                bytes += if of.is_empty() { 24 + file.path.len() + file.ids.len() * ChunkId::LEN } else { 5 };
                of.push(index);
            }
        }
    }
    for (id, known) in &recorded {
        if known.count > 0 && hurt.iter().all(|snapshot| snapshot.id != *id) && vault.snapshot(id).is_some() {
            damage.snapshots.push(DamagedSnapshot { id: *id, count: 0 });
        }
    }
    damage.lost = lost
        .into_iter()
        .map(|((path, ids), of)| LostFile {
            path: path.to_vec(),
            ids: ids.iter().flat_map(|id| *id.as_bytes()).collect(),
            of,
        })
        .collect();
    Some(damage).filter(|damage| !damage.snapshots.is_empty())
}

/// Carries out the plan.
///
/// # Errors
/// [`RepairError::Changed`] if the plan no longer applies: plan again. Or if the store, the catalogue or the state folder fails. In both
/// cases finished steps stay, and the next repair continues from there.
pub fn execute(
    vault: &Vault,
    plan: RepairPlan,
    options: &RepairOptions<'_>,
    progress: &dyn Progress,
) -> Result<RepairReport, RepairError> {
    in_pool(options.threads, || {
        let session = vault.begin_writing((options.clock)(), progress)?;
        let mut repair = Repair {
            vault,
            session: &session,
            options,
            progress,
            report: RepairReport::default(),
            brought: Vec::new(),
        };
        let plan = repair.bring_back(plan)?;
        (repair.report.has_losses, repair.report.hurt_left) = (plan.has_losses(), plan.hurt.len() as u64);
        let report = repair.run(plan)?;
        vault.look_at_slots()?;
        Ok(report)
    })
}

struct Repair<'a> {
    vault: &'a Vault,
    session: &'a Session,
    options: &'a RepairOptions<'a>,
    progress: &'a dyn Progress,
    report: RepairReport,
    /// Packs with the chunks that were brought back.
    brought: Vec<ObjectName>,
}

impl Repair<'_> {
    /// Stores lost data that another vault has. Returns the plan for the rest.
    fn bring_back(&mut self, mut plan: RepairPlan) -> Result<RepairPlan, RepairError> {
        let Some(donor) = self.options.from else { return Ok(plan) };
        if plan.copies.count() > 0 {
            let lost = |plan: &RepairPlan| plan.hurt.iter().map(|hurt| hurt.count).sum::<u64>();
            let before = lost(&plan);
            let brought = bring_copies(self.vault, donor, &plan.copies, self.session, self.options, self.progress)?;
            self.report.bytes_stored += brought.bytes_stored;
            self.brought = brought.packs;
            plan = look(self.vault, self.options, &HashSet::new(), self.progress)?;
            self.report.files_brought = before.saturating_sub(lost(&plan));
            self.report.late = brought.late;
            return Ok(plan);
        }
        let (mut packs, mut failed, mut done) = (Vec::new(), HashSet::new(), HashSet::new());
        while !plan.lent.ids.is_empty() {
            // The store did not keep the packs.
            if plan.lent.ids.iter().any(|id| done.contains(id)) {
                return Err(RepairError::Changed);
            }
            done.extend(plan.lent.ids.iter().copied());
            let brought = bring(self.vault, donor, &plan.lent, self.session, self.options, self.progress)?;
            self.report.chunks_brought += plan.lent.count() - brought.failed.len() as u64;
            self.report.bytes_stored += brought.bytes_stored;
            packs.extend(brought.packs);
            self.report.late += brought.late;
            let is_as_planned = brought.failed.is_empty() && !plan.lent.is_cut;
            failed.extend(brought.failed);
            if is_as_planned {
                break;
            }
            plan = look(self.vault, self.options, &failed, self.progress)?;
        }
        self.report.chunks_not_brought = (failed.len() as u64).saturating_sub(self.report.late);
        self.report.late += plan.lent.late;
        self.brought = packs;
        Ok(plan)
    }

    fn run(mut self, plan: RepairPlan) -> Result<RepairReport, RepairError> {
        let vault = self.vault;
        if !plan.packs.is_empty() {
            let (there, condemned) = (vault.pack_names(), vault.condemned());
            let usable: HashSet<ObjectName> = there.into_iter().filter(|name| !condemned.contains(name)).collect();
            if !plan.relied_on.is_subset(&usable) {
                return Err(RepairError::Changed);
            }
        }
        self.mend_small(&plan)?;
        let mut found: Vec<FoundRecord> = plan.found.into_iter().map(|(_, found)| found).collect();
        for past in plan.past {
            self.publish(RecordBody::Found(Held { records: Vec::new(), past }))?;
        }
        while !found.is_empty() {
            let mut bytes = 0;
            let fitting = found.iter().take_while(|found| (bytes < BODY_LEN, bytes += found.plain.len()).0).count();
            let rest = found.split_off(fitting);
            self.report.records_found += found.len() as u64;
            self.publish(RecordBody::Found(std::mem::replace(&mut found, rest).into()))?;
        }
        self.move_aside(&plan.aside.iter().map(|aside| aside.key).collect::<Vec<_>>())?;
        if !plan.packs.is_empty() {
            let goal = plan.packs.iter().map(|pack| pack.bytes_saved).sum();
            self.progress.counters().restart(plan.packs.len() as u64, goal);
            self.progress.phase(Phase::Collect);
        }
        for broken in plan.packs.chunks(BATCH) {
            self.replace_packs(broken, &plan.relied_on)?;
        }
        if let Some(marks) = plan.marks {
            self.publish_on_brought(RecordBody::Damage(marks))?;
        }
        if self.session.unclaimed() > 0 {
            // A record claims the packs with chunks brought back, so that others rely on them too.
            self.publish_on_brought(RecordBody::Forget(Vec::new()))?;
        }
        if !plan.verified.is_empty() {
            let there: HashSet<ObjectName> = vault.pack_names().into_iter().collect();
            vault.catalogue().set_verified(&plan.verified, (self.options.clock)().secs, |name| there.contains(name))?;
        }
        vault.refresh(self.progress)?;
        vault.tend_index(self.progress);
        Ok(self.report)
    }

    fn publish(&self, body: RecordBody) -> Result<(), RepairError> {
        self.vault.publish(body, (self.options.clock)(), Some(self.session), |_| true, self.progress)?;
        Ok(())
    }

    /// Publishes a record that is true only if the store has kept the packs with chunks brought back.
    fn publish_on_brought(&self, body: RecordBody) -> Result<(), RepairError> {
        if self.brought.is_empty() {
            return self.publish(body);
        }
        let (brought, time) = (self.brought.iter().copied().collect(), (self.options.clock)());
        let put = self.vault.publish_relying(&body, &brought, time, self.session, self.progress)?;
        put.map(drop).ok_or(RepairError::Changed)
    }

    /// Moves objects aside. One that no longer exists needs no move.
    fn move_aside(&mut self, keys: &[ObjectKey]) -> Result<(), RepairError> {
        let (store, moved) = (self.vault.store(), AtomicU64::new(0));
        let done = try_share(keys.len(), store.limits().writes, |number| {
            if self.progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            match store.quarantine(&keys[number]) {
                Ok(()) => drop(moved.fetch_add(1, Relaxed)),
                Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        });
        self.report.moved_aside += moved.into_inner();
        done.map(drop)
    }

    /// Repairs the VAULT file and the copies of key slots. Sound objects are put before damaged ones are moved.
    fn mend_small(&mut self, plan: &RepairPlan) -> Result<(), RepairError> {
        if plan.vault_file.is_some() {
            self.move_aside(&[ObjectKey::Vault])?;
            self.vault.mend_vault_file(&crate::progress::Silent::default())?;
            self.report.vault_file = true;
        }
        let (store, put) = (self.vault.store(), AtomicU64::new(0));
        let done = try_share(plan.slot_copies.len(), store.limits().writes, |number| -> Result<(), RepairError> {
            let name = crate::seal::random_name()?;
            let bytes = Bytes::copy_from_slice(plan.slot_copies[number].slot.as_bytes());
            put_proven(store, ObjectKey::Named(Kind::Key, name), bytes)?;
            put.fetch_add(1, Relaxed);
            Ok(())
        });
        self.report.slot_copies += put.into_inner();
        done.map(drop)
    }

    /// Copies everything readable in broken packs, condemns them, and moves them aside.
    fn replace_packs(&mut self, broken: &[BrokenPack], relied_on: &HashSet<ObjectName>) -> Result<(), RepairError> {
        let numbers: HashMap<ObjectName, (u32, crate::catalogue::PackInfo)> = {
            let infos = self.vault.catalogue().reader()?.packs()?;
            infos.into_iter().map(|(number, info)| (info.name, (number, info))).collect()
        };
        let needed: Vec<Needed> = broken
            .iter()
            .filter(|pack| pack.bytes_saved > 0)
            .filter_map(|pack| {
                let (number, info) = numbers.get(&pack.pack.name)?;
                Some(Needed {
                    number: *number,
                    info: info.clone(),
                    footer: pack.footer.clone(),
                    chunks: pack.saved_chunks(),
                })
            })
            .collect();
        let options = MoveOptions { level: LEVEL, verify: true };
        let moved = move_needed(self.vault, self.session, &needed, &HashSet::new(), options, self.progress)?;
        self.report.bytes_stored += moved.bytes_stored;
        let is_left = |pack: &&BrokenPack| {
            let number = numbers.get(&pack.pack.name).map(|(number, _)| *number);
            // A pack that should be copied but is not in the catalogue has been deleted meanwhile.
            number.map_or(pack.bytes_saved > 0, |number| moved.failed.contains(&number))
        };
        let (left, gone): (Vec<&BrokenPack>, Vec<&BrokenPack>) = broken.iter().partition(is_left);
        self.report.packs_left.extend(left.iter().map(|pack| pack.pack.name));
        let condemned = self.vault.condemned();
        let fresh: Vec<PackRef> = gone
            .iter()
            .filter(|pack| !condemned.contains(&pack.pack.name))
            .map(|pack| PackRef { meta: pack.pack.kind == ObjectKind::Meta, name: pack.pack.name })
            .collect();
        if !fresh.is_empty() {
            let needed: HashSet<ObjectName> =
                relied_on.iter().chain(&moved.packs).chain(&self.brought).copied().collect();
            let (body, time) = (RecordBody::Condemn(fresh), (self.options.clock)());
            if self.vault.publish_relying(&body, &needed, time, self.session, self.progress)?.is_none() {
                return Err(RepairError::Changed);
            }
        }
        self.move_aside(&gone.iter().map(|pack| object_key(pack.pack.kind, pack.pack.name)).collect::<Vec<_>>())?;
        let names: Vec<ObjectName> = gone.iter().map(|pack| pack.pack.name).collect();
        let txn = self.vault.catalogue().write()?;
        self.vault.catalogue().remove_packs(&txn, &names)?;
        txn.commit().map_err(CatalogueError::from)?;
        Ok(())
    }
}
