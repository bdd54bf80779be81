//! `vault ui`.

use crate::cli::args::UiArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;

#[cfg(feature = "ui")]
mod around;
#[cfg(feature = "ui")]
mod browser;
#[cfg(feature = "ui")]
mod install;
#[cfg(feature = "ui")]
mod keys;
#[cfg(feature = "ui")]
mod save;
#[cfg(feature = "ui")]
mod serve;

/// Runs `vault ui`.
#[cfg(feature = "ui")]
pub(super) fn run(context: &Context, args: &UiArgs) -> Result<Exit, Failure> {
    if args.install {
        return install::install(context, args);
    }
    if args.uninstall {
        return install::uninstall(context, args);
    }
    serve::run(context, args)
}

/// Fails, because this build has no page.
#[cfg(not(feature = "ui"))]
pub fn run(_: &Context, _: &UiArgs) -> Result<Exit, Failure> {
    Err(Failure::new("this vault was built without its page (feature ui)").hint("Everything can be done by commands."))
}
