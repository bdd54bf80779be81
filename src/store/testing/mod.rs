//! Stores for tests, and the suite that every store must pass. Only in builds with the feature `testing`.

pub mod conformance;
pub mod counting;
pub mod faulty;
pub mod mem;
pub mod sleeping;
pub mod synced;

/// The number of objects in one page of a list, and in one batch of deletions, as with the usual object stores.
pub const PAGE: usize = 1000;
