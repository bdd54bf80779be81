//! The steps after work on a vault: other machines are told of findings, and key slots that were removed earlier are
//! deleted.

use crate::engine::keys;
use crate::progress::Progress;
use crate::tree::Time;
use crate::vault::Vault;

/// Publishes this machine's findings. Deletes the files of key slots that this machine removed, once all machines know
/// of the removal. A failure of either does not make the work before it fail.
pub fn settle(vault: &Vault, now: Time, progress: &dyn Progress) {
    if let Err(error) = vault.publish_findings(now, progress) {
        progress.detail(&format!("other machines cannot be told yet what was found here: {error}"));
    }
    match keys::settle(vault, now, progress) {
        Ok(gone) => {
            for slot in gone {
                let short = &slot.to_string()[..8];
                progress.detail(&format!("key slot {short} is gone: all machines know that it was removed"));
            }
        }
        Err(error) => progress.warn(&format!("a key slot that was removed could not be deleted: {error}")),
    }
}
