//! Prints a file of the newest snapshot. Several threads read it at once, each from another byte on.
//!
//! ```text
//! VAULT_PASSWORD=… cargo run --example read_file -- PLACE PATH
//! ```
#![allow(clippy::disallowed_methods, reason = "a program reads its arguments; only the library does not")]

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use vault::{DirStore, Identity, OpenOptions, ReadError, Secret, Silent, Store, StoredFile, Vault, View};

/// The number of threads.
const THREADS: usize = 4;
/// Bytes of opened segments that all threads share.
const CACHE: usize = 64 << 20;

fn open(place: &Path, state: PathBuf, password: &str) -> Result<Vault, Box<dyn Error>> {
    let store: Arc<dyn Store> = Arc::new(DirStore::open(place)?);
    let text = |text: &str| text.to_owned();
    let me = Identity { host: text("host"), user: text("me"), machine: text("me at host"), program: text("example") };
    Ok(vault::open(store, &Secret::password(password), OpenOptions::new(state, me), &Silent::default())?)
}

/// Fills `part` with the bytes of a file from this offset on, as far as there are any.
fn fill(file: &StoredFile, view: &View, mut offset: u64, mut part: &mut [u8]) -> Result<(), ReadError> {
    while !part.is_empty() {
        let len = file.read_at(view, offset, part)?;
        if len == 0 {
            break;
        }
        offset += len as u64;
        part = &mut part[len..];
    }
    Ok(())
}

/// The content of a file in the newest snapshot.
fn read(vault: Vault, path: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let newest = vault.snapshots().pop().ok_or("there is no snapshot")?;
    let entry = vault::find_entry(&vault, &newest, path)?;
    let file = StoredFile::new(&entry).ok_or("it is no regular file")?;
    let view = View::new(Arc::new(vault), CACHE, &Silent::default())?;
    let mut bytes = vec![0; usize::try_from(entry.size)?];
    let part = bytes.len().div_ceil(THREADS).max(1);
    let (file, view) = (&file, &view);
    thread::scope(|scope| {
        let parts = bytes.chunks_mut(part).zip((0..).step_by(part));
        let threads: Vec<_> =
            parts.map(|(bytes, offset)| scope.spawn(move || fill(file, view, offset, bytes))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(place), Some(path)) = (args.next(), args.next()) else {
        return Err("usage: read_file PLACE PATH".into());
    };
    let vault = open(&place, place.with_extension("state"), &std::env::var("VAULT_PASSWORD")?)?;
    let bytes = read(vault, path.to_string_lossy().as_bytes())?;
    Ok(std::io::stdout().write_all(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault::{CreateOptions, Input, SnapshotOptions, Time};

    #[test]
    fn all_threads_together_read_the_whole_file() {
        let scratch = tempfile::tempdir().unwrap();
        let (folder, place) = (scratch.path().join("folder"), scratch.path().join("place"));
        let content: Vec<u8> = (0..5_000_003_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("file"), &content).unwrap();
        std::fs::write(folder.join("empty"), "").unwrap();

        let store = DirStore::create(&place).unwrap();
        vault::create(&store, &CreateOptions::new(Secret::password("a password"), 0)).unwrap();
        let open = || open(&place, scratch.path().join("state"), "a password").unwrap();
        let inputs = vec![Input::Path { name: b"folder".to_vec(), path: folder, only: None }];
        let clock = || Time { secs: 1_800_000_000, nanos: 0 };
        vault::snapshot(&open(), SnapshotOptions::new("folder", inputs, &clock), &Silent::default()).unwrap();

        assert!(read(open(), b"folder/file").unwrap() == content);
        assert_eq!(read(open(), b"folder/empty").unwrap(), b"");
        assert!(read(open(), b"folder").is_err());
    }
}
