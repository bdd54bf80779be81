//! What a machine remembers of the last drill of a vault.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fs::replace_private_file;
use crate::tree::Time;
use crate::vault::Vault;

/// What is remembered of the last drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When it was, in seconds since 1970.
    pub secs: i64,
    /// Files that were restored.
    pub files: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
    /// How many did not come back as they were.
    pub failed: u64,
}

impl Last {
    /// The last drill of a vault on this machine, if there was one.
    pub fn load(vault: &Vault) -> Option<Self> {
        Self::in_folder(vault.state())
    }

    /// Remembers it in the folder of the vault's state.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, state: &Path) -> std::io::Result<()> {
        replace_private_file(&state.join("drill"), &serde_json::to_vec(self)?)
    }

    /// The last drill of a vault whose state lies in this folder.
    pub fn in_folder(state: &Path) -> Option<Self> {
        serde_json::from_slice(&crate::ownfile::read(&state.join("drill")).ok()?).ok()
    }

    /// Whether another one is due. A clock that was set back makes it due.
    pub fn is_due(last: Option<&Self>, every: Duration, now: i64) -> bool {
        last.is_none_or(|last| u64::try_from(now - last.secs).map_or(true, |age| age >= every.as_secs()))
    }

    /// When it was.
    pub const fn time(&self) -> Time {
        Time { secs: self.secs, nanos: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_due_when_the_last_one_is_old_enough() {
        let (last, day) = (Last { secs: 1000, files: 1, bytes: 1, failed: 0 }, Duration::from_secs(86_400));
        assert!(Last::is_due(None, day, 1000));
        assert!(!Last::is_due(Some(&last), day, 1000 + 86_399));
        assert!(Last::is_due(Some(&last), day, 1000 + 86_400));
        assert!(Last::is_due(Some(&last), day, 999), "the clock was set back");
    }
}
