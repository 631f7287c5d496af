//! What the author of a Headwater module in Rust uses.
//!
//! A module is a `cdylib` for `wasm32-unknown-unknown` that holds one [`Transform`] or one
//! [`Aggregate`] and exports it with [`export_transform!`] or [`export_aggregate!`]. The batches of
//! the contract (`wit/headwater.wit`), its state as bytes and its rejections by index stay in here.
//!
//! The agent may throw an instance away at any moment, and calls a new one after every fault: what
//! must last belongs in an aggregate's state, or in that of a transform ([`state`]). A panic costs the event at hand alone; its message is
//! logged and becomes part of the reason in the dead letters. There are no files, no network, no
//! clock and no randomness, so that a recomputation gives the same result.
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

pub use aggregate::{Aggregate, Sample, Window, from_bytes};
pub use json::Object;
pub use span::Span;
pub use transform::{Event, Transform};
pub use write::ObjectWriter;

/// What the two macros expand to.
#[doc(hidden)]
pub mod export {
    pub use crate::aggregate::{Module as AggregateModule, bindings as aggregate};
    pub use crate::transform::{Module as TransformModule, bindings as transform};
}

/// The settings of the step, from the JSON of the agent's configuration.
fn settings<C: serde::de::DeserializeOwned>(config: &str) -> Result<C, String> {
    serde_json::from_str(config)
        // What has no settings may be `struct Name;`, which is `null` to serde.
        .or_else(|error| {
            if config.trim() == "{}" { serde_json::from_str("null").map_err(|_| error) } else { Err(error) }
        })
        .map_err(|error| format!("failed to read the settings: {error}"))
}
