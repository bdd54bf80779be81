//! Locks that outlive a panic, and work that is shared among threads which wait for nothing else.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A thread that panicked while it had the lock does not matter: the panic itself is what is reported, and what is
/// behind our locks is never half changed in a way that does harm.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
