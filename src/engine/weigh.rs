//! How much forgetting each snapshot would free, weighed instead of reckoned.
//!
//! What lies in segments in which nothing else is needed is freed as it is. From other segments a prune takes what is still
//! needed and compresses it again, and how much smaller that is than before depends on the data: what a snapshot holds alone
//! may compress better or worse than what lies beside it. So those of these segments that matter most are really compressed as
//! a prune would do it, and for the others the reckoned share (by length before compression) is corrected by what came of
//! these. If there are few, it is all of them.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::catalogue::{CatalogueError, PackInfo, Reader};
use crate::engine::mark::{MarkError, Segments};
use crate::limits::SEGMENT_TARGET;
use crate::pack::SegmentBuilder;
use crate::progress::Progress;
use crate::seal::{Compressor, Decompressor, ObjectKind};
use crate::vault::VaultError;

/// Segments that are compressed one after the other as a prune would do it.
const RUN: usize = 8;
/// So few are compressed in one go, to the last byte.
const FEW: usize = 2 * RUN;

/// By whom something is used: 0 nobody, up to the number of snapshots that one alone, beyond that several.
pub type User = u32;

/// How much is compressed to find out what a prune frees.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Bytes of chunks, of all snapshots together.
    pub bytes: u64,
    /// zstd level that a prune would use.
    pub level: i32,
}

/// What is needed of a segment.
#[derive(Debug, Default)]
struct Use {
    /// Bytes of chunks that any snapshot needs from here.
    needed: u32,
    /// Of these, what single snapshots need alone.
    alone: Vec<(User, u32)>,
}

/// A segment that holds something that only one snapshot needs.
#[derive(Debug, Clone, Copy)]
struct Affected {
    pack: u32,
    segment: u32,
    raw: u32,
    /// Bytes of chunks that nobody would need any more.
    gone: u32,
    /// What the snapshot alone needs of it, as it is stored with its part of what surrounds the segments.
    share: f64,
}

/// Segments of one kind that one snapshot affects, of which others need something too.
#[derive(Debug, Default)]
struct Group {
    segments: Vec<Affected>,
    share: f64,
}

impl Group {
    /// Bytes of chunks in its segments.
    fn raw(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.raw)).sum()
    }

    /// Runs of neighbours of about so many bytes of chunks together: those from which most would go.
    fn runs(&self, bytes: u64) -> Vec<&[Affected]> {
        if self.segments.len() <= FEW && bytes >= self.raw() {
            return vec![&self.segments];
        }
        let run = (bytes as usize / SEGMENT_TARGET).clamp(1, RUN);
        let share = |run: &&[Affected]| run.iter().map(|segment| segment.share).sum::<f64>();
        let mut runs: Vec<&[Affected]> = self.segments.chunks(run).collect();
        runs.sort_by(|a, b| share(b).total_cmp(&share(a)));
        let mut left = bytes;
        runs.retain(|run| {
            let raw: u64 = run.iter().map(|segment| u64::from(segment.raw)).sum();
            let fits = left >= raw;
            left -= if fits { raw } else { left };
            fits
        });
        runs
    }
}

/// For each user of a chunk in a segment, where the chunk begins.
type Chunks = HashMap<(u32, u32), Vec<(u32, User)>>;

#[allow(clippy::cast_precision_loss, reason = "of sizes, a part in 2⁵³ is lost")]
const fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// Weighs what each of so many snapshots holds alone. `users` says by whom each chunk is used, by its rank in the catalogue.
/// Without a sample it is only reckoned.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it. What is damaged is only reckoned.
pub fn weigh(
    reader: &Reader,
    segments: &Segments<'_>,
    infos: &BTreeMap<u32, PackInfo>,
    users: &[User],
    snapshots: usize,
    sample: Option<Sample>,
    progress: &dyn Progress,
) -> Result<Vec<u64>, MarkError> {
    let uses = uses(reader, users, snapshots)?;
    let mut sums = vec![0.0; snapshots];
    let mut groups: BTreeMap<(usize, bool), Group> = BTreeMap::new();
    for ((pack, segment), used) in uses {
        let Some((info, (sealed, raw, _))) =
            infos.get(&pack).and_then(|info| Some((info, *info.segments.get(segment as usize)?)))
        else {
            continue;
        };
        let all: u64 = info.segments.iter().map(|(sealed, ..)| u64::from(*sealed)).sum();
        let surrounded = float(info.len) / float(all.max(1));
        for (user, alone) in used.alone {
            let share = f64::from(sealed) * f64::from(alone) / f64::from(raw.max(1)) * surrounded;
            let gone = raw.saturating_sub(used.needed).saturating_add(alone);
            if used.needed == alone {
                sums[user as usize - 1] += share;
            } else {
                let group = groups.entry((user as usize - 1, info.kind == ObjectKind::Meta)).or_default();
                group.segments.push(Affected { pack, segment, raw, gone, share });
                group.share += share;
            }
        }
    }
    let mut weights = vec![Weight::default(); groups.len()];
    if let Some(sample) = sample.filter(|_| !groups.is_empty()) {
        let scales = Scales { segments, infos, level: sample.level, progress };
        weights = scales.weigh(reader, users, &groups, sample.bytes)?;
    }
    let all = weights.iter().fold(Weight::default(), |all, one| all.plus(*one));
    for (((snapshot, _), group), weight) in groups.iter().zip(weights) {
        let ratio = if weight.share > 0.0 { weight.ratio() } else { all.ratio() };
        sums[*snapshot] += weight.freed + (group.share - weight.share) * ratio;
        let count = group.segments.len();
        progress.detail(&format!(
            "snapshot {snapshot}, {count} segments that others need too: {:.0} bytes reckoned, {:.0} of them weighed as {:.0}",
            group.share, weight.share, weight.freed
        ));
    }
    #[allow(clippy::cast_sign_loss, reason = "it is not negative")]
    Ok(sums.into_iter().map(|sum: f64| sum.max(0.0).round() as u64).collect())
}

/// Adds up by whom each segment is used.
fn uses(reader: &Reader, users: &[User], snapshots: usize) -> Result<BTreeMap<(u32, u32), Use>, CatalogueError> {
    let mut uses: BTreeMap<(u32, u32), Use> = BTreeMap::new();
    let mut users = users.iter();
    reader.for_each_place(|_, places| {
        let user = users.next().copied().unwrap_or(0);
        let (Some(place), true) = (places.first(), user > 0) else { return true };
        let used = uses.entry((place.pack, place.segment)).or_default();
        used.needed = used.needed.saturating_add(place.len);
        if user as usize <= snapshots {
            match used.alone.iter_mut().find(|(other, _)| *other == user) {
                Some((_, bytes)) => *bytes = bytes.saturating_add(place.len),
                None => used.alone.push((user, place.len)),
            }
        }
        true
    })?;
    uses.retain(|_, used| !used.alone.is_empty());
    Ok(uses)
}

/// What was weighed: what was reckoned of it, and what would be freed.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    share: f64,
    freed: f64,
}

impl Weight {
    fn plus(self, other: Self) -> Self {
        Self { share: self.share + other.share, freed: self.freed + other.freed }
    }

    fn ratio(self) -> f64 {
        if self.share > 0.0 { self.freed / self.share } else { 1.0 }
    }
}

/// Compresses samples.
struct Scales<'a> {
    segments: &'a Segments<'a>,
    infos: &'a BTreeMap<u32, PackInfo>,
    level: i32,
    progress: &'a dyn Progress,
}

impl Scales<'_> {
    /// Weighs a part of each group.
    fn weigh(
        &self,
        reader: &Reader,
        users: &[User],
        groups: &BTreeMap<(usize, bool), Group>,
        bytes: u64,
    ) -> Result<Vec<Weight>, MarkError> {
        let (keys, groups): (Vec<&(usize, bool)>, Vec<&Group>) = groups.iter().unzip();
        // All get the same part; what the small ones do not need is for the others.
        let mut smallest: Vec<(u64, usize)> = (0..).zip(&groups).map(|(at, group)| (group.raw(), at)).collect();
        smallest.sort_unstable();
        let (mut left, mut runs): (u64, Vec<(usize, &[Affected])>) = (bytes, Vec::new());
        for (done, (raw, group)) in smallest.iter().enumerate() {
            let part = left / (smallest.len() - done) as u64;
            left -= part.min(*raw);
            runs.extend(groups[*group].runs(part).into_iter().map(|run| (*group, run)));
        }
        let chunks = chunks(reader, users, &runs)?;
        let weighed = runs
            .par_iter()
            .map(|(group, run)| {
                if self.progress.stopped() {
                    return Err(VaultError::Interrupted.into());
                }
                let whole = run.len() == groups[*group].segments.len();
                let freed = self.run(run, keys[*group].0 as User + 1, &chunks, whole)?;
                Ok((*group, run.iter().map(|segment| segment.share).sum::<f64>(), freed))
            })
            .collect::<Result<Vec<_>, MarkError>>()?;
        let mut weights = vec![Weight::default(); groups.len()];
        for (group, share, freed) in weighed {
            if let Some(freed) = freed {
                weights[group] = weights[group].plus(Weight { share, freed });
            }
        }
        Ok(weights)
    }

    /// How much is freed if only what others than `user` need of these segments is compressed again; `None` if one of them
    /// cannot be read.
    fn run(&self, run: &[Affected], user: User, chunks: &Chunks, whole: bool) -> Result<Option<f64>, MarkError> {
        let mut compressor = Compressor::new(self.level).map_err(VaultError::from)?;
        let mut decompressor = Decompressor::new().map_err(VaultError::from)?;
        let mut builder = SegmentBuilder::default();
        let (mut raw, mut full, mut sealed) = (0_u64, 0_u64, 0_u64);
        for affected in run {
            let key = (affected.pack, affected.segment);
            let segment = match self.segments.open(key.0, key.1, &mut decompressor) {
                Ok(segment) => segment,
                Err(error) if error.is_damage() => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            for (offset, other) in chunks.get(&key).into_iter().flatten() {
                let found = segment.chunks.binary_search_by_key(offset, |(_, offset, _)| *offset);
                if let (Ok(index), true) = (found, *other != user) {
                    let (id, offset, len) = segment.chunks[index];
                    builder.push_known(id, &segment.raw[offset as usize..(offset + len) as usize]);
                    raw += u64::from(len);
                    if builder.is_full() {
                        full += builder.len() as u64;
                        sealed += builder.compress(&mut compressor).sealed_len() as u64;
                    }
                }
            }
        }
        if full == 0 || whole {
            full = raw;
            sealed += if builder.is_empty() { 0 } else { builder.compress(&mut compressor).sealed_len() as u64 };
        }
        // What does not fill a segment goes on with what comes behind it.
        let after = float(sealed) * float(raw) / float(full.max(1));
        let (mut before, mut surrounded, mut alone, mut gone) = (0.0, 0.0, 0.0, 0.0);
        for affected in run {
            let Some(info) = self.infos.get(&affected.pack) else { return Ok(None) };
            let Some((sealed, ..)) = info.segments.get(affected.segment as usize) else { return Ok(None) };
            let all: u64 = info.segments.iter().map(|(sealed, ..)| u64::from(*sealed)).sum();
            before += f64::from(*sealed);
            surrounded += f64::from(*sealed) * float(info.len) / float(all.max(1));
            alone += affected.share;
            gone += f64::from(*sealed) * f64::from(affected.gone) / f64::from(affected.raw.max(1)) * float(info.len)
                / float(all.max(1));
        }
        // Of what goes, a part may be needed by nobody already.
        Ok(Some((before - after) * (surrounded / before.max(1.0)) * (alone / gone.max(1.0))))
    }
}

/// Where the chunks begin that anybody needs in the segments of these runs, with who needs them.
fn chunks(reader: &Reader, users: &[User], runs: &[(usize, &[Affected])]) -> Result<Chunks, CatalogueError> {
    let keys =
        runs.iter().flat_map(|(_, run)| run.iter()).map(|affected| ((affected.pack, affected.segment), Vec::new()));
    let mut chunks: Chunks = keys.collect();
    let mut users = users.iter();
    reader.for_each_place(|_, places| {
        let user = users.next().copied().unwrap_or(0);
        if let (Some(place), true) = (places.first(), user > 0)
            && let Some(chunks) = chunks.get_mut(&(place.pack, place.segment))
        {
            chunks.push((place.offset, user));
        }
        true
    })?;
    chunks.values_mut().for_each(|chunks| chunks.sort_unstable());
    Ok(chunks)
}
