//! The harness: everything around the agent that a promise needs broken, and the oracle that
//! says what should have come out.
//!
//! ```text
//! Publisher ─► Mosquitto | Broker ─► Agent ─► Proxy ─► Collector | Backend
//!     └──────────────────► oracle ◄──── compared ────────────┘
//! ```
//!
//! Every process started here is killed by its id when its handle is dropped; every folder is
//! temporary; every listener is on loopback at a free port.

pub mod agent;
pub mod backend;
pub mod broker;
pub mod client;
pub mod collector;
pub mod commits;
pub mod feeder;
pub mod image;
pub mod ledger;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod publisher;
pub mod recorded;
pub mod resent;
pub mod webdriver;
pub mod windows_oracle;
pub mod world;

/// A load that every suite can make and check: who sent what, and what must come of it.
pub mod plant;
