//! Tar archives: writes a snapshot as one, and reads one as a snapshot.
//!
//! [`pax`] records of extended headers · [`acl`] access lists, flags and attributes in them · [`read`] parses archives of all common
//! forms · [`mod@write`] writes headers · [`export`] a tree as an archive · [`import`] an archive as a snapshot.

pub mod pax;
pub mod acl;
pub mod read;
pub mod write;
pub mod export;
pub mod import;

/// Length of a header; everything is padded to a multiple of it.
pub const BLOCK: usize = 512;
