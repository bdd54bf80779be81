//! Patterns of names and paths: what a snapshot leaves out, and what `find` looks for.
//!
//! [`glob`] one pattern · [`gitignore`] the rules of a file of patterns · [`exclude`] all rules of a source.

pub mod glob;
pub mod gitignore;
pub mod exclude;
