//! What holds for every aggregate.

use proptest::prelude::*;

use super::*;
use headwater_flow::testing::property_config;

/// Payloads of every sort, most of them good.
fn payload() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (-1e3..1e3_f64).prop_map(|x| format!(r#"{{"x":{x:?}}}"#)),
        6 => (-20..20_i32).prop_map(|x| format!(r#"{{"y":1,"x":{x}}}"#)),
        1 => Just(r#"{"x":null,"y":2}"#.to_owned()),
        1 => Just(r#"{"x":"text"}"#.to_owned()),
        1 => Just("{}".to_owned()),
        1 => (-1e300..1e300_f64).prop_map(|x| format!(r#"{{"x":{x:?}}}"#)),
    ]
}

fn readings(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(f64, String)>> {
    prop::collection::vec(((0..60_u32).prop_map(f64::from), payload()), size)
}

/// Every function of `x`, some of `y`, some with few places.
fn many() -> BuiltinAggregate {
    let mut compute = all();
    compute.extend([
        count(),
        of(AggregateFunction::Mean, "y"),
        of(AggregateFunction::TimeMean { disorder: 2 }, "y"),
    ]);
    compute.push(of(AggregateFunction::Top { k: 2, counters: 3 }, "x"));
    builtin(compute)
}

fn update(builtin: &mut BuiltinAggregate, state: Vec<u8>, readings: &[(f64, String)]) -> (Vec<u8>, usize) {
    let readings: Vec<Reading<'_>> = readings.iter().map(|(at, payload)| (*at, payload.as_str())).collect();
    let updated = builtin.update(&[group(state, &readings)]).remove(0);
    (updated.state, updated.rejected.len())
}

fn merge(builtin: &mut BuiltinAggregate, a: &[u8], b: &[u8]) -> Vec<u8> {
    builtin.merge(a, b).unwrap()
}

fn result(builtin: &mut BuiltinAggregate, state: &[u8]) -> serde_json::Value {
    serde_json::from_str(&text(builtin, state.to_vec())).unwrap()
}

const EXACT: [&str; 11] = [
    "count",
    "count_x",
    "min_x",
    "max_x",
    "first_x",
    "last_x",
    "delta_x",
    "rate_x",
    "quantile_x",
    "distinct_x",
    "histogram_x",
];
const ROUNDED: [&str; 7] =
    ["sum_x", "mean_x", "mean_y", "variance_x", "variance_sample_x", "stddev_x", "stddev_sample_x"];

#[track_caller]
fn same(a: &serde_json::Value, b: &serde_json::Value) {
    for name in EXACT {
        assert_eq!(a[name], b[name], "{name} of\n{a}\n{b}");
    }
}

/// For values up to a thousand.
#[track_caller]
fn close(a: &serde_json::Value, b: &serde_json::Value, names: &[&str]) {
    for name in names {
        let (Some(x), Some(y)) = (a[name].as_f64(), b[name].as_f64()) else {
            assert_eq!(a[name], b[name], "{name}");
            continue;
        };
        assert!((x - y).abs() <= 1e-5, "{name}: {x} and {y}");
    }
}

fn small(readings: &[(f64, String)]) -> bool {
    let huge = |payload: &str| {
        let value: serde_json::Value = serde_json::from_str(payload).unwrap();
        value["x"].as_f64().is_some_and(|x| x.abs() > 1e3)
    };
    !readings.iter().any(|(_, payload)| huge(payload))
}

proptest! {
    #![proptest_config(property_config(500))]

    #[test]
    fn batching_does_not_show(readings in readings(0..80), cuts in prop::collection::vec(0..80_usize, 0..4)) {
        let mut builtin = many();
        let whole = update(&mut builtin, Vec::new(), &readings);
        let mut single = (Vec::new(), 0);
        for reading in &readings {
            let (state, rejected) = update(&mut builtin, single.0, std::slice::from_ref(reading));
            single = (state, single.1 + rejected);
        }
        prop_assert_eq!(&whole, &single);
        let (mut parts, mut rest, mut cuts) = ((Vec::new(), 0), readings.as_slice(), cuts);
        cuts.sort_unstable();
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            let (state, rejected) = update(&mut builtin, parts.0, now);
            (parts, rest) = ((state, parts.1 + rejected), later);
        }
        let (state, rejected) = update(&mut builtin, parts.0, rest);
        prop_assert_eq!(whole, (state, parts.1 + rejected));
    }

    #[test]
    fn merging_is_as_if_all_had_come_to_one(a in readings(0..200), b in readings(0..200)) {
        let mut builtin = many();
        let (left, right) = (update(&mut builtin, Vec::new(), &a).0, update(&mut builtin, Vec::new(), &b).0);
        let merged = merge(&mut builtin, &left, &right);
        let both = update(&mut builtin, Vec::new(), &[a.clone(), b.clone()].concat()).0;
        let (merged, both) = (result(&mut builtin, &merged), result(&mut builtin, &both));
        same(&merged, &both);
        if small(&a) && small(&b) {
            close(&merged, &both, &ROUNDED);
        }
    }

    #[test]
    fn merging_is_associative_and_the_empty_state_neutral(
        a in readings(0..60), b in readings(0..60), c in readings(0..60),
    ) {
        let mut builtin = many();
        let [a_, b_, c_] = [&a, &b, &c].map(|readings| update(&mut builtin, Vec::new(), readings).0);
        let (ab, bc) = (merge(&mut builtin, &a_, &b_), merge(&mut builtin, &b_, &c_));
        let (left, right) = (merge(&mut builtin, &ab, &c_), merge(&mut builtin, &a_, &bc));
        let (left, right) = (result(&mut builtin, &left), result(&mut builtin, &right));
        same(&left, &right);
        if [&a, &b, &c].iter().all(|readings| small(readings)) {
            close(&left, &right, &ROUNDED);
        }
        prop_assert_eq!(&merge(&mut builtin, &a_, &[]), &a_);
        prop_assert_eq!(&merge(&mut builtin, &[], &a_), &a_);
    }

    #[test]
    fn means_by_time_merge_along_time(mut readings in readings(0..120), cuts in (0..120_usize, 0..120_usize)) {
        readings.retain(|(_, payload)| payload.starts_with(r#"{"y""#));
        readings.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut builtin = many();
        let (low, high) = (cuts.0.min(cuts.1).min(readings.len()), cuts.0.max(cuts.1).min(readings.len()));
        let parts = [&readings[..low], &readings[low..high], &readings[high..]];
        let [a, b, c] = parts.map(|readings| update(&mut builtin, Vec::new(), readings).0);
        let (ab, bc) = (merge(&mut builtin, &a, &b), merge(&mut builtin, &b, &c));
        let whole = update(&mut builtin, Vec::new(), &readings).0;
        let whole = result(&mut builtin, &whole);
        for merged in [merge(&mut builtin, &ab, &c), merge(&mut builtin, &a, &bc)] {
            let merged = result(&mut builtin, &merged);
            close(&merged, &whole, &["time_mean_x", "time_mean_y"]);
        }
    }

    #[test]
    fn no_bytes_of_a_state_make_it_panic(
        readings in readings(1..40),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut builtin = many();
        let (good, _) = update(&mut builtin, Vec::new(), &readings);
        let mut flipped = good.clone();
        if !flipped.is_empty() {
            flips.iter().for_each(|(at, byte)| *at.get_mut(&mut flipped) = *byte);
        }
        let cut = good[..cut.index(good.len() + 1)].to_vec();
        for state in [flipped, cut, noise.clone(), [vec![1], noise].concat()] {
            let finished = builtin.finish(&[closed(state.clone())]).remove(0);
            if let Ok(result) = finished {
                let value: serde_json::Value = serde_json::from_slice(&result).unwrap();
                prop_assert!(value.is_object());
            }
            let merged = [builtin.merge(&state, &good), builtin.merge(&good, &state)];
            for merged in merged.into_iter().flatten() {
                builtin.finish(&[closed(merged)]);
            }
            update(&mut builtin, state, &readings);
        }
    }
}
