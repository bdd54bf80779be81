//! Takes a snapshot (SPEC §8): walks the source, compares it with the stat cache, reads changed files, stores them, and writes the
//! record.

pub mod walk;
pub(crate) mod presence;
pub mod why;
pub mod live;

pub use crate::engine::snapshot::presence::Empty;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::catalogue::{Catalogue, CatalogueError, Reader};
use crate::engine::patterns::exclude::{ExcludeOptions, PatternError, Rules};
use crate::engine::snapshot::presence::{Presence, is_future};
use crate::engine::snapshot::walk::{Found, LeftOut, MountPoints, TAKEN_OUT, Walk, Wanted};
use crate::fs::{Dir, OwnerNames, is_removable_disk, real_path};
use crate::id::{ChunkId, ObjectName};
use crate::log::RecordBody;
use crate::progress::{Phase, Progress};
use crate::seal::random;
use crate::sync::lock;
use crate::tree::{Entry, FileKind, Root, RuleSet, Skipped, Snapshot, Stream, Time, Verdict};
use crate::vault::session::Session;
use crate::vault::{ReadError, SnapshotInfo, Vault, VaultError};
use crate::write::depot::{self, Depot, DepotOptions, Published};
use crate::write::file::{Feed, ReadFailed, read_large};
use crate::write::tree::{SkippedList, store_links, store_listing};
use crate::write::trust::{VerifyOthers, pay_debts};

/// An item to snapshot.
pub enum Input {
    /// A path of this machine.
    Path {
        /// Name in the snapshot's top folder.
        name: Vec<u8>,
        /// The absolute path. A symbolic link is followed here, and only here.
        path: PathBuf,
        /// If given, only these paths (relative to `path`, with everything below them) are included.
        only: Option<Vec<Vec<u8>>>,
    },
    /// Bytes from another source (standard input, the output of a command), stored as one file.
    Reader {
        /// Name in the snapshot's top folder.
        name: Vec<u8>,
        /// The source of the bytes.
        reader: Box<dyn std::io::Read + Send>,
        /// Called when the reader has ended; an error (of the command, say) fails the snapshot.
        finish: Box<dyn FnOnce() -> Result<(), String> + Send>,
        /// Whether it may be empty. Otherwise an empty file is reported, as the content is probably missing.
        may_be_empty: bool,
    },
}

/// Options of a snapshot.
#[non_exhaustive]
pub struct SnapshotOptions<'a> {
    /// Name of the source.
    pub source: String,
    /// The items to include, at least one; their names must differ.
    pub inputs: Vec<Input>,
    /// The date of the snapshot.
    pub time: Time,
    /// Whether a person gave that date, so that it says when the content was current. Otherwise it is the clock's.
    pub given: bool,
    /// The clock. Used for the duration and to detect files changed during the snapshot.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// Tags.
    pub tags: Vec<String>,
    /// A description by the user.
    pub description: String,
    /// The rules for leaving out.
    pub exclude: ExcludeOptions,
    /// When a path that holds nothing is taken for one that is not there.
    pub empty: Empty,
    /// Do not write a record if the tree is the same as in the source's last snapshot.
    pub skip_if_unchanged: bool,
    /// Walk and count, but store nothing.
    pub dry_run: bool,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Open, decompress and hash every new segment before its pack is put.
    pub verify: bool,
    /// How packs that this machine did not put are verified before the snapshot relies on them.
    pub others: VerifyOthers,
    /// Read every file, even if the stat cache says that it did not change.
    pub read_all: bool,
    /// Read pipes and devices to their ends, and store their content as files.
    pub read_special: bool,
    /// Number of threads that read, compress and seal.
    pub threads: usize,
}

impl<'a> SnapshotOptions<'a> {
    /// A snapshot of these items as of now, without rules for leaving out, by one thread.
    pub fn new(source: impl Into<String>, inputs: Vec<Input>, clock: &'a (dyn Fn() -> Time + Sync)) -> Self {
        Self {
            source: source.into(),
            inputs,
            time: clock(),
            given: false,
            clock,
            tags: Vec::new(),
            description: String::new(),
            exclude: ExcludeOptions::default(),
            empty: Empty::IfItWasFull,
            skip_if_unchanged: false,
            dry_run: false,
            level: crate::limits::LEVEL,
            verify: true,
            others: VerifyOthers::Sample,
            read_all: false,
            read_special: false,
            threads: 1,
        }
    }
}

/// Result of a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotReport {
    /// The snapshot's id; `None` for a dry run, or if nothing changed and such a snapshot was to be skipped.
    pub id: Option<ObjectName>,
    /// The body of the record, as it was or would have been written.
    pub snapshot: Snapshot,
    /// The first `SKIPPED_SHOWN` files that were skipped or are torn; the snapshot lists them all.
    pub skipped: Vec<Skipped>,
    /// The source's last snapshot, if it has the same tree.
    pub same: Option<ObjectName>,
    /// Folders whose content was left out because they are on another file system.
    pub left_out: LeftOut,
}

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A path to include is missing or cannot be read. It is never treated as empty.
    #[error("cannot read {path}")]
    Root {
        /// The path.
        path: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// No items, or two items with the same name.
    #[error("{0}")]
    Inputs(String),
    /// The given date is in the future.
    #[error("the date that was given lies in the future")]
    Future,
    /// An exclude pattern is not valid.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The source of a stream failed (a command, say).
    #[error("{name} could not be read: {what}")]
    Feed {
        /// Name of the file in the snapshot.
        name: String,
        /// The error.
        what: String,
    },
    /// The store, the catalogue or the state folder failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Stored trees could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Packs disappeared from the store at every attempt to take the snapshot.
    #[error("packs keep vanishing from the store while the snapshot is taken")]
    Unsettled,
    /// No threads could be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// Maximum lag of timestamps behind the clock, in nanoseconds: the kernel's clock for timestamps is only as fine as its tick.
const CLOCK_TICK: i64 = 100_000_000;
/// Maximum number of attempts, if packs that the snapshot relies on disappear.
const ATTEMPTS: usize = 5;

/// Takes a snapshot.
///
/// # Errors
/// If no snapshot was taken. Single files that cannot be read are listed in it instead.
pub fn snapshot(
    vault: &Vault,
    mut options: SnapshotOptions<'_>,
    progress: &dyn Progress,
) -> Result<SnapshotReport, SnapshotError> {
    let begun = prepare(vault, &options, progress)?;
    let (paths, mut readers) = by_kind(std::mem::take(&mut options.inputs));
    let snapshots = vault.snapshots();
    let mut presence = Presence::load(vault);
    let lost: Vec<Option<&'static str>> = paths
        .iter()
        .map(|SourcePath { path, only, .. }| {
            let empty = if only.is_some() { Empty::Accepted } else { options.empty };
            presence.look(vault, &snapshots, &options.source, path, empty, options.read_special)
        })
        .collect();
    let mounts = presence.below(&options.source, options.empty == Empty::Accepted);
    let host = &vault.identity().host;
    let previous = snapshots.into_iter().rfind(|other| other.body.source == options.source && other.body.host == *host);
    let goals = previous.as_ref().map_or((0, 0), |other| (other.body.files, other.body.bytes));
    progress.counters().restart(goals.0, goals.1);
    progress.phase(Phase::Snapshot);
    // Bytes from other sources can be read only once, so their entries are kept for further attempts.
    let mut fed = Vec::new();
    for _ in 0..ATTEMPTS {
        let session = if options.dry_run { None } else { Some(vault.begin_writing((options.clock)(), progress)?) };
        if session.is_some() {
            pay_debts(vault, options.others, progress)?;
        }
        let unusable = vault.unusable();
        let usable = vault.pack_names().into_iter().filter(|name| !unusable.contains(name)).collect();
        let pass = Pass {
            vault,
            options: &options,
            progress,
            paths: &paths,
            lost: &lost,
            mounts: &mounts,
            begun,
            session: session.as_ref(),
            keep_trees: false,
        };
        let taken = pass.take(&mut readers, &mut fed)?;
        let body = pass.body(&taken, begun);
        let same = previous.as_ref().filter(|other| has_same_trees(other, &body)).map(|other| other.id);
        let report = |id| taken.report(id, &body, same);
        if options.dry_run {
            return Ok(report(None));
        }
        if same.is_some() && options.skip_if_unchanged {
            presence.remember(&options.source, &mounts)?;
            return Ok(report(None));
        }
        if let Some(id) = pass.publish(&body, usable, &taken.published.packs)? {
            remember(vault, &taken, session)?;
            presence.remember(&options.source, &mounts)?;
            if !taken.published.packs.is_empty() {
                vault.tend_index(progress);
            }
            return Ok(report(Some(id)));
        }
        progress.detail("packs went away while the snapshot was taken: it is taken again");
    }
    Err(SnapshotError::Unsettled)
}

/// Refuses what cannot become a snapshot, reads what this machine does not know of the vault yet, and mends the VAULT file if it was found
/// bad. Returns the time at which the work begins.
fn prepare(vault: &Vault, options: &SnapshotOptions<'_>, progress: &dyn Progress) -> Result<Time, SnapshotError> {
    check_inputs(&options.inputs)?;
    let begun = (options.clock)();
    if is_future(options.given, options.time, begun) {
        return Err(SnapshotError::Future);
    }
    vault.findings().iter().for_each(|finding| progress.warn(&finding.to_string()));
    vault.know_all(progress)?;
    if !options.dry_run {
        vault.mend_vault_file_if_found_bad(progress)?;
    }
    Ok(begun)
}

/// The trees of a source as it is now; nothing of them is stored.
pub(crate) struct Looked {
    /// The listing of the top folder.
    pub(crate) tree: Stream,
    /// The list of files that could not be read.
    pub(crate) skipped_list: Stream,
    /// Number of these files.
    pub(crate) skipped: u64,
    /// The rules for leaving out, and the paths left out.
    pub(crate) rules: Stream,
    /// The chunks of the trees that are not in the store.
    pub(crate) trees: HashMap<ChunkId, Vec<u8>>,
}

/// Scans a source as a dry run does, and keeps new parts of its trees in memory. Only paths can be scanned.
///
/// # Errors
/// As [`snapshot`].
pub(crate) fn look(
    vault: &Vault,
    mut options: SnapshotOptions<'_>,
    progress: &dyn Progress,
) -> Result<Looked, SnapshotError> {
    check_inputs(&options.inputs)?;
    options.dry_run = true;
    let (paths, _) = by_kind(std::mem::take(&mut options.inputs));
    vault.know_all(progress)?;
    progress.counters().restart(0, 0);
    progress.phase(Phase::Snapshot);
    let begun = (options.clock)();
    let pass = Pass {
        vault,
        options: &options,
        progress,
        paths: &paths,
        lost: &[],
        mounts: &MountPoints::default(),
        begun,
        session: None,
        keep_trees: true,
    };
    let taken = pass.take(&mut Vec::new(), &mut Vec::new())?;
    Ok(Looked {
        tree: taken.tree,
        skipped_list: taken.skipped_list,
        skipped: taken.skipped_count,
        rules: taken.rules,
        trees: taken.published.trees,
    })
}

/// Marks the rows that this run wrote into the stat cache as valid.
fn remember(vault: &Vault, taken: &Taken, session: Option<Session>) -> Result<(), VaultError> {
    drop(session);
    let txn = vault.catalogue().write()?;
    Catalogue::end_session(&txn, taken.session, taken.epoch)?;
    txn.commit().map_err(CatalogueError::from)?;
    Ok(())
}

fn check_inputs(inputs: &[Input]) -> Result<(), SnapshotError> {
    let mut names = BTreeSet::new();
    for input in inputs {
        let (Input::Path { name, .. } | Input::Reader { name, .. }) = input;
        let shown = crate::path::Shown(name);
        crate::path::check_name(name).map_err(|error| SnapshotError::Inputs(format!("{shown}: {error}")))?;
        if !names.insert(name) {
            return Err(SnapshotError::Inputs(format!("two things to snapshot have the name {shown}")));
        }
    }
    if inputs.is_empty() { Err(SnapshotError::Inputs("there is nothing to snapshot".to_owned())) } else { Ok(()) }
}

/// A path to include.
struct SourcePath {
    name: Vec<u8>,
    path: PathBuf,
    only: Option<Arc<Wanted>>,
}

/// Bytes from another source to include.
struct Feeding {
    name: Vec<u8>,
    reader: Box<dyn std::io::Read + Send>,
    finish: Box<dyn FnOnce() -> Result<(), String> + Send>,
    may_be_empty: bool,
}

/// The items to snapshot, by kind: paths, and bytes from other sources.
fn by_kind(inputs: Vec<Input>) -> (Vec<SourcePath>, Vec<Feeding>) {
    let (mut paths, mut readers) = (Vec::new(), Vec::new());
    for input in inputs {
        match input {
            Input::Path { name, path, only } => {
                paths.push(SourcePath { name, path, only: only.map(|only| Arc::new(Wanted::new(&only))) });
            }
            Input::Reader { name, reader, finish, may_be_empty } => {
                readers.push(Feeding { name, reader, finish, may_be_empty });
            }
        }
    }
    (paths, readers)
}

/// The stored result of a [`Feeding`].
struct Fed {
    entry: Entry,
    /// It is empty and should not be.
    lacking: bool,
}

/// Why a run ended early.
pub(crate) type Ended<E = SnapshotError> = depot::Ended<E>;

impl Ended {
    fn vault(error: VaultError) -> Self {
        Self::Why(error.into())
    }
}

/// One attempt at a snapshot.
struct Pass<'p> {
    vault: &'p Vault,
    options: &'p SnapshotOptions<'p>,
    progress: &'p dyn Progress,
    paths: &'p [SourcePath],
    /// For each path, why its content is probably missing, if so.
    lost: &'p [Option<&'static str>],
    mounts: &'p MountPoints,
    begun: Time,
    session: Option<&'p Session>,
    keep_trees: bool,
}

/// The result of an attempt.
struct Taken {
    tree: Stream,
    links: Stream,
    skipped_list: Stream,
    rules: Stream,
    skipped_count: u64,
    skipped: Vec<Skipped>,
    left_out: LeftOut,
    found: Found,
    published: Published,
    roots: Vec<Root>,
    session: u64,
    epoch: u64,
}

impl Taken {
    /// The report of an attempt that ended with this snapshot, if any.
    fn report(&self, id: Option<ObjectName>, body: &Snapshot, same: Option<ObjectName>) -> SnapshotReport {
        SnapshotReport {
            id,
            snapshot: body.clone(),
            skipped: self.skipped.clone(),
            same,
            left_out: self.left_out.clone(),
        }
    }
}

impl Pass<'_> {
    fn take(&self, readers: &mut Vec<Feeding>, fed: &mut Vec<Fed>) -> Result<Taken, SnapshotError> {
        let options = self.options;
        let threads = options.threads.max(1);
        let depot_options = DepotOptions {
            level: options.level,
            verify: options.verify,
            dry_run: options.dry_run,
            keep_trees: self.keep_trees,
            others: options.others,
            threads,
            clock: options.clock,
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(8 << 20);
        let pool = pool.build().map_err(|error| SnapshotError::Threads(error.to_string()))?;
        let work = |depot: &Depot<'_>| self.walk(depot, &pool, readers, fed);
        let (mut taken, published) = depot::fill(self.vault, depot_options, self.session, self.progress, work)?;
        taken.published = published;
        Ok(taken)
    }

    /// Walks the paths, reads the feeds, and stores the trees.
    fn walk(
        &self,
        depot: &Depot<'_>,
        pool: &rayon::ThreadPool,
        readers: &mut Vec<Feeding>,
        fed: &mut Vec<Fed>,
    ) -> Result<Taken, Ended> {
        let reader = depot.reader();
        let owners = OwnerNames::new();
        let walk = self.new_walk(depot, &reader, &owners)?;
        let mut roots = self.roots();
        for (root, why) in roots.iter().zip(self.lost) {
            why.iter().for_each(|why| walk.skip(&root.name, why, false));
        }
        self.walk_paths(&walk, pool)?;
        self.read_feeds(depot, pool, readers, fed)?;
        if self.progress.stopped() {
            return Err(SnapshotError::Interrupted.into());
        }
        if depot.has_failed() {
            return Err(Ended::Elsewhere);
        }
        for SourcePath { name, path, .. } in self.paths.iter().filter(|source| source.only.is_none()) {
            for gone in self.mounts.vanished(name, |below| self.is_taken_out(path, below)) {
                walk.skip(&gone, TAKEN_OUT, false);
            }
        }
        roots.iter_mut().for_each(|root| root.lost |= self.mounts.has_lost(&root.name));
        let names = roots.iter().map(|root| root.name.clone());
        let mut entries: Vec<(Vec<u8>, Bytes)> = names.zip(std::mem::take(&mut *lock(&walk.top))).collect();
        // Entries that could not be encoded were skipped.
        entries.retain(|(_, bytes)| !bytes.is_empty());
        for fed in fed.iter() {
            entries.push(enter_fed(&walk, fed)?);
            roots.push(Root::new(fed.entry.name.clone(), Vec::new()));
        }
        entries.sort_unstable();
        let tree = store_listing(entries.iter().map(|(_, entry)| entry), depot)?;
        let links = std::mem::take(&mut *lock(&walk.links)).into_values().map(|links| links.paths);
        let links = store_links(links, depot)?;
        let SkippedList { first, count, stream } = std::mem::take(&mut *lock(&walk.skipped));
        let skipped_list = stream.finish(depot)?;
        let rules = std::mem::take(&mut *lock(&walk.rules));
        let rules = rules.write(depot.keys().cutter(), &mut depot.meta_sink())?;
        Ok(Taken {
            tree,
            links,
            skipped_list,
            rules,
            skipped_count: count,
            skipped: first,
            left_out: std::mem::take(&mut *lock(&walk.elsewhere)),
            session: walk.session,
            epoch: reader.epoch(),
            found: walk.found,
            published: Published::default(),
            roots,
        })
    }

    /// A walk that has not begun. `reader` tells which rows of the stat cache are trusted.
    fn new_walk<'w>(
        &'w self,
        depot: &'w Depot<'w>,
        reader: &Reader,
        owners: &'w OwnerNames,
    ) -> Result<Walk<'w>, Ended> {
        let (options, vault) = (self.options, self.vault);
        let mut session = [0; 8];
        random(&mut session).map_err(|error| Ended::vault(error.into()))?;
        Ok(Walk {
            depot,
            progress: self.progress,
            exclude: &options.exclude,
            source: hash_of(options.source.as_bytes()),
            session: u64::from_le_bytes(session),
            trusted: reader.trusted_sessions().map_err(|error| Ended::vault(error.into()))?,
            read_all: options.read_all,
            racy_from: earlier(self.begun, CLOCK_TICK),
            never: own_folders(vault),
            owners,
            trees: vault.tree_reader().map_err(SnapshotError::from)?,
            found: Found::default(),
            links: Mutex::default(),
            skipped: Mutex::default(),
            read_special: options.read_special,
            elsewhere: Mutex::default(),
            rules: Mutex::new(RuleSet { options: options.exclude.to_rules(), ..RuleSet::default() }),
            top: Mutex::new(vec![Bytes::new(); self.paths.len()]),
            mounts: self.mounts,
        })
    }

    /// The paths as the record names them.
    fn roots(&self) -> Vec<Root> {
        let root = |(at, SourcePath { name, path, .. }): (usize, &SourcePath)| Root {
            name: name.clone(),
            path: crate::path::from_path(path),
            real: real_path(path)
                .ok()
                .filter(|real| real != path)
                .map_or_else(Vec::new, |real| crate::path::from_path(&real)),
            lost: self.lost.get(at).is_some_and(Option::is_some),
        };
        self.paths.iter().enumerate().map(root).collect()
    }

    /// Walks all paths at the same time. If one cannot be read at all, the attempt has failed.
    fn walk_paths(&self, walk: &Walk<'_>, pool: &rayon::ThreadPool) -> Result<(), SnapshotError> {
        let (paths, patterns) = (self.paths, &self.options.exclude.patterns);
        pool.scope(|scope| {
            let begin = |(index, source): (usize, &SourcePath)| -> Result<(), SnapshotError> {
                let SourcePath { name, path, only } = source;
                let rules = Rules::new(patterns, path)?;
                let root = |source| SnapshotError::Root { path: path.display().to_string(), source };
                walk.begin(scope, index, name, path, only.clone(), rules).map_err(root)
            };
            let begun = paths.iter().enumerate().try_for_each(begin);
            if begun.is_err() {
                // Tasks that were started already end at once.
                walk.depot.abandon();
            }
            begun
        })
    }

    /// Stores the bytes from other sources, one source after the other.
    fn read_feeds(
        &self,
        depot: &Depot<'_>,
        pool: &rayon::ThreadPool,
        readers: &mut Vec<Feeding>,
        fed: &mut Vec<Fed>,
    ) -> Result<(), Ended> {
        for input in readers.drain(..) {
            let Feeding { name, reader, finish, may_be_empty } = input;
            let result = Mutex::new(Err(ReadFailed::Run));
            pool.scope(|scope| {
                let done = Box::new(|read| *lock(&result) = read);
                read_large(depot, Feed::Reader(reader), Some(scope), self.progress, done);
            });
            let feed = |what: String| SnapshotError::Feed { name: crate::path::Shown(&name).to_string(), what };
            let (stream, _) = match crate::sync::into_inner(result) {
                Ok(read) => read,
                Err(ReadFailed::Source(error)) => return Err(feed(error.to_string()).into()),
                Err(ReadFailed::Run) if self.progress.stopped() => return Err(SnapshotError::Interrupted.into()),
                Err(ReadFailed::Run) => return Err(Ended::Elsewhere),
            };
            finish().map_err(feed)?;
            self.progress.counters().add(1, 0);
            let (size, mtime) = (stream.len, self.options.time);
            let entry =
                Entry { mode: 0o600, mtime, size, content: Some(stream), ..Entry::new(name.clone(), FileKind::File) };
            fed.push(Fed { entry, lacking: size == 0 && !may_be_empty });
        }
        Ok(())
    }

    /// Whether the disk that was mounted at this path below a source is a removable one that has been taken out, and its folder is gone.
    fn is_taken_out(&self, source: &Path, below: &[u8]) -> bool {
        let Ok(source) = real_path(source) else { return false };
        let path = source.join(crate::path::to_path(below));
        let is_away = || path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        !self.options.exclude.one_file_system && is_removable_disk(&path) && is_away()
    }

    /// Publishes the record. It relies on the packs that were usable when the attempt began, and on those that the attempt has put; `None`
    /// if some of these have gone.
    fn publish(
        &self,
        body: &Snapshot,
        usable: HashSet<ObjectName>,
        put: &[ObjectName],
    ) -> Result<Option<ObjectName>, VaultError> {
        let (Some(session), progress) = (self.session, self.progress) else { return Ok(None) };
        progress.phase(Phase::Publish);
        // Packs found damaged meanwhile are not relied on: their content was stored again.
        let mut needed = &usable - &self.vault.damaged_packs();
        needed.extend(put);
        let record = RecordBody::Snapshot(Box::new(body.clone()));
        self.vault.publish_relying(&record, &needed, (self.options.clock)(), session, progress)
    }

    /// The record's body.
    fn body(&self, taken: &Taken, begun: Time) -> Snapshot {
        let (options, found) = (self.options, &taken.found);
        let now = (options.clock)();
        let millis = |time: Time| i128::from(time.secs) * 1000 + i128::from(time.nanos / 1_000_000);
        let mut tags = options.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        Snapshot {
            time: options.time,
            source: options.source.clone(),
            host: self.vault.identity().host.clone(),
            user: self.vault.identity().user.clone(),
            roots: taken.roots.clone(),
            tree: taken.tree.clone(),
            links: taken.links.clone(),
            files: found.files.load(Relaxed),
            folders: found.folders.load(Relaxed),
            bytes: found.bytes.load(Relaxed),
            files_new: found.files_new.load(Relaxed),
            files_changed: found.files_changed.load(Relaxed),
            files_unchanged: found.files_unchanged.load(Relaxed),
            bytes_read: found.bytes_read.load(Relaxed),
            bytes_new: taken.published.bytes_new,
            bytes_stored: taken.published.bytes_stored,
            duration_ms: u64::try_from(millis(now) - millis(begun)).unwrap_or(0),
            program: self.vault.identity().program.clone(),
            tags,
            description: options.description.clone(),
            verdict: if found.unreadable.load(Relaxed) == 0 { Verdict::Complete } else { Verdict::Partial },
            skipped: taken.skipped_count,
            skipped_list: taken.skipped_list.clone(),
            given: options.given,
            rules: taken.rules.clone(),
            replaces: Vec::new(),
            redated: false,
            origin: None,
        }
    }
}

/// Whether a snapshot has the same content as one that would be taken now, of which nothing was skipped.
fn has_same_trees(other: &SnapshotInfo, body: &Snapshot) -> bool {
    other.body.tree == body.tree && other.body.links == body.links && body.skipped == 0
}

/// Counts a file that came from another source. Returns its name and its encoded entry.
fn enter_fed(walk: &Walk<'_>, Fed { entry, lacking }: &Fed) -> Result<(Vec<u8>, Bytes), SnapshotError> {
    if *lacking {
        walk.doubt(&entry.name, "nothing came: the file is empty");
    }
    let mut bytes = Vec::new();
    crate::tree::encode_entry(entry, &mut bytes).map_err(|error| SnapshotError::Inputs(error.to_string()))?;
    walk.found.files.fetch_add(1, Relaxed);
    walk.found.files_new.fetch_add(1, Relaxed);
    walk.found.bytes.fetch_add(entry.size, Relaxed);
    walk.found.bytes_read.fetch_add(entry.size, Relaxed);
    Ok((entry.name.clone(), bytes.into()))
}

fn hash_of(bytes: &[u8]) -> [u8; 16] {
    let mut key = [0; 16];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut key);
    key
}

fn earlier(time: Time, nanos: i64) -> Time {
    let total = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos) - i128::from(nanos);
    Time { secs: total.div_euclid(1_000_000_000) as i64, nanos: total.rem_euclid(1_000_000_000) as u32 }
}

/// The folders of the store and the catalogue, by device and inode number: they are never part of a snapshot.
pub fn own_folders(vault: &Vault) -> Vec<(u64, u64)> {
    let folders = vault.store().folder().into_iter().chain([vault.state()]);
    folders
        .filter_map(|folder| Dir::open(folder).and_then(|dir| dir.stat()).ok())
        .map(|stat| (stat.dev, stat.ino))
        .collect()
}
