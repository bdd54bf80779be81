//! The protocol of collecting as a small model, checked exhaustively: every order in which two writing clients and a
//! pruning one can act, with every order in which their objects can arrive at each other. In no reachable state does a
//! retained snapshot lack its chunk. If any one of the rules is left out, there is such a state, and it is found.
//!
//! There is only one chunk, which is enough: a pack either has it or is irrelevant. `rule` is the rule itself, written
//! a second time from SPEC §8.6; in some of the states it is compared with the library's.
//!
//! By default with the quick bounds; `VAULT_CAMPAIGN=n` takes the larger ones too, from number `VAULT_SEED` on.

mod rule;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};
use vault::id::{ClientId, Digest, ObjectName};
use vault::log::past::{Gathered, PastRecord};
use vault::log::record::{Join, PackRef};
use vault::log::{Acknowledgements, Chains, FoundRecord, Held, Link, RecordBody};
use vault::tree::{Snapshot, Time};

use rule::{
    Body, CLIENTS, Chunk, FIRST, Knowledge, Packs, RECORDS, Record, Records, Seen, Snapshots, View, Weakness,
    snapshot_bit,
};

use crate::support::campaign;

/// Bounds of the model.
#[derive(Debug, Clone)]
struct Bounds {
    /// Whether objects arrive late and in any order, or everyone sees everything at once.
    synced: bool,
    /// The clients that exist from the beginning; the others join.
    there: [bool; CLIENTS],
    /// The largest number of records of each client, including those from the beginning.
    records: Seen,
    /// The largest number of packs that each client puts.
    packs: Packs,
    /// The clients that take snapshots.
    takes: [bool; CLIENTS],
    /// The clients that prune.
    prunes: [bool; CLIENTS],
    /// The clients that write records that only acknowledge, in a process of their own.
    acknowledges: [bool; CLIENTS],
    /// Whether snapshots are forgotten.
    forgets: bool,
    /// Whether packs with needed chunks are condemned, so that the chunks must be moved.
    moves: bool,
    /// Whether work may end at any step.
    crashes: bool,
    /// Whether the first client takes the place of the second one, whose work is under way and continues as the first.
    replaces: bool,
    /// Whether a snapshot that has put nothing skips the listing before its record, on a store that delivers at once
    /// (SPEC §8.5, step 3): the look behind the record must show whether any client stopped waiting for this one.
    skips: bool,
    /// Whether snapshots are changes: one exists from the beginning, and others replace it.
    changes: bool,
    /// The clients that retire themselves at the end.
    leaves: [bool; CLIENTS],
    /// The clients that merge the log, and delete merged records.
    merges: [bool; CLIENTS],
    weakness: Weakness,
}

/// Present step of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// A snapshot: it has looked at the store, and no other work of the client knows of it.
    Unknown,
    /// A snapshot: it is unknown whether the packs that it relies on still exist.
    Take,
    /// A snapshot: they existed when that was checked.
    Publish,
    /// A snapshot: its record is put, and the log must be read behind it. The record's number.
    Behind(u8),
    /// A prune: the needed chunks of the condemned packs must be put.
    Move,
    /// A prune: a record must condemn them.
    Condemn,
    /// A prune: it must be decided which of them may be deleted.
    Sweep,
    /// A prune: these are deleted.
    Delete(Packs),
}

/// Work that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Session {
    /// The records that had been seen when it began.
    seen: Seen,
    stage: Stage,
    /// The packs that it relies on.
    counted: Packs,
    /// The pack that it has put.
    put: Packs,
    /// A prune: the snapshots that were examined, and the packs to give up.
    marked: Snapshots,
    given_up: Packs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    records: Records,
    views: [View; CLIENTS],
    /// All packs ever put, and all ever deleted.
    put: Packs,
    deleted: Packs,
    /// Records whose objects were deleted.
    taken: [u8; CLIENTS],
    /// For each client the packs that it put and that no record claims yet.
    noted: [Packs; CLIENTS],
    taking: [Option<Session>; CLIENTS],
    pruning: [Option<Session>; CLIENTS],
    /// Packs that hold the chunk of changed snapshots, and not that of the first one.
    changed: Packs,
    /// Snapshots that were reported as taken.
    reported: Snapshots,
    clock: u8,
}

/// One step of one client. The number selects the items on their way to it that have arrived when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Look,
    Join(u16),
    Begin(u16),
    BecomeKnown,
    Put,
    LookAgain(u16),
    Publish,
    LookBehind,
    GoOn,
    Acknowledge(u16),
    Forget(u16),
    Mark(u16, bool),
    Move,
    Condemn(u16),
    Sweep(u16),
    Delete,
    Settle(u16),
    Crash,
    CrashPrune,
    Merge(u16),
    TakeOut(u16),
    Leave(u16),
    Tick,
}

/// An item that can be on its way to a client.
#[derive(Clone, Copy)]
enum Item {
    Record(usize, usize),
    Pack(Packs),
    Deletion(Packs),
    Taken(usize, usize),
}

fn bits(packs: Packs) -> impl Iterator<Item = Packs> {
    (0..8).map(|bit| 1 << bit).filter(move |bit| packs & bit != 0)
}

impl State {
    fn knowledge(&self, client: usize, weakness: Weakness) -> Knowledge<'_> {
        Knowledge { records: &self.records, view: &self.views[client], weakness }
    }

    /// The view of a client at which everything has arrived.
    fn everything(&self) -> View {
        let count = |client: usize| self.records[client].iter().flatten().count();
        View {
            records: std::array::from_fn(|client| ((1_u8 << count(client)) - 1) & !self.taken[client]),
            taken: self.taken,
            packs: self.put & !self.deleted,
            gone: self.deleted,
        }
    }

    fn on_the_way_to(&self, client: usize) -> Vec<Item> {
        let (view, all) = (&self.views[client], self.everything());
        let mut items = Vec::new();
        for other in 0..CLIENTS {
            let put = all.records[other] | all.taken[other];
            let missing = put & !view.records[other] & !view.taken[other];
            let taken = all.taken[other] & !view.taken[other];
            items
                .extend((0..RECORDS).filter(|index| missing >> index & 1 == 1).map(|index| Item::Record(other, index)));
            items.extend((0..RECORDS).filter(|index| taken >> index & 1 == 1).map(|index| Item::Taken(other, index)));
        }
        items.extend(bits(self.put & !view.packs & !view.gone).map(Item::Pack));
        items.extend(bits(self.deleted & !view.gone).map(Item::Deletion));
        items
    }

    /// Lets some of the items on their way arrive.
    fn arrive(&mut self, client: usize, which: u16) {
        for (at, item) in self.on_the_way_to(client).into_iter().enumerate().filter(|(at, _)| which >> at & 1 == 1) {
            assert!(at < 16);
            let view = &mut self.views[client];
            match item {
                Item::Record(other, index) => view.records[other] |= (1 << index) & !view.taken[other],
                Item::Taken(other, index) => {
                    view.records[other] &= !(1 << index);
                    view.taken[other] |= 1 << index;
                }
                // A deleted record does not come back.
                Item::Pack(pack) => view.packs |= pack & !view.gone,
                Item::Deletion(pack) => {
                    view.packs &= !pack;
                    view.gone |= pack;
                }
            }
        }
    }

    /// Whether all records that the other machines know to be taken out of the log can be read from the objects that
    /// have arrived at them, if one machine is lost with everything that has arrived at nobody yet.
    fn survives(&self, lost: usize) -> bool {
        let others = || (0..CLIENTS).filter(|client| *client != lost).map(|client| &self.views[client]);
        let all = |of: fn(&View) -> &[u8; CLIENTS]| {
            std::array::from_fn(|client| others().fold(0, |all, view| all | of(view)[client]))
        };
        let (records, taken): ([u8; CLIENTS], [u8; CLIENTS]) = (all(|view| &view.records), all(|view| &view.taken));
        let view = View { records, ..View::default() };
        let readable = Knowledge { records: &self.records, view: &view, weakness: Weakness::None }.readable();
        (0..CLIENTS).all(|client| taken[client] & !readable[client] == 0)
    }

    /// The records that the client has seen, and that all its work but `own` had seen when it began.
    fn seen(&self, client: usize, own: Option<&Session>, weakness: Weakness) -> Seen {
        let mut seen = self.knowledge(client, weakness).all_complete();
        let sessions = [&self.taking[client], &self.pruning[client]].into_iter().flatten();
        let known = sessions.filter(|session| session.stage != Stage::Unknown && weakness != Weakness::NoSessions);
        for session in known.filter(|session| own != Some(*session)) {
            for (number, theirs) in seen.iter_mut().zip(session.seen) {
                *number = theirs.min(*number);
            }
        }
        seen
    }

    fn publish(&mut self, client: usize, body: Body, own: Option<&Session>, weakness: Weakness) {
        let mut seen = self.seen(client, own, weakness);
        seen[client] = 0;
        let sessions = [&self.taking[client], &self.pruning[client]].into_iter().flatten();
        let others = sessions.filter(|session| own != Some(*session)).fold(0, |all, session| all | session.put);
        let claims = self.noted[client] & !others;
        self.noted[client] &= !claims;
        let index = self.records[client].iter().flatten().count();
        self.records[client][index] = Some(Record { seen, body, claims, clock: self.clock });
        self.views[client].records[client] |= 1 << index;
    }

    /// The packs among these that hold the chunk.
    fn with(&self, chunk: Chunk, packs: Packs) -> Packs {
        match chunk {
            Chunk::First => packs & !self.changed,
            Chunk::Changed => packs & self.changed,
        }
    }

    /// Whether the store has all chunks that these snapshots need.
    fn is_whole(&self, knowledge: Knowledge<'_>, snapshots: Snapshots) -> bool {
        knowledge.chunks(snapshots).all(|chunk| self.with(chunk, knowledge.view.packs) != 0)
    }

    /// The chains in the library's form.
    fn chains(&self, view: View) -> Chains {
        let id = |client: usize| ClientId::new([client as u8 + 1; 16]);
        let pack = |bit: Packs| ObjectName::new([bit; 16]);
        let name = |client: usize, number: u8| [client as u8 * 16 + number; 32];
        let object = |client: usize, number: u8| name(client, number).first_chunk().map_or([0; 16], |bytes| *bytes);
        let there = |bits: [u8; CLIENTS]| {
            (0..CLIENTS).flat_map(move |client| {
                let here = (0..RECORDS).filter(move |index| bits[client] >> index & 1 == 1);
                here.filter_map(move |index| Some((client, index as u8 + 1, self.records[client][index]?)))
            })
        };
        let make = |client: usize, number: u8, record: Record, held: Held| {
            let body = match record.body {
                Body::Merge(_) => RecordBody::Found(held),
                Body::Condemn(packs) => {
                    RecordBody::Condemn(bits(packs).map(|bit| PackRef { meta: false, name: pack(bit) }).collect())
                }
                Body::Join | Body::Replace(_) => RecordBody::Join(Join {
                    host: String::new(),
                    user: String::new(),
                    place: vec![client as u8],
                    retires: (0..CLIENTS).filter(|other| record.body == Body::Replace(*other)).map(id).collect(),
                    synced: true,
                    program: String::new(),
                }),
                Body::Retire => RecordBody::Retire(vec![id(client)]),
                Body::Change(names, _) => {
                    let all = (0..CLIENTS).flat_map(|client| (0..RECORDS).map(move |index| (client, index)));
                    let named = all.filter(|(client, index)| names & snapshot_bit(*client, *index) != 0);
                    let named = named.map(|(client, index)| ObjectName::new(object(client, index as u8 + 1)));
                    RecordBody::Snapshot(Box::new(changed(named.collect())))
                }
                _ => RecordBody::Forget(Vec::new()),
            };
            let seen = (0..CLIENTS).filter(|other| record.seen[*other] > 0);
            vault::log::Record {
                client: id(client),
                number: number.into(),
                previous: Digest::new(if number == 1 { [0; 32] } else { name(client, number - 1) }),
                seen: seen.map(|other| (id(other), record.seen[other].into())).collect(),
                time: Time::default(),
                claims: bits(record.claims).map(pack).collect(),
                closed: Vec::new(),
                body,
            }
        };
        let hold = |(client, number, record): (usize, u8, Record)| FoundRecord {
            name: ObjectName::new(object(client, number)),
            digest: Digest::new(name(client, number)),
            plain: make(client, number, record, Held::default()).encode().unwrap(),
        };
        Chains::new(there(view.records).map(|(client, number, record)| {
            let mut held = Held::default();
            if let Body::Merge(of) = record.body {
                let whole = std::array::from_fn(|client| of.all[client] & !of.past[client]);
                held.records = there(whole).map(hold).collect();
                let mut past = Gathered::default();
                for (client, number, _) in there(of.past) {
                    let name = ObjectName::new(object(client, number));
                    let (number, time) = (u64::from(number), Time::default());
                    past.insert(id(client), PastRecord { number, name, time, depth: number }, &[]);
                }
                held.past = past.into_lists();
            }
            let record = make(client, number, record, held);
            Link { name: ObjectName::new(object(client, number)), digest: Digest::new(name(client, number)), record }
        }))
    }

    /// Whether the library's rules give the same result in this state as the model's.
    fn is_what_the_library_says(&self) -> bool {
        let id = |client: usize| ClientId::new([client as u8 + 1; 16]);
        (0..CLIENTS).all(|client| {
            let knowledge = self.knowledge(client, Weakness::None);
            let chains = self.chains(self.views[client]);
            let acks = Acknowledgements::new(&chains);
            let seen: BTreeMap<ClientId, u64> = chains.seen().into_iter().collect();
            let same_deletable = knowledge.links().all(|(condemner, number, _)| {
                let mine = knowledge.all_complete();
                acks.holding(&id(condemner), number.into(), Some(&id(client)), &seen).is_empty()
                    == knowledge.may_delete(condemner, number, client, mine, 0)
            });
            let condemned = bits(knowledge.condemned()).map(|bit| ObjectName::new([bit; 16]));
            let unawaited = chains.put_unawaited().into_iter().filter_map(|name| chains.place_of(&name));
            let bit =
                |(of, number): (ClientId, u64)| snapshot_bit(usize::from(of.as_bytes()[0]) - 1, number as usize - 1);
            same_deletable
                && unawaited.map(bit).fold(0, |all, bit| all | bit) == knowledge.unawaited()
                && acks.is_accepted(&id(client)) == knowledge.is_accepted(client)
                && condemned.into_iter().all(|name| chains.condemned().contains(&name))
                && chains.claimed().len() == bits(knowledge.claimed()).count()
        })
    }
}

/// A snapshot that replaces these.
fn changed(replaces: Vec<ObjectName>) -> Snapshot {
    Snapshot { replaces, ..vault::tree::snapshot::testing::empty() }
}

impl Bounds {
    fn may_write(&self, state: &State, client: usize) -> bool {
        state.records[client].iter().flatten().count() < usize::from(self.records[client])
    }

    /// A pack that the client may still put.
    fn new_pack(&self, state: &State, client: usize) -> Option<Packs> {
        let mut all = (0..self.packs).map(|number| 1 << (1 + client as Packs * self.packs + number));
        all.find(|pack| state.put & pack == 0)
    }

    /// The packs that count as absent for the client's writing.
    fn unusable(&self, state: &State, client: usize) -> Packs {
        let knowledge = state.knowledge(client, self.weakness);
        let condemned = knowledge.condemned();
        if !self.synced || self.weakness == Weakness::NoClaims && knowledge.is_accepted(client) {
            return condemned;
        }
        let claimed = if knowledge.is_accepted(client) { knowledge.claimed() } else { knowledge.claimed_by(client) };
        condemned | !(claimed | state.noted[client])
    }

    /// The plan of a prune that begins now.
    fn mark(&self, state: &State, client: usize, moves: bool) -> Option<Session> {
        let knowledge = state.knowledge(client, self.weakness);
        let (view, seen) = (knowledge.view, knowledge.all_complete());
        let mine = state.seen(client, None, self.weakness);
        let condemned = knowledge.condemned();
        let under_way = state.taking[client].map_or(0, |session| session.put);
        // On a store that delivers at once, the client that put a pack is known before; a real client is only more
        // patient with unclaimed packs.
        let claimed = if !self.synced || self.weakness == Weakness::NoClaims { !0 } else { knowledge.claimed() };
        let deletable = knowledge.deletable(client, mine, state.clock);
        let free = (condemned & deletable) | (view.packs & !condemned & claimed & !under_way);
        let marked = knowledge.needed();
        let home = |chunk: Chunk| {
            let (there, given_up) = (state.with(chunk, view.packs & !condemned), state.with(chunk, condemned));
            bits(there).next().or(bits(given_up).next()).unwrap_or(0)
        };
        let needed = knowledge.chunks(marked).map(home).fold(0, |all, home| all | home);
        // The needed chunk of a condemned pack has to be moved before the pack can be deleted.
        let has_to_move = needed & condemned & free != 0;
        let moved = if moves || has_to_move { needed & free } else { 0 };
        if moved & state.changed != 0 && moved & !state.changed != 0 {
            // A prune moves one kind of chunk at a time.
            return None;
        }
        if moves && (moved == 0 || has_to_move) {
            return None;
        }
        let given_up = free & (!needed | moved);
        let stage = if moved == 0 { Stage::Condemn } else { Stage::Move };
        let counted = view.packs & !condemned & !given_up;
        (given_up != 0).then_some(Session { seen, stage, counted, put: 0, marked, given_up })
    }

    /// The given-up packs that may be deleted; `None` if the plan no longer holds.
    fn sweep(&self, state: &State, client: usize, session: &Session, mine: Seen) -> Option<Packs> {
        let knowledge = state.knowledge(client, self.weakness);
        let is_outdated = knowledge.needed() & !session.marked != 0
            || session.counted & (knowledge.condemned() | !knowledge.view.packs) != 0;
        if is_outdated && self.weakness != Weakness::NoSecondLook {
            return None;
        }
        Some(knowledge.deletable(client, mine, state.clock) & session.given_up).filter(|packs| *packs != 0)
    }

    /// The record that settles whether changes in doubt count, before the data of one is pruned.
    fn settle(&self, state: &State, client: usize) -> Option<Body> {
        let knowledge = state.knowledge(client, self.weakness);
        let (doubted, stands) = (knowledge.in_doubt(), knowledge.snapshots());
        let there = state.with(Chunk::Changed, knowledge.view.packs);
        if doubted == 0 || there != 0 && there & !knowledge.condemned() == 0 {
            return None;
        }
        let chunk = if there == 0 { Chunk::First } else { Chunk::Changed };
        if chunk == Chunk::First && state.with(chunk, knowledge.view.packs & !knowledge.condemned()) == 0 {
            return None;
        }
        Some(Body::Change(stands | doubted, chunk))
    }

    /// The steps of a prune that is under way.
    fn prune(&self, state: &mut State, client: usize, step: Step) -> Option<()> {
        let mut session = state.pruning[client]?;
        match (step, session.stage) {
            (Step::Move, Stage::Move) => {
                session.put = self.new_pack(state, client)?;
                state.changed |= if session.given_up & state.changed == 0 { 0 } else { session.put };
                state.put |= session.put;
                state.views[client].packs |= session.put;
                state.noted[client] |= session.put;
                session.stage = Stage::Condemn;
            }
            (Step::Condemn(which), Stage::Condemn) => {
                let fresh = session.given_up & !state.knowledge(client, self.weakness).condemned();
                if fresh != 0 {
                    if !self.may_write(state, client) {
                        return None;
                    }
                    state.arrive(client, which);
                    state.publish(client, Body::Condemn(fresh), Some(&session), self.weakness);
                } else if self.synced && which != 0 {
                    return None;
                }
                session.stage = Stage::Sweep;
            }
            (Step::Sweep(which), Stage::Sweep) => {
                let mine = state.seen(client, Some(&session), self.weakness);
                state.arrive(client, which);
                let doomed = self.sweep(state, client, &session, mine)?;
                session.stage = Stage::Delete(doomed);
            }
            (Step::Delete, Stage::Delete(doomed)) => {
                state.deleted |= doomed;
                state.views[client].packs &= !doomed;
                state.views[client].gone |= doomed;
                state.pruning[client] = None;
                return Some(());
            }
            _ => return None,
        }
        state.pruning[client] = Some(session);
        Some(())
    }

    /// The steps of a snapshot that is under way.
    fn take(&self, state: &mut State, client: usize, step: Step) -> Option<()> {
        let mut session = state.taking[client]?;
        match (step, session.stage) {
            (Step::BecomeKnown, Stage::Unknown) => session.stage = Stage::Take,
            (Step::Put, Stage::Take) if session.counted == 0 => {
                session.put = self.new_pack(state, client)?;
                session.counted = session.put;
                state.changed |= if self.changes { session.put } else { 0 };
                state.put |= session.put;
                state.views[client].packs |= session.put;
                state.noted[client] |= session.put;
            }
            (Step::LookAgain(which), Stage::Take) if session.counted != 0 => {
                let is_left_out = self.skips && session.put == 0;
                if !is_left_out {
                    state.arrive(client, which);
                }
                let is_retired = state.knowledge(client, self.weakness).is_retired(client);
                if session.counted & !state.views[client].packs != 0 || is_retired {
                    return None;
                }
                session.stage = Stage::Publish;
            }
            (Step::Publish, Stage::Publish) => {
                if self.replaces && !self.may_write(state, client) {
                    return None;
                }
                let body = if self.changes {
                    let knowledge = state.knowledge(client, self.weakness);
                    Body::Change(knowledge.snapshots() | knowledge.in_doubt(), Chunk::Changed)
                } else {
                    Body::Snapshot
                };
                state.publish(client, body, Some(&session), self.weakness);
                let number = state.records[client].iter().flatten().count() as u8;
                if (self.replaces || self.skips || self.changes) && self.weakness != Weakness::NoLookBehind {
                    session.stage = Stage::Behind(number);
                } else {
                    state.reported |= snapshot_bit(client, usize::from(number) - 1);
                    state.taking[client] = None;
                    return Some(());
                }
            }
            (Step::LookBehind, Stage::Behind(number)) => {
                state.arrive(client, u16::MAX);
                if state.knowledge(client, self.weakness).is_retired(client) {
                    return None;
                }
                state.reported |= snapshot_bit(client, usize::from(number) - 1);
                state.taking[client] = None;
                return Some(());
            }
            (Step::GoOn, Stage::Take | Stage::Behind(_)) => {
                // The client that took this one's place continues the work, as if it had begun now.
                state.arrive(client, u16::MAX);
                state.arrive(0, u16::MAX);
                let knowledge = state.knowledge(0, self.weakness);
                if client == 0 || !knowledge.is_retired(client) || state.taking[0].is_some() {
                    return None;
                }
                session.seen = knowledge.all_complete();
                session.counted &= knowledge.view.packs;
                if self.weakness != Weakness::Unbound {
                    session.counted &= !knowledge.condemned();
                }
                session.stage = Stage::Take;
                state.noted[0] |= std::mem::take(&mut state.noted[client]);
                state.taking[client] = None;
                state.taking[0] = Some(session);
                return Some(());
            }
            _ => return None,
        }
        state.taking[client] = Some(session);
        Some(())
    }
}

impl Model for Bounds {
    type State = State;
    type Action = (usize, Step);

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            records: Records::default(),
            views: [View::default(); CLIENTS],
            put: FIRST,
            deleted: 0,
            taken: [0; CLIENTS],
            noted: [0; CLIENTS],
            taking: [None; CLIENTS],
            pruning: [None; CLIENTS],
            changed: 0,
            reported: 0,
            clock: 0,
        };
        let there = || (0..CLIENTS).filter(|client| self.there[*client]);
        for client in there() {
            // They know each other, and the last client has put the pack.
            let seen = std::array::from_fn(|other| u8::from(other != client && self.there[other]));
            let claims = if client == CLIENTS - 1 { FIRST } else { 0 };
            state.records[client][0] = Some(Record { seen, body: Body::Join, claims, clock: 0 });
        }
        if self.changes {
            let seen = std::array::from_fn(|other| u8::from(other != CLIENTS - 1 && self.there[other]));
            state.records[CLIENTS - 1][1] = Some(Record { seen, body: Body::Snapshot, claims: 0, clock: 0 });
            state.reported |= snapshot_bit(CLIENTS - 1, 1);
        }
        let view = state.everything();
        there().for_each(|client| state.views[client] = view);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Self::Action>) {
        for client in 0..CLIENTS {
            let ways = if self.synced { 1_u16 << state.on_the_way_to(client).len() } else { u16::MAX };
            // On a store that delivers at once, every look sees everything.
            let looks = || if self.synced { 0..=ways - 1 } else { u16::MAX..=u16::MAX };
            let is_there = state.records[client][0].is_some();
            let may_write = self.may_write(state, client);
            let mut push = |step: Step| actions.push((client, step));
            if !is_there {
                if self.records[client] == 0 {
                    continue;
                }
                if !self.changes {
                    looks().for_each(|which| push(Step::Join(which)));
                } else if state.views[client].records == [0; CLIENTS] {
                    push(Step::Look);
                } else {
                    // Items that arrive between the look and the record are not seen.
                    push(Step::Join(0));
                }
                continue;
            }
            if state.records[client].iter().flatten().any(|record| record.body == Body::Retire) {
                continue;
            }
            let is_idle = state.taking[client].is_none() && state.pruning[client].is_none();
            if self.leaves[client] && may_write && is_idle {
                looks().for_each(|which| push(Step::Leave(which)));
            }
            match state.taking[client] {
                None if self.takes[client] && may_write => looks().for_each(|which| push(Step::Begin(which))),
                None => {}
                Some(session) => {
                    match session.stage {
                        Stage::Unknown => push(Step::BecomeKnown),
                        Stage::Publish => push(Step::Publish),
                        Stage::Behind(_) => push(Step::LookBehind),
                        _ if session.counted == 0 => push(Step::Put),
                        _ => looks().for_each(|which| push(Step::LookAgain(which))),
                    }
                    if self.crashes {
                        push(Step::Crash);
                    }
                    if self.replaces && client == 1 && session.counted != 0 {
                        push(Step::GoOn);
                    }
                }
            }
            match state.pruning[client] {
                None if self.prunes[client] => {
                    looks().for_each(|which| push(Step::Mark(which, false)));
                    if self.moves {
                        looks().for_each(|which| push(Step::Mark(which, true)));
                    }
                }
                None => {}
                Some(session) => {
                    match session.stage {
                        Stage::Move => push(Step::Move),
                        Stage::Condemn => looks().for_each(|which| push(Step::Condemn(which))),
                        Stage::Sweep => looks().for_each(|which| push(Step::Sweep(which))),
                        Stage::Delete(_) => push(Step::Delete),
                        _ => {}
                    }
                    push(Step::CrashPrune);
                }
            }
            if self.changes && self.prunes[client] && may_write && state.pruning[client].is_none() {
                looks().for_each(|which| push(Step::Settle(which)));
            }
            let may_forget = self.prunes[client] || self.merges[client];
            if self.forgets && may_forget && may_write && state.pruning[client].is_none() {
                looks().for_each(|which| push(Step::Forget(which)));
            }
            if self.acknowledges[client] && may_write {
                looks().for_each(|which| push(Step::Acknowledge(which)));
            }
            if self.merges[client] {
                if may_write {
                    looks().for_each(|which| push(Step::Merge(which)));
                }
                looks().for_each(|which| push(Step::TakeOut(which)));
            }
        }
        if self.weakness == Weakness::TimeWindow && state.clock < 1 {
            actions.push((0, Step::Tick));
        }
    }

    fn next_state(&self, last: &State, (client, step): Self::Action) -> Option<State> {
        let mut state = *last;
        match step {
            Step::Look => state.arrive(client, u16::MAX),
            Step::Join(which) => {
                state.arrive(client, which);
                let body = if self.replaces { Body::Replace(1) } else { Body::Join };
                state.publish(client, body, None, self.weakness);
            }
            Step::Begin(which) => {
                state.arrive(client, which);
                if state.knowledge(client, self.weakness).is_retired(client) {
                    return None;
                }
                let usable = state.views[client].packs & !self.unusable(&state, client);
                let counted = if self.changes { state.with(Chunk::Changed, usable) } else { usable };
                let seen = state.knowledge(client, self.weakness).all_complete();
                let stage = if self.weakness == Weakness::LateSessions { Stage::Unknown } else { Stage::Take };
                state.taking[client] = Some(Session { seen, stage, counted, put: 0, marked: 0, given_up: 0 });
            }
            Step::BecomeKnown | Step::Put | Step::Publish | Step::LookBehind | Step::GoOn => {
                self.take(&mut state, client, step)?;
            }
            Step::LookAgain(_) => {
                self.take(&mut state, client, step)?;
                if self.synced {
                    // Steps of others in between cannot be seen before their objects have arrived.
                    self.take(&mut state, client, Step::Publish)?;
                }
            }
            Step::Acknowledge(which) => {
                state.arrive(client, which);
                state.publish(client, Body::Other, None, self.weakness);
            }
            Step::Leave(which) => {
                state.arrive(client, which);
                state.publish(client, Body::Retire, None, self.weakness);
            }
            Step::Forget(which) => {
                state.arrive(client, which);
                let snapshots = state.knowledge(client, self.weakness).snapshots();
                if snapshots == 0 {
                    return None;
                }
                state.publish(client, Body::Forget(snapshots), None, self.weakness);
            }
            Step::Mark(which, moves) => {
                state.arrive(client, which);
                state.pruning[client] = Some(self.mark(&state, client, moves)?);
            }
            Step::Move | Step::Condemn(_) | Step::Delete => self.prune(&mut state, client, step)?,
            Step::Sweep(_) => {
                self.prune(&mut state, client, step)?;
                if self.synced {
                    self.prune(&mut state, client, Step::Delete)?;
                }
            }
            Step::Settle(which) => {
                state.arrive(client, which);
                let body = self.settle(&state, client)?;
                state.publish(client, body, None, self.weakness);
            }
            Step::Crash => state.taking[client] = None,
            Step::CrashPrune => state.pruning[client] = None,
            Step::Merge(which) => {
                state.arrive(client, which);
                let knowledge = state.knowledge(client, self.weakness);
                let held = knowledge.to_merge(client, state.seen(client, None, self.weakness));
                if self.synced && knowledge.is_alone(client)
                    || held.all.iter().map(|bits| bits.count_ones()).sum::<u32>() < 2
                {
                    return None;
                }
                state.publish(client, Body::Merge(held), None, self.weakness);
            }
            Step::TakeOut(which) => {
                let mine = state.seen(client, None, self.weakness);
                state.arrive(client, which);
                let knowledge = state.knowledge(client, self.weakness);
                let gone = knowledge.superfluous(client, mine);
                if self.synced && knowledge.is_alone(client) || gone == [0; CLIENTS] {
                    return None;
                }
                for (of, bits) in gone.into_iter().enumerate() {
                    state.taken[of] |= bits;
                    state.views[client].records[of] &= !bits;
                    state.views[client].taken[of] |= bits;
                }
            }
            Step::Tick => state.clock += 1,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(KEPT, |model: &Self, state: &State| {
                let all = state.everything();
                let knowledge = Knowledge { records: &state.records, view: &all, weakness: model.weakness };
                if !model.changes {
                    return knowledge.snapshots() & state.reported == 0 || all.packs != 0;
                }
                // Every listed snapshot is whole, and so is a reported change while it is unsettled. If a reported
                // change does not count, the listed snapshot says the same.
                let listed = knowledge.snapshots();
                let changes = state.reported & !snapshot_bit(CLIENTS - 1, 1);
                let open = knowledge.in_doubt() & changes;
                let says_it = knowledge.chunks(listed).all(|chunk| chunk == Chunk::Changed);
                listed != 0
                    && state.is_whole(knowledge, listed)
                    && state.is_whole(knowledge, open)
                    && (changes & !open == 0 || says_it)
            }),
            Property::always(SAME, |model: &Self, state: &State| {
                let mut hasher = DefaultHasher::new();
                state.hash(&mut hasher);
                model.weakness != Weakness::None
                    || !hasher.finish().is_multiple_of(400)
                    || state.is_what_the_library_says()
            }),
            Property::always(KNOWN, |_, state: &State| (0..CLIENTS).all(|client| state.survives(client))),
            Property::always(FORGOTTEN, |model: &Self, state: &State| {
                (0..CLIENTS).all(|client| !state.knowledge(client, model.weakness).remembers_forgotten())
            }),
            Property::sometimes(PAST, |_, state: &State| {
                let all = state.everything();
                let knowledge = Knowledge { records: &state.records, view: &all, weakness: Weakness::None };
                let is_past = |client: usize, index: usize, body: fn(&Body) -> bool| {
                    let record = state.records[client][index].filter(|record| body(&record.body));
                    record.is_some() && (knowledge.past()[client] & state.taken[client]) >> index & 1 == 1
                };
                let any = |body: fn(&Body) -> bool| {
                    (0..CLIENTS).any(|client| (0..RECORDS).any(|index| is_past(client, index, body)))
                };
                any(|body| *body == Body::Snapshot) && any(|body| matches!(body, Body::Forget(_)))
            }),
            Property::sometimes(OPEN, |_, state: &State| {
                let all = state.everything();
                let knowledge = Knowledge { records: &state.records, view: &all, weakness: Weakness::None };
                knowledge.in_doubt() & state.reported != 0
            }),
            Property::sometimes(SETTLED, |_, state: &State| {
                let all = state.everything();
                let knowledge = Knowledge { records: &state.records, view: &all, weakness: Weakness::None };
                let last = knowledge.chunks(knowledge.snapshots()).all(|chunk| chunk == Chunk::Changed);
                knowledge.unawaited() & state.reported != 0 && knowledge.in_doubt() == 0 && last
            }),
            Property::sometimes(UNDONE, |_, state: &State| {
                let all = state.everything();
                let knowledge = Knowledge { records: &state.records, view: &all, weakness: Weakness::None };
                knowledge.unawaited() != 0 && all.packs & state.changed == 0 && knowledge.in_doubt() == 0
            }),
            Property::sometimes(TAKEN, |_, state: &State| state.taken != [0; CLIENTS]),
            Property::sometimes(FREED, |_, state: &State| {
                let all = state.everything();
                let knowledge = Knowledge { records: &state.records, view: &all, weakness: Weakness::None };
                state.deleted & FIRST != 0 && knowledge.snapshots() != 0
            }),
            Property::sometimes(RELIED, |_, state: &State| {
                let all = state.everything();
                let knowledge = Knowledge { records: &state.records, view: &all, weakness: Weakness::None };
                all.packs == FIRST && knowledge.condemned() == FIRST && knowledge.snapshots() != 0
            }),
        ]
    }
}

const KEPT: &str = "what is retained is there";
/// Otherwise, the log would be lost together with the machine that merged it last.
const KNOWN: &str = "what was taken out of the log is known, whichever one machine is lost";
const FORGOTTEN: &str = "what was forgotten is listed by nobody who knows that";
const PAST: &str =
    "a snapshot and what forgot it are taken out of the log, and no more is left of them than their numbers";
const TAKEN: &str = "records are taken out of the log";
const SAME: &str = "the model is what the library does";
const OPEN: &str = "it is not known whether a change counts that was reported";
const SETTLED: &str = "a change counts that was put by one for whom nobody waited";
const UNDONE: &str = "what a change needs is gone, and what it was put in the place of stays";
const FREED: &str = "the first pack is deleted, and a snapshot is retained";
const RELIED: &str = "a snapshot relies on a condemned pack";

/// Two clients that write and one that prunes, all of which know each other.
fn bounds(synced: bool) -> Bounds {
    Bounds {
        synced,
        there: [true, true, true],
        records: [2, 3, 2],
        packs: 1,
        takes: [true, true, false],
        prunes: [false, false, true],
        acknowledges: [true, true, false],
        forgets: false,
        moves: false,
        crashes: true,
        replaces: false,
        skips: false,
        changes: false,
        leaves: [false; CLIENTS],
        merges: [false; CLIENTS],
        weakness: Weakness::None,
    }
}

/// While the second client takes a snapshot, the first one joins in its place: the two machines are copies of each
/// other.
fn replacing() -> Bounds {
    Bounds {
        there: [false, true, true],
        takes: [false, true, false],
        acknowledges: [true, false, false],
        records: [3, 2, 2],
        crashes: false,
        replaces: true,
        ..bounds(false)
    }
}

/// As above, but the second client makes a change: it replaces a snapshot that is whole. The first one looks at the
/// store before it joins, and does not see what arrives in between.
fn changing() -> Bounds {
    Bounds { changes: true, records: [3, 2, 4], ..replacing() }
}

/// One of the two writing clients only acknowledges.
fn small() -> Bounds {
    Bounds { takes: [false, true, false], ..bounds(true) }
}

/// The client that takes snapshots has yet to join.
fn joining() -> Bounds {
    Bounds { there: [true, false, true], records: [2, 2, 2], ..small() }
}

/// One of the two merges the log.
fn merging(synced: bool) -> Bounds {
    Bounds {
        merges: [true, false, false],
        acknowledges: [false, true, false],
        records: if synced { [2, 2, 2] } else { [3, 2, 2] },
        crashes: false,
        ..Bounds { synced, ..small() }
    }
}

/// One takes snapshots; the other forgets them, and merges the log until only their past records are left.
fn forgetting(synced: bool) -> Bounds {
    Bounds {
        there: [false, true, true],
        records: if synced { [0, 4, 3] } else { [0, 4, 4] },
        prunes: [false; CLIENTS],
        acknowledges: [false, true, false],
        merges: [false, false, true],
        forgets: true,
        crashes: false,
        ..Bounds { synced, ..small() }
    }
}

/// The only client retires itself. Then two join: one takes a snapshot, and the other prunes.
fn leaving() -> Bounds {
    Bounds {
        there: [false, false, true],
        takes: [false, true, false],
        prunes: [true, false, false],
        acknowledges: [false; CLIENTS],
        leaves: [false, false, true],
        records: [2, 2, 2],
        crashes: false,
        ..bounds(true)
    }
}

/// Visits all states, and returns their number.
fn check(bounds: Bounds) -> usize {
    let (shown, all_there) = (format!("{bounds:?}"), bounds.there == [true; CLIENTS]);
    let (is_left, changes) = (bounds.there == bounds.leaves, bounds.changes);
    let (merges, all_forget, synced) = (bounds.merges != [false; CLIENTS], bounds.forgets, bounds.synced);
    let begun = Instant::now();
    let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{states} states, depth {depth}, {:.1} s: {shown}", begun.elapsed().as_secs_f64());
    checker.assert_no_discovery(KEPT);
    checker.assert_no_discovery(KNOWN);
    checker.assert_no_discovery(SAME);
    checker.assert_no_discovery(FORGOTTEN);
    // Otherwise the check would prove nothing.
    if is_left {
        // Clients that join later have no client in common.
    } else if merges && all_forget {
        checker.assert_any_discovery(if synced { TAKEN } else { PAST });
    } else if !changes {
        checker.assert_any_discovery(FREED);
    }
    if changes {
        checker.assert_any_discovery(OPEN);
        checker.assert_any_discovery(SETTLED);
        checker.assert_any_discovery(UNDONE);
    }
    if all_there {
        checker.assert_any_discovery(RELIED);
    }
    if merges {
        checker.assert_any_discovery(TAKEN);
    }
    states
}

/// Finds the shortest way to lose data.
fn check_loses(bounds: Bounds) {
    let weakness = bounds.weakness;
    let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let lost = [KEPT, KNOWN, FORGOTTEN].iter().find_map(|what| checker.discovery(what));
    let Some(path) = lost else { panic!("{weakness:?}: nothing is lost without this rule") };
    println!("{weakness:?}, lost after {} states:", checker.unique_state_count());
    path.into_actions().into_iter().for_each(|(client, step)| println!("    client {client}: {step:?}"));
}

#[test]
fn nothing_is_lost_in_any_order_of_events() {
    let mut states = [
        Bounds { crashes: false, ..bounds(false) },
        Bounds { moves: true, forgets: true, ..Bounds { takes: [false, true, false], ..bounds(false) } },
        small(),
        Bounds { moves: true, ..small() },
        Bounds { forgets: true, crashes: false, records: [2, 3, 3], ..small() },
        Bounds { acknowledges: [true, false, false], ..joining() },
        Bounds { prunes: [true, false, true], takes: [true, false, false], records: [3, 2, 3], ..bounds(false) },
        replacing(),
        Bounds { skips: true, ..replacing() },
        Bounds { skips: true, takes: [false, true, false], moves: true, forgets: true, ..bounds(false) },
    ]
    .map(check)
    .to_vec();
    if campaign() > 0 {
        let all = |synced| Bounds { moves: true, forgets: true, ..bounds(synced) };
        let larger = [
            all(false),
            Bounds { there: [true, false, true], ..all(false) },
            Bounds { there: [false, false, true], takes: [false, true, false], ..all(false) },
            Bounds { prunes: [true, false, true], ..bounds(false) },
            Bounds { prunes: [true, false, true], moves: true, records: [2, 2, 3], ..bounds(false) },
            bounds(true),
            Bounds { forgets: true, moves: true, ..small() },
            Bounds { prunes: [true, false, true], records: [2, 2, 2], ..small() },
            Bounds { prunes: [true, false, true], moves: true, records: [2, 2, 2], crashes: false, ..small() },
            joining(),
            Bounds { moves: true, ..joining() },
            Bounds { moves: true, crashes: true, acknowledges: [true, true, false], records: [4, 3, 3], ..replacing() },
            Bounds { skips: true, moves: true, records: [3, 3, 3], ..replacing() },
            Bounds { skips: true, ..bounds(false) },
            Bounds { there: [true, false, true], records: [3, 2, 2], ..leaving() },
            Bounds { records: [4, 3, 3], ..merging(false) },
            Bounds { merges: [true, false, true], records: [4, 3, 3], crashes: true, moves: true, ..merging(false) },
            Bounds { records: [3, 3, 2], ..merging(true) },
            Bounds { prunes: [false, false, true], ..forgetting(false) },
            Bounds { prunes: [false, false, true], ..forgetting(true) },
        ];
        let first = std::env::var("VAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        states.extend(larger.into_iter().skip(first).map(check));
    }
    println!("{} states", states.iter().sum::<usize>());
}

#[test]
fn of_two_that_come_when_none_stays_neither_deletes_what_the_other_one_needs() {
    check(leaving());
}

#[test]
fn a_log_that_is_merged_is_lost_with_no_machine() {
    for synced in [false, true] {
        check(merging(synced));
    }
}

#[test]
fn what_nobody_needs_is_left_out_of_the_log_and_missed_by_nobody() {
    check(forgetting(false));
}

#[test]
fn a_change_of_a_client_that_is_retired_counts_or_does_not_and_is_whole_either_way() {
    check(changing());
    for weakness in [Weakness::Unawaited, Weakness::Doubtless] {
        check_loses(Bounds { weakness, ..changing() });
    }
}

#[test]
fn what_forgets_snapshots_is_needed_as_long_as_they_are_held() {
    check_loses(Bounds { weakness: Weakness::ForgetAlone, records: [0, 4, 4], ..forgetting(true) });
}

#[test]
fn what_is_taken_out_of_the_log_before_all_have_the_merge_is_lost() {
    check_loses(Bounds { weakness: Weakness::EarlyTakeOut, ..merging(true) });
}

#[test]
fn without_any_one_of_the_rules_data_is_lost() {
    use Weakness::{Gaps, LateSessions, NoAnswer, NoClaims, NoJoining, NoSecondLook, NoSeen, NoSessions, TimeWindow};
    for weakness in [TimeWindow, Gaps, NoSeen, NoSessions, LateSessions, NoSecondLook] {
        check_loses(Bounds { weakness, ..small() });
    }
    for weakness in [Weakness::NoLookBehind, Weakness::Unbound] {
        for skips in [false, true] {
            check_loses(Bounds { skips, weakness, ..replacing() });
        }
    }
    let two_prune = Bounds { prunes: [true, false, true], takes: [true, false, false], ..bounds(false) };
    check_loses(Bounds { weakness: NoAnswer, ..two_prune });
    check_loses(Bounds { weakness: Weakness::NoneStays, ..leaving() });
    for weakness in [NoJoining, NoClaims] {
        check_loses(Bounds { weakness, acknowledges: [true, false, false], ..joining() });
    }
}
