//! Every limit of the format and of its readers, in one place (SPEC §2).

/// Smallest chunk size that may be configured, in bytes.
pub const CHUNK_MIN_FLOOR: u32 = 256;
/// Largest maximum chunk size that may be configured, in bytes.
pub const CHUNK_MAX_CEILING: u32 = 4 << 20;
/// Default smallest chunk, in bytes.
pub const CHUNK_MIN_DEFAULT: u32 = 16 << 10;
/// Default average chunk, in bytes.
pub const CHUNK_AVG_DEFAULT: u32 = 64 << 10;
/// Default largest chunk, in bytes.
pub const CHUNK_MAX_DEFAULT: u32 = 256 << 10;

/// A segment is closed when its chunks reach this many bytes.
pub const SEGMENT_TARGET: usize = 2 << 20;
/// A segment is also closed when its chunks will probably be compressed to this many bytes: incompressible data gains
/// nothing by being compressed together, and large segments fill packs badly.
pub const SEGMENT_SEALED_TARGET: usize = 512 << 10;
/// A segment is also closed when it has this many chunks: each takes memory, however small it is.
pub const SEGMENT_CHUNKS_TARGET: usize = 1 << 14;
/// A reader refuses a segment that claims more raw bytes than this.
pub const SEGMENT_RAW_MAX: usize = 8 << 20;
/// A reader refuses a segment of more chunks than this.
pub const SEGMENT_CHUNKS_MAX: usize = 1 << 18;

/// Size of a full pack, in bytes, except in vaults so large that they would have very many ([`pack_len`]).
pub const PACK_LEN: usize = 16 << 20;
/// A vault with this many bytes of packs gets packs of twice that size, and twice as large again for each fourfold.
pub const PACK_GROWS_AT: u64 = 4 << 40;
/// The largest size of a full pack that a writer chooses.
pub const PACK_LEN_GROWN: usize = 128 << 20;
/// A pack is closed before it has more chunks than this.
pub const PACK_CHUNKS_TARGET: usize = 1 << 16;
/// A reader refuses a pack larger than this.
pub const PACK_LEN_MAX: u64 = 256 << 20;
/// The smallest pack: shorter ones are padded to it.
pub const PACK_LEN_FLOOR: usize = 64 << 10;
/// The lengths of packs that are not full are multiples of steps that are at most this long.
pub const PADDING_STEP_MAX: usize = 64 << 10;
/// A reader refuses a pack of more segments than this.
pub const PACK_SEGMENTS_MAX: usize = 1 << 20;
/// A reader refuses a pack of more chunks than this.
pub const PACK_CHUNKS_MAX: usize = 8 << 20;
/// A reader refuses a sealed footer longer than this.
pub const FOOTER_LEN_MAX: usize = 192 << 20;

/// The writer puts at most this many entries into one index object.
pub const INDEX_ENTRIES_MAX: u64 = 1 << 22;
/// A reader refuses an index object longer than this.
pub const INDEX_LEN_MAX: u64 = 256 << 20;
/// A reader refuses an index object of more ranges than this.
pub const INDEX_RANGES_MAX: usize = 1 << 20;
/// A reader refuses a range of more entries than this.
pub const INDEX_RANGE_ENTRIES_MAX: usize = 1 << 16;

/// A reader refuses a log record longer than this.
pub const RECORD_LEN_MAX: usize = 64 << 20;
/// A reader refuses the VAULT file if it is longer than this.
pub const VAULT_FILE_LEN_MAX: u64 = 4 << 10;

/// A stream with more chunks than this stores its list of ids as a stream, one level deeper.
pub const STREAM_IDS_INLINE: usize = 64;
/// Deepest nesting of lists of ids that a reader follows.
pub const STREAM_DEPTH_MAX: u8 = 4;

/// Longest encoded tree entry, in bytes (a name, a link target, extended attributes).
pub const ENTRY_LEN_MAX: usize = 8 << 20;
/// Longest name of one path component, in bytes.
pub const NAME_LEN_MAX: usize = 1024;
/// Longest target of a symbolic link, in bytes.
pub const LINK_TARGET_LEN_MAX: usize = 64 << 10;
/// A list of holes longer than this many bytes is stored as a stream.
pub const HOLES_INLINE: usize = 1 << 10;
/// Deepest folder that is read or restored.
pub const PATH_DEPTH_MAX: usize = 1 << 14;

/// Most bytes that the paths kept at once by a command may take, with [`PATH_COST`] for each: a vault can name one
/// folder from many places, and so have far more paths than folders.
pub const PATHS_LEN_MAX: u64 = 512 << 20;
/// Number of bytes that a kept path takes besides its own length.
pub const PATH_COST: u64 = 64;

/// Longest key slot of any version: a longer file in `keys/` is none.
pub const KEY_SLOT_LEN_MAX: u64 = 64 << 10;
/// Most key slots in a vault.
pub const KEY_SLOTS_MAX: usize = 16;

/// The size of a full pack of content in a vault that has this many bytes of packs. It grows as the square root of the
/// vault, as the number of packs then does: lists, footers and deletions cost by their number.
pub const fn pack_len(stored: u64) -> usize {
    let (mut len, mut next) = (PACK_LEN, PACK_GROWS_AT);
    while len < PACK_LEN_GROWN && stored >= next {
        len *= 2;
        next = next.saturating_mul(4);
    }
    len
}

/// The sum of numbers that somebody else has written; saturates instead of overflowing.
pub fn sum_of(figures: impl IntoIterator<Item = u64>) -> u64 {
    figures.into_iter().fold(0, u64::saturating_add)
}

/// A part (0 to 1) of this many bytes, rounded up.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a part is given to a few digits, and not negative"
)]
pub fn part_of(bytes: u64, part: f64) -> u64 {
    (bytes as f64 * part.clamp(0.0, 1.0)).ceil() as u64
}

const _: () = assert!(SEGMENT_TARGET + (CHUNK_MAX_CEILING as usize) < SEGMENT_RAW_MAX);
const _: () = assert!(SEGMENT_RAW_MAX + (1 << 20) < PACK_LEN);
const _: () = assert!(SEGMENT_CHUNKS_TARGET <= PACK_CHUNKS_TARGET && SEGMENT_CHUNKS_TARGET <= SEGMENT_CHUNKS_MAX);
const _: () = assert!((PACK_LEN_GROWN as u64) <= PACK_LEN_MAX);
const _: () = assert!(FOOTER_LEN_MAX as u64 <= PACK_LEN_MAX);

/// The usual zstd level for what is compressed.
pub const LEVEL: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_grow_as_the_square_root_of_the_vault() {
        let tib = 1_u64 << 40;
        for (stored, mib) in [
            (0, 16),
            (4 * tib - 1, 16),
            (4 * tib, 32),
            (16 * tib - 1, 32),
            (16 * tib, 64),
            (64 * tib - 1, 64),
            (64 * tib, 128),
            (u64::MAX, 128),
        ] {
            assert_eq!(pack_len(stored), mib << 20, "{stored}");
        }
    }
}
