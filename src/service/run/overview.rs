//! An overview of all sources and vaults: the last snapshot of each source in each vault, and when the next is due. It
//! opens no vault, so it needs no password.

use serde::{Serialize, Serializer};

use crate::failure::{Exit, Failure};
use crate::json::time_text;
use crate::service::config::{Config, VaultConfig};
use crate::service::local;
use crate::service::plan::{Due, Job, Plan, Target};
use crate::service::report::Known;
use crate::service::run::observer::Doors;
use crate::service::status::Status;
use crate::tree::Time;
use crate::vault::findings::last_known;

/// The overview, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct OverviewJson {
    /// Each source in each of its vaults.
    pub sources: Vec<RowJson>,
    /// The vaults.
    pub places: Vec<PlaceJson>,
    /// The findings, each as a sentence.
    pub findings: Vec<String>,
    /// When a schedule last started a run; null if none ever did.
    #[serde(serialize_with = "exact_or_null")]
    pub last_background_run: Option<Time>,
    /// The known findings of each vault.
    #[serde(skip)]
    pub known: Vec<Known>,
}

/// A source in a vault.
#[derive(Debug, Serialize)]
pub struct RowJson {
    /// The source.
    pub source: String,
    /// The vault's name.
    pub vault: String,
    /// When the last snapshot was taken; null if there is none.
    #[serde(serialize_with = "exact_or_null")]
    pub last: Option<Time>,
    /// The result of the last attempt, in a word.
    pub result: String,
    /// The size of the last snapshot in bytes.
    pub bytes: u64,
    /// Whether a snapshot is overdue.
    pub overdue: bool,
    /// The number of seconds until it is due; 0 if it is due now.
    pub due_in_s: u64,
    /// When the next snapshot is due.
    #[serde(skip)]
    pub due: Due,
}

/// The place of a vault.
#[derive(Debug, Serialize)]
pub struct PlaceJson {
    /// The vault's name.
    pub vault: String,
    /// Its folder or address.
    pub place: String,
    /// Whether the vault is there.
    pub state: There,
    /// Whether the vault may be disconnected at times.
    pub removable: bool,
}

/// Whether a vault is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum There {
    /// The vault is there.
    There,
    /// The place exists, but holds no vault yet.
    Empty,
    /// The place cannot be reached.
    Away,
}

#[allow(clippy::ref_option, reason = "serde calls it like this")]
fn exact_or_null<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(time_text).serialize(serializer)
}

/// Makes the overview from a configuration and the record of earlier runs.
///
/// # Errors
/// If the configuration contradicts itself.
pub fn overview(config: &Config, status: &Status, now: Time, doors: &dyn Doors) -> Result<OverviewJson, Failure> {
    let mut plan = Plan::new(config, &[])?;
    plan.decide(status, now.secs, false, &|place| doors.id_in(place).map(|id| id.to_string()));
    let at = |secs| Time { secs, nanos: 0 };
    let row = |(job, target): (&Job, &Target)| {
        let vault = &plan.vaults[target.vault];
        let pair = status.pair(&job.source.name, &vault.place.to_string());
        RowJson {
            source: job.source.name.clone(),
            vault: vault.name.clone(),
            last: pair.and_then(|pair| pair.taken).map(at),
            result: pair.map_or_else(String::new, |pair| pair.result.clone()),
            bytes: pair.map_or(0, |pair| pair.bytes),
            overdue: target.overdue,
            due_in_s: match target.due {
                Due::Now => 0,
                Due::In(time) => time.as_secs(),
            },
            due: target.due,
        }
    };
    let place = |vault: &VaultConfig| PlaceJson {
        vault: vault.name.clone(),
        place: vault.place.to_string(),
        state: match doors.has_vault(&vault.place) {
            Ok(true) => There::There,
            Ok(false) if local::is_there(&vault.place) => There::Empty,
            Ok(false) | Err(_) => There::Away,
        },
        removable: vault.removable,
    };
    let known = known(doors, &plan);
    Ok(OverviewJson {
        sources: plan
            .jobs
            .iter()
            .flat_map(|job| job.targets.iter().map(move |target| (job, target)))
            .map(row)
            .collect(),
        places: plan.vaults.iter().map(place).collect(),
        findings: known.iter().flat_map(|known| known.findings.clone()).collect(),
        last_background_run: status.last_background.map(at),
        known,
    })
}

/// The known findings of the vaults of a plan, as of the last time each vault was opened on this machine.
pub fn known(doors: &dyn Doors, plan: &Plan) -> Vec<Known> {
    let Some(state) = doors.state() else { return Vec::new() };
    let look = |vault: &VaultConfig| {
        let id = doors.known_in(&vault.place)?;
        let (exit, findings) = last_known(&state.join(id.to_string()));
        let place = vault.place.to_string();
        (exit != Exit::Done).then(|| Known { vault: vault.name.clone(), place, exit, findings })
    };
    plan.vaults.iter().filter_map(look).collect()
}
