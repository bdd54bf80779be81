//! `vault du`.

use crate::engine::query::browse;
use crate::engine::query::diff;
use crate::engine::query::usage;
use crate::engine::query::usage::News;
use crate::engine::query::usage::Sums;
use crate::path::Shown;
use crate::path::called;
use crate::progress::Progress;
use crate::tree::Entry;
use crate::tree::FileKind;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use serde::Serialize;

use crate::cli::args::DuArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::error::exit_of_unread;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Wanted;
use crate::cli::table;
use crate::cli::table::Column;
use crate::cli::units;
use crate::json;
use crate::json::Name;

const COLUMNS: &[Column] = &[Column::right("Size"), Column::right("Files"), Column::left("Path").min(20).keep_end()];

#[derive(Serialize)]
struct LineJson<'a> {
    path: Name<'a>,
    kind: &'static str,
    bytes: u64,
    files: u64,
    folders: u64,
}

#[derive(Serialize)]
struct DuJson<'a> {
    snapshot: String,
    /// Null without `--since`.
    since: Option<String>,
    path: Name<'a>,
    bytes: u64,
    files: u64,
    folders: u64,
    /// The entries, the largest first.
    entries: Vec<LineJson<'a>>,
}

/// Runs `vault du`.
pub(super) fn run(context: &Context, args: &DuArgs) -> Result<Exit, Failure> {
    let wanted = select::parse(context, &args.snapshot)?;
    let since = args.since.as_deref().map(|text| select::parse(context, text)).transpose()?;
    if let Some(Wanted { path: Some(_), .. }) = &since {
        return Err(Failure::usage("--since takes a snapshot without a path")
            .hint("Give the path with the first one: vault du latest:PATH --since latest~1"));
    }
    let vault = context.open_to_read()?;
    let snapshots = vault.snapshots();
    let spot = select::spot(context, &vault, &snapshots, &args.filter, &wanted, Aim::Read)?;
    let (info, path) = (&spot.info, spot.path.as_slice());
    let since = since.map(|since| select::find(context, &vault, &snapshots, &args.filter, &since, Aim::Read));
    let since = since.transpose()?;
    let entry = spot.entry()?;
    let mut sums = match (&entry.content, since) {
        (_, Some(since)) => news(context, args, &vault, since, (info, path), entry)?,
        (Some(listing), None) if entry.kind == FileKind::Directory => {
            usage::usage(&vault, listing, path, args.depth, context.threads(), &context.screen)?
        }
        _ => usage::of_entry(path, &entry),
    };
    sums.broken = sums.broken.take().map(|(count, error)| (count, vault.judged(error, &info.id)));
    context.screen.clear();
    let mut out = Output::new();
    tell(context, args, info, since, path, &sums, &mut out)?;
    out.finish()?;
    if let Some((count, error)) = &sums.broken {
        let many = units::counted(*count, "folder", "folders");
        context
            .screen
            .warn(&format!("{many} could not be read and counted as empty, the first because: {}", chain(error)));
        return Ok(exit_of_unread([error]));
    }
    Ok(Exit::Done)
}

/// The data that is new since a snapshot.
fn news(
    context: &Context,
    args: &DuArgs,
    vault: &Vault,
    since: &SnapshotInfo,
    (info, path): (&SnapshotInfo, &[u8]),
    new: Entry,
) -> Result<Sums, Failure> {
    let (mut old_trees, mut new_trees) = (vault.tree_reader_of([since.id])?, vault.tree_reader_of([info.id])?);
    let old = match browse::entry_at(&since.body.tree, path, &mut old_trees) {
        Ok(entry) => entry,
        // All of it is new.
        Err(browse::BrowseError::NotFound { .. }) => Entry::new(Vec::new(), FileKind::Fifo),
        Err(error) => return Err(error.into()),
    };
    diff::bring(&old, &new, &new_trees, &context.screen);
    let mut news = News::new(path, args.depth);
    let compared = diff::diff(path, (old, &mut old_trees), (new, &mut new_trees), &[], &context.screen, &mut news)?;
    let mut sums = news.finish()?;
    let count = compared.broken.len() as u64;
    sums.broken = compared.broken.into_iter().next().map(|(_, error)| (count, error));
    Ok(sums)
}

fn tell(
    context: &Context,
    args: &DuArgs,
    info: &SnapshotInfo,
    since: Option<&SnapshotInfo>,
    path: &[u8],
    sums: &Sums,
    out: &mut Output,
) -> Result<(), Failure> {
    let shown = args.limit.unwrap_or(usize::MAX).min(sums.lines.len());
    if context.global.json {
        let entries = sums.lines[..shown].iter().map(|line| LineJson {
            path: Name(&line.path),
            kind: json::kind(line.kind),
            bytes: line.usage.bytes,
            files: line.usage.files,
            folders: line.usage.folders,
        });
        return out.json(&DuJson {
            snapshot: info.id.to_string(),
            since: since.map(|since| since.id.to_string()),
            path: Name(path),
            bytes: sums.total.bytes,
            files: sums.total.files,
            folders: sums.total.folders,
            entries: entries.collect(),
        });
    }
    let rows: Vec<_> = sums.lines[..shown]
        .iter()
        .map(|line| {
            let folder = if line.kind == FileKind::Directory { "/" } else { "" };
            let (size, files) = (units::size(line.usage.bytes), units::count(line.usage.files));
            vec![size, files, format!("{}{folder}", Shown(&line.path))]
        })
        .collect();
    if !rows.is_empty() {
        let mut lines = table::render(COLUMNS, &rows, out.width).into_iter();
        if let Some(titles) = lines.next() {
            out.head(&titles)?;
        }
        lines.try_for_each(|line| out.line(line))?;
    }
    if !context.global.quiet {
        let more = sums.lines.len() - shown;
        if more > 0 {
            out.line(format_args!("and {} more", units::count(more as u64)))?;
        }
        let (total, new) = (&sums.total, if since.is_some() { " new or changed" } else { "" });
        let files = units::counted(total.files, "file", "files");
        let folders = units::counted(total.folders, "folder", "folders");
        let title = format!("{}{new} in {}: {files}, {folders}", units::size(total.bytes), called(path));
        out.styled(Style::Bold, &title)?;
    }
    Ok(())
}
