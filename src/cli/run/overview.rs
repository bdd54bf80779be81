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

/// A source in a vault, for programs.
#[cfg(feature = "ui")]
#[derive(serde::Serialize)]
struct RowJson<'a> {
    source: &'a str,
    vault: &'a str,
    /// When the last snapshot was taken; null if none was.
    last: Option<String>,
    result: &'a str,
    bytes: u64,
    overdue: bool,
    /// In how many seconds it is due; 0 for now.
    due_in_s: u64,
}

/// A place, for programs.
#[cfg(feature = "ui")]
#[derive(serde::Serialize)]
struct PlaceJson<'a> {
    vault: &'a str,
    place: String,
    /// `there`, `empty` (no vault is in it yet) or `away`.
    state: &'static str,
    /// Whether it may be taken out.
    removable: bool,
}

/// How things stand, for programs; null if nothing is configured.
#[cfg(feature = "ui")]
pub fn told(context: &Context) -> Result<serde_json::Value, Failure> {
    let Some(config) = context.config()?.filter(|config| !config.sources.is_empty()) else {
        return Ok(serde_json::Value::Null);
    };
    let mut plan = Plan::new(config, &[])?;
    let status = Status::load(&folder(context)?);
    plan.decide(&status, dates::now().secs, false, &|place| context.id_in(place).map(|id| id.to_string()));
    let exact = |secs| dates::exact(Time { secs, nanos: 0 });
    let row = |(job, target): (&'_ super::plan::Job, &super::plan::Target)| {
        let vault = &plan.vaults[target.vault];
        let pair = status.pair(&job.source.name, &vault.place.to_string());
        serde_json::json!(RowJson {
            source: &job.source.name,
            vault: &vault.name,
            last: pair.and_then(|pair| pair.taken).map(exact),
            result: pair.map_or("", |pair| &pair.result),
            bytes: pair.map_or(0, |pair| pair.bytes),
            overdue: target.overdue,
            due_in_s: match target.due {
                Due::Now => 0,
                Due::In(time) => time.as_secs(),
            },
        })
    };
    let targets = plan.jobs.iter().flat_map(|job| job.targets.iter().map(move |target| (job, target)));
    let rows: Vec<_> = targets.map(row).collect();
    let place = |vault: &crate::cli::config::VaultConfig| {
        let state = match context.has_vault(&vault.place) {
            Ok(true) => "there",
            Ok(false) if local::is_there(&vault.place) => "empty",
            Ok(false) | Err(_) => "away",
        };
        serde_json::json!(PlaceJson {
            vault: &vault.name,
            place: vault.place.to_string(),
            state,
            removable: vault.removable
        })
    };
    let places: Vec<_> = plan.vaults.iter().map(place).collect();
    let findings: Vec<String> = known(context, &plan).into_iter().flat_map(|known| known.findings).collect();
    Ok(serde_json::json!({
        "sources": rows,
        "places": places,
        "findings": findings,
        "last_background_run": status.last_background.map(exact),
    }))
}

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
        out.head(&titles)?;
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
            out.say(format_args!("The schedule started a run last on {shown}."))?;
        }
        None => out.say("No schedule has started a run yet. To have that: vault schedule install")?,
    }
    out.line("")?;
    out.line(NEXT)?;
    out.finish()?;
    Ok(known.iter().fold(Exit::Done, |worst, vault| worst.worse(vault.exit)))
}
