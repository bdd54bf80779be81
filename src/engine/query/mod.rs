//! Questions about snapshots, which are answered without changing anything.
//!
//! [`browse`] lists and reads · [`diff`] compares two trees, and [`absence`] says why one lacks a path · [`history`]
//! follows one path · [`index`] walks distinct folders, for [`find`], [`usage`] and [`digest`].

pub mod index;
pub mod digest;
pub mod browse;
pub mod find;
pub mod history;
pub mod diff;
pub mod absence;
pub mod usage;
