//! Damage and losses that commands meet while they read. They are remembered at once (SPEC §8.8): no check has to find
//! them first.

use std::collections::BTreeSet;

use serde_bytes::ByteBuf;

use crate::id::{ChunkId, ObjectName};
use crate::log::record::{FoundDamage, ObjectRef};
use crate::pack::Witness;
use crate::store::ObjectKey;
use crate::sync::lock;
use crate::vault::late::Lacking;
use crate::vault::lookup::Lookup;
use crate::vault::memory::{Memory, is_known};
use crate::vault::{ObjectState, ReadError, Vault, VaultError, read_error};

/// Everything of this kind that was met since the vault was opened. Each is looked at once. The lock is held to the end
/// of a note: otherwise a note that another thread makes meanwhile would be lost.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// Objects that are damaged, or have arrived in part.
    objects: BTreeSet<ObjectRef>,
    /// Snapshots, each with a chunk of theirs that is in no pack; without one, something else of theirs cannot be read.
    losses: BTreeSet<(ObjectName, Option<ChunkId>)>,
}

/// Most objects, and most losses, that one opening looks at: a check finds the others.
const MET_MAX: usize = 1000;

/// Whether this is new, and not too much.
fn is_new<T: Ord>(met: &mut BTreeSet<T>, one: T) -> bool {
    met.len() < MET_MAX && met.insert(one)
}

impl Vault {
    /// The error of reading something that these snapshots need, given whether it may just not have arrived yet. It is
    /// [`ReadError::Gone`] if all of them are gone by now, and then nothing is amiss. Otherwise it is remembered. What
    /// cannot be remembered is still reported by the command that met it. A damaged object is remembered when it is
    /// read.
    pub(crate) fn verdict(
        &self,
        error: ReadError,
        is_late: bool,
        snapshots: impl IntoIterator<Item = ObjectName>,
    ) -> ReadError {
        let snapshots: Vec<ObjectName> = snapshots.into_iter().collect();
        // Work for no snapshot in particular may delete, and decides by one look at the log.
        if error.is_damage() && !snapshots.is_empty() {
            let left = match self.part_gone(Some(&error), snapshots.iter().copied()) {
                Ok((gone, left)) => match gone.first() {
                    Some(gone) if left.is_empty() => return (*gone).into(),
                    _ => left,
                },
                // A store that cannot be asked says nothing about them.
                Err(_) => snapshots,
            };
            let chunk = match &error {
                ReadError::Lost(chunk) => Some(*chunk),
                _ => None,
            };
            for snapshot in left {
                let _ = match (error.object(), chunk) {
                    (Some(object), _) if is_late => self.note_late_object(object),
                    (None, Some(chunk)) if is_late => self.note_late(snapshot, chunk),
                    (None, chunk) if !is_late => self.note_loss(snapshot, chunk),
                    _ => Ok(()),
                };
            }
        }
        if is_late { ReadError::NotArrived } else { error }
    }

    /// Notes that a command met a loss in a snapshot: this chunk is in no pack, or something else cannot be read. Only a
    /// check finds out what else is lost. A loss that is known already is not noted, accepted or not.
    ///
    /// # Errors
    /// If the store, the catalogue or the state folder fails.
    pub(crate) fn note_loss(&self, snapshot: ObjectName, chunk: Option<ChunkId>) -> Result<(), VaultError> {
        let mut met = lock(&self.met);
        if !is_new(&mut met.losses, (snapshot, chunk)) {
            return Ok(());
        }
        let memory = Memory::load(self.state());
        let known = self.damage_with(&memory)?.remove(&snapshot).unwrap_or_default();
        if memory.suspects.contains(&snapshot) || is_known(&known, chunk.as_ref()) || !self.lacks(&snapshot, chunk)? {
            return Ok(());
        }
        // A prune may have moved what was read, or deleted it with a snapshot that was forgotten meanwhile.
        self.look_again(None)?;
        if !self.lacks(&snapshot, chunk)? {
            return Ok(());
        }
        let mut memory = Memory::load(self.state());
        memory.suspect(snapshot);
        memory.save(self.state())
    }

    /// Whether a snapshot is there, as far as is known, and lacks this chunk, if it is one.
    fn lacks(&self, snapshot: &ObjectName, chunk: Option<ChunkId>) -> Result<bool, VaultError> {
        let place = chunk.map(|chunk| Lookup::new(self)?.locate(&chunk).map_err(read_error)).transpose()?;
        Ok(place.flatten().is_none() && self.snapshot(snapshot).is_some())
    }

    /// Notes that a snapshot waits for this chunk, which the sync will bring.
    fn note_late(&self, snapshot: ObjectName, chunk: ChunkId) -> Result<(), VaultError> {
        let mut met = lock(&self.met);
        if !is_new(&mut met.losses, (snapshot, Some(chunk))) {
            return Ok(());
        }
        let mut memory = Memory::load(self.state());
        memory.await_files(Lacking { snapshot, count: 1, files: vec![(ByteBuf::new(), vec![chunk])] });
        memory.save(self.state())
    }

    /// Notes an object of which only a part has arrived.
    fn note_late_object(&self, key: &ObjectKey) -> Result<(), VaultError> {
        let mut met = lock(&self.met);
        let Some(object) = ObjectRef::of(key).filter(|object| is_new(&mut met.objects, *object)) else {
            return Ok(());
        };
        let mut memory = Memory::load(self.state());
        if memory.awaited.objects.contains(&object) {
            return Ok(());
        }
        memory.awaited.objects.push(object);
        memory.save(self.state())
    }

    /// Notes a pack that turned out to be damaged when it was read.
    fn note_damaged(&self, pack: &ObjectKey, what: &str) -> Result<(), VaultError> {
        let mut met = lock(&self.met);
        let Some(object) = ObjectRef::of(pack).filter(|object| is_new(&mut met.objects, *object)) else {
            return Ok(());
        };
        if self.state_of(pack)? != ObjectState::Damaged {
            return Ok(());
        }
        let damage = FoundDamage { object, what: what.to_owned(), snapshots: 0, files: 0 };
        self.note_findings(vec![damage], &[])
    }
}

impl Witness for Vault {
    fn saw_damage(&self, pack: &ObjectKey, what: &str) {
        self.forget_kept(pack);
        // The reader reports the damage itself. If it cannot be remembered either, nothing more can be done here.
        let _ = self.note_damaged(pack, what);
    }
}
