//! Describes for users who ask for details (`-v`) what a prune does with each pack, and, for those who ask for reasons (`-vv`), why.

use crate::catalogue::SegmentRef;
use crate::engine::prune::collect::Pass;
use crate::engine::prune::collect::plan::{CollectPlan, PackUse};
use crate::limits::part_of;
use crate::pack::reader::object_key;

/// The plan for all packs, and the limits.
struct Planned<'p> {
    plan: &'p CollectPlan,
    /// Unneeded bytes that may stay.
    may_stay: u64,
    /// Unneeded bytes that stay, in packs that could be deleted.
    stays: u64,
}

/// Reports each pack that is deleted, at once or after copying; with reasons also those that stay.
pub(super) fn tell(pass: &Pass<'_>) {
    let progress = pass.progress;
    if !progress.wants_details() {
        return;
    }
    let needed: u64 = pass.uses.iter().map(PackUse::used).sum();
    let fixed: u64 = pass.uses.iter().filter(|pack| !pack.condemned && !pack.free).map(PackUse::unused).sum();
    let planned = Planned {
        plan: &pass.plan,
        may_stay: part_of(needed, pass.options.max_unused),
        stays: pass.plan.bytes_unused.saturating_sub(fixed),
    };
    for pack in &pass.uses {
        let Some(info) = pass.infos.get(&pack.number) else { continue };
        let (mark, why) = planned.why(pack);
        let key = object_key(info.kind, info.name);
        if progress.wants_reasons() {
            progress.detail(&format!("{mark} {key} ({why})"));
        } else if mark != '=' {
            progress.detail(&format!("{mark} {key}"));
        }
    }
}

impl Planned<'_> {
    /// The effect on a pack (`-` it is deleted, `M` it is deleted after its needed chunks are copied, `=` it stays), and the reason.
    fn why(&self, pack: &PackUse) -> (char, String) {
        let (unused, len) = (pack.unused(), pack.len);
        let part = if unused == 0 {
            "all in it is needed".to_owned()
        } else {
            format!("{unused} of {len} bytes are not needed")
        };
        if self.plan.dead.contains(&pack.number) {
            let why =
                if pack.condemned { "it was given up, and everyone has seen that" } else { "no snapshot needs it" };
            return ('-', format!("{why}; {len} bytes"));
        }
        if self.plan.moved.contains(&pack.number) {
            if pack.condemned {
                return ('M', format!("it was given up, but something in it is needed; {part}"));
            }
            let again = (0..).zip(&pack.segments).filter(|(number, segment)| {
                let segment_ref = SegmentRef { pack: pack.number, segment: *number };
                segment.live > 0 && segment.unused() > 0 && !self.plan.carried.contains(&segment_ref)
            });
            let (again, all) = (again.count(), pack.segments.len());
            return (
                'M',
                match (unused, again) {
                    (0, _) => format!("it is small, and many small ones become one; {part}"),
                    (_, 0) => part,
                    _ => format!("{part}; {again} of {all} segments are compressed again"),
                },
            );
        }
        let why = if pack.condemned && !pack.free {
            "it was given up, which others have still to see"
        } else if pack.condemned {
            "it was given up, but what is needed of it is more than may be copied"
        } else if !pack.free && !pack.live() {
            "nobody needs it, but it may belong to work that goes on"
        } else if unused == 0 {
            return ('=', part);
        } else if !pack.free {
            "work goes on that may rely on it"
        } else if self.stays > self.may_stay {
            "no more may be copied"
        } else {
            "so much may stay"
        };
        ('=', format!("{why}; {part}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::engine::prune::collect::plan::SegmentUse;

    fn pack(number: u32, live: &[u32], condemned: bool, free: bool) -> PackUse {
        let segments = live.iter().map(|live| SegmentUse { sealed: 100, raw: 100, live: *live }).collect();
        PackUse { number, meta: false, len: 100 * live.len() as u64, segments, condemned, free }
    }

    #[test]
    fn each_pack_has_a_reason() {
        let plan = CollectPlan {
            dead: vec![1, 2],
            moved: vec![3, 4, 5, 6],
            carried: HashSet::from([SegmentRef { pack: 5, segment: 0 }]),
            ..CollectPlan::default()
        };
        let check = |stays: u64, pack: PackUse, mark: char, expected: &str| {
            let (found, why) = Planned { plan: &plan, may_stay: 10, stays }.why(&pack);
            assert_eq!((found, why.as_str()), (mark, expected));
        };
        check(0, pack(1, &[0], false, true), '-', "no snapshot needs it; 100 bytes");
        check(0, pack(2, &[0], true, true), '-', "it was given up, and everyone has seen that; 100 bytes");
        let again = "it was given up, but something in it is needed; 99 of 100 bytes are not needed";
        check(0, pack(3, &[1], true, true), 'M', again);
        let small = "it is small, and many small ones become one; all in it is needed";
        check(0, pack(4, &[100], false, true), 'M', small);
        check(0, pack(5, &[90], false, true), 'M', "10 of 100 bytes are not needed");
        let part = "90 of 200 bytes are not needed; 1 of 2 segments are compressed again";
        check(0, pack(6, &[10, 100], false, true), 'M', part);
        check(0, pack(7, &[100], false, true), '=', "all in it is needed");
        check(10, pack(7, &[99], false, true), '=', "so much may stay; 1 of 100 bytes are not needed");
        check(11, pack(7, &[99], false, true), '=', "no more may be copied; 1 of 100 bytes are not needed");
        let seen = "it was given up, which others have still to see; 100 of 100 bytes are not needed";
        check(0, pack(7, &[0], true, false), '=', seen);
        let work = "nobody needs it, but it may belong to work that goes on; 100 of 100 bytes are not needed";
        check(0, pack(7, &[0], false, false), '=', work);
    }
}
