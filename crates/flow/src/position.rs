//! The coordinates of a record: its number, and the epoch in which that number counts.

use std::fmt;

/// The position of a record in a log: contiguous from 0 within an [`Epoch`].
pub type Seq = u64;

/// 128 random bits, made with each store, and for each outbox with its first result. After a loss
/// the numbers start again, and only the epoch tells the new ones from the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u128);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
