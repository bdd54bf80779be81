//! A temporary folder that is removed after use. It holds the files of a trial restore, or the state of a command that
//! only reads and cannot write to the user's state folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ownfile::{self, make_private_folder};
use crate::seal::random_name;

/// The files of a vault's state that are worth having for one command: this machine's knowledge of the log and of
/// damage. The catalogue is not among them, because it is built from the store.
const REMEMBERED: &[&str] = &["client", "seen", "findings", "opened", "synced"];

/// A folder that only this user can read. It is removed when this value is dropped.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// Creates a folder in `parent`, such as the system's folder for temporary files, with the readable part of this
    /// vault's state from the folder `state`.
    ///
    /// # Errors
    /// If `parent` is not there, or the folder cannot be written.
    pub fn new(parent: &Path, state: Option<&Path>, vault: Option<&str>) -> io::Result<Self> {
        // A folder for temporary files that is not there is a mistake in its name, and is not made.
        fs::metadata(parent)?;
        let name = random_name().map_err(io::Error::other)?;
        let folder = Self(parent.join(format!("vault-{name}")));
        make_private_folder(folder.path())?;
        if let (Some(state), Some(vault)) = (state, vault) {
            let own = folder.path().join(vault);
            make_private_folder(&own)?;
            for name in REMEMBERED {
                let bytes = match ownfile::read(&state.join(vault).join(name)) {
                    Ok(bytes) => bytes,
                    Err(error) if ownfile::is_absent(&error) => continue,
                    // An empty file cannot be read either: what is lost is not taken for missing.
                    Err(_) => Vec::new(),
                };
                let _ = ownfile::replace(&own.join(name), &bytes, false);
            }
        }
        Ok(folder)
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // nobody else can read files that remain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_has_what_is_remembered_and_goes() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("id")).unwrap();
        for name in ["seen", "catalogue.redb"] {
            fs::write(state.path().join("id").join(name), name).unwrap();
        }
        let above = tempfile::tempdir().unwrap();
        let folder = Temporary::new(above.path(), Some(state.path()), Some("id")).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::read_to_string(path.join("id/seen")).unwrap(), "seen");
        assert!(!path.join("id/catalogue.redb").exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        drop(folder);
        assert!(!path.exists());
    }
}
