//! Notes that this machine keeps about a vault in its state folder, one file for each subject.
//!
//! A note that is there and cannot be read is not a missing one: the machine knew something, and no longer does. The
//! first command that meets it records this loss, and it stays a finding until all data was checked, or a
//! person accepts it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::msgpack;
use crate::ownfile;

/// The subject of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Note {
    /// Known problems of the vault.
    #[serde(rename = "findings")]
    Problems,
    /// The highest number of each client that this machine has seen.
    #[serde(rename = "seen")]
    Records,
    /// The mount points among and below the roots of sources.
    #[serde(rename = "roots")]
    MountPoints,
}

impl Note {
    /// Name of its file.
    pub(crate) const fn file(self) -> &'static str {
        match self {
            Self::Problems => "findings",
            Self::Records => "seen",
            Self::MountPoints => "roots",
        }
    }

    /// Reads the note, and returns whether it is there and cannot be read. A missing note is the default value.
    pub(crate) fn load<T: for<'de> Deserialize<'de> + Default>(self, folder: &Path) -> (T, bool) {
        match ownfile::read(&folder.join(self.file())) {
            Ok(bytes) => msgpack::decode(&bytes).map_or_else(|_| (T::default(), true), |value| (value, false)),
            Err(error) => (T::default(), !ownfile::is_absent(&error)),
        }
    }

    /// The finding that it is lost, in one sentence without a full stop.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Problems => {
                "this machine's list of known problems could not be read: some that it knew may be missing here"
            }
            Self::Records => {
                "this machine's memory of the records could not be read: it cannot tell whether the store was set back \
                 before"
            }
            Self::MountPoints => {
                "this machine's memory of mount points could not be read: a snapshot since may have taken the folder of a \
                 disk that was away for the source"
            }
        }
    }

    /// The event or command that ends that finding.
    pub(super) const fn ends(self) -> &'static str {
        match self {
            Self::Problems => "vault check --read-data, or accepting it",
            Self::Records => {
                "accepting it; vault check --at-least ID, with an id that you wrote down, shows whether the store was set back"
            }
            Self::MountPoints => "accepting it, once the disks of all sources are mounted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_note_is_empty_and_one_that_cannot_be_read_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Note::Records.load::<Vec<u64>>(folder.path());
        assert_eq!(load(), (Vec::new(), false));
        let path = folder.path().join("seen");
        std::fs::write(&path, msgpack::encode(&[1, 2]).unwrap()).unwrap();
        assert_eq!(load(), (vec![1, 2], false));
        assert_eq!(Note::Records.load::<Vec<u64>>(&path), (Vec::new(), false), "there is nothing below a file");
        for damaged in ["", "no msgpack"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(load(), (Vec::new(), true), "{damaged:?}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(load(), (Vec::new(), true));
    }
}
