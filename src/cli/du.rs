//! `vault du`.

use crate::engine::query::usage::Sums;
use crate::path::Shown;
use crate::path::called;
use crate::progress::Progress;
use crate::service::usage;
use crate::service::usage::UsageJson;
use crate::service::usage::Wish;
use crate::tree::FileKind;
use crate::vault::SnapshotInfo;

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

const COLUMNS: &[Column] = &[Column::right("Size"), Column::right("Files"), Column::left("Path").min(20).keep_end()];

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
    let wish = Wish { info, path, since, depth: args.depth };
    let mut sums = usage::sums(&vault, &wish, entry, context.threads(), &context.screen)?;
    sums.broken = sums.broken.take().map(|(count, error)| (count, vault.judged(error, &info.id)));
    if let Some(gone) = sums.broken.as_ref().and_then(|(_, error)| error.gone()) {
        return Err(gone.into());
    }
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
        return out.json(&UsageJson::new(info, since, path, sums, shown));
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
