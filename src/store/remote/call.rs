//! One policy for the requests of all far stores, around a client that makes each request once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::store::error::is_of_line;
use crate::store::remote::line::Line;
use crate::store::{Kind, Listed, ObjectKey, Store, StoreError, StoreLimits, Subject, Told};

/// A store at the end of a line. Requests that fail because of the line, or that the store refuses because there are
/// too many, are made again until they succeed or [`patience`](crate::store::remote::Policy::patience) ends. Every
/// answer of the store about an object is passed on at once.
///
/// Trouble of the line never comes out as an error of an object: it is [`StoreError::Unreachable`],
/// [`StoreError::Throttled`] or [`StoreError::Stopped`].
#[derive(Debug)]
pub struct FarStore<S> {
    client: S,
    line: Arc<Line>,
}

/// A request is given up, even while others succeed, after this many tries and this many times the patience: its
/// answers may be nonsense for ever.
const HOPELESS: (u32, u32) = (20, 4);

/// The outcome of a try.
enum Verdict {
    /// The store has answered, and the answer stands.
    Answer,
    /// The outcome is unknown; the request may have been carried out.
    Lost,
    /// The store refuses the request for now.
    Refused(Option<Duration>),
    /// The work is to stop.
    Stop,
}

impl<S: Store> FarStore<S> {
    /// Wraps a client that makes its requests on this line.
    pub const fn new(client: S, line: Arc<Line>) -> Self {
        Self { client, line }
    }

    /// The client.
    pub const fn client(&self) -> &S {
        &self.client
    }

    /// Repeats a request until it is answered. Tells `attempt` whether an earlier try may have been carried out.
    fn call<T>(
        &self,
        action: &'static str,
        object: &Subject,
        mut attempt: impl FnMut(bool) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (policy, surroundings) = (self.line.policy(), self.line.surroundings());
        let begun = surroundings.now();
        let (mut tries, mut lost, mut may_be_done, mut is_told) = (0_u32, 0_u32, false, false);
        loop {
            let under_way = self.line.enter()?;
            let error = match attempt(may_be_done) {
                Ok(done) => {
                    under_way.answered();
                    return Ok(done);
                }
                Err(error) => self.of_line(action, object, error),
            };
            let after = match judge(&error) {
                Verdict::Answer => {
                    under_way.answered();
                    return Err(error);
                }
                Verdict::Stop => return Err(error),
                Verdict::Lost => {
                    lost += 1;
                    Duration::ZERO
                }
                Verdict::Refused(after) => {
                    under_way.refused(after.unwrap_or_default());
                    after.unwrap_or_default()
                }
            };
            drop(under_way);
            // Servers are known to carry out requests that they refuse.
            may_be_done = true;
            tries += 1;
            let waited = surroundings.now().saturating_sub(begun);
            let (silence, patience) = self.line.silence();
            let is_hopeless = lost >= HOPELESS.0 && waited >= patience.saturating_mul(HOPELESS.1);
            if is_hopeless || waited.min(silence).saturating_add(after) >= patience {
                return Err(error);
            }
            if !is_told && waited >= policy.tell_after {
                is_told = true;
                surroundings.tell(&format!("waiting for {}: {error} (try {})", self.line.place(), tries + 1));
            }
            surroundings.wait(after.max(self.pause(tries)));
            if surroundings.stopped() {
                return Err(StoreError::Stopped);
            }
        }
    }

    /// The wait after this many tries: a random time up to a bound that doubles each time, so that requests which
    /// failed together do not come back together.
    fn pause(&self, tries: u32) -> Duration {
        let policy = self.line.policy();
        let doubled = 1_u32.checked_shl(tries - 1).and_then(|factor| policy.wait_first.checked_mul(factor));
        let bound = doubled.map_or(policy.wait_max, |bound| bound.min(policy.wait_max));
        let part = (self.line.surroundings().random() >> 32) as u32;
        Duration::from_nanos(u64::try_from((bound.as_nanos() * u128::from(part)) >> 32).unwrap_or(u64::MAX))
    }

    /// Turns a system error about the line into an error of the line, whatever the client took it for.
    fn of_line(&self, action: &'static str, object: &Subject, error: StoreError) -> StoreError {
        match error {
            StoreError::Io { source, .. } if is_of_line(&source) => {
                self.line.unreachable(action, object.clone(), source)
            }
            error => error,
        }
    }

    /// Handles a client's report that an object is shorter than the range. If the object is long enough, an answer
    /// was cut short.
    fn short(&self, key: &ObjectKey, need: u64) -> StoreError {
        match self.client.len(key) {
            Ok(len) if len < need => StoreError::Short { object: key.into(), need, have: len },
            Ok(_) => self.cut(key),
            Err(error) => error,
        }
    }

    fn cut(&self, key: &ObjectKey) -> StoreError {
        let source = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the answer was cut short");
        self.line.unreachable("read", key, source)
    }
}

fn judge(error: &StoreError) -> Verdict {
    match error {
        StoreError::Unreachable { .. } => Verdict::Lost,
        StoreError::Throttled { after, .. } => Verdict::Refused(*after),
        StoreError::Stopped => Verdict::Stop,
        _ => Verdict::Answer,
    }
}

impl<S: Store> Store for FarStore<S> {
    /// After a try whose answer was lost, puts the same name again. If the name is taken then, compares the object.
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.call("write", &key.into(), |may_be_done| match self.client.put(key, bytes.clone()) {
            Err(error @ StoreError::Exists { .. }) if may_be_done => {
                if self.client.holds(key, &bytes)? {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            done => done,
        })
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.call("read", &key.into(), |_| match self.client.get_range(key, offset, len) {
            Ok(bytes) if bytes.len() == len => Ok(bytes),
            Ok(_) => Err(self.cut(key)),
            Err(StoreError::Short { need, .. }) => Err(self.short(key, need)),
            Err(error) => Err(error),
        })
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.call("read", &key.into(), |_| self.client.get(key, max))
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.call("read", &key.into(), |_| self.client.len(key))
    }

    /// Reports nothing of a list that is incomplete.
    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let listed = self.call("list", &kind.into(), |_| {
            let mut listed = Vec::new();
            self.client.list(kind, &mut |entry| listed.push(entry)).map(|()| listed)
        })?;
        listed.into_iter().for_each(found);
        Ok(())
    }

    fn list_all(&self, kinds: &[Kind], found: &mut dyn FnMut(Kind, Listed)) -> Result<(), StoreError> {
        let listed = self.call("list", &self.place().into(), |_| {
            let mut listed = Vec::new();
            self.client.list_all(kinds, &mut |kind, entry| listed.push((kind, entry))).map(|()| listed)
        })?;
        listed.into_iter().for_each(|(kind, entry)| found(kind, entry));
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.call("delete", &key.into(), |_| self.client.delete(key))
    }

    /// Objects deleted by one try are not requested again.
    fn delete_many(&self, keys: &[ObjectKey], deleted: &mut dyn FnMut(&ObjectKey)) -> Result<(), StoreError> {
        let mut left = keys.to_vec();
        self.call("delete", &self.place().into(), |_| {
            let mut gone = std::collections::HashSet::new();
            let done = self.client.delete_many(&left, &mut |key| {
                gone.insert(*key);
                deleted(key);
            });
            left.retain(|key| !gone.contains(key));
            done
        })
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.call("delete", &key.into(), |_| self.client.delete_durably(key))
    }

    /// If the object is gone after a try whose answer was lost, that try has moved it.
    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.call("quarantine", &key.into(), |may_be_done| match self.client.quarantine(key) {
            Err(StoreError::Missing { .. }) if may_be_done => Ok(()),
            done => done,
        })
    }

    fn sweep_leftovers(&self) -> Result<u64, StoreError> {
        self.call("delete", &self.place().into(), |_| self.client.sweep_leftovers())
    }

    fn limits(&self) -> StoreLimits {
        self.line.limits(self.client.limits())
    }

    fn small_reads(&self) -> usize {
        self.line.small_reads(self.client.small_reads())
    }

    fn place(&self) -> String {
        self.client.place()
    }

    fn told(&self, key: &ObjectKey, bytes: &Bytes) -> Result<Told, StoreError> {
        self.call("write", &key.into(), |_| self.client.told(key, bytes))
    }

    fn told_time(&self) -> Option<i64> {
        self.client.told_time()
    }

    fn folder(&self) -> Option<&std::path::Path> {
        self.client.folder()
    }

    fn holds(&self, key: &ObjectKey, bytes: &Bytes) -> Result<bool, StoreError> {
        self.call("read", &key.into(), |_| self.client.holds(key, bytes))
    }
}

#[cfg(test)]
mod tests;
