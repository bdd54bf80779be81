//! The changes that a dry run would make, for a restore that makes no others.

use std::collections::HashSet;

use crate::engine::restore::{Change, Mark};

/// The changes of a dry run: whether those of another one are the same, and the paths that are deleted. It holds a hash of each, since a
/// restore may have any number of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planned {
    /// The hashes of all changes, combined: their order does not matter.
    all: [u8; 32],
    count: u64,
    deleted: HashSet<[u8; 16]>,
}

fn hash_of(path: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    blake3::Hasher::new().update(path).finalize_xof().fill(&mut hash);
    hash
}

impl Planned {
    /// Adds a change.
    pub fn add(&mut self, change: &Change) {
        let Change { mark, path, is_folder, why } = change;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[*mark as u8, u8::from(*is_folder)]);
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path).update(why.as_bytes());
        let hash = hasher.finalize();
        self.all.iter_mut().zip(hash.as_bytes()).for_each(|(all, byte)| *all ^= byte);
        self.count += 1;
        if *mark == Mark::Deleted {
            self.deleted.insert(hash_of(path));
        }
    }

    /// Whether this path is deleted.
    pub fn deletes(&self, path: &[u8]) -> bool {
        self.deleted.contains(&hash_of(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_the_same_if_all_their_changes_are() {
        let change = |mark, path: &[u8], why: &'static str| Change {
            mark,
            path: path.to_vec(),
            is_folder: false,
            why: why.into(),
        };
        let plan = |changes: &[&Change]| {
            let mut planned = Planned::default();
            changes.iter().for_each(|change| planned.add(change));
            planned
        };
        let (one, other) = (change(Mark::Changed, b"a", "size"), change(Mark::Deleted, b"b", "gone"));
        let whole = plan(&[&one, &other]);
        assert_eq!(whole, plan(&[&other, &one]));
        assert!(whole.deletes(b"b") && !whole.deletes(b"a") && !whole.deletes(b"c"));
        for (mark, path, why) in
            [(Mark::Added, &b"a"[..], "size"), (Mark::Changed, b"c", "size"), (Mark::Changed, b"a", "time")]
        {
            assert_ne!(whole, plan(&[&change(mark, path, why), &other]), "{mark:?} {why}");
        }
        assert_ne!(whole, plan(&[&one]));
        assert_ne!(plan(&[]), plan(&[&one, &one]), "the same one twice");
    }
}
