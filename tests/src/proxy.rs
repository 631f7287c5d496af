//! A TCP proxy that breaks connections on demand, between any two parties (MQTT or HTTP) and in either
//! direction.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::process::free_port;

/// The direction of the bytes that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultDirection {
    /// Bytes from the connecting side to the target.
    Up,
    /// Bytes from the target to the connecting side.
    Down,
    /// Bytes of both directions.
    Both,
}

/// The treatment of bytes. Where chance plays a part, it follows from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Passes bytes on.
    Pass,
    /// Keeps connections open and passes nothing on.
    Stall(FaultDirection),
    /// Passes each piece on after a delay.
    Delay(FaultDirection, Duration),
    /// Passes on this many bytes a second.
    Rate(FaultDirection, usize),
    /// Ends every connection, new ones too.
    Cut,
    /// Stops listening, so that connections are refused, and ends the open ones.
    Refuse,
    /// Resets the connection (RST) at one in four pieces.
    Reset(FaultDirection),
    /// Ends this direction in good order (FIN) at one in four pieces, and keeps the other one.
    HalfClose(FaultDirection),
    /// Passes on half of a piece and ends the connection.
    Half(FaultDirection),
    /// Ends the connection instead of passing the piece on, so that the answer in it is lost.
    Swallow(FaultDirection),
    /// Flips a bit near the end of one in four large pieces: in the body of a request, not in its head.
    Corrupt(FaultDirection),
    /// Replaces the first piece of a connection with noise.
    Garbage(FaultDirection),
}

/// The number of pieces of which one meets a random fault.
const CHANCE: u8 = 4;
/// Least size of a piece whose second half holds a request's body, in bytes.
const LARGE_BYTES: usize = 2048;
/// Interval between the pieces of a slow connection.
const SLOW_EVERY: Duration = Duration::from_millis(50);

/// A proxy that listens on loopback and connects to one target.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    mode: watch::Sender<ProxyMode>,
    swallowed: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy in front of a port of loopback.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn start(target: u16) -> Self {
        Self::seeded(target, 0).await
    }

    /// Starts a proxy whose random faults follow from another seed.
    ///
    /// # Panics
    /// When loopback has no free port.
    #[expect(clippy::disallowed_methods, reason = "the harness has no wiring of its own")]
    pub async fn seeded(target: u16, seed: u64) -> Self {
        // The proxy gives the port up in the mode `Refuse` and takes it again later.
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
        let (mode, modes) = watch::channel(ProxyMode::Pass);
        let (count, swallowed) = watch::channel(0);
        let task = tokio::spawn(listen(listener, target, modes, Arc::new(count), Rng::with_seed(seed)));
        Self { port, mode, swallowed, task }
    }

    /// The port on which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the mode, for open connections too.
    pub fn set(&self, mode: ProxyMode) {
        self.mode.send_replace(mode);
    }

    /// Returns the number of pieces that were swallowed so far.
    #[must_use]
    pub fn swallowed(&self) -> u64 {
        *self.swallowed.borrow()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.mode.send_replace(ProxyMode::Cut);
    }
}

#[expect(clippy::disallowed_methods, reason = "the harness has no wiring of its own")]
async fn listen(
    listener: TcpListener,
    target: u16,
    mut modes: watch::Receiver<ProxyMode>,
    swallowed: Arc<watch::Sender<u64>>,
    mut chance: Rng,
) {
    let address = listener.local_addr().expect("a bound socket has an address");
    let mut listener = Some(listener);
    loop {
        let refuses = *modes.borrow_and_update() == ProxyMode::Refuse;
        if refuses {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.expect("its port is still free"));
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok((near, _)) = accepted => {
                let modes = modes.clone();
                let swallowed = Arc::clone(&swallowed);
                let chance = chance.fork();
                tokio::spawn(async move { serve(near, target, modes, &swallowed, chance).await });
            }
            changed = modes.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn serve(
    near: TcpStream,
    target: u16,
    mut modes: watch::Receiver<ProxyMode>,
    swallowed: &watch::Sender<u64>,
    mut chance: Rng,
) {
    let ends = |mode: &ProxyMode| matches!(mode, ProxyMode::Cut | ProxyMode::Refuse);
    if ends(&modes.borrow()) {
        return;
    }
    let Ok(far) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target))).await else {
        return;
    };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let pump = |direction, chance| DirectionPump { modes: modes.clone(), direction, swallowed, chance };
    let up = pump(FaultDirection::Up, chance.fork());
    let down = pump(FaultDirection::Down, chance);
    // The end of either direction, or a cut, ends both: dropping the halves closes the sockets.
    tokio::select! {
        () = up.run(near_in, far_out) => {}
        () = down.run(far_in, near_out) => {}
        _ = modes.wait_for(ends) => {}
    }
}

/// The bytes of a connection in one direction.
struct DirectionPump<'a> {
    modes: watch::Receiver<ProxyMode>,
    direction: FaultDirection,
    swallowed: &'a watch::Sender<u64>,
    chance: Rng,
}

impl DirectionPump<'_> {
    /// Passes bytes on until the connection has to end in both directions.
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 << 10];
        let mut is_first = true;
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let direction = self.direction;
            let stalls = |mode: &ProxyMode| matches!(mode, ProxyMode::Stall(it) if it.is(direction));
            if self.modes.wait_for(|mode| !stalls(mode)).await.is_err() {
                return;
            }
            let mode = *self.modes.borrow();
            let piece = &mut buffer[..length];
            match mode {
                ProxyMode::Delay(it, time) if it.is(direction) => tokio::time::sleep(time).await,
                ProxyMode::Reset(it) if it.is(direction) && self.chance.u8(..CHANCE) == 0 => {
                    for socket in [from.as_ref(), to.as_ref()] {
                        socket.set_zero_linger().ok();
                    }
                    return;
                }
                ProxyMode::HalfClose(it) if it.is(direction) && self.chance.u8(..CHANCE) == 0 => {
                    to.shutdown().await.ok();
                    return std::future::pending().await;
                }
                ProxyMode::Half(it) if it.is(direction) => {
                    to.write_all(&piece[..length / 2]).await.ok();
                    return;
                }
                ProxyMode::Swallow(it) if it.is(direction) => {
                    self.swallowed.send_modify(|count| *count += 1);
                    return;
                }
                ProxyMode::Corrupt(it)
                    if it.is(direction) && length >= LARGE_BYTES && self.chance.u8(..CHANCE) == 0 =>
                {
                    piece[self.chance.usize(length / 2..length)] ^= 1 << self.chance.u8(..8);
                }
                ProxyMode::Garbage(it) if it.is(direction) && is_first => self.chance.fill(piece),
                _ => {}
            }
            is_first = false;
            let written = match mode {
                ProxyMode::Rate(it, rate) if it.is(direction) => slowly(&mut to, piece, rate).await,
                _ => to.write_all(piece).await,
            };
            if written.is_err() {
                return;
            }
        }
    }
}

impl FaultDirection {
    /// Returns true if a fault for this direction hits `other`.
    fn is(self, other: Self) -> bool {
        self == Self::Both || self == other
    }
}

async fn slowly(to: &mut OwnedWriteHalf, piece: &[u8], rate: usize) -> std::io::Result<()> {
    for part in piece.chunks((rate / 20).max(1)) {
        to.write_all(part).await?;
        tokio::time::sleep(SLOW_EVERY).await;
    }
    Ok(())
}
