//! How a vault reaches other machines: directly, or through a program that syncs folders.

use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;
use crate::log::{Format, RecordBody};
use crate::progress::Progress;
use crate::store::Delivery;
use crate::tree::Time;
use crate::vault::Vault;

/// Folders that programs sync to other machines: by name (lower case)...
const SYNCED_FOLDERS: &[&str] = &[
    "dropbox",
    "onedrive",
    "google drive",
    "googledrive",
    "my drive",
    "icloud drive",
    "icloud~drive",
    "mobile documents",
    "cloudstorage",
    "nextcloud",
    "owncloud",
    "syncthing",
    "seafile",
    "pcloud drive",
    "pclouddrive",
    "proton drive",
    "mega",
    "megasync",
    "resilio sync",
];
/// ... by a company's name after it, as in `OneDrive - Example Ltd` ...
const SYNCED_PREFIXES: &[&str] = &["dropbox (", "onedrive - ", "onedrive-", "googledrive-", "dropbox-"];
/// ... or by the files that such a program puts into them.
const SYNCED_MARKS: &[&str] =
    &[".stfolder", ".dropbox", ".dropbox.cache", ".sync", ".owncloudsync.log", ".nextcloudsync.log"];

/// Guesses from a folder's path and content whether a program syncs it to other machines.
pub fn guess(place: &Path) -> Delivery {
    guess_by(place, &|path| path.exists())
}

fn guess_by(place: &Path, exists: &dyn Fn(&Path) -> bool) -> Delivery {
    let by_name = place.components().any(|component| {
        let name = component.as_os_str().to_string_lossy().to_lowercase();
        SYNCED_FOLDERS.contains(&name.as_str()) || SYNCED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    let by_mark = || place.ancestors().any(|folder| SYNCED_MARKS.iter().any(|mark| exists(&folder.join(mark))));
    if by_name || by_mark() { Delivery::Synced } else { Delivery::Direct }
}

/// The delivery's name in JSON.
pub const fn word(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Direct => "direct",
        Delivery::Synced => "synced",
    }
}

/// How a vault reaches other machines, as `vault delivery --json` prints it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DeliveryJson {
    /// The delivery's name.
    delivery: &'static str,
    /// Whether the delivery was changed.
    pub changed: bool,
    /// The current delivery.
    #[serde(skip)]
    pub now: Delivery,
}

/// Changes the vault's delivery if `wanted` differs from it.
///
/// # Errors
/// If the vault does not allow the change, or the record cannot be stored.
pub fn set(
    vault: &Vault,
    wanted: Option<Delivery>,
    now: Time,
    progress: &dyn Progress,
) -> Result<DeliveryJson, Failure> {
    let changed = match (vault.delivery(), wanted) {
        (Delivery::Synced, Some(Delivery::Direct)) => {
            return Err(Failure::new("a vault in a synced folder cannot become one of direct delivery").hint(
                "Machines may have stored something that has not arrived yet. Its snapshots can go to a new vault.",
            ));
        }
        (Delivery::Direct, Some(Delivery::Synced)) => {
            let body = RecordBody::Format(Format { synced: true, ..Format::default() });
            vault.publish(body, now, None, |_| true, progress)?;
            true
        }
        _ => false,
    };
    let now = vault.delivery();
    Ok(DeliveryJson { delivery: word(now), changed, now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_folders_are_known() {
        let marked = |path: &Path| path == Path::new("/data/shared/.stfolder");
        for (place, expected) in [
            ("/mnt/disk/vault", Delivery::Direct),
            ("/home/me/Dropbox/vault", Delivery::Synced),
            ("/home/me/OneDrive - Example Ltd/a/b", Delivery::Synced),
            ("/Users/me/Library/CloudStorage/x", Delivery::Synced),
            ("/home/me/dropbox-notes.d/vault", Delivery::Synced),
            ("/home/me/omega/vault", Delivery::Direct),
            ("/data/shared/vault", Delivery::Synced),
            ("/data/other/vault", Delivery::Direct),
        ] {
            assert_eq!(guess_by(Path::new(place), &marked), expected, "{place}");
        }
    }
}
