//! The state of a snapshot before somebody changed it. On a synced store, the record of a change may arrive before all the data that the
//! changed snapshot needs.

use std::sync::Arc;

use crate::id::ObjectName;
use crate::progress::Progress;
use crate::read::mark::{MarkError, mark};
use crate::store::Delivery;
use crate::tree::Snapshot;
use crate::vault::{SnapshotInfo, Vault};

/// The snapshot of this id as it was before `info` replaced it, if everything it needs is here and something that `info` needs is not.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it.
pub fn as_it_was(
    vault: &Vault,
    info: &SnapshotInfo,
    id: &ObjectName,
    progress: &dyn Progress,
) -> Result<Option<SnapshotInfo>, MarkError> {
    if vault.delivery() == Delivery::Direct {
        return Ok(None);
    }
    let Some(before) = vault.snapshot_before(info, id) else { return Ok(None) };
    vault.know_all(progress)?;
    let reader = Arc::new(vault.catalogue().reader()?);
    let is_here = |body: &Snapshot| -> Result<bool, MarkError> {
        let marks = mark(vault, &reader, [body], progress)?;
        Ok(marks.lost.is_empty() && marks.unknown().is_none())
    };
    let is_late = !is_here(&info.body)? && is_here(&before.body)?;
    Ok(Some(before).filter(|_| is_late))
}
