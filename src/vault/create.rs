//! Making a vault (SPEC §3, §4).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::chunk::ChunkParams;
use crate::id::{ObjectName, SlotId, VaultId};
use crate::limits::VAULT_FILE_LEN_MAX;
use crate::log::Format;
use crate::progress::Progress;
use crate::seal::{
    KdfParams, Keyring, Keys, MasterKey, Purpose, Secret, SlotFile, VaultFile, VaultFileError, WriterKey, random,
};
use crate::store::proof::{Given, prove, put_proven};
use crate::store::{Delivery, Kind, Listed, ObjectKey, Store, StoreError};
use crate::vault::locked::Slots;
use crate::vault::{Vault, VaultError};

/// Options for making a vault.
#[non_exhaustive]
pub struct CreateOptions {
    /// Opens the first key slot.
    pub secret: Secret,
    /// A name for that slot.
    pub label: String,
    /// Cost of guessing the password.
    pub kdf: KdfParams,
    /// Sizes of chunks.
    pub params: ChunkParams,
    /// Whether the store delivers at once or late.
    pub delivery: Delivery,
    /// Seconds since 1970.
    pub now: u64,
    /// Secret of a recovery key: a second slot that opens with it.
    pub recovery: Option<Secret>,
}

impl CreateOptions {
    /// A vault that opens with this secret, in a store that delivers at once. `now` is in seconds since 1970.
    pub fn new(secret: Secret, now: u64) -> Self {
        Self {
            secret,
            label: String::new(),
            kdf: KdfParams::Standard,
            params: ChunkParams::default(),
            delivery: Delivery::Direct,
            now,
            recovery: None,
        }
    }
}

impl Vault {
    /// As [`Self::mend_vault_file`], but only if the file was found bad when the vault was opened.
    ///
    /// # Errors
    /// If the store fails.
    pub fn mend_vault_file_if_found_bad(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        if self.is_file_sound { self.may_write() } else { self.mend_vault_file(progress) }
    }

    /// Puts the VAULT file again if it is missing or damaged: everything in it is known. A damaged one is moved aside.
    ///
    /// # Errors
    /// If the store fails.
    pub fn mend_vault_file(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        self.may_write()?;
        let what = match self.store().get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX) {
            Err(StoreError::Missing { .. }) => "missing",
            Err(error) if error.is_of_whole() => return Err(error.into()),
            Err(StoreError::Io { .. } | StoreError::Short { .. } | StoreError::Long { .. }) => {
                // A pipe, a link, a folder, or a file that is far too long.
                self.store().quarantine(&ObjectKey::Vault)?;
                "no file that can be read"
            }
            Err(error) => return Err(error.into()),
            Ok(bytes) => match VaultFile::parse(&bytes) {
                Err(VaultFileError::Damaged(_) | VaultFileError::NotAVault) => {
                    self.store().quarantine(&ObjectKey::Vault)?;
                    "damaged"
                }
                Ok(_) | Err(VaultFileError::Newer { .. }) => return Ok(()),
            },
        };
        let file = VaultFile { id: self.id(), features: features(self.keyring(), &self.format()) };
        match put_proven(self.store(), ObjectKey::Vault, file.encode().into()) {
            Err(StoreError::Exists { .. }) => {
                progress.warn("something else has the name VAULT in the vault's folder: please move it away");
                return Ok(());
            }
            put => put?,
        }
        self.log().bad.retain(|bad| bad.key != ObjectKey::Vault);
        progress.warn(&format!("the VAULT file was {what}; it has been made again"));
        Ok(())
    }
}

/// Flags of the VAULT file: the features that every reader must know, according to the keyring and all records.
const fn features(keyring: &Keyring, format: &Format) -> u64 {
    keyring.features | format.read
}

/// Both copies of a key slot, under new names.
fn copies(slot: &SlotFile) -> Result<[Given; 2], VaultError> {
    let copy = |name| Given { key: ObjectKey::Named(Kind::Key, name), bytes: Bytes::copy_from_slice(slot.as_bytes()) };
    Ok([copy(crate::seal::random_name()?), copy(crate::seal::random_name()?)])
}

fn names(put: &[Given]) -> Vec<ObjectName> {
    put.iter().filter_map(|given| if let ObjectKey::Named(_, name) = given.key { Some(name) } else { None }).collect()
}

/// Sees to it that the store has these copies of key slots. Returns the names of all copies that it lists, of whatever slot.
fn prove_copies(store: &dyn Store, put: &[Given]) -> Result<HashMap<ObjectName, u64>, StoreError> {
    let mut listed = HashMap::new();
    store.list(Kind::Key, &mut |entry| {
        if let Listed::Object { name, len } = entry {
            listed.insert(name, len);
        }
    })?;
    for given in put {
        let len = if let ObjectKey::Named(_, name) = &given.key { listed.get(name).copied() } else { None };
        prove(store, given, len)?;
    }
    Ok(listed)
}

/// Puts both copies of a key slot, and looks for them; returns their names. If that fails, neither stays, as far as the store lets it.
pub(crate) fn put_slot(store: &dyn Store, slot: &SlotFile) -> Result<Vec<ObjectName>, VaultError> {
    let put = copies(slot)?;
    let done = put.iter().try_for_each(|given| store.put(&given.key, given.bytes.clone()));
    let done = done.and_then(|()| prove_copies(store, &put).map(drop));
    done.inspect_err(|_| take_back(store, &names(&put)))?;
    Ok(names(&put))
}

/// Deletes copies of a key slot that was only partly put. The error to report is the one that led here.
pub(crate) fn take_back(store: &dyn Store, names: &[ObjectName]) {
    for name in names {
        let _ = store.delete_durably(&ObjectKey::Named(Kind::Key, *name));
    }
}

/// A vault that was just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: VaultId,
    /// Its key slots: that of the password, then that of the recovery key if there is one.
    pub slots: Vec<SlotId>,
}

/// Makes a vault in an empty store, or goes on with one whose making was interrupted. Once the first key slot is put,
/// the vault exists. The VAULT file is put last; if this is interrupted, the next command that writes makes it. The
/// first record of any client says that the slots are valid.
///
/// # Errors
/// [`VaultError::Exists`] if there is already a vault, or any part of one; [`VaultError::Begun`] if there is the
/// beginning of one that is not the same; [`VaultError::MadeAtOnce`] if another one is being made. If the store fails,
/// nothing stays that opens.
pub fn create(store: &dyn Store, options: &CreateOptions) -> Result<Created, VaultError> {
    create_with(store, options, options.params, None)
}

/// Makes a vault as [`create`] does, with a master key of its own, but with the writer's key and chunk sizes of another
/// vault: both cut alike and give equal chunks equal ids. The chunk sizes in `options` are ignored.
///
/// # Errors
/// As [`create`].
pub fn create_like(store: &dyn Store, options: &CreateOptions, other: &Keyring) -> Result<Created, VaultError> {
    create_with(store, options, other.params, Some(&other.writer))
}

/// The key slots of a new vault: that of the password, then that of the recovery key if there is one.
fn new_slots(keyring: &Keyring, options: &CreateOptions) -> Result<Vec<SlotFile>, VaultError> {
    let slot = |secret: &Secret, purpose: Purpose, label: &str| {
        SlotFile::create(keyring, secret, purpose, label, options.now, options.kdf)
    };
    let mut slots = vec![slot(&options.secret, Purpose::Password, &options.label)?];
    if let Some(recovery) = &options.recovery {
        slots.push(slot(recovery, Purpose::Recovery, "recovery key")?);
    }
    Ok(slots)
}

fn has_file(store: &dyn Store) -> Result<bool, StoreError> {
    match store.len(&ObjectKey::Vault) {
        Ok(_) => Ok(true),
        Err(StoreError::Missing { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The contents of a store, apart from the VAULT file.
enum Contents {
    Nothing,
    /// Key slots alone.
    Slots,
    More,
}

fn contents(store: &dyn Store) -> Result<Contents, StoreError> {
    let mut found = Contents::Nothing;
    store.list_all(&Kind::ALL, &mut |kind, listed| {
        if matches!(listed, Listed::Object { .. }) {
            let is_more = kind != Kind::Key || matches!(found, Contents::More);
            found = if is_more { Contents::More } else { Contents::Slots };
        }
    })?;
    Ok(found)
}

/// Whether a store has the beginning of a vault whose making was interrupted: key slots, and neither the VAULT file nor
/// anything else. Nobody was told of such a vault.
///
/// # Errors
/// If the store fails.
pub fn is_begun(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(!has_file(store)? && matches!(contents(store)?, Contents::Slots))
}

/// Goes on with a vault whose making was interrupted, if it opens with this secret and was to be like this. Slots that are
/// there stay: someone may be about to put the rest.
fn go_on(
    store: &dyn Store,
    options: &CreateOptions,
    params: ChunkParams,
    shared: Option<&WriterKey>,
) -> Result<Created, VaultError> {
    let there = Slots::read(store)?.counted();
    let opened = there.iter().find_map(|(slot, _)| Some((slot.id(), slot.unlock(&options.secret).ok()?)));
    let Some((first, keyring)) = opened else { return Err(VaultError::Begun { place: store.place() }) };
    // The writer's key of a vault that shares it with no other follows from its master key.
    let own = WriterKey::derive(&keyring.master);
    let id_by = |writer| Keys::new(&keyring.master, writer, keyring.vault, keyring.params).chunk_id(b"");
    let is_like = id_by(&keyring.writer) == id_by(shared.unwrap_or(&own));
    if keyring.params != params || keyring.delivery != options.delivery || !is_like {
        return Err(VaultError::Begun { place: store.place() });
    }
    let is_ours = |slot: &SlotFile| slot.info(&keyring.master).is_ok();
    for (slot, count) in there.iter().filter(|(slot, _)| is_ours(slot)) {
        // The one who began may be about to take back the copies that are there; these two stay.
        if slot.id() == first || *count < 2 {
            put_slot(store, slot)?;
        }
    }
    let mut slots = vec![first];
    if let Some(recovery) = &options.recovery {
        let slot = SlotFile::create(&keyring, recovery, Purpose::Recovery, "recovery key", options.now, options.kdf)?;
        put_slot(store, &slot)?;
        slots.push(slot.id());
    }
    let file = VaultFile { id: keyring.vault, features: features(&keyring, &Format::default()) };
    let file: Bytes = file.encode().into();
    match put_proven(store, ObjectKey::Vault, file.clone()) {
        Err(StoreError::Exists { .. }) if store.holds(&ObjectKey::Vault, &file)? => {}
        Err(StoreError::Exists { .. }) => return Err(VaultError::MadeAtOnce { place: store.place() }),
        put => put?,
    }
    Ok(Created { id: keyring.vault, slots })
}

fn create_with(
    store: &dyn Store,
    options: &CreateOptions,
    params: ChunkParams,
    shared: Option<&WriterKey>,
) -> Result<Created, VaultError> {
    let exists = || VaultError::Exists { place: store.place() };
    if has_file(store)? {
        return Err(exists());
    }
    match contents(store)? {
        Contents::Nothing => {}
        Contents::Slots => return go_on(store, options, params, shared),
        Contents::More => return Err(exists()),
    }
    let master = MasterKey::generate()?;
    let writer = shared.cloned().unwrap_or_else(|| WriterKey::derive(&master));
    let mut id = [0; 16];
    random(&mut id)?;
    let id = VaultId::new(id);
    let keyring =
        Keyring { vault: id, master, writer, params, created: options.now, delivery: options.delivery, features: 0 };
    let slots = new_slots(&keyring, options)?;
    let file: Bytes = VaultFile { id, features: features(&keyring, &Format::default()) }.encode().into();
    let (mut put, mut has_put_file): (Vec<Given>, bool) = (Vec::new(), false);
    let result = (|| {
        for slot in &slots {
            for given in copies(slot)? {
                put.push(given.clone());
                store.put(&given.key, given.bytes)?;
            }
        }
        // Some stores replace objects that they should not. If two people make a vault at once, the one who lists later
        // sees the other's slots and steps back; it may be both.
        let own: HashSet<ObjectName> = names(&put).into_iter().collect();
        let made_at_once = || VaultError::MadeAtOnce { place: store.place() };
        if !prove_copies(store, &put)?.keys().all(|name| own.contains(name)) {
            return Err(made_at_once());
        }
        match store.put(&ObjectKey::Vault, file.clone()) {
            // Someone else went on with this vault, and has made it.
            Err(StoreError::Exists { .. }) => {
                return if store.holds(&ObjectKey::Vault, &file)? { Ok(()) } else { Err(made_at_once()) };
            }
            put => {
                has_put_file = true;
                put?;
            }
        }
        if store.holds(&ObjectKey::Vault, &file)? {
            return Ok(());
        }
        // It was lost, or it is the other's.
        prove(store, &Given { key: ObjectKey::Vault, bytes: file.clone() }, None)?;
        if store.holds(&ObjectKey::Vault, &file)? { Ok(()) } else { Err(made_at_once()) }
    })();
    // A vault that was reported as not made must not open.
    result.inspect_err(|_: &VaultError| {
        // Without key slots it would only be in the way of the next attempt. Another's stays.
        if has_put_file && store.holds(&ObjectKey::Vault, &file).is_ok_and(|is_own| is_own) {
            let _ = store.delete_durably(&ObjectKey::Vault);
        }
        take_back(store, &names(&put));
    })?;
    Ok(Created { id, slots: slots.iter().map(SlotFile::id).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Link, Record, RecordBody};
    use crate::progress::Silent;
    use crate::store::testing::faulty::{Fault, FaultyStore, Leaves};
    use crate::store::testing::mem::MemStore;
    use crate::vault::open::open;
    use crate::vault::{Identity, OpenOptions};

    fn options() -> CreateOptions {
        CreateOptions {
            secret: Secret::raw(&[7; 32]),
            label: String::new(),
            kdf: KdfParams::Explicit { memory_kib: 19 << 10, passes: 1, lanes: 1 },
            params: ChunkParams::default(),
            delivery: Delivery::Direct,
            now: 0,
            recovery: Some(Secret::raw(&[8; 32])),
        }
    }

    #[test]
    fn the_making_of_a_vault_that_was_cut_at_any_write_goes_on() {
        let count = |store: &MemStore| Slots::read(store).unwrap().counted();
        for leaves in [Leaves::Nothing, Leaves::Whole] {
            for write in 0..5 {
                let what = format!("cut at write {write}, leaving {leaves:?}");
                let store = FaultyStore::new(MemStore::new()).with(Fault::CutAtWrite { write, leaves });
                assert!(create(&store, &options()).is_err(), "{what}");
                let store = store.inner();
                let is_made = store.len(&ObjectKey::Vault).is_ok();
                assert_eq!(is_begun(store).unwrap(), !is_made && !count(store).is_empty(), "{what}");
                if is_begun(store).unwrap() {
                    let other = CreateOptions { secret: Secret::raw(&[9; 32]), ..options() };
                    assert!(matches!(create(store, &other), Err(VaultError::Begun { .. })), "{what}");
                    let other = CreateOptions { delivery: Delivery::Synced, ..options() };
                    assert!(matches!(create(store, &other), Err(VaultError::Begun { .. })), "{what}");
                }
                let again = create(store, &options());
                assert_eq!(again.is_ok(), !is_made, "{what}: {again:?}");
                assert!(store.len(&ObjectKey::Vault).is_ok(), "{what}");
                assert!(count(store).iter().all(|(_, copies)| *copies >= 2), "{what}");
                for secret in [[7; 32], [8; 32]] {
                    let opens = |(slot, _): &(SlotFile, u64)| slot.unlock(&Secret::raw(&secret)).is_ok();
                    assert!(count(store).iter().any(opens), "{what}");
                }
                assert!(matches!(create(store, &options()), Err(VaultError::Exists { .. })), "{what}");
            }
        }
    }

    #[test]
    fn a_vault_that_could_not_be_made_does_not_open() {
        for leaves in [Leaves::Nothing, Leaves::Half, Leaves::Whole] {
            for write in 0..5 {
                let store = FaultyStore::new(MemStore::new()).with(Fault::FailAtWrite { write, leaves });
                assert!(create(&store, &options()).is_err(), "write {write}");
                let left = Slots::read(store.inner()).unwrap();
                assert!(left.copies.is_empty() && left.bad.is_empty(), "write {write} {leaves:?}");
                // What was put of VAULT is not known to be one's own if only half of it is there.
                let again = create(store.inner(), &options());
                assert!(again.is_ok() || leaves == Leaves::Half && write == 4, "write {write} {leaves:?}: {again:?}");
            }
        }
    }

    #[test]
    fn a_vault_that_could_not_be_made_is_not_in_the_way_of_the_next_attempt() {
        for operation in 0.. {
            let store = FaultyStore::new(MemStore::new()).with(Fault::FailAtOperation(operation));
            if create(&store, &options()).is_ok() {
                assert!(operation > 10, "many operations can fail");
                return;
            }
            let again = create(store.inner(), &options());
            assert!(again.is_ok(), "operation {operation}: {again:?}");
        }
    }

    /// The same where a store replaces objects that it should not.
    #[test]
    fn of_two_who_make_a_vault_at_once_at_most_one_has_made_it() {
        use crate::store::gated::GatedStore;
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
        use std::sync::{Arc, Barrier};
        for _ in 0..10 {
            let inner = Arc::new(MemStore::new());
            let barrier = Arc::new(Barrier::new(2));
            let make = || {
                let (barrier, replaced, is_first) = (barrier.clone(), inner.clone(), AtomicBool::new(true));
                let gate = move |key: &ObjectKey, _: usize| {
                    // Both have seen that the store is empty.
                    if is_first.swap(false, Relaxed) {
                        barrier.wait();
                    }
                    if *key == ObjectKey::Vault {
                        replaced.remove(key);
                    }
                    Ok(())
                };
                create(&GatedStore::new(inner.clone(), gate), &options())
            };
            let (one, two) = std::thread::scope(|scope| {
                let one = scope.spawn(make);
                (make(), one.join().unwrap())
            });
            for done in [&one, &two] {
                assert!(matches!(done, Ok(_) | Err(VaultError::MadeAtOnce { .. })), "{done:?}");
            }
            let made = usize::from(one.is_ok()) + usize::from(two.is_ok());
            assert!(made < 2, "{one:?} {two:?}");
            let left = Slots::read(inner.as_ref()).unwrap();
            assert_eq!(left.copies.len(), 4 * made, "the one that failed takes back its objects");
        }
    }

    /// They share the keys that cut and name chunks, and no key that opens anything.
    #[test]
    fn a_vault_like_another_cuts_alike() {
        let keyring = |store: &MemStore| {
            let slots = Slots::read(store).unwrap();
            slots.copies.iter().find_map(|(_, slot)| slot.unlock(&Secret::raw(&[8; 32])).ok()).unwrap()
        };
        let (first, second, third) = (MemStore::new(), MemStore::new(), MemStore::new());
        let sizes = ChunkParams::new(256, 512, 2048).unwrap();
        create(&first, &CreateOptions { params: sizes, ..options() }).unwrap();
        let first = keyring(&first);
        create_like(&second, &options(), &first).unwrap();
        create(&third, &options()).unwrap();
        let keys =
            |keyring: &Keyring| crate::seal::Keys::new(&keyring.master, &keyring.writer, keyring.vault, keyring.params);
        let [one, two, three] = [&first, &keyring(&second), &keyring(&third)].map(keys);
        assert_eq!((one.params(), one.chunk_id(b"x")), (two.params(), two.chunk_id(b"x")));
        assert_ne!(one.chunk_id(b"x"), three.chunk_id(b"x"));
        assert_ne!(one.vault(), two.vault());
        let sealed = one.create_object(crate::seal::ObjectKind::Pack).unwrap();
        let under = |keyring: &Keyring| {
            let keys = crate::seal::Keys::new(&keyring.master, &keyring.writer, one.vault(), keyring.params);
            keys.open_object(crate::seal::ObjectKind::Pack, sealed.name(), sealed.header())
        };
        assert!(under(&first).is_ok() && under(&keyring(&second)).is_err());
    }

    #[test]
    fn a_vault_file_that_is_made_again_has_all_flags() {
        let folder = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(MemStore::new());
        create(store.as_ref(), &options()).unwrap();
        let identity = Identity { host: "h".into(), user: "u".into(), machine: "m".into(), program: "p".into() };
        let open_options = OpenOptions::new(folder.path().to_owned(), identity);
        let vault = open(store.clone(), &Secret::raw(&[7; 32]), open_options, &Silent::default()).unwrap();
        for (number, format) in
            [Format { read: 1 << 3, ..Format::default() }, Format { read: 1 << 5, write: 0, collect: 2, synced: true }]
                .into_iter()
                .enumerate()
        {
            let name = ObjectName::new([number as u8; 16]);
            let record = Record {
                client: crate::id::ClientId::new([9; 16]),
                number: number as u64 + 1,
                previous: crate::id::Digest::new([0; 32]),
                seen: Vec::new(),
                time: crate::tree::Time::default(),
                claims: Vec::new(),
                closed: Vec::new(),
                body: RecordBody::Format(format),
            };
            std::sync::Arc::make_mut(&mut vault.log().chains).push(Link {
                name,
                digest: crate::id::Digest::new([0; 32]),
                record,
            });
        }
        assert_eq!(vault.format(), Format { read: 1 << 3 | 1 << 5, write: 0, collect: 2, synced: true });
        assert_eq!(vault.delivery(), Delivery::Synced);
        store.remove(&ObjectKey::Vault);
        vault.mend_vault_file(&Silent::default()).unwrap();
        let bytes = store.get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX).unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.contains("features 0000000000000028\n"), "{text}");
    }
}
