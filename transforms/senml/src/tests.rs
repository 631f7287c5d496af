use super::*;
use headwater_module::testing::{TransformProbe, event};

/// RFC 8428, section 6: the second example of 5.1.2 in CBOR.
const CBOR: &str = "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120050067766f6c74\
    6167650161560 2fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccccccd\
    a3006763757272656e74062202fb3ff6666666666666a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff999999999999a\
    a3006763757272656e74060002fb3ffb333333333333";

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

/// Checks the events: name, time in microseconds, payload without its name.
#[track_caller]
fn check(payload: impl AsRef<[u8]>, expected: &[(&str, u64, &str)]) {
    let events = TransformProbe::<SenmlDecoder>::new("{}").unwrap().process(event(payload)).unwrap();
    let found: Vec<_> = events
        .iter()
        .map(|event| {
            let payload = str::from_utf8(&event.payload).unwrap();
            let rest = payload.strip_prefix(&format!(r#"{{"name":"{}","#, event.key)).unwrap();
            (event.key.as_str(), event.time, rest.trim_end_matches('}'))
        })
        .collect();
    assert_eq!(found, expected);
}

/// The time of the event.
const NOW: u64 = 1_767_225_600_000_000;

#[test]
fn resolves_the_examples_of_the_rfc() {
    let one = r#"[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]"#;
    check(one, &[("urn:dev:ow:10e2073a01080063", NOW, r#""unit":"Cel","value":23.1"#)]);

    let two = r#"[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
        {"n":"current","u":"A","v":1.2}]"#;
    let voltage = "urn:dev:ow:10e2073a01080063:voltage";
    let current = "urn:dev:ow:10e2073a01080063:current";
    check(two, &[(voltage, NOW, r#""unit":"V","value":120.1"#), (current, NOW, r#""unit":"A","value":1.2"#)]);

    let types = r#"[{"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},
        {"n":"label","vs":"Machine Room"},{"n":"open","vb":false},{"n":"nfv-reader","vd":"aGkgCg"}]"#;
    let expected = [
        ("urn:dev:ow:10e2073a01080063:temp", NOW, r#""unit":"Cel","value":23.1"#),
        ("urn:dev:ow:10e2073a01080063:label", NOW, r#""value":"Machine Room""#),
        ("urn:dev:ow:10e2073a01080063:open", NOW, r#""value":false"#),
        ("urn:dev:ow:10e2073a01080063:nfv-reader", NOW, r#""value":"aGkgCg""#),
    ];
    check(types, &expected);
}

#[test]
fn resolves_times_and_units_of_the_rfc_in_json_and_cbor_alike() {
    let json = r#"[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,
        "n":"voltage","u":"V","v":120.1},{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3},
        {"n":"current","t":-3,"v":1.4},{"n":"current","t":-2,"v":1.5},{"n":"current","t":-1,"v":1.6},
        {"n":"current","v":1.7}]"#;
    let at = |seconds: u64| 1_276_020_076_001_000 - seconds * 1_000_000;
    let current = "urn:dev:ow:10e2073a0108006:current";
    let expected = [
        ("urn:dev:ow:10e2073a0108006:voltage", at(0), r#""unit":"V","value":120.1"#),
        (current, at(5), r#""unit":"A","value":1.2"#),
        (current, at(4), r#""unit":"A","value":1.3"#),
        (current, at(3), r#""unit":"A","value":1.4"#),
        (current, at(2), r#""unit":"A","value":1.5"#),
        (current, at(1), r#""unit":"A","value":1.6"#),
        (current, at(0), r#""unit":"A","value":1.7"#),
    ];
    check(json, &expected);
    check(hex(CBOR), &expected);
}

#[test]
fn a_base_holds_until_the_next_one_and_adds_up() {
    let pack =
        r#"[{"bn":"a","bv":100,"bs":1000,"v":1,"s":5},{"n":"b","v":2},{"bn":"c","bv":0,"vs":"x","ut":60}]"#;
    let expected = [
        ("a", NOW, r#""value":101.0,"sum":1005.0"#),
        ("ab", NOW, r#""value":102.0,"sum":1000.0"#),
        ("c", NOW, r#""value":"x","sum":1000.0,"update_time":60.0"#),
    ];
    check(pack, &expected);
    check(r#"[{"n":"a","t":-10.5,"v":1}]"#, &[("a", NOW - 10_500_000, r#""value":1.0"#)]);
    check(r#"[{"n":"a","s":1,"x":{"y":[]}}]"#, &[("a", NOW, r#""sum":1.0"#)]);
    // {0: "a", 2: 4([-2, 27315])}
    check(hex("81 a2 00 61 61 02 c4 82 21 19 6ab3"), &[("a", NOW, r#""value":273.15"#)]);
    // {0: "a", 8: h'6869'}
    check(hex("81 a2 00 61 61 08 42 6869"), &[("a", NOW, r#""value":"aGk""#)]);
}

#[test]
fn the_key_is_kept_if_wanted() {
    let mut probe = TransformProbe::<SenmlDecoder>::new(r#"{"key":"keep"}"#).unwrap();
    assert_eq!(probe.process(event(r#"[{"n":"a","v":1}]"#)).unwrap()[0].key, "k");
}

#[test]
fn refuses_a_pack_with_the_record_at_fault() {
    let mut probe = TransformProbe::<SenmlDecoder>::new("{}").unwrap();
    let mut check = |payload: &[u8], expected: &str| {
        let found = probe.process(event(payload)).unwrap_err();
        assert!(found.contains(expected), "{found}");
    };
    check(b"[]", "the pack has no records");
    check(b"", "failed to read the payload as SenML in CBOR");
    check(b"{}", "failed to read the payload as SenML in CBOR");
    check(br#"[{"n":"a","v":1},{"v":1"#, "failed to read the payload as SenML in JSON");
    check(br#"[{"n":"a","v":1},{"v":1}]"#, "record 1: it has no name");
    check(br#"[{"n":"a"}]"#, "record 0: it has neither a value nor a sum");
    check(br#"[{"n":"a","v":1,"vs":"x"}]"#, "record 0: it has more than one value");
    check(br#"[{"n":"a","v":"1"}]"#, "record 0: field `v` is no number");
    check(br#"[{"n":"a","v":1,"new_":1}]"#, "field \"new_\" must be understood, and is not");
    check(br#"[{"n":"a","v":1,"bver":11}]"#, "version 11 is newer than 10");
    check(br#"[{"n":"-a","v":1}]"#, "the name \"-a\" must be letters, digits");
    check(br#"[{"n":"a b","v":1}]"#, "the name \"a b\" must be");
    check(br#"[{"n":"a","vd":"?"}]"#, "field `vd` is no base64url");
    check(br#"[{"n":"a","vb":1}]"#, "field `vb` is of another type");
    check(br#"[{"n":"a","v":1e308,"bv":1e308}]"#, "a value becomes inf");
    check(br#"[{"n":"a","v":1,"t":-1e30}]"#, "its time is -1000000000000000000000000000000 s");
    let long = format!(r#"[{{"bn":"{}","n":"a","v":1}}]"#, "b".repeat(1024));
    check(long.as_bytes(), "its name has 1025 bytes, 1024 are allowed");
    check(&hex("81a1806161"), "a field's label is neither a number nor a text");
    check(&hex("8101"), "a record is no map");
    check(&hex("9bffffffffffffffff"), "failed to read the payload as SenML in CBOR");
}

#[test]
fn whatever_comes_it_answers_with_json_or_a_reason() {
    let cbor = hex(CBOR);
    let json = br#"[{"bn":"urn:a:","bt":1.2e9,"bu":"A","n":"v","u":"V","v":120.1},{"n":"c","t":-5,"vs":"x"},{"n":"d","vd":"aGk"}]"#;
    let mut taken = 0;
    TransformProbe::<SenmlDecoder>::new("{}").unwrap().provoke(&[json, &cbor], 10_000, |payload, answer| {
        for event in answer.into_iter().flatten() {
            let json: Result<serde_json::Value, _> = serde_json::from_slice(&event.payload);
            json.unwrap_or_else(|error| panic!("{error}: {payload:x?}"));
            taken += 1;
        }
    });
    assert!(taken > 100, "{taken}");
}
