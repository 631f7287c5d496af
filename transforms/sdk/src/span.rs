//! Lengths of time in settings.

use serde::{Deserialize, Deserializer, de};

/// A length of time, written as in the agent's configuration: `"250ms"`, `"10s"`, `"5m"`, `"1h"`, `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan {
    /// The length in microseconds, as in an event's time.
    pub micros: u64,
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:.40?} is no length of time: write \"250ms\", \"10s\", \"5m\", \"1h\""
            ))
        })
    }
}

fn parse(text: &str) -> Option<TimeSpan> {
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let count: u64 = text[..text.len() - unit.len()].parse().ok()?;
    let micros = match unit {
        "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    Some(TimeSpan { micros: count.checked_mul(micros)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_configuration_writes() {
        let micros = |text| parse(text).map(|span| span.micros);
        assert_eq!(micros("250ms"), Some(250_000));
        assert_eq!(micros("10s"), Some(10_000_000));
        assert_eq!(micros("1h"), Some(3_600_000_000));
        for none in ["", "s", "1", "-1s", "1.5s", "1 s", "99999999999999999999s", "999999999999999d", "1sec"]
        {
            assert_eq!(micros(none), None, "{none}");
        }
    }
}
