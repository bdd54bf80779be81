//! The valid key slots, according to the records about them (SPEC §8.4, kind 11).
//!
//! The records are sets that grow. A removal beats only additions that its writer had seen, so two machines that add
//! and remove at the same time never leave fewer slots than either of them meant to. Removals that together would leave
//! no slot that a person can use are judged in an order that all machines agree on, and the last of them is void.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::id::{ClientId, Digest, ObjectName, SlotId};
use crate::log::Sight;
use crate::log::chain::Chains;
use crate::log::record::{Link, RecordBody, SlotChange, ValidSlot};

/// State of a slot according to the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is valid.
    Valid,
    /// No record mentions it: its record has not been written yet, or has not arrived.
    Pending,
    /// It was removed.
    Removed,
    /// A slot of this id is valid, but it has other bytes.
    Other,
}

/// Client and number of a record, as others acknowledge it.
pub type Place = (ClientId, u64);

/// The key slots, according to all records together.
#[derive(Debug, Clone, Default)]
pub struct SlotSet {
    /// Valid slots, with the records that added them and that no removal beats.
    valid: BTreeMap<SlotId, Vec<(Place, ValidSlot)>>,
    /// Removed slots, with the records that remove them, void or not.
    removals: BTreeMap<SlotId, BTreeSet<Place>>,
    /// Slots that some removal would take away if no other condition had to be met.
    doubtful: HashSet<SlotId>,
    /// Whether there are records about slots.
    exists: bool,
}

/// Whether the writer of `later` had seen `earlier`, which is another record.
fn has_seen(sight: &Sight, later: &Link, earlier: &Link) -> bool {
    sight.has_seen(&later.record, &earlier.record.client, earlier.record.number)
}

const fn place(link: &Link) -> Place {
    (link.record.client, link.record.number)
}

/// Orders removals so that each comes after those that its writer had seen; of two whose writers knew nothing of each
/// other, the one with the higher name comes first.
fn in_order<'l>(sight: &Sight, mut removals: Vec<&'l Link>) -> Vec<&'l Link> {
    removals.sort_by_key(|link| std::cmp::Reverse(link.name));
    let follows = |later: &Link, earlier: &Link| later.name != earlier.name && has_seen(sight, later, earlier);
    // For each removal, the number of unordered ones that must come before it.
    let mut waits: Vec<usize> =
        removals.iter().map(|link| removals.iter().filter(|other| follows(link, other)).count()).collect();
    let mut ordered = Vec::with_capacity(removals.len());
    while !removals.is_empty() {
        // Records that claim to have seen each other were forged by someone who has the key: any order will do.
        let at = waits.iter().position(|count| *count == 0).unwrap_or(0);
        let next = removals.remove(at);
        waits.remove(at);
        for (link, count) in removals.iter().zip(&mut waits) {
            *count -= usize::from(*count > 0 && follows(link, next));
        }
        ordered.push(next);
    }
    ordered
}

/// The slots that are still valid while removals are judged, with the records that added them.
type Additions<'a> = BTreeMap<SlotId, Vec<(&'a Link, ValidSlot)>>;

impl SlotSet {
    /// Evaluates all records of the log.
    pub fn new(chains: &Chains) -> Self {
        let changes: Vec<(&Link, &SlotChange)> = chains
            .links()
            .filter_map(|link| match &link.record.body {
                RecordBody::Slots(change) => Some((link, change)),
                _ => None,
            })
            .collect();
        let mut set = Self { exists: !changes.is_empty(), ..Self::default() };
        let mut additions = Additions::new();
        for (link, change) in &changes {
            for slot in &change.add {
                additions.entry(slot.id).or_default().push((link, *slot));
            }
            for id in &change.remove {
                set.removals.entry(*id).or_default().insert(place(link));
            }
        }
        let by_name: BTreeMap<ObjectName, &SlotChange> =
            changes.iter().map(|(link, change)| (link.name, *change)).collect();
        let removing = changes.iter().filter(|(_, change)| !change.remove.is_empty()).map(|(link, _)| *link);
        let sight = Sight::new(chains);
        for link in in_order(&sight, removing.collect()) {
            for id in by_name.get(&link.name).into_iter().flat_map(|change| &change.remove) {
                set.remove(&sight, &mut additions, link, *id);
            }
        }
        let owned = |of: Vec<(&Link, ValidSlot)>| of.into_iter().map(|(link, slot)| (place(link), slot)).collect();
        set.valid = additions.into_iter().map(|(id, of)| (id, owned(of))).collect();
        set
    }

    /// Removes a slot, unless that would leave none that a person can use. Slots added by someone who knew of the
    /// removal do not count as left: otherwise a void removal would take effect when a slot is added later.
    fn remove(&mut self, sight: &Sight, additions: &mut Additions<'_>, link: &Link, id: SlotId) {
        let Some(of) = additions.get_mut(&id) else { return };
        let (seen, left): (Vec<_>, Vec<_>) = of.iter().partition(|(addition, _)| has_seen(sight, link, addition));
        if seen.is_empty() {
            return;
        }
        if !left.is_empty() {
            *of = left;
            return;
        }
        self.doubtful.insert(id);
        let is_for_a_person = of.iter().any(|(_, slot)| !slot.device);
        let counts = |(addition, slot): &(&Link, ValidSlot)| !slot.device && !has_seen(sight, addition, link);
        let another = additions.iter().any(|(other, of)| *other != id && of.iter().any(counts));
        if another || !is_for_a_person {
            additions.remove(&id);
        }
    }

    /// Whether there are records about slots at all.
    pub const fn exists(&self) -> bool {
        self.exists
    }

    /// State of the slot with this id, whose bytes have this hash.
    pub fn standing(&self, id: &SlotId, digest: &Digest) -> Standing {
        match self.valid.get(id) {
            Some(additions) if additions.iter().any(|(_, slot)| slot.digest == *digest) => Standing::Valid,
            Some(_) => Standing::Other,
            None if self.removals.contains_key(id) => Standing::Removed,
            None => Standing::Pending,
        }
    }

    /// The valid slots.
    pub fn valid(&self) -> impl Iterator<Item = ValidSlot> + '_ {
        self.valid.values().filter_map(|additions| Some(additions.first()?.1))
    }

    /// The records that made a slot valid.
    pub fn additions(&self, id: &SlotId) -> impl Iterator<Item = Place> + '_ {
        self.valid.get(id).into_iter().flatten().map(|(place, _)| *place)
    }

    /// The records that remove a slot.
    pub fn removals(&self, id: &SlotId) -> impl Iterator<Item = Place> + '_ {
        self.removals.get(id).into_iter().flatten().copied()
    }

    /// Whether no removal would take this slot away, not even one that is void now.
    pub fn is_beyond_doubt(&self, id: &SlotId) -> bool {
        self.valid.contains_key(id) && !self.doubtful.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::past::Closed;
    use crate::log::record::Record;
    use crate::tree::Time;

    fn slot(id: u8) -> ValidSlot {
        ValidSlot { id: SlotId::new([id; 16]), digest: Digest::new([id; 32]), device: id >= 200 }
    }

    /// A record of a client, with the object name `name`.
    fn link(client: u8, number: u64, name: u8, seen: &[(u8, u64)], add: &[u8], remove: &[u8]) -> Link {
        let change = SlotChange {
            add: add.iter().map(|id| slot(*id)).collect(),
            remove: remove.iter().map(|id| SlotId::new([*id; 16])).collect(),
        };
        let record = Record {
            client: ClientId::new([client; 16]),
            number,
            previous: Digest::new([0; 32]),
            seen: seen.iter().map(|(client, number)| (ClientId::new([*client; 16]), *number)).collect(),
            time: Time::default(),
            claims: Vec::new(),
            closed: Vec::new(),
            body: RecordBody::Slots(change),
        };
        Link { name: ObjectName::new([name; 16]), digest: Digest::new([name; 32]), record }
    }

    #[track_caller]
    fn check(links: &[Link], valid: &[u8]) -> SlotSet {
        let mut set = SlotSet::default();
        // The order in which records are read does not matter.
        for reversed in [false, true] {
            let mut links = links.to_vec();
            if reversed {
                links.reverse();
            }
            set = SlotSet::new(&Chains::new(links));
            let found: Vec<u8> = set.valid().map(|slot| slot.id.as_bytes()[0]).collect();
            assert_eq!(found, valid);
        }
        set
    }

    #[test]
    fn a_slot_is_valid_from_its_record_to_its_removal() {
        let first = link(1, 2, 10, &[], &[1, 2], &[]);
        let set = check(std::slice::from_ref(&first), &[1, 2]);
        assert_eq!(set.standing(&slot(1).id, &slot(1).digest), Standing::Valid);
        assert_eq!(set.standing(&slot(1).id, &slot(2).digest), Standing::Other);
        assert_eq!(set.standing(&slot(3).id, &slot(3).digest), Standing::Pending);
        let set = check(&[first, link(1, 3, 11, &[], &[], &[1])], &[2]);
        assert_eq!(set.standing(&slot(1).id, &slot(1).digest), Standing::Removed);
        assert_eq!(set.removals(&slot(1).id).collect::<Vec<_>>(), [(ClientId::new([1; 16]), 3)]);
        assert!(!SlotSet::new(&Chains::default()).exists() && set.exists());
    }

    #[test]
    fn a_removal_beats_only_additions_that_it_has_seen() {
        let both = link(1, 2, 10, &[], &[1, 2], &[]);
        check(&[both.clone(), link(2, 2, 20, &[(1, 1)], &[], &[1])], &[1, 2]);
        check(&[both.clone(), link(2, 2, 20, &[(1, 2)], &[], &[1])], &[2]);
        // Another machine had recorded the same slot; the machine that removed it had not seen that.
        check(&[both, link(2, 2, 20, &[(1, 2)], &[], &[1]), link(3, 2, 30, &[], &[1], &[])], &[1, 2]);
    }

    #[test]
    fn a_removal_beats_the_additions_of_a_closed_client_that_it_need_not_name() {
        let added = link(1, 1, 10, &[], &[1, 2], &[]);
        let mut closing = link(2, 1, 20, &[(1, 1)], &[], &[]);
        closing.record.closed.push(Closed(ClientId::new([1; 16]), 1, Digest::new([0; 32])));
        check(&[added.clone(), closing.clone(), link(2, 2, 21, &[], &[], &[1])], &[2]);
        check(&[added.clone(), closing.clone(), link(3, 1, 30, &[(2, 1)], &[], &[1])], &[2]);
        check(&[added, closing, link(3, 1, 30, &[], &[], &[1])], &[1, 2]);
    }

    #[test]
    fn of_two_removals_that_would_leave_none_the_one_of_the_lower_name_is_void() {
        let both = link(1, 2, 10, &[], &[1, 2], &[]);
        for (one, two, left) in [(50, 60, 1), (60, 50, 2)] {
            let removals = [link(2, 2, one, &[(1, 2)], &[], &[1]), link(3, 2, two, &[(1, 2)], &[], &[2])];
            let set = check(&[&[both.clone()][..], &removals].concat(), &[left]);
            assert!(!set.is_beyond_doubt(&slot(left).id));
        }
        // A slot that is added later does not make the removal take effect.
        let removals = [link(2, 2, 50, &[(1, 2)], &[], &[1]), link(3, 2, 60, &[(1, 2)], &[], &[2])];
        let later = link(2, 3, 70, &[(1, 2), (3, 2)], &[9], &[]);
        check(&[&[both.clone(), later.clone()][..], &removals].concat(), &[1, 9]);
        let again = link(2, 4, 5, &[(1, 2), (3, 2)], &[1], &[]);
        let set = check(&[&[both, later, again][..], &removals].concat(), &[1, 9]);
        assert!(set.is_beyond_doubt(&slot(1).id), "it was added a second time");
        // A slot whose removal was settled before is never brought back, however low its name is.
        let three = link(1, 2, 10, &[], &[1, 2, 3], &[]);
        let settled = link(1, 3, 1, &[], &[], &[3]);
        let removals = [link(2, 2, 50, &[(1, 3)], &[], &[1]), link(3, 2, 60, &[(1, 3)], &[], &[2])];
        check(&[&[three, settled][..], &removals].concat(), &[1]);
    }

    #[test]
    fn the_key_of_a_machine_is_no_way_in_for_a_person() {
        let slots = link(1, 2, 10, &[], &[1, 2, 200], &[]);
        let removals = [link(2, 2, 50, &[(1, 2)], &[], &[1]), link(3, 2, 60, &[(1, 2)], &[], &[2])];
        check(&[&[slots.clone()][..], &removals].concat(), &[1, 200]);
        check(&[slots, link(2, 2, 50, &[(1, 2)], &[], &[200])], &[1, 2]);
    }

    #[test]
    fn a_change_of_the_password_leaves_the_new_one() {
        let first = link(1, 2, 10, &[], &[1], &[]);
        let changed = link(1, 3, 11, &[], &[2], &[1]);
        let again = link(1, 4, 12, &[], &[3], &[2]);
        check(&[first, changed, again], &[3]);
    }

    #[test]
    fn forged_records_that_saw_each_other_are_read_all_the_same() {
        let both = link(1, 2, 10, &[], &[1, 2], &[]);
        let forged = [link(2, 2, 50, &[(1, 2), (3, 9)], &[], &[1]), link(3, 2, 60, &[(1, 2), (2, 9)], &[], &[2])];
        let set = SlotSet::new(&Chains::new([&[both][..], &forged].concat()));
        assert_eq!(set.valid().count(), 1);
    }
}
