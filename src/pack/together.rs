//! Places of segments in packs, and which of them are read with one request.

use std::ops::Range;

use bytes::Bytes;

use crate::id::ObjectName;
use crate::seal::{HEADER_LEN, ObjectKind};

/// The most bytes to read with one request.
const TOGETHER_MAX: u64 = 8 << 20;
/// The most bytes between two wanted parts of a pack that are read along with them: another request would take longer.
pub(super) const GAP: u64 = 256 << 10;

/// Position of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentPlace {
    /// Pack or meta pack.
    pub kind: ObjectKind,
    /// The pack.
    pub pack: ObjectName,
    /// Number of the segment in the pack.
    pub number: u32,
    /// Offset in the pack, in bytes.
    pub offset: u64,
    /// Its sealed length, in bytes.
    pub len: u32,
}

/// The sealed bytes of neighbouring segments.
#[derive(Debug, Clone)]
pub struct Together {
    /// The offset of the first byte in the pack.
    pub(super) from: u64,
    pub(super) bytes: Bytes,
}

impl Together {
    /// The header of the pack, if it was read along.
    pub fn header(&self) -> Option<Bytes> {
        (self.from == 0 && self.bytes.len() >= HEADER_LEN).then(|| self.bytes.slice(..HEADER_LEN))
    }

    /// The sealed bytes of one of the segments.
    pub fn part(&self, place: &SegmentPlace) -> Option<Bytes> {
        let start = usize::try_from(place.offset.checked_sub(self.from)?).ok()?;
        let end = start.checked_add(place.len as usize)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

/// Number of bytes from the begin of one segment to the end of a later one of the same pack.
pub fn span(first: &SegmentPlace, last: &SegmentPlace) -> u64 {
    (last.offset + u64::from(last.len)).saturating_sub(first.offset)
}

/// The segments around one of a pack that are worth reading along with it, if nothing of the pack was read before: as
/// many as the most bytes of a gap hold, those before it first, since then the header comes along.
pub fn around(places: &[SegmentPlace], wanted: usize) -> Range<usize> {
    let Some(place) = places.get(wanted) else { return 0..0 };
    let end = place.offset + u64::from(place.len);
    let begins = places[..wanted].iter().rposition(|before| end.saturating_sub(before.offset) > GAP);
    let start = begins.map_or(0, |far| far + 1);
    let behind = places[wanted + 1..].iter().take_while(|next| span(&places[start], next) <= GAP).count();
    start..wanted + 1 + behind
}

/// The ranges of segments to read with one request each. The segments are sorted by pack and number; the places of some
/// may be unknown. Those of a meta pack are read one by one, since each may be kept on this machine.
pub fn runs(places: &[Option<SegmentPlace>]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let continues = runs.last().and_then(|run| {
            let (first, last, next) = (places[run.start]?, places[run.end - 1]?, (*place)?);
            let gap = next.offset.checked_sub(last.offset + u64::from(last.len))?;
            let is_near = next.pack == last.pack && gap <= GAP && span(&first, &next) <= TOGETHER_MAX;
            Some(is_near && next.kind == ObjectKind::Pack)
        });
        match runs.last_mut() {
            Some(run) if continues == Some(true) => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_together() {
        let place = |kind, pack, number, offset, len| {
            Some(SegmentPlace { kind, pack: ObjectName::new([pack; 16]), number, offset, len })
        };
        let near = |number: u32| place(ObjectKind::Pack, 1, number, u64::from(number) * (2 << 20), 2 << 20);
        // Four of 2 MiB fill a request.
        let places: Vec<_> = (0..7).map(near).collect();
        assert_eq!(runs(&places), [0..4, 4..7]);
        // What is left out between them is read along if it is short.
        let short = place(ObjectKind::Pack, 1, 9, (1 << 20) + GAP, 1000);
        let long = place(ObjectKind::Pack, 1, 9, (1 << 20) + GAP + 1, 1000);
        let first = place(ObjectKind::Pack, 1, 0, 0, 1 << 20);
        assert_eq!(runs(&[first, short]), [Range { start: 0, end: 2 }]);
        assert_eq!(runs(&[first, long]), [0..1, 1..2]);
        // Another pack, a meta pack, an unknown place, and what the catalogue puts in the wrong order.
        let other = place(ObjectKind::Pack, 2, 1, 1 << 20, 1000);
        let meta = |number: u32| place(ObjectKind::Meta, 3, number, u64::from(number) * 1000, 1000);
        assert_eq!(runs(&[first, other, meta(0), meta(1), None, None]), [0..1, 1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(runs(&[near(1), near(0)]), [0..1, 1..2]);
        // Around one of a pack: from the begin as far as that is near, and at least itself.
        let sixths: Vec<_> = (0..10)
            .filter_map(|number| place(ObjectKind::Meta, 3, number, u64::from(number) * GAP / 6, 40 << 10))
            .collect();
        assert_eq!((around(&sixths, 0), around(&sixths, 2), around(&sixths, 5)), (0..6, 0..6, 0..6));
        assert_eq!((around(&sixths, 6), around(&sixths, 9), around(&sixths, 10)), (1..7, 4..10, 0..0));
        let long: Vec<_> = (0..3).filter_map(near).collect();
        assert_eq!((around(&long, 0), around(&long, 1), around(&long, 2)), (0..1, 1..2, 2..3));
        // A segment longer than the bound is read alone.
        let huge = |number: u32| place(ObjectKind::Pack, 1, number, u64::from(number) * (9 << 20), 9 << 20);
        assert_eq!(runs(&[huge(0), huge(1)]), [0..1, 1..2]);
    }
}
