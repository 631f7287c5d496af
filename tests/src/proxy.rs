//! A TCP proxy that breaks connections on demand, between any two parties.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What it does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Hands them on.
    Pass,
    /// Keeps connections open and hands nothing on, either way.
    Stall,
    /// Ends every connection, new ones too.
    Cut,
    /// Hands requests on, and ends the connection when the answer comes, which nobody gets.
    SwallowAnswers,
}

/// Listens on loopback and connects on to one target.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    swallowed: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts it in front of a port of loopback.
    ///
    /// # Panics
    /// When loopback has no free port.
    #[expect(clippy::disallowed_methods, reason = "the harness has no wiring of its own")]
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (mode, modes) = watch::channel(Mode::Pass);
        let (count, swallowed) = watch::channel(0);
        let count = Arc::new(count);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (modes, count) = (modes.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    serve(near, target, modes, &count).await;
                });
            }
        });
        Self { port, mode, swallowed, task }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does, for open connections too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Answers that nobody got so far.
    #[must_use]
    pub fn swallowed(&self) -> u64 {
        *self.swallowed.borrow()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.mode.send_replace(Mode::Cut);
    }
}

async fn serve(
    near: TcpStream,
    target: u16,
    mut modes: watch::Receiver<Mode>,
    swallowed: &watch::Sender<u64>,
) {
    if *modes.borrow() == Mode::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target))).await else {
        return;
    };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let up = pump(near_in, far_out, modes.clone(), None);
    let down = pump(far_in, near_out, modes.clone(), Some(swallowed));
    // The first side to end, or a cut, ends both: dropping the halves closes the sockets.
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    answers: Option<&watch::Sender<u64>>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if modes.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return;
        }
        let mode = *modes.borrow();
        if let (Mode::SwallowAnswers, Some(count)) = (mode, answers) {
            count.send_modify(|count| *count += 1);
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
