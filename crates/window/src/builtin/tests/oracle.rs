//! Every function against what is computed from all readings at once, and the errors that are stated.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use headwater_flow::testing::property_config;

fn result(compute: Vec<ComputedMember>, readings: &[(u64, f64)]) -> serde_json::Value {
    let mut builtin = builtin(compute);
    let samples = readings
        .iter()
        .map(|(time, value)| (Timestamp(START + time), format!(r#"{{"x":{value:?}}}"#).into_bytes()));
    let group = Group { samples: samples.collect(), ..group(Vec::new(), &[]) };
    let updated = builtin.update(&[group]).remove(0);
    assert_eq!(updated.rejected, []);
    serde_json::from_str(&text(&mut builtin, updated.state)).unwrap()
}

/// Within so many units of what the sizes involved can resolve.
#[track_caller]
fn close(found: &serde_json::Value, expected: f64, scale: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() <= 1e-12 * scale, "{found} for {expected}");
}

/// Exact for what it is used for: pairwise over sorted sizes.
fn exact_sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    while values.len() > 1 {
        values = values.chunks(2).map(|pair| pair.iter().sum()).collect();
    }
    values.first().copied().unwrap_or_default()
}

/// Time-weighted from all readings in order.
#[expect(clippy::cast_precision_loss, reason = "small")]
fn held(readings: &[(u64, f64)]) -> f64 {
    let points: BTreeMap<u64, f64> = readings.iter().copied().collect();
    let times: Vec<u64> = points.keys().copied().chain([60 * SECOND]).collect();
    let area = points.values().zip(times.windows(2)).map(|(value, span)| value * (span[1] - span[0]) as f64);
    exact_sum(area) / (60 * SECOND - times[0]) as f64
}

proptest! {
    #![proptest_config(property_config(500))]

    #[test]
    fn every_function_equals_a_plain_computation(
        readings in prop::collection::vec((0..59 * SECOND, -1000.0..1000.0_f64), 2..40),
    ) {
        let mut compute = all();
        compute.push(ComputedMember { name: "held".into(), ..of(AggregateFunction::TimeMean { disorder: 64 }, "x") });
        let found = result(compute, &readings);
        let values: Vec<f64> = readings.iter().map(|reading| reading.1).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        let mean = exact_sum(values.iter().copied()) / count;
        let squares = exact_sum(values.iter().map(|value| (value - mean).powi(2)));
        assert_eq!(found["count_x"], values.len());
        close(&found["sum_x"], mean * count, 1e3 * count);
        close(&found["mean_x"], mean, 1e3);
        close(&found["variance_x"], squares / count, 1e6);
        close(&found["variance_sample_x"], squares / (count - 1.0), 1e6);
        close(&found["stddev_sample_x"], (squares / (count - 1.0)).sqrt(), 1e6);
        assert_eq!(found["min_x"], json!(sorted[0]));
        assert_eq!(found["max_x"], json!(sorted[sorted.len() - 1]));
        let first = readings.iter().min_by_key(|reading| reading.0).unwrap();
        let last = readings.iter().max_by_key(|reading| reading.0).unwrap();
        assert_eq!(found["first_x"], json!(first.1));
        assert_eq!(found["last_x"], json!(last.1));
        assert_eq!(found["delta_x"].as_f64().unwrap(), last.1 - first.1);
        if last.0 > first.0 {
            close(&found["rate_x"], (last.1 - first.1) / ((last.0 - first.0) as f64 / 1e6), 1e9);
        }
        let distinct: BTreeSet<u64> = values.iter().map(|value| value.to_bits()).collect();
        assert_eq!(found["distinct_x"], distinct.len());
        let below = |bound: f64| values.iter().filter(|value| **value <= bound).count();
        let counts = [below(-10.0), below(0.0) - below(-10.0), below(10.0) - below(0.0), values.len() - below(10.0)];
        assert_eq!(found["histogram_x"]["counts"], json!(counts));
        close(&found["held"], held(&readings), 1e3 * count);
    }

    #[test]
    fn quantiles_are_within_their_error(
        values in prop::collection::vec(prop_oneof![-1e6..1e6_f64, -1.0..1.0_f64, 0.0..1e-6_f64, Just(0.0)], 1..300),
        q in 0.0..1.0_f64,
        error in prop::sample::select(vec![0.001, 0.01, 0.05]),
    ) {
        let readings: Vec<_> = values.iter().map(|value| (0, *value)).collect();
        let found = result(vec![of(quantile(&[q], error), "x")], &readings);
        let found = found["quantile_x"].as_object().unwrap().values().next().unwrap().as_f64().unwrap();
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
        let allowed = exact.abs() * error * (1.0 + 1e-9) + 1e-9;
        prop_assert!((found - exact).abs() <= allowed, "{found} for {exact}");
    }

    #[test]
    fn no_count_of_the_top_is_too_high_nor_too_low(
        values in prop::collection::vec(prop_oneof![0..4_u32, 0..400_u32], 1..2000),
    ) {
        let readings: Vec<_> = values.iter().map(|value| (0, f64::from(*value))).collect();
        let counters = 16;
        let found = result(vec![of(AggregateFunction::Top { k: 8, counters }, "x")], &readings);
        let mut exact = BTreeMap::<u32, u64>::new();
        values.iter().for_each(|value| *exact.entry(*value).or_default() += 1);
        for item in found["top_x"].as_array().unwrap() {
            let truth = exact[&(item["value"].as_u64().unwrap() as u32)];
            let (count, most) = (item["count"].as_u64().unwrap(), item["count_max"].as_u64().unwrap());
            prop_assert!((count..=most).contains(&truth), "{item} of {truth}");
            prop_assert!(most - count <= values.len() as u64 / (counters as u64 + 1));
        }
    }
}

#[test]
fn distinct_is_exact_to_256_and_then_within_its_error() {
    let found = |count: u32| {
        let readings: Vec<_> = (0..count).flat_map(|n| [(0, f64::from(n)), (1, f64::from(n))]).collect();
        result(vec![of(AggregateFunction::Distinct, "x")], &readings)["distinct_x"].as_f64().unwrap()
    };
    for count in [1, 2, 100, 255, 256] {
        assert_eq!(found(count), f64::from(count));
    }
    // Three standard errors of 1.6 %; that it is no more on the whole than one, over all of them.
    let errors: Vec<f64> = [257, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000]
        .map(|count| found(count) / f64::from(count) - 1.0)
        .to_vec();
    assert!(errors.iter().all(|error| error.abs() < 0.049), "{errors:?}");
    let mean_square = errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64;
    assert!(mean_square.sqrt() < 0.0163 * 1.5, "{errors:?}");
}

#[test]
fn sketches_of_distinct_values_merge_as_if_all_had_come_to_one() {
    let of = |numbers: std::ops::Range<u32>| {
        let mut sketch = distinct::DistinctValues::default();
        numbers.for_each(|n| sketch.add(distinct::hash(n.to_string().as_bytes())));
        sketch
    };
    let whole = of(0..5_000).count();
    for (a, b) in [(0..3_000, 2_000..5_000), (0..100, 50..5_000), (0..4_990, 4_980..5_000)] {
        let (a, b) = (of(a), of(b));
        let (mut left, mut right) = (a.clone(), b.clone());
        left.merge(&b);
        right.merge(&a);
        assert_eq!((left.count(), right.count()), (whole, whole));
    }
}

#[test]
fn a_value_that_is_frequent_enough_is_among_the_top_whenever_it_comes() {
    let others = (0..1000).map(|n| (0, f64::from(n)));
    let readings: Vec<_> = others.chain((0..200).map(|_| (1, -1.0))).collect();
    let found = result(vec![of(AggregateFunction::Top { k: 1, counters: 16 }, "x")], &readings);
    assert_eq!(found["top_x"][0]["value"], -1, "{found}");
}

#[test]
fn a_hash_is_the_same_in_every_process() {
    let hashes = ["1", "\"a\"", "true"].map(|json| distinct::hash(json.as_bytes()));
    assert_eq!(hashes, [14_871_141_024_336_893_441, 3_949_704_496_160_154_204, 806_227_783_840_092_482]);
}

#[test]
fn more_bins_than_are_kept_cost_the_lowest_quantiles_alone() {
    let readings: Vec<_> = (0..20_000).map(|n| (0, 1e-8 * 1.002_f64.powi(n))).collect();
    let at = [0.1, 0.95];
    let found = result(vec![of(quantile(&at, 0.001), "x")], &readings);
    let exact = |q: f64| readings[(q * 19_999.0) as usize].1;
    let error = |name: &str, q: f64| found["quantile_x"][name].as_f64().unwrap() / exact(q) - 1.0;
    assert!(error("p95", 0.95).abs() < 0.001 && error("p10", 0.1).abs() > 0.5, "{found}");
    let mut builtin = builtin(vec![of(quantile(&at, 0.001), "x")]);
    let payloads: Vec<_> = readings.iter().map(|(_, x)| format!(r#"{{"x":{x:?}}}"#)).collect();
    let readings: Vec<_> = payloads.iter().map(|payload| (0.0, payload.as_str())).collect();
    assert!(builtin.update(&[group(Vec::new(), &readings)])[0].state.len() < 10_000);
}
