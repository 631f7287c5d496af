//! What gives access to brokers, destinations and registries: secrets and certificates.

pub mod secret;
pub mod tls;
