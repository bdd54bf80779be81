//! Writes trees, and the lists that belong to a snapshot: the skipped files, and the paths that are names of one file.

use std::collections::BTreeMap;

use crate::tree::entry::LISTING_VERSION;
use crate::tree::{Skipped, Stream, StreamWriter};
use crate::varint;
use crate::write::depot::{Depot, Failed};

/// Number of skipped files and left out folders that a report shows.
pub(crate) const SKIPPED_SHOWN: usize = 1000;

/// A stream of a tree or a list that is being written. Its chunks go into meta packs.
#[derive(Default)]
pub(crate) struct MetaStream(StreamWriter);

impl MetaStream {
    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8], depot: &Depot<'_>) -> Result<(), Failed> {
        self.0.write(bytes, depot.keys().cutter(), &mut depot.meta_sink())
    }

    /// Ends the stream.
    pub(crate) fn finish(self, depot: &Depot<'_>) -> Result<Stream, Failed> {
        self.0.finish(depot.keys().cutter(), &mut depot.meta_sink())
    }
}

/// The listing of a folder that is being written: encoded entries, in the order of their names.
#[derive(Default)]
pub(crate) struct ListingBuilder {
    stream: MetaStream,
    /// Whether the version was written.
    begun: bool,
    /// The number of the next page.
    next: usize,
    /// Pages behind it.
    waiting: BTreeMap<usize, Vec<u8>>,
}

impl ListingBuilder {
    /// Adds one or more entries.
    pub(crate) fn push(&mut self, entries: &[u8], depot: &Depot<'_>) -> Result<(), Failed> {
        if !std::mem::replace(&mut self.begun, true) {
            self.stream.write(&[LISTING_VERSION], depot)?;
        }
        self.stream.write(entries, depot)
    }

    /// Adds a page of entries. Pages may be finished in any order, and are written in that of their numbers.
    pub(crate) fn put_page(&mut self, number: usize, entries: Vec<u8>, depot: &Depot<'_>) -> Result<(), Failed> {
        self.waiting.insert(number, entries);
        while let Some(entries) = self.waiting.remove(&self.next) {
            self.push(&entries, depot)?;
            self.next += 1;
        }
        Ok(())
    }

    /// Number of pages that were written.
    pub(crate) const fn pages(&self) -> usize {
        self.next
    }

    /// Ends the listing.
    pub(crate) fn finish(mut self, depot: &Depot<'_>) -> Result<Stream, Failed> {
        self.push(&[], depot)?;
        self.stream.finish(depot)
    }
}

/// Stores the listing of a folder with these encoded entries.
pub(crate) fn store_listing(
    entries: impl IntoIterator<Item = impl AsRef<[u8]>>,
    depot: &Depot<'_>,
) -> Result<Stream, Failed> {
    let mut listing = ListingBuilder::default();
    entries.into_iter().try_for_each(|entry| listing.push(entry.as_ref(), depot))?;
    listing.finish(depot)
}

/// Stores the groups of paths that are names of one file (SPEC §7.4).
pub(crate) fn store_links(groups: impl Iterator<Item = Vec<Vec<u8>>>, depot: &Depot<'_>) -> Result<Stream, Failed> {
    let mut groups: Vec<Vec<Vec<u8>>> = groups.filter(|paths| paths.len() > 1).collect();
    for paths in &mut groups {
        paths.sort_unstable();
    }
    groups.sort_unstable();
    let mut stream = MetaStream::default();
    for paths in groups {
        let mut bytes = Vec::new();
        varint::put(&mut bytes, paths.len() as u64);
        for path in paths {
            varint::put(&mut bytes, path.len() as u64);
            bytes.extend_from_slice(&path);
        }
        stream.write(&bytes, depot)?;
    }
    stream.finish(depot)
}

/// The skipped files: the first ones for the report, all of them as a stream.
#[derive(Default)]
pub(crate) struct SkippedList {
    /// The first ones.
    pub(crate) first: Vec<Skipped>,
    /// Number of skipped files.
    pub(crate) count: u64,
    /// All of them.
    pub(crate) stream: MetaStream,
}

impl SkippedList {
    /// Adds to the list.
    pub(crate) fn push(&mut self, skipped: Skipped, depot: &Depot<'_>) {
        let mut bytes = Vec::new();
        let encoded =
            serde::Serialize::serialize(&skipped, &mut rmp_serde::Serializer::new(&mut bytes).with_struct_map());
        if encoded.is_ok() {
            // A failed store ends the run elsewhere.
            let _ = self.stream.write(&bytes, depot);
            self.count += 1;
        }
        if self.first.len() < SKIPPED_SHOWN {
            self.first.push(skipped);
        }
    }
}
