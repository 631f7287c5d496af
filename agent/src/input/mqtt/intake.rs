//! What becomes of each publish: gathered for the journal, recognised, shed, refused or held back.
//!
//! **Invariants**: every acknowledgement goes through a group, so it leaves after all that came
//! before it is durable, in the order of arrival; a group's acknowledgements belong to one connection.
//!
//! **Bound**: [`Config::in_flight_bytes_max`] over the gathering group and the one at the writer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::redelivery::{Redelivery, Verdict};
use super::replay::Replay;
use super::wire::{Ack, Publish};
use super::writer::{Group, Memory};
use super::{Config, PROPERTY_BYTES_MAX};
use crate::flow::{Message, MqttDelivery, Timestamp, UserProperties};
use crate::metrics::Input;
use crate::topic;

/// What a message costs beside its topic and payload: about its place in the group.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 128;
/// No broker has more publishes unacknowledged: it has no more identifiers.
const ACKS_MAX: usize = 65_535;
/// Least time between two log lines of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The bound is reached: the connection must go, and the broker keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What became of a publish: exactly one of these.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Gathered,
    Duplicate,
    Shed,
    Refused,
}

/// Judges publishes and gathers them.
#[derive(Debug)]
pub(super) struct Intake {
    input: Arc<str>,
    filters: Vec<String>,
    properties: Vec<String>,
    bytes_max: usize,
    metrics: Input,
    redelivery: Redelivery,
    replay: Replay,
    session: u64,
    gathering: Group,
    /// Messages and their cost, gathering or at the writer.
    in_flight: (usize, usize),
    refusals: RateLimit,
    sheds: RateLimit,
}

impl Intake {
    /// Goes on from what the journal has.
    pub(super) fn new(input: &str, config: &Config, metrics: Input, memory: Memory) -> Self {
        Self {
            input: input.into(),
            filters: config.topics.clone(),
            properties: config.properties.clone(),
            bytes_max: config.in_flight_bytes_max,
            metrics,
            redelivery: memory.redelivery,
            replay: memory.replay,
            session: memory.session.number,
            gathering: Group::default(),
            in_flight: (0, 0),
            refusals: RateLimit::default(),
            sheds: RateLimit::default(),
        }
    }

    /// Takes a publish in, whatever becomes of it; `Full` if it stays the broker's.
    pub(super) fn take(&mut self, mut publish: Publish, received: Timestamp) -> Result<(), Full> {
        let bytes = publish.payload.len();
        publish.properties = self.wanted(std::mem::take(&mut publish.properties));
        if !self.filters.iter().any(|filter| topic::matches(&publish.topic, filter)) {
            // An earlier configuration's subscription lives on in the broker's session.
            return self.refuse(&publish.topic, publish.ack(), bytes, "no configured topic matches");
        }
        let properties: usize = publish.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        let cost = publish.topic.len() + bytes + properties + MESSAGE_OVERHEAD_BYTES;
        let fits = self.in_flight.0 == 0 || self.in_flight.1 + cost <= self.bytes_max;
        let fate = if let Some(ack) = publish.ack() {
            self.keep(publish, ack, received, cost, fits)?
        } else if self.is_replay(&publish) {
            Fate::Duplicate
        } else if cost + self.in_flight.1 <= self.bytes_max / 2 {
            self.gather(publish, received, cost);
            Fate::Gathered
        } else {
            if let Some(before) = self.sheds.pass() {
                tracing::warn!(input = %self.input, topic = publish.topic, before, "shed a qos 0 message: journal is behind");
            }
            Fate::Shed
        };
        self.count(fate, bytes);
        Ok(())
    }

    /// Drops a publish that cannot be kept, and acknowledges it, or it would come for ever.
    pub(super) fn refuse(
        &mut self,
        topic: &str,
        ack: Option<Ack>,
        bytes: usize,
        reason: &str,
    ) -> Result<(), Full> {
        if let Some(ack) = ack {
            self.owe(ack)?;
        }
        self.count(Fate::Refused, bytes);
        if let Some(before) = self.refusals.pass() {
            tracing::warn!(input = %self.input, topic, bytes, reason, before, "refused a message");
        }
        Ok(())
    }

    /// The gathered group, if there is one.
    pub(super) fn group(&mut self) -> Option<Group> {
        if self.gathering.is_empty() {
            return None;
        }
        let connection = self.gathering.connection;
        Some(std::mem::replace(&mut self.gathering, Group { connection, ..Group::default() }))
    }

    /// A group is durable. Returns what to acknowledge: nothing if its connection is gone.
    pub(super) fn durable(&mut self, group: Group) -> Vec<Ack> {
        self.in_flight = (self.in_flight.0 - group.messages.len(), self.in_flight.1 - group.bytes);
        let _together = self.metrics.turn();
        self.metrics.journaled_messages.inc_by(group.messages.len() as u64);
        self.gauge();
        if group.connection == self.gathering.connection { group.acks } else { Vec::new() }
    }

    /// A PUBACK or PUBREC was written.
    pub(super) fn acknowledged(&mut self, packet: u16) {
        self.redelivery.acknowledged(packet);
        self.metrics.acknowledged_messages.inc();
    }

    /// The broker has our PUBREC.
    pub(super) fn released(&mut self, packet: u16) {
        self.redelivery.released(packet);
    }

    /// A PINGREQ was written behind all acknowledgements.
    pub(super) fn pinged(&mut self) {
        self.redelivery.pinged();
    }

    /// It was answered.
    pub(super) fn ponged(&mut self) {
        self.redelivery.ponged();
    }

    /// The connection is gone: what came on it is stored, and never acknowledged on the next.
    pub(super) fn disconnected(&mut self) {
        self.gathering.connection += 1;
        self.gathering.acks.clear();
        self.redelivery.connected();
    }

    /// The broker's session is another.
    pub(super) fn new_session(&mut self, session: u64) {
        self.session = session;
        self.redelivery.new_session();
    }

    /// Bytes received and not yet durable.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight.1
    }

    fn keep(
        &mut self,
        publish: Publish,
        ack: Ack,
        received: Timestamp,
        cost: usize,
        fits: bool,
    ) -> Result<Fate, Full> {
        if !fits || self.gathering.acks.len() >= ACKS_MAX {
            return Err(Full);
        }
        self.owe(ack)?;
        if self.redelivery.judge(&publish) == Verdict::Redelivered || self.is_replay(&publish) {
            return Ok(Fate::Duplicate);
        }
        self.gather(publish, received, cost);
        Ok(Fate::Gathered)
    }

    /// The first property of each name that a pipeline asks for; one too long is none.
    fn wanted(&self, properties: UserProperties) -> UserProperties {
        let mut wanted = UserProperties::new();
        for (name, value) in properties {
            let known = wanted.iter().any(|(known, _)| *known == name);
            if self.properties.contains(&name) && !known && value.len() <= PROPERTY_BYTES_MAX {
                wanted.push((name, value));
            }
        }
        wanted
    }

    /// Whether it is a retained message that was stored already.
    fn is_replay(&self, publish: &Publish) -> bool {
        publish.retain && self.replay.is_known(&publish.topic, &publish.payload, &publish.properties)
    }

    fn owe(&mut self, ack: Ack) -> Result<(), Full> {
        if self.gathering.acks.len() >= ACKS_MAX {
            return Err(Full);
        }
        self.gathering.acks.push(ack);
        Ok(())
    }

    fn gather(&mut self, publish: Publish, received: Timestamp, cost: usize) {
        self.replay.stored(&publish.topic, &publish.payload, &publish.properties);
        let delivery = MqttDelivery {
            qos: publish.qos,
            retain: publish.retain,
            session: self.session,
            packet: publish.packet,
        };
        self.gathering.messages.push(Message {
            input: self.input.clone(),
            topic: publish.topic,
            payload: publish.payload,
            properties: publish.properties,
            received,
            delivery,
        });
        self.gathering.bytes += cost;
        self.in_flight = (self.in_flight.0 + 1, self.in_flight.1 + cost);
    }

    /// One more received, and what became of it: counted together, or the ledger would not balance.
    fn count(&self, fate: Fate, bytes: usize) {
        let _together = self.metrics.turn();
        match fate {
            Fate::Gathered => self.gauge(),
            Fate::Duplicate => _ = self.metrics.duplicate_messages.inc(),
            Fate::Shed => _ = self.metrics.shed_messages.inc(),
            Fate::Refused => _ = self.metrics.refused_messages.inc(),
        }
        self.metrics.received_messages.inc();
        self.metrics.received_bytes.inc_by(bytes as u64);
    }

    fn gauge(&self) {
        self.metrics.in_flight_messages.set(self.in_flight.0 as i64);
        self.metrics.in_flight_bytes.set(self.in_flight.1 as i64);
    }
}

/// Lets one line through an interval, and tells it how many it kept back.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    last: Option<Instant>,
    kept_back: u64,
}

impl RateLimit {
    pub(super) fn pass(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < LOG_INTERVAL) {
            self.kept_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.kept_back))
    }
}
