//! The decoder: tables of what devices send.

use super::*;
use crate::flow::MqttDelivery;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn message(payload: &[u8]) -> Message {
    Message {
        input: "plant".into(),
        topic: "plant/hall-2/press/telemetry".into(),
        payload: payload.to_vec().into(),
        properties: Vec::new(),
        received: NOW,
        delivery: MqttDelivery::default(),
    }
}

fn config(key: &str, time: Option<(&str, TimeUnit)>) -> Config {
    Config {
        topics: Vec::new(),
        format: Format::Json,
        key: key.parse().unwrap(),
        time: time
            .map(|(path, unit)| stamp(Place::Field(path.split('.').map(str::to_owned).collect()), unit)),
        guard: Guard::default(),
    }
}

fn stamp(place: Place, unit: TimeUnit) -> Stamp {
    Stamp { place, unit, when_missing: WhenMissing::Reject }
}

/// As it arrives: the event, without what its stamp was found to be.
fn decoded(decode: &Decode, message: &Message) -> Result<Event, Error> {
    decode.decode(message, message.received.into()).map(|(event, _)| event)
}

#[track_caller]
fn check_time(unit: TimeUnit, payload: &str, expected: Option<u64>) {
    let decode = Decode::new(config("k", Some(("ts", unit))));
    let time = decoded(&decode, &message(payload.as_bytes())).ok().map(|event| event.time.0);
    assert_eq!(time, expected, "{payload}");
}

#[test]
fn event_time_is_read_in_its_unit() {
    check_time(TimeUnit::Millis, r#"{"ts":1700000000123}"#, Some(1_700_000_000_123_000));
    check_time(TimeUnit::Seconds, r#"{"ts":1700000000}"#, Some(1_700_000_000_000_000));
    check_time(TimeUnit::Seconds, r#"{"ts":1700000000.25}"#, Some(1_700_000_000_250_000));
    check_time(TimeUnit::Seconds, r#"{"ts": 1700000000.1229999}"#, Some(1_700_000_000_122_999));
    check_time(TimeUnit::Millis, r#"{"ts":"1700000000123.4569"}"#, Some(1_700_000_000_123_456));
    check_time(TimeUnit::Seconds, r#"{"ts":1.7e9}"#, Some(1_700_000_000_000_000));
    check_time(TimeUnit::Micros, r#"{"ts":1700000000123456}"#, Some(1_700_000_000_123_456));
    check_time(TimeUnit::Nanos, r#"{"ts":1700000000123456789}"#, Some(1_700_000_000_123_456));
    check_time(TimeUnit::Rfc3339, r#"{"ts":"2023-11-14T22:13:20.5Z"}"#, Some(1_700_000_000_500_000));
    check_time(TimeUnit::Rfc3339, r#"{"ts":"2023-11-14T23:13:20+01:00"}"#, Some(1_700_000_000_000_000));
}

#[test]
fn what_is_no_time_is_refused() {
    check_time(TimeUnit::Millis, r#"{"ts":-5}"#, None);
    check_time(TimeUnit::Millis, r#"{"ts":"1700000000123ms"}"#, None);
    check_time(TimeUnit::Millis, r#"{"ts":true}"#, None);
    check_time(TimeUnit::Millis, r#"{"ts":""}"#, None);
    check_time(TimeUnit::Rfc3339, r#"{"ts":1700000000}"#, None);
    check_time(TimeUnit::Millis, r#"{"ts":null}"#, None);
    check_time(TimeUnit::Millis, r#"{"ts":{"a":1}}"#, None);
    check_time(TimeUnit::Millis, r#"{"other":1}"#, None);
    check_time(TimeUnit::Millis, "[1]", None);
    check_time(TimeUnit::Seconds, r#"{"ts":1e300}"#, None);
    check_time(TimeUnit::Seconds, r#"{"ts":18446744073709551615}"#, None);
    check_time(TimeUnit::Rfc3339, r#"{"ts":"2023-11-14T22:13:20"}"#, None);
    check_time(TimeUnit::Micros, r#"{"ts":1,"ts":2}"#, None);
}

#[test]
fn event_time_stands_in_the_topic_or_a_user_property_too() {
    let mut message = message(b"21.5");
    message.topic = "plant/press/1700000000/t".into();
    message.properties = vec![("ts".into(), "2023-11-14T22:13:20.5Z".into()), ("n".into(), "x".into())];
    let read = |place: Place, unit| {
        let config = Config { time: Some(stamp(place, unit)), ..config("k", None) };
        decoded(&Decode::new(config), &message).map(|event| event.time.0)
    };
    let property = |name: &str| Place::Property(name.to_owned());
    assert_eq!(read(Place::Topic(2), TimeUnit::Seconds), Ok(1_700_000_000_000_000));
    assert_eq!(read(property("ts"), TimeUnit::Rfc3339), Ok(1_700_000_000_500_000));
    for (place, unit, word) in [
        (Place::Topic(1), TimeUnit::Seconds, "topic level 1 holds press, which is no time in seconds"),
        (Place::Topic(4), TimeUnit::Seconds, "topic level 4 is missing"),
        (property("n"), TimeUnit::Millis, "user property `n` holds x"),
        (property("other"), TimeUnit::Millis, "user property `other` is missing"),
    ] {
        let refused = read(place, unit).unwrap_err().to_string();
        assert!(refused.contains(word), "{word:?} is not in {refused:?}");
    }
}

#[test]
fn a_missing_stamp_is_refused_or_the_arrival_as_configured_and_a_broken_one_always_refused() {
    let mut config = config("k", Some(("ts", TimeUnit::Millis)));
    config.time.as_mut().unwrap().when_missing = WhenMissing::Arrival;
    let decode = Decode::new(config);
    for payload in ["{}", r#"{"ts":null}"#, r#"{"ts":[1]}"#, "5"] {
        let (event, found) = decode.decode(&message(payload.as_bytes()), NOW.into()).unwrap();
        assert_eq!((event.time, found), (NOW, Found::Missing), "{payload}");
    }
    for payload in [r#"{"ts":"soon"}"#, r#"{"ts":true}"#, r#"{"ts":1e999}"#] {
        assert!(decoded(&decode, &message(payload.as_bytes())).is_err(), "{payload}");
    }
}

#[test]
fn what_a_transform_makes_keeps_to_the_same_bounds() {
    let decode = Decode::new(config("k", None));
    let check = |key: &str, micros: u64| {
        let mut event = Event { key: key.to_owned(), time: Timestamp(micros), ..Event::default() };
        decode.check(&mut event, NOW.into()).is_ok()
    };
    assert!(check("k", NOW.0) && check("k", NOW.after(Duration::from_mins(5)).0));
    assert!(!check("k", NOW.after(Duration::from_mins(6)).0), "it would make all others late");
    assert!(!check("k", u64::MAX));
    assert!(!check(&"k".repeat(KEY_BYTES_MAX + 1), NOW.0));
}

#[test]
fn poison_is_refused_with_a_reason() {
    let decode = Decode::new(config("{topic[1]}", None));
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let twice = (0..40).map(|n| format!("\"f{n}\":0,")).collect::<String>();
    let twice = format!("{{{twice}\"f39\":1}}");
    for payload in [
        &b""[..],
        b"{",
        b"{}x",
        b"1e999",
        b"{\"a\":\"\xff\"}",
        b"nul",
        br#"{"a":1,"a":1}"#,
        br#"[{"a":1,"\u0061":1}]"#,
        br#"{"a":9007199254740993}"#,
        br#"{"a":-9007199254740993}"#,
        br#"{"a":123456789012345678901}"#,
        br#"{"a":[-123456789012345678901]}"#,
        twice.as_bytes(),
        deep.as_bytes(),
        b"\xef\xbb\xbf{}",
        b"{\"a\":\"\0\"}",
        b"{}\0",
        b"\xff\xfe{\0}\0",
        "9".repeat(8 << 20).as_bytes(),
        format!("{{\"a\":-{}.5}}", "9".repeat(8 << 20)).as_bytes(),
        format!("{{\"a\":1e{}}}", "9".repeat(8 << 20)).as_bytes(),
    ] {
        let refused = decoded(&decode, &message(payload));
        assert!(matches!(refused, Err(Error::Json(_))), "{:.99?}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn what_only_looks_like_poison_passes() {
    let decode = Decode::new(config("{field.id}", Some(("ts", TimeUnit::Nanos))));
    for payload in [
        r#"{"id":9007199254740992,"ts":1700000000123456789,"a":{"id":1},"b":{"id":1}}"#,
        r#"{"id":18446744073709551615,"ts":1700000000123456789,"a":9007199254740992}"#,
        r#"{"id":"a","ts":1,"a":1e20,"b":123456789012345678901.5,"c":"\"123456789012345678901"}"#,
        r#"{"id":"a","ts":1,"a":12345678901234567890e2,"b":{"a":-9007199254740992}}"#,
    ] {
        decoded(&decode, &message(payload.as_bytes())).expect(payload);
    }
}

#[track_caller]
fn check_key(template: &str, payload: &str, expected: Option<&str>) {
    let key = decoded(&Decode::new(config(template, None)), &message(payload.as_bytes()));
    assert_eq!(key.ok().map(|event| event.key).as_deref(), expected, "{template} {payload}");
}

#[test]
fn keys_come_from_topic_and_fields() {
    check_key("{topic[1]}/{topic[2]}", "{}", Some("hall-2/press"));
    check_key("{topic}", "{}", Some("plant/hall-2/press/telemetry"));
    check_key("{field.device}", r#"{"device":"a-7"}"#, Some("a-7"));
    check_key("{field.device}", r#"{"device":7}"#, Some("7"));
    check_key("{field.meta.id}-{topic[2]}", r#"{"meta":{"x":[1],"id":true}}"#, Some("true-press"));
    check_key("{topic[9]}", "{}", None);
    check_key("{field.device}", "{}", None);
    check_key("{field.device}", r#"{"device":[]}"#, None);
    check_key("{field.d}", &format!(r#"{{"d":"{}"}}"#, "x".repeat(KEY_BYTES_MAX + 1)), None);
}

#[track_caller]
fn check_number(payload: &str, expected: Option<&str>) {
    let mut config = config("k", None);
    config.format = Format::Number;
    let event = decoded(&Decode::new(config), &message(payload.as_bytes())).ok();
    let text = event.map(|event| String::from_utf8(event.payload).unwrap());
    assert_eq!(text.as_deref(), expected, "{payload}");
}

#[test]
fn plain_numbers_become_json() {
    check_number("21.5", Some(r#"{"value":21.5}"#));
    check_number(" +5\n", Some(r#"{"value":5}"#));
    check_number("9007199254740992", Some(r#"{"value":9007199254740992}"#));
    check_number("9007199254740993", None);
    check_number("nan", None);
    check_number("inf", None);
    check_number("1e999", None);
    check_number("21,5", None);
    check_number("", None);
}

#[test]
fn bytes_are_an_event_as_they_are() {
    let mut config = config("{topic[1]}", None);
    config.format = Format::Bytes;
    let event = decoded(&Decode::new(config), &message(b"\xff\0{")).unwrap();
    assert_eq!(event.payload, b"\xff\0{");
}

#[test]
fn a_stamp_that_readers_behind_us_would_round_is_poison_as_anywhere_else() {
    let decode = Decode::new(config("k", Some(("ts", TimeUnit::Micros))));
    let refused = decoded(&decode, &message(br#"{"ts":123456789012345678901}"#));
    assert!(matches!(refused, Err(Error::Json(_))), "{refused:?}");
}
