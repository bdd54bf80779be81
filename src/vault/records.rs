//! Reads the log: the records of the store, and those that this machine remembers (SPEC §8, §9.2).
//!
//! Records that were read stay in memory, so that a look at the log costs only the records that are new. Only if an
//! object is gone, or if a record holds others, all records are put together from scratch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use crate::catalogue::packs::bump_epoch;
use crate::catalogue::{Catalogue, CatalogueError, Reader};
use crate::id::{Digest, ObjectName};
use crate::log::merge::unfold;
use crate::log::past::Past;
use crate::log::record::{OpenedRecord, SealedRecord};
use crate::log::{Chains, FoundRecord, Held, Link, Record, RecordBody, RecordError, Unknown};
use crate::pack::TRAILER_LEN;
use crate::progress::Progress;
use crate::seal::{HEADER_LEN, NONCE_LEN, TAG_LEN};
use crate::store::{Kind, ObjectKey, StoreError};
use crate::sync::try_share;
use crate::vault::listing::{Known, Listing};
use crate::vault::{BadObject, ObjectState, Vault, VaultError};

/// Number of bytes of the catalogue's records that are decoded together.
const RECORDS_TOGETHER: usize = 8 << 20;
/// Number of records that are read and entered together.
const RECORDS_READ_TOGETHER: usize = 1 << 12;

/// A record as the catalogue keeps it: the hash of its object, and the sealed plaintext.
fn stored_value(digest: Digest, plain: &[u8]) -> Vec<u8> {
    [&digest.as_bytes()[..], plain].concat()
}

/// The length of a record's object, computed from its row in the catalogue.
const fn object_len(value: &[u8]) -> u64 {
    let plain = value.len().saturating_sub(Digest::LEN);
    (HEADER_LEN + NONCE_LEN + plain + TAG_LEN + TRAILER_LEN) as u64
}

/// Converts a row of the catalogue into a record as another record holds it.
fn found((name, value): (ObjectName, Vec<u8>)) -> Option<FoundRecord> {
    let (digest, plain) = value.split_first_chunk()?;
    Some(FoundRecord { name, digest: Digest::new(*digest), plain: plain.to_vec() })
}

/// Names of the records inside a record: those that it holds, with the hashes of their objects, and past records, which
/// it keeps only as entries.
fn inner(record: FoundRecord) -> Vec<(ObjectName, Option<Digest>)> {
    let own = record.name;
    let Held { records, past } = unfold(record);
    let records = records.iter().filter(|record| record.name != own).map(|record| (record.name, Some(record.digest)));
    let past = past.iter().flat_map(|past| &past.records).map(|record| (record.name, None));
    records.chain(past).collect()
}

/// Whether other records say everything that a record holds. `is_there` tells whether the object of a record exists.
fn says_no_more(
    chains: &Chains,
    inner: &[(ObjectName, Option<Digest>)],
    is_there: impl Fn(&ObjectName) -> bool,
) -> bool {
    inner
        .iter()
        .all(|(name, digest)| chains.is_made_up_for(name, digest.as_ref()) || digest.is_some() && is_there(name))
}

/// A row of the catalogue whose object is missing from the store.
struct Away {
    name: ObjectName,
    digest: Option<Digest>,
    inner: Vec<(ObjectName, Option<Digest>)>,
}

impl From<(ObjectName, Vec<u8>)> for Away {
    fn from((name, value): (ObjectName, Vec<u8>)) -> Self {
        let digest = digest_of(&value);
        Self { name, digest, inner: found((name, value)).map(inner).unwrap_or_default() }
    }
}

/// The hash of a record's object, from its row in the catalogue.
fn digest_of(value: &[u8]) -> Option<Digest> {
    value.first_chunk().map(|digest| Digest::new(*digest))
}

/// Whether a record makes packs count as absent from now on.
fn makes_absent(body: &RecordBody) -> bool {
    match body {
        RecordBody::Condemn(_) => true,
        RecordBody::Findings(findings) => !findings.found.is_empty(),
        _ => false,
    }
}

/// Result of a look at the log.
#[derive(Default)]
pub(super) struct LogLook {
    pub(super) chains: Arc<Chains>,
    /// The objects that were read, with the lengths that they must have.
    pub(super) read: HashMap<ObjectName, u64>,
    /// Whether something that was listed, or was known, is missing.
    pub(super) misses: bool,
    /// Whether records were read that this machine did not know.
    pub(super) has_new: bool,
    /// Records that the catalogue has and the store no longer has.
    gone: Vec<ObjectName>,
    /// Records that the store no longer has, but that other records hold.
    held: Vec<ObjectName>,
}

/// Parts of the log that this machine remembers and the store no longer has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Records.
    pub records: Vec<FoundRecord>,
    /// Names of records that were held by a lost one: bringing that one back also brings back all that it held.
    pub inner: HashSet<ObjectName>,
    /// Past records that lost merges had: for each merge, one list per client.
    pub past: Vec<Vec<Past>>,
}

/// The records that this machine remembers.
pub struct RememberedRecords(Reader);

impl RememberedRecords {
    /// The record of this name, whether its object can still be read or not.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn get(&self, name: &ObjectName) -> Result<Option<FoundRecord>, VaultError> {
        Ok(self.0.record(name)?.and_then(|value| found((*name, value))))
    }
}

impl LogLook {
    /// Adds rows of the catalogue to the records that were read; rows that do not decode are left out.
    fn enter(&mut self, rows: Vec<(ObjectName, Vec<u8>)>) -> Vec<Link> {
        let link = |(name, value): &(ObjectName, Vec<u8>)| {
            let (digest, plain) = value.split_first_chunk()?;
            Some(Link { name: *name, digest: Digest::new(*digest), record: Record::decode(plain).ok()? })
        };
        let links: Vec<Option<Link>> = rows.par_iter().map(link).collect();
        let lens = rows.iter().map(|(name, value)| (*name, object_len(value)));
        self.read.extend(lens.zip(&links).filter(|(_, link)| link.is_some()).map(|(len, _)| len));
        links.into_iter().flatten().collect()
    }

    /// Reports the objects of this listing that are not as they were put, and the records that a later version wrote.
    fn judge(&self, listing: &Listing, bad: &mut Vec<BadObject>) {
        let object = |name: &ObjectName| ObjectKey::Named(Kind::Log, *name);
        for (name, len) in &self.read {
            // The record is known, but its object is not as it was put.
            if let Some(there) = listing.records.get(name).filter(|there| *there != len) {
                let what = format!("it has {there} bytes instead of {len}");
                bad.push(BadObject { key: object(name), state: ObjectState::of_unread(false), what });
            }
        }
        for link in self.chains.links() {
            if let RecordBody::Unknown(what) = &link.record.body {
                bad.push(BadObject { key: object(&link.name), state: ObjectState::Newer, what: what.to_string() });
            }
        }
        for (name, version) in self.chains.newer() {
            let what = Unknown::Version(version).to_string();
            bad.push(BadObject { key: object(name), state: ObjectState::Newer, what });
        }
    }
}

impl Vault {
    /// Looks only at the log: reads the records that are new since the last look. Costs one listing if there are none.
    /// Unreadable objects are judged by the next full look. If records were merged meanwhile, that full look is taken
    /// now: one that was listed may be gone before it is read, and be found only in the merge.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub(crate) fn look_at_log(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        let listed = self.list_records()?;
        self.prove_records(Some(&listed))?;
        let (mut names, is_any_gone) = {
            let log = self.log();
            let new = listed.keys().filter(|name| !log.chains.has(name));
            (new.copied().collect::<Vec<_>>(), log.read.keys().any(|name| !listed.contains_key(name)))
        };
        if is_any_gone || !names.is_empty() && self.may_have_missed(&listed)? {
            return self.refresh(progress);
        }
        names.sort_unstable();
        let read = try_share(names.len(), self.store().limits().reads, |number| {
            match Record::read(self.store(), self.keys(), names[number]) {
                Err(RecordError::Store(error)) if error.is_of_whole() => Err(error),
                read => Ok(read),
            }
        })?;
        let is_merged = |read: &Result<OpenedRecord, RecordError>| match read {
            Ok(OpenedRecord { record, .. }) => matches!(record.body, RecordBody::Found(_)),
            Err(error) => matches!(error, RecordError::Store(StoreError::Missing { .. })),
        };
        if read.iter().any(is_merged) {
            return self.refresh(progress);
        }
        let mut log = self.log();
        for (name, read) in names.into_iter().zip(read) {
            if let Ok(OpenedRecord { record, digest, .. }) = read {
                Arc::make_mut(&mut log.chains).push(Link { name, digest, record });
            }
        }
        Ok(())
    }

    /// Reads the records of this listing. If none of the known records is gone, only new ones are read.
    pub(super) fn refresh_records(
        &self,
        known: &Known,
        listing: &Listing,
        bad: &mut Vec<BadObject>,
        progress: &dyn Progress,
    ) -> Result<LogLook, VaultError> {
        let (chains, read) = {
            let log = self.log();
            (Arc::clone(&log.chains), log.read.clone())
        };
        if !read.is_empty() && read.keys().all(|name| listing.records.contains_key(name)) {
            let mut names: Vec<ObjectName> =
                listing.records.keys().filter(|name| !read.contains_key(*name)).copied().collect();
            names.sort_unstable();
            let (reader, mut rows) = (self.catalogue().reader()?, Vec::new());
            for name in &names {
                rows.extend(reader.record(name)?.map(|value| (*name, value)));
            }
            drop(reader);
            let mut look = LogLook { chains, read, ..LogLook::default() };
            let mut links = look.enter(rows);
            names.retain(|name| !look.read.contains_key(name));
            let mut problems = Vec::new();
            links.extend(self.read_records(&names, &mut look, &mut problems, progress)?);
            // A record that holds others, or is held, must be placed together with all others.
            let is_simple = |link: &Link| {
                let is_held = look.chains.held(&link.name).is_some() || look.chains.is_past(&link.name);
                !matches!(link.record.body, RecordBody::Found(_)) && !is_held
            };
            if links.iter().all(is_simple) {
                let new: Vec<Link> = links.into_iter().filter(|link| !look.chains.has(&link.name)).collect();
                if !new.is_empty() {
                    // The old chains may be long: they are not copied here.
                    look.chains = Arc::default();
                    let mut log = self.log();
                    let chains = Arc::make_mut(&mut log.chains);
                    new.into_iter().for_each(|link| chains.push(link));
                    look.chains = Arc::clone(&log.chains);
                }
                bad.extend(problems);
                look.judge(listing, bad);
                return Ok(look);
            }
        }
        self.read_whole_log(known, listing, bad, progress)
    }

    /// As [`Self::refresh_records`], but from the catalogue and the store alone.
    fn read_whole_log(
        &self,
        known: &Known,
        listing: &Listing,
        bad: &mut Vec<BadObject>,
        progress: &dyn Progress,
    ) -> Result<LogLook, VaultError> {
        let (mut look, mut links, mut gone) = (LogLook::default(), Vec::new(), Vec::new());
        known.catalogue.records_in_parts(RECORDS_TOGETHER, |rows| {
            let (there, away): (Vec<_>, Vec<_>) =
                rows.into_iter().partition(|(name, _)| listing.records.contains_key(name));
            gone.extend(away.into_iter().map(Away::from));
            links.extend(look.enter(there));
        })?;
        let lost: Vec<Away> = known.catalogue.lost_records()?.into_iter().map(Away::from).collect();
        // A row that does not decode was damaged on this machine; the object decides.
        let mut names: Vec<ObjectName> =
            listing.records.keys().filter(|name| !look.read.contains_key(*name)).copied().collect();
        names.sort_unstable();
        links.extend(self.read_records(&names, &mut look, bad, progress)?);
        look.chains = Arc::new(Chains::new(links));
        // A record that another one holds is not lost, if everything that it held is here as well.
        let is_held = |away: &Away| {
            away.digest.is_none()
                || look.chains.is_made_up_for(&away.name, away.digest.as_ref())
                    && says_no_more(&look.chains, &away.inner, |name| look.read.contains_key(name))
        };
        let (held, gone): (Vec<_>, Vec<_>) = gone.into_iter().partition(is_held);
        look.held = held.into_iter().chain(lost.into_iter().filter(is_held)).map(|row| row.name).collect();
        look.gone = gone.into_iter().map(|row| row.name).collect();
        look.misses |= !look.gone.is_empty();
        look.judge(listing, bad);
        Ok(look)
    }

    /// Moves records that are gone from the store to the lost ones, and drops those that other records hold.
    pub(super) fn note_gone(&self, look: &LogLook) -> Result<(), VaultError> {
        if look.gone.is_empty() && look.held.is_empty() {
            return Ok(());
        }
        let txn = self.catalogue().write()?;
        self.catalogue().remove_records(&txn, &look.gone)?;
        Catalogue::drop_records(&txn, &look.held)?;
        txn.commit().map_err(CatalogueError::from)?;
        Ok(())
    }

    /// Reads records from the store and enters them into the catalogue.
    fn read_records(
        &self,
        names: &[ObjectName],
        look: &mut LogLook,
        bad: &mut Vec<BadObject>,
        progress: &dyn Progress,
    ) -> Result<Vec<Link>, VaultError> {
        look.has_new |= !names.is_empty();
        let before = Arc::clone(&self.log().chains);
        let condemns = |record: &Record| match &record.body {
            RecordBody::Found(held) => held
                .records
                .iter()
                .filter(|found| !before.has(&found.name))
                .any(|found| Record::decode(&found.plain).is_ok_and(|record| makes_absent(&record.body))),
            body => makes_absent(body),
        };
        let mut links = Vec::with_capacity(names.len());
        for group in names.chunks(RECORDS_READ_TOGETHER) {
            let read = try_share(group.len(), self.store().limits().reads, |number| {
                if progress.stopped() {
                    return Err(VaultError::Interrupted);
                }
                match Record::read(self.store(), self.keys(), group[number]) {
                    Err(RecordError::Store(error)) if error.is_of_whole() => Err(error.into()),
                    read => Ok(read),
                }
            })?;
            let (mut fresh, mut condemned) = (Vec::new(), false);
            for (name, result) in group.iter().copied().zip(read) {
                match result {
                    Ok(OpenedRecord { record, digest, plain }) => {
                        let value = stored_value(digest, &plain);
                        look.read.insert(name, object_len(&value));
                        fresh.push((name, value));
                        condemned |= condemns(&record);
                        links.push(Link { name, digest, record });
                    }
                    Err(error) => {
                        // A record that was taken out of the log since it was listed is in a merge that a new listing
                        // shows.
                        look.misses |= matches!(error, RecordError::Store(StoreError::Missing { .. }));
                        let newer = matches!(error, RecordError::Newer { .. });
                        bad.push(BadObject {
                            key: ObjectKey::Named(Kind::Log, name),
                            state: ObjectState::of_unread(newer),
                            what: error.reason(),
                        });
                    }
                }
            }
            if !fresh.is_empty() {
                let txn = self.catalogue().write()?;
                self.catalogue().insert_records(&txn, &fresh)?;
                if condemned {
                    // Chunks that were known as stored may lie in packs that count as absent from now on.
                    bump_epoch(&txn)?;
                }
                txn.commit().map_err(CatalogueError::from)?;
            }
        }
        Ok(links)
    }

    /// Records that this machine remembers and the store no longer has: name and hash of the object, and the plaintext.
    /// Records that a lost one held are listed beside it, since records nested in a held one do not count.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn lost_records(&self) -> Result<Lost, VaultError> {
        let mut lost = Lost::default();
        for record in self.catalogue().reader()?.lost_records()?.into_iter().filter_map(found) {
            let own = record.name;
            let held = unfold(record);
            lost.inner.extend(held.records.iter().map(|record| record.name).filter(|name| *name != own));
            lost.records.extend(held.records);
            lost.past.extend(Some(held.past).filter(|past| !past.is_empty()));
        }
        Ok(lost)
    }

    /// Records that this machine remembers, that the store no longer has, and that nothing replaces: no other record
    /// holds them, and nobody gave them up. If a client has written another record of that number since (because its
    /// store was set back), its lost record is not among them.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn missing_records(&self) -> Result<Lost, VaultError> {
        let mut lost = self.lost_records()?;
        let log = self.log();
        let mut names = HashSet::new();
        lost.records.retain(|found| {
            let mut is_accounted =
                |record: Record| log.chains.is_accounted(&record.client, record.number) || !names.insert(found.name);
            Record::decode(&found.plain).is_ok_and(|record| !is_accounted(record))
        });
        // All of it or nothing: the entries that one merge has are needed as long as any of them is.
        let is_known = |past: &Past| past.records.iter().all(|record| log.chains.is_past(&record.name));
        lost.past.retain(|lists| !lists.iter().all(is_known));
        let is_here =
            |past: &Past| past.records.iter().all(|record| log.chains.is_accounted(&past.client, record.number));
        if lost.records.is_empty() && lost.past.iter().flatten().all(is_here) {
            lost.past.clear();
        }
        Ok(lost)
    }

    /// Whether other records say everything that a record says and holds.
    pub fn is_made_up_for(&self, record: &FoundRecord) -> bool {
        let log = self.log();
        log.chains.is_made_up_for(&record.name, Some(&record.digest))
            && says_no_more(&log.chains, &inner(record.clone()), |name| log.read.contains_key(name))
    }

    /// A record that this machine remembers, whether its object can still be read or not.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn remembered_record(&self, name: &ObjectName) -> Result<Option<FoundRecord>, VaultError> {
        self.remembered_records()?.get(name)
    }

    /// The records that this machine remembers now, for callers that want many of them.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn remembered_records(&self) -> Result<RememberedRecords, VaultError> {
        Ok(RememberedRecords(self.catalogue().reader()?))
    }

    /// The objects of the log that were read, with their lengths.
    pub fn log_objects(&self) -> HashMap<ObjectName, u64> {
        self.log().read.clone()
    }

    /// Enters a record that was just put.
    pub(crate) fn remember_record(&self, sealed: &SealedRecord, condemns: bool) -> Result<(), VaultError> {
        let txn = self.catalogue().write()?;
        let digest = Digest::new(*blake3::hash(&sealed.bytes).as_bytes());
        self.catalogue().insert_records(&txn, &[(sealed.name, stored_value(digest, &sealed.plain))])?;
        if condemns {
            bump_epoch(&txn)?;
        }
        txn.commit().map_err(CatalogueError::from)?;
        Ok(())
    }
}
