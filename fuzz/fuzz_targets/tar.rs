//! An archive: whatever its headers say, no more is read from it than it has, and the parts of a sparse file are in
//! order and within its size.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use vault::engine::archive::BLOCK;
use vault::engine::archive::read::ArchiveReader;

/// The position of the checksum in a header.
const SUM: std::ops::Range<usize> = 148..156;

fuzz_target!(|bytes: &[u8]| {
    let Some((fit, bytes)) = bytes.split_first() else { return };
    let mut archive = bytes.to_vec();
    if fit & 1 == 1 {
        // Set valid checksums, so that the fields behind them are reached.
        for block in archive.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
            block[SUM].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    let mut reader = ArchiveReader::new(archive.as_slice());
    let mut total = 0;
    while let Ok(Some(member)) = reader.next_member() {
        let mut content = Vec::new();
        let whole = reader.read_to_end(&mut content).is_ok();
        total += content.len();
        assert!(total <= archive.len() && reader.position() <= archive.len() as u64);
        assert!(member.xattrs.is_sorted_by(|(a, _), (b, _)| a < b), "each name once, in order");
        let Some(parts) = member.parts else { continue };
        let mut last = 0;
        for (from, until) in &parts {
            assert!(last <= *from && from < until && *until <= member.size, "{parts:?} of {}", member.size);
            last = *until;
        }
        let data: u64 = parts.iter().map(|(from, until)| until - from).sum();
        assert!(!whole || data == content.len() as u64);
    }
});
