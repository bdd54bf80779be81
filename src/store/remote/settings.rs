//! Settings that a store on another machine takes from this one: variables, the home folder, limits on retries.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::store::remote::line::Policy;

/// Settings that a store on another machine takes from this one. The library does not read the environment: the
/// caller passes these.
#[derive(Clone, Default)]
pub struct Settings {
    /// Environment variables, mostly credentials. Only those whose names begin with one of [`Settings::VARIABLES`].
    pub variables: BTreeMap<String, String>,
    /// The user's home folder.
    pub home: Option<PathBuf>,
    /// Limits on how long and how often requests are tried.
    pub policy: Policy,
    /// The maximum number of requests under way; `None`: the usual number for the kind of store.
    pub connections: Option<usize>,
    /// A file with certificates of authorities that the server's certificate may come from.
    pub ca_file: Option<PathBuf>,
    /// The storage class of packs in an object store; `None`: that of the bucket. Other objects have the bucket's.
    pub storage_class: Option<String>,
}

impl std::fmt::Debug for Settings {
    /// Leaves out the variables, which are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("home", &self.home)
            .field("policy", &self.policy)
            .field("connections", &self.connections)
            .field("ca_file", &self.ca_file)
            .field("storage_class", &self.storage_class)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Prefixes of the names of useful variables.
    pub const VARIABLES: &[&str] =
        &["AWS_", "AZURE_", "GOOGLE_", "RCLONE_", "VAULT_REST_", "VAULT_WEBDAV_", "VAULT_RCLONE", "VAULT_SSH"];

    /// A variable that is not empty.
    #[cfg(feature = "remote")]
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }
}
