//! The snapshots of a vault: their dates, their order, their pins, and which of them replace others (SPEC §8.3).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::id::{ClientId, Digest, ObjectName, VaultId};
use crate::log::{Chains, Dated, FoundRecord, Link, Order, Record, RecordBody};
use crate::path::components;
use crate::tree::{Root, Snapshot, Time};
use crate::vault::{Vault, VaultError};

/// A snapshot according to the log.
#[derive(Debug, Clone)]
pub struct SnapshotInfo {
    /// Its id: the name of its record.
    pub id: ObjectName,
    /// The client that took it. Its record may be that of another client, which replaced the original snapshot.
    pub client: ClientId,
    /// Number of its record, in the chain of the client that put the record.
    pub number: u64,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Its effective date, by which snapshots are ordered, named and kept.
    pub date: Time,
    /// Whether the clock was wrong when it was taken, so that its date is an estimate: retention keeps it in addition
    /// to others.
    pub is_outlier: bool,
    /// The date of an earlier outlier that may be right, with its own being wrong.
    pub rival: Option<Time>,
    /// Its former ids: those of all snapshots that it replaces, in rising order.
    pub replaced: Vec<ObjectName>,
    /// Body of the record.
    pub body: Snapshot,
}

impl SnapshotInfo {
    /// A snapshot of which only the record is known.
    pub fn new(id: ObjectName, client: ClientId, number: u64, body: Snapshot) -> Self {
        let date = body.time;
        Self { id, client, number, pinned: false, date, is_outlier: false, rival: None, replaced: Vec::new(), body }
    }

    /// Whether it is the snapshot of this id, or the one that replaces it.
    pub fn stands_for(&self, id: &ObjectName) -> bool {
        self.id == *id || self.replaced.contains(id)
    }

    /// Whether a path inside the snapshot lies in one of its roots. A root that was not mounted contains nothing.
    pub fn covers(&self, path: &[u8]) -> bool {
        let (roots, first) = (&self.body.roots, components(path).next());
        first.is_none_or(|first| roots.is_empty() || roots.iter().any(|root| !root.lost && root.name == first))
    }

    /// Whether one of its roots was probably not mounted. Such a snapshot does not count: it is no proof of anything, and takes no slot of
    /// a rule.
    pub fn has_lost_root(&self) -> bool {
        self.body.roots.iter().any(|root| root.lost)
    }

    /// The roots that were probably not mounted, of those that what is read at a path comes from. `skipped`: the paths that the snapshot
    /// could not save, where they are known; a disk that is missing below a root is none of the paths beside it.
    pub(crate) fn lost_at<'s>(&'s self, path: &[u8], skipped: Option<&BTreeSet<Vec<u8>>>) -> Vec<&'s Root> {
        let path: Vec<u8> = components(path).collect::<Vec<_>>().join(&b'/');
        let is_in = |folder: &[u8], path: &[u8]| {
            folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let is_met = |lost: &Vec<u8>| is_in(lost, &path) || is_in(&path, lost);
        let is_meant = |root: &&Root| {
            let is_whole = is_in(&path, &root.name);
            let is_there = is_whole || is_in(&root.name, &path) && skipped.is_none_or(|all| all.iter().any(is_met));
            root.lost && is_there
        };
        self.body.roots.iter().filter(is_meant).collect()
    }
}

/// A change of a snapshot that has no effect.
pub(crate) struct VoidChange {
    /// The snapshot as it is.
    pub(crate) snapshot: ObjectName,
    /// The snapshot as the record of the change has it.
    pub(crate) change: SnapshotInfo,
    /// The snapshot from which the change was made; `None` if its record is gone.
    pub(crate) made_of: Option<Snapshot>,
    /// The machine that made the change.
    pub(crate) host: String,
    /// Nobody may have waited for that machine: what the change needs may be gone.
    pub(crate) is_doubted: bool,
}

/// Date of a snapshot, and its position among others of the same date.
#[derive(Clone, Copy)]
struct Place {
    date: Time,
    position: usize,
    is_outlier: bool,
    rival: Option<Time>,
    client: ClientId,
}

impl Vault {
    /// The snapshots that are not forgotten and that no other one replaces, the oldest first: by their effective dates,
    /// and those of one date by cause.
    pub fn snapshots(&self) -> Vec<SnapshotInfo> {
        list(&self.log().chains)
    }

    /// The snapshots as they would be if these records were in the log as well, the oldest first.
    pub(crate) fn snapshots_with<'f>(&self, found: impl Iterator<Item = &'f FoundRecord>) -> Vec<SnapshotInfo> {
        let mut chains = Chains::clone(&self.chains());
        for FoundRecord { name, digest, plain } in found {
            if let Ok(record) = Record::decode(plain) {
                chains.push(Link { name: *name, digest: *digest, record });
            }
        }
        list(&chains)
    }

    /// The snapshots as they would be if the store had all records that this machine remembers, the oldest first;
    /// `None` if it has all of them.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn remembered_snapshots(&self) -> Result<Option<Vec<SnapshotInfo>>, VaultError> {
        let missing = self.missing_records()?.records;
        Ok((!missing.is_empty()).then(|| self.snapshots_with(missing.iter())))
    }

    /// The snapshot with this id, or the one that replaces it, if it is not forgotten.
    pub fn snapshot(&self, id: &ObjectName) -> Option<SnapshotInfo> {
        self.snapshots().into_iter().find(|snapshot| snapshot.stands_for(id))
    }

    /// The snapshots among these about which a later version has said more than this one knows.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub(crate) fn said_by_later(
        &self,
        ids: impl Iterator<Item = ObjectName>,
    ) -> Result<HashSet<ObjectName>, VaultError> {
        let (chains, reader) = (self.chains(), self.catalogue().reader()?);
        let plain_of = |name: &ObjectName| -> Result<Option<Vec<u8>>, VaultError> {
            Ok(reader.record(name)?.map(|value| value.get(Digest::LEN..).unwrap_or_default().to_vec()))
        };
        let is_more = |plain: &[u8]| Record::says_more(plain).unwrap_or(false);
        let (mut found, mut held) = (HashSet::new(), HashSet::new());
        for id in ids {
            match plain_of(&id)? {
                Some(plain) => found.extend(is_more(&plain).then_some(id)),
                None => drop(held.insert(id)),
            }
        }
        // Other records hold these.
        for holder in chains.links().filter(|link| chains.is_holder(&link.name)) {
            if held.is_empty() {
                break;
            }
            let record = plain_of(&holder.name)?.and_then(|plain| Record::decode(&plain).ok());
            if let Some(RecordBody::Found(inner)) = record.map(|record| record.body) {
                let of_these = inner.records.iter().filter(|record| held.remove(&record.name));
                found.extend(of_these.filter(|record| is_more(&record.plain)).map(|record| record.name));
            }
        }
        Ok(found)
    }

    /// Snapshots that were meant to replace one of these, directly or by way of others: the last of each such chain. Of
    /// several that replace the same snapshot only one counts, and the content of the others would be lost. Forgotten
    /// ones are left out; the second result tells whether any of all these was forgotten.
    pub(crate) fn meant_for(&self, names: &[ObjectName]) -> (Vec<SnapshotInfo>, bool) {
        let chains = self.chains();
        let (mut forgotten, mut above): (HashSet<ObjectName>, HashMap<ObjectName, Vec<&Link>>) = Default::default();
        for link in chains.links() {
            match &link.record.body {
                RecordBody::Forget(names) => forgotten.extend(names),
                RecordBody::Snapshot(body) => {
                    body.replaces.iter().for_each(|other| above.entry(*other).or_default().push(link));
                }
                _ => {}
            }
        }
        let is_gone = |name: &ObjectName| forgotten.contains(name) || chains.is_past(name);
        let (mut look, mut seen, mut found) = (names.to_vec(), HashSet::new(), Vec::new());
        let mut is_forgotten = names.iter().any(is_gone);
        while let Some(name) = look.pop() {
            for link in above.get(&name).into_iter().flatten().filter(|link| seen.insert(link.name)) {
                look.push(link.name);
                is_forgotten |= is_gone(&link.name);
                if let RecordBody::Snapshot(body) = &link.record.body
                    && !above.contains_key(&link.name)
                    && !is_gone(&link.name)
                {
                    let body = Snapshot::clone(body);
                    found.push(SnapshotInfo::new(link.name, link.record.client, link.record.number, body));
                }
            }
        }
        found.sort_by_key(|info| info.id);
        (found, is_forgotten)
    }

    /// A snapshot as it was under a former id: `None` if it never had that id, or if that one was forgotten. Its date
    /// and position are those of `info`, the present snapshot.
    pub fn snapshot_before(&self, info: &SnapshotInfo, id: &ObjectName) -> Option<SnapshotInfo> {
        let chains = self.chains();
        let names = |link: &Link| matches!(&link.record.body, RecordBody::Forget(names) if names.contains(id));
        if !info.replaced.contains(id) || chains.links().any(names) {
            return None;
        }
        let link = chains.links().find(|link| link.name == *id)?;
        let RecordBody::Snapshot(body) = &link.record.body else { return None };
        let (number, body) = (link.record.number, Snapshot::clone(body));
        Some(SnapshotInfo { id: *id, number, replaced: Vec::new(), body, ..info.clone() })
    }

    /// Changes of snapshots that have no effect, since others changed the same snapshots at the same time, and that no
    /// counting snapshot names. That somebody has seen such a change does not settle it: its effect is missing until a
    /// later change takes it over, and names it.
    pub(crate) fn void_changes(&self) -> Vec<VoidChange> {
        void_changes(&self.chains())
    }

    /// Changes in doubt that nobody has settled yet (SPEC §8.3), in the order of cause: each with the snapshot that
    /// stands in its place now. They may have been reported, and all of their data may be there.
    pub(crate) fn doubted(&self) -> Vec<(SnapshotInfo, ObjectName)> {
        let chains = self.chains();
        if chains.put_unawaited().is_empty() {
            return Vec::new();
        }
        let doubted = self.void_changes().into_iter().filter(|void| void.is_doubted);
        doubted.map(|void| (void.change, void.snapshot)).collect()
    }

    /// The snapshots whose data must not be deleted: those that are listed, and those that may or may not count.
    pub(crate) fn needed(&self) -> Vec<SnapshotInfo> {
        let mut needed = self.snapshots();
        if self.rules.doubted {
            needed.extend(self.doubted().into_iter().map(|(info, _)| info));
        }
        needed
    }

    /// The identity of each snapshot record in all vaults: its original, or itself. Includes replaced snapshots.
    pub fn origins(&self) -> HashMap<ObjectName, (VaultId, ObjectName)> {
        let log = self.log();
        let origin = |link: &Link| match &link.record.body {
            RecordBody::Snapshot(body) => Some((link.name, body.origin_in(self.id(), link.name))),
            _ => None,
        };
        log.chains.links().filter_map(origin).collect()
    }

    /// The clients that this machine is, or was before it lost its state.
    pub fn own_clients(&self) -> BTreeSet<ClientId> {
        let Some(client) = self.client() else { return BTreeSet::new() };
        let log = self.log();
        let order = log.chains.order();
        let place = |link: &Link| order.get(&link.name).map(|dated| dated.place);
        let own = log.chains.last(&client).and_then(place);
        let last = log.chains.clients.keys().filter_map(|client| log.chains.last(client));
        let same = last.filter(|link| own.is_some() && place(link) == own).map(|link| link.record.client);
        same.chain([client]).collect()
    }
}

/// The changes without effect of these records, as [`Vault::void_changes`] returns them.
fn void_changes(chains: &Chains) -> Vec<VoidChange> {
    let order = chains.order();
    let (taken, forgotten) = taken(chains, &order);
    let links: HashMap<ObjectName, (&Link, &Snapshot)> =
        taken.iter().map(|(link, body, _)| (link.name, (*link, *body))).collect();
    let unawaited = unawaited(chains, &taken, &forgotten);
    let replaced = Replaced::new(&taken, &unawaited);
    let change = |(link, body, _): &(&Link, &Snapshot, Dated)| {
        if !replaced.void.contains(&link.name) || replaced.by.contains_key(&link.name) || forgotten.contains(&link.name)
        {
            return None;
        }
        let Record { client, number, .. } = link.record;
        let is_doubted = unawaited.contains(&link.name);
        // The base of a change may count as little as the change itself.
        let (mut base, mut below) = (*body.replaces.first()?, HashSet::new());
        while unawaited.contains(&base)
            && below.insert(base)
            && let Some(first) = links.get(&base).and_then(|(_, body)| body.replaces.first())
        {
            base = *first;
        }
        let mut above = replaced.by.get(&base);
        let mut stands = is_doubted.then_some(base);
        while let Some((other, said)) = above.and_then(|name| links.get(name)) {
            if **said == (Snapshot { replaces: said.replaces.clone(), ..(*body).clone() }) {
                return None;
            }
            (stands, above) = (Some(other.name), replaced.by.get(&other.name));
        }
        let snapshot = stands.filter(|name| !forgotten.contains(name))?;
        let host = chains.join(&client).map_or_else(|| client.to_string(), |join| join.host.clone());
        let change = SnapshotInfo::new(link.name, client, number, Snapshot::clone(body));
        let made_of = links.get(&base).map(|(_, body)| Snapshot::clone(body));
        Some(VoidChange { snapshot, change, made_of, host, is_doubted })
    };
    taken.iter().filter_map(change).collect()
}

/// The snapshots of these records, as [`Vault::snapshots`] returns them.
pub(crate) fn list(chains: &Chains) -> Vec<SnapshotInfo> {
    let order = chains.order();
    // The last statement about each pin, with its date and position.
    let mut pins: HashMap<ObjectName, ((Time, usize), bool)> = HashMap::new();
    for link in chains.links() {
        if let (Some(dated), RecordBody::Pin { snapshots, pinned }) = (order.get(&link.name), &link.record.body) {
            let word = ((dated.time, dated.position), *pinned);
            for name in snapshots {
                let last = pins.entry(*name).or_insert(word);
                *last = (*last).max(word);
            }
        }
    }
    let (taken, forgotten) = taken(chains, &order);
    let (replaced, places) = (Replaced::new(&taken, &unawaited(chains, &taken, &forgotten)), settled(&taken));
    let mut found: Vec<(usize, SnapshotInfo)> = Vec::new();
    for (link, body, _) in &taken {
        if forgotten.contains(&link.name) || replaced.is_hidden(&link.name) {
            continue;
        }
        let Some(place) = places.get(&link.name) else { continue };
        let others = replaced.by(&link.name);
        let names = || others.iter().chain([&link.name]);
        // Pins of changes that came too late are meant for it, too.
        let beaten = names().filter_map(|name| replaced.beaten.get(name)).flatten();
        let pin = names().chain(beaten).filter_map(|name| pins.get(name)).max();
        found.push((
            place.position,
            SnapshotInfo {
                pinned: pin.is_some_and(|(_, pinned)| *pinned),
                date: place.date,
                is_outlier: place.is_outlier,
                rival: place.rival,
                replaced: others.into_iter().collect(),
                ..SnapshotInfo::new(link.name, place.client, link.record.number, Snapshot::clone(body))
            },
        ));
    }
    found.sort_by_key(|(position, info)| (info.date, *position));
    found.into_iter().map(|(_, info)| info).collect()
}

/// Snapshots that replace nothing, since a prune may not have waited for them. Forgotten ones are not among them:
/// they were listed when they were forgotten, and the snapshots that they replaced do not come back. Nor are those
/// that a counting snapshot names: its writer had looked at them.
fn unawaited(
    chains: &Chains,
    taken: &[(&Link, &Snapshot, Dated)],
    forgotten: &HashSet<ObjectName>,
) -> HashSet<ObjectName> {
    let mut found: HashSet<ObjectName> = chains.put_unawaited().difference(forgotten).copied().collect();
    let mut named: HashSet<ObjectName> = HashSet::new();
    if found.is_empty() {
        return found;
    }
    for (link, body, _) in taken.iter().rev() {
        if named.contains(&link.name) || !found.contains(&link.name) {
            found.remove(&link.name);
            named.extend(&body.replaces);
        }
    }
    found
}

/// The snapshot records, in the order of cause, and the names of those that are forgotten.
fn taken<'c>(chains: &'c Chains, order: &Order) -> (Vec<(&'c Link, &'c Snapshot, Dated)>, HashSet<ObjectName>) {
    let (mut taken, mut forgotten): (Vec<(&Link, &Snapshot, Dated)>, _) = (Vec::new(), HashSet::new());
    for link in chains.links() {
        let Some(dated) = order.get(&link.name).copied() else { continue };
        match &link.record.body {
            RecordBody::Forget(names) => forgotten.extend(names.iter().copied()),
            RecordBody::Snapshot(body) => taken.push((link, body, dated)),
            _ => {}
        }
    }
    taken.sort_unstable_by_key(|(.., dated)| dated.position);
    (taken, forgotten)
}

/// The dates of snapshots, which come in the order of cause.
///
/// A given date is that of the content, so it is believed, unless it lies after the snapshot was taken. A clock's date
/// is that of the beginning: it is believed unless it lies after that of its record, or before that of an earlier
/// snapshot of the same source from the same place.
fn places(taken: &[(&Link, &Snapshot, Dated)]) -> HashMap<ObjectName, Place> {
    let mut last: HashMap<(usize, &str, &str), Time> = HashMap::new();
    let mut places = HashMap::new();
    for (link, body, dated) in taken {
        let (position, client) = (dated.position, link.record.client);
        let time = own_time(body, dated);
        if body.is_dated() {
            // Whether the clock was right matters only if the given date is compared with it.
            let is_held = body.time > dated.time;
            let time = body.time.min(dated.time);
            let (was_uncertain, rival) =
                body.origin.as_ref().map_or((false, None), |origin| (origin.uncertain, origin.rival));
            let is_outlier = was_uncertain || is_held && dated.is_outlier;
            let rival = rival.or(dated.rival.filter(|_| is_held));
            places.insert(link.name, Place { date: time, position, is_outlier, rival, client });
            continue;
        }
        let last = last.entry(row(body, dated)).or_insert(time);
        let is_outlier = dated.is_outlier || time < *last;
        *last = time.max(*last);
        places.insert(link.name, Place { date: *last, position, is_outlier, rival: dated.rival, client });
    }
    places
}

/// The places of snapshots, which come in the order of cause. A snapshot that replaces others takes the place of the
/// last of those that is known, and has none of its own, unless it was redated.
fn settled(taken: &[(&Link, &Snapshot, Dated)]) -> HashMap<ObjectName, Place> {
    let own = places(taken);
    let mut settled: HashMap<ObjectName, Place> = HashMap::new();
    for (link, body, _) in taken {
        let Some(own) = own.get(&link.name).copied() else { continue };
        // Earlier ones already have their places, and no others count.
        let last = body.replaces.iter().filter_map(|other| settled.get(other));
        let last = last.max_by_key(|place| (place.date, place.position)).copied();
        let place = match last {
            Some(last) if body.redated => Place { client: last.client, ..own },
            Some(last) => last,
            None => own,
        };
        settled.insert(link.name, place);
    }
    settled
}

/// When a snapshot was begun, according to its own record.
fn own_time(body: &Snapshot, dated: &Dated) -> Time {
    if dated.is_outlier { dated.time } else { body.time.min(dated.time) }
}

/// Key of snapshots whose dates follow each other: place, source and host.
fn row<'s>(body: &'s Snapshot, dated: &Dated) -> (usize, &'s str, &'s str) {
    (dated.place, &body.source, &body.host)
}

/// Forgotten snapshots that are past (SPEC §8.10): every client knows that they are forgotten, they neither replace
/// others nor are replaced, and no later snapshot gets its date from them.
pub(crate) fn done(chains: &Chains, is_heard: impl Fn(&Link) -> bool) -> HashSet<ObjectName> {
    let order = chains.order();
    let (mut forgotten, mut replaced): (HashSet<ObjectName>, HashSet<ObjectName>) = Default::default();
    let mut taken: Vec<(&Link, &Snapshot, Dated)> = Vec::new();
    for link in chains.links() {
        let Some(dated) = order.get(&link.name).copied() else { continue };
        match &link.record.body {
            RecordBody::Forget(names) if is_heard(link) => forgotten.extend(names),
            RecordBody::Snapshot(body) => {
                replaced.extend(&body.replaces);
                taken.push((link, body, dated));
            }
            _ => {}
        }
    }
    taken.sort_unstable_by_key(|(.., dated)| dated.position);
    let places = places(&taken);
    let positions: HashMap<ObjectName, usize> =
        taken.iter().map(|(link, _, dated)| (link.name, dated.position)).collect();
    // A snapshot that replaces another has the date of that one.
    let is_earlier = |other: &ObjectName, dated: &Dated| positions.get(other).is_some_and(|at| *at < dated.position);
    let has_none =
        |body: &Snapshot, dated| body.is_dated() || body.replaces.iter().any(|other| is_earlier(other, dated));
    // The time of the next needed snapshot of the same row. If a snapshot's date is not after that time, it does not
    // affect the dates of later ones.
    let mut next: HashMap<(usize, &str, &str), Time> = HashMap::new();
    let mut done = HashSet::new();
    for (link, body, dated) in taken.iter().rev() {
        let is_free = forgotten.contains(&link.name) && body.replaces.is_empty() && !replaced.contains(&link.name);
        let date = places.get(&link.name).map(|place| place.date);
        let is_past = body.is_dated() || next.get(&row(body, dated)).copied() >= date;
        if is_free && is_past {
            done.insert(link.name);
        } else if !has_none(body, dated) {
            next.insert(row(body, dated), own_time(body, dated));
        }
    }
    done
}

/// Which snapshots replace which.
struct Replaced {
    /// For each replaced snapshot, its replacement. If there are several, the one with the lowest name.
    by: HashMap<ObjectName, ObjectName>,
    /// For each replacement, the snapshots that it replaces.
    others: BTreeMap<ObjectName, Vec<ObjectName>>,
    /// Replacements that lost to others in all snapshots that they name, and those of writers for whom nobody waited:
    /// packs that these rely on may be gone, so they replace nothing. The client that put one of those puts it again.
    void: HashSet<ObjectName>,
    /// For each winning replacement, those that lost to it.
    beaten: HashMap<ObjectName, Vec<ObjectName>>,
}

impl Replaced {
    fn new(taken: &[(&Link, &Snapshot, Dated)], unawaited: &HashSet<ObjectName>) -> Self {
        // Only a snapshot that comes earlier by cause can be replaced: so none ever replaces itself, in a circle.
        let positions: HashMap<ObjectName, usize> =
            taken.iter().map(|(link, _, dated)| (link.name, dated.position)).collect();
        let earlier = |dated: &Dated, other: &ObjectName| positions.get(other).is_none_or(|at| *at < dated.position);
        let mut by: HashMap<ObjectName, ObjectName> = HashMap::new();
        for (link, body, dated) in taken.iter().filter(|(link, ..)| !unawaited.contains(&link.name)) {
            for other in body.replaces.iter().filter(|other| earlier(dated, other)) {
                let winner = by.entry(*other).or_insert(link.name);
                *winner = (*winner).min(link.name);
            }
        }
        let mut others: BTreeMap<ObjectName, Vec<ObjectName>> = BTreeMap::new();
        for (other, winner) in &by {
            others.entry(*winner).or_default().push(*other);
        }
        let void = |(link, body, dated): &&(&Link, &Snapshot, Dated)| {
            body.replaces.iter().any(|other| earlier(dated, other)) && !others.contains_key(&link.name)
        };
        let (mut void_names, mut beaten): (HashSet<ObjectName>, HashMap<ObjectName, Vec<ObjectName>>) =
            (HashSet::new(), HashMap::new());
        for (link, body, dated) in taken.iter().filter(void) {
            void_names.insert(link.name);
            for winner in body.replaces.iter().filter(|other| earlier(dated, other)).filter_map(|other| by.get(other)) {
                beaten.entry(*winner).or_default().push(link.name);
            }
        }
        Self { by, others, void: void_names, beaten }
    }

    fn is_hidden(&self, name: &ObjectName) -> bool {
        self.by.contains_key(name) || self.void.contains(name)
    }

    /// All snapshots that a snapshot replaces, directly or by way of others.
    fn by(&self, name: &ObjectName) -> BTreeSet<ObjectName> {
        let mut found = BTreeSet::new();
        let mut look = vec![*name];
        while let Some(name) = look.pop() {
            let others = self.others.get(&name).into_iter().flatten().copied();
            look.extend(others.filter(|other| found.insert(*other)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;
    use crate::msgpack;
    use crate::tree::{Origin, Stream};

    const DAY: i64 = 86_400;

    const fn day(number: i64) -> Time {
        Time { secs: number * DAY, nanos: 0 }
    }

    fn body(time: i64, given: bool, replaces: &[u8]) -> Snapshot {
        Snapshot {
            time: day(time),
            source: "s".to_owned(),
            host: "h".to_owned(),
            given,
            replaces: replaces.iter().map(|name| ObjectName::new([*name; 16])).collect(),
            ..crate::tree::snapshot::testing::empty()
        }
    }

    /// Equal snapshots have equal bytes only if all writers put the keys in one order, that of SPEC §8.3.
    #[test]
    fn the_spec_has_the_keys_in_the_order_in_which_they_are_written() {
        let stream = Stream { len: 1, depth: 0, ids: vec![ChunkId::new([0; ChunkId::LEN])] };
        let origin = Origin {
            vault: VaultId::new([0; 16]),
            snapshot: ObjectName::new([0; 16]),
            uncertain: true,
            rival: None,
            partial: true,
        };
        let every = Snapshot { rules: stream, redated: true, origin: Some(origin), ..body(1, true, &[1]) };
        let bytes = msgpack::encode(&every).unwrap();
        let (_, text) = include_str!("../../SPEC.md").split_once("### 8.3 Snapshot").unwrap();
        let rows = text.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
        let keys: Vec<&str> = rows
            .filter_map(|row| row.split('|').nth(1))
            .flat_map(|names| names.split('`').skip(1).step_by(2))
            .collect();
        // Keys of nested maps have one letter.
        let mut written = msgpack::keys(&bytes).unwrap();
        written.retain(|key| key.len() > 1);
        assert_eq!(written, keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>());
        let mut at = 0;
        for key in keys {
            let wanted = [&[0xa0 | key.len() as u8][..], key.as_bytes()].concat();
            let found = bytes[at..].windows(wanted.len()).position(|window| window == wanted);
            at += found.unwrap_or_else(|| panic!("{key} comes earlier")) + wanted.len();
        }
    }

    fn snapshot(time: i64, given: bool, replaces: &[u8]) -> RecordBody {
        RecordBody::Snapshot(Box::new(body(time, given, replaces)))
    }

    /// Records of client 1, by day; their names are their numbers.
    fn chains(records: Vec<(i64, RecordBody)>) -> Chains {
        Chains::new((1..).zip(records).map(|(number, (time, body))| Link {
            name: ObjectName::new([number; 16]),
            digest: Digest::new([number; 32]),
            record: Record {
                client: ClientId::new([1; 16]),
                number: u64::from(number),
                previous: Digest::new([number - 1; 32]),
                seen: Vec::new(),
                time: day(time),
                claims: Vec::new(),
                closed: Vec::new(),
                body,
            },
        }))
    }

    fn any_record() -> Record {
        chains(vec![(1, RecordBody::Forget(Vec::new()))]).links().next().unwrap().record.clone()
    }

    /// Names, effective days, and a mark: `!` an outlier, `p` pinned.
    fn check(records: Vec<(i64, RecordBody)>, expected: &[&str]) {
        let shown = |info: &SnapshotInfo| {
            let marks = [(info.is_outlier, "!"), (info.pinned, "p")];
            let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
            format!("{}@{}{marks}", info.number, info.date.secs / DAY)
        };
        let found: Vec<String> = list(&chains(records)).iter().map(shown).collect();
        assert_eq!(found, expected);
    }

    fn name(number: u8) -> ObjectName {
        ObjectName::new([number; 16])
    }

    /// One client's record, by number and name, which had seen these numbers of other clients.
    fn link(client: u8, number: u64, own: u8, seen: &[(u8, u64)], body: RecordBody) -> Link {
        let seen = seen.iter().map(|(other, number)| (ClientId::new([*other; 16]), *number)).collect();
        let record = Record { client: ClientId::new([client; 16]), number, seen, body, ..any_record() };
        let previous = Digest::new([if number == 1 { 0 } else { client * 16 + number as u8 - 1 }; 32]);
        let digest = Digest::new([client * 16 + number as u8; 32]);
        Link { name: name(own), digest, record: Record { previous, ..record } }
    }

    fn tagged(tag: &str, replaces: &[u8]) -> RecordBody {
        RecordBody::Snapshot(Box::new(Snapshot { tags: vec![tag.to_owned()], ..body(1, false, replaces) }))
    }

    fn void(links: &[Link]) -> Vec<(ObjectName, bool)> {
        let voids = void_changes(&Chains::new(links.iter().cloned()));
        voids.into_iter().map(|void| (void.change.id, void.is_doubted)).collect()
    }

    #[test]
    fn a_change_stays_without_effect_until_it_is_named() {
        // Client 2 changes the snapshot 9. Client 1 sees that before it puts its own change.
        let mut links = vec![
            link(1, 1, 9, &[], snapshot(1, false, &[])),
            link(2, 1, 8, &[(1, 1)], tagged("two", &[9])),
            link(1, 2, 7, &[(2, 1)], tagged("one", &[9])),
        ];
        assert_eq!(void(&links), [(name(8), false)]);
        links.push(link(1, 3, 6, &[(2, 1)], tagged("later", &[7])));
        assert_eq!(void(&links), [(name(8), false)], "the later change says nothing of it");
        let named = [&links[..], &[link(1, 4, 5, &[(2, 1)], tagged("both", &[6, 8]))]].concat();
        assert_eq!(void(&named), []);
        let same = [&links[..], &[link(1, 4, 5, &[(2, 1)], tagged("two", &[6]))]].concat();
        assert_eq!(void(&same), [], "the snapshot says the same");
        links.push(link(1, 4, 5, &[(2, 1)], RecordBody::Forget(vec![name(6)])));
        assert_eq!(void(&links), [], "the snapshot is forgotten");
    }

    #[test]
    fn a_change_stays_in_doubt_until_it_is_named() {
        let retire = RecordBody::Retire(vec![ClientId::new([2; 16])]);
        let mut links = vec![
            link(1, 1, 9, &[], snapshot(1, false, &[])),
            link(2, 1, 5, &[(1, 1)], RecordBody::Forget(Vec::new())),
            link(1, 2, 4, &[(2, 1)], retire),
            link(2, 2, 3, &[(1, 1)], tagged("doubted", &[9])),
        ];
        assert_eq!(void(&links), [(name(3), true)]);
        // Later changes see it, and do not name it: their writers may have ended before they looked.
        links.push(link(1, 3, 7, &[(2, 2)], tagged("one", &[9])));
        assert_eq!(void(&links), [(name(3), true)]);
        links.push(link(1, 4, 6, &[(2, 2)], tagged("later", &[7])));
        assert_eq!(void(&links), [(name(3), true)]);
        let named = [&links[..], &[link(1, 5, 2, &[(2, 2)], tagged("both", &[6, 3]))]].concat();
        assert_eq!(void(&named), []);
        // What it is meant for is forgotten.
        links.push(link(1, 5, 2, &[(2, 2)], RecordBody::Forget(vec![name(6)])));
        assert_eq!(void(&links), []);
    }

    #[test]
    fn an_archive_of_long_ago_is_never_the_latest() {
        let records =
            vec![(100, snapshot(100, false, &[])), (101, snapshot(7, true, &[])), (102, snapshot(5, true, &[]))];
        check(records, &["3@5", "2@7", "1@100"]);
    }

    #[test]
    fn a_given_date_is_never_after_the_snapshot_was_taken() {
        check(vec![(100, snapshot(900, true, &[])), (101, snapshot(101, false, &[]))], &["1@100", "2@101"]);
    }

    #[test]
    fn a_copy_has_the_date_of_what_it_is_a_copy_of() {
        let copy = |time, uncertain| {
            let (vault, snapshot) = (VaultId::new([7; 16]), name(9));
            let rival = (time == 7).then_some(day(6));
            let origin = Some(Origin { vault, snapshot, uncertain, rival, partial: false });
            RecordBody::Snapshot(Box::new(Snapshot { origin, ..body(time, false, &[]) }))
        };
        // Copied on day 101 and later, whatever was taken there before.
        let records = vec![
            (100, snapshot(100, false, &[])),
            (101, copy(7, false)),
            (102, copy(5, true)),
            (103, snapshot(103, false, &[])),
            (104, copy(900, false)),
        ];
        let rivals: Vec<Option<Time>> = list(&chains(records.clone())).iter().map(|info| info.rival).collect();
        assert_eq!(rivals, [None, Some(day(6)), None, None, None]);
        check(records, &["3@5!", "2@7", "1@100", "4@103", "5@104"]);
    }

    #[test]
    fn a_clock_that_was_wrong_once_moves_no_other_date() {
        let at = |day| (day, snapshot(day, false, &[]));
        check(vec![at(100), at(9000), at(101), at(102)], &["1@100", "2@101!", "3@101", "4@102"]);
        check(vec![at(100), at(101), at(3), at(102)], &["1@100", "2@101", "3@101!", "4@102"]);
        // The clock was corrected while the snapshot was taken.
        check(vec![at(100), (101, snapshot(9000, false, &[])), at(102)], &["1@100", "2@101", "3@102"]);
        check(vec![at(100), (101, snapshot(0, false, &[])), at(102)], &["1@100", "2@100!", "3@102"]);
    }

    #[test]
    fn what_replaces_a_snapshot_takes_its_place_its_date_and_its_pin() {
        let at = |day| (day, snapshot(day, false, &[]));
        let pin = |name_: u8| RecordBody::Pin { snapshots: vec![name(name_)], pinned: true };
        check(vec![at(1), (2, pin(1)), at(3), (4, snapshot(4, false, &[1]))], &["4@1p", "3@3"]);
        // Forgetting the old one does not forget the new one, and forgetting the new one does not restore the old
        // one.
        let forget = |name_: u8| RecordBody::Forget(vec![name(name_)]);
        check(vec![at(1), (2, snapshot(2, false, &[1])), (3, forget(1))], &["2@1"]);
        check(vec![at(1), (2, snapshot(2, false, &[1])), (3, forget(2))], &[]);
        // Of two, the one with the lower name counts; one that replaces a replacement takes that place, too.
        check(vec![at(1), (2, snapshot(2, false, &[1])), (3, snapshot(3, false, &[1]))], &["2@1"]);
        check(vec![at(1), (2, snapshot(2, false, &[1])), (3, snapshot(3, false, &[2])), at(4)], &["3@1", "4@4"]);
        // A replacement that came too late has the same place, and so has one that replaces it.
        check(
            vec![
                at(5),
                at(7),
                (8, snapshot(5, false, &[1])),
                (9, snapshot(5, false, &[1])),
                (10, snapshot(5, false, &[4])),
            ],
            &["3@5", "5@5", "2@7"],
        );
        // A pin of a replacement that came too late is meant for the one that counts, and for its replacements.
        let too_late = vec![at(1), (2, snapshot(2, false, &[1])), (3, snapshot(3, false, &[1])), (4, pin(3))];
        check(too_late.clone(), &["2@1p"]);
        check([too_late, vec![(5, snapshot(5, false, &[2]))]].concat(), &["5@1p"]);
        // The replaced snapshot is not here: the replacement stands for itself. Two that replace each other cannot be
        // true.
        check(vec![at(1), (2, snapshot(2, false, &[77]))], &["1@1", "2@2"]);
        check(vec![(1, snapshot(1, false, &[2])), (2, snapshot(2, false, &[1]))], &["2@1"]);
    }

    #[test]
    fn what_was_redated_has_a_date_of_its_own_and_hands_it_on() {
        let at = |day| (day, snapshot(day, false, &[]));
        let redated = |time, replaces: &[u8]| {
            RecordBody::Snapshot(Box::new(Snapshot { redated: true, ..body(time, true, replaces) }))
        };
        let pin = |name_: u8| RecordBody::Pin { snapshots: vec![name(name_)], pinned: true };
        check(vec![at(5), (6, pin(1)), at(7), (8, redated(2, &[1]))], &["4@2p", "3@7"]);
        check(vec![at(5), at(7), (8, redated(2, &[2])), (9, snapshot(7, true, &[3]))], &["4@2", "1@5"]);
        // Never after its record, and later snapshots are dated as if it were not there.
        check(vec![at(5), (8, redated(900, &[1])), at(9)], &["2@8", "3@9"]);
    }

    #[test]
    fn who_took_a_snapshot_took_what_stands_in_its_place() {
        let by = |client: u8, number: u64, body: RecordBody| {
            let mut link = chains(vec![(1, body)]).links().next().unwrap().clone();
            link.name = name(10 * client + number as u8);
            link.record.client = ClientId::new([client; 16]);
            link.record.number = number;
            link.record.time = day(number.cast_signed());
            link.record.seen = vec![(ClientId::new([1; 16]), 1)];
            link
        };
        for redated in [false, true] {
            let mut other = body(1, redated, &[11]);
            other.redated = redated;
            let links = [by(1, 1, snapshot(1, false, &[])), by(2, 2, RecordBody::Snapshot(Box::new(other)))];
            let found = list(&Chains::new(links));
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].client, found[0].id), (ClientId::new([1; 16]), name(22)));
            assert_eq!(found[0].replaced, [name(11)]);
            assert!(found[0].stands_for(&name(11)) && found[0].stands_for(&name(22)) && !found[0].stands_for(&name(1)));
        }
    }

    #[test]
    fn what_replaces_others_keeps_no_forgotten_snapshot_from_being_past() {
        let forget = |name_: u8| RecordBody::Forget(vec![name(name_)]);
        let done_of = |records| {
            let mut done: Vec<ObjectName> = done(&chains(records), |_| true).into_iter().collect();
            done.sort_unstable();
            done
        };
        let at = |day| (day, snapshot(day, false, &[]));
        // 2 is forgotten, and 4, which has the date of 1, comes between it and the next one.
        let records = vec![at(1), at(3), (4, forget(2)), (5, snapshot(1, false, &[1])), at(6)];
        assert_eq!(done_of(records.clone()), [name(2)]);
        check(records, &["4@1", "5@6"]);
        assert_eq!(done_of(vec![at(1), at(3), (4, forget(2)), (5, snapshot(1, false, &[]))]), []);
    }

    #[test]
    fn what_a_later_version_says_of_a_snapshot_is_noticed() {
        let plain_of = |snapshot: &Snapshot, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
            let record = Record { body: RecordBody::Snapshot(Box::new(snapshot.clone())), ..any_record() };
            let (plain, inner) = (record.encode().unwrap(), crate::msgpack::encode(snapshot).unwrap());
            let len = u32::from_le_bytes(plain[..4].try_into().unwrap()) as usize;
            let at = plain.windows(inner.len()).position(|part| part == inner).unwrap();
            // The header of the bytes that hold the body: one byte for their length, or two.
            let head = at - if plain[at - 2] == 0xc4 { 2 } else { 3 };
            let (end, inner) = (at + inner.len(), change(inner));
            let size = (inner.len() as u16).to_be_bytes();
            let message = [&plain[4..head], &[0xc5], &size, &inner[..], &plain[end..4 + len]].concat();
            [&(message.len() as u32).to_le_bytes()[..], &message].concat()
        };
        let more = |mut inner: Vec<u8>| {
            assert_eq!(inner[0], 0xde);
            inner[2] += 1;
            [&inner[..], b"\xa5later\x01"].concat()
        };
        let full = Snapshot {
            redated: true,
            roots: vec![crate::tree::Root { lost: true, ..crate::tree::Root::new(vec![1], vec![2]) }],
            ..body(1, true, &[7])
        };
        for snapshot in [body(1, false, &[]), full] {
            assert_eq!(Record::says_more(&plain_of(&snapshot, &|inner| inner)), Ok(false));
            assert_eq!(Record::says_more(&plain_of(&snapshot, &more)), Ok(true));
        }
    }

    #[test]
    fn the_last_word_about_a_pin_counts() {
        let pin = |pinned| RecordBody::Pin { snapshots: vec![name(1)], pinned };
        check(vec![(1, snapshot(1, false, &[])), (2, pin(true)), (900, pin(false)), (3, pin(true))], &["1@1p"]);
        check(vec![(1, snapshot(1, false, &[])), (2, pin(true)), (3, pin(false))], &["1@1"]);
    }

    /// A record of a client that has seen something of others, with a number as its name.
    fn record(of: u8, number: u64, own: u8, seen: &[(u8, u64)], body: RecordBody) -> Link {
        let client = |number: u8| ClientId::new([number; 16]);
        let seen = seen.iter().map(|(of, number)| (client(*of), *number)).collect();
        let time = day(i64::from(own));
        let record = Record { client: client(of), number, seen, time, body, ..any_record() };
        Link { name: name(own), digest: Digest::new([own; 32]), record }
    }

    fn listed(links: Vec<Link>) -> Vec<(ObjectName, Vec<ObjectName>)> {
        list(&Chains::new(links)).into_iter().map(|info| (info.id, info.replaced)).collect()
    }

    /// A record acknowledges little as long as work of its client is under way that began long ago.
    #[test]
    fn what_takes_a_place_comes_behind_what_it_names_whatever_it_acknowledges() {
        let other = |number: u8| record(2, number.into(), number, &[], RecordBody::Forget(Vec::new()));
        let links = vec![
            other(1),
            other(2),
            record(2, 3, 3, &[], snapshot(1, false, &[])),
            record(1, 1, 4, &[], snapshot(1, false, &[3])),
        ];
        assert_eq!(listed(links.clone()), [(name(4), vec![name(3)])]);
        let chains = Chains::new(links);
        let order = chains.order();
        assert!(!order.contradicts());
        assert_eq!([3, 4].map(|own| order.get(&name(own)).map(|dated| dated.depth)), [Some(3), Some(4)]);
    }

    /// A snapshot replaces nothing if its client was retired by another that had not seen it, until it is put again.
    /// Forgotten snapshots are no exception.
    #[test]
    fn what_nobody_waited_for_takes_the_place_of_nothing() {
        let base = || record(1, 1, 1, &[], snapshot(1, false, &[]));
        let late = || record(1, 2, 2, &[], snapshot(1, false, &[1]));
        let retire = || RecordBody::Retire(vec![ClientId::new([1; 16])]);
        let retired = |seen| record(2, 1, 3, &[(1, seen)], retire());
        let again = || record(3, 1, 4, &[(1, 2), (2, 1)], snapshot(1, false, &[1, 2]));
        let forgotten = |own: u8| record(2, 2, 5, &[(1, 2)], RecordBody::Forget(vec![name(own)]));
        for (links, expected) in [
            (vec![base(), late()], vec![(name(2), vec![name(1)])]),
            (vec![base(), late(), retired(2)], vec![(name(2), vec![name(1)])]),
            (vec![base(), late(), retired(1)], vec![(name(1), Vec::new())]),
            (vec![base(), late(), retired(1), again()], vec![(name(4), vec![name(1), name(2)])]),
            (vec![base(), late(), retired(1), forgotten(2)], Vec::new()),
            (vec![base(), late(), retired(1), forgotten(1)], Vec::new()),
        ] {
            assert_eq!(listed(links), expected);
        }
        // The retiring client's record names no more than all its work had seen, or nothing; but the client had seen
        // every record that an earlier record of its own names.
        let earlier = |seen: &[(u8, u64)]| record(2, 1, 7, seen, RecordBody::Forget(Vec::new()));
        let unnamed = || record(2, 2, 3, &[], retire());
        assert_eq!(listed(vec![base(), late(), earlier(&[]), unnamed()]), [(name(1), Vec::new())]);
        assert_eq!(listed(vec![base(), late(), earlier(&[(1, 1)]), unnamed()]), [(name(1), Vec::new())]);
        assert_eq!(listed(vec![base(), late(), earlier(&[(1, 2)]), unnamed()]), [(name(2), vec![name(1)])]);
        // A counting snapshot has replaced it, put by a client that had looked at it.
        let built = || record(3, 1, 8, &[(1, 2)], snapshot(1, false, &[2]));
        assert_eq!(listed(vec![base(), late(), retired(1), built()]), [(name(8), vec![name(1), name(2)])]);
        // If two records have the same number, neither belongs to the client any more.
        let twin = record(1, 2, 6, &[], RecordBody::Forget(Vec::new()));
        assert_eq!(listed(vec![base(), late(), twin]), [(name(1), Vec::new())]);
    }
}
