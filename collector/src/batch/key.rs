//! The key that a batch is known by, and the header it comes in.

use std::fmt;
use std::str::FromStr;

use super::NAME_BYTES_MAX;

/// Identity of a batch: `agent/epoch/first-last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchKey {
    /// Who sent it.
    pub agent: String,
    /// The outbox it comes from: 32 hexadecimal digits.
    pub epoch: String,
    /// Sequence number of the first line.
    pub first: u64,
    /// Sequence number of the last line.
    pub last: u64,
}

impl BatchKey {
    /// Number of lines the batch must have.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.last - self.first + 1
    }
}

impl fmt::Display for BatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}-{}", self.agent, self.epoch, self.first, self.last)
    }
}

/// Reads the header's value: the key as a string of RFC 8941, so with its double quotes.
impl FromStr for BatchKey {
    type Err = &'static str;

    fn from_str(header: &str) -> Result<Self, Self::Err> {
        let text = unquote(header.trim()).ok_or("it is not a string in double quotes")?;
        let mut parts = text.rsplitn(3, '/');
        let (Some(range), Some(epoch), Some(agent)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("it is not agent/epoch/first-last");
        };
        if agent.is_empty() || agent.len() > NAME_BYTES_MAX {
            return Err("the agent must have 1 to 256 bytes");
        }
        let hexadecimal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if epoch.len() != 32 || !epoch.bytes().all(hexadecimal) {
            return Err("the epoch must be 32 lowercase hexadecimal digits");
        }
        let (first, last) = range.split_once('-').ok_or("the range is not first-last")?;
        let (first, last) = (sequence(first)?, sequence(last)?);
        if first > last {
            return Err("the range ends before it begins");
        }
        Ok(Self { agent: agent.to_owned(), epoch: epoch.to_owned(), first, last })
    }
}

/// One spelling per number, or one batch would have several keys; SQLite's integers are signed.
fn sequence(digits: &str) -> Result<u64, &'static str> {
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
