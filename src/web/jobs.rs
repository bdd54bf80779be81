//! Jobs: long work that goes on when its page is closed. Any page can follow it, and stop it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::engine::restore::Planned;
use crate::exit::Exit;
use crate::json::exact;
use crate::progress::{Counters, Phase, Progress};
use crate::sync::lock;
use crate::tree::Time;
use crate::web::answer::Problem;

/// The number of finished jobs that are remembered.
const KEPT: usize = 100;
/// The number of jobs that may run at once.
const AT_ONCE: usize = 4;
/// The number of messages kept for a job.
const MESSAGES_MAX: usize = 500;

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The job runs.
    Running,
    /// The job is done, and has a result.
    Done,
    /// The job failed.
    Failed,
    /// The user stopped the job.
    Stopped,
}

/// A job.
pub struct Job {
    id: u64,
    kind: &'static str,
    /// The request that began the job.
    request: Value,
    started: Time,
    begun: Duration,
    watcher: Watcher,
    end: Mutex<End>,
}

#[derive(Default)]
struct End {
    ended: Option<(Time, Duration)>,
    outcome: Option<Result<Value, Problem>>,
}

/// A job in the form that the page gets.
#[derive(Serialize)]
struct JobJson<'a> {
    id: u64,
    kind: &'static str,
    request: &'a Value,
    state: State,
    #[serde(serialize_with = "exact")]
    started: Time,
    ended: Option<String>,
    duration_ms: u64,
    /// The current phase; null before and after the work.
    phase: Option<&'static str>,
    files: u64,
    bytes: u64,
    bytes_read: u64,
    files_goal: u64,
    bytes_goal: u64,
    messages: Vec<String>,
    result: Option<&'a Value>,
    error: Option<&'a Problem>,
}

/// Observes a job: counts its progress, keeps its messages, and can stop it.
#[derive(Default)]
pub struct Watcher {
    counters: Counters,
    stop: AtomicBool,
    phase: Mutex<Option<&'static str>>,
    messages: Mutex<Vec<String>>,
    /// The changes that a dry run found.
    planned: Mutex<Option<Arc<Planned>>>,
}

impl Watcher {
    /// Keeps the changes that a dry run found.
    pub fn plan(&self, planned: Planned) {
        *lock(&self.planned) = Some(Arc::new(planned));
    }
}

impl Progress for Watcher {
    fn phase(&self, phase: Phase) {
        *lock(&self.phase) = Some(phase.word());
    }

    fn warn(&self, message: &str) {
        let mut messages = lock(&self.messages);
        if messages.len() < MESSAGES_MAX {
            messages.push(message.to_owned());
        }
    }

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

impl Job {
    /// The job's number.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The kind of work.
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// The request that began the job.
    pub const fn request(&self) -> &Value {
        &self.request
    }

    /// The state of the job.
    pub fn state(&self) -> State {
        let end = lock(&self.end);
        match &end.outcome {
            None => State::Running,
            Some(Ok(_)) => State::Done,
            Some(Err(problem)) if problem.code == Exit::Interrupted as u8 => State::Stopped,
            Some(Err(_)) => State::Failed,
        }
    }

    /// The changes that it found as a dry run, and the time since it ended, if it is done.
    pub fn planned(&self, now: Duration) -> Option<(Arc<Planned>, Duration)> {
        let is_done = self.state() == State::Done;
        let ended = lock(&self.end).ended.filter(|_| is_done);
        let planned = lock(&self.watcher.planned).clone();
        ended.zip(planned).map(|((_, ended), planned)| (planned, now.saturating_sub(ended)))
    }

    /// The job as JSON for the page. `now` is the time since the home's fixed moment; `whole` includes the result and
    /// all messages.
    pub fn told(&self, now: Duration, whole: bool) -> Vec<u8> {
        let state = self.state();
        let end = lock(&self.end);
        let counter = |counter: &AtomicU64| counter.load(Relaxed);
        let counters = &self.watcher.counters;
        let messages = lock(&self.watcher.messages);
        let first = if whole { 0 } else { messages.len().saturating_sub(5) };
        let until = end.ended.map_or(now, |(_, at)| at);
        let told = JobJson {
            id: self.id,
            kind: self.kind,
            request: &self.request,
            state,
            started: self.started,
            ended: end.ended.map(|(time, _)| crate::json::time_text(time)),
            duration_ms: u64::try_from(until.saturating_sub(self.begun).as_millis()).unwrap_or(u64::MAX),
            phase: lock(&self.watcher.phase).filter(|_| state == State::Running),
            files: counter(&counters.files),
            bytes: counter(&counters.bytes),
            bytes_read: counter(&counters.bytes_read),
            files_goal: counter(&counters.files_goal),
            bytes_goal: counter(&counters.bytes_goal),
            messages: messages[first..].to_vec(),
            result: end.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok()).filter(|_| whole),
            error: end.outcome.as_ref().and_then(|outcome| outcome.as_ref().err()),
        };
        serde_json::to_vec(&told).unwrap_or_default()
    }

    /// Asks the job to stop.
    pub fn stop(&self) {
        self.watcher.stop.store(true, Relaxed);
    }
}

/// The holder of the jobs, which they are done for.
pub trait Employer: Send + Sync + 'static {
    /// Its jobs.
    fn jobs(&self) -> &Jobs;

    /// The time now.
    fn now(&self) -> Time;

    /// The time since the program started.
    fn elapsed(&self) -> Duration;
}

/// All jobs.
#[derive(Default)]
pub struct Jobs {
    last: AtomicU64,
    all: Mutex<VecDeque<Arc<Job>>>,
}

impl Jobs {
    /// Begins a job. `work` runs on a thread of its own.
    ///
    /// # Errors
    /// If too many jobs are running.
    pub fn begin<E: Employer>(
        employer: &Arc<E>,
        kind: &'static str,
        request: Value,
        work: impl FnOnce(&E, &Watcher) -> Result<Value, Problem> + Send + 'static,
    ) -> Result<Arc<Job>, Problem> {
        let busy = |what: &str| Problem::new(StatusCode::CONFLICT, what).hint("Try again when that is done.");
        let jobs = employer.jobs();
        let job = {
            let mut all = lock(&jobs.all);
            if all.iter().filter(|job| job.state() == State::Running).count() >= AT_ONCE {
                return Err(busy("too much goes on at once"));
            }
            while all.len() >= KEPT {
                let Some(at) = all.iter().position(|job| job.state() != State::Running) else { break };
                all.remove(at);
            }
            let job = Arc::new(Job {
                id: jobs.last.fetch_add(1, Relaxed) + 1,
                kind,
                request,
                started: employer.now(),
                begun: employer.elapsed(),
                watcher: Watcher::default(),
                end: Mutex::default(),
            });
            all.push_back(job.clone());
            job
        };
        let (its, employer) = (job.clone(), employer.clone());
        let run = move || {
            let done = catch_unwind(AssertUnwindSafe(|| work(&employer, &its.watcher)));
            let defect = |_| Err(Problem::of_exit(Exit::Panic, "a bug in vault ended this"));
            let outcome = done.unwrap_or_else(defect);
            let mut end = lock(&its.end);
            end.ended = Some((employer.now(), employer.elapsed()));
            end.outcome = Some(outcome);
        };
        if thread::Builder::new().name(format!("vault-{kind}")).spawn(run).is_err() {
            lock(&jobs.all).retain(|other| other.id != job.id);
            return Err(busy("the system starts no more threads"));
        }
        Ok(job)
    }

    /// All jobs, the newest first.
    pub fn all(&self) -> Vec<Arc<Job>> {
        lock(&self.all).iter().rev().cloned().collect()
    }

    /// The job of this number.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, id: u64) -> Result<Arc<Job>, Problem> {
        let found = lock(&self.all).iter().find(|job| job.id == id).cloned();
        found.ok_or_else(|| Problem::missing("there is no such job (any more)"))
    }

    /// Whether any job is running.
    pub fn is_busy(&self) -> bool {
        lock(&self.all).iter().any(|job| job.state() == State::Running)
    }

    /// Asks all jobs to stop.
    pub fn stop_all(&self) {
        lock(&self.all).iter().for_each(|job| job.stop());
    }
}
