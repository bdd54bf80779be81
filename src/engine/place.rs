//! Remembers, in the user's state folder, which vault was in which place when this machine last looked.
//!
//! A disk that is not mounted leaves an empty folder behind, and anyone who can write to a place can put another vault there. Both are
//! noticed by comparing with this memory before anything is written. A place is identified by its real path, or by the address of a
//! store.

use std::io;
use std::path::{Path, PathBuf};

use crate::id::VaultId;
use crate::ownfile::{is_absent, make_private_folder, replace_private_file};
use crate::path::plain;

const MAGIC: &str = "vault place 1";

/// The most links that are followed to a folder that is not there.
const LINKS_MAX: usize = 40;

/// The name of the folder `path` as a place: its real path. If it does not exist now, the existing part is resolved, and links
/// that lead to what is not there, as to a disk that is away.
pub fn name_of(path: &Path) -> String {
    real(path).display().to_string()
}

fn real(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Some((there, real)) = path.ancestors().find_map(|there| Some((there, std::fs::canonicalize(there).ok()?)))
        else {
            return path;
        };
        let real = plain(real);
        let mut below = path.strip_prefix(there).unwrap_or(Path::new("")).components();
        let whole = below.as_path().to_owned();
        let Some(first) = below.next() else { return real };
        let Ok(target) = std::fs::read_link(real.join(first)) else { return real.join(whole) };
        let mut next = real.join(target);
        next.extend(below);
        path = next;
    }
    path
}

fn file_of(state: &Path, place: &str) -> PathBuf {
    let digits: String = blake3::hash(place.as_bytes()).to_hex().chars().take(32).collect();
    state.join("places").join(digits)
}

/// The vaults that this machine has seen in this place, the intended one first; none if there is no memory of it. `state` is the folder
/// in which this user keeps the state of all vaults.
///
/// # Errors
/// If there may be a memory, and it cannot be read.
pub fn known(state: &Path, place: &str) -> io::Result<Vec<VaultId>> {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let text = match crate::ownfile::read_text(&file_of(state, place)) {
        Ok(text) => text,
        // Nothing is there, or something that the program has not written.
        Err(error) if is_absent(&error) || matches!(error.kind(), InvalidInput | InvalidData) => String::new(),
        Err(error) => return Err(error),
    };
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) || lines.next() != Some(place) {
        return Ok(Vec::new());
    }
    Ok(lines.filter_map(|line| line.parse().ok()).collect())
}

/// Remembers these vaults for this place.
///
/// # Errors
/// If the state folder cannot be written.
pub fn remember(state: &Path, place: &str, vaults: &[VaultId]) -> io::Result<()> {
    let path = file_of(state, place);
    make_private_folder(&state.join("places"))?;
    let ids = vaults.iter().fold(String::new(), |text, id| format!("{text}{id}\n"));
    replace_private_file(&path, format!("{MAGIC}\n{place}\n{ids}").as_bytes())
}

/// Remembers that this vault was opened in this place. `is_said`: a person or the configuration named it; `others` are vaults that have
/// key slots there too.
///
/// # Errors
/// If the state folder cannot be read or written.
pub fn met<'a>(
    state: &Path,
    place: &str,
    vault: VaultId,
    is_said: bool,
    others: impl IntoIterator<Item = &'a VaultId>,
) -> io::Result<()> {
    let mut vaults = known(state, place)?;
    let is_there = others.into_iter().any(|other| vaults.first() == Some(other));
    match vaults.iter().position(|known| *known == vault) {
        Some(0) => return Ok(()),
        // The intended vault is not there: it remains the intended one.
        Some(_) if is_there || !is_said => return Ok(()),
        Some(at) => drop(vaults.remove(at)),
        None => {}
    }
    let at = if is_there { vaults.len() } else { 0 };
    vaults.insert(at, vault);
    remember(state, place, &vaults)
}

/// Forgets a vault in a place, as one whose creation was not finished.
pub fn forget(state: &Path, place: &str, vault: VaultId) {
    // If it cannot be forgotten, the user is asked the next time.
    let Ok(known) = known(state, place) else { return };
    let left: Vec<VaultId> = known.into_iter().filter(|known| *known != vault).collect();
    let _ = if left.is_empty() { std::fs::remove_file(file_of(state, place)) } else { remember(state, place, &left) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: VaultId = VaultId::new([1; 16]);
    const Y: VaultId = VaultId::new([2; 16]);

    #[test]
    fn a_place_remembers_its_vault() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        assert_eq!(known(state, "/disk/vault").unwrap(), []);
        met(state, "/disk/vault", X, false, &[]).unwrap();
        assert_eq!(known(state, "/disk/vault").unwrap(), [X]);
        assert_eq!(known(state, "/disk/other").unwrap(), []);
        // A named vault that shares the folder is added behind the other; one that is alone there comes first.
        met(state, "/disk/vault", Y, true, &[X]).unwrap();
        assert_eq!(known(state, "/disk/vault").unwrap(), [X, Y]);
        met(state, "/disk/vault", Y, false, &[]).unwrap();
        assert_eq!(known(state, "/disk/vault").unwrap(), [X, Y]);
        met(state, "/disk/vault", Y, true, &[]).unwrap();
        assert_eq!(known(state, "/disk/vault").unwrap(), [Y, X]);
        forget(state, "/disk/vault", Y);
        assert_eq!(known(state, "/disk/vault").unwrap(), [X]);
        forget(state, "/disk/vault", X);
        assert_eq!(known(state, "/disk/vault").unwrap(), []);
    }

    #[cfg(unix)]
    #[test]
    fn links_on_the_way_and_folders_that_are_away_make_no_other_place() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("disk")).unwrap();
        std::os::unix::fs::symlink(top.join("disk"), top.join("link")).unwrap();
        let expected = top.join("disk/a/vault").display().to_string();
        assert_eq!(name_of(&top.join("link/a/vault")), expected);
        std::fs::create_dir_all(top.join("disk/a/vault")).unwrap();
        assert_eq!(name_of(&top.join("link/a/vault")), expected);
    }

    #[cfg(unix)]
    #[test]
    fn links_to_a_folder_that_is_away_lead_to_the_same_place() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        let expected = top.join("disk/a/vault").display().to_string();
        std::fs::create_dir(top.join("below")).unwrap();
        symlink(top.join("disk/a/vault"), top.join("link")).unwrap();
        symlink("../link", top.join("below/chain")).unwrap();
        symlink("disk/a", top.join("folder")).unwrap();
        symlink("circle", top.join("circle")).unwrap();
        let names = ["link", "below/chain", "folder/vault", "below/../link", "disk/a/vault"];
        for there in [false, true] {
            for name in names {
                assert_eq!(name_of(&top.join(name)), expected, "{name} {there}");
            }
            assert_eq!(name_of(&top.join("circle/vault")), top.join("circle/vault").display().to_string());
            std::fs::create_dir_all(top.join("disk/a/vault")).unwrap();
        }
    }
}
