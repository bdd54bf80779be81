//! The facts that the guard of a restore decides by: what the snapshot left out, and the program's own places.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::absence::{Omitted, skipped_paths};
use crate::engine::restore::attributes::Identity;
use crate::engine::restore::guard::{Guard, Kept};
use crate::engine::restore::run::{Halt, Run};
use crate::engine::restore::{RestoreOptions, Target};
use crate::fs::{Dir, Stat, real_path};
use crate::path::{from_os, to_path};
use crate::store::Kind;
use crate::tree::{FileKind, Root, RuleSet, Snapshot};
use crate::vault::{SnapshotInfo, TreeReader};

impl Run<'_> {
    /// Finds out what the guard of this restore has to know.
    pub(super) fn learn(&self, info: &SnapshotInfo, trees: &mut TreeReader<'_>) -> Result<Guard, Halt> {
        let body = &info.body;
        let skipped = read_skipped_paths(self, body, trees)?;
        let rules = match RuleSet::read(&body.rules, trees) {
            Ok(rules) => rules,
            Err(error) => {
                let (what, damage) = self.read(error)?;
                if self.options.delete {
                    let what = format!("what the snapshot left out is not known, so nothing is deleted: {what}");
                    self.problem(Vec::new(), what, damage);
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
            own: own_places(self),
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
    let (what, damage) = match skipped_paths(&body.skipped_list, body.skipped, trees) {
        Ok(Some(paths)) => return Ok(Some(paths)),
        Ok(None) => ("the list is too long".to_owned(), false),
        Err(error) => run.read(error)?,
    };
    if run.options.delete {
        let what = format!("what the snapshot could not read is not known, so nothing is deleted: {what}");
        run.problem(Vec::new(), what, damage);
    }
    Ok(None)
}

/// The program's own places: the vault with its folders, its state, those named by the caller, and the links that lead there.
fn own_places(run: &Run<'_>) -> Vec<(Identity, Kept)> {
    let mut own = Vec::new();
    if let Some(folder) = run.vault.store().folder() {
        add_place(&mut own, folder, Kept::Vault);
        Kind::ALL.iter().for_each(|kind| add_place(&mut own, &folder.join(kind.folder()), Kept::Vault));
    }
    add_place(&mut own, run.vault.state(), Kept::State);
    let RestoreOptions { state, configuration, .. } = run.options;
    state.iter().for_each(|path| add_place(&mut own, path, Kept::State));
    configuration.iter().for_each(|path| add_place(&mut own, path, Kept::Configuration));
    own
}

fn add_place(own: &mut Vec<(Identity, Kept)>, path: &Path, kept: Kept) {
    // Each link on the way, and the final place of the path.
    let mut paths: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
    let real = std::fs::canonicalize(path).ok();
    for path in paths.drain(..) {
        let Some(stat) = stat_of(&path) else { continue };
        if stat.kind == FileKind::Symlink {
            own.push((Identity::of(&stat), kept));
        }
    }
    if let Some(stat) = real.and_then(|real| stat_of(&real)) {
        own.push((Identity::of(&stat), kept));
    }
}

/// The item at a path: the link itself if it is one.
fn stat_of(path: &Path) -> Option<Stat> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Dir::open(parent).ok()?.stat_at(&from_os(name)).ok(),
        _ => Dir::open(path).ok()?.stat().ok(),
    }
}
