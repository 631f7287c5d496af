//! The SDK for Headwater modules in Rust.
//!
//! A module is a `cdylib` for `wasm32-unknown-unknown` that holds one [`Transform`] or one
//! [`Aggregate`] and exports it with [`export_transform!`] or [`export_aggregate!`]. The batches of
//! the contract (`wit/headwater.wit`), its state as bytes and its rejections by index stay in here.
//!
//! The agent may throw an instance away at any moment, and calls a new one after every trap: data that
//! must last belongs in an aggregate's state, or in that of a transform ([`state`]). A panic costs the
//! event at hand alone; its message is logged and becomes part of the reason in the dead letters.
//! There are no files, no network, no clock and no randomness, so that a recomputation gives the same
//! result. Times are in microseconds since the Unix epoch, UTC, everywhere.
//!
//! ```
//! use headwater_module::{Event, Transform, export_transform};
//!
//! #[derive(serde::Deserialize)]
//! struct Only {
//!     key: String,
//! }
//!
//! impl Transform for Only {
//!     fn process(&mut self, event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
//!         Ok((event.key == self.key).then_some(event))
//!     }
//! }
//!
//! export_transform!(Only);
//! ```

mod aggregate;
mod choice;
mod json;
pub mod log;
mod span;
pub mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod transform;
mod write;

pub use aggregate::{Aggregate, ClosedWindow, Sample, from_bytes};
pub use json::JsonObject;
pub use span::TimeSpan;
pub use transform::{Event, Transform};
pub use write::ObjectWriter;

/// The names that the code of the two macros uses.
#[doc(hidden)]
pub mod export {
    pub use crate::aggregate::{AggregateExport, bindings as aggregate};
    pub use crate::transform::{TransformExport, bindings as transform};
}

/// Reads the module's settings, which the agent hands over as JSON.
fn settings<C: serde::de::DeserializeOwned>(config: &str) -> Result<C, String> {
    serde_json::from_str(config)
        // A module without settings may be `struct Name;`, which is `null` to serde.
        .or_else(|error| {
            if config.trim() == "{}" { serde_json::from_str("null").map_err(|_| error) } else { Err(error) }
        })
        .map_err(|error| format!("failed to read the settings: {error}"))
}
