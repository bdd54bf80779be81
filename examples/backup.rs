//! A backup: a vault in a folder, a snapshot of another folder, retention and a check.
//!
//! ```text
//! VAULT_PASSWORD=… cargo run --example backup -- FOLDER PLACE
//! ```
#![allow(clippy::disallowed_methods, reason = "a program reads the clock and its arguments; only the library does not")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use vault::{
    CheckOptions, CollectOptions, CreateOptions, DirStore, Identity, Input, OpenOptions, Rules, Secret, Silent,
};
use vault::{SnapshotOptions, SnapshotReport, Store, Time, VaultError};

/// The number of snapshots that stay.
const KEPT: u64 = 7;

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() }
}

/// Backs a folder up into a vault, which is made if there is none.
fn back_up(folder: PathBuf, place: &Path, state: PathBuf, password: &str) -> Result<SnapshotReport, Box<dyn Error>> {
    let silent = Silent::default();
    let store: Arc<dyn Store> = Arc::new(DirStore::create(place)?);
    match vault::create(store.as_ref(), &CreateOptions::new(Secret::password(password), now().secs.cast_unsigned())) {
        Ok(_) | Err(VaultError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let text = |text: &str| text.to_owned();
    let me = Identity { host: text("host"), user: text("me"), machine: text("me at host"), program: text("example") };
    let vault = vault::open(store, &Secret::password(password), OpenOptions::new(state, me), &silent)?;

    let inputs = vec![Input::Path { name: b"folder".to_vec(), path: folder, only: None }];
    let mut options = SnapshotOptions::new("folder", inputs, &now);
    options.threads = 2;
    let report = vault::snapshot(&vault, options, &silent)?;

    // The last ones stay, whatever their dates. The periods matter only to rules that count by them.
    let rules = Rules { last: Some(KEPT), ..Rules::default() };
    let decisions = vault::plan_retention(&vault.snapshots(), &rules, &|time, _| time.secs.to_string());
    vault::prune(&vault, &decisions, &CollectOptions::new(&now), &silent)?;

    let mut options = CheckOptions::new(&now);
    options.read_data = true;
    if vault::check(&vault, &options, &silent)?.is_damaged() {
        return Err("the vault is damaged".into());
    }
    Ok(report)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(place)) = (args.next(), args.next()) else {
        return Err("usage: backup FOLDER PLACE".into());
    };
    let password = std::env::var("VAULT_PASSWORD")?;
    let report = back_up(folder.canonicalize()?, &place, place.with_extension("state"), &password)?;
    println!("{} files, {} bytes", report.snapshot.files, report.snapshot.bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_backup_goes_into_the_same_vault() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        for files in 1..=2_u64 {
            std::fs::write(folder.join(files.to_string()), "content").unwrap();
            let (place, state) = (scratch.path().join("place"), scratch.path().join("state"));
            let report = back_up(folder.clone(), &place, state, "a password").unwrap();
            assert_eq!(report.snapshot.files, files);
        }
        let (place, state) = (scratch.path().join("place"), scratch.path().join("other"));
        assert!(back_up(folder, &place, state, "another password").is_err());
    }
}
