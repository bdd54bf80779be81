//! Cut points: where a byte string is divided into chunks, found by its content (SPEC §5.1).
//!
//! Pure: this module knows bytes, sizes and a table of random numbers. Only `seal` knows that the table is a secret;
//! here it is wiped when it is dropped.

use std::fmt;

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use zeroize::Zeroize;
use zeroize::ZeroizeOnDrop;

use crate::limits::{CHUNK_AVG_DEFAULT, CHUNK_MAX_CEILING, CHUNK_MAX_DEFAULT, CHUNK_MIN_DEFAULT, CHUNK_MIN_FLOOR};

/// Length of the bytes that a [`Gear`] is made of.
pub const GEAR_LEN: usize = 256 * 8;

/// Chunk sizes that the cutter cannot work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk sizes {min}/{avg}/{max} are not valid: {what}")]
pub struct ChunkParamsError {
    min: u32,
    avg: u32,
    max: u32,
    what: &'static str,
}

/// Sizes of chunks, in bytes: no chunk but a stream's last is shorter than `min`, none is longer than `max`, and most
/// are near `avg`. Always valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkParams {
    min: u32,
    avg: u32,
    max: u32,
}

impl ChunkParams {
    /// The sizes, if they are even, `avg` is a power of two, and `CHUNK_MIN_FLOOR <= min <= avg / 2`,
    /// `avg < max <= CHUNK_MAX_CEILING`.
    ///
    /// Everything is checked here because the cutter itself does not check: it panics or cuts elsewhere when sizes are
    /// odd or out of order, and the sizes may come from a store.
    pub fn new(min: u32, avg: u32, max: u32) -> Result<Self, ChunkParamsError> {
        let bad = |what| Err(ChunkParamsError { min, avg, max, what });
        if min < CHUNK_MIN_FLOOR {
            bad("the smallest is too small")
        } else if !avg.is_power_of_two() {
            bad("the average is not a power of two")
        } else if min > avg / 2 {
            bad("the smallest is more than half the average")
        } else if max <= avg {
            bad("the largest is not above the average")
        } else if max > CHUNK_MAX_CEILING {
            bad("the largest is too large")
        } else if !min.is_multiple_of(2) || !max.is_multiple_of(2) {
            bad("they are not even")
        } else {
            Ok(Self { min, avg, max })
        }
    }

    /// The smallest chunk that is not a stream's last.
    pub const fn min(&self) -> u32 {
        self.min
    }

    /// The size near which most chunks are.
    pub const fn avg(&self) -> u32 {
        self.avg
    }

    /// The largest chunk.
    pub const fn max(&self) -> u32 {
        self.max
    }
}

impl Default for ChunkParams {
    fn default() -> Self {
        Self { min: CHUNK_MIN_DEFAULT, avg: CHUNK_AVG_DEFAULT, max: CHUNK_MAX_DEFAULT }
    }
}

/// The 256 random numbers that decide where cuts fall: one for each value of a byte, and the same shifted left by one.
/// Kept on the heap, so that moving it leaves no copy behind, and wiped when dropped.
pub struct Gear(Box<Tables>);

#[derive(Zeroize, ZeroizeOnDrop)]
struct Tables {
    table: [u64; 256],
    shifted: [u64; 256],
}

impl Gear {
    /// The table with these 256 little-endian numbers.
    pub fn from_bytes(bytes: &[u8; GEAR_LEN]) -> Self {
        let mut tables = Box::new(Tables { table: [0; 256], shifted: [0; 256] });
        let (numbers, _) = bytes.as_chunks::<8>();
        for (index, number) in numbers.iter().enumerate() {
            let number = u64::from_le_bytes(*number);
            tables.table[index] = number;
            tables.shifted[index] = number << 1;
        }
        Self(tables)
    }
}

impl fmt::Debug for Gear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gear(..)")
    }
}

/// Finds cut points by FastCDC (the 2020 variant with two bytes a step, normalization level 2) with its own table.
#[derive(Debug)]
pub struct Cutter {
    params: ChunkParams,
    gear: Gear,
    mask_small: u64,
    mask_large: u64,
}

impl Cutter {
    /// A cutter for chunks of these sizes.
    pub fn new(params: ChunkParams, gear: Gear) -> Self {
        let (mask_small, mask_large) = select_masks(params.avg as usize, Normalization::Level2);
        Self { params, gear, mask_small, mask_large }
    }

    /// The chunk sizes of this cutter.
    pub fn params(&self) -> ChunkParams {
        self.params
    }

    /// Length of the first chunk of `data`, which must be at least as long as the largest chunk or reach to the end of
    /// the stream: otherwise the end of the window would become a cut. Zero only if there is no data.
    pub fn cut(&self, data: &[u8]) -> usize {
        let Gear(tables) = &self.gear;
        let (_, len) = cut_gear(
            data,
            self.params.min as usize,
            self.params.avg as usize,
            self.params.max as usize,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            &tables.table,
            &tables.shifted,
        );
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: &str, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut out);
        out
    }

    fn cutter(min: u32, avg: u32, max: u32) -> Cutter {
        let gear = bytes("vault test gear", GEAR_LEN).try_into().unwrap();
        Cutter::new(ChunkParams::new(min, avg, max).unwrap(), Gear::from_bytes(&gear))
    }

    fn lengths(cutter: &Cutter, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let len = cutter.cut(data);
            lengths.push(len);
            data = &data[len..];
        }
        lengths
    }

    /// Any change to these numbers makes all stored data look new. They are part of the format.
    #[test]
    fn cut_points_stay_where_they_are() {
        let data = bytes("vault test data", 1 << 20);
        assert_eq!(lengths(&cutter(16 << 10, 64 << 10, 256 << 10), &data), GOLDEN_DEFAULT);
        assert_eq!(lengths(&cutter(256, 512, 2048), &data[..10_001]), GOLDEN_SMALL);
        let large = bytes("vault test data", 24 << 20);
        assert_eq!(lengths(&cutter(1 << 20, 2 << 20, 4 << 20), &large), GOLDEN_LARGE);
    }

    const GOLDEN_DEFAULT: &[usize] = &[
        69_245, 65_852, 80_860, 77_458, 92_190, 92_930, 69_182, 93_343, 132_997, 34_900, 56_938, 52_585, 86_206,
        33_878, 10_012,
    ];
    const GOLDEN_SMALL: &[usize] =
        &[512, 539, 340, 584, 644, 581, 622, 646, 575, 484, 619, 598, 625, 526, 1_043, 587, 476];
    const GOLDEN_LARGE: &[usize] = &[
        2_498_205, 2_105_964, 1_296_033, 2_262_643, 2_575_960, 2_687_836, 2_130_841, 2_288_154, 3_276_935, 2_114_475,
        1_928_778,
    ];

    #[test]
    fn constant_data_is_cut_at_the_largest_size() {
        let cutter = cutter(256, 1024, 4096);
        assert_eq!(lengths(&cutter, &[0; 10_000]), [4096, 4096, 1808]);
    }

    #[test]
    fn small_data_is_one_chunk() {
        let cutter = cutter(256, 1024, 4096);
        let data = bytes("vault test small", 256);
        assert_eq!(cutter.cut(&[]), 0);
        for len in 1..=256 {
            assert_eq!(cutter.cut(&data[..len]), len);
        }
    }

    #[test]
    fn cuts_do_not_depend_on_the_window() {
        let cutter = cutter(256, 1024, 4096);
        let data = bytes("vault test window", 200_000);
        let whole = lengths(&cutter, &data);
        for window in [4096, 4097, 5000, 70_001] {
            let (mut at, mut cut) = (0, Vec::new());
            while at < data.len() {
                let len = cutter.cut(&data[at..data.len().min(at + window)]);
                cut.push(len);
                at += len;
            }
            assert_eq!(cut, whole, "window {window}");
        }
        assert!(whole[..whole.len() - 1].iter().all(|len| (256..=4096).contains(len)));
    }

    #[test]
    fn cuts_meet_again_after_an_insertion() {
        let cutter = cutter(256, 1024, 4096);
        let data = bytes("vault test insertion", 100_000);
        let ends = |data: &[u8]| -> Vec<usize> {
            lengths(&cutter, data)
                .iter()
                .scan(0, |end, len| {
                    *end += len;
                    Some(data.len() - *end)
                })
                .collect()
        };
        let changed = [&[1, 2, 3], &data[..]].concat();
        let (before, after) = (ends(&data), ends(&changed));
        let common = before.iter().filter(|end| after.contains(end)).count();
        assert!(common * 10 > before.len() * 9, "{common} of {}", before.len());
    }

    #[test]
    fn another_table_cuts_elsewhere() {
        let data = bytes("vault test data", 1 << 20);
        let gear = bytes("another gear", GEAR_LEN).try_into().unwrap();
        let other = Cutter::new(ChunkParams::default(), Gear::from_bytes(&gear));
        assert_ne!(lengths(&other, &data), GOLDEN_DEFAULT);
    }

    #[test]
    fn sizes_that_the_cutter_cannot_take_are_refused() {
        let default = ChunkParams::default();
        assert_eq!(ChunkParams::new(default.min, default.avg, default.max), Ok(default));
        assert!(ChunkParams::new(256, 512, 514).is_ok());
        assert!(ChunkParams::new(1 << 20, 2 << 20, 4 << 20).is_ok());
        for (min, avg, max) in [
            (0, 0, 0),
            (254, 512, 1024),
            (257, 1024, 4096),
            (258, 512, 1024),
            (256, 768, 4096),
            (256, 1024, 1024),
            (256, 1024, 512),
            (256, 1024, 4097),
            (256, 1024, (4 << 20) + 2),
            (256, 4 << 20, 4 << 20),
            (u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert!(ChunkParams::new(min, avg, max).is_err(), "{min} {avg} {max}");
        }
    }

    #[test]
    fn the_table_is_not_shown() {
        let shown = format!("{:?}", cutter(256, 512, 2048));
        assert!(shown.contains("Gear(..)") && !shown.contains("table"), "{shown}");
    }
}
