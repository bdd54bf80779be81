//! Tar archives: writing a snapshot as one, and reading one as a snapshot.
//!
//! [`pax`] records beside the headers · [`acl`] access lists, flags and attributes in them · [`read`] takes archives of all common forms apart · [`mod@write`] makes headers ·
//! [`export`] a tree as an archive · [`import`] an archive as a snapshot.

pub mod pax;
pub mod acl;
pub mod read;
pub mod write;
pub mod export;
pub mod import;

/// Length of a header, and what everything is filled up to.
pub const BLOCK: usize = 512;
