//! The readings that modules are measured with.

use headwater_flow::{Event, Timestamp};

/// The number of events.
pub(crate) const BATCH: usize = 256;

/// Returns the events of a sensor of some measured quantities.
pub(crate) fn events() -> Vec<Event> {
    let event = |n: usize| {
        Event {
        topic: format!("plant/line-{}/telemetry", n % 7),
        key: format!("line-{}", n % 7),
        time: Timestamp(1_700_000_000_000_000 + n as u64),
        payload: format!(
            r#"{{"device":"press-{n:03}","ts":17000000{n:05},"temperature":{}.{},"pressure":101.325,"ok":true}}"#,
            60 + n % 40,
            n % 10
        )
        .into_bytes(),
    }
    };
    (0..BATCH).map(event).collect()
}
