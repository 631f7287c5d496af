//! The loop: connect, serve, pause, and again.
//!
//! **Invariant**: every `select!` arm may be dropped at any await: [`Connection`] keeps its bytes,
//! and the writer's reports stay in their channel.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::connection::{self, Connection, Progress};
use super::intake::{Full, Intake};
use super::session::{Found, Keeper};
use super::subscription::Subscriptions;
use super::wire::{Incoming, Refused};
use super::writer::{Done, Writer};
use super::{Config, Error, Journal, stopped};
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

/// An input at work.
pub(super) struct Running<J> {
    name: String,
    config: Arc<Config>,
    metrics: Input,
    writer: Writer<J>,
    intake: Intake,
    keeper: Keeper<J>,
    subscriptions: Subscriptions,
}

impl<J: Journal> Running<J> {
    pub(super) fn new(
        name: String,
        config: Config,
        metrics: Input,
        writer: Writer<J>,
        intake: Intake,
        keeper: Keeper<J>,
        subscriptions: Subscriptions,
    ) -> Self {
        Self { name, config: Arc::new(config), metrics, writer, intake, keeper, subscriptions }
    }

    /// Connects again and again until shutdown.
    pub(super) async fn reconnect(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<(), Error> {
        let config = self.config.clone();
        let mut failures = 0;
        loop {
            tokio::select! {
                doubted = self.keeper.doubt() => doubted?,
                () = stopped(shutdown) => return self.close(None).await,
            }
            let opened = tokio::select! {
                opened = Connection::open(&config) => opened,
                failed = self.settle_for_ever() => return Err(failed),
                () = stopped(shutdown) => return self.close(None).await,
            };
            let begun = Instant::now();
            let error = match opened {
                Err(error) => {
                    if !error.is_before_session() {
                        self.keeper.unanswered();
                    }
                    error
                }
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

    /// One connection, from CONNACK to its end.
    async fn session(
        &mut self,
        connection: &mut Connection,
        session_present: bool,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<End, Error> {
        self.metrics.connections.inc();
        tracing::info!(input = self.name, session_present, "connected to the broker");
        crate::fail::point("input.connected");
        let found = tokio::select! {
            found = self.keeper.answered(session_present) => found?,
            () = stopped(shutdown) => return Ok(End::Stopped),
        };
        if found == Found::Lost {
            self.metrics.sessions_lost.inc();
            tracing::warn!(input = self.name, "broker lost our session and what it held for us");
        }
        if matches!(found, Found::First | Found::Lost) {
            self.intake.new_session(self.keeper.number());
        }
        match found {
            Found::Same => {}
            Found::Doubtful => self.subscriptions.doubted(),
            Found::First | Found::Lost => self.subscriptions.lost(),
        }
        match self.greet(connection) {
            Err(error) => Ok(End::Lost(error)),
            Ok(()) => self.serve(connection, shutdown).await,
        }
    }

    /// Has the session subscribe to what is configured, and to nothing else.
    fn greet(&mut self, connection: &mut Connection) -> Result<(), connection::Error> {
        if let Some(request) = self.subscriptions.leave() {
            connection.unsubscribe(request.packet, &request.topics)?;
        }
        self.subscribe(connection)?;
        self.granted();
        Ok(())
    }

    async fn serve(
        &mut self,
        connection: &mut Connection,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<End, Error> {
        loop {
            let taken = self.take_all(connection);
            self.hand_over();
            if let Err(error) = taken {
                return Ok(End::Lost(error));
            }
            let stepped = tokio::select! {
                progress = connection.progress() => progress.map(|progress| self.progressed(progress)),
                done = self.writer.done() => self.acknowledge(done?, connection),
                kept = self.keeper.kept() => {
                    kept?;
                    Ok(())
                }
                () = self.subscriptions.due() => self.resubscribe(connection),
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
            crate::fail::point("input.received");
            let taken = match packet {
                Incoming::Publish(publish) => self.intake.take(publish, received),
                Incoming::Refused(Refused { topic, ack, bytes, reason }) => {
                    self.intake.refuse(&topic, ack, bytes, &reason)
                }
                Incoming::PubRel(packet) => {
                    self.intake.released(packet);
                    connection.complete(packet)?;
                    Ok(())
                }
                Incoming::SubAck(codes) => {
                    self.subscriptions.answered(&codes)?;
                    self.granted();
                    Ok(())
                }
                Incoming::UnsubAck => {
                    self.subscriptions.left();
                    self.granted();
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
        for &ack in &acks {
            crate::fail::point("input.acknowledging");
            connection.acknowledge(ack)?;
            self.intake.acknowledged(ack.packet());
        }
        if !acks.is_empty() {
            let progress = connection.prove()?;
            self.progressed(progress);
        }
        Ok(())
    }

    /// Asks for what is missing, if anything is.
    fn subscribe(&mut self, connection: &mut Connection) -> Result<(), connection::Error> {
        match self.subscriptions.ask() {
            Some(request) => connection.subscribe(request.packet, &request.topics, self.config.qos),
            None => Ok(()),
        }
    }

    fn resubscribe(&mut self, connection: &mut Connection) -> Result<(), connection::Error> {
        match self.subscriptions.overdue() {
            Some(answer_max) => Err(connection::Error::SubscribeTimeout(answer_max)),
            None => self.subscribe(connection),
        }
    }

    /// What the broker granted is to be kept.
    fn granted(&mut self) {
        if self.subscriptions.is_answered() {
            self.keeper.granted(self.subscriptions.granted());
        }
        self.metrics.connected.set(i64::from(self.subscriptions.is_complete()));
    }

    /// Gives the writer what has gathered, unless it is busy.
    fn hand_over(&mut self) {
        if !self.writer.is_busy()
            && let Some(group) = self.intake.group()
        {
            self.writer.append(group);
        }
    }

    /// A report while there is no connection to acknowledge on.
    fn settle(&mut self, done: Done) {
        if let Done::Durable(group) = done {
            self.intake.durable(group);
        }
        self.hand_over();
    }

    async fn settle_for_ever(&mut self) -> Error {
        loop {
            match self.writer.done().await {
                Ok(done) => self.settle(done),
                Err(error) => return error,
            }
        }
    }

    /// Waits before the next connect; after an overload also until the backlog is durable.
    async fn pause(&mut self, error: &connection::Error, wait: Duration) -> Result<(), Error> {
        self.hand_over();
        if let connection::Error::Overloaded(_) = error {
            while self.intake.in_flight_bytes() > 0 {
                let done = self.writer.done().await?;
                self.settle(done);
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
        self.hand_over();
        while self.writer.is_busy() {
            let done = self.writer.done().await?;
            match &mut connection {
                None => self.settle(done),
                Some(open) => {
                    if let Err(error) = self.acknowledge(done, open) {
                        self.report(&error, Duration::ZERO);
                        connection = None;
                    }
                    self.hand_over();
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

/// Exponential, half of it random, so that a fleet does not come back at once.
fn wait(config: &Config, error: &connection::Error, failures: u32) -> Duration {
    let longest = match error {
        connection::Error::Overloaded(_) => config.reconnect_min,
        refusal if refusal.is_refusal() => config.reconnect_max,
        _ => config.reconnect_min.saturating_mul(1 << (failures - 1).min(16)).min(config.reconnect_max),
    };
    longest / 2 + longest.mul_f64(fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: &connection::Error, failures: u32, longest_millis: u64) {
        let (config, longest) = (Config::new("", "", Vec::new()), Duration::from_millis(longest_millis));
        let waits: Vec<_> = (0..100).map(|_| wait(&config, error, failures)).collect();
        assert!(waits.iter().all(|wait| (longest / 2..=longest).contains(wait)), "{error}: {waits:?}");
        let spread = *waits.iter().max().unwrap() - *waits.iter().min().unwrap();
        assert!(spread > longest / 4, "a fleet would come back at once: {spread:?}");
    }

    #[test]
    fn waits_grow_and_differ_and_a_refusal_waits_longest() {
        let (closed, refused) = (connection::Error::Closed, connection::Error::Refused(String::new()));
        for (failures, longest) in [(1, 200), (2, 400), (5, 3_200), (9, 30_000), (1_000, 30_000)] {
            check(&closed, failures, longest);
        }
        check(&refused, 1, 30_000);
        check(&connection::Error::Overloaded(1), 9, 200);
    }
}
