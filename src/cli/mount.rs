//! `vault mount` and `vault umount`.

use crate::cli::args::MountArgs;
use crate::cli::args::UmountArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;

#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
mod live;
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
mod point;

/// Runs `vault mount`.
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
pub fn mount(context: &Context, args: &MountArgs) -> Result<Exit, Failure> {
    live::mount(context, args)
}

/// Runs `vault umount`.
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
pub fn umount(context: &Context, args: &UmountArgs) -> Result<Exit, Failure> {
    point::umount(context, args)
}

/// Says that it cannot be done here.
#[cfg(not(all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))))]
pub fn mount(_: &Context, _: &MountArgs) -> Result<Exit, Failure> {
    Err(no_mount())
}

/// Says that it cannot be done here.
#[cfg(not(all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))))]
pub fn umount(_: &Context, _: &UmountArgs) -> Result<Exit, Failure> {
    Err(no_mount())
}

#[cfg(not(all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))))]
fn no_mount() -> Failure {
    Failure::new("this vault cannot mount: on Windows and macOS, and where it was built without it, there is no mount")
        .hint("Look into snapshots with: vault ls, vault find, vault cat; bring files back with: vault restore")
}
