//! `prune`: forgets the snapshots that no rule keeps, and frees space. Also other statements about snapshots and clients in the log.

pub mod collect;
pub mod retention;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::engine::prune::collect::merge::merge_log;
use crate::engine::prune::collect::{CollectError, CollectOptions, CollectReport};
use crate::engine::prune::retention::Decision;
use crate::engine::rewrite::{self, RewriteError, RewriteOptions};
use crate::id::{ClientId, ObjectName};
use crate::log::{Acknowledgements, Obstacle, RecordBody};
use crate::progress::Progress;
use crate::store::Delivery;
use crate::tree::Time;
use crate::vault::{Vault, VaultError, twins};
use crate::write::trust::VerifyOthers;

/// Forgets the snapshots that these decisions drop, and frees space.
///
/// # Errors
/// If a record cannot be written: then nothing was changed. If space cannot be freed: then the snapshots are forgotten, and the next
/// prune does the rest.
pub fn prune(
    vault: &Vault,
    decisions: &[Decision],
    options: &CollectOptions<'_>,
    progress: &dyn Progress,
) -> Result<CollectReport, CollectError> {
    let session = vault.begin_writing((options.clock)(), progress)?;
    may_prune(vault, decisions)?;
    // What takes effect now was not known to the decisions: the next prune decides about these.
    let settled = settle_doubts(vault, options, progress)?;
    let drop = decisions.iter().filter(|decision| !decision.keep() && !settled.contains(&decision.id));
    let drop: Vec<ObjectName> = drop.map(|decision| decision.id).collect();
    for part in drop.chunks(vault.limits.names) {
        vault.publish(RecordBody::Forget(part.to_vec()), (options.clock)(), Some(&session), |_| true, progress)?;
    }
    let mut report = collect::collect(vault, &session, options, progress)?;
    let merged = merge_log(vault, &session, options.clock, progress)?;
    (report.records_merged, report.records_deleted) = (merged.merged, merged.deleted);
    match vault.store().sweep_leftovers() {
        Ok(0) => {}
        Ok(count) => progress.detail(&format!("{count} remains of puts that were cut off long ago were removed")),
        Err(error) => progress.warn(&format!("remains of puts that were cut off stay for the next time: {error}")),
    }
    Ok(report)
}

fn may_prune(vault: &Vault, decisions: &[Decision]) -> Result<(), CollectError> {
    if decisions.iter().all(Decision::keep) { collect::may_collect(vault) } else { collect::may_forget(vault) }
}

/// Settles the changes in doubt (SPEC §8.3), and returns the snapshots that others were put in the place of. A failure is reported and keeps
/// nothing else from being done: what is not settled stays.
fn settle_doubts(
    vault: &Vault,
    options: &CollectOptions<'_>,
    progress: &dyn Progress,
) -> Result<Vec<ObjectName>, CollectError> {
    let CollectOptions { clock, level, verify, threads, .. } = *options;
    let rewriting = RewriteOptions { clock, level, verify, others: VerifyOthers::Sample, threads };
    match rewrite::settle(vault, &rewriting, progress) {
        Ok(settled) => Ok(settled),
        Err(RewriteError::Interrupted) => Err(VaultError::Interrupted.into()),
        Err(RewriteError::Vault(error)) => Err(error.into()),
        Err(error) => {
            progress.warn(&format!("changes of a machine that was retired are looked at next time: {error}"));
            Ok(Vec::new())
        }
    }
}

/// The result that [`prune`] would have.
///
/// # Errors
/// If it cannot be determined.
pub fn estimate(
    vault: &Vault,
    decisions: &[Decision],
    options: &CollectOptions<'_>,
    progress: &dyn Progress,
) -> Result<CollectReport, CollectError> {
    let drop: BTreeSet<ObjectName> =
        decisions.iter().filter(|decision| !decision.keep()).map(|decision| decision.id).collect();
    may_prune(vault, decisions)?;
    collect::estimate(vault, &drop, options, progress)
}

/// Publishes a record about the log itself: forgetting, pinning, retiring.
///
/// # Errors
/// If it cannot be written.
pub fn say(vault: &Vault, body: RecordBody, time: Time, progress: &dyn Progress) -> Result<(), VaultError> {
    let session = vault.begin_writing(time, progress)?;
    vault.publish(body, time, Some(&session), |_| true, progress)?;
    Ok(())
}

/// Forgets the copies of snapshots that a vault has once more, since machines copied into it at the same time, and returns their number.
/// Nothing is forgotten as long as records are missing: one of them may be a pin.
///
/// # Errors
/// If the record cannot be written.
pub fn drop_surplus(vault: &Vault, time: Time, progress: &dyn Progress) -> Result<u64, VaultError> {
    let surplus: Vec<ObjectName> = twins::surplus(&vault.snapshots()).into_keys().collect();
    if surplus.is_empty() || collect::may_forget(vault).is_err() {
        return Ok(0);
    }
    let count = surplus.len() as u64;
    say(vault, RecordBody::Forget(surplus), time, progress)?;
    Ok(count)
}

/// Result of retiring the own client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnRetirement {
    /// It is retired, or nobody had joined. The next work from here joins again.
    Done,
    /// Other work of the client is in progress.
    Busy,
    /// It is the only client of a synced store: clients that join later need one that knows them all.
    Last,
}

/// Retires the client that works here, as its last action: nobody waits for it any more.
///
/// # Errors
/// If the record cannot be written.
pub fn retire_self(vault: &Vault, time: Time, progress: &dyn Progress) -> Result<OwnRetirement, VaultError> {
    let Some(own) = vault.client() else { return Ok(OwnRetirement::Done) };
    let is_last = |vault: &Vault| {
        let log = vault.log();
        vault.delivery_by(&log.chains) == Delivery::Synced
            && vault.rules.one_stays
            && vault.acknowledgements(&log).active().all(|client| client == own)
    };
    let confirm = |vault: &Vault| vault.client() == Some(own) && !vault.has_other_work(None) && !is_last(vault);
    Ok(match vault.publish(RecordBody::Retire(vec![own]), time, None, confirm, progress)? {
        Some(_) => OwnRetirement::Done,
        None if is_last(vault) => OwnRetirement::Last,
        None => OwnRetirement::Busy,
    })
}

/// Retires the clients whose records are all older than `before`, by all clocks, if all see the same at once. A client that is alive all
/// the same loses nothing: it notices, and continues as a new one. Returns the retired clients.
///
/// # Errors
/// If the record cannot be written.
pub fn retire_unseen(
    vault: &Vault,
    before: Time,
    time: Time,
    progress: &dyn Progress,
) -> Result<Vec<ClientId>, VaultError> {
    if vault.delivery() != Delivery::Direct {
        return Ok(Vec::new());
    }
    let (chains, own) = (vault.chains(), vault.client());
    let retired = chains.retired();
    let is_old = |client: &ClientId| {
        let records = chains.clients.get(client).into_iter().flat_map(BTreeMap::values).flatten();
        let past = chains.past_of(client).iter().map(|record| record.time);
        let last = records.map(|link| link.record.time).chain(past).max();
        Some(*client) != own && !retired.contains(client) && last < Some(before)
    };
    let old: Vec<ClientId> = chains.clients.keys().filter(|client| is_old(client)).copied().collect();
    if !old.is_empty() {
        say(vault, RecordBody::Retire(old.clone()), time, progress)?;
    }
    Ok(old)
}

/// A client in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its id.
    pub id: ClientId,
    /// Name of the machine, from the record of its joining; empty if that record is missing.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// Number of its records in the log.
    pub records: u64,
    /// Number of its records that others have seen and that are missing here.
    pub missing: u64,
    /// When it wrote its last record, by its own clock.
    pub last: Option<Time>,
    /// Whether it is retired: nobody waits for it any more.
    pub retired: bool,
    /// Whether it is the client of this machine.
    pub own: bool,
    /// Number of condemned packs that wait for it, possibly together with others.
    pub holds_up: u64,
}

/// All clients that write to the vault, or once did.
pub fn clients(vault: &Vault) -> Vec<ClientInfo> {
    let chains = vault.chains();
    let acks = Acknowledgements::new(&chains);
    let retired = chains.retired();
    let own = vault.client();
    let there: HashSet<ObjectName> = vault.condemned();
    let mine: BTreeMap<ClientId, u64> = chains.seen().into_iter().collect();
    let mut waiting: BTreeMap<ClientId, HashSet<ObjectName>> = BTreeMap::new();
    for link in chains.links() {
        let RecordBody::Condemn(packs) = &link.record.body else { continue };
        for obstacle in acks.holding(&link.record.client, link.record.number, own.as_ref(), &mine) {
            if let Obstacle::Waiting(client) | Obstacle::Missing(client) = obstacle {
                let packs = packs.iter().map(|pack| pack.name).filter(|name| there.contains(name));
                waiting.entry(client).or_default().extend(packs);
            }
        }
    }
    let info = |id: ClientId| {
        let records = chains.clients.get(&id).map_or(0, BTreeMap::len) + chains.past_of(&id).len();
        let join = chains.join(&id);
        ClientInfo {
            id,
            host: join.map(|join| join.host.clone()).unwrap_or_default(),
            user: join.map(|join| join.user.clone()).unwrap_or_default(),
            records: records as u64,
            missing: acks.missing_count(&id, &chains),
            last: chains.last(&id).map(|link| link.record.time),
            retired: retired.contains(&id),
            own: own == Some(id),
            holds_up: waiting.get(&id).map_or(0, |packs| packs.len() as u64),
        }
    };
    acks.known().map(info).collect()
}
