//! Which snapshots stay: pure planning.
//!
//! Rules count for each source and host apart. Within one client the order is that of its records, whatever its clock said;
//! a time that lies before that of an earlier snapshot counts as that of the earlier one. So a clock that jumped cannot make
//! a new snapshot look old. A clock that jumps forward and back again makes the ones after it look as new as the jump: they
//! fall into one period, of which the last record stays.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::ObjectName;
use crate::tree::Time;
use crate::vault::SnapshotInfo;

/// A period of the calendar. Which one a time falls into is up to the caller's time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, which begins on Monday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// Every period, the shortest first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    const fn word(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }
}

/// What is to be kept. A snapshot stays if any rule keeps it.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The last so many.
    pub last: Option<u64>,
    /// The last one of each of so many periods that have any.
    pub periods: BTreeMap<Period, u64>,
    /// All that are not older than this, counted from the last one.
    pub within: Option<Duration>,
    /// All with one of these tags.
    pub tags: Vec<String>,
}

impl Rules {
    /// Whether there is no rule at all, which would drop everything.
    pub fn is_empty(&self) -> bool {
        self.last.is_none() && self.periods.is_empty() && self.within.is_none() && self.tags.is_empty()
    }

    /// Whether it was said outright that nothing need be left.
    fn may_drop_all(&self) -> bool {
        self.last == Some(0)
    }
}

/// What becomes of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The snapshot.
    pub id: ObjectName,
    /// Why it stays; empty if it goes.
    pub reasons: Vec<String>,
}

impl Decision {
    /// Whether it stays.
    pub fn keep(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Decides about snapshots, which come in the order in which they were taken. `period` says which hour, day, ... a time
/// belongs to, as any text that differs from one to the next.
pub fn plan(snapshots: &[SnapshotInfo], rules: &Rules, period: &dyn Fn(Time, Period) -> String) -> Vec<Decision> {
    let mut groups: BTreeMap<(&str, &str), Vec<&SnapshotInfo>> = BTreeMap::new();
    for info in snapshots {
        groups.entry((&info.body.source, &info.body.host)).or_default().push(info);
    }
    let mut reasons: BTreeMap<ObjectName, Vec<String>> = BTreeMap::new();
    for group in groups.into_values() {
        decide(&group, rules, period, &mut reasons);
    }
    let decision =
        |info: &SnapshotInfo| Decision { id: info.id, reasons: reasons.remove(&info.id).unwrap_or_default() };
    snapshots.iter().map(decision).collect()
}

/// The times of a group's snapshots as they count: never before that of an earlier record of the same client.
fn counted_times(group: &[&SnapshotInfo]) -> Vec<Time> {
    let mut latest = BTreeMap::new();
    group
        .iter()
        .map(|info| {
            let time = latest.entry(info.client).or_insert(info.body.time);
            *time = (*time).max(info.body.time);
            *time
        })
        .collect()
}

fn decide(
    group: &[&SnapshotInfo],
    rules: &Rules,
    period: &dyn Fn(Time, Period) -> String,
    reasons: &mut BTreeMap<ObjectName, Vec<String>>,
) {
    let times = counted_times(group);
    let newest_first = || group.iter().zip(&times).rev();
    let mut keep = |info: &SnapshotInfo, reason: String| reasons.entry(info.id).or_default().push(reason);
    let mut any = false;
    for (index, (info, _)) in newest_first().enumerate() {
        if rules.last.is_some_and(|count| (index as u64) < count) {
            keep(info, "last".to_owned());
            any = true;
        }
        if info.pinned {
            keep(info, "pinned".to_owned());
            any = true;
        }
        if let Some(tag) = rules.tags.iter().find(|tag| info.body.tags.contains(tag)) {
            keep(info, format!("tag {tag}"));
            any = true;
        }
    }
    for (length, count) in &rules.periods {
        let mut last = None;
        let mut left = *count;
        for (info, time) in newest_first() {
            let name = period(*time, *length);
            if left > 0 && last.as_ref() != Some(&name) {
                keep(info, format!("{} {name}", length.word()));
                any = true;
                left -= 1;
                last = Some(name);
            }
        }
    }
    if let (Some(within), Some(newest)) = (rules.within, times.iter().max()) {
        let from = newest.secs.saturating_sub(i64::try_from(within.as_secs()).unwrap_or(i64::MAX));
        for (info, time) in newest_first() {
            if (time.secs, time.nanos) >= (from, newest.nanos) {
                keep(info, "within".to_owned());
                any = true;
            }
        }
    }
    if !any
        && !rules.may_drop_all()
        && let Some(newest) = group.last()
    {
        keep(newest, "the only one left (--keep 0 lets it go)".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClientId;
    use crate::tree::{Snapshot, Stream, Verdict};

    /// A snapshot of client 1: number, day, source, tag.
    fn info(number: u8, day: i64, source: &str, tag: &str) -> SnapshotInfo {
        SnapshotInfo {
            id: ObjectName::new([number; 16]),
            client: ClientId::new([1; 16]),
            number: u64::from(number),
            pinned: tag == "pin",
            body: Snapshot {
                time: Time { secs: day * 86_400, nanos: 0 },
                source: source.to_owned(),
                host: "host".to_owned(),
                user: String::new(),
                roots: Vec::new(),
                tree: Stream::EMPTY,
                links: Stream::EMPTY,
                files: 0,
                folders: 0,
                bytes: 0,
                files_new: 0,
                files_changed: 0,
                files_unchanged: 0,
                bytes_read: 0,
                bytes_new: 0,
                bytes_stored: 0,
                duration_ms: 0,
                program: String::new(),
                tags: vec![tag.to_owned()],
                description: String::new(),
                verdict: Verdict::Complete,
                skipped: 0,
                skipped_list: Stream::EMPTY,
                given: false,
                rules: Stream::EMPTY,
                replaces: Vec::new(),
            },
        }
    }

    fn day_of(time: Time, period: Period) -> String {
        let day = time.secs.div_euclid(86_400);
        match period {
            Period::Hour => time.secs.div_euclid(3600),
            Period::Day => day,
            Period::Week => day.div_euclid(7),
            Period::Month => day.div_euclid(30),
            Period::Year => day.div_euclid(365),
        }
        .to_string()
    }

    fn check(snapshots: &[SnapshotInfo], rules: &Rules, kept: &[u8]) {
        let decisions = plan(snapshots, rules, &day_of);
        let found: Vec<u8> = decisions.iter().filter(|d| d.keep()).map(|d| d.id.as_bytes()[0]).collect();
        assert_eq!(found, kept, "{rules:?}");
    }

    fn last(count: u64) -> Rules {
        Rules { last: Some(count), ..Rules::default() }
    }

    #[test]
    fn the_last_ones_of_each_source_stay() {
        let some = [info(1, 1, "a", ""), info(2, 2, "b", ""), info(3, 3, "a", ""), info(4, 4, "a", "")];
        check(&some, &last(1), &[2, 4]);
        check(&some, &last(2), &[2, 3, 4]);
        check(&some, &last(0), &[]);
        check(&some, &last(9), &[1, 2, 3, 4]);
    }

    #[test]
    fn pins_and_tags_stay_and_a_rule_that_leaves_nothing_leaves_the_last() {
        let some = [info(1, 1, "a", "pin"), info(2, 2, "a", "x"), info(3, 3, "a", ""), info(4, 4, "b", "")];
        check(&some, &Rules { tags: vec!["x".to_owned()], ..Rules::default() }, &[1, 2, 4]);
        check(&some, &last(0), &[1]);
        check(&some, &Rules { periods: [(Period::Day, 0)].into(), ..Rules::default() }, &[1, 4]);
    }

    #[test]
    fn periods_keep_their_last() {
        let some: Vec<_> = (0..60).map(|day| info(day, i64::from(day), "a", "")).collect();
        check(&some, &Rules { periods: [(Period::Day, 2)].into(), ..Rules::default() }, &[58, 59]);
        check(&some, &Rules { periods: [(Period::Week, 3)].into(), ..Rules::default() }, &[48, 55, 59]);
        let both = Rules { last: Some(1), periods: [(Period::Month, 9)].into(), ..Rules::default() };
        check(&some, &both, &[29, 59]);
        let within = Rules { within: Some(Duration::from_secs(3 * 86_400)), ..Rules::default() };
        check(&some, &within, &[56, 57, 58, 59]);
    }

    #[test]
    fn a_clock_that_jumped_does_not_drop_the_newest() {
        // The clock was a year ahead for snapshots 2 and 3, then it was set right.
        let some = [
            info(1, 1, "a", ""),
            info(2, 367, "a", ""),
            info(3, 368, "a", ""),
            info(4, 4, "a", ""),
            info(5, 5, "a", ""),
        ];
        check(&some, &last(2), &[4, 5]);
        check(&some, &Rules { periods: [(Period::Day, 2)].into(), ..Rules::default() }, &[2, 5]);
        check(&some, &Rules { within: Some(Duration::from_secs(86_400)), ..Rules::default() }, &[2, 3, 4, 5]);
        // It was a year behind: nothing new looks old.
        let some = [info(1, 400, "a", ""), info(2, 401, "a", ""), info(3, 36, "a", "")];
        check(&some, &Rules { periods: [(Period::Day, 1)].into(), ..Rules::default() }, &[3]);
    }
}
