//! Read-ahead: brings data into the cache before it is asked for, if a file is read from front to back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use crate::read::View;
use crate::read::file::StoredFile;
use crate::sync::lock;

/// Number of bytes that are brought ahead: a few segments.
const AHEAD: u64 = 6 << 20;
/// When at most this many of these bytes are left, more are brought.
const LEFT: u64 = 4 << 20;
/// Most requests that wait; older ones are dropped.
const WAITING: usize = 16;

/// Threads that bring data into the cache of a view before it is read. They end when this is dropped.
pub struct Ahead {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    view: Weak<View>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    wishes: VecDeque<(Arc<StoredFile>, u64, u64)>,
    ended: bool,
}

/// The course of reads of one file.
#[derive(Debug, Default)]
pub struct Course {
    /// The next offset, if the reads go from front to back.
    next: AtomicU64,
    /// End of the data that was brought.
    brought: AtomicU64,
}

impl Ahead {
    /// Starts `threads` threads.
    pub fn new(view: &Arc<View>, threads: usize) -> Self {
        let shared = Arc::new(Shared { view: Arc::downgrade(view), queue: Mutex::default(), wake: Condvar::new() });
        let start = |_| {
            let shared = shared.clone();
            // If no thread can be started, nothing is brought ahead.
            std::thread::Builder::new().name("ahead".to_owned()).spawn(move || shared.work()).ok()
        };
        let threads = (0..threads).filter_map(start).collect();
        Self { shared, threads }
    }

    /// Reports a read of a file. If it continues where the last one ended, the data after it is brought.
    pub fn tell(&self, file: &Arc<StoredFile>, course: &Course, offset: u64, len: u64) {
        let end = offset + len;
        let expected = course.next.swap(end, Relaxed);
        // Reads that the system sends together do not arrive in order.
        let follows = offset > 0 && offset.abs_diff(expected) <= LEFT / 2;
        if !follows {
            course.brought.store(end, Relaxed);
            return;
        }
        let brought = course.brought.load(Relaxed).max(end);
        if brought >= file.size() || brought - end > LEFT {
            return;
        }
        let until = end + AHEAD;
        course.brought.store(until, Relaxed);
        let mut queue = lock(&self.shared.queue);
        queue.wishes.push_back((file.clone(), brought, until));
        if queue.wishes.len() > WAITING {
            queue.wishes.pop_front();
        }
        self.shared.wake.notify_one();
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        lock(&self.shared.queue).ended = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has reported it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let (file, from, until) = loop {
                if queue.ended {
                    return;
                }
                match queue.wishes.pop_front() {
                    Some(wish) => break wish,
                    None => queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            let Some(view) = self.view.upgrade() else { return };
            let (mut at, mut last) = (from, None);
            // The reader of the data will meet the error itself.
            let _ = file.for_each_chunk(view.as_ref(), from, |id, len| {
                let place = view.place(id)?;
                let segment = (place.pack, place.segment);
                if last != Some(segment) {
                    view.chunk(id)?;
                    last = Some(segment);
                }
                at += len;
                Ok(at < until && !lock(&self.queue).ended)
            });
        }
    }
}
