//! What vault does with an opened vault and the user's files: each command plans, then executes.

pub mod depot;
pub mod read_file;
pub mod walk;
pub mod snapshot;
pub mod restore;
pub mod browse;
pub mod exclude;
pub(crate) mod sparse;
pub mod keys;
pub mod mark;
pub mod hurt;
pub mod inspect;
pub mod check;
pub mod repair;
pub mod retention;
pub mod collect;
pub mod prune;
pub mod stats;
