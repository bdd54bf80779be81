//! A drill: a random sample of files is restored to a scratch folder, read back, and compared with their chunks in the snapshot, and with
//! the original files if these are unchanged.
//!
//! The odds of a file depend on its size, so that large files, which contain most of the data, are likely to be chosen and small ones
//! still have a chance. The choice uses the total weight of each distinct folder: only folders that lead to a chosen file are entered by
//! path, as a vault that contains one folder at many places has far more paths than folders.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::catalogue::names::Named;
use crate::engine::query::index::{Graph, Hand, Index, IndexError, explore};
use crate::engine::restore::{RestoreError, RestoreOptions, Target, restore};
use crate::id::ObjectName;
use crate::limits::{PATH_DEPTH_MAX, sum_of};
use crate::path;
use crate::progress::{Phase, Progress};
use crate::tree::{FileKind, Stream, Time};
use crate::vault::{Gone, ReadError, SnapshotInfo, Vault, VaultError};

/// Minimum length that a file counts with: there are many small files, and each of them can be wrong.
const WEIGHT_MIN: u64 = 64 << 10;
/// Maximum weight: a folder may claim to contain any number of files.
const WEIGHT_MAX: f64 = 1e200;
/// Number of bytes to compare at once.
const BLOCK: usize = 64 << 10;

/// Options of a drill.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DrillOptions {
    /// Number of files per snapshot.
    pub files: usize,
    /// Maximum length of a file, in bytes.
    pub len_max: u64,
    /// An empty folder; files restored into it are removed again, but not the folder itself.
    pub scratch: PathBuf,
    /// Seed of the choice: the same seed chooses the same files.
    pub seed: u64,
    /// Number of threads.
    pub threads: usize,
}

impl DrillOptions {
    /// Ten files of at most 64 MiB per snapshot, restored into this empty folder, by one thread.
    pub const fn new(scratch: PathBuf, seed: u64) -> Self {
        Self { files: 10, len_max: 64 << 20, scratch, seed, threads: 1 }
    }
}

/// A file that was not restored as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its path in the snapshot.
    pub path: Vec<u8>,
    /// The fault.
    pub what: String,
}

/// Result of a drill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrillReport {
    /// Number of files restored.
    pub files: u64,
    /// Their total size, in bytes.
    pub bytes: u64,
    /// Number of files that were read back and are as in the snapshot.
    pub verified: u64,
    /// Number of files whose originals are unchanged and equal to the restored ones.
    pub compared: u64,
    /// Files that were not restored as they were.
    pub failed: Vec<Failed>,
    /// Number of damaged folders.
    pub broken: u64,
    /// Number of folders and files that need a later version.
    pub newer: u64,
    /// Number of folders and files that have not arrived yet.
    pub late: u64,
}

impl DrillReport {
    /// Whether nothing was tried, so that nothing is known.
    pub const fn is_empty(&self) -> bool {
        self.files == 0 && self.failed.is_empty() && self.broken == 0
    }
}

/// Why there was no drill.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The vault cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A snapshot cannot be read.
    #[error("cannot read the snapshot")]
    Read(#[from] ReadError),
    /// The folders could not be walked.
    #[error(transparent)]
    Index(IndexError),
    /// A restore failed as a whole.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The scratch folder cannot be used.
    #[error("cannot use the folder {path}")]
    Scratch {
        /// The folder.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl From<IndexError> for DrillError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Read(error) => Self::Read(error),
            IndexError::Interrupted => Self::Interrupted,
            error => Self::Index(error),
        }
    }
}

/// Pseudo-random numbers from a seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number above 0, up to 1.
    #[allow(clippy::cast_precision_loss)] // 53 bits fit
    fn part(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// A chosen file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chosen {
    path: Vec<u8>,
    size: u64,
    mtime: Time,
}

/// The weight of a file in the choice; 0 if it may not be chosen.
#[allow(clippy::cast_precision_loss)] // odds need not be exact
fn weight(entry: &Named<'_>, len_max: u64) -> f64 {
    if entry.kind == FileKind::File && entry.size <= len_max { entry.size.max(WEIGHT_MIN) as f64 } else { 0.0 }
}

/// A waiting time: ordered, and different for each item.
#[derive(Debug, Clone, Copy)]
struct Wait(f64, u64);

impl PartialEq for Wait {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Wait {}

impl PartialOrd for Wait {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Wait {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

/// A waiting item: a file, or a folder that stands for the file below it that waits least.
enum Waiting {
    File(Chosen),
    Folder { path: Vec<u8>, listing: Stream, depth: usize },
}

/// Chooses files: each waits for a random time, the shorter the heavier it is, and those that wait least are chosen. The least waiting
/// time below a folder follows from the total weight of the folder; which file has it is decided only when the folder's turn comes.
struct Sample {
    count: usize,
    chance: Chance,
    chosen: Vec<Chosen>,
    /// The waiting items; never more than are still wanted, since each stands for at least one file.
    waiting: BTreeMap<Wait, Waiting>,
    next: u64,
}

impl Sample {
    const fn new(count: usize, seed: u64) -> Self {
        Self { count, chance: Chance(seed), chosen: Vec::new(), waiting: BTreeMap::new(), next: 0 }
    }

    fn wait(&mut self, time: f64, waiting: Waiting) {
        self.next += 1;
        self.waiting.insert(Wait(time, self.next), waiting);
        if self.waiting.len() + self.chosen.len() > self.count {
            self.waiting.pop_last();
        }
    }

    /// Adds the content of a folder in which the first item waits until `time`. Each item is that first one with odds by its weight.
    fn open(&mut self, time: f64, found: Vec<(f64, Waiting)>) {
        let mut left = self.chance.part() * found.iter().map(|(weight, _)| weight).sum::<f64>();
        let mut first = Some(time);
        let last = found.len().saturating_sub(1);
        for (number, (weight, waiting)) in found.into_iter().enumerate() {
            left -= weight;
            let is_first = left <= 0.0 || number == last;
            let until = first.take_if(|_| is_first).unwrap_or_else(|| time - self.chance.part().ln() / weight);
            self.wait(until, waiting);
        }
    }

    /// Continues until enough files are chosen, or all.
    fn run(
        &mut self,
        hand: &mut Hand<'_, '_>,
        graph: &Graph<f64>,
        len_max: u64,
        progress: &dyn Progress,
    ) -> Result<(), DrillError> {
        while self.chosen.len() < self.count {
            let Some((Wait(time, _), next)) = self.waiting.pop_first() else { break };
            let (above, listing, depth) = match next {
                Waiting::Folder { path, listing, depth } => (path, listing, depth),
                Waiting::File(file) => {
                    self.chosen.push(file);
                    continue;
                }
            };
            if progress.stopped() {
                return Err(DrillError::Interrupted);
            }
            let mut found = Vec::new();
            let read = hand.visit(&listing, &mut |entry| {
                let path = path::join(&above, entry.name);
                let (weight, waiting) = match &entry.listing {
                    None => {
                        let file = Chosen { path, size: entry.size, mtime: entry.mtime };
                        (weight(entry, len_max), Waiting::File(file))
                    }
                    Some(_) if depth >= PATH_DEPTH_MAX => return,
                    Some(listing) => {
                        let weight = graph.number(listing).map_or(0.0, |number| graph.nodes[number].data);
                        (weight, Waiting::Folder { path, listing: listing.clone(), depth: depth + 1 })
                    }
                };
                if weight > 0.0 {
                    found.push((weight, waiting));
                }
            });
            match read {
                // It was counted when it was weighed.
                Err(error) if error.is_contained() => {}
                read => read?,
            }
            self.open(time, found);
        }
        Ok(())
    }

    /// The chosen files, by path.
    fn finish(self) -> Vec<Chosen> {
        let mut chosen = self.chosen;
        chosen.sort_by(|a, b| a.path.cmp(&b.path));
        chosen
    }
}

/// Chooses files of a tree.
fn choose(
    index: &Index<'_>,
    (info, may_be_late): (&SnapshotInfo, bool),
    options: &DrillOptions,
    seed: u64,
    report: &mut DrillReport,
    progress: &dyn Progress,
) -> Result<Sampled, DrillError> {
    let tree = &info.body.tree;
    let mut graph = explore(index, std::slice::from_ref(tree), options.threads, progress, |sum: &mut f64, entry| {
        match entry.kind {
            FileKind::Directory => {}
            _ => *sum += weight(entry, options.len_max),
        }
    })?;
    for number in graph.upwards() {
        let below = graph.nodes[number].children.iter().map(|child| graph.nodes[*child as usize].data).sum::<f64>();
        let node = &mut graph.nodes[number];
        node.data = (node.data + below).min(WEIGHT_MAX);
        match node.broken.take().map(|error| index.judged(error, std::iter::once((info.id, may_be_late)))) {
            Some(ReadError::Gone(gone)) => return Ok(Sampled::Gone(gone)),
            Some(error) if error.is_newer() => report.newer += 1,
            Some(error) if error.is_late() => report.late += 1,
            Some(_) => report.broken += 1,
            None => {}
        }
    }
    let mut sample = Sample::new(options.files, seed);
    sample.wait(0.0, Waiting::Folder { path: Vec::new(), listing: tree.clone(), depth: 1 });
    sample.run(&mut index.hand(), &graph, options.len_max, progress)?;
    Ok(Sampled::Files(sample.finish()))
}

/// The files that were chosen of a snapshot.
enum Sampled {
    Files(Vec<Chosen>),
    /// Nothing, since it was dropped meanwhile.
    Gone(Gone),
}

/// Restores a sample of these snapshots. Those that other machines drop meanwhile are left out.
///
/// If the vault fails as a whole, nothing can be written, or the user stops it. Single files that are not restored right are listed in
/// the report.
pub fn drill(
    vault: &Vault,
    snapshots: &[&SnapshotInfo],
    options: &DrillOptions,
    progress: &dyn Progress,
) -> Result<DrillReport, DrillError> {
    let mut report = DrillReport::default();
    let mut chosen = Vec::new();
    progress.phase(Phase::Plan);
    let (index, late) = (Index::looking_again(vault)?, vault.late_among(snapshots.iter().map(|info| info.id)));
    for (number, info) in snapshots.iter().enumerate() {
        let seed = options.seed.wrapping_add(number as u64);
        match choose(&index, (info, late.contains(&info.id)), options, seed, &mut report, progress)? {
            Sampled::Files(found) => chosen.extend(found.into_iter().map(|one| (*info, one))),
            Sampled::Gone(gone) => progress.warn(&gone.left_out()),
        }
    }
    index.finish(None)?;
    let bytes = sum_of(chosen.iter().map(|(_, one)| one.size));
    progress.counters().restart(chosen.len() as u64, bytes);
    progress.phase(Phase::Restore);
    let quiet = crate::progress::Silent::default();
    let mut gone: HashSet<ObjectName> = HashSet::new();
    for (number, (info, one)) in chosen.iter().enumerate() {
        if progress.stopped() {
            return Err(DrillError::Interrupted);
        }
        if gone.contains(&info.id) {
            continue;
        }
        let folder = options.scratch.join(number.to_string());
        let tried = try_one(vault, info, one, &folder, options, &quiet, &mut report);
        let removed = match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if let Some(one) = tried? {
            gone.insert(info.id);
            progress.warn(&one.left_out());
        }
        removed.map_err(|source| DrillError::Scratch { path: folder.display().to_string(), source })?;
        progress.counters().add(1, one.size);
    }
    Ok(report)
}

/// Restores one file. Returns what became of its snapshot if that was dropped meanwhile.
fn try_one(
    vault: &Vault,
    info: &SnapshotInfo,
    one: &Chosen,
    folder: &Path,
    options: &DrillOptions,
    quiet: &dyn Progress,
    report: &mut DrillReport,
) -> Result<Option<Gone>, DrillError> {
    let wish = RestoreOptions {
        path: Some(one.path.clone()),
        verify: true,
        no_owner: true,
        threads: options.threads,
        ..RestoreOptions::new(info.id, Target::Folder(folder.to_owned()))
    };
    match restore(vault, &wish, quiet) {
        Ok(done) => {
            report.files += 1;
            report.bytes = report.bytes.saturating_add(one.size);
            report.verified += done.files_verified;
            for problem in done.problems {
                // A file that is not damaged may be on its way, or in packs of a later version.
                if !problem.damage && done.is_late {
                    report.late += 1;
                } else if !problem.damage && vault.has_newer_packs() {
                    report.newer += 1;
                } else {
                    report.failed.push(Failed { path: one.path.clone(), what: problem.what });
                }
            }
        }
        Err(RestoreError::Gone(gone)) => return Ok(Some(gone)),
        // It was known to be dropped before this file began.
        Err(RestoreError::NoSuchSnapshot { id }) => return Ok(Some(Gone::Dropped(id))),
        Err(RestoreError::Read { source, .. }) if source.is_late() => {
            report.late += 1;
            return Ok(None);
        }
        Err(error) if error.is_damage() => {
            report.failed.push(Failed { path: one.path.clone(), what: error.to_string() });
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    }
    let Some(there) = place_of(info, &one.path) else { return Ok(None) };
    let name = path::components(&one.path).last().unwrap_or_default();
    let back = folder.join(path::to_path(name));
    match compare(&there, &back, one) {
        Ok(Some(true)) => report.compared += 1,
        Ok(Some(false)) => {
            let what = "the disk has other content, though its size and time are the same".to_owned();
            report.failed.push(Failed { path: one.path.clone(), what });
        }
        // The original was changed or is gone, so it cannot be compared.
        Ok(None) | Err(_) => {}
    }
    Ok(None)
}

/// The original path of an item in a snapshot.
fn place_of(info: &SnapshotInfo, at: &[u8]) -> Option<PathBuf> {
    let mut parts = path::components(at);
    let first = parts.next()?;
    let root = info.body.roots.iter().find(|root| root.name == first && !root.path.is_empty())?;
    Some(parts.fold(path::to_path(&root.path).into_owned(), |place, name| place.join(path::to_path(name))))
}

/// Whether two files are equal; `None` if the first is not as it was when the snapshot was taken.
fn compare(there: &Path, back: &Path, one: &Chosen) -> io::Result<Option<bool>> {
    let found = fs::symlink_metadata(there)?;
    let is_same = |found: &fs::Metadata| {
        let time = found.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let time = time.map(|time| Time { secs: time.as_secs().cast_signed(), nanos: time.subsec_nanos() });
        found.is_file() && found.len() == one.size && time == Some(one.mtime)
    };
    if !is_same(&found) {
        return Ok(None);
    }
    let (mut a, mut b) = (File::open(there)?, File::open(back)?);
    let equal = equal(&mut a, &mut b)?;
    // The original may have been written to meanwhile.
    Ok((equal || is_same(&fs::symlink_metadata(there)?)).then_some(equal))
}

fn equal(a: &mut impl Read, b: &mut impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let (first, second) = (fill(a, &mut left)?, fill(b, &mut right)?);
        if left[..first] != right[..second] {
            return Ok(false);
        }
        if first == 0 {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match from.read(&mut buffer[at..])? {
            0 => break,
            read => at += read,
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_are_chosen_more_often_and_small_ones_still() {
        let (mut large, mut small) = (0, 0);
        for seed in 0..400 {
            let mut sample = Sample::new(10, seed);
            let files = (0..1000_u32).map(|number| {
                // One file in a hundred, with nearly all of the data.
                let size = if number % 100 == 0 { 64 << 20 } else { 100 };
                let file = Chosen { path: number.to_string().into_bytes(), size, mtime: Time { secs: 0, nanos: 0 } };
                (f64::from(u32::try_from(size.max(WEIGHT_MIN)).unwrap()), Waiting::File(file))
            });
            sample.open(0.0, files.collect());
            while let Some((_, Waiting::File(file))) = sample.waiting.pop_first() {
                sample.chosen.push(file);
            }
            let chosen = sample.finish();
            assert_eq!(chosen.len(), 10);
            large += chosen.iter().filter(|one| one.size > 100).count();
            small += chosen.iter().filter(|one| one.size == 100).count();
        }
        assert!(large > 2 * small && small > 100, "{large} large, {small} small");
    }

    #[test]
    fn contents_are_compared_to_the_end() {
        let check = |a: &[u8], b: &[u8]| equal(&mut &a[..], &mut &b[..]).unwrap();
        let long = vec![7; 3 * BLOCK + 5];
        assert!(check(&[], &[]) && check(&long, &long));
        assert!(!check(&long, &long[1..]) && !check(&[], &[1]));
        let mut other = long.clone();
        *other.last_mut().unwrap() = 8;
        assert!(!check(&long, &other));
    }
}
