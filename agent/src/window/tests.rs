//! Windows against oracles that know nothing of panes, batches, caches and restarts.

mod oracle;
mod run;
mod table;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use oracle::Oracle;
use run::{Action, Collected, Reading, run};

const SECOND: u64 = 1_000_000;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many, or as many as `PROPTEST_CASES` says.
fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Readings of a few keys: mostly forward, some far behind, some twice.
fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let step = prop_oneof![6 => -5_i64..8, 2 => -40_i64..5, 1 => 10_i64..60];
    let action = prop_oneof![6 => Just(Action::None), 1 => Just(Action::Apply), 1 => Just(Action::Settle),
        1 => Just(Action::SettleOne), 1 => Just(Action::Commit), 1 => Just(Action::Restart)];
    prop::collection::vec((0_u8..3, step, action), 0..120).prop_map(|steps| {
        let mut at = 100_i64;
        let readings = steps.into_iter().enumerate().map(|(id, (key, step, action))| {
            at = (at + step).max(0);
            Reading { key, second: u64::try_from(at).unwrap(), id: u16::try_from(id).unwrap(), action }
        });
        readings.collect()
    })
}

fn any_config(kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Config> {
    let patience = prop_oneof![2 => Just(None), 1 => (0_u64..60).prop_map(Some)];
    (kind, 0_u64..30, 0_u64..40, patience).prop_map(|(kind, lateness, revise, patience)| Config {
        lateness: seconds(lateness),
        revise: match kind {
            Kind::Sliding { .. } | Kind::Count { .. } => Duration::ZERO,
            _ => seconds(revise / 2 * 2),
        },
        patience: patience.map(seconds),
        ..Config::new(kind)
    })
}

/// Whatever batches, commits, restarts and however little stays in memory, the results are the same
/// to the last bit; and what is left of them is what the oracle says.
fn holds(config: &Config, readings: &[Reading]) -> Result<(), TestCaseError> {
    let plain: Vec<_> = readings.iter().map(|reading| Reading { action: Action::None, ..*reading }).collect();
    let eager: Vec<_> =
        readings.iter().map(|reading| Reading { action: Action::Settle, ..*reading }).collect();
    let (whole, late) = run(config, &plain, usize::MAX);
    for (readings, kept_bytes) in [(&eager[..], usize::MAX), (readings, 0), (readings, 4_000)] {
        let (other, other_late) = run(config, readings, kept_bytes);
        prop_assert_eq!(&whole, &other);
        prop_assert_eq!(&late, &other_late);
    }
    let oracle = Oracle::replay(config, readings);
    prop_assert_eq!(late, oracle.late);
    let collected = Collected::of(&whole);
    prop_assert_eq!(collected.readings(), oracle.windows);
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn tumbling_windows_equal_the_oracle(
        config in any_config((1_u64..30, 0_u64..30).prop_map(|(size, offset)| {
            Kind::Tumbling { size: seconds(size), offset: seconds(offset % size) }
        })),
        early in prop::option::of(1_u64..20),
        readings_max in prop_oneof![2 => Just(u64::MAX), 1 => 1_u64..5],
        readings in readings(),
    ) {
        let early = early.map(seconds);
        holds(&Config { early, readings_max, ..config }, &readings)?;
    }

    #[test]
    fn hopping_windows_equal_the_oracle(
        config in any_config((1_u64..30, 1_u64..30, 0_u64..30).prop_map(|(size, slide, offset)| {
            let (size, slide) = (size.max(slide), size.min(slide));
            Kind::Hopping { size: seconds(size), slide: seconds(slide), offset: seconds(offset % slide) }
        })),
        readings in readings(),
    ) {
        holds(&config, &readings)?;
    }

    #[test]
    fn sliding_windows_equal_the_oracle(
        config in any_config((1_u64..40).prop_map(|size| Kind::Sliding { size: seconds(size) })),
        readings in readings(),
    ) {
        holds(&config, &readings)?;
    }

    #[test]
    fn sessions_equal_the_oracle(
        config in any_config((1_u64..15, prop::option::of(15_u64..60)).prop_map(|(gap, longest)| {
            Kind::Session { gap: seconds(gap), longest: longest.map(seconds) }
        })),
        early in prop::option::of(1_u64..20),
        readings in readings(),
    ) {
        // An early result of a session that was closed and is open again is a case of the table's.
        let early = early.filter(|_| config.revise.is_zero()).map(seconds);
        holds(&Config { early, ..config }, &readings)?;
    }

    #[test]
    fn count_windows_equal_the_oracle(
        config in any_config((1_u64..8, 1_u64..8).prop_map(|(a, b)| Kind::Count { size: a.max(b), slide: a.min(b) })),
        readings in readings(),
    ) {
        holds(&config, &readings)?;
    }

    #[test]
    fn days_equal_the_oracle(hours in prop::collection::vec((0_u64..400, any::<bool>()), 0..60)) {
        // Around the day in October that has 25 hours.
        let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
        let first = 1_792_000_000;
        let readings: Vec<_> = hours.iter().enumerate().map(|(id, (hour, restart))| Reading {
            key: 0,
            second: first + hour * 3_600,
            id: u16::try_from(id).unwrap(),
            action: if *restart { Action::Restart } else { Action::None },
        }).collect();
        holds(&Config { lateness: seconds(100 * 3_600), ..Config::new(Kind::Day { zone }) }, &readings)?;
    }

    /// No permutation within the lateness changes what is there in the end.
    #[test]
    fn the_order_of_readings_within_the_lateness_does_not_show(
        (readings, permuted) in readings().prop_flat_map(|readings| {
            let permuted = Just(readings.clone()).prop_shuffle();
            (Just(readings), permuted)
        }),
        kind in prop_oneof![
            Just(Kind::Tumbling { size: seconds(10), offset: Duration::ZERO }),
            Just(Kind::Hopping { size: seconds(20), slide: seconds(6), offset: seconds(2) }),
            Just(Kind::Sliding { size: seconds(15) }),
            Just(Kind::Session { gap: seconds(7), longest: Some(seconds(40)) }),
            Just(Kind::Count { size: 3, slide: 2 }),
        ],
    ) {
        let lateness = seconds(10_000);
        let config = Config { lateness, ..Config::new(kind) };
        let (one, other) = [readings, permuted].map(|mut readings| {
            if let Kind::Count { .. } = config.kind {
                // Those of one time are counted as they came, so there is but one.
                readings.iter_mut().for_each(|reading| reading.second = u64::from(reading.id) * 7 % 121);
            }
            readings.push(Reading { key: 9, second: 30_000, id: 65_000, action: Action::None });
            readings
        }).into();
        let one = Collected::of(&run(&config, &one, usize::MAX).0).readings();
        let other = Collected::of(&run(&config, &other, 0).0).readings();
        prop_assert_eq!(one, other);
    }
}
