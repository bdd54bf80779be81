//! A share of snapshots for other programs on this computer (WebDAV).

use crate::progress::Progress;
use crate::web::Bound;
use crate::web::Place;
use crate::web::dav::Share;
use serde::Serialize;

use crate::cli::args::MountArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::mount::laid;
use crate::cli::output::Output;
use crate::cli::select;

#[derive(Serialize)]
struct ShareJson<'a> {
    address: &'a str,
    snapshots: usize,
}

/// Runs `vault mount --webdav`.
pub fn serve(context: &Context, args: &MountArgs, port: u16) -> Result<Exit, Failure> {
    // If the port is taken, this fails before a password is asked for.
    let bound = Bound::new(&Place::Port(port)).map_err(|error| {
        Failure::caused(format!("cannot listen on 127.0.0.1, port {port}"), &error)
            .hint("Without a number, --webdav takes any port that is free.")
    })?;
    let wanted = args.snapshot.as_deref().map(|text| select::parse(context, text)).transpose()?;
    let laid = laid::lay(context, args, wanted.as_ref(), "press Ctrl-C where vault runs.\n")?;
    let share = Share::new(bound).map_err(|error| Failure::caused("the system has no random numbers", &error))?;
    let address = share.address();
    context.screen.watch_interrupts_quietly();
    let mut out = Output::new();
    if context.global.json {
        out.json(&ShareJson { address: &address, snapshots: laid.count })?;
    } else {
        // Without the address nobody could use the share.
        out.say(format_args!("The snapshots are shared, for you alone on this computer:"))?;
        out.line(format_args!("  {address}"))?;
        if !context.global.quiet {
            for line in how(&address) {
                out.line(line)?;
            }
            out.say("Whoever has the address can read everything. Ctrl-C ends it.")?;
        }
    }
    out.finish()?;
    let served = share.serve(&laid.serving, &|| {
        laid.tell(context);
        context.screen.stopped()
    });
    laid.tell(context);
    served.map_err(|error| Failure::caused("cannot serve the share", &error))?;
    Ok(laid.exit())
}

/// The ways in which this system opens a share.
fn how(address: &str) -> Vec<String> {
    if cfg!(windows) {
        vec![format!("In a command window: net use * {address}")]
    } else if cfg!(target_os = "macos") {
        vec!["In the Finder: Go, Connect to Server, this address; as a guest.".to_owned()]
    } else {
        let dav = address.strip_prefix("http").unwrap_or(address);
        vec![format!("In a file manager: dav{dav}")]
    }
}
