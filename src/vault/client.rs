//! The client that writes to the vault from here, and how its records are published (SPEC §8.1, §8.2).
//!
//! State that must survive the loss of the catalogue lies beside it: the client's id, its last record, and how far
//! every chain had come when it was last seen. Numbers are given out under a lock of the operating system, which ends
//! with the process that held it, so it can never be stale.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;

use crate::id::{ClientId, Digest, ObjectName};
use crate::log::record::Join;
use crate::log::{Link, Record, RecordBody, SlotChange, ValidSlot};
use crate::ownfile;
use crate::progress::Progress;
use crate::seal::{Purpose, SlotFile, random, random_name};
use crate::store::proof::Given;
use crate::store::{Delivery, Kind, ObjectKey, StoreError};
use crate::sync::lock;
use crate::tree::Time;
use crate::vault::files::{make_private_folder, state_error};
use crate::vault::identity::{ClientState, Identity};
use crate::vault::session::{Noted, Session, write_names};
use crate::vault::slots::digest;
use crate::vault::unproven::Unproven;
use crate::vault::{Vault, VaultError};

/// Limits of one record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordLimits {
    /// Most packs that it claims.
    pub(crate) claims: usize,
    /// Most packs or snapshots that it names.
    pub(crate) names: usize,
    /// Number of objects of one tier of the log that are merged together (SPEC §8.10).
    pub(crate) merged: usize,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { claims: 1 << 16, names: 1 << 16, merged: 64 }
    }
}

/// The session that a record is written for, and its stage.
#[derive(Clone, Copy)]
struct Writer<'s> {
    /// The session that the record belongs to: it claims the packs that the session has put.
    own: Option<&'s Session>,
    /// Whether the packs that the session relies on were just confirmed. Then the record may acknowledge more than the
    /// session had seen when it began.
    ends: bool,
}

/// Records that are published together.
pub(crate) struct Batch<'b> {
    /// Their bodies. If a snapshot is put a second time, its body then names the one that it replaces.
    pub bodies: &'b mut [RecordBody],
    /// Positions of snapshots that are pinned. The pin's record comes first, so no snapshot ever exists without its
    /// pin.
    pub pinned: &'b HashSet<usize>,
    /// Whether the last record acknowledges more than the session had seen when it began. All other records rely on the
    /// packs, too; without this, so does everything that the session publishes later.
    pub ends: bool,
}

/// After this many records, a batch checks whether the user wants to stop.
const TOGETHER: usize = 64;
/// Most attempts to put a record whose client turns out to have been retired meanwhile.
const ATTEMPTS: usize = 5;

impl Vault {
    /// Takes the lock under which records get their numbers.
    pub(super) fn lock_client(&self) -> Result<File, VaultError> {
        make_private_folder(self.state())?;
        let path = self.state().join("client.lock");
        let lock = ownfile::open_lock(&path).map_err(state_error("open", &path))?;
        lock.lock().map_err(state_error("lock", &path))?;
        Ok(lock)
    }

    /// The keyed hash by which a client that lost its state is recognized.
    fn place_hash(&self) -> Vec<u8> {
        let key = self.keys().derive_local("client place");
        let mut hasher = blake3::Hasher::new_keyed(&key);
        let Identity { user, machine, .. } = self.identity();
        for part in [machine, user, &self.place] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        hasher.finalize().as_bytes()[..16].to_vec()
    }

    /// The client that writes from here, if it has joined and its state fits the log.
    pub fn client(&self) -> Option<ClientId> {
        self.fitting(ClientState::load(self.state())?).map(|state| state.client)
    }

    /// The state, if the log ends exactly where the state does: with the client's last record, or with the one that it
    /// was about to put when it was interrupted.
    fn fitting(&self, mut state: ClientState) -> Option<ClientState> {
        let log = self.log();
        let last = log.chains.last(&state.client)?;
        if last.record.number == state.number + 1 && Some(last.digest) == state.pending {
            state.number += 1;
            state.digest = last.digest;
        }
        let fits = state.place == self.place_hash()
            && last.record.number == state.number
            && last.digest == state.digest
            && log.chains.may_go_on(&state.client);
        fits.then_some(state)
    }

    /// Publishes a record that relies on no pack, and proves that the store has kept it. Otherwise as
    /// [`Self::publish_relying`]; if `confirm` returns false, nothing is published.
    ///
    /// # Errors
    /// If the store or the state folder fails. A record whose outcome is unknown may turn up later.
    pub fn publish(
        &self,
        body: RecordBody,
        time: Time,
        own: Option<&Session>,
        confirm: impl FnOnce(&Self) -> bool,
        progress: &dyn Progress,
    ) -> Result<Option<ObjectName>, VaultError> {
        let _lock = self.lock_client()?;
        let mut state = self.writing_client(own, time, progress)?;
        self.record_first_slots(&mut state, time, Writer { own, ends: false })?;
        if !confirm(self) {
            return Ok(None);
        }
        let name = random_name()?;
        self.put_in_parts(&mut state, name, body, time, Writer { own, ends: false })?;
        self.prove_records(None)?;
        Ok(Some(name))
    }

    /// Publishes a record of this client that relies on these packs (SPEC §8.5). The client joins first if necessary.
    /// This function alone decides whether the packs found at the beginning of the work can still be relied on:
    ///
    /// - If the work has put packs, the store is listed once more before the record. If a pack is gone, or one that
    ///   was put has another length, nothing is published. If the store keeps losing packs, that is reported.
    /// - A record that the store has accepted but not kept is put once more. If that does not help, it counts as
    ///   never put.
    /// - If the client that the session began with cannot continue (it was retired, its chain is forked, its state
    ///   was lost or set back, or its other processes no longer know the session), others may no longer have waited
    ///   for it. Then the session is bound to the client that takes its place, and packs that are condemned by now
    ///   count as absent.
    /// - Where all clients see the same at once, the log is read once more behind the record. If the client was
    ///   retired meanwhile, all of this is repeated for the client that takes its place, and the first record, if it
    ///   is a snapshot, is forgotten.
    ///
    /// Returns the name of the record's object, or `None` if data that it relies on has to be stored again first.
    ///
    /// # Errors
    /// If the store or the state folder fails. A record whose outcome is unknown may turn up later.
    pub fn publish_relying(
        &self,
        body: &RecordBody,
        packs: &HashSet<ObjectName>,
        time: Time,
        session: &Session,
        progress: &dyn Progress,
    ) -> Result<Option<ObjectName>, VaultError> {
        let batch = Batch { bodies: &mut [body.clone()], pinned: &HashSet::new(), ends: true };
        let names = self.publish_together(batch, packs, time, session, progress)?;
        Ok(names.and_then(|names| names.last().copied()))
    }

    /// As [`Self::publish_relying`] for several records; also `None` if one of them replaces only snapshots that are
    /// known to be forgotten by then. If the client was retired meanwhile, a snapshot that replaces others is not
    /// forgotten, since the replaced ones would be gone with it: the next attempt replaces it, too, and so must the retry
    /// of a caller who gets `None`.
    ///
    /// # Errors
    /// As [`Self::publish_relying`], or if the user stops it. Records that were put by then stay.
    pub(crate) fn publish_together(
        &self,
        batch: Batch<'_>,
        packs: &HashSet<ObjectName>,
        time: Time,
        session: &Session,
        progress: &dyn Progress,
    ) -> Result<Option<Vec<ObjectName>>, VaultError> {
        let mut earlier = Vec::new();
        for _ in 0..ATTEMPTS {
            let lock = self.lock_client()?;
            let mut state = self.relying_client(packs, session, time, progress)?;
            let is_other = (session.client() != Some(state.client) || !session.is_known()) && self.rules.bound;
            if is_other {
                self.rebind(session, state.client, progress)?;
            }
            let unusable = if is_other { self.unusable() } else { HashSet::new() };
            let is_missing = {
                let log = self.log();
                let is_whole = |name, (_, len): &(_, u64)| session.may_be_as_put(name, *len);
                let is_there = |name| log.packs.get(name).is_some_and(|listed| is_whole(name, listed));
                packs.iter().any(|name| !is_there(name) || unusable.contains(name))
            };
            if is_missing {
                drop(lock);
                let parts = session.parts(&self.log().packs);
                // A partial pack that cannot be deleted stays, and a check reports it.
                let _ = self.store().delete_many(&parts, &mut |_| {});
                let may_stay = packs.iter().filter(|name| !unusable.contains(*name));
                if let Some((key, need, have)) = session.lost_again(may_stay, &self.log().packs) {
                    let place = self.store().place();
                    return Err(StoreError::NotKept { object: (&key).into(), place, need, have }.into());
                }
                self.withdraw(earlier, time, session, progress)?;
                return Ok(None);
            }
            if self.replaces_forgotten(batch.bodies) {
                drop(lock);
                self.withdraw(earlier, time, session, progress)?;
                return Ok(None);
            }
            let names = self.put_batch(&mut state, &batch, time, session, progress)?;
            drop(lock);
            if self.is_retired_behind(&state.client, session, progress)? {
                progress.detail("this client was retired meanwhile: it goes on as a new one");
                for (body, name) in batch.bodies.iter_mut().zip(names) {
                    match body {
                        RecordBody::Snapshot(body) if body.replaces.is_empty() => earlier.push(name),
                        RecordBody::Snapshot(body) => body.replaces.push(name),
                        _ => {}
                    }
                }
                continue;
            }
            self.prove_records(None)?;
            self.withdraw(earlier, time, session, progress)?;
            return Ok(Some(names));
        }
        self.withdraw(earlier, time, session, progress)?;
        Ok(None)
    }

    /// Whether one of these records would replace only snapshots that were forgotten meanwhile: their data may be gone, and
    /// it would bring them back.
    fn replaces_forgotten(&self, bodies: &[RecordBody]) -> bool {
        let replaced: Vec<&[ObjectName]> = bodies
            .iter()
            .filter_map(|body| match body {
                RecordBody::Snapshot(body) if !body.replaces.is_empty() => Some(&body.replaces[..]),
                _ => None,
            })
            .collect();
        if replaced.is_empty() {
            return false;
        }
        let there = self.snapshots();
        let stands = |name: &ObjectName| there.iter().any(|info| info.stands_for(name));
        !replaced.iter().all(|names| names.iter().any(stands))
    }

    /// Puts the records of a batch, and before them the pins. Returns the names of the records. The caller must hold
    /// the lock.
    fn put_batch(
        &self,
        state: &mut ClientState,
        Batch { bodies, pinned, ends }: &Batch<'_>,
        time: Time,
        session: &Session,
        progress: &dyn Progress,
    ) -> Result<Vec<ObjectName>, VaultError> {
        let writer = Writer { own: Some(session), ends: false };
        self.record_first_slots(state, time, writer)?;
        let count = bodies.len();
        let names: Vec<ObjectName> = (0..count).map(|_| random_name()).collect::<Result<_, _>>()?;
        let pins: Vec<ObjectName> =
            (0..).zip(&names).filter(|(number, _)| pinned.contains(number)).map(|(_, name)| *name).collect();
        if !pins.is_empty() {
            let body = RecordBody::Pin { snapshots: pins, pinned: true };
            self.put_in_parts(state, random_name()?, body, time, writer)?;
        }
        for ((number, body), name) in (0..).zip(bodies.iter()).zip(&names) {
            // Each record is true by itself, so the batch may end between any two.
            if number > 0 && number % TOGETHER == 0 {
                if progress.stopped() {
                    return Err(VaultError::Interrupted);
                }
                self.prove_records(None)?;
            }
            let writer = Writer { ends: *ends && number + 1 == count, ..writer };
            self.put_in_parts(state, *name, body.clone(), time, writer)?;
        }
        Ok(names)
    }

    /// Whether a look at the log, behind the records just put, shows that their client was retired meanwhile. Where
    /// clients do not see the same at once, such a look shows nothing.
    fn is_retired_behind(
        &self,
        client: &ClientId,
        session: &Session,
        progress: &dyn Progress,
    ) -> Result<bool, VaultError> {
        if self.delivery() != Delivery::Direct || !self.rules.looked_behind {
            return Ok(false);
        }
        self.look_at_log(progress)?;
        let is_known = session.is_known() || !self.rules.bound;
        Ok(!self.log().chains.may_go_on(client) || !is_known)
    }

    /// Forgets snapshots that were never reported.
    fn withdraw(
        &self,
        snapshots: Vec<ObjectName>,
        time: Time,
        session: &Session,
        progress: &dyn Progress,
    ) -> Result<(), VaultError> {
        if !snapshots.is_empty() {
            self.publish(RecordBody::Forget(snapshots), time, Some(session), |_| true, progress)?;
        }
        Ok(())
    }

    /// Publishes the packs that a session has put so far, once they fill a record. A client that cannot continue claims
    /// them at the end.
    ///
    /// # Errors
    /// If the store or the state folder fails.
    pub(crate) fn publish_claims(
        &self,
        session: &Session,
        clock: &dyn Fn() -> Time,
        progress: &dyn Progress,
    ) -> Result<(), VaultError> {
        if session.unclaimed() < self.limits.claims {
            return Ok(());
        }
        let _lock = self.lock_client()?;
        self.look_at_log(progress)?;
        let state = ClientState::load(self.state()).and_then(|state| self.fitting(state));
        if let Some(mut state) = state.filter(|state| session.client() == Some(state.client)) {
            while session.unclaimed() >= self.limits.claims {
                let writer = Writer { own: Some(session), ends: false };
                self.put_record(&mut state, RecordBody::Forget(Vec::new()), clock(), writer)?;
            }
        }
        Ok(())
    }

    /// Refreshes the view of the store, and finds the client that writes from here, which joins if it has to. The
    /// caller must hold the lock.
    pub(super) fn writing_client(
        &self,
        own: Option<&Session>,
        time: Time,
        progress: &dyn Progress,
    ) -> Result<ClientState, VaultError> {
        // Another process of this client may have written since.
        self.refresh_if_changed(progress)?;
        self.known_client(own, time, progress)
    }

    /// As [`Self::writing_client`], without refreshing.
    fn known_client(
        &self,
        own: Option<&Session>,
        time: Time,
        progress: &dyn Progress,
    ) -> Result<ClientState, VaultError> {
        self.may_write()?;
        let loaded = ClientState::load(self.state());
        if let Some(state) = loaded.clone().and_then(|state| self.fitting(state)) {
            return Ok(state);
        }
        let state = self.join(loaded, time, own, progress)?;
        self.refresh(progress)?;
        Ok(state)
    }

    /// As [`Self::writing_client`], for a record that relies on these packs. If the work has put packs, the store is
    /// listed again, and must show them with all others. If it has put nothing, the look behind the record shows
    /// whether the client could continue, and no look before it is needed.
    fn relying_client(
        &self,
        packs: &HashSet<ObjectName>,
        session: &Session,
        time: Time,
        progress: &dyn Progress,
    ) -> Result<ClientState, VaultError> {
        let is_all_listed = {
            let log = self.log();
            packs.iter().all(|name| log.packs.contains_key(name))
        };
        if !is_all_listed {
            self.refresh(progress)?;
            return self.known_client(Some(session), time, progress);
        }
        let is_looked_behind = self.delivery() == Delivery::Direct && self.rules.looked_behind && self.rules.bound;
        if is_looked_behind && let Some(state) = ClientState::load(self.state()).and_then(|state| self.fitting(state)) {
            return Ok(state);
        }
        self.writing_client(Some(session), time, progress)
    }

    /// Records which key slots are valid, if no record does yet: those that were put when the vault was made, before
    /// anyone could write a record. From then on a slot is valid by the record of the command that made it.
    fn record_first_slots(&self, state: &mut ClientState, time: Time, writer: Writer<'_>) -> Result<(), VaultError> {
        if self.slot_set().exists() {
            return Ok(());
        }
        let add: Vec<ValidSlot> = lock(&self.slots).iter().filter_map(|(slot, _)| self.valid_slot(slot)).collect();
        if !add.is_empty() {
            self.put_record(state, RecordBody::Slots(SlotChange { add, remove: Vec::new() }), time, writer)?;
        }
        Ok(())
    }

    /// The entry for a slot in a record. `None` if the slot was not made with this vault's key.
    pub(crate) fn valid_slot(&self, slot: &SlotFile) -> Option<ValidSlot> {
        let info = slot.info(&self.keyring().master).ok().filter(|_| slot.vault() == self.id())?;
        Some(ValidSlot { id: slot.id(), digest: digest(slot), device: info.purpose == Purpose::Device })
    }

    /// Joins as a new client, in place of earlier ones of this machine, user and folder.
    fn join(
        &self,
        before: Option<ClientState>,
        time: Time,
        own: Option<&Session>,
        progress: &dyn Progress,
    ) -> Result<ClientState, VaultError> {
        let place = self.place_hash();
        let synced = self.delivery() == Delivery::Synced;
        let retires: Vec<ClientId> = {
            let log = self.log();
            let retired = log.chains.retired();
            let same_place = |client: &ClientId| log.chains.join(client).is_some_and(|join| join.place == place);
            let clients = log.chains.clients.keys();
            // On a store that delivers late, a client that seems to be gone may be at work unseen: only a person knows.
            let by_itself = self.delivery_by(&log.chains) == Delivery::Direct || !self.rules.retired_by_persons;
            clients.filter(|client| by_itself && same_place(client) && !retired.contains(*client)).copied().collect()
        };
        // A client whose first record never arrived has nothing to remember.
        if let Some(before) = before.as_ref().filter(|before| before.place == place && before.number > 0) {
            progress.warn(&format!(
                "this machine's last records are not as it remembers them (the store was set back, or this machine was): \
                 it goes on as a new client, in place of {}",
                &before.client.to_string()[..8]
            ));
        }
        let mut id = [0; 16];
        random(&mut id)?;
        let mut state = ClientState {
            client: ClientId::new(id),
            place: place.clone(),
            number: 0,
            digest: Digest::new([0; 32]),
            pending: None,
            remembered: before.map(|before| before.remembered).unwrap_or_default(),
        };
        let join = Join {
            host: self.identity().host.clone(),
            user: self.identity().user.clone(),
            place,
            retires,
            synced,
            program: self.identity().program.clone(),
        };
        self.put_record(&mut state, RecordBody::Join(join), time, Writer { own, ends: true })?;
        // The catalogue's chunks count as stored only after this client has looked them up again.
        self.catalogue().bump_epoch()?;
        Ok(state)
    }

    /// Puts a record under this name. Claims that do not fit into it go into further records before it.
    fn put_in_parts(
        &self,
        state: &mut ClientState,
        name: ObjectName,
        body: RecordBody,
        time: Time,
        writer: Writer<'_>,
    ) -> Result<(), VaultError> {
        while self.noted(writer.own).claimable.len() > self.limits.claims {
            self.put_record(state, RecordBody::Forget(Vec::new()), time, Writer { ends: false, ..writer })?;
        }
        self.put_named(state, name, body, time, writer)
    }

    fn put_record(
        &self,
        state: &mut ClientState,
        body: RecordBody,
        time: Time,
        writer: Writer<'_>,
    ) -> Result<(), VaultError> {
        self.put_named(state, random_name()?, body, time, writer)
    }

    fn put_named(
        &self,
        state: &mut ClientState,
        name: ObjectName,
        body: RecordBody,
        time: Time,
        writer: Writer<'_>,
    ) -> Result<(), VaultError> {
        let Writer { own, ends } = writer;
        let seen = self.acknowledged(own.filter(|_| ends)).into_iter().collect();
        let (client, number, previous) = (state.client, state.number + 1, state.digest);
        let (seen, closed) = self.log().chains.shorten(&client, number, seen);
        let Noted { claimable: mut claims, ended, .. } = self.noted(own);
        claims.truncate(self.limits.claims);
        let claimed: HashSet<ObjectName> = claims.iter().copied().collect();
        let record = Record { client, number, previous, seen, time, claims, closed, body };
        let sealed = record.seal_as(self.keys(), name)?;
        let digest = Digest::new(*blake3::hash(&sealed.bytes).as_bytes());
        let before = state.clone();
        state.pending = Some(digest);
        state.save(self.state(), false)?;
        let given = Given { key: ObjectKey::Named(Kind::Log, name), bytes: sealed.bytes.clone() };
        self.store().put(&given.key, given.bytes.clone())?;
        state.number += 1;
        state.digest = digest;
        state.pending = None;
        let mut log = self.log();
        let condemns = matches!(record.body, RecordBody::Condemn(_));
        log.records.insert(name, sealed.bytes.len() as u64);
        // If the next listing does not show it, the chains are built from scratch.
        log.read.insert(name, sealed.bytes.len() as u64);
        Arc::make_mut(&mut log.chains).push(Link { name, digest, record });
        for (client, number) in log.chains.seen() {
            let known = state.remembered.entry(client).or_default();
            *known = number.max(*known);
        }
        drop(log);
        state.save(self.state(), true)?;
        self.note_unproven(Unproven { name, digest, given, before });
        // The record is remembered at once, so that it is known even if its object is lost before anyone reads it. If
        // that fails, it is read from the store like any other.
        let _ = self.remember_record(&sealed, condemns);
        if let Some(own) = own {
            own.claimed(&claimed);
        }
        for (list, names) in ended {
            // A list that stays is claimed again, which does no harm.
            let rest: Vec<ObjectName> = names.into_iter().filter(|name| !claimed.contains(name)).collect();
            let _ = if rest.is_empty() { std::fs::remove_file(list) } else { write_names(&list, &rest) };
        }
        Ok(())
    }
}
