//! Which packs are given up, and what is copied out of them: pure planning.

use std::collections::HashSet;

use crate::limits::PACK_LEN;

/// Packs below this length are small.
const SMALL_LEN: u64 = PACK_LEN as u64 / 4;
/// So many small packs of one kind are merged.
const SMALL_COUNT: usize = 8;

/// How much of a segment is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentUse {
    /// Its length in the pack, in bytes.
    pub sealed: u32,
    /// Bytes of chunks in it.
    pub raw: u32,
    /// Bytes of chunks that are needed from here.
    pub live: u32,
}

impl SegmentUse {
    /// Sealed bytes that nobody needs, as if they were spread evenly.
    fn unused(self) -> u64 {
        u64::from(self.sealed) * u64::from(self.raw - self.live.min(self.raw)) / u64::from(self.raw.max(1))
    }
}

/// How much of a pack is needed.
#[derive(Debug, Clone, Default)]
pub struct PackUse {
    /// Its number in the catalogue.
    pub number: u32,
    /// Whether it is a meta pack.
    pub meta: bool,
    /// Its length, in bytes.
    pub len: u64,
    /// Its segments.
    pub segments: Vec<SegmentUse>,
    /// It is condemned already.
    pub condemned: bool,
    /// Nothing but what it holds keeps it from being deleted (of condemned packs), or from being condemned.
    pub free: bool,
}

impl PackUse {
    fn live(&self) -> bool {
        self.segments.iter().any(|segment| segment.live > 0)
    }

    fn unused(&self) -> u64 {
        self.segments.iter().map(|segment| segment.unused()).sum()
    }

    /// Sealed bytes that are needed, about.
    pub fn used(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.sealed) - segment.unused()).sum()
    }
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectPlan {
    /// Packs that nobody needs: condemned ones that can be deleted, and others.
    pub dead: Vec<u32>,
    /// Packs from which something is copied, to be given up then: the most worthwhile first.
    pub moved: Vec<u32>,
    /// Segments (pack, number) that are copied as a whole although not all in them is needed.
    pub carried: HashSet<(u32, u32)>,
    /// Bytes that packs to be deleted have.
    pub bytes_freed: u64,
    /// Bytes that are copied, about.
    pub bytes_moved: u64,
    /// Bytes that nobody needs and that stay.
    pub bytes_unused: u64,
}

/// A part (0 to 1) of so many bytes, rounded up.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a part is given to a few digits, and not negative"
)]
pub fn part_of(bytes: u64, part: f64) -> u64 {
    (bytes as f64 * part.clamp(0.0, 1.0)).ceil() as u64
}

/// Plans a collection. `max_unused` is the part of the needed bytes that may stay unused; no more than `max_moved` bytes are
/// copied.
pub fn plan(packs: &[PackUse], max_unused: f64, max_moved: u64) -> CollectPlan {
    let mut plan = CollectPlan::default();
    let mut left = max_moved;
    let mut take = |plan: &mut CollectPlan, pack: &PackUse| {
        let used = pack.used();
        if used > left {
            return false;
        }
        left -= used;
        plan.moved.push(pack.number);
        plan.bytes_moved += used;
        plan.bytes_freed += pack.len;
        true
    };
    for pack in packs.iter().filter(|pack| pack.free && !pack.live()) {
        plan.dead.push(pack.number);
        plan.bytes_freed += pack.len;
    }
    // What is needed of condemned packs has to be saved before they can go.
    for pack in packs.iter().filter(|pack| pack.condemned && pack.free && pack.live()) {
        take(&mut plan, pack);
    }
    let mut partly: Vec<&PackUse> = packs.iter().filter(|pack| !pack.condemned && pack.free && pack.live()).collect();
    let fixed: u64 = packs.iter().filter(|pack| !pack.condemned && !pack.free).map(PackUse::unused).sum();
    let needed: u64 = packs.iter().map(PackUse::used).sum();
    let allowed = part_of(needed, max_unused);
    let mut unused: u64 = partly.iter().map(|pack| pack.unused()).sum();
    // The largest unused part first.
    let part = |a: &PackUse, b: &PackUse| u128::from(a.unused()) * u128::from(b.len);
    partly.sort_by(|a, b| part(b, a).cmp(&part(a, b)).then(a.number.cmp(&b.number)));
    let mut chosen: HashSet<u32> = HashSet::new();
    for pack in &partly {
        if unused <= allowed || pack.unused() == 0 {
            break;
        }
        if chosen.contains(&pack.number) {
            continue;
        }
        // If several would do for the last step, the one of which the least has to be copied.
        let over = unused - allowed;
        let last = (pack.unused() >= over).then(|| {
            let others = partly.iter().filter(|other| other.unused() >= over && !chosen.contains(&other.number));
            others.min_by_key(|other| (other.used(), other.number))
        });
        let pack = last.flatten().unwrap_or(pack);
        if take(&mut plan, pack) {
            chosen.insert(pack.number);
            unused -= pack.unused();
        }
    }
    // What may stay unused saves compressing again: of the packs that are copied, the segments with the least dead in them
    // are copied as they are.
    let mut segments: Vec<(u64, u64, (u32, u32))> = Vec::new();
    for pack in partly.iter().filter(|pack| chosen.contains(&pack.number)) {
        for (number, segment) in pack.segments.iter().enumerate().filter(|(_, segment)| segment.live > 0) {
            let dead = segment.unused();
            if dead > 0 {
                segments.push((
                    dead * 1_000_000 / u64::from(segment.sealed.max(1)),
                    dead,
                    (pack.number, number as u32),
                ));
            }
        }
    }
    segments.sort_unstable();
    for (_, dead, segment) in segments {
        if unused + dead > allowed {
            break;
        }
        unused += dead;
        plan.bytes_moved += dead;
        plan.carried.insert(segment);
    }
    for meta in [false, true] {
        let is_small = |pack: &&&PackUse| {
            pack.meta == meta && pack.len < SMALL_LEN && !chosen.contains(&pack.number) && !pack.segments.is_empty()
        };
        let small: Vec<&&PackUse> = partly.iter().filter(is_small).collect();
        if small.len() >= SMALL_COUNT {
            for pack in small {
                if take(&mut plan, pack) {
                    unused -= pack.unused();
                }
            }
        }
    }
    plan.bytes_unused = unused + fixed;
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pack of segments of 1000 raw and 100 sealed bytes each, of which so many are needed.
    fn pack(number: u32, live: &[u32]) -> PackUse {
        let segments = live.iter().map(|live| SegmentUse { sealed: 100, raw: 1000, live: *live }).collect();
        PackUse { number, meta: false, len: PACK_LEN as u64, segments, condemned: false, free: true }
    }

    fn check(packs: &[PackUse], max_unused: f64, max_moved: u64, dead: &[u32], moved: &[u32], carried: &[(u32, u32)]) {
        let plan = plan(packs, max_unused, max_moved);
        assert_eq!(plan.dead, dead, "dead");
        assert_eq!(plan.moved, moved, "moved");
        assert_eq!(plan.carried, carried.iter().copied().collect(), "carried");
    }

    #[test]
    fn dead_packs_go_and_whole_ones_stay() {
        check(&[pack(1, &[0, 0]), pack(2, &[1000, 1000])], 0.05, u64::MAX, &[1], &[], &[]);
        let held = PackUse { free: false, ..pack(1, &[0]) };
        check(&[held], 0.0, u64::MAX, &[], &[], &[]);
        let condemned = PackUse { condemned: true, ..pack(1, &[0]) };
        check(&[condemned, PackUse { condemned: true, ..pack(2, &[10]) }], 1.0, u64::MAX, &[1], &[2], &[]);
    }

    #[test]
    fn the_worst_are_copied_until_little_enough_is_unused() {
        let packs = [pack(1, &[900, 1000]), pack(2, &[100, 500]), pack(3, &[1000, 700])];
        check(&packs, 0.0, u64::MAX, &[], &[2, 3, 1], &[]);
        check(&packs, 0.1, u64::MAX, &[], &[2], &[]);
        check(&packs, 1.0, u64::MAX, &[], &[], &[]);
        check(&packs, 0.0, 70, &[], &[2], &[]);
        // 30 of 420 may stay: pack 2 goes, the first segment of pack 1 would still fit.
        let packs = [pack(1, &[1000, 1000]), pack(2, &[950, 100]), pack(3, &[1000])];
        check(&packs, 0.05, u64::MAX, &[], &[2], &[(2, 0)]);
    }

    #[test]
    fn the_last_step_copies_the_least_that_will_do() {
        // 50 of 650 may stay. Pack 1 has the worst part, and then pack 3 is enough, though pack 2 is worse.
        let packs = [
            pack(1, &[100, 100, 1000]),
            pack(2, &[800, 800, 800, 800]),
            PackUse { len: 100 << 20, ..pack(3, &[200, 1000]) },
        ];
        let plan = plan(&packs, 0.2, u64::MAX);
        assert_eq!(plan.moved, [1, 3]);
        assert!(plan.bytes_unused <= part_of(560, 0.2), "{plan:?}");
    }

    #[test]
    fn many_small_packs_are_merged() {
        let small = |number| PackUse { len: 1 << 20, ..pack(number, &[1000]) };
        let packs: Vec<_> = (1..=8).map(small).collect();
        check(&packs[..7], 0.05, u64::MAX, &[], &[], &[]);
        check(&packs, 0.05, u64::MAX, &[], &[1, 2, 3, 4, 5, 6, 7, 8], &[]);
    }
}
