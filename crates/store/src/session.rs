//! What an input remembers of its broker: the session's number, what was subscribed in it, and what the
//! broker may send again though the journal has forgotten it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::codec::{self, Row};
use super::folder::check_name;
use super::log::Page;
use super::{Error, Store};
use headwater_flow::{MqttDelivery, Seq, message_digest};

/// An input's session at its broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Counts sessions: a new one whenever the broker lost the last. 0 before the first.
    pub number: u64,
    /// Whose session at which broker it is.
    pub broker: String,
    /// Whether the broker is known to hold this session. Not so while there is no connection: the next
    /// CONNECT may make another session, and a crash may keep its answer from us.
    pub sure: bool,
    /// What the broker granted.
    pub granted: Vec<Filter>,
}

/// A topic filter and the QoS it was asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// As configured, `$share/…` included.
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
}

impl Store {
    /// The input's session, the default before the first.
    pub fn session(&self, input: &str) -> Result<Session, Error> {
        check_name(input)?;
        let row = self.0.meta.get(&Row::session(input))?;
        let session = row.map(|row| codec::session(&row)).transpose();
        Ok(session.map_err(|garbled| self.garbled(garbled))?.unwrap_or_default())
    }

    /// Keeps the input's session durably.
    pub fn keep_session(&self, input: &str, session: &Session) -> Result<(), Error> {
        check_name(input)?;
        self.0.meta.apply(&[(Row::session(input), Some(codec::put_session(session)))])?;
        headwater_fail::point("session.kept");
        Ok(())
    }
}

/// A message of QoS 1 or 2 that the journal has forgotten and a broker may yet send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The session's number.
    pub session: u64,
    /// The packet identifier.
    pub packet: u16,
    /// [`digest`](headwater_flow::message_digest) of topic and payload.
    pub digest: u64,
}

impl Store {
    /// What the input remembers beside its messages in [`Store::recent`], oldest first.
    pub fn delivered(&self, input: &str) -> Result<Vec<Delivered>, Error> {
        check_name(input)?;
        let row = self.0.meta.get(&Row::delivered(input))?;
        let delivered = row.map(|row| codec::delivered(&row)).transpose();
        Ok(delivered.map_err(|garbled| self.garbled(garbled))?.unwrap_or_default())
    }

    /// First message that is not folded into the rows of [`Store::delivered`].
    pub(super) fn folded(&self) -> Result<Seq, Error> {
        self.0.meta.number(&Row::delivered(""))
    }

    /// Has each input remember its last deliveries below `below`, so that another input's traffic does
    /// not push them out; returns up to where the journal may be trimmed. With one input nothing is
    /// done: the journal's window is its own. Done by a quarter of the window at a time, and an input
    /// keeps as many: beyond them, what is redelivered is stored twice.
    pub(super) fn fold(&self, below: Seq) -> Result<Seq, Error> {
        let (mut inputs, quarter) = (0, (self.0.redelivery_window / 4).max(1));
        self.0.meta.scan(&Row::sessions(), |_, _| {
            inputs += 1;
            Ok(())
        })?;
        if inputs < 2 {
            return Ok(Seq::MAX);
        }
        let folded = self.folded()?.max(self.0.journal.start());
        if below < folded.saturating_add(quarter) {
            return Ok(folded);
        }
        let mut rows: BTreeMap<Arc<str>, VecDeque<Delivered>> = BTreeMap::new();
        let (mut name, page) = (Arc::from(""), Page { records_max: usize::MAX, bytes_max: usize::MAX });
        self.0.journal.read(folded..below, page, |_, record| {
            let message = self.message(record, &mut name)?;
            let MqttDelivery { qos, session, packet, .. } = message.delivery;
            if qos == 0 {
                return Ok(());
            }
            if !rows.contains_key(&message.input) {
                rows.insert(Arc::clone(&message.input), self.delivered(&message.input)?.into());
            }
            let row = rows.entry(message.input).or_default();
            row.push_back(Delivered {
                session,
                packet,
                digest: message_digest(&message.topic, &message.payload, &message.properties),
            });
            if row.len() as u64 > quarter {
                row.pop_front();
            }
            Ok(())
        })?;
        let mut changes = vec![(Row::delivered(""), Some(codec::put_number(below)))];
        for (input, row) in &rows {
            changes.push((Row::delivered(input), Some(codec::put_delivered(row))));
        }
        self.0.meta.apply(&changes)?;
        Ok(below)
    }
}
