//! The limits of a window, through the whole agent and a kill: parts, keys, forgetting, early results, and
//! devices that fall silent.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::{check_balance, wait_until_drained};
use headwater_tests::plant::{self, ConfigBuilder};
use headwater_tests::publisher::TestPublisher;
use headwater_tests::windows_oracle::{OracleReading, WindowId, WindowRule, contents};
use serde_json::Value;

use super::naive::{AggregateKind, FoundResult};
use super::{HOUR, MINUTE, PATIENCE, SECOND, publish, seed};

/// 2026-01-01T00:00:00Z.
const BEGIN: u64 = 1_767_225_600 * SECOND;
const READINGS: u64 = 1_600;
const DEVICES: u64 = 6;

/// The length of a window, and the most readings, bytes of them, and keys in it.
#[derive(Clone, Copy)]
struct TumblingBounds {
    size: u64,
    readings: usize,
    bytes: usize,
    keys: usize,
    overflow: bool,
}

const NONE: TumblingBounds =
    TumblingBounds { size: HOUR, readings: usize::MAX, bytes: usize::MAX, keys: usize::MAX, overflow: false };

/// The expected content of each closed window, and the number of readings with one key too many.
type Expected<'a> = (BTreeMap<WindowId, Vec<&'a OracleReading>>, u64);

/// Computes window by window, reading by reading, for devices none of which is ever behind.
fn tumbling(readings: &[OracleReading], bounds: TumblingBounds) -> Expected<'_> {
    let mut all = BTreeMap::<WindowId, Vec<&OracleReading>>::new();
    let mut refused = 0;
    let mut now = 0;
    let bytes = |inside: &[&OracleReading]| -> usize {
        let number = |reading: &OracleReading| readings.iter().position(|other| std::ptr::eq(other, reading));
        inside.iter().map(|it| payload(number(it).expect("one of them"), it).len()).sum()
    };
    for reading in readings {
        let start = reading.time / bounds.size * bounds.size;
        let open = |all: &BTreeMap<WindowId, Vec<&OracleReading>>| {
            let mut keys: Vec<_> = all.keys().filter(|it| it.end > now).map(|it| it.key.clone()).collect();
            keys.dedup();
            keys
        };
        let keys = open(&all);
        let mut key = reading.key.clone();
        if !keys.contains(&key) && keys.len() >= bounds.keys {
            if !bounds.overflow {
                refused += 1;
                continue;
            }
            key = "(overflow)".to_owned();
        }
        now = now.max(reading.time.cast_signed());
        let end = (start + bounds.size).cast_signed();
        let start = start.cast_signed();
        let place = |part| WindowId { key: key.clone(), start, end, part };
        let is_full =
            |inside: &Vec<&OracleReading>| inside.len() >= bounds.readings || bytes(inside) >= bounds.bytes;
        let part = (0..).find(|part| !all.get(&place(*part)).is_some_and(is_full)).expect("a next part");
        all.entry(place(part)).or_default().push(reading);
    }
    let is_full =
        |inside: &Vec<&OracleReading>| inside.len() >= bounds.readings || bytes(inside) >= bounds.bytes;
    all.retain(|place, inside| place.end <= now || is_full(inside));
    (all, refused)
}

/// Computes windows of three readings of a device, begun anew after a silence of two hours.
fn counted(readings: &[OracleReading]) -> Expected<'_> {
    let mut all = BTreeMap::new();
    let mut now = 0;
    let mut runs = BTreeMap::<&str, Vec<&OracleReading>>::new();
    let newest = readings.iter().map(|reading| reading.time).max().unwrap_or_default();
    for reading in readings {
        let run = runs.entry(&reading.key).or_default();
        if run.last().is_some_and(|last| last.time + 2 * HOUR <= now) {
            run.clear();
        }
        run.push(reading);
        now = now.max(reading.time);
        if run.len().is_multiple_of(3) && reading.time < newest {
            let inside = run[run.len() - 3..].to_vec();
            let start = inside[0].time.cast_signed();
            let end = reading.time.cast_signed() + 1;
            let part = (run.len() / 3 - 1) as u64;
            all.insert(WindowId { key: reading.key.clone(), start, end, part }, inside);
        }
    }
    (all, 0)
}

/// Computes the sessions that have closed.
fn sessions(readings: &[OracleReading]) -> Expected<'_> {
    let newest = readings.iter().map(|reading| reading.time).max().unwrap_or_default();
    let mut all = contents(readings, &WindowRule::Session { gap: 20 * MINUTE, longest: None });
    all.retain(|place, _| place.end <= newest.cast_signed());
    (all, 0)
}

fn payload(id: usize, reading: &OracleReading) -> Vec<u8> {
    plant::payload(id as u64, reading.time / 1_000, reading.value)
}

/// Returns readings none of which is behind another, several at one time; now and then some devices, or all,
/// are silent for hours.
fn load(seed: u64) -> Vec<OracleReading> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut time = BEGIN;
    let mut readings = Vec::new();
    for number in 0..READINGS {
        time += if number % 200 == 199 { 3 * HOUR } else { rng.u64(0..4) * MINUTE };
        let awake = if number / 100 % 3 == 1 { 3 } else { DEVICES };
        let key = format!("device-{}", rng.u64(0..awake));
        readings.push(OracleReading { key, time, value: f64::from(rng.u16(0..1_000)) / 8.0 });
    }
    // The last reading is of a device that has an open window, so that its key is never one too many.
    let last = readings[readings.len() - 1].clone();
    readings.push(OracleReading { time: time + 10 * HOUR, ..last });
    readings
}

fn plan(
    cases: &[(&str, &str, Expected<'_>)],
    broker: &MosquittoBroker,
    collector: &TestCollector,
) -> ConfigBuilder {
    let stamped = "key = \"{topic[1]}\"\ntime = { field = \"ts\", unit = \"ms\" }\ncommit_every = \"100ms\"";
    let aggregate = AggregateKind::BuiltIn.toml();
    let mut plan = ConfigBuilder::default()
        .input("plant", broker.port(), &["plant/+/telemetry"], "3.1.1")
        .input("quiet", broker.port(), &["quiet/+/telemetry"], "3.1.1")
        .output("central", &collector.url(), "");
    for (name, window, _) in cases {
        let body = format!("{stamped}\nwindow = {{ {window} }}\naggregate = {aggregate}");
        plan = plan.pipeline(name, "plant", "central", &body);
    }
    for (name, window) in [("idle-tumbling", r#"tumbling = "10s""#), ("idle-session", r#"session = "2s""#)] {
        let body = format!("{stamped}\nwindow = {{ {window}, idle = \"1s\" }}\naggregate = {aggregate}");
        plan = plan.pipeline(name, "quiet", "central", &body);
    }
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bounds_windows_holds_through_a_kill() {
    let seed = seed();
    let readings = load(seed);
    let keys = |overflow| TumblingBounds { keys: 3, overflow, ..NONE };
    let cases = [
        (
            "parts-of-readings",
            r#"tumbling = "1h", readings_max = 4"#,
            tumbling(&readings, TumblingBounds { readings: 4, ..NONE }),
        ),
        (
            "parts-of-bytes",
            r#"tumbling = "6h", bytes_max = "1 KiB""#,
            tumbling(&readings, TumblingBounds { size: 6 * HOUR, bytes: 1_024, ..NONE }),
        ),
        ("keys-rejected", r#"tumbling = "1h", keys_max = 3"#, tumbling(&readings, keys(false))),
        (
            "keys-overflow",
            r#"tumbling = "1h", keys_max = 3, when_keys_full = "overflow""#,
            tumbling(&readings, keys(true)),
        ),
        ("forgotten", r#"count = 3, forget = "2h""#, counted(&readings)),
        ("early-tumbling", r#"tumbling = "1h", early = "5m""#, tumbling(&readings, NONE)),
        ("early-session", r#"session = "20m", early = "5m""#, sessions(&readings)),
    ];
    let broker = MosquittoBroker::start_unsaved().await;
    let collector = TestCollector::start().await;
    let mut agent = TestAgent::start(plan(&cases, &broker, &collector).toml()).await;
    let publisher = TestPublisher::connect("devices", broker.port());
    for second in [1, 2, 3] {
        let time = BEGIN + second * SECOND;
        publisher.publish("quiet/sensor/telemetry", plant::payload(second, time / 1_000, 1.0)).await;
    }
    for (id, reading) in readings.iter().enumerate() {
        if id == readings.len() / 2 {
            publisher.confirmed().await;
            agent.wait_for_metric("pipeline_read_messages", "forgotten", 1, PATIENCE).await;
            agent.kill9();
            agent.spawn();
        }
        publish(&publisher, id, reading).await;
    }
    publisher.confirmed().await;
    agent.ready().await;
    let mut refused = 0;
    for (name, _, expected) in &cases {
        let metrics = check_balance(&agent, name, "central", readings.len() as u64, PATIENCE).await;
        let late = metrics.of("pipeline_late_events", name);
        let rejected = metrics.of("pipeline_rejected_events", name);
        assert_eq!((late, rejected), (0, expected.1), "{name}, seed {seed}");
        refused += expected.1;
    }
    for name in ["idle-tumbling", "idle-session"] {
        agent.wait_for_metric("pipeline_results", name, 1, PATIENCE).await;
        check_balance(&agent, name, "central", 3, PATIENCE).await;
    }
    wait_until_drained(&agent, "central", Duration::from_secs(30)).await;
    let lines = collector.results().await;
    for (name, _, expected) in &cases {
        let found = lines.iter().filter(|line| line["pipeline"] == *name).collect();
        check(name, expected.0.clone(), found, seed);
    }
    check_silent(&lines);
    for name in ["parts-of-readings", "parts-of-bytes"] {
        let parts = lines.iter().filter(|line| line["pipeline"] == name && line["window"]["part"] == 1);
        assert!(parts.count() > 20, "{name}, seed {seed}: windows have parts");
    }
    let revised = |line: &&Value| line["revision"] != 0 && line["pipeline"] == "early-tumbling";
    assert!(lines.iter().filter(revised).count() > 100, "seed {seed}: there were early results");
    let letters = agent.dead_letters().await;
    let of_keys =
        letters.iter().filter(|it| it["reason"].as_str().is_some_and(|it| it.contains("too many keys")));
    assert_eq!((letters.len() as u64, of_keys.count() as u64), (refused, refused), "seed {seed}");
    assert!(refused > 100, "seed {seed}: the load has keys too many");
}

/// Checks that each window is there once, as it was when it closed.
fn check(name: &str, mut expected: BTreeMap<WindowId, Vec<&OracleReading>>, lines: Vec<&Value>, seed: u64) {
    assert!(expected.len() > 50, "{name}, seed {seed}: {} windows", expected.len());
    // A window may have given a provisional result and still be open: that is no final result.
    for line in lines.into_iter().filter(|line| line["early"] != true) {
        let found = FoundResult::of(line);
        let inside = expected.remove(&found.place);
        let inside = inside.unwrap_or_else(|| panic!("{name}, seed {seed}: not expected, or twice: {line}"));
        let same = AggregateKind::BuiltIn.check(&inside, &found);
        assert_eq!(same, Ok(()), "{name}, seed {seed}: {line}");
    }
    assert!(expected.is_empty(), "{name}, seed {seed}: missing {expected:#?}");
}

/// Checks three readings followed by silence: the host's clock closed their window, once.
fn check_silent(lines: &[Value]) {
    for (name, start, end) in
        [("idle-tumbling", BEGIN, BEGIN + 10 * SECOND), ("idle-session", BEGIN + SECOND, BEGIN + 5 * SECOND)]
    {
        let found: Vec<_> = lines.iter().filter(|line| line["pipeline"] == name).collect();
        let place = FoundResult::of(found[0]).place;
        let expected = (start.cast_signed(), end.cast_signed());
        assert_eq!((found.len(), place.start, place.end), (1, expected.0, expected.1), "{name}: {found:?}");
        assert_eq!(
            (&found[0]["count"], &found[0]["value"]["sum_temperature"]),
            (&3.into(), &3.into()),
            "{name}"
        );
    }
}
