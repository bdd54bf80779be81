//! Vaults of benches that open with a raw secret, so that no time goes into passwords.

use std::path::Path;

use vault::engine::snapshot::{Input, SnapshotOptions, snapshot};
use vault::progress::Silent;
use vault::tree::Time;
use vault::vault::{Identity, OpenOptions, Vault};

/// Opens each of these vaults.
pub const SECRET: &[u8] = b"only for measuring";

/// The time of everything.
pub fn clock() -> Time {
    Time { secs: 1_800_000_000, nanos: 0 }
}

/// Opens a vault with this state folder, as this machine.
pub fn options(state: &Path, machine: &str) -> OpenOptions {
    let text = |text: &str| text.to_owned();
    let identity = Identity { host: text("host"), user: text("user"), machine: text(machine), program: text("bench") };
    OpenOptions::new(state.to_owned(), identity)
}

/// Takes a snapshot of a folder.
pub fn take(vault: &Vault, folder: &Path, threads: usize) {
    let inputs = vec![Input::Path { name: b"top".to_vec(), path: folder.to_owned(), only: None }];
    let mut options = SnapshotOptions::new("source", inputs, &clock);
    options.threads = threads;
    snapshot(vault, options, &Silent::default()).unwrap();
}
