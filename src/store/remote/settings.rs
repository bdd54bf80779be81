//! What a store on another machine takes from this one: variables, the home folder, how patient it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::store::remote::line::Policy;

/// What a store on another machine takes from this one. The library reads no environment: who opens a store gives it.
#[derive(Clone, Default)]
pub struct Settings {
    /// Variables of the environment: credentials, mostly. Those whose names begin as in [`Settings::VARIABLES`].
    pub variables: BTreeMap<String, String>,
    /// The user's home folder.
    pub home: Option<PathBuf>,
    /// How long and how often it is tried.
    pub policy: Policy,
}

impl std::fmt::Debug for Settings {
    /// Without the variables, which are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("home", &self.home).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Settings {
    /// What the names of the variables begin with that are of use.
    pub const VARIABLES: &[&str] =
        &["AWS_", "AZURE_", "GOOGLE_", "RCLONE_", "VAULT_REST_", "VAULT_WEBDAV_", "VAULT_RCLONE", "VAULT_SSH"];

    /// A variable that is not empty.
    #[cfg(feature = "remote")]
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }
}
