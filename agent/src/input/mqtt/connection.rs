//! One connection: socket, handshake, keep-alive, and the bytes under way in both directions.
//!
//! **Invariants**: every future here may be dropped at any await (reads and writes go through
//! buffers that it owns), so the caller may `select!` over them. Nothing of a connection outlives
//! it: a new one begins with empty buffers.
//!
//! **Bounds**: reading stops while [`OUT_BYTES_MAX`] wait to be written. A broker that is silent for
//! one and a half keep-alives is given up.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout};

use super::transport::{self, Duplex, dial, tls_fault};
use super::wire::{self, Ack, ConnAck, Connect, Decoder, Incoming, Verdict};
use super::{Config, Version};
use crate::secret;

/// Unwritten bytes at which reading pauses: a quarter of a million acknowledgements.
const OUT_BYTES_MAX: usize = 1024 * 1024;
/// Room for one read.
const READ_BYTES: usize = 64 * 1024;
/// Least time between pings that only prove acknowledgements.
const PROOF_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for the broker to close after our goodbye.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Transport(#[from] transport::Error),
    #[error("failed to connect: no answer from the broker within {0:?}")]
    ConnectTimeout(Duration),
    #[error("failed to connect: no password: {0}: {source}", source = std::error::Error::source(.0).map_or_else(String::new, ToString::to_string))]
    Password(#[source] secret::Error),
    #[error("failed to connect: the broker refused ({0}); check client id, username, password and rights")]
    Refused(String),
    #[error("failed to connect: the broker is unavailable ({0})")]
    Unavailable(String),
    #[error("failed to subscribe: no answer from the broker within {0:?}")]
    SubscribeTimeout(Duration),
    #[error("failed to keep the connection: the broker closed it")]
    Closed,
    #[error("failed to keep the connection: the broker closed it ({0})")]
    Disconnected(String),
    #[error("failed to keep the connection: nothing came for {0:?}; the broker or the way to it is frozen")]
    Silent(Duration),
    #[error("failed to keep the connection: {0}")]
    Io(#[from] io::Error),
    #[error("failed to understand the broker: {0}")]
    Protocol(#[from] wire::Error),
    #[error("failed to keep up: {0} bytes are received and not yet durable; reconnecting when they are")]
    Overloaded(usize),
}

impl Error {
    /// Whether only a change of configuration or rights helps.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Password(_) => true,
            Self::Transport(error) => error.is_refusal(),
            _ => false,
        }
    }
}

impl Error {
    /// Whether the broker cannot have made a session for this attempt to connect.
    pub(super) fn is_before_session(&self) -> bool {
        self.is_refusal() || matches!(self, Self::Transport(_) | Self::Unavailable(_))
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    version: Version,
    read: ReadHalf<Box<dyn Duplex>>,
    write: WriteHalf<Box<dyn Duplex>>,
    /// Something was written and may still be on this side of the transport.
    unflushed: bool,
    decoder: Decoder,
    out: BytesMut,
    keep_alive: Duration,
    received: Instant,
    sent: Instant,
    pinged: Instant,
    /// PINGREQs that have no answer yet.
    pings_open: u32,
    /// Acknowledgements were written that an answered ping would prove.
    proof_wanted: bool,
}

impl Connection {
    /// Connects and is let in; also says whether the broker still has our session.
    pub(super) async fn open(config: &Config) -> Result<(Self, bool), Error> {
        let limit = config.connect_timeout;
        timeout(limit, Self::handshake(config)).await.map_err(|_| Error::ConnectTimeout(limit))?
    }

    async fn handshake(config: &Config) -> Result<(Self, bool), Error> {
        let password = match &config.password {
            None => String::new(),
            Some(secret) => secret.read_aside().await.map_err(Error::Password)?.reveal().to_owned(),
        };
        let (read, write) = tokio::io::split(dial(config).await?);
        let keep_alive_secs = u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX).max(1);
        let now = Instant::now();
        let mut this = Self {
            version: config.version,
            read,
            write,
            unflushed: false,
            decoder: Decoder::new(config.version, config.packet_bytes_max),
            out: BytesMut::new(),
            keep_alive: Duration::from_secs(keep_alive_secs.into()),
            received: now,
            sent: now,
            pinged: now,
            pings_open: 0,
            proof_wanted: false,
        };
        let login = config.username.as_ref().map(|username| (username.clone(), password));
        let connect = Connect {
            client_id: &config.client_id,
            keep_alive_secs,
            login,
            receive_max: config.receive_max,
            session_expiry: config.session_expiry_secs,
        };
        this.version.connect(connect, &mut this.out)?;
        let ack = this.connack().await.map_err(|error| refused_by_tls(config, error))?;
        if let Some(secs) = ack.keep_alive {
            this.keep_alive = Duration::from_secs(secs.max(1).into());
        }
        if ack.session_expiry.is_some_and(|secs| secs < config.session_expiry_secs) {
            tracing::warn!(
                granted_secs = ack.session_expiry,
                asked_secs = config.session_expiry_secs,
                "broker keeps the session shorter than asked"
            );
        }
        match ack.verdict {
            Verdict::Accepted => Ok((this, ack.session_present)),
            Verdict::Unavailable(reason) => Err(Error::Unavailable(reason)),
            Verdict::Refused(reason) => Err(Error::Refused(reason)),
        }
    }

    async fn connack(&mut self) -> Result<ConnAck, Error> {
        loop {
            if let Some(ack) = self.decoder.connack()? {
                return Ok(ack);
            }
            self.progress().await?;
        }
    }

    /// Waits until bytes came or went; pings when it is time.
    pub(super) async fn progress(&mut self) -> Result<Progress, Error> {
        let due = self.due();
        let may_send = !self.out.is_empty() || self.unflushed;
        let may_read = self.out.len() < OUT_BYTES_MAX;
        let buffer = self.decoder.buffer();
        buffer.reserve(READ_BYTES);
        tokio::select! {
            read = self.read.read_buf(buffer), if may_read => {
                if read? == 0 {
                    return Err(Error::Closed);
                }
                self.received = Instant::now();
                Ok(Progress::Received)
            }
            sent = send(&mut self.write, &mut self.out, &mut self.unflushed), if may_send => {
                sent?;
                crate::fail::point("input.sent");
                self.sent = Instant::now();
                Ok(Progress::Sent)
            }
            () = tokio::time::sleep_until(due) => self.tick(Instant::now()),
        }
    }

    /// The next packet that is here as a whole.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Error> {
        let packet = self.decoder.next()?;
        match packet {
            Some(Incoming::PingResp) => self.pings_open = self.pings_open.saturating_sub(1),
            Some(Incoming::Disconnect(reason)) => return Err(Error::Disconnected(reason)),
            _ => {}
        }
        Ok(packet)
    }

    /// Puts a SUBSCRIBE behind what is to be written.
    pub(super) fn subscribe(&mut self, packet: u16, topics: &[String], qos: u8) -> Result<(), Error> {
        Ok(self.version.subscribe(packet, topics, qos, &mut self.out)?)
    }

    /// Puts an UNSUBSCRIBE behind what is to be written.
    pub(super) fn unsubscribe(&mut self, packet: u16, topics: &[String]) -> Result<(), Error> {
        Ok(self.version.unsubscribe(packet, topics, &mut self.out)?)
    }

    /// Puts a PUBACK or PUBREC behind what is to be written.
    pub(super) fn acknowledge(&mut self, ack: Ack) -> Result<(), Error> {
        self.proof_wanted = true;
        Ok(self.version.acknowledge(ack, &mut self.out)?)
    }

    /// Puts a PUBCOMP behind what is to be written.
    pub(super) fn complete(&mut self, packet: u16) -> Result<(), Error> {
        Ok(self.version.pubcomp(packet, &mut self.out)?)
    }

    /// Puts a PINGREQ behind the acknowledgements just put, if none is under way and the last is
    /// a second ago: its answer will prove that the broker has them.
    pub(super) fn prove(&mut self) -> Result<Progress, Error> {
        let now = Instant::now();
        if self.proof_due().is_some_and(|due| due <= now) { self.ping(now) } else { Ok(Progress::Sent) }
    }

    /// Writes what is left, says goodbye, and waits for the broker to close: a socket closed with
    /// unread bytes in it would be reset, and the last acknowledgements lost with it.
    pub(super) async fn close(mut self) -> Result<(), Error> {
        self.version.disconnect(&mut self.out)?;
        self.write.write_all_buf(&mut self.out).await?;
        self.write.flush().await?;
        self.write.shutdown().await?;
        let mut rest = BytesMut::with_capacity(READ_BYTES);
        let gone = async {
            while self.read.read_buf(&mut rest).await? > 0 {
                rest.clear();
            }
            Ok(())
        };
        timeout(GOODBYE_MAX, gone).await.unwrap_or(Ok(()))
    }

    fn due(&self) -> Instant {
        let silent = self.received + self.keep_alive * 3 / 2;
        // Four fifths: the broker counts from what it received, and is as strict as it likes.
        let idle = self.sent + self.keep_alive * 4 / 5;
        let next = silent.min(idle);
        self.proof_due().map_or(next, |proof| proof.min(next))
    }

    fn proof_due(&self) -> Option<Instant> {
        (self.proof_wanted && self.pings_open == 0).then(|| self.pinged + PROOF_INTERVAL)
    }

    fn tick(&mut self, now: Instant) -> Result<Progress, Error> {
        let silence = now - self.received;
        if silence >= self.keep_alive * 3 / 2 {
            return Err(Error::Silent(silence));
        }
        self.ping(now)
    }

    fn ping(&mut self, now: Instant) -> Result<Progress, Error> {
        self.version.pingreq(&mut self.out)?;
        self.pings_open += 1;
        (self.pinged, self.sent) = (now, now);
        if self.pings_open > 1 {
            return Ok(Progress::Sent);
        }
        self.proof_wanted = false;
        Ok(Progress::Pinged)
    }
}

/// One write; what TLS or WebSocket made of the last bytes goes out behind it.
async fn send(
    write: &mut (impl AsyncWriteExt + Unpin),
    out: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if !out.is_empty() {
        write.write_buf(out).await?;
        *unflushed = true;
    }
    if out.is_empty() {
        write.flush().await?;
        *unflushed = false;
    }
    Ok(())
}

/// With TLS 1.3 a broker that does not want our certificate says so only after the handshake.
fn refused_by_tls(config: &Config, error: Error) -> Error {
    match error {
        Error::Io(error) => match tls_fault(&error) {
            Some(source) => transport::Error::Tls { address: config.address(), source }.into(),
            None => error.into(),
        },
        error => error,
    }
}

/// What [`Connection::progress`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Received,
    Sent,
    /// A PINGREQ was put behind all acknowledgements so far, and the next PINGRESP is its answer.
    Pinged,
}
