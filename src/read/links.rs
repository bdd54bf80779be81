//! A snapshot's list of the paths that are names of one file (SPEC §7.4).

use crate::limits::ENTRY_LEN_MAX;
use crate::tree::{ChunkSource, Stream, StreamError, StreamReader};
use crate::varint::{DecodeError, Reader};
use crate::vault::ReadError;

/// Reads the list of groups path by path.
pub(crate) struct GroupReader {
    stream: StreamReader,
    buffer: Vec<u8>,
    used: usize,
    ended: bool,
    /// Paths of the current group that are still to come.
    rest: u64,
}

impl GroupReader {
    /// Reads this list from its start.
    pub(crate) fn new(stream: &Stream) -> Self {
        Self { stream: StreamReader::new(stream), buffer: Vec::new(), used: 0, ended: false, rest: 0 }
    }

    /// The next path, and whether it is the first of its group.
    pub(crate) fn next<S: ChunkSource<Error = ReadError>>(
        &mut self,
        source: &mut S,
    ) -> Result<Option<(bool, Vec<u8>)>, ReadError> {
        let malformed = || ReadError::Stream(StreamError::Malformed("the list of hard links is malformed"));
        loop {
            let mut reader = Reader::new(&self.buffer[self.used..]);
            match take(&mut reader, self.rest) {
                Ok((first, path, rest)) => {
                    let path = path.to_vec();
                    self.used = self.buffer.len() - reader.rest().len();
                    self.rest = rest;
                    return Ok(Some((first, path)));
                }
                Err(DecodeError::Short) if self.ended => {
                    let whole = self.rest == 0 && self.used == self.buffer.len();
                    return if whole { Ok(None) } else { Err(malformed()) };
                }
                Err(DecodeError::Short) => {}
                Err(_) => return Err(malformed()),
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            match self.stream.next(source)? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => self.ended = true,
            }
        }
    }
}

/// Reads a path, and before it the number of paths if a group begins. Returns whether one begins, the path, and the
/// number of paths that follow.
fn take<'a>(reader: &mut Reader<'a>, rest: u64) -> Result<(bool, &'a [u8], u64), DecodeError> {
    let first = rest == 0;
    let count = if first { reader.number()? } else { rest };
    if first && count < 2 {
        return Err(DecodeError::Limit("the number of names"));
    }
    let len = reader.bounded("the length of a path", ENTRY_LEN_MAX)?;
    Ok((first, reader.bytes(len)?, count - 1))
}
