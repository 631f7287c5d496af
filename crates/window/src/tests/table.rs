//! Cases by hand: what a property cannot say as plainly.

use super::super::*;
use super::run::{Disk, List};
use super::{SECOND, seconds};
use headwater_flow::aggregation::Rejection;

/// Adds up payloads of one byte; refuses 255; cannot finish a sum of 13, nor merge with one of 77.
struct Sum;

impl Aggregate for Sum {
    fn update(&mut self, groups: &[Group]) -> Vec<Updated> {
        groups.iter().map(update).collect()
    }

    fn merge(&mut self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, String> {
        match [sum_of(a), sum_of(b)] {
            [77, _] | [_, 77] => Err("not with me".into()),
            [a, b] => Ok((a + b).to_le_bytes().to_vec()),
        }
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

fn tumbling(lateness: u64, revise: u64) -> WindowConfig {
    WindowConfig {
        lateness: seconds(lateness),
        idle: Some(seconds(30)),
        revise: seconds(revise),
        ..WindowConfig::new(WindowKind::Tumbling(TumblingWindow {
            size: seconds(10),
            offset: Duration::ZERO,
        }))
    }
}

fn new(config: WindowConfig) -> OpenWindows {
    OpenWindows::new(config, Box::new(Disk::default()), usize::MAX)
}

fn settle(windows: &mut OpenWindows) -> SettledBatch {
    let mut all = windows.apply(&mut Sum).unwrap();
    while windows.due() {
        let more = windows.settle(&mut Sum, 256).unwrap();
        all.outcomes.extend(more.outcomes);
        all.refused.extend(more.refused);
        all.used += more.used;
    }
    all
}

/// Feeds readings of (key, second, number), all in one batch.
fn feed(windows: &mut OpenWindows, readings: &[(&str, u64, u8)]) -> (Vec<WindowOutcome>, u64) {
    let mut late = 0;
    for &(key, second, number) in readings {
        match windows.observe(&mut Sum, key, Timestamp(second * SECOND), vec![number]).unwrap() {
            ObservedReading::Used => {}
            ObservedReading::Late(_) => late += 1,
            other => panic!("{other:?}"),
        }
    }
    (settle(windows).outcomes, late)
}

fn summary(outcomes: &[WindowOutcome]) -> Vec<(&str, u64, u32, u64, u64, String)> {
    let line = |outcome: &'_ WindowOutcome| {
        let value = match &outcome.value {
            Ok(json) => String::from_utf8(json.clone()).unwrap(),
            Err((reason, _)) => reason.clone(),
        };
        (outcome.start.0 / SECOND, outcome.revision, outcome.count, outcome.late, value)
    };
    let lines = outcomes.iter().map(|outcome| {
        let (start, revision, count, late, value) = line(outcome);
        (outcome.key.as_str(), start, revision, count, late, value)
    });
    lines.collect()
}

#[test]
fn a_window_closes_when_the_watermark_reaches_its_end() {
    let mut windows = new(tumbling(5, 0));
    let (outcomes, late) = feed(&mut windows, &[("a", 1, 1), ("b", 9, 2), ("a", 14, 4), ("a", 9, 8)]);
    assert_eq!((outcomes.len(), late), (0, 0), "14 s - 5 s has not reached 10 s");
    let (outcomes, late) = feed(&mut windows, &[("a", 15, 16), ("a", 9, 32)]);
    let expected = vec![("a", 0, 0, 2, 0, "9".into()), ("b", 0, 0, 1, 0, "2".into())];
    assert_eq!((summary(&outcomes), late), (expected, 1));
    assert_eq!(outcomes[0].watermark, Timestamp(10 * SECOND));
    assert_eq!((windows.open(), windows.keys()), (1, 1));
}

#[test]
fn a_late_reading_revises_a_window_that_is_kept() {
    let mut windows = new(tumbling(0, 10));
    let (outcomes, late) =
        feed(&mut windows, &[("a", 1, 1), ("a", 12, 2), ("a", 5, 4), ("b", 6, 8), ("a", 20, 1), ("a", 7, 9)]);
    let mut outcomes = summary(&outcomes);
    outcomes.sort();
    let expected = vec![
        ("a", 0, 0, 1, 0, "1".into()),
        ("a", 0, 1, 2, 1, "5".into()),
        ("a", 10, 0, 1, 0, "2".into()),
        ("b", 0, 0, 1, 1, "8".into()),
    ];
    assert_eq!((outcomes, late), (expected, 1));
}

#[test]
fn the_watermark_goes_on_at_the_pace_of_the_clock_when_idle() {
    let mut windows = new(tumbling(5, 0));
    feed(&mut windows, &[("a", 1, 1)]);
    windows.idle(seconds(29));
    assert!(!windows.due(), "idle is counted from 30 s on");
    windows.idle(seconds(31));
    assert_eq!(windows.watermark(), Timestamp(27 * SECOND));
    assert_eq!(settle(&mut windows).outcomes.len(), 1);
    windows.idle(seconds(30));
    assert_eq!(windows.watermark(), Timestamp(27 * SECOND), "never backwards");
}

#[test]
fn what_the_aggregate_refuses_or_cannot_finish_is_named() {
    let mut windows = new(tumbling(0, 0));
    for (key, second, number) in [("a", 1, 13), ("a", 1, 255), ("b", 1, 255), ("a", 10, 1)] {
        let observed = windows.observe(&mut Sum, key, Timestamp(second * SECOND), vec![number]).unwrap();
        assert_eq!(observed, ObservedReading::Used);
    }
    let settled = settle(&mut windows);
    assert_eq!((settled.used, settled.refused.len()), (2, 2));
    assert_eq!(settled.outcomes.len(), 1, "a window without a used reading has no result");
    assert_eq!(settled.outcomes[0].value, Err(("unlucky".into(), 13_u64.to_le_bytes().to_vec())));
    assert_eq!(settled.outcomes[0].rejected, 1);
}

#[test]
fn panes_that_cannot_be_merged_are_named_and_the_next_windows_come() {
    let kind =
        WindowKind::Hopping(HoppingWindow { size: seconds(20), slide: seconds(10), offset: Duration::ZERO });
    let mut windows = new(WindowConfig::new(kind));
    let (outcomes, _) = feed(&mut windows, &[("a", 1, 77), ("a", 11, 1), ("a", 21, 2), ("a", 40, 3)]);
    let expected = vec![
        ("a", 0, 0, 0, 0, "not with me".into()),
        ("a", 10, 0, 2, 0, "3".into()),
        ("a", 20, 0, 1, 0, "2".into()),
    ];
    assert_eq!(summary(&outcomes), expected);
}

#[test]
fn sessions_that_meet_become_one_and_the_old_ones_are_withdrawn() {
    let kind = WindowKind::Session(SessionWindow { gap: seconds(5), longest: None });
    let mut windows = new(WindowConfig { revise: seconds(60), ..WindowConfig::new(kind) });
    let (outcomes, _) = feed(&mut windows, &[("a", 1, 1), ("a", 9, 2), ("b", 30, 3)]);
    assert_eq!(outcomes.len(), 2);
    let (outcomes, _) = feed(&mut windows, &[("a", 5, 4)]);
    let said: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            (
                outcome.start.0 / SECOND,
                outcome.end.0 / SECOND,
                outcome.revision,
                outcome.retracted,
                outcome.count,
            )
        })
        .collect();
    assert_eq!(said, [(1, 6, 1, true, 0), (9, 14, 1, true, 0), (1, 14, 0, false, 3)]);
    assert_eq!(outcomes[2].late, 1);
}

#[test]
fn of_sessions_that_cannot_be_merged_nothing_stays_that_was_shown_of_them_apart() {
    let kind = WindowKind::Session(SessionWindow { gap: seconds(5), longest: None });
    let mut windows = new(WindowConfig { revise: seconds(60), ..WindowConfig::new(kind) });
    let (outcomes, _) = feed(&mut windows, &[("a", 1, 1), ("a", 9, 77), ("b", 30, 3)]);
    assert_eq!(outcomes.len(), 2);
    let (mut outcomes, _) = feed(&mut windows, &[("a", 5, 4)]);
    outcomes.sort_by_key(|outcome| (outcome.value.is_err(), outcome.retracted));
    let said: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let bounds = (outcome.start.0 / SECOND, outcome.end.0 / SECOND);
            (bounds, outcome.revision, outcome.retracted, outcome.count, outcome.value.is_err())
        })
        .collect();
    let expected = [
        ((1, 14), 0, false, 2, false),
        ((1, 6), 1, true, 0, false),
        ((9, 14), 1, true, 0, false),
        // Its state is a dead letter; replayed, it comes back above its withdrawal.
        ((9, 14), 2, false, 1, true),
    ];
    assert_eq!(said, expected);
}

#[test]
fn an_open_window_shows_itself_early_and_closes_with_what_it_has() {
    let mut windows = new(WindowConfig { early: Some(seconds(3)), ..tumbling(0, 0) });
    let (outcomes, _) = feed(&mut windows, &[("a", 1, 1), ("a", 4, 2), ("a", 5, 4), ("a", 10, 8)]);
    let said: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome.revision, outcome.early, outcome.count, outcome.watermark.0 / SECOND))
        .collect();
    assert_eq!(said, [(0, true, 2, 4), (1, false, 3, 10)]);
    let (outcomes, _) = feed(&mut windows, &[("a", 12, 1), ("b", 20, 1)]);
    let said: Vec<_> =
        outcomes.iter().map(|outcome| (outcome.revision, outcome.early, outcome.count)).collect();
    assert_eq!(said, [(0, true, 2), (1, false, 2)]);
}

#[test]
fn a_full_window_closes_and_goes_on_as_another_part() {
    let mut windows = new(WindowConfig { readings_max: 2, bytes_max: 100, ..tumbling(0, 0) });
    let (outcomes, _) = feed(&mut windows, &[("a", 1, 1), ("a", 2, 2), ("a", 3, 4), ("b", 3, 8)]);
    assert_eq!(outcomes.iter().map(|outcome| (outcome.part, outcome.count)).collect::<Vec<_>>(), [(0, 2)]);
    let (outcomes, _) = feed(&mut windows, &[("c", 10, 1)]);
    assert_eq!(
        outcomes.iter().map(|outcome| (outcome.part, outcome.count)).collect::<Vec<_>>(),
        [(1, 1), (0, 1)]
    );
}

#[test]
fn one_key_too_many_is_refused_or_put_with_the_others() {
    let config = WindowConfig { keys_max: 2, ..tumbling(0, 0) };
    let mut windows = new(config.clone());
    let observe = |windows: &mut OpenWindows, key: &str, second| {
        windows.observe(&mut Sum, key, Timestamp(second * SECOND), vec![1]).unwrap()
    };
    assert_eq!(
        [observe(&mut windows, "a", 1), observe(&mut windows, "b", 1), observe(&mut windows, "a", 2)],
        [const { ObservedReading::Used }; 3]
    );
    assert_eq!(observe(&mut windows, "c", 1), ObservedReading::Full(vec![1]));
    assert_eq!(observe(&mut windows, "a", 10), ObservedReading::Used);
    settle(&mut windows);
    assert_eq!(observe(&mut windows, "c", 10), ObservedReading::Used, "b has no window any more");
    let mut windows = new(WindowConfig { when_keys_full: WhenKeysFull::Overflow, ..config });
    for key in ["a", "b", "c", "d", "a"] {
        assert_eq!(observe(&mut windows, key, 1), ObservedReading::Used);
    }
    assert_eq!(observe(&mut windows, "a", 10), ObservedReading::Used);
    let outcomes = settle(&mut windows).outcomes;
    let said: Vec<_> = outcomes.iter().map(|outcome| (outcome.key.as_str(), outcome.count)).collect();
    assert_eq!(said, [(OVERFLOW_KEY, 2), ("a", 2), ("b", 1)]);
}

#[test]
fn with_patience_one_device_does_not_close_the_windows_of_another() {
    let mut windows = new(WindowConfig { patience: Some(seconds(100)), ..tumbling(0, 0) });
    // `fast` is ahead; `slow` drains what it has kept.
    let (outcomes, late) =
        feed(&mut windows, &[("slow", 1, 1), ("fast", 60, 1), ("slow", 3, 2), ("slow", 12, 4)]);
    assert_eq!((summary(&outcomes), late), (vec![("slow", 0, 0, 2, 0, "3".into())], 0));
    let (outcomes, late) = feed(&mut windows, &[("fast", 120, 1), ("slow", 13, 8)]);
    assert_eq!((outcomes.len(), late), (2, 1), "more than 100 s behind, it is silent");
}

#[test]
fn readings_of_a_count_window_are_forgotten_in_time() {
    let kind = WindowKind::Count(CountWindow { size: 3, slide: 3 });
    let mut windows = new(WindowConfig { forget: Some(seconds(60)), ..WindowConfig::new(kind) });
    feed(&mut windows, &[("a", 1, 1), ("a", 2, 1), ("b", 50, 1), ("b", 70, 1)]);
    assert_eq!(windows.keys(), 1);
    let (mut outcomes, _) =
        feed(&mut windows, &[("a", 71, 1), ("a", 72, 1), ("a", 73, 1), ("b", 74, 1), ("a", 75, 1)]);
    outcomes.sort_by_key(|outcome| outcome.start);
    assert_eq!(outcomes.iter().map(|outcome| outcome.start.0 / SECOND).collect::<Vec<_>>(), [50, 71]);
}

#[test]
fn windows_whose_state_was_lost_give_no_result_and_later_ones_do() {
    let disk = Disk::default();
    let mut windows = disk.restore(&tumbling(0, 60), &[], usize::MAX);
    let (outcomes, _) = feed(&mut windows, &[("a", 1, 1), ("b", 1, 1), ("a", 11, 1), ("a", 15, 1)]);
    assert_eq!(outcomes.len(), 2, "the first window is closed, and kept for revision");
    let progress = windows.progress();
    disk.write(&mut windows);
    disk.forget("a");
    let mut windows = disk.restore(&tumbling(0, 60), &progress, usize::MAX);
    let concerned = windows.lose(None).unwrap().unwrap();
    assert_eq!(concerned, (Timestamp(0), Timestamp(20 * SECOND)));
    let mut windows = disk.restore(&tumbling(0, 60), &windows.progress(), usize::MAX);
    let lost = || ObservedReading::Lost(vec![1]);
    let used = || ObservedReading::Used;
    for (key, second, expected) in [("a", 2, lost()), ("b", 2, used()), ("a", 16, lost()), ("a", 20, used())]
    {
        let observed = windows.observe(&mut Sum, key, Timestamp(second * SECOND), vec![1]).unwrap();
        assert_eq!(observed, expected, "{key} at {second}");
        let outcomes = settle(&mut windows).outcomes;
        assert!(outcomes.iter().all(|outcome| outcome.key == "b"), "{outcomes:?}");
    }
}

#[test]
fn of_what_was_lost_no_run_of_panes_gives_a_result() {
    let readings = [("a", 8, 1), ("a", 14, 1), ("a", 21, 1), ("a", 24, 1), ("a", 36, 1), ("a", 80, 1)];
    let kinds = [
        (
            WindowKind::Hopping(HoppingWindow {
                size: seconds(20),
                slide: seconds(10),
                offset: Duration::ZERO,
            }),
            vec![(20, 3), (30, 1)],
        ),
        (WindowKind::Sliding(SlidingWindow { size: seconds(10) }), vec![(15, 2), (27, 1)]),
        (WindowKind::Session(SessionWindow { gap: seconds(5), longest: None }), vec![(21, 2), (36, 1)]),
        (WindowKind::Count(CountWindow { size: 2, slide: 2 }), vec![(21, 2)]),
    ];
    for (kind, expected) in kinds {
        let (config, disk) = (WindowConfig::new(kind), Disk::default());
        let mut windows = disk.restore(&config, &[], usize::MAX);
        feed(&mut windows, &readings[..2]);
        let progress = windows.progress();
        disk.write(&mut windows);
        let mut windows = disk.restore(&config, &progress, usize::MAX);
        windows.lose(None).unwrap().unwrap();
        assert_eq!(windows.keys(), 0);
        let (outcomes, _) = feed(&mut windows, &readings[2..]);
        let said: Vec<_> =
            outcomes.iter().map(|outcome| (outcome.start.0.div_ceil(SECOND), outcome.count)).collect();
        assert_eq!(said, expected, "{config:?}");
    }
}

#[test]
fn a_window_of_the_first_version_goes_on() {
    let (config, disk) = (tumbling(0, 60), Disk::default());
    let header = |count: u64, revision: u32| {
        let numbers = [count, 0, 0].into_iter().flat_map(u64::to_le_bytes);
        [1].into_iter()
            .chain(numbers)
            .chain(revision.to_le_bytes())
            .chain(count.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let row = |second: u64, key: &str| [&(second * SECOND).to_be_bytes()[..], key.as_bytes()].concat();
    disk.put(row(0, "a"), header(2, 1));
    disk.put(row(10, "a"), header(3, 0));
    let mut progress = vec![2];
    progress.extend([15 * SECOND + 1, 15 * SECOND, 0].into_iter().flat_map(u64::to_le_bytes));
    for _ in 0..2 {
        let mut windows = disk.restore(&config, &progress, usize::MAX);
        disk.write(&mut windows);
        assert_eq!(windows.open(), 2);
    }
    let mut windows = disk.restore(&config, &progress, 0);
    let (outcomes, _) = feed(&mut windows, &[("a", 3, 5), ("a", 20, 1)]);
    assert_eq!(summary(&outcomes), [("a", 0, 1, 3, 1, "7".into()), ("a", 10, 0, 3, 0, "3".into())]);
}

#[test]
fn what_is_not_of_this_version_is_refused() {
    let config = tumbling(0, 0);
    let disk = Disk::default();
    let mut windows = disk.restore(&config, &[], usize::MAX);
    assert_eq!(windows.observe(&mut List, "a", Timestamp(1), vec![1]).unwrap(), ObservedReading::Used);
    windows.apply(&mut List).unwrap();
    disk.write(&mut windows);
    let (mut row, mut value) = (b"a".to_vec(), Vec::new());
    disk.rows("a", &mut |tail, bytes| {
        row.extend(tail);
        value.extend(bytes);
        Ok(())
    })
    .unwrap();
    for length in 0..value.len() - 1 {
        let restored = new(config.clone()).restore(&[], |each| each(row.clone(), value[..length].to_vec()));
        assert!(length > 6 || restored.is_err(), "{length} bytes");
    }
    let mut other = value.clone();
    other[0] = 9;
    let error = new(config.clone()).restore(&[], |each| each(row.clone(), other)).unwrap_err();
    assert_eq!(error.to_string(), "failed to read the stored windows: a window has another version");
    assert!(new(config.clone()).restore(&[4; 25], |_| Ok(())).is_err());
    assert!(new(config).restore(&[3; 20], |_| Ok(())).is_err());
}
