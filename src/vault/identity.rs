//! The user and the machine that work with a vault here, and the state that their client keeps of itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::{ClientId, Digest};
use crate::ownfile;
use crate::vault::VaultError;
use crate::vault::files::{replace_file, state_error};

/// The machine and user that work with a vault here.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name of the machine, as shown in lists.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// A string that stays the same for this machine and user, and differs for others: the machine's id and its own
    /// host name (machines made from one image have the same id). Only a keyed hash of it is ever stored.
    pub machine: String,
    /// Version of the program.
    pub program: String,
}

/// State that a client keeps of itself and of the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClientState {
    pub(crate) client: ClientId,
    /// Keyed hash of machine, user and folder: a state that was copied to another place does not fit it.
    #[serde(with = "serde_bytes")]
    pub(crate) place: Vec<u8>,
    /// Number and hash of its last record.
    pub(crate) number: u64,
    pub(crate) digest: Digest,
    /// Hash of the record that was about to be put when this was saved: if the log has it, it is this client's own.
    #[serde(default)]
    pub(crate) pending: Option<Digest>,
    /// The highest number of each client that was ever seen.
    pub(crate) remembered: BTreeMap<ClientId, u64>,
}

impl ClientState {
    fn path(folder: &Path) -> PathBuf {
        folder.join("client")
    }

    /// Loads the state from this folder; `None` if there is none, or it is damaged.
    pub(crate) fn load(folder: &Path) -> Option<Self> {
        let bytes = ownfile::read(&Self::path(folder)).ok()?;
        let (sum, body) = bytes.split_at_checked(32)?;
        (blake3::hash(body) == *sum).then(|| rmp_serde::from_slice(body).ok()).flatten()
    }

    pub(super) fn save(&self, folder: &Path, durable: bool) -> Result<(), VaultError> {
        let mut body = Vec::new();
        let encoded = self.serialize(&mut rmp_serde::Serializer::new(&mut body).with_struct_map());
        encoded.map_err(|error| state_error("write", folder)(io::Error::other(error.to_string())))?;
        let sum = *blake3::hash(&body).as_bytes();
        replace_file(&Self::path(folder), &[&sum[..], &body].concat(), durable)
    }
}
