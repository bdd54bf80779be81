//! Locks that outlive a panic, and work that is shared among threads that do nothing else.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{Builder, Scope, ScopedJoinHandle, available_parallelism};

use rayon::ThreadPoolBuilder;

/// Locks a mutex, even if a thread panicked while it held the lock: the panic itself is reported, and no data behind
/// our locks is ever left half changed in a harmful way.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The content of a mutex that nobody else uses any more.
pub fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading, as [`lock`].
pub fn read_lock<T>(shared: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing, as [`lock`].
pub fn write_lock<T>(shared: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    shared.write().unwrap_or_else(PoisonError::into_inner)
}

/// Number of pieces of work under way whose panics are caught and handled.
static CAUGHT: AtomicUsize = AtomicUsize::new(0);

/// Calls a library that may panic over damaged data, and that we cannot change. Returns `None` after a panic.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    CAUGHT.fetch_add(1, Relaxed);
    let done = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.fetch_sub(1, Relaxed);
    match done {
        // This is not damage.
        Err(panic) if panic.is::<NoThread>() => resume_unwind(panic),
        done => done.ok(),
    }
}

/// Runs work whose panic must not end other work. The panic is reported like any other. Returns `None` after a panic.
pub fn survive<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Whether a panic at this moment may be caught and handled, so that it is no fault to report.
pub fn is_caught() -> bool {
    CAUGHT.load(Relaxed) > 0
}

/// The system provides no further thread to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoThread;

/// Starts a thread that the work cannot do without. If the system provides none, the work unwinds as by a panic that
/// nobody reports as one: all layers clean up, and the one that runs the work explains [`NoThread`].
pub fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    try_spawn(scope, work).unwrap_or_else(|NoThread| resume_unwind(Box::new(NoThread)))
}

/// Starts a thread beside this one, if the system provides it.
///
/// # Errors
/// If the system provides none.
pub fn try_spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, NoThread> {
    Builder::new().spawn_scoped(scope, work).map_err(|_| NoThread)
}

/// Does work on a thread of its own, which shares the parallel parts of it with no other, and waits for it. A thread of a
/// pool that waits for parallel work takes up other work of its pool meanwhile; if it holds a lock, that must not happen.
///
/// # Errors
/// If there is no thread for it.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NoThread> {
    let alone = || {
        let pool = ThreadPoolBuilder::new().num_threads(1).build().map_err(|_| NoThread)?;
        Ok(pool.install(work))
    };
    std::thread::scope(|scope| try_spawn(scope, alone)?.join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// As [`spawn`], for a thread that outlives its starter.
pub fn detach(work: impl FnOnce() + Send + 'static) {
    if Builder::new().spawn(work).is_err() {
        resume_unwind(Box::new(NoThread));
    }
}

/// Starts the shared pool of threads for all work without a pool of its own: as many as there are processors, or half
/// of those that the system provides, if it provides fewer, so that some are left for the rest. Called once, at the
/// start of the program.
///
/// # Errors
/// If the system provides none.
pub fn start_shared() -> Result<(), NoThread> {
    let wanted = available_parallelism().map_or(1, NonZeroUsize::get);
    let (held, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    // Each thread lasts until all have been requested.
    let given = std::thread::scope(|scope| {
        let others = (0..wanted).map_while(|_| try_spawn(scope, || lock(&wait).recv().is_ok()).ok()).count();
        drop(held);
        others
    });
    let count = if given < wanted { given / 2 } else { given };
    ThreadPoolBuilder::new().num_threads(count.max(1)).build_global().map_err(|_| NoThread)
}

/// Does `count` pieces of work on at most `threads` threads, including this one. Unlike those of a pool, they do
/// nothing else until the work is done: so this may be called while a lock is held. Returns the results in order.
pub fn share<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let piece = next.fetch_add(1, Relaxed);
            if piece >= count {
                return done;
            }
            done.push((piece, work(piece)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        // As many as there are: this thread does the pieces that others do not.
        let others: Vec<_> = (1..threads.min(count)).map_while(|_| try_spawn(scope, take).ok()).collect();
        let mut done = take();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(piece, _)| *piece);
    done.into_iter().map(|(_, result)| result).collect()
}

/// As [`share`], for work that can fail: after a failure no further piece is begun.
///
/// # Errors
/// The error of the first failed piece, in their order.
pub fn try_share<T: Send, E: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let failed = AtomicBool::new(false);
    let done = share(count, threads, |piece| {
        (!failed.load(Relaxed)).then(|| work(piece).inspect_err(|_| failed.store(true, Relaxed)))
    });
    done.into_iter().flatten().collect()
}

/// Room for work under way, bounded in the number of pieces and in the bytes of all of them together.
#[derive(Debug)]
pub struct Rooms {
    most: usize,
    bytes: u64,
    taken: Mutex<Taken>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    pieces: usize,
    bytes: u64,
}

/// The room that one piece of work takes, until this is dropped.
#[derive(Debug)]
pub struct Room<'r> {
    rooms: &'r Rooms,
    len: u64,
}

impl Rooms {
    /// Room for at most `most` pieces, and `bytes` bytes of them together.
    pub const fn new(most: usize, bytes: u64) -> Self {
        Self { most, bytes, taken: Mutex::new(Taken { pieces: 0, bytes: 0 }), left: Condvar::new() }
    }

    /// Waits until there is room for a piece of `len` bytes, and takes it. One that is longer than all the room gets in
    /// alone.
    pub fn enter(&self, len: u64) -> Room<'_> {
        let mut taken = lock(&self.taken);
        let is_full = |taken: &Taken| {
            taken.pieces >= self.most || taken.pieces > 0 && taken.bytes.saturating_add(len) > self.bytes
        };
        while is_full(&taken) {
            taken = self.left.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.pieces += 1;
        taken.bytes += len;
        Room { rooms: self, len }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.rooms.taken);
        taken.pieces -= 1;
        taken.bytes -= self.len;
        drop(taken);
        self.rooms.left.notify_all();
    }
}

/// Runs two functions, in parallel if `together`.
pub fn both<A: Send, B>(together: bool, first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    if !together {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        let first = spawn(scope, first);
        let second = second();
        (first.join().unwrap_or_else(|panic| resume_unwind(panic)), second)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_is_caught_is_known_as_such() {
        assert_eq!(catch(|| (is_caught(), 1)), Some((true, 1)));
        assert_eq!(catch(|| -> u8 { panic!("damage") }), None);
        // A panic for lack of threads is not damage of the data.
        assert!(
            catch_unwind(|| catch(|| -> u8 { resume_unwind(Box::new(NoThread)) }))
                .is_err_and(|why| why.is::<NoThread>())
        );
        assert_eq!(survive(|| 1), Some(1));
        assert_eq!(survive(|| -> u8 { panic!("a defect, as it should be said") }), None);
    }

    #[test]
    fn after_a_failure_nothing_more_is_begun() {
        for threads in [1, 4] {
            assert_eq!(try_share(5, threads, Ok::<_, ()>), Ok(vec![0, 1, 2, 3, 4]));
            let begun = AtomicUsize::new(0);
            let done = try_share(1000, threads, |piece| {
                begun.fetch_add(1, Relaxed);
                if piece == 7 { Err(piece) } else { Ok(()) }
            });
            assert_eq!(done, Err(7));
            assert!(threads > 1 || begun.into_inner() == 8);
        }
        assert_eq!(both(false, || 1, || 2), (1, 2));
        assert_eq!(both(true, || 1, || 2), (1, 2));
    }

    #[test]
    fn each_piece_is_done_once_and_in_its_place() {
        for (count, threads) in [(0, 4), (1, 4), (3, 1), (100, 3)] {
            let turns = AtomicUsize::new(0);
            let done = share(count, threads, |piece| {
                turns.fetch_add(1, Relaxed);
                piece * 2
            });
            assert_eq!(done, (0..count).map(|piece| piece * 2).collect::<Vec<_>>());
            assert_eq!(turns.into_inner(), count);
        }
    }
}
