//! Comparing a mirror with its vault by reading. Each object of the mirror is read whole, and must end with its own
//! hash and with that of the vault's object. No key is needed.

use std::collections::HashMap;

use crate::engine::mirror::{
    GROUP, MirrorError, Read, TRAILER_LEN, chosen, list, read_whole, require_mirror, vault_file,
};
use crate::id::VaultId;
use crate::progress::{Phase, Progress};
use crate::store::proof::put_proven;
use crate::store::{Kind, ObjectKey, Store, StoreError};
use crate::sync::try_share;
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
    /// Objects that are whole in the mirror and damaged in the vault.
    pub damaged_in_vault: Vec<ObjectKey>,
    /// The number of objects of the mirror that the vault no longer has.
    pub surplus: u64,
}

/// The outcome for one object.
enum Found {
    Same,
    /// The object was deleted from the vault or from the mirror.
    Gone,
    Missing,
    Different(String),
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
    for group in all.chunks(GROUP) {
        let done = try_share(group.len(), threads, |at| {
            if progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            let (key, len) = &group[at];
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
                Found::Different(what) => {
                    let is_mended = mend && put_anew(from, to, key, *len)?;
                    found.different.push(Difference { key: *key, what, is_mended });
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
    if *have != len {
        return Ok(Found::Different(format!("it has {have} bytes instead of {len}")));
    }
    let bytes = match read_whole(to, key, len) {
        Ok(Read::Whole(bytes)) => bytes,
        Ok(Read::Gone) => return Ok(if has(from, key)? { Found::Missing } else { Found::Gone }),
        Ok(Read::Damaged(what)) => return Ok(Found::Different(what)),
        Err(error) if !error.is_of_whole() => return Ok(Found::Different(error.reason())),
        Err(error) => return Err(MirrorError::of(to)(error)),
    };
    // Slots are short, and have no hash at their end.
    let tail = if matches!(key, ObjectKey::Named(Kind::Key, _)) { bytes.len() } else { TRAILER_LEN.min(bytes.len()) };
    match from.get_range(key, len - tail as u64, tail) {
        Ok(end) if end == bytes[bytes.len() - tail..] => Ok(Found::Same),
        Err(StoreError::Missing { .. }) => Ok(Found::Gone),
        Err(error) if error.is_of_whole() => Err(error.into()),
        Ok(_) | Err(_) => match read_whole(from, key, len) {
            Ok(Read::Whole(_)) => Ok(Found::Different("it is another object than the vault has".to_owned())),
            Ok(Read::Gone) => Ok(Found::Gone),
            Err(error) if error.is_of_whole() => Err(error.into()),
            Ok(Read::Damaged(_)) | Err(_) => Ok(Found::OfVault),
        },
    }
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
