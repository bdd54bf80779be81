//! Comparing a mirror with its vault by reading. Each object of the mirror is read whole, and must end with its own
//! hash and with that of the vault's object. No key is needed.

use std::collections::HashMap;

use crate::engine::mirror::{
    GROUP, Judge, MirrorError, ROOM, Read, TRAILER_LEN, chosen, list, read_whole, require_mirror, vault_file,
};
use crate::id::VaultId;
use crate::progress::{Phase, Progress};
use crate::store::proof::put_proven;
use crate::store::{Kind, ObjectKey, Store, StoreError};
use crate::sync::{Rooms, try_share};
use crate::vault::VaultError;
use crate::vault::locked::Wanted;

/// A fault of an object in the mirror.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The object.
    pub key: ObjectKey,
    /// A description of the fault.
    pub what: String,
    /// Whether the object was moved aside in the mirror and replaced by the vault's.
    pub is_mended: bool,
    /// Whether it is whole, but not the one that the vault has.
    pub is_whole: bool,
    /// Whether it has just not arrived whole in the mirror's place: see [`Judge`].
    pub is_late: bool,
}

/// The result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The vault.
    pub vault: Option<VaultId>,
    /// The number of the mirror's objects that were read.
    pub compared: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects of the vault that the mirror lacks.
    pub missing: Vec<ObjectKey>,
    /// Objects of the mirror that are damaged, or differ from the vault's.
    pub different: Vec<Difference>,
    /// Objects that are damaged in the vault.
    pub damaged_in_vault: Vec<ObjectKey>,
    /// Objects that have not arrived whole in the vault: see [`Judge`].
    pub late: Vec<ObjectKey>,
    /// The number of objects of the mirror that the vault no longer has.
    pub surplus: u64,
}

impl Comparison {
    /// Tells what the sync has not brought whole, to the vault or to the mirror, from what is damaged.
    ///
    /// # Errors
    /// If the vault's store as a whole is unavailable.
    pub fn judge(&mut self, judge: Judge<'_>) -> Result<(), VaultError> {
        for different in self.different.iter_mut().filter(|different| !different.is_whole) {
            different.is_late = judge.is_late_there(&different.key);
        }
        judge.part(&mut self.damaged_in_vault, &mut self.late)
    }

    /// Whether the mirror has all that the vault has, as it is there.
    pub fn is_alike(&self) -> bool {
        self.missing.is_empty() && self.different.is_empty() && self.damaged_in_vault.is_empty() && self.late.is_empty()
    }

    /// Whether anything is not whole, so that the reason for it matters.
    pub fn needs_judge(&self) -> bool {
        !self.damaged_in_vault.is_empty() || self.different.iter().any(|different| !different.is_whole)
    }
}

/// The outcome for one object.
enum Found {
    Same,
    /// The object was deleted from the vault or from the mirror.
    Gone,
    Missing,
    /// The mirror's is not whole, or not the one that the vault has, for this reason.
    Different {
        what: String,
        is_whole: bool,
        is_whole_in_vault: bool,
    },
    /// Only the mirror's is whole.
    OfVault,
}

/// Compares the mirror in `to` with the vault in `from`. Differences are only reported, unless they are to be mended.
///
/// # Errors
/// If `to` is not a mirror of this vault, if a store fails, or if the user stops it.
pub fn compare(
    from: &dyn Store,
    to: &dyn Store,
    wanted: &Wanted,
    mend: bool,
    progress: &dyn Progress,
) -> Result<Comparison, MirrorError> {
    let file = chosen(from, wanted)?;
    match vault_file(to).map_err(MirrorError::of(to))? {
        Some(there) => require_mirror(&there, file.id, to)?,
        None => return Err(MirrorError::Unknown { place: to.place() }),
    }
    let source = list(from)?;
    let there = list(to).map_err(MirrorError::of(to))?;
    let mut found = Comparison {
        vault: Some(file.id),
        surplus: there.keys().filter(|key| !source.contains_key(key)).count() as u64,
        ..Comparison::default()
    };
    let mut all: Vec<(ObjectKey, u64)> = source.into_iter().collect();
    all.sort_unstable();
    progress.counters().restart(all.len() as u64, all.iter().map(|(_, len)| len).sum());
    progress.phase(Phase::Check);
    let threads = from.limits().reads.min(to.limits().reads).max(1);
    let rooms = Rooms::new(threads, ROOM);
    for group in all.chunks(GROUP) {
        let done = try_share(group.len(), threads, |at| {
            if progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            let (key, len) = &group[at];
            let _room = rooms.enter(*len);
            let done = compare_one(from, to, &there, key, *len);
            progress.counters().add(1, *len);
            done
        })?;
        for ((key, len), done) in group.iter().zip(done) {
            if !matches!(done, Found::Gone | Found::Missing) {
                found.compared += 1;
                found.bytes += len;
            }
            match done {
                Found::Same | Found::Gone => {}
                Found::Missing => found.missing.push(*key),
                Found::OfVault => found.damaged_in_vault.push(*key),
                Found::Different { what, is_whole, is_whole_in_vault } => {
                    if !is_whole_in_vault {
                        found.damaged_in_vault.push(*key);
                    }
                    let is_mended = mend && is_whole_in_vault && put_anew(from, to, key, *len)?;
                    found.different.push(Difference { key: *key, what, is_mended, is_whole, is_late: false });
                }
            }
        }
    }
    Ok(found)
}

fn compare_one(
    from: &dyn Store,
    to: &dyn Store,
    there: &HashMap<ObjectKey, u64>,
    key: &ObjectKey,
    len: u64,
) -> Result<Found, MirrorError> {
    let Some(have) = there.get(key) else {
        // The vault may have been pruned since it was listed.
        return Ok(if has(from, key)? { Found::Missing } else { Found::Gone });
    };
    let bytes = match read_whole(to, key, *have) {
        Ok(Read::Whole(bytes)) => Ok(bytes),
        Ok(Read::Gone) => return Ok(if has(from, key)? { Found::Missing } else { Found::Gone }),
        Ok(Read::Damaged(_)) if *have != len => Err(format!("it has {have} bytes instead of {len}")),
        Ok(Read::Damaged(what)) => Err(what),
        Err(error) if !error.is_of_whole() => Err(error.reason()),
        Err(error) => return Err(MirrorError::of(to)(error)),
    };
    if let Ok(bytes) = &bytes
        && *have == len
    {
        // Slots are short, and have no hash at their end.
        let is_slot = matches!(key, ObjectKey::Named(Kind::Key, _));
        let tail = if is_slot { bytes.len() } else { TRAILER_LEN.min(bytes.len()) };
        match from.get_range(key, len - tail as u64, tail) {
            Ok(end) if end == bytes[bytes.len() - tail..] => return Ok(Found::Same),
            Err(StoreError::Missing { .. }) => return Ok(Found::Gone),
            Err(error) if error.is_of_whole() => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    let is_whole_in_vault = match read_whole(from, key, len) {
        Ok(Read::Whole(_)) => true,
        Ok(Read::Gone) => return Ok(Found::Gone),
        Err(error) if error.is_of_whole() => return Err(error.into()),
        Ok(Read::Damaged(_)) | Err(_) => false,
    };
    let is_whole = bytes.is_ok();
    Ok(match bytes.map(|_| "it is another object than the vault has".to_owned()) {
        Ok(_) if !is_whole_in_vault => Found::OfVault,
        Ok(what) | Err(what) => Found::Different { what, is_whole, is_whole_in_vault },
    })
}

fn has(store: &dyn Store, key: &ObjectKey) -> Result<bool, StoreError> {
    match store.len(key) {
        Ok(_) => Ok(true),
        Err(StoreError::Missing { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves the mirror's object aside and puts the vault's in its place, if the vault's is whole. Returns whether it is.
fn put_anew(from: &dyn Store, to: &dyn Store, key: &ObjectKey, len: u64) -> Result<bool, MirrorError> {
    let Read::Whole(bytes) = read_whole(from, key, len)? else { return Ok(false) };
    to.quarantine(key).map_err(MirrorError::of(to))?;
    put_proven(to, *key, bytes).map_err(MirrorError::of(to))?;
    Ok(true)
}
