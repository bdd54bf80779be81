//! Files by system calls on handles. Linux is complete; macOS lacks what its comments say.

mod open;
mod owners;
mod process;
mod sigbus;
mod source;
mod stat;
mod window;
mod xattr;

#[cfg(test)]
mod tests;

pub use owners::OwnerNames;
pub use process::{low_priority, privileged, raise_file_limit};
pub use source::{Dir, SourceFile};
pub use window::Window;
