//! How long to wait before the next attempt; chance is an argument.

use std::time::Duration;

/// Full jitter: anywhere between nothing and an upper bound that doubles with each failure in
/// a row, up to `max` (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog,
/// 2015). Of many agents that lost the same destination at once, no two come back together.
///
/// `failures` counts from 1; `random` is uniform in [0, 1).
pub(super) fn full_jitter(failures: u32, min: Duration, max: Duration, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let bound = min.saturating_mul(1 << doublings).min(max);
    bound.mul_f64(random.clamp(0.0, 1.0))
}

/// Between a half and the whole of `max`: the pace where haste helps nobody.
pub(super) fn slow(max: Duration, random: f64) -> Duration {
    (max / 2).saturating_add((max / 2).mul_f64(random.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIN: Duration = Duration::from_millis(250);
    const MAX: Duration = Duration::from_secs(60);

    #[track_caller]
    fn check(failures: u32, random: f64, expected_ms: u128) {
        assert_eq!(full_jitter(failures, MIN, MAX, random).as_millis(), expected_ms);
    }

    #[test]
    fn doubles_up_to_its_bound_and_spreads_over_the_whole_range() {
        check(1, 0.0, 0);
        check(1, 0.5, 125);
        check(2, 0.5, 250);
        check(3, 0.5, 500);
        check(8, 0.5, 16_000);
        check(9, 0.5, 30_000);
        check(u32::MAX, 0.5, 30_000);
        check(u32::MAX, 0.0, 0);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(failures: u32, min_ms in 1u64..10_000, more_ms: u32, random in 0.0f64..1.0) {
            let min = Duration::from_millis(min_ms);
            let max = min + Duration::from_millis(more_ms.into());
            prop_assert!(full_jitter(failures, min, max, random) <= max);
            let slow = slow(max, random);
            prop_assert!(max / 2 <= slow && slow <= max);
        }
    }
}
