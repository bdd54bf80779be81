//! Reads what the packs of a vault hold: chunks, trees, files and folders of snapshots.
//!
//! [`chunks`] chunks at their places · `records` what a stream holds, one record after the other · [`listing`] the
//! entries of a folder · [`mod@path`] what lies at a path · `graph` a walk over distinct trees · [`mark`] the chunks that
//! snapshots need · `bring` segments of a far store, before they are needed · [`view`] a vault that stays open for weeks
//! · [`chunked`] a stream from any byte on · [`mod@file`] a regular file, with its holes · [`folder`] listings, a page at
//! a time · [`links`] paths that are names of one file · [`ahead`] read-ahead · `sparse` the layout of content between
//! holes, from front to back.

pub mod chunks;
pub(crate) mod records;
pub mod listing;
pub mod path;
pub(crate) mod graph;
pub mod mark;
pub(crate) mod bring;
pub mod view;
pub mod chunked;
pub mod file;
pub mod folder;
pub mod links;
pub mod ahead;
pub(crate) mod sparse;

pub use ahead::Ahead;
pub use chunked::Chunks;
pub use chunks::{ChunkReader, Recorder, TreeReader};
pub use file::StoredFile;
pub use folder::Folders;
pub use listing::Listing;
pub use view::View;

#[cfg(test)]
mod tests;
