//! The size of folders in a snapshot, and of what is new in them: `vault du`, and the same on the page.

use serde::Serialize;

use crate::engine::query::browse::{self, BrowseError};
use crate::engine::query::diff;
use crate::engine::query::usage::{self, News, Sums};
use crate::failure::Failure;
use crate::json::{self, Name};
use crate::progress::Progress;
use crate::tree::{Entry, FileKind};
use crate::vault::{SnapshotInfo, Vault};

/// A path whose files are added up.
pub struct Wish<'a> {
    /// The snapshot.
    pub info: &'a SnapshotInfo,
    /// A path in it.
    pub path: &'a [u8],
    /// Only what is not in this snapshot, or has another content there.
    pub since: Option<&'a SnapshotInfo>,
    /// Levels below the path that get a line.
    pub depth: u32,
}

/// Adds up the files below an entry: the one at the path that is asked for.
///
/// # Errors
/// If the vault cannot be read as a whole, or the user stops it.
pub fn sums(
    vault: &Vault,
    wish: &Wish<'_>,
    entry: Entry,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Sums, Failure> {
    match (&entry.content, wish.since) {
        (_, Some(since)) => news(vault, wish, since, entry, progress),
        (Some(listing), None) if entry.kind == FileKind::Directory => {
            Ok(usage::usage(vault, listing, wish.path, wish.depth, threads, progress)?)
        }
        _ => Ok(usage::of_entry(wish.path, &entry)),
    }
}

/// The data that is new since a snapshot.
fn news(
    vault: &Vault,
    wish: &Wish<'_>,
    since: &SnapshotInfo,
    new: Entry,
    progress: &dyn Progress,
) -> Result<Sums, Failure> {
    let path = wish.path;
    let (mut old_trees, mut new_trees) = (vault.tree_reader_of([since.id])?, vault.tree_reader_of([wish.info.id])?);
    let old = match browse::entry_at(&since.body.tree, path, &mut old_trees) {
        Ok(entry) => entry,
        // All of it is new.
        Err(BrowseError::NotFound { .. }) => Entry::new(Vec::new(), FileKind::Fifo),
        Err(error) => return Err(error.into()),
    };
    diff::bring(&old, &new, &new_trees, progress);
    let mut news = News::new(path, wish.depth);
    let compared = diff::diff(path, (old, &mut old_trees), (new, &mut new_trees), &[], progress, &mut news)?;
    let mut sums = news.finish()?;
    let count = compared.broken.len() as u64;
    sums.broken = compared.broken.into_iter().next().map(|(_, error)| (count, error));
    Ok(sums)
}

#[derive(Serialize)]
struct LineJson<'a> {
    path: Name<'a>,
    kind: &'static str,
    bytes: u64,
    files: u64,
    folders: u64,
}

/// The `--json` output of `vault du`.
#[derive(Serialize)]
pub struct UsageJson<'a> {
    snapshot: String,
    /// Null without `--since`.
    since: Option<String>,
    path: Name<'a>,
    bytes: u64,
    files: u64,
    folders: u64,
    /// The entries, the largest first.
    entries: Vec<LineJson<'a>>,
}

impl<'a> UsageJson<'a> {
    /// The sums of a path, with the given number of lines.
    pub fn new(
        info: &SnapshotInfo,
        since: Option<&SnapshotInfo>,
        path: &'a [u8],
        sums: &'a Sums,
        count: usize,
    ) -> Self {
        let entries = sums.lines.iter().take(count).map(|line| LineJson {
            path: Name(&line.path),
            kind: json::kind(line.kind),
            bytes: line.usage.bytes,
            files: line.usage.files,
            folders: line.usage.folders,
        });
        Self {
            snapshot: info.id.to_string(),
            since: since.map(|since| since.id.to_string()),
            path: Name(path),
            bytes: sums.total.bytes,
            files: sums.total.files,
            folders: sums.total.folders,
            entries: entries.collect(),
        }
    }
}
