//! A stream with nested lists of ids, over chunks of any content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::id::ChunkId;
use vault::tree::{ChunkSource, IdReader, Stream, StreamError, StreamReader};

/// The chunk of an id is a part of the input.
struct Chunks<'a> {
    bytes: &'a [u8],
    reads: usize,
}

impl ChunkSource for Chunks<'_> {
    type Error = StreamError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, StreamError> {
        self.reads += 1;
        if self.reads > 10_000 {
            return Err(StreamError::Malformed("enough for a test"));
        }
        let (at, len) = (usize::from(id.as_bytes()[0]), usize::from(id.as_bytes()[1]));
        let end = (at + len).min(self.bytes.len());
        self.bytes.get(at..end).map(<[u8]>::to_vec).ok_or(StreamError::Malformed("there is no such chunk"))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [depth, len, count, rest @ ..] = bytes else { return };
    let ids = rest.chunks_exact(16).take(usize::from(*count)).filter_map(ChunkId::from_slice).collect();
    let stream = Stream { len: u64::from(*len) * 7, depth: *depth % 6, ids };
    if !stream.is_valid() {
        return;
    }
    let mut ids = IdReader::new(&stream);
    let mut source = Chunks { bytes: rest, reads: 0 };
    while let Ok(Some(_)) = ids.next(&mut source) {
        source.reads += 1;
        if source.reads > 10_000 {
            break;
        }
    }
    let mut reader = StreamReader::new(&stream);
    let mut source = Chunks { bytes: rest, reads: 0 };
    let mut read = 0;
    let ended = loop {
        match reader.next(&mut source) {
            Ok(Some(bytes)) => read += bytes.len() as u64,
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    assert!(read <= stream.len && (!ended || read == stream.len), "a stream is as long as it says");
});
