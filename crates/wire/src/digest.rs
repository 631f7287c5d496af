//! The name of whatever made a value: a module's file, or the configuration of built-ins.

use std::borrow::Cow;
use std::fmt;

const SHA256: &str = "sha256:";
const BUILTIN: &str = "builtin:";

/// A digest as results carry it: `sha256:` and 64 digits, `builtin:` and 16, or another text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleDigest<'a> {
    /// SHA-256 of a module's file.
    Sha256([u8; 32]),
    /// Digest of the configuration of built-in aggregates.
    Builtin([u8; 8]),
    /// Anything else, as it is.
    Text(Cow<'a, str>),
}

impl ModuleDigest<'_> {
    /// Copies what it borrows.
    #[must_use]
    pub fn into_owned(self) -> ModuleDigest<'static> {
        match self {
            Self::Sha256(bytes) => ModuleDigest::Sha256(bytes),
            Self::Builtin(bytes) => ModuleDigest::Builtin(bytes),
            Self::Text(text) => ModuleDigest::Text(Cow::Owned(text.into_owned())),
        }
    }
}

/// Keeps the text exactly: upper-case digits stay text.
impl<'a> From<&'a str> for ModuleDigest<'a> {
    fn from(text: &'a str) -> Self {
        let sha256 = text.strip_prefix(SHA256).and_then(digits).map(Self::Sha256);
        let known = sha256.or_else(|| text.strip_prefix(BUILTIN).and_then(digits).map(Self::Builtin));
        known.unwrap_or(Self::Text(Cow::Borrowed(text)))
    }
}

impl fmt::Display for ModuleDigest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(bytes) => write_digits(f, SHA256, bytes),
            Self::Builtin(bytes) => write_digits(f, BUILTIN, bytes),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn write_digits(f: &mut fmt::Formatter<'_>, prefix: &str, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    f.write_str(prefix)?;
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    f.write_str(str::from_utf8(&text[..bytes.len() * 2]).map_err(|_| fmt::Error)?)
}

/// The bytes that so many lower-case digits stand for.
fn digits<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    if text.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_text_that_it_was_made_of() {
        let sha256 = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(ModuleDigest::from(&*sha256), ModuleDigest::Sha256([15; 32]));
        assert_eq!(ModuleDigest::from("builtin:4be3f581a199c0ff").to_string(), "builtin:4be3f581a199c0ff");
        for text in
            [&*sha256, "", "sha256:0", "sha256:0é", "builtin:4BE3F581A199C0FF", &sha256.to_uppercase()]
        {
            assert_eq!(ModuleDigest::from(text).to_string(), text);
        }
    }
}
