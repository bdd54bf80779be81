//! Metadata of files and folders to restore, and how files are told apart.

use std::sync::Arc;

use crate::fs::{Meta, MetaOptions, OwnerNames, Stat, privileged};
use crate::tree::{Entry, FileKind, Owner, Time};

/// Metadata to set on a file or folder once its content is there.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    flags: u32,
    mtime: Time,
    owner: Arc<Owner>,
    xattrs: Box<[(Vec<u8>, Vec<u8>)]>,
}

impl Attributes {
    /// Takes the metadata out of an entry. Neighbours mostly have the same owner, which is then stored once.
    pub(super) fn take(entry: &mut Entry, last: &mut Arc<Owner>) -> Self {
        if **last != entry.owner {
            *last = Arc::new(std::mem::take(&mut entry.owner));
        }
        Self {
            mode: entry.mode,
            flags: entry.flags,
            mtime: entry.mtime,
            owner: last.clone(),
            xattrs: std::mem::take(&mut entry.xattrs).into_boxed_slice(),
        }
    }

    /// Which metadata of an existing item differs and would be set, as far as `stat` tells.
    pub(super) fn differs(&self, stat: &Stat, names: &OwnerNames, options: MetaOptions) -> Differs {
        let owner = || names.resolve(&self.owner, options.numeric) != (stat.uid, stat.gid);
        Differs {
            time: stat.mtime != self.mtime,
            mode: cfg!(unix) && stat.kind != FileKind::Symlink && stat.mode != self.mode & 0o7777,
            owner: cfg!(unix) && options.owner && privileged() && owner(),
        }
    }

    /// Whether an item was modified later than in the snapshot.
    pub(super) fn is_older_than(&self, stat: &Stat) -> bool {
        self.mtime < stat.mtime
    }

    /// The metadata in the form in which it is set.
    pub(super) fn meta<'a>(&'a self, kind: FileKind, names: &'a OwnerNames, options: MetaOptions) -> Meta<'a> {
        Meta {
            kind,
            mode: self.mode,
            owner: &self.owner,
            mtime: self.mtime,
            xattrs: &self.xattrs,
            flags: self.flags,
            options,
            names,
        }
    }
}

/// Which metadata of an item differs from what is to be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Differs {
    time: bool,
    mode: bool,
    owner: bool,
}

impl Differs {
    /// Whether anything differs.
    pub(super) const fn any(self) -> bool {
        self.time || self.rights()
    }

    /// Whether mode or owner differ.
    pub(super) const fn rights(self) -> bool {
        self.mode || self.owner
    }

    /// The differences in words, after others.
    pub(super) fn after(self, mut words: Vec<&'static str>) -> String {
        let all = [("time", self.time), ("mode", self.mode), ("owner", self.owner)];
        words.extend(all.into_iter().filter(|(_, differs)| *differs).map(|(word, _)| word));
        words.join(", ")
    }
}

/// Identity of a file on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl Identity {
    pub(super) const fn of(stat: &Stat) -> Self {
        Self { dev: stat.dev, ino: stat.ino }
    }
}

static NO_OWNER: Owner = Owner { uid: 0, gid: 0, user: Vec::new(), group: Vec::new() };

/// Mode, time and flags as they were; nothing else is set.
pub(super) fn as_it_was<'m>(stat: &Stat, names: &'m OwnerNames) -> Meta<'m> {
    Meta {
        kind: stat.kind,
        mode: stat.mode,
        owner: &NO_OWNER,
        mtime: stat.mtime,
        xattrs: &[],
        flags: stat.flags,
        options: MetaOptions { owner: false, numeric: true, xattrs: false },
        names,
    }
}
