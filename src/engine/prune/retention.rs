//! Decides which snapshots to keep: pure planning (the dates are those of SPEC §8.3).
//!
//! Rules apply to each source and host separately, and there to three rows: snapshots dated by a clock; those whose date was given (by
//! `--time`, or by an archive); and those in which a path was probably not mounted. So an import takes no slot from ordinary snapshots,
//! and neither does an empty mount point.
//!
//! Of copies of one snapshot, which two machines stored at the same time, one counts, and the others go.
//!
//! A date that may be wrong never decides about other snapshots. A snapshot stays in addition, without taking a slot, if its clock
//! contradicts the others of its machine, if it cannot be determined whether its clock or another one was wrong, or if it is in the
//! future. The future is relative to `now`: if that is behind, more snapshots stay. Nor does a pause decide that may be due to a clock
//! that jumped (see [`Rules::within`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::check::hurt;
use crate::id::ObjectName;
use crate::progress::Progress;
use crate::read::mark::MarkError;
use crate::tree::Time;
use crate::vault::{SnapshotInfo, Vault, twins};

/// A calendar period. The caller's time zone determines which one a time belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, starting on Monday.
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

/// The rules. A snapshot stays if any rule keeps it.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Keep the last ones, this many.
    pub last: Option<u64>,
    /// Keep the last one of each period that has any, for this many periods.
    pub periods: BTreeMap<Period, u64>,
    /// Keep all that are not older than this, relative to the last one; also those that would not be older without the longest pause
    /// since, if that is longer than a month.
    pub within: Option<Duration>,
    /// Keep all with one of these tags.
    pub tags: Vec<String>,
    /// The time by the clock: later dates are wrong. If `None`, nothing is in the future.
    pub now: Option<Time>,
}

impl Rules {
    /// Whether there is no rule at all, which would drop everything.
    pub fn is_empty(&self) -> bool {
        self.last.is_none() && self.periods.is_empty() && self.within.is_none() && self.tags.is_empty()
    }

    /// Whether the user explicitly allowed that nothing is kept.
    fn may_drop_all(&self) -> bool {
        self.last == Some(0)
    }

    fn is_future(&self, time: Time) -> bool {
        self.now.is_some_and(|now| time.secs > now.secs.saturating_add(AHEAD_MAX))
    }
}

/// The decision about one snapshot.
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

/// A clock that is ahead by more than this is considered wrong, in seconds.
const AHEAD_MAX: i64 = 86_400;
/// A pause between two snapshots that is longer than this, in seconds, may be due to a clock that jumped.
const JUMP: i64 = 31 * 86_400;

/// The rows in which snapshots of a source and host are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    /// Dated by a clock.
    Clock,
    /// The date was given.
    Given,
    /// A path was probably not mounted.
    Lost,
}

impl Row {
    fn of(info: &SnapshotInfo) -> Self {
        match (info.has_lost_root(), info.body.given) {
            (true, _) => Self::Lost,
            (false, true) => Self::Given,
            (false, false) => Self::Clock,
        }
    }
}

/// Decides about snapshots, given in order, the oldest first. `period` returns the hour, day, ... of a time, as any text that is
/// different for each.
pub fn plan(snapshots: &[SnapshotInfo], rules: &Rules, period: &dyn Fn(Time, Period) -> String) -> Vec<Decision> {
    plan_beside(&BTreeSet::new(), snapshots, rules, period).0
}

/// Decides about snapshots as [`plan_in`], but by the damage that is known already: nothing is looked at to find more.
///
/// # Errors
/// If the catalogue or the store fails as a whole.
pub fn plan_known(
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    rules: &Rules,
    period: &dyn Fn(Time, Period) -> String,
) -> Result<Vec<Decision>, MarkError> {
    Ok(plan_beside(&hurt::known(vault, snapshots)?, snapshots, rules, period).0)
}

/// Decides about snapshots as [`plan`], in a vault where some may be damaged, or may not have arrived whole: where the last complete
/// snapshot of a source lacks anything, the newest one that lacks nothing stays as well. Before anything is dropped, the catalogue
/// and the folders of these snapshots are looked at; content is not read.
///
/// # Errors
/// If the catalogue or the store fails as a whole, or the user stops it.
pub fn plan_in(
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    rules: &Rules,
    period: &dyn Fn(Time, Period) -> String,
    progress: &dyn Progress,
) -> Result<Vec<Decision>, MarkError> {
    let (mut hurt, mut whole) = (hurt::known(vault, snapshots)?, BTreeSet::new());
    loop {
        let (decisions, mut last) = plan_beside(&hurt, snapshots, rules, period);
        last.retain(|info| !whole.contains(&info.id));
        if last.is_empty() || decisions.iter().all(Decision::keep) {
            return Ok(decisions);
        }
        let lacking = hurt::lacking(vault, &last, progress)?;
        whole.extend(last.iter().map(|info| info.id).filter(|id| !lacking.contains(id)));
        if lacking.is_empty() {
            return Ok(decisions);
        }
        hurt.extend(lacking);
    }
}

/// The decisions, and the snapshots that stay because they are the last ones without damage.
fn plan_beside<'s>(
    damaged: &BTreeSet<ObjectName>,
    snapshots: &'s [SnapshotInfo],
    rules: &Rules,
    period: &dyn Fn(Time, Period) -> String,
) -> (Vec<Decision>, Vec<&'s SnapshotInfo>) {
    let mut rows: BTreeMap<(&str, &str, Row), Vec<&SnapshotInfo>> = BTreeMap::new();
    let surplus = twins::surplus(snapshots);
    for info in snapshots.iter().filter(|info| !surplus.contains_key(&info.id)) {
        rows.entry((&info.body.source, &info.body.host, Row::of(info))).or_default().push(info);
    }
    let mut reasons: BTreeMap<ObjectName, Vec<String>> = BTreeMap::new();
    let mut relied_on = Vec::new();
    for ((.., row), group) in rows {
        let mut keep = |info: &SnapshotInfo, reason: String| reasons.entry(info.id).or_default().push(reason);
        decide(&group, rules, period, &mut keep);
        if row != Row::Lost && !rules.may_drop_all() {
            let sure = group.iter().rfind(|info| is_sure(info, rules));
            for last in sure.into_iter().chain(group.last().filter(|_| sure.is_none())) {
                keep(last, "last complete".to_owned());
                relied_on.extend(Some(*last).filter(|last| !damaged.contains(&last.id)));
            }
            let is_whole = |info: &&&SnapshotInfo| is_sure(info, rules) && !damaged.contains(&info.id);
            if sure.is_some_and(|last| damaged.contains(&last.id))
                && let Some(whole) = group.iter().rfind(is_whole)
            {
                keep(whole, "last whole".to_owned());
                relied_on.push(*whole);
            }
        }
    }
    let decision =
        |info: &SnapshotInfo| Decision { id: info.id, reasons: reasons.remove(&info.id).unwrap_or_default() };
    (snapshots.iter().map(decision).collect(), relied_on)
}

/// Whether the order of a snapshot among others is reliable.
fn is_sure(info: &SnapshotInfo, rules: &Rules) -> bool {
    !info.is_outlier && !rules.is_future(info.date)
}

/// Whether its date is reliable, too.
fn is_date_sure(info: &SnapshotInfo, rules: &Rules) -> bool {
    is_sure(info, rules) && info.rival.is_none_or(|rival| rules.is_future(rival))
}

/// For each of these dates, the newest first, whether it is within a duration of the last one.
///
/// A pause longer than a [`JUMP`] may not be a real one: a clock that jumped looks the same, however many snapshots were taken by it
/// since. So the age without the longest such pause counts too, whichever of the two is less; a snapshot that stays only because of that
/// is uncertain. It is dropped once enough time has passed after the pause, which is at most one pause more.
fn ages(dates: &[Time], within: Duration) -> Vec<Age> {
    let within = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
    let Some(last) = dates.first() else { return Vec::new() };
    let from = Time { secs: last.secs.saturating_sub(within), nanos: last.nanos };
    let (mut later, mut longest) = (last.secs, 0);
    let age = |date: &Time| {
        let pause = later.saturating_sub(date.secs);
        later = date.secs;
        longest = if pause > JUMP { pause.max(longest) } else { longest };
        if *date >= from {
            Age::Within
        } else if last.secs.saturating_sub(date.secs).saturating_sub(longest) <= within {
            Age::Uncertain
        } else {
            Age::Beyond
        }
    };
    dates.iter().map(age).collect()
}

/// The age of a snapshot compared with a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Within,
    /// Depends on whether a clock has jumped.
    Uncertain,
    Beyond,
}

fn decide(
    group: &[&SnapshotInfo],
    rules: &Rules,
    period: &dyn Fn(Time, Period) -> String,
    keep: &mut dyn FnMut(&SnapshotInfo, String),
) {
    let newest_first: Vec<&SnapshotInfo> = group.iter().rev().copied().collect();
    let counted = newest_first.iter().filter(|info| is_sure(info, rules));
    let dated: Vec<&SnapshotInfo> = newest_first.iter().filter(|info| is_date_sure(info, rules)).copied().collect();
    for info in counted.take(usize::try_from(rules.last.unwrap_or(0)).unwrap_or(usize::MAX)) {
        keep(info, "last".to_owned());
    }
    for (length, count) in &rules.periods {
        let mut last = None;
        let mut left = *count;
        for info in &dated {
            let name = period(info.date, *length);
            if left > 0 && last.as_ref() != Some(&name) {
                keep(info, format!("{} {name}", length.word()));
                left -= 1;
                last = Some(name);
            }
        }
    }
    let dates: Vec<Time> = dated.iter().map(|info| info.date).collect();
    let ages = rules.within.map(|within| ages(&dates, within)).unwrap_or_default();
    for (info, age) in dated.iter().zip(ages) {
        match age {
            Age::Within => keep(info, "within".to_owned()),
            Age::Uncertain => keep(info, "its age is not certain".to_owned()),
            Age::Beyond => {}
        }
    }
    let by_date = !rules.periods.is_empty() || rules.within.is_some();
    for info in newest_first {
        if info.pinned {
            keep(info, "pinned".to_owned());
        }
        if let Some(tag) = rules.tags.iter().find(|tag| info.body.tags.contains(tag)) {
            keep(info, format!("tag {tag}"));
        }
        let by_order = by_date || rules.last.is_some_and(|count| count > 0);
        if (by_order && !is_sure(info, rules)) || (by_date && !is_date_sure(info, rules)) {
            keep(info, "its date is not certain".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{ClientId, Digest};
    use crate::log::record::Join;
    use crate::log::{Chains, Link, Record, RecordBody};
    use crate::tree::{Root, Snapshot};
    use crate::vault::snapshots::list;

    /// A snapshot of client 1: number, day, source, tag.
    fn info(number: u8, day: i64, source: &str, tag: &str) -> SnapshotInfo {
        let (id, client) = (ObjectName::new([number; 16]), ClientId::new([1; 16]));
        let body = Snapshot {
            time: Time { secs: day * 86_400, nanos: 0 },
            source: source.to_owned(),
            host: "host".to_owned(),
            tags: vec![tag.to_owned()],
            ..crate::tree::snapshot::testing::empty()
        };
        SnapshotInfo { pinned: tag == "pin", ..SnapshotInfo::new(id, client, u64::from(number), body) }
    }

    /// Long after everything else.
    const NOW: Time = Time { secs: 5000 * 86_400, nanos: 0 };

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

    #[test]
    fn where_the_last_one_is_damaged_the_last_undamaged_one_stays_as_well() {
        let all = [info(1, 1, "a", ""), info(2, 2, "a", ""), info(3, 3, "a", ""), info(4, 3, "b", "")];
        let damaged = |numbers: &[u8]| numbers.iter().map(|number| ObjectName::new([*number; 16])).collect();
        let kept = |rules: &Rules, numbers: &[u8]| {
            plan_beside(&damaged(numbers), &all, rules, &day_of)
                .0
                .iter()
                .filter(|decision| decision.keep())
                .map(|decision| decision.id.as_bytes()[0])
                .collect::<Vec<_>>()
        };
        let one = Rules { last: Some(1), ..Rules::default() };
        assert_eq!(kept(&one, &[]), [3, 4]);
        assert_eq!(kept(&one, &[1, 4]), [3, 4], "source a has a whole last one, source b no whole one");
        assert_eq!(kept(&one, &[3]), [2, 3, 4]);
        assert_eq!(kept(&one, &[2, 3]), [1, 3, 4]);
        let none = Rules { last: Some(0), ..Rules::default() };
        assert_eq!(kept(&none, &[3]), Vec::<u8>::new());
    }

    fn check(snapshots: &[SnapshotInfo], rules: &Rules, kept: &[u8]) {
        let decisions = plan(snapshots, &Rules { now: Some(NOW), ..rules.clone() }, &day_of);
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
        check(&some, &Rules { tags: vec!["x".to_owned()], ..Rules::default() }, &[1, 2, 3, 4]);
        check(&some, &last(0), &[1]);
        check(&some, &Rules { periods: [(Period::Day, 0)].into(), ..Rules::default() }, &[1, 3, 4]);
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

    fn lost(mut info: SnapshotInfo) -> SnapshotInfo {
        info.body.roots = vec![Root { lost: true, ..Root::new(b"s".to_vec(), b"/s".to_vec()) }];
        info
    }

    fn given(mut info: SnapshotInfo) -> SnapshotInfo {
        info.body.given = true;
        info
    }

    fn daily(count: u64) -> Rules {
        Rules { periods: [(Period::Day, count)].into(), ..Rules::default() }
    }

    #[test]
    fn an_import_takes_no_slot_of_a_living_snapshot_and_the_other_way_round() {
        let some = [given(info(1, 1, "a", "")), given(info(2, 2, "a", "")), info(3, 9, "a", ""), info(4, 10, "a", "")];
        check(&some, &last(1), &[2, 4]);
        check(&some, &daily(1), &[2, 4]);
        let within = Rules { within: Some(Duration::from_secs(60)), ..Rules::default() };
        check(&some, &within, &[2, 4]);
    }

    #[test]
    fn the_last_complete_snapshot_stays_whatever_comes_after_it() {
        let some = [info(1, 1, "a", ""), info(2, 2, "a", ""), lost(info(3, 3, "a", "")), lost(info(4, 4, "a", ""))];
        check(&some, &last(1), &[2, 4]);
        check(&some, &Rules { tags: vec!["none".to_owned()], ..Rules::default() }, &[2]);
        check(&some, &last(0), &[]);
    }

    #[test]
    fn what_is_dated_by_a_wrong_clock_stays_and_takes_no_slot() {
        let mut some = vec![info(1, 1, "a", ""), info(2, 2, "a", ""), info(3, 2, "a", ""), info(4, 3, "a", "")];
        some[2].is_outlier = true;
        check(&some, &last(1), &[3, 4]);
        check(&some, &daily(2), &[2, 3, 4]);
        check(&some, &last(0), &[]);
        // It is not known which of the two is wrong.
        some[3].rival = Some(Time { secs: 4 * 86_400, nanos: 0 });
        check(&some, &last(1), &[3, 4]);
        check(&some, &daily(1), &[2, 3, 4]);
        // A date in the future is certainly wrong.
        some[3].rival = Some(Time { secs: 90_000 * 86_400, nanos: 0 });
        check(&some, &daily(1), &[3, 4]);
    }

    /// A clock that went wrong and stayed wrong looks like a long pause, even by the clock of a machine that prunes.
    #[test]
    fn a_clock_that_jumped_and_stays_so_drops_nothing_that_is_recent() {
        let days = |days: &[i64]| -> Vec<_> { days.iter().zip(1..).map(|(day, at)| info(at, *day, "a", "")).collect() };
        let within = |days: u64| Rules { within: Some(Duration::from_secs(days * 86_400)), ..Rules::default() };
        // The right dates would be 1 to 7: whatever is kept with these must be kept here, too.
        check(&days(&[1, 2, 3, 4, 5, 406, 407]), &within(2), &[4, 5, 6, 7]);
        check(&days(&[1, 2, 3, 4, 5, 6, 7]), &within(2), &[5, 6, 7]);
        check(&days(&[1, 2, 3, 404, 405, 406, 407]), &within(4), &[2, 3, 4, 5, 6, 7]);
        // Once enough time has passed since the jump, nothing depends on it any more.
        check(&days(&[1, 2, 3, 4, 5, 406, 407, 408, 409]), &within(2), &[7, 8, 9]);
        // One pause may be a jump, but not every one: users who take snapshots rarely do not keep them for ever.
        check(&days(&[1, 101, 201, 301, 401]), &within(30), &[4, 5]);
        check(&days(&[1, 2, 42, 43, 443, 444]), &within(60), &[1, 2, 3, 4, 5, 6]);
        let reasons = plan(&days(&[4, 5, 406]), &Rules { now: Some(NOW), ..within(2) }, &day_of);
        let reasons: Vec<&str> = reasons.iter().map(|decision| decision.reasons[0].as_str()).collect();
        assert_eq!(reasons, ["its age is not certain", "its age is not certain", "within"]);
    }

    #[test]
    fn what_lies_in_the_future_drops_nothing() {
        let some = [info(1, 1, "a", ""), info(2, 2, "a", ""), info(3, 20_000, "a", "")];
        check(&some, &last(1), &[2, 3]);
        let within = Rules { within: Some(Duration::from_secs(30 * 86_400)), ..Rules::default() };
        check(&some, &within, &[1, 2, 3]);
        // Even a clock that was never corrected does not drop everything at once.
        let some = [info(1, 1, "a", ""), info(2, 2, "a", ""), info(3, 2000, "a", "")];
        check(&some, &within, &[1, 2, 3]);
        // If the own clock is behind, everything newer stays.
        let decisions = plan(&some, &Rules { now: Some(Time::default()), ..last(1) }, &day_of);
        assert!(decisions.iter().all(Decision::keep));
    }

    /// A snapshot of a made-up history, in hours.
    #[derive(Debug, Clone)]
    struct Event {
        /// The first half of a machine's snapshots is by client 1, the second by client 2, which replaces it; others are by client 3.
        elsewhere: bool,
        gap: i64,
        given: Option<i64>,
    }

    /// The snapshots of these events, one of them dated by a wrong clock. Their ids are those of the events.
    fn history(events: &[Event], wrong: Option<(usize, i64)>) -> (Vec<SnapshotInfo>, Time) {
        let mut links: Vec<Link> = Vec::new();
        let mut numbers: BTreeMap<u8, u64> = BTreeMap::new();
        let mut write = |client: u8, name: u8, hour: i64, body: RecordBody| {
            let others = numbers.iter().filter(|(other, _)| **other != client);
            let seen = others.map(|(other, number)| (ClientId::new([*other; 16]), *number)).collect();
            let number = numbers.entry(client).or_default();
            *number += 1;
            let record = Record {
                client: ClientId::new([client; 16]),
                number: *number,
                previous: Digest::new([0; 32]),
                seen,
                time: Time { secs: hour * 3600, nanos: 0 },
                claims: Vec::new(),
                closed: Vec::new(),
                body,
            };
            links.push(Link { name: ObjectName::new([name; 16]), digest: Digest::new([0; 32]), record });
        };
        let (mut now, mut has_joined) = (0, false);
        for (at, event) in events.iter().enumerate() {
            now += event.gap;
            let client = if event.elsewhere { 3 } else { 1 + u8::from(at * 2 >= events.len()) };
            if client == 2 && !std::mem::replace(&mut has_joined, true) {
                let join = Join {
                    host: String::new(),
                    user: String::new(),
                    place: Vec::new(),
                    retires: vec![ClientId::new([1; 16])],
                    synced: false,
                    program: String::new(),
                };
                write(2, 200, now, RecordBody::Join(join));
            }
            let shown = wrong.filter(|(which, _)| *which == at).map_or(now, |(_, wrong)| wrong);
            let mut body = info(0, 0, "a", "").body;
            body.time = Time { secs: event.given.map_or(shown, |given| given.min(now)) * 3600, nanos: 0 };
            body.given = event.given.is_some();
            body.host = if event.elsewhere { "other" } else { "host" }.to_owned();
            write(client, at as u8, shown, RecordBody::Snapshot(Box::new(body)));
        }
        (list(&Chains::new(links)), Time { secs: now * 3600, nanos: 0 })
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = (any::<bool>(), 0..60_i64, proptest::option::weighted(0.2, 0..2000_i64));
        let event = event.prop_map(|(elsewhere, gap, given)| Event { elsewhere, gap, given });
        proptest::collection::vec(event, 2..40)
    }

    fn some_rules() -> impl Strategy<Value = Rules> {
        let periods = proptest::collection::btree_map(
            prop_oneof![Just(Period::Hour), Just(Period::Day), Just(Period::Week), Just(Period::Month)],
            0..8_u64,
            0..3,
        );
        (proptest::option::of(1..5_u64), periods, proptest::option::of(1..2000_u64)).prop_map(
            |(last, periods, hours)| {
                let within = hours.map(|hours| Duration::from_secs(hours * 3600));
                Rules { last, periods, within, ..Rules::default() }
            },
        )
    }

    proptest! {
        #[test]
        fn one_wrong_date_never_drops_another_snapshot(
            events in events(), rules in some_rules(), which in 0..40_usize, wrong in -500..20_000_i64,
        ) {
            let which = which % events.len();
            // A date between those of its neighbours contradicts nothing, so it cannot be recognised as wrong.
            let mut now = 0;
            let mut row = Vec::new();
            for (at, event) in events.iter().enumerate() {
                now += event.gap;
                if event.elsewhere == events[which].elsewhere {
                    row.push((at, now));
                }
            }
            let own = row.iter().position(|(at, _)| *at == which).unwrap();
            let after = own.checked_sub(1).map_or(i64::MIN, |at| row[at].1);
            let before = row.get(own + 1).map_or(now + AHEAD_MAX / 3600, |(_, hour)| *hour);
            prop_assume!(!(after..=before).contains(&wrong));
            let kept = |wrong| {
                let (snapshots, now) = history(&events, wrong);
                let kept = plan(&snapshots, &Rules { now: Some(now), ..rules.clone() }, &day_of).into_iter().filter(Decision::keep);
                kept.map(|decision| decision.id).collect::<BTreeSet<_>>()
            };
            let (right, found) = (kept(None), kept(Some((which, wrong))));
            let own = ObjectName::new([which as u8; 16]);
            let missing: Vec<_> = right.difference(&found).filter(|id| **id != own).collect();
            prop_assert!(missing.is_empty(), "{:?}", missing);
        }
    }
}
