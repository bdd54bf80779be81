//! How much stored data is needed, computed from the packs' indexes and from the chunks that reading uses.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use vault::id::{ChunkId, ObjectName};
use vault::vault::Vault;

use super::model::of_snapshot;

/// Bytes of segments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Bytes of chunks that a snapshot needs, each chunk once.
    pub needed: u64,
    /// All other bytes.
    pub unused: u64,
    /// Packs without needed data.
    pub dead_packs: u64,
}

/// Examines all packs but `except`. The vault must have been opened without a catalogue.
pub fn usage(vault: &Vault, except: &HashSet<ObjectName>) -> Usage {
    let mut needed: BTreeSet<ChunkId> = BTreeSet::new();
    for snapshot in vault.snapshots() {
        needed.extend(of_snapshot(vault, &snapshot.body).chunks);
    }
    let reader = vault.catalogue().reader().unwrap();
    let packs = reader.packs().unwrap();
    // For each segment the bytes of chunks in it, and of those that are needed from it.
    let mut segments: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
    let is_counted = |pack: &u32| !except.contains(&packs[pack].name);
    reader
        .for_each_place(|_, id, places| {
            // A chunk in several packs is needed from its first place in an examined one.
            let home = places.iter().find(|place| is_counted(&place.pack));
            for place in places {
                let (all, live) = segments.entry((place.pack, place.segment)).or_default();
                *all += u64::from(place.len);
                if needed.contains(&id) && home == Some(place) {
                    *live += u64::from(place.len);
                }
            }
            true
        })
        .unwrap();
    let mut usage = Usage::default();
    for (number, info) in packs.iter().filter(|(number, _)| is_counted(number)) {
        let mut live_in_pack = 0;
        for (segment, stored) in (0_u32..).zip(&info.segments) {
            let (all, live) = segments.get(&(*number, segment)).copied().unwrap_or_default();
            let part = u64::from(stored.sealed) * live / all.max(1);
            usage.needed += part;
            usage.unused += u64::from(stored.sealed) - part;
            live_in_pack += live;
        }
        usage.dead_packs += u64::from(live_in_pack == 0);
    }
    usage
}
