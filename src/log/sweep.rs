//! When a condemned pack may be deleted (SPEC §8.6): no clock and no lock, only what every client has acknowledged.
//!
//! A record acknowledges what all work of its writer had read when that work began. Once every client has published a
//! record that acknowledges a condemning one, and all of its records up to that one are here, nothing that anybody
//! writes later relies on the condemned pack. Everything that was written before can be seen, and is examined before
//! the pack is deleted.
//!
//! On a store that delivers late, a client may work unseen. So a client that has just joined relies on nothing that was
//! there before until all clients have acknowledged that it joined; clients count as known as soon as anyone has
//! mentioned them; and only packs that a record claims are condemned at all, since the client that claims one is known.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::id::{ClientId, ObjectName};
use crate::log::chain::{Chains, Finding};
use crate::log::past::Closed;
use crate::log::record::{Link, RecordBody};

/// The rules that keep needed data from ever being deleted. All of them always hold. A simulation leaves out one at a
/// time, and shows that data is then lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct SweepRules {
    /// A deletion waits until every active client has acknowledged what allows it.
    pub acknowledged: bool,
    /// An acknowledgement counts only if all records before it are here.
    pub whole_chains: bool,
    /// On a store that delivers late, a client that has just joined relies on nothing of others before all of them know
    /// of it.
    pub joined: bool,
    /// The condemning client may have other work under way, so its own record does not count as its acknowledgement.
    pub answered: bool,
    /// Work is bound to the client that it began with: if another client publishes it, condemned packs count as absent.
    pub bound: bool,
    /// On a store that delivers at once, success is reported only after the log was listed again behind the record.
    pub looked_behind: bool,
    /// The records that allow a deletion were read before the last look at the store began.
    pub read_before: bool,
    /// On a store that delivers late, only a person, or the client itself, retires a client.
    pub retired_by_persons: bool,
    /// There, a client that retires itself is waited for until another client that it knew stays.
    pub one_stays: bool,
    /// Records in a merge are taken out of the log only when all have acknowledged the merge.
    pub merged: bool,
    /// On a store that delivers late, the log is merged only if another client has the merge too.
    pub not_alone: bool,
    /// A record that forgets snapshots is needed as long as any of these is held whole.
    pub forgotten_together: bool,
    /// The data of a change in doubt (SPEC §8.3) stays until somebody has settled it.
    pub doubted: bool,
}

impl Default for SweepRules {
    fn default() -> Self {
        Self {
            acknowledged: true,
            whole_chains: true,
            joined: true,
            answered: true,
            bound: true,
            looked_behind: true,
            read_before: true,
            retired_by_persons: true,
            one_stays: true,
            merged: true,
            not_alone: true,
            forgotten_together: true,
            doubted: true,
        }
    }
}

/// Reason why condemned packs cannot be deleted yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// A client has not yet acknowledged that they are condemned.
    Waiting(ClientId),
    /// Records of a client are known to exist, but are not here.
    Missing(ClientId),
    /// Two states of one client wrote records: its machine was cloned or set back.
    Fork(ClientId),
    /// A newer vault wrote a record, and this version does not know what that record needs.
    Unknown(ClientId),
    /// Another process of this client has work under way.
    Session,
}

/// Acknowledgements of each client, as far as its records are here without gaps.
#[derive(Debug, Clone, Default)]
pub struct Acknowledgements {
    /// For each client, the highest number of each other client that it has acknowledged.
    by_client: BTreeMap<ClientId, BTreeMap<ClientId, u64>>,
    /// For each client and each other one, the records in which it acknowledged more than before: the acknowledged
    /// number, and the record's own.
    steps: BTreeMap<(ClientId, ClientId), Vec<(u64, u64)>>,
    /// For each client, the number up to which all its records are here.
    complete: BTreeMap<ClientId, u64>,
    /// For each client, the highest number that anyone has mentioned.
    mentioned: BTreeMap<ClientId, u64>,
    retired: BTreeSet<ClientId>,
    /// Clients that a person retired from elsewhere, with the last number seen there: later records of them are given
    /// up.
    given_up: BTreeMap<ClientId, u64>,
    /// Clients whose place another one took, or that retired themselves: all that they wrote is waited for.
    ended: BTreeSet<ClientId>,
    forks: BTreeSet<ClientId>,
    unknown: BTreeSet<ClientId>,
    /// Records that a person gave up: a client that acknowledges them need not have read them.
    lost: BTreeSet<(ClientId, u64)>,
    /// Records since which the store counts as delivering late.
    raised: Vec<(ClientId, u64)>,
    rules: SweepRules,
}

impl Acknowledgements {
    /// Evaluates all records of the log.
    pub fn new(chains: &Chains) -> Self {
        Self::with_rules(chains, SweepRules::default())
    }

    /// Evaluates all records, by rules that may be weaker.
    pub fn with_rules(chains: &Chains, rules: SweepRules) -> Self {
        let mut acks = Self { complete: chains.seen().into_iter().collect(), rules, ..Self::default() };
        acks.retired = chains.retired_by(rules.one_stays);
        for link in chains.links() {
            let record = &link.record;
            let complete = acks.counting(&record.client);
            let own = acks.by_client.entry(record.client).or_default();
            for (client, number) in &record.seen {
                let steps = acks.steps.entry((record.client, *client)).or_default();
                if steps.last().is_none_or(|(last, _)| last < number) {
                    steps.push((*number, record.number));
                }
                if record.number <= complete {
                    let known = own.entry(*client).or_default();
                    *known = (*known).max(*number);
                }
            }
            let closed = record.closed.iter().map(|Closed(client, number, _)| (*client, *number));
            for (client, number) in record.seen.iter().copied().chain(closed).chain([(record.client, record.number)]) {
                let mentioned = acks.mentioned.entry(client).or_default();
                *mentioned = (*mentioned).max(number);
            }
            match &record.body {
                RecordBody::Join(join) => acks.ended.extend(join.retires.iter().copied()),
                // A client that retires itself has written all that it ever will: that is waited for.
                RecordBody::Retire(clients) => {
                    acks.ended.extend(clients.iter().filter(|client| **client == record.client));
                    for client in clients.iter().filter(|client| **client != record.client) {
                        let seen = record.seen.iter().find(|(of, _)| of == client).map_or(0, |(_, number)| *number);
                        let known = acks.given_up.entry(*client).or_default();
                        *known = seen.max(*known);
                    }
                }
                RecordBody::Lost(records) => acks.lost.extend(records),
                RecordBody::Unknown(what) if what.may_need() => drop(acks.unknown.insert(record.client)),
                RecordBody::Format(format) if format.synced => acks.raised.push((record.client, record.number)),
                _ => {}
            }
        }
        for past in chains.past() {
            let own = past.records.last().map(|record| (past.client, record.number));
            let closed = past.closed.values().flatten().map(|Closed(client, number, _)| (*client, *number));
            for (client, number) in closed.chain(own) {
                let mentioned = acks.mentioned.entry(client).or_default();
                *mentioned = (*mentioned).max(number);
            }
        }
        acks.acknowledge_closed(chains);
        for finding in chains.findings(&BTreeMap::new()) {
            if let Finding::Fork { client, .. } | Finding::Broken { client, .. } = finding {
                acks.forks.insert(client);
            }
        }
        acks
    }

    /// The number up to which the records of a client count.
    fn counting(&self, client: &ClientId) -> u64 {
        if self.rules.whole_chains { self.complete.get(client).copied().unwrap_or(0) } else { u64::MAX }
    }

    /// A client that acknowledges a closing record, and does not name the closed client, has acknowledged all of that
    /// client.
    fn acknowledge_closed(&mut self, chains: &Chains) {
        let closings = chains.closings();
        if closings.is_empty() {
            return;
        }
        for (by, records) in chains.clients.iter().filter(|(by, _)| !self.retired.contains(by)) {
            let (mut heard, mut open) = (BTreeMap::new(), BTreeMap::new());
            for link in records.range(..=self.counting(by)).flat_map(|(_, same)| same) {
                let seen: BTreeMap<ClientId, u64> = link.record.seen.iter().copied().collect();
                let mut known: Vec<(ClientId, u64)> = seen.iter().map(|(of, number)| (*of, *number)).collect();
                known.push((*by, link.record.number - 1));
                known.extend(open.iter().map(|(of, last)| (*of, *last)).filter(|(of, _)| !seen.contains_key(of)));
                // A client that is closed may have closed others.
                while let Some((closer, number)) = known.pop() {
                    let before = heard.entry(closer).or_insert(0);
                    for (closed, last) in closings.between(&closer, *before, number) {
                        let highest = open.entry(closed).or_insert(0);
                        *highest = last.max(*highest);
                        if !seen.contains_key(&closed) {
                            known.push((closed, last));
                        }
                    }
                    *before = number.max(*before);
                }
                open.retain(|closed, last| {
                    let is_named = seen.contains_key(closed);
                    if !is_named {
                        let known = self.by_client.entry(*by).or_default().entry(*closed).or_default();
                        *known = (*known).max(*last);
                    }
                    is_named
                });
            }
        }
    }

    /// Every known client that is not retired.
    pub fn active(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.mentioned.keys().copied().filter(|client| !self.retired.contains(client))
    }

    /// Every client ever mentioned.
    pub fn known(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.mentioned.keys().copied()
    }

    /// Number of records of a client that are known to exist, but are not here.
    pub fn missing_count(&self, client: &ClientId, chains: &Chains) -> u64 {
        self.mentioned.get(client).copied().unwrap_or(0).saturating_sub(chains.accounted(client))
    }

    /// The highest number of `of` that `by` has acknowledged.
    pub fn of(&self, by: &ClientId, of: &ClientId) -> u64 {
        self.by_client.get(by).and_then(|seen| seen.get(of)).copied().unwrap_or(0)
    }

    /// Reasons why nothing at all may be deleted.
    pub fn obstacles(&self) -> BTreeSet<Obstacle> {
        let mut obstacles: BTreeSet<Obstacle> = self.unknown.iter().map(|client| Obstacle::Unknown(*client)).collect();
        obstacles.extend(self.forks.difference(&self.retired).map(|client| Obstacle::Fork(*client)));
        // A retired client no longer acknowledges anything, so all its records must be here. For a client that a person
        // retired, these are the records that existed then.
        for client in &self.retired {
            let is_missing = match self.given_up.get(client) {
                Some(seen) if !self.ended.contains(client) => self.complete.get(client).copied().unwrap_or(0) < *seen,
                _ => self.missing(client),
            };
            if is_missing {
                obstacles.insert(Obstacle::Missing(*client));
            }
        }
        obstacles
    }

    fn missing(&self, client: &ClientId) -> bool {
        self.complete.get(client).copied().unwrap_or(0) < self.mentioned.get(client).copied().unwrap_or(0)
    }

    /// Reasons why the client `me` may not yet delete the packs that record `number` of `condemner` condemned. All work
    /// of `me` that is under way has seen at least `mine`.
    pub fn holding(
        &self,
        condemner: &ClientId,
        number: u64,
        me: Option<&ClientId>,
        mine: &BTreeMap<ClientId, u64>,
    ) -> BTreeSet<Obstacle> {
        if !self.rules.acknowledged {
            return BTreeSet::new();
        }
        let mut obstacles = self.holding_all(me, mine);
        self.wait_for_all(condemner, number, me, mine, &mut obstacles);
        obstacles
    }

    /// Reasons why `me` may delete nothing at all, whichever record condemns it.
    fn holding_all(&self, me: Option<&ClientId>, mine: &BTreeMap<ClientId, u64>) -> BTreeSet<Obstacle> {
        let mut obstacles = self.obstacles();
        // A client that does not know yet that the store delivers late may work as if all saw everything at once.
        for (writer, number) in &self.raised {
            self.wait_for_all(writer, *number, me, mine, &mut obstacles);
        }
        obstacles
    }

    /// Whether everyone whom [`holding`](Self::holding) waits for has read record `number` of `client`, so that it can
    /// take the place of others: no other record has its number, and no person gave it up. If a chain forked, nobody
    /// can tell which branch was read.
    pub fn is_read_by_all(
        &self,
        client: &ClientId,
        number: u64,
        me: Option<&ClientId>,
        mine: &BTreeMap<ClientId, u64>,
    ) -> bool {
        !self.forks.contains(client)
            && !self.lost.contains(&(*client, number))
            && self.holding(client, number, me, mine).is_empty()
    }

    /// For each client in `last`, with its highest number: the number up to which [`holding`](Self::holding) finds no
    /// obstacle. Acknowledging a record acknowledges all before it.
    pub fn upto(
        &self,
        last: &[(ClientId, u64)],
        me: Option<&ClientId>,
        mine: &BTreeMap<ClientId, u64>,
    ) -> BTreeMap<ClientId, u64> {
        if !self.rules.acknowledged {
            return last.iter().copied().collect();
        }
        // This is the same for all of them, and expensive where many clients came and went.
        if !self.holding_all(me, mine).is_empty() {
            return BTreeMap::new();
        }
        let is_free = |writer: &ClientId, number: u64| {
            let mut obstacles = BTreeSet::new();
            self.wait_for_all(writer, number, me, mine, &mut obstacles);
            obstacles.is_empty()
        };
        let upto = |writer: &ClientId, last: u64| {
            let (mut free, mut rest) = (0, last);
            while free < rest {
                let middle = rest - (rest - free) / 2;
                if is_free(writer, middle) {
                    free = middle;
                } else {
                    rest = middle - 1;
                }
            }
            free
        };
        last.iter().map(|(writer, last)| (*writer, upto(writer, *last))).collect()
    }

    /// Collects obstacles until all work of every active client has seen record `number` of `writer`.
    fn wait_for_all(
        &self,
        writer: &ClientId,
        number: u64,
        me: Option<&ClientId>,
        mine: &BTreeMap<ClientId, u64>,
        obstacles: &mut BTreeSet<Obstacle>,
    ) {
        for client in self.active() {
            if Some(&client) == me {
                if mine.get(writer).copied().unwrap_or(0) < number {
                    let is_here = self.complete.get(writer).copied().unwrap_or(0) >= number;
                    obstacles.insert(if is_here { Obstacle::Session } else { Obstacle::Missing(*writer) });
                }
                continue;
            }
            let has_seen = if client == *writer {
                self.has_heard_back(&client, number)
            } else {
                self.of(&client, writer) >= number
            };
            if !has_seen {
                obstacles.insert(if self.missing(&client) {
                    Obstacle::Missing(client)
                } else {
                    Obstacle::Waiting(client)
                });
            }
        }
    }

    /// Whether all work of a client began after its record `number` was written, as far as others can tell: it has
    /// acknowledged a record that acknowledges this one. The record alone says nothing about the client's other work.
    fn has_heard_back(&self, client: &ClientId, number: u64) -> bool {
        !self.rules.answered
            || self.steps.iter().filter(|((by, of), _)| by != client && of == client).any(|((by, _), steps)| {
                let first = steps.iter().find(|(acknowledged, _)| *acknowledged >= number);
                first.is_some_and(|(_, answer)| self.of(client, by) >= *answer)
            })
    }

    /// Whether every other client has acknowledged that `client` joined, and everything that they had seen by then is
    /// here. Only then may it rely on data that others have stored, if the store delivers late.
    pub fn is_accepted(&self, client: &ClientId) -> bool {
        if !self.rules.joined {
            return true;
        }
        let others = || self.active().filter(|other| other != client);
        self.mentioned.contains_key(client)
            && others().all(|other| self.of(&other, client) > 0)
            && (others().next().is_none() || self.mentioned.keys().all(|other| !self.missing(other)))
    }
}

impl Chains {
    /// Packs that a client claims in the empty forget records at the end of its chain: the run that put them is still
    /// under way, or was interrupted (SPEC §8.1).
    pub fn unfinished(&self, client: &ClientId) -> HashSet<ObjectName> {
        // A past record was no part of a run that is still under way.
        let after = self.past_of(client).last().map_or(0, |past| past.number);
        let records = self.clients.get(client).into_iter().flat_map(|records| records.range(after..).rev());
        let is_part = |link: &&Link| matches!(&link.record.body, RecordBody::Forget(none) if none.is_empty());
        let links = records.flat_map(|(_, same)| same);
        links.take_while(is_part).flat_map(|link| &link.record.claims).copied().collect()
    }

    /// Every pack that any record claims.
    pub fn claimed(&self) -> HashSet<ObjectName> {
        self.links().flat_map(|link| &link.record.claims).copied().collect()
    }

    /// The packs that records of this client claim.
    pub fn claimed_by(&self, client: &ClientId) -> HashSet<ObjectName> {
        let records = self.clients.get(client).into_iter().flat_map(BTreeMap::values).flatten();
        records.flat_map(|link| &link.record.claims).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;
    use crate::log::record::{Format, PackRef, Record};
    use crate::tree::Time;

    fn id(client: u8) -> ClientId {
        ClientId::new([client; 16])
    }

    fn link(client: u8, number: u64, seen: &[(u8, u64)], body: RecordBody) -> Link {
        let name = |number: u64| if number == 0 { [0; 32] } else { [client * 16 + number as u8; 32] };
        let record = Record {
            client: id(client),
            number,
            previous: Digest::new(name(number - 1)),
            seen: seen.iter().map(|(client, number)| (id(*client), *number)).collect(),
            time: Time::default(),
            claims: Vec::new(),
            closed: Vec::new(),
            body,
        };
        Link { name: ObjectName::new([client * 16 + number as u8; 16]), digest: Digest::new(name(number)), record }
    }

    fn other() -> RecordBody {
        RecordBody::Forget(Vec::new())
    }

    fn condemn() -> RecordBody {
        RecordBody::Condemn(vec![PackRef { meta: false, name: ObjectName::new([9; 16]) }])
    }

    /// Obstacles to deleting the packs that record `number` of client 1 condemns, for client 1 itself.
    fn holding(links: Vec<Link>, number: u64) -> Vec<Obstacle> {
        let chains = Chains::new(links);
        let mine = chains.seen().into_iter().collect();
        Acknowledgements::new(&chains).holding(&id(1), number, Some(&id(1)), &mine).into_iter().collect()
    }

    #[test]
    fn a_gap_in_the_own_chain_is_called_a_gap() {
        let whole = vec![link(1, 1, &[], other()), link(1, 2, &[], other()), link(1, 3, &[], condemn())];
        assert_eq!(holding(whole.clone(), 3), []);
        let gap = whole.into_iter().filter(|link| link.record.number != 2).collect();
        assert_eq!(holding(gap, 3), [Obstacle::Missing(id(1))]);
        // The same for another client, whose acknowledgement then does not count.
        let gap = vec![link(1, 1, &[], condemn()), link(2, 1, &[], other()), link(2, 3, &[(1, 1)], other())];
        assert_eq!(holding(gap, 1), [Obstacle::Missing(id(2))]);
    }

    #[test]
    fn nothing_is_deleted_before_all_know_that_the_store_delivers_late() {
        let raise = || RecordBody::Format(Format { synced: true, ..Format::default() });
        let before = vec![link(2, 1, &[], other()), link(1, 1, &[], condemn()), link(2, 2, &[(1, 1)], other())];
        assert_eq!(holding(before.clone(), 1), []);
        let raised = [before, vec![link(1, 2, &[(2, 2)], raise())]].concat();
        assert_eq!(holding(raised.clone(), 1), [Obstacle::Waiting(id(2))]);
        assert_eq!(holding([raised, vec![link(2, 3, &[(1, 2)], other())]].concat(), 1), []);
    }

    #[test]
    fn all_of_a_client_that_retired_itself_is_waited_for() {
        let retire = || RecordBody::Retire(vec![id(2)]);
        let own = vec![link(1, 1, &[], condemn()), link(2, 1, &[], other()), link(2, 3, &[], retire())];
        assert_eq!(holding(own, 1), [Obstacle::Missing(id(2))]);
        let by_person = vec![
            link(1, 1, &[], condemn()),
            link(2, 1, &[], other()),
            link(1, 2, &[(2, 1)], retire()),
            link(1, 3, &[(2, 3)], other()),
        ];
        assert_eq!(holding(by_person, 1), []);
        // Records that existed when it was retired are waited for.
        let seen = vec![link(1, 1, &[], condemn()), link(2, 1, &[], other()), link(1, 2, &[(2, 3)], retire())];
        assert_eq!(holding(seen, 1), [Obstacle::Missing(id(2))]);
    }

    #[test]
    fn where_things_arrive_late_one_that_retires_itself_leaves_another_one_behind() {
        let late = |links: Vec<Link>| {
            let raise = RecordBody::Format(Format { synced: true, ..Format::default() });
            Chains::new([vec![link(1, 1, &[], raise)], links].concat()).retired().into_iter().collect::<Vec<_>>()
        };
        let own = |client: u8, number: u64, seen: &[(u8, u64)]| {
            link(client, number, seen, RecordBody::Retire(vec![id(client)]))
        };
        // The first one stays, and both know it.
        assert_eq!(late(vec![own(2, 1, &[(1, 1)]), own(3, 1, &[(1, 1), (2, 1)])]), [id(2), id(3)]);
        // It knew nobody, or only itself.
        assert_eq!(late(vec![own(1, 2, &[])]), []);
        // The one that it knew leaves too, when it knows that, and a third one stays; or none does.
        let third = link(3, 1, &[], other());
        let both = vec![own(2, 1, &[(1, 1)]), own(1, 2, &[(2, 1), (3, 1)]), third];
        assert_eq!(late(both.clone()), [id(1), id(2)]);
        assert_eq!(late(vec![own(2, 1, &[(1, 1)]), own(1, 2, &[(2, 1)])]), []);
        // Two clients that rely on each other at the same time.
        let mutual = vec![link(2, 1, &[], other()), own(2, 2, &[(1, 1)]), own(1, 2, &[(2, 1)])];
        assert_eq!(late(mutual), []);
        // The one that it knew had been retired, and it knew so; or a person retires it later, who knows what exists.
        let retire = |number, seen: &[(u8, u64)]| link(3, number, seen, RecordBody::Retire(vec![id(1)]));
        assert_eq!(late(vec![retire(1, &[(1, 1)]), own(3, 2, &[(1, 1)])]), [id(1)]);
        assert_eq!(late(vec![own(2, 1, &[(1, 1)]), retire(1, &[(1, 1), (2, 1)])]), [id(1), id(2)]);
        // Where everything is seen at once, nobody joins unseen.
        assert_eq!(Chains::new(vec![own(2, 1, &[])]).retired().len(), 1);
    }

    #[test]
    fn a_record_that_need_not_have_been_read_takes_the_place_of_no_other() {
        let is_read = |links: Vec<Link>, client: u8, number: u64| {
            let chains = Chains::new(links);
            let mine = chains.seen().into_iter().collect();
            let acks = Acknowledgements::new(&chains);
            assert!(acks.holding(&id(client), number, Some(&id(1)), &mine).is_empty());
            acks.is_read_by_all(&id(client), number, Some(&id(1)), &mine)
        };
        let log = vec![link(2, 1, &[], other()), link(2, 2, &[(1, 1)], other()), link(1, 1, &[(2, 1)], other())];
        assert!(is_read(log.clone(), 2, 1));
        // It was given up, so a client that acknowledges it need not have seen it.
        let lost = link(1, 2, &[(2, 2)], RecordBody::Lost(vec![(id(2), 1)]));
        let given_up: Vec<Link> = [log.clone(), vec![lost, link(2, 3, &[(1, 2)], other())]].concat();
        assert!(!is_read(given_up.clone(), 2, 1) && is_read(given_up, 2, 2));
        // If two records have one number, another client may have read the other one, also after the client was
        // retired.
        let mut twin = link(2, 2, &[(1, 1)], other());
        twin.name = ObjectName::new([99; 16]);
        twin.digest = Digest::new([99; 32]);
        let retired = link(1, 2, &[(2, 2)], RecordBody::Retire(vec![id(2)]));
        let forked: Vec<Link> = [log, vec![twin, retired]].concat();
        assert!(!is_read(forked.clone(), 2, 2) && !is_read(forked, 2, 1));
    }

    #[test]
    fn up_to_where_all_have_read_is_where_nothing_holds_up_a_deletion() {
        let mut links = vec![link(1, 1, &[], other()), link(2, 1, &[(1, 1)], other()), link(3, 1, &[(2, 1)], other())];
        for number in 2..7 {
            links.push(link(1, number, &[(2, number - 1), (3, number / 2)], other()));
            links.push(link(2, number, &[(1, number - 1), (3, number / 2)], other()));
            links.push(link(3, number, &[(1, number / 2), (2, number / 2)], other()));
        }
        for missing in [None, Some((3, 4))] {
            let is_here = |link: &&Link| Some((link.name.as_bytes()[0] / 16, link.record.number)) != missing;
            let chains = Chains::new(links.iter().filter(is_here).cloned());
            let mine: BTreeMap<ClientId, u64> = chains.seen().into_iter().collect();
            let acks = Acknowledgements::new(&chains);
            let upto = acks.upto(&chains.seen(), Some(&id(1)), &mine);
            for (client, last) in chains.seen() {
                let is_free = |number: &u64| acks.holding(&client, *number, Some(&id(1)), &mine).is_empty();
                assert_eq!(upto[&client], (1..=last).take_while(is_free).count() as u64, "{missing:?}");
            }
        }
    }
}
