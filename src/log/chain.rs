//! All clients' records put together (SPEC §8.2): which chain each belongs to, and what is missing, rolled back or forked.

use std::collections::BTreeMap;

use crate::id::{ClientId, Digest, ObjectName};
use crate::log::record::{FoundRecord, Record, RecordBody};

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
}

impl Chains {
    /// Puts records together.
    pub fn new(links: impl IntoIterator<Item = Link>) -> Self {
        let mut chains = Self::default();
        links.into_iter().for_each(|link| chains.push(link));
        chains
    }

    /// Adds one record, and those whose objects are lost but which it remembers.
    pub fn push(&mut self, link: Link) {
        let mut waiting = vec![link];
        while let Some(link) = waiting.pop() {
            if let RecordBody::Found(found) = &link.record.body {
                let record = |found: &FoundRecord| {
                    let record = Record::decode(&found.plain).ok()?;
                    Some(Link { name: found.name, digest: found.digest, record })
                };
                waiting.extend(found.iter().filter_map(record));
            }
            let same_number =
                self.clients.entry(link.record.client).or_default().entry(link.record.number).or_default();
            if same_number.iter().all(|other| other.name != link.name) {
                same_number.push(link);
                same_number.sort_by_key(|link| link.name);
            }
        }
    }

    /// Every record, by client and number.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.clients.values().flat_map(BTreeMap::values).flatten()
    }

    /// For each client, the highest number up to which all its records are there: what a new record acknowledges.
    pub fn seen(&self) -> Vec<(ClientId, u64)> {
        let complete = |records: &BTreeMap<u64, Vec<Link>>| {
            records.keys().zip(1..).take_while(|(number, want)| *number == want).count()
        };
        self.clients.iter().map(|(client, records)| (*client, complete(records) as u64)).collect()
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
        }
        let mut findings = Vec::new();
        for (client, seen) in remembered {
            let there =
                self.clients.get(client).and_then(|records| records.last_key_value()).map_or(0, |(number, _)| *number);
            if there < *seen {
                findings.push(Finding::RolledBack { client: *client, seen: *seen, there });
            }
        }
        let none = BTreeMap::new();
        for (client, highest) in highest {
            let records = self.clients.get(&client).unwrap_or(&none);
            // A hostile `seen` may name any number, so no more is listed than a person can use.
            let numbers: Vec<u64> = (1..=highest).filter(|number| !records.contains_key(number)).take(100).collect();
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
    fn a_record_acknowledges_only_what_is_complete() {
        let chains = Chains::new(vec![link(1, 1, 11, 0, &[]), link(1, 3, 13, 12, &[])]);
        assert_eq!(chains.seen(), [(ClientId::new([1; 16]), 1)]);
    }
}
