//! Readings that come too late for their windows, on their way to an output of their own that is away.

use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::destination::FakeDestination;
use headwater_tests::ledger::{check_ledger, wait_until_drained};
use headwater_tests::plant::{ConfigBuilder, KEY, TOPICS};
use headwater_tests::publisher::TestPublisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// 2026-01-01T00:00:00Z.
const BEGIN: u64 = 1_767_225_600_000;

/// Returns a reading so large that some thousands fill a quota.
fn payload(id: u64, millis: u64) -> Vec<u8> {
    let filling = "x".repeat(3_600);
    json!({ "id": id, "ts": BEGIN + millis, "filling": filling }).to_string().into_bytes()
}

fn windowed(late: &str) -> String {
    format!(
        "key = {KEY:?}\ntime = {{ field = \"ts\", unit = \"ms\" }}\nwindow = {{ tumbling = \"1m\" }}\n\
         aggregate = {{ compute = [\"count\"] }}\ncommit_every = \"100ms\"\nlate = {{ {late} }}\n"
    )
}

fn ids(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["value"]["id"].as_u64()).collect()
}

/// Returns the lines of the confirmed batches, in the order of their numbers.
fn confirmed_lines(destination: &FakeDestination) -> Vec<Value> {
    let mut batches: Vec<(u64, Vec<Value>)> = Vec::new();
    for request in destination.requests().into_iter().filter(|request| request.confirmed) {
        batches.push((request.key.first, request.lines));
    }
    batches.sort_by_key(|(first, _)| *first);
    assert!(batches.is_sorted_by(|(a, _), (b, _)| a < b), "a batch was confirmed twice");
    batches.into_iter().flat_map(|(_, lines)| lines).collect()
}

/// Checks two pipelines whose late readings go to an output that is away: the one that waits for it does not
/// hold up the other, whose results go on arriving.
#[tokio::test(flavor = "multi_thread")]
async fn at_the_quota_of_a_late_output_each_policy_keeps_its_promise() {
    let broker = RumqttdBroker::start().await;
    let central = TestCollector::start().await;
    let mut stores = [FakeDestination::start([]).await, FakeDestination::start([]).await];
    let mut plan = ConfigBuilder::default().input("plant", broker.port(), &[TOPICS], "3.1.1").output(
        "central",
        &central.url(),
        "",
    );
    for (policy, store) in ["block", "drop-oldest"].iter().zip(&stores) {
        let late = format!("output = {policy:?}, when_full = {policy:?}");
        plan = plan
            .pipeline(policy, "plant", "central", &windowed(&late))
            .output(policy, &store.url(), ", results_max = 1000, backoff_max = \"1s\"")
            .more("late = { bytes_max = \"16 MiB\" }\n");
    }
    let agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    for store in &mut stores {
        store.stop_listening().await;
    }
    let topic = "plant/line-0/dev-0/telemetry";
    let count = 6_500;
    publisher.publish(topic, payload(0, 3_600_000)).await;
    for id in 1..=count {
        publisher.publish(topic, payload(id, id)).await;
    }
    publisher.publish(topic, payload(count + 1, 7_200_000)).await;
    publisher.confirmed().await;
    agent.wait_for_metric("pipeline_blocked", "block", 1, SOON).await;
    agent.wait_for_metric("pipeline_sent_late_events", "drop-oldest", count, SOON).await;
    agent.wait_for_metric("pipeline_dropped_late_events", "drop-oldest", 1, SOON).await;
    let results = central.wait_for_results(1).await;
    assert_eq!((results.len(), &results[0]["pipeline"]), (1, &json!("drop-oldest")), "results go on");
    let metrics = agent.metrics().await.expect("the agent answers");
    for store in ["block", "drop-oldest"] {
        let log = format!("outbox/{store}.late");
        let bytes = metrics.of("store_bytes", &log);
        let quota = metrics.of("store_quota_bytes", &log);
        assert_eq!(quota, 16 * MIB);
        assert!(bytes > 10 * MIB && bytes < quota + 4 * MIB, "{bytes} bytes in {log}");
    }

    for store in &mut stores {
        store.listen_again().await;
    }
    for store in ["block", "drop-oldest"] {
        agent.wait_for_metric("pipeline_sent_late_events", store, count, SOON).await;
        wait_until_drained(&agent, store, SOON).await;
    }
    let all: Vec<u64> = (1..=count).collect();
    assert_eq!(ids(&stores[0].accepted_lines()), all, "block loses nothing and keeps the order");
    let oldest = confirmed_lines(&stores[1]);
    let reports = oldest.iter().filter(|line| line["report"]["stage"] == "late");
    let dropped: u64 = reports.map(|line| line["report"]["count"].as_u64().expect("a count")).sum();
    let kept = ids(&oldest);
    assert!(kept.is_sorted_by(|a, b| a < b) && kept.last() == Some(&count), "the newest were kept");
    assert_eq!(kept.len() as u64 + dropped, count, "received and reported are all");
    assert_eq!(central.wait_for_results(2).await.len(), 2);
    let book = agent.status().await.expect("the agent answers")["ledger"]["counts"].take();
    assert_eq!(book["outputs"]["drop-oldest"]["late"], count);
    assert_eq!(book["outputs"]["drop-oldest"]["dropped"], dropped);
    assert_eq!(book["pipelines"]["block"]["late"], count);
    check_ledger(&agent).await;
}
