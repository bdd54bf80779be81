//! The work of a run: takes sources into vaults one after the other, or at the same time where they share no disk.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use crate::engine::copy::{CopyOptions, copy, copy_of};
use crate::engine::prune;
use crate::engine::query::digest::Digests;
use crate::engine::query::index::{Index, IndexError};
use crate::engine::snapshot::{Empty, Input, SnapshotOptions, SnapshotReport};
use crate::failure::{Exit, Failure, of_left};
use crate::fs::Dir;
use crate::id::{ObjectName, TreeDigest};
use crate::progress::Progress;
use crate::service::ahead::{count_beside, is_first};
use crate::service::config::VaultConfig;
use crate::service::plan::{Due, Job, Plan, Target};
use crate::service::report::{HookTrouble, Outcome, Report, State, Trouble};
use crate::service::run::hooks;
use crate::service::run::now::Journal;
use crate::service::run::observer::{Of, Setting};
use crate::service::{roots, sources};
pub(super) use crate::sync::lock;
use crate::sync::try_spawn;
use crate::tree::{Snapshot, Stream, Verdict};
use crate::vault::{SnapshotInfo, Vault};

/// The options of the work, besides the plan.
#[derive(Debug, Clone)]
pub(super) struct Wishes {
    /// Whether to drop old snapshots.
    pub prune: bool,
    /// The vaults whose check is due, by folder or address.
    pub check: BTreeSet<String>,
    /// Whether to make a restore drill in vaults where one is due.
    pub drill: bool,
    /// The number of snapshots taken at the same time.
    pub parallel: usize,
    /// Whether to compute the digest of each tree for the report.
    pub digests: bool,
}

/// A run under way.
pub(super) struct Crew<'a> {
    pub(super) at: &'a Setting<'a>,
    pub(super) plan: &'a Plan,
    pub(super) wishes: Wishes,
    pub(super) sites: Vec<Site>,
    pub(super) report: Mutex<Report>,
    pub(super) journal: &'a Journal,
}

/// A vault during a run.
pub(super) struct Site {
    pub(super) device: u64,
    pub(super) opened: Mutex<Opened>,
    /// The sources whose current state is in the vault, each with the snapshot that holds it.
    pub(super) taken: Mutex<BTreeMap<String, ObjectName>>,
}

/// Whether a vault has been opened.
pub(super) enum Opened {
    /// Opening was not tried yet.
    Not,
    /// The vault is open.
    Yes(Arc<Vault>),
    /// Opening failed, and is not tried again.
    Never(Trouble),
}

/// Held while a vault is opened, so that only one password is asked for at a time.
static ASKING: Mutex<()> = Mutex::new(());

/// The device number of the file system that a path is on, or would be on if it existed; 0 if unknown.
fn device(path: &Path) -> u64 {
    let stat = |path: &Path| Dir::open(path).and_then(|folder| folder.stat()).ok();
    path.ancestors().find_map(stat).map_or(0, |stat| stat.dev)
}

/// Releases disks that are in use when it is dropped. This also happens when the work panics, so that no other thread
/// waits forever.
struct Release<'a> {
    state: &'a Mutex<(Vec<bool>, BTreeSet<u64>)>,
    changed: &'a Condvar,
    devices: &'a BTreeSet<u64>,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        lock(self.state).1.retain(|device| !self.devices.contains(device));
        self.changed.notify_all();
    }
}

impl<'a> Crew<'a> {
    /// The work on a plan, before it begins.
    pub(super) fn new(at: &'a Setting<'a>, plan: &'a Plan, wishes: Wishes, journal: &'a Journal) -> Self {
        let site = |config: &VaultConfig| Site {
            device: config.place.folder().map_or(0, device),
            opened: Mutex::new(Opened::Not),
            taken: Mutex::default(),
        };
        let sites: Vec<Site> = plan.vaults.iter().map(site).collect();
        Self { at, plan, wishes, sites, report: Mutex::default(), journal }
    }

    /// Takes every source that is due, then maintains the vaults. Returns the report.
    pub(super) fn work(self) -> Result<Report, Failure> {
        for job in &self.plan.jobs {
            for target in job.targets.iter().filter(|target| target.due != Due::Now) {
                self.tell(self.outcome(job, target, State::NotDue));
            }
        }
        self.take_all();
        if !self.at.observer.progress().stopped() {
            self.care_all();
        }
        self.at.observer.flush()?;
        let mut report = crate::sync::into_inner(self.report);
        // Put the results in the order of the configuration, in whatever order they were ready.
        let targets = self.plan.jobs.iter().flat_map(|job| job.targets.iter().map(move |target| (job, target)));
        let targets: Vec<(&str, &str)> = targets
            .map(|(job, target)| (job.source.name.as_str(), self.plan.vaults[target.vault].name.as_str()))
            .collect();
        let rank = |outcome: &Outcome| {
            targets.iter().position(|(source, vault)| *source == outcome.source && *vault == outcome.vault)
        };
        report.outcomes.sort_by_key(rank);
        Ok(report)
    }

    fn outcome(&self, job: &Job, target: &Target, state: State) -> Outcome {
        let config = &self.plan.vaults[target.vault];
        let due_in = match target.due {
            Due::Now => None,
            Due::In(time) => Some(time),
        };
        let place = config.place.to_string();
        let outcome = Outcome::new(&job.source.name, &config.name, place, self.at.machine.now(), state);
        Outcome { overdue: target.overdue, due_in, ..outcome }
    }

    /// Passes a result to the observer, and adds it to the report.
    fn tell(&self, outcome: Outcome) {
        self.journal.result(&outcome);
        self.at.observer.result(&outcome);
        lock(&self.report).outcomes.push(outcome);
    }

    /// Runs each piece of work as soon as no other one under way shares a disk with it.
    pub(super) fn spread<T: Sync>(&self, pieces: &[(BTreeSet<u64>, T)], run: impl Fn(&T) + Sync) {
        let state = Mutex::new((vec![false; pieces.len()], BTreeSet::new()));
        let changed = Condvar::new();
        let worker = || {
            let mut guard = lock(&state);
            loop {
                let (begun, busy) = &mut *guard;
                let free = |at: &usize| !begun[*at] && pieces[*at].0.is_disjoint(busy);
                let Some(at) = (0..pieces.len()).find(free) else {
                    if begun.iter().all(|begun| *begun) {
                        return;
                    }
                    guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                    continue;
                };
                begun[at] = true;
                busy.extend(pieces[at].0.iter().copied());
                drop(guard);
                let release = Release { state: &state, changed: &changed, devices: &pieces[at].0 };
                run(&pieces[at].1);
                drop(release);
                guard = lock(&state);
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.wishes.parallel.min(pieces.len()) {
                // If no more threads can be started, this thread does the remaining work.
                let _ = try_spawn(scope, worker);
            }
            worker();
        });
    }

    fn take_all(&self) {
        let due = self.plan.jobs.iter().filter(|job| job.is_due());
        let devices = |job: &Job| {
            let sources = job.source.paths.iter().map(|path| device(path));
            let targets = job.targets.iter().filter(|target| target.due == Due::Now);
            sources.chain(targets.map(|target| self.sites[target.vault].device)).collect()
        };
        let pieces: Vec<(BTreeSet<u64>, &Job)> = due.map(|job| (devices(job), job)).collect();
        self.spread(&pieces, |job| self.take_source(job));
    }

    /// Takes a source into its vaults, with its hooks.
    fn take_source(&self, job: &Job) {
        let targets: Vec<&Target> = job.targets.iter().filter(|target| target.due == Due::Now).collect();
        if self.at.observer.progress().stopped() {
            targets.into_iter().for_each(|target| self.tell(self.outcome(job, target, State::Interrupted)));
            return;
        }
        let stopped = || self.at.observer.progress().stopped();
        let mut failed = None;
        if let Some(command) = &job.source.hooks.before {
            let variables = variables(&job.source.name, "before", &[], None);
            failed = hooks::call(command, &variables, job.source.hooks.timeout, &stopped, self.at.machine).err();
        }
        let go_on = job.source.hooks.go_on && !stopped();
        if let Some(what) = failed.clone().filter(|_| !go_on) {
            let state = if stopped() { State::Interrupted } else { State::Failed };
            for target in &targets {
                let trouble = Trouble {
                    exit: Exit::Failed,
                    what: format!("the command before it: {what}"),
                    hint: Some("No snapshot was made (if-before-fails = \"go-on\" makes one all the same).".into()),
                };
                self.tell(Outcome { trouble: Some(trouble), ..self.outcome(job, target, state) });
            }
        } else {
            let mut rest = targets;
            while !rest.is_empty() {
                // A vault that is filled from another one comes after it.
                let name = |target: &&Target| self.plan.vaults[target.vault].name.as_str();
                let waiting: Vec<&str> = rest.iter().map(name).collect();
                let waits = |target: &&Target| {
                    self.plan.vaults[target.vault]
                        .copy_from
                        .as_ref()
                        .is_some_and(|first| waiting.contains(&first.as_str()))
                };
                let (later, now): (Vec<&Target>, Vec<&Target>) = rest.into_iter().partition(waits);
                self.take_all_of(job, now);
                rest = later;
            }
        }
        if let Some(what) = failed {
            self.hook_failed(job, "before", what);
        }
        let own = |outcome: &&Outcome| outcome.source == job.source.name;
        let outcomes: Vec<Outcome> = lock(&self.report).outcomes.iter().filter(own).cloned().collect();
        let hook_trouble = || lock(&self.report).hooks.iter().find(|hook| hook.source == job.source.name).cloned();
        let never = || false;
        if let Some(command) = &job.source.hooks.after {
            let variables = variables(&job.source.name, "after", &outcomes, hook_trouble().as_ref());
            if let Err(what) = hooks::call(command, &variables, job.source.hooks.timeout, &never, self.at.machine) {
                self.hook_failed(job, "after", what);
            }
        }
        let trouble = hook_trouble();
        let bad = trouble.is_some() || outcomes.iter().any(|outcome| outcome.state == State::Failed);
        if let Some(command) = job.source.hooks.on_failure.as_ref().filter(|_| bad) {
            let variables = variables(&job.source.name, "on-failure", &outcomes, trouble.as_ref());
            if let Err(what) = hooks::call(command, &variables, job.source.hooks.timeout, &never, self.at.machine) {
                self.hook_failed(job, "on-failure", what);
            }
        }
    }

    /// Takes a source into these vaults, at the same time where they share no disk.
    fn take_all_of(&self, job: &Job, targets: Vec<&Target>) {
        let mut pieces: BTreeMap<u64, Vec<&Target>> = BTreeMap::new();
        for target in targets {
            pieces.entry(self.sites[target.vault].device).or_default().push(target);
        }
        let pieces: Vec<(BTreeSet<u64>, Vec<&Target>)> =
            pieces.into_iter().map(|(device, targets)| (BTreeSet::from([device]), targets)).collect();
        self.spread(&pieces, |targets| {
            for target in targets {
                self.tell(self.take(job, target));
            }
        });
    }

    fn hook_failed(&self, job: &Job, hook: &'static str, what: String) {
        let trouble = HookTrouble { source: job.source.name.clone(), hook, what };
        self.at.observer.hook(&trouble);
        self.journal.hook(&trouble.source, hook, &trouble.what);
        lock(&self.report).hooks.push(trouble);
    }

    /// Takes a source into a vault.
    fn take(&self, job: &Job, target: &Target) -> Outcome {
        let config = &self.plan.vaults[target.vault];
        let site = &self.sites[target.vault];
        let outcome = self.outcome(job, target, State::Failed);
        if self.at.observer.progress().stopped() {
            return Outcome { state: State::Interrupted, ..outcome };
        }
        if config.removable && matches!(self.at.doors.has_vault(&config.place), Ok(false)) {
            return Outcome { state: State::Away, ..outcome };
        }
        let lane = self.at.observer.lane(Of::source(&job.source.name, &config.name));
        let lane = lane.as_ref();
        let taken = self.open(site, config, lane).and_then(|vault| {
            let Taken { snapshot, stands, body } = if let Some(copied) = self.copied(job, config, &vault, lane)? {
                copied
            } else {
                let report = self.snapshot(job, config, &vault, lane)?;
                Taken { snapshot: report.id, stands: report.id.or(report.same), body: report.snapshot }
            };
            if let Some(stands) = stands {
                lock(&site.taken).insert(job.source.name.clone(), stands);
            }
            let digest = self.digest(&vault, &body.tree, lane);
            Ok((vault.id().to_string(), digest, snapshot, body))
        });
        match taken {
            Ok((id, digest, snapshot, body)) => {
                let state = match body.verdict {
                    _ if snapshot.is_none() => State::Unchanged,
                    Verdict::Complete => State::Complete,
                    Verdict::Partial => State::Partial,
                };
                Outcome {
                    state,
                    id: Some(id),
                    snapshot: snapshot.map(|id| id.to_string()),
                    digest,
                    body: Some(Box::new(body)),
                    overdue: false,
                    ..outcome
                }
            }
            Err(trouble) if trouble.exit == Exit::Interrupted => Outcome { state: State::Interrupted, ..outcome },
            Err(trouble) => Outcome { trouble: Some(trouble), ..outcome },
        }
    }

    /// Copies the snapshot that this run has just taken from the vault that this one is filled from. Returns `None` if
    /// there is no such snapshot, or if it cannot be copied whole. In that case nothing is copied, and the source is
    /// read from the disk.
    fn copied(
        &self,
        job: &Job,
        config: &VaultConfig,
        vault: &Vault,
        lane: &dyn Progress,
    ) -> Result<Option<Taken>, Trouble> {
        let Some(first) = &config.copy_from else { return Ok(None) };
        let Some(at) = self.plan.vaults.iter().position(|vault| vault.name == *first) else { return Ok(None) };
        let site = &self.sites[at];
        let Some(taken) = lock(&site.taken).get(&job.source.name).copied() else { return Ok(None) };
        let from = match &*lock(&site.opened) {
            Opened::Yes(from) => Arc::clone(from),
            Opened::Not | Opened::Never(_) => return Ok(None),
        };
        let disk = |why: &str| {
            lane.warn(&format!("{why}, so {} is read from the disk again", job.source.name));
            Ok(None)
        };
        let Some(taken) = from.snapshot(&taken) else {
            return disk(&format!("the snapshot in {first} was forgotten meanwhile"));
        };
        let clock = self.at.machine.clock();
        let options = CopyOptions {
            dry_run: false,
            whole: true,
            level: config.level,
            verify: true,
            others: config.others,
            clock: &clock,
            threads: self.at.threads,
        };
        prune::drop_surplus(vault, self.at.machine.now(), lane).map_err(Failure::from)?;
        let report = match copy(&from, vault, std::slice::from_ref(&taken), &options, lane) {
            Ok(report) => report,
            Err(error) => {
                let is_of_first = error.is_of_source();
                let failure = Failure::from(error);
                if is_of_first && failure.exit != Exit::Interrupted {
                    return disk(&format!("{first} cannot be read ({})", failure.what));
                }
                return Err(failure.into());
            }
        };
        if let Some(left) = report.left.first() {
            return disk(&format!("the snapshot in {first} was not copied, since {}", of_left(left.why).1));
        }
        if report.still_lacking > 0 {
            return disk(&format!("the snapshot in {first} lacks something"));
        }
        let copied = report.copied.into_iter().next().and_then(|copied| {
            let stands = copied.id?;
            Some(Taken { snapshot: Some(stands), stands: Some(stands), body: copied.body })
        });
        let there = |info: SnapshotInfo| Taken { snapshot: None, stands: Some(info.id), body: info.body };
        match copied.or_else(|| copy_of(&from, &taken, vault).map(there)) {
            Some(taken) => Ok(Some(taken)),
            None => disk(&format!("the snapshot in {first} is gone")),
        }
    }

    /// The digest of a tree: in one vault, equal for the same names and contents.
    fn digest(&self, vault: &Vault, tree: &Stream, lane: &dyn Progress) -> Option<String> {
        if !self.wishes.digests {
            return None;
        }
        let digest = || -> Result<Option<TreeDigest>, IndexError> {
            let index = Index::new(vault)?;
            let digests = Digests::of(&index, std::slice::from_ref(tree), self.at.threads, lane)?;
            index.finish(None)?;
            Ok(digests.get(tree))
        };
        match digest() {
            Ok(digest) => digest.map(|digest| digest.to_string()),
            Err(error) => {
                lane.warn(&format!("the digest of its tree is not known: {error}"));
                None
            }
        }
    }

    fn open(&self, site: &Site, config: &VaultConfig, lane: &dyn Progress) -> Result<Arc<Vault>, Trouble> {
        let _asking = lock(&ASKING);
        let mut opened = lock(&site.opened);
        match &*opened {
            Opened::Yes(vault) => return Ok(Arc::clone(vault)),
            Opened::Never(trouble) => return Err(trouble.clone()),
            Opened::Not => {}
        }
        match self.at.doors.open(config, lane) {
            Ok(vault) => {
                let vault = Arc::new(vault);
                *opened = Opened::Yes(Arc::clone(&vault));
                Ok(vault)
            }
            Err(failure) => {
                let mut trouble = Trouble::from(failure);
                if config.place.folder().is_some_and(|folder| !folder.exists()) && !config.removable {
                    trouble.hint = Some(format!(
                        "If there is no vault yet: vault init --repo {}. Is the disk connected? If it may be away: removable = true",
                        config.name
                    ));
                }
                // A hook may mount a missing folder before the next source, so opening is tried again unless the folder
                // exists.
                if config.place.folder().is_none_or(Path::exists) {
                    *opened = Opened::Never(trouble.clone());
                }
                Err(trouble)
            }
        }
    }

    fn snapshot(
        &self,
        job: &Job,
        config: &VaultConfig,
        vault: &Vault,
        lane: &dyn Progress,
    ) -> Result<SnapshotReport, Trouble> {
        let source = &job.source;
        let paths = source.paths.iter().map(|path| sources::existing(Path::new("/"), path));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        paths.iter().try_for_each(|path| sources::refuse_special(path))?;
        let exclude = sources::exclude_of(source)?;
        let roots = roots::name_roots(&paths, &mut BTreeSet::new());
        let input = |root: roots::NamedRoot| Input::Path { name: root.name, path: root.path, only: None };
        let mut tags = source.tags.clone();
        tags.sort();
        tags.dedup();
        let clock = self.at.machine.clock();
        let options = SnapshotOptions {
            source: source.name.clone(),
            inputs: roots.into_iter().map(input).collect(),
            time: self.at.machine.now(),
            given: false,
            clock: &clock,
            tags,
            description: String::new(),
            exclude,
            skip_if_unchanged: source.skip_if_unchanged,
            empty: Empty::IfItWasFull,
            dry_run: false,
            level: config.level,
            verify: true,
            others: config.others,
            read_all: false,
            read_special: false,
            threads: self.at.threads,
        };
        let exclude = options.exclude.clone();
        let counts = self.at.observer.draws() && is_first(vault, &options.source);
        let report = count_beside(lane.counters(), counts, &paths, &exclude, || {
            crate::engine::snapshot::snapshot(vault, options, lane)
        });
        Ok(report.map_err(Failure::from)?)
    }
}

/// The result of taking a source into a vault.
struct Taken {
    /// The snapshot that was made; `None` if the vault already had one of the same state.
    snapshot: Option<ObjectName>,
    /// The snapshot that holds the current state.
    stands: Option<ObjectName>,
    body: Snapshot,
}

/// The environment variables of a hook. `trouble` is an earlier hook of the source that failed.
fn variables(
    source: &str,
    hook: &str,
    outcomes: &[Outcome],
    trouble: Option<&HookTrouble>,
) -> Vec<(&'static str, String)> {
    let mut variables = vec![("VAULT_SOURCE", source.to_owned()), ("VAULT_HOOK", hook.to_owned())];
    let worst = [State::Interrupted, State::Failed, State::Partial, State::Away, State::Complete, State::Unchanged]
        .into_iter()
        .find(|state| outcomes.iter().any(|outcome| outcome.state == *state));
    let Some(worst) = worst else { return variables };
    let worst = if trouble.is_some() && worst != State::Interrupted { State::Failed } else { worst };
    let mut errors: Vec<String> =
        outcomes.iter().filter_map(|outcome| outcome.trouble.as_ref()).map(|trouble| trouble.what.clone()).collect();
    if errors.is_empty() {
        errors.extend(trouble.map(|trouble| format!("the command {}: {}", trouble.hook, trouble.what)));
    }
    let snapshots: Vec<&str> = outcomes.iter().filter_map(|outcome| outcome.snapshot.as_deref()).collect();
    let bodies = || outcomes.iter().filter_map(|outcome| outcome.body.as_deref());
    variables.extend([
        ("VAULT_RESULT", worst.word().to_owned()),
        ("VAULT_ERROR", errors.join("; ")),
        ("VAULT_SNAPSHOTS", snapshots.join(" ")),
        ("VAULT_FILES", bodies().map(|body| body.files).max().unwrap_or(0).to_string()),
        ("VAULT_BYTES", bodies().map(|body| body.bytes).max().unwrap_or(0).to_string()),
        ("VAULT_BYTES_STORED", bodies().map(|body| body.bytes_stored).sum::<u64>().to_string()),
        ("VAULT_DURATION_MS", bodies().map(|body| body.duration_ms).sum::<u64>().to_string()),
    ]);
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_learn_the_worst() {
        let mut failed = Outcome::new("a", "disk", "/v".to_owned(), crate::tree::Time::default(), State::Failed);
        failed.trouble = Some(Trouble { exit: Exit::Failed, what: "no disk".into(), hint: None });
        let mut taken = Outcome::new("a", "disk", "/v".to_owned(), crate::tree::Time::default(), State::Complete);
        taken.snapshot = Some("1f2e".into());
        let found = variables("a", "after", &[taken.clone(), failed], None);
        let value = |name: &str| found.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
        assert_eq!(value("VAULT_RESULT"), Some("failed"));
        assert_eq!(value("VAULT_ERROR"), Some("no disk"));
        assert_eq!(value("VAULT_SNAPSHOTS"), Some("1f2e"));
        assert_eq!(variables("a", "before", &[], None).len(), 2);
        let trouble = HookTrouble { source: "a".into(), hook: "before", what: "no dump".into() };
        let found = variables("a", "on-failure", &[taken], Some(&trouble));
        assert!(found.contains(&("VAULT_RESULT", "failed".to_owned())));
        assert!(found.contains(&("VAULT_ERROR", "the command before: no dump".to_owned())));
    }
}
