//! Snapshots as a folder of the system: what lies where ([`tree`]), and how the system asks for it ([`fuse`]).

pub mod tree;
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
pub mod fuse;

pub use tree::{Item, Node, Snap, Tree, TreeOptions};
