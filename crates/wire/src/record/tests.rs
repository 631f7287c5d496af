//! Every form against its golden bytes, and against itself.

use headwater_flow::{LossReport, ReportKind, Timestamp, UNKNOWN_SPAN};
use proptest::prelude::*;

use super::*;
use crate::strategies::{any_opaque, any_record};

const MINUTE: Timestamp = Timestamp(60_000_000);

fn window() -> WindowResult<'static> {
    WindowResult {
        agent: "gw".into(),
        pipeline: "t".into(),
        key: "hall \"2\"\n".into(),
        start: MINUTE,
        end: Timestamp(120_000_000),
        part: 0,
        revision: 1,
        state: ResultState::Closed,
        module: Some(ModuleDigest::from("sha256:0")),
        count: 3,
        late: 1,
        rejected: 2,
        watermark: Some(Timestamp(121_500_000)),
        value: JsonText::checked(b"{\n  \"mean\": 1.5\r\n}").unwrap(),
    }
}

fn report() -> LossReport {
    LossReport {
        kind: ReportKind::Dropped,
        stage: "outbox".into(),
        count: Some(2),
        first: Some(7),
        last: None,
        from: Some(Timestamp(0)),
        to: None,
        reason: "the outbox is \"full\"".to_owned(),
    }
}

/// One of each kind, with what it is as bytes and as a line.
fn golden() -> Vec<(Record<'static>, &'static [u8], &'static str)> {
    let part = WindowResult {
        key: "k".into(),
        part: 300,
        state: ResultState::Early,
        module: Some(ModuleDigest::from("builtin:4be3f581a199c013")),
        ..window()
    };
    let retracted = WindowResult {
        key: "".into(),
        revision: 2,
        state: ResultState::Retracted,
        module: Some(ModuleDigest::Sha256([0xab; 32])),
        count: 0,
        late: 0,
        rejected: 0,
        watermark: None,
        value: JsonText::checked(b"null").unwrap(),
        ..window()
    };
    let event = EventResult {
        agent: "gw".into(),
        pipeline: "t".into(),
        key: "k".into(),
        time: MINUTE,
        module: None,
        value: JsonText::checked(b"{\"a\":1}").unwrap(),
    };
    let late = LateReading {
        agent: "gw".into(),
        pipeline: "t".into(),
        topic: "plant/\u{e9}".into(),
        key: "k".into(),
        time: Timestamp(7),
        module: None,
        value: JsonText::checked(b"1.50").unwrap(),
    };
    let loss = AgentReport { agent: "gw".into(), pipeline: None, time: MINUTE, report: report() };
    let of_one = AgentReport { pipeline: Some("t".into()), ..loss.clone() };
    let opaque = OpaqueLine { pipeline: "t".into(), key: "k".into(), line: b"{ }".as_slice().into() };
    vec![
        (
            Record::Window(window()),
            b"\x01\x01\x02gw\x01t\x09hall \"2\"\n\x80\x8e\xce\x1c\x80\x9c\x9c\x39\x00\x01\x00\x03\x08sha256:0\
              \x03\x01\x02\x01\xe0\xe2\xf7\x39{   \"mean\": 1.5  }",
            r#"{"agent":"gw","pipeline":"t","key":"hall \"2\"\n","window":{"start":"1970-01-01T00:01:00Z","end":"1970-01-01T00:02:00Z"},"revision":1,"module":"sha256:0","count":3,"late":1,"rejected":2,"watermark":"1970-01-01T00:02:01.5Z","value":{   "mean": 1.5  }}"#,
        ),
        (
            Record::Window(part),
            b"\x01\x01\x02gw\x01t\x01k\x80\x8e\xce\x1c\x80\x9c\x9c\x39\xac\x02\x01\x01\x02\x4b\xe3\xf5\x81\xa1\x99\xc0\x13\
              \x03\x01\x02\x01\xe0\xe2\xf7\x39{   \"mean\": 1.5  }",
            r#"{"agent":"gw","pipeline":"t","key":"k","window":{"start":"1970-01-01T00:01:00Z","end":"1970-01-01T00:02:00Z","part":300},"revision":1,"early":true,"module":"builtin:4be3f581a199c013","count":3,"late":1,"rejected":2,"watermark":"1970-01-01T00:02:01.5Z","value":{   "mean": 1.5  }}"#,
        ),
        (
            Record::Window(retracted),
            b"\x01\x01\x02gw\x01t\x00\x80\x8e\xce\x1c\x80\x9c\x9c\x39\x00\x02\x02\x01\
              \xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\
              \xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\xab\x00\x00\x00\x00null",
            r#"{"agent":"gw","pipeline":"t","key":"","window":{"start":"1970-01-01T00:01:00Z","end":"1970-01-01T00:02:00Z"},"revision":2,"retracted":true,"module":"sha256:abababababababababababababababababababababababababababababababab","count":0,"late":0,"rejected":0,"value":null}"#,
        ),
        (
            Record::Event(event),
            b"\x01\x02\x02gw\x01t\x01k\x80\x8e\xce\x1c\x00{\"a\":1}",
            r#"{"agent":"gw","pipeline":"t","key":"k","time":"1970-01-01T00:01:00Z","module":null,"value":{"a":1}}"#,
        ),
        (
            Record::Late(late),
            b"\x01\x03\x02gw\x01t\x08plant/\xc3\xa9\x01k\x07\x001.50",
            "{\"agent\":\"gw\",\"pipeline\":\"t\",\"kind\":\"late\",\"topic\":\"plant/\u{e9}\",\"key\":\"k\",\"time\":\"1970-01-01T00:00:00.000007Z\",\"module\":null,\"value\":1.50}",
        ),
        (
            Record::Report(loss),
            b"\x01\x04\x02gw\x00\x80\x8e\xce\x1c\x01\x06outbox\x01\x02\x01\x07\x00\x01\x00\x00the outbox is \"full\"",
            r#"{"agent":"gw","pipeline":null,"report":{"count":2,"first":7,"from":"1970-01-01T00:00:00Z","kind":"dropped","last":null,"reason":"the outbox is \"full\"","stage":"outbox","to":null},"time":"1970-01-01T00:01:00Z"}"#,
        ),
        (
            Record::Report(of_one),
            b"\x01\x04\x02gw\x01\x01t\x80\x8e\xce\x1c\x01\x06outbox\x01\x02\x01\x07\x00\x01\x00\x00the outbox is \"full\"",
            r#"{"agent":"gw","pipeline":"t","report":{"count":2,"first":7,"from":"1970-01-01T00:00:00Z","kind":"dropped","last":null,"reason":"the outbox is \"full\"","stage":"outbox","to":null},"time":"1970-01-01T00:01:00Z"}"#,
        ),
        (Record::Opaque(opaque), b"\x01\x05\x01t\x01k{ }", "{ }"),
    ]
}

#[test]
fn each_kind_has_its_bytes_and_its_line() {
    for (record, bytes, line) in golden() {
        assert_eq!(record.to_bytes(), bytes, "{}", record.to_bytes().escape_ascii());
        assert_eq!(String::from_utf8(record.to_line()).unwrap(), line);
        assert_eq!(Record::from_bytes(bytes).unwrap(), record);
    }
}

/// What the agent wrote before there were records: serde's own way, field by field.
#[test]
fn a_report_is_written_as_a_map_in_the_order_of_its_names() {
    let report = report();
    let line = serde_json::json!({ "agent": "gw", "pipeline": null, "time": MINUTE, "report": report });
    let record = Record::Report(AgentReport { agent: "gw".into(), pipeline: None, time: MINUTE, report });
    assert_eq!(String::from_utf8(record.to_line()).unwrap(), line.to_string());
}

#[test]
fn a_line_that_is_not_exactly_a_record_s_stays_as_it_is() {
    for (_, _, line) in golden() {
        let is_strict = line != "{ }" && !line.contains("sha256:0\"");
        assert_eq!(Record::from_line(line.as_bytes()).is_ok(), is_strict, "{line}");
        let record = Record::of_line(line.as_bytes(), "t");
        assert_eq!(matches!(record, Record::Opaque(_)), !is_strict, "{line}");
        assert_eq!(record.to_line(), line.as_bytes());
        let spaced = line.replacen(':', ": ", 1);
        let opaque = OpaqueLine { pipeline: "t".into(), key: "".into(), line: spaced.as_bytes().into() };
        assert_eq!(Record::of_line(spaced.as_bytes(), "t"), Record::Opaque(opaque));
    }
    let early = r#"{"agent":"gw","pipeline":"t","key":"","time":"1969-12-31T23:59:59Z","value":1}"#;
    assert!(Record::from_line(early.as_bytes()).unwrap_err().to_string().contains("before 1970"));
    let unknown = r#"{"agent":"gw","pipeline":null,"time":"1970-01-01T00:00:00Z","report":{"kind":"eaten","stage":"s","reason":""}}"#;
    assert!(Record::from_line(unknown.as_bytes()).is_err());
}

#[test]
fn a_record_says_of_itself_what_policies_ask() {
    let records: Vec<Record<'_>> = golden().into_iter().map(|(record, ..)| record).collect();
    assert_eq!(records[0].span(), (MINUTE, Timestamp(120_000_000)));
    assert_eq!(records[3].span(), (MINUTE, MINUTE));
    assert_eq!((records[5].span(), records[7].span()), (UNKNOWN_SPAN, UNKNOWN_SPAN));
    let names: Vec<_> = records.iter().map(|record| (record.pipeline(), record.key())).collect();
    assert_eq!(names[1..8], [("t", "k"), ("t", ""), ("t", "k"), ("t", "k"), ("", ""), ("t", ""), ("t", "k")]);
    assert!(
        records[5].is_report(ReportKind::Dropped, "outbox")
            && !records[5].is_report(ReportKind::Lost, "outbox")
    );
    assert!(
        !records[5].is_report(ReportKind::Dropped, "late")
            && !records[0].is_report(ReportKind::Dropped, "outbox")
    );
}

#[test]
fn bytes_of_a_newer_version_or_kind_are_refused() {
    for (record, bytes, _) in golden() {
        for (at, byte) in [(0, 2), (0, 0), (1, 6), (1, 0)] {
            let mut other = bytes.to_vec();
            other[at] = byte;
            assert!(Record::from_bytes(&other).is_err(), "{record:?}");
        }
    }
    assert!(Record::from_bytes(b"").is_err() && Record::from_bytes(b"\x01").is_err());
}

proptest! {
    #[test]
    fn a_record_reads_back_from_its_bytes(record in prop_oneof![4 => any_record(), 1 => any_opaque()]) {
        let bytes = record.to_bytes();
        prop_assert_eq!(Record::from_bytes(&bytes), Ok(record));
    }

    #[test]
    fn a_record_reads_back_from_its_line(record in any_record()) {
        let line = record.to_line();
        prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        prop_assert_eq!(Record::from_line(&line), Ok(record.clone()));
        prop_assert_eq!(Record::of_line(&line, "of another"), record);
    }

    #[test]
    fn a_record_cut_short_is_an_error_or_a_shorter_text(record in any_record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.to_bytes();
        let cut = cut.index(bytes.len());
        if let Ok(read) = Record::from_bytes(&bytes[..cut]) {
            prop_assert_eq!((read.pipeline(), read.key(), read.module()), (record.pipeline(), record.key(), record.module()));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), kind in 0..7u8) {
        let record = [&[1, kind][..], &bytes].concat();
        for bytes in [&bytes, &record] {
            drop(Record::from_bytes(bytes));
            drop(Record::from_line(bytes));
            prop_assert_eq!(Record::of_line(bytes, "p").to_line(), &bytes[..]);
        }
    }
}
