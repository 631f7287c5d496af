//! Comparing JSON values, but for rounding.

use serde_json::Value;

/// The relative distance that numbers may have.
pub(super) const CLOSE: f64 = 1e-9;

/// Returns true if the values are the same up to the rounding of numbers.
pub(super) fn close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => near(a, b, CLOSE * a.abs().max(b.abs())),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| close(a, b)))
        }
        _ => a == b,
    }
}

/// Returns true if the values are the same, however their numbers are written.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Returns true if the numbers are no further apart than that.
pub(super) fn near(a: f64, b: f64, apart: f64) -> bool {
    (a - b).abs() <= apart
}
