//! The runtime for requests: two threads, hidden from the rest of the program. The caller is an ordinary thread, and
//! waits.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::store::StoreError;
use crate::store::remote::line::Watch;

/// The interval at which a waiting thread checks whether the work is to stop, or its request has made progress.
const LOOK: Duration = Duration::from_millis(50);
/// An answer longer than this is no mere refusal.
const MUCH: u64 = 256 << 10;
/// Threads that work for requests: mostly on the encryption of the connection.
const THREADS: usize = 2;

/// The progress of a request: its transport counts it, and the thread that waits reads it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Bytes handed to the system.
    pub sent: AtomicU64,
    /// Bytes received, plus one for each answer that began.
    pub received: AtomicU64,
}

/// A runtime.
#[derive(Debug)]
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// Starts a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("vault-line").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a future until it ends, or until the watch says that it takes too long. Then the future is dropped.
    pub(super) fn run<T: Send + 'static>(
        &self,
        watch: &mut Watch<'_>,
        tally: &Arc<Tally>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(runtime) = &self.0 else { return Err(StoreError::Stopped) };
        let (sender, receiver) = sync_channel(1);
        let before = (tally.sent.load(Relaxed), tally.received.load(Relaxed));
        let task = runtime.spawn(async move {
            // The receiver may be gone.
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
                // The task ended without a result: the protocol's client failed on an answer that it could not
                // handle.
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
    /// Does not wait for the runtime's tasks: looking up a host's name can take long.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
