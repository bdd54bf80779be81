//! The health of a vault: damage, advice and what is in order. `vault doctor` and the page share these rules.

use crate::engine::keys;
use crate::engine::keys::SlotInfo;
use crate::engine::prune;
use crate::engine::stats::Stats;
use crate::failure::Exit;
use crate::failure::Failure;
use crate::failure::quoted;
use crate::path::Shown;
use crate::seal::Purpose;
use crate::service::dates;
use crate::service::drill::Last;
use crate::service::units;
use crate::store::Delivery;
use crate::tree::Time;
use crate::tree::Verdict;
use crate::vault::ObjectState;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use crate::vault::findings::{About, KnownFinding, Note, exit_of};
use crate::vault::slots::{OddSlot, SlotFault};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

const DAY: i64 = 86_400;
/// A vault is new until its first snapshot is this old, in seconds.
const NEW_WITHIN: i64 = 7 * DAY;
/// All data should be verified about this often, in seconds.
const VERIFY_WITHIN: i64 = 90 * DAY;
/// The number of gaps between recent snapshots that determine the usual interval.
const GAPS: usize = 10;

/// The command that tells whether everything has arrived.
const ARRIVED: &str = "vault check   (when the sync is done)";

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// This is in order.
    Good,
    /// Something should be done.
    Advice,
    /// There is damage.
    Damage,
}

/// A finding about a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The severity.
    pub level: Level,
    /// The subject: `store`, `snapshots`, `data`, `space`, `keys`, `clients`.
    pub about: &'static str,
    /// The finding as a sentence.
    pub text: String,
    /// The command that helps.
    pub command: Option<String>,
}

impl Finding {
    fn good(about: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Good, about, text: text.into(), command: None }
    }

    fn advice(about: &'static str, text: impl Into<String>, command: impl Into<String>) -> Self {
        Self { level: Level::Advice, about, text: text.into(), command: Some(command.into()) }
    }

    fn damage(about: &'static str, text: impl Into<String>, command: impl Into<String>) -> Self {
        Self { level: Level::Damage, about, text: text.into(), command: Some(command.into()) }
    }
}

/// The input of the rules besides the vault.
#[derive(Debug)]
pub struct Circumstances<'z> {
    /// The current time.
    pub now: Time,
    /// The time zone in which dates are shown.
    pub zone: &'z TimeZone,
    /// The maximum age of a source's last snapshot. `None` derives it from the dates of earlier snapshots.
    pub overdue: Option<Duration>,
    /// Whether `vault run` checks the vault by itself.
    pub checks: bool,
    /// The configured interval of restore drills; `None` if none is configured.
    pub drill_every: Option<Duration>,
}

/// The findings of a vault.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Whether there is nothing to do.
    pub well: bool,
    /// The findings, in the order of the rules.
    pub findings: Vec<Finding>,
}

impl Health {
    fn new(findings: Vec<Finding>) -> Self {
        Self { well: findings.iter().all(|finding| finding.level == Level::Good), findings }
    }

    /// The highest severity among the findings.
    pub fn worst(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Good)
    }
}

/// Examines a vault by all rules.
///
/// # Errors
/// If the store or the catalogue fails as a whole.
pub fn examine(vault: &Vault, stats: &Stats, given: &Circumstances<'_>) -> Result<Health, Failure> {
    let mut found = Vec::new();
    examine_store(vault, stats, given, &mut found)?;
    examine_sources(given, &vault.snapshots(), &mut found);
    examine_data(vault, stats, given, &mut found)?;
    examine_drill(vault, given, &mut found);
    examine_space(stats, &mut found);
    examine_unclaimed(vault, stats, &mut found);
    examine_clients(vault, &mut found);
    examine_keys(vault, &mut found)?;
    Ok(Health::new(found))
}

/// Examines a vault by the rules that read no objects: its known findings, and the age of each source's last snapshot.
///
/// # Errors
/// If the store or the catalogue fails as a whole.
pub fn examine_first(vault: &Vault, given: &Circumstances<'_>) -> Result<Health, Failure> {
    let mut found = Vec::new();
    examine_known(vault, given.now, &mut found)?;
    examine_sources(given, &vault.snapshots(), &mut found);
    Ok(Health::new(found))
}

/// Adds the known findings, and returns them.
fn examine_known(vault: &Vault, now: Time, found: &mut Vec<Finding>) -> Result<Vec<KnownFinding>, Failure> {
    let known = vault.known_findings(now)?;
    for finding in &known {
        let text = format!("[{}] {}.", finding.id, finding.text());
        let command = match &finding.about {
            About::Object { state: ObjectState::Newer, .. } => "vault version".to_owned(),
            About::Object { .. } => "vault repair --dry-run".to_owned(),
            About::Records { .. } => format!("vault repair --dry-run   (or: vault accept {})", finding.id),
            About::Files { .. } | About::Unexamined { .. } => "vault check".to_owned(),
            About::Late { .. } => ARRIVED.to_owned(),
            About::Slot(odd) if odd.fault == SlotFault::Unlisted => {
                format!("vault key remove {}   (or: vault accept {})", &odd.slot.id.to_string()[..8], finding.id)
            }
            About::Slot(OddSlot { fault: SlotFault::Missing | SlotFault::Late, .. }) => {
                format!("vault key add   (or: vault accept {})", finding.id)
            }
            About::Slot(_) => "vault repair".to_owned(),
            About::OtherVault(id) => format!("vault list --vault {}", &id.to_string()[..8]),
            About::Change { snapshot, .. } => {
                format!("vault tag, amend or rewrite {}   (or: vault accept {})", snapshot.short(), finding.id)
            }
            About::Clocks { .. } => "vault client list".to_owned(),
            About::Note(Note::Problems) => format!("vault check --read-data   (or: vault accept {})", finding.id),
            About::Note(_) => format!("vault accept {}", finding.id),
            About::Source { source, .. } => format!("vault snapshot   (of {source}, when its disk is there again)"),
        };
        found.push(match finding.exit() {
            Exit::Damage => Finding::damage("store", text, command),
            _ => Finding::advice("store", text, command),
        });
    }
    Ok(known)
}

/// Adds known damage, and gaps in the log.
fn examine_store(
    vault: &Vault,
    stats: &Stats,
    given: &Circumstances<'_>,
    found: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let known = examine_known(vault, given.now, found)?;
    if stats.unreadable > 0 && exit_of(&known) == Exit::Done {
        found.push(Finding::damage("store", "Some folders of snapshots cannot be read.", "vault repair --dry-run"));
    }
    if stats.late > 0 && known.iter().all(|finding| !matches!(finding.about, About::Late { .. })) {
        let text = "Not all of the snapshots has arrived yet; the sync brings the rest.";
        found.push(Finding::advice("store", text, ARRIVED));
    }
    for finding in vault.findings() {
        if let crate::log::Finding::Fork { .. } | crate::log::Finding::Broken { .. } = finding {
            found.push(Finding::advice("store", format!("The log: {finding}."), "vault client list"));
        }
    }
    let foreign = vault.foreign();
    if !foreign.is_empty() {
        let count = units::counted(foreign.len() as u64, "file", "files");
        let text = format!("{count} in its folder do not belong there (conflicted copies, perhaps). They do no harm.");
        found.push(Finding::good("store", text));
    }
    if found.is_empty() {
        let text = format!(
            "{} in {}, and nothing is known to be damaged.",
            units::size(stats.bytes_packs + stats.bytes_records),
            units::counted(stats.packs, "pack", "packs")
        );
        found.push(Finding::good("store", text));
    }
    Ok(())
}

/// The time after its last snapshot when a source becomes overdue, in seconds, derived from the times of its snapshots.
fn patience(times: &[i64]) -> i64 {
    let mut gaps: Vec<i64> =
        times.windows(2).rev().take(GAPS).map(|pair| pair[1].saturating_sub(pair[0]).saturating_abs()).collect();
    gaps.sort_unstable();
    let usual = gaps.get(gaps.len() / 2).copied().unwrap_or(0).saturating_mul(3);
    if gaps.len() < 2 { usual.max(7 * DAY) } else { usual.max(DAY) }
}

/// How long ago something was, in words.
fn ago(secs: i64) -> String {
    match secs {
        ..0 => "in the future, by this machine's clock".to_owned(),
        0..3600 => "less than an hour ago".to_owned(),
        3600..172_800 => format!("{} ago", units::counted(secs.unsigned_abs() / 3600, "hour", "hours")),
        _ => format!("{} ago", units::counted(secs.unsigned_abs() / 86_400, "day", "days")),
    }
}

fn examine_sources(given: &Circumstances<'_>, snapshots: &[SnapshotInfo], found: &mut Vec<Finding>) {
    if snapshots.is_empty() {
        found.push(Finding::advice("snapshots", "There is no snapshot yet.", "vault snapshot PATH"));
    }
    let mut sources: BTreeMap<(&str, &str), Vec<&SnapshotInfo>> = BTreeMap::new();
    for info in snapshots {
        sources.entry((&info.body.source, &info.body.host)).or_default().push(info);
    }
    for ((source, host), of_source) in sources {
        let Some(last) = of_source.last() else { continue };
        let age = given.now.secs.saturating_sub(last.date.secs);
        let times: Vec<i64> = of_source.iter().map(|info| info.date.secs).collect();
        let limit = given.overdue.map_or_else(|| patience(&times), |limit| limit.as_secs().cast_signed());
        let name = format!("{} of {}", Shown(source.as_bytes()), Shown(host.as_bytes()));
        let when = dates::shown(last.date, given.zone);
        let text = format!("{name}: the last snapshot was taken {} ({when})", ago(age));
        found.push(if age > limit {
            Finding::advice("snapshots", format!("{text}: it is overdue."), snapshot_command(last))
        } else {
            Finding::good("snapshots", format!("{text}."))
        });
        if last.body.verdict == Verdict::Partial {
            let count = units::counted(last.body.skipped, "thing", "things");
            let text = format!("{name}: {count} could not be saved.");
            found.push(Finding::advice("snapshots", text, format!("vault ls --skipped {}", last.id.short())));
        }
    }
}

/// The command that takes the same snapshot again.
fn snapshot_command(info: &SnapshotInfo) -> String {
    let paths = info.body.roots.iter().filter(|root| !root.path.is_empty());
    let paths: Vec<String> = paths.map(|root| quoted(&Shown(&root.path).to_string())).collect();
    let paths = if paths.is_empty() { "…".to_owned() } else { paths.join(" ") };
    format!("vault snapshot {paths}")
}

fn examine_data(
    vault: &Vault,
    stats: &Stats,
    given: &Circumstances<'_>,
    found: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let now = given.now;
    if stats.packs == 0 {
        return Ok(());
    }
    let verified =
        vault.catalogue().reader().and_then(|reader| reader.verified()).map_err(crate::vault::VaultError::from)?;
    let times: Vec<Option<i64>> = vault.pack_names().iter().map(|name| verified.get(name).copied()).collect();
    let never = times.iter().filter(|time| time.is_none()).count() as u64;
    let oldest = times.iter().flatten().min().copied();
    let sample = "vault check --sample 10%";
    // No advice is given to do what `vault run` will do by itself, unless it is late.
    let begun = vault.snapshots().iter().map(|info| info.date.secs).min().unwrap_or(now.secs);
    let is_new = given.checks && now.secs.saturating_sub(begun) < NEW_WITHIN;
    found.push(match oldest {
        _ if is_new && never > 0 => Finding::good(
            "data",
            "The vault is new: vault run reads and verifies a part of it each time it checks.".to_owned(),
        ),
        None => {
            let text = "No data was ever read and verified by this machine.";
            Finding::advice("data", text, "vault check --read-data")
        }
        Some(_) if never * 5 > stats.packs => {
            let text = format!("{} never read and verified here.", units::packs_were(never, stats.packs));
            Finding::advice("data", text, sample)
        }
        Some(oldest) if now.secs.saturating_sub(oldest) > VERIFY_WITHIN => {
            let text = format!("Some data was last verified {}.", ago(now.secs.saturating_sub(oldest)));
            Finding::advice("data", text, sample)
        }
        Some(oldest) if never == 0 => Finding::good(
            "data",
            format!("Every byte was verified; the oldest of it {}.", ago(now.secs.saturating_sub(oldest))),
        ),
        Some(oldest) => Finding::good(
            "data",
            format!("All but what is new was verified; the oldest of it {}.", ago(now.secs.saturating_sub(oldest))),
        ),
    });
    Ok(())
}

/// Adds the result of the last drill on this machine.
fn examine_drill(vault: &Vault, given: &Circumstances<'_>, found: &mut Vec<Finding>) {
    let last = Last::load(vault);
    let now = given.now;
    if let Some(every) = given.drill_every.filter(|_| !vault.snapshots().is_empty())
        && Last::is_due(last.as_ref(), every * 2, now.secs)
    {
        let text = "No restore was tried for a long time, although drill-every asks for it.";
        found.push(Finding::advice("data", text, "vault drill"));
    }
    let Some(last) = last else { return };
    let when = ago(now.secs.saturating_sub(last.secs));
    let files = units::counted(last.files, "file", "files");
    found.push(if last.failed == 0 {
        Finding::good("data", format!("A restore of {files} was tried {when}, and all came back as they were."))
    } else {
        let text = format!("Of {files} of which a restore was tried {when}, {} did not come back.", last.failed);
        Finding::damage("data", text, "vault check --read-data")
    });
}

/// The number of unneeded bytes below which they are not mentioned.
const DEAD_TOLD_FROM: u64 = 64 << 10;

fn examine_space(stats: &Stats, found: &mut Vec<Finding>) {
    let dead = units::size(stats.bytes_dead);
    // Up to a tenth is not worth mentioning, nor are small amounts: the last pack of each run is padded.
    if stats.bytes_dead > stats.bytes_packs / 10 && stats.bytes_dead > 64 << 20 {
        let text = format!("No snapshot needs {dead} of {}.", units::size(stats.bytes_packs));
        found.push(Finding::advice("space", text, "vault prune --keep 100 --dry-run   (with your own rules)"));
    } else {
        let many = units::counted(stats.snapshots.len() as u64, "snapshot needs", "snapshots need");
        let beside =
            if stats.bytes_dead < DEAD_TOLD_FROM { String::new() } else { format!("; none needs {dead} more") };
        let text = format!("{many} {}{beside}.", units::size(stats.bytes_needed));
        found.push(Finding::good("space", text));
    }
}

/// Mentions packs that no machine claims, unless they are small.
fn examine_unclaimed(vault: &Vault, stats: &Stats, found: &mut Vec<Finding>) {
    if stats.bytes_unclaimed < 1 << 20 {
        return;
    }
    let size = units::size(stats.bytes_unclaimed);
    let text = format!("{size} are claimed by no machine: by work that goes on now, or by one that lost its state.");
    found.push(match vault.delivery() {
        Delivery::Direct => {
            let text = format!("{text} In that case, when each machine has taken two snapshots, it is given back by:");
            Finding::advice("space", text, "vault prune")
        }
        Delivery::Synced => Finding::good(
            "space",
            format!(
                "{text} Where things arrive late they stay, as they may be from a machine nobody has heard of yet."
            ),
        ),
    });
}

fn examine_clients(vault: &Vault, found: &mut Vec<Finding>) {
    for client in prune::clients(vault).into_iter().filter(|client| !client.retired && !client.own) {
        let id = &client.id.to_string()[..8];
        if client.holds_up > 0 {
            let text = format!(
                "The machine {} ({id}) has not been seen since packs were given up, and holds up {}. If it is gone for good:",
                Shown(client.host.as_bytes()),
                units::counted(client.holds_up, "pack", "packs")
            );
            found.push(Finding::advice("clients", text, format!("vault client retire {id}")));
        }
    }
}

fn examine_keys(vault: &Vault, found: &mut Vec<Finding>) -> Result<(), Failure> {
    let slots = keys::list(vault)?;
    let people: Vec<&SlotInfo> = slots.iter().filter(|slot| slot.is_for_a_person()).collect();
    if people.is_empty() {
        let text = "No password and no recovery key opens it, only the key of a machine.";
        found.push(Finding::advice("keys", text, "vault key add"));
    } else if people.iter().any(|slot| slot.purpose == Purpose::Recovery) {
        let text = "A recovery key opens it if the password is lost.";
        found.push(Finding::good("keys", text));
    } else {
        let text = "There is no recovery key: if the password is lost, so is everything.";
        found.push(Finding::advice("keys", text, "vault key add --recovery-key --label paper"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_overdue_by_what_is_usual_for_it() {
        assert_eq!(patience(&[]), 7 * DAY);
        assert_eq!(patience(&[0, DAY]), 7 * DAY);
        assert_eq!(patience(&[0, 10 * DAY]), 30 * DAY);
        assert_eq!(patience(&[0, DAY, 2 * DAY, 3 * DAY]), 3 * DAY);
        assert_eq!(patience(&[0, 60, 120, 180]), DAY);
        // One long pause, or a clock that jumped, changes nothing.
        assert_eq!(patience(&[0, DAY, 2 * DAY, 3 * DAY, 90 * DAY, 91 * DAY]), 3 * DAY);
        assert_eq!(patience(&[0, DAY, 900 * DAY, 2 * DAY, 3 * DAY, 4 * DAY, 5 * DAY]), 3 * DAY);
    }

    #[test]
    fn times_are_told_in_words() {
        assert_eq!(ago(-1), "in the future, by this machine's clock");
        assert_eq!(ago(59), "less than an hour ago");
        assert_eq!(ago(7200), "2 hours ago");
        assert_eq!(ago(3 * DAY), "3 days ago");
    }
}
