//! Files by system calls on handles. Linux is complete; comments tell what macOS lacks.

mod foresee;
mod meta;
mod open;
mod owners;
mod process;
mod sigbus;
mod source;
mod stat;
mod target;
mod window;
mod xattr;

#[cfg(test)]
mod tests;

pub use owners::{OwnerNames, give_to_owner};
pub use process::{
    end_group, free_space, keep_to_itself, leaving_hangups, low_priority, low_priority_thread, own_group, privileged,
    raise_file_limit, share_heap, shell, survive_file_size_limit,
};
pub use source::{Dir, SourceFile};
pub use target::{TargetDir, TargetFile};
pub use window::Window;
