//! Files and folders of snapshots, read from anywhere and by many threads at once.
//!
//! [`chunked`] a stream from any byte on · [`mod@file`] a regular file, with its holes · [`folder`] listings, a page at a time ·
//! [`links`] which paths are names of one file · [`ahead`] what is read before it is asked for · `sparse` where content
//! lies between holes, from front to back.

pub mod chunked;
pub mod file;
pub mod folder;
pub mod links;
pub mod ahead;
pub(crate) mod sparse;

pub use ahead::Ahead;
pub use file::StoredFile;
pub use folder::Folders;

#[cfg(test)]
mod tests;
