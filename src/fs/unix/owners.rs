//! Names of users and groups.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::Hash;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, PoisonError, RwLock};

use crate::tree::Owner;

/// Names and numbers of users and groups, each looked up once.
#[derive(Debug, Default)]
pub struct OwnerNames {
    users: Cache<u32, Arc<[u8]>>,
    groups: Cache<u32, Arc<[u8]>>,
    uids: Cache<Vec<u8>, Option<u32>>,
    gids: Cache<Vec<u8>, Option<u32>>,
}

#[derive(Debug)]
struct Cache<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    fn get<Q: Hash + Eq + ToOwned<Owned = K> + ?Sized>(&self, key: &Q, find: impl FnOnce() -> V) -> V
    where
        K: std::borrow::Borrow<Q>,
    {
        if let Some(value) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return value.clone();
        }
        let value = find();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), value.clone());
        value
    }
}

impl OwnerNames {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of a user; empty if the number has none.
    pub fn user(&self, uid: u32) -> Arc<[u8]> {
        self.users
            .get(&uid, || uzers::get_user_by_uid(uid).map(|user| user.name().as_bytes().into()).unwrap_or_default())
    }

    /// The name of a group; empty if the number has none.
    pub fn group(&self, gid: u32) -> Arc<[u8]> {
        self.groups
            .get(&gid, || uzers::get_group_by_gid(gid).map(|group| group.name().as_bytes().into()).unwrap_or_default())
    }

    /// Numbers with their names.
    pub fn owner(&self, uid: u32, gid: u32) -> Owner {
        Owner { uid, gid, user: self.user(uid).to_vec(), group: self.group(gid).to_vec() }
    }

    /// The number of the user with this name on this machine.
    pub fn uid(&self, name: &[u8]) -> Option<u32> {
        if !is_plain(name) {
            return None;
        }
        self.uids.get(name, || uzers::get_user_by_name(OsStr::from_bytes(name)).map(|user| user.uid()))
    }

    /// The number of the group with this name on this machine.
    pub fn gid(&self, name: &[u8]) -> Option<u32> {
        if !is_plain(name) {
            return None;
        }
        self.gids.get(name, || uzers::get_group_by_name(OsStr::from_bytes(name)).map(|group| group.gid()))
    }

    /// The numbers of an owner on this machine: by name, or by number if the name is unknown or with `numeric`.
    pub fn resolve(&self, owner: &Owner, numeric: bool) -> (u32, u32) {
        if numeric {
            return (owner.uid, owner.gid);
        }
        (self.uid(&owner.user).unwrap_or(owner.uid), self.gid(&owner.group).unwrap_or(owner.gid))
    }
}

/// Whether the system can be asked for this name at all.
fn is_plain(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= 256 && !name.contains(&0)
}

/// As root, gives root's files in a user's folder to that user, who could not open them otherwise.
pub fn give_to_owner(top: &std::path::Path) {
    use std::os::unix::fs::{MetadataExt, lchown};
    let Ok(owner) = std::fs::symlink_metadata(top) else { return };
    if !super::process::privileged() || owner.uid() == 0 || !owner.is_dir() {
        return;
    }
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in crate::folder::entries(&folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.uid() == 0 {
                // If this fails, the file stays as it was.
                let _ = lchown(entry.path(), Some(owner.uid()), Some(owner.gid()));
            }
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_to_each_other() {
        let names = OwnerNames::new();
        for _ in 0..2 {
            assert_eq!(&*names.user(0), b"root");
            assert_eq!(names.uid(b"root"), Some(0));
            assert_eq!(&*names.user(4_000_000_123), b"");
            assert_eq!(names.uid(b"no such user"), None);
            assert_eq!(names.uid(b"a\0b"), None);
        }
        let owner = names.owner(0, 0);
        assert_eq!(names.resolve(&Owner { uid: 7, gid: 8, ..owner.clone() }, false), (0, 0));
        assert_eq!(names.resolve(&Owner { uid: 7, gid: 8, ..owner }, true), (7, 8));
        assert_eq!(names.resolve(&Owner { uid: 7, gid: 8, ..Owner::default() }, false), (7, 8));
    }
}
