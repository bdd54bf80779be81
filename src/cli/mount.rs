//! `vault mount` and `vault umount`.

use crate::cli::args::MountArgs;
use crate::cli::args::UmountArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;

#[cfg(any(feature = "ui", all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))))]
mod laid;
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
mod live;
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
mod point;
#[cfg(feature = "ui")]
mod share;

/// Runs `vault mount`.
pub(super) fn mount(context: &Context, args: &MountArgs) -> Result<Exit, Failure> {
    match args.webdav {
        Some(port) => as_share(context, args, port),
        None => as_folder(context, args),
    }
}

#[cfg(feature = "ui")]
fn as_share(context: &Context, args: &MountArgs, port: u16) -> Result<Exit, Failure> {
    share::serve(context, args, port)
}

#[cfg(not(feature = "ui"))]
fn as_share(_: &Context, _: &MountArgs, _: u16) -> Result<Exit, Failure> {
    Err(Failure::new("this vault was built without --webdav (feature ui)")
        .hint("Look into snapshots with: vault ls, vault find, vault cat; bring files back with: vault restore"))
}

#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
fn as_folder(context: &Context, args: &MountArgs) -> Result<Exit, Failure> {
    live::mount(context, args)
}

/// Runs `vault umount`.
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
pub(super) fn umount(context: &Context, args: &UmountArgs) -> Result<Exit, Failure> {
    point::umount(context, args)
}

#[cfg(not(all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))))]
fn as_folder(_: &Context, _: &MountArgs) -> Result<Exit, Failure> {
    Err(no_mount())
}

/// Fails, because this build or system cannot mount.
#[cfg(not(all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))))]
pub fn umount(_: &Context, _: &UmountArgs) -> Result<Exit, Failure> {
    Err(no_mount())
}

#[cfg(not(all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))))]
fn no_mount() -> Failure {
    Failure::new("this vault cannot mount: on Windows and macOS, and where it was built without it, there is no mount")
        .hint("Share the snapshots with: vault mount --webdav; or look into them with: vault ls, vault find, vault cat")
}
