//! A map that keeps what was used last, within a bound.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by key, each with its weight. When they weigh more than the bound, those that were used longest ago go; the one that
/// was used last always stays.
#[derive(Debug)]
pub struct Lru<K, V> {
    values: HashMap<K, Kept<V>>,
    /// The keys by when they were used last.
    by_use: BTreeMap<u64, K>,
    /// The number of the next use.
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
    /// Keeps values of this weight together.
    pub fn new(max: usize) -> Self {
        Self { values: HashMap::new(), by_use: BTreeMap::new(), next_use: 0, weight: 0, max }
    }

    /// The bound.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Changes the bound. It counts from the next value on.
    pub const fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// What all values weigh.
    pub const fn weight(&self) -> usize {
        self.weight
    }

    /// A value, which counts as used.
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

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) {
        if let Some(old) = self.values.remove(key) {
            self.by_use.remove(&old.used);
            self.weight -= old.weight;
        }
    }

    /// Takes all values out.
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
        assert_eq!((lru.get(&9), lru.get(&0), lru.weight()), (Some(9), None, 100), "one stays, whatever it weighs");
        lru.clear();
        assert_eq!((lru.get(&9), lru.weight()), (None, 0));
    }
}
