//! Tells a redelivery from a new message; pure.
//!
//! A broker that did not get our acknowledgement (PUBACK, PUBREC) sends the message again after the next connect:
//! same session, same packet identifier, same bytes, DUP=1. It is in the journal already, so it is
//! acknowledged and not stored again. But the three marks also fit another message: once the broker
//! got the acknowledgement it may use the identifier again, and if the connection drops before that
//! second message reaches us, it comes with DUP=1 too, and perhaps with equal bytes ("on", "on").
//! To drop that one would lose a reading, so an entry is forgotten as soon as the broker certainly
//! got our acknowledgement or certainly has nothing left to redeliver:
//!
//! - a PUBLISH with DUP=0 and the entry's identifier: the broker had freed it;
//! - a PINGRESP to a PINGREQ that was written behind the acknowledgement, on the same connection: TCP keeps
//!   order, so the broker has read it;
//! - for entries of earlier connections that were not redelivered: a PINGRESP to a PINGREQ written
//!   after a DUP=0 publish of QoS 1 or 2 (not a retained one) of this connection. A broker resends what is unacknowledged before
//!   anything newer [MQTT-4.4.0-1, MQTT-4.6.0-1], so its redelivering was over.
//!
//! QoS 2 is the same with PUBREC for PUBACK, and a proof of its own: the PUBREL, which the broker sends
//! when it has our PUBREC. It is answered at once with PUBCOMP, whether or not the identifier is known, and
//! nothing of it is written down: the journal already tells all that a restart must know. What a crash costs,
//! of the agent or of the connection, after each step:
//!
//! ```text
//! last step that was done          the broker then sends      which is, after a restart too
//! PUBLISH came                     the PUBLISH, DUP           new: it is not in the journal
//! it is durable                    the PUBLISH, DUP           recognised, answered with PUBREC
//! PUBREC was written, and lost     the PUBLISH, DUP           recognised, answered with PUBREC
//! the broker has the PUBREC        the PUBREL                 answered with PUBCOMP
//! PUBREL came, PUBCOMP was lost    the PUBREL                 answered with PUBCOMP
//! the broker has the PUBCOMP       the identifier's next      new with DUP=0; with DUP, as for QoS 1
//! ```
//!
//! What remains is a message equal to the last one of its identifier, sent within a round trip
//! of the loss of a connection or a process: nothing in MQTT tells these two apart.
//!
//! Most brokers (mosquitto among them) count identifiers up, and that tells more. Once a session has
//! gone [`COUNTING_RUN`] messages forward, an identifier at or behind the last one, with equal
//! bytes, was sent before, and one ahead of it was not. Then
//!
//! - nothing need be forgotten, and entries are kept for [`REMEMBERED`] identifiers: a broker that
//!   crashed redelivers what we acknowledged since it last saved;
//! - that broker sends what it had queued when it last saved as if for the first time, DUP=0
//!   (measured with mosquitto 2.0.11): until the first new message of a connection, DUP is not asked of bytes that are
//!   remembered once. A sensor that repeats itself is believed: what such a broker sends again of it counts twice.
//!
//! A step back that is not recognised ends this, and what was proved until then is forgotten.
//!
//! Other bytes are always a new message: of topic, payload, and the user properties that are kept. After a restart the table is made again from the
//! journal's last messages.
//!
//! **Bound**: one entry for each of the 65,535 identifiers, 4 MiB. What is redelivered from further back is stored
//! twice. After a restart that is what lies behind the journal's last 65,535 messages, of all inputs together,
//! and behind the 16,383 before them of this input alone, whatever the others do. A journal at its quota
//! gives these up first. What damage took from the journal is not recognised either: it is stored when it is
//! redelivered, though it is reported lost, or read already.

use std::collections::{HashMap, VecDeque};

use super::wire::Publish;
use crate::flow::{Message, message_digest};
use crate::store::Delivered;

/// Identifiers behind the last that are remembered; the other eighth is ahead. Deep, because
/// mosquitto leaves as much unacknowledged as a session had queued, whatever its `max_inflight_messages`.
pub(super) const REMEMBERED: u16 = 57_343;
/// Steps forward that only counting explains: a broker that reuses the lowest free identifier goes
/// no further than what it leaves unacknowledged (20 by mosquitto's default, our Receive
/// Maximum of 1,000).
const COUNTING_RUN: u32 = 1_024;
/// Longest step forward: a broker that drops queued messages leaves gaps.
const STEP_MAX: u16 = 1_024;

/// What to do with a publish of QoS 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Store it, then acknowledge it.
    New,
    /// Acknowledge it once the first copy is durable.
    Redelivered,
}

/// What one session's packet identifiers stand for.
#[derive(Debug, Default)]
pub(super) struct Redelivery {
    entries: HashMap<u16, Entry>,
    /// Counts connections, to tell this one's entries from older ones.
    connection: u64,
    /// Acknowledgements written on this connection and not yet proved, oldest first.
    unproved: VecDeque<(u64, u16)>,
    /// Acknowledgements ever written.
    written: u64,
    /// A DUP=0 QoS 1 publish that was not retained came on this connection.
    fresh: bool,
    ping: Option<Ping>,
    /// Identifier of the last new message, and the steps forward that led to it.
    last: u16,
    run: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    digest: u64,
    connection: u64,
    /// Number of the last acknowledgement written for it.
    acknowledged: u64,
    /// The broker certainly got one: kept only while identifiers count up.
    proved: bool,
}

/// What the answer to the PINGREQ under way will prove.
#[derive(Clone, Copy, Debug)]
struct Ping {
    written: u64,
    fresh: bool,
}

impl Redelivery {
    /// After a restart, before the first connection: one of the input's last messages, in their order.
    pub(super) fn recall(&mut self, session: u64, message: &Message) {
        if message.delivery.qos > 0 && message.delivery.session == session {
            let digest = message_digest(&message.topic, &message.payload, &message.properties);
            self.insert(message.delivery.packet, digest);
        }
    }

    /// The same for one that the journal has forgotten; all of them come before its messages.
    pub(super) fn recall_forgotten(&mut self, session: u64, delivered: &Delivered) {
        if delivered.session == session {
            self.insert(delivered.packet, delivered.digest);
        }
    }

    /// Judges a publish of QoS 1 or 2 and remembers it.
    pub(super) fn judge(&mut self, publish: &Publish) -> Verdict {
        // Stored before a pipeline asked for its properties, it has none.
        let [digest, bare] = [&publish.properties[..], &[]]
            .map(|properties| message_digest(&publish.topic, &publish.payload, properties));
        let known = self.entries.get(&publish.packet).map(|entry| entry.digest);
        let known = known.filter(|known| [digest, bare].contains(known));
        let counting = self.counting();
        let near = !counting || ahead(publish.packet, self.last) < REMEMBERED;
        let unmarked = counting && !self.fresh;
        if near
            && (publish.dup || unmarked)
            && let Some(known) = known
            && (publish.dup || self.is_unique(known))
            && let Some(entry) = self.entries.get_mut(&publish.packet)
        {
            entry.connection = self.connection;
            return Verdict::Redelivered;
        }
        // A retained message is no sign: a subscription may replay it amid the redelivering.
        self.fresh |= !publish.dup && !publish.retain;
        self.insert(publish.packet, digest);
        Verdict::New
    }

    /// Whether these bytes stand once among what is remembered. A sensor that says the same again and
    /// again proves nothing by saying it under the same identifier: without DUP that is a new message.
    fn is_unique(&self, digest: u64) -> bool {
        self.entries.values().filter(|entry| entry.digest == digest).count() == 1
    }

    /// A PUBACK or PUBREC was written on this connection.
    pub(super) fn acknowledged(&mut self, packet: u16) {
        self.written += 1;
        if let Some(entry) = self.entries.get_mut(&packet) {
            entry.acknowledged = self.written;
            self.unproved.push_back((self.written, packet));
        }
    }

    /// A PUBREL came: the broker has our PUBREC.
    pub(super) fn released(&mut self, packet: u16) {
        if let Some(entry) = self.entries.get_mut(&packet) {
            entry.proved = true;
            if !self.counting() {
                self.entries.remove(&packet);
            }
        }
    }

    /// A PINGREQ was written, behind all acknowledgements so far.
    pub(super) fn pinged(&mut self) {
        self.ping = Some(Ping { written: self.written, fresh: self.fresh });
    }

    /// Its PINGRESP came.
    pub(super) fn ponged(&mut self) {
        let Some(ping) = self.ping.take() else { return };
        while let Some(&(number, packet)) = self.unproved.front()
            && number <= ping.written
        {
            self.unproved.pop_front();
            if let Some(entry) = self.entries.get_mut(&packet) {
                entry.proved |= entry.acknowledged == number;
            }
        }
        if ping.fresh {
            let connection = self.connection;
            self.entries.values_mut().for_each(|entry| entry.proved |= entry.connection != connection);
        }
        self.forget();
    }

    /// A new connection of the same session: what was written on the last may have been lost.
    pub(super) fn connected(&mut self) {
        self.connection += 1;
        self.unproved.clear();
        self.fresh = false;
        self.ping = None;
    }

    /// A new session: the broker has forgotten, and so do we.
    pub(super) fn new_session(&mut self) {
        self.connected();
        self.entries.clear();
        (self.last, self.run) = (0, 0);
    }

    fn insert(&mut self, packet: u16, digest: u64) {
        let counted = self.counting();
        self.run = if (1..=STEP_MAX).contains(&ahead(self.last, packet)) { self.run + 1 } else { 0 };
        self.last = packet;
        if self.counting() {
            // What the step left behind; a step is as long as STEP_MAX at most once in a while.
            self.entries.remove(&behind(packet, REMEMBERED));
        } else if counted {
            self.forget();
        }
        let entry = Entry { digest, connection: self.connection, acknowledged: 0, proved: false };
        self.entries.insert(packet, entry);
    }

    fn forget(&mut self) {
        if !self.counting() {
            self.entries.retain(|_, entry| !entry.proved);
        }
    }

    fn counting(&self) -> bool {
        self.run >= COUNTING_RUN
    }
}

/// Steps from one identifier forward to another; they go round from 65,535 to 1.
fn ahead(from: u16, to: u16) -> u16 {
    if to >= from { to - from } else { u16::MAX - (from - to) }
}

/// The identifier so many steps back.
fn behind(from: u16, steps: u16) -> u16 {
    if from > steps { from - steps } else { u16::MAX - (steps - from) }
}

#[cfg(test)]
mod tests;
