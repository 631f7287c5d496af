use super::*;
use crate::{Closed, Group, Rejection, Updated};
use headwater_bundle::{HOSTILE_AGGREGATE_PATH, STATS_PATH};
use proptest::prelude::*;
use std::cell::RefCell;

fn group(key: &str, payloads: &[&str]) -> Group {
    let samples = payloads.iter().map(|payload| (Timestamp(1), payload.as_bytes().to_vec()));
    let start = Timestamp(0);
    let end = Timestamp(60_000_000);
    Group { key: key.to_owned(), start, end, state: Vec::new(), samples: samples.collect() }
}

fn closed(key: &str, state: Vec<u8>) -> Closed {
    let start = Timestamp(0);
    let end = Timestamp(60_000_000);
    Closed { key: key.to_owned(), start, end, state, count: 1, late: 0, revision: 0 }
}

fn hostile(what: &str) -> AggregateModule {
    aggregate(HOSTILE_AGGREGATE_PATH, &format!(r#"{{"do":"{what}"}}"#))
}

fn counted(count: u64) -> Vec<u8> {
    count.to_le_bytes().to_vec()
}

/// The one bad sample is refused with this reason, all others count.
#[track_caller]
fn check_update(what: &str, reason: &str) {
    let mut hostile = hostile(what);
    let mut groups =
        [group("a", &["1", "2"]), group("b", &["1", r#"{"bad":true}"#, "3"]), group("c", &["1"])];
    for round in 1..=2 {
        let updated = in_time(|| hostile.update(&groups));
        let states: Vec<_> = updated.iter().map(|updated| updated.state.clone()).collect();
        assert_eq!(states, [counted(2 * round), counted(2 * round), counted(round)], "{what}");
        let rejected = updated.iter().map(|updated| updated.rejected.len()).collect::<Vec<_>>();
        assert_eq!(rejected, [0, 1, 0], "{what}");
        let Rejection { index, reason: found } = &updated[1].rejected[0];
        assert_eq!(*index, 1, "{what}");
        assert!(found.contains(reason), "{what}: {found}");
        groups.iter_mut().zip(states).for_each(|(group, state)| group.state = state);
    }
}

#[test]
fn an_update_costs_the_bad_sample_alone() {
    check_update("update-panic", "hostile sample");
    check_update("update-error", "hostile batch");
    check_update("update-reject", "hostile sample");
    check_update("update-reject-other", "the module rejected input 77 of 1");
    check_update("update-answers", "the module gave 2 answers for 1 inputs");
    check_update("update-state", "output limit of 8388608 bytes reached");
}

#[test]
fn an_update_that_loops_ends_at_its_deadline() {
    check_update("update-loop", "deadline of 200ms passed");
}

#[track_caller]
fn check_finish(what: &str, expected: Result<&str, &str>) {
    let mut hostile = hostile(what);
    let windows = [closed("a", counted(1)), closed("bad", counted(2)), closed("c", counted(3))];
    let results = in_time(|| hostile.finish(&windows));
    assert_eq!(results.len(), 3, "{what}");
    assert_eq!(results[0], Ok(b"1".to_vec()), "{what}");
    assert_eq!(results[2], Ok(b"3".to_vec()), "{what}");
    match (&results[1], expected) {
        (Ok(found), Ok(expected)) => assert_eq!(str::from_utf8(found), Ok(expected), "{what}"),
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{what}: {found}"),
        (found, expected) => panic!("{what}: {found:?} instead of {expected:?}"),
    }
}

#[test]
fn a_window_without_a_result_does_not_cost_the_others() {
    check_finish("finish-panic", Err("hostile window"));
    check_finish("finish-error", Err("hostile windows"));
    check_finish("finish-answers", Err("the module gave 0 answers for 1 inputs"));
    check_finish("finish-text", Err("the module's result is not JSON: EOF"));
    check_finish("finish-deep", Err("recursion limit exceeded"));
}

#[test]
fn a_result_is_one_line() {
    check_finish("finish-lines", Ok("{ \"count\":  1}"));
}

#[test]
fn a_pair_that_cannot_be_merged_says_why() {
    assert_eq!(hostile("").merge(&counted(1), &counted(2)), Ok(counted(3)));
    assert_eq!(hostile("merge-error").merge(&[], &[]), Err("hostile pair".to_owned()));
    let panic = hostile("merge-panic").merge(&[], &[]).unwrap_err();
    assert!(panic.contains("hostile merge"), "{panic}");
}

#[test]
fn a_group_too_large_for_one_call_gets_one_answer() {
    let mut large = group("large", &["1"; 50_000]);
    large.samples[40_000].1 = br#"{"bad":true}"#.to_vec();
    let updated = hostile("update-reject").update(&[group("a", &["1"]), large]);
    assert_eq!(updated.len(), 2);
    assert_eq!(updated[0], Updated { state: counted(1), rejected: Vec::new() });
    assert_eq!(updated[1].state, counted(49_999));
    let rejected = Rejection { index: 40_000, reason: "hostile sample".to_owned() };
    assert_eq!(updated[1].rejected, [rejected]);
}

#[test]
fn stats_count_each_field_and_refuse_a_sample_with_none() {
    let mut stats = aggregate(STATS_PATH, r#"{"fields":["t","h"]}"#);
    let group = group("a", &[r#"{"t":1,"h":5}"#, r#"{"t":3}"#, r#"{"x":1}"#, r#"{"t":"1"}"#, "[", "{}"]);
    let updated = stats.update(&[group]).remove(0);
    let refused: Vec<_> = updated.rejected.iter().map(|one| (one.index, &*one.reason)).collect();
    let none = r#"no number in any of ["h", "t"]"#;
    let list = "not a JSON object: invalid type: sequence, expected an object at line 1 column 0";
    assert_eq!(refused, [(2, none), (3, none), (4, list), (5, none)]);
    let result = stats.finish(&[closed("a", updated.state)]).remove(0).unwrap();
    assert_eq!(
        str::from_utf8(&result).unwrap(),
        r#"{"h":{"count":1,"mean":5.0,"min":5.0,"max":5.0,"stddev":0.0},"t":{"count":2,"mean":2.0,"min":1.0,"max":3.0,"stddev":1.0}}"#
    );
}

thread_local! {
    static STATS: RefCell<AggregateModule> =
        RefCell::new(aggregate(STATS_PATH, r#"{"fields":["t"]}"#));
}

fn state(numbers: &[f64]) -> Vec<u8> {
    let payloads: Vec<_> = numbers.iter().map(|number| format!(r#"{{"t":{number:?}}}"#)).collect();
    let payloads: Vec<_> = payloads.iter().map(|payload| &**payload).collect();
    let updated = STATS.with_borrow_mut(|stats| stats.update(&[group("a", &payloads)]).remove(0));
    assert_eq!(updated.rejected, []);
    updated.state
}

fn merge(a: &[u8], b: &[u8]) -> Vec<u8> {
    STATS.with_borrow_mut(|stats| stats.merge(a, b)).unwrap()
}

/// Count, mean, minimum, maximum, standard deviation.
fn report(state: Vec<u8>) -> [f64; 5] {
    let result = STATS.with_borrow_mut(|stats| stats.finish(&[closed("a", state)]).remove(0));
    let result: serde_json::Value = serde_json::from_slice(&result.unwrap()).unwrap();
    ["count", "mean", "min", "max", "stddev"].map(|name| result["t"][name].as_f64().unwrap())
}

/// Computes the statistics in two passes, in the plainest way.
fn naive(numbers: &[f64]) -> [f64; 5] {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let min = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let max = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [count, mean, min, max, variance.sqrt()]
}

/// Compares up to a billionth of the largest magnitude among them.
#[track_caller]
fn assert_close(found: [f64; 5], expected: [f64; 5], scale: f64) {
    for (found, expected) in found.iter().zip(expected) {
        let apart = (found - expected).abs();
        assert!(apart <= 1e-9 * scale, "{found} instead of {expected}");
    }
}

proptest! {
    #![proptest_config(headwater_flow::testing::property_config(500))]

    #[test]
    fn stats_are_those_of_all_numbers_however_they_are_split(
        parts in prop::array::uniform3(prop::collection::vec(-1e6..1e6_f64, 1..40)),
    ) {
        let all = parts.concat();
        let expected = naive(&all);
        let scale = all.iter().fold(1.0_f64, |scale, x| scale.max(x.abs()));
        let [a, b, c] = parts.map(|part| state(&part));
        let left = merge(&merge(&a, &b), &c);
        let right = merge(&a, &merge(&b, &c));
        assert_close(report(state(&all)), expected, scale);
        assert_close(report(left), expected, scale);
        assert_close(report(right), expected, scale);
        prop_assert_eq!(state(&all), state(&all));
        prop_assert_eq!(merge(&a, &[]), a);
    }
}
