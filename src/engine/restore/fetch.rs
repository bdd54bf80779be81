//! Reads the segments of a window from a far store ahead of the threads that open them: neighbours with one request, and
//! as many requests under way as the store takes, whatever the number of threads.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use crate::engine::restore::RestoreError;
use crate::engine::restore::execute::{Batch, Executor, Failed};
use crate::engine::restore::run::{Halt, fatal, lock};
use crate::engine::restore::task::Piece;
use crate::pack::SegmentPlace;
use crate::pack::together::{Together, runs, span};
use crate::sync::{Room, Rooms, share, spawn};

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
        // Every group fits, so no thread waits while it holds room.
        let (sender, arrived) = sync_channel(groups.len());
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
        to: &SyncSender<Arrived<'r>>,
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
