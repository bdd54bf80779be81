//! Everything known to be wrong with a vault, in one list (SPEC §8.8). Nothing leaves it by itself: a finding ends when
//! the object is seen sound again, when a person accepts it, or when the object is gone and no snapshot needs it.
//!
//! Findings about the store are written into the log, so that every machine knows them. Until that can be done, and for
//! commands that only read, they are kept in the state folder, which also remembers when each was first noticed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::catalogue::ChunkPlace;
use crate::exit::Exit;
use crate::id::{ChunkId, ClientId, ObjectName};
use crate::log::chain::NUMBERS_KEPT;
use crate::log::record::{DamagedSnapshot, FoundDamage, LostFile, ObjectRef};
use crate::log::{Chains, Damage, Finding, Findings, Record, RecordBody, Sight, SlotChange};
use crate::progress::{Progress, Silent};
use crate::store::{Kind, ObjectKey};
use crate::tree::Time;
pub use crate::vault::finding::{About, FindingId, KnownFinding, exit_of};
pub use crate::vault::late::{Awaited, CHUNKS_NAMED, Lacking, is_known_synced};
pub(crate) use crate::vault::memory::note_lost;
use crate::vault::memory::{Memory, is_known};
pub use crate::vault::memory::{last_known, note_away};
pub use crate::vault::notes::Note;
use crate::vault::slots::{OddSlot, SlotFault};
use crate::vault::{ObjectState, SnapshotDamage, Vault, VaultError};

/// The kind of records among objects that findings name.
const RECORD: u64 = ObjectRef::record(ObjectName::new([0; ObjectName::LEN])).kind;

/// Losses of snapshots that a person accepted. Any more is a new loss, and so is any loss after the snapshot was seen
/// whole.
pub struct AcceptedLosses {
    /// Losses of snapshots according to the log.
    recorded: BTreeMap<ObjectName, SnapshotDamage>,
    accepted: BTreeSet<ObjectRef>,
    /// Snapshots that were seen whole since.
    healed: BTreeSet<ObjectName>,
}

impl AcceptedLosses {
    fn is_accepted(&self, snapshot: &ObjectName) -> bool {
        self.accepted.contains(&ObjectRef::record(*snapshot))
    }

    /// Notes which of these snapshots are whole again.
    fn see_whole(&mut self, is_whole: impl Fn(&ObjectName) -> bool) {
        let lost = self.recorded.iter().filter(|(_, damage)| damage.count > 0).map(|(snapshot, _)| *snapshot);
        let healed: Vec<ObjectName> = lost.filter(|name| is_whole(name) && self.is_accepted(name)).collect();
        self.healed.extend(healed);
    }

    /// Whether the loss of this many files of a snapshot was accepted.
    pub fn cover(&self, snapshot: &ObjectName, count: u64) -> bool {
        let recorded = self.recorded.get(snapshot).map_or(0, |damage| damage.count);
        count <= recorded && self.is_accepted(snapshot) && !self.healed.contains(snapshot)
    }
}

/// Records about each object, by their kind of statement.
#[derive(Default)]
struct Words<'c> {
    found: BTreeMap<ObjectRef, Vec<(&'c Record, &'c FoundDamage)>>,
    sound: BTreeMap<ObjectRef, Vec<&'c Record>>,
    accepted: BTreeMap<ObjectRef, Vec<&'c Record>>,
    /// Records that report losses of a snapshot.
    lost: BTreeMap<ObjectName, Vec<&'c Record>>,
    sight: Sight,
}

impl<'c> Words<'c> {
    fn new(chains: &'c Chains) -> Self {
        let mut words = Self { sight: Sight::new(chains), ..Self::default() };
        for link in chains.links() {
            let record = &link.record;
            match &record.body {
                RecordBody::Findings(findings) => {
                    for damage in &findings.found {
                        words.found.entry(damage.object).or_default().push((record, damage));
                    }
                    for object in &findings.sound {
                        words.sound.entry(*object).or_default().push(record);
                    }
                    for object in &findings.accepted {
                        words.accepted.entry(*object).or_default().push(record);
                    }
                }
                RecordBody::Damage(damage) => {
                    for snapshot in damage.snapshots.iter().filter(|snapshot| snapshot.count > 0) {
                        words.lost.entry(snapshot.id).or_default().push(record);
                    }
                }
                _ => {}
            }
        }
        words
    }

    /// Whether the writer of `later` knew of `earlier`, or both are one record.
    fn has_seen(&self, later: &Record, earlier: &Record) -> bool {
        (later.client, later.number) == (earlier.client, earlier.number)
            || self.sight.has_seen(later, &earlier.client, earlier.number)
    }

    /// Objects that were found damaged, and that nobody who knew of it has since seen sound or accepted.
    fn open(&self) -> BTreeMap<ObjectRef, (FoundDamage, Time)> {
        self.without_end(&[&self.sound, &self.accepted])
    }

    /// Objects that were found damaged, and that nobody who knew of it has since seen sound, whether their loss was
    /// accepted or not.
    fn damaged(&self) -> BTreeMap<ObjectRef, (FoundDamage, Time)> {
        self.without_end(&[&self.sound])
    }

    fn without_end(&self, ends: &[&BTreeMap<ObjectRef, Vec<&Record>>]) -> BTreeMap<ObjectRef, (FoundDamage, Time)> {
        let mut open = BTreeMap::new();
        for (object, found) in &self.found {
            let is_open = |record: &Record| {
                let ends = ends.iter().filter_map(|words| words.get(object));
                !ends.flatten().any(|end| self.has_seen(end, record))
            };
            let mut words = found.iter().filter(|(record, _)| is_open(record));
            if let Some((first, damage)) = words.next() {
                // A command that meets damage while reading does not know its cost; a check does.
                let most = words.fold(*damage, |most, (_, other)| if other.files > most.files { other } else { most });
                open.insert(*object, (most.clone(), first.time));
            }
        }
        open
    }

    /// Objects whose loss was accepted, and snapshots that have lost nothing more since. Being seen sound ends an
    /// acceptance: later damage is new.
    fn accepted(&self) -> BTreeSet<ObjectRef> {
        let holds = |object: &ObjectRef, accepted: &Record| {
            // That the record of a snapshot is sound does not mean that its lost files are back: the acceptance of
            // those uses the same name.
            let is_of_object = object.kind != RECORD || self.found.contains_key(object);
            let sound = self.sound.get(object).filter(|_| is_of_object).into_iter().flatten();
            let lost = self.lost.get(&object.name).into_iter().flatten();
            !sound.into_iter().any(|sound| self.has_seen(sound, accepted))
                && lost.into_iter().all(|lost| self.has_seen(accepted, lost))
        };
        let accepted =
            self.accepted.iter().filter(|(object, records)| records.iter().any(|record| holds(object, record)));
        accepted.map(|(object, _)| *object).collect()
    }
}

impl Vault {
    /// All known problems, worst first. `now` is the date given to new ones.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn known_findings(&self, now: Time) -> Result<Vec<KnownFinding>, VaultError> {
        let known = Memory::load(self.state());
        let mut memory = known.clone();
        memory.awaited.see_arrivals(self)?;
        let (open, accepted) = {
            let log = self.log();
            let words = Words::new(&log.chains);
            (words.open(), words.accepted())
        };
        let mut findings = Vec::new();
        self.object_findings(&memory, open, &accepted, &mut findings);
        self.record_findings(&mut findings)?;
        self.change_findings(&accepted, &mut findings);
        let there: BTreeSet<ObjectName> = self.snapshots().iter().map(|info| info.id).collect();
        memory.suspects.retain(|snapshot| there.contains(snapshot));
        memory.healed = self.file_findings(&memory, &there, accepted, &mut findings)?;
        findings.extend(memory.awaited.findings(&there));
        self.source_findings(&mut findings);
        self.slot_findings(&mut findings)?;
        findings.extend(memory.lost.iter().map(|note| KnownFinding {
            id: FindingId::of("note", [note.file().as_bytes().to_vec()]),
            about: About::Note(*note),
            since: Time::default(),
            snapshots: 0,
            files: 0,
        }));
        self.clock_findings(&mut findings);
        for finding in &mut findings {
            let first = *memory.since.entry(finding.id.to_string()).or_insert(now.secs);
            if finding.since == Time::default() {
                finding.since = Time { secs: first, nanos: 0 };
            }
        }
        let rank = |finding: &KnownFinding| finding.exit() != Exit::Damage;
        findings.sort_by(|a, b| (rank(a), &a.id).cmp(&(rank(b), &b.id)));
        let ids: BTreeSet<String> = findings.iter().map(|finding| finding.id.to_string()).collect();
        memory.since.retain(|id, _| ids.contains(id));
        memory.last = findings.iter().map(|finding| (finding.text(), finding.exit() == Exit::Damage)).collect();
        if memory != known {
            // If no state can be written, nothing is remembered, but the findings are reported all the same.
            let _ = memory.save(self.state());
        }
        Ok(findings)
    }

    fn object_findings(
        &self,
        memory: &Memory,
        open: BTreeMap<ObjectRef, (FoundDamage, Time)>,
        accepted: &BTreeSet<ObjectRef>,
        findings: &mut Vec<KnownFinding>,
    ) {
        let log = self.log();
        let mut seen = BTreeSet::new();
        let mut add = |key: ObjectKey, state: ObjectState, what: &str, since: Time, cost: (u64, u64)| {
            if seen.insert(key) {
                findings.push(KnownFinding {
                    id: FindingId::of("object", [key.to_string().into_bytes()]),
                    about: About::Object { key, state, what: what.to_owned() },
                    since,
                    snapshots: cost.0,
                    files: cost.1,
                });
            }
        };
        for bad in &log.bad {
            let is_accepted = ObjectRef::of(&bad.key).is_some_and(|object| accepted.contains(&object));
            if !(is_accepted && bad.state.is_loss()) {
                add(bad.key, bad.state, &bad.what, Time::default(), (0, 0));
            }
        }
        for key in memory.awaited.objects.iter().filter_map(ObjectRef::key) {
            let state = ObjectState::NotArrived;
            add(key, state, &state.told(String::new()), Time::default(), (0, 0));
        }
        let in_log = open.into_values();
        let noted = memory.found.iter().map(|damage| (damage.clone(), Time::default()));
        for (damage, since) in in_log.chain(noted) {
            let Some(key) = damage.object.key() else { continue };
            // An object that is gone holds nothing up: files that snapshots lack because of it are found separately.
            let is_there = match key {
                ObjectKey::Named(Kind::Log, name) => log.records.contains_key(&name),
                ObjectKey::Named(Kind::Pack | Kind::Meta, name) => log.packs.contains_key(&name),
                ObjectKey::Named(Kind::Index, name) => log.indexes.contains_key(&name),
                // Problems of these are seen whenever the vault is opened.
                ObjectKey::Named(Kind::Key, _) | ObjectKey::Vault => false,
            };
            let state = match key {
                ObjectKey::Named(Kind::Index, _) => ObjectState::Redundant,
                _ => ObjectState::Damaged,
            };
            if is_there && !memory.sound.contains(&damage.object) && !accepted.contains(&damage.object) {
                add(key, state, &damage.what, since, (damage.snapshots, damage.files));
            }
        }
    }

    pub(super) fn record_findings(&self, findings: &mut Vec<KnownFinding>) -> Result<(), VaultError> {
        let mut missing: BTreeMap<ClientId, (BTreeSet<u64>, BTreeSet<ObjectName>)> = BTreeMap::new();
        for found in self.missing_records()?.records {
            let Ok(record) = Record::decode(&found.plain) else { continue };
            let (numbers, snapshots) = missing.entry(record.client).or_default();
            numbers.insert(record.number);
            if matches!(record.body, RecordBody::Snapshot(_)) {
                snapshots.insert(found.name);
            }
        }
        let log = self.log();
        for finding in &log.findings {
            if let Some((client, numbers)) = finding.missing() {
                missing.entry(client).or_default().0.extend(numbers);
            }
        }
        drop(log);
        for (client, (numbers, snapshots)) in missing {
            let numbers: Vec<u64> = numbers.into_iter().take(NUMBERS_KEPT).collect();
            let parts = [client.as_bytes().to_vec(), numbers.iter().flat_map(|n| n.to_le_bytes()).collect()];
            findings.push(KnownFinding {
                id: FindingId::of("records", parts),
                since: Time::default(),
                snapshots: snapshots.len() as u64,
                files: 0,
                about: About::Records {
                    client,
                    numbers,
                    snapshots: snapshots.into_iter().collect(),
                    late: self.may_come(&client),
                },
            });
        }
        Ok(())
    }

    /// Losses of snapshots, by the log and by the last check on this machine, without files that have been stored again
    /// since. A snapshot that no check has examined since a command met a loss in it counts with one file or more.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn known_damage(&self) -> Result<BTreeMap<ObjectName, SnapshotDamage>, VaultError> {
        let memory = Memory::load(self.state());
        let mut damage = self.damage_with(&memory)?;
        for snapshot in memory.suspects {
            damage.entry(snapshot).or_insert(SnapshotDamage { count: 1, files: Vec::new() });
        }
        Ok(damage)
    }

    /// The snapshots with known losses: by the log, those that lacked something in the last check on this machine that is
    /// still in no pack, or only in packs known to be damaged, and those in which a command met a loss since.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub(crate) fn damaged_snapshots(&self) -> Result<BTreeSet<ObjectName>, VaultError> {
        let recorded = self.damage()?.into_iter().filter(|(_, damage)| damage.count > 0);
        let mut found: BTreeSet<ObjectName> = recorded.map(|(id, _)| id).collect();
        let (memory, reader, damaged) = (Memory::load(self.state()), self.catalogue().reader()?, self.damaged_packs());
        let packs = reader.packs()?;
        found.extend(&memory.suspects);
        let is_sound = |place: &ChunkPlace| packs.get(&place.pack).is_some_and(|info| !damaged.contains(&info.name));
        for lacking in memory.lacking {
            if !lacking.is_stored_again(|chunk| Ok(reader.locate_all(chunk)?.iter().any(is_sound)))? {
                found.insert(lacking.snapshot);
            }
        }
        Ok(found)
    }

    pub(super) fn damage_with(&self, memory: &Memory) -> Result<BTreeMap<ObjectName, SnapshotDamage>, VaultError> {
        let mut lost = self.damage()?;
        if memory.lacking.is_empty() {
            return Ok(lost);
        }
        let reader = self.catalogue().reader()?;
        for lacking in &memory.lacking {
            let is_whole = lacking.is_stored_again(|chunk| Ok(reader.locate(chunk)?.is_some()))?;
            let known = lost.get(&lacking.snapshot).map_or(0, |damage| damage.count);
            if !is_whole && lacking.count > known {
                let files = lacking.files.iter().map(|(path, chunks)| (path.to_vec(), chunks.clone())).collect();
                lost.insert(lacking.snapshot, SnapshotDamage { count: lacking.count, files });
            }
        }
        Ok(lost)
    }

    /// The snapshots of which files have not arrived yet, by the last check on this machine.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn known_late(&self) -> Result<BTreeMap<ObjectName, SnapshotDamage>, VaultError> {
        let mut awaited = Memory::load(self.state()).awaited;
        awaited.see_arrivals(self)?;
        let late = awaited.snapshots.into_iter().map(|waiting| {
            let files = waiting.files.into_iter().map(|(path, chunks)| (path.into_vec(), chunks)).collect();
            (waiting.snapshot, SnapshotDamage { count: waiting.count, files })
        });
        Ok(late.collect())
    }

    /// Losses of snapshots that were accepted.
    pub fn accepted_losses(&self) -> AcceptedLosses {
        let (accepted, healed) = (self.accepted_objects(), Memory::load(self.state()).healed);
        AcceptedLosses { recorded: self.recorded_damage(), accepted, healed }
    }

    /// Adds findings for snapshots with losses. Returns the snapshots that were seen whole after a loss of theirs was
    /// accepted.
    fn file_findings(
        &self,
        memory: &Memory,
        there: &BTreeSet<ObjectName>,
        accepted: BTreeSet<ObjectRef>,
        findings: &mut Vec<KnownFinding>,
    ) -> Result<BTreeSet<ObjectName>, VaultError> {
        let lost = self.damage_with(memory)?;
        let mut losses = AcceptedLosses { recorded: self.recorded_damage(), accepted, healed: memory.healed.clone() };
        losses.see_whole(|snapshot| !lost.contains_key(snapshot));
        for (snapshot, SnapshotDamage { count, .. }) in lost {
            if there.contains(&snapshot) && !losses.cover(&snapshot, count) {
                findings.push(KnownFinding {
                    id: FindingId::of("files", [snapshot.as_bytes().to_vec()]),
                    about: About::Files { snapshot, count },
                    since: Time::default(),
                    snapshots: 1,
                    files: count,
                });
            }
        }
        findings.extend(memory.suspects.iter().copied().map(KnownFinding::unexamined));
        Ok(losses.healed)
    }

    /// Adds findings for changes of snapshots that have no effect.
    fn change_findings(&self, accepted: &BTreeSet<ObjectRef>, findings: &mut Vec<KnownFinding>) {
        let void =
            self.void_changes().into_iter().filter(|void| !accepted.contains(&ObjectRef::record(void.change.id)));
        findings.extend(void.map(|void| KnownFinding {
            id: FindingId::of("change", [void.change.id.as_bytes().to_vec()]),
            about: About::Change { snapshot: void.snapshot, change: void.change.id, host: void.host },
            since: Time::default(),
            snapshots: 0,
            files: 0,
        }));
    }

    /// Adds findings for roots that were lost in the last snapshot of each source of this host.
    fn source_findings(&self, findings: &mut Vec<KnownFinding>) {
        let mut last = BTreeMap::new();
        for info in self.snapshots() {
            if info.body.host == self.identity().host {
                last.insert(info.body.source.clone(), info);
            }
        }
        for (source, info) in last {
            for root in info.body.roots.iter().filter(|root| root.lost) {
                findings.push(KnownFinding {
                    id: FindingId::of("source", [source.clone().into_bytes(), root.path.clone()]),
                    about: About::Source { source: source.clone(), path: root.path.clone(), snapshot: info.id },
                    since: info.body.time,
                    snapshots: 0,
                    files: 0,
                });
            }
        }
    }

    fn slot_findings(&self, findings: &mut Vec<KnownFinding>) -> Result<(), VaultError> {
        let mut odd = self.odd_slots();
        if !odd.is_empty() {
            // Since the last look, copies of slots may have been put or removed, and a record may say so.
            self.look_at_slots()?;
            self.look_at_log(&Silent::default())?;
            odd = self.odd_slots();
        }
        let odd =
            odd.into_iter().map(|odd| (FindingId::of("slot", [odd.slot.digest.as_bytes().to_vec()]), About::Slot(odd)));
        let others = self
            .others()
            .into_iter()
            .map(|id| (FindingId::of("vault", [id.as_bytes().to_vec()]), About::OtherVault(id)));
        let finding = |(id, about)| KnownFinding { id, about, since: Time::default(), snapshots: 0, files: 0 };
        findings.extend(odd.chain(others).map(finding));
        Ok(())
    }

    /// Adds findings for machines whose last record is dated long before a record that its writer had seen. Only the
    /// last records of active clients are compared: the next record corrects an earlier wrong date.
    fn clock_findings(&self, findings: &mut Vec<KnownFinding>) {
        let log = self.log();
        let (order, retired, sight) = (log.chains.order(), log.chains.retired(), Sight::new(&log.chains));
        // A client without a join record has no machine name: that its first record is missing is a finding of its own.
        let host = |client: &ClientId| log.chains.join(client).map(|join| join.host.clone()).unwrap_or_default();
        let is_last = |client: &ClientId| !retired.contains(client) && log.chains.join(client).is_some();
        for client in log.chains.clients.keys().filter(|client| is_last(client)) {
            let Some(last) = log.chains.last(client) else { continue };
            let Some(own) = order.get(&last.name) else { continue };
            for (other, number) in sight.of(&last.record).into_iter().filter(|(other, _)| is_last(other)) {
                let records = log.chains.clients.get(&other).and_then(|all| all.range(..=number).next_back());
                let seen = records.and_then(|(_, same)| order.get(&same.first()?.name));
                let Some(seen) = seen.filter(|seen| seen.place != own.place) else { continue };
                let apart = seen.time.secs.saturating_sub(own.time.secs);
                if apart > CLOCKS_APART {
                    findings.push(KnownFinding {
                        id: FindingId::of("clocks", [client.as_bytes().to_vec(), other.as_bytes().to_vec()]),
                        about: About::Clocks {
                            early: *client,
                            early_host: host(client),
                            late: other,
                            late_host: host(&other),
                            apart,
                        },
                        since: Time::default(),
                        snapshots: 0,
                        files: 0,
                    });
                }
            }
        }
    }

    /// Whether the record of this name is here, with all earlier records of its client and all records that it had
    /// seen. Anyone who wrote down the id of a snapshot can prove with it that a store was not set back (SPEC §8.2).
    pub fn has_all_before(&self, id: &ObjectName) -> bool {
        let log = self.log();
        if let Some(link) = log.chains.links().find(|link| link.name == *id) {
            let seen = Sight::new(&log.chains).of(&link.record);
            return log.chains.has_all(&link.record.client, link.record.number)
                && seen.iter().all(|(client, number)| log.chains.has_all(client, *number));
        }
        // The records that it had seen were here when it was merged: no record that anyone has mentioned is missing
        // now.
        let is_here = log.chains.place_of(id).is_some_and(|(client, number)| log.chains.has_all(&client, number));
        let is_missing = |finding: &Finding| matches!(finding, Finding::Missing { .. } | Finding::RolledBack { .. });
        is_here && !log.findings.iter().any(is_missing)
    }

    /// Packs that are known to be damaged, and that nobody has seen sound since, whether their loss was accepted or
    /// not. Writers treat them as absent: chunks that they should hold are stored again where they are found.
    pub fn damaged_packs(&self) -> HashSet<ObjectName> {
        let memory = Memory::load(self.state());
        let log = self.log();
        let mut damaged: BTreeSet<ObjectRef> = memory.found.iter().map(|found| found.object).collect();
        let is_about = |body: &RecordBody| matches!(body, RecordBody::Findings(findings) if !findings.found.is_empty());
        if log.chains.links().any(|link| is_about(&link.record.body)) {
            damaged.extend(Words::new(&log.chains).damaged().into_keys());
        }
        let noted = damaged.into_iter().filter(|object| !memory.sound.contains(object)).map(|object| object.name);
        noted.filter(|name| log.packs.contains_key(name)).collect()
    }

    /// Objects and snapshots whose loss was accepted.
    pub fn accepted_objects(&self) -> BTreeSet<ObjectRef> {
        Words::new(&self.log().chains).accepted()
    }

    /// Notes the results of a check or another reading command: objects that are damaged, and others that were read
    /// completely and are sound. The notes count at once; [`Self::publish_findings`] tells the other machines.
    ///
    /// # Errors
    /// If the state folder cannot be written.
    pub fn note_findings(&self, found: Vec<FoundDamage>, sound: &[ObjectRef]) -> Result<(), VaultError> {
        let mut memory = Memory::load(self.state());
        let before = memory.clone();
        let (open, accepted) = {
            let log = self.log();
            let words = Words::new(&log.chains);
            (words.open(), words.accepted())
        };
        for damage in found {
            memory.sound.retain(|object| *object != damage.object);
            let is_known = open.get(&damage.object).is_some_and(|(known, _)| known.files > 0 || damage.files == 0)
                || accepted.contains(&damage.object);
            match memory.found.iter_mut().find(|known| known.object == damage.object) {
                // The cost is known only after everything was examined.
                Some(known) if damage.files > 0 => *known = damage,
                Some(_) => {}
                None if is_known => {}
                None => memory.found.push(damage),
            }
        }
        for object in sound {
            memory.found.retain(|known| known.object != *object);
            let is_accepted = object.kind != RECORD && accepted.contains(object);
            if (open.contains_key(object) || is_accepted) && !memory.sound.contains(object) {
                memory.sound.push(*object);
            }
        }
        if memory == before {
            return Ok(());
        }
        if memory.found.len() > before.found.len() {
            // Chunks that were known as stored may lie in a pack that counts as absent from now on.
            self.catalogue().bump_epoch()?;
        }
        memory.save(self.state())
    }

    /// Notes everything that cannot be read of these snapshots, lost or late. A check may know of more that they have lost:
    /// a loss beside that makes the snapshot one to be examined.
    ///
    /// # Errors
    /// If the catalogue or the state folder fails.
    pub(crate) fn note_losses(&self, lost: Vec<Lacking>, late: Vec<Lacking>) -> Result<(), VaultError> {
        let before = Memory::load(self.state());
        let (mut memory, mut damage) = (before.clone(), self.damage_with(&before)?);
        late.into_iter().for_each(|waiting| memory.await_files(waiting));
        for lacking in lost {
            let known = damage.remove(&lacking.snapshot).unwrap_or_default();
            let mut chunks = lacking.files.iter().flat_map(|(_, chunks)| chunks);
            if known.count == 0 {
                memory.suspects.remove(&lacking.snapshot);
                memory.lacking.retain(|other| other.snapshot != lacking.snapshot);
                memory.lacking.push(lacking);
            } else if !chunks.all(|chunk| is_known(&known, Some(chunk))) {
                memory.suspect(lacking.snapshot);
            }
        }
        if memory == before { Ok(()) } else { memory.save(self.state()) }
    }

    /// Notes the snapshots that lack files, after all were examined, in place of the earlier notes.
    ///
    /// # Errors
    /// If the state folder cannot be written.
    pub(crate) fn note_lacking(&self, lacking: Vec<Lacking>) -> Result<(), VaultError> {
        self.note_examined(lacking, |_| {})
    }

    /// Notes the results of a check: the snapshots that lack files, and what has not arrived yet. These notes replace
    /// the earlier ones, but for objects that only a check which reads all data finds not to have arrived whole.
    /// `read_all`: all data was read, so that every problem is known again.
    ///
    /// # Errors
    /// If the state folder cannot be written.
    pub fn note_check(&self, lacking: Vec<Lacking>, awaited: Awaited, read_all: bool) -> Result<(), VaultError> {
        self.note_examined(lacking, |memory| {
            memory.awaited = awaited.beside(std::mem::take(&mut memory.awaited));
            if read_all {
                memory.lost.remove(&Note::Problems);
            }
        })
    }

    fn note_examined(&self, lacking: Vec<Lacking>, rest: impl FnOnce(&mut Memory)) -> Result<(), VaultError> {
        let before = Memory::load(self.state());
        let mut memory = before.clone();
        memory.lacking = lacking;
        memory.suspects.clear();
        rest(&mut memory);
        if memory == before { Ok(()) } else { memory.save(self.state()) }
    }

    /// Writes this machine's notes about objects into the log, if there are any. For a mirror they stay notes.
    ///
    /// # Errors
    /// If the store or the state folder fails; the notes stay then.
    pub fn publish_findings(&self, time: Time, progress: &dyn Progress) -> Result<(), VaultError> {
        let memory = Memory::load(self.state());
        if self.is_mirror || memory.found.is_empty() && memory.sound.is_empty() {
            return Ok(());
        }
        let findings = Findings { found: memory.found.clone(), sound: memory.sound.clone(), accepted: Vec::new() };
        self.publish(RecordBody::Findings(findings), time, None, |_| true, progress)?;
        let mut now = Memory::load(self.state());
        now.found.retain(|damage| !memory.found.contains(damage));
        now.sound.retain(|object| !memory.sound.contains(object));
        now.save(self.state())
    }

    /// Accepts the loss that a finding reports: from now on it is no longer reported, and holds nothing up.
    ///
    /// # Errors
    /// If the store or the state folder fails.
    pub fn accept(&self, finding: &KnownFinding, time: Time, progress: &dyn Progress) -> Result<(), VaultError> {
        let accepted = |object| Findings { accepted: vec![object], ..Findings::default() };
        let body = match &finding.about {
            About::Object { key, .. } => match ObjectRef::of(key) {
                Some(object) => RecordBody::Findings(accepted(object)),
                None => return Ok(()),
            },
            About::Files { snapshot, .. } => {
                self.record_loss(*snapshot, time, progress)?;
                RecordBody::Findings(accepted(ObjectRef::record(*snapshot)))
            }
            About::Records { client, numbers, .. } => {
                RecordBody::Lost(numbers.iter().map(|number| (*client, *number)).collect())
            }
            About::Slot(OddSlot { slot, fault: SlotFault::Missing | SlotFault::Late }) => {
                RecordBody::Slots(SlotChange { add: Vec::new(), remove: vec![slot.id] })
            }
            About::Slot(OddSlot { slot, .. }) => RecordBody::Slots(SlotChange { add: vec![*slot], remove: Vec::new() }),
            About::Change { change, .. } => RecordBody::Findings(accepted(ObjectRef::record(*change))),
            About::Note(note) => {
                let mut memory = Memory::load(self.state());
                memory.lost.remove(note);
                return memory.save(self.state());
            }
            About::Unexamined { .. }
            | About::Late { .. }
            | About::Source { .. }
            | About::OtherVault(_)
            | About::Clocks { .. } => return Ok(()),
        };
        self.publish_findings(time, progress)?;
        self.publish(body, time, None, |_| true, progress)?;
        Ok(())
    }
}

impl Vault {
    /// Records the losses of a snapshot, if no record lists as many: exactly these are then accepted.
    fn record_loss(&self, snapshot: ObjectName, time: Time, progress: &dyn Progress) -> Result<(), VaultError> {
        let mut memory = Memory::load(self.state());
        let is_healed = memory.healed.remove(&snapshot);
        let recorded = self.recorded_damage().get(&snapshot).map_or(0, |damage| damage.count);
        let lost = self.damage_with(&memory)?.remove(&snapshot).unwrap_or_default();
        if lost.count > recorded {
            let of_one = |(path, ids): (Vec<u8>, Vec<ChunkId>)| LostFile {
                path,
                ids: ids.iter().flat_map(|id| *id.as_bytes()).collect(),
                of: vec![0],
            };
            let body = RecordBody::Damage(Damage {
                snapshots: vec![DamagedSnapshot { id: snapshot, count: lost.count }],
                lost: lost.files.into_iter().map(of_one).collect(),
            });
            self.publish(body, time, None, |_| true, progress)?;
        }
        if is_healed { memory.save(self.state()) } else { Ok(()) }
    }
}

/// Warns if findings could not be noted: they are reported all the same.
pub(crate) fn warn_unless_noted(noted: Result<(), VaultError>, progress: &dyn Progress) {
    if let Err(error) = noted {
        progress.warn(&format!("it cannot be remembered what was found: {error}"));
    }
}

/// Largest difference in seconds between the clocks of machines that is not reported: a day, as retention counts by
/// days.
const CLOCKS_APART: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;
    use crate::log::Link;

    const PACK: ObjectRef = ObjectRef { kind: 1, name: ObjectName::new([7; 16]) };

    fn link(client: u8, number: u64, seen: &[(u8, u64)], findings: Findings) -> Link {
        let record = Record {
            client: ClientId::new([client; 16]),
            number,
            previous: Digest::new([0; 32]),
            seen: seen.iter().map(|(client, number)| (ClientId::new([*client; 16]), *number)).collect(),
            time: Time::default(),
            claims: Vec::new(),
            closed: Vec::new(),
            body: RecordBody::Findings(findings),
        };
        let name = ObjectName::new([client * 16 + number as u8; 16]);
        Link { name, digest: Digest::new([0; 32]), record }
    }

    fn found() -> Findings {
        let damage = FoundDamage { object: PACK, what: "rotten".to_owned(), snapshots: 1, files: 2 };
        Findings { found: vec![damage], ..Findings::default() }
    }

    fn sound() -> Findings {
        Findings { sound: vec![PACK], ..Findings::default() }
    }

    #[test]
    fn a_finding_ends_with_a_word_of_someone_who_knew_of_it() {
        let open = |links: Vec<Link>| Words::new(&Chains::new(links)).open().len();
        assert_eq!(open(vec![link(1, 1, &[], found())]), 1);
        assert_eq!(open(vec![link(1, 1, &[], found()), link(1, 2, &[], sound())]), 0);
        assert_eq!(open(vec![link(1, 1, &[], sound()), link(1, 2, &[], found())]), 1);
        // Somebody else, who had or had not seen it.
        assert_eq!(open(vec![link(1, 1, &[], found()), link(2, 1, &[(1, 1)], sound())]), 0);
        assert_eq!(open(vec![link(1, 1, &[], found()), link(2, 1, &[], sound())]), 1);
        // New damage is a new finding.
        let again = vec![link(1, 1, &[], found()), link(1, 2, &[], sound()), link(1, 3, &[], found())];
        assert_eq!(open(again), 1);
    }

    #[test]
    fn a_word_of_someone_who_need_not_name_the_finder_any_more_ends_a_finding() {
        let mut closing = link(2, 1, &[(1, 1)], Findings::default());
        closing.record.closed.push(crate::log::Closed(ClientId::new([1; 16]), 1, Digest::new([0; 32])));
        let open = |links: Vec<Link>| Words::new(&Chains::new(links)).open().len();
        assert_eq!(open(vec![link(1, 1, &[], found()), closing.clone(), link(2, 2, &[], sound())]), 0);
        assert_eq!(open(vec![link(1, 1, &[], found()), closing.clone(), link(3, 1, &[(2, 1)], sound())]), 0);
        assert_eq!(open(vec![link(1, 1, &[], found()), closing, link(3, 1, &[], sound())]), 1);
    }

    #[test]
    fn what_was_accepted_is_new_when_it_was_sound_in_between() {
        let accepted = || Findings { accepted: vec![PACK], ..Findings::default() };
        let words = |links: Vec<Link>| {
            let chains = Chains::new(links);
            let words = Words::new(&chains);
            (words.open().len(), words.accepted().len())
        };
        let mut links = vec![link(1, 1, &[], found()), link(1, 2, &[], accepted())];
        assert_eq!(words(links.clone()), (0, 1));
        links.push(link(1, 3, &[], sound()));
        assert_eq!(words(links.clone()), (0, 0));
        links.push(link(1, 4, &[], found()));
        assert_eq!(words(links), (1, 0));
    }

    #[test]
    fn the_state_folder_remembers_and_its_damage_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(folder.path());
        assert_eq!(memory, Memory::default());
        memory.found = found().found;
        memory.sound = vec![PACK];
        memory.since.insert("00000000".to_owned(), 5);
        memory.last = vec![("lost".to_owned(), true), ("late".to_owned(), false)];
        memory.save(folder.path()).unwrap();
        assert_eq!(Memory::load(folder.path()), memory);
        assert_eq!(last_known(folder.path()), (Exit::Damage, vec!["lost".to_owned(), "late".to_owned()]));
        std::fs::write(folder.path().join("findings"), "no msgpack").unwrap();
        let lost = Memory::load(folder.path());
        assert_eq!(lost.lost, BTreeSet::from([Note::Problems]));
        assert_eq!(last_known(folder.path()).0, Exit::Skipped);
        note_lost(folder.path(), Note::Records).unwrap();
        assert_eq!(Memory::load(folder.path()).lost.len(), 2, "the first loss is still known");
        assert_eq!(last_known(folder.path()).1.len(), 2);
    }
}
