//! A client of folders reached by SFTP. The protocol comes from a library; keys and hosts come from the user's own
//! ssh.
//!
//! Each connection is a child `ssh` of its own, started when it is needed. A connection that fails is not used again.

mod pipes;

use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::rawsession::Limits;
use russh_sftp::extensions;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::id::ObjectName;
use crate::progress::plain;
use crate::store::remote::line::{Line, Surroundings};
use crate::store::remote::runtime::{Runtime, Tally};
use crate::store::remote::sftp::pipes::{Pipes, while_connected};
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits, Subject};
use crate::sync::lock;

/// Limits: each connection carries one request.
const LIMITS: StoreLimits = StoreLimits { reads: 4, writes: 3, bytes: 64 << 20 };
/// The bytes that one message carries, unless the server accepts fewer.
const PIECE: u64 = 255 << 10;
/// Messages of one request under way.
const UNDER_WAY: usize = 16;
/// Folders listed at the same time.
const FOLDERS: usize = 16;
/// The library's own timeout, which never applies: ours ends earlier.
const NEVER: u64 = 24 * 3600;
/// A temporary file older than this, in seconds by the server's own clock, belongs to a put that was cut off.
const DEAD: u32 = 7 * 24 * 3600;
/// The length of ssh's error output that is kept, in bytes.
const COMPLAINT_MAX: usize = 2000;
/// A connection that was idle for this long is not used again: something in between may have dropped it.
const IDLE: Duration = Duration::from_secs(60);

/// The command that carries the protocol.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Carrier {
    /// The system's ssh. It must not ask questions: there may be nobody to answer.
    pub(super) fn ssh(program: Option<String>, user: Option<&str>, host: &str, port: Option<u16>) -> Self {
        let mut args: Vec<String> = [
            "-T",
            "-x",
            "-a",
            "-oBatchMode=yes",
            "-oClearAllForwardings=yes",
            "-oConnectTimeout=20",
            "-oServerAliveInterval=15",
            "-oServerAliveCountMax=4",
        ]
        .map(str::to_owned)
        .into();
        args.extend(port.map(|port| format!("-p{port}")));
        args.extend(user.map(|user| format!("-l{user}")));
        args.extend(["-s".to_owned(), "--".to_owned(), host.trim_matches(['[', ']']).to_owned(), "sftp".to_owned()]);
        Self { program: program.unwrap_or_else(|| "ssh".to_owned()), args }
    }
}

/// Optional abilities of the server, and its limits.
#[derive(Debug, Clone, Copy, Default)]
struct Abilities {
    links: bool,
    syncs: bool,
    tells_space: bool,
    read_len: u64,
    write_len: u64,
}

/// A connection.
struct Connection {
    session: RawSftpSession,
    tally: Arc<Tally>,
    complaint: Arc<Mutex<String>>,
    /// Whether the connection has ended.
    ended: watch::Receiver<bool>,
    abilities: Abilities,
    /// The child, which ends with the connection.
    _child: Child,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("abilities", &self.abilities).finish_non_exhaustive()
    }
}

/// A client of a folder.
pub(super) struct SftpClient {
    runtime: Runtime,
    line: Arc<Line>,
    surroundings: Arc<dyn Surroundings>,
    carrier: Carrier,
    root: Arc<str>,
    /// Idle connections, each with the time of its last use.
    idle: Mutex<Vec<(Duration, Arc<Connection>)>>,
}

impl std::fmt::Debug for SftpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SftpClient").field("place", &self.line.place()).finish_non_exhaustive()
    }
}

/// The reason why a step failed.
#[derive(Debug)]
enum Fault {
    /// The server refused it.
    Said(StatusCode, String),
    /// The outcome is unknown.
    Lost(String),
    /// The object has this length instead of the required one.
    Len(u64),
    /// The object already exists.
    Taken,
    /// The server's disk is full.
    Full,
}

/// A server may not report lengths; then nothing is known of its objects.
fn no_length() -> Fault {
    Fault::Lost("the server tells no length".to_owned())
}

impl From<SftpError> for Fault {
    fn from(error: SftpError) -> Self {
        match error {
            SftpError::Status(status) => match status.status_code {
                StatusCode::NoConnection | StatusCode::ConnectionLost => Self::Lost(status.error_message),
                code => Self::Said(code, status.error_message),
            },
            error => Self::Lost(error.to_string()),
        }
    }
}

impl Fault {
    const fn is_missing(&self) -> bool {
        matches!(self, Self::Said(StatusCode::NoSuchFile, _))
    }

    /// Whether the fault is an answer of the server, so that the connection is sound.
    const fn is_answer(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }
}

type Step<T> = Result<T, Fault>;

/// Opens a connection.
async fn connect(carrier: &Carrier, tally: Arc<Tally>) -> Step<Connection> {
    let failed = |error: io::Error| Fault::Lost(format!("{}: {}", carrier.program, plain(&error)));
    let mut command = Command::new(&carrier.program);
    command.args(&carrier.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Ctrl-C in the terminal stops the work in good order, which needs the connection.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let (Some(to), Some(from), Some(mut complaints)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Fault::Lost("no pipes".to_owned()));
    };
    let complaint: Arc<Mutex<String>> = Arc::default();
    let (kept, mut buffer) = (complaint.clone(), [0; 1000]);
    let listens = tokio::spawn(async move {
        while let Ok(len @ 1..) = complaints.read(&mut buffer).await {
            let mut kept = lock(&kept);
            kept.push_str(&String::from_utf8_lossy(&buffer[..len]));
            let mut surplus = kept.len().saturating_sub(COMPLAINT_MAX);
            while !kept.is_char_boundary(surplus) {
                surplus += 1;
            }
            kept.drain(..surplus);
        }
    });
    let (ends, ended) = watch::channel(false);
    let session = RawSftpSession::new(Pipes { from, to, tally: tally.clone(), ended: ends });
    session.set_timeout(NEVER);
    let init = async { session.init().await.map_err(Fault::from) };
    let version = match while_connected(&ended, init).await {
        Ok(version) => version,
        Err(fault) => {
            // The other pipe says why the child ends.
            let _ = tokio::time::timeout(Duration::from_secs(1), listens).await;
            return Err(Fault::Lost(told(&complaint, &fault)));
        }
    };
    let has = |name: &str| version.extensions.contains_key(name);
    let mut abilities = Abilities {
        links: has(extensions::HARDLINK),
        syncs: has(extensions::FSYNC),
        tells_space: has(extensions::STATVFS),
        read_len: PIECE,
        write_len: 32 << 10,
    };
    if has(extensions::LIMITS) {
        match while_connected(&ended, async { session.limits().await.map_err(Fault::from) }).await {
            Ok(told) => {
                let limits = Limits::from(told);
                // Zero means that the limit is unknown.
                let within =
                    |limit: Option<u64>| limit.filter(|limit| *limit > 0).map_or(PIECE, |limit| limit.min(PIECE));
                abilities.read_len = within(limits.read_len);
                abilities.write_len = within(limits.write_len);
            }
            // A server may offer more than it can.
            Err(fault) if fault.is_answer() => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(Connection { session, tally, complaint, ended, abilities, _child: child })
}

/// Whether a server says in words that there is no room, for which the protocol has no code: the system's words for a full
/// disk and for an exhausted quota.
fn tells_full(said: &str) -> bool {
    let said = said.to_lowercase();
    ["no space", "disk full", "disk is full", "quota"].iter().any(|words| said.contains(words))
}

/// The best explanation of a failure: the last complaint of ssh, or else the failure itself.
fn told(complaint: &Mutex<String>, fault: &Fault) -> String {
    let complaint = lock(complaint);
    let last = complaint.lines().map(str::trim).rfind(|line| !line.is_empty());
    match (last, fault) {
        (Some(last), _) => last.chars().filter(|c| !c.is_control()).collect(),
        (None, Fault::Lost(what)) => what.clone(),
        (None, fault) => format!("{fault:?}"),
    }
}

impl Connection {
    /// Opens a file for reading, works with it, and closes it without waiting.
    async fn reading<T>(self: &Arc<Self>, path: &str, work: impl AsyncFnOnce(&Self, &str) -> Step<T>) -> Step<T> {
        let handle = self.session.open(path, OpenFlags::READ, FileAttributes::empty()).await?.handle;
        let done = work(self, &handle).await;
        let closes = self.clone();
        tokio::spawn(async move { closes.session.close(handle).await });
        done
    }

    /// Reads a part of a file. The result is shorter if the file ends before.
    async fn read(&self, handle: &str, offset: u64, len: u64) -> Step<Vec<u8>> {
        let step = self.abilities.read_len;
        let pieces = (0..len.div_ceil(step)).map(|number| {
            let (from, to) = (number * step, ((number + 1) * step).min(len));
            self.read_piece(handle, offset + from, to - from)
        });
        let pieces: Vec<Vec<u8>> = futures_util::stream::iter(pieces).buffered(UNDER_WAY).try_collect().await?;
        Ok(pieces.concat())
    }

    async fn read_piece(&self, handle: &str, offset: u64, len: u64) -> Step<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len as usize);
        while (bytes.len() as u64) < len {
            let have = bytes.len() as u64;
            match self.session.read(handle, offset + have, (len - have) as u32).await {
                Ok(data) if data.data.is_empty() => break,
                Ok(data) => bytes.extend_from_slice(&data.data),
                Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Keep no more than the requested length, whatever the server sends.
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    /// The length of an open file.
    async fn len(&self, handle: &str) -> Step<u64> {
        self.session.fstat(handle).await?.attrs.size.ok_or_else(no_length)
    }

    async fn is_there(&self, path: &str) -> Step<bool> {
        match self.session.stat(path).await.map_err(Fault::from) {
            Ok(_) => Ok(true),
            Err(fault) if fault.is_missing() => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Makes a folder, and its missing parents below the root.
    async fn make_folder(&self, root: &str, path: &str) -> Step<()> {
        let below = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
        let mut folder = root.to_owned();
        for part in below.split('/').filter(|part| !part.is_empty()) {
            folder = format!("{folder}/{part}");
            // For a folder that exists, servers report only a general failure.
            if let Err(error) = self.session.mkdir(&folder, FileAttributes::empty()).await {
                let fault = Fault::from(error);
                if !fault.is_answer() || !self.is_there(&folder).await? {
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Writes a new file whole, and syncs it to the disk.
    async fn write(&self, path: &str, bytes: &Bytes) -> Step<()> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let handle = self.session.open(path, flags, FileAttributes::empty()).await?.handle;
        let written = async {
            let step = self.abilities.write_len as usize;
            let writes = (0..bytes.len().div_ceil(step)).map(|number| {
                let piece = bytes.slice(number * step..((number + 1) * step).min(bytes.len()));
                self.session.write(handle.clone(), (number * step) as u64, piece.to_vec())
            });
            futures_util::stream::iter(writes).buffer_unordered(UNDER_WAY).try_for_each(|_| async { Ok(()) }).await?;
            if self.abilities.syncs {
                self.session.fsync(handle.as_str()).await?;
            }
            match self.len(&handle).await? {
                len if len == bytes.len() as u64 => Ok(()),
                len => Err(Fault::Lost(format!("{len} of {} bytes arrived", bytes.len()))),
            }
        }
        .await;
        let closed = self.session.close(handle).await;
        written?;
        closed?;
        Ok(())
    }

    /// Gives a file its final name, which must be free. Returns whether it has its old name as well.
    async fn name(&self, from: &str, to: &str) -> Step<bool> {
        if self.abilities.links {
            match self.session.hardlink(from, to).await.map_err(Fault::from) {
                Ok(_) => return Ok(true),
                // The server may know links, but not the file system behind it.
                Err(fault) if fault.is_answer() && !fault.is_missing() => {}
                Err(fault) => return Err(fault),
            }
        }
        // Some servers replace an existing file.
        if self.is_there(to).await? {
            return Err(Fault::Taken);
        }
        match self.session.rename(from, to).await.map_err(Fault::from) {
            Ok(_) => Ok(false),
            Err(fault) if fault.is_answer() && !fault.is_missing() && self.is_there(to).await? => Err(Fault::Taken),
            Err(fault) => Err(fault),
        }
    }

    /// Puts a file under a name that must be free. Until it is whole, it is in the folder for temporary files.
    async fn put(&self, root: &str, path: &str, own: &str, bytes: &Bytes) -> Step<()> {
        let folder = format!("{root}/tmp");
        let own = format!("{folder}/{own}");
        let mut written = self.write(&own, bytes).await;
        if written.as_ref().is_err_and(Fault::is_missing) {
            self.make_folder(root, &folder).await?;
            written = self.write(&own, bytes).await;
        }
        let mut named = match written {
            Ok(()) => self.name(&own, path).await,
            Err(fault) => Err(fault),
        };
        if named.as_ref().is_err_and(Fault::is_missing)
            && let Some((above, _)) = path.rsplit_once('/')
        {
            self.make_folder(root, above).await?;
            named = self.name(&own, path).await;
        }
        let is_full = match &named {
            Ok(false) => return Ok(()),
            Err(Fault::Said(StatusCode::Failure, said)) => tells_full(said) || self.is_full(root).await,
            _ => false,
        };
        let named = named.map(drop);
        if named.as_ref().is_err_and(|fault| !fault.is_answer()) {
            return named;
        }
        // A file that cannot be removed now is swept later.
        let _ = self.session.remove(&own).await;
        if is_full { Err(Fault::Full) } else { named }
    }

    /// Whether the server's disk is full, if the server can tell.
    async fn is_full(&self, root: &str) -> bool {
        self.abilities.tells_space && matches!(self.session.statvfs(root).await, Ok(space) if space.blocks_avail < 16)
    }

    /// Removes the files of puts that were cut off long ago.
    async fn sweep(&self, root: &str, own: &str) -> Step<u64> {
        let folder = format!("{root}/tmp");
        let files = match self.entries(&folder).await {
            Err(fault) if fault.is_missing() => return Ok(0),
            files => files?,
        };
        if files.is_empty() {
            return Ok(0);
        }
        // The time of a new file shows the server's clock.
        let own = format!("{folder}/{own}");
        self.write(&own, &Bytes::new()).await?;
        let now = self.session.stat(own.as_str()).await.map(|told| told.attrs.mtime);
        self.session.remove(&own).await?;
        let Some(now) = now? else { return Ok(0) };
        let mut swept = 0;
        for (name, attrs) in files {
            let is_dead = attrs.mtime.is_some_and(|then| now.saturating_sub(then) > DEAD);
            if is_dead && !attrs.is_dir() && name.parse::<ObjectName>().is_ok() {
                match self.session.remove(format!("{folder}/{name}")).await.map_err(Fault::from) {
                    Ok(_) => swept += 1,
                    // Another machine may sweep at the same time.
                    Err(fault) if fault.is_missing() => {}
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(swept)
    }

    /// The entries of a folder, with the attributes that the server lists with the names.
    async fn entries(&self, path: &str) -> Step<Vec<(String, FileAttributes)>> {
        let handle = self.session.opendir(path).await?.handle;
        let mut names = Vec::new();
        let read = loop {
            match self.session.readdir(handle.as_str()).await {
                // This would never end.
                Ok(page) if page.files.is_empty() => break Err(Fault::Lost("a page of a list is empty".to_owned())),
                Ok(page) => names.extend(page.files.into_iter().map(|file| (file.filename, file.attrs))),
                Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => break Ok(()),
                Err(error) => break Err(Fault::from(error)),
            }
        };
        if !matches!(read, Err(Fault::Lost(_))) {
            self.session.close(handle).await?;
        }
        read?;
        names.retain(|(name, _): &(String, FileAttributes)| !matches!(name.as_str(), "." | ".."));
        Ok(names)
    }

    /// The names in a folder, each with its length, or `None` for a folder.
    async fn names(&self, path: &str) -> Step<Vec<(String, Option<u64>)>> {
        let names = self.entries(path).await?;
        let mut listed = Vec::with_capacity(names.len());
        for (name, mut attrs) in names {
            // A server may leave attributes out of a listing: then they are requested.
            if attrs.permissions.is_none() || !attrs.is_dir() && attrs.size.is_none() {
                attrs = match self.session.stat(format!("{path}/{name}")).await.map_err(Fault::from) {
                    Ok(told) => told.attrs,
                    // The file was removed in between.
                    Err(fault) if fault.is_missing() => continue,
                    Err(fault) => return Err(fault),
                };
            }
            let len = if attrs.is_dir() { None } else { Some(attrs.size.ok_or_else(no_length)?) };
            listed.push((name, len));
        }
        Ok(listed)
    }

    /// Lists all objects of a kind.
    async fn list(&self, root: &str, kind: Kind) -> Step<Vec<Listed>> {
        let top = match self.names(&format!("{root}/{}", kind.folder())).await {
            Err(fault) if fault.is_missing() => {
                // A vault without objects of a kind may lack the folder for it, but the vault's own folder must
                // exist.
                return if self.is_there(root).await? { Ok(Vec::new()) } else { Err(fault) };
            }
            top => top?,
        };
        if !kind.fans_out() {
            return Ok(top.into_iter().map(|(name, len)| listed(kind, name, len)).collect());
        }
        let (folders, mut found): (Vec<_>, Vec<_>) =
            top.into_iter().partition(|(name, len)| len.is_none() && name.len() == 2);
        let parts = folders.into_iter().map(|(folder, _)| async move {
            match self.names(&format!("{root}/{}/{folder}", kind.folder())).await {
                // The folder was removed in between.
                Err(fault) if fault.is_missing() => Ok(Vec::new()),
                names => Ok::<_, Fault>(
                    names?.into_iter().map(|(name, len)| (format!("{folder}/{name}"), len)).collect::<Vec<_>>(),
                ),
            }
        });
        let parts: Vec<Vec<_>> = futures_util::stream::iter(parts).buffer_unordered(FOLDERS).try_collect().await?;
        found.extend(parts.into_iter().flatten());
        Ok(found.into_iter().map(|(name, len)| listed(kind, name, len)).collect())
    }
}

/// Parses the name of a file in the folder of a kind.
fn listed(kind: Kind, below: String, len: Option<u64>) -> Listed {
    let path = format!("{}/{below}", kind.folder());
    let name: Option<ObjectName> = below.rsplit('/').next().and_then(|name| name.parse().ok());
    match (name.filter(|name| ObjectKey::Named(kind, *name).to_string() == path), len) {
        (Some(name), Some(len)) => Listed::Object { name, len },
        _ => Listed::Foreign(path),
    }
}

impl SftpClient {
    /// A client of a folder on the host to which this program connects.
    pub(super) fn new(
        line: Arc<Line>,
        surroundings: Arc<dyn Surroundings>,
        carrier: Carrier,
        root: &str,
    ) -> Result<Self, StoreError> {
        let runtime = Runtime::new().map_err(|error| line.unusable(error.to_string()))?;
        Ok(Self { runtime, line, surroundings, carrier, root: root.into(), idle: Mutex::default() })
    }

    fn path(&self, key: &ObjectKey) -> String {
        format!("{}/{key}", self.root)
    }

    /// Runs a request on a connection of its own.
    fn ask<T: Send + 'static, W: Future<Output = Step<T>> + Send + 'static>(
        &self,
        action: &'static str,
        object: &Subject,
        work: impl FnOnce(Arc<Connection>) -> W,
    ) -> Result<T, StoreError> {
        let mut watch = self.line.watch(action, object.clone());
        let now = self.surroundings.now();
        let found = {
            let mut idle = lock(&self.idle);
            idle.retain(|(used, _)| now.saturating_sub(*used) < IDLE);
            idle.pop()
        };
        let connection = if let Some((_, connection)) = found {
            connection
        } else {
            let (carrier, tally) = (self.carrier.clone(), Arc::<Tally>::default());
            let counted = tally.clone();
            let connecting = async move { connect(&carrier, counted).await };
            match self.runtime.run(&mut watch, &tally, connecting)? {
                Ok(connection) => Arc::new(connection),
                Err(Fault::Lost(what)) => return Err(self.lost(action, object, what)),
                Err(fault) => return Err(self.lost(action, object, format!("{fault:?}"))),
            }
        };
        let (request, ended) = (work(connection.clone()), connection.ended.clone());
        let request = async move { while_connected(&ended, request).await };
        let outcome = self.runtime.run(&mut watch, &connection.tally.clone(), request)?;
        if outcome.as_ref().map_or_else(Fault::is_answer, |_| true) {
            lock(&self.idle).push((self.surroundings.now(), connection));
            return outcome.map_err(|fault| self.judge(action, object, fault));
        }
        outcome.map_err(|fault| {
            let what = told(&connection.complaint, &fault);
            self.lost(action, object, what)
        })
    }

    fn lost(&self, action: &'static str, object: &Subject, what: String) -> StoreError {
        self.line.unreachable(action, object.clone(), io::Error::other(what))
    }

    /// Turns a fault into the store error that it stands for.
    fn judge(&self, action: &'static str, object: &Subject, fault: Fault) -> StoreError {
        match fault {
            Fault::Taken => StoreError::Exists { object: object.clone() },
            Fault::Full => StoreError::Full { object: object.clone() },
            Fault::Len(have) => StoreError::Short { object: object.clone(), need: 0, have },
            Fault::Said(StatusCode::NoSuchFile, _) if matches!(object, Subject::Object(_)) => {
                StoreError::Missing { object: object.clone() }
            }
            Fault::Said(StatusCode::NoSuchFile, _) => StoreError::Gone { place: self.line.place().to_owned() },
            Fault::Said(StatusCode::PermissionDenied, said) => StoreError::Denied {
                action,
                object: object.clone(),
                path: self.line.place().to_owned(),
                owner: None,
                source: io::Error::new(io::ErrorKind::PermissionDenied, said),
            },
            // No other try has another end.
            Fault::Said(StatusCode::OpUnsupported, said) => {
                self.line.unusable(format!("the server cannot do what is needed to {action}: {said}"))
            }
            // A general failure: a failing disk, too many open files. It says nothing about the object.
            Fault::Said(code, said) => self.lost(action, object, format!("{code}: {said}")),
            Fault::Lost(what) => self.lost(action, object, what),
        }
    }

    /// A missing object counts as missing only if the vault's folder exists.
    fn unless_gone<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        let Err(StoreError::Missing { object }) = done else { return done };
        let root = self.root.clone();
        let place = Subject::Place(self.line.place().to_owned());
        let is_there = self.ask("read", &place, |connection| async move { connection.is_there(&root).await })?;
        Err(if is_there {
            StoreError::Missing { object }
        } else {
            StoreError::Gone { place: self.line.place().to_owned() }
        })
    }

    /// A name for a temporary file.
    fn own_name(&self) -> String {
        format!("{:016x}{:016x}", self.surroundings.random(), self.surroundings.random())
    }

    /// Makes the vault's folder if it does not exist. Its parent must exist.
    pub(super) fn make_root(&self) -> Result<(), StoreError> {
        let root = self.root.clone();
        let place = Subject::Place(self.line.place().to_owned());
        self.ask("write", &place, |connection| async move {
            match connection.session.mkdir(root.to_string(), FileAttributes::empty()).await.map_err(Fault::from) {
                Err(fault) if fault.is_answer() && connection.is_there(&root).await? => Ok(()),
                done => done.map(drop),
            }
        })
    }
}

impl Store for SftpClient {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let (root, path) = (self.root.clone(), self.path(key));
        let own = self.own_name();
        self.unless_gone(
            self.ask(
                "write",
                &key.into(),
                |connection| async move { connection.put(&root, &path, &own, &bytes).await },
            ),
        )
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let need = offset.saturating_add(len as u64);
        let path = self.path(key);
        let done = self.ask("read", &key.into(), |connection| async move {
            connection
                .reading(&path, async |connection, handle| {
                    if len == 0 || need == u64::MAX || len > 1 << 40 {
                        let have = connection.len(handle).await?;
                        return if have < need { Err(Fault::Len(have)) } else { Ok(Vec::new()) };
                    }
                    let bytes = connection.read(handle, offset, len as u64).await?;
                    if bytes.len() < len { Err(Fault::Len(connection.len(handle).await?)) } else { Ok(bytes) }
                })
                .await
        });
        match self.unless_gone(done) {
            Err(StoreError::Short { object, have, .. }) => Err(StoreError::Short { object, need, have }),
            done => done.map(Bytes::from),
        }
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        let path = self.path(key);
        let done = self.ask("read", &key.into(), |connection| async move {
            connection
                .reading(&path, async |connection, handle| {
                    let have = connection.len(handle).await?;
                    if have > max {
                        return Ok(Err(have));
                    }
                    let bytes = connection.read(handle, 0, have).await?;
                    if (bytes.len() as u64) < have {
                        Err(Fault::Lost("the file was cut short".to_owned()))
                    } else {
                        Ok(Ok(bytes))
                    }
                })
                .await
        });
        match self.unless_gone(done)? {
            Ok(bytes) => Ok(bytes.into()),
            Err(have) => Err(StoreError::Long { object: key.into(), max, have }),
        }
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        let path = self.path(key);
        self.unless_gone(self.ask("read", &key.into(), |connection| async move {
            connection.session.stat(path).await?.attrs.size.ok_or_else(no_length)
        }))
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let root = self.root.clone();
        let listed = self.ask("list", &kind.into(), |connection| async move { connection.list(&root, kind).await })?;
        listed.into_iter().for_each(found);
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let path = self.path(key);
        let done = self.ask("delete", &key.into(), |connection| async move {
            connection.session.remove(path).await?;
            Ok(())
        });
        match self.unless_gone(done) {
            Err(StoreError::Missing { .. }) => Ok(()),
            done => done,
        }
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let (root, path, name) = (self.root.clone(), self.path(key), key.to_string());
        self.unless_gone(self.ask("quarantine", &key.into(), |connection| async move {
            if !connection.is_there(&path).await? {
                return Err(Fault::Said(StatusCode::NoSuchFile, String::new()));
            }
            let to = format!("{root}/quarantine/{name}");
            if let Some((above, _)) = to.rsplit_once('/') {
                connection.make_folder(&root, above).await?;
            }
            let mut number = 1_u32;
            loop {
                let free = if number == 1 { to.clone() } else { format!("{to}.{number}") };
                match connection.name(&path, &free).await {
                    Err(Fault::Taken) => number += 1,
                    Ok(true) => return Ok(connection.session.remove(path).await.map(drop)?),
                    done => return done.map(drop),
                }
            }
        }))
    }

    fn sweep_leftovers(&self) -> Result<u64, StoreError> {
        let (root, own) = (self.root.clone(), self.own_name());
        let place = Subject::Place(self.line.place().to_owned());
        self.ask("delete", &place, |connection| async move { connection.sweep(&root, &own).await })
    }

    fn limits(&self) -> StoreLimits {
        LIMITS
    }

    fn place(&self) -> String {
        self.line.place().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_called_with_what_the_address_says() {
        let carrier = Carrier::ssh(None, Some("me"), "nas", Some(2222));
        assert_eq!(carrier.program, "ssh");
        assert_eq!(&carrier.args[carrier.args.len() - 6..], ["-p2222", "-lme", "-s", "--", "nas", "sftp"]);
        let carrier = Carrier::ssh(Some("other".to_owned()), None, "[::1]", None);
        assert_eq!((carrier.program.as_str(), carrier.args[carrier.args.len() - 2].as_str()), ("other", "::1"));
    }
}
