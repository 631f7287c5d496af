//! Where event time stands, and how its words are read: exactly, in whole microseconds, what is finer cut off.
//!
//! A number is read by its digits, never by way of a float. One of any size is a time: what lies beyond
//! those that can be said counts as the first or the last of them, and is the guard's to judge.

use super::Error;
use crate::flow::Message;
use crate::flow::json::JsonScalar;

/// Where event time stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// In which part of a message.
    pub place: Place,
    /// What it counts.
    pub unit: TimeUnit,
    /// What becomes of a message that has none there. Default: [`WhenMissing::Reject`].
    pub when_missing: WhenMissing,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Path of a payload's field, outermost name first.
    Field(Vec<String>),
    /// Level of the topic, the first one 0.
    Topic(usize),
    /// Name of an MQTT 5 user property; of several the first counts.
    Property(String),
}

/// What becomes of a message without a stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenMissing {
    /// It goes to the dead letters.
    #[default]
    Reject,
    /// Its time is that of its arrival.
    Arrival,
}

/// What a stamp counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since the Unix epoch; fractions count.
    Seconds,
    /// Milliseconds since the Unix epoch.
    Millis,
    /// Microseconds since the Unix epoch.
    Micros,
    /// Nanoseconds since the Unix epoch, kept to the microsecond.
    Nanos,
    /// RFC 3339 text with an offset.
    Rfc3339,
}

impl Stamp {
    /// Microseconds since 1970, negative before it; `None` where there is no stamp. `field` is what the
    /// payload holds in the place.
    pub(super) fn read(&self, message: &Message, field: Option<&JsonScalar>) -> Result<Option<i64>, Error> {
        let (words, read) = match &self.place {
            Place::Field(_) => match field {
                None => return Ok(None),
                Some(scalar) => (scalar.to_string(), self.unit.scalar(scalar)),
            },
            Place::Topic(level) => match message.topic.split('/').nth(*level) {
                None | Some("") => return Ok(None),
                Some(text) => (text.to_owned(), self.unit.text(text)),
            },
            Place::Property(name) => match message.property(name) {
                None => return Ok(None),
                Some(text) => (text.to_owned(), self.unit.text(text)),
            },
        };
        let no_time = || {
            let shown = &words[..words.floor_char_boundary(SHOWN_BYTES_MAX)];
            Error::Time(format!("{} holds {shown}, which is no time in {}", self.place, self.unit.words()))
        };
        read.map(Some).ok_or_else(no_time)
    }
}

/// Of what is no time, so much is in the reason.
const SHOWN_BYTES_MAX: usize = 100;

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(path) => write!(f, "field `{}`", path.join(".")),
            Self::Topic(level) => write!(f, "topic level {level}"),
            Self::Property(name) => write!(f, "user property `{name}`"),
        }
    }
}

impl TimeUnit {
    fn scalar(self, scalar: &JsonScalar) -> Option<i64> {
        match (self, scalar) {
            (Self::Rfc3339, JsonScalar::Text(text)) | (_, JsonScalar::Text(text)) => self.text(text),
            (Self::Rfc3339, _) | (_, JsonScalar::Bool(_)) => None,
            (_, JsonScalar::Integer(_) | JsonScalar::Float(_)) => self.text(&scalar.to_string()),
            (_, JsonScalar::Decimal(text)) => self.text(text),
        }
    }

    fn text(self, text: &str) -> Option<i64> {
        let shift = match self {
            Self::Seconds => 6,
            Self::Millis => 3,
            Self::Micros => 0,
            Self::Nanos => -3,
            Self::Rfc3339 => {
                return text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond);
            }
        };
        decimal(text, shift)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Seconds => "seconds since 1970",
            Self::Millis => "milliseconds since 1970",
            Self::Micros => "microseconds since 1970",
            Self::Nanos => "nanoseconds since 1970",
            Self::Rfc3339 => "RFC 3339 with an offset",
        }
    }
}

/// The whole part of a decimal number times 10^`shift`, as near as an `i64` comes to it.
fn decimal(text: &str, shift: i64) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, self::exponent(exponent)?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || (mantissa.len() > whole.len() && fraction.is_empty()) {
        return None;
    }
    if !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let leading = whole.trim_start_matches('0');
    let all = leading.bytes().chain(fraction.bytes());
    let places = i64::try_from(leading.len()).ok()?.saturating_add(shift).saturating_add(exponent);
    let mut size = 0_i64;
    let mut taken = 0;
    // Zeros in front of the first digit of a fraction take places and add nothing.
    for digit in all {
        if taken >= places || size == i64::MAX {
            break;
        }
        size = size.saturating_mul(10).saturating_add((digit - b'0').into());
        taken += 1;
    }
    while taken < places && size != 0 && size != i64::MAX {
        size = size.saturating_mul(10);
        taken += 1;
    }
    Some(if negative { -size } else { size })
}

/// The exponent of a number; one over eighteen digits is as great as that.
fn exponent(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let size = if digits.len() > 18 { EXPONENT_MAX } else { format!("0{digits}").parse().ok()? };
    Some(sign * size)
}

const EXPONENT_MAX: i64 = 1_000_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, shift: i64, expected: Option<i64>) {
        assert_eq!(decimal(text, shift), expected, "{text} shifted by {shift}");
    }

    #[test]
    fn numbers_are_read_by_their_digits() {
        check("1700000000.123456", 6, Some(1_700_000_000_123_456));
        check("1700000000.1229999", 6, Some(1_700_000_000_122_999));
        check("1700000000.9999999", 6, Some(1_700_000_000_999_999));
        check("9007199254740993", 0, Some(9_007_199_254_740_993));
        check("1700000000123456789", -3, Some(1_700_000_000_123_456));
        check("999.999", -3, Some(0));
        check("1.7e9", 6, Some(1_700_000_000_000_000));
        check("17000E+5", 6, Some(1_700_000_000_000_000));
        check("17000000000000e-4", 6, Some(1_700_000_000_000_000));
        check("0.000017e14", 6, Some(1_700_000_000_000_000));
        check("0007", 0, Some(7));
        check("+7", 0, Some(7));
        check("0", 6, Some(0));
        check("-0.0", 6, Some(0));
        check("-5", 3, Some(-5_000));
    }

    #[test]
    fn what_is_beyond_all_times_is_the_last_of_them() {
        check("1e999", 6, Some(i64::MAX));
        check("-1e999", 6, Some(-i64::MAX));
        check("1e99999999999999999999999", 6, Some(i64::MAX));
        check("1e-99999999999999999999999", 6, Some(0));
        check("0e99999999999999999999999", 6, Some(0));
        check(&"9".repeat(8 << 20), 6, Some(i64::MAX));
        check(&format!("0.{}1", "0".repeat(1 << 20)), 6, Some(0));
        check("18446744073709551615", 6, Some(i64::MAX));
    }

    #[test]
    fn what_is_no_number_is_no_time() {
        for text in ["", "-", "+", ".", "1.", ".5", "1e", "1e+", "e5", "1,5", " 1", "1 ", "0x10", "1_000"] {
            check(text, 0, None);
        }
        for text in ["nan", "NaN", "inf", "-Infinity", "--1", "1.2.3", "1e5e5", "١", "1\0"] {
            check(text, 0, None);
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_back_exactly(micros in 0..=253_402_300_799_999_999_i64, more in "[0-9]{0,30}") {
            for (shift, per) in [(6, 1_000_000), (3, 1_000), (0, 1)] {
                let width = shift as usize;
                let whole = micros / per;
                let text = match width {
                    0 => format!("{whole}.{more}0"),
                    _ => format!("{whole}.{:0width$}{more}", micros % per),
                };
                prop_assert_eq!(decimal(&text, shift), Some(micros), "{}", text);
            }
            prop_assert_eq!(decimal(&format!("{micros}999"), -3), Some(micros));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[-+]?[0-9]{0,40}[.eE]?[-+0-9.eE]{0,40}", shift in -3..=6_i64) {
            let _read = decimal(&text, shift);
        }
    }
}
