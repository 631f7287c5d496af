//! Named places where a test may make the agent fail.
//!
//! Without the feature `fail-points`, which only the tests' own binary has, every call here is
//! nothing, and neither names nor the variable are in the program. With it, the variable
//! `HEADWATER_FAIL` says what happens where:
//!
//! ```text
//! HEADWATER_FAIL="journal.durable=kill@3; disk.sync=error@1x5; disk.write=stall:2s; pipeline.step=panic"
//! rules    rule [";" rule]…
//! rule     name "=" action ["@" first hit, from 1] ["x" how many hits; without: all from there on]
//! action   "kill" (SIGKILL to itself) | "panic" | "stall:" duration ("2s", "150ms")
//!          | "error" (EIO) | "error:full" (ENOSPC): these two only where the call can fail
//! ```
//!
//! A point is named `<stage>.<what has just happened>`, and in `POINTS`: what can be killed there
//! is a list that the tests walk.

#[cfg(feature = "fail-points")]
mod rules;
#[cfg(feature = "fail-points")]
#[cfg(test)]
mod tests;

#[cfg(feature = "fail-points")]
pub use rules::{POINTS, VARIABLE};

/// A boundary of effect, where the agent may be made to die, panic or stall.
#[cfg(feature = "fail-points")]
pub fn point(name: &'static str) {
    // Rules whose action is an error are refused for a place that cannot give it.
    drop(rules::hit(name, false));
}

/// The same, where the agent may be made to see an I/O error too.
#[cfg(feature = "fail-points")]
pub fn io(name: &'static str) -> std::io::Result<()> {
    rules::hit(name, true)
}

/// Nothing.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Nothing.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub fn io(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}
