//! The files of a vault's state folder, with the vault's errors.

use std::io;
use std::path::Path;

use crate::ownfile;
use crate::vault::VaultError;

/// Turns an error of the system into one that names the action and the path.
pub(super) fn state_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VaultError {
    let path = path.display().to_string();
    move |source| VaultError::State { action, path, source }
}

/// Makes a folder that only this user can read.
pub(super) fn make_private_folder(path: &Path) -> Result<(), VaultError> {
    ownfile::make_private_folder(path).map_err(state_error("make the folder", path))
}

/// Replaces a small file so that after a crash it is either the old one or the new one. Only `durable` makes it survive
/// a power cut.
pub(super) fn replace_file(path: &Path, bytes: &[u8], durable: bool) -> Result<(), VaultError> {
    ownfile::replace(path, bytes, durable).map_err(state_error("write", path))
}
