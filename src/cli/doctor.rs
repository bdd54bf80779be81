//! `vault doctor`.

use std::time::Duration;

use crate::engine::stats;
#[cfg(feature = "ui")]
use crate::progress::Progress;
use crate::service::health;
use crate::service::health::{Circumstances, Health, Level};
#[cfg(feature = "ui")]
use crate::vault::Vault;

use crate::cli::args::DoctorArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::probe;

/// Runs `vault doctor`.
pub fn run(context: &Context, args: &DoctorArgs) -> Result<Exit, Failure> {
    if let Some(place) = &args.place {
        return probe::run(context, place);
    }
    let (vault, _) = context.open()?;
    context.screen.watch_interrupts();
    let stats = stats::stats(&vault, None, context.threads(), &context.screen);
    context.screen.clear();
    let health = health::examine(&vault, &stats?, &circumstances(context, args.overdue))?;
    let worst = health.worst();
    let mut out = Output::new();
    if context.global.json {
        out.json(&health)?;
    } else {
        tell(context, &health, &mut out)?;
    }
    out.finish()?;
    Ok(match worst {
        Level::Good => Exit::Done,
        Level::Advice => Exit::Skipped,
        Level::Damage => Exit::Damage,
    })
}

/// The input of the rules on this machine and with this configuration.
fn circumstances(context: &Context, overdue: Option<Duration>) -> Circumstances<'_> {
    let config = context.chosen().ok().and_then(|chosen| chosen.config);
    let drill_every = config.as_ref().and_then(|config| config.drill_every);
    let checks = config.is_some_and(|config| config.check_every.is_some());
    Circumstances { now: dates::now(), zone: &context.zone, overdue, checks, drill_every }
}

/// The `--json` output.
#[cfg(feature = "ui")]
pub fn told(context: &Context, vault: &Vault, progress: &dyn Progress) -> Result<Health, Failure> {
    let stats = stats::stats(vault, None, context.threads(), progress)?;
    health::examine(vault, &stats, &circumstances(context, None))
}

/// The part of the findings that needs no reading.
#[cfg(feature = "ui")]
pub fn first(context: &Context, vault: &Vault) -> Result<Health, Failure> {
    health::examine_first(vault, &circumstances(context, None))
}

fn tell(context: &Context, health: &Health, out: &mut Output) -> Result<(), Failure> {
    out.styled(
        Style::Bold,
        match health.worst() {
            Level::Good => "The vault is well.",
            Level::Advice => "The vault is well, but something should be done:",
            Level::Damage => "The vault is damaged:",
        },
    )?;
    for level in [Level::Damage, Level::Advice, Level::Good] {
        for finding in health.findings.iter().filter(|finding| finding.level == level) {
            let text = format!("  {} {}", if level == Level::Good { "✓" } else { "!" }, finding.text);
            match level {
                Level::Good if context.global.quiet => {}
                Level::Good => out.say(text)?,
                _ => out.styled(Style::Warning, &text)?,
            }
            if let Some(command) = &finding.command {
                out.say(format_args!("      {command}"))?;
            }
        }
    }
    Ok(())
}
