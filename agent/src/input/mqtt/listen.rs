//! Listens without taking part, for who tries a module: at QoS 0, in a session that the broker forgets with the
//! connection. Nothing is kept, nothing is acknowledged; what comes while nobody listens is missed.

use std::ops::ControlFlow;

use super::connection::Connection;
use super::wire::Incoming;
use super::{BoxError, Config};

/// Gives each message's topic and payload to `each`, until that is enough or the connection ends.
///
/// # Errors
/// Why there is no connection, no subscription, or no longer.
pub async fn listen(
    config: &Config,
    mut each: impl FnMut(&str, &[u8]) -> ControlFlow<()>,
) -> Result<(), BoxError> {
    let (mut connection, _) = Connection::open(config).await?;
    connection.subscribe(1, &config.topics, 0)?;
    loop {
        connection.progress().await?;
        while let Some(packet) = connection.next()? {
            match packet {
                Incoming::SubAck(codes) => {
                    for (code, topic) in codes.into_iter().zip(&config.topics) {
                        code.map_err(|reason| {
                            format!("the broker refused the subscription to {topic}: {reason}")
                        })?;
                    }
                }
                Incoming::Publish(publish) if each(&publish.topic, &publish.payload).is_break() => {
                    return Ok(connection.close().await?);
                }
                _ => {}
            }
        }
    }
}
