//! The rows of a pipeline's own state, as they pass between the pipeline and the store.

/// The number of bytes at the end of a window's key that tell apart the windows that are kept together. The
/// first of these bytes never occurs in text.
pub const WINDOW_TAIL_BYTES: usize = 14;

/// A key of a pipeline's own state, and its new value; `None` removes the key.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// A function that is called for each window with the end of its key and its state.
pub type EachOf<'a, E> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), E>;
