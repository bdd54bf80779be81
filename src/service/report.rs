//! The report of a run, for the screen, for `--json` and for the report file.

use std::time::Duration;

use crate::path::Shown;
use crate::tree::Snapshot;
use crate::tree::Time;
use serde::Serialize;

use crate::failure::Exit;
use crate::failure::Failure;
use crate::json;
use crate::json::CountsJson;
use crate::service::drill::Last;
use crate::service::units;

/// The result for one source in one vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A snapshot was taken.
    Complete,
    /// Nothing had changed, so no snapshot was taken, as configured.
    Unchanged,
    /// A snapshot was taken, but some files could not be saved.
    Partial,
    /// No snapshot was taken.
    Failed,
    /// The vault is removable and not connected.
    Away,
    /// The user stopped the work.
    Interrupted,
    /// The source is due, and this is a dry run.
    Due,
    /// The source is not due yet: its last snapshot is recent enough.
    NotDue,
}

impl State {
    /// Whether the vault now holds the current state of the source.
    pub fn is_taken(self) -> bool {
        matches!(self, Self::Complete | Self::Unchanged | Self::Partial)
    }

    /// The state's name in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Unchanged => "unchanged",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Away => "away",
            Self::Interrupted => "interrupted",
            Self::Due => "due",
            Self::NotDue => "not-due",
        }
    }
}

/// A failure, and the next step for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The exit code that this failure alone would lead to.
    pub exit: Exit,
    /// The failure as a sentence.
    pub what: String,
    /// The next step for the user.
    pub hint: Option<String>,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { exit: failure.exit, what: failure.what, hint: failure.hint }
    }
}

/// The result for one source in one vault, with its figures.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The source's name.
    pub source: String,
    /// The vault's name.
    pub vault: String,
    /// The vault's folder or address.
    pub place: String,
    /// The vault's id, if the vault was opened.
    pub id: Option<String>,
    /// When work on the source began.
    pub time: Time,
    /// The result.
    pub state: State,
    /// The snapshot's id, if one was taken.
    pub snapshot: Option<String>,
    /// The digest of the tree: in one vault, equal for the same names and contents.
    pub digest: Option<String>,
    /// The snapshot's description with its counts, if the work got that far.
    pub body: Option<Box<Snapshot>>,
    /// Whether the last snapshot is too old.
    pub overdue: bool,
    /// The time until the source is due, if it is not due yet.
    pub due_in: Option<Duration>,
    /// The failure, if there was one.
    pub trouble: Option<Trouble>,
}

impl Outcome {
    /// An outcome with only these fields known; all others are empty.
    pub fn new(source: &str, vault: &str, place: String, time: Time, state: State) -> Self {
        Self {
            source: source.to_owned(),
            vault: vault.to_owned(),
            place,
            id: None,
            time,
            state,
            snapshot: None,
            digest: None,
            body: None,
            overdue: false,
            due_in: None,
            trouble: None,
        }
    }
}

/// The result of a vault's maintenance after its snapshots: pruning, check and drill.
#[derive(Debug, Clone)]
pub struct Care {
    /// The vault's name.
    pub vault: String,
    /// The vault's folder or address.
    pub place: String,
    /// The number of snapshots forgotten.
    pub forgotten: u64,
    /// The bytes freed.
    pub bytes_freed: u64,
    /// Sources whose snapshots were all kept, because the clock had jumped.
    pub held: Vec<String>,
    /// Sources whose keep rules were applied.
    pub pruned: Vec<String>,
    /// The result of the check, if there was one.
    pub checked: Option<Checked>,
    /// The result of the restore drill, if there was one.
    pub drilled: Option<Last>,
    /// The failure, if there was one.
    pub trouble: Option<Trouble>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Whether there is damage.
    pub damaged: bool,
    /// Whether there are findings other than damage.
    pub remarks: bool,
    /// The number of packs read.
    pub packs_read: u64,
    /// The number of bytes read.
    pub bytes_read: u64,
}

/// A hook that failed.
#[derive(Debug, Clone)]
pub struct HookTrouble {
    /// The source's name.
    pub source: String,
    /// `before`, `after` or `on-failure`.
    pub hook: &'static str,
    /// The failure in words.
    pub what: String,
}

/// The report of a whole run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The results for each source in each vault.
    pub outcomes: Vec<Outcome>,
    /// The results of the vaults' maintenance.
    pub cares: Vec<Care>,
    /// Hooks that failed.
    pub hooks: Vec<HookTrouble>,
    /// Known findings of the vaults, whether this run opened them or not.
    pub known: Vec<Known>,
    /// The last restore drill of each vault on this machine, in this run or an earlier one, with the vault's folder or
    /// address.
    pub drills: Vec<(String, Last)>,
}

/// The known findings of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The vault's name.
    pub vault: String,
    /// The vault's folder or address.
    pub place: String,
    /// The exit code of a command that meets these findings.
    pub exit: Exit,
    /// Each finding as a sentence.
    pub findings: Vec<String>,
}

impl Report {
    /// The exit code of the run: the worst of its results.
    pub fn exit(&self) -> Exit {
        let is = |state| self.outcomes.iter().any(|outcome| outcome.state == state);
        let troubles = self.outcomes.iter().filter_map(|outcome| outcome.trouble.as_ref());
        let mut troubles = troubles.chain(self.cares.iter().filter_map(|care| care.trouble.as_ref()));
        let damaged = troubles.any(|trouble| trouble.exit == Exit::Damage)
            || self.cares.iter().any(|care| care.checked.is_some_and(|checked| checked.damaged))
            || self.cares.iter().any(|care| care.drilled.as_ref().is_some_and(|last| last.failed > 0))
            || self.known.iter().any(|known| known.exit == Exit::Damage);
        let overdue = self.outcomes.iter().any(|outcome| outcome.overdue && outcome.state == State::Away);
        let care_failed = self.cares.iter().any(|care| care.trouble.is_some());
        let hook_failed = self.hooks.iter().any(|hook| hook.hook != "on-failure");
        if is(State::Interrupted) {
            Exit::Interrupted
        } else if damaged {
            Exit::Damage
        } else if is(State::Failed) || care_failed || overdue || hook_failed {
            Exit::Failed
        } else if is(State::Partial)
            || is(State::Away)
            || self.cares.iter().any(|care| care.checked.is_some_and(|checked| checked.remarks))
            || self.known.iter().any(|known| known.exit == Exit::Skipped)
        {
            Exit::Skipped
        } else {
            Exit::Done
        }
    }

    /// Everything that failed or is overdue, and all known findings, each as a short line.
    pub fn troubles(&self) -> Vec<String> {
        let outcomes = self.outcomes.iter().filter_map(|outcome| {
            let name = format!("{} → {}", outcome.source, outcome.vault);
            match (&outcome.trouble, outcome.state) {
                (Some(trouble), _) => Some(format!("{name}: {}", trouble.what)),
                (None, State::Away) if outcome.overdue => Some(format!("{name}: overdue, and the vault is away")),
                _ => None,
            }
        });
        let hooks = self.hooks.iter().map(|hook| format!("{}: the command {}: {}", hook.source, hook.hook, hook.what));
        let cares = self.cares.iter().filter_map(|care| match (&care.trouble, care.checked) {
            (Some(trouble), _) => Some(format!("{}: {}", care.vault, trouble.what)),
            (None, Some(Checked { remarks: false, damaged: true, .. })) => {
                Some(format!("{}: the vault is damaged", care.vault))
            }
            _ if care.drilled.as_ref().is_some_and(|last| last.failed > 0) => {
                Some(format!("{}: of a restore that was tried, not all came back", care.vault))
            }
            _ => None,
        });
        let known = self.known.iter().flat_map(|known| {
            known.findings.iter().map(|finding| format!("{}: {finding}", Shown(known.vault.as_bytes())))
        });
        outcomes.chain(hooks).chain(cares).chain(known).collect()
    }

    /// The report in the form that is written to a file and printed.
    pub fn json(&self, begun: Time, ended: Time) -> ReportJson<'_> {
        let exit = self.exit();
        ReportJson {
            started: begun,
            finished: ended,
            verdict: match exit {
                Exit::Done => "complete",
                Exit::Skipped => "partial",
                Exit::Damage => "damaged",
                Exit::Interrupted => "interrupted",
                Exit::Failed | Exit::Usage | Exit::Unreachable | Exit::WrongPassword | Exit::Panic => "failed",
            },
            exit_code: exit as u8,
            results: self.outcomes.iter().map(OutcomeJson::new).collect(),
            vaults: self.cares.iter().map(CareJson::new).collect(),
            known: self
                .known
                .iter()
                .map(|known| KnownJson {
                    vault: &known.vault,
                    place: &known.place,
                    code: known.exit as u8,
                    findings: &known.findings,
                })
                .collect(),
            hooks: self
                .hooks
                .iter()
                .map(|hook| HookJson { source: &hook.source, hook: hook.hook, error: &hook.what })
                .collect(),
        }
    }
}

/// The known findings of a vault, as JSON.
#[derive(Serialize)]
struct KnownJson<'a> {
    vault: &'a str,
    place: &'a str,
    code: u8,
    findings: &'a [String],
}

/// A run, as JSON.
#[derive(Serialize)]
pub struct ReportJson<'a> {
    #[serde(serialize_with = "json::exact")]
    started: Time,
    #[serde(serialize_with = "json::exact")]
    finished: Time,
    /// `complete`, `partial`, `failed`, `damaged` or `interrupted`.
    verdict: &'static str,
    exit_code: u8,
    results: Vec<OutcomeJson<'a>>,
    vaults: Vec<CareJson<'a>>,
    known: Vec<KnownJson<'a>>,
    hooks: Vec<HookJson<'a>>,
}

#[derive(Serialize)]
struct OutcomeJson<'a> {
    #[serde(serialize_with = "json::exact")]
    time: Time,
    source: &'a str,
    vault: &'a str,
    destination: &'a str,
    state: State,
    snapshot: Option<&'a str>,
    digest: Option<&'a str>,
    /// All zero if no snapshot was begun.
    #[serde(flatten)]
    counts: CountsJson,
    skipped: u64,
    overdue: bool,
    due_in_s: Option<u64>,
    error: Option<&'a str>,
    hint: Option<&'a str>,
}

impl<'a> OutcomeJson<'a> {
    fn new(outcome: &'a Outcome) -> Self {
        let body = outcome.body.as_deref();
        Self {
            time: outcome.time,
            source: &outcome.source,
            vault: &outcome.vault,
            destination: &outcome.place,
            state: outcome.state,
            snapshot: outcome.snapshot.as_deref(),
            digest: outcome.digest.as_deref(),
            counts: body.map(CountsJson::from).unwrap_or_default(),
            skipped: body.map_or(0, |body| body.skipped),
            overdue: outcome.overdue,
            due_in_s: outcome.due_in.map(|time| time.as_secs()),
            error: outcome.trouble.as_ref().map(|trouble| trouble.what.as_str()),
            hint: outcome.trouble.as_ref().and_then(|trouble| trouble.hint.as_deref()),
        }
    }
}

#[derive(Serialize)]
struct CareJson<'a> {
    vault: &'a str,
    destination: &'a str,
    forgotten: u64,
    bytes_freed: u64,
    /// Sources whose snapshots were all kept, because the clock had jumped.
    held: &'a [String],
    checked: bool,
    damaged: bool,
    packs_read: u64,
    bytes_read: u64,
    /// Whether a restore drill was made, the number of files in it, and the number that did not come back.
    drilled: bool,
    drill_files: u64,
    drill_failed: u64,
    error: Option<&'a str>,
    hint: Option<&'a str>,
}

impl<'a> CareJson<'a> {
    fn new(care: &'a Care) -> Self {
        Self {
            vault: &care.vault,
            destination: &care.place,
            forgotten: care.forgotten,
            bytes_freed: care.bytes_freed,
            held: &care.held,
            checked: care.checked.is_some(),
            damaged: care.checked.is_some_and(|checked| checked.damaged),
            packs_read: care.checked.map_or(0, |checked| checked.packs_read),
            bytes_read: care.checked.map_or(0, |checked| checked.bytes_read),
            drilled: care.drilled.is_some(),
            drill_files: care.drilled.as_ref().map_or(0, |last| last.files),
            drill_failed: care.drilled.as_ref().map_or(0, |last| last.failed),
            error: care.trouble.as_ref().map(|trouble| trouble.what.as_str()),
            hint: care.trouble.as_ref().and_then(|trouble| trouble.hint.as_deref()),
        }
    }
}

#[derive(Serialize)]
struct HookJson<'a> {
    source: &'a str,
    hook: &'static str,
    error: &'a str,
}

/// The result for a source in a vault as one line, and the next step for the user as a second one.
pub fn line(outcome: &Outcome) -> (String, Option<String>) {
    let name = format!("{} → {}", Shown(outcome.source.as_bytes()), Shown(outcome.vault.as_bytes()));
    let numbers = outcome.body.as_deref().map_or_else(String::new, |body| {
        format!(
            "{} ({} new, {} changed), {} stored, {}",
            units::counted(body.files, "file", "files"),
            units::count(body.files_new),
            units::count(body.files_changed),
            units::size(body.bytes_stored),
            units::took(Duration::from_millis(body.duration_ms))
        )
    });
    let overdue = if outcome.overdue { "; it is overdue" } else { "" };
    let hint = outcome.trouble.as_ref().and_then(|trouble| trouble.hint.clone());
    let text = match outcome.state {
        State::Complete => format!("complete, {numbers}"),
        State::Unchanged => "nothing changed since the last snapshot".to_owned(),
        State::Partial => {
            let skipped = outcome.body.as_ref().map_or(0, |body| body.skipped);
            let id: String = outcome.snapshot.iter().flat_map(|id| id.chars().take(8)).collect();
            let hint = format!("See what could not be saved with: vault ls --skipped {id}");
            return (format!("{name}: partial ({} not saved), {numbers}", units::count(skipped)), Some(hint));
        }
        State::Failed => {
            let what = outcome.trouble.as_ref().map_or("", |trouble| trouble.what.as_str());
            format!("FAILED: {what}{overdue}")
        }
        State::Away => format!("not taken, the vault is away{overdue}"),
        State::Interrupted => "interrupted".to_owned(),
        State::Due => "due now".to_owned(),
        State::NotDue => format!("not due for {}", units::about(outcome.due_in.unwrap_or_default())),
    };
    (format!("{name}: {text}"), hint)
}

/// The result of a vault's maintenance as one line; `None` if nothing was done.
pub fn care_line(care: &Care) -> Option<String> {
    let mut parts = Vec::new();
    if care.forgotten > 0 {
        let count = units::counted(care.forgotten, "old snapshot", "old snapshots");
        parts.push(format!("{count} dropped, {} given back", units::size(care.bytes_freed)));
    }
    if !care.held.is_empty() {
        let sources: Vec<String> = care.held.iter().map(|source| Shown(source.as_bytes()).to_string()).collect();
        parts.push(format!("the clock has jumped, so no old snapshot of {} was dropped", sources.join(", ")));
    }
    if let Some(checked) = care.checked {
        let word = if checked.damaged { "DAMAGE was found" } else { "checked" };
        parts.push(format!("{word}, {} read and verified", units::size(checked.bytes_read)));
    }
    if let Some(last) = &care.drilled {
        let files = units::counted(last.files, "file", "files");
        parts.push(match last.failed {
            0 => format!("a restore of {files} was tried, and all came back as they were"),
            failed => format!("of {files} of which a restore was tried, {} DID NOT COME BACK", units::count(failed)),
        });
    }
    if let Some(trouble) = &care.trouble {
        parts.push(format!("FAILED: {}", trouble.what));
    }
    (!parts.is_empty()).then(|| format!("{}: {}", Shown(care.vault.as_bytes()), parts.join("; ")))
}

/// The number of results of each kind, and the duration, as one line.
pub fn summary(report: &Report, took: Duration) -> String {
    let mut parts = Vec::new();
    for (word, states) in [
        ("taken", &[State::Complete, State::Unchanged][..]),
        ("taken in part", &[State::Partial]),
        ("failed", &[State::Failed]),
        ("away", &[State::Away]),
        ("interrupted", &[State::Interrupted]),
        ("due", &[State::Due]),
        ("not due", &[State::NotDue]),
    ] {
        let count = report.outcomes.iter().filter(|outcome| states.contains(&outcome.state)).count();
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    if !report.hooks.is_empty() {
        parts.push(units::counted(report.hooks.len() as u64, "command failed", "commands failed"));
    }
    format!("{}, in {}.", parts.join(", "), units::took(took))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(source: &str, state: State) -> Outcome {
        Outcome::new(source, "disk", "/v".to_owned(), Time::default(), state)
    }

    fn care(damaged: bool, trouble: Option<Trouble>) -> Care {
        let checked = Some(Checked { remarks: false, damaged, packs_read: 1, bytes_read: 2048 });
        Care {
            vault: "disk".into(),
            place: "/v".into(),
            forgotten: 2,
            bytes_freed: 1024,
            held: vec![],
            pruned: vec![],
            checked,
            drilled: None,
            trouble,
        }
    }

    fn trouble(exit: Exit) -> Trouble {
        Trouble { exit, what: "there is no folder /v".into(), hint: Some("Connect it.".into()) }
    }

    #[test]
    fn the_worst_decides_how_a_run_ends() {
        let exit = |states: &[State], cares: Vec<Care>| {
            let outcomes = states.iter().map(|state| outcome("a", *state)).collect();
            Report { outcomes, cares, ..Report::default() }.exit()
        };
        assert_eq!(exit(&[State::Complete, State::NotDue, State::Unchanged], vec![]), Exit::Done);
        assert_eq!(exit(&[State::Complete, State::Partial], vec![]), Exit::Skipped);
        assert_eq!(exit(&[State::Away], vec![]), Exit::Skipped);
        assert_eq!(exit(&[State::Partial, State::Failed], vec![]), Exit::Failed);
        assert_eq!(exit(&[State::Failed], vec![care(true, None)]), Exit::Damage);
        assert_eq!(exit(&[State::Complete], vec![care(false, Some(trouble(Exit::Failed)))]), Exit::Failed);
        assert_eq!(exit(&[State::Complete, State::Interrupted, State::Failed], vec![]), Exit::Interrupted);
        let mut away = outcome("a", State::Away);
        away.overdue = true;
        assert_eq!(Report { outcomes: vec![away], ..Report::default() }.exit(), Exit::Failed);
        let hook = |hook| HookTrouble { source: "a".into(), hook, what: "x".into() };
        let hooks = |name| Report { hooks: vec![hook(name)], ..Report::default() }.exit();
        assert_eq!((hooks("after"), hooks("on-failure")), (Exit::Failed, Exit::Done));
    }

    #[test]
    fn each_result_is_one_line() {
        let mut failed = outcome("photos", State::Failed);
        failed.trouble = Some(trouble(Exit::Failed));
        failed.overdue = true;
        let (text, hint) = line(&failed);
        assert_eq!(text, "photos → disk: FAILED: there is no folder /v; it is overdue");
        assert_eq!(hint.as_deref(), Some("Connect it."));
        let mut waiting = outcome("a\x1b", State::NotDue);
        waiting.due_in = Some(Duration::from_secs(7200));
        assert_eq!(line(&waiting).0, "a\\x1b → disk: not due for 2 h 0 min");
        assert_eq!(
            care_line(&care(false, None)).unwrap(),
            "disk: 2 old snapshots dropped, 1.0 KiB given back; checked, 2.0 KiB read and verified"
        );
        let report = Report { outcomes: vec![failed, waiting], ..Report::default() };
        assert_eq!(summary(&report, Duration::from_secs(1)), "1 failed, 1 not due, in 1.0 s.");
        assert_eq!(report.troubles(), ["photos → disk: there is no folder /v"]);
    }
}
