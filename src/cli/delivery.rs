//! `vault delivery`.

use crate::service::delivery;
use crate::store::Delivery;

use crate::cli::args::DeliveryArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;

/// Runs `vault delivery`.
pub fn run(context: &Context, args: &DeliveryArgs) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let done = delivery::set(&vault, args.delivery.map(Delivery::from), dates::now(), &context.screen)?;
    context.screen.clear();
    let changed = done.changed;
    let mut out = Output::new();
    if context.global.json {
        out.json(&done)?;
    } else if !context.global.quiet || !changed {
        out.line(match (done.now, changed) {
            (Delivery::Direct, _) => "direct: what one machine stores is there for all others at once",
            (Delivery::Synced, false) => "synced: what one machine stores reaches the others some time later",
            (Delivery::Synced, true) => {
                "From now on the vault is treated as one in a synced folder: nothing is deleted before all machines know \
                 of it."
            }
        })?;
    }
    out.finish().map(|()| Exit::Done)
}
