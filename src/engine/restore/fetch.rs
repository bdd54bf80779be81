//! Reads the segments of windows from a far store ahead of the threads that open them: neighbours with one request, and
//! as many requests under way as the store takes, whatever the number of threads. The reads of the next window begin
//! as soon as the last of one are under way, so that the line does not rest between windows.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use crate::catalogue::SegmentRef;
use crate::engine::restore::RestoreError;
use crate::engine::restore::execute::{Batch, Executor, Failed};
use crate::engine::restore::run::{Halt, fatal, lock};
use crate::engine::restore::task::{Arrived, Piece, Window};
use crate::pack::SegmentPlace;
use crate::pack::together::{runs, span};
use crate::sync::{Room, Rooms, share, spawn, try_spawn};

/// The most bytes that are being read, or wait to be opened.
const BYTES_AHEAD: u64 = 64 << 20;
/// The most windows whose reads are begun: the one that is executed, and the next one.
const WINDOWS: usize = 2;

/// Segments to be read, and where they go.
struct Reads<'r> {
    /// Their places, as far as they are known.
    places: Vec<Option<SegmentPlace>>,
    /// Those that are read with one request each.
    runs: Vec<Range<usize>>,
    to: SyncSender<Arrived<'r>>,
}

/// One request: its segments, and the room for their bytes, unless their places are not known.
struct Read<'r> {
    reads: Arc<Reads<'r>>,
    run: Range<usize>,
    room: Option<Room<'r>>,
}

/// A window whose reads are begun, where its segments arrive, and its place among the windows until it is executed.
struct Begun<'r> {
    window: Window,
    arrived: Receiver<Arrived<'r>>,
    _place: Room<'r>,
}

/// Room for what is read ahead: requests with their bytes, and windows.
struct Ahead {
    reads: Rooms,
    windows: Rooms,
}

/// The windows of a restore, in the order in which they are read.
struct Row<'r> {
    planned: Receiver<Window>,
    begun: SyncSender<Begun<'r>>,
    /// The window that is being read, and the number of its requests that are under way or done.
    current: Option<(Arc<Reads<'r>>, usize)>,
}

/// Ends the row, even after a panic: others may wait for what it holds.
struct Close<'c, 'r>(&'c Mutex<Option<Row<'r>>>);

impl Drop for Close<'_, '_> {
    fn drop(&mut self) {
        lock(self.0).take();
    }
}

impl<'r> Reads<'r> {
    /// The next request, once there is room for it.
    fn next(reads: &Arc<Self>, at: &mut usize, rooms: &'r Rooms) -> Option<Read<'r>> {
        let run = reads.runs.get(*at)?.clone();
        *at += 1;
        let ends = reads.places[run.start].zip(reads.places[run.end - 1]);
        let room = ends.map(|(first, last)| rooms.enter(span(&first, &last)));
        Some(Read { reads: reads.clone(), run, room })
    }
}

impl Executor<'_, '_> {
    /// Whether the segments of a window can be read before the one before it is executed: if the store is far, and all
    /// that is planned is read.
    pub(super) fn reads_ahead(&self) -> bool {
        let options = self.run.options;
        self.run.vault.store().is_far() && !options.dry_run && !options.overwrite.compares()
    }

    /// Executes all windows that `plan` sends, and reads ahead of them.
    pub(super) fn execute_ahead(
        &self,
        planned: Receiver<Window>,
        plan: impl FnOnce() -> Result<(), Halt> + Send,
    ) -> Result<(), Halt> {
        let most = self.run.vault.store().limits().reads;
        let ahead = Ahead { reads: Rooms::new(most, BYTES_AHEAD), windows: Rooms::new(WINDOWS, 0) };
        let (to, begun) = sync_channel(WINDOWS);
        let row = Mutex::new(Some(Row { planned, begun: to, current: None }));
        std::thread::scope(|scope| {
            let (ahead, row) = (&ahead, &row);
            let read = move || {
                // A thread ends because nothing is left to begin, or by a panic, after which no other may wait for it.
                let _closing = Close(row);
                while let Some(next) = self.next_read(row, ahead) {
                    self.read(next);
                }
            };
            // Two threads are needed; others read if the system provides them.
            let mut reading = vec![spawn(scope, read)];
            let planner = spawn(scope, plan);
            reading.extend((1..most).map_while(|_| try_spawn(scope, read).ok()));
            let executed =
                begun.into_iter().try_for_each(|Begun { window, arrived, _place }| self.execute(window, Some(arrived)));
            // The threads notice that nothing more is executed.
            for thread in reading {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
            let planned = planner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            executed.and(planned).and_then(|()| self.run.check())
        })
    }

    /// The next request of the restore; waits for the planner, and for room. The lock is held meanwhile: room is given
    /// in the order of the windows, so those that are executed later cannot take it from those that are executed now.
    fn next_read<'r>(&self, row: &Mutex<Option<Row<'r>>>, ahead: &'r Ahead) -> Option<Read<'r>> {
        let mut open = lock(row);
        while let Some(row) = open.as_mut() {
            if let Some(read) = row.current.as_mut().and_then(|(reads, at)| Reads::next(reads, at, &ahead.reads)) {
                return Some(read);
            }
            // All requests of the window are under way or done: nothing else is sent for it.
            row.current = None;
            let place = ahead.windows.enter(0);
            let next = row.planned.recv().ok().filter(|_| self.run.check().is_ok());
            let begun = next.and_then(|window| {
                let (reads, arrived) = self.reads(&window.pieces).ok()?;
                row.begun.send(Begun { window, arrived, _place: place }).ok()?;
                Some((reads, 0))
            });
            match begun {
                Some(begun) => row.current = Some(begun),
                None => *open = None,
            }
        }
        None
    }

    /// The segments of these pieces, and where they will arrive.
    fn reads<'r>(&self, pieces: &[Piece]) -> Result<(Arc<Reads<'r>>, Receiver<Arrived<'r>>), Halt> {
        let mut segments: Vec<SegmentRef> = pieces.iter().map(|piece| piece.place.segment_ref()).collect();
        segments.sort_unstable();
        segments.dedup();
        let places = self.places(&segments)?;
        // Every segment fits, so no thread waits while it holds room.
        let (to, arrived) = sync_channel(places.len());
        let runs = runs(&places);
        Ok((Arc::new(Reads { places, runs, to }), arrived))
    }

    /// Reads the segments of all groups, opens each as soon as it has arrived, and writes its pieces.
    pub(super) fn fetch(
        &self,
        batch: &Batch,
        pieces: &[Piece],
        groups: &[Range<usize>],
        failed: &Failed,
    ) -> Result<(), Halt> {
        let most = self.run.vault.store().limits().reads;
        let rooms = Rooms::new(most, BYTES_AHEAD);
        let (reads, arrived) = self.reads(pieces)?;
        std::thread::scope(|scope| {
            let rooms = &rooms;
            let reading = spawn(scope, move || {
                let at = Mutex::new(0);
                let next = || Reads::next(&reads, &mut lock(&at), rooms);
                share(reads.runs.len(), most, |_| next().map(|read| self.read(read)));
            });
            let done = self.open_arrived(batch, pieces, groups, arrived, failed);
            reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done
        })
    }

    /// Opens each segment as soon as it has arrived, and writes the pieces of its group.
    pub(super) fn open_arrived(
        &self,
        batch: &Batch,
        pieces: &[Piece],
        groups: &[Range<usize>],
        arrived: Receiver<Arrived<'_>>,
        failed: &Failed,
    ) -> Result<(), Halt> {
        let arrived = Mutex::new(arrived);
        // The lock is held until something arrives, and no longer.
        let next = || lock(&arrived).recv().ok();
        let threads = vec![(); self.threads()];
        let opened = AtomicUsize::new(0);
        self.parallel(&threads, |worker, ()| {
            while let Some(Arrived { number, sealed, _room }) = next() {
                self.run.check()?;
                self.segment(batch, worker, &pieces[groups[number].clone()], sealed, failed)?;
                opened.fetch_add(1, Relaxed);
            }
            Ok(())
        })?;
        self.run.check()?;
        // Threads that read stop early only for a reason, or by a panic, which their starter meets.
        if opened.into_inner() == groups.len() { Ok(()) } else { Err(Halt) }
    }

    /// The places of segments, as far as they are known.
    fn places(&self, segments: &[SegmentRef]) -> Result<Vec<Option<SegmentPlace>>, Halt> {
        let mut pack = None;
        let place = |wanted: &SegmentRef| {
            if pack.as_ref().is_none_or(|(number, _)| *number != wanted.pack) {
                let info = self.lookup.pack(wanted.pack);
                pack = Some((wanted.pack, info.map_err(|error| self.run.fail(RestoreError::Catalogue(error)))?));
            }
            Ok(pack.as_ref().and_then(|(_, info)| info.as_ref()?.place(wanted.segment)))
        };
        segments.iter().map(place).collect()
    }

    /// Reads neighbours with one request, and hands each on. If that fails, each is read by itself, since the error may be about only one
    /// of them.
    fn read(&self, Read { reads, run, room }: Read<'_>) {
        if self.run.check().is_err() {
            return;
        }
        let mut together = None;
        if let Some((first, last)) = reads.places[run.start].zip(reads.places[run.end - 1]) {
            match self.packs.read_together(&first, &last).map_err(|error| fatal(error.into())) {
                Ok(read) => together = Some(read),
                Err(Ok(error)) => {
                    self.run.fail(error);
                    return;
                }
                Err(Err(_)) => {}
            }
        }
        let room = room.filter(|_| together.is_some()).map(Arc::new);
        for number in run {
            let sealed = together.as_ref().zip(reads.places[number]).and_then(|(read, place)| read.part(&place));
            // Nobody receives it if the restore has failed.
            let _ = reads.to.send(Arrived { number, sealed, _room: room.clone() });
        }
    }
}
