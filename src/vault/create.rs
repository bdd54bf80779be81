//! Making a vault (SPEC §3, §4).

use crate::chunk::ChunkParams;
use crate::id::VaultId;
use crate::limits::VAULT_FILE_LEN_MAX;
use crate::progress::Progress;
use crate::seal::{KdfParams, Keyring, MasterKey, Purpose, Secret, SlotFile, VaultFile, VaultFileError, random};
use crate::store::{Delivery, Kind, Listed, ObjectKey, Store, StoreError};
use crate::vault::{Vault, VaultError};

/// How a vault is made.
pub struct CreateOptions {
    /// Opens the first key slot.
    pub secret: Secret,
    /// A name for that slot.
    pub label: String,
    /// How hard guessing the password is made.
    pub kdf: KdfParams,
    /// Sizes of chunks.
    pub params: ChunkParams,
    /// Whether the store delivers at once or late.
    pub delivery: Delivery,
    /// Seconds since 1970.
    pub now: u64,
    /// Where to put a recovery key: a second slot that opens with it.
    pub recovery: Option<Secret>,
}

impl Vault {
    /// Puts the VAULT file again if it is missing or was damaged: everything in it is known. A damaged one is moved aside.
    ///
    /// # Errors
    /// If the store fails.
    pub fn mend_vault_file(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        self.may_write()?;
        let what = match self.store().get(&ObjectKey::Vault, VAULT_FILE_LEN_MAX) {
            Err(StoreError::Missing { .. }) => "missing",
            Err(error) => return Err(error.into()),
            Ok(bytes) => match VaultFile::parse(&bytes) {
                Err(VaultFileError::Damaged(_) | VaultFileError::NotAVault) => {
                    self.store().quarantine(&ObjectKey::Vault)?;
                    "damaged"
                }
                Ok(_) | Err(VaultFileError::Newer { .. }) => return Ok(()),
            },
        };
        let file = VaultFile { id: self.id(), features: 0 };
        self.store().put(&ObjectKey::Vault, file.encode().as_bytes())?;
        progress.warn(&format!("the VAULT file was {what}; it has been made again"));
        Ok(())
    }
}

/// Puts both copies of a key slot.
pub(crate) fn put_slot(store: &dyn Store, slot: &SlotFile) -> Result<(), VaultError> {
    for _ in 0..2 {
        store.put(&ObjectKey::Named(Kind::Key, crate::seal::random_name()?), slot.as_bytes())?;
    }
    Ok(())
}

/// Makes a vault in an empty store. With its first key slot the vault is there; the VAULT file, which is put last, is made
/// anew by the next command that writes if this was interrupted.
///
/// # Errors
/// [`VaultError::Exists`] if there is a vault already, or any part of one.
pub fn create(store: &dyn Store, options: &CreateOptions) -> Result<VaultId, VaultError> {
    let exists = || VaultError::Exists { place: store.place() };
    match store.len(&ObjectKey::Vault) {
        Ok(_) => return Err(exists()),
        Err(StoreError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    for kind in Kind::ALL {
        let mut found = false;
        store.list(kind, &mut |listed| found |= matches!(listed, Listed::Object { .. }))?;
        if found {
            return Err(exists());
        }
    }
    let mut id = [0; 16];
    random(&mut id)?;
    let id = VaultId::new(id);
    let keyring = Keyring {
        vault: id,
        master: MasterKey::generate()?,
        params: options.params,
        created: options.now,
        delivery: options.delivery,
        features: 0,
    };
    let first =
        SlotFile::create(&keyring, &options.secret, Purpose::Password, &options.label, options.now, options.kdf)?;
    put_slot(store, &first)?;
    if let Some(recovery) = &options.recovery {
        let slot = SlotFile::create(&keyring, recovery, Purpose::Recovery, "recovery key", options.now, options.kdf)?;
        put_slot(store, &slot)?;
    }
    store.put(&ObjectKey::Vault, VaultFile { id, features: 0 }.encode().as_bytes())?;
    Ok(id)
}
