//! The rows of a pipeline's own state, as they pass between it and the store.

/// How many bytes at the end of a window's key tell those apart that are kept together, and what the
/// first of them is: one that text never has.
pub const WINDOW_TAIL_BYTES: usize = 14;

/// A key of a pipeline's own, and its new value; `None` removes.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Takes a window's state, by what its key ends with.
pub type EachOf<'a, E> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), E>;
