//! Diagnoses the VAULT file, the key slots and the records.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::engine::check::Problem;
use crate::engine::keys::is_done_with;
use crate::engine::repair::bring::available;
use crate::engine::repair::{RepairError, RepairPlan};
use crate::id::{ChunkId, ClientId, ObjectName, SlotId};
use crate::limits::{KEY_SLOT_LEN_MAX, RECORD_LEN_MAX, VAULT_FILE_LEN_MAX};
use crate::log::merge::unfold;
use crate::log::record::DecodeRecordError;
use crate::log::{FoundRecord, Held, Record, RecordBody, RecordError, Standing};
use crate::progress::{Progress, Silent};
use crate::read::mark::mark_lent;
use crate::seal::{SLOT_LEN, SlotError, SlotFile, VaultFile, VaultFileError};
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, Subject};
use crate::sync::try_share;
use crate::vault::locked::Slots;
use crate::vault::{BadObject, Lost, ObjectState, ReadError, Vault, VaultError};

/// A key slot with only one copy left.
#[derive(Debug, Clone)]
pub struct SlotCopy {
    /// Its id.
    pub id: SlotId,
    /// Its bytes.
    pub slot: SlotFile,
}

/// An object that can no longer be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// The object.
    pub key: ObjectKey,
    /// The fault.
    pub what: String,
}

/// A record whose object is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRecord {
    /// The name of its object.
    pub name: ObjectName,
    /// Its client and number, if known.
    pub place: Option<(ClientId, u64)>,
    /// Whether it is a snapshot, if known.
    pub is_snapshot: Option<bool>,
}

/// Checks all small objects. `not_there`: chunks that the mirror turned out not to have.
pub(super) fn diagnose(
    vault: &Vault,
    mirror: Option<&Vault>,
    not_there: &HashSet<ChunkId>,
    plan: &mut RepairPlan,
    progress: &dyn Progress,
) -> Result<(), RepairError> {
    plan.vault_file = vault_file(vault)?;
    slots(vault, plan)?;
    records(vault, mirror, not_there, plan, progress)?;
    Ok(())
}

/// Finds useless index objects; new ones are written in their place. If `thoroughly`, every entry is compared.
pub(super) fn indexes(
    vault: &Vault,
    thoroughly: bool,
    plan: &mut RepairPlan,
    progress: &dyn Progress,
) -> Result<(), RepairError> {
    for BadObject { key, state, what } in vault.bad_indexes(thoroughly, progress)? {
        match state {
            ObjectState::Redundant => plan.aside.push(Aside { key, what }),
            state => plan.left.push(left(key, what, state)),
        }
    }
    Ok(())
}

/// A problem that a repair cannot solve.
pub(super) fn left(key: ObjectKey, what: String, state: ObjectState) -> Problem {
    Problem { subject: Subject::Object(key), state, what: state.told(what) }
}

/// The fault of the VAULT file, if there is one.
fn vault_file(vault: &Vault) -> Result<Option<String>, StoreError> {
    let store = vault.store();
    let bytes = match store.get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX) {
        Err(StoreError::Missing { .. }) => return Ok(Some("it is missing".to_owned())),
        Err(StoreError::Long { .. }) => return Ok(Some("it is too long".to_owned())),
        Err(error) if error.is_of_whole() => return Err(error),
        // A pipe, a link or a folder in its place.
        Err(error) => return Ok(Some(error.reason())),
        Ok(bytes) => bytes,
    };
    Ok(match VaultFile::parse(&bytes) {
        // Several vaults in one folder share one such file, which may be that of any of them.
        Ok(file) if vault.others().contains(&file.id) => None,
        Ok(file) if file.id != vault.id() => Some("it is that of another vault".to_owned()),
        Ok(_) | Err(VaultFileError::Newer { .. }) => None,
        Err(error) => Some(error.to_string()),
    })
}

/// Plans the key slots: each valid slot has two copies, and no other objects exist. A removed slot is never copied, and is moved aside
/// once its removal is settled; a slot that no record mentions may just be being created.
fn slots(vault: &Vault, plan: &mut RepairPlan) -> Result<(), RepairError> {
    let store = vault.store();
    let slots = Slots::read(store)?;
    let set = vault.slot_set();
    let mut copies: BTreeMap<[u8; SLOT_LEN], (SlotFile, u64)> = BTreeMap::new();
    for (name, slot) in slots.copies {
        let Some(valid) = vault.valid_slot(&slot) else {
            if slot.vault() == vault.id() {
                let what = format!("key slot {} was made without the key of this vault", slot.id());
                plan.aside.push(Aside { key: ObjectKey::Named(Kind::Key, name), what });
            }
            continue;
        };
        match set.standing(&valid.id, &valid.digest) {
            Standing::Removed if is_done_with(vault, &slot) => {
                let what = format!("key slot {} was removed, and its file is here again", valid.id);
                plan.aside.push(Aside { key: ObjectKey::Named(Kind::Key, name), what });
            }
            Standing::Removed | Standing::Other => {}
            Standing::Pending if set.exists() => {}
            Standing::Pending | Standing::Valid => copies.entry(*slot.as_bytes()).or_insert((slot, 0)).1 += 1,
        }
    }
    let single = copies.into_values().filter(|(_, count)| *count == 1);
    plan.slot_copies = single.map(|(slot, _)| SlotCopy { id: slot.id(), slot }).collect();
    for bad in slots.bad {
        let key = bad.key;
        if vault.is_of_another(&key)? {
            continue;
        }
        match is_damaged(store, &key, KEY_SLOT_LEN_MAX, |bytes| match SlotFile::parse(bytes) {
            Ok(_) | Err(SlotError::Newer { .. }) => None,
            Err(error) => Some(error.to_string()),
        }) {
            Ok(Some(what)) => drop(aside_or_left(vault, key, what, plan)?),
            Ok(None) if bad.state == ObjectState::Newer => plan.left.push(left(key, bad.what, bad.state)),
            Ok(None) | Err(StoreError::Missing { .. }) => {}
            Err(error) if error.is_of_whole() => return Err(error.into()),
            Err(error) => plan.left.push(left(key, error.reason(), ObjectState::Damaged)),
        }
    }
    Ok(())
}

/// Plans to move a damaged object aside. An object that is still arriving is left where it is: if it were moved here, the sync would take
/// it away from the machine that has it complete. Returns whether it is moved.
fn aside_or_left(vault: &Vault, key: ObjectKey, what: String, plan: &mut RepairPlan) -> Result<bool, RepairError> {
    let state = vault.state_of(&key)?;
    match state {
        ObjectState::Damaged => plan.aside.push(Aside { key, what }),
        ObjectState::OfAnotherVault => {}
        state => plan.left.push(left(key, state.told(what), state)),
    }
    Ok(state == ObjectState::Damaged)
}

/// The fault in the bytes of an object according to `judge`; an object that is too long is damaged.
fn is_damaged(
    store: &dyn Store,
    key: &ObjectKey,
    len_max: u64,
    judge: impl FnOnce(&[u8]) -> Option<String>,
) -> Result<Option<String>, StoreError> {
    match store.get(key, len_max) {
        Ok(bytes) => Ok(judge(&bytes)),
        Err(error @ StoreError::Long { .. }) => Ok(Some(error.reason())),
        Err(error) => Err(error),
    }
}

/// Reads all records again. Damaged or missing ones are put into the log again if this machine remembers them or a mirror has them.
fn records(
    vault: &Vault,
    mirror: Option<&Vault>,
    not_there: &HashSet<ChunkId>,
    plan: &mut RepairPlan,
    progress: &dyn Progress,
) -> Result<(), RepairError> {
    let mut names = Vec::new();
    vault.store().list(Kind::Log, &mut |listed| {
        if let Listed::Object { name, .. } = listed {
            names.push(name);
        }
    })?;
    names.sort_unstable();
    let judged = try_share(names.len(), vault.store().limits().reads, |number| -> Result<_, RepairError> {
        if progress.stopped() {
            return Err(VaultError::Interrupted.into());
        }
        read_again(vault, names[number])
    })?;
    for (name, (what, problem)) in names.into_iter().zip(judged) {
        plan.left.extend(problem);
        let Some(what) = what else { continue };
        if aside_or_left(vault, ObjectKey::Named(Kind::Log, name), what, plan)? {
            bring_back(vault, mirror, name, plan)?;
        }
    }
    let Lost { records, inner, past } = vault.missing_records()?;
    plan.past.extend(past);
    // Records that a merge held are all put again: a missing one would be missing for ever and block every deletion.
    let mut missing: Vec<Missing> =
        records.into_iter().map(|found| Missing { is_held: inner.contains(&found.name), found }).collect();
    if let Some(mirror) = mirror {
        of_mirror(vault, mirror, &mut missing, plan)?;
    }
    // Data that only forgotten or replaced snapshots need does not matter.
    let stands: HashSet<ObjectName> = {
        let found = plan.found.iter().map(|(_, found)| found).chain(missing.iter().map(|missing| &missing.found));
        vault.snapshots_with(found).into_iter().map(|info| info.id).collect()
    };
    for Missing { found, is_held } in missing {
        let Some(lost) = describe(&found) else { continue };
        if is_held || !stands.contains(&found.name) || is_restorable(vault, mirror, not_there, &found)? {
            plan.found.push((lost, found));
        } else {
            // If put again, it would be a snapshot that cannot be restored.
            plan.lost_records.push(lost);
        }
    }
    Ok(())
}

/// Reads a record again. Returns its fault if it is damaged, and otherwise the problem if it cannot be judged.
fn read_again(vault: &Vault, name: ObjectName) -> Result<(Option<String>, Option<Problem>), RepairError> {
    let key = ObjectKey::Named(Kind::Log, name);
    let mut newer = None;
    let judge = |bytes: &[u8]| match Record::open(vault.keys(), name, bytes) {
        Ok(_) => None,
        Err(RecordError::Newer { what, .. }) => {
            newer = Some(what);
            None
        }
        Err(error) => Some(error.reason()),
    };
    let what = match is_damaged(vault.store(), &key, RECORD_LEN_MAX as u64, judge) {
        Ok(what) => what,
        Err(StoreError::Missing { .. }) => None,
        Err(error) if error.is_of_whole() => return Err(error.into()),
        Err(error) => return Ok((None, Some(left(key, error.reason(), ObjectState::Damaged)))),
    };
    Ok((what, newer.map(|what| left(key, what, ObjectState::Newer))))
}

/// Plans to put the record of a damaged object again, if this machine or the mirror remembers it; otherwise it is lost.
fn bring_back(
    vault: &Vault,
    mirror: Option<&Vault>,
    name: ObjectName,
    plan: &mut RepairPlan,
) -> Result<(), RepairError> {
    let remembered = match (vault.remembered_record(&name)?, mirror) {
        (None, Some(mirror)) => mirror.remembered_record(&name)?,
        (remembered, _) => remembered,
    };
    let chains = vault.chains();
    match remembered {
        // Merges say everything that it says.
        Some(found) if vault.is_made_up_for(&found) => {}
        None if chains.held(&name).is_some() || chains.is_past(&name) => {}
        // Put it with everything that it held, even if the held objects exist: others may be about to delete them, relying on this
        // record.
        Some(found) => {
            let Held { records, past } = unfold(found);
            plan.found.extend(records.into_iter().filter_map(|found| Some((describe(&found)?, found))));
            plan.past.extend(Some(past).filter(|past| !past.is_empty()));
        }
        None => plan.lost_records.push(LostRecord { name, place: None, is_snapshot: None }),
    }
    Ok(())
}

/// A record missing from the log.
struct Missing {
    found: FoundRecord,
    /// Whether a merge held it.
    is_held: bool,
}

/// Adds records that a mirror has and that are missing here without this machine having known them. Records held by merges in the mirror
/// count like all others there; past records are not brought back.
fn of_mirror(
    vault: &Vault,
    mirror: &Vault,
    missing: &mut Vec<Missing>,
    plan: &mut RepairPlan,
) -> Result<(), RepairError> {
    let (here, there) = (vault.chains(), mirror.chains());
    let found = plan.found.iter().map(|(_, found)| found.name);
    let found = found.chain(missing.iter().map(|missing| missing.found.name));
    let mut known: HashSet<ObjectName> = found.chain(plan.lost_records.iter().map(|lost| lost.name)).collect();
    for link in there.links() {
        let Record { client, number, body, .. } = &link.record;
        if here.is_accounted(client, *number) || known.contains(&link.name) {
            continue;
        }
        let found = mirror.remembered_record(&link.name).map_err(|error| ReadError::from(error).of_lender(mirror))?;
        let Some(found) = found else { continue };
        let is_held = matches!(body, RecordBody::Found(_));
        // A merge comes with everything that it held.
        let Held { records, past } = unfold(found);
        plan.past.extend(Some(past).filter(|past| !past.is_empty()));
        let records = records.into_iter().filter(|found| known.insert(found.name));
        missing.extend(records.map(|found| Missing { found, is_held }));
    }
    Ok(())
}

/// Whether a record is worth putting again: for a snapshot, all chunks needed to start reading it are stored or come back.
fn is_restorable(
    vault: &Vault,
    mirror: Option<&Vault>,
    not_there: &HashSet<ChunkId>,
    found: &FoundRecord,
) -> Result<bool, RepairError> {
    let Ok(Record { body: RecordBody::Snapshot(body), .. }) = Record::decode(&found.plain) else { return Ok(true) };
    let reader = Arc::new(vault.catalogue().reader()?);
    let marks = mark_lent(vault, mirror, &reader, [&*body], &Silent::default())?;
    let comes_back = match mirror {
        Some(mirror) => available(mirror, marks.lost.iter().filter(|id| !not_there.contains(id)).copied())?.count(),
        None => 0,
    };
    Ok(marks.lost.len() as u64 == comes_back && marks.unknown().is_none())
}

fn describe(found: &FoundRecord) -> Option<LostRecord> {
    let record = match Record::decode(&found.plain) {
        Ok(record) => record,
        Err(DecodeRecordError::Newer(_)) => {
            return Some(LostRecord { name: found.name, place: None, is_snapshot: None });
        }
        Err(DecodeRecordError::Malformed(_)) => return None,
    };
    let is_snapshot = Some(matches!(record.body, RecordBody::Snapshot(_)));
    Some(LostRecord { name: found.name, place: Some((record.client, record.number)), is_snapshot })
}
