//! `vault delivery`.

use serde::Serialize;
use vault::log::Format;
use vault::log::RecordBody;
use vault::store::Delivery;

use crate::cli::args::DeliveryArg;
use crate::cli::args::DeliveryArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;

#[derive(Serialize)]
struct DeliveryJson {
    delivery: &'static str,
    changed: bool,
}

/// Runs `vault delivery`.
pub fn run(context: &Context, args: &DeliveryArgs) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let before = vault.delivery();
    let changed = match (before, args.delivery) {
        (Delivery::Synced, Some(DeliveryArg::Direct)) => {
            return Err(Failure::new("a vault in a synced folder cannot become one of direct delivery").hint(
                "Machines may have stored something that has not arrived yet. Its snapshots can go to a new vault.",
            ));
        }
        (Delivery::Direct, Some(DeliveryArg::Synced)) => {
            let body = RecordBody::Format(Format { synced: true, ..Format::default() });
            vault.publish(body, dates::now(), None, |_| true, &context.screen)?;
            context.screen.clear();
            true
        }
        _ => false,
    };
    let now = vault.delivery();
    let mut out = Output::new();
    if context.global.json {
        let delivery = match now {
            Delivery::Direct => "direct",
            Delivery::Synced => "synced",
        };
        out.json(&DeliveryJson { delivery, changed })?;
    } else if !context.global.quiet || !changed {
        out.line(match (now, changed) {
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
