//! Where requests run: two threads of a runtime that nobody else sees. Who asks is an ordinary thread, and waits.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::store::StoreError;
use crate::store::remote::line::Watch;

/// How often a thread that waits looks whether the work is to stop, or a request has got on.
const LOOK: Duration = Duration::from_millis(50);
/// An answer that is longer than this is no mere refusal.
const MUCH: u64 = 256 << 10;
/// Threads that do what requests need: encryption of the line, for the most part.
const THREADS: usize = 2;

/// How far a request has got: what its transport counts, and who waits for it reads.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Bytes handed to the system.
    pub sent: AtomicU64,
    /// Bytes that came, and one more for each answer that began.
    pub received: AtomicU64,
}

/// A runtime.
#[derive(Debug)]
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// Starts one.
    pub fn new() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("vault-line").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a future, until it ends or the watch says that it takes too long. Then it is dropped.
    pub fn run<T: Send + 'static>(
        &self,
        watch: &mut Watch<'_>,
        tally: &Arc<Tally>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(runtime) = &self.0 else { return Err(StoreError::Stopped) };
        let (sender, receiver) = sync_channel(1);
        let before = (tally.sent.load(Relaxed), tally.received.load(Relaxed));
        let task = runtime.spawn(async move {
            // Nobody may be waiting any more.
            let _ = sender.try_send(future.await);
        });
        let (mut sent, mut received) = before;
        let heard = received + MUCH;
        loop {
            let outcome = receiver.recv_timeout(LOOK);
            let (sent_now, received_now) = (tally.sent.load(Relaxed), tally.received.load(Relaxed));
            if sent_now > sent {
                watch.sent(sent_now - sent);
                sent = sent_now;
            }
            if received_now > received {
                received = received_now;
                if received < heard { watch.stirred() } else { watch.received() }
            }
            match outcome {
                Ok(outcome) => return Ok(outcome),
                // What answered has sent something that the client of the protocol has no answer to.
                Err(RecvTimeoutError::Disconnected) => return Err(watch.failed("the answer makes no sense")),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = watch.check() {
                        task.abort();
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Drop for Runtime {
    /// What it does is not waited for: a host's name that is being looked up takes long.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
