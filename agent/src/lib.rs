//! Headwater: a lightweight stream agent for edge devices.
//!
//! The way of the data, and the order of the modules below:
//!
//! ```text
//! MQTT ─► input ─► store(journal) ─► pipeline(decode ─► module ─► window) ─► store(outbox) ─► output ─► HTTP
//! beside the way: config, agent (wiring), admin, metrics, reload, secret, tls, fail (for tests)
//! ```
//!
//! The disk is the queue: stages hand over through the store, never through channels of data.

pub use headwater_flow as flow;
pub use headwater_wire as wire;

pub mod input;

pub use headwater_store as store;

pub mod pipeline;

pub mod decode;

pub use headwater_host as module;

pub use headwater_window as window;
pub use window::builtin;

pub mod output;

pub mod admin;
pub mod agent;
pub mod audit;
pub mod blocking;
pub mod config;
pub mod ledger;
pub mod liveness;
pub mod metrics;
pub mod reload;
pub mod roster;
pub use headwater_access::{secret, tls};

pub use headwater_fail as fail;
pub use headwater_flow::error_text;
#[cfg(test)]
use headwater_flow::testing;
use headwater_flow::topic;
