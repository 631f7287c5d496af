use super::*;
use headwater_wire::{ParsedLate, ParsedReport, ParsedResult, ResultSpan, ResultState, WindowFacts};
use proptest::prelude::*;

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

fn key(lines: u64) -> BatchKey {
    BatchKey { agent: "plant-7".into(), epoch: EPOCH.parse().unwrap(), first: 5, last: 4 + lines }
}

fn module() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

/// A line with a window, one field of it written differently.
fn window_with(field: &str, json: &str) -> String {
    let mut fields = vec![
        ("agent", "\"plant-7\"".to_owned()),
        ("pipeline", "\"temperature\"".to_owned()),
        ("key", "\"hall/1\"".to_owned()),
        ("window", r#"{"start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:01:00.000001Z"}"#.to_owned()),
        ("revision", "2".to_owned()),
        ("module", format!("\"{}\"", module())),
        ("count", "60".to_owned()),
        ("late", "1".to_owned()),
        ("rejected", "0".to_owned()),
        ("value", r#"{"mean": 21.50, "big": 9007199254740993}"#.to_owned()),
    ];
    fields.retain(|(name, _)| *name != field);
    let mut parts: Vec<_> = fields.iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
    if !json.is_empty() {
        parts.push(format!("\"{field}\":{json}"));
    }
    format!("{{{}}}", parts.join(","))
}

#[track_caller]
fn refused(line: &str, says: &str) {
    let error = ReceivedBatch::parse(key(1), line.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains(says), "{error:?} does not say {says:?}");
}

#[test]
fn reads_a_window_and_keeps_its_value_as_it_was_sent() {
    let line = window_with("", "");
    let batch = ReceivedBatch::parse(key(1), format!("{line}\n").as_bytes()).unwrap();
    let start = 1_767_225_600_000_000;
    assert_eq!(
        batch.lines,
        [ParsedLine::Result(ParsedResult {
            pipeline: "temperature".into(),
            key: "hall/1".into(),
            span: ResultSpan::Window(WindowFacts {
                start,
                end: start + 60_000_001,
                part: 0,
                revision: 2,
                state: ResultState::Closed,
                watermark: None,
                count: 60,
                late: 1,
                rejected: 0
            }),
            module: Some(module()),
            value: r#"{"mean": 21.50, "big": 9007199254740993}"#.into(),
        })]
    );
}

/// The window of a line with these fields after its others.
fn window_of(bounds: &str, counts: &str, fields: &str) -> String {
    format!(
        r#"{{"agent":"plant-7","pipeline":"p","key":"k","window":{{"start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:01:00Z"{bounds}}},"revision":1,{counts}{fields}}}"#
    )
}

const COUNTS: &str = r#""count":3,"late":1,"rejected":0,"value":{}"#;
const NOTHING: &str = r#""count":0,"late":0,"rejected":0,"value":null"#;

#[test]
fn reads_parts_early_results_retractions_and_watermarks() {
    #[track_caller]
    fn check(line: &str, expected: (u32, ResultState, Option<i64>)) {
        let batch = ReceivedBatch::parse(key(1), line.as_bytes()).unwrap();
        let [ParsedLine::Result(ParsedResult { span: ResultSpan::Window(window), .. })] = &batch.lines[..]
        else {
            panic!("it has a window");
        };
        assert_eq!((window.part, window.state, window.watermark), expected);
    }
    check(&window_of("", COUNTS, ""), (0, ResultState::Closed, None));
    check(
        &window_of(r#","part":0"#, COUNTS, r#","early":false,"retracted":false"#),
        (0, ResultState::Closed, None),
    );
    check(&window_of(r#","part":4294967295"#, COUNTS, ""), (u32::MAX, ResultState::Closed, None));
    check(&window_of("", COUNTS, r#","early":true"#), (0, ResultState::Early, None));
    check(&window_of(r#","part":2"#, NOTHING, r#","retracted":true"#), (2, ResultState::Retracted, None));
    let watermark = r#","watermark":"2026-01-01T01:00:00.000001+01:00""#;
    check(&window_of("", COUNTS, watermark), (0, ResultState::Closed, Some(1_767_225_600_000_001)));
}

#[test]
fn refuses_states_that_contradict_themselves() {
    refused(&window_of(r#","part":-1"#, COUNTS, ""), "-1");
    refused(&window_of(r#","part":4294967296"#, COUNTS, ""), "4294967296");
    refused(&window_of(r#","piece":1"#, COUNTS, ""), "unknown field `piece`");
    refused(&window_of("", COUNTS, r#","early":1"#), "boolean");
    refused(&window_of("", NOTHING, r#","early":true,"retracted":true"#), "not both");
    refused(&window_of("", COUNTS, r#","retracted":true"#), "counts of 0 and the value null");
    let late = NOTHING.replace(r#""late":0"#, r#""late":1"#);
    refused(&window_of("", &late, r#","retracted":true"#), "counts of 0 and the value null");
    let valued = NOTHING.replace("null", "0");
    refused(&window_of("", &valued, r#","retracted":true"#), "counts of 0 and the value null");
    refused(&window_of("", COUNTS, r#","watermark":"soon""#), "RFC 3339");
    for field in [r#""early":true"#, r#""retracted":true"#, r#""watermark":"2026-01-01T00:00:00Z""#] {
        let line = format!(
            r#"{{"agent":"plant-7","pipeline":"raw","key":"","time":"2026-01-01T00:00:00Z",{field},"value":null}}"#
        );
        refused(&line, "need a window");
    }
}

#[test]
fn results_of_built_ins_name_their_configuration() {
    let line = window_with("module", "\"builtin:4be3f581a199c013\"");
    let batch = ReceivedBatch::parse(key(1), line.as_bytes());
    assert!(batch.is_ok(), "{batch:?}");
}

#[test]
fn reads_an_event_with_any_value_and_without_a_module() {
    for value in ["17", "null", r#""text""#, "[1,2]"] {
        let line = format!(
            r#"{{"agent":"plant-7","pipeline":"raw","key":"","time":"2026-01-01T01:00:00+01:00","module":null,"value":{value}}}"#
        );
        let batch = ReceivedBatch::parse(key(1), line.as_bytes()).unwrap();
        let [ParsedLine::Result(line)] = &batch.lines[..] else { panic!("it is a result") };
        assert_eq!(line.span, ResultSpan::Event(1_767_225_600_000_000));
        assert_eq!(line.value, value);
    }
}

#[test]
fn reads_a_report_and_keeps_what_it_does_not_know() {
    let body = r#"{"kind":"dropped","stage":"outbox","count":2,"cause":[1]}"#;
    let line = |pipeline, report| {
        format!(
            r#"{{"agent":"plant-7","pipeline":{pipeline},"time":"2026-01-01T00:00:00Z","report":{report}}}"#
        )
    };
    let batch = ReceivedBatch::parse(key(1), line("null", body).as_bytes()).unwrap();
    let time = 1_767_225_600_000_000;
    let report =
        ParsedReport { pipeline: None, time, kind: "dropped".into(), count: Some(2), value: body.into() };
    assert_eq!(batch.lines, [ParsedLine::Report(report)]);
    refused(&line("\"\"", body), "pipeline must have");
    refused(&line("null", r#"{"kind":""}"#), "report.kind must have");
    refused(&line("null", r#"{"count":1}"#), "missing field `kind`");
    refused(&line("null", r#"{"kind":"lost","count":-1}"#), "invalid value");
    refused(&line("null", r#"{"kind":"lost","x":1e999}"#), "number out of range");
}

#[test]
fn names_the_line_and_what_is_wrong_with_it() {
    refused("\n", "EOF");
    refused("{", "EOF");
    refused("[]", "invalid");
    refused(&window_with("pipeline", "\"\""), "pipeline");
    refused(&window_with("pipeline", ""), "pipeline");
    refused(&window_with("key", &format!("\"{}\"", "k".repeat(1025))), "key");
    refused(&window_with("module", "\"sha256:12\""), "module");
    refused(&window_with("module", "\"builtin:0123456789abcdeg\""), "module");
    refused(&window_with("module", "\"builtin:00\""), "module");
    refused(&window_with("surprise", "1"), "unknown field `surprise`");
    refused(&window_with("count", "-1"), "-1");
    refused(&window_with("count", "9223372036854775808"), "2^63");
    refused(&window_with("revision", "1.5"), "1.5");
    refused(&window_with("late", ""), "late");
    refused(&window_with("window", ""), "exactly one");
    refused(&window_with("time", "\"2026-01-01T00:00:00Z\""), "exactly one");
    refused(&window_with("window", r#"{"start":"yesterday","end":"now"}"#), "RFC 3339");
    let backwards = r#"{"start":"2026-01-01T00:01:00Z","end":"2026-01-01T00:00:00Z"}"#;
    refused(&window_with("window", backwards), "after window.start");
    refused(&window_with("value", ""), "value");
    let twice = window_with("", "").replace("\"late\":1", "\"late\":1,\"late\":1");
    refused(&twice, "duplicate field `late`");
}

#[test]
fn refuses_values_that_other_readers_choke_on() {
    refused(&window_with("value", &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))), "recursion");
    refused(&window_with("value", &format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200))), "recursion");
    refused(&window_with("value", "{\"x\":[1e999]}"), "out of range");
    refused(&window_with("value", &"9".repeat(400)), "out of range");
    refused(&window_with("value", r#""\ud800""#), "hex escape");
    refused(&window_with("value", "{\"x\":NaN}"), "");
    let invalid = [b"{\"agent\":\"", &[0xff, 0xfe][..], b"\"}"].concat();
    let error = ReceivedBatch::parse(key(1), &invalid).unwrap_err().to_string();
    assert!(error.contains("utf-8"), "{error}");
}

#[test]
fn names_the_third_line_of_four() {
    let good = window_with("", "");
    let body = format!("{good}\n{good}\n{{\"agent\":1}}\n{good}\n");
    let error = ReceivedBatch::parse(key(4), body.as_bytes()).unwrap_err();
    assert!(matches!(error, BatchError::Malformed { line: 3, .. }), "{error}");
}

#[test]
fn refuses_a_body_that_contradicts_its_key() {
    let other = window_with("agent", "\"plant-8\"");
    let error = ReceivedBatch::parse(key(1), other.as_bytes()).unwrap_err();
    assert_eq!(error, BatchError::Agent { line: 1 });
    let good = window_with("", "");
    for (body, found) in [(String::new(), 0), (good.clone(), 1), (format!("{good}\n{good}\n\n"), 3)] {
        let error = ReceivedBatch::parse(key(2), body.as_bytes()).unwrap_err();
        assert_eq!(error, BatchError::Count { expected: 2, found });
    }
    let huge = BatchKey { first: 0, last: i64::MAX.unsigned_abs(), ..key(1) };
    assert!(ReceivedBatch::parse(huge, good.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn never_panics_on_bytes(body in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(ReceivedBatch::parse(key(1), &body).is_err());
    }
}

/// The line of a late reading with these fields after its others.
fn late_with(fields: &str) -> String {
    format!(
        r#"{{"agent":"plant-7","pipeline":"p","kind":"late","topic":"plant/a","key":"k","time":"1970-01-01T00:00:07Z","value":{{"t":1.50}}{fields}}}"#
    )
}

#[test]
fn reads_a_late_reading_and_takes_it_for_nothing_else() {
    let batch = ReceivedBatch::parse(key(1), late_with(r#","module":null"#).as_bytes()).unwrap();
    let late = ParsedLate {
        pipeline: "p".into(),
        key: "k".into(),
        topic: "plant/a".into(),
        time: 7_000_000,
        module: None,
        value: r#"{"t":1.50}"#.into(),
    };
    assert_eq!(batch.lines, [ParsedLine::Late(late)]);
    refused(&late_with(r#","count":1"#), "unknown field `count`");
    refused(&late_with(r#","module":"stats""#), "module must be");
    refused(&late_with("").replace(r#""topic":"plant/a","#, ""), "missing field `topic`");
    refused(&late_with("").replace(r#""late""#, r#""early""#), "unknown field `kind`");
}
