//! Vault: a content-addressed, deduplicating, encrypted archive store for directory trees.
//!
//! `SPEC.md` defines the byte format; `ARCHITECTURE.md` shows what flows where. The modules below are layers: each uses
//! only those listed before it, and a test enforces it. The library prints nothing and reads neither the clock nor the
//! environment: both come in as arguments.
#![deny(clippy::print_stdout, clippy::print_stderr, missing_docs)]

pub mod id;
pub mod limits;
pub mod path;
pub mod folder;
pub mod varint;
pub mod exit;
pub mod msgpack;
pub mod sync;
pub mod memory;
pub mod ownfile;
pub mod lru;
pub mod progress;
pub mod store;
pub mod chunk;
pub mod seal;
pub mod tree;
pub mod pack;
pub mod log;
pub mod catalogue;
pub mod vault;
pub mod read;
pub mod fs;
pub mod engine;
pub mod failure;
pub mod mount;
#[cfg(feature = "service")]
pub mod json;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "ui")]
pub mod web;
