//! Changes without effect. Some were made while another machine changed the same snapshot: the next change takes them
//! over. Others are in doubt (SPEC §8.3): their clients were retired by a client that had not seen them, so a prune may not
//! have waited for them. Their data may be gone. Or all of it is there, and they were reported. The log alone does
//! not tell, so a client that changes the snapshot again, or deletes anything, looks first.

use std::collections::HashSet;
use std::sync::Arc;

use crate::catalogue::{ChunkPlace, Reader};
use crate::engine::rewrite::{
    Change, Goal, Planned, RewriteError, RewriteOptions, RewritePlan, Unread, Why, part_late, put_all,
};
use crate::id::ObjectName;
use crate::progress::Progress;
use crate::read::mark::{Marks, mark};
use crate::store::Delivery;
use crate::vault::snapshots::VoidChange;
use crate::vault::{SnapshotInfo, Vault, VaultError};

/// Settles the changes in doubt that nobody has looked at since (SPEC §8.3): a change whose data is complete takes
/// effect now, and any other never does. Returns the snapshots that others were put in the place of.
///
/// # Errors
/// If the store or the catalogue fails, or the user stops it. A change that is not settled stays as it is, with all
/// of its data.
pub fn settle(
    vault: &Vault,
    options: &RewriteOptions<'_>,
    progress: &dyn Progress,
) -> Result<Vec<ObjectName>, RewriteError> {
    let doubted = vault.doubted();
    if doubted.is_empty() {
        return Ok(Vec::new());
    }
    let mut snapshots = vault.snapshots();
    snapshots.retain(|info| doubted.iter().any(|(_, of)| *of == info.id));
    match put_all(vault, &snapshots, &Change::default(), options, progress) {
        Ok(report) => Ok(report.replaced.into_iter().map(|(old, _)| old).collect()),
        Err(RewriteError::GivenUp | RewriteError::Unsettled) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl RewritePlan {
    /// Leaves out snapshots whose writers a prune may not have waited for, if any of their data is gone. Their writer
    /// looks at them again, and they may be forgotten. A snapshot put in their place would stay.
    pub(super) fn leave_unawaited(&mut self, vault: &Vault, progress: &dyn Progress) -> Result<(), RewriteError> {
        let unawaited = vault.chains().put_unawaited();
        let mut broken = HashSet::new();
        for Planned { info, .. } in self.changes.iter().filter(|planned| unawaited.contains(&planned.info.id)) {
            if !is_whole(vault, info, progress)? {
                broken.insert(info.id);
            }
        }
        let given_up = |info| {
            let what =
                "the machine that put it had been retired, and what it needs is gone or being given up".to_owned();
            (info, Unread { path: Vec::new(), why: Why::Damaged, what })
        };
        let left = self.changes.extract_if(.., |planned| broken.contains(&planned.info.id));
        let mut left: Vec<_> = left.map(|planned| given_up(planned.info)).collect();
        part_late(vault, &mut left);
        self.unread.append(&mut left);
        Ok(())
    }
}

impl Goal {
    /// Handles changes without effect that others have meant for the snapshot. They were reported, so the next change
    /// takes them over, if all of their data is there. Of a change in doubt, that is not known: if some of its data is
    /// gone, it was not reported. Then the snapshot that stands there is put once more, and replaces the change as
    /// well, which records that somebody has looked. Returns `false` if it cannot be known now whether a change in
    /// doubt counts.
    pub(super) fn meet_void(
        &mut self,
        vault: &Vault,
        there: &[SnapshotInfo],
        void: &[VoidChange],
        progress: &dyn Progress,
    ) -> Result<bool, RewriteError> {
        let Some(stands) = there.iter().find(|info| info.stands_for(&self.id)) else { return Ok(true) };
        if self.stands.is_some() || self.own.contains(&stands.id) {
            return Ok(true);
        }
        let mut lost = Vec::new();
        let meant = void.iter().rev().filter(|void| void.snapshot == stands.id);
        for VoidChange { change, made_of, is_doubted, .. } in meant {
            if self.own.contains(&change.id) {
                continue;
            }
            // Without the snapshot that was changed, it is not known what the change was. It stays known that it has no
            // effect.
            let Some(made_of) = made_of else { continue };
            match soundness(vault, change, progress)? {
                Soundness::Whole => {
                    self.origin = made_of.clone();
                    self.take_over(stands.id, change.clone());
                    self.stands = Some(stands.clone());
                    break;
                }
                Soundness::Unknown if *is_doubted => return Ok(false),
                Soundness::Lost if *is_doubted => lost.push(change.id),
                // Nobody has kept its data, since another change counts.
                Soundness::Unknown | Soundness::Lost => {}
            }
        }
        if self.stands.is_none() && !lost.is_empty() && soundness(vault, stands, progress)? == Soundness::Whole {
            self.forced = true;
        }
        if self.forced {
            lost.retain(|name| !self.names.contains(name));
            self.rivals.extend(&lost);
            self.names.extend(lost);
        }
        Ok(true)
    }
}

/// Whether all data of a snapshot is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Soundness {
    /// All of it is, and none is being given up.
    Whole,
    /// Some data is gone.
    Lost,
    /// Some data is being given up, has not arrived, or cannot be read now.
    Unknown,
}

fn soundness(vault: &Vault, info: &SnapshotInfo, progress: &dyn Progress) -> Result<Soundness, RewriteError> {
    let reader = Arc::new(vault.catalogue().reader().map_err(VaultError::from)?);
    let marks = mark(vault, &reader, [&info.body], progress)?;
    Ok(if !marks.lost.is_empty() && vault.delivery() == Delivery::Direct {
        Soundness::Lost
    } else if marks.unknown().is_some() || !marks.lost.is_empty() || is_given_up(vault, &reader, &marks)? {
        Soundness::Unknown
    } else {
        Soundness::Whole
    })
}

/// Whether all data of a snapshot is in the store, and none of it is being given up.
pub(super) fn is_whole(vault: &Vault, info: &SnapshotInfo, progress: &dyn Progress) -> Result<bool, RewriteError> {
    Ok(soundness(vault, info, progress)? == Soundness::Whole)
}

/// Packs that may be deleted whatever this client needs: condemned packs, and on a synced store all packs of other
/// clients, until all of those know this client. Damage of a pack changes nothing here.
pub(super) fn unreliable(vault: &Vault) -> HashSet<ObjectName> {
    let (damaged, condemned) = (vault.damaged_packs(), vault.condemned());
    vault.unusable().into_iter().filter(|pack| condemned.contains(pack) || !damaged.contains(pack)).collect()
}

/// Whether any needed chunk is only in such packs.
pub(super) fn is_given_up(vault: &Vault, reader: &Arc<Reader>, marks: &Marks) -> Result<bool, RewriteError> {
    let condemned = unreliable(vault);
    let packs = reader.packs().map_err(VaultError::from)?;
    let is_left: HashSet<u32> =
        packs.iter().filter(|(_, info)| !condemned.contains(&info.name)).map(|(number, _)| *number).collect();
    let mut is_given_up = false;
    let look = |rank: usize, _, places: &[ChunkPlace]| {
        is_given_up |= marks.bits.get(rank) && !places.iter().any(|place| is_left.contains(&place.pack));
        !is_given_up
    };
    reader.for_each_place(look).map_err(VaultError::from)?;
    Ok(is_given_up)
}
