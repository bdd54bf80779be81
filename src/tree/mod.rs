//! Trees: the listings of directories, and the record of a snapshot that points to them (SPEC §7, §8).
//!
//! Layers: [`entry`] one line of a listing · [`stream`] any bytes as chunks, with nested lists of ids · [`rules`] the
//! paths that a snapshot left out · [`digest`] digests of contents · [`snapshot`] the body of a snapshot's record.

pub mod entry;
pub mod stream;
pub mod digest;
pub mod rules;
pub mod snapshot;

pub use entry::{Entry, EntryError, FileKind, Holes, Owner, Time, decode_entry, encode_entry};
pub use rules::{RuleOptions, RuleSet};
pub use snapshot::{Origin, Root, Skipped, Snapshot, Verdict};
pub use stream::{
    ChunkSink, ChunkSource, IdList, IdReader, Stream, StreamError, StreamReader, StreamWriter, read_stream,
};
