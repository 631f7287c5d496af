//! Publishes a sensor's readings at QoS 1 and counts what the broker acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, Outgoing, QoS};
use tokio::sync::watch;

/// Longest wait for the broker's last acknowledgements.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What the broker has taken over, of all publishers.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Acknowledged.
    pub(super) readings: AtomicU64,
}

/// Something that makes readings.
pub(super) trait Sensor: Send + 'static {
    /// How long between calls of [`Sensor::read`].
    fn every(&self) -> Duration;
    /// The next (topic, payload) pairs.
    fn read(&mut self) -> Vec<(String, Vec<u8>)>;
}

/// Publishes until stopped, then waits for what is not acknowledged yet.
pub(super) async fn run(
    name: &str,
    broker: SocketAddr,
    mut sensor: impl Sensor,
    published: Arc<Published>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut options = MqttOptions::new(format!("demo-{name}"), broker.ip().to_string(), broker.port());
    options.set_inflight(1_000);
    let (client, mut connection) = AsyncClient::new(options, 10_000);
    // Before the loop below: a connect that `select!` cancels is begun anew.
    while !matches!(connection.poll().await?, Event::Incoming(Incoming::ConnAck(_))) {}
    let mut tick = tokio::time::interval(sensor.every());
    let (mut sent, mut acknowledged) = (0_u64, 0_u64);
    let mut drain = None;
    loop {
        if drain.is_some_and(|until| acknowledged >= sent || tokio::time::Instant::now() > until) {
            return Ok(());
        }
        tokio::select! {
            event = connection.poll() => match event? {
                Event::Incoming(Incoming::PubAck(_)) => {
                    acknowledged += 1;
                    published.readings.fetch_add(1, Ordering::Relaxed);
                }
                Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                _ => {}
            },
            _ = tick.tick(), if drain.is_none() => {
                for (topic, payload) in sensor.read() {
                    // Full only when the broker hangs: then the demo shows fewer readings.
                    if client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_ok() {
                        sent += 1;
                    }
                }
            }
            _ = stopped.changed(), if drain.is_none() => drain = Some(tokio::time::Instant::now() + DRAIN_MAX),
            () = tokio::time::sleep(Duration::from_millis(100)), if drain.is_some() => {}
        }
    }
}
