//! Decodes what a stream holds, one record after the other, while its chunks arrive.

use crate::tree::{ChunkSource, Stream, StreamReader};

/// A decoded record, and the number of bytes that it took; `None` if more bytes are needed, or if nothing is left.
pub(crate) type Decoded<T> = Option<(T, usize)>;

/// Bytes that have arrived and are decoded from front to back.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    bytes: Vec<u8>,
    used: usize,
    /// Number of used bytes that belong to the last record.
    last_len: usize,
    /// Number of bytes that were decoded.
    taken: u64,
    /// The next attempt at a record waits for this many bytes, twice as many as the last one had, so that a long record costs no
    /// more than its length.
    awaited: usize,
}

impl Arrived {
    /// Adds the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.used);
        (self.used, self.last_len) = (0, 0);
        self.bytes.extend_from_slice(bytes);
    }

    /// Number of bytes that were decoded.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The bytes of the last record, until more are added.
    pub(crate) fn last_bytes(&self) -> &[u8] {
        &self.bytes[self.used - self.last_len..self.used]
    }

    /// Decodes the next record. `decode` gets the bytes that are left, and whether there will be no more of them; then it
    /// refuses a part of a record.
    pub(crate) fn next<T, E>(
        &mut self,
        ended: bool,
        decode: impl FnOnce(&[u8], bool) -> Result<Decoded<T>, E>,
    ) -> Result<Option<T>, E> {
        let left = &self.bytes[self.used..];
        if left.len() < self.awaited && !ended {
            return Ok(None);
        }
        let Some((record, len)) = decode(left, ended)? else {
            self.awaited = left.len() * 2;
            return Ok(None);
        };
        self.awaited = 0;
        self.used += len;
        self.last_len = len;
        self.taken += len as u64;
        Ok(Some(record))
    }
}

/// Reads a stream record by record, a chunk at a time.
#[derive(Debug)]
pub(crate) struct Records {
    stream: StreamReader,
    arrived: Arrived,
    ended: bool,
}

impl Records {
    /// Reads this stream from its start.
    pub(crate) fn new(stream: &Stream) -> Self {
        Self { stream: StreamReader::new(stream), arrived: Arrived::default(), ended: stream.len == 0 }
    }

    /// The bytes of the last record, as they are stored.
    pub(crate) fn last_bytes(&self) -> &[u8] {
        self.arrived.last_bytes()
    }

    /// The next record, or `None` at the end. `decode` is that of [`Arrived::next`].
    ///
    /// # Errors
    /// If a chunk cannot be read, or those of `decode`.
    pub(crate) fn next<T, E, S: ChunkSource>(
        &mut self,
        source: &mut S,
        mut decode: impl FnMut(&[u8], bool) -> Result<Decoded<T>, E>,
    ) -> Result<Option<T>, S::Error>
    where
        S::Error: From<E>,
    {
        loop {
            let record = self.arrived.next(self.ended, &mut decode).map_err(|error| source.invalid(error))?;
            if record.is_some() || self.ended {
                return Ok(record);
            }
            match self.stream.next(source)? {
                Some(bytes) => self.arrived.push(&bytes),
                None => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::tests::{Memory, noise, write};
    use crate::tree::StreamError;

    /// A record of a length and that number of bytes.
    fn decode(bytes: &[u8], ended: bool) -> Result<Decoded<Vec<u8>>, StreamError> {
        let whole = bytes.split_first().and_then(|(len, rest)| rest.get(..usize::from(*len)));
        match whole {
            Some(record) => Ok(Some((record.to_vec(), 1 + record.len()))),
            None if ended && !bytes.is_empty() => Err(StreamError::Malformed("it ends in the middle of a record")),
            None => Ok(None),
        }
    }

    #[test]
    fn records_are_whole_wherever_chunks_end() {
        let (noise, mut memory) = (noise(60_000), Memory::default());
        let (mut bytes, mut expected, mut rest) = (Vec::new(), Vec::new(), noise.as_slice());
        while let Some((len, after)) = rest.split_first() {
            let (record, after) = after.split_at(after.len().min(usize::from(*len)));
            bytes.push(record.len() as u8);
            bytes.extend_from_slice(record);
            expected.push(record.to_vec());
            rest = after;
        }
        bytes.extend_from_slice(&[2, 7, 7]);
        expected.push(vec![7, 7]);
        let stream = write(&bytes, &mut memory);
        assert!(stream.depth > 0, "a chunk ends within many records");
        let (mut records, mut found) = (Records::new(&stream), Vec::new());
        while let Some(record) = records.next(&mut &memory, decode).unwrap() {
            assert_eq!(records.last_bytes()[1..], record);
            found.push(record);
        }
        assert!(found == expected);

        let cut = write(&bytes[..bytes.len() - 1], &mut memory);
        let mut records = Records::new(&cut);
        let end = std::iter::from_fn(|| records.next(&mut &memory, decode).transpose()).find_map(Result::err);
        assert!(end.is_some(), "the last record is cut");
    }
}
