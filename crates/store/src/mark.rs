//! A number that only grows, kept beside a log to notice that it lost its tail.
//!
//! On a flipped bit the engine may drop all that was written after it and say nothing. So after
//! each sync the number is written, in one of two slots and without a sync of its own.

use super::error::Error;
use super::slots::{Kept, Slots};
use std::path::Path;

/// A slot is written within a sector.
const SPACING: u64 = 512;

/// An open mark.
#[derive(Debug)]
pub(super) struct Mark(Slots);

impl Mark {
    /// Opens the file, and reads the number unless it was never written.
    ///
    /// # Errors
    /// [`Error::Damaged`] when neither slot is whole.
    pub(super) fn open(path: &Path) -> Result<(Self, u64), Error> {
        let (slots, kept) = Slots::open(path, SPACING)?;
        match number(&kept) {
            Some(number) => Ok((Self(slots), number)),
            None => Err(Error::damaged(path, "neither of its slots is whole")),
        }
    }

    /// The number in the file, which stays as it is: 0 when it was never written, `None` when neither
    /// slot is whole.
    pub(super) fn read(path: &Path) -> Result<Option<u64>, Error> {
        Ok(number(&Slots::read(path, SPACING)?))
    }

    /// Makes the file anew, durably but for its name.
    pub(super) fn write(path: &Path, number: u64) -> Result<(), Error> {
        let (slots, _) = Slots::open(path, SPACING)?;
        slots.write(&number.to_le_bytes())?;
        slots.sync()
    }

    /// Writes the number: what it marks is durable.
    pub(super) fn set(&self, number: u64) -> Result<(), Error> {
        self.0.write(&number.to_le_bytes()).map(drop)
    }
}

fn number(kept: &Kept) -> Option<u64> {
    match kept {
        Kept::Nothing => Some(0),
        Kept::Value(bytes) => bytes.as_slice().try_into().ok().map(u64::from_le_bytes),
        Kept::Spoilt => None,
    }
}
