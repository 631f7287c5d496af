//! What Headwater's programs say to each other, each form of it defined here and nowhere else.
//!
//! | form | for | where |
//! | --- | --- | --- |
//! | [`Record`] | code: a window's result, an event, a late reading, a report | `record.rs` |
//! | its binary form, versioned | an outbox on disk | `record/binary.rs` |
//! | its line of NDJSON, version 1 | the collector, people, dead letters | `line.rs`, `line/parse.rs` |
//! | [`BatchKey`], the idempotency key | the receiver of a batch, which stores each key once | `key.rs` |
//!
//! **Invariants.** A record reads back exactly from its binary form, and from its line. A line has no line
//! feed, and what [`ParsedLine`] accepts of it is what the collector stores: a change there is a new version
//! of the line, never a wider reading of this one.
//!
//! **Limits** of a line are constants in `line/parse.rs`. Nothing here does I/O, and no bytes make it panic.

mod bytes;
mod digest;
mod json;
mod key;
mod line;
mod record;
#[cfg(any(test, feature = "testing"))]
pub mod strategies;

pub use digest::ModuleDigest;
pub use json::JsonText;
pub use key::BatchKey;
pub use line::{
    LineError, ParsedLate, ParsedLine, ParsedReport, ParsedResult, ResultSpan, UnparsedLine, WindowFacts,
    micros,
};
pub use record::{
    AgentReport, EventResult, LateReading, OpaqueLine, Record, RecordError, ResultState, WindowResult,
};
