//! Lines in the agent's log, with the pipeline and the module beside them.
//!
//! The agent bounds lines per second and bytes per line; what is over is counted and dropped.

use crate::transform::bindings::headwater::module::logging::{Level, log};

/// Writes a line for whoever takes the module apart; hidden at the agent's usual level.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes a line for the operator, in normal running.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a line for the operator: something to look into.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes a line for the operator: something to repair. The last one before a trap is part of its reason.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// Logs the messages of panics, since a trap carries none.
pub(crate) fn hook_panics() {
    std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
}

/// Writes to the agent's log; to standard error in native tests, where there is no agent behind the import.
fn write(level: Level, message: &str) {
    if cfg!(target_family = "wasm") {
        log(level, message);
    } else {
        eprintln!("{level:?}: {message}");
    }
}
