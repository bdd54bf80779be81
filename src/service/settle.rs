//! What follows work on a vault: other machines are told what was found here, and what waited for all of them to know goes.

use crate::engine::keys;
use crate::progress::Progress;
use crate::tree::Time;
use crate::vault::Vault;

/// Tells other machines what was found here, and deletes the files of key slots that this machine removed, where it had to be waited until
/// all machines know of it. Nothing of that makes the work fail that was done before.
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
