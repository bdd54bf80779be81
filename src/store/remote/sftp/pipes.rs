//! The pipes of a connection, and its end.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::store::remote::runtime::Tally;
use crate::store::remote::sftp::{Fault, Step};

/// The time that a request still has after its connection ended: answers that arrived before may not be handed on yet.
const GRACE: Duration = Duration::from_millis(200);

/// Both pipes of a child, counting the bytes.
pub(super) struct Pipes<R, W> {
    /// The pipe from the child.
    pub from: R,
    /// The pipe to the child.
    pub to: W,
    /// Counts the bytes.
    pub tally: Arc<Tally>,
    /// Learns that nothing more is received.
    pub ended: watch::Sender<bool>,
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Pipes<R, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, has_room) = (buf.filled().len(), buf.remaining() > 0);
        let polled = Pin::new(&mut self.from).poll_read(cx, buf);
        let len = buf.filled().len() - before;
        self.tally.received.fetch_add(len as u64, Relaxed);
        if polled.is_ready() && len == 0 && has_room {
            self.ended.send_replace(true);
        }
        polled
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Pipes<R, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.to).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = &polled {
            self.tally.sent.fetch_add(*len as u64, Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}

/// Runs a request for as long as its connection lives. The protocol's client never ends a request that it sends while the
/// connection ends.
pub(super) async fn while_connected<T>(
    ended: &watch::Receiver<bool>,
    request: impl Future<Output = Step<T>>,
) -> Step<T> {
    let mut ended = ended.clone();
    let end = pin!(async {
        // An error means that the connection is dropped.
        let _ = ended.wait_for(|ended| *ended).await;
        tokio::time::sleep(GRACE).await;
    });
    match select(pin!(request), end).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => Err(Fault::Lost("the connection has ended".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_with_its_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (ends, ended) = watch::channel(false);
        let answered = runtime.block_on(while_connected(&ended, async { Ok(7) }));
        assert_eq!(answered.unwrap(), 7);
        ends.send_replace(true);
        let unanswered = std::future::pending::<Step<()>>();
        let fault = runtime.block_on(while_connected(&ended, unanswered)).unwrap_err();
        assert!(!fault.is_answer(), "{fault:?}");
        // The answers that arrived are still handed on.
        let late = async {
            tokio::time::sleep(GRACE / 4).await;
            Ok(())
        };
        runtime.block_on(while_connected(&ended, late)).unwrap();
    }
}
