//! Snapshots as a folder of the system: what lies where ([`tree`]), and what every mount
//! needs while it lasts ([`serving`]), and how the system asks for it ([`fuse`]).

pub mod tree;
pub mod serving;
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
pub mod fuse;

pub use serving::{Serving, ServingOptions};
pub use tree::{Item, Node, Snap, Tree, TreeOptions};
