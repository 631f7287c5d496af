//! One `[input.NAME]`: subscribes, appends to the journal, then acknowledges.
//!
//! ```text
//! broker ─► transport ─► connection(wire) ─► intake(redelivery) ─► writer ─► journal, synced
//!    ▲                                                   │
//!    └──────── PUBACK, PUBREC ◄── durable group ◄────────┘
//! ```
//!
//! **Invariants**
//! - A PUBACK or PUBREC is written only after the publish, and all that came before it, is durable; in order;
//!   on the connection that the publish came on. What came on a lost connection is stored, and its
//!   redelivery is recognised ([`redelivery`]).
//! - The socket is always read, and pings go on, however long the journal takes: backpressure is
//!   the acknowledgements held back.
//! - The session outlives connections and processes (clean session off). A SUBSCRIBE is sent for filters
//!   that the session is not known to have ([`session`], [`subscription`]); not at every connection, because
//!   MQTT 3.1.1 brokers replay retained messages at each. A replay that is in the journal is recognised
//!   ([`replay`]).
//!
//! **Limits**: received and not durable, [`Config::in_flight_bytes_max`]: beyond half of it QoS 0 is shed, so
//! that it cannot take the room of the others; beyond it, at QoS 1 and 2, the connection is given up until the backlog is durable, and the broker keeps the rest. A publish
//! over [`Config::packet_bytes_max`] is refused: acknowledged, counted, named in the log.
//!
//! **A crash here** costs nothing that was acknowledged; the broker sends the rest again. A journal
//! that fails ends [`MqttInput::run`]: nothing more is acknowledged, and only a restart helps.

mod connection;
mod intake;
#[cfg(feature = "author")]
pub mod listen;
mod redelivery;
mod replay;
mod run;
mod session;
mod subscription;
mod transport;
mod websocket;
mod wire;
mod writer;

use std::time::Duration;

use tokio::sync::watch;

use crate::blocking;
use crate::flow::Message;
use crate::metrics::Input;
use crate::secret::Secret;
use crate::store::{Delivered, Session, Store};
use crate::tls;
use intake::Intake;
use run::Running;
use session::Keeper;
use subscription::Subscriptions;
use writer::{Done, Writer};

/// Wait before a nearly full disk is tried again.
const ROOM_EVERY: Duration = Duration::from_millis(500);

/// Most user properties that are kept of a message, and the longest value of one, in bytes.
pub const PROPERTIES_MAX: usize = 16;
/// See [`PROPERTIES_MAX`].
pub const PROPERTY_BYTES_MAX: usize = 256;

/// MQTT's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V311,
    /// 5.
    V5,
}

/// One `[input.NAME]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker's host name or address (IPv6 without brackets).
    pub host: String,
    /// Its port. Default 1883.
    pub port: u16,
    /// TLS, and whom to trust. Default: none.
    pub tls: Option<tls::Config>,
    /// WebSocket, and the path to ask for. Default: none.
    pub websocket: Option<String>,
    /// Default 3.1.1.
    pub version: Version,
    /// Names our session at the broker: must be ours alone, and stay. A second client of the same
    /// name and we would throw each other out.
    pub client_id: String,
    /// Topic filters, at least one; `$share/<group>/<filter>` too.
    pub topics: Vec<String>,
    /// User properties (MQTT 5) that its pipelines ask for, at most [`PROPERTIES_MAX`]: others are not kept,
    /// nor are values over [`PROPERTY_BYTES_MAX`]. None by default.
    pub properties: Vec<String>,
    /// 0, 1 (default) or 2. At 0 the broker forgets what it has sent, and the promise does not hold.
    pub qos: u8,
    /// None by default.
    pub username: Option<String>,
    /// Read anew at each connect; needs a user name. None by default.
    pub password: Option<Secret>,
    /// We send something at least this often, in whole seconds from 1 to 65,535. A broker that is
    /// silent for one and a half times as long is given up. Default 30 s.
    pub keep_alive: Duration,
    /// Largest PUBLISH taken; a larger one is refused. Default 256 KiB.
    pub packet_bytes_max: usize,
    /// Most bytes received and not yet durable: payload, topic and 128 for each message. Above half of it
    /// QoS 0 is shed, above it QoS 1 and 2 are left with the broker. One message always fits. Default 8 MiB.
    pub in_flight_bytes_max: usize,
    /// Publishes that a broker of MQTT 5 may send without an acknowledgement, at least 1. Default 1,000.
    pub receive_max: u16,
    /// Seconds that a broker of MQTT 5 keeps the session while we are away. Default `u32::MAX`: for ever.
    pub session_expiry_secs: u32,
    /// Time for TCP and the broker's first answer, and again for its answer to SUBSCRIBE. Default 10 s.
    pub connect_timeout: Duration,
    /// First wait before a reconnect; doubles with each failure, half of it random. Default 200 ms.
    pub reconnect_min: Duration,
    /// Longest wait before a reconnect, and the one after a refusal. Default 30 s.
    pub reconnect_max: Duration,
}

impl Config {
    /// The defaults, for a broker, a client name and topics.
    #[must_use]
    pub fn new(host: &str, client_id: &str, topics: Vec<String>) -> Self {
        Self {
            host: host.to_owned(),
            port: 1883,
            tls: None,
            websocket: None,
            version: Version::V311,
            client_id: client_id.to_owned(),
            topics,
            properties: Vec::new(),
            qos: 1,
            username: None,
            password: None,
            keep_alive: Duration::from_secs(30),
            packet_bytes_max: 256 * 1024,
            in_flight_bytes_max: 8 * 1024 * 1024,
            receive_max: 1_000,
            session_expiry_secs: u32::MAX,
            connect_timeout: Duration::from_secs(10),
            reconnect_min: Duration::from_millis(200),
            reconnect_max: Duration::from_secs(30),
        }
    }

    /// Whose session it is at which broker: another's packet identifiers and subscriptions mean nothing to us.
    fn broker(&self) -> String {
        format!("{} {}", self.address(), self.client_id)
    }

    /// Host and port.
    fn address(&self) -> String {
        let bracketed = self.host.contains(':');
        if bracketed {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The journal's own error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where messages become durable: the [`Store`], or memory in tests. All methods block.
pub trait Journal: Clone + Send + 'static {
    /// Returns once all of them survive a power cut.
    ///
    /// # Errors
    /// The journal must not be used again.
    fn append(&self, messages: &[Message]) -> Result<(), BoxError>;
    /// Shows the input's last messages, oldest first; one is in memory at a time.
    ///
    /// # Errors
    /// The journal must not be used again.
    fn recent(&self, input: &str, each: &mut dyn FnMut(&Message)) -> Result<(), BoxError>;
    /// What the input's broker may send again though [`Journal::recent`] does not show it, oldest first.
    ///
    /// # Errors
    /// The journal must not be used again.
    fn delivered(&self, input: &str) -> Result<Vec<Delivered>, BoxError>;
    /// The input's session, the default before the first.
    ///
    /// # Errors
    /// The journal must not be used again.
    fn session(&self, input: &str) -> Result<Session, BoxError>;
    /// Keeps it durably; while messages are appended too.
    ///
    /// # Errors
    /// The journal must not be used again.
    fn keep_session(&self, input: &str, session: &Session) -> Result<(), BoxError>;
}

impl Journal for Store {
    fn append(&self, messages: &[Message]) -> Result<(), BoxError> {
        // Without room nothing was written: it is tried again, and meanwhile nothing acknowledged.
        let mut waited = false;
        loop {
            match Self::append(self, messages) {
                Err(error) if error.is_for_room() => {
                    if !std::mem::replace(&mut waited, true) {
                        tracing::error!(%error, "input waits for room");
                    }
                    std::thread::sleep(ROOM_EVERY);
                }
                appended => {
                    if waited {
                        tracing::info!("input goes on");
                    }
                    return Ok(appended.map(drop)?);
                }
            }
        }
    }
    fn recent(&self, input: &str, each: &mut dyn FnMut(&Message)) -> Result<(), BoxError> {
        Ok(Self::recent(self, input, each)?)
    }
    fn delivered(&self, input: &str) -> Result<Vec<Delivered>, BoxError> {
        Ok(Self::delivered(self, input)?)
    }
    fn session(&self, input: &str) -> Result<Session, BoxError> {
        Ok(Self::session(self, input)?)
    }
    fn keep_session(&self, input: &str, session: &Session) -> Result<(), BoxError> {
        Ok(Self::keep_session(self, input, session)?)
    }
}

/// What only a restart helps against; everything else is retried for ever.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal failed; nothing was acknowledged that is not durable.
    #[error("failed to append to the journal; check the state folder's disk, then restart")]
    Journal(#[source] BoxError),
    /// A thread could not be started.
    #[error(transparent)]
    Thread(blocking::ThreadError),
    /// The writer thread panicked.
    #[error("failed to write for the input `{input}`: {panic}; restart the agent")]
    Writer {
        /// The input's name.
        input: String,
        /// The words of the panic.
        panic: String,
    },
}

/// Subscribes; appends to the journal, then acknowledges.
#[derive(Debug)]
pub struct MqttInput<J = Store> {
    name: String,
    config: Config,
    journal: J,
    metrics: Input,
}

impl<J: Journal> MqttInput<J> {
    /// An input that has not connected yet.
    #[must_use]
    pub fn new(name: &str, config: Config, journal: J, metrics: Input) -> Self {
        Self { name: name.to_owned(), config, journal, metrics }
    }

    /// Runs until shutdown; reconnects for ever.
    ///
    /// # Errors
    /// Where only a restart helps.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let Self { name, config, journal, metrics } = self;
        let mut writer = Writer::start(&name, journal.clone())?;
        let opened = tokio::select! {
            opened = writer.done() => opened?,
            () = stopped(&mut shutdown) => return Ok(()),
        };
        let Done::Opened(memory) = opened else { unreachable!("the first report of a writer") };
        let keeper = Keeper::start(&name, config.broker(), journal, memory.session.clone())?;
        let subscriptions = Subscriptions::new(&name, &config, memory.session.granted.clone());
        let intake = Intake::new(&name, &config, metrics.clone(), *memory);
        let mut running = Running::new(name, config, metrics.clone(), writer, intake, keeper, subscriptions);
        let ended = running.reconnect(&mut shutdown).await;
        metrics.connected.set(0);
        ended
    }
}

/// Comes when the agent is to stop, or nobody is left to say so.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

#[cfg(test)]
mod tests;
