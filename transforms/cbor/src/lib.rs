//! CBOR (RFC 8949) to JSON. It has no settings; the pipeline needs `format = "bytes"`.
//!
//! The bytes `a2 61 74 f9 4d 00 63 72 61 77 42 01 02` become `{"t":20.0,"raw":"AQI"}`.
//!
//! Conversion is that of RFC 8949, 6.1: byte strings become base64url without padding (base64 under tag 22, base16 under 23), big
//! numbers the same with a `~` before a negative one, other tags are left off, and what JSON lacks (undefined, infinities,
//! not a number) becomes `null`. Whole numbers keep all their digits. Names that are whole numbers become text;
//! other names that are no text, and a name that is there twice, are refused, and so are bytes behind the value.

use ciborium::Value;
use ciborium::de::Error;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXUPPER};
use headwater_module::{Event, Transform, export_transform};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The transform, which has no settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CborDecoder {}

impl Transform for CborDecoder {
    fn process(&mut self, mut event: Event) -> Result<impl IntoIterator<Item = Event>, String> {
        let mut rest = event.payload.as_slice();
        let value = ciborium::from_reader(&mut rest).map_err(|error| fault(&error))?;
        if !rest.is_empty() {
            return Err(format!("failed to read the payload as CBOR: {} bytes too many", rest.len()));
        }
        let mut json = String::with_capacity(2 * event.payload.len());
        write(&mut json, &value, ByteEncoding::Base64Url)?;
        event.payload = json.into_bytes();
        Ok(Some(event))
    }
}
export_transform!(CborDecoder);

fn fault(error: &Error<std::io::Error>) -> String {
    let what = match error {
        Error::Io(_) => "it ends too early".to_owned(),
        Error::Syntax(at) => format!("byte {at} cannot be there"),
        Error::Semantic(_, what) => what.clone(),
        Error::RecursionLimitExceeded => "it is nested too deep".to_owned(),
    };
    format!("failed to read the payload as CBOR: {what}")
}

/// The way in which byte strings are written, by the nearest tag above.
#[derive(Clone, Copy)]
enum ByteEncoding {
    Base64Url,
    Base64,
    Base16,
}

fn write(json: &mut String, value: &Value, bytes: ByteEncoding) -> Result<(), String> {
    match value {
        Value::Integer(integer) => number(json, i128::from(*integer)),
        Value::Float(float) if float.is_finite() => number(json, format_args!("{float:?}")),
        Value::Bool(flag) => number(json, flag),
        Value::Text(content) => text(json, content)?,
        Value::Bytes(content) => text(json, &encoded(content, bytes))?,
        Value::Tag(21, inner) => write(json, inner, ByteEncoding::Base64Url)?,
        Value::Tag(22, inner) => write(json, inner, ByteEncoding::Base64)?,
        Value::Tag(23, inner) => write(json, inner, ByteEncoding::Base16)?,
        Value::Tag(3, inner) if inner.is_bytes() => {
            let content = inner.as_bytes().map_or(&[][..], Vec::as_slice);
            text(json, &format!("~{}", encoded(content, ByteEncoding::Base64Url)))?;
        }
        Value::Tag(_, inner) => write(json, inner, bytes)?,
        Value::Array(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                json.push_str(if index == 0 { "" } else { "," });
                write(json, item, bytes)?;
            }
            json.push(']');
        }
        Value::Map(members) => object(json, members, bytes)?,
        _ => json.push_str("null"),
    }
    Ok(())
}

fn object(json: &mut String, members: &[(Value, Value)], bytes: ByteEncoding) -> Result<(), String> {
    let mut names = BTreeSet::new();
    json.push('{');
    for (index, (name, member)) in members.iter().enumerate() {
        let name = match name {
            Value::Text(name) => name.clone(),
            Value::Integer(number) => i128::from(*number).to_string(),
            other => {
                return Err(format!(
                    "a name is neither text nor a whole number: {:.80}",
                    format!("{other:?}")
                ));
            }
        };
        json.push_str(if index == 0 { "" } else { "," });
        text(json, &name)?;
        json.push(':');
        write(json, member, bytes)?;
        if let Some(twice) = names.replace(name) {
            return Err(format!("the name {twice:.80?} is there twice"));
        }
    }
    json.push('}');
    Ok(())
}

/// Appends the number; writing into a `String` cannot fail.
fn number(json: &mut String, number: impl std::fmt::Display) {
    _ = write!(json, "{number}");
}

fn text(json: &mut String, text: &str) -> Result<(), String> {
    json.push_str(&serde_json::to_string(text).map_err(|error| error.to_string())?);
    Ok(())
}

fn encoded(content: &[u8], bytes: ByteEncoding) -> String {
    match bytes {
        ByteEncoding::Base64Url => BASE64URL_NOPAD.encode(content),
        ByteEncoding::Base64 => BASE64.encode(content),
        ByteEncoding::Base16 => HEXUPPER.encode(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_module::testing::TransformProbe;

    /// Checks the JSON, or the reason, of bytes in hexadecimal digits.
    #[track_caller]
    fn check(hex: &str, expected: Result<&str, &str>) {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        match (TransformProbe::<CborDecoder>::new("{}").unwrap().payloads(bytes), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, [expected], "{hex:.80}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{hex:.80}: {found}"),
            (found, _) => panic!("{hex:.80}: {found:?}, not {expected:?}"),
        }
    }

    /// RFC 8949, appendix A; what they become in JSON is 6.1's.
    #[test]
    fn reads_the_examples_of_the_rfc() {
        for (hex, json) in [
            ("00", "0"),
            ("1818", "24"),
            ("1bffffffffffffffff", "18446744073709551615"),
            ("c249010000000000000000", "\"AQAAAAAAAAAA\""),
            ("3bffffffffffffffff", "-18446744073709551616"),
            ("c349010000000000000000", "\"~AQAAAAAAAAAA\""),
            ("29", "-10"),
            ("f90000", "0.0"),
            ("f98000", "-0.0"),
            ("fb3ff199999999999a", "1.1"),
            ("f90001", "5.960464477539063e-8"),
            ("fb7e37e43c8800759c", "1e300"),
            ("f97c00", "null"),
            ("f97e00", "null"),
            ("f4", "false"),
            ("f5", "true"),
            ("f6", "null"),
            ("c074323031332d30332d32315432303a30343a30305a", "\"2013-03-21T20:04:00Z\""),
            ("c11a514b67b0", "1363896240"),
            ("d74401020304", "\"01020304\""),
            ("d818456449455446", "\"ZElFVEY\""),
            ("40", "\"\""),
            ("4401020304", "\"AQIDBA\""),
            ("62225c", r#""\"\\""#),
            ("62c3bc", "\"ü\""),
            ("64f0908591", "\"𐅑\""),
            ("8301820203820405", "[1,[2,3],[4,5]]"),
            ("a201020304", r#"{"1":2,"3":4}"#),
            ("a26161016162820203", r#"{"a":1,"b":[2,3]}"#),
            ("5f42010243030405ff", "\"AQIDBAU\""),
            ("7f657374726561646d696e67ff", "\"streaming\""),
            ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
            ("bf61610161629f0203ffff", r#"{"a":1,"b":[2,3]}"#),
        ] {
            check(hex, Ok(json));
        }
        check("a26174f94d0063726177420102", Ok(r#"{"t":20.0,"raw":"AQI"}"#));
    }

    #[test]
    fn refuses_in_words() {
        check("", Err("failed to read the payload as CBOR: it ends too early"));
        check("0000", Err("1 bytes too many"));
        check("a2616101616102", Err(r#"the name "a" is there twice"#));
        check("a18001", Err("a name is neither text nor a whole number"));
        check("61ff", Err("failed to read"));
        check("9b7fffffffffffffff", Err("failed to read"));
        check("5b7fffffffffffffff", Err("failed to read"));
        check("bb7fffffffffffffff", Err("failed to read"));
        check("7b7fffffffffffffff", Err("failed to read"));
        check(&"81".repeat(100_000), Err("nested too deep"));
        check(&"c1".repeat(100_000), Err("nested too deep"));
    }

    #[test]
    fn whatever_comes_it_answers_with_json_or_a_reason() {
        let a: Vec<u8> =
            (0..60).flat_map(|n| [0x81 + n % 3, 0x18, n, 0xa1, 0x61, b'a', 0xf9, n, n]).collect();
        let b = b"\xa3\x61a\x5f\x42\x01\x02\x43\x03\x04\x05\xff\x62\xc3\xbc\x9f\x01\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a\xff\x02\xc3\x41\x01";
        let mut taken = 0;
        TransformProbe::<CborDecoder>::new("{}").unwrap().provoke(&[&a, b], 5000, |payload, answer| {
            if let Ok(events) = answer {
                let json: Result<serde_json::Value, _> = serde_json::from_slice(&events[0].payload);
                json.unwrap_or_else(|error| panic!("{error}: {payload:x?}"));
                taken += 1;
            }
        });
        assert!(taken > 100, "{taken}");
    }
}
