//! Roots that are files. They are remembered like the files of a folder, so that an unchanged one is not read again.

use std::sync::atomic::Ordering::Relaxed;

use rayon::Scope;

use crate::catalogue::stat::FolderRows;
use crate::catalogue::{StatEntry, StatRow};
use crate::engine::snapshot::walk::Walk;
use crate::engine::snapshot::walk::page::SHARED_LEN;
use crate::fs::{Dir, Stat};
use crate::id::FolderKey;
use crate::sync::lock;
use crate::tree::{Entry, FileKind};
use crate::write::file::ReadFailed;

/// A root that is a file.
pub(super) struct RootFile {
    /// Its number in the top folder.
    pub(super) top: usize,
    /// Its name there.
    pub(super) name: Vec<u8>,
    /// Key of the folder whose only row remembers this file.
    pub(super) key: FolderKey,
}

impl<'a> Walk<'a> {
    /// Reads a root that is a file, unless it is unchanged.
    pub(super) fn read_root_file<'s>(&'s self, scope: &Scope<'s>, root: RootFile, parent: &Dir, file_name: &[u8])
    where
        'a: 's,
    {
        let stat = match parent.stat_at(file_name) {
            Ok(stat) => stat,
            Err(error) => return self.finish_root_file(&root, Err(error.into())),
        };
        self.found.files.fetch_add(1, Relaxed);
        self.found.bytes.fetch_add(stat.size, Relaxed);
        let remembered = self.remembered_root(&root);
        let remembered_before = remembered.is_some();
        let before = remembered.as_ref().map(|(entry, _)| entry.clone());
        let counter = if remembered_before { &self.found.files_changed } else { &self.found.files_new };
        let same = remembered
            .filter(|(entry, trusted)| self.is_unchanged(entry, &stat) && (*trusted || self.is_stored(&entry.entry)));
        if let Some((entry, trusted)) = same {
            self.count_unchanged(stat.size);
            lock(&self.top)[root.top] = entry.entry.clone();
            if !trusted {
                self.remember_root(&root, entry);
            }
            return;
        }
        counter.fetch_add(1, Relaxed);
        if self.progress.wants_details() {
            self.tell(&root.name, remembered_before, before.as_ref(), &stat, parent, file_name);
        }
        if stat.kind == FileKind::File {
            let (file, local) = (parent.open_file(file_name), parent.is_local());
            let (name, spread) = (root.name.clone(), (stat.size >= SHARED_LEN).then_some(scope));
            let done = Box::new(move |read| self.finish_root_file(&root, read));
            self.read_file(spread, file, &name, &stat, local, done);
        } else if self.reads(stat.kind) {
            let name = root.name.clone();
            let done = Box::new(move |read| self.finish_root_file(&root, read));
            self.read_special(parent, file_name, &name, &stat, done);
        } else {
            let entry = self.special_entry(parent, file_name, &root.name, &stat);
            self.finish_root_file(&root, entry.map(|entry| (entry, stat)).map_err(ReadFailed::from));
        }
    }

    /// The remembered row of a root that is a file, and whether it is trusted.
    fn remembered_root(&self, root: &RootFile) -> Option<(StatEntry, bool)> {
        let rows = self.depot.reader().rows(&root.key, &root.name, &root.name).unwrap_or_else(|error| {
            self.depot.fail(error.into());
            Vec::new()
        });
        let (_, row) = rows.into_iter().next()?;
        let trusted = self.trusted.contains(&row.session);
        row.entries.into_iter().next().map(|entry| (entry, trusted))
    }

    fn remember_root(&self, root: &RootFile, entry: StatEntry) {
        let row = StatRow { session: self.session, entries: vec![entry] };
        self.depot.put_rows(FolderRows { rows: vec![row], ..FolderRows::new(root.key) });
    }

    /// Records a root that is a file, after it was read.
    fn finish_root_file(&self, root: &RootFile, read: Result<(Entry, Stat), ReadFailed>) {
        match read {
            Ok((entry, stat)) => {
                let remembered = self.remembered(&root.name, &entry, &stat);
                lock(&self.top)[root.top] = remembered.entry.clone();
                // A file that could not be encoded was skipped, and must be reported again the next time.
                if !remembered.entry.is_empty() {
                    self.remember_root(root, remembered);
                }
            }
            Err(ReadFailed::Source(error)) => {
                self.skip(&root.name, error, false);
                self.put_top(root.top, None);
            }
            // The run has failed; none of its results will be used.
            Err(ReadFailed::Run) => {}
        }
    }
}
