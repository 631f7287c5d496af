//! A broker that does what the test says, in bytes of its own making.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use tokio_rustls::TlsAcceptor;

use crate::input::mqtt::Version;
use crate::input::mqtt::transport::Duplex;

/// No step of a test takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Broker {
    listener: TcpListener,
    version: Version,
    acceptor: Option<TlsAcceptor>,
}

/// What the input sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The packet's body.
    Connect(Vec<u8>),
    /// Its identifier and number of topics.
    Subscribe(u16, usize),
    /// Its identifier.
    Unsubscribe(u16),
    PubAck(u16),
    PubRec(u16),
    PubComp(u16),
    Ping,
    Disconnect,
    Closed,
}

pub(super) struct Peer {
    stream: Box<dyn Duplex>,
    version: Version,
}

impl Broker {
    pub(super) async fn bind(version: Version) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), version, acceptor: None }
    }

    /// The same with TLS.
    pub(super) fn secured(self, acceptor: TlsAcceptor) -> Self {
        Self { acceptor: Some(acceptor), ..self }
    }

    /// Accepts a connection that TLS ends before there is a CONNECT.
    pub(super) async fn turned_away(&self) {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let accepted = timeout(PATIENCE, self.acceptor.as_ref().unwrap().accept(stream)).await.unwrap();
        assert!(accepted.is_err(), "nobody is let in");
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next connection and the body of its CONNECT, unanswered.
    pub(super) async fn accept_silently(&self) -> (Peer, Vec<u8>) {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let stream: Box<dyn Duplex> = match &self.acceptor {
            Some(acceptor) => Box::new(acceptor.accept(stream).await.unwrap()),
            None => Box::new(stream),
        };
        let mut peer = Peer { stream, version: self.version };
        let Seen::Connect(body) = peer.next().await else { panic!("CONNECT comes first") };
        (peer, body)
    }

    pub(super) async fn accept(&self, session_present: bool) -> Peer {
        let (mut peer, _) = self.accept_silently().await;
        peer.connack(session_present, 0).await;
        peer
    }

    /// Accepts and grants the subscription.
    pub(super) async fn subscribed(&self, session_present: bool) -> Peer {
        self.granted(session_present, 1).await
    }

    pub(super) async fn granted(&self, session_present: bool, qos: u8) -> Peer {
        let mut peer = self.accept(session_present).await;
        let Seen::Subscribe(packet, topics) = peer.next().await else { panic!("SUBSCRIBE comes next") };
        peer.suback(packet, &vec![qos; topics]).await;
        peer
    }

    /// Whether nobody connects for this long.
    pub(super) async fn is_left_alone(&self, time: Duration) -> bool {
        timeout(time, self.listener.accept()).await.is_err()
    }
}

impl Peer {
    pub(super) async fn connack(&mut self, session_present: bool, code: u8) {
        self.send(0x20, &[u8::from(session_present), code], true).await;
    }

    pub(super) async fn suback(&mut self, packet: u16, codes: &[u8]) {
        let mut body = packet.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        body.extend(codes);
        self.send(0x90, &body, false).await;
    }

    pub(super) async fn unsuback(&mut self, packet: u16) {
        let mut body = packet.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.extend([0, 0]);
        }
        self.send(0xb0, &body, false).await;
    }

    pub(super) async fn pubrel(&mut self, packet: u16) {
        self.send(0x62, &packet.to_be_bytes(), false).await;
    }

    /// A retained message that a SUBSCRIBE brought.
    pub(super) async fn replay(&mut self, qos: u8, packet: u16, payload: &[u8]) {
        self.send_publish(0x31 | qos << 1, "t/1", packet, payload).await;
    }

    pub(super) async fn publish(&mut self, packet: u16, payload: &[u8]) {
        self.publish_as("t/1", u8::from(packet > 0), false, packet, payload).await;
    }

    pub(super) async fn redeliver(&mut self, packet: u16, payload: &[u8]) {
        self.publish_as("t/1", 1, true, packet, payload).await;
    }

    pub(super) async fn publish_as(&mut self, topic: &str, qos: u8, dup: bool, packet: u16, payload: &[u8]) {
        self.send_publish(0x30 | u8::from(dup) << 3 | qos << 1, topic, packet, payload).await;
    }

    /// At QoS 1, with user properties (MQTT 5).
    pub(super) async fn publish_with(&mut self, packet: u16, payload: &[u8], properties: &[(&str, &str)]) {
        let mut body = vec![0, 3, b't', b'/', b'1'];
        body.extend(packet.to_be_bytes());
        let mut user = Vec::new();
        for (name, value) in properties {
            user.push(0x26);
            for text in [name, value] {
                user.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
                user.extend(text.as_bytes());
            }
        }
        let length = u16::try_from(user.len()).unwrap();
        body.extend([(length % 128) as u8 | 0x80, (length / 128) as u8]);
        body.extend(user);
        body.extend(payload);
        self.send(0x32, &body, false).await;
    }

    /// At QoS 1 or 2, with a topic that is not UTF-8.
    pub(super) async fn publish_garbled(&mut self, qos: u8, packet: u16) {
        let mut body = vec![0, 3, b't', b'/', 0xff];
        body.extend(packet.to_be_bytes());
        if self.version == Version::V5 {
            body.push(0);
        }
        self.send(0x30 | qos << 1, &body, false).await;
    }

    async fn send_publish(&mut self, first: u8, topic: &str, packet: u16, payload: &[u8]) {
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        if first & 0b110 > 0 {
            body.extend(packet.to_be_bytes());
        }
        if self.version == Version::V5 {
            body.push(0);
        }
        body.extend(payload);
        self.send(first, &body, false).await;
    }

    pub(super) async fn pong(&mut self) {
        self.send(0xd0, &[], false).await;
    }

    /// The next packet; pings are answered on the way.
    pub(super) async fn next_but_pings(&mut self) -> Seen {
        loop {
            match self.next().await {
                Seen::Ping => self.pong().await,
                seen => return seen,
            }
        }
    }

    /// Whether no PUBACK comes for a while; pings are answered.
    pub(super) async fn is_owed(&mut self) -> bool {
        timeout(Duration::from_millis(150), self.next_but_pings()).await.is_err()
    }

    pub(super) async fn next(&mut self) -> Seen {
        timeout(PATIENCE, self.read()).await.unwrap().unwrap_or(Seen::Closed)
    }

    async fn read(&mut self) -> std::io::Result<Seen> {
        let first = self.stream.read_u8().await?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        let packet = || u16::from_be_bytes([body[0], body[1]]);
        Ok(match first >> 4 {
            1 => Seen::Connect(body),
            4 => Seen::PubAck(packet()),
            5 => Seen::PubRec(packet()),
            7 => Seen::PubComp(packet()),
            10 => Seen::Unsubscribe(packet()),
            8 => Seen::Subscribe(packet(), self.topics(&body[2..])),
            12 => Seen::Ping,
            14 => Seen::Disconnect,
            kind => panic!("packet of type {kind}"),
        })
    }

    fn topics(&self, filters: &[u8]) -> usize {
        let mut rest = if self.version == Version::V5 { &filters[1..] } else { filters };
        let mut topics = 0;
        while let [high, low, ..] = rest {
            rest = &rest[3 + usize::from(u16::from_be_bytes([*high, *low]))..];
            topics += 1;
        }
        topics
    }

    /// A write to an input that has gone away is no fault of the test.
    async fn send(&mut self, first: u8, body: &[u8], properties: bool) {
        let mut body = body.to_vec();
        if properties && self.version == Version::V5 {
            body.push(0);
        }
        let mut frame = vec![first];
        let mut rest = body.len();
        loop {
            let low = u8::try_from(rest % 128).unwrap();
            rest /= 128;
            frame.push(if rest > 0 { low | 0x80 } else { low });
            if rest == 0 {
                break;
            }
        }
        frame.append(&mut body);
        drop(self.stream.write_all(&frame).await);
        drop(self.stream.flush().await);
    }
}
