//! Compression of segments: one zstd frame, or the bytes as they are (SPEC §5.2).

use std::io::Cursor;

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

use super::SealError;
use crate::limits::SEGMENT_RAW_MAX;

/// Encoding of a segment's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Uncompressed.
    Raw = 0,
    /// One zstd frame that records its content's size.
    Zstd = 1,
}

impl Method {
    /// The method of this number; an unknown one was written by a newer vault.
    pub fn from_byte(byte: u8) -> Result<Self, SealError> {
        match byte {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            _ => Err(SealError::Newer { what: "compression method" }),
        }
    }
}

/// From this level on, data is tried at level 1 first: the high levels take a hundred times as long to find out that
/// data is incompressible.
const LEVEL_PROBED: i32 = 7;

/// Compresses segments; one for each worker, since it keeps its tables from one segment to the next.
pub struct Compressor {
    zstd: CCtx<'static>,
    probe: Option<CCtx<'static>>,
}

impl Compressor {
    /// A compressor of this zstd level (1 to 22; others are moved to the nearest).
    pub fn new(level: i32) -> Result<Self, SealError> {
        let level = level.clamp(1, 22);
        let new = |level| {
            let mut context = CCtx::try_create().ok_or(SealError::Zstd)?;
            context.set_parameter(CParameter::CompressionLevel(level)).map_err(|_| SealError::Zstd)?;
            Ok::<_, SealError>(context)
        };
        let probe = if level >= LEVEL_PROBED { Some(new(1)?) } else { None };
        Ok(Self { zstd: new(level)?, probe })
    }

    /// Appends `raw` to `out`, compressed if that saves at least one percent, and returns the method. Reserves as much
    /// room as the raw bytes take; the unused part stays reserved.
    pub fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Method {
        let start = out.len();
        // zstd may fail if it needs more room than the raw bytes: the gain would be too small.
        out.reserve_exact(raw.len());
        let mut pays = |zstd: &mut CCtx<'static>| {
            // A failure (no memory for the tables) costs space, not data.
            !raw.is_empty()
                && zstd
                    .compress2(&mut after(out, start), raw)
                    .is_ok_and(|len| len as u64 * 100 <= raw.len() as u64 * 99)
        };
        if self.probe.as_mut().is_none_or(&mut pays) && pays(&mut self.zstd) {
            Method::Zstd
        } else {
            out.truncate(start);
            out.extend_from_slice(raw);
            Method::Raw
        }
    }
}

/// The output of zstd: the room of `out` from `start` on.
fn after(out: &mut Vec<u8>, start: usize) -> Cursor<&mut Vec<u8>> {
    let mut cursor = Cursor::new(out);
    cursor.set_position(start as u64);
    cursor
}

/// Decompresses segments; one for each worker.
pub struct Decompressor {
    zstd: DCtx<'static>,
}

impl Decompressor {
    /// Creates a decompressor.
    pub fn new() -> Result<Self, SealError> {
        Ok(Self { zstd: DCtx::try_create().ok_or(SealError::Zstd)? })
    }

    /// Appends the content of `payload` to `out`. It must be exactly `raw_len` bytes, which must be within the limit,
    /// and exactly one frame that states this length itself: all of this is checked before any memory is taken. If it
    /// fails, `out` is unchanged.
    pub fn decompress(
        &mut self,
        method: Method,
        payload: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        const DAMAGED: SealError = SealError::Malformed("its content is not as long as it says");
        if raw_len > SEGMENT_RAW_MAX {
            return Err(SealError::Malformed("a segment is larger than allowed"));
        }
        if method == Method::Raw {
            if payload.len() != raw_len {
                return Err(SealError::Malformed("a raw segment is not of its stated length"));
            }
            out.extend_from_slice(payload);
            return Ok(());
        }
        // An empty frame is never written; refusing it also refuses skippable frames, which have no content.
        let stated = zstd_safe::get_frame_content_size(payload).ok().flatten();
        if raw_len == 0
            || stated != Some(raw_len as u64)
            || zstd_safe::find_frame_compressed_size(payload) != Ok(payload.len())
        {
            return Err(DAMAGED);
        }
        let start = out.len();
        out.reserve(raw_len);
        if self.zstd.decompress(&mut after(out, start), payload).is_ok_and(|len| len == raw_len) {
            Ok(())
        } else {
            out.truncate(start);
            Err(DAMAGED)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new_derive_key("vault test noise").finalize_xof().fill(&mut out);
        out
    }

    fn open(method: Method, payload: &[u8], raw_len: usize) -> Result<Vec<u8>, SealError> {
        let mut decompressor = Decompressor::new().unwrap();
        let mut fresh = Vec::new();
        let first = decompressor.decompress(method, payload, raw_len, &mut fresh);
        let mut appended = b"before".to_vec();
        let second = decompressor.decompress(method, payload, raw_len, &mut appended);
        assert_eq!(first.is_ok(), second.is_ok());
        assert_eq!(appended, [b"before", &fresh[..]].concat());
        first.map(|()| fresh)
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let text = b"all work and no play ".repeat(5000);
        for level in [-5, 1, 3, 9, 19, 100] {
            let mut compressor = Compressor::new(level).unwrap();
            for (raw, method) in [
                (&text[..], Method::Zstd),
                (&noise(100_000), Method::Raw),
                (&[0; 300][..], Method::Zstd),
                (b"x", Method::Raw),
                (b"", Method::Raw),
            ] {
                let mut out = b"head".to_vec();
                assert_eq!(compressor.compress(raw, &mut out), method);
                assert_eq!(&out[..4], b"head");
                assert!(out.len() <= raw.len() + 4);
                assert_eq!(open(method, &out[4..], raw.len()).unwrap(), raw);
            }
        }
    }

    #[test]
    fn a_gain_below_a_hundredth_is_not_worth_it() {
        let mut raw = noise(100_000);
        let mut compressor = Compressor::new(3).unwrap();
        raw.extend_from_slice(&[0; 500]);
        assert_eq!(compressor.compress(&raw, &mut Vec::new()), Method::Raw);
        raw.extend_from_slice(&[0; 2000]);
        assert_eq!(compressor.compress(&raw, &mut Vec::new()), Method::Zstd);
    }

    #[test]
    fn frames_that_lie_are_refused() {
        let raw = b"all work and no play ".repeat(500);
        let mut frame = Vec::new();
        assert_eq!(Compressor::new(3).unwrap().compress(&raw, &mut frame), Method::Zstd);
        assert!(open(Method::Zstd, &frame, raw.len()).is_ok());
        assert!(open(Method::Zstd, &frame, raw.len() - 1).is_err());
        assert!(open(Method::Zstd, &frame, raw.len() + 1).is_err());
        assert!(open(Method::Zstd, &frame, 0).is_err());
        assert!(open(Method::Zstd, &frame[..frame.len() - 1], raw.len()).is_err());
        assert!(open(Method::Zstd, &[&frame[..], b"!"].concat(), raw.len()).is_err());
        assert!(open(Method::Zstd, &[&frame[..], &frame].concat(), raw.len()).is_err(), "two frames");
        assert!(open(Method::Zstd, &[&frame[..], &frame].concat(), raw.len() * 2).is_err(), "two frames");
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
        assert!(open(Method::Zstd, &skippable, 0).is_err(), "skippable");
        assert!(open(Method::Zstd, &[&frame[..], &skippable].concat(), raw.len()).is_err(), "skippable");
        assert!(open(Method::Zstd, b"", 0).is_err());
        assert!(open(Method::Raw, b"abc", 2).is_err());
        assert!(open(Method::Raw, b"abc", 4).is_err());
    }

    #[test]
    fn bombs_are_refused_before_memory_is_taken() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        let mut out = Vec::new();
        let mut decompressor = Decompressor::new().unwrap();
        for stated in [1, SEGMENT_RAW_MAX, 64 << 20, usize::MAX] {
            assert!(decompressor.decompress(Method::Zstd, &bomb, stated, &mut out).is_err());
        }
        assert_eq!(out.capacity(), 0);
    }

    #[test]
    fn unknown_methods_are_newer() {
        assert_eq!(Method::from_byte(Method::Zstd as u8).unwrap(), Method::Zstd);
        assert!(matches!(Method::from_byte(2), Err(SealError::Newer { .. })));
    }

    proptest! {
        #[test]
        fn damaged_frames_never_panic(at in 0_usize..4000, bit in 0_u8..8, len in 0_usize..20_000) {
            let raw: Vec<u8> = (0..2000_u32).flat_map(|number| (number * number).to_le_bytes()).collect();
            let mut frame = Vec::new();
            Compressor::new(3).unwrap().compress(&raw, &mut frame);
            let at = at % frame.len();
            frame[at] ^= 1 << bit;
            let _ = open(Method::Zstd, &frame, raw.len());
            let _ = open(Method::Zstd, &frame, len);
        }

        #[test]
        fn random_bytes_never_panic(payload: Vec<u8>, len in 0_usize..2000) {
            let _ = open(Method::Zstd, &payload, len);
            let framed = [&[0x28, 0xb5, 0x2f, 0xfd][..], &payload].concat();
            let _ = open(Method::Zstd, &framed, len);
        }
    }
}
