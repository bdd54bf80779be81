//! The facts that the guard of a restore decides by: what the snapshot left out, and the program's own places.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::engine::query::absence::{Omitted, WAS_NOT_MOUNTED, skipped_paths};
use crate::engine::restore::attributes::Identity;
use crate::engine::restore::guard::{Guard, Kept};
use crate::engine::restore::run::{Halt, Loss, Run};
use crate::engine::restore::{RestoreError, RestoreOptions, Target};
use crate::fs::{Dir, Stat, real_path};
use crate::path::{from_os, to_path};
use crate::read::TreeReader;
use crate::store::Kind;
use crate::tree::{FileKind, Root, RuleSet, Snapshot};
use crate::vault::SnapshotInfo;

impl Run<'_> {
    /// Tells of the wanted roots that were probably not mounted when the snapshot was taken: what comes back of them is not what the user
    /// means.
    pub(super) fn tell_of_lost_roots(&self, info: &SnapshotInfo) {
        let path = self.options.path.as_deref().unwrap_or_default();
        for root in info.lost_at(path, self.guard().omitted.skipped.as_ref()) {
            if self.selection.may_be_in(&root.name) {
                self.problem(root.name.clone(), WAS_NOT_MOUNTED.to_owned(), false);
            }
        }
    }

    /// Finds out what the guard of this restore has to know.
    pub(super) fn learn(&self, info: &SnapshotInfo, trees: &mut TreeReader<'_>) -> Result<Guard, Halt> {
        let body = &info.body;
        let skipped = read_skipped_paths(self, body, trees)?;
        let rules = match RuleSet::read(&body.rules, trees) {
            Ok(rules) => rules,
            Err(error) => {
                let Loss { what, is_damage } = self.read(error)?;
                if self.options.delete {
                    let what = format!("what the snapshot left out is not known, so nothing is deleted: {what}");
                    self.problem(Vec::new(), what, is_damage);
                }
                None
            }
        };
        let roots = body.roots.iter();
        let is_in_place = matches!(self.options.target, Target::InPlace);
        let roots = roots.map(|root| {
            let why =
                if root.lost { Some(Kept::Lost) } else { (is_in_place && has_moved(root)).then_some(Kept::Elsewhere) };
            (root.name.clone(), to_path(&root.path).into_owned(), why)
        });
        let roots = roots.collect();
        Ok(Guard {
            own: own_places(self)?,
            omitted: Omitted::new(skipped, rules),
            today: self.options.today.clone(),
            roots,
            delete_excluded: self.options.delete_excluded,
        })
    }
}

/// Whether the path of a root leads to another place than when the snapshot was taken.
fn has_moved(root: &Root) -> bool {
    match real_path(&to_path(&root.path)) {
        Ok(real) => real != *to_path(root.place()),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn read_skipped_paths(
    run: &Run<'_>,
    body: &Snapshot,
    trees: &mut TreeReader<'_>,
) -> Result<Option<BTreeSet<Vec<u8>>>, Halt> {
    let Loss { what, is_damage } = match skipped_paths(&body.skipped_list, body.skipped, trees) {
        Ok(Some(paths)) => return Ok(Some(paths)),
        Ok(None) => Loss::other("the list is too long"),
        Err(error) => run.read(error)?,
    };
    if run.options.delete {
        let what = format!("what the snapshot could not read is not known, so nothing is deleted: {what}");
        run.problem(Vec::new(), what, is_damage);
    }
    Ok(None)
}

/// The program's own places: the vault with its folders, its state, those named by the caller, and the links that lead there.
fn own_places(run: &Run<'_>) -> Result<Vec<(Identity, Kept)>, Halt> {
    let mut own = Vec::new();
    let mut add = |path: &Path, kept| {
        add_place(&mut own, path, kept)
            .map_err(|source| run.fail(RestoreError::OwnPlace { path: path.to_owned(), source }))
    };
    if let Some(folder) = run.vault.store().folder() {
        add(folder, Kept::Vault)?;
        Kind::ALL.iter().try_for_each(|kind| add(&folder.join(kind.folder()), Kept::Vault))?;
    }
    add(run.vault.state(), Kept::State)?;
    let RestoreOptions { state, configuration, .. } = run.options;
    state.iter().try_for_each(|path| add(path, Kept::State))?;
    configuration.iter().try_for_each(|path| add(path, Kept::Configuration))?;
    Ok(own)
}

/// Adds the final place of a path, if it exists, and each link on the way.
fn add_place(own: &mut Vec<(Identity, Kept)>, path: &Path, kept: Kept) -> io::Result<()> {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    // A link whose folder cannot be read is not protected. The place itself is.
    let links = path.ancestors().filter_map(|path| stat_of(path).ok()).filter(|stat| stat.kind == FileKind::Symlink);
    own.extend(links.map(|stat| (Identity::of(&stat), kept)));
    let place = std::fs::canonicalize(path).and_then(|real| {
        let folder = Dir::open(&real).and_then(|dir| dir.stat());
        folder.or_else(|_| stat_of(&real))
    });
    match place.map_err(|error| (error.kind(), error)) {
        Ok(stat) => own.push((Identity::of(&stat), kept)),
        // What this user cannot reach, he cannot remove either.
        Err((NotFound | NotADirectory | PermissionDenied, _)) => {}
        Err((_, error)) => return Err(error),
    }
    Ok(())
}

/// The item at a path: the link itself if it is one.
fn stat_of(path: &Path) -> io::Result<Stat> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Dir::open(parent)?.stat_at(&from_os(name)),
        _ => Dir::open(path)?.stat(),
    }
}
