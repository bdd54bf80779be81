//! Measures how much space forgetting each snapshot would free.
//!
//! Needed data in segments where nobody else needs anything is freed as it is. From other segments, a prune copies what is still needed
//! and compresses it again. How much smaller the result is depends on the data: the chunks that a snapshot needs alone may compress
//! better or worse than their neighbours. So those of these segments that matter most are really compressed as a prune would do it, and
//! the estimates for the others (by length before compression) are corrected by the result. If there are few segments, all of them are
//! compressed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use rayon::prelude::*;

use crate::catalogue::packs::SegmentInfo;
use crate::catalogue::{CatalogueError, PackInfo, Reader, SegmentRef};
use crate::id::ChunkId;
use crate::limits::{SEGMENT_TARGET, pack_len, sum_of};
use crate::pack::SegmentBuilder;
use crate::progress::Progress;
use crate::read::ChunkReader;
use crate::read::mark::MarkError;
use crate::seal::{Compressor, ObjectKind};
use crate::sync::lock;
use crate::varint;
use crate::vault::VaultError;
use crate::write::repack::RUN;

/// The user of a chunk: 0 for nobody, a snapshot's number (from 1) if it is the only user, more than the number of snapshots for several.
pub type User = u32;

/// How much to compress in order to measure what a prune frees.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Number of bytes of chunks to compress, for all snapshots together.
    pub bytes: u64,
    /// zstd level that a prune would use.
    pub level: i32,
}

/// Which part of a segment is needed.
#[derive(Debug, Default)]
struct Use {
    /// Bytes of its chunks that any snapshot needs.
    needed: u32,
    /// The part that single snapshots need alone, by snapshot.
    alone: Vec<(User, u32)>,
}

impl Use {
    fn add_alone(&mut self, user: User, len: u32) {
        match self.alone.iter_mut().find(|(other, _)| *other == user) {
            Some((_, bytes)) => *bytes = bytes.saturating_add(len),
            None => self.alone.push((user, len)),
        }
    }
}

/// A segment with chunks that only one snapshot needs.
#[derive(Debug, Clone, Copy)]
struct Affected {
    pack: u32,
    segment: u32,
    raw: u32,
    /// Bytes of its chunks that nobody would need without the snapshot.
    gone: u32,
    /// Stored size of the chunks that the snapshot needs alone, with their entries in the footer.
    share: f64,
}

impl Affected {
    const fn segment_ref(&self) -> SegmentRef {
        SegmentRef { pack: self.pack, segment: self.segment }
    }
}

/// The segments of one kind with chunks that one snapshot needs alone and chunks that others need too.
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

    /// Runs of neighbouring segments with about this many bytes of chunks together: those from which most would be freed.
    fn runs(&self, bytes: u64) -> Vec<&[Affected]> {
        let run = (bytes as usize / SEGMENT_TARGET).clamp(1, RUN);
        let share = |run: &&[Affected]| run.iter().map(|segment| segment.share).sum::<f64>();
        let packs = self.segments.chunk_by(|a, b| a.pack == b.pack);
        let mut runs: Vec<&[Affected]> = packs.flat_map(|pack| pack.chunks(run)).collect();
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

/// For each segment, the offset and user of each chunk.
type Chunks = HashMap<SegmentRef, Vec<(u32, User)>>;

#[allow(clippy::cast_precision_loss, reason = "of sizes, a part in 2⁵³ is lost")]
const fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// Measures the space that each of `snapshots` snapshots needs alone. `users` has the user of each chunk, by its rank in the catalogue.
/// Without a sample, the results are estimates.
///
/// # Errors
/// If the store or the catalogue fails as a whole, or the user stops it. Damaged segments are only estimated.
pub fn weigh(
    reader: &Reader,
    stored: &ChunkReader<'_>,
    infos: &BTreeMap<u32, PackInfo>,
    users: &[User],
    snapshots: usize,
    sample: Option<Sample>,
    progress: &dyn Progress,
) -> Result<Vec<u64>, MarkError> {
    let (uses, sole) = uses(reader, users, snapshots)?;
    let mut sums = vec![0.0; snapshots];
    let mut groups: BTreeMap<(usize, bool), Group> = BTreeMap::new();
    for (SegmentRef { pack, segment }, used) in uses {
        let Some((info, SegmentInfo { sealed, raw, .. })) =
            infos.get(&pack).and_then(|info| Some((info, *info.segments.get(segment as usize)?)))
        else {
            continue;
        };
        for (user, alone) in used.alone {
            // A pack in which nobody else needs anything is freed with its padding; the padding of others returns with the chunks that
            // stay.
            let surrounded = if sole.get(&pack) == Some(&user) { whole(info) } else { listed(info) };
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
        let scales = Scales { stored, infos, level: sample.level, progress };
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

/// Ratio of the length of a pack to the length of all its segments.
fn whole(info: &PackInfo) -> f64 {
    float(info.len) / float(sealed(info))
}

/// Ratio of the length of all segments with their entries in the footer (an id and a length for each chunk) to that of the segments
/// alone.
fn listed(info: &PackInfo) -> f64 {
    let entry =
        |raw: u32, chunks: u32| u64::from(chunks) * (ChunkId::LEN + varint::len(u64::from(raw / chunks.max(1)))) as u64;
    let entries: u64 = info.segments.iter().map(|segment| entry(segment.raw, segment.chunks)).sum();
    1.0 + float(entries) / float(sealed(info))
}

/// Bytes of all segments of a pack; at least 1.
fn sealed(info: &PackInfo) -> u64 {
    info.segments.iter().map(|segment| u64::from(segment.sealed)).sum::<u64>().max(1)
}

/// For each segment, what single snapshots need alone; and for each pack its user if it has only one, or 0.
type Uses = (BTreeMap<SegmentRef, Use>, HashMap<u32, User>);

/// Records a user of a pack: 0 stands for several.
fn own(sole: &mut HashMap<u32, User>, pack: u32, user: User) {
    let owner = sole.entry(pack).or_insert(user);
    if *owner != user {
        *owner = 0;
    }
}

/// Determines the users of each segment.
fn uses(reader: &Reader, users: &[User], snapshots: usize) -> Result<Uses, CatalogueError> {
    let total: Mutex<Uses> = Mutex::default();
    reader.in_parts(|part| {
        let mut uses: HashMap<SegmentRef, Use> = HashMap::new();
        let mut sole: HashMap<u32, User> = HashMap::new();
        part.for_each_place(|rank, _, places| {
            let user = users.get(rank).copied().unwrap_or(0);
            let (Some(place), true) = (places.first(), user > 0) else { return true };
            let used = uses.entry(place.segment_ref()).or_default();
            used.needed = used.needed.saturating_add(place.len);
            own(&mut sole, place.pack, user);
            if user as usize <= snapshots {
                used.add_alone(user, place.len);
            }
            true
        })?;
        let mut total = lock(&total);
        for (key, used) in uses {
            let sum = total.0.entry(key).or_default();
            sum.needed = sum.needed.saturating_add(used.needed);
            used.alone.into_iter().for_each(|(user, bytes)| sum.add_alone(user, bytes));
        }
        sole.into_iter().for_each(|(pack, user)| own(&mut total.1, pack, user));
        Ok::<_, CatalogueError>(())
    })?;
    let (mut uses, sole) = crate::sync::into_inner(total);
    uses.retain(|_, used| !used.alone.is_empty());
    Ok((uses, sole))
}

/// A measurement.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    /// The estimate for the measured part, in bytes.
    share: f64,
    /// The measured saving, in bytes.
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

/// Sums of measurements for one group. All in bytes; `listed` and `gone` include the entries in the footer.
#[derive(Default)]
struct Scale {
    before: f64,
    listed: f64,
    share: f64,
    gone: f64,
    after: u64,
    /// Chunks left over by runs.
    rest: SegmentBuilder,
    /// Number of segments that were cut in two, as a prune does with one at the end of each full pack, and the total increase in length.
    cuts: u32,
    longer: u64,
}

impl Scale {
    /// The result, if this number of full packs would be written. A part of what would be freed may not be needed by anyone even now.
    fn weight(&self, packs: f64) -> Weight {
        let after = float(self.after) + packs * float(self.longer) / f64::from(self.cuts.max(1));
        let freed = (self.before - after) * (self.listed / self.before.max(1.0));
        Weight { share: self.share, freed: freed * (self.share / self.gone.max(1.0)) }
    }
}

/// Compresses samples.
struct Scales<'a> {
    stored: &'a ChunkReader<'a>,
    infos: &'a BTreeMap<u32, PackInfo>,
    level: i32,
    progress: &'a dyn Progress,
}

impl Scales<'_> {
    /// Measures a part of each group.
    fn weigh(
        &self,
        reader: &Reader,
        users: &[User],
        groups: &BTreeMap<(usize, bool), Group>,
        bytes: u64,
    ) -> Result<Vec<Weight>, MarkError> {
        let (keys, groups): (Vec<&(usize, bool)>, Vec<&Group>) = groups.iter().unzip();
        // All groups get the same share; the unused share of small ones goes to the others.
        let mut smallest: Vec<(u64, usize)> = (0..).zip(&groups).map(|(at, group)| (group.raw(), at)).collect();
        smallest.sort_unstable();
        let (mut left, mut runs): (u64, Vec<(usize, &[Affected])>) = (bytes, Vec::new());
        for (done, (raw, group)) in smallest.iter().enumerate() {
            let part = left / (smallest.len() - done) as u64;
            left -= part.min(*raw);
            runs.extend(groups[*group].runs(part).into_iter().map(|run| (*group, run)));
        }
        let chunks = chunks(reader, users, &runs)?;
        let scales: Vec<Mutex<Scale>> = groups.iter().map(|_| Mutex::default()).collect();
        runs.par_iter().try_for_each(|(group, run)| {
            if self.progress.stopped() {
                return Err(VaultError::Interrupted.into());
            }
            self.run(run, keys[*group].0 as User + 1, &chunks, &scales[*group])
        })?;
        let mut compressor = Compressor::new(self.level).map_err(VaultError::from)?;
        let full = pack_len(sum_of(self.infos.values().map(|info| info.len)));
        let finish = |(group, scale): (&Group, Mutex<Scale>)| {
            let mut scale = crate::sync::into_inner(scale);
            if !scale.rest.is_empty() {
                scale.after += scale.rest.compress(&mut compressor).sealed_len() as u64;
            }
            let packs: BTreeSet<u32> = group.segments.iter().map(|segment| segment.pack).collect();
            let len: u64 = packs.iter().filter_map(|pack| self.infos.get(pack)).map(|info| info.len).sum();
            // A sample gets its share of the packs.
            scale.weight(float(len) / float(full as u64) * (scale.share / group.share.max(1.0)))
        };
        Ok(groups.into_iter().zip(scales).map(finish).collect())
    }

    /// Adds to the sums how much is freed if only the chunks that others than `user` need in these segments are compressed again; adds
    /// nothing if a segment cannot be read.
    fn run(&self, run: &[Affected], user: User, chunks: &Chunks, scale: &Mutex<Scale>) -> Result<(), MarkError> {
        let mut compressor = Compressor::new(self.level).map_err(VaultError::from)?;
        let mut builder = SegmentBuilder::default();
        let mut weighed = Scale::default();
        for affected in run {
            let key = affected.segment_ref();
            let segment = match self.stored.open(key) {
                Ok(segment) => segment,
                Err(error) if error.is_contained() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for (offset, other) in chunks.get(&key).into_iter().flatten() {
                let found = segment.chunks.binary_search_by_key(offset, |chunk| chunk.offset);
                if let (Ok(index), true) = (found, *other != user) {
                    builder.push_known(segment.chunks[index].id, segment.bytes(index));
                    if builder.is_full() {
                        let cut = (weighed.cuts == 0).then(|| cut_in_two(&builder, &mut compressor));
                        let len = builder.compress(&mut compressor).sealed_len() as u64;
                        weighed.after += len;
                        if let Some(cut) = cut {
                            weighed.cuts += 1;
                            weighed.longer += cut.saturating_sub(len);
                        }
                    }
                }
            }
            let Some(info) = self.infos.get(&affected.pack) else { return Ok(()) };
            let Some(stored) = info.segments.get(affected.segment as usize) else { return Ok(()) };
            let with_entry = f64::from(stored.sealed) * listed(info);
            weighed.before += f64::from(stored.sealed);
            weighed.listed += with_entry;
            weighed.share += affected.share;
            weighed.gone += with_entry * f64::from(affected.gone) / f64::from(affected.raw.max(1));
        }
        let scale = &mut *lock(scale);
        scale.before += weighed.before;
        scale.listed += weighed.listed;
        scale.share += weighed.share;
        scale.gone += weighed.gone;
        scale.after += weighed.after;
        scale.cuts += weighed.cuts;
        scale.longer += weighed.longer;
        for (id, bytes) in builder.collected() {
            scale.rest.push_known(id, bytes);
            if scale.rest.is_full() {
                scale.after += scale.rest.compress(&mut compressor).sealed_len() as u64;
            }
        }
        Ok(())
    }
}

/// Length of a segment after cutting it in two.
fn cut_in_two(builder: &SegmentBuilder, compressor: &mut Compressor) -> u64 {
    let (mut part, mut len) = (SegmentBuilder::default(), 0);
    for (id, bytes) in builder.collected() {
        part.push_known(id, bytes);
        if len == 0 && part.len() >= builder.len() / 2 {
            len += part.compress(compressor).sealed_len() as u64;
        }
    }
    len + if part.is_empty() { 0 } else { part.compress(compressor).sealed_len() as u64 }
}

/// For each segment of these runs, the offsets and users of the chunks that anyone needs.
fn chunks(reader: &Reader, users: &[User], runs: &[(usize, &[Affected])]) -> Result<Chunks, CatalogueError> {
    let keys = runs.iter().flat_map(|(_, run)| run.iter()).map(|affected| (affected.segment_ref(), Vec::new()));
    let mut chunks: Chunks = keys.collect();
    reader.for_each_place(|rank, _, places| {
        let user = users.get(rank).copied().unwrap_or(0);
        if let (Some(place), true) = (places.first(), user > 0)
            && let Some(chunks) = chunks.get_mut(&place.segment_ref())
        {
            chunks.push((place.offset, user));
        }
        true
    })?;
    chunks.values_mut().for_each(|chunks| chunks.sort_unstable());
    Ok(chunks)
}
