//! A path inside a snapshot, shared by all commands that take `SNAPSHOT:PATH`, and the suggestions if nothing is there.

use crate::engine::query::browse::{self, BrowseError};
use crate::engine::restore::RestoreError;
use crate::failure::{Failure, quoted};
use crate::path::{Shown, components, join};
use crate::service::select::{self, Aim, Among, Wanted, named};
use crate::service::suggest::nearest;
use crate::tree::Entry;
use crate::vault::{SnapshotInfo, Vault};

/// The maximum number of names in a folder compared with a typed name.
const NAMES_MAX: usize = 20_000;
/// The maximum number of other snapshots of the same source searched for a path that one snapshot lacks.
pub const OTHERS_MAX: usize = 64;

/// A path inside a snapshot, as the user asked for it.
pub struct Spot<'a> {
    among: Among<'a>,
    wanted: &'a Wanted,
    aim: Aim,
    /// The path as it was typed.
    typed: Vec<u8>,
    /// The snapshot.
    pub info: SnapshotInfo,
    /// The path inside it.
    pub path: Vec<u8>,
}

/// Something that a snapshot lacks.
pub enum Gap {
    /// The entry at this path.
    Path(String),
    /// Any entry that matches these patterns.
    Match(String),
}

/// An error that may mean that a snapshot lacks the wanted entry.
pub trait MayBeGap: Into<Failure> {
    /// The missing entry; `None` if the error means something else.
    fn gap(&self) -> Option<Gap>;
}

impl MayBeGap for BrowseError {
    fn gap(&self) -> Option<Gap> {
        match self {
            Self::NotFound { path } => Some(Gap::Path(path.clone())),
            _ => None,
        }
    }
}

impl MayBeGap for RestoreError {
    fn gap(&self) -> Option<Gap> {
        match self {
            Self::NoSuchPath { path } => Some(Gap::Path(path.clone())),
            Self::NothingSelected { patterns } => Some(Gap::Match(patterns.clone())),
            _ => None,
        }
    }
}

impl<'a> Spot<'a> {
    /// The place in this snapshot that the typed path means.
    pub fn of(among: Among<'a>, (wanted, aim): (&'a Wanted, Aim), info: SnapshotInfo) -> Self {
        let typed = wanted.path.clone().unwrap_or_default();
        let path = select::inside(&info.body.roots, &typed);
        Self { among, wanted, aim, typed, info, path }
    }

    /// The spot at this path inside the same snapshot, instead of the typed path.
    #[must_use]
    pub fn at(self, path: Vec<u8>) -> Self {
        Self { typed: path.clone(), path, ..self }
    }

    /// The entry at this place.
    pub fn entry(&self) -> Result<Entry, Failure> {
        browse::find_entry(self.among.vault, &self.info, &self.path).map_err(|error| self.failure(error))
    }

    /// Turns an error at this place into the command's failure. If nothing is there, the failure names the snapshot,
    /// and suggests what may have been meant.
    pub fn failure(&self, error: impl MayBeGap) -> Failure {
        let Some(gap) = error.gap() else { return error.into() };
        let snapshot = named(&self.info, self.among.zone);
        match gap {
            Gap::Match(patterns) => Failure::new(format!("nothing in snapshot {snapshot} matches {patterns}"))
                .hint(format!("See what is in it with: vault ls {}", self.info.id.short())),
            Gap::Path(path) => {
                Failure::new(format!("there is no {path} in snapshot {snapshot}")).hint(self.suggestion())
            }
        }
    }

    /// A hint at where else to look.
    fn suggestion(&self) -> String {
        let (vault, typed) = (self.among.vault, self.typed.as_slice());
        if let Some(path) = there(vault, &self.info, typed) {
            return format!("Did you mean {}?", self.spelled(&self.info, &path));
        }
        let others = self.others();
        for info in &others {
            if let Some(path) = there(vault, info, typed) {
                let snapshot = named(info, self.among.zone);
                return format!("Snapshot {snapshot} has it: {}", self.spelled(info, &path));
            }
        }
        for info in std::iter::once(&self.info).chain(others.into_iter().filter(|info| !self.is_same_source(info))) {
            if let Some(path) = near(vault, info, typed) {
                return format!("Did you mean {}?", self.spelled(info, &path));
            }
        }
        let folder = deepest(vault, &self.info, &self.path);
        match components(&self.path).last().and_then(|name| std::str::from_utf8(name).ok()) {
            Some(name) if folder.is_empty() => format!("Look for it by its name: vault find {}", quoted(name)),
            _ => format!("See what is there with: vault ls {}", self.spelled(&self.info, &folder)),
        }
    }

    fn is_same_source(&self, info: &SnapshotInfo) -> bool {
        info.body.source == self.info.body.source && info.body.host == self.info.body.host
    }

    /// The other snapshots that may have the entry, the most likely first: the newest ones of the same source, then the
    /// last one of each other source.
    fn others(&self) -> Vec<&SnapshotInfo> {
        let newest_first = || self.among.snapshots.iter().rev().filter(|info| info.id != self.info.id);
        let mut found: Vec<&SnapshotInfo> =
            newest_first().filter(|info| self.is_same_source(info)).take(OTHERS_MAX).collect();
        found.extend(last_of_each(newest_first().filter(|info| !self.is_same_source(info)), &self.info.body.host));
        found
    }

    /// A path of a snapshot in a form that can be typed: with the snapshot name that the user typed if it selects this
    /// snapshot, otherwise with its id.
    fn spelled(&self, info: &SnapshotInfo, path: &[u8]) -> String {
        let same = self.wanted.with_path(path);
        let leads = same.leads_to(&self.among, self.aim, info);
        let snapshot = if leads { self.wanted.text().to_owned() } else { info.id.short() };
        quoted(&format!("{snapshot}:{}", Shown(path)))
    }
}

/// The last snapshot of each source and host, those of `host` first.
pub fn last_of_each<'s>(newest_first: impl Iterator<Item = &'s SnapshotInfo>, host: &str) -> Vec<&'s SnapshotInfo> {
    let mut last: Vec<&SnapshotInfo> = Vec::new();
    for info in newest_first {
        if !last.iter().any(|other| other.body.source == info.body.source && other.body.host == info.body.host) {
            last.push(info);
        }
    }
    last.sort_by_key(|info| info.body.host != host);
    last
}

/// Finds a typed path in a snapshot: as it was typed, or from a folder whose path on the disk ends as the typed path
/// begins (`srv/etc` for the folder `etc` of a snapshot of `/home/me/srv`).
fn there(vault: &Vault, info: &SnapshotInfo, typed: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<&[u8]> = components(typed).collect();
    let by_ends =
        by_ends(info, &parts).map(|(root, rest)| rest.iter().fold(root.to_vec(), |path, part| join(&path, part)));
    std::iter::once(select::inside(&info.body.roots, typed)).chain(by_ends).find(|path| has(vault, info, path))
}

/// The folders that a snapshot was taken of whose paths on the disk end as the typed path begins: the name of each,
/// with the rest of the typed path.
fn by_ends<'p>(info: &'p SnapshotInfo, parts: &'p [&'p [u8]]) -> impl Iterator<Item = (&'p [u8], &'p [&'p [u8]])> {
    info.body.roots.iter().filter_map(|root| {
        let of_root: Vec<&[u8]> = components(&root.path).collect();
        let overlap = (1..=parts.len().min(of_root.len())).rev().find(|len| of_root.ends_with(&parts[..*len]))?;
        Some((root.name.as_slice(), &parts[overlap..]))
    })
}

/// The path in a snapshot that is most similar to the typed path; `None` if none is similar.
pub fn near(vault: &Vault, info: &SnapshotInfo, typed: &[u8]) -> Option<Vec<u8>> {
    let inside = select::inside(&info.body.roots, typed);
    let parts: Vec<&[u8]> = components(&inside).collect();
    if let Some(path) = corrected(vault, info, Vec::new(), &parts, false) {
        return Some(path);
    }
    let typed_parts: Vec<&[u8]> = components(typed).collect();
    let by_end =
        by_ends(info, &typed_parts).find_map(|(root, rest)| corrected(vault, info, root.to_vec(), rest, false));
    if by_end.is_some() {
        return by_end;
    }
    // The typed name of the folder that the snapshot was taken of may be misspelled.
    info.body.roots.iter().find_map(|root| {
        let of_root: Vec<&[u8]> = components(&root.path).collect();
        let (last, above) = of_root.split_last()?;
        let typed_last = std::str::from_utf8(parts.get(above.len())?).ok()?;
        let is_near = parts.starts_with(above) && nearest(typed_last, std::str::from_utf8(last)).is_some();
        let is_near = is_near && !above.is_empty();
        is_near.then(|| corrected(vault, info, root.name.clone(), &parts[of_root.len()..], true))?
    })
}

/// The typed path, or else the most similar one, if a snapshot has either.
pub fn meant(vault: &Vault, info: &SnapshotInfo, typed: &[u8]) -> Option<Vec<u8>> {
    there(vault, info, typed).or_else(|| near(vault, info, typed))
}

/// Follows these names down from a folder, taking the most similar name where one does not exist, until nothing is
/// similar. `None` if nothing was corrected.
fn corrected(
    vault: &Vault,
    info: &SnapshotInfo,
    mut path: Vec<u8>,
    parts: &[&[u8]],
    mut is_other: bool,
) -> Option<Vec<u8>> {
    for part in parts {
        let exact = join(&path, part);
        if has(vault, info, &exact) {
            path = exact;
            continue;
        }
        let Some(name) = std::str::from_utf8(part).ok().and_then(|part| like(vault, info, &path, part)) else { break };
        path = join(&path, name.as_bytes());
        is_other = true;
    }
    is_other.then_some(path)
}

/// The name in a folder that is most similar to this one.
fn like(vault: &Vault, info: &SnapshotInfo, folder: &[u8], name: &str) -> Option<String> {
    let mut names = Vec::new();
    let listed = browse::list(vault, info, folder, false, &mut |_, entry| {
        names.extend(std::str::from_utf8(&entry.name).map(str::to_owned));
        names.len() < NAMES_MAX
    });
    listed.ok()?;
    nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The deepest existing folder on the way to a path; empty for the snapshot's top folder.
fn deepest(vault: &Vault, info: &SnapshotInfo, path: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    for part in components(path) {
        let next = join(&found, part);
        if !has(vault, info, &next) {
            break;
        }
        found = next;
    }
    found
}

/// Whether a snapshot has something at a path. Unreadable entries count as missing, so they are never suggested.
fn has(vault: &Vault, info: &SnapshotInfo, path: &[u8]) -> bool {
    browse::find_entry(vault, info, path).is_ok()
}
