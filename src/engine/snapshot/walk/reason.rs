//! Describes why a file counts as new or changed, for users who ask for it (`-vv`).

use crate::catalogue::StatEntry;
use crate::engine::snapshot::walk::Walk;
use crate::fs::{Dir, Stat};
use crate::path::Shown;
use crate::tree::{FileKind, decode_entry};

impl Walk<'_> {
    /// Reports a file that is new or has changed. `old` is its remembered row; `was_there` says whether there is one.
    pub(super) fn tell(
        &self,
        path: &[u8],
        was_there: bool,
        old: Option<&StatEntry>,
        stat: &Stat,
        dir: &Dir,
        name: &[u8],
    ) {
        let mark = if was_there { "M" } else { "+" };
        let path = Shown(path);
        if self.progress.wants_reasons() {
            let why = old.map_or_else(|| "new".to_owned(), |old| self.why(old, stat, dir, name));
            self.progress.detail(&format!("{mark} {path} ({why})"));
        } else {
            self.progress.detail(&format!("{mark} {path}"));
        }
    }

    fn why(&self, old: &StatEntry, stat: &Stat, dir: &Dir, name: &[u8]) -> String {
        if self.read_all {
            return "all files are read".to_owned();
        }
        if self.is_unchanged(old, stat) {
            return "what it holds is not stored any more".to_owned();
        }
        if old.inode == 0 {
            return "it may have been changing when it was read last".to_owned();
        }
        let mut found = differences(old, stat);
        if found.is_empty() {
            // It is only certain that something about it has changed.
            found.push(if has_other_xattrs(old, stat, dir, name) { "xattr" } else { "change time" });
        }
        found.join(", ")
    }
}

/// The differences that can be seen.
fn differences(old: &StatEntry, stat: &Stat) -> Vec<&'static str> {
    let entry = decode_entry(&old.entry).ok().flatten().map(|(entry, _)| entry);
    let entry = entry.filter(|_| old.kind == stat.kind);
    let differs = [
        ("type", old.kind != stat.kind),
        ("inode", old.inode != stat.ino),
        ("size", old.size != stat.size),
        ("time", old.mtime != stat.mtime),
        ("mode", entry.as_ref().is_some_and(|entry| entry.mode != stat.mode)),
        ("owner", entry.as_ref().is_some_and(|entry| (entry.owner.uid, entry.owner.gid) != (stat.uid, stat.gid))),
        ("flags", entry.as_ref().is_some_and(|entry| entry.flags != stat.flags)),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(word, _)| word).collect()
}

fn has_other_xattrs(old: &StatEntry, stat: &Stat, dir: &Dir, name: &[u8]) -> bool {
    let Ok(Some((entry, _))) = decode_entry(&old.entry) else { return false };
    let now = (stat.kind == FileKind::File).then(|| dir.open_file(name).and_then(|file| file.xattrs()));
    matches!(now, Some(Ok(now)) if now != entry.xattrs)
}
