//! The snapshots that may be forgotten: the rules that apply to each, the periods of time, and a warning when more is
//! dropped than usual.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::engine::prune::retention::{Decision, Period, Rules};
use crate::service::config::Config;
use crate::service::select::Filter;
use crate::tree::Time;
use crate::vault::SnapshotInfo;

/// The configured rules for a vault, by source.
pub fn of_vault(config: &Config, vault: &str, now: Time) -> Vec<(String, Rules)> {
    let kept = config.sources.iter().filter(|source| source.vaults.iter().any(|name| name == vault));
    kept.filter_map(|source| Some((source.name.clone(), source.keep.as_ref()?.rules(now)))).collect()
}

/// The snapshots of a machine's source. Its rules apply to these alone.
pub fn of_source(all: &[SnapshotInfo], source: &str, host: &str) -> Vec<SnapshotInfo> {
    let own = Filter { source: Some(source.to_owned()), host: Some(host.to_owned()) };
    all.iter().filter(|info| own.matches(info)).cloned().collect()
}

/// The name of the hour, day, ... that contains a time.
pub fn period(zone: &TimeZone, time: Time, period: Period) -> String {
    let Ok(timestamp) = Timestamp::from_second(time.secs) else { return format!("@{}", time.secs) };
    let local = timestamp.to_zoned(zone.clone());
    match period {
        Period::Hour => local.strftime("%Y-%m-%d %H h %z").to_string(),
        Period::Day => local.strftime("%Y-%m-%d").to_string(),
        Period::Week => local.strftime("%G-W%V").to_string(),
        Period::Month => local.strftime("%Y-%m").to_string(),
        Period::Year => local.strftime("%Y").to_string(),
    }
}

/// Whether this is the newest snapshot of its source and host without lost paths.
pub fn is_last_complete(snapshots: &[SnapshotInfo], info: &SnapshotInfo) -> bool {
    let same = |other: &&SnapshotInfo| {
        other.body.source == info.body.source && other.body.host == info.body.host && !other.has_lost_root()
    };
    snapshots.iter().rfind(same).is_some_and(|last| last.id == info.id)
}

/// The first source and host that lose more than half of their snapshots, with the number dropped and the total.
pub fn mostly_dropped<'a>(
    snapshots: &'a [SnapshotInfo],
    decisions: &[Decision],
) -> Option<(&'a str, &'a str, u64, u64)> {
    let mut groups: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for (info, decision) in snapshots.iter().zip(decisions) {
        let (dropped, all) = groups.entry((&info.body.source, &info.body.host)).or_default();
        *dropped += u64::from(!decision.keep());
        *all += 1;
    }
    let found = groups.into_iter().find(|(_, (dropped, all))| dropped * 2 > *all);
    found.map(|((source, host), (dropped, all))| (source, host, dropped, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_follow_the_calendar() {
        let of = |secs, length| period(&TimeZone::UTC, Time { secs, nanos: 0 }, length);
        assert_eq!(of(1_795_132_800, Period::Day), "2026-11-20");
        assert_eq!(of(1_795_132_800, Period::Week), "2026-W47");
        assert_eq!(of(1_767_225_600, Period::Week), "2026-W01");
        assert_eq!(of(1_795_132_800, Period::Month), "2026-11");
        assert_eq!(of(-1, Period::Year), "1969");
    }
}
