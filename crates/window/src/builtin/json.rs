//! Scalars of a result.

use std::io::Write as _;

use headwater_flow::json::INTEGER_MAX;

/// Writes the shortest text that reads back as the same double, whole numbers without a fraction; `null` for
/// a number that JSON cannot express.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "it is whole and within 2^53"
)]
pub(super) fn number(out: &mut Vec<u8>, number: f64) {
    if !number.is_finite() {
        out.extend(b"null");
    } else if number == number.trunc() && number.abs() <= INTEGER_MAX as f64 {
        whole(out, number as i64);
    } else {
        serde_json::to_writer(out, &number).expect("memory takes any text");
    }
}

pub(super) fn whole(out: &mut Vec<u8>, whole: impl std::fmt::Display) {
    write!(out, "{whole}").expect("memory takes any text");
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("memory takes any text");
}
