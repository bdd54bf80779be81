//! The overview that `vault` without a command shows once something is configured: the sources in each vault, their
//! last snapshots, and what to do next.

use crate::path::Shown;
use crate::service::plan::Due;
use crate::service::run::overview;
use crate::service::run::overview::OverviewJson;
use crate::service::run::overview::There;
use crate::service::status::Status;

use super::folder;
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

/// The overview; `None` if nothing is configured.
pub fn told(context: &Context) -> Result<Option<OverviewJson>, Failure> {
    let Some(config) = context.config()?.filter(|config| !config.sources.is_empty()) else { return Ok(None) };
    overview::overview(config, &Status::load(&folder(context)?), dates::now(), context).map(Some)
}

/// Shows the overview.
pub fn show(context: &Context) -> Result<Exit, Failure> {
    let Some(told) = told(context)? else { return Ok(Exit::Done) };
    let mut rows = Vec::new();
    for row in &told.sources {
        rows.push(vec![
            Shown(row.source.as_bytes()).to_string(),
            Shown(row.vault.as_bytes()).to_string(),
            row.last.map_or_else(|| "never".to_owned(), |time| dates::shown(time, &context.zone)),
            row.result.clone(),
            if row.bytes > 0 { units::size(row.bytes) } else { String::new() },
            match (row.due, row.overdue) {
                (_, true) => "overdue".to_owned(),
                (Due::Now, _) => "now".to_owned(),
                (Due::In(time), _) => format!("in {}", units::about(time)),
            },
        ]);
    }
    let mut out = Output::new();
    let mut lines = table::render(COLUMNS, &rows, out.width).into_iter();
    if let Some(titles) = lines.next() {
        out.head(&titles)?;
    }
    lines.try_for_each(|line| out.line(line))?;
    out.line("")?;
    for place in &told.places {
        let state = match place.state {
            There::There => "",
            There::Empty => " (there is no vault: vault init)",
            There::Away => " (not connected)",
        };
        out.line(format_args!("{} is {}{state}", Shown(place.vault.as_bytes()), place.place))?;
    }
    for vault in &told.known {
        for finding in &vault.findings {
            out.styled(Style::Warning, &format!("{}: {finding}", vault.vault))?;
        }
    }
    match told.last_background_run {
        Some(time) => {
            let shown = dates::shown(time, &context.zone);
            out.say(format_args!("The schedule started a run last on {shown}."))?;
        }
        None => out.say("No schedule has started a run yet. To have that: vault schedule install")?,
    }
    out.line("")?;
    out.line(NEXT)?;
    out.finish()?;
    Ok(told.known.iter().fold(Exit::Done, |worst, vault| worst.worse(vault.exit)))
}
