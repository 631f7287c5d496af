use super::*;
use headwater_module::testing::TransformProbe;

#[track_caller]
fn check(config: &str, payload: &str, expected: Result<&str, &str>) {
    let mut probe = TransformProbe::<FieldSelection>::new(config).unwrap();
    let found = probe.payloads(payload).map(|payloads| payloads.concat());
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected),
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
        (found, _) => panic!("{found:?}, not {expected:?}"),
    }
}

#[test]
fn keeps_drops_renames_scales_and_flattens() {
    let payload = r#"{"id":7,"env":{"temp":655,"rh":40},"raw":[1]}"#;
    let all = r#"{"flatten":".","keep":["id","env.temp","env.rh"],
        "scale":{"env.temp":{"factor":0.1,"offset":-40}},"rename":{"env.temp":"celsius"}}"#;
    check(all, payload, Ok(r#"{"id":7,"celsius":25.5,"env.rh":40}"#));
    check("{}", payload, Ok(payload));
    check(r#"{"drop":["env","none"]}"#, payload, Ok(r#"{"id":7,"raw":[1]}"#));
    check(r#"{"flatten":"_"}"#, payload, Ok(r#"{"id":7,"env_temp":655,"env_rh":40,"raw":[1]}"#));
    check(r#"{"rename":{"id":"raw","raw":"id"},"drop":["env"]}"#, payload, Ok(r#"{"raw":7,"id":[1]}"#));
    check(r#"{"scale":{"id":{"offset":1}},"keep":["id"]}"#, payload, Ok(r#"{"id":8.0}"#));
}

#[test]
fn leaves_numbers_texts_and_blanks_as_they_are() {
    let payload = r#"{"n":123456789012345678901234567890,"x": [1.50, 1e2] ,"t\u0065":"\u00e9"}"#;
    let expected = r#"{"n":123456789012345678901234567890,"x":[1.50, 1e2],"te":"\u00e9"}"#;
    check("{}", payload, Ok(expected));
}

#[test]
fn refuses_in_words() {
    check(r#"{"keep":["b"]}"#, r#"{"a":1}"#, Err(r#"none of the fields {"b"} is there"#));
    check(r#"{"scale":{"a":{}}}"#, r#"{"a":"1"}"#, Err("field `a` is not a number: \"1\""));
    check(r#"{"scale":{"a":{"factor":1e300}}}"#, r#"{"a":1e300}"#, Err("field `a` would become inf"));
    check(r#"{"rename":{"a":"b"}}"#, r#"{"a":1,"b":2}"#, Err("two fields would have the name `b`"));
    check(r#"{"flatten":"."}"#, r#"{"a":{"b":1},"a.b":2}"#, Err("two fields would have the name `a.b`"));
    check("{}", "[1]", Err("not a JSON object"));
    let deep = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    check(r#"{"flatten":"."}"#, &deep, Err("nested more than 128 deep"));
}

#[test]
fn refuses_settings_that_contradict_each_other() {
    let fault = |config: &str| TransformProbe::<FieldSelection>::new(config).unwrap_err();
    assert!(fault(r#"{"keep":["a"],"drop":["b"]}"#).contains("exclude each other"));
    assert!(fault(r#"{"keep":[]}"#).contains("`keep` is empty"));
    assert!(fault(r#"{"rename":{"a":"c","b":"c"}}"#).contains("two fields the name `c`"));
    assert!(fault(r#"{"kep":[]}"#).contains("unknown field `kep`"));
}

#[test]
fn whatever_comes_it_answers_with_json_or_a_reason() {
    let config = r#"{"flatten":".","drop":["x"],"scale":{"a.b":{"factor":2}},"rename":{"c":"d"}}"#;
    let mut probe = TransformProbe::<FieldSelection>::new(config).unwrap();
    let samples: [&[u8]; 2] =
        [br#"{"a":{"b":1.5,"x":{}},"c":[1,{"e":"\u00e9"}]}"#, br#"{"x":1,"a":{"b":{}}}"#];
    let mut taken = 0;
    probe.provoke(&samples, 5000, |payload, answer| {
        if let Ok(events) = answer {
            JsonObject::parse(&events[0].payload).unwrap_or_else(|error| panic!("{error}: {payload:?}"));
            taken += 1;
        }
    });
    assert!(taken > 100, "{taken}");
}
