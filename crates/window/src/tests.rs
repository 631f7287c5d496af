//! Windows against oracles that know nothing of panes, batches, caches and restarts.

mod bounds;
mod oracle;
mod peers;
mod run;
mod table;
mod values;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use headwater_flow::testing::property_config;
use oracle::Oracle;
use run::{Action, Collected, Reading, run};

const SECOND: u64 = 1_000_000;

/// Cases of a property in a normal run.
const CASES: u32 = 500;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Readings of a few keys, times in `unit` seconds: mostly forward, some far behind, some twice, with gaps,
/// and each key by a clock of its own.
fn readings_by(begin: u64, unit: u64) -> impl Strategy<Value = Vec<Reading>> {
    let step = prop_oneof![12 => -5_i64..8, 4 => -40_i64..5, 2 => 10_i64..60, 1 => 100_i64..300];
    let action = prop_oneof![6 => Just(Action::None), 1 => Just(Action::Apply), 1 => Just(Action::Settle),
        1 => Just(Action::SettleOne), 1 => Just(Action::Commit), 1 => Just(Action::Restart),
        1 => Just(Action::Kill)];
    let clocks = prop::array::uniform4(prop_oneof![3 => Just(0_i64), 1 => -60_i64..60]);
    let steps = prop::collection::vec((0_u8..4, step, prop::bool::weighted(0.1), action), 0..120);
    (clocks, steps).prop_map(move |(clocks, steps)| {
        let mut at = 100_i64;
        let mut readings = Vec::<Reading>::with_capacity(steps.len());
        for (id, (key, step, again, action)) in steps.into_iter().enumerate() {
            at = (at + step).max(0);
            let behind = u64::try_from((at + clocks[usize::from(key)]).max(0)).unwrap();
            let new = Reading { key, second: begin + behind * unit, id: 0, action };
            let before = readings.last().filter(|_| again).copied().unwrap_or(new);
            readings.push(Reading { id: u16::try_from(id).unwrap(), action, ..before });
        }
        readings
    })
}

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    readings_by(0, 1)
}

fn any_config(kind: impl Strategy<Value = WindowKind>, unit: u64) -> impl Strategy<Value = WindowConfig> {
    let patience = prop_oneof![2 => Just(None), 1 => (0_u64..60).prop_map(Some)];
    (kind, 0_u64..30, 0_u64..40, patience).prop_map(move |(kind, lateness, revise, patience)| WindowConfig {
        lateness: seconds(lateness * unit),
        revise: match kind {
            WindowKind::Sliding(_) | WindowKind::Count(_) => Duration::ZERO,
            _ => seconds(revise / 2 * 2 * unit),
        },
        patience: patience.map(|patience| seconds(patience * unit)),
        ..WindowConfig::new(kind)
    })
}

/// With early results, and parts.
fn with_parts(config: impl Strategy<Value = WindowConfig>, unit: u64) -> impl Strategy<Value = WindowConfig> {
    let early = prop::option::of(1_u64..20);
    let readings_max = prop_oneof![2 => Just(u64::MAX), 1 => 1_u64..5];
    (config, early, readings_max).prop_map(move |(config, early, readings_max)| WindowConfig {
        early: early.map(|early| seconds(early * unit)),
        readings_max,
        ..config
    })
}

fn tumbling() -> impl Strategy<Value = (WindowConfig, Vec<Reading>)> {
    let kind = (1_u64..30, 0_u64..30).prop_map(|(size, offset)| {
        WindowKind::Tumbling(TumblingWindow { size: seconds(size), offset: seconds(offset % size) })
    });
    (with_parts(any_config(kind, 1), 1), readings())
}

/// Around the day in October that has 25 hours, by half hours.
fn days() -> impl Strategy<Value = (WindowConfig, Vec<Reading>)> {
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    (
        with_parts(any_config(Just(WindowKind::Day(DayWindow { zone })), 1_800), 1_800),
        readings_by(1_792_000_000, 1_800),
    )
}

fn hopping() -> impl Strategy<Value = (WindowConfig, Vec<Reading>)> {
    let kind = (1_u64..30, 1_u64..30, 0_u64..30).prop_map(|(size, slide, offset)| {
        let (size, slide) = (size.max(slide), size.min(slide));
        WindowKind::Hopping(HoppingWindow {
            size: seconds(size),
            slide: seconds(slide),
            offset: seconds(offset % slide),
        })
    });
    (any_config(kind, 1), readings())
}

fn sliding() -> impl Strategy<Value = (WindowConfig, Vec<Reading>)> {
    (
        any_config(
            (1_u64..40).prop_map(|size| WindowKind::Sliding(SlidingWindow { size: seconds(size) })),
            1,
        ),
        readings(),
    )
}

fn sessions() -> impl Strategy<Value = (WindowConfig, Vec<Reading>)> {
    let kind = (1_u64..15, prop::option::of(15_u64..60)).prop_map(|(gap, longest)| {
        WindowKind::Session(SessionWindow { gap: seconds(gap), longest: longest.map(seconds) })
    });
    let config = (any_config(kind, 1), prop::option::of(1_u64..20)).prop_map(|(config, early)| {
        // An early result of a session that was closed and is open again is a case of the table's.
        WindowConfig { early: early.filter(|_| config.revise.is_zero()).map(seconds), ..config }
    });
    (config, readings())
}

fn counts() -> impl Strategy<Value = (WindowConfig, Vec<Reading>)> {
    let kind = (1_u64..8, 1_u64..8).prop_map(|(one, other)| {
        WindowKind::Count(CountWindow { size: one.max(other), slide: one.min(other) })
    });
    let forget = prop_oneof![2 => Just(None), 1 => (1_u64..100).prop_map(|after| Some(seconds(after)))];
    let config = (any_config(kind, 1), forget).prop_map(|(config, forget)| WindowConfig { forget, ..config });
    (config, readings())
}

/// Whatever batches, commits, restarts and kills, and however little stays in memory, what comes of the
/// readings is the same to the last bit.
fn the_same(config: &WindowConfig, readings: &[Reading]) -> Result<run::Ran, TestCaseError> {
    let plain: Vec<_> = readings.iter().map(|reading| Reading { action: Action::None, ..*reading }).collect();
    let eager: Vec<_> =
        readings.iter().map(|reading| Reading { action: Action::Settle, ..*reading }).collect();
    let whole = run(config, &plain, usize::MAX);
    for (readings, kept_bytes) in [(&eager[..], usize::MAX), (readings, 0), (readings, 4_000)] {
        prop_assert_eq!(&whole, &run(config, readings, kept_bytes));
    }
    Ok(whole)
}

/// It is the same, and what is left of it is what the oracle says.
fn holds(config: &WindowConfig, readings: &[Reading]) -> Result<(), TestCaseError> {
    let ran = the_same(config, readings)?;
    let oracle = Oracle::replay(config, readings);
    prop_assert_eq!(ran.late, oracle.late);
    prop_assert_eq!(Collected::of(&ran.outcomes).readings(), oracle.windows);
    Ok(())
}

proptest! {
    #![proptest_config(property_config(CASES))]

    #[test]
    fn tumbling_windows_equal_the_oracle((config, readings) in tumbling()) {
        holds(&config, &readings)?;
    }

    #[test]
    fn days_equal_the_oracle((config, readings) in days()) {
        holds(&config, &readings)?;
    }

    #[test]
    fn hopping_windows_equal_the_oracle((config, readings) in hopping()) {
        holds(&config, &readings)?;
    }

    #[test]
    fn sliding_windows_equal_the_oracle((config, readings) in sliding()) {
        holds(&config, &readings)?;
    }

    #[test]
    fn sessions_equal_the_oracle((config, readings) in sessions()) {
        holds(&config, &readings)?;
    }

    #[test]
    fn count_windows_equal_the_oracle((config, readings) in counts()) {
        holds(&config, &readings)?;
    }

    /// No permutation within the lateness changes what is there in the end.
    #[test]
    fn the_order_of_readings_within_the_lateness_does_not_show(
        (readings, permuted) in readings().prop_flat_map(|readings| {
            let permuted = Just(readings.clone()).prop_shuffle();
            (Just(readings), permuted)
        }),
        kind in prop_oneof![
            Just(WindowKind::Tumbling(TumblingWindow { size: seconds(10), offset: Duration::ZERO })),
            Just(WindowKind::Hopping(HoppingWindow { size: seconds(20), slide: seconds(6), offset: seconds(2) })),
            Just(WindowKind::Sliding(SlidingWindow { size: seconds(15) })),
            Just(WindowKind::Session(SessionWindow { gap: seconds(7), longest: Some(seconds(40)) })),
            Just(WindowKind::Count(CountWindow { size: 3, slide: 2 })),
        ],
    ) {
        let lateness = seconds(10_000);
        let config = WindowConfig { lateness, ..WindowConfig::new(kind) };
        let (one, other) = [readings, permuted].map(|mut readings| {
            if let WindowKind::Count(_) = config.kind {
                // Those of one time are counted as they came, so there is but one.
                readings.iter_mut().for_each(|reading| reading.second = u64::from(reading.id) * 7 % 121);
            }
            readings.push(Reading { key: 9, second: 30_000, id: 65_000, action: Action::None });
            readings
        }).into();
        let one = Collected::of(&run(&config, &one, usize::MAX).outcomes).readings();
        let other = Collected::of(&run(&config, &other, 0).outcomes).readings();
        prop_assert_eq!(one, other);
    }
}
