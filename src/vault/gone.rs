//! Reading while others work: another machine may drop or change a snapshot that is being read here, and delete
//! what only that one needed, or move data into other packs. So before an error of reading is called a loss, the store
//! is looked at once more.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

use crate::catalogue::CatalogueError;
use crate::id::ObjectName;
use crate::log::RecordBody;
use crate::pack::PackError;
use crate::progress::{Progress, Silent};
use crate::store::{StoreError, Subject};
use crate::sync::{NoThread, apart, lock};
use crate::tree::Stream;
use crate::vault::read_error::{Gone, ReadError};
use crate::vault::{SnapshotInfo, Vault, VaultError};

/// The reason for a look at the store. One look is enough for each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Doubt {
    /// This is gone.
    Missing(Subject),
    /// Something cannot be read, by all that was known at this generation.
    Unread(u64),
}

/// The looks at the store that errors of reading have called for. The lock is held during such a look: other threads,
/// which mostly met the same, wait for its result.
#[derive(Debug, Default)]
pub(super) struct Looks {
    done: HashSet<Doubt>,
    /// The fates of snapshots, as known at this generation.
    fates: (u64, HashMap<ObjectName, Option<Gone>>),
}

impl Vault {
    /// Looks at the store again, as [`Self::refresh`] does, unless that was done because of the same before. `error`: what
    /// could not be read; `None` if it has no place. Data that another machine has moved has its new place then.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub(crate) fn look_again(&self, error: Option<&ReadError>) -> Result<(), VaultError> {
        self.look_with(&mut lock(&self.looks), error)
    }

    /// Forgets which looks were done: the next error of reading calls for one again. For readers that last, so that what
    /// a store did not show for a moment is not lost for good.
    pub(crate) fn forget_looks(&self) {
        lock(&self.looks).done.clear();
    }

    fn look_with(&self, looks: &mut Looks, error: Option<&ReadError>) -> Result<(), VaultError> {
        let doubt = match error {
            // It is there, and wrong: that says nothing about what others did.
            Some(error) if !error.is_damage() || error.object().is_some() => return Ok(()),
            Some(ReadError::Pack(PackError::Store(StoreError::Missing { object, .. }))) => {
                Doubt::Missing(object.clone())
            }
            _ => Doubt::Unread(self.generation.load(Relaxed)),
        };
        if looks.done.contains(&doubt) {
            return Ok(());
        }
        let refreshed = apart(|| self.refresh(&Silent::default()));
        refreshed.map_err(|NoThread| CatalogueError::Database("cannot start threads".to_owned()))??;
        looks.done.extend([doubt, Doubt::Unread(self.generation.load(Relaxed))]);
        Ok(())
    }

    /// Splits snapshots that something which cannot be read belongs to: those that are gone by now, and the others.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub(crate) fn part_gone(
        &self,
        error: Option<&ReadError>,
        snapshots: impl IntoIterator<Item = ObjectName>,
    ) -> Result<(Vec<Gone>, Vec<ObjectName>), VaultError> {
        let mut looks = lock(&self.looks);
        self.look_with(&mut looks, error)?;
        let generation = self.generation.load(Relaxed);
        if looks.fates.0 != generation {
            looks.fates = (generation, HashMap::new());
        }
        let (mut gone, mut left) = (Vec::new(), Vec::new());
        for id in snapshots {
            match looks.fates.1.entry(id).or_insert_with(|| self.fate_of(&id)) {
                Some(one) => gone.push(*one),
                None => left.push(id),
            }
        }
        Ok((gone, left))
    }

    /// Looks at the store again, after work over these snapshots met something that is lacking. Returns whether they, or the
    /// packs, are others than they were, so that the work is done again. Tells of snapshots that are gone.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub(crate) fn changed_meanwhile(
        &self,
        snapshots: &[SnapshotInfo],
        progress: &dyn Progress,
    ) -> Result<bool, VaultError> {
        let packs = || self.pack_names().into_iter().collect::<HashSet<ObjectName>>();
        let before = packs();
        let (gone, _) = self.part_gone(None, snapshots.iter().map(|info| info.id))?;
        gone.iter().for_each(|gone| progress.warn(&gone.left_out()));
        Ok(!gone.is_empty() || packs() != before)
    }

    /// The fate of a snapshot, by the log as it is known; `None` if it is as it was.
    fn fate_of(&self, id: &ObjectName) -> Option<Gone> {
        let chains = self.chains();
        if let Some(now) = self.snapshot(id) {
            let is_it = |tree: &Stream| *tree == now.body.tree;
            let was = chains.links().find(|link| link.name == *id);
            let is_same = was.is_none_or(|link| match &link.record.body {
                RecordBody::Snapshot(body) => is_it(&body.tree),
                _ => true,
            });
            return (now.id != *id && !is_same).then_some(Gone::Changed { was: *id, now: now.id });
        }
        // A record that is only missing says nothing of the kind.
        let names = |body: &RecordBody| matches!(body, RecordBody::Forget(names) if names.contains(id));
        let is_dropped = chains.is_past(id) || chains.links().any(|link| names(&link.record.body));
        is_dropped.then_some(Gone::Dropped(*id))
    }
}
