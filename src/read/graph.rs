//! A walk over the distinct trees of snapshots: each listing is read once, however many folders have it.
//!
//! Listings are read in batches, in the order in which they are stored, so that each segment is opened about once. All
//! threads of the current pool read; those listings that lie in one segment go to one thread.

use rayon::prelude::*;

use crate::catalogue::{CatalogueError, ChunkPlace, Reader};
use crate::progress::Progress;
use crate::tree::Stream;

/// Most listings that one thread takes together.
const TOGETHER: usize = 1024;

/// The work of a walk: what it reads listings for, and which come next.
pub(crate) trait Visitor: Sync {
    /// A listing, and what is known of it.
    type Node: Send + Sync;
    /// The state of a thread while it reads listings of one segment.
    type Hand;
    /// The findings of a thread in listings of one segment.
    type Found: Send;
    /// Why the walk ends early.
    type Error: Send + From<CatalogueError>;

    /// Number of listings that are read together.
    const BATCH: usize = 16 << 10;

    /// The view of the catalogue that says where listings are stored.
    fn reader(&self) -> &Reader;

    /// The wish to stop.
    fn progress(&self) -> &dyn Progress;

    /// The error for a walk that the user has stopped.
    fn stopped(&self) -> Self::Error;

    /// The listing of a node.
    fn listing<'n>(&self, node: &'n Self::Node) -> &'n Stream;

    /// Whether a listing need not be read from the store, so that its place does not matter. The first of a batch speaks
    /// for all.
    ///
    /// # Errors
    /// If the catalogue fails.
    fn is_at_hand(&self, _listing: &Stream) -> Result<bool, CatalogueError> {
        Ok(false)
    }

    /// Begins with some listings.
    fn hand(&self) -> Self::Hand;

    /// Reads a listing.
    ///
    /// # Errors
    /// Those that end the walk; damage does not.
    fn read(&self, hand: &mut Self::Hand, node: &Self::Node) -> Result<(), Self::Error>;

    /// Ends with some listings.
    ///
    /// # Errors
    /// Those that end the walk.
    fn done(&self, hand: Self::Hand) -> Result<Self::Found, Self::Error>;

    /// Takes what was found in a batch; adds listings to `waiting` that can be read at once.
    ///
    /// # Errors
    /// Those that end the walk.
    fn enter(&mut self, found: Vec<Self::Found>, waiting: &mut Vec<Self::Node>) -> Result<(), Self::Error>;

    /// The listings to read when none wait any more: at the beginning, and after each level if a listing is read only
    /// when all folders above it are known.
    fn level(&mut self) -> Vec<Self::Node>;
}

/// Walks until no listing is left.
///
/// # Errors
/// Those of the visitor.
pub(crate) fn walk<V: Visitor>(visitor: &mut V) -> Result<(), V::Error> {
    let mut waiting = visitor.level();
    while !waiting.is_empty() {
        if visitor.progress().stopped() {
            return Err(visitor.stopped());
        }
        let batch = waiting.split_off(waiting.len().saturating_sub(V::BATCH));
        let found = read_batch(visitor, batch)?;
        visitor.enter(found, &mut waiting)?;
        if waiting.is_empty() {
            waiting = visitor.level();
        }
    }
    Ok(())
}

fn read_batch<V: Visitor>(visitor: &V, batch: Vec<V::Node>) -> Result<Vec<V::Found>, V::Error> {
    let placed = in_order(visitor, batch)?;
    groups(&placed)
        .into_par_iter()
        .map(|group| {
            let mut hand = visitor.hand();
            for (_, node) in group {
                visitor.read(&mut hand, node)?;
                if visitor.progress().stopped() {
                    return Err(visitor.stopped());
                }
            }
            visitor.done(hand)
        })
        .collect()
}

/// The place of a listing's first chunk, if it is stored.
type FirstPlace = Option<ChunkPlace>;

/// Sorts listings by the places of their first chunks.
fn in_order<V: Visitor>(visitor: &V, batch: Vec<V::Node>) -> Result<Vec<(FirstPlace, V::Node)>, CatalogueError> {
    let first = batch.first().map(|node| visitor.is_at_hand(visitor.listing(node)));
    if first.transpose()?.unwrap_or(true) {
        return Ok(batch.into_iter().map(|node| (None, node)).collect());
    }
    let reader = visitor.reader();
    let mut placed = batch
        .into_par_iter()
        .map(|node| {
            let place = visitor.listing(&node).ids.first().map_or(Ok(None), |id| reader.locate(id))?;
            Ok((place, node))
        })
        .collect::<Result<Vec<_>, CatalogueError>>()?;
    placed.par_sort_unstable_by_key(|(place, _)| *place);
    Ok(placed)
}

/// Groups of neighbours in one segment, each for one thread; no group is large.
fn groups<T>(placed: &[(FirstPlace, T)]) -> Vec<&[(FirstPlace, T)]> {
    // Enough groups for all threads, even if the places of all listings are the same.
    let most = placed.len().div_ceil(8 * rayon::current_num_threads()).clamp(1, TOGETHER);
    placed
        .chunk_by(|(a, _), (b, _)| a.map(|place| place.segment_ref()) == b.map(|place| place.segment_ref()))
        .flat_map(|group| group.chunks(most))
        .collect()
}
