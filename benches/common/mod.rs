//! Shared parts of the benches of whole commands: planted trees, and timed runs of the program whose memory is
//! watched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Words in a random order, which compress about as source code does.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "static ",
        "int ",
        "struct ",
        "return ",
        "if (",
        ") {\n",
        "}\n",
        "\t\t",
        "device",
        "->",
        " = ",
        ";\n",
        "unsigned long ",
        "0x",
        "list_",
        "err",
    ];
    let mut out = Vec::with_capacity(len + 16);
    let mut blocks = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut block = [0; 1024];
    while out.len() < len {
        blocks.fill(&mut block);
        for byte in block {
            out.extend_from_slice(WORDS[usize::from(byte & 15)].as_bytes());
            if byte > 200 {
                out.push(byte);
            }
        }
    }
    out.truncate(len);
    out
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Length of a file of a source tree: half of them below 4.5 KB, the mean 16 KB, the largest 100 KB.
#[expect(clippy::cast_sign_loss, reason = "a power of two is positive")]
pub fn source_len(number: u64) -> usize {
    let hash = blake3::hash(&number.to_le_bytes());
    let step = f64::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) / 65536.0;
    (200.0 * (step * 9.0).exp2()) as usize
}

/// Path of a file below the tree: 15 files in a folder, 20 folders in a folder.
pub fn place(number: u64) -> PathBuf {
    let folder = number / 15;
    PathBuf::from(format!("{}/{}/{}/{number}.c", folder / 400, folder / 20 % 20, folder % 20))
}

/// Plants `files` files. `version` changes the content of one in twenty.
pub fn plant(folder: &Path, files: u64, version: u64, len: impl Fn(u64) -> usize) {
    for number in 0..files {
        let path = folder.join(place(number));
        if number % 15 == 0 {
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        }
        let seed = number + if number % 20 == 7 { version << 40 } else { 0 };
        fs::write(path, text(seed, len(number))).expect("a file");
    }
}

/// A vault on disk and a state folder of its own.
pub struct Bench {
    /// The folder that holds everything; on a disk, unless `TMPDIR` says otherwise.
    pub folder: tempfile::TempDir,
}

/// The time and memory of a run.
#[derive(Clone, Copy)]
pub struct Run {
    /// Wall time of the whole process.
    pub time: Duration,
    /// The peak of its resident memory, in bytes; 0 where the system does not report it.
    pub peak: u64,
}

impl Bench {
    /// An empty vault.
    pub fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().expect("a folder") };
        bench.fresh(&[]);
        bench
    }

    /// Replaces the vault by an empty one, made with these options.
    pub fn fresh(&self, options: &[&str]) {
        for name in ["store", "state"] {
            let _ = fs::remove_dir_all(self.folder.path().join(name));
        }
        self.run(&[&["init"], options].concat());
    }

    /// Runs the program, which must succeed.
    pub fn run(&self, args: &[&str]) -> Run {
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_vault"))
            .args(args)
            .arg("--quiet")
            .env("VAULT_REPO", self.folder.path().join("store"))
            .env("VAULT_STATE_DIR", self.folder.path().join("state"))
            .env("VAULT_PASSWORD", "only for measuring")
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program");
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut peak = 0;
        let ended = loop {
            if let Some(ended) = child.try_wait().expect("its end") {
                break ended;
            }
            // The peak only grows: the last reading is at most 2 ms old.
            peak = peak_of(&status).unwrap_or(peak);
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(ended.success(), "vault {args:?}: {ended}");
        Run { time: begun.elapsed(), peak }
    }

    /// Bytes in the store.
    pub fn stored(&self) -> u64 {
        fn len(folder: &Path) -> u64 {
            let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
            entries
                .map(|entry| {
                    let meta = entry.metadata().expect("its metadata");
                    if meta.is_dir() { len(&entry.path()) } else { meta.len() }
                })
                .sum()
        }
        len(&self.folder.path().join("store"))
    }
}

fn peak_of(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// The run with the median time of several.
pub fn median(count: usize, mut run: impl FnMut() -> Run) -> Run {
    let mut runs: Vec<Run> = (0..count).map(|_| run()).collect();
    runs.sort_by_key(|run| run.time);
    let peak = runs.iter().map(|run| run.peak).max().unwrap_or(0);
    Run { peak, ..runs[count / 2] }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}
