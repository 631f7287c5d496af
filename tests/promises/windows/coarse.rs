//! Built-in aggregates at the quota of their outbox: windows become wider, and no reading is lost or counted
//! twice.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::ledger::{check_ledger, wait_until_drained};
use headwater_tests::plant::{self, ConfigBuilder};
use headwater_tests::publisher::TestPublisher;
use serde_json::{Value, json};

use super::PATIENCE;
use super::naive::FoundResult;

/// 2026-01-01T00:00:00Z, in milliseconds.
const BEGIN: u64 = 1_767_225_600_000;
const READINGS: u64 = 7_000;
const DEVICES: u64 = 2;

/// Returns functions whose results are long and whose states are short.
fn compute() -> String {
    let bounds: Vec<u64> = (0..250).map(|bound| 1_000_000_000_000 + bound).collect();
    let mut compute = "\"count\", { sum = \"temperature\" }, { min = \"id\" }, { max = \"id\" }".to_owned();
    for number in 0..2 {
        write!(
            compute,
            ", {{ histogram = \"temperature\", bounds = {bounds:?}, as = \"histogram-{number}\" }}"
        )
        .expect("writing to a String cannot fail");
    }
    compute
}

/// Checks a window for each reading, far more than the outbox takes while the collector is away; in the
/// middle of it the agent is killed.
#[tokio::test(flavor = "multi_thread")]
async fn coarser_windows_of_built_ins_hold_each_reading_once_through_a_kill() {
    let broker = MosquittoBroker::start_unsaved().await;
    let mut collector = TestCollector::start().await;
    let body = format!(
        "key = \"{{topic[1]}}\"\ntime = {{ field = \"ts\", unit = \"ms\" }}\ncommit_every = \"100ms\"\n\
         window = {{ tumbling = \"10ms\" }}\nwhen_full = \"coarsen\"\naggregate = {{ compute = [{}] }}",
        compute()
    );
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &["plant/+/telemetry"], "3.1.1")
        .pipeline("windows", "plant", "central", &body)
        .output("central", &collector.url(), ", backoff_max = \"1s\"")
        .more("outbox = { bytes_max = \"16 MiB\" }\n");
    let mut agent = TestAgent::start(plan.toml()).await;
    collector.kill9();
    let publisher = TestPublisher::connect("devices", broker.port());
    for id in 0..=READINGS {
        let topic = format!("plant/device-{}/telemetry", id % DEVICES);
        publisher.publish(&topic, plant::payload(id, BEGIN + id * 10, id as f64)).await;
        if id == READINGS * 3 / 4 {
            publisher.confirmed().await;
            agent.wait_for_metric("pipeline_coarsened_results", "windows", 1, PATIENCE).await;
            agent.kill9();
            agent.spawn();
        }
    }
    publisher.confirmed().await;
    agent.ready().await;
    agent.wait_for_metric("pipeline_read_messages", "windows", READINGS + 1, PATIENCE).await;
    collector.restart().await;
    wait_until_drained(&agent, "central", PATIENCE).await;
    check_ledger(&agent).await;
    let metrics = agent.metrics().await.expect("the agent answers");
    assert_eq!(metrics.of("pipeline_dropped_results", "windows"), 0, "merging was enough");
    assert_eq!(metrics.of("pipeline_used_events", "windows"), READINGS + 1);
    check(&collector.results().await, metrics.of("pipeline_results", "windows"));
    assert!(agent.dead_letters().await.is_empty());
}

/// Checks that every reading but the last, whose window is open, is in one window of its device.
fn check(lines: &[Value], made: u64) {
    assert!((lines.len() as u64) < made, "{} windows out of {made}", lines.len());
    let mut next: BTreeMap<String, u64> = (0..DEVICES).map(|id| (format!("device-{id}"), id)).collect();
    let mut lines: Vec<_> = lines.iter().map(|line| (FoundResult::of(line).place, line)).collect();
    lines.sort_by_key(|(place, _)| place.start);
    for (place, line) in lines {
        let value = &line["value"];
        let next = next.get_mut(&place.key).expect("a device");
        let ids: Vec<u64> = (0..)
            .map(|number| *next + number * DEVICES)
            .take_while(|id| ((BEGIN + id * 10) * 1_000).cast_signed() < place.end)
            .collect();
        let first = *next;
        let last = *ids.last().unwrap_or_else(|| panic!("two windows of one reading: {line}"));
        let begin = ((BEGIN + first * 10) * 1_000).cast_signed();
        assert!(place.start <= begin, "a reading of {} is in no window before {line}", place.key);
        assert_eq!((&line["count"], &value["count"]), (&json!(ids.len()), &json!(ids.len())), "{line}");
        assert_eq!((&value["min_id"], &value["max_id"]), (&json!(first), &json!(last)), "{line}");
        assert_eq!(value["sum_temperature"], json!(ids.iter().sum::<u64>()), "{line}");
        for name in ["histogram-0", "histogram-1"] {
            assert_eq!(value[name]["counts"][0], json!(ids.len()), "{line}");
        }
        *next = last + DEVICES;
    }
    let held: Vec<u64> = next.into_values().collect();
    assert!(held.iter().all(|next| *next >= READINGS), "up to {held:?} of {READINGS}");
}
