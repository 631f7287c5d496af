//! Named places where a test may make the agent fail.
//!
//! Without the feature `fail-points`, which only the tests' own binary has, every call here does
//! nothing, and neither the names nor the variable are in the program. With it, the environment
//! variable `HEADWATER_FAIL` lists the failures:
//!
//! ```text
//! HEADWATER_FAIL="journal.durable=kill@3; disk.sync=error@1x5; disk.write=stall:2s; pipeline.step=panic"
//! rules    rule [";" rule]…
//! rule     name "=" action ["@" first hit, from 1] ["x" number of hits; if absent, all from there on]
//! action   "kill" (SIGKILL to itself) | "panic" | "stall:" duration ("2s", "150ms")
//!          | "error" (EIO) | "error:full" (ENOSPC): these two only where the call can fail
//! ```
//!
//! A point is named `<stage>.<event that has just happened>` and stands in `POINTS`, the list of
//! places to fail that the tests walk.

#[cfg(feature = "fail-points")]
mod rules;
// Two attributes, because clippy knows tests only by a `cfg(test)` that stands alone.
#[cfg(feature = "fail-points")]
#[cfg(test)]
mod tests;

#[cfg(feature = "fail-points")]
pub use rules::{POINTS, VARIABLE};

/// Marks a boundary between two effects, at which a test may kill, stall or panic the agent.
#[cfg(feature = "fail-points")]
pub fn point(name: &'static str) {
    // Only `io` can return an error; the parser refuses an error action for this point.
    drop(rules::hit(name, false));
}

/// Marks a boundary like [`point`], at which a test may also inject an I/O error.
///
/// # Errors
/// The error that a rule injects.
#[cfg(feature = "fail-points")]
pub fn io(name: &'static str) -> std::io::Result<()> {
    rules::hit(name, true)
}

/// Does nothing without the feature `fail-points`.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Does nothing without the feature `fail-points`.
///
/// # Errors
/// Never.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub fn io(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}
