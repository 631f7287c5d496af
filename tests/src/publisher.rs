//! The devices' side of MQTT: it publishes at QoS 1 or 2 and counts the confirmations of the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::task::JoinHandle;

/// A connection to a broker. A reading counts as published once the broker has confirmed it.
#[derive(Debug)]
pub struct TestPublisher {
    client: AsyncClient,
    qos: QoS,
    sent: AtomicU64,
    confirmed: Arc<AtomicU64>,
    polling: JoinHandle<()>,
}

impl TestPublisher {
    /// Connects with the client identifier `id`.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the harness has no wiring of its own")]
    pub fn connect(id: &str, port: u16) -> Self {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_inflight(1_000).set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut events) = AsyncClient::new(options, 1_000);
        events.network_options.set_tcp_nodelay(true);
        let confirmed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&confirmed);
        let polling = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Self { client, qos: QoS::AtLeastOnce, sent: AtomicU64::new(0), confirmed, polling }
    }

    /// Makes it publish at QoS 2.
    #[must_use]
    pub fn exactly_once(mut self) -> Self {
        self.qos = QoS::ExactlyOnce;
        self
    }

    /// Publishes a reading that the broker keeps for later subscribers.
    ///
    /// # Panics
    /// When the connection's task has ended.
    pub async fn publish_retained(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.hand(self.qos, topic, payload, true).await;
    }

    /// Hands one reading to the connection; waits while too many are unconfirmed.
    ///
    /// # Panics
    /// When the connection's task has ended.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.hand(self.qos, topic, payload, false).await;
    }

    /// Publishes a reading at the given QoS, which must be 1 or 2.
    ///
    /// # Panics
    /// When the connection's task has ended.
    pub async fn publish_at(&self, qos: QoS, topic: &str, payload: impl Into<Vec<u8>>) {
        self.hand(qos, topic, payload, false).await;
    }

    async fn hand(&self, qos: QoS, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) {
        self.client
            .publish(topic, qos, retain, payload)
            .await
            .expect("the connection is polled as long as the publisher lives");
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the broker has confirmed all readings, and returns their number.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub async fn confirmed(&self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        let waiting = async {
            while self.confirmed_now() < sent {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the broker confirms");
        sent
    }

    /// Returns the number of confirmations so far.
    #[must_use]
    pub fn confirmed_now(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }
}

impl Drop for TestPublisher {
    fn drop(&mut self) {
        self.polling.abort();
    }
}
