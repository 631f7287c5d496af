//! `priority = "live"`: after an outage the newest results come first, the backlog beside them, and
//! each counts once; without it, order is kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::RumqttdBroker;
use headwater_tests::collector::{self, TestCollector};
use headwater_tests::ledger::check_balance;
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::eventually;
use headwater_tests::proxy::{FaultDirection, FaultProxy, ProxyMode};
use headwater_tests::publisher::TestPublisher;
use serde_json::Value;

use crate::upstream::publish;

const SOON: Duration = Duration::from_secs(60);

/// Returns the ids in the order in which the collector stored them.
fn stored_ids(results: &[Value], pipeline: &str) -> Vec<u64> {
    let of = results.iter().filter(|line| line["pipeline"] == pipeline);
    of.map(|line| line["value"]["id"].as_u64().expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn live_results_overtake_the_backlog_of_an_outage_and_others_do_not() {
    let collector = TestCollector::start().await;
    let broker = RumqttdBroker::start().await;
    let proxy = FaultProxy::start(collector.port()).await;
    let live = format!("{}priority = \"live\"\n", plant::forwarded(KEY));
    let more = ", timeout = \"2s\", backoff_max = \"1s\", results_max = 10";
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "3.1.1")
        .pipeline("live", "plant", "central", &live)
        .pipeline("ordered", "plant", "central", &plant::forwarded(KEY))
        .output("central", &collector::url(proxy.port()), more);
    let mut agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(5);

    proxy.set(ProxyMode::Cut);
    publish(&publisher, &mut load, 4_000).await;
    for pipeline in ["live", "ordered"] {
        agent.wait_for_metric("pipeline_results", pipeline, load.published(), SOON).await;
    }
    agent.kill9();
    agent.resume().await;
    agent.wait_for_metric("output_pending_results", "central", 8_000, SOON).await;

    let backlog = load.published();
    // On such a slow link the backlog takes about half a minute.
    proxy.set(ProxyMode::Delay(FaultDirection::Down, Duration::from_millis(30)));
    agent.wait_for_metric("output_delivered_results", "central", 10, SOON).await;
    let returned = Instant::now();
    publish(&publisher, &mut load, 20).await;
    // The collector answers at once when it is asked only for the newest page, even while there is a backlog.
    eventually("the new results at the collector", SOON, async || {
        let results = collector.results().await;
        let ids = stored_ids(&results, "live");
        ids.iter().filter(|id| **id >= backlog).count().eq(&20).then_some(())
    })
    .await;
    let waited = returned.elapsed();
    let pending = agent.metrics().await.unwrap().of("output_pending_results", "central");
    eprintln!("live results arrived {waited:?} after the return, {pending} were still waiting");
    assert!(pending >= 1_000, "the backlog had drained before: only {pending} left");
    assert!(waited < Duration::from_secs(15), "{waited:?}");

    // The kill comes in the middle of the drain, while the outbox is cut in two.
    agent.kill9();
    agent.resume().await;
    agent.wait_for_metric("output_pending_results", "central", 1_000, SOON).await;
    proxy.set(ProxyMode::Pass);
    for pipeline in ["live", "ordered"] {
        check_balance(&agent, pipeline, "central", load.published(), SOON * 2).await;
    }
    let results = collector.results().await;
    for pipeline in ["live", "ordered"] {
        assert_eq!(plant::ids(&results, pipeline), (0..load.published()).collect::<Vec<_>>(), "{pipeline}");
    }
    assert!(!stored_ids(&results, "live").is_sorted(), "something overtook");
    let mut keys: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for line in results.iter().filter(|line| line["pipeline"] == "ordered") {
        keys.entry(line["key"].as_str().unwrap()).or_default().push(line["value"]["id"].as_u64().unwrap());
    }
    assert_eq!(keys.len(), 5);
    assert!(keys.values().all(|ids| ids.is_sorted()), "order is kept for each key");
}
