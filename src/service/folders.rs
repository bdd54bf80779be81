//! The folders for vault's own files of a user: the configuration and the state.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::service::machine::Machine;
use crate::service::roots;

/// The name of the file in the user's folder for configurations.
const CONFIG: &str = "vault.toml";

/// The user's folder for configurations.
pub fn configurations(machine: &dyn Machine) -> Option<PathBuf> {
    if cfg!(windows) {
        return machine.folder("APPDATA");
    }
    machine.folder("XDG_CONFIG_HOME").or_else(|| machine.home().map(|home| home.join(".config")))
}

/// The path of the configuration: the given one, or the one in the user's folder for configurations.
///
/// # Errors
/// If there is no such folder.
pub fn config(given: Option<&Path>, current: &Path, machine: &dyn Machine) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return Ok(roots::absolute(current, path));
    }
    configurations(machine).map(|folder| folder.join("vault").join(CONFIG)).ok_or_else(|| {
        Failure::new("there is no home folder to look for the configuration in")
            .hint("Give --config FILE, or set VAULT_CONFIG.")
    })
}

/// The default folder for the state of all vaults.
pub fn state(machine: &dyn Machine) -> Option<PathBuf> {
    let folder = if cfg!(windows) {
        machine.folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        machine.home().map(|home| home.join("Library/Application Support"))
    } else {
        machine.folder("XDG_STATE_HOME").or_else(|| machine.home().map(|home| home.join(".local/state")))
    };
    folder.map(|folder| folder.join("vault"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::service::machine::tests::Still;

    #[test]
    fn what_the_environment_says_comes_before_the_home_folder() {
        let home = Still(&[("HOME", "/home/me")]);
        assert_eq!(config(None, Path::new("/c"), &home).unwrap(), Path::new("/home/me/.config/vault/vault.toml"));
        assert_eq!(config(Some(Path::new("a/../b")), Path::new("/c"), &home).unwrap(), Path::new("/c/b"));
        assert_eq!(state(&home).unwrap(), Path::new("/home/me/.local/state/vault"));
        // A variable without an absolute path is ignored.
        let set = Still(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", "/x"), ("XDG_STATE_HOME", "y")]);
        assert_eq!(config(None, Path::new("/c"), &set).unwrap(), Path::new("/x/vault/vault.toml"));
        assert_eq!(state(&set).unwrap(), Path::new("/home/me/.local/state/vault"));
        assert!(config(None, Path::new("/c"), &Still(&[])).is_err() && state(&Still(&[])).is_none());
    }
}
