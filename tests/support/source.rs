//! Source trees made from a seed: every kind of file, odd names, odd sizes.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

pub use super::os::ODD_NAMES;
use super::os::{open_to_touch, plant_special, write_all_at};

/// Random numbers that are the same on every machine (SplitMix64).
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Bytes made from a seed: half of them look random, the others like text.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    if seed % 2 == 1 {
        for byte in &mut out {
            *byte = b"etaoin shrdlu\n"[usize::from(*byte) % 14];
        }
    }
    out
}

/// Writes a file of `len` bytes from a seed.
pub fn write(path: &Path, seed: u64, len: usize) {
    fs::write(path, bytes(seed, len)).unwrap();
}

/// Sets the modification time of files and folders.
pub fn set_mtime(path: &Path, secs: i64, nanos: u32) {
    let duration = Duration::new(secs.unsigned_abs(), 0);
    let whole = if secs < 0 { UNIX_EPOCH - duration } else { UNIX_EPOCH + duration };
    open_to_touch(path).set_modified(whole + Duration::from_nanos(u64::from(nanos))).unwrap();
}

/// Sets whether a file is read-only.
pub fn set_readonly(path: &Path, readonly: bool) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    permissions.set_readonly(readonly);
    fs::set_permissions(path, permissions).unwrap();
}

/// A file with data at some places and holes between them.
pub fn sparse(path: &Path, seed: u64, len: u64) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    write_all_at(&file, &bytes(seed, 10_000), len / 4);
    write_all_at(&file, &bytes(seed.wrapping_add(2), 5_000), len / 2);
}

/// Size of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Some dozens of files, some dozens of KB.
    Tiny,
    /// Files of all sizes below 300 KB.
    Small,
    /// The same, with files of 5 MiB and of 34 MiB.
    Large,
}

/// Fills a folder with files.
pub fn plant(folder: &Path, seed: u64, size: Size) {
    let mut rng = Rng(seed);
    let lens: &[u64] = match size {
        Size::Tiny => &[0, 1, 40, 700, 3000],
        Size::Small | Size::Large => &[0, 1, 100, 5_000, 70_000, 300_000],
    };
    for number in 0..4 {
        let below = folder.join(format!("folder {number}"));
        fs::create_dir_all(below.join("deep/deeper")).unwrap();
        fs::create_dir(below.join("empty")).unwrap();
        for (file, len) in lens.iter().enumerate() {
            let len = usize::try_from(len + rng.below(len / 2 + 1)).unwrap();
            let seed = rng.next();
            write(&below.join(format!("file {file}.bin")), seed, len);
            write(&below.join(format!("deep/deeper/{file}")), seed.wrapping_add(rng.below(3)), len);
        }
    }
    for name in ODD_NAMES {
        write(&folder.join(vault::path::to_path(name)), rng.next(), 30);
    }
    write(&folder.join("n".repeat(255)), 7, 12);
    let hole = if size == Size::Tiny { 100_000 } else { 1 << 20 };
    sparse(&folder.join("sparse"), rng.next(), 3 * hole);
    File::create(folder.join("only a hole")).unwrap().set_len(hole).unwrap();
    plant_special(folder);
    if size == Size::Large {
        write(&folder.join("5 MiB"), rng.next(), 5 << 20);
        write(&folder.join("34 MiB"), rng.next() & !1, 34 << 20);
    }
    set_mtime(&folder.join("folder 3/file 2.bin"), -1, 999_999_999);
    set_mtime(&folder.join("folder 3/file 4.bin"), 4_000_000_000, 1);
    set_mtime(&folder.join("folder 3/deep"), 1_000_000_000, 123_456_789);
}
