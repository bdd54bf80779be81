//! What `vault` alone shows once something is configured: what is kept where, when that was last done, and what to do next.
//! No vault is opened for it, so it needs no password.

use vault::path::Shown;
use vault::tree::Time;

use crate::cli::local;

use super::folder;
use super::known;
use super::plan::Due;
use super::plan::Plan;
use super::status::Status;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::table;
use crate::cli::table::Column;
use crate::cli::units;

const COLUMNS: &[Column] = &[
    Column::left("Source").min(8),
    Column::left("Vault").min(6),
    Column::left("Last snapshot"),
    Column::left("Result").drop(1),
    Column::right("Size").drop(2),
    Column::left("Next"),
];

const NEXT: &str = "  vault run                        do what is due
  vault list                       which snapshots there are
  vault restore latest --to DIR    bring the last one back
  vault doctor                     is all well, and what should be done?";

/// Shows how things stand.
pub fn show(context: &Context) -> Result<Exit, Failure> {
    let Some(config) = context.config()? else { return Ok(Exit::Done) };
    let mut plan = Plan::new(config, &[])?;
    let status = Status::load(&folder(context)?);
    let now = dates::now();
    plan.decide(&status, now.secs, false, &|place| context.id_in(place).map(|id| id.to_string()));
    let mut rows = Vec::new();
    for job in &plan.jobs {
        for target in &job.targets {
            let vault = &plan.vaults[target.vault];
            let pair = status.pair(&job.source.name, &vault.place.to_string());
            let taken = pair.and_then(|pair| pair.taken);
            rows.push(vec![
                Shown(job.source.name.as_bytes()).to_string(),
                Shown(vault.name.as_bytes()).to_string(),
                taken.map_or_else(|| "never".to_owned(), |secs| dates::shown(Time { secs, nanos: 0 }, &context.zone)),
                pair.map_or_else(String::new, |pair| pair.result.clone()),
                pair.filter(|pair| pair.bytes > 0).map_or_else(String::new, |pair| units::size(pair.bytes)),
                match (target.due, target.overdue) {
                    (_, true) => "overdue".to_owned(),
                    (Due::Now, _) => "now".to_owned(),
                    (Due::In(time), _) => format!("in {}", units::about(time)),
                },
            ]);
        }
    }
    let mut out = Output::new();
    let mut lines = table::render(COLUMNS, &rows, out.width).into_iter();
    if let Some(titles) = lines.next() {
        out.styled(Style::Bold, &titles)?;
    }
    lines.try_for_each(|line| out.line(line))?;
    out.line("")?;
    for vault in &plan.vaults {
        let state = match context.has_vault(&vault.place) {
            Ok(true) => "",
            Ok(false) if local::is_there(&vault.place) => " (there is no vault: vault init)",
            Ok(false) | Err(_) => " (not connected)",
        };
        out.line(format_args!("{} is {}{state}", Shown(vault.name.as_bytes()), vault.place))?;
    }
    let known = known(context, &plan);
    for vault in &known {
        for finding in &vault.findings {
            out.styled(Style::Warning, &format!("{}: {finding}", vault.vault))?;
        }
    }
    match status.last_background {
        Some(secs) => {
            let shown = dates::shown(Time { secs, nanos: 0 }, &context.zone);
            out.line(format_args!("The schedule started a run last on {shown}."))?;
        }
        None => out.line("No schedule has started a run yet. To have that: vault schedule install")?,
    }
    out.line("")?;
    out.line(NEXT)?;
    out.finish()?;
    Ok(known.iter().fold(Exit::Done, |worst, vault| worst.worse(vault.exit)))
}
