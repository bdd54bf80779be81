//! Locks that outlive a panic, and work that is shared among threads which wait for nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A thread that panicked while it had the lock does not matter: the panic itself is what is reported, and what is
/// behind our locks is never half changed in a way that does harm.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many pieces of work are under way whose panics are caught and mended.
static CAUGHT: AtomicUsize = AtomicUsize::new(0);

/// Does something that may panic over damage, in a library that we cannot change. Returns `None` then.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    CAUGHT.fetch_add(1, Relaxed);
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    CAUGHT.fetch_sub(1, Relaxed);
    done
}

/// Whether a panic that happens now may be caught and mended, so that it is no fault to report.
pub fn is_caught() -> bool {
    CAUGHT.load(Relaxed) > 0
}

/// Does `count` pieces of work on at most so many threads, this one among them. Unlike those of a pool, they do nothing else
/// until it is done: so it may be called while something is locked. Returns what came of each piece, in order.
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
        let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(take)).collect();
        let mut done = take();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(piece, _)| *piece);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_is_caught_is_known_as_such() {
        assert_eq!(catch(|| (is_caught(), 1)), Some((true, 1)));
        assert_eq!(catch(|| -> u8 { panic!("damage") }), None);
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
