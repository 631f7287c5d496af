//! The output for events, as lines: for `test`, which compares them, and `try`, which shows them.
//!
//! `{"event":{"topic","key","time","payload"}}` for each event that a transform gives, and
//! `{"rejected":{"index","reason"}}` for each input refused; `{"key","window":[start,end],"result":{…}}` for each window
//! of an aggregate.

use super::samples;
use headwater_agent::flow::{Event, Timestamp, micros};
use headwater_agent::module::{AggregateModule, Closed, Group, TransformModule};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Returns the output for one event, which is the input `index`.
pub(super) fn of_event(module: &mut TransformModule, index: usize, event: &Event) -> Vec<Value> {
    let (events, rejected) = module.process(std::slice::from_ref(event));
    let events = events.iter().map(|event| {
        let (name, payload) = samples::payload(&event.payload);
        let time = event.time.to_string();
        json!({ "event": { "topic": event.topic, "key": event.key, "time": time, name: payload } })
    });
    let rejected = rejected.into_iter().map(|one| rejection(index, &one.reason));
    events.chain(rejected).collect()
}

/// Returns the output for all events in tumbling windows: the windows by start and key, then the rejections.
pub(super) fn of_windows(module: &mut AggregateModule, events: &[Event], window: Duration) -> Vec<Value> {
    let size = micros(window).max(1);
    let mut windows: BTreeMap<(u64, &str), Vec<usize>> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        let start = event.time.0 - event.time.0 % size;
        windows.entry((start, &event.key)).or_default().push(index);
    }
    let mut lines = Vec::new();
    let mut rejected = BTreeMap::new();
    for ((start, key), indexes) in windows {
        let end = Timestamp(start.saturating_add(size));
        let start = Timestamp(start);
        let sample = |index: &usize| (events[*index].time, events[*index].payload.clone());
        let samples = indexes.iter().map(sample).collect();
        let group = Group { key: key.to_owned(), start, end, state: Vec::new(), samples };
        let Some(updated) = module.update(&[group]).pop() else { continue };
        let count = (indexes.len() - updated.rejected.len()) as u64;
        rejected.extend(updated.rejected.into_iter().map(|one| (indexes[one.index], one.reason)));
        if count == 0 {
            continue;
        }
        let state = updated.state;
        let closed = Closed { key: key.to_owned(), start, end, state, count, late: 0, revision: 0 };
        let window = [start.to_string(), end.to_string()];
        lines.extend(module.finish(&[closed]).into_iter().map(|result| match result {
            Ok(result) => {
                let result: Value = serde_json::from_slice(&result).unwrap_or_default();
                json!({ "key": key, "window": window, "result": result })
            }
            Err(reason) => json!({ "key": key, "window": window, "refused": reason }),
        }));
    }
    lines.extend(rejected.into_iter().map(|(index, reason)| rejection(index, &reason)));
    lines
}

fn rejection(index: usize, reason: &str) -> Value {
    json!({ "rejected": { "index": index, "reason": reason } })
}
