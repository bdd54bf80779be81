//! Verifies a pack before something relies on it (SPEC §8.9). A footer says which chunks a pack contains, and anyone who can write to the
//! vault can write a false footer. So a pack that this machine did not put itself is trusted only after its footer and one of its
//! segments, chosen at random, have been opened. The catalogue remembers the result, so each pack is verified once.
//!
//! The log is not asked who put a pack, as anyone with a password can forge a record: this machine knows which packs it has put. One run
//! opens at most [`LOOK_BYTES`]; packs relied on without a look are verified by later runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, RwLock};

use rayon::prelude::*;

use crate::catalogue::{CatalogueError, ChunkPlace, Look, PackInfo, Reader};
use crate::id::ObjectName;
use crate::log::record::{FoundDamage, ObjectRef};
use crate::pack::reader::object_key;
use crate::pack::{Footer, PackError, PackReader};
use crate::progress::Progress;
use crate::read::mark::Marks;
use crate::seal::{Decompressor, random_array};
use crate::store::StoreError;
use crate::sync::lock;
use crate::vault::{ObjectState, Vault, VaultError};

/// Number of bytes of segments to open in one run to verify packs, unless all are to be opened.
pub const LOOK_BYTES: u64 = 256 << 20;

/// How packs that this machine did not put are verified before something new relies on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyOthers {
    /// Not at all.
    None,
    /// The footer and one segment of each, up to [`LOOK_BYTES`] in one run.
    #[default]
    Sample,
    /// All segments of each, however many bytes that is.
    All,
}

impl VerifyOthers {
    /// How well a pack must be known before something relies on it.
    const fn wanted(self) -> Look {
        match self {
            Self::None => Look::Owed,
            Self::Sample => Look::Sampled,
            Self::All => Look::Whole,
        }
    }

    /// Number of bytes that may be opened in one run.
    const fn budget(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Sample => LOOK_BYTES,
            Self::All => u64::MAX,
        }
    }
}

/// Message for a pack whose footer is not the one that the catalogue knows.
pub const OTHER_FOOTER: &str = "its footer is not what the catalogue of this machine says";

/// Opens the footer of a pack, compares it with the catalogue, and opens one of its segments or all of them.
///
/// # Errors
/// If it is not what it says, or cannot be read.
fn look_at(packs: &PackReader<'_>, info: &PackInfo, whole: bool) -> Result<(), PackError> {
    let footer = packs.footer(info.kind, info.name, info.len)?;
    if !info.is_of(&footer) {
        let what = OTHER_FOOTER.to_owned();
        return Err(PackError::Damaged { object: object_key(info.kind, info.name), what });
    }
    open_segments(packs, info, &footer, whole).map(drop)
}

/// Opens one segment of a pack, chosen at random, or all of them: each must contain the chunks listed in the footer, which is that of the
/// catalogue. Returns the number of bytes of segments opened.
///
/// # Errors
/// If a segment does not match the footer, or cannot be read.
pub fn open_segments(packs: &PackReader<'_>, info: &PackInfo, footer: &Footer, whole: bool) -> Result<u64, PackError> {
    let count = footer.segments.len() as u64;
    if count == 0 {
        return Ok(0);
    }
    let numbers = if whole {
        0..count
    } else {
        let random = u64::from_le_bytes(random_array().map_err(|error| PackError::Seal(error.to_string()))?) % count;
        random..random + 1
    };
    let mut decompressor = Decompressor::new().map_err(|error| PackError::Seal(error.to_string()))?;
    let mut bytes = 0;
    for number in numbers {
        let entry = footer.segments.get(number as usize);
        let (Some(entry), Some(place)) = (entry, info.place(number as u32)) else {
            let what = "its footer has more segments than before".to_owned();
            return Err(PackError::Damaged { object: object_key(info.kind, info.name), what });
        };
        packs.segment(&place, Some(&entry.chunks), &mut decompressor)?;
        bytes += u64::from(entry.sealed_len);
    }
    Ok(bytes)
}

/// The maximum size of a segment of a pack, in bytes: the maximum cost of opening one.
fn longest_segment(info: &PackInfo) -> u64 {
    info.segments.iter().map(|segment| u64::from(segment.sealed)).max().unwrap_or(0)
}

/// Findings of one run.
#[derive(Debug, Default)]
struct Seen {
    looks: Vec<(ObjectName, Look)>,
    damage: Vec<FoundDamage>,
    /// Messages about packs that must not be relied on.
    words: Vec<String>,
}

/// Verifies packs, each once, for the threads of one run.
pub struct Lookout<'a> {
    vault: &'a Vault,
    packs: PackReader<'a>,
    how: VerifyOthers,
    /// Number of bytes that may be opened, and number of those opened.
    budget: u64,
    spent: AtomicU64,
    /// Whether each pack may be relied on, by its number in the catalogue.
    judged: RwLock<HashMap<u32, bool>>,
    /// Locked while a pack is verified, by its number, so that two threads never verify the same one.
    turns: [Mutex<()>; TURNS],
    seen: Mutex<Seen>,
}

/// Number of locks over which packs are spread.
const TURNS: usize = 64;

impl<'a> Lookout<'a> {
    /// For one run.
    pub fn new(vault: &'a Vault, how: VerifyOthers) -> Self {
        Self {
            vault,
            packs: PackReader::new(vault.store(), vault.keys()),
            how,
            budget: how.budget(),
            spent: AtomicU64::new(0),
            judged: RwLock::default(),
            turns: std::array::from_fn(|_| Mutex::default()),
            seen: Mutex::default(),
        }
    }

    /// Whether something new may rely on the pack with this number, which is verified if necessary.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn may_rely(&self, reader: &Reader, pack: u32) -> Result<bool, VaultError> {
        if let Some(known) = self.judgement(pack) {
            return Ok(known);
        }
        let _turn = lock(&self.turns[pack as usize % TURNS]);
        if let Some(known) = self.judgement(pack) {
            return Ok(known);
        }
        let may = match reader.pack(pack)? {
            Some(info) => self.judge(&info, reader.look(&info.name)?)?,
            None => false,
        };
        self.judged.write().unwrap_or_else(PoisonError::into_inner).insert(pack, may);
        Ok(may)
    }

    fn judgement(&self, pack: u32) -> Option<bool> {
        self.judged.read().unwrap_or_else(PoisonError::into_inner).get(&pack).copied()
    }

    /// Verifies a pack, unless it is known well enough.
    fn judge(&self, info: &PackInfo, known: Option<Look>) -> Result<bool, VaultError> {
        if known.is_some_and(|known| known >= self.how.wanted()) {
            return Ok(true);
        }
        let whole = self.how == VerifyOthers::All;
        let cost = if whole { info.len } else { longest_segment(info) };
        // Nothing more is started once the bytes are used up; threads may exceed the limit by one pack each.
        if self.spent.fetch_add(cost, Relaxed) >= self.budget {
            lock(&self.seen).looks.push((info.name, Look::Owed));
            return Ok(true);
        }
        match look_at(&self.packs, info, whole) {
            Ok(()) => {
                lock(&self.seen).looks.push((info.name, if whole { Look::Whole } else { Look::Sampled }));
                Ok(true)
            }
            Err(error) => self.doubt(info, &error).map_or_else(|| Err(error.into()), |doubted| doubted.map(|()| false)),
        }
    }

    /// Records that a pack must not be relied on. `None` if the error does not concern the pack.
    fn doubt(&self, info: &PackInfo, error: &PackError) -> Option<Result<(), VaultError>> {
        if !error.is_of_pack() {
            return None;
        }
        let key = object_key(info.kind, info.name);
        let state = match error {
            PackError::Damaged { .. } | PackError::Store(StoreError::Short { .. }) => self.vault.state_of(&key),
            // It is gone, was written by a later version, or cannot be read from the disk: that is not recorded.
            _ => Ok(ObjectState::Newer),
        };
        Some(state.map(|state| {
            let mut seen = lock(&self.seen);
            let what = error.reason();
            seen.words.push(format!("{key} cannot be relied on ({what}): what it should hold is stored again"));
            let object = ObjectRef::of(&key).filter(|_| state == ObjectState::Damaged);
            seen.damage.extend(object.map(|object| FoundDamage { object, what, snapshots: 0, files: 0 }));
        }))
    }

    /// Verifies packs that earlier runs relied on and that are not known as well as required now.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole, or the user stops it.
    fn pay(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        if self.how == VerifyOthers::None {
            return Ok(());
        }
        let reader = self.vault.catalogue().reader()?;
        let owed = reader.known_less(self.how.wanted())?;
        if owed.is_empty() {
            return Ok(());
        }
        let damaged = self.vault.damaged_packs();
        let packs = reader.packs()?;
        let owed: Vec<(&u32, &PackInfo)> =
            packs.iter().filter(|(_, info)| owed.contains(&info.name) && !damaged.contains(&info.name)).collect();
        owed.into_par_iter().try_for_each(|(number, _)| {
            if progress.stopped() {
                return Err(VaultError::Interrupted);
            }
            if self.spent.load(Relaxed) < self.budget {
                self.may_rely(&reader, *number)?;
            }
            Ok(())
        })
    }

    /// Records the results and reports problems. Damage becomes a finding, and a new epoch starts, in which every chunk is looked up
    /// again.
    ///
    /// # Errors
    /// If the catalogue or the state folder cannot be written.
    pub fn settle(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        let Seen { looks, damage, words } = std::mem::take(&mut *lock(&self.seen));
        words.iter().for_each(|words| progress.warn(words));
        self.vault.catalogue().note_looks(&looks)?;
        if !words.is_empty() {
            self.vault.catalogue().bump_epoch()?;
        }
        if damage.is_empty() { Ok(()) } else { self.vault.note_findings(damage, &[]) }
    }
}

/// Before a run begins, verifies the packs that earlier runs relied on without a look. Those found wrong count as absent from then on.
///
/// # Errors
/// If the store, the catalogue or the state folder fails as a whole, or the user stops it.
pub fn pay_debts(vault: &Vault, how: VerifyOthers, progress: &dyn Progress) -> Result<(), VaultError> {
    let lookout = Lookout::new(vault, how);
    let paid = lookout.pay(progress);
    lookout.settle(progress)?;
    paid
}

/// The numbers in the catalogue of packs that are known to be damaged.
///
/// # Errors
/// If the catalogue fails.
pub fn damaged_numbers(vault: &Vault, reader: &Reader) -> Result<HashSet<u32>, CatalogueError> {
    let damaged = vault.damaged_packs();
    if damaged.is_empty() {
        return Ok(HashSet::new());
    }
    let packs = reader.packs()?.into_iter();
    Ok(packs.filter(|(_, info)| damaged.contains(&info.name)).map(|(number, _)| number).collect())
}

/// How far packs can be trusted to contain what their footers say, by their numbers in the catalogue.
#[derive(Debug, Default)]
pub struct Standings {
    looks: HashMap<u32, Look>,
    damaged: HashSet<u32>,
    condemned: HashSet<u32>,
}

impl Standings {
    /// From the catalogue, the findings and the log. `condemned` are numbers of packs that count as absent.
    ///
    /// # Errors
    /// If the catalogue fails.
    pub fn new(
        vault: &Vault,
        reader: &Reader,
        infos: &BTreeMap<u32, PackInfo>,
        condemned: HashSet<u32>,
    ) -> Result<Self, CatalogueError> {
        let (looks, damaged) = (reader.looks()?, vault.damaged_packs());
        Ok(Self {
            looks: infos.iter().filter_map(|(number, info)| Some((*number, *looks.get(&info.name)?))).collect(),
            damaged: infos.iter().filter(|(_, info)| damaged.contains(&info.name)).map(|(number, _)| *number).collect(),
            condemned,
        })
    }

    /// The greater the rank, the more a pack can be trusted to keep its content.
    fn rank(&self, pack: u32) -> u8 {
        if self.damaged.contains(&pack) {
            0
        } else if self.condemned.contains(&pack) {
            1
        } else {
            self.looks.get(&pack).map_or(2, |look| 2 + *look as u8)
        }
    }

    /// The place of a chunk that is relied on: in the most trustworthy pack, or the first of several that are equal.
    pub fn home<'p>(&self, places: &'p [ChunkPlace]) -> Option<&'p ChunkPlace> {
        places.iter().rev().max_by_key(|place| self.rank(place.pack))
    }

    /// Whether a copy in `pack` makes one in `other` unnecessary: its pack is neither damaged nor condemned, and not less known.
    pub fn replaces(&self, pack: u32, other: u32) -> bool {
        let rank = self.rank(pack);
        rank >= 2 && rank >= self.rank(other)
    }

    /// Opens one segment of each unknown pack that would be relied on in place of another: packs with a needed chunk that has another
    /// copy.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole, or the user stops it.
    pub fn look_at_copies(
        &mut self,
        vault: &Vault,
        reader: &Reader,
        infos: &BTreeMap<u32, PackInfo>,
        marks: &Marks,
        progress: &dyn Progress,
    ) -> Result<(), VaultError> {
        let is_unknown = |pack: &u32| self.rank(*pack) == 2;
        if !infos.keys().any(is_unknown) {
            return Ok(());
        }
        let copies: Mutex<HashSet<u32>> = Mutex::default();
        reader.in_parts(|part| {
            let mut here = HashSet::new();
            part.for_each_place(|rank, _, places| {
                if places.len() > 1 && marks.bits.get(rank) {
                    here.extend(places.iter().map(|place| place.pack).filter(is_unknown));
                }
                true
            })?;
            lock(&copies).extend(here);
            Ok::<_, CatalogueError>(())
        })?;
        let copies = crate::sync::into_inner(copies);
        // Other packs would be deleted because of them, so they are verified however many bytes that takes.
        let lookout = Lookout { budget: u64::MAX, ..Lookout::new(vault, VerifyOthers::Sample) };
        let looked: Vec<(u32, bool)> = copies
            .into_par_iter()
            .map(|pack| {
                if progress.stopped() {
                    return Err(VaultError::Interrupted);
                }
                Ok((pack, lookout.may_rely(reader, pack)?))
            })
            .collect::<Result<_, _>>()?;
        lookout.settle(progress)?;
        for (pack, may) in looked {
            if may {
                self.looks.insert(pack, Look::Sampled);
            } else {
                self.damaged.insert(pack);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(pack: u32) -> ChunkPlace {
        ChunkPlace { pack, segment: 0, offset: 0, len: 1 }
    }

    #[test]
    fn of_several_copies_the_one_that_is_known_best_is_relied_on() {
        let looks = HashMap::from([(1, Look::Owed), (2, Look::Sampled), (3, Look::Whole), (4, Look::Whole)]);
        let standings = Standings { looks, damaged: HashSet::from([4]), condemned: HashSet::from([5]) };
        let home = |packs: &[u32]| {
            let places: Vec<ChunkPlace> = packs.iter().map(|pack| place(*pack)).collect();
            standings.home(&places).map(|place| place.pack)
        };
        assert_eq!(home(&[]), None);
        // The first of equals: 1 is still to be verified, 9 is unknown.
        assert_eq!((home(&[1, 9]), home(&[9, 1])), (Some(1), Some(9)));
        assert_eq!(home(&[9, 2, 3, 4]), Some(3));
        assert_eq!((home(&[4, 5]), home(&[5, 9])), (Some(5), Some(9)));
        assert!(standings.replaces(3, 2) && standings.replaces(2, 2) && standings.replaces(9, 5));
        assert!(!standings.replaces(2, 3) && !standings.replaces(4, 4) && !standings.replaces(5, 5));
    }
}
