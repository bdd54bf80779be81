//! The line to a far store: how many requests may be under way, when they last made progress, and when to give up.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::store::{StoreError, StoreLimits, Subject};
use crate::sync::lock;

/// The clock, the user's wish to stop, and chance, which the library takes from outside.
pub trait Surroundings: Send + Sync {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;

    /// Waits for this time, or less if the work is to stop.
    fn wait(&self, time: Duration);

    /// Whether the work is to stop.
    fn stopped(&self) -> bool;

    /// A random number, uniformly distributed.
    fn random(&self) -> u64;

    /// Reports, once for each long wait, that a request waits and for what.
    fn tell(&self, what: &str);
}

/// Limits on how long and how often a request is tried.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The wait before the second try is at most this long; the bound doubles with each further try.
    pub wait_first: Duration,
    /// A wait is never longer than this, unless the store asks for more.
    pub wait_max: Duration,
    /// A request is given up when none of the store's requests has made progress for this long.
    pub patience: Duration,
    /// As `patience`, but while the store has never answered: it may not exist at all.
    pub patience_first: Duration,
    /// A request that makes no progress for this long has failed; see [`Watch`].
    pub timeout: Duration,
    /// The slowest speed of a line, in bytes a second (at least one): sent bytes may take as long to arrive as they
    /// need at this speed.
    pub rate_min: u64,
    /// The user is told of a request that has waited this long.
    pub tell_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            wait_first: Duration::from_millis(500),
            wait_max: Duration::from_secs(30),
            patience: Duration::from_secs(15 * 60),
            patience_first: Duration::from_secs(15 * 60),
            timeout: Duration::from_secs(60),
            rate_min: 32 << 10,
            tell_after: Duration::from_secs(10),
        }
    }
}

/// After this many successes, one more request may be under way.
const SUCCESSES: usize = 20;
/// The time that a thread sleeps before it checks again whether the work is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// The state of the line.
#[derive(Debug)]
struct State {
    /// Requests that may be under way.
    allowed: usize,
    under_way: usize,
    successes: usize,
    /// How often `allowed` was halved. Of several requests that were refused together, only the first halves it.
    halvings: u64,
    /// No request begins before this moment.
    not_before: Duration,
    /// When any request last made progress.
    heard: Duration,
    /// Whether the store has ever answered.
    is_known: bool,
}

/// The line to one store, shared by all its requests.
pub struct Line {
    surroundings: Arc<dyn Surroundings>,
    policy: Policy,
    place: String,
    /// The number of requests that may be under way when all is well.
    most: usize,
    /// The number that the user wants instead of the usual one.
    wanted: Option<usize>,
    state: Mutex<State>,
    left: Condvar,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("place", &self.place).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay<'l> {
    line: &'l Line,
    halvings: u64,
}

impl Line {
    /// A line to `place` with at most `most` requests under way.
    pub fn new(place: impl Into<String>, most: usize, policy: Policy, surroundings: Arc<dyn Surroundings>) -> Self {
        let most = most.max(1);
        let heard = surroundings.now();
        let state = State {
            allowed: most,
            under_way: 0,
            successes: 0,
            halvings: 0,
            not_before: Duration::ZERO,
            heard,
            is_known: false,
        };
        Self {
            surroundings,
            policy,
            place: place.into(),
            most,
            wanted: None,
            state: Mutex::new(state),
            left: Condvar::new(),
        }
    }

    /// The line with at most this many requests under way.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        let most = connections.max(1);
        self.most = most;
        self.wanted = Some(most);
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).allowed = most;
        self
    }

    /// The limits of a store on this line, whose protocol usually has these.
    pub(super) fn limits(&self, usual: StoreLimits) -> StoreLimits {
        let Some(most) = self.wanted else { return usual };
        // Callers ask a far store with two threads at least; with one connection, the line lets one through.
        StoreLimits { reads: most.max(2), writes: most, bytes: usual.bytes }
    }

    /// The number of small reads under way of a store on this line, whose protocol usually takes this many.
    pub(super) fn small_reads(&self, usual: usize) -> usize {
        self.wanted.map_or(usual, |most| most.max(2))
    }

    /// The place of the store, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(super) const fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn surroundings(&self) -> &dyn Surroundings {
        self.surroundings.as_ref()
    }

    /// The number of requests that may be under way now.
    pub fn allowed(&self) -> usize {
        lock(&self.state).allowed
    }

    /// Waits until one more request may be under way.
    pub(super) fn enter(&self) -> Result<UnderWay<'_>, StoreError> {
        let mut state = lock(&self.state);
        loop {
            if self.surroundings.stopped() {
                return Err(StoreError::Stopped);
            }
            let early = state.not_before.saturating_sub(self.surroundings.now());
            if !early.is_zero() {
                drop(state);
                self.surroundings.wait(early.min(LOOK));
                state = lock(&self.state);
            } else if state.under_way < state.allowed {
                state.under_way += 1;
                return Ok(UnderWay { line: self, halvings: state.halvings });
            } else {
                state = self.left.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// The time since any of the store's requests made progress, and the patience that applies.
    pub(super) fn silence(&self) -> (Duration, Duration) {
        let (heard, is_known) = {
            let state = lock(&self.state);
            (state.heard, state.is_known)
        };
        let patience =
            if is_known { self.policy.patience } else { self.policy.patience_first.min(self.policy.patience) };
        (self.surroundings.now().saturating_sub(heard), patience)
    }

    fn hear(&self) {
        let now = self.surroundings.now();
        let mut state = lock(&self.state);
        state.heard = state.heard.max(now);
        state.is_known = true;
    }

    /// Follows one try of a request: see [`Watch`].
    pub fn watch(&self, action: &'static str, object: impl Into<Subject>) -> Watch<'_> {
        Watch { line: self, action, object: object.into(), heard: self.surroundings.now(), owed: Duration::ZERO }
    }

    /// An error that says why the store cannot be used at all: a retry is of no use.
    pub fn unusable(&self, what: impl Into<String>) -> StoreError {
        StoreError::Unusable { place: self.place.clone(), source: std::io::Error::other(what.into()) }
    }

    /// An error of the line.
    pub fn unreachable(&self, action: &'static str, object: impl Into<Subject>, source: std::io::Error) -> StoreError {
        StoreError::Unreachable { action, object: object.into(), place: self.place.clone(), source }
    }
}

impl UnderWay<'_> {
    /// The store has answered, with or without success: the line is sound.
    pub(super) fn answered(&self) {
        self.line.hear();
        let mut state = lock(&self.line.state);
        state.successes += 1;
        if state.successes >= SUCCESSES && state.allowed < self.line.most {
            state.successes = 0;
            state.allowed += 1;
            self.line.left.notify_one();
        }
    }

    /// The store has refused a request because there are too many: halves the number allowed, and starts none before
    /// `after` has passed.
    pub(super) fn refused(&self, after: Duration) {
        let now = self.line.surroundings.now();
        let mut state = lock(&self.line.state);
        state.successes = 0;
        // Do not wait longer than the patience: the requests fail then, and say so.
        state.not_before = state.not_before.max(now.saturating_add(after.min(self.line.policy.patience)));
        state.is_known = true;
        if state.halvings == self.halvings {
            state.halvings += 1;
            state.allowed = (state.allowed / 2).max(1);
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.line.state).under_way -= 1;
        self.line.left.notify_one();
    }
}

/// Follows one try of a request, so that it ends when it makes no progress or the work is to stop, but not because it
/// takes long. The client reports the bytes that it sends and receives, and calls `check` at least ten times a second
/// while it waits.
#[derive(Debug)]
pub struct Watch<'l> {
    line: &'l Line,
    action: &'static str,
    object: Subject,
    heard: Duration,
    /// The time that bytes sent but not answered may still take.
    owed: Duration,
}

impl Watch<'_> {
    /// This many bytes were handed to the system, which may have them long before the store does.
    pub fn sent(&mut self, bytes: u64) {
        let millis = bytes.saturating_mul(1000) / self.line.policy.rate_min.max(1);
        self.grant(Duration::from_millis(millis));
    }

    /// The store needs this much longer for the request: a deletion of many objects, for example.
    pub fn grant(&mut self, time: Duration) {
        self.owed = self.left().saturating_sub(self.line.policy.timeout).saturating_add(time);
        self.heard = self.line.surroundings.now();
    }

    /// The store answered, so the bytes sent have arrived.
    pub fn received(&mut self) {
        self.stirred();
        self.line.hear();
    }

    /// Some bytes arrived that may be no more than the beginning of a refusal: this request is not given up yet, but
    /// the bytes prove nothing for other requests.
    pub fn stirred(&mut self) {
        self.heard = self.line.surroundings.now();
        self.owed = Duration::ZERO;
    }

    /// The time for which the store may still be silent.
    pub fn left(&self) -> Duration {
        let silent = self.line.surroundings.now().saturating_sub(self.heard);
        self.line.policy.timeout.saturating_add(self.owed).saturating_sub(silent)
    }

    /// The error of a try that failed for this reason.
    pub fn failed(&self, what: &str) -> StoreError {
        self.line.unreachable(self.action, self.object.clone(), std::io::Error::other(what))
    }

    /// Checks whether to go on waiting.
    ///
    /// # Errors
    /// [`StoreError::Stopped`], or [`StoreError::Unreachable`] if it took too long.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.line.surroundings.stopped() {
            return Err(StoreError::Stopped);
        }
        if self.left().is_zero() {
            let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "nothing has happened for too long");
            return Err(self.line.unreachable(self.action, self.object.clone(), source));
        }
        Ok(())
    }
}
