//! Parts, early results and retractions: in any order they give the same results and sums.

use super::*;
use query::{ResultOrder, ResultQuery, ResultSums};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn temporary() -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let (connection, _) = open(&folder);
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    (folder, connection)
}

/// Returns a result of the window (start, end, part) with `count` readings, one of them late, and one
/// rejected.
fn result((start, end, part): (i64, i64, u32), revision: u32, state: ResultState, count: i64) -> ParsedLine {
    let [count, late, rejected] = if state == ResultState::Retracted { [0; 3] } else { [count, 1, 1] };
    let watermark = Some(i64::from(revision));
    let window = WindowFacts { start, end, part, revision, state, watermark, count, late, rejected };
    let value = if state == ResultState::Retracted { "null".into() } else { count.to_string() };
    let span = ResultSpan::Window(window);
    ParsedLine::Result(ParsedResult { pipeline: "p".into(), key: "k".into(), span, module: None, value })
}

/// Returns the results (on which all orders must agree), the retracted windows, and the sums.
fn query_all(store: &Connection) -> (Vec<String>, Vec<String>, ResultSums) {
    let page = |order, key: Option<&str>| {
        let [agent, pipeline] = ["a", "p"].map(|name| key.map(|_| name.to_owned()));
        let key = key.map(str::to_owned);
        let query = ResultQuery { order, agent, pipeline, key, limit: 1000, ..<_>::default() };
        query::results(store, &query, usize::MAX).unwrap()
    };
    let text = |row: Value| {
        let mut row = row;
        row.as_object_mut().unwrap().remove("change");
        row.to_string()
    };
    let sorted = |page: &query::ResultPage| {
        let rows = page.results.iter().map(|row| text(serde_json::to_value(row).unwrap()));
        rows.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let changes = page(ResultOrder::Change, None);
    let results = sorted(&changes);
    assert_eq!(results.len(), changes.results.len(), "a result is there twice");
    for (order, key) in
        [(ResultOrder::Oldest, None), (ResultOrder::Latest, None), (ResultOrder::Oldest, Some("k"))]
    {
        let page = page(order, key);
        assert_eq!((sorted(&page), page.retracted.len()), (results.clone(), 0), "{order:?} {key:?}");
    }
    let retracted = changes.retracted.iter().map(|row| text(serde_json::to_value(row).unwrap()));
    let sums = query::totals(store, None, None).unwrap()[0].sums;
    (results, retracted.collect::<BTreeSet<_>>().into_iter().collect(), sums)
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(n - 1);
    (0..n)
        .flat_map(|at| {
            shorter.iter().map(move |rest| {
                let mut order = rest.clone();
                order.insert(at, n - 1);
                order
            })
        })
        .collect()
}

/// Stores the lines in every order, each line a batch, and checks the values, and the sums as
/// [results, early, retracted, readings, late, rejected].
#[track_caller]
fn check(lines: &[ParsedLine], values: &[&str], sums: [u64; 6]) {
    for order in permutations(lines.len()) {
        let (_folder, mut connection) = temporary();
        for &index in &order {
            store_batch(&mut connection, &batch(index as u64, vec![lines[index].clone()]), 1).unwrap();
        }
        let mut found = super::values(&connection);
        let mut expected: Vec<_> = values.iter().map(ToString::to_string).collect();
        // Results with the same start come in the order of their arrival.
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{order:?}");
        let (_, _, found) = query_all(&connection);
        let counted = found.results + found.retracted + found.replaced + found.ignored;
        assert_eq!(counted, lines.len() as u64, "{order:?}: each line is counted");
        let found = [found.results, found.early, found.retracted, found.readings, found.late, found.rejected];
        assert_eq!(found, sums, "{order:?}");
    }
}

const WINDOW: (i64, i64, u32) = (0, 10, 0);

#[test]
fn parts_of_a_window_are_results_of_their_own() {
    let part = |part, revision, count| result((0, 10, part), revision, ResultState::Closed, count);
    let lines = [part(0, 0, 3), part(1, 0, 4), part(2, 0, 5), part(1, 1, 6)];
    check(&lines, &["3", "6", "5"], [3, 0, 0, 14, 3, 3]);
}

#[test]
fn an_early_result_counts_until_a_later_revision_takes_its_place() {
    let of = |revision, state, count| result(WINDOW, revision, state, count);
    let early = [of(0, ResultState::Early, 2), of(1, ResultState::Early, 3)];
    check(&early, &["3"], [1, 1, 0, 3, 1, 1]);
    let closed = [of(0, ResultState::Early, 2), of(1, ResultState::Early, 3), of(2, ResultState::Closed, 4)];
    check(&closed, &["4"], [1, 0, 0, 4, 1, 1]);
}

#[test]
fn a_retraction_withdraws_its_result_in_either_order() {
    let of = |revision, state| result(WINDOW, revision, state, 7);
    check(&[of(0, ResultState::Closed), of(1, ResultState::Retracted)], &[], [0, 0, 1, 0, 0, 0]);
    check(&[of(1, ResultState::Retracted)], &[], [0, 0, 1, 0, 0, 0]);
    check(
        &[of(0, ResultState::Early), of(1, ResultState::Early), of(2, ResultState::Retracted)],
        &[],
        [0, 0, 1, 0, 0, 0],
    );
    let before = [of(0, ResultState::Closed), of(1, ResultState::Closed), of(2, ResultState::Retracted)];
    check(&before, &[], [0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_window_comes_back_with_a_revision_above_its_retraction() {
    let of = |revision, state, count| result(WINDOW, revision, state, count);
    let lines =
        [of(0, ResultState::Closed, 1), of(1, ResultState::Retracted, 0), of(2, ResultState::Closed, 3)];
    check(&lines, &["3"], [1, 0, 0, 3, 1, 1]);
}

#[test]
fn merged_sessions_leave_the_one_that_they_became() {
    let session = |start, end, revision, state, count| result((start, end, 0), revision, state, count);
    let lines = [
        session(0, 10, 0, ResultState::Closed, 3),
        session(12, 20, 0, ResultState::Closed, 4),
        session(0, 10, 1, ResultState::Retracted, 0),
        session(12, 20, 1, ResultState::Retracted, 0),
        session(0, 20, 0, ResultState::Closed, 8),
    ];
    check(&lines, &["8"], [1, 0, 2, 8, 1, 1]);
}

#[test]
fn an_old_retraction_that_comes_again_under_another_key_withdraws_nothing() {
    let (_folder, mut connection) = temporary();
    let of = |revision, state, count| result(WINDOW, revision, state, count);
    let lines =
        vec![of(0, ResultState::Closed, 1), of(1, ResultState::Retracted, 0), of(2, ResultState::Closed, 3)];
    store_batch(&mut connection, &batch(0, lines.clone()), 1).unwrap();
    store_batch(&mut connection, &batch(0, lines[..2].to_vec()), 1).unwrap();
    store_batch(&mut connection, &batch(1, lines[1..2].to_vec()), 1).unwrap();
    let (results, retracted, sums) = query_all(&connection);
    assert_eq!((results.len(), retracted.len()), (1, 0));
    assert_eq!((sums.readings, sums.retracted, sums.ignored), (3, 0, 3));
}

/// A window as (start, end, part), with state and count of each of its revisions.
type WindowHistory = ((i64, i64, u32), Vec<(ResultState, i64)>);

fn window_histories() -> impl Strategy<Value = Vec<WindowHistory>> {
    let state =
        prop_oneof![Just(ResultState::Closed), Just(ResultState::Early), Just(ResultState::Retracted)];
    let window = (0i64..3, 1i64..3, 0u32..2).prop_map(|(start, length, part)| (start, start + length, part));
    let revisions = prop::collection::vec((state, 0i64..100), 1..5);
    let windows = prop::collection::btree_map(window, revisions, 1..7);
    windows.prop_map(|windows: BTreeMap<_, _>| windows.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Checks that in any order, in whole batches or line by line, and however often they are sent, the
    /// results are the last revision of each window, and the sums are those of the results.
    #[test]
    fn any_order_and_repetition_gives_the_same_results_and_sums(
        histories in window_histories(),
        size in 1usize..5,
        sent in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..30),
    ) {
        let lines: Vec<ParsedLine> = histories
            .iter()
            .flat_map(|(window, revisions)| {
                let revisions = revisions.iter().zip(0..);
                revisions.map(|(&(state, count), revision)| result(*window, revision, state, count))
            })
            .collect();
        let batches: Vec<_> = lines.chunks(size).enumerate()
            .map(|(at, lines)| batch((at * size) as u64, lines.to_vec()))
            .collect();
        let (_folder, mut in_order) = temporary();
        for batch in &batches {
            store_batch(&mut in_order, batch, 1).unwrap();
        }
        let (_folder, mut connection) = temporary();
        let mut applied = 0;
        let mut send = |batch: &ReceivedBatch| {
            let receipt = store_batch(&mut connection, batch, 1).unwrap();
            applied += if receipt.duplicate { 0 } else { batch.lines.len() as u64 };
        };
        for (index, narrowed) in sent {
            let chosen = &batches[index.index(batches.len())];
            if narrowed {
                for (seq, line) in (chosen.key.first..=chosen.key.last).rev().zip(chosen.lines.iter().rev()) {
                    send(&batch(seq, vec![line.clone()]));
                }
            } else {
                send(chosen);
            }
        }
        batches.iter().rev().for_each(&mut send);

        let (results, retracted, sums) = query_all(&connection);
        let (results_in_order, retracted_in_order, sums_in_order) = query_all(&in_order);
        prop_assert_eq!(&results, &results_in_order);
        prop_assert_eq!(&retracted, &retracted_in_order);
        let stored = |sums: ResultSums| ResultSums { replaced: 0, ignored: 0, ..sums };
        prop_assert_eq!(stored(sums), stored(sums_in_order));

        let last = |wanted: fn(ResultState) -> bool| {
            let last = histories.iter().filter_map(|(_, revisions)| revisions.last());
            last.filter(move |(state, _)| wanted(*state))
        };
        let counted = last(|state| state != ResultState::Retracted).map(|(_, count)| *count);
        prop_assert_eq!(sums.readings as i64, counted.clone().sum::<i64>());
        prop_assert_eq!([sums.results, sums.late, sums.rejected], [counted.count() as u64; 3]);
        prop_assert_eq!(sums.early, last(|state| state == ResultState::Early).count() as u64);
        prop_assert_eq!(sums.retracted, last(|state| state == ResultState::Retracted).count() as u64);
        prop_assert_eq!((results.len(), retracted.len()), (sums.results as usize, sums.retracted as usize));
        prop_assert_eq!(sums.results + sums.retracted + sums.replaced + sums.ignored, applied);
    }
}
