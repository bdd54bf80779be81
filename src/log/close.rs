//! Closed clients: retired clients of which every record is here (SPEC §8.2). Once a record closes a client, later
//! records need not name it among those that their writers have seen. So a vault that many throwaway clients write to
//! keeps short records.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::id::{ClientId, ObjectName};
use crate::log::chain::Chains;
use crate::log::past::Closed;
use crate::log::record::{Link, Record, RecordBody};

/// Most clients that one record closes.
const CLOSED_MAX: usize = 1 << 10;

/// Closed clients, by the client and number of the record that closes them.
#[derive(Debug, Clone, Default)]
pub struct Closings(BTreeMap<ClientId, BTreeMap<u64, Vec<(ClientId, u64)>>>);

impl Closings {
    /// Clients that the records numbered `from` + 1 to `to` of a client close, with the number at which each is closed.
    pub fn between(&self, client: &ClientId, from: u64, to: u64) -> impl Iterator<Item = (ClientId, u64)> + '_ {
        let records = self.0.get(client).filter(|_| from < to);
        records
            .into_iter()
            .flat_map(move |records| records.range(from + 1..=to))
            .flat_map(|(_, closed)| closed)
            .copied()
    }

    /// Whether nothing is closed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Records that the writer of a record had seen when it wrote, by cause alone: those that the record names, and those
/// of clients that were closed by records that it had seen, which later records need not name.
#[derive(Debug, Clone, Default)]
pub struct Sight(Closings);

impl Sight {
    /// Built from all records of the log.
    pub fn new(chains: &Chains) -> Self {
        Self(chains.closings())
    }

    /// For each other client, the number of its last record that the writer of `record` had seen.
    pub fn of(&self, record: &Record) -> BTreeMap<ClientId, u64> {
        let named: BTreeMap<ClientId, u64> = record.seen.iter().copied().collect();
        let mut seen = named.clone();
        let mut todo: Vec<(ClientId, u64)> = record.seen.clone();
        todo.push((record.client, record.number));
        while let Some((closer, upto)) = todo.pop() {
            for (closed, last) in self.0.between(&closer, 0, upto) {
                // A client that is named was seen as far as its entry says, and no farther.
                let known = seen.get(&closed).copied().unwrap_or(0);
                if closed != record.client && !named.contains_key(&closed) && known < last {
                    seen.insert(closed, last);
                    // A client that is closed may have closed others.
                    todo.push((closed, last));
                }
            }
        }
        seen
    }

    /// Whether the writer of `later` had seen record `number` of a client. A client has seen its own earlier records.
    pub fn has_seen(&self, later: &Record, client: &ClientId, number: u64) -> bool {
        if later.client == *client {
            return later.number > number;
        }
        self.upto(later, client) >= number
    }

    /// The number of the last record of another client that the writer of `record` had seen.
    fn upto(&self, record: &Record, client: &ClientId) -> u64 {
        match record.seen.iter().find(|(other, _)| other == client) {
            Some((_, seen)) => *seen,
            None if self.0.is_empty() => 0,
            None => self.of(record).get(client).copied().unwrap_or(0),
        }
    }
}

impl Chains {
    /// Snapshots in doubt (SPEC §8.3), for which a prune may not have waited: the client that retired theirs had not
    /// seen them, or two machines continue as one client. Packs that they rely on may have been deleted before they
    /// arrived. Or all packs are there, and the snapshots were reported before their client was retired: the records
    /// alone do not tell.
    pub fn put_unawaited(&self) -> HashSet<ObjectName> {
        let retirements = self.retirements();
        let sight = if retirements.by_others.is_empty() { Sight::default() } else { Sight::new(self) };
        let upto: BTreeMap<ClientId, u64> = retirements
            .by_others
            .iter()
            .filter_map(|(client, by)| {
                let last = self.last_snapshot(client)?;
                let seen = |by| self.seen_at_least(by, client, last, &sight);
                Some((*client, by.iter().map(seen).min()?)).filter(|(_, upto)| *upto < last)
            })
            .collect();
        let forked: BTreeMap<ClientId, u64> =
            self.clients.keys().filter_map(|client| Some((*client, *self.forked(client).first()?))).collect();
        if upto.is_empty() && forked.is_empty() {
            return HashSet::new();
        }
        let is_unawaited = |record: &Record| {
            upto.get(&record.client).is_some_and(|upto| record.number > *upto)
                || forked.get(&record.client).is_some_and(|from| record.number >= *from)
        };
        let snapshots = self.links().filter(|link| matches!(link.record.body, RecordBody::Snapshot(_)));
        snapshots.filter(|link| is_unawaited(&link.record)).map(|link| link.name).collect()
    }

    /// The number of the last record of a client that is a snapshot.
    fn last_snapshot(&self, client: &ClientId) -> Option<u64> {
        let is_snapshot = |link: &Link| matches!(link.record.body, RecordBody::Snapshot(_));
        let records = self.clients.get(client)?;
        records.iter().rev().find(|(_, same)| same.iter().any(is_snapshot)).map(|(number, _)| *number)
    }

    /// The highest number of a client's records that the writer of a record is known to have seen; counting stops at
    /// `enough`. A record acknowledges no more than all other work of its writer had seen, but its writer had also
    /// seen every record that an earlier one of its own acknowledges.
    fn seen_at_least(&self, by: &(ClientId, u64), client: &ClientId, enough: u64, sight: &Sight) -> u64 {
        let named = |link: &Link| link.record.seen.iter().find(|(of, _)| of == client).map_or(0, |(_, number)| *number);
        let records = self.clients.get(&by.0).into_iter().flat_map(|records| records.range(..=by.1).rev());
        let mut most = 0;
        for (number, same) in records {
            let seen = |link: &Link| if *number == by.1 { sight.upto(&link.record, client) } else { named(link) };
            most = same.iter().map(seen).max().unwrap_or(0).max(most);
            if most >= enough {
                break;
            }
        }
        most
    }

    /// The clients that records have closed: retired clients whose records are complete.
    pub fn closings(&self) -> Closings {
        let mut closings = Closings::default();
        let past =
            self.past().flat_map(|past| past.closed.iter().map(|(number, closed)| (past.client, *number, closed)));
        for (client, number, closed) in past {
            let of_record = closings.0.entry(client).or_default().entry(number).or_default();
            of_record.extend(closed.iter().map(|Closed(client, number, _)| (*client, *number)));
        }
        for link in self.links().filter(|link| !link.record.closed.is_empty()) {
            let by_number = closings.0.entry(link.record.client).or_default();
            let closed = by_number.entry(link.record.number).or_default();
            closed.extend(link.record.closed.iter().map(|Closed(client, number, _)| (*client, *number)));
        }
        closings
    }

    /// The list of acknowledgements that record `number` of client `me` writes when it has seen `seen`, and the clients
    /// that it closes. The list leaves out clients that are closed at exactly the number acknowledged.
    pub fn shorten(
        &self,
        me: &ClientId,
        number: u64,
        mut seen: BTreeMap<ClientId, u64>,
    ) -> (Vec<(ClientId, u64)>, Vec<Closed>) {
        seen.remove(me);
        let closings = self.closings();
        let mut closed: BTreeMap<ClientId, u64> = BTreeMap::new();
        for (client, upto) in seen.iter().map(|(client, upto)| (client, *upto)).chain([(me, number - 1)]) {
            for (of, last) in closings.between(client, 0, upto) {
                let known = closed.entry(of).or_default();
                *known = last.max(*known);
            }
        }
        closed.remove(me);
        let fresh = self.to_close(&seen, &closed);
        let mut listed: BTreeMap<ClientId, u64> = seen.clone();
        listed.retain(|client, upto| *upto > 0 && closed.get(client) != Some(upto));
        // A closed client that is not named counts as fully acknowledged, so one of which less was seen is named.
        let less = closed.iter().filter(|(client, last)| seen.get(*client) != Some(*last));
        listed.extend(less.map(|(client, _)| (*client, seen.get(client).copied().unwrap_or(0))));
        (listed.into_iter().collect(), fresh)
    }

    /// Retired clients that can be closed: all their records that anyone has mentioned are acknowledged.
    fn to_close(&self, seen: &BTreeMap<ClientId, u64>, closed: &BTreeMap<ClientId, u64>) -> Vec<Closed> {
        let retired: BTreeSet<ClientId> =
            self.retired().into_iter().filter(|client| closed.get(client) != seen.get(client)).collect();
        if retired.is_empty() {
            return Vec::new();
        }
        let mut mentioned: BTreeMap<ClientId, u64> = BTreeMap::new();
        for link in self.links() {
            let own = (link.record.client, link.record.number);
            for (client, number) in link.record.seen.iter().chain([&own]).filter(|(client, _)| retired.contains(client))
            {
                let known = mentioned.entry(*client).or_default();
                *known = (*known).max(*number);
            }
        }
        for past in self.past().filter(|past| retired.contains(&past.client)) {
            let known = mentioned.entry(past.client).or_default();
            *known = (*known).max(past.records.last().map_or(0, |record| record.number));
        }
        let last = |client: &ClientId| -> Option<Closed> {
            let (number, records) = (seen.get(client).copied()?, self.clients.get(client)?);
            let is_single = self.forked(client).is_empty();
            let [Link { digest, .. }] = &records.get(&number)?[..] else { return None };
            let is_whole = is_single && number > 0 && mentioned.get(client) == Some(&number);
            is_whole.then_some(Closed(*client, number, *digest))
        };
        retired.iter().filter_map(last).take(CLOSED_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "ids are made so that they sort by number")]
    use super::*;
    use crate::id::Digest;
    use crate::log::record::Join;
    use crate::log::sweep::Acknowledgements;
    use crate::tree::Time;

    fn id(number: u32) -> ClientId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        ClientId::new(id)
    }

    /// Adds a record of a client that has seen everything in the log.
    fn write(chains: &mut Chains, client: u32, body: RecordBody) -> usize {
        let me = id(client);
        let (number, previous) =
            chains.last(&me).map_or((1, Digest::new([0; 32])), |last| (last.record.number + 1, last.digest));
        let (seen, closed) = chains.shorten(&me, number, chains.seen().into_iter().collect());
        let record =
            Record { client: me, number, previous, seen, time: Time::default(), claims: Vec::new(), closed, body };
        let len = record.encode().unwrap().len();
        let digest = blake3::hash(&[client.to_be_bytes(), (number as u32).to_be_bytes()].concat());
        let mut name = [0; 16];
        name.copy_from_slice(&digest.as_bytes()[..16]);
        chains.push(Link { name: ObjectName::new(name), digest: Digest::new(*digest.as_bytes()), record });
        len
    }

    fn join() -> RecordBody {
        RecordBody::Join(Join {
            host: String::new(),
            user: String::new(),
            place: Vec::new(),
            retires: Vec::new(),
            synced: false,
            program: String::new(),
        })
    }

    #[test]
    fn records_stay_short_however_many_throwaway_clients_there_were() {
        let (mut chains, mut longest) = (Chains::default(), 0);
        write(&mut chains, 0, join());
        for client in 1..400 {
            write(&mut chains, client, join());
            longest = longest.max(write(&mut chains, client, RecordBody::Retire(vec![id(client)])));
        }
        assert!(longest <= 1024, "{longest} bytes");
        write(&mut chains, 0, RecordBody::Forget(Vec::new()));
        let last = chains.last(&id(0)).unwrap();
        assert!(last.record.seen.len() <= 1, "{:?}", last.record.seen);
        // The acknowledgements are still known.
        let acks = Acknowledgements::new(&chains);
        assert!((1..399).all(|client| acks.of(&id(0), &id(client)) == 2));
        assert_eq!(acks.obstacles(), BTreeSet::new());
        assert_eq!(chains.findings(&BTreeMap::new()), []);
    }

    #[test]
    fn who_has_not_seen_all_of_a_closed_client_says_so() {
        let mut chains = Chains::default();
        write(&mut chains, 0, join());
        write(&mut chains, 1, join());
        write(&mut chains, 1, RecordBody::Retire(vec![id(1)]));
        write(&mut chains, 0, RecordBody::Forget(Vec::new()));
        assert_eq!(chains.last(&id(0)).unwrap().record.closed.len(), 1);
        let seen = |of_closed| BTreeMap::from([(id(0), 2), (id(1), of_closed)]);
        assert_eq!(chains.shorten(&id(2), 1, seen(2)).0, [(id(0), 2)]);
        assert_eq!(chains.shorten(&id(2), 1, seen(1)).0, [(id(0), 2), (id(1), 1)]);
        assert_eq!(chains.shorten(&id(2), 1, seen(0)).0, [(id(0), 2), (id(1), 0)]);
        // A client that does not know that the other is closed.
        let before = BTreeMap::from([(id(0), 1), (id(1), 2)]);
        assert_eq!(chains.shorten(&id(2), 1, before).0, [(id(0), 1), (id(1), 2)]);
        // The reader's view of it.
        let mut other = chains.clone();
        write(&mut other, 2, join());
        assert_eq!(Acknowledgements::new(&other).of(&id(2), &id(1)), 2);
        // A record of the closed client that nobody had seen is not reported as missing, and counts when it arrives.
        write(&mut other, 1, RecordBody::Forget(Vec::new()));
        write(&mut other, 0, RecordBody::Forget(Vec::new()));
        assert_eq!(Acknowledgements::new(&other).of(&id(0), &id(1)), 3);
    }

    #[test]
    fn records_of_a_closed_client_that_are_not_here_are_missing() {
        let mut chains = Chains::default();
        write(&mut chains, 0, join());
        write(&mut chains, 1, join());
        write(&mut chains, 1, RecordBody::Forget(Vec::new()));
        write(&mut chains, 0, RecordBody::Join(Join { retires: vec![id(1)], ..join_of() }));
        write(&mut chains, 0, RecordBody::Forget(Vec::new()));
        let without =
            Chains::new(chains.links().filter(|link| (link.record.client, link.record.number) != (id(1), 2)).cloned());
        assert!(!Acknowledgements::new(&without).obstacles().is_empty());
        assert!(!without.findings(&BTreeMap::new()).is_empty());
        assert!(Acknowledgements::new(&chains).obstacles().is_empty());
    }

    #[test]
    fn what_was_closed_by_what_a_writer_had_seen_it_had_seen_too() {
        let mut chains = Chains::default();
        write(&mut chains, 0, join());
        write(&mut chains, 1, join());
        write(&mut chains, 1, RecordBody::Retire(vec![id(1)]));
        // Client 2 has seen nothing of the others, client 3 all.
        let nothing = Chains::default();
        let (seen, closed) = nothing.shorten(&id(2), 1, BTreeMap::new());
        let mut blind = chains.last(&id(0)).unwrap().clone();
        (blind.record.client, blind.record.seen, blind.record.closed) = (id(2), seen, closed);
        write(&mut chains, 0, RecordBody::Forget(Vec::new()));
        write(&mut chains, 3, join());
        write(&mut chains, 3, RecordBody::Forget(Vec::new()));
        let sight = Sight::new(&chains);
        let last = &chains.last(&id(3)).unwrap().record;
        assert!(last.seen.iter().all(|(client, _)| *client != id(1)), "{:?}", last.seen);
        assert!(sight.has_seen(last, &id(1), 2) && !sight.has_seen(last, &id(1), 3));
        assert!(sight.has_seen(last, &id(3), 1) && !sight.has_seen(last, &id(3), 2));
        assert!(!sight.has_seen(&blind.record, &id(1), 1));
        // A client that is named was seen no farther than its entry says.
        let mut less = last.clone();
        less.seen = vec![(id(0), 2), (id(1), 1)];
        assert!(sight.has_seen(&less, &id(1), 1) && !sight.has_seen(&less, &id(1), 2));
    }

    fn join_of() -> Join {
        match join() {
            RecordBody::Join(join) => join,
            _ => unreachable!(),
        }
    }
}
