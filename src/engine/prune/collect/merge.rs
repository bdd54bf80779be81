//! Merges the log (SPEC §8.10): many small records are combined in one large object, and deleted once all clients have seen it.
//!
//! Records are divided into tiers by the lengths of their objects. Once a tier has enough objects, these and all of the lower tiers are
//! merged into as few objects as the maximum length allows. So each record is rewritten only a few times, and the log has a few hundred
//! objects at most, however long it is.
//!
//! Of a record that nobody needs any more, a merge keeps only a short past record: so the length of the log is that of the records in use,
//! plus a little for each record that ever existed. When half of the content of merges is no longer needed, they are merged again.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::engine::prune::collect::{CollectError, DELETED_TOGETHER, may_collect};
use crate::id::{ClientId, Digest, ObjectName};
use crate::log::merge::{Contents, Done};
use crate::log::past::{Gathered, PastRecord};
use crate::log::{Chains, Finding, FoundRecord, Held, Link, Record, RecordBody, RecordError};
use crate::progress::Progress;
use crate::store::{Delivery, Kind, ObjectKey};
use crate::tree::Time;
use crate::vault::session::Session;
use crate::vault::{Vault, VaultError, snapshots};

/// Maximum length of an object in each tier, in bytes. Longer ones are not merged.
const TIERS: [u64; 3] = [64 << 10, 4 << 20, 12 << 20];
/// Maximum length of a merge, in bytes, unless one object alone needs more.
const MERGE_LEN: usize = 24 << 20;
/// Maximum number of bytes that a record takes in a merge in addition to its plaintext.
const BESIDE: usize = 80;
/// Approximate number of bytes that a merge keeps of a record that nobody needs.
const PAST_LEN: usize = 32;
/// The content of an object goes into a merge only if it is no longer than this, in bytes, as it is never split.
const OBJECT_LEN_MAX: usize = 28 << 20;

/// Result of a merge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Number of objects merged.
    pub merged: u64,
    /// Number of objects deleted from the log because merges contain them.
    pub deleted: u64,
}

/// The tier of an object of the log; `None` if it is too long to be merged.
fn tier(len: u64) -> Option<usize> {
    TIERS.iter().position(|longest| len <= *longest)
}

/// The highest tier that has enough objects.
fn fullest(lens: impl Iterator<Item = u64>, enough: usize) -> Option<usize> {
    let mut counts = [0; TIERS.len()];
    lens.filter_map(tier).for_each(|tier| counts[tier] += 1);
    counts.iter().rposition(|count| *count >= enough)
}

/// Merges the log where this is worthwhile, and deletes the objects in earlier merges once everyone has acknowledged them. The session
/// must be one that may write. If the store is full, nothing is merged.
///
/// # Errors
/// If the store or the catalogue fails, or something unknown may need data that would be deleted.
pub fn merge_log(
    vault: &Vault,
    session: &Session,
    clock: &(dyn Fn() -> Time + Sync),
    progress: &dyn Progress,
) -> Result<MergeReport, CollectError> {
    let mut report = MergeReport::default();
    if is_alone(vault) || !has_work(vault) {
        return Ok(report);
    }
    may_collect(vault)?;
    let contents = contents(vault)?;
    report.deleted = delete_merged(vault, &contents, progress)?;
    match put_merges(vault, session, &contents, clock, progress) {
        Ok(merged) => report.merged = merged,
        Err(error) if error.is_full() => progress.detail("the store is full: the log is not merged"),
        Err(error) => return Err(error),
    }
    if !vault.rules.merged {
        vault.refresh(progress)?;
        report.deleted += delete_merged(vault, &self::contents(vault)?, progress)?;
    }
    if report != MergeReport::default() {
        let MergeReport { merged, deleted } = report;
        progress.detail(&format!("log: {merged} objects merged, {deleted} deleted that merges hold"));
        vault.refresh(progress)?;
    }
    Ok(report)
}

/// Whether no other client has this machine's records, and its new objects may never be delivered while its deletions are: if they were
/// lost then, so would be the log.
fn is_alone(vault: &Vault) -> bool {
    let me = vault.client();
    let log = vault.log();
    let alone = || vault.acknowledgements(&log).active().all(|client| Some(client) == me);
    vault.rules.not_alone && vault.delivery_by(&log.chains) == Delivery::Synced && alone()
}

/// Whether there may be something to do, as far as that can be found out at no cost.
fn has_work(vault: &Vault) -> bool {
    let is_stale = is_stale(vault);
    let log = vault.log();
    let is_held = |name: &ObjectName| log.chains.is_past(name) || log.chains.held(name).is_some();
    let (held, free): (Vec<_>, Vec<_>) = log.read.iter().partition(|(name, _)| is_held(name));
    is_stale || !held.is_empty() || fullest(free.into_iter().map(|(_, len)| *len), vault.limits.merged).is_some()
}

/// Whether enough records are no longer needed that rewriting the merges is worthwhile.
fn is_stale(vault: &Vault) -> bool {
    let chains = vault.chains();
    let (done, few) = (done(vault, &chains, |_| true).len(), vault.limits.merged.saturating_mul(4));
    done >= few && done >= chains.links().count() / 2
}

/// The records that nobody needs any more (SPEC §8.10) and that are not yet recorded as such.
fn done<'c>(
    vault: &Vault,
    chains: &'c Chains,
    is_understood: impl Fn(&ObjectName) -> bool,
) -> HashMap<ObjectName, &'c Link> {
    let mut done = HashMap::new();
    // Depths are final only if everything before is here.
    let is_missing = |finding: &Finding| matches!(finding, Finding::Missing { .. });
    if chains.order().contradicts() || chains.findings(&BTreeMap::new()).iter().any(is_missing) {
        return done;
    }
    let (me, mine) = (vault.client(), vault.acknowledged(None).into_iter().collect::<BTreeMap<_, _>>());
    let has_seen =
        |client: &ClientId, number: u64| Some(*client) == me || mine.get(client).copied().unwrap_or(0) >= number;
    let mut swept: HashSet<ObjectName> = HashSet::new();
    for link in chains.links() {
        if let RecordBody::Sweep(packs) = &link.record.body {
            swept.extend(packs.iter().map(|pack| pack.name));
        }
    }
    // All work in progress anywhere started after these had been seen: so nobody replaces a snapshot any more that they forget.
    let heard = {
        let log = vault.log();
        vault.acknowledgements(&log).upto(&log.chains.seen(), me.as_ref(), &mine)
    };
    let is_heard = |link: &Link| heard.get(&link.record.client).is_some_and(|upto| link.record.number <= *upto);
    let snapshots = snapshots::done(chains, is_heard);
    let is_free = |link: &Link| {
        let Record { client, number, seen, claims, .. } = &link.record;
        has_seen(client, *number)
            && seen.iter().all(|(client, number)| has_seen(client, *number))
            && claims.iter().all(|pack| swept.contains(pack))
            && is_understood(&link.name)
    };
    let mut forgets = Vec::new();
    for (_, records) in chains.clients.iter().filter(|(client, _)| chains.forked(client).is_empty()) {
        // The last record is needed to continue the chain, and empty ones at the end show that a run is in progress.
        let is_open = |link: &&Link| matches!(&link.record.body, RecordBody::Forget(names) if names.is_empty());
        let rest = records.values().rev().flatten();
        for link in rest.clone().skip(rest.take_while(is_open).count().max(1)).filter(|link| is_free(link)) {
            match &link.record.body {
                RecordBody::Snapshot(_) if snapshots.contains(&link.name) => drop(done.insert(link.name, link)),
                RecordBody::Found(_) => drop(done.insert(link.name, link)),
                RecordBody::Forget(names) => forgets.push((names, link)),
                _ => {}
            }
        }
    }
    for (names, link) in forgets {
        let is_gone = |name: &ObjectName| done.contains_key(name) || chains.is_past(name);
        if names.iter().all(is_gone) || !vault.rules.forgotten_together {
            done.insert(link.name, link);
        }
    }
    done
}

/// The contents of all objects of the log.
fn contents(vault: &Vault) -> Result<Contents, CollectError> {
    let mut names: Vec<ObjectName> = vault.log_objects().into_keys().collect();
    names.sort_unstable();
    let (records, mut failed) = (vault.remembered_records()?, None);
    let objects = names.iter().map_while(|name| match records.get(name) {
        Ok(found) => Some(found),
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let contents = Contents::new(objects.flatten());
    failed.map_or(Ok(contents), |error| Err(error.into()))
}

/// Deletes the objects contained in merges that every client has acknowledged. Merges put by this run have to wait for another run: on a
/// synced store, they may not have been delivered to anyone yet. Each merge is read from the store before objects are deleted because of
/// it.
fn delete_merged(vault: &Vault, contents: &Contents, progress: &dyn Progress) -> Result<u64, CollectError> {
    let me = vault.client();
    let mine: BTreeMap<ClientId, u64> = vault.acknowledged(None).into_iter().collect();
    let superfluous = {
        let log = vault.log();
        let acks = vault.acknowledgements(&log);
        contents.superfluous(|client: ClientId, number: u64| {
            !vault.rules.merged || acks.is_read_by_all(&client, number, me.as_ref(), &mine)
        })
    };
    let chains = vault.chains();
    let past = chains.past().flat_map(|past| &past.records).map(|record| (record.name, record.depth));
    let depths: HashMap<ObjectName, u64> = past.collect();
    let mut deleted = 0;
    for ((merge, digest), mut names) in superfluous {
        if !is_there(vault, merge, digest)? {
            progress.detail(&format!("the record {merge} cannot be read: what it holds of others stays as it is"));
            continue;
        }
        // Delete forgotten records before those that forget them: if interrupted, nothing comes back.
        names.sort_unstable_by_key(|name| (depths.get(name).copied(), *name));
        let keys: Vec<ObjectKey> = names.into_iter().map(|name| ObjectKey::Named(Kind::Log, name)).collect();
        for together in keys.chunks(DELETED_TOGETHER) {
            if progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            vault.store().delete_many(together, &mut |_| deleted += 1)?;
        }
    }
    Ok(deleted)
}

/// Whether the object of a record can be read, and is unchanged.
fn is_there(vault: &Vault, name: ObjectName, digest: Digest) -> Result<bool, CollectError> {
    match Record::read(vault.store(), vault.keys(), name) {
        Ok(opened) => Ok(opened.digest == digest),
        Err(RecordError::Store(error)) if error.is_of_whole() => Err(VaultError::from(error).into()),
        Err(_) => Ok(false),
    }
}

/// Merges the objects of the fullest tier and of those below. Returns their number. The content of an object is never split between
/// merges.
fn put_merges(
    vault: &Vault,
    session: &Session,
    contents: &Contents,
    clock: &(dyn Fn() -> Time + Sync),
    progress: &dyn Progress,
) -> Result<u64, CollectError> {
    let (covered, lens) = (contents.covered(), vault.log_objects());
    let is_stale = is_stale(vault);
    let chains = vault.chains();
    let (fresh, order) = (done(vault, &chains, |name| contents.is_understood(name)), chains.order());
    let stale = if is_stale { contents.saying(|name| fresh.contains_key(name)) } else { HashSet::new() };
    let free = || contents.objects().filter(|name| !covered.contains(*name));
    let len = |name: &ObjectName| lens.get(name).copied().unwrap_or(u64::MAX);
    let upto = fullest(free().map(len), vault.limits.merged);
    if upto.is_none() && stale.is_empty() {
        return Ok(0);
    }
    let is_wanted =
        |name: &&ObjectName| stale.contains(*name) || tier(len(name)).is_some_and(|tier| Some(tier) <= upto);
    let mut done = Done::new(chains.past());
    for link in fresh.into_values() {
        let Some(depth) = order.get(&link.name).map(|dated| dated.depth) else { continue };
        let Record { client, number, time, closed, .. } = &link.record;
        done.insert(*client, PastRecord { number: *number, name: link.name, time: *time, depth }, closed);
    }
    let (counting, mut merge, mut merged) = (contents.counting(), Merge::default(), 0);
    let records = vault.remembered_records()?;
    let publish = |held| vault.publish(RecordBody::Found(held), clock(), Some(session), |_| true, progress);
    for name in free().filter(is_wanted) {
        if progress.stopped() {
            return Err(VaultError::Interrupted.into());
        }
        let Some(object) = records.get(name)? else { continue };
        let all = counting.of(object, &done);
        let more = Merge::len_of(&all);
        if more > OBJECT_LEN_MAX {
            continue;
        }
        if merge.len + more > MERGE_LEN && merge.len > 0 {
            publish(std::mem::take(&mut merge).into_held())?;
        }
        merge.add(all);
        merged += 1;
    }
    if merge.len > 0 {
        publish(merge.into_held())?;
    }
    Ok(merged)
}

/// A merge in preparation.
#[derive(Debug, Default)]
struct Merge {
    records: Vec<FoundRecord>,
    names: HashSet<ObjectName>,
    past: Gathered,
    /// An upper bound of its length.
    len: usize,
}

impl Merge {
    /// An upper bound of the length that this adds.
    fn len_of(held: &Held) -> usize {
        let past: usize =
            held.past.iter().map(|past| past.records.len() * PAST_LEN + past.closed.len() * 2 * BESIDE).sum();
        past + held.records.iter().map(|found| found.plain.len() + BESIDE).sum::<usize>()
    }

    fn add(&mut self, held: Held) {
        self.len += Self::len_of(&held);
        self.records.extend(held.records.into_iter().filter(|found| self.names.insert(found.name)));
        for past in held.past {
            self.past.extend(past);
        }
    }

    fn into_held(self) -> Held {
        Held { records: self.records, past: self.past.into_lists() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_merged_with_those_below_as_soon_as_it_has_enough() {
        let few = |count: usize, len: u64| std::iter::repeat_n(len, count);
        assert_eq!(fullest(few(63, 1 << 10), 64), None);
        assert_eq!(fullest(few(64, 1 << 10), 64), Some(0));
        assert_eq!(fullest(few(900, 1 << 10).chain(few(64, 1 << 20)), 64), Some(1));
        assert_eq!(fullest(few(900, 13 << 20), 64), None);
        assert_eq!((tier(64 << 10), tier((64 << 10) + 1), tier(TIERS[2] + 1)), (Some(0), Some(1), None));
    }
}
