//! A mirror: a copy of a vault's objects in another place, byte by byte (SPEC §8.11). Copying missing objects needs
//! no key, and each object is verified by the hash at its end before it is copied.

pub mod compare;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::id::{ObjectName, VaultId};
use crate::limits::{KEY_SLOT_LEN_MAX, PACK_LEN_MAX, RECORD_LEN_MAX, VAULT_FILE_LEN_MAX};
use crate::log::{RecordBody, Standing};
use crate::pack::TRAILER_LEN;
use crate::progress::{Phase, Progress, Silent};
use crate::seal::{MIRROR, SlotError, SlotFile, VaultFile, VaultFileError};
use crate::store::proof::{look_for, put_proven};
use crate::store::{Delivery, Kind, Listed, ObjectKey, Store, StoreError};
use crate::sync::{Rooms, try_share};
use crate::vault::locked::{LockedVault, Wanted};
use crate::vault::slots::digest;
use crate::vault::{ObjectState, Vault, VaultError};

/// The number of times that a vault is listed, if it is pruned meanwhile.
const ROUNDS: usize = 5;
/// Objects that are copied or compared at a time have this many bytes together, unless one alone has more.
const ROOM: u64 = 256 << 20;
/// Objects are copied in groups of this many; between groups, the user can stop the work.
const GROUP: usize = 64;

/// The reason why a mirror could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The vault that is to be mirrored has no whole VAULT file.
    #[error("the VAULT file in {place} is missing or damaged")]
    NoVault {
        /// The place of the vault.
        place: String,
    },
    /// The place of the mirror holds a vault that is not a mirror of this one.
    #[error("in {place} lies {}, and no mirror of this vault", other_told(.other.as_ref()))]
    Other {
        /// The place of the mirror.
        place: String,
        /// The vault found there; `None` if it is this vault itself.
        other: Option<VaultId>,
    },
    /// The place of the mirror holds objects, but no VAULT file that says whose they are.
    #[error("{place} is not empty, and has no VAULT file")]
    Unknown {
        /// The place of the mirror.
        place: String,
    },
    /// The vault's store failed, or the user stopped it.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The place of the mirror failed. This says nothing about the vault.
    #[error("the mirror in {place}")]
    To {
        /// The place of the mirror.
        place: String,
        /// The cause.
        source: VaultError,
    },
}

impl MirrorError {
    /// Turns errors into errors of the mirror's place.
    fn of<E: Into<VaultError>>(to: &dyn Store) -> impl Fn(E) -> Self {
        let place = to.place();
        move |error| match error.into() {
            error @ (VaultError::Interrupted | VaultError::Store(StoreError::Stopped)) => Self::Vault(error),
            source => Self::To { place: place.clone(), source },
        }
    }
}

fn other_told(other: Option<&VaultId>) -> String {
    other.map_or_else(|| "this vault itself, or a mirror that was promoted".to_owned(), |id| format!("the vault {id}"))
}

impl From<StoreError> for MirrorError {
    fn from(error: StoreError) -> Self {
        VaultError::from(error).into()
    }
}

/// The result of bringing a mirror up to date.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorReport {
    /// The vault.
    pub vault: Option<VaultId>,
    /// Objects that were copied.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that the mirror already had.
    pub there: u64,
    /// Objects of the mirror with a wrong length, which were moved aside and copied again; they count as copied.
    pub mended: u64,
    /// Objects of the vault that are damaged, and so were not copied.
    pub damaged: Vec<ObjectKey>,
    /// Those of the vault that have not arrived there whole: see [`Judge`].
    pub late: Vec<ObjectKey>,
    /// Objects of the mirror that the vault no longer has.
    pub surplus: u64,
    /// The number of those that were deleted.
    pub deleted: u64,
}

impl MirrorReport {
    /// Tells objects that the sync has not brought whole to the vault from those that are damaged in it.
    ///
    /// # Errors
    /// If the vault's store as a whole is unavailable.
    pub fn judge(&mut self, judge: Judge<'_>) -> Result<(), VaultError> {
        judge.part(&mut self.damaged, &mut self.late)
    }
}

/// The knowledge of why an object is not whole: damage, or a sync that has not brought all of it. No key is needed to
/// copy and to compare, but the records of the vault say which it is.
#[derive(Clone, Copy)]
pub enum Judge<'v> {
    /// The opened vault.
    Vault(&'v Vault),
    /// The vault is not opened, but things are known to arrive late in it: everything may be late.
    Synced,
    /// The vault is not opened, and nothing is known to arrive late.
    Direct,
}

impl Judge<'_> {
    /// Whether an object that is not whole in the vault is late.
    fn is_late(self, key: &ObjectKey) -> Result<bool, VaultError> {
        Ok(match self {
            Self::Vault(vault) => {
                vault.delivery() == Delivery::Synced && vault.state_of(key)? == ObjectState::NotArrived
            }
            Self::Synced => true,
            Self::Direct => false,
        })
    }

    /// The same of an object that is not whole in a mirror of the vault, and is whole in the vault or late there.
    fn is_late_there(self, key: &ObjectKey) -> bool {
        match self {
            Self::Vault(vault) => vault.delivery() == Delivery::Synced && !vault.is_own(key, &vault.chains()),
            Self::Synced => true,
            Self::Direct => false,
        }
    }

    /// Moves the objects that are late.
    fn part(self, damaged: &mut Vec<ObjectKey>, late: &mut Vec<ObjectKey>) -> Result<(), VaultError> {
        for key in std::mem::take(damaged) {
            if self.is_late(&key)? { &mut *late } else { &mut *damaged }.push(key);
        }
        Ok(())
    }
}

/// The objects of a store, with their lengths. Keys are listed first, then records: whatever a record needs was put
/// before it, and so is listed, too.
fn list(store: &dyn Store) -> Result<HashMap<ObjectKey, u64>, StoreError> {
    let mut found = HashMap::new();
    let mut note = |kind, listed| {
        if let Listed::Object { name, len } = listed {
            found.insert(ObjectKey::Named(kind, name), len);
        }
    };
    store.list(Kind::Key, &mut |listed| note(Kind::Key, listed))?;
    store.list_all(&[Kind::Log, Kind::Meta, Kind::Pack, Kind::Index], &mut note)?;
    Ok(found)
}

/// The VAULT file, if it exists and is whole. A VAULT file of a later version is an error: this version does not know
/// what else belongs to such a vault.
fn vault_file(store: &dyn Store) -> Result<Option<VaultFile>, VaultError> {
    let bytes = match store.get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(StoreError::Missing { .. } | StoreError::Long { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match VaultFile::parse(&bytes) {
        Ok(file) => Ok(Some(file)),
        Err(VaultFileError::Newer { what }) => {
            Err(VaultError::Newer { place: store.place(), what: format!("unknown {what}") })
        }
        Err(VaultFileError::NotAVault | VaultFileError::Damaged(_)) => Ok(None),
    }
}

/// Whether an object is whole: it ends with the hash of the bytes before.
fn is_whole(kind: Kind, bytes: &[u8]) -> bool {
    if kind == Kind::Key {
        // A slot of a later version counts as whole, too.
        return matches!(SlotFile::parse(bytes), Ok(_) | Err(SlotError::Newer { .. }));
    }
    let Some((before, trailer)) = bytes.len().checked_sub(TRAILER_LEN).map(|at| bytes.split_at(at)) else {
        return false;
    };
    *blake3::hash(before).as_bytes() == *trailer
}

const fn len_max(kind: Kind) -> u64 {
    match kind {
        Kind::Key => KEY_SLOT_LEN_MAX,
        Kind::Log => RECORD_LEN_MAX as u64,
        Kind::Pack | Kind::Meta | Kind::Index => PACK_LEN_MAX,
    }
}

/// The order in which kinds are copied: objects that others need come first, so that a mirror is a vault whenever the
/// copy ends. In a new mirror, key slots come last all the same: see [`mirror`].
const fn order(kind: Kind) -> u8 {
    match kind {
        Kind::Key => 0,
        Kind::Pack => 1,
        Kind::Meta => 2,
        Kind::Log => 3,
        Kind::Index => 4,
    }
}

const fn is_slot(key: &ObjectKey) -> bool {
    matches!(key, ObjectKey::Named(Kind::Key, _))
}

/// The VAULT file of the vault that is mirrored: the one that is there, or if another vault with key slots there is
/// wanted, one that names that vault. The features of that are known to nobody without its key; this version has none.
fn chosen(from: &dyn Store, wanted: &Wanted) -> Result<VaultFile, MirrorError> {
    let file = vault_file(from)?;
    if file.is_some_and(|file| file.features & MIRROR != 0) {
        LockedVault::read(from)?.require_finished(&|| from.place())?;
    }
    if let Some(file) = file.filter(|file| wanted.is_first(file.id)) {
        return Ok(file);
    }
    let place = || from.place();
    let locked = LockedVault::read(from)?;
    match (locked.choose(wanted, &place)?, file) {
        (Some(id), Some(file)) if id == file.id => Ok(file),
        (Some(id), Some(_)) => Ok(VaultFile { id, features: 0 }),
        // Which vault it is if there are several, only a person or this machine's memory tells.
        (Some(id), None) if locked.is_shared() => Ok(VaultFile { id, features: 0 }),
        (_, Some(file)) => wanted.require(file.id, &place).map(|()| file).map_err(MirrorError::from),
        (_, None) => Err(MirrorError::NoVault { place: from.place() }),
    }
}

/// Copies the objects of the vault in `from` that `to` lacks. Deletes nothing there. `wanted` is the id of the vault,
/// if it is known. Nobody opens a vault without its key slots. So a new mirror gets them last, when it has everything
/// else: a mirror that can be opened was whole once.
///
/// # Errors
/// If another vault is in `from`, if `to` is neither a mirror of this vault nor empty, or if a store fails. Objects
/// copied by then stay, and are not copied again.
pub fn mirror(
    from: &dyn Store,
    to: &dyn Store,
    wanted: &Wanted,
    progress: &dyn Progress,
) -> Result<MirrorReport, MirrorError> {
    let file = chosen(from, wanted)?;
    let there_file = vault_file(to).map_err(MirrorError::of(to))?;
    let source = list(from)?;
    let there = list(to).map_err(MirrorError::of(to))?;
    match there_file {
        Some(there) => require_mirror(&there, file.id, to)?,
        None if !there.is_empty() => return Err(MirrorError::Unknown { place: to.place() }),
        // It is a mirror from the first object on, so that nobody takes a partial mirror for a vault.
        None => {
            let file = VaultFile { features: file.features | MIRROR, ..file };
            put_proven(to, ObjectKey::Vault, file.encode().into()).map_err(MirrorError::of(to))?;
        }
    }
    let mut report = MirrorReport { vault: Some(file.id), ..MirrorReport::default() };
    let (mut source, mut there) = (source, there);
    report.there = source.iter().filter(|(key, len)| there.get(key) == Some(len)).count() as u64;
    let is_new = !there.keys().any(is_slot);
    let parts: &[Part] = if is_new { &[|key| !is_slot(key), is_slot] } else { &[|_| true] };
    for part in parts {
        bring(from, to, *part, (&mut source, &mut there), &mut report, progress)?;
    }
    report.damaged.sort_unstable();
    report.damaged.dedup();
    report.surplus = there.keys().filter(|key| !source.contains_key(key)).count() as u64;
    Ok(report)
}

/// Whether an object belongs to what is copied together.
type Part = fn(&ObjectKey) -> bool;

/// Copies the missing objects of a part, until the mirror has kept them all.
fn bring(
    from: &dyn Store,
    to: &dyn Store,
    part: Part,
    (source, there): (&mut HashMap<ObjectKey, u64>, &mut HashMap<ObjectKey, u64>),
    report: &mut MirrorReport,
    progress: &dyn Progress,
) -> Result<(), MirrorError> {
    for round in 0..ROUNDS {
        let Copying { put, gone } = copy_missing(from, to, part, (&*source, &*there), report, progress)?;
        if put.is_empty() && gone == 0 {
            break;
        }
        // List again after the puts: the place may not have kept an object, and needed chunks may be in other packs
        // by now.
        *there = list(to).map_err(MirrorError::of(to))?;
        let mut lost = None;
        for (key, len) in &put {
            let found = look_for(to, key, *len, there.get(key).copied()).map_err(MirrorError::of(to))?;
            lost = lost.or(found.err());
        }
        match lost {
            None if gone == 0 => break,
            Some(lost) if round + 1 == ROUNDS => return Err(MirrorError::of(to)(lost)),
            _ => *source = list(from)?,
        }
    }
    Ok(())
}

/// Returns an error if this is not a mirror of this vault.
fn require_mirror(there: &VaultFile, vault: VaultId, to: &dyn Store) -> Result<(), MirrorError> {
    if there.id == vault && there.features & MIRROR != 0 {
        return Ok(());
    }
    Err(MirrorError::Other { place: to.place(), other: Some(there.id).filter(|id| *id != vault) })
}

/// The result of copying missing objects.
#[derive(Default)]
struct Copying {
    /// The objects that were put, with their lengths.
    put: HashMap<ObjectKey, u64>,
    /// The number of objects that were deleted since they were listed.
    gone: usize,
}

/// Copies the objects of a part that are missing according to these lists.
fn copy_missing(
    from: &dyn Store,
    to: &dyn Store,
    part: Part,
    (source, there): (&HashMap<ObjectKey, u64>, &HashMap<ObjectKey, u64>),
    report: &mut MirrorReport,
    progress: &dyn Progress,
) -> Result<Copying, MirrorError> {
    let mut wanted: Vec<(ObjectKey, u64)> = Vec::new();
    for (key, len) in source.iter().filter(|(key, _)| part(key)) {
        match there.get(key) {
            Some(have) if have == len => {}
            _ => wanted.push((*key, *len)),
        }
    }
    let order_of = |key: &ObjectKey| if let ObjectKey::Named(kind, _) = key { order(*kind) } else { u8::MAX };
    wanted.sort_unstable_by_key(|(key, _)| (order_of(key), *key));
    progress.counters().restart(wanted.len() as u64, wanted.iter().map(|(_, len)| len).sum());
    progress.phase(Phase::Check);
    let threads = from.limits().reads.min(to.limits().writes).max(1);
    let rooms = Rooms::new(threads, ROOM);
    let mut copying = Copying::default();
    for group in wanted.chunks(GROUP) {
        let copied = try_share(group.len(), threads, |at| {
            if progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            let (key, len) = &group[at];
            let _room = rooms.enter(*len);
            let copied = copy(from, to, key, *len, there.contains_key(key))?;
            progress.counters().add(1, *len);
            Ok::<_, MirrorError>(copied)
        })?;
        for ((key, len), copied) in group.iter().zip(copied) {
            match copied {
                Copied::Done => {
                    report.mended += u64::from(there.contains_key(key));
                    report.copied += 1;
                    report.bytes += len;
                    copying.put.insert(*key, *len);
                }
                Copied::Gone => copying.gone += 1,
                Copied::Damaged => report.damaged.push(*key),
            }
        }
    }
    Ok(copying)
}

/// The outcome for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    Done,
    /// The object was deleted since it was listed.
    Gone,
    Damaged,
}

/// Copies an object if it is whole. `is_other`: the mirror has it with another length, and that one is moved aside.
fn copy(from: &dyn Store, to: &dyn Store, key: &ObjectKey, len: u64, is_other: bool) -> Result<Copied, MirrorError> {
    let bytes = match read_whole(from, key, len)? {
        Read::Whole(bytes) => bytes,
        Read::Gone => return Ok(Copied::Gone),
        Read::Damaged(_) => return Ok(Copied::Damaged),
    };
    // Not before: where the vault's is cut short, the mirror's may be the only whole one.
    if is_other {
        to.quarantine(key).map_err(MirrorError::of(to))?;
    }
    match to.put(key, bytes) {
        // Another machine mirrors at the same time.
        Err(StoreError::Exists { .. }) => Ok(Copied::Done),
        done => done.map(|()| Copied::Done).map_err(MirrorError::of(to)),
    }
}

/// The result of reading an object whole.
enum Read {
    /// It ends with the hash of the bytes before.
    Whole(Bytes),
    Gone,
    /// It is damaged, for this reason.
    Damaged(String),
}

/// Reads an object that was listed with this length.
fn read_whole(store: &dyn Store, key: &ObjectKey, len: u64) -> Result<Read, StoreError> {
    let ObjectKey::Named(kind, _) = key else { return Ok(Read::Gone) };
    match store.get(key, len_max(*kind)) {
        Ok(bytes) if bytes.len() as u64 != len => {
            Ok(Read::Damaged(format!("it has {} bytes, and was listed with {len}", bytes.len())))
        }
        Ok(bytes) if !is_whole(*kind, &bytes) => Ok(Read::Damaged("its hash is wrong".to_owned())),
        Ok(bytes) => Ok(Read::Whole(bytes)),
        Err(StoreError::Missing { .. }) => Ok(Read::Gone),
        Err(error @ (StoreError::Long { .. } | StoreError::Short { .. })) => Ok(Read::Damaged(error.reason())),
        Err(error) => Err(error),
    }
}

/// Deletes from a mirror the objects that the vault's records declare given up: condemned packs that the vault no
/// longer has, records contained in another one, removed key slots, and index objects that are gone. Everything else
/// stays. Returns the number of deleted objects.
///
/// # Errors
/// If `to` is no mirror of this vault, or a store fails.
pub fn delete_given_up(vault: &Vault, to: &dyn Store) -> Result<u64, MirrorError> {
    match vault_file(to).map_err(MirrorError::of(to))? {
        Some(file) => require_mirror(&file, vault.id(), to)?,
        None => return Err(MirrorError::Unknown { place: to.place() }),
    }
    let there = list(to).map_err(MirrorError::of(to))?;
    let source = list(vault.store())?;
    let chains = vault.chains();
    let condemned: HashSet<ObjectName> = chains
        .links()
        .filter_map(|link| if let RecordBody::Condemn(packs) = &link.record.body { Some(packs) } else { None })
        .flatten()
        .map(|pack| pack.name)
        .collect();
    let slots = vault.slot_set();
    let is_removed = |key: &ObjectKey| match to.get(key, KEY_SLOT_LEN_MAX) {
        Ok(bytes) => Ok(SlotFile::parse(&bytes)
            .is_ok_and(|slot| matches!(slots.standing(&slot.id(), &digest(&slot)), Standing::Removed))),
        Err(error) if error.is_of_whole() => Err(error),
        Err(_) => Ok(false),
    };
    // An object that contains others must be in the mirror before those are deleted there.
    if !source.iter().all(|(key, len)| there.get(key) == Some(len)) {
        return Ok(0);
    }
    let mut gone = Vec::new();
    for key in there.keys().filter(|key| !source.contains_key(key)) {
        let is_given_up = match key {
            ObjectKey::Named(Kind::Pack | Kind::Meta, name) => condemned.contains(name),
            ObjectKey::Named(Kind::Log, name) => chains.held(name).is_some() || chains.is_past(name),
            ObjectKey::Named(Kind::Index, _) => true,
            ObjectKey::Named(Kind::Key, _) => is_removed(key).map_err(MirrorError::of(to))?,
            ObjectKey::Vault => false,
        };
        if is_given_up {
            gone.push(*key);
        }
    }
    let mut deleted = 0;
    to.delete_many(&gone, &mut |_| deleted += 1).map_err(MirrorError::of(to))?;
    Ok(deleted)
}

/// Whether [`promote`] has anything to do: it is a mirror, or the mirror's VAULT file was moved aside, and then the
/// promotion was interrupted.
///
/// # Errors
/// If the store fails.
pub fn can_be_promoted(vault: &Vault) -> Result<bool, VaultError> {
    Ok(vault.is_mirror() || vault_file(vault.store())?.is_none())
}

/// Turns a mirror into a vault that can be written to. From then on, nothing mirrors to it. After an interruption it goes
/// on.
///
/// # Errors
/// If only a later version may write to the vault, or the store fails.
pub fn promote(vault: &Vault) -> Result<bool, VaultError> {
    if !can_be_promoted(vault)? {
        return Ok(false);
    }
    vault.knows_how_to_write()?;
    let store = vault.store();
    if !vault.is_mirror() {
        vault.mend_vault_file(&Silent::default())?;
        return Ok(true);
    }
    let file = vault_file(store)?.filter(|file| file.id == vault.id());
    let Some(file) = file else { return Ok(false) };
    store.quarantine(&ObjectKey::Vault)?;
    let file = VaultFile { features: file.features & !MIRROR, ..file };
    put_proven(store, ObjectKey::Vault, file.encode().into())?;
    Ok(true)
}
