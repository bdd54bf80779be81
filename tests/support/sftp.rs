//! A server of SFTP in this process, which can be made to fail in all ways of real ones. In place of ssh the client runs
//! a script of two lines, which connects both pipes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tempfile::TempDir;

use super::faults::Faults;

/// Kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// The first words of a connection.
    Hello,
    /// The limits of messages.
    Limits,
    /// A file opened for reading.
    Open,
    /// A new file opened for writing.
    Create,
    Close,
    Read,
    Write,
    /// An open file made durable.
    Sync,
    /// The attributes of a path, or of an open file.
    Stat,
    FStat,
    /// A folder opened, and a page of its names.
    Folder,
    Page,
    Remove,
    MakeFolder,
    Rename,
    Link,
    /// The free space.
    Space,
}

/// Codes of statuses.
pub const OK: u32 = 0;
pub const EOF: u32 = 1;
pub const NO_SUCH_FILE: u32 = 2;
pub const DENIED: u32 = 3;
pub const FAILURE: u32 = 4;
pub const CONNECTION_LOST: u32 = 7;
pub const UNSUPPORTED: u32 = 8;

/// Fault of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status and these words; nothing is done.
    Status(u32, &'static str),
    /// The connection closes, and nothing is done.
    Close,
    /// It is done, and the connection closes before the answer.
    Lose,
    /// It is done, and the connection closes in the middle of the answer.
    Half,
    /// Nothing is done, and no answer comes as long as the client waits.
    Hang,
    /// It is done, and answered with an extended reply of a kind that nobody knows.
    Strange,
    /// It is done, and the answer says that it is for another request.
    Astray,
    /// It is done, and the answer says that it is longer than any message may be.
    Long,
    /// It is done, and the answer is of a type that does not exist.
    Untyped,
    /// The words of another program instead of an answer.
    Words,
    /// A read gets a third of the bytes, a list a name at a time, as servers may do.
    Few,
    /// A read gets no bytes, a list no names.
    None,
    /// A read gets more bytes than were asked for.
    Much,
}

/// The abilities of a server.
#[derive(Debug, Clone, Copy)]
pub struct Offers {
    /// Links, durable files, limits, free space.
    pub extensions: &'static [&'static str],
    /// Whether a file system without links lies behind it.
    pub has_no_links: bool,
    /// Whether a file takes the place of another one by renaming.
    pub replaces: bool,
}

/// Those of OpenSSH.
pub const ALL: Offers = Offers {
    extensions: &["hardlink@openssh.com", "fsync@openssh.com", "limits@openssh.com", "statvfs@openssh.com"],
    has_no_links: false,
    replaces: false,
};

/// The address of the vault.
pub const VAULT: &str = "sftp://nas/v";

type Content = Arc<Mutex<Vec<u8>>>;

#[derive(Default)]
struct State {
    files: BTreeMap<String, Content>,
    folders: BTreeSet<String>,
    faults: Faults<Ask, Fault>,
    asked: Vec<Ask>,
    /// Bytes that it still takes, if that is limited.
    room: Option<usize>,
    connections: Vec<TcpStream>,
}

/// The server. It ends when it is dropped.
pub struct FakeSftp {
    folder: TempDir,
    port: u16,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeSftp {
    /// Starts a server that offers this, and has the folder `/v`. `None`, with a message, where no shell can connect to
    /// it.
    pub fn start(offers: Offers) -> Option<Self> {
        if !std::path::Path::new("/bin/bash").exists() {
            eprintln!("skipped: bash is not installed");
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let folder = super::scratch();
        let script =
            format!("#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port} || exit 255\ncat <&3 3<&- &\nexec cat >&3 3<&-\n");
        let program = folder.path().join("ssh");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let server = Self { folder, port, state: Arc::default(), ends: Arc::default() };
        lock(&server.state).folders.extend([String::new(), "/v".to_owned()]);
        let (state, ends) = (server.state.clone(), server.ends.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Relaxed) {
                    return;
                }
                let (Ok(stream), state) = (stream, state.clone()) else { continue };
                stream.set_nodelay(true).unwrap();
                lock(&state).connections.push(stream.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = serve(&stream, &state, offers);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Some(server)
    }

    /// The program in place of ssh.
    pub fn program(&self) -> String {
        self.folder.path().join("ssh").display().to_string()
    }

    /// Makes the next requests of this kind fail in these ways, `None` for one that succeeds.
    pub fn script(&self, ask: Ask, faults: impl IntoIterator<Item = Option<Fault>>) {
        lock(&self.state).faults.script(ask, faults);
    }

    /// Makes each request of this kind fail from now on.
    pub fn always(&self, ask: Ask, fault: Fault) {
        lock(&self.state).faults.always(ask, fault);
    }

    /// Makes nothing fail from now on.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        state.faults.heal();
        state.room = None;
    }

    /// Makes it take only this many bytes more.
    pub fn limit_room(&self, bytes: usize) {
        lock(&self.state).room = Some(bytes);
    }

    /// Whether all scripted faults have happened.
    pub fn is_played(&self) -> bool {
        lock(&self.state).faults.are_played()
    }

    /// Number of requests of a kind so far.
    pub fn count(&self, ask: Ask) -> usize {
        lock(&self.state).asked.iter().filter(|other| **other == ask).count()
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        lock(&self.state).files.keys().cloned().collect()
    }

    /// The content of a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.state).files.get(name).map(|content| lock(content).clone())
    }

    /// Takes all files and folders away, as if another disk were there.
    pub fn take_away(&self) {
        let mut state = lock(&self.state);
        state.folders.clear();
        state.files.clear();
    }
}

impl Drop for FakeSftp {
    /// The programs end with their connections.
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        lock(&self.state).connections.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

/// The fields of a message.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn take(&mut self, len: usize) -> &'m [u8] {
        let (first, rest) = self.0.split_at(len);
        self.0 = rest;
        first
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn int(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn long(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn bytes(&mut self) -> &'m [u8] {
        let len = self.int() as usize;
        self.take(len)
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }
}

/// A message under way.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    fn int(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn long(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let mut with = self.int(u32::try_from(bytes.len()).unwrap());
        with.0.extend(bytes);
        with
    }

    fn status(id: u32, code: u32, words: &str) -> Self {
        Self::new(101).int(id).int(code).bytes(words.as_bytes()).bytes(b"")
    }

    /// A file's length, rights and times; a folder has no length.
    fn attributes(self, len: Option<usize>) -> Self {
        match len {
            Some(len) => self.int(1 | 4 | 8).long(len as u64).int(0o100_644).int(1_700_000_000).int(1_700_000_000),
            None => self.int(4 | 8).int(0o040_755).int(1_700_000_000).int(1_700_000_000),
        }
    }
}

/// An open file or folder.
enum Handle {
    File(Content),
    /// The entries that were not listed yet.
    Folder(Vec<(String, Option<usize>)>),
}

/// One connection.
struct Talk<'s> {
    state: &'s Mutex<State>,
    offers: Offers,
    handles: BTreeMap<u32, Handle>,
    opened: u32,
}

/// The kind of a request, by its first bytes.
fn ask(message: &[u8]) -> Option<Ask> {
    let mut fields = Fields(message);
    let kind = fields.byte();
    let _id = fields.int();
    Some(match kind {
        1 => Ask::Hello,
        3 => {
            let _path = fields.bytes();
            // Bit 8: make it.
            if fields.int() & 8 == 0 { Ask::Open } else { Ask::Create }
        }
        4 => Ask::Close,
        5 => Ask::Read,
        6 => Ask::Write,
        8 => Ask::FStat,
        7 | 17 => Ask::Stat,
        11 => Ask::Folder,
        12 => Ask::Page,
        13 => Ask::Remove,
        14 => Ask::MakeFolder,
        18 => Ask::Rename,
        200 => match fields.bytes() {
            b"hardlink@openssh.com" => Ask::Link,
            b"fsync@openssh.com" => Ask::Sync,
            b"limits@openssh.com" => Ask::Limits,
            b"statvfs@openssh.com" => Ask::Space,
            _ => return None,
        },
        _ => return None,
    })
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or_else(String::new, |(above, _)| above.to_owned())
}

impl Talk<'_> {
    fn open(&mut self, id: u32, handle: Handle) -> Message {
        self.opened += 1;
        self.handles.insert(self.opened, handle);
        Message::new(102).int(id).bytes(self.opened.to_string().as_bytes())
    }

    fn file(&self, handle: &str) -> Option<Content> {
        match self.handles.get(&handle.parse().ok()?)? {
            Handle::File(content) => Some(content.clone()),
            Handle::Folder(_) => None,
        }
    }

    /// Carries out a request, and answers it. `fault` says how an answer is unusual that is no failure.
    fn answer(&mut self, what: Ask, message: &[u8], fault: Option<&Fault>) -> Message {
        let mut fields = Fields(&message[1..]);
        let id = fields.int();
        let state = self.state;
        let mut state = lock(state);
        let status = |code, words| Message::status(id, code, words);
        let done = || Message::status(id, OK, "Success");
        match what {
            Ask::Hello => {
                let offered = self.offers.extensions.iter();
                offered.fold(Message::new(2).int(3), |hello, name| hello.bytes(name.as_bytes()).bytes(b"1"))
            }
            Ask::Limits => Message::new(201).int(id).long(256 << 10).long(64 << 10).long(64 << 10).long(100),
            Ask::Space => {
                let free = state.room.map_or(1 << 30, |room| room as u64 / 4096);
                [4096, 4096, 1 << 30, free, free, 99, 99, 99, 1, 0, 255]
                    .into_iter()
                    .fold(Message::new(201).int(id), Message::long)
            }
            Ask::Open => match state.files.get(&fields.text()).cloned() {
                Some(content) => self.open(id, Handle::File(content)),
                None => status(NO_SUCH_FILE, "No such file"),
            },
            Ask::Create => {
                let path = fields.text();
                if !state.folders.contains(&parent(&path)) {
                    return status(NO_SUCH_FILE, "No such file");
                }
                if state.files.contains_key(&path) {
                    return status(FAILURE, "Failure");
                }
                let content = Content::default();
                state.files.insert(path, content.clone());
                self.open(id, Handle::File(content))
            }
            Ask::Close => {
                self.handles.remove(&fields.text().parse().unwrap());
                done()
            }
            Ask::Read => {
                let Some(content) = self.file(&fields.text()) else { return status(FAILURE, "Failure") };
                let (offset, len) = (fields.long() as usize, fields.int() as usize);
                let content = lock(&content);
                let len = match fault {
                    Some(Fault::Few) => len.div_ceil(3),
                    Some(Fault::Much) => len + 10,
                    Some(Fault::None) => 0,
                    _ => len.min(64 << 10),
                };
                let mut bytes = content.get(offset..).unwrap_or_default().to_vec();
                bytes.truncate(len);
                if fault == Some(&Fault::Much) {
                    bytes.resize(len, b'!');
                }
                if bytes.is_empty() && fault != Some(&Fault::None) {
                    return status(EOF, "End of file");
                }
                Message::new(103).int(id).bytes(&bytes)
            }
            Ask::Write => {
                let Some(content) = self.file(&fields.text()) else { return status(FAILURE, "Failure") };
                let (offset, bytes) = (fields.long() as usize, fields.bytes());
                if let Some(room) = &mut state.room {
                    let Some(left) = room.checked_sub(bytes.len()) else { return status(FAILURE, "Failure") };
                    *room = left;
                }
                let mut content = lock(&content);
                let len = content.len().max(offset + bytes.len());
                content.resize(len, 0);
                content[offset..offset + bytes.len()].copy_from_slice(bytes);
                done()
            }
            Ask::Sync => done(),
            Ask::FStat => match self.file(&fields.text()) {
                Some(content) => Message::new(105).int(id).attributes(Some(lock(&content).len())),
                None => status(FAILURE, "Failure"),
            },
            Ask::Stat => {
                let path = fields.text();
                let file = state.files.get(&path).map(|content| lock(content).len());
                if file.is_none() && !state.folders.contains(&path) {
                    return status(NO_SUCH_FILE, "No such file");
                }
                Message::new(105).int(id).attributes(file)
            }
            Ask::Folder => {
                let path = fields.text();
                if !state.folders.contains(&path) {
                    return status(NO_SUCH_FILE, "No such file");
                }
                let below = |other: &String| (parent(other) == path).then(|| other[path.len() + 1..].to_owned());
                let files = state.files.iter();
                let mut entries: Vec<_> =
                    files.filter_map(|(other, content)| Some((below(other)?, Some(lock(content).len())))).collect();
                let folders = state.folders.iter().filter(|other| !other.is_empty());
                entries.extend(folders.filter_map(|other| Some((below(other)?, None))));
                entries.extend([(".".to_owned(), None), ("..".to_owned(), None)]);
                drop(state);
                self.open(id, Handle::Folder(entries))
            }
            Ask::Page => {
                let handle = fields.text().parse().unwrap();
                let Some(Handle::Folder(left)) = self.handles.get_mut(&handle) else {
                    return status(FAILURE, "Failure");
                };
                if left.is_empty() && fault != Some(&Fault::None) {
                    return status(EOF, "End of file");
                }
                let most = match fault {
                    Some(Fault::Few) => 1,
                    Some(Fault::None) => 0,
                    _ => 100,
                };
                let page: Vec<_> = left.drain(..left.len().min(most)).collect();
                let head = Message::new(104).int(id).int(u32::try_from(page.len()).unwrap());
                page.into_iter()
                    .fold(head, |page, (name, len)| page.bytes(name.as_bytes()).bytes(b"a line of ls").attributes(len))
            }
            Ask::Remove => match state.files.remove(&fields.text()) {
                Some(_) => done(),
                None => status(NO_SUCH_FILE, "No such file"),
            },
            Ask::MakeFolder => {
                let path = fields.text();
                if !state.folders.contains(&parent(&path)) {
                    return status(NO_SUCH_FILE, "No such file");
                }
                if state.folders.insert(path) { done() } else { status(FAILURE, "Failure") }
            }
            Ask::Rename | Ask::Link => {
                if what == Ask::Link {
                    let _name = fields.bytes();
                    if self.offers.has_no_links {
                        return status(DENIED, "Permission denied");
                    }
                }
                let (from, to) = (fields.text(), fields.text());
                let Some(content) = state.files.get(&from).cloned() else {
                    return status(NO_SUCH_FILE, "No such file");
                };
                if !state.folders.contains(&parent(&to)) {
                    return status(NO_SUCH_FILE, "No such file");
                }
                if state.files.contains_key(&to) && !(what == Ask::Rename && self.offers.replaces) {
                    return status(FAILURE, "Failure");
                }
                state.files.insert(to, content);
                if what == Ask::Rename {
                    state.files.remove(&from);
                }
                done()
            }
        }
    }
}

/// Serves one connection until it ends.
fn serve(mut stream: &TcpStream, state: &Mutex<State>, offers: Offers) -> std::io::Result<()> {
    let mut talk = Talk { state, offers, handles: BTreeMap::new(), opened: 0 };
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let mut message = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut message)?;
        let id = Fields(&message[1..]).int();
        let Some(what) = ask(&message) else {
            send(stream, &Message::status(id, UNSUPPORTED, "Operation unsupported").0)?;
            continue;
        };
        let fault = {
            let mut state = lock(state);
            state.asked.push(what);
            state.faults.take(&what)
        };
        match &fault {
            Some(Fault::Status(code, words)) => {
                send(stream, &Message::status(id, *code, words).0)?;
                continue;
            }
            Some(Fault::Close) => return Ok(()),
            Some(Fault::Hang) => continue,
            Some(Fault::Words) => {
                stream.write_all(b"Welcome to this machine, which is no server of files, and says so at length")?;
                continue;
            }
            _ => {}
        }
        let mut answer = talk.answer(what, &message, fault.as_ref()).0;
        match fault {
            Some(Fault::Lose) => return Ok(()),
            Some(Fault::Half) => {
                stream.write_all(&u32::try_from(answer.len()).unwrap().to_be_bytes())?;
                return stream.write_all(&answer[..answer.len() / 2]);
            }
            Some(Fault::Strange) => answer = Message::new(201).int(id).bytes(b"?").0,
            Some(Fault::Astray) => answer[1..5].copy_from_slice(&(id ^ 0x4000_0000).to_be_bytes()),
            Some(Fault::Long) => {
                stream.write_all(&(1_u32 << 30).to_be_bytes())?;
                stream.write_all(&answer)?;
                continue;
            }
            Some(Fault::Untyped) => answer[0] = 77,
            _ => {}
        }
        send(stream, &answer)?;
    }
}

fn send(mut stream: &TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(&u32::try_from(message.len()).unwrap().to_be_bytes())?;
    stream.write_all(message)
}
