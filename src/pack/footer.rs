//! The index at the end of a pack: the segments, and the chunks in each (SPEC §5.3).

use crate::id::ChunkId;
use crate::limits::{CHUNK_MAX_CEILING, PACK_CHUNKS_MAX, PACK_SEGMENTS_MAX, SEGMENT_CHUNKS_MAX, SEGMENT_RAW_MAX};
use crate::seal::Method;
use crate::varint::{self, DecodeError, Reader};

const VERSION: u8 = 1;

/// A footer's entry for one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Length of the segment in the pack, in bytes; the segments lie back to back after the header.
    pub sealed_len: u32,
    /// Compression method of its payload.
    pub method: Method,
    /// Sum of the lengths of its chunks.
    pub raw_len: u32,
    /// Its chunks, in order, and their lengths in bytes.
    pub chunks: Vec<(ChunkId, u32)>,
}

impl SegmentEntry {
    /// Number of bytes that this entry takes in the footer's plaintext.
    pub fn encoded_len(&self) -> usize {
        entry_len(self.sealed_len, self.raw_len, &self.chunks)
    }
}

/// Length of the encoding of an entry with these contents, in bytes.
pub(super) fn entry_len(sealed_len: u32, raw_len: u32, chunks: &[(ChunkId, u32)]) -> usize {
    let lengths: usize = chunks.iter().map(|(_, len)| varint::len(u64::from(*len))).sum();
    varint::len(u64::from(sealed_len))
        + 1
        + varint::len(u64::from(raw_len))
        + varint::len(chunks.len() as u64)
        + lengths
        + chunks.len() * ChunkId::LEN
}

/// The index of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Footer {
    /// The segments, in the order in which they lie in the pack.
    pub segments: Vec<SegmentEntry>,
}

impl Footer {
    /// The plaintext of the footer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        varint::put(&mut out, self.segments.len() as u64);
        for segment in &self.segments {
            varint::put(&mut out, u64::from(segment.sealed_len));
            out.push(segment.method as u8);
            varint::put(&mut out, u64::from(segment.raw_len));
            varint::put(&mut out, segment.chunks.len() as u64);
            segment.chunks.iter().for_each(|(_, len)| varint::put(&mut out, u64::from(*len)));
            segment.chunks.iter().for_each(|(id, _)| out.extend_from_slice(id.as_bytes()));
        }
        out
    }

    /// Reads the plaintext of a footer.
    ///
    /// # Errors
    /// If anything is malformed, over its limit, or contradicts itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            VERSION => {}
            0 => return Err(DecodeError::Limit("the footer's version")),
            _ => return Err(DecodeError::Unknown("version of a footer")),
        }
        let count = reader.bounded("the number of segments", PACK_SEGMENTS_MAX)?;
        let mut total = 0;
        // Each entry takes at least four bytes, so this never reserves more than the remaining bytes.
        let mut segments = Vec::with_capacity(count.min(reader.rest().len() / 4));
        for _ in 0..count {
            let sealed_len = reader.bounded("the length of a segment", 2 * SEGMENT_RAW_MAX)? as u32;
            let method = Method::from_byte(reader.byte()?).map_err(|_| DecodeError::Unknown("compression method"))?;
            let raw_len = reader.bounded("the raw length of a segment", SEGMENT_RAW_MAX)? as u32;
            let lengths = read_lengths(&mut reader, raw_len)?;
            total += lengths.len();
            if total > PACK_CHUNKS_MAX {
                return Err(DecodeError::Limit("the number of chunks in the pack"));
            }
            let ids = reader.bytes(lengths.len() * ChunkId::LEN)?.as_chunks::<{ ChunkId::LEN }>().0;
            let chunks = ids.iter().map(|id| ChunkId::new(*id)).zip(lengths).collect();
            segments.push(SegmentEntry { sealed_len, method, raw_len, chunks });
        }
        if reader.rest().is_empty() { Ok(Self { segments }) } else { Err(DecodeError::Limit("the footer's length")) }
    }
}

/// Reads the number of chunks of a segment and their lengths, whose sum must be `raw_len`.
pub(super) fn read_lengths(reader: &mut Reader<'_>, raw_len: u32) -> Result<Vec<u32>, DecodeError> {
    let count = reader.bounded("the number of chunks in a segment", SEGMENT_CHUNKS_MAX)?;
    if count > reader.rest().len() {
        return Err(DecodeError::Short);
    }
    let mut sum = 0_u64;
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        let len = reader.bounded("the length of a chunk", CHUNK_MAX_CEILING as usize)? as u32;
        if len == 0 {
            return Err(DecodeError::Limit("an empty chunk"));
        }
        sum += u64::from(len);
        lengths.push(len);
    }
    if sum == u64::from(raw_len) && count > 0 {
        Ok(lengths)
    } else {
        Err(DecodeError::Limit("the raw length of a segment"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        let chunk = |byte, len| (ChunkId::new([byte; 16]), len);
        Footer {
            segments: vec![
                SegmentEntry {
                    sealed_len: 700,
                    method: Method::Zstd,
                    raw_len: 300,
                    chunks: vec![chunk(1, 100), chunk(2, 200)],
                },
                SegmentEntry { sealed_len: 99, method: Method::Raw, raw_len: 1, chunks: vec![chunk(3, 1)] },
            ],
        }
    }

    #[test]
    fn footers_round_trip_and_no_part_of_one_is_one() {
        let bytes = footer().encode();
        assert_eq!(Footer::decode(&bytes), Ok(footer()));
        assert_eq!(bytes.len(), 2 + footer().segments.iter().map(SegmentEntry::encoded_len).sum::<usize>());
        for end in 0..bytes.len() {
            assert!(Footer::decode(&bytes[..end]).is_err(), "prefix of {end} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Footer::decode(&longer).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        for (what, change) in [
            ("sum", (|footer: &mut Footer| footer.segments[0].raw_len += 1) as fn(&mut Footer)),
            ("empty chunk", |footer| footer.segments[1].chunks[0].1 = 0),
            ("no chunks", |footer| footer.segments[1].chunks.clear()),
        ] {
            let mut bad = footer();
            change(&mut bad);
            assert!(Footer::decode(&bad.encode()).is_err(), "{what}");
        }
    }

    #[test]
    fn newer_is_not_damaged() {
        for (at, byte) in [(0, 2), (0, 255), (4, 2)] {
            let mut bytes = footer().encode();
            bytes[at] = byte;
            assert!(matches!(Footer::decode(&bytes), Err(DecodeError::Unknown(_))), "byte {at}");
        }
        assert!(matches!(Footer::decode(&[0, 0]), Err(DecodeError::Limit(_))));
    }

    /// In SPEC.
    #[test]
    fn the_encoding_is_pinned() {
        let hex = footer().encode().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(hex, VECTOR_FOOTER_PLAIN);
    }

    const VECTOR_FOOTER_PLAIN: &str = "0102bc0501ac020264c8010101010101010101010101010101010102020202020202020202020202020202630001010103030303030303\
         030303030303030303";

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Footer::decode(&bytes);
        }
    }
}
