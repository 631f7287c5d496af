//! The coordinates of a record: its number, and the epoch in which that number counts.

use std::fmt;
use std::str::FromStr;

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

/// Reads the form that `Display` writes, in that one spelling.
impl FromStr for Epoch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let digits = Some(text).filter(|text| text.len() == 32 && text.bytes().all(hexadecimal));
        let bits = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok());
        bits.map(Self).ok_or("the epoch must be 32 lowercase hexadecimal digits")
    }
}
