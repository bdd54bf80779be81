//! An opened vault: a store, the keys to it, and the catalogue of its contents.
//!
//! [`create`] makes a new one · [`open`] unlocks it and brings the catalogue up to date · [`client`] the client that
//! writes, and how its records are published · [`session`] work under way · [`segments`] opened segments, which all
//! readers share · [`snapshots`] their order and their dates.

pub mod create;
pub mod locked;
pub mod open;
mod listing;
mod records;
mod files;
mod gone;
pub(crate) mod identity;
pub mod client;
pub mod session;
mod read_error;
pub mod segments;
pub mod snapshots;
pub mod twins;
pub mod slots;
pub mod finding;
pub mod findings;
mod late;
mod memory;
mod met;
pub mod notes;
pub mod state;
mod lookup;
mod kept;
mod unproven;
mod unread;
mod index;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

pub use create::CreateOptions;
pub use identity::Identity;
pub use locked::{LockedVault, Wanted};
pub use lookup::Lookup;
pub use open::OpenOptions;
pub use read_error::{Gone, ReadError};
pub use records::Lost;
pub use snapshots::SnapshotInfo;
pub use state::ObjectState;

use crate::catalogue::{Catalogue, CatalogueError};
use crate::id::{ChunkId, ObjectName, SlotId, VaultId};
use crate::limits::{PACK_LEN, PACK_LEN_GROWN, pack_len, sum_of};
use crate::log::{Acknowledgements, Chains, Finding, Format, RecordBody, RecordError, SlotSet, SweepRules};
use crate::pack::PackError;
use crate::seal::{Keyring, Keys, ObjectKind, SealError, SlotError, SlotFile};
use crate::store::{Delivery, ObjectKey, Store, StoreError};

/// Error of making, opening or writing to a vault.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is no vault in this place.
    #[error("there is no vault in {place}")]
    NoVault {
        /// The place.
        place: String,
    },
    /// There is already a vault in this place.
    #[error("there is a vault in {place} already")]
    Exists {
        /// The place.
        place: String,
    },
    /// The making of another vault in this place was interrupted.
    #[error("the making of a vault in {place} was interrupted, and that one has another password or other options")]
    Begun {
        /// The place.
        place: String,
    },
    /// Another vault is being made in this place at the same moment.
    #[error("another vault is being made in {place} at this moment, so this one was not made")]
    MadeAtOnce {
        /// The place.
        place: String,
    },
    /// No key slot opens with this password or key.
    #[error("the password is wrong for the vault in {place}")]
    WrongSecret {
        /// The place.
        place: String,
        /// Whether it looks like a recovery key with a typing mistake.
        mistyped: bool,
        /// Other vaults that share the folder, and on which it was not tried.
        others: Vec<VaultId>,
    },
    /// The vault here is not the one that this machine knows in this place.
    #[error("in {place} lies another vault than this machine knows there: {}, not {known}", listed(found))]
    OtherVault {
        /// The place.
        place: String,
        /// The vault that this machine has met here.
        known: VaultId,
        /// The vaults that are here.
        found: Vec<VaultId>,
    },
    /// The vault that was asked for is not here.
    #[error("the vault {wanted} is not in {place}: there is {}", listed(found))]
    NotThatVault {
        /// The place.
        place: String,
        /// The id that was asked for, or its start.
        wanted: String,
        /// The vaults that are here.
        found: Vec<VaultId>,
    },
    /// Several vaults have an id that begins like this.
    #[error("{start} is the start of several vaults' ids in {place}: {}", listed(found))]
    Ambiguous {
        /// The place.
        place: String,
        /// The given start.
        start: String,
        /// The vaults that are here.
        found: Vec<VaultId>,
    },
    /// The key slot that was asked for is not here.
    #[error("the vault in {place} has no key slot {slot}")]
    NoSuchSlot {
        /// The place.
        place: String,
        /// The id that was asked for, or its start.
        slot: String,
    },
    /// There are key slots, but none of them is whole.
    #[error("no key slot of the vault in {place} is readable: {what}")]
    NoSlot {
        /// The place.
        place: String,
        /// The damage of the slots.
        what: String,
    },
    /// The vault as a whole was written by a later version.
    #[error("the vault in {place} was written by a newer vault: {what}")]
    Newer {
        /// The place.
        place: String,
        /// The unknown part.
        what: String,
    },
    /// The vault was made before the format was settled.
    #[error("the vault in {place} was made by a pre-release of vault, whose format was not settled yet")]
    PreRelease {
        /// The place.
        place: String,
    },
    /// The vault has features that every writer must know, and this version does not know them.
    #[error("the vault in {place} can be read but not written: it uses features of a newer vault ({features:016x})")]
    NewerToWrite {
        /// The place.
        place: String,
        /// The unknown features.
        features: u64,
    },
    /// It is a mirror whose first run was cut off: it has no key slot yet, and gets them last.
    #[error("the mirror in {place} is not whole: it has no keys. Its first run did not end, or they were removed")]
    Unfinished {
        /// The place.
        place: String,
    },
    /// It is a mirror, which only `vault mirror` writes to.
    #[error("{place} is a mirror of a vault, which is only read")]
    Mirror {
        /// The place.
        place: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A pack could not be written or read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Sealing failed.
    #[error("cannot seal: {0}")]
    Seal(#[from] SealError),
    /// A key slot could not be made.
    #[error("cannot make a key slot: {0}")]
    Slot(#[from] SlotError),
    /// The folder for this machine's state cannot be used.
    #[error("cannot {action} {path}")]
    State {
        /// The action that failed.
        action: &'static str,
        /// The file or folder.
        path: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A part of the work ended without giving a reason.
    #[error("a part of the work ended without saying why")]
    Unexplained,
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// Ids of vaults as text.
fn listed(vaults: &[VaultId]) -> String {
    let ids: Vec<String> = vaults.iter().map(ToString::to_string).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(" and ") }
}

/// Converts an error of looking up a chunk, which is never damage.
fn read_error(error: ReadError) -> VaultError {
    match error {
        ReadError::Pack(error) => error.into(),
        ReadError::Catalogue(error) => error.into(),
        error => CatalogueError::Database(error.to_string()).into(),
    }
}

/// Losses of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotDamage {
    /// Number of its files and folders that are lost.
    pub count: u64,
    /// Their paths, and the chunks that they lack: the first ones, if there are many.
    pub files: Vec<(Vec<u8>, Vec<ChunkId>)>,
}

/// An object that could not be read when the vault was opened. Everything else stays usable.
#[derive(Debug, Clone)]
pub struct BadObject {
    /// The object.
    pub key: ObjectKey,
    /// Its state.
    pub state: ObjectState,
    /// The damage, in words.
    pub what: String,
}

/// An opened vault.
pub struct Vault {
    store: Arc<dyn Store>,
    keys: Keys,
    keyring: Keyring,
    catalogue: Catalogue,
    /// This machine's folder for this vault.
    state: PathBuf,
    identity: Identity,
    /// The slot that opened it.
    opened_by: SlotId,
    /// Whether the VAULT file was sound when it was opened.
    is_file_sound: bool,
    /// Whether it is a mirror, which is only read.
    is_mirror: bool,
    /// Its slots at the last look: each once with the number of its copies, forged ones too.
    slots: Mutex<Vec<(SlotFile, u64)>>,
    /// Other vaults that have key slots in the same store.
    others: BTreeSet<VaultId>,
    /// Another vault that the VAULT file names, without key slots here.
    named: Option<VaultId>,
    /// Damage and losses that were met by reading since the vault was opened.
    met: Mutex<met::Met>,
    /// The looks at the store that errors of reading have called for.
    looks: Mutex<gone::Looks>,
    log: Mutex<LogState>,
    /// Records that were put and not yet seen in the store.
    unproven: Mutex<Vec<unproven::Unproven>>,
    /// Whether the vault is only read, so that not all footers need to be known.
    lazy: AtomicBool,
    /// The packs whose footers the catalogue does not have.
    unread: Mutex<lookup::Unread>,
    /// Rises with each look at the store, and when the footer of a pack that was listed before becomes known.
    generation: AtomicU64,
    /// Contents of meta packs that are kept on this machine, if any are to be kept.
    kept: OnceLock<kept::KeptStore>,
    /// The size of full packs of content, if it is not to follow from the size of the vault.
    pack_len: OnceLock<usize>,
    /// Whether trees are read from the store itself.
    is_store_judged: AtomicBool,
    /// Opened segments that the readers share, as long as there are any.
    segments: Mutex<Weak<segments::SegmentCache>>,
    /// The rules that hold: all, except in simulations.
    pub(crate) rules: SweepRules,
    pub(crate) limits: client::RecordLimits,
    /// The state folder as used for telling places apart.
    pub(crate) place: String,
}

/// State of the log and of the list of packs; replaced whenever the store is listed again.
#[derive(Default)]
pub(crate) struct LogState {
    pub(crate) chains: Arc<Chains>,
    /// Objects of `log/` that were read, with their lengths at that time.
    pub(crate) read: HashMap<ObjectName, u64>,
    pub(crate) findings: Vec<Finding>,
    /// Records of the last listing, and those put since, with the lengths of their objects.
    pub(crate) records: HashMap<ObjectName, u64>,
    /// Packs of the last listing, with their lengths.
    pub(crate) packs: HashMap<ObjectName, (ObjectKind, u64)>,
    /// Index objects of the last listing, and those put since, with their lengths.
    pub(crate) indexes: HashMap<ObjectName, u64>,
    pub(crate) bad: Vec<BadObject>,
    pub(crate) foreign: Vec<String>,
    /// Objects that may be those of another vault in the same store.
    pub(crate) elsewhere: HashSet<ObjectKey>,
}

impl Vault {
    /// The vault's id.
    pub fn id(&self) -> VaultId {
        self.keys.vault()
    }

    /// The store with its objects.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The keys derived from its master key.
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The content of its key slots.
    pub const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The size of full packs of content that this machine puts.
    pub fn pack_len(&self) -> usize {
        let stored = || sum_of(self.log().packs.values().map(|(_, len)| *len));
        self.pack_len.get().copied().unwrap_or_else(|| pack_len(stored()))
    }

    /// From now on, full packs of content have this size, within the bounds that writers keep, whatever the size of the
    /// vault. Only the first call counts.
    pub fn fix_pack_len(&self, len: u64) {
        let len = usize::try_from(len).unwrap_or(usize::MAX).clamp(PACK_LEN, PACK_LEN_GROWN);
        let _ = self.pack_len.set(len); // set before
    }

    /// The local catalogue.
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// This machine's folder for this vault.
    pub fn state(&self) -> &std::path::Path {
        &self.state
    }

    /// The machine and user that work with it here.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The key slot that opened it.
    pub const fn opened_by(&self) -> SlotId {
        self.opened_by
    }

    /// Other vaults in the same store: none of their objects are read, judged or moved. They have key slots there, or
    /// the VAULT file names them and there are objects that this vault's key does not open.
    pub fn others(&self) -> BTreeSet<VaultId> {
        let mut others = self.others.clone();
        others.extend(self.named.filter(|_| !self.log().elsewhere.is_empty()));
        others
    }

    /// Whether there are signs of another vault in the same store, so that objects that cannot be opened may belong to
    /// it.
    fn may_share(&self) -> bool {
        !self.others.is_empty() || self.named.is_some()
    }

    /// Number of objects that may belong to other vaults in the same store.
    pub fn objects_of_others(&self) -> u64 {
        self.log().elsewhere.len() as u64
    }

    /// The key slots according to the records.
    pub fn slot_set(&self) -> SlotSet {
        SlotSet::new(&self.log().chains)
    }

    /// The features of all records together: a feature that was gained is never lost.
    pub fn format(&self) -> Format {
        self.log().chains.format()
    }

    /// Whether the records of one client reach the others at once, as far as any record says.
    pub fn delivery(&self) -> Delivery {
        self.delivery_by(&self.log().chains)
    }

    pub(crate) fn delivery_by(&self, chains: &Chains) -> Delivery {
        let joined_synced =
            chains.links().any(|link| matches!(&link.record.body, RecordBody::Join(join) if join.synced));
        if joined_synced || chains.format().synced { Delivery::Synced } else { self.keyring.delivery }
    }

    /// Whether this is a mirror of the vault: its objects in another place, which only `vault mirror` writes to.
    pub const fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    /// Checks that this version may write to the vault here.
    ///
    /// # Errors
    /// [`VaultError::Mirror`] or [`VaultError::NewerToWrite`] if it may not.
    pub fn may_write(&self) -> Result<(), VaultError> {
        if self.is_mirror {
            return Err(VaultError::Mirror { place: self.store.place() });
        }
        self.knows_how_to_write()
    }

    /// Checks that this version knows all features that it needs to write to the vault.
    ///
    /// # Errors
    /// [`VaultError::NewerToWrite`] if it does not.
    pub fn knows_how_to_write(&self) -> Result<(), VaultError> {
        match self.log().chains.format().unknown().write {
            0 => Ok(()),
            features => Err(VaultError::NewerToWrite { place: self.store.place(), features }),
        }
    }

    /// The acknowledgements of all clients, by the rules that hold.
    pub(crate) fn acknowledgements(&self, log: &LogState) -> Acknowledgements {
        Acknowledgements::with_rules(&log.chains, self.rules)
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, LogState> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes packs that this client has just deleted from the last listing.
    pub(crate) fn forget_packs(&self, gone: &[ObjectName]) {
        let mut log = self.log();
        for name in gone {
            log.packs.remove(name);
        }
    }

    /// All clients' records, as of the last look at the store.
    pub fn chains(&self) -> Arc<Chains> {
        Arc::clone(&self.log().chains)
    }

    /// Problems in the log.
    pub fn findings(&self) -> Vec<Finding> {
        self.log().findings.clone()
    }

    /// The packs of the last listing.
    pub fn pack_names(&self) -> Vec<ObjectName> {
        self.log().packs.keys().copied().collect()
    }

    /// Condemned packs, which writers treat as absent.
    pub fn condemned(&self) -> std::collections::HashSet<ObjectName> {
        let log = self.log();
        let mut condemned = std::collections::HashSet::new();
        for link in log.chains.links() {
            if let RecordBody::Condemn(packs) = &link.record.body {
                condemned.extend(packs.iter().map(|pack| pack.name));
            }
        }
        condemned.retain(|name| log.packs.contains_key(name));
        condemned
    }

    /// Packs that count as absent for this client's writing: those that are condemned or known to be damaged. On a
    /// store that delivers late these include packs that no record claims (others may not know the client that put
    /// them), and, until every client knows this one, all packs that it has not put itself.
    pub fn unusable(&self) -> std::collections::HashSet<ObjectName> {
        let mut unusable = self.condemned();
        unusable.extend(self.damaged_packs());
        if self.delivery() == Delivery::Synced {
            let client = self.client();
            let own: std::collections::HashSet<ObjectName> = {
                let noted = self.noted(None);
                noted.claimable.into_iter().chain(noted.under_way).collect()
            };
            let log = self.log();
            let accepted = client.is_some_and(|client| self.acknowledgements(&log).is_accepted(&client));
            let claimed = match client {
                _ if accepted => log.chains.claimed(),
                Some(client) => log.chains.claimed_by(&client),
                None => std::collections::HashSet::new(),
            };
            unusable.extend(log.packs.keys().filter(|name| !claimed.contains(*name) && !own.contains(*name)));
        }
        unusable
    }

    /// Objects that could not be read.
    pub fn bad_objects(&self) -> Vec<BadObject> {
        self.log().bad.clone()
    }

    /// Names in the store that vault did not put there.
    pub fn foreign(&self) -> Vec<String> {
        self.log().foreign.clone()
    }

    /// Losses of snapshots according to the log: for each snapshot, the latest record of any client. Files that were
    /// stored again since are still listed.
    pub fn recorded_damage(&self) -> BTreeMap<ObjectName, SnapshotDamage> {
        let log = self.log();
        let order = log.chains.order();
        let mut links: Vec<_> = log.chains.links().collect();
        links.sort_by_key(|link| order.get(&link.name).map(|dated| (dated.time, dated.position)));
        let mut found = BTreeMap::new();
        for link in links {
            let RecordBody::Damage(damage) = &link.record.body else { continue };
            for snapshot in &damage.snapshots {
                found.insert(snapshot.id, SnapshotDamage { count: snapshot.count, files: Vec::new() });
            }
            for file in &damage.lost {
                for snapshot in file.of.iter().filter_map(|index| damage.snapshots.get(usize::try_from(*index).ok()?)) {
                    if let Some(damaged) = found.get_mut(&snapshot.id) {
                        damaged.files.push((file.path.clone(), file.chunks().collect()));
                    }
                }
            }
        }
        found
    }

    /// Losses of snapshots, without files that have been stored again since. Snapshots that are whole are left out.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn damage(&self) -> Result<BTreeMap<ObjectName, SnapshotDamage>, VaultError> {
        let mut damage = self.recorded_damage();
        if damage.is_empty() {
            return Ok(damage);
        }
        let lookup = Lookup::new(self)?;
        for damaged in damage.values_mut() {
            let mut lost = Vec::new();
            for (path, ids) in std::mem::take(&mut damaged.files) {
                let mut is_there = !ids.is_empty();
                for id in &ids {
                    is_there &= lookup.locate(id).map_err(read_error)?.is_some();
                }
                if is_there {
                    damaged.count = damaged.count.saturating_sub(1);
                } else {
                    lost.push((path, ids));
                }
            }
            damaged.files = lost;
        }
        damage.retain(|_, damaged| damaged.count > 0);
        Ok(damage)
    }
}
