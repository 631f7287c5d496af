//! The loop: connect, serve, pause, and again.
//!
//! **Invariant**: every `select!` arm may be dropped at any await: [`Connection`] keeps its bytes,
//! and the writer's reports stay in their channel.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{self, Connection, Progress};
use super::intake::{Full, Intake};
use super::wire::{self, Incoming};
use super::writer::{Done, Writer};
use super::{Config, Error, stopped};
use crate::flow::Timestamp;
use crate::metrics::Input;

/// Longest wait at shutdown for the last groups, their acknowledgements and the goodbye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);
/// A connection that lived this long was a success: the next wait is short again.
const STABLE: Duration = Duration::from_secs(5);

/// Why a connection is no longer served.
enum End {
    Lost(connection::Error),
    Stopped,
}

/// Where the subscriptions of this session and process stand.
#[derive(Clone, Copy, Debug)]
enum Subscription {
    Granted,
    /// A SUBSCRIBE is under way until then.
    Asked(Instant),
    /// Asked again then.
    Refused(Instant),
}

/// A source at work.
pub(super) struct Running {
    name: String,
    config: Arc<Config>,
    metrics: Input,
    writer: Writer,
    intake: Intake,
    /// The session is another than the journal knows.
    session_due: bool,
    /// Topics without a granted subscription in this session and process.
    missing: Vec<String>,
    subscription: Subscription,
    subscribe_packet: u16,
}

impl Running {
    pub(super) fn new(name: String, config: Config, metrics: Input, writer: Writer, intake: Intake) -> Self {
        Self {
            name,
            missing: config.topics.clone(),
            config: Arc::new(config),
            metrics,
            writer,
            intake,
            session_due: false,
            subscription: Subscription::Granted,
            subscribe_packet: 0,
        }
    }

    /// Connects again and again until shutdown.
    pub(super) async fn reconnect(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<(), Error> {
        let config = self.config.clone();
        let mut failures = 0;
        loop {
            let opened = tokio::select! {
                opened = Connection::open(&config) => opened,
                failed = self.settle_for_ever() => return Err(failed),
                () = stopped(shutdown) => return self.close(None).await,
            };
            let begun = Instant::now();
            let error = match opened {
                Err(error) => error,
                Ok((mut connection, session_present)) => {
                    match self.session(&mut connection, session_present, shutdown).await? {
                        End::Lost(error) => error,
                        End::Stopped => return self.close(Some(connection)).await,
                    }
                }
            };
            self.metrics.connected.set(0);
            self.intake.disconnected();
            failures = if begun.elapsed() >= STABLE { 1 } else { failures + 1 };
            let wait = wait(&config, &error, failures);
            self.report(&error, wait);
            tokio::select! {
                paused = self.pause(&error, wait) => paused?,
                () = stopped(shutdown) => return self.close(None).await,
            }
        }
    }

    /// Leaves the writer thread.
    pub(super) fn stop(self) {
        self.metrics.connected.set(0);
        self.writer.stop();
    }

    /// One connection, from CONNACK to its end.
    async fn session(
        &mut self,
        connection: &mut Connection,
        session_present: bool,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<End, Error> {
        self.metrics.connections.inc();
        tracing::info!(input = self.name, session_present, "connected to the broker");
        crate::fail::point("source.connected");
        if !session_present {
            self.missing.clone_from(&self.config.topics);
            if self.intake.session() > 0 {
                self.metrics.sessions_lost.inc();
                tracing::warn!(input = self.name, "broker lost our session and what it held for us");
            }
        }
        self.session_due |= !session_present || self.intake.session() == 0;
        if self.session_due {
            tokio::select! {
                renewed = self.renew_session() => renewed?,
                () = stopped(shutdown) => return Ok(End::Stopped),
            }
        }
        match self.subscribe(connection) {
            Err(error) => Ok(End::Lost(error)),
            Ok(()) => self.serve(connection, shutdown).await,
        }
    }

    /// Has the journal count the new session before anything of it can come.
    async fn renew_session(&mut self) -> Result<(), Error> {
        self.writer.new_session()?;
        loop {
            match self.writer.done().await? {
                Done::Session(session) => {
                    self.intake.new_session(session);
                    self.session_due = false;
                    return Ok(());
                }
                done => self.settle(done)?,
            }
        }
    }

    async fn serve(
        &mut self,
        connection: &mut Connection,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<End, Error> {
        loop {
            let taken = self.take_all(connection);
            self.hand_over()?;
            if let Err(error) = taken {
                return Ok(End::Lost(error));
            }
            let stepped = tokio::select! {
                progress = connection.progress() => progress.map(|progress| self.progressed(progress)),
                done = self.writer.done() => self.acknowledge(done?, connection),
                () = self.subscription.due() => self.resubscribe(connection),
                () = stopped(shutdown) => return Ok(End::Stopped),
            };
            if let Err(error) = stepped {
                return Ok(End::Lost(error));
            }
        }
    }

    /// Takes in every packet that is here as a whole.
    fn take_all(&mut self, connection: &mut Connection) -> Result<(), connection::Error> {
        let received = Timestamp::now();
        while let Some(packet) = connection.next()? {
            crate::fail::point("source.received");
            let taken = match packet {
                Incoming::Publish(publish) => self.intake.take(publish, received),
                Incoming::Oversized { topic, packet, bytes, .. } => {
                    self.intake.refuse(&topic, packet, bytes, "larger than packet_bytes_max")
                }
                Incoming::SubAck(codes) => {
                    self.subscribed(&codes)?;
                    Ok(())
                }
                Incoming::PingResp => {
                    self.intake.ponged();
                    Ok(())
                }
                Incoming::Disconnect(reason) => return Err(connection::Error::Disconnected(reason)),
            };
            if let Err(Full) = taken {
                return Err(connection::Error::Overloaded(self.intake.in_flight_bytes()));
            }
        }
        Ok(())
    }

    fn progressed(&mut self, progress: Progress) {
        if progress == Progress::Pinged {
            self.intake.pinged();
        }
    }

    /// A group is durable: its acknowledgements go out, in one write.
    fn acknowledge(&mut self, done: Done, connection: &mut Connection) -> Result<(), connection::Error> {
        let Done::Durable(group) = done else { return Ok(()) };
        let acks = self.intake.durable(group);
        for &packet in &acks {
            crate::fail::point("source.acknowledging");
            connection.acknowledge(packet)?;
            self.intake.acknowledged(packet);
        }
        if !acks.is_empty() {
            let progress = connection.prove()?;
            self.progressed(progress);
        }
        Ok(())
    }

    /// Asks for what is missing, if anything is.
    fn subscribe(&mut self, connection: &mut Connection) -> Result<(), connection::Error> {
        if self.missing.is_empty() {
            self.subscription = Subscription::Granted;
            self.metrics.connected.set(1);
            return Ok(());
        }
        self.subscribe_packet = self.subscribe_packet.checked_add(1).unwrap_or(1);
        self.subscription = Subscription::Asked(Instant::now() + self.config.connect_timeout);
        connection.subscribe(self.subscribe_packet, &self.missing, self.config.qos)
    }

    fn resubscribe(&mut self, connection: &mut Connection) -> Result<(), connection::Error> {
        match self.subscription {
            Subscription::Asked(_) => Err(connection::Error::SubscribeTimeout(self.config.connect_timeout)),
            _ => self.subscribe(connection),
        }
    }

    /// The broker's answer, topic by topic; those refused are asked for again, the others flow.
    fn subscribed(&mut self, codes: &[Result<u8, String>]) -> Result<(), connection::Error> {
        let asked = matches!(self.subscription, Subscription::Asked(_));
        if !asked || codes.len() != self.missing.len() {
            return Err(wire::Error::Unexpected("a SUBACK that answers nothing").into());
        }
        let mut refused = Vec::new();
        for (topic, code) in self.missing.drain(..).zip(codes) {
            match code {
                Ok(qos) if *qos >= self.config.qos => {}
                Ok(qos) => tracing::warn!(
                    input = self.name,
                    topic,
                    granted = qos,
                    asked = self.config.qos,
                    "broker grants a lower qos: these messages are outside the promise"
                ),
                Err(reason) => {
                    tracing::error!(
                        input = self.name,
                        topic,
                        reason,
                        retry = ?self.config.reconnect_max,
                        "failed to subscribe: the broker refused; check the topic and the client's rights"
                    );
                    refused.push(topic);
                }
            }
        }
        self.missing = refused;
        self.subscription = if self.missing.is_empty() {
            self.metrics.connected.set(1);
            Subscription::Granted
        } else {
            Subscription::Refused(Instant::now() + self.config.reconnect_max)
        };
        Ok(())
    }

    /// Gives the writer what has gathered, unless it is busy.
    fn hand_over(&mut self) -> Result<(), Error> {
        if !self.writer.is_busy()
            && let Some(group) = self.intake.group()
        {
            self.writer.append(group)?;
        }
        Ok(())
    }

    /// A report while there is no connection to acknowledge on.
    fn settle(&mut self, done: Done) -> Result<(), Error> {
        if let Done::Durable(group) = done {
            self.intake.durable(group);
        }
        self.hand_over()
    }

    async fn settle_for_ever(&mut self) -> Error {
        loop {
            let settled = match self.writer.done().await {
                Ok(done) => self.settle(done),
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                return error;
            }
        }
    }

    /// Waits before the next connect; after an overload also until the backlog is durable.
    async fn pause(&mut self, error: &connection::Error, wait: Duration) -> Result<(), Error> {
        self.hand_over()?;
        if let connection::Error::Overloaded(_) = error {
            while self.intake.in_flight_bytes() > 0 {
                let done = self.writer.done().await?;
                self.settle(done)?;
            }
        }
        match timeout(wait, self.settle_for_ever()).await {
            Ok(failed) => Err(failed),
            Err(_) => Ok(()),
        }
    }

    /// Makes the last groups durable, acknowledges them and says goodbye, as far as time allows;
    /// the broker sends again what remains.
    async fn close(&mut self, connection: Option<Connection>) -> Result<(), Error> {
        match timeout(SHUTDOWN_MAX, self.finish(connection)).await {
            Ok(finished) => finished,
            Err(_) => {
                tracing::warn!(
                    input = self.name,
                    in_flight_bytes = self.intake.in_flight_bytes(),
                    "stopped before all received messages were durable: the broker will send them again"
                );
                Ok(())
            }
        }
    }

    async fn finish(&mut self, mut connection: Option<Connection>) -> Result<(), Error> {
        self.hand_over()?;
        while self.writer.is_busy() {
            let done = self.writer.done().await?;
            match &mut connection {
                None => self.settle(done)?,
                Some(open) => {
                    if let Err(error) = self.acknowledge(done, open) {
                        self.report(&error, Duration::ZERO);
                        connection = None;
                    }
                    self.hand_over()?;
                }
            }
        }
        if let Some(connection) = connection
            && let Err(error) = connection.close().await
        {
            tracing::debug!(input = self.name, %error, "broker did not wait for our goodbye");
        }
        Ok(())
    }

    fn report(&self, error: &connection::Error, retry: Duration) {
        if let connection::Error::Overloaded(_) = error {
            self.metrics.overloads.inc();
        }
        if error.is_refusal() {
            tracing::error!(input = self.name, %error, ?retry, "not connected");
        } else {
            tracing::warn!(input = self.name, %error, ?retry, "not connected");
        }
    }
}

impl Subscription {
    /// Comes when something is to be done about it.
    async fn due(self) {
        match self {
            Self::Granted => std::future::pending().await,
            Self::Asked(at) | Self::Refused(at) => sleep_until(at).await,
        }
    }
}

/// Exponential, half of it random, so that a fleet does not come back at once.
fn wait(config: &Config, error: &connection::Error, failures: u32) -> Duration {
    let longest = match error {
        connection::Error::Overloaded(_) => config.reconnect_min,
        refusal if refusal.is_refusal() => config.reconnect_max,
        _ => config.reconnect_min.saturating_mul(1 << (failures - 1).min(16)).min(config.reconnect_max),
    };
    longest / 2 + longest.mul_f64(fastrand::f64() / 2.0)
}
