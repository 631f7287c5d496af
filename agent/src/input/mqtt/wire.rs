//! The bytes on the connection: MQTT 3.1.1 and 5 behind one set of packets.
//!
//! The only file that names `rumqttc`. Its packet codecs are used; its event loop is not, because
//! that loop cannot do what this stage promises: it ends the connection at an oversized packet,
//! writes one acknowledgement a system call (MQTT 5), finds a frozen broker after two keep-alives,
//! and hands out messages of a dead connection as if they were of the next.
//!
//! **Bound**: [`Decoder`] buffers at most one packet of the configured size beside one read; of a
//! larger PUBLISH it keeps topic and packet identifier, and drops the payload as it arrives. A malformed
//! PUBLISH is refused alike; only another packet that makes no sense ends the connection.

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::Version;
use crate::flow::UserProperties;

/// Longest fixed header: type and flags, and four bytes of remaining length.
const HEADER_BYTES_MAX: usize = 5;
/// Largest packet other than PUBLISH that a broker has a reason to send (a reason string, properties).
const CONTROL_BYTES_MAX: usize = 256 * 1024;

/// What the broker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Publish(Publish),
    /// A PUBLISH over the size limit or malformed, without its payload.
    Refused(Refused),
    /// The broker has our PUBREC and will not send that PUBLISH again.
    PubRel(u16),
    SubAck(Vec<Result<u8, String>>),
    UnsubAck,
    PingResp,
    /// MQTT 5: why the broker is about to close the connection.
    Disconnect(String),
}

/// A message as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    /// Its user properties: MQTT 5 only.
    pub(super) properties: UserProperties,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    /// 0 at QoS 0.
    pub(super) packet: u16,
}

impl Publish {
    /// What the broker is owed for it.
    pub(super) fn ack(&self) -> Option<Ack> {
        Ack::of(self.qos, self.packet)
    }
}

/// What can be said of a PUBLISH that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// As far as it is text.
    pub(super) topic: String,
    /// What the broker is owed, where that can be read: without, it would send it for ever.
    pub(super) ack: Option<Ack>,
    pub(super) bytes: usize,
    pub(super) reason: String,
}

/// What a publish is acknowledged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// QoS 1.
    PubAck(u16),
    /// QoS 2, first half.
    PubRec(u16),
}

impl Ack {
    pub(super) fn of(qos: u8, packet: u16) -> Option<Self> {
        match qos {
            0 => None,
            1 => Some(Self::PubAck(packet)),
            _ => Some(Self::PubRec(packet)),
        }
    }

    pub(super) fn packet(self) -> u16 {
        let (Self::PubAck(packet) | Self::PubRec(packet)) = self;
        packet
    }
}

/// The broker's answer to a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnAck {
    pub(super) session_present: bool,
    pub(super) verdict: Verdict,
    /// Seconds, where the broker overrules ours (MQTT 5).
    pub(super) keep_alive: Option<u16>,
    /// Seconds, where the broker overrules ours (MQTT 5).
    pub(super) session_expiry: Option<u32>,
}

/// Whether we are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    /// The broker is overloaded or starting: the usual retry.
    Unavailable(String),
    /// Only a change of configuration or rights helps: the slow retry.
    Refused(String),
}

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub(super) struct Connect<'a> {
    pub(super) client_id: &'a str,
    pub(super) keep_alive_secs: u16,
    pub(super) login: Option<(String, String)>,
    /// MQTT 5 only.
    pub(super) receive_max: u16,
    /// MQTT 5 only, seconds.
    pub(super) session_expiry: u32,
}

/// The broker broke the protocol, or speaks another.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    V4(#[from] rumqttc::mqttbytes::Error),
    #[error("{0}")]
    V5(#[from] rumqttc::v5::mqttbytes::Error),
    #[error("malformed remaining length")]
    RemainingLength,
    #[error("a control packet of {0} bytes")]
    ControlTooLarge(usize),
    #[error("a topic that is not UTF-8 or empty")]
    Topic,
    #[error("a packet that has no place here: {0}")]
    Unexpected(&'static str),
}

impl Version {
    /// CONNECT into an existing session, or the first of one that outlives the connection; one that does
    /// not outlive it begins empty.
    pub(super) fn connect(self, connect: Connect<'_>, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::V311 => {
                let mut packet = v4::Connect::new(connect.client_id);
                packet.clean_session = connect.session_expiry == 0;
                packet.keep_alive = connect.keep_alive_secs;
                packet.login = connect.login.map(|(username, password)| v4::Login { username, password });
                packet.write(out)?;
            }
            Self::V5 => {
                let mut properties = v5::ConnectProperties::new();
                properties.session_expiry_interval = Some(connect.session_expiry);
                properties.receive_maximum = Some(connect.receive_max);
                let packet = v5::Connect {
                    keep_alive: connect.keep_alive_secs,
                    client_id: connect.client_id.to_owned(),
                    clean_start: connect.session_expiry == 0,
                    properties: Some(properties),
                };
                let login = connect.login.map(|(username, password)| v5::Login { username, password });
                packet.write(&None, &login, out)?;
            }
        }
        Ok(())
    }

    /// SUBSCRIBE. MQTT 5 brokers are asked to replay retained messages to new subscriptions only;
    /// older ones replay them at each.
    pub(super) fn subscribe(
        self,
        packet: u16,
        topics: &[String],
        qos: u8,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        match self {
            Self::V311 => {
                let qos = rumqttc::mqttbytes::qos(qos)?;
                let filters = topics.iter().map(|topic| v4::SubscribeFilter::new(topic.clone(), qos));
                let mut subscribe = v4::Subscribe::new_many(filters);
                subscribe.pkid = packet;
                subscribe.write(out)?;
            }
            Self::V5 => {
                let qos = rumqttc::v5::mqttbytes::qos(qos).ok_or(Error::Unexpected("QoS"))?;
                let filters = topics.iter().map(|topic| v5::Filter {
                    retain_forward_rule: v5::RetainForwardRule::OnNewSubscribe,
                    ..v5::Filter::new(topic.clone(), qos)
                });
                let mut subscribe = v5::Subscribe::new_many(filters, None);
                subscribe.pkid = packet;
                subscribe.write(out)?;
            }
        }
        Ok(())
    }

    /// UNSUBSCRIBE.
    pub(super) fn unsubscribe(self, packet: u16, topics: &[String], out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::V311 => {
                v4::Unsubscribe { pkid: packet, topics: topics.to_vec() }.write(out)?;
            }
            Self::V5 => {
                let filters = topics.to_vec();
                v5::Unsubscribe { pkid: packet, filters, properties: None }.write(out)?;
            }
        }
        Ok(())
    }

    /// PUBACK or PUBREC: the same bytes in both versions, as success needs no reason code.
    pub(super) fn acknowledge(self, ack: Ack, out: &mut BytesMut) -> Result<(), Error> {
        match ack {
            Ack::PubAck(packet) => v4::PubAck::new(packet).write(out)?,
            Ack::PubRec(packet) => v4::PubRec::new(packet).write(out)?,
        };
        Ok(())
    }

    /// PUBCOMP: the same bytes in both versions.
    pub(super) fn pubcomp(self, packet: u16, out: &mut BytesMut) -> Result<(), Error> {
        v4::PubComp::new(packet).write(out)?;
        Ok(())
    }

    /// PINGREQ.
    pub(super) fn pingreq(self, out: &mut BytesMut) -> Result<(), Error> {
        v4::PingReq.write(out)?;
        Ok(())
    }

    /// DISCONNECT that leaves the session as it is.
    pub(super) fn disconnect(self, out: &mut BytesMut) -> Result<(), Error> {
        v4::Disconnect.write(out)?;
        Ok(())
    }
}

/// Cuts the stream into packets.
#[derive(Debug)]
pub(super) struct Decoder {
    version: Version,
    packet_bytes_max: usize,
    buffer: BytesMut,
    /// Bytes of an oversized packet that are still to come.
    skip: usize,
}

impl Decoder {
    pub(super) fn new(version: Version, packet_bytes_max: usize) -> Self {
        Self { version, packet_bytes_max, buffer: BytesMut::new(), skip: 0 }
    }

    /// Where the next read goes.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole packet after the CONNACK.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Error> {
        let Some((first, header, total)) = self.frame()? else { return Ok(None) };
        let publish = first >> 4 == 3;
        if total > self.packet_bytes_max && publish {
            return Ok(self.oversized(first, header, total));
        }
        if total > CONTROL_BYTES_MAX && !publish {
            return Err(Error::ControlTooLarge(total));
        }
        if self.buffer.len() < total {
            self.buffer.reserve(total - self.buffer.len());
            return Ok(None);
        }
        let frame = self.buffer.split_to(total);
        if !publish {
            return self.decode(frame).map(Some);
        }
        // Where it ends is known: that it makes no sense is no reason to end the connection.
        let start = start(&frame[header..]).to_vec();
        let decoded = self.decode(frame);
        Ok(Some(decoded.unwrap_or_else(|error| refused(first, &start, total, error.to_string()))))
    }

    fn decode(&self, mut frame: BytesMut) -> Result<Incoming, Error> {
        match self.version {
            Version::V311 => incoming_v4(v4::Packet::read(&mut frame, usize::MAX)?),
            Version::V5 => incoming_v5(v5::Packet::read(&mut frame, None)?),
        }
    }

    /// The first packet of a connection; what follows it stays in the buffer.
    pub(super) fn connack(&mut self) -> Result<Option<ConnAck>, Error> {
        let Some((_, _, total)) = self.frame()? else { return Ok(None) };
        if total > CONTROL_BYTES_MAX {
            return Err(Error::ControlTooLarge(total));
        }
        if self.buffer.len() < total {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(total);
        match self.version {
            Version::V311 => match v4::Packet::read(&mut frame, usize::MAX)? {
                v4::Packet::ConnAck(ack) => Ok(Some(connack_v4(&ack))),
                _ => Err(Error::Unexpected("before CONNACK")),
            },
            Version::V5 => match v5::Packet::read(&mut frame, None)? {
                v5::Packet::ConnAck(ack) => Ok(Some(connack_v5(ack))),
                _ => Err(Error::Unexpected("before CONNACK")),
            },
        }
    }

    /// First byte, length of the fixed header and of the whole packet, once they are here.
    fn frame(&mut self) -> Result<Option<(u8, usize, usize)>, Error> {
        let skipped = self.skip.min(self.buffer.len());
        self.buffer.advance(skipped);
        self.skip -= skipped;
        let Some((&first, rest)) = self.buffer.split_first() else { return Ok(None) };
        let mut remaining = 0usize;
        for (at, &byte) in rest.iter().take(HEADER_BYTES_MAX - 1).enumerate() {
            remaining |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(Some((first, at + 2, at + 2 + remaining)));
            }
        }
        if rest.len() < HEADER_BYTES_MAX - 1 { Ok(None) } else { Err(Error::RemainingLength) }
    }

    /// Takes topic and packet identifier of a PUBLISH over the limit, and skips the rest.
    fn oversized(&mut self, first: u8, header: usize, total: usize) -> Option<Incoming> {
        let length = self.buffer.get(header..header + 2)?;
        let topic_end = header + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let start = self.buffer.get(header..(topic_end + 2).min(total))?;
        let refused = refused(first, start, total, "larger than packet_bytes_max".to_owned());
        self.skip = total;
        Some(refused)
    }
}

/// Topic with its length, and packet identifier, of what follows the fixed header.
fn start(body: &[u8]) -> &[u8] {
    let length = body.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
    &body[..body.len().min(2 + length + 2)]
}

/// `start` is what follows the fixed header, up to the packet identifier at least.
fn refused(first: u8, start: &[u8], bytes: usize, reason: String) -> Incoming {
    let length =
        start.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest));
    let (topic, rest) = length.and_then(|(length, rest)| rest.split_at_checked(length)).unwrap_or_default();
    let packet = rest.first_chunk().map_or(0, |packet| u16::from_be_bytes(*packet));
    let ack = match (first >> 1) & 0b11 {
        qos @ 1..=2 if packet > 0 => Ack::of(qos, packet),
        _ => None,
    };
    Incoming::Refused(Refused { topic: String::from_utf8_lossy(topic).into_owned(), ack, bytes, reason })
}

fn incoming_v4(packet: v4::Packet) -> Result<Incoming, Error> {
    match packet {
        v4::Packet::Publish(publish) => publish_of(Publish {
            topic: publish.topic,
            payload: own(&publish.payload),
            properties: UserProperties::new(),
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            packet: publish.pkid,
        }),
        v4::Packet::SubAck(ack) => Ok(Incoming::SubAck(
            ack.return_codes
                .into_iter()
                .map(|code| match code {
                    v4::SubscribeReasonCode::Success(qos) => Ok(qos as u8),
                    v4::SubscribeReasonCode::Failure => Err("Failure".to_owned()),
                })
                .collect(),
        )),
        v4::Packet::PubRel(release) => Ok(Incoming::PubRel(release.pkid)),
        v4::Packet::UnsubAck(_) => Ok(Incoming::UnsubAck),
        v4::Packet::PingResp => Ok(Incoming::PingResp),
        _ => Err(Error::Unexpected("to a subscriber")),
    }
}

fn incoming_v5(packet: v5::Packet) -> Result<Incoming, Error> {
    match packet {
        v5::Packet::Publish(publish) => publish_of(Publish {
            topic: String::from_utf8(publish.topic.into()).map_err(|_| Error::Topic)?,
            payload: own(&publish.payload),
            properties: publish.properties.map(|properties| properties.user_properties).unwrap_or_default(),
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            packet: publish.pkid,
        }),
        v5::Packet::SubAck(ack) => Ok(Incoming::SubAck(
            ack.return_codes
                .into_iter()
                .map(|code| match code {
                    v5::SubscribeReasonCode::Success(qos) => Ok(qos as u8),
                    refused => Err(format!("{refused:?}")),
                })
                .collect(),
        )),
        v5::Packet::PubRel(release) => Ok(Incoming::PubRel(release.pkid)),
        v5::Packet::UnsubAck(_) => Ok(Incoming::UnsubAck),
        v5::Packet::PingResp(_) => Ok(Incoming::PingResp),
        v5::Packet::Disconnect(disconnect) => {
            let words = disconnect.properties.and_then(|properties| properties.reason_string);
            Ok(Incoming::Disconnect(reason(format!("{:?}", disconnect.reason_code), words)))
        }
        _ => Err(Error::Unexpected("to a subscriber")),
    }
}

/// A copy: a slice of the read buffer would keep all of that alive, and its bytes uncounted.
fn own(payload: &Bytes) -> Bytes {
    Bytes::copy_from_slice(payload)
}

/// An empty topic would be an alias, which we never offered.
fn publish_of(publish: Publish) -> Result<Incoming, Error> {
    if publish.topic.is_empty() {
        return Err(Error::Topic);
    }
    if publish.qos > 0 && publish.packet == 0 {
        return Err(Error::Unexpected("PUBLISH without an identifier"));
    }
    Ok(Incoming::Publish(publish))
}

fn connack_v4(ack: &v4::ConnAck) -> ConnAck {
    let words = format!("{:?}", ack.code);
    let verdict = match ack.code {
        v4::ConnectReturnCode::Success => Verdict::Accepted,
        v4::ConnectReturnCode::ServiceUnavailable => Verdict::Unavailable(words),
        _ => Verdict::Refused(words),
    };
    ConnAck { session_present: ack.session_present, verdict, keep_alive: None, session_expiry: None }
}

fn connack_v5(ack: v5::ConnAck) -> ConnAck {
    use v5::ConnectReturnCode as Code;
    let (keep_alive, session_expiry, words) = ack.properties.map_or((None, None, None), |properties| {
        (properties.server_keep_alive, properties.session_expiry_interval, properties.reason_string)
    });
    let words = reason(format!("{:?}", ack.code), words);
    let verdict = match ack.code {
        Code::Success => Verdict::Accepted,
        Code::ServiceUnavailable
        | Code::ServerUnavailable
        | Code::ServerBusy
        | Code::ConnectionRateExceeded
        | Code::QuotaExceeded
        | Code::UnspecifiedError
        | Code::ImplementationSpecificError => Verdict::Unavailable(words),
        _ => Verdict::Refused(words),
    };
    ConnAck { session_present: ack.session_present, verdict, keep_alive, session_expiry }
}

fn reason(code: String, words: Option<String>) -> String {
    match words {
        Some(words) if !words.is_empty() => format!("{code}: {words}"),
        _ => code,
    }
}

#[cfg(test)]
mod tests;
