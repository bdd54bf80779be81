//! A listing that is cut into chunks at any position: it reads the same, wherever the cuts are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::id::ChunkId;
use vault::read::Listing;
use vault::tree::{ChunkSource, Entry, Stream};
use vault::vault::ReadError;

/// Chunks by their number.
struct Chunks<'a>(Vec<&'a [u8]>);

impl ChunkSource for Chunks<'_> {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        let index = usize::from(id.as_bytes()[0]);
        self.0.get(index).map(|bytes| bytes.to_vec()).ok_or(ReadError::Lost(*id))
    }
}

fn read(chunks: Vec<&[u8]>) -> (Vec<Entry>, bool) {
    let ids = (0..chunks.len()).map(|index| ChunkId::new([index as u8; 16])).collect();
    let len = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let mut listing = Listing::new(&Stream { len, depth: 0, ids });
    let (mut source, mut entries) = (Chunks(chunks), Vec::<Entry>::new());
    loop {
        match listing.next(&mut source) {
            Ok(Some(entry)) => {
                assert!(entries.last().is_none_or(|last| last.name < entry.name), "names are in order");
                entries.push(entry);
            }
            Ok(None) => return (entries, true),
            Err(_) => return (entries, false),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    if bytes.is_empty() {
        return;
    }
    let whole = read(vec![bytes]);
    let parts = read(bytes.chunks(bytes.len().div_ceil(usize::from(*cut % 60) + 1)).collect());
    assert_eq!(whole, parts);
});
