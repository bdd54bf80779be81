//! Opening a vault: the password, then the catalogue brought up to date with what the store lists (SPEC §3, §9.1).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use crate::catalogue::{Catalogue, CatalogueError, PackInfo, Spare};
use crate::id::{ClientId, ObjectName, VaultId};
use crate::log::{Chains, Finding, SweepRules};
use crate::pack::index::IndexReader;
use crate::progress::Progress;
use crate::seal::{HEADER_LEN, Keys, ObjectKind, Secret};
use crate::store::{Delivery, Kind, Listed, ObjectKey, Store, StoreError};
use crate::sync::{catch, lock};
use crate::vault::client::RecordLimits;
use crate::vault::files::{make_private_folder, replace_file};
use crate::vault::findings::{Note, note_lost};
use crate::vault::identity::{ClientState, Identity};
use crate::vault::listing::{Known, Listing, raise};
use crate::vault::locked::{LockedVault, Unlocked, Wanted, opened_path, unlock};
use crate::vault::lookup::Unread;
use crate::vault::records::LogLook;
use crate::vault::{BadObject, LogState, ObjectState, Vault, VaultError};

/// Options for opening a vault.
#[non_exhaustive]
pub struct OpenOptions {
    /// The folder in which this user keeps the state of all vaults.
    pub state: PathBuf,
    /// The machine and user that work with it.
    pub identity: Identity,
    /// For work that need not remember anything: where the catalogue goes on if the state folder has no more room.
    pub spare: Option<Spare>,
}

impl OpenOptions {
    /// Keeps the state of vaults in this folder, and works as this user.
    pub const fn new(state: PathBuf, identity: Identity) -> Self {
        Self { state, identity, spare: None }
    }

    /// The same with a place where the catalogue goes on.
    #[must_use]
    pub fn with_spare(self, spare: Option<Spare>) -> Self {
        Self { spare, ..self }
    }
}

/// Number of objects that a list returns in one answer.
const LISTED_AT_ONCE: usize = 1000;

/// Most looks at the store, if each lists something else and records seem to be missing.
const LOOKS_MAX: u32 = 8;

/// Unlocks a vault and brings its catalogue up to date.
///
/// # Errors
/// If there is no vault, the secret is wrong, or the store or the catalogue fails as a whole. Single damaged objects
/// are only noted.
pub fn open(
    store: Arc<dyn Store>,
    secret: &Secret,
    options: OpenOptions,
    progress: &dyn Progress,
) -> Result<Vault, VaultError> {
    open_wanted(store, secret, options, &Wanted::default(), progress)
}

/// As [`open`], if the wanted vault is known.
///
/// # Errors
/// As [`open`]; and if this place has another vault than the wanted one.
pub fn open_wanted(
    store: Arc<dyn Store>,
    secret: &Secret,
    options: OpenOptions,
    wanted: &Wanted,
    progress: &dyn Progress,
) -> Result<Vault, VaultError> {
    let locked = LockedVault::read(store.as_ref())?;
    open_locked(store, &locked, secret, options, wanted, progress)
}

/// Unlocks a vault whose public part was read already, as [`open`] does; no other vault or slot than the wanted one.
///
/// # Errors
/// As [`open_wanted`].
pub fn open_locked(
    store: Arc<dyn Store>,
    locked: &LockedVault,
    secret: &Secret,
    options: OpenOptions,
    wanted: &Wanted,
    progress: &dyn Progress,
) -> Result<Vault, VaultError> {
    open_as(store, locked, secret, options, wanted, false, progress)
}

/// As [`open_locked`], for callers that only read snapshots: footers that the catalogue does not have are found through
/// the index objects of the store, and read when they are needed. Work that has to know everything calls
/// [`Vault::know_all`] first.
///
/// # Errors
/// As [`open_wanted`].
pub fn open_locked_to_read(
    store: Arc<dyn Store>,
    locked: &LockedVault,
    secret: &Secret,
    options: OpenOptions,
    wanted: &Wanted,
    progress: &dyn Progress,
) -> Result<Vault, VaultError> {
    open_as(store, locked, secret, options, wanted, true, progress)
}

fn open_as(
    store: Arc<dyn Store>,
    locked: &LockedVault,
    secret: &Secret,
    options: OpenOptions,
    wanted: &Wanted,
    lazy: bool,
    progress: &dyn Progress,
) -> Result<Vault, VaultError> {
    let mut bad = Vec::new();
    let Unlocked { keyring, slot, slots, others, named } =
        unlock(locked, &|| store.place(), secret, &options.state, wanted, &mut bad, progress)?;
    let keys = Keys::new(&keyring.master, &keyring.writer, keyring.vault, keyring.params);
    let state = options.state.join(state_name(keyring.vault, locked.is_mirror(), store.as_ref()));
    make_private_folder(&state)?;
    // This only makes the next opening quick, so a failure is no error.
    let _ = replace_file(&opened_path(&options.state, keyring.vault), format!("{}\n", slot.id()).as_bytes(), false);
    let key = keys.derive_local("catalogue");
    let path = state.join("catalogue.redb");
    let (catalogue, fresh) = Catalogue::open_with(&path, key, options.spare.as_ref())?;
    let vault = Vault {
        store,
        keys,
        keyring,
        catalogue,
        place: state.display().to_string(),
        state,
        identity: options.identity,
        opened_by: slot.id(),
        is_file_sound: locked.is_file_sound(),
        is_mirror: locked.is_mirror(),
        slots: Mutex::new(slots),
        others,
        named,
        met: Mutex::default(),
        looks: Mutex::default(),
        log: Mutex::new(LogState::default()),
        unproven: Mutex::default(),
        lazy: AtomicBool::new(lazy),
        unread: Mutex::default(),
        generation: AtomicU64::new(0),
        kept: OnceLock::new(),
        pack_len: OnceLock::new(),
        is_store_judged: AtomicBool::new(false),
        segments: Mutex::default(),
        rules: SweepRules::default(),
        limits: RecordLimits::default(),
    };
    if fresh {
        progress.detail("the catalogue is new: it is built from the store");
    }
    let vault = caught_up(vault, &path, key, options.spare.as_ref(), progress)?;
    if vault.named.is_some_and(|named| vault.others().contains(&named)) {
        bad.retain(|object| object.key != ObjectKey::Vault);
    }
    // Whether a slot may not have arrived whole depends on the delivery, which the records tell.
    let (of_file, of_slots) = bad.into_iter().partition(|bad| bad.key == ObjectKey::Vault);
    vault.log().bad.extend::<Vec<_>>(of_file);
    vault.note_bad(of_slots)?;
    vault.remember_delivery();
    Ok(vault)
}

/// The name of the state folder of a vault.
fn state_name(id: VaultId, is_mirror: bool, store: &dyn Store) -> String {
    if !is_mirror {
        return id.to_string();
    }
    // The state of a mirror says nothing about the vault itself, nor about another mirror.
    format!("{id}.{}", &blake3::hash(store.place().as_bytes()).to_hex()[..16])
}

/// Brings the catalogue of a vault up to date. If its file turns out to be damaged, it is rebuilt.
fn caught_up(
    mut vault: Vault,
    path: &Path,
    key: [u8; 32],
    spare: Option<&Spare>,
    progress: &dyn Progress,
) -> Result<Vault, VaultError> {
    // redb may panic over damage inside its file; that only means that the catalogue must be rebuilt.
    let synced = catch(|| vault.refresh(progress))
        .unwrap_or_else(|| Err(CatalogueError::Database("redb cannot read it".to_owned()).into()));
    // What the system refuses, it refuses a new catalogue as well.
    if let Err(VaultError::Catalogue(error @ (CatalogueError::Damaged { .. } | CatalogueError::Database(_)))) = synced {
        progress.warn(&format!("the catalogue was damaged ({error}); it is rebuilt from the store"));
        drop(vault.catalogue);
        vault.unread = Mutex::default();
        vault.catalogue = Catalogue::anew(path, key, spare)?;
        vault.refresh(progress)?;
    } else {
        synced?;
    }
    Ok(vault)
}

impl Vault {
    /// Looks at the store again: reads new records and the footers of new packs, and removes packs that are gone from
    /// the catalogue.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole. A single object that cannot be read is only noted.
    pub fn refresh(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        let mut elsewhere = self.log().elsewhere.clone();
        let mut before = None;
        let mut looks = 1;
        let (known, mut listing, records, mut bad, look, findings) = loop {
            let known = self.known()?;
            let mut listing = Listing::of(self.store())?;
            let records = listing.records.clone();
            self.prove_records(Some(&records))?;
            listing.take_out(&elsewhere);
            let mut bad = Vec::new();
            let look = self.refresh_records(&known, &listing, &mut bad, progress)?;
            let mut seen = known.seen.clone();
            raise(&mut seen, look.chains.seen().into_iter());
            self.remember_seen(&seen);
            let findings = look.chains.findings(&seen);
            // A listing does not happen at one moment: one that began before a merge was put, and ended after the
            // merged objects were deleted, shows neither. Nothing is called missing before two looks have listed the
            // same.
            let is_new = |finding: &Finding| {
                matches!(finding, Finding::Missing { .. } | Finding::RolledBack { .. })
                    && !self.log().findings.contains(finding)
            };
            let is_settled = before.as_ref() == Some(&records) || looks == LOOKS_MAX;
            let is_doubtful = look.misses || findings.iter().any(is_new);
            if is_settled || !(is_doubtful || look.has_new && self.may_have_missed(&records)?) {
                break (known, listing, records, bad, look, findings);
            }
            before = Some(records);
            looks += 1;
        };
        self.note_gone(&look)?;
        let LogLook { chains, read, .. } = look;
        let features = chains.format().unknown().read;
        if features != 0 {
            let what = format!("it uses features that are unknown ({features:016x})");
            return Err(VaultError::Newer { place: self.store.place(), what });
        }
        let is_unknown = |bad: &&BadObject| matches!(bad.key, ObjectKey::Named(Kind::Log, name) if bad.state == ObjectState::Newer && !chains.has(&name));
        let findings = Finding::hidden(findings, bad.iter().filter(is_unknown).count());
        self.refresh_packs(&known, &listing, &mut bad, progress)?;
        self.set_aside(&mut bad, &mut elsewhere, &chains)?;
        listing.take_out(&elsewhere);
        let Listing { packs, indexes, foreign, .. } = listing;
        // The VAULT file and the key slots are examined only when the vault is opened: their problems stay known.
        let is_of_opening = |bad: &&BadObject| matches!(bad.key, ObjectKey::Vault | ObjectKey::Named(Kind::Key, _));
        bad.extend(self.log().bad.iter().filter(is_of_opening).cloned());
        *self.log() = LogState { chains, read, findings, records, packs, indexes, bad, foreign, elsewhere };
        self.keep_only_listed();
        self.learned();
        Ok(())
    }

    /// Whether a long listing with records that are new to this machine may have missed a merge and the objects merged
    /// in it: a second listing shows records that the first does not.
    pub(super) fn may_have_missed(&self, listed: &HashMap<ObjectName, u64>) -> Result<bool, StoreError> {
        Ok(listed.len() > LISTED_AT_ONCE && self.list_records()?.keys().any(|name| !listed.contains_key(name)))
    }

    /// This machine's knowledge before it looks at the store.
    fn known(&self) -> Result<Known, VaultError> {
        let (mut seen, _) = self.seen();
        let own = ClientState::load(&self.state).map(|state| state.remembered).unwrap_or_default();
        raise(&mut seen, own.into_iter());
        Ok(Known { catalogue: self.catalogue.reader()?, seen })
    }

    /// The highest number of each client that any command on this machine ever saw, and whether that could not be read.
    fn seen(&self) -> (BTreeMap<ClientId, u64>, bool) {
        Note::Records.load(&self.state)
    }

    /// Saves these numbers for the next look.
    fn remember_seen(&self, numbers: &BTreeMap<ClientId, u64>) {
        let (before, is_lost) = self.seen();
        if is_lost && note_lost(&self.state, Note::Records).is_err() {
            return;
        }
        let mut seen = before.clone();
        raise(&mut seen, numbers.iter().map(|(client, number)| (*client, *number)));
        if (is_lost || seen != before)
            && let Ok(bytes) = crate::msgpack::encode(&seen)
        {
            // If no state can be written, this machine has no memory, and reports only the present.
            // Durably: a file that a power cut leaves empty would count as lost.
            let _ = replace_file(&self.state.join(Note::Records.file()), &bytes, true);
        }
    }

    /// Determines the state of each object that cannot be read, and removes those that may belong to another vault, if
    /// several share the folder.
    pub(super) fn set_aside(
        &self,
        bad: &mut Vec<BadObject>,
        elsewhere: &mut HashSet<ObjectKey>,
        chains: &Chains,
    ) -> Result<(), VaultError> {
        if bad.is_empty() {
            return Ok(());
        }
        let delivery = self.delivery_by(chains);
        let may_have_others = self.may_share() || delivery == Delivery::Synced;
        let ours = if may_have_others { Some(self.named(chains)?) } else { None };
        let mut left = Vec::new();
        for mut object in std::mem::take(bad) {
            if object.state != ObjectState::Newer {
                let is_strange = match &ours {
                    Some(ours) => self.may_be_of_another(&object.key, ours)?,
                    None => false,
                };
                if is_strange && self.may_share() {
                    elsewhere.insert(object.key);
                    continue;
                }
                object.state = self.state_by(&object.key, delivery, self.is_own(&object.key, chains), is_strange)?;
                object.what = object.state.told(object.what);
            }
            left.push(object);
        }
        *bad = left;
        Ok(())
    }

    /// Objects that this vault's records or this machine's memory name, so that they belong to this vault.
    fn named(&self, chains: &Chains) -> Result<HashSet<ObjectName>, VaultError> {
        let reader = self.catalogue.reader()?;
        let mut named: HashSet<ObjectName> = reader.record_names()?.into_iter().collect();
        named.extend(reader.packs()?.into_values().map(|info| info.name));
        for link in chains.links() {
            named.insert(link.name);
            named.extend(&link.record.claims);
        }
        named.extend(chains.past().flat_map(|past| &past.records).map(|record| record.name));
        Ok(named)
    }

    /// Whether an object's header does not open with this vault's key, and nothing that this vault or this machine
    /// remembers names it. On a store that delivers late this holds for another vault's objects before its key slots
    /// arrive.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub(crate) fn is_strange(&self, key: &ObjectKey) -> Result<bool, VaultError> {
        let chains = Arc::clone(&self.log().chains);
        self.may_be_of_another(key, &self.named(&chains)?)
    }

    /// Whether an object that cannot be opened may belong to another vault that has key slots here: its header does not
    /// open with this vault's key, and nothing that this vault or this machine remembers names it.
    fn may_be_of_another(&self, key: &ObjectKey, ours: &HashSet<ObjectName>) -> Result<bool, VaultError> {
        let ObjectKey::Named(kind, name) = key else { return Ok(false) };
        let object_kind = match kind {
            Kind::Key => return Ok(true),
            // It has no header, and nothing names it.
            Kind::Index => {
                return match IndexReader::new(self.store(), &self.keys).is_of_these_keys(*name) {
                    Ok(is_ours) => Ok(!is_ours),
                    Err(error) if error.is_of_whole() => Err(error.into()),
                    Err(_) => Ok(true),
                };
            }
            Kind::Pack => ObjectKind::Pack,
            Kind::Meta => ObjectKind::Meta,
            Kind::Log => ObjectKind::Record,
        };
        if ours.contains(name) {
            return Ok(false);
        }
        match self.store().get_range(key, 0, HEADER_LEN) {
            Ok(header) => Ok(self.keys.open_object(object_kind, *name, &header).is_err()),
            Err(error) if error.is_of_whole() => Err(error.into()),
            Err(_) => Ok(true),
        }
    }

    /// Whether an object that cannot be opened may belong to another vault that has key slots here. Such an object is
    /// never called damaged, and never moved.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn is_of_another(&self, key: &ObjectKey) -> Result<bool, VaultError> {
        if !self.may_share() {
            return Ok(false);
        }
        if self.log().elsewhere.contains(key) {
            return Ok(true);
        }
        self.is_strange(key)
    }

    pub(super) fn list_records(&self) -> Result<HashMap<ObjectName, u64>, StoreError> {
        let mut records = HashMap::new();
        self.store.list(Kind::Log, &mut |listed| {
            if let Listed::Object { name, len } = listed {
                records.insert(name, len);
            }
        })?;
        Ok(records)
    }

    /// Looks at the store again as [`Self::refresh`] does, but only lists the log if that is unchanged. On a store that
    /// delivers at once, the earlier listing then still holds: a pack is deleted only after a record has condemned it.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub(crate) fn refresh_if_changed(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        if self.delivery() == Delivery::Direct && self.list_records()? == self.log().records {
            return Ok(());
        }
        self.refresh(progress)
    }

    /// Reads everything about packs and records from the store again, ignoring the catalogue.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn rebuild_catalogue(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        self.catalogue.clear()?;
        self.log().read.clear();
        self.refresh(progress)
    }

    fn refresh_packs(
        &self,
        known: &Known,
        listing: &Listing,
        bad: &mut Vec<BadObject>,
        progress: &dyn Progress,
    ) -> Result<(), VaultError> {
        let same = |info: &PackInfo| listing.packs.get(&info.name) == Some(&(info.kind, info.len));
        let now = self.catalogue.reader()?.packs()?;
        let mut gone = Vec::new();
        for (number, info) in now.iter().filter(|(_, info)| !same(info)) {
            let was_known = known.catalogue.pack(*number)?.is_some_and(|before| before.name == info.name);
            if was_known {
                gone.push(info.name);
                continue;
            }
            // It was entered since the look began, and may have been deleted since as well.
            match self.store.len(&ObjectKey::Named(info.kind.store_kind(), info.name)) {
                Ok(len) if len == info.len => {}
                Err(error) if error.is_of_whole() => return Err(error.into()),
                _ => gone.push(info.name),
            }
        }
        let kept: HashSet<ObjectName> = now.values().filter(|info| same(info)).map(|info| info.name).collect();
        let new: HashMap<_, _> =
            listing.packs.iter().filter(|(name, _)| !kept.contains(*name)).map(|(name, pack)| (*name, *pack)).collect();
        if !gone.is_empty() {
            let txn = self.catalogue.write()?;
            self.catalogue.remove_packs(&txn, &gone)?;
            txn.commit().map_err(CatalogueError::from)?;
        }
        let is_later = self.lazy.load(Relaxed) && !self.are_few(new.len());
        *lock(&self.unread) = Unread::new(new);
        if !is_later {
            bad.extend(self.read_unread(progress)?);
        }
        Ok(())
    }
}
