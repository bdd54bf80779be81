//! The layout of a content stream in a file with holes (SPEC §7.3).

use crate::read::records::Records;
use crate::tree::{ChunkSource, Entry, Holes, StreamError};
use crate::varint;

/// Longest encoding of one number.
const NUMBER_LEN_MAX: usize = 10;

/// Lays a content stream out between the holes of its file, front to back.
#[derive(Debug)]
pub(crate) struct Layout {
    pairs: Pairs,
    size: u64,
    /// Offset of the next byte of data.
    at: u64,
    /// Number of bytes of data up to the next hole.
    run: u64,
    /// Length of that hole.
    hole: u64,
    /// Whether there are no more holes.
    last: bool,
}

/// Reads the numbers of the list of holes.
#[derive(Debug)]
enum Pairs {
    None,
    Inline(Vec<u8>, usize),
    Stream(Records),
}

impl Layout {
    /// The layout of a regular file.
    pub(crate) fn new(entry: &Entry) -> Self {
        let pairs = match &entry.holes {
            None => Pairs::None,
            Some(Holes::Inline(bytes)) => Pairs::Inline(bytes.clone(), 0),
            Some(Holes::Stream(stream)) => Pairs::Stream(Records::new(stream)),
        };
        Self { pairs, size: entry.size, at: 0, run: 0, hole: 0, last: false }
    }

    /// The offset of the next bytes of the content, and their number, at most `max` (which is not 0).
    ///
    /// # Errors
    /// If the list of holes cannot be read, is malformed, or leaves no room for more content.
    pub(crate) fn next<S: ChunkSource>(&mut self, max: usize, source: &mut S) -> Result<(u64, usize), S::Error> {
        while self.run == 0 {
            if !self.advance(source)? {
                return Err(StreamError::Malformed("a file has more content than room for it").into());
            }
        }
        let len = self.run.min(max as u64);
        let at = self.at;
        self.at += len;
        self.run -= len;
        Ok((at, len as usize))
    }

    /// Checks that the content ends where the file does, apart from holes.
    ///
    /// # Errors
    /// If it does not, or the list of holes cannot be read or is malformed.
    pub(crate) fn finish<S: ChunkSource>(&mut self, source: &mut S) -> Result<(), S::Error> {
        while self.run == 0 {
            if !self.advance(source)? {
                return Ok(());
            }
        }
        Err(StreamError::Malformed("a file has less content than room for it").into())
    }

    /// Skips the hole and finds the next one. Returns `false` at the end of the file.
    fn advance<S: ChunkSource>(&mut self, source: &mut S) -> Result<bool, S::Error> {
        if self.last {
            return Ok(false);
        }
        self.at += std::mem::take(&mut self.hole);
        let malformed = || StreamError::Malformed("a list of holes is malformed");
        match self.pairs.next(source)? {
            None => {
                self.last = true;
                self.run = self.size - self.at;
                Ok(self.run > 0)
            }
            Some((distance, len)) => {
                let end = self.at.checked_add(distance).and_then(|start| start.checked_add(len));
                if len == 0 || end.is_none_or(|end| end > self.size) {
                    return Err(malformed().into());
                }
                (self.run, self.hole) = (distance, len);
                Ok(true)
            }
        }
    }
}

impl Pairs {
    /// The next distance and length.
    fn next<S: ChunkSource>(&mut self, source: &mut S) -> Result<Option<(u64, u64)>, S::Error> {
        match self {
            Self::None => Ok(None),
            Self::Inline(bytes, used) => Ok(take(bytes, used)?),
            Self::Stream(records) => records.next(source, |bytes, ended| {
                if !ended && bytes.len() < 2 * NUMBER_LEN_MAX {
                    return Ok(None);
                }
                let mut used = 0;
                Ok::<_, StreamError>(take(bytes, &mut used)?.map(|pair| (pair, used)))
            }),
        }
    }
}

/// Reads the next distance and length of a list of holes; `None` at the end.
///
/// # Errors
/// If they are malformed, or the list ends within them.
pub(super) fn take(bytes: &[u8], used: &mut usize) -> Result<Option<(u64, u64)>, StreamError> {
    if *used == bytes.len() {
        return Ok(None);
    }
    let mut reader = varint::Reader::new(&bytes[*used..]);
    let malformed = |_| StreamError::Malformed("a list of holes is malformed");
    let pair = (reader.number().map_err(malformed)?, reader.number().map_err(malformed)?);
    *used = bytes.len() - reader.rest().len();
    Ok(Some(pair))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;
    use crate::tree::{FileKind, Stream};

    struct Nothing;

    impl ChunkSource for Nothing {
        type Error = StreamError;

        fn chunk(&mut self, _: &ChunkId) -> Result<Vec<u8>, StreamError> {
            Err(StreamError::Malformed("missing"))
        }
    }

    /// Lays out `content` bytes; returns the runs, or `None` if that fails.
    fn runs(size: u64, content: u64, holes: Option<&[(u64, u64)]>, max: usize) -> Option<Vec<(u64, usize)>> {
        let mut entry = Entry::new(*b"f", FileKind::File);
        entry.size = size;
        entry.content = Some(Stream::EMPTY);
        entry.holes = holes.map(|pairs| {
            let mut bytes = Vec::new();
            for (distance, len) in pairs {
                varint::put(&mut bytes, *distance);
                varint::put(&mut bytes, *len);
            }
            Holes::Inline(bytes)
        });
        let mut layout = Layout::new(&entry);
        let (mut found, mut rest) = (Vec::new(), content);
        while rest > 0 {
            let (at, len) = layout.next(max.min(rest as usize), &mut Nothing).ok()?;
            found.push((at, len));
            rest -= len as u64;
        }
        layout.finish(&mut Nothing).ok().map(|()| found)
    }

    #[test]
    fn content_lies_between_the_holes() {
        assert_eq!(runs(10, 10, None, 4), Some(vec![(0, 4), (4, 4), (8, 2)]));
        assert_eq!(runs(0, 0, None, 4), Some(vec![]));
        assert_eq!(runs(100, 30, Some(&[(10, 70)]), 8), Some(vec![(0, 8), (8, 2), (80, 8), (88, 8), (96, 4)]));
        assert_eq!(runs(100, 0, Some(&[(0, 100)]), 8), Some(vec![]));
        assert_eq!(runs(100, 10, Some(&[(0, 50), (10, 40)]), 20), Some(vec![(50, 10)]));
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(runs(10, 11, None, 4), None, "too much content");
        assert_eq!(runs(10, 9, None, 4), None, "too little content");
        assert_eq!(runs(100, 31, Some(&[(10, 70)]), 8), None);
        assert_eq!(runs(100, 29, Some(&[(10, 70)]), 8), None);
        assert_eq!(runs(100, 10, Some(&[(10, 91)]), 8), None, "a hole beyond the end");
        assert_eq!(runs(100, 100, Some(&[(10, 0)]), 8), None, "an empty hole");
        assert_eq!(runs(100, 1, Some(&[(u64::MAX, u64::MAX)]), 8), None, "numbers that overflow");
    }
}
