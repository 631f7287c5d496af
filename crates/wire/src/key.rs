//! The idempotency key of a batch, and the header that carries it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use headwater_flow::{Epoch, Seq};

use crate::line::NAME_BYTES_MAX;

/// Identity of a batch: `agent/epoch/first-last`.
///
/// `last` belongs to the batch, so that a receiver sees a gap in the numbers without counting lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchKey {
    /// The agent that sent it.
    pub agent: String,
    /// The epoch of the outbox that it comes from.
    pub epoch: Epoch,
    /// Number of the first record.
    pub first: Seq,
    /// Number of the last record.
    pub last: Seq,
}

impl BatchKey {
    /// The key of the records with these numbers, of which there is at least one.
    #[must_use]
    pub fn new(agent: &str, epoch: Epoch, numbers: &Range<Seq>) -> Self {
        let last = numbers.end.saturating_sub(1);
        Self { agent: agent.to_owned(), epoch, first: numbers.start, last }
    }

    /// Number of records that the batch must have.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.last - self.first + 1
    }

    /// The value of `Idempotency-Key`: the key as a string of RFC 8941, in double quotes.
    #[must_use]
    pub fn to_header(&self) -> String {
        format!("\"{self}\"")
    }

    /// Reads the value of `Idempotency-Key`.
    ///
    /// # Errors
    /// The words for the sender, when it is not a key in the one spelling that there is.
    pub fn from_header(header: &str) -> Result<Self, &'static str> {
        unquote(header.trim()).ok_or("it is not a string in double quotes")?.parse()
    }
}

impl fmt::Display for BatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}-{}", self.agent, self.epoch, self.first, self.last)
    }
}

/// Reads what `Display` writes.
impl FromStr for BatchKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.rsplitn(3, '/');
        let (Some(range), Some(epoch), Some(agent)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("it is not agent/epoch/first-last");
        };
        if agent.is_empty() || agent.len() > NAME_BYTES_MAX {
            return Err("the agent must have 1 to 256 bytes");
        }
        let epoch = epoch.parse()?;
        let (first, last) = range.split_once('-').ok_or("the range is not first-last")?;
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err("the range ends before it begins");
        }
        Ok(Self { agent: agent.to_owned(), epoch, first, last })
    }
}

/// One spelling per number, or one batch would have several keys; the collector's integers are signed.
fn number(digits: &str) -> Result<Seq, &'static str> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) {
        return Err("a sequence number must be plain decimal digits");
    }
    let number = digits.parse::<i64>().map_err(|_| "a sequence number is 2^63 or more")?;
    Ok(number.unsigned_abs())
}

/// The content of an RFC 8941 string.
fn unquote(header: &str) -> Option<String> {
    let inner = header.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            ' '..='~' if c != '"' => text.push(c),
            _ => return None,
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_key_names_first_and_last() {
        let key = |numbers| BatchKey::new("a", Epoch(255), &numbers).to_string();
        assert_eq!(key(7..9), "a/000000000000000000000000000000ff/7-8");
        assert_eq!(key(7..8), "a/000000000000000000000000000000ff/7-7");
    }

    #[test]
    fn keys_are_read_in_one_spelling_only() {
        let good = format!("\"plant-7/{EPOCH}/0-9\"");
        let read = BatchKey::from_header(&good).unwrap();
        assert_eq!((read.first, read.last, read.lines()), (0, 9, 10));
        assert_eq!(read.to_header(), good);
        for bad in [
            format!("plant-7/{EPOCH}/0-9"),
            format!("\"plant-7/{EPOCH}/0-9"),
            format!("\"/{EPOCH}/0-9\""),
            format!("\"plant-7/{EPOCH}/9-0\""),
            format!("\"plant-7/{EPOCH}/00-9\""),
            format!("\"plant-7/{EPOCH}/+0-9\""),
            format!("\"plant-7/{EPOCH}/0-9223372036854775808\""),
            format!("\"plant-7/{}/0-9\"", EPOCH.to_uppercase()),
            format!("\"plant-7/{}/0-9\"", &EPOCH[1..]),
            format!("\"plant-7/+{}/0-9\"", &EPOCH[1..]),
            format!("\"pl\"ant/{EPOCH}/0-9\""),
            format!("\"plänt/{EPOCH}/0-9\""),
            "\"\"".to_owned(),
            "\"".to_owned(),
            String::new(),
        ] {
            assert!(BatchKey::from_header(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_key_reads_back_from_its_header(
            agent in "[!#-\\[\\]-~]{1,64}", epoch in any::<u128>(), first in 0..1_u64 << 62, more in 0..1_u64 << 62,
        ) {
            let key = BatchKey { agent, epoch: Epoch(epoch), first, last: first + more };
            prop_assert_eq!(BatchKey::from_header(&key.to_header()), Ok(key.clone()));
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }

        #[test]
        fn no_header_makes_it_panic(header in ".{0,80}") {
            drop(BatchKey::from_header(&header));
        }
    }
}
