//! Finishes entries into pages, pages into folders, and folders into entries of their parents.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use crate::catalogue::stat::FolderRows;
use crate::catalogue::{StatEntry, StatRow};
use crate::engine::snapshot::walk::{Folder, Page, Parent, Walk};
use crate::fs::Stat;
use crate::path::join;
use crate::sync::lock;
use crate::tree::{Entry, FileKind, Stream};
use crate::write::file::ReadFailed;

impl Walk<'_> {
    /// Records a file that was read, or that could not be read.
    pub(super) fn finish_file(&self, page: &Arc<Page>, slot: usize, read: Result<(Entry, Stat), ReadFailed>) {
        match read {
            Ok((entry, stat)) => {
                let row = self.remembered(&join(&page.folder.path, &entry.name), &entry, &stat);
                lock(&page.slots)[slot].stat = row;
                if stat.nlink > 1
                    && let Some(links) = lock(&self.links).get_mut(&(stat.dev, stat.ino))
                {
                    links.entry = Some((entry, stat));
                }
            }
            Err(ReadFailed::Source(error)) => {
                let name = lock(&page.slots)[slot].stat.name.to_vec();
                let path = join(&page.folder.path, &name);
                // A file that was deleted meanwhile is simply not in the snapshot.
                if error.kind() != std::io::ErrorKind::NotFound {
                    self.skip(&path, error, false);
                }
            }
            // The run has failed; none of its results will be used.
            Err(ReadFailed::Run) => return,
        }
        self.leave(page);
    }

    /// The row to remember for a file that was read: its state when it was read, not when it was first looked at.
    pub(super) fn remembered(&self, path: &[u8], entry: &Entry, stat: &Stat) -> StatEntry {
        let mut row = self.stat_entry(&entry.name, stat);
        if entry.torn {
            self.skip(path, "it changed while it was read; what was read is stored", true);
            row.inode = 0;
        }
        if entry.kind == FileKind::File && entry.size != stat.size {
            // Its size as reported by the system is not reliable, so it is read each time.
            let counted = |bytes: u64| Some(bytes.saturating_add(entry.size).saturating_sub(stat.size));
            let _ = self.found.bytes.fetch_update(Relaxed, Relaxed, counted); // never refused
            row.inode = 0;
        }
        row.entry = self.encode(entry, path);
        row
    }

    /// Marks one part of a page as finished. After the last one, finishes the folder, and then its parents.
    pub(super) fn leave(&self, page: &Arc<Page>) {
        let mut page = page.clone();
        loop {
            if page.outstanding.fetch_sub(1, AcqRel) > 1 || self.stopped() {
                return;
            }
            let Some(listing) = self.finish_page(&page) else { return };
            let folder = &page.folder;
            let Some(entry) = lock(&folder.entry).take() else { return };
            let entry = Entry { content: Some(listing), ..entry };
            match &folder.parent {
                Parent::Top(top) => return self.put_top(*top, Some(entry)),
                Parent::Page(parent, slot) => {
                    let parent = parent.clone();
                    let bytes = self.encode(&entry, &folder.path);
                    {
                        let slot = &mut lock(&parent.slots)[*slot];
                        slot.reused = slot.stat.entry == bytes;
                        slot.stat.entry = bytes;
                    }
                    page = parent;
                }
            }
        }
    }

    /// Adds a finished page to its folder's listing. Returns the listing after the last page.
    fn finish_page(&self, page: &Page) -> Option<Stream> {
        let folder = &page.folder;
        let mut slots = std::mem::take(&mut *lock(&page.slots));
        // Files that could not be read, or were left out at the last moment, have no entry.
        slots.retain(|slot| !slot.stat.entry.is_empty());
        let mut bytes = Vec::with_capacity(slots.iter().map(|slot| slot.stat.entry.len()).sum());
        for slot in &slots {
            bytes.extend_from_slice(&slot.stat.entry);
        }
        let same = slots.iter().all(|slot| slot.reused) && slots.len() == page.old_entries && page.old_rows.len() <= 1;
        let keep = same && page.old_trusted && folder.key == folder.old_key;
        let mut state = lock(&folder.state);
        if !keep {
            let row = StatRow { session: self.session, entries: slots.into_iter().map(|slot| slot.stat).collect() };
            let first = row.entries.first().map(|entry| &*entry.name);
            let stale =
                page.old_rows.iter().filter(|name| Some(name.as_slice()) != first && folder.key == folder.old_key);
            state.rows.stale.extend(stale.cloned());
            state.rows.rows.push(row);
        }
        self.deliver(folder, &mut state, page.index, bytes)
    }

    /// Writes pages to the listing in order.
    fn deliver(&self, folder: &Folder, state: &mut super::FolderState, index: usize, bytes: Vec<u8>) -> Option<Stream> {
        state.listing.put_page(index, bytes, self.depot).ok()?;
        let is_last = state.listing.pages() == folder.pages.len();
        if state.rows.weight() > ROWS_AT_ONCE || is_last {
            let key = state.rows.folder;
            let mut rows = std::mem::replace(&mut state.rows, FolderRows::new(key));
            if !(rows.rows.is_empty() && rows.stale.is_empty()) {
                rows.identity = Some(folder.identity);
                self.depot.put_rows(rows);
            }
        }
        if !is_last {
            return None;
        }
        std::mem::take(&mut state.listing).finish(self.depot).ok()
    }
}

/// Size, in bytes, from which the rows of a large folder are passed on.
const ROWS_AT_ONCE: usize = 1 << 20;
