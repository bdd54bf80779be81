//! Listings of folders, a page at a time: by name, and by number. The pages that were used last are cached by listing
//! and not by path, so that snapshots that share a folder share its pages.

use std::mem::size_of;
use std::sync::{Arc, Mutex};

use crate::id::StreamKey;
use crate::lru::Lru;
use crate::read::chunked::{Chunked, Chunks};
use crate::read::listing::EntryDecoder;
use crate::sync::lock;
use crate::tree::stream::stream_key;
use crate::tree::{Entry, Holes, Stream};
use crate::vault::ReadError;

/// Most entries of a page.
const PAGE: usize = 512;
/// A page is also full from this many bytes on.
const PAGE_LEN: u64 = 1 << 20;
/// Bytes of a listing that are read at once.
const BLOCK: u64 = 64 << 10;
/// Number of folders whose page starts are remembered.
const FOLDERS_KEPT: usize = 4096;

/// Cache of the folders that were read last, for many threads.
#[derive(Debug)]
pub struct Folders {
    known: Mutex<Lru<StreamKey, Arc<Folder>>>,
    pages: Mutex<Lru<(StreamKey, usize), Arc<Page>>>,
}

#[derive(Debug)]
struct Folder {
    key: StreamKey,
    listing: Chunked,
    len: u64,
    starts: Mutex<Starts>,
}

#[derive(Debug)]
struct Starts {
    /// Start of each page, as far as known.
    pages: Vec<Start>,
}

impl Starts {
    /// The last page of known start for which this holds, or the first one: its number and its start.
    fn last(&self, is_before: impl Fn(&Start) -> bool) -> (usize, Start) {
        let number = self.pages.partition_point(is_before).saturating_sub(1);
        (number, self.pages[number].clone())
    }
}

/// Start of a page: the offset in the listing, the name before it, and the number of its first entry.
#[derive(Debug, Clone)]
struct Start {
    at: u64,
    behind: Vec<u8>,
    first: u64,
}

/// Some consecutive entries of a folder.
#[derive(Debug)]
pub struct Page {
    /// Number of the first entry in its folder.
    pub first: u64,
    /// The entries, in the order of their names.
    pub entries: Vec<Arc<Entry>>,
    /// Start of the next page; `None` for the last one. It is stored in the page, which may be cached longer than its
    /// folder.
    next: Option<Start>,
}

/// The approximate memory that an entry takes.
fn weight(entry: &Entry) -> usize {
    let stream = |stream: &Stream| 16 * stream.ids.len() + 16;
    let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len() + 96).sum();
    let texts = [&entry.name, &entry.target, &entry.owner.user, &entry.owner.group];
    let texts: usize = texts.iter().filter(|text| !text.is_empty()).map(|text| text.len() + 24).sum();
    let holes = entry.holes.as_ref().map_or(0, |holes| match holes {
        Holes::Inline(pairs) => pairs.len() + 24,
        Holes::Stream(list) => stream(list),
    });
    size_of::<Entry>() + 24 + texts + xattrs + holes + entry.content.as_ref().map_or(0, stream)
}

impl Folders {
    /// A cache for pages of this many bytes in all.
    pub fn new(bytes: usize) -> Self {
        Self::with(bytes, FOLDERS_KEPT)
    }

    /// As [`Self::new`], with a cache for the page starts of this many folders.
    fn with(bytes: usize, folders: usize) -> Self {
        Self { known: Mutex::new(Lru::new(folders)), pages: Mutex::new(Lru::new(bytes)) }
    }

    /// Forgets all pages. They are read again when they are asked for.
    pub fn forget(&self) {
        lock(&self.known).clear();
        lock(&self.pages).clear();
    }

    fn folder(&self, listing: &Stream) -> Arc<Folder> {
        let key = stream_key(listing);
        let mut known = lock(&self.known);
        if let Some(folder) = known.get(&key) {
            return folder;
        }
        let first = Start { at: 0, behind: Vec::new(), first: 0 };
        let folder = Arc::new(Folder {
            key,
            listing: Chunked::new(listing),
            len: listing.len,
            starts: Mutex::new(Starts { pages: vec![first] }),
        });
        // A long one weighs as much as many short ones, because it remembers the starts of its pages.
        known.insert(key, folder.clone(), 1 + usize::try_from(listing.len / PAGE_LEN).unwrap_or(FOLDERS_KEPT));
        folder
    }

    /// A page from its start. The start of the next one is known from then on.
    fn page(&self, folder: &Folder, number: usize, start: Start, chunks: &dyn Chunks) -> Result<Arc<Page>, ReadError> {
        let kept = lock(&self.pages).get(&(folder.key, number));
        let page = match kept {
            Some(page) => page,
            // Nothing is locked meanwhile: other threads may read the same, but wait for nothing.
            None => self.read_page(folder, number, start, chunks)?,
        };
        let mut starts = lock(&folder.starts);
        if number + 1 == starts.pages.len() {
            starts.pages.extend(page.next.clone());
        }
        Ok(page)
    }

    fn read_page(
        &self,
        folder: &Folder,
        number: usize,
        start: Start,
        chunks: &dyn Chunks,
    ) -> Result<Arc<Page>, ReadError> {
        let Start { mut at, behind, first } = start;
        let begin = at;
        let mut decoder = if number == 0 { EntryDecoder::default() } else { EntryDecoder::behind(behind) };
        let (mut entries, mut bytes, mut ended) = (Vec::new(), 0, at >= folder.len);
        while entries.len() < PAGE && decoder.taken() < PAGE_LEN {
            if let Some(entry) = decoder.next(ended)? {
                bytes += weight(&entry);
                entries.push(Arc::new(entry));
                continue;
            }
            if ended {
                break;
            }
            let mut block = vec![0; (folder.len - at).min(BLOCK) as usize];
            let read = folder.listing.read_at(at, &mut block, chunks)?;
            decoder.push(&block[..read]);
            at += read as u64;
            ended = at >= folder.len || read == 0;
        }
        let taken = begin + decoder.taken();
        let next = (taken < folder.len).then(|| Start {
            at: taken,
            behind: decoder.last().to_vec(),
            first: first + entries.len() as u64,
        });
        let page = Arc::new(Page { first, entries, next });
        lock(&self.pages).insert((folder.key, number), page.clone(), bytes + 128);
        Ok(page)
    }

    /// The page with the entry of this number; `None` behind the last one.
    ///
    /// # Errors
    /// If the listing cannot be read, or is not valid.
    pub fn page_with(&self, chunks: &dyn Chunks, listing: &Stream, entry: u64) -> Result<Option<Arc<Page>>, ReadError> {
        let folder = self.folder(listing);
        loop {
            let (number, start) = lock(&folder.starts).last(|start| start.first <= entry);
            let page = self.page(&folder, number, start, chunks)?;
            if entry - page.first < page.entries.len() as u64 {
                return Ok(Some(page));
            }
            if page.next.is_none() {
                return Ok(None);
            }
        }
    }

    /// The entry of this name.
    ///
    /// # Errors
    /// If the listing cannot be read, or is not valid.
    pub fn entry(&self, chunks: &dyn Chunks, listing: &Stream, name: &[u8]) -> Result<Option<Arc<Entry>>, ReadError> {
        let folder = self.folder(listing);
        loop {
            let (number, start) = lock(&folder.starts).last(|start| start.behind.as_slice() < name);
            let page = self.page(&folder, number, start, chunks)?;
            match (page.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)), &page.next) {
                (Ok(at), _) => return Ok(Some(page.entries[at].clone())),
                (Err(at), _) if at < page.entries.len() => return Ok(None),
                // It is behind the known part of the folder, or behind the last name of this page.
                (Err(_), Some(next)) if next.behind.as_slice() < name => {}
                (Err(_), _) => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::tests::{Memory, write};
    use crate::tree::FileKind;
    use crate::tree::encode_entry;
    use crate::tree::entry::LISTING_VERSION;

    /// A listing of `count` files, with names of different lengths.
    fn listing(count: usize, memory: &mut Memory) -> (Stream, Vec<Vec<u8>>) {
        let names: Vec<Vec<u8>> = (0..count).map(|n| format!("{n:06}{}", "x".repeat(n % 50)).into_bytes()).collect();
        let mut bytes = vec![LISTING_VERSION];
        for name in &names {
            let mut entry = Entry::new(name.clone(), FileKind::File);
            entry.content = Some(Stream::EMPTY);
            encode_entry(&entry, &mut bytes).unwrap();
        }
        (if count == 0 { Stream::EMPTY } else { write(&bytes, memory) }, names)
    }

    #[test]
    fn entries_are_found_by_name_and_by_number() {
        for count in [0, 1, 511, 512, 513, 5000] {
            let mut memory = Memory::default();
            let (stream, names) = listing(count, &mut memory);
            // With a cache for all, and for one page.
            for bytes in [64 << 20, 1] {
                let folders = Folders::new(bytes);
                let last = names.last().map(|name| [name.as_slice(), b"y"].concat());
                for name in [&b"!"[..], b"000101", b"zzz", &last.unwrap_or_default()] {
                    assert!(folders.entry(&memory, &stream, name).unwrap().is_none(), "{count} entries");
                }
                for at in [0, 1, 100, 511, 512, 513, 1024, 4999, 3] {
                    let page = folders.page_with(&memory, &stream, at as u64).unwrap();
                    let found = page.map(|page| page.entries[at - page.first as usize].name.clone());
                    assert_eq!(found.as_ref(), names.get(at), "number {at} of {count}");
                    if let Some(name) = names.get(at) {
                        let found = folders.entry(&memory, &stream, name).unwrap().unwrap();
                        assert_eq!(&found.name, name, "{count} entries");
                        let between = [name.as_slice(), b"\0"].concat();
                        assert!(folders.entry(&memory, &stream, &between).unwrap().is_none());
                    }
                }
                let folders = Folders::new(bytes);
                let mut all = Vec::new();
                while let Some(page) = folders.page_with(&memory, &stream, all.len() as u64).unwrap() {
                    all.extend(page.entries.iter().map(|entry| entry.name.clone()));
                }
                assert_eq!(all, names);
            }
        }
    }

    #[test]
    fn pages_outlive_what_is_known_of_their_folder() {
        let mut memory = Memory::default();
        let (long, names) = listing(2000, &mut memory);
        let (short, _) = listing(3, &mut memory);
        // One folder is remembered at a time, while all pages are kept.
        let folders = Folders::with(64 << 20, 1);
        for at in [0, 600, 0, 1999, 1200] {
            let page = folders.page_with(&memory, &long, at).unwrap().unwrap();
            assert_eq!(page.entries[(at - page.first) as usize].name, names[at as usize]);
            folders.page_with(&memory, &short, 0).unwrap().unwrap();
            let found = folders.entry(&memory, &long, &names[at as usize]).unwrap();
            assert!(found.is_some_and(|entry| entry.name == names[at as usize]), "number {at}");
            folders.page_with(&memory, &short, 0).unwrap().unwrap();
        }
        assert!(folders.page_with(&memory, &long, 2000).unwrap().is_none());
    }

    #[test]
    fn what_is_forgotten_is_read_again() {
        let mut memory = Memory::default();
        let (stream, names) = listing(2000, &mut memory);
        let folders = Folders::new(64 << 20);
        let found = |memory: &Memory| folders.entry(memory, &stream, &names[1500]).map(|entry| entry.is_some());
        assert!(found(&memory).unwrap());
        let chunks = std::mem::take(&mut memory.chunks);
        assert!(found(&memory).unwrap(), "it is remembered");
        folders.forget();
        assert!(found(&memory).is_err());
        memory.chunks = chunks;
        assert!(found(&memory).unwrap());
    }

    #[test]
    fn a_folder_that_is_damaged_is_an_error() {
        let mut memory = Memory::default();
        let (stream, names) = listing(5000, &mut memory);
        let middle = stream.ids[stream.ids.len() / 2];
        memory.chunks.remove(&middle);
        let folders = Folders::new(1 << 20);
        assert!(folders.entry(&memory, &stream, &names[4000]).is_err());
        assert!(folders.page_with(&memory, &stream, 4000).is_err());
        let newer = write(&[LISTING_VERSION + 1, 0], &mut memory);
        assert!(folders.entry(&memory, &newer, b"a").unwrap_err().is_newer());
    }
}
