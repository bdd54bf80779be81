//! What vault does with an opened vault and the user's files: each command plans, then executes.

pub mod depot;
pub mod read_file;
pub mod walk;
pub mod snapshot;
pub mod restore;
pub mod browse;
pub mod exclude;
pub(crate) mod links;
pub(crate) mod sparse;
pub mod keys;
pub mod mark;
pub mod hurt;
pub mod digest;
pub mod index;
pub mod glob;
pub mod find;
pub mod history;
pub mod diff;
pub mod live;
pub mod usage;
pub mod archive;
pub mod check;
pub mod retention;
pub mod collect;
pub mod prune;
