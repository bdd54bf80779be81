//! Writes a tree as an archive: one thread reads, verifies and lays out; the other writes (and compresses).

use std::collections::HashMap;
use std::io;
use std::io::Write;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::engine::archive::BLOCK;
use crate::engine::archive::write::{Member, fill, head};
use crate::engine::query::absence::{WAS_NOT_MOUNTED, skipped_paths};
use crate::engine::query::browse::{BrowseError, Step, TreeWalk, find_all};
use crate::path;
use crate::path::{Shown, called};
use crate::progress::{Phase, Progress};
use crate::read::TreeReader;
use crate::read::links::GroupReader;
use crate::read::sparse::Layout;
use crate::sync::spawn;
use crate::tree::{Entry, EntryError, FileKind};
use crate::vault::{ReadError, SnapshotInfo, Vault};

/// Files up to this length are read before their header is written, so that a damaged one can be left out.
const WHOLE_MAX: u64 = 4 << 20;
/// Maximum number of pieces that wait to be written; none is longer than [`WHOLE_MAX`] or a chunk.
const WAITING: usize = 16;
/// Maximum number of steps of the walk for which the content of small files is read together, at a far store ...
const STEPS_TOGETHER: usize = 512;
/// ... and maximum size of that content, in bytes.
const BYTES_TOGETHER: u64 = 16 << 20;
/// A file with more parts than this is written with zeros in place of its holes.
const PARTS_MAX: usize = 1 << 16;

/// An item that is not in the archive as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportProblem {
    /// The path in the snapshot.
    pub path: Vec<u8>,
    /// The problem and its effect.
    pub what: String,
    /// Whether the cause is damage in the vault.
    pub damage: bool,
}

/// Result of an export.
#[derive(Debug, Clone, Default)]
pub struct ExportReport {
    /// Number of files of all kinds except folders; each name of a file counts.
    pub files: u64,
    /// Number of folders.
    pub folders: u64,
    /// Total size of the regular files, including holes.
    pub bytes: u64,
    /// Length of the archive, before it is compressed.
    pub written: u64,
    /// The first thousand problems.
    pub problems: Vec<ExportProblem>,
    /// Number of problems.
    pub problem_count: u64,
}

impl ExportReport {
    fn add(&mut self, problem: ExportProblem) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_KEPT {
            self.problems.push(problem);
        }
    }
}

/// Maximum number of problems to keep.
const PROBLEMS_KEPT: usize = 1000;

/// Writes what a snapshot has at a path as an archive. Members have their paths in the snapshot; if `path` is not empty, their names
/// begin with its last component.
///
/// # Errors
/// If there is nothing at this path, the archive cannot be written, the store fails as a whole, or the user stops it. Damaged files and
/// folders are listed in the report.
pub fn export(
    vault: &Vault,
    info: &SnapshotInfo,
    path: &[u8],
    out: &mut (dyn Write + Send),
    progress: &dyn Progress,
) -> Result<ExportReport, BrowseError> {
    let read = |source: ReadError| BrowseError::Read { path: called(path), source };
    let mut trees = vault.tree_reader_of([info.id]).map_err(read)?;
    let found = find_all(&mut trees, info, path)?.and_then(|mut entries| entries.pop());
    let entry = found.ok_or_else(|| BrowseError::NotFound { path: Shown(path).to_string() })?;
    // Protects the needed packs from a concurrent sweep. With a read-only state folder we do without.
    let _session = vault.begin_session().ok();
    let goal = if path.is_empty() { (info.body.files, info.body.bytes) } else { (0, 0) };
    progress.counters().restart(goal.0, goal.1);
    progress.phase(Phase::Restore);
    let path: Vec<u8> = path::components(path).collect::<Vec<_>>().join(&b'/');
    let strip = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let stop = AtomicBool::new(false);
    let mut report = ExportReport::default();
    if info.has_lost_root() {
        let skipped = skipped_paths(&info.body.skipped_list, info.body.skipped, &mut trees).unwrap_or(None);
        for root in info.lost_at(&path, skipped.as_ref()) {
            report.add(ExportProblem { path: root.name.clone(), what: WAS_NOT_MOUNTED.to_owned(), damage: false });
        }
    }
    let (pieces, arriving) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let reading = spawn(scope, || {
            let mut packer = Packer {
                trees,
                pieces,
                stop: &stop,
                progress,
                strip,
                groups: HashMap::new(),
                firsts: Vec::new(),
                report,
            };
            packer.load_links(info, &path)?;
            packer.pack(&path, entry)?;
            Ok(packer.report)
        });
        let written = write_all(arriving, out);
        if written.is_err() {
            stop.store(true, Relaxed);
        }
        let read = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
        let written = written.map_err(BrowseError::Output)?;
        match read {
            Ok(report) => Ok(ExportReport { written, ..report }),
            Err(Halt::Why(error)) => Err(error),
            Err(Halt::Untaken) => Err(BrowseError::Output(io::Error::other("nobody takes the archive"))),
        }
    })
}

/// Why packing ended early.
enum Halt {
    /// This reason.
    Why(BrowseError),
    /// The pieces are no longer received; the receiver knows why.
    Untaken,
}

impl From<BrowseError> for Halt {
    fn from(error: BrowseError) -> Self {
        Self::Why(error)
    }
}

/// Writes the pieces, and the end of the archive after the last one.
fn write_all(arriving: Receiver<Option<Vec<u8>>>, out: &mut dyn Write) -> io::Result<u64> {
    let mut written = 0;
    for piece in arriving {
        // An archive without its end can be recognised as incomplete.
        let piece = piece.unwrap_or_else(|| vec![0; 2 * BLOCK]);
        out.write_all(&piece)?;
        written += piece.len() as u64;
    }
    out.flush()?;
    Ok(written)
}

struct Packer<'v, 'p> {
    trees: TreeReader<'v>,
    pieces: SyncSender<Option<Vec<u8>>>,
    stop: &'p AtomicBool,
    progress: &'p dyn Progress,
    /// Number of bytes to strip from the start of each path.
    strip: usize,
    /// Hashes of the paths of files with several names → number of the file.
    groups: HashMap<[u8; 16], u32>,
    /// The name under which each of these files is in the archive.
    firsts: Vec<Option<Vec<u8>>>,
    report: ExportReport,
}

fn hash(path: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(path).as_bytes()[..16]);
    out
}

/// Passes a piece to the writer.
fn hand_over(
    pieces: &SyncSender<Option<Vec<u8>>>,
    piece: Vec<u8>,
    stop: &AtomicBool,
    progress: &dyn Progress,
) -> Result<(), Halt> {
    if progress.stopped() {
        return Err(BrowseError::Interrupted.into());
    }
    if stop.load(Relaxed) {
        return Err(Halt::Untaken);
    }
    pieces.send(Some(piece)).map_err(|_| Halt::Untaken)
}

impl Packer<'_, '_> {
    fn send(&mut self, piece: Vec<u8>) -> Result<(), Halt> {
        hand_over(&self.pieces, piece, self.stop, self.progress)
    }

    fn problem(&mut self, path: &[u8], what: String, damage: bool) {
        self.report.add(ExportProblem { path: path.to_vec(), what, damage });
    }

    /// Records damage; any other error ends the export.
    fn damaged(&mut self, path: &[u8], what: &str, error: ReadError) -> Result<(), Halt> {
        if !error.is_contained() {
            return Err(BrowseError::Read { path: called(path), source: error }.into());
        }
        self.problem(path, format!("{what}: {error}"), error.is_damage());
        Ok(())
    }

    fn load_links(&mut self, info: &SnapshotInfo, top: &[u8]) -> Result<(), Halt> {
        let mut reader = GroupReader::new(&info.body.links);
        loop {
            match reader.next(&mut self.trees) {
                Ok(Some((first, path))) => {
                    if first || self.firsts.is_empty() {
                        self.firsts.push(None);
                    }
                    if path.starts_with(top) {
                        self.groups.insert(hash(&path), self.firsts.len() as u32 - 1);
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => return self.damaged(b"", "hard links are exported as files of their own", error),
            }
        }
    }

    fn pack(&mut self, path: &[u8], entry: Entry) -> Result<(), Halt> {
        let listing = entry.content.clone().filter(|_| entry.kind == FileKind::Directory);
        if !path.is_empty() {
            self.member(path, &entry)?;
        }
        let Some(listing) = listing else { return self.end() };
        let progress = self.progress;
        self.trees.bring_trees(&[&listing], &|| !progress.stopped());
        let mut walk = TreeWalk::new(path, &listing);
        let (mut steps, mut bytes) = (Vec::new(), 0);
        while let Some(step) = walk.next(&mut self.trees) {
            if let Step::Other(entry) = &step {
                bytes += entry.content.as_ref().map_or(0, |content| content.len);
            }
            steps.push((walk.path().to_vec(), step));
            if steps.len() >= STEPS_TOGETHER || bytes >= BYTES_TOGETHER {
                self.steps(std::mem::take(&mut steps))?;
                bytes = 0;
            }
        }
        self.steps(steps)?;
        self.end()
    }

    /// Writes what a part of the walk has met. The content of small files is read together.
    fn steps(&mut self, steps: Vec<(Vec<u8>, Step)>) -> Result<(), Halt> {
        let contents = steps.iter().filter_map(|(_, step)| match step {
            Step::Other(entry) if entry.kind == FileKind::File => entry.content.as_ref(),
            _ => None,
        });
        self.trees.bring_small(contents);
        for (path, step) in steps {
            if self.progress.stopped() {
                return Err(BrowseError::Interrupted.into());
            }
            match step {
                Step::Enter(entry) | Step::Other(entry) => self.member(&path, &entry)?,
                Step::Leave => {}
                Step::Broken(error) => self.damaged(&path, "not all that is in it is exported", error)?,
                Step::TooDeep(entry) => {
                    let name = Shown(&entry.name).to_string();
                    let error = EntryError::Invalid { name, what: "it lies too deep" }.into();
                    self.damaged(&path, "it is left out", error)?;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Halt> {
        self.pieces.send(None).map_err(|_| Halt::Untaken)
    }

    fn member(&mut self, path: &[u8], entry: &Entry) -> Result<(), Halt> {
        let name = path[self.strip..].to_vec();
        let group = match entry.kind {
            FileKind::Directory => None,
            _ if self.groups.is_empty() => None,
            _ => self.groups.get(&hash(path)).copied(),
        };
        let link = group.and_then(|group| self.firsts[group as usize].clone());
        let member = Member { path: &name, entry, link: link.as_deref(), sparse: None };
        if link.is_some() || entry.kind != FileKind::File {
            let Some(piece) = head(&member) else {
                self.problem(path, "archives cannot hold sockets: it is left out".to_owned(), false);
                return Ok(());
            };
            self.send(piece)?;
        } else if !self.file(path, member)? {
            return Ok(());
        }
        // Only now may other names refer to it.
        if let (None, Some(group)) = (&link, group) {
            self.firsts[group as usize] = Some(name);
        }
        if entry.kind == FileKind::Directory {
            self.report.folders += 1;
        } else {
            self.report.files += 1;
            self.report.bytes = self.report.bytes.saturating_add(entry.size);
            self.progress.counters().add(1, 0);
        }
        Ok(())
    }

    /// Writes a regular file; returns `false` if it had to be left out.
    fn file(&mut self, path: &[u8], member: Member<'_>) -> Result<bool, Halt> {
        let entry = member.entry;
        let parts = match self.parts(entry) {
            Ok(parts) => parts,
            Err(error) => return self.damaged(path, "it is left out", error).map(|()| false),
        };
        let sparse = parts.as_deref();
        let Some(mut piece) = head(&Member { sparse, ..member }) else { return Ok(false) };
        let whole = [(0, entry.size)];
        let parts = sparse.unwrap_or(&whole);
        let len: u64 = parts.iter().map(|(_, len)| len).sum();
        let mut content = Content { parts, part: 0, at: 0 };
        if len <= WHOLE_MAX {
            let result = content.read(entry, &mut self.trees, &mut |bytes| {
                piece.extend_from_slice(bytes);
                Ok(())
            });
            match result {
                Ok(()) => {}
                Err(ContentError::Read(error)) => return self.damaged(path, "it is left out", error).map(|()| false),
                Err(ContentError::Send(error)) => return Err(error),
            }
            self.progress.counters().add(0, entry.size);
            fill(&mut piece);
            return self.send(piece).map(|()| true);
        }
        let mut sent = 0;
        let (pieces, stop, progress) = (self.pieces.clone(), self.stop, self.progress);
        let send = |bytes: Vec<u8>| hand_over(&pieces, bytes, stop, progress);
        send(piece)?;
        let result = content.read(entry, &mut self.trees, &mut |bytes| {
            sent += bytes.len() as u64;
            progress.counters().add(0, bytes.len() as u64);
            send(bytes.to_vec())
        });
        match result {
            Ok(()) => {}
            Err(ContentError::Send(error)) => return Err(error),
            // The header already gives its length, so the rest has to be filled up.
            Err(ContentError::Read(error)) => {
                let what = format!("its content is cut off at {sent} bytes, and filled up with zeros");
                self.damaged(path, &what, error)?;
                while sent < len {
                    let zeros = (len - sent).min(1 << 20);
                    send(vec![0; zeros as usize])?;
                    sent += zeros;
                }
            }
        }
        let rest = (len.next_multiple_of(BLOCK as u64) - len) as usize;
        if rest > 0 {
            send(vec![0; rest])?;
        }
        Ok(true)
    }

    /// The ranges of a sparse file that have data, widened to whole blocks; `None` if the file is to be written in full.
    fn parts(&mut self, entry: &Entry) -> Result<Option<Vec<(u64, u64)>>, ReadError> {
        let (Some(_), Some(content)) = (&entry.holes, &entry.content) else { return Ok(None) };
        let mut layout = Layout::new(entry);
        let mut parts: Vec<(u64, u64)> = Vec::new();
        let mut rest = content.len;
        while rest > 0 {
            let (at, len) = layout.next(usize::try_from(rest).unwrap_or(usize::MAX), &mut self.trees)?;
            rest -= len as u64;
            let start = at - at % BLOCK as u64;
            let end = (at + len as u64).next_multiple_of(BLOCK as u64).min(entry.size);
            match parts.last_mut() {
                Some((last, len)) if *last + *len >= start => *len = end - *last,
                _ => parts.push((start, end - start)),
            }
            if parts.len() > PARTS_MAX {
                return Ok(None);
            }
        }
        Ok(Some(parts))
    }
}

enum ContentError {
    Read(ReadError),
    Send(Halt),
}

impl From<ReadError> for ContentError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Writes the content of a file as an archive has it: only the bytes in its parts.
struct Content<'p> {
    parts: &'p [(u64, u64)],
    part: usize,
    /// Offset up to which the file has been written.
    at: u64,
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Content<'_> {
    fn read(
        &mut self,
        entry: &Entry,
        trees: &mut TreeReader<'_>,
        put: &mut dyn FnMut(&[u8]) -> Result<(), Halt>,
    ) -> Result<(), ContentError> {
        let Some(content) = &entry.content else { return Ok(()) };
        let mut layout = Layout::new(entry);
        trees.read_ahead::<ContentError>(content, |bytes, trees| {
            let mut rest = bytes;
            while !rest.is_empty() {
                let (at, len) = layout.next(rest.len(), trees)?;
                self.zeros_to(at, put)?;
                put(&rest[..len]).map_err(ContentError::Send)?;
                self.at = at + len as u64;
                rest = &rest[len..];
            }
            Ok(())
        })?;
        layout.finish(trees)?;
        self.zeros_to(entry.size, put)
    }

    /// Writes zeros up to an offset, but only inside parts.
    fn zeros_to(&mut self, to: u64, put: &mut dyn FnMut(&[u8]) -> Result<(), Halt>) -> Result<(), ContentError> {
        while let Some((start, len)) = self.parts.get(self.part) {
            let (mut from, until) = (self.at.max(*start), to.min(start + len));
            while from < until {
                let zeros = (until - from).min(ZEROS.len() as u64);
                put(&ZEROS[..zeros as usize]).map_err(ContentError::Send)?;
                from += zeros;
            }
            if to < start + len {
                break;
            }
            self.part += 1;
        }
        self.at = to;
        Ok(())
    }
}
