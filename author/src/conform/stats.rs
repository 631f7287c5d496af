//! The checks of the aggregate `stats`, as `wit/CONFORMANCE.md` describes it.

use super::celsius::refuses;
use super::groups::{AggregateTrial, group};
use super::number::near;
use super::{Check, shown};
use headwater_agent::flow::{Event, Timestamp};
use headwater_agent::module::AggregateModule;
use serde_json::{Map, Value};

/// The settings for the checks of any module.
pub(super) const SETTINGS: &str = r#"{"fields":["t","größe"]}"#;

/// Series, each of which has to come out right.
const SERIES: [&[f64]; 9] = [
    &[20.0],
    &[20.0, 23.0, 21.5],
    &[-1.5, -1.5, -1.5, -1.5],
    &[0.0, -0.0],
    &[1e-100, 2e-100, 5e-324],
    &[1e100, -1e100, 3.0],
    &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
    &[1_000_000.0, 1_000_001.0, 1_000_002.0, 1_000_003.5],
    &[9_007_199_254_740_991.0, 1.0, -9_007_199_254_740_991.0],
];

/// Samples that have no number in either field.
const REJECTED: [&[u8]; 13] = [
    b"",
    b"null",
    b"68",
    b"[{\"t\":68}]",
    b"{\"t\":68",
    b"{\"t\":68}}",
    b"{\"t\":68,}",
    b"{\"t\":68,\"a\":NaN}",
    b"{\"t\":68,\"a\":\"\xff\"}",
    b"{}",
    b"{\"t\":\"68\"}",
    b"{\"t\":1e999,\"gr\xc3\xb6\xc3\x9fe\":true}",
    b"{\"T\":1,\"a\":{\"t\":1}}",
];

const BAD_SETTINGS: [&str; 10] = [
    "",
    "{",
    "[]",
    "{}",
    r#"{"fields":[]}"#,
    r#"{"fields":"t"}"#,
    r#"{"fields":[1]}"#,
    r#"{"fields":["t","a","t"]}"#,
    r#"{"fields":{"t":1}}"#,
    r#"{"fields":["t"],"unknown":1}"#,
];

/// Returns samples that are taken, and some that are not.
pub(super) fn samples() -> Vec<Event> {
    let numbers = SERIES[6].iter().chain(SERIES[7]).zip(0..);
    let mut payloads: Vec<Vec<u8>> =
        numbers.map(|(number, at)| format!(r#"{{"t":{number:?},"größe":{at}}}"#).into_bytes()).collect();
    payloads.extend(REJECTED.map(<[u8]>::to_vec));
    payloads.extend([br#"{"t":5}"#.to_vec(), "{\"größe\":-5.5,\"t\":null}".into()]);
    let event = |payload| Event {
        topic: "plant/7/telemetry".to_owned(),
        key: "7".to_owned(),
        time: Timestamp(1_767_225_600_000_001),
        payload,
    };
    payloads.into_iter().map(event).collect()
}

pub(super) fn checks(module: AggregateModule) -> Vec<Check> {
    let mut trial = AggregateTrial::new(module, SETTINGS);
    vec![
        ("stats: count, mean, min, max and stddev", describes(&mut trial)),
        ("stats: the same when merged", describes_merged(&mut trial)),
        ("stats: each field by itself", keeps_fields_apart(&mut trial)),
        ("stats: an empty state has no members", is_empty(&mut trial)),
        ("stats: rejects a sample without a number", rejects(&mut trial)),
        ("stats: refuses bad settings", refuses(&BAD_SETTINGS, |config| trial.module.renew(config))),
    ]
}

fn state(trial: &mut AggregateTrial, numbers: &[f64]) -> Result<Vec<u8>, String> {
    let sample = |number: &f64| (Timestamp(1), format!(r#"{{"t":{number:?}}}"#).into_bytes());
    let updated = trial.update_whole(&group(&[], &numbers.iter().map(sample).collect::<Vec<_>>()))?;
    match updated.rejected.first() {
        None => Ok(updated.state),
        Some(one) => Err(format!("expected {:?} to be taken, found: {}", numbers[one.index], one.reason)),
    }
}

fn describes(trial: &mut AggregateTrial) -> Result<(), String> {
    SERIES.iter().try_for_each(|numbers| {
        let state = state(trial, numbers)?;
        check(&result(trial, &state)?, &[("t", numbers)])
    })
}

fn describes_merged(trial: &mut AggregateTrial) -> Result<(), String> {
    SERIES.iter().try_for_each(|numbers| {
        let (a, b) = numbers.split_at(numbers.len() / 2);
        let a = state(trial, a)?;
        let b = state(trial, b)?;
        let merged = trial.merge(&a, &b)?;
        check(&result(trial, &merged)?, &[("t", numbers)])
    })
}

fn keeps_fields_apart(trial: &mut AggregateTrial) -> Result<(), String> {
    let samples: Vec<_> =
        [r#"{"t":1,"größe":10}"#, r#"{"t":3,"größe":"x"}"#, r#"{"größe":30}"#, r#"{"t":8}"#]
            .iter()
            .map(|payload| (Timestamp(1), payload.as_bytes().to_vec()))
            .collect();
    let updated = trial.update_whole(&group(&[], &samples))?;
    if let Some(one) = updated.rejected.first() {
        return Err(format!("expected all samples to be taken, found: {}", one.reason));
    }
    let merged = trial.merge(&updated.state, &updated.state)?;
    check(&result(trial, &updated.state)?, &[("t", &[1.0, 3.0, 8.0]), ("größe", &[10.0, 30.0])])?;
    check(
        &result(trial, &merged)?,
        &[("t", &[1.0, 3.0, 8.0, 1.0, 3.0, 8.0]), ("größe", &[10.0, 30.0, 10.0, 30.0])],
    )
}

fn is_empty(trial: &mut AggregateTrial) -> Result<(), String> {
    let state = trial.state(&[])?;
    check(&result(trial, &[])?, &[])?;
    check(&result(trial, &state)?, &[])
}

fn rejects(trial: &mut AggregateTrial) -> Result<(), String> {
    let before = state(trial, &[1.0, 2.0])?;
    for payload in REJECTED {
        let updated = trial.update_whole(&group(&before, &[(Timestamp(1), payload.to_vec())]))?;
        if updated.rejected.len() != 1 {
            return Err(format!("expected a rejection of {}, found none", shown(payload)));
        }
        if updated.state != before {
            return Err(format!(
                "expected the state {} after the rejection of {}, found {}",
                shown(&before),
                shown(payload),
                shown(&updated.state)
            ));
        }
    }
    Ok(())
}

fn result(trial: &mut AggregateTrial, state: &[u8]) -> Result<Map<String, Value>, String> {
    match trial.finish(state)? {
        Ok(Value::Object(members)) => Ok(members),
        Ok(other) => Err(format!("expected an object, found {other}")),
        Err(reason) => Err(format!("expected a result, found the error {reason}")),
    }
}

/// Checks a result against a computation of its own, in two passes.
fn check(found: &Map<String, Value>, expected: &[(&str, &[f64])]) -> Result<(), String> {
    let fields: Vec<_> = found.keys().collect();
    let wanted: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
    if fields.len() != wanted.len() || wanted.iter().any(|name| !found.contains_key(*name)) {
        return Err(format!("expected the members {wanted:?}, found {fields:?}"));
    }
    for (name, numbers) in expected {
        let count = numbers.len() as f64;
        let mean = numbers.iter().map(|number| number / count).sum::<f64>();
        let (min, max) = numbers
            .iter()
            .fold((f64::MAX, f64::MIN), |(min, max), number| (min.min(*number), max.max(*number)));
        let amount = min.abs().max(max.abs());
        // Scaled, so that no square is out of range.
        let scale = if amount == 0.0 { 1.0 } else { amount };
        let squares = numbers.iter().map(|number| ((number - mean) / scale).powi(2)).sum::<f64>();
        let stddev = scale * (squares / count).sqrt();
        let members = [
            ("count", count, 0.0),
            ("min", min, 0.0),
            ("max", max, 0.0),
            ("mean", mean, 1e-12 * amount),
            ("stddev", stddev, (1e-9 * stddev).max(1e-12 * amount)),
        ];
        let described = found[*name].as_object().map_or(0, Map::len);
        if described != members.len() {
            return Err(format!("expected the 5 members of `{name}`, found {}", found[*name]));
        }
        for (member, expected, apart) in members {
            let value = &found[*name][member];
            if !value.as_f64().is_some_and(|value| near(value, expected, apart)) {
                return Err(format!("expected {expected:?} as `{member}` of {numbers:?}, found {value}"));
            }
        }
    }
    Ok(())
}
