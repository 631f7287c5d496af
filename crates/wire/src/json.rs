//! JSON that may be handed on: checked, and kept as it was written.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Levels of a value in a line: one less than a reader of the whole line takes.
const LEVELS_MAX: usize = 126;
/// Levels that readers take of a text of its own; the reader itself has that limit.
const LEVELS_OF_READERS: usize = 127;

/// A JSON value that every reader takes, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText<'a>(Cow<'a, str>);

impl<'a> JsonText<'a> {
    /// Takes a value that every reader takes: UTF-8, numbers within the range of doubles, not too deep. Line
    /// feeds between its tokens become spaces, which mean the same.
    ///
    /// # Errors
    /// Says where it is not one.
    pub fn checked(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        check_levels(json, LEVELS_MAX)?;
        let text = str::from_utf8(json.trim_ascii()).map_err(serde_json::Error::custom)?;
        let is_feed = |byte: &u8| matches!(byte, b'\n' | b'\r');
        // They can stand between tokens only: within a string they are escaped.
        Ok(Self(if text.as_bytes().iter().any(is_feed) {
            Cow::Owned(text.replace(['\n', '\r'], " "))
        } else {
            Cow::Borrowed(text)
        }))
    }

    /// The text of a value that was checked before it was kept.
    pub(crate) fn kept(text: Cow<'a, str>) -> Self {
        Self(text)
    }

    /// The value's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Copies what it borrows.
    #[must_use]
    pub fn into_owned(self) -> JsonText<'static> {
        JsonText(Cow::Owned(self.0.into_owned()))
    }
}

/// Checks that every reader of it alone takes the text.
pub(crate) fn check(json: &[u8]) -> Result<(), serde_json::Error> {
    check_levels(json, LEVELS_OF_READERS)
}

fn check_levels(json: &[u8], levels_max: usize) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Levels(levels_max).deserialize(&mut reader)?;
    reader.end()
}

/// Visits every value, which a raw value alone would skip over: it may nest without end or hold numbers like
/// 1e999. Levels that are left.
#[derive(Clone, Copy)]
struct Levels(usize);

impl Levels {
    fn down<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("recursion limit exceeded"))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let below = self.down()?;
        while items.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let below = self.down()?;
        while fields.next_key::<AnyName>()?.is_some() {
            fields.next_value_seed(below)?;
        }
        Ok(())
    }
}

/// A field's name, checked and not kept.
struct AnyName;

impl<'de> Deserialize<'de> for AnyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Levels(0)).map(|()| Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Vec<u8> {
        ("[".repeat(levels) + &"]".repeat(levels)).into_bytes()
    }

    #[test]
    fn a_value_is_kept_as_it_is_but_for_line_feeds_and_its_margins() {
        let kept = JsonText::checked(b" \n{\n  \"mean\": 1.50\r\n,\"a\":\"\\n\"}\t").unwrap();
        assert_eq!(kept.as_str(), "{   \"mean\": 1.50  ,\"a\":\"\\n\"}");
        assert_eq!(JsonText::checked(b"9007199254740993").unwrap().as_str(), "9007199254740993");
    }

    #[test]
    fn a_value_fits_into_a_line_and_a_line_into_a_reader() {
        for (levels, fits, alone) in [(126, true, true), (127, false, true), (128, false, false)] {
            let value = nested(levels);
            assert_eq!(JsonText::checked(&value).is_ok(), fits, "{levels}");
            assert_eq!(check(&value).is_ok(), alone, "{levels}");
            let line = [&b"{\"value\":"[..], &value, b"}"].concat();
            assert_eq!(check(&line).is_ok(), fits, "{levels}");
        }
    }

    #[test]
    fn what_some_reader_does_not_take_is_refused() {
        for json in ["", "{} {}", "1e999", "{\"a\":", "{\"a\":NaN}", "\"\\ud800\"", "{1:2}", "\"\n\""] {
            assert!(JsonText::checked(json.as_bytes()).is_err(), "{json}");
        }
        assert!(JsonText::checked(b"\"\xff\xfe\"").is_err() && JsonText::checked(b"{\"\xff\":1}").is_err());
        assert!(JsonText::checked(&nested(1_000_000)).is_err(), "without a stack overflow");
    }
}
