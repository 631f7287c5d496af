//! A broker for one subscriber that measures times: it publishes at a given rate and records how long each
//! acknowledgement takes. It speaks MQTT 3.1.1 and keeps no session.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, PingResp, Publish, SubAck, SubscribeReasonCode,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Largest packet of the subscriber, in bytes.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Longest silence of the subscriber while acknowledgements are missing.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that listens for its subscriber.
#[derive(Debug)]
pub struct FeedingBroker {
    listener: TcpListener,
}

/// The number and rate of the messages to publish.
#[derive(Clone, Copy, Debug)]
pub struct FeedPlan {
    /// The number of messages.
    pub messages: u64,
    /// Messages a second; with `None` the next one follows an acknowledgement.
    pub rate: Option<u32>,
    /// Most messages that are published and not yet acknowledged.
    pub in_flight_max: usize,
}

impl FeedingBroker {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> anyhow::Result<Self> {
        Ok(Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await? })
    }

    /// Returns the port on which it listens.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn port(&self) -> anyhow::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Waits for the subscriber and grants its subscription.
    ///
    /// # Errors
    /// When it says something else.
    pub async fn subscriber(&self) -> anyhow::Result<FeedSubscriber> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut subscriber =
            FeedSubscriber { stream, read: BytesMut::new(), write: BytesMut::new(), packet: 0 };
        loop {
            match subscriber.packet().await? {
                Packet::Connect(_) => {
                    ConnAck::new(ConnectReturnCode::Success, false).write(&mut subscriber.write)?;
                }
                Packet::Subscribe(subscribe) => {
                    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
                    let codes = vec![granted; subscribe.filters.len()];
                    SubAck::new(subscribe.pkid, codes).write(&mut subscriber.write)?;
                    subscriber.flush().await?;
                    return Ok(subscriber);
                }
                other => bail!("{other:?} before a subscription"),
            }
            subscriber.flush().await?;
        }
    }
}

/// A connected subscriber.
#[derive(Debug)]
pub struct FeedSubscriber {
    stream: TcpStream,
    read: BytesMut,
    write: BytesMut,
    packet: u16,
}

impl FeedSubscriber {
    /// Publishes at QoS 1 the topic and payload that `make` returns for each number. Returns the time that
    /// each acknowledgement took, in the order of the acknowledgements.
    ///
    /// # Errors
    /// When the subscriber is gone or silent for too long.
    pub async fn feed(
        &mut self,
        feed: FeedPlan,
        mut make: impl FnMut(u64) -> (String, Vec<u8>),
    ) -> anyhow::Result<Vec<Duration>> {
        let mut sent: HashMap<u16, Instant> = HashMap::new();
        let mut times = Vec::new();
        let begun = Instant::now();
        let mut published = 0;
        while (times.len() as u64) < feed.messages {
            let due = |published: u64| feed.rate.map(|rate| begun + Duration::from_secs(published) / rate);
            while published < feed.messages
                && sent.len() < feed.in_flight_max
                && due(published).is_none_or(|due| due <= Instant::now())
            {
                let (topic, payload) = make(published);
                self.packet = self.packet.checked_add(1).unwrap_or(1);
                let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
                publish.pkid = self.packet;
                publish.write(&mut self.write)?;
                sent.insert(self.packet, Instant::now());
                published += 1;
            }
            self.flush().await?;
            let next = match due(published) {
                Some(due) if published < feed.messages && sent.len() < feed.in_flight_max => due,
                _ => Instant::now() + PATIENCE,
            };
            tokio::select! {
                packet = self.packet() => match packet? {
                    Packet::PubAck(ack) => {
                        let at = sent.remove(&ack.pkid).context("an acknowledgement of nothing")?;
                        times.push(at.elapsed());
                    }
                    Packet::PingReq => PingResp.write(&mut self.write).map(drop)?,
                    other => bail!("{other:?} from a subscriber"),
                },
                () = tokio::time::sleep_until(next) => {
                    if published == feed.messages || sent.len() == feed.in_flight_max {
                        bail!("nothing acknowledged for {PATIENCE:?}");
                    }
                }
            }
        }
        Ok(times)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.write_all_buf(&mut self.write).await?)
    }

    async fn packet(&mut self) -> anyhow::Result<Packet> {
        use rumqttc::mqttbytes::Error::InsufficientBytes;
        loop {
            match Packet::read(&mut self.read, PACKET_BYTES_MAX) {
                Ok(packet) => return Ok(packet),
                Err(InsufficientBytes(_)) => {
                    let read = self.stream.read_buf(&mut self.read).await?;
                    anyhow::ensure!(read > 0, "the subscriber is gone");
                }
                Err(error) => bail!("the subscriber sent garbage: {error}"),
            }
        }
    }
}
