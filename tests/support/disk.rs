//! A block device that records the order of writes and flushes: a loop device above a file of a file system (FUSE) that
//! this process serves. The recording gives the possible contents of the device after a power cut at any moment.
//!
//! Needs root, `/dev/fuse` and loop devices.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::source::Rng;

/// Size of the blocks that are kept in memory.
const BLOCK: usize = 4096;
/// Number of bytes that a disk writes completely or not at all.
const SECTOR: usize = 512;
/// The largest accepted write.
const WRITE_MAX: u32 = 128 << 10;

/// An event of the device, or of its user.
#[derive(Debug, Clone)]
pub enum Event {
    /// Bytes were written at an offset. Until the next flush they may be lost, completely or in part.
    Write(u64, Vec<u8>),
    /// All earlier writes are durable.
    Flush,
    /// The user of the device reached this point.
    Mark(usize),
}

/// The blocks of a disk that are not all zeros.
#[derive(Debug, Clone, Default)]
struct Blocks {
    size: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Blocks {
    fn load(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let blocks = bytes.chunks(BLOCK).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        let blocks = blocks.map(|(number, block)| (number as u64, block.to_vec())).collect();
        Self { size: bytes.len() as u64, blocks }
    }

    fn save(&self, path: &Path) {
        let file = File::create(path).unwrap();
        file.set_len(self.size).unwrap();
        self.blocks.iter().for_each(|(number, block)| file.write_all_at(block, number * BLOCK as u64).unwrap());
    }

    /// The parts of each block that a range touches: number of the block, offset in the block, offset in the range, and
    /// length.
    fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let inner = (at % BLOCK as u64) as usize;
            let part = (BLOCK - inner).min(len - done);
            done += part;
            (part > 0).then_some((at / BLOCK as u64, inner, done - part, part))
        })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, inner, from, len) in Self::parts(offset, bytes.len()) {
            let block = self.blocks.entry(number).or_insert_with(|| vec![0; BLOCK]);
            block[inner..inner + len].copy_from_slice(&bytes[from..from + len]);
        }
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = len.min(usize::try_from(self.size.saturating_sub(offset)).unwrap());
        let mut bytes = vec![0; len];
        for (number, inner, from, len) in Self::parts(offset, len) {
            if let Some(block) = self.blocks.get(&number) {
                bytes[from..from + len].copy_from_slice(&block[inner..inner + len]);
            }
        }
        bytes
    }
}

#[derive(Debug, Default)]
struct State {
    blocks: Blocks,
    log: Vec<Event>,
}

/// The first content of a device, and its events.
#[derive(Debug)]
pub struct Recording {
    base: Blocks,
    /// The events, in their order.
    pub log: Vec<Event>,
}

impl Recording {
    /// Writes a possible content of the device if the power is cut after `cut` events: all flushed writes, and of the
    /// others some sectors, chosen by dice, or nothing without dice.
    pub fn save(&self, cut: usize, mut dice: Option<Rng>, path: &Path) {
        let log = &self.log[..cut];
        let flushed = log.iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let mut blocks = self.base.clone();
        for (number, event) in log.iter().enumerate() {
            let Event::Write(offset, bytes) = event else { continue };
            if number < flushed {
                blocks.write(*offset, bytes);
            } else if let Some(dice) = &mut dice {
                let fate = dice.below(3);
                for (sector, part) in bytes.chunks(SECTOR).enumerate() {
                    if fate == 0 || fate == 1 && dice.below(2) == 0 {
                        blocks.write(offset + (sector * SECTOR) as u64, part);
                    }
                }
            }
        }
        blocks.save(path);
    }

    /// Number of events until the user reached a point.
    pub fn mark(&self, point: usize) -> usize {
        self.log.iter().position(|event| matches!(event, Event::Mark(mark) if *mark == point)).unwrap() + 1
    }

    /// Number of flushes.
    pub fn flushes(&self) -> usize {
        self.log.iter().filter(|event| matches!(event, Event::Flush)).count()
    }
}

/// A file system on a recording device.
#[derive(Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    base: Blocks,
    served: PathBuf,
    mounted: PathBuf,
    server: Option<JoinHandle<()>>,
}

/// Runs a program of the system.
///
/// # Errors
/// If it fails, or is missing: its output.
pub fn system(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Mounts an image file.
///
/// # Errors
/// If the system cannot.
pub fn mount(image: &Path, at: &Path, options: &str) -> Result<String, String> {
    let options = format!("loop,{options}");
    system("mount", &["-o", &options, image.to_str().unwrap(), at.to_str().unwrap()])
}

impl Disk {
    /// Mounts the file system of an image at a folder, with a recording device in between. The image stays unchanged.
    ///
    /// # Errors
    /// If the system cannot: its message.
    pub fn mount(image: &Path, at: &Path, options: &str) -> Result<Self, String> {
        let served = at.with_extension("served");
        fs::create_dir_all(&served).unwrap();
        let fuse = File::options().read(true).write(true).open("/dev/fuse");
        let fuse = fuse.map_err(|error| format!("/dev/fuse: {error}"))?;
        let base = Blocks::load(image);
        let state = Arc::new(Mutex::new(State { blocks: base.clone(), log: Vec::new() }));
        let output = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "none"])
            .arg(&served)
            .stdin(Stdio::from(fuse.try_clone().unwrap()))
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let shared = state.clone();
        let server = Some(std::thread::spawn(move || serve(&fuse, &shared)));
        let disk = Self { state, base, served, mounted: at.to_owned(), server };
        mount(&disk.served.join("disk"), at, options)?;
        Ok(disk)
    }

    /// Records that the user of the device reached a point.
    pub fn mark(&self, point: usize) {
        lock(&self.state).log.push(Event::Mark(point));
    }

    /// Unmounts it. The writes of the unmounting are not a part of the result.
    pub fn stop(self) -> Recording {
        let log = std::mem::take(&mut lock(&self.state).log);
        Recording { base: self.base.clone(), log }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for folder in [&self.mounted, &self.served] {
            let folder = folder.to_str().unwrap();
            if system("umount", &[folder]).is_err() {
                let _ = system("umount", &["-l", folder]);
            }
        }
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number in a message of the kernel, in the byte order of the machines on which this runs.
fn number(message: &[u8], at: usize, len: usize) -> u64 {
    message.get(at..at + len).map_or(0, |bytes| bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
}

/// The attributes of a file for the kernel: the root (1), or the file that is the disk (2).
fn attributes(node: u64, size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [node, size, size / 512, 0, 0, 0] {
        out.extend(number.to_le_bytes());
    }
    let mode = if node == 1 { 0o040_755_u32 } else { 0o100_600 };
    for number in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        out.extend(number.to_le_bytes());
    }
    out
}

/// Answers the kernel until the file system is unmounted.
fn serve(fuse: &File, state: &Mutex<State>) {
    const IN_HEADER: usize = 40;
    let mut buffer = vec![0; WRITE_MAX as usize + (64 << 10)];
    loop {
        let len = match (&*fuse).read(&mut buffer) {
            Ok(len) if len >= IN_HEADER => len,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => continue,
            _ => return,
        };
        let (header, body) = buffer[..len].split_at(IN_HEADER);
        let (kind, unique, node) = (number(header, 4, 4), number(header, 8, 8), number(header, 16, 8));
        if let Some(answer) = answer(kind, node, body, &mut lock(state)) {
            let (error, bytes) = answer.map_or_else(|error| (-error, Vec::new()), |bytes| (0, bytes));
            let mut message = Vec::with_capacity(16 + bytes.len());
            message.extend((16 + bytes.len() as u32).to_le_bytes());
            message.extend(error.to_le_bytes());
            message.extend(unique.to_le_bytes());
            message.extend(bytes);
            // The asking process may be gone.
            let _ = (&*fuse).write_all(&message);
        }
    }
}

/// The answer to a message of the kernel: none, an error number, or bytes.
fn answer(kind: u64, node: u64, body: &[u8], state: &mut State) -> Option<Result<Vec<u8>, i32>> {
    const NO_ENTRY: i32 = 2;
    const NOT_OFFERED: i32 = 38;
    let size = state.blocks.size;
    let zeros = |count: usize| vec![0_u8; count];
    Some(Ok(match kind {
        // INIT: version 7.31, no features, the largest write.
        26 => {
            let mut out = Vec::new();
            for number in [7_u32, 31, 0, 0, 0, WRITE_MAX, 1] {
                out.extend(number.to_le_bytes());
            }
            out.resize(64, 0);
            out
        }
        // LOOKUP
        1 if body == b"disk\0" => {
            let mut out = Vec::new();
            for number in [2_u64, 0, 3600, 3600, 0] {
                out.extend(number.to_le_bytes());
            }
            out.extend(attributes(2, size));
            out
        }
        1 => return Some(Err(NO_ENTRY)),
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => return None,
        // GETATTR, SETATTR
        3 | 4 => {
            let mut out = Vec::new();
            for number in [3600_u64, 0] {
                out.extend(number.to_le_bytes());
            }
            out.extend(attributes(node, size));
            out
        }
        // OPEN, OPENDIR
        14 | 27 => zeros(16),
        // READ
        15 => state.blocks.read(number(body, 8, 8), number(body, 16, 4) as usize),
        // WRITE
        16 => {
            let (offset, len) = (number(body, 8, 8), number(body, 16, 4) as usize);
            let bytes = body[40..40 + len].to_vec();
            state.blocks.write(offset, &bytes);
            state.log.push(Event::Write(offset, bytes));
            let mut out = (len as u32).to_le_bytes().to_vec();
            out.resize(8, 0);
            out
        }
        // FSYNC
        20 => {
            state.log.push(Event::Flush);
            Vec::new()
        }
        // STATFS
        17 => zeros(80),
        // RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY
        18 | 25 | 29 | 34 | 38 => Vec::new(),
        _ => return Some(Err(NOT_OFFERED)),
    }))
}
