//! Memory of all that has not arrived on this machine yet, as the last check found it, and the look whether it is here now.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::{ChunkId, ObjectName};
use crate::log::record::ObjectRef;
use crate::store::{Delivery, Kind, ObjectKey};
use crate::tree::Time;
use crate::vault::files::replace_file;
use crate::vault::finding::{About, FindingId, KnownFinding};
use crate::vault::lookup::Lookup;
use crate::vault::{ObjectState, Vault, VaultError, read_error};

/// The file of the state folder that says that things may arrive late in this vault, for those who do not open it.
const SYNCED: &str = "synced";

/// Whether things are known to arrive late in the vault of this state folder.
pub fn is_known_synced(folder: &Path) -> bool {
    folder.join(SYNCED).is_file()
}

impl Vault {
    /// Remembers that things may arrive late here. Where no state can be written, nothing is remembered.
    pub(super) fn remember_delivery(&self) {
        if self.delivery() == Delivery::Synced && !is_known_synced(self.state()) {
            let _ = replace_file(&self.state().join(SYNCED), &[], false);
        }
    }
}

/// Most lost chunks of a file that are named: the first ones, if it lacks more.
pub const CHUNKS_NAMED: usize = 64;

/// Files that a snapshot lacks because some of their chunks are in no pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// The snapshot.
    pub snapshot: ObjectName,
    /// Number of files, and of folders with everything in them.
    pub count: u64,
    /// Some of the paths, each with some of its chunks: none, if it is damaged although its chunks are there.
    pub files: Vec<(ByteBuf, Vec<ChunkId>)>,
}

impl Lacking {
    /// Whether all of these files have been stored again, as far as is known. If only some of the files are named, only a
    /// check can tell.
    ///
    /// # Errors
    /// Those of `is_there`.
    pub(super) fn is_stored_again(
        &self,
        mut is_there: impl FnMut(&ChunkId) -> Result<bool, VaultError>,
    ) -> Result<bool, VaultError> {
        let mut is_whole = self.count <= self.files.len() as u64;
        for (_, chunks) in &self.files {
            is_whole &= !chunks.is_empty();
            for chunk in chunks {
                is_whole = is_whole && is_there(chunk)?;
            }
        }
        Ok(is_whole)
    }
}

/// Everything that has not arrived on this machine yet, as a check found it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The snapshots that wait for it.
    #[serde(default)]
    pub snapshots: Vec<Lacking>,
    /// Some of the chunks of all their files, for snapshots with more files than are named.
    #[serde(default)]
    pub chunks: Vec<ChunkId>,
    /// Objects of which only a part has arrived.
    #[serde(default)]
    pub objects: Vec<ObjectRef>,
}

impl Awaited {
    /// These, of a check that may have read less than an earlier one, with what that one found by reading.
    pub(super) fn beside(mut self, earlier: Self) -> Self {
        self.objects.extend(earlier.objects);
        self.objects.sort_unstable();
        self.objects.dedup();
        if self.objects.is_empty() {
            return self;
        }
        let found: BTreeSet<ObjectName> = self.snapshots.iter().map(|waiting| waiting.snapshot).collect();
        let others = earlier.snapshots.into_iter().filter(|waiting| !found.contains(&waiting.snapshot));
        self.snapshots.extend(others.filter(|waiting| waiting.files.iter().any(|(_, chunks)| !chunks.is_empty())));
        if self.chunks.is_empty() {
            self.chunks = earlier.chunks;
        }
        self
    }

    /// Forgets what is here now.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub(super) fn see_arrivals(&mut self, vault: &Vault) -> Result<(), VaultError> {
        // To see whether an object is here as it was put, all of it is read. One that is not is enough to know that
        // something has not arrived. So a command reads at most one such object, and each of the others is read once.
        let mut is_any_late = false;
        self.objects.retain(|object| {
            let Some(key) = object.key().filter(|key| is_listed(vault, key)) else { return false };
            is_any_late = is_any_late || vault.state_of(&key).is_ok_and(|state| state == ObjectState::NotArrived);
            is_any_late
        });
        if self.snapshots.is_empty() {
            return Ok(());
        }
        let late: HashSet<ObjectName> = self.objects.iter().map(|object| object.name).collect();
        let lookup = Lookup::new(vault)?;
        let is_sample_here = are_here(&lookup, &late, &self.chunks)?;
        for waiting in std::mem::take(&mut self.snapshots) {
            // Without a chunk to look for, only a check can tell.
            let (mut is_here, mut chunks) = (true, 0);
            for (_, ids) in &waiting.files {
                chunks += ids.len();
                is_here = is_here && are_here(&lookup, &late, ids)?;
            }
            let is_named = waiting.count <= waiting.files.len() as u64;
            if !(is_here && chunks > 0 && (is_named || is_sample_here)) {
                self.snapshots.push(waiting);
            }
        }
        Ok(())
    }

    /// The findings about snapshots that wait.
    pub(super) fn findings(&self, there: &BTreeSet<ObjectName>) -> Vec<KnownFinding> {
        let waiting = self.snapshots.iter().filter(|waiting| there.contains(&waiting.snapshot));
        let finding = |waiting: &Lacking| KnownFinding {
            id: FindingId::of("late", [waiting.snapshot.as_bytes().to_vec()]),
            about: About::Late { snapshot: waiting.snapshot, count: waiting.count },
            since: Time::default(),
            snapshots: 0,
            files: 0,
        };
        waiting.map(finding).collect()
    }
}

/// Whether the last listing of the store has this object.
fn is_listed(vault: &Vault, key: &ObjectKey) -> bool {
    let log = vault.log();
    match key {
        ObjectKey::Named(Kind::Log, name) => log.records.contains_key(name),
        ObjectKey::Named(Kind::Pack | Kind::Meta, name) => log.packs.contains_key(name),
        ObjectKey::Named(Kind::Index, name) => log.indexes.contains_key(name),
        // Problems of these are seen whenever the vault is opened.
        ObjectKey::Named(Kind::Key, _) | ObjectKey::Vault => false,
    }
}

/// Whether each of these chunks is in a pack of which all has arrived.
fn are_here(lookup: &Lookup<'_>, late: &HashSet<ObjectName>, chunks: &[ChunkId]) -> Result<bool, VaultError> {
    for chunk in chunks {
        let mut place = lookup.next_place(chunk, None).map_err(read_error)?;
        while let Some(here) = place {
            if lookup.pack(here.pack)?.is_some_and(|info| !late.contains(&info.name)) {
                break;
            }
            place = lookup.next_place(chunk, Some(here)).map_err(read_error)?;
        }
        if place.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
