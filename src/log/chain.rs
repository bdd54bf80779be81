//! The log as chains: which chain each record belongs to, and which records are missing, rolled back or forked (SPEC
//! §8.2).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use crate::id::{ClientId, Digest, ObjectName};
use crate::log::numbers::Numbers;
use crate::log::order::{Order, Records};
use crate::log::past::{Closed, Past, PastRecord};
use crate::log::record::{DecodeRecordError, Format, FoundRecord, Held, Link, Record, RecordBody};

/// A problem in the log that the user should know about. None of these ever stops a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Records are missing from a client's chain: later records, or other clients, prove that they existed.
    Missing {
        /// The client.
        client: ClientId,
        /// Numbers of the missing records.
        numbers: Vec<u64>,
    },
    /// Two records have the same number: a cloned machine, or a restored disk image.
    Fork {
        /// The client.
        client: ClientId,
        /// The number that two records have.
        number: u64,
    },
    /// A record does not follow the one before it.
    Broken {
        /// The client.
        client: ClientId,
        /// The number of the record whose `previous` is wrong.
        number: u64,
    },
    /// This machine remembers a record that the store no longer has.
    RolledBack {
        /// The client.
        client: ClientId,
        /// The highest number ever seen here.
        seen: u64,
        /// The highest number in the store now.
        there: u64,
    },
    /// Records of a client may be among objects of a later version that this version cannot read at all.
    Hidden {
        /// The client.
        client: ClientId,
        /// Their numbers.
        numbers: Vec<u64>,
    },
}

impl Finding {
    /// The client and the numbers of its records that this finding calls missing (the first ones, if there are many).
    /// Empty for records that may be newer: the objects that may hold them are reported one by one.
    pub fn missing(&self) -> Option<(ClientId, Vec<u64>)> {
        match self {
            Self::Missing { client, numbers } => Some((*client, numbers.clone())),
            Self::RolledBack { client, seen, there } => {
                Some((*client, (there + 1..=*seen).take(NUMBERS_KEPT).collect()))
            }
            Self::Hidden { .. } | Self::Fork { .. } | Self::Broken { .. } => None,
        }
    }

    /// Turns missing records into hidden ones if they may all be among `count` objects of a later version that cannot
    /// be read. If more records than that are missing, all findings stay as they are. Records that this machine has
    /// seen before stay missing in any case.
    pub fn hidden(findings: Vec<Self>, count: usize) -> Vec<Self> {
        let seen = |finding: &Self| match finding {
            Self::RolledBack { client, seen, .. } => Some((*client, *seen)),
            _ => None,
        };
        let seen: BTreeMap<ClientId, u64> = findings.iter().filter_map(seen).collect();
        let may_be_newer = |finding: &Self| match finding {
            Self::Missing { client, numbers } => {
                seen.get(client).is_none_or(|seen| numbers.iter().all(|number| number > seen))
            }
            _ => false,
        };
        let missing = findings.iter().filter(|finding| may_be_newer(finding)).filter_map(Self::missing);
        if missing.map(|(_, numbers)| numbers.len()).sum::<usize>() > count {
            return findings;
        }
        let hide = |finding: Self| match (may_be_newer(&finding), finding) {
            (true, Self::Missing { client, numbers }) => Self::Hidden { client, numbers },
            (_, finding) => finding,
        };
        findings.into_iter().map(hide).collect()
    }
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
                    "records of client {} are missing (number {}{more}): they were deleted, or have not arrived yet",
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
            Self::Hidden { client, numbers } => {
                let shown: Vec<String> = numbers.iter().take(5).map(u64::to_string).collect();
                let more = if numbers.len() > 5 { ", …" } else { "" };
                write!(
                    f,
                    "records of client {} may be among those that a newer vault wrote (number {}{more})",
                    short(client),
                    shown.join(", ")
                )
            }
            Self::RolledBack { client, seen, there } => write!(
                f,
                "the store was set back: of client {} record {seen} had been seen here, now the last is {there}",
                short(client)
            ),
        }
    }
}

/// Most numbers of missing records that a finding names.
pub(crate) const NUMBERS_KEPT: usize = 10_000;

/// All readable records, by client and number.
#[derive(Debug, Clone, Default)]
pub struct Chains {
    /// Records of each client, by number; two records of one number are a fork. Past records (those that nobody needs
    /// any more) are not among them.
    pub clients: BTreeMap<ClientId, BTreeMap<u64, Vec<Link>>>,
    /// Past records of each client, by number and name.
    past: BTreeMap<ClientId, Past>,
    past_names: HashSet<ObjectName>,
    /// Names of all other records: a name is taken once.
    names: HashSet<ObjectName>,
    /// Names of the records that other records hold, with the hashes of their objects. The objects themselves may still
    /// exist.
    held: HashMap<ObjectName, Digest>,
    /// Names of the objects that hold other records.
    holders: HashSet<ObjectName>,
    /// Names of held records that only a later version can decode, with their versions.
    newer: BTreeMap<ObjectName, u64>,
    /// Numbers of each client's records that are here, that are past, or that are lost for good and count as if they
    /// were here.
    accounted: BTreeMap<ClientId, Numbers>,
    /// Order and dates of all records, computed on first use.
    order: OnceLock<Arc<Order>>,
}

/// A record that another one holds, decoded.
struct Opened {
    name: ObjectName,
    digest: Digest,
    record: Result<Record, DecodeRecordError>,
}

impl Opened {
    fn new(found: FoundRecord) -> Self {
        Self { name: found.name, digest: found.digest, record: Record::decode(&found.plain) }
    }
}

/// Retirements of clients, as the records of a log state them.
#[derive(Default)]
pub(super) struct Retirements<'c> {
    /// Whether the store delivers late.
    synced: bool,
    /// Retired clients, with the records of others that retire them (client and number).
    pub(super) by_others: BTreeMap<ClientId, Vec<(ClientId, u64)>>,
    /// Clients that retire themselves, with the record that says so.
    by_themselves: BTreeMap<ClientId, &'c Record>,
}

impl Chains {
    /// Puts records together. Records that were read from objects of their own come first: a record that another one
    /// holds counts only if no object of that name was read (SPEC §8.4). A past record says nothing, even if its object
    /// still exists.
    pub fn new(links: impl IntoIterator<Item = Link>) -> Self {
        let mut chains = Self::default();
        let (mut holders, mut links): (Vec<_>, Vec<_>) = (Vec::new(), links.into_iter().collect());
        for link in &mut links {
            if let RecordBody::Found(held) = &mut link.record.body {
                holders.push(((link.record.client, link.record.number, link.name), std::mem::take(held)));
            }
        }
        let holding = holders.iter().filter(|(_, held)| !held.is_empty());
        chains.holders = holding.map(|((.., name), _)| *name).collect();
        holders.sort_by_key(|(holder, _)| *holder);
        let (records, past): (Vec<_>, Vec<_>) =
            holders.into_iter().map(|(_, Held { records, past })| (records, past)).unzip();
        chains.bury(past.into_iter().flatten().collect());
        links.into_iter().for_each(|link| chains.place(link));
        let records: Vec<FoundRecord> = records.into_iter().flatten().collect();
        let opened: Vec<_> = records.into_par_iter().map(Opened::new).collect();
        opened.into_iter().for_each(|held| chains.hold(held));
        chains
    }

    /// Adds one record, and the records that it holds.
    pub fn push(&mut self, mut link: Link) {
        let held = match &mut link.record.body {
            RecordBody::Found(held) => std::mem::take(held),
            _ => Held::default(),
        };
        if !held.is_empty() {
            self.holders.insert(link.name);
        }
        self.bury(held.past);
        self.place(link);
        held.records.into_iter().for_each(|found| self.hold(Opened::new(found)));
    }

    /// Adds one record, without those that it holds: those may be many.
    fn place(&mut self, link: Link) {
        if self.past_names.contains(&link.name) || !self.names.insert(link.name) {
            return;
        }
        self.order = OnceLock::new();
        if let RecordBody::Lost(records) = &link.record.body {
            for (client, number) in records {
                self.accounted.entry(*client).or_default().insert(*number);
            }
        }
        self.accounted.entry(link.record.client).or_default().insert(link.record.number);
        let of_client = self.clients.entry(link.record.client).or_default();
        // Numbers are many, and more than one record of a number is rare.
        let same_number = of_client.entry(link.record.number).or_insert_with(|| Vec::with_capacity(1));
        same_number.push(link);
        same_number.sort_by_key(|link| link.name);
    }

    /// Adds past records. If several lists name the same record, the first counts.
    fn bury(&mut self, lists: Vec<Past>) {
        if lists.is_empty() {
            return;
        }
        self.order = OnceLock::new();
        let mut buried = false;
        self.past_names.reserve(lists.iter().map(|list| list.records.len()).sum());
        for Past { client, mut records, mut closed } in lists {
            records.retain(|record| self.past_names.insert(record.name));
            closed.retain(|number, _| records.binary_search_by_key(number, |record| record.number).is_ok());
            let accounted = self.accounted.entry(client).or_default();
            records.iter().for_each(|record| accounted.insert(record.number));
            buried |= records.iter().any(|record| self.names.contains(&record.name));
            self.clients.entry(client).or_default();
            let empty = || Past { client, records: Vec::new(), closed: BTreeMap::new() };
            let all = self.past.entry(client).or_insert_with(empty);
            let is_later = all.records.last() < records.first();
            all.records.append(&mut records);
            if !is_later {
                all.records.sort_unstable();
            }
            for (number, clients) in closed {
                all.closed.entry(number).or_default().extend(clients);
            }
        }
        if buried {
            for records in self.clients.values_mut() {
                records.values_mut().for_each(|same| same.retain(|link| !self.past_names.contains(&link.name)));
                records.retain(|_, same| !same.is_empty());
            }
            self.names.retain(|name| !self.past_names.contains(name));
        }
    }

    /// Adds a record that another one holds. Records inside it are dropped: nothing is nested.
    fn hold(&mut self, held: Opened) {
        match held.record {
            Ok(mut record) => {
                if let RecordBody::Found(inner) = &mut record.body {
                    *inner = Held::default();
                }
                self.held.entry(held.name).or_insert(held.digest);
                self.place(Link { name: held.name, digest: held.digest, record });
            }
            Err(DecodeRecordError::Newer(version)) => drop(self.newer.insert(held.name, version)),
            Err(DecodeRecordError::Malformed(_)) => {}
        }
    }

    /// Whether another record replaces the object of this name: it holds the same record (an object with this hash), or
    /// says that nobody needs it any more.
    pub fn is_made_up_for(&self, name: &ObjectName, digest: Option<&Digest>) -> bool {
        self.past_names.contains(name) || digest.is_some() && self.held.get(name) == digest
    }

    /// Whether the record of this name is past: nobody needs it any more.
    pub fn is_past(&self, name: &ObjectName) -> bool {
        self.past_names.contains(name)
    }

    /// Past records of all clients.
    pub fn past(&self) -> impl Iterator<Item = &Past> {
        self.past.values()
    }

    /// Past records of a client, by number and name.
    pub fn past_of(&self, client: &ClientId) -> &[PastRecord] {
        self.past.get(client).map_or(&[], |past| &past.records)
    }

    /// Whether a client has a past record of this number.
    fn has_past(&self, client: &ClientId, number: u64) -> bool {
        self.past_of(client).binary_search_by_key(&number, |record| record.number).is_ok()
    }

    /// Client and number of the record of this name, past or not.
    pub fn place_of(&self, name: &ObjectName) -> Option<(ClientId, u64)> {
        if self.is_past(name) {
            let of = |past: &Past| Some((past.client, past.records.iter().find(|record| record.name == *name)?.number));
            return self.past.values().find_map(of);
        }
        let link = self.links().find(|link| self.has(name) && link.name == *name)?;
        Some((link.record.client, link.record.number))
    }

    /// Numbers that more than one record of a client has.
    pub(crate) fn forked(&self, client: &ClientId) -> BTreeSet<u64> {
        let past = self.past_of(client);
        let whole = self.clients.get(client).into_iter().flatten();
        let is_fork = |(number, same): &(&u64, &Vec<Link>)| same.len() > 1 || self.has_past(client, **number);
        let several = whole.filter(is_fork).map(|(number, _)| *number);
        let twice = past.windows(2).filter(|pair| pair[0].number == pair[1].number).map(|pair| pair[0].number);
        several.chain(twice).collect()
    }

    /// Hash of the object of a record that another one holds.
    pub fn held(&self, name: &ObjectName) -> Option<&Digest> {
        self.held.get(name)
    }

    /// Whether the object of this name holds other records. It is then as important as all of them.
    pub fn is_holder(&self, name: &ObjectName) -> bool {
        self.holders.contains(name)
    }

    /// Held records that this version cannot place in any chain, with their versions.
    pub fn newer(&self) -> impl Iterator<Item = (&ObjectName, u64)> {
        let unread = self.newer.iter().filter(|(name, _)| !self.names.contains(*name));
        unread.map(|(name, version)| (name, *version))
    }

    /// Whether the log has a record of this name.
    pub fn has(&self, name: &ObjectName) -> bool {
        self.names.contains(name) || self.past_names.contains(name)
    }

    /// Whether a client may continue its chain: it is not retired, and no two of its records have one number.
    pub fn may_go_on(&self, client: &ClientId) -> bool {
        self.clients.contains_key(client) && self.forked(client).is_empty() && !self.retired().contains(client)
    }

    /// Whether the record of this client and number is here, or was given up.
    pub fn is_accounted(&self, client: &ClientId, number: u64) -> bool {
        self.accounted.get(client).is_some_and(|numbers| numbers.contains(number))
    }

    /// Whether all records of a client up to this number are here, or were given up.
    pub fn has_all(&self, client: &ClientId, number: u64) -> bool {
        number == 0 || self.accounted.get(client).is_some_and(|numbers| numbers.complete() >= number)
    }

    /// Number of a client's records that are here, or were given up.
    pub fn accounted(&self, client: &ClientId) -> u64 {
        self.accounted.get(client).map_or(0, Numbers::count)
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

    /// The order in which the records were written, and their dates.
    pub fn order(&self) -> Arc<Order> {
        Arc::clone(
            self.order.get_or_init(|| Arc::new(Order::new(Records { clients: &self.clients, past: &self.past }))),
        )
    }

    /// Every record, by client and number.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.clients.values().flat_map(BTreeMap::values).flatten()
    }

    /// For each client, the highest number up to which all its records are here or given up. A new record acknowledges
    /// these.
    pub fn seen(&self) -> Vec<(ClientId, u64)> {
        let complete = |client: &ClientId| self.accounted.get(client).map_or(0, Numbers::complete);
        self.clients.keys().map(|client| (*client, complete(client))).collect()
    }

    /// The last record of a client, which is always needed. `None` if it is missing.
    pub fn last(&self, client: &ClientId) -> Option<&Link> {
        let (number, same) = self.clients.get(client)?.last_key_value()?;
        let is_last = self.past_of(client).last().is_none_or(|past| past.number <= *number);
        same.first().filter(|_| is_last)
    }

    /// The record with which a client joined.
    pub fn join(&self, client: &ClientId) -> Option<&crate::log::record::Join> {
        self.clients.get(client)?.values().flatten().find_map(|link| match &link.record.body {
            RecordBody::Join(join) => Some(join),
            _ => None,
        })
    }

    /// Retired clients, which hold up nothing any more: another client took their place, a person retired them, or they
    /// retired themselves. On a store that delivers late, a client that retires itself counts as retired only once
    /// another client that it knew stays (SPEC §8.6): two clients that come later must have somebody in common who
    /// knows both.
    pub fn retired(&self) -> BTreeSet<ClientId> {
        self.retired_by(true)
    }

    /// As [`Self::retired`]. Without `one_stays`, every client that retired itself counts at once.
    pub(crate) fn retired_by(&self, one_stays: bool) -> BTreeSet<ClientId> {
        let Retirements { synced, by_others, by_themselves } = self.retirements();
        let mut retired: BTreeSet<ClientId> = by_others.keys().copied().collect();
        if !(synced && one_stays) {
            retired.extend(by_themselves.into_keys());
            return retired;
        }
        let has_seen = |record: &Record, client: &ClientId, number: u64| {
            if *client == record.client {
                return number < record.number;
            }
            record.seen.iter().any(|(of, seen)| of == client && *seen >= number)
        };
        let mut waiting: Vec<&Record> = by_themselves.values().copied().collect();
        loop {
            let stays = |own: &Record, other: &ClientId| {
                let is_known = || by_others.get(other).into_iter().flatten().any(|(by, at)| has_seen(own, by, *at));
                let has_gone = by_themselves.get(other);
                let knew = |gone: &Record| has_seen(gone, &own.client, own.number) && retired.contains(other);
                *other != own.client && !is_known() && has_gone.is_none_or(|gone| knew(gone))
            };
            let counts = |own: &&Record| own.seen.iter().any(|(other, _)| stays(own, other));
            let (counted, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(counts);
            if counted.is_empty() {
                return retired;
            }
            retired.extend(counted.into_iter().map(|record| record.client));
            waiting = rest;
        }
    }

    /// Collects what the records say about retired clients.
    pub(super) fn retirements(&self) -> Retirements<'_> {
        let mut all = Retirements::default();
        for Link { record, .. } in self.links() {
            let by = (record.client, record.number);
            match &record.body {
                RecordBody::Join(join) => {
                    all.synced |= join.synced;
                    join.retires.iter().for_each(|client| all.by_others.entry(*client).or_default().push(by));
                }
                RecordBody::Retire(clients) => {
                    for client in clients {
                        if *client == record.client {
                            all.by_themselves.entry(*client).or_insert(record);
                        } else {
                            all.by_others.entry(*client).or_default().push(by);
                        }
                    }
                }
                RecordBody::Format(format) => all.synced |= format.synced,
                _ => {}
            }
        }
        all
    }

    /// Every pack that a record condemns, whether it is still there or not.
    pub fn condemned(&self) -> Vec<ObjectName> {
        let packs = self.links().filter_map(|link| match &link.record.body {
            RecordBody::Condemn(packs) => Some(packs),
            _ => None,
        });
        packs.flatten().map(|pack| pack.name).collect()
    }

    /// Problems in the chains. `remembered` is the highest number of each client that was ever seen on this machine.
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
        for past in self.past.values() {
            past.records.last().into_iter().for_each(|record| raise(past.client, record.number));
            past.closed.values().flatten().for_each(|Closed(client, number, _)| raise(*client, *number));
        }
        for (client, seen) in remembered {
            let there = self.accounted.get(client).map_or(0, Numbers::highest);
            if there < *seen {
                findings.push(Finding::RolledBack { client: *client, seen: *seen, there });
            }
        }
        let (none, nothing) = (BTreeMap::new(), Numbers::default());
        for (client, highest) in highest {
            let records = self.clients.get(&client).unwrap_or(&none);
            // A hostile `seen` may name any number, so the list stops where it is of no more use to a person.
            let accounted = self.accounted.get(&client).unwrap_or(&nothing);
            let numbers: Vec<u64> = accounted.gaps(highest).take(100).collect();
            if !numbers.is_empty() {
                findings.push(Finding::Missing { client, numbers });
            }
            findings.extend(self.forked(&client).into_iter().map(|number| Finding::Fork { client, number }));
            for (number, same) in records {
                let follows = |link: &Link| match number.checked_sub(1).filter(|before| *before > 0) {
                    None => link.record.previous == Digest::new([0; 32]),
                    // The hash of a past record is not known.
                    Some(before) if self.has_past(&client, before) => true,
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
        last.record.body = RecordBody::Found(vec![found].into());
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
        holder.record.body = RecordBody::Found(vec![found(&other)].into());
        for links in [[own.clone(), holder.clone()], [holder.clone(), own.clone()]] {
            assert_eq!(Chains::new(links).clients[&own.record.client][&1], std::slice::from_ref(&own));
        }
        // Under another client or number it is still the same object.
        other.record.client = ClientId::new([9; 16]);
        holder.record.body = RecordBody::Found(vec![found(&other)].into());
        assert_eq!(Chains::new([holder, own]).links().count(), 2);
    }

    #[test]
    fn nothing_is_nested() {
        let innermost = link(1, 1, 11, 0, &[]);
        let found =
            |link: &Link| FoundRecord { name: link.name, digest: link.digest, plain: link.record.encode().unwrap() };
        let mut inner = link(1, 2, 12, 11, &[]);
        inner.record.body = RecordBody::Found(vec![found(&innermost)].into());
        let mut outer = link(1, 3, 13, 12, &[]);
        outer.record.body = RecordBody::Found(vec![found(&inner)].into());
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

    #[test]
    fn what_is_left_of_a_record_keeps_its_number_and_its_name() {
        let client = ClientId::new([1; 16]);
        let left = |number: u64, name: u8| PastRecord {
            number,
            name: ObjectName::new([name; 16]),
            time: Time::default(),
            depth: number,
        };
        let holding = |records: Vec<PastRecord>| {
            let mut holder = link(2, 1, 21, 0, &[]);
            let past = vec![Past { client, records, closed: BTreeMap::new() }];
            holder.record.body = RecordBody::Found(Held { records: Vec::new(), past });
            holder
        };
        let third = link(1, 3, 13, 12, &[]);
        let chains = Chains::new([holding(vec![left(1, 11), left(2, 12)]), third.clone()]);
        assert_eq!(chains.findings(&[(client, 3)].into()), []);
        assert!(chains.may_go_on(&client) && chains.last(&client) == Some(&third) && chains.accounted(&client) == 3);
        assert_eq!(chains.place_of(&ObjectName::new([12; 16])), Some((client, 2)));
        // The order does not matter: the object of a past record says nothing.
        let mut pushed = Chains::new([link(1, 1, 11, 0, &[]), link(1, 2, 12, 11, &[]), third.clone()]);
        pushed.push(holding(vec![left(1, 11), left(2, 12)]));
        assert_eq!((&pushed.clients, pushed.past_of(&client)), (&chains.clients, chains.past_of(&client)));
        pushed.push(link(1, 2, 12, 11, &[]));
        assert_eq!(pushed.clients, chains.clients);
        // Another record of the same number is a fork.
        pushed.push(link(1, 2, 99, 11, &[]));
        assert_eq!(pushed.findings(&BTreeMap::new()), [Finding::Fork { client, number: 2 }]);
        assert!(!pushed.may_go_on(&client));
        let forked = Chains::new([holding(vec![left(1, 11), left(2, 12), left(2, 98)]), third]);
        assert_eq!(forked.findings(&BTreeMap::new()), [Finding::Fork { client, number: 2 }]);
        // The last record is always needed: if only its past entry is here, the record itself was lost.
        let without = Chains::new([holding(vec![left(1, 11), left(2, 12)])]);
        assert_eq!((without.last(&client), without.seen()[0]), (None, (client, 2)));
        let gap = Chains::new([holding(vec![left(1, 11), left(4, 14)]), link(1, 5, 15, 14, &[])]);
        assert_eq!(gap.findings(&BTreeMap::new()), [Finding::Missing { client, numbers: vec![2, 3] }]);
    }
}
