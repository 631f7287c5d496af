mod states;

use super::*;
use crate::{CollectorConfig, query, store as file};
use headwater_wire::{BatchKey, ParsedLate, ParsedLine, ParsedResult, ResultSpan, ResultState, WindowFacts};
use proptest::prelude::*;

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

fn open(folder: &tempfile::TempDir) -> (Connection, CollectorConfig) {
    let config = CollectorConfig::new(folder.path().join("new/folder/collector.db"));
    (file::open(&config).unwrap(), config)
}

fn batch(first: u64, lines: Vec<ParsedLine>) -> ReceivedBatch {
    let last = first + lines.len() as u64 - 1;
    let key = BatchKey { agent: "a".into(), epoch: EPOCH.parse().unwrap(), first, last };
    let digest = crate::batch::digest(format!("{lines:?}").as_bytes());
    ReceivedBatch { key, digest, lines }
}

fn window(key: &str, start: i64, revision: u32, count: i64) -> ParsedLine {
    let window = WindowFacts {
        start,
        end: start + 10,
        part: 0,
        revision,
        state: ResultState::Closed,
        watermark: None,
        count,
        late: 1,
        rejected: 2,
    };
    let value = format!("{{\"revision\":{revision},\"count\":{count}}}");
    let module = Some("sha256:00".into());
    ParsedLine::Result(ParsedResult {
        pipeline: "p".into(),
        key: key.into(),
        span: ResultSpan::Window(window),
        module,
        value,
    })
}

fn event(time: i64, value: &str) -> ParsedLine {
    let span = ResultSpan::Event(time);
    ParsedLine::Result(ParsedResult {
        pipeline: "e".into(),
        key: "k".into(),
        span,
        module: None,
        value: value.into(),
    })
}

fn values(store: &Connection) -> Vec<String> {
    let all = query::ResultQuery { limit: 1000, ..<_>::default() };
    let page = query::results(store, &all, usize::MAX).unwrap();
    page.results.iter().map(|row| row.value.get().to_owned()).collect()
}

#[test]
fn a_lower_or_equal_revision_that_comes_later_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut connection, _) = open(&folder);
    for (first, line) in [
        window("k", 0, 1, 11),
        window("k", 0, 0, 99),
        window("k", 0, 1, 98),
        window("k", 0, 3, 30),
        window("k", 0, 2, 97),
    ]
    .into_iter()
    .enumerate()
    {
        store_batch(&mut connection, &batch(first as u64, vec![line]), 1).unwrap();
    }
    assert_eq!(values(&connection), [r#"{"revision":3,"count":30}"#]);
    let sums = query::totals(&connection, None, None).unwrap()[0].sums;
    assert_eq!((sums.results, sums.readings, sums.replaced, sums.ignored), (1, 30, 1, 3));
    assert_eq!((sums.late, sums.rejected), (1, 2));
}

#[test]
fn revisions_of_one_window_in_one_batch_leave_the_highest() {
    let folder = tempfile::tempdir().unwrap();
    let (mut connection, _) = open(&folder);
    let lines = vec![window("k", 0, 0, 1), window("k", 0, 2, 3), window("k", 0, 1, 2)];
    store_batch(&mut connection, &batch(0, lines), 1).unwrap();
    assert_eq!(values(&connection), [r#"{"revision":2,"count":3}"#]);
}

#[test]
fn another_result_under_a_stored_sequence_number_stores_nothing_of_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (mut connection, _) = open(&folder);
    store_batch(&mut connection, &batch(3, vec![event(5, "1")]), 1).unwrap();
    // A batch under another key with the same result, as after the outbox has made its batches smaller.
    store_batch(&mut connection, &batch(3, vec![event(5, "1"), event(6, "2")]), 1).unwrap();
    let conflict = batch(2, vec![event(4, "0"), event(5, "one")]);
    let error = store_batch(&mut connection, &conflict, 1).unwrap_err();
    assert!(matches!(error, CommitError::Sequence { line: 2 }), "{error}");
    assert_eq!(values(&connection), ["1", "2"]);
    let sums = query::totals(&connection, None, Some("e")).unwrap()[0].sums;
    assert_eq!((sums.events, sums.ignored), (2, 1));
}

#[test]
fn the_watermark_waits_for_the_gap_to_close() {
    let folder = tempfile::tempdir().unwrap();
    let (mut connection, _) = open(&folder);
    let mut watermark = |first: u64, n: usize| {
        let lines = (0..n).map(|i| event(first as i64 + i as i64, "1")).collect();
        store_batch(&mut connection, &batch(first, lines), 1).unwrap().watermark
    };
    assert_eq!(watermark(5, 5), None);
    assert_eq!(watermark(0, 2), Some(1));
    assert_eq!(watermark(12, 1), Some(1));
    assert_eq!(watermark(2, 3), Some(9));
    assert_eq!(watermark(10, 2), Some(12));
}

#[test]
fn a_full_store_is_not_a_broken_one_and_stores_no_half_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = CollectorConfig::new(folder.path().join("c.db"));
    config.store_bytes_max = 256 << 10;
    let mut connection = file::open(&config).unwrap();
    let mut stored = 0;
    let error = loop {
        let lines = (0..50).map(|i| event(i, &format!("\"{}\"", "x".repeat(200)))).collect();
        match store_batch(&mut connection, &batch(stored * 50, lines), 1) {
            Ok(_) => stored += 1,
            Err(error) => break classify(error),
        }
        assert!(stored < 1000, "the limit has no effect");
    };
    assert!(matches!(error, CommitError::Full(_)), "{error}");
    assert_eq!(values(&connection).len() as u64, (stored * 50).min(1000));
    let agents = query::agents(&connection, "", 10).unwrap();
    assert_eq!(agents[0].epochs[0].lines, stored * 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Checks for any lines in any order, however often they are sent, that the store holds the first
    /// line of the highest revision of each window, and that the sums are those of the stored lines.
    #[test]
    fn equals_a_naive_oracle(
        sent in prop::collection::vec((0u8..3, 0i64..4, 0u32..4, 0i64..100), 1..40),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut connection, _) = open(&folder);
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let batches: Vec<_> = sent
            .iter()
            .enumerate()
            .map(|(seq, &(key, start, revision, count))| {
                batch(seq as u64, vec![window(&format!("k{key}"), start * 10, revision, count)])
            })
            .collect();
        let mut oracle = std::collections::BTreeMap::new();
        for (sent, batch) in sent.iter().zip(&batches) {
            store_batch(&mut connection, batch, 1).unwrap();
            let &(key, start, revision, count) = sent;
            let best = oracle.entry((start, key)).or_insert((revision, count));
            if revision > best.0 {
                *best = (revision, count);
            }
        }
        for index in again {
            prop_assert!(store_batch(&mut connection, &batches[index.index(batches.len())], 1).unwrap().duplicate);
        }
        let mut expected: Vec<_> = oracle
            .values()
            .map(|(revision, count)| format!("{{\"revision\":{revision},\"count\":{count}}}"))
            .collect();
        let mut found = values(&connection);
        expected.sort();
        found.sort();
        prop_assert_eq!(found, expected);
        let sums = query::totals(&connection, None, None).unwrap()[0].sums;
        prop_assert_eq!(sums.results, oracle.len() as u64);
        prop_assert_eq!(sums.readings as i64, oracle.values().map(|(_, count)| count).sum::<i64>());
        prop_assert_eq!(sums.late, oracle.len() as u64);
        prop_assert_eq!(sums.results + sums.replaced + sums.ignored, sent.len() as u64);
    }
}

#[test]
fn late_readings_are_kept_apart_from_results_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut connection, _) = open(&folder);
    let late = |value: &str| {
        ParsedLine::Late(ParsedLate {
            pipeline: "p".into(),
            key: "k".into(),
            topic: "plant/k".into(),
            time: 5,
            module: None,
            value: value.into(),
        })
    };
    store_batch(&mut connection, &batch(0, vec![window("k", 0, 0, 10), late("1"), late("1")]), 1).unwrap();
    // The same reading in a batch with other bounds, as after a 413.
    store_batch(&mut connection, &batch(1, vec![late("1")]), 1).unwrap();
    let other = store_batch(&mut connection, &batch(2, vec![late("2"), late("3")]), 1);
    assert!(matches!(other, Err(CommitError::Sequence { line: 1 })), "{other:?}");
    let sums = query::totals(&connection, None, None).unwrap()[0].sums;
    let expected = query::ResultSums {
        results: 1,
        readings: 10,
        late: 1,
        rejected: 2,
        late_readings: 2,
        ignored: 1,
        ..query::ResultSums::default()
    };
    assert_eq!(sums, expected);
    assert_eq!(values(&connection).len(), 1, "none of them is a result");
    let found = |key: &str, after, bytes_max| {
        let query = query::LateQuery { key: Some(key.to_owned()), after, limit: 10, ..<_>::default() };
        query::late(&connection, &query, bytes_max).unwrap().len()
    };
    assert_eq!(found("k", 0, usize::MAX), 2);
    assert_eq!(found("k", 1, usize::MAX), 1);
    assert_eq!(found("k", 0, 1), 1);
    assert_eq!(found("j", 0, 9), 0);
}
