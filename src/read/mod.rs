//! Files and folders of snapshots, with random access for many threads at once.
//!
//! [`chunked`] a stream from any byte on · [`mod@file`] a regular file, with its holes · [`folder`] listings, a page at
//! a time · [`links`] paths that are names of one file · [`ahead`] read-ahead · `sparse` the layout of content between
//! holes, from front to back.

pub mod chunked;
pub mod file;
pub mod folder;
pub mod links;
pub mod ahead;
pub(crate) mod sparse;

pub use ahead::Ahead;
pub use chunked::Chunks;
pub use file::StoredFile;
pub use folder::Folders;

#[cfg(test)]
mod tests;
