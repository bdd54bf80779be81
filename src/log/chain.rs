//! All clients' records put together (SPEC §8.2): which chain each belongs to, and what is missing, rolled back or forked.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, OnceLock};

use crate::id::{ClientId, Digest, ObjectName};
use crate::log::order::Order;
use crate::log::record::{Closed, Format, FoundRecord, Record, RecordBody};

/// Something about the log that the user should know. None of these ever stops a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Records are missing from a client's chain, though later ones, or other clients, prove that they existed.
    Missing {
        /// Whose.
        client: ClientId,
        /// The numbers that are missing.
        numbers: Vec<u64>,
    },
    /// Two records carry the same number: a cloned machine, or a restored disk image.
    Fork {
        /// Whose.
        client: ClientId,
        /// The number that was given twice.
        number: u64,
    },
    /// A record does not follow the one before it.
    Broken {
        /// Whose.
        client: ClientId,
        /// The number of the record whose `previous` is wrong.
        number: u64,
    },
    /// This machine remembers a record that the store does not have any more.
    RolledBack {
        /// Whose.
        client: ClientId,
        /// The highest number that was seen.
        seen: u64,
        /// The highest number that is there now.
        there: u64,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |client: &ClientId| client.to_string()[..8].to_owned();
        match self {
            Self::Missing { client, numbers } => {
                let shown: Vec<String> = numbers.iter().take(5).map(u64::to_string).collect();
                let more = if numbers.len() > 5 { ", …" } else { "" };
                write!(
                    f,
                    "log records of client {} are missing (number {}{more}): they were deleted, or have not arrived yet",
                    short(client),
                    shown.join(", ")
                )
            }
            Self::Fork { client, number } => write!(
                f,
                "client {} wrote record {number} twice: its machine was cloned or set back to an earlier state",
                short(client)
            ),
            Self::Broken { client, number } => {
                write!(f, "record {number} of client {} does not follow the one before it", short(client))
            }
            Self::RolledBack { client, seen, there } => write!(
                f,
                "the store was set back: of client {} record {seen} had been seen here, now the last is {there}",
                short(client)
            ),
        }
    }
}

/// What is kept of a record to judge the chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The record's object.
    pub name: ObjectName,
    /// BLAKE3 of the object.
    pub digest: Digest,
    /// The record.
    pub record: Record,
}

/// All records that could be read, by client and number.
#[derive(Debug, Clone, Default)]
pub struct Chains {
    /// The records of each client, by number; more than one for a number is a fork.
    pub clients: BTreeMap<ClientId, BTreeMap<u64, Vec<Link>>>,
    /// The names of all of them: a name is taken once.
    names: HashSet<ObjectName>,
    /// Records that are lost for good, and count as if they were there.
    given_up: BTreeMap<ClientId, BTreeSet<u64>>,
    /// The order and the dates of all of them, once they were asked for.
    order: OnceLock<Arc<Order>>,
}

impl Chains {
    /// Puts records together. Those that were read from objects of their own come first: a record that another one holds
    /// counts only where no object of that name was read (SPEC §8.4).
    pub fn new(links: impl IntoIterator<Item = Link>) -> Self {
        let mut chains = Self::default();
        let mut held = Vec::new();
        for link in links {
            held.extend(chains.place(link));
        }
        held.sort_unstable_by_key(|(holder, ..)| *holder);
        held.into_iter().for_each(|(_, found)| chains.hold(found));
        chains
    }

    /// Adds one record, and those that it holds.
    pub fn push(&mut self, link: Link) {
        for (_, found) in self.place(link) {
            self.hold(found);
        }
    }

    /// Adds one record. Returns those that it holds, with its own place, so that their order does not depend on how the
    /// store lists objects.
    fn place(&mut self, link: Link) -> Vec<((ClientId, u64, ObjectName), FoundRecord)> {
        let at = (link.record.client, link.record.number, link.name);
        if !self.names.insert(link.name) {
            return Vec::new();
        }
        self.order = OnceLock::new();
        let held = match &link.record.body {
            RecordBody::Found(found) => found.iter().map(|found| (at, found.clone())).collect(),
            RecordBody::Lost(records) => {
                for (client, number) in records {
                    self.given_up.entry(*client).or_default().insert(*number);
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        let same_number = self.clients.entry(link.record.client).or_default().entry(link.record.number).or_default();
        same_number.push(link);
        same_number.sort_by_key(|link| link.name);
        held
    }

    /// Adds a record that another one holds. If it holds records itself, they do not count: nothing is nested.
    fn hold(&mut self, found: FoundRecord) {
        if let Ok(record) = Record::decode(&found.plain) {
            self.place(Link { name: found.name, digest: found.digest, record });
        }
    }

    /// Whether the record of this name is there.
    pub fn has(&self, name: &ObjectName) -> bool {
        self.names.contains(name)
    }

    /// Whether a client may go on with its chain: it is not retired, and no two of its records have one number.
    pub fn may_go_on(&self, client: &ClientId) -> bool {
        let whole = |records: &BTreeMap<u64, Vec<Link>>| records.values().all(|same| same.len() == 1);
        self.clients.get(client).is_some_and(whole) && !self.retired().contains(client)
    }

    /// Whether a record of this client and number is there, or was given up.
    pub fn is_accounted(&self, client: &ClientId, number: u64) -> bool {
        self.clients.get(client).is_some_and(|records| records.contains_key(&number))
            || self.given_up.get(client).is_some_and(|numbers| numbers.contains(&number))
    }

    /// How many of a client's records are there, or were given up.
    pub fn accounted(&self, client: &ClientId) -> u64 {
        let records = self.clients.get(client);
        let is_there = |number: &u64| records.is_some_and(|records| records.contains_key(number));
        let given_up = self.given_up.get(client).into_iter().flatten().filter(|number| !is_there(number)).count();
        (records.map_or(0, BTreeMap::len) + given_up) as u64
    }

    /// The features that the records say this vault uses.
    pub fn format(&self) -> Format {
        let mut all = Format::default();
        for link in self.links() {
            if let RecordBody::Format(format) = &link.record.body {
                all.read |= format.read;
                all.write |= format.write;
                all.collect |= format.collect;
                all.synced |= format.synced;
            }
        }
        all
    }

    /// In which order the records were written, and when.
    pub fn order(&self) -> Arc<Order> {
        Arc::clone(self.order.get_or_init(|| Arc::new(Order::new(self))))
    }

    /// Every record, by client and number.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.clients.values().flat_map(BTreeMap::values).flatten()
    }

    /// For each client, the highest number up to which all its records are there or given up: what a new record
    /// acknowledges.
    pub fn seen(&self) -> Vec<(ClientId, u64)> {
        let none = BTreeSet::new();
        let complete = |client: &ClientId, records: &BTreeMap<u64, Vec<Link>>| {
            let given_up = self.given_up.get(client).unwrap_or(&none);
            (1..=u64::MAX).take_while(|number| records.contains_key(number) || given_up.contains(number)).count() as u64
        };
        self.clients.iter().map(|(client, records)| (*client, complete(client, records))).collect()
    }

    /// The last record of a client.
    pub fn last(&self, client: &ClientId) -> Option<&Link> {
        self.clients.get(client)?.last_key_value()?.1.first()
    }

    /// What a client said when it joined.
    pub fn join(&self, client: &ClientId) -> Option<&crate::log::record::Join> {
        self.clients.get(client)?.values().flatten().find_map(|link| match &link.record.body {
            RecordBody::Join(join) => Some(join),
            _ => None,
        })
    }

    /// Clients that were retired, by a record of their own or by a client that took their place.
    pub fn retired(&self) -> std::collections::BTreeSet<ClientId> {
        self.links()
            .flat_map(|link| match &link.record.body {
                RecordBody::Join(join) => join.retires.as_slice(),
                RecordBody::Retire(clients) => clients.as_slice(),
                _ => &[],
            })
            .copied()
            .collect()
    }

    /// Every pack that a record condemns, whether it is still there or not.
    pub fn condemned(&self) -> Vec<ObjectName> {
        let packs = self.links().filter_map(|link| match &link.record.body {
            RecordBody::Condemn(packs) => Some(packs),
            _ => None,
        });
        packs.flatten().map(|pack| pack.name).collect()
    }

    /// What is wrong with the chains, given the highest number of each client that was ever seen on this machine.
    pub fn findings(&self, remembered: &BTreeMap<ClientId, u64>) -> Vec<Finding> {
        let mut highest: BTreeMap<ClientId, u64> = BTreeMap::new();
        let mut raise = |client: ClientId, number: u64| {
            let known = highest.entry(client).or_default();
            *known = number.max(*known);
        };
        for link in self.links() {
            raise(link.record.client, link.record.number);
            link.record.seen.iter().for_each(|(client, number)| raise(*client, *number));
            link.record.closed.iter().for_each(|Closed(client, number, _)| raise(*client, *number));
        }
        let mut findings = Vec::new();
        for (client, seen) in remembered {
            let last = self.clients.get(client).and_then(|records| records.last_key_value());
            let given_up = self.given_up.get(client).and_then(BTreeSet::last).copied().unwrap_or(0);
            let there = last.map_or(0, |(number, _)| *number).max(given_up);
            if there < *seen {
                findings.push(Finding::RolledBack { client: *client, seen: *seen, there });
            }
        }
        let none = BTreeMap::new();
        for (client, highest) in highest {
            let records = self.clients.get(&client).unwrap_or(&none);
            // A hostile `seen` may name any number, so no more is listed than a person can use.
            let numbers: Vec<u64> =
                (1..=highest).filter(|number| !self.is_accounted(&client, *number)).take(100).collect();
            if !numbers.is_empty() {
                findings.push(Finding::Missing { client, numbers });
            }
            for (number, same) in records {
                if same.len() > 1 {
                    findings.push(Finding::Fork { client, number: *number });
                }
                let follows = |link: &Link| match number.checked_sub(1).filter(|before| *before > 0) {
                    None => link.record.previous == Digest::new([0; 32]),
                    Some(before) => records
                        .get(&before)
                        .is_none_or(|candidates| candidates.iter().any(|other| other.digest == link.record.previous)),
                };
                if !same.iter().all(follows) {
                    findings.push(Finding::Broken { client, number: *number });
                }
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Time;

    fn link(client: u8, number: u64, name: u8, previous: u8, seen: &[(u8, u64)]) -> Link {
        let record = Record {
            client: ClientId::new([client; 16]),
            number,
            previous: Digest::new([previous; 32]),
            seen: seen.iter().map(|(client, number)| (ClientId::new([*client; 16]), *number)).collect(),
            time: Time::default(),
            claims: Vec::new(),
            closed: Vec::new(),
            body: RecordBody::Forget(vec![]),
        };
        Link { name: ObjectName::new([name; 16]), digest: Digest::new([name; 32]), record }
    }

    fn check(links: Vec<Link>, remembered: &[(u8, u64)], expected: &[Finding]) {
        let remembered = remembered.iter().map(|(client, number)| (ClientId::new([*client; 16]), *number)).collect();
        assert_eq!(Chains::new(links).findings(&remembered), expected);
    }

    #[test]
    fn a_whole_chain_has_no_findings() {
        check(
            vec![link(1, 1, 11, 0, &[]), link(1, 2, 12, 11, &[(2, 1)]), link(2, 1, 21, 0, &[(1, 1)])],
            &[(1, 2)],
            &[],
        );
    }

    #[test]
    fn gaps_forks_and_rollbacks_are_found() {
        let client = ClientId::new([1; 16]);
        check(
            vec![link(1, 1, 11, 0, &[]), link(1, 3, 13, 12, &[])],
            &[],
            &[Finding::Missing { client, numbers: vec![2] }],
        );
        check(
            vec![link(2, 1, 21, 0, &[(1, 2)]), link(1, 1, 11, 0, &[])],
            &[],
            &[Finding::Missing { client, numbers: vec![2] }],
        );
        check(
            vec![link(1, 1, 11, 0, &[]), link(1, 2, 12, 11, &[]), link(1, 2, 13, 11, &[])],
            &[],
            &[Finding::Fork { client, number: 2 }],
        );
        check(vec![link(1, 1, 11, 0, &[]), link(1, 2, 12, 99, &[])], &[], &[Finding::Broken { client, number: 2 }]);
        check(vec![link(1, 1, 11, 0, &[])], &[(1, 4)], &[Finding::RolledBack { client, seen: 4, there: 1 }]);
    }

    #[test]
    fn a_record_that_another_one_remembers_closes_the_gap() {
        let lost = link(1, 1, 11, 0, &[]);
        let found = FoundRecord { name: lost.name, digest: lost.digest, plain: lost.record.encode().unwrap() };
        let mut last = link(1, 2, 12, 11, &[]);
        last.record.body = RecordBody::Found(vec![found]);
        let chains = Chains::new(vec![last]);
        assert_eq!(chains.findings(&BTreeMap::new()), []);
        assert_eq!(chains.links().count(), 2);
        assert_eq!(chains.clients[&ClientId::new([1; 16])][&1], [lost]);
    }

    #[test]
    fn a_record_that_was_read_comes_before_one_that_is_held() {
        let own = link(1, 1, 11, 0, &[]);
        let mut other = own.clone();
        other.record.time.secs = 7;
        let found =
            |link: &Link| FoundRecord { name: link.name, digest: link.digest, plain: link.record.encode().unwrap() };
        let mut holder = link(2, 1, 21, 0, &[]);
        holder.record.body = RecordBody::Found(vec![found(&other)]);
        for links in [[own.clone(), holder.clone()], [holder.clone(), own.clone()]] {
            assert_eq!(Chains::new(links).clients[&own.record.client][&1], std::slice::from_ref(&own));
        }
        // Under another client or number it is the same object all the same.
        other.record.client = ClientId::new([9; 16]);
        holder.record.body = RecordBody::Found(vec![found(&other)]);
        assert_eq!(Chains::new([holder, own]).links().count(), 2);
    }

    #[test]
    fn nothing_is_nested() {
        let innermost = link(1, 1, 11, 0, &[]);
        let found =
            |link: &Link| FoundRecord { name: link.name, digest: link.digest, plain: link.record.encode().unwrap() };
        let mut inner = link(1, 2, 12, 11, &[]);
        inner.record.body = RecordBody::Found(vec![found(&innermost)]);
        let mut outer = link(1, 3, 13, 12, &[]);
        outer.record.body = RecordBody::Found(vec![found(&inner)]);
        let client = ClientId::new([1; 16]);
        assert_eq!(Chains::new([outer]).findings(&BTreeMap::new()), [Finding::Missing { client, numbers: vec![1] }]);
    }

    #[test]
    fn records_that_were_given_up_count_as_there() {
        let client = ClientId::new([1; 16]);
        let mut last = link(2, 1, 21, 0, &[(1, 4)]);
        last.record.body = RecordBody::Lost(vec![(client, 2), (client, 4)]);
        let chains = Chains::new([link(1, 1, 11, 0, &[]), link(1, 3, 13, 12, &[]), last]);
        assert_eq!(chains.findings(&[(client, 4)].into()), []);
        assert_eq!(chains.seen()[0], (client, 4));
        assert_eq!(chains.accounted(&client), 4);
    }

    #[test]
    fn features_add_up() {
        let format = |number, body| {
            let mut link = link(1, number, number as u8, 0, &[]);
            link.record.body = RecordBody::Format(body);
            link
        };
        let chains = Chains::new([
            format(1, Format { read: 1, write: 2, ..Format::default() }),
            format(2, Format { read: 4, collect: 8, synced: true, ..Format::default() }),
        ]);
        assert_eq!(chains.format(), Format { read: 5, write: 2, collect: 8, synced: true });
    }

    #[test]
    fn a_record_acknowledges_only_what_is_complete() {
        let chains = Chains::new(vec![link(1, 1, 11, 0, &[]), link(1, 3, 13, 12, &[])]);
        assert_eq!(chains.seen(), [(ClientId::new([1; 16]), 1)]);
    }
}
