//! The test harness: everything around the agent that a test has to break, and the oracles that compute the
//! expected results.
//!
//! ```text
//! TestPublisher ─► MosquittoBroker | RumqttdBroker ─► TestAgent ─► FaultProxy ─► TestCollector | FakeDestination
//!       └───────────────────────────► oracle ◄────────────── compared ──────────────────┘
//! ```
//!
//! Every process started here is killed by its id when its handle is dropped, every folder is temporary,
//! and every listener is on loopback at a free port.

pub mod agent;
pub mod broker;
pub mod client;
pub mod collector;
pub mod commits;
pub mod destination;
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

/// A load that every suite can make and check: the readings sent, and the results that they must give.
pub mod plant;
