//! Random access to a stream (SPEC §6). The format does not record the offset of a chunk in its stream: it follows from
//! the lengths of the chunks before it, which the catalogue knows. Only some offsets are remembered, so that memory
//! stays small for streams of any length.

use std::sync::{Arc, Mutex};

use crate::id::ChunkId;
use crate::read::View;
use crate::sync::lock;
use crate::tree::stream::ids_from_bytes;
use crate::tree::{Stream, StreamError};
use crate::vault::ReadError;

/// A source of chunks, in any order and for many threads.
pub trait Chunks: Sync {
    /// The length of a chunk, in bytes.
    ///
    /// # Errors
    /// If it is lost.
    fn len_of(&self, id: &ChunkId) -> Result<u32, ReadError>;

    /// Calls `use_it` with the bytes of a chunk.
    ///
    /// # Errors
    /// If it cannot be read.
    fn with(&self, id: &ChunkId, use_it: &mut dyn FnMut(&[u8])) -> Result<(), ReadError>;

    /// Reports that lengths do not add up: their source may be wrong.
    fn distrust(&self);
}

impl Chunks for View {
    fn len_of(&self, id: &ChunkId) -> Result<u32, ReadError> {
        Ok(self.place(id)?.len)
    }

    fn with(&self, id: &ChunkId, use_it: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        use_it(self.chunk(id)?.bytes());
        Ok(())
    }

    fn distrust(&self) {
        Self::distrust(self);
    }
}

/// Number of consecutive chunks that are looked up together.
const SPAN: usize = 512;
/// Number of spans that are remembered.
const SPANS_KEPT: usize = 2;

/// A stream that can be read from any byte on.
#[derive(Debug)]
pub struct Chunked {
    /// The ids of the chunks, if there are few.
    ids: Vec<ChunkId>,
    /// The list of ids, if it is a stream of its own.
    list: Option<Box<Self>>,
    /// The length. For a list it is unknown until its end is read.
    len: Option<u64>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// Offset of each span, as far as known.
    starts: Vec<u64>,
    /// The spans that were used last, by number.
    recent: Vec<(usize, Arc<Span>)>,
}

/// Some consecutive chunks.
#[derive(Debug)]
struct Span {
    ids: Vec<ChunkId>,
    /// End of each chunk in the stream.
    ends: Vec<u64>,
    /// Whether the span has fewer chunks than it should, because the rest is damaged.
    is_cut: bool,
}

impl Known {
    /// The last span of known start that may have this byte: its number, its start, and the span if it was used lately.
    /// One that must be `whole` is not one that was cut.
    fn span_of(&mut self, offset: u64, whole: bool) -> (usize, u64, Option<Arc<Span>>) {
        let number = self.starts.partition_point(|start| *start <= offset) - 1;
        let kept = self.recent.iter().position(|(other, span)| *other == number && !(whole && span.is_cut));
        let span = kept.map(|at| {
            self.recent[..=at].rotate_right(1);
            self.recent[0].1.clone()
        });
        (number, self.starts[number], span)
    }

    /// Remembers a span. If it is complete, the start of the next one is known from then on.
    fn keep(&mut self, number: usize, span: &Arc<Span>) {
        let end = span.ends.last().filter(|_| span.ids.len() == SPAN && !span.is_cut);
        if number + 1 == self.starts.len() {
            self.starts.extend(end);
        }
        self.recent.retain(|(other, _)| *other != number);
        self.recent.insert(0, (number, span.clone()));
        self.recent.truncate(SPANS_KEPT);
    }
}

fn malformed(what: &'static str) -> ReadError {
    StreamError::Malformed(what).into()
}

impl Chunked {
    /// Reads this stream.
    pub fn new(stream: &Stream) -> Self {
        Self::at_depth(&stream.ids, stream.depth, Some(stream.len))
    }

    fn at_depth(ids: &[ChunkId], depth: u8, len: Option<u64>) -> Self {
        let known = Known { starts: vec![0], recent: Vec::new() };
        let list = depth.checked_sub(1).map(|depth| Box::new(Self::at_depth(ids, depth, None)));
        let ids = if list.is_none() { ids.to_vec() } else { Vec::new() };
        Self { ids, list, len, known: Mutex::new(known) }
    }

    /// The ids of a span's chunks, and the error if there is one: fewer than [`SPAN`] at the end of the stream, or
    /// where the list cannot be read further.
    fn ids(&self, number: usize, chunks: &dyn Chunks) -> Result<(Vec<ChunkId>, Result<(), ReadError>), ReadError> {
        let Some(list) = &self.list else {
            let rest = self.ids.get(number * SPAN..).unwrap_or_default();
            return Ok((rest[..rest.len().min(SPAN)].to_vec(), Ok(())));
        };
        let mut bytes = vec![0; SPAN * ChunkId::LEN];
        let mut len = 0;
        let read = list.read_part((number * SPAN * ChunkId::LEN) as u64, &mut bytes, &mut len, chunks);
        if read.is_err() {
            len -= len % ChunkId::LEN;
        }
        Ok((ids_from_bytes(&bytes[..len])?, read))
    }

    /// Reads a span from its start in the stream. It ends before damaged parts, unless it must be `whole`.
    fn read_span(&self, number: usize, start: u64, whole: bool, chunks: &dyn Chunks) -> Result<Span, ReadError> {
        let may_pass = |error: &ReadError| !whole && error.is_contained();
        let (mut ids, read) = self.ids(number, chunks)?;
        let mut is_cut = match read {
            Err(error) if !may_pass(&error) => return Err(error),
            read => read.is_err(),
        };
        let mut end = start;
        let mut ends = Vec::with_capacity(ids.len());
        for id in &ids {
            let len = match chunks.len_of(id) {
                Ok(len) => u64::from(len),
                Err(error) if may_pass(&error) => {
                    is_cut = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            if len == 0 {
                chunks.distrust();
                return Err(malformed("a chunk of it is empty"));
            }
            end += len;
            ends.push(end);
            if self.len.is_some_and(|len| end > len) {
                chunks.distrust();
                return Err(malformed("it is longer than it says"));
            }
        }
        ids.truncate(ends.len());
        if ids.len() < SPAN && !is_cut && self.len.is_some_and(|len| end != len) {
            chunks.distrust();
            return Err(malformed("it is shorter than it says"));
        }
        Ok(Span { ids, ends, is_cut })
    }

    /// The span with this byte, and the number of the chunk in it that has the byte. `None` behind the end.
    fn find(&self, offset: u64, chunks: &dyn Chunks) -> Result<Option<(usize, Arc<Span>, usize)>, ReadError> {
        let mut whole = false;
        loop {
            let (number, start, kept) = lock(&self.known).span_of(offset, whole);
            let span = if let Some(span) = kept {
                span
            } else {
                // Nothing is locked meanwhile: other threads may read the same, but wait for nothing.
                let span = Arc::new(self.read_span(number, start, whole, chunks)?);
                lock(&self.known).keep(number, &span);
                span
            };
            let index = span.ends.partition_point(|end| *end <= offset);
            if index < span.ids.len() {
                return Ok(Some((number, span, index)));
            }
            // The wanted byte is in the unreadable part.
            whole = span.is_cut;
            if !whole && span.ids.len() < SPAN {
                return Ok(None);
            }
        }
    }

    /// Calls `each` with the chunks from this byte on: the id, the start and the end. Stops when `each` returns
    /// `false`.
    ///
    /// # Errors
    /// If the list of chunks cannot be read, a chunk is lost, or the lengths do not add up to the stream's.
    pub fn for_each_from(
        &self,
        offset: u64,
        chunks: &dyn Chunks,
        mut each: impl FnMut(&ChunkId, u64, u64) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        if self.len.is_some_and(|len| offset >= len) {
            return Ok(());
        }
        let mut at = offset;
        while let Some((number, span, first)) = self.find(at, chunks)? {
            let mut start = match first.checked_sub(1) {
                Some(before) => span.ends[before],
                None => lock(&self.known).starts[number],
            };
            for (id, end) in span.ids[first..].iter().zip(&span.ends[first..]) {
                if !each(id, start, *end)? {
                    return Ok(());
                }
                start = *end;
            }
            at = start;
        }
        Ok(())
    }

    /// Reads from a byte on, until `out` is full. Returns the number of bytes: less only at the end.
    ///
    /// # Errors
    /// As [`Self::for_each_from`], or if a chunk cannot be read.
    pub fn read_at(&self, offset: u64, out: &mut [u8], chunks: &dyn Chunks) -> Result<usize, ReadError> {
        let mut done = 0;
        self.read_part(offset, out, &mut done, chunks).map(|()| done)
    }

    /// As [`Self::read_at`]; `done` is the number of bytes read, even if the rest cannot be.
    fn read_part(&self, offset: u64, out: &mut [u8], done: &mut usize, chunks: &dyn Chunks) -> Result<(), ReadError> {
        if out.is_empty() {
            return Ok(());
        }
        self.for_each_from(offset, chunks, |id, start, end| {
            let mut contradicts = false;
            chunks.with(id, &mut |bytes| {
                // The read may begin inside the first chunk.
                let skip = (offset + *done as u64 - start) as usize;
                // The offsets of all later chunks follow from this length.
                let is_so = bytes.len() as u64 == end - start;
                let Some(bytes) = bytes.get(skip..).filter(|_| is_so) else {
                    contradicts = true;
                    return;
                };
                let len = bytes.len().min(out.len() - *done);
                out[*done..*done + len].copy_from_slice(&bytes[..len]);
                *done += len;
            })?;
            if contradicts {
                chunks.distrust();
                Err(malformed("a chunk has another length than the catalogue says"))
            } else {
                Ok(*done < out.len())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::read::tests::{Memory, noise, write};
    use crate::tree::stream::ChunkSink;

    #[test]
    fn every_byte_is_where_it_was_written() {
        for (len, depth) in [(0, 0), (1, 0), (10_000, 0), (60_000, 1), (3_000_000, 2)] {
            let (data, mut memory) = (noise(len), Memory::default());
            let stream = write(&data, &mut memory);
            assert_eq!(stream.depth, depth);
            let chunked = Chunked::new(&stream);
            let mut dice = blake3::Hasher::new().update(&(len as u64).to_le_bytes()).finalize_xof();
            let mut throw = |bound: usize| {
                let mut bytes = [0; 8];
                dice.fill(&mut bytes);
                usize::try_from(u64::from_le_bytes(bytes) % (bound as u64 + 1)).unwrap()
            };
            for _ in 0..200 {
                let (offset, room) = (throw(len + 10), throw(5000));
                let mut out = vec![7; room];
                let read = chunked.read_at(offset as u64, &mut out, &memory).unwrap();
                let expected = &data[offset.min(len)..(offset + room).min(len)];
                assert_eq!(read, expected.len(), "{room} bytes from {offset} of {len}");
                assert_eq!(&out[..read], expected, "{room} bytes from {offset} of {len}");
            }
            assert_eq!(chunked.read_at(u64::MAX, &mut [0], &memory).unwrap(), 0);
        }
    }

    #[test]
    fn what_is_read_is_not_what_lies_before_it() {
        let (data, mut memory) = (noise(3_000_000), Memory::default());
        let chunked = Chunked::new(&write(&data, &mut memory));
        let mut out = [0; 10];
        chunked.read_at(2_900_000, &mut out, &memory).unwrap();
        let whole = memory.chunks.len() as u64;
        let asked = memory.asked.swap(0, Relaxed);
        assert!(asked * 4 < whole, "only lists are read on the way: {asked} of {whole} chunks");
        chunked.read_at(2_900_005, &mut out, &memory).unwrap();
        assert!(memory.asked.swap(0, Relaxed) <= 2, "the offsets are remembered");
    }

    #[test]
    fn what_lies_before_a_lost_chunk_is_read() {
        // One of many chunks, and one of the list of chunks.
        for (len, depth, from_list) in [(60_000, 1, false), (3_000_000, 2, false), (3_000_000, 2, true)] {
            let (data, mut memory) = (noise(len), Memory::default());
            let stream = write(&data, &mut memory);
            assert_eq!(stream.depth, depth);
            let list = Stream { len: 0, depth: depth - 1, ids: stream.ids.clone() };
            let list = Chunked::at_depth(&list.ids, list.depth, None);
            let mut ids = vec![0; 3 * len];
            let count = list.read_at(0, &mut ids, &memory).unwrap() / ChunkId::LEN;
            let id = |number: usize| ChunkId::from_slice(&ids[number * ChunkId::LEN..][..ChunkId::LEN]).unwrap();
            let start_of = |number: usize| (0..number).map(|at| memory.chunks[&id(at)].len()).sum::<usize>();
            let (lost, first) = if from_list {
                // Each chunk of the bottom list holds some ids.
                let inner = Chunked::at_depth(&stream.ids, depth - 2, None);
                let mut bytes = vec![0; 16];
                inner.read_at(16 * 20, &mut bytes, &memory).unwrap();
                let lost = ChunkId::from_slice(&bytes).unwrap();
                let before: usize = {
                    let mut all = vec![0; 16 * 20];
                    inner.read_at(0, &mut all, &memory).unwrap();
                    ids_from_bytes(&all).unwrap().iter().map(|id| memory.chunks[id].len()).sum()
                };
                (lost, before / ChunkId::LEN)
            } else {
                (id(count / 2), count / 2)
            };
            let readable = start_of(first);
            let kept = memory.chunks.remove(&lost).unwrap();
            let chunked = Chunked::new(&stream);
            let mut out = vec![0; readable];
            assert_eq!(chunked.read_at(0, &mut out, &memory).unwrap(), readable, "{len} bytes");
            assert!(out == data[..readable]);
            for _ in 0..2 {
                let read = chunked.read_at(readable as u64, &mut [0; 10], &memory);
                assert!(matches!(read, Err(ReadError::Lost(id)) if id == lost), "{len} bytes");
            }
            // Once it is found again, everything can be read.
            memory.chunks.insert(lost, kept);
            let mut out = vec![0; len];
            assert_eq!(chunked.read_at(0, &mut out, &memory).unwrap(), len);
            assert!(out == data, "{len} bytes");
        }
    }

    #[test]
    fn lengths_that_are_not_true_are_found_out() {
        let (data, mut memory) = (noise(10_000), Memory::default());
        let stream = write(&data, &mut memory);
        assert_eq!(stream.depth, 0);
        // One chunk claims too much and the next too little, so that the sum is right.
        for (number, more) in [(3, true), (3, false)] {
            let [one, other] = [number, number + 1].map(|at| stream.ids[at]);
            let len = |id| memory.chunks[id].len() as u32;
            let (longer, shorter) = if more { (one, other) } else { (other, one) };
            memory.lens = HashMap::from([(longer, len(&longer) + 9), (shorter, len(&shorter) - 9)]);
            let start: usize = stream.ids[..number].iter().map(|id| memory.chunks[id].len()).sum();
            let chunked = Chunked::new(&stream);
            let mut out = vec![0; start];
            assert_eq!(chunked.read_at(0, &mut out, &memory).unwrap(), start);
            assert!(out == data[..start]);
            assert!(chunked.read_at(0, &mut vec![0; 10_000], &memory).is_err(), "{number} {more}");
            let end = start + memory.chunks[&one].len();
            assert!(chunked.read_at(end as u64 + 10, &mut [0; 10], &memory).is_err(), "in the next chunk");
            assert!(memory.distrusted.swap(0, Relaxed) > 0);
        }
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let mut memory = Memory::default();
        for len in [5_000, 60_000, 700_000] {
            let stream = write(&noise(len), &mut memory);
            for other in [len as u64 - 1, len as u64 + 1, 1] {
                let chunked = Chunked::new(&Stream { len: other, ..stream.clone() });
                let mut out = vec![0; len + 10];
                assert!(chunked.read_at(0, &mut out, &memory).is_err(), "{other} instead of {len}");
            }
        }
        let stream = write(&noise(60_000), &mut memory);
        let odd = ChunkSink::put_chunk(&mut memory, &[1; 17]).unwrap();
        let chunked = Chunked::new(&Stream { ids: vec![odd], ..stream.clone() });
        assert!(chunked.read_at(0, &mut [0; 100], &memory).is_err(), "a list of one id and a half");
        memory.chunks.remove(&stream.ids[0]);
        assert!(Chunked::new(&stream).read_at(0, &mut [0; 100], &memory).is_err(), "the list is lost");
        let empty = ChunkSink::put_chunk(&mut memory, &[]).unwrap();
        let chunked = Chunked::new(&Stream { len: 1, depth: 0, ids: vec![empty] });
        assert!(chunked.read_at(0, &mut [0; 100], &memory).is_err(), "an empty chunk");
    }
}
