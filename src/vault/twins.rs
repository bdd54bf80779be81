//! Copies of one snapshot that a vault has more than once (SPEC §8.12): two machines that copy at the same time, or before the log of the
//! other has arrived, each store what neither sees of the other. They count as one.
//!
//! Of several, the same one stays on every machine, whatever a machine knows of the others: the order goes by what never changes, so
//! that of all copies the first one is never dropped in favour of another.

use std::collections::{BTreeMap, HashSet};

use crate::id::{ObjectName, VaultId};
use crate::vault::SnapshotInfo;

/// The place of a snapshot among its copies: whole ones come first, then the original, then the lowest name that it ever had.
pub(crate) fn rank(info: &SnapshotInfo) -> (bool, bool, ObjectName) {
    let origin = info.body.origin.as_ref();
    let first = info.replaced.iter().copied().chain([info.id]).min();
    (origin.is_some_and(|origin| origin.partial), origin.is_some(), first.unwrap_or(info.id))
}

/// The snapshots that are there once more, each with the one that stands for it.
///
/// One that says something else (another tree, tag or description, say) was changed by somebody, and is not the same; nor is a pinned one
/// the same as one that is not.
pub fn surplus(snapshots: &[SnapshotInfo]) -> BTreeMap<ObjectName, ObjectName> {
    let own: HashSet<ObjectName> =
        snapshots.iter().filter(|info| info.body.origin.is_none()).map(|info| info.id).collect();
    let mut groups: BTreeMap<(Option<VaultId>, ObjectName), Vec<&SnapshotInfo>> = BTreeMap::new();
    for info in snapshots {
        let identity = match &info.body.origin {
            Some(origin) if own.contains(&origin.snapshot) => (None, origin.snapshot),
            Some(origin) => (Some(origin.vault), origin.snapshot),
            None => (None, info.id),
        };
        groups.entry(identity).or_default().push(info);
    }
    let mut surplus = BTreeMap::new();
    for (_, mut group) in groups {
        group.sort_by_key(|info| rank(info));
        let mut stay: Vec<&SnapshotInfo> = Vec::new();
        for info in group {
            match stay.iter().find(|other| stands_for(other, info)) {
                Some(other) => drop(surplus.insert(info.id, other.id)),
                None => stay.push(info),
            }
        }
    }
    surplus
}

/// Whether nothing is lost if only the first of two copies stays.
fn stands_for(stays: &SnapshotInfo, goes: &SnapshotInfo) -> bool {
    let is_partial = |info: &SnapshotInfo| info.body.origin.as_ref().is_some_and(|origin| origin.partial);
    let is_more = is_partial(goes) && !is_partial(stays);
    let said = |info: &SnapshotInfo| {
        let body = &info.body;
        (body.source.clone(), body.host.clone(), body.tags.clone(), body.description.clone(), body.given)
    };
    let has_same_trees = stays.body.tree == goes.body.tree && stays.body.links == goes.body.links;
    said(stays) == said(goes)
        && stays.date == goes.date
        && (is_more || has_same_trees)
        && (stays.pinned || !goes.pinned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClientId;
    use crate::tree::{Origin, Snapshot, Time};

    /// The snapshot with this number, which is a copy of the one with number `of`.
    fn copy(number: u8, of: u8) -> SnapshotInfo {
        let snapshot = ObjectName::new([of; 16]);
        let origin = Origin { vault: VaultId::new([9; 16]), snapshot, uncertain: false, rival: None, partial: false };
        let body = Snapshot {
            time: Time { secs: i64::from(of), nanos: 0 },
            origin: Some(origin),
            ..crate::tree::snapshot::testing::empty()
        };
        SnapshotInfo::new(ObjectName::new([number; 16]), ClientId::new([1; 16]), 1, body)
    }

    fn found(snapshots: &[SnapshotInfo]) -> Vec<(u8, u8)> {
        surplus(snapshots).into_iter().map(|(goes, stays)| (goes.as_bytes()[0], stays.as_bytes()[0])).collect()
    }

    #[test]
    fn of_several_copies_the_same_one_stays_whoever_sees_which() {
        let all = [copy(11, 1), copy(12, 2), copy(13, 1), copy(14, 1)];
        assert_eq!(found(&all), [(13, 11), (14, 11)]);
        assert_eq!(found(&all[1..]), [(14, 13)]);
        let mut turned = all.to_vec();
        turned.reverse();
        assert_eq!(found(&turned), found(&all));
        // A change keeps its place in the order.
        let mut changed = all;
        changed[0] = SnapshotInfo { replaced: vec![ObjectName::new([11; 16])], ..copy(99, 1) };
        assert_eq!(found(&changed), [(13, 99), (14, 99)]);
    }

    #[test]
    fn what_says_something_else_is_no_surplus() {
        let one = copy(11, 1);
        let check = |change: &dyn Fn(&mut SnapshotInfo), expected: &[(u8, u8)]| {
            let mut other = copy(12, 1);
            change(&mut other);
            assert_eq!(found(&[one.clone(), other]), expected);
        };
        check(&|_| {}, &[(12, 11)]);
        check(&|other| other.pinned = true, &[]);
        check(&|other| other.body.tags = vec!["mine".to_owned()], &[]);
        check(&|other| other.body.description = "mine".to_owned(), &[]);
        check(&|other| other.body.source = "other".to_owned(), &[]);
        check(&|other| other.date.secs += 1, &[]);
        check(&|other| other.body.tree.len += 1, &[]);
        check(&|other| other.body.origin.as_mut().unwrap().vault = VaultId::new([8; 16]), &[]);
        // A pin of the one that stays is enough.
        let pinned = |info: SnapshotInfo| SnapshotInfo { pinned: true, ..info };
        assert_eq!(found(&[pinned(copy(11, 1)), pinned(copy(12, 1))]), [(12, 11)]);
        // A whole one stands for one that lacks something, whatever their names are.
        let mut partial = copy(11, 1);
        partial.body.origin.as_mut().unwrap().partial = true;
        partial.body.tree.len += 1;
        assert_eq!(found(&[partial, copy(12, 1)]), [(11, 12)]);
        // So does the snapshot itself, where a copy of it came back.
        let mut own = copy(1, 1);
        own.body.origin = None;
        assert_eq!(found(&[copy(0, 1), own]), [(0, 1)]);
    }
}
