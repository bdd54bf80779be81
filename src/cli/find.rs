//! `vault find` and `vault history`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::engine::patterns::glob::Pattern;
use crate::engine::query::find;
use crate::engine::query::find::Match;
use crate::engine::query::history;
use crate::engine::query::history::Spell;
use crate::path::Shown;
use crate::path::called;
use crate::progress::Progress;
use crate::tree::Entry;
use crate::tree::FileKind;
use crate::vault::ReadError;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;

use crate::cli::args::FindArgs;
use crate::cli::args::HistoryArgs;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::error::exit_of_unread;
use crate::cli::error::quoted;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::select;
use crate::cli::select::Filter;
use crate::cli::suggest::Nearest;
use crate::cli::table;
use crate::cli::table::Column;
use crate::cli::units;
use crate::json;
use crate::json::MatchJson;
use crate::json::SpellJson;
use crate::json::change_of;
use crate::service::spot;

/// The maximum number of names compared with one that was not found.
const NAMES_MAX: usize = 2_000_000;

/// The snapshots that pass the filter, newest first.
fn newest_first<'a>(snapshots: &'a [SnapshotInfo], filter: &Filter) -> Result<Vec<&'a SnapshotInfo>, Failure> {
    let chosen: Vec<_> = snapshots.iter().rev().filter(|info| filter.matches(info)).collect();
    if chosen.is_empty() { Err(filter.none_of(snapshots)) } else { Ok(chosen) }
}

/// The properties that distinguish snapshots in a list: several sources, or several machines.
#[derive(Clone, Copy)]
struct Several {
    sources: bool,
    hosts: bool,
}

impl Several {
    fn of(all: &[SnapshotInfo]) -> Self {
        let differ = |of: &dyn Fn(&SnapshotInfo) -> &str| all.windows(2).any(|pair| of(&pair[0]) != of(&pair[1]));
        Self { sources: differ(&|info| &info.body.source), hosts: differ(&|info| &info.body.host) }
    }

    /// The sources or machines of some snapshots, after a blank; empty if all snapshots of the vault have the same.
    fn said<'a>(self, infos: impl Iterator<Item = &'a SnapshotInfo>) -> String {
        let name = |info: &SnapshotInfo| {
            let (source, host) = (Shown(info.body.source.as_bytes()), Shown(info.body.host.as_bytes()));
            match (self.sources, self.hosts) {
                (_, true) => format!("{source} on {host}"),
                (true, false) => source.to_string(),
                (false, false) => String::new(),
            }
        };
        let names: BTreeSet<String> = infos.map(name).filter(|name| !name.is_empty()).collect();
        let names: Vec<String> = names.into_iter().collect();
        if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) }
    }
}

/// Runs `vault find`.
pub(super) fn find(context: &Context, args: &FindArgs) -> Result<Exit, Failure> {
    let pattern = Pattern::new(&roots::bytes_of(&args.pattern), args.ignore_case);
    let vault = context.open_to_read()?;
    let all = select::all(context, &vault)?;
    let snapshots = newest_first(&all, &(&args.filter).into())?;
    let mut out = Output::new();
    let (mut failed, mut count) = (None, 0_u64);
    let several = Several::of(&all);
    let asks = !context.global.json && !context.global.quiet;
    let like = literal(&args.pattern).filter(|_| asks).map(|name| Nearest::new(&name));
    let seen = AtomicUsize::new(0);
    let look = |name: &[u8]| {
        if let (Some(like), Ok(name)) = (&like, std::str::from_utf8(name))
            && seen.fetch_add(1, Relaxed) < NAMES_MAX
        {
            like.see(name);
        }
    };
    let otherwise: Option<&find::Look<'_>> = if like.is_some() { Some(&look) } else { None };
    let searched = find::find(
        &vault,
        &snapshots,
        &find::Search { pattern: &pattern, all: snapshots.len() == all.len(), otherwise },
        context.threads(),
        &context.screen,
        &mut |found| {
            count += 1;
            context.screen.clear();
            failed = print_match(context, args, (&snapshots, several), &found, &mut out).err();
            failed.is_none() && !out.is_closed()
        },
    );
    context.screen.clear();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let searched = searched?;
    for (path, error) in &searched.broken {
        context.screen.warn(&format!("{}: {}", called(path), chain(error)));
    }
    if count == 0 && asks {
        let many = units::counted(snapshots.len() as u64, "snapshot", "snapshots");
        out.say(format_args!("Nothing in {many} matches {}.", Shown(&roots::bytes_of(&args.pattern))))?;
        if let Some(near) = like.and_then(Nearest::found) {
            out.say(format_args!("Did you mean: vault find {}", quoted(&near)))?;
        }
    }
    out.finish()?;
    Ok(exit_of_unread(searched.broken.iter().map(|(_, error)| error)))
}

/// The exact name that a pattern matches; `None` if the pattern has wildcards in it.
fn literal(pattern: &OsStr) -> Option<String> {
    let text = pattern.to_str()?.trim_end_matches('/');
    let name = text.rsplit('/').next()?;
    (!name.is_empty() && !name.contains(['*', '?', '['])).then(|| name.to_owned())
}

fn print_match(
    context: &Context,
    args: &FindArgs,
    (snapshots, several): (&[&SnapshotInfo], Several),
    found: &Match,
    out: &mut Output,
) -> Result<(), Failure> {
    if context.global.json {
        return out.json(&MatchJson::new(found, snapshots));
    }
    let is_folder = found.versions.first().is_some_and(|version| version.kind == FileKind::Directory);
    let title = format!("{}{}", Shown(&found.path), if is_folder { "/" } else { "" });
    out.head(&title)?;
    let dated = |at: usize| {
        let info = snapshots[at];
        format!("{} ({})", info.id.short(), dates::shown(info.date, &context.zone))
    };
    for version in &found.versions {
        let what = match version.kind {
            FileKind::File => units::size(version.size),
            other => json::kind(other).to_owned(),
        };
        let of = several.said(version.snapshots.iter().map(|at| snapshots[*at]));
        let holders = match version.snapshots.as_slice() {
            [] => String::new(),
            [only] => format!("in {}{of}", dated(*only)),
            [newest, .., oldest] => {
                format!("in {} snapshots{of}, {} to {}", version.snapshots.len(), dated(*oldest), dated(*newest))
            }
        };
        out.line(format_args!("  {what:>10}  {}  {holders}", dates::shown(version.mtime, &context.zone)))?;
        if args.long {
            for at in &version.snapshots {
                let of = several.said(std::iter::once(snapshots[*at]));
                out.line(format_args!("              {}{of}", dated(*at)))?;
            }
        }
    }
    Ok(())
}

const HISTORY: &[Column] = &[
    Column::left("Since"),
    Column::left("Snapshot"),
    Column::right("In"),
    Column::right("Size"),
    Column::left("Modified").drop(1),
    Column::left("Change").min(10),
];

/// Runs `vault history`.
pub(super) fn history(context: &Context, args: &HistoryArgs) -> Result<Exit, Failure> {
    let vault = context.open_to_read()?;
    let all = select::all(context, &vault)?;
    let snapshots = newest_first(&all, &(&args.filter).into())?;
    let typed = roots::bytes_of(&args.path);
    let mut broken = Vec::new();
    let mut rows = rows(context, &vault, args, &snapshots, &typed, &mut broken)?;
    if rows.is_empty() {
        // The path may be relative to the current folder.
        let here = roots::absolute(&current_folder()?, &roots::path_of(&typed));
        let unread = std::mem::take(&mut broken);
        let here = roots::bytes_of(here.as_os_str());
        rows = self::rows(context, &vault, args, &snapshots, &here, &mut broken)?;
        if rows.is_empty() && broken.is_empty() {
            broken = unread;
        }
    }
    if rows.is_empty() {
        // Of a snapshot that was dropped meanwhile nothing is asked any more.
        broken.retain(|error| error.gone().is_none());
        let many = units::counted(snapshots.len() as u64, "snapshot", "snapshots");
        let last = spot::last_of_each(snapshots.iter().copied(), &vault.identity().host);
        let older = snapshots.iter().copied().take(spot::OTHERS_MAX);
        let meant = last.into_iter().chain(older).find_map(|info| spot::meant(&vault, info, &typed));
        let hint = match (meant, roots::path_of(&typed).file_name().and_then(OsStr::to_str)) {
            (Some(meant), _) => format!("Did you mean: vault history {}", quoted(&Shown(&meant).to_string())),
            (None, Some(name)) => format!("Look for it by name: vault find {}", quoted(name)),
            (None, None) => "Look for it by name: vault find NAME".to_owned(),
        };
        let (exit, unread) = (exit_of_unread(&broken), units::count(broken.len() as u64));
        if let Some(error) = broken.into_iter().next() {
            let Failure { what, hint, .. } = error.into();
            let what = format!("{unread} of {many} could not be read, and no other has {}: {what}", Shown(&typed));
            return Err(Failure { exit, what, hint });
        }
        return Err(Failure::new(format!("there is no {} in {many}", Shown(&typed))).hint(hint));
    }
    let mut out = Output::new();
    for row in &rows {
        if context.global.json {
            print_json(row, &typed, &mut out)?;
            continue;
        }
        if rows.len() > 1 {
            let (source, host) = (Shown(row.source.as_bytes()), Shown(row.host.as_bytes()));
            out.styled(Style::Bold, &format!("{source} on {host}"))?;
        }
        print_row(context, row, &mut out)?;
    }
    for error in &broken {
        context.screen.warn(&format!("a snapshot was passed over: {}", chain(error)));
    }
    out.finish().map(|()| exit_of_unread(&broken))
}

/// The versions of a path in the snapshots of one source and host that cover it.
struct Row<'a> {
    source: &'a str,
    host: &'a str,
    /// The snapshots, newest first.
    snapshots: Vec<&'a SnapshotInfo>,
    spells: Vec<Spell>,
}

/// Follows a path through the snapshots that cover it, separately for each source, because the snapshots of one source
/// tell nothing about another. Uses the snapshots of this machine, if it has any.
fn rows<'a>(
    context: &Context,
    vault: &Vault,
    args: &HistoryArgs,
    snapshots: &[&'a SnapshotInfo],
    typed: &[u8],
    broken: &mut Vec<ReadError>,
) -> Result<Vec<Row<'a>>, Failure> {
    let mut covering: Vec<_> = snapshots.iter().copied().filter(|info| select::covers(info, typed)).collect();
    let mut is_own = true;
    if args.filter.host.is_none() {
        (covering, is_own) = select::of_this_machine(vault, covering);
    }
    let mut rows: Vec<Row<'a>> = Vec::new();
    for info in covering {
        let (source, host) = (info.body.source.as_str(), info.body.host.as_str());
        match rows.iter_mut().find(|row| row.source == source && row.host == host) {
            Some(row) => row.snapshots.push(info),
            None => rows.push(Row { source, host, snapshots: vec![info], spells: Vec::new() }),
        }
    }
    for row in &mut rows {
        let spells = follow(vault, context, &row.snapshots, typed, broken)?;
        // Snapshots from before the path first existed tell nothing.
        let first = spells.iter().rposition(|spell| spell.entry.is_some());
        row.spells = spells.into_iter().take(first.map_or(0, |first| first + 1)).collect();
    }
    rows.retain(|row| !row.spells.is_empty());
    if !is_own && !rows.is_empty() {
        context.screen.warn("no snapshot of this machine has it: these are of others (--host chooses)");
    }
    Ok(rows)
}

/// The change that each version brought.
fn changes(row: &Row<'_>) -> Vec<String> {
    (0..row.spells.len()).map(|at| change(history::before(&row.spells, at), &row.spells[at])).collect()
}

fn print_json(row: &Row<'_>, typed: &[u8], out: &mut Output) -> Result<(), Failure> {
    SpellJson::all(typed, &row.spells, &row.snapshots).iter().try_for_each(|spell| out.json(spell))
}

fn print_row(context: &Context, row: &Row<'_>, out: &mut Output) -> Result<(), Failure> {
    let line = |(spell, change): (&Spell, String)| {
        let first = spell.snapshots.last().map(|at| row.snapshots[*at]);
        let size = |entry: &Entry| match entry.kind {
            FileKind::File => units::size(entry.size),
            other => json::kind(other).to_owned(),
        };
        vec![
            first.map_or_else(String::new, |info| dates::shown(info.date, &context.zone)),
            first.map_or_else(String::new, |info| info.id.short()),
            units::count(spell.snapshots.len() as u64),
            spell.entry.as_ref().map_or_else(String::new, size),
            spell.entry.as_ref().map_or_else(String::new, |entry| dates::shown(entry.mtime, &context.zone)),
            change,
        ]
    };
    let lines: Vec<_> = row.spells.iter().zip(changes(row)).map(line).collect();
    let mut lines = table::render(HISTORY, &lines, out.width).into_iter();
    if let Some(titles) = lines.next() {
        out.head(&titles)?;
    }
    lines.try_for_each(|line| out.line(line))
}

fn follow(
    vault: &Vault,
    context: &Context,
    snapshots: &[&SnapshotInfo],
    typed: &[u8],
    broken: &mut Vec<ReadError>,
) -> Result<Vec<Spell>, Failure> {
    let inside = |info: &SnapshotInfo| select::inside(&info.body.roots, typed);
    Ok(history::history(vault, snapshots, &inside, broken, &context.screen)?)
}

/// The change since the previous version, in words.
fn change(before: Option<&Spell>, now: &Spell) -> String {
    match change_of(before, now) {
        _ if now.entry.is_none() => now.absence.words().to_owned(),
        ("kind", _) => "another kind of file".to_owned(),
        ("same", _) => "as before".to_owned(),
        ("metadata", fields) => fields.join(", "),
        (word, _) => word.to_owned(),
    }
}
