//! Stores for tests, and the suite that every store must pass. Only in builds with the feature `testing`.

pub mod conformance;
pub mod counting;
pub mod faulty;
pub mod mem;
pub mod sleeping;
pub mod synced;

/// Objects of one page of a list, and of one batch of deletions, as the usual object stores have it.
pub const PAGE: usize = 1000;
