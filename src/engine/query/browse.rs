//! Reads snapshots: walks trees, lists folders, reads files.

use std::io;
use std::io::Write;

use crate::limits::PATH_DEPTH_MAX;
use crate::path;
use crate::path::{Shown, called};
use crate::progress::Progress;
use crate::read::Listing;
use crate::read::TreeReader;
use crate::read::listing::entry;
use crate::read::path::{Unread, top, way};
use crate::read::records::{Decoded, Records};
use crate::read::sparse::Layout;
use crate::tree::{ChunkSource, Entry, EntryError, FileKind, Skipped, Stream};
use crate::vault::{ReadError, SnapshotInfo, Vault};

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// The snapshot does not contain this path.
    #[error("there is no {path} in this snapshot")]
    NotFound {
        /// The path inside the snapshot.
        path: String,
    },
    /// Only regular files have content to show.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The path inside the snapshot.
        path: String,
    },
    /// It could not be read at all.
    #[error("cannot read {path}")]
    Read {
        /// The path inside the snapshot.
        path: String,
        /// The error.
        source: ReadError,
    },
    /// Some folders could not be listed; everything else was.
    #[error("{count} folders could not be listed, the first is {path}")]
    Partial {
        /// The first such folder.
        path: String,
        /// Its error.
        source: ReadError,
        /// Number of such folders.
        count: u64,
    },
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl BrowseError {
    fn read(path: &[u8], source: impl Into<ReadError>) -> Self {
        Self::Read { path: called(path), source: source.into() }
    }

    /// Whether the error is damage in the store.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Partial { source, .. } => source.is_damage(),
            _ => false,
        }
    }
}

impl From<Unread> for BrowseError {
    fn from(unread: Unread) -> Self {
        Self::read(&unread.path, unread.error)
    }
}

/// Maximum number of listings that stay open on the way down; those above are read again on the way back.
const LISTINGS_MAX: usize = 64;

/// A step of a [`TreeWalk`].
#[derive(Debug)]
pub enum Step {
    /// A folder, whose content follows up to its [`Step::Leave`].
    Enter(Entry),
    /// Anything else.
    Other(Entry),
    /// The end of the folder entered last.
    Leave,
    /// The rest of the folder entered last cannot be read; its [`Step::Leave`] comes next.
    Broken(ReadError),
    /// A folder that is nested too deeply and is skipped.
    TooDeep(Entry),
}

/// Walks a tree, depth first, in the order of the names. Memory does not grow with the number of entries, and hardly with the depth.
#[derive(Debug)]
pub struct TreeWalk {
    levels: Vec<Level>,
    path: Vec<u8>,
    broken: bool,
}

#[derive(Debug)]
struct Level {
    stream: Stream,
    /// `None` while it is closed because the walk is far below; then `last` is the folder through which it went down.
    listing: Option<Listing>,
    last: Vec<u8>,
    path_len: usize,
}

impl TreeWalk {
    /// Walks the folder with this listing. `path` is put before the paths of its content.
    pub fn new(path: &[u8], listing: &Stream) -> Self {
        let mut walk = Self { levels: Vec::new(), path: path.to_vec(), broken: false };
        walk.push(listing);
        walk
    }

    fn push(&mut self, stream: &Stream) {
        if let Some(far) = self.levels.len().checked_sub(LISTINGS_MAX) {
            let (start, end) = (self.levels[far].path_len, self.levels[far + 1].path_len);
            let name = &self.path[start..end];
            let level = &mut self.levels[far];
            level.last = name.strip_prefix(b"/").unwrap_or(name).to_vec();
            level.listing = None;
        }
        let listing = Some(Listing::new(stream));
        self.levels.push(Level { stream: stream.clone(), listing, last: Vec::new(), path_len: self.path.len() });
    }

    /// The path of the last step.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The listing of the current folder.
    pub fn listing(&self) -> Option<&Stream> {
        self.levels.last().map(|level| &level.stream)
    }

    /// Number of folders entered and not left.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Skips the content of the folder just entered; there will be no [`Step::Leave`] for it.
    pub fn skip(&mut self) {
        self.levels.pop();
    }

    /// The next step; `None` at the end.
    pub fn next<S: ChunkSource<Error = ReadError>>(&mut self, trees: &mut S) -> Option<Step> {
        let level = self.levels.last_mut()?;
        self.path.truncate(level.path_len);
        if std::mem::take(&mut self.broken) {
            self.levels.pop();
            return Some(Step::Leave);
        }
        match level.next(trees) {
            Ok(Some(entry)) => {
                if !self.path.is_empty() {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&entry.name);
                let folder = entry.content.as_ref().filter(|_| entry.kind == FileKind::Directory).cloned();
                Some(match folder {
                    None => Step::Other(entry),
                    Some(_) if self.levels.len() >= PATH_DEPTH_MAX => Step::TooDeep(entry),
                    Some(listing) => {
                        self.push(&listing);
                        Step::Enter(entry)
                    }
                })
            }
            Ok(None) => {
                self.levels.pop();
                Some(Step::Leave)
            }
            Err(error) => {
                self.broken = true;
                Some(Step::Broken(error))
            }
        }
    }
}

impl Level {
    fn next<S: ChunkSource<Error = ReadError>>(&mut self, trees: &mut S) -> Result<Option<Entry>, ReadError> {
        if let Some(listing) = &mut self.listing {
            return listing.next(trees);
        }
        let listing = self.listing.insert(Listing::new(&self.stream));
        loop {
            match listing.next(trees)? {
                Some(entry) if entry.name <= self.last => {}
                entry => return Ok(entry),
            }
        }
    }
}

/// The entries on the way to `path`, from the top folder (which has no name) to that of the path itself; `None` if there is no such path.
pub(crate) fn find_all(
    trees: &mut TreeReader<'_>,
    info: &SnapshotInfo,
    path: &[u8],
) -> Result<Option<Vec<Entry>>, BrowseError> {
    Ok(way(top(&info.body.tree), path, |listing, name| trees.entry(listing, name))?)
}

/// The entry of a snapshot at a path.
///
/// # Errors
/// If a folder on the way cannot be read, or there is no such path.
pub fn entry_at<S: ChunkSource<Error = ReadError>>(
    tree: &Stream,
    path: &[u8],
    source: &mut S,
) -> Result<Entry, BrowseError> {
    let found = way(top(tree), path, |listing, name| entry(listing, name, source))?;
    let missing = || BrowseError::NotFound { path: Shown(path).to_string() };
    found.and_then(|mut way| way.pop()).ok_or_else(missing)
}

fn reader<'v>(vault: &'v Vault, info: &SnapshotInfo) -> Result<TreeReader<'v>, BrowseError> {
    vault.tree_reader_of([info.id]).map_err(|error| BrowseError::read(b"", error))
}

fn find(trees: &mut TreeReader<'_>, info: &SnapshotInfo, path: &[u8]) -> Result<Entry, BrowseError> {
    let entry = find_all(trees, info, path)?.and_then(|mut entries| entries.pop());
    entry.ok_or_else(|| BrowseError::NotFound { path: Shown(path).to_string() })
}

/// The entry at a path inside a snapshot. The empty path is the top folder, as an entry without a name.
///
/// # Errors
/// If there is nothing at this path, or a folder on the way to it cannot be read.
pub fn find_entry(vault: &Vault, info: &SnapshotInfo, path: &[u8]) -> Result<Entry, BrowseError> {
    find(&mut reader(vault, info)?, info, path)
}

/// Calls `found` for everything in a folder (with `recursive`, also below it) with its path inside the snapshot, in the order of the
/// names, a folder before its content; if the path is not a folder, for that item itself. Stops when `found` returns `false`.
///
/// # Errors
/// If there is nothing at this path or it cannot be read; or, at the end, if some folders could not be read.
pub fn list(
    vault: &Vault,
    info: &SnapshotInfo,
    path: &[u8],
    recursive: bool,
    found: &mut dyn FnMut(&[u8], &Entry) -> bool,
) -> Result<(), BrowseError> {
    let mut trees = reader(vault, info)?;
    let path = path::components(path).collect::<Vec<_>>().join(&b'/');
    let entry = find(&mut trees, info, &path)?;
    let Some(listing) = entry.content.as_ref().filter(|_| entry.kind == FileKind::Directory) else {
        found(&path, &entry);
        return Ok(());
    };
    if recursive {
        trees.bring_trees(&[listing], &|| true);
    }
    let mut walk = TreeWalk::new(&path, listing);
    let mut broken: Option<(String, ReadError, u64)> = None;
    let mut note = |path: &[u8], error: ReadError| match &mut broken {
        Some((_, _, count)) => *count += 1,
        None => broken = Some((called(path), error, 1)),
    };
    while let Some(step) = walk.next(&mut trees) {
        match step {
            Step::Enter(entry) => {
                if !found(walk.path(), &entry) {
                    break;
                }
                if !recursive {
                    walk.skip();
                }
            }
            Step::Other(entry) => {
                if !found(walk.path(), &entry) {
                    break;
                }
            }
            Step::TooDeep(entry) => {
                let name = Shown(&entry.name).to_string();
                note(walk.path(), EntryError::Invalid { name, what: "it lies too deep" }.into());
            }
            Step::Broken(error) if walk.path() == path.as_slice() || !error.is_contained() => {
                return Err(BrowseError::read(walk.path(), error));
            }
            Step::Broken(error) => note(walk.path(), error),
            Step::Leave => {}
        }
    }
    broken.map_or(Ok(()), |(path, source, count)| Err(BrowseError::Partial { path, source, count }))
}

/// Writes the content of a regular file of any size, with zeros for its holes. Returns its length.
///
/// # Errors
/// If there is no such file, a part of it cannot be read (what comes before has been written), or the output cannot be written.
pub fn cat(
    vault: &Vault,
    info: &SnapshotInfo,
    path: &[u8],
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<u64, BrowseError> {
    let mut trees = reader(vault, info)?;
    let entry = find(&mut trees, info, path)?;
    let (Some(content), FileKind::File) = (&entry.content, entry.kind) else {
        return Err(BrowseError::NotAFile { path: Shown(path).to_string() });
    };
    let failed = |error: ReadError| BrowseError::read(path, error);
    // Protects the needed packs from a concurrent sweep. With a read-only state folder we do without.
    let _session = vault.begin_session().ok();
    let mut layout = Layout::new(&entry);
    let mut written = 0;
    let done = trees.read_ahead::<CatError>(content, |bytes, trees| {
        let mut rest = bytes;
        while !rest.is_empty() {
            if progress.stopped() {
                return Err(BrowseError::Interrupted.into());
            }
            let (at, len) = layout.next(rest.len(), trees)?;
            write_zeros(out, at - written, progress)?;
            out.write_all(&rest[..len]).map_err(BrowseError::Output)?;
            progress.counters().add(0, at + len as u64 - written);
            written = at + len as u64;
            rest = &rest[len..];
        }
        Ok(())
    });
    done.map_err(|error| match error {
        CatError::Read(error) => failed(error),
        CatError::Other(error) => error,
    })?;
    layout.finish(&mut trees).map_err(failed)?;
    write_zeros(out, entry.size - written, progress)?;
    out.flush().map_err(BrowseError::Output)?;
    Ok(entry.size)
}

/// Why a file was not written to its end.
enum CatError {
    /// It cannot be read.
    Read(ReadError),
    /// Anything else.
    Other(BrowseError),
}

impl From<ReadError> for CatError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<BrowseError> for CatError {
    fn from(error: BrowseError) -> Self {
        Self::Other(error)
    }
}

fn write_zeros(out: &mut dyn Write, mut len: u64, progress: &dyn Progress) -> Result<(), BrowseError> {
    const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    while len > 0 {
        if progress.stopped() {
            return Err(BrowseError::Interrupted);
        }
        let n = len.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..n as usize]).map_err(BrowseError::Output)?;
        len -= n;
    }
    Ok(())
}

/// Maximum length of an item in the list of skipped files: a path and a reason.
const SKIPPED_LEN_MAX: usize = 8 << 20;

/// Maximum number of items of that list to read.
const SKIPPED_MAX: usize = 1 << 20;

/// All files that could not be saved completely in a snapshot, up to the first million.
///
/// # Errors
/// If the list cannot be read.
pub fn skipped(vault: &Vault, info: &SnapshotInfo) -> Result<Vec<Skipped>, BrowseError> {
    read_skipped(&info.body.skipped_list, &mut reader(vault, info)?)
}

/// Reads a list of skipped files.
pub(crate) fn read_skipped<S: ChunkSource<Error = ReadError>>(
    stream: &Stream,
    trees: &mut S,
) -> Result<Vec<Skipped>, BrowseError> {
    let mut list = Vec::new();
    let failed = |error: ReadError| BrowseError::read(b"the list of what was skipped", error);
    let mut records = Records::new(stream);
    while list.len() < SKIPPED_MAX
        && let Some(item) = records.next(trees, decode_skipped).map_err(failed)?
    {
        list.push(item);
    }
    Ok(list)
}

/// Decodes the next item of a list of skipped files.
fn decode_skipped(bytes: &[u8], ended: bool) -> Result<Decoded<Skipped>, EntryError> {
    use rmp_serde::decode::Error::{InvalidDataRead, InvalidMarkerRead};
    if bytes.is_empty() {
        return Ok(None);
    }
    let malformed = |what: &str| EntryError::Malformed(format!("the list of what was skipped: {what}"));
    let mut cursor = io::Cursor::new(bytes);
    let mut deserializer = rmp_serde::Deserializer::new(&mut cursor);
    deserializer.set_max_depth(16);
    match <Skipped as serde::Deserialize>::deserialize(&mut deserializer) {
        Ok(item) => Ok(Some((item, cursor.position() as usize))),
        Err(InvalidMarkerRead(error) | InvalidDataRead(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            if ended || bytes.len() >= SKIPPED_LEN_MAX {
                return Err(malformed("it ends in the middle of an item"));
            }
            Ok(None)
        }
        Err(error) => Err(malformed(&error.to_string())),
    }
}
