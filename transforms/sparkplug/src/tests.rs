use super::*;
use headwater_module::testing::{TransformProbe, event};
use payload::MetricValue;

fn metric(name: &str, alias: u64, datatype: u32, value: MetricValue) -> EdgeMetric {
    let name = (!name.is_empty()).then(|| name.to_owned());
    let datatype = name.is_some().then_some(datatype);
    EdgeMetric { name, alias: Some(alias), datatype, value: Some(value), ..EdgeMetric::default() }
}

fn message(seq: u64, metrics: &[EdgeMetric]) -> Vec<u8> {
    EdgePayload { timestamp: Some(1_700_000_000_000), metrics: metrics.to_vec(), seq: Some(seq) }
        .encode_to_vec()
}

fn probe() -> TransformProbe<SparkplugDecoder> {
    TransformProbe::new("{}").unwrap()
}

/// Key and payload of what comes out, in a line each.
fn send(probe: &mut TransformProbe<SparkplugDecoder>, topic: &str, payload: &[u8]) -> Result<String, String> {
    let mut event = event(payload);
    event.topic = format!("spBv1.0/plant/{topic}");
    let events = probe.process(event)?;
    let line = |event: &Event| format!("{} {}", event.key, str::from_utf8(&event.payload).unwrap());
    Ok(events.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn born() -> TransformProbe<SparkplugDecoder> {
    let mut probe = probe();
    send(&mut probe, "NBIRTH/edge", &message(0, &[metric("bdSeq", 0, 4, MetricValue::Long(3))])).unwrap();
    let metrics = [
        metric("Temperature", 7, 10, MetricValue::Double(20.0)),
        metric("Level", 39, 1, MetricValue::Int(255)),
    ];
    let found = send(&mut probe, "DBIRTH/edge/press", &message(1, &metrics)).unwrap();
    let expected = r#"plant/edge/press {"alive":true}
plant/edge/press/Temperature {"metric":"Temperature","value":20.0,"birth":true}
plant/edge/press/Level {"metric":"Level","value":-1,"birth":true}"#;
    assert_eq!(found, expected);
    probe
}

#[test]
fn data_has_the_names_and_types_of_the_birth() {
    let mut probe = born();
    let metrics = [metric("", 7, 0, MetricValue::Double(21.5)), metric("", 39, 0, MetricValue::Int(0xfe))];
    let found = send(&mut probe, "DDATA/edge/press", &message(2, &metrics)).unwrap();
    let expected = r#"plant/edge/press/Temperature {"metric":"Temperature","value":21.5}
plant/edge/press/Level {"metric":"Level","value":-2}"#;
    assert_eq!(found, expected);
}

#[test]
fn times_are_the_metrics_or_the_messages() {
    let mut probe = born();
    let own = EdgeMetric { timestamp: Some(1_600_000_000_123), ..metric("", 7, 0, MetricValue::Double(1.0)) };
    let mut event = event(message(2, &[own, metric("", 7, 0, MetricValue::Double(2.0))]));
    event.topic = "spBv1.0/plant/DDATA/edge/press".to_owned();
    let times: Vec<_> = probe.process(event).unwrap().iter().map(|event| event.time).collect();
    assert_eq!(times, [1_600_000_000_123_000, 1_700_000_000_000_000]);
}

#[test]
fn a_gap_in_the_sequence_is_refused_until_the_next_birth() {
    let mut probe = born();
    let data = |seq| message(seq, &[metric("", 7, 0, MetricValue::Double(1.0))]);
    let fault = send(&mut probe, "DDATA/edge/press", &data(3)).unwrap_err();
    assert!(fault.contains("the sequence number is 3, not 2: a message was lost"), "{fault}");
    let fault = send(&mut probe, "DDATA/edge/press", &data(2)).unwrap_err();
    assert!(fault.contains("has not given birth, or a message was lost since"), "{fault}");
    send(&mut probe, "NBIRTH/edge", &message(0, &[metric("Fan", 1, 11, MetricValue::Flag(true))])).unwrap();
    let fault = send(&mut probe, "DDATA/edge/press", &data(1)).unwrap_err();
    assert!(
        fault.contains("the birth named no metric 7"),
        "names of the birth before are not valid: {fault}"
    );
}

#[test]
fn the_sequence_goes_from_255_to_0_and_each_node_has_its_own() {
    let mut probe = born();
    send(&mut probe, "NBIRTH/other", &message(0, &[])).unwrap();
    for number in 2..600 {
        let data = message(number % 256, &[metric("", 7, 0, MetricValue::Double(1.0))]);
        send(&mut probe, "DDATA/edge/press", &data).unwrap();
    }
    send(&mut probe, "NDATA/other", &message(1, &[metric("Named", 9, 9, MetricValue::Float(1.5))])).unwrap();
}

#[test]
fn data_that_cannot_be_used_has_still_come_and_half_a_birth_is_none() {
    let mut probe = born();
    let unknown = message(2, &[metric("", 8, 0, MetricValue::Double(1.0))]);
    assert!(send(&mut probe, "DDATA/edge/press", &unknown).unwrap_err().contains("named no metric 8"));
    let data = message(3, &[metric("", 7, 0, MetricValue::Double(1.0))]);
    assert!(send(&mut probe, "DDATA/edge/press", &data).is_ok());
    let half = message(0, &[metric("Fan", 1, 11, MetricValue::Flag(true)), EdgeMetric::default()]);
    assert!(send(&mut probe, "NBIRTH/edge", &half).unwrap_err().contains("a metric has no name"));
    let fault = send(&mut probe, "NDATA/edge", &message(1, &[])).unwrap_err();
    assert!(fault.contains("has not given birth"), "{fault}");
}

#[test]
fn a_death_ends_it() {
    let mut probe = born();
    let found = send(&mut probe, "DDEATH/edge/press", &message(2, &[])).unwrap();
    assert_eq!(found, r#"plant/edge/press {"alive":false}"#);
    let will =
        EdgePayload { metrics: vec![metric("bdSeq", 0, 4, MetricValue::Long(3))], ..EdgePayload::default() };
    assert_eq!(
        send(&mut probe, "NDEATH/edge", &will.encode_to_vec()).unwrap(),
        r#"plant/edge {"alive":false}"#
    );
    let fault = send(&mut probe, "NDATA/edge", &message(3, &[])).unwrap_err();
    assert!(fault.contains("has not given birth"), "{fault}");
}

#[test]
fn every_type_of_value_is_json() {
    #[track_caller]
    fn check(datatype: u32, value: MetricValue, expected: &str) {
        assert_eq!(payload::json(&value, datatype).as_deref(), Some(expected));
    }
    check(1, MetricValue::Int(0x80), "-128");
    check(2, MetricValue::Int(0xffff), "-1");
    check(3, MetricValue::Int(u32::MAX), "-1");
    check(4, MetricValue::Long(u64::MAX), "-1");
    check(7, MetricValue::Int(u32::MAX), "4294967295");
    check(8, MetricValue::Long(u64::MAX), "18446744073709551615");
    check(9, MetricValue::Float(0.1), "0.1");
    check(10, MetricValue::Double(f64::NAN), "null");
    check(11, MetricValue::Flag(true), "true");
    check(12, MetricValue::Text("a\"b".to_owned()), r#""a\"b""#);
    check(17, MetricValue::Bytes(b"hi".to_vec()), "\"aGk\"");
    assert_eq!(payload::json(&MetricValue::Template(Vec::new()), 19), None);
}

#[test]
fn a_birth_of_thousands_of_aliases_fits() {
    let mut probe = probe();
    let long = "Plant/Hall/Line/Machine/Drive/Motor/Winding/Temperature";
    let metrics: Vec<_> = (0..20_000)
        .map(|alias| metric(&format!("{long}{alias}"), alias, 9, MetricValue::Float(1.0)))
        .collect();
    send(&mut probe, "NBIRTH/edge", &message(0, &metrics)).unwrap();
    let found =
        send(&mut probe, "NDATA/edge", &message(1, &[metric("", 19_999, 0, MetricValue::Float(2.0))]))
            .unwrap();
    assert!(found.ends_with(r#"Temperature19999","value":2.0}"#), "{found}");
}

#[test]
fn refuses_in_words_and_drops_what_is_not_a_nodes() {
    let mut probe = probe();
    let mut fault = |topic: &str, payload: &[u8]| send(&mut probe, topic, payload).unwrap_err();
    assert!(fault("NDATA/edge", &message(0, &[])).contains("its node has not given birth"));
    assert!(fault("NBIRTH/edge", b"\xff\xff").contains("failed to read the payload as Sparkplug B"));
    assert!(fault("NBIRTH/edge", &message(256, &[])).contains("a sequence number from 0 to 255"));
    assert!(fault("NBIRTH/edge", &message(0, &[EdgeMetric::default()])).contains("a metric has no name"));
    assert!(fault("NBIRTH/edge/device", b"").contains("is none of Sparkplug B"));
    assert!(fault("XDATA/edge", b"").contains("is none of Sparkplug B"));
    assert!(probe.payloads(b"").unwrap_err().contains("it begins with `spBv1.0/`"));
    assert_eq!(send(&mut probe, "NCMD/edge", b"\xff"), Ok(String::new()));
}

#[test]
fn whatever_comes_it_answers_with_json_or_a_reason() {
    let birth = message(
        0,
        &[
            metric("Temperature", 7, 10, MetricValue::Double(20.0)),
            metric("L", 3, 12, MetricValue::Text("x".into())),
        ],
    );
    let data = message(
        1,
        &[metric("", 7, 0, MetricValue::Long(u64::MAX)), metric("", 3, 0, MetricValue::Bytes(vec![1, 2]))],
    );
    let mut senders = [probe(), TransformProbe::again("{}").unwrap()];
    let mut taken = 0;
    // Payloads are made by the first, and sent to the second under topics of a node.
    let mut payloads = Vec::new();
    senders[0].provoke(&[&birth, &data], 10_000, |payload, _| payloads.push(payload.to_vec()));
    for (index, payload) in payloads.iter().enumerate() {
        let topic = ["NBIRTH/edge", "NDATA/edge", "DBIRTH/edge/press", "NDEATH/edge"][index % 4];
        for line in send(&mut senders[1], topic, payload).iter().flat_map(|lines| lines.lines()) {
            let json: Result<serde_json::Value, _> = serde_json::from_str(&line[line.find('{').unwrap()..]);
            json.unwrap_or_else(|error| panic!("{error}: {line}"));
            taken += 1;
        }
    }
    assert!(taken > 300, "{taken}");
}
