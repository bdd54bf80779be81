//! A map that keeps the values used last, within a bound.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by key, each with its weight. When they exceed the bound, those that were used longest ago are dropped; the
/// one that was used last always stays.
#[derive(Debug)]
pub struct Lru<K, V> {
    values: HashMap<K, Kept<V>>,
    /// The keys, ordered by their last use.
    by_use: BTreeMap<u64, K>,
    /// Number of the next use.
    next_use: u64,
    weight: usize,
    max: usize,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    /// A map with this bound for the sum of weights.
    pub fn new(max: usize) -> Self {
        Self { values: HashMap::new(), by_use: BTreeMap::new(), next_use: 0, weight: 0, max }
    }

    /// The bound.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Changes the bound, from the next inserted value on.
    pub const fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// The sum of all weights.
    pub const fn weight(&self) -> usize {
        self.weight
    }

    /// Returns a value and marks it as used.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let kept = self.values.get_mut(key)?;
        if let Some(key) = self.by_use.remove(&kept.used) {
            kept.used = self.next_use;
            self.by_use.insert(self.next_use, key);
            self.next_use += 1;
        }
        Some(kept.value.clone())
    }

    /// Adds a value, or replaces it.
    pub fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        self.weight += weight;
        self.by_use.insert(self.next_use, key.clone());
        self.values.insert(key, Kept { value, weight, used: self.next_use });
        self.next_use += 1;
        while self.weight > self.max && self.values.len() > 1 {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some(old) = self.values.remove(&oldest) {
                self.weight -= old.weight;
            }
        }
    }

    /// Removes a value.
    pub fn remove(&mut self, key: &K) {
        if let Some(old) = self.values.remove(key) {
            self.by_use.remove(&old.used);
            self.weight -= old.weight;
        }
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        self.values.clear();
        self.by_use.clear();
        self.weight = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut lru = Lru::new(10);
        for key in 0..4 {
            lru.insert(key, key, 3);
            lru.get(&0);
        }
        assert_eq!([0, 1, 2, 3].map(|key| lru.get(&key)), [Some(0), None, Some(2), Some(3)]);
        assert_eq!(lru.weight(), 9);
        lru.insert(2, 7, 1);
        assert_eq!((lru.get(&2), lru.weight()), (Some(7), 7));
        lru.insert(9, 9, 100);
        assert_eq!(
            (lru.get(&9), lru.get(&0), lru.weight()),
            (Some(9), None, 100),
            "one value stays, whatever its weight"
        );
        lru.clear();
        assert_eq!((lru.get(&9), lru.weight()), (None, 0));
    }
}
