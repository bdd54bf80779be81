//! When a condemned pack may be deleted (SPEC §8.6): no clock and no lock, only what every client has acknowledged.
//!
//! A record acknowledges what all work of its writer had read when it began. Once every client has published a record that acknowledges a condemning
//! one, and all of its records up to that one are here, nothing that anybody writes later relies on the condemned pack, and
//! everything that was written before can be seen, and is looked at before the pack is deleted.
//!
//! On a store that delivers late, a client may work unseen. So a client that has just joined relies on nothing that was
//! there before until all clients have acknowledged that it joined; clients count as known as soon as anyone has mentioned
//! them; and only packs that a record claims are condemned at all, since whoever claims one is known.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::id::{ClientId, ObjectName};
use crate::log::chain::{Chains, Finding};
use crate::log::record::RecordBody;

/// Which rule is left out, for tests that show that it is needed.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Weakness {
    /// None.
    None = 0,
    /// Nobody's acknowledgement is waited for.
    NoAcknowledgement = 1,
    /// An acknowledgement counts even if records before it are not here.
    Gaps = 2,
    /// A client that has just joined relies on everything at once, and what nobody claims is condemned.
    NoJoining = 3,
    /// Who condemns is taken to have no other work under way.
    NoAnswer = 4,
    /// What is condemned is deleted a day later, whatever was acknowledged.
    TimeWindow = 5,
}

/// The weakness of all tests that run.
#[cfg(test)]
pub static WEAKENED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

#[cfg(test)]
fn is_weak(weakness: Weakness) -> bool {
    WEAKENED.load(std::sync::atomic::Ordering::Relaxed) == weakness as u8
}

/// What keeps condemned packs from being deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// A client has not yet acknowledged that they are condemned.
    Waiting(ClientId),
    /// Records of a client are known to exist, but are not here.
    Missing(ClientId),
    /// Two states of one client wrote records: its machine was cloned or set back.
    Fork(ClientId),
    /// A record was written by a newer vault: what it needs is not known.
    Unknown(ClientId),
    /// Work of another process of this client is under way.
    Session,
}

/// What each client has acknowledged, as far as its records are here without gaps.
#[derive(Debug, Clone, Default)]
pub struct Acknowledgements {
    /// For each client, the highest number of each other client that it has acknowledged.
    by_client: BTreeMap<ClientId, BTreeMap<ClientId, u64>>,
    /// For each client and each other one, its records that acknowledged more than those before: what of, and their numbers.
    steps: BTreeMap<(ClientId, ClientId), Vec<(u64, u64)>>,
    /// For each client, the number up to which all its records are here.
    complete: BTreeMap<ClientId, u64>,
    /// For each client, the highest number that anyone has mentioned.
    mentioned: BTreeMap<ClientId, u64>,
    retired: BTreeSet<ClientId>,
    /// Clients that a person retired: what is missing of them is given up.
    given_up: BTreeSet<ClientId>,
    forks: BTreeSet<ClientId>,
    unknown: BTreeSet<ClientId>,
    /// When each record was written; for a rule that must not be.
    #[cfg(test)]
    times: BTreeMap<(ClientId, u64), i64>,
}

impl Acknowledgements {
    /// What these records say.
    pub fn new(chains: &Chains) -> Self {
        let mut acks = Self { complete: chains.seen().into_iter().collect(), ..Self::default() };
        acks.retired = chains.retired();
        for link in chains.links() {
            let record = &link.record;
            #[cfg(test)]
            acks.times.insert((record.client, record.number), record.time.secs);
            let complete = acks.complete.get(&record.client).copied().unwrap_or(0);
            #[cfg(test)]
            let complete = if is_weak(Weakness::Gaps) { u64::MAX } else { complete };
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
                let mentioned = acks.mentioned.entry(*client).or_default();
                *mentioned = (*mentioned).max(*number);
            }
            let mentioned = acks.mentioned.entry(record.client).or_default();
            *mentioned = (*mentioned).max(record.number);
            match &record.body {
                RecordBody::Retire(clients) => acks.given_up.extend(clients),
                RecordBody::Unknown(what) if what.may_need() => drop(acks.unknown.insert(record.client)),
                _ => {}
            }
        }
        for finding in chains.findings(&BTreeMap::new()) {
            if let Finding::Fork { client, .. } | Finding::Broken { client, .. } = finding {
                acks.forks.insert(client);
            }
        }
        acks
    }

    /// Every client that is known to be there and is not retired.
    pub fn active(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.mentioned.keys().copied().filter(|client| !self.retired.contains(client))
    }

    /// Every client that is known to be there, or to have been.
    pub fn known(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.mentioned.keys().copied()
    }

    /// How many records of a client are known to exist, but are not here.
    pub fn missing_count(&self, client: &ClientId, chains: &Chains) -> u64 {
        self.mentioned.get(client).copied().unwrap_or(0).saturating_sub(chains.accounted(client))
    }

    /// The highest number of `of` that `by` has acknowledged.
    pub fn of(&self, by: &ClientId, of: &ClientId) -> u64 {
        self.by_client.get(by).and_then(|seen| seen.get(of)).copied().unwrap_or(0)
    }

    /// Why nothing at all may be deleted.
    pub fn obstacles(&self) -> BTreeSet<Obstacle> {
        let mut obstacles: BTreeSet<Obstacle> = self.unknown.iter().map(|client| Obstacle::Unknown(*client)).collect();
        obstacles.extend(self.forks.difference(&self.retired).map(|client| Obstacle::Fork(*client)));
        // A retired client acknowledges nothing any more, so all that it ever wrote must be here.
        for client in self.retired.difference(&self.given_up) {
            if self.missing(client) {
                obstacles.insert(Obstacle::Missing(*client));
            }
        }
        obstacles
    }

    fn missing(&self, client: &ClientId) -> bool {
        self.complete.get(client).copied().unwrap_or(0) < self.mentioned.get(client).copied().unwrap_or(0)
    }

    /// What keeps the packs that record `number` of `condemner` condemned from being deleted by the client `me`, of which
    /// all work that is under way has seen at least `mine`.
    pub fn holding(
        &self,
        condemner: &ClientId,
        number: u64,
        me: Option<&ClientId>,
        mine: &BTreeMap<ClientId, u64>,
    ) -> BTreeSet<Obstacle> {
        #[cfg(test)]
        if is_weak(Weakness::NoAcknowledgement) {
            return BTreeSet::new();
        }
        #[cfg(test)]
        if is_weak(Weakness::TimeWindow) {
            let (then, now) = (self.times.get(&(*condemner, number)), self.times.values().max());
            if then.zip(now).is_some_and(|(then, now)| now - then > 24 * 3600) {
                return BTreeSet::new();
            }
        }
        let mut obstacles = self.obstacles();
        for client in self.active() {
            if Some(&client) == me {
                if mine.get(condemner).copied().unwrap_or(0) < number {
                    obstacles.insert(Obstacle::Session);
                }
            } else if client == *condemner {
                if !self.has_heard_back(&client, number) {
                    obstacles.insert(Obstacle::Waiting(client));
                }
            } else if self.of(&client, condemner) < number {
                obstacles.insert(if self.complete.get(&client).copied().unwrap_or(0) == 0 {
                    Obstacle::Missing(client)
                } else {
                    Obstacle::Waiting(client)
                });
            }
        }
        obstacles
    }

    /// Whether all work of a client began after its record `number` was written, as far as others can tell: it has
    /// acknowledged a record that acknowledges this one. That it wrote the record says nothing of its other work.
    fn has_heard_back(&self, client: &ClientId, number: u64) -> bool {
        #[cfg(test)]
        if is_weak(Weakness::NoAnswer) {
            return true;
        }
        self.steps.iter().filter(|((by, of), _)| by != client && of == client).any(|((by, _), steps)| {
            let first = steps.iter().find(|(acknowledged, _)| *acknowledged >= number);
            first.is_some_and(|(_, answer)| self.of(client, by) >= *answer)
        })
    }

    /// Whether every other client has acknowledged that `client` joined, and everything that they had seen by then is
    /// here: only then may it rely on what others have stored, if the store delivers late.
    pub fn is_accepted(&self, client: &ClientId) -> bool {
        #[cfg(test)]
        if is_weak(Weakness::NoJoining) {
            return true;
        }
        let others = || self.active().filter(|other| other != client);
        self.mentioned.contains_key(client)
            && others().all(|other| self.of(&other, client) > 0)
            && (others().next().is_none() || self.mentioned.keys().all(|other| !self.missing(other)))
    }
}

impl Chains {
    /// Every pack that a record claims.
    pub fn claimed(&self) -> HashSet<ObjectName> {
        self.links().flat_map(|link| &link.record.claims).copied().collect()
    }

    /// The packs that records of this client claim.
    pub fn claimed_by(&self, client: &ClientId) -> HashSet<ObjectName> {
        let records = self.clients.get(client).into_iter().flat_map(BTreeMap::values).flatten();
        records.flat_map(|link| &link.record.claims).copied().collect()
    }
}
