//! `vault list`.

use std::collections::BTreeMap;

use crate::id::ObjectName;
use crate::path::Shown;
use crate::tree::Verdict;
use crate::vault::SnapshotDamage;
use crate::vault::SnapshotInfo;
use crate::vault::findings::exit_of;
use jiff::tz::TimeZone;

use crate::cli::accept;
use crate::cli::args::ListArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::offer;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots::bytes_of;
use crate::cli::select;
use crate::cli::select::Filter;
use crate::cli::table;
use crate::cli::table::Column;
use crate::cli::units;
use crate::json::ListJson;

const COLUMNS: &[Column] = &[
    Column::left("Date"),
    Column::left("Id"),
    Column::left("Source").min(8).keep_end(),
    Column::left("Host").min(6).drop(4),
    Column::right("Files").drop(3),
    Column::right("Size").drop(1),
    Column::right("Stored").drop(2),
    Column::left("Verdict"),
    Column::left("Tags").min(6).drop(5),
];

/// Runs `vault list`.
pub(super) fn run(context: &Context, args: &ListArgs) -> Result<Exit, Failure> {
    let vault = context.open_to_read()?;
    let known = vault.known_findings(dates::now())?;
    let mut snapshots = vault.snapshots();
    offer::note_snapshots(&vault, &snapshots, &context.zone);
    offer::note_findings(&vault, &known);
    let all = snapshots.len();
    let filter = Filter::from(&args.filter);
    snapshots.retain(|info| {
        filter.matches(info)
            && (args.tag.is_empty() || args.tag.iter().any(|tag| info.body.tags.contains(tag)))
            && args.path.as_ref().is_none_or(|path| select::covers(info, &bytes_of(path)))
    });
    let surplus = args.last.map_or(0, |last| snapshots.len().saturating_sub(last));
    snapshots.drain(..surplus);
    let (mut damage, mut late) = (vault.known_damage()?, vault.known_late()?);
    for lacking in [&mut damage, &mut late] {
        lacking.retain(|id, _| snapshots.iter().any(|info| info.id == *id));
    }
    let mut out = Output::new();
    if context.global.json {
        out.json(&ListJson::new(vault.id().to_string(), &snapshots, &damage, &late, &known))?;
    } else if snapshots.is_empty() {
        if !context.global.quiet {
            out.say(if all == 0 {
                "There is no snapshot in this vault yet. Take one with: vault snapshot PATH".to_owned()
            } else {
                let meant = filter.meant(&vault.snapshots());
                format!("No snapshot is like that. {}", meant.as_deref().unwrap_or("See all with: vault list"))
            })?;
        }
    } else {
        let mut lines = render(&snapshots, (&damage, &late), &context.zone, out.width).into_iter();
        if let Some(titles) = lines.next() {
            out.head(&titles)?;
        }
        lines.try_for_each(|line| out.line(line))?;
        if !context.global.quiet {
            if snapshots.iter().any(|info| info.is_outlier) {
                out.say("~ The clock was wrong: the date is an estimate from the snapshots before and after it.")?;
            }
            if snapshots.iter().any(SnapshotInfo::has_lost_root) {
                out.say("lost: a folder was empty that had not been. Is its disk mounted? See vault ls --skipped ID")?;
            }
        }
        if !damage.is_empty() && !context.global.quiet {
            out.styled(Style::Warning, "Of damaged snapshots some files are lost. Which ones: vault check")?;
        }
    }
    if !context.global.json {
        accept::tell(&known, &context.zone, &mut out)?;
    }
    out.finish()?;
    Ok(exit_of(&known))
}

fn render(
    snapshots: &[SnapshotInfo],
    (damage, late): (&BTreeMap<ObjectName, SnapshotDamage>, &BTreeMap<ObjectName, SnapshotDamage>),
    zone: &TimeZone,
    width: Option<usize>,
) -> Vec<String> {
    let row = |info: &SnapshotInfo| {
        let body = &info.body;
        let shown = |text: &str| Shown(text.as_bytes()).to_string();
        vec![
            format!("{}{}", if info.is_outlier { "~" } else { "" }, dates::shown(info.date, zone)),
            info.id.short(),
            shown(&body.source),
            shown(&body.host),
            units::count(body.files),
            units::size(body.bytes),
            units::size(body.bytes_stored),
            format!(
                "{}{}",
                match body.verdict {
                    _ if damage.contains_key(&info.id) => "damaged",
                    _ if late.contains_key(&info.id) => "not arrived",
                    _ if info.has_lost_root() => "lost",
                    Verdict::Complete => "complete",
                    Verdict::Partial => "partial",
                },
                if info.pinned { ", pinned" } else { "" }
            ),
            shown(&body.tags.join(", ")),
        ]
    };
    table::render(COLUMNS, &snapshots.iter().map(row).collect::<Vec<_>>(), width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::select::testing::info;

    #[test]
    fn the_table_fits_eighty_columns() {
        let mut snapshots = vec![
            info([0x1f, 0x2e], 1_795_132_800, "/home/me/Documents", "laptop"),
            info([0x3a, 0], 1_795_219_200, "etc", "laptop"),
        ];
        snapshots[1].body.verdict = Verdict::Partial;
        assert_eq!(
            render(&snapshots, (&BTreeMap::new(), &BTreeMap::new()), &TimeZone::UTC, Some(80)),
            [
                "Date              Id        Source           Files     Size     Stored  Verdict",
                "2026-11-20 00:00  1f2e0000  …e/me/Documents  2,000  5.0 MiB  256.0 KiB  complete",
                "2026-11-21 00:00  3a000000  etc              2,000  5.0 MiB  256.0 KiB  partial",
            ]
        );
        snapshots[0].pinned = true;
        snapshots[0].is_outlier = true;
        snapshots[0].body.tags = vec!["a".into(), "b\x1b".into()];
        let damage = BTreeMap::from([(snapshots[1].id, SnapshotDamage { count: 1, files: Vec::new() })]);
        let late = BTreeMap::from([(snapshots[0].id, SnapshotDamage { count: 1, files: Vec::new() })]);
        let lines = render(&snapshots, (&damage, &late), &TimeZone::UTC, None);
        assert!(lines[2].ends_with("damaged"), "{}", lines[2]);
        assert!(lines[1].ends_with("not arrived, pinned  a, b\\x1b"), "{}", lines[1]);
        assert!(lines[1].starts_with("~2026-11-20 00:00  1f2e0000"), "{}", lines[1]);
        assert!(lines[1].contains("/home/me/Documents"));
    }
}
