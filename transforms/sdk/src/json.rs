//! JSON payloads, read without building a tree.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// The room for a number: more than the longest takes, -1.7976931348623157e308.
const NUMBER_BYTES_MAX: usize = 32;

/// A JSON object: checked as a whole, its members read on demand.
#[derive(Debug)]
pub struct JsonObject<'a> {
    text: &'a str,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> JsonObject<'a> {
    /// Reads the payload, and checks it as a whole.
    ///
    /// # Errors
    /// A reason that says at which byte the payload stops being a JSON object.
    pub fn parse(payload: &'a [u8]) -> Result<Self, String> {
        let text = str::from_utf8(payload).map_err(|error| format!("not UTF-8: {error}"))?;
        let ObjectMembers(members) =
            serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
        Ok(Self { text, members })
    }

    /// Returns the members in their order, each with its value as it is written.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.members.iter().map(|(name, value)| (name.as_ref(), value.get()))
    }

    /// Returns the field's value as it is written: the last one, where a name is there twice.
    #[must_use]
    pub fn raw(&self, field: &str) -> Option<&'a str> {
        self.members.iter().rev().find(|(name, _)| name == field).map(|(_, value)| value.get())
    }

    /// Returns the field's number; `None` if the field is missing, there twice, or no finite number.
    #[must_use]
    pub fn number(&self, field: &str) -> Option<f64> {
        self.read(field).ok().map(|(_, number)| number)
    }

    /// Returns the field's number, and its place in the payload.
    pub(crate) fn read(&self, field: &str) -> Result<(Range<usize>, f64), String> {
        let place = self.place(field)?.ok_or_else(|| format!("field `{field}` is missing"))?;
        let value = &self.text[place.clone()];
        match value.parse() {
            Ok(number) if f64::is_finite(number) => Ok((place, number)),
            _ => Err(format!("field `{field}` is not a number: {value:.40}")),
        }
    }

    /// Returns the place of the field's value in the payload.
    fn place(&self, field: &str) -> Result<Option<Range<usize>>, String> {
        let mut named = self.members.iter().filter(|(name, _)| name == field);
        match (named.next(), named.next()) {
            (Some((_, value)), None) => {
                let start = value.get().as_ptr().addr() - self.text.as_ptr().addr();
                Ok(Some(start..start + value.get().len()))
            }
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(format!("field `{field}` is there twice")),
        }
    }
}

/// Returns the payload with another number in the field; all else is as it was, byte for byte.
pub(crate) fn map_number(
    payload: &[u8],
    field: &str,
    map: impl FnOnce(f64) -> f64,
) -> Result<Vec<u8>, String> {
    let (span, number) = JsonObject::parse(payload)?.read(field)?;
    with_number(payload, field, map(number), span, "")
}

/// Returns the payload with that number in the field, which is added if it is not there; all else is as it was, byte for
/// byte.
pub(crate) fn set_number(payload: &[u8], field: &str, number: f64) -> Result<Vec<u8>, String> {
    let object = JsonObject::parse(payload)?;
    if let Some(span) = object.place(field)? {
        return with_number(payload, field, number, span, "");
    }
    let end = object.text.rfind('}').unwrap_or(payload.len());
    let comma = if object.members.is_empty() { "" } else { "," };
    let name = serde_json::to_string(field).map_err(|error| error.to_string())?;
    with_number(payload, field, number, end..end, &format!("{comma}{name}:"))
}

fn with_number(
    payload: &[u8],
    field: &str,
    number: f64,
    span: Range<usize>,
    name: &str,
) -> Result<Vec<u8>, String> {
    if !number.is_finite() {
        return Err(format!("field `{field}` would become {number}"));
    }
    let mut digits = [0; NUMBER_BYTES_MAX];
    let mut rest = digits.as_mut_slice();
    serde_json::to_writer(&mut rest, &number).map_err(|error| error.to_string())?;
    let unused = rest.len();
    // Exactly what it takes: what a call returns is shrunk to fit, and that would copy it again.
    let name = name.as_bytes();
    Ok([&payload[..span.start], name, &digits[..NUMBER_BYTES_MAX - unused], &payload[span.end..]].concat())
}

struct ObjectMembers<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for ObjectMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = ObjectMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectMembers<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((MemberName(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(ObjectMembers(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// A member's name: borrowed unless it has escapes in it, which a plain `Cow` would not be.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(payload: &str, expected: Result<f64, &str>) {
        let found = JsonObject::parse(payload.as_bytes()).and_then(|object| {
            let (span, number) = object.read("t")?;
            assert_eq!(payload[span].parse(), Ok(number));
            Ok(number)
        });
        assert_eq!(found, expected.map_err(str::to_owned), "{payload}");
    }

    #[test]
    fn reads_numbers_and_says_why_not() {
        check(r#"{"t":1.5}"#, Ok(1.5));
        check(r#" { "a" : {"t":2} , "\u0074" : -3e2 } "#, Ok(-300.0));
        check(r#"{"a":1}"#, Err("field `t` is missing"));
        check(r#"{"t":1,"t":2}"#, Err("field `t` is there twice"));
        check(r#"{"t":"1"}"#, Err("field `t` is not a number: \"1\""));
        check(r#"{"t":null}"#, Err("field `t` is not a number: null"));
        check(r#"{"t":1e999}"#, Err("field `t` is not a number: 1e999"));
        let cut = "not a JSON object: EOF while parsing an object at line 1 column 6";
        check(r#"{"t":1"#, Err(cut));
        let list = "not a JSON object: invalid type: sequence, expected an object at line 1 column 0";
        check("[1]", Err(list));
        assert!(JsonObject::parse(b"{\"t\":\"\xff\"}").unwrap_err().starts_with("not UTF-8"));
    }

    #[test]
    fn sets_a_number_that_is_there_or_not() {
        let set = |payload: &str, number| {
            let set = set_number(payload.as_bytes(), "a\"b", number);
            set.map(|payload| String::from_utf8(payload).unwrap())
        };
        assert_eq!(set(r#"{"t":1, "a\"b" : "x" }"#, 2.5).unwrap(), r#"{"t":1, "a\"b" : 2.5 }"#);
        assert_eq!(set(r#" {"t":{"u":1} } "#, 2.5).unwrap(), r#" {"t":{"u":1} ,"a\"b":2.5} "#);
        assert_eq!(set("{}", -1.0).unwrap(), r#"{"a\"b":-1.0}"#);
        assert_eq!(set("{}", f64::NAN).unwrap_err(), "field `a\"b` would become NaN");
        assert_eq!(set(r#"{"a\"b":1,"a\"b":2}"#, 1.0).unwrap_err(), "field `a\"b` is there twice");
        assert!(set("[]", 1.0).unwrap_err().starts_with("not a JSON object"));
    }
}
