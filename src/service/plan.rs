//! The plan of a run: what is due, decided from the configuration and the record of earlier runs alone.

use std::cmp::Reverse;
use std::time::Duration;

use crate::store::place::Place;

use crate::failure::Failure;
use crate::failure::quoted;
use crate::service::config::Config;
use crate::service::config::Order;
use crate::service::config::SourceConfig;
use crate::service::config::VaultConfig;
use crate::service::status::Pair;
use crate::service::status::Status;
use crate::service::suggest::nearest;

/// When a source is due in a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The source is due now.
    Now,
    /// The source is due after this time.
    In(Duration),
}

/// A vault that a source goes to, with the decision on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The vault's index in [`Plan::vaults`].
    pub vault: usize,
    /// When the source is due in it.
    pub due: Due,
    /// Whether the last snapshot is older than the source's limit.
    pub overdue: bool,
    /// When pruning was first held back because the clock had jumped, in seconds since 1970.
    pub held: Option<i64>,
}

/// A source and the vaults that it goes to.
#[derive(Debug, Clone)]
pub struct Job {
    /// The source.
    pub source: SourceConfig,
    /// The vaults that it goes to.
    pub targets: Vec<Target>,
}

impl Job {
    /// Whether the source is due in any vault.
    pub fn is_due(&self) -> bool {
        self.targets.iter().any(|target| target.due == Due::Now)
    }
}

/// The sources and vaults of a run.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The vaults.
    pub vaults: Vec<VaultConfig>,
    /// The sources, in the order in which they are taken.
    pub jobs: Vec<Job>,
}

impl Plan {
    /// A plan of the named sources, or of all sources if none is named. All of them count as due until
    /// [`Self::decide`].
    pub fn new(config: &Config, names: &[String]) -> Result<Self, Failure> {
        let known = || config.sources.iter().map(|source| source.name.as_str());
        for name in names {
            if !known().any(|other| other == name) {
                let meant = nearest(name, known());
                let all: Vec<String> = known().map(quoted).collect();
                return Err(Failure::usage(format!("there is no source '{name}' in the configuration")).hint(
                    match meant {
                        Some(meant) => format!("Did you mean {}?", quoted(meant)),
                        None => format!("There is: {}", all.join(", ")),
                    },
                ));
            }
        }
        let wanted = |source: &&SourceConfig| names.is_empty() || names.contains(&source.name);
        let job = |source: &SourceConfig| {
            let vault = |name: &String| config.vaults.iter().position(|vault| vault.name == *name);
            let target = |vault| Target { vault, due: Due::Now, overdue: false, held: None };
            Job { source: source.clone(), targets: source.vaults.iter().filter_map(vault).map(target).collect() }
        };
        Ok(Self { vaults: config.vaults.clone(), jobs: config.sources.iter().filter(wanted).map(job).collect() })
    }

    /// Decides what is due at a time. `id` reads a vault's id from its place, if it can be read.
    pub fn decide(&mut self, status: &Status, now: i64, force: bool, id: &dyn Fn(&Place) -> Option<String>) {
        for job in &mut self.jobs {
            for target in &mut job.targets {
                let place = &self.vaults[target.vault].place;
                let pair = status.pair(&job.source.name, &place.to_string());
                target.due = if force { Due::Now } else { due(pair, job.source.every, now, &|| id(place)) };
                target.overdue = is_overdue(pair, job.source.overdue, now);
                target.held = pair.and_then(|pair| pair.held);
            }
        }
    }

    /// Puts the sources in order. `size` is the approximate size of a source in bytes.
    pub fn arrange(&mut self, order: Order, size: &dyn Fn(&Job, &[VaultConfig]) -> u64) {
        if order == Order::SmallFirst {
            let vaults = &self.vaults;
            self.jobs.sort_by_cached_key(|job| size(job, vaults));
        }
    }

    /// The next source that will be due: its name, the vault's name, and the time until then.
    pub fn next(&self) -> Option<(&str, &str, Duration)> {
        let targets = self.jobs.iter().flat_map(|job| job.targets.iter().map(move |target| (job, target)));
        let waiting = targets.filter_map(|(job, target)| match target.due {
            Due::In(time) => Some((job.source.name.as_str(), self.vaults[target.vault].name.as_str(), time)),
            Due::Now => None,
        });
        waiting.max_by_key(|(_, _, time)| Reverse(*time))
    }
}

/// When a source is due. It is due now if the clock was set back, or if another vault is in the same place.
fn due(pair: Option<&Pair>, every: Duration, now: i64, id: &dyn Fn() -> Option<String>) -> Due {
    let Some((pair, taken)) = pair.and_then(|pair| Some((pair, pair.taken?))) else { return Due::Now };
    let Ok(age) = u64::try_from(now - taken) else { return Due::Now };
    match every.checked_sub(Duration::from_secs(age)) {
        None | Some(Duration::ZERO) => Due::Now,
        Some(left) => match (&pair.id, id()) {
            (Some(then), Some(now)) if *then != now => Due::Now,
            _ => Due::In(left),
        },
    }
}

/// Whether the last snapshot is too old. If there is none yet, the age counts from the first failed attempt.
fn is_overdue(pair: Option<&Pair>, overdue: Duration, now: i64) -> bool {
    let since = pair.and_then(|pair| pair.taken.or(pair.first));
    since.is_some_and(|since| u64::try_from(now - since).is_ok_and(|age| age > overdue.as_secs()))
}

/// The smallest clock difference that counts as a jump, in seconds.
const JUMP_MIN: u64 = 31 * 86_400;

/// Whether pruning must wait because the clock has jumped since the last snapshot. The current date may be wrong, and a
/// dropped snapshot does not come back. The next run whose date is not earlier than that of the held-back run confirms
/// the date.
pub fn waits_for_clock(last: Option<i64>, now: i64, every: Duration, held: Option<i64>) -> bool {
    let limit = JUMP_MIN.max(every.as_secs().saturating_mul(3));
    last.is_some_and(|last| now.abs_diff(last) > limit) && held.is_none_or(|first| now < first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(taken: Option<i64>, id: Option<&str>) -> Pair {
        Pair { taken, id: id.map(str::to_owned), ..Pair::default() }
    }

    #[test]
    fn what_is_old_is_due() {
        let hour = Duration::from_secs(3600);
        let due = |pair: Option<&Pair>, now, id: Option<&str>| due(pair, hour, now, &|| id.map(str::to_owned));
        assert_eq!(due(None, 0, None), Due::Now);
        assert_eq!(due(Some(&pair(None, None)), 0, None), Due::Now);
        assert_eq!(due(Some(&pair(Some(1000), None)), 1600, None), Due::In(Duration::from_secs(3000)));
        assert_eq!(due(Some(&pair(Some(1000), None)), 4599, None), Due::In(Duration::from_secs(1)));
        assert_eq!(due(Some(&pair(Some(1000), None)), 4600, None), Due::Now);
        assert_eq!(due(Some(&pair(Some(1000), None)), 900, None), Due::Now, "the clock was set back");
        assert_eq!(due(Some(&pair(Some(1000), Some("a"))), 1600, Some("b")), Due::Now, "another vault");
        for id in [Some("a"), None] {
            assert!(matches!(due(Some(&pair(Some(1000), Some("a"))), 1600, id), Due::In(_)));
        }
    }

    #[test]
    fn what_is_much_too_old_is_overdue() {
        let day = Duration::from_secs(86_400);
        assert!(!is_overdue(None, day, 1 << 40));
        assert!(!is_overdue(Some(&pair(Some(1000), None)), day, 87_400));
        assert!(is_overdue(Some(&pair(Some(1000), None)), day, 87_401));
        let never = Pair { first: Some(1000), ..Pair::default() };
        assert!(is_overdue(Some(&never), day, 87_401) && !is_overdue(Some(&never), day, 87_400));
    }

    #[test]
    fn a_jump_of_the_clock_is_believed_the_second_time() {
        const DAY: i64 = 86_400;
        let (day, year) = (Duration::from_secs(86_400), Duration::from_secs(365 * 86_400));
        assert!(!waits_for_clock(None, 0, day, None));
        assert!(!waits_for_clock(Some(0), 31 * DAY, day, None));
        assert!(waits_for_clock(Some(0), 32 * DAY, day, None));
        assert!(waits_for_clock(Some(32 * DAY), 0, day, None), "also back");
        assert!(!waits_for_clock(Some(0), 300 * DAY, year, None), "that is usual here");
        assert!(!waits_for_clock(Some(0), 32 * DAY, day, Some(32 * DAY)));
        assert!(waits_for_clock(Some(0), 32 * DAY, day, Some(1000 * DAY)), "it jumped back, and that is another jump");
    }

    #[cfg(unix)]
    #[test]
    fn sources_are_named_ordered_and_awaited() {
        let text = "[vaults.v]\npath = \"/v\"\n[vaults.w]\npath = \"/w\"\n[sources.big]\npaths = [\"/a\"]\n\
                    [sources.small]\npaths = [\"/b\"]\nvaults = [\"w\"]\n";
        let (config, mistakes) = crate::service::config::parse::parse(text, None);
        assert_eq!(mistakes, []);
        let failure = Plan::new(&config, &["smal".to_owned()]).unwrap_err();
        assert!(failure.hint.unwrap().contains("small"));
        assert_eq!(Plan::new(&config, &["small".to_owned()]).unwrap().jobs.len(), 1);
        let mut plan = Plan::new(&config, &[]).unwrap();
        let mut status = Status::default();
        status.pair_mut("big", "v", "/v").taken = Some(86_000);
        status.pair_mut("big", "w", "/w").taken = Some(0);
        status.pair_mut("small", "w", "/w").taken = Some(50_000);
        plan.decide(&status, 86_400, false, &|_| None);
        assert_eq!(plan.jobs[0].targets[1].due, Due::Now);
        assert!(plan.jobs[0].is_due() && !plan.jobs[1].is_due());
        assert_eq!(plan.next(), Some(("small", "w", Duration::from_secs(50_000))));
        plan.arrange(Order::SmallFirst, &|job, _| if job.source.name == "big" { 2 } else { 1 });
        assert_eq!(plan.jobs[0].source.name, "small");
        plan.decide(&status, 86_400, true, &|_| None);
        assert!(plan.jobs.iter().all(Job::is_due));
    }
}
