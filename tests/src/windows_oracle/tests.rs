//! The oracle against the public documentation and tests of the peers.

use super::*;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// 2023-03-16T09:00:00Z, a multiple of every unit used here.
const NINE: u64 = 1_678_957_200 * SECOND;

/// Parses readings: `"a 12"` is a reading of key `a` at 12 `units`; its value is its index in the list.
fn readings(unit: u64, text: &str) -> Vec<OracleReading> {
    let words: Vec<_> = text.split(", ").map(|reading| reading.split_once(' ').unwrap()).collect();
    let numbered = words.into_iter().zip(0_u32..);
    numbered
        .map(|((key, time), place)| {
            let time = time.parse::<u64>().unwrap() * unit;
            OracleReading { key: key.to_owned(), time, value: f64::from(place) }
        })
        .collect()
}

/// Compares windows: `"a 10..15: 0 1"` is a window from 10 to 15 units with the readings 0 and 1; `"a#2 ..."`
/// is part 2.
#[track_caller]
fn check(unit: u64, text: &str, kind: WindowRule, expected: &[&str]) {
    let readings = readings(unit, text);
    let unit = i64::try_from(unit).unwrap();
    // An end just after a reading is written as the time of that reading with a plus.
    let instant = |time: i64| match time.rem_euclid(unit) {
        1 if unit > 1 => format!("{}+", time.div_euclid(unit)),
        _ => time.div_euclid(unit).to_string(),
    };
    let shown: Vec<String> = contents(&readings, &kind)
        .into_iter()
        .map(|(WindowId { key, start, end, part }, inside)| {
            let part = if part > 0 { format!("#{part}") } else { String::new() };
            let inside: Vec<_> = inside.iter().map(|reading| reading.value.to_string()).collect();
            format!("{key}{part} {}..{}: {}", instant(start), instant(end), inside.join(" "))
        })
        .collect();
    assert_eq!(shown, expected, "{kind:?} of {text}");
}

/// Flink, "Windows", tumbling: hours, and hours with an offset of 15 minutes (1:15:00.000 - 2:14:59.999).
#[test]
fn flink_tumbling_windows_are_aligned_with_the_epoch_or_an_offset() {
    let text = "a 60, a 119, a 120, a 134, a 135";
    let tumbling = |offset| WindowRule::Tumbling { size: HOUR, offset };
    check(MINUTE, text, tumbling(0), &["a 60..120: 0 1", "a 120..180: 2 3 4"]);
    check(MINUTE, text, tumbling(15 * MINUTE), &["a 15..75: 0", "a 75..135: 1 2 3", "a 135..195: 4"]);
}

/// Flink, "Windows", sliding: an hour by 30 minutes (1:00 - 1:59, 1:30 - 2:29), and 15 minutes later.
#[test]
fn flink_sliding_windows_are_our_hopping_ones() {
    let hopping = |offset| WindowRule::Hopping { size: HOUR, slide: 30 * MINUTE, offset };
    check(MINUTE, "a 100", hopping(0), &["a 60..120: 0", "a 90..150: 0"]);
    check(MINUTE, "a 110", hopping(15 * MINUTE), &["a 75..135: 0", "a 105..165: 0"]);
}

/// Flink, example `SessionWindowing`: a gap of 3 ms gives (a,1,1) (b,1,3) (c,6,1) (a,10,1) (c,11,1).
#[test]
fn flink_session_windowing_example() {
    check(
        1_000,
        "a 1, b 1, b 3, b 5, c 6, a 10, c 11",
        WindowRule::Session { gap: 3_000, longest: None },
        &["a 1..4: 0", "a 10..13: 5", "b 1..8: 1 2 3", "c 6..9: 4", "c 11..14: 6"],
    );
}

/// Flink, "Allowed Lateness": a late element may bridge the gap between two windows that had fired.
#[test]
fn flink_a_late_element_merges_two_sessions() {
    let session = || WindowRule::Session { gap: 10 * SECOND, longest: None };
    check(SECOND, "a 0, a 15", session(), &["a 0..10: 0", "a 15..25: 1"]);
    check(SECOND, "a 0, a 15, a 8", session(), &["a 0..25: 0 2 1"]);
}

/// Flink merges sessions that touch, and Kafka Streams takes the gap as inclusive; a half-open session
/// does not hold its end, so that a watermark at the end closes it for good.
#[test]
fn we_differ_a_reading_a_whole_gap_later_begins_another_session() {
    let session = || WindowRule::Session { gap: 5 * SECOND, longest: None };
    check(SECOND, "a 10, a 15", session(), &["a 10..15: 0", "a 15..20: 1"]);
    check(SECOND, "a 10, a 14", session(), &["a 10..19: 0 1"]);
}

/// Kafka Streams, javadoc of `TimeWindows`: 5000 ms by 3000 ms is [0;5000), [3000;8000), and not [1000;6000).
#[test]
fn kafka_hopping_windows_are_aligned_to_the_epoch() {
    let hopping = WindowRule::Hopping { size: 5_000_000, slide: 3_000_000, offset: 0 };
    let expected = ["a 0..5000: 0 1", "a 3000..8000: 1 2 3", "a 6000..11000: 3 4", "a 9000..14000: 4"];
    check(1_000, "a 2999, a 4999, a 5000, a 7999, a 9000", hopping, &expected);
}

/// Kafka Streams, javadoc of `SessionWindows`: gap 5, readings at 10, 12, 20, and then at 16.
#[test]
fn kafka_a_record_between_two_sessions_merges_them() {
    let session = || WindowRule::Session { gap: 5 * SECOND, longest: None };
    check(SECOND, "A 10, A 12, A 20", session(), &["A 10..17: 0 1", "A 20..25: 2"]);
    check(SECOND, "A 10, A 12, A 20, A 16", session(), &["A 10..25: 0 1 3 2"]);
}

/// eKuiper, "Windows": `COUNTWINDOW(5, 1)` is triggered with every event once there are five.
#[test]
fn ekuiper_countwindow_5_1() {
    check(
        SECOND,
        "a 1, a 2, a 3, a 4, a 5, a 6",
        WindowRule::Count { size: 5, slide: 1 },
        &["a 1..5+: 0 1 2 3 4", "a#1 2..6+: 1 2 3 4 5"],
    );
}

/// eKuiper, "Windows": `COUNTWINDOW(5, 2)` looks at events 2, 4 and 6, and at 6 gives 2 to 6. We give the
/// first window with the fifth reading, and the next two readings later.
#[test]
fn we_differ_ekuiper_countwindow_5_2_begins_with_the_fifth() {
    check(
        SECOND,
        "a 1, a 2, a 3, a 4, a 5, a 6, a 7, a 8",
        WindowRule::Count { size: 5, slide: 2 },
        &["a 1..5+: 0 1 2 3 4", "a#1 3..7+: 2 3 4 5 6"],
    );
}

/// eKuiper, "Windows": in a tumbling count window an event belongs to one window.
#[test]
fn ekuiper_tumbling_countwindow_5() {
    check(
        SECOND,
        "a 1, a 2, b 3, a 4, a 5, a 6, a 7, b 8",
        WindowRule::Count { size: 5, slide: 5 },
        &["a 1..6+: 0 1 3 4 5"],
    );
}

/// eKuiper, "Windows": with a maximum duration of 10 a session is checked at 0, 10, 20, 30.
#[test]
fn ekuiper_a_session_is_cut_at_multiples_of_its_longest() {
    check(
        SECOND,
        "a 4, a 7, a 9, a 10, a 13, a 17, a 22, a 30",
        WindowRule::Session { gap: 5 * SECOND, longest: Some(10 * SECOND) },
        &["a 4..10: 0 1 2", "a 10..20: 3 4 5", "a 22..27: 6", "a 30..35: 7"],
    );
}

/// eKuiper, "Windows": a sliding window gives a result only when an event occurs, and looks back from it.
#[test]
fn ekuiper_slidingwindow_gives_a_result_per_event() {
    check(
        SECOND,
        "a 10, a 12, a 15, b 15, a 12, a 30",
        WindowRule::Sliding { length: 5 * SECOND },
        &["a 5+..10+: 0", "a 7+..12+: 0 1 4", "a 10+..15+: 1 4 2", "a 25+..30+: 5", "b 10+..15+: 3"],
    );
}

/// Bytewax, `test_collect_window`: tumbling windows of 10 s.
#[test]
fn bytewax_tumbling_windows_collect() {
    let tumbling = WindowRule::Tumbling { size: 10 * SECOND, offset: 0 };
    check(SECOND, "a 0, a 4, a 8, a 12, a 13", tumbling, &["a 0..10: 0 1 2", "a 10..20: 3 4"]);
}

/// Bytewax, `test_session_window`: gap 5 s; the last reading is late there, and so not in the list here.
#[test]
fn bytewax_sessions_without_the_late_one() {
    check(
        SECOND,
        "ALL 1, ALL 5, ALL 11, ALL 12, ALL 13, ALL 14, ALL 20",
        WindowRule::Session { gap: 5 * SECOND, longest: None },
        &["ALL 1..10: 0 1", "ALL 11..19: 2 3 4 5", "ALL 20..25: 6"],
    );
}

/// Bytewax, `test_sliding_windower`: which windows of a length and distance, counted from 9:00, hold a time.
#[test]
fn bytewax_sliding_windower_intersections() {
    for (slide, half_seconds, expected) in [
        (5, 26, &[1, 2][..]),
        (5, -6, &[-2, -1]),
        (5, 6, &[-1, 0]),
        (5, 14, &[0, 1]),
        (5, 30, &[2, 3]),
        (5, -10, &[-2, -1]),
        (5, 0, &[-1, 0]),
        (5, 20, &[1, 2]),
        (3, 22, &[1, 2, 3]),
        (3, 23, &[1, 2, 3]),
        (3, -2, &[-3, -2, -1]),
        (3, -3, &[-3, -2, -1]),
        (3, 10, &[-1, 0, 1]),
        (7, 28, &[1, 2]),
        (7, -14, &[-2, -1]),
        (7, 0, &[-1, 0]),
        (7, 34, &[2]),
        (7, -8, &[-1]),
        (7, 20, &[1]),
        (10, 30, &[1]),
        (10, -10, &[-1]),
        (10, 40, &[2]),
        (10, -20, &[-1]),
    ] {
        let time = NINE.checked_add_signed(half_seconds * 500_000).unwrap();
        let reading = [OracleReading { key: "k".to_owned(), time, value: 0.0 }];
        let size = 10 * SECOND;
        let slide = slide * SECOND;
        let contents = contents(&reading, &WindowRule::Hopping { size, slide, offset: NINE % slide });
        let numbers: Vec<i64> = contents.keys().map(|it| (it.start - NINE as i64) / slide as i64).collect();
        assert_eq!(numbers, expected, "{slide} {half_seconds}");
    }
}

#[test]
fn a_hopping_window_with_gaps_leaves_readings_out() {
    let hopping = WindowRule::Hopping { size: 2 * SECOND, slide: 5 * SECOND, offset: 0 };
    check(SECOND, "a 5, a 6, a 7, a 9, a 10", hopping, &["a 5..7: 0 1", "a 10..12: 4"]);
}

#[test]
fn without_windows_each_reading_is_on_its_own() {
    check(SECOND, "a 5, a 5, a 1", WindowRule::None, &["a#2 1..1: 2", "a 5..5: 0", "a#1 5..5: 1"]);
}

/// The days of 2026 on which clocks in Berlin are changed have 23 and 25 hours.
#[test]
fn a_calendar_day_follows_daylight_saving() {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let day = |text: &str| {
        let reading = [OracleReading { key: "k".to_owned(), time: at(text) as u64, value: 0.0 }];
        let contents = contents(&reading, &WindowRule::Day { zone: zone.clone() });
        let place = contents.into_keys().next().unwrap();
        (place.start, place.end)
    };
    let spring = (at("2026-03-28T23:00:00Z"), at("2026-03-29T22:00:00Z"));
    let autumn = (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z"));
    assert_eq!((spring.1 - spring.0, autumn.1 - autumn.0), (23 * HOUR as i64, 25 * HOUR as i64));
    for (text, expected) in [
        ("2026-03-28T23:00:00Z", spring),
        ("2026-03-29T21:59:59.999999Z", spring),
        ("2026-10-24T22:00:00Z", autumn),
        ("2026-10-25T22:59:59.999999Z", autumn),
    ] {
        assert_eq!(day(text), expected, "{text}");
    }
    assert_eq!(day("2026-03-29T22:00:00Z").0, spring.1);
}
