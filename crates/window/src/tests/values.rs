//! What windows of each kind come to, by built-ins and by a module: as computed from the readings that the
//! oracle has in each.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::run::run_with;
use super::*;
use crate::builtin::{self, AggregateFunction, BuiltinAggregate, ComputedMember, counters};
use headwater_host::{self as module, ModuleHost, ModuleLimits};

/// Relative error of quantiles.
const ERROR: f64 = 0.01;
const AT: [(&str, f64); 3] = [("p10", 0.1), ("p50", 0.5), ("p100", 1.0)];
const TOP: usize = 3;

/// Every function of the field `x`.
fn built_ins() -> BuiltinAggregate {
    let at = AT.map(|(_, at)| at).to_vec();
    let functions = [
        AggregateFunction::Count,
        AggregateFunction::Sum,
        AggregateFunction::Mean,
        AggregateFunction::Min,
        AggregateFunction::Max,
        AggregateFunction::Variance,
        AggregateFunction::VarianceSample,
        AggregateFunction::Stddev,
        AggregateFunction::StddevSample,
        AggregateFunction::First,
        AggregateFunction::Last,
        AggregateFunction::Delta,
        AggregateFunction::Rate,
        AggregateFunction::Quantile { at, error: ERROR },
        AggregateFunction::Distinct,
        AggregateFunction::Top { k: TOP, counters: counters(TOP) },
        AggregateFunction::Histogram { bounds: vec![-2.0, 0.0, 2.0] },
        // As many as there are readings, so that none is too late for it.
        AggregateFunction::TimeMean { disorder: 256 },
    ];
    let compute = functions.map(|function| ComputedMember::new(function, Some(vec!["x".to_owned()])));
    BuiltinAggregate::new(&builtin::BuiltinConfig { compute: compute.to_vec() })
}

/// `stats.wasm` of the field `x`.
fn stats() -> module::AggregateModule {
    let limits = ModuleLimits { deadline: Duration::from_secs(60), ..ModuleLimits::default() };
    let (path, settings) = (Path::new(headwater_bundle::STATS_PATH), r#"{"fields":["x"]}"#);
    ModuleHost::new(None)
        .unwrap()
        .aggregate(path, settings, &limits, &module::CallMetrics::default())
        .unwrap()
}

thread_local! {
    static BUILT_INS: RefCell<BuiltinAggregate> = RefCell::new(built_ins());
    static STATS: RefCell<module::AggregateModule> = RefCell::new(stats());
}

/// Equal for what comes twice, and else now and then.
fn value(reading: &Reading) -> f64 {
    f64::from(u16::try_from((reading.second * 31 + u64::from(reading.key) * 17) % 61).unwrap()) / 8.0 - 3.5
}

fn payload(reading: &Reading) -> Vec<u8> {
    json!({ "x": value(reading) }).to_string().into_bytes()
}

/// Bit for bit the same however it was batched, interrupted and kept, and with the values of the oracle's
/// readings in every window of the oracle's.
fn holds(
    aggregate: &mut dyn Aggregate,
    check: fn(&[(u64, f64)], u64, &Value),
    config: &WindowConfig,
    readings: &[Reading],
) -> Result<(), TestCaseError> {
    let plain: Vec<_> = readings.iter().map(|reading| Reading { action: Action::None, ..*reading }).collect();
    let ran = run_with(aggregate, payload, config, &plain, usize::MAX);
    prop_assert_eq!(&ran, &run_with(aggregate, payload, config, readings, 0));
    let mut expected = Oracle::replay(config, readings).windows;
    for (place, outcome) in Collected::of(&ran.outcomes).0 {
        let (ids, late) = expected.remove(&place).unwrap_or_default();
        prop_assert_eq!((outcome.count, outcome.late), (ids.len() as u64, late), "{:?}", place);
        let mut inside: Vec<_> = ids.iter().map(|id| &readings[usize::from(*id)]).collect();
        // Stable: those of one time stay as they came.
        inside.sort_by_key(|reading| reading.second);
        let inside: Vec<_> = inside.iter().map(|it| (it.second * SECOND, value(it))).collect();
        check(&inside, outcome.end.0, &serde_json::from_slice(&outcome.value.unwrap()).unwrap());
    }
    prop_assert_eq!(expected, BTreeMap::new(), "windows that are missing");
    Ok(())
}

#[track_caller]
fn close(found: &Value, expected: f64, inside: &[(u64, f64)]) {
    let near = found.as_f64().is_some_and(|found| (found - expected).abs() <= 1e-9 * expected.abs().max(1.0));
    assert!(near, "{found} for {expected} of {inside:?}");
}

/// Count, mean, minimum, maximum and standard deviation, and the sum of squares.
fn moments(inside: &[(u64, f64)]) -> ([f64; 5], f64) {
    let values: Vec<f64> = inside.iter().map(|(_, value)| *value).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    ([count, mean, min, max, (squares / count).sqrt()], squares)
}

fn check_module(inside: &[(u64, f64)], _: u64, found: &Value) {
    let names = ["count", "mean", "min", "max", "stddev"];
    for (name, expected) in names.into_iter().zip(moments(inside).0) {
        close(&found["x"][name], expected, inside);
    }
}

fn check_built_ins(inside: &[(u64, f64)], end: u64, found: &Value) {
    let ([count, mean, min, max, stddev], squares) = moments(inside);
    let close = |name: &str, expected| close(&found[name], expected, inside);
    for (name, expected) in [("count_x", count), ("mean_x", mean), ("min_x", min), ("max_x", max)] {
        close(name, expected);
    }
    close("sum_x", mean * count);
    close("variance_x", squares / count);
    close("stddev_x", stddev);
    if count > 1.0 {
        close("variance_sample_x", squares / (count - 1.0));
        close("stddev_sample_x", (squares / (count - 1.0)).sqrt());
    } else {
        assert!(found["variance_sample_x"].is_null() && found["stddev_sample_x"].is_null(), "{found}");
    }
    let (first, last) = (inside[0], inside[inside.len() - 1]);
    close("first_x", first.1);
    close("last_x", last.1);
    close("delta_x", last.1 - first.1);
    if last.0 > first.0 {
        close("rate_x", (last.1 - first.1) / ((last.0 - first.0) as f64 / 1e6));
    } else {
        assert!(found["rate_x"].is_null(), "{found}");
    }
    close("time_mean_x", time_mean(inside, end));
    check_sorts(inside, found);
}

/// Each value holds until the next reading of another time; of those of one time the last to come.
fn time_mean(inside: &[(u64, f64)], end: u64) -> f64 {
    let points: BTreeMap<u64, f64> = inside.iter().copied().collect();
    let ends: Vec<u64> = points.keys().copied().skip(1).chain([end]).collect();
    let area: f64 = points.iter().zip(&ends).map(|((at, value), end)| value * (end - at) as f64).sum();
    area / (end - inside[0].0) as f64
}

/// What goes by how often there are which values.
fn check_sorts(inside: &[(u64, f64)], found: &Value) {
    let mut sorted: Vec<f64> = inside.iter().map(|(_, value)| *value).collect();
    sorted.sort_by(f64::total_cmp);
    for (name, q) in AT {
        let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
        let found = found["quantile_x"][name].as_f64().unwrap();
        assert!((found - exact).abs() <= exact.abs() * ERROR * (1.0 + 1e-9), "{name} is {found} for {exact}");
    }
    let below = |bound: f64| sorted.iter().filter(|value| **value <= bound).count();
    let counts = [below(-2.0), below(0.0) - below(-2.0), below(2.0) - below(0.0), sorted.len() - below(2.0)];
    assert_eq!(found["histogram_x"]["counts"], json!(counts));
    let distinct: BTreeSet<u64> = sorted.iter().map(|value| value.to_bits()).collect();
    assert_eq!(found["distinct_x"], distinct.len());
    let often = |value: f64| sorted.iter().filter(|other| **other == value).count() as u64;
    let mut most: Vec<u64> = distinct.iter().map(|bits| often(f64::from_bits(*bits))).collect();
    most.sort_by(|a, b| b.cmp(a));
    most.truncate(TOP);
    let top = found["top_x"].as_array().unwrap();
    assert_eq!(top.iter().map(|item| item["count"].as_u64().unwrap()).collect::<Vec<_>>(), most, "{found}");
    for item in top {
        let (value, count) = (item["value"].as_f64().unwrap(), item["count"].as_u64().unwrap());
        assert_eq!((often(value), &item["count_max"]), (count, &item["count"]), "{found}");
    }
}

fn built_ins_hold((config, readings): &(WindowConfig, Vec<Reading>)) -> Result<(), TestCaseError> {
    BUILT_INS.with_borrow_mut(|built_ins| holds(built_ins, check_built_ins, config, readings))
}

fn module_holds((config, readings): &(WindowConfig, Vec<Reading>)) -> Result<(), TestCaseError> {
    STATS.with_borrow_mut(|module| holds(module, check_module, config, readings))
}

proptest! {
    #![proptest_config(property_config(CASES))]

    #[test]
    fn built_ins_over_tumbling_windows_equal_the_oracle(case in tumbling()) {
        built_ins_hold(&case)?;
    }

    #[test]
    fn built_ins_over_days_equal_the_oracle(case in days()) {
        built_ins_hold(&case)?;
    }

    #[test]
    fn built_ins_over_hopping_windows_equal_the_oracle(case in hopping()) {
        built_ins_hold(&case)?;
    }

    #[test]
    fn built_ins_over_sliding_windows_equal_the_oracle(case in sliding()) {
        built_ins_hold(&case)?;
    }

    #[test]
    fn built_ins_over_sessions_equal_the_oracle(case in sessions()) {
        built_ins_hold(&case)?;
    }

    #[test]
    fn built_ins_over_count_windows_equal_the_oracle(case in counts()) {
        built_ins_hold(&case)?;
    }

    #[test]
    fn a_module_over_tumbling_windows_equals_the_oracle(case in tumbling()) {
        module_holds(&case)?;
    }

    #[test]
    fn a_module_over_days_equals_the_oracle(case in days()) {
        module_holds(&case)?;
    }

    #[test]
    fn a_module_over_hopping_windows_equals_the_oracle(case in hopping()) {
        module_holds(&case)?;
    }

    #[test]
    fn a_module_over_sliding_windows_equals_the_oracle(case in sliding()) {
        module_holds(&case)?;
    }

    #[test]
    fn a_module_over_sessions_equals_the_oracle(case in sessions()) {
        module_holds(&case)?;
    }

    #[test]
    fn a_module_over_count_windows_equals_the_oracle(case in counts()) {
        module_holds(&case)?;
    }
}
