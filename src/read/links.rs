//! A snapshot's list of the paths that are names of one file (SPEC §7.4).

use crate::limits::ENTRY_LEN_MAX;
use crate::read::records::{Decoded, Records};
use crate::tree::{ChunkSource, Stream, StreamError};
use crate::varint::{DecodeError, Reader};
use crate::vault::ReadError;

/// Reads the list of groups path by path.
pub(crate) struct GroupReader {
    records: Records,
    /// Paths of the current group that are still to come.
    rest: u64,
}

impl GroupReader {
    /// Reads this list from its start.
    pub(crate) fn new(stream: &Stream) -> Self {
        Self { records: Records::new(stream), rest: 0 }
    }

    /// The next path, and whether it is the first of its group.
    pub(crate) fn next<S: ChunkSource<Error = ReadError>>(
        &mut self,
        source: &mut S,
    ) -> Result<Option<(bool, Vec<u8>)>, ReadError> {
        self.records.next(source, |bytes, ended| decode(bytes, ended, &mut self.rest))
    }
}

/// Decodes a path, and whether it is the first of its group. `rest` is the number of paths of the group that are still
/// to come.
fn decode(bytes: &[u8], ended: bool, rest: &mut u64) -> Result<Decoded<(bool, Vec<u8>)>, StreamError> {
    let mut reader = Reader::new(bytes);
    match take(&mut reader, *rest) {
        Ok((first, path, after)) => {
            let path = path.to_vec();
            *rest = after;
            Ok(Some(((first, path), bytes.len() - reader.rest().len())))
        }
        Err(DecodeError::Short) if !ended || (*rest == 0 && bytes.is_empty()) => Ok(None),
        Err(_) => Err(StreamError::Malformed("the list of hard links is malformed")),
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
