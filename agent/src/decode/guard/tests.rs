//! Stamps of all kinds against all bounds and host clocks.

use proptest::prelude::*;

use super::*;
use crate::decode::{Config, Decode, Format, Place, Stamp, TimeUnit, WhenMissing};
use crate::flow::{Event, Message, MqttDelivery};

/// 2027.
const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const SECOND: i64 = 1_000_000;
/// A gateway that was switched on a minute ago and does not know the time.
const BOOTED: Timestamp = Timestamp(60_000_000);

fn guard(when: WhenOff) -> Guard {
    let (skew, past) = (Duration::from_secs(10), Some(Duration::from_secs(100)));
    Guard { skew, when_ahead: when, past, when_past: when }
}

/// Seconds from the arrival, of the stamp and of what it becomes; `None` where it is refused.
#[track_caller]
fn check(when: WhenOff, stamp: i64, expected: Option<(i64, Found)>) {
    let now = NOW.0 as i64;
    let judged = guard(when).judge(now + stamp * SECOND, NOW.into()).ok();
    let judged = judged.map(|(time, found)| ((time.0 as i64 - now) / SECOND, found));
    assert_eq!(judged, expected, "{when:?} {stamp}");
}

#[test]
fn each_policy_does_what_it_says() {
    use WhenOff::{Arrival, Clamp, Reject};
    for when in [Reject, Arrival, Clamp] {
        for stamp in [-100, -1, 0, 10] {
            check(when, stamp, Some((stamp, Found::Good)));
        }
    }
    check(Reject, 11, None);
    check(Reject, -101, None);
    check(Arrival, 11, Some((0, Found::Ahead(Arrival))));
    check(Arrival, -101, Some((0, Found::Past(Arrival))));
    check(Clamp, 11, Some((10, Found::Ahead(Clamp))));
    check(Clamp, -101, Some((-100, Found::Past(Clamp))));
}

#[test]
fn a_stamp_before_1970_is_a_past_one_where_that_is_bounded_and_else_refused() {
    let judged = |past| Guard { past, ..guard(WhenOff::Arrival) }.judge(-1, NOW.into());
    assert_eq!(judged(Some(Duration::from_hours(1))), Ok((NOW, Found::Past(WhenOff::Arrival))));
    assert!(matches!(judged(None), Err(Error::Time(_))));
    // Seconds given for milliseconds: a time of January 1970.
    let seconds =
        Guard { when_past: WhenOff::Reject, ..guard(WhenOff::Arrival) }.judge(1_800_000_000_000, NOW.into());
    assert!(matches!(seconds, Err(Error::Past { .. })), "{seconds:?}");
}

#[test]
fn what_comes_again_is_ahead_of_nothing_any_more_and_no_older_than_it_was() {
    let again = Arrival { time: NOW, clock: NOW.after(Duration::from_hours(24)) };
    let stamp = |seconds: i64| guard(WhenOff::Reject).judge(NOW.0 as i64 + seconds * SECOND, again);
    assert!(stamp(3_600).is_ok() && stamp(-90).is_ok());
    assert!(stamp(86_400 + 11).is_err() && stamp(-101).is_err());
}

#[test]
fn what_is_moved_ahead_stays_a_time() {
    let judged = guard(WhenOff::Clamp).judge(i64::MAX, Timestamp(TIME_MAX.0 - 1).into());
    assert_eq!(judged, Ok((TIME_MAX, Found::Ahead(WhenOff::Clamp))));
}

#[test]
fn a_stamp_that_a_transform_set_is_moved_like_a_devices() {
    for (when, expected) in [(WhenOff::Arrival, NOW), (WhenOff::Clamp, NOW.after(Duration::from_secs(10)))] {
        let (topics, format, key) = (Vec::new(), Format::Json, "k".parse().unwrap());
        let decode = Decode::new(Config { topics, format, key, time: None, guard: guard(when) });
        let mut made = Event { time: NOW.after(Duration::from_hours(1)), ..Event::default() };
        assert_eq!(decode.check(&mut made, NOW.into()), Ok(Found::Ahead(when)));
        assert_eq!(made.time, expected);
    }
}

/// Seconds from [`NOW`], or since a boot in 1970.
type Seconds = Result<i64, u64>;

/// Arrivals, and what is believed.
#[track_caller]
fn check_clock(arrivals: &[(Seconds, Seconds)]) {
    let time = |of: Seconds| match of {
        Ok(seconds) => Timestamp((NOW.0 as i64 + seconds * SECOND) as u64),
        Err(booted) => Timestamp(booted * 1_000_000),
    };
    let mut clock = Clock::default();
    for (index, (received, believed)) in arrivals.iter().enumerate() {
        assert_eq!(clock.tick(time(*received)), time(*believed), "number {index} of {arrivals:?}");
    }
    assert_eq!(Clock::new(clock.latest()), clock, "after a restart");
}

#[test]
fn the_latest_believable_arrival_stands_for_a_clock_that_is_behind_it() {
    check_clock(&[(Ok(0), Ok(0)), (Ok(5), Ok(5)), (Ok(4), Ok(4)), (Ok(70), Ok(70))]);
    // Booted in 1970, then the network told the time, then booted again.
    check_clock(&[(Err(3), Err(3)), (Ok(0), Ok(0)), (Err(9), Ok(0)), (Err(12), Ok(0)), (Ok(99), Ok(99))]);
    // An hour back, and there again.
    check_clock(&[(Ok(0), Ok(0)), (Ok(-3_600), Ok(0)), (Ok(-59), Ok(-59)), (Ok(1), Ok(1))]);
    // An hour ahead, and back.
    check_clock(&[(Ok(0), Ok(0)), (Ok(3_600), Ok(3_600)), (Ok(2), Ok(3_600)), (Ok(3_601), Ok(3_601))]);
}

#[test]
fn right_stamps_are_not_rejected_because_the_host_does_not_know_the_time() {
    let right = NOW.0 as i64 + 5 * SECOND;
    let judged =
        |clock: &mut Clock, received| guard(WhenOff::Reject).judge(right, clock.tick(received).into());
    let mut clock = Clock::default();
    assert!(judged(&mut clock, BOOTED).is_ok(), "nothing is known of the time");
    let mut clock = Clock::new(NOW);
    assert!(judged(&mut clock, BOOTED).is_ok(), "the journal knows it");
    let ahead = guard(WhenOff::Reject).judge(right + 60 * SECOND, clock.tick(BOOTED).into());
    assert!(matches!(ahead, Err(Error::Ahead { .. })), "and so judges all the same");
    assert!(judged(&mut clock, Timestamp(NOW.0 - 3_600_000_000)).is_ok(), "an hour back");
}

fn policy() -> impl Strategy<Value = WhenOff> {
    prop_oneof![Just(WhenOff::Reject), Just(WhenOff::Arrival), Just(WhenOff::Clamp)]
}

/// What devices write where a time should stand.
fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        any::<f64>().prop_map(|number| number.to_string()),
        "[-]?[1-9][0-9]{0,40}([.][0-9]{1,30})?([eE][-+]?[0-9]{1,25})?",
        Just("1e999".to_owned()),
        Just("-1e999".to_owned()),
        Just("253402300800".to_owned()),
        (1_799_999_800..1_800_000_200_u64).prop_map(|near| near.to_string()),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
        any::<String>(),
    ]
}

proptest! {
    /// Nothing panics, and nothing that is used is further ahead of the believed arrival than allowed.
    #[test]
    fn no_stamp_moves_anything_beyond_arrival_and_skew(
        words in words(),
        as_text in any::<bool>(),
        unit in prop::sample::select(vec![
            TimeUnit::Seconds, TimeUnit::Millis, TimeUnit::Micros, TimeUnit::Nanos, TimeUnit::Rfc3339,
        ]),
        (when_ahead, when_past) in (policy(), policy()),
        skew in 0..400_000_u64,
        past in prop::option::of(0..10_000_000_000_u64),
        received in prop_oneof![Just(NOW.0), CLOCK_SET.0..u64::MAX, any::<u64>()],
    ) {
        let (skew, past) = (Duration::from_secs(skew), past.map(Duration::from_secs));
        let config = Config {
            topics: Vec::new(),
            format: Format::Json,
            key: "k".parse().unwrap(),
            time: Some(Stamp {
                place: Place::Field(vec!["ts".to_owned()]), unit, when_missing: WhenMissing::Arrival,
            }),
            guard: Guard { skew, when_ahead, past, when_past },
        };
        let decode = Decode::new(config);
        let value = if as_text { serde_json::Value::from(words.clone()).to_string() } else { words };
        let received = Timestamp(received);
        let message = Message {
            input: "plant".into(),
            topic: "t".into(),
            payload: format!("{{\"ts\":{value}}}").into_bytes().into(),
            properties: Vec::new(),
            received,
            delivery: MqttDelivery::default(),
        };
        let arrival = Clock::default().tick(received);
        if let Ok((event, found)) = decode.decode(&message, arrival.into()) {
            prop_assert!(event.time <= TIME_MAX);
            prop_assert!(received < CLOCK_SET || event.time <= arrival.after(skew), "{found:?} {}", event.time);
            let bound = past.filter(|_| received >= CLOCK_SET).map_or(Timestamp(0), |past| arrival.before(past).min(TIME_MAX));
            prop_assert!(event.time >= bound, "{found:?} {}", event.time);
        }
        let mut made = Event { time: Timestamp(received.0.rotate_left(9)), ..Event::default() };
        if decode.check(&mut made, arrival.into()).is_ok() {
            prop_assert!(received < CLOCK_SET || made.time <= arrival.after(skew));
        }
    }
}
