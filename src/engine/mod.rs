//! The actions on an open vault and the user's files: each command plans, then executes.
//!
//! [`snapshot`] and [`archive`] store, [`restore`] writes back, [`query`] looks, with [`patterns`] · [`check`] and
//! [`repair`] deal with damage, [`prune`] gives space back, [`stats`] measures · [`rewrite`] changes snapshots, [`copy`]
//! and [`mirror`] take them elsewhere · [`keys`] who can open the vault, [`place`] which vault was where.

pub mod patterns;
pub mod query;
pub mod snapshot;
pub mod restore;
pub mod archive;
pub mod keys;
pub mod place;
pub mod check;
pub mod stats;
pub mod copy;
pub mod repair;
pub mod rewrite;
pub mod prune;
pub mod mirror;
