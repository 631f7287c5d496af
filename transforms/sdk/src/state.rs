//! The state of a transform from one event to the next: values by name, most often by the event's key.
//!
//! The agent keeps them, and commits what changed together with the results of the same events, so that
//! neither a crash nor a new instance shows. The module's entry in the pipeline grants it:
//! `capabilities = ["state"]`.
//!
//! ```no_run
//! use headwater_module::{Event, state};
//!
//! /// Returns true if the key has not been seen before.
//! fn is_new(event: &Event) -> Result<bool, String> {
//!     let seen: Option<u32> = state::get(&event.key)?;
//!     state::set(&event.key, &(seen.unwrap_or(0) + 1))?;
//!     Ok(seen.is_none())
//! }
//! ```

#[cfg(not(target_family = "wasm"))]
use crate::testing::state;
#[cfg(target_family = "wasm")]
use crate::transform::bindings::state;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns the value last set under the name.
///
/// # Errors
/// A reason that says that the value is not a `T`: another version of the module set it.
pub fn get<T: DeserializeOwned>(name: &str) -> Result<Option<T>, String> {
    let value = state::get(name).map(|bytes| postcard::from_bytes(&bytes)).transpose();
    value.map_err(|error| format!("failed to read the state of {name:?}: {error}"))
}

/// Sets the value of the name: at most 512 bytes of name, 64 KiB of value, and as many names as the agent allows
/// (`state_names_max`).
///
/// # Errors
/// A reason that says which of the bounds the value would break; the value before it stays.
pub fn set<T: Serialize>(name: &str, value: &T) -> Result<(), String> {
    let bytes = postcard::to_allocvec(value);
    let bytes = bytes.map_err(|error| format!("failed to write the state of {name:?}: {error}"))?;
    state::set(name, &bytes).map_err(|error| format!("failed to keep the state of {name:?}: {error}"))
}

/// Forgets the value of the name, if there is one.
pub fn remove(name: &str) {
    state::remove(name);
}
