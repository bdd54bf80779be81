//! Reads the segments of a window from a far store ahead of the threads that open them: neighbours with one request, and
//! as many requests under way as the store takes, whatever the number of threads.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::engine::restore::RestoreError;
use crate::engine::restore::execute::{Batch, Executor, Failed};
use crate::engine::restore::run::{Halt, fatal, lock};
use crate::engine::restore::task::Piece;
use crate::pack::SegmentPlace;
use crate::pack::reader::{GAP, Together};
use crate::seal::ObjectKind;
use crate::sync::{Room, Rooms, share, spawn};

/// The most bytes to read with one request.
const TOGETHER_MAX: u64 = 8 << 20;
/// The most bytes that are being read, or wait to be opened.
const BYTES_AHEAD: u64 = 64 << 20;

/// Neighbours that were read with one request, and the room that they take until the last of them is opened.
struct Fetched<'r> {
    together: Together,
    _room: Room<'r>,
}

/// A group of pieces, by its number, and where the bytes of its segment are, unless it must be read by itself.
type Arrived<'r> = (usize, Option<Arc<Fetched<'r>>>);

/// Closes the way on which groups arrive, even after a panic: the threads that read wait for room.
struct Close<'c, 'r>(&'c Mutex<Option<Receiver<Arrived<'r>>>>);

impl Drop for Close<'_, '_> {
    fn drop(&mut self) {
        lock(self.0).take();
    }
}

impl Executor<'_, '_> {
    /// Reads the segments of all groups, opens each as soon as it has arrived, and writes its pieces.
    pub(super) fn fetch(
        &self,
        batch: &Batch,
        pieces: &[Piece],
        groups: &[Range<usize>],
        failed: &Failed,
    ) -> Result<(), Halt> {
        let places = self.places(pieces, groups)?;
        let (runs, reads) = (runs(&places), self.run.vault.store().limits().reads);
        let rooms = Rooms::new(reads, BYTES_AHEAD);
        let (sender, arrived) = channel();
        let arrived = Mutex::new(Some(arrived));
        let threads = vec![(); self.threads()];
        std::thread::scope(|scope| {
            let (places, rooms) = (&places, &rooms);
            let reading = spawn(scope, move || {
                share(runs.len(), reads, |number| self.fetch_run(runs[number].clone(), places, rooms, &sender));
            });
            let closing = Close(&arrived);
            // The lock is held until something arrives, and no longer.
            let next = || lock(&arrived).as_ref().and_then(|arrived| arrived.recv().ok());
            let done = self.parallel(&threads, |worker, ()| {
                while let Some((group, fetched)) = next() {
                    self.run.check()?;
                    let sealed = fetched.zip(places[group]).and_then(|(fetched, place)| fetched.together.part(&place));
                    self.segment(batch, worker, &pieces[groups[group].clone()], sealed, failed)?;
                }
                Ok(())
            });
            drop(closing);
            reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // If reading was stopped, there is a reason.
            done.and_then(|()| self.run.check())
        })
    }

    /// The places of the groups' segments, as far as they are known.
    fn places(&self, pieces: &[Piece], groups: &[Range<usize>]) -> Result<Vec<Option<SegmentPlace>>, Halt> {
        let mut pack = None;
        let place = |group: &Range<usize>| {
            let place = pieces[group.start].place;
            if pack.as_ref().is_none_or(|(number, _)| *number != place.pack) {
                let info = self.lookup.pack(place.pack);
                pack = Some((place.pack, info.map_err(|error| self.run.fail(RestoreError::Catalogue(error)))?));
            }
            Ok(pack.as_ref().and_then(|(_, info)| info.as_ref()?.place(place.segment)))
        };
        groups.iter().map(place).collect()
    }

    /// Reads neighbours with one request, and hands each on. If that fails, each is read by itself, since the error may be about only one
    /// of them.
    fn fetch_run<'r>(
        &self,
        run: Range<usize>,
        places: &[Option<SegmentPlace>],
        rooms: &'r Rooms,
        to: &Sender<Arrived<'r>>,
    ) {
        let mut fetched = None;
        if let Some((first, last)) = places[run.start].zip(places[run.end - 1]) {
            let room = rooms.enter(span(&first, &last));
            if self.run.check().is_err() {
                return;
            }
            match self.packs.read_together(&first, &last).map_err(|error| fatal(error.into())) {
                Ok(together) => fetched = Some(Arc::new(Fetched { together, _room: room })),
                Err(Ok(error)) => {
                    self.run.fail(error);
                    return;
                }
                Err(Err(_)) => {}
            }
        }
        for group in run {
            // Nobody receives it if the restore has failed.
            let _ = to.send((group, fetched.clone()));
        }
    }
}

/// Number of bytes from the begin of one segment to the end of another one of the same pack.
fn span(first: &SegmentPlace, last: &SegmentPlace) -> u64 {
    (last.offset + u64::from(last.len)).saturating_sub(first.offset)
}

/// The ranges of segments to be read with one request each. The segments are sorted by pack and number. Of meta packs each is read by itself,
/// as it may be kept on this machine.
fn runs(places: &[Option<SegmentPlace>]) -> Vec<Range<usize>> {
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
    use crate::id::ObjectName;

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
        assert_eq!(runs(&[first, short]), [0..2]);
        assert_eq!(runs(&[first, long]), [0..1, 1..2]);
        // Another pack, a meta pack, an unknown place, and what the catalogue puts in the wrong order.
        let other = place(ObjectKind::Pack, 2, 1, 1 << 20, 1000);
        let meta = |number: u32| place(ObjectKind::Meta, 3, number, u64::from(number) * 1000, 1000);
        assert_eq!(runs(&[first, other, meta(0), meta(1), None, None]), [0..1, 1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(runs(&[near(1), near(0)]), [0..1, 1..2]);
        // A segment longer than the bound is read alone.
        let huge = |number: u32| place(ObjectKind::Pack, 1, number, u64::from(number) * (9 << 20), 9 << 20);
        assert_eq!(runs(&[huge(0), huge(1)]), [0..1, 1..2]);
    }
}
