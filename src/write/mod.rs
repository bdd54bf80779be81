//! Writes what packs hold: chunks of files and trees go into segments, segments into packs, packs into the store.
//!
//! [`depot`] receives chunks and stores the new ones · `publisher` puts finished packs · [`trust`] looks at packs of
//! others before something relies on them · [`mod@file`] the content of one file · `tree` listings, and the lists of a
//! snapshot · [`repack`] copies needed chunks into new packs.

pub mod trust;
pub(crate) mod publisher;
pub mod depot;
pub(crate) mod tree;
pub mod file;
pub mod repack;
