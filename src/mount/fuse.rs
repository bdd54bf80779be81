//! A tree as a file system (FUSE): what the kernel asks, and what it may remember.
//!
//! What lies in a snapshot never changes, so the kernel may remember it for a day; which snapshots there are it asks every second.
//! Files are opened without asking: what is known of one is found by its number. All that grows with what is read is bounded:
//! segments and listings in bytes, open files in number, and of what the kernel knows it is told to forget the oldest.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, Notifier, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request, SessionACL,
};

use crate::fs::OwnerNames;
use crate::limits::NAME_LEN_MAX;
use crate::lru::Lru;
use crate::mount::tree::{Item, NUMBERS_OWN, Node, Tree};
use crate::progress::Silent;
use crate::read::ahead::Course;
use crate::read::{Ahead, StoredFile};
use crate::sync::lock;
use crate::tree::{FileKind, Time};
use crate::vault::ReadError;

/// How long the kernel may remember what never changes.
const LASTING: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it may remember which snapshots there are, and how often the store is looked at for it.
const FLEETING: Duration = Duration::from_secs(1);
/// How many files are known where their bytes lie.
const FILES_KEPT: usize = 64;
/// How many nodes the kernel may know before it is told to forget the older half.
const NODES_MAX: usize = 50_000;
/// From this length on, reading a file only to show what is in it is refused where that was asked for.
const PREVIEW_MAX: u64 = 1 << 20;
/// Longest read that is answered, in bytes: more than the kernel asks for.
const READ_MAX: usize = 16 << 20;
/// How many places are remembered that could not be read, so that each is told once.
const TOLD_MAX: usize = 1024;

/// Programs that read files only to show what is in them, or to search them.
const PREVIEWERS: &[&str] =
    &["tumblerd", "gnome-thumbnail", "thumbnail", "baloo", "tracker-", "localsearch", "mds", "mdworker", "updatedb"];

/// To whom files seem to belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// To the users whose names they have here; if there is none, to the stored number.
    Names,
    /// To the stored numbers.
    Numbers,
    /// To whoever mounts.
    Me,
}

/// Takes where something lies that cannot be read, and why.
pub type Report = dyn Fn(&str, &ReadError) + Send + Sync;

/// Takes the number of the entry after this one, its name and its node; says whether there is no more room.
type Add<'a> = dyn FnMut(u64, &[u8], Arc<Node>) -> bool + 'a;

/// How a tree is mounted.
pub struct MountOptions {
    /// To whom files seem to belong.
    pub owners: Owners,
    /// Files of other machines seem to belong to whoever mounts.
    pub others_are_mine: bool,
    /// Other users may look into it, as the modes of the files allow.
    pub allow_other: bool,
    /// Programs that only show what is in files get none of the long ones.
    pub no_preview: bool,
    /// How many requests are answered at once.
    pub threads: usize,
    /// How long a session lasts before it is renewed, and how long after the last read none is held.
    pub renew: Duration,
    /// The time since some moment.
    pub now: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Is told of what cannot be read: where it lies, and why.
    pub report: Box<Report>,
}

/// A node that the kernel knows.
struct Known {
    node: Arc<Node>,
    key: [u8; 16],
    lookups: u64,
    /// The number of the lookup by which it became known.
    since: u64,
}

#[derive(Default)]
struct Nodes {
    by_number: HashMap<u64, Known>,
    lookups: u64,
}

/// A file that is read.
struct Open {
    file: Arc<StoredFile>,
    course: Course,
}

struct State {
    tree: Arc<Tree>,
    ahead: Ahead,
    options: MountOptions,
    names: OwnerNames,
    /// Who mounts.
    uid: u32,
    gid: u32,
    nodes: Mutex<Nodes>,
    files: Mutex<Lru<u64, Arc<Open>>>,
    /// Whether files need not be opened.
    no_open: AtomicBool,
    /// Whether anything was read since the session was renewed.
    is_used: AtomicBool,
    /// When the store was looked at last, and when the session was renewed.
    looked: Mutex<Duration>,
    renewed: Mutex<Duration>,
    told: Mutex<std::collections::HashSet<String>>,
    damaged: AtomicUsize,
}

/// A mounted tree. It stays mounted when this is dropped: the system ends it.
pub struct Mounted {
    state: Arc<State>,
    notifier: Notifier,
    /// Dropping it would unmount whatever lies at the mount point by then.
    session: ManuallyDrop<BackgroundSession>,
}

/// Mounts a tree in a folder.
///
/// # Errors
/// What the system says.
pub fn mount(tree: Arc<Tree>, at: &Path, options: MountOptions) -> io::Result<Mounted> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::FSName("vault".to_owned()),
        MountOption::Subtype("vault".to_owned()),
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
    ];
    if options.allow_other {
        config.mount_options.push(MountOption::DefaultPermissions);
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(if cfg!(target_os = "linux") { options.threads.max(1) } else { 1 });
    let now = (options.now)();
    let state = Arc::new(State {
        ahead: Ahead::new(tree.view(), 2),
        tree,
        names: OwnerNames::new(),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        nodes: Mutex::default(),
        files: Mutex::new(Lru::new(FILES_KEPT)),
        no_open: AtomicBool::new(false),
        is_used: AtomicBool::new(true),
        looked: Mutex::new(now),
        renewed: Mutex::new(now),
        told: Mutex::default(),
        damaged: AtomicUsize::new(0),
        options,
    });
    let session = fuser::spawn_mount(Mount(state.clone()), at, &config)?;
    Ok(Mounted { state, notifier: session.notifier(), session: ManuallyDrop::new(session) })
}

impl Mounted {
    /// Whether it was unmounted.
    pub fn is_ended(&self) -> bool {
        self.session.guard.is_finished()
    }

    /// How many places could not be read because of damage.
    pub fn damaged(&self) -> usize {
        self.state.damaged.load(Relaxed)
    }

    /// What has to be done once in a while: about each second.
    pub fn tick(&self) {
        let state = &self.state;
        let now = (state.options.now)();
        let is_due = {
            let mut renewed = lock(&state.renewed);
            let is_due = now.saturating_sub(*renewed) >= state.options.renew;
            *renewed = if is_due { now } else { *renewed };
            is_due
        };
        if is_due {
            if state.is_used.swap(false, Relaxed) {
                state.look(Duration::ZERO);
            } else {
                state.tree.view().rest();
            }
        }
        for (parent, name) in state.outdated() {
            // What is in use stays.
            let _ = self.notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name));
        }
    }

    /// Ends what is held, before the program ends.
    pub fn rest(&self) {
        self.state.tree.view().rest();
    }
}

impl State {
    /// Looks which snapshots there are, unless that was done in this time. If it fails, all is as it was.
    fn look(&self, within: Duration) {
        let now = (self.options.now)();
        {
            let mut looked = lock(&self.looked);
            if now.saturating_sub(*looked) < within {
                return;
            }
            *looked = now;
        }
        let _ = self.tree.refresh(&Silent::default());
    }

    /// Something is read: a session that had ended begins again.
    fn touch(&self) {
        if !self.is_used.swap(true, Relaxed) && !self.tree.view().is_at_work() {
            self.look(FLEETING);
        }
    }

    fn node(&self, number: u64) -> Result<Arc<Node>, Errno> {
        if number == 1 {
            return Ok(self.tree.top());
        }
        lock(&self.nodes).by_number.get(&number).map(|known| known.node.clone()).ok_or(Errno::ESTALE)
    }

    /// The kernel comes to know a node, once more. Returns its number.
    fn know(&self, node: Arc<Node>) -> u64 {
        let (mut number, key) = (self.tree.number(&node), self.tree.key_of(&node));
        let mut nodes = lock(&self.nodes);
        nodes.lookups += 1;
        let since = nodes.lookups;
        loop {
            match nodes.by_number.get_mut(&number) {
                Some(known) if known.key == key => {
                    known.lookups += 1;
                    known.node = node;
                    return number;
                }
                // Another node has this number by chance.
                Some(_) => number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(NUMBERS_OWN),
                None => {
                    nodes.by_number.insert(number, Known { node, key, lookups: 1, since });
                    return number;
                }
            }
        }
    }

    fn forget(&self, number: u64, lookups: u64) {
        let mut nodes = lock(&self.nodes);
        if let Some(known) = nodes.by_number.get_mut(&number) {
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 {
                nodes.by_number.remove(&number);
            }
        }
    }

    /// If the kernel knows too much: what it should forget, as folder and name. Folders only if there are too many of them:
    /// whoever is in one would be lost.
    fn outdated(&self) -> Vec<(u64, Vec<u8>)> {
        let nodes = lock(&self.nodes);
        if nodes.by_number.len() <= NODES_MAX {
            return Vec::new();
        }
        let mut known: Vec<(u64, &Arc<Item>)> =
            nodes.by_number.values().filter_map(|known| Some((known.since, known.node.item()?))).collect();
        let folders = known.iter().filter(|(_, item)| item.listing().is_some()).count();
        known.sort_unstable_by_key(|(since, _)| *since);
        known.truncate(known.len() / 2);
        let named = known.into_iter().filter(|(_, item)| folders > NODES_MAX / 2 || item.listing().is_none());
        named
            .filter_map(|(_, item)| Some((self.tree.number_of(item.parent.as_ref()?), item.entry.name.clone())))
            .collect()
    }

    /// Says, once for each place, what cannot be read; and what the kernel is told.
    fn failed(&self, node: &Node, error: &ReadError) -> Errno {
        let moment = self.tree.view().moment();
        if node.item().is_some_and(|item| !moment.has(&item.snap.info.id)) {
            return Errno::ESTALE;
        }
        if matches!(error, ReadError::Lost(_)) {
            self.tree.view().distrust();
        }
        let at = self.tree.shown(node);
        let is_new = {
            let mut told = lock(&self.told);
            told.len() < TOLD_MAX && told.insert(at.clone())
        };
        if is_new {
            if error.is_damage() {
                self.damaged.fetch_add(1, Relaxed);
            }
            (self.options.report)(&at, error);
        }
        Errno::EIO
    }

    fn owner(&self, item: &Item) -> (u32, u32) {
        let is_of_other = || item.snap.info.body.host != self.tree.view().vault().identity().host;
        // The top folder of a snapshot is nobody's.
        if item.parent.is_none() || self.options.owners == Owners::Me || (self.options.others_are_mine && is_of_other())
        {
            return (self.uid, self.gid);
        }
        self.names.resolve(&item.entry.owner, self.options.owners == Owners::Numbers)
    }

    fn attr(&self, node: &Node, number: u64) -> FileAttr {
        let time = system_time(self.tree.time(node));
        let mut attr = FileAttr {
            ino: INodeNo(number),
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: file_type(node.kind()),
            perm: 0o555,
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 64 << 10,
            flags: 0,
        };
        match node {
            Node::Item(item) => {
                let entry = &item.entry;
                (attr.uid, attr.gid) = self.owner(item);
                attr.perm = (entry.mode & 0o7777) as u16;
                attr.nlink = item.names;
                attr.crtime = entry.btime.map_or(time, system_time);
                let stored = entry.content.as_ref().map_or(0, |content| content.len);
                match entry.kind {
                    FileKind::File => (attr.size, attr.blocks) = (entry.size, stored.div_ceil(512)),
                    FileKind::Directory => (attr.size, attr.nlink) = (stored, 2),
                    FileKind::Symlink => attr.size = entry.target.len() as u64,
                    FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {}
                }
                if let Some((major, minor)) = entry.device {
                    attr.rdev = libc::makedev(major, minor) as u32;
                }
            }
            Node::Readme => {
                attr.size = self.tree.readme().len() as u64;
                attr.blocks = attr.size.div_ceil(512);
                attr.perm = 0o444;
            }
            Node::Link(target, _) => (attr.size, attr.perm) = (target.len() as u64, 0o777),
            // The folders on the way to other versions may have been closed to others.
            Node::Versions(_) | Node::VersionsOf(..) => (attr.perm, attr.nlink) = (0o500, 2),
            Node::Top | Node::All | Node::Source(_) => attr.nlink = 2,
        }
        attr
    }

    fn open(&self, node: &Node, number: u64) -> Result<Arc<Open>, Errno> {
        if let Some(open) = lock(&self.files).get(&number) {
            return Ok(open);
        }
        let item = node.item().ok_or(Errno::EISDIR)?;
        let file = Arc::new(StoredFile::new(&item.entry).ok_or(Errno::EISDIR)?);
        let open = Arc::new(Open { file, course: Course::default() });
        lock(&self.files).insert(number, open.clone(), 1);
        Ok(open)
    }

    /// Whether a read is only for a preview, and none are wanted.
    fn is_preview(&self, file: &StoredFile, pid: u32) -> bool {
        if !self.options.no_preview || file.size() <= PREVIEW_MAX {
            return false;
        }
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        PREVIEWERS.iter().any(|program| name.starts_with(program))
    }

    fn read(&self, number: u64, pid: u32, offset: u64, out: &mut Vec<u8>, size: usize) -> Result<(), Errno> {
        let node = self.node(number)?;
        if matches!(*node, Node::Readme) {
            let text = self.tree.readme();
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
            out.extend_from_slice(&text[from..(from + size).min(text.len())]);
            return Ok(());
        }
        self.touch();
        let open = self.open(&node, number)?;
        if self.is_preview(&open.file, pid) {
            return Err(Errno::EACCES);
        }
        self.ahead.tell(&open.file, &open.course, offset, size as u64);
        out.resize(size.min(READ_MAX), 0);
        let read = open.file.read_at(self.tree.view().as_ref(), offset, out);
        let read = read.map_err(|error| self.failed(&node, &error))?;
        out.truncate(read);
        Ok(())
    }

    /// How long the kernel may remember that a folder has a name, or has it not.
    fn entry_time(folder: &Node) -> Duration {
        match folder {
            Node::Item(_) => LASTING,
            _ => FLEETING,
        }
    }

    /// Looks again which snapshots there are, where that decides what a folder holds.
    fn look_for(&self, node: &Node) {
        match node {
            Node::Top | Node::All | Node::Source(_) => self.look(FLEETING),
            _ => self.touch(),
        }
    }
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// A stored time; the beginning of 1970 if the system has no such time.
fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos.min(999_999_999)));
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs >= 0 { UNIX_EPOCH.checked_add(secs) } else { UNIX_EPOCH.checked_sub(secs) };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

thread_local! {
    /// What is read, before it is handed over.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What answers the kernel.
struct Mount(Arc<State>);

/// The numbers of `.` and `..` in a listing; the first entry follows.
const DOTS: u64 = 2;

impl Mount {
    /// Calls `add` with what lies in a folder: number of the next, name, node. Stops when it returns `true`.
    fn list(&self, number: u64, offset: u64, add: &mut Add<'_>) -> Result<(), Errno> {
        let state = &self.0;
        let node = state.node(number)?;
        if node.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        state.look_for(&node);
        let mut next = offset;
        for name in [&b"."[..], b".."].into_iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            next += 1;
            if add(next, name, node.clone()) {
                return Ok(());
            }
        }
        let listed = state.tree.list(&node, next - DOTS, &mut |name, node| {
            next += 1;
            !add(next, name, node)
        });
        listed.map_err(|error| state.failed(&node, &error))
    }

    fn find(&self, parent: u64, name: &OsStr) -> Result<(Arc<Node>, Option<Arc<Node>>), Errno> {
        let state = &self.0;
        let folder = state.node(parent)?;
        state.look_for(&folder);
        if name.len() > NAME_LEN_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let found = state.tree.lookup(&folder, name.as_bytes());
        Ok((folder.clone(), found.map_err(|error| state.failed(&folder, &error))?))
    }

    fn stored(&self, number: u64) -> Result<(Arc<Node>, Arc<Open>), Errno> {
        let node = self.0.node(number)?;
        let open = self.0.open(&node, number)?;
        Ok((node, open))
    }

    fn seek(&self, number: u64, offset: i64, whence: i32) -> Result<i64, Errno> {
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let (node, open) = self.stored(number)?;
        let view = self.0.tree.view().as_ref();
        let found = match whence {
            libc::SEEK_DATA => open.file.next_data(view, offset),
            libc::SEEK_HOLE => open.file.next_hole(view, offset),
            _ => return Err(Errno::EINVAL),
        };
        let found = found.map_err(|error| self.0.failed(&node, &error))?.ok_or(Errno::ENXIO)?;
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }
}

/// The bytes of an answer, or its length if nothing but that is asked for.
fn answer(reply: ReplyXattr, size: u32, bytes: &[u8]) {
    match u32::try_from(bytes.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Mount {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What an older kernel cannot do only makes it slower.
        let _ = config.set_max_readahead(1 << 20);
        let _ = config.set_max_background(64);
        for wish in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_MAX_PAGES,
        ] {
            let _ = config.add_capabilities(wish);
        }
        if self.0.options.allow_other {
            let _ = config.add_capabilities(InitFlags::FUSE_POSIX_ACL);
        }
        let no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        self.0.no_open.store(no_open, Relaxed);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (folder, found) = match self.find(parent.0, name) {
            Ok(found) => found,
            Err(error) => return reply.error(error),
        };
        let remember = State::entry_time(&folder);
        match found {
            Some(node) => {
                let number = self.0.know(node.clone());
                reply.entry(&remember, &self.0.attr(&node, number), Generation(0));
            }
            // That a snapshot has no such name is remembered as well.
            None if remember == LASTING => reply.entry(&remember, &self.0.attr(&Node::Readme, 0), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.0.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.node(number.0) {
            Ok(node) => {
                let remember = if node.is_lasting() { LASTING } else { FLEETING };
                reply.attr(&remember, &self.0.attr(&node, number.0));
            }
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.0.node(number.0) {
            Ok(node) => match Tree::target(&node) {
                Some(target) => reply.data(target),
                None => reply.error(Errno::EINVAL),
            },
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.0.no_open.load(Relaxed) {
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        request: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            match self.0.read(number.0, request.pid(), offset, buffer, size as usize) {
                Ok(()) => reply.data(buffer),
                Err(error) => reply.error(error),
            }
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.node(number.0) {
            Ok(node) if node.is_lasting() => {
                reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
            }
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(number.0, offset, &mut |next, name, node| {
            let own = if name == b".." { 1 } else { self.0.tree.number(&node) };
            reply.add(INodeNo(own), next, file_type(node.kind()), OsStr::from_bytes(name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let state = &self.0;
        let remember = state.node(number.0).map_or(FLEETING, |folder| State::entry_time(&folder));
        let listed = self.list(number.0, offset, &mut |next, name, node| {
            let name_shown = OsStr::from_bytes(name);
            if matches!(name, b"." | b"..") {
                // The kernel does not come to know these.
                return reply.add(
                    INodeNo(number.0),
                    next,
                    name_shown,
                    &remember,
                    &state.attr(&node, number.0),
                    Generation(0),
                );
            }
            let known = state.know(node.clone());
            let is_full =
                reply.add(INodeNo(known), next, name_shown, &remember, &state.attr(&node, known), Generation(0));
            if is_full {
                state.forget(known, 1);
            }
            is_full
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, NAME_LEN_MAX as u32, 4096);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let node = match self.0.node(number.0) {
            Ok(node) => node,
            Err(error) => return reply.error(error),
        };
        let xattrs = node.item().map(|item| item.entry.xattrs.as_slice()).unwrap_or_default();
        match xattrs.iter().find(|(other, _)| other == name.as_bytes()) {
            Some((_, value)) => answer(reply, size, value),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let node = match self.0.node(number.0) {
            Ok(node) => node,
            Err(error) => return reply.error(error),
        };
        let xattrs = node.item().map(|item| item.entry.xattrs.as_slice()).unwrap_or_default();
        let names: Vec<u8> = xattrs.iter().flat_map(|(name, _)| name.iter().copied().chain([0])).collect();
        answer(reply, size, &names);
    }

    fn lseek(&self, _: &Request, number: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.seek(number.0, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(error),
        }
    }
}
