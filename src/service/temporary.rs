//! A folder that goes with the work that needs it: for what a trial restores, or as the state of one command that only reads, where the
//! user's own cannot be written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::fs::make_private_folder;
use crate::seal::random_name;

/// What of a vault's state is worth having for one command, beside the catalogue, which is built from the store: what this
/// machine remembers of the log and of damage.
const REMEMBERED: &[&str] = &["client", "seen", "findings", "opened"];

/// A folder that only this user can read. It goes with this value.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// Makes one in `parent`, such as the system's folder for temporary files, with what can be read of the state of this vault in `state`.
    pub fn new(parent: &Path, state: Option<&Path>, vault: Option<&str>) -> io::Result<Self> {
        let name = random_name().map_err(io::Error::other)?;
        let folder = Self(parent.join(format!("vault-{name}")));
        make_private_folder(folder.path())?;
        if let (Some(state), Some(vault)) = (state, vault) {
            let own = folder.path().join(vault);
            make_private_folder(&own)?;
            for name in REMEMBERED {
                // There may be none, or one that cannot be read: then it is not remembered.
                let _ = fs::copy(state.join(vault).join(name), own.join(name));
            }
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what stays is readable to nobody else
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
