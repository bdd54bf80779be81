//! Publishing a new file in a folder: whole and durable, or not at all.
//!
//! The best way is a nameless file, made in the destination folder and linked to its name once its bytes are durable:
//! if the process is killed, nothing is left. Where the file system (or the operating system) has no nameless files,
//! a temporary file is written in a folder of its own, far from any place where objects are looked for, and moved. A
//! move must never replace anything, and not every file system can promise that in one step: see [`Way`].

use std::ffi::OsString;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::id::ObjectName;
use crate::store::dir::random_name;

/// The ways to give a file its name, from the best to the poorest. If one is not supported, the next is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// A nameless file is linked.
    Anonymous,
    /// A temporary file is renamed, and the system refuses to replace.
    Rename,
    /// A temporary file is linked to its name, and its first name removed.
    HardLink,
    /// A temporary file is renamed after a check that the name is free. Names are random, so the moment between the
    /// two does not matter.
    #[allow(dead_code, reason = "what is left when all else fails; only tests begin with it")]
    Look,
}

/// The functions that make a file and a folder durable; tests replace them by failing ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sync {
    pub(super) file: fn(&File) -> io::Result<()>,
    pub(super) folder: fn(&Path) -> io::Result<()>,
}

/// A file that has its bytes, but no name yet.
#[derive(Debug)]
pub(super) struct Written {
    file: File,
    folder: PathBuf,
    name: String,
}

/// Publishes files.
#[derive(Debug)]
pub(super) struct Publisher {
    /// The folder for temporary files; made when it is first needed.
    temporary: PathBuf,
    pub(super) best: Way,
    pub(super) sync: Sync,
    /// Set once nameless files have failed here.
    anonymous_fails: AtomicBool,
    cleaned: Once,
}

impl Publisher {
    pub(super) fn new(temporary: PathBuf) -> Self {
        Self {
            temporary,
            best: Way::Anonymous,
            sync: Sync { file: sync_file, folder: sync_folder },
            anonymous_fails: AtomicBool::new(false),
            cleaned: Once::new(),
        }
    }

    /// Creates `folder/name` with these bytes, durably.
    pub(super) fn publish(&self, folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        if let Some(written) = self.begin(folder, name, bytes)? {
            return self.finish(written);
        }
        let path = folder.join(name);
        self.publish_temporary(&path, bytes)?;
        self.sync_published(folder, &path)
    }

    /// Writes the bytes of `folder/name` into a nameless file, if the file system supports such files.
    pub(super) fn begin(&self, folder: &Path, name: &str, bytes: &[u8]) -> io::Result<Option<Written>> {
        self.cleaned.call_once(|| self.clean());
        if self.best != Way::Anonymous || self.anonymous_fails.load(Relaxed) {
            return Ok(None);
        }
        let Some(mut file) = open_anonymous(folder)? else {
            self.anonymous_fails.store(true, Relaxed);
            return Ok(None);
        };
        adopt_file(&file, folder)?;
        let written = write_past_cache(&mut file, bytes)?;
        file.write_all(&bytes[written..])?;
        Ok(Some(Written { file, folder: folder.to_owned(), name: name.to_owned() }))
    }

    /// Makes the written bytes durable, and gives the file its name.
    pub(super) fn finish(&self, written: Written) -> io::Result<()> {
        let Written { mut file, folder, name } = written;
        let path = folder.join(&name);
        (self.sync.file)(&file)?;
        if link_anonymous(&file, &path)? {
            return self.sync_published(&folder, &path);
        }
        self.anonymous_fails.store(true, Relaxed);
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        self.publish(&folder, &name, &bytes)
    }

    fn sync_published(&self, folder: &Path, path: &Path) -> io::Result<()> {
        (self.sync.folder)(folder).inspect_err(|_| {
            // The file would be reported as not stored, and might vanish after a power cut: better delete it now.
            let _ = fs::remove_file(path);
        })
    }

    /// Moves a file, durably and without replacing anything.
    pub(super) fn move_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        move_new(self.best, from, to)?;
        for path in [to, from] {
            if let Some(folder) = path.parent() {
                (self.sync.folder)(folder)?;
            }
        }
        Ok(())
    }

    /// Makes a folder unless it exists, and makes its entry in its parent durable in either case.
    pub(super) fn make_folder(&self, path: &Path) -> io::Result<()> {
        make_folder(path, self.sync.folder)
    }

    /// Checks whether files can be created in a folder, and leaves none.
    pub(super) fn probe(&self, folder: &Path) -> io::Result<()> {
        if self.best == Way::Anonymous && open_anonymous(folder)?.is_some() {
            return Ok(());
        }
        check_access(folder)?;
        self.make_folder(&self.temporary)?;
        TemporaryFile::create(&self.temporary).map(drop)
    }

    /// Names of temporary files that no living process is writing.
    pub(super) fn leftovers(&self) -> io::Result<Vec<OsString>> {
        let entries = match crate::folder::entries(&self.temporary) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut leftovers = Vec::new();
        for entry in entries {
            let entry = entry?;
            if !matches!(writer_of(&entry.path()), Writer::Lives) {
                leftovers.push(entry.file_name());
            }
        }
        Ok(leftovers)
    }

    /// Removes the temporary files of dead writers. A file that cannot be removed is reported as foreign later.
    fn clean(&self) {
        for name in self.leftovers().unwrap_or_default() {
            let path = self.temporary.join(&name);
            // The lock is taken again and held, because a writer may be between making its file and locking it.
            if name.to_str().is_some_and(is_temporary_name)
                && let Writer::Died(_lock) = writer_of(&path)
            {
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn publish_temporary(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.make_folder(&self.temporary)?;
        let mut temporary = TemporaryFile::create(&self.temporary)?;
        adopt_file(&temporary.file, path.parent().unwrap_or(Path::new(".")))?;
        temporary.file.write_all(bytes)?;
        make_read_only(&temporary.file);
        (self.sync.file)(&temporary.file)?;
        release(&temporary.file);
        move_new(self.best, &temporary.path, path)?;
        // If this fails, a power cut may bring the temporary file back: the next writer removes it.
        let _ = (self.sync.folder)(&self.temporary);
        Ok(())
    }
}

/// A temporary file, deleted on drop unless it has been moved away. It is locked as long as its writer lives.
struct TemporaryFile {
    file: File,
    path: PathBuf,
}

impl TemporaryFile {
    fn create(folder: &Path) -> io::Result<Self> {
        loop {
            let path = folder.join(format!("{}{TEMPORARY_SUFFIX}", random_name()?));
            let file = new_file_options().open(&path)?;
            let locked = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            let temporary = Self { file, path };
            // A process that cleans up may have taken the file between these two steps; then another file is made. On
            // a file system without locks, nobody could have taken it.
            if locked && temporary.path.exists() {
                return Ok(temporary);
            }
        }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

const TEMPORARY_SUFFIX: &str = ".part";

/// Whether this module made a file with this name in the folder for temporary files.
pub(super) fn is_temporary_name(name: &str) -> bool {
    name.strip_suffix(TEMPORARY_SUFFIX).is_some_and(|stem| stem.parse::<ObjectName>().is_ok())
}

/// The state of a temporary file's writer.
enum Writer {
    Lives,
    /// The writer died. Holds the lock that keeps others from taking the file.
    Died(#[allow(dead_code, reason = "held for its lock")] File),
    Unknown,
}

fn writer_of(path: &Path) -> Writer {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        return Writer::Unknown;
    }
    // File servers require write access for a lock, but a finished temporary file is read-only.
    let opened = OpenOptions::new().read(true).write(true).open(path).or_else(|_| File::open(path));
    let Ok(file) = opened else { return Writer::Unknown };
    match file.try_lock() {
        Ok(()) => Writer::Died(file),
        Err(TryLockError::WouldBlock) => Writer::Lives,
        Err(TryLockError::Error(_)) => Writer::Unknown,
    }
}

/// Renames a file without replacing anything; `best` is the first way to try.
fn move_new(best: Way, from: &Path, to: &Path) -> io::Result<()> {
    if best <= Way::Rename && rename_no_replace(from, to)? {
        return Ok(());
    }
    if best <= Way::HardLink && hard_link(from, to)? {
        return Ok(());
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

fn hard_link(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::hard_link(from, to) {
        // If this fails, the file has two names: the first is a leftover, which some process cleans up.
        Ok(()) => fs::remove_file(from).or(Ok(())).map(|()| true),
        Err(e) if is_final(&e) || e.kind() == ErrorKind::NotFound => Err(e),
        Err(_) => Ok(false),
    }
}

/// Whether any other way of giving a file its name would fail as well.
fn is_final(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::AlreadyExists | ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
    )
}

/// Makes a folder and its missing parents, each entry durable.
pub(super) fn make_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => make_folders(parent)?,
        _ => {}
    }
    make_folder(path, sync_folder)
}

fn make_folder(path: &Path, sync_folder: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match folder_builder().create(path) {
        Ok(()) => adopt(path, path.parent())?,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => check_folder(path)?,
        Err(e) => return Err(e),
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        Some(_) => sync_folder(Path::new(".")),
        None => Ok(()),
    }
}

/// Returns an error for a folder that is a symbolic link (or a junction). Someone who can put a link into a store
/// could otherwise direct writes, deletions and moves to any place on this machine.
pub(super) fn check_folder(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() {
        return Ok(());
    }
    let what = if found.is_symlink() { "it is a link, and vault writes through none" } else { "it is no folder" };
    Err(io::Error::new(ErrorKind::NotADirectory, format!("{}: {what}", path.display())))
}

/// As root, gives a new file or folder to the owner of its parent, who could otherwise do nothing with it.
#[cfg(unix)]
fn adopt(path: &Path, folder: Option<&Path>) -> io::Result<()> {
    match owner(folder) {
        Some((user, group)) => std::os::unix::fs::lchown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// As above, for a file that may have no name yet.
#[cfg(unix)]
fn adopt_file(file: &File, folder: &Path) -> io::Result<()> {
    match owner(Some(folder)) {
        Some((user, group)) => std::os::unix::fs::fchown(file, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// User and group of a folder's owner, if this process is root and the owner is not.
#[cfg(unix)]
fn owner(folder: Option<&Path>) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let found = fs::metadata(folder).ok()?;
    (found.uid() != 0).then(|| (found.uid(), found.gid()))
}

#[cfg(not(unix))]
fn adopt(_: &Path, _: Option<&Path>) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn adopt_file(_: &File, _: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes a file's bytes and length durable.
fn sync_file(file: &File) -> io::Result<()> {
    match file.sync_data() {
        // On Apple's systems this is a full flush. Network shares do not support it, so they get the ordinary one.
        #[cfg(target_vendor = "apple")]
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => {
            rustix::fs::fsync(file).map_err(io::Error::from)
        }
        done => done,
    }
}

/// Makes the entries of a folder durable. Some shares do not support this for folders, and say so.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => Ok(()),
        done => done,
    }
}

/// Does nothing: the system has no such call, and the file system's journal has to do.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn folder_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

#[cfg(not(unix))]
fn folder_builder() -> DirBuilder {
    DirBuilder::new()
}

/// Options for a temporary file: writable by its owner, since a process that cleans up must open it to lock it.
fn new_file_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a file read-only, as objects never change. Where there are no such permissions, it does not matter.
#[cfg(unix)]
fn make_read_only(file: &File) {
    let _ = file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o400));
}

/// Does nothing: on other systems, a read-only file could not be deleted.
#[cfg(not(unix))]
fn make_read_only(_: &File) {}

/// Does nothing: on Unix, a lock concerns only those who lock.
#[cfg(unix)]
fn release(_: &File) {}

/// Ends the lock: on other systems, it keeps others from reading, so it must end before they can see the file. A
/// process that takes the file for a leftover in this moment makes the move fail, and the file is written once more.
#[cfg(not(unix))]
fn release(file: &File) {
    let _ = file.unlock(); // it may have had none
}

#[cfg(unix)]
fn check_access(folder: &Path) -> io::Result<()> {
    use rustix::fs::Access;
    Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(not(unix))]
fn check_access(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Opens a nameless file in a folder; `None` if that is not supported.
#[cfg(target_os = "linux")]
fn open_anonymous(folder: &Path) -> io::Result<Option<File>> {
    use rustix::fs::Mode;
    use rustix::fs::OFlags;
    use rustix::io::Errno;
    match rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_anonymous(_: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

/// Writes the block-aligned start of a large file with direct I/O. Returns the bytes written, 0 where direct I/O is
/// not supported. This saves the copy into the page cache, where it would displace data that others use: packs are
/// not read again soon.
#[cfg(target_os = "linux")]
fn write_past_cache(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    use rustix::fs::OFlags;
    /// The alignment of address and length that satisfies every file system.
    const BLOCK: usize = 4096;
    /// Shorter files are written through the cache.
    const LEN_MIN: usize = 1 << 20;
    let len = bytes.len() - bytes.len() % BLOCK;
    if len < LEN_MIN || !bytes.as_ptr().addr().is_multiple_of(BLOCK) {
        return Ok(0);
    }
    let flags = rustix::fs::fcntl_getfl(&*file)?;
    if rustix::fs::fcntl_setfl(&*file, flags | OFlags::DIRECT).is_err() {
        return Ok(0);
    }
    let mut written = 0;
    while written < len {
        match file.write(&bytes[written..len]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if is_final(&e) => return Err(e),
            Err(_) => break, // here it cannot be done after all; the usual way finds out what else may be wrong
        }
        if !written.is_multiple_of(BLOCK) {
            break;
        }
    }
    rustix::fs::fcntl_setfl(&*file, flags)?;
    Ok(written)
}

#[cfg(not(target_os = "linux"))]
fn write_past_cache(_: &mut File, _: &[u8]) -> io::Result<usize> {
    Ok(0)
}

/// Gives a nameless file its name; reports if that is not supported (no /proc, a file system without links).
#[cfg(target_os = "linux")]
fn link_anonymous(file: &File, path: &Path) -> io::Result<bool> {
    use rustix::fs::AtFlags;
    use rustix::fs::CWD;
    use std::os::fd::AsRawFd;
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, nameless, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from) {
        Ok(()) => Ok(true),
        Err(e) if is_final(&e) => Err(e),
        Err(_) => Ok(false),
    }
}

#[cfg(not(target_os = "linux"))]
fn link_anonymous(_: &File, _: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Renames a file without replacing anything; reports if the system cannot promise that.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_no_replace(from: &Path, to: &Path) -> io::Result<bool> {
    use rustix::fs::CWD;
    use rustix::fs::RenameFlags;
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_no_replace(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}
