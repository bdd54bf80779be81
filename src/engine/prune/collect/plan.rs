//! Plans which packs to delete, and what to copy out of them: pure planning.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::catalogue::SegmentRef;
use crate::limits::{PACK_LEN, part_of};

/// Length below which packs are small. It does not grow with full packs: in a vault that has just grown, all packs
/// would be copied otherwise.
const SMALL_LEN: u64 = PACK_LEN as u64 / 4;
/// Number of small packs of one kind that are worth merging.
const SMALL_COUNT: usize = 8;

/// How much of a segment is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentUse {
    /// Its length in the pack, in bytes.
    pub sealed: u32,
    /// Bytes of chunks in it.
    pub raw: u32,
    /// Bytes of its chunks that are needed from here.
    pub live: u32,
}

impl SegmentUse {
    /// Sealed bytes that are not needed, as if they were spread evenly; rounded up, so that any unneeded chunk counts.
    pub fn unused(self) -> u64 {
        let unneeded = u64::from(self.raw - self.live.min(self.raw));
        (u64::from(self.sealed) * unneeded).div_ceil(u64::from(self.raw.max(1)))
    }

    /// Extra cost of compressing it again instead of copying it whole, as the number of bytes that could be copied in that time. Opening
    /// and hashing a byte takes about a quarter as long as copying one durably, compressing and verifying it as long.
    fn again(self) -> u64 {
        u64::from(self.raw) / 4 + u64::from(self.live)
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
    /// Whether it is condemned already.
    pub condemned: bool,
    /// Whether nothing but its needed chunks keeps it from being deleted (for condemned packs), or from being condemned.
    pub free: bool,
}

impl PackUse {
    /// Whether anything in it is needed.
    pub fn live(&self) -> bool {
        self.segments.iter().any(|segment| segment.live > 0)
    }

    /// Sealed bytes that are not needed, approximately.
    pub fn unused(&self) -> u64 {
        self.segments.iter().map(|segment| segment.unused()).sum()
    }

    /// Sealed bytes of segments of which anything is needed.
    fn touched(&self) -> u64 {
        self.segments.iter().filter(|segment| segment.live > 0).map(|segment| u64::from(segment.sealed)).sum()
    }

    /// Sealed bytes that are needed, approximately.
    pub fn used(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.sealed) - segment.unused()).sum()
    }
}

/// The plan of a prune.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectPlan {
    /// Packs in which nothing is needed: condemned ones that can be deleted, and others.
    pub dead: Vec<u32>,
    /// Packs to delete after their needed chunks are copied: the most worthwhile first.
    pub moved: Vec<u32>,
    /// Segments that are copied whole although not everything in them is needed.
    pub carried: HashSet<SegmentRef>,
    /// Size of the packs to delete, in bytes.
    pub bytes_freed: u64,
    /// Number of bytes to copy, approximately.
    pub bytes_moved: u64,
    /// Unneeded bytes that stay.
    pub bytes_unused: u64,
}

/// A step that frees unused bytes, and its cost.
#[derive(Debug, Clone, Copy)]
struct Step {
    freed: u64,
    cost: u64,
}

impl Step {
    /// Orders the better step first: the one that frees more for its cost.
    fn order(&self, other: &Self) -> Ordering {
        let value = |a: &Self, b: &Self| u128::from(a.freed) * u128::from(b.cost);
        value(other, self).cmp(&value(self, other))
    }
}

/// The options for one pack: delete it after copying its needed chunks and, in addition, compress again some of its partly needed
/// segments, so that their unneeded chunks are not copied.
struct Choice<'p> {
    pack: &'p PackUse,
    /// Its partly needed segments, the better first.
    segments: Vec<(u32, Step)>,
    /// Deleting it while compressing again this many of the first segments, which is better than without.
    whole: (Step, usize),
    /// If it is to be deleted: the number of segments to compress again.
    taken: Option<usize>,
}

impl<'p> Choice<'p> {
    fn new(pack: &'p PackUse) -> Self {
        let step = |segment: &SegmentUse| Step { freed: segment.unused(), cost: segment.again() };
        let segments = (0..).zip(&pack.segments).filter(|(_, segment)| segment.live > 0);
        let mut segments: Vec<(u32, Step)> = segments.map(|(number, segment)| (number, step(segment))).collect();
        segments.retain(|(_, step)| step.freed > 0);
        segments.sort_by(|(a, step), (b, other)| step.order(other).then(a.cmp(b)));
        let mut whole = (Self::base(pack), 0);
        for (_, step) in &segments {
            if step.order(&whole.0) != Ordering::Less {
                break;
            }
            whole = (Step { freed: whole.0.freed + step.freed, cost: whole.0.cost + step.cost }, whole.1 + 1);
        }
        Self { pack, segments, whole, taken: None }
    }

    /// Deleting the pack without compressing anything again.
    fn base(pack: &PackUse) -> Step {
        let sealed: u64 = pack.segments.iter().map(|segment| u64::from(segment.sealed)).sum();
        Step { freed: sealed - pack.touched(), cost: pack.touched().max(1) }
    }

    /// The cheapest way to free this much by deleting this pack: its cost, and the number of segments to compress again.
    fn reach(&self, rest: u64) -> Option<(u64, usize)> {
        let (mut sum, mut count) = (Self::base(self.pack), 0);
        while sum.freed < rest {
            let (_, step) = self.segments.get(count)?;
            sum = Step { freed: sum.freed + step.freed, cost: sum.cost + step.cost };
            count += 1;
        }
        Some((sum.cost, count))
    }

    /// Bytes to copy if this many of the first segments are compressed again.
    fn moved(&self, count: usize) -> u64 {
        self.pack.touched() - self.segments.iter().take(count).map(|(_, step)| step.freed).sum::<u64>()
    }
}

/// The choices made so far.
struct Chosen<'p> {
    choices: Vec<Choice<'p>>,
    /// Segments to compress again in addition: the choice, the segment, and the effect.
    again: Vec<(usize, u32, Step)>,
    freed: u64,
    moved: u64,
    max_moved: u64,
}

impl Chosen<'_> {
    /// Chooses to delete a pack, compressing again this many of its segments, or more if otherwise too much would have to be copied. If
    /// it is too much in any case, the pack stays.
    fn take(&mut self, index: usize, mut count: usize) {
        let choice = &mut self.choices[index];
        let (mut moved, room) = (choice.moved(count), self.max_moved - self.moved);
        while moved > room && count < choice.segments.len() {
            moved -= choice.segments[count].1.freed;
            count += 1;
        }
        if choice.taken.is_some() || moved > room {
            return;
        }
        choice.taken = Some(count);
        self.moved += moved;
        self.freed += Choice::base(choice.pack).freed;
        for (segment, step) in &choice.segments[..count] {
            self.freed += step.freed;
            self.again.push((index, *segment, *step));
        }
    }

    /// Frees this much with as little work as can be found: the steps that free most for their cost come first, and the last one is the
    /// cheapest that is sufficient.
    fn free(&mut self, goal: u64) {
        let mut steps: Vec<(Step, usize, Option<usize>)> = Vec::new();
        for (index, choice) in self.choices.iter().enumerate() {
            if choice.taken.is_none() {
                steps.push((choice.whole.0, index, None));
            }
            let alone = (0..).zip(&choice.segments).skip(choice.taken.unwrap_or(choice.whole.1));
            steps.extend(alone.map(|(at, (_, step))| (*step, index, Some(at))));
        }
        steps.retain(|(step, ..)| step.freed > 0);
        // Segments that are not part of deleting their pack are worth less than that, so they come after it.
        steps.sort_by(|(step, a, x), (other, b, y)| step.order(other).then(a.cmp(b)).then(x.cmp(y)));
        for (step, index, at) in steps {
            let rest = goal.saturating_sub(self.freed);
            if rest == 0 {
                break;
            }
            if let Some(at) = at {
                // Has no effect if the pack stays because too much would have to be copied, or if the segment was chosen together with
                // the pack.
                let choice = &self.choices[index];
                if choice.taken.is_some_and(|taken| at >= taken) {
                    self.freed += step.freed;
                    self.moved -= step.freed;
                    self.again.push((index, choice.segments[at].0, step));
                }
            } else {
                let last = (step.freed >= rest).then(|| self.cheapest(rest)).flatten();
                let (index, count) = last.unwrap_or((index, self.choices[index].whole.1));
                self.take(index, count);
            }
        }
        self.spare(goal);
    }

    /// The pack that frees this much with the least work, and the number of its segments to compress again for that.
    fn cheapest(&self, rest: u64) -> Option<(usize, usize)> {
        let others = self.choices.iter().enumerate().filter(|(_, choice)| choice.taken.is_none());
        let reach = |(index, choice): (usize, &Choice<'_>)| {
            let (cost, count) = choice.reach(rest)?;
            (choice.moved(count) <= self.max_moved - self.moved).then_some((cost, index, count))
        };
        others.filter_map(reach).min().map(|(_, index, count)| (index, count))
    }

    /// Drops steps that turned out to be unnecessary, the poorest first.
    fn spare(&mut self, goal: u64) {
        self.again.sort_by(|(a, x, step), (b, y, other)| step.order(other).then(a.cmp(b)).then(x.cmp(y)));
        for at in (0..self.again.len()).rev() {
            let (_, _, step) = self.again[at];
            if self.freed - step.freed >= goal && step.freed <= self.max_moved - self.moved {
                self.freed -= step.freed;
                self.moved += step.freed;
                self.again.remove(at);
            }
        }
    }

    /// Merges small packs if there are many, whatever that frees.
    fn merge_small(&mut self) {
        for meta in [false, true] {
            let is_small = |choice: &Choice<'_>| choice.pack.meta == meta && choice.pack.len < SMALL_LEN;
            let small: Vec<usize> = (0..self.choices.len()).filter(|index| is_small(&self.choices[*index])).collect();
            if small.len() >= SMALL_COUNT {
                small.into_iter().for_each(|index| self.take(index, 0));
            }
        }
    }
}

/// Plans a prune. `max_unused` is the allowed ratio of unneeded to needed bytes; at most `max_moved` bytes are copied.
pub fn plan(packs: &[PackUse], max_unused: f64, max_moved: u64) -> CollectPlan {
    let mut plan = CollectPlan::default();
    for pack in packs.iter().filter(|pack| pack.free && !pack.live()) {
        plan.dead.push(pack.number);
        plan.bytes_freed += pack.len;
    }
    // The needed chunks of condemned packs have to be copied before these can be deleted.
    for pack in packs.iter().filter(|pack| pack.condemned && pack.free && pack.live()) {
        if pack.used() <= max_moved - plan.bytes_moved {
            plan.moved.push(pack.number);
            plan.bytes_moved += pack.used();
            plan.bytes_freed += pack.len;
        }
    }
    let fixed: u64 = packs.iter().filter(|pack| !pack.condemned && !pack.free).map(PackUse::unused).sum();
    let needed: u64 = packs.iter().map(PackUse::used).sum();
    let partly = packs.iter().filter(|pack| !pack.condemned && pack.free && pack.live());
    let choices: Vec<Choice<'_>> = partly.map(Choice::new).collect();
    let unused: u64 = choices.iter().map(|choice| choice.pack.unused()).sum();
    let max_moved = max_moved - plan.bytes_moved;
    let mut chosen = Chosen { choices, again: Vec::new(), freed: 0, moved: 0, max_moved };
    chosen.merge_small();
    chosen.free(unused.saturating_sub(part_of(needed, max_unused)));
    let again: HashSet<(usize, u32)> = chosen.again.iter().map(|(index, segment, _)| (*index, *segment)).collect();
    let mut taken: Vec<(usize, &Choice<'_>)> =
        chosen.choices.iter().enumerate().filter(|(_, c)| c.taken.is_some()).collect();
    taken.sort_by(|(_, a), (_, b)| a.whole.0.order(&b.whole.0).then(a.pack.number.cmp(&b.pack.number)));
    for (index, choice) in taken {
        plan.moved.push(choice.pack.number);
        plan.bytes_freed += choice.pack.len;
        let carried =
            choice.segments.iter().map(|(number, _)| *number).filter(|number| !again.contains(&(index, *number)));
        plan.carried.extend(carried.map(|segment| SegmentRef { pack: choice.pack.number, segment }));
    }
    plan.bytes_moved += chosen.moved;
    plan.bytes_unused = unused.saturating_sub(chosen.freed) + fixed;
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pack of segments of 1000 raw and 100 sealed bytes each, with these numbers of needed bytes.
    fn pack(number: u32, live: &[u32]) -> PackUse {
        let segments = live.iter().map(|live| SegmentUse { sealed: 100, raw: 1000, live: *live }).collect();
        PackUse { number, meta: false, len: PACK_LEN as u64, segments, condemned: false, free: true }
    }

    fn check(packs: &[PackUse], max_unused: f64, max_moved: u64, dead: &[u32], moved: &[u32], carried: &[(u32, u32)]) {
        let plan = plan(packs, max_unused, max_moved);
        assert_eq!(plan.dead, dead, "dead");
        assert_eq!(plan.moved, moved, "moved");
        let carried = carried.iter().map(|(pack, segment)| SegmentRef { pack: *pack, segment: *segment });
        assert_eq!(plan.carried, carried.collect(), "carried");
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
    fn a_few_bytes_among_many_that_got_short_go_where_nothing_may_stay() {
        let tiny = SegmentUse { sealed: 400, raw: 2_000_000, live: 1_999_994 };
        assert_eq!(tiny.unused(), 1);
        for segment in [tiny, SegmentUse { live: 0, ..tiny }, SegmentUse { raw: 0, live: 0, ..tiny }] {
            assert!(segment.unused() <= u64::from(segment.sealed));
        }
        let packs = [PackUse { segments: vec![tiny], len: 500, free: true, ..pack(1, &[]) }];
        assert_eq!(plan(&packs, 0.0, u64::MAX).moved, [1]);
        assert!(plan(&packs, 0.05, u64::MAX).moved.is_empty());
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
    fn what_holds_little_else_is_compressed_again_and_the_rest_is_carried() {
        // Two thirds of the unneeded bytes are in two segments: deleting both packs because of these is cheaper than compressing all of
        // one of them.
        let mostly = |number| {
            let mut live = vec![950; 40];
            live[7] = 100;
            pack(number, &live)
        };
        let packs = [mostly(1), mostly(2), pack(3, &[900; 40])];
        let plan = plan(&packs, 0.072, u64::MAX);
        assert_eq!(plan.moved, [1, 2], "{plan:?}");
        let is_carried = |pack| plan.carried.contains(&SegmentRef { pack, segment: 7 });
        assert!(!is_carried(1) && !is_carried(2));
        assert!(plan.carried.len() >= 70, "{}", plan.carried.len());
        let needed: u64 = packs.iter().map(PackUse::used).sum();
        assert!(plan.bytes_unused <= part_of(needed, 0.072), "{plan:?}");
    }

    #[test]
    fn never_more_is_left_or_copied_than_was_said() {
        let mut dice = 1_u64;
        let mut roll = |bound: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) % bound
        };
        for _ in 0..2000 {
            let packs: Vec<PackUse> = (1..=1 + roll(6) as u32)
                .map(|number| {
                    let live: Vec<u32> = (0..=roll(8))
                        .map(|_| match roll(4) {
                            0 => 0,
                            1 => 1000,
                            _ => roll(1000) as u32,
                        })
                        .collect();
                    PackUse { len: 100 + roll(2) * PACK_LEN as u64, ..pack(number, &live) }
                })
                .collect();
            let (max_unused, max_moved) = ([0.0, 0.05, 0.3][roll(3) as usize], [u64::MAX, roll(900)][roll(2) as usize]);
            let plan = plan(&packs, max_unused, max_moved);
            let needed: u64 = packs.iter().map(PackUse::used).sum();
            let (mut left, mut moved) = (0, 0);
            for pack in packs.iter().filter(|pack| !plan.dead.contains(&pack.number)) {
                let stays = !plan.moved.contains(&pack.number);
                for (number, segment) in (0..).zip(&pack.segments) {
                    let carried = plan.carried.contains(&SegmentRef { pack: pack.number, segment: number });
                    assert!(!carried || segment.live > 0, "{plan:?} of {packs:?}");
                    left += if stays || carried { segment.unused() } else { 0 };
                    let copied = if carried { 0 } else { segment.unused() };
                    moved += if stays || segment.live == 0 { 0 } else { u64::from(segment.sealed) - copied };
                }
            }
            assert_eq!((left, moved), (plan.bytes_unused, plan.bytes_moved), "{plan:?} of {packs:?}");
            assert!(moved <= max_moved, "{plan:?} of {packs:?}");
            if max_moved == u64::MAX {
                assert!(left <= part_of(needed, max_unused), "{plan:?} of {packs:?}");
            }
        }
    }

    #[test]
    fn many_small_packs_are_merged() {
        let small = |number| PackUse { len: 1 << 20, ..pack(number, &[1000]) };
        let packs: Vec<_> = (1..=8).map(small).collect();
        check(&packs[..7], 0.05, u64::MAX, &[], &[], &[]);
        check(&packs, 0.05, u64::MAX, &[], &[1, 2, 3, 4, 5, 6, 7, 8], &[]);
    }
}
