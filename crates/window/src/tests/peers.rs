//! When results come, which come again and which readings are late: cases of the peers' public documentation and
//! tests, by their names. What is in which window is in `tests/src/windows_oracle/tests.rs`, likewise.

use super::run::List;
use super::*;

/// `"a 12"` is a reading of key `a` at 12 s, and each gives what is due at once. A result is
/// `"after 3: a 10..15 r1: 0 2"`: with reading 3 came the window from 10 to 15 s, revision 1, of the readings 0 and
/// 2; a late reading is `"after 3: late"`. An end just behind a reading is written as its time with a plus.
#[track_caller]
fn check(config: WindowConfig, text: &str, expected: &[&str]) {
    let mut windows = OpenWindows::new(config.clone(), Box::new(run::Disk::default()), usize::MAX);
    let mut said = Vec::new();
    for (number, (key, second)) in text.split(", ").map(|it| it.split_once(' ').unwrap()).enumerate() {
        let time = Timestamp(second.parse::<u64>().unwrap() * SECOND);
        let id = u8::try_from(number).unwrap();
        if windows.observe(&mut List, key, time, vec![id]).unwrap() != ObservedReading::Used {
            said.push(format!("after {number}: late"));
        }
        let mut outcomes = windows.apply(&mut List).unwrap().outcomes;
        while windows.due() {
            outcomes.extend(windows.settle(&mut List, 256).unwrap().outcomes);
        }
        said.extend(outcomes.iter().map(|outcome| format!("after {number}: {}", show(outcome))));
    }
    assert_eq!(said, expected, "{config:?}");
}

fn show(outcome: &WindowOutcome) -> String {
    let instant = |time: Timestamp| match time.0 % SECOND {
        1 => format!("{}+", time.0 / SECOND),
        _ => (time.0 / SECOND).to_string(),
    };
    let part = if outcome.part > 0 { format!("#{}", outcome.part) } else { String::new() };
    let ids: Vec<_> = outcome.state.iter().map(ToString::to_string).collect();
    let what = if outcome.retracted { "retracted".to_owned() } else { ids.join(" ") };
    let (key, start, end) = (&outcome.key, instant(outcome.start), instant(outcome.end));
    format!("{key}{part} {start}..{end} r{}: {what}", outcome.revision)
}

fn hopping(size: u64, slide: u64) -> WindowKind {
    WindowKind::Hopping(HoppingWindow { size: seconds(size), slide: seconds(slide), offset: Duration::ZERO })
}

fn tumbling(size: u64) -> WindowKind {
    WindowKind::Tumbling(TumblingWindow { size: seconds(size), offset: Duration::ZERO })
}

fn session(gap: u64, longest: Option<u64>) -> WindowKind {
    WindowKind::Session(SessionWindow { gap: seconds(gap), longest: longest.map(seconds) })
}

fn late(kind: WindowKind, lateness: u64, revise: u64) -> WindowConfig {
    WindowConfig { lateness: seconds(lateness), revise: seconds(revise), ..WindowConfig::new(kind) }
}

/// Flink, "Windows", "Allowed Lateness": 0 by default; what comes behind the watermark is dropped.
#[test]
fn flink_without_allowed_lateness_late_elements_are_dropped() {
    check(late(tumbling(10), 0, 0), "a 1, a 12, a 3", &["after 1: a 0..10 r0: 0", "after 2: late"]);
}

/// The same: an element that comes before the watermark passes the window's end plus the allowed lateness
/// causes the window to fire again.
#[test]
fn flink_within_allowed_lateness_the_window_fires_again() {
    let expected =
        ["after 1: a 0..10 r0: 0", "after 2: a 0..10 r1: 0 2", "after 3: a 0..10 r2: 0 2 3", "after 5: late"];
    check(late(tumbling(10), 0, 5), "a 1, a 12, a 3, a 9, a 15, a 4", &expected);
}

/// The same, "Getting late data as a side output": what is late beyond it comes apart, and changes nothing.
#[test]
fn flink_late_elements_go_to_the_side_output() {
    let expected = ["after 1: late", "after 2: late", "after 3: a 20..30 r0: 0"];
    check(late(tumbling(10), 0, 5), "a 25, a 3, a 9, a 30", &expected);
}

/// Flink, "Allowed Lateness", on late firings of session windows: they may bridge two that had fired, which it
/// leaves to its user; we withdraw the two.
#[test]
fn flink_a_late_element_bridges_two_sessions_that_had_fired() {
    let expected = [
        "after 1: a 0..10 r0: 0",
        "after 2: a 15..25 r0: 1",
        "after 3: a 0..10 r1: retracted",
        "after 3: a 15..25 r1: retracted",
        "after 3: a 0..25 r0: 0 1 3",
    ];
    check(late(session(10, None), 0, 60), "a 0, a 15, b 30, a 8", &expected);
}

/// Flink, example `SessionWindowing`, here in seconds: (a,1,1) fires first, and all at the end.
#[test]
fn flink_session_windowing_example() {
    let expected = [
        "after 3: a 1..4 r0: 0",
        "after 5: b 1..8 r0: 1 2 3",
        "after 5: c 6..9 r0: 4",
        "after 7: a 10..13 r0: 5",
        "after 7: c 11..14 r0: 6",
    ];
    check(late(session(3, None), 0, 0), "a 1, b 1, b 3, b 5, c 6, a 10, c 11, end 20", &expected);
}

/// Kafka Streams, javadoc of `TimeWindows`: 5000 ms by 3000 ms, and with a grace period a record is dropped once
/// stream time has passed its window's end and that. Its grace is our lateness.
#[test]
fn kafka_hopping_windows_close_after_their_grace_period() {
    let expected = ["after 2: a 0..5 r0: 0 1", "after 5: a 3..8 r0: 3 1 4 2", "after 5: a 6..11 r0: 2"];
    check(late(hopping(5, 3), 2, 0), "a 2, a 4, a 7, a 3, a 4, a 13", &expected);
    check(late(hopping(5, 3), 2, 0), "a 7, a 2", &["after 1: late"]);
}

/// Kafka Streams, "Window Final Results" (`untilWindowCloses`): one result a window, when it closes. Without it a
/// result comes with every record; ours come provisionally with `early`, by event time.
#[test]
fn kafka_suppressed_windows_give_one_final_result() {
    check(late(tumbling(10), 0, 0), "a 1, a 2, a 9, a 10", &["after 3: a 0..10 r0: 0 1 2"]);
    let early = WindowConfig { early: Some(seconds(2)), ..late(tumbling(10), 0, 0) };
    let expected = ["after 1: a 0..10 r0: 0 1", "after 3: a 0..10 r1: 0 1 2"];
    check(early, "a 1, a 2, a 9, a 10", &expected);
}

/// eKuiper, "Windows": `COUNTWINDOW(5, 2)` comes with events 6 and 8 there; here when five are there, and every
/// two from then on, each when the watermark has passed it.
#[test]
fn ekuiper_countwindow_5_2() {
    let config = WindowConfig::new(WindowKind::Count(CountWindow { size: 5, slide: 2 }));
    let expected = ["after 5: a 1..5+ r0: 0 1 2 3 4", "after 7: a#1 3..7+ r0: 2 3 4 5 6"];
    check(config, "a 1, a 2, a 3, a 4, a 5, a 6, a 7, a 8", &expected);
}

/// eKuiper, "Windows": `SESSIONWINDOW(ss, 10, 5)` ends after 5 s of silence, or after 10 s, of which it knows at 0,
/// 10, 20.
#[test]
fn ekuiper_sessionwindow_10_5() {
    let expected = ["after 3: a 4..10 r0: 0 1 2", "after 4: a 10..15 r0: 3", "after 5: a 17..20 r0: 4"];
    check(late(session(5, Some(10)), 0, 0), "a 4, a 7, a 9, a 10, a 17, a 30", &expected);
}

/// eKuiper, "Event time": what is behind the watermark is dropped without a word there; here it is late.
#[test]
fn ekuiper_late_events_are_not_silent() {
    let expected = ["after 2: a 0..10 r0: 0 1", "after 3: late"];
    check(late(tumbling(10), 2, 0), "a 1, a 9, a 12, a 9", &expected);
}

/// Bytewax, `test_late` and the stream `late` of a window operator: what is behind the watermark comes apart.
#[test]
fn bytewax_late_stream() {
    let expected = ["after 2: ALL 0..10 r0: 0 1", "after 3: late", "after 5: ALL 10..20 r0: 2 4"];
    check(late(tumbling(10), 5, 0), "ALL 7, ALL 3, ALL 16, ALL 4, ALL 12, ALL 25", &expected);
}

/// Bytewax, `test_watermark_is_item_timestamp_minus_wait`, `..._does_not_reverse_in_batch`: 7 less 5 is 2, and
/// stays so with a reading at 3.
#[test]
fn bytewax_watermark_is_the_timestamp_less_the_wait_and_never_reverses() {
    let mut windows = OpenWindows::new(late(tumbling(10), 5, 0), Box::new(run::Disk::default()), usize::MAX);
    for (second, watermark) in [(7, 2), (3, 2), (10, 5)] {
        let observed = windows.observe(&mut List, "ALL", Timestamp(second * SECOND), vec![0]).unwrap();
        assert_eq!(observed, ObservedReading::Used);
        assert_eq!(windows.watermark(), Timestamp(watermark * SECOND));
    }
}

/// Bytewax takes what is behind the watermark for late even where its session is open; as in Flink and Kafka
/// Streams it is used here, as long as its session, it included, is not over.
#[test]
fn we_differ_bytewax_a_reading_behind_the_watermark_joins_a_session_that_is_open() {
    check(late(session(10, None), 0, 0), "a 5, a 12, a 8, a 40", &["after 3: a 5..22 r0: 0 1 2"]);
}
