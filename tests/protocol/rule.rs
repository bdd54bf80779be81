//! The knowledge of each client of the model, and its consequences: the rule of SPEC §8.6, written a second time.

/// Number of clients: two that write, and one that prunes.
pub const CLIENTS: usize = 3;
/// Most records of one client, including its join.
pub const RECORDS: usize = 5;
/// The pack that exists from the beginning. All packs hold the same chunk, unless snapshots are changed: then this
/// one holds the chunk of the first snapshot, and others hold the chunk of its changes.
pub const FIRST: Packs = 1;

/// A set of packs.
pub type Packs = u8;
/// A set of snapshots: one bit for each record.
pub type Snapshots = u16;
/// A record number for each client.
pub type Seen = [u8; CLIENTS];

/// The rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weakness {
    /// None.
    None,
    /// Condemned packs are deleted when enough time has passed, instead of by acknowledgements.
    TimeWindow,
    /// An acknowledgement counts even if earlier records are missing.
    Gaps,
    /// Any record that came after the condemning one was written counts as an acknowledgement, whatever its writer had
    /// seen.
    NoSeen,
    /// A record acknowledges everything that its writer has seen, even if other work of the same client began earlier.
    NoSessions,
    /// Other work of the same client learns of a work only some time after it has looked at the store.
    LateSessions,
    /// The condemning client is assumed to have no other work under way.
    NoAnswer,
    /// A client that has just joined relies on everything at once.
    NoJoining,
    /// Unclaimed packs are condemned like all others.
    NoClaims,
    /// The plan is executed, even if snapshots have arrived since.
    NoSecondLook,
    /// A snapshot is reported without a look behind its record, which would show that its client was retired.
    NoLookBehind,
    /// Work continues for the client that takes the place of its own, as if nothing had happened.
    Unbound,
    /// Merged records are deleted as soon as the merge is put.
    EarlyTakeOut,
    /// A record that forgets snapshots counts as past, even if the snapshots do not.
    ForgetAlone,
    /// A client that retires itself is no longer waited for, even if no other one stays.
    NoneStays,
    /// A changed snapshot replaces the snapshots that it names, even if a prune may not have waited for its writer.
    Unawaited,
    /// The data of a changed snapshot that does not count is deleted, though the snapshot may have been reported.
    Doubtless,
}

/// Body of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Body {
    Join,
    /// A client joins, and retires this one.
    Replace(usize),
    /// A snapshot that needs the chunk.
    Snapshot,
    /// A snapshot that replaces these. It needs the chunk of changed snapshots, or the first snapshot's.
    Change(Snapshots, Chunk),
    /// Any other record: it only acknowledges.
    Other,
    Condemn(Packs),
    Forget(Snapshots),
    /// The client retires itself.
    Retire,
    /// A merge of these records of each client, some of them only as past records.
    Merge(Held),
}

/// The chunk that a snapshot needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chunk {
    First,
    Changed,
}

/// Records of each client.
pub type Bits = [u8; CLIENTS];

/// The records held by a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Held {
    /// All of them.
    pub all: Bits,
    /// Those that are held only as past records.
    pub past: Bits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    pub seen: Seen,
    pub body: Body,
    pub claims: Packs,
    /// Time of writing. Used only by the time window.
    pub clock: u8,
}

/// All records that were ever written, by client and number (the first is number 1).
pub type Records = [[Option<Record>; RECORDS]; CLIENTS];

/// Everything that has arrived at one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct View {
    /// One bit for each record of each client whose object is here.
    pub records: [u8; CLIENTS],
    /// The records whose objects are known to be deleted: they are in merges.
    pub taken: [u8; CLIENTS],
    /// The packs that are here.
    pub packs: Packs,
    /// The packs that are known to be deleted.
    pub gone: Packs,
}

/// Conclusions of a client from everything that has arrived at it.
#[derive(Clone, Copy)]
pub struct Knowledge<'a> {
    pub records: &'a Records,
    pub view: &'a View,
    pub weakness: Weakness,
}

/// The bit of a snapshot.
pub fn snapshot_bit(client: usize, index: usize) -> Snapshots {
    1 << (client * RECORDS + index)
}

impl Knowledge<'_> {
    /// The objects that hold other records, with client and number, and these records.
    pub fn merges(self) -> impl Iterator<Item = (usize, u8, Held)> {
        (0..CLIENTS).flat_map(move |client| {
            (0..RECORDS).filter(move |index| self.view.records[client] >> index & 1 == 1).filter_map(move |index| {
                match self.records[client][index]?.body {
                    Body::Merge(held) => Some((client, index as u8 + 1, held)),
                    _ => None,
                }
            })
        })
    }

    /// The records that are accounted for: those whose objects are here, and those that an object here holds. Records
    /// inside a held one do not count.
    pub fn readable(self) -> Bits {
        let mut readable = self.view.records;
        for (_, _, held) in self.merges() {
            (0..CLIENTS).for_each(|client| readable[client] |= held.all[client]);
        }
        readable
    }

    /// The past records, whether their objects are here or not.
    pub fn past(self) -> Bits {
        let mut past = [0; CLIENTS];
        for (_, _, held) in self.merges() {
            (0..CLIENTS).for_each(|client| past[client] |= held.past[client]);
        }
        past
    }

    /// The records that count, each with its client and number.
    pub fn links(self) -> impl Iterator<Item = (usize, u8, Record)> {
        let (readable, past) = (self.readable(), self.past());
        (0..CLIENTS).flat_map(move |client| {
            let here = move |index: &usize| (readable[client] & !past[client]) >> index & 1 == 1;
            (0..RECORDS)
                .filter(here)
                .filter_map(move |index| Some((client, index as u8 + 1, self.records[client][index]?)))
        })
    }

    /// Number of a client's records that are here without a gap.
    pub fn complete(self, client: usize) -> u8 {
        self.readable()[client].trailing_ones() as u8
    }

    pub fn all_complete(self) -> Seen {
        std::array::from_fn(|client| self.complete(client))
    }

    /// The highest number of a client that anyone has mentioned; 0 if nobody has.
    pub fn mentioned(self, client: usize) -> u8 {
        let of = |(other, number, record): (usize, u8, Record)| {
            record.seen[client].max(if other == client { number } else { 0 })
        };
        let past = 8 - self.past()[client].leading_zeros() as u8;
        self.links().map(of).max().unwrap_or(0).max(past)
    }

    /// The highest number of `of` that `by` has acknowledged.
    pub fn acknowledged(self, by: usize, of: usize) -> u8 {
        let complete = if self.weakness == Weakness::Gaps { u8::MAX } else { self.complete(by) };
        let counts = self.links().filter(|(client, number, _)| *client == by && *number <= complete);
        counts.map(|(_, _, record)| record.seen[of]).max().unwrap_or(0)
    }

    /// Condemned packs that are still here.
    pub fn condemned(self) -> Packs {
        let of = |(_, _, record): (usize, u8, Record)| if let Body::Condemn(packs) = record.body { packs } else { 0 };
        self.links().map(of).fold(0, |all, packs| all | packs) & self.view.packs
    }

    /// Whether a client was retired: by another client's join, or by itself while another client that it knew stays.
    pub fn is_retired(self, client: usize) -> bool {
        self.links().any(|(_, _, record)| record.body == Body::Replace(client)) || self.has_left(client)
    }

    /// The record by which a client retires itself.
    pub fn own_retirement(self, client: usize) -> Option<(u8, Record)> {
        let own = self.links().find(|(by, _, record)| *by == client && record.body == Body::Retire);
        own.map(|(_, number, record)| (number, record))
    }

    /// Whether a client's own retirement counts.
    fn has_left(self, client: usize) -> bool {
        let Some((number, own)) = self.own_retirement(client) else { return false };
        let stays = |other: usize| {
            other != client
                && own.seen[other] > 0
                && self
                    .own_retirement(other)
                    .is_none_or(|(_, gone)| gone.seen[client] >= number && self.has_left(other))
        };
        self.weakness == Weakness::NoneStays || (0..CLIENTS).any(stays)
    }

    /// Known clients that are not retired.
    fn active(self) -> impl Iterator<Item = usize> + Clone {
        (0..CLIENTS).filter(move |client| self.mentioned(*client) > 0 && !self.is_retired(*client))
    }

    pub fn claimed(self) -> Packs {
        self.links().fold(0, |all, (_, _, record)| all | record.claims)
    }

    pub fn claimed_by(self, by: usize) -> Packs {
        self.links().filter(|(client, ..)| *client == by).fold(0, |all, (_, _, record)| all | record.claims)
    }

    /// The snapshots that are neither forgotten nor replaced.
    pub fn snapshots(self) -> Snapshots {
        let (mut there, mut gone) = (0, 0);
        let doubted = self.in_doubt();
        for (client, number, record) in self.links() {
            let bit = snapshot_bit(client, usize::from(number) - 1);
            match record.body {
                Body::Snapshot => there |= bit,
                Body::Change(names, _) if doubted & bit == 0 => {
                    there |= bit;
                    // If several replace the same one, that with the lowest name counts; names here are in the order
                    // of clients and numbers.
                    let is_first = |(other, at, record): (usize, u8, Record)| {
                        let before = snapshot_bit(other, usize::from(at) - 1);
                        matches!(record.body, Body::Change(theirs, _) if doubted & before == 0 && before < bit && theirs & names != 0)
                    };
                    gone |= names;
                    let all_taken =
                        self.links().filter(|link| is_first(*link)).fold(0, |all, (.., record)| match record.body {
                            Body::Change(theirs, _) => all | theirs,
                            _ => all,
                        });
                    gone |= if names & !all_taken == 0 { bit } else { 0 };
                }
                Body::Forget(snapshots) => gone |= snapshots,
                _ => {}
            }
        }
        there & !gone
    }

    /// Changed snapshots in doubt: a prune may not have waited for their writers, and no counting snapshot names
    /// them.
    pub fn in_doubt(self) -> Snapshots {
        if self.weakness == Weakness::Unawaited {
            return 0;
        }
        let mut doubted = self.unawaited();
        let mut rest: Vec<_> = self.links().filter(|(.., record)| matches!(record.body, Body::Change(..))).collect();
        // Each names only earlier ones, so the loop ends.
        while let Some(at) =
            rest.iter().position(|(client, number, _)| doubted & snapshot_bit(*client, usize::from(*number) - 1) == 0)
        {
            if let Body::Change(names, _) = rest.remove(at).2.body {
                doubted &= !names;
            }
        }
        doubted
    }

    /// Changed snapshots that the client which retired their writer had not seen.
    pub fn unawaited(self) -> Snapshots {
        let mut found = 0;
        for (client, number, _) in self.links().filter(|(.., record)| matches!(record.body, Body::Change(..))) {
            let unseen = |(_, _, record): (usize, u8, Record)| {
                record.body == Body::Replace(client) && record.seen[client] < number
            };
            if self.links().any(unseen) {
                found |= snapshot_bit(client, usize::from(number) - 1);
            }
        }
        found
    }

    /// The snapshots whose data must not be deleted.
    pub fn needed(self) -> Snapshots {
        self.snapshots() | if self.weakness == Weakness::Doubtless { 0 } else { self.in_doubt() }
    }

    /// The chunks that these snapshots need.
    pub fn chunks(self, snapshots: Snapshots) -> impl Iterator<Item = Chunk> {
        let of_these = move |(client, number, _): &(usize, u8, Record)| {
            snapshots & snapshot_bit(*client, usize::from(*number) - 1) != 0
        };
        self.links().filter(of_these).map(|(.., record)| match record.body {
            Body::Change(_, chunk) => chunk,
            _ => Chunk::First,
        })
    }

    /// Whether `client` may rely on data that others have stored, on a store that delivers late.
    pub fn is_accepted(self, client: usize) -> bool {
        if self.weakness == Weakness::NoJoining {
            return true;
        }
        let known = || (0..CLIENTS).filter(move |other| self.mentioned(*other) > 0);
        let mut others = self.active().filter(|other| *other != client);
        let is_alone = others.clone().next().is_none();
        self.mentioned(client) > 0
            && others.all(|other| self.acknowledged(other, client) > 0)
            && (is_alone || known().all(|other| self.complete(other) >= self.mentioned(other)))
    }

    /// Whether `me` may delete the packs that record `number` of `condemner` condemns. All work of `me` that is under
    /// way has seen at least `mine`.
    pub fn may_delete(self, condemner: usize, number: u8, me: usize, mine: Seen, clock: u8) -> bool {
        let Some(condemning) = self.records[condemner][usize::from(number) - 1] else { return false };
        if self.weakness == Weakness::TimeWindow {
            return clock > condemning.clock;
        }
        let is_whole = |client: usize| !self.is_retired(client) || self.complete(client) >= self.mentioned(client);
        (0..CLIENTS).all(is_whole)
            && self.active().all(|client| {
                if client == me {
                    mine[condemner] >= number
                } else if client == condemner {
                    self.has_heard_back(condemner, number)
                } else if self.weakness == Weakness::NoSeen {
                    self.complete(client) > condemning.seen[client]
                } else {
                    self.acknowledged(client, condemner) >= number
                }
            })
    }

    /// Whether a client has acknowledged a record of another one that acknowledges its record `number`.
    fn has_heard_back(self, client: usize, number: u8) -> bool {
        let answers = |(by, answer, record): (usize, u8, Record)| {
            by != client && record.seen[client] >= number && self.acknowledged(client, by) >= answer
        };
        self.weakness == Weakness::NoAnswer || self.links().any(answers)
    }

    /// The records of a merge that `me` puts now, whose work under way has seen `mine`: all records that are in no
    /// merge yet, and the records inside those that are merges.
    pub fn to_merge(self, me: usize, mine: Seen) -> Held {
        let mut free = self.view.records;
        for (_, _, held) in self.merges() {
            (0..CLIENTS).for_each(|client| free[client] &= !held.all[client]);
        }
        let mut all = free;
        for (_, _, held) in self.merges().filter(|(client, number, _)| free[*client] >> (number - 1) & 1 == 1) {
            (0..CLIENTS).for_each(|client| all[client] |= held.all[client]);
        }
        let (past, done) = (self.past(), self.done(me, mine));
        Held { all, past: std::array::from_fn(|client| all[client] & (past[client] | done[client])) }
    }

    /// The past records according to `me`, whose work under way has seen `mine`, which it acknowledges.
    fn done(self, me: usize, mine: Seen) -> Bits {
        let mut done = self.past();
        if (0..CLIENTS).any(|client| self.complete(client) < self.mentioned(client)) {
            return done;
        }
        let forgotten = self.links().fold(0, |all, (client, number, record)| match record.body {
            Body::Forget(snapshots) if self.may_delete(client, number, me, mine, 0) => all | snapshots,
            _ => all,
        });
        let is_free = |client: usize, number: u8, record: &Record| {
            number < self.complete(client)
                && (client == me || number <= mine[client])
                && (0..CLIENTS).all(|other| other == me || record.seen[other] <= mine[other])
                // Its packs were swept, as far as is known here.
                && record.claims & !self.view.gone == 0
        };
        for (client, number, record) in
            self.links().filter(|(client, number, record)| is_free(*client, *number, record))
        {
            let bit = snapshot_bit(client, usize::from(number) - 1);
            if record.body == Body::Snapshot && forgotten & bit != 0 || matches!(record.body, Body::Merge(_)) {
                done[client] |= 1 << (number - 1);
            }
        }
        let snapshots = (0..CLIENTS).fold(0, |all, client| all | Snapshots::from(done[client]) << (client * RECORDS));
        for (client, number, record) in
            self.links().filter(|(client, number, record)| is_free(*client, *number, record))
        {
            if let Body::Forget(names) = record.body
                && (names & !snapshots == 0 || self.weakness == Weakness::ForgetAlone)
            {
                done[client] |= 1 << (number - 1);
            }
        }
        done
    }

    /// Whether a snapshot is listed although a record here, or a past record, forgets it.
    pub fn remembers_forgotten(self) -> bool {
        let (readable, snapshots) = (self.readable(), self.snapshots());
        (0..CLIENTS).any(|client| {
            (0..RECORDS).filter(|index| readable[client] >> index & 1 == 1).any(|index| {
                matches!(self.records[client][index], Some(Record { body: Body::Forget(names), .. }) if names & snapshots != 0)
            })
        })
    }

    /// Whether `me` is the only known client.
    pub fn is_alone(self, me: usize) -> bool {
        self.active().all(|client| client == me)
    }

    /// The objects that `me` may delete: for each, one merge that stays and that all have acknowledged holds it and
    /// all records in it.
    pub fn superfluous(self, me: usize, mine: Seen) -> [u8; CLIENTS] {
        let may_rely =
            |client, number| self.weakness == Weakness::EarlyTakeOut || self.may_delete(client, number, me, mine, 0);
        let relied: Vec<_> = self.merges().filter(|(client, number, _)| may_rely(*client, *number)).collect();
        let past = self.past();
        let among = |is_usable: &dyn Fn(usize, u8) -> bool| {
            let mut found = [0; CLIENTS];
            for (client, objects) in found.iter_mut().enumerate() {
                for index in (0..RECORDS).filter(|index| self.view.records[client] >> index & 1 == 1) {
                    let mut all = match self.records[client][index] {
                        Some(Record { body: Body::Merge(held), .. }) => held.all,
                        _ => [0; CLIENTS],
                    };
                    all[client] |= 1 << index;
                    // The merge holds all records of the object, and in the same form.
                    let says = |held: &Held, client: usize| {
                        all[client] & (!held.all[client] | past[client] ^ held.past[client]) == 0
                    };
                    let holds = |held: &Held| (0..CLIENTS).all(|client| says(held, client));
                    if relied.iter().any(|(client, number, held)| is_usable(*client, *number) && holds(held)) {
                        *objects |= 1 << index;
                    }
                }
            }
            found
        };
        let gone = among(&|_, _| true);
        among(&|client, number| gone[client] >> (number - 1) & 1 == 0)
    }

    /// The condemned packs that `me` may delete if no snapshot needs them.
    pub fn deletable(self, me: usize, mine: Seen, clock: u8) -> Packs {
        let mut free = 0;
        for (client, number, record) in self.links() {
            if let Body::Condemn(packs) = record.body
                && self.may_delete(client, number, me, mine, clock)
            {
                free |= packs;
            }
        }
        free & self.view.packs
    }
}
