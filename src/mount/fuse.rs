//! A tree as a file system (FUSE): answers the kernel, and tells it what to remember.
//!
//! The content of a snapshot never changes, so the kernel may remember it for a day; it asks for the list of snapshots every second.
//! Files are opened without a request: the node number is enough to find an open file. Everything that grows with use is bounded:
//! segments and listings in bytes, open files in number, and the kernel is told to forget the oldest nodes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, Notifier, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request, SessionACL,
};

use crate::fs::OwnerNames;
use crate::id::NodeKey;
use crate::limits::NAME_LEN_MAX;
use crate::mount::serving::{FLEETING, Open, Serving, Trouble};
use crate::mount::tree::{Item, NUMBERS_OWN, Node, Tree};
use crate::read::StoredFile;
use crate::sync::lock;
use crate::tree::{FileKind, Time};
use crate::vault::ReadError;

/// How long the kernel may remember things that never change.
const LASTING: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum number of nodes that the kernel may know before it is told to forget the older half.
const NODES_MAX: usize = 50_000;
/// Length from which a file may not be read for a preview, if that was requested.
const PREVIEW_MAX: u64 = 1 << 20;
/// Extended attributes of access lists. They contain user numbers of the machine where they were set.
const ACLS: &[&[u8]] = &[b"system.posix_acl_access", b"system.posix_acl_default"];

/// Programs that read files only to show a preview of their content, or to index them.
const PREVIEWERS: &[&str] =
    &["tumblerd", "gnome-thumbnail", "thumbnail", "baloo", "tracker-", "localsearch", "mds", "mdworker", "updatedb"];

/// The displayed owners of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The users with the stored names on this machine; the stored numbers for unknown names.
    Names,
    /// The stored numbers.
    Numbers,
    /// The user who mounts.
    Me,
}

/// Receives the number of the next entry, a name and its node; returns whether there is no more room.
type Add<'a> = dyn FnMut(u64, &[u8], Arc<Node>) -> bool + 'a;

/// Options of a mount.
pub struct MountOptions {
    /// The displayed owners.
    pub owners: Owners,
    /// Show the mounting user as owner of files of other machines.
    pub others_are_mine: bool,
    /// Allow access to other users, as the modes of the files permit.
    pub allow_other: bool,
    /// Refuse long files to programs that only show previews.
    pub no_preview: bool,
    /// Number of requests answered at the same time.
    pub threads: usize,
}

/// A node that the kernel knows.
struct Known {
    node: Arc<Node>,
    key: NodeKey,
    lookups: u64,
    /// The number of the lookup by which it first became known.
    since: u64,
}

#[derive(Default)]
struct Nodes {
    by_number: HashMap<u64, Known>,
    lookups: u64,
}

struct State {
    serving: Arc<Serving>,
    options: MountOptions,
    names: OwnerNames,
    /// The user who mounts.
    uid: u32,
    gid: u32,
    nodes: Mutex<Nodes>,
    /// Whether the kernel reads files without opening them.
    no_open: AtomicBool,
}

/// A mounted tree. It stays mounted when this is dropped: the system ends it.
pub struct Mounted {
    /// Dropping it would unmount whatever is mounted at the mount point by then.
    session: ManuallyDrop<BackgroundSession>,
}

/// Mounts a tree in a folder.
///
/// # Errors
/// The error of the system.
pub fn mount(serving: Arc<Serving>, at: &Path, options: MountOptions) -> io::Result<Mounted> {
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
    let state = Arc::new(State {
        serving,
        options,
        names: OwnerNames::new(),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        nodes: Mutex::default(),
        no_open: AtomicBool::new(false),
    });
    let session = fuser::spawn_mount(Mount(state.clone()), at, &config)?;
    let (known, notifier) = (state.clone(), session.notifier());
    state.serving.attend(move || known.shorten(&notifier))?;
    Ok(Mounted { session: ManuallyDrop::new(session) })
}

impl Mounted {
    /// Whether it has been unmounted.
    pub fn is_ended(&self) -> bool {
        self.session.guard.is_finished()
    }
}

impl State {
    fn tree(&self) -> &Tree {
        self.serving.tree()
    }

    /// Answers a request. If that panics, the kernel receives an error.
    fn guard(&self, work: impl FnOnce()) {
        let _ = self.serving.guard(work);
    }

    /// Tells the kernel to forget old nodes.
    fn shorten(&self, notifier: &Notifier) {
        for (parent, name) in self.outdated() {
            // Nodes in use stay.
            let _ = notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name));
        }
    }

    fn node(&self, number: u64) -> Result<Arc<Node>, Errno> {
        if number == 1 {
            return Ok(self.tree().top());
        }
        lock(&self.nodes).by_number.get(&number).map(|known| known.node.clone()).ok_or(Errno::ESTALE)
    }

    /// Records that the kernel knows a node, or knows it once more. Returns its number.
    fn know(&self, node: Arc<Node>) -> u64 {
        let (mut number, key) = (self.tree().number(&node), self.tree().key_of(&node));
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
                // Another node happens to have this number.
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

    /// The nodes that the kernel should forget if it knows too many, as folder and name. Folders only if there are too many of them:
    /// programs that are inside one would lose it.
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
            .filter_map(|(_, item)| Some((self.tree().number_of(item.parent.as_ref()?), item.entry.name.clone())))
            .collect()
    }

    /// Reports that something cannot be read. Returns the error for the kernel.
    fn failed(&self, node: &Node, error: ReadError) -> Errno {
        errno(self.serving.failed(node, error))
    }

    fn is_of_other(&self, item: &Item) -> bool {
        item.snap.info.body.host != self.tree().view().vault().identity().host
    }

    /// Whether user numbers in a snapshot may mean other people here: it is another machine's, and other users have access.
    fn is_foreign(&self, item: &Item) -> bool {
        self.options.allow_other && self.options.owners == Owners::Names && self.is_of_other(item)
    }

    fn owner(&self, item: &Item) -> (u32, u32) {
        // The top folder of a snapshot has no owner.
        if item.parent.is_none()
            || self.options.owners == Owners::Me
            || (self.options.others_are_mine && self.is_of_other(item))
        {
            return (self.uid, self.gid);
        }
        let owner = &item.entry.owner;
        if self.is_foreign(item) {
            // An unknown owner becomes the mounting user: the stored number would belong to another user here.
            let uid = self.names.uid(&owner.user).unwrap_or(self.uid);
            return (uid, self.names.gid(&owner.group).unwrap_or(self.gid));
        }
        self.names.resolve(owner, self.options.owners == Owners::Numbers)
    }

    /// The permissions of an item in a snapshot. Without the permissions of its group, if the group is unknown here.
    fn permissions(&self, item: &Item) -> u16 {
        let mode = (item.entry.mode & 0o7777) as u16;
        if item.parent.is_some() && self.is_foreign(item) && self.names.gid(&item.entry.owner.group).is_none() {
            return mode & !0o070;
        }
        mode
    }

    /// The extended attributes to show.
    fn xattrs<'a>(&self, node: &'a Node) -> impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)> {
        let item = node.item();
        let without_acls = item.is_some_and(|item| self.is_foreign(item));
        let all = item.map(|item| item.entry.xattrs.as_slice()).unwrap_or_default();
        all.iter().filter(move |(name, _)| !without_acls || !ACLS.contains(&name.as_slice()))
    }

    fn attr(&self, node: &Node, number: u64) -> FileAttr {
        let time = system_time(self.tree().time(node));
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
                attr.perm = self.permissions(item);
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
                attr.size = self.tree().readme().len() as u64;
                attr.blocks = attr.size.div_ceil(512);
                attr.perm = 0o444;
            }
            Node::Link(target, _) => (attr.size, attr.perm) = (target.len() as u64, 0o777),
            // The original folders on the way to other versions may have been closed to other users.
            Node::Versions(_) | Node::VersionsOf(..) => (attr.perm, attr.nlink) = (0o500, 2),
            Node::Top | Node::All | Node::Source(_) => attr.nlink = 2,
        }
        attr
    }

    /// Whether a read is only for a preview, and previews are refused.
    fn is_preview(&self, file: &StoredFile, pid: u32) -> bool {
        if !self.options.no_preview || file.size() <= PREVIEW_MAX {
            return false;
        }
        let name = crate::ownfile::read_text(std::path::Path::new(&format!("/proc/{pid}/comm"))).unwrap_or_default();
        PREVIEWERS.iter().any(|program| name.starts_with(program))
    }

    fn read(&self, number: u64, pid: u32, offset: u64, out: &mut Vec<u8>, size: usize) -> Result<(), Errno> {
        let node = self.node(number)?;
        if matches!(*node, Node::Readme) {
            out.extend_from_slice(self.serving.readme(offset, size));
            return Ok(());
        }
        let open = self.serving.open(&node).map_err(errno)?;
        if self.is_preview(&open.file, pid) {
            return Err(Errno::EACCES);
        }
        self.serving.read(&node, &open, offset, size, out).map_err(errno)
    }

    /// How long the kernel may remember whether a folder has a name.
    fn entry_time(folder: &Node) -> Duration {
        match folder {
            Node::Item(_) => LASTING,
            _ => FLEETING,
        }
    }
}

const fn errno(trouble: Trouble) -> Errno {
    match trouble {
        Trouble::Gone => Errno::ESTALE,
        Trouble::Unreadable => Errno::EIO,
        Trouble::NoFile => Errno::EISDIR,
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

/// A stored time; the beginning of 1970 if the system cannot represent it.
fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos.min(999_999_999)));
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs >= 0 { UNIX_EPOCH.checked_add(secs) } else { UNIX_EPOCH.checked_sub(secs) };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

thread_local! {
    /// Receives the bytes of a read.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The handler of the kernel's requests.
struct Mount(Arc<State>);

/// Number of the first entry after `.` and `..` in a listing.
const DOTS: u64 = 2;

impl Mount {
    /// Calls `add` for each entry of a folder, with the number of the next entry, the name and the node, until it returns `true`.
    fn list(&self, number: u64, offset: u64, add: &mut Add<'_>) -> Result<(), Errno> {
        let state = &self.0;
        let node = state.node(number)?;
        if node.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        state.serving.look_for(&node);
        let mut next = offset;
        for name in [&b"."[..], b".."].into_iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            next += 1;
            if add(next, name, node.clone()) {
                return Ok(());
            }
        }
        let listed = state.tree().list(&node, next - DOTS, &mut |name, node| {
            next += 1;
            !add(next, name, node)
        });
        listed.map_err(|error| state.failed(&node, error))
    }

    fn find(&self, parent: u64, name: &OsStr) -> Result<(Arc<Node>, Option<Arc<Node>>), Errno> {
        let state = &self.0;
        let folder = state.node(parent)?;
        state.serving.look_for(&folder);
        if name.len() > NAME_LEN_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let found = state.tree().lookup(&folder, name.as_bytes());
        Ok((folder.clone(), found.map_err(|error| state.failed(&folder, error))?))
    }

    fn stored(&self, number: u64) -> Result<(Arc<Node>, Arc<Open>), Errno> {
        let node = self.0.node(number)?;
        let open = self.0.serving.open(&node).map_err(errno)?;
        Ok((node, open))
    }

    fn seek(&self, number: u64, offset: i64, whence: i32) -> Result<i64, Errno> {
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        if matches!(*self.0.node(number)?, Node::Readme) {
            let len = self.0.tree().readme().len() as u64;
            let found = match whence {
                _ if offset >= len => return Err(Errno::ENXIO),
                libc::SEEK_DATA => offset,
                libc::SEEK_HOLE => len,
                _ => return Err(Errno::EINVAL),
            };
            return i64::try_from(found).map_err(|_| Errno::EOVERFLOW);
        }
        let (node, open) = self.stored(number)?;
        let view = self.0.tree().view().as_ref();
        let found = match whence {
            libc::SEEK_DATA => open.file.next_data(view, offset),
            libc::SEEK_HOLE => open.file.next_hole(view, offset),
            _ => return Err(Errno::EINVAL),
        };
        let found = found.map_err(|error| self.0.failed(&node, error))?.ok_or(Errno::ENXIO)?;
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }
}

/// Answers with the bytes, or with their length if only that is asked for.
fn answer(reply: ReplyXattr, size: u32, bytes: &[u8]) {
    match u32::try_from(bytes.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Mount {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Features that an older kernel lacks only cost speed.
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
        self.0.guard(|| {
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
                // That a snapshot does not have a name is remembered as well.
                None if remember == LASTING => reply.entry(&remember, &self.0.attr(&Node::Readme, 0), Generation(0)),
                None => reply.error(Errno::ENOENT),
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.0.guard(|| {
            self.0.forget(number.0, lookups);
        });
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.0.guard(|| match self.0.node(number.0) {
            Ok(node) => {
                let remember = if node.is_lasting() { LASTING } else { FLEETING };
                reply.attr(&remember, &self.0.attr(&node, number.0));
            }
            Err(error) => reply.error(error),
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        self.0.guard(|| match self.0.node(number.0) {
            Ok(node) => match Tree::target(&node) {
                Some(target) => reply.data(target),
                None => reply.error(Errno::EINVAL),
            },
            Err(error) => reply.error(error),
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.guard(|| {
            if self.0.no_open.load(Relaxed) {
                return reply.error(Errno::ENOSYS);
            }
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        });
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
        self.0.guard(|| {
            BUFFER.with_borrow_mut(|buffer| {
                buffer.clear();
                match self.0.read(number.0, request.pid(), offset, buffer, size as usize) {
                    Ok(()) => reply.data(buffer),
                    Err(error) => reply.error(error),
                }
            });
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.guard(|| match self.0.node(number.0) {
            Ok(node) if node.is_lasting() => {
                reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
            }
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        });
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.0.guard(|| {
            let listed = self.list(number.0, offset, &mut |next, name, node| {
                let own = match name {
                    b"." => number.0,
                    b".." => 1,
                    _ => self.0.tree().number(&node),
                };
                reply.add(INodeNo(own), next, file_type(node.kind()), OsStr::from_bytes(name))
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error),
            }
        });
    }

    fn readdirplus(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        self.0.guard(|| {
            let state = &self.0;
            let remember = state.node(number.0).map_or(FLEETING, |folder| State::entry_time(&folder));
            let listed = self.list(number.0, offset, &mut |next, name, node| {
                let name_shown = OsStr::from_bytes(name);
                if matches!(name, b"." | b"..") {
                    // These do not count as known to the kernel.
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
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.0.guard(|| {
            reply.statfs(0, 0, 0, 0, 0, 4096, NAME_LEN_MAX as u32, 4096);
        });
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.0.guard(|| {
            let node = match self.0.node(number.0) {
                Ok(node) => node,
                Err(error) => return reply.error(error),
            };
            match self.0.xattrs(&node).find(|(other, _)| other == name.as_bytes()) {
                Some((_, value)) => answer(reply, size, value),
                None => reply.error(Errno::ENODATA),
            }
        });
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        self.0.guard(|| {
            let node = match self.0.node(number.0) {
                Ok(node) => node,
                Err(error) => return reply.error(error),
            };
            let names: Vec<u8> = self.0.xattrs(&node).flat_map(|(name, _)| name.iter().copied().chain([0])).collect();
            answer(reply, size, &names);
        });
    }

    fn lseek(&self, _: &Request, number: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.0.guard(|| match self.seek(number.0, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(error),
        });
    }
}
