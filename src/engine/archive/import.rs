//! Imports an archive as a snapshot: its members are stored as they arrive, and the folders are made from them at the end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::AcqRel;

use rayon::Scope;

use crate::engine::archive::acl;
use crate::engine::archive::read::{ArchiveError, ArchiveReader, Member, MemberKind};
use crate::engine::snapshot::presence::is_future;
use crate::engine::snapshot::walk::LeftOut;
use crate::engine::snapshot::{SnapshotError, SnapshotReport};
use crate::fs::OwnerNames;
use crate::id::ObjectName;
use crate::limits::{LEVEL, PATH_DEPTH_MAX};
use crate::log::RecordBody;
use crate::path;
use crate::path::{Shown, check_name};
use crate::progress::{Phase, Progress};
use crate::sync::lock;
use crate::tree::{Entry, FileKind, Owner, Root, Skipped, Snapshot, Stream, Time, Verdict, encode_entry};
use crate::vault::session::Session;
use crate::vault::{Vault, VaultError};
use crate::write::depot::{self, Depot, DepotOptions, Ended, Published};
use crate::write::file::{Feed, ReadFailed, SMALL_MAX, holes_between, read_large, store_whole};
use crate::write::tree::{SkippedList, store_links, store_listing};
use crate::write::trust::{VerifyOthers, pay_debts};

/// Options of an import.
#[non_exhaustive]
pub struct ImportOptions<'a> {
    /// Name of the source.
    pub source: String,
    /// The date of the snapshot.
    pub time: Time,
    /// The clock.
    pub clock: &'a (dyn Fn() -> Time + Sync),
    /// Tags.
    pub tags: Vec<String>,
    /// A description by the user.
    pub description: String,
    /// Number of components to strip from the start of each path.
    pub strip: usize,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Open, decompress and hash every new segment before its pack is put.
    pub verify: bool,
    /// How packs that this machine did not put are verified before the snapshot relies on them.
    pub others: VerifyOthers,
    /// Number of threads that compress and seal.
    pub threads: usize,
}

impl<'a> ImportOptions<'a> {
    /// An import into this source, dated now, by one thread.
    pub fn new(source: impl Into<String>, clock: &'a (dyn Fn() -> Time + Sync)) -> Self {
        Self {
            source: source.into(),
            time: clock(),
            clock,
            tags: Vec::new(),
            description: String::new(),
            strip: 0,
            level: LEVEL,
            verify: true,
            others: VerifyOthers::Sample,
            threads: 1,
        }
    }
}

/// Why an archive was not imported; then there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive is at fault.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive is empty.
    #[error("there is nothing in it")]
    Empty,
    /// The vault is at fault, or the user stopped it.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl From<VaultError> for ImportError {
    fn from(error: VaultError) -> Self {
        Self::Snapshot(error.into())
    }
}

/// Maximum size, in bytes, of content that waits for a thread, before the reading thread does some of the work itself.
const WAITING_MAX: usize = 32 << 20;

/// The number of a content, and its ranges if the file has holes.
type Held = (usize, Option<Vec<(u64, u64)>>);

/// A member as it will be in the snapshot.
struct Node {
    entry: Entry,
    parent: usize,
    below: BTreeMap<Vec<u8>, usize>,
    content: Option<Held>,
    /// The number of its file, if that has several names.
    group: Option<usize>,
}

/// All members, by number; a folder has a lower number than its content. 0 is the top folder.
struct Tree {
    nodes: Vec<Node>,
    groups: usize,
}

impl Tree {
    fn new() -> Self {
        let entry = Entry::new(Vec::new(), FileKind::Directory);
        let top = Node { entry, parent: 0, below: BTreeMap::new(), content: None, group: None };
        Self { nodes: vec![top], groups: 0 }
    }

    fn find(&self, path: &[Vec<u8>]) -> Option<usize> {
        path.iter().try_fold(0, |at, name| self.nodes[at].below.get(name).copied())
    }

    /// Puts a member in its place. Makes folders on the way that the archive has not named; replaces a member of the same name, but a
    /// folder that replaces a folder keeps its content.
    fn put(&mut self, path: &[Vec<u8>], mut entry: Entry) -> usize {
        let Some((name, folders)) = path.split_last() else { return 0 };
        let mut at = 0;
        for name in folders {
            at = match self.nodes[at].below.get(name) {
                Some(below) if self.nodes[*below].entry.kind == FileKind::Directory => *below,
                _ => {
                    let mut implied = Entry::new(name.clone(), FileKind::Directory);
                    (implied.mode, implied.mtime) = (0o755, entry.mtime);
                    implied.owner = entry.owner.clone();
                    self.add(at, implied)
                }
            };
        }
        entry.name.clone_from(name);
        match self.nodes[at].below.get(name).copied() {
            Some(old) if [entry.kind, self.nodes[old].entry.kind] == [FileKind::Directory; 2] => {
                self.nodes[old].entry = entry;
                old
            }
            _ => self.add(at, entry),
        }
    }

    fn add(&mut self, parent: usize, entry: Entry) -> usize {
        let number = self.nodes.len();
        self.nodes[parent].below.insert(entry.name.clone(), number);
        self.nodes.push(Node { entry, parent, below: BTreeMap::new(), content: None, group: None });
        number
    }

    /// Whether a member has not been replaced by another.
    fn is_there(&self, number: usize) -> bool {
        let mut at = number;
        while at != 0 {
            let node = &self.nodes[at];
            if self.nodes[node.parent].below.get(&node.entry.name) != Some(&at) {
                return false;
            }
            at = node.parent;
        }
        true
    }

    fn path(&self, number: usize) -> Vec<u8> {
        let (mut at, mut names) = (number, Vec::new());
        while at != 0 {
            names.push(self.nodes[at].entry.name.as_slice());
            at = self.nodes[at].parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

/// Imports an archive.
///
/// # Errors
/// If no snapshot was made: the archive is damaged, incomplete or empty, or the vault fails. Single members that a snapshot cannot
/// contain are listed in it.
pub fn import(
    vault: &Vault,
    input: &mut (dyn Read + Send),
    options: &ImportOptions<'_>,
    progress: &dyn Progress,
) -> Result<SnapshotReport, ImportError> {
    let begun = (options.clock)();
    if is_future(true, options.time, begun) {
        return Err(SnapshotError::Future.into());
    }
    progress.counters().restart(0, 0);
    progress.phase(Phase::Snapshot);
    let session = vault.begin_writing(begun, progress)?;
    pay_debts(vault, options.others, progress)?;
    let unusable = vault.unusable();
    let usable: Vec<ObjectName> = vault.pack_names().into_iter().filter(|name| !unusable.contains(name)).collect();
    let run = Run { vault, options, progress, session: &session };
    let taken = run.take(input)?;
    let body = run.body(&taken, begun);
    progress.phase(Phase::Publish);
    let damaged = vault.damaged_packs();
    let usable = usable.into_iter().filter(|name| !damaged.contains(name));
    let needed: HashSet<ObjectName> = usable.chain(taken.published.packs.iter().copied()).collect();
    let record = RecordBody::Snapshot(Box::new(body.clone()));
    let id = vault.publish_relying(&record, &needed, (options.clock)(), &session, progress)?;
    let Some(id) = id else { return Err(SnapshotError::Unsettled.into()) };
    if !taken.published.packs.is_empty() {
        vault.tend_index(progress);
    }
    Ok(SnapshotReport {
        id: Some(id),
        snapshot: body,
        skipped: taken.skipped.first,
        same: None,
        left_out: LeftOut::default(),
    })
}

struct Run<'r> {
    vault: &'r Vault,
    options: &'r ImportOptions<'r>,
    progress: &'r dyn Progress,
    session: &'r Session,
}

/// The imported content of an archive.
#[derive(Default)]
struct Taken {
    tree: Stream,
    links: Stream,
    skipped_list: Stream,
    skipped: SkippedList,
    roots: Vec<Root>,
    files: u64,
    folders: u64,
    bytes: u64,
    bytes_read: u64,
    published: Published,
}

/// The contents of members, while threads work on them.
#[derive(Default)]
struct Contents {
    streams: Mutex<Vec<Option<Stream>>>,
    waiting: AtomicUsize,
}

impl Run<'_> {
    fn take(&self, input: &mut (dyn Read + Send)) -> Result<Taken, ImportError> {
        let options = self.options;
        let threads = options.threads.max(1);
        let depot_options = DepotOptions {
            level: options.level,
            verify: options.verify,
            dry_run: false,
            keep_trees: false,
            others: options.others,
            threads,
            clock: options.clock,
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| SnapshotError::Threads(error.to_string()))?;
        let work = |depot: &Depot<'_>| self.read(depot, &pool, input);
        let (mut taken, published) = depot::fill(self.vault, depot_options, Some(self.session), self.progress, work)?;
        taken.published = published;
        Ok(taken)
    }

    fn read(
        &self,
        depot: &Depot<'_>,
        pool: &rayon::ThreadPool,
        input: &mut (dyn Read + Send),
    ) -> Result<Taken, Ended<ImportError>> {
        let contents = Contents::default();
        let (mut tree, mut taken) = (Tree::new(), Taken::default());
        pool.scope(|scope| {
            let mut archive = ArchiveReader::new(input);
            let read = self.members(scope, depot, &contents, &mut archive, &mut tree, &mut taken);
            if read.is_err() {
                depot.abandon();
            }
            taken.bytes_read = archive.position();
            read
        })?;
        self.go_on(depot)?;
        if tree.nodes[0].below.is_empty() {
            return Err(ImportError::Empty.into());
        }
        let streams = crate::sync::into_inner(contents.streams);
        pool.install(|| self.finish(depot, tree, &streams, &mut taken))?;
        Ok(taken)
    }

    /// Returns an error if the user stopped the import or the depot failed.
    fn go_on(&self, depot: &Depot<'_>) -> Result<(), Ended<ImportError>> {
        if self.progress.stopped() {
            return Err(ImportError::from(SnapshotError::Interrupted).into());
        }
        if depot.has_failed() { Err(Ended::Elsewhere) } else { Ok(()) }
    }

    fn skip(&self, depot: &Depot<'_>, taken: &mut Taken, path: &[u8], why: &str) {
        self.note(depot, taken, path, why, false);
    }

    fn note(&self, depot: &Depot<'_>, taken: &mut Taken, path: &[u8], why: &str, stored: bool) {
        let skipped = Skipped { path: path.to_vec(), why: why.to_owned(), stored };
        self.progress.warn(&skipped.to_string());
        taken.skipped.push(skipped, depot);
    }

    /// Reads all members; their contents are passed to the threads of the pool.
    fn members<'s, 'a: 's>(
        &self,
        scope: &Scope<'s>,
        depot: &'s Depot<'a>,
        contents: &'s Contents,
        archive: &mut ArchiveReader<&mut (dyn Read + Send)>,
        tree: &mut Tree,
        taken: &mut Taken,
    ) -> Result<(), Ended<ImportError>> {
        let owners = OwnerNames::new();
        while let Some(member) = archive.next_member().map_err(ImportError::from)? {
            self.go_on(depot)?;
            let path = match self.path(&member.path) {
                Ok(path) if path.is_empty() => continue,
                Ok(path) => path,
                Err(why) => {
                    self.skip(depot, taken, &member.path, why);
                    continue;
                }
            };
            if member.kind == MemberKind::Link {
                self.link(depot, &member, &path, tree, taken);
                continue;
            }
            let Some((entry, lost)) = entry(&member, &owners) else {
                // The label of a volume is not a file.
                if member.kind != MemberKind::Other(b'V') {
                    self.skip(depot, taken, &member.path, "a kind of member that is not known");
                }
                continue;
            };
            for what in lost {
                self.note(depot, taken, &path.join(&b'/'), &what, true);
            }
            let is_file = entry.kind == FileKind::File;
            let number = tree.put(&path, entry);
            if is_file {
                let content = self.content(scope, depot, contents, archive, &member)?;
                tree.nodes[number].content = Some((content, member.parts));
            }
        }
        if !archive.has_ended() {
            let why = "the mark of the end is missing: the archive may be cut off";
            self.skip(depot, taken, b"", why);
        }
        // The input may report an error only at its end.
        Ok(archive.drain().map_err(ImportError::from)?)
    }

    /// The components of a path after stripping; none for the top folder itself.
    fn path(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
        let parts: Vec<&[u8]> = path::components(path).collect();
        if parts.iter().any(|part| check_name(part).is_err()) {
            return Err("its path is not allowed");
        }
        if parts.len() > PATH_DEPTH_MAX {
            return Err("it lies too deep");
        }
        Ok(parts.into_iter().skip(self.options.strip).map(<[u8]>::to_vec).collect())
    }

    /// Adds another name of an earlier file.
    fn link(&self, depot: &Depot<'_>, member: &Member, path: &[Vec<u8>], tree: &mut Tree, taken: &mut Taken) {
        let target = self.path(&member.link).ok().and_then(|target| tree.find(&target));
        let target = target.filter(|target| tree.nodes[*target].entry.kind != FileKind::Directory);
        let Some(target) = target else {
            let why = format!("the file that it is another name of is not there: {}", Shown(&member.link));
            return self.skip(depot, taken, &member.path, &why);
        };
        let (entry, content) = (tree.nodes[target].entry.clone(), tree.nodes[target].content.clone());
        let groups = tree.groups;
        let group = *tree.nodes[target].group.get_or_insert(groups);
        tree.groups = groups.max(group + 1);
        let number = tree.put(path, entry);
        tree.nodes[number].content = content;
        tree.nodes[number].group = Some(group);
    }

    /// Stores the content of a member; returns its number.
    fn content<'s, 'a: 's>(
        &self,
        scope: &Scope<'s>,
        depot: &'s Depot<'a>,
        contents: &'s Contents,
        archive: &mut ArchiveReader<&mut (dyn Read + Send)>,
        member: &Member,
    ) -> Result<usize, Ended<ImportError>> {
        let len =
            member.parts.as_ref().map_or(member.size, |parts| parts.iter().map(|(from, until)| until - from).sum());
        let number = {
            let mut streams = lock(&contents.streams);
            streams.push(None);
            streams.len() - 1
        };
        self.progress.counters().add(1, 0);
        if len <= SMALL_MAX {
            let mut bytes = vec![0; len as usize];
            archive.read_exact(&mut bytes).map_err(|error| cut(error, archive.position()))?;
            self.progress.counters().add(0, len);
            let waiting = contents.waiting.fetch_add(bytes.len(), AcqRel);
            let work = move || {
                // If it fails, the depot knows the reason.
                let stream = store_whole(depot, &bytes).ok();
                contents.waiting.fetch_sub(bytes.len(), AcqRel);
                lock(&contents.streams)[number] = stream;
            };
            if waiting > WAITING_MAX {
                work();
            } else {
                scope.spawn(move |_| work());
            }
            return Ok(number);
        }
        let done = Box::new(move |read: Result<(Stream, bool), ReadFailed>| {
            // If it fails, the depot or the reader below knows the reason.
            lock(&contents.streams)[number] = read.ok().map(|(stream, _)| stream);
        });
        let mut whole = Whole { archive, left: len, error: None };
        read_large(depot, Feed::Reader(Box::new(&mut whole)), Some(scope), self.progress, done);
        match whole {
            Whole { error: Some(error), .. } => return Err(cut(error, archive.position()).into()),
            Whole { left: 1.., .. } => {
                self.go_on(depot)?;
                return Err(Ended::Elsewhere);
            }
            Whole { .. } => {}
        }
        Ok(number)
    }

    /// Makes folders from the members.
    fn finish(
        &self,
        depot: &Depot<'_>,
        mut tree: Tree,
        streams: &[Option<Stream>],
        taken: &mut Taken,
    ) -> Result<(), Ended<ImportError>> {
        let mut groups: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
        let mut encoded: Vec<Vec<u8>> = vec![Vec::new(); tree.nodes.len()];
        // The content of a folder is done before the folder.
        for number in (1..tree.nodes.len()).rev() {
            if !tree.is_there(number) {
                continue;
            }
            let mut entry = tree.nodes[number].entry.clone();
            if entry.kind == FileKind::Directory {
                taken.folders += 1;
                let below = std::mem::take(&mut tree.nodes[number].below).into_values();
                entry.content = Some(store_listing(below.map(|below| std::mem::take(&mut encoded[below])), depot)?);
            } else {
                taken.files += 1;
                taken.bytes = taken.bytes.saturating_add(entry.size);
                if let Some(group) = tree.nodes[number].group {
                    groups.entry(group).or_default().push(tree.path(number));
                }
            }
            if let Some((content, parts)) = &tree.nodes[number].content {
                let stream = streams.get(*content).cloned().flatten();
                entry.content = Some(stream.ok_or(Ended::Elsewhere)?);
                if let Some(parts) = parts {
                    entry.holes = holes_between(parts, entry.size, depot)?;
                }
            }
            if let Err(error) = encode_entry(&entry, &mut encoded[number]) {
                self.skip(depot, taken, &tree.path(number), &error.to_string());
            }
        }
        let mut top = Vec::new();
        for (name, number) in std::mem::take(&mut tree.nodes[0].below) {
            taken.roots.push(Root::new(name.clone(), Vec::new()));
            top.push((name, std::mem::take(&mut encoded[number])));
        }
        taken.tree = store_listing(top.iter().map(|(_, entry)| entry), depot)?;
        taken.links = store_links(groups.into_values(), depot)?;
        let stream = std::mem::take(&mut taken.skipped.stream);
        taken.skipped_list = stream.finish(depot)?;
        Ok(())
    }

    fn body(&self, taken: &Taken, begun: Time) -> Snapshot {
        let (options, identity) = (self.options, self.vault.identity());
        let now = (options.clock)();
        let millis = |time: Time| i128::from(time.secs) * 1000 + i128::from(time.nanos / 1_000_000);
        Snapshot {
            time: options.time,
            source: options.source.clone(),
            host: identity.host.clone(),
            user: identity.user.clone(),
            roots: taken.roots.clone(),
            tree: taken.tree.clone(),
            links: taken.links.clone(),
            files: taken.files,
            folders: taken.folders,
            bytes: taken.bytes,
            files_new: taken.files,
            files_changed: 0,
            files_unchanged: 0,
            bytes_read: taken.bytes_read,
            bytes_new: taken.published.bytes_new,
            bytes_stored: taken.published.bytes_stored,
            duration_ms: u64::try_from(millis(now) - millis(begun)).unwrap_or(0),
            program: identity.program.clone(),
            tags: options.tags.clone(),
            description: options.description.clone(),
            verdict: if taken.skipped.count == 0 { Verdict::Complete } else { Verdict::Partial },
            skipped: taken.skipped.count,
            skipped_list: taken.skipped_list.clone(),
            given: true,
            rules: Stream::EMPTY,
            replaces: Vec::new(),
            redated: false,
            origin: None,
        }
    }
}

/// The content of one member; if the archive ends within it, that is an error.
struct Whole<'w, R> {
    archive: &'w mut ArchiveReader<R>,
    left: u64,
    error: Option<std::io::Error>,
}

impl<R: Read> Read for &mut Whole<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self.archive.read(out) {
            Ok(got) => {
                self.left -= got as u64;
                Ok(got)
            }
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }
}

fn cut(error: std::io::Error, at: u64) -> ImportError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        ArchiveError::Cut { at }.into()
    } else {
        ArchiveError::Io(error).into()
    }
}

/// A member's entry, without content, and the properties that are lost; `None` for a kind that snapshots do not have.
fn entry(member: &Member, owners: &OwnerNames) -> Option<(Entry, Vec<String>)> {
    let kind = match member.kind {
        MemberKind::File => FileKind::File,
        MemberKind::Symlink => FileKind::Symlink,
        MemberKind::CharDevice => FileKind::CharDevice,
        MemberKind::BlockDevice => FileKind::BlockDevice,
        MemberKind::Directory => FileKind::Directory,
        MemberKind::Fifo => FileKind::Fifo,
        MemberKind::Link | MemberKind::Other(_) => return None,
    };
    let (user, group) = member.owner_names.clone();
    let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    let mut lost: Vec<String> = member.lost.iter().map(|what| (*what).to_owned()).collect();
    let mut xattrs = member.xattrs.clone();
    for (text, (_, name)) in member.lists.iter().zip(acl::LISTS) {
        match acl::list_from_text(text, name == acl::LISTS[1].1, owners) {
            Ok(Some(value)) => {
                xattrs.retain(|(other, _)| other != name);
                xattrs.push((name.to_vec(), value));
            }
            Ok(None) => {}
            // The attribute itself contains the list, in numbers.
            Err(_) if xattrs.iter().any(|(other, _)| other == name) => {}
            Err(why) => lost.push(format!("its access list is not kept: {why}")),
        }
    }
    xattrs.sort();
    let (flags, unknown) = acl::flags_from_text(&member.flags);
    if !unknown.is_empty() {
        lost.push(format!("flags of it are not kept: {}", unknown.join(", ")));
    }
    let entry = Entry {
        mode: member.mode,
        flags,
        btime: member.btime,
        owner: Owner { uid: member.owner.0, gid: member.owner.1, user, group },
        mtime: member.mtime,
        size: if kind == FileKind::File { member.size } else { 0 },
        target: if kind == FileKind::Symlink { member.link.clone() } else { Vec::new() },
        device: is_device.then_some(member.device),
        xattrs,
        ..Entry::new(Vec::new(), kind)
    };
    Some((entry, lost))
}
