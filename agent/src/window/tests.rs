use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::module::Rejection;

/// Adds up payloads of one byte; refuses 255; cannot finish a sum of 13.
struct Sum;

impl Aggregate for Sum {
    fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        groups.iter().map(update).collect()
    }

    fn finish(&mut self, windows: &[Closed]) -> Vec<Result<Vec<u8>, String>> {
        windows.iter().map(|window| finish(&window.state)).collect()
    }
}

fn update(group: &Group) -> Updated {
    let mut sum = sum_of(&group.state);
    let mut rejected = Vec::new();
    for (index, (_, payload)) in group.samples.iter().enumerate() {
        match payload[0] {
            255 => rejected.push(Rejection { index, reason: "255".into() }),
            number => sum += u64::from(number),
        }
    }
    Updated { state: sum.to_le_bytes().to_vec(), rejected }
}

fn finish(state: &[u8]) -> Result<Vec<u8>, String> {
    match sum_of(state) {
        13 => Err("unlucky".into()),
        sum => Ok(sum.to_string().into_bytes()),
    }
}

fn sum_of(state: &[u8]) -> u64 {
    state.try_into().map_or(0, u64::from_le_bytes)
}

const SECOND: u64 = 1_000_000;

fn config(lateness: u64, revise: u64) -> Config {
    Config {
        tumbling: Duration::from_secs(10),
        lateness: Duration::from_secs(lateness),
        idle: Some(Duration::from_secs(30)),
        revise: Duration::from_secs(revise),
    }
}

/// Feeds readings of (key, second, number), settling as the pipeline does.
fn feed(windows: &mut Windows, readings: &[(&str, u64, u8)]) -> (Vec<Outcome>, u64) {
    let (mut outcomes, mut late) = (Vec::new(), 0);
    for &(key, second, number) in readings {
        match windows.observe(key, Timestamp(second * SECOND), vec![number]) {
            Fate::Used => {}
            Fate::Late => late += 1,
            Fate::Lost => panic!("nothing was lost"),
        }
        if windows.due() {
            outcomes.extend(windows.settle(&mut Sum).outcomes);
        }
    }
    (outcomes, late)
}

fn summary(outcomes: &[Outcome]) -> Vec<(String, u64, u32, u64, u64, String)> {
    let line = |outcome: &Outcome| {
        let value = match &outcome.value {
            Ok(json) => String::from_utf8(json.clone()).unwrap(),
            Err((reason, _)) => reason.clone(),
        };
        let start = outcome.start.0 / SECOND;
        (outcome.key.clone(), start, outcome.revision, outcome.count, outcome.late, value)
    };
    outcomes.iter().map(line).collect()
}

#[test]
fn a_window_closes_when_the_watermark_reaches_its_end() {
    let mut windows = Windows::new(config(5, 0));
    let (outcomes, late) = feed(&mut windows, &[("a", 1, 1), ("b", 9, 2), ("a", 14, 4), ("a", 9, 8)]);
    assert_eq!((outcomes.len(), late), (0, 0), "14 s - 5 s has not reached 10 s");
    let (outcomes, late) = feed(&mut windows, &[("a", 15, 16), ("a", 9, 32)]);
    let expected = vec![("a".into(), 0, 0, 2, 0, "9".into()), ("b".into(), 0, 0, 1, 0, "2".into())];
    assert_eq!((summary(&outcomes), late), (expected, 1));
    assert_eq!(windows.open(), 1);
}

#[test]
fn a_late_reading_revises_a_window_that_is_kept() {
    let mut windows = Windows::new(config(0, 10));
    let (outcomes, late) =
        feed(&mut windows, &[("a", 1, 1), ("a", 12, 2), ("a", 5, 4), ("b", 6, 8), ("a", 20, 1), ("a", 7, 9)]);
    let expected = vec![
        ("a".into(), 0, 0, 1, 0, "1".into()),
        ("a".into(), 0, 1, 2, 1, "5".into()),
        ("b".into(), 0, 0, 1, 1, "8".into()),
        ("a".into(), 10, 0, 1, 0, "2".into()),
    ];
    assert_eq!((summary(&outcomes), late), (expected, 1));
}

#[test]
fn the_watermark_goes_on_at_the_pace_of_the_clock_when_idle() {
    let mut windows = Windows::new(config(5, 0));
    feed(&mut windows, &[("a", 1, 1)]);
    windows.idle(Duration::from_secs(13));
    assert!(!windows.due(), "idle is counted from 30 s on");
    windows.idle(Duration::from_secs(31));
    assert_eq!(windows.watermark(), Timestamp(27 * SECOND));
    assert!(windows.due());
    assert_eq!(windows.settle(&mut Sum).outcomes.len(), 1);
    windows.idle(Duration::from_secs(30));
    assert_eq!(windows.watermark(), Timestamp(27 * SECOND), "never backwards");
}

#[test]
fn what_the_aggregate_refuses_or_cannot_finish_is_named() {
    let mut windows = Windows::new(config(0, 0));
    for number in [13, 255] {
        windows.observe("a", Timestamp(SECOND), vec![number]);
    }
    windows.observe("b", Timestamp(SECOND), vec![255]);
    windows.observe("a", Timestamp(10 * SECOND), vec![1]);
    let settled = windows.settle(&mut Sum);
    assert_eq!((settled.used, settled.refused.len()), (2, 2));
    assert_eq!(settled.outcomes.len(), 1, "a window without a used reading has no result");
    assert_eq!(settled.outcomes[0].value, Err(("unlucky".into(), 13_u64.to_le_bytes().to_vec())));
    assert_eq!(settled.outcomes[0].rejected, 1);
}

/// Per (window start, key) the numbers of the used readings, by a plain replay.
fn oracle(
    readings: &[(u8, u64, u8)],
    lateness: u64,
    revise: u64,
) -> (BTreeMap<(u64, String), Vec<u8>>, u64, u64) {
    let (mut used, mut late, mut watermark) = (BTreeMap::<_, Vec<u8>>::new(), 0, 0);
    for &(key, second, number) in readings {
        let start = second / 10 * 10;
        if start + 10 + revise <= watermark {
            late += 1;
            continue;
        }
        used.entry((start, key.to_string())).or_default().push(number);
        watermark = watermark.max(second.saturating_sub(lateness));
    }
    (used, late, watermark)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_equal_a_plain_replay_whatever_the_batching_and_restarts(
        readings in prop::collection::vec((0_u8..4, 0_u64..200, 0_u8..=254, 0_u8..8), 0..120),
        lateness in 0_u64..40,
        revise in 0_u64..40,
    ) {
        let mut windows = Windows::new(config(lateness, revise));
        let (mut stored, mut last, mut late) = (BTreeMap::new(), BTreeMap::new(), 0);
        let keep = |outcomes: Vec<Outcome>, last: &mut BTreeMap<_, Outcome>| {
            for outcome in outcomes {
                let id = (outcome.start.0 / SECOND, outcome.key.clone());
                let revision = last.get(&id).map_or(0, |before: &Outcome| before.revision + 1);
                assert_eq!(outcome.revision, revision);
                last.insert(id, outcome);
            }
        };
        for &(key, second, number, action) in &readings {
            let fate = windows.observe(&key.to_string(), Timestamp(second * SECOND), vec![number]);
            late += u64::from(fate == Fate::Late);
            if windows.due() {
                keep(windows.settle(&mut Sum).outcomes, &mut last);
            }
            if action == 0 {
                windows.apply(&mut Sum);
            }
            if action == 1 {
                windows.apply(&mut Sum);
                for (key, value) in windows.drain_changes() {
                    match value {
                        Some(value) => stored.insert(key, value),
                        None => stored.remove(&key),
                    };
                }
                let panes: Vec<_> = stored.clone().into_iter().collect();
                windows = Windows::restore(config(lateness, revise), &windows.progress(), &panes).unwrap();
            }
        }
        let plain: Vec<_> = readings.iter().map(|&(key, second, number, _)| (key, second, number)).collect();
        let (used, expected_late, watermark) = oracle(&plain, lateness, revise);
        prop_assert_eq!(late, expected_late);
        let closed: Vec<_> = used.iter().filter(|((start, _), _)| start + 10 <= watermark).collect();
        prop_assert_eq!(closed.len(), last.len());
        for (id, numbers) in closed {
            let outcome = &last[id];
            prop_assert_eq!(outcome.count, numbers.len() as u64);
            let sum: u64 = numbers.iter().copied().map(u64::from).sum();
            let expected = finish(&sum.to_le_bytes());
            prop_assert_eq!(outcome.value.clone().map_err(|(reason, _)| reason), expected);
        }
    }
}

#[test]
fn windows_whose_state_was_lost_give_no_result_and_later_ones_do() {
    let mut windows = Windows::new(config(0, 60));
    let (outcomes, _) = feed(&mut windows, &[("a", 1, 1), ("b", 1, 1), ("a", 11, 1), ("a", 15, 1)]);
    assert_eq!(outcomes.len(), 2, "the first window is closed, and kept for revision");
    drop(windows.apply(&mut Sum));
    let (progress, mut changes) = (windows.progress(), windows.drain_changes());
    // Of both windows the part of `a` is lost.
    changes.retain(|(key, _)| key.ends_with(b"b"));
    let panes: Vec<_> = changes.into_iter().map(|(key, state)| (key, state.unwrap())).collect();
    let mut windows = Windows::restore(config(0, 60), &progress, &panes).unwrap();
    let concerned = windows.lose(None).unwrap();
    assert_eq!(concerned, (Timestamp(0), Timestamp(20 * SECOND)));
    let progress = windows.progress();
    let mut windows = Windows::restore(config(0, 60), &progress, &panes).unwrap();
    for (key, second, fate) in
        [("a", 2, Fate::Lost), ("b", 2, Fate::Used), ("a", 16, Fate::Lost), ("a", 20, Fate::Used)]
    {
        assert_eq!(windows.observe(key, Timestamp(second * SECOND), vec![1]), fate, "{key} at {second}");
        if windows.due() {
            let outcomes = windows.settle(&mut Sum).outcomes;
            assert!(outcomes.iter().all(|outcome| outcome.key == "b"), "{outcomes:?}");
        }
    }
}
