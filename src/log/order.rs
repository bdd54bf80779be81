//! The order of records, and their effective dates (SPEC §8.3): a pure function of the log.
//!
//! Clocks are sometimes wrong, so a clock's date is believed only as far as it does not contradict *cause*: a client's
//! own records follow each other, and a record comes after every record that its writer had seen. The records of one
//! *place* (a client, and the clients whose place it took when it joined) form one row, in the order of cause. Their
//! dates should rise. Where they do not, the longest rising row among them is believed; every other date is an
//! *outlier*, and is moved between its neighbours. So a date that is wrong once moves nothing but itself.
//!
//! Between places nothing is moved: neither of two machines can know which of them has the wrong time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

use crate::id::{ClientId, ObjectName};
use crate::log::past::{Past, PastRecord};
use crate::log::record::{Link, RecordBody};
use crate::tree::Time;

/// Position and date of a record, as far as they can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    /// Position in the order of cause, among all records that are needed.
    pub position: usize,
    /// Depth in that order.
    pub depth: u64,
    /// Effective date: never before that of a record before it in the same place.
    pub time: Time,
    /// Whether the clock's date contradicts the others of its place, so that the effective date is a different one.
    pub is_outlier: bool,
    /// The date of an outlier that could as well be right, with this date being the wrong one.
    pub rival: Option<Time>,
    /// Number of the place that the record belongs to.
    pub place: usize,
}

/// Effective date of every record that is needed. Depths and dates of past records, which merges keep only as entries,
/// still count among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    records: HashMap<ObjectName, Dated>,
    /// Whether records claim to have seen each other.
    contradicts: bool,
}

/// The records of all clients.
#[derive(Clone, Copy)]
pub(super) struct Records<'c> {
    /// Needed records of each client, by number.
    pub(super) clients: &'c BTreeMap<ClientId, BTreeMap<u64, Vec<Link>>>,
    /// Past records of each client, by number and name.
    pub(super) past: &'c BTreeMap<ClientId, Past>,
}

impl<'c> Records<'c> {
    fn links(self) -> impl Iterator<Item = &'c Link> {
        self.clients.values().flat_map(BTreeMap::values).flatten()
    }

    fn past_of(self, client: &ClientId) -> &'c [PastRecord] {
        self.past.get(client).map_or(&[], |past| &past.records)
    }
}

/// A record in the row of a place.
struct Row<'c> {
    /// Sort key in a row that has past records: depth, number of the client, number of the record.
    at: (u64, usize, u64),
    time: Time,
    /// Position and record, if the record is needed.
    link: Option<(usize, &'c Link)>,
}

impl Order {
    /// Computes the order and the dates of all records.
    pub(super) fn new(records: Records<'_>) -> Self {
        let (rows, contradicts) = by_cause(records);
        let places = places(records);
        let place_of = |client: &ClientId| places.get(client).copied().unwrap_or_default();
        let mut of_place: BTreeMap<usize, Vec<Row<'_>>> = BTreeMap::new();
        for (position, (link, depth, client)) in rows.into_iter().enumerate() {
            let row =
                Row { at: (depth, client, link.record.number), time: link.record.time, link: Some((position, link)) };
            of_place.entry(place_of(&link.record.client)).or_default().push(row);
        }
        let mut mixed = BTreeSet::new();
        for (number, client) in records.clients.keys().enumerate() {
            let past = records.past_of(client);
            if past.is_empty() {
                continue;
            }
            let row =
                |record: &PastRecord| Row { at: (record.depth, number, record.number), time: record.time, link: None };
            of_place.entry(place_of(client)).or_default().extend(past.iter().map(row));
            mixed.insert(place_of(client));
        }
        let mut dated = HashMap::new();
        for (place, mut rows) in of_place {
            if mixed.contains(&place) {
                // This is the order of cause, unless records claim to have seen each other; merges hold such records
                // whole.
                rows.sort_by_key(|row| row.at);
            }
            let times: Vec<Time> = rows.iter().map(|row| row.time).collect();
            for (row, (time, is_outlier, rival)) in rows.iter().zip(effective(&times)) {
                let Some((position, link)) = row.link else { continue };
                let depth = row.at.0;
                dated.insert(link.name, Dated { position, depth, time, is_outlier, rival, place });
            }
        }
        Self { records: dated, contradicts }
    }

    /// Whether records claim to have seen each other, which cannot be true.
    pub const fn contradicts(&self) -> bool {
        self.contradicts
    }

    /// Position and date of a record.
    pub fn get(&self, record: &ObjectName) -> Option<&Dated> {
        self.records.get(record)
    }
}

/// The number that stands for the place of a client.
fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

/// The place of each client: clients that took each other's place when they joined have the same number.
fn places(records: Records<'_>) -> HashMap<ClientId, usize> {
    let mut numbers: HashMap<ClientId, usize> = HashMap::new();
    let mut parents: Vec<usize> = Vec::new();
    for client in records.clients.keys() {
        numbers.insert(*client, parents.len());
        parents.push(parents.len());
    }
    for link in records.links() {
        let RecordBody::Join(join) = &link.record.body else { continue };
        for earlier in &join.retires {
            if let (Some(a), Some(b)) = (numbers.get(&link.record.client), numbers.get(earlier)) {
                let (a, b) = (root(&mut parents, *a), root(&mut parents, *b));
                parents[a.max(b)] = a.min(b);
            }
        }
    }
    numbers.into_iter().map(|(client, number)| (client, root(&mut parents, number))).collect()
}

/// Records of one client, and how many of them are in order so far.
struct Chain<'a> {
    /// Records by number; a fork has several.
    records: Vec<(u64, &'a [Link])>,
    /// Number of records that are in order.
    done: usize,
    /// For each of those, the length of the longest chain of records that must come before it.
    depths: Vec<u64>,
    /// Past records, which still have their places.
    past: &'a [PastRecord],
    /// Chains whose next record has seen the record of this number in this chain.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Chain<'_> {
    /// Whether all records up to this number, as far as they are here, are in order.
    fn has_passed(&self, number: u64) -> bool {
        self.records.get(self.done).is_none_or(|(next, _)| *next > number)
    }

    /// The depth of the last record up to this number.
    fn depth(&self, number: u64) -> u64 {
        let upto = self.records[..self.done].partition_point(|(other, _)| *other <= number);
        let past = self.past.partition_point(|record| record.number <= number);
        let depth = upto.checked_sub(1).map_or(0, |at| self.depths[at]);
        past.checked_sub(1).map_or(depth, |at| depth.max(self.past[at].depth))
    }

    /// The depth of the record before the next one.
    fn depth_before(&self) -> u64 {
        self.records.get(self.done).map_or(0, |(number, _)| self.depth(number - 1))
    }
}

/// Orders all records so that each comes after the earlier records of its client, and after those that its writer had
/// seen. Dates play no part in it. Among records that could come next, the one with the smallest depth is first; among
/// equals, that of the lowest client. Records that claim to have seen each other cannot be true; then the lowest
/// client's comes first. Returns each record with its depth and the number of its client, and whether there are such
/// contradictions.
fn by_cause(records: Records<'_>) -> (Vec<(&Link, u64, usize)>, bool) {
    let numbers: HashMap<&ClientId, usize> = records.clients.keys().zip(0..).collect();
    let mut all: Vec<Chain<'_>> = records
        .clients
        .iter()
        .map(|(client, needed)| Chain {
            records: needed.iter().map(|(number, links)| (*number, links.as_slice())).collect(),
            done: 0,
            depths: Vec::new(),
            past: records.past_of(client),
            waiting: BinaryHeap::new(),
        })
        .collect();
    let named = named(records, &numbers);
    let (mut order, mut contradicts) = (Vec::new(), false);
    let mut ready: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut blocked: BTreeSet<usize> = BTreeSet::new();
    let mut look: Vec<usize> = (0..all.len()).collect();
    loop {
        while let Some(at) = look.pop() {
            match next_depth(&all, at, &numbers, &named) {
                None => {}
                Some(Ok(depth)) => {
                    blocked.remove(&at);
                    ready.push(Reverse((depth, at)));
                }
                Some(Err((other, number))) => {
                    blocked.insert(at);
                    all[other].waiting.push(Reverse((number, at)));
                }
            }
        }
        let (depth, at) = match (ready.pop(), blocked.first()) {
            (Some(Reverse(next)), _) => next,
            (None, Some(first)) => {
                contradicts = true;
                (all[*first].depth_before().saturating_add(1), *first)
            }
            (None, None) => return (order, contradicts),
        };
        blocked.remove(&at);
        let chain = &mut all[at];
        order.extend(chain.records[chain.done].1.iter().map(|link| (link, depth, at)));
        chain.done += 1;
        chain.depths.push(depth);
        look.push(at);
        while let Some(Reverse((number, other))) = chain.waiting.peek().copied() {
            if !chain.has_passed(number) {
                break;
            }
            chain.waiting.pop();
            if blocked.contains(&other) && !look.contains(&other) {
                look.push(other);
            }
        }
    }
}

/// Snapshots that others name in `replaces`: each with its client, as an index, and its number.
fn named(records: Records<'_>, numbers: &HashMap<&ClientId, usize>) -> HashMap<ObjectName, (usize, u64)> {
    let names: HashSet<ObjectName> = records.links().flat_map(|link| link.record.replaces()).copied().collect();
    if names.is_empty() {
        return HashMap::new();
    }
    let place = |link: &Link| Some((link.name, (*numbers.get(&link.record.client)?, link.record.number)));
    records.links().filter(|link| names.contains(&link.name)).filter_map(place).collect()
}

/// The depth of a chain's next record, or the chain and the number that it has to wait for; `None` at the chain's
/// end. A record acknowledges no more than all work of its client had seen, but the writer of a snapshot that
/// replaces another has seen that one.
fn next_depth(
    all: &[Chain<'_>],
    at: usize,
    numbers: &HashMap<&ClientId, usize>,
    named: &HashMap<ObjectName, (usize, u64)>,
) -> Option<Result<u64, (usize, u64)>> {
    let chain = &all[at];
    let (_, links) = chain.records.get(chain.done)?;
    let mut depth = chain.depth_before();
    let seen = |(client, number): &(ClientId, u64)| Some((*numbers.get(client)?, *number));
    let seen = links.iter().flat_map(|link| &link.record.seen).filter_map(seen);
    let named = links.iter().flat_map(|link| link.record.replaces()).filter_map(|name| named.get(name).copied());
    for (other, number) in seen.chain(named).filter(|(other, _)| *other != at) {
        if !all[other].has_passed(number) {
            return Some(Err((other, number)));
        }
        depth = depth.max(all[other].depth(number));
    }
    Some(Ok(depth.saturating_add(1)))
}

/// Effective date of each record of a row, whether it is an outlier, and its rival.
fn effective(times: &[Time]) -> Vec<(Time, bool, Option<Time>)> {
    let believed = longest_rising(times);
    let mut is_believed = vec![false; times.len()];
    believed.iter().for_each(|at| is_believed[*at] = true);
    let mut found = Vec::with_capacity(times.len());
    let mut rivals: HashMap<usize, Time> = HashMap::new();
    // Number of believed dates so far.
    let mut passed = 0;
    let mut last: Option<Time> = None;
    for (at, time) in times.iter().enumerate() {
        if is_believed[at] {
            passed += 1;
            last = Some(*time);
            found.push((*time, false, None));
            continue;
        }
        let next = believed.get(passed).map(|at| times[*at]);
        let clamped = last.map_or(*time, |last| last.max(*time));
        let clamped = next.map_or(clamped, |next| next.min(clamped));
        last = Some(clamped);
        found.push((clamped, true, None));
        // With this date in place of the next believed one the row would be just as long.
        let fits = believed.get(passed + 1).is_none_or(|at| *time <= times[*at]);
        if let Some(rival) = believed.get(passed).filter(|_| fits) {
            let known = rivals.entry(*rival).or_insert(*time);
            *known = (*known).max(*time);
        }
    }
    for (at, time) in rivals {
        found[at].2 = Some(time);
    }
    found
}

/// Positions of the longest row of dates in which none is before its predecessor. If there are several, the row is
/// built from its end: among the positions at which a longest row can end, the one with the earliest date; before it,
/// among the positions at which a row one shorter can end and be followed by the found one, again the one with the
/// earliest date; and so on.
fn longest_rising(times: &[Time]) -> Vec<usize> {
    // For each length, the end of a row of that length that has the earliest date so far.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(times.len());
    for (at, time) in times.iter().enumerate() {
        let length = ends.partition_point(|end| times[*end] <= *time);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut row = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(position) = at {
        row.push(position);
        at = before[position];
    }
    row.reverse();
    row
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "names are made so that they sort by number")]
    use proptest::prelude::*;

    use super::*;
    use crate::id::Digest;
    use crate::log::Chains;
    use crate::log::past::Gathered;
    use crate::log::record::{Held, Join, Record};

    const fn at(secs: i64) -> Time {
        Time { secs, nanos: 0 }
    }

    fn client(number: u8) -> ClientId {
        ClientId::new([number; 16])
    }

    fn name(client: u8, number: u64) -> ObjectName {
        let mut name = [client; 16];
        name[8..].copy_from_slice(&number.to_be_bytes());
        ObjectName::new(name)
    }

    fn link(of: u8, number: u64, secs: i64, seen: &[(u8, u64)], retires: &[u8]) -> Link {
        let body = if retires.is_empty() {
            RecordBody::Forget(vec![])
        } else {
            RecordBody::Join(Join {
                host: String::new(),
                user: String::new(),
                place: vec![],
                retires: retires.iter().map(|other| client(*other)).collect(),
                synced: false,
                program: String::new(),
            })
        };
        let record = Record {
            client: client(of),
            number,
            previous: Digest::new([0; 32]),
            seen: seen.iter().map(|(of, number)| (client(*of), *number)).collect(),
            time: at(secs),
            claims: Vec::new(),
            closed: Vec::new(),
            body,
        };
        Link { name: name(of, number), digest: Digest::new([of; 32]), record }
    }

    /// Client, number, effective date, and whether it is an outlier.
    fn dates(links: Vec<Link>) -> Vec<(u8, u64, i64, bool)> {
        let chains = Chains::new(links);
        let order = chains.order();
        let mut found: Vec<_> = chains
            .links()
            .map(|link| {
                let dated = order.get(&link.name).unwrap();
                (
                    dated.position,
                    (link.record.client.as_bytes()[0], link.record.number, dated.time.secs, dated.is_outlier),
                )
            })
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, found)| found).collect()
    }

    fn check(times: &[i64], expected: &[i64]) {
        let times: Vec<Time> = times.iter().map(|secs| at(*secs)).collect();
        let found: Vec<i64> = effective(&times).iter().map(|(time, ..)| time.secs).collect();
        assert_eq!(found, expected, "{times:?}");
    }

    #[test]
    fn a_wrong_date_moves_between_its_neighbours_and_moves_no_other() {
        check(&[], &[]);
        check(&[1, 2, 3], &[1, 2, 3]);
        check(&[1, 2, 99, 3, 4], &[1, 2, 3, 3, 4]);
        check(&[5, 6, 1, 7], &[5, 6, 6, 7]);
        check(&[5, 6, 1], &[5, 6, 6]);
        check(&[1, 2, 99], &[1, 2, 99]);
        check(&[5, 6, 99, 0, 7], &[5, 6, 7, 7, 7]);
        check(&[2, 2, 2, 1], &[2, 2, 2, 2]);
        // Two rows are equally long: the one that ends earlier is believed.
        check(&[99, 3], &[3, 3]);
        check(&[99, 99, 3, 4], &[3, 3, 3, 4]);
    }

    #[test]
    fn what_a_clock_shows_once_does_not_last() {
        let times: Vec<Time> = [1, 2, 99, 3, 4].map(at).to_vec();
        let found = effective(&times);
        assert_eq!(
            found.iter().map(|(_, outlier, _)| *outlier).collect::<Vec<_>>(),
            [false, false, true, false, false]
        );
        assert!(found.iter().all(|(.., rival)| rival.is_none()));
        // Which of the two is wrong is unknown.
        let found = effective(&[1, 5, 3, 7].map(at));
        assert_eq!(found[2], (at(3), false, Some(at(5))));
        assert_eq!(found[1], (at(3), true, None));
    }

    #[test]
    fn clients_of_one_place_stand_in_one_row() {
        // Client 2 has taken the place of client 1, whose clock was wrong at the end.
        let links = vec![
            link(1, 1, 10, &[], &[]),
            link(1, 2, 999, &[], &[]),
            link(2, 1, 11, &[(1, 2)], &[1]),
            link(2, 2, 12, &[(1, 2)], &[]),
        ];
        assert_eq!(dates(links), [(1, 1, 10, false), (1, 2, 11, true), (2, 1, 11, false), (2, 2, 12, false)]);
        // Others have a row of their own: nothing is moved, no matter which records they have seen.
        let links = vec![link(1, 1, 999, &[], &[]), link(2, 1, 11, &[(1, 1)], &[])];
        assert_eq!(dates(links), [(1, 1, 999, false), (2, 1, 11, false)]);
    }

    #[test]
    fn what_was_seen_comes_first_and_what_contradicts_itself_ends() {
        let links = vec![link(1, 1, 5, &[(2, 2)], &[]), link(2, 1, 9, &[], &[]), link(2, 2, 9, &[], &[])];
        assert_eq!(dates(links).iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), [(2, 1), (2, 2), (1, 1)]);
        let links = vec![link(1, 1, 5, &[(2, 1)], &[]), link(2, 1, 9, &[(1, 1)], &[]), link(2, 2, 9, &[(9, 7)], &[])];
        assert_eq!(dates(links).iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), [(1, 1), (2, 1), (2, 2)]);
    }

    #[test]
    fn forty_thousand_records_are_ordered() {
        // Ten clients take turns; each has seen all others.
        let mut links = Vec::new();
        for number in 1..=4_000_u64 {
            for of in 1..=10_u8 {
                let seen: Vec<(u8, u64)> =
                    (1..=10).map(|other| (other, if other < of { number } else { number - 1 })).collect();
                links.push(link(of, number, number.cast_signed() * 10 + i64::from(of), &seen, &[]));
            }
        }
        let chains = Chains::new(links);
        let order = chains.order();
        assert_eq!(order.get(&name(10, 4_000)).unwrap().position, 39_999);
    }

    proptest! {
        #[test]
        fn dates_and_order_do_not_change_when_records_are_needed_no_more(
            what in proptest::collection::vec((1..4_u8, 0..60_i64, any::<[bool; 3]>(), 0..9_u8), 0..60),
        ) {
            let mut links: Vec<Link> = Vec::new();
            let mut numbers = [0_u64; 4];
            for (of, secs, sees, luck) in &what {
                let seen: Vec<(u8, u64)> = (1..4_u8)
                    .filter(|other| other != of && sees[usize::from(*other) - 1] && numbers[usize::from(*other)] > 0)
                    .map(|other| (other, numbers[usize::from(other)]))
                    .collect();
                numbers[usize::from(*of)] += 1;
                let number = numbers[usize::from(*of)];
                // The second client takes the place of the first.
                let retires: &[u8] = if *of == 2 && number == 1 { &[1] } else { &[] };
                // Clocks are right most of the time.
                let secs = if *luck > 0 { i64::try_from(links.len()).unwrap() } else { *secs };
                links.push(link(*of, number, secs, &seen, retires));
            }
            let whole = Chains::new(links.clone());
            let before = whole.order();
            prop_assert!(!before.contradicts());
            let is_past = |at: usize| what[at].1 % 3 > 0 && !matches!(links[at].record.body, RecordBody::Join(_));
            let mut gathered = Gathered::default();
            for link in (0..links.len()).filter(|at| is_past(*at)).map(|at| &links[at]) {
                let Record { client, number, time, .. } = &link.record;
                let depth = before.get(&link.name).unwrap().depth;
                gathered.insert(*client, PastRecord { number: *number, name: link.name, time: *time, depth }, &[]);
            }
            let mut holder = link(9, 1, 0, &[], &[]);
            holder.record.body = RecordBody::Found(Held { records: Vec::new(), past: gathered.into_lists() });
            let left = (0..links.len()).filter(|at| !is_past(*at)).map(|at| links[at].clone());
            let folded = Chains::new(left.chain([holder.clone()]));
            let after = folded.order();
            let mut rows = Vec::new();
            for link in folded.links().filter(|link| link.name != holder.name) {
                let (was, is) = (before.get(&link.name).unwrap(), after.get(&link.name).unwrap());
                prop_assert_eq!(
                    (was.depth, was.time, was.is_outlier, was.rival, was.place),
                    (is.depth, is.time, is.is_outlier, is.rival, is.place)
                );
                rows.push((was.position, is.position));
            }
            rows.sort_unstable();
            prop_assert!(rows.windows(2).all(|pair| pair[0].1 < pair[1].1));
            prop_assert_eq!(whole.seen(), folded.seen().into_iter().filter(|(of, _)| *of != client(9)).collect::<Vec<_>>());
        }

        #[test]
        fn the_row_is_as_long_as_the_longest_and_dates_rise(times in proptest::collection::vec(0..20_i64, 0..40)) {
            let times: Vec<Time> = times.into_iter().map(at).collect();
            // The simple algorithm, quadratic in the length.
            let mut lengths = vec![1_usize; times.len()];
            for end in 0..times.len() {
                for before in 0..end {
                    if times[before] <= times[end] {
                        lengths[end] = lengths[end].max(lengths[before] + 1);
                    }
                }
            }
            let row = longest_rising(&times);
            prop_assert_eq!(row.len(), lengths.iter().max().copied().unwrap_or(0));
            prop_assert!(row.windows(2).all(|pair| pair[0] < pair[1] && times[pair[0]] <= times[pair[1]]));
            let found = effective(&times);
            prop_assert!(found.windows(2).all(|pair| pair[0].0 <= pair[1].0));
            for at in row {
                prop_assert_eq!(found[at].0, times[at]);
            }
        }

        #[test]
        fn one_wrong_date_moves_at_most_the_one_next_to_it(
            gaps in proptest::collection::vec(0..5_i64, 1..30), which in 0..30_usize, wrong in -10..200_i64,
        ) {
            let mut now = 0;
            let right: Vec<Time> = gaps.iter().map(|gap| { now += gap; at(now) }).collect();
            let which = which % right.len();
            let mut times = right.clone();
            times[which] = at(wrong);
            let found = effective(&times);
            let moved: Vec<usize> = (0..right.len()).filter(|at| *at != which && found[*at].0 != right[*at]).collect();
            prop_assert!(moved.is_empty() || moved == [which.wrapping_sub(1)], "{:?}", moved);
            if let [moved] = moved[..] {
                // Then it is unknown which of the two is wrong, and the result says so.
                prop_assert!(found[moved].1 && found[which].2.is_some());
            }
        }
    }
}
