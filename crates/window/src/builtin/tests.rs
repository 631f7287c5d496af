//! Tables here; laws and oracles in their files.

use super::*;
use headwater_flow::Timestamp;
use serde_json::json;

mod laws;
mod oracle;
mod speed;

const START: u64 = 1_700_000_040_000_000;
const SECOND: u64 = 1_000_000;

/// Event time in seconds after the window's start, and the payload.
type Reading<'a> = (f64, &'a str);

fn of(function: AggregateFunction, field: &str) -> ComputedMember {
    ComputedMember::new(function, Some(field.split('.').map(str::to_owned).collect()))
}

fn count() -> ComputedMember {
    ComputedMember::new(AggregateFunction::Count, None)
}

fn quantile(at: &[f64], error: f64) -> AggregateFunction {
    AggregateFunction::Quantile { at: at.to_vec(), error }
}

fn top(k: usize) -> AggregateFunction {
    AggregateFunction::Top { k, counters: counters(k) }
}

fn histogram() -> AggregateFunction {
    AggregateFunction::Histogram { bounds: vec![-10.0, 0.0, 10.0] }
}

fn builtin(compute: Vec<ComputedMember>) -> BuiltinAggregate {
    BuiltinAggregate::new(&BuiltinConfig { compute })
}

/// Every function, of the field `x`.
fn all() -> Vec<ComputedMember> {
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
        quantile(&[0.0, 0.5, 0.999, 1.0], 0.01),
        AggregateFunction::Distinct,
        top(3),
        histogram(),
        AggregateFunction::TimeMean { disorder: DISORDER },
    ];
    functions.into_iter().map(|function| of(function, "x")).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn group(state: Vec<u8>, readings: &[Reading<'_>]) -> Group {
    let time = |seconds: f64| Timestamp(START + (seconds * 1e6) as u64);
    Group {
        key: "k".into(),
        start: Timestamp(START),
        end: Timestamp(START + 60 * SECOND),
        state,
        samples: readings.iter().map(|(at, payload)| (time(*at), payload.as_bytes().to_vec())).collect(),
    }
}

fn closed(state: Vec<u8>) -> Closed {
    let (start, end) = (Timestamp(START), Timestamp(START + 60 * SECOND));
    Closed { key: "k".into(), start, end, state, count: 0, late: 0, revision: 0 }
}

fn text(builtin: &mut BuiltinAggregate, state: Vec<u8>) -> String {
    String::from_utf8(builtin.finish(&[closed(state)]).remove(0).unwrap()).unwrap()
}

/// The result as it stands in the line, and what was refused.
fn run(compute: Vec<ComputedMember>, readings: &[Reading<'_>]) -> (String, Vec<(usize, String)>) {
    let mut builtin = builtin(compute);
    let updated = builtin.update(&[group(Vec::new(), readings)]).remove(0);
    let rejected = updated.rejected.into_iter().map(|one| (one.index, one.reason)).collect();
    (text(&mut builtin, updated.state), rejected)
}

#[track_caller]
fn check(compute: ComputedMember, readings: &[Reading<'_>], expected: serde_json::Value) {
    let name = compute.name.clone();
    let (text, rejected) = run(vec![compute], readings);
    assert_eq!(rejected, []);
    let result: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result[&name], expected, "{text}");
}

#[test]
fn each_function_says_what_its_name_says() {
    let readings = [(0.0, r#"{"x":1}"#), (10.0, r#"{"x":3}"#), (40.0, r#"{"x":8}"#), (50.0, r#"{"x":8}"#)];
    let check = |function, expected| check(of(function, "x"), &readings, expected);
    check(AggregateFunction::Count, json!(4));
    check(AggregateFunction::Sum, json!(20));
    check(AggregateFunction::Mean, json!(5));
    check(AggregateFunction::Min, json!(1));
    check(AggregateFunction::Max, json!(8));
    check(AggregateFunction::Variance, json!(9.5));
    check(AggregateFunction::VarianceSample, json!(38.0 / 3.0));
    check(AggregateFunction::Stddev, json!(9.5_f64.sqrt()));
    check(AggregateFunction::StddevSample, json!((38.0_f64 / 3.0).sqrt()));
    check(AggregateFunction::First, json!(1));
    check(AggregateFunction::Last, json!(8));
    check(AggregateFunction::Delta, json!(7));
    check(AggregateFunction::Rate, json!(0.14));
    check(quantile(&[0.0, 1.0], 0.01), json!({"p0": 1, "p100": 8}));
    check(AggregateFunction::Distinct, json!(3));
    check(
        top(2),
        json!([{"value": 8, "count": 2, "count_max": 2}, {"value": 1, "count": 1, "count_max": 1}]),
    );
    check(
        AggregateFunction::Histogram { bounds: vec![1.0, 3.0, 7.0] },
        json!({"bounds": [1, 3, 7], "counts": [1, 1, 0, 2]}),
    );
    // 1 for 10 s, 3 for 30 s, 8 for 10 s and to the end for another 10 s.
    check(AggregateFunction::TimeMean { disorder: 0 }, json!((10.0 + 90.0 + 160.0) / 60.0));
}

#[test]
fn several_functions_and_fields_make_one_flat_object() {
    let compute = vec![
        count(),
        of(AggregateFunction::Mean, "temperature"),
        of(AggregateFunction::Max, "wind.speed"),
        ComputedMember { name: "gust \"x\"".into(), ..of(AggregateFunction::Last, "wind.speed") },
        of(quantile(&[0.5, 0.999, 0.07], 0.01), "temperature"),
    ];
    let readings = [
        (1.0, r#"{"temperature":20.5,"wind":{"speed":3,"from":[1,{"speed":9}]},"speed":99}"#),
        (2.0, r#"{"wind":{"speed":5}}"#),
        (3.0, r#"{"temperature":20.5,"wind":null}"#),
    ];
    let (text, rejected) = run(compute, &readings);
    assert_eq!(rejected, []);
    assert_eq!(
        text,
        r#"{"count":3,"mean_temperature":20.5,"max_wind_speed":5,"gust \"x\"":5,"quantile_temperature":{"p50":20.5,"p99.9":20.5,"p7":20.5}}"#
    );
}

#[test]
fn ends_are_those_of_event_time() {
    let readings = [(5.0, r#"{"x":5}"#), (9.0, r#"{"x":9}"#), (2.0, r#"{"x":2}"#), (7.0, r#"{"x":7}"#)];
    check(of(AggregateFunction::First, "x"), &readings, json!(2));
    check(of(AggregateFunction::Last, "x"), &readings, json!(9));
    check(of(AggregateFunction::Rate, "x"), &readings, json!(1));
    let ties = [(3.0, r#"{"x":1}"#), (3.0, r#"{"x":2}"#), (3.0, r#"{"x":3}"#)];
    check(of(AggregateFunction::First, "x"), &ties, json!(1));
    check(of(AggregateFunction::Last, "x"), &ties, json!(3));
    check(of(AggregateFunction::Delta, "x"), &ties, json!(2));
    check(of(AggregateFunction::Rate, "x"), &ties, json!(null));
    // A reset is not guessed at.
    check(of(AggregateFunction::Delta, "x"), &[(1.0, r#"{"x":90}"#), (2.0, r#"{"x":4}"#)], json!(-86));
}

#[test]
fn a_mean_by_time_weighs_each_value_until_the_next() {
    let hold = |disorder| of(AggregateFunction::TimeMean { disorder }, "x");
    // Nothing is known of the time before the first reading.
    check(hold(16), &[(30.0, r#"{"x":4}"#)], json!(4));
    check(hold(16), &[(30.0, r#"{"x":4}"#), (45.0, r#"{"x":8}"#)], json!(6));
    // Out of order, and a second reading at one time.
    let readings = [(45.0, r#"{"x":1}"#), (30.0, r#"{"x":4}"#), (45.0, r#"{"x":8}"#)];
    check(hold(16), &readings, json!(6));
    check(hold(0), &[(60.0, r#"{"x":4}"#)], json!(4));
    // With no place for a reading that was overtaken it changes nothing.
    let readings = [(0.0, r#"{"x":1}"#), (20.0, r#"{"x":1}"#), (40.0, r#"{"x":1}"#), (10.0, r#"{"x":7}"#)];
    check(hold(0), &readings, json!(1));
    check(hold(3), &readings, json!(2));
}

#[test]
fn what_a_field_lacks_or_holds_decides_who_uses_the_reading() {
    let compute = || vec![count(), of(AggregateFunction::Sum, "a"), of(AggregateFunction::Distinct, "b")];
    let run = |payload: &str| run(compute(), &[(1.0, payload)]);
    let used = |payload: &str, expected: &str| assert_eq!(run(payload), (expected.to_owned(), vec![]));
    used(r#"{"a":1,"b":"x"}"#, r#"{"count":1,"sum_a":1,"distinct_b":1}"#);
    used(r#"{"a":1}"#, r#"{"count":1,"sum_a":1,"distinct_b":0}"#);
    used(r#"{"a":null,"b":false}"#, r#"{"count":1,"sum_a":null,"distinct_b":1}"#);
    used(
        r#"{"a":9007199254740992,"b":18446744073709551615}"#,
        r#"{"count":1,"sum_a":9007199254740992,"distinct_b":1}"#,
    );
    let refused = |payload: &str, expected: &str| {
        let (text, rejected) = run(payload);
        assert_eq!(text, r#"{"count":0,"sum_a":null,"distinct_b":0}"#, "{payload}");
        assert!(rejected[0].1.contains(expected), "{expected} in {}", rejected[0].1);
    };
    refused(r#"{"c":1}"#, "none of the fields that are aggregated: `a`, `b`");
    refused(r#"{"a":null}"#, "none of the fields");
    refused("21.5", "none of the fields");
    refused(r#"{"a":"NaN","b":1}"#, "field `a` is text, and `sum` takes numbers");
    refused(r#"{"a":true}"#, "field `a` is a boolean, and `sum` takes numbers");
    refused(r#"{"a":[1]}"#, "field `a` is a list");
    refused(r#"{"a":{"b":1}}"#, "field `a` is an object");
    refused(r#"{"a":1,"b":[1]}"#, "field `b` is a list, and `distinct` takes numbers, booleans and texts");
    refused(r#"{"a":9007199254740993}"#, "field `a` is 9007199254740993, beyond 2^53");
    refused(r#"{"a":-9007199254740993}"#, "field `a` is -9007199254740993, beyond 2^53");
    refused(r#"{"a":1,"a":2}"#, "stands there twice");
    refused(r#"{"a":1e999}"#, "failed to read the payload as JSON");
    refused(r#"{"a":1"#, "failed to read the payload as JSON");
    refused(r#"{"a":NaN}"#, "failed to read the payload as JSON");
}

#[test]
fn a_count_alone_takes_every_reading() {
    check(count(), &[(1.0, "{}"), (2.0, "[]"), (3.0, "null")], json!(3));
    check(of(AggregateFunction::Count, "a"), &[(1.0, r#"{"a":[]}"#), (2.0, r#"{"a":0}"#)], json!(2));
}

#[test]
fn a_payload_that_is_no_object_is_its_own_value() {
    check(
        of(AggregateFunction::Sum, "value"),
        &[(1.0, "21.5"), (2.0, r#"{"value":1}"#), (3.0, "-2")],
        json!(20.5),
    );
    check(of(AggregateFunction::Distinct, "value"), &[(1.0, r#""on""#), (2.0, r#""off""#)], json!(2));
    let (_, rejected) = run(vec![of(AggregateFunction::Sum, "value")], &[(1.0, "[1]"), (2.0, "null")]);
    assert!(
        rejected[0].1.contains("field `value` is a list") && rejected[1].1.contains("none of the fields")
    );
}

#[test]
fn results_are_json_at_the_edges_of_doubles() {
    let sum = |readings: &[Reading<'_>]| run(vec![of(AggregateFunction::Sum, "x")], readings).0;
    assert_eq!(sum(&[(1.0, r#"{"x":1e308}"#), (2.0, r#"{"x":1e308}"#)]), r#"{"sum_x":null}"#);
    assert_eq!(sum(&[(1.0, r#"{"x":-0.0}"#)]), r#"{"sum_x":0}"#);
    assert_eq!(sum(&[(1.0, r#"{"x":0.1}"#), (2.0, r#"{"x":0.2}"#)]), r#"{"sum_x":0.30000000000000004}"#);
    assert_eq!(sum(&[(1.0, r#"{"x":1e16}"#)]), r#"{"sum_x":1e+16}"#);
    assert_eq!(sum(&[(1.0, r#"{"x":5e-324}"#)]), r#"{"sum_x":5e-324}"#);
    // What plain addition loses.
    let lost = [(1.0, r#"{"x":1}"#), (2.0, r#"{"x":1e100}"#), (3.0, r#"{"x":1}"#), (4.0, r#"{"x":-1e100}"#)];
    assert_eq!(sum(&lost), r#"{"sum_x":2}"#);
    let huge = [(1.0, r#"{"x":1.7e308}"#), (2.0, r#"{"x":-1.7e308}"#), (3.0, r#"{"x":4e-310}"#)];
    let result: serde_json::Value = serde_json::from_str(&run(all(), &huge).0).unwrap();
    assert_eq!((&result["variance_x"], &result["delta_x"]), (&json!(null), &json!(-1.7e308)));
}

#[test]
fn nothing_of_a_field_is_null_and_no_count() {
    let mut compute = all();
    compute.push(count());
    let (text, _) = run(compute, &[]);
    let result: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, value) in result.as_object().unwrap() {
        let expected = match name.as_str() {
            "count" | "count_x" | "distinct_x" => json!(0),
            "top_x" => json!([]),
            "quantile_x" => json!({"p0": null, "p50": null, "p99.9": null, "p100": null}),
            "histogram_x" => json!({"bounds": [-10, 0, 10], "counts": [0, 0, 0, 0]}),
            _ => json!(null),
        };
        assert_eq!(*value, expected, "{name}");
    }
    check(of(AggregateFunction::VarianceSample, "x"), &[(1.0, r#"{"x":1}"#)], json!(null));
    check(of(AggregateFunction::Variance, "x"), &[(1.0, r#"{"x":1}"#)], json!(0));
}

#[test]
fn what_is_too_long_to_be_counted_is_refused() {
    let long = format!(r#"{{"x":"{}"}}"#, "é".repeat(65));
    let (_, rejected) = run(vec![of(top(1), "x")], &[(1.0, &long)]);
    assert!(rejected[0].1.contains("texts of up to 128 bytes"), "{rejected:?}");
    check(of(AggregateFunction::Distinct, "x"), &[(1.0, &long)], json!(1));
}

#[test]
fn states_are_small() {
    let readings: Vec<Reading<'_>> =
        (0..60).map(|second| (f64::from(second), r#"{"x":21.5,"y":3}"#)).collect();
    let bytes = |compute: Vec<ComputedMember>| {
        builtin(compute).update(&[group(Vec::new(), &readings)]).remove(0).state.len()
    };
    assert_eq!(bytes(vec![count()]), 1 + 5 + 1);
    assert_eq!(bytes(vec![count(), of(AggregateFunction::Mean, "x")]), 29);
    // What functions share is there once.
    let shared = vec![of(AggregateFunction::Mean, "x"), of(AggregateFunction::Sum, "x")];
    assert_eq!(bytes(shared), bytes(vec![of(AggregateFunction::Mean, "x")]));
    assert!(bytes(vec![of(AggregateFunction::TimeMean { disorder: DISORDER }, "x")]) < 300);
}

#[test]
fn a_changed_configuration_goes_on_with_what_is_there() {
    let mut before = builtin(vec![of(AggregateFunction::Sum, "x"), count(), of(quantile(&[0.5], 0.01), "x")]);
    let state = before.update(&[group(Vec::new(), &[(1.0, r#"{"x":2}"#)])]).remove(0).state;
    let mut after = builtin(vec![
        of(AggregateFunction::Max, "x"),
        count(),
        ComputedMember { name: "average".into(), ..of(AggregateFunction::Mean, "x") },
        of(quantile(&[0.5], 0.02), "x"),
        of(AggregateFunction::Sum, "y"),
    ]);
    let state = after.update(&[group(state, &[(2.0, r#"{"x":4}"#)])]).remove(0).state;
    let result: serde_json::Value = serde_json::from_str(&text(&mut after, state)).unwrap();
    assert_eq!(
        result,
        json!({"max_x": 4, "count": 2, "average": 3, "quantile_x": {"p50": 4}, "sum_y": null})
    );
    assert_ne!(before.digest(), after.digest());
    assert_eq!(builtin(vec![count()]).digest(), "builtin:4be3f581a199c013");
}

#[test]
fn a_garbled_state_is_told_in_words() {
    let mut builtin = builtin(vec![count()]);
    for state in [vec![2], vec![1, 0], vec![1, 0, 0, 0, 0, 9], b"nonsense".to_vec()] {
        let reason = builtin.finish(&[closed(state.clone())]).remove(0).unwrap_err();
        assert!(reason.contains("cannot be read"), "{reason}");
        assert!(builtin.merge(&state, &[]).is_err());
        let updated = builtin.update(&[group(state.clone(), &[(1.0, "{}")])]).remove(0);
        assert_eq!((updated.state, updated.rejected.len()), (state, 1), "it is kept as it was");
    }
}

#[test]
fn bytes_that_no_part_could_have_written_are_refused() {
    let whole = |numbers: &[u64]| {
        let mut bytes = Vec::new();
        numbers.iter().for_each(|number| put_whole(&mut bytes, *number));
        bytes
    };
    let extremes = [0; 16].to_vec();
    let refused =
        |kind: &PartKind, bytes: Vec<u8>| assert!(kind.decode(&bytes).is_none(), "{kind:?} {bytes:?}");
    let bins = &output::kinds(&quantile(&[0.5], 0.01))[0];
    refused(bins, [extremes.clone(), whole(&[1, u64::MAX, 1])].concat());
    refused(bins, [extremes.clone(), whole(&[2, 1, 1, 0, 1])].concat());
    refused(bins, [extremes, whole(&[1, 1, 0])].concat());
    let hold = &PartKind::Hold { disorder: 4 };
    let reading = [whole(&[2, u64::MAX, 0]), vec![0; 8], whole(&[1, 0]), vec![0; 8]].concat();
    refused(hold, reading);
    refused(hold, [whole(&[1, u64::MAX, 1]), vec![0; 16]].concat());
    refused(&PartKind::Distinct, vec![66; 4096]);
    refused(&PartKind::Distinct, [2_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat());
    refused(
        &PartKind::Top { counters: 4 },
        [whole(&[3, 2, 1]), b"2".to_vec(), whole(&[1, 1]), b"1".to_vec(), whole(&[1])].concat(),
    );
    refused(&PartKind::Top { counters: 4 }, [whole(&[1, 1, 1]), b"2".to_vec(), whole(&[2])].concat());
    refused(&PartKind::Count, vec![0xff; 10]);
}
