//! The faults that a server of the tests is to show.

use std::collections::{BTreeMap, VecDeque};

/// Faults of requests, by the kind of request.
pub struct Faults<K, F> {
    /// Of the next requests, in order; `None` for one that succeeds.
    next: BTreeMap<K, VecDeque<Option<F>>>,
    /// Of each request after these.
    always: BTreeMap<K, F>,
}

impl<K, F> Default for Faults<K, F> {
    fn default() -> Self {
        Self { next: BTreeMap::new(), always: BTreeMap::new() }
    }
}

impl<K: Ord, F: Clone> Faults<K, F> {
    /// Adds faults of the next requests of this kind, `None` for one that succeeds.
    pub fn script(&mut self, kind: K, faults: impl IntoIterator<Item = Option<F>>) {
        self.next.entry(kind).or_default().extend(faults);
    }

    /// Makes each request of this kind fail, after those that are scripted.
    pub fn always(&mut self, kind: K, fault: F) {
        self.always.insert(kind, fault);
    }

    /// Makes nothing fail from now on.
    pub fn heal(&mut self) {
        *self = Self::default();
    }

    /// The fault of a request of this kind that has come.
    pub fn take(&mut self, kind: &K) -> Option<F> {
        let next = self.next.get_mut(kind).and_then(VecDeque::pop_front);
        next.unwrap_or_else(|| self.always.get(kind).cloned())
    }

    /// Whether all scripted faults have happened.
    pub fn are_played(&self) -> bool {
        self.next.values().all(VecDeque::is_empty)
    }
}
