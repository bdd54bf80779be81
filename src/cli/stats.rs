//! `vault stats`.

use std::collections::BTreeMap;
#[cfg(feature = "ui")]
use std::collections::HashSet;
#[cfg(feature = "ui")]
use std::sync::{Arc, Mutex};

use crate::engine::stats;
use crate::engine::stats::Stats;
use crate::engine::stats::weigh::Sample;
use crate::fs::free_space;
#[cfg(feature = "ui")]
use crate::id::ObjectName;
use crate::path::Shown;
#[cfg(feature = "ui")]
use crate::progress::Progress;
use crate::store::place::Place;
#[cfg(feature = "ui")]
use crate::sync::lock;
use crate::vault::findings::exit_of;
#[cfg(feature = "ui")]
use crate::vault::{Vault, VaultError};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::args::StatsArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::table;
use crate::cli::table::Column;
use crate::cli::units;
use crate::limits::LEVEL;

/// The number of bytes compressed to estimate what forgetting a snapshot would free: one or two seconds' work.
const WEIGHED: u64 = 1 << 30;

const SOURCES: &[Column] = &[
    Column::left("Source").min(8).keep_end(),
    Column::left("Host").min(6).drop(2),
    Column::right("Snapshots"),
    Column::right("Files of the last"),
    Column::right("Of all").drop(1),
    Column::right("Holds alone"),
];

const SNAPSHOTS: &[Column] = &[
    Column::left("Date"),
    Column::left("Id"),
    Column::left("Source").min(8).keep_end(),
    Column::right("Files").drop(1),
    Column::right("Added"),
    Column::right("Holds alone"),
];

const GROWTH: &[Column] =
    &[Column::left("Month"), Column::right("Snapshots"), Column::right("Added"), Column::right("Together")];

#[derive(Serialize)]
struct SourceJson<'a> {
    source: &'a str,
    host: &'a str,
    snapshots: u64,
    bytes_raw: u64,
    bytes_last: u64,
    bytes_alone: u64,
}

#[derive(Serialize)]
struct SnapshotJson<'a> {
    id: String,
    time: String,
    source: &'a str,
    host: &'a str,
    bytes_raw: u64,
    bytes_added: u64,
    bytes_alone: u64,
}

#[derive(Serialize)]
struct GrowthJson {
    month: String,
    snapshots: u64,
    bytes_added: u64,
}

#[derive(Serialize)]
struct StatsJson<'a> {
    packs: u64,
    bytes_packs: u64,
    bytes_meta: u64,
    records: u64,
    bytes_records: u64,
    bytes_raw: u64,
    bytes_unique: u64,
    bytes_needed: u64,
    bytes_dead: u64,
    bytes_unclaimed: u64,
    bytes_shared: u64,
    chunks: u64,
    /// The free space where the vault lies; null if that is not known.
    bytes_free: Option<u64>,
    unreadable: u64,
    late: u64,
    sources: Vec<SourceJson<'a>>,
    snapshots: Vec<SnapshotJson<'a>>,
    growth: Vec<GrowthJson>,
}

/// The growth in each month, from the snapshots that still exist.
fn growth(context: &Context, stats: &Stats) -> Vec<GrowthJson> {
    let mut months: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for snapshot in &stats.snapshots {
        let month = Timestamp::from_second(snapshot.time.secs)
            .map_or_else(|_| String::new(), |time| time.to_zoned(context.zone.clone()).strftime("%Y-%m").to_string());
        let (count, bytes) = months.entry(month).or_default();
        *count += 1;
        *bytes += snapshot.bytes_added;
    }
    let row = |(month, (snapshots, bytes_added))| GrowthJson { month, snapshots, bytes_added };
    months.into_iter().map(row).collect()
}

/// Runs `vault stats`.
pub(super) fn run(context: &Context, args: &StatsArgs) -> Result<Exit, Failure> {
    let chosen = context.chosen()?;
    let (vault, _) = context.open_chosen(&chosen, None, &context.screen)?;
    context.screen.watch_interrupts();
    let sample = Sample { bytes: WEIGHED, level: LEVEL };
    let stats = stats::stats(&vault, Some(sample), context.threads(), &context.screen);
    context.screen.clear();
    let stats = stats?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&json(context, &chosen.place, &stats))?;
    } else {
        tell(context, args, &stats, &mut out)?;
    }
    out.finish()?;
    Ok(match (stats.unreadable, stats.newer + stats.late) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Skipped,
        _ => Exit::Damage,
    }
    .worse(exit_of(&vault.known_findings(dates::now())?)))
}

/// The disk usage that was found last, for a page that is asked again and again.
#[cfg(feature = "ui")]
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Option<(Seen, Arc<Stats>)>>);

/// The records and the number of stored chunks: while they are the same, so is the use of space.
#[cfg(feature = "ui")]
type Seen = (HashSet<ObjectName>, u64);

#[cfg(feature = "ui")]
impl Last {
    /// The `--json` output.
    pub(super) fn told(
        &self,
        context: &Context,
        place: &Place,
        vault: &Vault,
        progress: &dyn Progress,
    ) -> Result<serde_json::Value, Failure> {
        vault.know_all(progress)?;
        let chunks = vault.catalogue().reader().map_err(VaultError::from)?.place_count();
        let now: Seen = (vault.log().records.keys().copied().collect(), chunks);
        let known = lock(&self.0).as_ref().filter(|(seen, _)| *seen == now).map(|(_, stats)| stats.clone());
        let stats = if let Some(known) = known {
            known
        } else {
            // Nothing is locked meanwhile: who asks at the same time waits for nobody.
            let sample = Sample { bytes: WEIGHED, level: LEVEL };
            let stats = Arc::new(stats::stats(vault, Some(sample), context.threads(), progress)?);
            // Nothing tells when something damaged or late is there again, or what a store did not list for a moment.
            let is_all = stats.records == now.0.len() as u64;
            let is_whole = is_all && stats.unreadable + stats.newer + stats.late == 0;
            *lock(&self.0) = is_whole.then(|| (now, stats.clone()));
            stats
        };
        Ok(serde_json::json!(json(context, place, &stats)))
    }
}

fn json<'a>(context: &Context, place: &Place, stats: &'a Stats) -> StatsJson<'a> {
    StatsJson {
        packs: stats.packs,
        bytes_packs: stats.bytes_packs,
        bytes_meta: stats.bytes_meta,
        records: stats.records,
        bytes_records: stats.bytes_records,
        bytes_raw: stats.bytes_raw,
        bytes_unique: stats.bytes_unique,
        bytes_needed: stats.bytes_needed,
        bytes_dead: stats.bytes_dead,
        bytes_unclaimed: stats.bytes_unclaimed,
        bytes_shared: stats.bytes_shared,
        chunks: stats.chunks,
        bytes_free: place.folder().and_then(free_space),
        unreadable: stats.unreadable,
        late: stats.late,
        sources: stats
            .sources
            .iter()
            .map(|source| SourceJson {
                source: &source.source,
                host: &source.host,
                snapshots: source.snapshots,
                bytes_raw: source.bytes_raw,
                bytes_last: source.bytes_last,
                bytes_alone: source.bytes_alone,
            })
            .collect(),
        snapshots: stats
            .snapshots
            .iter()
            .map(|snapshot| SnapshotJson {
                id: snapshot.id.to_string(),
                time: dates::exact(snapshot.time),
                source: &snapshot.source,
                host: &snapshot.host,
                bytes_raw: snapshot.bytes_raw,
                bytes_added: snapshot.bytes_added,
                bytes_alone: snapshot.bytes_alone,
            })
            .collect(),
        growth: growth(context, stats),
    }
}

/// The ratio of two sizes in words: ` (12.3 times less)`. Empty if they are about the same, or the second is larger.
fn ratio(large: u64, small: u64, than: &str) -> String {
    let tenths = u128::from(large) * 10 / u128::from(small.max(1));
    if small == 0 || tenths <= 10 {
        String::new()
    } else {
        format!(" ({}.{} times less{than})", tenths / 10, tenths % 10)
    }
}

fn tell(context: &Context, args: &StatsArgs, stats: &Stats, out: &mut Output) -> Result<(), Failure> {
    let size = units::size;
    out.say(format_args!(
        "In the vault     {} in {} and {}",
        size(stats.bytes_packs + stats.bytes_records),
        units::counted(stats.packs, "pack", "packs"),
        units::counted(stats.records, "record", "records")
    ))?;
    out.line(format_args!(
        "All files        {} in {}",
        size(stats.bytes_raw),
        units::counted(stats.snapshots.len() as u64, "snapshot", "snapshots")
    ))?;
    out.line(format_args!(
        "Each part once   {}{}",
        size(stats.bytes_unique),
        ratio(stats.bytes_raw, stats.bytes_unique, "")
    ))?;
    out.line(format_args!(
        "Compressed       {}{}",
        size(stats.bytes_needed),
        ratio(stats.bytes_unique, stats.bytes_needed, " than that")
    ))?;
    out.line(format_args!("Needed by none   {}", size(stats.bytes_dead)))?;
    if stats.bytes_unclaimed > 0 {
        out.say(format_args!(
            "Claimed by none  {} of that: work of another machine that goes on, or of one that lost its state",
            size(stats.bytes_unclaimed)
        ))?;
    }
    if stats.sources.len() > 1 {
        out.say(format_args!("Shared           {} by several sources", size(stats.bytes_shared)))?;
    }
    if stats.unreadable > 0 {
        out.styled(Style::Warning, "Some folders cannot be read, so the figures are not whole: vault check")?;
    }
    if stats.late > 0 {
        let text = "Not all of the snapshots has arrived yet, so the figures are not whole. The sync brings the rest.";
        out.styled(Style::Warning, text)?;
    }
    if stats.newer > 0 {
        let text = "Some folders were written by a newer vault, so the figures are not whole. Update this one.";
        out.styled(Style::Warning, text)?;
    }
    if context.global.quiet { Ok(()) } else { tables(context, args, stats, out) }
}

/// Prints the tables of sources, of snapshots and of months.
fn tables(context: &Context, args: &StatsArgs, stats: &Stats, out: &mut Output) -> Result<(), Failure> {
    let size = units::size;
    let shown = |text: &str| Shown(text.as_bytes()).to_string();
    let sources: Vec<Vec<String>> = stats
        .sources
        .iter()
        .map(|source| {
            vec![
                shown(&source.source),
                shown(&source.host),
                units::count(source.snapshots),
                size(source.bytes_last),
                size(source.bytes_raw),
                size(source.bytes_alone),
            ]
        })
        .collect();
    show(SOURCES, &sources, out)?;
    let from = if args.all { 0 } else { stats.snapshots.len().saturating_sub(20) };
    let snapshots: Vec<Vec<String>> = stats.snapshots[from..]
        .iter()
        .map(|snapshot| {
            vec![
                dates::shown(snapshot.time, &context.zone),
                snapshot.id.short(),
                shown(&snapshot.source),
                size(snapshot.bytes_raw),
                size(snapshot.bytes_added),
                size(snapshot.bytes_alone),
            ]
        })
        .collect();
    show(SNAPSHOTS, &snapshots, out)?;
    if from > 0 {
        out.say(format_args!("and {} before these: vault stats --all", units::count(from as u64)))?;
    }
    let mut together = 0;
    let growth: Vec<Vec<String>> = growth(context, stats)
        .into_iter()
        .map(|month| {
            together += month.bytes_added;
            vec![month.month, units::count(month.snapshots), size(month.bytes_added), size(together)]
        })
        .collect();
    if growth.len() > 1 { show(GROWTH, &growth, out) } else { Ok(()) }
}

fn show(columns: &[Column], rows: &[Vec<String>], out: &mut Output) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut lines = table::render(columns, rows, out.width).into_iter();
    if let Some(titles) = lines.next() {
        out.head(&titles)?;
    }
    lines.try_for_each(|line| out.line(line))
}
