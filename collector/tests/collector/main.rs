//! The collector as its peers see it: over HTTP, in this process or as its own program.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod harness;
mod limits;
mod process;
mod reading;
