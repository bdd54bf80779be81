//! Vault: encrypted, deduplicating backups of folders, as a library.
//!
//! A *vault* is a place where encrypted objects lie (a [`Store`]), with the keys that open it. A *snapshot* is the state
//! of some folders at one moment. Equal pieces of files are stored once, so each snapshot after the first costs only what
//! has changed.
//!
//! # A backup
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{SystemTime, UNIX_EPOCH};
//!
//! use vault::{CreateOptions, DirStore, Identity, Input, OpenOptions, RestoreOptions, Secret, Silent, SnapshotOptions};
//! use vault::{Store, Target, Time};
//!
//! /// The library reads no clock: the caller passes one.
//! fn now() -> Time {
//!     let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
//!     Time { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let (place, state, back) = (scratch.path().join("vault"), scratch.path().join("state"), scratch.path().join("back"));
//! # let documents = scratch.path().join("documents");
//! # std::fs::create_dir(&documents)?;
//! # std::fs::write(documents.join("letter"), "Dear reader")?;
//! // A new vault, in a folder.
//! let store: Arc<dyn Store> = Arc::new(DirStore::create(&place)?);
//! let secret = || Secret::password("a long sentence that nobody guesses");
//! vault::create(store.as_ref(), &CreateOptions::new(secret(), now().secs.cast_unsigned()))?;
//!
//! // The catalogue of what the vault holds lies in a folder of this machine.
//! let me = Identity { host: "desk".into(), user: "ann".into(), machine: "desk of ann".into(), program: "demo 1".into() };
//! let vault = vault::open(store, &secret(), OpenOptions::new(state, me), &Silent::default())?;
//!
//! let inputs = vec![Input::Path { name: b"documents".to_vec(), path: documents, only: None }];
//! let taken = vault::snapshot(&vault, SnapshotOptions::new("documents", inputs, &now), &Silent::default())?;
//! assert_eq!(taken.snapshot.files, 1);
//!
//! let newest = vault.snapshots().pop().ok_or("there is no snapshot")?;
//! let restored = vault::restore(&vault, &RestoreOptions::new(newest.id, Target::Folder(back.clone())), &Silent::default())?;
//! assert_eq!(restored.problem_count, 0);
//! # assert_eq!(std::fs::read(back.join("documents/letter"))?, b"Dear reader");
//! # Ok(())
//! # }
//! ```
//!
//! # A file of a snapshot
//!
//! A [`View`] reads from any byte on, for many threads, for as long as a process lives.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use vault::{Silent, StoredFile, Vault, View};
//!
//! fn beginning(vault: Vault, path: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
//!     let newest = vault.snapshots().pop().ok_or("there is no snapshot")?;
//!     let entry = vault::find_entry(&vault, &newest, path)?;
//!     let file = StoredFile::new(&entry).ok_or("it is no regular file")?;
//!     let view = View::new(Arc::new(vault), 64 << 20, &Silent::default())?;
//!     let mut bytes = vec![0; 4096];
//!     let len = file.read_at(&view, 0, &mut bytes)?;
//!     bytes.truncate(len);
//!     Ok(bytes)
//! }
//! ```
//!
//! # Where to go from here
//!
//! - Keep a vault sound and small: [`check`], [`prune`] by [`Rules`] of retention ([`plan_retention`]), and
//!   [`plan_repair`] and [`repair`] when something is damaged.
//! - Keep a vault anywhere: write a [`Store`] ([`mod@store`]).
//! - Show what goes on, and stop it: pass a [`Progress`] instead of [`Silent`].
//!
//! The folder `examples` has three programs: `backup.rs`, `read_file.rs` and `own_store.rs`. `SPEC.md` defines the byte
//! format; `ARCHITECTURE.md` shows what flows where.
//!
//! # Rules of the library
//!
//! It prints nothing and reads neither the clock nor the environment: both come in as arguments. What it reads from a
//! store may be hostile; it never trusts a length or an offset in it. Errors are types. A function that returns an error
//! says what it left behind.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `cli` | the program `vault` |
//! | `service` | what vault does by itself: configuration, runs, schedules, and the shapes of its JSON |
//! | `ui` | the page of `vault ui`, and WebDAV |
//! | `mount` | snapshots as a folder of the system (Linux, FreeBSD) |
//! | `remote` | stores on other machines: S3, Azure, Google, SFTP, rclone, REST, WebDAV |
//! | `testing` | stores for tests (in memory, faulty, counting, sleeping) and the suite that every store must pass |
//!
//! All but `testing` are on by default. Modules that are not listed here belong to the program: they change without notice.
#![deny(clippy::print_stdout, clippy::print_stderr, missing_docs)]
// Elsewhere some modules offer more than what the system has.
#![cfg_attr(all(target_os = "linux", not(test)), deny(unreachable_pub))]

#[doc(hidden)]
pub mod id;
#[doc(hidden)]
pub mod limits;
#[doc(hidden)]
pub mod path;
#[doc(hidden)]
pub mod folder;
#[doc(hidden)]
pub mod varint;
#[doc(hidden)]
pub mod exit;
#[doc(hidden)]
pub mod msgpack;
#[doc(hidden)]
pub mod sync;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod ownfile;
#[doc(hidden)]
pub mod lru;
#[doc(hidden)]
pub mod text;
#[doc(hidden)]
pub mod progress;
pub mod store;
#[doc(hidden)]
pub mod chunk;
#[doc(hidden)]
pub mod seal;
#[doc(hidden)]
pub mod tree;
#[doc(hidden)]
pub mod pack;
#[doc(hidden)]
pub mod log;
#[doc(hidden)]
pub mod catalogue;
#[doc(hidden)]
pub mod vault;
#[doc(hidden)]
pub mod read;
#[doc(hidden)]
pub mod fs;
#[doc(hidden)]
pub mod write;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod failure;
#[doc(hidden)]
pub mod mount;
#[cfg(feature = "service")]
#[doc(hidden)]
pub mod json;
#[cfg(feature = "service")]
#[doc(hidden)]
pub mod service;
#[cfg(feature = "ui")]
#[doc(hidden)]
pub mod web;
#[cfg(feature = "cli")]
mod cli;

#[doc(inline)]
pub use crate::chunk::ChunkParams;
/// The program.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use crate::cli::main;
#[doc(inline)]
pub use crate::engine::check::{CheckError, CheckOptions, CheckReport, check};
#[doc(inline)]
pub use crate::engine::patterns::exclude::ExcludeOptions;
#[doc(inline)]
pub use crate::engine::prune::collect::{CollectError, CollectOptions, CollectReport};
#[doc(inline)]
pub use crate::engine::prune::prune;
#[doc(inline)]
pub use crate::engine::prune::retention::{Decision, Period, Rules, plan as plan_retention};
#[doc(inline)]
pub use crate::engine::query::browse::{BrowseError, find_entry};
#[doc(inline)]
pub use crate::engine::repair::{
    RepairError, RepairOptions, RepairPlan, RepairReport, execute as repair, plan as plan_repair,
};
#[doc(inline)]
pub use crate::engine::restore::{Overwrite, RestoreError, RestoreOptions, RestoreReport, Target, restore};
#[doc(inline)]
pub use crate::engine::snapshot::{Input, SnapshotError, SnapshotOptions, SnapshotReport, snapshot};
#[doc(inline)]
pub use crate::id::ObjectName;
#[doc(inline)]
pub use crate::progress::{Counters, Phase, Progress, Silent};
#[doc(inline)]
pub use crate::read::{Chunks, StoredFile, View};
#[doc(inline)]
pub use crate::seal::{KdfParams, Secret};
#[doc(inline)]
pub use crate::store::dir::DirStore;
#[doc(inline)]
pub use crate::store::{Delivery, Store, StoreError};
#[doc(inline)]
pub use crate::tree::{Entry, Time};
#[doc(inline)]
pub use crate::vault::create::create;
#[doc(inline)]
pub use crate::vault::open::{open, open_locked};
#[doc(inline)]
pub use crate::vault::{
    CreateOptions, Identity, LockedVault, OpenOptions, ReadError, SnapshotInfo, Vault, VaultError, Wanted,
};
#[doc(inline)]
pub use crate::write::trust::VerifyOthers;
