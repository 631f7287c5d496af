//! Inputs that any module has to answer, with events or rejections.

use headwater_agent::flow::{Event, Timestamp};

/// Returns payloads of any bytes.
pub(super) fn payloads() -> Vec<Vec<u8>> {
    let mut payloads: Vec<Vec<u8>> = [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"true",
        b"0",
        b"-1.5e-3",
        b"1e999",
        b"NaN",
        b"\"text\"",
        b"{\"",
        b"{\"a\":",
        b"{\"a\":1}}",
        b"{\"a\":1,\"a\":2}",
        b"{\"a\":{\"b\":[1,{\"c\":null}]}}",
        b"{\"a\":9007199254740993,\"b\":123456789012345678901234567890}",
        b"{\"a\":\"\\ud800\",\"b\":\"\\u0000\"}",
        b"\xff\xfe{\"a\":1}",
        b"{\"a\":\"\xc3\x28\"}",
        b"\xed\xa0\x80",
        b" \t\r\n",
    ]
    .iter()
    .map(|bytes| bytes.to_vec())
    .collect();
    payloads.push((0..=255).collect());
    payloads.push([[b'['; 100], [b']'; 100]].concat());
    payloads.push([b"{\"a\":\"", [b'x'; 65_536].as_slice(), b"\"}"].concat());
    payloads
}

/// Texts of any script.
const TEXTS: [&str; 9] = [
    "",
    "plant/7/temperature",
    "Straße/Größe",
    "温度/センサー",
    "درجة الحرارة",
    "e\u{301}\u{200d}👩‍🏭",
    "\u{0}\u{7f}\u{feff}",
    "\u{10ffff}\u{ffff}",
    " \t\n\"\\",
];

/// Returns events whose texts are of any script, in topic, key and payload.
pub(super) fn texts() -> Vec<Event> {
    let times = [0, 1, 1_767_225_600_000_000, (1 << 53) - 1];
    TEXTS
        .iter()
        .zip(times.iter().cycle())
        .map(|(text, time)| Event {
            topic: (*text).to_owned(),
            key: (*text).to_owned(),
            time: Timestamp(*time),
            payload: serde_json::json!({ *text: *text }).to_string().into_bytes(),
        })
        .collect()
}

/// Returns an event of each payload.
pub(super) fn bytes() -> Vec<Event> {
    let event = |payload| Event {
        topic: "any/bytes".to_owned(),
        key: "bytes".to_owned(),
        time: Timestamp(1_767_225_600_000_000),
        payload,
    };
    payloads().into_iter().map(event).collect()
}

/// Returns the samples, with all of the above between them.
pub(super) fn mixed(samples: &[Event]) -> Vec<Event> {
    let mut events = bytes();
    events.extend(texts());
    let mut mixed = Vec::with_capacity(events.len() + samples.len());
    let mut samples = samples.iter().cloned();
    for event in events {
        mixed.extend(samples.next());
        mixed.push(event);
    }
    mixed.extend(samples);
    mixed
}

/// Returns the events without the large ones, of which many would take the time of all the others.
pub(super) fn small(events: &[Event]) -> Vec<Event> {
    events.iter().filter(|event| event.payload.len() < 1024).cloned().collect()
}
