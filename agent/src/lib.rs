//! Headwater: a lightweight stream agent for edge devices.
//!
//! The way of the data, and the order of the modules below:
//!
//! ```text
//! MQTT ─► source ─► store(journal) ─► pipeline(decode ─► module ─► window) ─► store(outbox) ─► forward ─► HTTP
//! beside the way: config, cli, agent (wiring), admin, metrics, reload, secret, tls, words, fail (for tests)
//! ```
//!
//! The disk is the queue: stages hand over through the store, never through channels of data.

pub use headwater_flow as flow;
pub use headwater_wire as wire;

pub mod source;

pub mod store;

pub mod pipeline;

pub mod decode;

pub mod module;

pub mod builtin;

pub mod window;

pub mod forward;

pub mod admin;
pub mod agent;
pub mod audit;
pub mod cli;
pub mod config;
pub mod ledger;
pub mod live;
pub mod metrics;
pub mod reload;
pub mod secret;
pub mod tls;

pub use headwater_fail as fail;
#[cfg(test)]
use headwater_flow::cases;
pub use headwater_flow::error_text as words;
use headwater_flow::topic;

#[cfg(feature = "author")]
pub mod author;
#[cfg(feature = "demo")]
pub mod demo;
