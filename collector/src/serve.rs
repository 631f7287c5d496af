//! Connections: so many at once, each with time limits, all ended within the grace.
//!
//! `axum::serve` has none of these limits. Beyond `connections_max` nothing is accepted: further
//! peers wait in the kernel's backlog until one goes, and idle or slow ones do go, by `head_timeout`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::Config;

/// Bytes of a request's head, and of what hyper reads ahead of a body.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pause after an accept failed for want of file handles.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then until all connections are done or the grace is over.
pub(crate) async fn serve(
    config: &Arc<Config>,
    router: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let (end, ending) = watch::channel(false);
    let places = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (stream, place) = accept(&listener, &places) => {
                let (config, router, ending) = (config.clone(), router.clone(), ending.clone());
                connections.spawn(async move {
                    connection(&config, router, stream, ending).await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    end.send_replace(true);
    let ended = timeout(config.grace, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!(connections = connections.len(), "grace is over, connections cut off");
        connections.shutdown().await;
    }
}

/// Takes a place first: without one, nothing is accepted.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(config: &Config, router: Router, stream: TcpStream, mut ending: watch::Receiver<bool>) {
    // Small answers must not wait for the peer's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection lost before its first request");
        return;
    }
    let stream = Impatient { stream, patience: config.write_timeout, stuck: None };
    let mut connection = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    // The server's end of the channel only goes once it has told the end.
    let end = async { drop(ending.wait_for(|end| *end).await) };
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection ended");
    }
}

/// A stream whose writes fail when the peer takes nothing for too long.
struct Impatient {
    stream: TcpStream,
    patience: Duration,
    /// Runs since the first write that had to wait.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn poll_patiently<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(outcome) = poll(Pin::new(&mut self.stream), cx) {
            self.stuck = None;
            return Poll::Ready(outcome);
        }
        let patience = self.patience;
        let stuck =
            self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_patiently(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_patiently(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_patiently(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_patiently(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
