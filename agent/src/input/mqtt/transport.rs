//! What carries the bytes: TCP, TLS over it, and WebSocket over either.
//!
//! **Invariant**: where TLS is configured there is TLS, or no connection.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Config;
use super::websocket::{self, WebSocket};
use crate::tls;

/// A way in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Duplex for T {}

/// Why there is no way to the broker.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("failed to reach the broker at {address}: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("failed to set up TLS: {0}{cause}", cause = cause(.0))]
    Files(#[source] tls::Error),
    #[error("failed to make TLS with the broker at {address}: {source}; nothing was sent in plain text")]
    Tls { address: String, source: rustls::Error },
    #[error("failed to make a WebSocket with the broker at {address}: {source}")]
    WebSocket { address: String, source: websocket::Error },
}

impl Error {
    /// Whether only a change of configuration or certificates helps.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::Files(_) | Self::Tls { .. } => true,
            Self::WebSocket { source, .. } => source.is_refusal(),
        }
    }
}

/// Connects, all handshakes included.
pub(super) async fn dial(config: &Config) -> Result<Box<dyn Duplex>, Error> {
    let unreachable = |source| Error::Unreachable { address: config.address(), source };
    let stream = TcpStream::connect((config.host.as_str(), config.port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let Some(tls) = &config.tls else { return upgraded(config, stream).await };
    let client = tls.client_aside().await.map_err(Error::Files)?;
    let name = ServerName::try_from(config.host.clone())
        .map_err(|error| unreachable(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let secured = TlsConnector::from(Arc::new(client)).connect(name, stream).await;
    let secured = secured.map_err(|source| match tls_fault(&source) {
        Some(fault) => Error::Tls { address: config.address(), source: fault },
        None => unreachable(source),
    })?;
    upgraded(config, secured).await
}

/// What TLS has to say in an error of its stream.
pub(super) fn tls_fault(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

async fn upgraded<S: Duplex + 'static>(config: &Config, stream: S) -> Result<Box<dyn Duplex>, Error> {
    match &config.websocket {
        None => Ok(Box::new(stream)),
        Some(path) => match WebSocket::open(stream, &config.address(), path).await {
            Ok(socket) => Ok(Box::new(socket)),
            Err(source) => Err(not_upgraded(config, source)),
        },
    }
}

/// With TLS 1.3 a broker that does not want our certificate says so only after the handshake.
fn not_upgraded(config: &Config, error: websocket::Error) -> Error {
    let fault = if let websocket::Error::Io(error) = &error { tls_fault(error) } else { None };
    match fault {
        Some(source) => Error::Tls { address: config.address(), source },
        None => Error::WebSocket { address: config.address(), source: error },
    }
}

fn cause(error: &tls::Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"))
}
