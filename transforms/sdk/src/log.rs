//! Lines in the agent's log, with the pipeline and the module beside them.
//!
//! The agent bounds lines per second and bytes per line; what is over is counted and dropped.

use crate::transform::bindings::headwater::module::logging::{Level, log};

/// For whoever takes the module apart; hidden at the agent's usual level.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// For the operator, in normal running.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// For the operator: something to look into.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// For the operator: something to repair. The last one before a fault is part of its reason.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// A trap carries no message: the panic's goes through the log.
pub(crate) fn hook_panics() {
    std::panic::set_hook(Box::new(|panic| error(&panic.to_string())));
}

/// In an author's native tests there is no agent behind the import.
fn write(level: Level, message: &str) {
    if cfg!(target_family = "wasm") {
        log(level, message);
    } else {
        eprintln!("{level:?}: {message}");
    }
}
