//! Sets of numbers that have few gaps.

use std::collections::BTreeMap;

/// A set of record numbers, as ranges without gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// First and last number of each range.
    rows: BTreeMap<u64, u64>,
}

impl Numbers {
    /// Adds a number. Numbers begin at 1; 0 stands for none and is not added.
    pub fn insert(&mut self, number: u64) {
        if number == 0 {
            return;
        }
        let before = self.rows.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= number) {
            return;
        }
        let next = number.checked_add(1);
        let end = next.and_then(|next| self.rows.remove(&next)).unwrap_or(number);
        let start = before.filter(|(_, last)| *last == number - 1).map_or(number, |(first, _)| first);
        self.rows.insert(start, end);
    }

    /// Whether the set has this number.
    pub fn contains(&self, number: u64) -> bool {
        self.rows.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// The highest number; 0 if the set is empty.
    pub fn highest(&self) -> u64 {
        self.rows.last_key_value().map_or(0, |(_, last)| *last)
    }

    /// The number up to which all numbers from 1 on are in the set.
    pub fn complete(&self) -> u64 {
        self.rows.get(&1).copied().unwrap_or(0)
    }

    /// Count of the numbers in the set.
    pub fn count(&self) -> u64 {
        self.rows.iter().fold(0, |count, (first, last)| count.saturating_add((last - first).saturating_add(1)))
    }

    /// Numbers from 1 to `highest` that are not in the set.
    pub fn gaps(&self, highest: u64) -> impl Iterator<Item = u64> + '_ {
        let ends = self.rows.values().map(|last| last.saturating_add(1));
        let starts = self.rows.keys().map(|first| first - 1).chain([highest]);
        let gaps = [1].into_iter().chain(ends).zip(starts);
        // After the highest possible number there is no gap.
        gaps.flat_map(move |(from, to)| from..=to.min(highest)).filter(|number| !self.contains(*number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_set_that_was_put_in(numbers in proptest::collection::vec(0..40_u64, 0..60)) {
            let mut rows = Numbers::default();
            numbers.iter().for_each(|number| rows.insert(*number));
            let set: BTreeSet<u64> = numbers.into_iter().filter(|number| *number > 0).collect();
            prop_assert!((0..50).all(|number| rows.contains(number) == set.contains(&number)));
            prop_assert_eq!(rows.highest(), set.last().copied().unwrap_or(0));
            prop_assert_eq!(rows.count(), set.len() as u64);
            prop_assert_eq!(rows.complete(), (1..50).take_while(|number| set.contains(number)).count() as u64);
            for highest in [0, 7, 60] {
                let gaps: Vec<u64> = rows.gaps(highest).collect();
                let expected: Vec<u64> = (1..=highest).filter(|number| !set.contains(number)).collect();
                prop_assert_eq!(gaps, expected);
            }
        }
    }

    #[test]
    fn the_highest_number_of_all_is_a_number() {
        let mut rows = Numbers::default();
        rows.insert(u64::MAX);
        rows.insert(u64::MAX - 1);
        assert!(rows.contains(u64::MAX) && rows.highest() == u64::MAX && rows.complete() == 0);
        assert_eq!(rows.gaps(u64::MAX).next(), Some(1));
        let mut all = Numbers::default();
        all.rows.insert(1, u64::MAX);
        assert_eq!(all.gaps(u64::MAX).next(), None);
        assert_eq!(rows.count(), 2);
    }
}
