//! The checks of the transform `celsius`, as `wit/CONFORMANCE.md` describes it.

use super::number::{equal, near};
use super::transform::{TransformTrial, told};
use super::{Check, shown};
use headwater_agent::flow::{Event, Timestamp};
use headwater_agent::module::TransformModule;
use serde_json::Value;

/// The settings for the checks of any module.
pub(super) const SETTINGS: &str = r#"{"field":"t"}"#;

/// Payloads, and the number in their field `t`.
const NUMBERS: [(&str, f64); 14] = [
    (r#"{"t":212}"#, 212.0),
    (r#"{"t":-40}"#, -40.0),
    (r#"{"t":0}"#, 0.0),
    (r#"{"t":-0.0}"#, 0.0),
    (r#"{"t":98.6}"#, 98.6),
    (r#"{"t":1.5e2}"#, 150.0),
    (r#"{"t":1E+2}"#, 100.0),
    (r#"{"t":5e-324}"#, 5e-324),
    (r#"{"t":1.7976931348623157e308}"#, f64::MAX),
    (r#"{"t":0.1000000000000000055511151231257827}"#, 0.1),
    (r#"{"t":9007199254740991}"#, 9_007_199_254_740_991.0),
    (r#" { "a" : {"t":1} , "t" : 68 } "#, 68.0),
    (r#"{"\u0074":68}"#, 68.0),
    ("\t{\"a\":[[[]]],\r\n\"t\":68}\n", 68.0),
];

const NO_OBJECTS: [&[u8]; 25] = [
    b"",
    b" ",
    b"null",
    b"68",
    b"\"t\"",
    b"[{\"t\":68}]",
    b"{\"t\":68",
    b"{\"t\":68}}",
    b"{\"t\":68} {}",
    b"{\"t\":68,}",
    b"{,\"t\":68}",
    b"{\"t\" 68}",
    b"{t:68}",
    b"{'t':68}",
    b"{\"t\":68,\"a\":tru}",
    b"{\"t\":68,\"a\":NaN}",
    b"{\"t\":68,\"a\":01}",
    b"{\"t\":68,\"a\":+1}",
    b"{\"t\":68,\"a\":.5}",
    b"{\"t\":68,\"a\":1.}",
    b"{\"t\":68,\"a\":\"\\x\"}",
    b"{\"t\":68,\"a\":\"\n\"}",
    b"{\"t\":68,\"a\":\"\xff\"}",
    b"{\"t\":68,\"a\":[1}",
    b"/**/{\"t\":68}",
];

const NO_NUMBERS: [&str; 9] = [
    r#"{"t":"68"}"#,
    r#"{"t":true}"#,
    r#"{"t":null}"#,
    r#"{"t":[68]}"#,
    r#"{"t":{"t":68}}"#,
    r#"{"t":""}"#,
    r#"{"t":1e999}"#,
    r#"{"t":-1e999}"#,
    r#"{"t":{}}"#,
];

const MISSING: [&str; 4] = ["{}", r#"{"T":68}"#, r#"{"a":{"t":68}}"#, r#"{"tt":68,"":1}"#];

const BAD_SETTINGS: [&str; 13] = [
    "",
    "{",
    "[]",
    "{}",
    r#"{"field":1}"#,
    r#"{"field":"t","from":"rankine"}"#,
    r#"{"field":"t","from":1}"#,
    r#"{"field":"t","unknown":1}"#,
    r#"{"field":"t","repeat":-1}"#,
    r#"{"field":"t","repeat":1.5}"#,
    r#"{"field":"t","repeat":256}"#,
    r#"{"field":"t","repeat":"3"}"#,
    r#"{"field":"t","repeat":true}"#,
];

/// The time between the events of one, in microseconds.
const SECOND: u64 = 1_000_000;

/// A payload with members beside the field, all of them to be kept.
const OTHERS: &str = r#"{"id":"a\"\\\u00e9\n😀","t":68,"n":9007199254740991,"m":-9007199254740991,"f":0.1,"x":null,"l":[1,"2",{"y":false,"z":[]}],"o":{"t":68,"":{}},"":true}"#;

/// Returns events that are taken, and some that are not.
pub(super) fn samples() -> Vec<Event> {
    let payloads = NUMBERS.iter().map(|(payload, _)| *payload).chain(NO_NUMBERS).chain(MISSING);
    payloads.map(|payload| event(payload.as_bytes())).collect()
}

pub(super) fn checks(module: TransformModule) -> Vec<Check> {
    let mut trial = TransformTrial::new(module, SETTINGS);
    vec![
        ("celsius: from fahrenheit, which is the default", {
            let given = converts(&mut trial, r#"{"field":"t","from":"fahrenheit"}"#, |t| (t - 32.0) / 1.8);
            given.and_then(|()| converts(&mut trial, SETTINGS, |t| (t - 32.0) / 1.8))
        }),
        ("celsius: from kelvin", {
            converts(&mut trial, r#"{"field":"t","from":"kelvin"}"#, |t| t - 273.15)
        }),
        ("celsius: from celsius", converts(&mut trial, r#"{"field":"t","from":"celsius"}"#, |t| t)),
        ("celsius: names of any script", finds_names(&mut trial)),
        ("celsius: keeps the other members", keeps_the_others(&mut trial)),
        ("celsius: keeps topic, key, time and order", keeps_the_rest(&mut trial)),
        ("celsius: passes each event once, as `repeat` = 1 says", repeats(&mut trial, 1)),
        ("celsius: drops events, as `repeat` = 0 says", repeats(&mut trial, 0)),
        ("celsius: splits each event into three, as `repeat` = 3 says", repeats(&mut trial, 3)),
        ("celsius: takes 100 levels", takes_levels(&mut trial)),
        ("celsius: rejects what is no JSON object", rejects(&mut trial, NO_OBJECTS)),
        ("celsius: rejects a field that is no number", rejects(&mut trial, NO_NUMBERS.map(str::as_bytes))),
        ("celsius: rejects a missing field", rejects(&mut trial, MISSING.map(str::as_bytes))),
        ("celsius: rejects one event among others", rejects_among_others(&mut trial)),
        ("celsius: refuses bad settings", refuses(&BAD_SETTINGS, |config| trial.renew(config))),
    ]
}

/// Checks that `init` answers each of the settings with an error.
pub(super) fn refuses(
    settings: &[&str],
    mut renew: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), String> {
    let accepted = settings.iter().find(|config| renew(config).is_ok());
    accepted.map_or(Ok(()), |config| {
        Err(format!("expected an error for the settings {}, found none", shown(config.as_bytes())))
    })
}

fn event(payload: &[u8]) -> Event {
    Event {
        topic: "plant/7/telemetry".to_owned(),
        key: "7".to_owned(),
        time: Timestamp(1_767_225_600_000_001),
        payload: payload.to_vec(),
    }
}

fn converts(trial: &mut TransformTrial, settings: &str, convert: fn(f64) -> f64) -> Result<(), String> {
    trial.renew(settings)?;
    NUMBERS.iter().try_for_each(|(payload, number)| {
        let found = only(trial, &event(payload.as_bytes()))?;
        let expected = convert(*number);
        let converted = found["t"].as_f64();
        let apart = 1e-12 * expected.abs().max(1.0);
        let good = converted.is_some_and(|converted| near(converted, expected, apart));
        good.then_some(()).ok_or_else(|| {
            format!("expected {expected:?} for {}, found {}", shown(payload.as_bytes()), found["t"])
        })
    })
}

fn finds_names(trial: &mut TransformTrial) -> Result<(), String> {
    for name in ["größe", "温度", "a b", "", "\"\\", "👩‍🏭", "constructor", "__proto__", "t.u"] {
        let settings = serde_json::json!({ "field": name, "from": "kelvin" });
        trial.renew(&settings.to_string())?;
        let payload = serde_json::json!({ name: 300 }).to_string();
        let found = only(trial, &event(payload.as_bytes()))?;
        if !found[name].as_f64().is_some_and(|found| near(found, 26.85, 1e-12)) {
            return Err(format!("expected 26.85 in the field {name:?}, found {found}"));
        }
    }
    trial.renew(SETTINGS)
}

fn keeps_the_others(trial: &mut TransformTrial) -> Result<(), String> {
    let mut found = only(trial, &event(OTHERS.as_bytes()))?;
    let mut expected: Value = serde_json::from_str(OTHERS).map_err(|error| error.to_string())?;
    found["t"] = Value::Null;
    expected["t"] = Value::Null;
    equal(&found, &expected).then_some(()).ok_or_else(|| format!("expected {expected}, found {found}"))
}

fn keeps_the_rest(trial: &mut TransformTrial) -> Result<(), String> {
    let texts = ["", "a/b", "温度/👩‍🏭", "\u{0}\u{feff}"];
    let times = [0, 1, 1_767_225_600_000_001, (1 << 53) - 1];
    let events: Vec<Event> = texts
        .iter()
        .zip(times)
        .map(|(text, time)| Event {
            topic: (*text).to_owned(),
            key: format!("{text} key"),
            time: Timestamp(time),
            payload: format!("{{\"t\":{}}}", time % 1000).into_bytes(),
        })
        .collect();
    let (found, rejected) = trial.call(&events)?;
    if found.len() != events.len() {
        return Err(format!("expected {} events, found {} and {rejected:?}", events.len(), found.len()));
    }
    events.iter().zip(&found).try_for_each(|(expected, found)| {
        let kept = (&found.topic, &found.key, found.time) == (&expected.topic, &expected.key, expected.time);
        kept.then_some(()).ok_or_else(|| {
            format!("expected all but the payload of {}, found {}", told(expected), told(found))
        })
    })
}

/// Checks that each of several events gives so many, a second apart, in their order; a rejected one among them gives
/// none.
fn repeats(trial: &mut TransformTrial, count: u64) -> Result<(), String> {
    trial.renew(&format!(r#"{{"field":"t","from":"celsius","repeat":{count}}}"#))?;
    let given =
        [r#"{"t":1}"#, r#"{"t":2,"a":[]}"#, "{}", r#"{"t":3}"#].map(|payload| event(payload.as_bytes()));
    let (found, rejected) = trial.call(&given)?;
    let numbers = |events: &[Event]| -> Vec<(u64, Option<f64>)> {
        let number =
            |payload| serde_json::from_slice(payload).ok().and_then(|value: Value| value["t"].as_f64());
        events.iter().map(|event| (event.time.0, number(&event.payload))).collect()
    };
    let taken = numbers(&given).into_iter().filter(|(_, number)| number.is_some());
    let expected: Vec<_> =
        taken.flat_map(|(time, number)| (0..count).map(move |n| (time + n * SECOND, number))).collect();
    let found = numbers(&found);
    if found != expected {
        return Err(format!("expected the times and numbers {expected:?}, found {found:?}"));
    }
    let indexes: Vec<_> = rejected.iter().map(|one| one.index).collect();
    (indexes == [2]).then_some(()).ok_or_else(|| format!("expected input 2 rejected, found {indexes:?}"))?;
    trial.renew(SETTINGS)
}

fn takes_levels(trial: &mut TransformTrial) -> Result<(), String> {
    let payload = [b"{\"t\":68,\"a\":", [b'['; 99].as_slice(), &[b']'; 99], b"}"].concat();
    only(trial, &event(&payload)).map(drop)
}

fn rejects<const N: usize>(trial: &mut TransformTrial, payloads: [&[u8]; N]) -> Result<(), String> {
    payloads.iter().try_for_each(|payload| {
        let (events, rejected) = trial.call(&[event(payload)])?;
        match (events.as_slice(), rejected.as_slice()) {
            ([], [_]) => Ok(()),
            (events, _) => {
                let events: Vec<_> = events.iter().map(told).collect();
                Err(format!("expected a rejection of {}, found {events:?}", shown(payload)))
            }
        }
    })
}

fn rejects_among_others(trial: &mut TransformTrial) -> Result<(), String> {
    let good = || event(br#"{"t":68}"#);
    let (events, rejected) = trial.call(&[good(), event(b"{}"), good(), event(b"null"), good()])?;
    let indexes: Vec<_> = rejected.iter().map(|one| one.index).collect();
    (events.len() == 3 && indexes == [1, 3]).then_some(()).ok_or_else(|| {
        format!("expected 3 events and the inputs 1 and 3 rejected, found {} and {indexes:?}", events.len())
    })
}

/// Returns the payload of the one event that an event becomes.
fn only(trial: &mut TransformTrial, event: &Event) -> Result<Value, String> {
    let (events, rejected) = trial.call(std::slice::from_ref(event))?;
    let [one] = events.as_slice() else {
        let rejected: Vec<_> = rejected.iter().map(|one| &one.reason).collect();
        let payload = shown(&event.payload);
        return Err(format!(
            "expected one event for {payload}, found {}, and the rejections {rejected:?}",
            events.len()
        ));
    };
    serde_json::from_slice(&one.payload)
        .map_err(|error| format!("expected JSON, found {}: {error}", shown(&one.payload)))
}
