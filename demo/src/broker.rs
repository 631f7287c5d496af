//! The embedded broker: rumqttd, in memory, on loopback. It cannot be stopped: it ends with the process.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// What the broker keeps for a subscriber that does not keep up.
const SEGMENT_BYTES: usize = 1 << 20;
const SEGMENTS: usize = 32;

/// Starts it on a free port.
pub(super) fn start() -> anyhow::Result<SocketAddr> {
    // It binds its port itself and does not tell which: so a free one is found for it.
    let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let server = ServerSettings {
        name: "demo".to_owned(),
        listen: address,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: 1 << 20,
            max_inflight_count: 1_000,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = Config {
        router: RouterConfig {
            max_connections: 16,
            max_outgoing_packet_count: 1_000,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("demo".to_owned(), server)])),
        ..Config::default()
    };
    let mut broker = Broker::new(config);
    std::thread::Builder::new()
        .name("broker".to_owned())
        .spawn(move || {
            if let Err(error) = broker.start() {
                tracing::error!(%error, "the embedded broker ended");
            }
        })
        .context("failed to start the embedded broker")?;
    Ok(address)
}
