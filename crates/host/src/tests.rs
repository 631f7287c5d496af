//! The faults of modules that the agent must survive, and the answers that it must get right.

mod aggregates;
mod library;
mod lies;
mod loading;
mod stateful;
mod transforms;
mod wasi;

use super::{AggregateModule, ModuleHost, ModuleLimits, TransformModule};
use crate::CallMetrics;
use headwater_flow::{Event, Timestamp};
use std::path::Path;
use std::time::{Duration, Instant};

/// The deadline is short, since each test that meets it meets it some times.
fn limits() -> ModuleLimits {
    ModuleLimits { deadline: Duration::from_millis(200), ..ModuleLimits::default() }
}

/// The same; but what does not loop is to meet another limit first, however busy the machine is.
fn limits_of(config: &str) -> ModuleLimits {
    if config.contains("loop") {
        limits()
    } else {
        ModuleLimits { deadline: Duration::from_secs(5), ..limits() }
    }
}

#[track_caller]
fn transform(path: &str, config: &str) -> TransformModule {
    let host = ModuleHost::new(None).unwrap();
    host.transform(Path::new(path), config, &limits_of(config), &CallMetrics::default()).unwrap()
}

#[track_caller]
fn aggregate(path: &str, config: &str) -> AggregateModule {
    let host = ModuleHost::new(None).unwrap();
    host.aggregate(Path::new(path), config, &limits_of(config), &CallMetrics::default()).unwrap()
}

fn event(payload: &str) -> Event {
    let topic = "plant/1/telemetry".to_owned();
    let key = "1".to_owned();
    Event { topic, key, time: Timestamp(1_700_000_000_000_000), payload: payload.into() }
}

/// Runs it and fails when it took longer than a bounded number of deadlines can.
#[track_caller]
fn in_time<R>(run: impl FnOnce() -> R) -> R {
    let started = Instant::now();
    let result = run();
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
    result
}
