//! A regular file of a snapshot, read from any byte on, by many threads.

use std::sync::{Arc, Mutex};

use crate::id::ChunkId;
use crate::read::chunked::{Chunked, Chunks};
use crate::read::sparse::take;
use crate::sync::lock;
use crate::tree::{Entry, FileKind, Holes, StreamError};
use crate::vault::ReadError;

/// Number of consecutive holes that are looked up together.
const RUNS: usize = 512;
/// Bytes of a list of holes that are read at once: more than the numbers of one group take.
const BLOCK: usize = RUNS * 20;

/// A regular file of a snapshot.
#[derive(Debug)]
pub struct StoredFile {
    size: u64,
    /// The data between the holes.
    content: Chunked,
    content_len: u64,
    holes: Option<HoleMap>,
}

/// The holes of a file. As for a stream, only some offsets are remembered.
#[derive(Debug)]
struct HoleMap {
    list: List,
    known: Mutex<Known>,
}

#[derive(Debug)]
enum List {
    Inline(Vec<u8>),
    Stream(Chunked, u64),
}

#[derive(Debug)]
struct Known {
    /// Start of each group of runs.
    marks: Vec<Mark>,
    /// The group that was used last, by number.
    recent: Option<(usize, Arc<Vec<Run>>)>,
}

/// Start of a group of runs: in the list of holes, in the file, and in its content.
#[derive(Debug, Clone, Copy)]
struct Mark {
    byte: u64,
    at: u64,
    data: u64,
}

/// Consecutive bytes of data, perhaps none, up to the next hole or the end.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Offset in the file.
    at: u64,
    /// Offset in the content.
    data: u64,
    len: u64,
    /// End of the hole behind them.
    end: u64,
}

fn malformed(what: &'static str) -> ReadError {
    StreamError::Malformed(what).into()
}

impl StoredFile {
    /// The content of a regular file; `None` for anything else.
    pub fn new(entry: &Entry) -> Option<Self> {
        let content = entry.content.as_ref().filter(|_| entry.kind == FileKind::File)?;
        let list = entry.holes.as_ref().map(|holes| match holes {
            Holes::Inline(bytes) => List::Inline(bytes.clone()),
            Holes::Stream(stream) => List::Stream(Chunked::new(stream), stream.len),
        });
        let first = Mark { byte: 0, at: 0, data: 0 };
        let known = || Mutex::new(Known { marks: vec![first], recent: None });
        let holes = list.map(|list| HoleMap { list, known: known() });
        Some(Self { size: entry.size, content: Chunked::new(content), content_len: content.len, holes })
    }

    /// Its length with its holes, in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads from a byte on, until `out` is full; holes are zeros. Returns the number of bytes: less only at the end.
    ///
    /// # Errors
    /// If a part of the range cannot be read, or the file contradicts itself.
    pub fn read_at(&self, chunks: &dyn Chunks, offset: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        let len = self.size.saturating_sub(offset).min(out.len() as u64) as usize;
        let out = &mut out[..len];
        let Some(holes) = &self.holes else {
            return match self.content.read_at(offset, out, chunks)? {
                read if read == len => Ok(len),
                _ => Err(malformed("a file has less content than room for it")),
            };
        };
        out.fill(0);
        let end = offset + len as u64;
        holes.for_each_from(self, offset, chunks, |run| {
            let (from, to) = (run.at.max(offset), (run.at + run.len).min(end));
            if from < to {
                let part = &mut out[(from - offset) as usize..(to - offset) as usize];
                if self.content.read_at(run.data + (from - run.at), part, chunks)? < part.len() {
                    return Err(malformed("a file has less content than room for it"));
                }
            }
            Ok(run.end < end)
        })?;
        Ok(len)
    }

    /// The first byte of data from here on; `None` if only a hole is left.
    ///
    /// # Errors
    /// If the list of holes cannot be read.
    pub fn next_data(&self, chunks: &dyn Chunks, offset: u64) -> Result<Option<u64>, ReadError> {
        if offset >= self.size {
            return Ok(None);
        }
        let Some(holes) = &self.holes else { return Ok(Some(offset)) };
        let mut found = None;
        holes.for_each_from(self, offset, chunks, |run| {
            if run.len > 0 && offset < run.at + run.len {
                found = Some(run.at.max(offset));
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }

    /// The first byte of a hole from here on; the end of the file counts as one. `None` behind the end.
    ///
    /// # Errors
    /// If the list of holes cannot be read.
    pub fn next_hole(&self, chunks: &dyn Chunks, offset: u64) -> Result<Option<u64>, ReadError> {
        if offset >= self.size {
            return Ok(None);
        }
        let Some(holes) = &self.holes else { return Ok(Some(self.size)) };
        let mut found = None;
        holes.for_each_from(self, offset, chunks, |run| {
            if offset < run.end {
                found = Some(offset.max(run.at + run.len));
            }
            Ok(found.is_none())
        })?;
        Ok(Some(found.unwrap_or(self.size)))
    }

    /// Calls `each` with the chunks of the content from a byte of the file on, and with the length of each. Stops when it
    /// returns `false`.
    ///
    /// # Errors
    /// If the lists of chunks or holes cannot be read.
    pub fn for_each_chunk(
        &self,
        chunks: &dyn Chunks,
        offset: u64,
        mut each: impl FnMut(&ChunkId, u64) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        let mut start = Some(offset).filter(|offset| *offset < self.size);
        if let (Some(holes), Some(_)) = (&self.holes, start) {
            start = None;
            holes.for_each_from(self, offset, chunks, |run| {
                let is_here = run.len > 0 && offset < run.at + run.len;
                start = start.or_else(|| is_here.then(|| run.data + offset.saturating_sub(run.at)));
                Ok(start.is_none())
            })?;
        }
        let Some(start) = start else { return Ok(()) };
        self.content.for_each_from(start, chunks, |id, start, end| each(id, end - start))
    }
}

impl HoleMap {
    fn bytes_at(&self, at: u64, chunks: &dyn Chunks) -> Result<(Vec<u8>, bool), ReadError> {
        match &self.list {
            List::Inline(bytes) => Ok((bytes[(at as usize).min(bytes.len())..].to_vec(), true)),
            List::Stream(stream, len) => {
                let mut bytes = vec![0; len.saturating_sub(at).min(BLOCK as u64) as usize];
                let read = stream.read_at(at, &mut bytes, chunks)?;
                bytes.truncate(read);
                Ok((bytes, at + read as u64 == *len))
            }
        }
    }

    /// A group of runs, and the start of the next one; `None` for the last.
    fn group(&self, mark: Mark, file: &StoredFile, chunks: &dyn Chunks) -> Result<(Vec<Run>, Option<Mark>), ReadError> {
        let (bytes, is_last) = self.bytes_at(mark.byte, chunks)?;
        let (mut used, mut at, mut data) = (0, mark.at, mark.data);
        let mut runs = Vec::new();
        let mut ended = false;
        while runs.len() < RUNS {
            let Some((distance, len)) = take(&bytes, &mut used)? else {
                if !is_last {
                    return Err(malformed("a list of holes is malformed"));
                }
                runs.push(Run { at, data, len: file.size - at, end: file.size });
                data += file.size - at;
                ended = true;
                break;
            };
            let start = at.checked_add(distance);
            let end = start.and_then(|start| start.checked_add(len)).filter(|end| len > 0 && *end <= file.size);
            let end = end.ok_or_else(|| malformed("a list of holes is malformed"))?;
            runs.push(Run { at, data, len: distance, end });
            (at, data) = (end, data + distance);
        }
        if data > file.content_len || (ended && data != file.content_len) {
            return Err(malformed("a file has another length of content than room for it"));
        }
        Ok((runs, (!ended).then_some(Mark { byte: mark.byte + used as u64, at, data })))
    }

    /// Calls `each` with the runs from the one on that has this byte, or that is followed by the hole with this byte.
    /// Stops when `each` returns `false`.
    fn for_each_from(
        &self,
        file: &StoredFile,
        offset: u64,
        chunks: &dyn Chunks,
        mut each: impl FnMut(Run) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        let mut number = {
            let known = lock(&self.known);
            known.marks.partition_point(|mark| mark.at <= offset).saturating_sub(1)
        };
        loop {
            let (mark, kept) = {
                let known = lock(&self.known);
                let Some(mark) = known.marks.get(number) else { return Ok(()) };
                (*mark, known.recent.as_ref().filter(|(other, _)| *other == number).map(|(_, runs)| runs.clone()))
            };
            let runs = if let Some(runs) = kept {
                runs
            } else {
                // Nothing is locked meanwhile: other threads may read the same, but wait for nothing.
                let (runs, next) = self.group(mark, file, chunks)?;
                let runs = Arc::new(runs);
                let mut known = lock(&self.known);
                if number + 1 == known.marks.len() {
                    known.marks.extend(next);
                }
                known.recent = Some((number, runs.clone()));
                runs
            };
            for run in runs.iter().filter(|run| run.end > offset) {
                if !each(*run)? {
                    return Ok(());
                }
            }
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::tests::{Memory, noise, write};
    use crate::tree::Stream;
    use crate::varint;

    /// A file with these holes, its expected content, and its chunks.
    fn file(size: usize, holes: &[(u64, u64)], inline: bool) -> (StoredFile, Vec<u8>, Memory) {
        let mut memory = Memory::default();
        let (mut list, mut whole, mut content) = (Vec::new(), noise(size), Vec::new());
        let mut at = 0;
        for (distance, len) in holes {
            varint::put(&mut list, *distance);
            varint::put(&mut list, *len);
            let (start, end) = (at + *distance as usize, at + (distance + len) as usize);
            content.extend_from_slice(&whole[at..start]);
            whole[start..end].fill(0);
            at = end;
        }
        content.extend_from_slice(&whole[at..]);
        let mut entry = Entry::new(*b"f", FileKind::File);
        entry.size = size as u64;
        entry.content = Some(write(&content, &mut memory));
        entry.holes = Some(if inline { Holes::Inline(list) } else { Holes::Stream(write(&list, &mut memory)) });
        (StoredFile::new(&entry).unwrap(), whole, memory)
    }

    /// A length, holes as distances and lengths, and whether they are in the entry.
    type Case<'a> = (usize, &'a [(u64, u64)], bool);

    #[test]
    fn holes_read_as_zeros_and_are_found() {
        let many: Vec<(u64, u64)> = (0..3000).map(|n| (20 + n % 7, 30 + n % 11)).collect();
        let whole: u64 = many.iter().map(|(distance, len)| distance + len).sum();
        let cases: [Case<'_>; 6] = [
            (100_000, &[(10_000, 50_000)], true),
            (100_000, &[(0, 100_000)], true),
            (100_000, &[(0, 40_000), (0, 10_000), (50_000, 0x0)][..2], true),
            (100_000, &[(90_000, 10_000)], false),
            (whole as usize + 777, &many, false),
            (whole as usize, &many, false),
        ];
        for (size, holes, inline) in cases {
            let (file, data, memory) = file(size, holes, inline);
            for step in [1, 4096, 70_000] {
                let mut offset = 0;
                while offset < size + 5 {
                    let mut out = vec![7; step.max(64)];
                    let read = file.read_at(&memory, offset as u64, &mut out).unwrap();
                    let expected = &data[offset.min(size)..(offset + out.len()).min(size)];
                    assert_eq!(&out[..read], expected, "from {offset} of {size}");
                    offset += step.max(997);
                }
            }
            let mut at = 0;
            let mut found = Vec::new();
            while let Some(start) = file.next_data(&memory, at).unwrap() {
                at = file.next_hole(&memory, start).unwrap().unwrap();
                assert!(start < at);
                found.push((start, at));
            }
            let mut expected: Vec<(u64, u64)> = Vec::new();
            let mut at = 0;
            for (distance, len) in holes.iter().copied().chain([(size as u64, 0)]) {
                let end = (at + distance).min(size as u64);
                if end > at {
                    expected.push((at, end));
                }
                at = end + len;
            }
            assert_eq!(found, expected, "{size} bytes");
            assert_eq!(file.next_hole(&memory, size as u64).unwrap(), None);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let (_, _, mut memory) = file(10, &[], true);
        let content = write(&noise(50), &mut memory);
        let refused = |size: u64, pairs: &[u64], content: &Stream| {
            let mut entry = Entry::new(*b"f", FileKind::File);
            let mut list = Vec::new();
            pairs.iter().for_each(|number| varint::put(&mut list, *number));
            (entry.size, entry.content, entry.holes) = (size, Some(content.clone()), Some(Holes::Inline(list)));
            let file = StoredFile::new(&entry).unwrap();
            let mut out = vec![0; 200];
            assert!(file.read_at(&memory, 0, &mut out).is_err(), "{size} {pairs:?}");
            assert!(file.next_hole(&memory, size - 1).is_err() || pairs.len() == 2, "{size} {pairs:?}");
        };
        refused(100, &[10, 0], &content);
        refused(100, &[10, 91], &content);
        refused(100, &[10, 40], &content);
        refused(100, &[60, 40], &content);
        refused(100, &[10], &content);
        refused(100, &[u64::MAX, u64::MAX], &content);
    }
}
