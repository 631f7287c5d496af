//! What a transform remembers from one event to the next: values by name, most often by the event's key.
//!
//! The agent keeps them, and commits what changed together with the results of the same events, so that
//! neither a crash nor a new instance shows. The step's configuration grants it:
//! `capabilities = ["state"]`.
//!
//! ```no_run
//! use headwater_module::{Event, state};
//!
//! /// Whether the key has not been seen before.
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

/// The value last set under the name.
///
/// # Errors
/// When it is not a `T`: another version of the module set it.
pub fn get<T: DeserializeOwned>(name: &str) -> Result<Option<T>, String> {
    let value = state::get(name).map(|bytes| postcard::from_bytes(&bytes)).transpose();
    value.map_err(|error| format!("failed to read the state of {name:?}: {error}"))
}

/// Sets the value of the name.
///
/// # Errors
/// When name or value are too long, or there are too many names.
pub fn set<T: Serialize>(name: &str, value: &T) -> Result<(), String> {
    let bytes = postcard::to_allocvec(value);
    let bytes = bytes.map_err(|error| format!("failed to write the state of {name:?}: {error}"))?;
    state::set(name, &bytes).map_err(|error| format!("failed to keep the state of {name:?}: {error}"))
}

/// Forgets the value of the name.
pub fn remove(name: &str) {
    state::remove(name);
}
