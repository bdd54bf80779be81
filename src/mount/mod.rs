//! Snapshots as a folder of the system: the layout ([`tree`]), the parts that every mount needs while it lasts ([`serving`]), and the
//! interface to the kernel ([`fuse`]).

pub mod tree;
pub mod serving;
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
pub mod fuse;

pub use serving::{Serving, ServingOptions};
pub use tree::{Item, Node, Snap, Tree, TreeOptions};
